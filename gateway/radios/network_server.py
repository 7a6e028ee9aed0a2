"""Other people's network servers: what their MQTT messages say, whichever server it is.

ChirpStack and The Things Stack do the LoRaWAN MAC themselves: what they publish is a payload in the clear,
with its FPort and counter, and what they take is one.  Both write protobuf's JSON, in which a field that is
zero, false or empty is *absent*: counter 0, FPort 0, data rate 0, an empty payload, a signal of 0 dBm.

Messages from outside become one of the values here, or a `Malformed`; nothing raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gateway.radios import json_object
from gateway.radios.json_object import JsonObject, Unreadable
from swarm.effects import ApplicationUplink
from swarm.phy.airtime import PHY_SIZE_MAX
from swarm.phy.regions import Region

__all__ = [
    "MESSAGE_SIZE_MAX",
    "REASONS",
    "Copy",
    "DownlinkFate",
    "ServerEvent",
    "ServerJoin",
    "best_copy",
    "data_rate_of",
    "dev_eui",
    "unix_us",
]

MESSAGE_SIZE_MAX = 65_536
COPIES_MAX = 64
REASONS = (
    *json_object.REASONS,
    "message_size",
    "topic",
    "identity",
    "time",
    "data_rate",
    "simulated",
    "event_kind",
)
"""Why a message is refused."""

_DEV_EUI = re.compile(r"[0-9a-fA-F]{16}")
_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})T([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?(Z|[+-][0-9]{2}:[0-9]{2})"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ServerJoin:
    """A device joined at the server: its counters start anew, and what waited for it there may be gone."""

    dev_eui: str
    device: str


@dataclass(frozen=True, slots=True)
class DownlinkFate:
    """What became of a downlink that we gave the server under `reference`.

    `stage` is one of queued, sent, ack, nack, failed.
    """

    reference: str
    stage: str
    reason: str = ""


ServerEvent = ApplicationUplink | ServerJoin | DownlinkFate


@dataclass(frozen=True, slots=True)
class Copy:
    """One gateway's reception."""

    gateway_id: str
    rssi_dbm: float
    snr_db: float


def best_copy(copies: Iterable[Copy]) -> Copy:
    """The one with the highest SNR, then RSSI, then lowest gateway id."""
    return min(
        copies, key=lambda copy: (-copy.snr_db, -copy.rssi_dbm, copy.gateway_id), default=Copy("", 0, 0)
    )


def signal(copy: JsonObject, gateway_id: str) -> Copy:
    return Copy(gateway_id, copy.number("rssi", -200, 50, 0.0), copy.number("snr", -50, 50, 0.0))


def dev_eui(text: str) -> str:
    """A DevEUI as 16 digits of lower case; `Unreadable` when it is none."""
    if _DEV_EUI.fullmatch(text) is None:
        raise Unreadable("identity", f"{text!r:.40} is no DevEUI")
    return text.lower()


def payload_of(message: JsonObject, name: str) -> bytes:
    return message.base64(name, PHY_SIZE_MAX, "")


def data_rate_of(region: Region, spreading_factor: int, bandwidth_hz: int) -> int:
    """The region's uplink index; `Unreadable` for what no node of this region can have sent."""
    try:
        return region.data_rate_of(spreading_factor, bandwidth_hz, uplink=True)
    except ValueError:
        raise Unreadable("data_rate", f"SF{spreading_factor} at {bandwidth_hz} Hz") from None


def unix_us(text: str) -> int:
    """Microseconds since 1970 of an RFC 3339 time with up to nine digits behind the point.

    `Unreadable` for what is none, and for times before 1970 (servers write year 1 for "not known").
    """
    match = _TIME.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        day, clock, fraction, zone = match.groups()
        at = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone == 'Z' else zone}")
        whole = (at - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        raise Unreadable("time", f"{text!r:.40}") from None
    if whole < 0:
        raise Unreadable("time", f"{text!r:.40}")
    return whole + int((fraction or "").ljust(9, "0")[:6])
