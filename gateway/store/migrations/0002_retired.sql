-- Counters of keys that went out of use (swarm/retired.py); "fingerprint" is a hash of the keys.
CREATE TABLE retired (
    fingerprint TEXT PRIMARY KEY,
    f_cnt_up INTEGER,
    f_cnt_down INTEGER,
    dev_nonce INTEGER,
    join_nonce INTEGER
) STRICT;
