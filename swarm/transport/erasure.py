"""The erasure code of TS004: a block as fragments and as many parity fragments as are asked for.

A block is `nb_frag` pieces of `frag_size` bytes, the last one filled up with zeros (`padding`).  Fragment n
(from 1) is the n-th piece for n <= nb_frag, else the exclusive-or of the pieces in `parity_row(n - nb_frag)`,
which both sides draw from a 23-bit shift register.  Any fragments whose rows have rank nb_frag give the block
back; on average 1.5 to 3 more than nb_frag are needed, 4 to 9 in the worst twentieth.

Versions 1 and 2 of the standard draw different rows.  Half as many pieces as the block has are drawn; in
version 1 a piece that is drawn twice counts twice (and stands once), in version 2 pieces are drawn until half
of them are different ones.  A block of one fragment has empty rows: its parity says nothing, it is repeated.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["Decoder", "Encoder", "parity_row"]

_REGISTER_STEP = 1001


def _draws(n: int, nb_frag: int) -> Iterator[int]:
    """Pieces (0..nb_frag-1) in the order in which the register of parity fragment `n` names them."""
    register = 1 + _REGISTER_STEP * n
    # A power of two divides the register's period too well: the modulus is then one larger.
    modulus = nb_frag + (nb_frag & (nb_frag - 1) == 0)
    while True:
        register = register >> 1 | ((register ^ register >> 5) & 1) << 22
        piece = register % modulus
        if piece < nb_frag:
            yield piece


def parity_row(n: int, nb_frag: int, version: int) -> int:
    """The pieces in parity fragment `n` (from 1) of a block of `nb_frag` (from 1), bit i: piece i.

    `version` is that of TS004, 1 or 2.
    """
    if n < 1 or nb_frag < 1:
        raise ValueError("parity fragments and pieces are counted from 1")
    row, left = 0, nb_frag // 2
    if left == 0:
        return row
    for piece in _draws(n, nb_frag):
        if version < 2 or not row >> piece & 1:
            left -= 1
        row |= 1 << piece
        if left == 0:
            return row
    raise AssertionError("the register never stops")


class Encoder:
    """A block's fragments, made when they are asked for.

    `block` has at least one byte, `frag_size` is 1..255 B.
    """

    def __init__(self, block: bytes, frag_size: int, version: int) -> None:
        if not block or not 1 <= frag_size <= 255:
            raise ValueError("a block has at least one byte, a fragment 1 to 255")
        self.nb_frag = -(-len(block) // frag_size)
        self.padding = self.nb_frag * frag_size - len(block)
        self._version = version
        filled = np.frombuffer(block + bytes(self.padding), dtype=np.uint8)
        self._pieces: NDArray[np.uint8] = filled.reshape(self.nb_frag, frag_size)

    def fragment(self, n: int) -> bytes:
        """Fragment `n`, from 1: a piece of the block, then parity."""
        if n <= self.nb_frag:
            return bytes(self._pieces[n - 1].tobytes())
        row = parity_row(n - self.nb_frag, self.nb_frag, self._version)
        bits = np.frombuffer(row.to_bytes(-(-self.nb_frag // 8), "little"), dtype=np.uint8)
        chosen = np.unpackbits(bits, bitorder="little", count=self.nb_frag).view(np.bool_)
        parity: NDArray[np.uint8] = np.bitwise_xor.reduce(self._pieces[chosen], axis=0)
        return parity.tobytes()


class Decoder:
    """Collects fragments in any order until the block is whole.

    Pieces that came cost nothing but themselves.  Of parity, at most `losses_max` rows are kept (each stands
    for one lost piece): what would be one more is refused and `memory_error` set.
    """

    def __init__(self, nb_frag: int, frag_size: int, version: int, losses_max: int) -> None:
        self.memory_error = False
        self._nb_frag = nb_frag
        self._frag_size = frag_size
        self._version = version
        self._losses_max = losses_max
        self._pieces: dict[int, int] = {}
        self._rows: dict[int, tuple[int, int]] = {}  # by lowest piece: (pieces, their exclusive-or)
        self._known = 0  # the pieces we have, as bits

    @property
    def missing(self) -> int:
        """Independent fragments that are still needed."""
        return self._nb_frag - len(self._pieces) - len(self._rows)

    def take(self, n: int, data: bytes) -> bool:
        """Takes fragment `n`; whether the block is whole now.  Sizes and numbers that cannot be count as
        lost."""
        if self.missing and len(data) == self._frag_size and n >= 1:
            value = int.from_bytes(data, "little")
            if n > self._nb_frag:
                self._take_parity(parity_row(n - self._nb_frag, self._nb_frag, self._version), value)
            elif n - 1 in self._rows:
                self._reduce(1 << n - 1, value)
            else:
                self._known |= 1 << n - 1
                self._pieces[n - 1] = value
        return self.missing == 0

    def _take_parity(self, row: int, value: int) -> None:
        known = row & self._known
        row ^= known
        while known:
            low = known & -known
            value ^= self._pieces[low.bit_length() - 1]
            known ^= low
        self._reduce(row, value)

    def _reduce(self, row: int, value: int) -> None:
        """Gaussian elimination: the row loses its lowest piece until no kept row begins with it."""
        while row:
            lowest = (row & -row).bit_length() - 1
            if lowest in self._pieces:
                row, value = row ^ 1 << lowest, value ^ self._pieces[lowest]
                continue
            kept = self._rows.get(lowest)
            if kept is None:
                if len(self._rows) == self._losses_max:
                    self.memory_error = True
                else:
                    self._rows[lowest] = (row, value)
                return
            row, value = row ^ kept[0], value ^ kept[1]

    def block(self, padding: int) -> bytes:
        """The block without its padding; ValueError while something is missing."""
        if self.missing:
            raise ValueError(f"{self.missing} fragments are missing")
        pieces = dict(self._pieces)
        for lowest in sorted(self._rows, reverse=True):  # what a row holds beside its lowest is higher
            row, value = self._rows[lowest]
            row ^= 1 << lowest
            while row:
                low = row & -row
                value ^= pieces[low.bit_length() - 1]
                row ^= low
            pieces[lowest] = value
        whole = b"".join(pieces[i].to_bytes(self._frag_size, "little") for i in range(self._nb_frag))
        return whole[: len(whole) - padding]
