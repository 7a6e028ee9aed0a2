"""The table of docs/PRIVACY.md: what masks, lost nodes and noise cost in accuracy, through the real firmware.

python -m tools.measure_privacy 5 6 7
"""

from __future__ import annotations

import sys
from statistics import fmean, pstdev

from swarm.config import Privacy
from swarm.model.vector import Mirror
from tests.firmware.test_masked_learning import COUNT, Fleet

EPSILONS = (8.0, 4.0, 2.0, 1.0)
LOSSES = (0.0, 0.1, 0.3)


def measured(seed: int) -> dict[str, float]:
    """Accuracies of one seed by what the heads were made of; a fresh fleet each."""
    shipped = Fleet(seed)
    start = Mirror(0, shipped.model.adapter(), shipped.base()).master()[512:]
    clear = Fleet(seed)
    scores = {
        "shipped": shipped.accuracy(start),
        "clear": clear.accuracy(clear.clear(list(range(COUNT)))),
    }
    for name, privacy, loss in (
        *((f"masked, {loss:.0%} lost", Privacy(), loss) for loss in LOSSES),
        *((f"epsilon {epsilon:g}", Privacy(epsilon=epsilon), 0.0) for epsilon in EPSILONS),
    ):
        fleet = Fleet(seed)
        scores[name] = fleet.accuracy(fleet.masked(privacy, loss)[0])
    return scores


def main(seeds: list[int]) -> None:
    rows = [measured(seed) for seed in seeds]
    for name in rows[0]:
        values = [row[name] for row in rows]
        each = " ".join(f"{value:.3f}" for value in values)
        print(f"{name:18} {each}   mean {fmean(values):.3f} +- {pstdev(values):.3f}")


if __name__ == "__main__":
    main([int(text) for text in sys.argv[1:]] or [5, 6, 7])
