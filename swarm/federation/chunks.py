"""Mode `blocks`: chunks of a node's change in four bits, made to be aggregated by strategies that vote.

A node sends every coordinate of a chunk, and its 32 neighbours by index send the same chunk in the same
round (`place_of` in swn_compose_changes.c).  So the nodes of a chunk can be compared coordinate by
coordinate, which the median, the trimmed mean and the Krum family need, in frames that even SF12 has.

The reply of a node is the master plus its change where it said anything, and NaN elsewhere; what a strategy
makes of the nodes of each chunk is `federation.blockwise`'s affair.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from swarm.federation.changes import SIZE_CAP
from swarm.model.layout import ADAPTER_ONE, ADAPTER_SIZE, HEAD_ONE, Shape
from swarm.model.vector import Float64
from swarm.wire.app import Blocks
from swarm.wire.messages import CHUNK

__all__ = ["SCALE_MAX", "is_plausible", "parts", "reply_vectors"]

SCALE_MAX = 4682
"""With which 7 steps reach the largest change of an int16."""


def parts(shape: Shape, contexts: int) -> list[slice]:
    """The chunks of the global vector: the adapter's, then those of each context's head."""
    wholes = [(0, ADAPTER_SIZE)]
    wholes += [(s.start, s.stop) for s in (shape.local_slices(context)[1] for context in range(contexts))]
    return [slice(at, min(at + CHUNK, end)) for start, end in wholes for at in range(start, end, CHUNK)]


def is_plausible(message: Blocks, shape: Shape) -> bool:
    """Whether the model has these coordinates, and a parameter can change by the claimed steps."""
    begin = message.first * CHUNK
    beyond = message.steps[max(shape.local_size - begin, 0) :]
    fits = begin + len(message.steps) < shape.local_size + CHUNK
    return fits and not any(beyond) and max(message.scale_adapter, message.scale_head) <= SCALE_MAX


def reply_vectors(master: Float64, shape: Shape, updates: Sequence[tuple[Blocks, float]]) -> list[Float64]:
    """Of (update, staleness discount) each: master + change where it says something, float64[d], else NaN.

    A change `SIZE_CAP` times larger than the median of its part is scaled down to that.
    """
    said = [_said(message, shape) for message, _ in updates]
    sizes = np.array([[_size(delta[:ADAPTER_SIZE]), _size(delta[ADAPTER_SIZE:])] for delta in said])
    vectors = []
    for (message, discount), delta, size in zip(updates, said, sizes.reshape(-1, 2), strict=True):
        vector = np.full(len(master), np.nan)
        for part, where in enumerate(shape.local_slices(message.context)):
            local = delta[:ADAPTER_SIZE] if part == 0 else delta[ADAPTER_SIZE:]
            others = sizes[sizes[:, part] > 0.0, part]
            cap = SIZE_CAP * float(np.median(others)) if len(others) else 0.0
            shrink = min(1.0, cap / size[part]) if size[part] > 0.0 else 1.0
            vector[where] = master[where] + local * (shrink * discount)
        vectors.append(vector)
    return vectors


def _said(message: Blocks, shape: Shape) -> Float64:
    """The change in real units, float64[local_size]; NaN where the node said nothing."""
    begin = message.first * CHUNK
    delta = np.full(shape.local_size, np.nan)
    steps = np.array(message.steps[: shape.local_size - begin], np.float64)
    delta[begin : begin + len(steps)] = steps
    delta[:ADAPTER_SIZE] *= message.scale_adapter / ADAPTER_ONE
    delta[ADAPTER_SIZE:] *= message.scale_head / HEAD_ONE
    return delta


def _size(delta: Float64) -> float:
    """Root of the mean square of what was said; 0 when nothing was."""
    known = delta[np.isfinite(delta)]
    return float(np.sqrt(np.mean(np.square(known)))) if len(known) else 0.0
