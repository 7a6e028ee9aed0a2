"""`swarm bench`: measured comparisons, here of learning modes on learning tasks."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from gateway.commands.output import AsJson, CommandError, show_json, show_table

__all__ = ["app", "one_thread", "progress", "seeds_of"]

app = typer.Typer(help="Measured comparisons.", no_args_is_help=True)

QUICK_NODES, NODES, SEEDS = 200, 1000, 3
QUICK_TASK, QUICK_MODES = "agri", ("prototypes", "dense_int8")


@app.callback()
def _group() -> None:
    """Measured comparisons."""


@app.command()
def learn(
    tasks: Annotated[
        list[str] | None, typer.Option("--task", help="A task (several times; default: all; see --list).")
    ] = None,
    modes: Annotated[
        list[str] | None, typer.Option("--mode", help="A mode (several times; default: all; see --list).")
    ] = None,
    factors: Annotated[
        list[int] | None, typer.Option("--sf", min=7, max=12, help="Spreading factors; default 7 and 12.")
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(min=2, max=10_000, help=f"Nodes at most; default {NODES}.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="How many seeds, or which: 3 or 1,2,7. Default 3.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="A file of your own for one task, instead of what it is built of.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Instead of the 60 rounds of modes that hold so many.")
    ] = None,
    report_dir: Annotated[
        Path | None, typer.Option("--report", metavar="DIR", help="Write rows, tables and plots there.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="One task, two modes, SF7, 200 nodes, one seed.")
    ] = False,
    listing: Annotated[bool, typer.Option("--list", help="Name tasks and modes and exit.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare learning modes on tasks: score beside every baseline, airtime, bytes, energy.

    Example: swarm bench learn --task voice --mode prototypes --mode policy --sf 12
    """
    one_thread()
    from simulations.bench import tables
    from simulations.bench.learn import learn as measure
    from simulations.tasks.task import TaskError

    if listing:
        for what, known in _known().items():
            show_table((what, ""), known.items())
        return
    chosen = _chosen("task", tasks or ([QUICK_TASK] if quick else None))
    if data is not None and len(chosen) != 1:
        raise CommandError("--data: belongs to one task; name it with --task")
    with progress() as on_progress:
        try:
            rows = list(
                measure(
                    chosen,
                    _chosen("mode", modes or (QUICK_MODES if quick else None)),
                    sorted(set(factors or ([7] if quick else [7, 12]))),
                    nodes=nodes or (QUICK_NODES if quick else NODES),
                    seeds=seeds_of(seeds or ("1," if quick else str(SEEDS))),
                    data=data,
                    rounds=rounds,
                    on_progress=on_progress,
                )
            )
        except TaskError as error:
            raise CommandError(str(error)) from error
    if report_dir is not None:
        for line in tables.write(rows, report_dir):
            typer.echo(line, err=True)
    if as_json:
        show_json(tables.plain(rows))
    else:
        tables.show(rows)


def _known() -> dict[str, dict[str, str]]:
    """Names and what they are, of tasks and of modes."""
    from simulations.bench.modes import AVERAGED, MODES, POLICY
    from simulations.tasks.catalogue import TASKS

    modes = {mode.name: mode.about for mode in MODES.values()}
    modes |= {name: averaged.about for name, averaged in AVERAGED.items()}
    modes[POLICY] = "what the product decides, nothing sent where nothing is to be gained"
    return {"task": {name: entry.about for name, entry in TASKS.items()}, "mode": modes}


def _chosen(what: str, names: Sequence[str] | None) -> list[str]:
    """The names given with --task or --mode, or all."""
    known = _known()[what]
    for name in names or ():
        if name not in known:
            raise CommandError(f"--{what}: there is no {name}; there are: {', '.join(known)}")
    return list(dict.fromkeys(names or known))


def one_thread() -> None:
    """Small matrices are slower on many threads, and sums of many threads differ from run to run."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def seeds_of(text: str) -> list[int]:
    """`3` is 1, 2, 3; `5,` or `1,7` are those."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdigit() and len(part) < 10 for part in parts):
        raise CommandError(f"--seeds: {text!r}: write how many (3) or which (1,2,7)")
    if "," in text:
        return sorted({int(part) for part in parts})
    if not 1 <= int(parts[0]) <= 100:
        raise CommandError(f"--seeds: {text}: 1 to 100 seeds")
    return list(range(1, int(parts[0]) + 1))


@contextmanager
def progress() -> Iterator[Callable[[str], None] | None]:
    """What is being measured, on a terminal's standard error, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("") as status:
        yield status.update
