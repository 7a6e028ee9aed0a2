"""Large blocks through the real coordinator, scheduler and ledger to the firmware's own receivers."""

from __future__ import annotations

from swarm.commands import SendBlock
from swarm.prng import Prng
from tests.swarm.blocks_farm import BlockFarm
from tests.swarm.cell import air_is_legal, counters_never_repeat, stored_before_sent

BLOCK = Prng(20).child("block").numpy().bytes(20_000)


def test_fifty_nodes_receive_20_kb_while_a_fifth_is_lost_and_the_gateway_refuses() -> None:
    farm = BlockFarm(50, BLOCK, loss=0.2, refuse=0.05)
    assert farm.cell.command(SendBlock(BLOCK)) is None
    farm.run(hours=10)
    (ended,) = farm.cell.told("block_ended")
    print(ended.data)
    assert ended.data["complete"] and ended.data["whole"] == 50
    assert all(node.device.block() == BLOCK for node in farm.nodes)
    air_is_legal(farm.cell)
    counters_never_repeat(farm.cell.on_air)
    stored_before_sent(farm.cell.effects)
