"""The narrow waist between the daemon and whatever brings frames: one interface, one backend a protocol.

A backend is sans-IO.  It takes messages (a UDP datagram, a websocket's text) and `Transmit`s with the time,
and gives an `Output`: messages to send, and inputs for the core.  The daemon owns the socket, the clock and
the order in which things reach the disk; it asks every backend the same few questions, and gives a
`Transmit` to the one that `serves` its gateway.

Every `Transmit` gets exactly one `TxAck`.  Bytes from outside never raise: what is refused is counted under
one of the backend's fixed names, and every table has a maximum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from swarm.effects import RxFrame, Transmit, TxAck

__all__ = ["GatewayHeard", "Input", "Output", "Radio", "Refusal"]

Peer = TypeVar("Peer")
"""How a backend's socket names the other end."""


@dataclass(frozen=True, slots=True)
class GatewayHeard:
    """A gateway gave a sign of life; `status` holds what it said of itself (may be empty).

    `blocks`: it keeps a duty cycle of its own beside ours, and drops what exceeds it.
    """

    gateway_id: str
    status: Mapping[str, float | str]
    blocks: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something from a gateway, or in its name, was not taken; the reason is the name of a counter."""

    gateway_id: str
    reason: str
    detail: str


Input = RxFrame | TxAck | GatewayHeard


@dataclass(slots=True)
class Output(Generic[Peer]):
    """What one call produced, in order."""

    datagrams: list[tuple[bytes, Peer]] = field(default_factory=list)
    """Messages to send, each whole, with whom they are for; an empty one closes a connection."""
    inputs: list[Input] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)


class Radio(Protocol[Peer]):
    """All gateways that speak one protocol."""

    counters: dict[str, int]

    def on_datagram(self, now_us: int, datagram: bytes, address: Peer, /) -> Output[Peer]:
        """A message arrived; an empty one says that a connected peer is gone."""

    def serves(self, gateway_id: str) -> bool:
        """Whether downlinks of this gateway go through here."""

    def transmit(self, now_us: int, transmit: Transmit) -> None:
        """Take a downlink; `poll` sends it when its time has come, or says why not."""

    def poll(self, now_us: int) -> Output[Peer]:
        """Send what is due, and give up what was not answered."""

    def poll_at(self) -> int | None:
        """When `poll` has something to do (us); None: nothing."""

    def accepted(self, gateway_id: str, *, genuine: bool = True) -> None:
        """This gateway proved itself by a genuine frame; or is a stranger again."""

    def snapshot(self) -> list[dict[str, object]]:
        """The gateways, for people: one row each, sorted by id."""
