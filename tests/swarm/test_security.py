"""LoRaWAN cryptography against RFC 4493, FIPS 197, TS005 key derivation, and its own inverses."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.security.lorawan import (
    AesKey,
    cipher_payload,
    data_mic,
    multicast_keys,
    open_join_accept,
    same_mic,
    seal_join_accept,
)

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "vectors" / "ts003_ts004_ts005_commands.json"
RFC_KEY = AesKey(bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c"))
RFC_TEXT = bytes.fromhex(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)
RFC_CMAC = {
    0: "bb1d6929e95937287fa37d129b756746",
    16: "070a16b46b4d4144f79bdd9dd04a287c",
    40: "dfa66747de9ae63030ca32611497c827",
    64: "51f0bebf7e3b9d92fc49741779363cfe",
}
WORDS = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(("size", "expected"), RFC_CMAC.items())
def test_cmac_is_rfc_4493(size: int, expected: str) -> None:
    """Goal: the integrity code is the standard's.  Method: the four examples of RFC 4493 section 4."""
    assert RFC_KEY.cmac(RFC_TEXT[:size]).hex() == expected
    assert RFC_KEY.mic(RFC_TEXT[:size]).hex() == expected[:8]


def test_aes_is_fips_197_and_a_context_serves_many_times() -> None:
    """Goal: one cached cipher context gives the same blocks for ever.  Method: FIPS 197 C.1, thrice."""
    key = AesKey(bytes(range(16)))
    plain, sealed = bytes.fromhex("00112233445566778899aabbccddeeff"), "69c4e0d86a7b0430d8cdb78070b4c55a"
    for _ in range(3):
        assert key.encrypt(plain).hex() == sealed
        assert key.decrypt(bytes.fromhex(sealed)) == plain
        assert RFC_KEY.cmac(b"").hex() == RFC_CMAC[0]


def test_a_key_shows_itself_to_nobody() -> None:
    """Goal: no key in logs.  Method: repr; and what a key may do: compare, hash, pickle."""
    key = AesKey(bytes(range(16)))
    assert "0001" not in repr(key)
    assert "x01" not in repr(key)
    same = pickle.loads(pickle.dumps(key))
    assert same == key
    assert hash(same) == hash(key)
    assert same.cmac(b"a") == key.cmac(b"a")
    assert key != AesKey(bytes(16))
    with pytest.raises(ValueError):
        AesKey(bytes(15))


@given(st.binary(max_size=250), st.booleans(), WORDS, WORDS)
def test_payload_cipher_is_its_own_inverse(payload: bytes, uplink: bool, dev_addr: int, f_cnt: int) -> None:
    """Goal: every length decrypts.  Method: twice is nothing; the length stays."""
    once = cipher_payload(RFC_KEY, payload, uplink=uplink, dev_addr=dev_addr, f_cnt=f_cnt)
    assert len(once) == len(payload)
    assert cipher_payload(RFC_KEY, once, uplink=uplink, dev_addr=dev_addr, f_cnt=f_cnt) == payload


def test_direction_address_and_all_32_bits_of_the_counter_are_covered() -> None:
    """Goal: nothing that is not on the air can be swapped unnoticed.  Method: change one thing at a time."""
    codes = {
        data_mic(RFC_KEY, b"frame", uplink=True, dev_addr=1, f_cnt=1),
        data_mic(RFC_KEY, b"frame", uplink=False, dev_addr=1, f_cnt=1),
        data_mic(RFC_KEY, b"frame", uplink=True, dev_addr=2, f_cnt=1),
        data_mic(RFC_KEY, b"frame", uplink=True, dev_addr=1, f_cnt=1 + 0x10000),
        data_mic(RFC_KEY, b"framf", uplink=True, dev_addr=1, f_cnt=1),
    }
    assert len(codes) == 5
    streams = {
        cipher_payload(RFC_KEY, bytes(16), uplink=uplink, dev_addr=addr, f_cnt=f_cnt)
        for uplink, addr, f_cnt in [(True, 1, 1), (False, 1, 1), (True, 2, 1), (True, 1, 0x10001)]
    }
    assert len(streams) == 4


@pytest.mark.parametrize("size", [13, 29])
def test_a_join_accept_opens_with_its_key_only(size: int) -> None:
    """Goal: a damaged or foreign join accept is refused.  Method: seal, flip each byte, use another key."""
    plain = b"\x20" + bytes(range(size - 1))
    sealed = seal_join_accept(RFC_KEY, plain)
    assert open_join_accept(RFC_KEY, sealed) == plain
    assert open_join_accept(AesKey(bytes(16)), sealed) is None
    for at in range(len(sealed)):
        assert open_join_accept(RFC_KEY, sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]) is None
    assert open_join_accept(RFC_KEY, sealed + b"\x00") is None


def test_same_mic() -> None:
    """Goal: equality, and nothing but equality."""
    assert same_mic(b"abcd", b"abcd")
    assert not same_mic(b"abcd", b"abce")
    assert not same_mic(b"abcd", b"abc")


def test_multicast_keys_are_those_of_ts005() -> None:
    """Goal: a group set up by another server works here.  Method: another project's published example."""
    if not SHARED.is_file():
        pytest.skip("the reference vectors of other projects are not beside this checkout")
    derived = json.loads(SHARED.read_text(encoding="utf-8"))["key_derivation"]
    for place, name in enumerate(("mc_nwk_s_key", "mc_app_s_key")):
        example = derived[name]
        keys = multicast_keys(AesKey(bytes.fromhex(example["mc_key"])), int(example["mc_addr_be"], 16))
        assert keys[place].hex() == example["out"]
