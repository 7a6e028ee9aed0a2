"""SQLite behind the core's `Store` effects: typed tables, numbered migrations, one transaction a batch.

Durability.  WAL with synchronous=FULL: when `commit` returns, a frame counter is on the disk, so the
frame that carries it may go on the air.  Killing the process at any point leaves the last batch whole
or absent.  Keys lie in this file, so it is readable by its owner only.

Deletion.  What is deleted is overwritten with zeros (secure_delete); the log may hold it until it is
written into the database.  A `Store` with `erase` has that done before `commit` returns.

Every way in which a file or a directory can be unusable becomes one `StoreError` line.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from swarm.effects import Event, Row, Scalar, Store

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["EVENTS_MAX", "LoggedEvent", "SqliteStore", "StoreError"]

FILE_NAME = "swarm.db"
EVENTS_MAX = 50_000
BUSY_TIMEOUT_MS = 5_000
_PRIVATE_TABLES = ("daemon", "event")
_DAMAGE = ("no such table", "no such column", "Could not decode")
_LOG = "INSERT OR REPLACE INTO event (slot, sequence, at_us, kind, data) VALUES (?, ?, ?, ?, ?)"
_MIGRATION_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


class StoreError(Exception):
    """The data directory cannot be used; the text is one line that says what to do."""


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One event of the ring; `sequence` grows by one per event and never repeats."""

    sequence: int
    event: Event


@dataclass(frozen=True, slots=True)
class _Table:
    key: str
    key_is_integer: bool
    columns: tuple[str, ...]
    names: frozenset[str]
    """Of all columns, the key's too."""
    upsert: str
    delete: str
    select: str


class SqliteStore:
    """The open database of one data directory.

    `events_max` bounds the ring of events, a tenth of it that of refused frames.  All methods may be
    called from one thread at a time, not necessarily the one that opened it.
    """

    def __init__(self, data_dir: Path, *, events_max: int = EVENTS_MAX) -> None:
        self.path = data_dir / FILE_NAME
        self._events_max = events_max
        self._unerased = True
        """Whether deleted rows may lie in the log; at the start nobody knows."""
        with _one_line(self.path):
            if not data_dir.is_dir():
                data_dir.mkdir(parents=True, mode=0o700)
            _make_private_file(self.path)
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            with _one_line(self.path):
                self._open()
        except StoreError:
            self._db.close()
            raise

    def load(self) -> dict[str, dict[str, Row]]:
        """Everything stored by the core: table -> key -> row, in the order of first storing.

        A row holds all columns of its table, the key's own included.
        """
        with _one_line(self.path):
            return {name: self._rows(table) for name, table in self._tables.items()}

    def commit(self, stores: Iterable[Store], events: Sequence[Event] = (), *, now_us: int = 0) -> None:
        """Write a batch in one transaction; on the disk when this returns, or a StoreError."""
        final: dict[tuple[str, str], Row | None] = {}
        for store in stores:
            final[store.table, store.key] = store.row
            self._unerased = self._unerased or store.erase
        with _one_line(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._write(final)
                self._db.executemany(_LOG, [self._logged_row(event) for event in events])
                if now_us:
                    self._set("clock_us", now_us)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            if self._unerased:
                # A reader of an older state (a backup in progress) holds it: the next commit tries again.
                self._unerased = bool(self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])

    def events(
        self, *, after: int | None = None, limit: int = 100, kind: str | None = None
    ) -> list[LoggedEvent]:
        """The latest `limit` events in the order they happened, or the first `limit` behind `after`."""
        newest_first = after is None
        order = "DESC" if newest_first else "ASC"
        with _one_line(self.path):
            rows = self._db.execute(
                "SELECT sequence, at_us, CAST(kind AS BLOB), CAST(data AS BLOB) FROM event"
                " WHERE sequence > ? AND (? IS NULL OR kind = ?)"
                f" ORDER BY sequence {order} LIMIT ?",
                (after or 0, kind, kind, limit),
            ).fetchall()
        logged = [_logged(*row) for row in rows]
        return logged[::-1] if newest_first else logged

    def daemon_value(self, key: str) -> Scalar:
        """One of the daemon's own values (`clock_us`), None when never set."""
        with _one_line(self.path):
            row = self._db.execute("SELECT value FROM daemon WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def close(self) -> None:
        self._db.close()

    # -- opening ----------------------------------------------------------------------------------

    def _open(self) -> None:
        db = self._db
        db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        if db.execute("PRAGMA user_version").fetchone()[0] == 0 and _table_names(db):
            raise StoreError(
                f"{self.path}: is not a database of this program; move it away, or use another data_dir"
            )
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")
        verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise StoreError(_damaged(self.path, str(verdict).splitlines()[0]))
        self._migrate()
        missing = sorted(_expected_tables() - set(_table_names(db)))
        if missing:
            raise StoreError(_damaged(self.path, f"it has no table {missing[0]}"))
        self._tables = {name: _describe(db, name) for name in _table_names(db) if name not in _PRIVATE_TABLES}
        self._sequence = int(db.execute("SELECT coalesce(max(sequence), 0) FROM event").fetchone()[0])
        self._slots = {noise: self._last_slot(noise) for noise in (False, True)}

    def _migrate(self) -> None:
        migrations = _migrations()
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if version > len(migrations):
            raise StoreError(
                f"{self.path}: was written by a newer version of this program (schema {version}, this one"
                f" knows {len(migrations)}); update the program, or use another data_dir"
            )
        for number, script in enumerate(migrations[version:], start=version + 1):
            # executescript commits on its own; one script with its version number is one transaction.
            self._db.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")

    # -- rows -------------------------------------------------------------------------------------

    def _rows(self, table: _Table) -> dict[str, Row]:
        rows: dict[str, Row] = {}
        for values in self._db.execute(table.select):
            rows[str(values[0])] = dict(zip((table.key, *table.columns), values, strict=True))
        return rows

    def _write(self, final: dict[tuple[str, str], Row | None]) -> None:
        """What each key holds at the end, statement by statement."""
        values: dict[str, list[tuple[Scalar, ...]]] = {}
        for (name, key), row in final.items():
            statement, row_values = self._statement(name, key, row)
            values.setdefault(statement, []).append(row_values)
        for statement, rows in values.items():
            self._db.executemany(statement, rows)

    def _statement(self, name: str, key: str, row: Row | None) -> tuple[str, tuple[Scalar, ...]]:
        table = self._tables.get(name)
        if table is None:
            raise StoreError(
                f"{self.path}: the core stores into a table {name!r} that the schema does not have"
            )
        stored_key: int | str = int(key) if table.key_is_integer else key
        if row is None:
            return table.delete, (stored_key,)
        assert row.get(table.key, stored_key) == stored_key, f"{name} {key} holds another key"
        if not table.names.issuperset(row):
            unknown = min(set(row) - table.names)
            raise StoreError(f"{self.path}: the schema has no column {name}.{unknown}")
        return table.upsert, (stored_key, *map(row.get, table.columns))

    def _logged_row(self, event: Event) -> tuple[int, int, int, str, str]:
        """Into the ring; refused frames have a small one of their own, or strangers could flush the log."""
        self._sequence += 1
        noise = event.kind == "dropped"
        size = max(1, self._events_max // 10) if noise else self._events_max
        slot = self._slots[noise] = (self._slots[noise] + 1) % size
        data = _ENCODER.encode(dict(event.data))
        return (-1 - slot if noise else slot, self._sequence, event.at_us, event.kind, data)

    def _last_slot(self, noise: bool) -> int:
        side = "slot < 0" if noise else "slot >= 0"
        row = self._db.execute(
            f"SELECT slot FROM event WHERE {side} ORDER BY sequence DESC LIMIT 1"
        ).fetchone()
        return -1 if row is None else abs(row[0]) - noise

    def _set(self, key: str, value: Scalar) -> None:
        self._db.execute("INSERT OR REPLACE INTO daemon (key, value) VALUES (?, ?)", (key, value))


def _make_private_file(path: Path) -> None:
    # Created with its mode before SQLite opens it: there is no moment in which others can read it.
    # The -wal and -shm files take the mode of the database.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)


def _migrations() -> list[str]:
    """The scripts of `migrations/`, number 1 first; gaps are a packaging error."""
    folder = resources.files("gateway.store") / "migrations"
    numbered = sorted(
        (int(match[1]), entry.read_text("utf-8"))
        for entry in folder.iterdir()
        if (match := _MIGRATION_NAME.fullmatch(entry.name))
    )
    assert [number for number, _ in numbered] == list(range(1, len(numbered) + 1))
    return [script for _, script in numbered]


def _table_names(db: sqlite3.Connection) -> list[str]:
    query = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
    return [str(name) for (name,) in db.execute(query)]


def _expected_tables() -> set[str]:
    """The tables of a database that has just been made."""
    with closing(sqlite3.connect(":memory:")) as fresh:
        for script in _migrations():
            fresh.executescript(script)
        return set(_table_names(fresh))


def _describe(db: sqlite3.Connection, name: str) -> _Table:
    """What the schema says of a table: the only names that ever stand in an SQL text."""
    info = db.execute(f'PRAGMA table_info("{name}")').fetchall()
    key = next(row for row in info if row[5])
    columns = tuple(row[1] for row in info if not row[5])
    quoted = [f'"{column}"' for column in (key[1], *columns)]
    marks = ", ".join("?" * len(quoted))
    updates = ", ".join(f"{column} = excluded.{column}" for column in quoted[1:])
    names = ", ".join(quoted)
    return _Table(
        key=key[1],
        key_is_integer=key[2] == "INTEGER",
        columns=columns,
        names=frozenset((key[1], *columns)),
        upsert=f'INSERT INTO "{name}" ({names}) VALUES ({marks})'
        f" ON CONFLICT ({quoted[0]}) DO UPDATE SET {updates}",
        delete=f'DELETE FROM "{name}" WHERE {quoted[0]} = ?',
        select=f'SELECT {names} FROM "{name}" ORDER BY rowid',
    )


def _logged(sequence: int, at_us: int | None, kind: bytes | None, data: bytes | None) -> LoggedEvent:
    """A row of the log; what the disk has damaged says so, and does not hide the others."""
    try:
        said = json.loads(data or b"")
    except ValueError:
        said = None
    if not isinstance(said, dict):
        said = {"damaged": True}
    return LoggedEvent(sequence, Event((kind or b"damaged").decode("utf-8", "replace"), at_us or 0, said))


def _plain(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


_ENCODER = json.JSONEncoder(default=_plain, separators=(",", ":"))


def _damaged(path: Path, why: str) -> str:
    return (
        f"{path}: the database is damaged ({why}); put a backup in its place, or move it away to start anew"
    )


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Turn what SQLite and the file system say into one line that says what to do."""
    try:
        yield
    except (sqlite3.ProgrammingError, sqlite3.IntegrityError, sqlite3.InterfaceError):
        raise  # a value of a wrong type: the program's mistake, not the disk's
    except sqlite3.OperationalError as error:
        if str(error).startswith(_DAMAGE):
            raise StoreError(_damaged(path, str(error))) from error
        raise StoreError(f"{path}: cannot be written ({error}); check free space and permissions") from error
    except UnicodeDecodeError as error:
        raise StoreError(_damaged(path, "it holds text that is none")) from error
    except sqlite3.DatabaseError as error:
        raise StoreError(_damaged(path, str(error))) from error
    except OSError as error:
        where = error.filename or path
        raise StoreError(f"{where}: {error.strerror}; choose a data_dir this user may write to") from error
