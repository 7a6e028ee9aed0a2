"""`swarm pilot provision`: keys for every node, made once, kept for ever, never shown.

The output directory holds `keys.csv` (what the gateway has to know), `masks.csv` (what it must not know,
`gateway.pilot.masking`), `multicast.csv` (the group that
all nodes listen to, and where), `signing.key` (with which the gateway signs models, `gateway.pilot.signing`)
and `headers/<id>.h` (what one node's firmware has to know).  Running again keeps every existing key, gives
new nodes theirs, and writes only what changed.  All new files are complete on disk under other names before
the first is renamed, `signing.key` and `keys.csv` first: whatever interrupts, a second run continues from the
keys that exist.  Files are mode 0600, the directory 0700.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gateway.pilot import channel as channels
from gateway.pilot import masking, signing
from gateway.pilot.channel import ChannelOptions
from gateway.pilot.tables import NODES_MAX, CsvErrors, NodeLine, Problems, read_nodes, read_table
from swarm.config import MulticastChannel
from swarm.phy.regions import region as region_of
from swarm.pilot.plan import CROPS
from swarm.security.lorawan import AesKey, multicast_keys
from swarm.wire.messages import MASK_PLACE
from swarm.words import counted

__all__ = ["ProvisionReport", "provision"]

KEYS_FILE = "keys.csv"
MULTICAST_FILE = "multicast.csv"
HEADERS = "headers"
_KEY_COLUMNS = (
    *("node_index", "id", "dev_eui", "crop", "activation", "join_eui"),
    *("app_key", "dev_addr", "nwk_s_key", "app_s_key", "lat", "lon"),
)
_KEY_OPTIONAL = ("plot", "mask_place")
_MULTICAST_COLUMNS = ("mc_addr", "nwk_s_key", "app_s_key")
_MULTICAST_OPTIONAL = ("mc_key", *channels.COLUMNS)
"""A file from before they existed does without; without `mc_key` no device of another make can be let in."""
_WIDTHS = {
    "dev_eui": 16,
    "join_eui": 16,
    "app_key": 32,
    "nwk_s_key": 32,
    "app_s_key": 32,
    "dev_addr": 8,
    "mc_addr": 8,
    "group_secret": 64,
    "mc_key": 32,
}
_DEGREES = r"-?\d{1,3}(\.\d+)?(e-\d+)?"
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}")
_RESTORE = "restore this file from a backup"
NWK_ADDR_BITS = 25
"""Addresses of an experimental network: NwkID 0 above 25 free bits."""

RandomBytes = Callable[[int], bytes]
Keys = dict[str, str]


@dataclass(frozen=True, slots=True)
class ProvisionReport:
    """What `provision` did, without any key."""

    out_dir: str
    created: tuple[str, ...]
    kept: tuple[str, ...]
    orphaned: tuple[str, ...]
    """Nodes with keys that are not in NODES.csv any more; their keys stay."""
    written: tuple[str, ...]
    dry_run: bool
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, object]:
        """JSON-ready, for `--json`."""
        return {
            "out_dir": self.out_dir,
            "created": list(self.created),
            "kept": list(self.kept),
            "orphaned": list(self.orphaned),
            "written": list(self.written),
            "dry_run": self.dry_run,
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """A few lines for a terminal."""
        verb = "would be" if self.dry_run else "was" if len(self.created) == 1 else "were"
        made = counted(len(self.created), "node")
        lines = [f"{made} {verb} given keys, {len(self.kept)} kept theirs; {self.out_dir}"]
        files = "files that would be written" if self.dry_run else "files written"
        lines.append(f"{files}: {', '.join(self.written)}" if self.written else "no file changed")
        if self.orphaned:
            lines.append(f"with keys but not in the table any more: {', '.join(self.orphaned)}")
        return "\n".join([*lines, *self.notes])


def provision(
    nodes_path: str | Path,
    out_dir: str | Path,
    *,
    options: ChannelOptions | None = None,
    mask_group_size: int | None = None,
    sign: bool = False,
    dry_run: bool = False,
    random_bytes: RandomBytes = secrets.token_bytes,
) -> ProvisionReport:
    """Give every node of NODES.csv its keys; CsvErrors lists everything that is wrong, and nothing changes.

    ValueError: `options` ask for a channel that cannot be, or not for this directory.  `random_bytes` is the
    source of all keys; replace it in tests only.  `sign`: make a signing key for a directory that has none;
    a new one always gets it.
    """
    out = Path(out_dir)
    problems = Problems()
    nodes = read_nodes(Path(nodes_path), problems)
    if out.exists() and not out.is_dir():
        problems.add_file(out, "is not a directory; name another place for the keys")
    problems.raise_if_any()
    # Before the directory is made: a refusal leaves no trace.
    stored = _read_channel(out / MULTICAST_FILE, problems)
    problems.raise_if_any()
    channel, warnings = channels.choose(options or ChannelOptions(), stored, out)
    if stored is None and (out / MULTICAST_FILE).exists():
        what = f"{out / MULTICAST_FILE}: does not say where its nodes listen: {channel} is taken and kept"
        warnings = [*warnings, f"! {what}; provision again with what they were built with if that is not so"]
    problems.warnings += warnings
    wanted = (mask_group_size, sign)
    if dry_run:
        return _provision(nodes, out, channel, wanted, problems, random_bytes, dry_run=True)
    with _locked(out):
        return _provision(nodes, out, channel, wanted, problems, random_bytes, dry_run=False)


def _provision(
    nodes: list[NodeLine],
    out: Path,
    channel: MulticastChannel,
    wanted: tuple[int | None, bool],
    problems: Problems,
    random_bytes: RandomBytes,
    *,
    dry_run: bool,
) -> ProvisionReport:
    mask_group_size, sign = wanted
    stored = _read_keys(out / KEYS_FILE, problems)
    group = _read_multicast(out / MULTICAST_FILE, problems)
    masks = _read_masks(out / masking.MASKS_FILE, problems)
    _check_against(nodes, stored, out, problems)
    seed = signing.choose(out, sign=sign, is_new=not stored, problems=problems, random_bytes=random_bytes)
    problems.raise_if_any()
    rows, created = _with_keys(nodes, stored, random_bytes)
    if group is None:
        taken = {keys["dev_addr"] for keys in rows.values()}
        group = {"mc_addr": _address(taken, random_bytes)}
        mc_key = random_bytes(16)
        derived = multicast_keys(AesKey(mc_key), int(group["mc_addr"], 16))
        group |= {name: key.hex() for name, key in zip(("nwk_s_key", "app_s_key"), derived, strict=True)}
        group["mc_key"] = mc_key.hex()
    group |= {name: str(getattr(channel, name)) for name in channels.COLUMNS}
    if mask_group_size is not None:
        masks = _with_masks(nodes, masks, mask_group_size, problems, random_bytes)
    for own in rows.keys() & masks.keys():
        rows[own]["mask_place"] = masking.place(masks[own])
    in_order = sorted(rows.values(), key=lambda keys: int(keys["node_index"]))
    files = {} if seed is None else {signing.SIGNING_FILE: seed.hex() + "\n"}
    files |= {
        KEYS_FILE: _csv(_KEY_COLUMNS + _KEY_OPTIONAL, in_order),
        MULTICAST_FILE: _csv(_MULTICAST_COLUMNS + _MULTICAST_OPTIONAL, [group]),
    }
    if masks:
        files[masking.MASKS_FILE] = _csv(masking.COLUMNS, list(masks.values()))
    for node in nodes:
        own = node.site.id.lower()
        files[f"{HEADERS}/{node.site.id}.h"] = _header(node, rows[own], group, channel, masks.get(own), seed)
    changed = {name: text for name, text in files.items() if not _same(out / name, text)}
    if not dry_run:
        _write_all(out, changed)
    names = {node.site.id.lower() for node in nodes}
    return ProvisionReport(
        out_dir=str(out),
        created=tuple(created),
        kept=tuple(node.site.id for node in nodes if node.site.id.lower() in stored),
        orphaned=tuple(keys["id"] for key, keys in rows.items() if key not in names),
        written=tuple(changed),
        dry_run=dry_run,
        notes=tuple(problems.warnings),
    )


def _with_masks(
    nodes: list[NodeLine],
    stored: dict[str, Keys],
    size: int,
    problems: Problems,
    random_bytes: RandomBytes,
) -> dict[str, Keys]:
    """All rows of masks.csv, with groups for nodes that have none."""
    crops = [(node.site.id, node.site.crop) for node in nodes]
    masks, alone = masking.assign(crops, stored, size, random_bytes)
    if alone:
        what = "a crop with fewer than 4 nodes that have no masking group yet"
        problems.warnings.append(f"! without a masking group: {', '.join(alone)}; {what}")
    problems.warnings.append(masking.NOTE)
    return masks


def _check_against(nodes: list[NodeLine], stored: dict[str, Keys], out: Path, problems: Problems) -> None:
    """The table and the existing keys have to speak of the same radios."""
    owners = {keys["dev_eui"]: keys["id"] for keys in stored.values()}
    for node in nodes:
        known = stored.get(node.site.id.lower())
        if known is not None and node.dev_eui not in ("", known["dev_eui"]):
            what = "is not the one this node's keys were made for; correct it, or delete the node's line in"
            node.line.refuse(problems, "dev_eui", f"{what} {out / KEYS_FILE}")
        owner = owners.get(node.dev_eui, node.site.id)
        if owner.lower() != node.site.id.lower():
            what = f"already has keys as node {owner}; keep that id, or delete its line in {out / KEYS_FILE}"
            node.line.refuse(problems, "dev_eui", what)


def _with_keys(
    nodes: list[NodeLine], stored: dict[str, Keys], random_bytes: RandomBytes
) -> tuple[dict[str, Keys], list[str]]:
    """All rows of keys.csv by lower-case id, and the ids of the nodes that are new."""
    rows = {key: dict(keys) for key, keys in stored.items()}
    indices = {int(keys["node_index"]) for keys in rows.values()}
    euis = {keys["dev_eui"] for keys in rows.values()} | {node.dev_eui for node in nodes}
    addresses = {keys["dev_addr"] for keys in rows.values() if keys["dev_addr"]}
    created: list[str] = []
    free = 0
    for node in nodes:
        keys = rows.setdefault(node.site.id.lower(), dict.fromkeys(_KEY_COLUMNS + _KEY_OPTIONAL, ""))
        if not keys["dev_eui"]:
            created.append(node.site.id)
            while free in indices:
                free += 1
            indices.add(free)
            keys |= {"node_index": str(free), "dev_eui": node.dev_eui or _new_eui(euis, random_bytes)}
            euis.add(keys["dev_eui"])
        site = node.site
        keys |= {"id": site.id, "crop": site.crop, "activation": node.activation}
        keys |= {"lat": repr(site.lat), "lon": repr(site.lon), "plot": node.plot}
        keys["join_eui"] = node.join_eui or keys["join_eui"] or "0" * 16
        if node.activation == "abp":
            keys["dev_addr"] = keys["dev_addr"] or _address(addresses, random_bytes)
            addresses.add(keys["dev_addr"])
        for name in ("app_key",) if node.activation == "otaa" else ("nwk_s_key", "app_s_key"):
            keys[name] = keys[name] or random_bytes(16).hex()
        rows[site.id.lower()] = keys
    return rows, created


def _new_eui(taken: set[str], random_bytes: RandomBytes) -> str:
    """A locally administered EUI-64 that no other node has."""
    while True:
        raw = random_bytes(8)
        eui = (bytes([(raw[0] & 0xFC) | 0x02]) + raw[1:]).hex()
        if eui not in taken:
            return eui


def _address(taken: set[str], random_bytes: RandomBytes) -> str:
    while True:
        address = f"{int.from_bytes(random_bytes(4), 'big') & ((1 << NWK_ADDR_BITS) - 1):08x}"
        if address not in taken:
            return address


def _read_keys(path: Path, problems: Problems) -> dict[str, Keys]:
    """The rows of keys.csv by lower-case id; no value of a key ever reaches a message."""
    stored: dict[str, Keys] = {}
    seen: set[tuple[str, str]] = set()
    for keys, line in _read_secrets(path, _KEY_COLUMNS, problems, _KEY_OPTIONAL):
        needed = ("dev_addr", "nwk_s_key", "app_s_key") if keys["activation"] == "abp" else ("app_key",)
        for name in ("node_index", "id", "dev_eui", *needed):
            if not keys[name]:
                problems.add(path, line, name, f"is empty; {_RESTORE}")
        for name, pattern in (("node_index", r"\d{0,5}"), ("lat", _DEGREES), ("lon", _DEGREES)):
            if not re.fullmatch(pattern, keys[name]):
                problems.add(path, line, name, f"is not a number; {_RESTORE}")
        if keys["crop"] not in CROPS or keys["activation"] not in ("abp", "otaa"):
            problems.add(path, line, "crop", f"or activation is not known; {_RESTORE}")
        if keys["mask_place"] and not re.fullmatch(MASK_PLACE, keys["mask_place"]):
            problems.add(path, line, "mask_place", f"is not group/position/size; {_RESTORE}")
        for name in ("id", "dev_eui", "node_index", *(("mask_place",) if keys["mask_place"] else ())):
            if (name, keys[name].lower()) in seen:
                problems.add(path, line, name, f"appears twice; {_RESTORE}")
            seen.add((name, keys[name].lower()))
        stored[keys["id"].lower()] = keys
    return stored


def _read_multicast(path: Path, problems: Problems) -> Keys | None:
    group = [keys for keys, _ in _read_secrets(path, _MULTICAST_COLUMNS, problems, _MULTICAST_OPTIONAL)]
    return group[0] if group else None


def _read_masks(path: Path, problems: Problems) -> dict[str, Keys]:
    """Masking groups by lower-case id; never imported by the daemon."""
    stored: dict[str, Keys] = {}
    for keys, line in _read_secrets(path, masking.COLUMNS, problems):
        for name in ("mask_group", "mask_position", "mask_size"):
            if not re.fullmatch(r"\d{1,5}", keys[name]):
                problems.add(path, line, name, f"is not a number; {_RESTORE}")
        stored[keys["id"].lower()] = keys
    return stored


def _read_channel(path: Path, problems: Problems) -> MulticastChannel | None:
    """Where the group listens; None: nobody said yet."""
    for cells, line in _read_secrets(path, _MULTICAST_COLUMNS, problems, _MULTICAST_OPTIONAL):
        try:
            return channels.parse(cells)
        except ValueError:
            problems.add(path, line, "region", f"or data_rate or frequency_hz is not usable; {_RESTORE}")
    return None


def _read_secrets(
    path: Path, columns: tuple[str, ...], problems: Problems, optional: tuple[str, ...] = ()
) -> Iterator[tuple[Keys, int]]:
    if not path.exists():
        return
    for line in read_table(path, columns, optional, problems, NODES_MAX).lines:
        keys = {name: line.cells[name] for name in (*columns, *optional)}
        for name, width in _WIDTHS.items():
            if keys.get(name) and not re.fullmatch(rf"[0-9a-f]{{{width}}}", keys[name]):
                problems.add(path, line.number, name, f"is not {width} hex digits; {_RESTORE}")
        yield keys, line.number


def _csv(columns: tuple[str, ...], rows: list[Keys]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _header(
    node: NodeLine,
    keys: Keys,
    group: Keys,
    channel: MulticastChannel,
    mask: Keys | None = None,
    signing_seed: bytes | None = None,
) -> str:
    """What the firmware of one node is compiled with."""
    site, rules = node.site, region_of(channel.region)
    flags = ("humidity" not in site.sensors) | ("rain" not in site.sensors) << 1
    refused = masking.refused_modes(mask is not None, node.share_features)
    seed = hashlib.sha256(bytes.fromhex(keys["dev_eui"])).hexdigest()[:16]
    lines = [
        f"/* Identity and keys of node {site.id} ({site.crop}), made by `swarm pilot provision`. Secret. */",
        "#ifndef SWN_IDENTITY_H",
        "#define SWN_IDENTITY_H",
        "",
        f'#define SWN_NODE_NAME "{site.id}"',
        f"#define SWN_NODE_INDEX {keys['node_index']}u",
        f"#define SWN_CONTEXT {CROPS.index(site.crop)}u",
        f"#define SWN_FLAGS {flags}u",
        f"#define SWN_REFUSES {refused:#06x}u",
        f"#define SWN_STATUS_PERIOD_S {site.report_min * 60}ul",
        f"#define SWN_SEED 0x{seed}ull",
        *channels.region_lines(rules),
        "",
        "/* All byte strings with the most significant byte first, as they are printed. */",
        f"#define SWN_DEV_EUI {_bytes(keys['dev_eui'])}",
        f"#define SWN_JOIN_EUI {_bytes(keys['join_eui'])}",
    ]
    if node.activation == "abp":
        lines += [
            "#define SWN_ACTIVATION_ABP 1",
            f"#define SWN_DEV_ADDR 0x{keys['dev_addr']}ul",
            f"#define SWN_NWK_S_KEY {_bytes(keys['nwk_s_key'])}",
            f"#define SWN_APP_S_KEY {_bytes(keys['app_s_key'])}",
        ]
    else:
        lines += ["#define SWN_ACTIVATION_OTAA 1", f"#define SWN_APP_KEY {_bytes(keys['app_key'])}"]
    lines += [
        "",
        f"#define SWN_MC_ADDR 0x{group['mc_addr']}ul",
        f"#define SWN_MC_NWK_S_KEY {_bytes(group['nwk_s_key'])}",
        f"#define SWN_MC_APP_S_KEY {_bytes(group['app_s_key'])}",
        f"#define SWN_MC_FREQUENCY_HZ {channel.frequency_hz}ul",
        f"#define SWN_MC_DATA_RATE {channel.data_rate}u",
        *(masking.header_lines(mask) if mask is not None else []),
        *(signing.header_lines(signing_seed) if signing_seed is not None else []),
        "",
        "#endif",
        "",
    ]
    return "\n".join(lines)


def _bytes(digits: str) -> str:
    return "{" + ", ".join(f"0x{byte:02x}" for byte in bytes.fromhex(digits)) + "}"


def _same(path: Path, text: str) -> bool:
    """Whether a file has this content and is closed to others already."""
    try:
        return path.read_bytes() == text.encode() and not path.stat().st_mode & 0o077
    except OSError:
        return False


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the output directory, so that two runs cannot both make keys for one node."""
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise CsvErrors([f"{out}: cannot be used ({error.strerror}); name another place"]) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise CsvErrors([f"{out}: another provisioning is running; wait for it to end"]) from error
    finally:
        os.close(handle)


def _sweep(out: Path) -> None:
    """Remove what a provisioning that was killed has left: half written, and with keys in it."""
    for folder in (out, out / HEADERS):
        for path in folder.glob(".*"):
            if _TEMPORARY.fullmatch(path.name) and not path.is_dir():
                path.unlink()


def _write_all(out: Path, files: dict[str, str]) -> None:
    """Write all files beside their places, then rename them; on any failure before that, none is changed."""
    waiting: list[tuple[Path, Path]] = []
    try:
        _sweep(out)
        for name, text in files.items():
            path = out / name
            path.parent.mkdir(mode=0o700, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            waiting.append((temporary, path))
            with os.fdopen(handle, "wb") as file:
                os.fchmod(handle, 0o600)
                file.write(text.encode())
                file.flush()
                if path.parent == out:
                    # The keys must survive a power cut; headers are made from them again.
                    os.fsync(handle)
        while waiting:
            os.replace(*waiting[0])
            waiting.pop(0)
    except OSError as error:
        what = f"{out}: cannot be written ({error.strerror}); make room or give rights, then run again"
        raise CsvErrors([what]) from error
    finally:
        for temporary, _ in waiting:
            temporary.unlink(missing_ok=True)
    for folder in {path.parent for path in (out / name for name in files)}:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(handle)
        os.close(handle)
