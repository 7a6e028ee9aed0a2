"""One federated round at the gateway: which updates count, when it closes, what it makes of them.

Theory of operation.  A round is OPEN from its announcement until enough replies came (`quorum`) or its
time is over (`close_us`); then `close` hands the updates to a Flower strategy and the round is CLOSED.

    OPEN --on_update--> OPEN        Accepted (store the row, then go on) or Refused(reason)
    OPEN --due, close--> CLOSED     Closed(vector | None, ...): None keeps the old model
    OPEN --due, close_gathered--> CLOSED    the updates stay, for whoever claimed the round

What counts, per node: one update.
- Of this round: accepted if the node is in the cohort and the frame is plausible.  A second one is refused
  as `duplicate`; the node is acknowledged anyway, since the round's acknowledgement names all that count.
- Of the previous round (it was late on the air): accepted as `late`, unless the previous round had
  counted it (`duplicate`).  A class-mean increment is as good a day later, for statistics are additive; a
  gradient is discounted.  The node was not acknowledged for it, so if it sends an update of this round too,
  that one repeats what the late one held: it replaces the late one.
- Older or from the future: `stale`, `wrong_round`.

Staleness is counted in model versions (a late update is at least 1 stale).  What it means is the mode's
(`federation.modes`): a change weighs 1 / (1 + staleness) and more than `staleness_max` is refused; class
means do not depend on the head, so any past version is welcome and counts in full.

Masked sums: when the time is over and members of masking groups are missing, the round is in REPAIR until
their masks are known (`federation.groups`) or `repair_until_us`; it takes no update any more, only seeds.

    OPEN --begin_repair--> REPAIR   on_seeds: the row to store first, or None
    REPAIR --due, close--> CLOSED

An update larger than a frame comes in fragments (`federation.reassembly`), in its own round only.
A claimed round (`gather`) belongs to somebody outside: `close_gathered` closes it without a strategy, and
`gathered` hands out the same changes that the cell's own strategy would have seen, as often as asked.


The round survives a restart: `to_row` and one row per update hold everything, and `from_row` on the same
rows closes to the same bits (updates are sorted by node before anything is summed).
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from swarm.effects import Row, integers
from swarm.federation.cohort import in_cohort
from swarm.federation.discriminant import ContextResult
from swarm.federation.groups import Groups
from swarm.federation.misplaced import Suspect
from swarm.federation.modes import MODES, Held, Mode, mode_of
from swarm.federation.outside import Change, Gathered
from swarm.federation.reply import OWN
from swarm.federation.strategy import Aggregator, ReplyError
from swarm.model.layout import Shape, context_name
from swarm.model.vector import Float64, version_age
from swarm.wire import app
from swarm.wire.app import (
    F_PORT_LEARNING,
    Fragment,
    LearningMessage,
    MaskedSums,
    Repair,
    RoundAck,
    RoundMode,
    Seeds,
    SumsPlan,
)

__all__ = [
    "REASONS",
    "UPDATES_MAX",
    "Accepted",
    "Closed",
    "Refused",
    "Round",
    "RoundState",
    "ack_frames",
]

UPDATES_MAX = 65_535
"""One per node index."""
ROUNDS = 1 << 16
"""Round numbers count modulo this."""

REASONS = (
    "closed",
    "repairing",
    "wrong_mode",
    "wrong_round",
    "stale",
    "duplicate",
    "not_in_cohort",
    "wrong_context",
    "wrong_place",
    "implausible",
    "full",
)
"""Why an update is refused."""


class RoundState(StrEnum):
    """Where a round is in its life."""

    OPEN = "open"
    REPAIR = "repair"
    CLOSED = "closed"


_SHUT = {RoundState.REPAIR: "repairing", RoundState.CLOSED: "closed"}


@dataclass(frozen=True, slots=True)
class Accepted:
    """Store `row` under `key` in table `update` before the node may be acknowledged."""

    num_examples: int
    staleness: int
    late: bool
    key: str
    row: Row


@dataclass(frozen=True, slots=True)
class Refused:
    """Why an update does not count; one of `REASONS`."""

    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Closed:
    """What a round came to; `vector` None: keep the old model (`failure` says why)."""

    vector: Float64 | None
    updates: int
    late: int
    num_examples: int
    errors: tuple[ReplyError, ...]
    failure: str | None
    contexts: tuple[ContextResult, ...] = ()
    suspects: tuple[Mapping[str, object], ...] = ()
    """What to tell of nodes that look misplaced: dev_eui, context, likely_context, gap_nats, labels."""

    def metrics(self) -> dict[str, Any]:
        """What is worth keeping in a row or an event: JSON values only."""
        scores = [
            {
                "context": own.context,
                "nodes": own.nodes,
                "judged": own.rounds,
                "base": _score(own.base),
                "new": _score(own.new),
                "share": own.share,
                "contradicting": list(own.contradicting),
            }
            for own in self.contexts
        ]
        return {
            "late": self.late,
            "num_examples": self.num_examples,
            "errors": len(self.errors),
            "failure": self.failure,
            "contexts": scores,
        }


@dataclass(slots=True)
class Round:
    """One round; `quorum` counts replies, `shape` and `contexts` are the model's, times are core time.

    `previous_accepted` are the node indices that the round before had counted.  `gather`: it is claimed.
    """

    number: int
    mode: RoundMode
    model_version: int
    cohort: int
    opened_us: int
    close_us: int
    quorum: int
    shape: Shape
    contexts: int
    staleness_max: int = 4
    previous_accepted: frozenset[int] = frozenset()
    gather: bool = False
    sums: SumsPlan | None = None
    repair_until_us: int | None = None
    state: RoundState = RoundState.OPEN
    closed_us: int | None = None
    refused: dict[str, int] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    _held: dict[str, Held] = field(default_factory=dict)
    _groups: Groups = field(default_factory=Groups)

    def on_update(
        self,
        dev_eui: str,
        node_index: int,
        message: LearningMessage,
        now_us: int,
        *,
        context: int | None = None,
        place: str | None = None,
    ) -> Accepted | Refused:
        """Take or refuse one update; `context` and `place` (in a masking group) are the node's provisioned
        ones (None: not checked)."""
        reason = self._fault(dev_eui, node_index, message, context)
        if reason is None and isinstance(message, MaskedSums) and place not in (None, message.place):
            # It would keep the owner of that place, or by another size a whole group, out of the round.
            reason = "wrong_place"
        if reason is not None:
            self.refused[reason] = self.refused.get(reason, 0) + 1
            return Refused(reason)
        held = self._hold(dev_eui, node_index, message, now_us)
        row: Row = {
            "round": self.number,
            "dev_eui": dev_eui,
            "node_index": node_index,
            "payload": app.encode(message),
            "received_us": now_us,
        }
        return Accepted(message.num_examples, held.staleness, held.late, self.update_key(dev_eui), row)

    def on_fragment(self, dev_eui: str, node_index: int, message: Fragment) -> Refused | None:
        """Whether a fragment may wait for the others (None): what can be told before the update is whole."""
        reason = self._fragment_fault(dev_eui, node_index, message)
        if reason is None:
            return None
        self.refused[reason] = self.refused.get(reason, 0) + 1
        return Refused(reason)

    def _fragment_fault(self, dev_eui: str, node_index: int, message: Fragment) -> str | None:
        if self.state is not RoundState.OPEN:
            return _SHUT[self.state]
        behind = (self.number - message.round) % ROUNDS
        if behind:
            # The others of its round are gone with it.
            return "stale" if behind < ROUNDS // 2 else "wrong_round"
        if message.mode != self.mode:
            return "wrong_mode"
        held = self._held.get(dev_eui)
        if held is not None and not held.late:
            return "duplicate"
        return None if in_cohort(node_index, self.number, self.cohort) else "not_in_cohort"

    def update_key(self, dev_eui: str) -> str:
        """The primary key of a node's row in table `update`."""
        return f"{self.number}/{dev_eui}"

    def due(self, now_us: int) -> bool:
        """Whether the round should be closed now: the quorum of this round's own updates, or the deadline."""
        if self.state is RoundState.REPAIR:
            return now_us >= self.due_us or not self._groups.owing()
        return self.state is RoundState.OPEN and (now_us >= self.close_us or self.updates >= self.quorum)

    @property
    def due_us(self) -> int:
        """When the round is over at the latest, in the state it is in."""
        return self.close_us if self.repair_until_us is None else self.repair_until_us

    @property
    def needs_repair(self) -> bool:
        """Whether the round should not be closed yet, because members can still say what masks are left."""
        return self.state is RoundState.OPEN and self._groups.owing() > 0

    def begin_repair(self, until_us: int) -> None:
        """From now on no update counts, so that what is missing stays missing; seeds do, until `until_us`."""
        assert self.state is RoundState.OPEN
        self.state, self.repair_until_us = RoundState.REPAIR, until_us

    def repair_of(self, dev_eui: str) -> Repair | None:
        """What to ask this node in the repair, if it owes seeds."""
        held = self._held.get(dev_eui)
        if self.state is not RoundState.REPAIR or held is None or not isinstance(held.message, MaskedSums):
            return None
        return self._groups.repair_of(held.message)

    def on_seeds(self, dev_eui: str, node_index: int, message: Seeds) -> Row | None:
        """Seeds of a member: the row of table `seeds` that keeps them; None: nobody asked for these."""
        current = self.state is RoundState.REPAIR and message.round == self.number
        if not current or not self._groups.take_seeds(node_index, message):
            return None
        payload = app.encode(message)
        return {"round": self.number, "dev_eui": dev_eui, "node_index": node_index, "payload": payload}

    @property
    def updates(self) -> int:
        """Updates of this round that count (late ones of the previous round are not in it)."""
        return sum(not held.late for held in self._held.values())

    @property
    def late(self) -> int:
        """Updates of the previous round that count here."""
        return sum(held.late for held in self._held.values())

    @property
    def accepted(self) -> frozenset[int]:
        """Node indices whose update of this round counts: the next round's `previous_accepted`."""
        return frozenset(held.node_index for held in self._held.values() if not held.late)

    @property
    def held(self) -> tuple[Held, ...]:
        """The updates that count, by node."""
        return tuple(sorted(self._held.values(), key=lambda update: update.node_index))

    def close(self, now_us: int, strategy: Aggregator, master: Float64) -> Closed:
        """Aggregate what counts into the current `master` (float64[d]); the round is closed afterwards."""
        assert self.state is not RoundState.CLOSED and not self.gather
        assert strategy.name == (self._mode.strategy or strategy.name)
        assert self._mode.strategy is not None or strategy.name not in OWN
        held = self.held
        if self._mode.replies is not None:
            replies = self._mode.replies(held, master, self.shape, self.contexts)
        else:
            assert self.sums is not None
            replies = self._groups.replies(self.sums)
        done = strategy.aggregate(strategy.rounds + 1, master, replies)
        closed = Closed(
            vector=done.vector,
            updates=self.updates,
            late=self.late,
            num_examples=sum(update.message.num_examples for update in held),
            errors=done.errors,
            failure=done.failure,
            contexts=done.contexts,
            suspects=tuple(self._suspicion(suspect) for suspect in done.suspects),
        )
        refused = {error.node_index for error in done.errors}
        counted = {node for reply in replies if reply.node_index not in refused for node in reply.nodes}
        left_out = {update.node_index for update in held}
        if done.vector is not None:
            left_out -= counted
        self.state = RoundState.CLOSED
        self.closed_us = now_us
        self.result = {**closed.metrics(), "left_out": sorted(left_out)}
        self._forget(left_out)
        return closed

    def _suspicion(self, suspect: Suspect) -> Mapping[str, object]:
        names = {held.node_index: dev_eui for dev_eui, held in self._held.items()}
        return {
            "dev_eui": names[suspect.node_index],
            "round": self.number,
            "context": context_name(suspect.context),
            "likely_context": context_name(suspect.likely),
            "gap_nats": round(suspect.gap, 2),
            "labels": suspect.labels,
        }

    def close_gathered(self, now_us: int) -> Closed:
        """Close a claimed round: all that counts is handed out, so all of it is acknowledged."""
        assert self.state is RoundState.OPEN and self.gather
        examples = sum(held.message.num_examples for held in self._held.values())
        closed = Closed(None, self.updates, self.late, examples, (), None)
        self.state, self.closed_us, self.result = RoundState.CLOSED, now_us, closed.metrics()
        return closed

    def gathered(self) -> Gathered | None:
        """The updates of a claimed round that is closed, by node index; None for any other round."""
        if not self.gather or self.state is RoundState.OPEN:
            return None
        held = sorted(self._held.items(), key=lambda item: item[1].node_index)
        # Replies to the zero vector are the changes alone.
        zero = np.zeros(self.shape.vector_size(self.contexts))
        assert self._mode.replies is not None  # a claimed round asks for signs, never for masked sums
        replies = self._mode.replies([update for _, update in held], zero, self.shape, self.contexts)
        changes = (
            Change(dev_eui, reply.num_examples, reply.vector)
            for (dev_eui, _), reply in zip(held, replies, strict=True)
        )
        return Gathered(self.number, tuple(changes))

    def _forget(self, left_out: Collection[int]) -> None:
        """What did not get into the model is not acknowledged: its nodes keep it and send it again."""
        self._held = {key: held for key, held in self._held.items() if held.node_index not in left_out}

    def ack_frames(self, payload_max: int) -> list[bytes]:
        """FPort 10 payloads that acknowledge every update counted here, those of the previous round first.

        To be sent after the round is closed: a node acknowledged for a late update would leave it out of its
        update of this round, which replaces the late one.
        """
        late = [held.node_index for held in self._held.values() if held.late]
        own = [held.node_index for held in self._held.values() if not held.late]
        previous = (self.number - 1) % ROUNDS
        return ack_frames(previous, late, payload_max) + ack_frames(self.number, own, payload_max)

    def ack_frames_of(self, node_index: int, payload_max: int) -> list[bytes]:
        """As `ack_frames`, for one node alone."""
        held = [each for each in self._held.values() if each.node_index == node_index]
        late = [each.node_index for each in held if each.late]
        own = [each.node_index for each in held if not each.late]
        previous = (self.number - 1) % ROUNDS
        return ack_frames(previous, late, payload_max) + ack_frames(self.number, own, payload_max)

    def to_row(self) -> Row:
        """The row of table `round` (key: the number)."""
        settings: dict[str, Any] = {
            "quorum": self.quorum,
            "contexts": self.contexts,
            "staleness_max": self.staleness_max,
            "gather": self.gather,
            "repair_until_us": self.repair_until_us,
            "sums": None if self.sums is None else asdict(self.sums),
        }
        metrics = {**settings, "refused": self.refused, "result": self.result}
        return {
            "round": self.number,
            "mode": int(self.mode),
            "model_version": self.model_version,
            "opened_us": self.opened_us,
            "close_us": self.close_us,
            "closed_us": self.closed_us,
            "state": str(self.state),
            "cohort": self.cohort,
            "updates": self.updates,
            "metrics": json.dumps(metrics, sort_keys=True),
        }

    @classmethod
    def from_row(
        cls,
        row: Mapping[str, Any],
        update_rows: Iterable[Mapping[str, Any]],
        shape: Shape,
        seeds_rows: Iterable[Mapping[str, Any]] = (),
    ) -> Round:
        """The round as it was stored; `update_rows` may hold all rows of table `update`, in any order.

        Rows of the round before tell which late updates would be duplicates.
        """
        integers(row, "round", "model_version", "cohort", "opened_us", "close_us")
        metrics = json.loads(row["metrics"])
        made = cls(
            number=row["round"],
            mode=RoundMode(row["mode"]),
            model_version=row["model_version"],
            cohort=row["cohort"],
            opened_us=row["opened_us"],
            close_us=row["close_us"],
            quorum=metrics["quorum"],
            shape=shape,
            contexts=metrics["contexts"],
            staleness_max=metrics["staleness_max"],
            gather=metrics.get("gather", False),
            sums=SumsPlan(**metrics["sums"]) if metrics.get("sums") else None,
            repair_until_us=metrics.get("repair_until_us"),
            state=RoundState(row["state"]),
            closed_us=row["closed_us"],
            refused=metrics["refused"],
            result=metrics["result"],
        )
        previous: set[int] = set()
        for stored in update_rows:
            message = app.decode_uplink(F_PORT_LEARNING, stored["payload"])
            assert isinstance(message, LearningMessage), message
            if stored["round"] == made.number:
                made._hold(stored["dev_eui"], stored["node_index"], message, stored["received_us"])
            elif message.round == stored["round"] == (made.number - 1) % ROUNDS:
                previous.add(stored["node_index"])
        for stored in seeds_rows if made.state is RoundState.REPAIR else ():
            seeds = app.decode_uplink(F_PORT_LEARNING, stored["payload"])
            if isinstance(seeds, Seeds) and seeds.round == made.number:
                made._groups.take_seeds(stored["node_index"], seeds)
        made.previous_accepted = frozenset(previous)
        made._forget(made.result.get("left_out", ()))
        return made

    def _fault(
        self, dev_eui: str, node_index: int, message: LearningMessage, context: int | None
    ) -> str | None:
        if self.state is not RoundState.OPEN:
            return _SHUT[self.state]
        if mode_of(message) is not self._mode:
            return "wrong_mode"
        if (order := self._order_fault(dev_eui, node_index, message)) is not None:
            return order
        if context is not None and message.context != context:
            return "wrong_context"
        if not self._is_plausible(message):
            return "implausible"
        return "full" if len(self._held) >= UPDATES_MAX and dev_eui not in self._held else None

    def _order_fault(self, dev_eui: str, node_index: int, message: LearningMessage) -> str | None:
        """Round number, repetition, cohort and model version."""
        behind = (self.number - message.round) % ROUNDS
        held = self._held.get(dev_eui)
        if behind > (0 if self.sums is not None else 1):
            return "stale" if behind < ROUNDS // 2 else "wrong_round"
        if behind == 1:
            if held is not None or node_index in self.previous_accepted:
                return "duplicate"
        elif held is not None and not held.late:
            return "duplicate"
        elif not in_cohort(node_index, self.number, self.cohort):
            return "not_in_cohort"
        age = version_age(message.model_version, self.model_version)
        return "stale" if age > self._mode.staleness_limit(self.staleness_max) else None

    def _is_plausible(self, message: LearningMessage) -> bool:
        known = message.context < self.contexts and self._mode.is_plausible(message, self.shape)
        return known and not (isinstance(message, MaskedSums) and self._is_unfit(message))

    def _is_unfit(self, message: MaskedSums) -> bool:
        return self.sums is None or message.bits != self.sums.bits or self._groups.clashes(message)

    @property
    def _mode(self) -> Mode:
        return MODES[self.mode]

    def _hold(self, dev_eui: str, node_index: int, message: LearningMessage, received_us: int) -> Held:
        late = message.round != self.number
        age = version_age(message.model_version, self.model_version)
        staleness = max(age, 1) if late else age
        self._held[dev_eui] = Held(node_index, message, received_us, late, staleness)
        if isinstance(message, MaskedSums):
            self._groups.add(node_index, message)
        return self._held[dev_eui]


def _score(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def ack_frames(number: int, indices: Iterable[int], payload_max: int) -> list[bytes]:
    """FPort 10 payloads that acknowledge these node indices in round `number`, of at most `payload_max` B.

    Bitmaps over ascending indices; a gap longer than a frame starts a new one.
    """
    room = 8 * (payload_max - 5)
    frames: list[bytes] = []
    todo = sorted(indices)
    while todo:
        first = todo[0]
        covered = todo[: bisect_left(todo, first + room)]
        bitmap = bytearray((covered[-1] - first) // 8 + 1)
        for index in covered:
            bitmap[(index - first) // 8] |= 1 << ((index - first) % 8)
        frames.append(app.encode(RoundAck(number, first, bytes(bitmap))))
        todo = todo[len(covered) :]
    return frames
