"""The files of a federation of cells, and the commands that its processes are started with.

    DIR/federation.toml      addresses and ports; what `read` takes
    DIR/lock                 held by the `swarm federation up` that runs
    DIR/ca.crt               goes to every gateway
    DIR/superlink/           server.pem, server.key (0600), state.db: stays with the SuperLink
    DIR/flwr/config.toml     Flower's own settings (FLWR_HOME), for `flwr run` and `flwr supernode register`
    DIR/app/                 the federation as a Flower app (`gateway.upstream.server_app`, `client_app`)
    DIR/cell-N/              supernode.key (0600), supernode.pub, swarm.toml, the daemon's data: one gateway

Keys and tokens are files that processes are told the names of; none is ever an argument.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from gateway.upstream.certificates import make_node_key, make_tls

__all__ = ["CELLS_MAX", "CellSite", "Federation", "FederationError", "create", "held", "read"]

CELLS_MAX = 64
CONNECTION = "cells"
"""The name of the SuperLink in Flower's settings."""

_SWARM_TOML = """\
# A cell of a federation on one machine, with simulated nodes; a real gateway keeps its own swarm.toml.
[gateway]
data_dir = "data"
[udp]
host = "127.0.0.1"
port = {udp}
[http]
port = {http}
[nodes]
status_period_min = 1
[learning]
mode = "top_k_sign"
strategy = "FedAvg"
period_s = 60
spread_s = 30
close_s = 50
window_s = 10
quorum = 0.9
[multicast]
data_rate = 5
repeats = 1
[lab]
clock_speed = {speed}
"""


class FederationError(Exception):
    """The folder is no federation, or cannot become one; one line."""


@dataclass(frozen=True, slots=True)
class CellSite:
    """One gateway: its folder, its daemon's ports, and the port of its SuperNode's own apps."""

    folder: Path
    udp_port: int
    http_port: int
    runtime_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def settings(self) -> Path:
        return self.folder / "swarm.toml"

    @property
    def token_file(self) -> Path:
        return self.folder / "data" / "token"

    def daemon(self) -> list[str]:
        """The command of the gateway daemon."""
        return [sys.executable, "-m", "gateway.cli", "gateway", "run", "-c", str(self.settings)]


@dataclass(frozen=True, slots=True)
class Federation:
    """One SuperLink and its cells; all paths absolute."""

    folder: Path
    host: str
    port: int
    cells: tuple[CellSite, ...]
    clock_speed: float = 1.0

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def environment(self) -> dict[str, str]:
        """What Flower's programs need to be told: no reports, no update checks, this folder's settings."""
        return {
            **os.environ,
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_HOME": str(self.folder / "flwr"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }

    def superlink(self) -> list[str]:
        """The command of the SuperLink: TLS, and only registered SuperNodes."""
        own = self.folder / "superlink"
        return [
            _program("flower-superlink"),
            "--ssl-ca-certfile", str(self.folder / "ca.crt"),
            "--ssl-certfile", str(own / "server.pem"),
            "--ssl-keyfile", str(own / "server.key"),
            "--enable-supernode-auth",
            "--disable-runtime-dependency-installation",
            "--host", self.host,
            "--port", str(self.port),
            "--database", str(own / "state.db"),
        ]  # fmt: skip

    def supernode(self, cell: CellSite, key: Path | None = None) -> list[str]:
        """The command of a cell's SuperNode; `key` instead of its own."""
        return [
            _program("flower-supernode"),
            "--superlink", self.address,
            "--root-certificates", str(self.folder / "ca.crt"),
            "--auth-supernode-private-key", str(key or cell.folder / "supernode.key"),
            "--node-config", f'url="{cell.url}" token-file="{cell.token_file}"',
            "--host", "127.0.0.1",
            "--port", str(cell.runtime_port),
        ]  # fmt: skip

    def register(self, cell: CellSite) -> list[str]:
        """The command that lets a cell's key in."""
        public = str(cell.folder / "supernode.pub")
        return [_program("flwr"), "supernode", "register", public, CONNECTION, "--name", cell.folder.name]

    def run(self, *, rounds: int, timeout_s: float, strategy: str) -> list[str]:
        """The command that runs the federation's app and shows its log until it ends."""
        config = f'cells={len(self.cells)} rounds={rounds} timeout-s={timeout_s:.1f} strategy="{strategy}"'
        app = str(self.folder / "app")
        return [_program("flwr"), "run", app, CONNECTION, "--stream", "--run-config", config]


def create(
    folder: Path, cells: int, *, host: str = "127.0.0.1", port: int = 9300, clock_speed: float = 4.0
) -> Federation:
    """Make a folder with everything in it; never in one that holds something.

    `host` is where gateways reach the SuperLink (its certificate says so).  `port` 0 takes free ports, else
    they count from it.
    """
    if not 1 <= cells <= CELLS_MAX:
        raise FederationError(f"{cells} cells: give 1 to {CELLS_MAX}")
    if folder.exists() and any(folder.iterdir()):
        raise FederationError(f"{folder}: is there already and not empty; give another name")
    folder = folder.resolve()
    ports = _free_ports(1 + 3 * cells) if port == 0 else list(range(port, port + 1 + 3 * cells))
    if ports[-1] > 65_535:
        raise FederationError(
            f"port {port}: {len(ports)} ports from there on end above 65535; give a lower one"
        )
    for name in ("superlink", "flwr"):
        (folder / name).mkdir(parents=True, mode=0o700)
    names = dict.fromkeys([host, "127.0.0.1", "localhost"])
    make_tls(folder, list(names))
    for name in ("server.pem", "server.key"):
        (folder / name).rename(folder / "superlink" / name)
    sites = []
    for index in range(cells):
        site = CellSite(folder / f"cell-{index + 1}", *ports[1 + 3 * index : 4 + 3 * index])
        site.folder.mkdir(mode=0o700)
        make_node_key(site.folder)
        text = _SWARM_TOML.format(udp=site.udp_port, http=site.http_port, speed=clock_speed)
        site.settings.write_text(text, encoding="utf-8")
        sites.append(site)
    _copy_app(folder / "app")
    made = Federation(folder, host, ports[0], tuple(sites), clock_speed)
    _write_settings(made)
    return made


def read(folder: Path) -> Federation:
    """The federation that `create` made."""
    file = folder / "federation.toml"
    try:
        table = tomllib.loads(file.read_text("utf-8"))
        cells = tuple(
            CellSite(folder.resolve() / one["folder"], one["udp_port"], one["http_port"], one["runtime_port"])
            for one in table["cell"]
        )
        link = table["superlink"]
        return Federation(folder.resolve(), link["host"], link["port"], cells, table["clock_speed"])
    except OSError as error:
        raise FederationError(
            f"{file}: {error.strerror}; `swarm federation init {folder}` makes one"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise FederationError(f"{file}: is damaged ({error}); make a new one") from error


@contextmanager
def held(made: Federation) -> Iterator[None]:
    """The folder for this process alone, with its ports free; FederationError where either is not so.

    The system lets go of the lock when the process dies, however it dies.
    """
    with (made.folder / "lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FederationError(
                f"{made.folder}: is up already; end that `swarm federation up` first (Ctrl-C there)"
            ) from None
        for host, port, kind in _listening(made):
            if _is_taken(host, port, kind):
                raise FederationError(
                    f"{made.folder}: port {port} is taken; end what listens there, or make a federation with "
                    "other ports: `swarm federation init DIR --port N`"
                )
        yield


def _listening(made: Federation) -> Iterator[tuple[str, int, socket.SocketKind]]:
    """Where the federation's processes will listen."""
    yield made.host, made.port, socket.SOCK_STREAM
    for cell in made.cells:
        yield "127.0.0.1", cell.udp_port, socket.SOCK_DGRAM
        yield "127.0.0.1", cell.http_port, socket.SOCK_STREAM
        yield "127.0.0.1", cell.runtime_port, socket.SOCK_STREAM


def _is_taken(host: str, port: int, kind: socket.SocketKind) -> bool:
    """Whether somebody listens there; what else is wrong with an address its process will say."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:  # what lingers of a connection that is over is nobody
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False


def _write_settings(made: Federation) -> None:
    lines = [
        f"clock_speed = {made.clock_speed}",
        "[superlink]",
        f'host = "{made.host}"',
        f"port = {made.port}",
    ]
    for cell in made.cells:
        lines += ["[[cell]]", f'folder = "{cell.folder.name}"', f"udp_port = {cell.udp_port}"]
        lines += [f"http_port = {cell.http_port}", f"runtime_port = {cell.runtime_port}"]
    (made.folder / "federation.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    flower = [
        "[superlink]",
        f'default = "{CONNECTION}"',
        f"[superlink.{CONNECTION}]",
        f'address = "{made.address}"',
        f'root-certificates = "{made.folder / "ca.crt"}"',
    ]
    (made.folder / "flwr" / "config.toml").write_text("\n".join(flower) + "\n", encoding="utf-8")


def _copy_app(target: Path) -> None:
    with resources.as_file(resources.files("gateway.upstream") / "app") as source:
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens at now, for TCP and UDP alike."""
    probes = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _program(name: str) -> str:
    """Flower's programs stand beside this Python."""
    return str(Path(sys.executable).parent / name)
