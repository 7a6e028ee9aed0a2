"""What a strategy sees of a node: one flat vector with its weight."""

from __future__ import annotations

from dataclasses import dataclass

from swarm.model.vector import Float64

__all__ = ["FEATURES", "MASKED_SUMS", "OWN", "PER_BLOCK", "PROTOTYPES", "Reply"]

PROTOTYPES = "prototypes"
FEATURES = "features"
MASKED_SUMS = "masked_sums"
OWN = (PROTOTYPES, FEATURES, MASKED_SUMS)
"""The names of our own strategies."""
PER_BLOCK = "/blocks"
"""What the name of a strategy ends with that works on blocks (`federation.blockwise`)."""


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """One node's contribution.

    `vector`: float64[d] (what the node's model would be), or for `prototypes` the flat statistics
    (`federation.prototypes.flatten`), for `features` the samples.  It counts with `num_examples * weight`.
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
