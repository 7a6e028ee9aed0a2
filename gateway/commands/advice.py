"""`swarm rounds advise`: what each learning mode would cost this cell and what it may win."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from gateway.commands.client import Client, ConfigFile
from gateway.commands.output import AsJson, show_json, show_table
from swarm.words import counted

__all__ = ["advise"]

COLUMNS = (
    *("mode", "frames, B", "up s", "down s", "hour: node, gateway", "rounds a day"),
    *("mJ", "first model, 4 rounds", "in benchmarks", "expected here"),
)


def advise(config_file: ConfigFile = Path("swarm.toml"), as_json: AsJson = False) -> None:
    """Cost and gain of every learning mode for the fleet at hand, none included, and which one to take.

    Example: swarm rounds advise --json
    """
    found = Client(config_file).get("/api/advice")
    if as_json:
        show_json(found)
        return
    show_table(COLUMNS, (_row(each) for each in found["modes"]))
    typer.echo("a round: frames and bytes a node, seconds on air of all nodes and of the gateway, mJ a node;")
    typer.echo(
        "hour: of what the law allows the dearest node, the gateway; rounds a day: at most, and by what"
    )
    bases = {each["expected"]["basis"] for each in found["modes"]}
    if "unknown" in bases:
        told = f"{found['trial']} will tell" if bases == {"none", "unknown"} else "not tried here"
        typer.echo(f"unknown: {told}")
    typer.echo(_known(found))
    for note in found["notes"]:
        typer.echo(f"note: {note}")
    advised = found["recommendation"]
    typer.echo(f"take {advised['mode']}: {advised['reason']}")


def _known(found: dict[str, Any]) -> str:
    known = found["known"]
    have = "has" if found["nodes"] == 1 else "have"
    return (
        f"known: {known['reported']} of {counted(found['nodes'], 'node')} {have} reported, the next round"
        f" is for {found['takers']}; {counted(known['labels'], 'label')} (median {known['labels_median']:g});"
        f" {counted(known['new'], 'node')} with crops new to the model;"
        f" the fleet's head: {known['taken']} took it, {known['refused']} refused it"
        + ("" if known["right"] is None else f"; their own answers were right in {known['right']:.0%}")
    )


def _row(each: dict[str, Any]) -> tuple[object, ...]:
    cost, elsewhere = each["cost"], each["in_benchmarks"]
    if not cost["nodes"]:
        why = "needs a faster data rate" if cost["unable"] else each["words"]
        return (cost["mode"], *[None] * 7, _pair(elsewhere), why)
    return (
        cost["mode"] + (f" ({counted(cost['unable'], 'node')} cannot)" if cost["unable"] else ""),
        f"{cost['frames']:.3g}, {cost['bytes']:.0f}",
        f"{cost['airtime_s']:.1f}",
        f"{cost['downlink_s']:.1f}",
        f"{cost['node_hour']:.1%}, {cost['gateway_hour']:.1%}",
        f"{cost['rounds_a_day']:.{0 if cost['rounds_a_day'] >= 10 else 1}f} ({cost['limit']})",
        f"{cost['energy_mj']:.0f}",
        f"{_span(cost['first_model_days'])}, {_span(cost['four_rounds_days'])}",
        _pair(elsewhere),
        each["words"],
    )


def _pair(elsewhere: list[float] | None) -> str | None:
    return None if elsewhere is None else f"{elsewhere[0]:.2f} -> {elsewhere[1]:.2f}"


def _span(days: float | None) -> str:
    """A time in the unit that says enough."""
    if days is None:
        return "never"
    if days < 2 / 24:
        return f"{days * 1440:.0f} min"
    return f"{days * 24:.0f} h" if days < 2 else f"{days:.0f} d"
