"""Questions in flight: put to nodes, waited for, combined; one event tells the answer.

Theory of operation.  A question is planned (`inference.plan`: whom, in which slots, at what price), its
frames wait in the nodes' own queues (class A: the next uplink opens the door), answers gather until
quorum or deadline, and `inference.combine` makes one answer of them, partial ones included.  Features
that somebody hands in are judged by the gateway's own replica of the model: no airtime.  The same question
again within `asking.fresh_s` of its answer gets that answer, with its age; while the first still waits, it
waits with it.

Questions are stored when they are taken and when they are answered.  After a restart the open ones are
put again, for the time that is left.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from swarm.config import SwarmConfig
from swarm.downlinks import PENDING_MAX, Downlinks, Pending
from swarm.effects import Effect, Event, Purpose, Row, Store
from swarm.inference.answer_cache import AnswerCache, question_key
from swarm.inference.calibration import belief_of
from swarm.inference.candidates import candidate_of
from swarm.inference.combine import Answer, Answered, combine, is_complete, local_answer
from swarm.inference.plan import MAC_SIZE, Candidate, Plan, Query, plan
from swarm.phy.energy import receive_mj, transmit_mj
from swarm.phy.regions import Region
from swarm.registry import Entry, Registry
from swarm.rounds import Rounds
from swarm.wire import app

__all__ = ["Asking"]

QUERY_IDS = 1 << 15
"""Those above are for expert questions."""
SECOND_US = 1_000_000
PLACES_KEPT = 2
"""Of the frames that may wait for a node."""
ANSWER_HEADER = 8
"""Bytes of an ANSWER besides one per class."""


@dataclass(slots=True)
class _Open:
    plan: Plan
    asked_us: int
    answers: list[Answered] = field(default_factory=list)
    questions_us: dict[str, int] = field(default_factory=dict)
    """Node -> airtime of the question that was sent to it."""
    others: list[tuple[Query, int, int]] = field(default_factory=list)
    """The same question, asked again meanwhile; when, and until when an answer is wanted."""


class Asking:
    """The questions of one cell."""

    def __init__(
        self,
        config: SwarmConfig,
        registry: Registry,
        downlinks: Downlinks,
        rounds: Rounds,
        region: Region,
        rows: Mapping[str, Mapping[str, Row]],
    ) -> None:
        self._config = config.asking
        self._registry = registry
        self._downlinks = downlinks
        self._rounds = rounds
        self._region = region
        self._shape = rounds.replica.shape
        self._report_period_us = config.status_period_min * 60 * SECOND_US
        self._open: dict[int, _Open] = {}
        self._same: dict[Query, int] = {}
        """What is asked -> the open question that asks it."""
        self._answers = AnswerCache(self._config.fresh_s, self._config.queries_max)
        self._stored: list[int] = []
        self._restart: list[tuple[Query, int, int]] = []
        for key, row in sorted(rows.get("query", {}).items(), key=lambda item: int(item[1]["asked_us"])):  # type: ignore[arg-type]
            self._stored.append(int(key))
            query = Query.from_json(str(row["text"]))
            if not isinstance(query, Query) or self._fault(query) is not None:
                continue
            if row["state"] == "open":
                times = (int(str(row["asked_us"])), int(str(row["deadline_us"])))
                self._restart.append((query, *times))
            else:
                self._answers.restore(query, row)
        self._next_id = (self._stored[-1] + 1) % QUERY_IDS if self._stored else 1

    def __len__(self) -> int:
        """How many questions wait for their answer."""
        return len(self._open) + sum(len(each.others) for each in self._open.values())

    def question(
        self,
        *,
        near: str | None = None,
        features: tuple[int, ...] | None = None,
        context: int | None = None,
        k: int | None = None,
        deadline_s: int | None = None,
    ) -> Query:
        """A query from what a person typed; ValueError says what is missing.

        `near` names a plot, a node, or a DevEUI; a node's name asks the nodes around it too.
        """
        if (near is None) == (features is None):
            raise ValueError(
                f"ask either near a plot or node, or with {self._shape.features} features and a crop"
            )
        if features is not None:
            query = Query("features", features=features, context=context, deadline_s=deadline_s)
        else:
            query = self._place(str(near), context, k, deadline_s)
        fault = self._fault(query)
        if fault is not None:
            raise ValueError(fault)
        return query

    def _fault(self, query: Query) -> str | None:
        """What is wrong with a question, the model's size included."""
        wanted = self._shape.features
        if query.features is not None and len(query.features) != wanted:
            return f"features must be {wanted} numbers of -128..127, not {len(query.features)}"
        return query.fault()

    def _place(self, near: str, context: int | None, k: int | None, deadline_s: int | None) -> Query:
        entry = self._registry.find(near)
        if entry is not None:
            record = entry.record
            if record.lat is None or record.lon is None:
                return Query("node", dev_eui=record.dev_eui, deadline_s=deadline_s)
            return Query("place", lat=record.lat, lon=record.lon, context=context, k=k, deadline_s=deadline_s)
        plots = {entry.record.plot for entry in self._registry if entry.record.plot}
        if near not in plots:
            known = ", ".join(sorted(plots)[:5]) + (", ..." if len(plots) > 5 else "")
            raise ValueError(
                f"nothing here is called {near!r}; plots are {known}"
                if plots
                else f"no plot or node is called {near!r}"
            )
        return Query("place", plot=near, context=context, k=k, deadline_s=deadline_s)

    # -- inputs -----------------------------------------------------------------------------------

    def on_query(self, now_us: int, query: Query) -> list[Effect]:
        """Take a question; its id is in the event `query_asked` (or `query_refused`).

        A question whose `reference` waits for its answer already is that one, put twice: `query_repeated`.
        """
        known = self._waiting_under(query.reference)
        if known is not None and replace(query, query_id=known.query_id) == known:
            return [Event("query_repeated", now_us, _named(known, {"query_id": known.query_id}))]
        query = replace(query, query_id=self._next_id)
        self._next_id = (self._next_id + 1) % QUERY_IDS
        fault = self._fault(query)
        if fault is None and known is not None:
            fault = "another question waits under this name; take a new one for each question"
        if fault is None and len(self) >= self._config.queries_max:
            fault = f"{len(self)} questions are waiting already; ask again later"
        if fault is not None:
            refused = _named(query, {"query_id": query.query_id, "reason": fault})
            return [Event("query_refused", now_us, refused)]
        deadline_us = now_us + (query.deadline_s or self._config.deadline_s) * SECOND_US
        fresh = self._answers.fresh(now_us, query)
        if fresh is not None:
            return self._repeat(now_us, query, now_us, fresh)
        return self._take(now_us, query, now_us, deadline_us)

    def _take(self, now_us: int, query: Query, asked_us: int, deadline_us: int) -> list[Effect]:
        """Let a question wait with the same one that is out already, or put it to nodes."""
        same = self._open.get(self._same.get(question_key(query), -1))
        if same is not None and same.plan.deadline_us <= deadline_us:
            same.others.append((query, asked_us, deadline_us))
            waiting = _Open(replace(same.plan, query=query, deadline_us=deadline_us), asked_us)
            stores = [self._row(query.query_id, waiting, None), *self._forget_oldest(query.query_id)]
            asked = {"query_id": query.query_id, "nodes": [], "kind": query.kind}
            return [*stores, Event("query_asked", now_us, asked)] if asked_us == now_us else [*stores]
        return self._put(now_us, query, asked_us, deadline_us)

    def on_answer(self, now_us: int, entry: Entry, message: app.Answer) -> list[Effect]:
        """A node answered."""
        waiting = self._open.get(message.query_id)
        if waiting is None:
            return [
                Event("answer_late", now_us, {"dev_eui": entry.record.dev_eui, "query_id": message.query_id})
            ]
        if len(message.probabilities) != self._shape.classes:
            data = {"dev_eui": entry.record.dev_eui, "query_id": message.query_id}
            return [Event("answer_refused", now_us, {**data, "reason": "another model's classes"})]
        question_us = waiting.questions_us.pop(entry.record.dev_eui, 0)
        answer_us = self._answer_us(entry)
        answered = Answered(
            entry.record.dev_eui,
            message,
            now_us,
            question_us + answer_us,
            receive_mj(question_us) + transmit_mj(answer_us),
        )
        waiting.answers.append(answered)
        event = Event("answer", now_us, {"dev_eui": entry.record.dev_eui, "query_id": message.query_id})
        return [event, *self._settle(now_us, message.query_id)]

    def poll(self, now_us: int) -> list[Effect]:
        """Answer what has reached its deadline."""
        effects: list[Effect] = []
        restart, self._restart = self._restart, []
        for query, asked_us, deadline_us in restart:
            effects += self._take(now_us, query, asked_us, deadline_us)
        for query_id in [key for key, waiting in self._open.items() if now_us >= waiting.plan.deadline_us]:
            effects += self._settle(now_us, query_id)
        return effects

    def poll_at(self) -> int | None:
        if self._restart:
            return 0
        return min((waiting.plan.deadline_us for waiting in self._open.values()), default=None)

    def _waiting_under(self, reference: str | None) -> Query | None:
        if reference is None:
            return None
        waiting = [
            *(each.plan.query for each in self._open.values()),
            *(query for each in self._open.values() for query, *_ in each.others),
            *(query for query, *_ in self._restart),
        ]
        return next((query for query in waiting if query.reference == reference), None)

    # -- a question's life ------------------------------------------------------------------------

    def _put(self, now_us: int, query: Query, asked_us: int, deadline_us: int) -> list[Effect]:
        candidates = (candidate_of(entry, self._report_period_us) for entry in self._registry)
        made = plan(
            query,
            [node for node in candidates if node is not None and self._has_room(node)],
            region=self._region,
            now_us=now_us,
            k=self._config.k,
            deadline_us=deadline_us,
        )
        waiting = _Open(made, asked_us)
        asked = {
            "query_id": query.query_id,
            "nodes": [target.dev_eui for target in made.targets],
            "kind": query.kind,
        }
        effects: list[Effect] = [
            self._row(query.query_id, waiting, None),
            *self._forget_oldest(query.query_id),
            Event("query_asked", now_us, asked),
        ]
        if made.local:
            return effects + self._finish(now_us, query.query_id, waiting, self._judge(made))
        if not made.targets:
            return effects + self._finish(now_us, query.query_id, waiting, combine(made, []))
        self._open[query.query_id] = waiting
        self._same[question_key(query)] = query.query_id
        for target in made.targets:
            payload = made.frame(target)
            tag = _tag(query.query_id)
            sent = partial(_question_sent, waiting, target.dev_eui)
            pending = Pending(11, payload, len(payload), Purpose.QUERY, deadline_us, tag, sent)
            self._downlinks.enqueue(target.dev_eui, pending)
        return effects

    def _has_room(self, node: Candidate) -> bool:
        """Whether one more question can wait for this node; the last places are for others than questions."""
        return self._downlinks.waiting(node.dev_eui) < PENDING_MAX - PLACES_KEPT

    def _judge(self, made: Plan) -> Answer:
        """The gateway's own replica with the fleet's current head."""
        query = made.query
        assert query.features is not None and query.context is not None
        mirror = self._rounds.mirror()
        context = min(query.context, mirror.contexts - 1)
        x = np.array([query.features], np.int8)
        (probabilities,) = self._rounds.replica.infer(x, mirror.heads[context], mirror.adapter)
        shares = [int(share) for share in probabilities]
        return local_answer(made, shares, mirror.version, self._belief(context))

    def _belief(self, context: int) -> float | None:
        """How far the probabilities of a context's head are believed, by what its nodes say of themselves."""
        said = (
            (entry.status.serves, entry.status.risk)
            for entry in self._registry
            if entry.record.context == context
        )
        return belief_of(said, self._shape.classes)

    def _settle(self, now_us: int, query_id: int) -> list[Effect]:
        waiting = self._open[query_id]
        if not is_complete(waiting.plan, waiting.answers, now_us):
            return []
        del self._open[query_id]
        self._same.pop(question_key(waiting.plan.query), None)
        contexts = {answered.message.context for answered in waiting.answers}
        beliefs = {context: self._belief(context) for context in contexts}
        return self._finish(now_us, query_id, waiting, combine(waiting.plan, waiting.answers, beliefs))

    def _finish(self, now_us: int, query_id: int, waiting: _Open, answer: Answer) -> list[Effect]:
        for target in waiting.plan.targets:
            self._downlinks.withdraw(target.dev_eui, _tag(query_id))
        silent_us = sum(waiting.questions_us.values())
        data: dict[str, Any] = {**asdict(answer), "latency_s": (now_us - waiting.asked_us) / SECOND_US}
        data["airtime_us"] += silent_us
        data["energy_mj"] = round(data["energy_mj"] + receive_mj(silent_us), 3)
        if waiting.plan.reason is not None:
            data["reason"] = waiting.plan.reason
        named = _named(waiting.plan.query, data)
        effects: list[Effect] = [self._row(query_id, waiting, named), Event("query_answered", now_us, named)]
        self._answers.keep(now_us, waiting.plan.query, data)
        for query, asked_us, deadline_us in waiting.others:
            if answer.value is not None or now_us >= deadline_us:
                effects += self._repeat(now_us, query, asked_us, (now_us, data))
            else:  # they have more time than the one who asked first
                effects += self._take(now_us, query, asked_us, deadline_us)
        return effects

    def _repeat(
        self, now_us: int, query: Query, asked_us: int, known: tuple[int, dict[str, Any]]
    ) -> list[Effect]:
        """Give the answer of the same question: it has an age, and cost nothing more."""
        answered_us, answer = known
        plan = Plan(query, (), 0, now_us, 0)
        data = {
            **{name: value for name, value in answer.items() if name != "reference"},
            "query_id": query.query_id,
            "airtime_us": 0,
            "energy_mj": 0.0,
            "age_s": (now_us - answered_us) / SECOND_US,
            "latency_s": (now_us - asked_us) / SECOND_US,
        }
        data = _named(query, data)
        effects: list[Effect] = [self._row(query.query_id, _Open(plan, asked_us), data)]
        effects += self._forget_oldest(query.query_id)
        if asked_us == now_us:
            asked = {"query_id": query.query_id, "nodes": [], "kind": query.kind}
            effects.append(Event("query_asked", now_us, asked))
        return [*effects, Event("query_answered", now_us, data)]

    def _answer_us(self, entry: Entry) -> int:
        """Airtime of the ANSWER that just came from a node."""
        assert entry.status.data_rate is not None
        size = ANSWER_HEADER + self._shape.classes + MAC_SIZE
        return self._region.airtime_us(entry.status.data_rate, size, uplink=True)

    def _row(self, query_id: int, waiting: _Open, answer: dict[str, Any] | None) -> Store:
        row: Row = {
            "text": waiting.plan.query.to_json(),
            "asked_us": waiting.asked_us,
            "deadline_us": waiting.plan.deadline_us,
            "state": "open" if answer is None else "answered",
            "answer": None if answer is None else json.dumps(answer, sort_keys=True),
        }
        return Store("query", str(query_id), row)

    def _forget_oldest(self, query_id: int) -> list[Store]:
        """Keep the last `queries_max` questions on disk."""
        if query_id in self._stored:
            return []
        self._stored.append(query_id)
        stores = []
        waiting = {query.query_id for each in self._open.values() for query, *_ in each.others} | set(
            self._open
        )
        while len(self._stored) > self._config.queries_max:
            oldest = self._stored.pop(0)
            if oldest not in waiting:
                stores.append(Store("query", str(oldest), None))
        return stores


def _question_sent(waiting: _Open, dev_eui: str, _: int, airtime_us: int) -> list[Effect]:
    """A question has its slot (or gave it back)."""
    waiting.questions_us[dev_eui] = max(airtime_us, 0)
    return []


def _named(query: Query, data: dict[str, Any]) -> dict[str, Any]:
    """With the asker's own name for the question, when there is one."""
    return data if query.reference is None else {**data, "reference": query.reference}


def _tag(query_id: int) -> str:
    return f"query {query_id}"
