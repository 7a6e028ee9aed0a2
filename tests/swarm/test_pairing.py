"""Pairing: who follows whom, who is a copy, what is wrong with a sensor, and the day that is lent."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from swarm.inference.loan import composed, text_of
from swarm.inference.pairing import Witness, defect_of, hours_of, match, rainy_hours, together
from swarm.prng import Prng
from swarm.wire import app
from swarm.wire.readings import ALL_HOURS, Readings, series

DAYS = 7
Values = NDArray[np.float64]


def air(seed: int, days: int = DAYS) -> Values:
    """Hourly humidity in % with a mean day and weather of its own, [24 * days]."""
    rng = Prng(seed).child("air").numpy()
    clock = np.arange(24 * days)
    weather = np.cumsum(rng.normal(0, 3.0, len(clock)))
    weather -= np.linspace(0, weather[-1], len(clock))
    return np.asarray(np.clip(65 + 18 * np.cos(clock / 12 * np.pi) + weather, 5, 100))


def noisy(humidity: Values, seed: int, bias: float = 0.0, noise: float = 2.0) -> Values:
    rng = Prng(seed).child("sensor").numpy()
    return np.asarray(np.clip(humidity + bias + rng.normal(0, noise, len(humidity)), 0, 100))


def hours(humidity: Values, temperature: Values | None = None) -> Values:
    return np.stack([humidity, np.full(len(humidity), np.nan) if temperature is None else temperature])


def test_a_neighbour_is_found_by_its_weather_not_by_the_sun() -> None:
    """Goal: a mean day that all share does not count.  Method: same weather beside another one."""
    near, far = match(hours(air(1)), hours(noisy(air(1), 9))), match(hours(air(1)), hours(air(2)))
    assert near is not None and far is not None
    assert near.correlation > 0.8
    assert far.correlation < 0.6
    assert (near.by, near.hours, near.copy) == ("humidity", 24 * DAYS, False)
    raw = np.corrcoef(air(1), air(2))[0, 1]
    assert raw > far.correlation + 0.2, "the sun alone would have paired them"


def test_the_most_alike_neighbour_is_not_the_one_with_the_fewest_storms() -> None:
    """Goal: a site's own days count, a constant and a few wild hours do not.

    Method: one neighbour off by 3 degC and hit by a storm, one whose nights are cooler.
    """
    nothing = np.full(24 * DAYS, np.nan)
    own = 20 + air(3) / 10
    storm = np.where(np.arange(24 * DAYS) // 4 == 9, -8.0, 0.0)
    hollow = np.where(np.arange(24 * DAYS) % 24 // 6 == 2, -2.5, 0.0)
    like = match(hours(nothing, own), hours(air(5), noisy(own, 4, 3.0, 0.3) + storm))
    cold = match(hours(nothing, own), hours(air(5), noisy(own, 6, 0.0, 0.3) + hollow))
    same = match(hours(nothing, own), hours(air(5), own + 2.0))
    assert like is not None and cold is not None and same is not None
    assert cold.correlation > like.correlation, "which would have chosen the hollow"
    assert like.apart < 0.8 * cold.apart
    assert same.apart < 1e-9


def test_without_humidity_temperature_tells() -> None:
    nothing = np.full(24 * DAYS, np.nan)
    found = match(hours(nothing, air(3)), hours(air(5), noisy(air(3), 4, noise=1.0)))
    assert found is not None and found.by == "temperature" and found.correlation > 0.8
    assert match(hours(nothing, nothing), hours(air(5), air(3))) is None


def test_the_same_sensor_under_another_name_is_a_copy() -> None:
    """Goal: no witness agrees with itself.  Method: identical hours, saturated ones left aside."""
    one = np.rint(noisy(air(1), 2))
    found = match(hours(one), hours(one))
    assert found is not None and found.copy
    fog = np.where(np.arange(24 * DAYS) % 24 < 14, 100.0, np.rint(noisy(air(1), 2)))
    other = np.where(np.arange(24 * DAYS) % 24 < 14, 100.0, np.rint(noisy(air(1), 3)))
    same_fog = match(hours(fog), hours(other))
    assert same_fog is not None and not same_fog.copy


@pytest.mark.parametrize("bias", [-9.0, 7.0])
def test_a_biased_sensor_is_corrected_towards_its_neighbours(bias: float) -> None:
    own = noisy(air(1), 2, bias)
    witnesses = [Witness(hours(own), hours(noisy(air(1), 10 + k)), 0.97) for k in range(4)]
    defect = defect_of(hours(own), witnesses)
    assert defect is not None and defect.kind == "biased"
    assert 0.6 * abs(bias) < abs(defect.bias_pct) <= abs(bias) + 1
    assert defect.offset_half * bias < 0
    assert defect.offset_half == round(-2 * defect.bias_pct)


def test_far_sites_may_differ_and_one_neighbour_proves_nothing() -> None:
    """Goal: no false alarm.  Method: the same 6 % seen by near witnesses, by far ones, by a single one."""
    own = noisy(air(1), 2, 6.0)
    others = [hours(noisy(air(1), 10 + k)) for k in range(4)]
    assert defect_of(hours(own), [Witness(hours(own), other, 0.98) for other in others]) is not None
    assert defect_of(hours(own), [Witness(hours(own), other, 0.80) for other in others]) is None
    assert defect_of(hours(own), [Witness(hours(own), others[0], 0.98)]) is None
    fine = noisy(air(1), 2, 1.5)
    assert defect_of(hours(fine), [Witness(hours(fine), other, 0.98) for other in others]) is None


def test_flat_and_missing_sensors_are_told_without_witnesses() -> None:
    flat = defect_of(hours(np.full(24 * DAYS, 43.0)), [])
    assert flat is not None and flat.kind == "flat" and flat.offset_half == 0
    fog = np.full(24 * DAYS, 99.0)
    assert defect_of(hours(fog), []) is None, "saturated air may rest"
    holes = np.where(np.arange(24 * DAYS) % 3 == 0, air(1), np.nan)
    missing = defect_of(hours(holes), [])
    assert missing is not None and missing.kind == "missing"


def day(humidity: list[int], temperature: list[int] | None = None, rainy: int | None = None) -> Readings:
    """A whole day in the quantities' own units."""
    warm = None if temperature is None else series(temperature, 0)
    rain = None if rainy is None else 7 if rainy else 0
    return Readings(3, ALL_HOURS, rainy, rain, series(humidity, 0), warm)


def test_days_are_laid_side_by_side_by_their_number() -> None:
    a = {3: day([40] * 24), 4: day([50] * 24), 9: day([60] * 24)}
    b = {4: day([52] * 24), 3: day([42] * 24), 5: day([99] * 24)}
    own, other = together(a, b)
    assert own[0].tolist() == [40.0] * 24 + [50.0] * 24
    assert other[0].tolist() == [42.0] * 24 + [52.0] * 24
    assert np.isnan(own[1]).all()
    assert hours_of(day([40] * 24, [90] * 24))[1].tolist() == [15.0] * 24


def test_the_lent_day_is_the_lenders_mean_and_fills_what_one_lacks() -> None:
    """Goal: two lenders are one better lender, the first counts double.  Method: whole days, holes, none."""
    first, second = day([80] * 24, [100] * 24), day([89] * 24, [106] * 24)
    both = composed([first, second], [])
    assert both is not None
    made = hours_of(Readings(0, *both))
    assert np.abs(made[0] - 83).max() <= 1 and np.abs(made[1] - 21).max() <= 0.5
    assert abs(made[0].mean() - 83) < 0.01, "rounding leaves no bias"
    holes = Readings(3, 0x0000FF, None, None, series([80] * 8, 0), series([100] * 8, 0))
    filled = composed([holes, second], [])
    assert filled is not None and filled[0] == ALL_HOURS
    made = hours_of(Readings(0, *filled))[0]
    assert abs(made[:8].mean() - 83) <= 1
    assert abs(made[8:].mean() - 89) < 0.01 and np.abs(made[8:] - 89).max() <= 1
    assert composed([], []) is None
    assert len(app.encode(Readings(0, *both))) < 20, "a steady day is short"


def test_rain_is_the_first_lenders_and_knows_only_hours_that_are_there() -> None:
    wet = day([95] * 24, rainy=0b111)
    lent = composed([], [wet, day([95] * 24, rainy=0)])
    assert lent is not None and lent[:3] == (ALL_HOURS, 0b111, 7) and lent[3] is None
    holes = Readings(3, 0xFFFFF0, None, None, series([80] * 20, 0), None)
    mixed = composed([holes], [wet])
    assert mixed is not None and mixed[:3] == (0xFFFFF0, 0, 0)


def test_a_wild_day_still_fits_one_frame() -> None:
    wild = day([0, 100] * 12, [0, 180] * 12, rainy=0xAAAAAA)
    lent = composed([wild], [wild])
    assert lent is not None
    assert len(app.encode(Readings(0, *lent))) <= 51


def test_rainy_hours_and_those_that_are_humid_anyway() -> None:
    humid = day([95] * 12 + [60] * 12, rainy=0b1 | 1 << 11 | 1 << 12)
    assert rainy_hours(humid) == (3, 2)
    assert rainy_hours(Readings(0, ALL_HOURS, 1, 5, None, None)) == (0, 0)


def test_a_loan_in_words() -> None:
    text = text_of("apple-017", "humidity", "apple-021", 0.934, 31)
    assert text == "apple-017 borrows humidity from apple-021: correlation .93, 31 B a day"
