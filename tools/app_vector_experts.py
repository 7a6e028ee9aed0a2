"""The frames of expert questions for tests/vectors/app_frames.json, by hand from docs/SPEC.md."""

from __future__ import annotations

from app_vector_bytes import Case, case, le, noise, refused

COARSE = (-3, 7, noise(64, 16, 17))
"""A coarse vector: floor, step, 64 nibbles."""


def coarse(vector: tuple[int, int, list[int]]) -> str:
    """Floor, step, then two nibbles a byte, the even one low."""
    floor, step, nibbles = vector
    pairs = zip(nibbles[::2], nibbles[1::2], strict=True)
    return le(floor, 1) + le(step, 1) + "".join(f"{odd:x}{even:x}" for even, odd in pairs)


def ask(name: str, head: list[int], picks: list[int], tail: list[int]) -> Case:
    """Uplink 11/02; `head` = ask_id, generation; `tail` = weight, missing, label, probability."""
    text = "02" + le(head[0], 2) + le(head[1], 2) + "".join(le(value, 1) for value in (*picks, *tail))
    names = ("ask_id", "generation", "picks", "weight", "missing", "label", "probability")
    fields: Case = {"kind": "ask", **dict(zip(names, (*head, picks, *tail), strict=True))}
    return case(name, 11, "up", text + coarse(COARSE), {**fields, "input": coarse(COARSE)})


def output(name: str, query_id: int, generation: int, done: int) -> Case:
    """Uplink 11/03."""
    text = "03" + le(query_id, 2) + le(generation, 2) + le(done, 1) + coarse(COARSE)
    fields: Case = {"kind": "output", "query_id": query_id, "generation": generation, "done": done}
    return case(name, 11, "up", text, {**fields, "contribution": coarse(COARSE)})


def experts(name: str, head: list[int], seen: list[int]) -> Case:
    """Uplink 12/04; `head` = generation, flags, held."""
    text = "04" + le(head[0], 2) + le(head[1], 1) + le(head[2], 2) + le(len(seen), 1)
    names = ("generation", "flags", "held")
    fields: Case = {"kind": "experts", **dict(zip(names, head, strict=True)), "seen": seen}
    return case(name, 12, "up", text + "".join(le(share, 1) for share in seen), fields)


def reply(name: str, ask_id: int, flags: int) -> Case:
    """Downlink 11/02."""
    text = "02" + le(ask_id, 2) + le(flags, 1) + coarse(COARSE)
    fields: Case = {"kind": "reply", "ask_id": ask_id, "flags": flags, "contribution": coarse(COARSE)}
    return case(name, 11, "down", text, fields)


def expert_query(name: str, head: list[int], picks: list[int], tail: list[int]) -> Case:
    """Downlink 11/03; `head` = query_id, generation; `tail` = weight, wanted, reply_in_s."""
    text = "03" + le(head[0], 2) + le(head[1], 2) + "".join(le(value, 1) for value in (*picks, *tail))
    names = ("query_id", "generation", "picks", "weight", "wanted", "reply_in_s")
    fields: Case = {"kind": "expert_query", **dict(zip(names, (*head, picks, *tail), strict=True))}
    return case(name, 11, "down", text + coarse(COARSE), {**fields, "input": coarse(COARSE)})


def malformed_experts() -> list[Case]:
    """Expert questions that are refused, both ways."""
    v = coarse(COARSE)
    up_ask, down_query = "02" + "0100" + "0100", "03" + "0100" + "0100"
    return [
        refused("ask_short", 11, "up", up_ask + "010210010050" + v[:-2], "size"),
        refused("ask_long", 11, "up", up_ask + "010210010050" + v + "00", "size"),
        refused("ask_pick_16", 11, "up", up_ask + "100210010050" + v, "value"),
        refused("ask_same_pick_twice", 11, "up", up_ask + "020210010050" + v, "value"),
        refused("ask_weight_129", 11, "up", up_ask + "010281010050" + v, "value"),
        refused("ask_nothing_missing", 11, "up", up_ask + "010210000050" + v, "value"),
        refused("ask_missing_4", 11, "up", up_ask + "010210040050" + v, "value"),
        refused("output_short", 11, "up", "03" + "0100" + "0100" + "01" + v[:-2], "size"),
        refused("output_nothing_done", 11, "up", "03" + "0100" + "0100" + "00" + v, "value"),
        refused("output_done_4", 11, "up", "03" + "0100" + "0100" + "04" + v, "value"),
        refused("experts_header_only", 12, "up", "04" + "0100" + "00" + "0300", "size"),
        refused("experts_count_differs", 12, "up", "04" + "0100" + "00" + "0300" + "03" + "0000", "size"),
        refused("experts_none", 12, "up", "04" + "0100" + "00" + "0000" + "00", "value"),
        refused("experts_17", 12, "up", "04" + "0100" + "00" + "0000" + "11" + "00" * 17, "value"),
        refused("experts_holds_a_ninth_of_eight", 12, "up", "040100000001" + "08" + "00" * 8, "value"),
        refused("reply_short", 11, "down", "02" + "0100" + "01" + v[:-2], "size"),
        refused("reply_long", 11, "down", "02" + "0100" + "01" + v + "00", "size"),
        refused("expert_query_short", 11, "down", down_query + "0102100100" + v[:-2], "size"),
        refused("expert_query_long", 11, "down", down_query + "0102100100" + v + "00", "size"),
        refused("expert_query_pick_16", 11, "down", down_query + "0110100100" + v, "value"),
        refused("expert_query_same_pick", 11, "down", down_query + "0101100100" + v, "value"),
        refused("expert_query_weight_129", 11, "down", down_query + "0102810100" + v, "value"),
        refused("expert_query_wants_nothing", 11, "down", down_query + "0102100000" + v, "value"),
        refused("expert_query_wants_4", 11, "down", down_query + "0102100400" + v, "value"),
    ]


def valid_experts(way: str) -> list[Case]:
    """Expert questions as they go up, or down."""
    if way == "up":
        return [
            ask("ask_one_missing", [513, 2], [5, 0], [90, 2, 7, 128]),
            ask("ask_both_missing", [65535, 65535], [15, 14], [128, 3, 9, 255]),
            output("output_first", 32768, 2, 1),
            output("output_both", 65535, 65535, 3),
            experts("experts_two_of_eight", [2, 1, 0b1000_0001], [100, 0, 20, 5, 0, 0, 30, 100]),
            experts("experts_all_of_sixteen", [65535, 0xFF, 65535], [255, *[0] * 15]),
        ]
    return [
        reply("reply_from_replica", 513, 7),
        reply("reply_nobody_could_help", 65535, 0),
        reply("reply_reserved_flags_kept", 0, 0xFA),
        expert_query("expert_query_first", [32768, 2], [5, 0], [90, 1, 0]),
        expert_query("expert_query_both", [65535, 65535], [14, 15], [0, 3, 255]),
    ]
