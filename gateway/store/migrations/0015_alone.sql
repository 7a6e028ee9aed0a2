-- Nodes behind a network server get large blocks one by one (swarm/transport/delivery.py); what the server calls a
-- device is needed to send to one that is always on (swarm/server_nodes.py).

ALTER TABLE delivery_node ADD COLUMN alone INTEGER DEFAULT 0;
ALTER TABLE server_node ADD COLUMN device TEXT DEFAULT '';
