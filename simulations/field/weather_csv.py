"""Real hourly station records (CSV or .csv.gz) as the weather of a field.

One row per station and hour, local time without daylight saving, header in the first line:

    station         any name
    time            2014-06-01 13:00 (ISO), on the full hour, ascending within a station
    temperature_c   air temperature                        also accepted: TEMP
    dew_point_c     dew point, or humidity_pct (0-100)     also accepted: DEWP
    rain_mm         rain of the hour                       also accepted: RAIN
    wind_m_s        wind speed                             also accepted: WSPM

Other columns are ignored. An empty cell is a missing value. Within the used window a station may lack up to
6 hours in a row; they are interpolated (rain: none). Stations that repeat another's record are left out and
named in `Weather.notes`. Cloud is not in such files: it is estimated from each day's temperature range and
from rain.
"""

from __future__ import annotations

import csv
import gzip
import logging
import math
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from simulations.field.weather import Weather
from swarm.words import column_names, counted

__all__ = ["StationMissing", "WeatherCsvError", "read_weather_csv"]

log = logging.getLogger(__name__)

PROBLEMS_MAX = 10
GAP_H_MAX = 6
ROWS_MAX = 5_000_000
STATIONS_MAX = 200
LINE_MAX = 10_000
YEARS = (1900, 2199)
SAME_SHARE = 0.5  # two stations with so many equal temperatures are one record under two names

# Column, accepted names, lowest and highest plausible value.
_NUMBERS = (
    ("temperature_c", ("temperature_c", "TEMP"), -60.0, 60.0),
    ("dew_point_c", ("dew_point_c", "DEWP"), -80.0, 40.0),
    ("humidity_pct", ("humidity_pct",), 0.0, 105.0),
    ("rain_mm", ("rain_mm", "RAIN"), 0.0, 300.0),
    ("wind_m_s", ("wind_m_s", "WSPM"), 0.0, 90.0),
)

F64 = NDArray[np.float64]


class WeatherCsvError(ValueError):
    """A station file that cannot be used; `problems` holds up to ten `file:line: column: what; what to
    do`.

    The text is one line, the first of them and how many more there are: a recording is mended where it was
    made, not line by line as a file of settings is.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems[:PROBLEMS_MAX])
        more = len(self.problems) - 1
        at_least = "at least " if len(problems) >= PROBLEMS_MAX else ""
        others = f" (and {at_least}{counted(more, 'more problem')})" if more else ""
        super().__init__(self.problems[0] + others)


class StationMissing(WeatherCsvError):
    """A station that was asked for by `name` has no record; `there` are those that have."""

    def __init__(self, path: Path, name: str, there: Sequence[str]) -> None:
        self.name, self.there = name, tuple(there)
        super().__init__([f"{path}:1: station: there is no {name!r}; there are {', '.join(there)}"])


class _Problems:
    """Collects problems of one file and raises once there are enough of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: list[str] = []

    def add(self, line: int, column: str, what: str, what_to_do: str) -> None:
        self.found.append(f"{self.path}:{line}: {column}: {what}; {what_to_do}")
        if len(self.found) >= PROBLEMS_MAX:
            self.stop()

    def stop(self) -> None:
        if self.found:
            raise WeatherCsvError(self.found)


@dataclass
class _Station:
    """Where a station's records stand in the file: hours since year 1 and line numbers, both ascending."""

    name: str
    hours: array[int] = field(default_factory=lambda: array("q"))
    lines: array[int] = field(default_factory=lambda: array("q"))

    def covers(self, first: int, last: int) -> bool:
        """Whether a window has no gap of more than 6 h; cheap where the station has hardly a record."""
        there = bisect_right(self.hours, last) - bisect_left(self.hours, first)
        if (there + 1) * (GAP_H_MAX + 1) <= last - first + 1:
            return False
        return self.gap_within(first, last) is None

    def gap_within(self, first: int, last: int) -> tuple[int, int, int] | None:
        """(line before, first missing hour, hours missing) of the first gap of more than 6 h in a window,
        or None.
        """
        known = np.array(self.hours, dtype=np.int64)
        inside = np.flatnonzero((known >= first) & (known <= last))
        fenced = np.concatenate([[first - 1], known[inside], [last + 1]])
        missing = np.diff(fenced) - 1
        at = int(missing.argmax())
        if missing[at] <= GAP_H_MAX:
            return None
        before = int(np.searchsorted(known, fenced[at], side="right")) - 1
        return int(self.lines[max(before, 0)]), int(fenced[at]) + 1, int(missing[at])


def _rows(path: Path, problems: _Problems) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of every row that is not blank; anything unreadable becomes a problem."""
    line = 1
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        if path.suffix == ".gz" and not packed:
            problems.add(
                1,
                "file",
                "is not gzip data although its name ends in .gz",
                "compress it with gzip or rename it to .csv",
            )
            problems.stop()
        unpack = gzip.open if packed else open
        with unpack(path, "rt", encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(_lines(text))
            for cells in reader:
                line = reader.line_num
                if line > ROWS_MAX:
                    problems.add(
                        line, "file", f"has more than {ROWS_MAX} lines", "cut it to the seasons you need"
                    )
                    problems.stop()
                if any(cell.strip() for cell in cells):
                    yield line, cells
    except OSError as error:
        reason = error.strerror or str(error)
        problems.add(
            line,
            "file",
            f"cannot be read ({reason})",
            "check the path, the rights and that the file is whole",
        )
    except (EOFError, zlib.error):
        problems.add(line, "file", "the gzip data end too early or are damaged", "copy the file again")
    except UnicodeDecodeError:
        problems.add(line, "file", "is not UTF-8 text", "save it as UTF-8 CSV")
    except csv.Error as error:
        problems.add(line, "file", f"is not CSV ({error})", "export it as comma-separated text")
    problems.stop()


def _lines(text: TextIO) -> Iterator[str]:
    """The lines of the file; one without an end is not read to its end."""
    while line := text.readline(LINE_MAX):
        if len(line) == LINE_MAX and not line.endswith(("\n", "\r")):
            raise csv.Error(f"a line has more than {LINE_MAX} characters")
        yield line


def _columns(header: list[str], problems: _Problems) -> dict[str, int]:
    """Where each known column stands; every missing one is a problem."""
    names = [name.strip() for name in header]
    there = ", ".join(column_names(names)[:12]) or "line 1 is none"
    found: dict[str, int] = {name: names.index(name) for name in ("station", "time") if name in names}
    for column, accepted, _, _ in _NUMBERS:
        for name in accepted:
            if name in names:
                found.setdefault(column, names.index(name))
    for column in ("station", "time", "temperature_c", "rain_mm", "wind_m_s"):
        if column not in found:
            problems.add(1, column, "column is missing", f"add it to the header ({there})")
    if "dew_point_c" not in found and "humidity_pct" not in found:
        problems.add(1, "dew_point_c", "neither dew_point_c nor humidity_pct is there", "add one of them")
    problems.stop()
    return found


def _hour_of(text: str) -> int | str:
    """Hours since year 1 of a local ISO time on the full hour, or what is wrong with it."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return f"{text[:30]!r} is not a time"
    if moment.tzinfo is not None:
        return f"{text[:30]!r} has a time zone"
    if moment.minute or moment.second or moment.microsecond:
        return f"{text[:30]!r} is not on the full hour"
    if not YEARS[0] <= moment.year <= YEARS[1]:
        return f"{text[:30]!r} is not within {YEARS[0]} to {YEARS[1]}"
    return moment.toordinal() * 24 + moment.hour


def _named(hour: int) -> str:
    """An hour since year 1 as people write it."""
    return f"{date.fromordinal(hour // 24)} {hour % 24:02d}:00"


def _survey(
    path: Path, problems: _Problems, only: Sequence[str]
) -> tuple[dict[str, int], dict[str, _Station]]:
    """First pass: the columns, and where each station's hours stand; times are checked here."""
    columns: dict[str, int] = {}
    stations: dict[str, _Station] = {}
    others: set[str] = set()
    for line, cells in _rows(path, problems):
        if not columns:
            columns = _columns(cells, problems)
            continue
        if len(cells) <= max(columns.values()):
            problems.add(
                line,
                "row",
                f"has {len(cells)} cells, needs {max(columns.values()) + 1}",
                "complete or delete it",
            )
            continue
        name = cells[columns["station"]].strip()
        if only and name not in only:
            if len(others) < STATIONS_MAX:
                others.add(name)
            continue
        hour = _hour_of(cells[columns["time"]])
        if isinstance(hour, str):
            problems.add(line, "time", hour, "write local time as 2014-06-01 13:00")
            continue
        station = stations.setdefault(name, _Station(name))
        if len(stations) > STATIONS_MAX:
            problems.add(line, "station", f"more than {STATIONS_MAX} stations", "keep those near the field")
            problems.stop()
        last = station.hours[-1] if station.hours else hour - 1
        if hour == last:
            problems.add(
                line, "time", f"{name} already has {_named(hour)}", "keep one row per station and hour"
            )
        elif hour < last:
            problems.add(
                line,
                "time",
                f"{_named(hour)} of {name} comes after {_named(last)}",
                "sort each station by time",
            )
        else:
            station.hours.append(hour)
            station.lines.append(line)
    absent = next((name for name in only if name not in stations), None)
    if absent is not None and (stations or others) and not problems.found:
        raise StationMissing(path, absent, sorted(others | stations.keys()))
    if not stations and not problems.found:
        problems.add(1, "file", "holds no record", "check that the export worked")
    problems.stop()
    return columns, stations


def _first_hour(stations: dict[str, _Station], hours: int, start: date | None, problems: _Problems) -> int:
    """The hour of the window's first reading, 13:00 of the start date; without one, of the first covered 1
    June.
    """

    def gaps(first: int) -> list[tuple[_Station, tuple[int, int, int]]]:
        found = ((station, station.gap_within(first, first + hours - 1)) for station in stations.values())
        return [(station, gap) for station, gap in found if gap is not None]

    begin = min(station.hours[0] for station in stations.values())
    end = max(station.hours[-1] for station in stations.values())
    if start is None:
        for year in range(date.fromordinal(begin // 24).year, date.fromordinal(end // 24).year + 1):
            first = date(year, 6, 1).toordinal() * 24 + 13
            if all(station.covers(first, first + hours - 1) for station in stations.values()):
                return first
        problems.add(
            1,
            "time",
            f"no 1 June is followed by {hours} h of records from {counted(len(stations), 'station')} "
            f"(file: {_named(begin)} to {_named(end)})",
            "choose another start or fewer days, or remove stations",
        )
        problems.stop()
        return begin  # never reached: stop() raises
    first = start.toordinal() * 24 + 13
    for station, (line, missing_from, count) in gaps(first):
        problems.add(
            line,
            "time",
            f"{station.name} lacks {count} h from {_named(missing_from)}",
            f"choose a start within {_named(begin)} to {_named(end)} without such gaps, or remove it",
        )
    problems.stop()
    return first


def _number(text: str, lowest: float, highest: float) -> float | str:
    """A plausible number, nan for an empty cell, or what is wrong."""
    if not text.strip():
        return math.nan
    try:
        value = float(text)
    except ValueError:
        return f"{text[:20]!r} is not a number"
    if not math.isfinite(value):
        return f"{text[:20]!r} is not a finite number"
    if not lowest <= value <= highest:
        return f"{value:g} lies outside {lowest:g} to {highest:g}"
    return value


def _values(
    path: Path,
    columns: dict[str, int],
    stations: dict[str, _Station],
    first: int,
    hours: int,
    problems: _Problems,
) -> tuple[dict[str, dict[str, F64]], dict[str, NDArray[np.int64]]]:
    """Second pass: each station's columns [hours] in the window, nan where missing, and the line of each
    hour (0: none).
    """
    numbers = [(column, columns[column], low, high) for column, _, low, high in _NUMBERS if column in columns]
    values = {name: {column: np.full(hours, np.nan) for column, *_ in numbers} for name in stations}
    lines = {name: np.zeros(hours, dtype=np.int64) for name in stations}
    rows = _rows(path, problems)
    next(rows, None)
    for line, cells in rows:
        hour = _hour_of(cells[columns["time"]])
        if isinstance(hour, str) or not 0 <= hour - first < hours:
            continue
        name = cells[columns["station"]].strip()
        if name not in stations:
            continue
        lines[name][hour - first] = line
        for column, at, low, high in numbers:
            value = _number(cells[at], low, high)
            if isinstance(value, str):
                problems.add(
                    line, column, value, "correct it, or leave the cell empty if the value is missing"
                )
            else:
                values[name][column][hour - first] = value
    problems.stop()
    return values, lines


def _filled(series: F64, name: str, column: str, lines: NDArray[np.int64], problems: _Problems) -> F64:
    """The series without short holes (rain: none fell; else straight lines); a hole of more than 6 h is a
    problem.
    """
    known = np.flatnonzero(~np.isnan(series))
    fenced = np.concatenate([[-1], known, [len(series)]])
    missing = np.diff(fenced) - 1
    at = int(missing.argmax())
    if missing[at] > GAP_H_MAX:
        line = int(lines[max(int(fenced[at]), 0)]) or 1
        problems.add(
            line,
            column,
            f"{name} lacks {missing[at]} h in a row from here",
            "fill them, choose another start or remove it",
        )
        return np.zeros_like(series)
    if column == "rain_mm":
        return np.nan_to_num(series)
    return np.interp(np.arange(len(series)), known, series[known])


def _dew_point_c(temperature_c: F64, humidity_pct: F64) -> F64:
    """Dew point in degC from temperature and relative humidity (FAO-56 eq. 11 turned round)."""
    gamma = np.log(np.clip(humidity_pct, 1.0, 100.0) / 100.0) + 17.27 * temperature_c / (
        temperature_c + 237.3
    )
    return 237.3 * gamma / (17.27 - gamma)


def _cloud(temperature_c: F64, rain_mm: F64) -> F64:
    """Cloud 0 to 1 [hours] from how small a noon-to-noon day's temperature range is beside the window's
    largest, and from rain.
    """
    days = temperature_c[: len(temperature_c) // 24 * 24].reshape(-1, 24)
    ranges = days.max(axis=1) - days.min(axis=1)
    cloud_of_day = np.clip(1.15 - ranges / max(float(np.quantile(ranges, 0.9)), 1.0), 0.0, 1.0)
    hourly = np.interp(np.arange(len(temperature_c)), np.arange(len(ranges)) * 24.0 + 12.0, cloud_of_day)
    return np.asarray(np.maximum(hourly, 0.9 * (rain_mm > 0)))


def _distinct(temperature: dict[str, F64]) -> tuple[list[str], list[str]]:
    """(stations to keep, one note per station that repeats an earlier one), in file order."""
    kept: list[str] = []
    notes: list[str] = []
    for name, series in temperature.items():
        twin = next((other for other in kept if np.mean(temperature[other] == series) >= SAME_SHARE), None)
        if twin is None:
            kept.append(name)
        else:
            notes.append(f"station {name} repeats {twin} in this window and is left out")
    return kept, notes


def read_weather_csv(
    path: Path, hours: int, start: date | None = None, *, only: Sequence[str] = ()
) -> Weather:
    """The weather of `hours` hours (at least 24) from noon of `start` at each distinct station of a file.

    only: the stations to read, the others' rows are passed over; empty: all.
    start None: 1 June of the first year in which every station covers the whole window. Raises
    WeatherCsvError.
    """
    problems = _Problems(path)
    columns, stations = _survey(path, problems, only)
    first = _first_hour(stations, hours, start, problems)
    values, lines = _values(path, columns, stations, first, hours, problems)
    filled = {
        name: {
            column: _filled(series, name, column, lines[name], problems)
            for column, series in of_station.items()
        }
        for name, of_station in values.items()
    }
    problems.stop()
    kept, notes = _distinct({name: series["temperature_c"] for name, series in filled.items()})
    for note in notes:
        log.info("%s: %s", path, note)

    def stack(column: str) -> F64:
        return np.column_stack([filled[name][column] for name in kept])

    temperature, rain = stack("temperature_c"), stack("rain_mm")
    dew = (
        stack("dew_point_c") if "dew_point_c" in columns else _dew_point_c(temperature, stack("humidity_pct"))
    )
    cloud = np.column_stack([_cloud(temperature[:, i], rain[:, i]) for i in range(len(kept))])
    begin = datetime.fromordinal(first // 24) + timedelta(hours=12)
    return Weather(
        begin.date(),
        tuple(kept),
        temperature.astype(np.float32),
        np.minimum(dew, temperature - 0.05).astype(np.float32),
        rain.astype(np.float32),
        stack("wind_m_s").astype(np.float32),
        cloud.astype(np.float32),
        tuple(notes),
    )
