"""TS005 and TS003 on the C node: keys, groups, sessions and clocks against the Python side of the wire."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.security.lorawan import AesKey, mc_ke_key, mc_root_key, multicast_keys, seal_mc_key
from swarm.transport.device_setup import Clock, Groups, GroupsHeard
from swarm.wire import clock_sync, multicast_setup
from swarm.wire.packages import Package, PackageVersionAns, PackageVersionReq

ROOT = bytes(range(16))
MC_KEY = AesKey(bytes(range(16, 32)))
ADDRESS = 0x01FF02FE
NOW_S = 1_400_000_000
SECOND_US = 1_000_000


def setup(
    number: int = 1, root: bytes = ROOT, *, version_1_1: bool = False
) -> multicast_setup.McGroupSetupReq:
    ke_key = mc_ke_key(mc_root_key(AesKey(root), version_1_1=version_1_1))
    return multicast_setup.McGroupSetupReq(number, ADDRESS, seal_mc_key(ke_key, MC_KEY), 5, 1000)


def tell(groups: Groups, *commands: multicast_setup.Downlink, version: int = 2, now_s: int = NOW_S) -> Any:
    payload = b"".join(multicast_setup.encode(command, version) for command in commands)
    heard, answer = groups.rx(payload, now_s)
    return heard, multicast_setup.decode_uplink(answer, version) if answer else ()


@pytest.mark.parametrize("version_1_1", [False, True])
def test_the_node_has_the_keys_that_the_network_has(version_1_1: bool) -> None:
    """Goal: a group set up over the air can be heard.  Method: keys of both sides, of both key trees."""
    groups = Groups(ROOT, version_1_1=version_1_1)
    heard, answers = tell(groups, setup(version_1_1=version_1_1))
    assert (heard, answers) == (GroupsHeard.SET, (multicast_setup.McGroupSetupAns(1, False),))
    group = groups.group(1)
    assert group is not None
    assert (group.address, group.f_cnt_min, group.f_cnt_max) == (ADDRESS, 5, 1000)
    assert (group.nwk_s_key, group.app_s_key) == multicast_keys(MC_KEY, ADDRESS)
    assert groups.group(0) is None


def test_groups_are_told_and_forgotten() -> None:
    groups = Groups(ROOT)
    _, version = tell(groups, PackageVersionReq())
    assert version == (PackageVersionAns(Package.MULTICAST_SETUP, 2),)
    tell(groups, setup(0), setup(3))
    _, status = tell(groups, multicast_setup.McGroupStatusReq(0b1010))
    assert status == (multicast_setup.McGroupStatusAns(2, ((3, ADDRESS),)),)
    heard, deleted = tell(groups, multicast_setup.McGroupDeleteReq(3), multicast_setup.McGroupDeleteReq(2))
    assert heard == GroupsHeard.DELETED
    assert deleted == (
        multicast_setup.McGroupDeleteAns(3, False),
        multicast_setup.McGroupDeleteAns(2, True),
    )
    assert groups.group(3) is None
    _, all_four = tell(groups, setup(1), setup(2), setup(3), multicast_setup.McGroupStatusReq(15))
    assert all_four[-1] == multicast_setup.McGroupStatusAns(4, tuple((i, ADDRESS) for i in range(4)))


@pytest.mark.parametrize(
    ("version", "start_s", "expected"),
    [
        (2, NOW_S + 100, (100, {})),
        (2, NOW_S, (0, {})),
        (2, NOW_S - 1, (None, {"start_missed": True})),
        (1, NOW_S - 1, (0, {})),
        (1, NOW_S - 256, (None, {"undefined": True})),
        (2, (NOW_S + 20_000_000) % 2**32, (0xFFFFFF, {})),
    ],
)
def test_a_session_is_in_time_or_refused(
    version: int, start_s: int, expected: tuple[int | None, dict[str, bool]]
) -> None:
    groups = Groups(ROOT, version=version)
    tell(groups, setup(), version=version)
    request = multicast_setup.McClassCSessionReq(1, start_s, 8, 869_525_000, 3)
    heard, answers = tell(groups, request, version=version)
    wait_s, errors = expected
    assert answers == (multicast_setup.McClassCSessionAns(1, wait_s, **errors),)
    group = groups.group(1)
    assert group is not None
    if wait_s is None:
        assert (heard, group.session) == (GroupsHeard.NOTHING, None)
    else:
        assert (heard, group.session) == (GroupsHeard.SESSION, (start_s, 256, 869_525_000, 3))


def test_no_session_without_group_and_none_in_class_b() -> None:
    groups = Groups(ROOT)
    request = multicast_setup.McClassCSessionReq(2, NOW_S + 9, 8, 869_525_000, 3)
    assert tell(groups, request)[1] == (multicast_setup.McClassCSessionAns(2, None, undefined=True),)
    tell(groups, setup(2))
    ping = multicast_setup.McClassBSessionReq(2, NOW_S + 9, 8, 4, 869_525_000, 3)
    refused = multicast_setup.McClassBSessionAns(2, None, data_rate_error=True, frequency_error=True)
    assert tell(groups, ping)[1] == (refused,)


@given(st.lists(st.binary(max_size=40) | st.lists(st.integers(0, 6), max_size=40).map(bytes), max_size=20))
def test_any_bytes_leave_groups_that_work(payloads: list[bytes]) -> None:
    groups = Groups(ROOT)
    for payload in payloads:
        _, answer = groups.rx(payload, NOW_S)
        assert answer == b"" or isinstance(multicast_setup.decode_uplink(answer, 2), tuple)
    assert tell(groups, setup())[0] == GroupsHeard.SET


def told(payload: bytes) -> Any:
    commands = clock_sync.decode_uplink(payload)
    assert isinstance(commands, tuple)
    return commands[0] if len(commands) == 1 else commands


@pytest.mark.parametrize("true_s", [0, NOW_S, 2**32 - 3])
def test_a_clock_is_set_by_one_exchange(true_s: int) -> None:
    """Goal: both sides begin a session together.  Method: request, the network's answer, at any GPS time."""
    clock = Clock(7 * SECOND_US)
    payload, next_us = clock.poll(7 * SECOND_US)
    request = told(payload)
    assert request == clock_sync.AppTimeReq(7, 0, ans_required=True)
    assert next_us is not None
    answer = clock_sync.answer(request, true_s)
    assert answer is not None
    assert clock.rx(9 * SECOND_US, clock_sync.encode(answer)) == (True, b"")
    assert clock.is_set
    assert clock.gps_s(17 * SECOND_US) == (true_s + 10) % 2**32
    assert clock.rx(9 * SECOND_US, clock_sync.encode(answer)) == (False, b"")  # once only
    assert clock.poll(10**15) == (b"", None)


def test_an_answer_to_another_request_is_ignored() -> None:
    clock = Clock()
    clock.poll(0)
    assert clock.rx(1, clock_sync.encode(clock_sync.AppTimeAns(99, 5))) == (False, b"")
    assert clock.rx(1, clock_sync.encode(clock_sync.AppTimeAns(99, 0)))[0]
    assert clock.gps_s(0) == 99
    clock.rx(2, clock_sync.encode(clock_sync.ForceDeviceResync(1)))
    payload, _ = clock.poll(2)
    assert told(payload) == clock_sync.AppTimeReq(99, 1, ans_required=False)


def test_an_unanswered_node_asks_three_times() -> None:
    clock = Clock()
    now_us: int | None = 0
    sent: list[int] = []
    for _ in range(10):
        if now_us is None:
            break
        payload, at_us = clock.poll(now_us)
        sent += [now_us] if payload else []
        now_us = at_us
    assert now_us is None
    assert len(sent) == 3
    assert all(60 * SECOND_US <= b - a < 120 * SECOND_US for a, b in pairwise(sent))


def test_a_period_is_kept_and_told() -> None:
    """Goal: requests every 128 * 2^p s, give or take 30.  Method: p = 3, a day."""
    clock = Clock()
    clock.poll(0)
    clock.rx(0, clock_sync.encode(clock_sync.AppTimeAns(1000, 0)))
    _, answer = clock.rx(5 * SECOND_US, clock_sync.encode(clock_sync.DeviceAppTimePeriodicityReq(3)))
    assert told(answer) == clock_sync.DeviceAppTimePeriodicityAns(False, 1005)
    sent, now_us = [5 * SECOND_US], 5 * SECOND_US
    while now_us < 86_400 * SECOND_US:
        payload, at_us = clock.poll(now_us)
        assert at_us is not None
        if payload:
            sent.append(now_us)
            clock.rx(now_us, clock_sync.encode(clock_sync.AppTimeAns(0, told(payload).token)))
            _, at_us = clock.poll(now_us)
            assert at_us is not None
        now_us = at_us
    gaps = [(b - a) // SECOND_US for a, b in pairwise(sent)]
    assert min(gaps) >= 1024 - 30
    assert max(gaps) <= 1024 + 30
    assert len(set(gaps)) > 10


def test_a_group_may_ask_for_a_resynchronisation_only() -> None:
    """Goal: a thousand nodes do not ask at once.  Method: their times after one multicast command."""
    times = set()
    for seed in range(50):
        clock = Clock(seed=seed)
        clock.poll(0)
        clock.rx(0, clock_sync.encode(clock_sync.AppTimeAns(1, 0)))
        period = clock_sync.encode(clock_sync.DeviceAppTimePeriodicityReq(1))
        assert clock.rx(0, period, multicast=True) == (False, b"")
        clock.rx(0, clock_sync.encode(clock_sync.ForceDeviceResync(2)), multicast=True)
        _, at_us = clock.poll(-1)
        times.add(at_us)
    assert len(times) > 20


@given(
    st.lists(
        st.tuples(st.binary(max_size=30) | st.lists(st.integers(0, 4), max_size=30).map(bytes), st.booleans())
    )
)
def test_any_bytes_leave_a_clock_that_works(payloads: list[tuple[bytes, bool]]) -> None:
    clock = Clock()
    for payload, multicast in payloads:
        _, answer = clock.rx(0, payload, multicast=multicast)
        assert answer == b"" or isinstance(clock_sync.decode_uplink(answer), tuple)
    clock.rx(0, clock_sync.encode(clock_sync.ForceDeviceResync(1)))
    request = told(clock.poll(0)[0])
    answer_now = clock_sync.answer(request, NOW_S)
    if answer_now is not None:
        clock.rx(0, clock_sync.encode(answer_now))
    assert clock.gps_s(0) == NOW_S
