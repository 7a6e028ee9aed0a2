"""Every topic of the gateway, in one place; `PREFIX/NAME` is the root of one daemon.

    state                      online | offline, retained; the broker says offline when we are gone
    node/DEV_EUI/event/WHAT    up, join, status, ack, log: the daemon's events of that node
    node/DEV_EUI/report        what the node last said, in people's units, retained
    node/DEV_EUI/state         online | offline, retained: heard within three report periods or not
    round/N/event/WHAT         opened, closed
    query/request              a question with an `id` ...
    query/answer               ... and its answer with the same
    bridge/request/VERB        what else may be asked ...
    bridge/response/VERB       ... and the response

Home Assistant's own topics hang below its discovery prefix.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from swarm.effects import Event

__all__ = ["OFFLINE", "ONLINE", "Topics"]

ONLINE, OFFLINE = b"online", b"offline"
_NODE_EVENTS = {
    "uplink": "up",
    "joined": "join",
    "status": "status",
    "downlink": "ack",
    "tx_failed": "ack",
}
"""`ack`: what became of a frame for the node; all other events of a node are its `log`."""
_ROUND_EVENTS = {"round_opened": "opened", "round_closed": "closed"}
_DEV_EUI = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Topics:
    """The names below one daemon's root, and below Home Assistant's prefix."""

    root: str
    discovery_prefix: str

    @property
    def state(self) -> str:
        return f"{self.root}/state"

    @property
    def question(self) -> str:
        return f"{self.root}/query/request"

    @property
    def answer(self) -> str:
        return f"{self.root}/query/answer"

    @property
    def requests(self) -> str:
        """The filter that all bridge requests match."""
        return f"{self.root}/bridge/request/#"

    def verb(self, topic: str) -> str | None:
        """The verb of a bridge request; None when the topic is none."""
        start = f"{self.root}/bridge/request/"
        return topic.removeprefix(start) if topic.startswith(start) else None

    def response(self, verb: str) -> str:
        return f"{self.root}/bridge/response/{verb}"

    def report(self, dev_eui: str) -> str:
        return f"{self.root}/node/{dev_eui}/report"

    def node_state(self, dev_eui: str) -> str:
        return f"{self.root}/node/{dev_eui}/state"

    def event(self, what: Event) -> str | None:
        """Where an event goes; None for those that are about no node and no round."""
        number = what.data.get("round")
        if what.kind in _ROUND_EVENTS and isinstance(number, int):
            return f"{self.root}/round/{number}/event/{_ROUND_EVENTS[what.kind]}"
        dev_eui = what.data.get("dev_eui")
        if isinstance(dev_eui, str) and _DEV_EUI.fullmatch(dev_eui):
            return f"{self.root}/node/{dev_eui}/event/{_NODE_EVENTS.get(what.kind, 'log')}"
        return None

    def discovery(self, dev_eui: str) -> str:
        return f"{self.discovery_prefix}/device/swarm_{dev_eui}/config"

    @property
    def home_assistant(self) -> str:
        """Where Home Assistant says that it has started."""
        return f"{self.discovery_prefix}/status"
