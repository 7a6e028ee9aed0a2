"""From class means to heads: one linear discriminant per context, used only if it proves better.

What real data taught (`Options` set it): days are autocorrelated, so a node's mean is worth at most
`count_cap` samples; a fleet is small, so class means shrink towards the means over all contexts and the
public ones, the covariance towards identity (z is whitened on public data); means far from all others
are left out (a garbage node); and a good shipped head often cannot be beaten.

Wrong labels give plausible means of the wrong class, which no distance tells.  What tells them is that the
others deny them: a node on whose own means the head of all does worse than a head that knows nothing, and
worse than on most nodes (`trim` robust standard deviations above the median), is left out, and the heads are
solved again without it, until nobody more is.  Its rows stay: they are its reputation over all rounds, and a
node that learned to label comes back.

Theory of acceptance.  All nodes of a cell see one weather, so holding out nodes proves nothing: only days
that the head was not solved from do.  Each increment is therefore judged before it is learned from: the
shipped head, the solved one and the half-way blend classify its class means, and the confusion adds up over
the rounds.  The best replaces the shipped head in a context where its macro-F1 is ahead by
`gain_min * (1 + 1 / rounds judged)`.  Otherwise the context keeps the shipped head, bit for bit: no gain,
nothing to send.  The margin is wide because means flatter a head that was solved from means: on simulated
seasons in which the shipped head was in truth better by .1 to .5, they spoke for the solved one by up to
.17; where the shipped head was wrong, by .12 to .54.

Everything here is in standard deviations (z / 32) and real units (1.0).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swarm.federation.prototypes import Int64, Options, Prior, Statistics
from swarm.federation.refine import refined
from swarm.federation.reported import (
    MAJORITY_NODES_MIN,
    believable,
    class_means,
    class_votes,
    effective,
)
from swarm.model.layout import HEAD_ROW, Z_ONE, Shape, Z
from swarm.model.vector import Float64

__all__ = [
    "ContextResult",
    "Judge",
    "Moments",
    "losses",
    "prior_of",
    "public_covariance",
    "solve_believed",
    "solve_head",
    "solve_heads",
    "solve_moments",
]

SHARES = (1.0, 0.5)
"""How much of the solved head is tried against the shipped one."""
OTHER_CONTEXTS = 0.1
"""What the scatter of another context is worth for a context's covariance."""
CONTRADICTION_PASSES = 8
"""How often at most heads are solved without those who contradict them: one lie may hide behind others."""
MAD_TO_SD = 1.4826
"""Of a normal distribution."""


@dataclass(frozen=True, slots=True)
class ContextResult:
    """One context: macro-F1 of the shipped and of the best new head on increments not yet learned from.

    `share` of the new head is in use (0: the shipped one is); scores are None before anything was judged.
    """

    context: int
    nodes: int
    rounds: int
    base: float | None
    new: float | None
    share: float
    contradicting: tuple[int, ...] = ()
    """Indices of nodes that are left out, because the others deny their labels."""


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Weighted sums: weight, total per class and dim [classes, 32], scatter and its freedom per dim pair."""

    samples: Float64  # [classes], each node with its capped total, in its own class shares
    weight: Float64
    total: Float64
    scatter: Float64
    freedom: Float64


class Judge:
    """Confusions of the shipped head, the solved one and the blends, on what each had not learned from.

    `confusion` float64[contexts, 1 + shares, classes, classes] (true class, said class) in capped votes;
    `rounds` int64[contexts] with anything to judge.
    """

    def __init__(self, shape: Shape, contexts: int) -> None:
        self.confusion: Float64 = np.zeros((contexts, 1 + len(SHARES), shape.classes, shape.classes))
        self.rounds: Int64 = np.zeros(contexts, np.int64)

    def tally(self, rows: Float64, context: int, base: Float64, solved: Float64, options: Options) -> None:
        """Judge one round's rows float64[nodes, 2, classes, 32] of a context by the heads from before it."""
        if not len(rows):
            return
        mean, count = class_means(rows)
        classes = mean.shape[1]
        votes = class_votes(count, options)
        for i, share in enumerate((0.0, *SHARES)):
            head = (share * solved + (1.0 - share) * base).reshape(classes, HEAD_ROW)
            said = (mean @ head[:, :Z].T + head[:, Z]).argmax(axis=2)
            for label in range(classes):
                weights = votes[:, label]
                self.confusion[context, i, label] += np.bincount(said[:, label], weights, minlength=classes)
        self.rounds[context] += 1

    def forget(self, kept: float) -> None:
        """From now on what was judged counts as `kept` (0..1) of what it did."""
        self.confusion *= kept

    def result(
        self, context: int, nodes: int, options: Options, contradicting: Sequence[int] = ()
    ) -> ContextResult:
        """What the context should use."""
        rounds = int(self.rounds[context])
        trust = min(1.0, nodes / options.nodes_full) if nodes >= options.nodes_min else 0.0
        who = tuple(contradicting)
        if rounds == 0:
            return ContextResult(
                context, nodes, 0, None, None, trust if options.gain_min == 0.0 else 0.0, who
            )
        base, *new = (_macro_f1(confusion) for confusion in self.confusion[context])
        best = max(range(len(SHARES)), key=lambda i: new[i])
        better = new[best] - base >= options.gain_min * (1.0 + 1.0 / rounds)
        share = SHARES[best] * trust if better else 0.0
        return ContextResult(context, nodes, rounds, base, new[best], share, who)


def solve_heads(
    statistics: Statistics, base_heads: Float64, options: Options, prior: Prior | None = None
) -> Float64:
    """The solved head of each context, float64[contexts, head_size]; the shipped one without reports."""
    return solve_believed(statistics, base_heads, options, prior)[0]


def solve_believed(
    statistics: Statistics, base_heads: Float64, options: Options, prior: Prior | None = None
) -> tuple[Float64, list[list[int]]]:
    """`solve_heads`, and per context the indices of the nodes that contradict the others, ascending."""
    contexts = range(len(base_heads))
    rows, public = [statistics.context(context) for context in contexts], public_covariance(prior)
    nodes = [np.array(statistics.nodes(context), np.int64) for context in contexts]
    believed, kept = [np.ones(len(own), bool) for own in rows], rows
    heads = _solve_all(kept, base_heads, options, prior, public)
    for _ in range(CONTRADICTION_PASSES if options.trim > 0.0 else 0):
        before = believed
        believed = [_believed(own, head, options) for own, head in zip(rows, heads, strict=True)]
        if all(np.array_equal(new, old) for new, old in zip(believed, before, strict=True)):
            break
        kept = [own[keep] for own, keep in zip(rows, believed, strict=True)]
        heads = _solve_all(kept, base_heads, options, prior, public)
    if options.refine > 0.0:
        held = [_held_to(head, base_heads[c], prior_of(prior, c, options)) for c, head in enumerate(heads)]
        heads = np.stack([refined(own, head, options) for own, head in zip(kept, held, strict=True)])
    return heads, [who[~keep].tolist() for who, keep in zip(nodes, believed, strict=True)]


def _solve_all(
    rows: Sequence[Float64], base_heads: Float64, options: Options, prior: Prior | None, public: Float64
) -> Float64:
    moments = [_moments(own, options, prior_of(prior, c, options)) for c, own in enumerate(rows)]
    return solve_moments(moments, [len(own) > 0 for own in rows], base_heads, options, public)


def _held_to(solved: Float64, shipped: Float64, prior: tuple[Float64, Float64] | None) -> Float64:
    """What a regression is held to: half the shipped head, where the public data know the context."""
    if prior is None or not prior[1].any():
        return solved
    rows = shipped.reshape(-1, HEAD_ROW)
    middle: Float64 = 0.5 * (solved + (rows - rows.mean(axis=0)).ravel())
    return middle


def _believed(rows: Float64, head: Float64, options: Options) -> NDArray[np.bool_]:
    """Which nodes stay, bool[nodes]: not those whose labels the head of all denies (see the module)."""
    if len(rows) < MAJORITY_NODES_MIN:
        return np.ones(len(rows), bool)
    loss = losses(rows, head, options)
    usual = float(np.median(loss))
    scatter = MAD_TO_SD * float(np.median(np.abs(loss - usual)))
    return loss <= max(usual + options.trim * scatter, math.log(rows.shape[2]))


def losses(rows: Float64, head: Float64, options: Options) -> Float64:
    """Mean cross-entropy in nats of a head over what each node reported, votes weighing, float64[nodes]."""
    mean, count = class_means(rows)
    weights = head.reshape(-1, HEAD_ROW)
    logits = mean @ weights[:, :Z].T + weights[:, Z]
    logits -= logits.max(axis=2, keepdims=True)
    loss = np.log(np.exp(logits).sum(axis=2)) - np.diagonal(logits, axis1=1, axis2=2)
    votes = class_votes(count, options)
    mean_loss: Float64 = (loss * votes).sum(axis=1) / np.maximum(votes.sum(axis=1), 1e-9)
    return mean_loss


def solve_moments(
    moments: Sequence[Moments],
    reported: Sequence[bool],
    base_heads: Float64,
    options: Options,
    public: Float64 | None = None,
) -> Float64:
    """The head of each context from its moments, float64[contexts, head_size]; unreported ones stay.

    `public`: the covariance [32, 32] to which `options.public_covariance` draws the own one (None: it stays).
    """
    heads = base_heads.copy()
    for context, own in enumerate(moments):
        if reported[context]:
            others = _sum([*moments[:context], *moments[context + 1 :]], len(own.samples))
            heads[context] = _solve(own, others, options, base_heads[context], public)
    return heads


def solve_head(rows: Float64, options: Options) -> Float64:
    """The head of one context alone: float64[head_size] from rows float64[nodes, 2, classes, 32]."""
    classes = rows.shape[2]
    nothing = np.zeros(classes * HEAD_ROW)
    return _solve(_moments(rows, options, None), _sum([], classes), options, nothing, np.eye(Z))


def _macro_f1(confusion: Float64) -> float:
    """Over the classes that occur; 0 when none does."""
    occurs = confusion.sum(axis=1) > 0
    union = confusion.sum(axis=0) + confusion.sum(axis=1)
    return float((2.0 * np.diag(confusion)[occurs] / union[occurs]).mean()) if occurs.any() else 0.0


def prior_of(prior: Prior | None, context: int, options: Options) -> tuple[Float64, Float64] | None:
    """The public means in std [classes, 32] and their weights [classes] (0 where there are none)."""
    if prior is None or context >= len(prior.means):
        return None
    return prior.means[context] / Z_ONE, np.minimum(prior.counts[context], options.prior_weight)


def public_covariance(prior: Prior | None) -> Float64:
    """Covariance within classes on the public data [32, 32]: z is white there, so: what the means leave."""
    if prior is None or not prior.counts.any():
        return np.eye(Z)
    share = prior.counts.ravel() / prior.counts.sum()
    means = prior.means.reshape(-1, Z) / Z_ONE
    deviation = means - share @ means
    values, vectors = np.linalg.eigh(np.eye(Z) - (deviation * share[:, np.newaxis]).T @ deviation)
    within: Float64 = (vectors * np.maximum(values, 0.05)) @ vectors.T
    return within


def _moments(rows: Float64, options: Options, prior: tuple[Float64, Float64] | None) -> Moments:
    mean, count = class_means(rows)
    classes = mean.shape[1]
    kept = believable(mean, count, options)
    weight = effective(count, options.count_cap) * kept[:, :, np.newaxis]
    total, weights = (weight * mean).sum(axis=0), weight.sum(axis=0)
    centre = np.divide(total, weights, out=np.zeros((classes, Z)), where=weights > 0)
    scatter, freedom = np.zeros((Z, Z)), np.zeros((Z, Z))
    for label in range(classes):
        # Dimensions are reported as a prefix, so the pair (j, k) is known where the later one is.
        present = (weight[:, label] > 0).astype(np.float64)
        deviation = np.sqrt(weight[:, label]) * (mean[:, label] - centre[label]) * present
        scatter += deviation.T @ deviation
        freedom += np.maximum(present.T @ present - 1.0, 0.0)
    if prior is not None:
        total = total + prior[0] * prior[1][:, np.newaxis]
        weights = weights + prior[1][:, np.newaxis]
    return Moments((class_votes(count, options) * kept).sum(axis=0), weights, total, scatter, freedom)


def _sum(moments: Sequence[Moments], classes: int) -> Moments:
    return Moments(
        samples=sum((m.samples for m in moments), np.zeros(classes)),
        weight=sum((m.weight for m in moments), np.zeros((classes, Z))),
        total=sum((m.total for m in moments), np.zeros((classes, Z))),
        scatter=sum((m.scatter for m in moments), np.zeros((Z, Z))),
        freedom=sum((m.freedom for m in moments), np.zeros((Z, Z))),
    )


def _solve(own: Moments, others: Moments, options: Options, base: Float64, public: Float64 | None) -> Float64:
    pooled_weight = own.weight + others.weight
    pooled_mean = _ratio(own.total + others.total, pooled_weight)
    shrink = np.where(pooled_weight > 0, options.mean_shrink, 0.0)
    weight = own.weight + shrink
    mean = _ratio(own.total + shrink * pooled_mean, weight)
    identity = options.identity_shrink
    scatter = own.scatter + OTHER_CONTEXTS * others.scatter + identity * np.eye(Z)
    covariance = scatter / np.maximum(own.freedom + OTHER_CONTEXTS * others.freedom + identity, 1.0)
    if public is not None:
        covariance += options.public_covariance * (public - covariance)
    reported = weight.max(axis=0)
    known = (reported > 0) & (reported >= 0.5 * reported.max())
    # Dims that few nodes reported (slow data rates send the first ones) are not solved.
    head = base.reshape(-1, HEAD_ROW) * options.keep_shipped
    head[:, np.append(known, True)] = _discriminant(
        mean[:, known], covariance[np.ix_(known, known)], own, options
    )
    # Softmax knows differences only; centred rows need the fewest bits.
    head -= head.mean(axis=0)
    return head.reshape(-1)


def _ratio(total: Float64, weight: Float64) -> Float64:
    quotient: Float64 = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
    return quotient


def _discriminant(mean: Float64, covariance: Float64, own: Moments, options: Options) -> Float64:
    """LDA for class means [classes, n], covariance [n, n]: weights and bias per class, [classes, n + 1]."""
    dims = len(covariance)
    ridge = options.ridge * float(np.trace(covariance)) / max(dims, 1)
    # Pairs with different numbers of nodes may leave it indefinite: no eigenvalue below the ridge.
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2.0)
    inverse = (vectors / (np.maximum(values, 0.0) + ridge)) @ vectors.T
    weights = mean @ inverse
    frequency = (own.samples + 1.0) / (own.samples.sum() + len(mean))
    bias = -0.5 * (weights * mean).sum(axis=1) + (1.0 - options.balance) * np.log(frequency)
    return np.column_stack([weights, bias])
