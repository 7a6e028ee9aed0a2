"""The field: repeatable, true to its clock and units, and a learning problem that is neither trivial nor
noise.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from simulations.field import Field, public_fields
from simulations.field.baselines import macro_f1
from simulations.field.climate import place, plot_weather
from simulations.field.rules import TOMATO, classes_by_context, weather_of_readings
from simulations.field.sensors import CHEAP, FLAG_NO_HUMIDITY, FLAG_NO_RAIN, Defects, read
from simulations.field.weather import FARM, generate, sunshine
from swarm import node
from swarm.prng import Prng

PERFECT = Defects(
    no_humidity=0, no_rain=0, humidity_bias_pct=0, humidity_noise_pct=0, temperature_bias_c=0,
    temperature_noise_c=0, shield_warming_c=0, stuck_per_hour=0, spike_per_hour=0, lost_per_hour=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def field() -> Field:
    return Field(240, 30, seed=5)


def test_equal_arguments_give_equal_fields_and_another_seed_another_one() -> None:
    first, again, other = (Field(20, 3, seed, test_days=2) for seed in (1, 1, 2))
    assert np.array_equal(first.sensors.temperature_centi, again.sensors.temperature_centi)
    assert np.array_equal(first.sensors.humidity_half, again.sensors.humidity_half)
    assert np.array_equal(first.labels, again.labels)
    assert np.array_equal(first.x_m, again.x_m)
    assert not np.array_equal(first.sensors.temperature_centi, other.sensors.temperature_centi)


def test_days_begin_at_noon_and_twelve_oclock_closes_them(field: Field) -> None:
    clocks = [field.readings(hour)[3] for hour in range(field.hours)]
    assert clocks[0] == 13
    assert [hour for hour in range(field.hours) if clocks[hour] == 12] == list(range(23, field.hours, 24))
    assert field.hours == 24 * (3 + 30 + 15)
    assert (field.spin_up, field.training_days, field.test_days) == (range(3), range(3, 33), range(33, 48))
    assert field.start == date(2025, 6, 1)


def test_afternoons_are_warmer_than_the_hours_before_dawn(field: Field) -> None:
    by_clock = field.truth.temperature_c.reshape(-1, 24, field.nodes).mean(axis=(0, 2))
    assert 13 + int(by_clock.argmax()) in range(14, 18)
    assert (13 + int(by_clock.argmin())) % 24 in range(4, 8)


def test_readings_have_the_units_of_the_firmware(field: Field) -> None:
    temperature, humidity, rain, _ = field.readings(100)
    assert [values.dtype.name for values in (temperature, humidity, rain)] == ["int16", "uint8", "uint16"]
    assert np.abs(temperature / 100.0 - field.truth.temperature_c[100]).max() < 6.0
    everything = field.sensors.humidity_half
    assert ((everything <= 200) | (everything == 255)).all()
    no_humidity = (field.flags & FLAG_NO_HUMIDITY) != 0
    no_rain = (field.flags & FLAG_NO_RAIN) != 0
    assert 0 < no_humidity.sum() < field.nodes / 3
    assert 0 < no_rain.sum() < field.nodes / 3
    assert (everything[:, no_humidity] == 255).all()
    assert (everything[:, ~no_humidity] == 255).mean() < 0.02
    assert (field.sensors.rain_tenth[:, no_rain] == 65535).all()
    assert (field.sensors.rain_tenth[:, ~no_rain] < 2000).all()


def test_a_whole_season_shows_every_class_of_every_crop_and_high_potato_risk_is_rare() -> None:
    for seed in (1, 2):
        shares = Field(160, 120, seed, test_days=0).class_shares()
        assert (shares > 0.005).all()
        assert shares[2, 2] < 0.25
        assert (shares.max(axis=1) < 0.95).all()
        assert np.allclose(shares.sum(axis=1), 1.0)


def test_nodes_stand_in_patches_of_one_crop_within_a_few_kilometres(field: Field) -> None:
    assert np.hypot(field.x_m, field.y_m).max() < 4000.0
    assert np.bincount(field.context).min() > 0.15 * field.nodes
    for patch in np.unique(field.plots.patch):
        assert len(np.unique(field.context[field.plots.patch == patch])) == 1
    assert 5.0 < field.altitude_m.std() < 150.0


def test_labels_are_told_in_part_and_always_known_for_scoring() -> None:
    field = Field(200, 20, 3, test_days=0, told_share=0.3)
    told = np.array([field.label(day) for day in range(23)])
    assert 0.25 < (told != 255).mean() < 0.35
    assert np.array_equal(told[told != 255], field.labels[told != 255])
    assert np.array_equal(Field(5, 2, 3, test_days=0).label(1), Field(5, 2, 3, test_days=0).labels[1])


def test_rain_wets_leaves_and_they_stay_wet_for_a_while(field: Field) -> None:
    truth = field.truth
    assert truth.wet[truth.rain_mm > 0].all()
    ended = (truth.rain_mm[:-1] > 0) & (truth.rain_mm[1:] == 0)
    assert truth.wet[1:][ended].mean() > 0.6
    humid = (truth.humidity_pct >= 90.0) | (truth.rain_mm > 0)
    agreement = float((humid == truth.wet).mean())
    assert 0.85 < agreement < 0.98, (
        "the humidity proxy of real stations agrees with real leaves in 9 hours of 10"
    )


def test_hollows_are_colder_on_clear_calm_nights_and_south_slopes_warmer_by_day() -> None:
    prng = Prng(4)
    weather = generate(FARM, date(2025, 6, 1), 24 * 20, prng)
    plots = place(400, (0, 1, 2, 3), prng)
    truth, _ = plot_weather(weather, plots, prng)
    level = truth.temperature_c + 0.0065 * plots.altitude_m
    night = (sunshine(24 * 20) == 0) & (weather.cloud[:, 0] < 0.2) & (weather.wind_m_s[:, 0] < 2.0)
    deep, flat = plots.hollow > 0.7, plots.hollow < 0.2
    assert level[night][:, flat].mean() - level[night][:, deep].mean() > 0.5
    noon = sunshine(24 * 20) > 0.8
    south, north = plots.south > 0.4, plots.south < -0.4
    assert level[noon][:, south].mean() - level[noon][:, north].mean() > 0.3


def test_better_sensors_bring_the_rule_closer_to_the_truth(field: Field) -> None:
    root = Prng(5).child("field")
    truth, open_dew = plot_weather(field.weather, field.plots, root.child("climate"))
    scores = []
    for defects in (PERFECT, CHEAP, replace(CHEAP, humidity_bias_pct=12.0, temperature_bias_c=3.0)):
        readings = read(truth, open_dew, field.weather, field.plots, defects, root.child("sensors"))
        own = weather_of_readings(readings.temperature_centi, readings.humidity_half, readings.rain_tenth)
        right = classes_by_context(field.context, own) == field.labels
        scores.append(np.mean([right[:, field.context == crop].mean() for crop in range(4)]))
    assert scores[0] > scores[1] + 0.03 > scores[2] + 0.06


def test_the_rule_on_own_sensors_is_useful_and_clearly_not_the_truth() -> None:
    per_seed = []
    for seed in range(3):
        field = Field(300, 30, seed)
        own, days = field.rule_classes(), field.test_days
        per_crop = []
        for crop in range(4):
            of_crop = field.context == crop
            per_crop.append(macro_f1(own[days][:, of_crop], field.labels[days][:, of_crop]))
        per_seed.append(np.mean(per_crop))
    assert 0.5 < np.mean(per_seed) < 0.8


def test_public_fields_are_other_sites_with_two_crops_and_better_sensors() -> None:
    public = public_fields(7, nodes=40, days=20)
    assert len(public) == 6
    assert all(set(np.unique(field.context)) == {0, 1} for field in public)
    assert len({field.weather.temperature_c.tobytes() for field in public}) == 6
    own = Field(40, 20, 7, test_days=0)
    assert all(not np.array_equal(field.weather.rain_mm, own.weather.rain_mm) for field in public)
    missing = np.mean([(field.flags != 0).mean() for field in public])
    assert missing < (own.flags != 0).mean() + 0.1
    again = public_fields(7, nodes=40, days=20)
    assert np.array_equal(public[3].labels, again[3].labels)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"nodes": 0, "days": 1}, "nodes"),
        ({"nodes": 20_000, "days": 1}, "nodes"),
        ({"nodes": 1, "days": 400}, "days"),
        ({"nodes": 1, "days": -1}, "days"),
        ({"nodes": 1, "days": 1, "contexts": (4,)}, "contexts"),
        ({"nodes": 1, "days": 1, "contexts": ()}, "contexts"),
        ({"nodes": 1, "days": 1, "told_share": 1.5}, "told_share"),
    ],
)
def test_sizes_out_of_range_are_refused_by_name(arguments: dict[str, object], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        Field(**arguments, seed=1)  # type: ignore[arg-type]


def test_one_node_makes_a_field() -> None:
    field = Field(1, 1, 1, test_days=1)
    assert field.label(0).shape == (1,)


def test_a_thousand_nodes_for_48_days_take_seconds() -> None:
    begin = time.process_time()
    field = Field(1000, 30, 1)
    assert time.process_time() - begin < 8.0
    assert field.labels.shape == (48, 1000)


def test_the_firmware_computes_the_same_rule_from_the_same_readings() -> None:
    """Two implementations, integers in C and floats here, must agree on nearly every day of a season.

    Nodes whose crop the model does not know use the tomato rule as their input.
    """
    image = Path(node.__file__).parent / "model" / "base_model.swm"
    field = Field(64, 20, 9, test_days=0)
    configs = [
        node.NodeConfig(node_index=i, context=int(field.context[i]), flags=int(field.flags[i]))
        for i in range(64)
    ]
    nodes = node.Nodes(64, configs, image.read_bytes())
    known = np.array([node.Model(image.read_bytes()).knows(crop) for crop in range(4)])
    rule = np.where(known[field.context], field.context, TOMATO).astype(np.uint8)
    readings = field.sensors
    own = weather_of_readings(readings.temperature_centi, readings.humidity_half, readings.rain_tenth)
    mine = classes_by_context(rule, own)
    agreed = []
    for hour in range(field.hours):
        temperature, humidity, rain, clock = field.readings(hour)
        nodes.sense((hour + 1) * 3_600_000_000, temperature, humidity, rain, clock)
        if clock == 12:
            closed, inputs = nodes.day_features()
            assert closed.all() or hour < 48
            if hour >= 48:
                agreed.append(inputs[:, 48:51].argmax(axis=1) == mine[hour // 24])
    assert np.mean(agreed) > 0.99
