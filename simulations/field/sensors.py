"""Cheap sensors: what each node reads of its plot, in the units of the firmware.

A node's shield hangs beside or above the canopy, not in it: it misses canopy moisture, warms in the sun and
cools under a clear sky, so its humidity is wrong even where the element is perfect. On top come a lasting
bias and noise of each element, a tipping bucket that catches too little, nodes built without a humidity or
a rain sensor, and faults: a humidity element stuck after condensation, single spikes, single missing
values. Magnitudes follow the defects injected in published comparisons (Ni et al. 2009; Sharma et al. 2010)
at the cheap end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.field.climate import Plots
from simulations.field.rules import PlotWeather, humidity_pct_of
from simulations.field.weather import Weather, sunshine
from swarm.prng import Prng

__all__ = [
    "CHEAP",
    "FLAG_NO_HUMIDITY",
    "FLAG_NO_RAIN",
    "HUMIDITY_MISSING",
    "PUBLIC",
    "RAIN_MISSING",
    "Defects",
    "Readings",
    "read",
]

F32 = NDArray[np.float32]

FLAG_NO_HUMIDITY, FLAG_NO_RAIN = 1, 2
HUMIDITY_MISSING, RAIN_MISSING = 255, 65535


@dataclass(frozen=True)
class Defects:
    """How bad the sensors of a fleet are: standard deviations over nodes, shares of nodes, chances per node
    and hour.
    """

    no_humidity: float = 0.12
    no_rain: float = 0.20
    humidity_bias_pct: float = 2.0
    humidity_noise_pct: float = 1.0
    temperature_bias_c: float = 0.3
    temperature_noise_c: float = 0.2
    shield_warming_c: float = 1.4  # mean warming of a shield in full sun and still air
    stuck_per_hour: float = 1.0 / 1500.0
    spike_per_hour: float = 1.0 / 1000.0
    lost_per_hour: float = 1.0 / 300.0


CHEAP = Defects()
PUBLIC = Defects(
    no_humidity=0.08, no_rain=0.10, humidity_bias_pct=1.5, temperature_bias_c=0.25, shield_warming_c=1.2
)


@dataclass(frozen=True)
class Readings:
    """All hourly readings [hours, nodes]: 0.01 degC; 0.5 % (255 missing); 0.1 mm in the hour (65535
    missing); flags [nodes].
    """

    temperature_centi: NDArray[np.int16]
    humidity_half: NDArray[np.uint8]
    rain_tenth: NDArray[np.uint16]
    flags: NDArray[np.uint8]


# Per crop (apple, tomato, potato, grape): the share of the canopy's own moisture that reaches the sensor,
# and how much sun its shield gets. Potato sensors stand on a pole above the foliage; grape sensors hang in
# the sunlit wire.
_MOUNT_CANOPY = np.array([0.5, 0.4, 0.1, 0.6])
_MOUNT_SUN = np.array([0.7, 1.0, 1.2, 0.6])


def _stuck(humidity: F32, chance: float, rng: np.random.Generator) -> None:
    """Freeze the humidity of some nodes for 6 to 48 hours at a time (in place, [hours, nodes])."""
    begins = np.argwhere(rng.random(humidity.shape) < chance / 2.0)
    for (hour, node), length in zip(begins, rng.integers(6, 49, len(begins)), strict=True):
        humidity[hour : hour + length, node] = humidity[hour, node]


def _tipping_bucket(rain_mm: F32, catch: F32) -> NDArray[np.uint16]:
    """Hourly tips of a 0.2 mm bucket in 0.1 mm [hours, nodes]: water below a tip waits for the next hours."""
    caught = np.cumsum(rain_mm.astype(np.float64) * catch, axis=0)
    tips = np.floor(caught / 0.2 + 1e-9)
    return np.asarray(2 * np.diff(tips, axis=0, prepend=0.0), dtype=np.uint16)


def read(
    truth: PlotWeather, open_dew_c: F32, weather: Weather, plots: Plots, defects: Defects, prng: Prng
) -> Readings:
    """Measure the true weather of the plots [hours, nodes], and of the open air above, with each node's own
    sensors.
    """
    hours, nodes = truth.temperature_c.shape
    station = plots.patch % weather.temperature_c.shape[1]
    traits = prng.child("traits").numpy()
    flags = np.where(traits.random(nodes) < defects.no_humidity, FLAG_NO_HUMIDITY, 0)
    flags = (flags | np.where(traits.random(nodes) < defects.no_rain, FLAG_NO_RAIN, 0)).astype(np.uint8)
    temperature_bias = np.float32(defects.temperature_bias_c) * traits.standard_normal(
        nodes, dtype=np.float32
    )
    humidity_bias = np.float32(defects.humidity_bias_pct) * traits.standard_normal(nodes, dtype=np.float32)
    warming = defects.shield_warming_c * _MOUNT_SUN[plots.context] * traits.gamma(4.0, 0.25, nodes)
    spread = 0.08 * traits.standard_normal(nodes, dtype=np.float32)
    inside = np.clip(_MOUNT_CANOPY[plots.context] + spread, 0.0, 1.0).astype(np.float32)
    catch = np.asarray(traits.uniform(0.75, 1.0, nodes), dtype=np.float32)

    draws = prng.child("noise").numpy()
    sky = 1.0 - weather.cloud[:, station]
    calm = np.exp(-weather.wind_m_s[:, station] / 3.0)
    sun = sunshine(hours)[:, None]
    shield = truth.temperature_c + (sun * sky * calm * warming - 0.4 * (sun == 0) * sky * calm).astype(
        np.float32
    )
    # The element sees a mixture of canopy and open air, at the shield's temperature.
    gamma = np.log(np.maximum(truth.humidity_pct, 1.0) / 100.0) + 17.27 * truth.temperature_c / (
        truth.temperature_c + 237.3
    )
    dew = open_dew_c + inside * ((237.3 * gamma / (17.27 - gamma)).astype(np.float32) - open_dew_c)
    humidity = humidity_pct_of(shield, np.minimum(dew, shield)) + humidity_bias
    humidity += np.float32(defects.humidity_noise_pct) * draws.standard_normal(
        (hours, nodes), dtype=np.float32
    )
    temperature = shield + temperature_bias
    temperature += np.float32(defects.temperature_noise_c) * draws.standard_normal(
        (hours, nodes), dtype=np.float32
    )

    faults = prng.child("faults").numpy()
    _stuck(humidity, defects.stuck_per_hour, faults)
    spikes = np.nonzero(faults.random((hours, nodes), dtype=np.float32) < defects.spike_per_hour)
    humidity[spikes] = faults.uniform(5.0, 100.0, len(spikes[0])).astype(np.float32)
    humidity_half = np.rint(np.clip(humidity, 0.0, 100.0) * 2.0).astype(np.uint8)
    humidity_half[faults.random((hours, nodes), dtype=np.float32) < defects.lost_per_hour] = HUMIDITY_MISSING
    humidity_half[:, (flags & FLAG_NO_HUMIDITY) != 0] = HUMIDITY_MISSING
    rain_tenth = _tipping_bucket(truth.rain_mm, catch)
    rain_tenth[:, (flags & FLAG_NO_RAIN) != 0] = RAIN_MISSING
    return Readings(np.rint(temperature * 100.0).astype(np.int16), humidity_half, rain_tenth, flags)
