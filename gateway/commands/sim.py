"""`swarm sim`: run a scenario in virtual time, or play its nodes to a real gateway."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands.output import AsJson, CommandError, finite, show_json, show_table

if TYPE_CHECKING:
    from simulations.scenario import Scenario

__all__ = ["app"]

app = typer.Typer(
    help="Simulated swarms: the firmware and the gateway's core in a virtual field.", no_args_is_help=True
)

Name = Annotated[
    str, typer.Argument(metavar="SCENARIO", help="A shipped scenario, or a TOML file of your own.")
]
Nodes = Annotated[int | None, typer.Option(help="So many nodes instead of the scenario's.")]
Days = Annotated[int | None, typer.Option(help="So many days instead of the scenario's.")]
Seed = Annotated[int | None, typer.Option(help="Another seed: another field, weather and air.")]
_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:]+)\]|([^:\s]+)):([0-9]{1,5})")


@app.command("list")
def list_scenarios(as_json: AsJson = False) -> None:
    """The scenarios that are shipped.

    Example: swarm sim list
    """
    from simulations import scenario

    found = [scenario.load(name) for name in scenario.names()]
    if as_json:
        show_json(
            [{"name": one.name, "title": one.title, "nodes": one.nodes, "days": one.days} for one in found]
        )
    else:
        show_table(
            ("name", "nodes", "days", ""), ((one.name, one.nodes, one.days, one.title) for one in found)
        )


@app.command()
def run(
    name: Name,
    nodes: Nodes = None,
    days: Days = None,
    seed: Seed = None,
    weather: Annotated[
        Path | None, typer.Option(help="An hourly station CSV instead of made weather.")
    ] = None,
    report_dir: Annotated[
        Path | None, typer.Option("--report", metavar="DIR", help="Write the report there.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a scenario to its end: accuracy beside its baselines, airtime, energy, violations, and a digest.

    Example: swarm sim run smoke --seed 7
    """
    from simulations import report, world
    from simulations.field.weather_csv import WeatherCsvError
    from simulations.scenario import ScenarioError

    with _progress() as on_progress:
        try:
            made = world.run(
                name,
                nodes=nodes,
                days=days,
                seed=seed,
                weather=None if weather is None else str(weather),
                on_progress=on_progress,
            )
        except (ScenarioError, WeatherCsvError) as error:
            raise CommandError(str(error)) from error
    if report_dir is not None:
        report.write(made, report_dir)
    if as_json:
        typer.echo(made.to_json())
    else:
        report.show(made)
    if made.violations:
        raise typer.Exit(1)


@app.command()
def live(
    name: Name,
    gateway: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="The UDP address of a gateway daemon.")
    ] = "127.0.0.1:1700",
    speed: Annotated[
        float,
        typer.Option(
            min=0.001,
            max=1e6,
            callback=finite,
            help="Virtual seconds a second; the daemon's \\[lab] clock_speed.",
        ),
    ] = 1.0,
    nodes: Nodes = None,
    seed: Seed = None,
) -> None:
    """Play the scenario's nodes to a running gateway daemon, as a packet forwarder would.

    Example: swarm sim live live_1000 --gateway 127.0.0.1:1700 --speed 60
    """
    match = _ADDRESS.fullmatch(gateway)
    if match is None or not 0 < int(match[3]) < 65_536:
        raise CommandError(f"--gateway: {gateway!r} is no address; write HOST:PORT, as 127.0.0.1:1700")
    chosen = _load(name, nodes, seed)
    import asyncio

    from simulations import live as player

    asyncio.run(player.run(chosen, (match[1] or match[2], int(match[3])), speed=speed))


@app.command()
def export(
    name: Name,
    file: Annotated[Path, typer.Argument(help="The JSON file to write.")],
    nodes: Nodes = None,
    seed: Seed = None,
) -> None:
    """Write the identities and keys of a scenario's nodes, for `swarm nodes import` before `swarm sim live`.

    Says too what the daemon's swarm.toml needs: the nodes listen for models at the scenario's rate.

    Example: swarm sim export live_1000 nodes.json
    """
    from simulations import provisioning

    chosen = _load(name, nodes, seed)
    provisioning.export(chosen, file)
    typer.echo(f"{file}: written; `swarm nodes import {file}` tells a gateway")
    channel = provisioning.channel(chosen)
    needed = channel.settings()
    if needed:
        typer.echo(f"these nodes listen for models at {channel}; swarm.toml needs {', '.join(needed)}")


def _load(name: str, nodes: int | None, seed: int | None) -> Scenario:
    from simulations import scenario

    try:
        return scenario.load(name).override(nodes=nodes, seed=seed)
    except scenario.ScenarioError as error:
        raise CommandError(str(error)) from error


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """A bar of the virtual days on a terminal's standard error, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("days", total=None)
        yield lambda day, days: bar.update(task, completed=day, total=days)
