"""What a cell has measured of itself: labels, judged heads, and what its nodes chose to answer with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

__all__ = ["LABELS_TO_COMPARE", "Evidence", "Expected", "Judged"]

LABELS_TO_COMPARE = 3
"""A node with fewer labels takes what the fleet sends (`swn_serve.h`)."""
VOICES_MIN = 3


@dataclass(frozen=True, slots=True)
class Judged:
    """One context after a round of `mode`: macro-F1 of shipped and new head on labels not learned from.

    `rounds` judged so far by `nodes`; `share` of the new head that is in use (0: the shipped one is).
    """

    mode: str
    context: int
    nodes: int
    rounds: int
    base: float
    new: float
    share: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """Counts of nodes, unless said otherwise; all zero is a cell that knows nothing yet.

    `labelled`: labelled samples of each node that rounds are for and that has reported.  `new`: nodes whose
    context the model was shipped without.  `taken`, `refused`: nodes with labels enough to compare that
    answer with the head the fleet changed, or found no gain in it; rounds of `head_mode` made it.
    `without_model`: nodes that answer by a rule or the last label.
    """

    reported: int = 0
    labelled: tuple[int, ...] = ()
    new: int = 0
    taken: int = 0
    refused: int = 0
    head_mode: str = ""
    without_model: int = 0
    judged: tuple[Judged, ...] = ()
    rounds: Mapping[str, int] = field(default_factory=dict)
    """Closed rounds with updates, by mode."""

    @property
    def labels(self) -> int:
        """Labelled samples of all nodes."""
        return sum(self.labelled)

    @property
    def labels_median(self) -> float:
        """Of a node; 0 where none has reported."""
        return median(self.labelled) if self.labelled else 0.0

    def expected(self, mode: str) -> Expected:
        """What the cell's own rounds of this mode were worth."""
        if mode == "none":
            return Expected("none", 0.0, 0.0, 0.0, 0)
        own = [each for each in self.judged if each.mode == mode and each.rounds > 0]
        weight = sum(each.nodes for each in own)
        if not weight:
            return Expected(self._compared(mode), None, None, None, 0)
        base = sum(each.nodes * each.base for each in own) / weight
        used = sum(each.nodes * (each.new if each.share > 0.0 else each.base) for each in own) / weight
        best = sum(each.nodes * each.new for each in own) / weight
        rounds = max(each.rounds for each in own)
        if any(each.share > 0.0 for each in own):
            return Expected("measured", base, used, used - base, rounds)
        return Expected("no_gain", base, best, 0.0, rounds)

    @property
    def is_refused(self) -> bool:
        """Whether the nodes that compared the fleet's head find no gain in it; two nodes say nothing."""
        return self.refused > self.taken and self.taken + self.refused >= VOICES_MIN

    @property
    def is_ahead(self) -> bool:
        """Whether some new head is better than the shipped one, by enough or not."""
        return any(each.new > each.base for each in self.judged)

    def _compared(self, mode: str) -> str:
        """What nodes say of the head that rounds of this mode made; to praise it most of them have to."""
        if mode != self.head_mode:
            return "unknown"
        if self.is_refused:
            return "refused"
        voices = max(VOICES_MIN, len(self.labelled) / 2)
        return "taken" if self.taken > self.refused and self.taken + self.refused >= voices else "unknown"


@dataclass(frozen=True, slots=True)
class Expected:
    """The gain to expect of a mode, in macro-F1 and only as far as this cell has measured it.

    `basis`: none (nothing would change), measured, no_gain (judged, and the shipped heads stay), taken or
    refused (not judged at the gateway, but by most of the nodes on their own labels), unknown.
    """

    basis: str
    base: float | None
    new: float | None
    gain: float | None
    rounds: int
