"""Where the nodes stand, and the true weather at each plot: terrain, showers, canopy and leaf wetness.

Theory of operation. Nodes stand in patches (one crop each) within 3 km of a gateway at (0, 0). A smooth
terrain of a few waves gives altitude, slope and hollows. Air at a plot is the regional air, cooler with
altitude (6.5 K/km), colder in hollows on clear calm nights (a pool that fills from dusk to dawn), warmer by
day on south slopes. Vapour is kept: the dew point is the region's plus what a transpiring canopy adds in
calm air, and wet leaves in a closed canopy keep the air between them moist. A patch gets its own share of
each day's rain, and small showers miss some patches. A leaf holds a store of wetness counted in drying
hours: rain and dew (dew-point depression <= 2 K) fill it, air drier than 3.8 K of depression (Huber &
Gillespie 1992) empties it, faster with wind and sun; dense canopies hold more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.field.rules import PlotWeather, humidity_pct_of
from simulations.field.weather import Weather, sunshine
from swarm.prng import Prng

__all__ = ["Plots", "place", "plot_weather"]

F32 = NDArray[np.float32]

FIELD_RADIUS_M = 3000.0
NODES_PER_PATCH = 16
LAPSE_C_PER_M = 0.0065

# Per crop (apple, tomato, potato, grape): drying hours a wetted canopy holds, and the vapour it adds to
# calm night air (K of dew point).
_HOLD_H = np.array([1.0, 1.4, 1.8, 0.8])
_CANOPY_DEW_C = np.array([0.3, 0.7, 1.2, 0.1])
# How much of the dew-point depression wet leaves take away inside the canopy.
_CANOPY_CLOSURE = np.array([0.15, 0.25, 0.55, 0.10])
# Share of patches with overhead sprinklers.
_SPRINKLED = np.array([0.2, 0.6, 0.7, 0.0])
# Wind seen by the leaf, as a share of the open wind.
_CANOPY_WIND = np.array([0.7, 0.6, 0.45, 0.8])


@dataclass(frozen=True)
class Plots:
    """The plots of all nodes: arrays [nodes]; metres east/north of and above the gateway; lasting traits of
    each place.
    """

    context: NDArray[np.uint8]
    patch: NDArray[np.int32]
    x_m: F32
    y_m: F32
    altitude_m: F32
    hollow: F32  # 0 open to 1 deep: how cold the night pool gets
    south: F32  # -1 north slope to 1 south slope
    hold_h: F32  # drying hours a wetted canopy holds
    canopy_dew_c: F32  # dew point added by the canopy on calm nights
    closure: F32  # share of the depression that wet leaves take away
    canopy_wind: F32  # share of the open wind that reaches the leaf


def _terrain(x_m: F32, y_m: F32, waves: NDArray[np.float64]) -> tuple[F32, F32, F32]:
    """Altitude in m, curvature (positive in hollows, about -1..1) and southward slope (about -1..1) at
    points [nodes].
    """
    altitude = np.zeros(x_m.shape)
    curvature = np.zeros(x_m.shape)
    southward = np.zeros(x_m.shape)
    for height_m, length_m, direction, phase in waves:
        k = 2.0 * np.pi / length_m
        argument = k * (x_m * np.cos(direction) + y_m * np.sin(direction)) + phase
        altitude += height_m * np.sin(argument)
        curvature -= height_m * k * k * np.sin(argument) * 2.0e4
        southward -= (
            height_m * k * np.sin(direction) * np.cos(argument) * 12.0
        )  # falling towards the south is positive
    return altitude.astype(np.float32), (-curvature).astype(np.float32), -southward.astype(np.float32)


def place(nodes: int, contexts: tuple[int, ...], prng: Prng) -> Plots:
    """Scatter `nodes` plots in patches around the gateway; the given crops take turns over the patches."""
    rng = prng.child("place").numpy()
    patches = max(len(contexts), round(nodes / NODES_PER_PATCH))
    patch = np.sort(np.arange(nodes) % patches).astype(np.int32)
    crop = np.array(contexts, dtype=np.uint8)[rng.permutation(patches) % len(contexts)]
    radius = np.sqrt(rng.uniform(0.003, 1.0, patches)) * FIELD_RADIUS_M
    angle = rng.uniform(0.0, 2.0 * np.pi, patches)
    spread = rng.uniform(40.0, 130.0, patches)
    x_m = (radius * np.cos(angle))[patch] + spread[patch] * rng.standard_normal(nodes)
    y_m = (radius * np.sin(angle))[patch] + spread[patch] * rng.standard_normal(nodes)
    waves = np.column_stack(
        [
            rng.uniform(20.0, 60.0, 3),
            rng.uniform(1500.0, 5000.0, 3),
            rng.uniform(0.0, 2.0 * np.pi, 3),
            rng.uniform(0.0, 2.0 * np.pi, 3),
        ]
    )
    x, y = x_m.astype(np.float32), y_m.astype(np.float32)
    altitude, hollow, south = _terrain(x, y, waves)
    above = altitude - _terrain(np.zeros(1, np.float32), np.zeros(1, np.float32), waves)[0]
    context = crop[patch]
    # A canopy differs from patch to patch (variety, training, age) and a little within one.
    vigour = np.exp(0.2 * rng.standard_normal(patches))[patch] * np.exp(0.1 * rng.standard_normal(nodes))
    return Plots(
        context=context,
        patch=patch,
        x_m=x,
        y_m=y,
        altitude_m=above,
        hollow=np.clip(0.35 + 0.5 * hollow + 0.1 * rng.standard_normal(nodes), 0.0, 1.0).astype(np.float32),
        south=np.clip(south, -1.0, 1.0),
        hold_h=(_HOLD_H[context] * vigour).astype(np.float32),
        canopy_dew_c=(_CANOPY_DEW_C[context] * vigour).astype(np.float32),
        closure=np.minimum(_CANOPY_CLOSURE[context] * vigour, 0.8).astype(np.float32),
        canopy_wind=(_CANOPY_WIND[context] / np.sqrt(vigour)).astype(np.float32),
    )


def _night_pool(weather: Weather) -> F32:
    """Depth 0 to 1 of the cold pool that clear calm nights build up, [hours, stations]; gone soon after
    sunrise.
    """
    sun = sunshine(len(weather.temperature_c))
    calm = (1.0 - weather.cloud) * np.exp(-weather.wind_m_s / 2.0)
    pool = np.zeros_like(weather.temperature_c)
    depth = np.zeros(pool.shape[1], dtype=np.float32)
    for hour in range(len(pool)):
        depth = depth * 0.55 if sun[hour] > 0 else depth + np.float32(0.25) * (calm[hour] * 1.6 - depth)
        pool[hour] = depth
    return pool


def _showers(plots: Plots, hours: int, prng: Prng) -> F32:
    """The share of the regional rain that each node gets, [hours, nodes]: one draw per day and patch, some
    showers miss.
    """
    rng = prng.child("showers").numpy()
    days = hours // 24 + 1
    patches = int(plots.patch.max()) + 1
    share = np.exp(0.7 * rng.standard_normal((days, patches)) - 0.25) * (rng.random((days, patches)) > 0.25)
    return np.repeat(share.astype(np.float32), 24, axis=0)[:hours, plots.patch]


def _sprinklers(plots: Plots, hours: int, prng: Prng) -> F32:
    """Water from overhead sprinklers in mm per hour, [hours, nodes]: some patches have them, each with its
    own turns.
    """
    rng = prng.child("sprinklers").numpy()
    patches = int(plots.patch.max()) + 1
    crop = np.zeros(patches, dtype=np.intp)
    crop[plots.patch] = plots.context
    water = np.zeros((hours + 48, patches), dtype=np.float32)
    for patch in np.flatnonzero(rng.random(patches) < _SPRINKLED[crop]):
        every, clock, length = int(rng.integers(3, 7)), int(rng.integers(0, 24)), int(rng.integers(2, 5))
        for day in range(int(rng.integers(every)), hours // 24 + 1, every):
            begin = day * 24 + (clock + int(rng.integers(-2, 3))) % 24
            water[begin : begin + length, patch] = rng.uniform(2.0, 5.0)
    return water[:hours, plots.patch]


def _leaf_wetness(
    plots: Plots, depression_c: F32, rain_mm: F32, wind_m_s: F32, sun: F32
) -> NDArray[np.bool_]:
    """Leaf wet or dry, [hours, nodes], by the store of drying hours described above."""
    wet = np.zeros(rain_mm.shape, dtype=bool)
    store = np.zeros(rain_mm.shape[1], dtype=np.float32)
    for hour in range(len(wet)):
        # A leaf dries about twice as fast in sun or wind; the rate is 1 at a depression of 4 K in still,
        # dull air.
        rate = (
            (depression_c[hour] - 1.8)
            / 2.2
            * (0.6 + 0.35 * wind_m_s[hour] * plots.canopy_wind + 0.5 * sun[hour])
        )
        store = np.where(depression_c[hour] >= 3.8, store - np.maximum(rate, 0.0), store)
        dew = np.where(depression_c[hour] <= 2.0, 0.5 * plots.hold_h + 0.3, 0.0)
        rained = np.where(rain_mm[hour] > 0, plots.hold_h + 0.5, 0.0)
        store = np.maximum(np.maximum(store, 0.0), np.maximum(dew, rained)).astype(np.float32)
        wet[hour] = store > 0
    return wet


def plot_weather(weather: Weather, plots: Plots, prng: Prng) -> tuple[PlotWeather, F32]:
    """The true hourly weather in each canopy and the dew point (degC) of the open air above it, [hours,
    nodes].

    Patches take turns over the stations.
    """
    hours, stations = weather.temperature_c.shape
    nodes = len(plots.context)
    station = plots.patch % stations
    height = sunshine(hours)[:, None]
    sun = height * (1.0 - 0.8 * weather.cloud)
    pool = _night_pool(weather)
    rng = prng.child("plots").numpy()

    temperature = weather.temperature_c[:, station] - np.float32(LAPSE_C_PER_M) * plots.altitude_m
    temperature -= np.float32(4.5) * pool[:, station] * plots.hollow
    temperature += np.float32(2.0) * sun[:, station] * plots.south
    temperature += np.float32(0.25) * rng.standard_normal((hours, nodes), dtype=np.float32)
    open_dew = weather.dew_point_c[:, station] + np.float32(0.25) * rng.standard_normal(
        (hours, nodes), dtype=np.float32
    )
    open_dew = np.minimum(open_dew, temperature - np.float32(0.05))
    calm = np.exp(-weather.wind_m_s / 2.0) * np.where(height > 0, 0.25, 1.0)
    dew_point = open_dew + calm[:, station].astype(np.float32) * plots.canopy_dew_c
    dew_point = np.minimum(dew_point, temperature - np.float32(0.05))
    rain = weather.rain_mm[:, station] * _showers(plots, hours, prng)
    rain[rain < 0.05] = 0.0
    rain += _sprinklers(plots, hours, prng)
    wet = _leaf_wetness(plots, temperature - dew_point, rain, weather.wind_m_s[:, station], sun[:, station])
    dew_point += np.where(wet, plots.closure, np.float32(0)) * (temperature - dew_point)
    return PlotWeather(temperature, humidity_pct_of(temperature, dew_point), rain, wet), open_dew
