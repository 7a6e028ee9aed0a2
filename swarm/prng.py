"""The one seeded generator: made at the root, split by name, never global.

`Prng(seed).child("air").child("node-17")` always yields the same stream, whatever else was drawn
before: a child's seed is SHA-256 of the parent's seed and the child's name.
"""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["Prng"]


class Prng:
    """A named node in the tree of seeds; `numpy()` gives its generator."""

    def __init__(self, seed: int | bytes) -> None:
        self._seed = seed if isinstance(seed, bytes) else hashlib.sha256(f"swarm:{seed}".encode()).digest()

    def child(self, name: str) -> Prng:
        """The generator called `name` below this one, independent of all siblings."""
        return Prng(hashlib.sha256(self._seed + name.encode()).digest())

    def numpy(self) -> np.random.Generator:
        """A fresh numpy generator (PCG64) at the start of this node's stream."""
        return np.random.Generator(np.random.PCG64(int.from_bytes(self._seed[:16], "little")))

    def u64(self) -> int:
        """A 64-bit number fixed by this node's name: for seeding C code or hashing decisions."""
        return int.from_bytes(self._seed[16:24], "little")
