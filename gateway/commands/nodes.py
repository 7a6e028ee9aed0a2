"""`swarm nodes`: who is in the cell; tables in, tables out."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.commands.client import Client, ConfigFile
from gateway.commands.output import AsJson, CommandError, ago, local_time, meant, show_json, show_table

if TYPE_CHECKING:
    from swarm.config import MulticastChannel

__all__ = ["NodesFile", "app", "read_nodes"]

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
WORDS = {
    "dev_eui": "16 hexadecimal digits",
    "name": "1 to 64 printable characters",
    "crop": "apple, tomato, potato or grape",
    "activation": "abp or otaa",
    "plot": "at most 64 printable characters",
    "lat": "a number from -90 to 90",
    "lon": "a number from -180 to 180",
    "node_index": "a whole number from 0 to 65534",
    "dev_addr": "8 hexadecimal digits",
    "mc_addr": "8 hexadecimal digits",
    "nwk_s_key": "32 hexadecimal digits",
    "app_s_key": "32 hexadecimal digits",
    "join_eui": "16 hexadecimal digits",
    "app_key": "32 hexadecimal digits",
    "rx1_delay_s": "a whole number from 1 to 15",
}
GROUP_KEYS = ("mc_addr", "nwk_s_key", "app_s_key")
FILE_SIZE_MAX = 50_000_000
BATCH = 1000
RISKS = ("low", "medium", "high")
Config = ConfigFile
Row = tuple[str, dict[str, Any]]
"""Where a node stands in its file, and what is said of it."""


@dataclass(frozen=True, slots=True)
class NodesFile:
    """The good nodes of a file, a line for each bad one, and the multicast group if it names one."""

    nodes: list[Row]
    mistakes: list[str]
    multicast: dict[str, Any] | None
    channel: MulticastChannel | None = None
    """Where the nodes of the file listen for the group, if it says so."""


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
        "yes" if node["joined"] else "no",
        ago(node.get("last_seen_us"), now_us),
        node.get("snr_db"),
        node.get("data_rate"),
        node.get("model_version"),
        _serves(node),
        None if battery in (None, 255) else f"{round(battery / 2.54)} %",
        None if risk is None else RISKS[min(risk >> 6, 2)],
        node.get("lost"),
    )


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

    Example: swarm nodes show grape-003
    """
    node = _find(Client(config_file), node_name)
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
    abp = not app_key and any((dev_addr, nwk_s_key, app_s_key))
    node: dict[str, Any] = {
        "dev_eui": _eui(dev_eui), "name": name, "crop": crop, "plot": plot, "lat": lat, "lon": lon,
        "activation": "abp" if abp else "otaa", "dev_addr": dev_addr, "nwk_s_key": nwk_s_key,
        "app_s_key": app_s_key, "join_eui": join_eui, "app_key": app_key,
    }  # fmt: skip
    node = {key: value for key, value in node.items() if value is not None}
    mistake = _mistake(node) or _without_keys(node)
    if mistake is not None:
        raise CommandError(mistake)
    answer = _send(Client(config_file), [node], None)
    for each in answer["refused"]:
        raise CommandError(f"{node['dev_eui']}: {each['reason']}")
    typer.echo(
        f"{dev_eui}: {'added' if answer['added'] else 'changed' if answer['changed'] else 'known already'}"
    )


@app.command("import")
def import_nodes(
    file: Path,
    replace_multicast: Annotated[
        bool,
        typer.Option("--replace-multicast", help="Take the file's multicast group instead of the cell's."),
    ] = False,
    config_file: Config = Path("swarm.toml"),
    as_json: AsJson = False,
) -> None:
    """Register nodes; doing it again changes nothing and resets no counter.

    FILE is a directory that `swarm pilot provision` made, a CSV file (columns dev_eui, name, crop,
    activation, plot, lat, lon, node_index and the keys), or a JSON file {"nodes": [...], "multicast": {...}}.
    Bad rows are named, one line each, and the others are taken.

    Example: swarm nodes import pilot-keys
    """
    table = read_nodes(file)
    client = Client(config_file)
    group = {**table.multicast, "replace": replace_multicast} if table.multicast else None
    counts: Counter[str] = Counter()
    refused, multicast = list(table.mistakes), None
    for start in range(0, max(len(table.nodes), 1), BATCH):
        batch = table.nodes[start : start + BATCH]
        answer = _send(client, [node for _, node in batch], group if start == 0 else None)
        counts.update({key: answer[key] for key in ("added", "changed", "unchanged")})
        multicast = answer["multicast"] if start == 0 else multicast
        refused += [
            f"{batch[each['row']][0]}: {each['dev_eui']}: {each['reason']}" for each in answer["refused"]
        ]
    if as_json:
        show_json({**counts, "refused": refused, "multicast": multicast})
    else:
        typer.echo(f"{file}: {_imported(counts, len(refused), multicast)}")
    if table.channel is not None:
        _warn_of_channel(file, table.channel, client.get("/api/state"))
    if refused:
        raise CommandError("\n".join(refused))


def _imported(counts: Counter[str], refused: int, multicast: str | None) -> str:
    """What an import came to, in one line."""
    if counts["unchanged"] and not (counts["added"] or counts["changed"] or refused or multicast == "set"):
        return f"{_nodes(counts['unchanged'])} known already, nothing changed"
    parts = [f"{_nodes(counts['added'])} added"]
    parts += [f"{counts['changed']} changed"] if counts["changed"] else []
    parts += [f"{counts['unchanged']} known already"] if counts["unchanged"] else []
    parts += [f"{refused} refused"] if refused else []
    parts += ["the multicast group set"] if multicast == "set" else []
    return ", ".join(parts)


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


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
    node_name: Annotated[str, typer.Argument(metavar="NODE", help="Its name or DevEUI.")],
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
    config_file: Config = Path("swarm.toml"),
) -> None:
    """Forget a node and its keys; should it come back with the same ones, its counters go on.

    Example: swarm nodes remove 70b3d57ed0000001
    """
    client = Client(config_file)
    node = _find(client, node_name)
    dev_eui = node["dev_eui"]
    if not yes:
        typer.confirm(f"Forget {dev_eui} ({node['name']}) and its keys?", abort=True)
    client.delete(f"/api/nodes/{dev_eui}")
    typer.echo(f"{dev_eui}: removed")


def _send(client: Client, nodes: list[dict[str, Any]], multicast: dict[str, Any] | None) -> dict[str, Any]:
    answer = client.post("/api/nodes", {"nodes": nodes, "multicast": multicast}, timeout_s=300.0)
    assert isinstance(answer, dict)
    return answer


def _find(client: Client, text: str) -> dict[str, Any]:
    """The node with this DevEUI or name."""
    digits = text.replace("-", "").replace(":", "").lower()
    listed = client.get("/api/nodes")["nodes"]
    found = [node for node in listed if node["dev_eui"] == digits]
    found = found or [node for node in listed if node["name"].lower() == text.lower()]
    if len(found) > 1:
        euis = ", ".join(node["dev_eui"] for node in found[:5])
        raise CommandError(f"{text}: {len(found)} nodes have this name; give a DevEUI, one of {euis}")
    if not found:
        what = "DevEUI" if _is_eui(digits) else "name"
        raise CommandError(f"no node has the {what} {text}; `swarm nodes list` shows those there are")
    node = found[0]
    assert isinstance(node, dict)
    return node


def _without_keys(node: dict[str, Any]) -> str | None:
    """Which options are missing for this node to be activated; None: none."""
    if node["activation"] == "otaa":
        if "app_key" in node:
            return None
        return "give --app-key (OTAA), or --dev-addr, --nwk-s-key and --app-s-key (ABP)"
    missing = [name for name in ("dev_addr", "nwk_s_key", "app_s_key") if name not in node]
    options = " and ".join(f"--{name.replace('_', '-')}" for name in missing)
    return f"give {options} too: an ABP node needs its address and both session keys" if missing else None


def _is_eui(digits: str) -> bool:
    return len(digits) == 16 and all(digit in "0123456789abcdef" for digit in digits)


def _eui(text: str) -> str:
    digits = text.replace("-", "").replace(":", "").lower()
    if not _is_eui(digits):
        raise CommandError(f"{text}: is no DevEUI; give 16 hexadecimal digits")
    return digits


def read_nodes(file: Path) -> NodesFile:
    """The nodes of a file; CommandError where it cannot be read as a whole."""
    from gateway.pilot import channel as channels

    multicast: dict[str, Any] | None = None
    if file.is_dir():
        group_file, file = file / "multicast.csv", file / "keys.csv"
        group, wrong = _from_csv(group_file, _text(group_file), (*GROUP_KEYS, *channels.COLUMNS))
        if wrong:
            raise CommandError("\n".join(wrong))
        multicast = group[0][1] if group else None
        rows, mistakes = _from_csv(file, _text(file))
    elif (text := _text(file)).lstrip().startswith(("{", "[")):
        rows, multicast = _from_json(file, text)
        mistakes = []
    else:
        rows, mistakes = _from_csv(file, text)
    channel = None
    if multicast is not None:
        said = {name: str(multicast.pop(name, "")) for name in channels.COLUMNS}
        try:
            channel = channels.parse(said)
        except ValueError:
            raise CommandError(
                f"{file}: multicast: region, data_rate or frequency_hz is not usable"
            ) from None
        if (mistake := _mistake(multicast, group=True)) is not None:
            raise CommandError(f"{file}: multicast: {mistake}")
    good: list[Row] = []
    first: dict[str, str] = {}
    for where, node in rows:
        if (mistake := _mistake(node)) is not None:
            mistakes.append(f"{where}: {mistake}")
        elif (dev_eui := node["dev_eui"].lower()) in first:
            mistakes.append(f"{where}: dev_eui {dev_eui} is the same as in {first[dev_eui]}")
        else:
            first[dev_eui] = where
            good.append((where, node))
    return NodesFile(good, mistakes, multicast, channel)


def _mistake(said: dict[str, Any], *, group: bool = False) -> str | None:
    """What is wrong with a node (or a group), in one line that repeats no key; None: nothing."""
    from pydantic import ValidationError

    from gateway.api.bodies import MulticastIn, NodeIn

    try:
        (MulticastIn if group else NodeIn).model_validate(said)
    except ValidationError as error:
        kinds = {str(each["loc"][0]): each["type"] for each in error.errors(include_url=False)}
    else:
        return None
    who = [said.get(column) for column in ("dev_eui", "name") if column not in kinds and said.get(column)]
    wrong = [
        f"{column} is missing; give {WORDS[column]}"
        if kinds[column] == "missing"
        else f"{column} has to be {WORDS[column]}"
        for column in kinds
        if column in WORDS
    ]
    unknown = len(kinds) - len(wrong)
    fields = "1 unknown field" if unknown == 1 else f"{unknown} unknown fields"
    wrong += [f"{fields}; the fields are {', '.join(GROUP_KEYS if group else COLUMNS)}"] if unknown else []
    return f"{' '.join(map(str, who))}: {', '.join(wrong)}" if who else ", ".join(wrong)


def _text(file: Path) -> str:
    if not file.exists():
        advice = "check the path"
        if file.name in ("keys.csv", "multicast.csv"):
            advice = "`swarm pilot provision NODES.csv DIR` makes such a directory"
        raise CommandError(f"{file}: there is no such file; {advice}")
    if file.stat().st_size > FILE_SIZE_MAX:
        raise CommandError(f"{file}: is larger than {FILE_SIZE_MAX // 1_000_000} MB; split it")
    try:
        return file.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise CommandError(f"{file}: is not UTF-8 text; save it as UTF-8") from None


def _from_json(file: Path, text: str) -> tuple[list[Row], dict[str, Any] | None]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{file}: is not JSON ({error}); see `swarm nodes import --help`") from None
    if isinstance(document, dict):
        for key in document:
            if key not in ("nodes", "multicast"):
                known = meant(key, ("nodes", "multicast"), "the keys")
                raise CommandError(f"{file}: {key[:40]!r} is no key of such a file; {known}")
        if "nodes" not in document:
            raise CommandError(f"{file}: nodes: is missing; see `swarm nodes import --help`")
    nodes = document if isinstance(document, list) else document["nodes"]
    if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
        raise CommandError(f"{file}: nodes: must be a list of objects; see `swarm nodes import --help`")
    multicast = document.get("multicast") if isinstance(document, dict) else None
    if multicast is not None and not isinstance(multicast, dict):
        raise CommandError(f"{file}: multicast: must be an object; see `swarm nodes import --help`")
    return [(f"{file}: nodes[{row}]", _renamed(node)) for row, node in enumerate(nodes)], multicast


def _renamed(node: dict[str, Any]) -> dict[str, Any]:
    """The API's words: files say `id` for the name and `context` for the crop as well."""
    renamed = dict(node)
    for theirs, ours in ALIASES.items():
        if theirs in renamed:
            renamed.setdefault(ours, renamed.pop(theirs))
            renamed.pop(theirs, None)
    return renamed


def _from_csv(file: Path, text: str, columns: tuple[str, ...] = COLUMNS) -> tuple[list[Row], list[str]]:
    """The rows, and a line for each that is none; semicolons and tabs separate as well."""
    from gateway.pilot.tables import delimiter

    separator, skipped = delimiter(text)
    reader = csv.reader(text.splitlines(), delimiter=separator, skipinitialspace=True)
    names: list[str] = []
    nodes: list[Row] = []
    mistakes: list[str] = []
    for row in reader:
        cells = [cell.strip() for cell in row]
        where = f"{file}:{reader.line_num}"
        if reader.line_num <= skipped or not any(cells):
            continue
        if not names:
            names = [name.lower() for name in cells]
            _check_header(where, names, columns)
            continue
        if len(cells) != len(names):
            mistakes.append(
                f"{where}: has another number of columns than the header; put texts with commas in quotes"
            )
            continue
        node: dict[str, Any] = {}
        for column, value in _renamed(
            {key: cell for key, cell in zip(names, cells, strict=True) if cell}
        ).items():
            number = value.replace(",", ".") if separator != "," else value
            try:
                node[column] = NUMBERS[column](number) if column in NUMBERS else value
            except ValueError:
                node[column] = value  # is refused as what it is not
        nodes.append((where, node))
    if not names:
        raise CommandError(f"{file}: is empty; start it with a header, the columns are {', '.join(columns)}")
    return nodes, mistakes


def _check_header(where: str, names: list[str], columns: tuple[str, ...]) -> None:
    """CommandError unless every column is known."""
    from gateway.pilot.tables import NODE_COLUMNS

    if columns == COLUMNS and set(NODE_COLUMNS) <= set(names):
        raise CommandError(
            f"{where}: is a pilot's table, whose nodes have no keys yet; provision it first"
            " (`swarm pilot provision`), then import the directory which that makes"
        )
    unknown = [name for name in names if name not in (*columns, *ALIASES)]
    if unknown:
        what = "unknown column" if len(unknown) == 1 else "unknown columns"
        named = ", ".join(repr(name[:40]) for name in unknown[:5])
        raise CommandError(f"{where}: {named}: {what}; {meant(unknown[0], columns, 'the columns')}")
