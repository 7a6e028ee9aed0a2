"""`swarm federation`: several cells learn one model under Flower's SuperLink."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.commands.output import AsJson, CommandError, finite, show_json
from swarm.words import counted

if TYPE_CHECKING:
    from gateway.upstream.federation import CellSite, Federation
    from gateway.upstream.processes import Processes

__all__ = ["app", "run_app", "running"]

app = typer.Typer(help="Several cells, one model: Flower's SuperLink between gateways.", no_args_is_help=True)

START_MAX_S = 120.0
LOOK_S = 0.5
SCENARIO = "live_1000"
LOG_LINES = 5
BESIDE_ROUNDS_S = 1200.0
"""What the app may take beside its rounds: ten minutes until the cells are there, two questions to all."""
DONE = "cells take over the result"
"""What the federation's app logs at its end: `flwr run --stream` ends with 0 whatever became of the app."""

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The federation's folder.")]
Rounds = Annotated[int, typer.Option(min=1, max=10_000, help="Rounds between the cells.")]


@app.command()
def init(
    folder: Folder,
    cells: Annotated[int, typer.Option(help="How many gateways.")] = 2,
    host: Annotated[
        str, typer.Option(help="Name or address under which gateways reach the SuperLink.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The SuperLink's port (0: free ones).")] = 9300,
    speed: Annotated[
        float,
        typer.Option(
            min=0.1, max=100.0, callback=finite, help="Clock speed of the simulated cells on this machine."
        ),
    ] = 4.0,
) -> None:
    """Make certificates, keys, settings and the app of a federation.  Never overwrites.

    Example: swarm federation init farms
    """
    from gateway.upstream import federation

    try:
        made = federation.create(folder, cells, host=host, port=port, clock_speed=speed)
    except federation.FederationError as error:
        raise CommandError(str(error)) from error
    typer.echo(
        f"{folder}: a SuperLink at {made.address} and {counted(cells, 'cell')}; keys are valid for ten years"
    )
    typer.echo(f"  on this machine, with simulated nodes: `swarm federation up {folder}`")
    typer.echo("  on real gateways: docs/FEDERATION.md")


@app.command()
def up(
    folder: Folder,
    rounds: Rounds = 2,
    nodes: Annotated[int, typer.Option(min=2, max=1000, help="Simulated nodes of each cell.")] = 20,
    strategy: Annotated[str, typer.Option(help="A Flower strategy for the cells' models.")] = "FedAvg",
    timeout_s: Annotated[
        float,
        typer.Option(
            min=10,
            max=86_400 * 30,
            callback=finite,
            help="Seconds after which a silent cell is left out of a round.",
        ),
    ] = 600.0,
    within_s: Annotated[
        float | None,
        typer.Option(
            min=10,
            max=86_400 * 365,
            callback=finite,
            help="Seconds after which the app is given up; default: its rounds' and 20 minutes.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start everything on this machine: daemons, simulated nodes, SuperLink, SuperNodes; run rounds; stop.

    Example: swarm federation up farms --rounds 2
    """
    import signal

    from gateway.upstream import federation

    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: what was started has to be stopped
        signal.signal(number, signal.default_int_handler)
    try:
        with running(federation.read(folder), nodes, say=_say(as_json)) as (made, processes):
            run_app(made, processes, rounds=rounds, timeout_s=timeout_s, strategy=strategy, within_s=within_s)
            cells = [{"cell": cell.folder.name, **_model(cell)} for cell in made.cells]
    except federation.FederationError as error:
        raise CommandError(str(error)) from error
    if as_json:
        show_json({"rounds": rounds, "cells": cells})
    else:
        for each in cells:
            typer.echo(f"{each['cell']}: model version {each['version']}, the result goes out next")


@contextmanager
def running(
    made: Federation, nodes: int, *, say: Callable[[str], None] = typer.echo
) -> Iterator[tuple[Federation, Processes]]:
    """All processes of a federation on this machine, each ready before the next needs it; then stopped."""
    from gateway.upstream.federation import held
    from gateway.upstream.processes import Processes

    with held(made), Processes(made.folder / "logs", made.environment()) as processes:
        for cell in made.cells:
            processes.start(f"{cell.folder.name}-daemon", cell.daemon())
        for seed, cell in enumerate(made.cells, start=1):
            _await(processes, f"{cell.folder.name}-daemon", partial(_answers, cell))
            _provision(cell, nodes, seed)
            processes.start(f"{cell.folder.name}-nodes", _play(made, cell, nodes, seed))
            say(f"{cell.folder.name}: {nodes} simulated nodes; page {cell.url}")
        processes.start("superlink", made.superlink())
        _await(processes, "superlink", partial(_listens, made.host, made.port))
        for cell in made.cells:
            _register(made, cell)
            processes.start(f"{cell.folder.name}-supernode", made.supernode(cell))
        logs = made.folder / "logs"
        say(f"SuperLink at {made.address}, TLS, {len(made.cells)} registered SuperNodes; logs in {logs}")
        yield made, processes


def run_app(
    made: Federation,
    processes: Processes,
    *,
    rounds: int,
    timeout_s: float,
    strategy: str,
    within_s: float | None = None,
) -> None:
    """Submit the federation's app and wait for its end, `within_s` at most (None: what its rounds may take).

    Whatever of the cells ends meanwhile is told of on standard error; CommandError when nothing is left to
    wait for, and when the time is over.
    """
    log = processes.log("app")
    before = log.stat().st_size if log.exists() else 0
    given_s = rounds * timeout_s + BESIDE_ROUNDS_S if within_s is None else within_s
    until_s = time.monotonic() + given_s
    processes.start("app", made.run(rounds=rounds, timeout_s=timeout_s, strategy=strategy))
    told: set[str] = set()
    while (code := processes.code("app")) is None:
        time.sleep(LOOK_S)
        gone = set(processes.ended()) - {"app"}
        if "superlink" in gone:
            raise _ended(processes, "superlink")
        for name in sorted(gone - told):
            typer.echo(f"swarm: {processes.log(name)}: {name} has ended; the others go on", err=True)
        told |= gone
        supernodes = {f"{cell.folder.name}-supernode" for cell in made.cells}
        late = time.monotonic() >= until_s
        if late or supernodes <= gone:
            processes.stop("app")
            why = f"did not end within {given_s:.0f} s" if late else "has no SuperNode left"
            raise CommandError(f"{log}: the app {why}{_who_ended(gone)}")
    processes.stop("app")
    said = log.read_bytes()[before:].decode("utf-8", "replace")
    if code != 0 or DONE not in said:
        raise _ended(processes, "app")


def _who_ended(gone: set[str]) -> str:
    if not gone:
        return "; all processes run: a slower radio needs more --timeout-s or --within-s"
    return f"; ended meanwhile: {', '.join(sorted(gone))} (their logs lie beside it)"


def _provision(cell: CellSite, nodes: int, seed: int) -> None:
    """Tell the daemon of its simulated nodes."""
    from gateway.commands.client import Client
    from gateway.commands.node_files import read_nodes
    from gateway.commands.signing import bring_key
    from simulations import provisioning

    file = cell.folder / "nodes.json"
    provisioning.export(_scenario(nodes, seed), file)
    table = read_nodes(file)
    body = {"nodes": [node for _, node in table.nodes], "multicast": table.multicast}
    client = Client(cell.settings)
    if table.signing_seed is not None:
        bring_key(client, table.signing_seed, file)
    client.post("/api/nodes", body)


def _play(made: Federation, cell: CellSite, nodes: int, seed: int) -> list[str]:
    import sys

    address = f"127.0.0.1:{cell.udp_port}"
    options = ["--nodes", str(nodes), "--seed", str(seed), "--speed", str(made.clock_speed)]
    return [sys.executable, "-m", "gateway.cli", "sim", "live", SCENARIO, "--gateway", address, *options]


def _scenario(nodes: int, seed: int) -> Any:
    from simulations import scenario

    return scenario.load(SCENARIO).override(nodes=nodes, seed=seed)


def _register(made: Federation, cell: CellSite) -> None:
    import subprocess

    done = subprocess.run(
        made.register(cell), env=made.environment(), capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    if done.returncode != 0 and "already" not in said:
        raise CommandError(
            f"{cell.folder.name}: its key cannot be registered: {' '.join(said.split())[-300:]}"
        )


def _model(cell: CellSite) -> dict[str, Any]:
    from gateway.commands.client import Client

    model = Client(cell.settings).get("/api/model")
    return {key: model[key] for key in ("version", "digest", "waiting")}


def _answers(cell: CellSite) -> bool:
    import httpx

    try:
        return httpx.get(cell.url + "/healthz", timeout=2.0, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _listens(host: str, port: int) -> bool:
    import socket

    try:
        with socket.create_connection((host, port), timeout=2.0):
            return True
    except OSError:
        return False


def _await(processes: Processes, name: str, ready: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + START_MAX_S
    while not ready():
        if name in processes.ended():
            raise _ended(processes, name)
        if time.monotonic() > deadline_s:
            raise CommandError(f"{name} does not answer after {START_MAX_S:.0f} s; see {processes.log(name)}")
        time.sleep(LOOK_S)


def _ended(processes: Processes, name: str) -> CommandError:
    log = processes.log(name)
    last = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()][-LOG_LINES:]
    return CommandError(f"{log}: {name} ended before its time; its last lines:\n" + "\n".join(last))


def _say(as_json: bool) -> Callable[[str], None]:
    return (lambda _: None) if as_json else typer.echo
