-- Experts that nodes hold, and questions for experts that wait for a holder.

CREATE TABLE holder (
    dev_eui TEXT PRIMARY KEY,
    held INTEGER,
    generation INTEGER,
    seen TEXT,
    always_on INTEGER,
    reported_us INTEGER,
    silent INTEGER,
    contradicted INTEGER
) STRICT;

CREATE TABLE expert_ask (key TEXT PRIMARY KEY, text TEXT) STRICT;
