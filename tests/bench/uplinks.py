"""Uplinks through the gateway on one core: parse, integrity code, decryption, decoding, SQLite on the disk.

Coordinator and store are the daemon's own, in turns as the daemon takes them: a batch of frames, a poll, one
transaction.  With PUSH_DATA the packet forwarder's parser stands in front, one packet to a datagram.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gateway.daemon import BATCH_MAX
from gateway.radios.packet_forwarder import PacketForwarder
from gateway.store.sqlite import SqliteStore
from swarm.commands import Command
from swarm.coordinator import Coordinator
from swarm.effects import Effect, Event, RxFrame, Store
from swarm.phy.regions import region
from swarm.registry import Refused
from tests.bench.measure import Measured, cpu_s
from tests.swarm import cell as farm
from tests.swarm.cell import GATEWAY, GROUP, add_node, device_of, status

__all__ = ["measure"]

T = TypeVar("T")

NODES = 1000
FRAMES = 4_000
REPEATS = 5
ADDRESS = ("192.0.2.1", 1700)


class Gateway:
    """What stands behind the daemon's socket, on a data directory of its own."""

    def __init__(self, folder: Path) -> None:
        self.store = SqliteStore(folder)
        self.core = Coordinator(farm.settings("none"), self.store.load(), farm.MODEL)
        self.radio = PacketForwarder(region("eu868"))
        self.now_us = farm.START_US
        commands: list[Command] = [GROUP, *(add_node(node) for node in range(NODES))]
        effects: list[Effect] = []
        for command in commands:
            result = self.core.on_command(self.now_us, command)
            assert not isinstance(result, Refused)
            effects += result
        self.commit(effects)

    def commit(self, effects: list[Effect]) -> None:
        stores = [effect for effect in effects if isinstance(effect, Store)]
        events = [effect for effect in effects if isinstance(effect, Event)]
        self.store.commit(stores, events, now_us=self.now_us)

    def turn(self, frames: list[RxFrame]) -> None:
        """One batch, as `Daemon._turn` takes it; the deduplication windows close before the poll."""
        effects: list[Effect] = []
        for frame in frames:
            effects += self.core.on_uplink(self.now_us, frame)
        self.now_us += self.core.config.dedup_us
        effects += self.core.poll(self.now_us)
        self.commit(effects)

    def turn_of_datagrams(self, datagrams: list[bytes]) -> None:
        """The same from the socket on."""
        frames: list[RxFrame] = []
        for datagram in datagrams:
            output = self.radio.on_datagram(self.now_us, datagram, ADDRESS)
            frames += [what for what in output.inputs if isinstance(what, RxFrame)]
        self.turn(frames)


def payloads() -> list[bytes]:
    """Status frames of a thousand nodes in turn, enough for all repeats."""
    devices = [device_of(node, region("eu868"), None) for node in range(NODES)]
    count = FRAMES * (REPEATS + 1)
    return [devices[number % NODES].uplink(0, 12, status()).payload for number in range(count)]


def as_frame(payload: bytes) -> RxFrame:
    return RxFrame(payload, GATEWAY, farm.START_US, 1, 868_100_000, 5, -90.0, 8.0)


def as_datagram(payload: bytes) -> bytes:
    packet = {"tmst": 1, "chan": 0, "rfch": 0, "freq": 868.1, "stat": 1, "modu": "LORA", "datr": "SF7BW125"}
    data = base64.b64encode(payload).decode()
    packet |= {"codr": "4/5", "lsnr": 8.0, "rssi": -90, "size": len(payload), "data": data}
    body = json.dumps({"rxpk": [packet]}, separators=(",", ":")).encode()
    return bytes((2, 0, 1, 0)) + bytes.fromhex(GATEWAY) + body


def measure() -> list[Measured]:
    """Uplinks per CPU second, by the size of the batches that share a transaction."""
    made = payloads()
    frames = [as_frame(payload) for payload in made]
    datagrams = [as_datagram(payload) for payload in made]
    rows = [
        _rate(f"uplinks, {batch} to a transaction", frames, batch, Gateway.turn)
        for batch in (BATCH_MAX, 16, 1)
    ]
    name = f"the same from PUSH_DATA datagrams on, {BATCH_MAX} to a transaction"
    return [*rows, _rate(name, datagrams, BATCH_MAX, Gateway.turn_of_datagrams)]


def _rate(name: str, items: list[T], batch: int, turn: Callable[[Gateway, list[T]], None]) -> Measured:
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        gateway = Gateway(Path(folder))
        starts = iter(range(0, len(items), FRAMES))

        def run() -> None:
            start = next(starts)
            for first in range(start, start + FRAMES, batch):
                turn(gateway, items[first : min(first + batch, start + FRAMES)])

        seconds, spread = cpu_s(run, repeats=REPEATS)
        counters = gateway.core.counters
        assert counters["uplink"] == len(items) and not counters["dropped"], counters
        gateway.store.close()
    return Measured(name, FRAMES / seconds, "uplinks/s", spread)
