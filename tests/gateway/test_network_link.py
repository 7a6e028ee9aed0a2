"""The daemon at a network server, played on a real Mosquitto: ChirpStack's and The Things Stack's topics."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.mqtt.link import INBOX_MAX
from swarm.wire import app
from tests.gateway.broker import Authority, Broker, needs_mosquitto
from tests.gateway.network_server import Server, heard, network
from tests.swarm.cell import means
from tests.web.served import Served, until

pytestmark = needs_mosquitto
EUI, OTHER = "70b3d57ed0000001", "70b3d57ed0000002"
STATUS = app.encode(app.Status(0, 1, 200, 3, 0, 1520, 160, 0, 2 << 6 | 50, 0))


def register(served: Served) -> None:
    nodes = [
        {"dev_eui": eui, "name": f"west-{eui[-1]}", "crop": crop, "activation": "network", "plot": "west"}
        for eui, crop in ((EUI, "tomato"), (OTHER, "potato"))
    ]
    assert served.http.post("/api/nodes", json={"nodes": nodes}).status_code == 200


def ask(served: Served, near: str) -> list[dict[str, Any]]:
    """Put a question; its answer comes into the list."""
    answers: list[dict[str, Any]] = []
    headers = {"authorization": f"Bearer {served.daemon.token}"}

    def post() -> None:
        with contextlib.suppress(httpx.HTTPError):
            question = {"near": near, "k": 1, "deadline_s": 60}
            answers.append(
                httpx.post(f"{served.url}/api/ask", json=question, headers=headers, timeout=60).json()
            )

    threading.Thread(target=post, daemon=True).start()
    until(lambda: len(served.daemon.core.asking), "the question is taken")
    return answers


def radio(served: Served) -> dict[str, int]:
    return dict(served.http.get("/api/state").json()["radio"])


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker") as made:
        yield made


@pytest.mark.parametrize("kind", ["chirpstack", "things_stack"])
def test_a_question_and_a_round_while_broker_and_daemon_die(
    tmp_path: Path, broker: Broker, kind: str
) -> None:
    section = network(broker, kind)
    with Served(tmp_path, network=section) as served:
        register(served)
        server = Server(kind, broker)
        assert {node["joined"] for node in served.http.get("/api/nodes").json()["nodes"]} == {None}
        server.uplink(EUI, 12, STATUS)
        until(lambda: heard(served, EUI) == 1, "the report")
        joined = {node["dev_eui"]: node["joined"] for node in served.http.get("/api/nodes").json()["nodes"]}
        assert joined == {EUI: True, OTHER: None}, "what was heard has a session; of the other nobody knows"
        answers = ask(served, EUI)
        seen = server.person.subscriptions
        broker.kill()
        broker.start()
        until(lambda: server.person.subscriptions > seen, "the server is back at its broker")
        server.uplink(EUI, 12, STATUS)
        message, query = server.down(EUI, 1)
        assert isinstance(query, app.Query)
        assert message.get("id" if kind == "chirpstack" else "correlation_ids")
        server.uplink(EUI, 11, app.encode(app.Answer(query.query_id, 1, (25, 30, 200), 0, 1, 1)))
        assert until(lambda: answers, "the answer")[0]["label"] == "high"
        assert served.http.post("/api/rounds").status_code == 200
        server.uplink(EUI, 12, STATUS)
        _, announced = server.down(EUI, 2)
        assert isinstance(announced, app.RoundAnnounce) and announced.round == 1
        server.uplink(EUI, 10, means(1, 1))
        until(lambda: served.http.get("/api/rounds").json()["rounds"][0]["updates"] == 1, "the first update")
    # The daemon is down; the broker keeps what comes.
    late = server.uplink(OTHER, 12, STATUS, ago_s=3600)
    server.uplink(OTHER, 10, means(2, 1))
    with Served(tmp_path, network=section) as served:
        until(lambda: heard(served, OTHER) == 2, "what the broker kept")
        closed = until(lambda: served.http.get("/api/rounds").json()["rounds"][0]["closed_us"], "the closing")
        assert closed
        (round_,) = [each for each in served.http.get("/api/rounds").json()["rounds"] if each["round"] == 1]
        assert round_["updates"] == 2
        before = server.count(EUI)
        server.person.say(*late)  # delivered again
        server.uplink(EUI, 12, STATUS, f_cnt=1)

        def refused() -> set[str]:
            """What was refused: perhaps also the last frame before the end, if its word got lost."""
            events = served.http.get("/api/events/past?kind=dropped").json()["events"]
            assert {event["data"]["reason"] for event in events} <= {"replay"}
            return {event["data"]["detail"] for event in events}

        until(lambda: refused() >= {"counter 0", "counter 1"}, "both refusals")
        assert (heard(served, OTHER), server.count(EUI)) == (2, before)
    server.person.__exit__()


def test_what_the_server_says_of_a_downlink_comes_back(tmp_path: Path, broker: Broker) -> None:
    with Served(tmp_path, network=network(broker, "chirpstack")) as served:
        register(served)
        server = Server("chirpstack", broker)
        server.uplink(EUI, 12, STATUS)
        until(lambda: heard(served, EUI) == 1, "the report")
        ask(served, EUI)
        server.uplink(EUI, 12, STATUS)
        first, _ = server.down(EUI, 1)
        error = {"deviceInfo": {"devEui": EUI}, "level": "ERROR", "code": "DOWNLINK_PAYLOAD_SIZE"}
        server.person.say(
            f"{server.base}/{EUI}/event/log", error | {"context": {"queue_item_id": first["id"]}}
        )
        past = "/api/events/past?kind=tx_failed"
        (failed,) = until(lambda: served.http.get(past).json()["events"], "the failure")
        assert failed["data"]["error"] == "DOWNLINK_PAYLOAD_SIZE"
        server.uplink(EUI, 12, STATUS)
        again, query = server.down(EUI, 2)
        assert isinstance(query, app.Query) and again["id"] != first["id"] and again["data"] == first["data"]
        server.person.__exit__()


def test_hostile_messages_are_counted_and_change_nothing(tmp_path: Path, broker: Broker) -> None:
    with Served(tmp_path, network=network(broker, "chirpstack")) as served:
        register(served)
        server = Server("chirpstack", broker)
        topic = f"{server.base}/{EUI}/event/up"
        for payload in (b"", b"{", b"[1]", b"\xff", b'{"deviceInfo":{"devEui":"00"}}', b"x" * 70_000):
            server.person.say(topic, payload)
        server.person.say(topic, {"deviceInfo": {"devEui": EUI}, "time": "now"})
        server.uplink("ff" * 8, 12, STATUS)
        server.uplink(EUI, 12, STATUS)
        until(lambda: heard(served, EUI) == 1, "the good one")
        counted = {name: count for name, count in radio(served).items() if name.startswith("network:")}
        assert counted == {
            "network:json": 4,
            "network:identity": 1,
            "network:message_size": 1,
            "network:time": 1,
        }
        (dropped,) = served.http.get("/api/events/past?kind=dropped").json()["events"]
        assert dropped["data"]["reason"] == "unknown_device"
        assert served.alive()
        server.person.__exit__()


def test_tls_password_and_a_certificate_of_our_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority = Authority(tmp_path / "authority")
    folder = tmp_path / "broker"
    secret = tmp_path / "password"
    secret.write_text("correct horse\n")
    secret.chmod(0o600)
    lines = (*authority.lines(), "require_certificate true", f"password_file {folder / 'passwords'}")
    broker = Broker(folder, *lines, anonymous=False)
    broker.add_user("swarm", "correct horse")
    keys: dict[str, Any] = {
        "tls": True,
        "ca_file": str(authority.ca_file),
        "cert_file": str(authority.cert_file),
        "key_file": str(authority.key_file),
        "username": "swarm",
        "password_file": str(secret),
    }
    with caplog.at_level(logging.INFO, "swarm.mqtt"), broker:
        for number, (changes, said) in enumerate(
            (
                ({}, "connected"),
                ({"cert_file": "", "key_file": ""}, "closed the connection without an answer"),
                ({"username": "nobody"}, "set [network] username and password_file"),
            )
        ):
            caplog.clear()
            with Served(
                tmp_path / str(number), network=network(broker, "chirpstack", **keys | changes)
            ) as served:
                until(lambda said=said: any(said in each.getMessage() for each in caplog.records), said)
                assert served.alive()
        assert not any("correct horse" in each.getMessage() for each in caplog.records)


def test_a_flood_that_the_broker_kept_is_taken_whole(tmp_path: Path) -> None:
    """Far more than the inbox holds, all at once: the broker is made to wait, and nothing is lost."""
    count = 8 * INBOX_MAX
    with Broker(tmp_path / "broker", "max_inflight_messages 0", "max_queued_messages 0") as broker:
        section = network(broker, "chirpstack")
        server = Server("chirpstack", broker)
        with Served(tmp_path, network=section) as served:
            register(served)
            server.uplink(EUI, 12, STATUS)
            until(lambda: heard(served, EUI) == 1, "the subscription")
        for _ in range(count):
            server.uplink(EUI, 12, STATUS)
        with Served(tmp_path, network=section) as served:
            until(lambda: heard(served, EUI) == 1 + count, "all that the broker kept")
            assert served.daemon.counters["network_inbox_lost"] == 0
        server.person.__exit__()
