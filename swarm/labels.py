"""What people saw in the field, told to the node that was there.

Theory of operation.  A label waits in its row until the node is heard; it then goes down in a receive
window, at `TELLS` of the node's uplinks, because a lost one would be lost for good (a node that knows it
already ignores it).  A day is named by its noon; the frame counts the hours back from its own start, so
that it may wait.  After `KEPT_DAYS` nodes have forgotten the day themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from swarm.commands import TellLabel
from swarm.downlinks import Downlinks, Pending
from swarm.effects import Effect, Event, Purpose, Row, Store, integers
from swarm.phy.airtime import HOUR_US
from swarm.registry import Refused, Registry
from swarm.wire import app

__all__ = ["KEPT_DAYS", "PER_NODE_MAX", "TELLS", "Labels"]

TELLS = 3
PER_NODE_MAX = 16
"""Labels that may wait for one node."""
KEPT_DAYS = 60
TAG = "label"
SIZE = len(app.encode(app.Label(0, False, 0)))


@dataclass(slots=True)
class _Waiting:
    """`noon_us` of the day, or the observation's id where that is None; `made_us`: when it was told us."""

    dev_eui: str
    label: int
    noon_us: int | None
    observation: int | None
    made_us: int
    left: int = TELLS

    @property
    def key(self) -> str:
        return (
            f"{self.dev_eui} {'day' if self.observation is None else 'id'} {self.noon_us or self.observation}"
        )

    def said(self) -> dict[str, object]:
        what = {"noon_us": self.noon_us} if self.observation is None else {"observation": self.observation}
        return {"dev_eui": self.dev_eui, "label": self.label, **what}

    def frame(self, at_us: int) -> bytes:
        if self.observation is not None:
            return app.encode(app.Label(self.label, True, self.observation))
        hours = max(0, at_us - (self.noon_us or 0)) // HOUR_US
        return app.encode(app.Label(self.label, False, hours))

    def to_row(self) -> Row:
        return asdict(self)


class Labels:
    """The labels of one cell that nodes are still to be told."""

    def __init__(
        self, registry: Registry, downlinks: Downlinks, rows: Mapping[str, Mapping[str, Row]]
    ) -> None:
        self._registry = registry
        self._downlinks = downlinks
        self._waiting: dict[str, dict[str, _Waiting]] = {}
        for row in rows.get("label", {}).values():
            integers(row, "label", "made_us", "left")
            waiting = _Waiting(**{name: row[name] for name in _Waiting.__slots__})  # type: ignore[arg-type]
            self._waiting.setdefault(waiting.dev_eui, {})[waiting.key] = waiting

    def waiting(self, dev_eui: str) -> int:
        """Labels that the node is still to be told."""
        return len(self._waiting.get(dev_eui, {}))

    def tell(self, now_us: int, command: TellLabel, classes: int) -> list[Effect] | Refused:
        """Let a label wait for its node; the same day again replaces it.  `classes` of the model."""
        if self._registry.get(command.dev_eui) is None:
            return Refused(f"no node has the DevEUI {command.dev_eui}")
        if command.label >= classes:
            return Refused(f"the model has no class {command.label}: 0 to {classes - 1}")
        noon_us = command.noon_us
        if noon_us is not None and noon_us <= now_us - KEPT_DAYS * 24 * HOUR_US:
            return Refused(f"nodes keep the last {KEPT_DAYS} days, and this one is older")
        if noon_us is not None and noon_us >= now_us + 12 * HOUR_US:
            return Refused("this day has not closed yet: a day ends at its noon")
        made = _Waiting(command.dev_eui, command.label, noon_us, command.observation, now_us)
        mine = self._waiting.setdefault(command.dev_eui, {})
        if made.key not in mine and len(mine) >= PER_NODE_MAX:
            return Refused(f"{PER_NODE_MAX} labels wait for this node already; it was not heard since")
        mine[made.key] = made
        return [Store("label", made.key, made.to_row()), Event("label_waits", now_us, made.said())]

    def on_heard(self, now_us: int, dev_eui: str) -> list[Effect]:
        """The node was heard: the label that was told least often is next."""
        effects: list[Effect] = []
        mine = self._waiting.get(dev_eui, {})
        for waiting in list(mine.values()):
            if now_us - waiting.made_us >= KEPT_DAYS * 24 * HOUR_US:
                effects += [self._end(waiting), Event("label_unheard", now_us, waiting.said())]
        if mine:
            chosen = max(mine.values(), key=lambda waiting: (waiting.left, -waiting.made_us))
            self._downlinks.enqueue(dev_eui, self._pending(now_us, chosen))
        return effects

    def forget(self, dev_eui: str) -> list[Store]:
        """The node was removed."""
        return [Store("label", key, None) for key in self._waiting.pop(dev_eui, {})]

    def _pending(self, now_us: int, waiting: _Waiting) -> Pending:
        def sent(at_us: int, airtime_us: int) -> list[Effect]:
            if self._waiting.get(waiting.dev_eui, {}).get(waiting.key) is not waiting:
                return []  # told otherwise meanwhile, or the node was removed
            waiting.left += -1 if airtime_us > 0 else 1
            if waiting.left <= 0:
                return [self._end(waiting), Event("label_told", at_us, waiting.said())]
            return [Store("label", waiting.key, waiting.to_row())]

        # It goes in the windows of this very uplink, or with the next choice.
        return Pending(app.F_PORT_STATUS, waiting.frame, SIZE, Purpose.ROUND, now_us + HOUR_US, TAG, sent)

    def _end(self, waiting: _Waiting) -> Store:
        del self._waiting[waiting.dev_eui][waiting.key]
        return Store("label", waiting.key, None)
