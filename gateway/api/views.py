"""What the core knows, as JSON objects: read-only, times in microseconds of the core's clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gateway.api.advice import verdicts
from gateway.radios.refusals import meaning
from swarm.coordinator import Coordinator
from swarm.effects import Event
from swarm.federation.cohort import expected_replies
from swarm.federation.strategy import PROTOTYPES, FlowerStrategy
from swarm.inference.placement import coverage
from swarm.mac.commands import NodeMac
from swarm.model.layout import CONTEXTS
from swarm.registry import Entry
from swarm.wire.messages import NO_GAIN, SERVES, SERVES_MASK, right_share

__all__ = [
    "airtime", "answer", "event", "experts", "gathered", "model", "name", "nodes", "placement",
    "rounds", "state",
]  # fmt: skip

HOUR_US = 3_600_000_000


def state(core: Coordinator, now_us: int, radio: Mapping[str, int]) -> dict[str, Any]:
    """The whole cell on one screen; `radio` are the counters of the packet forwarders' side."""
    heard = sum(1 for entry in core.registry if entry.status.last_seen_us is not None)
    current = core.rounds.current
    return {
        "now_us": now_us,
        "region": core.region.name,
        "multicast": {"data_rate": core.channel.data_rate, "frequency_hz": core.channel.frequency_hz},
        "signing_key": None if core.signer.public_key is None else core.signer.public_key.hex(),
        "nodes": len(core.registry),
        "nodes_heard": heard,
        "gateways": airtime(core, now_us),
        "model_version": core.rounds.version,
        "model_digest": core.rounds.digest(),
        "mode": core.config.learning.mode,
        "strategy": core.config.learning.strategy,
        "round": core.rounds.last_round,
        "open_round": None
        if current is None
        else {
            "round": current.number,
            "mode": current.mode.name.lower(),
            "updates": current.updates,
            "expected": expected_replies(
                (entry.record.node_index for entry in core.registry), current.number, current.cohort
            ),
            "close_us": current.close_us,
        },
        "next_round_us": core.rounds.next_open_us,
        "counters": dict(sorted(core.counters.items())),
        "radio": {name: count for name, count in sorted(radio.items()) if count},
    }


def _node(core: Coordinator, entry: Entry, likely_context: int | None) -> dict[str, Any]:
    record = entry.record
    known = 0 <= record.context < len(CONTEXTS)
    return {
        "dev_eui": record.dev_eui,
        "node_index": record.node_index,
        "name": record.name,
        "crop": CONTEXTS[record.context] if known else f"context {record.context}",
        "context": record.context,
        "plot": record.plot,
        "lat": record.lat,
        "lon": record.lon,
        "activation": record.activation,
        "device_class": record.device_class,
        "mask_place": record.mask_place,
        "joined": _joined(entry),
        "dev_addr": f"{entry.session.dev_addr:08x}" if entry.session is not None else None,
        **entry.status.to_row(),
        **_serving(entry.status.serves),
        **_set_up(core.mac.get(record.dev_eui)),
        "privacy": core.rounds.budgets.view(record.dev_eui),
        "likely_crop": None if likely_context is None else CONTEXTS[likely_context],
    }


def _joined(entry: Entry) -> bool | None:
    """Whether it has a session; None: its network server would know, and has brought nothing of it yet."""
    if entry.behind_server:
        return None if entry.status.last_seen_us is None else True
    return entry.session is not None


def name(core: Coordinator, dev_eui: str) -> str:
    """What people call this node; its DevEUI if it has gone."""
    entry = core.registry.get(dev_eui)
    return entry.record.name if entry is not None else dev_eui


def answer(core: Coordinator, data: Mapping[str, Any]) -> dict[str, Any]:
    """An event `query_answered` as every asker gets it, whichever way the question came."""
    own = {key: value for key, value in data.items() if key != "reference"}
    return {**own, "names": [name(core, dev_eui) for dev_eui in data["nodes"]]}


def _set_up(mac: NodeMac | None) -> dict[str, Any]:
    """What the node was told by ADR, and said when asked by DevStatusReq (battery as in a STATUS)."""
    mac = NodeMac() if mac is None else mac
    names = ("tx_power", "nb_trans", "device_battery", "device_margin_db")
    return dict(zip(names, (mac.tx_power, mac.nb_trans, mac.battery, mac.margin_db), strict=True))


def _serving(serves: int | None) -> dict[str, Any]:
    """What the node answers with, whether the fleet's newest head was no gain, how often it was right."""
    if serves is None:
        return {"serves": None, "no_gain": None, "right": None}
    choice = serves & SERVES_MASK
    name = SERVES[choice] if choice < len(SERVES) else str(choice)
    return {"serves": name, "no_gain": bool(serves & NO_GAIN), "right": right_share(serves)}


def nodes(core: Coordinator, entries: Iterable[Entry] | None = None) -> list[dict[str, Any]]:
    """These nodes, or all of them in the order of their indices; keys are never part of it."""
    strategy = core.rounds.strategies[PROTOTYPES]
    likely = strategy.misplaced() if isinstance(strategy, FlowerStrategy) else {}
    chosen = core.registry if entries is None else entries
    return [_node(core, entry, likely.get(entry.record.node_index)) for entry in chosen]


def experts(core: Coordinator) -> dict[str, Any]:
    """The experts of the gateway's own model, and which nodes said that they hold which."""
    replica = core.rounds.replica
    holders = []
    for holder in core.expert_asking.holders:
        entry = core.registry.get(holder.dev_eui)
        holders.append(
            {
                "dev_eui": holder.dev_eui,
                "name": entry.record.name if entry is not None else "",
                "held": [expert for expert in range(len(holder.seen)) if holder.holds(expert)],
                "generation": holder.generation,
                "seen": [round(share / 255, 3) for share in holder.seen],
                "always_on": holder.always_on,
                "silent": holder.silent,
                "contradicted": holder.contradicted,
                "reported_us": holder.reported_us,
            }
        )
    return {
        "generation": replica.generation,
        "here": list(replica.held()),
        "open": len(core.expert_asking),
        "holders": holders,
        "hand_overs": core.hand_overs.listing(),
    }


def placement(core: Coordinator, now_us: int, room: int, replicas: int) -> dict[str, Any]:
    """Which node should hold which experts; how many nodes would hold each."""
    plan = core.expert_asking.plan(now_us, room=room, replicas=replicas)
    count = core.expert_asking.experts
    rows = []
    for each in plan:
        entry = core.registry.get(each.dev_eui)
        rows.append(
            {
                "dev_eui": each.dev_eui,
                "name": entry.record.name if entry is not None else "",
                "experts": list(each.experts),
                "load": list(each.load),
                "drop": list(each.drop),
            }
        )
    return {"plan": rows, "coverage": coverage(plan, count)}


def rounds(core: Coordinator) -> list[dict[str, Any]]:
    """The last rounds, oldest first (see `Rounds.history`), and what nodes think of the models they made.

    `taken`, `refused`: nodes that hold the round's model now and answer with its head, or find no gain in it;
    None where the round made no model.
    """
    held = Counter((status.model_version, taken) for status, taken in verdicts(core))
    made, before = [], 0
    for each in core.rounds.history():
        version = each["model_version"]
        is_new, before = version != before, version
        counts = {"taken": held[version, True], "refused": held[version, False]}
        made.append({**each, **(counts if is_new else dict.fromkeys(counts))})
    return made


def model(core: Coordinator) -> dict[str, Any]:
    """The model that nodes have after the next window, and whether another waits to replace it there."""
    rounds = core.rounds
    return {
        "version": rounds.version,
        "digest": rounds.digest(),
        "vector": rounds.master().tolist(),
        "waiting": rounds.waiting is not None,
    }


def gathered(core: Coordinator, number: int) -> dict[str, Any] | None:
    """The updates of a claimed round; a change is said by the places where it is not zero."""
    found = core.rounds.gathered(number)
    if found is None:
        return None
    return {
        "round": found.round,
        "changes": [
            {
                "dev_eui": change.dev_eui,
                "num_examples": change.num_examples,
                "at": (places := np.flatnonzero(change.delta)).tolist(),
                "by": change.delta[places].tolist(),
            }
            for change in found.changes
        ],
    }


def airtime(core: Coordinator, now_us: int) -> list[dict[str, Any]]:
    """Per gateway and sub-band: what the past hour's downlinks spent, by purpose, against the limit."""
    result = []
    for gateway_id, last_seen_us in core.downlinks.gateways().items():
        spent = core.downlinks.ledger(gateway_id).spent_us(now_us)
        bands = []
        for band in core.region.sub_bands:
            by_purpose = {
                str(purpose): us for (name, purpose), us in sorted(spent.items()) if name == band.name
            }
            bands.append(
                {
                    "name": band.name,
                    "min_hz": band.min_hz,
                    "max_hz": band.max_hz,
                    "duty_cycle": band.duty_cycle,
                    "limit_us": round(band.duty_cycle * HOUR_US),
                    "spent_us": sum(by_purpose.values()),
                    "by_purpose": by_purpose,
                }
            )
        result.append({"gateway_id": gateway_id, "last_seen_us": last_seen_us, "sub_bands": bands})
    return result


def event(what: Event) -> dict[str, Any]:
    """An event as it goes over the stream; a refused frame's says what its reason means."""
    told: dict[str, Any] = {"kind": what.kind, "at_us": what.at_us, "data": dict(what.data)}
    explained = meaning(what.kind, what.data.get("reason"))
    return told if explained is None else {**told, "meaning": explained}
