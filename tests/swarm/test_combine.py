"""Answers become one: weights, coverage, partial answers, and silence that is said aloud."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.inference.combine import (
    FLAG_HUMIDITY_MISSING,
    FLAG_RAIN_MISSING,
    Answered,
    combine,
    is_complete,
    local_answer,
)
from swarm.inference.plan import Plan, Query, Target
from swarm.wire import app

QUERY = Query("place", query_id=9, plot="17")
DEADLINE_US = 60_000_000


def plan_of(*weights: float, quorum: int | None = None) -> Plan:
    targets = tuple(Target(str(i), i, weight, None, 5, 0, 100_000) for i, weight in enumerate(weights))
    return Plan(
        QUERY, targets, len(targets) if quorum is None else quorum, DEADLINE_US, 100_000 * len(targets)
    )


def answer(
    node: int,
    probabilities: tuple[int, int, int],
    *,
    version: int = 3,
    age: int = 0,
    flags: int = 1,
    at_us: int = 1,
) -> Answered:
    message = app.Answer(9, 0, probabilities, version, age, flags)
    return Answered(str(node), message, at_us, 100_000)


def test_agreeing_nodes() -> None:
    made = combine(plan_of(1, 1, 1), [answer(i, (15, 40, 200), version=3 + i) for i in range(3)])
    assert (made.value, made.label) == (2, "high")
    assert made.probabilities == pytest.approx((15 / 255, 40 / 255, 200 / 255))
    assert made.confidence == pytest.approx(200 / 255) and made.coverage == 1.0
    assert made.nodes == ("0", "1", "2") and made.versions == (3, 4, 5)
    assert made.airtime_us == 300_000 and made.asked == 3 and made.query_id == 9


def test_near_nodes_outweigh_far_ones() -> None:
    near, far = answer(0, (200, 40, 15)), answer(1, (15, 40, 200))
    assert combine(plan_of(1.0, 0.3), [near, far]).value == 0
    assert combine(plan_of(0.3, 1.0), [near, far]).value == 2


def test_certain_nodes_outweigh_doubtful_ones() -> None:
    sure, unsure = answer(0, (0, 5, 250)), answer(1, (95, 85, 75))
    made = combine(plan_of(1, 1), [sure, unsure])
    assert made.value == 2 and made.confidence > 0.85


def test_two_doubtful_neighbours_cannot_be_silenced_by_nothing() -> None:
    """A linear pool: one wrong and sure node moves the answer, but the majority stays visible."""
    answers = [answer(0, (255, 0, 0)), *(answer(i, (20, 35, 200)) for i in range(1, 5))]
    made = combine(plan_of(1, 1, 1, 1, 1), answers)
    assert made.value == 2 and made.probabilities is not None and made.probabilities[0] > 0.2


@pytest.mark.parametrize(
    "worse",
    [{"flags": 1 | FLAG_HUMIDITY_MISSING}, {"flags": 1 | FLAG_RAIN_MISSING}, {"age": 36}, {"age": 200}],
)
def test_poor_readings_count_less(worse: dict[str, int]) -> None:
    clean = combine(plan_of(1, 1), [answer(0, (200, 40, 15)), answer(1, (15, 40, 200))])
    made = combine(plan_of(1, 1), [answer(0, (200, 40, 15)), answer(1, (15, 40, 200), **worse)])
    assert clean.probabilities is not None and made.probabilities is not None
    assert made.probabilities[0] > clean.probabilities[0]


def test_unknown_age_is_not_held_against_a_node() -> None:
    one = combine(plan_of(1, 1), [answer(0, (200, 40, 15)), answer(1, (15, 40, 200), age=255)])
    other = combine(plan_of(1, 1), [answer(0, (200, 40, 15)), answer(1, (15, 40, 200), age=0)])
    assert (one.probabilities, one.coverage) == (other.probabilities, other.coverage)
    assert [source.age_min for source in one.sources] == [0, None]


def test_garbage_far_from_all_others_loses_its_certainty() -> None:
    honest = [answer(i, (30, 195, 30)) for i in range(1, 5)]
    made = combine(plan_of(1, 1, 1, 1, 1), [answer(0, (255, 0, 0)), *honest])
    assert made.discounted == ("0",) and made.value == 1
    assert next(source.weight for source in made.sources if source.dev_eui == "0") == pytest.approx(0.2)
    # Two against two is no majority: nobody is discounted.
    two = combine(plan_of(1, 1, 1, 1), [*honest[:2], answer(0, (255, 0, 0)), answer(3, (250, 5, 0))])
    assert two.discounted == ()


def test_an_answer_names_its_sources() -> None:
    made = combine(plan_of(1.0, 1.0, 1.0), [answer(1, (15, 40, 200), version=7, age=3)])
    (source,) = made.sources
    assert (source.dev_eui, source.expert, source.version, source.age_min) == ("1", "head-0", 7, 30)
    assert made.experts == ("head-0",) and source.weight == 1.0 and made.airtime_us == source.airtime_us


def test_partial_answers_are_answers() -> None:
    made = combine(plan_of(1.0, 0.5, 0.5), [answer(1, (200, 40, 15))])
    assert made.value == 0 and made.coverage == pytest.approx(0.25) and made.nodes == ("1",)
    assert made.airtime_us == 100_000 and made.asked == 3


@pytest.mark.parametrize("plan", [plan_of(1, 1), plan_of()])
def test_no_answer_is_said(plan: Plan) -> None:
    made = combine(plan, [])
    assert (made.value, made.label, made.probabilities) == (None, "no answer", None)
    assert (made.confidence, made.coverage, made.nodes) == (0.0, 0.0, ())
    assert json.loads(made.to_json())["value"] is None


def test_strangers_repetitions_and_other_questions_do_not_count() -> None:
    plan = plan_of(1, 1)
    first = answer(0, (200, 40, 15), at_us=5)
    other = replace(answer(1, (0, 0, 255)), message=app.Answer(8, 0, (0, 0, 255), 3, 0, 1))
    noise = [answer(0, (0, 0, 255), at_us=6), answer(7, (0, 0, 255)), other]
    assert combine(plan, [*noise, first]) == combine(plan, [first])


def test_complete_at_quorum_or_deadline() -> None:
    plan = plan_of(1, 1, 1, quorum=2)
    one, two = answer(0, (255, 0, 0)), answer(1, (255, 0, 0))
    assert not is_complete(plan, [one], 1)
    assert not is_complete(plan, [one, answer(0, (0, 0, 255)), answer(9, (0, 0, 255))], 1)
    assert is_complete(plan, [one, two], 1)
    assert is_complete(plan, [], DEADLINE_US) and not is_complete(plan, [], DEADLINE_US - 1)


def test_local_answer_costs_nothing() -> None:
    made = local_answer(plan_of(), (10, 45, 200), 12)
    assert (made.value, made.coverage, made.airtime_us, made.nodes, made.versions) == (2, 1.0, 0, (), (12,))


@settings(max_examples=100, deadline=None)
@given(
    shares=st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), min_size=1, max_size=6),
    order=st.randoms(use_true_random=False),
)
def test_the_pool_is_a_distribution_whatever_the_order(shares: list[tuple[int, int]], order: object) -> None:
    answers = []
    for i, (a, b) in enumerate(shares):
        low, high = min(a, b), max(a, b)
        answers.append(answer(i, (low, high - low, 255 - high), at_us=i))
    shuffled = list(answers)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    plan = plan_of(*[1.0 / (1 + i) for i in range(len(answers))])
    made = combine(plan, answers)
    assert made == combine(plan, shuffled)
    assert made.probabilities is not None and sum(made.probabilities) == pytest.approx(1.0)
    assert made.confidence == max(made.probabilities) and made.coverage == pytest.approx(1.0)
