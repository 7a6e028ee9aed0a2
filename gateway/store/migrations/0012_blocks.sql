-- Large blocks: what is delivered, how far, who has it (swarm/large_blocks); what devices of another make need.

ALTER TABLE node ADD COLUMN gen_app_key BLOB;
ALTER TABLE multicast ADD COLUMN mc_key BLOB;

CREATE TABLE block (
    name TEXT PRIMARY KEY,
    block BLOB,
    frag_size INTEGER,
    version INTEGER,
    "index" INTEGER,
    "group" INTEGER,
    descriptor BLOB,
    session_cnt INTEGER,
    block_ack_delay INTEGER,
    loss REAL,
    repair_max INTEGER,
    stragglers INTEGER,
    ack_reception INTEGER
) STRICT;

CREATE TABLE delivery (
    name TEXT PRIMARY KEY,
    state TEXT,
    created_us INTEGER,
    since_us INTEGER,
    start_us INTEGER,
    until_us INTEGER,
    ends_us INTEGER,
    frames INTEGER,
    airtime_us INTEGER,
    phase INTEGER,
    next INTEGER,
    last INTEGER,
    polls INTEGER,
    polls_before INTEGER,
    confirms INTEGER,
    listen_until_us INTEGER,
    poll_all INTEGER,
    result TEXT
) STRICT;

CREATE TABLE delivery_node (
    key TEXT PRIMARY KEY,
    state INTEGER,
    reason TEXT,
    by_pieces INTEGER,
    acknowledge INTEGER,
    renewals INTEGER,
    missing INTEGER,
    poll INTEGER,
    owed INTEGER,
    frames INTEGER,
    tries INTEGER,
    setup INTEGER
) STRICT;
