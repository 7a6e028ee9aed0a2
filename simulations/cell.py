"""One cell in virtual time: the field, the nodes, the air and the gateway's radio; no gateway logic.

Theory of operation.  A heap of events ordered by (time, sequence) drives everything; times are integer
microseconds since the noon of the field's first day.  What happens, and what it leads to:

    hour          all nodes sense (one batch); at noon the day before yesterday's labels become known
    wake          the firmware of one node is polled; its frames become uplinks
    uplink start  -> the air; energy, airtime
    uplink end    -> received: to the gateway (`on_uplink`); in any case the node's receive windows open
    windows over  the node goes back to sleep, or tries to join again
    downlink      start -> the gateway is deaf; end -> every node that listened and heard gets the bytes

The gateway is whatever implements `Gateway`: the core itself in `simulations.world`, a packet forwarder
in front of a real daemon in `simulations.live`.  Downlinks come in through `transmit`.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol

import numpy as np

from simulations.air import Air, UplinkFrame, symbol_us
from simulations.checkers import Checkers
from simulations.energy import EnergyBook
from simulations.field import Field
from simulations.links import GATEWAY_ANTENNA_DBI, Links, frame_key
from simulations.provisioning import Identity
from simulations.radio import COUNTER_WRAP_US, GatewayRadio
from simulations.scenario import Scenario
from simulations.swarm_of_nodes import Sending, SwarmOfNodes
from simulations.windows import ClassAWindow, DownlinkFrame, Windows
from swarm.commands import SetMulticast
from swarm.config import MulticastChannel
from swarm.effects import Malformed, RxFrame
from swarm.mac.device import RxWindow
from swarm.model.layout import CONTEXTS
from swarm.phy.airtime import airtime_us
from swarm.phy.link import foliage_loss_db, sensitivity_dbm
from swarm.phy.regions import region as region_of
from swarm.prng import Prng
from swarm.wire.lorawan import DATA_OVERHEAD

__all__ = ["DAY_US", "GATEWAY_ID", "HOUR_US", "Cell", "Downlink", "Gateway", "Traffic"]

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
GATEWAY_ID = "0253574d00000001"
_WINDOW_SYMBOLS = 8
"""How long a receive window without a frame keeps the radio on: a preamble."""
_WINDOWS_OVER_US = 200_000
_SNR_REPORTED_MAX_DB = 14.0
"""The demodulator's estimate saturates: gateways never report more, however near the node."""


class Gateway(Protocol):
    """Whoever hears what the cell's gateway receives."""

    def on_uplink(self, now_us: int, rx: RxFrame) -> None: ...


@dataclass(frozen=True, slots=True)
class Downlink:
    """A frame for the gateway's transmitter; `power_dbm` goes into its antenna."""

    payload: bytes
    start_us: int
    frequency_hz: int
    spreading_factor: int
    bandwidth_hz: int
    power_dbm: float
    purpose: str

    @property
    def airtime_us(self) -> int:
        return airtime_us(self.spreading_factor, self.bandwidth_hz, len(self.payload), crc=False)


@dataclass(slots=True)
class Traffic:
    """What went over the air so far."""

    up_us: Counter[str] = field(default_factory=Counter)
    down_us: Counter[str] = field(default_factory=Counter)
    up_bytes: Counter[str] = field(default_factory=Counter)
    """Application payloads, without LoRaWAN's own 13 bytes."""
    down_bytes: Counter[str] = field(default_factory=Counter)
    downlinks_sent: int = 0
    downlinks_received: int = 0
    """Receptions: one multicast frame may have many."""
    downlinks_lost: Counter[str] = field(default_factory=Counter)


class Kind(IntEnum):
    """Kinds of events; the order matters only among events of one instant and one sequence number: never."""

    HOUR = 0
    WAKE = 1
    JOIN = 2
    UPLINK_START = 3
    UPLINK_END = 4
    WINDOWS_OVER = 5
    DOWNLINK_START = 6
    DOWNLINK_END = 7
    OUTAGE = 8
    CALL = 9


class Cell:
    """See the module.  `now_us` is the time of the last event handled."""

    def __init__(
        self,
        scenario: Scenario,
        plots: Field,
        identities: list[Identity],
        group: SetMulticast,
        model: bytes,
        gateway: Gateway,
        checkers: Checkers,
        *,
        start_us: int,
        history_days: int = 0,
    ) -> None:
        prng = Prng(scenario.seed).child("cell")
        self.scenario, self.field, self.checkers = scenario, plots, checkers
        self.region = region_of(scenario.region)
        self.links = _links(scenario, plots, identities, prng.child("links"))
        self.air = Air(self.links, scenario.radio)
        self.radio = GatewayRadio()
        self.windows = Windows(self.links, scenario.radio.noise_figure_db, self._multicast_channel())
        self.energy = EnergyBook(scenario.nodes)
        self.traffic = Traffic()
        self.now_us = self.start_us = start_us
        self._gateway = gateway
        self._mc_addr = group.mc_addr.to_bytes(4, "little")
        self._labels_from = len(plots.spin_up) - history_days
        self._heap: list[tuple[int, int, Kind, Any]] = []
        self._sequence = 0
        self._outages = 0
        self._receives_until_us: dict[int, int] = {}
        """Node -> the end of the frame that one of its class A windows has caught."""
        self.nodes = SwarmOfNodes(
            scenario, self.region, plots, identities, group, self.links, model, start_us
        )
        first_hour = start_us // HOUR_US
        self.nodes.learn_history(range(first_hour), self._labels_from)
        self._battery_at_start = prng.child("batteries").numpy().uniform(0.6, 1.0, scenario.nodes)
        self._measure_batteries(start_us)
        self._open_announced_windows(start_us)
        self._wake_us = [0] * scenario.nodes
        for node in range(scenario.nodes):
            self._push(start_us, Kind.WAKE, node)
            self._wake_us[node] = start_us
        for node, at_us in self.nodes.join_at_us.items():
            self._push(at_us, Kind.JOIN, node)
        if first_hour < plots.hours:
            self._push((first_hour + 1) * HOUR_US, Kind.HOUR, first_hour)
        self._plan_outages(prng.child("outages"))
        self._handlers: dict[Kind, Callable[[int, Any], None]] = {
            Kind.HOUR: self._hour,
            Kind.WAKE: self._wake,
            Kind.JOIN: self._join,
            Kind.UPLINK_START: self._uplink_start,
            Kind.UPLINK_END: self._uplink_end,
            Kind.WINDOWS_OVER: self._windows_over,
            Kind.DOWNLINK_START: self._downlink_start,
            Kind.DOWNLINK_END: self._downlink_end,
            Kind.OUTAGE: self._outage,
            Kind.CALL: lambda now_us, call: call(now_us),
        }

    # -- the clock --------------------------------------------------------------------------------

    def next_us(self) -> int | None:
        """When the next event is due."""
        return self._heap[0][0] if self._heap else None

    def run_until(self, until_us: int) -> None:
        """Handle all events up to and including `until_us`."""
        heap, handlers = self._heap, self._handlers
        while heap and heap[0][0] <= until_us:
            at_us, _, kind, what = heapq.heappop(heap)
            self.now_us = at_us
            handlers[kind](at_us, what)
        self.now_us = until_us

    def call_at(self, at_us: int, call: Callable[[int], None]) -> None:
        """Let the driver do something at a time of the world."""
        self._push(max(at_us, self.now_us), Kind.CALL, call)

    def _push(self, at_us: int, kind: Kind, what: object) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (at_us, self._sequence, kind, what))

    # -- the gateway's transmitter ----------------------------------------------------------------

    def transmit(self, now_us: int, downlink: Downlink) -> str | None:
        """Queue a downlink; None, or the packet forwarder's word for why not."""
        error = self.radio.offer(now_us, downlink.start_us, downlink.airtime_us)
        if error is None:
            self._push(downlink.start_us, Kind.DOWNLINK_START, (downlink, self._outages))
        return error

    # -- the field --------------------------------------------------------------------------------

    def _hour(self, now_us: int, hour: int) -> None:
        for node in self.nodes.sense(hour, now_us):
            self._poll(now_us, node)
        self.energy.sensed(1)
        if (hour + 1) % 24 == 0 and (day := (hour + 1) // 24 - 2) >= self._labels_from:
            self.nodes.label(day)
        if (hour + 1) % 24 == 0:
            self._measure_batteries(now_us)
        if hour + 1 < self.field.hours:
            self._push(now_us + HOUR_US, Kind.HOUR, hour + 1)

    def _measure_batteries(self, now_us: int) -> None:
        """Once a day every node learns how much is left, in the 254 steps of LoRaWAN."""
        listened_us, duration_us = self.windows.listened_us, now_us - self.start_us
        left = self.energy.battery_left(listened_us, duration_us, self._battery_at_start)
        for node, steps in enumerate(np.maximum(np.rint(left * 254), 1).astype(int).tolist()):
            self.nodes.firmware.set_battery(node, steps)

    # -- uplinks ----------------------------------------------------------------------------------

    def _wake(self, now_us: int, node: int) -> None:
        if self._wake_us[node] == now_us:
            self._poll(now_us, node)

    def _poll(self, now_us: int, node: int) -> None:
        sendings, too_long, next_us = self.nodes.poll(node, now_us)
        if too_long:
            self.checkers.on_uplinks_too_long(too_long)
        for sending in sendings:
            self._push(sending.frame.at_us, Kind.UPLINK_START, sending)
        self._open_announced_windows(now_us)
        if self._wake_us[node] != next_us:
            self._wake_us[node] = next_us
            self._push(next_us, Kind.WAKE, node)

    def _join(self, now_us: int, node: int) -> None:
        sending = self.nodes.join(node, now_us)
        self._push(sending.frame.at_us, Kind.UPLINK_START, sending)

    def _uplink_start(self, now_us: int, sending: Sending) -> None:
        frame, node = sending.frame, sending.node
        rate = self.region.data_rate(frame.data_rate, uplink=True)
        power_dbm = self.scenario.radio.node_power_dbm + self.nodes.devices[node].mac.power_offset_db()
        on_air = UplinkFrame(
            node=node,
            key=frame_key(sending.f_port == 0, frame.f_cnt),
            start_us=now_us,
            end_us=frame.end_us,
            frequency_hz=frame.frequency_hz,
            spreading_factor=rate.spreading_factor,
            bandwidth_hz=rate.bandwidth_hz,
            power_dbm=power_dbm,
        )
        self.air.start(on_air)
        self.windows.transmits(node, now_us, frame.end_us)
        self.energy.uplink(node, frame.airtime_us, power_dbm, sending.f_port == 10)
        self.traffic.up_us[sending.purpose] += frame.airtime_us
        self.traffic.up_bytes[sending.purpose] += max(0, len(frame.payload) - DATA_OVERHEAD)
        self.checkers.on_uplink_start(
            node,
            now_us,
            frame.end_us,
            frequency_hz=frame.frequency_hz,
            bandwidth_hz=rate.bandwidth_hz,
            power_dbm=power_dbm,
        )
        self._push(frame.end_us, Kind.UPLINK_END, (sending, on_air))

    def _uplink_end(self, now_us: int, what: tuple[Sending, UplinkFrame]) -> None:
        sending, on_air = what
        outcome = self.air.finish(on_air)
        self.checkers.on_uplink_end(now_us, outcome.lost)
        windows = self.nodes.rx_windows(sending)
        self.windows.open_class_a(sending.node, tuple(self._class_a_window(each) for each in windows))
        self._push(windows[1].open_us + _WINDOWS_OVER_US, Kind.WINDOWS_OVER, (sending, windows))
        if outcome.lost is None:
            self._gateway.on_uplink(
                now_us,
                RxFrame(
                    payload=sending.frame.payload,
                    gateway_id=GATEWAY_ID,
                    at_us=now_us,
                    tmst_us=now_us % COUNTER_WRAP_US,
                    frequency_hz=on_air.frequency_hz,
                    data_rate=sending.frame.data_rate,
                    rssi_dbm=round(outcome.rssi_dbm, 1),
                    snr_db=round(min(outcome.snr_db, _SNR_REPORTED_MAX_DB), 1),
                ),
            )

    @property
    def channel(self) -> MulticastChannel:
        """Where the group sends and listens."""
        return self.scenario.multicast.channel(self.region)

    def _multicast_channel(self) -> ClassAWindow:
        """Where all nodes listen in their multicast windows; the time says nothing here."""
        return self._class_a_window(RxWindow(0, self.channel.frequency_hz, self.channel.data_rate))

    def _class_a_window(self, window: RxWindow) -> ClassAWindow:
        rate = self.region.data_rate(window.data_rate, uplink=False)
        return ClassAWindow(window.open_us, window.frequency_hz, rate.spreading_factor, rate.bandwidth_hz)

    def _windows_over(self, now_us: int, what: tuple[Sending, tuple[RxWindow, RxWindow]]) -> None:
        sending, windows = what
        node = sending.node
        receives_until_us = self._receives_until_us.pop(node, 0)
        if sending.frame.join and receives_until_us > now_us:  # perhaps the accept: wait for its end
            self._push(receives_until_us + 1, Kind.WINDOWS_OVER, what)
            return
        if self.windows.close_class_a(node):  # nothing came: both windows were open for a preamble
            for window in windows:
                rate = self.region.data_rate(window.data_rate, uplink=False)
                self.energy.window(
                    node, round(_WINDOW_SYMBOLS * symbol_us(rate.spreading_factor, rate.bandwidth_hz))
                )
            self.energy.wait(node, windows[1].open_us - sending.frame.end_us)
            again = None if receives_until_us > now_us else self.nodes.again(sending, now_us)
            if again is not None:
                self._push(again.frame.at_us, Kind.UPLINK_START, again)
        if sending.frame.join and not self.nodes.devices[node].joined:
            self._push(now_us, Kind.JOIN, node)

    # -- downlinks --------------------------------------------------------------------------------

    def _downlink_start(self, now_us: int, what: tuple[Downlink, int]) -> None:
        downlink, outages = what
        if self._outages != outages:  # it was queued when the gateway lost its power
            self.traffic.downlinks_lost["outage"] += 1
            return
        end_us = now_us + downlink.airtime_us
        frame = DownlinkFrame(
            key=frame_key(int.from_bytes(downlink.payload[-8:], "little"), 0),
            payload=downlink.payload,
            start_us=now_us,
            end_us=end_us,
            frequency_hz=downlink.frequency_hz,
            spreading_factor=downlink.spreading_factor,
            bandwidth_hz=downlink.bandwidth_hz,
            power_dbm=downlink.power_dbm,
        )
        self.air.gateway_transmits(now_us, end_us)
        self.traffic.downlinks_sent += 1
        self.traffic.down_us[downlink.purpose] += end_us - now_us
        self.traffic.down_bytes[downlink.purpose] += max(0, len(downlink.payload) - DATA_OVERHEAD)
        self.checkers.on_downlink_start(
            "the gateway",
            downlink.payload,
            now_us,
            end_us,
            frequency_hz=downlink.frequency_hz,
            bandwidth_hz=downlink.bandwidth_hz,
            power_dbm=downlink.power_dbm + GATEWAY_ANTENNA_DBI,
        )
        # A multicast frame is known by its address; whoever has a class A window open may hear any other.
        multicast = downlink.payload[1:5] == self._mc_addr
        listeners = None if multicast else self.windows.class_a_listeners(frame)
        self._receives_until_us.update(dict.fromkeys(listeners or (), end_us))
        self._push(end_us, Kind.DOWNLINK_END, (frame, listeners))

    def _downlink_end(self, now_us: int, what: tuple[DownlinkFrame, list[int] | None]) -> None:
        frame, listeners = what
        if listeners is None:
            self._multicast_end(now_us, frame)
        else:
            self._class_a_end(now_us, frame, listeners)

    def _multicast_end(self, now_us: int, frame: DownlinkFrame) -> None:
        nodes, received_dbm, lost = self.windows.hear_multicast(frame)
        self.traffic.downlinks_lost += lost
        snr_db = np.rint(received_dbm - self._noise_dbm(frame)).tolist()
        for node, snr in zip(nodes.tolist(), snr_db, strict=True):
            if not isinstance(self.nodes.receive(node, now_us, frame.payload, snr), Malformed):
                self.traffic.downlinks_received += 1
                self._poll(now_us, node)
        self._open_announced_windows(now_us)

    def _class_a_end(self, now_us: int, frame: DownlinkFrame, listeners: list[int]) -> None:
        lost: Counter[str] = Counter()
        received = 0
        for node in listeners:
            cause, received_dbm = self.windows.hear_class_a(node, frame)
            if cause is not None:
                lost[cause] += 1
                continue
            result = self.nodes.receive(node, now_us, frame.payload, received_dbm - self._noise_dbm(frame))
            if isinstance(result, Malformed):
                continue  # for somebody else whose window is open at the same time
            received += 1
            self.windows.close_class_a(node)
            self.energy.window(node, frame.end_us - frame.start_us)
            self.energy.wait(node, frame.start_us - self.windows.last_uplink_end_us(node))
            self._poll(now_us, node)
        self._open_announced_windows(now_us)
        self.traffic.downlinks_received += received
        if received == 0:
            cause_of_all = lost.most_common(1)[0][0] if lost else "not_listening"
            self.traffic.downlinks_lost[cause_of_all] += 1

    def _noise_dbm(self, frame: DownlinkFrame) -> float:
        """The noise floor: the sensitivity of SF7, whose limit is -7.5 dB, says it."""
        return sensitivity_dbm(7, frame.bandwidth_hz, self.scenario.radio.noise_figure_db) + 7.5

    def _open_announced_windows(self, now_us: int) -> None:
        for node, from_us, until_us in self.nodes.listens():
            self.windows.listen(now_us, node, from_us, until_us)

    # -- hardships --------------------------------------------------------------------------------

    def _plan_outages(self, prng: Prng) -> None:
        hardship = self.scenario.hardship
        days = (self.field.hours * HOUR_US - self.start_us) / DAY_US
        draws = prng.numpy()
        for _ in range(int(draws.poisson(hardship.outages_per_day * days))):
            self._push(self.start_us + int(draws.random() * days * DAY_US), Kind.OUTAGE, hardship.outage_s)

    def _outage(self, now_us: int, seconds: int) -> None:
        """The gateway is without power: deaf, dumb, and what it was to send is forgotten."""
        self._outages += 1
        self.air.gateway_fails(now_us, now_us + seconds * 1_000_000)
        self.radio.clear()


def _links(scenario: Scenario, plots: Field, identities: list[Identity], prng: Prng) -> Links:
    foliage = [
        foliage_loss_db(crop, scenario.radio.node_height_m, leaf_on=scenario.hardship.leaf_on)
        for crop in CONTEXTS
    ]
    return Links(
        prng,
        np.array([np.hypot(each.x_m, each.y_m) for each in identities]),
        scenario.radio,
        scenario.hardship,
        frequency_hz=region_of(scenario.region).uplink_channels[0].frequency_hz,
        foliage_db=np.array(foliage)[plots.context],
    )
