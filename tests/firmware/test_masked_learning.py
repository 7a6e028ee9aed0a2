"""What masks and noise cost in accuracy: masked sums of real nodes beside the same sums in the clear."""

from __future__ import annotations

import numpy as np
import pytest

from swarm.config import Privacy
from swarm.federation.prototypes import Options
from swarm.federation.round import Round, RoundState
from swarm.federation.strategy import FlowerStrategy
from swarm.federation.sums_learner import SumsLearner
from swarm.federation.sums_plan import plan_of
from swarm.model import block, container
from swarm.model.layout import Shape
from swarm.model.vector import Mirror
from swarm.node import Model, NodeConfig, Nodes
from swarm.wire import app
from tests.swarm.masked_cell import mask_groups

SHAPE = Shape(classes=4, features=40)
SECOND_US = 1_000_000
COUNT, SIZE, SAMPLES = 96, 8, 24
OPTIONS = {"gain_min": 0.0, "nodes_min": 1.0, "nodes_full": 1.0, "identity_shrink": 2.0, "mean_shrink": 0.0}


class Fleet:
    """96 nodes in groups of 8, two contexts with a class for each half-space of a hidden map of z."""

    def __init__(self, seed: int = 5) -> None:
        self.image = container.random_model(11, shape=SHAPE, contexts=(0,))
        self.model = Model(self.image)
        groups = [mask_groups(SIZE, group) for group in range(COUNT // SIZE)]
        configs = [
            NodeConfig(i, i // SIZE % 2, seed=i, payload_max=222, mask=groups[i // SIZE][i % SIZE])
            for i in range(COUNT)
        ]
        self.nodes = Nodes(COUNT, configs, self.image)
        self.context = np.array([config.context for config in configs])
        self.rng = np.random.default_rng(seed)
        self.truth = self.rng.integers(-200, 200, (2, SHAPE.classes, 20))
        self.drawn: list[tuple[np.ndarray, np.ndarray]] = []
        for number in range(SAMPLES):
            x, labels = self.draw()
            self.nodes.observe(0, number, x)
            assert self.nodes.label(number, labels) == COUNT
            self.drawn.append(
                (np.maximum(self.model.z(x, self.model.adapter()).astype(int), -127)[:, :20], labels)
            )

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        x = self.rng.integers(-100, 100, (COUNT, SHAPE.features)).astype(np.int8)
        z = self.model.z(x, self.model.adapter()).astype(int)[:, :20]
        scores = np.einsum("nd,ncd->nc", z, self.truth[self.context])
        return x, scores.argmax(axis=1).astype(np.uint8)

    def base(self) -> np.ndarray:
        return np.stack([self.model.base_head(context) for context in range(2)])

    def clear(self, nodes: list[int]) -> np.ndarray:
        """Heads from the exact sums of these nodes."""
        learner = SumsLearner(Options(**OPTIONS), SHAPE)
        replies = []
        for node in nodes:
            z = np.array([z[node] for z, _ in self.drawn])
            labels = np.array([labels[node] for _, labels in self.drawn])
            sums = np.stack([z[labels == label].sum(axis=0) for label in range(SHAPE.classes)])
            counts = np.bincount(labels, minlength=SHAPE.classes)
            squares = (z.T @ z)[np.triu_indices(20)]
            parts = [np.array([self.context[node], 1]), counts, sums.ravel(), squares]
            replies.append((node, np.concatenate(parts).astype(float)))
        heads = Mirror(0, self.model.adapter(), self.base()).master()[512:].reshape(2, -1)
        return learner.learn(heads, replies)

    def masked(self, privacy: Privacy, loss: float) -> tuple[np.ndarray, list[int]]:
        """Heads through one round of real frames, of which a share of nodes is lost; and who was heard."""
        plan = plan_of(privacy)
        made = Round(1, app.RoundMode.MASKED_SUMS, 0, 255, 0, 300 * SECOND_US, COUNT, SHAPE, 2, sums=plan)
        frame = app.encode(app.RoundAnnounce(1, 0, 8, 255, 100, 300, 0, 0, plan))
        self.nodes.rx_many(range(COUNT), 0, 10, frame)
        lost = set(np.random.default_rng(2).permutation(COUNT)[: round(loss * COUNT)].tolist())
        parts: dict[int, dict[int, bytes]] = {}
        for seconds in range(5, 300, 3):
            self.nodes.poll(seconds * SECOND_US)
            for node, f_port, payload in self.nodes.outbox():
                fragment = app.decode_uplink(10, payload) if f_port == 10 else None
                if isinstance(fragment, app.Fragment) and node not in lost:
                    got = parts.setdefault(node, {})
                    got[fragment.index] = fragment.slice
                    if len(got) == fragment.count:
                        whole = app.decode_uplink(10, b"".join(got[i] for i in sorted(got)))
                        assert isinstance(whole, app.MaskedSums)
                        made.on_update(f"{node:016x}", node, whole, 0, context=int(self.context[node]))
        if made.needs_repair:
            made.begin_repair(900 * SECOND_US)
        for seconds in range(301, 330, 5):
            for node in set(range(COUNT)) - lost:
                asked = made.repair_of(f"{node:016x}") if made.state is RoundState.REPAIR else None
                if asked is not None:
                    self.nodes.rx(node, seconds * SECOND_US, 10, app.encode(asked))
            self.nodes.poll((seconds + 2) * SECOND_US)
            for node, f_port, payload in self.nodes.outbox():
                seeds = app.decode_uplink(10, payload) if f_port == 10 else None
                if isinstance(seeds, app.Seeds):
                    assert made.on_seeds(f"{node:016x}", node, seeds) is not None
        strategy = FlowerStrategy("masked_sums", SHAPE, OPTIONS)
        closed = made.close(0, strategy, Mirror(0, self.model.adapter(), self.base()).master())
        assert closed.vector is not None, closed.failure
        heard = sorted(made.accepted)
        return closed.vector[512:].reshape(2, -1), heard

    def accuracy(self, heads: np.ndarray) -> float:
        """Of the real nodes, on fresh samples, after the block with these heads."""
        start = Mirror(0, self.model.adapter(), self.base())
        vector = np.concatenate([start.master()[:512], heads.ravel()])
        for frame in block.encode(start, vector, app.BlockKind.FULL).frames(222):
            self.nodes.rx_many(range(COUNT), 400 * SECOND_US, 10, frame)
        self.rng = np.random.default_rng(77)
        right = [
            (self.nodes.infer(x).argmax(axis=1) == labels).mean()
            for x, labels in (self.draw() for _ in range(30))
        ]
        return float(np.mean(right))


@pytest.mark.parametrize("seed", [5, 6, 7])
@pytest.mark.parametrize("loss", [0.0, 0.1, 0.3])
def test_masked_sums_are_within_two_points_of_clear_ones(loss: float, seed: int) -> None:
    """Exact sums in the clear against 12 bits, masks, and the repair of those who were lost."""
    fleet = Fleet(seed)
    heads, heard = fleet.masked(Privacy(), loss)
    assert len(heard) >= (1 - loss) * COUNT - 1
    masked = fleet.accuracy(heads)
    other = Fleet(seed)
    clear = other.accuracy(other.clear(list(range(COUNT))))
    assert masked > clear - 0.02
    fresh = Fleet(seed)
    assert clear > fresh.accuracy(Mirror(0, fresh.model.adapter(), fresh.base()).master()[512:]) + 0.2


def test_noise_costs_what_epsilon_says() -> None:
    """A generous epsilon costs little, and a smaller one more."""
    scores = []
    for epsilon in (1.0, 8.0):
        fleet = Fleet()
        scores.append(fleet.accuracy(fleet.masked(Privacy(epsilon=epsilon), 0.0)[0]))
    assert scores[1] > scores[0]
