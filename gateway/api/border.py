"""What every request passes before a route sees it: token and size; and the headers of every answer.

Theory of operation.  An ASGI middleware, so that streams are not buffered.  A path below /api needs the
bearer token (compared in constant time) before a single byte of the body is read; a body has to say its
length, at most `BODY_MAX`, and is cut there even when it lies.  A refusal closes the connection: what the
sender still has in flight is not read.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = ["BODY_MAX", "Border"]

BODY_MAX = 4_000_000
NOT_ALLOWED = "a bearer token is needed: it is in the file `token` of the daemon's data directory"
# The page brings everything along: a script, style or picture from elsewhere is an attack or a mistake.
POLICY = (
    "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


class Border:
    """The application behind it is reached by requests that may come in."""

    def __init__(self, application: Asgi, token: str) -> None:
        self._application = application
        self._expected = b"Bearer " + token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        headers = dict(scope["headers"])
        refusal = self._refusal(scope["path"], headers)
        if refusal is not None:
            await _refuse(send, *refusal)
            return

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                cache = [(b"cache-control", b"no-cache")] if b"cache-control" not in present else []
                message["headers"] = [*message["headers"], *HEADERS, *cache]
            await send(message)

        await self._application(scope, _cut(receive), dressed)

    def _refusal(self, path: str, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        if path.startswith("/api/"):
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, self._expected):
                return 401, NOT_ALLOWED
        if b"transfer-encoding" in headers:
            return 411, "send the body in one piece, with its content-length"
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 12 or int(length) > BODY_MAX:
            return 413, f"the body is too large: {BODY_MAX} bytes at most; send the nodes in several requests"
        return None


def _cut(receive: Receive) -> Receive:
    """A body that is longer than it said ends at the limit, as if the sender had gone."""
    left = BODY_MAX

    async def bounded() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        return message if left >= 0 else {"type": "http.disconnect"}

    return bounded


async def _refuse(send: Send, status: int, detail: str) -> None:
    body = json.dumps({"detail": detail}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *HEADERS,
    ]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
