"""Answers become one answer: a weighted pool of probabilities, with coverage, versions and cost.

An answer weighs what its node's place gave it in the plan, times its own certainty (one minus
the entropy of its probabilities), times .7 or .9 for a node without humidity or rain, times the age of its
readings.  The pool is linear, so that one node that is wrong and sure cannot silence the others.

A partial answer is an answer: `coverage` says how much of the planned weight it rests on.  Nobody answered:
`value` is None and coverage 0; the caller is told "no answer", never a guess.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from swarm.inference.plan import Plan
from swarm.wire import app

__all__ = [
    "FLAG_HUMIDITY_MISSING",
    "FLAG_OWN_READINGS",
    "FLAG_RAIN_MISSING",
    "LABELS",
    "Answer",
    "Answered",
    "combine",
    "is_complete",
    "local_answer",
]

LABELS = ("low", "medium", "high")
"""Names of the classes of infection risk, the firmware's own application; others have numbers."""
FLAG_OWN_READINGS, FLAG_HUMIDITY_MISSING, FLAG_RAIN_MISSING = 1, 2, 4
AGE_UNKNOWN = 255
AGE_HALF_TENS_OF_MINUTES = 36
"""Readings of six hours ago count half."""
CERTAINTY_FLOOR = 0.1
"""A node that knows nothing still counts a little: it is evidence that the question is hard."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One node's answer as it arrived; `airtime_us` of the uplink that carried it and of its question."""

    dev_eui: str
    message: app.Answer
    received_us: int
    airtime_us: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the asker gets.  `confidence` is the pooled probability of `value`; 0 when there is none.

    `coverage` 0..1 is the share of the planned weight that answered; `versions` are the head versions behind
    it, ascending; `airtime_us` is all that the question cost so far.
    """

    query_id: int
    value: int | None
    label: str
    probabilities: tuple[float, ...] | None
    confidence: float
    coverage: float
    nodes: tuple[str, ...]
    asked: int
    versions: tuple[int, ...]
    airtime_us: int

    def to_json(self) -> str:
        """The text that table `query` keeps."""
        return json.dumps(asdict(self))


def is_complete(plan: Plan, answers: Sequence[Answered], now_us: int) -> bool:
    """Whether to answer now: quorum or deadline."""
    return now_us >= plan.deadline_us or len(_by_node(plan, answers)) >= plan.quorum


def combine(plan: Plan, answers: Sequence[Answered]) -> Answer:
    """One answer from those that came.  Nodes that were not asked, or asked twice, count once or not at all.

    The result does not depend on the order of `answers`.
    """
    weights = {target.dev_eui: target.weight for target in plan.targets}
    counted = _by_node(plan, answers)
    classes = max((len(answered.message.probabilities) for answered in counted.values()), default=0)
    pool = [0.0] * classes
    for dev_eui, answered in counted.items():
        weight = weights[dev_eui] * _own_weight(answered.message)
        for label, share in enumerate(answered.message.probabilities):
            pool[label] += weight * share / 255
    total = sum(pool)
    airtime_us = sum(answered.airtime_us for answered in counted.values())
    if total == 0.0:
        return _no_answer(plan, airtime_us)
    planned = sum(weights.values())
    coverage = sum(weights[dev_eui] for dev_eui in counted) / planned
    versions = tuple(sorted({answered.message.head_version for answered in counted.values()}))
    pooled = tuple(share / total for share in pool)
    return _answer(plan, pooled, coverage=coverage, counted=counted, versions=versions, airtime_us=airtime_us)


def local_answer(plan: Plan, probabilities: Sequence[int], head_version: int) -> Answer:
    """The gateway's replica answers: probabilities in 1/255 (sum 255), no airtime, full coverage."""
    own = tuple(int(share) / 255 for share in probabilities)
    return _answer(plan, own, coverage=1.0, counted={}, versions=(head_version,), airtime_us=0)


def _by_node(plan: Plan, answers: Sequence[Answered]) -> dict[str, Answered]:
    """The first answer of each asked node, in the order of the plan."""
    first: dict[str, Answered] = {}
    for answered in sorted(answers, key=lambda answered: answered.received_us):
        if answered.message.query_id == plan.query.query_id:
            first.setdefault(answered.dev_eui, answered)
    return {target.dev_eui: first[target.dev_eui] for target in plan.targets if target.dev_eui in first}


def _own_weight(message: app.Answer) -> float:
    shares = [share / 255 for share in message.probabilities if share]
    entropy = -sum(share * math.log(share) for share in shares) / math.log(len(message.probabilities))
    weight = CERTAINTY_FLOOR + (1.0 - CERTAINTY_FLOOR) * (1.0 - entropy)
    if message.flags & FLAG_HUMIDITY_MISSING:
        weight *= 0.7
    if message.flags & FLAG_RAIN_MISSING:
        weight *= 0.9
    if message.age != AGE_UNKNOWN:
        weight *= 0.5 ** (message.age / AGE_HALF_TENS_OF_MINUTES)
    return weight


def _answer(
    plan: Plan,
    probabilities: tuple[float, ...],
    *,
    coverage: float,
    counted: dict[str, Answered],
    versions: tuple[int, ...],
    airtime_us: int,
) -> Answer:
    confidence = max(probabilities)
    value = probabilities.index(confidence)
    return Answer(
        query_id=plan.query.query_id,
        value=value,
        label=LABELS[value] if len(probabilities) == len(LABELS) else f"class {value}",
        probabilities=probabilities,
        confidence=confidence,
        coverage=coverage,
        nodes=tuple(counted),
        asked=len(plan.targets),
        versions=versions,
        airtime_us=airtime_us,
    )


def _no_answer(plan: Plan, airtime_us: int) -> Answer:
    return Answer(
        query_id=plan.query.query_id,
        value=None,
        label="no answer",
        probabilities=None,
        confidence=0.0,
        coverage=0.0,
        nodes=(),
        asked=len(plan.targets),
        versions=(),
        airtime_us=airtime_us,
    )
