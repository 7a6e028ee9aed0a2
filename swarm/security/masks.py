"""The masks of `masked_sums` as the gateway may know them: from the seed of one pair and one round.

The keys behind the seeds are made by `swarm pilot provision` and live in the nodes only; the nodes' own
side is `node_firmware/core/swn_mask.c`, and docs/SPEC.md has the bits.
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

__all__ = ["SEED_SIZE", "mask_stream"]

SEED_SIZE = 16


def mask_stream(seed: bytes, count: int) -> NDArray[np.uint16]:
    """The mask of a seed (16 B): uint16[count], AES-128 of the counters 0, 1, ... under it."""
    blocks = -(-count // 8)
    counters = b"".join(number.to_bytes(16, "little") for number in range(blocks))
    cipher = Cipher(algorithms.AES(seed), modes.ECB())  # of distinct counters: counter mode, little endian
    stream = cipher.encryptor().update(counters)
    return np.frombuffer(stream, "<u2")[:count].astype(np.uint16)
