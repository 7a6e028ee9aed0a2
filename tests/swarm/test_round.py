"""Rounds: what counts, what is refused and why, and that a killed daemon ends with the same bits."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.federation.changes import SIZE_CAP, Discounted, local_delta, reply_vectors
from swarm.federation.cohort import cohort_byte, expected_replies, in_cohort
from swarm.federation.modes import discount
from swarm.federation.round import REASONS, Accepted, Closed, Refused, Round, RoundState
from swarm.federation.strategy import FlowerStrategy
from swarm.model.layout import WEATHER
from swarm.model.vector import lsb
from swarm.wire import app
from swarm.wire.app import RoundAck, RoundMode, hash8

CONTEXTS = 4
SECOND_US = 1_000_000


def open_round(
    mode: RoundMode = RoundMode.TOP_K_SIGN,
    number: int = 5,
    cohort: int = 255,
    quorum: int = 100,
    version: int = 10,
) -> Round:
    return Round(
        number=number,
        mode=mode,
        model_version=version,
        cohort=cohort,
        opened_us=1000 * SECOND_US,
        close_us=2000 * SECOND_US,
        quorum=quorum,
        shape=WEATHER,
        contexts=CONTEXTS,
        staleness_max=4,
        previous_accepted=frozenset({7}),
    )


def signs(
    node: int = 0,
    number: int = 5,
    version: int = 10,
    context: int = 1,
    magnitude: int = 20,
    examples: int = 9,
) -> app.TopKSign:
    draw = np.random.default_rng([node, number])
    indices = tuple(int(i) for i in np.sort(draw.choice(WEATHER.local_size, 30, replace=False)))
    negative = tuple(bool(b) for b in draw.integers(0, 2, 30))
    rice_k = app.rice_k_for(indices)
    return app.TopKSign(number, version, context, examples, magnitude, rice_k, indices, negative)


def means(node: int = 0, number: int = 5, version: int = 10, context: int = 1) -> app.Prototypes:
    draw = np.random.default_rng([node, number, 1])
    classes = []
    for label in (0, 2):
        q = tuple(int(v) for v in draw.integers(-8, 8, 20))
        classes.append(app.ClassMean(label, int(draw.integers(1, 9)), int(draw.integers(20, 90)), q))
    return app.Prototypes(number, version, context, sum(c.count for c in classes), tuple(classes))


def refusal(result: Accepted | Refused) -> str:
    assert isinstance(result, Refused) and result.reason in REASONS
    return result.reason


def dev(node: int) -> str:
    return f"{node:016x}"


def digest(closed: Closed) -> str:
    assert closed.vector is not None, closed.failure
    return hashlib.sha256(closed.vector.tobytes()).hexdigest()


MASTER = np.random.default_rng(0).normal(size=WEATHER.vector_size(CONTEXTS)) * 0.1


def test_quorum_closes_before_the_deadline() -> None:
    made = open_round(quorum=3)
    for node in range(3):
        assert not made.due(1500 * SECOND_US)
        assert isinstance(made.on_update(dev(node), node, signs(node), 1500 * SECOND_US), Accepted)
    assert made.due(1500 * SECOND_US)
    closed = made.close(1500 * SECOND_US, FlowerStrategy("FedAvg", WEATHER), MASTER)
    assert closed.failure is None and closed.updates == 3 and closed.num_examples == 27
    assert made.state is RoundState.CLOSED and made.closed_us == 1500 * SECOND_US
    assert not made.due(3000 * SECOND_US)
    assert refusal(made.on_update(dev(9), 9, signs(9), 1501 * SECOND_US)) == "closed"


def test_deadline_closes_with_what_is_there() -> None:
    made = open_round()
    made.on_update(dev(1), 1, signs(1), 1600 * SECOND_US)
    assert not made.due(2000 * SECOND_US - 1) and made.due(2000 * SECOND_US)
    closed = made.close(2000 * SECOND_US, FlowerStrategy("FedAvg", WEATHER), MASTER)
    assert closed.updates == 1 and closed.vector is not None


def test_nobody_came_keeps_the_old_model() -> None:
    closed = open_round().close(2000 * SECOND_US, FlowerStrategy("FedAdam", WEATHER), MASTER)
    assert closed.vector is None and closed.failure == "no replies" and closed.updates == 0


@pytest.mark.parametrize(
    ("reason", "message", "node"),
    [
        ("wrong_mode", means(1), 1),
        ("stale", signs(1, number=3), 1),
        ("stale", signs(1, version=5), 1),
        ("wrong_round", signs(1, number=6), 1),
        ("stale", signs(1, version=11), 1),
        ("wrong_context", signs(1, context=2), 1),
        ("implausible", signs(1, magnitude=0), 1),
        ("implausible", signs(1, magnitude=40_000), 1),
        ("duplicate", signs(7, number=4), 7),
    ],
)
def test_refusals(reason: str, message: app.TopKSign | app.Prototypes, node: int) -> None:
    made = open_round()
    assert refusal(made.on_update(dev(node), node, message, 1100 * SECOND_US, context=1)) == reason
    assert made.refused == {reason: 1} and made.updates == 0


def test_context_beyond_the_model_is_implausible() -> None:
    assert refusal(open_round().on_update(dev(1), 1, signs(1, context=5), 1)) == "implausible"


def test_impossible_class_means_are_implausible() -> None:
    absurd = app.Prototypes(5, 10, 1, 3, (app.ClassMean(0, 3, 255, (7, 7)),))
    assert refusal(open_round(RoundMode.PROTOTYPES).on_update(dev(1), 1, absurd, 1)) == "implausible"


def test_cohort_is_checked_by_the_shared_hash() -> None:
    made = open_round(cohort=100)
    for node in range(50):
        result = made.on_update(dev(node), node, signs(node), 1100 * SECOND_US)
        if hash8(node, 5) <= 100:
            assert isinstance(result, Accepted)
        else:
            assert refusal(result) == "not_in_cohort"
    assert made.updates == expected_replies(range(50), 5, 100)


def test_cohort_byte() -> None:
    assert cohort_byte(1.0) == 255 and cohort_byte(0.5) == 127 and cohort_byte(0.001) == 0
    share = sum(in_cohort(node, 77, cohort_byte(0.25)) for node in range(20_000)) / 20_000
    assert share == pytest.approx(0.25, abs=0.02)
    for wrong in (0.0, 1.1, -0.1):
        with pytest.raises(ValueError, match="cohort"):
            cohort_byte(wrong)


def test_second_update_of_a_node_is_refused_but_acknowledged() -> None:
    made = open_round()
    made.on_update(dev(3), 3, signs(3), 1100 * SECOND_US)
    assert refusal(made.on_update(dev(3), 3, signs(3), 1200 * SECOND_US)) == "duplicate"
    made.close(2000 * SECOND_US, FlowerStrategy("FedAvg", WEATHER), MASTER)
    (frame,) = made.ack_frames(51)
    assert app.decode_downlink(10, frame) == RoundAck(5, 3, b"\x01")


def test_late_update_of_the_previous_round_counts_once() -> None:
    """Late is stale by at least one version; the node's own update of this round replaces it."""
    made = open_round()
    late = made.on_update(dev(3), 3, signs(3, number=4, version=10), 1100 * SECOND_US)
    assert isinstance(late, Accepted) and late.late and late.staleness == 1
    assert (made.updates, made.late) == (0, 1) and made.accepted == frozenset()
    assert refusal(made.on_update(dev(3), 3, signs(3, number=4), 1101 * SECOND_US)) == "duplicate"
    own = made.on_update(dev(3), 3, signs(3), 1200 * SECOND_US)
    assert isinstance(own, Accepted) and not own.late and own.key == late.key
    assert (made.updates, made.late) == (1, 0) and made.accepted == {3}
    assert refusal(made.on_update(dev(3), 3, signs(3, number=4), 1300 * SECOND_US)) == "duplicate"


def test_late_updates_do_not_fill_the_quorum() -> None:
    made = open_round(quorum=2)
    for node in (1, 2, 3):
        made.on_update(dev(node), node, signs(node, number=4, version=9), 1100 * SECOND_US)
    assert not made.due(1200 * SECOND_US)


def test_late_class_means_count_in_full() -> None:
    """Increments are additive: late or not, of whatever past version, the statistics are the same bits."""
    vectors = []
    for late in (False, True):
        made = open_round(RoundMode.PROTOTYPES)
        for node in range(24):
            was_late = late and node % 3 == 0
            message = means(node, context=node % 2)
            if was_late:
                fields = (4, 3, message.context, message.num_examples, message.classes)
                message = app.Prototypes(*fields)
            assert isinstance(
                made.on_update(dev(100 + node), 100 + node, message, 1100 * SECOND_US), Accepted
            )
        vectors.append(
            digest(
                made.close(2000 * SECOND_US, FlowerStrategy("prototypes", WEATHER, {"gain_min": 0.0}), MASTER)
            )
        )
    assert vectors[0] == vectors[1]


def test_round_numbers_wrap() -> None:
    made = open_round(number=0)
    assert isinstance(made.on_update(dev(1), 1, signs(1, number=65535), 1), Accepted)
    assert refusal(made.on_update(dev(2), 2, signs(2, number=65534), 1)) == "stale"
    assert refusal(made.on_update(dev(2), 2, signs(2, number=1), 1)) == "wrong_round"
    made.close(2, FlowerStrategy("FedAvg", WEATHER), MASTER)
    assert app.decode_downlink(10, made.ack_frames(51)[0]) == RoundAck(65535, 1, b"\x01")


def test_staleness_discounts_a_gradient() -> None:
    """Method: one node alone; its change counts 1, 1/2, 1/3 by the versions it is behind."""
    moved = []
    for version in (10, 9, 8):
        made = open_round()
        made.on_update(dev(1), 1, signs(1, version=version), 1100 * SECOND_US)
        closed = made.close(2000 * SECOND_US, FlowerStrategy("FedAvg", WEATHER), MASTER)
        assert closed.vector is not None
        moved.append(float(np.abs(closed.vector - MASTER).sum()))
    assert moved[1] == pytest.approx(moved[0] / 2) and moved[2] == pytest.approx(moved[0] / 3)
    assert [discount(staleness) for staleness in (0, 1, 4)] == [1.0, 0.5, 0.2]


def test_local_delta_has_the_units_of_the_parameters() -> None:
    message = app.TopKSign(5, 10, 1, 3, 8, 6, (0, 511, 512, 610), (False, True, False, True))
    delta = local_delta(message, 8.0, WEATHER)
    assert delta[[0, 511, 512, 610]].tolist() == [8 / 4096, -8 / 4096, 8 / 256, -8 / 256]
    assert np.count_nonzero(delta) == 4


def test_each_head_is_the_mean_over_its_own_nodes() -> None:
    """Goal: FedAvg over four contexts must not make heads learn four times slower.  Method: equal signs."""
    updates = [
        Discounted(app.TopKSign(5, 10, node % 4, 6, 10, 6, (0, 512), (False, False)), 1.0)
        for node in range(8)
    ]
    mean = np.mean(reply_vectors(MASTER, WEATHER, CONTEXTS, updates), axis=0) - MASTER
    assert mean[0] == pytest.approx(10 / 4096)
    assert [mean[WEATHER.head_slice(c)][0] for c in range(4)] == pytest.approx([10 / 256] * 4)


def test_a_loud_node_is_cut_to_the_median() -> None:
    quiet = [Discounted(app.TopKSign(5, 10, 0, 6, 10, 6, (0,), (False,)), 1.0) for _ in range(8)]
    loud = Discounted(app.TopKSign(5, 10, 0, 6, 30_000, 6, (1,), (False,)), 1.0)
    step = (np.mean(reply_vectors(MASTER, WEATHER, CONTEXTS, [*quiet, loud]), axis=0) - MASTER) / lsb(
        len(MASTER)
    )
    assert step[0] == pytest.approx(8 * 10 / 9)
    assert step[1] == pytest.approx(SIZE_CAP * 10 / 9)


def test_acknowledgements_name_exactly_those_that_count() -> None:
    made = open_round()
    nodes = [0, 1, 9, 300, 301, 60_000, 65_534]
    for node in nodes:
        made.on_update(dev(node), node, signs(node), 1100 * SECOND_US)
    made.on_update(dev(5), 5, signs(5, number=4, version=9), 1100 * SECOND_US)
    for payload_max in (11, 51, 222):
        named: dict[int, list[int]] = {4: [], 5: []}
        for frame in made.ack_frames(payload_max):
            assert len(frame) <= payload_max
            ack = app.decode_downlink(10, frame)
            assert isinstance(ack, RoundAck)
            named[ack.round] += [
                ack.first_index + i for i in range(8 * len(ack.bitmap)) if ack.bitmap[i // 8] >> i % 8 & 1
            ]
        assert named == {4: [5], 5: nodes}


def test_row_holds_the_columns_of_the_table() -> None:
    made = open_round()
    made.on_update(dev(1), 1, signs(1, number=1), 1)
    row = made.to_row()
    wanted = "round mode model_version opened_us close_us closed_us state cohort updates metrics"
    assert list(row) == wanted.split()
    assert row["state"] == "open" and json.loads(str(row["metrics"]))["refused"] == {"stale": 1}
    made.close(2000 * SECOND_US, FlowerStrategy("FedAvg", WEATHER), MASTER)
    closed = Round.from_row(made.to_row(), [], WEATHER)
    assert closed.state is RoundState.CLOSED and closed.result["failure"] == "no replies"
    assert refusal(closed.on_update(dev(1), 1, signs(1), 1)) == "closed"


def test_prototype_round_reports_what_each_context_gains() -> None:
    made = open_round(RoundMode.PROTOTYPES)
    for node in range(30):
        made.on_update(dev(node + 100), node + 100, means(node, context=0), 1100 * SECOND_US)
    strategy = FlowerStrategy("prototypes", WEATHER)
    made.close(2000 * SECOND_US, strategy, MASTER)
    following = open_round(RoundMode.PROTOTYPES, number=6)
    for node in range(30):
        message = means(node, number=6, context=0)
        following.on_update(dev(node + 100), node + 100, message, 1100 * SECOND_US)
    first, second = following.close(2000 * SECOND_US, strategy, MASTER).metrics()["contexts"][:2]
    assert (
        (first["nodes"], first["judged"]) == (30, 1)
        and 0.0 <= first["base"] <= 1.0
        and 0.0 <= first["new"] <= 1.0
    )
    silent = {"nodes": 0, "judged": 0, "base": None, "new": None, "share": 0.0, "contradicting": []}
    assert second == {"context": 1, **silent}
    json.dumps(made.to_row()["metrics"])


@settings(max_examples=40, deadline=None)
@given(
    mode=st.sampled_from([RoundMode.PROTOTYPES, RoundMode.TOP_K_SIGN]),
    arrivals=st.lists(
        st.tuples(st.integers(0, 12), st.integers(3, 6), st.integers(8, 11)), min_size=1, max_size=30
    ),
    stops=st.sets(st.integers(0, 30)),
    order=st.randoms(use_true_random=False),
)
def test_a_restart_at_any_point_ends_with_the_same_bits(
    mode: RoundMode, arrivals: list[tuple[int, int, int]], stops: set[int], order: object
) -> None:
    """Method: the same arrivals into one round without and one with restarts from stored rows (any order)."""
    make = means if mode is RoundMode.PROTOTYPES else signs
    name = "prototypes" if mode is RoundMode.PROTOTYPES else "FedAdam"
    messages = [(node, make(node, number, version, node % CONTEXTS)) for node, number, version in arrivals]
    steady, killed = open_round(mode), open_round(mode)
    before = {
        "round": 4,
        "dev_eui": dev(7),
        "node_index": 7,
        "payload": app.encode(make(7, 4)),
        "received_us": 1,
    }
    rows = {f"4/{dev(7)}": before}
    stored = killed.to_row()
    for step, (node, message) in enumerate(messages):
        now_us = (1100 + step) * SECOND_US
        one = steady.on_update(dev(node), node, message, now_us)
        if step in stops:
            shuffled = list(rows.values())
            order.shuffle(shuffled)  # type: ignore[attr-defined]
            killed = Round.from_row(stored, shuffled, WEATHER)
        two = killed.on_update(dev(node), node, message, now_us)
        assert one == two
        if isinstance(two, Accepted):
            rows[two.key] = two.row
    killed = Round.from_row(stored, rows.values(), WEATHER)
    assert (killed.updates, killed.late, killed.accepted) == (steady.updates, steady.late, steady.accepted)
    assert killed.ack_frames(51) == steady.ack_frames(51)
    one, two = (r.close(2000 * SECOND_US, FlowerStrategy(name, WEATHER), MASTER) for r in (steady, killed))
    assert (one.vector is None) == (two.vector is None) and one.metrics() == two.metrics()
    if one.vector is not None:
        assert digest(one) == digest(two)
