"""The cases of masked sums, seeds and repairs for `make_app_vectors.py`, laid out by hand like the others."""

from __future__ import annotations

from app_vector_bytes import Case, case, le, noise, refused

__all__ = ["malformed_masks", "valid_masks"]


def masked_sums(name: str, head: list[int], values: list[int]) -> Case:
    """Uplink 10/08; `head` = round, model_version, context, group, position, size, classes, bits."""
    names = ("round", "model_version", "context", "group", "position", "size", "classes", "bits")
    text = "08" + "".join(le(value, size) for value, size in zip(head, [2, 2, 1, 2, 1, 1, 1, 1], strict=True))
    stream = sum(value << (head[-1] * place) for place, value in enumerate(values))
    body = le(stream, (len(values) * head[-1] + 7) // 8)
    fields: Case = {"kind": "masked_sums", **dict(zip(names, head, strict=True)), "values": values}
    return case(name, 10, "up", text + body, fields)


def seeds(name: str, head: list[int], data: list[bytes]) -> Case:
    """Uplink 10/09; `head` = round, group, position, missing."""
    text = "09" + "".join(le(value, size) for value, size in zip(head, [2, 2, 1, 2], strict=True))
    names = ("round", "group", "position", "missing")
    fields: Case = {"kind": "seeds", **dict(zip(names, head, strict=True))}
    fields["seeds"] = [seed.hex() for seed in data]
    return case(name, 10, "up", text + b"".join(data).hex(), fields)


def valid_masks() -> list[Case]:
    """What nodes of a masking group send."""
    return [
        masked_sums("masked_three_classes", [14, 3, 1, 9, 0, 8, 3, 12], noise(273, 4096, 21)),
        masked_sums("masked_ten_classes", [65535, 0, 7, 65535, 15, 16, 10, 16], noise(420, 65536, 22)),
        masked_sums("masked_odd_bits", [14, 3, 1, 9, 3, 4, 2, 9], noise(252, 512, 23)),
        seeds("seeds_one", [14, 9, 0, 2], [bytes(noise(16, 256, 24))]),
        seeds("seeds_most", [65535, 65535, 15, 0x1FFF], [bytes(noise(16, 256, 25 + i)) for i in range(13)]),
    ]


def malformed_masks() -> list[Case]:
    """What a gateway has to refuse, and a node."""
    masked = "010e000300080f" + "5802" + "80510100" + "c0a80000" + "3c00" + "180c050c" + "00" * 9
    return [
        refused("masked_cut", 10, "up", "08" + "00" * 10, "size"),
        refused("masked_one_byte_short", 10, "up", "080e00030001090000080310" + "00" * 545, "size"),
        refused("masked_padding", 10, "up", "080e0003000109000004020b" + "00" * 346 + "80", "value"),
        refused("masked_group_of_three", 10, "up", "080e0003000109000003030c" + "00" * 410, "value"),
        refused("masked_beyond_its_group", 10, "up", "080e0003000109000808030c" + "00" * 410, "value"),
        refused("masked_one_class", 10, "up", "080e0003000109000008010c" + "00" * 347, "value"),
        refused("masked_seven_bits", 10, "up", "080e00030001090000080307" + "00" * 239, "value"),
        refused("seeds_none", 10, "up", "090e00090000" + "0000", "size"),
        refused("seeds_for_itself", 10, "up", "090e00090001" + "0200" + "00" * 16, "value"),
        refused("seeds_too_few", 10, "up", "090e00090000" + "0600" + "00" * 16, "value"),
        refused("seeds_cut", 10, "up", "090e00090000" + "0200" + "00" * 15, "size"),
        refused("repair_short", 10, "down", "04" + "00" * 5, "size"),
        refused("repair_long", 10, "down", "04" + "00" * 7, "size"),
        refused("round_masked_without_plan", 10, "down", masked[: 2 * 19], "value"),
        refused("round_signs_with_plan", 10, "down", masked.replace("0300080f", "0300020f"), "value"),
        refused("round_masked_no_samples", 10, "down", masked[: 2 * 19] + "00" + masked[2 * 20 :], "value"),
        refused("round_masked_seven_bits", 10, "down", masked[: 2 * 20] + "07" + masked[2 * 21 :], "value"),
        refused("round_masked_shift_21", 10, "down", masked[: 2 * 21] + "15" + masked[2 * 22 :], "value"),
        refused("round_masked_sigma_4096", 10, "down", masked[: 2 * 25] + "0010" + masked[2 * 27 :], "value"),
        refused("round_masked_plan_cut", 10, "down", masked[:-2], "size"),
    ]
