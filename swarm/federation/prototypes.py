"""Mode `prototypes`: what nodes report about their classes, summed up exactly.

A node reports, per class, how many labelled samples it saw and the mean of their z.  Nothing else is
needed to solve a head (`federation.discriminant`): the within-class covariance is the scatter of the
nodes' means.  The statistics are integers and additive, so increments over a season sum up in any order
to the same bits, and a head can be solved at any time.  A node whose acknowledgement was lost repeats an
increment; its mean stays the mean, and its weight is capped, so the repetition does little.

Units: z int8 with 32 = one public standard deviation; sums are kept in 1/8 z.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swarm.model.layout import Z_ONE, Shape, Z
from swarm.model.vector import Float64
from swarm.wire.app import ClassMean, Prototypes

__all__ = [
    "ROWS_MAX",
    "Options",
    "Prior",
    "Statistics",
    "flatten",
    "is_plausible",
    "reply_fault",
    "reply_size",
    "row_of",
]

Int64 = NDArray[np.int64]

ROWS_MAX = 65_536
"""Rows (node, context) that the statistics hold at most."""
SUM_ONE = 8 * Z_ONE
"""Units of the sums in one standard deviation of z."""
Z_MAX = 128
"""Largest |mean z| that a frame may claim (an int4 step may round 127 up)."""
STEP_MAX = 136
"""Largest scale in which a mean can be -8 steps: -128 is -7.5 of them, and a positive mean of 7 steps asked
for the scale."""
CLASS_STRIDE = 1 + Z
FORGOTTEN = 1.0 / 16
"""What counts as less than so much of a sample makes room."""


@dataclass(frozen=True, slots=True)
class Options:
    """How heads are solved and accepted; strengths are in samples, the rest in fractions.

    `count_cap`: samples that one node's class mean is worth at most.  `mean_shrink`: samples of the mean
    over all contexts added to each class mean.  `identity_shrink`: samples of identity added to the
    covariance.  `public_covariance`: share in it of the covariance within public classes (0 to 1); much
    where public and fleet data are alike, none where they are not (other speakers, other fields).  `ridge`:
    share of the mean eigenvalue added to its diagonal.  `balance`: 0 keeps the fleet's class frequencies as
    prior, 1 makes classes equally likely, -1 squares the frequencies, where nodes label rare classes more
    often than they occur.  `refine`: samples that hold the regression on the class means to the discriminant
    (`federation.refine`; 0: there is none).  `nodes_full`: nodes from which a context stands on its own;
    below, the head blends towards the shipped one, below `nodes_min` it stays.  `trim`: a mean farther from
    its class than this many median distances is left out (0: none is), and a node whose labels the heads deny
    by so many robust standard deviations more than those of others.  `keep_shipped`: share of the
    shipped weights that stays in dimensions which few nodes reported (slow data rates send the first ones);
    0 where the shipped head knows nothing of the context.  `prior_weight`: samples that the public means are
    worth at most.  `gain_min`: by how much (macro-F1 on increments it has not seen) a new head
    must beat the shipped one; 0 takes every head at once, unjudged.  `half_life_rounds`: after so many
    rounds of its own the strategy counts what it learned as half, and what judged its heads too; 0 keeps all.
    """

    count_cap: float = 6.0
    mean_shrink: float = 6.0
    identity_shrink: float = 20.0
    public_covariance: float = 0.0
    ridge: float = 0.3
    balance: float = 0.5
    nodes_full: float = 15.0
    nodes_min: float = 5.0
    trim: float = 2.5
    keep_shipped: float = 1.0
    prior_weight: float = 12.0
    gain_min: float = 0.2
    half_life_rounds: float = 0.0
    refine: float = 0.0

    def __post_init__(self) -> None:
        limits = {
            "count_cap": (1.0, 255.0),
            "mean_shrink": (0.0, 1e6),
            "identity_shrink": (0.0, 1e6),
            "public_covariance": (0.0, 1.0),
            "ridge": (1e-6, 1e3),
            "balance": (-1.0, 1.0),
            "nodes_full": (1.0, 1e6),
            "nodes_min": (1.0, 1e6),
            "trim": (0.0, 1e6),
            "keep_shipped": (0.0, 1.0),
            "prior_weight": (0.0, 1e6),
            "gain_min": (0.0, 1.0),
            "half_life_rounds": (0.0, 1e6),
            "refine": (0.0, 1e6),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"prototypes: {name} = {value}: must be {low:g}..{high:g}")
        if 0.0 < self.half_life_rounds < 1.0:
            problem = f"half_life_rounds = {self.half_life_rounds}: must be 0 (nothing fades) or 1..1e6"
            raise ValueError(f"prototypes: {problem}")

    @property
    def kept_a_round(self) -> float:
        """What counts as 1 in a round counts as this in the next."""
        return float(0.5 ** (1.0 / self.half_life_rounds)) if self.half_life_rounds else 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """Public means of z, float64[contexts, classes, 32] in LSB; counts [contexts, classes], 0 unknown."""

    means: Float64
    counts: Float64


def reply_size(shape: Shape) -> int:
    """Values of a reply as one flat array: context, dims, then per class the count and 32 sums in 1/8 z."""
    return 2 + shape.classes * CLASS_STRIDE


def is_plausible(message: Prototypes, shape: Shape) -> bool:
    """Whether these can be means of int8 z, of the model's classes, and the counts add up."""
    if message.classes[-1].label >= shape.classes:
        return False
    counted = sum(mean.count for mean in message.classes)
    return counted == message.num_examples and all(_is_reachable(mean) for mean in message.classes)


def _is_reachable(mean: ClassMean) -> bool:
    """Whether a node's quantiser gives these steps for some mean of int8 features."""
    if mean.scale * max(mean.q) > 8 * Z_MAX:
        return False
    return -mean.scale * min(mean.q) <= 8 * (Z_MAX if max(mean.q) < 7 else STEP_MAX)


def flatten(message: Prototypes, shape: Shape) -> Float64:
    """The frame as the flat reply, float64[reply_size]; all values are integers, so nothing is rounded."""
    reply = np.zeros(reply_size(shape))
    reply[0] = message.context
    reply[1] = len(message.classes[0].q)
    for mean in message.classes:
        at = 2 + mean.label * CLASS_STRIDE
        reply[at] = mean.count
        reply[at + 1 : at + 1 + len(mean.q)] = np.array(mean.q) * (mean.scale * mean.count)
    return reply


def row_of(reply: Float64) -> Int64:
    """A flat reply as counts and sums per class and dimension, int64[2, classes, 32]."""
    dims = int(reply[1])
    per_class = reply[2:].reshape(-1, CLASS_STRIDE).astype(np.int64)
    row = np.zeros((2, len(per_class), Z), np.int64)
    row[0, :, :dims] = per_class[:, :1]
    row[1, :, :dims] = per_class[:, 1 : 1 + dims]
    return row


class Statistics:
    """What each node reported so far: per (context, node) counts and sums, float64[2, classes, 32].

    Plane 0 counts samples per class and dimension (a node at a slow data rate reports fewer dimensions),
    plane 1 holds the sums in 1/8 z: whole numbers until something is forgotten.  Rows are never written in
    place.
    """

    def __init__(self, shape: Shape) -> None:
        self._empty: Float64 = np.zeros((0, 2, shape.classes, Z))
        self._rows: dict[tuple[int, int], Float64] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, node_index: int, reply: Float64) -> None:
        """Add one flat reply; ValueError when the table is full."""
        key = (int(reply[0]), node_index)
        if key not in self._rows and len(self._rows) >= ROWS_MAX:
            raise ValueError(f"more than {ROWS_MAX} rows of prototype statistics")
        row = row_of(reply).astype(np.float64)
        self._rows[key] = self._rows[key] + row if key in self._rows else row

    def forget(self, kept: float) -> None:
        """From now on everything counts as `kept` (0..1) of what it did."""
        if kept < 1.0:
            aged = {key: row * kept for key, row in self._rows.items()}
            self._rows = {key: row for key, row in aged.items() if row[0].max() >= FORGOTTEN}

    @property
    def samples(self) -> int:
        """Samples counted, of all nodes and classes."""
        return round(sum(float(row[0, :, 0].sum()) for row in self._rows.values()))

    def context(self, context: int) -> Float64:
        """The rows of one context, ascending by node: float64[nodes, 2, classes, 32]."""
        keys = sorted(key for key in self._rows if key[0] == context)
        return np.stack([self._rows[key] for key in keys]) if keys else self._empty

    def nodes(self, context: int) -> list[int]:
        """The nodes behind the rows of one context."""
        return sorted(node for own, node in self._rows if own == context)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Everything as named arrays, for `load`."""
        keys = sorted(self._rows)
        rows = np.stack([self._rows[key] for key in keys]) if keys else self._empty
        return {"keys": np.array(keys, np.int64).reshape(len(keys), 2), "rows": rows}

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Replace everything by what `arrays` returned."""
        keys, rows = arrays["keys"].astype(np.int64), arrays["rows"].astype(np.float64)
        if rows.shape != (len(keys), *self._empty.shape[1:]) or keys.shape != (len(keys), 2):
            raise ValueError(f"prototype statistics of shape {rows.shape}, {keys.shape}")
        self._rows = {(int(c), int(n)): row for (c, n), row in zip(keys, rows, strict=True)}


def reply_fault(reply: Float64, contexts: int) -> str | None:
    """Why a flat reply cannot be added, or None."""
    context, dims = reply[0], reply[1]
    counts = reply[2::CLASS_STRIDE]
    if not np.array_equal(reply, np.rint(reply)) or not 0 <= context < contexts or not 1 <= dims <= Z:
        return "value"
    sums, limit = reply[2:].reshape(-1, CLASS_STRIDE)[:, 1:], 8 * counts[:, np.newaxis]
    beyond = (sums > limit * Z_MAX) | (sums < -limit * STEP_MAX)
    if counts.min() < 0 or counts.max() <= 0 or beyond.any():
        return "implausible"
    return None
