"""Rows of `swarm bench learn` for people: tables, and files for a report.

show(rows)                      # to the terminal
write(rows, Path("report"))     # rows.json, rows.csv, learn.md, and plots where matplotlib is there
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from simulations.bench.learn import COSTLY, Row
from swarm.words import counted

__all__ = ["markdown", "plain", "show", "write"]

_COLUMNS = (
    ("mode", "mode"),
    ("sf", "SF"),
    ("score", "score"),
    ("personal", "tuned"),
    ("served", "served"),
    ("relative", "of central"),
    ("public", "public"),
    ("public_local", "pub+local"),
    ("local_only", "local"),
    ("rule", "rule"),
    ("persistence", "persist."),
    ("centralised", "central"),
    ("frames_per_node", "frames"),
    ("bytes_per_node", "B/node"),
    ("airtime_s", "airtime s"),
    ("energy_mj_per_node", "mJ/node"),
    ("ratio_to_dense", "dense x"),
    ("ratio_to_average_adapters", "adapters x"),
    ("ratio_to_average_all", "all x"),
)
"""Fields and headings of a task's table."""
_RATIOS = {f"ratio_to_{name.removesuffix('_int8')}": name for name in COSTLY}


def plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as JSON values; numbers that do not exist are null."""

    def value(one: Any) -> Any:
        if isinstance(one, float):
            return round(one, 4) if math.isfinite(one) else None
        return one

    return [{key: value(one) for key, one in row.to_dict().items()} for row in rows]


def _cell(row: Row, name: str) -> str:
    value = getattr(row, name)
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    if name in _RATIOS:
        return f"{'> ' if _RATIOS[name] in row.ratio_bounds else ''}{_short(value)}"
    if name == "score" and row.sd is not None:
        return f"{value:.3f} ± {row.sd:.3f}"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 3 and name != "frames_per_node" else _short(value)
    return str(value)


def _short(value: float) -> str:
    return f"{value:.1f}" if abs(value) < 100 else f"{value:,.0f}"


def _by_task(rows: Sequence[Row]) -> dict[str, list[Row]]:
    tasks: dict[str, list[Row]] = {}
    for row in rows:
        tasks.setdefault(row.task, []).append(row)
    return tasks


def _heading(rows: list[Row]) -> str:
    first = rows[0]
    seeds = ", ".join(map(str, first.seeds))
    control = "; control: nothing is to be gained" if first.negative_control else ""
    return f"{first.task}: {counted(first.nodes, 'node')}, seeds {seeds}{control}"


def show(rows: Sequence[Row], console: Console | None = None) -> None:
    """One table a task, and what the nodes' validation said to each mode."""
    console = console or Console()
    if not console.is_terminal:
        console.width = 220
    for of_task in _by_task(rows).values():
        table = Table(title=_heading(of_task), title_justify="left", box=None, header_style="bold")
        for _, heading in _COLUMNS:
            table.add_column(heading, justify="left" if heading == "mode" else "right", no_wrap=True)
        for row in of_task:
            table.add_row(*(_cell(row, name) for name, _ in _COLUMNS))
        console.print(table)
        for row in of_task:
            for seed, verdict in zip(row.seeds, row.verdicts, strict=True):
                console.print(
                    f"  {row.mode} SF{row.sf} seed {seed}: {verdict}", markup=False, highlight=False
                )


def markdown(rows: Sequence[Row]) -> str:
    """The same tables in Markdown."""
    parts = []
    for of_task in _by_task(rows).values():
        parts.append(f"### {_heading(of_task)}\n")
        parts.append("| " + " | ".join(heading for _, heading in _COLUMNS) + " |")
        parts.append("|" + "---|" + "---:|" * (len(_COLUMNS) - 1))
        parts += ["| " + " | ".join(_cell(row, name) for name, _ in _COLUMNS) + " |" for row in of_task]
        parts.append("")
    return "\n".join(parts)


def write(rows: Sequence[Row], folder: Path) -> list[str]:
    """Write the files of the module's docstring; a line for each, or for what was left out and why."""
    folder.mkdir(parents=True, exist_ok=True)
    document = plain(rows)
    (folder / "rows.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(document[0]) if document else [])
        writer.writeheader()
        writer.writerows(document)
    (folder / "learn.md").write_text(markdown(rows), encoding="utf-8")
    said = [f"wrote {folder / name}" for name in ("rows.json", "rows.csv", "learn.md")]
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  (optional, and slow to import)
    except ImportError:
        return [
            *said,
            f"left out the plots in {folder}: matplotlib is missing (pip install 'loraswarm[report]')",
        ]
    for name, of_task in _by_task(rows).items():
        path = folder / f"{name}.svg"
        _draw(Figure(figsize=(11, 3.8)), of_task, path)
        said.append(f"wrote {path}")
    return said


def _draw(figure: Any, rows: list[Row], path: Path) -> None:
    """Score against airtime, bytes and energy, with the baselines as lines."""
    first = rows[0]
    axes = figure.subplots(1, 3, sharey=True)
    for axis, (name, label) in zip(
        axes,
        (
            ("airtime_s", "airtime of all nodes and the gateway (s)"),
            ("bytes_per_node", "bytes a node sent"),
            ("energy_mj_per_node", "energy of a node (mJ)"),
        ),
        strict=True,
    ):
        for mode in dict.fromkeys(row.mode for row in rows):
            own = [row for row in rows if row.mode == mode]
            x = [max(getattr(row, name), 1e-3) for row in own]
            axis.errorbar(
                x, [row.score for row in own], yerr=[row.sd or 0.0 for row in own], fmt="o-", label=mode
            )
        for baseline, style in (
            ("public_local", "-."),
            ("local_only", ":"),
            ("rule", (0, (1, 4))),
            ("centralised", "--"),
        ):
            value = getattr(first, baseline)
            if value is not None and math.isfinite(value):
                axis.axhline(value, color="grey", linestyle=style, label=baseline)
        axis.set_xscale("log")
        axis.set_xlabel(label)
    axes[0].set_ylabel("score")
    axes[0].legend(fontsize=7)
    figure.suptitle(_heading(rows))
    figure.tight_layout()
    figure.savefig(path)
