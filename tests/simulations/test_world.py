"""The whole world: firmware, air and core together, the same from the same seed, each promise checked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulations.cell import DAY_US, HOUR_US
from simulations.report import Report, show, write
from simulations.scenario import Scenario, load
from simulations.world import World, run
from swarm.config import Learning, Multicast
from swarm.effects import Event, Purpose, Transmit
from swarm.mac.device import EndDevice

SECOND = 1_000_000
SMALL = load("smoke").override(nodes=8, days=3)


def with_learning(scenario: Scenario, **changes: Any) -> Scenario:
    return replace(scenario, learning=replace(scenario.learning, **changes))


def quiet(scenario: Scenario) -> Scenario:
    """Without questions and restarts: what is left must not depend on when a gateway was rebuilt."""
    return replace(
        scenario,
        queries=replace(scenario.queries, per_day=0.0),
        hardship=replace(scenario.hardship, gateway_restarts=0),
    )


@pytest.fixture(scope="module")
def report() -> Report:
    return run(SMALL)


def test_a_run_keeps_every_promise(report: Report) -> None:
    assert report.violations_explained == []
    assert report.violations == 0
    frames = report.frames
    assert frames["sent"] > 50
    assert frames["sent"] - frames["received"] - sum(frames["lost_by_cause"].values()) in (0, 1)


def test_frames_that_do_not_fit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: what the firmware believes it sent is in the report.  Method: a stack that takes 11 B."""
    monkeypatch.setattr(EndDevice, "payload_max", lambda device: 11)
    frames = run(replace(SMALL.override(days=1), radio=replace(SMALL.radio, adr=True))).frames
    assert frames["lost_by_cause"]["too_long"] > 0
    assert frames["sent"] - frames["received"] - sum(frames["lost_by_cause"].values()) in (0, 1)


def test_the_report_is_the_object_that_was_promised(report: Report) -> None:
    made = json.loads(report.to_json())
    assert {
        "scenario", "seed", "nodes", "virtual_days", "digest", "rounds", "accuracy", "airtime_s",
        "energy_mj_per_node_day", "violations", "frames", "queries", "cpu_s", "wall_s", "replay",
    } <= set(made)  # fmt: skip
    accuracy = made["accuracy"]
    for method in (
        "start",
        "end",
        "centralised",
        "local_only",
        "public_local",
        "rule",
        "persistence",
        "majority",
    ):
        assert 0.0 <= accuracy[method] <= 1.0
        per_crop = accuracy["per_crop"][method]
        assert accuracy[method] == pytest.approx(sum(per_crop.values()) / len(per_crop))
    assert set(made["airtime_s"]) == {"up", "down", "by_purpose"}
    by_purpose = made["airtime_s"]["by_purpose"]
    assert sum(by_purpose.values()) == pytest.approx(made["airtime_s"]["up"] + made["airtime_s"]["down"])
    assert set(made["frames"]) == {"sent", "received", "lost_by_cause"}
    assert set(made["queries"]) == {"asked", "answered", "correct", "p50_s", "p95_s", "airtime_s"}
    assert made["virtual_days"] == 3
    assert made["replay"] == "swarm sim run smoke --nodes 8 --days 3 --seed 1"
    assert sum(made["energy_by_state_mj"].values()) == pytest.approx(made["energy_mj_per_node_day"])
    assert made["energy_by_state_mj"]["sleep"] == pytest.approx(0.016 * 3.3 * 86_400, rel=0.05)


def test_rounds_follow_their_calendar_and_gather_updates(report: Report) -> None:
    numbers = [each["round"] for each in report.rounds]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) in (8, 9)
    assert sum(each["updates"] for each in report.rounds) >= 8, "every node had a labelled day to report"


def test_the_same_seed_gives_the_same_digest_and_another_seed_another(report: Report) -> None:
    again = run(SMALL)
    assert again.digest == report.digest
    assert [each["digest"] for each in again.rounds] == [each["digest"] for each in report.rounds]
    assert again.accuracy == report.accuracy
    assert run(SMALL, seed=2).digest != report.digest


def test_the_digest_does_not_depend_on_the_hashes_of_python() -> None:
    code = "from simulations.world import run; print(run('smoke', nodes=4, days=1).digest)"
    root = Path(__file__).resolve().parents[2]
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_a_gateway_rebuilt_in_mid_round_changes_nothing() -> None:
    """Stop the gateway many times, also between an update and the close of its round: same digest."""
    scenario = quiet(SMALL)
    whole = World(scenario)
    whole.run_until(whole.end_us)
    broken = World(scenario)
    restarts = 0
    for at_us in range(broken.start_us + HOUR_US // 3, broken.end_us, 5 * HOUR_US + 7):
        broken.run_until(at_us)
        in_mid_round = broken.coordinator.rounds.current
        before = None if in_mid_round is None else in_mid_round.updates
        broken.restart_gateway()
        current = broken.coordinator.rounds.current
        assert (None if current is None else current.updates) == before
        restarts += 1
    broken.run_until(broken.end_us)
    for world in (whole, broken):
        world.finish()
        assert world.checkers.violations.explained == []
    assert restarts > 10
    assert [each["digest"] for each in broken.rounds] == [each["digest"] for each in whole.rounds]
    assert broken.digest() == whole.digest()


def test_the_nodes_have_the_gateways_parameters_bit_for_bit() -> None:
    """FedAdam on signs always moves the model: nodes are at versions made in the run, bit for bit."""
    scenario = with_learning(
        quiet(SMALL), mode="top_k_sign", strategy="FedAdam", options={"eta": 0.05}, prototype_rounds=0
    )
    scenario = replace(scenario, days=4, multicast=Multicast(data_rate=3, repeats=3))
    world = World(scenario)
    world.run_until(world.end_us)
    world.finish()
    assert world.checkers.violations.explained == []
    assert world.rounds[-1]["model_version"] > 0
    assert int(world.cell.nodes.firmware.model_version.min()) > 0


def test_a_node_with_other_parameters_than_the_gateway_thinks_is_found() -> None:
    world = World(quiet(SMALL))
    world.run_until(world.start_us + HOUR_US)
    mirror = world._versions._mirrors[0]
    mirror.heads[int(world.field.context[3])][7] += 1
    world.finish()
    assert world.checkers.violations.count == 1
    assert "nodes at version 0 have other parameters" in world.checkers.violations.explained[0]


def test_updates_that_a_gateway_forgets_are_found() -> None:
    """Lose the rows of an open round's updates in a restart: it closes with fewer than were accepted."""
    world = World(quiet(SMALL))
    while world.coordinator.rounds.current is None or world.coordinator.rounds.current.updates < 3:
        world.run_until(world.cell.now_us + HOUR_US // 6)
        assert world.cell.now_us < world.end_us, "no round gathered three updates"
    world.rows["update"].clear()
    world.restart_gateway()
    world.run_until(world.end_us)
    world.finish()
    assert any("updates, but" in line for line in world.checkers.violations.explained)


def test_a_transmission_behind_the_ledgers_back_is_found() -> None:
    world = World(quiet(SMALL))
    world.run_until(world.start_us + HOUR_US)
    for number in range(300):
        at_us = world.cell.now_us + SECOND
        transmit = Transmit(
            transmit_id=10_000 + number, gateway_id="x", payload=b"\x20" + bytes(50), at_us=at_us,
            tmst_us=None, frequency_hz=869_525_000, data_rate=0, power_dbm=27.0, airtime_us=0,
            purpose=Purpose.REPAIR,
        )  # fmt: skip
        world._perform(world.cell.now_us, [transmit])
        world.run_until(at_us + 4 * SECOND)
    assert any("869525000 Hz; 360 s are legal" in line for line in world.checkers.violations.explained)


def test_labels_become_known_a_day_late_and_never_those_of_the_test() -> None:
    world = World(quiet(SMALL))
    seen = []
    for day in range(SMALL.days + 1):
        world.run_until(world.start_us + day * DAY_US)
        seen.append(int(world.cell.nodes.firmware.labelled.max()))
    assert seen == [0, 0, 1, 2]


def test_nodes_that_join_over_the_air_all_get_in_and_learn() -> None:
    world = World(replace(quiet(SMALL), activation="otaa", days=2))
    world.run_until(world.start_us + 3 * HOUR_US)
    assert all(device.joined for device in world.cell.nodes.devices)
    world.run_until(world.end_us)
    world.finish()
    assert world.events["joined"] >= 8
    assert world.cell.traffic.up_us["join_request"] > 0
    assert world.checkers.violations.explained == []


def test_an_outage_loses_frames_for_that_cause_and_nothing_breaks() -> None:
    hardship = replace(SMALL.hardship, outages_per_day=6.0, outage_s=3_600, gateway_restarts=0)
    world = World(replace(quiet(SMALL), hardship=hardship))
    world.run_until(world.end_us)
    world.finish()
    assert world.checkers.lost["outage"] > 0
    assert world.checkers.violations.explained == []


def test_questions_are_asked_answered_and_judged_by_the_true_field() -> None:
    queries = replace(SMALL.queries, per_day=12.0, deadline_s=7_200)
    world = World(replace(quiet(SMALL), queries=queries))
    world.run_until(world.end_us)
    summary = world.query_summary()
    assert summary["asked"] >= 10
    assert 0 < summary["answered"] <= summary["asked"]
    assert 0 <= summary["correct"] <= summary["answered"]
    assert summary["p50_s"] <= summary["p95_s"] <= 7_200
    assert summary["airtime_s"] > 0
    asked = next(iter(world.queries.values()))
    node, at_us = asked["node"], asked["answered_us"]
    days = np.flatnonzero([world.field.label(day)[node] == world._truth(node, at_us) for day in range(6)])
    assert at_us // DAY_US in days or at_us // DAY_US - 1 in days


def test_nodes_on_weaker_links_send_more_slowly() -> None:
    world = World(replace(quiet(SMALL), radius_m=12_000.0, nodes=200))
    gains = world.cell.links.gain_db
    rates = np.array([device.data_rate for device in world.cell.nodes.devices])
    assert set(rates.tolist()) == {0, 1, 2, 3, 4, 5}
    assert all(gains[rates == rate].min() >= gains[rates == rate - 1].max() for rate in range(1, 6))


def test_clocks_drift_and_the_conversions_are_inverse() -> None:
    world = World(quiet(SMALL))
    nodes = world.cell.nodes
    later = world.start_us + 10 * DAY_US
    shown = [nodes.local_us(node, later) - later for node in range(SMALL.nodes)]
    assert len(set(shown)) == SMALL.nodes
    assert 1_000_000 < max(map(abs, shown)) < 60_000_000, "20 ppm are 17 s in ten days"
    for node in range(SMALL.nodes):
        for local in (world.start_us, world.start_us + 1, later, later + 12_345):
            at_us = nodes.world_us(node, local)
            assert nodes.local_us(node, at_us) >= local > nodes.local_us(node, at_us - 1)


def test_the_report_is_shown_and_written(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show(report)
    shown = capsys.readouterr().out
    assert report.digest in shown
    assert "rule, same sensors" in shown
    said = write(report, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "report.json").read_text())["digest"] == report.digest
    rounds = (tmp_path / "out" / "rounds.csv").read_text().splitlines()
    assert rounds[0].startswith("round,mode,updates")
    assert len(rounds) == len(report.rounds) + 1
    assert len((tmp_path / "out" / "curve.csv").read_text().splitlines()) == SMALL.days + 2
    assert said[-1].startswith(("wrote", "left out")) and "curve.svg" in said[-1]


def test_events_of_the_core_reach_the_checkers() -> None:
    world = World(quiet(SMALL))
    event = Event("uplink", 1, {"dev_eui": "x", "f_cnt": 5})
    world._perform(1, [event, event])
    assert world.checkers.violations.explained == ["at 0.000 s: the gateway accepted frame 5 of x twice"]


def test_without_learning_nothing_is_announced() -> None:
    world = World(replace(quiet(SMALL), learning=Learning(mode="none"), days=1))
    world.run_until(world.end_us)
    assert world.rounds == []
    assert world.cell.traffic.down_us["model"] == 0
