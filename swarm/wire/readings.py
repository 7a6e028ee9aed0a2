"""A day's hourly readings in one frame, the request for a neighbour's, and the order that makes nodes share.

A day is the 24 hours up to a noon, hour 0 the one that ends at 13 o'clock.  Quantities travel in steps,
hour by hour as differences:

==========  ====  ==================================================================================
FPort, way  type  layout (sizes in bytes)
==========  ====  ==================================================================================
12 both     02    READINGS: type 1, age 1, content 1, [hours 3: bit 3], [rainy 3, rain 1: bit 1],
                  [humidity: bit 0], [temperature: bit 2]; a series is rice_k | step << 3 1, first 1,
                  then Rice(zigzag(difference)) of each further hour, zero bits up to the byte
12 up       03    READINGS_REQUEST: type 1, age 1, labelled 1, own_right 1, borrowed_right 1
12 down     03    SHARE: type 1, share_id 1, send 1, use 1, offset i1, days 1
==========  ====  ==================================================================================

The C twin is `node_firmware/core/swn_readings.c`.  Sizes of a typical day: humidity in 2 % steps 10 to 13,
temperature in 0.5 degC steps 10, rain 4, the head 3.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from swarm.effects import Malformed
from swarm.wire import rice

__all__ = [
    "AGE_STEP_US",
    "ALL_HOURS",
    "DAY_HOURS",
    "HUMIDITY",
    "HUMIDITY_TOP",
    "RAIN",
    "READINGS_SIZE_MAX",
    "SHARE_ID_MAX",
    "TEMPERATURE",
    "TEMPERATURE_TOP",
    "USE_HUMIDITY",
    "USE_HUMIDITY_INSTEAD",
    "USE_RAIN",
    "Readings",
    "ReadingsRequest",
    "Series",
    "Share",
    "decode_readings",
    "decode_request",
    "decode_share",
    "encode",
    "series",
]

HUMIDITY, RAIN, TEMPERATURE = 1, 2, 4
"""Quantities, as bits of `content` and of a SHARE's `send`."""
USE_HUMIDITY, USE_RAIN, USE_HUMIDITY_INSTEAD = 1, 2, 4
"""Bits of a SHARE's `use`: where the own reading is missing; and humidity even where it is there."""

DAY_HOURS = 24
ALL_HOURS = (1 << DAY_HOURS) - 1
HUMIDITY_TOP = 100
"""Humidity counts in 1 %, 0..100, ..."""
TEMPERATURE_TOP = 180
"""... temperature in 0.5 degC from -30 degC on, 0..180; both in steps of 1, 2, 4 or 8 of these."""
AGE_STEP_US = 600_000_000
READINGS_SIZE_MAX = 40
SHARE_ID_MAX = 15
RICE_K_MAX = 7
_MASK_FOLLOWS = 8

_HEAD = struct.Struct("<BBB")
_REQUEST = struct.Struct("<BBBBB")
_SHARE = struct.Struct("<BBBBbB")
_SIZE = Malformed("size")
_VALUE = Malformed("value")


@dataclass(frozen=True, slots=True)
class Series:
    """One quantity of the hours that are there, ascending: values 0.. in steps of 1 << `step`, 0..3.

    Of humidity a value v is min(v << step, 100) %, of temperature -30 + min(v << step, 180) / 2 degC.
    """

    step: int
    rice_k: int
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Readings:
    """12/02 both ways: a day up to the noon `age` ten minutes ago; `hours` and `rainy` have a bit per hour.

    `rain_tenth` is the mean of the rainy hours in 0.1 mm.  `rainy` is None, and so is `rain_tenth`, when
    nothing is said about rain; a series when it is not there.
    """

    age: int
    hours: int
    rainy: int | None
    rain_tenth: int | None
    humidity: Series | None
    temperature: Series | None


@dataclass(frozen=True, slots=True)
class ReadingsRequest:
    """Uplink 12/03: the day up to the noon `age` ten minutes ago lacks a neighbour's hours.

    Of `labelled` days whose class the node was told, its rule was right on so many by its own readings, and
    with the neighbour's.
    """

    age: int
    labelled: int
    own_right: int
    borrowed_right: int


@dataclass(frozen=True, slots=True)
class Share:
    """Downlink 12/03: what to send each day and what to use of others', for so many days (0: stop).

    `share_id` 1..15 comes back in each STATUS; `offset_half` is added to the node's own humidity (0.5 %).
    """

    share_id: int
    send: int
    use: int
    offset_half: int
    days: int


def _highest(top: int, step: int) -> int:
    """The largest value of a quantity in steps of 1 << step: that of its top, rounded."""
    return (top + (1 << step >> 1)) >> step


def _zigzag(difference: int) -> int:
    return 2 * difference if difference >= 0 else -2 * difference - 1


def series(values: Sequence[int], step: int) -> Series:
    """Values in the quantity's own unit (see the tops), rounded to steps, with the shortest code.

    Ties go up and down in turn: a lasting half step would be a bias.
    """
    rounded = tuple(
        (value + (1 << step >> 1) - (at & 1 if step else 0)) >> step for at, value in enumerate(values)
    )
    differences = [_zigzag(b - a) for a, b in pairwise(rounded)]
    return Series(step, rice.best_k(differences, RICE_K_MAX), rounded)


def _series_ok(given: Series | None, top: int, hours: int) -> bool:
    if given is None:
        return True
    return (
        0 <= given.step <= 3
        and 0 <= given.rice_k <= RICE_K_MAX
        and len(given.values) == hours.bit_count()
        and all(0 <= value <= _highest(top, given.step) for value in given.values)
    )


def _readings_ok(message: Readings) -> bool:
    rainy, rain = message.rainy, message.rain_tenth
    if rainy is None or rain is None:
        rain_ok = rainy is None and rain is None
    else:
        rain_ok = rainy & ~message.hours == 0 and (rain > 0) == (rainy > 0) and 0 <= rain <= 255
    return (
        rain_ok
        and 0 < message.hours <= ALL_HOURS
        and not (rainy is None and message.humidity is None and message.temperature is None)
        and _series_ok(message.humidity, HUMIDITY_TOP, message.hours)
        and _series_ok(message.temperature, TEMPERATURE_TOP, message.hours)
    )


def encode(message: Readings | ReadingsRequest | Share) -> bytes | None:
    """The frame; None when the protocol cannot say it, struct.error when a field is out of range."""
    match message:
        case Readings():
            return _encode_readings(message)
        case ReadingsRequest(age, labelled, own_right, borrowed_right):
            return _REQUEST.pack(3, age, labelled, own_right, borrowed_right)
        case Share(share_id, send, use, offset_half, days):
            raw = _SHARE.pack(3, share_id, send, use, offset_half, days)
            return raw if _share_ok(message) else None


def _encode_readings(message: Readings) -> bytes | None:
    if not _readings_ok(message):
        return None
    masked = message.hours != ALL_HOURS
    content = (
        (HUMIDITY if message.humidity is not None else 0)
        | (RAIN if message.rainy is not None else 0)
        | (TEMPERATURE if message.temperature is not None else 0)
        | (_MASK_FOLLOWS if masked else 0)
    )
    parts = [_HEAD.pack(2, message.age, content)]
    if masked:
        parts.append(message.hours.to_bytes(3, "little"))
    if message.rainy is not None and message.rain_tenth is not None:
        parts.append(message.rainy.to_bytes(3, "little") + bytes((message.rain_tenth,)))
    for quantity in (message.humidity, message.temperature):
        if quantity is not None:
            bits = "".join(rice.code(_zigzag(b - a), quantity.rice_k) for a, b in pairwise(quantity.values))
            parts.append(bytes((quantity.rice_k | quantity.step << 3, quantity.values[0])) + rice.pack(bits))
    return b"".join(parts)


def _read_series(payload: bytes, at: int, top: int, count: int) -> tuple[Series, int] | Malformed:
    """The series at `at` and where the next thing stands."""
    if at + 2 > len(payload):
        return _SIZE
    rice_k, step = payload[at] & 7, payload[at] >> 3
    if step > 3:
        return _VALUE
    highest = _highest(top, step)
    values = [payload[at + 1]]
    bits = rice.unpack(payload[at + 2 :])
    here = 0
    for _ in range(count - 1):
        found = rice.read(bits, here, rice_k)
        if found is None:
            return _SIZE
        zigzag, here = found
        values.append(values[-1] + (-(zigzag + 1 >> 1) if zigzag & 1 else zigzag >> 1))
    padded = (here + 7) // 8
    if "1" in bits[here : 8 * padded] or not all(0 <= value <= highest for value in values):
        return _VALUE
    return Series(step, rice_k, tuple(values)), at + 2 + padded


def decode_readings(payload: bytes) -> Readings | Malformed:
    """The day in a frame of type 02 on FPort 12."""
    if len(payload) < _HEAD.size:
        return _SIZE
    _, age, content = _HEAD.unpack_from(payload)
    if not content & (HUMIDITY | RAIN | TEMPERATURE) or content > 15:
        return _VALUE
    at = _HEAD.size
    hours, rainy, rain = ALL_HOURS, None, None
    if content & _MASK_FOLLOWS:
        hours = int.from_bytes(payload[at : at + 3], "little")
        at += 3
    if content & RAIN:
        rainy = int.from_bytes(payload[at : at + 3], "little")
        rain = payload[at + 3] if at + 3 < len(payload) else None
        at += 4
    if at > len(payload):
        return _SIZE
    if hours == 0 or (content & _MASK_FOLLOWS and hours == ALL_HOURS):
        return _VALUE
    found: dict[int, Series] = {}
    for quantity, top in ((HUMIDITY, HUMIDITY_TOP), (TEMPERATURE, TEMPERATURE_TOP)):
        if content & quantity:
            result = _read_series(payload, at, top, hours.bit_count())
            if isinstance(result, Malformed):
                return result
            found[quantity], at = result
    if at != len(payload):
        return _SIZE
    message = Readings(age, hours, rainy, rain, found.get(HUMIDITY), found.get(TEMPERATURE))
    return message if _readings_ok(message) else _VALUE


def decode_request(payload: bytes) -> ReadingsRequest | Malformed:
    """The request in a frame of type 03 on FPort 12, up."""
    return ReadingsRequest(*_REQUEST.unpack(payload)[1:]) if len(payload) == _REQUEST.size else _SIZE


def _share_ok(message: Share) -> bool:
    return 1 <= message.share_id <= SHARE_ID_MAX and message.send <= 7 and message.use <= 7


def decode_share(payload: bytes) -> Share | Malformed:
    """The order in a frame of type 03 on FPort 12, down."""
    if len(payload) != _SHARE.size:
        return _SIZE
    message = Share(*_SHARE.unpack(payload)[1:])
    return message if _share_ok(message) else _VALUE
