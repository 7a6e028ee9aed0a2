"""A registered node as the planners see it."""

from __future__ import annotations

from swarm.inference.plan import Candidate
from swarm.registry import Entry

__all__ = ["candidate_of"]


def candidate_of(entry: Entry, report_period_us: int) -> Candidate | None:
    """None: the node cannot be asked, because it has no session or was never heard."""
    record, status = entry.record, entry.status
    if entry.session is None or status.data_rate is None:
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
