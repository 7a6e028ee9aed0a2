"""The public trunk and the container made of it: exact gradients, the engine's agreement, skill."""

from __future__ import annotations

import numpy as np
import pytest

from simulations.tasks import trunk as trunks
from simulations.tasks.agri import agri
from simulations.tasks.public_model import public_model
from simulations.tasks.trunk import CAP, train_trunk
from swarm.model import container, layout
from swarm.prng import Prng


def test_the_trunk_s_gradients_are_those_of_finite_differences() -> None:
    """Goal: backward matches forward.  Method: central differences, no rounding, no dropout."""
    rng = np.random.default_rng(1)
    w = {name: value.astype(np.float64) for name, value in trunks._start(7, 3, 4, rng).items()}
    for name in ("dense_bias", "shared_bias", "experts_bias"):
        w[name] = rng.normal(0.1, 0.2, w[name].shape)
    w["heads"] = rng.normal(0, 0.3, w["heads"].shape)
    x = rng.normal(0, 1, (9, 7))
    label, head = rng.integers(0, 4, 9).astype(np.uint8), rng.integers(1, 3, 9).astype(np.uint8)
    weight = rng.uniform(0.5, 1.5, 9)

    def loss() -> float:
        done = trunks.forward(w, x)
        h = done.h.astype(np.float64)
        total = 0.0
        for i in range(9):
            for one, share in ((0, 0.5), (int(head[i]), 1.0)):
                logits = w["heads"][one] @ h[i] + w["heads_bias"][one]
                total -= weight[i] * share * np.log(trunks.softmax(logits)[label[i]]) / 9
        balance = trunks.softmax(done.logits).mean(axis=0)
        return total + trunks.BALANCE * trunks.EXPERTS * float(np.square(balance).sum())

    gradient: dict[str, np.ndarray] = {}
    done = trunks.forward(w, x)
    slope = trunks._loss_slope(w, done.h, label, head, weight, gradient)
    gradient |= trunks.backward(w, done, slope)
    for name in ("dense", "shared", "gate", "experts", "heads", "dense_bias", "experts_bias", "heads_bias"):
        flat = w[name].reshape(-1)
        for at in rng.integers(0, flat.size, 6):
            kept = flat[at]
            ends = []
            for step in (2e-3, -2e-3):
                flat[at] = kept + step
                ends.append(loss())
            flat[at] = kept
            slope_at = (ends[0] - ends[1]) / 4e-3
            assert gradient[name].reshape(-1)[at] == pytest.approx(slope_at, rel=0.05, abs=2e-3), name


def test_training_is_seeded_and_stays_under_the_cap() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(0, 1, (400, 10)).astype(np.float32)
    label = (x[:, 0] * x[:, 1] > 0).astype(np.uint8)
    context = np.zeros(400, np.uint8)
    one, same = (train_trunk(x, label, context, 2, 60, Prng(5)) for _ in range(2))
    assert all(np.array_equal(one.weights[name], same.weights[name]) for name in one.weights)
    hidden = one.hidden(x)
    assert hidden.min() >= 0.0 and hidden.max() <= CAP


def test_a_trunk_that_recalls_its_inputs_says_what_no_public_class_asks_for() -> None:
    """Goal: inputs that labels ignore are read from h twice as well.  Method: least squares, new rows."""
    rng = np.random.default_rng(3)
    x, fresh = (rng.normal(0, 1, (1200, 12)).astype(np.float32) for _ in range(2))
    label = (x[:, 0] > 0).astype(np.uint8)
    lost = []
    for recall in (0.0, 10.0):
        trunk = train_trunk(x, label, np.zeros(1200, np.uint8), 2, 150, Prng(6), recall)
        assert set(trunk.weights) == set(trunks._start(12, 2, 2, rng))
        h = np.column_stack([trunk.hidden(x), np.ones(1200)])
        reader = np.linalg.lstsq(h, x[:, 1:], rcond=None)[0]
        said = np.column_stack([trunk.hidden(fresh), np.ones(1200)]) @ reader
        lost.append(float(np.square(said - fresh[:, 1:]).mean()))
    assert lost[1] < 0.5 * lost[0]


def test_the_gradient_of_reading_inputs_back_is_that_of_finite_differences() -> None:
    rng = np.random.default_rng(4)
    w = {"recall": rng.normal(0, 0.3, (5, 64)), "recall_bias": rng.normal(0, 0.3, 5)}
    h, x = rng.normal(0, 1, (7, 64)), rng.normal(0, 3, (7, 5))

    def loss() -> float:
        error = h @ w["recall"].T + w["recall_bias"] - np.clip(x, -3.0, 3.0)
        return 2.0 * float(np.square(error).mean()) / 2.0

    gradient: dict[str, np.ndarray] = {}
    slope = trunks._recall_slope(w, h, x, 2.0, gradient)
    for values, said in ((h, slope), (w["recall"], gradient["recall"])):
        kept = values[1, 2]
        ends = []
        for step in (1e-4, -1e-4):
            values[1, 2] = kept + step
            ends.append(loss())
        values[1, 2] = kept
        assert said[1, 2] == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-3)


@pytest.fixture(scope="module")
def made():
    task = agri(12, 1)
    return task, public_model(task, 1)


def test_the_engine_computes_what_was_trained(made) -> None:
    """Goal: writing to integers loses little.  Method: hidden vectors of C and numpy side by side."""
    task, model = made
    x = model.encode(task.public.x[:500])
    inputs = (x / np.float32(32)).astype(np.float32)
    prng = Prng(1).child("public model").child("trunk")
    steps = int(np.clip(12 * len(task.public) // 128, 100, 900))
    everything = (model.encode(task.public.x) / np.float32(32)).astype(np.float32)
    trunk = train_trunk(everything, task.public.label, task.public.context, 3, steps, prng)
    ours = trunk.hidden(inputs)
    engine = model.model.hidden(x) * (CAP / 127)
    assert np.abs(ours - engine).mean() < 0.02
    assert np.corrcoef(ours.ravel(), engine.ravel())[0, 1] > 0.999


def test_the_container_knows_the_public_contexts_and_beats_chance(made) -> None:
    task, model = made
    read = container.read(model.image)
    assert isinstance(read, container.Container)
    assert read.contexts() == (0, 1, 2) and (read.shape.classes, read.shape.features) == (3, task.features)
    z = model.z(task.public.x)
    assert np.abs(z.mean(axis=0)).max() < 0.3 and 0.7 < z.std(axis=0).mean() < 1.2
    said = np.empty(len(task.public), np.int64)
    for context in (0, 1, 2):
        rows = task.public.context == context
        probabilities = model.model.infer(model.encode(task.public.x[rows]), model.model.base_head(context))
        said[rows] = probabilities.argmax(axis=1)
    most = np.bincount(task.public.label).max() / len(task.public)
    assert np.mean(said == task.public.label) > most + 0.1
    assert most < model.expected < 1.0
    assert model.prior.means.shape == (layout.CONTEXT_MAX, 3, layout.Z)
