"""The mirror and the blocks: whatever is sent, gateway and nodes end with the same integers."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm import node
from swarm.effects import Malformed
from swarm.model import block
from swarm.model.layout import ADAPTER_SIZE, WEATHER
from swarm.model.vector import (
    VERSIONS,
    Mirror,
    lsb,
    next_version,
    quantise,
    version_age,
)
from swarm.wire.app import NO_BASE, BlockKind, BlockPiece, decode_downlink

CONTEXTS = 4


def mirror_of(seed: int, version: int = 7, spread: int = 400) -> Mirror:
    draw = np.random.default_rng(seed)
    adapter = draw.integers(-spread, spread, ADAPTER_SIZE).astype(np.int16)
    heads = draw.integers(-spread, spread, (CONTEXTS, WEATHER.head_size)).astype(np.int16)
    return Mirror(version, adapter, heads)


def master_near(mirror: Mirror, seed: int, step: float = 20.0) -> np.ndarray:
    """The mirror's master moved by some LSB at every coordinate."""
    draw = np.random.default_rng(seed)
    return mirror.master() + draw.normal(size=WEATHER.vector_size(CONTEXTS)) * step * lsb(
        WEATHER.vector_size(CONTEXTS)
    )


def reassembled(frames: list[bytes]) -> tuple[BlockPiece, bytes]:
    """What a node makes of the frames: pieces in index order, sizes as specified."""
    pieces = [decode_downlink(10, frame) for frame in frames]
    assert all(isinstance(piece, BlockPiece) for piece in pieces)
    ordered = sorted(pieces, key=lambda piece: piece.index)
    assert [piece.index for piece in ordered] == list(range(ordered[0].count))
    assert len({(p.version, p.base_version, p.kind, p.length, p.crc32, p.count) for p in ordered}) == 1
    return ordered[0], b"".join(piece.piece for piece in ordered)


def test_master_and_quantise_are_inverse_and_saturate() -> None:
    mirror = mirror_of(1)
    back = quantise(mirror.master())
    assert np.array_equal(back[:ADAPTER_SIZE], mirror.adapter)
    assert np.array_equal(back[ADAPTER_SIZE:], mirror.heads.ravel())
    assert set(quantise(np.full(WEATHER.vector_size(1), 1e6))) == {32767}
    assert set(quantise(np.full(WEATHER.vector_size(1), -1e6))) == {-32768}


def test_layout_of_local_coordinates() -> None:
    adapter, head = WEATHER.local_slices(2)
    assert (adapter.start, adapter.stop) == (0, 512)
    assert (head.start, head.stop) == (512 + 198, 512 + 297)
    assert head == WEATHER.head_slice(2) and WEATHER.vector_size(4) == 908
    steps = lsb(WEATHER.vector_size(4))
    assert steps[511] == 1 / 4096 and steps[512] == 1 / 256


def test_versions_wrap_and_skip_the_no_base_mark() -> None:
    assert next_version(VERSIONS - 1) == 0 and NO_BASE == VERSIONS
    assert version_age(VERSIONS - 1, 1) == 2
    assert version_age(5, 5) == 0


def test_digest_depends_on_weights_only() -> None:
    mirror = mirror_of(3)
    assert mirror.digest() == Mirror(9, mirror.adapter, mirror.heads).digest()
    changed = mirror.heads.copy()
    changed[3, 98] += 1
    assert mirror.digest() != Mirror(7, mirror.adapter, changed).digest()


def test_blob_keeps_mirror_and_master() -> None:
    mirror = mirror_of(4)
    master = master_near(mirror, 5)
    back = Mirror.from_bytes(mirror.to_bytes(master))
    assert not isinstance(back, Malformed)
    assert back[0].version == mirror.version and back[0].digest() == mirror.digest()
    assert back[1].tobytes() == master.tobytes()


@pytest.mark.parametrize("damage", [b"", b"SWV1", b"XXXX" + bytes(9084), None])
def test_damaged_blob_is_a_value(damage: bytes | None) -> None:
    blob = mirror_of(4).to_bytes()[:-1] if damage is None else damage
    assert isinstance(Mirror.from_bytes(blob), Malformed)


def test_heads_block_bytes_are_as_specified() -> None:
    """Method: a head of known values, decoded by hand from the block's bytes."""
    mirror = Mirror(0, np.zeros(512, np.int16), np.zeros((CONTEXTS, 99), np.int16))
    master = mirror.master()
    wanted = np.arange(99) * 8 - 400
    master[WEATHER.head_slice(2)] = wanted / 256
    made = block.encode(mirror, master, BlockKind.HEADS)
    assert (made.version, made.base_version, len(made.data)) == (1, NO_BASE, 101)
    context, shift = made.data[0], made.data[1]
    values = np.array(struct.unpack("99b", made.data[2:])) << shift
    assert (context, shift) == (2, 2)
    assert np.array_equal(values, wanted)
    assert np.array_equal(made.mirror.heads[2], wanted)


def test_delta_block_bytes_are_as_specified() -> None:
    """Method: steps of -8..7 times 4 at known places; low nibble first, adapter before heads."""
    mirror = mirror_of(6)
    steps = np.zeros(WEATHER.vector_size(CONTEXTS))
    steps[0], steps[1], steps[2] = -32, 28, 4
    steps[WEATHER.head_slice(1)][0] = 2
    steps[WEATHER.head_slice(3)][98] = -2
    made = block.encode(mirror, mirror.master() + steps * lsb(WEATHER.vector_size(CONTEXTS)), BlockKind.DELTA)
    assert made.base_version == mirror.version
    assert made.data[:3] == bytes([0b1010, 2, 0])
    assert len(made.data) == 3 + (512 + 2 * 99) // 2
    assert made.data[3:5] == bytes([0x78, 0x01])
    assert made.data[3 + 256] == 0x02 and made.data[-1] == 0xE0
    assert list(made.mirror.adapter[:3] - mirror.adapter[:3]) == [-32, 28, 4]
    assert made.mirror.heads[3, 98] == mirror.heads[3, 98] - 2
    assert np.array_equal(made.mirror.heads[0], mirror.heads[0])


def test_full_block_serves_a_node_of_any_version() -> None:
    mirror = mirror_of(8)
    made = block.encode(mirror, master_near(mirror, 9), BlockKind.FULL)
    assert (made.version, made.base_version) == (mirror.version + 1, NO_BASE)
    assert len(made.data) == 2 + 512 + 4 * 100
    stranger = mirror_of(99, version=3)
    after = block.apply(stranger, made.version, made.base_version, made.kind, made.data)
    assert isinstance(after, Mirror) and after.digest() == made.mirror.digest()


def test_full_repair_is_a_new_version_because_its_bits_are_new() -> None:
    """Method: FULL of an unchanged model is coarser than the DELTAs it stands for, by a few LSB."""
    mirror = mirror_of(8)
    repaired = block.encode(mirror, mirror.master(), BlockKind.FULL)
    assert repaired.mirror.digest() != mirror.digest()
    assert repaired.mirror.version != mirror.version
    assert np.abs(repaired.mirror.adapter - mirror.adapter).max() <= 2


def test_delta_on_another_base_is_refused() -> None:
    mirror = mirror_of(10)
    made = block.encode(mirror, master_near(mirror, 11), BlockKind.DELTA)
    other = Mirror(mirror.version - 1, mirror.adapter, mirror.heads)
    refused = block.apply(other, made.version, made.base_version, made.kind, made.data)
    assert isinstance(refused, Malformed) and refused.reason == "base_version"


def test_choose_sends_no_more_than_changed() -> None:
    mirror = mirror_of(12)
    assert block.choose(mirror, mirror.master()) is None
    master = mirror.master()
    master[WEATHER.head_slice(1)] += 0.5
    assert block.choose(mirror, master) is BlockKind.HEADS
    assert block.changed_contexts(mirror, master) == [1]
    master[0] += 0.5
    assert block.choose(mirror, master) is BlockKind.DELTA


def test_what_a_delta_cannot_say_travels_later() -> None:
    """Goal: error feedback.  Method: one large step and many small ones; repeated blocks reach the master."""
    mirror = mirror_of(13)
    master = master_near(mirror, 14, step=300.0)
    errors = []
    for _ in range(6):
        made = block.encode(mirror, master, BlockKind.DELTA, range(CONTEXTS))
        mirror = made.mirror
        errors.append(float(np.abs((mirror.master() - master) / lsb(WEATHER.vector_size(CONTEXTS))).max()))
    assert errors[0] > 20.0
    assert errors[-1] <= 0.5


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    spread=st.sampled_from([1, 30, 3000, 32767]),
    step=st.sampled_from([0.3, 10.0, 5000.0]),
    kind=st.sampled_from(list(BlockKind)),
    payload_max=st.sampled_from([15, 24, 51, 115, 222]),
)
def test_frames_bring_every_node_to_the_gateways_mirror(
    seed: int, spread: int, step: float, kind: BlockKind, payload_max: int
) -> None:
    mirror = mirror_of(seed, spread=spread)
    made = block.encode(mirror, master_near(mirror, seed + 1, step), kind, range(CONTEXTS))
    if -(-len(made.data) // (payload_max - 14)) > 255:
        with pytest.raises(ValueError):
            made.frames(payload_max)
        return
    frames = made.frames(payload_max)
    assert max(map(len, frames)) <= payload_max
    head, data = reassembled(frames)
    assert data == made.data and head.crc32 == zlib.crc32(made.data)
    after = block.apply(mirror, head.version, head.base_version, head.kind, data)
    assert isinstance(after, Mirror)
    assert (after.version, after.digest()) == (made.mirror.version, made.mirror.digest())


@settings(max_examples=200, deadline=None)
@given(kind=st.integers(0, 4), data=st.binary(max_size=500))
def test_hostile_blocks_are_values(kind: int, data: bytes) -> None:
    mirror = mirror_of(1)
    after = block.apply(mirror, 8, mirror.version, kind, data)
    assert isinstance(after, Mirror | Malformed)


def test_c_nodes_end_with_the_gateways_integers() -> None:
    """Goal: one set of bits in gateway and firmware.  Method: a series of blocks, shuffled, with duplicates.

    Node 1 misses the first DELTA: it must refuse the next one, and be whole after a FULL.
    """
    image = (Path(block.__file__).parent / "base_model.swm").read_bytes()
    model = node.Model(image)
    nodes = node.Nodes(2, [node.NodeConfig(i, i) for i in range(2)], image)
    mirror = Mirror(0, model.adapter(), np.stack([model.base_head(c) for c in range(CONTEXTS)]))
    draw = np.random.default_rng(3)
    now_us = 0
    for turn, kind in enumerate(
        [BlockKind.HEADS, BlockKind.DELTA, BlockKind.DELTA, BlockKind.FULL, BlockKind.DELTA]
    ):
        made = block.encode(mirror, master_near(mirror, turn, 200.0), kind, range(turn % 2, CONTEXTS))
        frames = made.frames([51, 115, 24, 222, 60][turn])
        for index in draw.permutation(len(frames) * 2):
            now_us += 1_000_000
            nodes.rx_many([0] if turn == 1 else [0, 1], now_us, 10, frames[index % len(frames)])
        mirror = made.mirror
        assert nodes.model_version[0] == mirror.version
        assert np.array_equal(nodes.adapters[0], mirror.adapter)
        assert np.array_equal(nodes.heads[0, :CONTEXTS], mirror.heads)
        assert nodes.model_version[1] == (1 if turn in (1, 2) else mirror.version)
    assert np.array_equal(nodes.adapters[1], mirror.adapter)
    assert not nodes.refused.any()


def test_frames_need_room() -> None:
    made = block.encode(mirror_of(1), mirror_of(2).master(), BlockKind.HEADS)
    with pytest.raises(ValueError, match="15 B"):
        made.frames(14)
