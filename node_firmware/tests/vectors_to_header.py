"""Turns tests/vectors/app_frames.json into the C tables that test_frame.c compares with.

    python3 vectors_to_header.py ../../tests/vectors/app_frames.json app_frames.h

Uplinks become values to encode with the bytes to get, downlinks bytes to decode with the values to get, and
refused downlinks bytes alone.  Standard library only, so that the C tests need no Python packages.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Case = dict[str, Any]

DIMS_MAX = 32
CLASSES_MAX = 10
NEW_CONTEXTS = 0x80

HEAD = """/* Made by vectors_to_header.py from tests/vectors/app_frames.json: do not edit. */
#include "swn_frame.h"

typedef struct swn_readings_vector {
    swn_readings_t readings;
    uint8_t humidity_step;
    uint8_t temperature_step;
} swn_readings_vector_t;

typedef struct swn_vector_bytes {
    const char *name;
    size_t size;
    uint8_t f_port;
    uint8_t bytes[1024];
} swn_vector_bytes_t;

typedef struct swn_top_k_vector {
    swn_top_k_header_t header;
    uint16_t indices[255];
    int8_t steps[255];
} swn_top_k_vector_t;

typedef struct swn_masked_vector {
    swn_masked_header_t header;
    size_t count;
    uint16_t values[420];
} swn_masked_vector_t;
"""


def braces(values: list[int]) -> str:
    """A C initialiser of numbers."""
    return "{" + ", ".join(str(int(value)) for value in values) + "}"


def designated(fields: Case, names: list[str]) -> str:
    """A C initialiser that names its members."""
    return ", ".join(f".{name} = {fields[name]}" for name in names)


def prototypes(fields: Case) -> str:
    """`swn_prototypes_t`."""
    means = {mean["label"]: mean for mean in fields["classes"]}
    rows = []
    for label in range(CLASSES_MAX):
        mean = means.get(label, {"count": 0, "scale": 0, "q": [0]})
        rows.append(f"{{{mean['count']}, {mean['scale']}, {braces(mean['q'])}}}")
    names = ["round", "model_version", "context", "num_examples"]
    dims = len(fields["classes"][0]["q"])
    return f"{designated(fields, names)}, .dims = {dims}, .means = {{{', '.join(rows)}}}"


def top_k(fields: Case) -> str:
    """`swn_top_k_vector_t`."""
    names = ["round", "model_version", "context", "num_examples", "magnitude", "rice_k", "heads_only"]
    header = (
        f"{{{designated(fields, names)}, .mode = SWN_MODE_TOP_K_SIGN, .count = {len(fields['indices'])}}}"
    )
    steps = [1 - 2 * sign for sign in fields["negative"]]
    return f"{header}, {braces(fields['indices'])}, {braces(steps)}"


def top_k_int4(fields: Case) -> str:
    """`swn_top_k_vector_t`, in which the magnitude is that of one level."""
    names = ["round", "model_version", "context", "num_examples", "rice_k", "heads_only"]
    header = f"{designated(fields, names)}, .magnitude = {fields['scale']}, .mode = SWN_MODE_TOP_K_INT4"
    count = len(fields["indices"])
    return f"{{{header}, .count = {count}}}, {braces(fields['indices'])}, {braces(fields['levels'])}"


def fragment(fields: Case) -> str:
    """`swn_fragment_t`; the test takes the slice from the bytes behind the header."""
    size = len(fields["slice"]) // 2
    return f"{designated(fields, ['round', 'mode', 'index', 'count'])}, .slice_size = {size}"


def answer(fields: Case) -> str:
    """`swn_answer_t`."""
    names = ["query_id", "context", "head_version", "age", "flags"]
    shares = fields["probabilities"]
    return f"{designated(fields, names)}, .classes = {len(shares)}, .probabilities = {braces(shares)}"


def plain(*names: str) -> Callable[[Case], str]:
    """A struct whose members are the fields."""
    return lambda fields: designated(fields, list(names))


def schedule(fields: Case) -> str:
    """`swn_schedule_t`, in which a round that is not said is 0."""
    said = {**fields, "round": fields["round"] or 0}
    return designated(said, ["next_window_s", "window_s", "status_period_min", "round"])


def piece(fields: Case) -> str:
    """`swn_piece_t`; the test compares the piece with the bytes behind the header."""
    names = ["version", "base_version", "length", "crc32", "index", "count"]
    tail = f".kind = {fields['block_kind']}, .piece_size = {len(fields['piece']) // 2}"
    return f"{designated(fields, names)}, {tail}"


def announcement(fields: Case) -> str:
    """`swn_round_t`, where the flag of the mode byte stands apart from the mode."""
    names = ["round", "model_version", "cohort", "spread_s", "close_in_s", "next_window_s", "window_s"]
    mode = f".mode = {fields['mode'] & ~NEW_CONTEXTS}, .new_contexts = {int(fields['mode'] >= NEW_CONTEXTS)}"
    plan = fields["sums"]
    sums = "" if plan is None else f", .sums = {{{designated(plan, list(plan))}}}"
    return f"{designated(fields, names)}, {mode}{sums}"


def masked_sums(fields: Case) -> str:
    """`swn_masked_vector_t`."""
    names = [name for name in fields if name not in ("kind", "values")]
    return f"{{{designated(fields, names)}}}, {len(fields['values'])}, {braces(fields['values'])}"


def readings(fields: Case) -> str:
    """`swn_readings_vector_t`: values in the quantities' units, at their hours."""
    parts, steps, content = [], [], 0 if fields["rainy"] is None else 2
    for name, bit, top in (("humidity", 1, 100), ("temperature", 4, 180)):
        series = fields[name] or {"step": 0, "values": []}
        content |= bit if fields[name] else 0
        steps.append(series["step"])
        values = iter(min(value << series["step"], top) for value in series["values"])
        hours = range(24) if fields[name] else ()
        at = [next(values) if fields["hours"] >> hour & 1 else 0 for hour in hours]
        parts.append(f".{name} = {braces(at or [0])}")
    head = f".age = {fields['age']}, .hours = {fields['hours']}, .rainy = {fields['rainy'] or 0}"
    head += f", .rain_tenth = {fields['rain_tenth'] or 0}, .content = {content}"
    return f"{{{head}, {', '.join(parts)}}}, {steps[0]}, {steps[1]}"


def share(fields: Case) -> str:
    """`swn_share_t`."""
    return f".id = {fields['share_id']}, {designated(fields, ['send', 'use', 'offset_half', 'days'])}"


def offer(fields: Case) -> str:
    """`swn_offer_t`."""
    names = {
        "count": "nb_frag",
        "piece_size": "frag_size",
        "ack_delay": "block_ack_delay",
        **{name: name for name in ("index", "version", "padding", "start_in_s", "length_s")},
    }
    plain_fields = {name: fields[theirs] for name, theirs in names.items()}
    descriptor = braces(list(bytes.fromhex(fields["descriptor"])))
    return f"{designated(plain_fields, list(names))}, .descriptor = {descriptor}"


STATUS = ("model_version", "model_id", "battery", "labelled", "flags", "temperature_centi", "humidity_half")
DENSE = ("round", "model_version", "context", "num_examples", "scale_adapter", "scale_head")
SEEN = ("round", "model_version", "context", "num_examples", "scale")
STATUS += ("rain_tenth", "risk", "multicast_received", "serves")
KINDS: dict[str, tuple[str, Callable[[Case], str]]] = {
    "prototypes": ("swn_prototypes_t", prototypes),
    "top_k_sign": ("swn_top_k_vector_t", top_k),
    "top_k_int4": ("swn_top_k_vector_t", top_k_int4),
    "dense_int8": ("swn_dense_header_t", plain(*DENSE)),
    "features": ("swn_features_header_t", plain(*SEEN)),
    "blocks": ("swn_blocks_header_t", plain(*DENSE, "first")),
    "fragment": ("swn_fragment_t", fragment),
    "masked_sums": ("swn_masked_vector_t", masked_sums),
    "seeds": ("swn_seeds_t", plain("round", "group", "position", "missing")),
    "repair": ("swn_repair_t", plain("round", "group", "received")),
    "offer": ("swn_offer_t", offer),
    "answer": ("swn_answer_t", answer),
    "status": ("swn_report_t", plain(*STATUS)),
    "round_announce": ("swn_round_t", announcement),
    "round_ack": ("swn_ack_t", plain("round", "first_index")),
    "block_piece": ("swn_piece_t", piece),
    "query": ("swn_query_t", plain("query_id", "flags", "context", "reply_in_s")),
    "schedule": ("swn_schedule_t", schedule),
    "readings": ("swn_readings_vector_t", readings),
    "share": ("swn_share_t", share),
    "label": ("swn_told_t", plain("label", "by_id", "value")),
}


def raw(case: Case) -> str:
    """`swn_vector_bytes_t`."""
    data = bytes.fromhex(case["hex"])
    body = braces(list(data)) if data else "{0}"
    return f'{{"{case["name"]}", {len(data)}, {case["f_port"]}, {body}}}'


def text(cases: list[Case]) -> str:
    """The whole header."""
    parts = [HEAD]
    for kind, (c_type, write) in KINDS.items():
        chosen = [case for case in cases if case["fields"] and case["fields"]["kind"] == kind]
        rows = [f"    {{{raw(case)}, {{{write(case['fields'])}}}}}," for case in chosen]
        members = f"    swn_vector_bytes_t raw;\n    {c_type} value;\n"
        parts.append(f"static const struct {{\n{members}}} VECTORS_{kind.upper()}[] = {{")
        parts.append("\n".join(rows) + "\n};\n")
    refused = [case for case in cases if case["reason"] and case["direction"] == "down"]
    parts.append("static const swn_vector_bytes_t VECTORS_REFUSED[] = {")
    parts.append("\n".join(f"    {raw(case)}," for case in refused) + "\n};\n")
    return "\n".join(parts)


if __name__ == "__main__":
    source, target = sys.argv[1:]
    Path(target).write_text(text(json.loads(Path(source).read_text(encoding="utf-8"))), encoding="utf-8")
