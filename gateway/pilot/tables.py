"""The pilot's two tables, NODES.csv and GATEWAYS.csv: read tolerantly, judged strictly, all errors at once.

Spreadsheet habits are accepted: a byte order mark, semicolons or tabs between cells, decimal commas
where the separator is not a comma, blank lines, a `sep=` line.  Everything else that is wrong becomes
one line `file:line: column: what is wrong; what to do`, and reading goes on to find the next.
"""

from __future__ import annotations

import csv
import difflib
import io
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from swarm.phy.regions import REGION_NAMES
from swarm.pilot.plan import CROPS, GatewaySite, NodeSite

__all__ = [
    "GATEWAYS_MAX",
    "NODES_MAX",
    "SENSORS",
    "CsvErrors",
    "NodeLine",
    "Problems",
    "Table",
    "delimiter",
    "read_gateways",
    "read_nodes",
    "read_table",
]

NODES_MAX = 10_000
GATEWAYS_MAX = 64
FILE_SIZE_MAX = 8 * 1024 * 1024
SENSORS = ("temperature", "humidity", "rain")
"""What a node's firmware reads; it cannot do without the first."""
NODE_COLUMNS = ("id", "lat", "lon", "height_m", "crop")
NODE_OPTIONAL = (
    *("dev_eui", "join_eui", "activation", "sensors", "report_min", "battery_mah", "plot", "soil"),
    "share_features",
)
"""`soil` is a note: nothing is computed from it."""
GATEWAY_COLUMNS = ("id", "lat", "lon", "height_m")
GATEWAY_OPTIONAL = ("antenna_gain_dbi", "region")

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_WHOLE = re.compile(r"\d{1,9}(\.0+)?")
_EXAMPLES = {"lat": "47.05", "lon": "9.65", "height_m": "2.5", "antenna_gain_dbi": "2.15"}
_FROM = {
    "dev_eui": "copy it from the node's label, or leave it empty",
    "join_eui": "copy it from the node's papers, or leave it empty",
    "id": "copy the gateway's EUI from its label or its gateway_ID setting",
}
_SPREADSHEET_NUMBER = re.compile(r"\d+([.,]\d+)?[eE]\+?\d+")
_T = TypeVar("_T")


class CsvErrors(Exception):
    """What is wrong in the tables, one line each; nothing was done."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


@dataclass(slots=True)
class Problems:
    """The errors and warnings of one or more files, in the order in which they were met."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, path: Path, line: int, column: str, what: str) -> None:
        self.errors.append(f"{path}:{line}: {column}: {what}")

    def add_file(self, path: Path, what: str) -> None:
        """A mistake of the file as a whole, which stands in no line of it."""
        self.errors.append(f"{path}: {what}")

    def raise_if_any(self) -> None:
        if self.errors:
            raise CsvErrors(self.errors)


@dataclass(frozen=True, slots=True)
class Line:
    """One row: where it stands, and its trimmed cells by column."""

    path: Path
    number: int
    cells: dict[str, str]
    decimal_comma: bool

    def refuse(self, problems: Problems, column: str, what: str) -> None:
        problems.add(self.path, self.number, column, what)


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a file and the columns it has."""

    path: Path
    columns: tuple[str, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class NodeLine:
    """A node of NODES.csv: its site, where it was read, and what provisioning needs ("" where left out)."""

    site: NodeSite
    line: Line
    dev_eui: str
    join_eui: str
    activation: str
    plot: str = ""
    share_features: bool = False
    """Its samples may be sent as they are (mode `features`)."""


def read_nodes(path: Path, problems: Problems) -> list[NodeLine]:
    """The valid nodes of NODES.csv; what is wrong with the others is added to `problems`."""
    before = len(problems.errors)
    table = read_table(path, NODE_COLUMNS, NODE_OPTIONAL, problems, NODES_MAX)
    nodes: list[NodeLine] = []
    seen: dict[str, dict[str, int]] = {"id": {}, "dev_eui": {}}
    for line in table.lines:
        node = _node(line, problems)
        for column, key in (("id", line.cells["id"].lower()), ("dev_eui", _plain_hex(line.cells["dev_eui"]))):
            first = seen[column].setdefault(key, line.number) if key else line.number
            if first != line.number:
                line.refuse(problems, column, f"the same as in line {first}; every node needs its own")
        if node is not None:
            nodes.append(node)
    if not table.lines and table.columns and len(problems.errors) == before:
        problems.add(path, 1, "id", "there are no nodes below the header; add one line per node")
    return nodes


def read_gateways(path: Path, problems: Problems) -> tuple[list[GatewaySite], str]:
    """The valid gateways of GATEWAYS.csv and their region (one for all, eu868 where left out)."""
    before = len(problems.errors)
    table = read_table(path, GATEWAY_COLUMNS, GATEWAY_OPTIONAL, problems, GATEWAYS_MAX)
    gateways: list[GatewaySite] = []
    seen: dict[str, int] = {}
    region, region_line = "", 0
    for line in table.lines:
        gateway_id = _eui(line, "id", problems, needed=True)
        lat, lon, height_m = _place(line, problems, height_max_m=1000)
        gain_dbi = _number(line, "antenna_gain_dbi", problems, -10, 30, default=2.15)
        name = line.cells["region"].lower() or "eu868"
        if name not in REGION_NAMES:
            line.refuse(problems, "region", f"{name!r} is not known; use one of {', '.join(REGION_NAMES)}")
        elif region and name != region:
            line.refuse(
                problems, "region", f"{name} here but {region} in line {region_line}; a pilot has one region"
            )
        else:
            region, region_line = name, line.number
        if gateway_id and seen.setdefault(gateway_id, line.number) != line.number:
            line.refuse(
                problems, "id", f"the same as in line {seen[gateway_id]}; every gateway has its own EUI"
            )
        if None not in (gateway_id, lat, lon, height_m, gain_dbi):
            gateways.append(
                GatewaySite(_some(gateway_id), _some(lat), _some(lon), _some(height_m), _some(gain_dbi))
            )
    if not table.lines and table.columns and len(problems.errors) == before:
        problems.add(path, 1, "id", "there are no gateways below the header; add one line per gateway")
    return gateways, region or "eu868"


def read_table(
    path: Path, columns: tuple[str, ...], optional: tuple[str, ...], problems: Problems, rows_max: int
) -> Table:
    """The rows of a CSV file with at least `columns`; cells of absent optional columns are ""."""
    empty = Table(path, (), ())
    text = _text(path, problems)
    if text is None:
        return empty
    separator, skipped = delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    names: list[str] = []
    lines: list[Line] = []
    ended = 0
    try:
        for cells in reader:
            ended = reader.line_num
            trimmed = [cell.strip() for cell in cells]
            if reader.line_num <= skipped or not any(trimmed):
                continue
            if not names:
                names = [name.lower() for name in trimmed]
                if not _header_is_good(path, reader.line_num, names, columns, optional, problems):
                    return empty
            elif len(lines) >= rows_max:
                problems.add(path, reader.line_num, names[0], f"more than {rows_max} rows; split the pilot")
                break
            else:
                line = _line(
                    path, reader.line_num, names, trimmed, (*columns, *optional), separator != ",", problems
                )
                if line is not None:
                    lines.append(line)
    except csv.Error as error:
        # Where the row began, for a stray quote swallows all to the end; the rows before it are judged too.
        problems.add(path, ended + 1, "file", f"not readable as CSV ({error}); look for a stray quote")
        return Table(path, tuple(names) if lines else (), tuple(lines))
    if not names:
        problems.add_file(path, f"is empty; start it with the header {','.join(columns)}")
        return empty
    return Table(path, tuple(names), tuple(lines))


def _text(path: Path, problems: Problems) -> str | None:
    try:
        if path.stat().st_size > FILE_SIZE_MAX:
            problems.add_file(path, f"is larger than {FILE_SIZE_MAX // 2**20} MiB; is it the right file?")
            return None
        raw = path.read_bytes()
    except FileNotFoundError:
        problems.add_file(path, "there is no such file; check the path")
        return None
    except OSError as error:
        problems.add_file(path, f"cannot be read ({error.strerror}); check the path and its permissions")
        return None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        problems.add(path, line, "file", 'is not UTF-8; save it as "CSV UTF-8" from the spreadsheet')
        return None


def delimiter(text: str) -> tuple[str, int]:
    """The cell separator, and how many lines stand before the header (a `sep=` line)."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    said = re.fullmatch(r'"?sep=(.)"?\s*', first, re.IGNORECASE)
    if said:
        return said[1], text[: text.index(first)].count("\n") + 1
    return max((",", ";", "\t"), key=first.count), 0


def _header_is_good(
    path: Path,
    line: int,
    names: list[str],
    columns: tuple[str, ...],
    optional: tuple[str, ...],
    problems: Problems,
) -> bool:
    before = len(problems.errors)
    for name in columns:
        if name not in names:
            problems.add(path, line, name, f"column is missing; the header needs {','.join(columns)}")
    for index, name in enumerate(names):
        if name and name in names[:index]:
            problems.add(path, line, name, "column appears twice; remove one of them")
        elif name and name not in (*columns, *optional):
            known = [each for each in (*columns, *optional) if each not in names]
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
            meant = f"; did you mean {close[0]}?" if close else ""
            problems.warnings.append(f"! {path}:{line}: {name}: unknown column is ignored{meant}")
    return len(problems.errors) == before


def _line(
    path: Path,
    number: int,
    names: list[str],
    cells: list[str],
    wanted: tuple[str, ...],
    decimal_comma: bool,
    problems: Problems,
) -> Line | None:
    while len(cells) > len(names) and not cells[-1]:
        cells = cells[:-1]
    if len(cells) > len(names):
        what = f"{len(cells)} cells but the header has {len(names)}; quote cells that contain the separator"
        problems.add(path, number, names[-1], what)
        return None
    if len(cells) < len(names):
        what = f"{len(cells)} cells but the header has {len(names)}; leave cells empty, but not out"
        problems.add(path, number, names[len(cells)], what)
        return None
    found = dict.fromkeys(wanted, "") | {
        name: cell for name, cell in zip(names, cells, strict=True) if name in wanted
    }
    return Line(path, number, found, decimal_comma)


def _node(line: Line, problems: Problems) -> NodeLine | None:
    before = len(problems.errors)
    if not _ID.fullmatch(line.cells["id"]):
        what = f"{line.cells['id']!r} is not an id; use 1 to 32 letters, digits, - or _"
        line.refuse(problems, "id", what if line.cells["id"] else "is empty; give the node a short name")
    lat, lon, height_m = _place(line, problems, height_max_m=200)
    crop = line.cells["crop"].lower()
    if crop not in CROPS:
        line.refuse(problems, "crop", f"{line.cells['crop']!r} is not known; use one of {', '.join(CROPS)}")
    soil = line.cells["soil"]
    for column in ("soil", "plot"):
        if len(line.cells[column]) > 64 or not line.cells[column].isprintable():
            line.refuse(problems, column, "is longer than 64 characters or not printable; shorten it")
    dev_eui = _eui(line, "dev_eui", problems) or ""
    if dev_eui == "0" * 16:
        line.refuse(
            problems, "dev_eui", "is all zeros; use the number printed on the radio or leave it empty"
        )
    join_eui = _eui(line, "join_eui", problems) or ""
    activation = line.cells["activation"].lower() or "otaa"
    if activation not in ("otaa", "abp"):
        line.refuse(problems, "activation", f"{line.cells['activation']!r} is not known; use otaa or abp")
    shares = line.cells["share_features"].lower() or "no"
    if shares not in ("yes", "no"):
        line.refuse(
            problems, "share_features", f"{line.cells['share_features']!r} is not known; use yes or no"
        )
    sensors = _sensors(line, problems)
    report_min = _whole(line, "report_min", problems, 1, 1440, default=60)
    battery_mah = _whole(line, "battery_mah", problems, 50, 200_000, default=2600)
    if len(problems.errors) > before:
        return None
    site = NodeSite(
        id=line.cells["id"],
        lat=_some(lat),
        lon=_some(lon),
        height_m=_some(height_m),
        crop=crop,
        soil=soil,
        sensors=sensors,
        report_min=_some(report_min),
        battery_mah=_some(battery_mah),
    )
    return NodeLine(site, line, dev_eui, join_eui, activation, line.cells["plot"], shares == "yes")


def _place(
    line: Line, problems: Problems, *, height_max_m: float
) -> tuple[float | None, float | None, float | None]:
    lat = _number(line, "lat", problems, -90, 90)
    lon = _number(line, "lon", problems, -180, 180)
    if lat == 0 and lon == 0:
        line.refuse(problems, "lat", "0, 0 lies in the Atlantic; enter the place in decimal degrees")
    return lat, lon, _number(line, "height_m", problems, 0.05, height_max_m)


def _number(
    line: Line, column: str, problems: Problems, low: float, high: float, *, default: float | None = None
) -> float | None:
    cell = line.cells[column]
    if not cell:
        if default is None:
            line.refuse(problems, column, f"is empty; enter a number from {low:g} to {high:g}")
        return default
    shown = cell
    if line.decimal_comma:
        cell = cell.replace(",", ".")
    value = float(cell) if _NUMBER.fullmatch(cell) else math.nan
    if not math.isfinite(value):
        line.refuse(
            problems,
            column,
            f"{_short(shown)} is not a number; enter one from {low:g} to {high:g}, like {_EXAMPLES[column]}",
        )
        return None
    if not low <= value <= high:
        line.refuse(problems, column, f"{_short(shown)} is not between {low:g} and {high:g}; correct it")
        return None
    return value


def _whole(line: Line, column: str, problems: Problems, low: int, high: int, *, default: int) -> int | None:
    cell = line.cells[column]
    if not cell:
        return default
    plain = cell.replace(",", ".") if line.decimal_comma else cell
    if not _WHOLE.fullmatch(plain) or not low <= int(plain.split(".")[0]) <= high:
        line.refuse(
            problems, column, f"{_short(cell)} is not a whole number from {low} to {high}; correct it"
        )
        return None
    return int(plain.split(".")[0])


def _eui(line: Line, column: str, problems: Problems, *, needed: bool = False) -> str | None:
    """16 lower-case hex digits, or None when empty or wrong."""
    cell = line.cells[column]
    plain = _plain_hex(cell)
    if not cell:
        if needed:
            line.refuse(problems, column, "is empty; enter the EUI, 16 hexadecimal digits")
        return None
    if re.fullmatch(r"[0-9a-f]{16}", plain):
        return plain
    if _SPREADSHEET_NUMBER.fullmatch(cell):
        line.refuse(
            problems,
            column,
            f"{_short(cell)} was turned into a number by a spreadsheet; format the column as text",
        )
    else:
        count = f"it has {len(plain)} characters" if len(plain) != 16 else "it holds other characters"
        line.refuse(
            problems, column, f"{_short(cell)} is not 16 hexadecimal digits ({count}); {_FROM[column]}"
        )
    return None


def _sensors(line: Line, problems: Problems) -> tuple[str, ...]:
    cell = line.cells["sensors"].lower()
    if not cell:
        return SENSORS
    names = tuple(name.strip() for name in cell.split("+"))
    unknown = [name for name in names if name not in SENSORS]
    if unknown:
        line.refuse(
            problems,
            "sensors",
            f"{_short(unknown[0])} is not known; write temperature, and +humidity and +rain where they are",
        )
    elif "temperature" not in names:
        line.refuse(
            problems, "sensors", f"has no temperature; every node needs that sensor, write temperature+{cell}"
        )
    return tuple(name for name in SENSORS if name in names)


def _plain_hex(cell: str) -> str:
    return cell.replace(":", "").replace("-", "").lower()


def _short(cell: str) -> str:
    return repr(cell if len(cell) <= 40 else cell[:37] + "...")


def _some(value: _T | None) -> _T:
    assert value is not None
    return value
