"""The accountant against closed forms, numerical integration, and Google's dp-accounting."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.config import Privacy
from swarm.federation.accountant import composed, delta_of, epsilon_of, mu_of
from swarm.federation.sums_plan import SURVIVORS_MIN, PlanError, mu_of_plan, plan_of
from swarm.wire.app import GROUP_MAX, SUMS_DIMS, SUMS_SQUARES

CASES = [(0.1, 0.5), (0.5, 1.0), (1.0, 1.0), (1.0, 4.0), (3.0, 8.0)]


@pytest.mark.parametrize(("mu", "epsilon"), CASES)
def test_delta_is_the_hockey_stick_integral(mu: float, epsilon: float) -> None:
    """Method: integrate max(p - e^epsilon q, 0) of N(mu, 1) and N(0, 1) on a fine grid."""
    x, step = np.linspace(-12.0, 12.0 + mu, 800_001, retstep=True)
    p = np.exp(-((x - mu) ** 2) / 2) / math.sqrt(2 * math.pi)
    q = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    integral = float(np.maximum(p - math.exp(epsilon) * q, 0.0).sum() * step)
    assert delta_of(mu, epsilon) == pytest.approx(integral, rel=1e-4, abs=1e-13)


def test_published_values() -> None:
    """mu-GDP at epsilon 0 is total variation 2 Phi(mu / 2) - 1 (Dong, Roth and Su, 2019)."""
    for mu in (0.1, 1.0, 2.5):
        assert delta_of(mu, 0.0) == pytest.approx(math.erf(mu / 2 / math.sqrt(2)), rel=1e-12)
    assert delta_of(0.0, 1.0) == 0.0 == epsilon_of(0.0, 1e-5)


@given(st.floats(0.05, 20.0), st.floats(1e-12, 0.1))
def test_mu_and_epsilon_are_inverse(epsilon: float, delta: float) -> None:
    mu = mu_of(epsilon, delta)
    assert delta_of(mu, epsilon) <= delta
    assert epsilon_of(mu, delta) == pytest.approx(epsilon, rel=1e-6)


@given(st.lists(st.floats(0.01, 2.0), min_size=1, max_size=6))
def test_releases_add_up_by_their_squares(mus: list[float]) -> None:
    """The same as one release whose sensitivity is the length of all of them together."""
    assert composed(mus) == pytest.approx(float(np.linalg.norm(mus)), rel=1e-12)


@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 1e-5), (-1.0, 1e-5), (1.0, 0.0), (1.0, 1.0)])
def test_nonsense_is_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(ValueError, match="are needed"):
        mu_of(epsilon, delta)


GOOGLE = [
    (0.1, 1, 0.340669),
    (0.1, 10, 1.19937),
    (0.25, 1, 0.926342),
    (0.25, 10, 3.341409),
    (0.5, 1, 1.993091),
    (0.5, 10, 7.511276),
    (1.0, 1, 4.377178),
    (1.0, 10, 17.856587),
    (2.0, 1, 9.997256),
    (2.0, 10, 46.21121),
]
"""(mu, releases, epsilon at delta 1e-5), written by PLDAccountant of dp-accounting 0.6.0."""
OTHER = Path(__file__).parents[2] / "build" / "dp-accounting" / "bin" / "python"
ACCOUNT = """
import json, sys
from dp_accounting import GaussianDpEvent
from dp_accounting.pld import PLDAccountant

def epsilon(mu, releases):
    accountant = PLDAccountant()
    accountant.compose(GaussianDpEvent(1.0 / mu), releases)
    return accountant.get_epsilon(1e-5)

print(json.dumps([epsilon(*each) for each in json.loads(sys.argv[1])]))
"""


@pytest.mark.parametrize(("mu", "releases", "epsilon"), GOOGLE)
def test_an_independent_accountant_agrees(mu: float, releases: int, epsilon: float) -> None:
    """It composes discretised privacy losses numerically, always a little above the exact value."""
    ours = epsilon_of(composed([mu] * releases), 1e-5)
    assert ours <= epsilon + 5e-7  # the table is rounded to six decimals
    assert ours == pytest.approx(epsilon, rel=2e-3)


@pytest.mark.skipif(
    not OTHER.exists(),
    reason="python3 -m venv build/dp-accounting; build/dp-accounting/bin/pip install dp-accounting==0.6.0",
)
def test_the_table_is_what_the_other_accountant_says() -> None:
    """It lives in an environment of its own, for it needs other versions than ours; CI makes that."""
    asked = [[mu, releases] for mu, releases, _ in GOOGLE]
    done = subprocess.run(
        [OTHER, "-c", ACCOUNT, json.dumps(asked)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == pytest.approx([epsilon for _, _, epsilon in GOOGLE], rel=1e-5)


@pytest.mark.parametrize("releases", [1, 4])
@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0, 4.0, 8.0])
def test_a_plan_keeps_its_promise_and_fits(epsilon: float, releases: int) -> None:
    """All its releases cost no more than asked; recomputed here from the three sensitivities."""
    privacy = Privacy(epsilon=epsilon, delta=1e-5, clip=1.0, releases=releases)
    plan = plan_of(privacy)
    linear = plan.clip / 2**plan.shift_linear + math.sqrt(SUMS_DIMS)
    square = plan.clip**2 / 2**plan.shift_square + math.sqrt(SUMS_SQUARES)
    parts = (1 / plan.sigma_count, linear / plan.sigma_linear, square / plan.sigma_square)
    mu = math.sqrt(sum(part**2 for part in parts) / SURVIVORS_MIN)
    assert mu_of_plan(plan) <= mu + 1e-12
    assert epsilon_of(composed([mu] * releases), 1e-5) <= epsilon
    assert plan.releases_max == releases
    widest = GROUP_MAX * plan.samples_max * 127**2 / 2**plan.shift_square
    assert widest + 6 * plan.sigma_square * math.sqrt(GROUP_MAX) < 2 ** (plan.bits - 1)


def test_a_plan_without_noise_cannot_wrap_and_promises_nothing() -> None:
    plan = plan_of(Privacy())
    assert plan.bits == 12 and plan.sigma_square == 0 and mu_of_plan(plan) == 0.0
    assert GROUP_MAX * (24 * 127 / 2**plan.shift_linear + 1) < 2048
    assert GROUP_MAX * (24 * 127**2 / 2**plan.shift_square + 1) < 2048
    assert GROUP_MAX * (24 * 127 / 2 ** (plan.shift_linear - 1) + 1) >= 2048


def test_noise_that_does_not_fit_is_said() -> None:
    with pytest.raises(PlanError, match="larger epsilon"):
        plan_of(Privacy(epsilon=1e-3))
