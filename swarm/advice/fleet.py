"""The fleet that advice is for: who would take part at which data rate, and how models reach it."""

from __future__ import annotations

from dataclasses import dataclass, field

from swarm.config import Learning
from swarm.federation.cohort import cohort_byte, in_cohort
from swarm.model.layout import WEATHER, Shape
from swarm.phy.regions import Region, SubBand

__all__ = ["Fleet", "FleetNode", "slowest_data_rate"]

NARROW_HZ = 125_000


@dataclass(frozen=True, slots=True)
class FleetNode:
    """One node: its uplink data rate, and whether rounds are for its crop (`Learning.contexts`)."""

    node_index: int
    data_rate: int
    context: int = 0
    invited: bool = True
    rate_is_known: bool = True
    """Whether it was heard at that rate; else it is assumed."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """A cell's nodes, region and settings; times in s or min, `number` the next round's.

    `adapter_moved`: earlier rounds changed the adapter, so that a block of heads alone would not do.
    """

    region: Region
    nodes: tuple[FleetNode, ...]
    multicast_data_rate: int
    multicast_frequency_hz: int
    learning: Learning = field(default_factory=Learning)
    repeats: int = 2
    report_min: int = 60
    shape: Shape = WEATHER
    number: int = 1
    adapter_moved: bool = False
    sums_bits: int = 12

    @property
    def takers(self) -> tuple[FleetNode, ...]:
        """The nodes that the next round invites."""
        cohort = cohort_byte(self.learning.cohort)
        return tuple(
            node for node in self.nodes if node.invited and in_cohort(node.node_index, self.number, cohort)
        )

    @property
    def contexts(self) -> tuple[int, ...]:
        """The contexts whose heads rounds would change, ascending."""
        return tuple(sorted({node.context for node in self.nodes if node.invited}))

    @property
    def heads_only(self) -> bool:
        """Rounds for new contexts leave the adapter as it is."""
        return self.learning.contexts == "new"

    @property
    def multicast_band(self) -> SubBand:
        """The sub-band whose law the gateway's multicast obeys."""
        bandwidth_hz = self.region.data_rate(self.multicast_data_rate, uplink=False).bandwidth_hz
        return self.region.sub_band(self.multicast_frequency_hz, bandwidth_hz)

    @property
    def node_duty(self) -> float:
        """The share of the time that a node may send, where that is least (1.0: no limit)."""
        return min(self.region.sub_band(channel.frequency_hz).duty_cycle for channel in self.region.channels)


def slowest_data_rate(region: Region, payload: int) -> int:
    """The slowest 125 kHz uplink rate that carries `payload` B: what is assumed of a node never heard."""
    return min(
        (
            index
            for index, rate in region.uplink_data_rates.items()
            if rate.kind == "lora"
            and rate.bandwidth_hz == NARROW_HZ
            and region.payload_max(index, uplink=True) >= payload
        ),
        key=lambda index: -region.uplink_data_rates[index].spreading_factor,
    )
