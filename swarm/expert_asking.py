"""Experts on demand: a node asks for what its flash does not hold, the replica or other nodes compute it.

Theory of operation.  An ASK names up to two experts and brings their input.  What they add to the node's
hidden vector is computed by the first of these that can: the gateway's own replica (when it holds the
expert, of the node's generation), what was computed lately for the same input, a node that holds all that is
missing, two nodes that hold one expert each (the question then has two *parts*).  When all parts are there,
their sum goes down in one REPLY: at once, so in the receive windows of the very ASK, unless holders had to
be asked; then with a later uplink of the asker (which repeats its ASK), or at once when its receiver is
always on.

Holders are asked one after another, the best first: an expert is integer arithmetic, so one honest answer is
as good as ten.  With `asking.holders` above one that many answers are compared: equal bytes are believed, who
differs from the majority loses trust, and one more is asked when there is none.  A holder that is silent for
longer than its turn takes is passed over.  At the deadline the parts
that came are sent; the share of the gate's weight that they stand for is the answer's `coverage`, and none at
all tells the node that nobody could help.

Open questions are rows; after a restart those that still have time put their parts again.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping

from swarm.config import SwarmConfig
from swarm.downlinks import Downlinks, Pending
from swarm.effects import Effect, Event, Purpose, Row, Store
from swarm.inference.candidates import candidate_of, place_of
from swarm.inference.expert_question import (
    ContributionKey,
    ExpertQuestion,
    Part,
    contribution_key,
    from_text,
    provenance,
    reply,
    to_text,
)
from swarm.inference.holders import Holder, Holders, plausible, rank
from swarm.inference.placement import Assignment, place
from swarm.inference.plan import MAC_SIZE, due_us
from swarm.node import Model
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
TURN_US = 12_000_000
"""How long after it can have heard the question a holder may take."""
PORT = app.F_PORT_ASKING
SECOND_US = 1_000_000
ASK_SIZE, OUTPUT_SIZE, QUERY_SIZE = 45, 40, 44


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
        self._open: dict[str, ExpertQuestion] = {}
        self._waiting: dict[int, tuple[ExpertQuestion, Part]] = {}
        """Query id -> the part that holders were asked for."""
        self._recent: OrderedDict[str, ExpertQuestion] = OrderedDict()
        """Answered ones: the same ASK again means that the REPLY was not heard."""
        self._outputs: OrderedDict[ContributionKey, bytes] = OrderedDict()
        restored = (from_text(str(row["text"])) for row in rows.get("expert_ask", {}).values())
        self._restart = [opened for opened in restored if opened is not None]
        used = [part.query_id + 1 for opened in self._restart for part in opened.parts]
        self._next_id = max(used, default=EXPERT_QUERY_IDS[0])

    def __len__(self) -> int:
        """How many questions wait, for holders or for their asker's next uplink."""
        return len(self._open)

    def plan(self, now_us: int, *, room: int, replicas: int) -> list[Assignment]:
        """Which node should hold which experts, `room` in each, of those that said what their gates
        choose."""
        period_us, experts = self._report_period_us, self.experts
        places = (
            place_of(holder, entry, experts, room, now_us, period_us)
            for holder in self.holders
            if (entry := self._registry.get(holder.dev_eui)) is not None
        )
        return place(places, experts, replicas=replicas)

    @property
    def experts(self) -> int:
        """How many there are, as nodes say; not more than the gateway's own model has, if it has any."""
        said = max((len(holder.seen) for holder in self.holders), default=0)
        return min(said, self._replica.expert_count or said)

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
        opened = ExpertQuestion(dev_eui, message, now_us, deadline_us, self._parts(message))
        opened.uplink(self._uplink_us(entry, ASK_SIZE))
        data = {
            "dev_eui": dev_eui,
            "ask_id": message.ask_id,
            "experts": list(message.experts(message.missing)),
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
        if message.generation != opened.ask.generation or message.done != part.slots:
            part.turns[dev_eui] = 0  # its model is another one by now
            return [*effects, *self._advance(now_us, opened)]
        if not plausible(message.contribution):
            part.turns[dev_eui] = 0
            effects += [*self.holders.was_contradicted(dev_eui)]
            effects.append(Event("answer_refused", now_us, {**data, "reason": "implausible"}))
            return effects + self._advance(now_us, opened)
        part.outputs.setdefault(dev_eui, message.contribution)
        return [*effects, Event("answer", now_us, data), *self._judge(now_us, opened, part)]

    def poll(self, now_us: int) -> list[Effect]:
        """Pass over silent holders; reply what is there at the deadline."""
        effects: list[Effect] = []
        restart, self._restart = self._restart, []
        for opened in restart:
            effects += self._begin(now_us, opened)
        for opened, part in list(self._waiting.values()):
            if part.query_id in self._waiting and part.is_overdue(now_us) and now_us < opened.deadline_us:
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
            times += [min(until_us, opened.deadline_us) for until_us in part.running().values()]
        return min(times, default=None)

    # -- a question's life ------------------------------------------------------------------------

    def _parts(self, ask: expert.Ask) -> list[Part]:
        """What is missing; the parts that need nobody have their output already."""
        parts = []
        rest = ask.missing
        if self._config.replica and self._replica.generation == ask.generation:
            done, output = self._replica.contribution(ask)
            if done:
                parts.append(Part(self._new_id(), done, output=output, source="replica"))
                rest &= ~done
        if rest:
            part = Part(self._new_id(), rest)
            part.output = self._outputs.get(contribution_key(ask, rest))
            part.source = "" if part.output is None else "cache"
            parts.append(part)
        return parts

    def _new_id(self) -> int:
        first, end = EXPERT_QUERY_IDS
        made = self._next_id
        self._next_id = first + (made + 1 - first) % (end - first)
        return made

    def _begin(self, now_us: int, opened: ExpertQuestion) -> list[Effect]:
        """Reply at once, or put the question to holders."""
        full = len(self._open) >= self._config.queries_max
        self._open[opened.key] = opened
        missing = [part for part in opened.parts if part.output is None]
        if full or not missing:
            return self._reply(now_us, opened)
        effects: list[Effect] = []
        for part in missing:
            self._waiting[part.query_id] = (opened, part)
        effects += self._advance(now_us, opened)
        if not opened.replied:
            effects.insert(0, self._store(opened))
        return effects

    def _advance(self, now_us: int, opened: ExpertQuestion) -> list[Effect]:
        """Ask the next holders, as many as there have to be, or give parts up for which there are none."""
        effects: list[Effect] = []
        while not opened.replied and (part := self._idle(opened)) is not None:
            holder = self._best_holder(now_us, opened, part)
            entry = None if holder is None else self._registry.get(holder.dev_eui)
            if holder is not None and entry is not None and entry.reachable:
                effects += self._put(now_us, opened, part, holder, entry)
            elif part.running():
                part.exhausted = True
            else:
                effects += self._give_up(now_us, opened, part)
        return effects

    def _idle(self, opened: ExpertQuestion) -> Part | None:
        """A part for which one more holder has to be asked.

        Not while one works whose receiver is always on: sending to the next would make the gateway deaf to
        it.
        """
        waiting = [part for part in opened.parts if part.query_id in self._waiting]
        for part in waiting:
            turns = (self.holders.get(dev_eui) for dev_eui in part.running())
            if any(holder is not None and holder.always_on for holder in turns):
                return None
        for part in waiting:
            wanted = max(self._config.holders, len(part.outputs) + 1)
            running = len(part.running())
            if not running if part.exhausted else len(part.outputs) + running < wanted:
                return part
        return None

    def _put(
        self, now_us: int, opened: ExpertQuestion, part: Part, holder: Holder, entry: Entry
    ) -> list[Effect]:
        """Put the part to one holder."""
        ask = opened.ask
        query = expert.ExpertQuery(
            part.query_id, ask.generation, ask.picks, ask.weight, part.slots, 0, ask.input
        )
        payload = app.encode(query)
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
        hears_us = now_us if holder.always_on else due_us(node, now_us, opened.deadline_us)
        part.turns[holder.dev_eui] = min(hears_us + TURN_US, opened.deadline_us)
        if holder.always_on and entry.session is not None:
            return self._downlinks.send_now(now_us, entry.session, pending)
        self._downlinks.enqueue(holder.dev_eui, pending)
        return []

    def _best_holder(self, now_us: int, opened: ExpertQuestion, part: Part) -> Holder | None:
        if len(part.turns) >= HOLDERS_TRIED_MAX:
            return None
        asked = {*part.turns, *part.outputs, opened.dev_eui}
        free = {
            holder.dev_eui: holder
            for holder in self.holders.of(opened.ask.experts(part.slots), opened.ask.generation, now_us)
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

    def _pass_over(self, now_us: int, opened: ExpertQuestion, part: Part) -> list[Effect]:
        """Some who were asked did not answer in their turn."""
        effects: list[Effect] = []
        for dev_eui, until_us in part.running().items():
            if until_us <= now_us:
                part.turns[dev_eui] = 0
                self._downlinks.withdraw(dev_eui, part.tag)
                effects += self.holders.stayed_silent(dev_eui)
        return effects + self._advance(now_us, opened)

    def _judge(self, now_us: int, opened: ExpertQuestion, part: Part) -> list[Effect]:
        """Believe what more than half of the wanted answers say; else one more is asked."""
        ranked = Counter(part.outputs.values()).most_common(1)
        if ranked[0][1] > self._config.holders // 2:
            return self._believe(now_us, opened, part, ranked[0][0])
        return self._advance(now_us, opened)

    def _give_up(self, now_us: int, opened: ExpertQuestion, part: Part) -> list[Effect]:
        """There is nobody left to ask: what most of those who answered say, if they do not balance, or
        nothing."""
        ranked = Counter(part.outputs.values()).most_common(2)
        if ranked and (len(ranked) == 1 or ranked[0][1] > ranked[1][1]):
            return self._believe(now_us, opened, part, ranked[0][0])
        del self._waiting[part.query_id]
        if part.slots == expert.BOTH:
            self._split(opened, part)
            return []
        if any(other.query_id in self._waiting for other in opened.parts):
            return []  # the others go on
        return self._reply(now_us, opened)

    def _split(self, opened: ExpertQuestion, part: Part) -> None:
        """Nobody holds both experts: each is a part of its own."""
        opened.parts.remove(part)
        halves = [Part(self._new_id(), slots, turns=dict.fromkeys(part.turns, 0)) for slots in (1, 2)]
        opened.parts += halves
        for half in halves:
            self._waiting[half.query_id] = (opened, half)

    def _believe(self, now_us: int, opened: ExpertQuestion, part: Part, output: bytes) -> list[Effect]:
        effects: list[Effect] = []
        for dev_eui, other in part.outputs.items():
            if other != output:
                effects += self.holders.was_contradicted(dev_eui)
            elif not part.source:
                part.source = dev_eui
        part.output = output
        del self._waiting[part.query_id]
        self._outputs[contribution_key(opened.ask, part.slots)] = output
        while len(self._outputs) > OUTPUTS_KEPT:
            self._outputs.popitem(last=False)
        if any(other.query_id in self._waiting for other in opened.parts):
            return [*effects, self._store(opened), *self._advance(now_us, opened)]
        return effects + self._reply(now_us, opened)

    def _reply(self, now_us: int, opened: ExpertQuestion) -> list[Effect]:
        """Let what is there go down with the next receive window of the asker."""
        entry = self._registry.get(opened.dev_eui)
        self._withdraw(opened)
        if entry is None or not entry.reachable:
            return self._forget(opened)
        payload = app.encode(reply(opened))
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
        always_on = holder is not None and holder.always_on and now_us > opened.asked_us
        if always_on and entry.session is not None:
            return self._downlinks.send_now(now_us, entry.session, pending)
        self._downlinks.enqueue(opened.dev_eui, pending, first=True)
        return []

    def _query_sent(self, opened: ExpertQuestion, airtime_us: int) -> list[Effect]:
        opened.downlink(airtime_us)
        return []

    def _reply_sent(self, opened: ExpertQuestion, slot_us: int, airtime_us: int) -> list[Effect]:
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
            effects.append(Event("expert_answered", slot_us, provenance(opened, slot_us + airtime_us)))
        return effects

    def _withdraw(self, opened: ExpertQuestion) -> None:
        for part in opened.parts:
            self._waiting.pop(part.query_id, None)
            for dev_eui in part.turns:
                self._downlinks.withdraw(dev_eui, part.tag)

    def _forget(self, opened: ExpertQuestion) -> list[Effect]:
        self._open.pop(opened.key, None)
        self._withdraw(opened)
        self._downlinks.withdraw(opened.dev_eui, opened.tag)
        stored, opened.stored = opened.stored, False
        return [Store("expert_ask", opened.key, None)] if stored else []

    def _store(self, opened: ExpertQuestion) -> Store:
        opened.stored = True
        return Store("expert_ask", opened.key, {"text": to_text(opened)})

    def _uplink_us(self, entry: Entry, payload_size: int) -> int:
        """Airtime of the uplink that just came from a node."""
        assert entry.status.data_rate is not None
        return self._region.airtime_us(entry.status.data_rate, payload_size + MAC_SIZE, uplink=True)
