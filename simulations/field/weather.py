"""Regional hourly weather: a seeded stochastic generator and the record that any source of weather fills.

Theory of operation (after WGEN, Richardson & Wright 1984). Each calendar day is wet or dry by a two-state
Markov chain; a wet day's rain is gamma distributed and falls in a few storms. Daily mean temperature is a
seasonal cosine plus an AR(1) anomaly, cooler and cloudier on wet days; cloud narrows the day's range. Hours
follow an asymmetric diurnal curve (coldest at 5, warmest at 15) between days, plus an AR(1) hourly noise.
The dew point hangs below the night's minimum by an AR(1) depression that shrinks on wet days; rain moistens
the air towards saturation and the effect fades within hours.

Hour 0 begins at noon of the start date, local time; a value belongs to the end of its hour, so hour h is
read at the local clock hour (13 + h) mod 24 and the reading of 12 o'clock closes a day.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from swarm.prng import Prng

__all__ = ["FARM", "PUBLIC_SITES", "Site", "Weather", "clock_hours", "generate", "sunshine"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

HOURS_MAX = 24 * 400


@dataclass(frozen=True)
class Site:
    """The climate of a region: degC, chances per day, mm per wet day, and how far the dew point lies below
    the minimum.
    """

    name: str
    july_mean_c: float = 17.8
    seasonal_amplitude_c: float = 9.0
    anomaly_sd_c: float = 2.6
    range_clear_c: float = 14.0
    wet_after_dry: float = 0.27
    wet_after_wet: float = 0.52
    rain_mean_mm: float = 6.5
    dew_depression_c: float = 2.2
    wind_mean_m_s: float = 2.2


FARM = Site("farm")
PUBLIC_SITES = (
    Site(
        "coast",
        july_mean_c=17.4,
        range_clear_c=11.0,
        wet_after_dry=0.30,
        dew_depression_c=1.0,
        wind_mean_m_s=3.2,
    ),
    Site(
        "basin",
        july_mean_c=20.4,
        range_clear_c=15.0,
        wet_after_dry=0.22,
        rain_mean_mm=8.5,
        dew_depression_c=2.2,
    ),
    Site(
        "upland",
        july_mean_c=16.2,
        wet_after_dry=0.33,
        wet_after_wet=0.58,
        dew_depression_c=1.3,
        wind_mean_m_s=2.8,
    ),
)


@dataclass(frozen=True)
class Weather:
    """Hourly weather of one or several stations, arrays [hours, stations] from noon of `start`, local time.

    temperature_c and dew_point_c in degC (dew point <= temperature), rain_mm per hour, wind_m_s, cloud 0
    clear to 1 overcast. notes: what a reader of records left out and why.
    """

    start: date
    stations: tuple[str, ...]
    temperature_c: F32
    dew_point_c: F32
    rain_mm: F32
    wind_m_s: F32
    cloud: F32
    notes: tuple[str, ...] = ()


def clock_hours(hours: int) -> NDArray[np.uint8]:
    """The local clock hour (0-23) at which each of the hours [hours] is read; the first is 13."""
    return ((13 + np.arange(hours)) % 24).astype(np.uint8)


def sunshine(hours: int) -> F32:
    """Height of the sun for each hour [hours], 0 (before 5:15 and after 20:15) to 1; a summer day of 15 h."""
    from_noon = clock_hours(hours).astype(np.float32) - np.float32(13.25)  # the middle of the hour before
    height = np.where(np.abs(from_noon) < 7.5, np.cos(from_noon / 15.0 * np.pi), 0.0)
    return height.astype(np.float32)


def _ar1(draws: F64, memory: float) -> F64:
    """A stationary AR(1) series of unit variance from independent unit normal draws [n]."""
    series = np.empty_like(draws)
    value = draws[0]
    for i, draw in enumerate(draws):
        value = value if i == 0 else memory * value + np.sqrt(1.0 - memory * memory) * draw
        series[i] = value
    return series


def _diurnal(clock: F64) -> F64:
    """The daily curve, -1 at 5:00 to +1 at 15:00, for local times in hours."""
    since_low = (clock - 5.0) % 24.0
    rising = -np.cos(np.pi * since_low / 10.0)
    falling = np.cos(np.pi * (since_low - 10.0) / 14.0)
    return np.where(since_low < 10.0, rising, falling)


def _rain(wet: NDArray[np.bool_], site: Site, rng: np.random.Generator) -> F64:
    """Hourly rain in mm [days * 24] from midnight: a gamma amount per wet day, split over one to three
    storms.
    """
    rain = np.zeros(len(wet) * 24)
    for day in np.flatnonzero(wet):
        amount = rng.gamma(0.75, site.rain_mean_mm / 0.75)
        for share in rng.dirichlet(np.ones(1 + min(2, int(rng.poisson(0.6))))):
            begin = int(day) * 24 + int(rng.triangular(0, 17, 24))
            length = 1 + min(11, int(rng.geometric(0.28)))
            end = min(begin + length, rain.size)
            rain[begin:end] += amount * share * rng.dirichlet(np.ones(length))[: end - begin]
    rain[rain < 0.1] = 0.0
    return np.minimum(rain, 60.0)


def _wet_days(days: int, site: Site, rng: np.random.Generator) -> NDArray[np.bool_]:
    """The chain of wet and dry days [days], begun from its long-run share."""
    draws = rng.random(days)
    wet = np.zeros(days, dtype=bool)
    state = draws[0] < site.wet_after_dry / (1.0 + site.wet_after_dry - site.wet_after_wet)
    for day in range(days):
        wet[day] = state
        state = draws[day] < (site.wet_after_wet if state else site.wet_after_dry)
    return wet


def _moistening(rain: F64) -> F64:
    """How far rain has brought the air towards saturation, 0 to 1 [hours]: at once while it falls, fading
    over hours.
    """
    effect = np.zeros_like(rain)
    value = 0.0
    for hour, fallen in enumerate(rain):
        value = max(value * 0.78, min(1.0, 0.7 + 0.15 * fallen) if fallen > 0 else 0.0)
        effect[hour] = value
    return effect


def generate(site: Site, start: date, hours: int, prng: Prng) -> Weather:
    """One station's weather for `hours` hours from noon of `start`; the same arguments give the same
    weather.
    """
    if not 24 <= hours <= HOURS_MAX:
        raise ValueError(f"hours must be within 24..{HOURS_MAX}, not {hours}")
    days = hours // 24 + 4  # one calendar day before the first noon and spare ones after the last
    first = start - timedelta(days=1)
    rng = prng.child("days").numpy()
    wet = _wet_days(days, site, prng.child("chain").numpy())
    day_of_year = first.timetuple().tm_yday + np.arange(days)
    season = site.july_mean_c - site.seasonal_amplitude_c * (
        1.0 - np.cos((day_of_year - 203) / 365.25 * 2.0 * np.pi)
    )
    mean_c = season + site.anomaly_sd_c * _ar1(rng.standard_normal(days), 0.65) - 1.6 * wet + 0.5
    cloud_d = np.where(wet, rng.beta(6.0, 2.0, days), rng.beta(1.4, 3.0, days))
    range_c = np.clip(site.range_clear_c * (1.0 - 0.6 * cloud_d) * rng.normal(1.0, 0.12, days), 2.5, 20.0)
    depression = site.dew_depression_c + 1.7 * _ar1(rng.standard_normal(days), 0.6) - 1.6 * wet
    wind_d = site.wind_mean_m_s * np.exp(0.45 * _ar1(rng.standard_normal(days), 0.5) - 0.1)

    # From midnight of `first`, hour h is read at its end; days are joined between their noons.
    clock = np.arange(1, days * 24 + 1, dtype=np.float64)
    noons = np.arange(days) * 24.0 + 12.0
    hourly = prng.child("hours").numpy()
    rain = _rain(wet, site, prng.child("rain").numpy())
    moist = _moistening(rain)
    cloud = np.clip(
        np.interp(clock, noons, cloud_d) + 0.15 * _ar1(hourly.standard_normal(clock.size), 0.85), 0.0, 1.0
    )
    cloud = np.maximum(cloud, 0.9 * (rain > 0))
    temperature = (
        np.interp(clock, noons, mean_c)
        + 0.5 * np.interp(clock, noons, range_c) * _diurnal(clock)
        + 0.6 * _ar1(hourly.standard_normal(clock.size), 0.8)
        - 1.5 * moist * (rain > 0)
    )
    dew = np.interp(clock, noons, mean_c - 0.5 * range_c - depression) + 0.5 * _ar1(
        hourly.standard_normal(clock.size), 0.9
    )
    dew = np.minimum(dew + moist * np.maximum(temperature - 0.7 - dew, 0.0), temperature - 0.05)
    diurnal_wind = 1.0 + 0.45 * _diurnal(clock - 1.0)
    wind = (
        np.interp(clock, noons, wind_d)
        * diurnal_wind
        * np.exp(0.25 * _ar1(hourly.standard_normal(clock.size), 0.6))
    )
    cut = slice(36, 36 + hours)  # noon of `start`

    def station(series: F64) -> F32:
        return series[cut, None].astype(np.float32)

    return Weather(
        start, (site.name,), station(temperature), station(dew), station(rain), station(wind), station(cloud)
    )
