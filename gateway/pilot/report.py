"""`swarm pilot plan` and `swarm pilot provision`: from two tables to a plan and to keys.

`plan` reads both tables and answers what each node may expect of its link, its battery and the
rounds.  `provision` is in `gateway.pilot.keys`.  Both raise `CsvErrors` with every error found.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gateway.pilot.tables import Problems, read_gateways, read_nodes
from swarm.config import Multicast, SwarmConfig
from swarm.phy.regions import region
from swarm.pilot.plan import NodePlan, Plan, PlanOptions, plan_pilot

__all__ = ["PlanReport", "plan"]


@dataclass(frozen=True, slots=True)
class PlanReport:
    """A plan with what the tables gave reason to say."""

    plan: Plan
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """The whole plan, JSON-ready, for `--json`."""
        return self.plan.to_dict() | {"notes": list(self.notes)}

    def text(self) -> str:
        """The plan as a table and lists, for a terminal."""
        return "\n".join(
            [*_table(self.plan.nodes), "", *_summary(self.plan), *_warnings(self.plan), *self.notes]
        )


def plan(nodes_path: str | Path, gateways_path: str | Path, options: PlanOptions | None = None) -> PlanReport:
    """Plan the pilot of these two tables; CsvErrors lists everything that is wrong in both."""
    problems = Problems()
    nodes = read_nodes(Path(nodes_path), problems)
    gateways, region_name = read_gateways(Path(gateways_path), problems)
    problems.raise_if_any()
    made = plan_pilot([node.site for node in nodes], gateways, region(region_name), options)
    return PlanReport(made, tuple(problems.warnings))


_COLUMNS = (
    "node",
    "crop",
    "gateway",
    "km",
    "bare dB",
    "leaf dB",
    "SF",
    "delivery",
    "air s/day",
    "rounds/day",
    "years",
)


def _table(nodes: tuple[NodePlan, ...]) -> list[str]:
    rows = [_COLUMNS, *(_row(node) for node in nodes)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(_COLUMNS))]
    return [
        "  ".join(
            cell.ljust(width) if index < 3 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _row(node: NodePlan) -> tuple[str, ...]:
    return (
        node.id,
        node.crop,
        node.gateway_id,
        f"{node.distance_m / 1000:.2f}",
        f"{node.margin_leaf_off_db:.1f}",
        f"{node.margin_leaf_on_db:.1f}",
        str(node.spreading_factor),
        f"{node.delivery:.1%}",
        f"{node.airtime_s_per_day:.1f}",
        str(node.rounds_a_day),
        f"{node.battery_years:.1f}",
    )


def _summary(made: Plan) -> list[str]:
    served = ", ".join(f"{gateway_id}: {count}" for gateway_id, count in made.gateways.items())
    return [
        f"region {made.region}; nodes by best gateway: {served}",
        f"a round's multicast: DR{made.multicast_data_rate}, {made.multicast_airtime_s:.1f} s on air; "
        f"rounds a day: at most {made.rounds_a_day}",
        *_setting(made),
    ]


def _setting(made: Plan) -> list[str]:
    """What has to be set for the multicast to go out as planned; nothing where that is the default."""
    rate = made.multicast_data_rate
    needed = Multicast(data_rate=rate).channel(region(made.region)).settings()
    if not needed:
        return []
    options = f"--region {made.region} " if made.region != SwarmConfig().region else ""
    return [
        f"this assumes DR{rate}: set {', '.join(needed)}"
        f" and provision with {options}--multicast-data-rate {rate}"
    ]


def _warnings(made: Plan) -> list[str]:
    return [f"! {what}" for what in made.warnings] + [
        f"! {node.id}: {what}" for node in made.nodes for what in node.warnings
    ]
