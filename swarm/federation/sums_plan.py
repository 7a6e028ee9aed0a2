"""How coarse and how noisy masked sums are: the plan that a round announces.

A value of the sum has `bits` bits, whatever the group holds.  Its step is the smallest power of two with
which the sum over a full group cannot wrap round: every sample at its limit, every rounding up, six
deviations of noise.  Rounding is right on average, so a coarse step costs some scatter and no bias.

Noise.  One sample moves three parts of the sum: a count by 1, the 20 sums of its class by its z, which is
at most `clip` long, the 210 squares by at most clip^2.  A step's rounding can add one step to each
coordinate it touches: sqrt(20), sqrt(210).  Each part gets a share of mu^2 (`SHARES`), each node its part
of the noise: so much that `SURVIVORS_MIN` honest nodes carry all of it.  A larger group is noisier than
it need be.
"""

from __future__ import annotations

import math

from swarm.config import Privacy
from swarm.federation.accountant import mu_of
from swarm.model.layout import Z_ONE
from swarm.wire.app import (
    GROUP_MAX,
    SHIFT_MAX,
    SIGMA_MAX,
    SUMS_BITS,
    SUMS_DIMS,
    SUMS_SQUARES,
    SumsPlan,
)

__all__ = ["SURVIVORS_MIN", "PlanError", "mu_of_plan", "plan_of"]

SURVIVORS_MIN = 3
"""Members without whose masked vectors a group says nothing; also `swn_mask.h`."""
SHARES = (0.1, 0.6, 0.3)
"""Of mu^2: counts, sums of z, squares."""
Z_LIMIT = 127
BITS = 12
SIGMA_MIN = 2
NOISE_DEVIATIONS = 6.0


class PlanError(ValueError):
    """No plan can do what was asked; the text says what to change."""


def plan_of(privacy: Privacy) -> SumsPlan:
    """The plan of every round under these settings; PlanError when the noise does not fit."""
    samples = privacy.samples_max
    if privacy.epsilon <= 0.0:
        linear = _shift(BITS, samples * Z_LIMIT, 0.0, 0.0, 0.0)
        square = _shift(BITS, samples * Z_LIMIT**2, 0.0, 0.0, 0.0)
        return SumsPlan(samples, BITS, linear[0], square[0])
    mu = mu_of(privacy.epsilon, privacy.delta) / math.sqrt(privacy.releases)
    clip = round(math.sqrt(SUMS_DIMS) * privacy.clip * Z_ONE)
    highest = min(Z_LIMIT, clip)
    wants = [math.sqrt(share) * mu for share in SHARES]
    count = max(SIGMA_MIN, math.ceil(1.0 / wants[0] / math.sqrt(SURVIVORS_MIN)))
    linear = _shift(SUMS_BITS[1], samples * highest, clip, math.sqrt(SUMS_DIMS), wants[1])
    square = _shift(SUMS_BITS[1], samples * highest**2, clip**2, math.sqrt(SUMS_SQUARES), wants[2])
    if count > SIGMA_MAX:
        raise PlanError("so much noise does not fit into the counts; a larger epsilon or fewer releases do")
    sigmas = (count, linear[1], square[1])
    return SumsPlan(samples, SUMS_BITS[1], linear[0], square[0], clip, *sigmas, min(privacy.releases, 255))


def mu_of_plan(plan: SumsPlan) -> float:
    """What one round costs each sample, in mu; 0 without noise (nothing is promised then)."""
    if not plan.sigma_square:
        return 0.0
    linear = _sensitivity(plan.clip, math.sqrt(SUMS_DIMS), plan.shift_linear) / plan.sigma_linear
    square = _sensitivity(plan.clip**2, math.sqrt(SUMS_SQUARES), plan.shift_square) / plan.sigma_square
    return math.hypot(1.0 / plan.sigma_count, linear, square) / math.sqrt(SURVIVORS_MIN)


def _sensitivity(length: float, rounding: float, shift: int) -> float:
    """Steps by which one sample moves a part of the sum at most (L2)."""
    return length / (1 << shift) + (rounding if shift else 0.0)


def _shift(bits: int, node_limit: float, length: float, rounding: float, mu: float) -> tuple[int, int]:
    """The smallest shift with which the sum fits into `bits`, and each node's sigma there (mu 0: none)."""
    for shift in range(SHIFT_MAX + 1):
        sigma = 0
        if mu > 0.0:
            needed = _sensitivity(length, rounding, shift) / mu / math.sqrt(SURVIVORS_MIN)
            sigma = max(SIGMA_MIN, math.ceil(needed))
        reach = GROUP_MAX * (node_limit / (1 << shift) + 1.0)
        reach += NOISE_DEVIATIONS * sigma * math.sqrt(GROUP_MAX)
        if sigma <= SIGMA_MAX and reach < 1 << (bits - 1):
            return shift, sigma
    raise PlanError("so much noise does not fit into a sum; a larger epsilon or fewer releases do")
