"""What the API needs of the running daemon; its tests may bring less."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from gateway.daemon import Asked
from gateway.store.sqlite import LoggedEvent
from swarm.commands import Command, SetModel
from swarm.coordinator import Coordinator
from swarm.effects import Event
from swarm.inference.plan import Query
from swarm.registry import Refused

__all__ = ["DaemonLike"]


class DaemonLike(Protocol):
    """What the API needs of the daemon."""

    @property
    def core(self) -> Coordinator: ...
    @property
    def token(self) -> str: ...
    @property
    def radio_counters(self) -> Mapping[str, int]: ...
    def now_us(self) -> int: ...
    def subscribe(self) -> contextlib.AbstractContextManager[asyncio.Queue[Event]]: ...
    def past_events(
        self, *, after: int | None = None, limit: int = 100, kind: str | None = None
    ) -> Sequence[LoggedEvent]: ...
    async def command(self, command: Command) -> Refused | None: ...
    async def together(
        self,
        commands: Sequence[Command],
        *,
        first: Command | None = None,
        unless: Callable[[], Refused | None] = ...,
    ) -> list[Refused | None] | Refused: ...
    async def ask(self, query: Query) -> Asked | Refused: ...
    async def hand_in(self, model: SetModel) -> int | Refused: ...
    async def take_signing_key(self) -> str | None: ...
