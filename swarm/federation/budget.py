"""The gateway's books of differential privacy: what each node's samples were exposed to, and what is left.

Theory of operation.  A node is charged for a round of masked sums when the first frame of its vector is
heard, whether or not the vector counts in the end: what was on the air cannot be taken back.  Releases add up
as mu^2 (`federation.accountant`).  A node's budget is spent when one more round would cost more than the
settings' (epsilon, delta), or when it took part in as many rounds as the plan allows, as the node itself
counts them.  Who is spent is not expected any more, and refused.

    charge --first frame of a round--> the row to store, or none where the round is charged already

A vector of which nothing was heard is not in these books; the node counts it (`swn_masked_allowed`), so it
may stop earlier than the gateway expects, never later.  Rows stay when a node is removed: its keys and its
memory may come back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from swarm.config import Privacy
from swarm.effects import Effect, Row, Store, integers
from swarm.federation.accountant import epsilon_of, mu_of
from swarm.federation.modes import mode_of
from swarm.federation.sums_plan import mu_of_plan, plan_of
from swarm.wire.app import Fragment, LearningMessage, RoundMode, SumsPlan

__all__ = ["BOOKS_MAX", "EXHAUSTED", "Account", "Budgets"]

BOOKS_MAX = 131_072
"""Nodes ever heard under masked sums: twice what a cell holds."""
EXHAUSTED = "the privacy budget of all nodes is spent; raise epsilon and releases in learning.privacy"
ROUNDING = 1e-9
"""By how much, relatively, a sum of costs may exceed the budget that was divided into them."""


@dataclass(frozen=True, slots=True)
class Account:
    """One node: the last round charged, rounds so far, those of them without noise, mu^2 of the others.

    `overdrawn`: 1 where the last one was more than was left.
    """

    round: int | None
    releases: int = 0
    bare: int = 0
    mu_squared: float = 0.0
    overdrawn: int = 0

    def to_row(self) -> Row:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_row(cls, row: Mapping[str, object]) -> Account:
        integers(row, "round", "releases", "bare", "overdrawn")
        return cls(*(row[name] for name in cls.__slots__))  # type: ignore[arg-type]


class Budgets:
    """The accounts of all nodes, and what one more round costs under the settings of now."""

    def __init__(self, privacy: Privacy, rows: Mapping[str, Row]) -> None:
        self.plan = plan_of(privacy)
        """Of the next round of masked sums."""
        self.asked: SumsPlan | None = None
        """Of the newest round, open or closed; None: it asked for no sums."""
        self._privacy = privacy
        self._limit = mu_of(privacy.epsilon, privacy.delta) ** 2 if privacy.epsilon > 0.0 else math.inf
        self._accounts = {dev_eui: Account.from_row(row) for dev_eui, row in rows.items()}

    def charge(self, dev_eui: str, message: Fragment | LearningMessage) -> tuple[list[Effect], bool]:
        """A frame of this node was heard: what to store, counted or not; whether it had so much left."""
        plan, number = self.asked, message.round
        mode = message.mode if isinstance(message, Fragment) else mode_of(message).wire
        if plan is None or mode != RoundMode.MASKED_SUMS:
            return [], True
        before = self._accounts.get(dev_eui, Account(None))
        if before.round == number:
            return [], not before.overdrawn
        if dev_eui not in self._accounts and len(self._accounts) >= BOOKS_MAX:
            return [], False
        cost = mu_of_plan(plan)
        made = Account(
            number,
            before.releases + 1,
            before.bare + (cost == 0.0),
            before.mu_squared + cost**2,
            overdrawn=int(self._exceeds(before, plan)),
        )
        self._accounts[dev_eui] = made
        return [Store("privacy", dev_eui, made.to_row())], not made.overdrawn

    def spent(self, dev_eui: str, mode: RoundMode) -> bool:
        """Whether a round of this mode is more than the node has left; only masked sums cost anything."""
        account = self._accounts.get(dev_eui)
        masked = mode is RoundMode.MASKED_SUMS
        return masked and account is not None and self._exceeds(account, self.plan)

    def cost(self, plan: SumsPlan | None) -> float | None:
        """What one round costs each sample, as an epsilon at the settings' delta; None: it has no noise."""
        mu = 0.0 if plan is None else mu_of_plan(plan)
        return round(epsilon_of(mu, self._privacy.delta), 4) if mu > 0.0 else None

    def view(self, dev_eui: str) -> dict[str, float | int | bool | None] | None:
        """A node's account for people, epsilon at the settings' delta; None: it took part in no round.

        `epsilon` is None where a round had no noise: nothing is promised for its samples.
        """
        account = self._accounts.get(dev_eui)
        if account is None:
            return None
        epsilon = round(epsilon_of(math.sqrt(account.mu_squared), self._privacy.delta), 4)
        return {
            "releases": account.releases,
            "without_noise": account.bare,
            "epsilon": None if account.bare else epsilon,
            "epsilon_max": self._privacy.epsilon or None,
            "delta": self._privacy.delta,
            "spent": self.spent(dev_eui, RoundMode.MASKED_SUMS),
        }

    def _exceeds(self, account: Account, plan: SumsPlan) -> bool:
        cost = mu_of_plan(plan)
        over = account.mu_squared + cost**2 > self._limit * (1.0 + ROUNDING)
        return cost > 0.0 and (over or 0 < plan.releases_max <= account.releases)
