"""What a case of tests/vectors/app_frames.json is made of: bytes laid out by hand, and their fields."""

from __future__ import annotations

Case = dict[str, object]


def le(value: int, size: int) -> str:
    """Little-endian hex of a signed or unsigned number."""
    return (value % (1 << 8 * size)).to_bytes(size, "little").hex()


def noise(count: int, limit: int, seed: int) -> list[int]:
    """Numbers 0..limit-1 of a small linear congruential generator: fixed for ever, no library involved."""
    out = []
    for _ in range(count):
        seed = (seed * 1103515245 + 12345) % (1 << 31)
        out.append((seed >> 8) % limit)
    return out


def case(name: str, f_port: int, direction: str, text: str, fields: Case) -> Case:
    """A valid frame."""
    return {
        "name": name,
        "f_port": f_port,
        "direction": direction,
        "hex": text,
        "fields": fields,
        "reason": None,
    }


def refused(name: str, f_port: int, direction: str, text: str, reason: str) -> Case:
    """Bytes that are no frame."""
    return {
        "name": name,
        "f_port": f_port,
        "direction": direction,
        "hex": text,
        "fields": None,
        "reason": reason,
    }
