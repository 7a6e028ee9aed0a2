"""Which neighbour's readings can stand in for a node's own: correlation, copies, defects, rain's use.

Everything here is arithmetic on days of hourly readings (`wire.readings.Readings`), as nodes sent them; an
hour that was not sent is nan and counts nowhere.

* A *match* is judged by what both report, humidity if they can, else temperature.  Whether a neighbour is fit
  at all is told by the correlation after each node's own mean day is taken off: that the sun rises everywhere
  says nothing about it.  Which of several fits best is told by how far they are *apart*, mean days included:
  a hollow or a town shows in them.  Absolute differences, not squares: one storm is no reason.
* A neighbour whose humidity is the same, hour by hour, is the same sensor under another name: no witness.
* A sensor is *biased* when it differs from several neighbours for days.  Sites differ too, the more the less
  their days agree: a witness counts by its correlation, and of the difference only that part is believed
  that a sensor is likelier to cause than a site.  A small one is left alone.
* Rain from a neighbour only adds wet hours.  Where rain hardly ever falls below the humidity that counts
  as wet anyway, the added hours are mostly wrong ones: there it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swarm.wire import readings as wire
from swarm.wire.readings import DAY_HOURS, Readings

__all__ = [
    "HUMID_PCT",
    "Defect",
    "Match",
    "Witness",
    "defect_of",
    "hours_of",
    "match",
    "rainy_hours",
    "together",
]

HUMID_PCT = 90.0
"""An hour at or above counts as wet in every rule that has no wetness sensor."""
COMMON_HOURS_MIN = 60
COPY_SHARE = 0.8
COPY_BELOW_PCT = 95.0
"""Saturated air is the same everywhere: hours above are no sign of a copy."""
FLAT_SHARE = 0.9
MISSING_SHARE = 0.5
BIAS_MIN_PCT = 4.0
BIAS_MAX_PCT = 25.0
BIAS_VARIANCE = 36.0
"""Of a bad humidity sensor, %^2."""
WITNESS_VARIANCE = 9.0
"""Of a sound one."""
SITE_VARIANCE = 280.0
"""Two sites' means differ by about SITE_VARIANCE * (1 - correlation): Beijing's stations in 2014."""
WITNESSES_MIN = 2
"""One neighbour cannot tell which of the two is wrong."""

Hours = NDArray[np.float64]
"""[2, hours]: humidity in %, temperature in degC; nan where nothing was said."""


@dataclass(frozen=True, slots=True)
class Match:
    """How well a neighbour follows a node over so many common hours, by humidity or temperature.

    `correlation` of what departs from the mean days, -1..1; `apart` is the mean absolute difference, less a
    constant one, in parts of the node's own mean absolute deviation, 0..
    """

    correlation: float
    apart: float
    hours: int
    by: str
    copy: bool


@dataclass(frozen=True, slots=True)
class Witness:
    """A sound neighbour's hours beside the node's own, aligned."""

    own: Hours
    other: Hours
    correlation: float


@dataclass(frozen=True, slots=True)
class Defect:
    """What is wrong with a humidity sensor: `kind` flat, missing or biased, then by how many %."""

    kind: str
    bias_pct: float = 0.0

    @property
    def offset_half(self) -> int:
        """What to add to its readings, in 0.5 %."""
        return round(-2.0 * self.bias_pct)


def hours_of(day: Readings) -> Hours:
    """One day as [2, 24]."""
    out = np.full((2, DAY_HOURS), np.nan)
    at = [hour for hour in range(DAY_HOURS) if day.hours >> hour & 1]
    if day.humidity is not None:
        values = np.array(day.humidity.values) << day.humidity.step
        out[0, at] = np.minimum(values, wire.HUMIDITY_TOP)
    if day.temperature is not None:
        values = np.array(day.temperature.values) << day.temperature.step
        out[1, at] = np.minimum(values, wire.TEMPERATURE_TOP) / 2.0 - 30.0
    return out


def together(own: Mapping[int, Readings], other: Mapping[int, Readings]) -> tuple[Hours, Hours]:
    """The hours of the days that both sent, in the order of the days."""
    days = sorted(own.keys() & other.keys())
    if not days:
        return np.empty((2, 0)), np.empty((2, 0))
    return (
        np.concatenate([hours_of(own[day]) for day in days], axis=1),
        np.concatenate([hours_of(other[day]) for day in days], axis=1),
    )


def _anomalies(series: NDArray[np.float64], common: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The common hours of a series of whole days, less the mean of each hour of the day."""
    days = np.where(common, series, np.nan).reshape(-1, DAY_HOURS)
    known = ~np.isnan(days)
    mean = np.where(known, days, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.asarray((days - mean).reshape(-1)[common])


def _apart(own: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """How far two series are from being the same one but for a constant; 0: they are."""
    difference, spread = own - other, float(np.abs(own - np.median(own)).mean())
    return float(np.abs(difference - np.median(difference)).mean()) / spread if spread > 0 else 1.0


def match(own: Hours, other: Hours) -> Match | None:
    """How well `other` follows `own`; None where too few hours are common."""
    for row, by in ((0, "humidity"), (1, "temperature")):
        common = ~np.isnan(own[row]) & ~np.isnan(other[row])
        if common.sum() < COMMON_HOURS_MIN:
            continue
        a, b = _anomalies(own[row], common), _anomalies(other[row], common)
        spread = float(np.sqrt((a @ a) * (b @ b)))
        correlation = float(a @ b) / spread if spread > 0 else 0.0
        below = common & (own[0] < COPY_BELOW_PCT)
        same = float((own[0, below] == other[0, below]).mean()) if by == "humidity" and below.any() else 0.0
        apart = _apart(own[row, common], other[row, common])
        return Match(correlation, apart, int(common.sum()), by, same >= COPY_SHARE)
    return None


def defect_of(own: Hours, witnesses: Sequence[Witness]) -> Defect | None:
    """What is wrong with the humidity of a node that has a sensor for it, beside its neighbours'."""
    humidity = own[0]
    known = ~np.isnan(humidity)
    if humidity.size < COMMON_HOURS_MIN:
        return None
    if known.mean() < 1.0 - MISSING_SHARE:
        return Defect("missing")
    steps = np.diff(humidity[known])
    unsaturated = humidity[known][1:] < COPY_BELOW_PCT
    if unsaturated.any() and (steps[unsaturated] == 0).mean() >= FLAT_SHARE:
        return Defect("flat")
    if len(witnesses) < WITNESSES_MIN:
        return None
    bias = _bias_pct(witnesses)
    if not BIAS_MIN_PCT <= abs(bias) <= BIAS_MAX_PCT:
        return None
    return Defect("biased", round(bias, 1))


def _bias_pct(witnesses: Sequence[Witness]) -> float:
    """How far a sensor is off, by what is likelier of it than of the sites."""
    apart = np.array([max(1.0 - witness.correlation, 0.0) for witness in witnesses])
    differences = np.array([np.nanmean(witness.own[0] - witness.other[0]) for witness in witnesses])
    weights = 1.0 / (WITNESS_VARIANCE + SITE_VARIANCE * apart)
    mean = float(weights @ differences / weights.sum())
    # The node's own site is in every difference: more witnesses do not average it out.
    own_site = SITE_VARIANCE / 2.0 * float(weights @ apart / weights.sum())
    return mean * BIAS_VARIANCE / (BIAS_VARIANCE + own_site + 1.0 / float(weights.sum()))


def rainy_hours(day: Readings) -> tuple[int, int]:
    """(rainy hours of a day, those of them with RH >= 90 %); (0, 0) where it does not say both."""
    if day.rainy is None or day.humidity is None:
        return 0, 0
    humidity = hours_of(day)[0]
    rainy = [hour for hour in range(DAY_HOURS) if day.rainy >> hour & 1]
    return len(rainy), int((humidity[rainy] >= HUMID_PCT).sum())
