"""Large blocks over HTTP: queue one, see how far they are, end one."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException
from pydantic import Field

from gateway.api.bodies import BlockIn
from gateway.api.daemon_like import DaemonLike
from swarm.commands import CancelBlock, SendBlock
from swarm.coordinator import Coordinator
from swarm.effects import Malformed
from swarm.large_blocks.plan import descriptor
from swarm.model import container
from swarm.model.container_format import STATE_REMOTE
from swarm.security.signatures import SIGNATURE_SIZE

__all__ = ["add_blocks"]

HALF_GENERATIONS = 0x8000

Descriptor = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{8}$", description="8 hexadecimal digits")]


def add_blocks(api: APIRouter, daemon: DaemonLike) -> None:
    """The routes below /blocks."""
    core = daemon.core

    @api.get("/blocks")
    async def blocks() -> dict[str, Any]:
        """Blocks that were delivered lately, oldest first, the one on its way, those that wait."""
        return {"blocks": core.blocks.listing()}

    @api.get("/blocks/{name}")
    async def block(name: Descriptor) -> dict[str, Any]:
        """One block; until it has ended with what is known of each node (`each`, by DevEUI)."""
        found = core.blocks.show(name.lower())
        if found is None:
            raise HTTPException(404, f"no block has the descriptor {name.lower()}")
        named = sorted({*found.get("left", ()), *found.get("each", ())})
        entries = {dev_eui: core.registry.get(dev_eui) for dev_eui in named}
        names = {key: key if entry is None else entry.record.name for key, entry in entries.items()}
        return {**found, "names": names}

    @api.post("/blocks")
    async def send(what: BlockIn) -> dict[str, Any]:
        """Deliver a block to all nodes, or to those named (by name or DevEUI)."""
        try:
            data = base64.b64decode(what.data, validate=True)
        except (binascii.Error, ValueError):
            raise HTTPException(422, "data is not base64") from None
        nodes = None if what.nodes is None else _dev_euis(what.nodes)
        ours = _goes_to_ours(core, nodes)
        # Nodes of ours want a signature behind it, which gives it another descriptor; others get the file.
        sent = core.blocks.signed(data) if ours else data
        if ours and (why := _unfit(core, data)) is not None:
            others = (
                "devices of another make take any file: name them with --node"
                if nodes is None
                else "a device of another make takes any file, and has a GenAppKey: `swarm nodes add` with it"
            )
            raise HTTPException(409, f"{why}; {others}")
        if ours and nodes is not None and not what.alone and _lacks_experts(core, data):
            raise HTTPException(
                409,
                "this model has fewer experts, and all that hear the group would take it, named or not:"
                " --alone sends it to each of them by itself",
            )
        answer = await daemon.command(SendBlock(sent, nodes, what.loss, what.version, what.alone))
        if answer is not None:
            raise HTTPException(409, answer.reason)
        return core.blocks.show(descriptor(sent).hex()) or {}

    @api.delete("/blocks/{name}")
    async def cancel(name: Descriptor) -> dict[str, Any]:
        """End the delivery of a block, or take it from the queue."""
        answer = await daemon.command(CancelBlock(bytes.fromhex(name)))
        if answer is not None:
            raise HTTPException(404, answer.reason)
        return {"cancelled": name.lower()}

    def _dev_euis(said: Sequence[str]) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for each in said:
            entry = core.registry.find(each)
            if entry is None:
                raise HTTPException(
                    409, f"no node is called {each}; `swarm nodes list` shows those there are"
                )
            found[entry.record.dev_eui] = None
        return tuple(found)


def _goes_to_ours(core: Coordinator, nodes: Sequence[str] | None) -> bool:
    """Whether nodes of our own are among those that a block goes to."""
    return any(
        entry.record.gen_app_key is None and (core.config.network or not entry.behind_server)
        for entry in core.registry
        if (entry.reachable if nodes is None else entry.record.dev_eui in nodes)
    )


def _unfit(core: Coordinator, data: bytes) -> str | None:
    """Why nodes of our own would throw a block away once they had it whole (docs/SPEC.md 5a)."""
    read = container.read(data)
    if isinstance(read, Malformed):
        return f"nodes of ours take a model container alone, and this is none ({read.reason}: {read.detail})"
    newest = core.rounds.replica.generation
    if (read.generation - newest) % (2 * HALF_GENERATIONS) >= HALF_GENERATIONS:
        return (
            f"nodes of ours take no older model: this is of generation {read.generation}, theirs of {newest}"
        )
    if core.signer.key is None and len(data) - len(read.image) != SIGNATURE_SIZE:
        return (
            "nodes of ours take a signed model alone, and there is no key to sign it with: `swarm nodes"
            " import DIR` brings the one of their directory"
        )
    return None


def _lacks_experts(core: Coordinator, data: bytes) -> bool:
    """Whether a container lacks experts that the gateway's own model has."""
    read = container.read(data)
    if isinstance(read, Malformed):
        return False
    remote = {each.index for each in read.fragments if each.state == STATE_REMOTE}
    return not remote.isdisjoint(core.rounds.replica.held())
