"""Whose newest head is worse than the one before it, by what nodes say they answer with.

Each node compares the fleet's newest head with the head of the fleet that it served before, on its own last
labels, and leaves the newest only when chance alone would seldom make it look so bad (1.4 standard deviations
of a sign test, `swn_serve.h`); its STATUS names the choice.  So where two heads are equally good, about one
node in twelve goes back to the older one, and where the newest is better, fewer.  The verdict is "worse" when
more nodes did than that explains (once in a thousand versions), and a quarter of them at least: what is bad
for a few, those few do not serve anyway.

Each context has a head of its own, so each is judged by its own nodes, whose number may be a tenth of the
fleet's.  With `ALONE_MIN` of them three quarters are beyond chance, however many contexts are judged at once
(of 20 two fifths, of 60 a quarter); with fewer all would have to leave, so small contexts are judged as one.
What nobody found worse is then judged together, for a version that is a little worse for all.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from swarm.model.layout import context_name

__all__ = ["ALONE_MIN", "Verdict", "reason", "verdict", "worse"]

NEWEST, BEFORE = 0, 1
"""Choices of a STATUS (`swarm.wire.messages.SERVES`)."""
BY_CHANCE = 0.08
"""Nodes that go back although nothing is worse: beyond 1.4 sd on one side."""
ERROR_MAX = 0.001
"""Versions that are undone although nothing is worse, all verdicts on one together."""
SHARE_MIN = 0.25
BEFORE_MIN = 4
SPOKEN_MIN = 0.2
"""Of the nodes that the version was made for: where fewer have said what they serve, a few could decide."""
ALONE_MIN = 8
"""Nodes of a context that have spoken, for a verdict of their own."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Nodes that hold the newest version and serve it, nodes that hold it and serve the one before, and all
    that it was made for; `passed` verdicts are passed on the version at once."""

    newest: int
    before: int
    invited: int
    passed: int = 1

    @property
    def worse(self) -> bool:
        """More than noise, and enough nodes."""
        nodes = self.newest + self.before
        if self.before < max(BEFORE_MIN, nodes * SHARE_MIN) or nodes < self.invited * SPOKEN_MIN:
            return False
        return _by_chance(nodes, self.before) * self.passed <= ERROR_MAX

    def __str__(self) -> str:
        return f"{self.before} of {self.newest + self.before} nodes serve the version before"


def verdict(choices: Collection[int], invited: int, passed: int = 1) -> Verdict:
    """Of the choices of nodes that hold the newest version, of `invited` whose head it changed."""
    said = [choice for choice in choices if choice in (NEWEST, BEFORE)]
    return Verdict(said.count(NEWEST), said.count(BEFORE), invited, passed)


def worse(choices: Mapping[int, Sequence[int]], invited: Mapping[int, int]) -> dict[frozenset[int], Verdict]:
    """The contexts whose newest head is worse, in the groups in which they were judged.

    By context: what its nodes answer with (as in `verdict`), and how many nodes it has.
    """

    def of(contexts: Collection[int], passed: int) -> Verdict:
        said = [choice for context in contexts for choice in choices.get(context, ())]
        return verdict(said, sum(invited[context] for context in contexts), passed)

    alone = [{c} for c in sorted(invited) if of([c], 1).newest + of([c], 1).before >= ALONE_MIN]
    small = set(invited).difference(*alone)
    groups = [frozenset(group) for group in (*alone, small) if group]
    passed = len(groups) + (len(groups) > 1)
    found = {group: said for group in groups if (said := of(group, passed)).worse}
    rest = frozenset(invited).difference(*found)
    if len(groups) - len(found) > 1 and (said := of(rest, passed)).worse:
        found[rest] = said
    return found


def reason(found: Mapping[frozenset[int], Verdict]) -> str:
    """What `worse` found, in words; groups are named where there are several."""
    if len(found) == 1:
        return str(*found.values())
    named = {", ".join(context_name(context) for context in sorted(group)): found[group] for group in found}
    return "; ".join(f"{contexts}: {said}" for contexts, said in named.items())


def _by_chance(nodes: int, least: int) -> float:
    """The probability that `least` or more of `nodes` go back although nothing is worse."""
    ways = math.lgamma(nodes + 1) - math.lgamma(least + 1) - math.lgamma(nodes - least + 1)
    term = math.exp(ways + least * math.log(BY_CHANCE) + (nodes - least) * math.log1p(-BY_CHANCE))
    total = term
    for count in range(least, nodes):
        term *= (nodes - count) / (count + 1) * BY_CHANCE / (1.0 - BY_CHANCE)
        total += term
        if term < total * 1e-12:
            break
    return total
