"""What goes wrong on a farm, against every learning mode: the price of loss, silence, lies and restarts.

    rows = run(seed=1)              # one Row per (mode, adversity)
    found = summary([rows, run(seed=2)])

Theory of operation.  The firmware's nodes observe samples whose class a hidden rule tells, of which the
shipped model knows nothing.  Rounds go over the real frames; an adversity changes one thing:

- loss: every frame, for every receiver by itself, is lost with this chance, acknowledgements and blocks too;
- absent: the cohort is this share;
- stale: nodes hear the block of a round one round later, so every update is from an older model;
- garbage: a share of the nodes send well-formed updates of random content; `collude`: all the same one;
- flip: a share of the nodes is told wrong labels, always the next class;
- restart: the gateway loses its memory and goes on from its rows after the announcement, in mid-round, and
  before the block is sent.

`kept` counts samples that nodes were told are counted and that the statistics do hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from swarm.effects import Row as Stored
from swarm.federation.blockwise import strategy_named
from swarm.federation.cohort import cohort_byte
from swarm.federation.modes import MODES
from swarm.federation.reassembly import Reassembly
from swarm.federation.round import Accepted, Round
from swarm.federation.strategy import Aggregator, FlowerStrategy, OptionValue
from swarm.model import block, container
from swarm.model.layout import Shape
from swarm.model.vector import Mirror
from swarm.node import Model, NodeConfig, Nodes
from swarm.prng import Prng
from swarm.wire import app
from swarm.wire.app import BlockKind, RoundMode

__all__ = ["ADVERSITIES", "PLANS", "Adversity", "Plan", "Row", "run", "summary", "table"]

SHAPE = Shape(classes=4, features=40)
CONTEXTS = 2
SECOND_US = 1_000_000
CLOSE_S = 300


@dataclass(frozen=True, slots=True)
class Adversity:
    """What goes wrong; shares and chances are 0..1."""

    name: str
    loss: float = 0.0
    cohort: float = 1.0
    stale: bool = False
    garbage: float = 0.0
    collude: bool = False
    flip: float = 0.0
    restart: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """A mode, so many rounds of it, and the strategy with its options."""

    mode: RoundMode
    rounds: int
    strategy: str
    options: tuple[tuple[str, OptionValue], ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """`score`: share of right answers on fresh samples, from `before`, of the nodes whose labels are right;
    samples acknowledged and kept."""

    mode: str
    strategy: str
    adversity: str
    before: float
    score: float
    updates: int
    acknowledged: int
    kept: int | None


ADVERSITIES = (
    Adversity("none"),
    Adversity("10 % loss", loss=0.1),
    Adversity("30 % loss", loss=0.3),
    Adversity("30 % take part", cohort=0.3),
    Adversity("all stale", stale=True),
    Adversity("10 % garbage", garbage=0.1),
    Adversity("10 % colluding", garbage=0.1, collude=True),
    Adversity("10 % flip labels", flip=0.1),
    Adversity("restarts", restart=True),
)
_AT_ONCE = (("gain_min", 0.0), ("identity_shrink", 2.0), ("mean_shrink", 0.5))
PLANS = (
    Plan(RoundMode.PROTOTYPES, 4, "prototypes", _AT_ONCE),
    Plan(RoundMode.FEATURES, 4, "features", _AT_ONCE[:2]),
    Plan(RoundMode.TOP_K_SIGN, 6, "FedAvg"),
    Plan(RoundMode.TOP_K_INT4, 6, "FedAvg"),
    Plan(RoundMode.DENSE_INT8, 4, "FedAvg"),
    Plan(RoundMode.DENSE_INT8, 4, "FedMedian"),
    Plan(RoundMode.BLOCKS, 8, "FedAvg"),
    Plan(RoundMode.BLOCKS, 8, "FedMedian"),
    Plan(RoundMode.BLOCKS, 8, "FedTrimmedAvg"),
)


class _Farm:
    """Nodes, gateway and what is between them, for one plan and one adversity."""

    def __init__(self, plan: Plan, adversity: Adversity, nodes: int, seed: int) -> None:
        prng = Prng(seed)
        self.plan, self.adversity = plan, adversity
        image = container.random_model(11, shape=SHAPE, contexts=(0,))
        self.model = Model(image)
        # 222 B: in mode blocks a node says six of ten chunks.
        configs = [NodeConfig(i, i % CONTEXTS, seed=i, payload_max=222, epochs=2) for i in range(nodes)]
        self.nodes = Nodes(nodes, configs, image)
        heads = np.stack([self.model.base_head(context) for context in range(CONTEXTS)])
        self.mirror = Mirror(0, self.model.adapter(), heads)
        self.master = self.mirror.master()
        self.strategy = self._made_strategy()
        self.chance, self.samples = prng.child("air").numpy(), prng.child("samples").numpy()
        self.seed, self.truth = seed, prng.child("truth").numpy().integers(-200, 200, (SHAPE.classes, 32))
        liars = prng.child("liars").numpy().permutation(nodes)
        self.garbage = set(liars[: round(adversity.garbage * nodes)].tolist())
        self.flip = liars[: round(adversity.flip * nodes)]
        self.accepted: frozenset[int] = frozenset()
        self.late_frames: list[bytes] = []
        self.updates = self.acknowledged = self.seen = 0

    def _made_strategy(self) -> Aggregator:
        name = MODES[self.plan.mode].strategy_name(self.plan.strategy)
        return strategy_named(name, SHAPE, dict(self.plan.options))

    def draw(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Features and the classes that the hidden rule gives them."""
        x = self.samples.integers(-100, 100, (rows, SHAPE.features)).astype(np.int8)
        return x, (self.model.z(x).astype(int) @ self.truth.T).argmax(axis=1).astype(np.uint8)

    def observe(self, samples: int) -> None:
        for _ in range(samples):
            x, labels = self.draw(self.nodes.count)
            labels[self.flip] = (labels[self.flip] + 1) % SHAPE.classes
            self.nodes.observe(self.seen * SECOND_US, self.seen, x)
            self.nodes.label(self.seen, labels)
            self.seen += 1

    def score(self) -> float:
        x, labels = self.draw(40 * self.nodes.count)
        node = np.repeat(np.arange(self.nodes.count), 40)
        said = self.nodes.infer(x, node).argmax(axis=1)
        # A node that is told wrong labels judges heads by them: what it serves is no news.
        return float((said == labels)[~np.isin(node, self.flip)].mean())

    def multicast(self, frames: Iterable[bytes], now_us: int) -> None:
        for frame in frames:
            heard = np.flatnonzero(self.chance.random(self.nodes.count) >= self.adversity.loss)
            self.nodes.rx_many(heard, now_us, app.F_PORT_LEARNING, frame)

    def round(self, number: int) -> None:
        """One round, restarts included."""
        now_us = (1000 + 1000 * number) * SECOND_US
        cohort = cohort_byte(self.adversity.cohort)
        version = self.mirror.version
        made = Round(
            number,
            self.plan.mode,
            version,
            cohort,
            now_us,
            now_us + CLOSE_S * SECOND_US,
            self.nodes.count + 1,
            SHAPE,
            CONTEXTS,
            previous_accepted=self.accepted,
        )
        frame = app.encode(app.RoundAnnounce(number, version, self.plan.mode, cohort, 0, CLOSE_S, 0, 0))
        self.multicast([frame], now_us)
        rows = [made.to_row()]
        updates: dict[str, Stored] = {}
        fragments: dict[str, Stored] = {}
        made = self._restarted(made, rows, updates)
        reassembly = Reassembly(number)
        for seconds in range(10, CLOSE_S, 5):
            self.nodes.poll(now_us + seconds * SECOND_US)
            for index, f_port, payload in self.nodes.outbox():
                if f_port == app.F_PORT_LEARNING and self.chance.random() >= self.adversity.loss:
                    self._take(made, reassembly, index, payload, updates, fragments)
            if seconds % 50 == 0 and self.adversity.restart:
                made = self._restarted(made, rows, updates)
                reassembly = Reassembly(number, fragments.values())
        closed = made.close(made.close_us, self.strategy, self.master)
        self._send(made, closed.vector, [made.to_row()], updates)

    def _send(
        self,
        made: Round,
        vector: np.ndarray | None,
        rows: Sequence[Stored],
        updates: dict[str, Stored],
    ) -> None:
        """Acknowledgements and the new model, after a last restart."""
        made = self._restarted(made, rows, updates)
        if self.adversity.restart:
            state = self.strategy.state()
            self.strategy = self._made_strategy()
            self.strategy.restore(state)
        self.accepted = made.accepted
        self.updates += made.updates
        self.acknowledged += sum(held.message.num_examples for held in made.held if not held.late)
        self.multicast([frame for _ in range(2) for frame in made.ack_frames(222)], made.close_us)
        frames: list[bytes] = []
        if vector is not None:
            self.master = vector
            encoded = block.encode(self.mirror, vector, BlockKind.FULL)
            self.mirror = encoded.mirror
            frames = [frame for _ in range(2) for frame in encoded.frames(222)]
        now, self.late_frames = (self.late_frames, frames) if self.adversity.stale else (frames, [])
        self.multicast(now, made.close_us)

    def _restarted(self, made: Round, rows: Sequence[Stored], updates: dict[str, Stored]) -> Round:
        if not self.adversity.restart:
            return made
        again = Round.from_row(rows[-1], updates.values(), SHAPE)
        again.previous_accepted = made.previous_accepted
        return again

    def _take(
        self,
        made: Round,
        reassembly: Reassembly,
        index: int,
        payload: bytes,
        updates: dict[str, Stored],
        fragments: dict[str, Stored],
    ) -> None:
        name = f"{index:016x}"
        message = app.decode_uplink(app.F_PORT_LEARNING, payload)
        if isinstance(message, app.Fragment):
            if made.on_fragment(name, index, message) is not None:
                return
            whole, stores = reassembly.take(name, message)
            for store in stores:
                if store.row is None:
                    fragments.pop(store.key, None)
                else:
                    fragments[store.key] = dict(store.row)
            if whole is None:
                return
            message = app.decode_uplink(app.F_PORT_LEARNING, whole)
        assert isinstance(message, app.LearningMessage), message
        if index in self.garbage:
            who = 0 if self.adversity.collude else index
            message = _garbage(message, Prng(self.seed).child(f"lie-{made.number}-{who}"))
        result = made.on_update(name, index, message, made.opened_us, context=index % CONTEXTS)
        if isinstance(result, Accepted):
            updates[result.key] = dict(result.row)

    def kept(self) -> int | None:
        """Samples in the statistics; None where a mode keeps none."""
        if not isinstance(self.strategy, FlowerStrategy):
            return None
        return self.strategy.samples


def _garbage(message: app.LearningMessage, prng: Prng) -> app.LearningMessage:
    """The same frame with random content that no check can refuse."""
    rng = prng.numpy()

    def int4(n: int) -> tuple[int, ...]:
        return tuple(rng.integers(-7, 8, n).tolist())

    match message:
        case app.Prototypes():
            means = (replace(mean, scale=100, q=int4(len(mean.q))) for mean in message.classes)
            return replace(message, classes=tuple(means))
        case app.TopKSign():
            return replace(message, negative=tuple((rng.random(len(message.negative)) < 0.5).tolist()))
        case app.TopKInt4():
            return replace(message, levels=tuple(v or 8 for v in int4(len(message.levels))))
        case app.DenseInt8():
            return replace(message, steps=tuple(rng.integers(-127, 128, len(message.steps)).tolist()))
        case app.Features():
            labels = tuple(rng.integers(0, SHAPE.classes, message.num_examples).tolist())
            return replace(message, scale=100, labels=labels, q=int4(len(message.q)))
        case app.Blocks():
            end = max(SHAPE.local_size - 64 * message.first, 0)
            steps = [*int4(min(end, len(message.steps))), *[0] * len(message.steps)][: len(message.steps)]
            scales = {"scale_adapter": message.scale_adapter or 1, "scale_head": message.scale_head or 1}
            return replace(message, steps=tuple(steps), **scales)
        case _:
            raise ValueError(f"no lies are known for {type(message).__name__}: masks hide what is wrong")


def run(
    plans: Sequence[Plan] = PLANS,
    adversities: Sequence[Adversity] = ADVERSITIES,
    *,
    nodes: int = 60,
    seed: int = 1,
    on_progress: Callable[[str], None] | None = None,
) -> list[Row]:
    """Every plan against every adversity; the same seed gives the same rows."""
    rows = []
    for plan in plans:
        for adversity in adversities:
            if on_progress is not None:
                on_progress(f"{MODES[plan.mode].name}, {plan.strategy}: {adversity.name}, seed {seed}")
            farm = _Farm(plan, adversity, nodes, seed)
            farm.observe(48)
            before = farm.score()
            for number in range(1, plan.rounds + 1):
                farm.round(number)
            if adversity.stale:
                farm.multicast(farm.late_frames, (1900 + 1000 * plan.rounds) * SECOND_US)
            mode = MODES[plan.mode].name
            row = Row(mode, plan.strategy, adversity.name, before, farm.score(), farm.updates, 0, farm.kept())
            rows.append(replace(row, acknowledged=farm.acknowledged))
    return rows


def summary(by_seed: Sequence[Sequence[Row]]) -> list[dict[str, Any]]:
    """One object per mode, strategy and adversity over the seeds' rows.

    Keys: mode, strategy, adversity, seeds (how many), before and score (means), sd (of the score), updates
    (mean), kept: whether every sample that was acknowledged is in the statistics (None: the mode keeps none).
    """
    found = []
    for same in zip(*by_seed, strict=True):
        first, scores = same[0], [row.score for row in same]
        kept = [row.kept >= row.acknowledged for row in same if row.kept is not None]
        found.append(
            {
                "mode": first.mode,
                "strategy": first.strategy,
                "adversity": first.adversity,
                "seeds": len(same),
                "before": round(float(np.mean([row.before for row in same])), 4),
                "score": round(float(np.mean(scores)), 4),
                "sd": round(float(np.std(scores)), 4),
                "updates": float(np.mean([row.updates for row in same])),
                "kept": all(kept) if kept else None,
            }
        )
    return found


def table(found: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Of a summary: a header, then a line per mode and strategy with a column per adversity, mean scores."""
    columns = list(dict.fromkeys(each["adversity"] for each in found))
    lines = [["mode, strategy", "before", *columns]]
    for key in dict.fromkeys((each["mode"], each["strategy"]) for each in found):
        own = {each["adversity"]: each for each in found if (each["mode"], each["strategy"]) == key}
        name = key[0] if key[0] == key[1] else ", ".join(key)
        before = next(iter(own.values()))["before"]
        lines.append([name, f"{before:.2f}", *(f"{own[column]['score']:.2f}" for column in columns)])
    return lines
