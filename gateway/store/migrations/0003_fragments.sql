-- Fragments of updates that are larger than a frame, until the last one is there or their round is over.

CREATE TABLE fragment (
    key TEXT PRIMARY KEY,
    round INTEGER,
    dev_eui TEXT,
    "index" INTEGER,
    "count" INTEGER,
    slice BLOB
) STRICT;
