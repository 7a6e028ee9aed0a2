"""A cell whose nodes have the firmware's receiver of large blocks: what they hear, what they answer.

The receivers are the C code (`swarm.transport.device`); what a node does with OFFER and with windows is
written out here as docs/SPEC.md 5a has it.
"""

from __future__ import annotations

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
    ) -> None:
        self.draw = Prng(11).child("air").numpy()
        self.refuse = refuse
        self.loss = loss
        self.cell = Cell(config or farm.settings(), nodes=nodes, verdict=self._verdict)
        self.nodes = [Node(index, block, version) for index in range(nodes)]
        self._heard = self._windows = 0

    def _verdict(self, transmit: Transmit) -> str | None:
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
                if transmit.multicast and not node.listens(end_us):
                    continue
                if self.draw.random() < self.loss:
                    continue
                taken = cell.devices[node.index].receive(end_us, transmit.payload)
                if isinstance(taken, Delivered) and taken.f_port:
                    self._take(node, end_us, taken, None if not transmit.multicast else 0)
        self._heard = len(cell.on_air)

    def _take(self, node: Node, end_us: int, taken: Delivered, group: int | None) -> None:
        if taken.f_port == 201:
            _, answer = node.device.rx(taken.payload, group)
            if answer is not None:
                node.says.append((end_us + answer.delay_us, answer.payload))
        else:
            message = app.decode_downlink(taken.f_port, taken.payload)
            if isinstance(message, app.Offer):
                node.on_offer(end_us, message)
            if isinstance(message, app.RoundAnnounce):
                node.window_until_us = end_us

    def run(self, hours: float) -> None:
        """Let time pass; each node reports once an hour, and answers when it is due."""
        cell = self.cell
        until_us = cell.now_us + int(hours * 3600) * SECOND_US
        next_status = {node.index: cell.now_us + (60 + node.index) * SECOND_US for node in self.nodes}
        while cell.now_us < until_us and not cell.told("block_ended"):
            cell.run_for(5)
            cell.keep_alive()
            self.listen()
            for node in self.nodes:
                due = [said for said in node.says if said[0] <= cell.now_us]
                node.says = [said for said in node.says if said[0] > cell.now_us]
                for _, payload in due:
                    if self.draw.random() >= self.loss:
                        cell.uplink(node.index, 201, payload)
                if cell.now_us >= next_status[node.index]:
                    next_status[node.index] += 3600 * SECOND_US
                    cell.uplink(node.index, 12, status())
                    self.listen()
