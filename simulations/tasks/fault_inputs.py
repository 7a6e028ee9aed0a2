"""What a node tells a fault by: the last day of 48 hours against the day before and the channel's habits.

Everything is in spreads of the channel, and most of it a logarithm of how many times the usual: faults that
are the same to a person then lie on one side of a plane for a calm channel (pressure) as for a lively one
(wind, sun), which is all that class means and a linear head can use.  A node knows no more than this: two
days of its own readings and five numbers of its own first season; sums, sorts and a table of logarithms.

Most faults stay once they have come, a spike and a dropout do not: each hour of the day is tried as the
one at which a lasting step or a ramp began (least squares, closed form), and the last hours are looked at
by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

__all__ = ["DAY_H", "WINDOW_H", "Usual", "fault_inputs", "runs_h"]

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]

DAY_H, WINDOW_H = 24, 48
ONSETS = 18
"""Hours of the day at which what lasts may have begun: it needs six to show."""
SAME = 1e-9
NOISE = 1e-3
"""Squares, in spreads, below which a fit is as good as exact."""
AROUND_H = 4
EVERY_H = 7
"""One window in seven, so that all hours of the day are in it, says what is usual."""

_HOUR = np.arange(DAY_H)
_SINCE = _HOUR - np.arange(ONSETS)[:, np.newaxis]
_STEPS = (_SINCE >= 0).astype(np.float64)
_RAMPS = np.maximum(_SINCE, 0).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Usual:
    """Habits of a channel, in spreads: what days differ by, hourly steps, and how sharply they turn.

    `day` root mean square between equal hours of two days; `step` and `bend` the median day's mean first and
    second difference; `largest_step` and `largest_bend` what a day's largest exceeds one day in ten.
    """

    day: float
    step: float
    largest_step: float
    bend: float
    largest_bend: float

    @classmethod
    def of(cls, windows: F64) -> Usual:
        """From windows [n, 48] in spreads; flat channels get a little of everything."""
        step = np.abs(np.diff(windows[:, DAY_H - 1 :]))
        bend = np.abs(np.diff(windows[:, DAY_H - 1 :], n=2))
        apart = windows[:, DAY_H:] - windows[:, :DAY_H]
        return cls(
            day=float(np.sqrt(np.square(apart).mean())) + 0.02,
            step=float(np.median(step.mean(axis=1))) + 0.01,
            largest_step=float(np.quantile(step.max(axis=1), 0.9)) + 0.02,
            bend=float(np.median(bend.mean(axis=1))) + 0.01,
            largest_bend=float(np.quantile(bend.max(axis=1), 0.9)) + 0.02,
        )


def runs_h(series: F64) -> NDArray[np.int64]:
    """Lengths of the runs of equal readings, in order; they sum up to the series' length."""
    begins = np.flatnonzero(np.abs(np.diff(series)) > SAME) + 1
    return np.diff(np.concatenate([[0], begins, [len(series)]]))


def _explained(apart: F64, shapes: F64) -> tuple[float, float]:
    """The most that one of the shapes [n, 24] takes off the sum of squares, and its factor."""
    along, square = shapes @ apart, np.square(shapes).sum(axis=1)
    best = int((along**2 / square).argmax())
    return float(along[best] ** 2 / square[best]), float(along[best] / square[best])


def _excursion(window: F64) -> float:
    """How far an hour of the day lies from the median of the nine around it (or the last nine), at most."""
    medians = np.median(sliding_window_view(window[DAY_H - AROUND_H :], 2 * AROUND_H + 1), axis=1)
    around = medians[np.minimum(_HOUR, len(medians) - 1)]
    return float(np.abs(window[DAY_H:] - around).max())


def fault_inputs(window: F64, lowest: float, usual: Usual) -> F32:
    """Inputs float32[22] of a window [48] whose last day is judged; it and `lowest` in spreads."""
    before, day = window[:DAY_H], window[DAY_H:]
    apart = day - before
    step, step_before = np.diff(window[DAY_H - 1 :]), np.diff(before)
    bend, bend_before = np.abs(np.diff(step)), np.abs(np.diff(step_before))
    sizes = np.sort(np.abs(step))
    runs, still = runs_h(window[DAY_H - 1 :]), np.abs(step) < SAME
    still_before = np.abs(step_before) < SAME
    total = float(np.square(apart).sum()) + NOISE
    (by_step, _), (by_ramp, slope) = _explained(apart, _STEPS), _explained(apart, _RAMPS)
    excursion = _excursion(window)
    return np.array(
        [
            # Offset, drift: the day is elsewhere, and farther than days usually are.
            apart.mean(),
            np.log(np.abs(apart).mean() / usual.day + 0.1),
            # Which of the two: what a step, what a ramp from some hour on explains, and what neither does.
            np.log(total / (total - by_step)),
            np.log(total / (total - by_ramp)),
            abs(slope) * DAY_H,
            np.log((total - max(by_step, by_ramp)) / DAY_H / usual.day**2 + 0.01),
            # Drift: it has grown since the morning.
            abs(apart[-6:].mean()),
            # Offset has one large step, a spike or a dropout two, noise many.
            np.log(sizes[-1] / usual.largest_step + 0.1),
            np.log(sizes[-3] / usual.largest_step + 0.05),
            # Noise: sharp turns all day, in its last hours at least; against habit and the day before.
            np.log(bend.max() / usual.largest_bend + 0.1),
            np.log(np.median(bend) / usual.bend + 0.05),
            np.log(bend[-6:].mean() / usual.bend + 0.05),
            np.log((bend.mean() + 0.02) / (bend_before.mean() + 0.02)),
            # Stuck: the same reading to the end, and the day before was not so (the sun's is, at night).
            np.log(runs[-1]),
            np.log(runs.max()),
            2.0 * (still.mean() - still_before.mean()),
            # A spike is alone among its neighbours.
            excursion,
            np.log(excursion / usual.largest_bend + 0.05),
            # Dropout: below all that was ever measured, if only for an hour.
            10.0 * min(float(np.mean(day < lowest)), 0.1),
            # The day swings more or less than the one before.
            np.log((day.std() + 0.02) / (before.std() + 0.02)),
            # What channel this is: calm or lively, from hour to hour and from day to day.
            np.log(usual.step),
            np.log(usual.day),
        ],
        dtype=np.float32,
    )
