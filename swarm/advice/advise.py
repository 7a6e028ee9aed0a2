"""The advice itself: every mode's cost beside what is known of its gain, and which one to take, and why.

The rules, in this order (design: each step only when the one before is not enough).  Nobody there, or nobody
labelled anything: none.  Most nodes that compared the fleet's head refuse it: none.  Most nodes take the head
of the changes that they send: go on.  A gain is proved: statistics go on, or with many labels signs (blocks
where the strategy votes).  Judged, but not proved: none after two rounds, or after four where new heads are
ahead, if nodes have labels enough for a verdict.  Nothing judged yet: none where the model was shipped for
all crops and nodes use it, else two rounds of statistics, which tell.  Which statistics: masked sums or
features where the settings say so, else class means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from swarm.advice.benchmarks import AFTER_FOUR_ROUNDS, LABELS_WHERE_SIGNS_ADDED, signs_added
from swarm.advice.costs import ROUNDS_MEASURED, ROUNDS_TO_JUDGE, ModeCost, costs_of
from swarm.advice.evidence import Evidence, Expected
from swarm.advice.fleet import Fleet
from swarm.pilot.energy import EnergyModel
from swarm.words import counted

__all__ = ["Advice", "ModeAdvice", "advise"]

VOTING = ("Bulyan", "FedMedian", "FedTrimmedAvg", "Krum", "MultiKrum")
"""Strategies that compare nodes coordinate by coordinate: they need blocks."""
LABELS_TO_DECIDE = 10
"""Of a node (median), below which "not proved" means "too early".  In `farm_1000` of 200 nodes (seed 3, class
means) new heads were no better than the shipped ones at 3 labels, and proved .15 better at 5."""


@dataclass(frozen=True, slots=True)
class ModeAdvice:
    """One mode: its cost, what this cell measured of its gain (in words too), and its worth elsewhere."""

    cost: ModeCost
    expected: Expected
    words: str
    in_benchmarks: tuple[float, float] | None
    """Share of right answers before and after, on another fleet (`benchmarks`)."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The mode to take and why."""

    mode: str
    reason: str


@dataclass(frozen=True, slots=True)
class Advice:
    """Every mode, none first, and the recommendation."""

    modes: tuple[ModeAdvice, ...]
    recommendation: Recommendation
    trial: str
    """What finds out where nothing is known yet, with its price."""
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def advise(fleet: Fleet, evidence: Evidence, energy: EnergyModel | None = None) -> Advice:
    """Advice for this fleet from what it has measured of itself."""
    costs = {cost.mode: cost for cost in costs_of(fleet, energy)}
    statistics = _statistics(fleet)
    modes = []
    for name, cost in costs.items():
        expected = evidence.expected(name)
        elsewhere = AFTER_FOUR_ROUNDS.get(name)
        pair = None if elsewhere is None else (elsewhere.shipped, elsewhere.learned)
        modes.append(ModeAdvice(cost, expected, _words(expected, evidence), pair))
    mode, reason = _recommended(fleet, evidence, costs)
    return Advice(tuple(modes), Recommendation(mode, reason), _trial(costs[statistics]), _notes(fleet))


def _statistics(fleet: Fleet) -> str:
    """The mode whose rounds tell whether there is anything to gain."""
    if fleet.learning.mode == "masked_sums":
        return "masked_sums"
    return "features" if fleet.learning.share_features else "prototypes"


def _trial(cost: ModeCost) -> str:
    """The rounds that tell, with their price."""
    return f"{ROUNDS_TO_JUDGE} rounds of {cost.mode} ({ROUNDS_TO_JUDGE * cost.trial_s:.0f} s of airtime)"


def _words(expected: Expected, evidence: Evidence) -> str:
    if expected.basis == "none":
        return "0, nothing is sent"
    if expected.basis == "unknown":
        return "unknown"
    if expected.basis in ("taken", "refused"):
        many = evidence.taken if expected.basis == "taken" else evidence.refused
        nodes = counted(evidence.taken + evidence.refused, "node")
        return f"{expected.basis} by {many} of {nodes} that compared its head"
    found = f"macro-F1 {expected.base:.2f} -> {expected.new:.2f}, judged on {_rounds(expected.rounds)}"
    return found if expected.basis == "measured" else f"no gain proved: {found}"


def _rounds(count: int) -> str:
    return counted(count, "round")


def _recommended(fleet: Fleet, evidence: Evidence, costs: Mapping[str, ModeCost]) -> tuple[str, str]:
    statistics = _statistics(fleet)
    holders = evidence.taken + evidence.refused
    results = {name: evidence.expected(name) for name in costs if name != "none"}
    if not fleet.nodes:
        return "none", "there are no nodes"
    if not fleet.takers:
        return "none", "rounds are for new crops only, and the model was shipped for all that are here"
    if evidence.is_refused:
        count = f"{evidence.refused} of {counted(holders, 'node')}"
        return "none", f"{count} that compared the fleet's head refused it"
    for name, result in results.items():
        if result.basis == "taken":
            count = f"{evidence.taken} of {counted(holders, 'node')}"
            return name, f"{count} that compared the fleet's head took it"
    for name, result in results.items():
        if result.basis == "measured":
            return _further(fleet, evidence, costs, statistics, name)
    judged = max(result.rounds for result in results.values())
    if judged:
        return _not_proved(evidence, statistics, judged)
    if not evidence.reported:
        return "none", "no node has reported yet, so nothing is known of labels and heads"
    if not evidence.labels:
        return "none", "no node has a labelled sample: there is nothing to learn from"
    return _untried(evidence, costs, statistics)


def _not_proved(evidence: Evidence, statistics: str, judged: int) -> tuple[str, str]:
    """No new head is better by enough, on so many judged rounds: whether that is the last word."""
    enough = ROUNDS_MEASURED if evidence.is_ahead else ROUNDS_TO_JUDGE
    found = f"judged on {_rounds(judged)}, no new head proved better"
    if judged < enough:
        return statistics, f"{found} yet: {enough} decide"
    if evidence.labels_median < LABELS_TO_DECIDE:
        return (
            statistics,
            f"{found}, but nodes have too few labels for a verdict ({evidence.labels_median:.0f})",
        )
    return "none", f"no gain: {found}"


def _untried(evidence: Evidence, costs: Mapping[str, ModeCost], statistics: str) -> tuple[str, str]:
    trial = _trial(costs[statistics])
    if evidence.new:
        who = "1 node watches" if evidence.new == 1 else f"{evidence.new} nodes watch"
        return statistics, f"{who} what the model was shipped without; {trial} will tell"
    if 2 * evidence.without_model > evidence.reported:
        count = f"{evidence.without_model} of {counted(evidence.reported, 'node')}"
        return statistics, f"{count} answer better without the model; {trial} will tell"
    return "none", f"the model was shipped for every crop here; to be sure, {trial} would tell"


def _further(
    fleet: Fleet, evidence: Evidence, costs: Mapping[str, ModeCost], statistics: str, proved: str
) -> tuple[str, str]:
    """Rounds of mode `proved` made heads that are better."""
    better = f"heads of {proved} proved better"
    labels = f"nodes have {evidence.labels_median:.0f} labels (median)"
    if statistics != "prototypes":
        return statistics, f"{better}, and the settings ask for this mode"
    if evidence.labels_median < LABELS_WHERE_SIGNS_ADDED:
        return statistics, f"{better}, and {labels}: too few for training on nodes to add to that"
    name = "blocks" if fleet.learning.strategy in VOTING else "top_k_sign"
    if costs[name].rounds_a_day < 1.0:
        return statistics, f"{better}; {name} would get less than a round a day"
    least, most = signs_added()
    return name, f"{better}, and {labels}: in benchmarks training then added {least:.2f} to {most:.2f}"


def _notes(fleet: Fleet) -> tuple[str, ...]:
    """What the numbers leave out or assume."""
    found = []
    assumed = sum(not node.rate_is_known for node in fleet.nodes)
    if assumed:
        count = f"{assumed} of {counted(len(fleet.nodes), 'node')}"
        found.append(f"not heard yet, so that the slowest data rate is assumed: {count}")
    if fleet.learning.mode != "masked_sums":
        found.append("masked_sums needs nodes that were provisioned in groups (--mask-group-size)")
    if not fleet.learning.share_features:
        found.append("features is not private and needs share_features = true")
    return tuple(found)
