"""Deliveries to the firmware's own receiver over a lossy air: completeness, airtime, restarts, stragglers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.effects import Malformed, Row
from swarm.prng import Prng
from swarm.security.lorawan import AesKey, data_block_key, data_block_mic
from swarm.transport.delivery import SESSION_CNTS, Delivery, Phase, Plan, State
from swarm.transport.device import Device, Heard
from swarm.wire import fragmentation as ts004

SECOND_US = 1_000_000


class Cell:
    """Nodes, a lossy air both ways, and a delivery that may be made anew from its rows at any time."""

    def __init__(
        self, plan: Plan, count: int, *, seed: int = 1, loss: float = 0.2, restarts: float = 0
    ) -> None:
        self.draw = Prng(seed).child("air").numpy()
        self.coin = Prng(seed).child("restarts").numpy()
        self.plan, self.loss, self.restarts = plan, loss, restarts
        self.keys = {f"node-{i:04}": data_block_key(AesKey(i.to_bytes(16, "big"))) for i in range(count)}
        self.devices = {
            node_id: Device(key.raw, version=plan.version, seed=i)
            for i, (node_id, key) in enumerate(self.keys.items())
        }
        self.delivery = Delivery(plan, self.keys, self.mic)
        self.rows: tuple[Row, dict[str, Row]] = ({}, {})
        self.now_us = 0
        self.sent: list[tuple[str, bytes]] = []
        self.answers: list[tuple[int, str, bytes]] = []
        self.whole: set[str] = set()
        self.keep(*self.keys)

    def mic(self, node_id: str, session_cnt: int) -> bytes:
        plan = self.plan
        return data_block_mic(
            self.keys[node_id],
            plan.block,
            session_cnt=session_cnt,
            index=plan.index,
            descriptor=plan.descriptor,
        )

    def keep(self, *changed: str) -> None:
        """Stores what changed; sometimes the process ends here and another one goes on from the rows."""
        nodes = self.rows[1]
        nodes.update({node_id: self.delivery.node_row(node_id) for node_id in changed})
        self.rows = (self.delivery.to_row(), nodes)
        if self.coin.random() < self.restarts:
            plan = Plan.from_row(self.plan.to_row())
            assert plan == self.plan
            self.delivery = Delivery.from_rows(plan, self.mic, *self.rows)

    def arrives(self) -> bool:
        return bool(self.draw.random() >= self.loss)

    def hear(self, node_id: str, payload: bytes, group: int | None) -> None:
        heard, answer = self.devices[node_id].rx(payload, group)
        if heard == Heard.WHOLE:
            assert node_id not in self.whole
            self.whole.add(node_id)
        if answer is not None:
            self.answers.append((self.now_us + answer.delay_us, node_id, answer.payload))

    def uplinks(self, until_us: int) -> None:
        """Answers on the air until then; those that arrive are heard, and answered in their window."""
        while self.answers and min(self.answers)[0] <= until_us:
            self.answers.sort()
            at_us, node_id, payload = self.answers.pop(0)
            self.now_us = max(self.now_us, at_us)
            if self.arrives():
                assert self.delivery.on_uplink(node_id, payload) is None
                self.keep(node_id)

    def reports(self) -> None:
        """Every node sends its daily frame; when it arrives, the node hears the answer to it, perhaps."""
        for node_id in self.devices:
            payload = self.delivery.unicast(node_id) if self.arrives() else None
            if payload is not None:
                self.sent.append((node_id, payload))
                self.delivery.sent_unicast(node_id)
                self.keep(node_id)
                if self.arrives():
                    self.hear(node_id, payload, None)
            self.uplinks(self.now_us + 1)
        self.now_us += 3600 * SECOND_US
        self.uplinks(self.now_us)

    def window(self) -> None:
        """The group listens until there is nothing more to say."""
        self.delivery.begin()
        while True:
            payload = self.delivery.multicast(self.now_us)
            if payload is None:
                at_us = self.delivery.poll_at()
                if at_us is None:
                    return
                self.uplinks(at_us)
                self.now_us = max(self.now_us, at_us)
                continue
            self.sent.append(("", payload))
            self.delivery.sent_multicast(self.now_us)
            self.keep()
            for node_id in self.devices:
                if self.arrives():
                    self.hear(node_id, payload, self.plan.group)
            self.now_us += SECOND_US
            self.uplinks(self.now_us)

    def run(self, *, set_ups: int = 40, repairs: int = 60) -> None:
        for _ in range(set_ups):
            if self.delivery.count(State.VERSION, State.SETUP):
                self.reports()
        self.window()
        for _ in range(repairs):
            if self.delivery.done:
                return
            self.reports()

    @property
    def frames(self) -> int:
        """DataFragments that were sent, to all and to one."""
        return sum(payload[0] == 8 for _, payload in self.sent)


def block_of(size: int) -> bytes:
    return Prng(size).child("block").numpy().bytes(size)


@pytest.mark.parametrize("version", [1, 2])
def test_every_node_has_the_block_whatever_is_lost(version: int) -> None:
    """Goal: nobody is forgotten, nobody is thought to have what it has not.  Method: 60 nodes, 20 % loss of
    each frame both ways, setups and answers included."""
    plan = Plan(block_of(2000), 48, version=version, loss=0.2)
    cell = Cell(plan, 60)
    cell.run()
    assert cell.delivery.done
    assert cell.delivery.count(State.WHOLE) == 60
    assert cell.whole == set(cell.devices)
    assert all(device.block() == plan.block for device in cell.devices.values())
    assert cell.frames <= 2 * cell.delivery.nb_frag


@pytest.mark.parametrize(("frag_size", "ratio_max"), [(112, 1.45), (48, 1.4), (219, 1.6)])
def test_a_thousand_nodes_and_twenty_thousand_bytes(frag_size: int, ratio_max: float) -> None:
    """Goal: the airtime promised: at most 1.5 times the block's own.  Method: fragments of SF9 and SF12;
    those of SF7 are few and large, and the unluckiest of a thousand nodes loses a larger share of them."""
    plan = Plan(block_of(20_000), frag_size, loss=0.2, block_ack_delay=6)
    cell = Cell(plan, 1000)
    cell.run()
    assert cell.delivery.count(State.WHOLE) == 1000
    assert cell.whole == set(cell.devices)
    assert cell.frames / cell.delivery.nb_frag <= ratio_max


def test_without_loss_there_is_one_group_of_parity_and_two_polls() -> None:
    """Goal: it stops early.  Method: no loss; who misses something, who has it; nobody is asked alone."""
    plan = Plan(block_of(1000), 40, loss=0.0)
    cell = Cell(plan, 10, loss=0.0)
    cell.run()
    group = [payload for node_id, payload in cell.sent if not node_id]
    assert len(group) == 25 + 8 + 2
    assert cell.delivery.done


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), version=st.sampled_from([1, 2]))
def test_a_restart_at_any_point_changes_nothing(seed: int, version: int) -> None:
    """Goal: kill -9 costs nothing.  Method: the same air, with and without restarts after each stored row."""
    plan = Plan(block_of(500), 30, version=version)
    steady, shaken = Cell(plan, 8, seed=seed), Cell(plan, 8, seed=seed, restarts=0.3)
    steady.run()
    shaken.run()
    assert shaken.sent == steady.sent
    assert shaken.rows == steady.rows
    assert steady.delivery.done


def test_what_was_not_sent_is_named_again() -> None:
    """Goal: a frame that the gateway refused is not counted as heard."""
    plan = Plan(block_of(100), 10)
    delivery = Delivery(plan, ["a"], lambda _node, _count: bytes(4), speakers=["a"])
    assert delivery.multicast(0) is None
    delivery.begin()
    first = delivery.multicast(0)
    assert first == delivery.multicast(0)
    delivery.sent_multicast(0)
    assert delivery.multicast(0) != first
    assert delivery.unicast("a") == delivery.unicast("a")
    assert delivery.unicast("nobody") is None
    assert not delivery.done


def test_a_node_that_was_reset_is_set_up_again_and_repaired() -> None:
    """Goal: a lost session is noticed and renewed past the node's replay protection.  Method: one of six
    nodes loses its RAM in the middle; its SessionCnt survived, as it must."""
    plan = Plan(block_of(400), 20, session_cnt=5)
    cell = Cell(plan, 6, loss=0.0)
    for _ in range(4):
        cell.reports()
    kept = cell.devices["node-0003"].session_cnt_next
    cell.devices["node-0003"] = Device(cell.keys["node-0003"].raw, session_cnt_next=kept)
    cell.window()
    for _ in range(40):
        cell.reports()
    assert cell.delivery.state("node-0003") == (State.WHOLE, "")
    assert cell.devices["node-0003"].block() == plan.block
    assert cell.delivery.done


def test_a_node_of_the_other_version_is_refused_and_a_silent_one_left() -> None:
    plan = Plan(block_of(200), 20)
    cell = Cell(plan, 5, loss=0.0)
    cell.devices["node-0001"] = Device(cell.keys["node-0001"].raw, version=1)
    cell.devices["node-0002"].rx = lambda *_: (Heard.NOTHING, None)  # type: ignore[method-assign]
    cell.devices["node-0004"].refuse(plan.descriptor)
    cell.plan = plan
    cell.run()
    assert cell.delivery.state("node-0001") == (State.REFUSED, "speaks version 1")
    assert cell.delivery.state("node-0002") == (State.LEFT, "no answer")
    assert cell.delivery.count(State.WHOLE) == 3
    assert cell.delivery.done


def test_a_node_without_memory_is_sent_the_pieces() -> None:
    """Goal: a straggler that parity cannot help is helped.  Method: room for one lost piece of 30 only."""
    plan = Plan(block_of(600), 20, repair_max=120)
    cell = Cell(plan, 4, seed=3)
    cell.devices["node-0002"] = Device(cell.keys["node-0002"].raw, memory_size=25)
    cell.run(repairs=300)
    assert cell.delivery.count(State.WHOLE) == 4
    assert cell.devices["node-0002"].block() == plan.block


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("pieces", [4, 5, 8, 9, 16])
def test_who_lost_every_piece_of_a_small_block_is_sent_pieces(pieces: int, alone: bool) -> None:
    """Goal: where M / 2 is even, every row of version 2 has an even number of pieces, and parity alone is
    never enough; that is noticed, also in a group that was over before it was polled."""
    plan = Plan(block_of(pieces * 20), 20, loss=0.0)
    cell = Cell(plan, 1, loss=0.0)
    (node_id,) = cell.keys
    cell.delivery = Delivery(plan, cell.keys, cell.mic, alone=cell.keys if alone else ())
    if not alone:
        cell.delivery.begin()
        cell.delivery.close_group()
    seen = frames = 0
    for _ in range(10 * pieces + 40):
        payload = cell.delivery.unicast(node_id)
        if payload is None:
            break
        cell.delivery.sent_unicast(node_id)
        number = int.from_bytes(payload[1:3], "little") & 0x3FFF
        if payload[0] == 8:
            frames += 1
            seen += number <= pieces
            if number <= pieces and seen <= pieces:
                continue  # every piece is lost, the first time
        _, answer = cell.devices[node_id].rx(payload)
        if answer is not None:
            assert cell.delivery.on_uplink(node_id, answer.payload) is None
    assert cell.delivery.state(node_id) == (State.WHOLE, "")
    assert cell.devices[node_id].block() == plan.block
    assert frames <= 6 * pieces + 8


def test_repair_ends_somewhere() -> None:
    """Goal: one node in a hole does not cost the cell its airtime.  Method: a node that hears a tenth of what
    the group hears is told nothing more; one that hears its repair badly too ends after so many frames."""
    plan = Plan(block_of(2000), 20, repair_max=20)
    cell = Cell(plan, 3, loss=0.0)
    for node_id, group_hears, alone_hears in (("node-0001", 10, 1), ("node-0002", 1, 3)):
        deaf = cell.devices[node_id]

        def rx(
            payload: bytes,
            group: int | None = None,
            every: tuple[int, int] = (group_hears, alone_hears),
            hears: Any = deaf.rx,
        ) -> tuple[Heard, Any]:
            number = int.from_bytes(payload[1:3], "little") & 0x3FFF
            skip = payload[0] == 8 and (number < 15 or number % every[group is None])
            return (Heard.NOTHING, None) if skip else hears(payload, group)

        deaf.rx = rx  # type: ignore[method-assign]
    cell.run()
    repaired = [node_id for node_id, payload in cell.sent if node_id and payload[0] == 8]
    assert cell.delivery.state("node-0001") == (State.LEFT, "misses too much")
    assert "node-0001" not in repaired
    assert repaired.count("node-0002") <= 20
    assert cell.delivery.done


def test_a_forged_block_is_reported_and_what_other_nodes_say_is_ignored() -> None:
    plan = Plan(block_of(100), 10, index=2)
    delivery = Delivery(plan, ["a"], lambda _node, _count: bytes(4), speakers=["a"])
    report = ts004.FragDataBlockReceivedReq(1, mic_error=True)
    assert delivery.on_uplink("a", ts004.encode(report, 2)) is None
    assert delivery.on_uplink("b", ts004.encode(ts004.FragSessionSetupAns(2), 2)) is None
    assert isinstance(delivery.on_uplink("a", b"\xff"), Malformed)
    assert delivery.state("a") == (State.SETUP, "")
    delivery.on_uplink("a", ts004.encode(ts004.FragSessionSetupAns(2), 2))
    delivery.on_uplink("a", ts004.encode(ts004.FragDataBlockReceivedReq(2, mic_error=True), 2))
    assert delivery.state("a") == (State.FORGED, "mic")
    assert not delivery.done  # it waits for the acknowledgement
    assert delivery.unicast("a") == ts004.encode(ts004.FragDataBlockReceivedAns(2), 2)
    delivery.sent_unicast("a")
    assert delivery.done


@pytest.mark.parametrize("mic_error", [False, True])
def test_nothing_missing_before_anything_came_is_not_believed(mic_error: bool) -> None:
    """Goal: other stacks' receivers, which say "0 missing" (and a wrong MIC) of a session that has not begun,
    are neither whole nor forged, and are not asked for ever.  Method: nothing but such statuses."""
    delivery = Delivery(Plan(block_of(100), 10), ["a"], lambda _node, _count: bytes(4), speakers=["a"])
    empty = ts004.encode(ts004.FragSessionStatusAns(0, 0, 0, mic_error=mic_error), 2)
    delivery.on_uplink("a", empty)
    assert delivery.state("a") == (State.LISTENING, "")
    now_us = 0
    delivery.begin()
    while delivery.phase != Phase.REPAIR:
        if delivery.multicast(now_us) is None and delivery.phase == Phase.LISTEN:
            now_us = delivery.poll_at() or now_us
        else:
            delivery.sent_multicast(now_us)
    for _ in range(100):
        if delivery.unicast("a") is not None:
            delivery.sent_unicast("a")
            delivery.on_uplink("a", empty)
    assert delivery.state("a") == (State.LEFT, "no answer")


class AfterSemtech(Cell):
    """Nodes with LoRaMac-node's status, version 1: the last fragment's number, high byte first, no index, and
    the pieces that were lost, even when they have been made good."""

    def __init__(
        self, plan: Plan, count: int, *, seed: int = 1, loss: float = 0.2, restarts: float = 0
    ) -> None:
        super().__init__(plan, count, seed=seed, loss=loss, restarts=restarts)
        self.last = dict.fromkeys(self.keys, 0)
        self.lost = dict.fromkeys(self.keys, 0)

    def hear(self, node_id: str, payload: bytes, group: int | None) -> None:
        if payload[0] == 8 and node_id not in self.whole:
            number, pieces = int.from_bytes(payload[1:3], "little"), self.delivery.nb_frag
            self.lost[node_id] += max(0, min(number - 1, pieces) - self.last[node_id])
            self.last[node_id] = max(self.last[node_id], number)
        if payload[0] != 1:
            super().hear(node_id, payload, group)
        elif payload[1] & 1 or self.lost[node_id]:
            said = b"\x01" + self.last[node_id].to_bytes(2, "big") + bytes((self.lost[node_id], 0))
            self.answers.append((self.now_us + SECOND_US, node_id, said))


@pytest.mark.parametrize(("size", "count", "loss"), [(1000, 2, 0.2), (3000, 1, 0.2), (12_000, 1, 0.1)])
def test_a_decoder_that_counts_no_more_has_finished(size: int, count: int, loss: float) -> None:
    """Goal: devices that tell of their losses for ever (LoRaMac-node) are whole when they have the block, and
    cost little parity in vain.  Method: such statuses of the firmware's own decoder; restarts in between."""
    cell = AfterSemtech(Plan(block_of(size), 40, version=1, loss=loss), count, loss=loss, restarts=0.1)
    cell.run()
    assert cell.whole == set(cell.keys)
    assert {cell.delivery.state(node_id)[0] for node_id in cell.keys} == {State.WHOLE}
    assert cell.frames < 1.4 * cell.delivery.nb_frag / (1 - loss) + 32


def test_a_status_with_the_high_byte_first_is_told_by_what_was_sent() -> None:
    """Read as the standard says, these are of other sessions, or of more fragments than there were."""
    delivery = Delivery(
        Plan(block_of(1000), 40, version=1), ["a"], lambda _node, _count: bytes(4), speakers=["a"]
    )
    delivery.on_uplink("a", ts004.encode(ts004.FragSessionSetupAns(0), 1))
    delivery.begin()
    for now_us in range(20):
        delivery.sent_multicast(now_us)
    delivery.on_uplink("a", bytes.fromhex("0100140000"))  # 20 of 25, not 5120: not whole yet
    assert delivery.state("a") == (State.LISTENING, "")
    while delivery.phase == Phase.FRAGMENTS:
        delivery.sent_multicast(20)
    delivery.on_uplink("a", bytes.fromhex("0100260000"))  # 38 of 25 and 13
    assert delivery.state("a") == (State.WHOLE, "")


def test_a_node_that_always_loses_its_session_is_left() -> None:
    delivery = Delivery(Plan(block_of(100), 10), ["a"], lambda _node, _count: bytes(4), speakers=["a"])
    for _ in range(SESSION_CNTS):
        assert delivery.state("a")[0] == State.SETUP
        delivery.on_uplink("a", ts004.encode(ts004.FragSessionStatusAns(0, 0, 0, no_session=True), 2))
    assert delivery.state("a") == (State.LEFT, "loses its sessions")


def test_a_node_that_says_so_by_other_means_has_it() -> None:
    delivery = Delivery(Plan(block_of(100), 10), ["a"], lambda _node, _count: bytes(4))
    delivery.confirm("a")
    assert delivery.done
    assert delivery.phase == Phase.SETUP


@pytest.mark.parametrize(
    ("size", "plan", "nodes", "what"),
    [
        (100, {"loss": 0.95}, ["a"], "0 to 0.9"),
        (100, {"session_cnt": 65530}, ["a"], "SessionCnts"),
        (100, {}, [], "1 to"),
        (30_000, {"frag_size": 2}, ["a"], "too many"),
    ],
)
def test_what_cannot_be_planned_is_refused(
    size: int, plan: dict[str, Any], nodes: list[str], what: str
) -> None:
    with pytest.raises(ValueError, match=what):
        Delivery(Plan(block_of(size), **{"frag_size": 10, **plan}), nodes, lambda _node, _count: bytes(4))


def test_rows_of_something_else_are_refused() -> None:
    delivery = Delivery(Plan(block_of(100), 10), ["a"], lambda _node, _count: bytes(4))
    with pytest.raises(ValueError):
        Plan.from_row(delivery.to_row())
    row, node_row = delivery.to_row(), delivery.node_row("a")
    with pytest.raises(ValueError):
        Delivery.from_rows(
            delivery.plan, lambda _node, _count: bytes(4), {**row, "next": "x"}, {"a": node_row}
        )
    with pytest.raises(ValueError):
        Delivery.from_rows(
            delivery.plan, lambda _node, _count: bytes(4), row, {"a": {**node_row, "state": 9}}
        )
