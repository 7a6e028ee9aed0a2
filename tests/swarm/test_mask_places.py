"""A place in a masking group belongs to the node that was provisioned for it, whoever claims it first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from swarm.federation.sums_plan import plan_of
from swarm.registry import Refused
from swarm.wire import app
from tests.swarm.cell import CONTEXTS, add_node
from tests.swarm.masked_cell import MaskedCell

HOSTILE = 11
"""Of the second group (number 4), at position 3."""


def false_vector(
    cell: MaskedCell, number: int, context: int, group: int, position: int, size: int
) -> list[bytes]:
    """Noise in the place of a member, as fragments."""
    draw = np.random.default_rng(5)
    bits = plan_of(cell.cell.config.learning.privacy).bits
    values = tuple(int(value) for value in draw.integers(0, 1 << bits, 273))
    whole = app.encode(app.MaskedSums(number, 0, context, group, position, size, 3, bits, values))
    slices = [whole[at : at + 216] for at in range(0, len(whole), 216)]
    head = (number, app.RoundMode.MASKED_SUMS)
    return [app.encode(app.Fragment(*head, at, len(slices), data)) for at, data in enumerate(slices)]


def claim(cell: MaskedCell, device: int, group: int, position: int, size: int) -> None:
    """A node sends a vector of this place in the round that is open."""
    number = cell.cell.core.rounds.last_round
    assert number is not None
    for payload in false_vector(cell, number, device % CONTEXTS, group, position, size):
        cell.cell.uplink(device, 10, payload)


def is_sum_of(cell: MaskedCell, members: list[int]) -> bool:
    plan = plan_of(cell.cell.config.learning.privacy)
    off = np.abs(cell.totals() - cell.truth(members))
    linear, square = len(members) << plan.shift_linear, len(members) << plan.shift_square
    return bool((off[:3] == 0).all() and off[3:63].max() <= linear and off[63:].max() <= square)


def refusals(cell: MaskedCell) -> list[tuple[object, object]]:
    return [(event.data["dev_eui"], event.data["reason"]) for event in cell.cell.told("update_refused")]


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize(
    ("position", "size"), [(0, 8), (7, 8), (2, 4)], ids=["the first", "the last", "another size"]
)
def test_a_claimed_place_costs_its_owner_nothing(position: int, size: int, restarts: bool) -> None:
    """A member of another group is first, in the place of each or with a false size: all are summed up."""
    cell = MaskedCell(groups=2)
    cell.observe()
    cell.open()
    claim(cell, CONTEXTS * HOSTILE, 3, position, size)
    if restarts:
        cell.cell.restart()
    assert refusals(cell) == [(add_node(CONTEXTS * HOSTILE).dev_eui, "wrong_place")]
    cell.step(1300, lambda node, payload: node == HOSTILE and payload[0] in (3, 8))
    cell.wake([node for node in range(8, 16) if node != HOSTILE])
    cell.step(60)
    assert is_sum_of(cell, [node for node in range(16) if node != HOSTILE])


def test_what_is_in_its_own_place_counts_still() -> None:
    """After the false claim a node may take part as itself."""
    cell = MaskedCell(groups=2)
    cell.observe()
    cell.open()
    claim(cell, CONTEXTS * HOSTILE, 3, 0, 8)
    cell.step(1300)
    assert is_sum_of(cell, list(range(16)))


def test_a_node_without_a_place_claims_none() -> None:
    """Not even one that nobody has: in this cell all members of groups are known."""
    cell = MaskedCell(groups=1)
    cell.observe()
    cell.open()
    claim(cell, 1, 9, 0, 4)
    assert refusals(cell) == [(add_node(1).dev_eui, "wrong_place")]


def test_a_cell_whose_places_nobody_told_believes_what_it_hears() -> None:
    """Imported before there were places: as before, the first to claim one has it, and its owner is out."""
    cell = MaskedCell(groups=2, places=False)
    cell.observe()
    cell.open()
    claim(cell, CONTEXTS * HOSTILE, 3, 0, 8)
    assert not refusals(cell)
    cell.step(600)
    assert (add_node(0).dev_eui, "implausible") in refusals(cell)


def test_a_place_belongs_to_one_node_and_stays_known() -> None:
    cell = MaskedCell(groups=1)
    taken = cell.cell.command(replace(add_node(CONTEXTS), mask_place="3/0/8"))
    assert isinstance(taken, Refused) and taken.in_the_way == add_node(0).dev_eui
    assert "3/0/8" in taken.reason
    # A table of before the places were told does not take them away, nor does a restart.
    assert cell.cell.command(replace(add_node(0), plot="elsewhere")) is None
    cell.cell.restart()
    entry = cell.cell.core.registry.get(add_node(0).dev_eui)
    assert entry is not None and (entry.record.plot, entry.record.mask_place) == ("elsewhere", "3/0/8")
    assert cell.cell.rows["node"][entry.record.dev_eui]["mask_place"] == "3/0/8"
