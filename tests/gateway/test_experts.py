"""What the API says of experts: who holds which, and the plan; over the core that real nodes reported to."""

from __future__ import annotations

from gateway.api import views
from simulations.bench.asking_cell import AskingCell, dev_eui
from swarm.config import Asking, Learning, SwarmConfig
from swarm.model.container import random_model
from swarm.node import ALWAYS_ON, HOLDER, NodeConfig

SECOND_US = 1_000_000


def test_holders_and_plan_are_told_as_nodes_reported_them() -> None:
    config = SwarmConfig(learning=Learning(mode="none"), asking=Asking(), dedup_us=0, status_period_min=60)
    nodes = [
        NodeConfig(0, 0, status_period_s=3600, payload_max=222, flags=HOLDER | ALWAYS_ON),
        NodeConfig(1, 0, status_period_s=3600, payload_max=222, withheld=0xFC),
        NodeConfig(2, 0, status_period_s=3600, payload_max=222),  # holds all and is not told to serve: silent
    ]
    cell = AskingCell(nodes, [5, 5, 0], random_model(3, generation=4), config, seed=1)
    cell.run_until(4000 * SECOND_US)
    told = views.experts(cell.core)
    assert (told["generation"], told["here"], told["open"]) == (4, list(range(8)), 0)
    held = {each["dev_eui"]: (each["name"], each["held"], each["always_on"]) for each in told["holders"]}
    assert held == {
        dev_eui(0): ("node-0", list(range(8)), True),
        dev_eui(1): ("node-1", [0, 1], False),
    }
    plan = views.placement(cell.core, cell.now_us, room=4, replicas=1)
    assert plan["coverage"] == [1] * 8  # two nodes, room for four each, every expert once
    assert [set(row["load"]) & set(row["drop"]) for row in plan["plan"]] == [set(), set()]
    assert [len(row["experts"]) for row in plan["plan"]] == [4, 4]
