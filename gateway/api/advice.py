"""Advice for the running cell: its fleet and what it has measured, as `swarm.advice` takes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from statistics import fmean
from typing import Any

import numpy as np

from swarm.advice import Evidence, Fleet, FleetNode, Judged, advise
from swarm.advice.evidence import LABELS_TO_COMPARE
from swarm.advice.fleet import slowest_data_rate
from swarm.coordinator import Coordinator
from swarm.federation.sums_plan import plan_of
from swarm.model.layout import CONTEXT_MAX
from swarm.registry import NodeStatus
from swarm.wire.messages import NO_GAIN, SERVES, SERVES_MASK, right_share

__all__ = ["advice", "verdicts"]

STATUS_SIZE = 16
ROUND_NUMBERS = 1 << 16
FLEETS_HEAD = SERVES.index("fleet's head")
WITHOUT_MODEL = (SERVES.index("rule"), SERVES.index("last label"))


def advice(core: Coordinator) -> dict[str, Any]:
    """Every mode's cost and known gain for this cell, and which to take: JSON-ready."""
    fleet, evidence = _fleet(core), _evidence(core)
    made = advise(fleet, evidence).to_dict()
    if core.downlinks.group is None:
        deaf = "no multicast group is set, so no round opens: import nodes with multicast.csv beside them"
        made["notes"] = [deaf, *made["notes"]]
    return {
        "nodes": len(fleet.nodes),
        "takers": len(fleet.takers),
        "mode": core.config.learning.mode,
        "period_s": core.config.learning.period_s,
        "known": {
            "reported": evidence.reported,
            "labels": evidence.labels,
            "labels_median": evidence.labels_median,
            "new": evidence.new,
            "taken": evidence.taken,
            "refused": evidence.refused,
            "without_model": evidence.without_model,
            "right": _right(core),
            "rounds": dict(evidence.rounds),
        },
        **made,
    }


def verdicts(core: Coordinator) -> Iterator[tuple[NodeStatus, bool]]:
    """The nodes that hold a head which the fleet changed: whether they answer with it, or find no gain in it.

    Those that do neither, because they tuned it for themselves, have no verdict.
    """
    replica, mirror = core.rounds.replica, core.rounds.mirror()
    heads = enumerate(mirror.heads)
    changed = {context for context, head in heads if not np.array_equal(head, replica.base_head(context))}
    for entry in core.registry:
        status = entry.status
        if entry.record.context in changed and status.model_version and status.serves is not None:
            if status.serves & NO_GAIN:
                yield status, False
            elif status.serves & SERVES_MASK == FLEETS_HEAD:
                yield status, True


def _fleet(core: Coordinator) -> Fleet:
    rounds, learning = core.rounds, core.config.learning
    assumed = slowest_data_rate(core.region, STATUS_SIZE)
    known_contexts = _known_contexts(core)
    nodes = []
    for entry in core.registry:
        rate, context = entry.status.data_rate, entry.record.context
        known = rate is not None and rate in core.region.uplink_data_rates
        invited = learning.contexts == "all" or context not in known_contexts
        heard = rate if known and rate is not None else assumed
        nodes.append(FleetNode(entry.record.node_index, heard, context, invited, known))
    last = rounds.last_round
    return Fleet(
        region=core.region,
        nodes=tuple(nodes),
        multicast_data_rate=core.channel.data_rate,
        multicast_frequency_hz=core.channel.frequency_hz,
        learning=learning,
        repeats=core.config.multicast.repeats,
        report_min=core.config.status_period_min,
        shape=rounds.replica.shape,
        number=1 if last is None else (last + 1) % ROUND_NUMBERS,
        adapter_moved=not np.array_equal(rounds.mirror().adapter, rounds.replica.adapter()),
        sums_bits=plan_of(learning.privacy).bits,
    )


def _known_contexts(core: Coordinator) -> set[int]:
    """Those that the shipped model has a head for."""
    return {context for context in range(CONTEXT_MAX) if core.rounds.replica.knows(context)}


def _evidence(core: Coordinator) -> Evidence:
    known = _known_contexts(core)
    counts: Counter[str] = Counter()
    labelled = []
    for entry in core.registry:
        status, new = entry.status, entry.record.context not in known
        counts["new"] += new
        if status.reported_us is None:
            continue
        counts["reported"] += 1
        if new or core.config.learning.contexts == "all":
            labelled.append(status.labelled or 0)
        counts["without_model"] += (status.serves or 0) & SERVES_MASK in WITHOUT_MODEL
    for status, taken in verdicts(core):
        if (status.labelled or 0) >= LABELS_TO_COMPARE:
            counts["taken" if taken else "refused"] += 1
    closed = [each["mode"] for each in _closed(core) if each["updates"]]
    names = ("reported", "new", "taken", "refused", "without_model")
    return Evidence(
        labelled=tuple(labelled),
        judged=_judged(core),
        rounds=dict(Counter(closed)),
        head_mode=closed[-1] if closed else "",
        **{name: counts[name] for name in names},
    )


def _right(core: Coordinator) -> float | None:
    """How often nodes' answers turned out right, 0..1: the mean of those that were told often enough."""
    shares = [right_share(entry.status.serves or 0) for entry in core.registry]
    told = [share for share in shares if share is not None]
    return fmean(told) if told else None


def _closed(core: Coordinator) -> Iterator[dict[str, Any]]:
    """The closed rounds whose updates went into the cell's own model, oldest first."""
    return (each for each in core.rounds.history() if each["state"] == "closed" and not each.get("gather"))


def _judged(core: Coordinator) -> tuple[Judged, ...]:
    """The newest verdict of each mode on each context."""
    newest: dict[tuple[str, int], Judged] = {}
    for each in _closed(core):
        for own in each.get("contexts", ()):
            if own["base"] is not None and own["new"] is not None:
                newest[each["mode"], own["context"]] = Judged(
                    mode=each["mode"],
                    context=own["context"],
                    nodes=own["nodes"],
                    rounds=own["judged"],
                    base=own["base"],
                    new=own["new"],
                    share=own["share"],
                )
    return tuple(newest.values())
