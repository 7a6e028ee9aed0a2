"""Two cells under real flower-superlink and flower-supernode processes, with TLS and keys, on loopback.

Everything is a process of its own: daemons, simulated nodes over UDP, SuperLink, SuperNodes, and Flower's
process for each message.  What the cells made is read from their databases.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.commands.federation import DONE, run_app, running
from gateway.upstream import federation
from gateway.upstream.certificates import make_node_key
from gateway.upstream.federation import CellSite, Federation
from gateway.upstream.processes import Processes
from swarm.model.vector import Float64, Mirror
from tests.web.served import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NODES = 12
WITHIN_S = 240.0

Running = tuple[Federation, Processes]


@pytest.fixture(scope="module")
def farms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    made = federation.create(tmp_path_factory.mktemp("farms") / "two", 2, port=0)
    with running(made, NODES, say=lambda _: None) as both:
        yield both
    assert left_behind(made) == []


def left_behind(made: Federation) -> list[str]:
    """Processes that have the federation's folder in their arguments or their environment."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and process.name != str(os.getpid()):
            with contextlib.suppress(OSError):  # it ended while we looked
                told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
                if str(made.folder).encode() in told:
                    found.append(process.name)
    return found


def rows(cell: CellSite, query: str, *values: Any) -> list[tuple[Any, ...]]:
    with sqlite3.connect(f"file:{cell.folder / 'data' / 'swarm.db'}?mode=ro", uri=True) as database:
        return database.execute(query, values).fetchall()


def handed_in(cell: CellSite) -> list[int]:
    """The rounds that were to carry a model from outside, in the order in which it came."""
    found = rows(cell, "SELECT data FROM event WHERE kind = 'model_handed_in' ORDER BY rowid")
    return [json.loads(data)["round"] for (data,) in found]


class Witness:
    """Writes down every version that the cells make: one that no window has sent gives way to the next."""

    LOOK_S = 0.05

    def __init__(self, cells: tuple[CellSite, ...]) -> None:
        self._cells = cells
        self._seen: dict[int, dict[tuple[int, int], bytes]] = {cell.http_port: {} for cell in cells}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def closed(self, cell: CellSite, number: int) -> tuple[Float64, int]:
        """What a round of the cell made: the vector and the examples behind it."""
        ((metrics,),) = rows(cell, "SELECT metrics FROM round WHERE round = ?", number)
        seen = self._seen[cell.http_port]
        restored = Mirror.from_bytes(seen[max(key for key in seen if key[0] == number)])
        assert isinstance(restored, tuple)
        return restored[1], json.loads(metrics)["summary"]["num_examples"]

    def _watch(self) -> None:
        while not self._stop.wait(self.LOOK_S):
            for cell in self._cells:
                for number, made_us, vector in rows(cell, "SELECT round, made_us, vector FROM model"):
                    self._seen[cell.http_port][number, made_us] = vector


def result_of(log: str) -> tuple[int, str]:
    """How many cells took the result over, and its digest: the last that the app's log says."""
    count, digest = re.findall(rf"federation: (\d+) {DONE}, ([0-9a-f]{{64}})", log)[-1]
    return int(count), digest


def digest(vector: Float64) -> str:
    return hashlib.sha256(vector.astype("<f8").tobytes()).hexdigest()


def test_a_key_that_nobody_registered_is_refused(farms: Running, tmp_path: Path) -> None:
    made, processes = farms
    make_node_key(tmp_path)
    command = made.supernode(made.cells[0], tmp_path / "supernode.key")
    command[-1] = str(federation.create(tmp_path / "spare", 1, port=0).port)  # a free port for its own apps
    with Processes(tmp_path / "logs", made.environment()) as strangers:
        strangers.start("stranger", command)
        assert until(lambda: strangers.code("stranger"), "the stranger to be turned away", WITHIN_S) != 0
        said = strangers.log("stranger").read_text("utf-8", "replace")
    assert "registered" in said or "activate" in said, said
    assert processes.ended() == []


def test_the_cells_model_is_the_analytic_mean_of_what_the_cells_made(farms: Running) -> None:
    """FedAvg by examples, bit for bit, and every cell takes it over."""
    made, processes = farms
    with Witness(made.cells) as witness:
        run_app(made, processes, rounds=1, timeout_s=WITHIN_S, strategy="FedAvg")
    parts = [witness.closed(cell, handed_in(cell)[0]) for cell in made.cells]
    assert all(examples > 0 for _, examples in parts)
    assert not np.array_equal(parts[0][0], parts[1][0])
    total = sum(examples for _, examples in parts)
    # Not `sum`: its 0 in front would turn a mean of -0.0 into 0.0.
    expected = reduce(np.add, [vector * (examples / total) for vector, examples in parts])
    count, said = result_of(processes.log("app").read_text("utf-8"))
    assert (count, said) == (2, digest(np.asarray(expected)))
    for cell in made.cells:
        assert len(handed_in(cell)) == 2, "to train from, and the result"


def test_a_cell_that_dies_in_mid_round_does_not_stop_the_other(farms: Running) -> None:
    """Kill daemon and SuperNode of one cell while both train: the result is the other's alone."""
    made, processes = farms
    alive, dying = made.cells
    before = [len(handed_in(cell)) for cell in made.cells]
    failures: list[BaseException] = []

    def work() -> None:
        try:
            run_app(made, processes, rounds=1, timeout_s=WITHIN_S, strategy="FedAvg")
        except BaseException as failure:  # noqa: BLE001  # told to the test in its own thread
            failures.append(failure)

    began_s = time.monotonic()
    federating = threading.Thread(target=work)
    with Witness((alive,)) as witness:
        federating.start()
        until(lambda: len(handed_in(dying)) > before[1], "the doomed cell to be in its round", WITHIN_S)
        processes.stop(f"{dying.folder.name}-daemon", at_once=True)
        processes.stop(f"{dying.folder.name}-supernode", at_once=True)
        federating.join(WITHIN_S * 2)
    assert not federating.is_alive() and failures == []
    vector, examples = witness.closed(alive, handed_in(alive)[before[0]])
    assert examples > 0
    count, said = result_of(processes.log("app").read_text("utf-8"))
    assert count == 1 and said == digest(vector), f"after {time.monotonic() - began_s:.0f} s"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_stops_all_that_it_started(tmp_path: Path, number: signal.Signals) -> None:
    made = federation.create(tmp_path / "two", 2, port=0)
    command = [sys.executable, "-m", "gateway.cli", "federation", "up", str(made.folder), "--nodes", "4"]
    # A shell's background jobs, and what they start, ignore Ctrl-C; this one has to hear it.
    hears = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=hears) as process:  # noqa: PLW1509
        assert process.stdout is not None
        until(
            lambda: "SuperLink at" in str(process.stdout and process.stdout.readline()), "the start", WITHIN_S
        )
        assert len(left_behind(made)) >= 8, "two daemons, their nodes, SuperLink, two SuperNodes, the command"
        process.send_signal(number)
        assert process.wait(60) == 130
    assert left_behind(made) == []
