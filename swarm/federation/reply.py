"""What a strategy sees of a node: one flat vector with its weight."""

from __future__ import annotations

from dataclasses import dataclass

from swarm.model.vector import Float64

__all__ = ["MASKED_SUMS", "PROTOTYPES", "Reply"]

PROTOTYPES = "prototypes"
MASKED_SUMS = "masked_sums"
"""The names of our own strategies."""


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """One node's contribution.

    `vector`: float64[d] (what the node's model would be), or for `prototypes` the flat statistics
    (`federation.prototypes.flatten`).  It counts with `num_examples * weight`.
    """

    node_index: int
    vector: Float64
    num_examples: int
    weight: float = 1.0
    members: tuple[int, ...] = ()
    """The nodes it stands for, where they are several: a masking group."""

    @property
    def nodes(self) -> tuple[int, ...]:
        """Indices of the nodes whose update it holds."""
        return self.members or (self.node_index,)
