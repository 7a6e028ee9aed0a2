"""Which options of the prototypes strategy suit a task, by validation rows of the validation seeds only.

    python -m tools.choose_solver agri --nodes 1000 --sf 7 12 --refine 0 500

The real nodes report once a seed and spreading factor; every combination of options then solves heads from
the same statistics, and each is scored on the fleet's validation rows in float.  The winners stand in
`simulations.bench.modes`; test rows are not looked at.
"""

from __future__ import annotations

import argparse
import itertools
from collections import defaultdict
from statistics import fmean

import numpy as np

from simulations.bench.baselines import Features, said_by
from simulations.bench.cell import Cell
from simulations.bench.modes import VALIDATION_SEEDS
from simulations.tasks.catalogue import TASKS, build
from simulations.tasks.public_model import public_model
from swarm.federation.discriminant import solve_heads
from swarm.federation.prototypes import Options, Statistics
from swarm.federation.strategy import PROTOTYPES, FlowerStrategy
from swarm.model import layout
from swarm.wire.app import RoundMode

GRID: dict[str, tuple[float, ...]] = {
    "public_covariance": (0.0, 0.5, 1.0),
    "ridge": (0.03, 0.1, 0.3, 1.0),
    "balance": (-1.0, 0.0, 0.5, 1.0),
    "count_cap": (6.0, 60.0),
    "mean_shrink": (0.5, 6.0),
    "prior_weight": (0.0, 12.0),
    "identity_shrink": (2.0,),
    "keep_shipped": (0.0,),
    "refine": (0.0,),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--sf", type=int, nargs="+", default=[7])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(VALIDATION_SEEDS))
    parser.add_argument("--refine", type=float, nargs="+", default=[0.0])
    chosen = parser.parse_args()
    grid = {**GRID, "refine": tuple(chosen.refine)}
    scores: dict[tuple[float, ...], list[float]] = defaultdict(list)
    for seed, factor in itertools.product(chosen.seeds, chosen.sf):
        task = build(chosen.task, chosen.nodes, seed, None)
        model = public_model(task, seed)
        features = Features.of(task, model)
        cell = Cell(task, model, spreading_factor=factor, seed=seed)
        base = cell.master[layout.ADAPTER_SIZE :].reshape(cell.contexts, -1)
        strategy = FlowerStrategy(PROTOTYPES, model.model.shape, {"gain_min": 0.0})
        cell.round(RoundMode.PROTOTYPES, strategy)
        statistics = Statistics(model.model.shape)
        statistics.load(strategy._strategy.learner.arrays())  # type: ignore[attr-defined]
        for values in itertools.product(*grid.values()):
            options = Options(**dict(zip(grid, values, strict=True)))
            heads = solve_heads(statistics, base, options, model.prior).astype(np.float32)
            own = heads.reshape(cell.contexts, -1, layout.HEAD_ROW)[task.node_context]
            said = said_by(own, features.validation, task.validation.node)
            scores[values].append(task.score(said, task.validation))
    best = sorted(scores, key=lambda values: -fmean(scores[values]))
    print(chosen.task, "seeds", chosen.seeds, "SF", chosen.sf)
    for values in [*best[:6], best[len(best) // 2], best[-1]]:
        words = ", ".join(f"{name} {value:g}" for name, value in zip(grid, values, strict=True))
        print(f"{fmean(scores[values]):.4f}  {words}")


if __name__ == "__main__":
    main()
