"""Answers become one answer: a weighted pool of probabilities, with coverage, versions and cost.

An answer weighs what its node's place gave it in the plan, times its own certainty (one minus
the entropy of its probabilities), times .7 or .9 for a node without humidity or rain, times the age of its
readings.  The pool is linear, so that one node that is wrong and sure cannot silence the others.  Where at
least three others agree and one node says something far from them, its certainty counts for nothing
(`discounted`): it weighs no more than the others on the mean, be it a broken sensor, garbage, or a hollow in
the field.

A partial answer is an answer: `coverage` says how much of the planned weight it rests on.  Nobody answered:
`value` is None and coverage 0; the caller is told "no answer", never a guess.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType

from swarm.inference.calibration import believed
from swarm.inference.plan import Plan
from swarm.wire import app

__all__ = [
    "FLAG_HUMIDITY_MISSING",
    "FLAG_OWN_READINGS",
    "FLAG_RAIN_MISSING",
    "LABELS",
    "Answer",
    "Answered",
    "Source",
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
OUTLIER_OTHERS = 3
OUTLIER_DISTANCE = 0.8
"""Half of the summed differences between two distributions: 1 where they share nothing."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One node's answer as it arrived; airtime and the node's radio energy for it and for its question."""

    dev_eui: str
    message: app.Answer
    received_us: int
    airtime_us: int = 0
    energy_mj: float = 0.0


@dataclass(frozen=True, slots=True)
class Source:
    """Who stands behind an answer: the node, the expert head that judged, its version, and what it counted
    for.

    `probabilities` are as it stated them, `weight` is its share of the pool; `age_min` of the freshest
    reading, None: unknown or not its own readings.
    """

    dev_eui: str
    expert: str
    version: int
    probabilities: tuple[float, ...]
    weight: float
    age_min: int | None
    airtime_us: int
    energy_mj: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What the asker gets.  `confidence` is the pooled probability of `value`; 0 when there is none.

    `coverage` 0..1 is the share of the planned weight that answered; `versions` are the head versions behind
    it, ascending; `airtime_us` and `energy_mj` (sending and receiving, of nodes) are all that the question
    cost so far.  `sources` says it node by node; `experts` are the heads that judged, `discounted` the nodes
    that were far from all others.  `belief` 0..1: how far stated probabilities were believed; None: as they
    were stated, for nobody knows yet how often nodes are right.
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
    energy_mj: float = 0.0
    experts: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    discounted: tuple[str, ...] = ()
    belief: float | None = None

    def to_json(self) -> str:
        """The text that table `query` keeps."""
        return json.dumps(asdict(self))


def is_complete(plan: Plan, answers: Sequence[Answered], now_us: int) -> bool:
    """Whether to answer now: quorum or deadline."""
    return now_us >= plan.deadline_us or len(_by_node(plan, answers)) >= plan.quorum


def combine(
    plan: Plan, answers: Sequence[Answered], beliefs: Mapping[int, float | None] = MappingProxyType({})
) -> Answer:
    """One answer from those that came.  Nodes that were not asked, or asked twice, count once or not at all.

    `beliefs`: how far the stated probabilities of a context's head are believed (`calibration.belief_of`).
    The result does not depend on the order of `answers`.
    """
    weights = {target.dev_eui: target.weight for target in plan.targets}
    counted = _by_node(plan, answers)
    voices = {
        dev_eui: (weights[dev_eui] * _own_weight(answered.message), _shares(answered.message))
        for dev_eui, answered in counted.items()
    }
    discounted = _outliers(voices)
    for dev_eui in discounted:
        weight, shares = voices[dev_eui]
        others = [other for name, (other, _) in voices.items() if name != dev_eui]
        voices[dev_eui] = (min(weight, sum(others) / len(others)), shares)
    believing = {name: beliefs.get(answered.message.context) for name, answered in counted.items()}
    pooled = _pool((weight, believed(shares, believing[name])) for name, (weight, shares) in voices.items())
    if pooled is None:
        return _no_answer(plan, sum(answered.airtime_us for answered in counted.values()))
    planned = sum(weights.values())
    return _answer(
        plan,
        pooled,
        coverage=sum(weights[dev_eui] for dev_eui in counted) / planned,
        sources=_sources(counted, voices),
        discounted=discounted,
        belief=_mean_belief((voices[name][0], belief) for name, belief in believing.items()),
    )


def local_answer(
    plan: Plan, probabilities: Sequence[int], head_version: int, belief: float | None = None
) -> Answer:
    """The gateway's replica answers: probabilities in 1/255 (sum 255), no airtime, full coverage."""
    own = believed([int(share) / 255 for share in probabilities], belief)
    answer = _answer(plan, own, coverage=1.0, sources=(), discounted=(), belief=belief)
    return replace(answer, versions=(head_version,), experts=(_head(plan.query.context or 0),))


def _mean_belief(weighed: Iterable[tuple[float, float | None]]) -> float | None:
    """The belief behind a pool; None when no voice had one."""
    known = [(weight, 1.0 if belief is None else belief, belief is not None) for weight, belief in weighed]
    if not any(is_known for *_, is_known in known):
        return None
    return sum(weight * belief for weight, belief, _ in known) / sum(weight for weight, *_ in known)


def _head(context: int) -> str:
    return f"head-{context}"


def _shares(message: app.Answer) -> tuple[float, ...]:
    return tuple(share / 255 for share in message.probabilities)


def _pool(voices: Iterable[tuple[float, tuple[float, ...]]]) -> tuple[float, ...] | None:
    """The weighted mean of the voices' probabilities; None when nothing has weight."""
    weighed = [(weight, shares) for weight, shares in voices if weight > 0.0]
    total = sum(weight for weight, _ in weighed)
    if total == 0.0:
        return None
    columns = zip(*(shares for _, shares in weighed), strict=True)
    return tuple(
        sum(weight * share for (weight, _), share in zip(weighed, column, strict=True)) / total
        for column in columns
    )


def _outliers(voices: dict[str, tuple[float, tuple[float, ...]]]) -> tuple[str, ...]:
    """Those far from what at least three others agree on."""
    found = []
    for dev_eui, (_, shares) in voices.items():
        others = [voice for other, voice in voices.items() if other != dev_eui]
        pooled = _pool(others) if len(others) >= OUTLIER_OTHERS else None
        if pooled is None:
            continue
        agree = sum(other[pooled.index(max(pooled))] >= 0.5 for _, other in others)
        away = sum(abs(a - b) for a, b in zip(shares, pooled, strict=True)) / 2
        if agree >= OUTLIER_OTHERS and agree == len(others) and away > OUTLIER_DISTANCE:
            found.append(dev_eui)
    return tuple(found)


def _sources(
    counted: dict[str, Answered], voices: dict[str, tuple[float, tuple[float, ...]]]
) -> tuple[Source, ...]:
    total = sum(weight for weight, _ in voices.values())
    return tuple(
        Source(
            dev_eui=dev_eui,
            expert=_head(answered.message.context),
            version=answered.message.head_version,
            probabilities=voices[dev_eui][1],
            weight=voices[dev_eui][0] / total,
            age_min=None if answered.message.age == AGE_UNKNOWN else answered.message.age * 10,
            airtime_us=answered.airtime_us,
            energy_mj=answered.energy_mj,
        )
        for dev_eui, answered in counted.items()
    )


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
    sources: tuple[Source, ...],
    discounted: tuple[str, ...],
    belief: float | None,
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
        nodes=tuple(source.dev_eui for source in sources),
        asked=len(plan.targets),
        versions=tuple(sorted({source.version for source in sources})),
        airtime_us=sum(source.airtime_us for source in sources),
        energy_mj=sum(source.energy_mj for source in sources),
        experts=tuple(sorted({source.expert for source in sources})),
        sources=sources,
        discounted=discounted,
        belief=belief,
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
