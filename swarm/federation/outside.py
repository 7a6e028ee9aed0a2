"""Models that come from outside the cell, and updates that are aggregated there: the values in between.

Whoever aggregates elsewhere (a Flower ServerApp, a federation of cells) hands a vector in; it goes out
with the next window as the next model version.  It may claim that window's round: the cell then applies
no strategy, keeps the model and hands the validated updates out, as changes of the vector handed in.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from swarm.effects import Malformed, Scalar
from swarm.model.vector import Float64

__all__ = ["CLOSE_MIN_S", "VALUE_MAX", "Change", "Gathered", "HandedIn"]

CLOSE_MIN_S = 30
"""The shortest round that may be asked for: its announcement takes seconds, its replies collide."""
VALUE_MAX = 1e6
"""No parameter is larger: int16 nodes hold up to 128, a diverged model is refused before it is multicast."""
_HEAD = struct.Struct("<4sBi")
_MAGIC = b"SWH1"


@dataclass(frozen=True, slots=True, eq=False)
class HandedIn:
    """A master vector (float64[d], real units) that waits for the next window.

    `gather`: that window's round hands its updates out.  `close_s`: its deadline; None: the cell's own.
    """

    vector: Float64
    gather: bool
    close_s: int | None = None

    @staticmethod
    def checked(
        vector: bytes, size: int, *, gather: bool, close_s: int | None, period_s: int
    ) -> HandedIn | Malformed:
        """What somebody outside hands in, for a cell of `size` parameters and a round every `period_s`."""
        if len(vector) != 8 * size:
            return Malformed("size", f"this cell's model has {size} parameters, not {len(vector) / 8:g}")
        values = np.frombuffer(vector, "<f8").astype(np.float64)
        if not (np.abs(values) <= VALUE_MAX).all():  # NaN compares false
            return Malformed("diverged", f"a parameter is not finite or beyond {VALUE_MAX:g}")
        if close_s is not None and close_s < CLOSE_MIN_S:
            return Malformed("close_s", f"a round needs at least {CLOSE_MIN_S} s, {close_s} s were given")
        return HandedIn(values, gather, None if close_s is None else min(close_s, period_s))

    def to_value(self) -> bytes:
        """The value of the row `handed_in` of table `meta`."""
        close_s = -1 if self.close_s is None else self.close_s
        return _HEAD.pack(_MAGIC, self.gather, close_s) + self.vector.astype("<f8").tobytes()

    @staticmethod
    def from_value(value: Scalar, size: int) -> HandedIn | Malformed:
        """What `to_value` wrote, for a model of `size` parameters."""
        if not isinstance(value, bytes) or len(value) != _HEAD.size + 8 * size or value[:4] != _MAGIC:
            return Malformed("handed_in", f"not a vector of {size} parameters")
        _, gather, close_s = _HEAD.unpack_from(value)
        vector = np.frombuffer(value, "<f8", size, _HEAD.size).astype(np.float64)
        return HandedIn(vector, bool(gather), None if close_s < 0 else close_s)


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """One node's validated update: `delta` float64[d], to be added to the vector that was handed in."""

    dev_eui: str
    num_examples: int
    delta: Float64


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """What a claimed round brought, sorted by node index."""

    round: int
    changes: tuple[Change, ...]
