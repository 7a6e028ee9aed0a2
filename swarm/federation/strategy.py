"""The only door to Flower: any of its strategies by name, fed with plain vectors, fenced against surprises.

`FlowerStrategy(name, shape, options)` wraps a class of `flwr.serverapp.strategy` (or `prototypes`,
`masked_sums`, our own subclass of its `Strategy`) and calls `configure_train` and `aggregate_train`
directly, never `start()`, because a LoRa round is open for hours and Flower's loop is synchronous.  What
is fenced off, and how:

- `sample_nodes` waits with sleep(1) and draws from the global `random`: the grid it sees has no nodes and
  the minimum counts are 0, so it draws nothing; the cohort is chosen by `federation.cohort`.
- `Message(...)` reads a process-wide task identity and the wall clock: messages get ready-made metadata.
- One bad reply aborts a Flower round: replies are checked before, the bad ones become counted errors; what
  Flower still raises becomes `Aggregated.failure`, and the strategy's state is as it was before.
- `FedAvgM` keeps its own copy of the model and would ignore a roll-back: it is given the current one.
- Each `Array` costs an np.save and an np.load: a reply is one flat array, its header written once (about
  200 us of processor time per reply of 908 values; Bulyan collects garbage per reply: 40 ms).

    strategy = FlowerStrategy("FedAdam", shape, {"eta": 0.01})
    done = strategy.aggregate(strategy.rounds + 1, master, replies)     # done.vector, done.errors
    blob = strategy.state();  strategy.restore(blob)                    # bit for bit
"""

from __future__ import annotations

import inspect
import io
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Protocol, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.app.metadata import Metadata
from flwr.serverapp import strategy as flower
from flwr.serverapp.exception import AggregationError, InconsistentMessageReplies
from flwr.supercore.logger import FLOWER_LOGGER
from numpy.typing import NDArray

from swarm.federation import features, prototypes, sums_learner
from swarm.federation.discriminant import ContextResult
from swarm.federation.features import FeaturesLearner
from swarm.federation.learner import Learner
from swarm.federation.misplaced import Suspect
from swarm.federation.modes import strategy_of
from swarm.federation.prototypes import Options, Prior
from swarm.federation.reply import FEATURES, MASKED_SUMS, OWN, PROTOTYPES, Reply
from swarm.federation.sums_learner import SumsLearner
from swarm.model.layout import ADAPTER_SIZE, WEATHER, Shape
from swarm.model.vector import Float64

_Learner = Learner | FeaturesLearner | SumsLearner

__all__ = [
    "DEFAULT_OPTIONS",
    "MASKED_SUMS",
    "PROTOTYPES",
    "Aggregated",
    "Aggregator",
    "FlowerStrategy",
    "OptionValue",
    "Prior",
    "Reply",
    "ReplyError",
    "mistakes",
    "option_names",
    "strategy_names",
]

OptionValue = float | int | str | bool

DEFAULT_OPTIONS: dict[str, dict[str, OptionValue]] = {
    "FedAdam": {"eta": 0.01, "tau": 3e-3},
    "FedYogi": {"eta": 0.01, "tau": 3e-3},
    "FedAdagrad": {"eta": 0.01, "tau": 3e-3},
    FEATURES: {"identity_shrink": 2.0},
}
"""Where ours differ from Flower's.  The server step: .005-.015 was measured for top-k signs, .03 destroys
the head it starts from.  tau: a coordinate on which nodes do not agree has a mean near 0 and must not take a
full Adam step; with 1e-5 the adapter walks at random (macro-F1 .66 -> .49 in 14 rounds of a simulated season
without anything to gain), with 1e-3 to 1e-2 it stays (.66 -> .66 to .67)."""

_REFUSED = {
    "DifferentialPrivacyClientSideAdaptiveClipping": "needs clipping on the node, which no frame asks for",
    "DifferentialPrivacyClientSideFixedClipping": "needs clipping on the node, which no frame asks for",
    "DifferentialPrivacyServerSideAdaptiveClipping": "wraps another strategy and draws unseeded noise",
    "DifferentialPrivacyServerSideFixedClipping": "wraps another strategy and draws unseeded noise",
    "FedXgbBagging": "averages trees, not vectors",
    "FedXgbCyclic": "averages trees, not vectors",
    "QFedAvg": "needs each node's training loss, which no frame carries",
    "Result": "is no strategy",
    "Strategy": "is abstract",
}
_STATE = ("m_t", "v_t", "momentum_vector")
"""Attributes in which Flower's strategies remember earlier rounds (a test fails when one is missing here)."""
_FLOWER_ERRORS = (
    AggregationError,
    InconsistentMessageReplies,
    ArithmeticError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
)
_ARRAYS, _METRICS, _VECTOR, _EXAMPLES = "arrays", "metrics", "vector", "num-examples"
_BLOB_MAGIC = b"SWS1"


@dataclass(frozen=True, slots=True)
class ReplyError:
    """A reply that Flower was not shown; `reason`: shape, not_finite, no_examples, duplicate, implausible."""

    node_index: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Aggregated:
    """What a round made: `vector` is None (keep the old one) when `failure` says why."""

    vector: Float64 | None
    errors: tuple[ReplyError, ...]
    failure: str | None
    replies: int
    contexts: tuple[ContextResult, ...] = ()
    """Mode prototypes: what the new head of each context gains, and whether it was taken."""
    suspects: tuple[Suspect, ...] = ()
    """Mode prototypes: nodes whose labels fit another context better, told when they do so long enough."""


def strategy_names() -> tuple[str, ...]:
    """The names that `FlowerStrategy` takes."""
    return (*OWN, *sorted(name for name in flower.__all__ if name not in _REFUSED))


def option_names(name: str) -> tuple[str, ...]:
    """The options that a strategy takes; ValueError for a name that is not usable."""
    if name == FEATURES:
        return features.OPTIONS
    if name == MASKED_SUMS:
        return sums_learner.OPTIONS
    if name in OWN:
        return tuple(field.name for field in fields(Options))
    taken = inspect.signature(_flower_class(name).__init__).parameters
    return tuple(sorted(key for key in taken if key != "self" and not _is_fenced(key)))


class Aggregator(Protocol):
    """What a round needs of a strategy: `FlowerStrategy`, or one of them per block."""

    name: str
    rounds: int

    def aggregate(self, server_round: int, global_vector: Float64, replies: Sequence[Reply]) -> Aggregated:
        """As `FlowerStrategy.aggregate`."""

    def state(self) -> bytes:
        """As `FlowerStrategy.state`."""

    def restore(self, blob: bytes) -> None:
        """As `FlowerStrategy.restore`."""

    def forget(self, part: slice) -> None:
        """As `FlowerStrategy.forget`."""


class FlowerStrategy:
    """One configured strategy and its memory; deterministic: replies are sorted by node before any sum."""

    def __init__(
        self,
        name: str,
        shape: Shape,
        options: Mapping[str, OptionValue] | None = None,
        *,
        prior: Prior | None = None,
    ) -> None:
        self.name = name
        self._shape = shape
        self.rounds = 0
        """Rounds aggregated so far."""
        chosen = {**DEFAULT_OPTIONS.get(name, {}), **(options or {})}
        _check_options(name, chosen)
        self._strategy: flower.Strategy
        if name in OWN:
            options_of = Options(**cast(dict[str, Any], chosen))
            self._strategy = _Solved(_OWN[name](options_of, shape, prior), shape)
        else:
            minima = {"min_train_nodes": 0, "min_evaluate_nodes": 0, "min_available_nodes": 0}
            with _quiet():
                self._strategy = _flower_class(name)(**minima, **chosen)

    def aggregate(self, server_round: int, global_vector: Float64, replies: Sequence[Reply]) -> Aggregated:
        """Aggregate one round; `server_round` counts from 1 (`rounds + 1`), `global_vector` is float64[d].

        Never raises for what replies hold.  On failure the strategy remembers nothing of the round.
        """
        good, errors = self._screen(replies, global_vector)
        if not good:
            return Aggregated(None, errors, "no replies", 0)
        before = self._capture()
        try:
            vector = self._run(server_round, global_vector, good)
        except _FLOWER_ERRORS as error:
            self._load(before)
            return Aggregated(None, errors, f"{type(error).__name__}: {error}", len(good))
        if vector.shape != global_vector.shape or not np.isfinite(vector).all():
            self._load(before)
            return Aggregated(None, errors, "the result is not finite", len(good))
        self.rounds += 1
        learner = self._strategy.learner if isinstance(self._strategy, _Solved) else None
        results = tuple(learner.results) if learner is not None else ()
        suspects = tuple(learner.suspects) if isinstance(learner, Learner) else ()
        return Aggregated(vector, errors, None, len(good), results, suspects)

    @property
    def samples(self) -> int | None:
        """Samples in the statistics of a strategy of ours; None: it keeps none."""
        return self._strategy.learner.samples if isinstance(self._strategy, _Solved) else None

    def misplaced(self) -> dict[int, int]:
        """Mode prototypes: node index -> the context that its labels fit better (`federation.misplaced`)."""
        learner = self._strategy.learner if isinstance(self._strategy, _Solved) else None
        return learner.misplaced() if isinstance(learner, Learner) else {}

    def state(self) -> bytes:
        """All that later rounds depend on, as one blob: a JSON directory of arrays, then the arrays."""
        arrays = self._capture()
        entries = [[key, value.dtype.str, list(value.shape)] for key, value in sorted(arrays.items())]
        head = json.dumps({"strategy": self.name, "rounds": self.rounds, "arrays": entries}).encode()
        body = b"".join(np.ascontiguousarray(arrays[cast(str, key)]).tobytes() for key, _, _ in entries)
        return _BLOB_MAGIC + zlib.compress(len(head).to_bytes(4, "little") + head + body)

    def restore(self, blob: bytes) -> None:
        """Take over what `state` returned; ValueError when it is damaged or of another strategy."""
        try:
            rounds, name, arrays = _parse_state(blob)
        except (zlib.error, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"strategy state is damaged: {error}") from error
        if name != self.name:
            raise ValueError(
                f"the stored strategy state is of {name}, the configured strategy is {self.name}"
            )
        self._load(arrays)
        self.rounds = rounds

    def forget(self, part: slice) -> None:
        """Earlier rounds leave nothing in this part of the vector: what Flower keeps begins with zeros."""
        arrays = self._capture()
        for array in arrays.values():
            array[part] = np.zeros((), array.dtype)
        self._load(arrays)

    def _screen(
        self, replies: Sequence[Reply], global_vector: Float64
    ) -> tuple[list[Reply], tuple[ReplyError, ...]]:
        good: list[Reply] = []
        errors: list[ReplyError] = []
        for reply in sorted(replies, key=lambda reply: reply.node_index):
            if good and good[-1].node_index == reply.node_index:
                reason: str | None = "duplicate"
            else:
                reason = self._fault(reply, global_vector)
            if reason is None:
                good.append(reply)
            else:
                errors.append(ReplyError(reply.node_index, reason))
        return good, tuple(errors)

    def _fault(self, reply: Reply, global_vector: Float64) -> str | None:
        own = isinstance(self._strategy, _Solved)
        expected = (_REPLY_SIZES[self.name](self._shape),) if own else global_vector.shape
        if reply.vector.shape != expected or reply.vector.dtype != np.float64:
            return "shape"
        if not np.isfinite(reply.vector).all() or not math.isfinite(reply.weight):
            return "not_finite"
        if reply.num_examples <= 0 or reply.weight <= 0.0:
            return "no_examples"
        contexts = (len(global_vector) - ADAPTER_SIZE) // self._shape.head_size
        if self.name == FEATURES:
            return features.reply_fault(reply.vector, contexts, self._shape)
        return prototypes.reply_fault(reply.vector, contexts) if self.name == PROTOTYPES else None

    def _run(self, server_round: int, global_vector: Float64, replies: list[Reply]) -> Float64:
        if hasattr(self._strategy, "current_arrays"):
            # Only FedAvgM would keep an older one; the others overwrite it in configure_train.
            self._strategy.current_arrays = None
        head = _npy_header(global_vector)
        reply_head = _npy_header(replies[0].vector)
        with _quiet(), np.errstate(over="raise", invalid="raise", divide="raise"):
            arrays = _record(head, global_vector)
            list(self._strategy.configure_train(server_round, arrays, ConfigRecord(), cast(Any, _NO_GRID)))
            messages = [_message(reply_head, reply) for reply in replies]
            result, _ = self._strategy.aggregate_train(server_round, messages)
        if result is None:
            raise ValueError("the strategy returned no arrays")
        return np.asarray(result[_VECTOR].numpy(), np.float64)

    def _capture(self) -> dict[str, NDArray[np.generic]]:
        if isinstance(self._strategy, _Solved):
            return self._strategy.learner.arrays()
        arrays: dict[str, NDArray[np.generic]] = {}
        for name in _STATE:
            value = getattr(self._strategy, name, None)
            items = enumerate(value) if isinstance(value, list) else (value or {}).items()
            arrays.update({f"{name}/{key}": np.array(array) for key, array in items})
        return arrays

    def _load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        if isinstance(self._strategy, _Solved):
            self._strategy.learner.load(arrays)
            return
        for name in _STATE:
            if not hasattr(self._strategy, name):
                continue
            prefix = f"{name}/"
            found = {
                key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)
            }
            # FedAvgM keeps a list, the FedOpt family a dict by array name.
            kept: Any = list(found.values()) if name == "momentum_vector" else found
            setattr(self._strategy, name, kept or None)


class _Solved(flower.Strategy):  # type: ignore[misc]  # mypy does not follow flwr
    """Statistics or samples to heads (`federation.learner`, `sums_learner`, `features`) as a Flower strategy.

    The adapter stays as it is.
    """

    def __init__(self, learner: _Learner, shape: Shape) -> None:
        self.learner = learner
        self._head_size = shape.head_size
        self._vector: Float64 | None = None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any
    ) -> Iterable[Message]:
        """Remember the current vector."""
        self._vector = np.asarray(arrays[_VECTOR].numpy(), np.float64)
        return []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The current vector with the heads that the learner makes of the replies."""
        if self._vector is None:
            raise AggregationError("configure_train was not called")
        flat = [
            (message.metadata.src_node_id, np.asarray(message.content[_ARRAYS][_VECTOR].numpy(), np.float64))
            for message in replies
        ]
        heads = self.learner.learn(self._vector[ADAPTER_SIZE:].reshape(-1, self._head_size), flat)
        vector = np.concatenate([self._vector[:ADAPTER_SIZE], heads.ravel()])
        return _record(_npy_header(vector), vector), MetricRecord()

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any
    ) -> Iterable[Message]:
        """Nodes are never asked to evaluate: the airtime is better spent."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Nothing was asked, so there is nothing to aggregate."""
        return None

    def summary(self) -> None:
        """Flower's start() logs this; the fence never calls it."""


def mistakes(
    mode: str, strategy: str, options: Mapping[str, OptionValue]
) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """What is wrong with these settings of `[learning]`: a key's path in there, the problem, the remedy.

    A mode with a strategy of its own takes the options; a misspelt strategy is a mistake all the same.
    """
    own = strategy_of(mode)
    if own is None and mode != "none" and strategy in OWN:
        said = {FEATURES: "samples", MASKED_SUMS: "masked sums"}.get(strategy, "class means")
        what = f"{strategy} makes heads of {said}, which mode {mode} does not send"
        yield ("strategy",), what, "name a Flower strategy, as FedAvg"
        return
    taker = own or strategy
    attempts: list[tuple[tuple[str, ...], str, dict[str, OptionValue]]] = [(("strategy",), strategy, {})]
    attempts += [(("options", key), taker, {key: value}) for key, value in options.items()]
    found = False
    for path, name, chosen in attempts:
        try:
            FlowerStrategy(name, WEATHER, chosen)  # no option depends on the shape
        except (ValueError, TypeError) as error:
            found = True
            problem, _, remedy = " ".join(str(error).split()).removeprefix(f"{name}: ").partition("; ")
            yield path, problem, remedy or "correct it"
            if path == ("strategy",) and not own:
                return  # whose options they would be is not known
    if not found:
        try:
            FlowerStrategy(taker, WEATHER, options)
        except (ValueError, TypeError) as error:
            yield ("options",), " ".join(str(error).split()), "together they cannot be; change one"


class _NoGrid:
    """What `configure_train` sees instead of a Flower grid: nobody to sample, nothing to wait for."""

    def get_node_ids(self) -> list[int]:
        return []


_NO_GRID = _NoGrid()
_OWN: dict[str, type[_Learner]] = {
    PROTOTYPES: Learner,
    FEATURES: FeaturesLearner,
    MASKED_SUMS: SumsLearner,
}
"""The strategies that make heads themselves."""
_REPLY_SIZES = {
    PROTOTYPES: prototypes.reply_size,
    FEATURES: features.reply_size,
    MASKED_SUMS: sums_learner.reply_size,
}


def _flower_class(name: str) -> Any:
    if name in _REFUSED:
        raise ValueError(f"strategy {name} {_REFUSED[name]}; usable: {', '.join(strategy_names())}")
    if name not in flower.__all__:
        raise ValueError(f"unknown strategy {name}; usable: {', '.join(strategy_names())}")
    return getattr(flower, name)


def _is_fenced(option: str) -> bool:
    """Options that the fence owns: sampling, record keys, and functions."""
    return option.startswith(("fraction_", "min_")) or option.endswith(("_key", "_fn", "_rule"))


def _check_options(name: str, options: Mapping[str, OptionValue]) -> None:
    allowed = option_names(name)
    for key, value in options.items():
        if key not in allowed:
            raise ValueError(
                f"unknown option {key} of strategy {name}; it takes: {', '.join(allowed) or 'none'}"
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"option {key} of strategy {name} must be a finite number, not {value!r}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Flower logs each step to stderr; the core reports by events instead."""
    level = FLOWER_LOGGER.level
    FLOWER_LOGGER.setLevel("ERROR")
    try:
        yield
    finally:
        FLOWER_LOGGER.setLevel(level)


def _npy_header(vector: Float64) -> bytes:
    """The .npy header of a vector of this length, which Flower's Array carries before the values."""
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(len(vector)), allow_pickle=False)
    return buffer.getvalue()[: -8 * len(vector)]


def _record(header: bytes, vector: Float64) -> ArrayRecord:
    record = ArrayRecord()
    record[_VECTOR] = Array("float64", vector.shape, "numpy.ndarray", header + vector.tobytes())
    return record


def _message(header: bytes, reply: Reply) -> Message:
    metrics = MetricRecord({_EXAMPLES: reply.num_examples * reply.weight})
    content = RecordDict({_ARRAYS: _record(header, reply.vector), _METRICS: metrics})
    metadata = Metadata(
        run_id=0,
        message_id="",
        src_node_id=reply.node_index,
        dst_node_id=0,
        reply_to_message_id="",
        group_id="",
        created_at=0.0,
        ttl=1.0,
        message_type=MessageType.TRAIN,
    )
    # Flower documents `metadata` as internal, but it is the one way past its clock and its identity.
    return Message(metadata=metadata, content=content)


def _parse_state(blob: bytes) -> tuple[int, str, dict[str, NDArray[np.generic]]]:
    if not blob.startswith(_BLOB_MAGIC):
        raise ValueError("not a strategy state")
    raw = zlib.decompress(blob[len(_BLOB_MAGIC) :])
    size = int.from_bytes(raw[:4], "little")
    head = json.loads(raw[4 : 4 + size])
    arrays: dict[str, NDArray[np.generic]] = {}
    at = 4 + size
    for key, kind, shape in head["arrays"]:
        count = math.prod(shape)
        array = np.frombuffer(raw, np.dtype(kind), count, at).reshape(shape).copy()
        arrays[key] = array
        at += array.nbytes
    if at != len(raw):
        raise ValueError(f"{len(raw)} B instead of {at}")
    return int(head["rounds"]), str(head["strategy"]), arrays
