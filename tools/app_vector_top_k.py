"""The frames of tests/vectors/app_frames.json that carry the largest coordinates of a change."""

from __future__ import annotations

from app_vector_bytes import Case, case, le, noise, packed


def rice_text(indices: list[int], negative: list[int], rice_k: int, first: int = 0) -> str:
    """The coordinates as a string of 0 and 1; the first gap counts from `first`."""
    text = ""
    previous = first - 1
    for index, sign in zip(indices, negative, strict=True):
        gap = index - previous - 1
        text += "1" * (gap // 2**rice_k) + "0"
        for bit in reversed(range(rice_k)):
            text += str(gap // 2**bit % 2)
        text += str(sign)
        previous = index
    return text


def top_k_head(head: list[int], rice_k: int, count: int, heads_only: bool = False) -> str:
    """The eleven bytes before the bits; `head` = round, model_version, context, num_examples, magnitude."""
    text = "02" + le(head[0], 2) + le(head[1], 2) + le(head[2], 1) + le(head[3], 1) + le(head[4], 2)
    return text + le(rice_k + 128 * heads_only, 1) + le(count, 1)


def top_k_sign(
    name: str, head: list[int], rice_k: int, indices: list[int], negative: list[int], heads_only: bool = False
) -> Case:
    """Uplink 10/02."""
    text = top_k_head(head, rice_k, len(indices), heads_only)
    text += packed(rice_text(indices, negative, rice_k, 512 * heads_only))
    fields: Case = {
        "kind": "top_k_sign",
        "round": head[0],
        "model_version": head[1],
        "context": head[2],
        "num_examples": head[3],
        "magnitude": head[4],
        "rice_k": rice_k,
        "indices": indices,
        "negative": negative,
        "heads_only": int(heads_only),
    }
    return case(name, 10, "up", text, fields)


def top_k_int4(
    name: str, head: list[int], rice_k: int, indices: list[int], levels: list[int], heads_only: bool = False
) -> Case:
    """Uplink 10/04: as signs, and behind each sign three bits of |level| - 1."""
    text = ""
    previous = 512 * heads_only - 1
    for index, level in zip(indices, levels, strict=True):
        text += rice_text([index - previous - 1], [int(level < 0)], rice_k)
        text += "".join(str((abs(level) - 1) // bit % 2) for bit in (4, 2, 1))
        previous = index
    fields: Case = {
        "kind": "top_k_int4",
        "round": head[0],
        "model_version": head[1],
        "context": head[2],
        "num_examples": head[3],
        "scale": head[4],
        "rice_k": rice_k,
        "indices": indices,
        "levels": levels,
        "heads_only": int(heads_only),
    }
    return case(
        name, 10, "up", "04" + top_k_head(head, rice_k, len(indices), heads_only)[2:] + packed(text), fields
    )


def levels_of(count: int, seed: int) -> list[int]:
    """Levels -8..-1 and 1..8."""
    return [x - 8 if x < 8 else x - 7 for x in noise(count, 16, seed)]
