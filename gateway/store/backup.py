"""A copy of the database while the daemon writes to it, and the way back; all copies are their owner's alone.

Theory of operation.  SQLite's own backup copies one consistent state, whatever is written meanwhile.  A copy
is made beside its place with mode 0600, judged (integrity, schema) and renamed: what has the name is whole.
A restore takes the lock of the data directory, so no daemon runs, and keeps what was there as `KEPT_NAME`,
with a number where there is one already.

Masked sums.  A copy that lives on beside the database could be put together with it, so a backup leaves out
parts of vectors and seeds: to the round they are lost frames.  A restore leaves the mark `restored`: whose
vector came after the backup would seem to be missing, and the open round must not ask for its masks.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from gateway.data_dir import DataDirLock
from gateway.store.sqlite import FILE_NAME, SqliteStore, StoreError

__all__ = ["KEPT_NAME", "backup", "restore"]

KEPT_NAME = "swarm.db.before-restore"
LOGS = ("-wal", "-shm")
_LEFT_OUT = ("fragment", "seeds")


def backup(data_dir: Path, file: Path) -> int:
    """Copy the database of `data_dir` to `file`, which may be there already; its size in bytes."""
    source = data_dir / FILE_NAME
    if not source.is_file():
        raise StoreError(f"{source}: is not there; name the daemon's swarm.toml with -c")
    itself = (source, *(source.with_name(source.name + log) for log in LOGS))
    if file.exists() and any(each.exists() and file.samefile(each) for each in itself):
        raise StoreError(f"{file}: is the database itself; name another file")
    with _private_copy(source, file) as part:
        _judge(part)
        _amend(part, *(f"DELETE FROM {table}" for table in _LEFT_OUT), "VACUUM")
    return file.stat().st_size


def restore(data_dir: Path, file: Path) -> Path | None:
    """Put the backup `file` in the database's place; where the one before is kept, None: there was none."""
    if not file.is_file():
        raise StoreError(f"{file}: is no file; name a backup that `swarm backup` made")
    lock = DataDirLock(data_dir)
    try:
        target = data_dir / FILE_NAME
        with _private_copy(file, target) as part:
            _judge(part)
            _amend(part, "INSERT OR REPLACE INTO meta (key, value) VALUES ('restored', 1)")
            kept = _keep(target) if target.exists() else None
            for log in LOGS:  # they belong to the database that goes
                target.with_name(target.name + log).unlink(missing_ok=True)
        SqliteStore(data_dir).close()  # an older schema is brought to the new form now, or refused now
    finally:
        lock.release()
    return kept


def _keep(target: Path) -> Path:
    """Put the present database aside: copied with its log, or as it is when it is damaged."""
    kept = target.with_name(KEPT_NAME)
    number = 1
    while kept.exists():
        number += 1
        kept = target.with_name(f"{KEPT_NAME}.{number}")
    try:
        with _private_copy(target, kept):
            pass
    except StoreError:
        os.replace(target, kept)
    return kept


@contextmanager
def _private_copy(source: Path, target: Path) -> Iterator[Path]:
    """A copy of a database beside `target`; it takes that name when the block ends well."""
    part = target.with_name(f".{target.name}.part")
    try:
        part.unlink(missing_ok=True)
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
        with closing(_reading(source)) as reading, closing(sqlite3.connect(part)) as writing:
            reading.backup(writing)
            writing.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, target)
    except sqlite3.Error as error:
        raise StoreError(f"{source}: cannot be copied to {target} ({error}); nothing was changed") from error
    except OSError as error:
        where = error.filename or target
        raise StoreError(f"{where}: {error.strerror}; name another place or make room") from error
    finally:
        part.unlink(missing_ok=True)


def _amend(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        there = {name for (name,) in db.execute("SELECT name FROM sqlite_schema")}
        for statement in statements:
            table = statement.partition(" FROM ")[2]
            if not table or table in there:  # a backup of an older schema has fewer
                db.execute(statement)


def _reading(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def _judge(path: Path) -> None:
    """A StoreError unless the file is a whole database of this program."""
    try:
        with closing(_reading(path)) as reading:
            verdict = str(reading.execute("PRAGMA integrity_check(1)").fetchone()[0])
            version = int(reading.execute("PRAGMA user_version").fetchone()[0])
            nodes = reading.execute("SELECT 1 FROM sqlite_schema WHERE name = 'node'").fetchone()
    except sqlite3.Error as error:
        verdict, version, nodes = str(error), 0, None
    if verdict != "ok":
        raise StoreError(f"the database is damaged ({verdict.splitlines()[0]}); take an older backup")
    if not version or nodes is None:
        raise StoreError("the file is not a database of this program; name one that `swarm backup` made")
