"""The network sets devices up: in all nine regions, over loss, restarts and refusals, with a real device."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.config import Mac
from swarm.downlinks import Downlinks
from swarm.effects import Effect, RxFrame
from swarm.mac.commands import TRIES_MAX
from swarm.mac.device import EndDevice, Joined, OtaaIdentity
from swarm.mac.device_commands import DeviceMac
from swarm.mac.scheduler import Refused as NoSlot
from swarm.phy.regions import REGION_NAMES
from swarm.prng import Prng
from swarm.wire.mac_commands import Ack, DevStatusReq, DutyCycleReq
from tests.swarm.cell import air_is_legal, counters_never_repeat, dev_eui, key
from tests.swarm.mac_cell import JOIN_EUI, MacCell

QUIET = Mac(dev_status_h=0)

SLOWEST = {"us915": 0, "au915": 2, "as923": 2, "cn470": 1}
FASTEST = {"us915": 3}
SUB_BANDS = {"us915": 2, "au915": 2, "cn470": 3}


@pytest.mark.parametrize("name", REGION_NAMES)
def test_a_device_joins_talks_and_adapts_in_every_region(name: str) -> None:
    """Goal: join, uplink, RX1, RX2, LinkADR, confirmed frames under the region's own rules, dwell time on.

    Method: the device listens where its tables say, and the cell asserts that every downlink is there.
    """
    slow = SLOWEST.get(name, 0)
    pair = MacCell(name, Mac(sub_band=SUB_BANDS.get(name, 0)), data_rate=slow)
    joined = None
    for _ in range(8):  # where the gateway hears some sub-bands only, a device tries
        joined = pair.join()
        if isinstance(joined, Joined):
            break
    assert isinstance(joined, Joined)
    confirmed = pair.up(b"1", confirmed=True)
    assert pair.heard[-1].ack
    assert pair.rules.sub_band(confirmed.frequency_hz)
    for _ in range(24):
        pair.up(b"x")
    adr = pair.told("adr")
    fastest = FASTEST.get(name, 5)
    assert pair.device.data_rate == fastest and len(adr) == 1, adr
    assert str(adr[0]["before"]).startswith(f"DR{slow},") and str(adr[0]["after"]).startswith(f"DR{fastest},")
    band = SUB_BANDS.get(name)
    used = {channel.frequency_hz for channel in pair.device.mac.in_use()}
    assert len(used) == {"us915": 9, "au915": 9, "cn470": 8}.get(name, len(pair.rules.channels)), band
    assert {pair.up().frequency_hz for _ in range(10)} <= used
    assert pair.told("mac_command_refused") == [] and pair.cell.dropped().count("mic") == 0
    air_is_legal(pair.cell)
    counters_never_repeat(pair.cell.on_air)


@pytest.mark.parametrize("name", REGION_NAMES)
def test_rx2_is_heard_where_rx1_is_taken(name: str) -> None:
    """Goal: RX2 in every region.  Method: another frame of the gateway lies in RX1."""
    pair = MacCell(name, data_rate=FASTEST.get(name, 5))
    while not isinstance(pair.join(), Joined):
        pass
    frame = pair.device.uplink(pair.cell.now_us, 99, b"", True)
    first, second = pair.device.rx_windows(frame)
    pair.cell.keep_alive()
    scheduler = next(iter(pair.cell.core.downlinks._gateways.values())).scheduler
    scheduler.occupy(first.open_us, 10_000)
    pair._send(frame)
    sent = pair.cell.on_air[-1]
    assert pair.heard[-1].ack and sent.at_us == second.open_us


def test_every_setting_of_the_operator_reaches_the_device_and_then_nothing_is_said() -> None:
    mac = Mac(
        adr=False,
        dev_status_h=0,
        channels_hz=(865_100_000, 865_300_000, 867_100_000),
        downlinks_hz=(0, 0, 0, 869_525_000),
        max_duty_cycle=6,
        rx1_delay_s=3,
        rx1_dr_offset=1,
        rx2_data_rate=3,
        rx2_frequency_hz=868_300_000,
    )
    pair = MacCell("eu868", Mac(), data_rate=5)
    pair.join()
    pair.up()
    # The operator changes swarm.toml: sessions of old joins are brought along.
    pair.cell.config = replace(pair.cell.config, mac=mac)
    pair.cell.restart()
    pair.cell.keep_alive()
    for _ in range(8):
        pair.up()
    device: Any = pair.device.mac
    assert (device.rx1_delay_us, device.rx1_dr_offset) == (3_000_000, 1)
    assert (device.rx2_data_rate, device.rx2_frequency_hz) == (3, 868_300_000)
    assert device.max_duty_cycle == 6 and device.rx1_frequencies_hz == {867_100_000: 869_525_000}
    assert [c.frequency_hz for c in device.in_use()[-2:]] == [865_100_000, 865_300_000]
    assert len(pair.told("mac_set")) == 6 and pair.told("mac_command_refused") == []
    pair.cell.restart()
    pair.cell.keep_alive()
    count = len(pair.cell.on_air)
    for _ in range(5):
        pair.up()
    assert len(pair.cell.on_air) == count, "what is known is not asked for again"


def test_dwell_time_is_lifted_only_when_the_device_said_so() -> None:
    pair = MacCell("as923", Mac(dwell=False), data_rate=2)
    pair.join()
    session: Any = pair.session()
    pair.deaf = True
    pair.up(b"x")
    assert session.downlink_dwell is None
    pair.deaf = False
    pair.up(b"x")
    assert session.downlink_dwell is None and pair.device.mac.uplink_dwell is False
    pair.up(b"x" * 60)
    assert session.downlink_dwell is False
    assert pair.told("mac_set")[0]["text"] == "dwell time off, 16 dBm"


def test_a_request_is_repeated_until_it_is_answered_and_its_effect_waits_for_the_answer() -> None:
    pair = MacCell("eu868", Mac(rx2_frequency_hz=868_300_000, dev_status_h=0), adr=False, data_rate=5)
    pair.join()
    pair.deaf = True
    for _ in range(3):
        pair.up()
    assert len(pair.new()) == 0 and len(pair.cell.on_air) == 4
    pair.deaf = False
    pair.up()
    session: Any = pair.session()
    assert session.rx2_frequency_hz == 869_525_000
    pair.up(reaches=False)  # the answer is lost, and said again
    assert session.rx2_frequency_hz == 869_525_000
    pair.up()
    assert session.rx2_frequency_hz == 868_300_000
    assert pair.heard[-1].commands == ()  # any downlink: the device need not say it any more
    pair.up()
    assert len(pair.cell.on_air) == 6


def test_who_never_answers_is_left_alone_for_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = MacCell("eu868", Mac(max_duty_cycle=3, dev_status_h=0), adr=False, data_rate=5)
    pair.join()
    monkeypatch.setattr(DeviceMac, "obey", lambda mac, commands, snr_db: None)
    for _ in range(TRIES_MAX + 4):
        pair.up()
    refused = pair.told("mac_command_refused")
    assert [(each["command"], each["reason"]) for each in refused] == [("DutyCycleReq", "no answer")]
    assert len(pair.cell.on_air) == 1 + TRIES_MAX
    pair.cell.run_for(86_400)
    pair.up()
    assert len([each for each in pair.cell.on_air if not each.multicast]) == 2 + TRIES_MAX


def test_what_found_no_slot_was_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: neither tries nor the daily question are spent by a slow link.  Method: uplinks come late."""
    pair = MacCell("eu868", Mac(max_duty_cycle=3), adr=False, data_rate=5)
    pair.join()
    hear = pair.cell.core.on_uplink

    def late(now_us: int, rx: RxFrame) -> list[Effect]:
        return hear(now_us, replace(rx, at_us=rx.at_us - 10_000_000))

    monkeypatch.setattr(pair.cell.core, "on_uplink", late)
    for _ in range(TRIES_MAX + 2):
        pair.up()
    assert {each["error"] for each in pair.told("tx_failed")} == {"rx1 too_late, rx2 too_late"}
    assert pair.told("mac_command_refused") == [] and pair.cell.rows.get("mac", {}) == {}
    monkeypatch.setattr(pair.cell.core, "on_uplink", hear)
    pair.up()
    assert [command.cid for command in pair.heard[-1].commands] == [DutyCycleReq.cid, DevStatusReq.cid]
    pair.up()
    assert len(pair.told("mac_set")) == len(pair.told("device_status")) == 1


def test_what_no_gateway_sent_was_not_asked() -> None:
    """Goal: neither tries nor the daily question are spent by a gateway that refuses what it is given.
    Method: it refuses more answers than there are tries; then it sends one, and its word is lost."""
    pair = MacCell("eu868", Mac(max_duty_cycle=3), adr=False, data_rate=5)
    pair.join()
    error: str | None = "TX_FREQ"
    pair.cell.verdict = lambda transmit: error
    for _ in range(TRIES_MAX + 2):
        pair.up()
    assert len(pair.cell.refused) == TRIES_MAX + 2 and pair.told("mac_command_refused") == []
    pair.cell.restart()
    assert (
        pair.cell.rows["mac"][dev_eui(0)]["asked"] == b"" and not pair.cell.rows["mac"][dev_eui(0)]["tries"]
    )
    error = "NO_TX_ACK"
    pair.up()
    assert pair.cell.rows["mac"][dev_eui(0)]["asked"] != b"", "it may have been sent"
    error = None
    pair.up()
    assert [command.cid for command in pair.heard[-1].commands] == [DutyCycleReq.cid]
    pair.up()
    assert len(pair.told("mac_set")) == 1


def test_a_repeated_answer_that_was_not_sent_changes_nothing() -> None:
    """An uplink that came twice is answered twice: what one of the answers brought was asked."""
    for fates, carried in (("TX_FREQ", None), [()]), ((None, "TX_FREQ"), [(DutyCycleReq.cid,)]):
        pair = MacCell("eu868", Mac(max_duty_cycle=3, dev_status_h=0), adr=False, data_rate=5)
        pair.join()
        verdicts = iter(fates)
        pair.cell.verdict = lambda transmit, left=verdicts: next(left, None)  # type: ignore[misc]
        pair.again(pair.up(confirmed=True))
        assert [tuple(each.cid for each in heard.commands) for heard in pair.heard] == carried
        pair.up()
        asked_now = len(pair.heard) == 2
        assert (asked_now, len(pair.told("mac_set"))) == ((True, 0) if carried == [()] else (False, 1))


def test_what_gave_way_to_an_acknowledgement_was_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than 15 B of requests need a frame of their own; here there is time for an empty one only."""
    channels = (867_200_000, 867_400_000, 867_600_000)
    pair = MacCell(
        "eu868", Mac(channels_hz=channels, dev_status_h=0, max_duty_cycle=3), adr=False, data_rate=5
    )
    pair.join()
    give = Downlinks._class_a_slot

    def short(made: Downlinks, now_us: int, rx: RxFrame, session: Any, size: int, *rest: Any) -> Any:
        return give(made, now_us, rx, session, size, *rest) if size <= 13 else NoSlot("duty_cycle")

    monkeypatch.setattr(Downlinks, "_class_a_slot", short)
    for _ in range(TRIES_MAX + 2):
        pair.up(confirmed=True)
    assert sum(each.ack for each in pair.heard) == TRIES_MAX + 2
    assert pair.told("mac_command_refused") == [] and pair.cell.rows.get("mac", {}) == {}
    monkeypatch.setattr(Downlinks, "_class_a_slot", give)
    pair.up()
    pair.up()
    assert len(pair.told("mac_set")) == 4


def test_a_refused_channel_keeps_the_others_where_they_were_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a device that takes no new channel still hears of RX1 on those it has, and of none it lacks."""
    moves = (869_525_000, *[0] * 7, 868_500_000)
    monkeypatch.setattr(DeviceMac, "_new_channel", lambda mac, request: Ack(request.cid))
    mac = Mac(dev_status_h=0, channels_hz=(865_100_000,), downlinks_hz=moves)
    pair = MacCell("eu868", mac, data_rate=5)
    pair.join()
    for _ in range(6):
        pair.up()
    assert pair.device.mac.rx1_frequencies_hz == {868_100_000: 869_525_000}
    assert [each["command"] for each in pair.told("mac_command_refused")] == ["NewChannelReq"]


def test_a_refused_data_rate_bounds_what_is_asked_next(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = MacCell("eu868", Mac(dev_status_h=0), data_rate=0)
    pair.join()
    carries = DeviceMac._carries
    monkeypatch.setattr(DeviceMac, "_carries", lambda mac, c, rate: rate <= 4 and carries(mac, c, rate))
    for _ in range(22):
        pair.up()
    assert pair.told("mac_command_refused")[0]["reason"] == "data rate"
    pair.cell.run_for(86_400)
    pair.up()
    pair.up()
    assert pair.device.data_rate == 4


def test_a_restart_in_the_middle_of_a_request_forgets_nothing() -> None:
    pair = MacCell("eu868", Mac(rx1_delay_s=4, dev_status_h=0), data_rate=0)
    pair.join()
    for _ in range(20):
        pair.up()
        pair.cell.restart()
        pair.cell.keep_alive()
    assert pair.device.mac.rx1_delay_us == 4_000_000 and pair.device.data_rate == 5
    pair.up()
    assert [event["after"] for event in pair.told("adr")] == ["DR5, power 2, 1x"]


def test_a_device_that_lost_its_power_steps_is_told_again() -> None:
    """A device that stepped back by itself (an uplink at a lower rate) is at full power, and adapted anew."""
    pair = MacCell("eu868", Mac(dev_status_h=0), data_rate=5, snr_db=9.0)
    pair.join()
    for _ in range(22):
        pair.up()
    assert pair.device.mac.tx_power == 3
    pair.device.mac.tx_power = 0
    pair.device.data_rate = 4
    for _ in range(21):
        pair.up()
    assert pair.told("adr")[-1]["before"] == "DR4, power 0, 1x"
    assert (pair.device.data_rate, pair.device.mac.tx_power) == (5, 3)


def test_adr_leaves_a_device_on_the_sub_band_where_it_is_heard() -> None:
    """Goal: an operator who set no sub_band does not lose devices that were set to one by hand."""
    pair = MacCell("us915", QUIET)
    plan = pair.rules.uplink_channels
    pair.device = EndDevice(
        pair.rules,
        OtaaIdentity(dev_eui(0), JOIN_EUI, key(5, 0)),
        Prng(4),
        data_rate=0,
        adr=True,
        channels=(*plan[8:16], plan[65]),
    )
    while not isinstance(pair.join(), Joined):
        pass
    for _ in range(24):
        pair.up()
    assert pair.device.data_rate == 3 and len(pair.told("adr")) == 1
    assert pair.device.mac.channels == 0xFF00 | 1 << 65


def test_adr_ack_req_is_answered_and_only_devices_with_the_bit_are_adapted() -> None:
    pair = MacCell("eu868", Mac(dev_status_h=0), data_rate=5, snr_db=-4.0)
    pair.join()
    count = len(pair.cell.on_air)
    for _ in range(64):
        pair.up()
    assert len(pair.cell.on_air) == count
    pair.up()
    assert len(pair.cell.on_air) == count + 1 and pair.device.mac.adr_ack_count == 0
    other = MacCell("eu868", Mac(dev_status_h=0), adr=False, data_rate=0)
    other.join()
    for _ in range(30):
        other.up()
    assert len(other.cell.on_air) == 1


def test_a_foreign_device_is_asked_for_its_battery_once_a_day() -> None:
    pair = MacCell("eu868", Mac(), adr=False, data_rate=5)
    pair.device.mac.battery = 127
    pair.join()
    for _ in range(10):
        pair.up()
    (said,) = pair.told("device_status")
    assert (said["battery"], said["margin_db"]) == (127, 5)
    pair.cell.run_for(86_400)
    pair.up()
    pair.up()
    assert len(pair.told("device_status")) == 2


def test_a_retransmitted_confirmed_uplink_is_acknowledged_again_with_the_same_requests() -> None:
    pair = MacCell("eu868", Mac(max_duty_cycle=2, dev_status_h=0), adr=False, data_rate=5)
    pair.join()
    pair.deaf = True
    frame = pair.up(confirmed=True)
    frame = pair.again(frame)
    pair.deaf = False
    pair.again(frame)
    assert pair.heard[-1].ack and [c.cid for c in pair.heard[-1].commands] == [4]
    assert len(pair.cell.on_air) == 4
    assert len(pair.told("uplink")) == 3
    assert pair.cell.core.registry.by_index(0).status.uplinks == 1  # type: ignore[union-attr]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.binary(max_size=15), st.binary(max_size=40)), min_size=1, max_size=12
    ),
    st.sampled_from(("eu868", "us915", "as923")),
)
def test_a_device_that_answers_anything_does_no_harm(
    uplinks: list[tuple[bool, bytes, bytes]], name: str
) -> None:
    """Goal: hostile FOpts and FPort 0 payloads of a genuine device are values; its row stays small.

    Method: any bytes as answers, while the network has something to ask; the session stays in the region.
    """
    wishes = Mac(rx1_delay_s=2, rx1_dr_offset=1, max_duty_cycle=1, sub_band=2 if name == "us915" else 0)
    pair = MacCell(name, wishes)
    while not isinstance(pair.join(), Joined):
        pass
    for in_payload, f_opts, payload in uplinks:
        cell, device = pair.cell, pair.device
        device.mac.sticky.clear()
        device.mac.answers.clear()
        room = device.payload_max()
        if in_payload:
            frame = device.uplink(cell.now_us, 0, payload[:room])
        else:
            frame = device.uplink(cell.now_us, None, f_opts=f_opts[:room])
        cell.run_until(frame.end_us)
        cell.hear(frame.payload, frame)
        cell.run_for(3)
        session: Any = pair.session()
        assert 1 <= session.rx1_delay_us // 1_000_000 <= 15
        assert session.rx2_data_rate in pair.rules.downlink_data_rates
        pair.rules.sub_band(session.rx2_frequency_hz)
        row = cell.rows.get("mac", {}).get("70b3d57ed0000000")
        assert row is None or sum(len(str(value)) for value in row.values()) < 1200
    counters_never_repeat(pair.cell.on_air)
