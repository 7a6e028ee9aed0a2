"""What a run came to: one JSON object, a table for people, and files for plotting.

The digest is SHA-256 over the closed rounds (their model digests and counts of updates), the counts of
frames by their fate and the airtime both ways in us, in a fixed order: the same scenario and seed give
the same digest on every machine and after a restart of the gateway in mid-round.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from swarm.words import counted

__all__ = ["Report", "digest_of", "show", "write"]

METHODS = (
    ("start", "our nodes, shipped"),
    ("end", "our nodes, after the run"),
    ("rule", "rule, same sensors"),
    ("persistence", "yesterday's class"),
    ("majority", "most frequent class"),
    ("local_only", "local only"),
    ("public_local", "shipped + local tuning"),
    ("centralised", "centralised"),
)


@dataclass(slots=True)
class Report:
    """The object that `swarm sim run --json` prints; names and units are part of the product's contract."""

    scenario: str
    seed: int
    nodes: int
    virtual_days: float
    digest: str
    rounds: list[dict[str, Any]]
    accuracy: dict[str, Any]
    airtime_s: dict[str, Any]
    energy_mj_per_node_day: float
    violations: int
    frames: dict[str, Any]
    queries: dict[str, Any]
    cpu_s: float
    wall_s: float
    replay: str
    downlinks: dict[str, Any] = field(default_factory=dict)
    energy_by_state_mj: dict[str, float] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)
    violations_explained: list[str] = field(default_factory=list)
    multicast: dict[str, Any] | None = None
    """What became of the large block, where the scenario has one."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_json(self) -> str:
        """One JSON object; numbers that do not exist (no query was answered) are null."""
        return json.dumps(_plain(self.to_dict()), indent=1)


def digest_of(rounds: list[dict[str, Any]], frames: Mapping[str, Any], airtime_us: tuple[int, int]) -> str:
    """The digest of a run; see the module's docstring."""
    lines = [
        f"round {each['round']} {each['updates']} {each['model_version']} {each['digest']}" for each in rounds
    ]
    causes = ",".join(f"{cause}={count}" for cause, count in sorted(frames["lost_by_cause"].items()))
    lines.append(f"frames {frames['sent']} {frames['received']} {causes}")
    lines.append(f"airtime {airtime_us[0]} {airtime_us[1]}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _days(days: float) -> str:
    return "1 day" if days == 1 else f"{days:g} days"


def show(report: Report, console: Console | None = None) -> None:
    """The report as tables."""
    console = console or Console()
    console.print(
        f"[bold]{report.scenario}[/bold]: {counted(report.nodes, 'node')}, "
        f"{_days(report.virtual_days)}, seed {report.seed}"
    )
    accuracy = Table(
        title="macro-F1 over unseen days (new: crops that the model was shipped without)",
        title_justify="left",
    )
    crops = sorted({crop for each in report.accuracy["per_crop"].values() for crop in each})
    for heading in ("", "mean", "new", *crops):
        accuracy.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for method, words in METHODS:
        per_crop = report.accuracy["per_crop"].get(method, {})
        accuracy.add_row(
            words,
            _number(report.accuracy[method]),
            _number(report.accuracy["unseen_crops"].get(method)),
            *(_number(per_crop.get(crop)) for crop in crops),
        )
    console.print(accuracy)
    console.print(_totals(report))
    if report.violations:
        console.print(f"[bold red]{counted(report.violations, 'violation')}[/bold red]; the first:")
        for line in report.violations_explained:
            console.print(f"  {line}", markup=False, highlight=False)
    console.print(f"digest {report.digest}", highlight=False)
    console.print(f"again: {report.replay}", markup=False, highlight=False, soft_wrap=True)


def _totals(report: Report) -> Table:
    table = Table(show_header=False, title="the run", title_justify="left")
    closed = [each for each in report.rounds if each["updates"]]
    lost = ", ".join(f"{cause} {count}" for cause, count in sorted(report.frames["lost_by_cause"].items()))
    by_purpose = ", ".join(
        f"{purpose} {s:.0f}" for purpose, s in sorted(report.airtime_s["by_purpose"].items())
    )
    queries = report.queries
    updates = sum(each["updates"] for each in report.rounds)
    for name, value in (
        ("rounds", f"{len(report.rounds)} closed, {len(closed)} with updates, {counted(updates, 'update')}"),
        (
            "uplinks",
            f"{report.frames['sent']} sent, {report.frames['received']} received; lost: {lost or 'none'}",
        ),
        (
            "airtime",
            f"up {report.airtime_s['up']:.0f} s, down {report.airtime_s['down']:.0f} s ({by_purpose})",
        ),
        ("energy", f"{report.energy_mj_per_node_day:.0f} mJ per node and day ({_states(report)})"),
        (
            "questions",
            f"{queries['asked']} asked, {queries['answered']} answered, {queries['correct']} right; "
            f"half within {_number(queries['p50_s'])} s, 95 % within {_number(queries['p95_s'])} s",
        ),
        *([("large block", _delivered(report.multicast, report.nodes))] if report.multicast else []),
        ("violations", str(report.violations)),
        ("computing", f"{report.cpu_s:.1f} s of CPU, {report.wall_s:.1f} s on the clock"),
    ):
        table.add_row(name, value)
    return table


def _delivered(block: dict[str, Any], nodes: int) -> str:
    frames = ", ".join(f"{kind} {count}" for kind, count in block["frames"].items())
    return (
        f"{block['block_bytes']} B: {block['complete']} of {nodes} complete, {block['verified']} verified; "
        f"{block['airtime_s']:.0f} s on the air, {_number(block['airtime_ratio'])} times the least ({frames})"
    )


def _states(report: Report) -> str:
    return ", ".join(f"{state} {energy:.0f}" for state, energy in report.energy_by_state_mj.items())


def write(report: Report, folder: Path) -> list[str]:
    """Write `report.json`, `rounds.csv`, `curve.csv` and, where matplotlib is there, `curve.svg`.

    Returns a line for each file, or for what was left out and why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(report.to_json() + "\n", encoding="utf-8")
    said = [f"wrote {folder / 'report.json'}"]
    for name, rows in (("rounds.csv", report.rounds), ("curve.csv", report.curve)):
        if rows:
            with (folder / name).open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, fieldnames=list(rows[0]), restval="", extrasaction="ignore")
                writer.writeheader()
                writer.writerows(rows)
            said.append(f"wrote {folder / name}")
    said.append(_draw(report, folder / "curve.svg"))
    return said


def _draw(report: Report, path: Path) -> str:
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  (optional, and slow to import)
    except ImportError:
        return f"left out {path}: matplotlib is missing (pip install 'loraswarm[report]')"
    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    axes.plot(
        [point["airtime_s"] for point in report.curve], [point["macro_f1"] for point in report.curve], "o-"
    )
    for method, style in (("rule", ":"), ("public_local", "-."), ("centralised", "--")):
        value = report.accuracy[method]
        if value is not None and math.isfinite(value):
            axes.axhline(value, linestyle=style, color="grey", label=dict(METHODS)[method])
    axes.set_xlabel("airtime spent, up and down (s)")
    axes.set_ylabel("mean macro-F1 per crop")
    axes.set_title(f"{report.scenario}, {counted(report.nodes, 'node')}, {_days(report.virtual_days)}")
    axes.legend(loc="lower right")
    figure.savefig(path)
    return f"wrote {path}"


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.0f}"


def _plain(value: Any) -> Any:
    """JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
