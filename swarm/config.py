"""What the core has to know about its cell: plain values, validated by whoever read them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from swarm.phy.regions import Region
from swarm.phy.regions import region as region_of

__all__ = [
    "Asking",
    "Borrowing",
    "Learning",
    "Mac",
    "Multicast",
    "MulticastChannel",
    "Privacy",
    "SwarmConfig",
]


@dataclass(frozen=True, slots=True)
class Privacy:
    """Differential privacy of each sample over all its releases; `epsilon` 0: no noise.

    `clip` is the longest z that counts, in standard deviations per dimension (length sqrt(20) * clip);
    `releases` how many rounds share the budget: a node takes part in no more.
    """

    epsilon: float = 0.0
    delta: float = 1e-5
    clip: float = 1.0
    releases: int = 1
    samples_max: int = 24


@dataclass(frozen=True, slots=True)
class Learning:
    """When rounds open, who takes part, and what the gateway does with the replies.

    A round opens every `period_s` with a multicast window of `window_s`; nodes of the cohort
    (`cohort` of the fleet, 0..1) send at a random time within `spread_s`; it closes when `quorum`
    (0..1) of the expected replies came, or `close_s` after it opened.  The
    aggregation is Flower's `strategy` with `options`; mode `prototypes` has its own.
    """

    mode: str = "prototypes"
    """One of `federation.modes.MODE_NAMES`."""
    strategy: str = "FedAdam"
    options: dict[str, float | int | str | bool] = field(default_factory=dict)
    period_s: int = 28_800
    spread_s: int = 10_800
    close_s: int = 14_400
    window_s: int = 900
    cohort: float = 1.0
    quorum: float = 1.0
    staleness_max: int = 4
    contexts: Literal["all", "new"] = "all"
    """Who learns: everybody, or only nodes whose crop the model was shipped without."""
    share_features: bool = False
    """Mode `features` shows the gateway what nodes have seen: an operator has to say so."""
    prototype_rounds: int = 0
    """In modes that send changes: the first rounds gather prototypes, the others refine."""
    roll_back: bool = True
    """In modes that send changes: whether a version goes that enough nodes leave for the one before it."""
    privacy: Privacy = field(default_factory=Privacy)
    """Of mode masked_sums."""


@dataclass(frozen=True, slots=True)
class Multicast:
    """How model blocks reach all nodes: region RX2 unless said otherwise; each frame `repeats` times."""

    data_rate: int | None = None
    frequency_hz: int | None = None
    repeats: int = 2

    def channel(self, region: Region) -> MulticastChannel:
        """Where the group's frames are, with the region's own rate and frequency for what is left open."""
        return MulticastChannel(
            region=region.name,
            data_rate=region.multicast_data_rate if self.data_rate is None else self.data_rate,
            frequency_hz=self.frequency_hz or region.rx2_frequency_hz,
        )


@dataclass(frozen=True, slots=True)
class MulticastChannel:
    """Where a multicast group sends and listens; gateway and nodes have to agree on all three."""

    region: str
    data_rate: int
    """The region's downlink index."""
    frequency_hz: int

    def __str__(self) -> str:
        return f"DR{self.data_rate} on {self.frequency_hz / 1e6:g} MHz"

    def settings(self, present: MulticastChannel | None = None) -> list[str]:
        """What a swarm.toml that means `present` (None: an untouched one) has to say for this channel."""
        said = []
        if self.region != (SwarmConfig().region if present is None else present.region):
            said.append(f'[gateway] region = "{self.region}"')
        if present is None or present.region != self.region:
            present = Multicast().channel(region_of(self.region))
        if self.data_rate != present.data_rate:
            said.append(f"[multicast] data_rate = {self.data_rate}")
        if self.frequency_hz != present.frequency_hz:
            said.append(f"[multicast] frequency_hz = {self.frequency_hz}")
        return said


@dataclass(frozen=True, slots=True)
class Asking:
    """How many nodes a question is put to, how long their answers are waited for, who computes what nodes
    lack."""

    k: int = 5
    deadline_s: int = 3600
    queries_max: int = 256
    fresh_s: int = 600
    """The same question within this time gets the same answer, without airtime; 0: never."""
    replica: bool = True
    """Whether the gateway computes experts that nodes lack, where it holds them itself."""
    holders: int = 1
    """How many nodes are asked for one missing expert, and compared."""
    expert_deadline_s: int = 3600
    """How long a node's question for an expert is worth answering."""


@dataclass(frozen=True, slots=True)
class Borrowing:
    """Whether nodes lend one another readings, and what that may cost.

    Every `survey_every_days` each node sends its hours for `survey_days` days, from which neighbours are
    found and defects; until `compare_days` borrowers of humidity and their neighbours go on with temperatures
    alone, from which lenders are chosen again.  Each borrower has `lenders` of them that send daily (their
    mean is lent, and what one's lost frame held another has), with a correlation of at least
    `correlation_min`, none of which spends more than `airtime_ms_max` a day on it.  Orders end by themselves
    after `lease_days`.
    """

    enabled: bool = False
    survey_days: int = 7
    compare_days: int = 14
    survey_every_days: int = 90
    lease_days: int = 28
    lenders: int = 2
    correlation_min: float = 0.6
    airtime_ms_max: int = 3_000


@dataclass(frozen=True, slots=True)
class Mac:
    """How devices are set up by MAC commands (`swarm.mac.commands`); None: left as it is.

    `adr`: whether devices that set the ADR bit get their data rate and power from the network, between the
    two data rates, with `adr_margin_db` to spare.  `dev_status_h`: how often a device that sends no STATUS
    is asked for its battery, 0 never.  `sub_band`: of a fixed channel plan (US915, AU915, CN470), from 1; 0
    all. `channels_hz` are given to devices in the other regions; `downlinks_hz` moves RX1 of the uplink
    channels, by index, 0 not.  `max_duty_cycle` n allows 1 / 2^n of the time.  `dwell`: whether the 400 ms
    limit holds where a region leaves that open (AS923, AU915).  A confirmed downlink is sent
    `confirmed_tries` times at most.
    """

    adr: bool = True
    adr_margin_db: float = 5.0
    adr_data_rate_min: int = 0
    adr_data_rate_max: int = 15
    dev_status_h: int = 24
    sub_band: int = 0
    channels_hz: tuple[int, ...] = ()
    downlinks_hz: tuple[int, ...] = ()
    max_duty_cycle: int = 0
    dwell: bool | None = None
    rx1_delay_s: int | None = None
    rx1_dr_offset: int | None = None
    rx2_data_rate: int | None = None
    rx2_frequency_hz: int | None = None
    confirmed_tries: int = 4


@dataclass(frozen=True, slots=True)
class SwarmConfig:
    """One cell."""

    region: str = "eu868"
    learning: Learning = field(default_factory=Learning)
    multicast: Multicast = field(default_factory=Multicast)
    asking: Asking = field(default_factory=Asking)
    borrowing: Borrowing = field(default_factory=Borrowing)
    mac: Mac = field(default_factory=Mac)
    dedup_us: int = 200_000
    rx1_delay_s: int = 1
    status_period_min: int = 60
    net_id: int = 0x000000
    network: bool = True
    """Whether there is a network server that nodes can be behind."""
    network_multicast: bool = False
    """Whether gateways of this cell reach them too: devices of another make are let into the group then."""
    downlink_lead_us: int = 100_000
    """How long before its start a class A answer has to leave the core to reach the radio in time."""
