"""The files that `swarm nodes import` reads: CSV, JSON, or a directory that `swarm pilot provision` made."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.commands.keys import may_be_key, warn_of_open
from gateway.commands.output import CommandError, meant

if TYPE_CHECKING:
    from swarm.config import MulticastChannel

__all__ = ["NodesFile", "Row", "is_eui", "mistake_of", "read_nodes"]

COLUMNS = (
    "dev_eui", "name", "crop", "activation", "plot", "lat", "lon", "node_index", "dev_addr",
    "nwk_s_key", "app_s_key", "join_eui", "app_key", "gen_app_key", "rx1_delay_s", "device_class",
    "mask_place",
)  # fmt: skip
ALIASES = {"id": "name", "context": "crop", "class": "device_class"}
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
    "activation": "abp, otaa or network",
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
    "gen_app_key": "32 hexadecimal digits",
    "mc_key": "32 hexadecimal digits",
    "rx1_delay_s": "a whole number from 1 to 15",
    "device_class": "a or c",
    "mask_place": "group/position/size, as 7/0/8",
}
JSON_KEYS = ("nodes", "multicast", "signing_key")
OWN = ("dev_eui", "name", "node_index", "mask_place")
"""What no two nodes share."""
KEYS = {"app_key", "nwk_s_key", "app_s_key", "gen_app_key"}
GROUP_KEYS = ("mc_addr", "nwk_s_key", "app_s_key")
FILE_SIZE_MAX = 50_000_000
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
    signing_seed: bytes | None = field(default=None, repr=False)
    """What their models are signed with."""


def is_eui(digits: str) -> bool:
    """Whether these are the 16 lower-case hexadecimal digits of an EUI."""
    return len(digits) == 16 and all(digit in "0123456789abcdef" for digit in digits)


def read_nodes(file: Path) -> NodesFile:
    """The nodes of a file; CommandError where it cannot be read as a whole."""
    from gateway.pilot import channel as channels
    from gateway.signing_file import SIGNING_FILE

    multicast: dict[str, Any] | None = None
    seed: bytes | None = None
    secret_files = [file]
    if file.is_dir():
        seed = _seed(file / SIGNING_FILE)
        secret_files = [file / "keys.csv", file / "multicast.csv", *([file / SIGNING_FILE] if seed else [])]
        group_file, file = file / "multicast.csv", file / "keys.csv"
        group, wrong = _from_csv(group_file, _text(group_file), (*GROUP_KEYS, "mc_key", *channels.COLUMNS))
        if wrong:
            raise CommandError("\n".join(wrong))
        multicast = group[0][1] if group else None
        rows, mistakes = _from_csv(file, _text(file))
    elif (text := _text(file)).lstrip().startswith(("{", "[")):
        rows, multicast, seed = _from_json(file, text)
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
        multicast = _with_session_keys(multicast)
        if (mistake := mistake_of(multicast, group=True)) is not None:
            raise CommandError(f"{file}: multicast: {mistake}")
    good: list[Row] = []
    first: dict[tuple[str, str], str] = {}
    for where, node in rows:
        own = [(key, str(node[key]).lower()) for key in OWN if node.get(key) is not None]
        if (mistake := mistake_of(node)) is not None:
            mistakes.append(f"{where}: {mistake}")
        elif (same := next((each for each in own if each in first), None)) is not None:
            mistakes.append(f"{where}: {same[0]} {same[1]} is the same as in {first[same]}")
        else:
            first |= dict.fromkeys(own, where)
            good.append((where, node))
    if multicast is not None or seed is not None or any(KEYS & node.keys() for _, node in rows):
        for each in secret_files:
            warn_of_open(each)
    return NodesFile(good, mistakes, multicast, channel, seed)


def _with_session_keys(group: dict[str, Any]) -> dict[str, Any]:
    """A group of which only McKey is given, with the two keys that follow from it; others as they are."""
    from swarm.security.lorawan import AesKey, multicast_keys

    if "mc_key" not in group or any(group.get(name) for name in GROUP_KEYS[1:]):
        return group
    try:
        mc_key, mc_addr = AesKey(bytes.fromhex(group["mc_key"])), int(group["mc_addr"], 16)
        nwk_s_key, app_s_key = multicast_keys(mc_key, mc_addr)
    except (KeyError, TypeError, ValueError, OverflowError):
        return group  # what is wrong with it is said next
    return {**group, "nwk_s_key": nwk_s_key.hex(), "app_s_key": app_s_key.hex()}


def mistake_of(said: dict[str, Any], *, group: bool = False) -> str | None:
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


def _seed(path: Path) -> bytes | None:
    """The signing key of a provisioned directory; None: it has none."""
    from gateway.data_dir import DataDirError
    from gateway.signing_file import read_seed

    try:
        return read_seed(path)
    except DataDirError as error:
        raise CommandError(str(error)) from error


def _from_json(file: Path, text: str) -> tuple[list[Row], dict[str, Any] | None, bytes | None]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{file}: is not JSON ({error}); see `swarm nodes import --help`") from None
    if isinstance(document, dict):
        for key in document:
            if key not in JSON_KEYS:
                known = meant(key, JSON_KEYS, "the keys")
                named = "what may be a node's key" if may_be_key(key) else repr(key[:40])
                raise CommandError(f"{file}: {named} is no key of such a file; {known}")
        if "nodes" not in document:
            raise CommandError(f"{file}: nodes: is missing; see `swarm nodes import --help`")
    nodes = document if isinstance(document, list) else document["nodes"]
    if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
        raise CommandError(f"{file}: nodes: must be a list of objects; see `swarm nodes import --help`")
    multicast = document.get("multicast") if isinstance(document, dict) else None
    if multicast is not None and not isinstance(multicast, dict):
        raise CommandError(f"{file}: multicast: must be an object; see `swarm nodes import --help`")
    digits = document.get("signing_key") if isinstance(document, dict) else None
    if digits is not None and not (isinstance(digits, str) and re.fullmatch("[0-9a-f]{64}", digits)):
        raise CommandError(f"{file}: signing_key: must be 64 hexadecimal digits")
    seed = None if digits is None else bytes.fromhex(digits)
    return [(f"{file}: nodes[{row}]", _renamed(node)) for row, node in enumerate(nodes)], multicast, seed


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
        named, known = (
            ", ".join(repr(name[:40]) for name in unknown[:5]),
            meant(unknown[0], columns, "the columns"),
        )
        if may_be_key(" ".join(names)):
            named, known = "what may be a key, and no header", f"the columns are {', '.join(columns)}"
        raise CommandError(f"{where}: {named}: {what}; {known}")
