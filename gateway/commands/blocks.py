"""`swarm blocks`: bring a large block, a model container for one, to many nodes."""

from __future__ import annotations

import base64
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.commands.client import Client, ConfigFile
from gateway.commands.output import AsJson, CommandError, finite, local_time, show_json, show_table
from swarm.words import counted

__all__ = ["app"]

app = typer.Typer(
    help="Large blocks: bring one to many nodes, by multicast where that reaches them.", no_args_is_help=True
)

EACH_MAX = 50
LEFT = "is left without it"
OF_THE_GROUP = ("start_us", "until_us", "minimum_us", "fragments_sent", "polls")
"""What says nothing of a block that a network server sends to each node by itself."""
KNOWN = ("has it", "misses some", "has said nothing yet", "is being set up", LEFT)
Name = Annotated[str, typer.Argument(metavar="DESCRIPTOR", help="Its 8 hexadecimal digits.")]


@app.command()
def send(
    file: Annotated[Path, typer.Argument(help="A model container; devices of another make take any file.")],
    node: Annotated[
        list[str] | None, typer.Option("--node", help="Name or DevEUI; may be repeated.  Without: all nodes.")
    ] = None,
    loss: Annotated[
        float,
        typer.Option(
            min=0.0, max=0.9, callback=finite, help="Share of frames that nodes are expected to lose."
        ),
    ] = 0.2,
    version: Annotated[int, typer.Option(min=1, max=2, help="Of TS004, which the nodes speak.")] = 2,
    alone: Annotated[
        bool, typer.Option("--alone", help="To each by itself: all that hear the group take what it is sent.")
    ] = False,
    config_file: ConfigFile = Path("swarm.toml"),
    as_json: AsJson = False,
) -> None:
    """Deliver FILE (1 B to 64 kB): it is offered in the next round's window and sent when that is over.

    Where no rounds are held it is offered to nodes one by one; those behind a network server get theirs so.

    Example: swarm blocks send model.swm --loss 0.3
    """
    from swarm.commands import BLOCK_MAX

    with file.open("rb") as opened:
        data = opened.read(BLOCK_MAX + 1)
    if not 1 <= len(data) <= BLOCK_MAX:
        size = "is empty" if not data else "is too large"
        raise CommandError(f"{file}: {size}; a block has 1 to {BLOCK_MAX} bytes")
    body = {"data": base64.b64encode(data).decode(), "nodes": node, "loss": loss, "version": version}
    body["alone"] = alone
    made = Client(config_file).post("/api/blocks", body)
    if as_json:
        show_json(made)
        return
    behind = made["behind_server"]
    if made["alone"] == made["nodes"]:
        how = "one by one" + (" through their network server" if behind else "")
    else:
        how = f"at least {made['minimum_us'] / 1e6:.0f} s on air"
        how += f"; {behind} of them one by one through their network server" if behind else ""
    typer.echo(
        f"block {made['descriptor']}: {made['size']} B in {counted(made['pieces'], 'piece')} for"
        f" {counted(made['nodes'], 'node')},"
        f" {how}; `swarm blocks show {made['descriptor']}` says how far it is"
    )


@app.command("list")
def list_blocks(config_file: ConfigFile = Path("swarm.toml"), as_json: AsJson = False) -> None:
    """Blocks of late, the one on its way, and those that wait.

    Example: swarm blocks list --json
    """
    found = Client(config_file).get("/api/blocks")["blocks"]
    if as_json:
        show_json(found)
        return
    show_table(
        ("block", "state", "bytes", "nodes", "have it", "sent", "polls", "on air", "least", "starts"),
        (
            (
                each["descriptor"],
                _state(each),
                each["size"],
                each["nodes"],
                each["whole"],
                _sent(each),
                each["polls"],
                _seconds(each["airtime_us"]),
                None if _alone(each) else _seconds(each["minimum_us"]),
                None if _alone(each) else local_time(each["start_us"]),
            )
            for each in found
        ),
        empty="no block was sent yet; `swarm blocks send FILE` does",
    )


@app.command()
def show(name: Name, config_file: ConfigFile = Path("swarm.toml"), as_json: AsJson = False) -> None:
    """One block: how far it is, what is known of its nodes, and who is left without it.

    Example: swarm blocks show 24521172
    """
    found = Client(config_file).get(f"/api/blocks/{_digits(name)}")
    if as_json:
        show_json(found)
        return
    quiet = ("each", "left", "names", "complete", "state", *(OF_THE_GROUP if _alone(found) else ()))
    rows: list[tuple[object, ...]] = [("state", _state(found))]
    for key, value in found.items():
        if key in quiet:
            continue
        if key in ("airtime_us", "minimum_us"):
            rows.append((key.removesuffix("_us"), _seconds(value)))
        else:
            rows.append((key.removesuffix("_us"), local_time(value) if key.endswith("_us") else value))
    show_table(("", ""), rows)
    if found["state"] != "ended" and found["behind_server"]:
        show_table(
            ("behind the server", "state", "pieces sent", "misses"),
            (
                (found["names"].get(who, who), one["state"], one["frames"], one["missing"])
                for who, one in list(found["each"].items())[:EACH_MAX]
                if "frames" in one
            ),
        )
    each = found.get("each", {})
    if each:
        known = Counter(_known(node) for node in each.values())
        show_table(("what is known", "nodes"), ((what, known[what]) for what in KNOWN if known[what]))
    out = {who: node["reason"] for who, node in each.items() if _known(node) == LEFT}
    left = (found.get("left") or out).items()
    if left:
        show_table(("without it", "why"), ((found["names"].get(who, who), why) for who, why in left))


@app.command()
def cancel(name: Name, config_file: ConfigFile = Path("swarm.toml")) -> None:
    """End the delivery of a block, or take it from the queue.

    Example: swarm blocks cancel 24521172
    """
    Client(config_file).delete(f"/api/blocks/{_digits(name)}")
    typer.echo(f"block {_digits(name)}: cancelled")


def _digits(name: str) -> str:
    digits = name.lower()
    if len(digits) != 8 or any(digit not in "0123456789abcdef" for digit in digits):
        raise CommandError("a block is named by the 8 hexadecimal digits that `swarm blocks list` shows")
    return digits


def _known(node: dict[str, Any]) -> str:
    """What is known of a node while the block is on its way."""
    if node["state"] in ("version", "setup"):
        return "is being set up"
    if node["state"] == "listening":
        return "misses some" if node["missing"] else "has said nothing yet"
    return "has it" if node["state"] == "whole" else LEFT


def _state(block: dict[str, Any]) -> str:
    if block["state"] != "ended":
        return str(block["state"])
    return "complete" if block["complete"] else "ended, incomplete"


def _sent(block: dict[str, Any]) -> str:
    """Fragments for the group; where there is none, all frames to all nodes."""
    return (
        counted(block["frames"], "frame") if _alone(block) else f"{block['fragments_sent']}/{block['pieces']}"
    )


def _alone(block: dict[str, Any]) -> bool:
    """Whether each of its nodes is sent everything by itself: no group hears it."""
    return bool(block.get("alone", block.get("behind_server")) == block["nodes"])


def _seconds(airtime_us: int | None) -> str | None:
    return None if airtime_us is None else f"{airtime_us / 1e6:.1f} s"
