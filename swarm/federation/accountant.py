"""What noise costs in privacy: the Gaussian mechanism, exactly, and many of them together.

A release with sensitivity D under noise of standard deviation s is mu-GDP with mu = D / s (Dong, Roth and Su,
2019): nothing depends on more than that ratio.  (epsilon, delta) follow from it without loss (Balle and
Wang, "Improving the Gaussian Mechanism for Differential Privacy", 2018, theorem 8):

    delta = Phi(mu/2 - epsilon/mu) - exp(epsilon) Phi(-mu/2 - epsilon/mu)

and releases add up as mu^2 = mu_1^2 + mu_2^2 + ...  The formulas are of continuous noise; the nodes' is
the discrete Gaussian on whole steps, which from two steps of deviation on is not to be told apart from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

__all__ = ["composed", "delta_of", "epsilon_of", "mu_of"]

MU_MAX = 100.0
EPSILON_MAX = 1e5
HALVINGS = 200


def delta_of(mu: float, epsilon: float) -> float:
    """The smallest delta 0..1 with which mu-GDP (mu >= 0) is (epsilon, delta)-DP, epsilon >= 0."""
    if mu <= 0.0:
        return 0.0
    root = math.sqrt(2.0)
    first = 0.5 * math.erfc((epsilon / mu - mu / 2.0) / root)
    second = 0.5 * math.erfc((epsilon / mu + mu / 2.0) / root)
    grown = math.exp(epsilon + math.log(second)) if second > 0.0 else 0.0
    return max(0.0, first - grown)


def epsilon_of(mu: float, delta: float) -> float:
    """The smallest epsilon with which mu-GDP (0 <= mu <= 100) is (epsilon, delta)-DP, 0 < delta < 1."""
    if delta_of(mu, 0.0) <= delta:
        return 0.0
    return _boundary(lambda epsilon: delta_of(mu, epsilon) <= delta, EPSILON_MAX)


def mu_of(epsilon: float, delta: float) -> float:
    """The largest mu (at most 100) that is (epsilon, delta)-DP: noise / sensitivity is 1 / mu."""
    if epsilon <= 0.0 or not 0.0 < delta < 1.0:
        raise ValueError(f"epsilon {epsilon:g}, delta {delta:g}: epsilon > 0 and 0 < delta < 1 are needed")
    # The bound itself is on the safe side by less than 1e-12.
    return _boundary(lambda mu: delta_of(mu, epsilon) > delta, MU_MAX) * (1.0 - 1e-12)


def composed(mus: Iterable[float]) -> float:
    """The mu of several releases about the same sample."""
    return math.sqrt(math.fsum(mu * mu for mu in mus))


def _boundary(holds: Callable[[float], bool], high: float) -> float:
    """Where a condition that is false at 0 begins to hold, between 0 and `high`."""
    low = 0.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        if holds(middle):
            high = middle
        else:
            low = middle
    return high
