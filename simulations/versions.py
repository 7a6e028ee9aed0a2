"""Whether nodes have, bit for bit, the parameters that the gateway thinks they have."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from swarm.effects import Row
from swarm.model.layout import CONTEXTS
from swarm.model.vector import Mirror
from swarm.node import Model, Nodes

__all__ = ["Versions"]


class Versions:
    """The gateway's mirrors by version, as it stored them, and the check against the nodes' memory."""

    def __init__(self, model: bytes, context: NDArray[np.uint8]) -> None:
        shipped = Model(model)
        heads = np.stack([shipped.base_head(each) for each in range(len(CONTEXTS))])
        self._mirrors = {0: Mirror(0, shipped.adapter(), heads)}
        self._context = context.astype(np.intp)

    def add(self, row: Row) -> None:
        """A version was stored: a row of the table `model`."""
        blob = row["vector"]
        assert isinstance(blob, bytes)
        restored = Mirror.from_bytes(blob)
        assert isinstance(restored, tuple), restored
        self._mirrors[restored[0].version] = restored[0]

    def differing(self, nodes: Nodes) -> list[str]:
        """One line for each version whose nodes do not all have its parameters."""
        versions, adapters, heads = nodes.model_version, nodes.adapters, nodes.heads
        own_heads = heads[np.arange(nodes.count), self._context]
        found = []
        for version in np.unique(versions).tolist():
            mirror = self._mirrors.get(version)
            holders = np.flatnonzero(versions == version)
            if mirror is None:
                found.append(f"node {holders[0]} has version {version}, which the gateway never made")
                continue
            same = (adapters[holders] == mirror.adapter).all(axis=1)
            same &= (own_heads[holders] == mirror.heads[self._context[holders]]).all(axis=1)
            if not same.all():
                wrong = holders[~same]
                found.append(
                    f"{len(wrong)} of {len(holders)} nodes at version {version} have other parameters than "
                    f"the gateway has for it; the first is node {wrong[0]}"
                )
        return found
