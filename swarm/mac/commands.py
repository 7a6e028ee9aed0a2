"""MAC commands at the network: what each device should be set up as, what it was asked, what it said.

Theory of operation.  What a device should have is compared with what it is known to have, uplink by uplink;
the difference is asked for in the answer to that uplink, as far as there is room.  The next new uplink of
the device either brings the answers, and only then the change counts (receive windows too: the device uses
the new ones from then on), or not, and the difference is asked for again: at most `TRIES_MAX` times, then
not for a day.  What a device refuses is not asked again for a day, and a data rate or power that it refuses
bounds those to come.  A LinkADRReq without an answer is repeated as it was, for the device may have obeyed
it.  Requests whose frame no gateway sent were not asked, and no try.  Requests under way and all that is
known is in one row per device, so a restart forgets nothing; a join forgets all of it.

A device without the ADR bit is told channels only, and whatever the operator wants of everybody.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from swarm.config import Mac
from swarm.effects import Effect, Event, Malformed, Row, RxFrame, Store, integers
from swarm.mac import adr
from swarm.mac.adr import HISTORY, Limits, Setting
from swarm.mac.channel_plan import all_channels, is_fixed, masks_of, sub_band, sub_band_of
from swarm.mac.session import Accepted, Session
from swarm.phy.regions import Region
from swarm.wire.lorawan import FOPTS_MAX, mac_commands
from swarm.wire.mac_commands import (
    EIRP_DBM,
    KEEP,
    Ack,
    Answer,
    DevStatusAns,
    DevStatusReq,
    DlChannelReq,
    DutyCycleReq,
    LinkAdrReq,
    NewChannelReq,
    Request,
    RxParamSetupReq,
    RxTimingSetupReq,
    TxParamSetupReq,
    decode_answer,
    decode_request,
    encode,
)

__all__ = ["TRIES_MAX", "NetworkMac", "NodeMac", "answer_room"]

TABLE = "mac"
TRIES_MAX = 8
REST_US = 86_400_000_000
GAP_MAX = 5
"""Missing uplinks in a row that count as lost; more were the gateway's or the device's silence."""
UPLINKS_BEFORE_STATUS = 5
"""A node of ours has told its battery in a STATUS by then."""


@dataclass(slots=True)
class NodeMac:
    """What is known of one device beside its session; `data_rate` is the one the history was heard with."""

    data_rate: int | None = None
    tx_power: int = 0
    nb_trans: int = 1
    data_rate_max: int | None = None
    tx_power_max: int | None = None
    reversals: int = 0
    heard: int = 0
    lost: int = 0
    snr_db: str = ""
    """The last 20, with spaces between."""
    sub_bands: int = 0
    """Of a fixed plan, those on which it was heard: a bit for each, bit 0 for the first."""
    masked: int = 0
    """1: the device has the operator's channels."""
    max_duty_cycle: int = 0
    tx_param: int | None = None
    """The byte of the TxParamSetupReq in force; None: as at boot."""
    channels_hz: str = ""
    """Those given by NewChannelReq."""
    asked: bytes = b""
    """Requests of the last answer, as sent."""
    repeat: bytes = b""
    """A LinkADRReq without an answer."""
    tries: int = 0
    rest: str = "{}"
    """CID -> until when (us) it is not asked for."""
    status_us: int = 0
    battery: int | None = None
    margin_db: int | None = None

    def to_row(self) -> Row:
        """The columns of the table `mac`; its key is the DevEUI."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_row(cls, row: Row) -> NodeMac:
        """What `to_row` described; ValueError names a column of the wrong type."""
        integers(row, "sub_bands", "tx_power", "nb_trans", "heard", "lost", "tries")
        return cls(**{name: row[name] for name in cls.__slots__})  # type: ignore[arg-type]

    def history(self) -> list[float]:
        return [float(each) for each in self.snr_db.split()]

    def start_over(self, data_rate: int) -> None:
        """The history begins anew, with another setting."""
        self.data_rate, self.heard, self.lost, self.snr_db = data_rate, 0, 0, ""

    def dwell(self) -> bool | None:
        """Whether its uplinks keep to the dwell time; None: as at boot."""
        return None if self.tx_param is None else bool(self.tx_param & 0x10)


class NetworkMac:
    """The set-up of all devices of a cell; `rows` is what earlier stores left."""

    def __init__(self, config: Mac, region: Region, rows: Mapping[str, Mapping[str, Row]]) -> None:
        self._config = config
        self._region = region
        self._nodes = {dev_eui: NodeMac.from_row(row) for dev_eui, row in rows.get(TABLE, {}).items()}
        self.channels = sub_band(region, config.sub_band) if config.sub_band else None
        """Those of the operator's sub-band; None: all."""
        self._carriers: dict[str, set[int]] = {}
        """DevEUI -> the frames with its requests of which it is not known that one was sent."""

    def get(self, dev_eui: str) -> NodeMac | None:
        """What is known of a device; None: nothing but its session."""
        return self._nodes.get(dev_eui)

    def forget(self, dev_eui: str) -> list[Store]:
        """The device joined, or left: nothing of what it was told holds any more."""
        self._carriers.pop(dev_eui, None)
        return [] if self._nodes.pop(dev_eui, None) is None else [Store(TABLE, dev_eui, None)]

    # -- uplinks ----------------------------------------------------------------------------------

    def on_uplink(
        self, now_us: int, session: Session, accepted: Accepted, rx: RxFrame, *, lost: int
    ) -> list[Effect]:
        """A new uplink, with the answers to what the device was asked; the session may change with them."""
        node = self._nodes.get(session.dev_eui)
        if node is None:
            if not (self._config.adr and accepted.adr):
                return []
            node = self._nodes[session.dev_eui] = NodeMac()
        before = node.to_row()
        effects: list[Effect] = []
        if node.asked:
            effects = self._judge(now_us, session, node, accepted)
        if self._config.adr and accepted.adr:
            if node.data_rate != rx.data_rate:
                if node.data_rate is not None and rx.data_rate < node.data_rate:
                    node.tx_power = 0  # it stepped back by itself, and power comes first
                node.start_over(rx.data_rate)
            number = sub_band_of(self._region, rx.frequency_hz)
            node.sub_bands |= 0 if number is None else 1 << number - 1
            node.heard += 1
            node.lost += min(lost, GAP_MAX) if node.heard > 1 else 0
            node.snr_db = " ".join([*node.snr_db.split(), f"{rx.snr_db:g}"][-HISTORY:])
        if node.to_row() != before:
            effects.append(Store(TABLE, session.dev_eui, node.to_row()))
        return effects

    def _judge(self, now_us: int, session: Session, node: NodeMac, accepted: Accepted) -> list[Effect]:
        """Take the answers to what was asked."""
        answers: dict[int, deque[Answer]] = {}
        for command in accepted.commands:
            answer = decode_answer(command)
            if not isinstance(answer, Malformed):
                answers.setdefault(answer.cid, deque()).append(answer)
        effects: list[Effect] = []
        open_cids: list[int] = []
        node.repeat = b""
        for cid, group in groupby(_requests(node.asked), key=lambda request: request.cid):
            block = list(group)
            waiting = answers.get(cid, deque())
            last = block[-1]
            if isinstance(last, LinkAdrReq) and waiting:
                said = [each.status for each in waiting if isinstance(each, Ack)]
                effects += self._link_adr_answered(now_us, session, node, last, Ack(cid, min(said)))
                waiting.clear()
                continue
            for request in block:
                if waiting:
                    effects += self._answered(now_us, session, node, request, waiting.popleft())
                else:
                    open_cids.append(cid)
                    node.repeat += encode(request) if cid == LinkAdrReq.cid else b""
        self._carriers.pop(session.dev_eui, None)
        node.asked = b""
        node.tries = node.tries + 1 if open_cids else 0
        if node.tries >= TRIES_MAX:
            node.tries, node.repeat = 0, b""
            for cid in sorted(set(open_cids)):
                effects.append(self._refused(now_us, session, node, cid, "no answer"))
        return effects

    def _answered(
        self, now_us: int, session: Session, node: NodeMac, request: Request, answer: Answer
    ) -> list[Effect]:
        """One request has its answer."""
        dev_eui = session.dev_eui
        if isinstance(answer, DevStatusAns):
            node.battery, node.margin_db, node.status_us = answer.battery, answer.margin_db, now_us
            data = {"dev_eui": dev_eui, "battery": answer.battery, "margin_db": answer.margin_db}
            return [Event("device_status", now_us, data)]
        if not answer.ok:
            return [self._refused(now_us, session, node, request.cid, ", ".join(answer.faults))]
        match request:
            case RxTimingSetupReq():
                session.rx1_delay_us = request.rx1_delay_s * 1_000_000
            case RxParamSetupReq():
                session.rx1_dr_offset = request.rx1_dr_offset
                session.rx2_data_rate = request.rx2_data_rate
                session.rx2_frequency_hz = request.rx2_frequency_hz
            case TxParamSetupReq():
                node.tx_param = request.body()[0]
                session.downlink_dwell = request.downlink_dwell
            case DutyCycleReq():
                node.max_duty_cycle = request.max_duty_cycle
            case NewChannelReq():
                node.channels_hz = " ".join([*node.channels_hz.split(), str(request.frequency_hz)])
            case DlChannelReq():
                session.rx1_frequencies_hz[self._frequencies()[request.index]] = request.frequency_hz
            case _:
                pass
        return [Event("mac_set", now_us, {"dev_eui": dev_eui, "text": _text(request)})]

    def _link_adr_answered(
        self, now_us: int, session: Session, node: NodeMac, request: LinkAdrReq, answer: Ack
    ) -> list[Effect]:
        told = request.data_rate != KEEP
        masked = answer.ok or (not told and bool(answer.status & 1))
        if masked:
            node.masked = 1
        if not told:
            if masked:
                text = "channels of the sub-band"
                return [Event("mac_set", now_us, {"dev_eui": session.dev_eui, "text": text})]
            return [self._refused(now_us, session, node, request.cid, ", ".join(answer.faults))]
        rate = request.data_rate if node.data_rate is None else node.data_rate
        before = Setting(rate, node.tx_power, node.nb_trans)
        after = Setting(request.data_rate, request.tx_power, request.nb_trans)
        if answer.ok:
            node.reversals += adr.is_reversal(before, after) and node.reversals < adr.REVERSALS_MAX
            node.tx_power, node.nb_trans = after.tx_power, after.nb_trans
            node.start_over(after.data_rate)
            data = {"dev_eui": session.dev_eui, "before": str(before), "after": str(after)}
            return [Event("adr", now_us, data)]
        if "data rate" in answer.faults and after.data_rate > before.data_rate:
            node.data_rate_max = after.data_rate - 1
        if "power" in answer.faults and after.tx_power > before.tx_power:
            node.tx_power_max = after.tx_power - 1
        return [self._refused(now_us, session, node, request.cid, ", ".join(answer.faults))]

    def _refused(self, now_us: int, session: Session, node: NodeMac, cid: int, reason: str) -> Event:
        rest = {key: until for key, until in json.loads(node.rest).items() if until > now_us}
        node.rest = json.dumps({**rest, str(cid): now_us + REST_US}, sort_keys=True)
        data = {"dev_eui": session.dev_eui, "command": NAMES[cid], "reason": reason}
        return Event("mac_command_refused", now_us, data)

    # -- downlinks --------------------------------------------------------------------------------

    def requests(
        self,
        now_us: int,
        session: Session,
        accepted: Accepted,
        room: int,
        *,
        ask_status: bool,
        cf_list: bool,
    ) -> bytes:
        """At most `room` bytes of requests for the answer to this uplink; once that has its slot, `asked`.

        The same uplink again is answered with the same requests, if they fit.  `ask_status`: nothing else
        tells its battery; `cf_list`: a join accept gave it the region's extra channels.
        """
        node = self._nodes.get(session.dev_eui) or NodeMac()
        if accepted.retransmission:
            return node.asked if len(node.asked) <= room else b""
        out = b""
        for words in self._wanted(now_us, session, node, accepted, ask_status, cf_list):
            if len(out) + len(words) <= room:
                out += words
        return out

    def asked(self, now_us: int, dev_eui: str, requests: bytes, transmit_id: int) -> list[Effect]:
        """These requests go out with the answer, which is this transmission; the store goes before it."""
        if not requests:
            return []
        node = self._nodes.setdefault(dev_eui, NodeMac())
        if node.asked == requests:  # once more, for the same uplink
            if dev_eui in self._carriers:  # else the first one was sent
                self._carriers[dev_eui].add(transmit_id)
            return []
        self._carriers[dev_eui] = {transmit_id}
        node.asked = requests
        if any(isinstance(request, DevStatusReq) for request in _requests(requests)):
            node.status_us = now_us
        return [Store(TABLE, dev_eui, node.to_row())]

    def on_fate(self, dev_eui: str, transmit_id: int, *, left: bool) -> list[Store]:
        """What became of a frame for this device: if none with its requests left a gateway, they were not
        asked, and go out with its next uplink."""
        carriers = self._carriers.get(dev_eui, set())
        if transmit_id not in carriers:
            return []
        carriers.discard(transmit_id)
        if left or not carriers:
            del self._carriers[dev_eui]
        node = self._nodes.get(dev_eui)
        if left or carriers or node is None:
            return []
        if any(isinstance(request, DevStatusReq) for request in _requests(node.asked)):
            node.status_us = 0  # it was due
        node.asked = b""
        return [Store(TABLE, dev_eui, node.to_row())]

    def _wanted(
        self,
        now_us: int,
        session: Session,
        node: NodeMac,
        accepted: Accepted,
        ask_status: bool,
        cf_list: bool,
    ) -> Iterator[bytes]:
        """What the device lacks, what belongs together in one piece."""
        rest = {int(cid) for cid, until_us in json.loads(node.rest).items() if until_us > now_us}
        lacking = list(self._channels_wanted(node, cf_list))
        channels = [] if NewChannelReq.cid in rest else lacking
        for request in (*self._windows_wanted(session), *self._limits_wanted(node), *channels):
            if request.cid not in rest:
                yield encode(request)
        for request in self._moved_wanted(session, {each.frequency_hz for each in lacking}):
            if request.cid not in rest and not channels:
                yield encode(request)
        if LinkAdrReq.cid not in rest and not channels:
            yield node.repeat or self._link_adr(node, accepted)
        every_us = self._config.dev_status_h * 3_600_000_000
        if every_us and ask_status and now_us - node.status_us >= every_us and DevStatusReq.cid not in rest:
            yield encode(DevStatusReq())

    def _windows_wanted(self, session: Session) -> Iterator[Request]:
        config = self._config
        delay_s = config.rx1_delay_s
        if delay_s is not None and session.rx1_delay_us != delay_s * 1_000_000:
            yield RxTimingSetupReq(delay_s)
        present = (session.rx1_dr_offset, session.rx2_data_rate, session.rx2_frequency_hz)
        given = (config.rx1_dr_offset, config.rx2_data_rate, config.rx2_frequency_hz)
        wanted = tuple(now if want is None else want for now, want in zip(present, given, strict=True))
        if wanted != present:
            yield RxParamSetupReq(*wanted)

    def _limits_wanted(self, node: NodeMac) -> Iterator[Request]:
        config, region = self._config, self._region
        if config.dwell is not None and region.tx_param_setup:
            eirp = max(index for index, dbm in enumerate(EIRP_DBM) if dbm <= region.max_eirp_dbm)
            request = TxParamSetupReq(config.dwell, config.dwell, eirp)
            if node.tx_param != request.body()[0]:
                yield request
        if node.max_duty_cycle != config.max_duty_cycle:
            yield DutyCycleReq(config.max_duty_cycle)

    def _channels_wanted(self, node: NodeMac, cf_list: bool) -> Iterator[NewChannelReq]:
        region = self._region
        if is_fixed(region):
            return
        known = {channel.frequency_hz for channel in region.uplink_channels}
        known |= {int(each) for each in node.channels_hz.split()}
        if cf_list:
            known |= {channel.frequency_hz for channel in region.extra_channels}
        like = region.uplink_channels[0]
        for index, frequency_hz in enumerate(self._frequencies()):
            if frequency_hz not in known and frequency_hz in self._config.channels_hz:
                yield NewChannelReq(index, frequency_hz, like.data_rate_min, like.data_rate_max)

    def _moved_wanted(self, session: Session, lacking_hz: set[int]) -> Iterator[Request]:
        if is_fixed(self._region):
            return
        frequencies = self._frequencies()
        for index, moved_hz in enumerate(self._config.downlinks_hz[: len(frequencies)]):
            up_hz = frequencies[index]
            present_hz = session.rx1_frequencies_hz.get(up_hz, up_hz)
            if moved_hz not in (0, present_hz) and up_hz not in lacking_hz:
                yield DlChannelReq(index, moved_hz)

    def _frequencies(self) -> list[int]:
        """The uplink channels of a dynamic region by index: its usual ones, then the operator's."""
        usual = [channel.frequency_hz for channel in self._region.channels]
        return list(dict.fromkeys((*usual, *self._config.channels_hz)))

    def _link_adr(self, node: NodeMac, accepted: Accepted) -> bytes:
        """The LinkADRReq that the device lacks; empty: none."""
        config, region = self._config, self._region
        adapts = config.adr and accepted.adr and node.data_rate is not None
        channels = self._channels_of(node)
        lacks_channels = self.channels is not None and not node.masked
        setting = Setting(KEEP, KEEP, node.nb_trans)
        if adapts:
            assert node.data_rate is not None
            now = Setting(node.data_rate, node.tx_power, node.nb_trans)
            chosen = adr.choose(
                region,
                self._limits(node),
                now,
                node.history(),
                heard=node.heard,
                lost=node.lost,
                reversals=node.reversals,
            )
            if chosen != now:
                setting = chosen
        if setting.data_rate == KEEP and not lacks_channels:
            return b""
        return b"".join(
            encode(LinkAdrReq(setting.data_rate, setting.tx_power, mask, cntl, setting.nb_trans))
            for cntl, mask in masks_of(region, channels)
        )

    def _channels_of(self, node: NodeMac) -> int:
        """The channels that a device is told: the operator's, else those of the sub-bands it was heard on (a
        gateway hears one, seldom two; whoever hears three hears all)."""
        if self.channels is not None:
            return self.channels
        if not 0 < node.sub_bands.bit_count() <= 2:
            return all_channels(self._region)
        numbers = [bit + 1 for bit in range(8) if node.sub_bands >> bit & 1]
        return sum(sub_band(self._region, number) for number in numbers)

    def _limits(self, node: NodeMac) -> Limits:
        config, region = self._config, self._region
        high = min(config.adr_data_rate_max, KEEP if node.data_rate_max is None else node.data_rate_max)
        power = len(region.tx_power_offsets_db) - 1
        rates = adr.data_rates(region, dwell=node.dwell(), low=config.adr_data_rate_min, high=high)
        return Limits(rates, power if node.tx_power_max is None else node.tx_power_max, config.adr_margin_db)


def answer_room(region: Region, rx: RxFrame, session: Session) -> int:
    """Bytes (payload and FOpts together) that an answer to `rx` carries in either receive window; where one
    of them carries next to nothing, in the other."""
    dwell = session.downlink_dwell
    limits = [region.payload_max(session.rx2_data_rate, dwell=dwell, uplink=False)]
    try:
        floor = dwell is not False
        rate = region.rx1(rx.data_rate, rx.frequency_hz, session.rx1_dr_offset, dwell=floor)[1]
        limits.append(region.payload_max(rate, dwell=dwell, uplink=False))
    except ValueError:
        pass
    able = [limit for limit in limits if limit >= FOPTS_MAX]
    return min(able) if able else max(limits)


NAMES = {
    LinkAdrReq.cid: "LinkADRReq",
    DutyCycleReq.cid: "DutyCycleReq",
    RxParamSetupReq.cid: "RXParamSetupReq",
    DevStatusReq.cid: "DevStatusReq",
    NewChannelReq.cid: "NewChannelReq",
    RxTimingSetupReq.cid: "RXTimingSetupReq",
    TxParamSetupReq.cid: "TxParamSetupReq",
    DlChannelReq.cid: "DlChannelReq",
}


def _requests(asked: bytes) -> Iterable[Request]:
    """What was sent, as values."""
    for command in mac_commands(asked, uplink=False)[0]:
        request = decode_request(command)
        if not isinstance(request, Malformed):
            yield request


def _text(request: Request) -> str:
    """What a request set, for people."""
    match request:
        case RxTimingSetupReq():
            return f"RX1 after {request.rx1_delay_s} s"
        case RxParamSetupReq():
            where = f"DR{request.rx2_data_rate} on {request.rx2_frequency_hz / 1e6:g} MHz"
            return f"RX1 offset {request.rx1_dr_offset}, RX2 {where}"
        case TxParamSetupReq():
            return (
                f"dwell time {'400 ms' if request.uplink_dwell else 'off'}, {EIRP_DBM[request.max_eirp]} dBm"
            )
        case DutyCycleReq():
            return f"duty cycle 1/{1 << request.max_duty_cycle}"
        case NewChannelReq():
            return f"channel {request.index} on {request.frequency_hz / 1e6:g} MHz"
        case DlChannelReq():
            return f"RX1 of channel {request.index} on {request.frequency_hz / 1e6:g} MHz"
        case _:
            return NAMES[request.cid]
