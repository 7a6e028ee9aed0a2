"""Large blocks to devices behind a network server: by unicast into its queue, each number once, by C code."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from swarm.commands import CancelBlock, SendBlock, SetMulticast
from swarm.downlinks import BLOCK_TAG, Pending
from swarm.effects import ApplicationDownlink, Purpose
from swarm.large_blocks.plan import descriptor
from swarm.prng import Prng
from swarm.registry import Refused
from swarm.security.lorawan import AesKey, multicast_keys
from swarm.server_queue import BLOCK_WAIT_US, HANDED_MAX, OPEN_MAX, Handed, ServerQueue
from swarm.wire import fragmentation as ts004
from tests.firmware.large_block import BODY, Bench, signed
from tests.swarm import cell as farm
from tests.swarm.cell import add_node, air_is_legal, dev_eui
from tests.swarm.server_play import GPS_US, SECOND_US, Behind, ServerPlay

MC_KEY = bytes(range(50, 66))
BLOCKS = {size: Prng(size).child("block").numpy().bytes(size) for size in (1000, 20_000)}


def numbers(play: ServerPlay, index: int, version: int = 2) -> list[int]:
    """Of the fragments that the server sent to a device, in order."""
    found = []
    for each in play.sent:
        if each.dev_eui == dev_eui(index) and each.f_port == 201:
            (command, *_) = ts004.decode_downlink(each.payload, version)  # type: ignore[misc]
            if isinstance(command, ts004.DataFragment):
                found.append(command.n)
    return found


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("size", "version", "always_on"),
    [(1000, 2, False), (1000, 1, False), (20_000, 2, False), (20_000, 2, True)],
)
def test_a_block_reaches_a_device_of_another_make(
    size: int, version: int, always_on: bool, late: bool
) -> None:
    """Goal: TS003 and TS004 with a queue of somebody else's in between, a fifth of all frames lost."""
    device = Behind(0, always_on, version=version)
    play = ServerPlay(farm.settings("none"), [device], late=late)
    assert play.cell.command(SendBlock(BLOCKS[size], version=version)) is None
    play.run(hours=60, every_s=600)
    (ended,) = play.cell.told("block_ended")
    assert ended.data["complete"], ended.data
    assert device.device.block() == BLOCKS[size]
    assert device.clock.is_set
    believed_us = device.clock.gps_s(play.cell.now_us - device.born_us) * SECOND_US
    assert abs(believed_us + GPS_US - play.cell.now_us) <= 2 * SECOND_US
    sent = numbers(play, 0, version)
    assert sent == list(range(1, len(sent) + 1)), "each number once, in order"
    pieces = ended.data["pieces"]
    assert len(sent) <= 1.25 * int(str(pieces)) / 0.8 + 8
    assert device.depth <= 2


def test_after_restarts_no_number_comes_again() -> None:
    device = Behind(0, always_on=False)
    play = ServerPlay(farm.settings("none"), [device])
    assert play.cell.command(SendBlock(BLOCKS[1000])) is None
    play.run(hours=60, every_s=600, restart_every=2)
    (ended,) = play.cell.told("block_ended")
    assert ended.data["complete"] and play.cell.restarts > 5
    sent = numbers(play, 0)
    assert sorted(set(sent)) == sent
    assert device.depth <= 2


def test_a_server_that_says_nothing_is_not_flooded() -> None:
    """Without its word a piece goes with every second uplink, and the queue stays short."""
    device = Behind(0, always_on=False)
    play = ServerPlay(farm.settings("none"), [device], silence=1.0)
    assert play.cell.command(SendBlock(BLOCKS[1000])) is None
    play.run(hours=60, every_s=600)
    (ended,) = play.cell.told("block_ended")
    assert ended.data["complete"] and device.depth <= OPEN_MAX


@given(
    st.integers(0, 2**32),
    st.booleans(),
    st.booleans(),
    st.floats(0, 0.5),
    st.floats(0, 0.3),
    st.integers(0, 9),
)
@example(576, False, True, 0.5, 0.0, 0)  # all five pieces get lost
@settings(max_examples=20, deadline=None, phases=(Phase.explicit, Phase.generate))
def test_whatever_is_lost_said_or_not_and_killed(
    seed: int, always_on: bool, late: bool, silence: float, failing: float, restart_every: int
) -> None:
    """Goal: the block arrives, the server's queue stays short, and no number goes out twice."""
    device = Behind(0, always_on)
    play = ServerPlay(farm.settings("none"), [device], late=late, silence=silence, failing=failing)
    play.draw = Prng(seed).child("air").numpy()
    assert play.cell.command(SendBlock(BLOCKS[1000])) is None
    play.run(hours=200, every_s=600, restart_every=restart_every)
    (ended,) = play.cell.told("block_ended")
    assert ended.data["complete"], ended.data
    assert device.device.block() == BLOCKS[1000]
    parity = [n for n in numbers(play, 0) if n > int(str(ended.data["pieces"]))]
    assert sorted(set(parity)) == parity
    assert device.depth <= OPEN_MAX


@pytest.mark.parametrize("always_on", [False, True])
def test_what_the_server_cannot_send_is_tried_again_and_given_up_in_the_end(always_on: bool) -> None:
    for fails, complete in ((3, True), (10_000, False)):
        device = Behind(0, always_on)
        play = ServerPlay(farm.settings("none"), [device], fails=fails, loss=0.0)
        assert play.cell.command(SendBlock(BLOCKS[1000])) is None
        play.run(hours=60, every_s=600)
        (ended,) = play.cell.told("block_ended")
        assert ended.data["complete"] is complete
        if not complete:
            assert ended.data["left"] == {dev_eui(0): "its server cannot send"}
            assert len(play.cell.told("tx_failed")) <= 20
        sent = numbers(play, 0)
        assert sent == list(range(1, len(sent) + 1))


def test_a_server_that_loses_the_frame_of_a_device_that_is_always_on_is_given_the_next() -> None:
    """Method: the core is polled when it asks for it and not later, as the daemon does; no uplink comes."""
    device = Behind(0, always_on=True)
    play = ServerPlay(farm.settings("none"), [device], loss=0.0)
    cell = play.cell
    assert cell.command(SendBlock(BLOCKS[20_000])) is None
    while not numbers(play, 0):
        play.run(hours=40 / 3600, every_s=20)
    device.queue.clear()
    before, until_us = len(cell.effects), cell.now_us + 3600 * SECOND_US
    while (at_us := cell.core.poll_at()) is not None and at_us < until_us:
        cell.run_until(max(at_us, cell.now_us + 1))
    handed_over = [each for each in cell.effects[before:] if isinstance(each, ApplicationDownlink)]
    assert 20 <= len(handed_over) <= 3600 * SECOND_US // BLOCK_WAIT_US


def test_nodes_of_ours_go_on_by_themselves() -> None:
    """They say how far they are behind each piece, so that hours do not pass between two."""
    bench = Bench()
    device = Behind(1, always_on=False, own=bench)
    play = ServerPlay(farm.settings("prototypes", period_s=86_400), [device])
    assert play.cell.command(SendBlock(signed(BODY))) is None
    play.run(hours=200)
    (ended,) = play.cell.told("block_ended")
    assert ended.data["complete"], ended.data
    assert bench.receivers.block(0) == BODY and bench.receivers.rewritten()[0] == 0
    hours = (ended.at_us - int(str(ended.data["created_us"]))) / 3.6e9
    assert hours < int(str(ended.data["frames"])), "faster than a frame an hour"


def test_several_at_once_each_at_its_own_pace() -> None:
    """Devices of both classes, and one that is never heard again: it is left, the others have the block."""
    devices = [Behind(index, always_on=index % 2 == 1) for index in range(5)]
    play = ServerPlay(farm.settings("none"), devices)
    assert play.cell.command(SendBlock(BLOCKS[1000])) is None
    devices[4].is_gone = True
    play.run(hours=60, every_s=900)
    (ended,) = play.cell.told("block_ended")
    assert ended.data["whole"] == 4 and ended.data["left"] == {dev_eui(4): "not heard"}
    assert all(each.device.block() == BLOCKS[1000] and each.depth <= 2 for each in devices[:4])


def test_group_and_server_in_one_delivery() -> None:
    """Nodes of the cell hear the group, the others are sent theirs one by one at the same time."""
    device = Behind(7, always_on=False)
    play = ServerPlay(farm.settings("none"), [device], loss=0.0)
    cell = play.cell
    assert cell.command(add_node(0)) is None
    refused = cell.command(SendBlock(BLOCKS[1000], nodes=(dev_eui(0), dev_eui(7))))
    assert isinstance(refused, Refused) and "multicast group" in refused.reason
    assert cell.command(farm.GROUP) is None
    assert cell.command(SendBlock(BLOCKS[1000], nodes=(dev_eui(0), dev_eui(7)))) is None
    play.run(hours=10, every_s=300)
    (ended,) = cell.told("block_ended")
    assert ended.data["behind_server"] == 1 and ended.data["whole"] == 1
    assert device.device.block() == BLOCKS[1000]
    assert sum(transmit.multicast for transmit in cell.on_air) >= int(str(ended.data["pieces"]))


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("size", [1000, 20_000])
def test_a_gateway_of_the_cell_helps_where_it_reaches_them(size: int, late: bool) -> None:
    """Goal: TS005 by the server's downlinks, one uplink late or not, the block by the cell's own group; what
    that leaves is repaired by the server's downlinks."""
    devices = [Behind(index, always_on=False) for index in range(3)]
    play = ServerPlay(replace(farm.settings("none"), network_multicast=True), devices, late=late)
    assert play.cell.command(SendBlock(BLOCKS[1000])) is None, "without a group one by one"
    assert play.cell.core.blocks.listing()[-1]["behind_server"] == 3
    assert play.cell.command(CancelBlock(descriptor(BLOCKS[1000]))) is None
    play.cell.events.clear()
    nwk_s_key, app_s_key = multicast_keys(AesKey(MC_KEY), farm.MC_ADDR)
    group = SetMulticast(farm.MC_ADDR, nwk_s_key, app_s_key, mc_key=MC_KEY)
    assert play.cell.command(group) is None
    assert play.cell.command(SendBlock(BLOCKS[size])) is None
    assert play.cell.core.blocks.listing()[-1]["behind_server"] == 0
    play.run(hours=60, every_s=600)
    (ended,) = play.cell.told("block_ended")
    assert ended.data["complete"], ended.data
    assert all(each.device.block() == BLOCKS[size] for each in devices)
    pieces = int(str(ended.data["pieces"]))
    assert sum(transmit.multicast for transmit in play.cell.on_air) >= pieces
    assert sum(len(numbers(play, index)) for index in range(3)) <= pieces, "of three times as many"
    assert all(each.depth <= 2 for each in devices)
    air_is_legal(play.cell)


def test_a_device_that_never_learned_the_time_is_told_to_ask() -> None:
    """Goal: nobody misses the group because its first three requests for the time were lost."""
    device = Behind(0, always_on=False)
    play = ServerPlay(replace(farm.settings("none"), network_multicast=True), [device], loss=0.0)
    for hours in range(3):
        assert device.clock.poll(play.cell.now_us - device.born_us + hours * 3600 * SECOND_US)[0]
    nwk_s_key, app_s_key = multicast_keys(AesKey(MC_KEY), farm.MC_ADDR)
    group = SetMulticast(farm.MC_ADDR, nwk_s_key, app_s_key, mc_key=MC_KEY)
    assert play.cell.command(group) is None
    assert play.cell.command(SendBlock(BLOCKS[1000])) is None
    play.run(hours=60, every_s=600)
    (ended,) = play.cell.told("block_ended")
    assert ended.data["complete"] and device.clock.is_set
    assert (202, b"\x03\x01") in device.heard and numbers(play, 0) == []


def test_the_time_is_not_told_to_who_asked_long_ago() -> None:
    """A request that a broker kept is of a clock that may have started anew since."""
    device = Behind(0, always_on=False)
    play = ServerPlay(farm.settings("none"), [device], loss=0.0)
    cell = play.cell
    request, _ = device.clock.poll(cell.now_us - device.born_us)
    given = [play.given(device, 202, request, f_cnt) for f_cnt in (10, 11)]
    cell.perform(cell.core.on_application_uplink(cell.now_us, given[0]))
    answers = [each for each in cell.effects if isinstance(each, ApplicationDownlink)]
    assert [each.f_port for each in answers] == [202]
    cell.run_for(3600)
    cell.perform(cell.core.on_application_uplink(cell.now_us, given[1]))
    cell.perform(cell.core.on_application_uplink(cell.now_us, play.given(device, 1, b"x", 12)))
    assert [each for each in cell.effects if isinstance(each, ApplicationDownlink)] == answers


def test_a_node_that_joins_again_is_set_up_again() -> None:
    """Its session is gone with its memory, and with it what was in the server's queue."""
    device = Behind(0, always_on=False)
    play = ServerPlay(farm.settings("none"), [device])
    assert play.cell.command(SendBlock(BLOCKS[20_000])) is None
    play.run(hours=5, every_s=600)
    assert 5 < len(numbers(play, 0)) < 50
    device.queue.clear()
    device.device = device.reset()
    device.session, device.f_cnt = "two", 0
    play.run(hours=200, every_s=600)
    (ended,) = play.cell.told("block_ended")
    assert ended.data["complete"], ended.data
    assert device.device.block() == BLOCKS[20_000]


# The queue by itself. ---------------------------------------------------------------------------------


def handed(reference: int, *, tag: str = "", at_us: int = 0) -> Handed:
    pending = Pending(201, b"", 0, Purpose.MODEL, 0, tag)
    return Handed(reference, "a", pending, at_us, 0)


def test_how_much_a_server_is_given_of_one_node() -> None:
    queue = ServerQueue()
    for reference in range(OPEN_MAX):
        assert queue.has_room("a")
        queue.put(handed(reference))
    assert not queue.has_room("a") and queue.has_room("b")
    taken = queue.take(2)
    assert taken is not None and taken.is_open
    assert queue.has_room("a"), "what went before is out too"
    earlier = queue.take(1)
    assert earlier is not None and not earlier.is_open
    assert queue.take(1) is None and queue.take(99) is None
    queue.clear("a")
    assert queue.has_room("a", block=True) and queue.take(3) is not None
    queue.put(handed(7))
    queue.forget("a")
    assert queue.take(7) is None


def test_a_word_that_never_comes_is_not_waited_for() -> None:
    queue = ServerQueue()
    queue.put(handed(1, tag=BLOCK_TAG))
    assert queue.has_room("a") and not queue.has_room("a", block=True)
    queue.on_uplink("a")
    assert not queue.has_room("a", block=True)
    queue.on_uplink("a")
    assert queue.has_room("a", block=True)
    queue.put(handed(2, tag=BLOCK_TAG, at_us=5))
    queue.on_silence(BLOCK_WAIT_US, "a")
    assert not queue.has_room("a", block=True)
    queue.on_silence(BLOCK_WAIT_US + 5, "a")
    assert queue.has_room("a", block=True)


def test_the_frames_awaited_are_bounded() -> None:
    queue = ServerQueue()
    for reference in range(HANDED_MAX + 10):
        queue.put(replace(handed(1), reference=reference, dev_eui=str(reference)))
    assert queue.take(9) is None and queue.take(10) is not None
    assert queue.has_room("9", block=True)
