"""One daemon, ten thousand devices, 1, 10 or 50 gateways: UDP on loopback, a real database, real frames.

The daemon is `swarm gateway run` in a process of its own, on a data directory that holds the nodes.  Frames
are genuine uplinks of `EndDevice`s, made beforehand; one to three gateways hear each.  Three timetables:

* a flood: the next report goes out when one of `IN_FLIGHT` was acknowledged; how many uplinks a second;
* `RATE_AIM` a second: how long a PUSH_ACK takes, and how long until the answer to a confirmed uplink leaves,
  which is after the uplink was stored;
* `CONFIRMED_RATE` a second, as many of them confirmed as the radios can answer (ten a second each).

Afterwards the database must hold the last counter that was acknowledged of every device.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from gateway.store.sqlite import SqliteStore
from swarm.commands import Command
from swarm.coordinator import Coordinator
from swarm.effects import Effect, Event, Store
from swarm.phy.regions import region
from swarm.registry import Refused
from tests.bench.forwarders import Forwarders, Heard, Played
from tests.bench.measure import Measured
from tests.swarm import cell as farm
from tests.swarm.cell import GROUP, add_node, dev_eui, device_of, status

__all__ = ["measure"]

DEVICES = 10_000
GATEWAYS = (1, 10, 50)
IN_FLIGHT = 512
FLOOD = 20_000
"""Uplinks."""
RATE_AIM, RATE_S = 5_000, 4.0
CONFIRMED_RATE, CONFIRMED_S = 1_000, 8.0
ANSWERS_A_SECOND = 10
"""What one radio can answer: a frame of 41 ms, and the 44 ms between two frames."""
DEDUP_S = 0.2
"""Copies are gathered for so long, before an uplink is judged."""


class Daemon:
    """The process, and what the kernel says of it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_bytes(self) -> int:
        text = Path(f"/proc/{self.process.pid}/status").read_text("utf-8")
        return int(text.partition("VmRSS:")[2].split()[0]) * 1024


@contextmanager
def running(folder: Path, port: int) -> Iterator[Daemon]:
    """`swarm gateway run` on this data directory."""
    settings = folder / "swarm.toml"
    settings.write_text(
        f'[gateway]\ndata_dir = "{folder / "data"}"\n[udp]\nhost = "127.0.0.1"\nport = {port}\n'
        '[http]\nenabled = false\n[learning]\nmode = "none"\n'
    )
    command = [sys.executable, "-m", "gateway.cli", "gateway", "run", "-c", str(settings)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": os.getcwd()}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            while "Ctrl-C" not in (line := process.stdout.readline()):
                assert line, "the daemon did not start"
            yield Daemon(process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def provision(folder: Path, devices: int) -> None:
    """A data directory with these nodes, as commands leave it."""
    store = SqliteStore(folder / "data")
    core = Coordinator(farm.settings("none"), store.load(), farm.MODEL)
    commands: list[Command] = [GROUP, *(add_node(number) for number in range(devices))]
    effects: list[Effect] = []
    for command in commands:
        result = core.on_command(farm.START_US, command)
        assert not isinstance(result, Refused)
        effects += result
    stores = [effect for effect in effects if isinstance(effect, Store)]
    store.commit(stores, [effect for effect in effects if isinstance(effect, Event)])
    store.close()


class Field:
    """The devices; every timetable takes them in turn, so that none is asked twice within seconds."""

    def __init__(self) -> None:
        self._devices = [device_of(number, region("eu868"), None) for number in range(DEVICES)]
        self._turn = 0
        self._draw = random.Random(1)
        self._now_us = 0

    def timetable(self, count: int, rate: float, gateways: int, confirmed_rate: float) -> list[Heard]:
        """`count` uplinks, `rate` a second; confirmed ones at their own rate, evenly over the gateways."""
        made: list[Heard] = []
        confirmed = 0
        for number in range(count):
            at_s = number / rate
            asks = confirmed < at_s * confirmed_rate
            heard_by = self._draw.sample(range(gateways), min(gateways, self._draw.randint(1, 3)))
            if asks:
                best = confirmed % gateways
                heard_by = [best, *(each for each in heard_by if each != best)]
                confirmed += 1
            made.append(self._uplink(at_s, tuple(heard_by), asks))
        return made

    def _uplink(self, at_s: float, gateways: tuple[int, ...], confirmed: bool) -> Heard:
        device = self._devices[self._turn % DEVICES]
        if self._turn % DEVICES == 0:
            self._now_us += 3_600_000_000  # an hour of rest: the devices keep their duty cycle too
        self._turn += 1
        frame = device.uplink(self._now_us, 12, status(), confirmed)
        number = (self._turn - 1) % DEVICES
        return Heard(at_s, number, frame.f_cnt, frame.payload, frame.frequency_hz, gateways, confirmed)


def measure() -> list[Measured]:
    """Rows for each number of gateways, and the memory of the devices."""
    rows: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="load") as root:
        provision(Path(root) / "none", 0)
        provision(Path(root) / "all", DEVICES)
        with running(Path(root) / "none", _free_port()) as daemon:
            empty = daemon.memory_bytes()
        for gateways in GATEWAYS:
            folder = Path(root) / f"with-{gateways}"
            shutil.copytree(Path(root) / "all", folder)
            rows += _with_gateways(folder, gateways, empty)
    return rows


def _with_gateways(folder: Path, gateways: int, empty_bytes: int) -> list[Measured]:
    """The three timetables at a fresh daemon; AssertionError when an uplink is missing afterwards."""
    field, port = Field(), _free_port()
    name = f"{gateways} gateway{'s' * (gateways > 1)}"
    answers = min(ANSWERS_A_SECOND * gateways, CONFIRMED_RATE)
    opening = field.timetable(10 * gateways, 200, gateways, 0)
    flood = field.timetable(FLOOD, 1e9, gateways, 0)
    steady = field.timetable(int(RATE_AIM * RATE_S), RATE_AIM, gateways, min(answers, 50))
    asking = field.timetable(int(CONFIRMED_RATE * CONFIRMED_S), CONFIRMED_RATE, gateways, answers)
    with running(folder, port) as daemon:
        resting = daemon.memory_bytes()
        air = Forwarders(gateways, port)
        opened = air.play(opening)
        before_s = daemon.cpu_s()
        flooded = air.play(flood, in_flight_max=IN_FLIGHT)
        flood_cpu_s = daemon.cpu_s() - before_s
        before_s = daemon.cpu_s()
        paced = air.play(steady)
        paced_cpu_s = daemon.cpu_s() - before_s
        confirmed = air.play(asking)
        loaded = daemon.memory_bytes()
        air.close()
    _check_stored(folder, [(opening, opened), (flood, flooded), (steady, paced), (asking, confirmed)])
    rows = [
        Measured(
            f"{name}: uplinks kept, as fast as they are acknowledged",
            FLOOD / flooded.seconds,
            "uplinks/s",
            note=f"{FLOOD / flood_cpu_s:,.0f} a CPU second; {len(flooded.acknowledged)} datagrams",
        ),
        *_latencies(f"{name}, {RATE_AIM:,} uplinks/s", paced, paced_cpu_s / RATE_S),
        *_windows(f"{name}, {CONFIRMED_RATE:,} uplinks/s, {answers} of them confirmed", confirmed),
    ]
    if gateways == max(GATEWAYS):
        note = f"{empty_bytes / 1e6:.0f} MB without devices, {loaded / 1e6:.0f} MB after all this"
        rows.append(
            Measured(f"memory of {DEVICES:,} devices", (resting - empty_bytes) / 1e6, "MB", note=note)
        )
    return rows


def _latencies(name: str, played: Played, core: float) -> list[Measured]:
    more = f"{played.sent - len(played.acknowledged)} datagrams lost, {core:.0%} of a core"
    stored_s = [each - DEDUP_S for each in played.answered]
    return [
        Measured(
            f"{name}: PUSH_ACK after, p99",
            1e3 * _quantile(played.acknowledged, 0.99),
            "ms",
            note=f"p50 {1e3 * statistics.median(played.acknowledged):.1f} ms, {more}",
        ),
        Measured(
            f"{name}: stored and answered after, p99",
            1e3 * _quantile(stored_s, 0.99),
            "ms",
            note=f"p50 {1e3 * statistics.median(stored_s):.1f} ms, without the {1e3 * DEDUP_S:.0f} ms in"
            " which copies are gathered",
        ),
    ]


def _windows(name: str, played: Played) -> list[Measured]:
    unanswered = played.asked - len(played.answered)
    note = f"{len(played.answered)} of {played.asked} answered, {played.second_window} of them in RX2"
    latest = max(played.answered, default=0.0)
    return [
        Measured(f"{name}: windows missed", played.late, "", note=note),
        Measured(f"{name}: PULL_RESP after, latest", 1e3 * latest, "ms", note=f"unanswered {unanswered}"),
    ]


def _check_stored(folder: Path, played: list[tuple[list[Heard], Played]]) -> None:
    """AssertionError unless each device's last uplink that was acknowledged is in the database."""
    last = {
        dev_eui(heard.device): heard.f_cnt
        for timetable, what in played
        for heard in (timetable[number] for number in sorted(what.kept))
    }
    with closing(sqlite3.connect(folder / "data" / "swarm.db")) as database:
        stored = dict(database.execute("SELECT dev_eui, f_cnt_up FROM session WHERE f_cnt_up IS NOT NULL"))
    missing = [name for name, f_cnt in last.items() if stored.get(name, -1) < f_cnt]
    assert not missing, f"{len(missing)} devices' last uplinks are not in the database: {missing[:3]}"


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
