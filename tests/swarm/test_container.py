"""The model container in Python: what is written is read back, damaged bytes are refused with a reason."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.effects import Malformed
from swarm.model import container, layout
from swarm.model.container_format import FRAGMENT, HEADER, pack_int4, quantise_rows, unpack_int4

IMAGE = container.random_model(7)
BASE_MODEL = Path(container.__file__).with_name("base_model.swm")


def opened(image: bytes) -> container.Container:
    found = container.read(image)
    assert not isinstance(found, Malformed), found
    return found


def with_crc(image: bytes) -> bytes:
    """The image with the CRC of header and directories made right."""
    data_at = struct.unpack_from("<I", image, 44)[0]
    crc = zlib.crc32(image[64:data_at], zlib.crc32(image[:60]))
    return image[:60] + struct.pack("<I", crc) + image[64:]


def test_write_then_read_gives_the_weights_back() -> None:
    """Heads, adapter and priors survive to their resolution; int4 planes to half a step of their row."""
    rng = np.random.Generator(np.random.PCG64(1))
    heads: dict[int | None, np.ndarray] = {c: rng.normal(0, 0.5, (3, 33)) for c in (0, 3, None)}
    square = [container.Linear(rng.normal(0, 0.1, (64, 64)), rng.normal(0, 0.1, 64)) for _ in range(9)]
    dense = container.Linear(rng.normal(0, 0.2, (64, 56)), rng.normal(0, 0.2, 64))
    model = container.FloatModel(
        dense=dense,
        shared=square[8],
        gate=container.Linear(rng.normal(0, 0.2, (8, 64)), np.zeros(8)),
        experts=square[:8],
        project=container.Linear(rng.normal(0, 0.2, (32, 64)), np.zeros(32)),
        input_scale=1 / 64,
        hidden_scale=1 / 24,
        adapter_a=rng.normal(0, 0.1, (4, 64)),
        heads=heads,
        priors={0: container.Prior(rng.normal(0, 1, (3, 32)), np.array([5, 0, 70_000]))},
    )
    found = opened(container.write(model, generation=9))
    assert found.generation == 9
    assert found.contexts() == (0, 3)
    for context, key in ((0, 0), (3, 3), (1, None), (7, None), (255, None)):
        assert np.array_equal(found.head(context), np.rint(heads[key] * layout.HEAD_ONE).ravel())
    adapter = found.adapter()
    assert adapter.shape == (layout.ADAPTER_SIZE,)
    assert (
        np.abs(adapter[:256] / layout.ADAPTER_ONE - model.adapter_a.ravel()).max() <= 0.5 / layout.ADAPTER_ONE
    )
    assert not adapter[256:].any()
    prior = found.prior(0)
    assert prior is not None
    assert prior.count.tolist() == [5, 0, 70_000]
    assert np.abs(prior.mean - model.priors[0].mean).max() <= 0.5 / layout.Z_ONE
    assert found.prior(3) is None
    first = found.tensors[0]
    plane = found.image[first.plane : first.plane + first.plane_size()]
    stored = unpack_int4(plane, 64, 64)
    mult = np.frombuffer(found.image, "<u2", 64, first.scale + 4 * 64)
    step = mult / 2.0**first.shift * model.hidden_scale / model.input_scale
    assert np.abs(stored[:, :56] * step[:, None] - dense.weight).max() < 0.52 * np.abs(dense.weight).max() / 7
    assert not stored[:, 56:].any()


def test_int4_layout_bit_by_bit() -> None:
    """Column j of rows r, r + 1 stands at bits 4j and 16 + 4j of the word, as w + 8."""
    weight = np.zeros((2, 16), dtype=np.int64)
    weight[0, :4] = (-8, -1, 0, 7)
    weight[1, :4] = (1, 2, 3, 4)
    assert pack_int4(weight)[:4] == struct.pack("<I", 0xCBA9_F870)


@given(st.integers(1, 4), st.integers(1, 4), st.randoms(use_true_random=False))
def test_int4_packing_inverts(pairs: int, blocks: int, random: object) -> None:
    """unpack(pack(w)) == w for every shape."""
    rng = np.random.Generator(np.random.PCG64(hash(str(random)) & 0xFFFF))
    weight = rng.integers(-8, 8, (2 * pairs, 16 * blocks))
    assert np.array_equal(unpack_int4(pack_int4(weight), *weight.shape), weight)


def test_quantised_rows_hit_their_largest_weight() -> None:
    """The largest weight of a row is one of the steps; a row of zeros stays zero."""
    weight = np.array([[0.1, -0.7, 0.35], [0.0, 0.0, 0.0]])
    quantised, scale = quantise_rows(weight, 4)
    assert quantised.tolist() == [[1, -7, 4], [0, 0, 0]]
    assert scale[0] == pytest.approx(0.1)


def test_writing_is_deterministic_and_names_the_content() -> None:
    """Same weights, same bytes; other weights, other model_id and CRC."""
    assert container.random_model(7) == IMAGE
    other = opened(container.random_model(8))
    assert other.model_id != opened(IMAGE).model_id
    assert other.crc32 != opened(IMAGE).crc32


def test_inspect_describes_every_part() -> None:
    """The description counts what is there: tens of kilobytes, 10 planes, one fragment per expert."""
    found = container.inspect(IMAGE)
    assert found["size"] == len(IMAGE) < 40_000
    assert found["arena_bytes"] <= 512
    assert [op["op"] for op in found["ops"]][-4:] == ["ADAPTER", "PROJECT", "HEAD", "END"]
    kinds = [fragment["kind"] for fragment in found["fragments"]]
    assert kinds.count("expert") == layout.EXPERTS
    assert {"trunk", "gate", "shared_expert", "adapter", "head", "prior"} <= set(kinds)
    # 64 x 64 twice and two experts in int4, gate and projection in int8.
    assert found["macs_per_inference"] == 4 * 64 * 64 + 8 * 64 + 32 * 64


def test_remote_expert_keeps_its_hash_but_not_its_bytes() -> None:
    """A remote fragment keeps the CRC that the whole container has for it, so it can be checked later."""
    part = container.inspect(container.random_model(7, remote=(2, 6)))
    whole = container.inspect(IMAGE)
    assert part["size"] < whole["size"] - 2 * 2300
    for mine, full in zip(part["fragments"], whole["fragments"], strict=True):
        assert (mine["crc32"], mine["length"]) == (full["crc32"], full["length"])
        assert mine["state"] == (
            "remote" if (mine["kind"], mine["index"]) in {("expert", 2), ("expert", 6)} else "present"
        )


def test_refusals_have_reasons() -> None:
    """Each kind of damage gives its own reason."""

    def reason(image: bytes) -> str:
        found = container.read(image)
        return found.reason if isinstance(found, Malformed) else "accepted"

    assert reason(b"") == "truncated"
    assert reason(IMAGE[:-1]) == "truncated"
    assert reason(b"SWM2" + IMAGE[4:]) == "magic"
    assert reason(IMAGE[:4] + b"\x02\x00" + IMAGE[6:]) == "version"
    assert reason(IMAGE[:52] + struct.pack("<I", 1 << 20) + IMAGE[56:]) == "isa"
    assert reason(IMAGE[:8] + struct.pack("<I", len(IMAGE) - 16) + IMAGE[12:]) == "crc"
    assert reason(with_crc(IMAGE[:8] + struct.pack("<I", len(IMAGE) - 16) + IMAGE[12:])) == "fragment"
    assert reason(IMAGE[:-1] + bytes([IMAGE[-1] ^ 1])) == "crc"
    assert reason(with_crc(IMAGE[:64] + b"\x63" + IMAGE[65:])) == "isa"
    fragments_at = struct.unpack_from("<I", IMAGE, 40)[0]
    state = fragments_at + 1
    assert reason(with_crc(IMAGE[:state] + b"\x02" + IMAGE[state + 1 :])) == "fragment"
    assert container.inspect(b"SWM2" + IMAGE[4:])["error"] == "magic"


@settings(max_examples=300)
@given(st.data())
def test_mutated_tables_never_raise(data: st.DataObject) -> None:
    """Any change of header or directories, CRC repaired: a container or a reason, never an exception."""
    tables = struct.unpack_from("<I", IMAGE, 44)[0]
    image = bytearray(IMAGE)
    for _ in range(data.draw(st.integers(1, 4))):
        image[data.draw(st.integers(0, tables - 1))] = data.draw(st.integers(0, 255))
    mutated = bytes(image)
    found = container.read(
        with_crc(mutated) if struct.unpack_from("<I", mutated, 44)[0] <= len(mutated) else mutated
    )
    if isinstance(found, container.Container):
        assert found.adapter().shape == (512,)
        for context in range(layout.CONTEXT_MAX):
            assert found.head(context).shape == (99,)
            found.prior(context)
        assert "error" not in container.inspect(bytes(found.image))


def test_record_sizes_match_the_specification() -> None:
    """docs/SPEC.md promises 64, 16, 20 and 20 bytes, and 16-byte aligned planes."""
    assert (HEADER.size, container.OP.size, container.TENSOR.size, FRAGMENT.size) == (64, 16, 20, 20)
    assert all(tensor.plane % 16 == 0 for tensor in opened(IMAGE).tensors)
    assert all(fragment.length % 16 == 0 for fragment in opened(IMAGE).fragments)


def test_the_shipped_model_knows_apple_and_tomato() -> None:
    """The committed artefact: small, both public crops, priors of thousands of days, all experts present."""
    found = opened(BASE_MODEL.read_bytes())
    assert found.contexts() == layout.CONTEXTS_PUBLIC
    for context in layout.CONTEXTS_PUBLIC:
        prior = found.prior(context)
        assert prior is not None
        assert prior.count.sum() > 5000
        assert np.abs(prior.mean).max() < 4
    assert all(fragment.state == 1 for fragment in found.fragments)
    assert len(found.image) < 40_000
