"""Stated probabilities are taken down to what nodes' answers turned out to be worth, and never up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.inference.calibration import NODES_MIN, belief_of, believed
from swarm.inference.combine import combine, local_answer
from swarm.wire.messages import RIGHT_SHIFT, right_share
from tests.swarm.test_combine import answer, plan_of


def said(right: float, sure: float, nodes: int = NODES_MIN) -> list[tuple[int | None, int | None]]:
    """STATUS bytes of nodes that are right and sure to these shares."""
    return [((1 + round(14 * right)) << RIGHT_SHIFT, 2 << 6 | round(sure * 255 / 4))] * nodes


def test_belief_makes_the_stated_mean_the_true_one() -> None:
    belief = belief_of(said(0.5, 0.9), 3)
    assert belief is not None
    assert believed((0.9, 0.06, 0.04), belief)[0] == pytest.approx(0.5, abs=0.01)


def test_nodes_that_are_right_more_often_than_sure_are_believed_as_they_are() -> None:
    assert belief_of(said(1.0, 0.7), 3) == 1.0
    assert belief_of(said(0.2, 0.7), 3) == 0.0, "worse than even odds: nothing is believed"


def test_too_few_nodes_say_nothing() -> None:
    unknown: list[tuple[int | None, int | None]] = [(None, 200), (7, 200), (16, None)]
    assert belief_of([*said(0.5, 0.9, NODES_MIN - 1), *unknown], 3) is None
    assert belief_of([*said(0.5, 0.9), *unknown], 3) == belief_of(said(0.5, 0.9), 3)


def test_a_few_that_lie_decide_for_nobody() -> None:
    silent: list[tuple[int | None, int | None]] = [(None, 200)] * 995
    assert belief_of([*silent, *said(0.0, 1.0)], 3) is None
    honest, liars = said(0.8, 0.8, 50), said(0.0, 1.0, 16)
    belief = belief_of([*honest, *liars], 3)
    assert belief is not None and belief > 0.75


def test_a_serves_byte_says_the_share_that_was_right() -> None:
    assert [right_share(value << RIGHT_SHIFT | 5) for value in (0, 1, 8, 15)] == [None, 0.0, 0.5, 1.0]


@given(st.lists(st.floats(0.001, 1.0), min_size=2, max_size=10), st.floats(0.0, 1.0))
def test_belief_keeps_the_order_and_the_sum(weights: list[float], belief: float) -> None:
    shares = np.array(weights) / sum(weights)
    made = np.array(believed(shares.tolist(), belief))
    assert made.sum() == pytest.approx(1.0) and made.min() >= 0.0
    assert (np.diff(made[np.argsort(shares, kind="stable")]) >= -1e-12).all()


def test_an_answer_says_how_far_it_was_believed() -> None:
    answers = [answer(0, (15, 40, 200)), answer(1, (5, 10, 240))]
    plain, made = combine(plan_of(1, 1), answers), combine(plan_of(1, 1), answers, {0: 0.5})
    assert (plain.belief, made.belief) == (None, 0.5)
    assert (plain.value, made.value) == (2, 2)
    assert made.confidence == pytest.approx(1 / 3 + 0.5 * (plain.confidence - 1 / 3))
    assert [source.probabilities for source in made.sources] == [
        source.probabilities for source in plain.sources
    ]
    assert combine(plan_of(1, 1), answers, {0: None}) == plain


def test_the_replica_is_believed_no_more_than_the_nodes() -> None:
    made = local_answer(plan_of(), (10, 45, 200), 12, 0.0)
    assert made.probabilities == pytest.approx((1 / 3,) * 3) and made.belief == 0.0
