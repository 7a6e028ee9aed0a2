"""When a gateway may send: receive windows and free places in its half-duplex calendar.

Theory of operation.  A gateway has one transmitter and is deaf while it sends.  The calendar holds
reserved intervals, kept apart by the time the packet forwarder's queue needs between two frames.
A slot is given only when four things hold: the frame fits the data rate, the interval is free, the
radio is told early enough (`lead_us`), and the airtime ledger grants it.  Class A answers have two
fixed starts, RX1 and RX2; class C frames take the first start that satisfies everybody, found by
asking calendar and ledger in turn until neither moves it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from swarm.effects import Purpose, RxFrame
from swarm.mac.ledger import AirtimeLedger, Grant
from swarm.phy.airtime import FRAME_OVERHEAD, HOUR_US, PHY_SIZE_MAX
from swarm.phy.regions import Region

__all__ = [
    "CALENDAR_MAX",
    "CLASS_C_GAP_US",
    "GAP_US",
    "LEAD_US",
    "QUEUE_MAX",
    "DownlinkScheduler",
    "Refused",
    "Slot",
]

LEAD_US = 100_000
"""The packet forwarder wants a frame at least 42.5 ms before its start; the network takes the rest."""
GAP_US = 44_000
"""Pause between two frames of one radio, as the packet forwarder's queue demands it."""
CLASS_C_GAP_US = 64_000
"""The same around frames that may as well go a little later.  A forwarder hands a frame to the concentrator
30 to 50 ms before its start (by version; 60 where its operator had to), and drops it without a word if that
still sends the one before."""
QUEUE_MAX = 256
"""Frames that may be reserved beyond the instant asked for; more is refused (back-pressure)."""
CALENDAR_MAX = 8_192
ADVANCE_US = HOUR_US
"""No slot is given further ahead than that."""
RX2_AFTER_RX1_US = 1_000_000
POWER_MAX_DBM = 27.0
"""What the usual gateway radios can put out."""
ANTENNA_GAIN_DBI = 2.15
"""A half-wave dipole; the limits are EIRP, `Slot.power_dbm` is what goes into the antenna."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A reserved transmission; `tmst_us` is the gateway's counter for class A and None for class C."""

    at_us: int
    tmst_us: int | None
    frequency_hz: int
    data_rate: int
    power_dbm: float
    airtime_us: int
    grant: Grant


@dataclass(frozen=True, slots=True)
class Refused:
    """No slot.  `reason` is one word per window tried; `retry_at_us`, if known, is when it may work."""

    reason: str
    retry_at_us: int | None = None


@dataclass(frozen=True, slots=True)
class _Frame:
    """What is to be sent, before there is a time for it."""

    frequency_hz: int
    data_rate: int
    bandwidth_hz: int
    airtime_us: int
    power_dbm: float


class _Calendar:
    """Disjoint reserved intervals, sorted; every two are at least `gap_us` apart."""

    __slots__ = ("_ends", "_gap_us", "_starts")

    def __init__(self, gap_us: int) -> None:
        self._gap_us = gap_us
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __len__(self) -> int:
        return len(self._starts)

    def pending(self, at_us: int) -> int:
        """How many reservations end after `at_us`."""
        return len(self._ends) - bisect_right(self._ends, at_us)

    def free_us(self, at_us: int, duration_us: int, gap_us: int = 0) -> int:
        """The first start >= `at_us` of a free interval of that length, with that gap or the usual one."""
        gap_us = max(gap_us, self._gap_us)
        index = bisect_right(self._ends, at_us - gap_us)
        while index < len(self._starts) and self._starts[index] < at_us + duration_us + gap_us:
            at_us = max(at_us, self._ends[index] + gap_us)
            index += 1
        return at_us

    def reserve(self, at_us: int, duration_us: int) -> None:
        index = bisect_left(self._starts, at_us)
        self._starts.insert(index, at_us)
        self._ends.insert(index, at_us + duration_us)

    def cancel(self, at_us: int) -> bool:
        index = bisect_left(self._starts, at_us)
        if index == len(self._starts) or self._starts[index] != at_us:
            return False
        del self._starts[index]
        del self._ends[index]
        return True

    def forget(self, before_us: int) -> None:
        """Drop what ended before that instant."""
        count = bisect_left(self._ends, before_us - self._gap_us)
        if count:
            del self._starts[:count]
            del self._ends[:count]


class DownlinkScheduler:
    """The only way to a `Transmit` of one gateway; holds its calendar and asks its ledger."""

    def __init__(
        self,
        region: Region,
        ledger: AirtimeLedger,
        *,
        lead_us: int = LEAD_US,
        gap_us: int = GAP_US,
        antenna_gain_dbi: float = ANTENNA_GAIN_DBI,
        dwell: bool | None = None,
    ) -> None:
        self._region = region
        self._ledger = ledger
        self._lead_us = lead_us
        self._calendar = _Calendar(gap_us)
        self._antenna_gain_dbi = antenna_gain_dbi
        self._dwell = dwell

    def class_a(
        self,
        now_us: int,
        rx: RxFrame,
        phy_size: int,
        *,
        rx1_delay_us: int,
        rx1_dr_offset: int,
        rx2_frequency_hz: int,
        rx2_data_rate: int,
        purpose: Purpose,
        join: bool = False,
        rx1_frequency_hz: int | None = None,
        dwell: bool | None = None,
    ) -> Slot | Refused:
        """A slot in RX1 of that uplink, else in RX2, else why neither.

        `phy_size` counts PHYPayload bytes.  With `join` the region's join-accept delays and its default
        receive parameters rule: the node does not know its session yet.  RX1 is on `rx1_frequency_hz` if
        the device was told so; `dwell`: whether it keeps to the dwell time (None: as at boot).
        """
        self._calendar.forget(now_us - self._lead_us)
        if self._calendar.pending(now_us) >= QUEUE_MAX:
            return Refused("queue_full")
        region = self._region
        delay_1_us, delay_2_us = rx1_delay_us, rx1_delay_us + RX2_AFTER_RX1_US
        if join:
            delay_1_us, delay_2_us = region.join_accept_delays_us
            rx1_dr_offset = 0
            rx2_frequency_hz, rx2_data_rate = region.rx2_frequency_hz, region.rx2_data_rate
        first: Slot | str = "no_rx1"
        try:
            frequency_hz, data_rate = region.rx1(
                rx.data_rate, rx.frequency_hz, rx1_dr_offset, dwell=join or dwell is not False
            )
        except ValueError:
            # An uplink outside the tables, perhaps a gateway's nonsense: RX2 does not depend on it.
            pass
        else:
            frequency_hz = rx1_frequency_hz or frequency_hz
            frame = self._frame(phy_size, frequency_hz, data_rate, join, dwell)
            first = self._window(now_us, rx, delay_1_us, frame, purpose)
        if isinstance(first, Slot):
            return first
        frame = self._frame(phy_size, rx2_frequency_hz, rx2_data_rate, join, dwell)
        second = self._window(now_us, rx, delay_2_us, frame, purpose)
        return second if isinstance(second, Slot) else Refused(f"rx1 {first}, rx2 {second}")

    def class_c(
        self,
        not_before_us: int,
        phy_size: int,
        frequency_hz: int,
        data_rate: int,
        purpose: Purpose,
        *,
        now_us: int | None = None,
    ) -> Slot | Refused:
        """The first slot at or after `not_before_us` that the calendar and the law allow.

        With `now_us` the radio's lead is kept and the past of the calendar is forgotten.
        """
        calendar = self._calendar
        if now_us is not None:
            not_before_us = max(not_before_us, now_us + self._lead_us)
            calendar.forget(now_us - self._lead_us)
        elif len(calendar) >= CALENDAR_MAX // 2:
            # Nobody told us the time; what lies an hour back cannot meet a class A window any more.
            calendar.forget(not_before_us - ADVANCE_US)
        if calendar.pending(not_before_us) >= QUEUE_MAX or len(calendar) >= CALENDAR_MAX:
            return Refused("queue_full")
        frame = self._frame(phy_size, frequency_hz, data_rate, False, self._dwell)
        if isinstance(frame, str):
            return Refused(frame)
        at_us = not_before_us
        while True:
            free_us = calendar.free_us(at_us, frame.airtime_us, CLASS_C_GAP_US)
            legal_us = self._earliest_us(frame, free_us)
            if legal_us is None:
                return Refused("duty_cycle")
            if legal_us - not_before_us > ADVANCE_US:
                return Refused("duty_cycle" if legal_us > free_us else "busy", legal_us)
            if legal_us == free_us:
                return self._reserve(legal_us, None, frame, purpose)
            at_us = legal_us

    def occupy(self, at_us: int, airtime_us: int) -> None:
        """Enter a frame that was handed to the radio before a restart: it will be on the air all the same."""
        self._calendar.reserve(at_us, airtime_us)

    def release(self, slot: Slot) -> None:
        """Give a slot back whose frame was not sent: its airtime and its place are free again."""
        self._ledger.release(slot.grant)
        self._calendar.cancel(slot.at_us)

    def _window(
        self, now_us: int, rx: RxFrame, delay_us: int, frame: _Frame | str, purpose: Purpose
    ) -> Slot | str:
        """The slot in one receive window, or one word why not."""
        if isinstance(frame, str):
            return frame
        at_us = rx.at_us + delay_us
        if at_us < now_us + self._lead_us:
            return "too_late"
        if at_us > now_us + ADVANCE_US:
            return "too_early"
        if self._calendar.free_us(at_us, frame.airtime_us) != at_us:
            return "busy"
        if self._earliest_us(frame, at_us) != at_us:
            return "duty_cycle"
        return self._reserve(at_us, (rx.tmst_us + delay_us) & 0xFFFFFFFF, frame, purpose)

    def _earliest_us(self, frame: _Frame, not_before_us: int) -> int | None:
        return self._ledger.earliest_us(
            frame.frequency_hz, frame.bandwidth_hz, frame.airtime_us, not_before_us
        )

    def _frame(
        self, phy_size: int, frequency_hz: int, data_rate: int, join: bool, dwell: bool | None
    ) -> _Frame | str:
        """The frame as it would go on air, or one word why it cannot be sent at all; `dwell` is its
        hearer's."""
        region = self._region
        rate = region.downlink_data_rates.get(data_rate)
        if rate is None:
            return "no_data_rate"
        # A join accept is not an application payload and may go out at rates that carry none.
        limit = PHY_SIZE_MAX
        if not join:
            limit = region.payload_max(data_rate, dwell=dwell, uplink=False) + FRAME_OVERHEAD
        if phy_size > limit:
            return "too_long"
        try:
            sub_band = region.sub_band(frequency_hz, rate.bandwidth_hz)
        except ValueError:
            return "no_sub_band"
        airtime_us = region.airtime_us(data_rate, phy_size, uplink=False)
        if not region.dwell_allows(rate.bandwidth_hz, airtime_us, dwell=self._dwell):
            return "dwell_time"
        power_dbm = min(sub_band.max_eirp_dbm - self._antenna_gain_dbi, POWER_MAX_DBM)
        return _Frame(frequency_hz, data_rate, rate.bandwidth_hz, airtime_us, round(power_dbm, 2))

    def _reserve(self, at_us: int, tmst_us: int | None, frame: _Frame, purpose: Purpose) -> Slot:
        grant = self._ledger.grant(at_us, frame.frequency_hz, frame.bandwidth_hz, frame.airtime_us, purpose)
        self._calendar.reserve(at_us, frame.airtime_us)
        return Slot(
            at_us=at_us,
            tmst_us=tmst_us,
            frequency_hz=frame.frequency_hz,
            data_rate=frame.data_rate,
            power_dbm=frame.power_dbm,
            airtime_us=frame.airtime_us,
            grant=grant,
        )
