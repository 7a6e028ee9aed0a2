"""Strangers at the HTTP port: they hold no place, and fill no log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI, Request

from gateway import http_server
from gateway.http_server import HttpServer, OncePerMinute

WITHIN_S = 10
HALF = b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-a: "
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def application() -> FastAPI:
    app = FastAPI()

    @app.get("/healthz")
    async def healthz() -> str:
        return "ok"

    @app.post("/size")
    async def size(request: Request) -> int:
        return len(await request.body())

    return app


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[str, int]]:
    async with HttpServer(application(), "127.0.0.1", 0, lambda: None) as url:
        host, port = url.removeprefix("http://").split(":")
        yield host, int(port)


@contextlib.asynccontextmanager
async def strangers(address: tuple[str, int], count: int, said: bytes) -> AsyncIterator[list[Stream]]:
    streams: list[Stream] = []
    try:
        for _ in range(count):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(said)
            streams.append((reader, writer))
        yield streams
    finally:
        for _, writer in streams:
            writer.close()


async def closed(reader: asyncio.StreamReader) -> bool:
    """Whether the other side ends the connection; what it says before is thrown away."""
    with contextlib.suppress(ConnectionError):
        while await asyncio.wait_for(reader.read(65_536), WITHIN_S):
            pass
    return True


@pytest.mark.parametrize("said", [HALF, b"G", b"", b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"])
async def test_connections_that_wait_keep_nobody_out(said: bytes) -> None:
    """More of them than the server holds, from one address, and every honest request is answered at once."""
    async with serving() as address, strangers(address, http_server.CONNECTIONS_HELD + 20, said):
        for _ in range(5):
            async with httpx.AsyncClient(timeout=WITHIN_S) as client:
                answer = await client.get(f"http://127.0.0.1:{address[1]}/healthz")
                assert (answer.status_code, answer.json()) == (200, "ok")


@pytest.mark.parametrize(
    "said", [HALF, HALF.replace(b"x-a", b"x") + b"\r\n\r\n" + HALF, b"POST /size HTTP/1.1\r\nhost: x\r\n"]
)
async def test_a_head_has_to_be_whole_in_time(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    """Drop by drop does not help, nor does a whole request before it."""
    monkeypatch.setattr(http_server, "HEAD_S", 0.3)
    async with serving() as address, strangers(address, 1, said) as ((reader, writer),):
        ends = asyncio.create_task(closed(reader))
        for _ in range(200):
            writer.write(b"a")
            done, _ = await asyncio.wait((ends,), timeout=0.05)
            if done:
                break
        assert ends.done()


async def test_a_body_has_to_be_whole_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "BODY_S", 0.3)
    said = b"POST /size HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n{"
    async with serving() as address, strangers(address, 2, said) as ((lazy, _), (busy, writer)):
        writer.write(b"1234")
        assert (await asyncio.wait_for(busy.readuntil(b"\r\n\r\n"), WITHIN_S)).startswith(b"HTTP/1.1 200")
        assert await closed(lazy)


async def test_requests_in_turn_over_one_connection_are_all_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline is one request's, not the connection's."""
    monkeypatch.setattr(http_server, "HEAD_S", 0.2)
    async with serving() as address, httpx.AsyncClient(base_url=f"http://127.0.0.1:{address[1]}") as client:
        loop = asyncio.get_running_loop()
        end_s = loop.time() + 0.6
        count = 0
        while loop.time() < end_s or count < 10:
            assert (await client.post("/size", content=b"x" * 100_000)).json() == 100_000
            count += 1


async def test_what_strangers_provoke_is_said_once_a_minute() -> None:
    once = OncePerMinute()
    passed = []
    for second in range(0, 150, 10):
        for text in ("Exceeded concurrency limit.", "Invalid HTTP request received.", "something else"):
            record = logging.LogRecord("uvicorn.error", logging.WARNING, "", 0, text, (), None)
            record.created = float(second)
            if once.filter(record):
                passed.append(record.getMessage())
    assert len(passed) == 15 + 2 * 3
    assert all(line.startswith("HTTP: ") for line in passed if line != "something else")
    async with serving():
        for name in ("uvicorn.error", "asyncio"):
            assert [type(each) for each in logging.getLogger(name).filters].count(OncePerMinute) == 1
