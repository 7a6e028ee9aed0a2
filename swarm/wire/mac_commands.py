"""LoRaWAN 1.0.4 MAC commands with which a network sets a device up, and the device's answers: values <->
bytes.

Requests come from the network, answers from the device; LinkCheck and DeviceTime, which go the other way,
stand in `swarm.mac.session`.  The decoders take what `swarm.wire.lorawan.mac_commands` found and never
raise: a field outside its range is `Malformed`, reserved bits are ignored.  Frequencies are Hz here, 100 Hz
on the air. Source: TS001-1.0.4 section 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from swarm.effects import Malformed
from swarm.wire.lorawan import MacCommand

__all__ = [
    "EIRP_DBM",
    "KEEP",
    "STICKY",
    "Ack",
    "Answer",
    "DevStatusAns",
    "DevStatusReq",
    "DlChannelReq",
    "DutyCycleReq",
    "LinkAdrReq",
    "NewChannelReq",
    "Request",
    "RxParamSetupReq",
    "RxTimingSetupReq",
    "TxParamSetupReq",
    "decode_answer",
    "decode_request",
    "encode",
]

KEEP = 15
"""DataRate or TXPower of a LinkADRReq that leaves the device's as it is."""
EIRP_DBM = (8, 10, 12, 13, 14, 16, 18, 20, 21, 24, 26, 27, 29, 30, 33, 36)
"""Largest EIRP by the four bits of a TxParamSetupReq."""

ANSWER_BITS: dict[int, tuple[str, ...]] = {
    0x03: ("channel mask", "data rate", "power"),
    0x04: (),
    0x05: ("RX2 frequency", "RX2 data rate", "RX1 offset"),
    0x07: ("frequency", "data rates"),
    0x08: (),
    0x09: (),
    0x0A: ("frequency", "uplink channel"),
}
"""By CID what each bit of an answer's status accepts, bit 0 first; no bits: the answer says yes."""


@dataclass(frozen=True, slots=True)
class LinkAdrReq:
    """Data rate, power and channels; `nb_trans` 0 means 1.  Several in a row are one request."""

    cid: ClassVar[int] = 0x03
    data_rate: int
    tx_power: int
    ch_mask: int
    ch_mask_cntl: int
    nb_trans: int

    def body(self) -> bytes:
        mask = self.ch_mask.to_bytes(2, "little")
        redundancy = self.ch_mask_cntl << 4 | self.nb_trans
        return bytes((self.data_rate << 4 | self.tx_power,)) + mask + bytes((redundancy,))


@dataclass(frozen=True, slots=True)
class DutyCycleReq:
    """All sub-bands together 1 / 2^max_duty_cycle of the time (0..15)."""

    cid: ClassVar[int] = 0x04
    max_duty_cycle: int

    def body(self) -> bytes:
        return bytes((self.max_duty_cycle,))


@dataclass(frozen=True, slots=True)
class RxParamSetupReq:
    """Where the receive windows are."""

    cid: ClassVar[int] = 0x05
    rx1_dr_offset: int
    rx2_data_rate: int
    rx2_frequency_hz: int

    def body(self) -> bytes:
        return bytes((self.rx1_dr_offset << 4 | self.rx2_data_rate,)) + _frequency(self.rx2_frequency_hz)


@dataclass(frozen=True, slots=True)
class DevStatusReq:
    """How is the battery, how well am I heard?"""

    cid: ClassVar[int] = 0x06

    def body(self) -> bytes:
        return b""


@dataclass(frozen=True, slots=True)
class NewChannelReq:
    """Define the channel at `index`; `frequency_hz` 0 takes it away."""

    cid: ClassVar[int] = 0x07
    index: int
    frequency_hz: int
    data_rate_min: int
    data_rate_max: int

    def body(self) -> bytes:
        rates = self.data_rate_max << 4 | self.data_rate_min
        return bytes((self.index,)) + _frequency(self.frequency_hz) + bytes((rates,))


@dataclass(frozen=True, slots=True)
class RxTimingSetupReq:
    """Seconds (1..15) from the end of an uplink to RX1."""

    cid: ClassVar[int] = 0x08
    rx1_delay_s: int

    def body(self) -> bytes:
        return bytes((self.rx1_delay_s & 15,))


@dataclass(frozen=True, slots=True)
class TxParamSetupReq:
    """Whether 400 ms dwell time holds, and the largest EIRP (an index of `EIRP_DBM`)."""

    cid: ClassVar[int] = 0x09
    downlink_dwell: bool
    uplink_dwell: bool
    max_eirp: int

    def body(self) -> bytes:
        return bytes((self.downlink_dwell << 5 | self.uplink_dwell << 4 | self.max_eirp,))


@dataclass(frozen=True, slots=True)
class DlChannelReq:
    """RX1 of the uplink channel at `index` is on another frequency."""

    cid: ClassVar[int] = 0x0A
    index: int
    frequency_hz: int

    def body(self) -> bytes:
        return bytes((self.index,)) + _frequency(self.frequency_hz)


Request = (
    LinkAdrReq
    | DutyCycleReq
    | RxParamSetupReq
    | DevStatusReq
    | NewChannelReq
    | RxTimingSetupReq
    | TxParamSetupReq
    | DlChannelReq
)


@dataclass(frozen=True, slots=True)
class Ack:
    """The answer to every request but DevStatusReq: a bit of `status` for each part that is accepted."""

    cid: int
    status: int = 0

    def body(self) -> bytes:
        return bytes((self.status,)) if ANSWER_BITS[self.cid] else b""

    @property
    def ok(self) -> bool:
        """Whether all of the request is in force; otherwise nothing of it is."""
        return not self.faults

    @property
    def faults(self) -> tuple[str, ...]:
        """The parts that the device does not take."""
        return tuple(name for bit, name in enumerate(ANSWER_BITS[self.cid]) if not self.status >> bit & 1)


@dataclass(frozen=True, slots=True)
class DevStatusAns:
    """`battery` 0 external, 1..254, 255 unknown; `margin_db` -32..31: SNR of the request at the device."""

    cid: ClassVar[int] = 0x06
    battery: int
    margin_db: int

    def body(self) -> bytes:
        return bytes((self.battery, self.margin_db & 0x3F))


Answer = Ack | DevStatusAns

STICKY = frozenset({RxParamSetupReq.cid, RxTimingSetupReq.cid, DlChannelReq.cid})
"""Requests whose answers a device repeats until it hears any downlink."""


def encode(command: Request | Answer) -> bytes:
    """CID and body; ValueError or OverflowError where a field is outside its range."""
    return bytes((command.cid,)) + command.body()


def decode_request(command: MacCommand) -> Request | Malformed:
    """What the network asks for; LinkCheckAns and DeviceTimeAns are no requests."""
    body = command.payload
    match command.cid:
        case 0x03:
            mask = int.from_bytes(body[1:3], "little")
            return LinkAdrReq(body[0] >> 4, body[0] & 15, mask, body[3] >> 4 & 7, body[3] & 15)
        case 0x04:
            return DutyCycleReq(body[0] & 15)
        case 0x05:
            return RxParamSetupReq(body[0] >> 4 & 7, body[0] & 15, _hz(body[1:4]))
        case 0x06:
            return DevStatusReq()
        case 0x07:
            return NewChannelReq(body[0], _hz(body[1:4]), body[4] & 15, body[4] >> 4)
        case 0x08:
            return RxTimingSetupReq(max(1, body[0] & 15))
        case 0x09:
            return TxParamSetupReq(bool(body[0] & 0x20), bool(body[0] & 0x10), body[0] & 15)
        case 0x0A:
            return DlChannelReq(body[0], _hz(body[1:4]))
        case _:
            return Malformed("command", f"CID {command.cid:02x} is no request")


def decode_answer(command: MacCommand) -> Answer | Malformed:
    """What the device says; LinkCheckReq and DeviceTimeReq are no answers."""
    body = command.payload
    if command.cid == DevStatusAns.cid:
        margin = body[1] & 0x3F
        return DevStatusAns(body[0], margin - 64 if margin >= 32 else margin)
    if command.cid in ANSWER_BITS:
        return Ack(command.cid, body[0] & (1 << len(ANSWER_BITS[command.cid])) - 1 if body else 0)
    return Malformed("command", f"CID {command.cid:02x} is no answer")


def _frequency(frequency_hz: int) -> bytes:
    return (frequency_hz // 100).to_bytes(3, "little")


def _hz(field: bytes) -> int:
    return int.from_bytes(field, "little") * 100
