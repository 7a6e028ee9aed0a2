"""A registered node as the planners see it: to be asked, or to be given experts."""

from __future__ import annotations

from swarm.inference.holders import REPORT_LIFE_US, Holder
from swarm.inference.placement import Place
from swarm.inference.plan import Candidate
from swarm.registry import Entry

__all__ = ["candidate_of", "place_of"]

DATA_RATE_BEST = 5
"""SF7 at 125 kHz: nothing faster makes a better holder."""
GONE_PERIODS = 3
"""So many reports in a row are not lost by chance: others take over what the node holds."""


def candidate_of(entry: Entry, report_period_us: int) -> Candidate | None:
    """None: the node cannot be asked, because it has no session or was never heard."""
    record, status = entry.record, entry.status
    if not entry.reachable or status.data_rate is None:
        return None
    return Candidate(
        dev_eui=record.dev_eui,
        node_index=record.node_index,
        context=record.context,
        data_rate=status.data_rate,
        last_seen_us=status.last_seen_us,
        battery=255 if status.battery is None else status.battery,
        plot=record.plot,
        lat=record.lat,
        lon=record.lon,
        model_version=status.model_version or 0,
        reported_us=status.reported_us,
        report_period_us=report_period_us,
    )


def place_of(
    holder: Holder, entry: Entry, experts: int, room: int, now_us: int, report_period_us: int
) -> Place:
    """A node that said what it holds of `experts` that there are, with room for so many."""
    status = entry.status
    seen_us = status.last_seen_us
    unheard = seen_us is None or now_us - seen_us > GONE_PERIODS * report_period_us
    rate = DATA_RATE_BEST if status.data_rate is None else min(status.data_rate, DATA_RATE_BEST)
    battery = 255 if status.battery is None else status.battery
    return Place(
        dev_eui=holder.dev_eui,
        node_index=entry.record.node_index,
        room=room,
        seen=tuple(float(share) for share in holder.seen),
        held=frozenset(expert for expert in range(experts) if holder.holds(expert)),
        link=(rate + 1) / (DATA_RATE_BEST + 1),
        battery=1.0 if battery in (0, 255) else battery / 254,
        always_on=holder.always_on,
        silent=holder.silent,
        gone=unheard or now_us - holder.reported_us > REPORT_LIFE_US,
    )
