"""What an operator may tell the core: values, validated before they come here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from swarm.security.signatures import SigningKey

__all__ = [
    "BLOCK_MAX",
    "AddNode",
    "CancelBlock",
    "CancelFrame",
    "Command",
    "HandOver",
    "OpenRound",
    "RemoveNode",
    "RollBack",
    "SendBlock",
    "SendFrame",
    "SetModel",
    "SetMulticast",
    "SetSigningKey",
    "TellLabel",
]

BLOCK_MAX = 65_536
"""Bytes of a large block, its signature included."""


@dataclass(frozen=True, slots=True)
class AddNode:
    """Register one node, or change what is known of it; its keys stay, and its frame counters with them.

    ABP needs `dev_addr`, `nwk_s_key`, `app_s_key`; OTAA needs `join_eui`, `app_key`.
    `context` indexes the expert of its crop; `lat`, `lon` in degrees.  Without `node_index` a new node gets
    the highest free one, out of the way of those that were provisioned from 0 upwards.  With `gen_app_key`
    (16 B) it is a device of another make, which is set up by TS005 and TS004 for large blocks.
    `mask_place` is its place in a masking group as it was provisioned, "group/position/size"; one that is
    known stays where none is given.
    """

    dev_eui: str
    name: str
    context: int
    activation: Literal["abp", "otaa", "network"]
    plot: str = ""
    lat: float | None = None
    lon: float | None = None
    node_index: int | None = None
    dev_addr: int | None = None
    nwk_s_key: bytes | None = field(default=None, repr=False)
    app_s_key: bytes | None = field(default=None, repr=False)
    join_eui: str = "0000000000000000"
    app_key: bytes | None = field(default=None, repr=False)
    rx1_delay_s: int | None = None
    gen_app_key: bytes | None = field(default=None, repr=False)
    device_class: Literal["a", "c"] = "a"
    """c: its receiver is always on, on the channel of RX2."""
    mask_place: str | None = None


@dataclass(frozen=True, slots=True)
class RemoveNode:
    """Forget a node, its session and its keys; its past updates stay in the model."""

    dev_eui: str


@dataclass(frozen=True, slots=True)
class SendFrame:
    """Send a payload to a node by hand; it waits `within_s` at most for the node to be heard."""

    dev_eui: str
    f_port: int
    payload: bytes
    confirmed: bool = False
    within_s: int = 86_400


@dataclass(frozen=True, slots=True)
class CancelFrame:
    """Take back a frame that waits; `number` is the one that `operator_frame` events name."""

    number: int


@dataclass(frozen=True, slots=True)
class SetMulticast:
    """The group session all nodes of this cell were provisioned with (made once, at provisioning).

    Another group than the cell's is refused unless `replace`: nodes of the old one then hear nothing.
    `mc_key` (16 B), where it is known, is the McKey that both session keys were derived from: without it no
    device of another make can be let in (TS005).
    """

    mc_addr: int
    nwk_s_key: bytes = field(repr=False)
    app_s_key: bytes = field(repr=False)
    replace: bool = False
    mc_key: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class OpenRound:
    """Open the next round now instead of at its time."""


@dataclass(frozen=True, slots=True)
class SetModel:
    """Take over a model made elsewhere with the next window (one that still waits is replaced).

    `vector` holds the cell's master, float64 little endian, real units, in the order of `swarm.model.vector`.
    `gather`: the round of that window is aggregated elsewhere too; the cell only gathers its updates.
    `close_s`: that round's deadline instead of the cell's (at most its period).
    """

    vector: bytes = field(repr=False)
    gather: bool = False
    close_s: int | None = None


@dataclass(frozen=True, slots=True)
class RollBack:
    """Return to an earlier version of the model with the next window; None: the one before the newest."""

    to_version: int | None = None


@dataclass(frozen=True, slots=True)
class SetSigningKey:
    """Sign blocks with this key from now on.  The driver keeps it, and hands it in again at a restart."""

    key: SigningKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class TellLabel:
    """Tell a node what somebody saw: the true class (0..9) of a day or an observation.

    `noon_us`: the local noon that closed the day (us; half a day wrong is right enough).  `observation`: the
    application's id of it, 0..65535.
    """

    dev_eui: str
    label: int
    noon_us: int | None = None
    observation: int | None = None


@dataclass(frozen=True, slots=True)
class SendBlock:
    """Deliver a large block (1..`BLOCK_MAX` B, its signature last) to `nodes` (DevEUIs), or to all.

    `loss` (0..0.9) is the share of frames that nodes are expected to lose, `version` (1, 2) that of TS004.
    `alone`: each of them by unicast, so that nobody else takes it; an OFFER is for all that hear it.
    """

    block: bytes = field(repr=False)
    nodes: tuple[str, ...] | None = None
    loss: float = 0.2
    version: int = 2
    alone: bool = False


@dataclass(frozen=True, slots=True)
class CancelBlock:
    """End a delivery, or take it from the queue; `descriptor` is that of TS004 (4 B)."""

    descriptor: bytes


@dataclass(frozen=True, slots=True)
class HandOver:
    """Bring nodes the experts that fewer than `replicas` (at least 1) hold, with `room` for so many in each.

    `whole`: also those that their gates choose most, as the plan has it.  `nodes` (DevEUIs): to these alone,
    also where it failed before.  `loss` as in `SendBlock`.
    """

    room: int
    replicas: int
    nodes: tuple[str, ...] | None = None
    whole: bool = False
    loss: float = 0.2


Command = (
    AddNode
    | RemoveNode
    | RollBack
    | SetMulticast
    | SetSigningKey
    | OpenRound
    | SetModel
    | TellLabel
    | SendBlock
    | HandOver
    | SendFrame
    | CancelFrame
    | CancelBlock
)
