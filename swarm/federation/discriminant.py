"""From class means to heads: one linear discriminant per context, accepted only if it gains.

What real data taught (`Options` set it): days are autocorrelated, so a node's mean is worth at most
`count_cap` samples; a fleet is small, so class means shrink towards the means over all contexts and the
public ones, the covariance towards identity (z is whitened on public data); means far from all others
are left out (a garbage or wrongly labelled node); and a good shipped head often cannot be beaten.

Theory of acceptance.  Nodes are dealt into five folds.  A head solved without a fold is judged on that
fold's class means: a sample of a node lies around the node's mean with the within-class covariance, so a
linear head's expected confusion follows in closed form, and from it the macro-F1.  The shipped head, the
solved one and the half-way blend are judged on the same folds; the best replaces the shipped head if its
mean gain is `gain` standard errors above 0 and at least `gain_min` (the judge shares the solver's
assumptions and flatters it by one or two hundredths).  Otherwise the context keeps the shipped head, bit for
bit: no gain, nothing to send.

Everything here is in standard deviations (z / 32) and real units (1.0).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swarm.federation.prototypes import SUM_ONE, Int64, Options, Prior, Statistics
from swarm.model.layout import CLASSES, HEAD_ROW, HEAD_SIZE, Z_ONE, Z
from swarm.model.vector import Float64

__all__ = ["FOLDS", "ContextResult", "choose_heads", "solve_head"]

FOLDS = 5
SHARES = (1.0, 0.5)
"""How much of the solved head is tried against the shipped one."""
OTHER_CONTEXTS = 0.1
"""What the scatter of another context is worth for a context's covariance."""
PROBIT = 1.702
"""The logistic function of 1.702 x is within .01 of the normal distribution function of x."""


@dataclass(frozen=True, slots=True)
class ContextResult:
    """One context's outcome: expected macro-F1 of the shipped and of the best new head on unseen nodes.

    `share` 0 means that the shipped head stays; both scores are NaN when there were too few nodes to judge.
    """

    context: int
    nodes: int
    base: float
    solved: float
    share: float


@dataclass(frozen=True, slots=True, eq=False)
class _Moments:
    """Weighted sums: weight and total per class and dim [3, 32], scatter and its freedom per dim pair."""

    samples: Float64  # [3], each node with its capped total, in its own class shares
    weight: Float64
    total: Float64
    scatter: Float64
    freedom: Float64


@dataclass(frozen=True, slots=True, eq=False)
class _Solved:
    """A head [99], the class means [3, 32] and covariance [32, 32] behind it, and the dims it rests on."""

    head: Float64
    mean: Float64
    covariance: Float64
    known: NDArray[np.bool_]


def choose_heads(
    statistics: Statistics, base_heads: Float64, options: Options, prior: Prior | None = None
) -> tuple[Float64, list[ContextResult]]:
    """The head to use per context, float64[contexts, 99]; `base_heads` are the shipped ones."""
    rows = [statistics.context(context) for context in range(len(base_heads))]
    moments = [_moments(own, options, _prior_of(prior, c, options)) for c, own in enumerate(rows)]
    heads = base_heads.copy()
    results = []
    for context, own in enumerate(rows):
        nodes = len(own)
        result = ContextResult(context, nodes, math.nan, math.nan, 0.0)
        if nodes >= max(options.nodes_min, FOLDS):
            others = _sum(moments[:context] + moments[context + 1 :])
            known = _prior_of(prior, context, options)
            base, solved, share = _judge(own, others, base_heads[context], options, known)
            share *= min(1.0, nodes / options.nodes_full)
            result = ContextResult(context, nodes, base, solved, share)
            if share > 0.0:
                head = _solve(moments[context], others, options, base_heads[context]).head
                heads[context] = share * head + (1.0 - share) * base_heads[context]
        results.append(result)
    return heads, results


def solve_head(rows: Int64, options: Options) -> Float64:
    """The head of one context alone, without judging it: float64[99] from rows int64[nodes, 2, 3, 32]."""
    return _solve(_moments(rows, options, None), _sum([]), options, np.zeros(HEAD_SIZE)).head


def _judge(
    rows: Int64, others: _Moments, base: Float64, options: Options, prior: tuple[Float64, Float64] | None
) -> tuple[float, float, float]:
    """Mean score of the shipped head, of the best new one, and the share of the new one to take (0: none)."""
    base_scores = np.empty(FOLDS)
    new_scores = np.empty((len(SHARES), FOLDS))
    fold_of = np.arange(len(rows)) % FOLDS
    for fold in range(FOLDS):
        solved = _solve(_moments(rows[fold_of != fold], options, prior), others, options, base)
        held_out = rows[fold_of == fold]
        base_scores[fold] = _expected_f1(base, held_out, solved, options)
        for i, share in enumerate(SHARES):
            mixed = share * solved.head + (1.0 - share) * base
            new_scores[i, fold] = _expected_f1(mixed, held_out, solved, options)
    best = int(np.argmax(new_scores.mean(axis=1)))
    gains = new_scores[best] - base_scores
    needed = max(options.gain * float(gains.std(ddof=1)) / math.sqrt(FOLDS), options.gain_min)
    share = SHARES[best] if float(gains.mean()) > needed else 0.0
    return float(base_scores.mean()), float(new_scores[best].mean()), share


def _expected_f1(head: Float64, rows: Int64, solved: _Solved, options: Options) -> float:
    """Macro-F1 (over the classes that occur) that this head would have on samples of these nodes."""
    mean, count = _means(rows)
    votes = _votes(count, options) * _kept(mean, count, options)
    # Nobody knows how the classes lie in dims that were not reported: heads are compared without them.
    weights = head.reshape(CLASSES, HEAD_ROW)[:, :Z] * solved.known
    bias = head.reshape(CLASSES, HEAD_ROW)[:, Z]
    difference = weights[:, np.newaxis] - weights[np.newaxis]
    spread = np.einsum("abi,ij,abj->ab", difference, solved.covariance, difference)
    confusion = np.zeros((CLASSES, CLASSES))
    for label in range(CLASSES):
        members = votes[:, label] > 0
        # Dimensions that a node did not report are at the class's mean, as far as anybody knows.
        where = np.where(count[members, label] > 0, mean[members, label], solved.mean[label])
        logits = where @ weights.T + bias
        # A mean of one sample is the sample; the more samples, the wider they lie around their mean.
        share = 1.0 - 0.9 / count[members, label].max(axis=1)
        width = np.sqrt(np.maximum(spread, 1e-9) * share[:, np.newaxis, np.newaxis])
        margin = (logits[:, :, np.newaxis] - logits[:, np.newaxis]) / width
        wins = (1.0 / (1.0 + np.exp(-PROBIT * np.clip(margin, -30.0, 30.0)))).prod(axis=2)
        confusion[label] = votes[members, label] @ (wins / wins.sum(axis=1, keepdims=True))
    occurs = confusion.sum(axis=1) > 0
    union = confusion.sum(axis=0) + confusion.sum(axis=1)
    scores = 2.0 * np.diag(confusion)[occurs] / union[occurs]
    return float(scores.mean()) if occurs.any() else 0.0


def _prior_of(prior: Prior | None, context: int, options: Options) -> tuple[Float64, Float64] | None:
    """The public means in std [3, 32] and their weights [3] (0 where there are none)."""
    if prior is None or context >= len(prior.means):
        return None
    return prior.means[context] / Z_ONE, np.minimum(prior.counts[context], options.prior_weight)


def _means(rows: Int64) -> tuple[Float64, Float64]:
    """Class means in std and counts, float64[nodes, 3, 32] each; 0 where nothing was reported."""
    count = rows[:, 0].astype(np.float64)
    sums = rows[:, 1].astype(np.float64) / SUM_ONE
    return np.divide(sums, count, out=np.zeros_like(sums), where=count > 0), count


def _moments(rows: Int64, options: Options, prior: tuple[Float64, Float64] | None) -> _Moments:
    mean, count = _means(rows)
    kept = _kept(mean, count, options)
    weight = _effective(count, options.count_cap) * kept[:, :, np.newaxis]
    total, weights = (weight * mean).sum(axis=0), weight.sum(axis=0)
    centre = np.divide(total, weights, out=np.zeros((CLASSES, Z)), where=weights > 0)
    scatter, freedom = np.zeros((Z, Z)), np.zeros((Z, Z))
    for label in range(CLASSES):
        # Dimensions are reported as a prefix, so the pair (j, k) is known where the later one is.
        present = (weight[:, label] > 0).astype(np.float64)
        deviation = np.sqrt(weight[:, label]) * (mean[:, label] - centre[label]) * present
        scatter += deviation.T @ deviation
        freedom += np.maximum(present.T @ present - 1.0, 0.0)
    if prior is not None:
        total = total + prior[0] * prior[1][:, np.newaxis]
        weights = weights + prior[1][:, np.newaxis]
    return _Moments((_votes(count, options) * kept).sum(axis=0), weights, total, scatter, freedom)


def _sum(moments: Sequence[_Moments]) -> _Moments:
    return _Moments(
        samples=sum((m.samples for m in moments), np.zeros(CLASSES)),
        weight=sum((m.weight for m in moments), np.zeros((CLASSES, Z))),
        total=sum((m.total for m in moments), np.zeros((CLASSES, Z))),
        scatter=sum((m.scatter for m in moments), np.zeros((Z, Z))),
        freedom=sum((m.freedom for m in moments), np.zeros((Z, Z))),
    )


def _effective(count: Float64, cap: float) -> Float64:
    """What a mean of `count` samples of one node is worth, in independent samples: 1 for one, `cap` at most.

    With a variance between nodes of 1 / (cap - 1) of that within, the mean of n samples scatters with
    1/n + 1/(cap-1); multiplied by this weight that is the same for every n, so that nodes with many and
    with few labels tell the same covariance.
    """
    return count * cap / np.maximum(count + cap - 1.0, 1.0)


def _votes(count: Float64, options: Options) -> Float64:
    """What each node says about class frequencies, float64[nodes, 3]: its shares times its capped total."""
    samples = count.max(axis=2)
    total = samples.sum(axis=1, keepdims=True)
    votes: Float64 = samples / np.maximum(total, 1.0) * _effective(total, options.count_cap)
    return votes


def _kept(mean: Float64, count: Float64, options: Options) -> Float64:
    """1.0 where a node's class mean counts, 0.0 where it is absent or absurd: float64[nodes, 3].

    The distance is from the class's coordinatewise median, multiplied by the root of the weight: a mean of
    few samples may lie farther away.  Fewer than five means have no majority to judge by.
    """
    present = count.max(axis=2) > 0
    kept: Float64 = present.astype(np.float64)
    for label in range(CLASSES) if options.trim > 0.0 else ():
        members = np.flatnonzero(present[:, label])
        if len(members) < 5:
            continue
        values = np.where(count[members, label] > 0, mean[members, label], np.nan)
        values = values[:, (count[members, label] > 0).any(axis=0)]
        squares = np.nanmean(np.square(values - np.nanmedian(values, axis=0)), axis=1)
        distance = np.sqrt(squares * _effective(count[members, label].max(axis=1), options.count_cap))
        kept[members[distance > options.trim * float(np.median(distance))], label] = 0.0
    return kept


def _solve(own: _Moments, others: _Moments, options: Options, base: Float64) -> _Solved:
    pooled_weight = own.weight + others.weight
    pooled_mean = _ratio(own.total + others.total, pooled_weight)
    shrink = np.where(pooled_weight > 0, options.mean_shrink, 0.0)
    weight = own.weight + shrink
    mean = _ratio(own.total + shrink * pooled_mean, weight)
    identity = options.identity_shrink
    scatter = own.scatter + OTHER_CONTEXTS * others.scatter + identity * np.eye(Z)
    covariance = scatter / np.maximum(own.freedom + OTHER_CONTEXTS * others.freedom + identity, 1.0)
    reported = weight.max(axis=0)
    known = (reported > 0) & (reported >= 0.5 * reported.max())
    head = base.reshape(CLASSES, HEAD_ROW).copy()
    # In dims that few nodes reported (slow data rates send the first ones) the shipped weights stay.
    head[:, np.append(known, True)] = _discriminant(
        mean[:, known], covariance[np.ix_(known, known)], own, options
    )
    # Softmax knows differences only; centred rows need the fewest bits.
    head -= head.mean(axis=0)
    return _Solved(head.reshape(HEAD_SIZE), mean, covariance, known)


def _ratio(total: Float64, weight: Float64) -> Float64:
    quotient: Float64 = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
    return quotient


def _discriminant(mean: Float64, covariance: Float64, own: _Moments, options: Options) -> Float64:
    """LDA for class means [3, n] and a covariance [n, n]: n weights and the bias per class, [3, n + 1]."""
    dims = len(covariance)
    ridge = options.ridge * float(np.trace(covariance)) / max(dims, 1)
    # Pairs with different numbers of nodes may leave it indefinite: no eigenvalue below the ridge.
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2.0)
    inverse = (vectors / (np.maximum(values, 0.0) + ridge)) @ vectors.T
    weights = mean @ inverse
    frequency = (own.samples + 1.0) / (own.samples.sum() + CLASSES)
    bias = -0.5 * (weights * mean).sum(axis=1) + (1.0 - options.balance) * np.log(frequency)
    return np.column_stack([weights, bias])
