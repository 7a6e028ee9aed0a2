"""`swarm experts`: who holds which experts, and who should."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.commands.client import Client, ConfigFile
from gateway.commands.output import AsJson, local_time, show_json, show_table

__all__ = ["app"]

app = typer.Typer(help="Experts: which nodes hold them, and which should.", no_args_is_help=True)


@app.command("list")
def list_experts(config_file: ConfigFile = Path("swarm.toml"), as_json: AsJson = False) -> None:
    """The experts of the gateway's own model, and the nodes that said which they hold.

    Example: swarm experts list --json
    """
    found = Client(config_file).get("/api/experts")
    if as_json:
        show_json(found)
        return
    here = _numbers(found["here"]) or "none"
    typer.echo(f"the gateway's own (generation {found['generation']}): {here}")
    show_table(
        ("node", "holds", "generation", "its gate chose", "receiver", "silent", "contradicted", "said"),
        (
            (
                each["name"] or each["dev_eui"],
                _numbers(each["held"]) or "none",
                each["generation"],
                _shares(each["seen"]),
                "always on" if each["always_on"] else "after it sent",
                each["silent"],
                each["contradicted"],
                local_time(each["reported_us"]),
            )
            for each in found["holders"]
        ),
        empty="no node has said which experts it holds; nodes that hold all of them need not",
    )


@app.command()
def place(
    room: Annotated[int, typer.Option(min=1, max=16, help="So many experts fit in a node.")] = 2,
    replicas: Annotated[
        int, typer.Option(min=1, max=16, help="So many nodes hold each expert, at least.")
    ] = 2,
    config_file: ConfigFile = Path("swarm.toml"),
    as_json: AsJson = False,
) -> None:
    """Plan which node should hold which experts, by what its gate chose, its link, its battery and its
    silence.

    Nothing is changed: the plan says what to flash.

    Example: swarm experts place --room 2 --replicas 3
    """
    found = Client(config_file).get(f"/api/experts/plan?room={room}&replicas={replicas}")
    if as_json:
        show_json(found)
        return
    show_table(
        ("node", "should hold", "bring", "take away"),
        (
            (
                each["name"] or each["dev_eui"],
                _numbers(each["experts"]),
                _numbers(each["load"]) or None,
                _numbers(each["drop"]) or None,
            )
            for each in found["plan"]
        ),
        empty="no node has said what its gate chooses; nodes that lack an expert do so once a week",
    )
    short = [expert for expert, count in enumerate(found["coverage"]) if count < replicas]
    if short:
        typer.echo(f"too little room: fewer than {replicas} nodes would hold {_numbers(short)}")


def _numbers(experts: list[int]) -> str:
    return ", ".join(map(str, experts))


def _shares(seen: list[float]) -> str:
    chosen = sorted(((share, expert) for expert, share in enumerate(seen) if share > 0), reverse=True)[:3]
    return ", ".join(f"{expert} {share:.0%}" for share, expert in chosen) or "nothing yet"
