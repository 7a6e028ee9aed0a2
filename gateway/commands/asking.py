"""`swarm ask`, `rounds`, `airtime`, `events`: what the running cell says of itself."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.commands.client import Client, ConfigFile
from gateway.commands.output import AsJson, CommandError, local_time, meant, show_json, show_table
from swarm.effects import EVENT_KINDS
from swarm.words import counted

__all__ = ["airtime", "ask", "events", "rounds"]

FEATURES_MAX = 256
WAIT_EXTRA_S = 30.0
DEADLINE_MAX_S = 86_400
NODES_MAX = 50
NAME_MAX = 64
CROPS = ("apple", "tomato", "potato", "grape")
NO_ANSWER = {
    "no_node": "no node there was ever heard",
    "no_fresh_node": "no node there was heard in the last two days",
}

NO_GATEWAY = "no gateway was heard yet; point a packet forwarder at the daemon's UDP port"

rounds = typer.Typer(
    help="Learning rounds: those that were, opening one, going back, and what each mode would cost.",
    no_args_is_help=True,
)


def ask(
    place: Annotated[str | None, typer.Argument(help="A plot, or the name or DevEUI of a node.")] = None,
    near: Annotated[str | None, typer.Option(help="The same as the argument.")] = None,
    features: Annotated[
        str | None, typer.Option(help="The model's inputs (int8) with commas between, instead of a place.")
    ] = None,
    crop: Annotated[str | None, typer.Option(help="apple, tomato, potato or grape.")] = None,
    k: Annotated[
        int | None,
        typer.Option(help=f"So many nodes, 1 to {NODES_MAX}; default: \\[asking] k, else 5."),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(help="Wait so long: 60s, 5min, 8h, up to 1d; default: \\[asking] deadline_s, else 1h."),
    ] = None,
    config_file: ConfigFile = Path("swarm.toml"),
    as_json: AsJson = False,
) -> None:
    """Ask the swarm for the infection risk at a place; the nodes there answer over the air.

    Example: swarm ask --near apple-004 --deadline 60s
    """
    if near is not None and place is not None:
        raise CommandError(f"{place[:NAME_MAX]!r} and --near: name one place")
    where = place if near is None else near
    if where is not None and features is not None:
        raise CommandError("a place and --features: not both; a question is about either")
    if where is None and features is None:
        raise CommandError(
            "say what to ask about: a plot or node (`swarm ask apple-004`), or --features with --crop"
        )
    if where is not None and not (where and len(where) <= NAME_MAX and where.isprintable()):
        raise CommandError(
            f"{where[:NAME_MAX]!r} is no name of a plot or node; `swarm nodes list` shows them"
        )
    if k is not None and not 1 <= k <= NODES_MAX:
        raise CommandError(f"--k: {k} is not between 1 and {NODES_MAX}; so many nodes can be asked")
    if crop is not None and crop not in CROPS:
        raise CommandError(f"--crop: {crop[:NAME_MAX]!r} is not known; {meant(crop, CROPS, 'the crops')}")
    seconds = None if deadline is None else _seconds(deadline)
    question: dict[str, Any] = {"near": where, "crop": crop, "k": k, "deadline_s": seconds}
    if features is not None:
        question["features"] = _features(features)
    client = Client(config_file)
    wait_s = (seconds or DEADLINE_MAX_S) + WAIT_EXTRA_S
    answer = client.post(
        "/api/ask", {key: value for key, value in question.items() if value is not None}, timeout_s=wait_s
    )
    if as_json:
        show_json(answer)
        if answer.get("probabilities") is None:
            raise typer.Exit(2)
        return
    _show_answer(answer)


def _show_answer(answer: dict[str, Any]) -> None:
    if "reason" in answer and answer.get("probabilities") is None:
        raise CommandError(f"no answer: {NO_ANSWER.get(answer['reason'], answer['reason'])}")
    if answer.get("probabilities") is None:
        raise CommandError("no answer: no node answered in time; ask again with a longer --deadline")
    typer.echo(
        f"{answer['label']} (confidence {answer['confidence']:.0%}, coverage {answer['coverage']:.0%})"
    )
    shares = answer["probabilities"]
    risks = ("low", "medium", "high")
    names = risks if len(shares) == len(risks) else [f"class {number}" for number in range(len(shares))]
    typer.echo("  " + ", ".join(f"{name} {share:.0%}" for name, share in zip(names, shares, strict=True)))
    who = ", ".join(answer["names"]) or "the gateway itself"
    typer.echo(f"  {len(answer['nodes'])} of {counted(answer['asked'], 'node')} answered: {who}")
    for name, source in zip(answer["names"], answer["sources"], strict=True):
        age = "" if source["age_min"] is None else f", readings {source['age_min']} min old"
        far = ", far from all others" if source["dev_eui"] in answer["discounted"] else ""
        judged = f"{source['expert']} version {source['version']}"
        typer.echo(f"    {name}: {judged}, counts {source['weight']:.0%}{age}{far}")
    spent = (
        f"{answer['airtime_us'] / 1e6:.2f} s of airtime, {answer.get('energy_mj', 0.0):.0f} mJ of the nodes"
    )
    old = f", answered {answer['age_s']:.0f} s ago" if "age_s" in answer else ""
    typer.echo(f"  {spent}, {answer.get('latency_s', 0):.1f} s{old}")


def _seconds(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,6})\s*(s|m|min|h|d)?", text.strip())
    if match is None:
        raise CommandError(f"--deadline: {text!r} is no duration; write 60s, 5min, 8h or 1d")
    seconds = int(match[1]) * {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}[match[2] or "s"]
    if not 1 <= seconds <= DEADLINE_MAX_S:
        raise CommandError(f"--deadline: {text!r} is not between 1s and 1d; a question waits a day at most")
    return seconds


def _features(text: str) -> list[int]:
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not 1 <= len(values) <= FEATURES_MAX or any(not -128 <= value <= 127 for value in values):
        raise CommandError(
            f"--features: give the model's inputs (1 to {FEATURES_MAX}), whole numbers from -128 to 127 "
            "with commas between"
        )
    return values


@rounds.command("list")
def list_rounds(config_file: ConfigFile = Path("swarm.toml"), as_json: AsJson = False) -> None:
    """The last rounds, oldest first.

    Example: swarm rounds list --json
    """
    client = Client(config_file)
    found = client.get("/api/rounds")["rounds"]
    if as_json:
        show_json(found)
        return
    show_table(
        (
            "round",
            "mode",
            "state",
            "opened",
            "closed",
            "updates",
            "late",
            "model",
            "score",
            "taken",
            "refused",
            "epsilon",
        ),
        (
            (
                each["round"],
                each["mode"],
                each["state"],
                local_time(each["opened_us"]),
                local_time(each["closed_us"]),
                each["updates"],
                each.get("late"),
                each["model_version"],
                None if each["score"] is None else f"{each['score']:.3f}",
                each.get("taken"),
                each.get("refused"),
                None if each.get("epsilon") is None else f"{each['epsilon']:.2f}",
            )
            for each in found
        ),
        empty="" if found else f"no rounds yet; {_before_rounds(client.get('/api/state'))}",
    )


def _before_rounds(state: dict[str, Any]) -> str:
    """What the first round waits for."""
    if not state["gateways"]:
        return NO_GATEWAY
    if not state["nodes"]:
        return "there are no nodes: `swarm nodes import` adds them"
    return "`swarm rounds open` opens one"


@rounds.command("open")
def open_round(config_file: ConfigFile = Path("swarm.toml"), as_json: AsJson = False) -> None:
    """Open the next round now instead of at its time.

    Example: swarm rounds open
    """
    answer = Client(config_file).post("/api/rounds")
    if as_json:
        show_json(answer)
    else:
        typer.echo(f"round {answer['round']}: open")


@rounds.command("rollback")
def roll_back(
    to: Annotated[
        int | None, typer.Option(min=0, max=65_534, help="The version to return to; else the one before.")
    ] = None,
    config_file: ConfigFile = Path("swarm.toml"),
    as_json: AsJson = False,
) -> None:
    """Return to an earlier version of the model with the next window.

    Example: swarm rounds rollback --to 12
    """
    answer = Client(config_file).post("/api/rounds/rollback", {"to_version": to})
    if as_json:
        show_json(answer)
    else:
        typer.echo(f"round {answer['round']} will bring the earlier version")


def airtime(
    spreading_factor: Annotated[int | None, typer.Option("--sf", help="Spreading factor, 5 to 12.")] = None,
    bandwidth: Annotated[int, typer.Option(help="Bandwidth in Hz.")] = 125_000,
    payload: Annotated[
        int, typer.Option(help="PHY payload in bytes; LoRaWAN's is the application's + 13.")
    ] = 64,
    coding_rate: Annotated[int, typer.Option(help="1 to 4 for 4/5 to 4/8.")] = 1,
    preamble: Annotated[int, typer.Option(help="Preamble symbols.")] = 8,
    downlink: Annotated[bool, typer.Option("--downlink", help="Without CRC, as gateways send.")] = False,
    config_file: ConfigFile = Path("swarm.toml"),
    as_json: AsJson = False,
) -> None:
    """With --sf: the time on air of one frame.  Without: what the cell's downlinks spent in the past hour.

    Example: swarm airtime --sf 7 --bandwidth 125000 --payload 51
    """
    if spreading_factor is None:
        _spent(config_file, as_json)
        return
    from swarm.phy.airtime import airtime_us

    try:
        spent_us = airtime_us(
            spreading_factor, bandwidth, payload, coding_rate=coding_rate, preamble=preamble, crc=not downlink
        )
    except ValueError as error:
        raise CommandError(str(error)) from None
    per_hour = {f"{duty:g}%": int(36_000_000 * duty // spent_us) for duty in (0.1, 1, 10)}
    if as_json:
        asked = {
            "sf": spreading_factor,
            "bandwidth_hz": bandwidth,
            "payload": payload,
            "coding_rate": f"4/{4 + coding_rate}",
        }
        show_json({**asked, "airtime_us": spent_us, "frames_per_hour": per_hour})
        return
    radio = f"SF{spreading_factor}, {bandwidth / 1000:g} kHz, 4/{4 + coding_rate}, {payload} B"
    typer.echo(f"{spent_us / 1000:.3f} ms: {radio}")
    typer.echo("  frames an hour: " + ", ".join(f"{count} at {duty}" for duty, count in per_hour.items()))


def _spent(config_file: Path, as_json: bool) -> None:
    gateways = Client(config_file).get("/api/airtime")["gateways"]
    if as_json:
        show_json(gateways)
        return
    rows = []
    for gateway in gateways:
        for band in gateway["sub_bands"]:
            by_purpose = ", ".join(
                f"{purpose} {us / 1e6:.2f} s" for purpose, us in band["by_purpose"].items()
            )
            share = band["spent_us"] / band["limit_us"] if band["limit_us"] else 0.0
            used = f"{band['spent_us'] / 1e6:.1f} of {band['limit_us'] / 1e6:.1f} s"
            megahertz = f"{band['min_hz'] / 1e6:g}-{band['max_hz'] / 1e6:g}"
            rows.append(
                (gateway["gateway_id"], band["name"], megahertz, used, f"{share:.1%}", by_purpose or None)
            )
    columns = ("gateway", "sub-band", "MHz", "past hour", "used", "for")
    show_table(columns, rows, empty=NO_GATEWAY)


def events(
    follow: Annotated[
        bool, typer.Option("--follow", help="Show what happens from now on, until Ctrl-C.")
    ] = False,
    kind: Annotated[str | None, typer.Option(help="Only events of this kind.")] = None,
    count: Annotated[int, typer.Option(min=1, max=1000, help="So many of the past ones.")] = 20,
    config_file: ConfigFile = Path("swarm.toml"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """The latest events of the cell, or what happens from now on: uplinks, downlinks, rounds, dropped frames.

    docs/OPERATING.md, "Events", lists the kinds.

    Example: swarm events --follow --kind uplink --json
    """
    if kind is not None and kind not in EVENT_KINDS:
        known = meant(kind, tuple(EVENT_KINDS), "the kinds")
        raise CommandError(f"--kind: {kind[:NAME_MAX]!r} is no kind of event; {known}")
    client = Client(config_file)
    if follow:
        for event in client.events():
            if kind is None or event["kind"] == kind:
                _show_event(event, as_json)
        return
    past = _past(client, count, kind)
    for event in past:
        _show_event(event, as_json)
    if not past and not as_json:
        typer.echo("no events yet" if kind is None else f"no {kind} events yet")


def _past(client: Client, count: int, kind: str | None) -> list[dict[str, Any]]:
    only = f"&kind={kind}" if kind is not None else ""
    found = client.get(f"/api/events/past?limit={count}{only}")["events"]
    assert isinstance(found, list)
    return found


def _show_event(event: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(event, ensure_ascii=False))
        return
    data = " ".join(f"{name}={value}" for name, value in event["data"].items() if value is not None)
    explained = f"\n    {event['meaning']}" if "meaning" in event else ""
    typer.echo(f"{local_time(event['at_us'])} {event['kind']:<14} {data}{explained}")
