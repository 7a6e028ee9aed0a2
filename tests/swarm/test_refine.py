"""Class means to a regression: better where classes are no equal bells, and nothing new without means."""

from __future__ import annotations

import numpy as np

from swarm.federation.discriminant import solve_heads
from swarm.federation.prototypes import Options, Prior, Statistics, flatten
from swarm.federation.refine import refined
from swarm.model.layout import CONTEXT_MAX, HEAD_ROW, WEATHER, Z_ONE, Z
from tests.swarm.test_prototypes import message_of

CLASSES = WEATHER.classes
NOTHING = np.zeros((1, WEATHER.head_size))


def options(refine: float, **more: float) -> Options:
    chosen = {"ridge": 0.03, "mean_shrink": 0.0, "identity_shrink": 2.0, "balance": 0.0, **more}
    return Options(refine=refine, **chosen)


PLAIN, REFINED, HELD = options(0.0), options(30.0), options(1e6)


def thresholds(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Saturating z with a label by thresholds on their sum: a step, a narrow middle class, a long tail."""
    draw = np.random.default_rng(seed)
    raw = draw.normal(size=(count, Z)) + 0.6 * draw.normal(size=(count, 1))
    z = np.clip(np.exp(0.8 * raw) - 1.0, -1.0, 2.0)
    score = z[:, :6].sum(axis=1) + 0.5 * draw.normal(size=count)
    return z, (score > 1.0).astype(int) + (score > 3.0)


def fleet(seed: int, nodes: int = 120, labels: int = 24, dims: int = Z) -> Statistics:
    statistics = Statistics(WEATHER)
    z, label = thresholds(seed, nodes * labels)
    for node in range(nodes):
        own = slice(node * labels, (node + 1) * labels)
        steps = np.clip(np.rint(z[own] * Z_ONE), -128, 127).astype(int)
        statistics.add(node, flatten(message_of(0, steps, label[own], dims), WEATHER))
    return statistics


def accuracy(head: np.ndarray, seed: int) -> float:
    z, label = thresholds(seed, 20_000)
    rows = head.reshape(CLASSES, HEAD_ROW)
    return float(np.mean((z @ rows[:, :Z].T + rows[:, Z]).argmax(axis=1) == label))


def test_it_is_better_where_labels_follow_thresholds() -> None:
    """Goal: ahead of the discriminant on each of three fleets.  Method: 120 nodes, one frame each."""
    for seed in (1, 2, 3):
        statistics = fleet(seed)
        plain, new = (solve_heads(statistics, NOTHING, chosen)[0] for chosen in (PLAIN, REFINED))
        assert accuracy(new, 100 + seed) > accuracy(plain, 100 + seed) + 0.005


def test_the_same_rows_give_the_same_bits() -> None:
    statistics = fleet(4)
    one, same = (solve_heads(statistics, NOTHING, REFINED) for _ in range(2))
    assert one.tobytes() == same.tobytes()
    twice = refined(statistics.context(0), solve_heads(statistics, NOTHING, PLAIN)[0], REFINED)
    assert np.array_equal(one[0], twice)


def test_held_hard_it_is_the_discriminant() -> None:
    statistics = fleet(5)
    plain, held = (solve_heads(statistics, NOTHING, chosen) for chosen in (PLAIN, HELD))
    assert np.abs(held - plain).max() < 0.02


def test_nodes_that_flip_labels_cost_no_more_than_without_it() -> None:
    """Goal: a tenth of liars cost less than .02.  Method: they call the highest class the lowest."""
    truth, lied = fleet(12), Statistics(WEATHER)
    arrays = truth.arrays()
    rows = arrays["rows"].copy()
    rows[::10] = rows[::10, :, ::-1]
    lied.load({**arrays, "rows": rows})
    told = [accuracy(solve_heads(statistics, NOTHING, REFINED)[0], 13) for statistics in (truth, lied)]
    assert told[1] > told[0] - 0.02


def test_dimensions_that_nobody_reported_stay_and_no_reports_change_nothing() -> None:
    head = np.arange(WEATHER.head_size, dtype=np.float64)
    assert np.array_equal(refined(np.zeros((0, 2, CLASSES, Z)), head, REFINED), head)
    new = refined(fleet(6, dims=20).context(0), head, REFINED).reshape(CLASSES, HEAD_ROW)
    old = head.reshape(CLASSES, HEAD_ROW)
    unused = slice(20, Z)
    assert np.allclose(new[:, unused], (old - old.mean(axis=0))[:, unused])
    assert not np.allclose(new[:, :20], (old - old.mean(axis=0))[:, :20])


def test_mixed_data_rates_are_solved_together() -> None:
    """Nodes that report 20 dimensions do not spoil what others say about the rest."""
    fast, slow, mixed = fleet(7), fleet(7, dims=20), Statistics(WEATHER)
    arrays = fast.arrays()
    rows = arrays["rows"].copy()
    rows[60:] = slow.context(0)[60:]
    mixed.load({**arrays, "rows": rows})
    scores = [accuracy(solve_heads(s, NOTHING, REFINED)[0], 8) for s in (fast, mixed)]
    assert scores[1] > scores[0] - 0.02


def test_where_the_public_data_know_the_context_half_of_the_hold_is_the_shipped_head() -> None:
    statistics = fleet(9)
    shipped = np.random.default_rng(3).normal(size=(1, WEATHER.head_size))
    prior = Prior(np.zeros((CONTEXT_MAX, CLASSES, Z)), np.full((CONTEXT_MAX, CLASSES), 5.0))
    hard = options(1e6, prior_weight=1e-3)
    unknown = solve_heads(statistics, shipped, hard)[0]
    known = solve_heads(statistics, shipped, hard, prior)[0]
    rows = shipped[0].reshape(CLASSES, HEAD_ROW)
    assert np.abs(known - 0.5 * (unknown + (rows - rows.mean(axis=0)).ravel())).max() < 0.1


def test_negative_balance_favours_frequent_classes() -> None:
    """The prior is taken off before the fit and put back after it: twice the log of the frequencies."""
    statistics = fleet(10)
    z, _ = thresholds(11, 5_000)
    shares = []
    for balance in (0.0, -1.0):
        head = solve_heads(statistics, NOTHING, options(30.0, balance=balance))[0]
        rows = head.reshape(CLASSES, HEAD_ROW)
        said = (z @ rows[:, :Z].T + rows[:, Z]).argmax(axis=1)
        shares.append(np.bincount(said, minlength=CLASSES) / len(said))
    assert shares[1].max() > shares[0].max() + 0.02
