"""What a sensor fault is told by: closed forms, no units, flat channels, and a plane between kinds."""

from __future__ import annotations

import numpy as np
import pytest

from simulations.field.baselines import fit_heads
from simulations.tasks import faults
from simulations.tasks.fault_inputs import WINDOW_H, Usual, fault_inputs, runs_h
from simulations.tasks.public_model import head_inputs

BY_STEP, BY_RAMP = 2, 3


def channel(scale: float = 1.0, offset: float = 0.0, noise: float = 0.3) -> faults._Channel:
    rng = np.random.default_rng(5)
    hours = np.arange(24 * 200)
    weather = np.cumsum(rng.normal(0, 0.1, len(hours)))
    values = 15 + 6 * np.sin(2 * np.pi * hours / 24) + weather + rng.normal(0, noise, len(hours))
    found = faults._channel("t", hours, scale * values + offset)
    assert found is not None
    return found


def test_runs_sum_up_and_keep_their_order() -> None:
    assert runs_h(np.array([1.0, 1.0, 2.0, 3.0, 3.0, 3.0])).tolist() == [2, 1, 3]
    assert runs_h(np.full(7, 4.0)).tolist() == [7]


def test_degrees_of_any_scale_say_the_same() -> None:
    celsius, fahrenheit = channel(), channel(1.8, 32.0)
    for start in (0, 777, 2000):
        ours, theirs = (faults._inputs(c.values[start : start + 48], c) for c in (celsius, fahrenheit))
        assert ours.shape == (22,) and np.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("begin", [24, 30, 38])
def test_a_pure_step_and_a_pure_ramp_are_told_by_their_fits(begin: int) -> None:
    """Goal: each is explained best by its own shape.  Method: two equal days, a fault in the second."""
    calm, usual = np.tile(np.sin(np.arange(24) / 4), 2), Usual(0.3, 0.1, 0.3, 0.05, 0.2)
    since = np.maximum(np.arange(WINDOW_H) - begin, 0)
    step = fault_inputs(calm + 1.5 * (np.arange(WINDOW_H) >= begin), -2.0, usual)
    ramp = fault_inputs(calm + 0.1 * since, -2.0, usual)
    assert step[BY_STEP] > step[BY_RAMP] + 1.0
    assert ramp[BY_RAMP] > ramp[BY_STEP] + 1.0
    # The slope is given as a day's worth.
    assert ramp[4] == pytest.approx(2.4, rel=1e-5)


@pytest.mark.parametrize("level", [0.0, -8.0, 1e6])
def test_a_flat_window_has_finite_inputs(level: float) -> None:
    flat = np.full(WINDOW_H, level)
    assert np.isfinite(fault_inputs(flat, 0.0, Usual.of(flat[np.newaxis]))).all()


def test_a_plane_learned_on_a_lively_channel_serves_a_calm_one() -> None:
    """Goal: logarithms of how many times the usual carry over.  Method: a linear head, other noise."""
    rng = np.random.default_rng(8)
    made = []
    for own in (channel(noise=1.0), channel(noise=0.1)):
        kinds = np.tile(np.arange(7), 60)
        starts = rng.choice(own.starts, len(kinds))
        windows = [
            faults._injected(own.values[start : start + 48], kind, own, rng)
            for start, kind in zip(starts.tolist(), kinds.tolist(), strict=True)
        ]
        made.append((np.stack([faults._inputs(window, own) for window in windows]), kinds.astype(np.uint8)))
    (lively, label), (calm, truth) = made
    mean, spread = lively.mean(axis=0), lively.std(axis=0) + 1e-3
    x, other = (head_inputs(np.clip((part - mean) / spread, -4, 4)) for part in (lively, calm))
    start = np.zeros((1, 7, x.shape[1]), np.float32)
    head = fit_heads(x[None], label[None], start, np.array([3.0], np.float32), iterations=150)[0]
    assert np.mean((other @ head.T).argmax(axis=1) == truth) > 0.75
