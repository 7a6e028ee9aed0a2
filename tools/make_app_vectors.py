"""Writes tests/vectors/app_frames.json: application frames, their fields, and bytes that are no frame.

The bytes are laid out here by hand from the table in `swarm/wire/app.py`, without its encoder, so that
the file is a second opinion for the Python codec and for the C codec alike.  Each case is

    {"name", "f_port", "direction": "up" | "down", "hex", "fields": {...} | null, "reason": null | ...}

`fields` is null exactly when a receiver has to refuse the bytes; `reason` is then one of `f_port`,
`type`, `size`, `value` (what the gateway reports; a node only has to refuse).  `fields["kind"]` names
the message; byte strings are hex, booleans 0/1.  Every valid case
holds in both directions, `fields -> hex` and `hex -> fields`.

Run: python tools/make_app_vectors.py   (writes the same bytes each time)
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

from app_vector_bytes import Case, case, fixed, le, noise, numbers, packed, refused
from app_vector_experts import malformed_experts, valid_experts
from app_vector_readings import malformed_readings, valid_readings
from app_vector_sums import malformed_masks, valid_masks
from app_vector_top_k import levels_of, rice_text, top_k_head, top_k_int4, top_k_sign

TARGET = Path(__file__).resolve().parent.parent / "tests" / "vectors" / "app_frames.json"


def prototypes(name: str, head: list[int], classes: list[tuple[int, int, int, list[int]]]) -> Case:
    """Uplink 10/01; `head` = round, model_version, context, num_examples; class = label, count, scale, q."""
    mask = 0
    body = ""
    for label, count, scale, q in classes:
        mask |= 1 << label
        body += le(count, 1) + le(scale, 1)
        for even, odd in zip(q[::2], q[1::2], strict=True):
            body += f"{odd % 16:x}{even % 16:x}"
    text = "01" + le(head[0], 2) + le(head[1], 2) + le(head[2], 1) + le(head[3], 1)
    more = "" if mask < 1 << 7 else le(mask >> 7, 1)
    text += le(len(classes[0][3]), 1) + le(mask % (1 << 7) + (1 << 7 if more else 0), 1) + more + body
    fields: Case = {
        "kind": "prototypes",
        "round": head[0],
        "model_version": head[1],
        "context": head[2],
        "num_examples": head[3],
        "classes": [{"label": a, "count": b, "scale": c, "q": q} for a, b, c, q in classes],
    }
    return case(name, 10, "up", text, fields)


def dense_int8(name: str, head: list[int], steps: list[int]) -> Case:
    """Uplink 10/05; `head` = round, model_version, context, num_examples, scale_adapter, scale_head."""
    text = "05" + "".join(le(value, size) for value, size in zip(head, [2, 2, 1, 1, 2, 2], strict=True))
    names = ("round", "model_version", "context", "num_examples", "scale_adapter", "scale_head")
    fields: Case = {"kind": "dense_int8", **dict(zip(names, head, strict=True)), "steps": steps}
    return case(name, 10, "up", text + "".join(le(step, 1) for step in steps), fields)


def nibbles(values: list[int]) -> str:
    """Two in a byte, the first one low; a last half byte is 0."""
    padded = values + [0] * (len(values) % 2)
    return "".join(f"{padded[i + 1] % 16:x}{padded[i] % 16:x}" for i in range(0, len(padded), 2))


def features(name: str, head: list[int], labels: list[int], q: list[int]) -> Case:
    """Uplink 10/06; `head` = round, model_version, context, scale."""
    names = ("round", "model_version", "context", "num_examples", "scale", "labels", "q")
    text = "06" + le(head[0], 2) + le(head[1], 2) + le(head[2], 1) + le(len(labels), 1) + le(head[3], 1)
    values = (*head[:3], len(labels), head[3], labels, q)
    fields: Case = {"kind": "features", **dict(zip(names, values, strict=True))}
    return case(name, 10, "up", text + nibbles(labels) + nibbles(q), fields)


def chunks(name: str, head: list[int], steps: list[int]) -> Case:
    """Uplink 10/07; `head` = round, model_version, context, num_examples, the two scales, first."""
    text = "07" + "".join(le(value, size) for value, size in zip(head, [2, 2, 1, 1, 2, 2, 1], strict=True))
    names = ("round", "model_version", "context", "num_examples", "scale_adapter", "scale_head", "first")
    fields: Case = {"kind": "blocks", **dict(zip(names, head, strict=True)), "steps": steps}
    return case(name, 10, "up", text + nibbles(steps), fields)


def seen_cases() -> list[Case]:
    """Samples and blocks."""
    q32 = [x - 8 for x in noise(32, 16, 2)]
    return [
        features("features_one", [1, 0, 0, 1], [2], q32),
        features("features_three", [65535, 3, 7, 255], [0, 9, 1], [x - 8 for x in noise(96, 16, 21)]),
        features("features_twelve", [7, 3, 1, 40], noise(12, 3, 22), [x - 8 for x in noise(384, 16, 23)]),
        chunks("blocks_first", [5, 2, 1, 40, 3, 0, 0], [x - 8 for x in noise(64, 16, 24)]),
        chunks("blocks_six", [5, 2, 1, 40, 3, 9, 4], [x - 8 for x in noise(384, 16, 25)]),
        chunks("blocks_of_the_head", [5, 65535, 7, 1, 0, 65535, 9], [7, -8] * 17 + [1] + [0] * 29),
        chunks("blocks_end_of_ten_classes", [5, 2, 0, 9, 0, 1, 13], [1] * 10 + [0] * 54),
    ]


def refused_seen() -> list[Case]:
    """Samples and blocks that say what the protocol cannot."""
    seen, some = "06" + "0100" + "0100" + "00", "07" + "0100" + "0100" + "00" + "01"
    return [
        refused("features_cut_in_head", 10, "up", "0601000100", "size"),
        refused("features_none", 10, "up", seen + "0001", "value"),
        refused("features_one_byte_short", 10, "up", seen + "0101" + "02" + "00" * 15, "size"),
        refused("features_class_10", 10, "up", seen + "0101" + "0a" + "00" * 16, "value"),
        refused("features_half_byte_set", 10, "up", seen + "0101" + "12" + "00" * 16, "value"),
        refused("features_context_8", 10, "up", "0601000100" + "080101" + "00" * 17, "value"),
        refused("blocks_no_chunk", 10, "up", some + "0100010000", "size"),
        refused("blocks_half_a_chunk", 10, "up", some + "0100010000" + "00" * 16, "size"),
        refused("blocks_says_nothing", 10, "up", some + "0000000000" + "00" * 32, "value"),
        refused("blocks_adapter_without_scale", 10, "up", some + "0000010000" + "01" * 32, "value"),
        refused("blocks_head_without_scale", 10, "up", some + "0100000008" + "01" * 32, "value"),
        refused("blocks_behind_the_vector", 10, "up", some + "010001000e" + "00" * 32, "value"),
        refused("blocks_pad_set", 10, "up", some + "010001000d" + "11" * 6 + "00" * 26, "value"),
    ]


def fragment(name: str, head: list[int], data: bytes) -> Case:
    """Uplink 10/03; `head` = round, mode, index, count."""
    text = "03" + le(head[0], 2) + "".join(le(value, 1) for value in head[1:]) + data.hex()
    names = ("round", "mode", "index", "count")
    fields: Case = {"kind": "fragment", **dict(zip(names, head, strict=True)), "slice": data.hex()}
    return case(name, 10, "up", text, fields)


def answer(name: str, query_id: int, context: int, p: list[int], tail: list[int]) -> Case:
    """Uplink 11/01; `tail` = head_version, age, flags."""
    text = "01" + le(query_id, 2) + le(context, 1) + "".join(le(x, 1) for x in p)
    text += le(tail[0], 2) + le(tail[1], 1) + le(tail[2], 1)
    fields: Case = {
        "kind": "answer",
        "query_id": query_id,
        "context": context,
        "probabilities": p,
        "head_version": tail[0],
        "age": tail[1],
        "flags": tail[2],
    }
    return case(name, 11, "up", text, fields)


STATUS = [
    ("model_version", 2),
    ("model_id", 2),
    ("battery", 1),
    ("labelled", 1),
    ("flags", 1),
    ("temperature_centi", 2),
    ("humidity_half", 1),
    ("rain_tenth", 2),
    ("risk", 1),
    ("multicast_received", 1),
]
ROUND = [
    ("round", 2),
    ("model_version", 2),
    ("mode", 1),
    ("cohort", 1),
    ("spread_s", 2),
    ("close_in_s", 4),
    ("next_window_s", 4),
    ("window_s", 2),
]
SCHEDULE = [("next_window_s", 4), ("window_s", 2), ("status_period_min", 2), ("round", 2)]


LABEL = [("label", 1), ("by_id", 1), ("value", 2)]


def label(name: str, values: list[int]) -> Case:
    """Downlink 12/04."""
    return fixed(name, "down", "12:04", "label", numbers(LABEL, values))


def status(name: str, values: list[int]) -> Case:
    """Uplink 12/01; `serves` stands behind the others and takes no byte when it is 0."""
    layout = [*STATUS, ("serves", 1)] if len(values) > len(STATUS) else STATUS
    made = fixed(name, "up", "12:0101", "status", numbers(layout, values))
    made["fields"].setdefault("serves", 0)
    return made


SUMS_PLAN = [
    ("samples_max", 1),
    ("bits", 1),
    ("shift_linear", 1),
    ("shift_square", 1),
    ("clip", 2),
    ("sigma_count", 2),
    ("sigma_linear", 2),
    ("sigma_square", 2),
    ("releases_max", 1),
]


def announce(name: str, values: list[int], plan: list[int] | None = None) -> Case:
    """Downlink 10/01, with the plan of masked sums in that mode."""
    made = fixed(name, "down", "10:01", "round_announce", numbers(ROUND, values))
    layout = [] if plan is None else numbers(SUMS_PLAN, plan)
    fields = made["fields"]
    assert isinstance(fields, dict)
    fields["sums"] = {field: value for field, _, value in layout} or None
    made["hex"] = f"{made['hex']}" + "".join(le(value, size) for _, size, value in layout)
    return made


def repair(name: str, values: list[int]) -> Case:
    """Downlink 10/04."""
    return fixed(
        name, "down", "10:04", "repair", numbers([("round", 2), ("group", 2), ("received", 2)], values)
    )


def offer(name: str, control: int, counts: list[int], descriptor: str, spans: list[int]) -> Case:
    """Downlink 10/05; `counts` = NbFrag, FragSize, padding, `spans` = start and length in s."""
    layout = numbers([("nb_frag", 2), ("frag_size", 1), ("padding", 1)], counts)
    text = "05" + le(control, 1) + "".join(le(value, size) for _, size, value in layout) + descriptor
    fields: Case = {
        "kind": "offer",
        "index": control % 4,
        "block_ack_delay": control // 4 % 8,
        "version": 1 + control // 32,
        **{field: value for field, _, value in layout},
        "descriptor": descriptor,
        "start_in_s": spans[0],
        "length_s": spans[1],
    }
    return case(name, 10, "down", text + le(spans[0], 2) + le(spans[1], 2) + "00", fields)


def schedule(name: str, values: list[int]) -> Case:
    """Downlink 12/01."""
    made = fixed(name, "down", "12:01", "schedule", numbers(SCHEDULE[: len(values)], values))
    made["fields"].setdefault("round", None)
    return made


def ack(name: str, number: int, first: int, bitmap: bytes) -> Case:
    """Downlink 10/02."""
    fields: Case = {"kind": "round_ack", "round": number, "first_index": first, "bitmap": bitmap.hex()}
    return case(name, 10, "down", "02" + le(number, 2) + le(first, 2) + bitmap.hex(), fields)


def block_text(head: list[int], piece: bytes) -> str:
    """The bytes of a block piece; `head` = version, base_version, kind, length, crc32, index, count."""
    sizes = [2, 2, 1, 2, 4, 1, 1]
    return "03" + "".join(le(value, size) for value, size in zip(head, sizes, strict=True)) + piece.hex()


def blocks(name: str, versions: tuple[int, int], kind: int, data: bytes, count: int) -> list[Case]:
    """Downlink 10/03: every piece of one block; `versions` = version, base_version."""
    version, base = versions
    size = -(-len(data) // count)
    crc = zlib.crc32(data)
    cases = []
    for index in range(count):
        piece = data[index * size : index * size + size]
        head = [version, base, kind, len(data), crc, index, count]
        fields: Case = {
            "kind": "block_piece",
            "version": version,
            "base_version": base,
            "block_kind": kind,
            "length": len(data),
            "crc32": crc,
            "index": index,
            "count": count,
            "piece": piece.hex(),
        }
        cases.append(case(f"{name}_{index}_of_{count}", 10, "down", block_text(head, piece), fields))
    return cases


def query(name: str, head: list[int], features: list[int] | None) -> Case:
    """Downlink 11/01; `head` = query_id, flags, context, reply_in_s."""
    text = "01" + le(head[0], 2) + le(head[1], 1) + le(head[2], 1) + le(head[3], 1)
    text += "".join(le(x, 1) for x in features or [])
    names = ("query_id", "flags", "context", "reply_in_s")
    fields: Case = {"kind": "query", **dict(zip(names, head, strict=True)), "features": features}
    return case(name, 11, "down", text, fields)


def valid_uplinks() -> list[Case]:
    """Frames that nodes send, the edges of every field included."""
    q20 = [x - 8 for x in noise(60, 16, 1)]
    q32 = [x - 8 for x in noise(32, 16, 2)]
    three = [(0, 9, 40, q20[:20]), (1, 4, 77, q20[20:40]), (2, 255, 255, q20[40:])]
    sparse = sorted(set(noise(60, 611, 3)))
    signs = noise(len(sparse), 2, 4)
    few = sorted(set(noise(12, 611, 5)))
    return [
        prototypes("prototypes_dr0_full", [7, 3, 1, 30], three),
        prototypes("prototypes_one_class_32_dims", [1, 0, 0, 1], [(1, 1, 1, q32)]),
        prototypes(
            "prototypes_two_dims_extremes", [65535, 65535, 7, 255], [(0, 1, 255, [-8, 7]), (2, 1, 0, [7, -8])]
        ),
        prototypes("prototypes_high_only_zeros", [2, 5, 3, 12], [(2, 12, 0, [0] * 20)]),
        prototypes("prototypes_seven_classes", [7, 3, 1, 7], [(c, 1, c, q20[c : c + 4]) for c in range(7)]),
        prototypes("prototypes_second_mask_byte", [7, 3, 1, 9], [(0, 4, 9, q20[:16]), (7, 5, 8, q20[16:32])]),
        prototypes("prototypes_second_mask_byte_only", [7, 3, 1, 2], [(9, 2, 200, q32)]),
        prototypes("prototypes_ten_classes", [7, 3, 1, 20], [(c, 2, 99, q20[c : c + 8]) for c in range(10)]),
        top_k_sign("top_k_typical", [12, 4, 2, 25, 37], 3, sparse, signs),
        top_k_sign("top_k_few_k5", [12, 4, 2, 25, 65535], 5, few, noise(len(few), 2, 6)),
        top_k_sign("top_k_first_coordinate", [1, 1, 0, 1, 1], 0, [0], [0]),
        top_k_sign("top_k_last_coordinate_k9", [1, 1, 0, 1, 1], 9, [610], [1]),
        top_k_sign("top_k_last_coordinate_k0", [1, 1, 0, 1, 0], 0, [610], [1]),
        top_k_sign("top_k_both_ends", [1, 1, 0, 1, 1], 6, [0, 610], [1, 0]),
        top_k_sign("top_k_last_coordinate_of_ten_classes", [1, 1, 0, 1, 1], 9, [0, 841], [0, 1]),
        top_k_sign("top_k_dense_255", [3, 2, 1, 64, 9], 0, list(range(255)), noise(255, 2, 7)),
        top_k_sign("top_k_ends_on_a_byte", [3, 2, 1, 64, 9], 2, [1, 5], [1, 0]),
        top_k_sign("top_k_whole_head", [3, 2, 1, 64, 9], 0, list(range(512, 611)), noise(99, 2, 8), True),
        top_k_sign("top_k_heads_only", [3, 2, 1, 64, 9], 1, [513, 841], [1, 0], True),
        top_k_int4("top_k_int4_typical", [12, 4, 2, 25, 37], 3, sparse, levels_of(len(sparse), 17)),
        top_k_int4("top_k_int4_extremes", [1, 65535, 7, 255, 4096], 9, [0, 1, 841], [8, -8, -1]),
        top_k_int4("top_k_int4_one", [1, 1, 0, 1, 1], 0, [0], [1]),
        top_k_int4("top_k_int4_heads_only", [1, 1, 0, 1, 2], 1, [512, 515, 610], [8, -8, 3], True),
        dense_int8("dense_three_classes", [5, 2, 1, 40, 3, 7], [x - 128 for x in noise(611, 256, 18)]),
        dense_int8("dense_head_only", [5, 2, 1, 40, 0, 7], [x - 128 for x in noise(99, 256, 19)]),
        dense_int8("dense_adapter_with_resting_head", [5, 2, 0, 1, 1, 0], [1, -1] * 256 + [0] * 66),
        dense_int8("dense_ten_classes", [65535, 0, 7, 255, 65535, 65535], [127, -128] * 421),
        *seen_cases(),
        fragment("fragment_first", [5, 5, 0, 14], bytes(noise(45, 256, 20))),
        fragment("fragment_last_of_64", [65535, 1, 63, 64], b"\x00"),
        answer("answer_plain", 513, 1, [200, 50, 5], [9, 3, 1]),
        answer("answer_certain_unknown_age", 65535, 0, [0, 0, 255], [65535, 255, 0]),
        answer("answer_all_flags", 0, 7, [85, 85, 85], [0, 0, 7]),
        answer("answer_reserved_flags_kept", 1, 3, [255, 0, 0], [1, 6, 0xF9]),
        answer("answer_two_classes", 2, 1, [250, 5], [9, 3, 1]),
        answer("answer_ten_classes", 3, 1, [0, 1, 2, 3, 4, 5, 6, 7, 8, 219], [9, 255, 0]),
        status("status_plain", [3, 48879, 200, 14, 0, 2156, 131, 42, 0b01_101010, 17]),
        status("status_freezing", [3, 1, 1, 0, 4, -1275, 200, 0, 0, 0]),
        status("status_nothing_known", [0, 0, 255, 0, 0b1111, -32768, 255, 65535, 255, 255]),
        status("status_serves_the_rule", [3, 48879, 200, 14, 0, 2156, 131, 42, 0b01_101010, 17, 0x0C]),
        status("status_hot_external_power", [65535, 65535, 0, 255, 255, 32767, 0, 65534, 191, 128]),
        *valid_readings("up"),
        *valid_experts("up"),
    ]


def valid_downlinks() -> list[Case]:
    """Frames that the gateway sends."""
    heads = bytes(noise(101, 256, 8))
    delta = bytes(noise(3 + 306, 256, 9))
    full = bytes(noise(914, 256, 10))
    biggest = bytes(noise(2048, 256, 11))
    return [
        announce("round_prototypes_all", [7, 3, 1, 255, 600, 86400, 43200, 60]),
        announce("round_top_k_some", [8, 4, 2, 25, 3600, 604800, 86400, 300]),
        announce("round_top_k_int4", [12, 4, 4, 255, 600, 86400, 43200, 60]),
        announce("round_dense_new_contexts", [13, 4, 0x85, 255, 600, 86400, 43200, 60]),
        announce("round_masked", [14, 3, 8, 255, 600, 86400, 43200, 60], [24, 12, 5, 12, 0, 0, 0, 0, 0]),
        announce(
            "round_masked_noisy",
            [15, 3, 0x88, 15, 600, 86400, 43200, 60],
            [64, 16, 1, 9, 143, 7, 212, 4095, 1],
        ),
        repair("repair_six_of_seven", [14, 3, 0x6F]),
        repair("repair_extremes", [65535, 65535, 65535]),
        offer("offer_20_kb", 32 + 4 * 4, [179, 112, 48], "c0ffee01", [840, 3600]),
        offer("offer_runs_version_1", 3 + 4 * 7, [1, 48, 0], "00000000", [0, 1]),
        offer("offer_largest", 63, [65535, 255, 254], "ffffffff", [65535, 65535]),
        announce("round_none", [0, 0, 0, 0, 0, 0, 0, 0]),
        announce("round_prototypes_new_contexts", [9, 4, 0x81, 255, 600, 86400, 43200, 60]),
        announce("round_top_k_new_contexts", [10, 5, 0x82, 127, 3600, 14400, 28800, 900]),
        announce("round_none_new_contexts", [11, 5, 0x80, 0, 0, 0, 28800, 900]),
        announce("round_largest", [65535, 65535, 2, 255, 65535, 2**32 - 1, 2**32 - 1, 65535]),
        ack("ack_one_byte", 7, 0, b"\x81"),
        ack("ack_nobody", 7, 40, b"\x00\x00"),
        ack("ack_many", 65535, 65528, bytes(noise(46, 256, 12))),
        *blocks("block_heads", (4, 0xFFFF), 0, heads, 3),
        *blocks("block_delta", (5, 4), 1, delta, 9),
        *blocks("block_full_dr3", (6, 0xFFFF), 2, full, 10)[::3],
        *blocks("block_biggest", (65535, 65534), 2, biggest, 10)[8:],
        *blocks("block_largest", (65535, 65534), 2, bytes(noise(3264, 256, 15)), 20)[18:],
        *blocks("block_one_byte", (1, 0), 0, b"\x5a", 1),
        *blocks("block_255_pieces", (9, 8), 1, bytes(noise(255, 256, 13)), 255)[253:],
        query("query_own_readings", [513, 1, 255, 60], None),
        query("query_features", [514, 2, 1, 0], [x - 128 for x in noise(56, 256, 14)]),
        query("query_one_feature", [515, 2, 1, 0], [-1]),
        query("query_216_features", [516, 2, 1, 0], [x - 128 for x in noise(216, 256, 16)]),
        query("query_both_edges", [65535, 0xFF, 7, 255], [-128, 127] * 28),
        query("query_neither", [0, 0, 0, 0], None),
        schedule("schedule_plain", [7200, 60, 60]),
        schedule("schedule_largest", [2**32 - 1, 65535, 65535]),
        schedule("schedule_zero", [0, 0, 0]),
        schedule("schedule_of_masked_sums", [7200, 60, 60, 40961]),
        schedule("schedule_before_the_first_round", [7200, 60, 60, 0]),
        label("label_of_a_day", [2, 0, 30]),
        label("label_of_an_observation", [9, 1, 65535]),
        label("label_of_the_running_noon", [0, 0, 0]),
        *valid_readings("down"),
        *valid_experts("down"),
    ]


def malformed_offers() -> list[Case]:
    """OFFERs of no session."""
    return [
        refused("offer_one_byte_short", 10, "down", "0500" + "0100" + "3000" + "00" * 8, "size"),
        refused("offer_one_byte_long", 10, "down", "0500" + "0100" + "3000" + "00000000000001000000", "size"),
        refused("offer_no_pieces", 10, "down", "0500" + "0000" + "3000" + "000000000000010000", "value"),
        refused("offer_all_padding", 10, "down", "0500" + "0100" + "3030" + "000000000000010000", "value"),
        refused("offer_no_length", 10, "down", "0500" + "0100" + "3000" + "000000000000000000", "value"),
    ]


def malformed_uplinks() -> list[Case]:
    """Bytes that the gateway has to refuse."""
    proto = "01" + "0700" + "0300" + "01" + "1e"
    top = [1, 1, 0, 1, 1]
    good_status = "0101" + "0300" + "0100" + "c80e00" + "6c08" + "83" + "2a00" + "6a" + "11"
    return [
        refused("port_without_frames", 13, "up", "01", "f_port"),
        refused("port_200_is_not_ours", 200, "down", "01", "f_port"),
        refused("empty_up", 10, "up", "", "size"),
        refused("empty_down", 12, "down", "", "size"),
        refused("type_0_up", 10, "up", "00", "type"),
        refused("type_63_up", 10, "up", "3f" + "00" * 20, "type"),
        refused("type_9_on_11_up", 11, "up", "09" + "00" * 10, "type"),
        refused("type_5_on_12_up", 12, "up", "05" + "00" * 10, "type"),
        refused("type_4_on_11_down", 11, "down", "04" + "00" * 10, "type"),
        *malformed_experts(),
        refused("type_6_down", 10, "down", "06" + "00" * 20, "type"),
        *malformed_offers(),
        refused("type_255_down", 12, "down", "ff", "type"),
        refused("prototypes_cut_in_head", 10, "up", "010700", "size"),
        refused("prototypes_no_class", 10, "up", proto + "14" + "00", "value"),
        refused("prototypes_class_10", 10, "up", proto + "02" + "8008" + "010100", "value"),
        refused("prototypes_third_mask_byte", 10, "up", proto + "02" + "8081" + "010100", "value"),
        refused("prototypes_empty_second_mask", 10, "up", proto + "02" + "8100" + "010100", "value"),
        refused("prototypes_no_second_mask", 10, "up", proto + "02" + "81", "size"),
        refused("prototypes_two_classes_one_mean", 10, "up", proto + "02" + "8101" + "010100", "size"),
        refused("prototypes_odd_dims", 10, "up", proto + "03" + "01" + "01010000", "value"),
        refused("prototypes_no_dims", 10, "up", proto + "00" + "01" + "0101", "value"),
        refused("prototypes_34_dims", 10, "up", proto + "22" + "01" + "0101" + "00" * 17, "value"),
        refused("prototypes_count_0", 10, "up", proto + "02" + "01" + "000100", "value"),
        refused("prototypes_no_examples", 10, "up", "010700030001" + "00" + "02" + "01" + "010100", "value"),
        refused("prototypes_context_8", 10, "up", "010700030008" + "01" + "02" + "01" + "010100", "value"),
        refused("prototypes_one_byte_short", 10, "up", proto + "14" + "01" + "0101" + "00" * 9, "size"),
        refused("prototypes_one_byte_long", 10, "up", proto + "14" + "01" + "0101" + "00" * 11, "size"),
        refused("top_k_cut_in_head", 10, "up", "0201000100", "size"),
        refused("top_k_no_bits", 10, "up", top_k_head(top, 0, 1), "size"),
        refused("top_k_count_0", 10, "up", top_k_head(top, 0, 0) + "00", "value"),
        refused("top_k_rice_k_10", 10, "up", top_k_head(top, 10, 1) + "0000", "value"),
        refused(
            "top_k_beyond_last", 10, "up", top_k_head(top, 9, 1) + packed(rice_text([842], [0], 9)), "value"
        ),
        refused("top_k_endless_ones", 10, "up", top_k_head(top, 0, 1) + "ff" * 90, "size"),
        refused("top_k_far_beyond", 10, "up", top_k_head(top, 9, 1) + "ff" * 40 + "0000", "value"),
        refused("top_k_cut_in_low_bits", 10, "up", top_k_head(top, 9, 1) + "00", "size"),
        refused(
            "top_k_one_coordinate_missing",
            10,
            "up",
            top_k_head(top, 4, 3) + packed(rice_text([1, 2], [0, 0], 4)),
            "size",
        ),
        refused("top_k_padding_set", 10, "up", top_k_head(top, 0, 1) + "01", "value"),
        refused("top_k_spare_byte", 10, "up", top_k_head(top, 0, 1) + "0000", "size"),
        refused("top_k_context_8", 10, "up", top_k_head([1, 1, 8, 1, 1], 0, 1) + "00", "value"),
        refused("answer_short", 11, "up", "010102" + "00" * 6, "size"),
        refused("answer_long", 11, "up", "010102" + "00" * 16, "size"),
        refused("answer_sum_254", 11, "up", "01" + "0100" + "01" + "fe0000" + "0100" + "00" + "00", "value"),
        refused("answer_sum_256", 11, "up", "01" + "0100" + "01" + "ff0100" + "0100" + "00" + "00", "value"),
        refused("answer_four_classes_254", 11, "up", "0101000101fc01000100" + "0000", "value"),
        refused("answer_sum_0", 11, "up", "01" + "0100" + "01" + "000000" + "0100" + "00" + "00", "value"),
        refused(
            "answer_context_255", 11, "up", "01" + "0100" + "ff" + "ff0000" + "0100" + "00" + "00", "value"
        ),
        refused("status_short", 12, "up", good_status[:-2], "size"),
        refused("status_long", 12, "up", good_status + "0c00", "size"),
        refused("status_serves_needs_no_byte", 12, "up", good_status + "00", "value"),
        refused("status_protocol_2", 12, "up", "0102" + good_status[4:], "value"),
        refused("status_humidity_201", 12, "up", good_status[:22] + "c9" + good_status[24:], "value"),
    ]


def malformed_changes() -> list[Case]:
    """Changes and fragments that the gateway has to refuse."""
    top = [1, 1, 0, 1, 1]
    dense = "05" + "0100" + "0100" + "00" + "01"
    return [
        refused("top_k_int4_cut_in_level", 10, "up", "04" + top_k_head(top, 5, 1)[2:] + "00", "size"),
        refused("top_k_int4_spare_byte", 10, "up", "04" + top_k_head(top, 0, 1)[2:] + "0000", "size"),
        refused("top_k_int4_padding_set", 10, "up", "04" + top_k_head(top, 0, 1)[2:] + "01", "value"),
        refused("top_k_int4_one_missing", 10, "up", "04" + top_k_head(top, 0, 2)[2:] + "00", "size"),
        refused(
            "top_k_int4_no_examples",
            10,
            "up",
            "04" + top_k_head([1, 1, 0, 0, 1], 0, 1)[2:] + "00",
            "value",
        ),
        *refused_seen(),
        refused("dense_cut_in_head", 10, "up", "0501000100", "size"),
        refused("dense_no_steps", 10, "up", dense + "01000100", "size"),
        refused("dense_one_step_short", 10, "up", dense + "01000100" + "00" * 610, "size"),
        refused("dense_adapter_alone", 10, "up", dense + "01000100" + "00" * 512, "size"),
        refused("dense_head_of_one_class", 10, "up", dense + "00000100" + "00" * 33, "size"),
        refused("dense_head_of_eleven_classes", 10, "up", dense + "00000100" + "00" * 363, "size"),
        refused("dense_says_nothing", 10, "up", dense + "00000000" + "00" * 99, "value"),
        refused("dense_context_8", 10, "up", "0501000100" + "0801" + "00000100" + "00" * 99, "value"),
        refused("fragment_without_slice", 10, "up", "030100050002", "size"),
        refused("fragment_cut_in_head", 10, "up", "030100", "size"),
        refused("fragment_of_one", 10, "up", "030100050001" + "00", "value"),
        refused("fragment_of_65", 10, "up", "030100050041" + "00", "value"),
        refused("fragment_index_is_count", 10, "up", "030100050202" + "00", "value"),
        refused("fragment_of_no_mode", 10, "up", "030100000002" + "00", "value"),
        refused("fragment_of_a_fragment", 10, "up", "030100030002" + "00", "value"),
        refused("fragment_of_unknown_mode", 10, "up", "0301003f0002" + "00", "value"),
    ]


def malformed_downlinks() -> list[Case]:
    """Bytes that a node has to refuse."""
    piece = [4, 3, 1, 10, 1, 0, 2]
    return [
        refused("round_short", 10, "down", "01" + "00" * 17, "size"),
        refused("round_long", 10, "down", "01" + "00" * 19, "size"),
        refused("round_mode_9", 10, "down", "01" + "0700" + "0300" + "09" + "00" * 13, "value"),
        refused("round_mode_3", 10, "down", "01" + "0700" + "0300" + "03" + "00" * 13, "value"),
        refused("round_mode_3_new_contexts", 10, "down", "01" + "0700" + "0300" + "83" + "00" * 13, "value"),
        refused("round_mode_unknown_flag", 10, "down", "01" + "0700" + "0300" + "90" + "00" * 13, "value"),
        refused("round_mode_another_flag", 10, "down", "01" + "0700" + "0300" + "41" + "00" * 13, "value"),
        refused("ack_without_bitmap", 10, "down", "02" + "0700" + "0000", "size"),
        refused("block_without_piece", 10, "down", block_text(piece, b""), "size"),
        refused("block_cut_in_head", 10, "down", block_text(piece, b"")[:-2], "size"),
        refused("block_piece_short", 10, "down", block_text(piece, b"1234"), "value"),
        refused("block_piece_long", 10, "down", block_text(piece, b"123456"), "value"),
        refused("block_index_is_count", 10, "down", block_text([4, 3, 1, 10, 1, 2, 2], b"12345"), "value"),
        refused("block_count_0", 10, "down", block_text([4, 3, 1, 10, 1, 0, 0], b"12345"), "value"),
        refused("block_length_0", 10, "down", block_text([4, 3, 1, 0, 1, 0, 1], b"1"), "value"),
        refused("block_length_3265", 10, "down", block_text([4, 3, 1, 3265, 1, 0, 100], b"1" * 33), "value"),
        refused("block_kind_3", 10, "down", block_text([4, 3, 3, 5, 1, 0, 1], b"12345"), "value"),
        refused("block_last_piece_empty", 10, "down", block_text([4, 3, 1, 5, 1, 0, 4], b"12"), "value"),
        refused("block_last_piece_long", 10, "down", block_text([4, 3, 1, 9, 1, 1, 2], b"12345"), "value"),
        refused("query_short", 11, "down", "01010001ff", "size"),
        refused("query_features_missing", 11, "down", "0101000201" + "00", "size"),
        refused("query_217_features", 11, "down", "0101000201" + "00" + "01" * 217, "size"),
        refused("query_features_unannounced", 11, "down", "0101000101" + "00" + "01" * 56, "size"),
        refused("query_context_8", 11, "down", "01" + "0100" + "01" + "08" + "00", "value"),
        refused("label_short", 12, "down", "04010000", "size"),
        refused("label_long", 12, "down", "040100000000", "size"),
        refused("label_10", 12, "down", "040a000000", "value"),
        refused("label_by_2", 12, "down", "0401020000", "value"),
        refused("schedule_short", 12, "down", "01" + "00" * 7, "size"),
        refused("schedule_long", 12, "down", "01" + "00" * 9, "size"),
        refused("schedule_longer", 12, "down", "01" + "00" * 11, "size"),
    ]


def text() -> str:
    """The whole file."""
    cases = (
        valid_uplinks()
        + valid_downlinks()
        + malformed_uplinks()
        + malformed_changes()
        + malformed_downlinks()
        + valid_masks()
        + malformed_masks()
    )
    cases += malformed_readings("up") + malformed_readings("down")
    names = [str(entry["name"]) for entry in cases]
    if len(set(names)) != len(names):
        raise ValueError("two cases have the same name")
    return "[\n" + ",\n".join(json.dumps(entry) for entry in cases) + "\n]\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
    print(f"{TARGET}: {len(json.loads(text()))} cases")
