-- What a device of another make said of a block, to tell when it counts no more (swarm/transport/delivery.py).

ALTER TABLE delivery_node ADD COLUMN received INTEGER DEFAULT 0;
ALTER TABLE delivery_node ADD COLUMN said_next INTEGER DEFAULT 0;
ALTER TABLE delivery_node ADD COLUMN said_frames INTEGER DEFAULT 0;
