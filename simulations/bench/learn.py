"""`swarm bench learn`: modes x tasks x spreading factors over seeds, every score beside its baselines.

Theory of operation.  One seed of a task is built once: data, public model, baselines.  Each mode at each
spreading factor then runs in a cell of its own.  Whatever is chosen (which version to keep, when to stop,
whether to accept) is chosen on validation rows, which the nodes judge themselves; test rows are scored once,
at the end.  The mode `policy` is the product's decision (`decide`): its row holds what nodes would serve and
what was really sent, nothing at all where nothing was to be gained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulations.bench.averaging import Averaging
from simulations.bench.baselines import PUBLIC_STRENGTHS, Answers, Features, baselines, personalised
from simulations.bench.bill import Costs
from simulations.bench.cell import Cell
from simulations.bench.gain import gain
from simulations.bench.modes import (
    AVERAGED,
    AVERAGED_ROUNDS,
    CHECK_EVERY,
    DENSE,
    MODES,
    POLICY,
    Mode,
    Step,
    server,
    solver_options,
)
from simulations.tasks.catalogue import build
from simulations.tasks.public_model import PublicModel, public_model
from simulations.tasks.task import Task
from swarm.federation.blockwise import strategy_named
from swarm.federation.modes import strategy_of
from swarm.federation.strategy import Aggregator, FlowerStrategy
from swarm.model import layout
from swarm.model.vector import Float64
from swarm.prng import Prng

__all__ = ["Outcome", "Row", "Setting", "learn", "prepare", "run_mode", "run_policy"]

BASELINES = ("majority", "persistence", "rule", "public", "local_only", "public_local", "centralised")
WITHOUT_RADIO = ("persistence", "rule", "public", "public_local", "local_only")
COSTLY = (DENSE, *AVERAGED)
"""What the others' airtime is compared with."""
DEVIATIONS, LEAST_GAIN = 2.0, 0.02
"""What a gain must exceed: so many standard deviations over resampled nodes, and this much."""
PROMISE_MARGIN = 0.05
"""How far behind its maker's promise a model may stay before learning together is tried."""
ALL_CLASSES = 0.95
"""A node that has labels of this share of the classes can learn alone."""
PILOT_FRAMES, REST_FRAMES = 1.0, 2.0
"""Updates of each node before rounds must have shown a gain, and after."""


@dataclass(frozen=True, eq=False)
class Setting:
    """One seed of a task, ready to learn."""

    task: Task
    model: PublicModel
    features: Features
    baselines: dict[str, Answers | None]
    seed: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """One mode in one cell: scores on validation and test, and costs.

    `personal`: with each node's own tuning on top (float, its strength by validation); `served`: what the
    firmware answers, which chooses among the fleet's, the shipped and its personal head by its own labels.
    """

    score: float
    validation: float
    personal: float
    served: float
    costs: Costs
    accepted: bool
    verdict: str
    curve: tuple[tuple[float, float], ...] = ()
    """(airtime in s, validation) whenever the nodes judged."""


@dataclass(slots=True)
class Row:
    """What `--json` prints; scores are means over seeds, `sd` of the score over seeds (None: one seed).

    `ratio_to_...`: airtime of that mode until it validates as well, over this one's; those named in
    `ratio_bounds` never did on some seed, and are at least so much.
    """

    task: str
    mode: str
    sf: int
    nodes: int
    seeds: list[int]
    score: float
    sd: float | None
    centralised: float | None
    local_only: float | None
    public_local: float | None
    rule: float | None
    persistence: float | None
    frames_per_node: float
    bytes_per_node: float
    airtime_s: float
    ratio_to_dense: float | None
    ratio_to_average_adapters: float | None
    ratio_to_average_all: float | None
    ratio_bounds: list[str]
    public: float | None
    majority: float | None
    personal: float
    served: float
    relative: float
    gain_over_public_local: float
    gain_sd: float | None
    energy_mj_per_node: float
    airtime_up_s: float
    airtime_down_s: float
    accepted: float
    verdicts: list[str]
    negative_control: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def prepare(name: str, nodes: int, seed: int, data: Path | None = None) -> Setting:
    """Build the task, its public model and its baselines; TaskError when it cannot be made."""
    task = build(name, nodes, seed, data)
    model = public_model(task, seed)
    features = Features.of(task, model)
    return Setting(task, model, features, baselines(task, model, features), seed)


class _Run:
    """A cell and the best version so far by its nodes' validation."""

    def __init__(self, setting: Setting, spreading_factor: int) -> None:
        self.setting = setting
        self.cell = Cell(setting.task, setting.model, spreading_factor=spreading_factor, seed=setting.seed)
        self._shipped = self.cell.answers(setting.task.validation)
        self.best: tuple[float, Float64] = (self.validate(), self.cell.master)
        self.curve = [(0.0, self.best[0])]

    def validate(self) -> float:
        task = self.setting.task
        return task.score(self.cell.answers(task.validation), task.validation)

    def step(self, step: Step) -> None:
        """All rounds of a step, then the best that came of it."""
        setting, nodes = self.setting, self.setting.task.nodes
        shape = setting.model.model.shape
        cohort = 1.0 if step.per_round is None else min(1.0, step.per_round / nodes)
        strategy: Aggregator
        if step.strategy is None:
            own = strategy_of(step.kind.name.lower())
            assert own is not None
            options = solver_options(setting.task.name, own)
            strategy = FlowerStrategy(own, shape, options, prior=setting.model.prior)
        else:
            name, options = server(setting.task.name, step)
            strategy = strategy_named(name, shape, options)
        rounds = step.rounds or max(1, round(step.frames / cohort))
        for number in range(1, rounds + 1):
            if step.clear:
                self.cell.learn_in_the_clear(strategy)
            else:
                self.cell.round(step.kind, strategy, cohort=cohort, epsilon=step.epsilon)
            if number % step.check_every == 0 or number == rounds:
                self._keep_best()

        if step.strategy is None:
            self._keep_good_heads()
        elif self.cell.master is not self.best[1]:
            self.cell.roll_back(self.best[1])

    def _keep_best(self) -> None:
        score = self.validate()
        self.curve.append((self.cell.costs().airtime_s, score))
        if score > self.best[0]:
            self.best = (score, self.cell.master)

    def _keep_good_heads(self) -> None:
        """Contexts whose shipped head validates better get it back; the adapter is the shipped one."""
        task, cell, shape = self.setting.task, self.cell, self.setting.model.model.shape
        rows, new = task.validation, cell.answers(task.validation)
        master, shipped = cell.master.copy(), cell.base.master()
        for context in np.unique(rows.context).tolist():
            own = rows.context == context
            part, head = rows.where(own), shape.head_slice(context)
            if task.score(self._shipped[own], part) > task.score(new[own], part):
                master[head] = shipped[head]
        if not np.array_equal(master, cell.master):
            cell.roll_back(master)
        self.best = (self.validate(), cell.master)

    def node_heads(self) -> NDArray[np.float32]:
        """The head that each node holds, float32[nodes, classes, 33]."""
        nodes = self.cell.nodes.heads[np.arange(self.setting.task.nodes), self.setting.task.node_context]
        return (nodes.reshape(len(nodes), -1, layout.HEAD_ROW) / np.float32(layout.HEAD_ONE)).astype(
            np.float32
        )

    def personal(self) -> Answers:
        """Each node's own tuning of the head that it holds."""
        return personalised(self.setting.task, self.setting.features, self.node_heads(), PUBLIC_STRENGTHS)


def run_mode(setting: Setting, mode: Mode, spreading_factor: int) -> Outcome:
    """One mode as it is, whether or not it pays."""
    run = _Run(setting, spreading_factor)
    task = setting.task
    for step in mode.steps:
        run.step(step)
    said = run.cell.answers(task.test)
    personal = run.personal()
    accepted, verdict = _judged(setting, run)
    return Outcome(
        score=task.score(said, task.test),
        validation=run.validate(),
        personal=task.score(personal.test, task.test),
        served=task.score(run.cell.served(task.test), task.test),
        costs=run.cell.costs(),
        accepted=accepted,
        verdict=verdict,
        curve=tuple(run.curve),
    )


def _floor(setting: Setting) -> tuple[str, Answers]:
    """What serves best without radio, by validation."""
    task = setting.task
    there = {name: answers for name in WITHOUT_RADIO if (answers := setting.baselines[name]) is not None}
    best = max(there, key=lambda name: task.score(there[name].validation, task.validation))
    return best, there[best]


def _judged(setting: Setting, run: _Run) -> tuple[bool, str]:
    """Whether what the nodes hold, tuned or not, beats the best that needs no radio."""
    task = setting.task
    name, floor = _floor(setting)
    validation = task.validation
    new = max(
        run.cell.answers(validation), run.personal().validation, key=lambda said: task.score(said, validation)
    )
    measured = gain(task, validation, floor.validation, new, Prng(setting.seed).child("gain"))
    taken = measured.beyond(DEVIATIONS, LEAST_GAIN)
    words = f"{measured.mean:+.3f} +- {measured.sd:.3f} over {name}"
    return taken, f"{'gain' if taken else 'no gain'}: {words}"


def _need(setting: Setting) -> str | None:
    """Why the fleet should learn together, or None: told by each node's own labels, at no airtime."""
    task, model = setting.task, setting.model
    judged = np.isin(task.train.node, task.silent or np.arange(task.nodes))
    label, node = task.train.label[judged], task.train.node[judged]
    new = np.setdiff1d(label, task.public.label)
    if len(new):
        return f"classes that the model never saw: {', '.join(task.classes[c] for c in new)}"
    unknown = np.setdiff1d(task.node_context, model.known)
    if len(unknown):
        return f"contexts without a head: {', '.join(task.contexts[c] for c in unknown)}"
    met = len(np.unique(node.astype(np.int64) * len(task.classes) + label)) / len(np.unique(node))
    if task.new_users and met < ALL_CLASSES * len(task.classes):
        return f"new users, who have labels of {met:.0f} of {len(task.classes)} classes"
    scores = {
        name: task.score(answers.validation, task.validation)
        for name in WITHOUT_RADIO
        if (answers := setting.baselines[name]) is not None
    }
    shipped = max(scores["public"], scores["public_local"])
    if shipped < model.expected - PROMISE_MARGIN and not task.silent:
        return f"the model scores {shipped:.2f} here, {model.expected:.2f} was promised"
    if shipped < max(scores.get("persistence", 0.0), scores.get("rule", 0.0)):
        return "the model is behind what needs no model"
    return None


def run_policy(setting: Setting, spreading_factor: int) -> Outcome:
    """What the product does: look, ask for one frame, go on where it pays, and say so where it does not."""
    task = setting.task
    run = _Run(setting, spreading_factor)
    name, floor = _floor(setting)
    score = task.score(floor.validation, task.validation)
    floor_score = task.score(floor.test, task.test)
    without = Outcome(
        score=floor_score,
        validation=score,
        personal=floor_score,
        served=task.score(run.cell.served(task.test), task.test),
        costs=run.cell.costs(),
        accepted=False,
        verdict="",
    )
    if _need(setting) is None:
        return replace(without, verdict=f"no gain to expect, nothing sent: {name} serves")
    run.step(MODES["prototypes"].steps[0])
    accepted, verdict = _judged(setting, run)
    if not accepted:
        return replace(without, verdict=f"{verdict}; {name} serves", costs=run.cell.costs())
    before = run.cell.answers(task.validation)
    for frames in (PILOT_FRAMES, REST_FRAMES):
        run.step(replace(MODES["four_frames"].steps[1], frames=frames))
        measured = gain(task, task.validation, before, run.cell.answers(task.validation), Prng(setting.seed))
        if not measured.beyond(1.0, LEAST_GAIN):
            break
    said, personal = run.cell.answers(task.test), run.personal()
    own = task.score(personal.validation, task.validation) > run.validate()
    return Outcome(
        score=task.score(personal.test if own else said, task.test),
        validation=run.validate(),
        personal=task.score(personal.test, task.test),
        served=task.score(run.cell.served(task.test), task.test),
        costs=run.cell.costs(),
        accepted=True,
        verdict=_judged(setting, run)[1],
    )


@lru_cache(maxsize=2)
def _averaged(setting: Setting, mode: str, rounds: int) -> tuple[Averaging, tuple[float, ...], float, float]:
    """A run, its validation every `CHECK_EVERY` rounds from 0 on, and the best one's validation and test."""
    task = setting.task
    run = Averaging(task, setting.model, AVERAGED[mode], setting.seed)
    curve = [task.score(run.answers(task.validation), task.validation)]
    best = curve[0], task.score(run.answers(task.test), task.test)
    for number in range(1, rounds + 1):
        run.round()
        if number % CHECK_EVERY == 0 or number == rounds:
            curve.append(task.score(run.answers(task.validation), task.validation))
            if curve[-1] > best[0]:
                best = curve[-1], task.score(run.answers(task.test), task.test)
    return run, tuple(curve), *best


def run_averaged(setting: Setting, mode: str, spreading_factor: int, rounds: int) -> Outcome:
    """Federated averaging beside the firmware; what each node would make of it is not known."""
    run, curve, validation, score = _averaged(setting, mode, rounds)
    done = [min(number * CHECK_EVERY, rounds) for number in range(len(curve))]
    spent = [run.costs(spreading_factor, number).airtime_s for number in done]
    return Outcome(
        score=score,
        validation=validation,
        personal=math.nan,
        served=math.nan,
        costs=run.costs(spreading_factor),
        accepted=False,
        verdict="not judged: no node of ours holds it",
        curve=tuple(zip(spent, curve, strict=True)),
    )


def _outcome(setting: Setting, mode: str, spreading_factor: int, rounds: int | None) -> Outcome:
    if mode == POLICY:
        return run_policy(setting, spreading_factor)
    if mode in AVERAGED:
        return run_averaged(setting, mode, spreading_factor, rounds or AVERAGED_ROUNDS)
    return run_mode(setting, MODES[mode].lasting(rounds), spreading_factor)


def learn(
    tasks: Sequence[str],
    modes: Sequence[str],
    factors: Sequence[int],
    *,
    nodes: int,
    seeds: Sequence[int],
    data: Path | None = None,
    rounds: int | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> Iterable[Row]:
    """The rows, task by task; TaskError when a task cannot be made.

    `rounds`: instead of the modes' own number of rounds, where that is fixed.
    """
    for name in tasks:
        outcomes: dict[tuple[str, int], list[Outcome]] = {}
        settings = []
        for seed in seeds:
            _say(on_progress, f"{name}, seed {seed}: data, public model, baselines")
            setting = prepare(name, nodes, seed, data)
            settings.append(setting)
            for mode in modes:
                for factor in factors:
                    _say(on_progress, f"{name}, seed {seed}: {mode} at SF{factor}")
                    done = _outcome(setting, mode, factor, rounds)
                    outcomes.setdefault((mode, factor), []).append(done)
        for (mode, factor), done_by_seed in outcomes.items():
            others = {other: outcomes.get((other, factor), []) for other in COSTLY}
            yield _row(settings, mode, factor, done_by_seed, others)


def _say(on_progress: Callable[[str], None] | None, text: str) -> None:
    if on_progress is not None:
        on_progress(text)


def _ratio(outcome: Outcome, dense: Outcome) -> tuple[float, bool] | None:
    """Airtime of dense rounds until they validate as well, over that of `outcome`; True: they never did.

    None where `outcome` sent nothing, or is no better than the shipped heads.
    """
    spent = outcome.costs.airtime_s
    if spent <= 0.0 or outcome.validation <= dense.curve[0][1]:
        return None
    reached = [airtime for airtime, score in dense.curve if score >= outcome.validation]
    return (reached[0] if reached else dense.curve[-1][0]) / spent, not reached


def _ratios(mode: str, outcomes: list[Outcome], others: list[Outcome]) -> tuple[float | None, bool]:
    """The mean ratio over seeds, and whether it is a bound."""
    # Where the policy fell back to what needs no radio, its score is not the airtime's.
    pairs = [pair for pair in zip(outcomes, others, strict=False) if mode != POLICY or pair[0].accepted]
    known = [ratio for own, other in pairs if (ratio := _ratio(own, other)) is not None]
    return (fmean(ratio for ratio, _ in known) if known else None), any(bound for _, bound in known)


def _row(
    settings: list[Setting],
    mode: str,
    factor: int,
    outcomes: list[Outcome],
    others: dict[str, list[Outcome]],
) -> Row:
    first = settings[0].task
    by_name: dict[str, list[float] | None] = {}
    for name in BASELINES:
        answers = [setting.baselines[name] for setting in settings]
        by_name[name] = [
            setting.task.score(one.test, setting.task.test)
            for setting, one in zip(settings, answers, strict=True)
            if one is not None
        ] or None
    means = {name: None if scores is None else fmean(scores) for name, scores in by_name.items()}
    scores = [outcome.score for outcome in outcomes]
    floor = by_name["public_local"] or [math.nan] * len(scores)
    gains = [score - other for score, other in zip(scores, floor, strict=True)]
    central = by_name["centralised"] or [math.nan] * len(scores)
    count = fmean(setting.task.nodes for setting in settings)
    ratios = {name: _ratios(mode, outcomes, own) for name, own in others.items()}
    costs = [outcome.costs for outcome in outcomes]
    return Row(
        task=first.name,
        mode=mode,
        sf=factor,
        nodes=round(count),
        seeds=[setting.seed for setting in settings],
        score=fmean(scores),
        sd=pstdev(scores) if len(scores) > 1 else None,
        **{name: means[name] for name in BASELINES},
        frames_per_node=fmean(cost.frames for cost in costs) / count,
        bytes_per_node=fmean(cost.bytes_up for cost in costs) / count,
        airtime_s=fmean(cost.airtime_s for cost in costs),
        **{f"ratio_to_{name.removesuffix('_int8')}": ratio for name, (ratio, _) in ratios.items()},
        ratio_bounds=[name for name, (_, bound) in ratios.items() if bound],
        personal=fmean(outcome.personal for outcome in outcomes),
        served=fmean(outcome.served for outcome in outcomes),
        relative=fmean(score / own for score, own in zip(scores, central, strict=True)),
        gain_over_public_local=fmean(gains),
        gain_sd=pstdev(gains) if len(gains) > 1 else None,
        energy_mj_per_node=fmean(cost.energy_mj for cost in costs),
        airtime_up_s=fmean(cost.airtime_up_us for cost in costs) / 1e6,
        airtime_down_s=fmean(cost.airtime_down_us for cost in costs) / 1e6,
        accepted=fmean(outcome.accepted for outcome in outcomes),
        verdicts=[outcome.verdict for outcome in outcomes],
        negative_control=first.negative_control,
    )
