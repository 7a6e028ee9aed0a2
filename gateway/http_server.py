"""Uvicorn inside the daemon's event loop: it neither takes the signals nor ends the process."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import resource
import socket
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["HttpServer"]

GRACE_S = 1
"""Event streams never end by themselves; open ones are cut after this many seconds."""
CONNECTIONS_MAX = 400
"""Requests beyond this many connections are answered 503."""
CONNECTIONS_HELD = 500
"""Connections beyond this many are closed at once: files are left for the radio and the disk."""
BACKLOG = 64
IDLE_S = 5
"""A connection is closed after this many seconds between two requests."""
HEAD_S = 10.0
"""The head of a request has to be whole so many seconds after its connection or its first byte."""
BODY_S = 60.0
"""And its body so many seconds after the head."""
WAITING_MAX = 128
"""Connections without a whole request, or between two: where there are more, the oldest is closed."""
WAITING_PER_ADDRESS = 64


class HttpServer:
    """`async with HttpServer(...) as url:` serves until the block ends; `on_end` if it stops by itself."""

    def __init__(self, app: FastAPI, host: str, port: int, on_end: Callable[[], None]) -> None:
        self._app, self._host, self._port, self._on_end = app, host, port, on_end
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> str:
        import uvicorn  # noqa: PLC0415  # only where HTTP is switched on

        class Server(uvicorn.Server):
            @contextlib.contextmanager
            def capture_signals(self) -> Iterator[None]:
                """The daemon's own handlers stop both."""
                yield

        listener = _listen(self._host, self._port)
        _raise_file_limit()
        settings = uvicorn.Config(
            self._app,
            http=_protocol(),
            ws="none",
            log_level="warning",
            access_log=False,
            backlog=BACKLOG,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=GRACE_S,
        )
        for each in (logging.getLogger("asyncio"), logging.getLogger("uvicorn.error")):
            if not any(isinstance(known, OncePerMinute) for known in each.filters):
                each.addFilter(OncePerMinute())
        self._server = Server(settings)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="http")
        self._task.add_done_callback(lambda _: self._on_end())
        host, port = listener.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._server.should_exit = True
        await self._task


def _listen(host: str, port: int) -> socket.socket:
    """Bound here and not by uvicorn, which ends the process when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)  # from now on: uvicorn does it too, but only when it has started
    except (UnicodeError, TypeError) as error:  # a label of more than 63 letters
        listener.close()
        what = f"HTTP {host!r}: is no host name or address; set [http] host and port"
        raise OSError(errno.EINVAL, what) from error
    except OSError as error:
        listener.close()
        raise OSError(
            error.errno, f"HTTP {host}:{port}: {error.strerror or error}; set [http] host and port"
        ) from error
    return listener


_PROVOKED = {
    "out of system resource": "HTTP: too many open files; raise LimitNOFILE",
    "Exceeded concurrency limit": f"HTTP: more than {CONNECTIONS_MAX} connections; requests are refused",
    "Invalid HTTP request": "HTTP: a request that is none was refused",
    "Unsupported upgrade request": "HTTP: a request to upgrade was ignored",
    "No supported WebSocket library": "HTTP: a request for a WebSocket was ignored",
}
"""What strangers can make the servers below say, by a part of it, and how it is said here."""


class OncePerMinute(logging.Filter):
    """Lets each of the `_PROVOKED` lines through once a minute, as one line."""

    def __init__(self) -> None:
        super().__init__()
        self._next_s: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        for part, said in _PROVOKED.items():
            if part in message:
                if record.created < self._next_s.get(part, float("-inf")):
                    return False
                self._next_s[part] = record.created + 60
                record.msg, record.args, record.exc_info = said, (), None
        return True


def _raise_file_limit() -> None:
    """As many files as this process may have: connections that idle must not starve radio and disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Waiting:
    """The connections that nothing is being done for, oldest first; those too many are closed."""

    def __init__(self) -> None:
        self._since: dict[Any, str] = {}

    def add(self, connection: Any) -> None:
        address = connection.client[0] if connection.client else ""
        self._since[connection] = address
        same = [each for each, where in self._since.items() if where == address]
        if len(same) > WAITING_PER_ADDRESS:
            self._close(same[0])
        if len(self._since) > WAITING_MAX:
            self._close(next(iter(self._since)))

    def remove(self, connection: Any) -> None:
        self._since.pop(connection, None)

    def _close(self, connection: Any) -> None:
        self.remove(connection)
        connection.transport.abort()


def _protocol() -> type[asyncio.Protocol]:
    """Uvicorn's own, except that a request has to be whole soon, and that there is a last connection.

    Whatever the parser, `cycle` is the request whose head came last, and `more_body` whether it is not whole.
    """
    from uvicorn.protocols.http.auto import AutoHTTPProtocol  # noqa: PLC0415

    base: Any = AutoHTTPProtocol
    waiting = _Waiting()

    class Bounded(base):  # type: ignore[misc]
        deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            if len(self.connections) > CONNECTIONS_HELD:
                transport.abort()
                return
            self._wait(HEAD_S)

        def data_received(self, data: bytes) -> None:
            before = self.cycle
            head = before is None or not before.more_body
            super().data_received(data)
            if self.transport.is_closing():
                return
            if self.cycle is before and head:
                if self.deadline is None:
                    self._wait(HEAD_S)
            elif not self.cycle.more_body:
                self._go_on()
            elif self.cycle is not before:
                self._wait(BODY_S)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.cycle.response_complete and not self.transport.is_closing():
                waiting.add(self)  # uvicorn itself ends it after IDLE_S

        def connection_lost(self, exc: Exception | None) -> None:
            self._go_on()
            super().connection_lost(exc)

        def _wait(self, limit_s: float) -> None:
            self._go_on()
            self.deadline = self.loop.call_later(limit_s, self.transport.abort)
            waiting.add(self)

        def _go_on(self) -> None:
            waiting.remove(self)
            if self.deadline is not None:
                self.deadline.cancel()
                self.deadline = None

    return Bounded
