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
IDLE_S = 5
"""A connection without a request, before the first or between two, is closed after this many seconds."""


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
        asyncio_log = logging.getLogger("asyncio")
        if not any(isinstance(each, OncePerMinute) for each in asyncio_log.filters):
            asyncio_log.addFilter(OncePerMinute())
        settings = uvicorn.Config(
            self._app,
            http=_protocol(),
            ws="none",
            log_level="warning",
            access_log=False,
            backlog=64,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=GRACE_S,
        )
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


class OncePerMinute(logging.Filter):
    """Lets one "too many open files" of asyncio's listeners through a minute, on one line."""

    def __init__(self) -> None:
        super().__init__()
        self._next_s = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        if "out of system resource" not in record.getMessage():
            return True
        if record.created < self._next_s:
            return False
        self._next_s = record.created + 60
        record.msg, record.args, record.exc_info = "HTTP: too many open files; raise LimitNOFILE", (), None
        return True


def _raise_file_limit() -> None:
    """As many files as this process may have: connections that idle must not starve radio and disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _protocol() -> type[asyncio.Protocol]:
    """Uvicorn's own, except that a connection has to send a request soon, and that there is a last one."""
    from uvicorn.protocols.http.auto import AutoHTTPProtocol  # noqa: PLC0415

    base: Any = AutoHTTPProtocol

    class Bounded(base):  # type: ignore[misc]
        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            if len(self.connections) > CONNECTIONS_HELD:
                transport.abort()
                return
            self.timeout_keep_alive_task = self.loop.call_later(IDLE_S, self.timeout_keep_alive_handler)

        def connection_lost(self, exc: Exception | None) -> None:
            if self.timeout_keep_alive_task is not None:
                self.timeout_keep_alive_task.cancel()
            super().connection_lost(exc)

    return Bounded
