"""What the `masked_sums` strategy remembers from round to round, without Flower around it.

The same life as `federation.learner.Learner`: the heads solved before are judged by the new increments,
the increments join the sums, the heads are solved anew.  Its replies are sums over whole groups
(`federation.groups`), so the within-class covariance comes from the second moments, not from the scatter
of the nodes' means, and a judge sees the class means of groups.  Only totals are kept: nothing of a node,
nothing of a group; with `half_life_rounds` they fade.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from swarm.federation.discriminant import (
    ContextResult,
    Judge,
    Moments,
    prior_of,
    public_covariance,
    solve_moments,
)
from swarm.federation.groups import Sums, sums_of
from swarm.federation.prototypes import FORGOTTEN, SUM_ONE, Options, Prior
from swarm.model.layout import HEAD_ROW, Z_ONE, Shape, Z
from swarm.model.vector import Float64
from swarm.wire.app import SUMS_DIMS, SUMS_SQUARES

__all__ = ["OPTIONS", "SumsLearner", "reply_size"]

OPTIONS = (
    *("balance", "count_cap", "gain_min", "half_life_rounds", "identity_shrink", "mean_shrink"),
    *("nodes_full", "nodes_min", "prior_weight", "public_covariance", "ridge"),
)
"""Of `prototypes.Options`, those that mean something here: no single mean is seen (`trim`), and nothing is
kept of the dimensions that sums leave out (`keep_shipped`)."""

_UPPER = np.triu_indices(SUMS_DIMS)


def reply_size(shape: Shape) -> int:
    """Values of a flat reply: context, members, counts, sums of z, squares."""
    return 2 + shape.classes * (1 + SUMS_DIMS) + SUMS_SQUARES


class SumsLearner:
    """Totals per context, the judge's memory, and the last solved heads."""

    def __init__(self, options: Options, shape: Shape, prior: Prior | None = None) -> None:
        self.results: list[ContextResult] = []
        self._options, self._shape, self._prior = options, shape, prior
        self._members: Float64 = np.zeros(0)
        self._totals: Float64 = np.zeros((0, reply_size(shape) - 2))
        self._shipped: Float64 | None = None
        self._solved: Float64 | None = None
        self._judge = Judge(shape, 0)

    def learn(self, heads: Float64, replies: Sequence[tuple[int, Float64]]) -> Float64:
        """The heads to use from now on; `heads` are the current ones, `replies` (node index, flat reply)."""
        if self._shipped is None:
            self._begin(heads.copy())
        shipped = self._shipped
        assert shipped is not None
        rows: list[list[Float64]] = [[] for _ in shipped]
        kept = self._options.kept_a_round
        members, totals = self._members * kept, self._totals * kept
        self._judge.forget(kept)
        for _, reply in replies:
            context, people, sums = sums_of(reply, self._shape.classes)
            rows[context].append(self._row(sums))
            members[context] += people
            totals[context] += reply[2:]
        for context, own in enumerate(rows):
            if self._solved is not None and own:
                heads_of = (shipped[context], self._solved[context])
                self._judge.tally(np.stack(own), context, *heads_of, self._options)
        self._members, self._totals = members, totals
        moments = [self._moments(context) for context in range(len(shipped))]
        # What sums leave out belongs to the shipped discriminant: beside a new one it misleads.
        start = shipped.reshape(len(shipped), -1, HEAD_ROW).copy()
        start[:, :, SUMS_DIMS:Z] = 0.0
        solved = solve_moments(
            moments,
            (members >= FORGOTTEN).tolist(),
            start.reshape(shipped.shape),
            self._options,
            public_covariance(self._prior),
        )
        self._solved = np.where(members[:, np.newaxis] >= FORGOTTEN, solved, shipped)
        self.results = [self._judge.result(c, round(members[c]), self._options) for c in range(len(shipped))]
        shares = np.array([[result.share] for result in self.results])
        used: Float64 = shipped * (1.0 - shares) + self._solved * shares
        return used

    @property
    def samples(self) -> int:
        """Samples counted so far; under differential privacy, about so many."""
        return max(0, round(float(self._totals[:, : self._shape.classes].sum())))

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """State as named arrays."""
        arrays: dict[str, NDArray[np.generic]] = {"members": self._members, "totals": self._totals}
        if self._shipped is not None:
            arrays["shipped"] = self._shipped
            arrays["confusion"] = self._judge.confusion.copy()
            arrays["judged"] = self._judge.rounds.copy()
        if self._solved is not None:
            arrays["solved"] = self._solved
        return arrays

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """State from named arrays; ValueError or KeyError when they do not fit together."""
        self._shipped = self._solved = None
        self._judge = Judge(self._shape, 0)
        size = self._shape.head_size
        if "shipped" in arrays:
            self._begin(arrays["shipped"].astype(np.float64).reshape(-1, size))
            self._judge.confusion[:] = arrays["confusion"]
            self._judge.rounds[:] = arrays["judged"]
        if "solved" in arrays:
            self._solved = arrays["solved"].astype(np.float64).reshape(-1, size)
        self._members = arrays["members"].astype(np.float64)
        self._totals = arrays["totals"].astype(np.float64).reshape(-1, reply_size(self._shape) - 2)
        if len(self._totals) != len(self._members):
            raise ValueError(f"masked sums of shape {self._totals.shape}, {self._members.shape}")

    def _begin(self, shipped: Float64) -> None:
        self._shipped = shipped
        self._judge = Judge(self._shape, len(shipped))
        self._members = np.zeros(len(shipped))
        self._totals = np.zeros((len(shipped), reply_size(self._shape) - 2))

    def _row(self, sums: Sums) -> Float64:
        """Counts and sums in 1/8 z as the judge knows them of a node: float64[2, classes, 32]."""
        row = np.zeros((2, self._shape.classes, Z))
        row[0, :, :SUMS_DIMS] = np.maximum(sums.counts, 0)[:, np.newaxis]
        row[1, :, :SUMS_DIMS] = sums.z * (SUM_ONE // Z_ONE)
        return row

    def _moments(self, context: int) -> Moments:
        reply = np.concatenate([[context, 0], np.rint(self._totals[context])])
        sums = sums_of(reply, self._shape.classes)[2]
        counts = np.maximum(sums.counts, 0).astype(np.float64)
        total, weight = np.zeros((2, len(counts), Z))
        total[:, :SUMS_DIMS] = sums.z / Z_ONE * (counts > 0)[:, np.newaxis]
        weight[:, :SUMS_DIMS] = counts[:, np.newaxis]
        squares = np.zeros((SUMS_DIMS, SUMS_DIMS))
        squares[_UPPER] = sums.squares / Z_ONE**2
        squares += np.triu(squares, 1).T
        known = total[counts > 0, :SUMS_DIMS]
        between = (known / counts[counts > 0, np.newaxis]).T @ known
        scatter, freedom = np.zeros((2, Z, Z))
        scatter[:SUMS_DIMS, :SUMS_DIMS] = squares - between
        freedom[:SUMS_DIMS, :SUMS_DIMS] = max(counts.sum() - len(known), 0.0)
        prior = prior_of(self._prior, context, self._options)
        if prior is not None:
            total, weight = total + prior[0] * prior[1][:, np.newaxis], weight + prior[1][:, np.newaxis]
        return Moments(counts, weight, total, scatter, freedom)
