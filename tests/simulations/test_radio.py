"""The gateway's radio refuses what a packet forwarder refuses, in its words."""

from __future__ import annotations

from simulations.radio import COUNTER_WRAP_US, GatewayRadio

MS = 1_000
SECOND = 1_000_000


def test_a_frame_needs_its_lead_and_may_not_be_too_far_ahead() -> None:
    radio = GatewayRadio()
    assert radio.offer(0, 42 * MS, 10 * MS) == "TOO_LATE"
    assert radio.offer(0, 513 * SECOND, 10 * MS) == "TOO_EARLY"
    assert radio.offer(0, 43 * MS, 10 * MS) is None


def test_a_time_that_has_passed_is_called_too_early_as_real_forwarders_do() -> None:
    assert GatewayRadio().offer(10 * SECOND, 9 * SECOND + 500 * MS, 10 * MS) == "TOO_EARLY"
    assert GatewayRadio().offer(0, COUNTER_WRAP_US - 1, 10 * MS) == "TOO_EARLY"


def test_frames_may_not_touch() -> None:
    radio = GatewayRadio()
    assert radio.offer(0, SECOND, 500 * MS) is None
    for start_us in (SECOND, SECOND + 499 * MS, SECOND + 530 * MS, 510 * MS):
        assert radio.offer(0, start_us, 460 * MS) == "COLLISION_PACKET"
    assert radio.offer(0, SECOND + 544 * MS, 500 * MS) is None
    assert radio.soonest_us(0) >= SECOND + 544 * MS + 500 * MS


def test_the_queue_holds_thirty_two_frames() -> None:
    radio = GatewayRadio()
    for number in range(32):
        assert radio.offer(0, SECOND + number * 200 * MS, 100 * MS) is None
    assert radio.offer(0, 100 * SECOND, 100 * MS) == "COLLISION_PACKET"
    assert radio.offer(2 * SECOND, 100 * SECOND, 100 * MS) is None, "those that were sent make room"


def test_a_power_cut_empties_the_queue() -> None:
    radio = GatewayRadio()
    radio.offer(0, SECOND, 500 * MS)
    radio.clear()
    assert radio.offer(0, SECOND, 500 * MS) is None
