-- The first schema.  One table per kind of row that the core stores; the primary key is the key of the
-- Store effect.  Times are microseconds of the core's clock (Unix time), keys are raw bytes.  STRICT: a
-- value comes back as the type it went in with, or is refused.

CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) STRICT;
CREATE TABLE gateway (gateway_id TEXT PRIMARY KEY, last_seen_us INTEGER) STRICT;

CREATE TABLE node (
    dev_eui TEXT PRIMARY KEY,
    node_index INTEGER,
    name TEXT,
    context INTEGER,
    plot TEXT,
    lat REAL,
    lon REAL,
    activation TEXT,
    join_eui TEXT,
    app_key BLOB,
    dev_nonce INTEGER,
    join_nonce INTEGER,
    created_us INTEGER
) STRICT;

CREATE TABLE session (
    dev_eui TEXT PRIMARY KEY,
    dev_addr INTEGER,
    nwk_s_key BLOB,
    app_s_key BLOB,
    f_cnt_up INTEGER,
    f_cnt_down INTEGER,
    rx1_delay_us INTEGER,
    rx1_dr_offset INTEGER,
    rx2_frequency_hz INTEGER,
    rx2_data_rate INTEGER
) STRICT;

CREATE TABLE multicast (
    "group" TEXT PRIMARY KEY,
    mc_addr INTEGER,
    nwk_s_key BLOB,
    app_s_key BLOB,
    f_cnt INTEGER,
    frequency_hz INTEGER,
    data_rate INTEGER
) STRICT;

CREATE TABLE status (
    dev_eui TEXT PRIMARY KEY,
    last_seen_us INTEGER,
    reported_us INTEGER,
    rssi_dbm REAL,
    snr_db REAL,
    data_rate INTEGER,
    model_version INTEGER,
    battery INTEGER,
    labelled INTEGER,
    flags INTEGER,
    temperature_centi INTEGER,
    humidity_half INTEGER,
    rain_tenth INTEGER,
    risk INTEGER,
    uplinks INTEGER,
    lost INTEGER
) STRICT;

CREATE TABLE round (
    round INTEGER PRIMARY KEY,
    mode INTEGER,
    model_version INTEGER,
    opened_us INTEGER,
    close_us INTEGER,
    closed_us INTEGER,
    state TEXT,
    cohort INTEGER,
    updates INTEGER,
    metrics TEXT
) STRICT;

CREATE TABLE "update" (
    key TEXT PRIMARY KEY,
    round INTEGER,
    dev_eui TEXT,
    node_index INTEGER,
    payload BLOB,
    received_us INTEGER
) STRICT;

CREATE TABLE model (
    version INTEGER PRIMARY KEY,
    vector BLOB,
    digest TEXT,
    made_us INTEGER,
    round INTEGER,
    kind INTEGER,
    base_version INTEGER,
    block BLOB
) STRICT;

CREATE TABLE strategy (name TEXT PRIMARY KEY, state BLOB) STRICT;

CREATE TABLE query (
    query_id INTEGER PRIMARY KEY,
    text TEXT,
    asked_us INTEGER,
    deadline_us INTEGER,
    state TEXT,
    answer TEXT
) STRICT;

CREATE TABLE airtime (
    transmit_id INTEGER PRIMARY KEY,
    gateway_id TEXT,
    at_us INTEGER,
    sub_band TEXT,
    airtime_us INTEGER,
    purpose TEXT
) STRICT;

-- The daemon's own: its clock, and two rings of the latest events: of refused frames (slots below 0), of all others.
CREATE TABLE daemon (key TEXT PRIMARY KEY, value ANY) STRICT;
CREATE TABLE event (slot INTEGER PRIMARY KEY, sequence INTEGER, at_us INTEGER, kind TEXT, data TEXT) STRICT;
CREATE INDEX event_sequence ON event (sequence);
