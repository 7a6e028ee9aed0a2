"""Published disease-risk rules, vectorised over nodes: from true weather they are the label functions.

Theory of operation. A day runs from noon to noon. Every rule reads hourly arrays [hours, nodes] whose hour
0 begins at noon, and returns one class per day and node: 0 low, 1 medium, 2 high.

* apple (context 0): scab by the revised Mills table (MacHardy & Gadoury 1989, as amended by Gadoury and
  Stensvand 1998). Wet hours add up to one spell until a dry gap of 8 h. Progress = wet hours of the spell /
  hours the table asks for at the spell's mean wet temperature; the day keeps the largest progress of its
  wet hours. < 0.5 low, < 1 medium, else high.
* tomato (1): TOM-CAST severity of the day (Madden, Pennypacker & MacNab 1978; Pitblado 1988). 0 low, 1-2
  medium, 3-4 high.
* potato (2): Wallin late-blight severity of the day from hours of RH >= 90 %. 0 low, 1-2 medium, 3-4 high.
* grape (3): powdery-mildew index (Gubler, Rademacher, Vasquez & Thomas 1999), with memory: starts after
  three consecutive days of six continuous hours at 21.1-29.4 degC, then moves by -10, +10 or +20 a day. <
  30 low, < 60 medium, else high.

Fed with a node's own readings (`weather_of_readings`) the same functions are the baseline "rule on own
sensors". These are models of infection *risk*; nothing here was compared with disease seen in a field.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "APPLE",
    "CLASSES",
    "CONTEXTS",
    "GRAPE",
    "POTATO",
    "TOMATO",
    "PlotWeather",
    "apple_progress",
    "classes_by_context",
    "grape_index",
    "humidity_pct_of",
    "potato_severity",
    "tomato_severity",
    "weather_of_readings",
]

APPLE, TOMATO, POTATO, GRAPE = range(4)
CONTEXTS = ("apple", "tomato", "potato", "grape")
CLASSES = 3

HUMID_PCT = 90.0  # an hour at or above counts as wet where nothing measures wetness
SPELL_GAP_H = 8

F32 = NDArray[np.float32]
Bool = NDArray[np.bool_]
Index = NDArray[np.float32]
Classes = NDArray[np.uint8]

# Mills table: degF and the hours of wetness needed for ascospore infection; 61-75 degF all need 6 h.
_MILLS_F = np.array(
    [34, 36, 37, 39, 41, 43, 45, 46, 48, 50, 52, 54, 55, 57, 59, 61, 75, 77, 79], dtype=np.float64
)
_MILLS_H = np.array([41, 35, 30, 28, 21, 18, 15, 13, 12, 11, 9, 8, 8, 7, 7, 6, 6, 8, 11], dtype=np.float64)
_MILLS_C = (_MILLS_F - 32.0) / 1.8

# TOM-CAST: per temperature bin [from, to) the first wet hour count of severity 1, 2, 3, 4 (99: never).
_TOMCAST = (
    (13.0, 18.0, (7, 16, 21, 99)),
    (18.0, 21.0, (4, 9, 16, 23)),
    (21.0, 26.0, (3, 6, 13, 21)),
    (26.0, 30.0, (4, 9, 16, 23)),
)
# Wallin: the same for hours of RH >= 90 %; the published bins end at 11.6, 15.0 and 26.6 degC.
_WALLIN = ((7.2, 11.65, (16, 19, 22, 99)), (11.65, 15.05, (13, 16, 19, 22)), (15.05, 26.65, (10, 13, 16, 19)))

_GRAPE_FROM_C, _GRAPE_TO_C, _GRAPE_HOT_C = 21.1, 29.4, 35.0
_GRAPE_RUN_H = 6


@dataclass(frozen=True)
class PlotWeather:
    """Hourly weather of plots, arrays [hours, nodes] from a noon on: degC, % (0-100), mm, leaf wet or not."""

    temperature_c: F32
    humidity_pct: F32
    rain_mm: F32
    wet: Bool


def humidity_pct_of(temperature_c: F32, dew_point_c: F32) -> F32:
    """Relative humidity in % (capped at 100) of air at a temperature and dew point in degC (FAO-56 eq.
    11).
    """
    ratio = np.exp(
        17.27 * dew_point_c / (dew_point_c + 237.3) - 17.27 * temperature_c / (temperature_c + 237.3)
    )
    return np.asarray(np.minimum(100.0 * ratio, 100.0), dtype=np.float32)


def weather_of_readings(
    temperature_centi: NDArray[np.int16], humidity_half: NDArray[np.uint8], rain_tenth: NDArray[np.uint16]
) -> PlotWeather:
    """What a node believes from its readings [hours, nodes] (0.01 degC; 0.5 %, 255 missing; 0.1 mm, 65535
    missing).

    Missing humidity is estimated with the lowest temperature of the last 24 h as the dew point; missing
    rain is none. An hour is wet when RH >= 90 % or rain fell.
    """
    temperature = (temperature_centi / np.float32(100.0)).astype(np.float32)
    lowest = temperature.copy()
    for back in range(1, 24):
        np.minimum(lowest[back:], temperature[:-back], out=lowest[back:])
    estimated = humidity_pct_of(temperature, lowest)
    humidity = np.where(humidity_half == 255, estimated, humidity_half / np.float32(2.0)).astype(np.float32)
    rain = np.where(rain_tenth == 65535, 0, rain_tenth / np.float32(10.0)).astype(np.float32)
    return PlotWeather(temperature, humidity, rain, (humidity >= HUMID_PCT) | (rain > 0))


def apple_progress(weather: PlotWeather) -> Index:
    """Largest infection progress of each day [days, nodes]: wet hours of the spell / hours needed (1 =
    infection).
    """
    hours, nodes = weather.wet.shape
    wet_h = np.zeros(nodes)
    wet_sum = np.zeros(nodes)
    dry_h = np.zeros(nodes)
    progress = np.zeros((hours // 24, nodes), dtype=np.float32)
    for hour in range(hours // 24 * 24):
        wet = weather.wet[hour]
        dry_h = np.where(wet, 0.0, dry_h + 1.0)
        over = dry_h >= SPELL_GAP_H
        wet_h = np.where(over, 0.0, wet_h + wet)
        wet_sum = np.where(over, 0.0, wet_sum + np.where(wet, weather.temperature_c[hour], 0.0))
        mean = wet_sum / np.maximum(wet_h, 1.0)
        reached = np.where(
            wet, wet_h / np.interp(mean, _MILLS_C, _MILLS_H), 0.0
        )  # the end rows hold beyond the table
        day = progress[hour // 24]
        np.maximum(day, reached.astype(np.float32), out=day)
    return progress


def _severity(
    temperature_c: F32, counted: Bool, bins: tuple[tuple[float, float, tuple[int, ...]], ...]
) -> Index:
    """Severity 0-4 of each day [days, nodes] from the counted hours and their mean temperature."""
    days = counted.shape[0] // 24
    counted = counted[: days * 24].reshape(days, 24, -1)
    temperature = temperature_c[: days * 24].reshape(days, 24, -1)
    hours = counted.sum(axis=1)
    mean = np.where(counted, temperature, np.float32(0)).sum(axis=1) / np.maximum(hours, 1)
    severity = np.zeros(hours.shape, dtype=np.float32)
    for from_c, to_c, steps in bins:
        inside = (mean >= from_c) & (mean < to_c)
        severity = np.where(inside, np.searchsorted(np.array(steps), hours, side="right"), severity)
    return np.where(hours > 0, severity, 0).astype(np.float32)


def tomato_severity(weather: PlotWeather) -> Index:
    """TOM-CAST disease severity value 0-4 of each day [days, nodes], from wet hours."""
    return _severity(weather.temperature_c, weather.wet, _TOMCAST)


def potato_severity(weather: PlotWeather) -> Index:
    """Wallin severity value 0-4 of each day [days, nodes], from hours of RH >= 90 %."""
    return _severity(weather.temperature_c, np.asarray(weather.humidity_pct >= HUMID_PCT), _WALLIN)


def grape_index(weather: PlotWeather) -> Index:
    """Gubler-Thomas index 0-100 after each day [days, nodes]; the run of warm hours is counted within the
    day.
    """
    days = weather.temperature_c.shape[0] // 24
    nodes = weather.temperature_c.shape[1]
    temperature = weather.temperature_c[: days * 24].reshape(days, 24, nodes)
    run = np.zeros((days, nodes))
    longest: NDArray[np.float64] = np.zeros((days, nodes))
    for hour in range(24):
        warm = (temperature[:, hour] >= _GRAPE_FROM_C) & (temperature[:, hour] <= _GRAPE_TO_C)
        run = np.where(warm, run + 1, 0)
        np.maximum(longest, run, out=longest)
    favourable = longest >= _GRAPE_RUN_H
    hot = np.asarray((temperature >= _GRAPE_HOT_C).any(axis=1))
    index = np.zeros((days, nodes), dtype=np.float32)
    value = np.zeros(nodes)
    started = np.zeros(nodes, dtype=bool)
    for day in range(days):
        step = np.where(favourable[day], np.where(hot[day], 10.0, 20.0), -10.0)
        running = np.clip(value + step, 0.0, 100.0)
        starting = np.where(favourable[day], value + 20.0, 0.0)  # a miss before 60 begins anew
        value = np.where(started, running, starting)
        started |= value >= 60.0
        index[day] = value
    return index


def classes_by_context(context: NDArray[np.uint8], weather: PlotWeather) -> Classes:
    """The class (0, 1, 2) of every day and node [days, nodes] by the rule of the node's crop; context
    [nodes] in 0..3.
    """
    days = weather.temperature_c.shape[0] // 24
    classes = np.zeros((days, len(context)), dtype=np.uint8)
    rules = (
        (apple_progress, 0.5, 1.0),
        (tomato_severity, 1.0, 3.0),
        (potato_severity, 1.0, 3.0),
        (grape_index, 30.0, 60.0),
    )
    for crop, (rule, medium, high) in enumerate(rules):
        of_crop = np.flatnonzero(context == crop)
        if of_crop.size == 0:
            continue
        plots = PlotWeather(
            weather.temperature_c[:, of_crop],
            weather.humidity_pct[:, of_crop],
            weather.rain_mm[:, of_crop],
            np.asarray(weather.wet)[:, of_crop],
        )
        index = rule(plots)
        classes[:, of_crop] = (index >= medium).astype(np.uint8) + (index >= high)
    return classes
