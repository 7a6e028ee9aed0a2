"""Tables from outside: CSV files (also .gz) as columns, with one line for each thing that is wrong.

table = read_csv(path, wanted=("time", "station"))
table.numbers("vwc")        # float64[n], nan where a cell is empty
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simulations.tasks.task import TaskError
from swarm.words import column_names

__all__ = ["Table", "data_folder", "read_csv"]

ROWS_MAX = 5_000_000
SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
_EMPTY = frozenset({"", "NA", "NaN", "nan", "null", "None"})


def data_folder(name: str) -> Path:
    """The folder of a data set that lies beside the project, `../shared/data/NAME`; TaskError without it."""
    folder = SHARED_DATA / name
    if not folder.is_dir():
        raise TaskError(f"{folder}: not there; give a file of your own with --data FILE")
    return folder


@dataclass(frozen=True)
class Table:
    """A CSV file's cells by column name."""

    path: Path
    columns: dict[str, list[str]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def numbers(self, column: str) -> NDArray[np.float64]:
        """A column as float64[n], nan where a cell is empty; TaskError for text."""
        cells = self.columns[column]
        try:
            return np.array([np.nan if cell.strip() in _EMPTY else float(cell) for cell in cells])
        except ValueError:
            for line, cell in enumerate(cells, 2):
                if cell.strip() not in _EMPTY and not _is_number(cell):
                    raise TaskError(
                        f"{self.path}: line {line}: {column}: {cell[:20]!r} is not a number; "
                        "correct it, or leave the cell empty"
                    ) from None
            raise

    def is_numeric(self, column: str) -> bool:
        """Whether the first cell that is not empty is a number."""
        cells = (cell for cell in self.columns[column] if cell.strip() not in _EMPTY)
        return _is_number(next(cells, "0"))

    def hours(self, column: str) -> NDArray[np.int64]:
        """A column of ISO times (2024-06-01 or 2024-06-01 13:10) as whole hours since 1970."""
        hours = np.empty(len(self), np.int64)
        for row, cell in enumerate(self.columns[column]):
            try:
                when = datetime.fromisoformat(cell.strip())
            except ValueError:
                raise TaskError(
                    f"{self.path}: line {row + 2}: {column}: {cell[:20]!r} is not a time; "
                    "write it as 2024-06-01 13:00"
                ) from None
            hours[row] = (when.toordinal() - 719_163) * 24 + when.hour
        return hours


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def read_csv(path: Path, wanted: Sequence[str]) -> Table:
    """The table; TaskError when it cannot be read or lacks one of the `wanted` columns."""
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    except FileNotFoundError:
        raise TaskError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise TaskError(f"{path}: is a directory; give a file in it") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise TaskError(f"{path}: cannot be read as CSV text ({error})") from error
    rows = csv.reader(io.StringIO(text))
    header = [cell.strip() for cell in next(rows, [])]
    missing = [name for name in wanted if name not in header]
    if missing:
        names = column_names(header)
        there = f"there are: {', '.join(names)[:200]}" if names else "line 1 is no header line"
        raise TaskError(f"{path}: line 1: column {missing[0]} is missing; {there}")
    columns: dict[str, list[str]] = {name: [] for name in header}
    lists = [columns[name] for name in header]
    for line, cells in enumerate(rows, 2):
        if len(cells) != len(header):
            raise TaskError(
                f"{path}: line {line}: {len(cells)} cells, the header has {len(header)}; complete it"
            )
        if line > ROWS_MAX:
            raise TaskError(f"{path}: more than {ROWS_MAX} rows; cut the file")
        for cell, column in zip(cells, lists, strict=True):
            column.append(cell)
    if not columns or not next(iter(columns.values())):
        raise TaskError(f"{path}: holds no rows")
    return Table(path, columns)
