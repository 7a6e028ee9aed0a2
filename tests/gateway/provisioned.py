"""What a provisioned pilot's files make the gateway know, read as `swarm nodes import` reads them."""

from __future__ import annotations

from pathlib import Path

from gateway.api.bodies import MulticastIn, NodeIn
from gateway.commands.node_files import read_nodes
from swarm.commands import AddNode, SetMulticast

__all__ = ["commands"]


def commands(folder: Path) -> list[AddNode | SetMulticast]:
    """The group first, if there is one."""
    said = read_nodes(folder)
    assert not said.mistakes, said.mistakes
    group = [] if said.multicast is None else [MulticastIn.model_validate(said.multicast).command()]
    return [*group, *(NodeIn.model_validate(node).command() for _, node in said.nodes)]
