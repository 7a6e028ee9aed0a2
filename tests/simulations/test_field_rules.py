"""The published rules against their tables: every row, every border, and the memory of spells and of the
season.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from simulations.field.rules import (
    APPLE,
    GRAPE,
    POTATO,
    TOMATO,
    PlotWeather,
    apple_progress,
    classes_by_context,
    grape_index,
    humidity_pct_of,
    potato_severity,
    tomato_severity,
    weather_of_readings,
)

MILLS = [  # degF, hours of wetness needed (the amended table as published)
    (34, 41), (36, 35), (37, 30), (39, 28), (41, 21), (43, 18), (45, 15), (46, 13), (48, 12), (50, 11),
    (52, 9), (54, 8), (55, 8), (57, 7), (59, 7), (61, 6), (68, 6), (75, 6), (77, 8), (79, 11),
]  # fmt: skip


def celsius(fahrenheit: float) -> float:
    return (fahrenheit - 32.0) / 1.8


def weather(
    temperature_c: float | NDArray[np.float64],
    wet: Sequence[int] = (),
    humid: Sequence[int] = (),
    hours: int = 24,
) -> PlotWeather:
    """One plot: a temperature for all hours (or one each), and the hours that are wet or humid."""
    temperature = np.broadcast_to(np.asarray(temperature_c, dtype=np.float32), (hours,)).copy()[:, None]
    humidity = np.full((hours, 1), 60.0, dtype=np.float32)
    humidity[list(humid)] = 95.0
    leaf = np.zeros((hours, 1), dtype=bool)
    leaf[list(wet)] = True
    return PlotWeather(temperature, humidity, np.zeros((hours, 1), dtype=np.float32), leaf)


@pytest.mark.parametrize(("fahrenheit", "needed"), MILLS)
def test_apple_reaches_infection_in_exactly_the_hours_of_the_mills_table(
    fahrenheit: int, needed: int
) -> None:
    days = 48
    reached = apple_progress(weather(celsius(fahrenheit), wet=range(needed), hours=days))
    short = apple_progress(weather(celsius(fahrenheit), wet=range(needed - 1), hours=days))
    assert reached.max() == pytest.approx(1.0, rel=1e-3)
    assert short.max() < 1.0


def test_apple_spells_join_over_seven_dry_hours_and_not_over_eight() -> None:
    joined = apple_progress(weather(18.0, wet=[0, 1, 2, 10, 11, 12]))
    apart = apple_progress(weather(18.0, wet=[0, 1, 2, 11, 12, 13]))
    assert joined[0, 0] == pytest.approx(1.0)
    assert apart[0, 0] == pytest.approx(0.5)


def test_apple_spells_run_on_over_noon_but_a_dry_day_has_no_progress() -> None:
    progress = apple_progress(weather(18.0, wet=range(20, 27), hours=72))
    assert progress[0, 0] == pytest.approx(4 / 6)
    assert progress[1, 0] == pytest.approx(7 / 6)
    assert progress[2, 0] == 0.0


def test_apple_uses_the_mean_temperature_of_the_wet_hours_only() -> None:
    temperature = np.where(np.arange(24) < 6, 18.0, 2.0)
    assert apple_progress(weather(temperature, wet=range(6)))[0, 0] == pytest.approx(1.0)


TOMCAST = [  # mean temperature of the wet hours, then the first wet hour count of severity 1, 2, 3, 4
    (12.9, None), (13.0, (7, 16, 21)), (17.9, (7, 16, 21)), (18.0, (4, 9, 16, 23)), (20.9, (4, 9, 16, 23)),
    (21.0, (3, 6, 13, 21)), (25.9, (3, 6, 13, 21)), (26.0, (4, 9, 16, 23)),
    (29.9, (4, 9, 16, 23)), (30.0, None),
]  # fmt: skip


@pytest.mark.parametrize(("temperature_c", "steps"), TOMCAST)
def test_tomato_severity_steps_at_the_hours_of_the_tomcast_table(
    temperature_c: float, steps: tuple[int, ...] | None
) -> None:
    for hours in range(25):
        expected = sum(hours >= step for step in steps) if steps else 0
        assert tomato_severity(weather(temperature_c, wet=range(hours)))[0, 0] == expected


WALLIN = [
    (7.1, None), (7.3, (16, 19, 22)), (11.6, (16, 19, 22)), (11.7, (13, 16, 19, 22)),
    (15.0, (13, 16, 19, 22)),
    (15.1, (10, 13, 16, 19)), (26.6, (10, 13, 16, 19)), (26.8, None),
]  # fmt: skip


@pytest.mark.parametrize(("temperature_c", "steps"), WALLIN)
def test_potato_severity_counts_humid_hours_by_wallins_table(
    temperature_c: float, steps: tuple[int, ...] | None
) -> None:
    for hours in range(25):
        expected = sum(hours >= step for step in steps) if steps else 0
        assert potato_severity(weather(temperature_c, humid=range(hours)))[0, 0] == expected
    assert potato_severity(weather(temperature_c, wet=range(24)))[0, 0] == 0, "wet leaves alone do not count"


def season(warm_hours: list[int], hot: list[int] | None = None) -> NDArray[np.float32]:
    """The grape index after days with so many continuous hours at 25 degC, some with an hour at 36."""
    temperature = np.full((len(warm_hours), 24), 15.0)
    for day, hours in enumerate(warm_hours):
        temperature[day, :hours] = 25.0
    for day in hot or []:
        temperature[day, 23] = 36.0
    return grape_index(weather(temperature.ravel(), hours=temperature.size))[:, 0]


def test_grape_starts_after_three_favourable_days_and_a_miss_before_that_begins_anew() -> None:
    assert season([6, 6, 6]).tolist() == [20, 40, 60]
    assert season([6, 6, 5, 6]).tolist() == [20, 40, 0, 20]
    assert season([6, 6, 6, 0, 0, 0, 0, 0, 0, 0, 6]).tolist() == [20, 40, 60, 50, 40, 30, 20, 10, 0, 0, 20]


def test_grape_index_is_bounded_and_slowed_by_heat() -> None:
    assert season([6] * 7).tolist() == [20, 40, 60, 80, 100, 100, 100]
    assert season([6, 6, 6, 6, 0], hot=[3, 4]).tolist() == [20, 40, 60, 70, 60]


def test_grape_needs_six_hours_in_a_row_within_the_day() -> None:
    temperature = np.full(48, 15.0)
    temperature[[0, 1, 2, 3, 4, 6, 7, 8, 9, 10]] = 25.0  # five and five
    temperature[[19, 20, 21, 22, 23, 24, 25, 26]] = 25.0  # eight, cut by noon into five and three
    assert grape_index(weather(temperature, hours=48))[:, 0].tolist() == [0, 0]
    assert grape_index(weather(np.full(24, 21.1)))[0, 0] == 20
    assert grape_index(weather(np.full(24, 29.5)))[0, 0] == 0


def test_each_node_is_judged_by_the_rule_of_its_crop() -> None:
    one = weather(22.0, wet=range(12), humid=range(12))
    four = PlotWeather(*(np.repeat(getattr(one, name), 4, axis=1) for name in vars(one)))
    classes = classes_by_context(np.array([APPLE, TOMATO, POTATO, GRAPE], dtype=np.uint8), four)
    assert classes.tolist() == [[2, 1, 1, 0]]  # 12 h: twice the Mills need, DSV 2, Wallin 1, first warm day


def test_humidity_follows_the_vapour_pressure_of_fao_56() -> None:
    """FAO-56 table 2.3: saturation 2.338 kPa at 20 degC and 1.228 kPa at 10 degC."""
    air = np.array([20.0, 20.0], dtype=np.float32)
    dew = np.array([10.0, 25.0], dtype=np.float32)
    assert humidity_pct_of(air, dew).tolist() == pytest.approx([52.5, 100.0], abs=0.05)


def test_a_node_without_humidity_takes_the_last_nights_minimum_as_its_dew_point() -> None:
    temperature = np.full((30, 1), 2000, dtype=np.int16)
    temperature[3] = 1000
    none = np.full((30, 1), 255, dtype=np.uint8)
    believed = weather_of_readings(temperature, none, np.zeros((30, 1), dtype=np.uint16))
    assert believed.humidity_pct[3, 0] == 100.0
    assert believed.humidity_pct[26, 0] == pytest.approx(52.5, abs=0.05), "23 h ago still counts"
    assert believed.humidity_pct[27, 0] == 100.0, "24 h ago no longer does"


def test_readings_say_wet_when_humid_or_raining_and_missing_rain_is_none() -> None:
    temperature = np.full((1, 4), 1500, dtype=np.int16)
    humidity = np.array([[179, 180, 100, 100]], dtype=np.uint8)
    rain = np.array([[0, 0, 1, 65535]], dtype=np.uint16)
    assert weather_of_readings(temperature, humidity, rain).wet.tolist() == [[False, True, True, False]]
