"""`signing.key`: 64 hexadecimal digits, in a provisioned directory and in the daemon's data directory.

The file is the key's only place: the database, its backups, the API and the logs never hold it.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from gateway.data_dir import DataDirError
from swarm.security.signatures import SEED_SIZE, SigningKey

__all__ = ["SIGNING_FILE", "install", "read_seed", "read_signing_key"]

SIGNING_FILE = "signing.key"

log = logging.getLogger("swarm.gateway")


def read_seed(path: Path) -> bytes | None:
    """The 32 bytes of a key file, None without one; DataDirError, which shows nothing, when it is no use."""
    try:
        text = path.read_text("ascii", errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataDirError(f"{path}: {error.strerror}; let this user read it") from error
    if not re.fullmatch(rf"[0-9a-fA-F]{{{2 * SEED_SIZE}}}", text):
        raise DataDirError(f"{path}: is not {2 * SEED_SIZE} hex digits; restore this file from a backup")
    return bytes.fromhex(text)


def read_signing_key(data_dir: Path) -> SigningKey | None:
    """What the daemon signs with; None when no provisioned directory with a key was imported."""
    path = data_dir / SIGNING_FILE
    seed = read_seed(path)
    if seed is not None and path.stat().st_mode & 0o077:
        try:
            path.chmod(0o600)
        except OSError as error:
            what = f"{path}: others can read it, and chmod fails ({error.strerror}); give it mode 600"
            raise DataDirError(what) from error
        log.warning("%s: others could read it, and no more; who did can send models to all nodes", path)
    return None if seed is None else SigningKey(seed)


def install(data_dir: Path, seed: bytes) -> None:
    """Keep a key in the data directory of a daemon, for the user that owns it, whole or not at all."""
    path = data_dir / SIGNING_FILE
    part = path.with_suffix(".part")
    try:
        part.unlink(missing_ok=True)
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
            file.write(seed.hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        if os.geteuid() == 0:
            owner = data_dir.stat()
            os.chown(part, owner.st_uid, owner.st_gid)
        part.replace(path)
    except OSError as error:
        what = f"{path}: {error.strerror}; run this as the user that the daemon runs as"
        raise DataDirError(what) from error
