"""What rows of class means say, before anything is solved: means, their worth, votes, and which to believe.

Rows are those of `prototypes.Statistics`, float64[nodes, 2, classes, 32]; means are in standard deviations.
"""

from __future__ import annotations

import numpy as np

from swarm.federation.prototypes import FORGOTTEN, SUM_ONE, Options
from swarm.model.vector import Float64

__all__ = ["MAJORITY_NODES_MIN", "believable", "class_means", "class_votes", "effective"]

MAJORITY_NODES_MIN = 5
"""Fewer nodes have no majority to judge by."""


def class_means(rows: Float64) -> tuple[Float64, Float64]:
    """Class means in std and counts, float64[nodes, classes, 32] each; 0 where nothing was reported."""
    count, sums = rows[:, 0], rows[:, 1] / SUM_ONE
    return np.divide(sums, count, out=np.zeros_like(sums), where=count > 0), count


def effective(count: Float64, cap: float) -> Float64:
    """What a mean of `count` samples of one node is worth, in independent samples: 1 for one, `cap` at most.

    With a variance between nodes of 1 / (cap - 1) of that within, the mean of n samples scatters with
    1/n + 1/(cap-1); multiplied by this weight that is the same for every n, so that nodes with many and
    with few labels tell the same covariance.
    """
    return count * cap / np.maximum(count + cap - 1.0, 1.0)


def class_votes(count: Float64, options: Options) -> Float64:
    """What nodes say about class frequencies, float64[nodes, classes]: shares times their capped total."""
    samples = count.max(axis=2)
    total = samples.sum(axis=1, keepdims=True)
    votes: Float64 = samples / np.maximum(total, FORGOTTEN) * effective(total, options.count_cap)
    return votes


def believable(mean: Float64, count: Float64, options: Options) -> Float64:
    """1.0 where a node's class mean counts, 0.0 where it is absent or absurd: float64[nodes, classes].

    The distance is from the class's coordinatewise median, multiplied by the root of the weight: a mean of
    few samples may lie farther away.  Fewer than five means have no majority to judge by.
    """
    present = count.max(axis=2) > 0
    kept: Float64 = present.astype(np.float64)
    for label in range(present.shape[1]) if options.trim > 0.0 else ():
        members = np.flatnonzero(present[:, label])
        if len(members) < MAJORITY_NODES_MIN:
            continue
        values = np.where(count[members, label] > 0, mean[members, label], np.nan)
        values = values[:, (count[members, label] > 0).any(axis=0)]
        squares = np.nanmean(np.square(values - np.nanmedian(values, axis=0)), axis=1)
        distance = np.sqrt(squares * effective(count[members, label].max(axis=1), options.count_cap))
        kept[members[distance > options.trim * float(np.median(distance))], label] = 0.0
    return kept
