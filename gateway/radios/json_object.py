"""JSON of strangers: one object, read field by field, each with its type and its range.

Python's reader takes more than JSON is (NaN, 4000-digit numbers, one key twice); here that is refused.  A
field that is absent or null has the default that the caller names, or is missing.  What does not fit is
an `Unreadable`, which the module that reads catches and turns into a value; it never travels further.
"""

from __future__ import annotations

import base64
import json
import re
from typing import TypeVar

from swarm.effects import Malformed

__all__ = ["REASONS", "JsonObject", "Unreadable", "parse_object"]

REASONS = ("json", "field_missing", "field_type", "field_range", "base64", "hex")
"""Why a message is refused here."""

_T = TypeVar("_T")
_STANDARD_ALPHABET = str.maketrans("-_", "+/")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})*")


class Unreadable(Exception):
    """Carries a `Malformed` out of nested readers."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.malformed = Malformed(reason, detail)


def parse_object(body: bytes) -> dict[str, object]:
    """The JSON object in `body`; `Unreadable` for deep nesting, NaN, huge integers and duplicate keys too."""
    try:
        text = body.decode("utf-8")
        document = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable("json", type(error).__name__) from None
    if not isinstance(document, dict):
        raise Unreadable("json", "not an object")
    return document


class JsonObject:
    """The fields of one object; every method raises `Unreadable` with the field's name."""

    def __init__(self, fields: dict[str, object]) -> None:
        self._fields = fields

    @classmethod
    def parse(cls, body: bytes) -> JsonObject:
        return cls(parse_object(body))

    def __contains__(self, name: str) -> bool:
        return self._fields.get(name) is not None

    def integer(self, name: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number in low..high; not true, not 1.0, not a text."""
        value = self._fields.get(name)
        if value is None:
            return _absent(name, default)
        if type(value) is not int:
            raise Unreadable("field_type", name)
        if not low <= value <= high:
            raise Unreadable("field_range", name)
        return value

    def number(self, name: str, low: float, high: float, default: float | None = None) -> float:
        value = self._fields.get(name)
        if value is None:
            return _absent(name, default)
        if type(value) is not int and type(value) is not float:
            raise Unreadable("field_type", name)
        # Compared before any conversion: a 4000-digit integer has no float.
        if not low <= value <= high:
            raise Unreadable("field_range", name)
        return float(value)

    def text(self, name: str, size_max: int, default: str | None = None) -> str:
        value = self._fields.get(name)
        if value is None:
            return _absent(name, default)
        if not isinstance(value, str):
            raise Unreadable("field_type", name)
        if len(value) > size_max or not _has_bytes(value):
            raise Unreadable("field_range", name)
        return value

    def boolean(self, name: str) -> bool:
        """True or false; absent is false, as protobuf's JSON has it."""
        value = self._fields.get(name)
        if value is not None and not isinstance(value, bool):
            raise Unreadable("field_type", name)
        return bool(value)

    def hexadecimal(self, name: str, size_max: int, default: str | None = None) -> bytes:
        """Bytes as an even number of hexadecimal digits."""
        text = self.text(name, 2 * size_max, default)
        if _HEX.fullmatch(text) is None:
            raise Unreadable("hex", name)
        return bytes.fromhex(text)

    def base64(self, name: str, size_max: int, default: str | None = None) -> bytes:
        """Bytes as base64 of either alphabet, with padding or without."""
        text = self.text(name, (size_max * 4 + 2) // 3 + 2, default).rstrip("=")
        try:
            data = base64.b64decode(
                text.translate(_STANDARD_ALPHABET) + "=" * (-len(text) % 4), validate=True
            )
        except ValueError:
            raise Unreadable("base64", name) from None
        if len(data) > size_max:
            raise Unreadable("field_range", name)
        return data

    def inner(self, name: str, *, optional: bool = False) -> JsonObject:
        """The object in a field; an empty one where it is absent and `optional`."""
        value = self._fields.get(name)
        if value is None and optional:
            return JsonObject({})
        if value is None:
            raise Unreadable("field_missing", name)
        if not isinstance(value, dict):
            raise Unreadable("field_type", name)
        return JsonObject(value)

    def items(self, name: str, count_max: int) -> list[JsonObject]:
        """The objects in a list, at most the first `count_max`; none where it is absent."""
        value = self._fields.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise Unreadable("field_type", name)
        return [JsonObject(each) for each in value[:count_max]]

    def integers(self, name: str, count_max: int, low: int, high: int) -> list[int]:
        """The whole numbers in a list, at most the first `count_max`."""
        value = self._fields.get(name)
        if not isinstance(value, list):
            raise Unreadable("field_type" if value is not None else "field_missing", name)
        numbers: list[int] = []
        for each in value[:count_max]:
            if type(each) is not int or not low <= each <= high:
                raise Unreadable("field_range", name)
            numbers.append(each)
        return numbers

    def texts(self, name: str, count_max: int) -> list[str]:
        """The texts in a list, at most the first `count_max`; none where it is absent."""
        value = self._fields.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise Unreadable("field_type", name)
        if not all(_has_bytes(each) for each in value[:count_max]):
            raise Unreadable("field_range", name)
        return value[:count_max]


def _has_bytes(text: str) -> bool:
    """Not so where a `\\ud800` is half a character: that could be neither stored nor sent on."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _absent(name: str, default: _T | None) -> _T:
    if default is None:
        raise Unreadable("field_missing", name)
    return default


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    document = dict(pairs)
    if len(document) != len(pairs):
        # Which of two values counts differs between readers: a classic way past a filter.
        raise ValueError("duplicate key")
    return document


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
