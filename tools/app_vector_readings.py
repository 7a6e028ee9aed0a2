"""The cases of tests/vectors/app_frames.json for days of readings, their requests and the orders."""

from __future__ import annotations

from itertools import pairwise

from app_vector_bytes import Case, case, fixed, le, numbers, packed, refused


def series(top: int, step: int, rice_k: int, values: list[int]) -> tuple[str, Case]:
    """A quantity of READINGS: its bytes, and its fields."""
    assert all(0 <= value <= (top + 2**step // 2) // 2**step for value in values)
    bits = ""
    for before, after in pairwise(values):
        zigzag = 2 * (after - before) if after >= before else 2 * (before - after) - 1
        bits += "1" * (zigzag // 2**rice_k) + "0"
        for bit in reversed(range(rice_k)):
            bits += str(zigzag // 2**bit % 2)
    text = le(step * 8 + rice_k, 1) + le(values[0], 1) + packed(bits)
    return text, {"step": step, "rice_k": rice_k, "values": values}


def readings(
    name: str,
    way: str,
    age: int,
    hours: int,
    rain: tuple[int, int] | None,
    humidity: tuple[int, int, list[int]] | None,
    temperature: tuple[int, int, list[int]] | None,
) -> Case:
    """12/02; `rain` = rainy hours, their mean; a series = step, rice_k, values."""
    every = hours == 0xFFFFFF
    content = (
        (humidity is not None) + 2 * (rain is not None) + 4 * (temperature is not None) + 8 * (not every)
    )
    text = "02" + le(age, 1) + le(content, 1) + ("" if every else le(hours, 3))
    text += "" if rain is None else le(rain[0], 3) + le(rain[1], 1)
    fields: Case = {"kind": "readings", "age": age, "hours": hours}
    fields |= {"rainy": rain and rain[0], "rain_tenth": rain and rain[1]}
    for field, top, given in (("humidity", 100, humidity), ("temperature", 180, temperature)):
        body, fields[field] = ("", None) if given is None else series(top, *given)
        text += body
    return case(name, 12, way, text, fields)


REQUEST = [("age", 1), ("labelled", 1), ("own_right", 1), ("borrowed_right", 1)]
SHARE = [("share_id", 1), ("send", 1), ("use", 1), ("offset_half", 1), ("days", 1)]
DAY_HUMIDITY = [33, 30, 27, 26, 26, 28, 31, 34, 37, 39, 41, 43]
DAY_HUMIDITY += [44, 45, 46, 47, 47, 47, 46, 44, 41, 38, 36, 34]
DAY_TEMPERATURE = [102, 104, 106, 107, 107, 105, 102, 99, 96, 94, 92, 90]
DAY_TEMPERATURE += [89, 88, 87, 86, 86, 87, 89, 92, 95, 97, 99, 101]


def valid_readings(way: str) -> list[Case]:
    """Days as they travel, the request that goes up and the order that comes down."""
    both = ((1, 1, DAY_HUMIDITY), (0, 1, DAY_TEMPERATURE))
    few = 0b101010101010101010101010
    swings = [0, 25, 0, 25, 0, 25, 0, 25, 0, 25, 0, 25]
    days = [
        readings(f"readings_{way}_typical", way, 3, 0xFFFFFF, None, *both),
        readings(f"readings_{way}_with_rain", way, 11, 0xFFFFFF, (0xC00801, 13), *both),
        readings(f"readings_{way}_dry", way, 12, 0xFFFFFF, (0, 0), both[0], None),
        readings(f"readings_{way}_temperature_alone", way, 0, 0xFFFFFF, None, None, both[1]),
        readings(f"readings_{way}_rain_alone_one_hour", way, 255, 0x800000, (0x800000, 255), None, None),
        readings(f"readings_{way}_every_other_hour", way, 9, few, (0x800002, 1), (2, 5, swings), None),
        readings(f"readings_{way}_steady", way, 9, 0xFFFFFF, None, (0, 0, [100] * 24), (3, 0, [22] * 24)),
        readings(f"readings_{way}_one_hour", way, 9, 1, None, (3, 0, [13]), (1, 0, [90])),
    ]
    if way == "up":
        return [
            *days,
            fixed("request_plain", way, "12:03", "readings_request", numbers(REQUEST, [13, 20, 11, 17])),
            fixed("request_largest", way, "12:03", "readings_request", numbers(REQUEST, [255] * 4)),
        ]
    return [
        *days,
        fixed("share_lend", way, "12:03", "share", numbers(SHARE, [1, 7, 0, 0, 14])),
        fixed("share_borrow_corrected", way, "12:03", "share", numbers(SHARE, [15, 0, 3, -13, 14])),
        fixed("share_edges", way, "12:03", "share", numbers(SHARE, [8, 7, 7, -128, 255])),
        fixed("share_stop", way, "12:03", "share", numbers(SHARE, [2, 0, 0, 127, 0])),
    ]


def malformed_readings(way: str) -> list[Case]:
    """Days, requests and orders that are none."""
    steady = "0064" + "000000"  # humidity 100 % all day: 23 zero bits
    bad = [
        ("cut_in_head", "0203", "size"),
        ("nothing_said", "020300", "value"),
        ("unknown_quantity", "020311" + steady, "value"),
        ("mask_cut", "020309" + "ff", "size"),
        ("mask_empty", "020309" + "000000" + "0064", "value"),
        ("mask_of_all_hours", "020309" + "ffffff" + steady, "value"),
        ("rain_cut", "020302" + "010000", "size"),
        ("rain_without_amount", "020302" + "010000" + "00", "value"),
        ("amount_without_rain", "020302" + "000000" + "09", "value"),
        ("rain_in_a_missing_hour", "02030a" + "010000" + "020000" + "09", "value"),
        ("series_cut_in_head", "020301" + "00", "size"),
        ("series_cut_in_bits", "020301" + "0064" + "0000", "size"),
        ("series_long", "020301" + steady + "00", "size"),
        ("series_padding_not_zero", "020301" + "0064" + "000001", "value"),
        ("series_step_4", "020301" + "2000" + "000000", "value"),
        ("humidity_101", "020301" + "0065" + "000000", "value"),
        ("humidity_climbs_to_101", "020301" + "0064" + "c00000" + "00", "value"),
        ("humidity_falls_below_0", "020301" + "0000" + "800000", "value"),
        ("temperature_181", "020304" + "00b5" + "000000", "value"),
    ]
    cases = [refused(f"readings_{way}_{name}", 12, way, text, reason) for name, text, reason in bad]
    if way == "up":
        return [
            *cases,
            *(refused(f"request_{n}_bytes", 12, "up", "03" + "00" * (n - 1), "size") for n in (4, 6)),
        ]
    return [
        *cases,
        refused("share_short", 12, "down", "0301070000", "size"),
        refused("share_long", 12, "down", "03010700000e00", "size"),
        refused("share_id_0", 12, "down", "03000700000e", "value"),
        refused("share_id_16", 12, "down", "03100700000e", "value"),
        refused("share_send_8", 12, "down", "03010800000e", "value"),
        refused("share_use_8", 12, "down", "03010008000e", "value"),
    ]
