"""Which node a person means: by its name or its DevEUI."""

from __future__ import annotations

from typing import Any

from gateway.commands.client import Client
from gateway.commands.node_files import is_eui
from gateway.commands.output import CommandError

__all__ = ["find"]


def find(client: Client, text: str) -> dict[str, Any]:
    """The node with this DevEUI or name."""
    digits = text.replace("-", "").replace(":", "").lower()
    listed = client.get("/api/nodes")["nodes"]
    found = [node for node in listed if node["dev_eui"] == digits]
    found = found or [node for node in listed if node["name"].lower() == text.lower()]
    if len(found) > 1:
        euis = ", ".join(node["dev_eui"] for node in found[:5])
        raise CommandError(f"{text}: {len(found)} nodes have this name; give a DevEUI, one of {euis}")
    if not found:
        what = "DevEUI" if is_eui(digits) else "name"
        raise CommandError(f"no node has the {what} {text}; `swarm nodes list` shows those there are")
    node = found[0]
    assert isinstance(node, dict)
    return node
