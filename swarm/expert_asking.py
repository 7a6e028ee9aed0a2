"""Experts on demand: a node asks for what its flash does not hold, the replica or other nodes compute it.

Theory of operation.  An ASK names up to two experts and brings their input.  Each missing expert is a *part* of
the question, computed by the first of these that can: the outputs computed lately for the same input, the
gateway's own replica (when it holds that expert of the node's generation), holders among the nodes.  When all
parts are there, their weighted sum goes down in one REPLY: at once, so in the receive windows of the very ASK,
unless holders had to be asked; then with a later uplink of the asker (which repeats its ASK), or at once when its
receiver is always on.

Holders are asked one after another, the best first: an expert is integer arithmetic, so one honest answer is
as good as ten.  With `asking.holders` above one that many answers are compared: equal bytes are believed, who
differs from the majority loses trust, and one more is asked when there is none.  A holder that is
silent for longer than its turn takes is passed over.  At the deadline the parts that came are sent, the share of the gate's
weight they stand for is the answer's `coverage`, and none at all tells the node that nobody could help.

Open questions are rows; after a restart those that still have time put their parts again.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from swarm.config import SwarmConfig
from swarm.downlinks import Downlinks, Pending
from swarm.effects import Effect, Event, Malformed, Purpose, Row, Store
from swarm.inference.candidates import candidate_of
from swarm.inference.holders import Holder, Holders, plausible, rank
from swarm.inference.plan import MAC_SIZE, due_us
from swarm.node import Model
from swarm.phy.energy import receive_mj, transmit_mj
from swarm.phy.regions import Region
from swarm.registry import Entry, Registry
from swarm.wire import app, expert

__all__ = ["EXPERT_QUERY_IDS", "ExpertAsking"]

EXPERT_QUERY_IDS = (1 << 15, 1 << 16)
"""Query ids of expert questions; those of people are below."""
OUTPUTS_KEPT = 1024
"""Computed outputs that are remembered: the same input to the same expert gives the same output."""
RECENT_MAX = 1024
HOLDERS_TRIED_MAX = 4
TURN_US = 30_000_000
"""How long after it can have heard the question a holder may take."""
PORT = 11
SECOND_US = 1_000_000
ASK_SIZE, OUTPUT_SIZE, QUERY_SIZE = 45, 40, 41

_Key = tuple[int, int, bytes]
"""Expert, generation, input."""


@dataclass(slots=True)
class _Part:
    """One missing expert of a question."""

    query_id: int
    slot: int
    expert: int
    weight: int
    turns: dict[str, int] = field(default_factory=dict)
    """Holder -> when its turn is over (us); 0: it was passed over."""
    outputs: dict[str, bytes] = field(default_factory=dict)
    output: bytes | None = None
    source: str = ""
    """`replica`, `cache`, or the DevEUI of the holder that is believed."""

    @property
    def tag(self) -> str:
        return f"expert {self.query_id}"

    def waits(self, now_us: int) -> bool:
        """Whether a holder's turn is running."""
        return any(
            until_us > now_us and dev_eui not in self.outputs for dev_eui, until_us in self.turns.items()
        )


@dataclass(slots=True)
class _Open:
    dev_eui: str
    ask: expert.Ask
    asked_us: int
    deadline_us: int
    parts: list[_Part]
    frames: int = 0
    airtime_us: int = 0
    energy_mj: float = 0.0
    stored: bool = False
    replied: bool = False
    """The REPLY waits for the asker's receive windows."""

    @property
    def key(self) -> str:
        return f"{self.dev_eui}/{self.ask.ask_id}"

    @property
    def tag(self) -> str:
        return f"reply {self.ask.ask_id}"

    def uplink(self, airtime_us: int) -> None:
        """A node sent a frame for this question."""
        self.frames += 1
        self.airtime_us += airtime_us
        self.energy_mj += transmit_mj(airtime_us)

    def downlink(self, airtime_us: int) -> None:
        """A node was sent one; negative: the radio did not send it after all."""
        self.frames += 1 if airtime_us > 0 else -1
        self.airtime_us += airtime_us
        self.energy_mj += receive_mj(airtime_us)


class ExpertAsking:
    """The expert questions of one cell."""

    def __init__(
        self,
        config: SwarmConfig,
        registry: Registry,
        downlinks: Downlinks,
        replica: Model,
        region: Region,
        rows: Mapping[str, Mapping[str, Row]],
    ) -> None:
        self._config = config.asking
        self._report_period_us = config.status_period_min * 60 * SECOND_US
        self._registry = registry
        self._downlinks = downlinks
        self._replica = replica
        self._region = region
        self.holders = Holders(rows)
        self._open: dict[str, _Open] = {}
        self._waiting: dict[int, tuple[_Open, _Part]] = {}
        """Query id -> the part that holders were asked for."""
        self._recent: OrderedDict[str, _Open] = OrderedDict()
        """Answered ones: the same ASK again means that the REPLY was not heard."""
        self._outputs: OrderedDict[_Key, bytes] = OrderedDict()
        restored = (_from_text(str(row["text"])) for row in rows.get("expert_ask", {}).values())
        self._restart = [opened for opened in restored if opened is not None]
        used = [part.query_id + 1 for opened in self._restart for part in opened.parts]
        self._next_id = max(used, default=EXPERT_QUERY_IDS[0])

    def __len__(self) -> int:
        """How many questions wait, for holders or for their asker's next uplink."""
        return len(self._open)

    # -- inputs -----------------------------------------------------------------------------------

    def on_experts(self, now_us: int, entry: Entry, message: expert.Experts) -> list[Effect]:
        """A node said which experts it holds."""
        dev_eui = entry.record.dev_eui
        data = {
            "dev_eui": dev_eui,
            "held": [e for e in range(len(message.seen)) if message.held >> e & 1],
            "generation": message.generation,
            "seen": list(message.seen),
            "always_on": bool(message.flags & expert.ALWAYS_ON),
        }
        return [*self.holders.report(now_us, dev_eui, message), Event("experts", now_us, data)]

    def on_ask(self, now_us: int, entry: Entry, message: expert.Ask) -> list[Effect]:
        """A node asks; the same question again waits on, or gets its REPLY once more."""
        dev_eui = entry.record.dev_eui
        key = f"{dev_eui}/{message.ask_id}"
        known = self._open.get(key) or self._recent.get(key)
        if known is not None and known.ask == message:
            known.uplink(self._uplink_us(entry, ASK_SIZE))
            return [] if key in self._open else self._reply(now_us, known)
        effects = self._forget(known) if known is not None else []  # the node's counter began anew
        self._recent.pop(key, None)
        deadline_us = now_us + self._config.expert_deadline_s * SECOND_US
        opened = _Open(dev_eui, message, now_us, deadline_us, self._parts(message))
        opened.uplink(self._uplink_us(entry, ASK_SIZE))
        data = {
            "dev_eui": dev_eui,
            "ask_id": message.ask_id,
            "experts": [part.expert for part in opened.parts],
        }
        return [*effects, Event("expert_asked", now_us, data), *self._begin(now_us, opened)]

    def on_output(self, now_us: int, entry: Entry, message: expert.Output) -> list[Effect]:
        """A holder sent what it computed."""
        dev_eui = entry.record.dev_eui
        data = {"dev_eui": dev_eui, "query_id": message.query_id}
        found = self._waiting.get(message.query_id)
        if found is None or dev_eui not in found[1].turns:
            return [Event("answer_late", now_us, data)]
        opened, part = found
        opened.uplink(self._uplink_us(entry, OUTPUT_SIZE))
        effects: list[Effect] = [*self.holders.answered(dev_eui)]
        meant = (message.expert, message.generation) == (part.expert, opened.ask.generation)
        if not meant or not plausible(message.output):
            part.turns[dev_eui] = 0
            effects += [*self.holders.was_contradicted(dev_eui), Event("answer_refused", now_us, data)]
            return effects + self._ask_next(now_us, opened, part)
        part.outputs.setdefault(dev_eui, message.output)
        return [*effects, Event("answer", now_us, data), *self._judge(now_us, opened, part)]

    def poll(self, now_us: int) -> list[Effect]:
        """Pass over silent holders; reply what is there at the deadline."""
        effects: list[Effect] = []
        restart, self._restart = self._restart, []
        for opened in restart:
            effects += self._begin(now_us, opened)
        for opened, part in list(self._waiting.values()):
            if part.query_id in self._waiting and not part.waits(now_us) and now_us < opened.deadline_us:
                effects += self._pass_over(now_us, opened, part)
        for opened in [each for each in self._open.values() if now_us >= each.deadline_us]:
            if opened.replied:
                data = {"dev_eui": opened.dev_eui, "ask_id": opened.ask.ask_id}
                effects += [*self._forget(opened), Event("expert_unheard", now_us, data)]
            else:
                opened.deadline_us += self._config.expert_deadline_s * SECOND_US
                effects += self._reply(now_us, opened)
        return effects

    def poll_at(self) -> int | None:
        if self._restart:
            return 0
        times = [opened.deadline_us for opened in self._open.values()]
        for opened, part in self._waiting.values():
            turns = [until_us for dev_eui, until_us in part.turns.items() if dev_eui not in part.outputs]
            times.append(min(max(turns, default=opened.deadline_us), opened.deadline_us))
        return min(times, default=None)

    # -- a question's life ------------------------------------------------------------------------

    def _parts(self, ask: expert.Ask) -> list[_Part]:
        """The missing experts; those that need nobody have their output already."""
        parts = []
        for slot, index, weight in ask.lacking():
            part = _Part(self._next_id, slot, index, weight)
            first, end = EXPERT_QUERY_IDS
            self._next_id = first + (self._next_id + 1 - first) % (end - first)
            key = (index, ask.generation, ask.input)
            if key in self._outputs:
                part.output, part.source = self._outputs[key], "cache"
            elif self._config.replica and self._replica.generation == ask.generation:
                part.output = self._replica.expert(index, ask.input)
                part.source = "replica" if part.output is not None else ""
            parts.append(part)
        return parts

    def _begin(self, now_us: int, opened: _Open) -> list[Effect]:
        """Reply at once, or put the question to holders."""
        full = len(self._open) >= self._config.queries_max
        self._open[opened.key] = opened
        missing = [part for part in opened.parts if part.output is None]
        if full or not missing:
            return self._reply(now_us, opened)
        effects: list[Effect] = []
        for part in missing:
            self._waiting[part.query_id] = (opened, part)
        for part in missing:
            for _ in range(self._config.holders - len(part.outputs)):
                if part.query_id in self._waiting:
                    effects += self._ask_next(now_us, opened, part)
        if not opened.replied:
            effects.insert(0, self._store(opened))
        return effects

    def _ask_next(self, now_us: int, opened: _Open, part: _Part) -> list[Effect]:
        """Put the part to the best holder that was not asked yet; give the part up when there is none."""
        best = self._best_holder(now_us, opened, part)
        entry = None if best is None else self._registry.get(best.dev_eui)
        if best is None or entry is None or entry.session is None:
            return [] if part.waits(now_us) else self._give_up(now_us, opened, part)
        generation = opened.ask.generation
        payload = app.encode(expert.ExpertQuery(part.query_id, part.expert, generation, 0, opened.ask.input))
        pending = Pending(
            f_port=PORT,
            payload=payload,
            size=len(payload),
            purpose=Purpose.QUERY,
            expires_us=opened.deadline_us,
            tag=part.tag,
            sent=lambda slot_us, airtime_us: self._query_sent(opened, airtime_us),
        )
        node = candidate_of(entry, self._report_period_us)
        assert node is not None
        hears_us = now_us if best.always_on else due_us(node, now_us, opened.deadline_us)
        part.turns[best.dev_eui] = min(hears_us + TURN_US, opened.deadline_us)
        if best.always_on:
            return self._downlinks.send_now(now_us, entry.session, pending)
        self._downlinks.enqueue(best.dev_eui, pending)
        return []

    def _best_holder(self, now_us: int, opened: _Open, part: _Part) -> Holder | None:
        if len(part.turns) >= HOLDERS_TRIED_MAX:
            return None
        asked = {*part.turns, *part.outputs, opened.dev_eui}
        free = {
            holder.dev_eui: holder
            for holder in self.holders.of(part.expert, opened.ask.generation, now_us)
            if holder.dev_eui not in asked
        }
        entries = (self._registry.get(dev_eui) for dev_eui in free)
        nodes = (candidate_of(entry, self._report_period_us) for entry in entries if entry is not None)
        ranked = rank(
            free.values(),
            {node.dev_eui: node for node in nodes if node is not None},
            region=self._region,
            now_us=now_us,
            deadline_us=opened.deadline_us,
            sizes=(QUERY_SIZE, OUTPUT_SIZE),
        )
        return ranked[0] if ranked else None

    def _pass_over(self, now_us: int, opened: _Open, part: _Part) -> list[Effect]:
        """Nobody who was asked answered in his turn."""
        effects: list[Effect] = []
        for dev_eui, until_us in part.turns.items():
            if dev_eui not in part.outputs and until_us > 0:
                part.turns[dev_eui] = 0
                self._downlinks.withdraw(dev_eui, part.tag)
                effects += self.holders.stayed_silent(dev_eui)
        return effects + self._ask_next(now_us, opened, part)

    def _judge(self, now_us: int, opened: _Open, part: _Part) -> list[Effect]:
        """Believe what more than half of the wanted answers say; ask one more when they disagree."""
        ranked = Counter(part.outputs.values()).most_common(2)
        if ranked[0][1] > self._config.holders // 2:
            return self._believe(now_us, opened, part, ranked[0][0])
        return [] if part.waits(now_us) else self._ask_next(now_us, opened, part)

    def _give_up(self, now_us: int, opened: _Open, part: _Part) -> list[Effect]:
        """There is nobody left to ask: what most of those who answered say, if they do not balance, or nothing."""
        ranked = Counter(part.outputs.values()).most_common(2)
        if ranked and (len(ranked) == 1 or ranked[0][1] > ranked[1][1]):
            return self._believe(now_us, opened, part, ranked[0][0])
        del self._waiting[part.query_id]
        if any(other.query_id in self._waiting for other in opened.parts):
            return []
        return self._reply(now_us, opened)

    def _believe(self, now_us: int, opened: _Open, part: _Part, output: bytes) -> list[Effect]:
        effects: list[Effect] = []
        for dev_eui, other in part.outputs.items():
            if other != output:
                effects += self.holders.was_contradicted(dev_eui)
            elif not part.source:
                part.source = dev_eui
        part.output = output
        del self._waiting[part.query_id]
        self._outputs[part.expert, opened.ask.generation, opened.ask.input] = output
        while len(self._outputs) > OUTPUTS_KEPT:
            self._outputs.popitem(last=False)
        if any(other.query_id in self._waiting for other in opened.parts):
            return [*effects, self._store(opened)]
        return effects + self._reply(now_us, opened)

    def _reply(self, now_us: int, opened: _Open) -> list[Effect]:
        """Let what is there go down with the next receive window of the asker."""
        entry = self._registry.get(opened.dev_eui)
        self._withdraw(opened)
        if entry is None or entry.session is None:
            return self._forget(opened)
        flags, contribution = _sum(opened.parts)
        payload = app.encode(expert.Reply(opened.ask.ask_id, flags, contribution))
        pending = Pending(
            f_port=PORT,
            payload=payload,
            size=len(payload),
            purpose=Purpose.QUERY,
            expires_us=opened.deadline_us,
            tag=opened.tag,
            sent=lambda slot_us, airtime_us: self._reply_sent(opened, slot_us, airtime_us),
        )
        opened.replied = True
        self._open[opened.key] = opened
        holder = self.holders.get(opened.dev_eui)
        if holder is not None and holder.always_on and now_us > opened.asked_us:
            return self._downlinks.send_now(now_us, entry.session, pending)
        self._downlinks.enqueue(opened.dev_eui, pending, first=True)
        return []

    def _query_sent(self, opened: _Open, airtime_us: int) -> list[Effect]:
        opened.downlink(airtime_us)
        return []

    def _reply_sent(self, opened: _Open, slot_us: int, airtime_us: int) -> list[Effect]:
        opened.downlink(airtime_us)
        if airtime_us < 0:  # the radio refused: the frame waits again
            self._open[opened.key] = opened
            return []
        first = self._recent.pop(opened.key, None) is None
        effects = self._forget(opened)
        self._recent[opened.key] = opened
        while len(self._recent) > RECENT_MAX:
            self._recent.popitem(last=False)
        if first:
            effects.append(Event("expert_answered", slot_us, _told(opened, slot_us + airtime_us)))
        return effects

    def _withdraw(self, opened: _Open) -> None:
        for part in opened.parts:
            self._waiting.pop(part.query_id, None)
            for dev_eui in part.turns:
                self._downlinks.withdraw(dev_eui, part.tag)

    def _forget(self, opened: _Open) -> list[Effect]:
        self._open.pop(opened.key, None)
        self._withdraw(opened)
        self._downlinks.withdraw(opened.dev_eui, opened.tag)
        stored, opened.stored = opened.stored, False
        return [Store("expert_ask", opened.key, None)] if stored else []

    def _store(self, opened: _Open) -> Store:
        opened.stored = True
        return Store("expert_ask", opened.key, {"text": _to_text(opened)})

    def _uplink_us(self, entry: Entry, payload_size: int) -> int:
        """Airtime of the uplink that just came from a node."""
        assert entry.status.data_rate is not None
        return self._region.airtime_us(entry.status.data_rate, payload_size + MAC_SIZE, uplink=True)


def _sum(parts: list[_Part]) -> tuple[int, bytes]:
    """(flags, contribution) of a REPLY: the outputs that came, weighted as the engine does it."""
    flags = 0
    total = [0] * expert.HIDDEN
    for part in parts:
        if part.output is not None:
            flags |= 1 << part.slot
            values = expert.fine(part.output)
            total = [
                min(127, t + (value * part.weight + 128 >> 8)) for t, value in zip(total, values, strict=True)
            ]
    came = [part for part in parts if part.output is not None]
    if came and all(part.source == "replica" for part in came):
        flags |= expert.REPLY_FROM_REPLICA
    return flags, expert.coarse(total)


def _told(opened: _Open, heard_us: int) -> dict[str, Any]:
    """What the event `expert_answered` says; the node has the answer at `heard_us`."""
    came = [part for part in opened.parts if part.output is not None]
    wanted = sum(part.weight for part in opened.parts)
    return {
        "dev_eui": opened.dev_eui,
        "ask_id": opened.ask.ask_id,
        "coverage": sum(part.weight for part in came) / wanted if wanted else 0.0,
        "experts": [
            {
                "expert": part.expert,
                "generation": opened.ask.generation,
                "weight": part.weight / expert.WEIGHT_ONE,
                "source": part.source or None,
            }
            for part in opened.parts
        ],
        "label_alone": opened.ask.label,
        "confidence_alone": opened.ask.probability / 255,
        "frames": opened.frames,
        "airtime_us": opened.airtime_us,
        "energy_mj": round(opened.energy_mj, 3),
        "latency_s": (heard_us - opened.asked_us) / SECOND_US,
    }


def _to_text(opened: _Open) -> str:
    parts = [
        {
            "query_id": part.query_id,
            "slot": part.slot,
            "expert": part.expert,
            "weight": part.weight,
            "outputs": {dev_eui: output.hex() for dev_eui, output in part.outputs.items()},
            "output": None if part.output is None else part.output.hex(),
            "source": part.source,
        }
        for part in opened.parts
    ]
    text = {
        "dev_eui": opened.dev_eui,
        "ask": app.encode(opened.ask).hex(),
        "asked_us": opened.asked_us,
        "deadline_us": opened.deadline_us,
        "frames": opened.frames,
        "airtime_us": opened.airtime_us,
        "energy_mj": opened.energy_mj,
        "parts": parts,
    }
    return json.dumps(text, sort_keys=True)


def _from_text(text: str) -> _Open | None:
    """The question that `_to_text` wrote; None when it is damaged (the node will ask again)."""
    try:
        kept = json.loads(text)
        ask = app.decode_uplink(PORT, bytes.fromhex(kept.pop("ask")))
        parts = [
            _Part(
                part["query_id"],
                part["slot"],
                part["expert"],
                part["weight"],
                outputs={dev_eui: bytes.fromhex(output) for dev_eui, output in part["outputs"].items()},
                output=None if part["output"] is None else bytes.fromhex(part["output"]),
                source=part["source"],
            )
            for part in kept.pop("parts")
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    if isinstance(ask, Malformed) or not isinstance(ask, expert.Ask):
        return None
    return _Open(ask=ask, parts=parts, stored=True, **kept)
