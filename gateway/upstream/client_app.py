"""A gateway as one client of a federation: a Flower ClientApp that talks to its daemon, and does no more.

    train           the vector goes out with the cell's next window; when that round is closed, the cell's own
                    strategy has made a new vector of it, which is the reply, with the round's examples
    query.model     the cell's vector as it is
    query.install   the vector goes out with the next window; nothing is waited for

It runs in `flower-supernode`, whose --node-config says where the daemon is: url="http://127.0.0.1:8080" and
token-file="/path/to/data/token".  What goes wrong becomes an Error reply of one line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from flwr.app import Array, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from gateway.upstream.daemon_cell import DaemonCell
from gateway.upstream.driver import CellStopped
from gateway.upstream.records import EXAMPLES, METRICS, Layout, arrays_of, flat_record, vector_of

__all__ = ["app", "train_cell"]

app = ClientApp()


@app.train()  # type: ignore[untyped-decorator, unused-ignore]
def train(message: Message, context: Context) -> Message:
    """One round of the cell."""
    return _answered(message, context, lambda cell: train_cell(cell, message.content))


@app.query("model")  # type: ignore[untyped-decorator, unused-ignore]
def model(message: Message, context: Context) -> Message:
    """The cell's vector."""
    return _answered(
        message, context, lambda cell: RecordDict({"arrays": flat_record(cell.vector(), make=Array)})
    )


@app.query("install")  # type: ignore[untyped-decorator, unused-ignore]
def install(message: Message, context: Context) -> Message:
    """Take over the federation's vector."""

    def take(cell: DaemonCell) -> RecordDict:
        number = cell.hand_in(vector_of(arrays_of(message.content)), gather=False, close_s=None)
        return RecordDict({METRICS: MetricRecord({"round": number})})

    return _answered(message, context, take)


def train_cell(cell: DaemonCell, content: RecordDict) -> RecordDict:
    """Hand the vector of a train message in, wait for its round, and make the content of the reply."""
    number = cell.hand_in(vector_of(arrays_of(content)), gather=False, close_s=None)
    while (closed := cell.closed(number)) is None:
        cell.advance()
    examples = int(closed["num_examples"])
    if examples <= 0:
        raise CellStopped(f"round {number} of the cell brought no update")
    layout = Layout.of(content)
    metrics = {EXAMPLES: examples, "updates": int(closed["updates"]), "round": number}
    return RecordDict({layout.record: layout.fill(cell.vector(), make=Array), METRICS: MetricRecord(metrics)})


def _answered(message: Message, context: Context, work: Callable[[DaemonCell], RecordDict]) -> Message:
    try:
        with _daemon(context) as cell:
            return Message(work(cell), reply_to=message)
    except CellStopped as stopped:
        return Message(
            Error(cast(int, ErrorCode.CLIENT_APP_RAISED_EXCEPTION), str(stopped)), reply_to=message
        )


@contextmanager
def _daemon(context: Context) -> Iterator[DaemonCell]:
    settings = context.node_config
    if "url" not in settings or "token-file" not in settings:
        raise CellStopped("--node-config of flower-supernode has to say url and token-file")
    cell = DaemonCell(str(settings["url"]), Path(str(settings["token-file"])))
    try:
        yield cell
    finally:
        cell.close()
