"""Whom to ask: a question and the nodes that are there become a short list, priced in airtime.

Three kinds of question: `node` (what does this node say), `place` (what do the nodes around here say),
`features` (judge these inputs).  The gateway holds every head itself, so a `features` question costs
no airtime unless an expert lives on nodes only: then `replica=False` asks its holders.

Nodes are ranked by merit = nearness * promptness * battery * cheapness, each 0..1:

- nearness exp(-distance / 500 m) for a place (same plot: 1; no position: as if 1.5 km away),
- promptness exp(-2 wait / time until the deadline): a class A node hears a question after its next uplink,
  which is a report period after its last report; a node that is overdue may be silent: .2,
- battery: external power or unknown 1, else its fill level, never below .1,
- cheapness sqrt(cheapest airtime / own airtime): SF12 costs 25 times SF7.

Answers of nodes that share a data rate could meet on the air: each is given `reply_in_s` in which it picks
a random moment, long enough for all of them, short enough for the deadline.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from swarm.effects import Malformed
from swarm.model.layout import FEATURES_MAX
from swarm.phy.regions import Region
from swarm.wire import app

__all__ = [
    "ANSWER_SIZE",
    "Candidate",
    "Kind",
    "Plan",
    "Query",
    "Target",
    "battery_share",
    "distance_m",
    "due_us",
    "exchange_us",
    "plan",
    "promptness",
]

Kind = Literal["node", "place", "features"]

NEAR_M = 500.0
UNPLACED_M = 1500.0
OVERDUE = 0.2
STALE_US = 48 * 3600 * 1_000_000
"""A node silent for longer is not asked, unless it is the one asked about."""
QUORUM = 0.8
"""Share of the asked nodes whose answers suffice."""
BATTERY_FLOOR = 0.1
SPREAD = 4.0
"""Reply slots per node and data rate: the chance that two answers meet stays below a quarter."""
MAC_SIZE = 13
"""LoRaWAN bytes around a payload without options."""
ANSWER_SIZE = 11
EARTH_M = 6_371_000.0
REFERENCE_MAX = 80
_KINDS = ("node", "place", "features")


@dataclass(frozen=True, slots=True)
class Query:
    """A question, as a person or a program puts it.

    `node` needs `dev_eui`; `place` needs `plot` or `lat` and `lon` (degrees); `features` needs the
    model's int8 inputs and a context.  `context` narrows a place to one crop (None: any).  `k` and
    `deadline_s` override the configuration.  `reference` is the asker's own name for the question; its
    answer carries it.
    """

    kind: Kind
    query_id: int = 0
    dev_eui: str | None = None
    plot: str | None = None
    lat: float | None = None
    lon: float | None = None
    context: int | None = None
    features: tuple[int, ...] | None = None
    k: int | None = None
    deadline_s: int | None = None
    reference: str | None = None

    def fault(self) -> str | None:
        """What is missing or out of range, as a sentence; None when the question can be put."""
        if self.kind not in _KINDS:
            return f"kind {self.kind}: must be one of {', '.join(_KINDS)}"
        if self.kind == "node" and not self.dev_eui:
            return "a question to a node needs its dev_eui"
        if self.kind == "place" and not self.plot and (self.lat is None or self.lon is None):
            return "a question about a place needs a plot, or lat and lon"
        if self.kind == "features" and (self.features is None or self.context is None):
            return "a question with features needs them and a context"
        if self.features is not None and (
            not 1 <= len(self.features) <= FEATURES_MAX
            or any(not -128 <= value <= 127 for value in self.features)
        ):
            return f"features must be 1..{FEATURES_MAX} numbers of -128..127"
        if self.context is not None and not 0 <= self.context < app.CONTEXT_MAX:
            return f"context {self.context}: must be 0..{app.CONTEXT_MAX - 1}"
        if self.k is not None and self.k < 1:
            return "k must be at least 1"
        if self.deadline_s is not None and self.deadline_s < 1:
            return "deadline_s must be at least 1"
        if self.reference is not None and len(self.reference) > REFERENCE_MAX:
            return f"reference: {REFERENCE_MAX} characters at most"
        return None

    def to_json(self) -> str:
        """The text that table `query` keeps."""
        return json.dumps({key: value for key, value in asdict(self).items() if value is not None})

    @classmethod
    def from_json(cls, text: str) -> Query | Malformed:
        """The question that `to_json` wrote."""
        try:
            fields = json.loads(text)
            if fields.get("features") is not None:
                fields["features"] = tuple(fields["features"])
            query = cls(**fields)
            fault = query.fault()
        except (AttributeError, TypeError, ValueError) as error:
            return Malformed("query", str(error))
        return query if fault is None else Malformed("query", fault)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node as the planner sees it; `battery` as LoRaWAN says it (0 external, 1..254, 255 unknown)."""

    dev_eui: str
    node_index: int
    context: int
    data_rate: int
    last_seen_us: int | None = None
    battery: int = 255
    plot: str = ""
    lat: float | None = None
    lon: float | None = None
    model_version: int = 0
    reported_us: int | None = None
    """When it last sent by itself; None: not yet."""
    report_period_us: int | None = None
    """How often it sends by itself; None: not known."""


@dataclass(frozen=True, slots=True)
class Target:
    """One node to ask: `weight` (0..1) is what its answer counts for, `airtime_us` question plus answer."""

    dev_eui: str
    node_index: int
    weight: float
    distance_m: float | None
    data_rate: int
    reply_in_s: int
    airtime_us: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Whom to ask, best first.  `local`: the gateway's replica answers; `reason`: why nobody is asked."""

    query: Query
    targets: tuple[Target, ...]
    quorum: int
    deadline_us: int
    airtime_us: int
    local: bool = False
    reason: str | None = None

    def frame(self, target: Target) -> bytes:
        """The FPort 11 payload for one target."""
        query = self.query
        context = app.CONTEXT_OWN if query.context is None else query.context
        flags = app.QUERY_OWN_READINGS if query.features is None else app.QUERY_FEATURES_FOLLOW
        return app.encode(app.Query(query.query_id, flags, context, target.reply_in_s, query.features))


def distance_m(lat: float, lon: float, other_lat: float, other_lon: float) -> float:
    """Metres between two points (degrees), on a plane tangent to the earth: exact to .1 % over a farm."""
    north = math.radians(other_lat - lat)
    east = math.radians(other_lon - lon) * math.cos(math.radians((lat + other_lat) / 2))
    return EARTH_M * math.hypot(north, east)


def plan(
    query: Query,
    nodes: Iterable[Candidate],
    *,
    region: Region,
    now_us: int,
    k: int,
    deadline_us: int,
    replica: bool = True,
) -> Plan:
    """The best `k` nodes to ask (`query.k` wins), to be answered by `deadline_us`.

    Deterministic: ties go to the lower node index.
    """
    if query.kind == "features" and replica:
        return Plan(query, (), 0, deadline_us, 0, local=True)
    found = [node for node in nodes if _is_meant(query, node)]
    if not found:
        return Plan(query, (), 0, deadline_us, 0, reason="no_node")
    if query.kind != "node":
        found = [node for node in found if _age_us(node, now_us) <= STALE_US]
    if not found:
        return Plan(query, (), 0, deadline_us, 0, reason="no_fresh_node")
    centre = _centre(query, found)
    question_size = 6 + len(query.features or ())
    prices = [exchange_us(region, node, question_size, ANSWER_SIZE) for node in found]
    merits = [
        (_merit(query, node, centre, now_us, deadline_us) * math.sqrt(min(prices) / price), price, node)
        for node, price in zip(found, prices, strict=True)
    ]
    merits.sort(key=lambda entry: (-entry[0], entry[2].node_index))
    chosen = [(node, price) for _, price, node in merits[: query.k or k]]
    room_us = max(deadline_us - now_us, 0)
    slots = _reply_slots(region, [node for node, _ in chosen], room_us)
    targets = tuple(
        Target(
            dev_eui=node.dev_eui,
            node_index=node.node_index,
            weight=_weight(query, node, centre),
            distance_m=_distance(node, centre),
            data_rate=node.data_rate,
            reply_in_s=slots[node.data_rate],
            airtime_us=price,
        )
        for node, price in chosen
    )
    quorum = math.ceil(QUORUM * len(targets))
    return Plan(query, targets, quorum, deadline_us, sum(target.airtime_us for target in targets))


def _is_meant(query: Query, node: Candidate) -> bool:
    if query.kind == "node":
        return node.dev_eui == query.dev_eui
    return query.context is None or node.context == query.context


def _age_us(node: Candidate, now_us: int) -> float:
    return math.inf if node.last_seen_us is None else max(now_us - node.last_seen_us, 0)


def _centre(query: Query, nodes: Sequence[Candidate]) -> tuple[float, float] | None:
    """The point asked about: given, or the middle of the plot's nodes."""
    if query.lat is not None and query.lon is not None:
        return query.lat, query.lon
    if query.kind != "place":
        return None
    inside = [(node.lat, node.lon) for node in nodes if node.plot == query.plot]
    points = [(lat, lon) for lat, lon in inside if lat is not None and lon is not None]
    if not points:
        return None
    return sum(lat for lat, _ in points) / len(points), sum(lon for _, lon in points) / len(points)


def _distance(node: Candidate, centre: tuple[float, float] | None) -> float | None:
    if centre is None or node.lat is None or node.lon is None:
        return None
    return distance_m(centre[0], centre[1], node.lat, node.lon)


def due_us(node: Candidate, now_us: int, deadline_us: int) -> int:
    """When the node will next send by itself, as far as that is known; else the deadline."""
    if node.report_period_us is None or node.reported_us is None:
        return deadline_us
    at_us = node.reported_us + node.report_period_us
    return min(at_us, deadline_us) if at_us >= now_us else deadline_us


def promptness(node: Candidate, now_us: int, deadline_us: int) -> float:
    """How likely the node's next uplink opens its receive windows in time."""
    if node.report_period_us is None or node.reported_us is None:
        return OVERDUE
    wait_us = node.reported_us + node.report_period_us - now_us
    return math.exp(-2.0 * wait_us / max(deadline_us - now_us, 1)) if wait_us >= 0 else OVERDUE


def _weight(query: Query, node: Candidate, centre: tuple[float, float] | None) -> float:
    """What this node's answer counts for: its nearness (its readings are fresh when it answers)."""
    if query.kind != "place" or (query.plot and node.plot == query.plot):
        return 1.0
    away = _distance(node, centre)
    return math.exp(-(UNPLACED_M if away is None else away) / NEAR_M)


def _merit(
    query: Query, node: Candidate, centre: tuple[float, float] | None, now_us: int, deadline_us: int
) -> float:
    return _weight(query, node, centre) * promptness(node, now_us, deadline_us) * battery_share(node)


def battery_share(node: Candidate) -> float:
    """External power or unknown 1, else the fill level, never below .1."""
    return 1.0 if node.battery in (0, 255) else max(node.battery / 254, BATTERY_FLOOR)


def exchange_us(region: Region, node: Candidate, question_size: int, answer_size: int) -> int:
    """Airtime of a question down at the node's own data rate (RX1 without offset) and an answer up; payload
    bytes."""
    up = region.airtime_us(node.data_rate, answer_size + MAC_SIZE, uplink=True)
    frequency_hz = region.uplink_channels[0].frequency_hz
    _, down_rate = region.rx1(node.data_rate, frequency_hz, 0)
    return up + region.airtime_us(down_rate, question_size + MAC_SIZE, uplink=False)


def _reply_slots(region: Region, nodes: Sequence[Candidate], room_us: int) -> dict[int, int]:
    """Per data rate, the seconds over which its nodes spread their answers: at most half of the time left."""
    slots: dict[int, int] = {}
    for rate in sorted({node.data_rate for node in nodes}):
        sharers = sum(node.data_rate == rate for node in nodes)
        if sharers == 1:
            slots[rate] = 0
            continue
        answer_us = region.airtime_us(rate, ANSWER_SIZE + MAC_SIZE, uplink=True)
        wanted_us = SPREAD * sharers * answer_us
        slots[rate] = max(0, min(math.ceil(wanted_us / 1e6), room_us // 2_000_000, 255))
    return slots
