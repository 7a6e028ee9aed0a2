"""Federated averaging beside the firmware: what it is billed for, and that it learns what it should."""

from __future__ import annotations

import numpy as np
import pytest

from simulations.bench.averaging import COHORT, FRAGMENT_SIZE, Averaging
from simulations.bench.bill import LORAWAN_SIZE, payload_max
from simulations.bench.learn import Setting, prepare, run_averaged
from simulations.bench.modes import AVERAGED
from swarm.phy.airtime import airtime_us

NODES = 48


@pytest.fixture(scope="module")
def setting() -> Setting:
    return prepare("agri", NODES, 101)


def averaging(setting: Setting, mode: str) -> Averaging:
    return Averaging(setting.task, setting.model, AVERAGED[mode], seed=1)


@pytest.mark.parametrize("factor", [7, 12])
@pytest.mark.parametrize("mode", sorted(AVERAGED))
def test_the_bill_in_closed_form(setting: Setting, mode: str, factor: int) -> None:
    """Goal: the least that it can cost.  Method: a byte a parameter, full fragments and a rest, both ways."""
    run = averaging(setting, mode)
    run.round()
    run.round()

    def spent_us(size: int, crc: bool) -> int:
        largest = payload_max(factor) - FRAGMENT_SIZE
        sizes = [
            min(largest, size - begin) + FRAGMENT_SIZE + LORAWAN_SIZE for begin in range(0, size, largest)
        ]
        return sum(airtime_us(factor, 125_000, one, crc=crc) for one in sizes)

    for rounds in (1, 2):
        costs = run.costs(factor, rounds)
        assert costs.airtime_up_us == rounds * min(COHORT, NODES) * spent_us(run.size(1), True)
        assert costs.airtime_down_us == rounds * spent_us(run.size(len(setting.task.contexts)), False)
    assert run.costs(factor) == run.costs(factor, 2)


def test_what_is_trained_has_the_size_that_it_says(setting: Setting) -> None:
    """Five experts of 64 x 64 with rank-4 adapters and biases, a gate of four, a head of three classes."""
    adapters = 5 * 2 * 4 * 64 + 5 * 64 + 4 * 65
    assert averaging(setting, "average_adapters").size(1) == adapters + 3 * 33
    features = setting.task.features
    assert (
        averaging(setting, "average_all").size(6) == 5 * 64 * 65 + 4 * 65 + 64 * (features + 1) + 6 * 3 * 33
    )


@pytest.mark.parametrize("mode", sorted(AVERAGED))
def test_it_starts_from_what_is_shipped_and_learns(setting: Setting, mode: str) -> None:
    """Goal: a fair rival.  Method: before the first round it answers as the engine does, but for rounding."""
    task, run, again = setting.task, averaging(setting, mode), averaging(setting, mode)
    shipped = setting.baselines["public"]
    assert shipped is not None
    assert np.mean(run.answers(task.test) == shipped.test) > 0.95
    before = task.score(run.answers(task.train), task.train)
    for _ in range(10):
        run.round()
        again.round()
    assert task.score(run.answers(task.train), task.train) > before + 0.03
    assert all(np.array_equal(value, again.parameters[name]) for name, value in run.parameters.items())


@pytest.mark.parametrize("mode", sorted(AVERAGED))
def test_slopes_are_those_of_the_loss(setting: Setting, mode: str) -> None:
    """Method: central differences along the slope, where the two chosen experts stay the same."""
    run = averaging(setting, mode)
    for _ in range(3):  # away from adapters of zero, whose slopes are zero
        run.round()
    rows = np.flatnonzero(setting.task.train.node == 0)[:8]
    label, weight = setting.task.train.label[rows], run.weight[rows]
    slopes = run.slopes(run.parameters, rows)
    # The pull to an even use of experts is no part of the cross-entropy.
    slopes["gate"], slopes["gate_bias"] = np.zeros_like(slopes["gate"]), np.zeros_like(slopes["gate_bias"])

    def loss(step: float) -> float:
        moved = {name: (run.parameters[name] - step * slopes[name]).astype(np.float32) for name in slopes}
        logits = run.logits(moved, rows)[-1].astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        said = logits[np.arange(len(rows)), label] - np.log(np.exp(logits).sum(axis=1))
        return float(-(weight * said).mean())

    step = 1e-3
    expected = sum(float((slope.astype(np.float64) ** 2).sum()) for slope in slopes.values())
    assert (loss(-step) - loss(step)) / (2 * step) == pytest.approx(expected, rel=0.05)


def test_the_best_version_by_validation_is_scored(setting: Setting) -> None:
    outcome = run_averaged(setting, "average_all", 7, 12)
    assert [round(spent / outcome.curve[1][0], 6) for spent, _ in outcome.curve] == [0.0, 1.0, 2.0, 2.4]
    assert outcome.validation == max(score for _, score in outcome.curve)
    assert outcome.costs.airtime_s == outcome.curve[-1][0]
    assert outcome.score > 0.0 and np.isnan(outcome.served)
