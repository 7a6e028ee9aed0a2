-- Readings that nodes lend one another: the latest days as they came, and who lends what to whom.

CREATE TABLE reading (key TEXT PRIMARY KEY, dev_eui TEXT, day INTEGER, payload BLOB) STRICT;

CREATE TABLE sharing (
    dev_eui TEXT PRIMARY KEY,
    share_id INTEGER,
    send INTEGER,
    use INTEGER,
    offset_half INTEGER,
    until_us INTEGER,
    survey_us INTEGER,
    survey_until_us INTEGER,
    decided_us INTEGER,
    refused_until_us INTEGER,
    needs INTEGER,
    humidity_from TEXT,
    humidity_correlation REAL,
    rain_from TEXT,
    rain_correlation REAL,
    correction_half INTEGER,
    rainy_hours INTEGER,
    humid_rainy_hours INTEGER
) STRICT;
