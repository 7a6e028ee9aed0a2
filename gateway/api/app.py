"""HTTP over the running daemon: JSON below /api, its description at /docs, the page at /.

Everything below /api needs the bearer token that the daemon made at its first start; the page itself is
public and holds nothing (`gateway.api.border`).  The stream /api/events is server-sent events; a reader that
is too slow loses the oldest events, never the daemon's time.  The daemon's last event, `stopping`, ends it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, MutableMapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles
from pydantic import Field

from gateway.api import views
from gateway.api.advice import advice
from gateway.api.blocks import add_blocks
from gateway.api.bodies import AskIn, ModelIn, RollBackIn, mistakes
from gateway.api.border import Border
from gateway.api.daemon_like import DaemonLike
from gateway.api.experts import add_experts
from gateway.api.nodes import add_nodes
from gateway.daemon import Asked, SubscribersFull
from swarm.commands import OpenRound, RollBack
from swarm.registry import Refused

__all__ = ["create_app"]

PAGE_SUFFIXES = frozenset({"", ".html", ".js", ".css", ".svg"})
WEB = Path(__file__).resolve().parent.parent / "web"
PAST_MAX = 1_000
PING_S = 15.0
GONE_S = 5.0
"""How often a question that waits for its answer looks whether its asker is still there."""
LATE_US = 30_000_000
"""An answer that is so far behind its deadline will not come any more."""
LAST_EVENT = "stopping"

Kind = Annotated[str, Field(pattern=r"^[a-z_]{1,40}$", description="only events of this kind")]
RoundNumber = Annotated[int, Field(ge=0, le=65_535, description="a round's number")]
Limit = Annotated[int, Field(ge=1, le=PAST_MAX)]
Sequence64 = Annotated[int, Field(ge=0, le=2**63 - 1, description="only events behind this sequence number")]


def create_app(daemon: DaemonLike, web: Path = WEB) -> FastAPI:
    """The application around one running daemon; it shares the daemon's event loop; `web`: the page."""
    app = FastAPI(
        title="LoRa swarm gateway",
        version="1",
        description=__doc__ or "",
        docs_url=None,  # FastAPI's pages load their scripts from a CDN; ours is gateway/web/docs.html
        redoc_url=None,
    )
    app.add_middleware(Border, token=daemon.token)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"detail": mistakes(error.errors())}, 422)

    @app.exception_handler(SubscribersFull)
    async def full(_: Request, error: SubscribersFull) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 503)

    # The border has judged the token; this tells the description of the API that one is needed.
    bearer = HTTPBearer(auto_error=False, description="the file `token` in the data directory")
    api = APIRouter(prefix="/api", dependencies=[Depends(bearer)])
    _cell(api, daemon)
    _events(api, daemon)
    add_nodes(api, daemon)
    _learning(api, daemon)
    _asking(api, daemon)
    add_experts(api, daemon)
    add_blocks(api, daemon)
    app.include_router(api)

    _public(app, web)
    return app


def _public(app: FastAPI, web: Path) -> None:
    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the daemon's loop turns; the one answer that needs no token."""
        return {"status": "ok"}

    @app.get("/vendor", include_in_schema=False)
    async def vendor() -> dict[str, list[str]]:
        """Which libraries the page may load: they are fetched at set-up, or are not there."""
        return {"files": sorted(path.name for path in (web / "vendor").glob("*.*s"))}

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(web / "docs.html")

    app.mount("/", Page(directory=web, html=True), name="page")


class Page(StaticFiles):
    """The files that a browser needs, and none of those that fetch and test them."""

    async def get_response(self, path: str, scope: MutableMapping[str, Any]) -> Response:
        if Path(path).suffix not in PAGE_SUFFIXES:
            raise HTTPException(404)
        return await super().get_response(path, scope)


def _cell(api: APIRouter, daemon: DaemonLike) -> None:
    core = daemon.core

    @api.get("/state")
    async def state() -> dict[str, Any]:
        """The whole cell on one screen."""
        return views.state(core, daemon.now_us(), daemon.radio_counters)

    @api.get("/airtime")
    async def airtime() -> dict[str, Any]:
        """The past hour of each gateway and sub-band, by purpose, against the legal limit."""
        return {"gateways": views.airtime(core, daemon.now_us())}


def _events(api: APIRouter, daemon: DaemonLike) -> None:
    @api.get("/events", response_class=StreamingResponse)
    async def events() -> StreamingResponse:
        """Server-sent events from now on: uplink, downlink, dropped, status, round_opened, update, ..."""
        with daemon.subscribe():
            pass  # a refusal has to come before the answer has begun
        return StreamingResponse(
            _stream(daemon), media_type="text/event-stream", headers={"cache-control": "no-store"}
        )

    @api.get("/events/past")
    async def past(
        kind: Kind | None = None, after: Sequence64 | None = None, limit: Limit = 100
    ) -> dict[str, Any]:
        """The latest events from the log on the disk, oldest first; or the first ones behind `after`."""
        return {"events": _past(daemon, kind=kind, after=after, limit=limit)}


def _learning(api: APIRouter, daemon: DaemonLike) -> None:
    @api.get("/rounds")
    async def rounds() -> dict[str, Any]:
        """The last rounds, oldest first; the open one, if any, is the last."""
        return {"rounds": views.rounds(daemon.core)}

    @api.post("/rounds")
    async def open_round() -> dict[str, Any]:
        """Open the next round now."""
        answer = await daemon.command(OpenRound())
        if answer is not None:
            raise HTTPException(409, answer.reason)
        return {"round": daemon.core.rounds.last_round}

    @api.get("/advice")
    async def advise() -> dict[str, Any]:
        """What each learning mode would cost this fleet, what it may win, and which one to take."""
        return advice(daemon.core)

    @api.post("/rounds/rollback")
    async def roll_back(what: RollBackIn) -> dict[str, Any]:
        """Return to an earlier version with the next window; answers with the round that will carry it."""
        answer = await daemon.command(RollBack(what.to_version))
        if answer is not None:
            raise HTTPException(409, answer.reason)
        return {"round": daemon.core.rounds.next_number()}

    @api.get("/rounds/{number}/gathered")
    async def gathered(number: RoundNumber) -> dict[str, Any]:
        """The updates of a round that was claimed with its model: null until it is closed, and when it is
        forgotten (the round after it has closed)."""
        return {"gathered": views.gathered(daemon.core, number)}

    @api.get("/model")
    async def model() -> dict[str, Any]:
        """The vector behind the nodes' parameters: float64, real units, adapter then heads."""
        return views.model(daemon.core)

    @api.post("/model")
    async def hand_in(what: ModelIn) -> dict[str, Any]:
        """Let the next window take up a model made elsewhere; answers with the round that will carry it."""
        number = await daemon.hand_in(what.command())
        if isinstance(number, Refused):
            raise HTTPException(409, number.reason)
        return {"round": number}


def _asking(api: APIRouter, daemon: DaemonLike) -> None:
    @api.get("/queries/last")
    async def last() -> dict[str, Any]:
        """The answer that was given last, or null."""
        found = _past(daemon, kind="query_answered", limit=1)
        return {"query": {"at_us": found[0]["at_us"], **found[0]["data"]} if found else None}

    @api.post("/ask")
    async def ask(question: AskIn, request: Request) -> dict[str, Any]:
        """Ask, and wait for the answer (at most the deadline, which starts when the question is taken)."""
        try:
            query = daemon.core.asking.question(**question.question())
            deadline_s = query.deadline_s or daemon.core.config.asking.deadline_s
            until_us = daemon.now_us() + deadline_s * 1_000_000 + LATE_US
            asked = await daemon.ask(query)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        if isinstance(asked, Refused):
            raise HTTPException(503, asked.reason)
        return views.answer(daemon.core, await _answer(daemon, asked, until_us, request))


async def _answer(daemon: DaemonLike, asked: Asked, until_us: int, request: Request) -> dict[str, Any]:
    """The answer to this question; the asker may go, the daemon may stop or be too busy."""
    while not asked.answer.done():
        await asyncio.wait((asked.answer,), timeout=GONE_S)
        if await request.is_disconnected():
            asked.answer.cancel()
            raise HTTPException(499, "nobody waits for this answer any more")
        if daemon.now_us() > until_us:
            asked.answer.cancel()
            raise HTTPException(504, "the gateway is too busy to answer in time; ask again later")
    what = asked.answer.result()
    if what.kind == LAST_EVENT:
        raise HTTPException(503, "the daemon stops; the question is put again when it runs")
    if what.kind == "query_refused":
        raise HTTPException(409, str(what.data["reason"]))
    return dict(what.data)


async def _stream(daemon: DaemonLike) -> AsyncIterator[str]:
    try:
        with daemon.subscribe() as queue:
            while True:
                try:
                    what = await asyncio.wait_for(queue.get(), PING_S)
                except TimeoutError:
                    yield ": ping\n\n"
                    continue
                yield f"event: {what.kind}\ndata: {json.dumps(views.event(what), default=str)}\n\n"
                if what.kind == LAST_EVENT:
                    return
    except SubscribersFull as error:
        yield f": {error}\n\n"


def _past(daemon: DaemonLike, **which: Any) -> list[dict[str, Any]]:
    return [
        {"sequence": logged.sequence, **views.event(logged.event)} for logged in daemon.past_events(**which)
    ]
