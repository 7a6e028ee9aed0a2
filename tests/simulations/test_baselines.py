"""The yardsticks themselves: exact on cases solved by hand, converged, and unable to see the test."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from simulations.field import baselines
from simulations.field.baselines import Dataset, Scores, compare, fit_heads, macro_f1, score_heads

NAMES = ["majority", "persistence", "rule", "base", "local_only", "public_local", "centralised"]


def fleet(
    nodes: int = 120, days: int = 30, test_days: int = 15, seed: int = 0
) -> tuple[Dataset, NDArray[np.float32]]:
    """Labels drawn from a softmax head per crop; the shipped heads know crops 0 and 1 and guess the other
    two.
    """
    rng = np.random.default_rng(seed)
    context = (np.arange(nodes) % 4).astype(np.uint8)
    truth = rng.normal(0.0, 0.8, (4, 3, 33)).astype(np.float32)
    truth[:, 2, 32] -= 1.5  # high is rarer
    z = np.clip(np.rint(rng.normal(0.0, 1.0, (nodes, days + test_days, 32)) * 32), -128, 127).astype(np.int8)
    x = np.concatenate([z / 32.0, np.ones((*z.shape[:2], 1))], axis=2)
    logits = np.einsum("ndf,ncf->ndc", x, truth[context]) + rng.gumbel(size=(*z.shape[:2], 3))
    labels = logits.argmax(axis=2).astype(np.uint8)
    rule = np.where(rng.random(labels.shape) < 0.6, labels, rng.integers(0, 3, labels.shape)).astype(np.uint8)
    shipped = truth.copy()
    shipped[2:] = truth[:2].mean(axis=0)
    data = Dataset(context, z[:, :days], labels[:, :days], z[:, days:], labels[:, days:], rule[:, days:])
    return data, shipped


@pytest.fixture(scope="module")
def results() -> dict[str, Scores]:
    return compare(*fleet())


def test_macro_f1_averages_over_the_classes_that_occur() -> None:
    labels = np.array([0, 0, 0, 1], dtype=np.uint8)
    predicted = np.array([0, 0, 1, 1], dtype=np.uint8)
    assert macro_f1(predicted, labels) == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert macro_f1(np.full(4, 2, np.uint8), labels) == 0.0
    assert macro_f1(labels, labels) == 1.0
    assert macro_f1(np.array([0, 2], np.uint8), np.array([0, 0], np.uint8)) == pytest.approx(2 / 3)


def test_labels_never_told_are_left_out_and_no_label_gives_no_score_and_no_warning() -> None:
    labels = np.array([0, 255, 1, 255], dtype=np.uint8)
    assert macro_f1(np.array([0, 1, 1, 0], np.uint8), labels) == 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(macro_f1(labels, np.full(4, 255, np.uint8)))
        assert np.isnan(Scores({0: 0.5}).mean((2, 3)))


def test_the_headline_is_the_mean_over_crops_and_may_be_taken_over_some() -> None:
    scores = Scores({0: 0.9, 1: 0.7, 2: 0.5, 3: 0.3})
    assert scores.mean() == pytest.approx(0.6)
    assert scores.mean((2, 3)) == pytest.approx(0.4)


def test_majority_persistence_and_rule_are_what_their_names_say() -> None:
    z = np.zeros((1, 3, 32), np.int8)
    train = np.array([[1, 1, 2]], np.uint8)
    test = np.array([[0, 255, 1]], np.uint8)
    rule = np.array([[0, 1, 1]], np.uint8)
    data = Dataset(np.zeros(1, np.uint8), z, train, z, test, rule)
    result = compare(data, np.zeros((4, 3, 33), np.float32))
    assert result["majority"].mean() == pytest.approx(macro_f1(np.array([[1, 1, 1]], np.uint8), test))
    assert result["persistence"].mean() == pytest.approx(macro_f1(np.array([[2, 0, 0]], np.uint8), test))
    assert result["rule"].mean() == 1.0


def gradient(
    x: NDArray[np.float32], labels: NDArray[np.uint8], head: NDArray[np.float32], strength: float
) -> float:
    """The largest slope of the penalised loss of one problem at a head."""
    logits = x @ head.T
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(x)), labels] -= 1.0
    return float(np.abs(p.T @ x + strength * head).max())


def test_fitted_heads_are_at_the_minimum_and_problems_do_not_touch_each_other() -> None:
    rng = np.random.default_rng(3)
    x = np.concatenate([rng.normal(size=(5, 40, 32)), np.ones((5, 40, 1))], axis=2).astype(np.float32)
    labels = rng.integers(0, 3, (5, 40)).astype(np.uint8)
    strength = np.array([1, 3, 10, 30, 100], np.float32)
    zero = np.zeros((5, 3, 33), np.float32)
    heads = fit_heads(x, labels, zero, strength, iterations=500, tolerance=1e-6)
    for i in range(5):
        assert gradient(x[i], labels[i], heads[i], float(strength[i])) < 0.02
    alone = fit_heads(x[2:3], labels[2:3], zero[2:3], strength[2:3], iterations=500, tolerance=1e-6)
    assert np.abs(alone[0] - heads[2]).max() < 1e-3


def test_without_labels_or_with_a_huge_strength_the_head_stays_where_it_starts() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(2, 10, 33)).astype(np.float32)
    start = rng.normal(size=(2, 3, 33)).astype(np.float32)
    untold = np.full((2, 10), 255, np.uint8)
    assert np.array_equal(fit_heads(x, untold, start, np.ones(2, np.float32)), start)
    labels = rng.integers(0, 3, (2, 10)).astype(np.uint8)
    assert np.abs(fit_heads(x, labels, start, np.full(2, 1e6, np.float32)) - start).max() < 1e-4


def test_all_seven_baselines_cover_all_crops(results: dict[str, Scores]) -> None:
    assert list(results) == NAMES
    for scores in results.values():
        assert list(scores.per_crop) == [0, 1, 2, 3]
        assert all(0.0 <= score <= 1.0 for score in scores.per_crop.values())


def test_pooled_labels_beat_thirty_own_ones_and_a_known_head_beats_none(results: dict[str, Scores]) -> None:
    central, local, public = (results[name] for name in ("centralised", "local_only", "public_local"))
    assert central.mean() > local.mean() + 0.1
    assert results["base"].mean((0, 1)) > results["base"].mean((2, 3)) + 0.1
    assert central.mean((2, 3)) > public.mean((2, 3)) + 0.1, "crops that the shipped head does not know"
    assert public.mean() > local.mean()
    assert results["majority"].mean() < 0.4


def test_the_true_head_scores_best_and_a_useless_one_like_chance() -> None:
    data, shipped = fleet()
    assert score_heads(data, shipped).mean((0, 1)) > 0.75
    assert score_heads(data, np.zeros_like(shipped)).mean() < 0.4


def test_the_adjustment_for_imbalance_helps_a_rare_class_and_is_chosen_without_the_test() -> None:
    rng = np.random.default_rng(5)
    labels = (rng.random((40, 60)) < 0.08).astype(np.uint8) * 2
    z = np.zeros((40, 60, 32), np.int8)
    z[..., 0] = np.clip(np.rint(32 * (rng.normal(size=labels.shape) + 1.2 * (labels == 2))), -128, 127)
    data = Dataset(
        np.zeros(40, np.uint8), z[:, :40], labels[:, :40], z[:, 40:], labels[:, 40:], labels[:, 40:]
    )
    head = np.zeros((4, 3, 33), np.float32)
    head[0, 2, 0], head[0, 2, 32] = (
        1.2,
        np.log(0.08) - 0.72,
    )  # the likelihood ratio: honest, and never says high
    head[0, 1, 32] = -9.0
    adjusted = score_heads(data, head).mean()
    x = np.concatenate([data.z_test / 32.0, np.ones((40, 20, 1))], axis=2)
    plain = macro_f1((x @ head[0].T).argmax(axis=2).astype(np.uint8), data.labels_test)
    assert adjusted > plain + 0.05


def test_no_choice_looks_at_the_test_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions scored by `compare` stay the same when every test label is replaced; persistence is told
    them.
    """
    data, shipped = fleet(nodes=40, days=18, test_days=6)
    seen: list[NDArray[np.uint8]] = []

    def recording(predicted: NDArray[np.uint8], labels: NDArray[np.uint8]) -> float:
        if labels.shape[1:] == (6,):
            seen.append(predicted.copy())
        return macro_f1(predicted, labels)

    monkeypatch.setattr(baselines, "macro_f1", recording)
    compare(data, shipped)
    first = seen[:]
    seen.clear()
    compare(replace(data, labels_test=(2 - data.labels_test).astype(np.uint8)), shipped)
    persistence = range(4, 8)  # the second method, four crops
    differing = [i for i, (a, b) in enumerate(zip(first, seen, strict=True)) if not np.array_equal(a, b)]
    assert len(first) == 4 * len(NAMES)
    assert set(differing) <= set(persistence)


def test_few_told_labels_and_absent_classes_raise_no_warning() -> None:
    data, shipped = fleet(nodes=24, days=12, test_days=4)
    labels = data.labels_train.copy()
    labels[:, 3:] = 255
    labels[:3] = 255
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = compare(
            replace(data, labels_train=np.minimum(labels, np.where(labels == 2, 0, labels))), shipped
        )
    assert all(np.isfinite(scores.mean()) for scores in result.values())


def test_arrays_that_do_not_fit_are_refused() -> None:
    data, _ = fleet(nodes=8, days=6, test_days=3)
    with pytest.raises(ValueError, match="do not fit 8 nodes"):
        replace(data, labels_train=data.labels_train[:, :-1])
    with pytest.raises(ValueError, match="one per test label"):
        replace(data, rule_test=data.rule_test[:, :-1])


def test_the_cost_stays_below_twenty_milliseconds_a_node() -> None:
    """A fleet of 1000 nodes and 30 days then takes less than 20 s of processor time."""
    data, shipped = fleet(nodes=240)
    begin = time.process_time()
    compare(data, shipped)
    assert time.process_time() - begin < 0.020 * 240 * 2  # idle BLAS threads on a busy machine count as work
