"""What the modes were worth elsewhere: rows of docs/benchmarks.md and docs/PRIVACY.md, as numbers.

`AFTER_FOUR_ROUNDS` is "What goes wrong, against every mode" (docs/benchmarks.md), column "none": 60 nodes of
the firmware, two contexts, four classes that the shipped model does not know, FedAvg where a strategy has to
be chosen, 222-byte frames, one seed; share of right answers.  Masked sums are of docs/PRIVACY.md: 96 nodes,
two contexts, groups of 8, 24 samples each.  `FLEETS` is the first table of "Learning modes" at SF7: means of
three seeds, each task's own score.  They say how modes compare, not what a cell will gain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["AFTER_FOUR_ROUNDS", "FLEETS", "LABELS_WHERE_SIGNS_ADDED", "Fleets", "Shift", "signs_added"]


@dataclass(frozen=True, slots=True)
class Shift:
    """From the shipped head to the fleet's: shares of right answers, 0..1."""

    shipped: float
    learned: float


@dataclass(frozen=True, slots=True)
class Fleets:
    """One task: the shipped head with local tuning, then what travelled; `labels` of a node."""

    labels: int
    public_local: float
    one_frame: float
    four_frames: float
    signs_60_rounds: float
    dense_60_rounds: float


AFTER_FOUR_ROUNDS: Mapping[str, Shift] = MappingProxyType(
    {
        "prototypes": Shift(0.50, 0.83),
        "top_k_sign": Shift(0.50, 0.81),
        "top_k_int4": Shift(0.50, 0.84),
        "dense_int8": Shift(0.50, 0.80),
        "features": Shift(0.50, 0.94),
        "blocks": Shift(0.50, 0.80),
        "masked_sums": Shift(0.30, 0.88),
    }
)
"""Masked sums: one round of another fleet."""

FLEETS: Mapping[str, Fleets] = MappingProxyType(
    {
        "faults": Fleets(60, 0.625, 0.738, 0.739, 0.738, 0.734),
        "voice": Fleets(20, 0.555, 0.834, 0.837, 0.888, 0.863),
        "disease": Fleets(24, 0.613, 0.619, 0.645, 0.667, 0.651),
        "disease_real": Fleets(24, 0.712, 0.713, 0.728, 0.730, 0.736),
        "faults_known": Fleets(60, 0.799, 0.779, 0.778, 0.778, 0.773),
    }
)
"""`faults_known` is the control: the public data know the task, and learning together only loses."""

LABELS_WHERE_SIGNS_ADDED = 20
"""Labels of a node in the tasks where rounds of signs were ahead of four frames of class means."""


def signs_added() -> tuple[float, float]:
    """Least and most that 60 rounds of signs added to four frames of class means, where they did by .01."""
    added = [
        fleet.signs_60_rounds - fleet.four_frames
        for fleet in FLEETS.values()
        if fleet.signs_60_rounds - fleet.four_frames >= 0.01
    ]
    return min(added), max(added)
