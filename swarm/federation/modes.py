"""The learning modes: what a node's update holds, and what a round does with it.  One row a mode.

A further mode is a row here, a frame (`swarm.wire.messages`, `learning`), and on the node a function in
`swn_compose.h` with its case in `swn_learn.c`.  Everything else, `Round`, `Rounds`, settings and
fragments, reads this table.

- Statistics are additive: an increment is as good a day later, so any past version is welcome and counts in
  full.  Gradients were taken from a model: they are discounted by its age and refused beyond a limit.
- `strategy` names the one that a mode brings (class means are no vectors to average); None: any of Flower's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from swarm.federation import changes, chunks, features, prototypes
from swarm.federation.reply import FEATURES, MASKED_SUMS, PER_BLOCK, PROTOTYPES, Reply
from swarm.model.layout import Shape
from swarm.model.vector import VERSIONS, Float64
from swarm.wire import app
from swarm.wire.app import LearningMessage, RoundMode

__all__ = [
    "MODES",
    "MODE_NAMES",
    "Held",
    "Mode",
    "claimed_mode",
    "discount",
    "mode_of",
    "strategy_name",
    "strategy_of",
]


@dataclass(frozen=True, slots=True)
class Held:
    """An update that counts; `staleness` in model versions, `late` of the round before."""

    node_index: int
    message: LearningMessage
    received_us: int
    late: bool
    staleness: int


@dataclass(frozen=True, slots=True)
class Mode:
    """One row.  `replies` makes what the strategy sees: (held, master, shape, contexts) -> one each.

    None: only sums over masking groups are seen (`federation.groups`), and nothing of another round.
    """

    wire: RoundMode
    message: type
    additive: bool
    strategy: str | None
    is_plausible: Callable[[Any, Shape], bool]
    replies: Callable[[Sequence[Held], Float64, Shape, int], list[Reply]] | None
    per_block: bool = False
    """The configured strategy works on each block of the vector by itself (`federation.blockwise`)."""

    @property
    def name(self) -> str:
        """As in settings, rows and events."""
        return self.wire.name.lower()

    def strategy_name(self, configured: str) -> str:
        """The strategy of its rounds."""
        return self.strategy or (configured + PER_BLOCK if self.per_block else configured)

    def staleness_limit(self, staleness_max: int) -> int:
        """The oldest model version, counted back, whose update counts."""
        return VERSIONS // 2 if self.additive else staleness_max


def discount(staleness: int) -> float:
    """The weight of a change that is this many model versions old."""
    return 1.0 / (1 + staleness)


def _statistics(held: Sequence[Held], master: Float64, shape: Shape, contexts: int) -> list[Reply]:
    return [
        Reply(update.node_index, prototypes.flatten(update.message, shape), update.message.num_examples)
        for update in held
        if isinstance(update.message, app.Prototypes)
    ]


def _samples(held: Sequence[Held], master: Float64, shape: Shape, contexts: int) -> list[Reply]:
    return [
        Reply(update.node_index, features.flatten(update.message), update.message.num_examples)
        for update in held
        if isinstance(update.message, app.Features)
    ]


def _blocks(held: Sequence[Held], master: Float64, shape: Shape, contexts: int) -> list[Reply]:
    discounted = [
        (update.message, discount(update.staleness))
        for update in held
        if isinstance(update.message, app.Blocks)
    ]
    vectors = chunks.reply_vectors(master, shape, discounted)
    return [
        Reply(update.node_index, vector, update.message.num_examples)
        for update, vector in zip(held, vectors, strict=True)
    ]


def _changes(held: Sequence[Held], master: Float64, shape: Shape, contexts: int) -> list[Reply]:
    discounted = [
        changes.Discounted(update.message, discount(update.staleness))
        for update in held
        if isinstance(update.message, changes.Change)
    ]
    vectors = changes.reply_vectors(master, shape, contexts, discounted)
    return [
        Reply(update.node_index, vector, update.message.num_examples)
        for update, vector in zip(held, vectors, strict=True)
    ]


def _is_of_the_model(message: app.MaskedSums, shape: Shape) -> bool:
    """All that can be told of one member: what it sent is noise to us."""
    return message.classes == shape.classes


def _change_mode(wire: RoundMode, message: type) -> Mode:
    return Mode(wire, message, False, None, changes.is_plausible, _changes)


_ROWS = (
    Mode(RoundMode.PROTOTYPES, app.Prototypes, True, PROTOTYPES, prototypes.is_plausible, _statistics),
    _change_mode(RoundMode.TOP_K_SIGN, app.TopKSign),
    _change_mode(RoundMode.TOP_K_INT4, app.TopKInt4),
    _change_mode(RoundMode.DENSE_INT8, app.DenseInt8),
    Mode(RoundMode.FEATURES, app.Features, True, FEATURES, features.is_plausible, _samples),
    Mode(RoundMode.BLOCKS, app.Blocks, False, None, chunks.is_plausible, _blocks, per_block=True),
    Mode(RoundMode.MASKED_SUMS, app.MaskedSums, True, MASKED_SUMS, _is_of_the_model, None),
)
MODES: Mapping[RoundMode, Mode] = MappingProxyType({row.wire: row for row in _ROWS})
MODE_NAMES = ("none", *(row.name for row in _ROWS))
"""What `learning.mode` may be."""

_BY_MESSAGE = {row.message: row for row in _ROWS}


def strategy_of(name: str) -> str | None:
    """The strategy that a mode of `MODE_NAMES` brings; None: it uses the configured one, or is "none"."""
    return next((row.strategy for row in _ROWS if row.name == name), None)


def strategy_name(mode: str, configured: str) -> str:
    """The strategy of a mode of `MODE_NAMES`, where the settings name this one."""
    return next((row.strategy_name(configured) for row in _ROWS if row.name == mode), configured)


def claimed_mode(name: str) -> RoundMode:
    """What a round claimed from outside asks for where mode `name` is set: changes of the whole vector.

    Class means, samples or single blocks would be no reply to it.
    """
    own = MODES[RoundMode[name.upper()]]
    return own.wire if own.strategy is None and not own.per_block else RoundMode.TOP_K_SIGN


def mode_of(message: LearningMessage) -> Mode:
    """The mode that an update belongs to."""
    return _BY_MESSAGE[type(message)]
