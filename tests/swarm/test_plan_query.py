"""Whom to ask: near, prompt, cheap nodes first, and answers that do not meet on the air."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from swarm.effects import Malformed
from swarm.inference.plan import Candidate, Plan, Query, distance_m, plan
from swarm.phy.regions import region
from swarm.wire import app

EU868 = region("EU868")
HOUR_US = 3600 * 1_000_000
NOW_US = 100 * HOUR_US
DEADLINE_US = NOW_US + 60_000_000
HERE = (47.0, 8.0)


def node(index: int, **changes: object) -> Candidate:
    """A fresh SF7 node on external power at the point asked about."""
    base = Candidate(
        dev_eui=f"{index:016x}", node_index=index, context=0, data_rate=5, last_seen_us=NOW_US, battery=0,
        lat=HERE[0], lon=HERE[1],
    )  # fmt: skip
    return replace(base, **changes)  # type: ignore[arg-type]


def ask(query: Query, nodes: list[Candidate], k: int = 3, **changes: object) -> Plan:
    arguments = {"region": EU868, "now_us": NOW_US, "k": k, "deadline_us": DEADLINE_US, **changes}
    return plan(query, nodes, **arguments)  # type: ignore[arg-type]


def chosen(made: Plan) -> list[int]:
    return [target.node_index for target in made.targets]


PLACE = Query("place", query_id=77, lat=HERE[0], lon=HERE[1])


def test_distance() -> None:
    assert distance_m(47.0, 8.0, 47.01, 8.0) == pytest.approx(1112.0, abs=1)
    assert distance_m(60.0, 8.0, 60.0, 8.01) == pytest.approx(556.0, abs=1)
    assert distance_m(1.0, 2.0, 1.0, 2.0) == 0.0


def test_nearest_nodes_are_asked_and_weigh_by_distance() -> None:
    nodes = [node(i, lat=HERE[0] + i * 0.003) for i in range(6)]
    made = ask(PLACE, nodes[::-1])
    assert chosen(made) == [0, 1, 2]
    assert made.targets[1].distance_m == pytest.approx(333.6, abs=1)
    weights = [target.weight for target in made.targets]
    assert weights[0] == pytest.approx(1.0) and weights == sorted(weights, reverse=True)


def test_a_plot_is_asked_by_name() -> None:
    """Nodes of the plot first; then those near the middle of it, wherever the asker is."""
    inside = [node(i, plot="17", lat=46.0, lon=8.0 + i * 1e-4) for i in range(2)]
    near, far = node(5, plot="18", lat=46.001), node(6, plot="18", lat=46.1)
    unplaced = node(7, lat=None, lon=None)
    made = ask(Query("place", plot="17"), [far, unplaced, near, *inside], k=4)
    assert chosen(made) == [0, 1, 5, 7]
    assert made.targets[3].distance_m is None


def test_nodes_that_are_due_soon_come_first_and_silent_ones_not_at_all() -> None:
    """A class A node that was just heard sleeps for a whole report period; one that is due soon hears us."""
    period = {"report_period_us": 24 * HOUR_US}
    deadline_us = NOW_US + 8 * HOUR_US
    soon = node(1, reported_us=NOW_US - 23 * HOUR_US, **period)
    overdue = node(2, reported_us=NOW_US - 30 * HOUR_US, **period)
    late = node(3, reported_us=NOW_US - HOUR_US, **period)
    dead, never = node(4, last_seen_us=NOW_US - 49 * HOUR_US, **period), node(5, last_seen_us=None)
    made = ask(PLACE, [never, late, dead, overdue, soon], k=5, deadline_us=deadline_us)
    assert chosen(made) == [1, 2, 3]


def test_promptness_is_traded_for_nearness_and_says_nothing_about_the_answer() -> None:
    """Due in half of the time left: e^-1 = .37.  At 300 m: e^-.6 = .55; at 700 m: e^-1.4 = .25.  Whenever a
    node is due, its answer counts for its nearness, since its readings are of the hour in which it speaks.
    """
    deadline_us = NOW_US + 8 * HOUR_US
    here = node(1, reported_us=NOW_US - 20 * HOUR_US, report_period_us=24 * HOUR_US)
    due_now = {"reported_us": NOW_US - 24 * HOUR_US, "report_period_us": 24 * HOUR_US}
    metre = 1 / 111_195  # degrees of latitude
    near, far = (node(i, lat=HERE[0] + d * metre, **due_now) for i, d in ((2, 300), (3, 700)))
    made = ask(PLACE, [far, here, near], deadline_us=deadline_us)
    assert chosen(made) == [2, 1, 3]
    assert [target.weight for target in made.targets] == pytest.approx([0.549, 1.0, 0.247], abs=0.002)


def test_a_node_of_unknown_period_counts_as_overdue() -> None:
    """.2 each: the lower index first; a node due beyond twice the time left (e^-2 = .14) comes after both."""
    deadline_us = NOW_US + 8 * HOUR_US
    unknown, overdue = node(2), node(1, reported_us=NOW_US - 2 * HOUR_US, report_period_us=HOUR_US)
    late = node(0, reported_us=NOW_US - 16 * HOUR_US, report_period_us=24 * HOUR_US)
    assert chosen(ask(PLACE, [late, unknown, overdue], deadline_us=deadline_us)) == [1, 2, 0]


def test_battery_and_airtime_decide_between_equals() -> None:
    empty, slow = node(1, battery=20), node(2, data_rate=0)
    assert chosen(ask(PLACE, [empty, slow, node(3)], k=1)) == [3]
    assert chosen(ask(PLACE, [empty, node(4, battery=254)], k=1)) == [4]
    assert chosen(ask(PLACE, [node(5), node(6)], k=1)) == [5]


def test_a_near_slow_node_beats_a_far_fast_one() -> None:
    assert chosen(ask(PLACE, [node(1, data_rate=0), node(2, lat=HERE[0] + 0.03)], k=1)) == [1]


def test_context_narrows() -> None:
    nodes = [node(i, context=i % 3) for i in range(9)]
    assert chosen(ask(replace(PLACE, context=2), nodes, k=9)) == [2, 5, 8]
    assert ask(replace(PLACE, context=7), nodes).reason == "no_node"


def test_one_node_is_asked_however_long_it_was_silent() -> None:
    query = Query("node", dev_eui=f"{3:016x}")
    silent = node(3, last_seen_us=None)
    made = ask(query, [node(1), silent])
    assert chosen(made) == [3] and made.quorum == 1 and made.targets[0].reply_in_s == 0
    assert ask(query, [node(1)]).reason == "no_node"


def test_features_are_judged_here_unless_the_expert_is_elsewhere() -> None:
    query = Query("features", query_id=5, features=tuple(range(-28, 28)), context=1)
    nodes = [node(i, context=i % 2) for i in range(6)]
    made = ask(query, nodes)
    assert made.local and made.targets == () and made.airtime_us == 0
    remote = ask(query, nodes, replica=False)
    assert chosen(remote) == [1, 3, 5] and not remote.local
    assert remote.airtime_us > ask(PLACE, nodes).airtime_us


def test_price_is_question_down_and_answer_up() -> None:
    (target,) = ask(PLACE, [node(1, data_rate=0)], k=1).targets
    up = EU868.airtime_us(0, 11 + 13, uplink=True)
    down = EU868.airtime_us(0, 6 + 13, uplink=False)
    assert target.airtime_us == up + down
    fast = ask(PLACE, [node(1)], k=1)
    assert fast.airtime_us == fast.targets[0].airtime_us < target.airtime_us / 15


def test_answer_slots_are_long_enough_and_within_the_deadline() -> None:
    """Goal: nodes of one data rate spread; at SF12 the slot is half of the time left, not more."""
    fast = ask(PLACE, [node(i) for i in range(5)], k=5)
    slow = ask(PLACE, [node(i, data_rate=0) for i in range(5)], k=5)
    assert {target.reply_in_s for target in fast.targets} == {2}
    assert {target.reply_in_s for target in slow.targets} == {30}
    late = ask(PLACE, [node(i) for i in range(5)], k=5, deadline_us=NOW_US)
    assert {target.reply_in_s for target in late.targets} == {0}
    mixed = ask(PLACE, [node(0), node(1, data_rate=0)], k=2)
    assert [target.reply_in_s for target in mixed.targets] == [0, 0]


def test_k_of_the_question_wins_and_quorum_leaves_room_for_loss() -> None:
    nodes = [node(i) for i in range(20)]
    made = ask(replace(PLACE, k=10), nodes)
    assert len(made.targets) == 10 and made.quorum == 8
    assert len(ask(PLACE, nodes[:2], k=5).targets) == 2


def test_nobody_there_says_why() -> None:
    assert ask(PLACE, []).reason == "no_node"
    made = ask(PLACE, [node(1, last_seen_us=None)])
    assert (made.targets, made.quorum, made.airtime_us, made.reason) == ((), 0, 0, "no_fresh_node")


def test_frames_are_valid_queries() -> None:
    made = ask(PLACE, [node(i) for i in range(3)])
    message = app.decode_downlink(11, made.frame(made.targets[0]))
    assert message == app.Query(77, app.QUERY_OWN_READINGS, 255, made.targets[0].reply_in_s)
    query = Query("features", query_id=8, features=(3,) * 56, context=2)
    remote = ask(query, [node(1, context=2)], replica=False)
    message = app.decode_downlink(11, remote.frame(remote.targets[0]))
    assert message == app.Query(8, app.QUERY_FEATURES_FOLLOW, 2, 0, (3,) * 56)


@pytest.mark.parametrize(
    ("query", "word"),
    [
        (Query("weather"), "kind"),  # type: ignore[arg-type]
        (Query("node"), "dev_eui"),
        (Query("place", lat=1.0), "lat and lon"),
        (Query("features", features=(1,) * 56), "context"),
        (Query("features", features=(1,) * 257, context=0), "256"),
        (Query("features", features=(200,) * 56, context=0), "-128"),
        (Query("place", plot="1", context=8), "0..7"),
        (Query("place", plot="1", k=0), "k must"),
        (Query("place", plot="1", deadline_s=0), "deadline_s"),
    ],
)
def test_faults_are_sentences(query: Query, word: str) -> None:
    assert word in str(query.fault())


def test_questions_survive_json() -> None:
    for query in (
        PLACE,
        Query("features", features=(0,) * 56, context=1, k=4),
        Query("node", dev_eui="a" * 16),
    ):
        assert query.fault() is None
        assert Query.from_json(query.to_json()) == query
    for text in (
        "",
        "[]",
        "null",
        json.dumps({"kind": "node"}),
        json.dumps({"kind": "place", "plot": 1, "x": 2}),
    ):
        assert isinstance(Query.from_json(text), Malformed)
