"""The websocket port of Basics Stations: lets them in, hands each text on, and sends; nothing else.

Theory of operation.  `/router-info` answers one question and is closed by the station; `/router/EUI` is a
station's standing connection.  Each has a queue of texts to send and a task that empties it, so that a slow
station holds nobody up; one that does not take its texts is closed.  One that sends faster than the daemon
reads waits with `WAITING_MAX` texts, and takes no room from others.  Who does not speak within `QUESTION_S`
of connecting is closed; later, pings find out within two minutes that a station has gone without a word.

Without TLS and a token anybody who reaches the port may call himself a gateway, as with the packet
forwarder; with a token only who knows it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hmac
import logging
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from gateway.radios import lns
from gateway.radios.basics_station import Connection
from gateway.secret_files import AccessError, load_certificate, read_secret, unusable

if TYPE_CHECKING:
    from websockets.asyncio.server import Server, ServerConnection
    from websockets.http11 import Request, Response

__all__ = ["StationAccess", "StationServer", "read_station_access"]

CONNECTIONS_MAX = 512
UNSENT_MAX = 256
WAITING_MAX = 16
"""Texts of one connection that the daemon has still to read."""
HANDSHAKE_S = 10
QUESTION_S = 10
PING_S, PONG_S = 30, 60
GRACE_S = 1

_ROUTER = re.compile(r"/router/([0-9a-f]{16})")
_HOST = re.compile(r"[A-Za-z0-9.-]{1,80}|\[[0-9A-Fa-f:.]{2,45}\]")
_HOST_AND_PORT = re.compile(rf"({_HOST.pattern}):([0-9]{{1,5}})")

log = logging.getLogger("swarm.stations")

Deliver = Callable[[bytes, Connection, Callable[[], None]], None]
"""A text, where it came from, and what to call when it was read."""


@dataclass(frozen=True, slots=True)
class StationAccess:
    """Read once, at the start; without a token and TLS everybody may connect, unencrypted."""

    token: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None


def read_station_access(
    *, token_file: str = "", cert_file: str = "", key_file: str = "", ca_file: str = ""
) -> StationAccess:
    """Token and TLS context that `[stations]` names; with `ca_file` stations need a certificate from there.

    AccessError when a file is no use.
    """
    token = read_secret("stations.token_file", Path(token_file)) if token_file else None
    if not cert_file:
        return StationAccess(token)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    load_certificate(context, "stations", cert_file, key_file)
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except ssl.SSLError:
            raise AccessError(f"stations.ca_file: {ca_file}: holds no certificate in PEM") from None
        except OSError as error:
            raise unusable("stations.ca_file", Path(ca_file), error) from None
        context.verify_mode = ssl.CERT_REQUIRED
    return StationAccess(token, context)


@dataclass(slots=True)
class _Open:
    socket: ServerConnection
    unsent: asyncio.Queue[bytes]
    room: asyncio.Semaphore


class StationServer:
    """`async with StationServer(...) as server:` serves until the block ends.

    `counters` (those of `BasicsStations`) count who is turned away.  `deliver` gets every text with its
    connection, and an empty one when the connection has ended.
    """

    def __init__(self, host: str, port: int, access: StationAccess, counters: dict[str, int]) -> None:
        self._host, self._port, self._access, self._counters = host, port, access, counters
        self.deliver: Deliver = lambda text, connection, read: read()
        self._open: dict[Connection, _Open] = {}
        self._number = 0
        self._asking = 0
        self._ending = False
        self._server: Server | None = None
        self.address: tuple[str, int] | None = None

    async def __aenter__(self) -> StationServer:
        from websockets.asyncio.server import serve  # noqa: PLC0415  # only where stations are let in

        # Strangers make the library speak of handshakes that failed; that is counted, not logged.
        quiet = logging.getLogger("swarm.stations.websocket")
        quiet.setLevel(logging.CRITICAL)
        try:
            self._server = await serve(
                self._serve,
                self._host,
                self._port,
                process_request=self._judge,
                ssl=self._access.tls,
                compression=None,
                open_timeout=HANDSHAKE_S,
                close_timeout=GRACE_S,
                ping_interval=PING_S,
                ping_timeout=PONG_S,
                max_size=lns.TEXT_SIZE_MAX,
                max_queue=16,
                logger=quiet,
            )
        except (UnicodeError, TypeError) as error:  # a label of more than 63 letters
            what = f"stations {self._host!r}: is no host name or address; set [stations] host and port"
            raise OSError(errno.EINVAL, what) from error
        except OSError as error:
            why = error.strerror or error
            what = f"stations {self._host}:{self._port}: {why}; set [stations] host and port"
            raise OSError(error.errno, what) from error
        name = next(iter(self._server.sockets)).getsockname()
        self.address = (name[0], name[1])
        log.info("Basics Stations: %s://%s:%d", self._scheme(), *self.address)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._ending = True
        for there in self._open.values():
            there.room.release()  # nobody reads any more what waits
        self._server.close()
        await self._server.wait_closed()

    def send(self, text: bytes, connection: Connection) -> None:
        """Send a text; an empty one closes the connection, and so does a queue that is full."""
        there = self._open.get(connection)
        if there is None:
            return
        try:
            there.unsent.put_nowait(text)
        except asyncio.QueueFull:
            log.warning("station %s takes nothing: its connection is closed", connection.gateway_id)
            there.socket.transport.abort()

    def _scheme(self) -> str:
        return "wss" if self._access.tls is not None else "ws"

    # -- a connection -----------------------------------------------------------------------------

    def _judge(self, socket: ServerConnection, request: Request) -> Response | None:
        """Whether a request may become a websocket."""
        path = request.path
        if path != "/router-info" and _ROUTER.fullmatch(path) is None:
            return self._refuse(socket, HTTPStatus.NOT_FOUND, "path", "stations ask /router-info")
        token = self._access.token
        if token is not None:
            given = [value.encode() for value in request.headers.get_all("Authorization")]
            expected = (f"Bearer {token}".encode(), token.encode())
            if len(given) != 1 or not any(hmac.compare_digest(given[0], each) for each in expected):
                what = "the station's tc.key should hold the line `Authorization: Bearer TOKEN`"
                return self._refuse(socket, HTTPStatus.UNAUTHORIZED, "unauthorized", what)
        if len(self._open) + self._asking >= CONNECTIONS_MAX:
            what = "too many stations"
            return self._refuse(socket, HTTPStatus.SERVICE_UNAVAILABLE, "too_many_connections", what)
        return None

    def _refuse(self, socket: ServerConnection, status: HTTPStatus, counter: str, what: str) -> Response:
        self._counters[counter] += 1
        return socket.respond(status, what + "\n")

    async def _serve(self, socket: ServerConnection) -> None:
        from websockets.exceptions import ConnectionClosed  # noqa: PLC0415

        assert socket.request is not None
        match = _ROUTER.fullmatch(socket.request.path)
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            if match is None:
                await self._discover(socket)
            else:
                await self._converse(socket, match[1])

    async def _discover(self, socket: ServerConnection) -> None:
        self._asking += 1
        try:
            async with asyncio.timeout(QUESTION_S):
                question = _bytes(await socket.recv())
                answer, eui = lns.discovery(question, self._base_uri(socket))
                await socket.send(answer.decode("ascii"))
                if eui is None:
                    log.warning("a station asks the way and names no EUI: %.60r", question)
                await socket.wait_closed()
        finally:
            self._asking -= 1

    async def _converse(self, socket: ServerConnection, eui: str) -> None:
        self._number += 1
        connection = Connection(self._number, eui)
        room = asyncio.Semaphore(WAITING_MAX)
        there = self._open[connection] = _Open(socket, asyncio.Queue(UNSENT_MAX), room)
        writing = asyncio.create_task(self._write(there), name=f"station-{eui}")
        try:
            async with asyncio.timeout(QUESTION_S):
                text = await socket.recv()
            while await room.acquire() and not self._ending:
                self.deliver(_bytes(text) or b" ", connection, room.release)
                text = await socket.recv()
        finally:
            del self._open[connection]
            self.deliver(b"", connection, room.release)
            writing.cancel()

    async def _write(self, there: _Open) -> None:
        from websockets.exceptions import ConnectionClosed  # noqa: PLC0415

        with contextlib.suppress(ConnectionClosed):
            while text := await there.unsent.get():
                await there.socket.send(text.decode("ascii"))
            await there.socket.close()

    def _base_uri(self, socket: ServerConnection) -> str:
        """Where the station reached us: it goes on to the same host and port, perhaps through a proxy."""
        assert socket.request is not None
        headers = socket.request.headers
        forwarded = headers.get_all("X-Forwarded-Proto") == ["https"]
        scheme = "wss" if forwarded else self._scheme()
        host = next(iter(headers.get_all("Host")), "")
        if _HOST_AND_PORT.fullmatch(host):
            return f"{scheme}://{host}"
        if _HOST.fullmatch(host):
            return f"{scheme}://{host}:{443 if scheme == 'wss' else 80}"
        name = socket.local_address
        return f"{scheme}://{name[0]}:{name[1]}"


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
