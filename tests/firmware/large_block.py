"""A large block as a gateway sends it to its cell, frame by frame, and nodes that may hear it."""

from __future__ import annotations

import hashlib
import struct

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from swarm.node import NodeConfig, Nodes
from swarm.transport.erasure import Encoder
from swarm.wire import fragmentation as ts004

__all__ = ["F_PORT", "FLASH_SIZE", "SECOND_US", "SIGNER", "Offered", "nodes_with_flash", "signed"]

SECOND_US = 1_000_000
F_PORT = 201
FLASH_SIZE = 32_768
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SIGNER = KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def signed(body: bytes, key: Ed25519PrivateKey = KEY) -> bytes:
    """The block with its signature, as `docs/SPEC.md` has it."""
    return body + key.sign(b"SWNB\xff" + body)


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
