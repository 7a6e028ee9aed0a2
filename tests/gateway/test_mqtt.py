"""The daemon on a real Mosquitto: questions, events, discovery, and what happens when either of them dies."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.config import MqttSection
from gateway.mqtt import link
from gateway.mqtt.requests import PAYLOAD_MAX
from tests.gateway.broker import Authority, Broker, Person, free_port, needs_mosquitto
from tests.web.served import Cell, Served, until

pytestmark = needs_mosquitto
ROOT = Path(__file__).parents[2]
QUESTION, ANSWER = "swarm/farm/query/request", "swarm/farm/query/answer"
PASSWORD = "correct horse battery staple"


def settings(port: int, **more: Any) -> MqttSection:
    return MqttSection(enabled=True, port=port, name="farm", **more)


class Site:
    """Broker, daemon, six nodes around one gateway, and a person."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self.folder, self.broker = folder, broker
        self.served = Served(folder, mqtt=settings(broker.port)).__enter__()
        assert self.served.daemon.udp_address is not None
        self.cell = Cell(self.served.daemon.udp_address, 6)
        assert self.served.http.post("/api/nodes", json=self.cell.registration()).status_code == 200
        self.cell.pull()
        self.person = Person(broker.port)

    def close(self) -> None:
        self.person.__exit__()
        self.cell.close()
        self.served.__exit__(None, None, None)

    def speak(self) -> None:
        """Every node reports, and the daemon has it."""
        node = self.cell.nodes[-1].row["dev_eui"]
        before = len(self.person.on(f"swarm/farm/node/{node}/event/status"))
        for each in self.cell.nodes:
            self.cell.uplink(each, 12, each.status(risk=2, battery=127))
        until(lambda: len(self.person.on(f"swarm/farm/node/{node}/event/status")) > before, "the last report")

    def converse_until(self, done: Callable[[], Any]) -> None:
        """Nodes report, hear questions and answer them, until it is enough."""
        until(lambda: done() or (self.cell.converse((25, 30, 200)) and False), "an answer")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker") as made:
        yield made


@pytest.fixture
def site(tmp_path: Path, broker: Broker) -> Iterator[Site]:
    made = Site(tmp_path, broker)
    yield made
    made.close()


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "swarm.mqtt"]


# -- questions ------------------------------------------------------------------------------------------


def test_a_question_about_a_place_is_answered_with_the_object_that_http_gives(site: Site) -> None:
    site.speak()
    plot = site.cell.nodes[0].row["plot"]
    site.person.say(QUESTION, {"id": "p-1", "near": plot, "k": 2, "deadline_s": 60})
    site.converse_until(lambda: site.person.on(ANSWER))
    heard = site.person.next(ANSWER)
    assert (heard["id"], heard["status"]) == ("p-1", "ok")
    answer = heard["answer"]
    assert answer["label"] == "high" and answer["coverage"] > 0 and answer["airtime_us"] > 0
    assert len(answer["nodes"]) == answer["asked"] == 2
    assert site.cell.nodes[0].row["dev_eui"] in answer["nodes"]
    names = {each.row["dev_eui"]: each.row["name"] for each in site.cell.nodes}
    assert answer.pop("names") == [names[dev_eui] for dev_eui in answer["nodes"]]
    last = site.served.http.get("/api/queries/last").json()["query"]
    assert {key: value for key, value in last.items() if key not in ("at_us", "reference")} == answer


def test_a_question_to_a_node_and_one_that_is_put_twice_are_answered_once(site: Site) -> None:
    site.speak()
    node = site.cell.nodes[3].row
    question = {"id": "n-1", "near": node["dev_eui"], "k": 1}
    site.person.say(QUESTION, question)
    site.person.say(QUESTION, question)  # as a broker does that lost our acknowledgement
    site.person.say(QUESTION, {**question, "k": 2})
    refused = site.person.next(ANSWER)
    assert refused == {
        "id": "n-1",
        "status": "error",
        "error": "another question waits under this name; take a new one for each question",
    }
    site.converse_until(lambda: len(site.person.on(ANSWER)) > 1)
    heard = site.person.next(ANSWER, 2)
    assert heard["answer"]["nodes"] == [node["dev_eui"]] and heard["answer"]["query_id"] == 1
    site.person.say(QUESTION, {**question, "id": "n-2", "near": "nowhere"})
    site.person.next(ANSWER, 3)
    assert [site.person.next(ANSWER, number)["id"] for number in (1, 2, 3)] == ["n-1", "n-1", "n-2"]
    repeated = site.served.http.get("/api/events/past?kind=query_repeated").json()["events"]
    assert [each["data"]["query_id"] for each in repeated] == [1]


def test_the_broker_is_killed_between_question_and_answer_and_the_answer_comes_once(site: Site) -> None:
    site.speak()
    site.person.say(QUESTION, {"id": "k-1", "near": site.cell.nodes[0].row["plot"], "k": 2})
    until(lambda: len(site.served.daemon.core.asking), "the question is taken")
    until(lambda: b"person" in (site.broker.folder / "mosquitto.db").read_bytes(), "sessions on the disk")
    site.broker.kill()

    def answered() -> bool:
        return not len(site.served.daemon.core.asking)

    site.converse_until(answered)
    assert site.served.alive() and site.person.on(ANSWER) == []
    site.broker.start()
    heard = site.person.next(ANSWER)
    assert (heard["id"], heard["status"]) == ("k-1", "ok") and heard["answer"]["nodes"]
    # Behind it, in order, a second question: nothing came in between.
    site.person.say(QUESTION, {"id": "k-2", "near": "nowhere"})
    assert site.person.next(ANSWER, 2)["id"] == "k-2"


def test_what_a_broker_delivers_again_after_the_answer_is_not_asked_again(site: Site) -> None:
    """Method: the same bytes over the same connection are a new question, over the next one a repetition."""
    site.speak()
    question = {"id": "r-1", "near": site.cell.nodes[0].row["plot"], "k": 2}
    site.person.say(QUESTION, question)
    site.converse_until(lambda: len(site.person.on(ANSWER)) > 0)
    site.broker.kill()
    before = len(site.person.on("swarm/farm/state"))
    site.broker.start()
    until(lambda: site.person.subscriptions > 1, "the person is back")
    until(lambda: len(site.person.on("swarm/farm/state")) > before, "the gateway is back")
    site.person.say(QUESTION, question)
    site.person.say(QUESTION, {"id": "r-2", "near": "nowhere"})

    def answered() -> list[str]:
        """The killed broker may have forgotten that somebody has the first answer, and bring it again."""
        return [json.loads(answer)["id"] for answer in site.person.on(ANSWER)]

    def asked() -> int:
        return len(site.served.http.get("/api/events/past?kind=query_asked").json()["events"])

    until(lambda: "r-2" in answered(), "the second answer")
    assert list(dict.fromkeys(answered())) == ["r-1", "r-2"] and asked() == 1
    for times in (1, 2):
        site.person.say(QUESTION, {**question, "id": "r-3"})
        site.converse_until(lambda times=times: answered().count("r-3") == times)  # type: ignore[misc]
    assert asked() == 3


def test_the_daemon_stops_between_question_and_answer_and_the_answer_comes_under_its_id(site: Site) -> None:
    site.speak()
    site.person.say(QUESTION, {"id": "d-1", "near": site.cell.nodes[0].row["plot"], "k": 2, "deadline_s": 60})
    until(lambda: len(site.served.daemon.core.asking), "the question is taken")
    site.served.__exit__(None, None, None)
    until(lambda: site.person.on("swarm/farm/state")[-1:] == [b"offline"], "the farewell")
    site.person.say(QUESTION, {"id": "d-2", "near": "nowhere"})  # waits at the broker
    site.cell.close()
    site.served = Served(site.folder, mqtt=settings(site.broker.port)).__enter__()
    assert site.served.daemon.udp_address is not None
    nodes, site.cell = site.cell.nodes, Cell(site.served.daemon.udp_address, 0)
    site.cell.nodes = nodes
    site.cell.pull()
    assert site.person.next(ANSWER)["id"] == "d-2"
    site.converse_until(lambda: len(site.person.on(ANSWER)) > 1)
    heard = site.person.next(ANSWER, 2)
    assert (heard["id"], heard["status"]) == ("d-1", "ok") and heard["answer"]["nodes"]


HOSTILE: list[tuple[object, str]] = [
    (b"", "not JSON"),
    (b"\xff\xfe", "not JSON"),
    (b"[" * 4_000, "not JSON"),
    (b'{"a":' * 1_300 + b"1" + b"}" * 1_300, ""),
    (b'{"id": "h", "k": ' + b"9" * 5_000 + b"}", "not JSON"),
    (b"x" * 200_000, f"{PAYLOAD_MAX} bytes at most"),
    ([1, 2], "no JSON object"),
    ({"near": "west"}, "give an id"),
    ({"id": 7, "near": "west"}, "give an id"),
    ({"id": "a\u0007b", "near": "west"}, "give an id"),
    ({"id": "\ud800", "near": "west"}, "give an id"),
    ({"id": "h" * 65, "near": "west"}, "give an id"),
    ({"id": "h"}, "ask either near"),
    ({"id": "h", "near": "nowhere"}, "called 'nowhere'"),
    ({"id": "h", "near": "\ud800"}, "near: "),
    ({"id": "h", "near": "west", "k": "5"}, "k: "),
    ({"id": "h", "near": "west", "k": 10**30}, "k: "),
    ({"id": "h", "near": "west", "deadline_s": -1}, "deadline_s: "),
    ({"id": "h", "features": [1] * 55, "crop": "grape"}, "features must be 56"),
    ({"id": "h", "near": {"$gt": ""}}, "near: "),
    ({"id": "h", "near": "west", "\u202e": 1, "secret-key": 2}, "(unknown): "),
]


def test_hostile_payloads_get_an_error_and_change_nothing(site: Site) -> None:
    for number, (payload, expected) in enumerate(HOSTILE, 1):
        site.person.say(QUESTION, payload)
        heard = site.person.next(ANSWER, number)
        assert heard["status"] == "error" and expected in heard["error"], (payload, heard)
        assert heard["id"] in ("h", None) and len(heard["error"]) < 500 and "\n" not in heard["error"]
    request = "swarm/farm/bridge/request/"
    for topic in (request, request + "A", request + "x/y/z", request + "x" * 60_000, request + "\u202e"):
        site.person.say(topic, b"{}")
    until(lambda: site.served.daemon.counters["mqtt_refused"] >= len(HOSTILE) + 5, "all counted")
    assert site.served.alive()


def test_a_retained_question_is_refused_when_the_daemon_meets_it(tmp_path: Path, broker: Broker) -> None:
    with Person(broker.port) as person:
        person.say(QUESTION, {"id": "old", "features": [0] * 56, "crop": "grape"}, retain=True)
        with Served(tmp_path, mqtt=settings(broker.port)) as served:
            heard = person.next(ANSWER)
            assert (heard["id"], heard["status"]) == ("old", "error") and "retained" in heard["error"]
            person.say(QUESTION, {"id": "new", "features": [0] * 56, "crop": "grape"})
            judged = person.next(ANSWER, 2)
            assert judged["id"] == "new" and judged["answer"]["coverage"] == 1.0
            asked = served.http.post("/api/ask", json={"features": [0] * 56, "crop": "grape"}).json()
            varying = ("query_id", "latency_s")
            assert set(asked) == set(judged["answer"]), "one object, both ways"
            assert all(asked[key] == judged["answer"][key] for key in asked if key not in varying)


# -- events, requests, discovery ------------------------------------------------------------------------


def test_what_nodes_and_rounds_do_is_told_on_their_topics(site: Site) -> None:
    site.speak()
    row = site.cell.nodes[1].row
    base = f"swarm/farm/node/{row['dev_eui']}"
    up = site.person.next(f"{base}/event/up")
    assert up["kind"] == "uplink" and up["data"]["dev_eui"] == row["dev_eui"] and up["data"]["f_port"] == 12
    assert site.person.next(f"{base}/event/status")["data"]["temperature_centi"] == 1834
    until(lambda: b'"risk":"high"' in site.person.on(f"{base}/report")[-1], "its report")
    report = site.person.next(f"{base}/report", len(site.person.on(f"{base}/report")))
    assert report["name"] == row["name"] and report["crop"] == row["crop"] and report["plot"] == row["plot"]
    assert (report["temperature_c"], report["humidity_percent"], report["rain_mm"]) == (18.34, 75.5, 0.3)
    assert (report["battery_percent"], report["external_power"], report["risk_percent"]) == (50, False, 79)
    assert report["last_seen"].endswith("+00:00") and report["snr_db"] == 7.5
    until(lambda: site.person.on(f"{base}/state")[-1] == b"online", "it is online")
    site.served.http.post("/api/rounds")
    assert site.person.next("swarm/farm/round/1/event/opened")["data"]["round"] == 1
    assert site.person.retained("swarm/farm/state") == b"online"


def test_bridge_requests_say_what_http_says(site: Site) -> None:
    site.speak()
    bridge = "swarm/farm/bridge"
    http = site.served.http
    site.person.say(f"{bridge}/request/nodes/list", {"transaction": "t", "limit": 4})
    first = site.person.next(f"{bridge}/response/nodes/list")
    assert (first["status"], first["transaction"]) == ("ok", "t")
    site.person.say(f"{bridge}/request/nodes/list", {"after": first["data"]["next"]})
    second = site.person.next(f"{bridge}/response/nodes/list", 2)
    assert second["data"]["next"] is None and "transaction" not in second
    assert first["data"]["nodes"] + second["data"]["nodes"] == http.get("/api/nodes").json()["nodes"]
    site.person.say(f"{bridge}/request/airtime", b"")
    assert site.person.next(f"{bridge}/response/airtime")["data"] == http.get("/api/airtime").json()
    site.person.say(f"{bridge}/request/rounds/open", b"")
    assert site.person.next(f"{bridge}/response/rounds/open")["data"] == {"round": 1}
    site.person.say(f"{bridge}/request/rounds/open", b"")
    assert site.person.next(f"{bridge}/response/rounds/open", 2)["status"] == "error"
    site.person.say(f"{bridge}/request/rounds/list", b"")
    assert site.person.next(f"{bridge}/response/rounds/list")["data"] == http.get("/api/rounds").json()
    site.person.say(f"{bridge}/request/state", b"{}")
    assert site.person.next(f"{bridge}/response/state")["data"]["nodes"] == 6
    site.person.say(f"{bridge}/request/nodes/lits", b"")
    assert "the verbs are airtime, nodes/list" in site.person.next(f"{bridge}/response/nodes/lits")["error"]
    site.person.say(f"{bridge}/request/nodes/list", {"transaction": "t", "limit": 0})
    assert "limit: " in site.person.next(f"{bridge}/response/nodes/list", 3)["error"]


def test_home_assistant_is_told_of_every_node_again_when_it_starts_and_of_those_that_go(site: Site) -> None:
    site.speak()
    row = site.cell.nodes[2].row
    topic = f"homeassistant/device/swarm_{row['dev_eui']}/config"
    document = site.person.next(topic)
    assert document["dev"] == {
        "ids": [f"swarm_{row['dev_eui']}"],
        "name": row["name"],
        "mf": "loraswarm",
        "mdl": f"{row['crop']} node",
        "sa": row["plot"],
    }
    assert document["stat_t"] == f"swarm/farm/node/{row['dev_eui']}/report"
    assert document["avty"] == [{"t": "swarm/farm/state"}, {"t": f"swarm/farm/node/{row['dev_eui']}/state"}]
    report = site.person.next(document["stat_t"])
    for key, entity in document["cmps"].items():
        assert entity["p"] == "sensor" and entity["uniq_id"] == f"swarm_{row['dev_eui']}_{key}"
        assert key in report and entity["val_tpl"] == "{{ value_json." + key + " }}"
    assert {"risk", "battery_percent", "temperature_c", "humidity_percent", "last_seen"} <= set(
        document["cmps"]
    )
    before = len(site.person.on(topic))
    site.person.say("homeassistant/status", b"online")
    assert site.person.next(topic, before + 1) == document
    assert site.served.http.delete(f"/api/nodes/{row['dev_eui']}").status_code == 200
    until(lambda: site.person.on(topic)[-1] == b"", "the node is taken away")
    until(lambda: site.person.on(f"swarm/farm/node/{row['dev_eui']}/state")[-1] == b"", "its state too")
    assert site.person.retained(topic) is None
    assert site.person.retained(document["stat_t"]) is None


def test_a_broker_that_lost_its_memory_is_told_everything_again(tmp_path: Path) -> None:
    with Broker(tmp_path / "broker") as broker:
        site = Site(tmp_path, broker)
        topic = f"homeassistant/device/swarm_{site.cell.nodes[0].row['dev_eui']}/config"
        document = site.person.next(topic)
        broker.kill()
        (broker.folder / "mosquitto.db").unlink()
        broker.start()
        until(lambda: site.person.subscriptions > 1, "the person is back")
        assert site.person.next(topic, 2) == document
        until(lambda: site.person.retained("swarm/farm/state") == b"online", "the gateway's state")
        site.close()


# -- brokers that are away, strict, or none ----------------------------------------------------------------


def test_without_a_broker_the_daemon_works_and_finds_it_when_it_comes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "swarm.mqtt")
    broker = Broker(tmp_path / "broker")
    with Served(tmp_path, mqtt=settings(broker.port)) as served:
        until(lambda: lines(caplog), "a line about it")
        body = {"dev_eui": "70b3d57ed0000001", "name": "n", "crop": "grape", "activation": "otaa"}
        added = served.http.post("/api/nodes", json={"nodes": [{**body, "app_key": "00" * 16}]}).json()
        assert added["added"] == 1
        where = f"mqtt 127.0.0.1:{broker.port}"
        assert lines(caplog) == [f"{where}: not reachable: Connection refused; trying again"]
        with broker, Person(broker.port) as person:
            until(lambda: person.retained("swarm/farm/state") == b"online", "it is found")
            added = person.next("swarm/farm/node/70b3d57ed0000001/event/log")
            assert added["kind"] == "node_added", "what happened meanwhile is told"
            assert lines(caplog)[1:] == [f"{where}: connected"]


def test_a_password_opens_and_a_wrong_one_is_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    broker = Broker(tmp_path / "broker", f"password_file {tmp_path}/broker/passwords", anonymous=False)
    broker.add_user("swarm", PASSWORD)
    secret = tmp_path / "secret"
    secret.touch(0o600)
    with broker:
        named = settings(broker.port, username="swarm", password_file=str(secret))
        secret.write_text("guess\n")
        with Served(tmp_path / "a", mqtt=named) as served:
            until(lambda: len(broker.log().split("not authorised")) > 2, "two attempts")
            assert served.alive()
        where = f"mqtt 127.0.0.1:{broker.port}"
        assert lines(caplog) == [f"{where}: refused: Not authorized; set [mqtt] username and password_file"]
        secret.write_text(PASSWORD + "\n")
        with (
            Served(tmp_path / "b", mqtt=named),
            Person(broker.port, username="swarm", password=PASSWORD) as person,
        ):
            until(lambda: person.on("swarm/farm/state"), "it is in")
    assert PASSWORD not in caplog.text and "guess" not in caplog.text


def test_tls_is_verified(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "swarm.mqtt")
    right, wrong = Authority(tmp_path / "right"), Authority(tmp_path / "wrong")
    with Broker(tmp_path / "broker", *right.lines()) as broker:
        where = f"mqtt 127.0.0.1:{broker.port}"
        for name, more, expected in (
            ("a", {"tls": True, "ca_file": str(wrong.ca_file)}, "its certificate is not accepted ("),
            ("b", {"tls": True}, "its certificate is not accepted ("),
            ("c", {}, "closed the connection without an answer; does it expect TLS"),
        ):
            caplog.clear()
            with Served(tmp_path / name, mqtt=settings(broker.port, **more)) as served:
                until(lambda: lines(caplog), "a line about it")
                assert served.alive()
            (line,) = lines(caplog)
            assert line.startswith(where) and expected in line and "\n" not in line
        assert "swarm-farm" not in broker.log(), "nothing was said to a broker that is not trusted"
        known = settings(broker.port, tls=True, ca_file=str(right.ca_file))
        with (
            Served(tmp_path / "d", mqtt=known),
            Person(broker.port, ca_file=right.ca_file) as person,
        ):
            until(lambda: person.on("swarm/farm/state") == [b"online"], "it is in")


def test_a_port_that_speaks_something_else_does_no_harm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise from a fixed seed, some of it behind a plausible beginning; the daemon tries on and works."""
    caplog.set_level(logging.INFO, "swarm.mqtt")
    for name, seconds in (("RETRY_MIN_S", 0.005), ("RETRY_MAX_S", 0.01), ("BROKEN_S", 0.005)):
        monkeypatch.setattr(link, name, seconds)
    draw = random.Random(3)
    attempts = []

    class Noise(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1000)
            beginning = draw.choice((b"", b"\x20\x02\x00\x00", b"\x20\x02\x01\x00", b"\x20\x02\x00\x01"))
            kind = draw.choice((0x20, 0x30, 0x32, 0x34, 0x36, 0x40, 0x50, 0x62, 0x90, 0xB0, 0xD0, 0xE0, 0x53))
            body = draw.randbytes(draw.randrange(0, 12))
            attempts.append(kind)
            self.request.sendall(beginning + bytes([kind, len(body)]) + body)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Noise) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        with Served(tmp_path, mqtt=settings(server.server_address[1])) as served:
            until(lambda: len(attempts) >= 150, "a hundred and fifty attempts", 60)
            assert served.alive()
        server.shutdown()
    assert any("closed the connection without an answer" in line for line in lines(caplog))
    assert len(lines(caplog)) < 30, "each thing is said once"


def test_a_broker_that_breaks_the_clients_thread_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refuses the version and is gone when paho comes back with an older one, which ends its loop."""
    caplog.set_level(logging.INFO, "swarm.mqtt")
    monkeypatch.setattr(link, "BROKEN_S", 0.05)
    broker = Broker(tmp_path / "broker")
    with socket.create_server(("127.0.0.1", broker.port)) as listener:
        served = Served(tmp_path, mqtt=settings(broker.port)).__enter__()
        connection, _ = listener.accept()
    connection.recv(1000)
    connection.sendall(b"\x20\x02\x00\x01")
    until(lambda: any("broke off (ConnectionRefusedError" in line for line in lines(caplog)), "a line")
    connection.close()
    with broker, Person(broker.port) as person:
        until(lambda: person.on("swarm/farm/state") == [b"online"], "it is in")
        served.__exit__(None, None, None)


def test_a_killed_daemon_is_said_to_be_offline_and_the_password_is_nowhere(tmp_path: Path) -> None:
    """The daemon as a process: the password is not in its arguments, environment or log."""
    with Broker(tmp_path / "broker") as broker:
        secret = tmp_path / "secret"
        secret.touch(0o600)
        secret.write_text(PASSWORD)
        (tmp_path / "swarm.toml").write_text(
            f'[udp]\nhost = "127.0.0.1"\nport = 0\n[http]\nport = {free_port()}\n[mqtt]\nenabled = true\n'
            f'port = {broker.port}\nname = "farm"\nusername = "swarm"\npassword_file = "secret"\n'
        )
        command = [sys.executable, "-m", "gateway.cli", "gateway", "run"]
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            with Person(broker.port) as person:
                until(lambda: person.on("swarm/farm/state") == [b"online"], "it is in", 60)
                said = Path(f"/proc/{process.pid}/cmdline").read_bytes()
                said += Path(f"/proc/{process.pid}/environ").read_bytes()
                process.send_signal(signal.SIGKILL)
                until(lambda: person.on("swarm/farm/state") == [b"online", b"offline"], "its will")
        finally:
            process.kill()
            process.wait()
        said += (tmp_path / "log").read_bytes()
        assert PASSWORD.encode() not in said
