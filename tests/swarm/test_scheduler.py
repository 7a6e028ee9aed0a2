"""Downlink slots: RX1, RX2, class C, half duplex, legality, back-pressure."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.effects import Purpose, RxFrame
from swarm.mac.ledger import AirtimeLedger
from swarm.mac.scheduler import CLASS_C_GAP_US, GAP_US, LEAD_US, QUEUE_MAX, DownlinkScheduler, Refused, Slot
from swarm.phy.regions import region

EU868 = region("eu868")
S = 1_000_000
RX2_HZ = 869_525_000


def uplink(
    at_us: int = 100 * S, tmst_us: int = 5_000, data_rate: int = 5, frequency_hz: int = 868_100_000
) -> RxFrame:
    return RxFrame(b"", "0011223344556677", at_us, tmst_us, frequency_hz, data_rate, -90.0, 5.0)


def scheduler(name: str = "eu868") -> tuple[DownlinkScheduler, AirtimeLedger]:
    ledger = AirtimeLedger(region(name))
    return DownlinkScheduler(region(name), ledger), ledger


def answer(
    radio: DownlinkScheduler,
    rx: RxFrame,
    size: int = 20,
    *,
    late_us: int = 0,
    join: bool = False,
    offset: int = 0,
) -> Slot | Refused:
    return radio.class_a(
        rx.at_us + late_us,
        rx,
        size,
        rx1_delay_us=S,
        rx1_dr_offset=offset,
        rx2_frequency_hz=RX2_HZ,
        rx2_data_rate=3,
        purpose=Purpose.ACK,
        join=join,
    )


def test_rx1_is_one_delay_after_the_uplink_on_the_gateways_own_counter() -> None:
    """Goal: same frequency, data rate by the offset, counter wrapped at 2^32, power by the sub-band."""
    radio, ledger = scheduler()
    slot = answer(radio, uplink(tmst_us=2**32 - 400_000), offset=2)
    assert isinstance(slot, Slot)
    assert (slot.at_us, slot.tmst_us) == (101 * S, 600_000)
    assert (slot.frequency_hz, slot.data_rate, slot.power_dbm) == (868_100_000, 3, 14.0)
    assert slot.airtime_us == EU868.airtime_us(3, 20, uplink=False)
    assert ledger.spent_us(200 * S) == {("M", Purpose.ACK): slot.airtime_us}


def test_rx2_when_rx1_is_too_late_or_taken() -> None:
    radio, _ = scheduler()
    late = answer(radio, uplink(), late_us=S - LEAD_US + 1)
    assert isinstance(late, Slot)
    assert (late.at_us, late.frequency_hz, late.data_rate, late.power_dbm) == (102 * S, RX2_HZ, 3, 27.0)
    other, _ = scheduler()
    first = answer(other, uplink())
    second = answer(other, uplink(frequency_hz=868_300_000))
    third = answer(other, uplink(frequency_hz=868_500_000))
    assert isinstance(first, Slot)
    assert isinstance(second, Slot)
    assert (first.at_us, second.at_us) == (101 * S, 102 * S)
    assert third == Refused("rx1 busy, rx2 busy")
    assert answer(other, uplink(), late_us=2 * S) == Refused("rx1 too_late, rx2 too_late")


def test_join_accepts_use_their_own_delays_and_the_regions_windows() -> None:
    radio, _ = scheduler()
    slot = answer(radio, uplink(), 33, join=True, offset=3)
    assert isinstance(slot, Slot)
    assert (slot.at_us, slot.data_rate) == (105 * S, 5)
    second = answer(radio, uplink(frequency_hz=868_500_000), 33, join=True)
    assert isinstance(second, Slot)
    assert (second.at_us, second.frequency_hz, second.data_rate) == (106 * S, RX2_HZ, 0)


def test_an_exhausted_sub_band_sends_the_answer_to_rx2() -> None:
    radio, ledger = scheduler()
    ledger.grant(0, 868_300_000, 125_000, 36 * S, Purpose.MODEL)
    slot = answer(radio, uplink())
    assert isinstance(slot, Slot)
    assert slot.frequency_hz == RX2_HZ
    ledger.grant(3 * S, RX2_HZ, 125_000, 360 * S - slot.airtime_us, Purpose.MODEL)
    assert answer(radio, uplink(at_us=500 * S)) == Refused("rx1 duty_cycle, rx2 duty_cycle")


def test_frames_that_no_window_can_carry() -> None:
    """A frame too long for SF12, an uplink reported outside all sub-bands: values, no exceptions."""
    radio, _ = scheduler()
    slow = radio.class_a(
        100 * S,
        uplink(data_rate=0),
        65,
        rx1_delay_us=S,
        rx1_dr_offset=0,
        rx2_frequency_hz=RX2_HZ,
        rx2_data_rate=0,
        purpose=Purpose.QUERY,
    )
    assert slow == Refused("rx1 too_long, rx2 too_long")
    odd = answer(radio, uplink(frequency_hz=868_650_000))
    assert isinstance(odd, Slot)
    assert odd.frequency_hz == RX2_HZ
    unknown = radio.class_a(
        300 * S,
        uplink(300 * S, data_rate=15),
        20,
        rx1_delay_us=S,
        rx1_dr_offset=9,
        rx2_frequency_hz=869_300_000,
        rx2_data_rate=0,
        purpose=Purpose.QUERY,
    )
    assert unknown == Refused("rx1 no_rx1, rx2 no_sub_band")
    assert radio.class_c(0, 20, RX2_HZ, 9, Purpose.MODEL) == Refused("no_data_rate")
    dwelling, _ = scheduler("as923")
    assert dwelling.class_c(0, 25, 923_200_000, 2, Purpose.MODEL) == Refused("too_long")
    assert isinstance(dwelling.class_c(0, 24, 923_200_000, 2, Purpose.MODEL), Slot)


def test_class_c_queues_frame_behind_frame_and_around_class_a() -> None:
    """Goal: the gap is kept on both sides; a frame that does not fit before a window goes behind it."""
    radio, _ = scheduler()
    window = answer(radio, uplink(at_us=0), 20)
    assert isinstance(window, Slot)
    slots = [radio.class_c(100_000, 235, RX2_HZ, 4, Purpose.MODEL) for _ in range(4)]
    busy = sorted(
        [(window.at_us, window.airtime_us)] + [(s.at_us, s.airtime_us) for s in slots if isinstance(s, Slot)]
    )
    assert len(busy) == 5
    for (start_us, airtime_us), (next_us, _) in pairwise(busy):
        assert next_us - start_us - airtime_us >= CLASS_C_GAP_US
    assert busy[0][0] == 100_000
    assert all(isinstance(slot, Slot) and slot.tmst_us is None for slot in slots)


def test_class_c_waits_for_the_duty_cycle_exactly() -> None:
    radio, ledger = scheduler()
    ledger.grant(0, RX2_HZ, 125_000, 360 * S, Purpose.MODEL)
    slot = radio.class_c(400 * S, 100, RX2_HZ, 3, Purpose.ROUND)
    assert isinstance(slot, Slot)
    assert slot.at_us == 3600 * S
    other, _ = scheduler()
    assert other.class_c(0, 255, RX2_HZ, 5, Purpose.ROUND) == Refused("too_long")


def test_more_than_an_hour_ahead_is_refused_with_the_time_to_come_back() -> None:
    radio, ledger = scheduler()
    ledger.grant(0, RX2_HZ, 125_000, 180 * S, Purpose.MODEL)
    ledger.grant(3000 * S, RX2_HZ, 125_000, 180 * S, Purpose.MODEL)
    ledger.grant(3600 * S, RX2_HZ, 125_000, 180 * S, Purpose.MODEL)
    answer = radio.class_c(200 * S, 235, RX2_HZ, 5, Purpose.MODEL)
    assert isinstance(answer, Refused)
    assert answer.reason == "duty_cycle"
    assert answer.retry_at_us is not None
    assert answer.retry_at_us >= 6600 * S


def test_now_keeps_the_radios_lead() -> None:
    radio, _ = scheduler()
    slot = radio.class_c(10 * S, 20, RX2_HZ, 3, Purpose.MODEL, now_us=10 * S)
    assert isinstance(slot, Slot)
    assert slot.at_us == 10 * S + LEAD_US


def test_release_frees_place_and_airtime() -> None:
    radio, ledger = scheduler()
    slot = answer(radio, uplink())
    assert isinstance(slot, Slot)
    radio.release(slot)
    assert ledger.spent_us(200 * S) == {}
    again = answer(radio, uplink())
    assert again == slot


def test_the_queue_is_bounded_and_empties_with_time() -> None:
    radio, _ = scheduler()
    slots = [radio.class_c(0, 20, RX2_HZ, 5, Purpose.MODEL) for _ in range(QUEUE_MAX + 1)]
    assert all(isinstance(slot, Slot) for slot in slots[:-1])
    assert slots[-1] == Refused("queue_full")
    assert answer(radio, uplink(at_us=0)) == Refused("queue_full")
    last = slots[-2]
    assert isinstance(last, Slot)
    assert isinstance(answer(radio, uplink(at_us=last.at_us)), Slot)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.booleans(), st.integers(12, 100)), max_size=60))
def test_no_two_frames_of_one_radio_ever_meet(requests: list[tuple[int, bool, int]]) -> None:
    """Goal: whatever is asked as time goes on, granted frames are disjoint and start where they may."""
    radio, _ = scheduler()
    taken: list[tuple[int, int]] = []
    for second, class_a, size in sorted(requests):
        at_us = second * S
        if class_a:
            slot = answer(radio, uplink(at_us=at_us), size)
            allowed = range(at_us + S, at_us + 2 * S + 1, S)
        else:
            slot = radio.class_c(at_us, size, RX2_HZ, 3, Purpose.MODEL)
            allowed = range(at_us, at_us + 3600 * S)
        if isinstance(slot, Slot):
            assert slot.at_us in allowed
            taken.append((slot.at_us, slot.at_us + slot.airtime_us))
    taken.sort()
    for (_, end_us), (start_us, _) in pairwise(taken):
        assert start_us - end_us >= GAP_US


def test_a_slot_is_a_value() -> None:
    radio, _ = scheduler()
    slot = answer(radio, uplink())
    assert isinstance(slot, Slot)
    with pytest.raises(AttributeError):
        slot.at_us = 5  # type: ignore[misc]
