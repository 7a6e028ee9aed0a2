-- What devices were told by MAC commands (swarm/mac/commands.py), and what of it their sessions say.
CREATE TABLE mac (
    dev_eui TEXT PRIMARY KEY,
    data_rate INTEGER,
    tx_power INTEGER,
    nb_trans INTEGER,
    data_rate_max INTEGER,
    tx_power_max INTEGER,
    reversals INTEGER,
    heard INTEGER,
    lost INTEGER,
    snr_db TEXT,
    sub_bands INTEGER,
    masked INTEGER,
    max_duty_cycle INTEGER,
    tx_param INTEGER,
    channels_hz TEXT,
    asked BLOB,
    repeat BLOB,
    tries INTEGER,
    rest TEXT,
    status_us INTEGER,
    battery INTEGER,
    margin_db INTEGER
) STRICT;

ALTER TABLE session ADD COLUMN downlink_dwell INTEGER;
ALTER TABLE session ADD COLUMN rx1_frequencies TEXT;
-- Frames that an operator sends by hand (swarm/operator_frames.py).
CREATE TABLE operator_frame (
    number INTEGER PRIMARY KEY,
    dev_eui TEXT,
    f_port INTEGER,
    payload BLOB,
    confirmed INTEGER,
    expires_us INTEGER,
    tries INTEGER
) STRICT;

ALTER TABLE node ADD COLUMN device_class TEXT DEFAULT 'a';

-- The session of a node's last join, until its first uplink (swarm/registry.py).
CREATE TABLE session_next (
    dev_eui TEXT PRIMARY KEY,
    dev_addr INTEGER,
    nwk_s_key BLOB,
    app_s_key BLOB,
    f_cnt_up INTEGER,
    f_cnt_down INTEGER,
    rx1_delay_us INTEGER,
    rx1_dr_offset INTEGER,
    rx2_frequency_hz INTEGER,
    rx2_data_rate INTEGER,
    downlink_dwell INTEGER,
    rx1_frequencies TEXT
) STRICT;
