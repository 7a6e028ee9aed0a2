"""The federation of cells as a Flower ServerApp: any strategy, over gateways instead of phones.

It starts from the mean of the cells' vectors, runs `rounds` rounds and gives the result to every cell that is
there.  Run config: `cells` (how many to wait for at the start), `rounds`, `strategy` and `timeout-s` (of one
round; a cell that has not answered by then is left out of it).  One that dies stops nobody: the strategy goes
on with those that remain.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from logging import INFO, WARNING
from typing import Any

import numpy as np
from flwr.app import Array, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp, strategy
from flwr.supercore import log

from gateway.upstream.records import arrays_of, flat_record, vector_of
from swarm.model.vector import Float64
from swarm.words import counted

__all__ = ["app"]

TTL_S = 30 * 86_400.0
JOIN_MAX_S = 600
LOOK_S = 1.0
ANSWER_MAX_S = 300.0

app = ServerApp()


@app.main()  # type: ignore[untyped-decorator, unused-ignore]
def main(grid: Grid, context: Context) -> None:
    """See the module."""
    config = context.run_config
    patient = _PatientGrid(grid)
    _await_cells(grid, int(config["cells"]))
    vectors = [vector_of(arrays_of(reply.content)) for reply in patient.ask("query.model", RecordDict())]
    if not vectors or len({len(vector) for vector in vectors}) != 1:
        raise ValueError(f"the cells' models have {sorted({len(each) for each in vectors})} parameters")
    initial = np.mean(vectors, axis=0)
    chosen = getattr(strategy, str(config["strategy"]))(
        fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1
    )
    result = chosen.start(
        patient,
        flat_record(initial, make=Array),
        num_rounds=int(config["rounds"]),
        timeout=float(config["timeout-s"]),
    )
    if not result.arrays:
        log(WARNING, "no cell answered in any round; the cells keep their models")
        return
    final = vector_of(result.arrays)
    told = patient.ask("query.install", RecordDict({"arrays": flat_record(final, make=Array)}))
    log(INFO, "federation: %d cells take over the result, %s", len(told), _digest(final))


def _await_cells(grid: Grid, cells: int) -> None:
    deadline_s = time.monotonic() + JOIN_MAX_S
    while len(list(grid.get_node_ids())) < cells:
        if time.monotonic() >= deadline_s:
            raise ValueError(
                f"fewer than {counted(cells, 'cell')} came within {JOIN_MAX_S} s; see their supernodes' logs"
            )
        time.sleep(LOOK_S)


class _PatientGrid:
    """Flower's grid with messages that live as long as LoRa rounds (its own default is twelve hours)."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def get_node_ids(self) -> Iterable[int]:
        return list(self._grid.get_node_ids())

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        listed = list(messages)
        for message in listed:
            message.metadata.ttl = TTL_S
        return list(self._grid.send_and_receive(listed, timeout=timeout))

    def ask(self, kind: str, content: RecordDict) -> list[Message]:
        """The same question to every cell; the replies without an error."""
        messages = [Message(content, dst_node_id=node, message_type=kind) for node in self.get_node_ids()]
        replies = list(self.send_and_receive(messages, timeout=ANSWER_MAX_S))
        for reply in replies:
            if reply.has_error():
                log(WARNING, "cell %d: %s", reply.metadata.src_node_id, reply.error.reason)
        return [reply for reply in replies if not reply.has_error()]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._grid, name)


def _digest(vector: Float64) -> str:
    return hashlib.sha256(vector.astype("<f8").tobytes()).hexdigest()
