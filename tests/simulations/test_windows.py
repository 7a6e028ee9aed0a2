"""Receive windows: who listens when, and the one cause for which each node missed a downlink."""

from __future__ import annotations

import numpy as np
import pytest

from simulations.links import Links, frame_key
from simulations.scenario import Hardship, Radio
from simulations.windows import ClassAWindow, DownlinkFrame, DownlinkLoss, Windows
from swarm.prng import Prng

SECOND = 1_000_000
CALM = Hardship(shadowing_db=0.0, channel_fading_db=0.0, fading_db=0.0)
MULTICAST = ClassAWindow(0, 869_525_000, 9, 125_000)


def make(distances_m: list[float], hardship: Hardship = CALM) -> Windows:
    links = Links(Prng(1), np.array(distances_m), Radio(), hardship)
    return Windows(links, 6.0, MULTICAST)


def frame(start_us: int, *, hz: int = 869_525_000, sf: int = 9, key: int = 1) -> DownlinkFrame:
    return DownlinkFrame(key, b"\x60", start_us, start_us + 300_000, hz, sf, 125_000, 27.0)


def heard(windows: Windows, each: DownlinkFrame) -> tuple[list[int], dict[str, int]]:
    nodes, _, lost = windows.hear_multicast(each)
    return nodes.tolist(), dict(lost)


def test_nodes_hear_multicast_within_their_windows_only() -> None:
    windows = make([500.0] * 3)
    windows.listen(0, 0, 10 * SECOND, 20 * SECOND)
    windows.listen(0, 1, 5 * SECOND, 12 * SECOND)
    assert heard(windows, frame(4 * SECOND)) == ([], {"not_listening": 3})
    assert heard(windows, frame(11 * SECOND)) == ([0, 1], {"not_listening": 1})
    assert heard(windows, frame(13 * SECOND)) == ([0], {"not_listening": 2})
    assert heard(windows, frame(21 * SECOND)) == ([], {"not_listening": 3})


def test_a_receiver_that_comes_on_for_the_last_five_preamble_symbols_hears_the_frame() -> None:
    symbol = 4_096
    windows = make([500.0] * 2)
    windows.listen(0, 0, 10 * SECOND, 20 * SECOND)
    windows.listen(0, 1, 10 * SECOND, 20 * SECOND)
    assert heard(windows, frame(10 * SECOND - 3 * symbol))[0] == [0, 1]
    assert heard(windows, frame(10 * SECOND - 4 * symbol))[0] == []
    assert heard(windows, frame(20 * SECOND - 8 * symbol))[0] == [0, 1]
    assert heard(windows, frame(20 * SECOND - 7 * symbol))[0] == []


def test_a_newer_announcement_replaces_an_older_and_one_that_is_due_closes_the_open_window() -> None:
    windows = make([500.0])
    windows.listen(0, 0, 10 * SECOND, 20 * SECOND)
    windows.listen(1, 0, 30 * SECOND, 40 * SECOND)
    assert heard(windows, frame(11 * SECOND))[0] == []
    windows.listen(32 * SECOND, 0, 50 * SECOND, 60 * SECOND)
    assert heard(windows, frame(33 * SECOND))[0] == [0], "the open window stays open beside the announced one"
    windows.listen(35 * SECOND, 0, 35 * SECOND, 35 * SECOND)
    assert heard(windows, frame(36 * SECOND))[0] == []
    assert heard(windows, frame(51 * SECOND))[0] == [0]
    windows.finish(100 * SECOND)
    assert windows.listened_us.tolist() == [(5 + 10) * SECOND]


def test_each_cause_of_a_missed_multicast_is_told_apart() -> None:
    hardship = Hardship(shadowing_db=0, channel_fading_db=0, fading_db=0, loss_probability=0.2)
    windows = make([500.0] * 1_000 + [200_000.0] * 10 + [500.0] * 10, hardship)
    for node in range(1_010):
        windows.listen(0, node, 0, 100 * SECOND)
    for node in range(7):
        windows.transmits(node, 10 * SECOND - 50_000, 10 * SECOND + 50_000)
    nodes, lost = heard(windows, frame(10 * SECOND))
    assert lost[DownlinkLoss.NOT_LISTENING] == 10
    assert lost[DownlinkLoss.COLLISION_WITH_OWN_TX] == 7
    assert lost[DownlinkLoss.UNDER_SENSITIVITY] == 10
    assert lost[DownlinkLoss.INTERFERENCE] / 993 == pytest.approx(0.2, abs=0.04)
    assert len(nodes) + sum(lost.values()) == 1_020


def test_another_data_rate_or_frequency_than_the_groups_is_heard_by_nobody() -> None:
    windows = make([500.0])
    windows.listen(0, 0, 0, 100 * SECOND)
    assert heard(windows, frame(10 * SECOND, sf=8)) == ([], {"not_listening": 1})
    assert heard(windows, frame(10 * SECOND, hz=868_100_000)) == ([], {"not_listening": 1})


def test_class_a_windows_catch_what_starts_in_them() -> None:
    windows = make([500.0, 500.0])
    rx1 = ClassAWindow(SECOND, 868_100_000, 7, 125_000)
    rx2 = ClassAWindow(2 * SECOND, 869_525_000, 12, 125_000)
    windows.open_class_a(0, (rx1, rx2))
    in_rx1 = frame(SECOND, hz=868_100_000, sf=7)
    assert windows.class_a_listeners(in_rx1) == [0]
    assert windows.class_a_listeners(frame(SECOND + 6_000, hz=868_100_000, sf=7)) == []
    assert windows.class_a_listeners(frame(SECOND, hz=868_100_000, sf=8)) == []
    assert windows.class_a_listeners(frame(2 * SECOND, sf=12)) == [0]
    cause, received_dbm = windows.hear_class_a(0, in_rx1)
    assert cause is None
    assert received_dbm > -100
    windows.transmits(0, SECOND + 100, SECOND + 200)
    assert windows.hear_class_a(0, in_rx1)[0] is DownlinkLoss.COLLISION_WITH_OWN_TX
    assert windows.close_class_a(0)
    assert not windows.close_class_a(0)
    assert windows.class_a_listeners(in_rx1) == []


def test_frames_are_named_apart_by_their_bytes() -> None:
    keys = {frame_key(number, 0) for number in range(1_000)} | {
        frame_key(0, number) for number in range(1, 1_000)
    }
    assert len(keys) == 1_999
