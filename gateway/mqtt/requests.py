"""What may come in over MQTT: bytes become a question or a bridge request, or one line that says why not.

A payload is judged by size, then as JSON, then field by field; nothing of it raises.  The correlation (`id`
of a question, `transaction` of a request) is read first, so that a refusal reaches the one who asked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.api.bodies import AskIn, mistakes

__all__ = ["PAYLOAD_MAX", "Question", "Refusal", "Request", "is_verb", "read_question", "read_request"]

PAYLOAD_MAX = 8_192
"""Bytes of a question or request; 56 features take 300."""
PAGE_MAX = 500
TAG_MAX = 64
LINES_MAX = 5
VERBS = ("airtime", "nodes/list", "rounds/list", "rounds/open", "state")
_TAG = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,64}")
_VERB = re.compile(r"[a-z]{1,16}(/[a-z]{1,16})?")


@dataclass(frozen=True, slots=True)
class Question:
    """A sound question; `arguments` are those of `Asking.question`."""

    tag: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """A sound bridge request; `limit` and `after` (a node index) turn the pages of nodes/list."""

    verb: str
    tag: str | None
    limit: int
    after: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """What was wrong, and to whom to say it: the tag when it could be read."""

    error: str
    tag: str | None = None


class _QuestionIn(AskIn):
    id: Annotated[str, Field(min_length=1, max_length=TAG_MAX)]


class _RequestIn(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    transaction: Annotated[str, Field(min_length=1, max_length=TAG_MAX)] | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = PAGE_MAX
    after: Annotated[int, Field(ge=-1, le=65_535)] = -1


def read_question(payload: bytes) -> Question | Refusal:
    """The question in a payload of `query/request`: the fields of POST /api/ask, and `id`."""
    fields = _fields(payload)
    if isinstance(fields, Refusal):
        return fields
    tag = _tag(fields.get("id"))
    if tag is None:
        return Refusal(f'give an id: a text of 1 to {TAG_MAX} characters, as {{"id": "1", "near": "west"}}')
    try:
        body = _QuestionIn.model_validate(fields)
        return Question(tag, body.question())
    except ValidationError as error:
        return Refusal(_line(error), tag)


def is_verb(text: str) -> bool:
    """Whether it looks like a verb, so that a response can have a topic."""
    return _VERB.fullmatch(text) is not None


def read_request(verb: str, payload: bytes) -> Request | Refusal:
    """The request in a payload of `bridge/request/VERB`; an empty one asks for the defaults."""
    if verb not in VERBS:
        return Refusal(f"there is no verb {verb}; the verbs are {', '.join(VERBS)}")
    fields = _fields(payload or b"{}")
    if isinstance(fields, Refusal):
        return fields
    tag = _tag(fields.get("transaction"))
    try:
        body = _RequestIn.model_validate(fields)
    except ValidationError as error:
        return Refusal(_line(error), tag)
    return Request(verb, tag, body.limit, body.after)


def _fields(payload: bytes) -> dict[str, Any] | Refusal:
    if len(payload) > PAYLOAD_MAX:
        return Refusal(f"the payload is too long: {PAYLOAD_MAX} bytes at most")
    try:
        fields = json.loads(payload.decode("utf-8"))
    except (ValueError, RecursionError):  # not UTF-8, not JSON, a number of thousands of digits, too deep
        return Refusal('the payload is not JSON; send an object, as {"id": "1", "near": "west"}')
    if not isinstance(fields, dict):
        return Refusal('the payload is no JSON object; send one, as {"id": "1", "near": "west"}')
    return fields


def _tag(value: object) -> str | None:
    return value if isinstance(value, str) and _TAG.fullmatch(value) else None


def _line(error: ValidationError) -> str:
    """Where and what, for all mistakes in one line; nothing of the sender's own text."""
    found = mistakes(error.errors(include_url=False))
    lines = [f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in found[:LINES_MAX]]
    return "; ".join(lines) + ("; ..." if len(found) > LINES_MAX else "")
