"""Borrowed readings through the whole world: firmware, frames, losses, survey, pairing, restart, refusal."""

from __future__ import annotations

import csv
import gzip
import json
from collections import defaultdict
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.cli import run
from simulations.bench import ask_readings as bench
from simulations.cell import DAY_US
from simulations.field.weather import FARM, Weather, generate
from simulations.field.weather_csv import read_weather_csv
from simulations.world import SPIN_UP_DAYS, World
from swarm.effects import Event
from swarm.model.container import random_model
from swarm.prng import Prng

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
BEIJING = DATA / "beijing_multisite" / "beijing_hourly.csv.gz"
MACLEISH = DATA / "macleish"
TELLING = ("borrowing_paired", "borrowing_refused", "lender_silent", "sensor_suspected")


def region(stations: int, days: int, apart_c: float = 0.6) -> Weather:
    """Stations of one region: common weather, and each its own lasting and passing difference."""
    common = generate(FARM, date(2025, 6, 1), 24 * days, Prng(5).child("region"))
    rng = Prng(6).child("stations").numpy()
    shape = (24 * days, stations)
    temperature = common.temperature_c[:, :1] + rng.normal(0, apart_c, shape).astype(np.float32)
    dew = common.dew_point_c[:, :1] + rng.normal(0, apart_c, (1, stations)).astype(np.float32)
    return Weather(
        common.start,
        tuple(f"s{each}" for each in range(stations)),
        temperature.astype(np.float32),
        np.minimum(dew + rng.normal(0, 0.3, shape), temperature - 0.05).astype(np.float32),
        np.repeat(common.rain_mm[:, :1], stations, axis=1),
        np.repeat(common.wind_m_s[:, :1], stations, axis=1),
        np.repeat(common.cloud[:, :1], stations, axis=1),
    )


class Watched(World):
    """A world that keeps what a person would be told."""

    def __init__(self, weather: Weather, defect: str, loss: float, seed: int = 1) -> None:
        self.told: list[Event] = []
        field = bench.StationField(weather, 0, defect, Prng(seed).child("test"))
        days = len(field.training_days)
        scenario = bench._scenario(field.nodes, days, seed, loss)
        super().__init__(scenario, model=random_model(1, contexts=range(4)), field=field)

    def _on_event(self, now_us: int, event: Event) -> None:
        if event.kind in TELLING:
            self.told.append(event)
        super()._on_event(now_us, event)

    def kinds(self) -> set[str]:
        return {event.kind for event in self.told}


def until_day(world: World, day: float) -> None:
    world.run_until(int((SPIN_UP_DAYS + day) * DAY_US))


def test_a_node_without_humidity_judges_far_better_with_its_neighbours() -> None:
    """Goal: the loan is worth it, within its bytes, at a tenth of all frames lost."""
    weather = region(4, 45)
    part = bench.run_station(weather, 0, "no humidity", 0.1, 1)
    own, borrowed = bench._score([part], "own")[0], bench._score([part], "judged")[0]
    assert borrowed > own + 0.1
    assert part["borrowers"] == 4 and part["lenders"] >= 2
    assert part["bytes"] / part["node_days"] <= 40
    assert part["violations"] == 0
    again = bench.run_station(weather, 0, "no humidity", 0.1, 1)
    assert (again["judged"] == part["judged"]).all() and again["bytes"] == part["bytes"]


def test_a_gateway_rebuilt_from_its_rows_goes_on_lending() -> None:
    """Goal: surveys, pairs and days survive.  Method: restart in the survey and every few days of lending."""
    weather = region(4, 26)
    whole = Watched(weather, "no humidity", 0.05)
    until_day(whole, 22)
    broken = Watched(weather, "no humidity", 0.05)
    for day in (3.3, 6.8, 9.1, 12.6, 15.02, 15.09, 18.4):
        until_day(broken, day)
        broken.restart_gateway()
    until_day(broken, 22)
    assert broken.coordinator.borrowing.parties() == whole.coordinator.borrowing.parties()
    firmware = whole.cell.nodes.firmware, broken.cell.nodes.firmware
    assert (firmware[0].verdicts()[1] == firmware[1].verdicts()[1]).all()
    assert (firmware[0].sharing == firmware[1].sharing).all()
    assert whole.rows["reading"] == broken.rows["reading"]
    assert whole.cell.traffic.down_bytes["lending"] == broken.cell.traffic.down_bytes["lending"]
    assert broken.checkers.violations.explained == []


def test_what_a_person_is_told() -> None:
    world = Watched(region(4, 20), "no humidity", 0.0)
    until_day(world, 14)
    paired = [event.data for event in world.told if event.kind == "borrowing_paired"]
    assert {data["node"] for data in paired} == {"node-0000", "node-0001", "node-0002", "node-0003"}
    text = str(paired[0]["text"])
    assert text.startswith(f"{paired[0]['node']} borrows humidity from node-000")
    assert text.endswith(
        f"correlation .{round(100 * float(str(paired[0]['correlation'])))}, "
        f"{paired[0]['bytes_per_day']} B a day"
    )


def test_a_lender_that_falls_silent_is_left_for_the_next_one() -> None:
    world = Watched(region(5, 45), "no humidity", 0.0)
    until_day(world, 16)
    sharing = world.rows["sharing"]
    borrower = world.identities[0].dev_eui
    lenders = str(sharing[borrower]["humidity_from"]).split()
    silent = next(each.node_index for each in world.identities if each.dev_eui == lenders[0])
    world.cell.nodes.firmware.busy[silent] = 255
    until_day(world, 32)
    assert "lender_silent" in world.kinds()
    assert lenders[0] not in str(world.rows["sharing"][borrower]["humidity_from"]).split()
    served = world.events["readings_lent"]
    until_day(world, 38)
    assert world.events["readings_lent"] - served >= 4 * 5, "the others go on lending"


def test_rain_that_falls_in_humid_air_is_refused() -> None:
    """Goal: no harm.  Method: the same rain where it saturates the air, and where it does not."""
    dry = region(4, 40)
    rain = np.where(np.arange(24 * 40)[:, None] % 50 < 4, 1.0, 0.0).astype(np.float32).repeat(4, axis=1)
    dew = np.minimum(dry.dew_point_c, dry.temperature_c - 6.0)
    arid = Weather(dry.start, dry.stations, dry.temperature_c, dew, rain, dry.wind_m_s, dry.cloud)
    soaked = np.where(rain > 0, dry.temperature_c - 0.05, dew).astype(np.float32)
    humid = Weather(dry.start, dry.stations, dry.temperature_c, soaked, rain, dry.wind_m_s, dry.cloud)
    quantity = {}
    for name, weather in (("arid", arid), ("humid", humid)):
        world = Watched(weather, "no rain", 0.0)
        until_day(world, 30)
        quantity[name] = {event.kind for event in world.told if event.data.get("quantity") == "rain"}
    assert quantity == {"arid": {"borrowing_paired"}, "humid": {"borrowing_refused"}}


def test_a_biased_sensor_is_corrected_not_replaced() -> None:
    part = bench.run_station(region(5, 40), 0, "biased", 0.0, 2)
    own, judged = bench._score([part], "own")[0], bench._score([part], "judged")[0]
    assert judged > own + 0.05
    assert part["lenders"] == 0, "nothing is lent for it day by day"


def test_nothing_is_sent_when_borrowing_is_off() -> None:
    from dataclasses import replace

    from swarm.config import Borrowing

    field = bench.StationField(region(4, 12), 0, "no humidity", Prng(1))
    scenario = replace(bench._scenario(field.nodes, 8, 1, 0.0), borrowing=Borrowing())
    world = World(scenario, model=random_model(1, contexts=range(4)), field=field)
    world.run_until(world.start_us + 6 * DAY_US)
    assert world.cell.traffic.up_bytes["readings"] == world.cell.traffic.down_bytes["lending"] == 0
    assert (world.cell.nodes.firmware.sharing == 0).all()
    assert "sharing" not in world.rows


def macleish(days: int) -> Weather:
    """The pair of Macleish stations (10 min, 2015) as hourly weather."""
    hours: list[dict[datetime, list[tuple[float, float, float, float]]]] = []
    for name in ("orchard", "whately"):
        found: dict[datetime, list[tuple[float, float, float, float]]] = defaultdict(list)
        with gzip.open(MACLEISH / f"{name}_2015.csv.gz", "rt") as file:
            for row in csv.DictReader(file):
                moment = datetime.fromisoformat(row["when"]) - timedelta(minutes=1)
                found[moment.replace(minute=0) + timedelta(hours=1)].append(
                    (
                        float(row["temperature"]),
                        float(row["rel_humidity"]),
                        float(row["rainfall"]),
                        float(row["wind_speed"]),
                    )
                )
        hours.append(found)
    first = datetime(2015, 5, 1, 13)
    at = [first + timedelta(hours=hour) for hour in range(24 * days)]
    data = np.array([[np.mean(found[hour], axis=0) for found in hours] for hour in at], np.float32)
    rain = np.array([[sum(v[2] for v in found[hour]) for found in hours] for hour in at], np.float32)
    temperature, humidity = data[..., 0], np.clip(data[..., 1], 1, 100)
    gamma = np.log(humidity / 100) + 17.27 * temperature / (temperature + 237.3)
    dew = np.minimum(237.3 * gamma / (17.27 - gamma), temperature - 0.05).astype(np.float32)
    none = np.zeros_like(rain)
    return Weather(date(2015, 5, 1), ("orchard", "whately"), temperature, dew, rain, data[..., 3], none)


@pytest.mark.slow
@pytest.mark.skipif(not BEIJING.is_file(), reason="needs ../shared/data")
def test_real_weather_of_beijing() -> None:
    rows = bench.run(BEIJING, start=date(2014, 5, 1), defects=("no humidity",), losses=(0.0,), seeds=(1,))
    (row,) = rows
    assert row["own"] < 0.65 and row["borrowed"] >= 0.75
    assert row["bytes_per_node_day"] <= 40 and row["violations"] == 0


@pytest.mark.slow
@pytest.mark.skipif(not MACLEISH.is_dir(), reason="needs ../shared/data")
def test_real_rain_of_macleish_is_refused() -> None:
    """Two stations 130 m apart where RH >= 90 % covers the rain: a neighbour's would cost .01."""
    weather = macleish(100)
    for at in range(2):
        part: dict[str, Any] = bench.run_station(weather, at, "no rain", 0.0, 1)
        assert (part["own"] == part["judged"]).mean() > 0.99
        assert part["events"]["borrowing_refused"] >= 4 and part["events"].get("borrowing_paired", 0) == 0


@pytest.mark.skipif(not BEIJING.is_file(), reason="needs ../shared/data")
def test_only_the_chosen_stations_are_read() -> None:
    weather = read_weather_csv(BEIJING, 48, date(2014, 6, 1), only=("Wanliu", "Dongsi"))
    assert weather.stations == ("Dongsi", "Wanliu")


def station_file(path: Path, stations: tuple[str, ...], days: int) -> Path:
    """A station CSV of `region`'s weather from its first noon on."""
    weather = region(len(stations), days)
    begin = datetime.combine(weather.start, datetime.min.time()) + timedelta(hours=12)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["station", "time", "temperature_c", "dew_point_c", "rain_mm", "wind_m_s"])
        for at, name in enumerate(stations):
            for hour in range(days * 24):
                when = (begin + timedelta(hours=hour + 1)).isoformat(" ", "minutes")
                series = (weather.temperature_c, weather.dew_point_c, weather.rain_mm, weather.wind_m_s)
                writer.writerow([name, when, *(f"{column[hour, at]:.2f}" for column in series)])
    return path


def test_the_command_measures_a_file_of_stations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = station_file(tmp_path / "stations.csv", ("north", "south", "west"), 46)
    wanted = [
        "--start",
        "2025-06-02",
        "--days",
        "24",
        "--defect",
        "no humidity",
        "--loss",
        "0",
        "--seeds",
        "1",
    ]
    assert run(["bench", "readings", str(file), *wanted, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["violations"] == 0 and row["borrowed"] > row["own"]
    assert 0 < row["bytes_per_node_day"] <= 40


def test_each_run_is_told() -> None:
    told: list[str] = []
    record = region(2, 25)
    bench.run(record, defects=("no rain",), losses=(0.1,), seeds=(1, 7), on_progress=told.append)
    assert told == [
        f"no rain, 10% lost, seed {seed}: {name} borrows" for seed in (1, 7) for name in ("s0", "s1")
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--start", "1 May"], "--start: '1 May' is no day; write it as 2014-05-01"),
        (["--defect", "no humidiy"], "--defect: there is no 'no humidiy'; did you mean no humidity?"),
        (["--station", "nowhere"], "--station: there is no 'nowhere'; there are north, south"),
        (["--station", "north", "--station", "nowhere"], "there is no 'nowhere'; there are north, south"),
        (["--station", "north"], "lending takes two distinct stations; this window has one"),
    ],
)
def test_what_the_command_cannot_do_is_one_line(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = station_file(tmp_path / "stations.csv", ("north", "south"), 30)
    assert run(["bench", "readings", str(file), "--days", "24", *options]) == 2
    line = capsys.readouterr().err.strip()
    assert said in line and "\n" not in line


def test_a_file_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "readings", "nosuch.csv"]) == 2
    assert capsys.readouterr().err == "swarm: nosuch.csv: no such file; check the path\n"


def test_a_file_with_many_mistakes_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = station_file(tmp_path / "stations.csv", ("north", "south"), 30)
    file.write_text(file.read_text().replace(",0.00,", ",dry,"))
    assert run(["bench", "readings", str(file), "--start", "2025-06-02", "--days", "24"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "rain_mm: 'dry' is not a number" in line and line.endswith("(and at least 9 more problems)")
