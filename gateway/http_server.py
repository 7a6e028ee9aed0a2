"""Uvicorn inside the daemon's event loop: it neither takes the signals nor ends the process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["HttpServer"]

GRACE_S = 1
"""Event streams never end by themselves; open ones are cut after this many seconds."""


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
        settings = uvicorn.Config(
            self._app, ws="none", log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_S
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
    except OSError as error:
        listener.close()
        raise OSError(
            error.errno, f"HTTP {host}:{port}: {error.strerror or error}; set [http] host and port"
        ) from error
    return listener
