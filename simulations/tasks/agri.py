"""Infection risk on many small plots: a synthetic task of 8 climates and 6 crops, labelled by a rule.

Theory of operation.  Each node has its own 3-hourly weather, an AR(1) walk around its climate's means
with showers.  The true class of a day comes from the generic infection model of Magarey, Sutton &
Thayer (2005): hours of wetness in the last 48 h, weighted by a temperature response with three cardinal
points, over the hours that the pathogen needs.  Six crops are six sets of numbers.  The node reads its
weather with a lasting bias, noise, and in some places without a humidity or a rain sensor, and has labels
for a few days of uneven kinds.  The public data know half of the crops and five of the climates.

The baseline "rule" is the same model on the node's own sensors, with a crop's numbers where they are
published (the public crops), else with the middle of all published ones: a general rule.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.tasks.task import PUBLIC_NODE, Samples, Task, concatenate, skewed_choice
from swarm.prng import Prng

__all__ = ["agri"]

F32 = NDArray[np.float32]

STEP_H = 3
STEPS_A_DAY = 24 // STEP_H
WINDOW_DAYS = 2
TRAINING_DAYS, VALIDATION_DAYS, TEST_DAYS = 90, 12, 24
LABELS = 24
LABEL_SKEW = 0.3
VALIDATION_LABELS, TEST_LABELS = 6, 12
PUBLIC_NODES, PUBLIC_DAYS = 120, 100
PUBLIC_CROPS = (0, 1, 2)
PUBLIC_CLIMATES = (0, 1, 2, 3, 4)
CLASSES = ("low", "medium", "high")
CROPS = ("apple", "tomato", "potato", "grape", "beet", "onion")

# Per crop: lowest, best and highest temperature (degC), hours of wetness needed at the best one, and the
# humidity (%) from which a leaf of this canopy is wet.
_PATHOGENS = np.array(
    [
        [1.0, 20.0, 35.0, 4.0, 90.0],
        [10.0, 24.0, 32.0, 2.5, 86.0],
        [4.0, 16.0, 27.0, 8.0, 82.0],
        [12.0, 26.0, 35.0, 3.5, 78.0],
        [8.0, 28.0, 38.0, 2.0, 89.0],
        [2.0, 13.0, 24.0, 7.0, 85.0],
    ]
)
# Per climate: mean temperature (degC), its daily swing, mean humidity (%), chance of rain in a step.
_CLIMATES = np.array(
    [
        [18.0, 6.0, 74.0, 0.10],
        [14.0, 4.0, 82.0, 0.16],
        [22.0, 8.0, 66.0, 0.06],
        [16.0, 7.0, 78.0, 0.12],
        [20.0, 5.0, 80.0, 0.09],
        [12.0, 5.0, 76.0, 0.14],
        [25.0, 7.0, 72.0, 0.08],
        [17.0, 9.0, 70.0, 0.05],
    ]
)


@dataclass(frozen=True)
class _Weather:
    """[nodes, steps]: degC, %, mm in the step."""

    temperature_c: F32
    humidity_pct: F32
    rain_mm: F32


def _walk(nodes: int, steps: int, memory: float, rng: np.random.Generator) -> F32:
    """Independent AR(1) walks of unit variance, [nodes, steps]."""
    draws = rng.standard_normal((steps, nodes)).astype(np.float32)
    step = np.float32(np.sqrt(1.0 - memory * memory))
    for i in range(1, steps):
        draws[i] = memory * draws[i - 1] + step * draws[i]
    return np.ascontiguousarray(draws.T)


def _weather(climate: NDArray[np.int64], days: int, rng: np.random.Generator) -> _Weather:
    """Each node's true weather; a wet spell lasts a few steps and moistens and cools the air."""
    nodes, steps = len(climate), days * STEPS_A_DAY
    mean_c, swing_c, mean_pct, rain_chance = (column[:, None] for column in _CLIMATES[climate].T)
    hour = (np.arange(steps) % STEPS_A_DAY) * STEP_H
    diurnal = np.cos(2.0 * np.pi * (hour - 15.0) / 24.0)
    slow, fast = _walk(nodes, steps, 0.97, rng), _walk(nodes, steps, 0.6, rng)
    front = _walk(nodes, steps, 0.93, rng)
    raining = rng.random((nodes, steps)) < rain_chance * np.exp(1.2 * front - 0.72)
    moist = np.maximum(raining, 0.5 * np.roll(raining, 1, axis=1))
    temperature = mean_c + swing_c * diurnal + 3.5 * slow + 0.8 * fast - 1.5 * moist
    humidity = mean_pct - 1.8 * swing_c * diurnal + 7.0 * front - 1.0 * (3.5 * slow) + 2.0 * fast
    humidity = np.clip(np.where(raining, np.maximum(humidity, 93.0), humidity + 9.0 * moist), 20.0, 100.0)
    rain = np.where(raining, rng.gamma(0.8, 3.0, (nodes, steps)), 0.0)
    return _Weather(temperature.astype(np.float32), humidity.astype(np.float32), rain.astype(np.float32))


def _response(temperature_c: F32, pathogen: NDArray[np.float64]) -> F32:
    """Magarey's f(T), 0 to 1; pathogen [nodes, 5]."""
    low, best, high = (pathogen[:, i : i + 1] for i in range(3))
    inside = np.clip(temperature_c, low, high)
    shape = (best - low) / (high - best)
    response = (high - inside) / (high - best) * ((inside - low) / (best - low)) ** shape
    return np.asarray(response, dtype=np.float32)


def _days(weather: _Weather, pathogen: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Class of each day [nodes, days]: infection progress of the last 48 h below .5, below 1, more."""
    wet = (weather.humidity_pct >= pathogen[:, 4:5]) | (weather.rain_mm > 0.1)
    hours = (wet * _response(weather.temperature_c, pathogen)).astype(np.float32) * STEP_H
    a_day = hours.reshape(len(pathogen), -1, STEPS_A_DAY).sum(axis=2)
    window = a_day.copy()
    window[:, 1:] = a_day[:, 1:] + 0.5 * a_day[:, :-1]
    progress = window / (1.5 * pathogen[:, 3:4])
    return np.asarray((progress >= 0.5).astype(np.uint8) + (progress >= 1.0), dtype=np.uint8)


def _sensed(
    weather: _Weather, rng: np.random.Generator
) -> tuple[_Weather, NDArray[np.bool_], NDArray[np.bool_]]:
    """What each node reads, and which nodes lack humidity and rain."""
    nodes, steps = weather.temperature_c.shape
    bias_c, bias_pct = rng.normal(0.0, 1.0, (nodes, 1)), rng.normal(0.0, 4.0, (nodes, 1))
    no_humidity, no_rain = rng.random((nodes, 1)) < 0.12, rng.random((nodes, 1)) < 0.2
    temperature = weather.temperature_c + bias_c + rng.normal(0.0, 0.4, (nodes, steps))
    humidity = np.clip(weather.humidity_pct + bias_pct + rng.normal(0.0, 2.5, (nodes, steps)), 0.0, 100.0)
    stuck = rng.random((nodes, steps)) < 1.0 / 200.0
    for shift in range(1, 6):
        held = np.roll(stuck, shift, axis=1)
        humidity = np.where(held, np.roll(humidity, 1, axis=1), humidity)
    rain = np.where(rng.random((nodes, steps)) < 0.85, weather.rain_mm, 0.0)
    sensed = _Weather(
        temperature.astype(np.float32),
        np.where(no_humidity, 0.0, humidity).astype(np.float32),
        np.where(no_rain, 0.0, rain).astype(np.float32),
    )
    return sensed, no_humidity[:, 0], no_rain[:, 0]


def _inputs(sensed: _Weather, no_humidity: NDArray[np.bool_], no_rain: NDArray[np.bool_]) -> F32:
    """[nodes, days - 1, 50]: the last 48 h of temperature, humidity and rain, and what is missing."""
    nodes = len(no_humidity)
    humidity = np.where(no_humidity[:, None], 0.0, (sensed.humidity_pct - 75.0) / 12.0)
    columns = [(sensed.temperature_c - 18.0) / 6.0, humidity, np.log1p(sensed.rain_mm)]
    windows = []
    for column in columns:
        a_day = column.reshape(nodes, -1, STEPS_A_DAY)
        windows.append(np.concatenate([a_day[:, :-1], a_day[:, 1:]], axis=2))
    days = windows[0].shape[1]
    missing = np.stack([no_humidity, no_rain], axis=1)[:, None].repeat(days, axis=1)
    return np.concatenate([*windows, missing], axis=2).astype(np.float32)


@dataclass(frozen=True)
class _Fleet:
    """Per node and day, the first day (which has no yesterday) left out."""

    x: F32
    label: NDArray[np.uint8]
    rule: NDArray[np.uint8]
    yesterday: NDArray[np.uint8]
    crop: NDArray[np.int64]

    def rows(self, node: int, days: NDArray[np.int64], name: int) -> Samples:
        return Samples(
            self.x[node, days],
            self.label[node, days],
            np.full(len(days), self.crop[node], np.uint8),
            np.full(len(days), name, np.int32),
            self.rule[node, days],
            self.yesterday[node, days],
        )


def _fleet(crop: NDArray[np.int64], climate: NDArray[np.int64], days: int, prng: Prng) -> _Fleet:
    truth = _weather(climate, days + 1, prng.child("weather").numpy())
    sensed, no_humidity, no_rain = _sensed(truth, prng.child("sensors").numpy())
    label = _days(truth, _PATHOGENS[crop])
    published = np.isin(crop, PUBLIC_CROPS)[:, None]
    general = _PATHOGENS[list(PUBLIC_CROPS)].mean(axis=0)
    # The rule sees what the node sees; without a humidity sensor only rain wets a leaf.
    rule = _days(sensed, np.where(published, _PATHOGENS[crop], general))
    return _Fleet(_inputs(sensed, no_humidity, no_rain), label[:, 1:], rule[:, 1:], label[:, :-1], crop)


def agri(nodes: int, seed: int) -> Task:
    """The task for `nodes` nodes; crops and climates are dealt out evenly."""
    prng = Prng(seed).child("agri")
    deal = prng.child("deal").numpy()
    public_crop = deal.choice(PUBLIC_CROPS, PUBLIC_NODES)
    public_climate = deal.choice(PUBLIC_CLIMATES, PUBLIC_NODES)
    public = _fleet(public_crop, public_climate, PUBLIC_DAYS, prng.child("public"))
    crop = deal.permutation(np.arange(nodes) % len(CROPS))
    climate = deal.permutation(np.arange(nodes) % len(_CLIMATES))
    fleet = _fleet(crop, climate, TRAINING_DAYS + VALIDATION_DAYS + TEST_DAYS, prng.child("fleet"))
    picks = prng.child("labels").numpy()
    parts: tuple[list[Samples], list[Samples], list[Samples]] = ([], [], [])
    last = np.arange(TRAINING_DAYS, TRAINING_DAYS + VALIDATION_DAYS + TEST_DAYS)
    for node in range(nodes):
        own = fleet.label[node, :TRAINING_DAYS]
        chosen = np.sort(skewed_choice(own, LABELS, LABEL_SKEW, len(CLASSES), picks))
        later = picks.choice(last[:VALIDATION_DAYS], VALIDATION_LABELS, replace=False)
        tested = picks.choice(last[VALIDATION_DAYS:], TEST_LABELS, replace=False)
        for part, days in zip(parts, (chosen, later, tested), strict=True):
            part.append(fleet.rows(node, days, node))
    return Task(
        name="agri",
        classes=CLASSES,
        contexts=CROPS,
        metric="accuracy",
        public=concatenate(
            [public.rows(node, np.arange(PUBLIC_DAYS), PUBLIC_NODE) for node in range(PUBLIC_NODES)]
        ),
        train=concatenate(parts[0]),
        validation=concatenate(parts[1]),
        test=concatenate(parts[2]),
        node_context=crop.astype(np.uint8),
    )
