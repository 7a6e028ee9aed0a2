"""The erasure code of TS004 against two other implementations' rows and decoding, and as a code."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.prng import Prng
from swarm.transport.erasure import Decoder, Encoder, parity_row

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "vectors"


def shared(name: str) -> dict[str, Any]:
    path = SHARED / name
    if not path.is_file():
        return {"rows": [], "vectors": []}
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


ROWS: list[dict[str, Any]] = shared("ts004_parity_rows_v1_v2.json")["rows"]
BLOCKS: list[dict[str, Any]] = shared("fragmentation_ts004.json")["vectors"]


def shown(row: int, nb_frag: int) -> str:
    return "".join(str(row >> piece & 1) for piece in range(nb_frag))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("case", ROWS, ids=lambda case: f"M{case['M']}")
def test_parity_rows_are_those_of_two_other_stacks(case: dict[str, Any], version: int) -> None:
    rows = [shown(parity_row(n, case["M"], version), case["M"]) for n in range(1, len(case["rows_v1"]) + 1)]
    assert rows == case[f"rows_v{version}"]


@pytest.mark.parametrize("case", BLOCKS, ids=lambda case: case["data_seed"])
def test_fragments_of_published_blocks(case: dict[str, Any]) -> None:
    encoder = Encoder(bytes.fromhex(case["data"]), case["frag_size"], 1)
    assert (encoder.nb_frag, encoder.padding) == (case["nb_frag_M"], case["padding"])
    made = [encoder.fragment(n).hex() for n in range(1, case["nb_frag_M"] + case["redundancy"] + 1)]
    assert made == case["fragments"]


@pytest.mark.parametrize("case", BLOCKS, ids=lambda case: case["data_seed"])
def test_published_losses_are_repaired_as_soon_as_by_another_decoder(case: dict[str, Any]) -> None:
    """Goal: what a device can repair we can, from the same fragment on.  Method: all published loss cases."""
    assert case["loss_cases"]
    for losses in case["loss_cases"]:
        decoder = Decoder(case["nb_frag_M"], case["frag_size"], 1, case["nb_frag_M"])
        done_at = None
        for n in losses["received"]:
            if decoder.take(n, bytes.fromhex(case["fragments"][n - 1])) and done_at is None:
                done_at = n
        assert (decoder.missing == 0) == losses["recoverable_by_rank"], losses["name"]
        if losses["semtech_decoder_recovers"]:
            assert done_at == losses["semtech_done_at_counter"], losses["name"]
            assert decoder.block(case["padding"]).hex() == case["data"]


def test_the_published_vectors_are_there() -> None:
    if not SHARED.is_dir():
        pytest.skip("the reference vectors of other projects are not beside this checkout")
    assert len(ROWS) >= 4
    assert len(BLOCKS) >= 2


@pytest.mark.parametrize("version", [1, 2])
def test_rows_weigh_half_of_the_block(version: int) -> None:
    """Goal: version 2 has exactly half of the pieces in each row, version 1 at most, and they differ."""
    weights = [parity_row(n, 50, version).bit_count() for n in range(1, 200)]
    assert max(weights) <= 25
    assert (min(weights) == 25) == (version == 2)


def test_a_row_of_one_piece_is_empty() -> None:
    assert [parity_row(n, 1, version) for n in (1, 2) for version in (1, 2)] == [0] * 4
    assert Encoder(b"one", 3, 2).fragment(2) == bytes(3)
    with pytest.raises(ValueError):
        parity_row(0, 5, 1)


@settings(deadline=None)
@given(
    block=st.binary(min_size=1, max_size=700),
    frag_size=st.integers(1, 60),
    version=st.sampled_from([1, 2]),
    seed=st.integers(0, 2**32 - 1),
    loss=st.floats(0, 0.7),
)
def test_any_loss_and_any_order_is_repaired_or_counted(
    block: bytes, frag_size: int, version: int, seed: int, loss: float
) -> None:
    """Goal: the decoder is right whenever rank allows, and knows its rank.  Method: random fragments,
    shuffled, some twice; its `missing` against an elimination of the rows alone."""
    draw = Prng(seed).child("loss").numpy()
    encoder = Encoder(block, frag_size, version)
    nb_frag = encoder.nb_frag
    numbers = [n for n in range(1, 2 * nb_frag + 10) if draw.random() >= loss]
    numbers += numbers[: nb_frag // 3]
    draw.shuffle(numbers)
    decoder = Decoder(nb_frag, frag_size, version, nb_frag)
    basis: dict[int, int] = {}
    for n in numbers:
        row = 1 << n - 1 if n <= nb_frag else parity_row(n - nb_frag, nb_frag, version)
        while row and row.bit_length() in basis:
            row ^= basis[row.bit_length()]
        if row:
            basis[row.bit_length()] = row
        done = decoder.take(n, encoder.fragment(n))
        assert decoder.missing == nb_frag - len(basis)
        assert done == (decoder.missing == 0)
    if decoder.missing == 0:
        assert decoder.block(encoder.padding) == block
    else:
        with pytest.raises(ValueError):
            decoder.block(encoder.padding)


def test_memory_is_bounded_and_said() -> None:
    """Goal: more losses than there is room for are refused, said, and repaired by the pieces themselves."""
    encoder = Encoder(bytes(range(200)), 10, 2)
    decoder = Decoder(20, 10, 2, losses_max=3)
    for n in range(6, 21):
        decoder.take(n, encoder.fragment(n))
    for n in range(21, 40):
        assert not decoder.take(n, encoder.fragment(n))
    assert decoder.memory_error
    assert decoder.missing == 2
    assert [decoder.take(n, encoder.fragment(n)) for n in range(1, 6)][-1]
    assert decoder.block(0) == bytes(range(200))


@pytest.mark.parametrize("version", [1, 2])
def test_overhead_is_as_measured_elsewhere(version: int) -> None:
    """Goal: planning with losses + 8 is enough nearly always.  Method: 200 seeded blocks at 20 % loss."""
    draw = Prng(4).child(f"v{version}").numpy()
    extra = []
    for _ in range(200):
        block = hashlib.shake_128(draw.bytes(8)).digest(50 * 8)
        encoder, decoder = Encoder(block, 8, version), Decoder(50, 8, version, 50)
        n = lost = used = 0
        while decoder.missing:
            n += 1
            if draw.random() < 0.2:
                lost += n <= 50
            else:
                used += n > 50
                decoder.take(n, encoder.fragment(n))
        extra.append(used - lost)
    extra.sort()
    assert 1.0 < sum(extra) / len(extra) < 3.5
    assert extra[189] <= 9


def test_our_frozen_vectors() -> None:
    """Goal: Python and C never drift apart together.  Method: the rows that the C tests read."""
    frozen = json.loads(
        (Path(__file__).resolve().parent.parent / "vectors" / "fragmentation.json").read_text()
    )
    for case in frozen["rows"]:
        row = parity_row(case["n"], case["nb_frag"], case["version"])
        assert row == int.from_bytes(bytes.fromhex(case["row"]), "little")
