"""The device obeys: what it takes, what it refuses whole, what it repeats, and how it steps back in
silence."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.effects import Malformed
from swarm.mac import channel_plan
from swarm.mac.device import AbpIdentity, Delivered, EndDevice, UplinkFrame
from swarm.mac.device_commands import ADR_ACK_DELAY, ADR_ACK_LIMIT
from swarm.mac.session import Session, downlink
from swarm.phy.regions import REGION_NAMES, Region, region
from swarm.prng import Prng
from swarm.wire import lorawan
from swarm.wire.mac_commands import (
    KEEP,
    Ack,
    DevStatusReq,
    DlChannelReq,
    DutyCycleReq,
    LinkAdrReq,
    NewChannelReq,
    Request,
    RxParamSetupReq,
    RxTimingSetupReq,
    TxParamSetupReq,
    encode,
)

EU868 = region("eu868")
NWK, APP, ADDR = bytes(range(16)), bytes(range(16, 32)), 0x2600_0007
HOUR_US = 3_600_000_000


class Pair:
    """A device and a network that says what the test wants."""

    def __init__(self, rules: Region = EU868, *, adr: bool = True, data_rate: int = 3) -> None:
        self.rules = rules
        self.device = EndDevice(rules, AbpIdentity(ADDR, NWK, APP), Prng(1), adr=adr, data_rate=data_rate)
        self.session = Session("0" * 16, ADDR, NWK, APP)
        self.now_us = 0

    def up(self, payload: bytes = b"x") -> lorawan.DataFrame:
        self.sent = self.device.uplink(self.now_us, 10, payload)
        self.now_us = self.sent.end_us
        frame = lorawan.parse(self.sent.payload)
        assert isinstance(frame, lorawan.DataFrame)
        return frame

    def down(self, *requests: Request, f_port: int | None = None) -> None:
        words = b"".join(encode(request) for request in requests)
        told = {"f_opts": words} if f_port is None else {"f_port": f_port, "payload": words}
        phy = downlink(self.session, **told)  # type: ignore[arg-type]
        assert isinstance(self.device.receive(self.now_us, phy, 7.4), Delivered)

    def ask(self, *requests: Request) -> bytes:
        """The FOpts of the uplink after these requests, and then silence from what is repeated."""
        self.down(*requests)
        return self.up().f_opts


def link(data_rate: int = 5, power: int = 2, mask: int = 0, cntl: int = 6, nb_trans: int = 1) -> LinkAdrReq:
    return LinkAdrReq(data_rate, power, mask, cntl, nb_trans)


def test_link_adr_is_taken_whole() -> None:
    pair = Pair()
    assert pair.ask(link(nb_trans=2)) == bytes((3, 7))
    mac = pair.device.mac
    assert (mac.data_rate, mac.tx_power, mac.nb_trans, mac.power_offset_db()) == (5, 2, 2, -4)
    assert pair.up().f_opts == b""


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (link(data_rate=14), 0b101),
        (link(power=9), 0b011),
        (link(mask=1 << 12, cntl=0), 0b110),
        (link(cntl=0), 0b110),
        (link(cntl=3), 0b110),
        (link(data_rate=14, power=9), 0b001),
    ],
)
def test_link_adr_with_one_fault_changes_nothing(request_: LinkAdrReq, status: int) -> None:
    pair = Pair()
    assert pair.ask(request_) == bytes((3, status))
    mac = pair.device.mac
    assert (mac.data_rate, mac.tx_power, mac.nb_trans) == (3, 0, 1) and len(mac.in_use()) == 8


def test_power_and_rate_can_be_kept_and_channels_taken_away() -> None:
    pair = Pair()
    assert pair.ask(link(KEEP, KEEP, mask=0b101, cntl=0)) == bytes((3, 7))
    assert [channel.frequency_hz for channel in pair.device.mac.in_use()] == [868_100_000, 868_500_000]
    assert {pair.up() and pair.sent.frequency_hz for _ in range(20)} == {868_100_000, 868_500_000}


def test_a_device_without_the_adr_bit_takes_channels_only() -> None:
    pair = Pair(adr=False)
    frame = pair.up()
    assert not frame.adr and not frame.adr_ack_req
    assert pair.ask(link(mask=0b11, cntl=0)) == bytes((3, 0b001))
    assert pair.ask(link(KEEP, KEEP, mask=0b11, cntl=0)) == bytes((3, 0b111))
    mac = pair.device.mac
    assert (mac.data_rate, mac.tx_power) == (3, 0) and len(mac.in_use()) == 2


def test_blocks_of_link_adr_are_one_request_with_as_many_answers() -> None:
    us = Pair(region("us915"), data_rate=0)
    blocks = [
        LinkAdrReq(3, 5, mask, cntl, 1)
        for cntl, mask in channel_plan.masks_of(us.rules, channel_plan.sub_band(us.rules, 2))
    ]
    assert us.ask(*blocks) == bytes((3, 7, 3, 7))
    used = us.device.mac.in_use()
    assert len(used) == 9 and used[0].frequency_hz == 903_900_000 and used[-1].frequency_hz == 904_600_000
    assert us.ask(link(2, cntl=6, mask=0xFF), DutyCycleReq(0), link(1, cntl=6, mask=0xFF)) == bytes(
        (3, 7, 4, 3, 0)
    )
    assert us.device.data_rate == 2


def test_duty_cycle_makes_the_device_wait() -> None:
    pair = Pair(data_rate=5)
    assert pair.ask(DutyCycleReq(7)) == b"\x04"
    first = pair.sent
    pair.up()
    assert pair.sent.at_us - first.at_us >= first.airtime_us * 128
    pair.ask(DutyCycleReq(0))
    first = pair.sent
    pair.up()
    assert pair.sent.at_us - first.at_us < 3_000_000


def test_receive_windows_change_at_once_and_the_answer_is_repeated_until_heard() -> None:
    pair = Pair(data_rate=5)
    pair.up()
    pair.down(RxParamSetupReq(2, 3, 868_300_000), RxTimingSetupReq(5))
    for _ in range(3):
        assert pair.up().f_opts == bytes((5, 7, 8))
        first, second = pair.device.rx_windows(pair.sent)
        assert first.open_us == pair.sent.end_us + 5_000_000 and first.data_rate == 3
        assert (second.open_us - first.open_us, second.frequency_hz, second.data_rate) == (
            1_000_000,
            868_300_000,
            3,
        )
    pair.down()
    assert pair.up().f_opts == b""


def test_receive_windows_that_the_region_does_not_know_are_refused() -> None:
    pair = Pair()
    assert pair.ask(RxParamSetupReq(7, 14, 123_000_000)) == bytes((5, 0))
    pair.down()
    assert pair.ask(RxParamSetupReq(0, 3, 868_650_000)) == bytes((5, 6))
    assert pair.device.mac.rx2_frequency_hz == 869_525_000


def test_channels_are_added_moved_and_taken_away() -> None:
    pair = Pair()
    assert pair.ask(NewChannelReq(8, 865_100_000, 0, 5)) == bytes((7, 3))
    assert pair.ask(NewChannelReq(8, 862_000_000, 0, 5)) == bytes((7, 2))
    assert pair.ask(NewChannelReq(8, 865_100_000, 5, 0)) == bytes((7, 1))
    assert pair.ask(NewChannelReq(0, 865_100_000, 0, 5)) == bytes((7, 0))
    assert pair.ask(NewChannelReq(16, 865_100_000, 0, 5)) == bytes((7, 0))
    assert pair.ask(DlChannelReq(8, 869_525_000)) == bytes((10, 3))
    pair.down()
    assert pair.ask(DlChannelReq(9, 869_525_000)) == bytes((10, 1))
    pair.down(link(KEEP, KEEP, mask=1 << 8, cntl=0))
    pair.up()
    assert pair.sent.frequency_hz == 865_100_000
    assert pair.device.rx_windows(pair.sent)[0].frequency_hz == 869_525_000
    pair.down(link(KEEP, KEEP), NewChannelReq(8, 0, 0, 5))
    pair.up()
    assert len(pair.device.mac.in_use()) == 8


def test_dwell_time_bounds_frames_until_it_is_lifted() -> None:
    pair = Pair(region("as923"), data_rate=2)
    with pytest.raises(ValueError, match="at most 11 B"):
        pair.up(bytes(12))
    assert pair.ask(TxParamSetupReq(False, False, 5)) == b"\x09"
    pair.up(bytes(100))
    assert pair.sent.airtime_us > 400_000
    silent = Pair()
    assert silent.ask(TxParamSetupReq(True, True, 5)) == b""


def test_device_status_and_requests_of_a_whole_payload() -> None:
    pair = Pair()
    pair.device.mac.battery = 200
    pair.down(
        DevStatusReq(), *(NewChannelReq(8 + i, 865_100_000 + 200_000 * i, 0, 5) for i in range(5)), f_port=0
    )
    assert pair.up().f_opts == bytes((6, 200, 7)) + bytes((7, 3)) * 5
    assert len(pair.device.mac.in_use()) == 13


def test_answers_wait_for_an_uplink_with_room() -> None:
    pair = Pair(data_rate=0)
    pair.down(*[DevStatusReq()] * 6, f_port=0)
    assert pair.up(bytes(51)).f_opts == b""
    assert len(pair.up(bytes(47)).f_opts) == 3
    assert len(pair.up().f_opts) == 15


def test_silence_makes_the_device_ask_and_then_step_back() -> None:
    pair = Pair(data_rate=5)
    pair.ask(link(5, 3))
    for _ in range(ADR_ACK_LIMIT - 1):
        assert not pair.up().adr_ack_req
    mac = pair.device.mac
    for expected in ((5, 3), (5, 0), (4, 0), (3, 0)):
        assert (mac.data_rate, mac.tx_power) == expected
        asked = [pair.up().adr_ack_req for _ in range(ADR_ACK_DELAY)]
        assert all(asked)
    pair.down()
    assert not pair.up().adr_ack_req and (mac.data_rate, mac.tx_power) == (2, 0)


def test_at_the_bottom_nothing_is_asked_and_all_channels_are_back() -> None:
    pair = Pair(data_rate=0)
    pair.ask(link(0, 0, mask=1, cntl=0, nb_trans=3))
    asked = [pair.up().adr_ack_req for _ in range(ADR_ACK_LIMIT + ADR_ACK_DELAY)]
    assert not any(asked)
    assert pair.device.mac.nb_trans == 1 and len(pair.device.mac.in_use()) == 3


def test_what_was_set_up_survives_a_restart() -> None:
    pair = Pair(data_rate=5)
    pair.down(
        link(4, 1, nb_trans=2),
        NewChannelReq(8, 865_100_000, 0, 5),
        DutyCycleReq(4),
        f_port=0,
    )
    pair.down(RxTimingSetupReq(3), DlChannelReq(8, 869_525_000))
    again = Pair()
    again.device.restore(pair.device.to_row())
    assert again.device.to_row() == pair.device.to_row()
    again.now_us = pair.now_us
    assert again.up().f_opts == bytes((8, 10, 3))


@settings(max_examples=60)
@given(st.sampled_from(REGION_NAMES), st.lists(st.binary(max_size=15), max_size=5), st.booleans())
def test_no_commands_make_a_device_that_cannot_send(name: str, words: Sequence[bytes], adr: bool) -> None:
    """Goal: whatever the network says, the device stays legal.  Method: any FOpts, then an uplink."""
    rules = region(name)
    slowest = min(r for r in rules.uplink_data_rates if rules.payload_max(r, uplink=True) and r < 8)
    pair = Pair(rules, adr=adr, data_rate=slowest)
    for f_opts in words:
        phy = downlink(pair.session, f_opts=f_opts)
        assert not isinstance(pair.device.receive(pair.now_us, phy), Malformed)
        sent = pair.device.uplink(pair.now_us, 10, b"")
        assert isinstance(sent, UplinkFrame)
        first, second = pair.device.rx_windows(sent)
        for window in (first, second):
            rules.sub_band(window.frequency_hz)
            assert window.data_rate in rules.downlink_data_rates
        pair.now_us = sent.end_us


def test_the_status_of_an_answer_has_no_other_bits() -> None:
    assert encode(Ack(3, 7)) == bytes((3, 7)) and encode(Ack(8)) == b"\x08"
