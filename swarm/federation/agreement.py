"""How well the model from before a round does on what its nodes report: validation on unseen data."""

from __future__ import annotations

import numpy as np

from swarm.model.layout import HEAD_ROW, Z_ONE, Z
from swarm.model.vector import Mirror
from swarm.wire.app import LearningMessage, Prototypes

__all__ = ["Agreement"]


class Agreement:
    """The score of one round; only class means can be judged, other updates count for nothing."""

    def __init__(self) -> None:
        self._nodes: dict[str, tuple[int, int]] = {}

    def tally(self, dev_eui: str, message: LearningMessage, mirror: Mirror) -> None:
        """Judge a node's class means with `mirror`; its last update counts."""
        if not isinstance(message, Prototypes):
            return
        agree = total = 0
        head = mirror.heads[message.context].reshape(-1, HEAD_ROW).astype(np.float64)
        for mean in message.classes:
            z = np.zeros(Z)
            z[: len(mean.q)] = np.array(mean.q) * (mean.scale / 8.0)
            logits = head[:, :Z] @ z + head[:, Z] * Z_ONE
            total += mean.count
            agree += mean.count if int(np.argmax(logits)) == mean.label else 0
        self._nodes[dev_eui] = (agree, total)

    def score(self) -> float | None:
        """The share of samples (0 to 1) whose class mean is judged right; None when none was reported."""
        total = sum(count for _, count in self._nodes.values())
        return sum(agree for agree, _ in self._nodes.values()) / total if total else None
