"""Expert questions end to end: real nodes, LoRaWAN, the gateway's core; silence, garbage, restarts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from simulations.bench.asking_cell import AskingCell, OnAir, dev_eui
from swarm.config import Asking, Learning, SwarmConfig
from swarm.inference.holders import plausible
from swarm.model.container import random_model
from swarm.node import ALWAYS_ON, HOLDER, Judged, Model, NodeConfig
from swarm.phy.energy import receive_mj, transmit_mj
from swarm.prng import Prng
from swarm.wire import app, expert

SECOND_US = 1_000_000
IMAGE = random_model(3, generation=5)
MODEL = Model(IMAGE)
INPUTS = Prng(9).child("asking").numpy().integers(-60, 61, (400, 56)).astype(np.int8)
PICKS = MODEL.experts(INPUTS)
ASKER = 0
LACKS_ALL = 0xFF
DEADLINE_S = 600


def node(index: int, withheld: int = 0, always_on: bool = True) -> NodeConfig:
    flags = HOLDER | (ALWAYS_ON if always_on else 0)
    common = {"seed": index, "payload_max": 222, "status_period_s": 3600, "ask_retry_s": 3}
    return NodeConfig(index, 0, flags=flags, ask_below=255, withheld=withheld, **common)


def cell_of(*holders: NodeConfig, start: bool = True, **asking: Any) -> AskingCell:
    """Node 0 asks (class A, no experts at all); the others hold what they hold."""
    chosen = {"replica": False, "expert_deadline_s": DEADLINE_S, **asking}
    config = SwarmConfig(
        learning=Learning(mode="none"), asking=Asking(**chosen), dedup_us=0, status_period_min=60
    )
    configs = [node(ASKER, LACKS_ALL, always_on=False), *holders]
    made = AskingCell(configs, [5] * len(configs), IMAGE, config, seed=2)
    if start:
        made.run_until(7300 * SECOND_US)  # all have said what they hold
    return made


def ask(cell: AskingCell, row: int = 0, seconds: int = 300) -> list[OnAir]:
    """Node 0 asks about one input; the frames of the question in the time after it."""
    start_us, before = cell.now_us, len(cell.log)
    judged = cell.nodes.judge(ASKER, start_us, INPUTS[row], deadline_s=DEADLINE_S)
    assert judged.state == Judged.ASKING
    cell.poll(ASKER)
    cell.run_until(start_us + seconds * SECOND_US)
    return [frame for frame in cell.log[before:] if frame.f_port in (0, 11)]


def answered(cell: AskingCell) -> dict[str, Any]:
    return dict(cell.told("expert_answered")[-1].data)


def complete(row: int = 0) -> int:
    return int(MODEL.infer(INPUTS[row : row + 1], MODEL.base_head(0))[0].argmax())


def kinds(frames: list[OnAir]) -> list[tuple[int, bool, int]]:
    return [(frame.node, frame.up, frame.kind) for frame in frames]


def test_the_replica_answers_in_the_windows_of_the_very_ask() -> None:
    cell = cell_of(replica=True)
    frames = ask(cell)
    assert kinds(frames) == [(0, True, 2), (0, False, 2)]
    up, down = frames
    assert down.start_us - up.end_us == cell.devices[ASKER].mac.rx1_delay_us
    judged = cell.nodes.judgement(ASKER)
    assert (judged.state, judged.missing) == (Judged.TOGETHER, 0)
    assert int(np.argmax(judged.probabilities)) == complete()
    told = answered(cell)
    assert told["coverage"] == 1.0 and [each["source"] for each in told["experts"]] == ["replica"] * 2
    assert [each["expert"] for each in told["experts"]] == PICKS[0].tolist()
    assert len(cell.core.expert_asking) == 0 and not cell.rows.get("expert_ask")


def test_one_holder_computes_both_experts() -> None:
    cell = cell_of(node(1), node(2, withheld=1 << int(PICKS[0][0])))
    frames = ask(cell)
    assert kinds(frames) == [(0, True, 2), (1, False, 3), (1, True, 3), (0, True, 2), (0, False, 2)]
    assert cell.nodes.judgement(ASKER).state == Judged.TOGETHER
    assert {each["source"] for each in answered(cell)["experts"]} == {dev_eui(1)}


def test_two_holders_compute_one_expert_each() -> None:
    first, second = (1 << int(pick) for pick in PICKS[0])
    cell = cell_of(node(1, withheld=LACKS_ALL & ~first), node(2, withheld=LACKS_ALL & ~second))
    ask(cell)
    assert cell.nodes.judgement(ASKER).state == Judged.TOGETHER
    assert [each["source"] for each in answered(cell)["experts"]] == [dev_eui(1), dev_eui(2)]
    assert int(np.argmax(cell.nodes.judgement(ASKER).probabilities)) == complete()


def test_what_it_cost_is_what_was_on_the_air() -> None:
    """Goal: provenance agrees with the world's truth.  Method: sum the log of all frames of the question."""
    cell = cell_of(node(1))
    frames = ask(cell)
    told = answered(cell)
    assert told["frames"] == len(frames)
    assert told["airtime_us"] == sum(frame.end_us - frame.start_us for frame in frames)
    energy_mj = sum((transmit_mj if f.up else receive_mj)(f.end_us - f.start_us) for f in frames)
    assert told["energy_mj"] == pytest.approx(energy_mj, abs=1e-3)
    assert told["latency_s"] == pytest.approx((frames[-1].end_us - frames[0].end_us) / SECOND_US)


def test_the_same_input_again_costs_one_exchange() -> None:
    cell = cell_of(node(1))
    ask(cell)
    assert kinds(ask(cell)) == [(0, True, 2), (0, False, 2)]
    assert {each["source"] for each in answered(cell)["experts"]} == {"cache"}


def test_a_silent_holder_is_passed_over_and_known_for_it() -> None:
    cell = cell_of(node(1), node(2))
    cell.silenced.add(1)
    ask(cell)
    assert {each["source"] for each in answered(cell)["experts"]} == {dev_eui(2)}
    holder = cell.core.expert_asking.holders.get(dev_eui(1))
    assert holder is not None and holder.silent == 1
    assert kinds(ask(cell, row=1))[1][0] == 2  # the next question goes to the one who answers


def test_nobody_answers_and_the_node_keeps_its_own_judgement() -> None:
    cell = cell_of(node(1))
    cell.silenced.add(1)
    start_us = cell.now_us
    alone = cell.nodes.judge(ASKER, start_us, INPUTS[0], deadline_s=DEADLINE_S)
    cell.poll(ASKER)
    cell.run_until(start_us + 700 * SECOND_US)
    judged = cell.nodes.judgement(ASKER)
    assert (judged.state, judged.probabilities) == (Judged.ALONE, alone.probabilities)
    assert not cell.rows.get("expert_ask")  # nothing is left behind


def test_half_an_answer_has_half_the_coverage() -> None:
    """One of the two experts lives nowhere: the other's contribution is sent all the same."""
    first = 1 << int(PICKS[0][0])
    cell = cell_of(node(1, withheld=LACKS_ALL & ~first))
    ask(cell)
    judged = cell.nodes.judgement(ASKER)
    assert (judged.state, judged.missing) == (Judged.TOGETHER, 2)
    told = answered(cell)
    assert [each["source"] for each in told["experts"]] == [dev_eui(1), None]
    assert told["coverage"] == pytest.approx(told["experts"][0]["weight"])


def garbage(
    *nodes: int, change: Callable[[expert.Output], expert.Output]
) -> Callable[[int, int, bytes], bytes]:
    def tamper(index: int, f_port: int, payload: bytes) -> bytes:
        message = app.decode_uplink(f_port, payload) if index in nodes else None
        return app.encode(change(message)) if isinstance(message, expert.Output) else payload

    return tamper


def test_an_impossible_output_is_refused_and_the_next_holder_asked() -> None:
    cell = cell_of(node(1), node(2))
    cell.tamper = garbage(1, change=lambda out: replace(out, contribution=b"\xff" * 34))
    ask(cell)
    assert {each["source"] for each in answered(cell)["experts"]} == {dev_eui(2)}
    assert [event.data["dev_eui"] for event in cell.told("answer_refused")] == [dev_eui(1)]
    holder = cell.core.expert_asking.holders.get(dev_eui(1))
    assert holder is not None and holder.contradicted == 1


def test_a_plausible_lie_is_outvoted() -> None:
    """Three answers are compared; the liar's differs and loses its trust."""
    lie = expert.coarse([0, 100, *range(62)])
    cell = cell_of(node(1), node(2), node(3), holders=3)
    cell.tamper = garbage(1, change=lambda out: replace(out, contribution=lie))
    ask(cell)
    judged = cell.nodes.judgement(ASKER)
    assert judged.state == Judged.TOGETHER and int(np.argmax(judged.probabilities)) == complete()
    trust = {h.dev_eui: h.contradicted for h in cell.core.expert_asking.holders}
    assert trust[dev_eui(1)] == 1 and trust[dev_eui(2)] == trust[dev_eui(3)] == 0
    assert kinds(ask(cell, row=1))[1][0] != 1


def test_two_that_contradict_each_other_are_not_believed() -> None:
    lie = expert.coarse([0, 100, *range(62)])
    cell = cell_of(node(1), node(2), holders=2)
    cell.tamper = garbage(1, change=lambda out: replace(out, contribution=lie))
    start_us = cell.now_us
    alone = cell.nodes.judge(ASKER, start_us, INPUTS[0], deadline_s=DEADLINE_S)
    cell.poll(ASKER)
    cell.run_until(start_us + 700 * SECOND_US)
    assert cell.nodes.judgement(ASKER).probabilities == alone.probabilities


def test_a_class_a_holder_answers_when_it_next_reports() -> None:
    cell = cell_of(node(1, always_on=False), expert_deadline_s=7200)
    start_us = cell.now_us
    cell.nodes.judge(ASKER, start_us, INPUTS[0], deadline_s=7200)
    cell.poll(ASKER)
    cell.run_until(start_us + 7200 * SECOND_US)
    judged = cell.nodes.judgement(ASKER)
    assert judged.state == Judged.TOGETHER and int(np.argmax(judged.probabilities)) == complete()


@pytest.mark.parametrize("at_s", [0.2, 1.5, 2.75, 3.05])
def test_a_restart_in_mid_question_loses_nothing(at_s: float) -> None:
    """Goal: open questions are rows.  Method: restart before the query, on the way, after the output."""
    cell = cell_of(node(1))
    start_us = cell.now_us
    cell.nodes.judge(ASKER, start_us, INPUTS[0], deadline_s=DEADLINE_S)
    cell.poll(ASKER)
    cell.run_until(start_us + int(at_s * SECOND_US))
    cell.restart_gateway()
    cell.run_until(start_us + DEADLINE_S * SECOND_US)
    judged = cell.nodes.judgement(ASKER)
    assert judged.state == Judged.TOGETHER and int(np.argmax(judged.probabilities)) == complete()
    assert {h.dev_eui for h in cell.core.expert_asking.holders} == {dev_eui(0), dev_eui(1)}


def test_the_same_seed_gives_the_same_log() -> None:
    logs = []
    for _ in range(2):
        cell = cell_of(node(1), node(2))
        ask(cell)
        logs.append(cell.log)
    assert logs[0] == logs[1]


def test_real_outputs_are_plausible_and_most_noise_is_not() -> None:
    for row in range(60):
        first, second = PICKS[row].tolist()
        for missing in (1, 2, 3):
            asked = expert.Ask(1, 5, (first, second), 100, missing, 0, 0, expert.coarse(list(range(64))))
            assert plausible(MODEL.contribution(asked)[1])
    noise = np.random.default_rng(1).integers(0, 256, (1000, 34)).astype(np.uint8)
    assert sum(plausible(row.tobytes()) for row in noise) < 50
