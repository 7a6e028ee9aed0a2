"""The C node's Ed25519 against OpenSSL: the same verdict on every signature, but for keys of small order."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from random import Random

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from swarm._node import ffi, lib

from swarm.security.signatures import SigningKey, is_genuine, sign_block

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "signed_blocks.json").read_text())
P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P

Point = tuple[int, int]
NEUTRAL: Point = (0, 1)


def node_says(signature: bytes, message: bytes, key: bytes) -> bool:
    """What the C node makes of it, its message in two parts."""
    check = ffi.new("swn_ed25519_t *")
    lib.swn_ed25519_init(check, signature, key)
    for part in (message[:5], message[5:]):
        lib.swn_ed25519_update(check, part, len(part))
    return bool(lib.swn_ed25519_final(check))


def openssl_says(signature: bytes, message: bytes, key: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: str(case["name"]))
def test_the_vectors(case: dict[str, str]) -> None:
    """Signer, judge and node agree with the file, which was laid out by hand."""
    key, signed, kind = (
        SigningKey(bytes.fromhex(case["seed"])),
        bytes.fromhex(case["signed"]),
        int(case["kind"]),
    )
    header, contents = bytes.fromhex(case["header"]), bytes.fromhex(case["contents"])
    assert key.public_key.hex() == case["public_key"]
    made = sign_block(key, kind, header, body=contents)
    assert (made == signed) is case["genuine"]
    assert is_genuine(key.public_key, signed, kind, header) is case["genuine"]
    message = b"SWNB" + bytes([kind]) + header + signed[:-64]
    assert node_says(signed[-64:], message, key.public_key) is case["genuine"]


# Affine arithmetic as the definition has it, for signatures that no library makes.


def add(a: Point, b: Point) -> Point:
    (x1, y1), (x2, y2) = a, b
    product = D * x1 * x2 * y1 * y2 % P
    return (
        (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P,
        (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P,
    )


def times(n: int, a: Point) -> Point:
    out = NEUTRAL
    for bit in bin(n)[2:]:
        out = add(out, out)
        out = add(out, a) if bit == "1" else out
    return out


def x_of(y: int) -> int | None:
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    root = pow(square, (P + 3) // 8, P)
    root = root if root * root % P == square else root * pow(2, (P - 1) // 4, P) % P
    return root if root * root % P == square else None


def encoded(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def base() -> Point:
    y = 4 * pow(5, -1, P) % P
    x = x_of(y)
    assert x is not None
    return (x if x % 2 == 0 else P - x), y


def torsion() -> list[Point]:
    """The eight points of small order: multiples of one of order 8, found as L times a point."""
    for y in range(2, 50):
        x = x_of(y)
        if x is not None:
            small = times(L, (x, y))
            if times(4, small) != NEUTRAL:
                return [times(n, small) for n in range(8)]
    raise AssertionError


def challenge(r: bytes, key: bytes, message: bytes) -> int:
    return int.from_bytes(hashlib.sha512(r + key + message).digest(), "little") % L


@pytest.mark.parametrize("count", [300, pytest.param(4000, marks=pytest.mark.slow)])
def test_the_node_and_openssl_agree(count: int) -> None:
    """Goal: what the gateway signs nodes take, nothing else.  Method: random keys and messages of 0 to 400 B,
    each signature whole and with one bit flipped in signature, message or key."""
    rng = Random(count)
    for _ in range(count):
        private = Ed25519PrivateKey.from_private_bytes(rng.randbytes(32))
        key = private.public_key().public_bytes_raw()
        message = rng.randbytes(rng.randrange(400))
        signature = private.sign(message)
        assert node_says(signature, message, key)
        spoiled = bytearray(signature + key + message)
        spoiled[rng.randrange(len(spoiled))] ^= 1 << rng.randrange(8)
        triple = bytes(spoiled[:64]), bytes(spoiled[96:]), bytes(spoiled[64:96])
        assert not node_says(*triple)
        assert not openssl_says(*triple)


def test_random_bytes_are_judged_alike() -> None:
    """Random keys are points of the curve half of the time, and reach both ends of the check."""
    rng = Random(5)
    for _ in range(100):
        signature = rng.randbytes(63) + bytes([rng.randrange(32)])
        message, key = rng.randbytes(9), rng.randbytes(32)
        assert node_says(signature, message, key) == openssl_says(signature, message, key)


def test_keys_with_a_part_of_small_order_are_judged_without_the_cofactor() -> None:
    """Goal: gateway and node never differ.  Method: A = [a]B + T with T of small order: the signature made
    from a is right exactly when k is a multiple of that order; with the cofactor it always would be."""
    rng = Random(6)
    small = torsion()
    verdicts = []
    for n in range(60):
        a, r = rng.randrange(1, L), rng.randrange(1, L)
        key = encoded(add(times(a, base()), small[1 + n % 7]))
        big_r = encoded(times(r, base()))
        message = rng.randbytes(20)
        s = (r + challenge(big_r, key, message) * a) % L
        signature = big_r + s.to_bytes(32, "little")
        verdicts.append(node_says(signature, message, key))
        assert verdicts[-1] == openssl_says(signature, message, key)
    assert 0 < sum(verdicts) < 60


def test_r_has_one_encoding() -> None:
    """R = the neutral point: 01 00 ... is its encoding; p + 1, and 1 with the sign of x set, are not."""
    rng = Random(7)
    a = rng.randrange(1, L)
    key = encoded(times(a, base()))
    for encoding, right in ((1, True), (P + 1, False), (1 | 1 << 255, False), (P + 1 | 1 << 255, False)):
        big_r = encoding.to_bytes(32, "little")
        s = challenge(big_r, key, b"block") * a % L
        signature = big_r + s.to_bytes(32, "little")
        assert node_says(signature, b"block", key) is right
        assert openssl_says(signature, b"block", key) is right


def test_keys_of_small_order_are_refused_in_every_encoding() -> None:
    """Such keys sign anything: OpenSSL takes forgeries under each of them, the node none."""
    rng = Random(8)
    keys = {encoded(point) for point in torsion()}
    keys |= {((y + P) | sign << 255).to_bytes(32, "little") for y in (0, 1) for sign in (0, 1)}
    keys |= {(y | 1 << 255).to_bytes(32, "little") for y in (1, P - 1)}
    assert len(keys) == 8 + 4 + 2
    for key in keys:
        taken = 0
        for n in range(64):
            s = rng.randrange(1, L)
            signature = encoded(times(s, base())) + s.to_bytes(32, "little")
            message = bytes([n])
            assert not node_says(signature, message, key)
            if openssl_says(signature, message, key):
                taken += 1
                break
        assert taken, key.hex()


def test_a_key_beyond_p_is_taken_modulo_p() -> None:
    """As OpenSSL has it: the bytes go into the hash as they are, the point is that of y - p."""
    small = torsion()
    found = 0
    for y in range(2, 19):
        x = x_of(y)
        if x is None or (x, y) in small:
            continue
        found += 1
        key = (y + P).to_bytes(32, "little")
        signature = encoded(times(3, base())) + (3).to_bytes(32, "little")
        assert node_says(signature, b"", key) == openssl_says(signature, b"", key)
    assert found
