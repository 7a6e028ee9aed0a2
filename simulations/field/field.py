"""The field: where the nodes stand, what they read each hour, and the true risk they are told next day.

    field = Field(nodes=1000, days=30, seed=1)
    for hour in range(field.hours):
        temperature_centi, humidity_half, rain_tenth, clock = field.readings(hour)
        ...                                       # feed the nodes; the reading of 12 o'clock closes a day
        if clock == 12:
            classes = field.label(hour // 24)     # tell it at the next noon, not before

Hour 0 begins at noon of `start`, so day d is the hours 24 d .. 24 d + 23 and its last reading is taken at
the clock's 12. Days count from the first hour: `spin_up` (the nodes fill their 48 h of history), then
`training_days`, then `test_days`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simulations.field.climate import place, plot_weather
from simulations.field.rules import CLASSES, CONTEXTS, PlotWeather, classes_by_context, weather_of_readings
from simulations.field.sensors import CHEAP, PUBLIC, Defects, Readings, read
from simulations.field.weather import FARM, PUBLIC_SITES, Site, Weather, clock_hours, generate
from simulations.field.weather_csv import read_weather_csv
from swarm.prng import Prng

__all__ = ["Field", "public_fields"]

NODES_MAX = 10_000
DAYS_MAX = 370
NOT_TOLD = 255
START = date(2025, 6, 1)


class Field:
    """One season of a fleet; everything follows from the arguments, so equal arguments give equal fields."""

    def __init__(
        self,
        nodes: int,
        days: int,
        seed: int,
        *,
        weather: Path | str | None = None,
        start: date | None = None,
        spin_up_days: int = 3,
        test_days: int = 15,
        contexts: Sequence[int] = (0, 1, 2, 3),
        told_share: float = 1.0,
        site: Site = FARM,
        defects: Defects = CHEAP,
    ) -> None:
        """`days` of training after the spin-up, then the test; `weather` is a station CSV (weather_csv),
        None generates.

        start: date whose noon begins the field (default: 1 June; with a CSV of the first year that covers
        the whole). contexts: the crops grown (0 apple, 1 tomato, 2 potato, 3 grape). told_share: how many
        of its labels a node is told, 0 to 1 (a node lacking sensors cannot label itself: somebody has to
        come and look). Raises ValueError for sizes out of range, WeatherCsvError for an unusable file.
        """
        total = spin_up_days + days + test_days
        if not 1 <= nodes <= NODES_MAX:
            raise ValueError(f"nodes must be within 1..{NODES_MAX}, not {nodes}")
        if min(spin_up_days, days, test_days) < 0 or not 1 <= total <= DAYS_MAX:
            raise ValueError(
                f"spin-up, training and test days must together be within 1..{DAYS_MAX}, not {total}"
            )
        if not contexts or any(not 0 <= crop < len(CONTEXTS) for crop in contexts):
            raise ValueError(f"contexts must be crops within 0..{len(CONTEXTS) - 1}, not {tuple(contexts)}")
        if not 0.0 <= told_share <= 1.0:
            raise ValueError(f"told_share must be within 0..1, not {told_share}")
        root = Prng(seed).child("field")
        self.hours = total * 24
        self.spin_up = range(spin_up_days)
        self.training_days = range(spin_up_days, spin_up_days + days)
        self.test_days = range(spin_up_days + days, total)
        self.weather: Weather = self._weather(weather, start, site, root)
        plots = place(nodes, tuple(contexts), root.child("plots"))
        self.plots = plots
        self.context = plots.context
        self.x_m, self.y_m, self.altitude_m = plots.x_m, plots.y_m, plots.altitude_m
        truth, open_dew_c = plot_weather(self.weather, plots, root.child("climate"))
        self.truth: PlotWeather = truth
        self.sensors: Readings = read(truth, open_dew_c, self.weather, plots, defects, root.child("sensors"))
        self.flags = self.sensors.flags
        self.labels: NDArray[np.uint8] = classes_by_context(plots.context, self.truth)
        self._told = root.child("told").numpy().random(self.labels.shape) < told_share
        self._clock = clock_hours(self.hours)

    def _weather(self, path: Path | str | None, start: date | None, site: Site, root: Prng) -> Weather:
        """The regional weather, generated or from a file."""
        if path is None:
            return generate(site, START if start is None else start, self.hours, root.child("weather"))
        return read_weather_csv(Path(path), self.hours, start)

    @property
    def nodes(self) -> int:
        """How many nodes stand in the field."""
        return len(self.context)

    @property
    def start(self) -> date:
        """The date whose noon begins hour 0."""
        return self.weather.start

    def class_shares(self) -> NDArray[np.float64]:
        """How often each class is true over all days, [crops 0..3, classes]; nan for a crop not grown."""
        shares = np.full((len(CONTEXTS), CLASSES), np.nan)
        for crop in np.unique(self.context):
            of_crop = self.labels[:, self.context == crop]
            shares[crop] = np.bincount(of_crop.ravel(), minlength=CLASSES) / of_crop.size
        return shares

    def rule_classes(self) -> NDArray[np.uint8]:
        """The baseline "published rule of the crop on the node's own sensors", [days, nodes], for every node.

        It knows each crop's rule, also of crops for which the firmware has only a general one.
        """
        readings = self.sensors
        own = weather_of_readings(readings.temperature_centi, readings.humidity_half, readings.rain_tenth)
        return classes_by_context(self.context, own)

    def readings(self, hour: int) -> tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.uint16], int]:
        """(temperature_centi, humidity_half, rain_tenth, clock hour 0-23) of hour 0 <= hour < hours; arrays
        [nodes].
        """
        sensors = self.sensors
        return (
            sensors.temperature_centi[hour],
            sensors.humidity_half[hour],
            sensors.rain_tenth[hour],
            int(self._clock[hour]),
        )

    def label(self, day: int) -> NDArray[np.uint8]:
        """What the nodes are told once a day is over [nodes]: the true class 0 low, 1 medium, 2 high, or
        255 nothing.

        `labels` [days, nodes] holds the true classes of all days and nodes, for scoring.
        """
        return np.where(self._told[day], self.labels[day], np.uint8(NOT_TOLD))


def public_fields(seed: int, *, nodes: int = 60, days: int = 60) -> list[Field]:
    """Public training data: apple and tomato only, other sites, two seasons each, fewer sensor defects, own
    seed space.
    """
    fields = []
    for site in PUBLIC_SITES:
        for year in (2023, 2024):
            season_seed = Prng(seed).child("public").child(f"{site.name} {year}").u64()
            fields.append(
                Field(
                    nodes,
                    days,
                    season_seed,
                    start=date(year, 5, 20 if year == 2024 else 10),
                    test_days=0,
                    contexts=(0, 1),
                    site=site,
                    defects=PUBLIC,
                )
            )
    return fields
