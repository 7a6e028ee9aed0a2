"""Nodes that lie about a block: they cost what is bounded, and nobody else a fragment."""

from __future__ import annotations

from typing import Any

import pytest

from swarm.commands import SendBlock
from swarm.prng import Prng
from swarm.transport.delivery import CONFIRM_POLLS, TRIES_MAX, Phase, Plan, State
from swarm.transport.device import Answer, Heard
from swarm.wire import fragmentation as ts004
from swarm.wire.packages import Package, PackageVersionAns
from tests.swarm import cell as farm
from tests.swarm.test_delivery import Cell, block_of

HONEST, LIARS = 12, 4
SECOND_US = 1_000_000


class Liar:
    """Says at random, to all that it hears, whatever TS004 has words for; `always`: this one status alone."""

    def __init__(self, seed: int, version: int, index: int, always: ts004.Uplink | None = None) -> None:
        self.draw = Prng(seed).child("lies").numpy()
        self.version, self.index, self.always = version, index, always

    def rx(self, payload: bytes, group: int | None = None) -> tuple[Heard, Answer | None]:
        command = self.always or self._lie()
        return Heard.NOTHING, Answer(1000, ts004.encode(command, self.version))

    def _lie(self) -> ts004.Uplink:
        index = self.index if self.draw.random() < 0.8 else int(self.draw.integers(4))
        received, missing = int(self.draw.integers(1 << 14)), int(self.draw.integers(256))
        flags = [bool(self.draw.random() < 0.2) for _ in range(4)]
        newer = {"mic_error": flags[1], "no_session": flags[2]} if self.version == 2 else {}
        lies: list[ts004.Uplink] = [
            ts004.FragSessionStatusAns(index, received, missing, flags[0], **newer),
            ts004.FragSessionStatusAns(index, received % 64, missing % 8, flags[0], **newer),
            ts004.FragSessionSetupAns(index, *flags),
            PackageVersionAns(Package.FRAGMENTATION, self.version + flags[3]),
        ]
        if self.version == 2:
            lies.append(ts004.FragDataBlockReceivedReq(index, mic_error=flags[0]))
        return lies[int(self.draw.integers(len(lies)))]


def cell_of(version: int, always: ts004.Uplink | None = None, *, seed: int = 1, liars: int = LIARS) -> Cell:
    plan = Plan(block_of(2000), 40, version=version, index=2, session_cnt=9, stragglers=0)
    cell = Cell(plan, HONEST + liars, seed=seed, loss=0.1, restarts=0.05)
    for i in range(liars):
        liar: Any = Liar(seed * 100 + i, version, plan.index, always)
        cell.devices[f"node-{HONEST + i:04}"] = liar
    return cell


def judged(cell: Cell) -> None:
    """The honest have the block; what went to the group and to each liar has its bound."""
    delivery, plan = cell.delivery, cell.plan
    assert delivery.phase == Phase.REPAIR and delivery.done
    for i in range(HONEST):
        assert delivery.state(f"node-{i:04}") == (State.WHOLE, "")
        assert cell.devices[f"node-{i:04}"].block() == plan.block
    to_all = [payload[0] for node_id, payload in cell.sent if not node_id]
    assert to_all.count(8) <= 2 * delivery.nb_frag
    assert to_all.count(1) <= delivery.nb_frag + CONFIRM_POLLS + 1
    for node_id in cell.devices:
        alone = [payload[0] for who, payload in cell.sent if who == node_id]
        assert alone.count(8) <= plan.repair_max
        assert len(alone) < plan.repair_max + 6 * TRIES_MAX


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("seed", range(6))
def test_whatever_liars_say_the_others_have_the_block_and_it_ends(version: int, seed: int) -> None:
    cell = cell_of(version, seed=seed)
    cell.run(repairs=200)
    judged(cell)


@pytest.mark.parametrize(
    "always",
    [
        ts004.FragSessionStatusAns(2, 0, 255),
        ts004.FragSessionStatusAns(2, 16_383, 1),
        ts004.FragSessionStatusAns(2, 0, 0),
        ts004.FragSessionStatusAns(2, 3, 0, memory_error=True),
        ts004.FragSessionStatusAns(1, 50, 0),
        ts004.FragSessionStatusAns(2, 0, 0, no_session=True),
        ts004.FragSessionSetupAns(2, session_cnt_replay=True),
        ts004.FragDataBlockReceivedReq(1, mic_error=True),
    ],
)
def test_one_word_for_ever_ends_too(always: ts004.Uplink) -> None:
    cell = cell_of(2, always)
    cell.run(repairs=300)
    judged(cell)
    for i in range(HONEST, HONEST + LIARS):
        assert cell.delivery.state(f"node-{i:04}")[0] == State.LEFT


def test_who_says_it_has_it_all_is_believed_for_itself_alone() -> None:
    """A node may have the block from before; that it lies costs itself the block, and nobody else."""
    cell = cell_of(2, ts004.FragSessionStatusAns(2, 16_383, 0))
    cell.run()
    judged(cell)
    assert cell.delivery.count(State.WHOLE) == HONEST + LIARS


def test_more_missing_than_there_is_costs_the_group_what_all_missing_does() -> None:
    to_all = []
    for missing in (50, 255):
        cell = cell_of(2, ts004.FragSessionStatusAns(2, 0, missing), liars=1)
        cell.run(repairs=300)
        judged(cell)
        assert cell.delivery.nb_frag == 50
        to_all.append([payload for node_id, payload in cell.sent if not node_id])
    assert to_all[0] == to_all[1]


def test_who_is_not_meant_says_what_it_likes() -> None:
    cell = farm.Cell(nodes=2)
    cell.command(SendBlock(block_of(300), (farm.dev_eui(0),)))
    (block,) = cell.core.blocks.listing()
    rows = {key: dict(row) for key, row in cell.rows["delivery_node"].items()}
    for index in range(4):
        for said in (ts004.FragSessionStatusAns(index, 500, 0), ts004.FragDataBlockReceivedReq(index, False)):
            cell.uplink(1, 201, ts004.encode(said, 2))
    assert cell.rows["delivery_node"] == rows and len(rows) == 1
    assert cell.core.blocks.listing() == [{**block, "state": cell.core.blocks.listing()[0]["state"]}]
    assert not [each for each in cell.told("dropped") if each.data["reason"] != "f_port"]
