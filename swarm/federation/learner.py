"""What the `prototypes` strategy remembers from round to round, without Flower around it.

    learner = Learner(options, shape, prior)
    heads = learner.learn(current_heads, replies)      # float64[contexts, head_size]
    learner.results                                    # per context: judged how, used or not
    learner.load(learner.arrays())                     # bit for bit

Each round, in this order: what is old fades (`half_life_rounds`), the heads solved before are judged by the
new increments, the increments join the statistics, the heads are solved anew, and each context takes what
the judge says.  The heads of the very first call are the shipped ones, to which a context returns whenever
nothing better is proved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from swarm.federation.discriminant import ContextResult, Judge, solve_believed
from swarm.federation.misplaced import Misplaced, Suspect
from swarm.federation.prototypes import Options, Prior, Statistics, row_of
from swarm.model.layout import Shape
from swarm.model.vector import Float64

__all__ = ["Learner"]


class Learner:
    """Statistics, the judge's memory, and the last solved heads."""

    def __init__(self, options: Options, shape: Shape, prior: Prior | None = None) -> None:
        self.results: list[ContextResult] = []
        self.suspects: list[Suspect] = []
        """Nodes that the last round made look misplaced."""
        self._misplaced = Misplaced()
        self._options = options
        self._shape = shape
        self._prior = prior
        self._statistics = Statistics(shape)
        self._shipped: Float64 | None = None
        self._solved: Float64 | None = None
        self._judge = Judge(self._shape, 0)

    def learn(self, heads: Float64, replies: Sequence[tuple[int, Float64]]) -> Float64:
        """The heads to use from now on; `heads` are the current ones, `replies` (node index, flat reply).

        ValueError when the statistics are full.
        """
        if self._shipped is None:
            self._shipped = heads.copy()
            self._judge = Judge(self._shape, len(heads))
        shipped = self._shipped
        self._statistics.forget(self._options.kept_a_round)
        self._judge.forget(self._options.kept_a_round)
        rows: list[list[Float64]] = [[] for _ in shipped]
        reported = {(int(reply[0]), node_index) for node_index, reply in replies}
        for node_index, reply in replies:
            rows[int(reply[0])].append(row_of(reply).astype(np.float64))
            self._statistics.add(node_index, reply)
        for context, own in enumerate(rows):
            if self._solved is not None and own:
                self._judge.tally(
                    np.stack(own), context, shipped[context], self._solved[context], self._options
                )
        self._solved, denied = solve_believed(self._statistics, shipped, self._options, self._prior)
        self.suspects = self._misplaced.look(self._statistics, self._solved, reported, self._options)
        counts = [len(self._statistics.nodes(context)) for context in range(len(shipped))]
        self.results = [
            self._judge.result(c, count, self._options, denied[c]) for c, count in enumerate(counts)
        ]
        shares = np.array([[result.share] for result in self.results])
        # A share of 0 gives the shipped head back bit for bit: x * 1.0 + y * 0.0 is x.
        used: Float64 = shipped * (1.0 - shares) + self._solved * shares
        return used

    def misplaced(self) -> dict[int, int]:
        """Node index -> the context that its labels fit better, of all nodes suspected now."""
        return self._misplaced.suspects()

    @property
    def samples(self) -> int:
        """Samples counted so far."""
        return self._statistics.samples

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """State as named arrays, all of them copies or never written in place."""
        arrays = self._statistics.arrays()
        arrays["misplaced"] = self._misplaced.array()
        if self._shipped is not None:
            arrays["shipped"] = self._shipped
            arrays["confusion"] = self._judge.confusion.copy()
            arrays["judged"] = self._judge.rounds.copy()
        if self._solved is not None:
            arrays["solved"] = self._solved
        return arrays

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """State from named arrays; ValueError or KeyError when they do not fit together."""
        self._statistics.load(arrays)
        self._misplaced = Misplaced()
        if "misplaced" in arrays:
            self._misplaced.load(arrays["misplaced"].astype(np.int64).reshape(-1, 4))
        self._shipped = self._solved = None
        self._judge = Judge(self._shape, 0)
        if "shipped" in arrays:
            self._shipped = arrays["shipped"].astype(np.float64).reshape(-1, self._shape.head_size)
            self._judge = Judge(self._shape, len(self._shipped))
            self._judge.confusion[:] = arrays["confusion"]
            self._judge.rounds[:] = arrays["judged"]
        if "solved" in arrays:
            self._solved = arrays["solved"].astype(np.float64).reshape(-1, self._shape.head_size)
