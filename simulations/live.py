"""`swarm sim live`: the simulated cell in real time, as a packet forwarder in front of an unchanged gateway.

Theory of operation.  The same `Cell` as in virtual time runs against a clock: all events up to now are
handled, then the program waits for the next one or for a datagram.  The gateway's microsecond counter
is the world's time modulo 2^32, so the forwarder's arithmetic is a real one's.  With a speed other than
1 the world runs that much faster than the clock on the wall; the daemon must be told the same speed.

The world stands still until the daemon first answers, so that no node speaks before somebody can hear.
Afterwards it goes on, whatever the daemon does: frames sent to a daemon that is down are lost.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import cast

from simulations.cell import DAY_US, GATEWAY_ID, Cell, Downlink
from simulations.checkers import Checkers
from simulations.field import Field
from simulations.forwarder import Acknowledged, Forwarder, Request
from simulations.provisioning import channel, group, identities, provisioning
from simulations.radio import COUNTER_WRAP_US
from simulations.scenario import Scenario
from simulations.swarm_of_nodes import shipped_model
from swarm.config import MulticastChannel
from swarm.effects import Malformed, RxFrame
from swarm.phy.regions import region as region_of
from swarm.words import counted

__all__ = ["LiveGateway", "provisioning", "run"]

SPIN_UP_DAYS = 3
KEEPALIVE_S = 5.0
STATUS_S = 30.0
REPORT_S = 60.0
IDLE_MAX_S = 1.0


def make_cell(scenario: Scenario, gateway: LiveGateway) -> Cell:
    """The scenario's cell with its nodes' past behind it."""
    history = scenario.live.history_days
    plots = Field(
        scenario.nodes,
        scenario.days,
        scenario.seed,
        weather=scenario.weather or None,
        spin_up_days=SPIN_UP_DAYS + history,
        test_days=1,
        told_share=scenario.told_share,
    )
    return Cell(
        scenario,
        plots,
        identities(scenario, plots),
        group(scenario),
        shipped_model(),
        gateway,
        Checkers(scenario.region),
        start_us=(SPIN_UP_DAYS + history) * DAY_US,
        history_days=history,
    )


class LiveGateway:
    """The packet forwarder: the cell on one side, datagrams (through `send`) on the other.

    `tell` gets a line, once, when the daemon sends its multicast where the nodes do not listen.
    """

    def __init__(
        self, scenario: Scenario, send: Callable[[bytes], None], tell: Callable[[str], None] | None = None
    ) -> None:
        self._send = send
        self._tell = tell
        self._channel = channel(scenario)
        self._mc_addr = group(scenario).mc_addr.to_bytes(4, "little")
        self.forwarder = Forwarder(GATEWAY_ID, region_of(scenario.region))
        self.connected = False
        self.malformed = 0
        self.refused = 0
        self.cell = make_cell(scenario, self)

    def on_uplink(self, now_us: int, rx: RxFrame) -> None:
        """The cell's gateway received a frame: it goes to the daemon."""
        del now_us
        self._send(self.forwarder.push_data(rx))

    def on_datagram(self, now_us: int, datagram: bytes) -> None:
        """The daemon said something; without power nobody hears it."""
        if self.cell.air.gateway_is_down(now_us):
            return
        message = self.forwarder.on_datagram(datagram)
        match message:
            case Acknowledged():
                self.connected = True
            case Malformed():
                self.malformed += 1
            case Request():
                self._send(self.forwarder.tx_ack(message.token, self._take(now_us, message)))

    def _take(self, now_us: int, request: Request) -> str | None:
        """Queue a downlink; the forwarder's word for why not."""
        if not self.cell.region.allows(request.frequency_hz, request.bandwidth_hz):
            self.refused += 1
            return "TX_FREQ"
        if request.payload[1:5] == self._mc_addr:
            self._compare_channel(request)
        downlink = Downlink(
            payload=request.payload,
            start_us=self._start_us(now_us, request),
            frequency_hz=request.frequency_hz,
            spreading_factor=request.spreading_factor,
            bandwidth_hz=request.bandwidth_hz,
            power_dbm=request.power_dbm,
            purpose="downlink",
        )
        error = self.cell.transmit(now_us, downlink)
        self.refused += error is not None
        return error

    def _compare_channel(self, request: Request) -> None:
        """Say where the group's frames go if nobody listens there."""
        region, radio = self.cell.region, (request.spreading_factor, request.bandwidth_hz)
        rates = [
            index
            for index, rate in region.downlink_data_rates.items()
            if rate.kind == "lora" and (rate.spreading_factor, rate.bandwidth_hz) == radio
        ]
        mine = self._channel.data_rate
        theirs = MulticastChannel(
            region.name, mine if mine in rates else min(rates, default=-1), request.frequency_hz
        )
        if theirs == self._channel or self._tell is None:
            return
        self._tell(
            f"the gateway sends to all nodes at {theirs}, but they listen at {self._channel}: "
            f"set {', '.join(self._channel.settings(theirs))} in its swarm.toml and start it again"
        )
        self._tell = None

    def _start_us(self, now_us: int, request: Request) -> int:
        if request.tmst_us is None:
            return self.cell.radio.soonest_us(now_us)
        return now_us + (request.tmst_us - now_us) % COUNTER_WRAP_US

    def summary(self) -> str:
        """One line about the cell so far."""
        cell, checkers = self.cell, self.cell.checkers
        minutes = (cell.now_us - cell.start_us) / 60e6
        lost = ", ".join(f"{cause} {count}" for cause, count in sorted(checkers.lost.items())) or "none"
        return (
            f"{minutes:.1f} min: {counted(checkers.sent, 'uplink')}, {checkers.received} received, lost:"
            f" {lost}; {counted(cell.traffic.downlinks_sent, 'downlink')}, heard"
            f" {counted(cell.traffic.downlinks_received, 'time')}, "
            f"{self.refused} refused; {counted(checkers.violations.count, 'violation')}"
        )


class _Endpoint(asyncio.DatagramProtocol):
    """The socket: what arrives waits in `inbox`, and `arrived` wakes the loop."""

    def __init__(self) -> None:
        self.inbox: list[bytes] = []
        self.arrived = asyncio.Event()
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No isinstance: before Python 3.12 the selector loop's transport is none by its class.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.inbox.append(data)
        self.arrived.set()

    def error_received(self, exc: Exception) -> None:
        """Nobody listens at that port yet: the next PULL_DATA tries again."""

    def send(self, datagram: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(datagram)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def run(
    scenario: Scenario,
    address: tuple[str, int],
    *,
    speed: float = 1.0,
    say: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
) -> LiveGateway:
    """Play the scenario to the daemon at `address` until `stop` is set (default: for ever)."""
    tell = say or _to_stderr
    endpoint = _Endpoint()
    tell(
        f"{scenario.name}: preparing {counted(scenario.nodes, 'node')} and the past"
        f" {counted(scenario.live.history_days, 'day')}"
    )
    gateway = LiveGateway(scenario, endpoint.send, tell)
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: endpoint, remote_addr=address)
    try:
        await _await_gateway(gateway, endpoint, address, tell, stop)
        await _play(gateway, endpoint, speed, tell, stop)
    finally:
        endpoint.close()
    tell(gateway.summary())
    return gateway


async def _await_gateway(
    gateway: LiveGateway,
    endpoint: _Endpoint,
    address: tuple[str, int],
    tell: Callable[[str], None],
    stop: asyncio.Event | None,
) -> None:
    """Knock until the daemon answers."""
    tries = 0
    while not gateway.connected and not _stopped(stop):
        endpoint.send(gateway.forwarder.pull_data())
        await _wait(endpoint, 0.5)
        _take_inbox(gateway, endpoint, gateway.cell.start_us)
        tries += 1
        if tries == 3:
            tell(f"waiting for a gateway at {address[0]}:{address[1]}; start one with `swarm gateway run`")
    if gateway.connected:
        tell(f"the gateway at {address[0]}:{address[1]} answers; the nodes wake up")


async def _play(
    gateway: LiveGateway,
    endpoint: _Endpoint,
    speed: float,
    tell: Callable[[str], None],
    stop: asyncio.Event | None,
) -> None:
    """Keep the cell level with the clock."""
    cell, forwarder = gateway.cell, gateway.forwarder
    began = time.monotonic()
    due = {"keepalive": 0.0, "status": STATUS_S, "report": REPORT_S}
    while not _stopped(stop):
        elapsed_s = time.monotonic() - began
        now_us = cell.start_us + int(elapsed_s * speed * 1e6)
        cell.run_until(now_us)
        _take_inbox(gateway, endpoint, now_us)
        powered = not cell.air.gateway_is_down(now_us)
        if elapsed_s >= due["keepalive"] and powered:
            due["keepalive"] = elapsed_s + KEEPALIVE_S
            endpoint.send(forwarder.pull_data())
        if elapsed_s >= due["status"] and powered:
            due["status"] = elapsed_s + STATUS_S
            endpoint.send(forwarder.status(time.strftime("%Y-%m-%d %H:%M:%S GMT", time.gmtime())))
        if elapsed_s >= due["report"]:
            due["report"] = elapsed_s + REPORT_S
            tell(gateway.summary())
        next_us = cell.next_us()
        idle_s = IDLE_MAX_S if next_us is None else (next_us - now_us) / 1e6 / speed
        await _wait(endpoint, min(max(idle_s, 0.0), IDLE_MAX_S))


def _take_inbox(gateway: LiveGateway, endpoint: _Endpoint, now_us: int) -> None:
    inbox, endpoint.inbox = endpoint.inbox, []
    for datagram in inbox:
        gateway.on_datagram(now_us, datagram)


async def _wait(endpoint: _Endpoint, seconds: float) -> None:
    """Until a datagram arrives or the time is over."""
    endpoint.arrived.clear()
    if endpoint.inbox:
        return
    try:
        async with asyncio.timeout(seconds):
            await endpoint.arrived.wait()
    except TimeoutError:
        return


def _stopped(stop: asyncio.Event | None) -> bool:
    return stop is not None and stop.is_set()


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
