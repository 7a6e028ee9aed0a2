"""Nodes over HTTP: who there is, who comes and goes, and what nodes are told by hand."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path

from gateway.api import views
from gateway.api.bodies import Eui, FrameIn, ImportIn, LabelIn, NodeIn
from gateway.api.daemon_like import DaemonLike
from gateway.data_dir import DataDirError
from swarm.commands import AddNode, CancelFrame, RemoveNode, TellLabel
from swarm.coordinator import Coordinator
from swarm.registry import Refused

__all__ = ["add_nodes"]

IN_ONE_TURN = 200
"""Commands that the daemon gets together: they share a transaction, and the radio is not kept waiting."""

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
            return {"refused": _would_be_refused(core, what.nodes)}
        if what.multicast is not None and what.multicast.replace:
            for each in _would_be_refused(core, what.nodes):
                raise HTTPException(409, f"nothing was changed: {each['dev_eui']}: {each['reason']}")
        group = None
        if what.multicast is not None:
            before = core.downlinks.group
            answer = await daemon.command(what.multicast.command())
            if answer is not None:
                raise HTTPException(409, answer.reason)
            group = "unchanged" if core.downlinks.group is before else "set"
        refused, unchanged, changed = [], 0, 0
        for start in range(0, len(what.nodes), IN_ONE_TURN):
            batch = what.nodes[start : start + IN_ONE_TURN]
            commands = [each.command() for each in batch]
            same = [core.registry.unchanged(command) for command in commands]
            known = [core.registry.get(command.dev_eui) is not None for command in commands]
            answers = await asyncio.gather(*map(daemon.command, commands))
            for row, answer in enumerate(answers):
                if answer is not None:
                    who = {"row": start + row, "dev_eui": commands[row].dev_eui}
                    refused.append({**who, "reason": answer.reason})
                else:
                    unchanged += same[row]
                    changed += known[row] and not same[row]
        added = len(what.nodes) - len(refused) - unchanged - changed
        log.info("import: %d nodes added, %d changed, %d refused", added, changed, len(refused))
        return {
            "added": added, "changed": changed, "unchanged": unchanged, "refused": refused, "multicast": group
        }  # fmt: skip

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


def _would_be_refused(core: Coordinator, nodes: list[NodeIn]) -> list[dict[str, Any]]:
    """Those of these nodes that cannot be added as things are, and which known node stands in their way."""
    found = [(row, node.command()) for row, node in enumerate(nodes)]
    first: dict[object, str] = {}

    def refusal(command: AddNode) -> Refused | None:
        for own in (command.name.lower(), command.node_index):
            other = command.dev_eui if own is None else first.setdefault(own, command.dev_eui)
            if other != command.dev_eui:
                return Refused(f"has the name or node_index of {other}, which comes with it")
        return core.registry.refusal(command)

    refusals = ((row, command, refusal(command)) for row, command in found)
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
