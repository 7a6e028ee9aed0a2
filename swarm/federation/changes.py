"""Modes that send a change of the parameters: from a node's frame to what a Flower strategy averages.

A node sends a coarse version of its local change: the signs of the largest coordinates, all of one
magnitude (`top_k_sign`), the largest coordinates as 4-bit levels (`top_k_int4`), or everything as int8
(`dense_int8`).  The reply that Flower sees is the master plus that change in real units, discounted by
staleness.  Two corrections make a plain mean mean the right thing:

- A head is learnt by the nodes of its own context only, yet Flower divides by the examples of all:
  each head's change is scaled by (examples of all) / (examples of its context).
- A change `SIZE_CAP` times larger than the median of the round is scaled down to that: one node's scale
  (two bytes in its frame) must not outweigh a thousand others.

Which strategy: FedAdam moves every coordinate on which nodes agree by about `eta`, slowly and safely; FedAvg
takes the nodes' own step sizes, faster where the heads are far off.  FedMedian, FedTrimmedAvg and the Krum
family are made for dense updates: the median of sparse changes is 0, and nothing is learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from swarm.model.layout import ADAPTER_ONE, ADAPTER_SIZE, HEAD_ONE, Shape
from swarm.model.vector import Float64
from swarm.wire.app import DenseInt8, TopKInt4, TopKSign

__all__ = ["SIZE_CAP", "Change", "Discounted", "is_plausible", "local_delta", "reply_vectors", "size_of"]

SIZE_CAP = 4.0

Change = TopKSign | TopKInt4 | DenseInt8


@dataclass(frozen=True, slots=True)
class Discounted:
    """One node's change and its staleness discount (0..1)."""

    message: Change
    discount: float


def is_plausible(message: Change, shape: Shape) -> bool:
    """Whether the model has the coordinates, and a parameter can change by the claimed steps."""
    match message:
        case TopKSign():
            return 0 < message.magnitude <= 32767 and message.indices[-1] < shape.local_size
        case TopKInt4():
            return 0 < message.scale <= 4096 and message.indices[-1] < shape.local_size
        case DenseInt8():
            skipped = 0 if message.scale_adapter else ADAPTER_SIZE
            scales_ok = max(message.scale_adapter, message.scale_head) <= 259
            return scales_ok and len(message.steps) + skipped == shape.local_size


def size_of(message: Change) -> float:
    """How large a change says it is, comparable among changes of one kind: what `SIZE_CAP` limits."""
    match message:
        case TopKSign():
            return float(message.magnitude)
        case TopKInt4():
            return float(message.scale)
        case DenseInt8():
            return float(np.sqrt(np.mean(np.square(_steps(message)))))


def local_delta(message: Change, size: float, shape: Shape) -> Float64:
    """The change that the frame says, float64[local_size] in real units, with this size."""
    match message:
        case TopKSign():
            delta = np.zeros(shape.local_size)
            delta[list(message.indices)] = np.where(message.negative, -size, size)
        case TopKInt4():
            delta = np.zeros(shape.local_size)
            delta[list(message.indices)] = np.array(message.levels) * size
        case DenseInt8():
            own = size_of(message)
            delta = _steps(message) * (size / own if own > 0.0 else 0.0)
    delta[:ADAPTER_SIZE] /= ADAPTER_ONE
    delta[ADAPTER_SIZE:] /= HEAD_ONE
    return delta


def reply_vectors(
    master: Float64, shape: Shape, contexts: int, updates: Sequence[Discounted]
) -> list[Float64]:
    """What each node would have sent had it sent everything: master + its scaled change, float64[d] each."""
    if not updates:
        return []
    cap = SIZE_CAP * float(np.median([size_of(update.message) for update in updates]))
    examples = np.zeros(contexts)
    for update in updates:
        examples[update.message.context] += update.message.num_examples
    total = float(examples.sum())
    vectors = []
    for update in updates:
        message = update.message
        delta = local_delta(message, min(size_of(message), cap), shape) * update.discount
        vector = master.copy()
        adapter, head = shape.local_slices(message.context)
        vector[adapter] += delta[:ADAPTER_SIZE]
        vector[head] += delta[ADAPTER_SIZE:] * (total / examples[message.context])
        vectors.append(vector)
    assert all(vector.shape == (shape.vector_size(contexts),) for vector in vectors)
    return vectors


def _steps(message: DenseInt8) -> Float64:
    """All coordinates in LSB, float64[local_size]."""
    skipped = 0 if message.scale_adapter else ADAPTER_SIZE
    steps = np.concatenate([np.zeros(skipped), np.array(message.steps, np.float64)])
    steps[:ADAPTER_SIZE] *= message.scale_adapter
    steps[ADAPTER_SIZE:] *= message.scale_head
    return steps
