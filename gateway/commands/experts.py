"""`swarm experts`: who holds which experts, who should, and bringing them there."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from gateway.commands.client import Client, ConfigFile
from gateway.commands.output import AsJson, CommandError, finite, local_time, show_json, show_table
from swarm.words import counted

__all__ = ["app"]

app = typer.Typer(
    help="Experts: which nodes hold them, which should, and bringing them there.", no_args_is_help=True
)

Room = Annotated[int, typer.Option(min=1, max=16, help="So many experts fit in a node.")]
Replicas = Annotated[int, typer.Option(min=1, max=16, help="So many nodes hold each expert, at least.")]


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
    if found["hand_overs"]:
        names = {each["dev_eui"]: each["name"] for each in found["holders"]}
        show_table(
            ("handed over to", "experts", "block", "state", "why", "since"),
            (
                (
                    names.get(each["dev_eui"]) or each["dev_eui"],
                    _numbers(each["experts"]) or "none",
                    each["descriptor"],
                    each["state"],
                    each["why"] or None,
                    local_time(each["since_us"]),
                )
                for each in found["hand_overs"]
            ),
        )


@app.command()
def place(
    room: Room = 2,
    replicas: Replicas = 2,
    config_file: ConfigFile = Path("swarm.toml"),
    as_json: AsJson = False,
) -> None:
    """Plan which node should hold which experts, by what its gate chose, its link, its battery and its
    silence.

    Nothing is changed; `swarm experts hand-over` does.

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
        typer.echo(f"too little room: fewer than {counted(replicas, 'node')} would hold {_numbers(short)}")


@app.command("hand-over")
def hand_over(
    room: Room = 2,
    replicas: Replicas = 2,
    node: Annotated[
        list[str] | None,
        typer.Option("--node", help="Name or DevEUI, may be repeated: these alone, also where it failed."),
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Also what gates choose most, not only what too few hold.")
    ] = False,
    loss: Annotated[
        float, typer.Option(min=0.0, max=0.9, callback=finite, help="Share of frames that nodes lose.")
    ] = 0.2,
    files: Annotated[
        Path | None, typer.Option(help="Write containers for nodes that need a cable to this directory.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what it would do and cost.")] = False,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
    config_file: ConfigFile = Path("swarm.toml"),
    as_json: AsJson = False,
) -> None:
    """Bring experts that too few nodes hold to those that should: a signed container for each, by unicast.

    Example: swarm experts hand-over --room 4 --dry-run
    """
    if as_json and not (dry_run or yes):
        raise CommandError("--json asks nothing: give --dry-run to see what it costs, or --yes to send it")
    client = Client(config_file)
    asked = {"room": room, "replicas": replicas, "whole": whole, "loss": loss}
    found = client.get(
        f"/api/experts/hand-over?{urlencode([*asked.items(), *(('node', n) for n in node or ())])}"
    )
    steps = found["steps"]
    if files is not None:
        _write(client, files, [each for each in steps if each["way"] == "cable"])
    by_air = [each for each in steps if each["way"] == "air"]
    if not as_json:
        known = bool(steps) or bool(client.get("/api/experts")["holders"])
        _show_steps(steps, files, _none_to_bring(known, whole))
    if by_air and not dry_run:
        if not yes:
            typer.confirm("Send that?", abort=True)
        found = client.post("/api/experts/hand-over", {**asked, "nodes": node})
    if as_json:
        show_json(found)
    elif by_air and not dry_run:
        typer.echo("on its way; `swarm experts list` says how far it is, `swarm blocks list` what it costs")


def _none_to_bring(known: bool, whole: bool) -> str:
    """What is said where there is nothing to bring; `known`: at least one node said what it holds."""
    if not known:
        return "no node has said which experts it holds, so none is brought; nodes that hold all need not"
    more = "" if whole else "; `--whole` also brings what gates choose"
    return f"every expert has its holders, as far as they said{more}"


def _show_steps(steps: list[dict[str, Any]], files: Path | None, empty: str) -> None:
    show_table(
        ("node", "would hold", "bring", "take away", "how", "block", "bytes", "on air", "its own", "takes"),
        (
            (
                each["name"] or each["dev_eui"],
                _numbers(each["experts"]),
                _numbers(each["load"]),
                _numbers(each["drop"]) or None,
                each["way"],
                each["descriptor"] or None,
                each["size"] or None,
                _seconds(each["airtime_us"]),
                _seconds(each["uplink_us"]),
                f"{each['least_s'] / 60:.0f} min or more" if each["least_s"] else None,
            )
            for each in steps
        ),
        empty=empty,
    )
    for each in steps:
        if each["why"]:
            typer.echo(f"{each['name'] or each['dev_eui']}: {each['way']}: {each['why']}")
        if each["way"] == "cable":
            where = (
                "--files DIR writes what to flash" if files is None else f"flash {files / _file_name(each)}"
            )
            typer.echo(f"{each['name'] or each['dev_eui']}: {where}")
    airtime_us = sum(each["airtime_us"] for each in steps)
    if airtime_us:
        typer.echo(
            f"together about {airtime_us / 1e6:.0f} s of the gateway's airtime at the expected loss,"
            " spread as the law and each node's own share allow; one block after another"
        )


def _write(client: Client, folder: Path, steps: list[dict[str, Any]]) -> None:
    """A container for each set of experts; none in the place of another file."""
    made: dict[str, bytes] = {}
    for each in steps:
        if _file_name(each) not in made:
            chosen = urlencode([("expert", expert) for expert in each["experts"]])
            found = client.get(f"/api/experts/container?{chosen}")
            made[_file_name(each)] = base64.b64decode(found["data"])
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in made.items():
        path = folder / name
        if path.exists() and path.read_bytes() != data:
            raise CommandError(f"{path}: there is another file of that name; choose another --files")
        path.write_bytes(data)


def _file_name(step: dict[str, Any]) -> str:
    return f"experts-{'-'.join(map(str, step['experts']))}.swm"


def _seconds(airtime_us: int) -> str | None:
    return f"{airtime_us / 1e6:.1f} s" if airtime_us else None


def _numbers(experts: list[int]) -> str:
    return ", ".join(map(str, experts))


def _shares(seen: list[float]) -> str:
    chosen = sorted(((share, expert) for expert, share in enumerate(seen) if share > 0), reverse=True)[:3]
    return ", ".join(f"{expert} {share:.0%}" for share, expert in chosen) or "nothing yet"
