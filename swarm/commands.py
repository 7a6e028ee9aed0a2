"""What an operator may tell the core: values, validated before they come here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "AddNode",
    "Command",
    "OpenRound",
    "RemoveNode",
    "RollBack",
    "SendFrame",
    "SetModel",
    "SetMulticast",
    "TellLabel",
]


@dataclass(frozen=True, slots=True)
class AddNode:
    """Register one node, or change what is known of it; its keys stay, and its frame counters with them.

    ABP needs `dev_addr`, `nwk_s_key`, `app_s_key`; OTAA needs `join_eui`, `app_key`.
    `context` indexes the expert of its crop; `lat`, `lon` in degrees.  Without `node_index` a new node gets
    the highest free one, out of the way of those that were provisioned from 0 upwards.
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
    device_class: Literal["a", "c"] = "a"
    """c: its receiver is always on, on the channel of RX2."""


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
class SetMulticast:
    """The group session all nodes of this cell were provisioned with (made once, at provisioning).

    Another group than the cell's is refused unless `replace`: nodes of the old one then hear nothing.
    """

    mc_addr: int
    nwk_s_key: bytes = field(repr=False)
    app_s_key: bytes = field(repr=False)
    replace: bool = False


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
class TellLabel:
    """Tell a node what somebody saw: the true class (0..9) of a day or an observation.

    `noon_us`: the local noon that closed the day (us; half a day wrong is right enough).  `observation`: the
    application's id of it, 0..65535.
    """

    dev_eui: str
    label: int
    noon_us: int | None = None
    observation: int | None = None


Command = AddNode | RemoveNode | RollBack | SendFrame | SetMulticast | OpenRound | SetModel | TellLabel
