"""Where soil moisture goes in the next seven days: real loggers, few of them public, other days as the test.

Falling, stable or rising by more than 0.005 m3/m3 at the shallowest depth.  The data of the Cook farm (42
loggers, five depths, two years of days, see `../shared/data/cookfarm`) or a file with the same columns:

    SOURCEID,Date,Port1VW,Port1C[,Port2VW,Port2C...]        VW in m3/m3, C in degC, one row a logger and day

A file of several years: the last one is the test, whole; of the years before, two blocks of 28 days are
validation.  A file of one year: its test are three other blocks of 28 days.  Seven days around each block are
left out, since a label looks seven days ahead; of the other days 60 are kept: soil labels itself.  Public are
three loggers, the fleet are all others.  Persistence is the direction of the last seven days, and an input.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simulations.tasks.tables import data_folder, read_csv
from simulations.tasks.task import PUBLIC_NODE, Samples, Task, TaskError, concatenate
from swarm.prng import Prng

__all__ = ["load", "soil"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

AHEAD_DAYS = 7
STEP = 0.005
LABELS = 60
BLOCK_DAYS = 28
VALIDATION_FROM = (85, 225)
TEST_FROM = (35, 155, 285)
"""Days of the year at which validation blocks begin, and test blocks where there is one year only."""
PUBLIC_LOGGERS = 3
PORTS_MAX = 5
CLASSES = ("falling", "stable", "rising")
DAYS_NEEDED = 40


@dataclass(frozen=True)
class _Logger:
    """One logger by day, gaps as nan: moisture and temperature [days, ports]; `day` since 1970."""

    name: str
    day: NDArray[np.int64]
    moisture: F64
    warmth: F64


def _loggers(path: Path) -> list[_Logger]:
    table = read_csv(path, ("SOURCEID", "Date", "Port1VW", "Port1C"))
    ports = [p for p in range(1, PORTS_MAX + 1) if {f"Port{p}VW", f"Port{p}C"} <= table.columns.keys()]
    day = table.hours("Date") // 24
    moisture = np.column_stack([table.numbers(f"Port{port}VW") for port in ports])
    warmth = np.column_stack([table.numbers(f"Port{port}C") for port in ports])
    names = np.array(table.columns["SOURCEID"])
    loggers = []
    for name in np.unique(names):
        rows = np.flatnonzero(names == name)
        rows = rows[np.argsort(day[rows], kind="stable")]
        days = np.arange(day[rows[0]], day[rows[-1]] + 1)
        at = day[rows] - days[0]
        filled = np.full((2, len(days), len(ports)), np.nan)
        filled[0, at], filled[1, at] = moisture[rows], warmth[rows]
        loggers.append(_Logger(str(name), days, filled[0], filled[1]))
    return loggers


def _back(series: F64, days: int) -> F64:
    """The change of a series [days, ...] over the last `days` days."""
    change = np.full_like(series, np.nan)
    change[days:] = series[days:] - series[:-days]
    return change


def _year(day: NDArray[np.int64]) -> NDArray[np.int64]:
    return day.astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64) + 1970


def _rows(logger: _Logger, test_year: int | None) -> tuple[Samples, NDArray[np.int64]]:
    """All days whose label is known, and their day numbers."""
    top = logger.moisture[:, 0]
    known = logger.moisture if test_year is None else logger.moisture[_year(logger.day) < test_year]
    there = np.isfinite(known)
    count = np.maximum(there.sum(axis=0), 1)
    level = np.where(there, known, 0.0).sum(axis=0) / count
    spread = np.sqrt(np.where(there, (known - level) ** 2, 0.0).sum(axis=0) / count) + 0.01
    depth = np.nan_to_num((logger.moisture - level) / spread)
    warmth = np.nan_to_num(logger.warmth / 10.0)
    recent = [np.nan_to_num(_back(logger.moisture[:, 0], days) / 0.02) for days in (1, 3, 7, 14)]
    past = np.nan_to_num(_back(top, AHEAD_DAYS))
    deeper = [np.nan_to_num(_back(logger.moisture, 7) / 0.02)[:, 1:3]]
    columns = [depth, warmth[:, :2], np.nan_to_num(_back(logger.warmth[:, 0], 7) / 5.0), *recent, *deeper,
               np.nan_to_num((top - 0.25) / 0.1), np.eye(3)[_direction(past)]]  # fmt: skip
    x = np.column_stack(columns).astype(np.float32)
    ahead = np.full(len(top), np.nan)
    ahead[:-AHEAD_DAYS] = top[AHEAD_DAYS:] - top[:-AHEAD_DAYS]
    usable = np.flatnonzero(np.isfinite(ahead) & np.isfinite(top))
    samples = Samples(
        x[usable],
        _direction(ahead[usable]),
        np.zeros(len(usable), np.uint8),
        np.full(len(usable), PUBLIC_NODE, np.int32),
        None,
        _direction(past[usable]),
    )
    return samples, logger.day[usable]


def _named(samples: Samples, node: int) -> Samples:
    return replace(samples, node=np.full(len(samples), node, np.int32))


def _direction(change: F64) -> NDArray[np.uint8]:
    return (1 + (change > STEP).astype(np.int8) - (change < -STEP)).astype(np.uint8)


def _parts(day: NDArray[np.int64], test_year: int | None) -> tuple[NDArray[np.bool_], ...]:
    """Masks of training, validation and test days; test_year None: the file has one year only."""
    start = day.astype("datetime64[D]").astype("datetime64[Y]").astype("datetime64[D]").astype(np.int64)
    of_year = day - start

    def blocks(begins: tuple[int, ...], margin: int) -> NDArray[np.bool_]:
        inside = [(of_year >= b - margin) & (of_year < b + BLOCK_DAYS + margin) for b in begins]
        return np.asarray(np.any(inside, axis=0))

    if test_year is None:
        near = blocks(VALIDATION_FROM + TEST_FROM, AHEAD_DAYS)
        return ~near, blocks(VALIDATION_FROM, 0), blocks(TEST_FROM, 0)
    # The last week's labels lie in the test year.
    before = _year(day + AHEAD_DAYS) < test_year
    near = blocks(VALIDATION_FROM, AHEAD_DAYS)
    return before & ~near, before & blocks(VALIDATION_FROM, 0), _year(day) == test_year


def _task(loggers: list[_Logger], nodes: int, seed: int) -> Task:
    prng = Prng(seed).child("soil")
    years = {int(year) for logger in loggers for year in _year(logger.day[[0, -1]])}
    test_year = max(years) if len(years) > 1 else None
    made = []
    for logger in loggers:
        samples, day = _rows(logger, test_year)
        training, validation, test = _parts(day, test_year)
        if min(training.sum(), test.sum()) >= DAYS_NEEDED and validation.any():
            made.append((samples, training, validation, test))
    if len(made) <= PUBLIC_LOGGERS:
        raise TaskError(
            f"soil: {len(made)} loggers have {DAYS_NEEDED} days to learn from and {DAYS_NEEDED} to test on; "
            f"at least {PUBLIC_LOGGERS + 1} are needed"
        )
    order = prng.child("split").numpy().permutation(len(made))
    picks = prng.child("labels").numpy()
    public = [
        _named(made[i][0], PUBLIC_NODE - group).where(made[i][1] | made[i][2])
        for group, i in enumerate(order[:PUBLIC_LOGGERS])
    ]
    parts: tuple[list[Samples], list[Samples], list[Samples]] = ([], [], [])
    fleet = order[PUBLIC_LOGGERS:][:nodes]
    for node, i in enumerate(fleet):
        samples, training, validation, test = made[i]
        named = _named(samples, node)
        days = np.flatnonzero(training)
        chosen = np.sort(picks.choice(days, min(LABELS, len(days)), replace=False))
        for part, rows in zip(parts, (chosen, validation, test), strict=True):
            part.append(named.where(rows))
    return Task(
        name="soil",
        classes=CLASSES,
        contexts=("soil",),
        metric="macro_f1",
        public=concatenate(public),
        train=concatenate(parts[0]),
        validation=concatenate(parts[1]),
        test=concatenate(parts[2]),
        node_context=np.zeros(len(fleet), np.uint8),
    )


def load(path: Path, nodes: int, seed: int) -> Task:
    """The task on a file with the columns of the module's docstring; TaskError when it is unusable."""
    return _task(_loggers(path), nodes, seed)


def soil(nodes: int, seed: int) -> Task:
    """The task on the Cook farm's loggers; at most `nodes` of them are the fleet."""
    return load(data_folder("cookfarm") / "readings_daily.csv.gz", nodes, seed)
