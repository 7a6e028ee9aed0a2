"""Guests in a window's programme: spread out, and never behind the frame that closes receivers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from swarm.effects import Purpose
from swarm.queued import Programme, spread


def frames(count: int, purpose: Purpose) -> list[Programme]:
    return [Programme(10, bytes((purpose is Purpose.ROUND, i)), 2, purpose) for i in range(count)]


@given(st.integers(0, 9), st.integers(0, 40), st.integers(1, 3))
def test_guests_stand_apart_and_before_the_announcement(guests: int, pieces: int, rounds: int) -> None:
    visitors = [Programme(10, b"guest", 5, Purpose.MODEL) for _ in range(guests)]
    own = [*frames(pieces, Purpose.MODEL), *frames(rounds, Purpose.ROUND)]
    made = spread(visitors, own)
    assert [frame for frame in made if frame.payload != b"guest"] == own
    places = [i for i, frame in enumerate(made) if frame.payload == b"guest"]
    assert len(places) == guests
    assert all(place < len(made) - rounds for place in places)
    if pieces >= guests:
        gaps = [later - sooner for sooner, later in pairwise(places)]
        assert all(gap >= 1 + pieces // max(1, guests) for gap in gaps)
