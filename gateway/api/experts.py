"""Experts over HTTP: who holds which, who should, and bringing them there."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query
from pydantic import Field

from gateway.api import views
from gateway.api.bodies import HandOverIn
from gateway.api.daemon_like import DaemonLike
from swarm.commands import HandOver
from swarm.coordinator import Coordinator

__all__ = ["add_experts"]

Room = Annotated[int, Field(ge=1, le=16, description="experts that fit in a node")]
Replicas = Annotated[int, Field(ge=1, le=16, description="nodes that hold each expert, at least")]
Loss = Annotated[float, Field(ge=0, le=0.9, allow_inf_nan=False, description="share of frames lost")]
Chosen = Annotated[list[str] | None, Query(max_length=10_000, description="names or DevEUIs; without: all")]
Numbers = Annotated[
    list[Annotated[int, Field(ge=0, le=15)]], Query(max_length=16, description="numbers of experts")
]


def add_experts(api: APIRouter, daemon: DaemonLike) -> None:
    """The routes below /experts."""

    @api.get("/experts")
    async def experts() -> dict[str, Any]:
        """The experts of the gateway's model, which nodes said that they hold which, what is under way."""
        return views.experts(daemon.core)

    @api.get("/experts/plan")
    async def plan(room: Room = 2, replicas: Replicas = 2) -> dict[str, Any]:
        """Which node should hold which experts, with `room` in each and `replicas` of every one."""
        return views.placement(daemon.core, daemon.now_us(), room, replicas)

    @api.get("/experts/hand-over")
    async def would(
        room: Room = 2, replicas: Replicas = 2, node: Chosen = None, whole: bool = False, loss: Loss = 0.2
    ) -> dict[str, Any]:
        """What a hand-over would do and cost; nothing is sent."""
        what = HandOver(room, replicas, _dev_euis(daemon.core, node), whole, loss)
        return _steps(daemon.core, daemon.now_us(), what)

    @api.post("/experts/hand-over")
    async def begin(what: HandOverIn) -> dict[str, Any]:
        """Send what can go by air now; the answer says what was begun."""
        nodes = _dev_euis(daemon.core, what.nodes)
        command = HandOver(what.room, what.replicas, nodes, what.whole, what.loss)
        planned = _steps(daemon.core, daemon.now_us(), command)
        answer = await daemon.command(command)
        if answer is not None:
            raise HTTPException(409, answer.reason)
        return planned

    @api.get("/experts/container")
    async def container(expert: Numbers) -> dict[str, Any]:
        """The gateway's model with these experts alone, in base64, for a node's flash."""
        try:
            image = daemon.core.hand_overs.container(expert)
        except ValueError as error:
            raise HTTPException(409, str(error)) from None
        return {"size": len(image), "data": base64.b64encode(image).decode()}


def _dev_euis(core: Coordinator, said: Sequence[str] | None) -> tuple[str, ...] | None:
    if said is None:
        return None
    found = {each: core.registry.find(each) for each in said}
    for each, entry in found.items():
        if entry is None:
            raise HTTPException(409, f"no node is called {each}; `swarm nodes list` shows those there are")
    return tuple(dict.fromkeys(entry.record.dev_eui for entry in found.values() if entry is not None))


def _steps(core: Coordinator, now_us: int, what: HandOver) -> dict[str, Any]:
    steps = core.hand_overs.plan(now_us, what)
    rows = []
    for step in steps:
        entry = core.registry.get(step.dev_eui)
        row = asdict(step)
        row["descriptor"] = row.pop("name")
        rows.append({**row, "name": "" if entry is None else entry.record.name})
    return {"steps": rows, "airtime_us": sum(step.airtime_us for step in steps)}
