"""Answers that are still fresh: the same question again costs no airtime."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from swarm.inference.plan import Query

__all__ = ["AnswerCache", "question_key"]

SECOND_US = 1_000_000


def question_key(query: Query) -> Query:
    """Equal for two questions that ask the same of the same nodes, whoever asks and however long he waits."""
    return replace(query, query_id=0, deadline_s=None, reference=None)


class AnswerCache:
    """The last answers, at most `count` of them, for `fresh_s` seconds each."""

    def __init__(self, fresh_s: int, count: int) -> None:
        self._fresh_us = fresh_s * SECOND_US
        self._count = count
        self._answers: OrderedDict[Query, tuple[int, dict[str, Any]]] = OrderedDict()

    def keep(self, now_us: int, query: Query, answer: dict[str, Any]) -> None:
        """Remember an answer; one without a value is none."""
        if answer["value"] is None or query.kind == "features" or not self._fresh_us:
            return
        self._answers[question_key(query)] = (now_us, answer)
        self._answers.move_to_end(question_key(query))
        while len(self._answers) > self._count:
            self._answers.popitem(last=False)

    def fresh(self, now_us: int, query: Query) -> tuple[int, dict[str, Any]] | None:
        """(when it was answered, the answer) of the same question, if that is not too long ago."""
        known = self._answers.get(question_key(query))
        return known if known is not None and now_us - known[0] <= self._fresh_us else None

    def restore(self, query: Query, row: Mapping[str, object]) -> None:
        """Take over an answered question from its row; damaged ones are left out."""
        try:
            answer = json.loads(str(row["answer"]))
            answered_us = int(str(row["asked_us"])) + round(float(answer["latency_s"]) * SECOND_US)
            answered_us -= round(float(answer.get("age_s", 0.0)) * SECOND_US)
            self.keep(answered_us, query, answer)
        except (KeyError, TypeError, ValueError):
            return
