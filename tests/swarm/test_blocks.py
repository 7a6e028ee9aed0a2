"""Large blocks through the real coordinator, scheduler and ledger to the firmware's own receivers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.commands import CancelBlock, SendBlock
from swarm.config import Multicast
from swarm.prng import Prng
from swarm.registry import Refused
from swarm.wire import fragmentation as ts004
from tests.swarm.blocks_farm import BlockFarm
from tests.swarm.cell import (
    SECOND_US,
    Cell,
    air_is_legal,
    counters_never_repeat,
    dev_eui,
    status,
    stored_before_sent,
)
from tests.swarm.cell import settings as cell_settings

BLOCK = Prng(20).child("block").numpy().bytes(20_000)
SMALL = Prng(21).child("block").numpy().bytes(1000)


def judged(farm: BlockFarm) -> None:
    """Whatever happened: the law, the counters, and the order on the disk."""
    air_is_legal(farm.cell)
    counters_never_repeat(farm.cell.on_air)
    stored_before_sent(farm.cell.effects)


def test_fifty_nodes_receive_20_kb_while_a_fifth_is_lost_and_the_gateway_refuses() -> None:
    """Goal: the issue's demands in the wired form.  Method: 50 C receivers, 20 % loss both ways, a gateway
    that refuses every twentieth frame, rounds in between; then bytes, law and airtime are compared."""
    farm = BlockFarm(50, BLOCK, loss=0.2, refuse=0.05)
    assert farm.cell.command(SendBlock(BLOCK)) is None
    farm.run(hours=16)
    (ended,) = farm.cell.told("block_ended")
    assert ended.data["complete"]
    assert ended.data["whole"] == ended.data["nodes"] == 50
    assert all(node.device.block() == BLOCK for node in farm.nodes)
    assert int(str(ended.data["airtime_us"])) < 1.5 * int(str(ended.data["minimum_us"]))
    assert len(farm.cell.told("round_opened")) > 2  # rounds went on meanwhile
    assert not farm.cell.told("programme_cut")
    spent_us = sum(t.airtime_us for t in farm.cell.on_air if t.purpose in ("model", "repair"))
    assert int(str(ended.data["airtime_us"])) <= spent_us
    judged(farm)


@pytest.mark.parametrize("version", [1, 2])
def test_where_nothing_is_lost_hardly_more_than_the_pieces_is_sent(version: int) -> None:
    farm = BlockFarm(5, SMALL, loss=0.0, version=version)
    assert farm.cell.command(SendBlock(SMALL, loss=0.0, version=version)) is None
    farm.run(hours=3)
    (ended,) = farm.cell.told("block_ended")
    assert ended.data["complete"]
    assert ended.data["pieces"] == 9
    assert int(str(ended.data["fragments_sent"])) <= 9 + 8
    assert all(node.device.block() == SMALL for node in farm.nodes)
    judged(farm)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, 400), min_size=1, max_size=12, unique=True), st.integers(0, 1 << 16))
def test_killed_at_any_point_the_same_frames_go_on(after: list[int], seed: int) -> None:
    """Goal: nothing of a delivery is forgotten by a kill, nothing sent twice but what was in flight.  Method:
    the coordinator is made anew from its rows at random numbers of effects."""
    farm = BlockFarm(4, SMALL, loss=0.2, refuse=0.1, seed=seed, kill_at=after)
    assert farm.cell.command(SendBlock(SMALL)) is None
    farm.run(hours=40)
    (ended,) = farm.cell.told("block_ended")
    assert ended.data["complete"]
    assert all(node.device.block() == SMALL for node in farm.nodes)
    assert not farm.cell.rows["block"] and not farm.cell.rows["delivery_node"]
    judged(farm)


def test_a_restart_asks_for_the_very_next_fragment() -> None:
    farm = BlockFarm(3, BLOCK, loss=0.0)
    farm.cell.command(SendBlock(BLOCK))
    farm.run(hours=2, until=lambda: len(farm.fragments) >= 60)
    sent = len(farm.fragments)
    farm.cell.restart()
    farm.cell.keep_alive()
    farm.run(hours=2)
    numbers = [fragment.n for fragment in farm.fragments]
    assert sent >= 60
    assert len(numbers) >= 179
    assert numbers == list(range(1, len(numbers) + 1))


def test_without_rounds_each_node_is_offered_the_block_after_its_uplink() -> None:
    farm = BlockFarm(5, SMALL, loss=0.1, config=cell_settings("none"))
    farm.cell.command(SendBlock(SMALL))
    farm.run(hours=12)
    (ended,) = farm.cell.told("block_ended")
    assert ended.data["complete"]
    assert not farm.cell.told("round_opened")
    judged(farm)


def test_blocks_wait_for_one_another_and_can_be_cancelled() -> None:
    cell = Cell(nodes=2)
    blocks = [bytes((i,)) * 200 for i in range(9)]
    refused = [cell.command(SendBlock(block)) for block in blocks]
    assert refused[:8] == [None] * 8
    assert isinstance(refused[8], Refused) and "8 blocks wait" in refused[8].reason
    assert [each["state"] for each in cell.core.blocks.listing()] == ["prepares", *["waits"] * 7]
    again = cell.command(SendBlock(blocks[1]))
    assert isinstance(again, Refused) and "on its way already" in again.reason
    for each in cell.core.blocks.listing():
        assert cell.command(CancelBlock(bytes.fromhex(each["descriptor"]))) is None
    assert [each["state"] for each in cell.core.blocks.listing()] == ["ended"] * 8
    assert isinstance(cell.command(CancelBlock(bytes(4))), Refused)
    cell.restart()
    assert [each["state"] for each in cell.core.blocks.listing()] == ["ended"] * 8
    assert not cell.rows["block"]


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (SendBlock(b""), "1 to 65536 bytes"),
        (SendBlock(bytes(65_537)), "1 to 65536 bytes"),
        (SendBlock(b"x", ("70b3d57edfffffff",)), "no node has the DevEUI"),
        (SendBlock(b"x", ()), "1 to 10000 nodes"),
        (SendBlock(b"x", loss=0.95), "0 to 0.9"),
        (SendBlock(b"x", version=3), "version"),
    ],
)
def test_what_cannot_be_delivered_is_refused_in_one_line(command: SendBlock, why: str) -> None:
    refused = Cell(nodes=1).command(command)
    assert isinstance(refused, Refused)
    assert why in refused.reason and "\n" not in refused.reason


def test_a_silent_node_is_given_up_and_the_next_block_has_its_turn() -> None:
    farm = BlockFarm(3, SMALL, loss=0.0)
    farm.deaf = {2}
    other = bytes(reversed(SMALL))
    farm.cell.command(SendBlock(SMALL))
    farm.cell.command(SendBlock(other, (dev_eui(0), dev_eui(1))))
    farm.run(hours=8)
    (ended,) = farm.cell.told("block_ended")
    assert ended.data["left"] == {dev_eui(2): "not heard"}
    assert [each["state"] for each in farm.cell.core.blocks.listing()] != ["ended", "waits"]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([200, 201, 202, 203]), st.binary(max_size=60))
def test_any_bytes_on_the_packages_ports_change_nothing_they_must_not(f_port: int, payload: bytes) -> None:
    farm = HOSTILE
    before = farm.cell.core.blocks.listing()[0]["whole"]
    farm.cell.uplink(0, f_port, payload)
    assert farm.cell.core.blocks.listing()[0]["nodes"] == 2
    assert farm.cell.core.blocks.listing()[0]["whole"] == before


HOSTILE = BlockFarm(2, SMALL, loss=0.0)
HOSTILE.cell.command(SendBlock(SMALL, (dev_eui(1),) * 2 + (dev_eui(0),)))


def test_malformed_commands_are_counted_with_their_reason() -> None:
    cell = Cell(nodes=1)
    cell.command(SendBlock(SMALL))
    for f_port, payload in ((200, b"\x77"), (201, b"\x01"), (202, b"\x01\x00"), (203, b"\x05"), (201, b"")):
        cell.uplink(0, f_port, payload)
    assert cell.dropped() == ["cid", "size", "size", "cid", "size"]
    assert cell.core.counters["dropped:size"] == 3


def test_the_next_round_goes_before_the_block() -> None:
    """A block that takes hours at this rate: windows of rounds open in time and are sent whole."""
    slow = replace(cell_settings(), multicast=Multicast(data_rate=0, repeats=1))
    farm = BlockFarm(2, BLOCK, loss=0.0, config=slow)
    farm.cell.command(SendBlock(BLOCK))
    farm.run(hours=5, until=lambda: len(farm.cell.told("programme_sent")) >= 4)
    opened, sent = farm.cell.told("round_opened"), farm.cell.told("programme_sent")
    assert len(sent) >= 3
    assert all(s.at_us - o.at_us < 120 * SECOND_US for o, s in zip(opened, sent, strict=False))
    assert not farm.cell.told("programme_cut")
    judged(farm)


def test_an_answer_of_another_session_is_nobody_s() -> None:
    cell = Cell(nodes=1)
    cell.command(SendBlock(SMALL))
    index = ts004.FragSessionStatusAns(0, 500, 0)
    cell.uplink(0, 201, ts004.encode(index, 2))
    cell.uplink(0, 12, status())
    assert cell.core.blocks.listing()[0]["whole"] == 0
