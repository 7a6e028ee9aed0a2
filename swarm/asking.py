"""Questions in flight: put to nodes, waited for, combined; one event tells the answer.

Theory of operation.  A question is planned (`inference.plan`: whom, in which slots, at what price), its
frames wait in the nodes' own queues (class A: the next uplink opens the door), answers gather until
quorum or deadline, and `inference.combine` makes one answer of them, partial ones included.  Features
that somebody hands in are judged by the gateway's own replica of the model: no airtime.

Questions are stored when they are taken and when they are answered.  After a restart the open ones are
put again, for the time that is left.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from swarm.config import SwarmConfig
from swarm.downlinks import Downlinks, Pending
from swarm.effects import Effect, Event, Purpose, Row, Store
from swarm.inference.combine import Answer, Answered, combine, is_complete, local_answer
from swarm.inference.plan import Candidate, Plan, Query, plan
from swarm.phy.regions import Region
from swarm.registry import Entry, Registry
from swarm.rounds import Rounds
from swarm.wire import app

__all__ = ["Asking"]

QUERY_IDS = 1 << 16
SECOND_US = 1_000_000


@dataclass(slots=True)
class _Open:
    plan: Plan
    asked_us: int
    answers: list[Answered] = field(default_factory=list)


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
        self._stored: list[int] = []
        self._restart: list[tuple[Query, int, int]] = []
        for key, row in sorted(rows.get("query", {}).items(), key=lambda item: int(item[1]["asked_us"])):  # type: ignore[arg-type]
            self._stored.append(int(key))
            query = Query.from_json(str(row["text"]))
            if row["state"] == "open" and isinstance(query, Query) and self._fault(query) is None:
                self._restart.append((query, int(row["asked_us"]), int(row["deadline_us"])))  # type: ignore[arg-type]
        self._next_id = (self._stored[-1] + 1) % QUERY_IDS if self._stored else 1

    def __len__(self) -> int:
        """How many questions wait for their answer."""
        return len(self._open)

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
        for entry in self._registry:
            record = entry.record
            if near.lower() in (record.name.lower(), record.dev_eui):
                if record.lat is None or record.lon is None:
                    return Query("node", dev_eui=record.dev_eui, deadline_s=deadline_s)
                return Query(
                    "place", lat=record.lat, lon=record.lon, context=context, k=k, deadline_s=deadline_s
                )
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
        if fault is None and len(self._open) >= self._config.queries_max:
            fault = f"{len(self._open)} questions are waiting already; ask again later"
        if fault is not None:
            refused = _named(query, {"query_id": query.query_id, "reason": fault})
            return [Event("query_refused", now_us, refused)]
        deadline_s = query.deadline_s or self._config.deadline_s
        return self._put(now_us, query, now_us, now_us + deadline_s * SECOND_US)

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
        spent = {target.dev_eui: target.airtime_us for target in waiting.plan.targets}
        answered = Answered(entry.record.dev_eui, message, now_us, spent.get(entry.record.dev_eui, 0))
        waiting.answers.append(answered)
        event = Event("answer", now_us, {"dev_eui": entry.record.dev_eui, "query_id": message.query_id})
        return [event, *self._settle(now_us, message.query_id)]

    def poll(self, now_us: int) -> list[Effect]:
        """Answer what has reached its deadline."""
        effects: list[Effect] = []
        restart, self._restart = self._restart, []
        for query, asked_us, deadline_us in restart:
            effects += self._put(now_us, query, asked_us, deadline_us)
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
            *(query for query, *_ in self._restart),
        ]
        return next((query for query in waiting if query.reference == reference), None)

    # -- a question's life ------------------------------------------------------------------------

    def _put(self, now_us: int, query: Query, asked_us: int, deadline_us: int) -> list[Effect]:
        made = plan(
            query,
            self._candidates(),
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
        for target in made.targets:
            payload = made.frame(target)
            tag = _tag(query.query_id)
            pending = Pending(11, payload, len(payload), Purpose.QUERY, deadline_us, tag)
            self._downlinks.enqueue(target.dev_eui, pending)
        return effects

    def _candidates(self) -> list[Candidate]:
        found = []
        for entry in self._registry:
            record, status = entry.record, entry.status
            if entry.session is None or status.data_rate is None:
                continue
            found.append(
                Candidate(
                    dev_eui=record.dev_eui,
                    node_index=record.node_index,
                    context=record.context,
                    data_rate=status.data_rate,
                    last_seen_us=status.last_seen_us,
                    battery=255 if status.battery is None else status.battery,
                    plot=record.plot,
                    lat=record.lat,
                    lon=record.lon,
                    model_version=status.model_version or 0,
                    reported_us=status.reported_us,
                    report_period_us=self._report_period_us,
                )
            )
        return found

    def _judge(self, made: Plan) -> Answer:
        """The gateway's own replica with the fleet's current head."""
        query = made.query
        assert query.features is not None and query.context is not None
        mirror = self._rounds.mirror()
        context = min(query.context, mirror.contexts - 1)
        x = np.array([query.features], np.int8)
        (probabilities,) = self._rounds.replica.infer(x, mirror.heads[context], mirror.adapter)
        return local_answer(made, [int(share) for share in probabilities], mirror.version)

    def _settle(self, now_us: int, query_id: int) -> list[Effect]:
        waiting = self._open[query_id]
        if not is_complete(waiting.plan, waiting.answers, now_us):
            return []
        del self._open[query_id]
        return self._finish(now_us, query_id, waiting, combine(waiting.plan, waiting.answers))

    def _finish(self, now_us: int, query_id: int, waiting: _Open, answer: Answer) -> list[Effect]:
        for target in waiting.plan.targets:
            self._downlinks.withdraw(target.dev_eui, _tag(query_id))
        data: dict[str, Any] = {**asdict(answer), "latency_s": (now_us - waiting.asked_us) / SECOND_US}
        if waiting.plan.reason is not None:
            data["reason"] = waiting.plan.reason
        data = _named(waiting.plan.query, data)
        return [self._row(query_id, waiting, data), Event("query_answered", now_us, data)]

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
        while len(self._stored) > self._config.queries_max:
            oldest = self._stored.pop(0)
            if oldest not in self._open:
                stores.append(Store("query", str(oldest), None))
        return stores


def _named(query: Query, data: dict[str, Any]) -> dict[str, Any]:
    """With the asker's own name for the question, when there is one."""
    return data if query.reference is None else {**data, "reference": query.reference}


def _tag(query_id: int) -> str:
    return f"query {query_id}"
