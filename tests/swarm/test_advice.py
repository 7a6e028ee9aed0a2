"""Advice: costs by hand and against the radio's own arithmetic, and what is recommended when."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.advice import Evidence, Fleet, FleetNode, Judged, ModeCost, advise, costs_of
from swarm.advice.benchmarks import AFTER_FOUR_ROUNDS, signs_added
from swarm.advice.evidence import LABELS_TO_COMPARE
from swarm.advice.fleet import slowest_data_rate
from swarm.config import Learning
from swarm.federation.modes import MODE_NAMES, MODES
from swarm.model.layout import Shape
from swarm.phy.airtime import airtime_us
from swarm.phy.regions import REGION_NAMES, region
from swarm.pilot.energy import EnergyModel
from swarm.wire.app import RoundMode

EU868 = region("eu868")
SERVE_H = Path(__file__).parents[2] / "node_firmware" / "core" / "swn_serve.h"
LABELLED = Evidence(reported=40, labelled=(10,) * 40, new=20)
EVERY = tuple(MODES)


def fleet(*rates: int, count: int = 1, **learning: Any) -> Fleet:
    """`count` nodes at each data rate, crops in turn."""
    nodes = tuple(FleetNode(i, rate, i % 4) for i, rate in enumerate(rates * count))
    return Fleet(EU868, nodes, 0, 869_525_000, learning=Learning(**learning))


def judged(new: float, share: float, rounds: int = 2, mode: str = "prototypes") -> Judged:
    return Judged(mode, 2, 10, rounds, 0.5, new, share)


def cost_of(mode: RoundMode, made: Fleet) -> ModeCost:
    return next(cost for cost in costs_of(made) if cost.mode == mode.name.lower())


def taken(made: Fleet, evidence: Evidence) -> str:
    return advise(made, evidence).recommendation.mode


# -- costs --------------------------------------------------------------------------------------------


def test_a_round_of_class_means_by_hand() -> None:
    """One node at SF12: 45 + 13 B of its 1 %; down, of 10 %: ACK, a head in pieces, ROUND, all twice."""
    cost = cost_of(RoundMode.PROTOTYPES, fleet(0))
    up_s = airtime_us(12, 125_000, 58) / 1e6
    pieces = [6 + 13, *[33 + 14 + 13] * 5, 19 + 13]  # a head and its signature: 165 B in five frames
    down_s = 2 * sum(airtime_us(12, 125_000, size, crc=False) for size in pieces) / 1e6
    assert (cost.frames, cost.bytes) == (1, 58)
    assert cost.airtime_s == pytest.approx(up_s)
    assert cost.downlink_s == pytest.approx(down_s)
    assert cost.node_hour == pytest.approx(up_s / 36)
    assert cost.gateway_hour == pytest.approx(down_s / 360)
    assert cost.four_rounds_days == pytest.approx(4 / 3)  # one every eight hours, as is set
    assert cost.first_model_days == pytest.approx(2 / 3)  # heads are judged by a second round


def test_the_law_and_the_air_set_how_often() -> None:
    """A node at SF12 has 864 s a day less 24 reports, a dense update takes 39 of them; eight channels, each
    busy for a twentieth of the time, carry 34,560 s; a gateway has a tenth of the day."""
    dense, report_s = cost_of(RoundMode.DENSE_INT8, fleet(0)), airtime_us(12, 125_000, 16 + 13) / 1e6
    assert (dense.limit, dense.node_hour > 1) == ("node", True)
    assert dense.rounds_a_day == pytest.approx((864 - 24 * report_s) / dense.airtime_s)
    many = cost_of(RoundMode.PROTOTYPES, fleet(*[0] * 10_000))
    assert many.limit == "air"
    assert many.rounds_a_day == pytest.approx(86_400 / (many.airtime_s / (0.05 * 8) + many.downlink_s))
    heavy = replace(fleet(*[5] * 4), shape=Shape(10, 56), repeats=8)
    slow = cost_of(RoundMode.TOP_K_SIGN, heavy)
    assert slow.limit == "gateway"
    assert slow.rounds_a_day == pytest.approx(8640 / slow.downlink_s)


def test_energy_is_that_of_the_pilots_plan() -> None:
    """3.3 V times the charge of the uplink's frames and of hearing the window; statistics train nothing."""
    made, energy = fleet(5), EnergyModel()
    window_s = 8 * 1.024e-3
    for mode in EVERY:
        cost = cost_of(mode, made)
        training_mj = 0.0 if MODES[mode].additive else energy.run_ma * energy.training_s * 3.3
        sent_mj = cost.energy_mj - cost.listening_mj - training_mj
        fixed_mah = energy.uplink_mah(0.0, window_s) * cost.frames
        by_hand_mah = fixed_mah + energy.transmit_ma * cost.airtime_s / 3600
        assert sent_mj == pytest.approx(by_hand_mah * 3600 * 3.3), mode
        assert cost.listening_mj > energy.receive_ma * 3.3 * cost.downlink_s / 2


def test_none_costs_nothing() -> None:
    cost = cost_of(RoundMode.NONE, fleet(0, 5))
    values = json.loads(json.dumps(advise(fleet(0, 5), LABELLED).to_dict()))["modes"][0]["cost"]
    assert values.pop("mode") == "none"
    assert not any(values.values())
    assert cost.airtime_s == cost.downlink_s == cost.energy_mj == 0


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(EVERY), st.sampled_from(range(5)), st.integers(1, 60))
def test_a_slower_rate_is_never_cheaper(mode: RoundMode, rate: int, count: int) -> None:
    """From SF12 to SF7: less airtime for each byte carried, and for a whole update; never fewer rounds."""
    slow, fast = (cost_of(mode, fleet(each, count=count)) for each in (rate, rate + 1))
    assert slow.nodes == fast.nodes == count
    assert slow.frames >= fast.frames
    assert slow.airtime_s / slow.bytes >= fast.airtime_s / fast.bytes
    if slow.frames == fast.frames and slow.bytes < fast.bytes:
        return  # the faster rate carries more in its one frame
    assert slow.airtime_s >= fast.airtime_s
    assert slow.energy_mj >= fast.energy_mj
    assert slow.rounds_a_day <= fast.rounds_a_day
    assert slow.node_hour >= fast.node_hour


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.sampled_from(EVERY))
def test_a_fleet_costs_what_its_nodes_cost(rates: list[int], mode: RoundMode) -> None:
    whole = cost_of(mode, fleet(*rates))
    alone = [cost_of(mode, fleet(rate)) for rate in rates]
    assert whole.airtime_s == pytest.approx(sum(cost.airtime_s for cost in alone))
    assert whole.bytes == pytest.approx(sum(cost.bytes for cost in alone) / len(alone))
    assert whole.node_hour == max(cost.node_hour for cost in alone)


def test_the_cohort_and_new_crops_take_part_alone() -> None:
    made = fleet(*[5] * 1000)
    half = replace(made, learning=Learning(cohort=0.5))
    assert 400 < cost_of(RoundMode.PROTOTYPES, half).nodes < 600
    some = replace(made, nodes=tuple(replace(node, invited=node.context > 1) for node in made.nodes))
    heads = replace(some, learning=Learning(contexts="new"))
    assert cost_of(RoundMode.DENSE_INT8, heads).nodes == 500
    assert cost_of(RoundMode.DENSE_INT8, heads).bytes == 11 + 99 + 13
    assert cost_of(RoundMode.DENSE_INT8, some).bytes == 11 + 611 + 3 * (13 + 6)


def test_a_fleet_that_is_too_slow_is_told_so() -> None:
    """AS923 at boot: DR2 carries 11 bytes, DR3 53; a US915 node at DR0 has 11 as well."""
    us915 = region("us915")
    slow = Fleet(us915, (FleetNode(0, 0), FleetNode(1, 3)), 8, us915.rx2_frequency_hz)
    cost = cost_of(RoundMode.FEATURES, slow)
    assert (cost.nodes, cost.unable) == (1, 1)
    nobody = replace(slow, nodes=slow.nodes[:1])
    assert cost_of(RoundMode.BLOCKS, nobody).nodes == 0
    assert cost_of(RoundMode.BLOCKS, nobody).four_rounds_days is None


@pytest.mark.parametrize("name", REGION_NAMES)
def test_every_region_can_be_advised(name: str) -> None:
    where = region(name)
    rate = slowest_data_rate(where, 16)
    nodes = tuple(FleetNode(i, rate) for i in range(3))
    made = advise(Fleet(where, nodes, where.multicast_data_rate, where.rx2_frequency_hz), LABELLED)
    assert [each.cost.mode for each in made.modes] == list(MODE_NAMES)
    assert all(each.cost.nodes == 3 for each in made.modes[1:2])


# -- what is known ------------------------------------------------------------------------------------


def test_gains_are_the_cells_own_or_unknown() -> None:
    made = advise(fleet(*[5] * 40), replace(LABELLED, judged=(judged(0.7, 1.0),)))
    by_mode = {each.cost.mode: each for each in made.modes}
    assert by_mode["prototypes"].expected.gain == pytest.approx(0.2)
    assert by_mode["prototypes"].words == "macro-F1 0.50 -> 0.70, judged on 2 rounds"
    assert by_mode["top_k_sign"].expected.gain is None
    assert by_mode["top_k_sign"].words == "unknown"
    assert by_mode["none"].expected.gain == 0


def test_a_context_that_keeps_its_shipped_head_gains_nothing() -> None:
    """Weighted by nodes: 10 go from .5 to .7, 30 stay at .9 though a new head was tried."""
    other = Judged("prototypes", 0, 30, 2, 0.9, 0.4, 0.0)
    expected = replace(LABELLED, judged=(judged(0.7, 1.0), other)).expected("prototypes")
    assert (expected.base, expected.new) == (pytest.approx(0.8), pytest.approx(0.85))


def test_the_firmware_compares_from_the_same_number_of_labels_on() -> None:
    assert f"SWN_SERVE_LABELS_MIN = {LABELS_TO_COMPARE}," in SERVE_H.read_text()


def test_benchmarks_name_every_mode_and_are_those_of_the_document() -> None:
    docs = Path(__file__).parents[2] / "docs"
    assert set(AFTER_FOUR_ROUNDS) == set(MODE_NAMES) - {"none"}
    rows = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:4]]
        for line in (docs / "benchmarks.md")
        .read_text()
        .split("against every mode")[1]
        .split("## ")[0]
        .splitlines()
        if line.startswith("| ")
    }
    for name, shift in AFTER_FOUR_ROUNDS.items():
        if name == "masked_sums":
            continue
        key = name if name in rows else f"{name}, FedAvg"
        assert [float(cell) for cell in rows[key]] == [shift.shipped, shift.learned], name
    (mean,) = (line for line in (docs / "PRIVACY.md").read_text().splitlines() if line.startswith("| mean |"))
    measured = [float(cell.split("±")[0]) for cell in mean.split("|")[2:5]]
    masked = AFTER_FOUR_ROUNDS["masked_sums"]
    assert [masked.shipped, masked.learned] == pytest.approx([measured[0], measured[2]], abs=0.005)
    assert signs_added() == (pytest.approx(0.022), pytest.approx(0.051))


# -- what is recommended ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("evidence", "mode", "because"),
    [
        (Evidence(), "none", "no node has reported"),
        (replace(LABELLED, labelled=(0,) * 40), "none", "nothing to learn from"),
        (replace(LABELLED, new=0), "none", "shipped for every crop here"),
        (replace(LABELLED, new=0, without_model=21), "prototypes", "21 of 40 nodes answer better without"),
        (LABELLED, "prototypes", "20 nodes watch what the model was shipped without"),
        (replace(LABELLED, judged=(judged(0.4, 0.0, 1),)), "prototypes", "better yet: 2 decide"),
        (replace(LABELLED, judged=(judged(0.5, 0.0),)), "none", "no gain: judged on 2 rounds"),
        (
            replace(LABELLED, judged=(judged(0.5, 0.0),), labelled=(3,) * 40),
            "prototypes",
            "too few labels for a verdict (3)",
        ),
        (replace(LABELLED, judged=(judged(0.55, 0.0),)), "prototypes", "better yet: 4 decide"),
        (replace(LABELLED, judged=(judged(0.55, 0.0, 4),)), "none", "no gain: judged on 4 rounds"),
        (replace(LABELLED, judged=(judged(0.7, 1.0),)), "prototypes", "10 labels"),
        (
            replace(LABELLED, judged=(judged(0.7, 1.0),), labelled=(30,) * 40),
            "top_k_sign",
            "then added 0.02 to 0.05",
        ),
        (
            replace(LABELLED, judged=(judged(0.7, 1.0),), taken=3, refused=4, head_mode="prototypes"),
            "none",
            "4 of 7 nodes that compared",
        ),
        (replace(LABELLED, refused=2, head_mode="top_k_sign"), "prototypes", "shipped without"),
        (replace(LABELLED, taken=30, refused=5, head_mode="top_k_sign"), "top_k_sign", "30 of 35 nodes"),
        (replace(LABELLED, taken=3, refused=2, head_mode="top_k_sign"), "prototypes", "shipped without"),
    ],
)
def test_rules(evidence: Evidence, mode: str, because: str) -> None:
    advised = advise(fleet(*[5] * 40), evidence).recommendation
    assert advised.mode == mode
    assert because in advised.reason


def test_the_settings_choose_which_statistics() -> None:
    assert taken(fleet(*[5] * 40, share_features=True), LABELLED) == "features"
    assert taken(fleet(*[5] * 40, mode="masked_sums", share_features=True), LABELLED) == "masked_sums"


def test_a_strategy_that_votes_gets_blocks() -> None:
    proved = replace(LABELLED, judged=(judged(0.7, 1.0),), labelled=(30,) * 40)
    assert taken(fleet(*[5] * 40, strategy="Krum"), proved) == "blocks"


def test_where_the_air_is_too_small_statistics_go_on() -> None:
    """20,000 nodes at SF12: signs of all of them take more than a day to collect."""
    proved = replace(LABELLED, judged=(judged(0.7, 1.0),), labelled=(30,) * 40)
    assert taken(fleet(*[0] * 20_000), proved) == "prototypes"


def test_nobody_there_and_nobody_invited() -> None:
    assert "no nodes" in advise(fleet(), LABELLED).recommendation.reason
    made = fleet(5, 5)
    none = replace(made, nodes=tuple(replace(node, invited=False) for node in made.nodes))
    assert taken(none, LABELLED) == "none"
    for each in advise(none, LABELLED).modes:
        assert (each.cost.nodes, each.cost.airtime_s) == (0, 0)
