-- Seeds of masks that members of a masking group sent for those not heard, until their round is closed.

CREATE TABLE seeds (
    key TEXT PRIMARY KEY,
    round INTEGER,
    dev_eui TEXT,
    node_index INTEGER,
    payload BLOB
) STRICT;
