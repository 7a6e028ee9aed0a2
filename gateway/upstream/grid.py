"""A Flower grid whose nodes are the nodes of one LoRa cell: unmodified ServerApps run over it.

Theory of operation.  A strategy sends one model to many nodes; a cell multicasts one model to all.  So the
train messages of one `push_messages` (or `send_and_receive`) become one LoRa round: their common vector
is handed in, the next window multicasts it, nodes answer in one frame each, and when the round closes
each validated update becomes the reply to its node's message:

    messages --vector--> CellDriver.hand_in --...--> CellDriver.gathered --change + vector--> replies

What differs from Flower's own grids, because a cell is what it is:
- Time is the cell's.  `timeout` is the round's deadline from its opening on, at most the cell's period;
  the wait for the window does not count.  The TTL of messages is set to `TTL_S`.
- One content for all.  A message with another vector than the first one's gets an error for a reply.
- Silent nodes have no reply; replies that would abort a strategy (shape, not finite, no examples) are errors.
- Nodes train only.  Evaluate messages stay unanswered, query messages get an error; a train config does not
  travel, the nodes' own settings rule.
- `sample_nodes` of Flower waits for ever for nodes that never come: after `ASKED_MAX` questions in a row for
  the nodes without a message in between, `get_node_ids` says so by `CellStopped`.

Records: the train message carries one ArrayRecord whose arrays, in their order, are the cell's vector (one
flat array is cheapest: Flower's cost is per array); a reply has the same arrays and `num-examples`.
`Message` takes its run and source from one identity per process: the grid sets it where nobody has, and
writes its own run into every message that passes, so that several grids live in one process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from logging import WARNING
from typing import Any

import numpy as np
from flwr.app import Error, Message, MessageType, MetricRecord, RecordDict
from flwr.app.metadata import Metadata
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid
from flwr.supercore import log
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from gateway.upstream.driver import CellDriver, CellStopped
from gateway.upstream.records import EXAMPLES, METRICS, Layout, arrays_of, vector_of
from swarm.federation.outside import CLOSE_MIN_S, Change
from swarm.model.vector import Float64

__all__ = ["ASKED_MAX", "TTL_S", "LoRaGrid"]

TTL_S = 30 * 86_400.0
"""Flower's default of twelve hours is shorter than many a LoRa round."""
ASKED_MAX = 30
PENDING_MAX = 1 << 20
"""Messages that were pushed and not yet pulled."""
_runs = count(1)


@dataclass(slots=True)
class _Broadcast:
    """The train messages of one round, by node, until their replies are in."""

    number: int
    vector: Float64
    layout: Layout
    waiting: dict[int, Message]


class LoRaGrid(Grid):  # type: ignore[misc]
    """See the module.  `on_round` is called with each closed round's number and count of replies."""

    def __init__(
        self, cell: CellDriver, run: Run | None = None, *, on_round: Callable[[int, int], None] | None = None
    ) -> None:
        self._cell = cell
        self._run = run if run is not None else Run.create_empty(next(_runs))
        self._on_round = on_round
        self._broadcasts: list[_Broadcast] = []
        self._replies: dict[str, Message] = {}
        self._ids = count(1)
        self._asked = 0
        self._warned: set[str] = set()
        _claim_identity(self._run.run_id)

    # -- Flower's interface -----------------------------------------------------------------------

    def set_run(self, run: Run) -> None:
        """The run that messages belong to."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that messages belong to."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message of this run (Flower deprecates it for `Message(...)`)."""
        metadata = self._metadata(SUPERLINK_NODE_ID, dst_node_id, "", group_id, message_type)
        metadata.ttl = TTL_S if ttl is None else ttl
        return Message(metadata=metadata, content=content)

    def get_node_ids(self) -> Iterable[int]:
        """The registered nodes: their DevEUIs as numbers."""
        _claim_identity(self._run.run_id)
        nodes = list(self._cell.node_ids())
        self._asked += 1
        if self._asked > ASKED_MAX:
            raise CellStopped(
                f"the app waits for more nodes than the cell's {len(nodes)}; lower the strategy's"
                " min_available_nodes, min_train_nodes and min_evaluate_nodes"
            )
        return nodes

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Hand the common vector in; the messages' ids, by which replies can be pulled."""
        return self._push(list(messages), None)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that are there; if a round is under way, the cell's time goes on a little first."""
        wanted = list(message_ids)
        if self._broadcasts and not any(each in self._replies for each in wanted):
            self._advance()
        return [self._replies.pop(each) for each in wanted if each in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """One LoRa round; its replies when it is closed, `timeout` seconds of the cell after its opening."""
        ids = self._push(list(messages), timeout)
        while self._broadcasts:
            self._advance()
        return [self._replies.pop(each) for each in ids if each in self._replies]

    # -- out --------------------------------------------------------------------------------------

    def _push(self, messages: list[Message], timeout: float | None) -> list[str]:
        self._asked = 0
        if len(messages) + len(self._replies) > PENDING_MAX:
            raise CellStopped(f"more than {PENDING_MAX} messages wait for replies; pull them")
        ids, train = [], []
        for message in messages:
            own = message.metadata.__dict__
            own["_message_id"] = f"{self._run.run_id}-{next(self._ids)}"
            own["_run_id"], own["_ttl"] = self._run.run_id, TTL_S
            ids.append(own["_message_id"])
            kind = message.metadata.message_type.partition(".")[0]
            if kind == MessageType.TRAIN:
                train.append(message)
            elif kind == MessageType.EVALUATE:
                self._warn("nodes of a LoRa cell do not evaluate: no frame asks for it; no replies will come")
            else:
                self._fail(message, f"a LoRa cell takes train messages only, not {kind}")
        if train:
            self._broadcast(train, timeout)
        return ids

    def _broadcast(self, messages: list[Message], timeout: float | None) -> None:
        first = messages[0].content
        layout, vector = Layout.of(first), vector_of(arrays_of(first))
        size = len(self._cell.vector())
        if len(vector) != size:
            raise CellStopped(f"this cell's model has {size} parameters, the app sends {len(vector)}")
        waiting: dict[int, Message] = {}
        same = {id(first)}
        for message in messages:
            if id(message.content) not in same:
                if not _equal(message.content, vector):
                    self._fail(message, "a cell multicasts one model; this message has another")
                    continue
                same.add(id(message.content))
            if waiting.setdefault(message.metadata.dst_node_id, message) is not message:
                self._fail(message, "this node has a message in this round already")
        close_s = None if timeout is None else max(CLOSE_MIN_S, math.ceil(timeout))
        number = self._cell.hand_in(vector, gather=True, close_s=close_s)
        self._broadcasts.append(_Broadcast(number, vector, layout, waiting))

    # -- back -------------------------------------------------------------------------------------

    def _advance(self) -> None:
        self._cell.advance()
        for broadcast in list(self._broadcasts):
            gathered = self._cell.gathered(broadcast.number)
            if gathered is None:
                continue
            self._broadcasts.remove(broadcast)
            for change in gathered.changes:
                self._take(broadcast, change)
            if self._on_round is not None:
                self._on_round(gathered.round, len(gathered.changes))

    def _take(self, broadcast: _Broadcast, change: Change) -> None:
        message = broadcast.waiting.pop(int(change.dev_eui, 16), None)
        if message is None:
            return  # the app sent this node nothing, yet it heard the announcement
        if change.delta.shape != broadcast.vector.shape:
            self._fail(message, f"shape {change.delta.shape} instead of {broadcast.vector.shape}")
        elif not np.isfinite(change.delta).all():
            self._fail(message, "not finite")
        elif change.num_examples <= 0:
            self._fail(message, "no examples")
        else:
            content = RecordDict()
            content[broadcast.layout.record] = broadcast.layout.fill(broadcast.vector + change.delta)
            content[METRICS] = MetricRecord({EXAMPLES: change.num_examples})
            self._reply(message, content=content)

    def _fail(self, message: Message, reason: str) -> None:
        self._reply(message, error=Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason))

    def _reply(self, message: Message, **what: Any) -> None:
        sent = message.metadata
        metadata = self._metadata(
            sent.dst_node_id, sent.src_node_id, sent.message_id, sent.group_id, sent.message_type
        )
        self._replies[sent.message_id] = Message(metadata=metadata, **what)

    def _metadata(self, src: int, dst: int, reply_to: str, group_id: str, kind: str) -> Metadata:
        return Metadata(
            run_id=self._run.run_id,
            message_id=f"{self._run.run_id}-{next(self._ids)}" if reply_to else "",
            src_node_id=src,
            dst_node_id=dst,
            reply_to_message_id=reply_to,
            group_id=group_id,
            created_at=0.0,
            ttl=TTL_S,
            message_type=kind,
        )

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            log(WARNING, text)


def _equal(content: RecordDict, vector: Float64) -> bool:
    records = list(content.array_records.values())
    return len(records) == 1 and np.array_equal(vector_of(records[0]), vector)


def _claim_identity(run_id: int) -> None:
    """`Message(...)` of the app needs some identity; one that Flower itself has set is left alone."""
    if TaskIdentity._run_id is None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, SUPERLINK_NODE_ID, 0
