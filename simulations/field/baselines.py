"""What every learning result stands beside: the same samples without federation, and all of them at once.

    majority      the crop's most frequent training class
    persistence   the last label the node was told
    rule          the published rule on the node's own sensors
    base          the shipped head, no training
    local_only    each node's own regularised softmax regression on its own labels, no radio
    public_local  the shipped head, moved by each node towards its own labels, no radio
    centralised   softmax regression on all nodes' labels, per crop or pooled, whichever validates better

The score is the macro-F1 of a crop, averaged over the classes that occur in that crop's test labels; the
headline is the mean over crops. No choice ever sees the test: strengths and the adjustment for class
imbalance are chosen by threefold validation over consecutive blocks of the labelled training days, for the
centralised model on nodes it was not fitted to.

Imbalance is treated alike for every method that has logits: tau * log(class share of the crop in training)
is taken from the logits, tau being the best of `TAUS` on validation, per crop and method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Dataset", "Scores", "compare", "fit_heads", "macro_f1", "score_heads", "score_predictions"]

CLASSES = 3
Z_LSB = 32.0
FOLDS = 3
TAUS = (0.0, 0.25, 0.5, 0.75, 1.0)
LOCAL_STRENGTHS = (1.0, 3.0, 10.0, 30.0)
PUBLIC_STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0, 1e6)  # the last leaves the shipped head as it is
CENTRAL_STRENGTHS = (10000.0, 3000.0, 1000.0, 300.0, 30.0)
VALIDATION_NODE_EVERY = 5

Float = NDArray[np.float32]
Classes = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Dataset:
    """One fleet's samples, node by node and day by day; days ascend and the test follows the training.

    context [nodes] u8; z_* int8 [nodes, days, 32] from the frozen trunk (32 = 1.0); labels_* u8 [nodes,
    days], 255 = never told; rule_test u8 [nodes, test days], the classes by the published rule on the
    node's own sensors.
    """

    context: Classes
    z_train: NDArray[np.int8]
    labels_train: Classes
    z_test: NDArray[np.int8]
    labels_test: Classes
    rule_test: Classes

    def __post_init__(self) -> None:
        nodes = len(self.context)
        for z, labels in ((self.z_train, self.labels_train), (self.z_test, self.labels_test)):
            if labels.shape != z.shape[:2] or len(labels) != nodes:
                raise ValueError(f"z {z.shape} and labels {labels.shape} do not fit {nodes} nodes")
        if self.rule_test.shape != self.labels_test.shape:
            raise ValueError(
                f"rule classes {self.rule_test.shape} are not one per test label {self.labels_test.shape}"
            )

    @property
    def crops(self) -> tuple[int, ...]:
        """The contexts present, ascending."""
        return tuple(int(crop) for crop in np.unique(self.context))


@dataclass(frozen=True)
class Scores:
    """Macro-F1 (0-1) by crop of one method."""

    per_crop: Mapping[int, float]

    def mean(self, crops: tuple[int, ...] | None = None) -> float:
        """The mean over crops, or over those of `crops` that are present; nan when there are none."""
        chosen = [score for crop, score in self.per_crop.items() if crops is None or crop in crops]
        return sum(chosen) / len(chosen) if chosen else float("nan")


def macro_f1(predicted: Classes, labels: Classes) -> float:
    """F1 averaged over the classes that occur among the labels (equal shapes; labels of 255 are left out);
    nan if none.
    """
    told = labels != 255
    predicted, labels = predicted[told], labels[told]
    scores = []
    for risk in range(CLASSES):
        actual, claimed = labels == risk, predicted == risk
        if actual.any():
            scores.append(2.0 * float((actual & claimed).sum()) / float(actual.sum() + claimed.sum()))
    return sum(scores) / len(scores) if scores else float("nan")


def score_predictions(data: Dataset, predicted: Classes) -> Scores:
    """Score classes [nodes, test days] against the test labels."""
    return Scores(
        {
            crop: macro_f1(predicted[data.context == crop], data.labels_test[data.context == crop])
            for crop in data.crops
        }
    )


def _inputs(z: NDArray[np.int8]) -> Float:
    """Features as floats with a constant 1 for the bias, [..., 33]."""
    return np.concatenate(
        [z / np.float32(Z_LSB), np.ones((*z.shape[:-1], 1), np.float32)], axis=-1, dtype=np.float32
    )


def _softmax(logits: Float) -> Float:
    """Probabilities along the last axis."""
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=-1, keepdims=True))


def fit_heads(
    x: Float, labels: Classes, start: Float, strength: Float, *, iterations: int = 60, tolerance: float = 1e-3
) -> Float:
    """Independent softmax regressions, all at once: heads [b, classes, 33] from x [b, n, 33] and labels
    [b, n] (255 = unused).

    Each minimises its summed cross-entropy + strength/2 * |head - start|^2; start [b, classes, 33],
    strength [b] > 0. Accelerated steps with the fixed curvature bound of Boehning (1992): one inverse per
    problem and no line search. Stops when no weight moves more than `tolerance`.
    """
    used = (labels != 255)[..., None]
    target = ((labels[..., None] == np.arange(start.shape[1])) & used).astype(np.float32)
    weighted = x * used
    bound = 0.5 * weighted.transpose(0, 2, 1) @ x + strength[:, None, None] * np.eye(
        x.shape[-1], dtype=np.float32
    )
    inverse = np.linalg.inv(bound.astype(np.float64)).astype(np.float32)
    columns = weighted.transpose(0, 2, 1)
    begin = start.transpose(0, 2, 1).astype(np.float32)  # [b, 33, classes]
    head = ahead = begin
    momentum = 1.0
    for _ in range(iterations):
        gradient = columns @ (target - _softmax(x @ ahead)) - strength[:, None, None] * (ahead - begin)
        moved = ahead + inverse @ gradient
        following = (1.0 + (1.0 + 4.0 * momentum * momentum) ** 0.5) / 2.0
        ahead = moved + np.float32((momentum - 1.0) / following) * (moved - head)
        step, head, momentum = float(np.abs(moved - head).max()), moved, following
        if step < tolerance:
            break
    return np.ascontiguousarray(head.transpose(0, 2, 1))


def _folds(labels: Classes) -> list[tuple[Classes, Classes]]:
    """Each node's labelled days [nodes, days] cut in consecutive thirds: (labels to fit, labels to judge),
    255 elsewhere.

    Blocks and not random days, because neighbouring days share their weather.
    """
    told = labels != 255
    order = np.cumsum(told, axis=1) - 1
    block = order * FOLDS // np.maximum(told.sum(axis=1, keepdims=True), 1)
    unused = np.uint8(255)
    return [
        (np.where(block == fold, unused, labels), np.where(block == fold, labels, unused))
        for fold in range(FOLDS)
    ]


def _shares(labels: Classes) -> Float:
    """Class shares of told labels, each class counted once more than seen."""
    counts = np.bincount(labels[labels != 255].ravel(), minlength=CLASSES)[:CLASSES] + 1.0
    return np.asarray(counts / counts.sum(), dtype=np.float32)


def _classes(logits: Float, tau: float, shares: Float) -> Classes:
    """The likeliest class after the adjustment for imbalance."""
    return np.asarray((logits - np.float32(tau) * np.log(shares)).argmax(axis=-1), dtype=np.uint8)


def _best_tau(logits: Float, labels: Classes, shares: Float) -> tuple[float, float]:
    """(macro-F1, tau) of the adjustment that validates best; the smaller tau wins a tie."""
    scored = [(macro_f1(_classes(logits, tau, shares), labels), -tau) for tau in TAUS]
    best, minus_tau = max((-1.0 if np.isnan(score) else score, tau) for score, tau in scored)
    return best, -minus_tau


def score_heads(data: Dataset, heads: Float) -> Scores:
    """Score one head per context, heads [contexts, 3, 33] in float units, with tau chosen on all training
    labels.
    """
    scores = {}
    for crop in data.crops:
        of_crop = data.context == crop
        head = heads[crop].T.astype(np.float32)
        labels = data.labels_train[of_crop]
        shares = _shares(labels)
        _, tau = _best_tau(_inputs(data.z_train[of_crop]) @ head, labels, shares)
        predicted = _classes(_inputs(data.z_test[of_crop]) @ head, tau, shares)
        scores[crop] = macro_f1(predicted, data.labels_test[of_crop])
    return Scores(scores)


def _log_loss(logits: Float, labels: Classes) -> Float:
    """Mean cross-entropy of each node [nodes] over its told labels; logits [nodes, days, 3]."""
    told = labels != 255
    log_p = logits - logits.max(axis=-1, keepdims=True)
    log_p = log_p - np.log(np.exp(log_p).sum(axis=-1, keepdims=True))
    chosen = np.take_along_axis(log_p, np.where(told, labels, 0)[..., None].astype(np.intp), axis=-1)[..., 0]
    return np.asarray(-(chosen * told).sum(axis=1) / np.maximum(told.sum(axis=1), 1), dtype=np.float32)


def _score_local(data: Dataset, start: Float, strengths: tuple[float, ...]) -> Scores:
    """Every node fits its own head from start [nodes, 3, 33]; its strength is the one with the least
    validation loss.
    """
    x, x_test = _inputs(data.z_train), _inputs(data.z_test)
    nodes = len(x)
    best_loss = np.full(nodes, np.inf, dtype=np.float32)
    strength = np.zeros(nodes, dtype=np.float32)
    validated = np.zeros((*data.labels_train.shape, CLASSES), dtype=np.float32)
    folds = _folds(data.labels_train)
    for candidate in sorted(strengths, reverse=True):  # on a tie the stronger one stays
        logits = np.zeros_like(validated)
        for fitted, judged in folds:
            heads = fit_heads(x, fitted, start, np.full(nodes, candidate, dtype=np.float32), iterations=40)
            logits += (x @ heads.transpose(0, 2, 1)) * (judged != 255)[..., None]
        loss = _log_loss(logits, data.labels_train)
        better = loss < best_loss
        best_loss = np.where(better, loss, best_loss)
        strength = np.where(better, np.float32(candidate), strength)
        validated[better] = logits[better]
    logits_test = x_test @ fit_heads(x, data.labels_train, start, strength, iterations=40).transpose(0, 2, 1)
    scores = {}
    for crop in data.crops:
        of_crop = data.context == crop
        shares = _shares(data.labels_train[of_crop])
        _, tau = _best_tau(validated[of_crop], data.labels_train[of_crop], shares)
        scores[crop] = macro_f1(_classes(logits_test[of_crop], tau, shares), data.labels_test[of_crop])
    return Scores(scores)


def _fit_one(x: Float, labels: Classes, start: Float, strength: float) -> Float:
    """One regression [3, 33] on the told labels of all given nodes together."""
    told = labels != 255
    strengths = np.array([strength], dtype=np.float32)
    heads = fit_heads(x[told][None], labels[told][None], start[None], strengths, iterations=300)
    return np.asarray(heads[0])


@dataclass(frozen=True)
class _Trial:
    """One way to fit a central head: whose labels, which head it is drawn to, how strongly."""

    members: Mask
    start: Float
    strength: float

    def fit(self, x: Float, labels: Classes, without: Mask | None = None) -> Float:
        """The head [3, 33] from the members' labels, but for those of the nodes `without`."""
        members = self.members if without is None else self.members & ~without
        return _fit_one(x[members], labels[members], self.start, self.strength)


def _judged(heads: list[Float], x: Float, folds: list[tuple[Classes, Classes]], judges: Mask) -> Float:
    """Logits [judges, days, 3]: for each day those of the head that was not fitted to that day's block."""
    logits = np.zeros((int(judges.sum()), x.shape[1], CLASSES), dtype=np.float32)
    for head, (_, judged) in zip(heads, folds, strict=True):
        logits += x[judges] @ head.T * (judged[judges] != 255)[..., None]
    return logits


def _score_centralised(data: Dataset, shipped: Float) -> Scores:
    """The model of a server that has every label, chosen by validation.

    Choices: one head per crop, drawn to zero or to the shipped head, or one head for all crops; each at
    several strengths.
    """
    x, x_test = _inputs(data.z_train), _inputs(data.z_test)
    folds = _folds(data.labels_train)
    # Within a crop every fifth node is held out; it judges heads of the others on days none of them was
    # fitted to.
    held_out = np.zeros(len(x), dtype=bool)
    for crop in data.crops:
        held_out[np.flatnonzero(data.context == crop)[::VALIDATION_NODE_EVERY]] = True
    zero = np.zeros(shipped.shape[1:], dtype=np.float32)
    pooled = [_Trial(np.ones(len(x), dtype=bool), zero, strength) for strength in CENTRAL_STRENGTHS]
    pooled_heads = [[trial.fit(x, fitted, held_out) for fitted, _ in folds] for trial in pooled]
    scores = {}
    for crop in data.crops:
        of_crop = data.context == crop
        judges = of_crop & held_out
        starts = (zero, shipped[crop])
        own = [_Trial(of_crop, start, strength) for start in starts for strength in CENTRAL_STRENGTHS]
        heads = [[trial.fit(x, fitted, held_out) for fitted, _ in folds] for trial in own] + pooled_heads
        shares = _shares(data.labels_train[of_crop])
        validated = [
            _best_tau(_judged(of_trial, x, folds, judges), data.labels_train[judges], shares)
            for of_trial in heads
        ]
        best = max(range(len(heads)), key=lambda trial: validated[trial][0])
        head = (own + pooled)[best].fit(x, data.labels_train)
        predicted = _classes(x_test[of_crop] @ head.T, validated[best][1], shares)
        scores[crop] = macro_f1(predicted, data.labels_test[of_crop])
    return Scores(scores)


def _persistence(data: Dataset) -> Classes:
    """For each test day [nodes, test days] the last label told before it, low where none was."""
    known = np.concatenate([data.labels_train, data.labels_test], axis=1)
    last = np.zeros(len(known), dtype=np.uint8)
    told = np.zeros(known.shape, dtype=np.uint8)
    for day in range(known.shape[1]):
        told[:, day] = last
        last = np.where(known[:, day] != 255, known[:, day], last)
    return told[:, data.labels_train.shape[1] :]


def compare(data: Dataset, shipped: Float) -> dict[str, Scores]:
    """All baselines by name, in the order of the module's list; shipped [contexts, 3, 33] float heads for z
    as floats.
    """
    majority = np.zeros_like(data.labels_test)
    for crop in data.crops:
        of_crop = data.context == crop
        majority[of_crop] = _shares(data.labels_train[of_crop]).argmax()
    start = shipped[data.context].astype(np.float32)
    return {
        "majority": score_predictions(data, majority),
        "persistence": score_predictions(data, _persistence(data)),
        "rule": score_predictions(data, data.rule_test),
        "base": score_heads(data, shipped),
        "local_only": _score_local(data, np.zeros_like(start), LOCAL_STRENGTHS),
        "public_local": _score_local(data, start, PUBLIC_STRENGTHS),
        "centralised": _score_centralised(data, shipped.astype(np.float32)),
    }
