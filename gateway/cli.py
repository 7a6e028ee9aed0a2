"""`swarm`: the composition root; every command, and the one place where errors become one line.

Exit codes: 0 done, 1 done but the result says no (violations in a simulation), 2 not done, 130 Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands import (
    advice,
    asking,
    backup,
    bench,
    bench_ask,
    bench_readings,
    bench_robustness,
    blocks,
    demo,
    experts,
    federation,
    flower,
    gateway,
    model,
    nodes,
    pilot,
    sim,
)
from gateway.commands.output import CommandError

if TYPE_CHECKING:
    import click

__all__ = ["app", "main"]

app = typer.Typer(
    name="swarm",
    help="LoRa microcontrollers that learn and answer together.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(gateway.app, name="gateway")
app.add_typer(sim.app, name="sim")
bench.app.command()(bench_ask.ask)
bench.app.command()(bench_readings.readings)
bench.app.command()(bench_robustness.robustness)
app.add_typer(bench.app, name="bench")
app.add_typer(nodes.app, name="nodes")
asking.rounds.command()(advice.advise)
app.add_typer(asking.rounds, name="rounds")
app.add_typer(experts.app, name="experts")
app.add_typer(blocks.app, name="blocks")
app.command()(demo.demo)
app.command()(asking.ask)
app.command()(asking.airtime)
app.command()(asking.events)
app.command()(backup.backup)
app.command()(backup.restore)
app.add_typer(pilot.app, name="pilot")
app.add_typer(model.app, name="model")
app.add_typer(flower.app, name="flower")
app.add_typer(federation.app, name="federation")


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"swarm {version('loraswarm')}")
        except PackageNotFoundError:
            typer.echo("swarm, from a source tree that is not installed")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """LoRa microcontrollers that learn and answer together."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The program `swarm`; ends the process."""
    try:
        code = run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:  # while modules are still loading
        code = 130
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """One command line; the exit code.  What the project knows to go wrong is lines, not a traceback."""
    # Flower reports its use unless told not to, from the moment it is imported.
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    import click

    from gateway.config import ConfigError
    from gateway.data_dir import DataDirError
    from gateway.store.sqlite import StoreError

    try:
        code = app(list(arguments), prog_name="swarm", standalone_mode=False)
    except (CommandError, ConfigError, DataDirError, StoreError) as error:
        return _fail(str(error))
    except click.exceptions.Abort:
        return 130
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f"; see `{context.command_path} --help`" if context is not None else ""
        return _fail(f"{_said(error)}{hint}")
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}")
    return code if isinstance(code, int) else 0


def _said(error: click.ClickException) -> str:
    """What is wrong with a command line; Click and Typer both add what may have been meant, to a command."""
    said = error.message if "Did you mean" in error.message else error.format_message()
    return said.rstrip(".")


def _fail(text: str) -> int:
    for line in text.splitlines():
        typer.echo(f"swarm: {line}", err=True)
    return 2


if __name__ == "__main__":
    main()
