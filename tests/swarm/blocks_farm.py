"""A cell whose nodes have the firmware's receiver of large blocks: what they hear, what they answer.

The receivers are the C code (`swarm.transport.device`); what a node does with OFFER and with windows is
written out here as docs/SPEC.md 5a has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from swarm.config import SwarmConfig
from swarm.effects import Transmit
from swarm.mac.device import Delivered
from swarm.prng import Prng
from swarm.security.lorawan import AesKey, data_block_key, data_block_mic
from swarm.transport.device import Device, Heard
from swarm.wire import app
from swarm.wire import fragmentation as ts004
from tests.swarm import cell as farm
from tests.swarm.cell import SECOND_US, Cell, status

KEY = bytes(range(16))


@dataclass
class Node:
    """One of our nodes: its receiver, when that is on, and what it is about to say."""

    index: int
    block: bytes
    version: int
    device: Device = field(init=False)
    offered: app.Offer | None = None
    on_from_us: int = 0
    on_until_us: int = 0
    window_until_us: int = 0
    says: list[tuple[int, bytes]] = field(default_factory=list)
    sessions: int = 0

    def __post_init__(self) -> None:
        key = data_block_key(AesKey(KEY)).raw
        self.device = Device(key, version=self.version, seed=self.index + 1)

    def listens(self, at_us: int) -> bool:
        return at_us < self.window_until_us or self.on_from_us <= at_us < self.on_until_us

    def on_offer(self, at_us: int, offer: app.Offer) -> None:
        """Open the session as if FragSessionSetupReq had come (the C node has its own way in)."""
        self.on_from_us = at_us + offer.start_in_s * SECOND_US
        self.on_until_us = self.on_from_us + offer.length_s * SECOND_US
        if self.offered is not None and self.offered.descriptor == offer.descriptor:
            return
        self.offered = offer
        counts = (offer.nb_frag, offer.frag_size, offer.block_ack_delay, offer.padding, offer.descriptor)
        known: dict[str, object] = {}
        if offer.version == 2:
            self.sessions += 1
            named = {"session_cnt": self.sessions, "index": offer.index, "descriptor": offer.descriptor}
            known = {
                "session_cnt": self.sessions,
                "mic": data_block_mic(data_block_key(AesKey(KEY)), self.block, **named),  # type: ignore[arg-type]
            }
        setup = ts004.FragSessionSetupReq(offer.index, 1, *counts, **known)  # type: ignore[arg-type]
        heard, _ = self.device.rx(ts004.encode(setup, offer.version))
        assert heard is Heard.OPENED


class BlockFarm:
    """`nodes` nodes that lose `loss` of what is sent to them, around a gateway that refuses `refuse`."""

    def __init__(
        self,
        nodes: int,
        block: bytes,
        *,
        loss: float,
        refuse: float = 0.0,
        version: int = 2,
        config: SwarmConfig | None = None,
        seed: int = 11,
        kill_at: Sequence[int] = (),
    ) -> None:
        self.draw = Prng(seed).child("air").numpy()
        self.kill_at = frozenset(kill_at)
        self.deaf: set[int] = set()
        self.fragments: list[ts004.DataFragment] = []
        """As the first node heard them."""
        self._transmits = self._killed_us = 0
        self.refuse = refuse
        self.loss = loss
        self.cell = Cell(config or farm.settings(), nodes=nodes, verdict=self._verdict)
        self.version = version
        self.nodes = [Node(index, block, version) for index in range(nodes)]
        self._heard = self._windows = 0

    def _verdict(self, transmit: Transmit) -> str | None:
        """The gateway's word; at some of the frames the process dies before it comes."""
        self._transmits += 1
        if self._transmits in self.kill_at and self._killed_us != self.cell.now_us:
            self._killed_us = self.cell.now_us  # once at one instant: time passes until a process is up again
            self.cell.restart()
        return "COLLISION_PACKET" if self.draw.random() < self.refuse else None

    def listen(self) -> None:
        """Let nodes hear what went on the air since the last call."""
        cell = self.cell
        opened = cell.told("round_opened")
        for event in opened[self._windows :]:
            for node in self.nodes:
                node.window_until_us = event.at_us + cell.config.learning.window_s * SECOND_US
        self._windows = len(opened)
        for transmit in cell.on_air[self._heard :]:
            end_us = transmit.at_us + transmit.airtime_us
            for node in self.nodes:
                if node.index in self.deaf or (transmit.multicast and not node.listens(end_us)):
                    continue
                if self.draw.random() < self.loss:
                    continue
                taken = cell.devices[node.index].receive(end_us, transmit.payload)
                if isinstance(taken, Delivered) and taken.f_port:
                    self._take(node, end_us, taken, None if not transmit.multicast else 0)
        self._heard = len(cell.on_air)

    def _take(self, node: Node, end_us: int, taken: Delivered, group: int | None) -> None:
        if taken.f_port == 201:
            (command, *_) = ts004.decode_downlink(taken.payload, self.version)  # type: ignore[misc]
            if node.index == 0 and isinstance(command, ts004.DataFragment):
                self.fragments.append(command)
            heard, answer = node.device.rx(taken.payload, group)
            if heard is Heard.WHOLE and node.offered is not None:  # it says so by itself, twice
                told = ts004.FragSessionStatusAns(node.offered.index, node.offered.nb_frag, 0)
                node.on_until_us = end_us
                for after_s in (7 + node.index, 90 + node.index):
                    said = ts004.encode(told, self.version)
                    node.says.append((end_us + after_s * SECOND_US, said))
            if answer is not None:
                node.says.append((end_us + answer.delay_us, answer.payload))
        else:
            message = app.decode_downlink(taken.f_port, taken.payload)
            if isinstance(message, app.Offer):
                node.on_offer(end_us, message)
            if isinstance(message, app.RoundAnnounce):
                node.window_until_us = end_us

    def run(self, hours: float, until: Callable[[], bool] = lambda: False) -> None:
        """Let time pass until a block has ended; each node reports once an hour, and answers when due."""
        cell = self.cell
        until_us = cell.now_us + int(hours * 3600) * SECOND_US
        heard = [node.index for node in self.nodes if node.index not in self.deaf]
        next_status = {index: cell.now_us + (60 + index) * SECOND_US for index in heard}
        ended = len(cell.told("block_ended"))
        while cell.now_us < until_us and len(cell.told("block_ended")) == ended and not until():
            due_us = [at_us for node in self.nodes for at_us, _ in node.says]
            next_us = min(cell.now_us + 30 * SECOND_US, *due_us, *next_status.values())
            cell.run_until(max(cell.now_us, next_us))
            cell.keep_alive()
            self.listen()
            for node in self.nodes:
                if node.index in self.deaf:
                    continue
                due = [said for said in node.says if said[0] <= cell.now_us]
                node.says = [said for said in node.says if said[0] > cell.now_us]
                for _, payload in due:
                    if self.draw.random() >= self.loss:
                        cell.uplink(node.index, 201, payload)
                if cell.now_us >= next_status[node.index]:
                    next_status[node.index] += 3600 * SECOND_US
                    cell.uplink(node.index, 12, status())
                    self.listen()
