"""Many packet forwarders in one loop: they play a timetable of uplinks to a daemon, and keep the answers.

Every gateway has a socket of its own on loopback; their counters start together.  A report is sent when
its time has come or, in a flood, when few enough wait for their PUSH_ACK.  A PULL_RESP is acknowledged at
once; it is late when it comes less than the 42.5 ms before its start that a forwarder's queue wants.
"""

from __future__ import annotations

import base64
import json
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Forwarders", "Heard", "Played"]

HEAD = 12
RADIO_LEAD_S = 0.0425
"""The packet forwarder's queue takes no frame that starts sooner."""
QUIET_S, QUIET_CONFIRMED_S = 0.5, 2.5
"""After so long without any answer none is expected any more."""
PULL_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Heard:
    """An uplink that is over at `at_s` of the timetable; `gateways` heard it, the best one first."""

    at_s: float
    device: int
    f_cnt: int
    payload: bytes
    frequency_hz: int
    gateways: tuple[int, ...]
    confirmed: bool = False


@dataclass(frozen=True, slots=True)
class Copy:
    """One gateway's report of uplink `number`: the datagram before and after the counter's ten places."""

    at_s: float
    number: int
    gateway: int
    token: int
    before: bytes
    after: bytes
    answered: bool
    """Whether it is to be answered through this gateway."""


@dataclass
class Played:
    """What became of a timetable; times in seconds."""

    seconds: float = 0.0
    sent: int = 0
    kept: set[int] = field(default_factory=set)
    """The uplinks of which a report was acknowledged, by their place in the timetable."""
    acknowledged: list[float] = field(default_factory=list)
    """From each datagram to its PUSH_ACK."""
    answered: list[float] = field(default_factory=list)
    """From each confirmed uplink to its PULL_RESP."""
    asked: int = 0
    late: int = 0
    second_window: int = 0


def gateway_id(number: int) -> str:
    return f"aa555a00000{number:05x}"


def reports(timetable: Sequence[Heard]) -> list[Copy]:
    """The reports of a timetable, in the order in which they are sent."""
    made = []
    for number, heard in enumerate(timetable):
        for place, gateway in enumerate(heard.gateways):
            token = number & 0xFFFF
            packet = {
                "tmst": "COUNTER",
                "chan": 0,
                "rfch": 0,
                "freq": heard.frequency_hz / 1e6,
                "stat": 1,
                "modu": "LORA",
                "datr": "SF7BW125",
                "codr": "4/5",
                "lsnr": 9.0 - 2 * place,
                "rssi": -60 - place,
                "size": len(heard.payload),
                "data": base64.b64encode(heard.payload).decode(),
            }
            body = json.dumps({"rxpk": [packet]}, separators=(",", ":")).encode()
            before, after = body.split(b'"COUNTER"')
            answered = heard.confirmed and place == 0
            head = _head(token, 0, gateway) + before
            made.append(Copy(heard.at_s, number, gateway, token, head, after, answered))
    return made


def _head(token: int, kind: int, gateway: int) -> bytes:
    return bytes((2, token >> 8, token & 255, kind)) + bytes.fromhex(gateway_id(gateway))


class Forwarders:
    """`count` gateways in front of the daemon at `port`."""

    def __init__(self, count: int, port: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._sockets = []
        for number in range(count):
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.connect(("127.0.0.1", port))
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            made.setblocking(False)
            self._selector.register(made, selectors.EVENT_READ, number)
            self._sockets.append(made)
        self._pulled_s = -PULL_EVERY_S
        self._boot_s = time.perf_counter()
        self._sent: list[dict[int, tuple[float, int]]] = [{} for _ in range(count)]
        """Of each gateway: token -> when the report was sent, and of which uplink."""
        self._windows: list[dict[int, float]] = [{} for _ in range(count)]
        """Of each gateway: the counter at the end of a confirmed uplink -> when that was."""

    def close(self) -> None:
        for each in self._sockets:
            each.close()
        self._selector.close()

    def play(self, timetable: Sequence[Heard], *, in_flight_max: int | None = None) -> Played:
        """Send all of it and wait for the answers; with `in_flight_max` as fast as PUSH_ACKs come."""
        todo, played = reports(timetable), Played()
        played.asked = sum(copy.answered for copy in todo)
        self._sent = [{} for _ in self._sockets]
        self._windows = [{} for _ in self._sockets]
        self._pulled_s = -PULL_EVERY_S
        start_s = time.perf_counter()
        counter_s = start_s - self._boot_s
        place, waiting, quiet_from_s = 0, 0, 0.0
        while True:
            now_s = time.perf_counter() - start_s
            self._pull(now_s)
            while place < len(todo) and (
                todo[place].at_s <= now_s if in_flight_max is None else waiting < in_flight_max
            ):
                ended_s = todo[place].at_s if in_flight_max is None else now_s
                self._send(todo[place], now_s, ended_s, int((counter_s + ended_s) * 1e6))
                place, waiting = place + 1, waiting + 1
            ready = self._selector.select(0.0005 if place < len(todo) else 0.05)
            now_s = time.perf_counter() - start_s
            for key, _ in ready:
                acknowledged = self._receive(key.data, now_s, played)
                waiting -= acknowledged
                played.seconds = now_s if acknowledged else played.seconds
            quiet_from_s = now_s if ready or place < len(todo) else quiet_from_s
            missing = len(played.answered) < played.asked
            if now_s - quiet_from_s > (QUIET_CONFIRMED_S if missing else QUIET_S):
                played.sent = len(todo)
                return played

    def _pull(self, now_s: float) -> None:
        if now_s - self._pulled_s >= PULL_EVERY_S:
            self._pulled_s = now_s
            for number, each in enumerate(self._sockets):
                each.send(_head(0, 2, number))

    def _send(self, copy: Copy, now_s: float, ended_s: float, tmst_us: int) -> None:
        self._sent[copy.gateway][copy.token] = now_s, copy.number
        if copy.answered:
            self._windows[copy.gateway][tmst_us] = ended_s
        self._sockets[copy.gateway].send(b"%b%10d%b" % (copy.before, tmst_us, copy.after))

    def _receive(self, gateway: int, now_s: float, played: Played) -> int:
        """Read what has come for a gateway; how many PUSH_ACKs there were."""
        acknowledged = 0
        while True:
            try:
                data = self._sockets[gateway].recv(4096)
            except BlockingIOError:
                return acknowledged
            if data[3] == 1:
                sent = self._sent[gateway].pop(data[1] << 8 | data[2], None)
                if sent is not None:
                    played.acknowledged.append(now_s - sent[0])
                    played.kept.add(sent[1])
                    acknowledged += 1
            elif data[3] == 3:
                self._sockets[gateway].send(data[:3] + b"\x05" + bytes.fromhex(gateway_id(gateway)))
                self._answered(gateway, now_s, json.loads(data[4:])["txpk"]["tmst"], played)

    def _answered(self, gateway: int, now_s: float, tmst_us: int, played: Played) -> None:
        for number, after_us in enumerate((1_000_000, 2_000_000)):
            ended_s = self._windows[gateway].pop(tmst_us - after_us, None)
            if ended_s is not None:
                played.answered.append(now_s - ended_s)
                played.second_window += number
                played.late += now_s > ended_s + after_us / 1e6 - RADIO_LEAD_S
                return
