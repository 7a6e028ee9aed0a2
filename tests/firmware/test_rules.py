"""The node's rules: each row of the published tables by hand, then against the simulator's numpy rules."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from swarm._node import ffi, lib

from simulations.field.rules import (
    PlotWeather,
    apple_progress,
    classes_by_context,
    grape_index,
    tomato_severity,
    weather_of_readings,
)
from swarm.node import HUMIDITY_MISSING, NodeConfig, Nodes
from swarm.prng import Prng
from tests.firmware.model_image import IMAGE, IMAGE_OF_ALL, IMAGE_WITHOUT_RULE

LOW, MEDIUM, HIGH = 0, 1, 2
APPLE, TOMATO, POTATO, GRAPE = range(4)
HOUR_US = 3_600_000_000

# degF and hours of wetness for infection (agronomic sources: see swn_rules.h); degC to 0.01 by hand.
MILLS = [
    (111, 34, 41), (222, 36, 35), (278, 37, 30), (389, 39, 28), (500, 41, 21), (611, 43, 18), (722, 45, 15),
    (778, 46, 13), (889, 48, 12), (1000, 50, 11), (1111, 52, 9), (1222, 54, 8), (1278, 55, 8), (1389, 57, 7),
    (1500, 59, 7), (1611, 61, 6), (1800, None, 6), (2000, None, 6), (2389, 75, 6), (2500, 77, 8),
    (2611, 79, 11),
]  # fmt: skip


def progress(temperatures_centi: list[int | None]) -> list[int]:
    """The apple rule over hours: a temperature is a wet hour, None a dry one."""
    spell = ffi.new("swn_spell_t *")
    return [lib.swn_spell_hour(spell, t or 0, t is not None) for t in temperatures_centi]


@pytest.mark.parametrize(("centi", "fahrenheit", "hours"), MILLS)
def test_mills_table_rows(centi: int, fahrenheit: int | None, hours: int) -> None:
    """At a row's temperature its hours reach progress 1, one hour less does not; half of them are medium.

    The rows lie at whole degF; in 0.01 degC they are off by up to 0.005 degC, less than 0.04 h of need, which
    moves "exactly reached" to one side: the test allows that the last hour is the one that decides.
    """
    reached = progress([centi] * (hours + 1))
    assert reached[hours - 2] < 64 <= reached[hours]
    assert abs(reached[hours - 1] - 64) <= 1
    exact = centi * 9 % 5 == 0 and fahrenheit is not None and centi * 9 // 5 + 3200 == fahrenheit * 100
    if exact or fahrenheit is None:
        assert reached[hours - 1] == 64
        assert [value >= 32 for value in reached].index(True) == -(-hours // 2) - 1


def test_mills_between_and_beyond_the_rows() -> None:
    """3.33 degC = 38 degF lies half way between 37 (30 h) and 39 (28 h); beyond the ends their hours hold."""
    assert progress([333] * 29)[-1] in (63, 64)
    assert progress([0] * 41)[-1] == 64 and progress([-500] * 40)[-1] < 64
    assert progress([3000] * 11)[-1] == 64 and progress([3000] * 10)[-1] == 64 * 10 // 11
    assert progress([1000] * 11)[-1] == 64


def test_wet_spells_join_unless_the_gap_is_eight_hours() -> None:
    """3 wet hours at 18 degC, a gap, 3 more: the need is 6 h."""
    assert progress([1800] * 3 + [None] * 7 + [1800] * 3)[-1] == 64
    assert progress([1800] * 3 + [None] * 8 + [1800] * 3)[-1] == 32
    assert progress([1800] * 3 + [None] * 7)[3:] == [0] * 7  # a dry hour shows no progress


def test_mean_temperature_of_the_wet_hours_counts() -> None:
    """Five hours at 5 degC and five at 15 degC: mean 10 degC = 50 degF, 11 h needed."""
    assert progress([500] * 5 + [1500] * 5)[-1] == 64 * 10 // 11
    assert progress([500] * 5 + [1500] * 5 + [1000])[-1] == 64


def test_a_very_long_spell_stays_high_and_keeps_its_mean() -> None:
    """After 128 h the count is halved; progress stays above 1 at any temperature of the table."""
    assert min(progress([111] * 400)[41:]) >= 64
    assert min(progress([1800] * 400)[12:]) >= 127


def tomato(hours: int, centi: int) -> int:
    return int(lib.swn_tomcast_severity(hours * centi, hours))


def potato(hours: int, centi: int) -> int:
    return int(lib.swn_wallin_severity(hours * centi, hours))


@pytest.mark.parametrize(
    ("from_centi", "below_centi", "steps"),
    [
        (1300, 1800, {7: 1, 15: 1, 16: 2, 20: 2, 21: 3, 24: 3, 6: 0}),
        (1800, 2100, {3: 0, 4: 1, 8: 1, 9: 2, 15: 2, 16: 3, 22: 3, 23: 4}),
        (2100, 2600, {2: 0, 3: 1, 5: 1, 6: 2, 12: 2, 13: 3, 20: 3, 21: 4}),
        (2600, 3000, {3: 0, 4: 1, 8: 1, 9: 2, 15: 2, 16: 3, 22: 3, 23: 4}),
        (-1000, 1300, {24: 0, 10: 0}),
        (3000, 4500, {24: 0, 10: 0}),
    ],
)
def test_tomcast_rows(from_centi: int, below_centi: int, steps: dict[int, int]) -> None:
    """Each bin at both its edges: [13, 18) [18, 21) [21, 26) [26, 30) degC."""
    for hours, severity in steps.items():
        assert tomato(hours, from_centi) == severity, hours
        assert tomato(hours, below_centi - 1) == severity, hours
    assert tomato(0, 0) == 0


@pytest.mark.parametrize(
    ("low_centi", "high_centi", "steps"),
    [
        (720, 1160, {15: 0, 16: 1, 18: 1, 19: 2, 21: 2, 22: 3, 24: 3}),
        (1170, 1500, {12: 0, 13: 1, 15: 1, 16: 2, 18: 2, 19: 3, 21: 3, 22: 4}),
        (1510, 2660, {9: 0, 10: 1, 12: 1, 13: 2, 15: 2, 16: 3, 18: 3, 19: 4}),
        (-500, 719, {24: 0}),
        (2670, 4000, {24: 0}),
    ],
)
def test_wallin_rows(low_centi: int, high_centi: int, steps: dict[int, int]) -> None:
    """Each published bin at both its ends; between two bins the edge lies half way (11.65, 15.05, 26.65)."""
    for hours, severity in steps.items():
        assert potato(hours, low_centi) == severity, hours
        assert potato(hours, high_centi) == severity, hours
    assert potato(16, 1164) == 1 and potato(16, 1165) == 2
    assert potato(13, 1504) == 1 and potato(13, 1505) == 2
    assert potato(19, 2664) == 4 and potato(19, 2665) == 0


def mildew(days: list[tuple[int, bool]]) -> list[int]:
    """The Gubler-Thomas index after days of (longest warm run in h, an hour of 35 degC)."""
    state = ffi.new("swn_mildew_t *")[0]
    indices = []
    for run, hot in days:
        state = lib.swn_mildew_next(state, run, hot)
        indices.append(state.index)
    return indices


def test_mildew_index() -> None:
    """Three favourable days in a row start it; then +20, -10, hot -10, both +10; within 0..100."""
    assert mildew([(6, False)] * 3) == [20, 40, 60]
    assert mildew([(6, False), (6, False), (5, False), (6, False)]) == [20, 40, 0, 20]
    started = [(6, False)] * 3
    assert mildew([*started, (24, False), (6, False), (6, False)])[3:] == [80, 100, 100]
    assert mildew([*started, (5, False), (0, True), (6, True)])[3:] == [50, 40, 50]
    assert mildew(started + [(0, False)] * 8)[-3:] == [0, 0, 0]
    assert mildew(started + [(0, False)] * 6 + [(6, False), (0, False)])[-3:] == [0, 20, 10]
    assert mildew([(6, True)] * 3) == [20, 40, 60]


def verdict(context: int, index: int = 0, **day: int) -> tuple[int, int]:
    c_day = ffi.new("swn_day_t *", day)
    got = lib.swn_rule(context, c_day, ffi.new("swn_mildew_t *", {"index": index, "started": 1})[0])
    return got.risk, got.index


def test_classes_and_indices_of_each_crop() -> None:
    """Thresholds of the classes: 0.5 and 1; severity 1 and 3; index 30 and 60."""
    assert [verdict(APPLE, progress=p) for p in (0, 31, 32, 63, 64, 200)] == [
        (LOW, 0), (LOW, 31), (MEDIUM, 32), (MEDIUM, 63), (HIGH, 64), (HIGH, 127),
    ]  # fmt: skip
    dsv = [verdict(TOMATO, wet_hours=h, wet_sum_centi=h * 2200) for h in (2, 3, 6, 13, 21)]
    assert dsv == [(LOW, 0), (MEDIUM, 32), (MEDIUM, 64), (HIGH, 96), (HIGH, 127)]
    severity = [verdict(POTATO, humid_hours=h, humid_sum_centi=h * 2000) for h in (9, 10, 13, 16, 19)]
    assert severity == [(LOW, 0), (MEDIUM, 32), (MEDIUM, 64), (HIGH, 96), (HIGH, 127)]
    assert [verdict(GRAPE, index=i) for i in (0, 29, 30, 59, 60, 100)] == [
        (LOW, 0), (LOW, 29), (MEDIUM, 30), (MEDIUM, 59), (HIGH, 60), (HIGH, 100),
    ]  # fmt: skip
    assert verdict(6, index=100, progress=255, wet_hours=24, wet_sum_centi=48000) == (LOW, 0)


Hourly = NDArray[np.float64]


def make_weather(nodes: int, days: int) -> tuple[Hourly, Hourly, Hourly]:
    """Temperature degC, humidity % and rain mm [hours, nodes]: seasons, nights and showers, seeded."""
    rng = Prng(11).child("rules").numpy()
    hours = 24 * days
    clock = (np.arange(hours)[:, None] + 13) % 24
    season = rng.uniform(4, 24, nodes) + 6 * np.sin(np.arange(hours)[:, None] / 24 / 9)
    temperature = season + 6 * np.sin((clock - 9) / 24 * 2 * np.pi) + rng.normal(0, 1, (hours, nodes))
    wetness = np.cumsum(rng.normal(0, 3, (hours, nodes)), axis=0)
    humidity = np.clip(84 - 2.2 * (temperature - season) + 12 * np.sin(wetness / 9), 20, 100)
    rain = np.where(rng.random((hours, nodes)) < 0.04, rng.exponential(2, (hours, nodes)), 0)
    return temperature, humidity, rain


def inputs_of_nodes(
    context: NDArray[np.uint8], readings: list[NDArray[np.integer]], image: bytes
) -> NDArray[np.int8]:
    """Each day's features [days, nodes, 56]."""
    nodes = Nodes(len(context), [NodeConfig(i, int(crop)) for i, crop in enumerate(context)], image)
    days = []
    for hour in range(len(readings[0])):
        clock = (hour + 13) % 24
        nodes.sense(hour * HOUR_US, *(values[hour] for values in readings), clock)
        if clock == 12:
            days.append(nodes.day_features()[1])
    return np.array(days)


def classes_of_nodes(context: NDArray[np.uint8], readings: list[NDArray[np.integer]]) -> NDArray[np.int64]:
    """The rule's class in each day's features [days, nodes], of nodes that know every crop."""
    return inputs_of_nodes(context, readings, IMAGE_OF_ALL)[:, :, 48:51].argmax(axis=2)


def quantised_weather(nodes: int, days: int) -> list[NDArray[np.integer]]:
    """`make_weather` as the sensors say it."""
    temperature, humidity, rain = make_weather(nodes, days)
    return [
        np.rint(temperature * 100).astype(np.int16),
        np.rint(humidity * 2).astype(np.uint8),
        np.rint(rain * 10).astype(np.uint16),
    ]


def test_rules_agree_with_the_simulator() -> None:
    """On the same quantised readings the C rules and the numpy rules give one class on every day.

    With the unrounded weather they differ on the days on which the sensors' steps (0.5 %, 0.1 mm) decide:
    RH 89.8 % reads as 90 %, 0.04 mm of rain as none.
    """
    context = np.arange(120, dtype=np.uint8) % 4
    temperature, humidity, rain = make_weather(len(context), 90)
    readings = [
        np.rint(temperature * 100).astype(np.int16),
        np.rint(humidity * 2).astype(np.uint8),
        np.rint(rain * 10).astype(np.uint16),
    ]
    got = classes_of_nodes(context, readings)
    quantised = classes_by_context(context, weather_of_readings(*readings))
    for crop in range(4):
        counts = np.bincount(quantised[:, context == crop].ravel(), minlength=3)
        assert counts.min() >= 15, f"crop {crop}: {counts} days of each class compare little"
    assert (got == quantised).mean() >= 0.9999
    as_float = [values.astype(np.float32) for values in (temperature, humidity, rain)]
    truth = PlotWeather(*as_float, (humidity >= 90) | (rain > 0))
    agreement = (got == classes_by_context(context, truth)).mean()
    assert 0.97 <= agreement < 1.0, agreement


def test_rules_agree_without_a_humidity_sensor() -> None:
    """RH from the lowest temperature of 24 h: the integer comparison equals the simulator's exponential."""
    context = np.arange(40, dtype=np.uint8) % 4
    temperature, humidity, rain = make_weather(len(context), 40)
    readings = [
        np.rint(temperature * 100).astype(np.int16),
        np.full(humidity.shape, HUMIDITY_MISSING, np.uint8),
        np.rint(rain * 10).astype(np.uint16),
    ]
    got = classes_of_nodes(context, readings)
    assert (got == classes_by_context(context, weather_of_readings(*readings))).mean() >= 0.999


def shifted(classes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The class of the day before, 0 before the first."""
    return np.concatenate([np.zeros((1, classes.shape[1]), np.int64), classes[:-1].astype(np.int64)])


def test_inputs_of_known_crops_are_their_own_rule() -> None:
    """Apple and tomato, shipped: 48-50 and 52 by their rule, 51 its index, whatever else the model knows."""
    context = np.arange(40, dtype=np.uint8) % 2
    readings = quantised_weather(len(context), 60)
    x = inputs_of_nodes(context, readings, IMAGE).astype(np.int64)
    weather = weather_of_readings(*readings)
    classes = classes_by_context(context, weather)
    assert np.bincount(classes.ravel()).min() > 100
    assert (x[:, :, 48:51].argmax(axis=2) == classes).mean() >= 0.9999
    assert (np.sort(x[:, :, 48:51], axis=2) == [0, 0, 64]).all()
    assert (x[:, :, 52] == 40 * shifted(classes)).mean() >= 0.9999
    progress = np.minimum(64 * apple_progress(weather)[:, context == APPLE], 127)
    assert np.abs(x[:, context == APPLE, 51] - progress).max() <= 1.01
    severity = np.array([0, 32, 64, 96, 127])[tomato_severity(weather)[:, context == TOMATO].astype(int)]
    assert (x[:, context == TOMATO, 51] == severity).mean() >= 0.9999
    for image in (IMAGE_OF_ALL, IMAGE_WITHOUT_RULE):
        same = context == APPLE if image is IMAGE_WITHOUT_RULE else context < 4
        assert (inputs_of_nodes(context, readings, image)[:, same] == x[:, same]).all()


def test_a_crop_that_the_model_does_not_know_gets_the_general_rule_and_the_season() -> None:
    """Potato, grape and a crop without any rule: TOM-CAST's class in 48-50 and 52, Gubler-Thomas in 51."""
    context = np.array([POTATO, GRAPE, 6] * 12, np.uint8)
    readings = quantised_weather(len(context), 60)
    x = inputs_of_nodes(context, readings, IMAGE)
    weather = weather_of_readings(*readings)
    general = classes_by_context(np.full(len(context), TOMATO, np.uint8), weather)
    assert np.bincount(general.ravel()).min() > 50
    assert (x[:, :, 48:51].argmax(axis=2) == general).mean() >= 0.9999
    assert (x[:, :, 52] == 40 * shifted(general)).mean() >= 0.9999
    season = grape_index(weather)
    assert (season > 0).mean() > 0.2
    assert (x[:, :, 51] == season).mean() >= 0.999
    of_all = inputs_of_nodes(context, readings, IMAGE_OF_ALL)
    rest = np.setdiff1d(np.arange(56), range(48, 53))
    assert (of_all[:, :, rest] == x[:, :, rest]).all(), "a rule moves its own inputs only"
    assert (of_all[:, context == POTATO, 48:53] != x[:, context == POTATO, 48:53]).any()


def test_a_head_without_a_published_rule_does_with_the_general_one() -> None:
    """A model may know a context for which this firmware has no rule: no read beyond the rules' memory."""
    context = np.array([5, 7, TOMATO, POTATO], np.uint8)
    readings = quantised_weather(1, 40)
    alike = [np.repeat(values, len(context), axis=1) for values in readings]
    x = inputs_of_nodes(context, alike, IMAGE_WITHOUT_RULE)
    for node in (0, 1):
        assert (x[:, node] == x[:, 3]).all()
    assert set(np.unique(x[:, :, 52])) == {0, 40, 80}
    by_tomcast = inputs_of_nodes(context, alike, IMAGE)[:, 2]
    assert (x[:, 2] == by_tomcast).all(), "the general rule is tomato's own, known or not"
