"""Station files: what is accepted, and that every mistake is named with its line, its column and what to
do.
"""

from __future__ import annotations

import gzip
import logging
import tracemalloc
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from simulations.field import Field, WeatherCsvError
from simulations.field.weather_csv import _Station, read_weather_csv

BEIJING = (
    Path(__file__).resolve().parents[2]
    / ".."
    / "shared"
    / "data"
    / "beijing_multisite"
    / "beijing_hourly.csv.gz"
)
HEADER = "station,time,temperature_c,dew_point_c,rain_mm,wind_m_s"
FIRST = datetime(2024, 5, 30)


def records(
    hours: int = 24 * 8, station: str = "hill", shift_c: float = 0.0, first: datetime = FIRST
) -> list[str]:
    """Plausible rows of one station, one per hour."""
    rows = []
    for hour in range(hours):
        stamp = first + timedelta(hours=hour)
        rain = 0.5 * (hour % 50 == 0)
        temperature = 15.0 + shift_c + 6.0 * np.sin((stamp.hour - 9) / 24 * 2 * np.pi) + 0.1 * (hour % 7)
        rows.append(f"{station},{stamp:%Y-%m-%d %H:%M},{temperature:.1f},{8.0 + shift_c:.1f},{rain},2.0")
    return rows


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def to_file(rows: list[str], header: str = HEADER, name: str = "met.csv") -> Path:
        path = tmp_path / name
        text = "\n".join([header, *rows]) + "\n"
        if name.endswith(".gz"):
            path.write_bytes(gzip.compress(text.encode()))
        else:
            path.write_text(text, encoding="utf-8")
        return path

    return to_file


def problems(path: Path, hours: int = 96, start: date | None = date(2024, 6, 1)) -> tuple[str, ...]:
    with pytest.raises(WeatherCsvError) as caught:
        read_weather_csv(path, hours, start)
    for line in caught.value.problems:
        place, rest = line.split(": ", 1)
        assert place.startswith(str(path))
        assert int(place.rsplit(":", 1)[1]) >= 1
        assert "; " in rest, "every problem says what to do"
    return caught.value.problems


def test_a_record_begins_at_one_oclock_of_the_start_date(write: Callable[..., Path]) -> None:
    weather = read_weather_csv(write(records()), 96, date(2024, 6, 2))
    assert weather.temperature_c.shape == (96, 1)
    expected = float(records()[3 * 24 + 13].split(",")[2])
    assert weather.temperature_c[0, 0] == pytest.approx(expected)
    assert weather.start == date(2024, 6, 2)
    assert weather.stations == ("hill",)


def test_the_default_start_is_the_first_first_of_june_that_is_covered(write: Callable[..., Path]) -> None:
    assert read_weather_csv(write(records()), 96).start == date(2024, 6, 1)
    two_years = records(24 * 4) + records(24 * 8, first=datetime(2025, 5, 30))
    assert read_weather_csv(write(two_years), 96).start == date(2025, 6, 1)


def test_gzip_a_byte_order_mark_and_the_names_of_the_beijing_set_are_accepted(
    write: Callable[..., Path],
) -> None:
    plain = read_weather_csv(write(records()), 96)
    other = write(records(), header="\ufeffstation,time,TEMP,DEWP,RAIN,WSPM", name="met.csv.gz")
    packed = read_weather_csv(other, 96)
    assert np.array_equal(plain.temperature_c, packed.temperature_c)
    assert np.array_equal(plain.dew_point_c, packed.dew_point_c)
    assert np.array_equal(plain.rain_mm, packed.rain_mm)


def test_columns_may_come_in_any_order_and_humidity_may_replace_the_dew_point(
    write: Callable[..., Path],
) -> None:
    rows = []
    for row in records():
        station, when, _, _, rain, wind = row.split(",")
        rows.append(f"{wind},{rain},52.5,20.0,ignored,{when},{station}")
    header = "wind_m_s,rain_mm,humidity_pct,temperature_c,remark,time,station"
    weather = read_weather_csv(write(rows, header=header), 96)
    assert weather.dew_point_c[5, 0] == pytest.approx(10.0, abs=0.05)


def test_short_gaps_are_interpolated_and_rain_in_them_is_none(write: Callable[..., Path]) -> None:
    rows = records()
    at = 2 * 24 + 20
    before, after = float(rows[at - 1].split(",")[2]), float(rows[at + 6].split(",")[2])
    del rows[at : at + 6]
    weather = read_weather_csv(write(rows), 96)
    hour = at - (2 * 24 + 13)
    assert weather.temperature_c[hour, 0] == pytest.approx(before + (after - before) / 7, abs=1e-3)
    assert (weather.rain_mm[hour : hour + 6] == 0).all()


def test_empty_cells_are_missing_values(write: Callable[..., Path]) -> None:
    rows = records()
    for at in range(80, 86):
        cells = rows[at].split(",")
        rows[at] = ",".join([*cells[:2], "", *cells[3:]])
    weather = read_weather_csv(write(rows), 96)
    assert np.isfinite(weather.temperature_c).all()
    for at in range(86, 87):
        cells = rows[at].split(",")
        rows[at] = ",".join([*cells[:2], "", *cells[3:]])
    (problem,) = problems(write(rows))
    assert "temperature_c: hill lacks 7 h in a row" in problem


def test_stations_with_one_record_under_two_names_count_once(
    write: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    rows = records(station="a") + records(station="b", shift_c=2.0) + records(station="copy")
    with caplog.at_level(logging.INFO, logger="simulations.field.weather_csv"):
        weather = read_weather_csv(write(rows), 96)
    assert weather.stations == ("a", "b")
    assert weather.notes == ("station copy repeats a in this window and is left out",)
    assert "copy repeats a" in caplog.text


def test_patches_of_a_field_take_turns_over_the_stations(write: Callable[..., Path]) -> None:
    rows = records(24 * 20, station="warm", shift_c=6.0) + records(24 * 20, station="cold")
    field = Field(60, 5, 1, weather=write(rows), test_days=2)
    means = field.truth.temperature_c.mean(axis=0) + 0.0065 * field.altitude_m
    warm = field.plots.patch % 2 == 0
    assert means[warm].mean() - means[~warm].mean() > 4.0


@pytest.mark.parametrize(
    ("header", "column"),
    [
        ("name,time,temperature_c,dew_point_c,rain_mm,wind_m_s", "station"),
        ("station,when,temperature_c,dew_point_c,rain_mm,wind_m_s", "time"),
        ("station,time,temp,dew_point_c,rain_mm,wind_m_s", "temperature_c"),
        ("station,time,temperature_c,dew,rain_mm,wind_m_s", "dew_point_c"),
        ("station,time,temperature_c,dew_point_c,rain,wind_m_s", "rain_mm"),
        ("station,time,temperature_c,dew_point_c,rain_mm,wind", "wind_m_s"),
    ],
)
def test_a_missing_column_is_named(write: Callable[..., Path], header: str, column: str) -> None:
    (problem,) = problems(write(records(), header=header))
    assert f":1: {column}: " in problem


@pytest.mark.parametrize(
    ("cell", "value", "column", "what"),
    [
        (2, "warm", "temperature_c", "'warm' is not a number"),
        (2, "nan", "temperature_c", "not a finite number"),
        (2, "inf", "temperature_c", "not a finite number"),
        (2, "-99.9", "temperature_c", "outside -60 to 60"),
        (3, "NA", "dew_point_c", "'NA' is not a number"),
        (4, "-1", "rain_mm", "outside 0 to 300"),
        (5, "999", "wind_m_s", "outside 0 to 90"),
        (1, "yesterday", "time", "'yesterday' is not a time"),
        (1, "2024-06-02 10:30", "time", "not on the full hour"),
        (1, "2024-06-02 10:00+02:00", "time", "has a time zone"),
    ],
)
def test_a_bad_cell_is_named_with_its_line(
    write: Callable[..., Path], cell: int, value: str, column: str, what: str
) -> None:
    rows = records()
    cells = rows[70].split(",")
    cells[cell] = value
    rows[70] = ",".join(cells)
    (problem,) = problems(write(rows))
    assert f":72: {column}: " in problem
    assert what in problem


def test_bad_numbers_outside_the_used_window_do_no_harm(write: Callable[..., Path]) -> None:
    rows = records()
    rows[3] = "hill,2024-05-30 03:00,broken,,,"
    assert read_weather_csv(write(rows), 96).temperature_c.shape == (96, 1)


def test_times_must_ascend_without_doubles(write: Callable[..., Path]) -> None:
    rows = records()
    doubled = [*rows[:50], rows[49], *rows[50:]]
    (problem,) = problems(write(doubled))
    assert ":52: time: hill already has 2024-06-01 01:00" in problem
    swapped = [*rows[:50], rows[51], rows[50], *rows[52:]]
    (problem,) = problems(write(swapped))
    assert ":53: time: 2024-06-01 02:00 of hill comes after 2024-06-01 03:00" in problem


def test_a_long_gap_in_the_window_is_an_error_with_its_place(write: Callable[..., Path]) -> None:
    rows = records()
    del rows[70:77]
    (problem,) = problems(write(rows))
    assert ":71: time: hill lacks 7 h from 2024-06-01 22:00" in problem
    assert read_weather_csv(write(rows), 48, date(2024, 6, 3)).temperature_c.shape == (48, 1)


def test_a_window_that_is_not_covered_is_an_error(write: Callable[..., Path]) -> None:
    (problem,) = problems(write(records()), start=None, hours=24 * 30)
    assert "no 1 June is followed by 720 h" in problem
    (problem,) = problems(write(records()), start=date(2030, 1, 1))
    assert "hill lacks 96 h from 2030-01-01 13:00" in problem


def test_only_the_first_ten_problems_are_listed(write: Callable[..., Path]) -> None:
    rows = [row.replace(",2.0", ",two") for row in records()]
    path = write(rows)
    assert len(problems(path)) == 10
    with pytest.raises(WeatherCsvError) as caught:
        read_weather_csv(path, 96, date(2024, 6, 1))
    assert str(caught.value) == f"{problems(path)[0]} (and at least 9 more problems)"


@pytest.mark.parametrize(
    ("wrong", "more"), [(1, ""), (2, " (and 1 more problem)"), (4, " (and 3 more problems)")]
)
def test_the_text_is_one_line_with_the_first_problem(
    write: Callable[..., Path], wrong: int, more: str
) -> None:
    rows = records()
    rows[70 : 70 + wrong] = [row.replace(",2.0", ",two") for row in rows[70 : 70 + wrong]]
    with pytest.raises(WeatherCsvError) as caught:
        read_weather_csv(write(rows), 96, date(2024, 6, 1))
    (line,) = str(caught.value).splitlines()
    assert line.endswith("if the value is missing" + more) and ":72: wind_m_s: 'two'" in line


def test_short_rows_are_named(write: Callable[..., Path]) -> None:
    rows = records()
    rows[60] = "hill,2024-06-01 12:00,12.0"
    (problem,) = problems(write(rows))
    assert ":62: row: has 3 cells, needs 6" in problem


def test_a_mistyped_year_is_named(write: Callable[..., Path]) -> None:
    rows = records()
    rows[5] = rows[5].replace("2024-", "0024-")
    assert problems(write(rows))[0].split(": ", 1)[1] == (
        "time: '0024-05-30 05:00' is not within 1900 to 2199; write local time as 2014-06-01 13:00"
    )


def test_a_window_is_covered_exactly_when_it_has_no_long_gap(write: Callable[..., Path]) -> None:
    """Goal: the cheap answer is the exact one.  Method: records thinned to every k-th hour, all windows."""
    for step in range(1, 10):
        station = _Station("hill")
        station.hours.extend(range(100, 300, step))
        station.lines.extend(range(len(station.hours)))
        for first in range(80, 320, 7):
            for last in range(first, first + 60):
                assert station.covers(first, last) == (station.gap_within(first, last) is None)


def test_a_line_without_an_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    """A few kB of gzip hold a line of 100 MB; the memory stays that of a short one."""
    path = tmp_path / "met.csv.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(HEADER.encode() + b"\n")
        for _ in range(100):
            file.write(b"a," * 500_000)
    tracemalloc.start()
    found = problems(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found[0].endswith(
        ":1: file: is not CSV (a line has more than 10000 characters); export it as comma-separated text"
    )
    assert peak < 5_000_000


def test_files_that_are_no_csv_are_refused(tmp_path: Path, write: Callable[..., Path]) -> None:
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    assert "holds no record" in problems(empty)[0]
    assert "holds no record" in problems(write([]))[0]
    assert "cannot be read" in problems(tmp_path / "absent.csv")[0]
    assert "cannot be read" in problems(tmp_path)[0]
    not_packed = tmp_path / "plain.csv.gz"
    not_packed.write_text(HEADER)
    assert "is not gzip data" in problems(not_packed)[0]
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress("\n".join([HEADER, *records()]).encode())[:-200])
    assert "end too early or are damaged" in problems(cut)[0]
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"station,time\n\xff\xfe\x00")
    assert "is not UTF-8 text" in problems(binary)[0]


def test_six_or_more_distinct_stations_come_out_of_the_beijing_set() -> None:
    """The set repeats stations under several names; those that measurements showed to be distinct must
    stay.
    """
    if not BEIJING.exists():
        pytest.skip("../shared is absent")
    field = Field(200, 30, 1, weather=BEIJING)
    assert field.start == date(2013, 6, 1)
    assert {"Huairou", "Shunyi", "Gucheng", "Changping", "Dongsi"} <= set(field.weather.stations)
    assert len(field.weather.stations) in (6, 7)
    assert len(field.weather.notes) + len(field.weather.stations) == 12
    assert np.isfinite(field.weather.dew_point_c).all()
    assert 20.0 < field.weather.temperature_c.mean() < 30.0
    assert (np.nan_to_num(field.class_shares()) > 0.01).all()
