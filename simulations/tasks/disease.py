"""Infection risk on the simulated farm and on real weather: today's class, or tomorrow's.

The field of `simulations.field`: four crops, cheap sensors that are biased or missing, labels by the
published rules from the true weather of each plot.  Inputs are the 56 that the firmware makes of its
readings, computed by the firmware itself.  Public are apple and tomato at other sites; a node has labels
for 24 of its first days, validation and test are the days after.  The rule is the crop's published one on
the node's own sensors; it judges the running day, for tomorrow too.  Persistence is the last known class.

`disease_real` and a file of one's own (hourly station records, as `swarm sim run --weather`) replace the
generated weather; plots, canopies and sensors stay simulated.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simulations.field import Field, public_fields
from simulations.field.weather_csv import WeatherCsvError
from simulations.swarm_of_nodes import shipped_model
from simulations.tasks.tables import data_folder
from simulations.tasks.task import PUBLIC_NODE, Samples, Task, TaskError, concatenate
from swarm.node import NodeConfig, Nodes
from swarm.prng import Prng

__all__ = ["disease", "disease_next", "disease_next_real", "disease_real", "load", "load_next"]

HOUR_US = 3_600_000_000
TRAINING_DAYS, VALIDATION_DAYS, TEST_DAYS = 60, 14, 30
LABELS = 24
PUBLIC_NODES, PUBLIC_DAYS = 40, 60
CLASSES = ("low", "medium", "high")
CROPS = ("apple", "tomato", "potato", "grape")
REAL_START = date(2014, 5, 10)


def _inputs(field: Field) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
    """What the firmware makes of each day: int8[days, nodes, 56], and where it made anything."""
    configs = [
        NodeConfig(node_index=node, context=int(field.context[node]), flags=int(field.flags[node]))
        for node in range(field.nodes)
    ]
    nodes = Nodes(field.nodes, configs, shipped_model())
    x, made = [], []
    for hour in range(field.hours):
        temperature, humidity, rain, clock = field.readings(hour)
        nodes.sense((hour + 1) * HOUR_US, temperature, humidity, rain, clock)
        if clock == 12:
            mask, rows = nodes.day_features()
            x.append(rows)
            made.append(mask)
    return np.stack(x), np.stack(made)


def _days(
    field: Field, days: range, ahead: int, node: int | None = None
) -> tuple[Samples, NDArray[np.int64]]:
    """All node-days in `days`, labelled `ahead` days later, and the day of each row, ascending.

    `node`: their name; None for each its own.
    """
    x, made = _inputs(field)
    rule = field.rule_classes()
    first = max(days.start, 1)
    day, who = np.nonzero(made[first : days.stop])
    day += first
    samples = Samples(
        x[day, who].astype(np.float32),
        field.labels[day + ahead, who],
        field.context[who].astype(np.uint8),
        (who if node is None else np.full(len(who), node)).astype(np.int32),
        rule[day, who],
        field.labels[day + ahead - 1, who],
    )
    return samples, day


def _task(field: Field, name: str, seed: int, ahead: int) -> Task:
    prng = Prng(seed).child("disease")
    public = [
        _days(each, range(len(each.spin_up), each.training_days.stop - ahead), ahead, PUBLIC_NODE)[0]
        for each in public_fields(
            prng.child("public").u64() % (1 << 31), nodes=PUBLIC_NODES, days=PUBLIC_DAYS
        )
    ]
    begin = len(field.spin_up)
    rows, day = _days(field, range(begin, begin + TRAINING_DAYS + VALIDATION_DAYS + TEST_DAYS - ahead), ahead)
    # A label must be known before the next part begins.
    train = np.flatnonzero(day < begin + TRAINING_DAYS - ahead)
    validation_from, test_from = begin + TRAINING_DAYS, begin + TRAINING_DAYS + VALIDATION_DAYS
    validation = np.flatnonzero((day >= validation_from) & (day < test_from - ahead))
    test = np.flatnonzero(day >= test_from)
    picks = prng.child("labels").numpy()
    shuffled = picks.permutation(train)
    order = shuffled[np.argsort(rows.node[shuffled], kind="stable")]
    place = np.arange(len(order)) - np.searchsorted(rows.node[order], rows.node[order])
    told = np.sort(order[place < LABELS])
    return Task(
        name=name,
        classes=CLASSES,
        contexts=CROPS,
        metric="macro_f1_per_context",
        public=concatenate(public),
        train=rows.where(told),
        validation=rows.where(validation),
        test=rows.where(test),
        node_context=field.context.astype(np.uint8),
        int8_inputs=True,
    )


def _field(nodes: int, seed: int, weather: Path | None = None, start: date | None = None) -> Field:
    return Field(
        nodes,
        TRAINING_DAYS + VALIDATION_DAYS,
        Prng(seed).child("farm").u64() % (1 << 31),
        weather=weather,
        start=start,
        test_days=TEST_DAYS,
    )


def load(path: Path, nodes: int, seed: int) -> Task:
    """Today's class on the weather of a file, from the first 1 June on that it covers."""
    return _task(_real(path, nodes, seed, None), "disease_real", seed, 0)


def load_next(path: Path, nodes: int, seed: int) -> Task:
    """Tomorrow's class on the weather of a file."""
    return _task(_real(path, nodes, seed, None), "disease_next_real", seed, 1)


def _real(path: Path, nodes: int, seed: int, start: date | None) -> Field:
    try:
        return _field(nodes, seed, path, start)
    except WeatherCsvError as error:
        raise TaskError(str(error)) from error


def disease(nodes: int, seed: int) -> Task:
    """Today's class on generated weather."""
    return _task(_field(nodes, seed), "disease", seed, 0)


def disease_next(nodes: int, seed: int) -> Task:
    """Tomorrow's class on generated weather."""
    return _task(_field(nodes, seed), "disease_next", seed, 1)


def _beijing(nodes: int, seed: int) -> Field:
    return _real(data_folder("beijing_multisite") / "beijing_hourly.csv.gz", nodes, seed, REAL_START)


def disease_real(nodes: int, seed: int) -> Task:
    """Today's class on the weather of Beijing's stations."""
    return _task(_beijing(nodes, seed), "disease_real", seed, 0)


def disease_next_real(nodes: int, seed: int) -> Task:
    """Tomorrow's class on the weather of Beijing's stations."""
    return _task(_beijing(nodes, seed), "disease_next_real", seed, 1)
