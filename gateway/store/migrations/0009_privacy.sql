-- What each node's samples were exposed to under masked sums: never deleted, for a node that is removed may
-- come back.

CREATE TABLE privacy (
    dev_eui TEXT PRIMARY KEY,
    round INTEGER,
    releases INTEGER,
    bare INTEGER,
    mu_squared REAL,
    overdrawn INTEGER
) STRICT;
