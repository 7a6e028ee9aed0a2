"""A hundred thousand hostile datagrams: nothing raises or grows, all are counted, honest frames get through.

In process: the packet forwarder's protocol and the real coordinator.  Over a socket: two thousand of them, at
a real daemon with its database.  The stream is drawn from a fixed seed; a failure names the input at fault.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.config import GatewayConfig, GatewaySection, HttpSection, UdpSection
from gateway.daemon import Daemon
from gateway.radios import gwmp
from gateway.radios.packet_forwarder import COUNTERS, GATEWAYS_MAX, GatewayHeard, Output, PacketForwarder
from swarm.effects import Effect, Event, RxFrame, Store, Transmit, TxAck
from swarm.mac.device import Delivered, EndDevice
from swarm.phy.regions import region
from tests.swarm import cell as farm
from tests.swarm.cell import GROUP, Cell, add_node, device_of, means, status
from tests.swarm.test_hostile_uplinks import Replay

SEED = 868
OVER_THE_SOCKET = 2_000
NODES = 8
EUI = bytes.fromhex("aa555a0000000001")
ADDRESS = ("192.0.2.1", 1700)
GROWTH_MAX_BYTES = 400_000
WITHIN_S = 20
ODD = (
    "1e999",
    "-1",
    "null",
    "true",
    '"x"',
    "[[[[]]]]",
    "{}",
    "0.5",
    "4294967296",
    "9" * 400,
    "NaN",
    '"\\ud800"',
)


def datagram(kind: int, body: object = None, eui: bytes = EUI, token: int = 7) -> bytes:
    text = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
    return bytes((2, token >> 8, token & 255, kind)) + eui + text


def rxpk(payload: bytes, tmst_us: int, **more: object) -> dict[str, Any]:
    data = base64.b64encode(payload).decode()
    packet = {"tmst": tmst_us % (1 << 32), "freq": 868.1, "stat": 1, "modu": "LORA", "datr": "SF7BW125"}
    return {**packet, "rssi": -60, "lsnr": 9.5, "size": len(payload), "data": data, **more}


def honest(draw: random.Random, payloads: list[bytes], now_us: int) -> bytes:
    """A datagram that a real forwarder could have sent; its frames are old."""
    match draw.randrange(6):
        case 0:
            return datagram(2, token=draw.randrange(1 << 16))
        case 1:
            return datagram(
                0, {"stat": {"time": "2026-11-22 06:01:56 GMT", "rxnb": 3, "ackr": 100.0, "txnb": 0}}
            )
        case 2:
            ack = {"txpk_ack": {"error": draw.choice(("NONE", "TOO_LATE", "COLLISION_PACKET", "TX_FREQ"))}}
            return datagram(5, draw.choice((None, ack)), token=draw.randrange(1 << 16))
        case _:
            frames = [rxpk(draw.choice(payloads), now_us) for _ in range(draw.choice((1, 1, 2, 8)))]
            return datagram(0, {"rxpk": frames})


def hostile(draw: random.Random, payloads: list[bytes], now_us: int) -> bytes:
    """An honest datagram spoilt somewhere, or noise."""
    base = bytearray(honest(draw, payloads, now_us))
    match draw.randrange(9):
        case 0:
            return draw.randbytes(draw.choice((0, 3, 4, 11, 12, 40, 400)))
        case 1:
            for place in draw.sample(range(8 * len(base)), draw.randrange(1, 20)):
                base[place // 8] ^= 1 << place % 8
        case 2:
            del base[draw.randrange(len(base)) :]
        case 3:
            base += draw.randbytes(draw.randrange(1, 60))
        case 4:  # another sender each time
            base[4:12] = draw.randbytes(8)
        case 5:
            base[draw.choice((0, 3))] = draw.randrange(256)
        case 6:  # a value of another kind, somewhere in the JSON
            text = base[12:].decode("utf-8")
            places = [place for place, letter in enumerate(text) if letter == ":"]
            if places:
                start = draw.choice(places) + 1
                end = min(place for place in (text.find(",", start), text.find("}", start)) if place > 0)
                return bytes(base[:12]) + (text[:start] + draw.choice(ODD) + text[end:]).encode()
        case 7:
            depth = draw.randrange(1, 5_000)
            return bytes(base[:12]) + b'{"rxpk":' + b"[" * depth + b"]" * draw.choice((0, depth)) + b"}"
        case _:  # well-formed JSON around a hostile frame
            frame = bytearray(draw.choice(payloads))
            frame[draw.randrange(len(frame))] ^= draw.randrange(1, 256)
            return datagram(0, {"rxpk": [rxpk(bytes(frame) or b"\0", now_us)]})
    return bytes(base)


class Post:
    """Packet forwarder and coordinator, joined as the daemon joins them; effects are counted, not kept."""

    def __init__(self) -> None:
        self.cell = Cell(config=farm.settings(dedup_us=0, period_s=2_000_000), nodes=NODES)
        self.core = self.cell.core
        self.radio = PacketForwarder(region("eu868"))
        self.now_us = farm.START_US
        self.kinds: Counter[str] = Counter()
        self.sent: list[bytes] = []

    def take(self, data: bytes) -> None:
        self.now_us += 5_000
        self._handle(self.radio.on_datagram(self.now_us, data, ADDRESS))
        self._handle(self.radio.poll(self.now_us))
        due_us = self.core.poll_at()
        if due_us is not None and due_us <= self.now_us:
            self._perform(self.core.poll(self.now_us))

    def wait(self, seconds: float) -> None:
        for _ in range(int(seconds * 20)):
            self.now_us += 45_000
            self.take(datagram(2))

    def _handle(self, output: Output) -> None:
        self.sent += [data for data, _ in output.datagrams if data[3] == gwmp.Kind.PULL_RESP]
        for what in output.inputs:
            match what:
                case RxFrame():
                    self._perform(self.core.on_uplink(self.now_us, what))
                case TxAck():
                    self._perform(self.core.on_tx_ack(self.now_us, what))
                case GatewayHeard():
                    self._perform(self.core.on_gateway(self.now_us, what.gateway_id))

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Transmit():
                    self.radio.transmit(self.now_us, effect)
                case Event():
                    self.kinds[effect.kind] += 1
                    gateway_id = effect.data.get("gateway_id")
                    if effect.kind == "uplink" and isinstance(gateway_id, str):
                        self.radio.accepted(gateway_id)
                case Store():
                    self.kinds[f"store {effect.table}"] += 1

    def sizes(self) -> dict[str, int]:
        """How much the tables hold that strangers can reach."""
        radio, links = self.radio, self.core.downlinks
        return {
            "gateways": len(radio._gateways),
            "held": len(radio._held),
            "deadlines": len(radio._deadlines),
            "pending": sum(len(gateway.pending) for gateway in radio._gateways.values()),
            "core gateways": len(links.gateways()),
            "in flight": len(links._in_flight),
            "remembered": len(self.core._dedup._seen),
        }


def is_answered(post: Post, device: EndDevice) -> bool:
    """Whether a confirmed frame of this device is acknowledged, through the datagrams alone."""
    post.sent.clear()
    frame = device.uplink(post.now_us, 12, status(), True)
    post.now_us = max(post.now_us, frame.end_us)
    post.take(datagram(2))
    post.take(datagram(0, {"rxpk": [rxpk(frame.payload, post.now_us)]}))
    post.wait(3)
    payloads = [base64.b64decode(json.loads(data[4:])["txpk"]["data"]) for data in post.sent]
    heard = [device.receive(post.now_us, payload) for payload in payloads]
    return any(isinstance(each, Delivered) and each.ack for each in heard)


@pytest.mark.parametrize("count", [8_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_storm_of_hostile_datagrams(count: int) -> None:
    draw = random.Random(SEED)
    post = Post()
    devices = post.cell.devices
    payloads = [device.uplink(0, 12, status()).payload for device in devices]
    payloads += [device.uplink(0, 10, means(node, 1)).payload for node, device in enumerate(devices)]
    assert is_answered(post, devices[0])
    taken = post.radio.counters["datagrams"]
    held_bytes = [0, 0]
    with Replay(SEED) as replay:
        for replay.number in range(count):
            replay.payload = hostile(draw, payloads, post.now_us)
            post.take(replay.payload)
            if replay.number == count // 2:
                tracemalloc.start()
            if replay.number == count * 3 // 4:
                # By now what the tables hold is new, so that all of it is in this figure.
                held_bytes[0] = tracemalloc.get_traced_memory()[0]
        held_bytes[1] = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
    counters = post.radio.counters
    assert set(counters) == set(COUNTERS) and counters["datagrams"] == taken + count
    assert held_bytes[1] - held_bytes[0] < GROWTH_MAX_BYTES, f"memory grows: {held_bytes}"
    for name, size in post.sizes().items():
        assert size <= 4096, f"{name}: {size}"
    assert post.sizes()["gateways"] <= GATEWAYS_MAX and post.sizes()["core gateways"] <= 64
    by_reason = {reason for reason in gwmp.REASONS if counters[reason]}
    assert by_reason >= {"datagram_size", "version", "kind", "json", "field_type", "field_range", "base64"}
    told = Counter(post.core.counters)
    assert told["dropped:mic"] > count // 1_000 and told["dropped:unknown_device"] > count // 1_000
    assert told["dropped"] == sum(count for name, count in told.items() if name.startswith("dropped:"))
    assert counters["packets"] >= told["uplink"] + told["dropped"] - told["dropped:too_many_gateways"]
    for device in devices:
        assert is_answered(post, device), "an honest frame after the storm"


# -- over a socket -----------------------------------------------------------------------------------


class Socket(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.received: asyncio.Queue[bytes] = asyncio.Queue()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.received.put_nowait(data)

    async def next(self, kind: int, token: int | None = None) -> bytes:
        async with asyncio.timeout(WITHIN_S):
            while True:
                data = await self.received.get()
                if data[3] == kind and token in (None, int.from_bytes(data[1:3], "big")):
                    return data


async def test_a_real_daemon_withstands_them_too(tmp_path: Path) -> None:
    draw = random.Random(SEED + 1)
    daemon = Daemon(
        GatewayConfig(
            gateway=GatewaySection(data_dir=str(tmp_path / "data")),
            udp=UdpSection(host="127.0.0.1", port=0),
            http=HttpSection(enabled=False),
        )
    )
    task = asyncio.create_task(daemon.run())
    async with asyncio.timeout(WITHIN_S):
        await daemon.started.wait()
    devices = [device_of(node, region("eu868"), None) for node in range(NODES)]
    payloads = [device.uplink(0, 12, status()).payload for device in devices]
    for command in (GROUP, *(add_node(node) for node in range(NODES))):
        assert await daemon.command(command) is None
    transport, radio = await asyncio.get_running_loop().create_datagram_endpoint(
        Socket, remote_addr=daemon.udp_address
    )
    with Replay(SEED + 1) as replay:
        for replay.number in range(OVER_THE_SOCKET):
            replay.payload = hostile(draw, payloads, daemon.now_us())
            transport.sendto(replay.payload)
            if replay.number % 20 == 19:  # no more than the socket's buffer holds
                transport.sendto(datagram(2, token=40_000 + replay.number))
                await radio.next(4, 40_000 + replay.number)
        frame = devices[0].uplink(0, 12, status(), True)
        transport.sendto(datagram(0, {"rxpk": [rxpk(frame.payload, daemon.now_us())]}))
        answer = await radio.next(3)
    payload = base64.b64decode(json.loads(answer[4:])["txpk"]["data"])
    delivered = devices[0].receive(1 << 60, payload)
    assert isinstance(delivered, Delivered) and delivered.ack
    assert not task.done()
    counters = daemon.radio.counters
    assert counters["datagrams"] + daemon.counters["inbox_lost"] >= OVER_THE_SOCKET
    assert sum(counters[reason] for reason in gwmp.REASONS) > OVER_THE_SOCKET // 4
    transport.close()
    daemon.stop()
    async with asyncio.timeout(WITHIN_S):
        await task
