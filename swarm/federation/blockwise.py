"""One Flower strategy per chunk of the vector: each sees only the nodes that said something about its chunk.

    strategy = Blockwise("FedMedian", shape)
    done = strategy.aggregate(strategy.rounds + 1, master, replies)     # NaN: nothing was said

A node counts whole or not at all: where a chunk's strategy fails (Bulyan with too few replies, say), its
nodes are left out of all chunks, told as errors, not acknowledged, and keep what they sent.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from swarm.federation import chunks
from swarm.federation.reply import PER_BLOCK, Reply
from swarm.federation.strategy import Aggregated, Aggregator, FlowerStrategy, OptionValue, ReplyError
from swarm.model.layout import ADAPTER_SIZE, CONTEXT_MAX, Shape
from swarm.model.vector import Float64

__all__ = ["Blockwise", "strategy_named"]

_MAGIC = b"SWB1"


class Blockwise:
    """See the module; `name` is that of the Flower strategy and `PER_BLOCK`."""

    def __init__(self, name: str, shape: Shape, options: Mapping[str, OptionValue] | None = None) -> None:
        self.name = name + PER_BLOCK
        self.rounds = 0
        """Rounds aggregated so far."""
        self._inner, self._shape, self._options = name, shape, dict(options or {})
        self._blocks: dict[int, FlowerStrategy] = {}
        self._made()  # names and options are checked at once

    def aggregate(self, server_round: int, global_vector: Float64, replies: Sequence[Reply]) -> Aggregated:
        """As `FlowerStrategy.aggregate`; every chunk that a reply speaks of is said in full."""
        contexts = (len(global_vector) - ADAPTER_SIZE) // self._shape.head_size
        parts = chunks.parts(self._shape, contexts)
        good = list(replies)
        left_out = {
            reply.node_index: ReplyError(reply.node_index, "shape")
            for reply in replies
            if reply.vector.shape != global_vector.shape
        }
        before, failure = self.state(), "no replies"
        while good := [reply for reply in good if reply.node_index not in left_out]:
            vector = global_vector.copy()
            fresh: dict[int, ReplyError] = {}
            for number, part in enumerate(parts):
                heard = [_cut(reply, part) for reply in good if np.isfinite(reply.vector[part]).all()]
                if not heard:
                    continue
                strategy = self._blocks.setdefault(number, self._made())
                done = strategy.aggregate(strategy.rounds + 1, global_vector[part], heard)
                fresh |= {error.node_index: error for error in done.errors}
                if done.vector is None:
                    failure = done.failure or failure
                    fresh |= {reply.node_index: ReplyError(reply.node_index, "block") for reply in heard}
                else:
                    vector[part] = done.vector
            if not fresh:
                self.rounds += 1
                return Aggregated(vector, tuple(left_out.values()), None, len(good))
            left_out |= fresh
            self.restore(before)
        return Aggregated(None, tuple(left_out.values()), failure, 0)

    def state(self) -> bytes:
        """All that later rounds depend on, as one blob: a JSON directory, then each block's own state."""
        states = {number: strategy.state() for number, strategy in sorted(self._blocks.items())}
        sizes = [[number, len(state)] for number, state in states.items()]
        head = json.dumps({"strategy": self.name, "rounds": self.rounds, "blocks": sizes}).encode()
        return _MAGIC + zlib.compress(len(head).to_bytes(4, "little") + head + b"".join(states.values()))

    def restore(self, blob: bytes) -> None:
        """Take over what `state` returned; ValueError when it is damaged or of another strategy."""
        try:
            if not blob.startswith(_MAGIC):
                raise ValueError("not a state of blocks")
            raw = zlib.decompress(blob[len(_MAGIC) :])
            at = 4 + int.from_bytes(raw[:4], "little")
            head = json.loads(raw[4:at])
            if head["strategy"] != self.name:
                raise ValueError(f"it is of {head['strategy']}, the configured strategy is {self.name}")
            found: dict[int, FlowerStrategy] = {}
            for number, size in head["blocks"]:
                found[int(number)] = self._made()
                found[int(number)].restore(raw[at : at + size])
                at += size
            rounds = int(head["rounds"])
        except (zlib.error, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"strategy state is damaged: {error}") from error
        self._blocks, self.rounds = found, rounds

    def forget(self, part: slice) -> None:
        """As `FlowerStrategy.forget`; `part` is a head, whose chunks are its own."""
        parts = chunks.parts(self._shape, CONTEXT_MAX)
        for number in list(self._blocks):
            if part.start <= parts[number].start and parts[number].stop <= part.stop:
                del self._blocks[number]

    def _made(self) -> FlowerStrategy:
        return FlowerStrategy(self._inner, self._shape, self._options)


def strategy_named(name: str, shape: Shape, options: Mapping[str, OptionValue] | None = None) -> Aggregator:
    """The strategy of this name, per block where the name ends so."""
    if name.endswith(PER_BLOCK):
        return Blockwise(name.removesuffix(PER_BLOCK), shape, options)
    return FlowerStrategy(name, shape, options)


def _cut(reply: Reply, part: slice) -> Reply:
    return Reply(reply.node_index, reply.vector[part].copy(), reply.num_examples, reply.weight)
