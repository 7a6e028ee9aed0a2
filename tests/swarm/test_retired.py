"""Keys that come back go on where they stopped, and nobody's identity is taken over by a typing mistake."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swarm.commands import OpenRound, RemoveNode
from swarm.registry import Refused
from tests.swarm.cell import GROUP, Cell, add_node, counters_never_repeat, dev_eui, key, status


@pytest.mark.parametrize("restart", [False, True])
def test_a_removed_node_that_returns_repeats_no_counter(restart: bool) -> None:
    cell = Cell()
    sent = cell.uplink(1, 12, status(), confirmed=True)
    cell.command(RemoveNode(dev_eui(1)))
    if restart:
        cell.restart()
    assert cell.command(add_node(1)) is None
    cell.run_for(5)
    cell.hear(sent.payload, sent)
    cell.run_for(1)
    assert cell.dropped() == [], "the recorded frame is a retransmission at most, never a new one"
    assert len(cell.told("uplink")) <= 2
    cell.uplink(1, 12, status(), confirmed=True)
    counters_never_repeat(cell.on_air)
    assert cell.rows["session"][dev_eui(1)]["f_cnt_up"] == 1
    assert not cell.rows["retired"], "the keys are in use again"


def test_a_recorded_join_is_worthless_after_remove_and_add() -> None:
    cell = Cell(activation="otaa", nodes=1)
    request = cell.devices[0].join(cell.now_us)
    cell.run_until(request.end_us)
    cell.hear(request.payload, request)
    cell.run_for(1)
    assert len(cell.joins()) == 1
    cell.command(RemoveNode(dev_eui(0)))
    cell.restart()
    assert cell.command(add_node(0, "otaa")) is None
    cell.run_for(10)
    cell.hear(request.payload, request)
    cell.run_for(1)
    assert cell.dropped() == ["dev_nonce"]
    assert cell.rows["node"][dev_eui(0)]["join_nonce"] == 1


@pytest.mark.parametrize("restart", [False, True])
def test_a_multicast_group_that_returns_keeps_its_counter(restart: bool) -> None:
    cell = Cell()
    cell.command(OpenRound())
    cell.run_for(60)
    used = cell.rows["multicast"]["cell"]["f_cnt"]
    assert isinstance(used, int) and used > 0
    other = replace(GROUP, mc_addr=GROUP.mc_addr + 1, nwk_s_key=key(8, 0))
    refused = cell.command(other)
    assert isinstance(refused, Refused) and "--replace-multicast" in refused.reason
    assert cell.command(GROUP) is None, "the cell's own group changes nothing"
    assert cell.rows["multicast"]["cell"]["f_cnt"] == used
    assert cell.command(replace(other, replace=True)) is None
    assert cell.rows["multicast"]["cell"]["f_cnt"] == 0
    if restart:
        cell.restart()
    assert cell.command(replace(GROUP, replace=True)) is None
    assert cell.rows["multicast"]["cell"]["f_cnt"] == used
    assert len(cell.told("multicast_set")) == 3


def test_another_key_or_name_is_refused_and_changes_nothing() -> None:
    cell = Cell()
    before = {table: dict(rows) for table, rows in cell.rows.items()}
    other_key = cell.command(replace(add_node(0), nwk_s_key=key(9, 0)))
    assert isinstance(other_key, Refused) and "other keys" in other_key.reason
    joins_now = cell.command(add_node(0, "otaa"))
    assert isinstance(joins_now, Refused) and "other keys" in joins_now.reason
    namesake = cell.command(replace(add_node(9), name="NODE-1"))
    assert isinstance(namesake, Refused) and f"belongs to {dev_eui(1)}" in namesake.reason
    assert cell.rows == before


def test_the_receive_delay_of_a_known_node_can_change() -> None:
    cell = Cell()
    cell.uplink(0, 12, status())
    assert cell.command(replace(add_node(0), rx1_delay_s=5)) is None
    assert cell.rows["session"][dev_eui(0)]["rx1_delay_us"] == 5_000_000
    assert cell.rows["session"][dev_eui(0)]["f_cnt_up"] == 0, "the same session goes on"
