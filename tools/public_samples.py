"""Public training samples for the base model: C features of apple and tomato fields, and synthetic crops.

The labels of potato and grape are never used. So that the trunk still serves crops that it has not met, the
same weather is judged by a family of synthetic crops (infection curves of Magarey, Sutton & Thayer 2005 over
wet or humid hours, and warm-hour indices with memory) with random parameters: each gives a rule on the node's
own readings (an input) and a label from the true weather. Some general quantities of the true weather are
targets as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.field.field import Field, public_fields
from simulations.field.rules import PlotWeather, weather_of_readings
from swarm.model import container, layout
from swarm.node import HUMIDITY_MISSING, NO_HUMIDITY_SENSOR, NO_RAIN_SENSOR, RAIN_MISSING, NodeConfig, Nodes
from swarm.prng import Prng

__all__ = ["SYNTHETIC_CROPS", "Samples", "load", "synthetic_inputs"]

SYNTHETIC_CROPS = 96
HOUR_US = 3_600_000_000
EXTRA_NO_HUMIDITY = 0.12
EXTRA_NO_RAIN = 0.12

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Samples:
    """Node-days: x int8 [n, 56]; context, label u8 [n]; aux float32 [n, a], quantities of the true weather.

    The synthetic crops' view of the same day: their rule inputs int8 [n, crops, 5] (columns 48..52 of x) and
    their labels u8 [n, crops].
    """

    x: NDArray[np.int8]
    context: NDArray[np.uint8]
    label: NDArray[np.uint8]
    aux: Float
    rule_inputs: NDArray[np.int8]
    synthetic_label: NDArray[np.uint8]


@dataclass(frozen=True)
class SyntheticCrop:
    """A made-up disease; kind 0 counts wet hours of the day, 1 humid hours, 2 a wet spell, 3 warm hours."""

    kind: int
    min_c: float
    best_c: float
    max_c: float
    hours_needed: float
    humid_pct: float
    medium: float

    def rate(self, temperature_c: Float) -> Float:
        """Magarey's f(T), 0..1."""
        a = (self.max_c - temperature_c) / (self.max_c - self.best_c)
        b = (temperature_c - self.min_c) / (self.best_c - self.min_c)
        power = (self.best_c - self.min_c) / (self.max_c - self.best_c)
        return np.where((a > 0) & (b > 0), np.maximum(a, 0) * np.maximum(b, 1e-6) ** power, 0).astype(
            np.float32
        )


def _crops(prng: Prng) -> list[SyntheticCrop]:
    """The family; the same for every field of a seed."""
    rng = prng.child("crops").numpy()
    crops = []
    for number in range(SYNTHETIC_CROPS):
        kind = number % 4
        low, best = rng.uniform(0, 12), rng.uniform(14, 27)
        highest = rng.uniform(best + 4, 38)
        needed = rng.uniform(9, 18) if kind == 3 else rng.uniform(3, 14)
        crops.append(
            SyntheticCrop(kind, low, best, highest, needed, rng.uniform(84, 95), rng.uniform(0.3, 0.6))
        )
    return crops


def _by_day(values: NDArray[np.float32]) -> Float:
    """[hours, nodes] as [days, 24, nodes]."""
    days = len(values) // 24
    return values[: days * 24].reshape(days, 24, -1)


def _progress(crop: SyntheticCrop, weather: PlotWeather) -> Float:
    """The day's index [days, nodes]: 1 is an infection."""
    rate = crop.rate(weather.temperature_c)
    if crop.kind == 0:
        return _by_day(rate * weather.wet).sum(axis=1) / crop.hours_needed
    if crop.kind == 1:
        return _by_day(rate * (weather.humidity_pct >= crop.humid_pct)).sum(axis=1) / crop.hours_needed
    if crop.kind == 2:
        return _by_day(_spells(rate, weather.wet)).max(axis=1) / crop.hours_needed
    favourable = _by_day((rate > 0.75).astype(np.float32)).sum(axis=1) >= crop.hours_needed
    index, value = np.zeros(favourable.shape, np.float32), np.zeros(favourable.shape[1], np.float32)
    for day, good in enumerate(favourable):
        value = np.clip(value + np.where(good, 0.25, -0.2), 0.0, 1.9).astype(np.float32)
        index[day] = value
    return index


def _spells(rate: Float, wet: NDArray[np.bool_]) -> Float:
    """Running sum of the rate over a wet spell that a dry gap of 8 h ends, [hours, nodes]."""
    out, running, dry = np.zeros_like(rate), np.zeros(rate.shape[1], np.float32), np.zeros(rate.shape[1])
    for hour in range(len(rate)):
        dry = np.where(wet[hour], 0, dry + 1)
        running = np.where(dry >= 8, 0, running + rate[hour] * wet[hour]).astype(np.float32)
        out[hour] = running
    return out


def _classes(crop: SyntheticCrop, progress: Float) -> NDArray[np.uint8]:
    return ((progress >= crop.medium).astype(np.uint8) + (progress >= 1.0)).astype(np.uint8)


def _longest_run(flags: NDArray[np.bool_]) -> Float:
    """Longest run of hours within each day, [days, nodes]."""
    by_day = _by_day(flags.astype(np.float32))
    run, longest = np.zeros(by_day[:, 0].shape, np.float32), np.zeros(by_day[:, 0].shape, np.float32)
    for hour in range(24):
        run = (run + 1) * by_day[:, hour]
        longest = np.maximum(longest, run)
    return longest


def _auxiliary(weather: PlotWeather) -> Float:
    """General quantities of the day's true weather, [days, nodes, a]."""
    t, wet, humid = weather.temperature_c, weather.wet.astype(np.float32), weather.humidity_pct
    wet_hours = _by_day(wet).sum(axis=1)
    columns = [
        wet_hours,
        _by_day(t).mean(axis=1),
        _by_day(t).min(axis=1),
        _by_day(t).max(axis=1),
        _by_day(t * wet).sum(axis=1) / 12 / np.maximum(wet_hours, 1),
        _by_day(humid).mean(axis=1),
        _longest_run(weather.wet),
        np.log1p(_by_day(weather.rain_mm).sum(axis=1)),
    ]
    columns += [_by_day((humid >= limit).astype(np.float32)).sum(axis=1) for limit in (80, 85, 90, 95)]
    columns += [
        _by_day(((t >= low) & (t < low + 5)).astype(np.float32)).sum(axis=1) for low in (5, 10, 15, 20, 25)
    ]
    columns += [_longest_run((t >= low) & (t < low + 9)) for low in (12, 17, 21)]
    columns += [_by_day(wet * ((t >= low) & (t < low + 6))).sum(axis=1) for low in (6, 12, 18, 24)]
    return np.stack(columns, axis=-1).astype(np.float32)


def _features(
    field: Field, humidity: NDArray[np.uint8], rain: NDArray[np.uint16]
) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
    """The C nodes' inputs at each noon, int8 [days, nodes, 56], and where a sample was made [days, nodes]."""
    flags = np.where((humidity == HUMIDITY_MISSING).all(axis=0), NO_HUMIDITY_SENSOR, 0)
    flags = flags | np.where((rain == RAIN_MISSING).all(axis=0), NO_RAIN_SENSOR, 0)
    configs = [
        NodeConfig(node_index=i, context=int(field.context[i]), flags=int(flags[i]))
        for i in range(field.nodes)
    ]
    nodes = Nodes(field.nodes, configs, container.random_model(1))
    rows, masks = [], []
    for hour in range(field.hours):
        temperature, _, _, clock = field.readings(hour)
        nodes.sense(hour * HOUR_US, temperature, humidity[hour], rain[hour], clock)
        if clock == 12:
            mask, x = nodes.day_features()
            rows.append(x)
            masks.append(mask)
    return np.stack(rows), np.stack(masks)


def _field_samples(field: Field, crops: list[SyntheticCrop], prng: Prng, *, more_defects: bool) -> Samples:
    humidity, rain = field.sensors.humidity_half.copy(), field.sensors.rain_tenth.copy()
    if more_defects:
        rng = prng.numpy()
        humidity[:, rng.random(field.nodes) < EXTRA_NO_HUMIDITY] = HUMIDITY_MISSING
        rain[:, rng.random(field.nodes) < EXTRA_NO_RAIN] = RAIN_MISSING
    x, mask = _features(field, humidity, rain)
    mask = mask.copy()
    mask[: field.spin_up.stop] = False
    own = weather_of_readings(field.sensors.temperature_centi, humidity, rain)
    inputs, labels = [], []
    for crop in crops:
        believed, true = _progress(crop, own), _progress(crop, field.truth)
        risk = _classes(crop, believed)
        before = np.concatenate([np.zeros_like(risk[:1]), risk[:-1]])
        columns = [64 * (risk == c) for c in range(3)] + [
            np.minimum(np.rint(believed * 64), 127),
            40 * before,
        ]
        inputs.append(np.stack(columns, axis=-1).astype(np.int8))
        labels.append(_classes(crop, true))
    context = np.broadcast_to(field.context, mask.shape)
    return Samples(
        x[mask], context[mask], field.labels[: len(mask)][mask], _auxiliary(field.truth)[mask],
        np.stack(inputs, axis=2)[mask], np.stack(labels, axis=2)[mask],
    )  # fmt: skip


def load(seed: int, *, nodes: int, days: int, family_seed: int = 1, more_defects: bool = True) -> Samples:
    """All samples of the public fields of a seed; `family_seed` fixes the synthetic crops."""
    crops = _crops(Prng(family_seed).child("synthetic"))
    parts = []
    for number, field in enumerate(public_fields(seed, nodes=nodes, days=days)):
        prng = Prng(seed).child(f"defects {number}")
        parts.append(_field_samples(field, crops, prng, more_defects=more_defects and number % 2 == 1))
    assert set(np.unique(np.concatenate([p.context for p in parts])).tolist()) <= set(layout.CONTEXTS_PUBLIC)
    return Samples(
        *(np.concatenate([getattr(p, name) for p in parts]) for name in Samples.__dataclass_fields__)
    )


def synthetic_inputs(samples: Samples, rows: NDArray[np.intp], crops: NDArray[np.intp]) -> NDArray[np.int8]:
    """x of the given rows as nodes that grow the given synthetic crops would have it."""
    x = samples.x[rows].copy()
    x[:, 48:53] = samples.rule_inputs[rows, crops]
    return x
