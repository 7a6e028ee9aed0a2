"""`swarm nodes`: who is in the cell; tables in, tables out."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.commands import frames
from gateway.commands.client import Client, ConfigFile
from gateway.commands.importing import import_file, refuse_unless_all
from gateway.commands.keys import read_keys
from gateway.commands.node_files import is_eui, mistake_of, read_nodes
from gateway.commands.node_names import find
from gateway.commands.output import AsJson, CommandError, ago, finite, local_time, show_json, show_table
from gateway.commands.signing import warning_without_key

if TYPE_CHECKING:
    from swarm.config import MulticastChannel

__all__ = ["app"]

app = typer.Typer(
    help="Nodes: list, add, import and remove them, send them frames and labels.", no_args_is_help=True
)
app.command()(frames.send)
app.command()(frames.sends)

RISKS = ("low", "medium", "high")
CLASSES_MAX = 10
NOON_HOUR = 12
JOINED = {True: "yes", False: "no", None: "unknown"}
"""None: a network server knows, and has brought nothing of the node yet."""
MISSING = {"temperature_centi": -32_768, "humidity_half": 255, "rain_tenth": 65_535}
"""What a node says of what it does not measure."""
Config = ConfigFile


@app.command("list")
def list_nodes(config_file: Config = Path("swarm.toml"), as_json: AsJson = False) -> None:
    """All nodes with what was last heard of each.

    Example: swarm nodes list --json
    """
    client = Client(config_file)
    nodes = client.get("/api/nodes")["nodes"]
    if as_json:
        show_json(nodes)
        return
    now_us = client.get("/api/state")["now_us"]
    columns = (
        *("DevEUI", "name", "crop", "plot", "joined", "heard", "SNR dB"),
        *("DR", "model", "serves", "battery", "risk", "lost"),
    )
    private = any(node.get("privacy") for node in nodes)
    show_table(
        (*columns, "epsilon") if private else columns,
        ((*_row(node, now_us), *([_epsilon(node)] if private else [])) for node in nodes),
        empty="no nodes yet; `swarm nodes import FILE` adds them",
    )


def _row(node: dict[str, Any], now_us: int) -> tuple[object, ...]:
    return (
        node["dev_eui"],
        node["name"],
        f"{node['crop']} ({node['likely_crop']}?)" if node.get("likely_crop") else node["crop"],
        node["plot"] or None,
        JOINED[node["joined"]],
        ago(node.get("last_seen_us"), now_us),
        node.get("snr_db"),
        node.get("data_rate"),
        node.get("model_version"),
        _serves(node),
        _battery(node),
        _risk(node),
        node.get("lost"),
    )


def _epsilon(node: dict[str, Any]) -> str | None:
    """What a node has spent of its privacy budget."""
    account = node.get("privacy")
    if not account:
        return None
    if account["epsilon"] is None:
        return "no noise"
    of = f" of {account['epsilon_max']:g}" if account["epsilon_max"] else ""
    return f"{account['epsilon']:.2f}{of}{', spent' if account['spent'] else ''}"


def _serves(node: dict[str, Any]) -> str | None:
    serves = node.get("serves")
    return f"{serves}, no gain" if serves is not None and node.get("no_gain") else serves


@app.command()
def show(
    node_name: Annotated[str, typer.Argument(metavar="NODE", help="Its name or DevEUI.")],
    config_file: Config = Path("swarm.toml"),
    as_json: AsJson = False,
) -> None:
    """Everything known of one node, its keys excepted.

    Example: swarm nodes show node-0450
    """
    node = find(Client(config_file), node_name)
    if as_json:
        show_json(node)
        return
    show_table(("", ""), _readable(node).items())


def _readable(node: dict[str, Any]) -> dict[str, Any]:
    """What is known of a node in a person's units; what was not measured is left empty."""
    shown = {
        "joined": ("joined", JOINED[node["joined"]]),
        "last_seen_us": ("last_seen", local_time(node.get("last_seen_us"))),
        "reported_us": ("reported", local_time(node.get("reported_us"))),
        "privacy": ("privacy", _epsilon(node)),
        "battery": ("battery", _battery(node)),
        "risk": ("risk", _risk(node)),
        "temperature_centi": ("temperature", _measured(node, "temperature_centi", 100, "°C")),
        "humidity_half": ("humidity", _measured(node, "humidity_half", 2, "%")),
        "rain_tenth": ("rain", _measured(node, "rain_tenth", 10, "mm since the report before")),
    }
    return dict(shown.get(name, (name, value)) for name, value in node.items())


def _measured(node: dict[str, Any], name: str, parts: int, unit: str) -> str | None:
    value = node.get(name)
    return None if value in (None, MISSING[name]) else f"{value / parts:.1f} {unit}"


def _battery(node: dict[str, Any]) -> str | None:
    value = node.get("battery")
    return None if value in (None, 255) else "external power" if value == 0 else f"{round(value / 2.54)} %"


def _risk(node: dict[str, Any]) -> str | None:
    value = node.get("risk")
    return None if value is None else RISKS[min(value >> 6, 2)]


@app.command()
def add(
    dev_eui: Annotated[str, typer.Argument(help="16 hexadecimal digits.")],
    name: Annotated[str, typer.Option(help="A name of your own, as no other node has it.")],
    crop: Annotated[str, typer.Option(help="apple, tomato, potato or grape.")],
    keys_file: Annotated[
        Path | None,
        typer.Option(help="Lines `app_key = ...`, or nwk_s_key and app_s_key; - is standard input."),
    ] = None,
    gen_app_key_file: Annotated[
        Path | None,
        typer.Option(help="A device of another make that takes large blocks: a line `gen_app_key = ...`."),
    ] = None,
    join_eui: Annotated[str, typer.Option(help="OTAA: the JoinEUI.")] = "0000000000000000",
    dev_addr: Annotated[str | None, typer.Option(help="ABP: the 8 hex digits of the DevAddr.")] = None,
    behind_server: Annotated[
        bool, typer.Option("--behind-server", help="Its keys are with the server of \\[network]; none here.")
    ] = False,
    device_class: Annotated[
        str, typer.Option("--class", help="a, or c where the receiver is always on.")
    ] = "a",
    plot: Annotated[str, typer.Option(help="Where it stands: a name to ask about.")] = "",
    lat: Annotated[
        float | None, typer.Option(min=-90.0, max=90.0, callback=finite, help="Degrees north.")
    ] = None,
    lon: Annotated[
        float | None, typer.Option(min=-180.0, max=180.0, callback=finite, help="Degrees east.")
    ] = None,
    config_file: Config = Path("swarm.toml"),
) -> None:
    """Register one node: OTAA, or ABP with --dev-addr.  Its keys are asked for, or read from --keys-file.

    Example: swarm nodes add 70b3d57ed0000001 --name north-1 --crop grape --keys-file north-1.keys
    """
    if behind_server and (dev_addr is not None or keys_file is not None):
        raise CommandError(
            "--behind-server: the server has address and keys; leave --dev-addr and --keys-file out"
        )
    needed = ("app_key",) if dev_addr is None else ("nwk_s_key", "app_s_key")
    activation = "network" if behind_server else "otaa" if dev_addr is None else "abp"
    node: dict[str, Any] = {
        "dev_eui": _eui(dev_eui), "name": name, "crop": crop, "plot": plot, "lat": lat, "lon": lon,
        "activation": activation, "dev_addr": dev_addr, "join_eui": join_eui,
        "device_class": device_class.lower(),
    }  # fmt: skip
    node = {key: value for key, value in node.items() if value is not None}
    mistake = mistake_of(node)
    if mistake is None:
        if not behind_server:
            node |= read_keys(needed, keys_file)
        if gen_app_key_file is not None:
            node |= read_keys(("gen_app_key",), gen_app_key_file)
        mistake = mistake_of(node)
    if mistake is not None:
        raise CommandError(mistake)
    answer = Client(config_file).post("/api/nodes", {"nodes": [node]})
    for each in answer["refused"]:
        raise CommandError(f"{node['dev_eui']}: {each['reason']}")
    typer.echo(
        f"{dev_eui}: {'added' if answer['added'] else 'changed' if answer['changed'] else 'known already'}"
    )


@app.command("import")
def import_nodes(
    file: Annotated[Path, typer.Argument(help="A directory, or a CSV or JSON file.")],
    replace_multicast: Annotated[
        bool,
        typer.Option("--replace-multicast", help="Take the file's multicast group instead of the cell's."),
    ] = False,
    replace_signing_key: Annotated[
        bool,
        typer.Option("--replace-signing-key", help="Sign models with the file's key, not the daemon's."),
    ] = False,
    config_file: Config = Path("swarm.toml"),
    as_json: AsJson = False,
) -> None:
    """Register nodes; doing it again changes nothing and resets no counter.

    FILE is a directory that `swarm pilot provision` made, a CSV file (columns dev_eui, name, crop,
    activation, plot, lat, lon, node_index and the keys), or a JSON file {"nodes": [...], "multicast": {...},
    "signing_key": "..."}.
    Bad rows are named, one line each, and the others are taken; where a group or key is to be replaced, all
    or nothing (more than 5000 nodes go first, then the group, if all were taken).

    Example: swarm nodes import pilot-keys
    """
    table = read_nodes(file)
    client = Client(config_file)
    if replace_multicast or replace_signing_key:
        refuse_unless_all(client, table)
    warning = warning_without_key(client, file) if table.multicast and table.signing_seed is None else None
    if warning is not None:
        typer.echo(f"swarm: {warning}", err=True)
    outcome = import_file(
        client,
        table,
        file,
        replace_multicast=replace_multicast,
        replace_signing_key=replace_signing_key,
    )
    if as_json:
        news = {"new_signing_key": outcome.is_new_key} if table.signing_seed is not None else {}
        show_json({**outcome.document(), **news})
    else:
        typer.echo(f"{file}: {outcome.line()}")
    if table.channel is not None and not outcome.stopped:
        _warn_of_channel(file, table.channel, client.get("/api/state"))
    if outcome.refused or outcome.stopped:
        raise CommandError("\n".join([*outcome.refused, *outcome.stopped]))


def _warn_of_channel(file: Path, channel: MulticastChannel, state: dict[str, Any]) -> None:
    """Say on standard error if these nodes listen elsewhere than the daemon sends."""
    from swarm.config import MulticastChannel

    present = MulticastChannel(region=state["region"], **state["multicast"])
    needed = channel.settings(present)
    if needed:
        typer.echo(
            f"swarm: {file}: warning: these nodes listen for models at {channel}, the daemon sends them at"
            f" {present}; set {', '.join(needed)} in its swarm.toml and start it again",
            err=True,
        )


@app.command()
def remove(
    node_names: Annotated[list[str], typer.Argument(metavar="NODE...", help="Names or DevEUIs.")],
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
    config_file: Config = Path("swarm.toml"),
) -> None:
    """Forget nodes and their keys; should they come back with the same ones, their counters go on.

    Example: swarm nodes remove west-1 70b3d57ed0000001
    """
    client = Client(config_file)
    found = {node["dev_eui"]: node for node in (find(client, name) for name in node_names)}
    if not yes:
        who = ", ".join(f"{dev_eui} ({node['name']})" for dev_eui, node in found.items())
        typer.confirm(f"Forget {who} and {'its' if len(found) == 1 else 'their'} keys?", abort=True)
    for dev_eui in found:
        client.delete(f"/api/nodes/{dev_eui}")
        typer.echo(f"{dev_eui}: removed")


@app.command()
def label(
    node_name: Annotated[str, typer.Argument(metavar="NODE", help="Its name or DevEUI.")],
    seen: Annotated[str, typer.Argument(metavar="CLASS", help="low, medium or high; or the class's number.")],
    date: Annotated[
        str | None,
        typer.Option(metavar="YYYY-MM-DD", help="The day that ended at this day's noon; else the last."),
    ] = None,
    observation: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Instead of a day: the id of an observation.")
    ] = None,
    config_file: Config = Path("swarm.toml"),
    as_json: AsJson = False,
) -> None:
    """Tell a node what was seen where it stands, for it to learn from.  It is told when it is next heard.

    Example: swarm nodes label node-0450 high --date 2026-06-03
    """
    if seen not in RISKS and not (seen.isascii() and seen.isdigit() and int(seen) < CLASSES_MAX):
        raise CommandError(
            f"{seen[:64]!r} is no class: {', '.join(RISKS)}, or a number 0 to {CLASSES_MAX - 1}"
        )
    if date is not None and observation is not None:
        raise CommandError("--date and --observation: give one of them")
    what: dict[str, Any] = {"label": RISKS.index(seen) if seen in RISKS else int(seen)}
    if observation is None:
        what["noon_us"] = _noon_us(date)
    else:
        what["observation"] = observation
    client = Client(config_file)
    node = find(client, node_name)
    answer = client.post(f"/api/nodes/{node['dev_eui']}/labels", what)
    if as_json:
        show_json(answer)
    else:
        typer.echo(f"{node['name']} is told when it is next heard ({answer['waiting']} waiting)")


def _noon_us(text: str | None) -> int:
    """Local noon of this date, or the last one."""
    if text is None:
        now = datetime.now()
        day = now.date() if now.hour >= NOON_HOUR else now.date() - timedelta(days=1)
    else:
        try:
            day = datetime.strptime(text, "%Y-%m-%d").date()
        except ValueError:
            raise CommandError(f"--date: {text[:64]!r} is no date; write it as 2026-06-03") from None
    return round(datetime.combine(day, time(NOON_HOUR)).timestamp() * 1_000_000)


def _eui(text: str) -> str:
    digits = text.replace("-", "").replace(":", "").lower()
    if not is_eui(digits):
        raise CommandError(f"{text}: is no DevEUI; give 16 hexadecimal digits")
    return digits
