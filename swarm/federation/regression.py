"""Softmax regression, held to a head that is there already.

Theory of operation.  The fit walks down the bound of Boehning (1992): the Hessian is never above X'WX / 2 per
class, so one matrix is inverted once and every step goes down.  Same samples in the same order, same bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from swarm.model.vector import Float64

__all__ = ["softmax", "softmax_fit"]


def softmax(x: Float64, head: Float64) -> Float64:
    """What `head` [classes, dims] gives each class, float64[n, classes], for the samples x [n, dims]."""
    logits = x @ head.T
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def softmax_fit(
    x: Float64, label: NDArray[np.int64], weight: Float64, base: Float64, hold: float, steps: int
) -> Float64:
    """A head [classes, dims] for samples x [n, dims], `hold` (above 0) samples of identity drawing it to
    `base`."""
    towards = np.linalg.inv((x * weight[:, np.newaxis]).T @ x / 2.0 + hold * np.eye(x.shape[1]))
    truth = np.eye(len(base))[label]
    head = base.copy()
    for _ in range(steps):
        error = (softmax(x, head) - truth) * weight[:, np.newaxis]
        head -= (error.T @ x + hold * (head - base)) @ towards
    return head
