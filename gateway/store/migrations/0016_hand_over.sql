-- Experts on their way to nodes (swarm/hand_over.py): which (bit e: expert e), in which large block.

CREATE TABLE hand_over (
    dev_eui TEXT PRIMARY KEY,
    experts INTEGER,
    descriptor TEXT,
    since_us INTEGER
) STRICT;
