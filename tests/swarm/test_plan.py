"""The pilot's plan: hand arithmetic, monotone behaviour, warnings, all regions."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.phy import link
from swarm.phy.regions import REGION_NAMES, region
from swarm.pilot import plan as pilot
from swarm.pilot.energy import EnergyModel
from swarm.pilot.plan import CROPS, GatewaySite, NodeSite, Plan, PlanOptions, distance_m, plan_pilot
from swarm.wire import app

EU868 = region("eu868")
METRE = 1 / 111_194.9  # degrees of latitude
MAST = GatewaySite("0011223344556677", 47.0, 8.0, 12.0)


def node(
    metres: float, name: str = "n1", crop: str = "potato", height_m: float = 2.0, report_min: int = 60
) -> NodeSite:
    return NodeSite(name, 47.0 + metres * METRE, 8.0, height_m, crop, report_min=report_min)


def alone(site: NodeSite, options: PlanOptions | None = None) -> Plan:
    return plan_pilot([site], [MAST], EU868, options)


def test_distance() -> None:
    """One degree of the meridian is 111.195 km; Bern-Zurich is 95 km; the date line is no wall."""
    assert distance_m(0, 0, 1, 0) == pytest.approx(111_195, abs=1)
    assert distance_m(46.948, 7.447, 47.377, 8.541) == pytest.approx(95_500, abs=1000)
    assert distance_m(0, 179.999, 0, -179.999) == pytest.approx(222.4, abs=0.1)
    assert distance_m(47, 8, 47, 8) == 0


def test_frames_have_the_sizes_that_the_codec_gives_them() -> None:
    """The plan computes airtime from sizes of its own: they are those of the frames."""
    means = tuple(app.ClassMean(label, 1, 1, (0,) * 20) for label in range(3))
    assert len(app.encode(app.Status(*[0] * 10))) == pilot.STATUS_SIZE
    assert len(app.encode(app.Prototypes(1, 0, 0, 3, means))) == pilot.UPDATE_SIZE
    assert len(app.encode(app.RoundAnnounce(*[0] * 8))) == pilot.ROUND_SIZE
    assert len(app.encode(app.RoundAck(1, 0, b"\x01"))) == pilot.ACK_HEADER + 1


def test_the_link_budget_of_one_node_by_hand() -> None:
    """14 dBm + 2.15 dBi - (31.2 dB + 28 log10 d) - foliage above the canopy, against -124.5 dBm at SF7."""
    plan = alone(node(800)).nodes[0]
    loss_db = link.free_space_loss_db(1, 868.1e6) + 28 * 2.90314
    assert plan.distance_m == pytest.approx(800, abs=1)
    assert plan.rssi_leaf_off_dbm == pytest.approx(14 + 2.15 - loss_db, abs=0.1)
    assert plan.rssi_leaf_on_dbm == pytest.approx(plan.rssi_leaf_off_dbm - 2.0, abs=0.11)
    assert plan.margin_leaf_on_db == pytest.approx(plan.rssi_leaf_on_dbm + 124.53, abs=0.11)
    assert (plan.spreading_factor, plan.data_rate, plan.payload_max) == (7, 5, 222)
    assert plan.airtime_s_per_day == pytest.approx(24 * 0.066816 + 0.112896, abs=0.001)


def test_the_chosen_spreading_factor_keeps_the_margin_in_full_leaf() -> None:
    for metres in range(200, 4000, 300):
        plan = alone(node(metres, crop="apple")).nodes[0]
        if plan.spreading_factor < 12:
            assert plan.margin_leaf_on_db >= 10
        if plan.spreading_factor > 7:
            faster_db = link.sensitivity_dbm(plan.spreading_factor - 1, 125_000)
            assert plan.rssi_leaf_on_dbm - faster_db < 10.1


@settings(max_examples=50, deadline=None)
@given(st.integers(10, 8000), st.integers(10, 8000), st.sampled_from(CROPS))
def test_farther_is_never_better(first: int, second: int, crop: str) -> None:
    near, far = (alone(node(metres, crop=crop)).nodes[0] for metres in sorted((first, second)))
    assert far.spreading_factor >= near.spreading_factor
    assert far.airtime_s_per_day >= near.airtime_s_per_day
    assert far.battery_years <= near.battery_years
    assert near.margin_leaf_off_db >= near.margin_leaf_on_db


def test_the_nearest_gateway_is_named_and_a_second_one_helps() -> None:
    second = GatewaySite("00112233445566aa", 47.0 + 3000 * METRE, 8.0, 12.0)
    site = node(2900, crop="apple", height_m=1.0)
    one = plan_pilot([site], [MAST], EU868).nodes[0]
    two = plan_pilot([site], [MAST, second], EU868)
    assert two.nodes[0].gateway_id == second.id
    assert two.nodes[0].spreading_factor < one.spreading_factor
    assert two.gateways == {MAST.id: 0, second.id: 1}
    assert any(MAST.id in warning for warning in two.warnings)
    between = plan_pilot([node(1500, crop="apple", height_m=1.0)], [MAST, second], EU868).nodes[0]
    lonely = alone(node(1500, crop="apple", height_m=1.0)).nodes[0]
    assert between.delivery > lonely.delivery


def test_many_nodes_collide() -> None:
    """Goal: pure ALOHA per spreading factor over 8 channels: exp(-2 G / 8), G from the others' airtime."""
    crowd = [node(300 + i * 0.1, f"n{i}", report_min=1) for i in range(200)]
    plan = plan_pilot(crowd, [MAST], EU868)
    each = plan.nodes[0]
    load = 199 * each.airtime_s_per_day / 86_400
    assert each.delivery == pytest.approx(2.718281828 ** (-2 * load / 8), abs=0.002)
    assert each.delivery < 0.97


def test_warnings_say_what_to_do() -> None:
    far = alone(node(30_000, crop="apple", height_m=1.0))
    text = " | ".join(far.nodes[0].warnings)
    for part in ("out of reach", "inside the apple canopy", "check the coordinates"):
        assert part in text
    assert any(warning == "out of reach in full leaf: 1 of 1 node" for warning in far.warnings)
    leaves = next(
        plan
        for m in range(500, 6000, 20)
        if "bare trees" in " ".join((plan := alone(node(m, crop="grape", height_m=1.0)).nodes[0]).warnings)
    )
    assert leaves.margin_leaf_on_db < 10 <= leaves.margin_leaf_off_db
    busy = alone(node(leaves.distance_m, crop="grape", height_m=1.0, report_min=1)).nodes[0]
    assert busy.duty_cycle_used > 1
    assert busy.rounds_a_day == 0
    assert "break the duty cycle" in " ".join(busy.warnings)
    deaf = alone(replace(node(100), sensors=("temperature",), battery_mah=100)).nodes[0]
    assert len([warning for warning in deaf.warnings if "sensor" in warning]) == 2
    assert "battery lasts" in " ".join(deaf.warnings)
    assert alone(node(100)).nodes[0].warnings == ()


def test_the_battery_by_hand() -> None:
    """Method: only sleep and sending: 16 uA and 24 frames of 1 s at 36 mA a day on 1000 mAh."""
    bare = EnergyModel(
        transmit_ma=36, receive_ma=0, wait_ma=0, run_ma=0, usable=1.0, self_discharge_per_year=0.0
    )
    day_mah = bare.day_mah(24 * bare.uplink_mah(1.0, 0.1), 0)
    assert day_mah == pytest.approx(24 * 0.016 + 24 * 0.01)
    assert bare.years(1000, day_mah) == pytest.approx(1000 / (0.624 * 365.25))
    full = EnergyModel()
    assert full.years(2600, day_mah) < bare.years(2600, day_mah)
    assert full.years(10**6, 0.01) == 20
    every_10_min_sf12 = full.day_mah(144 * full.uplink_mah(1.974, 0.26), 0)
    assert 0.9 < full.years(2600, every_10_min_sf12) < 1.6, "the practitioners' figure is 1.3 years"


@pytest.mark.parametrize("name", REGION_NAMES)
def test_every_region_can_be_planned(name: str) -> None:
    """Goal: chosen rates carry a status frame, and the result is JSON."""
    rules = region(name)
    plan = plan_pilot([node(metres, f"n{metres}") for metres in (100, 1000, 5000)], [MAST], rules)
    for each in plan.nodes:
        assert each.payload_max >= 17
        assert rules.data_rate_of(each.spreading_factor, 125_000, True) == each.data_rate
        assert 0 <= each.delivery <= 1
        assert each.rounds_a_day >= 1
    assert json.loads(json.dumps(plan.to_dict()))["region"] == name
    assert rules.payload_max(plan.multicast_data_rate, uplink=False) > 31


def test_nothing_to_plan() -> None:
    assert plan_pilot([], [MAST], EU868).rounds_a_day == 0
    with pytest.raises(ValueError, match="at least one gateway"):
        plan_pilot([node(5)], [], EU868)
