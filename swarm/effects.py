"""The vocabulary of the core: what goes in, and the effects that come out.

The core never performs anything.  Each input (`on_uplink`, `on_tx_ack`, `on_query`, `on_command`,
`poll`) returns effects in the order in which a driver has to perform them: a `Store` stands before
every `Transmit` that depends on it, so that a frame counter is on disk before it is on the air.

Times are integers in microseconds of the core's clock (Unix time in the daemon, time since the
scenario's epoch in the simulator); `_us` always names that unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = [
    "EVENT_KINDS",
    "ApplicationDownlink",
    "ApplicationUplink",
    "Effect",
    "Event",
    "Malformed",
    "Purpose",
    "Row",
    "RxFrame",
    "Scalar",
    "Store",
    "Transmit",
    "TxAck",
]

Scalar = int | float | str | bytes | None
Row = dict[str, Scalar]


class Purpose(StrEnum):
    """Why a transmission is made; airtime is accounted and shown by purpose."""

    JOIN = "join"
    ACK = "ack"
    QUERY = "query"
    ROUND = "round"
    MODEL = "model"
    TELEMETRY = "telemetry"
    REPAIR = "repair"
    LENDING = "lending"


@dataclass(frozen=True, slots=True)
class Malformed:
    """Bytes from outside that were refused: a value, never an exception."""

    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RxFrame:
    """One uplink as one gateway heard it.

    `at_us` is the end of the packet on the core's clock, `tmst_us` the same instant on the
    gateway's free-running 32-bit counter (it wraps every 71.6 min).  `data_rate` is the region's
    uplink data-rate index.
    """

    payload: bytes
    gateway_id: str
    at_us: int
    tmst_us: int
    frequency_hz: int
    data_rate: int
    rssi_dbm: float
    snr_db: float


@dataclass(frozen=True, slots=True)
class ApplicationUplink:
    """A frame that somebody else's network server received, judged and decrypted.

    `session` changes when the device joins again, and its counter (32 bits) starts anew then; `at_us` is when
    the server received it (Unix time), which may be hours ago.  `data_rate` is the region's index, None where
    the server does not say.  `device` is what the server calls the device.
    """

    dev_eui: str
    device: str
    session: str
    f_cnt: int
    f_port: int
    payload: bytes
    confirmed: bool
    at_us: int
    frequency_hz: int | None
    data_rate: int | None
    gateway_id: str
    rssi_dbm: float
    snr_db: float


@dataclass(frozen=True, slots=True)
class ApplicationDownlink:
    """Put a payload into the queue that a network server keeps for a device; the airtime is the server's.

    `reference` never comes again, not after a restart either.
    """

    reference: int
    dev_eui: str
    device: str
    f_port: int
    payload: bytes
    purpose: Purpose


@dataclass(frozen=True, slots=True)
class TxAck:
    """What a gateway said of a `Transmit`: `error` is None when it was (or will be) sent."""

    transmit_id: int
    error: str | None = None
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class Transmit:
    """Send one PHYPayload through one gateway, starting at `at_us`.

    `tmst_us` is set for class A answers (the gateway's own counter then rules, `at_us` is the
    same instant on the core's clock) and None for class C, which the radio sends at `at_us`.
    The airtime ledger has already granted `airtime_us`.
    """

    transmit_id: int
    gateway_id: str
    payload: bytes
    at_us: int
    tmst_us: int | None
    frequency_hz: int
    data_rate: int
    power_dbm: float
    airtime_us: int
    purpose: Purpose
    multicast: bool = False


@dataclass(frozen=True, slots=True)
class Store:
    """Write one row (`row` None: delete it) of a table, by its primary key.

    `erase`: what is deleted up to here must be gone from the medium too before anything later is performed.
    """

    table: str
    key: str
    row: Row | None
    erase: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """Something a person or a program may want to know; the structured log of the core."""

    kind: str
    at_us: int
    data: Mapping[str, object] = field(default_factory=dict)


EVENT_KINDS = {
    "adr": "a node took the data rate and power that it was told; before and after say which",
    "answer": "a node answered a question",
    "answer_late": "a node answered a question that was closed already",
    "answer_refused": "a node's answer does not count; reason says why",
    "block_ended": "a large block's delivery is over: who has it, who has not, what it cost on air",
    "block_offered": "a large block's session was offered to the group, or to its first node",
    "block_polled": "the group was asked who misses something of a large block",
    "borrowing_paired": "a node borrows readings; text says from whom, how alike they are, what it costs",
    "borrowing_refused": "a node's loan is refused or ended; reason says why",
    "broker_connected": "the MQTT broker took the daemon's connection",
    "broker_failed": "the MQTT broker is not reached, or not trusted; detail says why, and what to do",
    "class_refused": "a node says it is in class B, which is not offered; it is answered as in class A",
    "context_suspect": "a node's labels fit another context's head much better: it may be wrong in the CSV",
    "device_status": "a node said how its battery is and how well it hears, asked by DevStatusReq",
    "downlink": "a frame was given to a gateway to be sent",
    "dropped": "a frame was refused; reason says why",
    "expert_answered": "a node's question for experts is answered: who computed it, at what cost",
    "expert_asked": "a node asked for experts that it lacks",
    "expert_unheard": "a node did not call for the answer to its question for experts in time",
    "experts": "a node said which experts it holds",
    "fragment": "a slice of a node's update arrived",
    "hand_over_begun": "a block with other experts is on its way to a node, or waits for others",
    "hand_over_ended": "a node said that it holds the experts that it was brought",
    "joined": "a node joined over the air (OTAA) and has its session",
    "label_told": "a node was told what somebody saw, as often as is enough",
    "label_unheard": "a node was not heard until its day was too old to be labelled",
    "label_waits": "somebody told what was seen; the node is told when it is heard",
    "lender_silent": "nothing came from a lender for days; the next one takes its place",
    "mac_command_refused": "a node does not do what a MAC command says, or does not answer for long",
    "mac_set": "a node took a MAC command; text says which",
    "model_handed_in": "a model made elsewhere waits for the next window; round says which",
    "multicast_set": "the cell has another multicast group",
    "node_added": "a node was registered, or changed",
    "node_removed": "a node and its keys were forgotten",
    "operator_frame": "a frame by hand; its state: queued, sent, acknowledged, given_up or cancelled",
    "package_version": "a device said which version of one of LoRaWAN's packages it speaks",
    "programme_cut": "a multicast window ended before all its frames were sent",
    "programme_sent": "all frames of a multicast window are sent",
    "query_answered": "a question has its answer, or its deadline came",
    "query_asked": "a question was put to nodes",
    "query_refused": "a question was not taken; reason says why",
    "query_repeated": "a question came again under the same name while it waits: it is put once",
    "readings": "a node sent its day's readings",
    "readings_lent": "a borrower was answered with a neighbour's day",
    "readings_not_there": "a borrower asked for a day that no lender has sent",
    "readings_unasked": "a node sent readings that nobody asked for",
    "rejoined": "the first frame of a node's new session came: the one before it is over",
    "rolled_back": "an earlier version of the model comes back with the next window; reason says why",
    "round_closed": "a learning round ended: updates, model version, score",
    "round_opened": "a learning round began: who is invited, until when",
    "round_postponed": "a round could not open at its time; reason says why",
    "round_repair": "members of masking groups were not heard: the others are asked for their masks",
    "seeds": "a member of a masking group sent masks of members not heard",
    "sensor_suspected": "a humidity sensor is flat, missing or biased beside its neighbours",
    "signing_key_set": "blocks are signed with this key from now on; its public half",
    "status": "a node reported its state",
    "stopping": "the daemon ends; the last event of a stream",
    "tx_failed": "a frame could not be sent; error says why",
    "update": "a node's learning update counts",
    "update_refused": "a node's learning update does not count; reason says why",
    "uplink": "a genuine frame of a node was received",
    "versions_skipped": "nodes have versions ahead of a gateway's that lost data: it goes on above theirs",
}
"""Every kind of event there is, and what it says."""


def integers(row: Mapping[str, object], *columns: str) -> None:
    """ValueError unless each of these columns of a stored row holds a whole number."""
    for column in columns:
        if not isinstance(row[column], int):
            raise ValueError(f"the stored column {column} should be a number")


Effect = Transmit | ApplicationDownlink | Store | Event
