"""What is old fades (`half_life_rounds`): a drifting task is followed, a standing one costs little."""

from __future__ import annotations

import numpy as np
import pytest

from swarm.federation import features, prototypes
from swarm.federation.reply import FEATURES, MASKED_SUMS, PROTOTYPES, Reply
from swarm.federation.strategy import FlowerStrategy, OptionValue
from swarm.model.layout import ADAPTER_SIZE, HEAD_ROW, WEATHER, Z_ONE, Z
from swarm.prng import Prng
from swarm.wire import app
from swarm.wire.app import SUMS_DIMS

NODES, ROUNDS, SAMPLES = 60, 14, 6
AT_ONCE: dict[str, OptionValue] = {"gain_min": 0.0, "identity_shrink": 2.0}
STRATEGIES = (PROTOTYPES, FEATURES, MASKED_SUMS)


class Season:
    """Class means that turn by `turn` radians a round in a plane of two drawn constellations."""

    def __init__(self, seed: int, turn: float) -> None:
        self.draw = Prng(seed).numpy()
        self.plane = self.draw.normal(size=(2, WEATHER.classes, SUMS_DIMS)) * 0.45
        self.turn = turn

    def samples(self, number: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """z in LSB, int[count, 32], and labels; dims that no mode sends are noise."""
        label = self.draw.integers(0, WEATHER.classes, count)
        angle = self.turn * number
        means = np.cos(angle) * self.plane[0] + np.sin(angle) * self.plane[1]
        z = self.draw.normal(size=(count, Z))
        z[:, :SUMS_DIMS] += means[label]
        return np.clip(np.rint(z * Z_ONE), -127, 127).astype(int), label


def reply_of(name: str, node: int, z: np.ndarray, label: np.ndarray) -> Reply:
    """What the round makes of a node's frame (of a whole group, in masked sums), in context 0."""
    if name == FEATURES:
        scale = 8
        rows = tuple(int(v) for v in np.clip(np.rint(z * 8 / scale), -128, 127).ravel())
        vector = np.zeros(features.reply_size(WEATHER))
        vector[1] = len(label)
        held = vector[2:].reshape(features.PER_UPDATE, -1)[: len(label)]
        held[:, 0], held[:, 1:] = label, np.reshape(rows, (-1, Z)) * scale
        return Reply(node, vector, len(label))
    if name == MASKED_SUMS:
        own = z[:, :SUMS_DIMS]
        counts = np.bincount(label, minlength=WEATHER.classes)
        sums = np.stack([own[label == c].sum(axis=0) for c in range(WEATHER.classes)])
        squares = (own.T @ own)[np.triu_indices(SUMS_DIMS)]
        return Reply(node, np.concatenate([[0, 1], counts, sums.ravel(), squares]).astype(float), len(label))
    means = []
    for c in np.unique(label):
        mean = z[label == c].mean(axis=0)
        scale = int(np.clip(np.ceil(np.abs(mean).max() * 8 / 7), 1, 255))
        q = tuple(int(v) for v in np.clip(np.rint(mean * 8 / scale), -8, 7))
        means.append(app.ClassMean(int(c), int((label == c).sum()), scale, q))
    message = app.Prototypes(1, 0, 0, len(label), tuple(means))
    return Reply(node, prototypes.flatten(message, WEATHER), len(label))


def run(name: str, turn: float, half_life: float, seed: int, rounds: int = ROUNDS) -> float:
    """Share of right answers on the day after the last round."""
    season = Season(seed, turn)
    strategy = FlowerStrategy(name, WEATHER, {**AT_ONCE, "half_life_rounds": half_life})
    vector = np.zeros(WEATHER.vector_size(1))
    for number in range(1, rounds + 1):
        replies = [reply_of(name, node, *season.samples(number, SAMPLES)) for node in range(NODES)]
        done = strategy.aggregate(number, vector, replies)
        assert done.vector is not None and done.errors == (), (done.failure, done.errors)
        vector = done.vector
        restored = FlowerStrategy(name, WEATHER, {**AT_ONCE, "half_life_rounds": half_life})
        restored.restore(strategy.state())
        strategy = restored
    z, label = season.samples(rounds + 1, 6000)
    head = vector[ADAPTER_SIZE:].reshape(WEATHER.classes, HEAD_ROW)
    return float(((z / Z_ONE @ head[:, :Z].T + head[:, Z]).argmax(axis=1) == label).mean())


@pytest.mark.parametrize("name", STRATEGIES)
def test_forgetting_follows_a_drifting_task_and_costs_little_on_a_standing_one(name: str) -> None:
    """Goal: .05 more where the classes turn by 100 degrees in a season; at most .02 less where they stand."""
    drift, still = 0.13, 0.0
    assert run(name, drift, 2.0, 1) > run(name, drift, 0.0, 1) + 0.05
    assert run(name, still, 2.0, 1) > run(name, still, 0.0, 1) - 0.02


def test_half_life_is_what_it_says() -> None:
    """Closed form: after `h` rounds in which nothing of a node came, its samples count as half, then go."""
    season = Season(3, 0.0)
    strategy = FlowerStrategy(PROTOTYPES, WEATHER, {"half_life_rounds": 4.0})
    vector = np.zeros(WEATHER.vector_size(1))
    z, label = season.samples(1, 120)
    strategy.aggregate(1, vector, [reply_of(PROTOTYPES, 7, z, label)])
    counts = []
    for number in range(2, 60):
        one = reply_of(PROTOTYPES, 8, z[:1], label[:1])
        strategy.aggregate(number, vector, [one])
        assert strategy.samples is not None
        counts.append(strategy.samples - sum(0.5 ** (age / 4.0) for age in range(number - 1)))
    assert counts[3] == pytest.approx(60, abs=0.6) and counts[7] == pytest.approx(30, abs=0.6)
    assert counts[-1] == pytest.approx(0, abs=0.6)


@pytest.mark.parametrize("half_life", [-1.0, 0.5, 2e6])
def test_half_lives_that_mean_nothing_are_refused(half_life: float) -> None:
    with pytest.raises(ValueError, match="half_life_rounds"):
        FlowerStrategy(PROTOTYPES, WEATHER, {"half_life_rounds": half_life})
