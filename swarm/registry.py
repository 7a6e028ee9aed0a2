"""The directory of a cell: its nodes, their sessions, and what was last heard of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TypeVar

from swarm.commands import AddNode
from swarm.effects import Row, Store, integers
from swarm.mac.session import Session
from swarm.phy.regions import Region
from swarm.retired import Counters, Retired, fingerprint
from swarm.wire.messages import SERVES_MASK

__all__ = ["NODES_MAX", "Entry", "NodeRecord", "NodeStatus", "Refused", "Registry"]

_T = TypeVar("_T")

JOINING = "session_next"
"""The table of sessions that wait for their first uplink."""
NETWORK = "network"
"""The activation of nodes whose MAC a network server does: no keys here, and no session."""
SERVE_LABELS_MIN = 3
"""A node with fewer labels compares no heads (`swn_serve.h`)."""
NODES_MAX = 65_535
"""Node indices travel as 16 bits."""


@dataclass(slots=True)
class NodeRecord:
    """What was provisioned; see `AddNode` for the meaning of the fields."""

    dev_eui: str
    node_index: int
    name: str
    context: int
    plot: str
    lat: float | None
    lon: float | None
    activation: str
    join_eui: str
    app_key: bytes | None = field(repr=False)
    dev_nonce: int | None
    join_nonce: int
    created_us: int
    gen_app_key: bytes | None = field(default=None, repr=False)
    """Of devices of another make only."""
    device_class: str = "a"
    mask_place: str | None = None

    def to_row(self) -> Row:
        return {name: getattr(self, name) for name in self.__slots__ if name != "dev_eui"}

    @classmethod
    def from_row(cls, dev_eui: str, row: Mapping[str, object]) -> NodeRecord:
        integers(row, "node_index", "context", "join_nonce", "created_us")
        kept = {name: row[name] for name in cls.__slots__ if name in row and name != "dev_eui"}
        return cls(dev_eui=dev_eui, **kept)  # type: ignore[arg-type]


@dataclass(slots=True)
class NodeStatus:
    """What was last heard; None where nothing was.  Units as in the STATUS frame (docs/SPEC.md)."""

    last_seen_us: int | None = None
    reported_us: int | None = None
    """When its last STATUS came: its next one is due a report period later."""
    rssi_dbm: float | None = None
    snr_db: float | None = None
    data_rate: int | None = None
    model_version: int | None = None
    battery: int | None = None
    labelled: int | None = None
    flags: int | None = None
    temperature_centi: int | None = None
    humidity_half: int | None = None
    rain_tenth: int | None = None
    risk: int | None = None
    serves: int | None = None
    uplinks: int = 0
    lost: int = 0

    def to_row(self) -> Row:
        return dict(zip(_STATUS_COLUMNS, _status_values(self), strict=True))

    @classmethod
    def from_row(cls, row: Mapping[str, object]) -> NodeStatus:
        integers(row, "uplinks", "lost")
        return cls(**{name: row[name] for name in cls.__slots__})  # type: ignore[arg-type]


_STATUS_COLUMNS = NodeStatus.__slots__
_status_values = attrgetter(*_STATUS_COLUMNS)


@dataclass(slots=True)
class Entry:
    """One node: its record, its session (None until joined) and its status."""

    record: NodeRecord
    session: Session | None
    status: NodeStatus
    joining: Session | None = None
    """The session of a later join: it takes the place of `session` with its first genuine uplink, for until
    then nobody knows whether the device heard the accept (TS001-1.0.4 section 6.2.3)."""

    @property
    def sessions(self) -> tuple[Session, ...]:
        """Those under which its next uplink may come."""
        return tuple(each for each in (self.session, self.joining) if each is not None)

    @property
    def behind_server(self) -> bool:
        """Whether a network server of somebody else's does the MAC of this node."""
        return self.record.activation == NETWORK

    @property
    def reachable(self) -> bool:
        """Whether frames can be sent to it: it has joined, or is somebody else's to reach."""
        return self.session is not None or self.behind_server


@dataclass(frozen=True, slots=True)
class Refused:
    """A command that was not carried out, and why."""

    reason: str
    in_the_way: str | None = None
    """The DevEUI of the node without which it would be."""


class Registry:
    """All nodes, found by DevEUI, by index, or by DevAddr (several may share one)."""

    def __init__(
        self, region: Region, rows: Mapping[str, Mapping[str, Row]], rx1_delay_s: int, retired: Retired
    ) -> None:
        self._region = region
        self._retired = retired
        self._rx1_delay_s = rx1_delay_s
        self._entries: dict[str, Entry] = {}
        self._by_addr: dict[int, list[Entry]] = {}
        self._by_index: dict[int, Entry] = {}
        self._by_name: dict[str, Entry] = {}
        self._by_place: dict[str, Entry] = {}
        self.behind_server = 0
        """How many nodes are behind a network server."""
        self._free_from = NODES_MAX - 1
        """All indices above are taken."""
        sessions, statuses = rows.get("session", {}), rows.get("status", {})
        for dev_eui, row in rows.get("node", {}).items():
            session = Session.from_row(dev_eui, sessions[dev_eui]) if dev_eui in sessions else None
            status = NodeStatus.from_row(statuses[dev_eui]) if dev_eui in statuses else NodeStatus()
            joining = rows.get(JOINING, {}).get(dev_eui)
            later = None if joining is None else Session.from_row(dev_eui, joining)
            self._insert(Entry(NodeRecord.from_row(dev_eui, row), session, status, later))

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        """In the order of their indices, so that whoever sums over nodes does it in one order."""
        return iter([self._by_index[index] for index in sorted(self._by_index)])

    def get(self, dev_eui: str) -> Entry | None:
        return self._entries.get(dev_eui)

    def find(self, called: str) -> Entry | None:
        """The node with this DevEUI or, in any case of letters, of this name."""
        return self._entries.get(called.lower()) or self._by_name.get(called.lower())

    def by_index(self, node_index: int) -> Entry | None:
        return self._by_index.get(node_index)

    def by_addr(self, dev_addr: int) -> list[Entry]:
        return self._by_addr.get(dev_addr, [])

    def mask_place(self, entry: Entry) -> str | None:
        """The place in a masking group that this node may claim: its own, or "" for none.

        None: any; no node of the cell has one, for they were imported before places were told.
        """
        return entry.record.mask_place or ("" if self._by_place else None)

    def versions(self) -> list[int]:
        """The model versions that nodes reported last, of those that did."""
        said = (entry.status.model_version for entry in self)
        return [version for version in said if version is not None]

    def choices(self, version: int) -> dict[int, list[int]]:
        """By context: what those nodes answer with that hold this version and compare heads."""
        said: dict[int, list[int]] = {}
        for entry in self:
            status = entry.status
            compares = status.labelled is not None and status.labelled >= SERVE_LABELS_MIN
            if status.model_version == version and status.serves is not None and compares:
                said.setdefault(entry.record.context, []).append(status.serves & SERVES_MASK)
        return said

    def add(self, now_us: int, spec: AddNode) -> list[Store] | Refused:
        """Register `spec`; the returned stores are complete only when all are performed.

        No stores: the node is known with just these values, and nothing changed.
        """
        known = self._entries.get(spec.dev_eui)
        index = self._index_for(spec, known)
        if isinstance(index, Refused):
            return index
        fault = self._fault(spec, known)
        if fault is not None:
            return fault
        if self.unchanged(spec):
            return []
        counters, stores = self._retired.take(_fingerprint(spec)) if known is None else (Counters(), [])
        record = _record(spec, index, known, now_us, counters)
        session = known.session if known else None
        if session is None and spec.activation == "abp":
            session = self.session(
                spec.dev_eui, _some(spec.dev_addr), _some(spec.nwk_s_key), _some(spec.app_s_key)
            )
            session.f_cnt_up, session.f_cnt_down = counters.f_cnt_up, counters.f_cnt_down
        if session is not None and spec.activation == "abp" and spec.rx1_delay_s is not None:
            session.rx1_delay_us = spec.rx1_delay_s * 1_000_000
        if known is not None:
            self._drop(known)
        entry = Entry(
            record, session, known.status if known else NodeStatus(), known.joining if known else None
        )
        self._insert(entry)
        stores.append(Store("node", spec.dev_eui, record.to_row()))
        if session is not None:
            stores.append(Store("session", spec.dev_eui, session.to_row()))
        return stores

    def refusal(self, spec: AddNode) -> Refused | None:
        """Why `add` would refuse this node, as things are; None: it would not."""
        known = self._entries.get(spec.dev_eui)
        index = self._index_for(spec, known)
        return index if isinstance(index, Refused) else self._fault(spec, known)

    def unchanged(self, spec: AddNode) -> bool:
        """Whether `add` would change nothing, because the node is known with just these values."""
        known = self._entries.get(spec.dev_eui)
        if known is None or spec.node_index not in (None, known.record.node_index):
            return False
        if spec.activation == "abp" and not _same_session(known.session, spec):
            return False
        return known.record == _record(spec, known.record.node_index, known, 0, Counters())

    def remove(self, dev_eui: str) -> list[Store] | Refused:
        """Forget a node; should its keys come back, their counters go on."""
        entry = self._entries.get(dev_eui)
        if entry is None:
            return Refused(f"no node has the DevEUI {dev_eui}; `swarm nodes list` shows those there are")
        if self._retired.is_full:
            return Refused("too many keys went out of use here; use another data_dir")
        self._drop(entry)
        tables = ("node", "session", "status", *((JOINING,) if entry.joining is not None else ()))
        stores = [Store(table, dev_eui, None) for table in tables]
        return [*stores, self._retired.keep(_fingerprint_of(entry), _counters_of(entry))]

    def session(self, dev_eui: str, dev_addr: int, nwk_s_key: bytes, app_s_key: bytes) -> Session:
        """A fresh session with this cell's receive windows."""
        return Session(
            dev_eui=dev_eui,
            dev_addr=dev_addr,
            nwk_s_key=nwk_s_key,
            app_s_key=app_s_key,
            f_cnt_up=None,
            f_cnt_down=0,
            rx1_delay_us=self._rx1_delay_s * 1_000_000,
            rx1_dr_offset=0,
            rx2_frequency_hz=self._region.rx2_frequency_hz,
            rx2_data_rate=self._region.rx2_data_rate,
        )

    def set_session(self, entry: Entry, session: Session) -> list[Store]:
        """The device asked for a session and is given this one; an older one stays until it is used."""
        self._drop(entry)
        first = entry.session is None
        if first:
            entry.session = session
        else:
            entry.joining = session
        self._insert(entry)
        return [Store("session" if first else JOINING, entry.record.dev_eui, session.to_row())]

    def promote(self, entry: Entry) -> list[Store]:
        """The later session was used: the one before it is over."""
        self._drop(entry)
        entry.session, entry.joining = entry.joining, None
        self._insert(entry)
        return [Store(JOINING, entry.record.dev_eui, None)]

    def free_address(self, net_id: int, node_index: int) -> int:
        """The DevAddr of a joining node: its index below the network's NwkID (TS001-1.0.4 section 6.1.1)."""
        return ((net_id & 0x7F) << 25) | node_index

    def _index_for(self, spec: AddNode, known: Entry | None) -> int | Refused:
        if known is not None and spec.node_index in (None, known.record.node_index):
            return known.record.node_index
        if spec.node_index is None:
            if len(self._entries) >= NODES_MAX:
                return Refused(f"a cell holds at most {NODES_MAX} nodes")
            # From above: provisioned nodes bring their own indices, which count up from 0.
            while self._free_from in self._by_index:
                self._free_from -= 1
            return self._free_from
        other = self._by_index.get(spec.node_index)
        if other is not None and other.record.dev_eui != spec.dev_eui:
            return Refused(
                f"node_index {spec.node_index} belongs to {other.record.dev_eui}; give another or none",
                other.record.dev_eui,
            )
        if not 0 <= spec.node_index < NODES_MAX:
            return Refused(f"node_index {spec.node_index} is outside 0..{NODES_MAX - 1}")
        return spec.node_index

    def _fault(self, spec: AddNode, known: Entry | None) -> Refused | None:
        """Whether `spec` lacks keys, or would take over a known node's identity, or another's name."""
        missing = _missing_keys(spec)
        if missing is not None:
            return Refused(missing)
        if known is not None and _fingerprint(spec) != _fingerprint_of(known):
            return Refused(
                "is known with other keys; if they did change, remove the node first", spec.dev_eui
            )
        named = self._by_name.get(spec.name.lower())
        if named is not None and named.record.dev_eui != spec.dev_eui:
            other = named.record.dev_eui
            return Refused(f"the name {spec.name} belongs to {other}; give another", other)
        member = self._by_place.get(spec.mask_place or "")
        if member is not None and member.record.dev_eui != spec.dev_eui:
            other = member.record.dev_eui
            return Refused(f"the place {spec.mask_place} in a masking group belongs to {other}", other)
        return None

    def _insert(self, entry: Entry) -> None:
        self._by_name.setdefault(entry.record.name.lower(), entry)
        self._entries[entry.record.dev_eui] = entry
        self._by_index[entry.record.node_index] = entry
        if entry.record.mask_place is not None:
            self._by_place[entry.record.mask_place] = entry
        self.behind_server += entry.behind_server
        for dev_addr in {session.dev_addr for session in entry.sessions}:
            self._by_addr.setdefault(dev_addr, []).append(entry)

    def _drop(self, entry: Entry) -> None:
        if self._by_name.get(entry.record.name.lower()) is entry:
            del self._by_name[entry.record.name.lower()]
        del self._entries[entry.record.dev_eui]
        del self._by_index[entry.record.node_index]
        if entry.record.mask_place is not None:
            del self._by_place[entry.record.mask_place]
        self.behind_server -= entry.behind_server
        self._free_from = max(self._free_from, entry.record.node_index)
        for dev_addr in {session.dev_addr for session in entry.sessions}:
            self._by_addr[dev_addr].remove(entry)


def _record(spec: AddNode, index: int, known: Entry | None, now_us: int, counters: Counters) -> NodeRecord:
    """The record that `spec` makes; what only this cell knows stays as it is."""
    return NodeRecord(
        dev_eui=spec.dev_eui,
        node_index=index,
        name=spec.name,
        context=spec.context,
        plot=spec.plot,
        lat=spec.lat,
        lon=spec.lon,
        activation=spec.activation,
        join_eui=spec.join_eui,
        app_key=spec.app_key,
        dev_nonce=known.record.dev_nonce if known else counters.dev_nonce,
        join_nonce=known.record.join_nonce if known else counters.join_nonce,
        created_us=known.record.created_us if known else now_us,
        gen_app_key=spec.gen_app_key,
        device_class=spec.device_class,
        mask_place=spec.mask_place or (known.record.mask_place if known else None),
    )


def _missing_keys(spec: AddNode) -> str | None:
    if spec.activation == "abp" and None in (spec.dev_addr, spec.nwk_s_key, spec.app_s_key):
        return "an ABP node needs dev_addr, nwk_s_key and app_s_key"
    if spec.activation == "otaa" and spec.app_key is None:
        return "an OTAA node needs app_key (and its join_eui)"
    return None


def _fingerprint(spec: AddNode) -> str:
    """Of the keys whose counters must not repeat."""
    if spec.activation == NETWORK:
        return fingerprint(NETWORK, spec.dev_eui)
    if spec.activation == "otaa":
        return fingerprint("otaa", spec.dev_eui, _some(spec.app_key))
    return fingerprint("abp", _some(spec.dev_addr), _some(spec.nwk_s_key), _some(spec.app_s_key))


def _fingerprint_of(entry: Entry) -> str:
    record, session = entry.record, entry.session
    if entry.behind_server:
        return fingerprint(NETWORK, record.dev_eui)
    if record.activation == "otaa":
        return fingerprint("otaa", record.dev_eui, _some(record.app_key))
    assert session is not None
    return fingerprint("abp", session.dev_addr, session.nwk_s_key, session.app_s_key)


def _counters_of(entry: Entry) -> Counters:
    record, session = entry.record, entry.session
    if record.activation == "otaa" or session is None:  # the next join makes fresh session keys
        return Counters(dev_nonce=record.dev_nonce, join_nonce=record.join_nonce)
    return Counters(f_cnt_up=session.f_cnt_up, f_cnt_down=session.f_cnt_down)


def _same_session(session: Session | None, spec: AddNode) -> bool:
    """Whether an ABP node's session is what `spec` says."""
    delay_us = None if spec.rx1_delay_s is None else spec.rx1_delay_s * 1_000_000
    return session is not None and delay_us in (None, session.rx1_delay_us)


def _some(value: _T | None) -> _T:
    assert value is not None
    return value
