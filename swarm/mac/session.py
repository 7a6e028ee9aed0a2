"""The network's half of a LoRaWAN session: which uplink is genuine and new, and how downlinks are built.

Theory of operation.  The air carries 16 of a counter's 32 bits.  `accept` takes the smallest counter
that is not below the last accepted one and has these 16 bits (or, for the last one's own bits, the
counter a whole turn later), and believes it only if the integrity code, which covers all 32 bits,
agrees; only then the session changes.  The same counter again with
the same bytes is a retransmission (the device missed our answer): it is reported as such, at most
`RETRANSMISSIONS_MAX` times, and changes nothing.  Anything older, and the same counter with other
bytes, is a replay.  A downlink counter is used up by `downlink` before the frame exists; the caller
stores `to_row()` before it transmits.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from swarm.effects import Malformed, Row, Scalar
from swarm.security.lorawan import AesKey, cipher_payload, data_mic, same_mic
from swarm.wire.lorawan import DataFrame, MacCommand, encode_data, mac_commands

__all__ = [
    "F_CNT_MAX",
    "REASONS",
    "RETRANSMISSIONS_MAX",
    "Accepted",
    "MulticastGroup",
    "Session",
    "accept",
    "candidate_f_cnt",
    "downlink",
    "mac_answers",
    "seal_data",
]

F_CNT_MAX = 0xFFFFFFFF
RETRANSMISSIONS_MAX = 15
"""NbTrans has four bits: nobody sends a frame more often than this after the first time."""
GPS_EPOCH_UNIX_S = 315_964_800
GPS_LEAP_S = 18

TURNS_TRIED = 8
"""Turns of the 16 bits beyond the one that a frame may be in; only to say what is wrong with it."""

REASONS = ("counter_jump", "dev_addr", "mic", "replay")
"""Why a well-formed uplink is refused: its counter is out of reach, not this session's address, not its key,
not new."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A genuine uplink: decrypted, with its full counter.

    `f_port` None: the frame carried no payload.  FPort 0 payloads are MAC commands and are given, like
    those in FOpts, in `commands`; `skipped` bytes of commands were unknown.
    """

    f_cnt: int
    f_port: int | None
    payload: bytes
    confirmed: bool
    ack: bool
    adr: bool
    adr_ack_req: bool
    retransmission: bool
    commands: tuple[MacCommand, ...] = ()
    skipped: int = 0


@dataclass(slots=True)
class Session:
    """One device's session at the network; counters are 32 bits, `f_cnt_up` is the last accepted one."""

    dev_eui: str
    dev_addr: int
    nwk_s_key: bytes = field(repr=False)
    app_s_key: bytes = field(repr=False)
    f_cnt_up: int | None = None
    f_cnt_down: int = 0
    rx1_delay_us: int = 1_000_000
    rx1_dr_offset: int = 0
    rx2_frequency_hz: int = 869_525_000
    rx2_data_rate: int = 0
    downlink_dwell: bool | None = None
    """Whether the dwell-time limit holds for its downlinks; None: as at boot."""
    rx1_frequencies_hz: dict[int, int] = field(default_factory=dict)
    """Uplink frequency -> that of RX1, where a DlChannelReq moved it."""
    nwk: AesKey = field(init=False, repr=False, compare=False)
    app: AesKey = field(init=False, repr=False, compare=False)
    last_mic: bytes | None = field(init=False, repr=False, compare=False, default=None)
    retransmissions: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        self.nwk = AesKey(self.nwk_s_key)
        self.app = AesKey(self.app_s_key)

    def to_row(self) -> Row:
        """The columns of the table `session`; its key is the DevEUI."""
        return {
            "dev_addr": self.dev_addr,
            "nwk_s_key": self.nwk_s_key,
            "app_s_key": self.app_s_key,
            "f_cnt_up": self.f_cnt_up,
            "f_cnt_down": self.f_cnt_down,
            "rx1_delay_us": self.rx1_delay_us,
            "rx1_dr_offset": self.rx1_dr_offset,
            "rx2_frequency_hz": self.rx2_frequency_hz,
            "rx2_data_rate": self.rx2_data_rate,
            "downlink_dwell": None if self.downlink_dwell is None else int(self.downlink_dwell),
            "rx1_frequencies": " ".join(f"{up}:{down}" for up, down in self.rx1_frequencies_hz.items()),
        }

    @classmethod
    def from_row(cls, dev_eui: str, row: Row) -> Session:
        """The session that `to_row` described; ValueError names a column of the wrong type."""
        return cls(
            dev_eui=dev_eui,
            dev_addr=_integer(row, "dev_addr"),
            nwk_s_key=_key(row, "nwk_s_key"),
            app_s_key=_key(row, "app_s_key"),
            f_cnt_up=None if row["f_cnt_up"] is None else _integer(row, "f_cnt_up"),
            f_cnt_down=_integer(row, "f_cnt_down"),
            rx1_delay_us=_integer(row, "rx1_delay_us"),
            rx1_dr_offset=_integer(row, "rx1_dr_offset"),
            rx2_frequency_hz=_integer(row, "rx2_frequency_hz"),
            rx2_data_rate=_integer(row, "rx2_data_rate"),
            downlink_dwell=None if row.get("downlink_dwell") is None else bool(row["downlink_dwell"]),
            rx1_frequencies_hz=_frequencies(str(row.get("rx1_frequencies") or "")),
        )


def _frequencies(text: str) -> dict[int, int]:
    pairs = (pair.split(":") for pair in text.split())
    return {int(up): int(down) for up, down in pairs}


def candidate_f_cnt(last: int | None, f_cnt16: int) -> int | None:
    """The smallest 32-bit counter not below `last` with these low 16 bits; None when there is none left."""
    if last is None:
        return f_cnt16
    candidate = (last & ~0xFFFF) | f_cnt16
    if candidate < last:
        candidate += 0x10000
    return candidate if candidate <= F_CNT_MAX else None


def accept(session: Session, frame: DataFrame) -> Accepted | Malformed:
    """Judge an uplink; the session's counter moves only when the integrity code is right."""
    assert frame.uplink, "the network accepts uplinks"
    if frame.dev_addr != session.dev_addr:
        return Malformed("dev_addr", f"{frame.dev_addr:08x}")
    last = session.f_cnt_up
    f_cnt = _genuine_f_cnt(session, frame)
    if f_cnt is None:
        return _refusal(session, frame)
    retransmission = f_cnt == last
    if retransmission:
        known = session.last_mic is None or same_mic(session.last_mic, frame.mic)
        if not known or session.retransmissions >= RETRANSMISSIONS_MAX:
            return Malformed("replay", f"FCnt {f_cnt} again")
        session.retransmissions += 1
    else:
        session.f_cnt_up = f_cnt
        session.retransmissions = 0
    session.last_mic = frame.mic
    key = session.nwk if frame.f_port == 0 else session.app
    payload = cipher_payload(key, frame.frm_payload, uplink=True, dev_addr=frame.dev_addr, f_cnt=f_cnt)
    commands, skipped = mac_commands(payload if frame.f_port == 0 else frame.f_opts, uplink=True)
    return Accepted(
        f_cnt,
        frame.f_port,
        payload,
        frame.confirmed,
        frame.ack,
        frame.adr,
        frame.adr_ack_req,
        retransmission,
        commands,
        skipped,
    )


def _genuine_f_cnt(session: Session, frame: DataFrame) -> int | None:
    """The counter with which the frame is genuine and not old; None if there is none."""
    f_cnt = candidate_f_cnt(session.f_cnt_up, frame.f_cnt)
    if f_cnt is None or _genuine(session, frame, f_cnt):
        return f_cnt
    if (
        f_cnt == session.f_cnt_up
        and f_cnt + 0x10000 <= F_CNT_MAX
        and _genuine(session, frame, f_cnt + 0x10000)
    ):
        return f_cnt + 0x10000
    return None


def _genuine(session: Session, frame: DataFrame, f_cnt: int) -> bool:
    mic = data_mic(session.nwk, frame.signed, uplink=True, dev_addr=frame.dev_addr, f_cnt=f_cnt)
    return same_mic(mic, frame.mic)


def _refusal(session: Session, frame: DataFrame) -> Malformed:
    """Tell an old frame of this device (replayed) from one that is not its own (forged or foreign).

    Only the nearest older counter is tried; a replay from an earlier turn of the 16 bits looks forged.
    A counter that has run out of reach (more than 65,535 frames were not heard) is tried for some turns.
    """
    if session.f_cnt_up is not None:
        older = (session.f_cnt_up & ~0xFFFF) | frame.f_cnt
        if older > session.f_cnt_up:
            older -= 0x10000
        if older >= 0 and _genuine(session, frame, older):
            return Malformed("replay", f"FCnt {older} after {session.f_cnt_up}")
    nearest = candidate_f_cnt(session.f_cnt_up, frame.f_cnt)
    for turn in range(1, TURNS_TRIED + 1):
        far = F_CNT_MAX + 1 if nearest is None else nearest + turn * 0x10000
        if far <= F_CNT_MAX and _genuine(session, frame, far):
            last = "none" if session.f_cnt_up is None else session.f_cnt_up
            return Malformed("counter_jump", f"FCnt {far} after {last}")
    return Malformed("mic", f"FCnt {frame.f_cnt} of {frame.dev_addr:08x}")


def downlink(
    session: Session,
    *,
    f_port: int | None = None,
    payload: bytes = b"",
    ack: bool = False,
    confirmed: bool = False,
    f_pending: bool = False,
    adr: bool = False,
    f_opts: bytes = b"",
) -> bytes:
    """The next downlink's PHYPayload; its counter is used up even if the frame is never sent."""
    key = session.nwk if f_port == 0 else session.app
    f_cnt = session.f_cnt_down
    if f_cnt > F_CNT_MAX:
        raise ValueError(f"{session.dev_eui}: the downlink counter is used up, the device has to join again")
    cipher = cipher_payload(key, payload, uplink=False, dev_addr=session.dev_addr, f_cnt=f_cnt)
    signed = encode_data(
        uplink=False,
        dev_addr=session.dev_addr,
        f_cnt=f_cnt,
        f_port=f_port,
        frm_payload=cipher,
        confirmed=confirmed,
        adr=adr,
        ack=ack,
        bit4=f_pending,
        f_opts=f_opts,
    )
    session.f_cnt_down = f_cnt + 1
    return seal_data(session.nwk, signed, uplink=False, dev_addr=session.dev_addr, f_cnt=f_cnt)


def seal_data(nwk: AesKey, signed: bytes, *, uplink: bool, dev_addr: int, f_cnt: int) -> bytes:
    """A data frame with its integrity code appended."""
    return signed + data_mic(nwk, signed, uplink=uplink, dev_addr=dev_addr, f_cnt=f_cnt)


def mac_answers(accepted: Accepted, *, margin_db: int, gateways: int, heard_unix_us: int) -> bytes:
    """FOpts that answer an uplink's LinkCheckReq and DeviceTimeReq (0..9 B); other commands need none.

    `margin_db` above the demodulation floor and the number of gateways that heard it; the time is that
    of the end of the uplink.
    """
    asked = {command.cid for command in accepted.commands}
    answers = b""
    if 0x02 in asked:
        answers += bytes((0x02, min(max(margin_db, 0), 254), min(max(gateways, 1), 255)))
    if 0x0D in asked:
        gps_us = heard_unix_us + (GPS_LEAP_S - GPS_EPOCH_UNIX_S) * 1_000_000
        seconds, fraction_us = divmod(gps_us, 1_000_000)
        answers += (
            b"\x0d" + (seconds & 0xFFFFFFFF).to_bytes(4, "little") + bytes((fraction_us * 256 // 1_000_000,))
        )
    return answers


@dataclass(slots=True)
class MulticastGroup:
    """The sending half of a class C group; `f_cnt` is the counter of the next frame."""

    mc_addr: int
    nwk_s_key: bytes = field(repr=False)
    app_s_key: bytes = field(repr=False)
    f_cnt: int
    frequency_hz: int
    data_rate: int
    mc_key: bytes | None = field(default=None, repr=False)
    """What both keys were derived from, where that is known."""
    nwk: AesKey = field(init=False, repr=False, compare=False)
    app: AesKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.nwk = AesKey(self.nwk_s_key)
        self.app = AesKey(self.app_s_key)

    def frame(self, f_port: int, payload: bytes) -> bytes:
        """The next multicast PHYPayload; multicast frames are unconfirmed and carry no MAC commands."""
        if f_port == 0:
            raise ValueError("multicast carries no MAC commands: FPort 0 is not for it")
        f_cnt = self.f_cnt
        if f_cnt > F_CNT_MAX:
            raise ValueError("the group's counter is used up: set up the group anew")
        cipher = cipher_payload(self.app, payload, uplink=False, dev_addr=self.mc_addr, f_cnt=f_cnt)
        signed = encode_data(
            uplink=False, dev_addr=self.mc_addr, f_cnt=f_cnt, f_port=f_port, frm_payload=cipher
        )
        self.f_cnt = f_cnt + 1
        return seal_data(self.nwk, signed, uplink=False, dev_addr=self.mc_addr, f_cnt=f_cnt)

    def to_row(self) -> Row:
        """The columns of the table `multicast`; its key is the group's name."""
        return {
            "mc_addr": self.mc_addr,
            "nwk_s_key": self.nwk_s_key,
            "app_s_key": self.app_s_key,
            "f_cnt": self.f_cnt,
            "frequency_hz": self.frequency_hz,
            "data_rate": self.data_rate,
            "mc_key": self.mc_key,
        }

    @classmethod
    def from_row(cls, row: Row) -> MulticastGroup:
        """The group that `to_row` described; ValueError names a column of the wrong type."""
        return cls(
            mc_addr=_integer(row, "mc_addr"),
            nwk_s_key=_key(row, "nwk_s_key"),
            app_s_key=_key(row, "app_s_key"),
            f_cnt=_integer(row, "f_cnt"),
            frequency_hz=_integer(row, "frequency_hz"),
            data_rate=_integer(row, "data_rate"),
            mc_key=None if row.get("mc_key") is None else _key(row, "mc_key"),
        )


def _integer(row: Row, column: str) -> int:
    value: Scalar = row[column]
    if not isinstance(value, int):
        raise ValueError(f"the stored column {column} should be a number")
    return value


def _key(row: Row, column: str) -> bytes:
    value: Scalar = row[column]
    if not isinstance(value, bytes):
        raise ValueError(f"the stored column {column} should be a key")
    return value
