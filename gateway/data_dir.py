"""The data directory: one daemon at a time, the token that opens its HTTP API, and where that is."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
from pathlib import Path

__all__ = [
    "TOKEN_FILE",
    "DataDirError",
    "DataDirLock",
    "forget_url",
    "make_token",
    "read_token",
    "read_url",
    "write_url",
]

LOCK_FILE = "lock"
URL_FILE = "url"
TOKEN_FILE = "token"  # noqa: S105
TOKEN_BYTES = 32

log = logging.getLogger("swarm.gateway")


class DataDirError(Exception):
    """The data directory cannot be used; the text is one line that says what to do."""


class DataDirLock:
    """Held from construction to `release`; the system drops it when the process dies, however it dies."""

    def __init__(self, data_dir: Path) -> None:
        path = data_dir / LOCK_FILE
        self._data_dir = data_dir
        self._is_new = not data_dir.is_dir()
        try:
            if self._is_new:  # an existing one keeps its mode
                data_dir.mkdir(parents=True, mode=0o700)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(path, error) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(self._file, 20).decode("ascii", "replace").strip() or "unknown"
            os.close(self._file)
            raise DataDirError(
                f"{data_dir}: is in use by process {owner}; stop that daemon, or use another data_dir"
            ) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def take_back(self) -> None:
        """Remove the directory, if this lock made it, with what a start that failed left in it."""
        if not self._is_new:
            return
        for path in (
            *self._data_dir.glob("swarm.db*"),
            *(self._data_dir / n for n in (TOKEN_FILE, LOCK_FILE)),
        ):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # what else lies there is not ours
            self._data_dir.rmdir()

    def release(self) -> None:
        """Let the next daemon in; the file stays, for removing it would be a race."""
        os.close(self._file)


def make_token(data_dir: Path) -> str:
    """The API's token: read, or drawn at the first start."""
    path = data_dir / TOKEN_FILE
    try:
        token = read_token(data_dir)
        if token is None:
            token = secrets.token_urlsafe(TOKEN_BYTES)
            _write_private(path, token)
        elif path.stat().st_mode & 0o077:
            path.chmod(0o600)
            log.warning("%s: others could read it, and no more; delete it for a new one, then restart", path)
    except OSError as error:
        raise _unusable(path, error) from error
    return token


def read_token(data_dir: Path) -> str | None:
    """The API's token, None when no daemon has run here yet."""
    try:
        return (data_dir / TOKEN_FILE).read_text("ascii", errors="replace").strip() or None
    except FileNotFoundError:
        return None


def write_url(data_dir: Path, url: str) -> None:
    """Leave word of where the HTTP API listens: with port 0 nobody can know it before."""
    try:
        _write_private(data_dir / URL_FILE, url)
    except OSError as error:
        raise _unusable(data_dir / URL_FILE, error) from error


def read_url(data_dir: Path) -> str | None:
    """Where the running daemon's HTTP API is; None when none runs (one that was killed leaves its last)."""
    try:
        return (data_dir / URL_FILE).read_text("ascii", errors="replace").strip() or None
    except FileNotFoundError:
        return None


def forget_url(data_dir: Path) -> None:
    """Nobody listens there any more."""
    with contextlib.suppress(OSError):
        (data_dir / URL_FILE).unlink(missing_ok=True)


def _write_private(path: Path, text: str) -> None:
    """One line, for the owner alone, whole or not at all."""
    part = path.with_suffix(".part")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(text + "\n")
    part.replace(path)


def _unusable(path: Path, error: OSError) -> DataDirError:
    return DataDirError(f"{path}: {error.strerror}; choose a data_dir this user may write to")
