"""Planned sizes against what the firmware composes, and against the codec."""

from __future__ import annotations

import pytest

from swarm.federation.modes import MODES
from swarm.federation.sizes import Asked, frame_sizes, update_size
from swarm.model.layout import WEATHER, Shape
from swarm.wire import app
from swarm.wire.app import RoundMode
from swarm.wire.messages import MaskedSums
from swarm.wire.sums import values_of
from tests.firmware.fleet import Fleet

TOP_K = (RoundMode.TOP_K_SIGN, RoundMode.TOP_K_INT4)


@pytest.mark.parametrize("payload_max", [51, 115, 222])
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != RoundMode.MASKED_SUMS], ids=str)
def test_a_node_sends_the_frames_that_are_planned(mode: RoundMode, payload_max: int) -> None:
    """Nodes with samples of all classes send exactly these; how well a change is coded depends on it."""
    for shape in (WEATHER, Shape(classes=8, features=40)):
        fleet = Fleet(shape, count=6, payload_max=payload_max)
        fleet.observe(60)
        fleet.round(1, mode)
        planned = frame_sizes(mode, payload_max, Asked(shape))
        for node in range(fleet.nodes.count):
            sent = [len(payload) for index, payload in fleet.frames if index == node]
            if mode in TOP_K:
                assert len(sent) == len(planned) == 1
                assert 0.7 * planned[0] <= sent[0] <= planned[0]
            elif mode == RoundMode.PROTOTYPES and sent != list(planned):
                assert shape.classes > 7 and sent == [planned[0] - 1]  # no class that needs a second mask
            else:
                assert sorted(sent, reverse=True) == sorted(planned, reverse=True)


def test_a_round_for_new_contexts_asks_for_less() -> None:
    """By hand: 99 parameters of a head of three classes; a gap and a sign are 2 bits when all are said."""
    head = Asked(WEATHER, heads_only=True)
    assert update_size(RoundMode.DENSE_INT8, 222, head) == 11 + 99
    assert update_size(RoundMode.TOP_K_SIGN, 222, head) == 11 + 25
    assert update_size(RoundMode.BLOCKS, 222, head) == 12 + 2 * 32
    assert update_size(RoundMode.PROTOTYPES, 51, head) == 45


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_masked_sums_have_the_size_that_the_codec_gives_them(bits: int) -> None:
    for classes in (2, 3, 10):
        message = MaskedSums(1, 0, 0, 0, 0, 4, classes, bits, (0,) * values_of(classes))
        asked = Asked(Shape(classes, 8), bits=bits)
        assert update_size(RoundMode.MASKED_SUMS, 51, asked) == len(app.encode(message))


def test_a_rate_that_carries_no_update_has_no_frames() -> None:
    """A chunk takes 44 bytes, a sample 25, and no update has more than 64 fragments."""
    asked = Asked(WEATHER)
    assert frame_sizes(RoundMode.BLOCKS, 43, asked) == ()
    assert frame_sizes(RoundMode.FEATURES, 24, asked) == ()
    assert frame_sizes(RoundMode.DENSE_INT8, 15, asked) == ()
    assert frame_sizes(RoundMode.NONE, 222, asked) == ()
    for mode in MODES:
        for payload_max in (16, 51, 115, 222):
            sizes = frame_sizes(mode, payload_max, asked)
            assert all(0 < size <= payload_max for size in sizes)
            whole = update_size(mode, payload_max, asked)
            assert not sizes or sum(sizes) == whole + (6 * len(sizes) if len(sizes) > 1 else 0)
