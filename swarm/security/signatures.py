"""Who made a block: Ed25519 signatures (RFC 8032) of everything that a node installs.

All nodes of a cell hold the group's key, so a frame's MIC says only that somebody of the cell sent it.  A
block therefore ends with the gateway's signature, which nodes check before anything changes
(`node_firmware/core/swn_ed25519.c`).  Signed are

    "SWNB" | kind u8 | header | body

with kind and header of a BLOCK of FPort 10 (docs/SPEC.md, 2.10), or kind 255 and no header for a large block
(TS004).  Signatures are deterministic: the same key and block give the same bytes, in any driver and
after any restart.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["LARGE_BLOCK", "SEED_SIZE", "SIGNATURE_SIZE", "Signer", "SigningKey", "is_genuine", "sign_block"]

SEED_SIZE = 32
SIGNATURE_SIZE = 64
LARGE_BLOCK = 255
"""The kind of a block that travels by TS004."""
_DOMAIN = b"SWNB"


class SigningKey:
    """A gateway's private key; it appears in no `repr`.  ValueError unless the seed has 32 bytes."""

    __slots__ = ("_private", "public_key")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_SIZE:
            raise ValueError(f"a signing key has {SEED_SIZE} bytes, not {len(seed)}")
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = self._private.public_key().public_bytes_raw()
        """What nodes are provisioned with, 32 B."""

    def sign(self, message: bytes) -> bytes:
        """64 B."""
        return self._private.sign(message)


class Signer:
    """The cell's key at a time; `key` None: its nodes were provisioned without one and take blocks as they
    are."""

    __slots__ = ("key",)

    def __init__(self, key: SigningKey | None = None) -> None:
        self.key = key

    @property
    def public_key(self) -> bytes | None:
        return None if self.key is None else self.key.public_key

    def block(self, body: bytes, *, kind: int, header: bytes) -> bytes:
        """The block as it travels: signed, if there is a key."""
        return body if self.key is None else sign_block(self.key, kind=kind, header=header, body=body)

    def large_block(self, block: bytes) -> bytes:
        """A large block as it travels; one that brings this key's signature stays as it is."""
        if self.key is None or is_genuine(self.key.public_key, block):
            return block
        return sign_block(self.key, body=block)


def sign_block(key: SigningKey, kind: int = LARGE_BLOCK, header: bytes = b"", *, body: bytes) -> bytes:
    """`body` and its signature, one behind the other."""
    return body + key.sign(_signed(kind, header, body))


def is_genuine(public_key: bytes, block: bytes, kind: int = LARGE_BLOCK, header: bytes = b"") -> bool:
    """Whether a signed block is what the owner of the key made, as a node judges it."""
    body, signature = block[:-SIGNATURE_SIZE], block[-SIGNATURE_SIZE:]
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, _signed(kind, header, body))
    except (InvalidSignature, ValueError):
        return False
    return True


def _signed(kind: int, header: bytes, body: bytes) -> bytes:
    return _DOMAIN + bytes([kind]) + header + body
