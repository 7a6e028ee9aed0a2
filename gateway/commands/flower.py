"""`swarm flower`: an unmodified Flower ServerApp over a cell, simulated or live."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.commands.client import ConfigFile, address
from gateway.commands.output import AsJson, CommandError, show_json, show_table
from swarm.words import counted

if TYPE_CHECKING:
    from gateway.upstream.driver import CellDriver
    from simulations.world import World

__all__ = ["app"]

WINDOW_US = 15 * 60_000_000
"""Longer than a window of any shipped scenario."""

app = typer.Typer(help="Run a Flower ServerApp over a LoRa cell.", no_args_is_help=True)


@app.command()
def run(
    where: Annotated[
        str, typer.Argument(metavar="APP", help="A Flower app's directory, or module:object of a ServerApp.")
    ],
    scenario: Annotated[
        str | None, typer.Option(help="Over the nodes of this scenario, in virtual time.")
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Over the running daemon that -c names.")] = False,
    nodes: Annotated[int | None, typer.Option(help="So many nodes instead of the scenario's.")] = None,
    days: Annotated[int | None, typer.Option(help="So many days instead of the scenario's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed: another field, weather and air.")] = None,
    history_days: Annotated[
        int, typer.Option(min=0, max=60, help="Labelled days that simulated nodes begin with.")
    ] = 10,
    run_config: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE for the app, as in `flwr run`; may be repeated.")
    ] = None,
    config_file: ConfigFile = Path("swarm.toml"),
    as_json: AsJson = False,
) -> None:
    """Each round of the app becomes one round on the air; it starts from `context.state["arrays"]`.

    Example: swarm flower run examples/flower_app --scenario smoke
    """
    if (scenario is not None) == live:
        raise CommandError("give either --scenario NAME or --live")
    from gateway.upstream.apps import AppError, load_server_app
    from gateway.upstream.driver import CellStopped

    try:
        server_app, config = load_server_app(where)
        config |= _overrides(run_config or [])
        if live:
            from gateway.upstream.daemon_cell import DaemonCell

            url, token_file = address(config_file)
            _run(server_app, config, DaemonCell(url, token_file), None, as_json)
        else:
            world = _world(str(scenario), nodes, days, seed, history_days)
            from simulations.virtual_cell import VirtualCell

            _run(server_app, config, VirtualCell(world, stopped=CellStopped), world, as_json)
    except (AppError, CellStopped) as error:
        raise CommandError(str(error)) from error


def _run(
    server_app: Any, config: dict[str, Any], cell: CellDriver, world: World | None, as_json: bool
) -> None:
    from gateway.upstream.apps import run_server_app
    from gateway.upstream.grid import LoRaGrid

    score = None if world is None else _scores(world)
    start = score() if score is not None else None
    rounds: list[dict[str, Any]] = []
    grid = LoRaGrid(cell, on_round=_note(rounds, world, as_json))
    began_s = time.perf_counter()
    final = run_server_app(server_app, grid, cell.vector(), config)
    if final is not None:
        cell.hand_in(final, gather=False, close_s=None)
    summary: dict[str, Any] = {
        "rounds": rounds,
        "handed_in": final is not None,
        "wall_s": round(time.perf_counter() - began_s, 3),
    }
    if world is not None:
        if final is not None:
            _deliver(world)
        world.finish()
        summary |= {
            "macro_f1": {"start": start, "end": score() if score is not None else None},
            "violations": world.checkers.violations.count,
            "digest": world.digest(),
        }
    if as_json:
        show_json(summary)
    else:
        _show(summary)
    if summary.get("violations"):
        raise typer.Exit(1)


def _note(rounds: list[dict[str, Any]], world: World | None, as_json: bool) -> Callable[[int, int], None]:
    def on_round(number: int, replies: int) -> None:
        rounds.append({"round": number, "replies": replies})
        if world is not None:
            last = world.rounds[-1]
            rounds[-1] |= {key: last[key] for key in ("closed_s", "airtime_up_s", "airtime_down_s")}
        if not as_json:
            typer.echo(f"round {number}: {counted(replies, 'reply', 'replies')}", err=True)

    return on_round


def _show(summary: dict[str, Any]) -> None:
    rounds = summary["rounds"]
    columns = tuple(rounds[0]) if rounds else ("round",)
    show_table(columns, ([_text(each[key]) for key in columns] for each in rounds), empty="no rounds")
    what = "the app's final model goes out with the next window" if summary["handed_in"] else "no final model"
    typer.echo(f"{what}; {summary['wall_s']} s on the clock")
    if "digest" in summary:
        accuracy = summary["macro_f1"]
        typer.echo(f"macro-F1 of the nodes: {accuracy['start']:.3f} before, {accuracy['end']:.3f} at the end")
        typer.echo(f"violations {summary['violations']}, digest {summary['digest']}")


def _scores(world: World) -> Callable[[], float]:
    """The nodes' macro-F1 on days after the scenario's, as they are when it is called."""
    from simulations.evaluation import Evaluation

    evaluation = Evaluation(world.scenario, world.field, world.model)
    return lambda: float(evaluation.score(world.cell.nodes.firmware).mean())


def _deliver(world: World) -> None:
    """Let the next window take the final model to the nodes, if the scenario's days suffice."""
    while world.coordinator.rounds.waiting is not None and world.cell.now_us < world.end_us:
        world.run_until(min(world.cell.now_us + WINDOW_US, world.end_us))
    world.run_until(min(world.cell.now_us + WINDOW_US, world.end_us))


def _text(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _world(name: str, nodes: int | None, days: int | None, seed: int | None, history_days: int) -> World:
    from simulations import scenario
    from simulations.world import World

    try:
        chosen = scenario.load(name).override(nodes=nodes, days=days, seed=seed)
    except scenario.ScenarioError as error:
        raise CommandError(str(error)) from error
    return World(chosen, history_days=history_days)


def _overrides(given: list[str]) -> dict[str, Any]:
    """KEY=VALUE, the values as in TOML; Flower's own `--run-config` reads the same."""
    import tomllib

    made: dict[str, Any] = {}
    for each in given:
        key, equals, value = each.partition("=")
        if not equals or not key.strip():
            raise CommandError(f"--run-config: {each!r} is not KEY=VALUE")
        try:
            made[key.strip()] = tomllib.loads(f"value = {value.strip()}")["value"]
        except tomllib.TOMLDecodeError:
            made[key.strip()] = value.strip()
    return made
