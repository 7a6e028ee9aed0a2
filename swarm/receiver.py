"""Large blocks at the C nodes: what each has in its flash, and what it thinks of it.

The firmware's own code receives and judges them (`node_firmware/core/swn_receive.c`); this only looks, and
plays the board, whose flash it is.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swarm._node import ffi, lib
from swarm.node import Nodes
from swarm.security.signatures import SIGNATURE_SIZE

__all__ = ["BlockState", "Receivers"]


class BlockState(IntEnum):
    """What a node has in its flash."""

    NONE = 0
    RECEIVING = 1
    VERIFIED = 2
    """Whole, signed by the signer, and a container that the engine runs."""
    FORGED = 3


class Receivers:
    """The flashes of all `nodes`; rows are in their order."""

    def __init__(self, nodes: Nodes) -> None:
        self._host, self.count = nodes.host, nodes.count

    def states(self) -> NDArray[np.uint8]:
        """The `BlockState` of each."""
        return self._view(np.uint8, "receive", "state")

    def rewritten(self) -> NDArray[np.uint32]:
        """Bytes of flash that were written twice without being erased: none, where all is well."""
        return self._view(np.uint32, "flash", "rewritten")

    def sizes(self) -> NDArray[np.uint32]:
        """Bytes of the block that each may install at its next restart, its signature included; 0: none."""
        return self._view(np.uint32, "stored", "size")

    def missing(self, index: int) -> int:
        """Fragments that node `index` still needs; 0 without a session."""
        transport = ffi.addressof(self._slot(index).receive, "transport")
        return int(lib.swn_erasure_missing(ffi.addressof(transport, "erasure")))

    def block(self, index: int) -> bytes:
        """What node `index` may install, without the signature; empty: nothing."""
        size = max(0, self._slot(index).stored.size - SIGNATURE_SIZE)
        return bytes(ffi.buffer(self._slot(index).flash.bytes, size))

    def install(self, index: int, now_us: int) -> bool:
        """The board of node `index` runs what lies verified in its flash, if that is the running model with
        other experts; whether it began to."""
        self._slot(index)
        return bool(lib.swn_host_install(self._host, index, now_us))

    def refuse(self, index: int, descriptor: bytes) -> None:
        """The board of node `index` wants no block with this descriptor (4 B)."""
        ffi.memmove(self._slot(index).flash.unwanted, descriptor, 4)

    def fail_writes(self, index: int, count: int) -> None:
        """The next `count` writes to the flash of node `index` fail."""
        self._slot(index).flash.failing = count

    def _slot(self, index: int) -> Any:
        if not 0 <= index < self.count:
            raise IndexError(f"node {index} of {self.count}")
        return self._host.slots[index]

    def _view(self, dtype: type[np.generic], *path: str) -> NDArray[Any]:
        size = ffi.sizeof("swn_host_slot_t")
        buffer = ffi.buffer(self._host.slots, size * self.count)
        offset = ffi.offsetof("swn_host_slot_t", *path)
        view: NDArray[Any] = np.ndarray((self.count,), dtype, buffer, offset, (size,))
        view.flags.writeable = False
        return view
