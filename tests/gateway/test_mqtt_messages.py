"""MQTT without a broker: what may come in, what goes out, what opens the door, how much may wait."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli import run
from gateway.config import MqttSection
from gateway.mqtt.access import Access, AccessError, read_access
from gateway.mqtt.home_assistant import class_names, discovery, report
from gateway.mqtt.link import EVENTS_SHARE, OUTBOX_BYTES_MAX, OUTBOX_MAX, Link
from gateway.mqtt.requests import (
    PAYLOAD_MAX,
    Question,
    Refusal,
    Request,
    is_verb,
    read_question,
    read_request,
)
from gateway.mqtt.topics import Topics
from swarm.effects import Event
from swarm.inference.combine import LABELS
from swarm.registry import NodeRecord, NodeStatus
from tests.gateway.broker import Authority

TOPICS = Topics("swarm/farm", "homeassistant")
RECORD = NodeRecord(
    "70b3d57ed0000001", 3, "west-1", 3, "west", None, None, "otaa", "0" * 16, None, None, 0, 0
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.dictionaries(
    st.sampled_from(["id", "near", "k", "features", "crop", "deadline_s", "limit", "after", "transaction"])
    | st.text(max_size=5),
    VALUES,
    max_size=6,
)


# -- in -------------------------------------------------------------------------------------------------


@given(payload=st.binary(max_size=300) | FIELDS.map(lambda fields: json.dumps(fields).encode()))
def test_whatever_comes_in_is_a_question_or_one_line(payload: bytes) -> None:
    for read in (read_question(payload), read_request("nodes/list", payload)):
        assert isinstance(read, Question | Request | Refusal)
        if isinstance(read, Refusal):
            assert read.error and len(read.error) < 600 and "\n" not in read.error
        json.dumps({"id": getattr(read, "tag", None)}).encode()


def test_a_question_has_the_fields_of_the_http_api_and_an_id() -> None:
    read = read_question(b'{"id": "a", "near": "west", "k": 3, "crop": "grape", "deadline_s": 60}')
    assert read == Question("a", {"near": "west", "features": None, "context": 3, "k": 3, "deadline_s": 60})
    unknown = read_question(b'{"id": "a", "near": "west", "kk": 3}')
    assert unknown == Refusal("kk: Extra inputs are not permitted", "a")


def test_requests_have_defaults_and_bounds() -> None:
    assert read_request("nodes/list", b"") == Request("nodes/list", None, 500, -1)
    assert read_request("airtime", b'{"transaction": "7"}') == Request("airtime", "7", 500, -1)
    refused = read_request("nodes/list", b'{"transaction": "7", "limit": 501, "after": true}')
    assert isinstance(refused, Refusal) and refused.tag == "7"
    assert "limit: " in refused.error and "after: " in refused.error
    assert is_verb("nodes/list") and not is_verb("nodes/list/") and not is_verb("+") and not is_verb("")


# -- out ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "data", "topic"),
    [
        ("uplink", {"dev_eui": RECORD.dev_eui}, "node/70b3d57ed0000001/event/up"),
        ("joined", {"dev_eui": RECORD.dev_eui}, "node/70b3d57ed0000001/event/join"),
        ("status", {"dev_eui": RECORD.dev_eui}, "node/70b3d57ed0000001/event/status"),
        ("downlink", {"dev_eui": RECORD.dev_eui}, "node/70b3d57ed0000001/event/ack"),
        ("tx_failed", {"dev_eui": RECORD.dev_eui}, "node/70b3d57ed0000001/event/ack"),
        ("update", {"dev_eui": RECORD.dev_eui, "round": 4}, "node/70b3d57ed0000001/event/log"),
        ("round_opened", {"round": 4}, "round/4/event/opened"),
        ("round_closed", {"round": 4}, "round/4/event/closed"),
        ("downlink", {"dev_eui": None}, None),
        ("dropped", {"reason": "mic"}, None),
        ("dropped", {"dev_eui": "a/+/#"}, None),
    ],
)
def test_each_event_has_its_topic_or_none(kind: str, data: dict[str, Any], topic: str | None) -> None:
    assert TOPICS.event(Event(kind, 0, data)) == (None if topic is None else f"swarm/farm/{topic}")


def test_a_report_says_nothing_where_the_node_said_nothing() -> None:
    silent = report(RECORD, NodeStatus(), LABELS)
    assert {name for name, value in silent.items() if value is not None} == {
        "dev_eui",
        "name",
        "crop",
        "plot",
    }
    missing = NodeStatus(
        last_seen_us=0, battery=255, temperature_centi=-32_768, humidity_half=255, rain_tenth=65_535, risk=0
    )
    said = report(RECORD, missing, LABELS)
    assert said["last_seen"] == "1970-01-01T00:00:00+00:00"
    assert all(said[name] is None for name in ("temperature_c", "humidity_percent", "rain_mm", "risk"))
    assert (said["battery_percent"], said["external_power"]) == (None, None)
    powered = report(RECORD, replace(missing, battery=0, risk=1 << 6 | 63, temperature_centi=-5), LABELS)
    assert (powered["battery_percent"], powered["external_power"]) == (None, True)
    assert (powered["risk"], powered["risk_percent"], powered["temperature_c"]) == ("medium", 100, -0.05)
    assert report(RECORD, NodeStatus(last_seen_us=1 << 62), LABELS)["last_seen"] is None


def test_every_entity_reads_a_value_that_the_report_has() -> None:
    document = discovery(TOPICS, RECORD, LABELS, "0.1.0")
    told = report(RECORD, NodeStatus(), LABELS)
    assert set(document) == {"dev", "o", "cmps", "stat_t", "avty", "avty_mode", "qos"}
    assert all(key in told for key in document["cmps"])
    assert len({entity["uniq_id"] for entity in document["cmps"].values()}) == len(document["cmps"])
    assert "sa" not in discovery(TOPICS, replace(RECORD, plot=""), LABELS, "0.1.0")["dev"]


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        (2, ["class 0", "class 1"]),
        (3, ["low", "medium", "high"]),
        (4, ["class 0", "class 1", "class 2", "class 3"]),
        (10, ["class 0", "class 1", "class 2", "class 3 or above"]),
    ],
)
def test_a_model_that_is_not_about_risk_has_numbers_for_its_classes(classes: int, names: list[str]) -> None:
    assert list(class_names(classes)) == names
    document = discovery(TOPICS, RECORD, class_names(classes), "0.1.0")
    assert document["cmps"]["risk"]["ops"] == names
    assert document["cmps"]["risk"]["name"] == ("Infection risk" if classes == 3 else "Class")
    said = report(RECORD, NodeStatus(risk=1 << 6 | 32), class_names(classes))
    assert (said["risk"], said["risk_percent"]) == (names[1], 51)
    assert report(RECORD, NodeStatus(risk=255), class_names(classes))["risk"] in (names[3:] or [None])


async def test_what_waits_is_bounded_and_answers_have_a_reserve() -> None:
    """Towards a port where nobody listens: so many events, then only answers, then nothing more."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        counters = {"mqtt_lost": 0, "mqtt_inbox_lost": 0}

        def link() -> Link:
            return Link(
                MqttSection(enabled=True, port=port),
                Access(),
                section="mqtt",
                client_id="swarm-gateway",
                will_topic="swarm/gateway/state",
                payload_max=PAYLOAD_MAX,
                subscriptions=["x"],
                counters=counters,
                on_connected=lambda fresh: None,
                tell=lambda event: None,
            )

        first = link()
        taken = [first.publish("t", b"event") for _ in range(OUTBOX_MAX)]
        assert taken == [True] * int(EVENTS_SHARE * OUTBOX_MAX) + [False] * (OUTBOX_MAX - sum(taken))
        answers = [first.publish("t", b"answer", urgent=True) for _ in range(OUTBOX_MAX)]
        assert sum(answers) == OUTBOX_MAX - sum(taken)
        assert counters["mqtt_lost"] == 2 * OUTBOX_MAX - sum(taken) - sum(answers)
        second = link()
        heavy = bytes(OUTBOX_BYTES_MAX // 4)
        assert [second.publish("t", heavy) for _ in range(4)] == [True, True, False, False]
        assert [second.publish("t", heavy, urgent=True) for _ in range(2)] == [True, False]


# -- the door ---------------------------------------------------------------------------------------------


def refused(settings: MqttSection) -> str:
    with pytest.raises(AccessError) as error:
        read_access(settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_password_file_is_private_and_holds_one_line(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    settings = MqttSection(username="swarm", password_file=str(file))
    assert "No such file" in refused(settings)
    file.touch(0o600)
    for bad in (b"", b"\n", b"a\nb\n", b"\xff\xfe", b"x" * 5_000):
        file.write_bytes(bad)
        assert refused(settings).startswith(f"mqtt.password_file: {file}: is not one line of text; ")
    file.write_bytes("grüße\r\n".encode())
    access = read_access(settings)
    assert access.password == "grüße" and "grüße" not in repr(access)
    file.chmod(0o644)
    assert refused(settings) == (
        f"mqtt.password_file: {file}: everybody on this machine may read it; chmod o= {file}"
    )


def test_certificates_that_are_none_are_named(tmp_path: Path) -> None:
    made, other = Authority(tmp_path / "a"), Authority(tmp_path / "b")
    rubbish = tmp_path / "rubbish"
    rubbish.write_text("no certificate")
    own = {"cert_file": str(made.cert_file), "key_file": str(made.key_file)}
    access = read_access(MqttSection(tls=True, ca_file=str(made.ca_file), **own))
    assert access.tls is not None and access.tls.check_hostname
    assert "mqtt.ca_file" in refused(MqttSection(tls=True, ca_file=str(rubbish)))
    assert "mqtt.ca_file" in refused(MqttSection(tls=True, ca_file=str(tmp_path / "none")))
    assert "mqtt.cert_file" in refused(MqttSection(tls=True, **{**own, "cert_file": str(rubbish)}))
    assert "mqtt.cert_file" in refused(MqttSection(tls=True, **{**own, "key_file": str(other.key_file)}))
    made.key_file.chmod(0o644)
    assert "mqtt.key_file" in refused(MqttSection(tls=True, **own))


def test_check_and_run_say_it_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("swarm.toml").write_text('[mqtt]\nenabled = true\nusername = "swarm"\npassword_file = "secret"\n')
    for command in ("check", "run"):
        assert run(["gateway", command]) == 2
        said = capsys.readouterr().err.splitlines()
        assert said == [
            "swarm: swarm.toml: mqtt.password_file: secret: No such file or directory;"
            " give a file this user may read"
        ]
