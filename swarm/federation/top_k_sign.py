"""Mode `top_k_sign`: from a node's signs to what a Flower strategy averages.

A node sends the signs of the largest coordinates of its local change, all of one magnitude (LSB of the
int16 parameters).  The reply that Flower sees is the master plus that change in real units, discounted
by staleness.  Two corrections make a plain mean mean the right thing:

- A head is learnt by the nodes of its own context only, yet Flower divides by the examples of all:
  each head's change is scaled by (examples of all) / (examples of its context).
- A magnitude above `MAGNITUDE_CAP` times the median of the round is cut to that: one node's scale
  (two bytes in its frame) must not outweigh a thousand others.

Which strategy: FedAdam moves every coordinate on which nodes agree by about `eta`, slowly and safely; FedAvg
takes the nodes' own step sizes, faster where the heads are far off.  FedMedian, FedTrimmedAvg and the Krum
family are made for dense updates: the median of sparse signs is 0, and nothing is learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from swarm.model.layout import ADAPTER_ONE, ADAPTER_SIZE, HEAD_ONE, Shape
from swarm.model.vector import Float64
from swarm.wire.app import TopKSign

__all__ = ["MAGNITUDE_CAP", "SignedUpdate", "local_delta", "reply_vectors"]

MAGNITUDE_CAP = 4.0


@dataclass(frozen=True, slots=True)
class SignedUpdate:
    """One node's frame and its staleness discount (0..1)."""

    message: TopKSign
    discount: float


def local_delta(message: TopKSign, magnitude: float, shape: Shape) -> Float64:
    """The change that the frame says, float64[local_size] in real units, with this magnitude in LSB."""
    delta = np.zeros(shape.local_size)
    delta[list(message.indices)] = np.where(message.negative, -magnitude, magnitude)
    delta[:ADAPTER_SIZE] /= ADAPTER_ONE
    delta[ADAPTER_SIZE:] /= HEAD_ONE
    return delta


def reply_vectors(
    master: Float64, shape: Shape, contexts: int, updates: Sequence[SignedUpdate]
) -> list[Float64]:
    """What each node would have sent had it sent everything: master + its scaled change, float64[d] each."""
    if not updates:
        return []
    cap = MAGNITUDE_CAP * float(np.median([update.message.magnitude for update in updates]))
    examples = np.zeros(contexts)
    for update in updates:
        examples[update.message.context] += update.message.num_examples
    total = float(examples.sum())
    vectors = []
    for update in updates:
        message = update.message
        delta = local_delta(message, min(float(message.magnitude), cap), shape) * update.discount
        vector = master.copy()
        adapter, head = shape.local_slices(message.context)
        vector[adapter] += delta[:ADAPTER_SIZE]
        vector[head] += delta[ADAPTER_SIZE:] * (total / examples[message.context])
        vectors.append(vector)
    assert all(vector.shape == (shape.vector_size(contexts),) for vector in vectors)
    return vectors
