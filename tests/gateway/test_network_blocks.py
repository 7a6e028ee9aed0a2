"""Large blocks behind ChirpStack and The Things Stack, over a real Mosquitto; the device is C code."""

from __future__ import annotations

import base64
import json
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swarm.prng import Prng
from swarm.security.lorawan import AesKey, data_block_key
from swarm.transport.device import Device
from swarm.transport.device_setup import Clock
from tests.gateway.broker import Broker, needs_mosquitto
from tests.gateway.network_server import Server, fate_topic_and_message, heard, network
from tests.web.served import Served, until

pytestmark = needs_mosquitto
EUI = "70b3d57ed0000001"
GEN_APP_KEY = bytes(range(16))
BLOCKS = {size: Prng(size).child("block").numpy().bytes(size) for size in (1000, 20_000)}
LOSS = 0.2
GPS_S = 315_964_800 - 18


class Field:
    """The server's queue for one device, and the device; of what is sent down a fifth is lost."""

    def __init__(self, server: Server, *, always_on: bool) -> None:
        self.server, self.always_on = server, always_on
        self.device = Device(data_block_key(AesKey(GEN_APP_KEY)).raw)
        self.born_us = time.time_ns() // 1000 - 1_000_000_000
        self.clock = Clock()
        self.draw = Prng(9).child("air").numpy()
        self.queue: deque[dict[str, Any]] = deque()
        self.depth = 0
        self.says: deque[tuple[int, bytes]] = deque()
        self.taken: set[str] = set()
        self.numbers: list[int] = []
        """Of the fragments, as the server sent them."""
        self._read = self._follows_from = 0

    def begin(self, served: Served) -> None:
        """A daemon is there."""
        self.served = served
        self._follows_from = self._read

    def pull(self) -> int:
        """How many downlinks wait at the server; one that the broker brought twice is known by its name."""
        published = self.server.person.on(self.server.down_topic(EUI))
        for data in published[self._read :]:
            message = json.loads(data)
            (message,) = message.get("downlinks", [message])
            name = message.get("id") or message["correlation_ids"][0]
            if name not in self.taken:
                self.taken.add(name)
                self.queue.append(message | {"of_this_daemon": self._read >= self._follows_from})
            self._read += 1
        self.depth = max(self.depth, len(self.queue))
        return len(self.queue)

    def uplink(self) -> None:
        """The device says what it has to say, and in class A hears one frame."""
        request, _ = self.clock.poll(self._now_us())
        f_port, payload = self.says.popleft() if self.says else (202 if request else 1, request or b"x")
        before = heard(self.served, EUI)
        self.server.uplink(EUI, f_port, payload)
        until(lambda: heard(self.served, EUI) > before, "the uplink")
        while self.pull():
            self.send()
            if not self.always_on:
                break

    def send(self) -> None:
        """The oldest of the queue goes out, and the server says so."""
        downlink = self.queue.popleft()
        payload = base64.b64decode(downlink.get("data") or downlink["frm_payload"])
        f_port = downlink.get("fPort") or downlink["f_port"]
        piece = f_port == 201 and payload[0] == 8
        if piece:
            self.numbers.append(int.from_bytes(payload[1:3], "little") & 0x3FFF)
        if f_port == 202 or self.draw.random() >= LOSS:  # the time is asked for again after minutes only
            self._hear(f_port, payload)
        self.server.person.say(*fate_topic_and_message(self.server, EUI, downlink))
        if piece and downlink["of_this_daemon"]:
            until(lambda: self.pull() or self.ended(), "what follows a piece")

    def _hear(self, f_port: int, payload: bytes) -> None:
        if f_port == 202:
            self.clock.rx(self._now_us(), payload)
        else:
            _, answer = self.device.rx(payload)
            if answer is not None:
                self.says.append((201, answer.payload))

    def _now_us(self) -> int:
        return time.time_ns() // 1000 - self.born_us

    def clock_error_s(self) -> int:
        return abs(self.clock.gps_s(self._now_us()) + GPS_S - int(time.time()))

    def block(self) -> dict[str, Any]:
        return dict(self.served.http.get("/api/blocks").json()["blocks"][-1])

    def ended(self) -> bool:
        return self.block()["state"] == "ended"


def register(served: Served, device_class: str) -> None:
    node = {"dev_eui": EUI, "name": "west-1", "crop": "tomato", "activation": "network", "plot": "west"}
    more = {"gen_app_key": GEN_APP_KEY.hex(), "device_class": device_class}
    assert served.http.post("/api/nodes", json={"nodes": [node | more]}).status_code == 200


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker", "set_tcp_nodelay true") as made:
        yield made


@pytest.mark.parametrize(
    ("kind", "device_class", "size"),
    [
        ("chirpstack", "a", 1000),
        ("things_stack", "a", 1000),
        pytest.param("chirpstack", "c", 20_000, marks=pytest.mark.slow),
        pytest.param("things_stack", "a", 20_000, marks=pytest.mark.slow),
    ],
)
def test_a_block_while_broker_and_daemon_die(
    tmp_path: Path, broker: Broker, kind: str, device_class: str, size: int
) -> None:
    """Goal: clock and block by the server's downlinks, every number once, whatever dies in between."""
    section = network(broker, kind)
    server = Server(kind, broker)
    field = Field(server, always_on=device_class == "c")
    with Served(tmp_path, network=section) as served:
        register(served, device_class)
        field.begin(served)
        field.uplink()
        sent = {"data": base64.b64encode(BLOCKS[size]).decode(), "nodes": ["west-1"]}
        assert served.http.post("/api/blocks", json=sent).status_code == 200
        while len(field.numbers) < 3:
            field.uplink()
        seen = server.person.subscriptions
        broker.kill()
        broker.start()
        until(lambda: server.person.subscriptions > seen, "the server is back at its broker")
        for _ in range(2):
            field.uplink()
    with Served(tmp_path, network=section) as served:
        field.begin(served)
        for _ in range(1000):
            if field.ended():
                break
            field.uplink()
        ended = field.block()
    server.person.__exit__()
    assert ended["state"] == "ended" and ended["complete"], ended
    assert field.device.block() == BLOCKS[size]
    assert field.clock.is_set and field.clock_error_s() <= 2
    assert field.numbers == sorted(set(field.numbers)), "no number comes twice"
    assert field.depth <= 2
    assert len(field.numbers) <= 1.25 * ended["pieces"] / (1 - LOSS) + 8
