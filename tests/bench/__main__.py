"""`python -m tests.bench [--json] [--only NAME]`: measure, and print a table."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from tests.bench.measure import Measured, machine


def _uplinks() -> list[Measured]:
    from tests.bench import uplinks

    return uplinks.measure()


def _load() -> list[Measured]:
    from tests.bench import load

    return load.measure()


def _node() -> list[Measured]:
    from tests.bench import node

    return node.measure()


def _fragmentation() -> list[Measured]:
    from tests.bench import fragmentation

    return fragmentation.measure()


def _flower() -> list[Measured]:
    from tests.bench import flower

    return flower.measure()


def _month() -> list[Measured]:
    from tests.bench import month

    return month.measure()


BENCHES: dict[str, tuple[str, Callable[[], list[Measured]]]] = {
    "uplinks": ("uplinks through the gateway, one core", _uplinks),
    "load": ("a daemon behind its gateways: UDP, 10,000 devices, a database (wall time)", _load),
    "node": ("the C node on this machine", _node),
    "fragmentation": ("a block as fragments (TS004), one core", _fragmentation),
    "flower": ("the Flower strategy door", _flower),
    "month": ("a simulated month", _month),
}


def main() -> None:
    """Run the chosen benches."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure what the parts cost.")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("--only", choices=sorted(BENCHES), help="only this one")
    arguments = parser.parse_args()
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    before = machine()
    results = {
        name: measure()
        for name, (_, measure) in BENCHES.items()
        if arguments.only is None or name == arguments.only
    }
    if arguments.json:
        rows = {name: [asdict(row) for row in measured] for name, measured in results.items()}
        print(json.dumps({"machine": before, "results": rows}, indent=1))  # noqa: T201
        return
    _show(before, results)


def _show(before: dict[str, object], results: dict[str, list[Measured]]) -> None:
    table = Table(title=", ".join(f"{key} {value}" for key, value in before.items()), title_justify="left")
    for column in ("what", "value", "", "spread", "note"):
        table.add_column(column, justify="right" if column in ("value", "spread") else "left")
    for name, measured in results.items():
        table.add_section()
        table.add_row(f"[bold]{BENCHES[name][0]}[/]")
        for row in measured:
            spread = "" if row.spread is None else f"{row.spread:.0%}"
            table.add_row(row.name, _number(row.value), row.unit, spread, row.note)
    console = Console()
    console.print(table)
    console.print(
        "CPU seconds of this process, medians of repeats; spread: (highest - lowest) / median.  Where the"
        " load average is above the number of cores, others made the caches cold: all this is slower then.",
        style="dim",
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
