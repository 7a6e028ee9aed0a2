"""Heads from sums over groups: the options that mean something here are honoured, others refused."""

from __future__ import annotations

import numpy as np
import pytest

from swarm.federation.strategy import MASKED_SUMS, FlowerStrategy, Reply, mistakes
from swarm.model.layout import ADAPTER_SIZE, HEAD_ROW, Shape

SHAPE = Shape(classes=3, features=40)
AT_ONCE = {"gain_min": 0.0, "nodes_min": 1.0, "nodes_full": 1.0, "mean_shrink": 0.0}


def solved(**options: float) -> tuple[np.ndarray, np.ndarray]:
    """The weights [3, 20] of the head that one group's sums give, and its class means in std [3, 20]."""
    draw = np.random.default_rng(4)
    label = np.repeat([0, 1, 2], 40)
    shape_of_it = np.linspace(0.5, 3.0, 20)
    z = np.clip(np.rint(32 * (draw.standard_normal((120, 20)) * shape_of_it + label[:, None])), -127, 127)
    member = np.eye(3)[label]
    parts = [[0, 8], member.sum(axis=0), (member.T @ z).ravel(), (z.T @ z)[np.triu_indices(20)]]
    strategy = FlowerStrategy(MASKED_SUMS, SHAPE, {**AT_ONCE, **options})
    done = strategy.aggregate(
        1, np.zeros(ADAPTER_SIZE + SHAPE.head_size), [Reply(0, np.concatenate(parts), 1)]
    )
    assert done.vector is not None, done.failure
    weights = done.vector[ADAPTER_SIZE:].reshape(3, HEAD_ROW)[:, :20]
    return weights, member.T @ z / 32 / 40


def test_public_covariance_is_honoured() -> None:
    """At 1 the covariance is the public one, identity for a daemon: weights are means, less by the ridge."""
    weights, means = solved(public_covariance=1.0, ridge=0.25)
    assert np.allclose(weights, (means - means.mean(axis=0)) / 1.25)
    own, _ = solved(public_covariance=0.0, ridge=0.25)
    half, _ = solved(public_covariance=0.5, ridge=0.25)
    # Dimensions that scatter much weigh less by the fleet's own covariance, and half less half-way.
    ratios = [np.abs(each[:, 15:]).mean() / np.abs(each[:, :5]).mean() for each in (own, half, weights)]
    assert ratios[0] < ratios[1] < ratios[2]


@pytest.mark.parametrize("name", ["trim", "keep_shipped"])
def test_options_that_would_do_nothing_are_refused_with_one_line(name: str) -> None:
    with pytest.raises(ValueError, match=f"unknown option {name} of strategy masked_sums; it takes: balance"):
        FlowerStrategy(MASKED_SUMS, SHAPE, {name: 0.0})
    (path, problem, _), *more = list(mistakes("masked_sums", "FedAvg", {name: 0.0}))
    assert not more and path == ("options", name) and "unknown" in problem
