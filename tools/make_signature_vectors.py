"""Writes tests/vectors/signed_blocks.json: blocks with signatures, laid out by hand from docs/SPEC.md, 5.

Each case is {"name", "seed", "public_key", "kind", "header", "contents", "signed", "genuine"}; bytes are hex,
`signed` is what travels, kind 255 that of a large block.  Ed25519 is OpenSSL's.

Run: python tools/make_signature_vectors.py   (writes the same bytes each time)
"""

from __future__ import annotations

import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

TARGET = Path(__file__).resolve().parent.parent / "tests" / "vectors" / "signed_blocks.json"
SEED = bytes(range(32))
HEADS = bytes([0, 1]) + bytes(range(99))
ORDER = 2**252 + 27742317777372353535851937790883648493


def case(
    name: str, kind: int, header: str, contents: bytes, signed: bytes | None = None
) -> dict[str, object]:
    """A genuine block, or with `signed` one that is not."""
    key = Ed25519PrivateKey.from_private_bytes(SEED)
    message = b"SWNB" + bytes([kind]) + bytes.fromhex(header) + contents
    made = contents + key.sign(message)
    return {
        "name": name,
        "seed": SEED.hex(),
        "public_key": key.public_key().public_bytes_raw().hex(),
        "kind": kind,
        "header": header,
        "contents": contents.hex(),
        "signed": (signed or made).hex(),
        "genuine": signed is None,
    }


def cases() -> list[dict[str, object]]:
    """Genuine ones first."""
    heads = case("heads", 0, "0700ffff", HEADS)
    signed = bytes.fromhex(str(heads["signed"]))
    s = int.from_bytes(signed[-32:], "little") + ORDER
    second = signed[:-32] + s.to_bytes(32, "little")
    return [
        heads,
        case("delta", 1, "08000700", bytes([1, 0, 2]) + bytes(range(256)) + bytes(50)),
        case("large", 255, "", bytes(i * 7 & 255 for i in range(1000))),
        case("empty_large", 255, "", b""),
        case("another_version", 0, "0800ffff", HEADS, signed),
        case("another_base", 0, "07000600", HEADS, signed),
        case("another_kind", 2, "0700ffff", HEADS, signed),
        case("bit_flipped", 0, "0700ffff", HEADS, bytes([signed[0] ^ 1]) + signed[1:]),
        case("scalar_plus_order", 0, "0700ffff", HEADS, second),
    ]


if __name__ == "__main__":
    made = cases()
    TARGET.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(f"{TARGET}: {len(made)} cases")
