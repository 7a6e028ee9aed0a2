"""What the core has to know about its cell: plain values, validated by whoever read them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Asking", "Learning", "Multicast", "SwarmConfig"]

LearningMode = Literal["none", "prototypes", "top_k_sign"]


@dataclass(frozen=True, slots=True)
class Learning:
    """When rounds open, who takes part, and what the gateway does with the replies.

    A round opens every `period_s` with a multicast window of `window_s`; nodes of the cohort
    (`cohort` of the fleet, 0..1) send at a random time within `spread_s`; it closes when `quorum`
    (0..1) of the expected replies came, or `close_s` after it opened.  In mode `top_k_sign` the
    aggregation is Flower's `strategy` with `options`; mode `prototypes` has its own.
    """

    mode: LearningMode = "prototypes"
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
    prototype_rounds: int = 0
    """In mode `top_k_sign`: the first rounds gather prototypes, the others refine."""


@dataclass(frozen=True, slots=True)
class Multicast:
    """How model blocks reach all nodes: region RX2 unless said otherwise; each frame `repeats` times."""

    data_rate: int | None = None
    frequency_hz: int | None = None
    repeats: int = 2


@dataclass(frozen=True, slots=True)
class Asking:
    """How many nodes a question is put to and how long their answers are waited for."""

    k: int = 5
    deadline_s: int = 3600
    queries_max: int = 256


@dataclass(frozen=True, slots=True)
class SwarmConfig:
    """One cell."""

    region: str = "eu868"
    learning: Learning = field(default_factory=Learning)
    multicast: Multicast = field(default_factory=Multicast)
    asking: Asking = field(default_factory=Asking)
    dedup_us: int = 200_000
    rx1_delay_s: int = 1
    status_period_min: int = 60
    net_id: int = 0x000000
    downlink_lead_us: int = 100_000
    """How long before its start a class A answer has to leave the core to reach the radio in time."""
