"""Nodes over HTTP: who there is, who comes and goes, and what nodes are told by hand."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path

from gateway.api import views
from gateway.api.bodies import Eui, FrameIn, ImportIn, LabelIn
from gateway.api.daemon_like import DaemonLike
from gateway.data_dir import DataDirError
from swarm.commands import AddNode, CancelFrame, RemoveNode, TellLabel
from swarm.coordinator import Coordinator
from swarm.registry import NODES_MAX, Refused
from swarm.words import counted

__all__ = ["add_nodes"]

IN_ONE_TURN = 200
"""Commands that the daemon gets together: they share a transaction, and the radio is not kept waiting."""
FULL = f"a cell holds at most {NODES_MAX} nodes"

log = logging.getLogger("swarm.gateway")


def add_nodes(api: APIRouter, daemon: DaemonLike) -> None:
    """The routes below /nodes, and /signing-key."""
    core = daemon.core
    _add_words(api, daemon)

    @api.get("/nodes")
    async def nodes() -> dict[str, Any]:
        """All nodes with what was last heard of each."""
        return {"nodes": views.nodes(core)}

    @api.get("/nodes/{dev_eui}")
    async def node(dev_eui: Eui) -> dict[str, Any]:
        """One node."""
        entry = core.registry.get(dev_eui.lower())
        if entry is None:
            raise HTTPException(404, f"no node has the DevEUI {dev_eui.lower()}")
        return views.nodes(core, [entry])[0]

    @api.post("/nodes")
    async def import_nodes(what: ImportIn) -> dict[str, Any]:
        """Register nodes (again): idempotent, each refusal named; keys keep their counters for ever, and a
        group is replaced only if all nodes that come with it are taken."""
        if what.check:
            return {"refused": _would_be_refused(core, [each.command() for each in what.nodes])}
        return await _import(daemon, what)

    @api.post("/signing-key")
    async def take_signing_key() -> dict[str, Any]:
        """Sign with the key that lies in the data directory now; says its public half."""
        try:
            return {"signing_key": await daemon.take_signing_key()}
        except DataDirError as error:
            raise HTTPException(409, str(error)) from None

    @api.delete("/nodes/{dev_eui}")
    async def remove(dev_eui: Eui) -> dict[str, Any]:
        """Forget a node and its keys."""
        answer = await daemon.command(RemoveNode(dev_eui.lower()))
        if answer is not None:
            raise HTTPException(404, answer.reason)
        return {"removed": dev_eui.lower()}


async def _import(daemon: DaemonLike, what: ImportIn) -> dict[str, Any]:
    core = daemon.core
    commands = [each.command() for each in what.nodes]
    group = None if what.multicast is None else what.multicast.command()
    is_whole = group is not None and group.replace
    part = len(commands) + 1 if is_whole else IN_ONE_TURN
    before = core.downlinks.group
    refused, unchanged, changed = list[dict[str, Any]](), 0, 0
    for start in range(0, max(len(commands), 1), part):
        batch = commands[start : start + part]
        same = [core.registry.unchanged(command) for command in batch]
        known = [core.registry.get(command.dev_eui) is not None for command in batch]
        answers = await daemon.together(
            batch,
            first=group if start == 0 else None,
            unless=partial(_first_refusal, core, commands if is_whole else []),
        )
        if isinstance(answers, Refused):  # the group, or the daemon stops: no node of this part
            if start == 0:
                raise HTTPException(409, answers.reason)
            answers = [answers] * len(batch)
        for row, answer in enumerate(answers):
            if answer is not None:
                who = {"row": start + row, "dev_eui": batch[row].dev_eui}
                refused.append({**who, "reason": answer.reason})
            else:
                unchanged += same[row]
                changed += known[row] and not same[row]
    added = len(what.nodes) - len(refused) - unchanged - changed
    news = None if group is None else "unchanged" if core.downlinks.group is before else "set"
    log.info("import: %s added, %d changed, %d refused", counted(added, "node"), changed, len(refused))
    return {
        "added": added, "changed": changed, "unchanged": unchanged, "refused": refused, "multicast": news
    }  # fmt: skip


def _first_refusal(core: Coordinator, commands: list[AddNode]) -> Refused | None:
    """Why these nodes cannot all be added; None: they can."""
    for each in _would_be_refused(core, commands):
        return Refused(f"nothing was changed: {each['dev_eui']}: {each['reason']}")
    return None


def _would_be_refused(core: Coordinator, commands: list[AddNode]) -> list[dict[str, Any]]:
    """Those of these nodes that cannot be added as things are, and which known node stands in their way."""
    first: dict[object, str] = {}
    room = NODES_MAX - len(core.registry)

    def refusal(command: AddNode) -> Refused | None:
        nonlocal room
        its = {
            "name": command.name.lower(),
            "node_index": command.node_index,
            "mask_place": command.mask_place,
        }
        for what, own in its.items():
            other = command.dev_eui if own is None else first.setdefault((what, own), command.dev_eui)
            if other != command.dev_eui:
                return Refused(f"has the {what} of {other}, which comes with it")
        room -= core.registry.get(command.dev_eui) is None
        return core.registry.refusal(command) or (Refused(FULL) if room < 0 else None)

    refusals = ((row, command, refusal(command)) for row, command in enumerate(commands))
    return [
        {"row": row, "dev_eui": command.dev_eui, "reason": no.reason, "in_the_way": no.in_the_way}
        for row, command, no in refusals
        if no is not None
    ]


def _add_words(api: APIRouter, daemon: DaemonLike) -> None:
    """What nodes are told by hand."""
    one_by_one = asyncio.Lock()

    @api.post("/nodes/{dev_eui}/labels")
    async def label(dev_eui: Eui, what: LabelIn) -> dict[str, Any]:
        """Tell a node what somebody saw there; it is told when it is next heard."""
        told = TellLabel(dev_eui.lower(), what.label, what.noon_us, what.observation)
        answer = await daemon.command(told)
        if answer is not None:
            raise HTTPException(409, answer.reason)
        return {"waiting": daemon.core.labels.waiting(told.dev_eui)}

    @api.post("/nodes/{dev_eui}/downlink")
    async def send(dev_eui: Eui, what: FrameIn) -> dict[str, Any]:
        """Send a node a frame; events `operator_frame` with its number tell its fate."""
        async with one_by_one:
            answer = await daemon.command(what.command(dev_eui.lower()))
            number = daemon.core.operator_frames.newest
        if answer is not None:
            raise HTTPException(409, answer.reason)
        return {"queued": dev_eui.lower(), "number": number}

    @api.get("/downlinks")
    async def sends() -> dict[str, Any]:
        """Frames sent by hand whose fate is open, oldest first."""
        return {"downlinks": daemon.core.operator_frames.listing()}

    @api.delete("/downlinks/{number}")
    async def take_back(number: Annotated[int, Path(ge=1, lt=1 << 53)]) -> dict[str, Any]:
        """Take back a frame sent by hand."""
        answer = await daemon.command(CancelFrame(number))
        if answer is not None:
            raise HTTPException(404, answer.reason)
        return {"cancelled": number}
