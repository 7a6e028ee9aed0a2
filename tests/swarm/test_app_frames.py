"""The application frames: hand-laid vectors both ways, any bytes, and the arithmetic both ends share."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.effects import Malformed
from swarm.wire import app, expert
from swarm.wire.readings import Series

VECTORS = Path(__file__).resolve().parent.parent / "vectors" / "app_frames.json"
CASES: list[dict[str, Any]] = json.loads(VECTORS.read_text(encoding="utf-8"))
VALID = [case for case in CASES if case["fields"] is not None]
REFUSED = [case for case in CASES if case["fields"] is None]
KINDS = {
    "prototypes": app.Prototypes,
    "top_k_sign": app.TopKSign,
    "top_k_int4": app.TopKInt4,
    "dense_int8": app.DenseInt8,
    "features": app.Features,
    "blocks": app.Blocks,
    "fragment": app.Fragment,
    "masked_sums": app.MaskedSums,
    "seeds": app.Seeds,
    "repair": app.Repair,
    "offer": app.Offer,
    "answer": app.Answer,
    "status": app.Status,
    "round_announce": app.RoundAnnounce,
    "round_ack": app.RoundAck,
    "block_piece": app.BlockPiece,
    "query": app.Query,
    "schedule": app.Schedule,
    "ask": expert.Ask,
    "output": expert.Output,
    "experts": expert.Experts,
    "reply": expert.Reply,
    "expert_query": expert.ExpertQuery,
    "readings": app.Readings,
    "readings_request": app.ReadingsRequest,
    "share": app.Share,
    "label": app.Label,
}
C_HASHES = [45, 165, 23, 29]  # printed by a C program with the expression of the specification
PORTS = st.sampled_from([0, 9, 10, 11, 12, 13, 255])


def decode(case: dict[str, Any]) -> app.Message | Malformed:
    decoder = app.decode_uplink if case["direction"] == "up" else app.decode_downlink
    return decoder(case["f_port"], bytes.fromhex(case["hex"]))


def message_of(entry: dict[str, Any]) -> Any:
    """The dataclass that a vector's `fields` describe."""
    entry = dict(entry)
    kind = entry.pop("kind")
    if kind == "prototypes":
        means = [app.ClassMean(m["label"], m["count"], m["scale"], tuple(m["q"])) for m in entry["classes"]]
        entry["classes"] = tuple(means)
    if "block_kind" in entry:
        entry["kind"] = entry.pop("block_kind")
    for name in ("bitmap", "piece", "slice", "input", "contribution", "descriptor"):
        if name in entry:
            entry[name] = bytes.fromhex(entry[name])
    names = (
        "indices",
        "probabilities",
        "features",
        "levels",
        "steps",
        "picks",
        "seen",
        "labels",
        "q",
        "values",
    )
    for name in names:
        if entry.get(name) is not None:
            entry[name] = tuple(entry[name])
    for name in ("humidity", "temperature"):
        if isinstance(entry.get(name), dict):
            entry[name] = Series(**{**entry[name], "values": tuple(entry[name]["values"])})
    if entry.get("sums"):
        entry["sums"] = app.SumsPlan(**entry["sums"])
    if "seeds" in entry:
        entry["seeds"] = tuple(bytes.fromhex(seed) for seed in entry["seeds"])
    if "negative" in entry:
        entry["negative"] = tuple(map(bool, entry["negative"]))
    return KINDS[kind](**entry)


@pytest.mark.parametrize("case", VALID, ids=lambda case: case["name"])
def test_valid_vectors_both_ways(case: dict[str, Any]) -> None:
    """Goal: both codecs agree bit by bit.  Method: fields -> bytes and bytes -> fields of every vector."""
    message = message_of(case["fields"])
    assert decode(case) == message
    assert app.encode(message).hex() == case["hex"]
    assert app.f_port_of(message) == case["f_port"]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case["name"])
def test_malformed_vectors_are_refused_with_their_reason(case: dict[str, Any]) -> None:
    """Goal: hostile bytes become values of a small vocabulary.  Method: every refused vector."""
    result = decode(case)
    assert isinstance(result, Malformed)
    assert result.reason == case["reason"]


def test_the_vectors_cover_every_kind_and_every_reason() -> None:
    """Goal: no message kind and no refusal goes untested."""
    assert {case["fields"]["kind"] for case in VALID} == set(KINDS)
    assert {case["reason"] for case in REFUSED} == set(app.REASONS)


@given(PORTS, st.binary(max_size=260))
def test_any_bytes_decode_to_a_message_that_encodes_back_or_to_a_reason(f_port: int, payload: bytes) -> None:
    """Goal: decode never raises and is canonical.  Method: random bytes on real and foreign ports."""
    for decoder in (app.decode_uplink, app.decode_downlink):
        result = decoder(f_port, payload)
        if isinstance(result, Malformed):
            assert result.reason in app.REASONS
        else:
            assert app.encode(result) == payload


@given(
    st.sampled_from(VALID), st.integers(0, 5000), st.integers(0, 255), st.sampled_from(["set", "cut", "grow"])
)
def test_damaged_frames_never_raise(case: dict[str, Any], at: int, value: int, how: str) -> None:
    """Goal: near-valid bytes do not slip past a check.  Method: one byte set, or a cut, or growth."""
    raw = bytearray.fromhex(case["hex"])
    if how == "set":
        raw[at % len(raw)] = value
    elif how == "cut":
        del raw[at % len(raw) :]
    else:
        raw.append(value)
    decoder = app.decode_uplink if case["direction"] == "up" else app.decode_downlink
    result = decoder(case["f_port"], bytes(raw))
    if isinstance(result, Malformed):
        assert result.reason in app.REASONS
        return
    if isinstance(result, app.Offer):  # its reserved bits mean nothing
        raw[1], raw[-1] = raw[1] & 0x3F, 0
    assert app.encode(result) == bytes(raw)


@given(st.sets(st.integers(0, 841), min_size=1, max_size=255), st.integers(0, 9), st.booleans(), st.randoms())
def test_top_k_sign_round_trip_and_size(chosen: set[int], rice_k: int, heads_only: bool, chance: Any) -> None:
    """Goal: any set of coordinates survives, and `rice_bits` tells its size in advance."""
    indices = tuple(sorted({512 + index % 330 for index in chosen} if heads_only else chosen))
    negative = tuple(chance.random() < 0.5 for _ in indices)
    update = app.TopKSign(9, 2, 1, 40, 33, rice_k, indices, negative, heads_only)
    payload = app.encode(update)
    assert app.decode_uplink(10, payload) == update
    assert len(payload) == 11 + -(-app.rice_bits(indices, rice_k, heads_only=heads_only) // 8)
    best = app.rice_k_for(indices, heads_only=heads_only)
    assert app.rice_bits(indices, best, heads_only=heads_only) <= 8 * (len(payload) - 11)


def test_a_head_alone_pays_nothing_for_the_adapter_in_front_of_it() -> None:
    """Goal: all 99 signs of a head of three classes fit into a frame at SF12, and no other index does."""
    indices = tuple(range(512, 611))
    update = app.TopKSign(9, 2, 1, 40, 33, 0, indices, (True,) * 99, heads_only=True)
    assert len(app.encode(update)) == 36
    assert len(app.encode(replace(update, heads_only=False))) == 36 + 512 // 8
    with pytest.raises(ValueError, match="valid frame"):
        app.encode(replace(update, indices=(511, *indices[1:])))


def test_sizes_that_the_design_counts_on() -> None:
    """Goal: the frames fit where the design says.  Method: encode them, compare with DR0's 51 B."""
    means = tuple(app.ClassMean(label, 5, 60, (3,) * 20) for label in range(3))
    assert len(app.encode(app.Prototypes(1, 1, 0, 15, means))) == 45
    assert len(app.encode(app.Answer(1, 0, (255, 0, 0), 1, 1, 1))) == 11
    assert len(app.encode(app.Status(0, 0, 0, 0, 0, 0, 0, 0, 0, 0))) == 16
    assert len(app.encode(app.RoundAnnounce(1, 1, 1, 255, 60, 60, 60, 60))) == 19
    assert len(app.encode(app.Query(1, 2, 0, 9, (0,) * 56))) == 62


@pytest.mark.parametrize(
    "message",
    [
        app.Answer(1, 0, (100, 100, 100), 1, 1, 1),
        app.Answer(70000, 0, (255, 0, 0), 1, 1, 1),
        app.Status(0, 0, 0, 0, 0, 0, 230, 0, 0, 0),
        app.Prototypes(1, 1, 0, 1, ()),
        app.Prototypes(1, 1, 0, 1, (app.ClassMean(0, 1, 1, (8, 0)),)),
        app.Prototypes(1, 1, 0, 1, (app.ClassMean(1, 1, 1, (0, 0)), app.ClassMean(0, 1, 1, (0, 0)))),
        app.TopKSign(1, 1, 0, 1, 1, 3, (5, 5), (True, True)),
        app.TopKSign(1, 1, 0, 1, 1, 3, (5,), ()),
        app.TopKSign(1, 1, 0, 1, 1, 3, (-1,), (True,)),
        app.RoundAnnounce(1, 1, 3, 0, 0, 0, 0, 0),
        app.RoundAnnounce(1, 1, app.ROUND_NEW_CONTEXTS | 3, 0, 0, 0, 0, 0),
        app.RoundAnnounce(1, 1, 0x40 | app.RoundMode.PROTOTYPES, 0, 0, 0, 0, 0),
        app.RoundAck(1, 0, b""),
        app.BlockPiece(1, 0, 0, 10, 0, 0, 1, b"123"),
        app.Query(1, 2, 0, 0, None),
        app.Query(1, 1, 0, 0, (0,) * 56),
        app.Query(1, 2, 0, 0, ()),
        app.Query(1, 2, 0, 0, (0,) * 217),
        app.Answer(1, 0, (255,), 1, 1, 1),
        app.Answer(1, 0, (255, *(0,) * 10), 1, 1, 1),
        app.Prototypes(1, 1, 0, 1, (app.ClassMean(10, 1, 1, (0, 0)),)),
        app.TopKSign(1, 1, 0, 1, 1, 3, (842,), (True,)),
        app.Schedule(-1, 0, 0),
    ],
    ids=repr,
)
def test_encode_refuses_what_the_protocol_cannot_say(message: app.Message) -> None:
    """Goal: a programming error stops at the encoder, not on the air."""
    with pytest.raises(ValueError):
        app.encode(message)


@given(st.binary(min_size=1, max_size=2048), st.integers(1, 255))
def test_block_pieces_join_to_the_block(block: bytes, count: int) -> None:
    """Goal: pieces carry the block and the header.  Method: cut, encode, decode, join."""
    size = -(-len(block) // count)
    if size * (count - 1) >= len(block):
        with pytest.raises(ValueError):
            app.block_pieces(2, 1, 0, block, crc32=7, count=count)
        return
    pieces = app.block_pieces(2, 1, 0, block, crc32=7, count=count)
    heard = [app.decode_downlink(10, app.encode(piece)) for piece in pieces]
    assert heard == pieces
    assert b"".join(piece.piece for piece in pieces) == block
    assert {len(piece.piece) for piece in pieces[:-1]} <= {size}


def test_hash8_is_the_c_formula_and_spreads() -> None:
    """Goal: gateway and nodes draw the same lot.  Method: numbers of the C expression; a census."""
    drawn = [app.hash8(index, 7) for index in range(4096)]
    assert [app.hash8(0, 0), app.hash8(1, 0), app.hash8(0, 1), app.hash8(999, 65535)] == C_HASHES
    assert 0.2 < sum(lot <= 63 for lot in drawn) / 4096 < 0.3
    again = [app.hash8(index, 8) for index in range(4096)]
    assert 0.04 < sum(a <= 63 and b <= 63 for a, b in zip(drawn, again, strict=True)) / 4096 < 0.09


def test_fields_stand_in_the_order_of_the_air() -> None:
    """Goal: `encode` may rely on the declaration order.  Method: compare with the vectors' own order."""
    for case in VALID:
        kind = case["fields"]["kind"]
        names = [{"block_kind": "kind"}.get(name, name) for name in list(case["fields"])[1:]]
        assert names == [field.name for field in fields(KINDS[kind])], kind
