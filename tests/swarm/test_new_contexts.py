"""Rounds for crops the model was shipped without: who is invited, who is waited for, what is announced."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from swarm.commands import OpenRound
from swarm.config import Learning, SwarmConfig
from swarm.model.layout import CONTEXTS, CONTEXTS_PUBLIC
from swarm.node import Model
from swarm.wire import app
from tests.swarm import cell as farm
from tests.swarm.cell import Cell, means, messages, open_round, signs

NEW = (2, 3)
"""Node i of the test farm grows crop i % 4; the shipped model knows 0 and 1."""


def settings(mode: str = "prototypes", contexts: str = "new", **learning: object) -> SwarmConfig:
    made = farm.settings(mode, **learning)  # type: ignore[arg-type]
    return replace(made, learning=replace(made.learning, contexts=contexts))  # type: ignore[arg-type]


def announcements(cell: Cell) -> list[app.RoundAnnounce]:
    """What the first device heard of rounds since the last call."""
    return [m for m in messages(cell.receive()[0]) if isinstance(m, app.RoundAnnounce)]


def test_the_shipped_model_knows_its_public_contexts_only() -> None:
    model = Model(farm.MODEL)
    assert [c for c in range(app.CONTEXT_MAX) if model.knows(c)] == list(CONTEXTS_PUBLIC) == [0, 1]
    assert set(NEW) == set(range(len(CONTEXTS))) - set(CONTEXTS_PUBLIC)
    assert Learning().contexts == "all"


@pytest.mark.parametrize(("contexts", "expected", "modes"), [("all", 10, (1, 2)), ("new", 4, (0x81, 0x82))])
def test_the_announcement_carries_the_flag_and_the_round_expects_whom_it_invites(
    contexts: str, expected: int, modes: tuple[int, int]
) -> None:
    """Ten nodes: crops 0 1 2 3 0 1 2 3 0 1, of which four are new.  Both modes, every repetition."""
    for mode, name in zip(modes, ("prototypes", "top_k_sign"), strict=True):
        cell = Cell(config=settings(name, contexts), nodes=10)
        number = open_round(cell)
        (opened,) = cell.told("round_opened")
        assert (opened.data["expected"], opened.data["mode"]) == (expected, name)
        heard = announcements(cell)
        assert [(each.round, each.mode) for each in heard] == [(number, mode)] * 2
        row = cell.rows["round"][str(number)]
        assert row["mode"] == mode & 0x7F, "the flag is the announcement's; the row says what the frames are"


def test_heads_alone_travel_only_while_the_adapter_is_the_shipped_one() -> None:
    """A node that missed a DELTA must not become "current" by heads that need no base."""
    cell = Cell(config=settings("top_k_sign", "new"), nodes=4)
    versions = cell.core.rounds._versions
    kinds = []
    for coordinate in (-1, 0, -1):  # a head, the adapter, a head again
        master = versions.master.copy()
        master[coordinate] += 1.0
        versions.move_to(master, 1, 1)
        assert versions.block is not None
        kinds.append(versions.block.kind)
    assert kinds == [app.BlockKind.HEADS, app.BlockKind.DELTA, app.BlockKind.FULL]


def test_the_cohort_draws_among_the_new_crops() -> None:
    cell = Cell(config=settings(cohort=0.5), nodes=40)
    number = open_round(cell)
    (opened,) = cell.told("round_opened")
    (first, _) = announcements(cell)
    invited = [i for i in range(40) if i % 4 in NEW and app.hash8(i, number) <= first.cohort]
    assert opened.data["expected"] == len(invited)
    assert 3 < len(invited) < 17


@pytest.mark.parametrize("mode", ["prototypes", "top_k_sign"])
def test_the_quorum_of_new_crops_closes_the_round_at_once(mode: str) -> None:
    cell = Cell(config=settings(mode), nodes=8)
    update = means if mode == "prototypes" else signs
    before = cell.core.rounds.mirror()
    number = open_round(cell)
    senders = [i for i in range(8) if i % 4 in NEW]
    for node in senders[:-1]:
        cell.uplink(node, 10, update(node, number))
    assert cell.told("round_closed") == []
    cell.uplink(senders[-1], 10, update(senders[-1], number))
    (closed,) = cell.told("round_closed")
    assert (closed.at_us, closed.data["updates"], closed.data["failure"]) == (cell.now_us, 4, None)
    after = cell.core.rounds.mirror()
    assert after.version == 1
    assert all(np.array_equal(after.heads[c], before.heads[c]) for c in CONTEXTS_PUBLIC)
    assert any(not np.array_equal(after.heads[c], before.heads[c]) for c in NEW)


def test_half_of_the_new_crops_is_half_of_the_quorum() -> None:
    cell = Cell(config=settings(quorum=0.5), nodes=8)
    number = open_round(cell)
    cell.uplink(2, 10, means(2, number))
    assert cell.told("round_closed") == []
    cell.uplink(7, 10, means(7, number))
    assert len(cell.told("round_closed")) == 1


def test_an_update_of_a_shipped_crop_does_not_count_where_it_was_not_invited() -> None:
    """An apple node that sends all the same neither closes the round nor moves the shipped head."""
    cell = Cell(config=settings(), nodes=4)
    number = open_round(cell)
    for node in (0, 1):
        cell.uplink(node, 10, means(node, number))
    refused = [(event.data["dev_eui"], event.data["reason"]) for event in cell.told("update_refused")]
    assert refused == [(farm.dev_eui(node), "not_in_cohort") for node in (0, 1)]
    assert cell.told("round_closed") == [] and not cell.rows.get("update")
    for node in NEW:
        cell.uplink(node, 10, means(node, number))
    (closed,) = cell.told("round_closed")
    assert closed.data["updates"] == 2


def test_only_known_crops_are_a_round_that_waits_for_its_deadline() -> None:
    """Two nodes, apple and tomato: nobody is invited, nobody comes, and the model stays."""
    cell = Cell(config=settings(), nodes=2)
    before = cell.core.rounds.digest()
    open_round(cell)
    (opened,) = cell.told("round_opened")
    assert opened.data["expected"] == 0
    cell.run_for(1200)
    (closed,) = cell.told("round_closed")
    assert (closed.data["updates"], closed.data["failure"]) == (0, "no replies")
    assert cell.core.rounds.digest() == before


def test_the_flag_survives_a_restart_between_opening_and_announcement() -> None:
    """The programme of round 1 is lost with the process: announced again, with its flag, it closes alike."""
    cell = Cell(config=settings(), nodes=8)
    cell.command(OpenRound())
    assert cell.on_air == []
    cell.restart()
    cell.keep_alive()
    cell.run_for(60)
    assert [each.mode for each in announcements(cell)] == [0x81, 0x81]
    for node in (2, 3, 6, 7):
        cell.uplink(node, 10, means(node, 1))
    (closed,) = cell.told("round_closed")
    assert closed.data["updates"] == 4
