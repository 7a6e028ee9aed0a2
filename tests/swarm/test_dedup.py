"""Copies of one uplink: gathered, best first, late ones swallowed, memory bounded."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.effects import RxFrame
from swarm.mac import dedup
from swarm.mac.dedup import LATE_US, Deduplicator

RX = RxFrame(b"frame", "a", 0, 0, 868_100_000, 5, -90.0, 5.0)


def copy(gateway_id: str, snr_db: float = 5.0, rssi_dbm: float = -90.0, payload: bytes = b"frame") -> RxFrame:
    return replace(RX, gateway_id=gateway_id, snr_db=snr_db, rssi_dbm=rssi_dbm, payload=payload)


def test_copies_of_a_window_come_together_best_first() -> None:
    """Goal: one uplink per frame.  Method: three gateways, SNR decides, then RSSI, then the id."""
    gathering = Deduplicator(200_000)
    for at_us, rx in [
        (1_000, copy("c", 2.0)),
        (50_000, copy("b", 7.0, -80.0)),
        (200_999, copy("a", 7.0, -81.0)),
    ]:
        gathering.on_frame(at_us, rx)
        assert gathering.poll(at_us) == []
    assert gathering.poll_at() == 201_000
    heard = gathering.poll(201_000)
    assert [rx.gateway_id for rx in heard[0].copies] == ["b", "a", "c"]
    assert heard[0].best.gateway_id == "b"
    assert len(heard) == 1
    assert gathering.poll_at() is None


def test_a_late_copy_is_swallowed_and_a_retransmission_is_not() -> None:
    """Goal: a slow backhaul makes no second uplink, the device's own repetition does."""
    gathering = Deduplicator(200_000)
    gathering.on_frame(0, copy("a"))
    assert len(gathering.poll(200_000)) == 1
    gathering.on_frame(200_000 + LATE_US - 1, copy("b"))
    assert gathering.poll(10_000_000) == []
    assert gathering.late == 1
    gathering.on_frame(200_000 + LATE_US, copy("a"))
    assert len(gathering.poll(10_000_000)) == 1


def test_window_zero_hands_on_at_once() -> None:
    """Goal: a single gateway adds no delay.  Method: poll at the same instant."""
    gathering = Deduplicator(0)
    gathering.on_frame(5, copy("a"))
    assert gathering.poll_at() == 5
    assert len(gathering.poll(5)) == 1
    gathering.on_frame(6, copy("b"))
    assert gathering.poll(6) == []
    with pytest.raises(ValueError):
        Deduplicator(-1)


def test_one_gateway_counts_once_with_its_best_copy() -> None:
    """Goal: ghosts on neighbouring channels and repeated datagrams are not diversity."""
    gathering = Deduplicator(100)
    gathering.on_frame(0, copy("a", -12.0))
    gathering.on_frame(1, replace(copy("a", 9.0), frequency_hz=868_300_000))
    gathering.on_frame(2, copy("a", -3.0))
    (heard,) = gathering.poll(100)
    assert [rx.snr_db for rx in heard.copies] == [9.0]
    assert heard.best.frequency_hz == 868_300_000


def test_many_copies_and_many_frames_stay_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a flood fills no memory, and the best copy survives it."""
    monkeypatch.setattr(dedup, "FRAMES_MAX", 10)
    gathering = Deduplicator(1_000)
    for number in range(100):
        gathering.on_frame(0, copy(f"gateway-{number:03}", snr_db=float(number)))
    for number in range(30):
        gathering.on_frame(number, copy("a", payload=bytes([number])))
    heard = gathering.poll(5_000)
    assert heard[0].best.snr_db == 99.0
    assert len(heard[0].copies) == dedup.COPIES_MAX
    assert len(heard) == 10
    assert gathering.overflowed == 21


def test_one_gateways_flood_does_not_push_out_what_another_hears(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: fair shares when windows run out.  Method: two floods, the third gateway's few frames stay."""
    monkeypatch.setattr(dedup, "FRAMES_MAX", 12)
    gathering = Deduplicator(1_000)
    lost = [
        gathering.on_frame(n, copy("ab"[n % 2], payload=bytes([n])), stranger=n % 2 == 1) for n in range(20)
    ]
    assert [rx.payload[0] for rx in lost if rx is not None] == list(range(12, 20)), "the newest"
    gave_way = [gathering.on_frame(20, copy("c", payload=bytes([n]))) for n in range(20, 24)]
    assert sorted(rx.gateway_id for rx in gave_way if rx is not None) == ["a", "a", "b", "b"]
    heard = [each.best.payload[0] for each in gathering.poll(2_000)]
    assert heard == [0, 1, 2, 3, 4, 5, 6, 7, 20, 21, 22, 23]
    assert gathering.overflowed == 12
    assert gathering.on_frame(2_001, copy("c", payload=bytes([11]))) is None, "its windows are free again"
    assert len(gathering.poll(4_000)) == 1, "what was given up is not remembered as heard"


def test_strangers_share_one_place_and_come_last() -> None:
    """Goal: a made-up signal does not take the answer away.  Method: 30 strangers, all loud."""
    gathering = Deduplicator(1_000)
    gathering.on_frame(0, copy("honest", -9.0))
    for number in range(30):
        gathering.on_frame(1, copy(f"stranger-{number:02}", 99.0), stranger=True)
    (heard,) = gathering.poll(1_000)
    assert heard.best.gateway_id == heard.first.gateway_id == "honest"
    assert len(heard.copies) == dedup.COPIES_MAX


@given(
    st.lists(st.tuples(st.integers(0, 3_000_000), st.integers(0, 3), st.sampled_from("abc")), max_size=40),
    st.sampled_from([0, 200_000, 800_000]),
)
def test_every_frame_is_handed_on_once_per_transmission(
    arrivals: list[tuple[int, int, str]], window_us: int
) -> None:
    """Goal: nothing is lost, nothing doubled inside the guard time.  Method: random arrivals, in order."""
    gathering = Deduplicator(window_us)
    given_out: dict[bytes, list[int]] = {}
    for at_us, number, gateway_id in sorted(arrivals):
        gathering.on_frame(at_us, copy(gateway_id, payload=bytes([number])))
        due_us = gathering.poll_at()
        assert due_us is not None or window_us == 0 or gathering.late
        for heard in gathering.poll(at_us):
            given_out.setdefault(heard.best.payload, []).append(at_us)
            assert len({rx.gateway_id for rx in heard.copies}) == len(heard.copies)
    for heard in gathering.poll(10_000_000):
        given_out.setdefault(heard.best.payload, []).append(10_000_000)
    assert set(given_out) == {bytes([number]) for _, number, _ in arrivals}
    assert gathering.poll_at() is None
    for payload, times in given_out.items():
        firsts = [at_us for at_us, number, _ in arrivals if bytes([number]) == payload]
        assert len(times) <= 1 + (max(firsts) - min(firsts)) // (window_us + LATE_US)
