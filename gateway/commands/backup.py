"""`swarm backup` and `swarm restore`: the database out of the data directory, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.commands.client import ConfigFile
from gateway.commands.output import CommandError

__all__ = ["backup", "restore"]


def backup(
    file: Annotated[Path, typer.Argument(help="Where the copy goes.")],
    force: Annotated[bool, typer.Option("--force", help="Write over a FILE that is there already.")] = False,
    config_file: ConfigFile = Path("swarm.toml"),
) -> None:
    """Copy the database while the daemon runs: nodes, keys, counters, models.  FILE is its owner's alone.

    Example: swarm backup swarm-2026-11-25.db
    """
    from gateway import config
    from gateway.store.backup import backup as copy

    if file.exists() and not force:
        raise CommandError(f"{file}: is there already; name another file, or write over it with --force")
    size = copy(config.read(config_file).data_dir, file)
    typer.echo(f"{file}: {size / 1e6:.1f} MB, checked; it holds every key, keep it as you keep passwords")


def restore(
    file: Annotated[Path, typer.Argument(help="What `swarm backup` wrote.")],
    config_file: ConfigFile = Path("swarm.toml"),
) -> None:
    """Put a backup in the place of the database; the daemon must not run.  What was there is kept beside it.

    Example: swarm restore swarm-2026-11-25.db
    """
    from gateway import config
    from gateway.store.backup import restore as put_back

    data_dir = config.read(config_file).data_dir
    kept = put_back(data_dir, file)
    typer.echo(f"{data_dir}: restored from {file}" + (f"; the one before is {kept}" if kept else ""))
    typer.echo("frame counters are those of the backup: nodes refuse downlinks until these have caught up")
