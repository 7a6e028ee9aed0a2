"""The airtime ledger of one transmitter: a true sliding hour per sub-band, exact to the microsecond.

Theory of operation.  ERC/REC 70-03 limits the sum of transmission times in *any* continuous hour in
one sub-band.  A new transmission [t, t+a] is therefore legal when every window of one hour that it
touches stays within the budget: those that end with or after it, because frames may have been
granted for later.  Time on air inside a window counts exactly, cut at the window's edges.

Only some windows have to be looked at.  Sliding a window changes its content at the rate (on air at
its end) - (on air at its start), so the fullest windows end where a transmission ends or, when
transmissions overlap, begin where one begins.  For each such window that is too full there is an
earliest start that could satisfy it; `earliest_us` jumps to the largest of these until none objects,
and so finds the exact answer.  Prefix sums over sorted starts and ends make one window cost two
bisections.  A band whose whole neighbourhood fits the budget is answered by one such sum.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from swarm.effects import Purpose, Row
from swarm.mac.self_blocking import SelfBlocking
from swarm.phy.airtime import HOUR_US
from swarm.phy.regions import Region, SubBand

__all__ = ["GRANTS_MAX", "LOOKAHEAD_US", "AirtimeExceeded", "AirtimeLedger", "Grant"]

GRANTS_MAX = 65_536
"""Grants remembered per sub-band; a transmitter that wants more has to wait."""
LOOKAHEAD_US = 24 * HOUR_US
"""Grants that lie further behind the newest one are forgotten; questions about then get a safe answer."""
_PRUNE_MIN = 64
_SIGNALS_MAX = 256


class AirtimeExceeded(AssertionError):
    """A grant was demanded that would break the law: the caller did not ask `earliest_us` first."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A transmission entered in the ledger: [at_us, at_us + airtime_us] in one sub-band."""

    at_us: int
    airtime_us: int
    sub_band: str
    purpose: Purpose
    frequency_hz: int = field(default=0, compare=False)
    """0: known no more (a grant that was stored)."""


class _Band:
    """The transmissions in one sub-band as sorted starts and ends with prefix sums."""

    __slots__ = (
        "_end_sums",
        "_ends",
        "_grants",
        "_keep_max",
        "_overlapping",
        "_start_sums",
        "_starts",
        "budget_us",
        "floor_us",
        "sub_band",
    )

    def __init__(self, sub_band: SubBand) -> None:
        self.sub_band = sub_band
        self.budget_us = round(sub_band.duty_cycle * HOUR_US)
        self.floor_us: int | None = None
        self._keep_max = _PRUNE_MIN
        self._rebuild([])

    def _rebuild(self, grants: list[Grant]) -> None:
        self._grants = grants
        self._starts = [grant.at_us for grant in grants]
        self._ends = sorted(grant.at_us + grant.airtime_us for grant in grants)
        self._start_sums = [0]
        self._end_sums = [0]
        _extend_sums(self._start_sums, self._starts)
        _extend_sums(self._end_sums, self._ends)
        self._overlapping = any(start < end for start, end in zip(self._starts[1:], self._ends, strict=False))

    def before(self, at_us: int) -> int:
        """Time on air of everything before `at_us`."""
        started = bisect_left(self._starts, at_us)
        ended = bisect_left(self._ends, at_us)
        return started * at_us - self._start_sums[started] - ended * at_us + self._end_sums[ended]

    def on_air(self, from_us: int, until_us: int) -> int:
        """Time on air inside a window."""
        return self.before(until_us) - self.before(from_us)

    def add(self, grant: Grant) -> None:
        end_us = grant.at_us + grant.airtime_us
        if not self._ends or (grant.at_us >= self._starts[-1] and end_us >= self._ends[-1]):
            self._overlapping = self._overlapping or (bool(self._ends) and grant.at_us < self._ends[-1])
            self._grants.append(grant)
            self._starts.append(grant.at_us)
            self._ends.append(end_us)
            self._start_sums.append(self._start_sums[-1] + grant.at_us)
            self._end_sums.append(self._end_sums[-1] + end_us)
        else:
            self._overlapping = self._overlapping or self.on_air(grant.at_us, end_us) > 0
            index = bisect_right(self._starts, grant.at_us)
            self._grants.insert(index, grant)
            _insert(self._starts, self._start_sums, grant.at_us, index)
            _insert(self._ends, self._end_sums, end_us, bisect_right(self._ends, end_us))
        if len(self._grants) > self._keep_max:
            self._forget()

    def remove(self, grant: Grant) -> None:
        index = bisect_left(self._starts, grant.at_us)
        while index < len(self._grants) and self._grants[index].at_us == grant.at_us:
            if self._grants[index] == grant:
                del self._grants[index]
                _delete(self._starts, self._start_sums, index)
                _delete(self._ends, self._end_sums, bisect_left(self._ends, grant.at_us + grant.airtime_us))
                return
            index += 1
        raise KeyError(f"no such grant in sub-band {self.sub_band.name}: {grant}")

    def _forget(self) -> None:
        """Drop what no question may touch any more; amortised, because the next time is at twice the size."""
        line_us = self._ends[-1] - HOUR_US - LOOKAHEAD_US
        kept = [grant for grant in self._grants if grant.at_us + grant.airtime_us > line_us]
        if len(kept) > GRANTS_MAX // 2:
            dropped, kept = kept[: -GRANTS_MAX // 2], kept[-GRANTS_MAX // 2 :]
            line_us = max(grant.at_us + grant.airtime_us for grant in dropped)
        if len(kept) < len(self._grants):
            self.floor_us = line_us if self.floor_us is None else max(line_us, self.floor_us)
            self._rebuild(kept)
        self._keep_max = max(_PRUNE_MIN, 2 * len(kept))

    def earliest_us(self, airtime_us: int, not_before_us: int) -> int | None:
        """The first legal start at or after `not_before_us`; None when the frame exceeds the budget."""
        if airtime_us > self.budget_us:
            return None
        if self.budget_us >= HOUR_US:
            return not_before_us
        at_us = not_before_us
        if self.floor_us is not None:
            at_us = max(at_us, self.floor_us + HOUR_US)
        while True:
            later_us = self._objection(at_us, airtime_us)
            if later_us is None:
                return at_us
            at_us = later_us

    def _objection(self, at_us: int, airtime_us: int) -> int | None:
        """None when a start at `at_us` is legal, else a later start before which nothing is legal."""
        end_us = at_us + airtime_us
        past = self.before(at_us - HOUR_US)
        if self.before(end_us + HOUR_US) - past + airtime_us <= self.budget_us:
            return None
        until_end = self.before(end_us)
        if until_end - self.before(end_us - HOUR_US) + airtime_us > self.budget_us:
            # The hour that ends with the frame: the start must let enough of the past drop out of it.
            return self._reached(until_end + airtime_us - self.budget_us) + HOUR_US - airtime_us
        full_us = self._overfull(at_us, end_us)
        if full_us is None:
            return None
        return full_us - self.budget_us + self.on_air(full_us - HOUR_US, full_us)

    def _overfull(self, at_us: int, end_us: int) -> int | None:
        """The end of the last window that [at_us, end_us] would overfill; None: there is none.

        The last one, because no other asks for a later start while nothing overlaps.
        """
        first = bisect_right(self._ends, at_us)
        last = bisect_left(self._ends, end_us + HOUR_US)
        full_us = self._last_overfull(self._ends, 0, first, last, at_us, end_us)
        if full_us is None and (self._overlapping or self.on_air(at_us, end_us)):
            if self.on_air(at_us, at_us + HOUR_US) + end_us - at_us > self.budget_us:
                return at_us + HOUR_US
            first = bisect_right(self._starts, at_us - HOUR_US)
            last = bisect_left(self._starts, end_us)
            full_us = self._last_overfull(self._starts, HOUR_US, first, last, at_us, end_us)
        return full_us

    def _last_overfull(
        self, edges: list[int], shift_us: int, first: int, last: int, at_us: int, end_us: int
    ) -> int | None:
        """The same among the windows that end at edges[first:last] + shift_us, by halves.

        No window that ends between two instants holds more than was on air from the start of the first to
        the end of the last: most halves need no closer look.
        """
        halves = [(first, last)] if first < last else []
        while halves:
            low, high = halves.pop()
            from_us, until_us = edges[low] + shift_us - HOUR_US, edges[high - 1] + shift_us
            most = self.on_air(from_us, until_us) + min(end_us, until_us) - max(at_us, from_us)
            if most <= self.budget_us:
                continue
            if high - low == 1:
                return until_us
            middle = (low + high) // 2
            halves += [(low, middle), (middle, high)]
        return None

    def _reached(self, amount_us: int) -> int:
        """The earliest instant before which at least `amount_us` (> 0) of airtime had been spent."""
        if not self._overlapping:
            # Without overlaps the sums at the ends grow frame by frame: one bisection, then a straight line.
            index = bisect_left(range(len(self._ends)), amount_us, key=self._spent_at_end)
            return self._ends[index] - (self._spent_at_end(index) - amount_us)
        low, high = self._starts[0], self._ends[-1]
        return low + bisect_left(range(high - low), amount_us, key=lambda offset: self.before(low + offset))

    def _spent_at_end(self, index: int) -> int:
        return self._end_sums[index + 1] - self._start_sums[index + 1]

    def inside(self, from_us: int, until_us: int) -> Iterator[tuple[Purpose, int]]:
        """Purpose and airtime inside the window of every grant that touches it."""
        stop = bisect_left(self._starts, until_us)
        for grant in (
            self._grants[:stop]
            if self._overlapping
            else self._grants[bisect_right(self._ends, from_us) : stop]
        ):
            spent_us = min(grant.at_us + grant.airtime_us, until_us) - max(grant.at_us, from_us)
            if spent_us > 0:
                yield grant.purpose, spent_us

    def last_end_us(self) -> int | None:
        """When the last transmission ends; None: there is none."""
        return self._ends[-1] if self._ends else None

    def since(self, from_us: int) -> Iterator[Grant]:
        """The grants that end after `from_us`, by start."""
        return (grant for grant in self._grants if grant.at_us + grant.airtime_us > from_us)


class AirtimeLedger:
    """All transmissions of one transmitter; nothing goes on air without a `Grant` from here.

    `dwell` says whether the region's dwell-time limit holds (None: as at boot, where the region has one).
    """

    __slots__ = ("_bands", "_dwell", "_of_signal", "_region", "blocking")

    def __init__(self, region: Region, *, dwell: bool | None = None) -> None:
        self._region = region
        self._dwell = dwell
        self._bands: dict[str, _Band] = {}
        self._of_signal: dict[tuple[int, int], _Band | None] = {}
        self.blocking: SelfBlocking | None = None
        """What the transmitter itself forbids beside the law, where it is one that does."""

    def set_dwell(self, dwell: bool | None) -> None:
        """The network said whether the dwell-time limit holds here."""
        self._dwell = dwell

    def earliest_us(
        self, frequency_hz: int, bandwidth_hz: int, airtime_us: int, not_before_us: int
    ) -> int | None:
        """The exact first instant >= `not_before_us` at which a frame of `airtime_us` may legally start.

        None: never - the frame alone exceeds an hour's budget or the dwell time, or the signal does
        not lie inside one sub-band.
        """
        if airtime_us <= 0:
            raise ValueError(f"airtime_us {airtime_us} is not positive")
        band = self._band_of(frequency_hz, bandwidth_hz)
        if band is None or not self._region.dwell_allows(bandwidth_hz, airtime_us, dwell=self._dwell):
            return None
        while True:
            legal_us = band.earliest_us(airtime_us, not_before_us)
            if legal_us is None or self.blocking is None:
                return legal_us
            not_before_us = self.blocking.earliest_us(frequency_hz, airtime_us, legal_us)
            if not_before_us == legal_us:
                return legal_us

    def grant(
        self, at_us: int, frequency_hz: int, bandwidth_hz: int, airtime_us: int, purpose: Purpose
    ) -> Grant:
        """Enter a transmission that starts at `at_us`; raises `AirtimeExceeded` when it is not legal then."""
        earliest_us = self.earliest_us(frequency_hz, bandwidth_hz, airtime_us, at_us)
        if earliest_us != at_us:
            raise AirtimeExceeded(
                f"{airtime_us} us at {frequency_hz} Hz are not legal at {at_us} us; earliest: {earliest_us}"
            )
        band = self._band_of(frequency_hz, bandwidth_hz)
        assert band is not None
        grant = Grant(at_us, airtime_us, band.sub_band.name, purpose, frequency_hz)
        band.add(grant)
        if self.blocking is not None:
            self.blocking.add(frequency_hz, at_us, airtime_us)
        return grant

    def release(self, grant: Grant) -> None:
        """Take back a grant whose transmission did not happen; KeyError when it is not in the ledger."""
        self._band(grant.sub_band).remove(grant)
        if self.blocking is not None:
            self.blocking.remove(grant.frequency_hz, grant.at_us)

    def spent_us(self, now_us: int) -> dict[tuple[str, Purpose], int]:
        """Airtime in the hour up to `now_us`, by (sub-band, purpose), in us; only what is not zero."""
        spent: dict[tuple[str, Purpose], int] = {}
        for name, band in sorted(self._bands.items()):
            for purpose, part_us in band.inside(now_us - HOUR_US, now_us):
                spent[name, purpose] = spent.get((name, purpose), 0) + part_us
        return spent

    def fraction(self, now_us: int) -> dict[str, float]:
        """Used share (0..1) of the budget in the hour up to `now_us`, for every sub-band of the region."""
        shares = {}
        for sub_band in self._region.sub_bands:
            band = self._bands.get(sub_band.name)
            shares[sub_band.name] = (
                0.0 if band is None else band.on_air(now_us - HOUR_US, now_us) / band.budget_us
            )
        return shares

    def idle(self, now_us: int) -> bool:
        """Whether nothing lies in the hour up to `now_us` or ahead: forgetting it then forgets no law."""
        ends = (band.last_end_us() for band in self._bands.values())
        return all(end_us is None or end_us <= now_us - HOUR_US for end_us in ends)

    @staticmethod
    def to_row(grant: Grant) -> Row:
        """A grant as a row for the store."""
        return {
            "at_us": grant.at_us,
            "sub_band": grant.sub_band,
            "airtime_us": grant.airtime_us,
            "purpose": grant.purpose.value,
        }

    def rows(self, now_us: int) -> list[Row]:
        """Every grant that still matters at `now_us` (the last hour and the future), to be restored later."""
        return [
            self.to_row(grant)
            for _, band in sorted(self._bands.items())
            for grant in band.since(now_us - HOUR_US)
        ]

    def restore_row(self, row: Row) -> Grant:
        """Enter a stored grant again without judging it: it has been on the air."""
        at_us, airtime_us = row["at_us"], row["airtime_us"]
        if not isinstance(at_us, int) or not isinstance(airtime_us, int) or airtime_us <= 0:
            raise ValueError(f"not an airtime row: {row}")
        grant = Grant(at_us, airtime_us, str(row["sub_band"]), Purpose(str(row["purpose"])))
        self._band(grant.sub_band).add(grant)
        return grant

    def restore(self, rows: list[Row]) -> None:
        """Enter stored grants, as `rows` gave them."""
        for row in rows:
            self.restore_row(row)

    def _band(self, name: str) -> _Band:
        band = self._bands.get(name)
        if band is None:
            for sub_band in self._region.sub_bands:
                if sub_band.name == name:
                    band = self._bands[name] = _Band(sub_band)
                    break
            else:
                raise ValueError(f"{self._region.name} has no sub-band {name!r}")
        return band

    def _band_of(self, frequency_hz: int, bandwidth_hz: int) -> _Band | None:
        signal = (frequency_hz, bandwidth_hz)
        if signal in self._of_signal:
            return self._of_signal[signal]
        try:
            band = self._band(self._region.sub_band(frequency_hz, bandwidth_hz).name)
        except ValueError:
            band = None
        if len(self._of_signal) < _SIGNALS_MAX:
            self._of_signal[signal] = band
        return band


def _extend_sums(sums: list[int], values: list[int]) -> None:
    for value in values:
        sums.append(sums[-1] + value)


def _insert(values: list[int], sums: list[int], value: int, index: int) -> None:
    values.insert(index, value)
    del sums[index + 1 :]
    _extend_sums(sums, values[index:])


def _delete(values: list[int], sums: list[int], index: int) -> None:
    del values[index]
    del sums[index + 1 :]
    _extend_sums(sums, values[index:])
