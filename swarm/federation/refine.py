"""From a discriminant to a regression on the same class means: closer where classes are no equal bells.

Theory of operation.  A linear discriminant takes each class for a normal cloud of one common shape; where
features saturate and labels follow thresholds they are not, and a softmax regression on the samples does
better.  The gateway has no samples, but it knows around what most of them lie: a node's mean of n samples
of a class, and how far samples scatter (the scatter of all nodes' means, as for the discriminant).  So it
draws some around each mean, as far away as a sample is from a mean that it is part of, and fits the
regression to these, held to the discriminant (where the public data know the context, to the middle of it
and the shipped head) by `Options.refine` samples.  A dimension that a node did not
report (slow data rates send the first ones) is drawn around the class's mean over all nodes.

The draws are in opposite pairs and always the same; same rows, same bits.  The prior that `balance` asks for
is taken off before the fit and put back after it.

Who is left out is decided before, by the discriminant: rows here are those of nodes that are believed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from swarm.federation.prototypes import Options
from swarm.federation.regression import softmax_fit
from swarm.federation.reported import believable, class_means, class_votes, effective
from swarm.model.layout import HEAD_ROW
from swarm.model.vector import Float64
from swarm.prng import Prng

__all__ = ["refined"]

DRAWS = 8
"""Around each mean; fewer, but a pair at least, where there are more than `DRAWN_MAX` in all."""
DRAWN_MAX = 32_768
STEPS = 60
"""Of the fit; heads move less than a unit of their int16 after that."""
IDENTITY = 20.0
"""Samples of identity in the covariance: a context may have fewer means than dimensions."""


def refined(rows: Float64, head: Float64, options: Options) -> Float64:
    """A context's head float64[head_size] from its believed rows float64[nodes, 2, classes, 32].

    `head` is what it is held to; dimensions that few nodes reported stay as they are there.  Without a mean:
    `head` itself.
    """
    mean, count = class_means(rows)
    kept = believable(mean, count, options) > 0.0
    if not kept.any():
        return head
    start = head.reshape(-1, HEAD_ROW)
    reported = count.sum(axis=(0, 1))
    known = reported >= 0.5 * reported.max()
    mean, count = mean[:, :, known], count[:, :, known]
    votes = class_votes(count, options) * kept
    frequency = (votes.sum(axis=0) + 1.0) / (votes.sum() + votes.shape[1])
    prior = -options.balance * np.log(frequency)
    columns = np.append(known, True)
    own = start[:, columns].copy()
    own[:, -1] -= prior
    x, label, weight = _drawn(mean, count, kept, votes, options)
    own = softmax_fit(x, label, weight, own, options.refine, STEPS)
    own[:, -1] += prior
    new = start.copy()
    new[:, columns] = own
    # Softmax knows differences only; centred rows need the fewest bits.
    new -= new.mean(axis=0)
    return new.ravel()


def _drawn(
    mean: Float64, count: Float64, kept: NDArray[np.bool_], votes: Float64, options: Options
) -> tuple[Float64, NDArray[np.int64], Float64]:
    """Made-up samples [n, dims + 1] with the 1 of the bias, their labels and weights."""
    centre, scatter = _scatter(mean, count, kept, options)
    spread = np.linalg.cholesky(scatter)
    node, label = np.nonzero(kept)
    # Of a very large fleet every k-th mean: more of them would say the same.
    every = -(-len(node) * 2 // DRAWN_MAX)
    node, label = node[::every], label[::every]
    pairs = max(1, min(DRAWS, DRAWN_MAX // len(node)) // 2)
    own, reported = mean[node, label], count[node, label] > 0.0
    around = np.where(reported, own, centre[label])
    # A sample lies sqrt(1 - 1/n) of the scatter away from the mean of n that it is part of.
    far = np.sqrt(1.0 - 1.0 / np.maximum(np.where(reported, count[node, label], np.inf), 1.0))
    noise = Prng(0).child("refine").numpy().standard_normal((len(node), pairs, len(spread))) @ spread.T
    noise *= far[:, np.newaxis]
    x = around[:, np.newaxis] + np.concatenate([noise, -noise], axis=1)
    draws = 2 * pairs
    flat = np.concatenate([x.reshape(-1, len(spread)), np.ones((len(node) * draws, 1))], axis=1)
    weight = votes[node, label] * (every / draws)
    return flat, np.repeat(label, draws), np.repeat(weight, draws)


def _scatter(
    mean: Float64, count: Float64, kept: NDArray[np.bool_], options: Options
) -> tuple[Float64, Float64]:
    """Class means over all nodes [classes, dims] and the covariance within classes [dims, dims]."""
    weight = effective(count, options.count_cap) * kept[:, :, np.newaxis]
    total = weight.sum(axis=0)
    centre = np.divide((weight * mean).sum(axis=0), total, out=np.zeros_like(total), where=total > 0.0)
    deviation = (np.sqrt(weight) * (mean - centre)).reshape(-1, mean.shape[2])
    freedom = np.maximum((weight > 0.0).sum(axis=0) - 1.0, 0.0).sum(axis=0)
    # Where fewer nodes reported a dimension, its products with the others are sums of fewer terms.
    root = np.sqrt(freedom + IDENTITY)
    return centre, (deviation.T @ deviation + IDENTITY * np.eye(len(root))) / np.outer(root, root)
