"""The key that signs what a pilot's nodes install: made once, in `signing.key`; nodes get its public half.

Every node has the group's key; without signatures who takes one node apart could send models to all.  A
directory that was provisioned without a key keeps its nodes as they are built until somebody asks for one,
because from then on every node has to be flashed again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gateway.data_dir import DataDirError
from gateway.pilot.tables import Problems
from gateway.signing_file import SIGNING_FILE, read_seed
from swarm.security.signatures import SEED_SIZE, SigningKey

__all__ = ["SIGNING_FILE", "choose", "header_lines"]

_DEFINE = "SWN_SIGNER"


def choose(
    out: Path, *, sign: bool, is_new: bool, problems: Problems, random_bytes: Callable[[int], bytes]
) -> bytes | None:
    """The directory's signing key: as it has it, or a new one for a new directory, or if it was asked for."""
    try:
        seed = read_seed(out / SIGNING_FILE)
    except DataDirError as error:
        problems.errors.append(str(error))
        return None
    if seed is not None:
        return seed
    if any(_DEFINE in header.read_text("utf-8", errors="replace") for header in out.glob("headers/*.h")):
        problems.add_file(
            out / SIGNING_FILE,
            "is not there, and nodes were built to take what it signs alone; restore it from a backup",
        )
        return None
    if not is_new and not sign:
        problems.warnings.append(
            "! the nodes of this directory take models from whoever has the group's key, for it was"
            " provisioned before models were signed; --sign makes a signing key: flash every node again with"
            " its new header, then import the directory"
        )
        return None
    if not is_new:
        problems.warnings.append(
            "! models are signed from the next import on: nodes take none until they are flashed again with"
            " their new headers, and flashed ones none before the import"
        )
    return random_bytes(SEED_SIZE)


def header_lines(seed: bytes) -> list[str]:
    """What one node's firmware is compiled with: the public half, which is no secret."""
    cells = ", ".join(f"0x{byte:02x}" for byte in SigningKey(seed).public_key)
    return [
        "",
        "/* Whose blocks the node takes (Ed25519), for swn_config_t.signer; no secret. */",
        f"#define {_DEFINE} {{{cells}}}",
    ]
