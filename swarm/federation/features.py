"""Mode `features`: nodes send what they have seen, z and label, and the gateway trains the heads itself.

Not private: a sample tells what a sensor measured and what somebody saw there.  An operator has to opt in
(`[learning] share_features`); class means (`prototypes`) say less and need no more airtime.

Theory of operation.  Samples are kept, the newest `PER_NODE` of a node; with `half_life_rounds` their weight
fades.  Each round the heads solved before are judged by the new samples, which they have not seen, then every
context is fitted anew: multinomial logistic regression, pulled to the shipped head by `identity_shrink`
samples of identity, each node worth `count_cap` samples at most, rare classes weighing more by `balance`.
Nodes on whose samples the fit does far worse than on those of the median node (`trim` times its loss) are
left out and the fit is repeated.  Whether a context uses its head is decided as with class means
(`discriminant.Judge`), samples voting for means.

Of `prototypes.Options` it takes those in `OPTIONS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from swarm.federation.discriminant import SHARES, ContextResult, Judge
from swarm.federation.prototypes import FORGOTTEN, STEP_MAX, SUM_ONE, Z_MAX, Int64, Options, Prior
from swarm.federation.regression import softmax, softmax_fit
from swarm.model.layout import HEAD_ROW, Shape, Z
from swarm.model.vector import Float64
from swarm.wire.app import Features

__all__ = [
    "OPTIONS",
    "PER_NODE",
    "PER_UPDATE",
    "SAMPLES_MAX",
    "FeaturesLearner",
    "flatten",
    "is_plausible",
    "reply_fault",
    "reply_size",
]

OPTIONS = (
    "balance",
    "count_cap",
    "gain_min",
    "half_life_rounds",
    "identity_shrink",
    "nodes_full",
    "nodes_min",
    "trim",
)
PER_UPDATE = 12
"""Samples that the largest frame holds."""
PER_NODE = 64
"""As many as the node itself keeps."""
SAMPLES_MAX = 65_536
"""Of all nodes; then the oldest make room."""
SAMPLE = 1 + Z
ROW = 2 + SAMPLE + 1
STEPS = 100
"""Of the fit; on the samples of a season it moves less than a unit of the int16 head after that."""


def is_plausible(message: Features, shape: Shape) -> bool:
    """Whether these can be int8 features with classes of the model."""
    low, high = message.scale * min(message.q), message.scale * max(message.q)
    known = message.num_examples <= PER_UPDATE and max(message.labels) < shape.classes
    return known and high <= 8 * Z_MAX and -low <= 8 * STEP_MAX


def reply_size(shape: Shape) -> int:
    """Values of a reply as one flat array: context, samples, then of each the label and z in 1/8."""
    return 2 + PER_UPDATE * SAMPLE


def flatten(message: Features) -> Float64:
    """The frame as the flat reply, float64[reply_size]; all values are integers."""
    reply = np.zeros(2 + PER_UPDATE * SAMPLE)
    reply[0], reply[1] = message.context, message.num_examples
    rows = reply[2:].reshape(PER_UPDATE, SAMPLE)[: message.num_examples]
    rows[:, 0] = message.labels
    rows[:, 1:] = np.reshape(message.q, (-1, Z)) * message.scale
    return reply


def reply_fault(reply: Float64, contexts: int, shape: Shape) -> str | None:
    """Why a flat reply cannot be added, or None."""
    if not np.array_equal(reply, np.rint(reply)) or not 0 <= reply[0] < contexts:
        return "value"
    if not 1 <= reply[1] <= PER_UPDATE:
        return "value"
    rows = reply[2:].reshape(PER_UPDATE, SAMPLE)
    labels_ok = rows[:, 0].min() >= 0 and rows[:, 0].max() < shape.classes
    return None if labels_ok and np.abs(rows[:, 1:]).max() <= 8 * STEP_MAX else "implausible"


class FeaturesLearner:
    """The samples, the judge's memory, and the last solved heads.

    A sample is a row int64[36]: context, node, label, 32 of z in 1/8, age in rounds.  Rows stand in order of
    arrival and are never written in place.
    """

    def __init__(self, options: Options, shape: Shape, prior: Prior | None = None) -> None:
        self.results: list[ContextResult] = []
        self._options, self._shape = options, shape
        self._rows: Int64 = np.zeros((0, ROW), np.int64)
        self._shipped: Float64 | None = None
        self._solved: Float64 | None = None
        self._judge = Judge(shape, 0)

    def learn(self, heads: Float64, replies: Sequence[tuple[int, Float64]]) -> Float64:
        """The heads to use from now on, float64[contexts, head_size]; `replies` (node index, flat reply)."""
        if self._shipped is None:
            self._shipped = heads.copy()
            self._judge = Judge(self._shape, len(heads))
        shipped = self._shipped
        self._age()
        fresh = [_rows(node_index, reply) for node_index, reply in replies]
        new = np.concatenate(fresh) if fresh else self._rows[:0]
        for context in range(len(shipped)):
            self._tally(new[new[:, 0] == context], context)
        self._rows = _bounded(np.concatenate([self._rows, new]))
        own = [self._rows[self._rows[:, 0] == context] for context in range(len(shipped))]
        self._solved = np.stack(
            [
                _fit_trimmed(rows, head, self._options) if len(rows) else head
                for rows, head in zip(own, shipped, strict=True)
            ]
        )
        nodes = [len(np.unique(rows[:, 1])) for rows in own]
        self.results = [self._judge.result(c, count, self._options) for c, count in enumerate(nodes)]
        shares = np.array([[result.share] for result in self.results])
        # A share of 0 gives the shipped head back bit for bit: x * 1.0 + y * 0.0 is x.
        used: Float64 = shipped * (1.0 - shares) + self._solved * shares
        return used

    @property
    def samples(self) -> int:
        """Samples kept."""
        return len(self._rows)

    def _age(self) -> None:
        """What is there is a round older; what counts next to nothing makes room."""
        half_life, kept = self._options.half_life_rounds, self._options.kept_a_round
        if half_life:
            aged = self._rows + np.eye(ROW, dtype=np.int64)[-1]
            self._rows = aged[kept ** aged[:, -1] >= FORGOTTEN]
            self._judge.forget(kept)

    def _tally(self, rows: Int64, context: int) -> None:
        """Judge by samples that the solved head has not seen."""
        if self._solved is None or self._shipped is None or not len(rows):
            return
        x, label, weight = _inputs(rows, self._options)
        for i, share in enumerate((0.0, *SHARES)):
            head = share * self._solved[context] + (1.0 - share) * self._shipped[context]
            said = (x @ head.reshape(-1, HEAD_ROW).T).argmax(axis=1)
            np.add.at(self._judge.confusion[context, i], (label, said), weight)
        self._judge.rounds[context] += 1

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """State as named arrays, all of them copies or never written in place."""
        arrays: dict[str, NDArray[np.generic]] = {"samples": self._rows[:, :-1].astype(np.int16)}
        arrays["node"] = self._rows[:, 1].astype(np.uint16)
        arrays["age"] = self._rows[:, -1].astype(np.uint16)
        if self._shipped is not None and self._solved is not None:
            arrays["shipped"], arrays["solved"] = self._shipped, self._solved
            arrays["confusion"] = self._judge.confusion.copy()
            arrays["judged"] = self._judge.rounds.copy()
        return arrays

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """State from named arrays; ValueError or KeyError when they do not fit together."""
        samples, age = arrays["samples"].astype(np.int64), arrays.get("age", np.zeros_like(arrays["node"]))
        if samples.shape != (len(arrays["node"]), ROW - 1) or len(age) != len(samples):
            raise ValueError(f"samples of shape {samples.shape}")
        rows = np.column_stack([samples, age.astype(np.int64)])
        rows[:, 1] = arrays["node"]
        self._rows, self._shipped, self._solved = rows, None, None
        self._judge = Judge(self._shape, 0)
        if "shipped" in arrays:
            self._shipped = arrays["shipped"].astype(np.float64).reshape(-1, self._shape.head_size)
            self._solved = arrays["solved"].astype(np.float64).reshape(-1, self._shape.head_size)
            self._judge = Judge(self._shape, len(self._shipped))
            self._judge.confusion[:] = arrays["confusion"]
            self._judge.rounds[:] = arrays["judged"]


def _rows(node_index: int, reply: Float64) -> Int64:
    samples = reply[2:].reshape(PER_UPDATE, SAMPLE)[: int(reply[1])].astype(np.int64)
    place = np.broadcast_to(np.array([int(reply[0]), node_index]), (len(samples), 2))
    return np.concatenate([place, samples, np.zeros((len(samples), 1), np.int64)], axis=1)


def _bounded(rows: Int64) -> Int64:
    """The newest `PER_NODE` of each node, the newest `SAMPLES_MAX` of all."""
    order = np.argsort(rows[::-1, 1], kind="stable")  # newest first within a node
    node = rows[::-1, 1][order]
    rank = np.arange(len(node)) - np.searchsorted(node, node)
    kept = np.zeros(len(rows), bool)
    kept[len(rows) - 1 - order[rank < PER_NODE]] = True
    return rows[kept][-SAMPLES_MAX:]


def _inputs(rows: Int64, options: Options) -> tuple[Float64, Int64, Float64]:
    """x [n, 33] in standard deviations with the 1 of the bias, labels, weights by age and number."""
    x = np.concatenate([rows[:, 3:-1] / SUM_ONE, np.ones((len(rows), 1))], axis=1)
    fresh = options.kept_a_round ** rows[:, -1].astype(np.float64)
    where = np.unique(rows[:, 1], return_inverse=True)[1]
    count, cap = np.bincount(where, fresh), options.count_cap
    weight = fresh * (cap / np.maximum(count[where] + cap - 1.0, 1.0))
    return x, rows[:, 2], weight


def _fit_trimmed(rows: Int64, shipped: Float64, options: Options) -> Float64:
    """A first fit shows the nodes that contradict the others; the second leaves them out."""
    first = _fit(rows, shipped, options)
    if options.trim == 0.0:
        return first
    x, label, _ = _inputs(rows, options)
    loss = -np.log(softmax(x, first.reshape(-1, HEAD_ROW))[np.arange(len(rows)), label] + 1e-12)
    nodes, where, count = np.unique(rows[:, 1], return_inverse=True, return_counts=True)
    mean = np.bincount(where, loss) / count
    good = mean <= options.trim * max(float(np.median(mean)), 0.1)
    return first if good.all() else _fit(rows[np.isin(rows[:, 1], nodes[good])], shipped, options)


def _fit(rows: Int64, shipped: Float64, options: Options) -> Float64:
    """A head, float64[head_size]."""
    x, label, weight = _inputs(rows, options)
    base = shipped.reshape(-1, HEAD_ROW)
    total = np.bincount(label, weight, minlength=len(base))
    weight = weight * (total[total > 0].mean() / total[label]) ** options.balance
    shrink = max(options.identity_shrink, 1e-3)
    return softmax_fit(x, label, weight, base, shrink, STEPS).ravel()
