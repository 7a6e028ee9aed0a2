"""The network-server side of Semtech's UDP packet forwarder: many gateways, their clocks and queues.

Theory of operation.  `PacketForwarder` is sans-IO: datagrams and `Transmit`s go in with the time, an
`Output` comes out, holding datagrams to send and inputs for the core (`RxFrame`, `TxAck`, `GatewayHeard`).

* A downlink goes to the newest source address of the gateway's PULL_DATA, because NAT moves it.
* A downlink is held here until shortly before its start.  The forwarder's own queue (32 places) stays
  almost empty, and a class C frame is sent by the gateway's counter, not by the luck of arrival.
  A gateway whose counter is unknown (nothing received yet) gets `imme` at the very start.
* Each PULL_RESP has a token; its TX_ACK or, where a forwarder stays silent (malformed request, no
  transmitter on that chain), the timeout becomes exactly one `TxAck`.
* Forwarders of the SX1301 refuse a power that is not in their table (later ones take the next lower one, and
  warn).  Such a frame is offered again with 1 dB less, as long as there is time, and what the gateway took is
  remembered.
* Everything refused is counted under one of the fixed `COUNTERS`; every table has a maximum.

There is no authentication in this protocol.  `allowed` (gateway EUIs) keeps strangers out by name only;
without it any sender may introduce a gateway, and the table evicts the one that was silent longest among
those that never delivered an accepted frame.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from gateway.radios import gwmp
from gateway.radios.counter import CounterMap
from gateway.radios.held import HeldDownlinks
from gateway.radios.radio import GatewayHeard, Output, Refusal
from swarm.effects import Malformed, RxFrame, Transmit, TxAck
from swarm.phy.regions import Region

__all__ = [
    "COUNTERS",
    "GATEWAYS_MAX",
    "Address",
    "GatewayHeard",
    "Output",
    "PacketForwarder",
]

Address = tuple[str, int]

GATEWAYS_MAX = 1000
PENDING_MAX = 256
"""Downlinks of one gateway that wait for their TX_ACK."""
CLASS_A_LEAD_US = 2_000_000
CLASS_C_LEAD_US = 400_000
IMMEDIATE_LEAD_US = 5_000
IMMEDIATE_LATE_US = 100_000
AGAIN_LEAD_US = 80_000
"""A frame is not offered again later than that before its start."""
POWER_STEPS_MAX = 12
"""Lower powers that are tried, 1 dB each: no table has a wider gap."""
POWERS_KEPT_US = 86_400_000_000
"""So long it is remembered what a table lacks: who says it now and then must not talk a gateway down."""
ACK_TIMEOUT_US = 2_000_000
PATH_EXPIRES_US = 120_000_000
"""PULL_DATA comes every 5-10 s; NAT forgets after about a minute."""
HEARD_EVERY_US = 10_000_000
"""A sign of life is passed on to the core this often, however many there are."""

COUNTERS = (
    *gwmp.REASONS,
    "gateway_not_allowed",
    "gateway_table_full",
    "region_data_rate",
    "region_frequency",
    "tx_ack_unknown",
    "counter_unknown",
    "datagrams",
    "packets",
    "pull_resp",
    "tx_ack_timeout",
    "power_lowered",
    "downlink_refused",
    "gateway_evicted",
)


@dataclass(slots=True)
class _Pending:
    transmit: Transmit
    deadline_us: int
    power_dbm: int


@dataclass(slots=True)
class _Gateway:
    counter: CounterMap
    known: bool
    heard_us: int
    reported_us: int | None = None
    pull_address: Address | None = None
    pulled_us: int = 0
    packets: int = 0
    status: Mapping[str, float | str] = field(default_factory=dict)
    pending: dict[int, _Pending] = field(default_factory=dict)
    powers: dict[int, int] = field(default_factory=dict)
    """Power asked for (dBm) -> what is asked instead, for its table lacks that."""
    powers_until_us: int = 0


class PacketForwarder:
    """All gateways behind one UDP port.  `speed` is the clock's: network delays grow with it."""

    def __init__(
        self,
        region: Region,
        *,
        known: Iterable[str] = (),
        allowed: Collection[str] = (),
        speed: float = 1.0,
    ) -> None:
        self._region = region
        self._known = set(known)
        self._allowed = frozenset(eui.lower() for eui in allowed)
        # Delays on the way are real time; at another speed of the core's clock they last longer.
        self._scale = max(1.0, speed)
        self._gateways: dict[str, _Gateway] = {}
        self._deadlines: deque[tuple[int, str, int]] = deque()
        self._token = 0
        self.counters: dict[str, int] = dict.fromkeys(COUNTERS, 0)
        self._held = HeldDownlinks(self.counters)

    # -- inputs -----------------------------------------------------------------------------------

    def on_datagram(self, now_us: int, datagram: bytes, address: Address, /) -> Output[Address]:
        """A datagram arrived; never raises, whatever it holds."""
        self.counters["datagrams"] += 1
        output: Output[Address] = Output()
        message = gwmp.parse(datagram)
        if isinstance(message, Malformed):
            self._refuse("", message, output)
            return output
        gateway = self._gateway(now_us, message.gateway_id, output)
        if gateway is None:
            return output
        match message:
            case gwmp.PushData():
                output.datagrams.append((gwmp.acknowledge(gwmp.Kind.PUSH_ACK, message.token), address))
                self._pushed(now_us, gateway, message, output)
            case gwmp.PullData():
                gateway.pull_address, gateway.pulled_us = address, now_us
                output.datagrams.append((gwmp.acknowledge(gwmp.Kind.PULL_ACK, message.token), address))
            case gwmp.TxAcknowledged():
                self._acknowledged(now_us, gateway, message, output)
        self._report(now_us, message.gateway_id, gateway, output)
        return output

    def serves(self, gateway_id: str) -> bool:
        """Whether this gateway was heard here."""
        return gateway_id in self._gateways

    def transmit(self, now_us: int, transmit: Transmit) -> None:
        """Take a downlink; `poll` sends it when its time has come, or says why not."""
        self._held.hold(transmit, self._release_us(transmit))

    def poll(self, now_us: int) -> Output[Address]:
        """Send what is due and give up what was not answered."""
        output: Output[Address] = Output()
        for transmit in self._held.due(now_us):
            self._send(now_us, transmit, output)
        while self._deadlines and self._deadlines[0][0] <= now_us:
            _, gateway_id, token = self._deadlines.popleft()
            self._timed_out(now_us, gateway_id, token)
        output.inputs += self._held.fates()
        return output

    def poll_at(self) -> int | None:
        """When `poll` has something to do (us); None: nothing."""
        times = [self._deadlines[0][0]] if self._deadlines else []
        held_us = self._held.at()
        times += [] if held_us is None else [held_us]
        return min(times) if times else None

    def accepted(self, gateway_id: str, *, genuine: bool = True) -> None:
        """This gateway proved itself: it is no stranger any more and stays in the table; or is one again."""
        (self._known.add if genuine else self._known.discard)(gateway_id)
        gateway = self._gateways.get(gateway_id)
        if gateway is not None:
            gateway.known = genuine or gateway_id in self._allowed

    def snapshot(self) -> list[dict[str, object]]:
        """The table of gateways, for people: one row each, sorted by id."""
        return [
            {
                "gateway_id": gateway_id,
                "heard_us": gateway.heard_us,
                "address": None if gateway.pull_address is None else "{}:{}".format(*gateway.pull_address),
                "packets": gateway.packets,
                "known": gateway.known,
                "status": dict(gateway.status),
            }
            for gateway_id, gateway in sorted(self._gateways.items())
        ]

    # -- uplinks ----------------------------------------------------------------------------------

    def _refuse(self, gateway_id: str, why: Malformed, output: Output[Address]) -> None:
        self.counters[why.reason] += 1
        output.refused.append(Refusal(gateway_id, why.reason, why.detail))

    def _gateway(self, now_us: int, gateway_id: str, output: Output[Address]) -> _Gateway | None:
        """The gateway's entry, made when new; None when it may not be."""
        gateway = self._gateways.pop(gateway_id, None)
        if gateway is None:
            if self._allowed and gateway_id not in self._allowed:
                stranger = Malformed("gateway_not_allowed", f"gateway {gateway_id}")
                self._refuse(gateway_id, stranger, output)
                return None
            known = gateway_id in self._known or gateway_id in self._allowed
            if len(self._gateways) >= GATEWAYS_MAX and not self._evict():
                full = Malformed("gateway_table_full", f"{GATEWAYS_MAX} gateways")
                self._refuse(gateway_id, full, output)
                return None
            jump_us = int(3_000_000 * self._scale)
            gateway = _Gateway(CounterMap(jump_us=jump_us), known, now_us)
        gateway.heard_us = now_us
        self._gateways[gateway_id] = gateway  # at the end: the table is ordered by when each was heard
        return gateway

    def _evict(self) -> bool:
        for gateway_id, gateway in self._gateways.items():
            if not gateway.known and not gateway.pending:
                del self._gateways[gateway_id]
                self.counters["gateway_evicted"] += 1
                return True
        return False

    def _pushed(
        self, now_us: int, gateway: _Gateway, message: gwmp.PushData, output: Output[Address]
    ) -> None:
        for refusal in message.refused:
            self._refuse(message.gateway_id, refusal, output)
        for packet in message.packets:
            data_rate = self._data_rate(packet)
            if isinstance(data_rate, Malformed):
                self._refuse(message.gateway_id, data_rate, output)
                continue
            self.counters["packets"] += 1
            gateway.packets += 1
            output.inputs.append(
                RxFrame(
                    payload=packet.payload,
                    gateway_id=message.gateway_id,
                    at_us=gateway.counter.observe(now_us, packet.tmst_us),
                    tmst_us=packet.tmst_us,
                    frequency_hz=packet.frequency_hz,
                    data_rate=data_rate,
                    rssi_dbm=packet.rssi_dbm,
                    snr_db=packet.snr_db,
                )
            )
        if message.status is not None:
            gateway.status = message.status

    def _data_rate(self, packet: gwmp.Packet) -> int | Malformed:
        """The region's index, or why no node of this region can have sent it."""
        try:
            data_rate = self._region.data_rate_of(packet.spreading_factor, packet.bandwidth_hz, uplink=True)
        except ValueError as error:
            return Malformed("region_data_rate", str(error))
        try:
            self._region.sub_band(packet.frequency_hz, packet.bandwidth_hz)
        except ValueError as error:
            return Malformed("region_frequency", str(error))
        return data_rate

    def _report(self, now_us: int, gateway_id: str, gateway: _Gateway, output: Output[Address]) -> None:
        if gateway.reported_us is None or now_us - gateway.reported_us >= HEARD_EVERY_US:
            gateway.reported_us = now_us
            output.inputs.append(GatewayHeard(gateway_id, gateway.status))

    # -- downlinks --------------------------------------------------------------------------------

    def _release_us(self, transmit: Transmit) -> int:
        if transmit.tmst_us is not None:
            return transmit.at_us - int(CLASS_A_LEAD_US * self._scale)
        gateway = self._gateways.get(transmit.gateway_id)
        known = gateway is not None and gateway.counter.known
        lead_us = CLASS_C_LEAD_US if known else IMMEDIATE_LEAD_US
        return transmit.at_us - int(lead_us * self._scale)

    def _send(self, now_us: int, transmit: Transmit, output: Output[Address]) -> None:
        gateway = self._gateways.get(transmit.gateway_id)
        if gateway is None or gateway.pull_address is None:
            self._held.refuse(transmit, "NO_PULL_DATA")
            return
        if now_us - gateway.pulled_us > PATH_EXPIRES_US * self._scale:
            self._held.refuse(transmit, "UNREACHABLE")
            return
        tmst_us = transmit.tmst_us
        if tmst_us is None and gateway.counter.known:
            tmst_us = gateway.counter.counter_us(transmit.at_us)
        late_us = now_us - transmit.at_us
        if late_us >= (0 if tmst_us is not None else int(IMMEDIATE_LATE_US * self._scale)):
            # The forwarder would take a counter value of the past for one 71 minutes ahead.
            self._held.refuse(transmit, "TOO_LATE")
            return
        if tmst_us is None:
            self.counters["counter_unknown"] += 1
        if len(gateway.pending) >= PENDING_MAX:
            self._held.refuse(transmit, "QUEUE_FULL")
            return
        self._offer(now_us, gateway, transmit, tmst_us, output)

    def _offer(
        self,
        now_us: int,
        gateway: _Gateway,
        transmit: Transmit,
        tmst_us: int | None,
        output: Output[Address],
    ) -> None:
        """One PULL_RESP, with the power that the gateway is known to have."""
        assert gateway.pull_address is not None
        rate = self._region.data_rate(transmit.data_rate, uplink=False)
        token = self._new_token(gateway)
        if now_us >= gateway.powers_until_us:
            gateway.powers.clear()
        asked_dbm = math.floor(transmit.power_dbm)
        power_dbm = gateway.powers.get(asked_dbm, asked_dbm)
        deadline_us = now_us + int(ACK_TIMEOUT_US * self._scale)
        gateway.pending[token] = _Pending(transmit, deadline_us, power_dbm)
        self._deadlines.append((deadline_us, transmit.gateway_id, token))
        self.counters["pull_resp"] += 1
        datagram = gwmp.pull_resp(
            token,
            payload=transmit.payload,
            tmst_us=tmst_us,
            frequency_hz=transmit.frequency_hz,
            spreading_factor=rate.spreading_factor,
            bandwidth_hz=rate.bandwidth_hz,
            power_dbm=power_dbm,
        )
        output.datagrams.append((datagram, gateway.pull_address))

    def _new_token(self, gateway: _Gateway) -> int:
        # At most PENDING_MAX are taken, so a free one is near.
        self._token = (self._token + 1) & 0xFFFF
        while self._token in gateway.pending:
            self._token = (self._token + 1) & 0xFFFF
        return self._token

    def _acknowledged(
        self, now_us: int, gateway: _Gateway, message: gwmp.TxAcknowledged, output: Output[Address]
    ) -> None:
        pending = gateway.pending.pop(message.token, None)
        if pending is None:
            self.counters["tx_ack_unknown"] += 1
            return
        error, warning = message.error, message.warning
        if error == "TX_POWER" and self._lowered(now_us, gateway, pending, output):
            return
        if error == "TOO_EARLY":
            # Nothing leaves here more than 2 s ahead; forwarders say this of a start that has passed,
            # because the difference of their unsigned counters wraps.
            error = "TOO_LATE"
        if error is not None:
            self.counters["downlink_refused"] += 1
        output.inputs.append(TxAck(pending.transmit.transmit_id, error, warning))

    def _lowered(self, now_us: int, gateway: _Gateway, pending: _Pending, output: Output[Address]) -> bool:
        """Whether the frame was offered again with less power; if not, the next one will be."""
        transmit = pending.transmit
        asked_dbm = math.floor(transmit.power_dbm)
        if asked_dbm - pending.power_dbm >= POWER_STEPS_MAX:
            gateway.powers.pop(asked_dbm, None)
            return False
        if not gateway.powers:
            gateway.powers_until_us = now_us + int(POWERS_KEPT_US * self._scale)
        if gateway.powers.get(asked_dbm, asked_dbm) == pending.power_dbm:
            gateway.powers[asked_dbm] = pending.power_dbm - 1
        self.counters["power_lowered"] += 1
        tmst_us = transmit.tmst_us
        if tmst_us is None and gateway.counter.known:
            tmst_us = gateway.counter.counter_us(transmit.at_us)
        late_us = IMMEDIATE_LATE_US if tmst_us is None else -AGAIN_LEAD_US
        if now_us > transmit.at_us + int(late_us * self._scale):
            return False
        self._offer(now_us, gateway, transmit, tmst_us, output)
        return True

    def _timed_out(self, now_us: int, gateway_id: str, token: int) -> None:
        gateway = self._gateways.get(gateway_id)
        pending = gateway.pending.get(token) if gateway is not None else None
        if gateway is None or pending is None or pending.deadline_us > now_us:
            return
        del gateway.pending[token]
        self.counters["tx_ack_timeout"] += 1
        self._held.tell(pending.transmit.transmit_id, "NO_TX_ACK")
