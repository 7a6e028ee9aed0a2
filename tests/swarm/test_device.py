"""The end device: legal airtime, channel hopping, windows, joins, groups, and a network at the other end."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.effects import Malformed, Purpose
from swarm.mac import device as mac
from swarm.mac.device import (
    AbpIdentity,
    Delivered,
    EndDevice,
    Joined,
    MulticastMemo,
    OtaaIdentity,
    UplinkFrame,
)
from swarm.mac.group import MEMO_MAX
from swarm.mac.join import Device, answer_join
from swarm.mac.session import Accepted, MulticastGroup, Session, accept, downlink
from swarm.phy.regions import Region, region
from swarm.prng import Prng
from swarm.security.lorawan import AesKey, seal_join_accept
from swarm.wire import lorawan

EU868 = region("eu868")
NWK, APP, ROOT = bytes(range(16)), bytes(range(16, 32)), bytes(range(32, 48))
MC_NWK, MC_APP = bytes(range(48, 64)), bytes(range(64, 80))
ADDR, MC_ADDR = 0x2600_0007, 0x01FF_EEDD
HOUR_US = 3_600_000_000
ABP = AbpIdentity(ADDR, NWK, APP)
OTAA = OtaaIdentity("0011223344556677", "8899aabbccddeeff", ROOT)


def abp(seed: int = 1, rules: Region = EU868, **options: Any) -> EndDevice:
    return EndDevice(rules, ABP, Prng(seed), **options)


def otaa(seed: int = 1) -> EndDevice:
    return EndDevice(EU868, OTAA, Prng(seed), data_rate=5)


def session() -> Session:
    return Session("0" * 16, ADDR, NWK, APP)


def group_of(f_cnt: int = 0) -> MulticastGroup:
    return MulticastGroup(MC_ADDR, MC_NWK, MC_APP, f_cnt, 869_525_000, 3)


def listening(memo: MulticastMemo | None = None, **options: int) -> EndDevice:
    node = abp(memo=memo)
    node.add_group(MC_ADDR, MC_NWK, MC_APP, **options)
    return node


def heard(server: Session, frame: UplinkFrame) -> Accepted:
    """What the network makes of an uplink."""
    parsed = lorawan.parse(frame.payload)
    assert isinstance(parsed, lorawan.DataFrame)
    result = accept(server, parsed)
    assert isinstance(result, Accepted), result
    return result


def reason(result: object) -> str:
    assert isinstance(result, Malformed), result
    assert result.reason in (*mac.REASONS, *lorawan.REASONS)
    return result.reason


def busiest_hour_us(frames: Sequence[UplinkFrame]) -> dict[str, int]:
    """Per sub-band: the most airtime in any window of one hour, counted without the ledger."""
    worst: dict[str, int] = {}
    for name in {EU868.sub_band(frame.frequency_hz).name for frame in frames}:
        band = [frame for frame in frames if EU868.sub_band(frame.frequency_hz).name == name]
        starts = [frame.at_us for frame in band]
        for end in (frame.end_us for frame in band):
            first = bisect_left(starts, end - HOUR_US - 5_000_000)  # no frame is longer than 5 s
            inside = (f for f in band[first:] if f.at_us < end)
            total = sum(
                min(f.end_us, end) - max(f.at_us, end - HOUR_US) for f in inside if f.end_us > end - HOUR_US
            )
            worst[name] = max(worst.get(name, 0), total)
    return worst


def test_uplinks_are_understood_by_the_network() -> None:
    """Goal: both halves speak the same LoRaWAN.  Method: payloads of all sizes, ports, confirmed and not."""
    node, server = abp(data_rate=5), session()
    for size in (0, 1, 15, 16, 17, 51, 222):
        frame = node.uplink(0, 10 + size % 3, bytes(range(size)), confirmed=size % 2 == 0)
        result = heard(server, frame)
        assert (result.f_cnt, result.payload) == (frame.f_cnt, bytes(range(size)))
        assert (result.f_port, result.confirmed) == (10 + size % 3, size % 2 == 0)
        assert frame.airtime_us == EU868.airtime_us(5, size + 13, uplink=True)
    assert heard(server, node.uplink(0, None, f_opts=b"\x02\x0d")).commands[1].cid == 0x0D
    assert heard(server, node.uplink(0, 0, b"\x02")).commands[0].cid == 0x02


def test_a_greedy_device_stays_legal_in_every_hour() -> None:
    """Goal: the device polices itself.  Method: 400 uplinks as fast as it can, audited by another count."""
    node = abp(data_rate=2)
    frames = [node.uplink(0, 10, bytes(40)) for _ in range(400)]
    assert all(b.at_us >= a.end_us + 2_000_000 for a, b in pairwise(frames))
    worst = busiest_hour_us(frames)
    assert set(worst) == {"L", "M"}
    assert max(worst.values()) <= 36_000_000
    assert min(worst.values()) > 35_000_000  # and it is not more timid than the law


def test_channels_are_drawn_from_the_devices_own_stream() -> None:
    """Goal: seeded, spread over all eight, different between devices."""
    runs = [
        [abp_node.uplink(i * 600_000_000, 10, b"x").frequency_hz for i in range(400)]
        for abp_node in (abp(1), abp(1), abp(2))
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    counts = Counter(runs[0])
    assert set(counts) == {channel.frequency_hz for channel in EU868.channels}
    assert min(counts.values()) > 25


def test_refusals_use_up_no_counter() -> None:
    """Goal: what cannot be sent is said before it costs anything."""
    node = abp()
    for wrong in ((10, bytes(52)), (None, b"x")):
        with pytest.raises(ValueError):
            node.uplink(0, *wrong)
    with pytest.raises(ValueError, match="50 B"):
        node.uplink(0, 10, bytes(51), f_opts=b"\x02")
    node.data_rate = 99
    with pytest.raises(ValueError):
        node.uplink(0, 10, b"x")
    assert node.f_cnt_up == 0
    node.f_cnt_up = 2**32
    node.data_rate = 0
    with pytest.raises(ValueError, match="used up"):
        node.uplink(0, 10, b"x")
    with pytest.raises(ValueError, match="not joined"):
        otaa().uplink(0, 10, b"x")
    with pytest.raises(ValueError, match="ABP"):
        abp().join(0)


def test_receive_windows() -> None:
    """Goal: the device listens where the region says.  Method: EU868 and US915, data and join."""
    node = abp(data_rate=3)
    node.mac.rx1_dr_offset, node.mac.rx2_data_rate, node.mac.rx1_delay_us = 2, 3, 5_000_000
    frame = node.uplink(7, 10, b"x")
    rx1, rx2 = node.rx_windows(frame)
    assert rx1 == mac.RxWindow(frame.end_us + 5_000_000, frame.frequency_hz, 1)
    assert rx2 == mac.RxWindow(frame.end_us + 6_000_000, 869_525_000, 3)
    joining = otaa()
    request = joining.join(0)
    rx1, rx2 = joining.rx_windows(request)
    assert (rx1.open_us, rx2.open_us) == (request.end_us + 5_000_000, request.end_us + 6_000_000)
    assert (rx1.frequency_hz, rx1.data_rate, rx2.data_rate) == (request.frequency_hz, 5, 0)
    american = abp(rules=region("us915"), data_rate=3)
    rx1, rx2 = american.rx_windows(american.uplink(0, 10, b"x"))
    assert rx1.frequency_hz in {channel.frequency_hz for channel in region("us915").downlink_channels}
    assert (rx1.data_rate, rx2.frequency_hz, rx2.data_rate) == (13, 923_300_000, 8)


def test_a_retransmission_is_the_same_bytes_later() -> None:
    """Goal: NbTrans as the standard has it.  Method: again(); the network recognises it."""
    node, server = abp(data_rate=5), session()
    first = node.uplink(0, 10, b"x", confirmed=True)
    second = node.again(first.end_us, first)
    assert (second.payload, second.f_cnt, node.f_cnt_up) == (first.payload, 0, 1)
    assert second.at_us >= first.end_us + 2_000_000
    assert not heard(server, first).retransmission
    assert heard(server, second).retransmission
    with pytest.raises(ValueError):
        node.again(0, otaa().join(0))


def test_downlinks_are_delivered_once_and_acknowledged() -> None:
    """Goal: a downlink arrives once; a confirmed one is acknowledged with the next uplink, once."""
    node, server = abp(data_rate=5), session()
    sent = node.uplink(0, 10, b"x", confirmed=True)
    assert heard(server, sent).confirmed
    phy = downlink(server, f_port=11, payload=b"hello", ack=True, confirmed=True, f_pending=True)
    result = node.receive(sent.end_us + 1_100_000, phy)
    assert result == Delivered(11, b"hello", False, True, 0, confirmed=True, f_pending=True)
    assert reason(node.receive(sent.end_us + 1_200_000, phy)) == "replay"
    follow = node.uplink(sent.end_us + 1_200_000, 10, b"y")
    assert follow.at_us == sent.end_us + 1_200_000  # RX2 is over once RX1 brought something
    assert heard(server, follow).ack
    assert not heard(server, node.uplink(0, 10, b"z")).ack
    empty = downlink(server, ack=True)
    assert node.receive(HOUR_US, empty) == Delivered(None, b"", False, True, 1)


def test_foreign_forged_and_old_downlinks() -> None:
    """Goal: nothing but the own network's new frames gets in, and nothing else moves a counter."""
    node, server = abp(), session()
    old = [downlink(server, f_port=1, payload=bytes([i])) for i in range(3)]
    assert isinstance(node.receive(0, old[1]), Delivered)
    other = Session("0" * 16, ADDR + 1, NWK, APP)
    forger = Session("0" * 16, ADDR, bytes(16), bytes(16), f_cnt_down=60_000)
    assert reason(node.receive(0, downlink(other, f_port=1, payload=b"x"))) == "dev_addr"
    assert reason(node.receive(0, downlink(forger, f_port=1, payload=b"x"))) == "mic"
    assert reason(node.receive(0, old[0])) == "replay"
    assert reason(node.receive(0, old[1])) == "replay"
    assert node.f_cnt_down == 1
    assert isinstance(node.receive(0, old[2]), Delivered)
    assert reason(node.receive(0, abp(2).uplink(0, 1, b"x").payload)) == "direction"
    assert reason(otaa().receive(0, old[2])) == "dev_addr"


def test_downlink_counter_crosses_the_turn_of_its_16_bits() -> None:
    """Goal: 32-bit counters down, too."""
    node, server = abp(), session()
    for f_cnt in (65_535, 65_536, 131_000, 196_535):
        server.f_cnt_down = f_cnt
        result = node.receive(0, downlink(server, f_port=1, payload=b"x"))
        assert isinstance(result, Delivered)
        assert (result.f_cnt, node.f_cnt_down) == (f_cnt, f_cnt)


def test_mac_commands_are_passed_on_and_unknown_ones_counted() -> None:
    """Goal: a command from the future harms nothing.  Method: in FOpts and on FPort 0."""
    node, server = abp(), session()
    result = node.receive(0, downlink(server, f_port=1, payload=b"x", f_opts=bytes.fromhex("020501fe1122")))
    assert isinstance(result, Delivered)
    assert [command.cid for command in result.commands] == [2]
    assert (result.skipped, node.commands_skipped) == (3, 3)
    result = node.receive(0, downlink(server, f_port=0, payload=bytes.fromhex("06ff")))
    assert isinstance(result, Delivered)
    assert (result.commands[0].cid, node.commands_skipped) == (6, 4)


def test_join_to_data_both_ways() -> None:
    """Goal: the whole activation between our two halves.  Method: join, accept, uplink, downlink, rejoin."""
    node = otaa()
    record = Device(OTAA.dev_eui, OTAA.join_eui, ROOT)
    for life in range(3):
        request = node.join(life * HOUR_US)
        assert not node.joined or life
        assert request.frequency_hz in {c.frequency_hz for c in EU868.uplink_channels}
        parsed = lorawan.parse(request.payload)
        assert isinstance(parsed, lorawan.JoinRequest)
        assert parsed.dev_nonce == life
        answer = answer_join(record, parsed, dev_addr=ADDR + life, net_id=0x13, region=EU868, rx1_delay_s=3)
        assert not isinstance(answer, Malformed)
        server, phy, record = answer
        assert node.receive(request.end_us + 5_000_000, phy) == Joined(ADDR + life)
        assert reason(node.receive(request.end_us + 5_000_000, phy)) == "join_accept"
        frame = node.uplink(request.end_us + 5_100_000, 10, b"hello")
        assert (frame.f_cnt, frame.at_us) == (0, request.end_us + 5_100_000)
        assert heard(server, frame).payload == b"hello"
        assert node.rx_windows(frame)[0].open_us == frame.end_us + 3_000_000
        result = node.receive(frame.end_us + 3_000_000, downlink(server, f_port=10, payload=b"back"))
        assert isinstance(result, Delivered)
    later = {node.uplink(i * HOUR_US, 10, b"x").frequency_hz for i in range(5, 105)}
    assert later == {channel.frequency_hz for channel in EU868.channels}  # the CFList's five as well


def test_join_requests_hop_over_the_default_channels_only() -> None:
    """Goal: before a join only the region's own channels are known."""
    node = otaa()
    used = {node.join(i * HOUR_US).frequency_hz for i in range(40)}
    assert used == {channel.frequency_hz for channel in EU868.uplink_channels}


def test_join_accepts_that_are_not_ours() -> None:
    """Goal: neither a foreign, a replayed nor an absurd join accept changes anything."""
    node = otaa()
    good = lorawan.JoinAccept(5, 0x13, ADDR, 0, 0, 1)
    key = AesKey(ROOT)

    def sealed(accept: lorawan.JoinAccept, by: AesKey = key) -> bytes:
        return seal_join_accept(by, lorawan.encode_join_accept(accept))

    assert reason(node.receive(0, sealed(good))) == "join_accept"  # nobody asked
    node.join(0)
    assert reason(node.receive(0, sealed(good, AesKey(NWK)))) == "join_accept"
    assert reason(node.receive(0, sealed(lorawan.JoinAccept(5, 0x13, ADDR, 7, 0, 1)))) == "join_accept"
    assert reason(node.receive(0, sealed(lorawan.JoinAccept(5, 0x13, ADDR, 0, 15, 1)))) == "join_accept"
    assert not node.joined
    assert node.receive(0, sealed(good)) == Joined(ADDR)
    node.join(HOUR_US)
    assert reason(node.receive(0, sealed(good))) == "join_accept"  # an old JoinNonce
    frequencies = lorawan.cf_list_of((868_800_000, 868_650_000))  # the second lies in a gap between sub-bands
    assert isinstance(
        node.receive(0, sealed(lorawan.JoinAccept(6, 0x13, ADDR, 0, 0, 1, frequencies))), Joined
    )
    used = {node.uplink(i * HOUR_US, 10, b"x").frequency_hz for i in range(3, 60)}
    assert 868_800_000 in used
    assert 868_650_000 not in used


def test_join_retries_back_off_and_keep_the_join_duty_cycle() -> None:
    """Goal: a cell that is down is not shouted at.  Method: retry at once for three days, then audit."""
    node = otaa()
    node.data_rate = 0
    requests = [node.join(0)]
    while requests[-1].at_us < 72 * HOUR_US:
        requests.append(node.join(requests[-1].end_us))
    assert [frame.f_cnt for frame in requests] == list(range(len(requests)))
    gaps = [b.at_us - a.end_us for a, b in pairwise(requests)]
    assert min(gaps) >= 6_000_000
    assert max(gaps[:3]) < 100_000_000
    assert len(set(gaps)) == len(gaps)
    boot = requests[0].at_us
    for from_h, until_h, limit_us in [
        (0, 1, 36_000_000),
        (1, 11, 36_000_000),
        (11, 35, 8_700_000),
        (35, 59, 8_700_000),
    ]:
        period = [f for f in requests if from_h * HOUR_US <= f.at_us - boot < until_h * HOUR_US]
        spent = sum(frame.airtime_us for frame in period)
        assert 0 < spent <= limit_us
    node.dev_nonce = 0x10000
    with pytest.raises(ValueError, match="DevNonce"):
        node.join(0)


def test_a_restart_repeats_no_counter_and_no_nonce() -> None:
    """Goal: non-volatile memory holds what must not come back.  Method: a new life from the row."""
    node = otaa()
    record = Device(OTAA.dev_eui, OTAA.join_eui, ROOT)
    request = lorawan.parse(node.join(0).payload)
    assert isinstance(request, lorawan.JoinRequest)
    answer = answer_join(record, request, dev_addr=ADDR, net_id=0x13, region=EU868)
    assert not isinstance(answer, Malformed)
    server, phy, _ = answer
    assert isinstance(node.receive(10_000_000, phy), Joined)
    heard(server, node.uplink(0, 10, b"x"))
    first = downlink(server, f_port=1, payload=b"x")
    assert isinstance(node.receive(HOUR_US, first), Delivered)

    again = otaa(seed=2)
    again.restore(node.to_row())
    assert again.to_row() == node.to_row()
    assert heard(server, again.uplink(0, 10, b"y")).f_cnt == 1
    assert reason(again.receive(HOUR_US, first)) == "replay"
    assert again.join(HOUR_US).f_cnt == 1
    assert len({again.uplink(i * HOUR_US, 10, b"x").frequency_hz for i in range(3, 60)}) == 8
    with pytest.raises(ValueError, match="f_cnt_up"):
        again.restore(node.to_row() | {"f_cnt_up": None})


def test_a_thousand_members_share_one_verification() -> None:
    """Goal: receive is cheap for a swarm and means the same.  Method: count what the key object has to do."""
    memo = MulticastMemo()
    nodes = [listening(memo) for _ in range(50)]
    keys = memo.keys(MC_NWK, MC_APP)
    verified: list[bytes] = []
    original = keys.nwk

    class Counting(AesKey):
        __slots__ = ()

        def cmac(self, message: bytes) -> bytes:
            verified.append(message)
            return original.cmac(message)

    keys.nwk = Counting(MC_NWK)
    group = group_of()
    for number in range(3):
        phy = group.frame(10, bytes([number]))
        results = [node.receive(0, phy) for node in nodes]
        assert results == [Delivered(10, bytes([number]), True, False, number)] * 50
        assert [reason(node.receive(0, phy)) for node in nodes] == ["replay"] * 50
    assert len(verified) == 3


@pytest.mark.parametrize(
    ("next_f_cnt", "maximum", "f_cnt", "verdict"),
    [
        (0, 9, 5, "delivered"),
        (5, 9, 5, "delivered"),
        (6, 9, 5, "replay"),
        (0, 5, 5, "range"),
        (70_000, 80_000, 65_541, "replay"),
        (0, 80_000, 65_541, "mic"),  # 16 bits on the air: this member tries counter 5
        (6, 80_000, 65_541, "delivered"),
    ],
)
def test_the_memo_changes_no_verdict(next_f_cnt: int, maximum: int, f_cnt: int, verdict: str) -> None:
    """Goal: a member with another state judges by its own.  Method: with a cold and with a warm memo."""
    phy = group_of(f_cnt).frame(10, b"x")
    for warm in (False, True):
        memo = MulticastMemo()
        if warm:
            assert isinstance(listening(memo, f_cnt_min=f_cnt).receive(0, phy), Delivered)
        node = listening(memo, f_cnt_min=next_f_cnt, f_cnt_max=maximum)
        result = node.receive(0, phy)
        assert (result.reason if isinstance(result, Malformed) else "delivered") == verdict
        assert node.group_counters() == {MC_ADDR: f_cnt + 1 if verdict == "delivered" else next_f_cnt}


def test_group_counters_stay_in_their_range() -> None:
    """Goal: [min, max) as TS005 says.  Method: below, first, gap, last, beyond, across the turn."""
    node = listening(f_cnt_min=65_534, f_cnt_max=65_540)
    group = group_of()

    def sent(f_cnt: int) -> object:
        group.f_cnt = f_cnt
        return node.receive(0, group.frame(10, b"x"))

    assert reason(sent(65_533)) in ("replay", "mic")
    assert isinstance(sent(65_534), Delivered)
    assert isinstance(sent(65_537), Delivered)
    assert reason(sent(65_535)) == "replay"
    assert isinstance(sent(65_539), Delivered)
    assert reason(sent(65_540)) == "range"
    assert node.group_counters() == {MC_ADDR: 65_540}


def test_a_group_frame_must_be_plain_and_genuine() -> None:
    """Goal: multicast has no confirmation, no acknowledgement, no MAC commands (TS001 section 4.3)."""
    node = listening()
    as_unicast = Session("0" * 16, MC_ADDR, MC_NWK, MC_APP)
    for wrong in (
        {"f_port": 1, "confirmed": True},
        {"f_port": 1, "ack": True},
        {"f_port": 1, "f_opts": b"\x06"},
        {"f_port": 0, "payload": b"\x06"},
        {},
    ):
        assert reason(node.receive(0, downlink(as_unicast, **wrong))) == "multicast"  # type: ignore[arg-type]
    forged = MulticastGroup(MC_ADDR, bytes(16), MC_APP, 9, 1, 1).frame(10, b"x")
    assert reason(node.receive(0, forged)) == "mic"
    assert reason(abp().receive(0, group_of().frame(10, b"x"))) == "dev_addr"
    assert node.group_counters() == {MC_ADDR: 0}


def test_groups_are_bounded_and_never_go_back() -> None:
    """Goal: setting a group up again does not open it to replays; new keys start anew."""
    node = listening()
    frame = group_of(7).frame(10, b"x")
    assert isinstance(node.receive(0, frame), Delivered)
    node.add_group(MC_ADDR, MC_NWK, MC_APP)
    assert reason(node.receive(0, frame)) == "replay"
    node.add_group(MC_ADDR, NWK, APP)
    assert node.group_counters() == {MC_ADDR: 0}
    for number in range(mac.GROUPS_MAX - 1):
        node.add_group(number, MC_NWK, MC_APP)
    with pytest.raises(ValueError, match="at most"):
        node.add_group(99, MC_NWK, MC_APP)


def test_the_memo_is_bounded() -> None:
    """Goal: a long campaign fills no memory.  Method: more frames and more groups than it holds."""
    memo = MulticastMemo()
    node = listening(memo)
    group = group_of()
    first = group.frame(10, b"first")
    assert isinstance(node.receive(0, first), Delivered)
    keys = memo.keys(MC_NWK, MC_APP)
    assert memo.get(keys, first) is not None
    for _ in range(MEMO_MAX):
        assert isinstance(node.receive(0, group.frame(10, b"x")), Delivered)
    assert memo.get(keys, first) is None
    made = [memo.keys(bytes([number]) * 16, APP) for number in range(2 * MEMO_MAX)]
    assert memo.keys(bytes(16), APP) is made[0]
    assert memo.keys(bytes([2 * MEMO_MAX - 1]) * 16, APP) is not made[-1]


@settings(max_examples=200)
@given(st.binary(max_size=60), st.sampled_from(["any", "group", "own", "group_join"]))
def test_hostile_bytes_become_reasons(noise: bytes, kind: str) -> None:
    """Goal: the air cannot crash a node.  Method: random bytes, some with our addresses in front."""
    node = listening()
    heads = {
        "any": b"",
        "group": b"\x60" + MC_ADDR.to_bytes(4, "little"),
        "own": b"\x60" + ADDR.to_bytes(4, "little"),
        "group_join": b"\x20" + MC_ADDR.to_bytes(4, "little"),
    }
    before = node.to_row()
    reason(node.receive(0, heads[kind] + noise))
    assert node.to_row() == before
    assert node.group_counters() == {MC_ADDR: 0}


@settings(max_examples=100)
@given(st.integers(0, 30), st.integers(0, 7), st.booleans())
def test_a_flipped_bit_is_refused(at: int, bit: int, multicast: bool) -> None:
    """Goal: the integrity code covers every bit.  Method: flip one bit of a good frame."""
    node = listening()
    good = (
        group_of(3).frame(10, b"payload") if multicast else downlink(session(), f_port=1, payload=b"payload")
    )
    damaged = bytearray(good)
    damaged[at % len(good)] ^= 1 << bit
    reason(node.receive(0, bytes(damaged)))
    assert isinstance(node.receive(0, good), Delivered)


def test_nothing_secret_is_shown() -> None:
    """Goal: no key in logs.  Method: repr of device and identities."""
    node = listening()
    for shown in (repr(node), repr(ABP), repr(OTAA)):
        assert "key" not in shown
        assert "\\x" not in shown
    assert f"{ADDR:08x}" in repr(node)
    assert "not joined" in repr(otaa())


def test_purposes_reach_the_ledger() -> None:
    """Goal: airtime is accounted by purpose on the node, too."""
    node = abp(data_rate=5)
    first = node.uplink(0, 10, b"x", purpose=Purpose.ROUND)
    node.again(0, first)
    spent = node.ledger.spent_us(HOUR_US)
    assert {purpose for _, purpose in spent} == {Purpose.ROUND, Purpose.REPAIR}
    assert sum(spent.values()) == 2 * first.airtime_us
