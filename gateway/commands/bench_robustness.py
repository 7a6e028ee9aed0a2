"""`swarm bench robustness`: what loss, silence, lies and restarts cost each learning mode."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.commands.bench import one_thread, progress, seeds_of
from gateway.commands.output import AsJson, CommandError, show_json, show_table
from swarm.words import counted

__all__ = ["robustness"]

NODES_MIN, NODES_MAX = 10, 1000


def robustness(
    modes: Annotated[
        list[str] | None, typer.Option("--mode", help="A mode (several times; default: all of them).")
    ] = None,
    nodes: Annotated[int, typer.Option(min=NODES_MIN, max=NODES_MAX, help="Nodes of the fleet.")] = 60,
    seeds: Annotated[str, typer.Option(help="How many seeds, or which: 3 or 1,2,7.")] = "3",
    as_json: AsJson = False,
) -> None:
    """Each learning mode against loss, absence, staleness, garbage, wrong labels and a gateway that restarts.

    Example: swarm bench robustness --mode prototypes --seeds 1
    """
    one_thread()
    from simulations.bench import robustness as bench
    from swarm.federation.modes import MODES

    known = list(dict.fromkeys(MODES[plan.mode].name for plan in bench.PLANS))
    for name in modes or ():
        if name not in known:
            raise CommandError(f"--mode: there is no {name}; there are: {', '.join(known)}")
    plans = [plan for plan in bench.PLANS if MODES[plan.mode].name in (modes or known)]
    chosen = seeds_of(seeds)
    with progress() as on_progress:
        found = bench.summary(
            [bench.run(plans, nodes=nodes, seed=seed, on_progress=on_progress) for seed in chosen]
        )
    if as_json:
        show_json(found)
        return
    header, *lines = bench.table(found)
    show_table(header, lines)
    widest = max(each["sd"] for each in found)
    what = f"means of {counted(len(chosen), 'seed')}, sd up to {widest:.3f}"
    typer.echo(f"share of right answers of nodes whose labels are right; {what}")
