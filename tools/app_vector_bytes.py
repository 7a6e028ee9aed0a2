"""What every case of tests/vectors/app_frames.json is made with: bytes by hand, and the form of a case."""

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


def packed(bits: str) -> str:
    """Bits, MSB first, with zero bits up to the next byte, as hex."""
    while len(bits) % 8:
        bits += "0"
    return "".join(f"{int(bits[i : i + 8], 2):02x}" for i in range(0, len(bits), 8))


def fixed(name: str, way: str, text: str, kind: str, layout: list[tuple[str, int, int]]) -> Case:
    """A frame of plain numbers: `text` is `f_port:type`, the layout is (field, size, value)."""
    f_port, kind_byte = text.split(":")
    body = kind_byte + "".join(le(value, size) for _, size, value in layout)
    fields: Case = {"kind": kind, **{field: value for field, _, value in layout}}
    return case(name, int(f_port), way, body, fields)


def numbers(layout: list[tuple[str, int]], values: list[int]) -> list[tuple[str, int, int]]:
    """A layout filled with values."""
    return [(name, size, value) for (name, size), value in zip(layout, values, strict=True)]
