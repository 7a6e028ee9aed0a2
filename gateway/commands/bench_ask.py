"""`swarm bench ask`: what asking for experts is worth, and what it costs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.commands.output import AsJson, CommandError, finite, show_json, show_table

__all__ = ["ask"]

SEEDS_MAX = 20


def ask(
    seeds: Annotated[int, typer.Option(min=1, max=SEEDS_MAX, help="So many seeds, from 1 on.")] = 3,
    nodes: Annotated[int, typer.Option(min=8, max=1000, help="Nodes, a multiple of 8.")] = 48,
    room: Annotated[int, typer.Option(min=1, max=7, help="So many of eight experts fit in a node.")] = 2,
    data_rate: Annotated[int, typer.Option(min=0, max=5, help="Of the nodes' uplinks; 5 is SF7.")] = 5,
    loss: Annotated[
        float, typer.Option(min=0.0, max=0.9, callback=finite, help="Share of frames lost, each way.")
    ] = 0.0,
    quick: Annotated[bool, typer.Option("--quick", help="One seed, less training.")] = False,
    output: Annotated[Path | None, typer.Option(help="Write the rows there as JSON.")] = None,
    as_json: AsJson = False,
) -> None:
    """Nodes that hold some of the experts judge digits: alone, with the gateway's replica, with one another.

    Example: swarm bench ask --seeds 3 --json
    """
    from simulations.bench import ask as bench
    from simulations.bench.ask_task import TaskMissing

    if nodes % 8:
        raise CommandError(f"--nodes: {nodes} do not spread evenly over eight sites; give a multiple of 8")
    setting = bench.Setting(
        nodes=nodes, room=room, data_rate=data_rate, loss=loss, queries=500 if quick else 2000
    )
    try:
        rows = bench.run(
            range(1, 2 if quick else seeds + 1),
            setting=setting,
            steps=400 if quick else None,
            on_progress=_tell if sys.stderr.isatty() else None,
        )
    except TaskMissing as error:
        raise CommandError(str(error)) from error
    if output is not None:
        import json

        output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if as_json:
        show_json(rows)
        return
    show_table(
        (
            "way",
            "alone",
            "asking",
            "all experts",
            "asks",
            "frames",
            "airtime ms",
            "mJ",
            "median s",
            "over minimum",
        ),
        (_cells(row) for row in bench.summary(rows)),
    )
    typer.echo("frames, airtime and energy per query; median latency of those that asked")


def _tell(what: str) -> None:
    typer.echo(what, err=True)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    def spread(name: str, digits: int = 3) -> str:
        return f"{row[name]:.{digits}f} ± {row[f'{name}_sd']:.{digits}f}" if name in row else "-"

    return (
        row["mode"],
        spread("local"),
        spread("asked_score"),
        spread("complete"),
        f"{row['asked_share']:.1%}",
        spread("frames_per_query", 2),
        f"{row['airtime_ms_per_query']:.0f}",
        f"{row['energy_mj_per_query']:.1f}",
        f"{row['latency_p50_s']:.2f}" if "latency_p50_s" in row else "-",
        f"{row['over_minimum']:+.1%}" if "over_minimum" in row else "-",
    )
