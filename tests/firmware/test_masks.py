"""AES, masks and noise of the firmware against FIPS-197, `cryptography`, and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st
from swarm._node import ffi, lib

from swarm.security.masks import mask_stream

COUNT = 273


def aes(key: bytes, block: bytes) -> bytes:
    state, out = ffi.new("swn_aes_t *"), ffi.new("uint8_t[16]")
    lib.swn_aes_init(state, key)
    lib.swn_aes_encrypt(state, block, out)
    return bytes(out)


def group(size: int, seed: int = 1) -> list[object]:
    """The C structs of one group's members."""
    draw = np.random.default_rng(seed)
    shared = {(a, b): draw.bytes(16) for a in range(size) for b in range(a + 1, size)}
    made = []
    for own in range(size):
        mask = ffi.new("swn_mask_t *")
        mask.group, mask.position, mask.size = 7, own, size
        for peer in range(size):
            if peer != own:
                ffi.buffer(mask.keys[peer])[:] = shared[min(own, peer), max(own, peer)]
        made.append(mask)
    return made


def masked(mask: object, values: np.ndarray, number: int = 5) -> np.ndarray:
    out = values.astype(np.uint16)
    lib.swn_mask_apply(mask, number, ffi.cast("uint16_t *", out.ctypes.data), len(out))
    return out


def seed_of(mask: object, peer: int, number: int) -> bytes:
    out = ffi.new("uint8_t[16]")
    lib.swn_mask_seed(mask, peer, number, out)
    return bytes(out)


@pytest.mark.parametrize(
    ("key", "plain", "cipher"),
    [  # FIPS-197, appendices B and C.1
        (
            "2b7e151628aed2a6abf7158809cf4f3c",
            "3243f6a8885a308d313198a2e0370734",
            "3925841d02dc09fbdc118597196a0b32",
        ),
        (
            "000102030405060708090a0b0c0d0e0f",
            "00112233445566778899aabbccddeeff",
            "69c4e0d86a7b0430d8cdb78070b4c55a",
        ),
    ],
)
def test_fips_197(key: str, plain: str, cipher: str) -> None:
    assert aes(bytes.fromhex(key), bytes.fromhex(plain)).hex() == cipher


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_aes_is_that_of_an_independent_library(key: bytes, block: bytes) -> None:
    assert aes(key, block) == Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)


@given(st.integers(4, 16), st.integers(0, 65_535))
def test_the_masks_of_a_whole_group_cancel(size: int, number: int) -> None:
    values = np.random.default_rng(size).integers(-3000, 3000, (size, COUNT))
    total = sum(masked(mask, row, number).astype(int) for mask, row in zip(group(size), values, strict=True))
    assert np.array_equal(total % 65_536, values.sum(axis=0) % 65_536)


def test_a_seed_is_what_the_specification_says_and_gives_the_mask() -> None:
    """The one mask of a pair is the stream of the seed, which is AES of 4D and the round."""
    members = group(4)
    keys = [bytes(ffi.buffer(members[1].keys[peer])) for peer in range(4)]
    seeds = [seed_of(members[1], peer, 0x1234) for peer in range(4)]
    assert seeds[2] == aes(keys[2], bytes([0x4D, 0x34, 0x12]) + bytes(13)) == seed_of(members[2], 1, 0x1234)
    expected = (
        -mask_stream(seeds[0], COUNT).astype(int)
        + mask_stream(seeds[2], COUNT)
        + mask_stream(seeds[3], COUNT)
    )
    assert np.array_equal(masked(members[1], np.zeros(COUNT), 0x1234), expected % 65_536)


def test_a_masked_vector_is_uniform_and_tells_nothing_of_the_clear_one() -> None:
    """Chi-square over the 12 bits that travel, and no correlation with what is masked; seed fixed."""
    (first, *_), rounds = group(8), 400
    clear = np.zeros((rounds, COUNT), int)
    clear[:, ::2] = np.random.default_rng(3).integers(-2000, 2000, (rounds, (COUNT + 1) // 2))
    sent = np.array([masked(first, row, number) & 0xFFF for number, row in enumerate(clear)])
    for part in (sent, sent[:, ::2], sent[:, 1::2]):
        counts = np.bincount(part.ravel() >> 4, minlength=256)
        chi_square = float(((counts - part.size / 256) ** 2 / (part.size / 256)).sum())
        assert abs(chi_square - 255) < 4 * math.sqrt(2 * 255)
    correlation = np.corrcoef(clear[:, ::2].ravel() % 4096, sent[:, ::2].ravel())[0, 1]
    assert abs(correlation) < 4 / math.sqrt(sent[:, ::2].size)


def noise(key: int = 1) -> object:
    state = ffi.new("swn_noise_t *")
    lib.swn_noise_init(state, bytes([key]) * 16)
    return state


def test_numbers_below_a_range_are_even() -> None:
    state = noise()
    for limit in (1, 2, 3, 255, 256, 257, 70_000, 1 << 40):
        drawn = np.array([lib.swn_noise_below(state, limit) for _ in range(4000)], float)
        assert drawn.max() < limit
        sd = limit / math.sqrt(12 * 4000)
        assert abs(drawn.mean() - (limit - 1) / 2) <= 4.5 * sd


@pytest.mark.parametrize("sigma", [1, 2, 7, 60])
def test_noise_has_the_frequencies_of_the_discrete_gaussian(sigma: int) -> None:
    """Chi-square against exp(-x^2 / 2 sigma^2), normalised; bins with at least 20 expected."""
    state, draws = noise(sigma), 20_000
    drawn = np.array([lib.swn_noise_gaussian(state, sigma) for _ in range(draws)])
    x = np.arange(-12 * sigma, 12 * sigma + 1)
    share = np.exp(-(x**2) / (2 * sigma**2))
    expected = draws * share / share.sum()
    found = np.bincount(drawn + 12 * sigma, minlength=len(x))
    kept = expected >= 20
    chi_square = float(((found - expected)[kept] ** 2 / expected[kept]).sum())
    assert abs(chi_square - kept.sum()) < 4 * math.sqrt(2 * kept.sum())
    assert abs(drawn.mean()) < 4 * sigma / math.sqrt(draws)


def test_noise_at_its_limits() -> None:
    state = noise()
    assert lib.swn_noise_gaussian(state, 0) == 0 == lib.swn_noise_gaussian(state, 4096)
    drawn = np.array([lib.swn_noise_gaussian(state, 4095) for _ in range(3000)])
    assert 3900 < drawn.std() < 4300 and abs(drawn).max() < 6 * 4095
