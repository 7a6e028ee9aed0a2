"""`swarm pilot plan` and `swarm pilot provision`: from two tables to a plan and to keys.

`plan` reads both tables and answers what each node may expect of its link, its battery and the
rounds, and what a round of each learning mode would cost.  `provision` is in `gateway.pilot.keys`.  Both
raise `CsvErrors` with every error found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gateway.pilot.tables import Problems, read_gateways, read_nodes
from swarm.advice import Fleet, FleetNode, ModeCost, costs_of
from swarm.config import Multicast, SwarmConfig
from swarm.phy.regions import region
from swarm.pilot.plan import CROPS, ROUNDS_A_DAY_MAX, NodePlan, NodeSite, Plan, PlanOptions, plan_pilot

__all__ = ["PlanReport", "plan"]


@dataclass(frozen=True, slots=True)
class PlanReport:
    """A plan with what the tables gave reason to say."""

    plan: Plan
    modes: tuple[ModeCost, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """The whole plan, JSON-ready, for `--json`."""
        modes = [asdict(cost) for cost in self.modes]
        return self.plan.to_dict() | {"modes": modes, "notes": list(self.notes)}

    def text(self) -> str:
        """The plan as a table and lists, for a terminal."""
        return "\n".join(
            [
                *_table(_COLUMNS, [_row(node) for node in self.plan.nodes], 3),
                "",
                *_table(_MODE_COLUMNS, [_mode_row(cost) for cost in self.modes], 1),
                *_MODES_MEAN,
                "",
                *_summary(self.plan),
                *_warnings(self.plan),
                *self.notes,
            ]
        )


def plan(nodes_path: str | Path, gateways_path: str | Path, options: PlanOptions | None = None) -> PlanReport:
    """Plan the pilot of these two tables; CsvErrors lists everything that is wrong in both."""
    problems = Problems()
    nodes = read_nodes(Path(nodes_path), problems)
    gateways, region_name = read_gateways(Path(gateways_path), problems)
    problems.raise_if_any()
    sites = [node.site for node in nodes]
    made = plan_pilot(sites, gateways, region(region_name), options)
    energy = (options or PlanOptions()).energy
    return PlanReport(made, costs_of(_fleet(made, sites), energy), tuple(problems.warnings))


def _fleet(made: Plan, sites: Sequence[NodeSite]) -> Fleet:
    """The planned nodes at their data rates, all of them learning, with the usual settings."""
    where = region(made.region)
    return Fleet(
        region=where,
        nodes=tuple(
            FleetNode(index, node.data_rate, CROPS.index(node.crop)) for index, node in enumerate(made.nodes)
        ),
        multicast_data_rate=made.multicast_data_rate,
        multicast_frequency_hz=where.rx2_frequency_hz,
        report_min=min((site.report_min for site in sites), default=60),
    )


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


_MODE_COLUMNS = (
    "mode",
    "frames",
    "B",
    "up s",
    "down s",
    "node h",
    "gateway h",
    "rounds/day",
    "mJ",
    "4 rounds, d",
)
_MODES_MEAN = (
    "a round of each learning mode: frames, bytes and energy of a node, airtime of all nodes and gateway,",
    "share of a legal hour of the dearest node and the gateway; what a mode gains is known once nodes have",
    "labels: `swarm rounds advise`",
)


def _table(columns: tuple[str, ...], body: list[tuple[str, ...]], left: int) -> list[str]:
    """Columns as wide as their cells, the first `left` of them flush left."""
    rows = [columns, *body]
    widths = [max(len(row[index]) for row in rows) for index in range(len(columns))]
    return [
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
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


def _mode_row(cost: ModeCost) -> tuple[str, ...]:
    if not cost.nodes:
        return (cost.mode, *["-"] * (len(_MODE_COLUMNS) - 1))
    return (
        cost.mode,
        f"{cost.frames:.3g}",
        f"{cost.bytes:.0f}",
        f"{cost.airtime_s:.1f}",
        f"{cost.downlink_s:.1f}",
        f"{cost.node_hour:.1%}",
        f"{cost.gateway_hour:.1%}",
        f"{min(cost.rounds_a_day, ROUNDS_A_DAY_MAX):.1f}",
        f"{cost.energy_mj:.0f}",
        "-" if cost.four_rounds_days is None else f"{cost.four_rounds_days:.1f}",
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
