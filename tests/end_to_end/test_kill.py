"""`kill -9` on a real daemon at the worst moments: nothing accepted is lost, no frame counter comes twice.

The daemon is a process of its own, its packet forwarder is written here, the data directory is looked at
from outside.  After each kill it starts again on what is on the disk.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import config as gateway_config
from swarm.phy.regions import region
from swarm.security.lorawan import AesKey, cipher_payload, data_mic
from swarm.wire import app, lorawan
from tests.swarm.cell import (
    GROUP,
    Cell,
    add_node,
    dev_addr,
    dev_eui,
    device_of,
    key,
    means,
    open_round,
    status,
)

ROOT = Path(__file__).resolve().parents[2]
EUI = bytes.fromhex("aa555a0000000001")
NODES = 40
SPEED = 4.0
"""The daemon's clock runs this much faster, so that a window's programme takes seconds;
the group's data rate leaves time to kill it between two frames."""
WITHIN_S = 30.0
WANTS_SCHEDULE = 1 << 2

SETTINGS = """
[gateway]
data_dir = "data"
[udp]
host = "127.0.0.1"
port = {udp}
[http]
port = {http}
[learning]
period_s = 36000
spread_s = 600
close_s = 30000
window_s = 3000
[learning.options]
gain_min = 0.0
nodes_min = 1.0
nodes_full = 1.0
[multicast]
data_rate = 2
repeats = 2
[lab]
clock_speed = {speed}
"""


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Site:
    """The daemon, its disk seen from outside, and the packet forwarder in front of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "swarm.toml"
        self.udp_port, self.http_port = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_STREAM)
        text = SETTINGS.format(udp=self.udp_port, http=self.http_port, speed=SPEED)
        self.file.write_text(text, encoding="utf-8")
        self.radio = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.radio.connect(("127.0.0.1", self.udp_port))
        self.daemon: subprocess.Popen[bytes] | None = None
        self.downlinks: list[bytes] = []
        self.pull_acks = 0
        self.kills = 0
        self._keepalive_s = 0.0

    # -- the process ------------------------------------------------------------------------------

    def start(self) -> None:
        command = [sys.executable, "-m", "gateway.cli", "gateway", "run", "-c", str(self.file)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with (self.folder / "log").open("ab") as log:
            self.daemon = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        before = self.pull_acks
        self.until("the daemon answers", lambda: self.pull_acks > before)

    def kill(self) -> None:
        assert self.daemon is not None
        self.daemon.kill()
        assert self.daemon.wait() == -signal.SIGKILL
        self.kills += 1

    def close(self) -> None:
        if self.daemon is not None and self.daemon.poll() is None:
            self.daemon.kill()
            self.daemon.wait()
        self.radio.close()

    def post(self, path: str, body: object = None) -> dict[str, Any]:
        token = (self.folder / "data" / "token").read_text("ascii").strip()
        answer = httpx.post(
            f"http://127.0.0.1:{self.http_port}{path}",
            json=body,
            headers={"Authorization": f"Bearer {token}"},
            timeout=WITHIN_S,
        )
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = answer.json()
        return result

    # -- the disk ---------------------------------------------------------------------------------

    def read(self, query: str) -> list[tuple[Any, ...]]:
        """What a query finds in the daemon's file, which is only read."""
        with sqlite3.connect(f"file:{self.folder / 'data' / 'swarm.db'}?mode=ro", uri=True) as database:
            return database.execute(query).fetchall()

    def count(self, query: str) -> int:
        return int(self.read(f"SELECT count(*) FROM {query}")[0][0])

    def accepted(self) -> set[int]:
        """The nodes whose update of the open round is on the disk."""
        return {int(row[0]) for row in self.read('SELECT node_index FROM "update" WHERE round = 1')}

    # -- the packet forwarder ---------------------------------------------------------------------

    def send(self, payload: bytes) -> None:
        """Hand on an uplink."""
        packet = {
            "tmst": int(time.monotonic() * 1e6 * SPEED) % (1 << 32),
            "freq": 868.1,
            "stat": 1,
            "modu": "LORA",
            "datr": "SF7BW125",
            "codr": "4/5",
            "rssi": -60,
            "lsnr": 9.5,
            "size": len(payload),
            "data": base64.b64encode(payload).decode(),
        }
        self._datagram(0, json.dumps({"rxpk": [packet]}).encode())

    def _datagram(self, kind: int, body: bytes = b"", token: bytes = b"\0\1") -> None:
        # Refused: the daemon is not there yet, the datagram before this one came back.
        with contextlib.suppress(ConnectionRefusedError):
            self.radio.send(b"\2" + token + bytes((kind,)) + EUI + body)

    def pump(self) -> None:
        """Take what came, acknowledge every downlink, keep the path open."""
        if time.monotonic() > self._keepalive_s:
            self._keepalive_s = time.monotonic() + 0.5
            self._datagram(2)
        while select.select([self.radio], [], [], 0.02)[0]:
            try:
                data = self.radio.recv(65_536)
            except ConnectionRefusedError:
                return
            if data[3] == 4:
                self.pull_acks += 1
            if data[3] == 3:
                txpk = json.loads(data[4:])["txpk"]
                self.downlinks.append(base64.b64decode(txpk["data"]))
                self._datagram(5, b"", data[1:3])
                return

    def until(self, what: str, condition: Callable[[], bool]) -> None:
        """Go on until the condition holds; the deadline is for a broken daemon."""
        deadline_s = time.monotonic() + WITHIN_S
        while not condition():
            assert self.daemon is None or self.daemon.poll() is None, f"the daemon ended: {self.log()}"
            assert time.monotonic() < deadline_s, f"{what}: not within {WITHIN_S} s; {self.log()}"
            self.pump()

    def log(self) -> str:
        return (self.folder / "log").read_text("utf-8")[-3000:]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def provisioning() -> dict[str, Any]:
    """The farm of `tests.swarm.cell` as an import."""
    crops = ("apple", "tomato", "potato", "grape")
    nodes = []
    for index in range(NODES):
        node = add_node(index)
        assert node.nwk_s_key is not None and node.app_s_key is not None
        keys = {"nwk_s_key": node.nwk_s_key.hex(), "app_s_key": node.app_s_key.hex()}
        place = {"plot": node.plot, "lat": node.lat, "lon": node.lon, "node_index": index}
        named = {"dev_eui": node.dev_eui, "name": node.name, "crop": crops[node.context], "activation": "abp"}
        nodes.append({**named, **place, **keys, "dev_addr": f"{dev_addr(index):08x}"})
    group = {"nwk_s_key": GROUP.nwk_s_key.hex(), "app_s_key": GROUP.app_s_key.hex()}
    return {"nodes": nodes, "multicast": {"mc_addr": f"{GROUP.mc_addr:08x}", **group}}


def opened(payloads: list[bytes]) -> list[tuple[int, int, app.DownlinkMessage | None]]:
    """(DevAddr, counter, message) of each downlink; the integrity code of each is checked with its keys."""
    keys = {dev_addr(index): (key(1, index), key(2, index)) for index in range(NODES)}
    keys[GROUP.mc_addr] = (GROUP.nwk_s_key, GROUP.app_s_key)
    made: list[tuple[int, int, app.DownlinkMessage | None]] = []
    for payload in payloads:
        frame = lorawan.parse_downlink(payload)
        assert isinstance(frame, lorawan.DataFrame), frame
        nwk, application = (AesKey(raw) for raw in keys[frame.dev_addr])
        where = {"uplink": False, "dev_addr": frame.dev_addr, "f_cnt": frame.f_cnt}
        assert data_mic(nwk, frame.signed, **where) == frame.mic  # type: ignore[arg-type]
        message = None
        if frame.f_port:
            plain = cipher_payload(application, frame.frm_payload, **where)  # type: ignore[arg-type]
            message = app.decode_downlink(frame.f_port, plain)
            assert not isinstance(message, lorawan.Malformed), message
        made.append((frame.dev_addr, frame.f_cnt, message))
    return made


def reference_digest(file: Path) -> str:
    """What a core makes of the same updates when nobody kills it."""
    cell = Cell(config=gateway_config.swarm_config(gateway_config.read(file)), nodes=NODES)
    number = open_round(cell)
    for node in range(NODES):
        cell.uplink(node, 10, means(node, number))
    (closed,) = cell.told("round_closed")
    assert closed.data["updates"] == NODES
    return str(closed.data["digest"])


class Farm:
    """The nodes: what each has sent so far, so that it can be played again."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.devices = [device_of(index, region("eu868"), None) for index in range(NODES)]
        self.sent: dict[int, list[bytes]] = {index: [] for index in range(NODES)}

    def speak(self, node: int, f_port: int, payload: bytes, confirmed: bool = False) -> None:
        self.sent[node].append(self.devices[node].uplink(0, f_port, payload, confirmed).payload)
        self.site.send(self.sent[node][-1])

    def update(self, nodes: Iterable[int], enough: Callable[[], bool] = lambda: False) -> None:
        """These nodes send their update for round 1 one after the other, until it is enough."""
        for node in nodes:
            self.speak(node, 10, means(node, 1))
            if enough():
                return


@pytest.mark.timeout(240)
def test_nothing_is_lost_and_nothing_repeats_when_the_daemon_is_killed(site: Site) -> None:
    farm = Farm(site)
    site.start()
    site.post("/api/nodes", provisioning())
    # Frames of both kinds before the first kill, so that both counters have somewhere to go back to.
    for node in range(NODES):
        farm.speak(node, 12, status(WANTS_SCHEDULE), confirmed=True)
        site.pump()
    site.until("every node was heard", lambda: site.count("session WHERE f_cnt_up = 0") == NODES)
    site.until("some were answered", lambda: len(site.downlinks) >= 3)
    _killed_in_the_programme(site)
    before = _killed_after_an_update(site, farm)
    _recorded_uplinks_do_nothing(site, farm, before)
    survived = _killed_in_a_storm(site, farm, before)
    _the_round_closes_with_everybody(site, farm, survived)
    mark = len(site.downlinks)
    _killed_in_the_acknowledgements(site, mark)
    _judge(site, mark)


def _killed_in_the_programme(site: Site) -> None:
    site.post("/api/rounds")
    mark = len(site.downlinks)
    site.until("the first announcement", lambda: _multicast(site.downlinks[mark:]) >= 1)
    site.kill()
    site.start()
    site.until("it is announced to the end", lambda: _announced(site) == 1)
    assert site.read("SELECT state, updates FROM round") == [("open", 0)]


def _killed_after_an_update(site: Site, farm: Farm) -> set[int]:
    """Right after the event log told of updates; which nodes' updates are on the disk."""
    farm.update(range(12))
    site.until("five updates are told", lambda: site.count("event WHERE kind = 'update'") >= 5)
    site.kill()
    before = site.accepted()
    assert len(before) >= 5
    site.start()
    assert site.accepted() == before
    return before


def _recorded_uplinks_do_nothing(site: Site, farm: Farm, before: set[int]) -> None:
    """Old frames are refused; the last one of a node is a retransmission, which does not count again."""
    told = site.count("event WHERE kind = 'update'")
    for node in before:
        for payload in farm.sent[node]:
            site.send(payload)
    refused = "event WHERE kind = 'dropped' AND data LIKE '%\"reason\":\"replay\"%'"
    site.until("replays are refused", lambda: site.count(refused) >= len(before))
    assert site.count("event WHERE kind = 'update'") == told and site.accepted() == before


def _killed_in_a_storm(site: Site, farm: Farm, before: set[int]) -> set[int]:
    """While updates and commits follow one another; which nodes' updates are on the disk."""

    def storming() -> bool:
        return len(site.accepted()) >= len(before) + 3

    farm.update(sorted(set(range(NODES)) - before), storming)
    site.until("the storm has begun", storming)
    site.kill()
    survived = site.accepted()
    site.start()
    assert site.accepted() == survived >= before
    return survived


def _the_round_closes_with_everybody(site: Site, farm: Farm, survived: set[int]) -> None:
    """What was not accepted is sent anew, as nodes do."""
    for node in sorted(set(range(NODES)) - survived):
        farm.update([node])
        site.pump()
    site.until("the round closes", lambda: site.count("event WHERE kind = 'round_closed'") == 1)
    closed = json.loads(site.read("SELECT data FROM event WHERE kind = 'round_closed'")[0][0])
    assert (closed["round"], closed["updates"], closed["model_version"]) == (1, NODES, 1)
    assert closed["digest"] == reference_digest(site.file)


def _killed_in_the_acknowledgements(site: Site, mark: int) -> None:
    """In the programme that acknowledges everybody; then it is sent whole."""
    site.post("/api/rounds")
    site.until("a second programme", lambda: _multicast(site.downlinks[mark:]) >= 2)
    site.kill()
    site.start()
    site.until("it is sent to its end", lambda: _announced(site) == 2)
    site.until(
        "the announcement arrives", lambda: isinstance(opened(site.downlinks)[-1][2], app.RoundAnnounce)
    )


def _multicast(payloads: list[bytes]) -> int:
    return sum(address == GROUP.mc_addr for address, _, _ in opened(payloads))


def _announced(site: Site) -> int:
    row = site.read("SELECT value FROM meta WHERE key = 'announced'")
    return int(row[0][0]) if row else 0


def _judge(site: Site, mark: int) -> None:
    """Every downlink ever sent, and what the last window told the nodes."""
    assert site.kills == 4
    everything = opened(site.downlinks)
    pairs = [(address, f_cnt) for address, f_cnt, _ in everything]
    assert len(pairs) == len(set(pairs)), "a frame counter was used twice"
    assert len({address for address, _ in pairs}) > 3, "unicast and multicast were both on the air"
    acknowledged = set()
    for _, _, message in everything[mark:]:
        if isinstance(message, app.RoundAck) and message.round == 1:
            for place in range(8 * len(message.bitmap)):
                if message.bitmap[place // 8] >> place % 8 & 1:
                    acknowledged.add(message.first_index + place)
    assert acknowledged == set(range(NODES))
    assert site.read('SELECT count(*), count(DISTINCT dev_eui) FROM "update" WHERE round = 1') == [
        (NODES, NODES)
    ]
    last = {row[0]: row[1] for row in site.read("SELECT dev_eui, f_cnt_down FROM session")}
    for index in range(NODES):
        used = [f_cnt for address, f_cnt in pairs if address == dev_addr(index)]
        assert all(f_cnt < last[dev_eui(index)] for f_cnt in used)
