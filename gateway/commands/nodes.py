"""`swarm nodes`: who is in the cell; tables in, tables out."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.commands.client import Client, ConfigFile
from gateway.commands.output import AsJson, CommandError, ago, local_time, show_json, show_table

__all__ = ["app", "read_nodes"]

app = typer.Typer(help="List, add, import and remove nodes.", no_args_is_help=True)

COLUMNS = (
    "dev_eui", "name", "crop", "activation", "plot", "lat", "lon", "node_index", "dev_addr",
    "nwk_s_key", "app_s_key", "join_eui", "app_key", "rx1_delay_s",
)  # fmt: skip
ALIASES = {"id": "name", "context": "crop"}
NUMBERS: dict[str, type[int] | type[float]] = {
    "lat": float,
    "lon": float,
    "node_index": int,
    "rx1_delay_s": int,
}
FILE_SIZE_MAX = 50_000_000
BATCH = 1000
RISKS = ("low", "medium", "high")
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
    columns = ("DevEUI", "name", "crop", "plot", "heard", "SNR dB", "DR", "model", "battery", "risk", "lost")
    show_table(
        columns,
        (_row(node, now_us) for node in nodes),
        empty="no nodes yet; `swarm nodes import FILE` adds them",
    )


def _row(node: dict[str, Any], now_us: int) -> tuple[object, ...]:
    risk = node.get("risk")
    battery = node.get("battery")
    return (
        node["dev_eui"],
        node["name"],
        node["crop"],
        node["plot"] or None,
        ago(node.get("last_seen_us"), now_us),
        node.get("snr_db"),
        node.get("data_rate"),
        node.get("model_version"),
        None if battery in (None, 255) else f"{round(battery / 2.54)} %",
        None if risk is None else RISKS[min(risk >> 6, 2)],
        node.get("lost"),
    )


@app.command()
def show(dev_eui: str, config_file: Config = Path("swarm.toml"), as_json: AsJson = False) -> None:
    """Everything known of one node, its keys excepted.

    Example: swarm nodes show 70b3d57ed0000001
    """
    path = f"/api/nodes/{_eui(dev_eui)}"
    node = Client(config_file).get(path)
    if as_json:
        show_json(node)
        return
    node = {**node, "last_seen_us": local_time(node.get("last_seen_us"))}
    show_table(("", ""), ((name.removesuffix("_us"), value) for name, value in node.items()))


@app.command()
def add(
    dev_eui: str,
    name: Annotated[str, typer.Option(help="A name of your own.")],
    crop: Annotated[str, typer.Option(help="apple, tomato, potato or grape.")],
    app_key: Annotated[str | None, typer.Option(help="OTAA: the 32 hex digits of the AppKey.")] = None,
    join_eui: Annotated[str, typer.Option(help="OTAA: the JoinEUI.")] = "0000000000000000",
    dev_addr: Annotated[str | None, typer.Option(help="ABP: the 8 hex digits of the DevAddr.")] = None,
    nwk_s_key: Annotated[str | None, typer.Option(help="ABP: the NwkSKey.")] = None,
    app_s_key: Annotated[str | None, typer.Option(help="ABP: the AppSKey.")] = None,
    plot: str = "",
    lat: float | None = None,
    lon: float | None = None,
    config_file: Config = Path("swarm.toml"),
) -> None:
    """Register one node: OTAA with --app-key, or ABP with --dev-addr and both session keys.

    Example: swarm nodes add 70b3d57ed0000001 --name north-1 --crop grape --app-key 000102...0f
    """
    node: dict[str, Any] = {
        "dev_eui": _eui(dev_eui), "name": name, "crop": crop, "plot": plot, "lat": lat, "lon": lon,
        "activation": "otaa" if app_key else "abp", "dev_addr": dev_addr, "nwk_s_key": nwk_s_key,
        "app_s_key": app_s_key, "join_eui": join_eui, "app_key": app_key,
    }  # fmt: skip
    _send(Client(config_file), [{key: value for key, value in node.items() if value is not None}], None)
    typer.echo(f"{dev_eui}: added")


@app.command("import")
def import_nodes(file: Path, config_file: Config = Path("swarm.toml"), as_json: AsJson = False) -> None:
    """Register nodes; doing it again changes nothing and resets no counter.

    FILE is a directory that `swarm pilot provision` made, a CSV file (columns dev_eui, name, crop,
    activation, plot, lat, lon, node_index and the keys), or a JSON file {"nodes": [...], "multicast": {...}}.

    Example: swarm nodes import pilot-keys
    """
    nodes, multicast = read_nodes(file)
    client = Client(config_file)
    added = 0
    for start in range(0, max(len(nodes), 1), BATCH):
        added += _send(client, nodes[start : start + BATCH], multicast if start == 0 else None)
    if as_json:
        show_json({"added": added, "multicast": multicast is not None})
    else:
        typer.echo(f"{file}: {added} nodes added" + (", with their multicast group" if multicast else ""))


@app.command()
def remove(
    dev_eui: str,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
    config_file: Config = Path("swarm.toml"),
) -> None:
    """Forget a node and its keys; it can come back only with new ones.

    Example: swarm nodes remove 70b3d57ed0000001
    """
    if not yes:
        typer.confirm(f"Forget {dev_eui} and its keys?", abort=True)
    Client(config_file).delete(f"/api/nodes/{_eui(dev_eui)}")
    typer.echo(f"{dev_eui}: removed")


def _send(client: Client, nodes: list[dict[str, Any]], multicast: dict[str, Any] | None) -> int:
    answer = client.post("/api/nodes", {"nodes": nodes, "multicast": multicast}, timeout_s=300.0)
    if answer["refused"]:
        raise CommandError("\n".join(f"{each['dev_eui']}: {each['reason']}" for each in answer["refused"]))
    return int(answer["added"])


def _eui(text: str) -> str:
    digits = text.replace("-", "").replace(":", "").lower()
    if len(digits) != 16 or any(digit not in "0123456789abcdef" for digit in digits):
        raise CommandError(f"{text}: is no DevEUI; give 16 hexadecimal digits")
    return digits


def read_nodes(file: Path) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """The nodes of a file and the multicast group, if it names one; CommandError has a line per mistake."""
    if file.is_dir():
        group = _from_csv(
            file / "multicast.csv", _text(file / "multicast.csv"), ("mc_addr", "nwk_s_key", "app_s_key")
        )
        return _from_csv(file / "keys.csv", _text(file / "keys.csv")), group[0] if group else None
    text = _text(file)
    if text.lstrip().startswith(("{", "[")):
        return _from_json(file, text)
    return _from_csv(file, text), None


def _text(file: Path) -> str:
    if file.stat().st_size > FILE_SIZE_MAX:
        raise CommandError(f"{file}: is larger than {FILE_SIZE_MAX // 1_000_000} MB; split it")
    try:
        return file.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise CommandError(f"{file}: is not UTF-8 text; save it as UTF-8") from None


def _from_json(file: Path, text: str) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{file}: is not JSON ({error}); see `swarm nodes import --help`") from None
    nodes = document if isinstance(document, list) else document.get("nodes", [])
    if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
        raise CommandError(f"{file}: nodes: must be a list of objects; see `swarm nodes import --help`")
    multicast = document.get("multicast") if isinstance(document, dict) else None
    return [_renamed(node) for node in nodes], multicast


def _renamed(node: dict[str, Any]) -> dict[str, Any]:
    """The API's words: files say `id` for the name and `context` for the crop as well."""
    renamed = dict(node)
    for theirs, ours in ALIASES.items():
        if theirs in renamed:
            renamed.setdefault(ours, renamed.pop(theirs))
            renamed.pop(theirs, None)
    return renamed


def _from_csv(file: Path, text: str, columns: tuple[str, ...] = COLUMNS) -> list[dict[str, Any]]:
    reader = csv.DictReader(text.splitlines(), skipinitialspace=True)
    unknown = sorted(set(reader.fieldnames or ()) - {*columns, *ALIASES})
    if unknown or not reader.fieldnames:
        named = ", ".join(map(repr, unknown)) or "no header"
        raise CommandError(f"{file}:1: {named}: unknown columns; the columns are {', '.join(columns)}")
    nodes: list[dict[str, Any]] = []
    mistakes: list[str] = []
    for row in reader:
        where = f"{file}:{reader.line_num}"
        if None in row or None in row.values():
            mistakes.append(
                f"{where}: has another number of columns than the header; put texts with commas in quotes"
            )
            continue
        node: dict[str, Any] = {}
        for column, value in _renamed(
            {key: value.strip() for key, value in row.items() if value.strip()}
        ).items():
            try:
                node[column] = NUMBERS[column](value) if column in NUMBERS else value
            except ValueError:
                mistakes.append(f"{where}: {column}: {value!r} is not a number; correct it or leave it empty")
        nodes.append(node)
    if mistakes:
        raise CommandError("\n".join(mistakes))
    return nodes
