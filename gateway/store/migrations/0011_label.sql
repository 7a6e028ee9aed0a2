-- Labels that nodes are still to be told (swarm/labels.py): of the day with this noon, or of an observation.

CREATE TABLE label (
    key TEXT PRIMARY KEY,
    dev_eui TEXT,
    label INTEGER,
    noon_us INTEGER,
    observation INTEGER,
    made_us INTEGER,
    left INTEGER
) STRICT;
