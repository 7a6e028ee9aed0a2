"""What the network has set up in an end device, and how the device obeys MAC commands (LoRaWAN 1.0.4
section 5).

Theory of operation.  Commands of a genuine class A downlink are obeyed in their order, and each has an
answer. A request is taken whole or not at all; contiguous LinkADRReq are one request with as many equal
answers, and a second block in the same frame is refused.  A device that does not set its ADR bit takes
channel masks only. Answers go into the FOpts of the next uplink as far as there is room, the others into
the one after it.  Those on which the receive windows depend (RXParamSetup, RXTimingSetup, DlChannel) go
into every uplink until a class A downlink shows that the network knows.

A device that adapts counts its uplinks since the last downlink.  From `ADR_ACK_LIMIT` on it asks for one;
after each `ADR_ACK_DELAY` more it goes a step back: full power, then data rate by data rate, at last one
transmission per frame on all channels that every device knows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from swarm.effects import Malformed
from swarm.mac.channel_plan import (
    DYNAMIC_CHANNELS,
    all_channels,
    apply_mask,
    channels_of,
    is_fixed,
)
from swarm.phy.regions import Channel, Region
from swarm.wire.lorawan import FOPTS_MAX, MacCommand, cf_list_channels
from swarm.wire.mac_commands import (
    KEEP,
    STICKY,
    Ack,
    Answer,
    DevStatusAns,
    DevStatusReq,
    DlChannelReq,
    DutyCycleReq,
    LinkAdrReq,
    NewChannelReq,
    RxParamSetupReq,
    RxTimingSetupReq,
    TxParamSetupReq,
    decode_request,
    encode,
)

__all__ = ["ADR_ACK_DELAY", "ADR_ACK_LIMIT", "DeviceMac"]

ADR_ACK_LIMIT = 64
ADR_ACK_DELAY = 32
ANSWERS_MAX = 64
"""Answers that wait for an uplink; a network that asks for more has asked for none of the others."""
_KEPT = (
    *("data_rate", "tx_power", "nb_trans", "max_duty_cycle", "rx1_delay_us", "rx1_dr_offset"),
    *("rx2_frequency_hz", "rx2_data_rate", "uplink_dwell", "downlink_dwell", "adr_ack_count", "channels"),
)


@dataclass(slots=True)
class DeviceMac:
    """The settings of one device.  `plan` are its channels by index, `channels` those in use, a bit for each;
    `tx_power` is an index of the region's table, 0 the most; dwell times None: as at boot."""

    region: Region
    plan: list[Channel | None]
    channels: int
    data_rate: int = 0
    adr: bool = False
    battery: int = 255
    tx_power: int = 0
    nb_trans: int = 1
    max_duty_cycle: int = 0
    rx1_delay_us: int = 0
    rx1_dr_offset: int = 0
    rx2_frequency_hz: int = 0
    rx2_data_rate: int = 0
    uplink_dwell: bool | None = None
    downlink_dwell: bool | None = None
    adr_ack_count: int = 0
    boot: tuple[Channel, ...] = ()
    """The channels that it knows without a network."""
    rx1_frequencies_hz: dict[int, int] = field(default_factory=dict)
    """Uplink frequency -> that of RX1, where a DlChannelReq moved it."""
    sticky: list[bytes] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)

    @classmethod
    def at_boot(cls, region: Region, known: Sequence[Channel], *, adr: bool, data_rate: int) -> DeviceMac:
        """As a device is switched on: it uses the channels `known`."""
        mac = cls(region, [], 0, data_rate=data_rate, adr=adr, boot=tuple(known))
        mac.new_session((region.receive_delays_us[0], 0, region.rx2_frequency_hz, region.rx2_data_rate))
        return mac

    def new_session(self, windows: tuple[int, int, int, int], cf_list: bytes = b"") -> None:
        """A join: what the session before had been told is forgotten; `windows` as the accept says them."""
        self.rx1_delay_us, self.rx1_dr_offset, self.rx2_frequency_hz, self.rx2_data_rate = windows
        self.tx_power, self.nb_trans, self.max_duty_cycle, self.adr_ack_count = 0, 1, 0, 0
        self.uplink_dwell = self.downlink_dwell = None
        self.rx1_frequencies_hz.clear()
        self.sticky, self.answers = [], []
        self.plan = list(self.region.uplink_channels if is_fixed(self.region) else self.boot)
        self.channels = sum(1 << self.plan.index(channel) for channel in self.boot)
        self.add_frequencies(cf_list_channels(cf_list))
        self.channels = channels_of(self.region, cf_list) or self.channels

    def add_frequencies(self, frequencies_hz: Sequence[int]) -> None:
        """Use the channels of a CFList, except those on which the region allows no signal."""
        like = self.region.uplink_channels[0]
        for frequency_hz in frequencies_hz:
            known = {channel.frequency_hz for channel in self.plan if channel is not None}
            if frequency_hz not in known and self.region.allows(frequency_hz):
                self.plan.append(replace(like, frequency_hz=frequency_hz))
                self.channels |= 1 << len(self.plan) - 1

    def in_use(self) -> tuple[Channel, ...]:
        """The channels it hops over, by index."""
        return tuple(c for i, c in enumerate(self.plan) if c is not None and self.channels >> i & 1)

    def power_offset_db(self) -> int:
        """By how much less than the most it sends, in dB, not positive."""
        return self.region.tx_power_offsets_db[self.tx_power]

    # -- uplinks ----------------------------------------------------------------------------------

    def next_f_opts(self, room: int) -> bytes:
        """Answers that fit into `room` bytes of FOpts; those that need no repetition are given out once."""
        room = min(room, FOPTS_MAX)
        f_opts = b""
        for answer in self.sticky:
            if len(f_opts) + len(answer) <= room:
                f_opts += answer
        while self.answers and len(f_opts) + len(self.answers[0]) <= room:
            f_opts += self.answers.pop(0)
        return f_opts

    @property
    def asks_for_downlink(self) -> bool:
        """Whether the next uplink sets ADRACKReq: silence for long, and something is left to step back to."""
        return self.adr and self.adr_ack_count >= ADR_ACK_LIMIT and not self._at_the_bottom()

    def sent(self) -> None:
        """A new uplink went out."""
        if not self.adr:
            return
        self.adr_ack_count += 1
        beyond = self.adr_ack_count - ADR_ACK_LIMIT
        if beyond > 0 and beyond % ADR_ACK_DELAY == 0:
            self._step_back()

    def _at_the_bottom(self) -> bool:
        return self.tx_power == 0 and self.data_rate <= self._rates()[0]

    def _step_back(self) -> None:
        if self.tx_power:
            self.tx_power = 0
        elif not self._at_the_bottom():
            self.data_rate = max(rate for rate in self._rates() if rate < self.data_rate)
        else:
            self.nb_trans = 1
            self.channels |= all_channels(self.region)

    def _rates(self) -> list[int]:
        """The data rates that its channels and the dwell time allow, slowest first."""
        rates = [i for i in self.region.uplink_data_rates if self._carries(self.channels, i)]
        return sorted(rates) or [self.data_rate]

    def _carries(self, channels: int, data_rate: int) -> bool:
        rate = self.region.uplink_data_rates.get(data_rate)
        if rate is None or not self.region.payload_max(data_rate, dwell=self.uplink_dwell, uplink=True):
            return False
        used = (c for i, c in enumerate(self.plan) if c is not None and channels >> i & 1)
        return any(channel.data_rate_min <= data_rate <= channel.data_rate_max for channel in used)

    # -- downlinks --------------------------------------------------------------------------------

    def heard(self) -> None:
        """A class A downlink was received: the network is there and has heard the last answers."""
        self.adr_ack_count = 0
        self.sticky.clear()

    def obey(self, commands: Sequence[MacCommand], snr_db: float) -> None:
        """Carry out what a genuine downlink asks for; `snr_db` is its own."""
        adapted = False
        for cid, group in groupby(commands, key=lambda command: command.cid):
            block = [decode_request(command) for command in group]
            if cid == LinkAdrReq.cid:
                requests = [each for each in block if isinstance(each, LinkAdrReq)]
                status = 0 if adapted else self._link_adr(requests)
                adapted = True
                self._answer(*(encode(Ack(cid, status)) for _ in requests))
                continue
            for request in block:
                answer = None if isinstance(request, Malformed) else self._obey(request, snr_db)
                if answer is not None:
                    (self._stick if cid in STICKY else self._answer)(encode(answer))

    def _answer(self, *answers: bytes) -> None:
        if len(self.answers) + len(answers) <= ANSWERS_MAX:
            self.answers += answers

    def _stick(self, answer: bytes) -> None:
        if len(self.sticky) < ANSWERS_MAX:
            self.sticky.append(answer)

    def _obey(self, request: object, snr_db: float) -> Answer | None:
        match request:
            case DutyCycleReq():
                self.max_duty_cycle = request.max_duty_cycle
                return Ack(request.cid)
            case RxParamSetupReq():
                return self._rx_param_setup(request)
            case DevStatusReq():
                return DevStatusAns(self.battery, max(-32, min(31, round(snr_db))))
            case NewChannelReq():
                return None if is_fixed(self.region) else self._new_channel(request)
            case RxTimingSetupReq():
                self.rx1_delay_us = request.rx1_delay_s * 1_000_000
                return Ack(request.cid)
            case TxParamSetupReq() if self.region.tx_param_setup:
                self.uplink_dwell, self.downlink_dwell = request.uplink_dwell, request.downlink_dwell
                return Ack(request.cid)
            case DlChannelReq():
                return None if is_fixed(self.region) else self._dl_channel(request)
            case _:
                return None

    def _link_adr(self, requests: Sequence[LinkAdrReq]) -> int:
        """The status of one block of LinkADRReq, which is in force when it is 7."""
        defined = sum(1 << i for i, channel in enumerate(self.plan) if channel is not None)
        channels: int | None = self.channels
        for request in requests:
            if channels is not None:
                channels = apply_mask(self.region, channels, request.ch_mask_cntl, request.ch_mask, defined)
        last = requests[-1]
        data_rate = self.data_rate if last.data_rate == KEEP else last.data_rate
        tx_power = self.tx_power if last.tx_power == KEEP else last.tx_power
        mask_ok = bool(channels)
        if not self.adr:
            status = mask_ok | (last.data_rate == KEEP) << 1 | (last.tx_power == KEEP) << 2
            if channels and self._carries(channels, self.data_rate):
                self.channels = channels
                return status
            return status & 6
        rate_ok = self._carries(channels or self.channels, data_rate)
        power_ok = tx_power < len(self.region.tx_power_offsets_db)
        if channels and rate_ok and power_ok:
            self.channels, self.data_rate, self.tx_power = channels, data_rate, tx_power
            self.nb_trans = last.nb_trans or 1
        return mask_ok | rate_ok << 1 | power_ok << 2

    def _rx_param_setup(self, request: RxParamSetupReq) -> Ack:
        region = self.region
        offset_ok = request.rx1_dr_offset < len(region.rx1_data_rates[self.data_rate])
        rate_ok = request.rx2_data_rate in region.downlink_data_rates
        frequency_ok = self.region.allows(request.rx2_frequency_hz)
        if offset_ok and rate_ok and frequency_ok:
            self.rx1_dr_offset = request.rx1_dr_offset
            self.rx2_data_rate, self.rx2_frequency_hz = request.rx2_data_rate, request.rx2_frequency_hz
        return Ack(request.cid, frequency_ok | rate_ok << 1 | offset_ok << 2)

    def _new_channel(self, request: NewChannelReq) -> Ack:
        index, frequency_hz = request.index, request.frequency_hz
        if index < len(self.region.uplink_channels) or index >= DYNAMIC_CHANNELS:
            return Ack(request.cid)
        low, high = request.data_rate_min, request.data_rate_max
        rates = self.region.uplink_data_rates
        rates_ok = low <= high and low in rates and high in rates
        frequency_ok = frequency_hz == 0 or self.region.allows(frequency_hz)
        if rates_ok and frequency_ok:
            self.plan += [None] * (index + 1 - len(self.plan))
            self.rx1_frequencies_hz.pop(frequency_hz, None)
            self.plan[index] = Channel(frequency_hz, low, high) if frequency_hz else None
            self.channels = self.channels & ~(1 << index) | bool(frequency_hz) << index
        return Ack(request.cid, frequency_ok | rates_ok << 1)

    def _dl_channel(self, request: DlChannelReq) -> Ack:
        channel = self.plan[request.index] if request.index < len(self.plan) else None
        frequency_ok = self.region.allows(request.frequency_hz)
        if channel is not None and frequency_ok:
            self.rx1_frequencies_hz[channel.frequency_hz] = request.frequency_hz
        return Ack(request.cid, frequency_ok | (channel is not None) << 1)

    # -- memory across a restart ------------------------------------------------------------------

    def to_text(self) -> str:
        """What a device keeps in its non-volatile memory."""
        plan = [None if c is None else [c.frequency_hz, c.data_rate_min, c.data_rate_max] for c in self.plan]
        kept = {name: getattr(self, name) for name in _KEPT}
        moved = sorted(self.rx1_frequencies_hz.items())
        sticky = [answer.hex() for answer in self.sticky]
        return json.dumps({**kept, "plan": plan, "rx1": moved, "sticky": sticky})

    def restore(self, text: str) -> None:
        """Go on from `to_text`."""
        kept = json.loads(text)
        for name in _KEPT:
            setattr(self, name, kept[name])
        self.plan = [None if each is None else Channel(*each) for each in kept["plan"]]
        self.rx1_frequencies_hz = {int(up): int(down) for up, down in kept["rx1"]}
        self.sticky = [bytes.fromhex(answer) for answer in kept["sticky"]]
