"""Experts handed over end to end: real nodes, LoRaWAN, lossy air, the gateway's core, restarts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from simulations.bench.asking_cell import AskingCell, OnAir, dev_eui
from swarm.commands import HandOver, RemoveNode
from swarm.config import Asking, Learning, SwarmConfig
from swarm.hand_over import Way
from swarm.model.container import random_model
from swarm.model.subset import with_experts
from swarm.node import HOLDER, Judged, Model, NodeConfig
from swarm.prng import Prng
from swarm.receiver import BlockState
from swarm.registry import Refused
from swarm.security.signatures import SigningKey

SECOND_US = 1_000_000
HOUR_US = 3600 * SECOND_US
KEY = SigningKey(bytes(range(32)))
IMAGE = random_model(3, generation=5)
MODEL = Model(IMAGE)
INPUTS = Prng(9).child("asking").numpy().integers(-60, 61, (400, 56)).astype(np.int8)
PICKS = MODEL.experts(INPUTS)
ALL = frozenset(range(8))
ASKER, DYING, HEIR, OTHER = range(4)
ROOM = 5
FLASH = 32_768


def node(index: int, held: frozenset[int], signer: bytes | None = KEY.public_key) -> NodeConfig:
    lacks = sum(1 << expert for expert in ALL - held)
    common = {"seed": index, "payload_max": 222, "status_period_s": 900, "ask_retry_s": 3, "flags": HOLDER}
    return NodeConfig(index, 0, ask_below=255, withheld=lacks, signer=signer, **common)


def cell_of(*held: frozenset[int], loss: float = 0.2, seed: int = 2, **changes: Any) -> AskingCell:
    """Class A nodes that lose a fifth of all frames each way, and hold what they hold; no replica answers."""
    config = SwarmConfig(
        learning=Learning(mode="none"),
        asking=Asking(replica=False, expert_deadline_s=3 * 3600),
        dedup_us=0,
        status_period_min=15,
    )
    configs = [
        replace(node(index, mine), **changes.get(f"node_{index}", {})) for index, mine in enumerate(held)
    ]
    flash = {"flash_size": FLASH, "signing_key": changes.get("key", KEY)}
    return AskingCell(configs, [5] * len(held), IMAGE, config, seed=seed, loss=loss, **flash)


def forsaken() -> tuple[AskingCell, int, int]:
    """A cell in which one node alone holds an expert, and dies; that expert, and a row that it is asked for."""
    row = next(i for i, (best, second) in enumerate(PICKS.tolist()) if best < 3 <= second)
    lost = int(PICKS[row][1])
    rest = ALL - {lost}
    first, second = frozenset(sorted(rest)[:4]), frozenset(sorted(rest)[4:])
    cell = cell_of(frozenset(), frozenset({lost}), first, second)
    cell.run_until(8 * HOUR_US)  # all have said what they hold
    cell.silenced.add(DYING)
    cell.run_until(12 * HOUR_US)
    return cell, lost, row


def asked(cell: AskingCell, row: int, hours: int = 3) -> dict[str, Any]:
    """Node 0 asks about one input; what became of it."""
    before = len(cell.told("expert_answered"))
    start_us = cell.now_us
    cell.nodes.judge(ASKER, start_us, INPUTS[row], deadline_s=hours * 3600)
    cell.poll(ASKER)
    cell.run_until(start_us + hours * HOUR_US)
    told = cell.told("expert_answered")[before:]
    return dict(told[-1].data) if told else {}


def held(cell: AskingCell, index: int) -> set[int]:
    """What the gateway knows."""
    holder = cell.core.expert_asking.holders.get(dev_eui(index))
    return set() if holder is None else {expert for expert in ALL if holder.holds(expert)}


def until_over(cell: AskingCell, hours: int = 60) -> None:
    for _ in range(hours):
        if not cell.core.hand_overs.listing():
            return
        cell.run_until(cell.now_us + HOUR_US)


def test_the_last_holder_dies_and_another_takes_over_by_air() -> None:
    """Goal: an expert whose only holder is dead answers again, computed by the node that took it over.

    Method: the firmware's own receivers put the container together, over air that loses a fifth.
    """
    cell, lost, row = forsaken()
    told = asked(cell, row)
    assert {each["expert"]: each["source"] for each in told["experts"]}[lost] is None
    assert cell.nodes.judgement(ASKER).missing

    what = HandOver(room=ROOM, replicas=1)
    (step,) = (each for each in cell.core.hand_overs.plan(cell.now_us, what) if lost in each.load)
    assert step.way is Way.AIR and step.dev_eui in (dev_eui(HEIR), dev_eui(OTHER), dev_eui(ASKER))
    spent = sum(len(frame) for frame in ())
    assert spent == 0 and not isinstance(cell.command(what), Refused)
    until_over(cell)

    heir = int(step.dev_eui[-6:], 16)
    assert lost in held(cell, heir) and held(cell, heir) == set(step.experts)
    begun = {event.data["dev_eui"] for event in cell.told("hand_over_begun")}
    assert begun == {event.data["dev_eui"] for event in cell.told("hand_over_ended")}
    assert cell.receivers.states()[heir] == BlockState.VERIFIED
    assert cell.receivers.block(heir) == with_experts(IMAGE, step.experts)
    assert not cell.rows.get("hand_over")
    told = asked(cell, row)
    by = {each["expert"]: each["source"] for each in told["experts"]}
    if heir != ASKER:
        assert by[lost] == step.dev_eui and told["coverage"] == 1.0
    judged = cell.nodes.judgement(ASKER)
    assert (judged.state, judged.missing) == (Judged.TOGETHER, 0)
    assert int(np.argmax(judged.probabilities)) == int(
        MODEL.infer(INPUTS[row : row + 1], MODEL.base_head(0))[0].argmax()
    )
