"""A large block as a gateway sends it to its cell, frame by frame, and nodes that may hear it."""

from __future__ import annotations

import hashlib
import struct

from swarm.model.container import random_model
from swarm.node import NodeConfig, Nodes
from swarm.receiver import BlockState, Receivers
from swarm.security.signatures import SigningKey, sign_block
from swarm.transport.erasure import Encoder
from swarm.wire import fragmentation as ts004
from tests.firmware.model_image import IMAGE

__all__ = ["FLASH_SIZE", "F_PORT", "SECOND_US", "SIGNER", "Offered", "nodes_with_flash", "signed"]

SECOND_US = 1_000_000
F_PORT = 201
FLASH_SIZE = 32_768
BODY = random_model(9, generation=2, remote=(0, 1, 2, 3, 4, 5, 6, 7))
KEY = SigningKey(bytes(range(32)))
SIGNER = KEY.public_key


def signed(body: bytes, key: SigningKey = KEY) -> bytes:
    """The block with its signature."""
    return sign_block(key, body=body)


class Offered:
    """The frames of one delivery."""

    def __init__(self, block: bytes, frag_size: int = 48, *, index: int = 0, version: int = 2) -> None:
        self.block, self.index, self.version = block, index, version
        self.encoder = Encoder(block, frag_size, version)
        self.descriptor = hashlib.sha512(block).digest()[:4]
        self.frag_size = frag_size

    @property
    def nb_frag(self) -> int:
        return self.encoder.nb_frag

    def offer(self, start_in_s: int = 0, length_s: int = 3600, **changes: int) -> bytes:
        """The OFFER of FPort 10, one of its fields changed."""
        sizes = {"nb_frag": self.nb_frag, "frag_size": self.frag_size, "padding": self.encoder.padding}
        fields = {"ack_delay": 0, **sizes, **changes}
        control = self.index | fields["ack_delay"] << 2 | (self.version - 1) << 5
        head = struct.pack("<BBHBB", 5, control, *(fields[name] for name in sizes))
        return head + self.descriptor + struct.pack("<HHB", start_in_s, length_s, 0)

    def fragment(self, n: int) -> bytes:
        data = ts004.DataFragment(self.index, n, self.encoder.fragment(n))
        return ts004.encode(data, self.version)

    def poll(self, *, everybody: bool = False) -> bytes:
        return ts004.encode(ts004.FragSessionStatusReq(self.index, everybody), self.version)


def nodes_with_flash(count: int, image: bytes, *, signer: bytes | None = SIGNER) -> Nodes:
    """Nodes that report once a day and have a flash for large blocks."""
    configs = [NodeConfig(i, i % 2, seed=i, guard_us=0, signer=signer) for i in range(count)]
    return Nodes(count, configs, image, flash_size=FLASH_SIZE)


class Bench:
    """One node that hears what it is told, and the intervals in which its receiver was on."""

    def __init__(self, nodes: Nodes | None = None) -> None:
        self.nodes = nodes_with_flash(1, IMAGE) if nodes is None else nodes
        self.receivers = Receivers(self.nodes)
        self.now_us = 0
        self.on: tuple[int, int] | None = None
        self.next: tuple[int, int] | None = None

    @property
    def state(self) -> BlockState:
        return BlockState(int(self.receivers.states()[0]))

    def learning(self, payload: bytes) -> None:
        self.nodes.rx(0, self.now_us, 10, payload, multicast=True)
        self.take_listens()

    def tell(self, payload: bytes, *, multicast: bool = True) -> None:
        self.nodes.rx(0, self.now_us, F_PORT, payload, multicast=multicast)
        self.take_listens()

    def send(self, offered: Offered, lost: frozenset[int] = frozenset(), until: int | None = None) -> None:
        """All fragments up to `until` but those that are lost, a second each."""
        for n in range(1, (until or 2 * offered.nb_frag) + 1):
            if n not in lost:
                self.now_us += SECOND_US
                self.tell(offered.fragment(n))

    def pass_time(self, seconds: int) -> list[tuple[int, bytes]]:
        """What the node says on FPort 201 meanwhile, and when (s from now)."""
        until_us, said = self.now_us + seconds * SECOND_US, []
        while self.now_us < until_us:
            due_us = int(self.nodes.poll(self.now_us)[0])
            said += [(self.now_us, payload) for _, port, payload in self.nodes.outbox() if port == F_PORT]
            self.take_listens()
            self.now_us = min(due_us, until_us)
        return [(at_us - until_us + seconds * SECOND_US, payload) for at_us, payload in said]

    def wake(self) -> None:
        """The board calls at the time that the node asked for; what it says is lost."""
        self.nodes.poll(self.now_us)
        self.nodes.outbox()
        self.take_listens()

    def listens(self) -> bool:
        """Whether the receiver is on now, as a port that does what it is told has it."""
        self._roll()
        return self.on is not None and self.on[0] <= self.now_us < self.on[1]

    def _roll(self) -> None:
        if self.next is not None and self.next[0] <= self.now_us:
            self.on, self.next = self.next, None

    def take_listens(self) -> None:
        for _, from_us, until_us in self.nodes.listens():
            self._roll()
            if from_us <= self.now_us:
                self.on = (from_us, until_us) if until_us > self.now_us else None
            else:
                self.next = (from_us, until_us)


def offered(body: bytes = BODY, **options: int) -> Offered:
    return Offered(signed(body), **options)
