"""Experts handed over end to end: real nodes, LoRaWAN, lossy air, the gateway's core, restarts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simulations.bench.asking_cell import AskingCell, dev_eui
from swarm.commands import HandOver, RemoveNode
from swarm.config import Asking, Learning, SwarmConfig
from swarm.hand_over import Step, Way
from swarm.model.container import random_model
from swarm.model.subset import with_experts
from swarm.node import HOLDER, Judged, Model, NodeConfig
from swarm.prng import Prng
from swarm.receiver import BlockState
from swarm.registry import Refused
from swarm.security.signatures import SigningKey
from swarm.wire.expert import Experts

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
KEY = SigningKey(bytes(range(32)))
IMAGE = random_model(3, generation=5)
MODEL = Model(IMAGE)
INPUTS = Prng(9).child("asking").numpy().integers(-60, 61, (400, 56)).astype(np.int8)
PICKS = MODEL.experts(INPUTS)
ALL = frozenset(range(8))
DYING, HEIR, OTHER, ASKER = range(4)
ROW = next(row for row, (first, second) in enumerate(PICKS.tolist()) if first < 3 <= second)
LOST = int(PICKS[ROW][1])
"""The expert that one node alone holds, and that row `ROW` of the inputs asks for."""
REST = sorted(ALL - {LOST})
HELD = (frozenset({LOST}), frozenset(REST[:4]), frozenset(REST[4:]), frozenset[int]())
WHAT = HandOver(room=5, replicas=1)


def node(index: int, held: frozenset[int], flags: int) -> NodeConfig:
    lacks = sum(1 << expert for expert in ALL - held)
    common = {"seed": index, "payload_max": 222, "status_period_s": 900, "ask_retry_s": 3}
    return NodeConfig(index, 0, flags=flags, ask_below=255, withheld=lacks, signer=KEY.public_key, **common)


def cell_of(
    seed: int = 2,
    loss: float = 0.2,
    flash_size: int = 32_768,
    gateway_model: bytes = IMAGE,
    flags: int = HOLDER,
) -> AskingCell:
    """Class A nodes that lose a fifth of all frames each way; no replica answers."""
    config = SwarmConfig(
        learning=Learning(mode="none"),
        asking=Asking(replica=False, expert_deadline_s=2 * 3600),
        dedup_us=0,
        status_period_min=15,
    )
    configs = [node(index, held, flags) for index, held in enumerate(HELD)]
    flash: dict[str, Any] = {
        "flash_size": flash_size,
        "signing_key": KEY,
        "gateway_model": gateway_model,
    }
    return AskingCell(configs, [5] * len(HELD), IMAGE, config, seed=seed, loss=loss, **flash)


def forsaken(**options: Any) -> AskingCell:
    """A cell in which all have said what they hold; then the one that alone holds an expert dies.

    The asker's battery is nearly empty: others are to hold experts for it.
    """
    cell = cell_of(**options)
    cell.nodes.set_battery(ASKER, 20)
    cell.run_until(8 * HOUR_US)
    assert [held(cell, index) for index in range(4)] == [set(mine) for mine in HELD]
    cell.silenced.add(DYING)
    cell.run_until(10 * HOUR_US)
    return cell


def held(cell: AskingCell, index: int) -> set[int]:
    """What the gateway was told."""
    holder = cell.core.expert_asking.holders.get(dev_eui(index))
    return set() if holder is None else {expert for expert in ALL if holder.holds(expert)}


def asked(cell: AskingCell) -> dict[str, Any]:
    """The asker judges an input that needs the lost expert; what the gateway says became of it."""
    start_us = cell.now_us
    judged = cell.nodes.judge(ASKER, start_us, INPUTS[ROW], deadline_s=4 * 3600)
    assert judged.state == Judged.ASKING
    cell.poll(ASKER)
    cell.run_until(start_us + 4 * HOUR_US)
    return dict(cell.told("expert_answered")[-1].data)


def plan(cell: AskingCell, what: HandOver = WHAT) -> list[Step]:
    return cell.core.hand_overs.plan(cell.now_us, what)


def carry_out(cell: AskingCell, what: HandOver = WHAT, hours: int = 48) -> None:
    """The command, and time until nothing is under way any more."""
    assert not isinstance(cell.command(what), Refused)
    until_us = cell.now_us + hours * HOUR_US
    while cell.now_us < until_us and any(
        each["state"] != "failed" for each in cell.core.hand_overs.listing()
    ):
        cell.run_until(cell.now_us + 10 * MINUTE_US)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_last_holder_dies_and_another_takes_over_by_air(seed: int) -> None:
    """Goal: an expert whose only holder is dead answers again: the node that took it over, and it is named.

    Method: the firmware itself puts the container together, over air that loses a fifth; then a question on
    air that loses nothing.
    """
    cell = forsaken(seed=seed)
    told = {each["expert"]: each["source"] for each in asked(cell)["experts"]}
    assert told[LOST] is None and cell.nodes.judgement(ASKER).missing

    (step,) = plan(cell)
    assert (step.dev_eui, step.load, step.drop, step.way) == (dev_eui(HEIR), (LOST,), (), Way.AIR)
    carry_out(cell)
    assert held(cell, HEIR) == {*HELD[HEIR], LOST} == set(step.experts)
    assert cell.receivers.block(HEIR) == with_experts(IMAGE, step.experts)
    assert not cell.rows.get("hand_over") and not plan(cell)
    (begun,), (ended,) = cell.told("hand_over_begun"), cell.told("hand_over_ended")
    assert begun.data["dev_eui"] == ended.data["dev_eui"] == dev_eui(HEIR)
    assert begun.data["descriptor"] == ended.data["descriptor"] == step.name

    cell.loss = 0.0
    answer = asked(cell)
    assert {each["expert"]: each["source"] for each in answer["experts"]} == {
        int(PICKS[ROW][0]): dev_eui(HEIR),
        LOST: dev_eui(HEIR),
    }
    assert answer["coverage"] == 1.0
    judged = cell.nodes.judgement(ASKER)
    assert (judged.state, judged.missing) == (Judged.TOGETHER, 0)
    alone = MODEL.infer(INPUTS[ROW : ROW + 1], MODEL.base_head(0))[0]
    assert int(np.argmax(judged.probabilities)) == int(alone.argmax())


def test_it_costs_what_the_plan_says_and_nobody_else_takes_it() -> None:
    """Goal: airtime is told before it is spent, and the others keep what they hold."""
    cell = forsaken()
    (step,) = plan(cell)
    carry_out(cell)
    (block,) = cell.core.blocks.listing()
    assert block["complete"] and block["airtime_us"] == pytest.approx(step.airtime_us, rel=0.2)
    assert (block["pieces"], block["size"]) == (step.pieces, step.size)
    took_s = cell.told("hand_over_ended")[0].data["took_s"]
    assert isinstance(took_s, int) and step.least_s < took_s
    states = cell.receivers.states().tolist()
    assert [states[index] for index in (DYING, OTHER, ASKER)] == [BlockState.NONE] * 3
    assert held(cell, OTHER) == HELD[OTHER]


def test_the_gateway_restarts_in_the_middle() -> None:
    """Goal: hand-overs are rows.  Method: the core is built again from them every few minutes."""
    cell = forsaken()
    assert not isinstance(cell.command(WHAT), Refused)
    for _ in range(60):
        cell.run_until(cell.now_us + 7 * MINUTE_US)
        cell.restart_gateway()
        if not cell.core.hand_overs.listing():
            break
    assert held(cell, HEIR) == {*HELD[HEIR], LOST}
    (block,) = cell.core.blocks.listing()
    assert block["frames"] < 2 * block["pieces"]


def test_a_board_without_a_flash_is_served_by_cable() -> None:
    """Goal: who takes no blocks is found out; the plan says so, and tries again when it is named."""
    cell = forsaken(flash_size=0)
    carry_out(cell)
    (failed,) = cell.core.hand_overs.listing()
    assert (failed["dev_eui"], failed["state"], failed["why"]) == (dev_eui(HEIR), "failed", "no answer")
    (step,) = plan(cell)
    assert (step.way, step.load) == (Way.CABLE, (LOST,)) and "no answer" in step.why
    assert isinstance(cell.command(WHAT), Refused)
    (again,) = plan(cell, HandOver(room=5, replicas=1, nodes=(dev_eui(HEIR),)))
    assert again.way is Way.AIR
    cell.command(RemoveNode(dev_eui(HEIR)))
    assert not cell.core.hand_overs.listing() and not cell.rows["hand_over"]


def test_a_board_that_never_runs_what_it_has_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: whoever has the block and says that it holds what it held is not waited for without end."""
    cell = forsaken()
    monkeypatch.setattr(cell.receivers, "install", lambda node, now_us: False)
    carry_out(cell)
    assert cell.told("block_ended")[-1].data["complete"]
    (failed,) = cell.core.hand_overs.listing()
    assert (failed["state"], failed["why"]) == ("failed", "it has the block, and still runs other experts")
    (step,) = plan(cell)
    assert (step.way, step.load) == (Way.CABLE, (LOST,))


def test_a_restart_with_several_blocks_goes_on_with_the_one_that_began() -> None:
    """Goal: blocks of one command, queued at one moment, keep their order as far as one has begun."""
    cell = forsaken()
    assert not isinstance(cell.command(HandOver(room=5, replicas=2, whole=True)), Refused)
    cell.run_until(cell.now_us + HOUR_US)
    begun = [each["descriptor"] for each in cell.core.blocks.listing() if each["frames"]]
    assert len(cell.core.blocks.listing()) > 1 == len(begun)
    others = cell.rows["delivery"]
    cell.rows["delivery"] = {name: others[name] for name in sorted(others, key=lambda name: name in begun)}
    cell.restart_gateway()
    assert cell.core.blocks.listing()[0]["descriptor"] == begun[0]


def test_who_was_brought_all_of_them_says_so_after_a_reset_too() -> None:
    """Goal: a node that nobody asked to serve would not say that it holds all; it was made a holder."""
    cell = forsaken(flags=0)
    carry_out(cell, HandOver(room=8, replicas=1, nodes=(dev_eui(HEIR),), whole=True))
    assert held(cell, HEIR) == ALL
    cell.nodes.reset(HEIR, cell.now_us)
    said_us = cell.now_us
    cell.run_until(cell.now_us + 4 * HOUR_US)
    holder = cell.core.expert_asking.holders.get(dev_eui(HEIR))
    assert holder is not None and holder.reported_us > said_us and held(cell, HEIR) == ALL


def test_what_the_gateway_lacks_itself_is_neither_sent_nor_flashed() -> None:
    cell = forsaken(gateway_model=with_experts(IMAGE, REST))
    (step,) = plan(cell)
    assert step.way is Way.WAITS and step.why == f"the gateway's own model lacks {LOST}"
    assert isinstance(cell.command(WHAT), Refused)


def test_a_removed_holder_is_relieved_and_a_liar_moves_nothing() -> None:
    """Goal: a node that is forgotten leaves its experts to others; one that claims to know of sixteen experts
    does not make the plan ask for what no model has."""
    cell = cell_of(loss=0.0)
    cell.nodes.set_battery(ASKER, 20)
    cell.run_until(8 * HOUR_US)
    assert not plan(cell)
    lie = Experts(5, 0, 0, (15,) * 16)
    cell.core.expert_asking.holders.report(cell.now_us, dev_eui(OTHER), lie)
    cell.command(RemoveNode(dev_eui(DYING)))
    steps = plan(cell)
    assert {expert for step in steps for expert in step.load} == {LOST, *HELD[OTHER]}
    assert all(step.way is Way.AIR for step in steps)


def test_a_second_plan_waits_for_the_first() -> None:
    cell = forsaken()
    assert not isinstance(cell.command(WHAT), Refused)
    (step,) = plan(cell)
    assert step.way is Way.GOING
    assert isinstance(cell.command(WHAT), Refused)
    assert isinstance(cell.command(HandOver(5, 1, nodes=("00" * 8,))), Refused)


def test_the_whole_plan_brings_what_gates_choose_too() -> None:
    """Goal: without `whole` only scarce experts travel."""
    cell = forsaken()
    whole = plan(cell, HandOver(room=5, replicas=1, whole=True))
    assert {step.dev_eui for step in whole} > {step.dev_eui for step in plan(cell)}
    assert all(len(step.experts) <= 5 and step.way is Way.AIR for step in whole)
