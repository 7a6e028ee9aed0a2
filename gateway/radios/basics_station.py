"""The network server's side of LoRa Basics Station: many stations, their times and their silences.

Theory of operation.  `BasicsStations` is sans-IO: texts and `Transmit`s go in with the time, an `Output`
comes out (see gateway.radios.radio).  A station is a connection: its `version` is answered by
`router_config`, then it reports what it hears, and an empty text says that it is gone.  Its newest
connection is the one that counts.

* A class A answer goes back with the `xtime` of its very uplink, found by the counter: a whole number of
  seconds before the start.  A class C frame gets the instant by the radio's time, as last heard; where that
  is not known yet, the frame is handed over just before its start and sent at once.
* A radio's time restarts with every session, which the upper bits of `xtime` name: what was learnt of an
  older one is forgotten.
* Nothing says no.  A station drops without a word what its own duty cycle forbids, what comes late, and what
  collides.  So a frame whose `dntxed` has not come `SILENCE_US` after its end was not sent: `NO_DNTXED`.
  Was the connection lost meanwhile, nobody knows: `NO_TX_ACK`.
* A quiet station says nothing for hours.  A connection that stands (the websocket's own pings see to that) is
  a sign of life, and stations that can are asked for their radio's time, which keeps it exact.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.radios import lns
from gateway.radios.counter import COUNTER_MODULUS, CounterMap
from gateway.radios.held import HeldDownlinks
from gateway.radios.radio import GatewayHeard, Output, Refusal
from gateway.radios.router_config import channels_of, router_config
from swarm.effects import Malformed, RxFrame, Transmit, TxAck
from swarm.phy.regions import Region

__all__ = ["COUNTERS", "STATIONS_MAX", "BasicsStations", "Connection"]

STATIONS_MAX = 256
PENDING_MAX = 100
"""Downlinks of one station that wait for their dntxed; its own queue has 128 places."""
UPLINKS_MAX = 1024
"""Uplinks of one station that may still be answered."""
DELAY_MAX_S = 16
RX_DELAY_MAX_S = 15
CLASS_A_LEAD_US = 2_000_000
CLASS_C_LEAD_US = 500_000
IMMEDIATE_LEAD_US = 80_000
"""A station sends "at once" 20 to 60 ms after it was told."""
IMMEDIATE_LATE_US = 100_000
SILENCE_US = 2_000_000
ALIVE_EVERY_US = 30_000_000
STARTING_EVERY_US = 5_000_000
"""How often a radio's time is asked for that is not known yet."""
TELLS_TIME = (2, 0, 6)
"""The first version that answers `getxtime`; older ones log it as an error."""
SESSION_SHIFT = 48
PRODUCTION = "prod"
_VERSION = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})")
CLOSE = b""
"""Sent to a connection that is not wanted (any more)."""

COUNTERS = (
    *lns.REASONS,
    "unauthorized",
    "path",
    "too_many_connections",
    "not_allowed",
    "table_full",
    "replaced",
    "stale",
    "region_data_rate",
    "region_frequency",
    "dntxed_unknown",
    "dntxed_missing",
    "counter_unknown",
    "texts",
    "packets",
    "dnmsg",
    "downlink_refused",
)


class Connection(NamedTuple):
    """One websocket of a station; `number` tells it from earlier ones of the same station."""

    number: int
    gateway_id: str


@dataclass(slots=True)
class _Pending:
    transmit: Transmit
    connection: Connection


@dataclass(slots=True)
class _Radio:
    """The time of one radio in one session; `xtime_us` is a recent one, `at_us` the core's time then."""

    session: int
    counter: CounterMap
    xtime_us: int = 0
    at_us: int = 0

    def xtime_at(self, at_us: int) -> int:
        """The radio's time at `at_us`: the 64-bit one near what is expected whose low bits the map says."""
        expected_us = self.xtime_us + at_us - self.at_us
        ahead_us = (self.counter.counter_us(at_us) - expected_us) % COUNTER_MODULUS
        return expected_us + (ahead_us if ahead_us < COUNTER_MODULUS // 2 else ahead_us - COUNTER_MODULUS)


@dataclass(slots=True)
class _Station:
    connection: Connection
    connected: bool
    heard_us: int
    alive_us: int
    """When the core is next told that it lives."""
    radio: _Radio | None = None
    packets: int = 0
    status: Mapping[str, float | str] = field(default_factory=dict)
    uplinks: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Counter -> (xtime, rctx) of what may still be answered, oldest first."""
    pending: dict[int, _Pending] = field(default_factory=dict)


class BasicsStations:
    """All stations behind one websocket port.  `speed` is the clock's: network delays grow with it."""

    def __init__(
        self,
        region: Region,
        *,
        allowed: Collection[str] = (),
        channels_hz: Sequence[int] = (),
        speed: float = 1.0,
    ) -> None:
        self._region = region
        self._channels = channels_of(region, channels_hz)
        self._allowed = frozenset(eui.lower() for eui in allowed)
        self._genuine: set[str] = set()
        # Delays on the way are real time; at another speed of the core's clock they last longer.
        self._scale = max(1.0, speed)
        self._stations: dict[str, _Station] = {}
        self._deadlines: list[tuple[int, int, str]] = []
        self.counters: dict[str, int] = dict.fromkeys(COUNTERS, 0)
        self._held = HeldDownlinks(self.counters)

    # -- inputs -----------------------------------------------------------------------------------

    def on_datagram(self, now_us: int, text: bytes, connection: Connection, /) -> Output[Connection]:
        """A text arrived (an empty one: the connection is gone); never raises, whatever it holds."""
        output: Output[Connection] = Output()
        if not text:
            self._gone(connection)
            return output
        self.counters["texts"] += 1
        message = lns.parse(text)
        if isinstance(message, Malformed):
            self._refuse(connection.gateway_id, message, output)
            return output
        if isinstance(message, lns.Version):
            self._connected(now_us, connection, message, output)
            return output
        station = self._stations.get(connection.gateway_id)
        if station is None or station.connection != connection or not station.connected:
            self.counters["stale"] += 1
            return output
        station.heard_us = now_us
        match message:
            case lns.Heard():
                self._heard(now_us, station, message, output)
            case lns.Sent():
                self._sent(station, message, output)
            case lns.TimeAsked():
                output.datagrams.append((lns.time_answer(message, now_us), connection))
            case lns.Counters():
                if message.xtimes_us and message.xtimes_us[0] > 0:
                    self._observe(now_us, station, message.xtimes_us[0])
        return output

    def serves(self, gateway_id: str) -> bool:
        """Whether this gateway is connected as a station now."""
        station = self._stations.get(gateway_id)
        return station is not None and station.connected

    def transmit(self, now_us: int, transmit: Transmit) -> None:
        """Take a downlink; `poll` sends it when its time has come, or says why not."""
        self._held.hold(transmit, self._release_us(transmit))

    def poll(self, now_us: int) -> Output[Connection]:
        """Send what is due, give up what was not confirmed, and tell who lives."""
        output: Output[Connection] = Output()
        for transmit in self._held.due(now_us):
            self._send(now_us, transmit, output)
        while self._deadlines and self._deadlines[0][0] <= now_us:
            _, diid, gateway_id = heapq.heappop(self._deadlines)
            self._silent(diid, gateway_id)
        for gateway_id, station in self._stations.items():
            if station.connected and station.alive_us <= now_us:
                self._alive(now_us, gateway_id, station, output)
        output.inputs += self._held.fates()
        return output

    def poll_at(self) -> int | None:
        """When `poll` has something to do (us); None: nothing."""
        times = [station.alive_us for station in self._stations.values() if station.connected]
        times += [self._deadlines[0][0]] if self._deadlines else []
        held_us = self._held.at()
        times += [] if held_us is None else [held_us]
        return min(times) if times else None

    def accepted(self, gateway_id: str, *, genuine: bool = True) -> None:
        """This gateway proved itself; or is a stranger again, which makes room for others first."""
        (self._genuine.add if genuine else self._genuine.discard)(gateway_id)

    def snapshot(self) -> list[dict[str, object]]:
        """The stations, for people: one row each, sorted by id."""
        return [
            {
                "gateway_id": gateway_id,
                "heard_us": station.heard_us,
                "address": "connected" if station.connected else None,
                "packets": station.packets,
                "known": self._is_known(gateway_id),
                "status": dict(station.status),
            }
            for gateway_id, station in sorted(self._stations.items())
        ]

    def _refuse(self, gateway_id: str, why: Malformed, output: Output[Connection]) -> None:
        self.counters[why.reason] += 1
        output.refused.append(Refusal(gateway_id, why.reason, why.detail))

    # -- connections ------------------------------------------------------------------------------

    def _connected(
        self, now_us: int, connection: Connection, version: lns.Version, output: Output[Connection]
    ) -> None:
        gateway_id = connection.gateway_id
        if self._allowed and gateway_id not in self._allowed:
            stranger = Malformed("not_allowed", f"station {gateway_id}")
            self._refuse(gateway_id, stranger, output)
            output.datagrams.append((CLOSE, connection))
            return
        station = self._stations.get(gateway_id)
        if station is None:
            if len(self._stations) >= STATIONS_MAX and not self._make_room():
                self.counters["table_full"] += 1
                output.datagrams.append((CLOSE, connection))
                return
            station = self._stations[gateway_id] = _Station(connection, True, now_us, now_us)
        elif station.connected and station.connection != connection:
            self.counters["replaced"] += 1
            output.datagrams.append((CLOSE, station.connection))
        station.connection, station.connected, station.heard_us = connection, True, now_us
        station.status = version.said
        # A new session of its radio begins: older times mean nothing to it.
        station.radio = None
        station.uplinks.clear()
        config = router_config(self._region, self._channels, now_us / 1e6)
        output.datagrams.append((lns.encode(config), connection))
        output.inputs.append(_sign_of_life(gateway_id, station))
        station.alive_us = now_us + int(2_000_000 * self._scale)  # when its radio runs

    def _gone(self, connection: Connection) -> None:
        station = self._stations.get(connection.gateway_id)
        if station is not None and station.connection == connection:
            station.connected = False

    def _make_room(self) -> bool:
        gone = [
            (station.heard_us, gateway_id)
            for gateway_id, station in self._stations.items()
            if not station.connected and not station.pending and not self._is_known(gateway_id)
        ]
        if gone:
            del self._stations[min(gone)[1]]
        return bool(gone)

    def _is_known(self, gateway_id: str) -> bool:
        return gateway_id in self._genuine or gateway_id in self._allowed

    def _alive(self, now_us: int, gateway_id: str, station: _Station, output: Output[Connection]) -> None:
        output.inputs.append(_sign_of_life(gateway_id, station))
        every_us = ALIVE_EVERY_US
        if _tells_time(station):
            every_us = ALIVE_EVERY_US if station.radio is not None else STARTING_EVERY_US
            output.datagrams.append((lns.get_xtime(now_us), station.connection))
        station.alive_us = now_us + int(every_us * self._scale)

    # -- uplinks ----------------------------------------------------------------------------------

    def _heard(self, now_us: int, station: _Station, heard: lns.Heard, output: Output[Connection]) -> None:
        if heard.data_rate not in self._region.uplink_data_rates:
            what = f"{self._region.name} has no uplink data rate {heard.data_rate}"
            self._refuse(station.connection.gateway_id, Malformed("region_data_rate", what), output)
            return
        rate = self._region.uplink_data_rates[heard.data_rate]
        try:
            self._region.sub_band(heard.frequency_hz, rate.bandwidth_hz)
        except ValueError as error:
            why = Malformed("region_frequency", str(error))
            self._refuse(station.connection.gateway_id, why, output)
            return
        self.counters["packets"] += 1
        station.packets += 1
        tmst_us = heard.xtime_us % COUNTER_MODULUS
        station.uplinks.pop(tmst_us, None)
        station.uplinks[tmst_us] = (heard.xtime_us, heard.rctx)
        if len(station.uplinks) > UPLINKS_MAX:
            del station.uplinks[next(iter(station.uplinks))]
        output.inputs.append(
            RxFrame(
                payload=heard.payload,
                gateway_id=station.connection.gateway_id,
                at_us=self._observe(now_us, station, heard.xtime_us),
                tmst_us=tmst_us,
                frequency_hz=heard.frequency_hz,
                data_rate=heard.data_rate,
                rssi_dbm=heard.rssi_dbm,
                snr_db=heard.snr_db,
            )
        )

    def _observe(self, now_us: int, station: _Station, xtime_us: int) -> int:
        """Learn the radio's time from something that arrived at `now_us`; when it was, on the core's clock.

        Of a gateway with several radios the first one heard keeps the time.
        """
        session = xtime_us >> SESSION_SHIFT
        if station.radio is None:
            station.radio = _Radio(session, CounterMap(jump_us=int(3_000_000 * self._scale)))
        radio = station.radio
        if radio.session != session:
            return now_us
        radio.xtime_us, radio.at_us = xtime_us, now_us
        return radio.counter.observe(now_us, xtime_us % COUNTER_MODULUS)

    # -- downlinks --------------------------------------------------------------------------------

    def _release_us(self, transmit: Transmit) -> int:
        station = self._stations.get(transmit.gateway_id)
        lead_us = CLASS_C_LEAD_US if station is not None and station.radio is not None else IMMEDIATE_LEAD_US
        if transmit.tmst_us is not None:
            lead_us = CLASS_A_LEAD_US
        return transmit.at_us - int(lead_us * self._scale)

    def _send(self, now_us: int, transmit: Transmit, output: Output[Connection]) -> None:
        station = self._stations.get(transmit.gateway_id)
        if station is None or not station.connected:
            self._held.refuse(transmit, "UNREACHABLE")
            return
        if len(station.pending) >= PENDING_MAX:
            self._held.refuse(transmit, "QUEUE_FULL")
            return
        uplink_xtime_us: int | None
        rctx: int | None
        late_us = 0
        if transmit.tmst_us is not None:
            answered = _answered(station, transmit.tmst_us)
            if answered is None:
                self._held.refuse(transmit, "UPLINK_UNKNOWN")
                return
            uplink_xtime_us, rctx, delay_s = answered
        elif station.radio is not None:
            uplink_xtime_us, rctx, delay_s = station.radio.xtime_at(transmit.at_us) - 1_000_000, None, 1
        else:
            uplink_xtime_us, rctx, delay_s = None, None, 1
            late_us = int(IMMEDIATE_LATE_US * self._scale)
            self.counters["counter_unknown"] += 1
        if now_us - transmit.at_us >= late_us:
            self._held.refuse(transmit, "TOO_LATE")
            return
        text = lns.downlink(
            transmit.transmit_id,
            payload=transmit.payload,
            frequency_hz=transmit.frequency_hz,
            data_rate=transmit.data_rate,
            uplink_xtime_us=uplink_xtime_us,
            rctx=rctx,
            delay_s=delay_s,
            mux_time_s=now_us / 1e6,
        )
        self.counters["dnmsg"] += 1
        station.pending[transmit.transmit_id] = _Pending(transmit, station.connection)
        over_us = max(transmit.at_us, now_us) + transmit.airtime_us + int(SILENCE_US * self._scale)
        heapq.heappush(self._deadlines, (over_us, transmit.transmit_id, transmit.gateway_id))
        output.datagrams.append((text, station.connection))

    def _sent(self, station: _Station, sent: lns.Sent, output: Output[Connection]) -> None:
        if station.pending.pop(sent.diid, None) is None:
            self.counters["dntxed_unknown"] += 1
            return
        output.inputs.append(TxAck(sent.diid))

    def _silent(self, diid: int, gateway_id: str) -> None:
        station = self._stations.get(gateway_id)
        pending = station.pending.pop(diid, None) if station is not None else None
        if station is None or pending is None:
            return
        self.counters["dntxed_missing"] += 1
        same = station.connected and station.connection == pending.connection
        self._held.tell(diid, "NO_DNTXED" if same else "NO_TX_ACK")


def _tells_time(station: _Station) -> bool:
    found = _VERSION.match(str(station.status.get("station", "")))
    return found is not None and tuple(int(part) for part in found.groups()) >= TELLS_TIME


def _sign_of_life(gateway_id: str, station: _Station) -> GatewayHeard:
    """Test builds do as they are told (`nodc`); the others say that they are for production."""
    production = PRODUCTION in str(station.status.get("features", "")).split()
    return GatewayHeard(gateway_id, station.status, blocks=production)


def _answered(station: _Station, tmst_us: int) -> tuple[int, int, int] | None:
    """The uplink that starts a whole number of seconds before this: (xtime, rctx, RxDelay)."""
    for delay_s in range(1, DELAY_MAX_S + 1):
        uplink = station.uplinks.get((tmst_us - delay_s * 1_000_000) % COUNTER_MODULUS)
        if uplink is not None:
            xtime_us, rctx = uplink
            beyond_s = max(0, delay_s - RX_DELAY_MAX_S)
            return xtime_us + beyond_s * 1_000_000, rctx, delay_s - beyond_s
    return None
