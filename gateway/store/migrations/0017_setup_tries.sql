-- How often a device of another make was told to set its clock and the group's start was put off for it, and
-- whether its clock is wrong now (swarm/transport/group_setup.py): bounds hold over restarts.

ALTER TABLE delivery_node ADD COLUMN resyncs INTEGER DEFAULT 0;
ALTER TABLE delivery_node ADD COLUMN delays INTEGER DEFAULT 0;
ALTER TABLE delivery_node ADD COLUMN is_wrong INTEGER DEFAULT 0;
