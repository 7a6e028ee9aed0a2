"""Rice codes: a number as `value >> k` ones, a zero and its low k bits; most significant bit first.

Bits are kept as text of 0 and 1, which Python joins, searches and converts faster than it shifts.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["best_k", "code", "pack", "read", "unpack"]


def code(value: int, k: int) -> str:
    """The bits of one number >= 0."""
    low = format(value & ((1 << k) - 1), f"0{k}b") if k else ""
    return "1" * (value >> k) + "0" + low


def read(bits: str, at: int, k: int) -> tuple[int, int] | None:
    """(the number that begins at `at`, where the next bit stands), or None when the bits end before."""
    stop = bits.find("0", at)
    end = stop + 1 + k
    if stop < 0 or end > len(bits):
        return None
    return (stop - at) << k | int("0" + bits[stop + 1 : end], 2), end


def pack(bits: str) -> bytes:
    """The bits, zeros up to the byte."""
    size = (len(bits) + 7) // 8
    return int(bits.ljust(8 * size, "0") or "0", 2).to_bytes(size, "big")


def unpack(packed: bytes) -> str:
    """The bits of these bytes."""
    return format(int.from_bytes(packed, "big"), f"0{8 * len(packed)}b") if packed else ""


def best_k(values: Sequence[int], k_max: int) -> int:
    """The k of 0..k_max with the fewest bits for these numbers (the smaller one on a tie)."""
    return min(range(k_max + 1), key=lambda k: sum((value >> k) + k for value in values))
