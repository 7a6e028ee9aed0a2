"""How a pilot's signing key comes into the daemon's data directory: as a file, never through the API."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gateway.commands.output import CommandError

if TYPE_CHECKING:
    from gateway.commands.client import Client

__all__ = ["bring_key", "is_new_key", "warning_without_key"]


def is_new_key(client: Client, seed: bytes, source: Path, *, replace: bool = False) -> bool:
    """Whether the daemon has to be given this key; CommandError where it cannot, and nothing was changed."""
    from swarm.security.signatures import SigningKey

    present = client.get("/api/state")["signing_key"]
    if present == SigningKey(seed).public_key.hex():
        return False
    if present is not None and not replace:
        raise CommandError(
            f"{source}: the daemon signs models with another key, and nodes that trust it would take none of"
            " these; replace it with --replace-signing-key, or use another data_dir"
        )
    if client.data_dir is None:
        raise _by_hand(source)
    return True


def bring_key(client: Client, seed: bytes, source: Path, *, replace: bool = False) -> bool:
    """Let the daemon sign with this key; False: it does already.  CommandError where it cannot."""
    from gateway.data_dir import DataDirError
    from gateway.signing_file import install
    from swarm.security.signatures import SigningKey

    if not is_new_key(client, seed, source, replace=replace):
        return False
    assert client.data_dir is not None
    try:
        install(client.data_dir, seed)
    except DataDirError as error:
        raise CommandError(str(error)) from error
    if client.post("/api/signing-key")["signing_key"] != SigningKey(seed).public_key.hex():
        raise _by_hand(source)
    return True


def _by_hand(source: Path) -> CommandError:
    from gateway.signing_file import SIGNING_FILE

    return CommandError(
        f"{source}: its signing key cannot be brought from here; copy {SIGNING_FILE} into the daemon's data"
        " directory (mode 0600), start the daemon again, then import again"
    )


def warning_without_key(client: Client, source: Path) -> str | None:
    """What to say of nodes with a group and no signing key; a file made by hand goes without."""
    if client.get("/api/state")["signing_key"] is not None:
        return (
            f"{source}: warning: these nodes were provisioned without a signing key, and this daemon signs"
            " its models: they take none; provision with --sign and flash them again, or use another data_dir"
        )
    if not source.is_dir():
        return None
    return (
        f"{source}: warning: these nodes take models from whoever has the group's key, for they were"
        " provisioned without a signing key; `swarm pilot provision NODES.csv DIR --sign` makes one"
    )
