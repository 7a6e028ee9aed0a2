"""The way between a daemon and Flower: models in, updates and models out, and the files of a federation."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from gateway.cli import run
from gateway.commands.federation import run_app
from gateway.commands.output import CommandError
from gateway.upstream import daemon_cell, federation
from gateway.upstream.client_app import app as client_app
from gateway.upstream.daemon_cell import DaemonCell
from gateway.upstream.driver import CellStopped
from gateway.upstream.grid import LoRaGrid
from gateway.upstream.processes import Processes
from gateway.upstream.records import flat_record, vector_of
from swarm.federation.changes import local_delta
from swarm.model.layout import ADAPTER_SIZE, WEATHER
from swarm.model.vector import Float64
from swarm.wire import app
from tests.web.served import Cell, Served, until

NODES = 4
MAGNITUDE = 200


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path) as made:
        yield made


@pytest.fixture
def cell(served: Served) -> Iterator[Cell]:
    assert served.daemon.udp_address is not None
    made = Cell(served.daemon.udp_address, NODES)
    assert served.http.post("/api/nodes", json=made.registration()).status_code == 200
    made.pull()
    until(lambda: served.http.get("/api/airtime").json()["gateways"], "the gateway to be heard")
    yield made
    made.close()


def signs(node: int, number: int, version: int) -> app.TopKSign:
    """Node `node` moves ten coordinates of the adapter, others than its neighbours."""
    indices = tuple(range(60 * node, 60 * node + 10))
    rice_k = app.rice_k_for(indices)
    return app.TopKSign(number, version, node, 5, MAGNITUDE, rice_k, indices, (False,) * 10)


def driver(served: Served, tmp_path: Path, step: Callable[[], None]) -> DaemonCell:
    """The daemon as a cell whose waiting is the test's next step: nothing here sleeps."""
    return DaemonCell(served.url, tmp_path / "data" / "token", sleep=lambda _: step())


def answer(served: Served, cell: Cell, update: Callable[[int, int, int], app.UplinkMessage]) -> None:
    """Open the round and let every node answer it with update(node, round, version)."""
    number = served.http.post("/api/rounds").json()["round"]
    version = served.http.get("/api/model").json()["version"]
    for node, each in enumerate(cell.nodes):
        cell.uplink(each, app.F_PORT_LEARNING, app.encode(update(node, number, version)))


# -- a daemon as a cell -------------------------------------------------------------------------------


def test_a_grid_over_a_live_daemon_gets_what_the_nodes_sent(
    served: Served, cell: Cell, tmp_path: Path
) -> None:
    """Real frames over UDP in, Flower replies out: the vector that was sent plus each node's signs."""
    steps = iter([lambda: answer(served, cell, signs)])
    live = driver(served, tmp_path, partial(_next, steps))
    euis = [int(node.row["dev_eui"], 16) for node in cell.nodes]
    vector = live.vector() + 0.25
    grid = LoRaGrid(live)
    assert sorted(grid.get_node_ids()) == euis
    content = RecordDict({"arrays": flat_record(vector)})
    listed = [Message(content, dst_node_id=node, message_type="train") for node in euis]
    replies = {reply.metadata.src_node_id: reply for reply in grid.send_and_receive(listed)}
    for node, eui in enumerate(euis):
        expected = np.zeros(len(vector))
        expected[:ADAPTER_SIZE] = local_delta(signs(node, 1, 1), MAGNITUDE, WEATHER)[:ADAPTER_SIZE]
        found = vector_of(replies[eui].content["arrays"]) - vector
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
        assert replies[eui].content["metrics"]["num-examples"] == 5
    assert np.array_equal(live.vector(), vector), "the cell applied no strategy of its own"
    live.close()


def _next(steps: Iterator[Callable[[], None]]) -> None:
    next(steps, lambda: None)()


def test_a_model_from_outside_waits_for_its_window(served: Served, cell: Cell, tmp_path: Path) -> None:
    live = driver(served, tmp_path, lambda: None)
    vector = live.vector() + 0.5
    assert live.hand_in(vector, gather=False, close_s=None) == 1
    assert served.http.get("/api/model").json()["waiting"] is True
    assert not np.array_equal(live.vector(), vector)
    assert live.closed(1) is None and live.gathered(1) is None
    served.http.post("/api/rounds")
    model = served.http.get("/api/model").json()
    assert (model["waiting"], model["version"], model["vector"]) == (False, 1, vector.tolist())


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"vector": [1.0, 2.0]}, 409),
        ({"vector": []}, 422),
        ({"vector": "zeros"}, 422),
        ({"vector": [1.0], "more": 1}, 422),
        ({"vector": [1.0], "close_s": 0}, 422),
        ({"vector": [1.0] * 70_000}, 422),
    ],
)
def test_what_is_no_model_is_refused(served: Served, body: object, status: int) -> None:
    assert served.http.post("/api/model", json=body).status_code == status
    assert served.http.get("/api/model").json()["waiting"] is False
    assert served.http.get("/api/rounds/70000/gathered").status_code == 422
    assert served.http.get("/api/rounds/1/gathered").json() == {"gathered": None}


def test_a_daemon_that_is_not_there_is_waited_for_and_then_named(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x" * 43, encoding="ascii")
    waits: list[float] = []
    away = DaemonCell("http://127.0.0.1:9", tmp_path / "token", sleep=waits.append)
    with pytest.raises(CellStopped, match="no gateway answers there"):
        away.node_ids()
    assert sum(waits) == daemon_cell.AWAY_MAX_S
    with pytest.raises(CellStopped, match="no token can be read"):
        DaemonCell("http://127.0.0.1:9", tmp_path / "missing")


def test_a_wrong_token_is_one_line(served: Served, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("x" * 43, encoding="ascii")
    with pytest.raises(CellStopped, match="bearer token is needed"):
        DaemonCell(served.url, tmp_path / "other").vector()


@pytest.mark.parametrize(
    "said",
    [b"<html>", b"[]", b"{}", b'{"vector": "x", "gathered": 1, "nodes": [1], "rounds": 0, "round": {}}'],
)
def test_what_is_no_daemon_is_one_line(tmp_path: Path, said: bytes) -> None:
    (tmp_path / "token").write_text("x", encoding="ascii")
    other = DaemonCell("http://nowhere", tmp_path / "token", sleep=lambda _: None)
    other._http = httpx.Client(
        base_url="http://nowhere", transport=httpx.MockTransport(lambda _: httpx.Response(200, content=said))
    )
    calls: list[Callable[[], object]] = [
        other.node_ids, other.vector, partial(other.gathered, 1), partial(other.closed, 1),
        partial(other.hand_in, np.zeros(1), gather=True, close_s=None),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(CellStopped, match="what answers there is no"):
            call()


# -- the client of a cell -----------------------------------------------------------------------------


def context(**node_config: str) -> Context:
    return Context(run_id=1, node_id=2, node_config=dict(node_config), state=RecordDict(), run_config={})


def message(kind: str, vector: Float64 | None = None) -> Message:
    if TaskIdentity._run_id is None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 0
    content = RecordDict() if vector is None else RecordDict({"arrays": flat_record(vector)})
    made = Message(content, dst_node_id=2, message_type=kind)
    made.metadata.__dict__["_message_id"] = "m"
    return made


def test_the_client_app_trains_its_cell_and_replies_with_the_cells_model(
    served: Served, cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One round of the cell's own strategy from the vector that came, seen from Flower's side."""
    monkeypatch.setattr(daemon_cell.time, "sleep", lambda _: None)
    live = driver(served, tmp_path, lambda: None)
    vector = live.vector() + 0.125
    where = context(**{"url": served.url, "token-file": str(tmp_path / "data" / "token")})
    answers: list[Message] = []
    training = threading.Thread(target=lambda: answers.append(client_app(message("train", vector), where)))
    training.start()
    until(lambda: served.http.get("/api/model").json()["waiting"], "the model to be handed in")
    answer(served, cell, means)
    training.join(20)
    (reply,) = answers
    assert not reply.has_error(), reply.error
    assert dict(reply.content["metrics"]) == {"num-examples": 4 * 6, "updates": 4, "round": 1}
    assert np.array_equal(vector_of(reply.content["arrays"]), live.vector())
    model = client_app(message("query.model"), where)
    assert np.array_equal(vector_of(model.content["arrays"]), live.vector())
    told = client_app(message("query.install", vector), where)
    assert told.content["metrics"]["round"] == 2
    assert served.http.get("/api/model").json()["waiting"] is True


def means(node: int, number: int, version: int) -> app.Prototypes:
    """What a node answers in the daemon's own mode."""
    classes = tuple(app.ClassMean(label, 3, 40, (1, -2, 3) * 6) for label in (0, 2))
    return app.Prototypes(number, version, node, 6, classes)


def test_what_goes_wrong_in_the_client_is_an_error_of_one_line(served: Served, tmp_path: Path) -> None:
    reply = client_app(message("query.model"), context())
    assert reply.has_error() and "url and token-file" in reply.error.reason
    where = context(**{"url": served.url, "token-file": str(tmp_path / "data" / "token")})
    reply = client_app(message("query.install", np.zeros(3)), where)
    assert reply.error.reason.endswith("parameters, not 3")


# -- files --------------------------------------------------------------------------------------------


def test_a_federation_is_made_and_read_and_never_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "farms"
    made = federation.create(folder, 3, host="link.example", port=0, clock_speed=2.0)
    assert federation.read(folder) == made
    ports = {made.port} | {
        port for each in made.cells for port in (each.udp_port, each.http_port, each.runtime_port)
    }
    assert len(ports) == 10
    private = [folder / "superlink" / "server.key", *(each.folder / "supernode.key" for each in made.cells)]
    assert [stat.S_IMODE(path.stat().st_mode) for path in private] == [0o600] * 4
    assert stat.S_IMODE(made.cells[0].folder.stat().st_mode) == 0o700
    assert not list(folder.rglob("ca.key")), "the authority's key is thrown away"
    with pytest.raises(federation.FederationError, match="not empty"):
        federation.create(folder, 2)
    (folder / "federation.toml").write_text("port = ", encoding="utf-8")
    with pytest.raises(federation.FederationError, match="is damaged"):
        federation.read(folder)
    with pytest.raises(federation.FederationError, match="swarm federation init"):
        federation.read(tmp_path / "nowhere")


def test_cells_have_settings_that_the_daemon_takes_and_keys_of_their_own(tmp_path: Path) -> None:
    made = federation.create(tmp_path / "farms", 2, port=0)
    publics = set()
    for each in made.cells:
        assert run(["gateway", "check", "-c", str(each.settings)]) == 0
        key = load_ssh_private_key((each.folder / "supernode.key").read_bytes(), None)
        public = load_ssh_public_key((each.folder / "supernode.pub").read_bytes())
        assert key.public_key() == public
        publics.add((each.folder / "supernode.pub").read_bytes())
    assert len(publics) == 2


def test_no_secret_is_an_argument_of_any_process(tmp_path: Path) -> None:
    made = federation.create(tmp_path / "farms", 2, port=0)
    commands = [made.superlink(), made.run(rounds=1, timeout_s=1.0, strategy="FedAvg")]
    for each in made.cells:
        commands += [made.supernode(each), made.register(each), each.daemon()]
    said = "\n".join(argument for command in commands for argument in command)
    for path in (tmp_path / "farms").rglob("*.key"):
        body = "".join(path.read_text("ascii").split("-----")[2].split())
        assert body[:40] not in said
    assert "PRIVATE" not in said and made.environment()["FLWR_TELEMETRY_ENABLED"] == "0"


def test_the_superlinks_certificate_is_for_its_names_and_by_its_authority(tmp_path: Path) -> None:
    """A real handshake: accepted for the host that was named, refused for another and without the CA."""
    made = federation.create(tmp_path / "farms", 1, host="link.example", port=0)
    for name, authority, good in (
        ("link.example", True, True),
        ("127.0.0.1", True, True),
        ("elsewhere.example", True, False),
        ("link.example", False, False),
    ):
        assert handshake(made, name, authority) is good, (name, authority)


def handshake(made: federation.Federation, name: str, authority: bool) -> bool:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made.folder / "superlink" / "server.pem", made.folder / "superlink" / "server.key")
    client = ssl.create_default_context(cafile=str(made.folder / "ca.crt") if authority else None)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(down, up, server_hostname=name)
    far = server.wrap_bio(up, down, server_side=True)
    done: set[str] = set()
    for _ in range(10):
        for side, end in (("near", near), ("far", far)):
            try:
                end.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
    return done == {"near", "far"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cells", "0"], "give 1 to 64"),
        (["--cells", "65"], "give 1 to 64"),
        (["--port", "65533"], "end above 65535"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert run(["federation", "init", str(tmp_path / "x"), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert run(["federation", "up", str(tmp_path / "x")]) == 2
    assert "swarm federation init" in capsys.readouterr().err


def test_a_federation_is_up_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: a second `up`, or one whose ports are taken, ends before it touches anything."""
    made = federation.create(tmp_path / "farms", 2, port=0)

    def refused() -> str:
        assert run(["federation", "up", str(made.folder)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert not (made.folder / "logs").exists()
        return line

    with federation.held(made):
        assert "is up already" in refused()
    for port, kind in (
        (made.port, socket.SOCK_STREAM),
        (made.cells[0].udp_port, socket.SOCK_DGRAM),
        (made.cells[1].http_port, socket.SOCK_STREAM),
    ):
        with socket.socket(socket.AF_INET, kind) as other:
            other.bind(("127.0.0.1", port))
            if kind == socket.SOCK_STREAM:
                other.listen()
            assert f"port {port} is taken" in refused()
    with federation.held(made):  # let go of each time
        pass


# -- processes ----------------------------------------------------------------------------------------

PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("at_once", [False, True])
def test_children_end_with_all_that_they_started(tmp_path: Path, at_once: bool) -> None:
    with Processes(tmp_path / "logs", os.environ) as processes:
        processes.start("parent", [sys.executable, "-c", PARENT])
        grandchild = int(until(lambda: processes.log("parent").read_text().strip(), "the grandchild"))
        assert processes.ended() == [] and processes.code("parent") is None
        if at_once:
            processes.stop("parent", at_once=True)
    until(lambda: not running(grandchild), "the grandchild to end")


def running(process: int) -> bool:
    """Whether it is there and no zombie, for whose burial others are responsible."""
    found = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return bool(found) and not found.startswith("Z")


def idle(made: federation.Federation, monkeypatch: pytest.MonkeyPatch, processes: Processes) -> None:
    """A SuperLink and an app that say nothing and go on for ever."""
    forever = [sys.executable, "-c", "import time; time.sleep(600)"]
    monkeypatch.setattr(federation.Federation, "run", lambda self, **options: forever)
    processes.start("superlink", forever)
    for cell in made.cells:
        processes.start(f"{cell.folder.name}-supernode", forever)


def test_an_app_that_never_ends_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = federation.create(tmp_path / "farms", 2, port=0)
    with Processes(tmp_path / "logs", os.environ) as processes:
        idle(made, monkeypatch, processes)
        with pytest.raises(CommandError) as caught:
            run_app(made, processes, rounds=1, timeout_s=600.0, strategy="FedAvg", within_s=1.0)
        assert str(caught.value) == (
            f"{tmp_path}/logs/app.log: the app did not end within 1 s; all processes run: a slower radio"
            " needs more --timeout-s or --within-s"
        )
        assert sorted(processes.ended()) == [] and "app" not in processes._children


def test_dead_supernodes_are_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Goal: one that ends is told of, the last one ends the wait.  Method: both are killed beforehand."""
    made = federation.create(tmp_path / "farms", 2, port=0)
    with Processes(tmp_path / "logs", os.environ) as processes:
        idle(made, monkeypatch, processes)
        for cell in made.cells:
            os.killpg(processes._children[f"{cell.folder.name}-supernode"].pid, signal.SIGKILL)
        with pytest.raises(CommandError, match="has no SuperNode left; ended meanwhile: cell-1-supernode,"):
            run_app(made, processes, rounds=1, timeout_s=600.0, strategy="FedAvg")
    first, second = capsys.readouterr().err.splitlines()
    assert "cell-1-supernode has ended; the others go on" in first and "cell-2" in second
