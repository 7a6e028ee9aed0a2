"""The benchmark of asking: the mixture's gradient, and the targets on a small run."""

from __future__ import annotations

import numpy as np
import pytest

from simulations.bench import ask, mixture
from simulations.bench.ask import Setting
from swarm.prng import Prng


def test_the_gradient_is_that_of_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: training descends.  Method: central differences of every kind of weight, without rounding."""
    monkeypatch.setattr(mixture, "BITS", {})
    monkeypatch.setattr(mixture, "BALANCE", 0.0)
    network = mixture._Network(12, 4, Prng(1).child("weights").numpy())
    draws = Prng(2).child("inputs").numpy()
    x, label = draws.normal(0.0, 1.0, (40, 12)), draws.integers(0, 4, 40)

    def loss() -> float:
        scores = mixture._softmax(network.run(x).scores)
        return float(-np.log(scores[np.arange(40), label]).mean())

    gradient = network._gradient(x, label)
    step = 1e-5
    for name, weight in network.weight.items():
        worst = np.unravel_index(np.abs(gradient[name][0]).argmax(), weight.shape)
        kept = weight[worst]
        weight[worst] = kept + step
        above = loss()
        weight[worst] = kept - step
        slope = (above - loss()) / (2 * step)
        weight[worst] = kept
        assert slope == pytest.approx(gradient[name][0][worst], rel=2e-2), name


@pytest.mark.slow
def test_asking_gains_within_the_frames_allowed() -> None:
    """Goal: the numbers of the README hold.  Method: one seed, trained as the benchmark does."""
    pytest.importorskip("sklearn", reason="pip install 'loraswarm[bench]'")
    rows = {row["mode"]: row for row in ask.run([1], setting=Setting(queries=1500))}
    for mode, allowed in (("replica", 0.25), ("swarm", 0.55)):
        row = rows[mode]
        assert row["asked_score"] >= 0.88 and row["asked_score"] > row["local"] + 0.01
        assert row["frames_per_query"] <= allowed
        assert row["over_minimum"] <= 0.10 and row["answered_share"] > 0.97
    assert rows["replica"]["frames_per_query"] < rows["swarm"]["frames_per_query"]
