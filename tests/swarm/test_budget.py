"""The gateway's privacy books: what each node has spent, who is left, over restarts and changed settings."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.config import Privacy
from swarm.effects import Row, Store
from swarm.federation.accountant import composed, delta_of
from swarm.federation.budget import Budgets
from swarm.federation.sums_plan import mu_of_plan
from swarm.registry import Refused
from swarm.wire.app import Fragment, RoundMode
from tests.swarm.cell import dev_eui, means
from tests.swarm.masked_cell import MaskedCell

NODE = dev_eui(0)
MASKED = RoundMode.MASKED_SUMS


def sums_of_round(number: int) -> Fragment:
    """The first slice of a vector for this round."""
    return Fragment(number, RoundMode.MASKED_SUMS, 0, 2, bytes(16))


class Books:
    """Budgets with their rows, rebuilt from them whenever asked."""

    def __init__(self, **privacy: float) -> None:
        self.rows: dict[str, Row] = {}
        self.reopen(**privacy)

    def reopen(self, **privacy: float) -> None:
        self.budgets = Budgets(Privacy(**privacy), self.rows)  # type: ignore[arg-type]
        self.budgets.asked = self.budgets.plan

    def charge(self, number: int) -> bool:
        effects, affordable = self.budgets.charge(NODE, sums_of_round(number))
        for effect in effects:
            assert isinstance(effect, Store) and effect.table == "privacy" and effect.row is not None
            self.rows[effect.key] = effect.row
        return affordable


@given(epsilon=st.floats(0.5, 20.0), releases=st.integers(1, 20))
def test_as_many_rounds_as_were_planned_and_epsilon_is_kept(epsilon: float, releases: int) -> None:
    """Goal: `releases` rounds fit, the next does not, and what was spent is within (epsilon, delta)."""
    books = Books(epsilon=epsilon, releases=releases)
    for number in range(1, releases + 1):
        assert not books.budgets.spent(NODE, MASKED)
        assert books.charge(number) and books.charge(number)  # its second fragment costs nothing
        books.reopen(epsilon=epsilon, releases=releases)
    view = books.budgets.view(NODE)
    assert view is not None and books.budgets.spent(NODE, MASKED) and view["spent"]
    assert view["releases"] == releases and view["epsilon"] <= round(epsilon, 4)  # type: ignore[operator]
    mu = composed([mu_of_plan(books.budgets.plan)] * releases)
    assert delta_of(mu, epsilon) <= 1e-5
    assert not books.charge(releases + 1) and not books.charge(releases + 1)


def test_a_smaller_epsilon_counts_what_was_spent_before() -> None:
    """Two rounds under epsilon 8 over 4: under epsilon 2 nothing is left, under 8 again two more are."""
    books = Books(epsilon=8.0, releases=4)
    for number in (1, 2):
        assert books.charge(number)
    books.reopen(epsilon=2.0, releases=10)
    assert books.budgets.spent(NODE, MASKED)
    books.reopen(epsilon=8.0, releases=4)
    assert not books.budgets.spent(NODE, MASKED)


def test_rounds_without_noise_promise_nothing_and_are_said_to() -> None:
    """They have no epsilon, and count as rounds, as they do on the node."""
    books = Books()
    assert books.charge(1) and not books.budgets.spent(NODE, MASKED)
    assert math.isinf(books.budgets._limit)
    view = books.budgets.view(NODE)
    assert view is not None and view["epsilon"] is None and view["without_noise"] == 1
    books.reopen(epsilon=8.0, releases=1)
    assert books.budgets.spent(NODE, MASKED)
    books.reopen(epsilon=8.0, releases=2)
    assert not books.budgets.spent(NODE, MASKED)


def test_other_modes_are_not_held_up() -> None:
    """A node without budget answers a round of signs; frames of other modes cost nothing."""
    books = Books(epsilon=8.0)
    assert books.charge(1) and books.budgets.spent(NODE, MASKED)
    assert not books.budgets.spent(NODE, RoundMode.TOP_K_SIGN)
    other = Fragment(2, RoundMode.DENSE_INT8, 0, 3, bytes(16))
    assert books.budgets.charge(NODE, other) == ([], True)
    books.budgets.asked = None
    assert books.budgets.charge(NODE, sums_of_round(2)) == ([], True)


@pytest.mark.parametrize("restart", [False, True])
def test_a_cell_expects_and_opens_nothing_once_budgets_are_spent(restart: bool) -> None:
    """Goal: one round is paid for; then the gateway says so itself, though it was killed in between."""
    cell = MaskedCell(privacy=Privacy(epsilon=8.0))
    cell.observe()
    number = cell.open()
    silent = lambda node, payload: node == 7  # noqa: E731
    cell.step(1300, silent)
    if restart:
        cell.cell.restart()
    cell.wake(list(range(7)))
    cell.step(60)
    assert cell.cell.told("round_closed")[-1].data["updates"] == 7
    rounds = cell.cell.core.rounds
    assert 7.5 < rounds.history()[-1]["epsilon"] <= 8.0  # sigmas are whole steps, rounded up
    budgets = [rounds.budgets.view(dev_eui(4 * node)) for node in range(8)]
    assert [view is not None and view["spent"] for view in budgets] == [True] * 7 + [False]
    cell.open()
    opened = cell.cell.told("round_opened")[-1].data
    assert (opened["expected"], opened["spent"]) == (32 - 7, 7)  # others of the cell were never heard
    # A node that does not keep to its own count is refused before anything of it is kept.
    late = [payload for node, payload in cell.sent if node == 0]
    again = late[0][:1] + (number + 1).to_bytes(2, "little") + late[0][3:]
    cell.cell.uplink(0, 10, again)
    assert cell.cell.told("update_refused")[-1].data["reason"] == "budget"
    assert not cell.cell.rows.get("fragment")


def test_a_vector_that_comes_too_late_was_given_away_all_the_same() -> None:
    """In the repair, and after the round: refused, and booked; frames of other modes are none of this."""
    cell = MaskedCell(privacy=Privacy(epsilon=8.0))
    cell.observe()
    number = cell.open()
    cell.step(1300, lambda node, payload: node in (6, 7))
    budgets = cell.cell.core.rounds.budgets
    assert budgets.view(dev_eui(24)) is None and budgets.view(dev_eui(28)) is None
    late = {node: next(payload for sender, payload in cell.sent if sender == node) for node in (6, 7)}
    cell.cell.uplink(24, 10, late[6])
    assert cell.cell.told("update_refused")[-1].data["reason"] == "repairing"
    cell.wake(list(range(6)))
    cell.step(60)
    assert cell.cell.core.rounds.current is None
    cell.cell.uplink(28, 10, late[7])
    cell.cell.uplink(1, 10, means(1, number))
    assert cell.cell.told("update_refused")[-1].data["reason"] == "closed"
    accounts = [budgets.view(dev_eui(node)) for node in (24, 28, 1)]
    assert [account and account["spent"] for account in accounts] == [True, True, None]
    assert set(cell.cell.rows["privacy"]) == {dev_eui(4 * node) for node in range(8)}


def test_a_round_is_not_opened_by_hand_for_nobody() -> None:
    cell = MaskedCell(privacy=Privacy(epsilon=8.0))
    core = cell.cell.core
    for entry in core.registry:
        core.rounds.budgets.asked = core.rounds.budgets.plan
        core.rounds.budgets.charge(entry.record.dev_eui, sums_of_round(1))
    refused = core.rounds.open_now(cell.cell.now_us)
    assert isinstance(refused, Refused) and "privacy budget of all nodes is spent" in refused.reason
