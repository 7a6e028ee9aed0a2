"""What a neighbour's readings are worth: the published rule on own sensors, and with what was borrowed.

Real stations stand in for places.  In each run one station is the borrowers': a node of each crop, its
sensors spoiled by one `defect`.  At every other station stands one sound node.  All of it runs through the
real thing: firmware, frames, losses, the gateway's survey, pairing and orders.  Nobody is told a label.  The
truth of a day is the crop's rule on the station's own record; scored are the rule in the firmware on the
node's own sensors, and the same rule as it stood an hour before the next noon, when what was borrowed had
come or not.  The days of the survey are left out (`WARM_UP_DAYS`), their bytes are not.

    rows = run(Path("beijing_hourly.csv.gz"), start=date(2014, 5, 1), seeds=(1, 2, 3))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulations.cell import DAY_US, HOUR_US
from simulations.field import Field
from simulations.field.baselines import macro_f1
from simulations.field.climate import Plots
from simulations.field.rules import HUMID_PCT, PlotWeather, classes_by_context, humidity_pct_of
from simulations.field.sensors import (
    FLAG_NO_HUMIDITY,
    FLAG_NO_RAIN,
    HUMIDITY_MISSING,
    RAIN_MISSING,
    Readings,
)
from simulations.field.weather import Weather, clock_hours
from simulations.field.weather_csv import read_weather_csv
from simulations.scenario import Hardship, Queries, Scenario
from simulations.world import SPIN_UP_DAYS, World
from swarm.config import Borrowing, Learning, Multicast
from swarm.model.container import random_model
from swarm.model.layout import CONTEXTS
from swarm.prng import Prng

__all__ = ["BEIJING", "DEFECTS", "WARM_UP_DAYS", "StationField", "run", "run_station"]

BEIJING = ("Huairou", "Shunyi", "Gucheng", "Changping", "Wanliu", "Dongsi")
"""The stations of the Beijing data that are not one another's copies in any year."""
DEFECTS = ("no humidity", "biased", "no rain", "mixed")
WARM_UP_DAYS = 14
CROPS = len(CONTEXTS)

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Spoiled:
    """The error of a station's sensors: standard deviations of a lasting and a passing part."""

    temperature_bias_c: float = 0.3
    temperature_noise_c: float = 0.2
    humidity_bias_pct: float = 1.5
    humidity_noise_pct: float = 2.0


SOUND = Spoiled()
BIASED = Spoiled(temperature_bias_c=1.0, humidity_noise_pct=1.0)
BIAS_PCT = (4.0, 9.0)
"""How far a biased humidity sensor is off, either way."""


class StationField(Field):
    """Four borrowers at one station, a sound node at each of the others; nobody is told a label."""

    def __init__(self, weather: Weather, target: int, defect: str, prng: Prng) -> None:
        stations = weather.temperature_c.shape[1]
        others = [station for station in range(stations) if station != target]
        station = np.array([target] * CROPS + others)
        nodes = len(station)
        self.weather = weather
        self.hours = len(weather.temperature_c)
        days = self.hours // 24
        self.spin_up = range(SPIN_UP_DAYS)
        self.training_days = range(SPIN_UP_DAYS, days)
        self.test_days = range(days, days)
        self.context = np.array([*range(CROPS), *(each % CROPS for each in range(len(others)))], np.uint8)
        self.plots = _plots(self.context, station, prng.child("places"))
        self.x_m, self.y_m, self.altitude_m = self.plots.x_m, self.plots.y_m, self.plots.altitude_m
        humidity = humidity_pct_of(weather.temperature_c, weather.dew_point_c)[:, station]
        rain = weather.rain_mm[:, station]
        self.truth = PlotWeather(
            weather.temperature_c[:, station], humidity, rain, (humidity >= HUMID_PCT) | (rain > 0)
        )
        self.labels = classes_by_context(self.context, self.truth)
        kinds = [_kind(defect, each, prng.child("defects")) for each in range(CROPS)]
        self.sensors = _read(self.truth, kinds + [""] * (nodes - CROPS), prng.child("sensors"))
        self.flags = self.sensors.flags
        self._told = np.zeros(self.labels.shape, np.bool_)
        self._clock = clock_hours(self.hours)


def _plots(context: NDArray[np.uint8], station: NDArray[np.int_], prng: Prng) -> Plots:
    """Places within a cell: the lenders on a ring around the borrowers, so that distances say nothing."""
    nodes = len(context)
    angle = prng.numpy().uniform(0.0, 2.0 * np.pi, nodes)
    radius_m = np.where(np.arange(nodes) < CROPS, 0.0, 600.0)
    zero, one = np.zeros(nodes, np.float32), np.ones(nodes, np.float32)
    return Plots(
        context=context,
        patch=station.astype(np.int32),
        x_m=(radius_m * np.cos(angle)).astype(np.float32),
        y_m=(radius_m * np.sin(angle)).astype(np.float32),
        altitude_m=zero,
        hollow=zero,
        south=zero,
        hold_h=one,
        canopy_dew_c=zero,
        closure=zero,
        canopy_wind=one,
    )


def _kind(defect: str, node: int, prng: Prng) -> str:
    """The defect of one borrower: in a mixed fleet each has its own."""
    if defect != "mixed":
        return defect
    return DEFECTS[int(prng.child(f"node-{node}").numpy().integers(0, 3))]


def _read(truth: PlotWeather, kinds: Sequence[str], prng: Prng) -> Readings:
    """What the nodes' sensors say of the truth; an empty kind is a sound node."""
    hours, nodes = truth.temperature_c.shape
    temperature = np.empty((hours, nodes), np.float32)
    humidity = np.empty((hours, nodes), np.float32)
    flags = np.zeros(nodes, np.uint8)
    for node, kind in enumerate(kinds):
        rng = prng.child(f"node-{node}").numpy()
        error = BIASED if kind == "biased" else SOUND
        bias = rng.normal(0.0, error.humidity_bias_pct)
        if kind == "biased":
            bias = rng.choice((-1.0, 1.0)) * rng.uniform(*BIAS_PCT)
        temperature[:, node] = (
            truth.temperature_c[:, node]
            + rng.normal(0.0, error.temperature_bias_c)
            + rng.normal(0.0, error.temperature_noise_c, hours)
        )
        humidity[:, node] = (
            truth.humidity_pct[:, node] + bias + rng.normal(0.0, error.humidity_noise_pct, hours)
        )
        flags[node] = {"no humidity": FLAG_NO_HUMIDITY, "no rain": FLAG_NO_RAIN}.get(kind, 0)
    humidity_half = np.rint(np.clip(humidity, 0.0, 100.0) * 2.0).astype(np.uint8)
    rain_tenth = np.rint(truth.rain_mm * 10.0).astype(np.uint16)
    humidity_half[:, (flags & FLAG_NO_HUMIDITY) != 0] = HUMIDITY_MISSING
    rain_tenth[:, (flags & FLAG_NO_RAIN) != 0] = RAIN_MISSING
    return Readings(np.rint(temperature * 100.0).astype(np.int16), humidity_half, rain_tenth, flags)


def _scenario(nodes: int, days: int, seed: int, loss: float) -> Scenario:
    """A cell without rounds and questions whose only hardship is the loss, each way."""
    quiet = Hardship(
        loss_probability=loss,
        shadowing_db=0.0,
        channel_fading_db=0.0,
        fading_db=0.0,
    )
    return Scenario(
        name="ask_readings",
        seed=seed,
        nodes=nodes,
        days=days,
        test_days=1,
        radius_m=3_000.0,
        hardship=quiet,
        queries=Queries(per_day=0.0),
        learning=Learning(mode="none", period_s=86_400, window_s=10),
        multicast=Multicast(data_rate=3),
        borrowing=Borrowing(enabled=True),
    )


def run_station(weather: Weather, target: int, defect: str, loss: float, seed: int) -> dict[str, Any]:
    """One cell, one season: classes [days, crops] true, by own sensors and as borrowed; what it cost."""
    prng = Prng(seed).child(f"readings {weather.stations[target]} {defect}")
    field = StationField(weather, target, defect, prng)
    days = len(field.training_days)
    scenario = _scenario(field.nodes, days, seed, loss)
    world = World(scenario, model=random_model(1, contexts=range(CROPS)), field=field)
    first = SPIN_UP_DAYS + WARM_UP_DAYS
    own, judged, true = [], [], []
    for day in range(SPIN_UP_DAYS, len(field.labels) - 1):
        world.run_until((day + 2) * DAY_US - HOUR_US)
        if day >= first:
            by_own, by_both = world.cell.nodes.firmware.verdicts()
            own.append(by_own[:CROPS])
            judged.append(by_both[:CROPS])
            true.append(field.labels[day, :CROPS])
    traffic = world.cell.traffic
    borrowers, lenders = world.coordinator.borrowing.parties()
    return {
        "own": np.array(own),
        "judged": np.array(judged),
        "true": np.array(true),
        "borrowers": len(borrowers),
        "lenders": len(lenders),
        "bytes": traffic.up_bytes["readings"] + traffic.down_bytes["lending"],
        "node_days": days * max(len(borrowers | lenders), 1),
        "airtime_s": (traffic.up_us["readings"] + traffic.down_us["lending"]) / 1e6,
        "violations": world.checkers.violations.count,
        "events": dict(world.events),
    }


def _score(parts: Sequence[dict[str, Any]], which: str) -> tuple[float, list[float]]:
    """Mean over crops of the macro-F1 over all stations' days, and the crops'."""
    predicted = np.concatenate([part[which] for part in parts])
    true = np.concatenate([part["true"] for part in parts])
    crops = [macro_f1(predicted[:, crop], true[:, crop]) for crop in range(CROPS)]
    return float(np.mean(crops)), crops


def run(
    weather: Path | Weather,
    *,
    start: date | None = None,
    days: int = 152,
    stations: Sequence[str] = BEIJING,
    defects: Iterable[str] = DEFECTS,
    losses: Iterable[float] = (0.0, 0.1, 0.3),
    seeds: Iterable[int] = (1, 2, 3),
    on_progress: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """One row per defect and loss: mean and spread over the seeds, every station in turn the borrowers'.

    `weather` is a station CSV (`field.weather_csv`), `stations` those of it to use (empty: all), `days` from
    noon of `start` on.  Keys: defect, loss, seeds, own, borrowed (per-crop macro-F1, mean), own_sd,
    borrowed_sd, per_crop (own, borrowed by crop), bytes_per_node_day (of those who lend or borrow),
    airtime_s_per_node_day, borrowers, lenders (mean of a cell), violations.
    """
    record = (
        read_weather_csv(weather, days * 24, start, only=stations) if isinstance(weather, Path) else weather
    )
    chosen = tuple(seeds)
    rows = []
    for defect in defects:
        for loss in losses:
            by_seed: list[list[dict[str, Any]]] = []
            for seed in chosen:
                by_seed.append([])
                for at, station in enumerate(record.stations):
                    if on_progress is not None:
                        on_progress(f"{defect}, {loss:.0%} lost, seed {seed}: {station} borrows")
                    by_seed[-1].append(run_station(record, at, defect, loss, seed))
            rows.append({"defect": defect, "loss": loss, "seeds": chosen, **_row(by_seed)})
    return rows


def _row(by_seed: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    own, borrowed = ([_score(parts, which) for parts in by_seed] for which in ("own", "judged"))
    cells = [part for parts in by_seed for part in parts]
    node_days = sum(part["node_days"] for part in cells)
    return {
        "own": float(np.mean([score for score, _ in own])),
        "own_sd": float(np.std([score for score, _ in own])),
        "borrowed": float(np.mean([score for score, _ in borrowed])),
        "borrowed_sd": float(np.std([score for score, _ in borrowed])),
        "per_crop": {
            crop: (
                float(np.mean([crops[at] for _, crops in own])),
                float(np.mean([crops[at] for _, crops in borrowed])),
            )
            for at, crop in enumerate(CONTEXTS)
        },
        "bytes_per_node_day": sum(part["bytes"] for part in cells) / node_days,
        "airtime_s_per_node_day": sum(part["airtime_s"] for part in cells) / node_days,
        "borrowers": float(np.mean([part["borrowers"] for part in cells])),
        "lenders": float(np.mean([part["lenders"] for part in cells])),
        "violations": sum(part["violations"] for part in cells),
    }
