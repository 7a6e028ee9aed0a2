"""The end device's half of LoRaWAN class A and of multicast, as a thousand simulated nodes run it.

Theory of operation.  A device has a session from the start (ABP) or asks for one (OTAA): each join request
takes the next DevNonce and is followed by two receive windows; when, `swarm.mac.join_pace` says.  What the
network has set up, and MAC commands, are `swarm.mac.device_commands`.  An uplink takes the next counter,
hops to a channel drawn from the device's own stream and starts when the last uplink's receive windows are
over and the airtime ledger allows; if the drawn channel's sub-band is spent, the channel that is free first
is taken.  Downlinks must carry a counter above the last one and a right integrity code; groups judge their
frames themselves (`swarm.mac.group`).  Counters never move back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from swarm.effects import Malformed, Purpose, Row
from swarm.mac.device_commands import DeviceMac
from swarm.mac.group import GROUP_REASONS, Delivered, MulticastMemo, ReceivingGroup, genuine_f_cnt
from swarm.mac.join_pace import JoinPace
from swarm.mac.ledger import AirtimeLedger
from swarm.mac.session import F_CNT_MAX, seal_data
from swarm.phy.regions import Channel, Region
from swarm.prng import Prng
from swarm.security.lorawan import (
    AesKey,
    cipher_payload,
    open_join_accept,
    session_keys,
)
from swarm.wire.lorawan import (
    FOPTS_MAX,
    DataFrame,
    SealedJoinAccept,
    encode_data,
    encode_join_request,
    mac_commands,
    parse_downlink,
    parse_join_accept,
)

__all__ = [
    "GROUPS_MAX",
    "REASONS",
    "RX_WINDOW_US",
    "AbpIdentity",
    "Delivered",
    "EndDevice",
    "Joined",
    "MulticastMemo",
    "OtaaIdentity",
    "RxWindow",
    "UplinkFrame",
]

GROUPS_MAX = 4
"""Multicast groups of one device (TS005 knows four)."""
RX_WINDOW_US = 200_000
"""How long a receive window without a frame keeps the radio busy, at most."""

REASONS = (*GROUP_REASONS, "dev_addr", "join_accept")
"""Why a well-formed downlink is refused: as a group does, or it is for somebody else, or a join accept that
nobody asked for or that is not ours.  The reasons of `swarm.wire.lorawan` come besides."""

_FOREIGN = Malformed("dev_addr")
_MASK64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class AbpIdentity:
    """A device whose session is fixed."""

    dev_addr: int
    nwk_s_key: bytes = field(repr=False)
    app_s_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class OtaaIdentity:
    """A device that joins."""

    dev_eui: str
    join_eui: str
    app_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class UplinkFrame:
    """A PHYPayload to send at `at_us`; `join` tells which delays its receive windows have."""

    payload: bytes
    frequency_hz: int
    data_rate: int
    airtime_us: int
    at_us: int
    f_cnt: int
    confirmed: bool = False
    join: bool = False

    @property
    def end_us(self) -> int:
        """The end of the transmission, from which the receive windows are counted."""
        return self.at_us + self.airtime_us


@dataclass(frozen=True, slots=True)
class RxWindow:
    """When, where and at which downlink data rate the device listens."""

    open_us: int
    frequency_hz: int
    data_rate: int


@dataclass(frozen=True, slots=True)
class Joined:
    """The join accept was ours: the device has a session now."""

    dev_addr: int


class EndDevice:
    """One device.  `data_rate` (uplink index) may be set at any time; times are us of the world's clock.

    `channels` are those it hops over (default: all of the region's; before a join, the default ones); `adr`:
    the network may choose data rate and power.
    """

    __slots__ = (
        "_ack_next",
        "_app",
        "_dice",
        "_duty_free_us",
        "_free_us",
        "_frequencies",
        "_groups",
        "_identity",
        "_join_pace",
        "_joining",
        "_memo",
        "_nwk",
        "_region",
        "_root",
        "_sent_us",
        "commands_skipped",
        "dev_addr",
        "dev_nonce",
        "f_cnt_down",
        "f_cnt_up",
        "join_nonce",
        "ledger",
        "mac",
    )

    def __init__(
        self,
        region: Region,
        identity: AbpIdentity | OtaaIdentity,
        prng: Prng,
        *,
        memo: MulticastMemo | None = None,
        data_rate: int = 0,
        channels: Sequence[Channel] | None = None,
        adr: bool = False,
    ) -> None:
        self._region = region
        self._identity = identity
        self._dice = prng.u64()
        self._memo = MulticastMemo() if memo is None else memo
        self._groups: dict[bytes, ReceivingGroup] = {}
        self._nwk: AesKey | None = None
        self._app: AesKey | None = None
        self._root: AesKey | None = None
        self.ledger = AirtimeLedger(region)
        known = region.uplink_channels if isinstance(identity, OtaaIdentity) else region.channels
        known = known if channels is None else tuple(channels)
        self.mac = DeviceMac.at_boot(region, known, adr=adr, data_rate=data_rate)
        self.dev_addr: int | None = None
        self.f_cnt_up = 0
        self.f_cnt_down: int | None = None
        self.dev_nonce = 0
        self.join_nonce: int | None = None
        self.commands_skipped = 0
        self._ack_next = False
        self._sent_us = 0
        self._free_us = 0
        self._duty_free_us = 0
        self._joining: int | None = None
        self._join_pace = JoinPace(self._draw)
        self._frequencies: dict[tuple[int, bool], tuple[int, ...]] = {}
        if isinstance(identity, AbpIdentity):
            self.dev_addr = identity.dev_addr
            self._nwk, self._app = AesKey(identity.nwk_s_key), AesKey(identity.app_s_key)
        else:
            self._root = AesKey(identity.app_key)

    def __repr__(self) -> str:
        address = "not joined" if self.dev_addr is None else f"{self.dev_addr:08x}"
        return f"EndDevice({address}, f_cnt_up={self.f_cnt_up})"

    @property
    def joined(self) -> bool:
        """Whether the device has a session."""
        return self._nwk is not None

    @property
    def data_rate(self) -> int:
        """Uplink data-rate index."""
        return self.mac.data_rate

    @data_rate.setter
    def data_rate(self, data_rate: int) -> None:
        self.mac.data_rate = data_rate

    def payload_max(self) -> int:
        """The longest application payload that the next uplink carries beside the answers it has to carry."""
        sticky = sum(len(answer) for answer in self.mac.sticky)
        limit = self._region.payload_max(self.data_rate, dwell=self.mac.uplink_dwell, uplink=True)
        return max(0, limit - sticky)

    # -- sending ----------------------------------------------------------------------------------

    def uplink(
        self,
        now_us: int,
        f_port: int | None,
        payload: bytes = b"",
        confirmed: bool = False,
        *,
        f_opts: bytes = b"",
        purpose: Purpose = Purpose.TELEMETRY,
    ) -> UplinkFrame:
        """The next uplink, its counter used up and its airtime granted; it starts at `at_us` >= `now_us`.

        ValueError: no session yet, a payload longer than the data rate carries, a spent counter, or a
        frame that the region never allows.
        """
        if self._nwk is None or self._app is None or self.dev_addr is None:
            raise ValueError("the device has not joined")
        mac = self.mac
        limit = self._region.payload_max(
            self.data_rate, dwell=mac.uplink_dwell, fopts=len(f_opts), uplink=True
        )
        if len(payload) > limit:
            raise ValueError(f"{len(payload)} B at DR{self.data_rate}: at most {limit} B")
        f_cnt, address = self.f_cnt_up, self.dev_addr
        if f_cnt > F_CNT_MAX:
            raise ValueError("the uplink counter is used up")
        if f_port != 0:
            f_opts += mac.next_f_opts(min(limit - len(payload), FOPTS_MAX - len(f_opts)))
        cipher = cipher_payload(
            self._nwk if f_port == 0 else self._app, payload, uplink=True, dev_addr=address, f_cnt=f_cnt
        )
        signed = encode_data(
            uplink=True,
            dev_addr=address,
            f_cnt=f_cnt,
            f_port=f_port,
            frm_payload=cipher,
            confirmed=confirmed,
            adr=mac.adr,
            adr_ack_req=mac.asks_for_downlink,
            ack=self._ack_next,
            f_opts=f_opts,
        )
        phy = seal_data(self._nwk, signed, uplink=True, dev_addr=address, f_cnt=f_cnt)
        frame = self._plan(now_us, UplinkFrame(phy, 0, self.data_rate, 0, 0, f_cnt, confirmed), purpose)
        self.f_cnt_up = f_cnt + 1
        self._ack_next = False
        mac.sent()
        return frame

    def again(self, now_us: int, frame: UplinkFrame, purpose: Purpose = Purpose.REPAIR) -> UplinkFrame:
        """Retransmit a data frame: the same bytes and counter, a new channel and time."""
        if frame.join:
            raise ValueError("a join request is never sent twice: call join()")
        return self._plan(now_us, frame, purpose)

    def join(self, now_us: int) -> UplinkFrame:
        """The next join request, with the next DevNonce; back-off and join duty cycle decide when.

        ValueError: an ABP device, or all 65536 nonces are used.
        """
        if not isinstance(self._identity, OtaaIdentity) or self._root is None:
            raise ValueError("an ABP device does not join")
        if self.dev_nonce > 0xFFFF:
            raise ValueError("every DevNonce was used: the device needs a new AppKey")
        signed = encode_join_request(self._identity.join_eui, self._identity.dev_eui, self.dev_nonce)
        phy = signed + self._root.mic(signed)
        airtime_us = self._region.airtime_us(self.data_rate, len(phy), uplink=True)
        start_us = self._join_pace.start_us(now_us, airtime_us)
        request = UplinkFrame(phy, 0, self.data_rate, 0, 0, self.dev_nonce, join=True)
        frame = self._plan(start_us, request, Purpose.JOIN)
        self._joining = self.dev_nonce
        self.dev_nonce += 1
        self._join_pace.asked(frame.at_us, frame.airtime_us, self._free_us)
        return frame

    def rx_windows(self, frame: UplinkFrame) -> tuple[RxWindow, RxWindow]:
        """RX1 and RX2 after this uplink."""
        region, mac = self._region, self.mac
        delays_us = self._delays_us(frame.join)
        offset = 0 if frame.join else mac.rx1_dr_offset
        dwell = frame.join or mac.downlink_dwell is not False
        frequency_hz, data_rate = region.rx1(frame.data_rate, frame.frequency_hz, offset, dwell=dwell)
        if not frame.join:
            frequency_hz = mac.rx1_frequencies_hz.get(frame.frequency_hz, frequency_hz)
        rx2 = (mac.rx2_frequency_hz, mac.rx2_data_rate)
        if frame.join:
            rx2 = (region.rx2_frequency_hz, region.rx2_data_rate)
        end_us = frame.end_us
        return RxWindow(end_us + delays_us[0], frequency_hz, data_rate), RxWindow(end_us + delays_us[1], *rx2)

    def _delays_us(self, join: bool) -> tuple[int, int]:
        if join:
            return self._region.join_accept_delays_us
        return self.mac.rx1_delay_us, self.mac.rx1_delay_us + 1_000_000

    def _plan(self, not_before_us: int, frame: UplinkFrame, purpose: Purpose) -> UplinkFrame:
        """The frame with channel, start and granted airtime."""
        rate = self._region.data_rate(frame.data_rate, uplink=True)
        airtime_us = self._region.airtime_us(frame.data_rate, len(frame.payload), uplink=True)
        not_before_us = max(not_before_us, self._free_us, self._duty_free_us)
        frequencies = self._frequencies_at(frame.data_rate, frame.join)
        frequency_hz = frequencies[self._draw(len(frequencies))]
        at_us = self.ledger.earliest_us(frequency_hz, rate.bandwidth_hz, airtime_us, not_before_us)
        if at_us != not_before_us:
            frequency_hz, at_us = self._soonest(frequencies, rate.bandwidth_hz, airtime_us, not_before_us)
        self.ledger.grant(at_us, frequency_hz, rate.bandwidth_hz, airtime_us, purpose)
        self._sent_us = at_us + airtime_us
        if self.mac.max_duty_cycle:
            self._duty_free_us = at_us + (airtime_us << self.mac.max_duty_cycle)
        self._free_us = self._sent_us + self._delays_us(frame.join)[1] + RX_WINDOW_US
        return _placed(frame, frequency_hz, airtime_us, at_us)

    def _soonest(
        self, frequencies: tuple[int, ...], bandwidth_hz: int, airtime_us: int, not_before_us: int
    ) -> tuple[int, int]:
        """The channel that is free first, drawn among equals, and when."""
        starts = [
            (at_us, frequency)
            for frequency in frequencies
            if (at_us := self.ledger.earliest_us(frequency, bandwidth_hz, airtime_us, not_before_us))
            is not None
        ]
        if not starts:
            raise ValueError(f"{airtime_us} us on the air are never allowed in {self._region.name}")
        first_us = min(starts)[0]
        equal = [frequency for at_us, frequency in starts if at_us == first_us]
        return equal[self._draw(len(equal))], first_us

    def _frequencies_at(self, data_rate: int, join: bool) -> tuple[int, ...]:
        """The channels that carry this data rate; a join goes over those known before any join."""
        known = self._frequencies.get((data_rate, join))
        if known is None:
            channels = self.mac.boot if join else self.mac.in_use()
            fitting = [c for c in channels if c.data_rate_min <= data_rate <= c.data_rate_max]
            if not fitting:
                raise ValueError(f"no channel carries DR{data_rate}")
            known = self._frequencies[data_rate, join] = tuple(channel.frequency_hz for channel in fitting)
        return known

    def _draw(self, below: int) -> int:
        """A number 0..below-1 of the device's own stream (splitmix64)."""
        self._dice = mixed = (self._dice + 0x9E3779B97F4A7C15) & _MASK64
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK64
        return ((mixed ^ (mixed >> 31)) * below) >> 64

    # -- receiving --------------------------------------------------------------------------------

    def receive(self, now_us: int, phy: bytes, snr_db: float = 0.0) -> Delivered | Joined | Malformed:
        """Judge the bytes of a downlink whose last bit arrived at `now_us`; never raises on any bytes."""
        group = self._groups.get(phy[1:5])
        if group is not None and phy[0] >> 5 != 1:
            return group.receive(phy, self._memo)
        frame = parse_downlink(phy)
        if isinstance(frame, Malformed):
            return frame
        result = (
            self._open_join(frame.sealed)
            if isinstance(frame, SealedJoinAccept)
            else self._accept(frame, snr_db)
        )
        if not isinstance(result, Malformed) and now_us >= self._sent_us:
            self._free_us = min(self._free_us, now_us)
        return result

    def _accept(self, frame: DataFrame, snr_db: float) -> Delivered | Malformed:
        if self._nwk is None or self._app is None or frame.dev_addr != self.dev_addr:
            return _FOREIGN
        next_f_cnt = 0 if self.f_cnt_down is None else self.f_cnt_down + 1
        f_cnt = genuine_f_cnt(self._nwk, frame, next_f_cnt)
        if isinstance(f_cnt, Malformed):
            return f_cnt
        self.f_cnt_down = f_cnt
        self._ack_next = self._ack_next or frame.confirmed
        key = self._nwk if frame.f_port == 0 else self._app
        payload = cipher_payload(key, frame.frm_payload, uplink=False, dev_addr=frame.dev_addr, f_cnt=f_cnt)
        commands, skipped = mac_commands(payload if frame.f_port == 0 else frame.f_opts, uplink=False)
        self.commands_skipped += skipped
        self.mac.heard()
        if commands:
            self.mac.obey(commands, snr_db)
            self._set_up()
        return Delivered(
            frame.f_port,
            payload,
            False,
            frame.ack,
            f_cnt,
            frame.confirmed,
            frame.bit4,
            commands,
            skipped,
        )

    def _open_join(self, sealed: bytes) -> Joined | Malformed:
        if self._joining is None or self._root is None:
            return Malformed("join_accept", "not asked for")
        plain = open_join_accept(self._root, sealed)
        accept = Malformed("mic") if plain is None else parse_join_accept(plain)
        if isinstance(accept, Malformed):
            return Malformed("join_accept", accept.reason)
        if self.join_nonce is not None and accept.join_nonce <= self.join_nonce:
            return Malformed("join_accept", f"JoinNonce {accept.join_nonce} after {self.join_nonce}")
        region = self._region
        known_rate = accept.rx2_data_rate in region.downlink_data_rates
        if not known_rate or accept.rx1_dr_offset >= len(region.rx1_data_rates[self.data_rate]):
            return Malformed("join_accept", "receive windows that the region does not know")
        keys = session_keys(
            self._root, join_nonce=accept.join_nonce, net_id=accept.net_id, dev_nonce=self._joining
        )
        self._nwk, self._app = AesKey(keys[0]), AesKey(keys[1])
        self.dev_addr, self.join_nonce = accept.dev_addr, accept.join_nonce
        self.f_cnt_up, self.f_cnt_down = 0, None
        windows = (
            accept.rx1_delay_s * 1_000_000,
            accept.rx1_dr_offset,
            region.rx2_frequency_hz,
            accept.rx2_data_rate,
        )
        self.mac.new_session(windows, accept.cf_list)
        self._set_up()
        self._joining, self._ack_next = None, False
        self._join_pace.joined()
        return Joined(accept.dev_addr)

    def _set_up(self) -> None:
        """The network may have changed channels, duty cycle or dwell time."""
        self._frequencies.clear()
        self.ledger.set_dwell(self.mac.uplink_dwell)

    # -- multicast --------------------------------------------------------------------------------

    def add_group(
        self,
        mc_addr: int,
        nwk_s_key: bytes,
        app_s_key: bytes,
        *,
        f_cnt_min: int = 0,
        f_cnt_max: int = F_CNT_MAX,
    ) -> None:
        """Listen to a group whose frames count in [f_cnt_min, f_cnt_max).

        The same group with the same keys never goes back behind what it has received.
        """
        address = mc_addr.to_bytes(4, "little")
        keys = self._memo.keys(nwk_s_key, app_s_key)
        known = self._groups.get(address)
        if known is None and len(self._groups) >= GROUPS_MAX:
            raise ValueError(f"a device has at most {GROUPS_MAX} groups")
        if known is not None and known.keys.nwk == keys.nwk:
            f_cnt_min = max(f_cnt_min, known.f_cnt_next)
        self._groups[address] = ReceivingGroup(mc_addr, keys, f_cnt_min, f_cnt_max)

    def group_counters(self) -> dict[int, int]:
        """Group address -> the smallest counter still to come: what `add_group` needs after a restart."""
        return {group.mc_addr: group.f_cnt_next for group in self._groups.values()}

    # -- memory across a restart ------------------------------------------------------------------

    def to_row(self) -> Row:
        """What a device keeps in its non-volatile memory; a counter that came back would repeat frames."""
        return {
            "dev_addr": self.dev_addr,
            "nwk_s_key": None if self._nwk is None else self._nwk.raw,
            "app_s_key": None if self._app is None else self._app.raw,
            "f_cnt_up": self.f_cnt_up,
            "f_cnt_down": self.f_cnt_down,
            "dev_nonce": self.dev_nonce,
            "join_nonce": self.join_nonce,
            "mac": self.mac.to_text(),
        }

    def restore(self, row: Row) -> None:
        """Go on from `to_row` of an earlier life of this device."""
        nwk, app = row["nwk_s_key"], row["app_s_key"]
        self._nwk = AesKey(nwk) if isinstance(nwk, bytes) else None
        self._app = AesKey(app) if isinstance(app, bytes) else None
        for name in ("dev_addr", "f_cnt_down", "join_nonce"):
            value = row[name]
            setattr(self, name, None if value is None else _integer(row, name))
        for name in ("f_cnt_up", "dev_nonce"):
            setattr(self, name, _integer(row, name))
        self.mac.restore(str(row["mac"]))
        self._set_up()


def _placed(frame: UplinkFrame, frequency_hz: int, airtime_us: int, at_us: int) -> UplinkFrame:
    """The frame on a channel at a time (spelt out: `dataclasses.replace` costs as much as the encryption)."""
    return UplinkFrame(
        frame.payload,
        frequency_hz,
        frame.data_rate,
        airtime_us,
        at_us,
        frame.f_cnt,
        frame.confirmed,
        frame.join,
    )


def _integer(row: Row, column: str) -> int:
    value = row[column]
    if not isinstance(value, int):
        raise ValueError(f"the stored column {column} should be a number")
    return value
