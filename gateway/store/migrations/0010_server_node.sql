-- Nodes behind somebody else's network server: which of their frames were taken (swarm/server_nodes.py).

CREATE TABLE server_node (
    dev_eui TEXT PRIMARY KEY,
    session TEXT,
    earlier TEXT,
    f_cnt_up INTEGER,
    taken INTEGER
) STRICT;
