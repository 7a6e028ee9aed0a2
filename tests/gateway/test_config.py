"""The configuration: defaults, overrides, and one line for every mistake."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gateway import config
from gateway.config import ConfigError, GatewayConfig

TEN_MISTAKES = """\
[gatway]
data_dir = "x"
[udp]
port = 170000
hots = "x"
gateways = ["aa555a0000000000", "zz"]
[http]
enabled = "yes"
[learning]
mode = "magic"
quorum = nan
spread_s = 20000
[multicast]
frequency_hz = 868650000
repeats = 2.5
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "swarm.toml"
    path.write_text(text, encoding="utf-8")
    return path


def mistakes(path: Path, **environment: str) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        config.read(path, environment)
    return [line.removeprefix(f"{path.parent}/") for line in refused.value.lines]


def test_the_example_is_the_default_and_shows_every_key(tmp_path: Path) -> None:
    read = config.read(write(tmp_path, config.example()), {})
    assert read.model_copy(update={"gateway": GatewayConfig().gateway}) == GatewayConfig()
    assert read.data_dir == tmp_path / "swarm-data"
    text = config.example()
    for name, section in GatewayConfig.model_fields.items():
        assert f"[{name}]" in text
        for key in type(section.default).model_fields:
            assert re.search(rf"^(# )?{key} = |^\[{name}\.{key}\]$", text, re.MULTILINE), f"{name}.{key}"
    # Each key has its comment: a line of prose right above it or above its group.
    for paragraph in text.split("\n\n"):
        assert paragraph.startswith(("#", "["))
        assert "\n#" in paragraph


def test_an_empty_file_is_a_configuration(tmp_path: Path) -> None:
    assert config.read(write(tmp_path, ""), {}).udp.port == 1700


def test_ten_mistakes_give_ten_lines_in_order(tmp_path: Path) -> None:
    lines = mistakes(write(tmp_path, TEN_MISTAKES))
    assert [line.split(": ")[:2] for line in lines] == [
        ["swarm.toml:1", "gatway"],
        ["swarm.toml:4", "udp.port"],
        ["swarm.toml:5", "udp.hots"],
        ["swarm.toml:6", "udp.gateways"],
        ["swarm.toml:8", "http.enabled"],
        ["swarm.toml:10", "learning.mode"],
        ["swarm.toml:11", "learning.quorum"],
        ["swarm.toml:12", "learning.spread_s"],
        ["swarm.toml:14", "multicast.frequency_hz"],
        ["swarm.toml:15", "multicast.repeats"],
    ]
    for line in lines:
        assert re.fullmatch(r"swarm\.toml:\d+: [a-z_.]+: [^;]+; .+", line), line
    assert lines[0].endswith("did you mean `gateway`?")
    assert lines[2].endswith("did you mean `host`?")


def test_a_section_inside_another_has_lines_of_its_own(tmp_path: Path) -> None:
    text = (
        "[learning.privacy]\nepsilonn = 1\nepsilon = nan\ndelta = 2.0\nclip = 'a'\nreleases = 0\n"
        "samples_max = 900\n[udp]\nport = true\n"
    )
    lines = mistakes(write(tmp_path, text))
    assert [line.split(": ")[:2] for line in lines] == [
        ["swarm.toml:2", "learning.privacy.epsilonn"],
        ["swarm.toml:3", "learning.privacy.epsilon"],
        ["swarm.toml:4", "learning.privacy.delta"],
        ["swarm.toml:5", "learning.privacy.clip"],
        ["swarm.toml:6", "learning.privacy.releases"],
        ["swarm.toml:7", "learning.privacy.samples_max"],
        ["swarm.toml:9", "udp.port"],
    ]
    assert lines[0].endswith("did you mean `epsilon`?")
    assert "nan is no number; give 0 (no noise)" in lines[1] and "2.0 is too large" in lines[2]
    (line,) = mistakes(write(tmp_path, "[learning]\nprivacy = 7\n"))
    assert line.startswith("swarm.toml:2: learning.privacy: this is a section, not a key")


def test_syntax_mistakes_do_not_hide_the_others(tmp_path: Path) -> None:
    text = '[udp]\nport = = 1\nhost = 7\n[http\nport = "x"\n[asking]\nk = 0\nk = 1\n[lab]\nclock_speed = -1\n'
    assert [line.split(": ")[:2] for line in mistakes(write(tmp_path, text))] == [
        ["swarm.toml:2", "not TOML"],
        ["swarm.toml:3", "udp.host"],
        ["swarm.toml:4", "not TOML"],
        ["swarm.toml:7", "asking.k"],
        ["swarm.toml:8", "not TOML"],
        ["swarm.toml:10", "lab.clock_speed"],
    ]


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("port = 1\n", "swarm.toml:1: port: there is no such section"),
        ("udp = 7\n", "swarm.toml:1: udp: this is a section, not a key; write [udp]"),
        ("[udp]\nport = true\n", "swarm.toml:2: udp.port: True is not usable here"),
        ('[udp]\nport = "1700"\n', "swarm.toml:2: udp.port: '1700' is not usable here"),
        ("[udp]\n\nport.number = 1\n", "swarm.toml:3: udp.port: "),
        ("udp = {port = -1}\n", "swarm.toml:1: udp.port: -1 is too small"),
        ("[learning.options]\neta = [1]\n", "swarm.toml:1: learning.options: "),
        ('[gateway]\nregion = "eu686"\n', "swarm.toml:2: gateway.region: 'eu686' is no region; did you mean"),
        ("[multicast]\ndata_rate = 15\n", "swarm.toml:2: multicast.data_rate: eu868 has no LoRa downlink"),
        ("[learning]\nperiod_s = 3600\n", "swarm.toml:1: learning.close_s: 14400 s is longer than period_s"),
        ("[udp]\nport = " + "9" * 5000 + "\n", "swarm.toml:2: not TOML: "),
        (
            "[udp]\nport = 1\n[udp]\n",
            "swarm.toml:3: not TOML: [udp] is there already; write its keys below the",
        ),
        ("[udp]\nport = 1\nport = 2\n", "swarm.toml:3: not TOML: this key is there already; delete one of"),
        ('[udp]\nhost = "a\n', "swarm.toml:2: not TOML: a quote is not closed; end the text with the quote"),
        ("[udp]\nhost = 'a\nport = 1\n", "swarm.toml:2: not TOML: a quote is not closed; end the text with"),
        (
            '[udp]\ngateways = [\n"aa", # ]\n[http]\nport = 1\n',
            "swarm.toml:2: not TOML: the list that begins",
        ),
        (
            '[udp]\ngateways = ["[",\nport = 1\n',
            "swarm.toml:2: not TOML: the list that begins here has no end",
        ),
        (
            "[udp]\ngateways = [\n",
            "swarm.toml:2: not TOML: the list that begins here has no end; close it with",
        ),
        ('[gateway]\ndata_dir = """\n[udp]\nport = 0\n', "swarm.toml:4: not TOML: "),
        ('[mqtt]\nname = "a/b"\n', "swarm.toml:2: mqtt.name: 'a/b' is not usable here; give letters, digits"),
        ('[mqtt]\nprefix = "a//b"\n', "swarm.toml:2: mqtt.prefix: 'a//b' is not usable here; give letters"),
        (
            '[mqtt]\ntls = true\nkey_file = "k"\n',
            "swarm.toml:3: mqtt.key_file: 'k' is given and cert_file is not",
        ),
        (
            '[mqtt]\nca_file = "c"\n',
            "swarm.toml:2: mqtt.ca_file: 'c' is given and tls is off; set tls = true",
        ),
        (
            '[mqtt]\npassword_file = "p"\n',
            "swarm.toml:2: mqtt.password_file: 'p' is given and username is not",
        ),
        (
            '[mqtt]\npassword = "p"\n',
            "swarm.toml:2: mqtt.password: unknown key; did you mean `password_file`?",
        ),
        (f'[mqtt]\nhost = "{"a" * 70}"\n', "swarm.toml:2: mqtt.host: 'aaaaa"),
        ("[mqtt]\nport = 0\n", "swarm.toml:2: mqtt.port: 0 is too small; give a whole number from 1"),
        (
            "[network]\nenabled = true\n",
            "swarm.toml:1: network.application: '' is no application; give the id",
        ),
        (
            '[network]\nkind = "ttn"\n',
            "swarm.toml:2: network.kind: 'ttn' is none of the choices; give one of \"chirpstack\"",
        ),
        (
            '[network]\ncert_file = "c"\ntls = true\n',
            "swarm.toml:2: network.cert_file: 'c' is given and key_file is not given; give key_file too",
        ),
        (
            '[stations]\ncert_file = "c"\n',
            "swarm.toml:2: stations.cert_file: 'c' is given and key_file is not given; give key_file too",
        ),
        (
            "[stations]\nchannels_hz = [868.1]\n",
            "swarm.toml:2: stations.channels_hz: 868.1 is not usable here",
        ),
        ("[[udp]]\nport = 1\n", "swarm.toml:1: udp: this is a section"),
        (
            f"[mac]\nchannels_hz = {[863_100_000 + 200_000 * n for n in range(9)]}\n",
            "swarm.toml:2: mac.channels_hz: a device has 16 channels, 8 of them are eu868's own; give",
        ),
        ("[mac]\ndwell = 3\n", "swarm.toml:2: mac.dwell: 3 is not usable here; give true or false"),
        ("[mac]\nrx2_data_rate = 99\n", "swarm.toml:2: mac.rx2_data_rate: 99 is too large; give a data rate"),
    ],
)
def test_each_kind_of_mistake(tmp_path: Path, text: str, start: str) -> None:
    (line,) = mistakes(write(tmp_path, text))
    assert line.startswith(start)
    assert "\n" not in line


def test_lines_are_right_behind_texts_that_span_lines(tmp_path: Path) -> None:
    text = '[gateway]\ndata_dir = """\nport = 3\n[http]\n"""\n[udp]\nport = -1\n'
    assert mistakes(write(tmp_path, text))[0].startswith("swarm.toml:7: udp.port")


def test_the_environment_overrides_and_is_named_in_mistakes(tmp_path: Path) -> None:
    path = write(tmp_path, "[udp]\nport = 1701\n")
    read = config.read(
        path, {"SWARM_UDP_PORT": "1702", "SWARM_GATEWAY_DATA_DIR": "/x", "SWARM_FOO": "1", "A": "b"}
    )
    assert read.udp.port == 1702
    assert read.data_dir == Path("/x")
    options = config.read(path, {"SWARM_LEARNING_OPTIONS": "{eta = 0.1}", "SWARM_HTTP_ENABLED": "false"})
    assert options.learning.options == {"eta": 0.1}
    assert options.http.enabled is False
    assert mistakes(path, SWARM_UDP_PORT="many", SWARM_UDP_PROT="1") == [
        "environment SWARM_UDP_PORT: udp.port: 'many' is not usable here; "
        "give a whole number from 0 (any free port) to 65535",
        "environment SWARM_UDP_PROT: udp.prot: unknown key; did you mean `port`?",
    ]


def test_a_list_without_an_end_does_not_hide_what_follows(tmp_path: Path) -> None:
    text = '[udp]\ngateways = [\n"aa555a0000000000",\n"bb"\n\n[http]\nport = -1\n'
    assert [line.split(": ")[:2] for line in mistakes(write(tmp_path, text))] == [
        ["swarm.toml:2", "not TOML"],
        ["swarm.toml:7", "http.port"],
    ]


def test_a_data_directory_cannot_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    for name in ("data", "data/below/it"):
        (line,) = mistakes(write(tmp_path, f'[gateway]\ndata_dir = "{name}"\n'))
        assert line.startswith(
            f"swarm.toml:2: gateway.data_dir: {tmp_path}/data is a file, not a directory; "
        )


def test_a_list_in_the_environment(tmp_path: Path) -> None:
    said = '["aa555a0000000000", "aa555a0000000001"]'
    read = config.read(write(tmp_path, ""), {"SWARM_UDP_GATEWAYS": said})
    assert read.udp.gateways == json.loads(said)
    assert mistakes(tmp_path / "swarm.toml", SWARM_UDP_GATEWAYS="aa555a0000000000") == [
        "environment SWARM_UDP_GATEWAYS: udp.gateways: 'aa555a0000000000' is not usable here;"
        ' give a list of EUIs of 16 hexadecimal digits, as ["aa555a0000000000"]'
    ]


def test_the_files_of_mqtt_start_at_the_directory_of_the_file(tmp_path: Path) -> None:
    text = '[mqtt]\ntls = true\nca_file = "ca.pem"\nusername = "u"\npassword_file = "/run/secret"\n'
    mqtt = config.read(write(tmp_path, text), {}).mqtt
    assert (mqtt.ca_file, mqtt.password_file) == (str(tmp_path / "ca.pem"), "/run/secret")
    assert (mqtt.cert_file, mqtt.key_file) == ("", "")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert mistakes(tmp_path / "swarm.toml") == [
        "swarm.toml: there is no such file; `swarm gateway init` writes one"
    ]
    (tmp_path / "swarm.toml").write_bytes(b"\xff\xfe[\x00")
    assert mistakes(tmp_path / "swarm.toml") == ["swarm.toml: is not UTF-8 text; save it as UTF-8"]
    (tmp_path / "d").mkdir()
    assert "Is a directory" in mistakes(tmp_path / "d")[0]


def test_a_byte_order_mark_and_windows_lines_are_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "swarm.toml"
    path.write_bytes(b"\xef\xbb\xbf[udp]\r\nport = 1701\r\n")
    assert config.read(path, {}).udp.port == 1701


def test_the_core_gets_what_the_file_says(tmp_path: Path) -> None:
    text = """
[gateway]
region = "EU868"
[nodes]
rx1_delay_s = 5
[learning]
mode = "top_k_sign"
strategy = "FedAvg"
period_s = 7200
close_s = 3600
spread_s = 600
cohort = 1
quorum = 0.5
[learning.options]
eta = 0.5
[multicast]
data_rate = 3
repeats = 3
[asking]
k = 9
"""
    core = config.swarm_config(config.read(write(tmp_path, text), {}))
    assert core.region == "eu868"
    assert core.rx1_delay_s == 5
    assert (core.learning.mode, core.learning.strategy, core.learning.options) == (
        "top_k_sign",
        "FedAvg",
        {"eta": 0.5},
    )
    assert (core.learning.period_s, core.learning.close_s, core.learning.cohort) == (7200, 3600, 1.0)
    assert (core.multicast.data_rate, core.multicast.frequency_hz, core.multicast.repeats) == (3, None, 3)
    assert (core.asking.k, core.asking.deadline_s) == (9, 3600)
    assert core.status_period_min == 60
