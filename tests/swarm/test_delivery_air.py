"""The three packages together, in real LoRaWAN frames under the ledger: clocks, a group, a block, a traitor.

Nothing is handed over but what stands on the air: the C nodes get the time (TS003), the group's key and the
session (TS005) and the block (TS004) from payloads; multicast frames are sealed and opened as LoRaWAN has it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from swarm.effects import Malformed, Purpose
from swarm.mac.group import GroupKeys, MulticastMemo, ReceivingGroup
from swarm.mac.ledger import AirtimeLedger
from swarm.mac.session import MulticastGroup
from swarm.phy.regions import region
from swarm.prng import Prng
from swarm.security.lorawan import (
    AesKey,
    data_block_key,
    data_block_mic,
    mc_ke_key,
    mc_root_key,
    multicast_keys,
    seal_mc_key,
)
from swarm.transport.delivery import Delivery, Plan, State
from swarm.transport.device import Device, Heard
from swarm.transport.device_setup import Clock, Groups, GroupsHeard
from swarm.wire import clock_sync, fragmentation, multicast_setup

SECOND_US = 1_000_000
START_US = 1_790_000_000 * SECOND_US
EU868 = region("eu868")
FREQUENCY_HZ, DATA_RATE, GROUP = 869_525_000, 3, 2
MC_KEY, MC_ADDRESS = AesKey(bytes(range(50, 66))), 0x0BADCAFE
SESSION_S, TIME_OUT = 120, 12


@dataclass
class Node:
    """A C node whose own clock began at 0 when the gateway's stood at `born_us`."""

    root: AesKey
    born_us: int
    device: Device = field(init=False)
    groups: Groups = field(init=False)
    clock: Clock = field(init=False)
    receiving: ReceivingGroup | None = None
    answers: list[tuple[int, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.device = Device(data_block_key(self.root).raw, seed=self.root.raw[15])
        self.groups = Groups(self.root.raw)
        self.clock = Clock()

    def listens(self, now_us: int) -> bool:
        """Whether by its own clock the session of its group is on."""
        group = self.groups.group(GROUP)
        if group is None or group.session is None:
            return False
        start_s, length_s, frequency_hz, data_rate = group.session
        inside = 0 <= self.clock.gps_s(now_us - self.born_us) - start_s < length_s
        return inside and (frequency_hz, data_rate) == (FREQUENCY_HZ, DATA_RATE)

    def hear(self, now_us: int, phy: bytes, memo: MulticastMemo) -> Heard | Malformed | None:
        if not self.listens(now_us) or self.receiving is None:
            return None
        delivered = self.receiving.receive(phy, memo)
        if isinstance(delivered, Malformed):
            return delivered
        assert delivered.f_port == 201
        heard, answer = self.device.rx(delivered.payload, GROUP)
        if answer is not None:
            self.answers.append((now_us + answer.delay_us, answer.payload))
        return heard


def set_up(node: Node, now_us: int) -> None:
    """Unicast, as after three uplinks of the node: the time, the group, the session."""
    request, _ = node.clock.poll(now_us - node.born_us)
    (asked,) = clock_sync.decode_uplink(request)  # type: ignore[misc]
    assert isinstance(asked, clock_sync.AppTimeReq)
    told = clock_sync.answer(asked, clock_sync.gps_s(now_us))
    assert told is not None
    node.clock.rx(now_us + 2 * SECOND_US - node.born_us, clock_sync.encode(told))
    sealed = seal_mc_key(mc_ke_key(mc_root_key(node.root)), MC_KEY)
    setup = multicast_setup.McGroupSetupReq(GROUP, MC_ADDRESS, sealed, 100, 5000)
    heard, _ = node.groups.rx(multicast_setup.encode(setup, 2))
    assert heard == GroupsHeard.SET
    start_s = clock_sync.gps_s(START_US) + SESSION_S
    session = multicast_setup.McClassCSessionReq(GROUP, start_s, TIME_OUT, FREQUENCY_HZ, DATA_RATE)
    gps_now_s = node.clock.gps_s(now_us - node.born_us)
    assert node.groups.rx(multicast_setup.encode(session, 2), gps_now_s)[0] == GroupsHeard.SESSION
    group = node.groups.group(GROUP)
    assert group is not None
    keys = GroupKeys(group.nwk_s_key, group.app_s_key)
    node.receiving = ReceivingGroup(group.address, keys, group.f_cnt_min, group.f_cnt_max)


class Air:
    """One gateway, its ledger, and nodes that lose a fifth of what it sends."""

    def __init__(self, count: int, block: bytes) -> None:
        self.draw = Prng(5).child("air").numpy()
        self.nodes = {
            f"n{i:02}": Node(AesKey(i.to_bytes(16, "big")), START_US - (i + 1) * 1_234_567_890)
            for i in range(count)
        }
        room = EU868.payload_max(DATA_RATE, uplink=False) - fragmentation.DATA_HEADER_SIZE
        self.plan = Plan(block, room, group=GROUP, descriptor=b"swrm", session_cnt=1)
        self.delivery = Delivery(self.plan, self.nodes, self.mic, speakers=self.nodes)
        keys = multicast_keys(MC_KEY, MC_ADDRESS)
        self.group = MulticastGroup(MC_ADDRESS, *keys, 100, FREQUENCY_HZ, DATA_RATE)
        self.ledger = AirtimeLedger(EU868)
        self.memo = MulticastMemo()
        self.now_us = START_US
        self.multicast_us = 0
        for node_id, node in self.nodes.items():
            set_up(node, self.now_us)
            payload = self.delivery.unicast(node_id)
            assert payload is not None
            _, answer = node.device.rx(payload)
            assert answer is not None
            self.delivery.sent_unicast(node_id)
            self.delivery.on_uplink(node_id, answer.payload)

    def mic(self, node_id: str, session_cnt: int) -> bytes:
        key = data_block_key(self.nodes[node_id].root)
        plan = self.plan
        return data_block_mic(
            key, plan.block, session_cnt=session_cnt, index=plan.index, descriptor=plan.descriptor
        )

    def transmit(self, payload: bytes) -> None:
        """A multicast frame, as soon as the law lets it; the ledger raises when it does not."""
        phy = self.group.frame(201, payload)
        airtime_us = EU868.airtime_us(DATA_RATE, len(phy), uplink=False)
        at_us = self.ledger.earliest_us(FREQUENCY_HZ, 125_000, airtime_us, self.now_us)
        assert at_us is not None
        self.ledger.grant(at_us, FREQUENCY_HZ, 125_000, airtime_us, Purpose.MODEL)
        self.now_us = at_us + airtime_us
        self.multicast_us += airtime_us
        for node in self.nodes.values():
            if self.draw.random() >= 0.2:
                heard = node.hear(self.now_us, phy, self.memo)
                assert not isinstance(heard, Malformed)

    def uplinks(self, until_us: int) -> None:
        for node_id, node in self.nodes.items():
            due = [answer for answer in node.answers if answer[0] <= until_us]
            node.answers = [answer for answer in node.answers if answer[0] > until_us]
            for _, payload in due:
                if self.draw.random() >= 0.2:
                    self.delivery.on_uplink(node_id, payload)

    def window(self) -> None:
        self.now_us = START_US + SESSION_S * SECOND_US
        self.delivery.begin()
        while True:
            payload = self.delivery.multicast(self.now_us)
            if payload is not None:
                self.transmit(payload)
                self.delivery.sent_multicast(self.now_us)
            elif (at_us := self.delivery.poll_at()) is not None:
                self.uplinks(at_us)
                self.now_us = at_us
            else:
                return


@pytest.mark.parametrize("size", [1000, 20_000])
def test_a_block_over_the_air(size: int) -> None:
    """Goal: block, group and clock reach nodes that share nothing but their own keys with the gateway.
    Method: 40 nodes, 20 % loss; every frame granted, sealed, opened; airtime against the block's own."""
    block = Prng(size).child("block").numpy().bytes(size)
    air = Air(40, block)
    air.window()
    have = [node_id for node_id, node in air.nodes.items() if node.device.block() == block]
    sure = [node_id for node_id in air.nodes if air.delivery.state(node_id)[0] == State.WHOLE]
    assert len(have) >= 38  # the rest is repaired by unicast
    assert set(sure) <= set(have)
    frame_us = EU868.airtime_us(DATA_RATE, 13 + 3 + air.plan.frag_size, uplink=False)
    if size == 20_000:
        assert air.multicast_us <= 1.5 * air.delivery.nb_frag * frame_us
    assert air.now_us < START_US + (SESSION_S + 2**TIME_OUT) * SECOND_US


def test_who_knows_the_group_key_cannot_install_a_block() -> None:
    """Goal: a node taken apart in the field gives away the group's key, not the fleet.  Method: with that key
    somebody sends another block in the running session, first and complete; no node takes it for whole."""
    air = Air(5, Prng(1).child("block").numpy().bytes(500))
    air.now_us = START_US + SESSION_S * SECOND_US
    evil = Delivery(
        Plan(bytes(500), air.plan.frag_size, group=GROUP, descriptor=b"swrm", session_cnt=1),
        air.nodes,
        air.mic,
        speakers=air.nodes,
    )
    evil.begin()
    outcomes: list[Heard | Malformed | None] = []
    for n in range(evil.nb_frag):
        payload = evil.multicast(air.now_us)
        assert payload is not None
        phy = air.group.frame(201, payload)
        outcomes = [node.hear(air.now_us, phy, air.memo) for node in air.nodes.values()]
        evil.sent_multicast(air.now_us)
        assert n < evil.nb_frag - 1 or set(outcomes) == {Heard.FORGED}
    air.window()
    assert air.delivery.count(State.WHOLE) == 0
    assert air.delivery.count(State.FORGED) >= 3  # an answer may be lost


def test_nobody_hears_the_group_before_its_time() -> None:
    air = Air(3, bytes(100))
    payload = air.group.frame(201, b"\x01\x01")
    for at_s, listens in (
        (SESSION_S - 2, False),
        (SESSION_S + 3, True),
        (SESSION_S + 2**TIME_OUT + 3, False),
    ):
        now_us = START_US + at_s * SECOND_US
        assert [node.listens(now_us) for node in air.nodes.values()] == [listens] * 3
    assert air.nodes["n00"].hear(START_US, payload, air.memo) is None
