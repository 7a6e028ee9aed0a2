"""The rounds of a cell, one after another: announce, gather, close, and keep the model they make.

Theory of operation.  At `next_open_us` a multicast window begins, in which the nodes listen.  Its programme:

    acknowledgements of the last round -> the model block, each frame `repeats` times -> ROUND

ROUND comes last, so that what a node trains from is the model of this very window, and names the next
window.  Then updates come in until the round is due (`federation.round`), the Flower strategy makes a
new vector of them, and the block that takes the nodes there waits for the next window.

A vector from outside (`hand_in`) waits for the next window as well and becomes the next version there; its
owner may claim that window's round, which then changes no model and is kept for `gathered`.

Rows: `round`, `update`, `fragment` and `seeds` hold an open round, `model` the model
(`swarm.model.versions`), `strategy` the strategies' memory, `privacy` what nodes have spent of their
budgets, `meta` the calendar.  Everything here is rebuilt from them.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import numpy as np

from swarm import window
from swarm.commands import SetModel
from swarm.config import SwarmConfig
from swarm.downlinks import Downlinks, Pending
from swarm.effects import Effect, Event, Malformed, Purpose, Row, Store
from swarm.federation.agreement import Agreement
from swarm.federation.budget import EXHAUSTED, Budgets
from swarm.federation.cohort import COHORT_ALL, cohort_byte, in_cohort
from swarm.federation.modes import claimed_mode
from swarm.federation.outside import Gathered, HandedIn
from swarm.federation.reassembly import Reassembly
from swarm.federation.reply import MASKED_SUMS, PROTOTYPES
from swarm.federation.round import Accepted, Round, RoundState
from swarm.federation.strategies import Strategies
from swarm.federation.taken_up import TakenUp
from swarm.model.layout import CONTEXTS, context_name
from swarm.model.vector import Float64, Mirror
from swarm.model.versions import Versions
from swarm.node import Model
from swarm.phy.regions import Region
from swarm.registry import Entry, Refused, Registry
from swarm.security.signatures import Signer
from swarm.wire import app
from swarm.wire.app import Fragment, LearningMessage, RoundMode

__all__ = ["HISTORY_MAX", "Rounds"]

HISTORY_MAX = 400
ROUND_NUMBERS = 1 << 16
POSTPONE_US = 10_000_000
PROGRAMME_DELAY_US = 3_000_000
"""From the opening of the window to its first frame: what two clocks may differ by."""
SECOND_US = 1_000_000


class Rounds:
    """See the module; `current` is the open round or None, `next_open_us` the next window."""

    def __init__(
        self,
        config: SwarmConfig,
        registry: Registry,
        downlinks: Downlinks,
        region: Region,
        rows: Mapping[str, Mapping[str, Row]],
        model: bytes,
        signer: Signer | None = None,
    ) -> None:
        self._learning = config.learning
        self.budgets = Budgets(config.learning.privacy, rows.get("privacy", {}))
        self._repeats = config.multicast.repeats
        self._registry = registry
        self._downlinks = downlinks
        self._region = region
        self.replica = Model(model)
        shipped = np.stack([self.replica.base_head(context) for context in range(len(CONTEXTS))])
        base = Mirror(0, self.replica.adapter(), shipped)
        self._versions = Versions(base, rows.get("model", {}), signer)
        self.strategies = Strategies(config.learning, self.replica.shape, rows.get("strategy", {}))
        self._taken_up = TakenUp(config.learning, self._versions, rows.get("meta", {}))
        self._agreement = Agreement()
        self._history: deque[dict[str, Any]] = deque(maxlen=HISTORY_MAX)
        self._window_s = config.learning.window_s
        self.current: Round | None = None
        self.last_round: int | None = None
        self.next_open_us: int | None = None
        self._retry_us = 0
        self._announce_us: int | None = None
        """When to try (again) to queue the open round's announcement; None: it is queued, or was sent."""
        self._last: Round | None = None
        self._reassembly = Reassembly(0)
        self._update_keys: dict[int, list[str]] = {}
        self._handed_in: HandedIn | None = None
        self._seeds_keys: list[str] = []
        self._restored = False
        """From a backup: the open round may have had vectors that are not here, so it repairs nothing."""
        self._restore_rounds(rows)

    # -- what others want to know -----------------------------------------------------------------

    @property
    def version(self) -> int:
        """The version that nodes have after the next window."""
        return self._versions.mirror.version

    def digest(self) -> str:
        """SHA-256 of the parameters as nodes will have them."""
        return self._versions.mirror.digest()

    def mirror(self) -> Mirror:
        """The nodes' parameters, bit for bit."""
        return self._versions.mirror

    def master(self) -> Float64:
        """The vector behind the mirror, float64[d] in real units: what strategies work on."""
        return self._versions.master.copy()

    @property
    def waiting(self) -> HandedIn | None:
        """The vector from outside that the next window will take up."""
        return self._handed_in

    def gathered(self, number: int) -> Gathered | None:
        """The updates of the claimed round `number`, from its closing until the round after it is closed."""
        return self._last.gathered() if self._last is not None and self._last.number == number else None

    def history(self) -> list[dict[str, Any]]:
        """The last closed rounds and the open one, oldest first."""
        rows = list(self._history)
        if self.current is not None:
            rows.append(self._summary(self.current, None))
        return rows

    def schedule(self, at_us: int, status_period_min: int) -> app.Schedule:
        """What a node needs to find the next window; its seconds count from `at_us`."""
        number = None if self._learning.mode != MASKED_SUMS else self.last_round or 0
        next_s = window.seconds_until(self.next_open_us, at_us)
        return app.Schedule(next_s, self._window_s, status_period_min, number)

    # -- the calendar -----------------------------------------------------------------------------

    def poll(self, now_us: int) -> list[Effect]:
        """Close the round that is due, open the next one at its time, announce what is still unannounced."""
        effects: list[Effect] = []
        if self.next_open_us is None:
            effects += self._set_calendar(now_us + self._learning.period_s * SECOND_US)
        if self.current is not None and self.current.due(now_us):
            effects += self._end(now_us)
        assert self.next_open_us is not None
        if now_us >= max(self.next_open_us, self._retry_us):
            effects += self._open_at_its_time(now_us, self.next_open_us)
        elif self._announce_us is not None and now_us >= self._announce_us:
            self._announce_again(now_us)
        return effects

    def poll_at(self) -> int | None:
        if self.next_open_us is None:
            return 0
        times = [max(self.next_open_us, self._retry_us)]
        if self.current is not None:
            times.append(self.current.due_us)
        if self._announce_us is not None:
            times.append(self._announce_us)
        return min(times)

    def open_now(self, now_us: int) -> list[Effect] | Refused:
        """Open the next round before its time, for the nodes that happen to listen."""
        if self.current is not None:
            return Refused(f"round {self.current.number} is open; it closes at its quorum or deadline")
        reason = self._obstacle(now_us)
        claimed = self._handed_in is not None and self._handed_in.gather
        everybody = (self.next_number(), COHORT_ALL, self._mode())
        if reason is None and not claimed and self._spent() and not self._expected(*everybody):
            reason = EXHAUSTED
        if reason is not None:
            return Refused(f"no round can open: {reason}")
        return self._open(now_us)

    def hand_in(self, now_us: int, command: SetModel) -> list[Effect] | Refused:
        """Keep a vector from outside for the next window; the event says which round will carry it."""
        learning = self._learning
        if command.gather and learning.mode in ("none", MASKED_SUMS):
            why = "no node would answer" if learning.mode == "none" else "no node's own changes may be seen"
            return Refused(f"learning.mode is {learning.mode}: {why}; choose another in the settings")
        handed = HandedIn.checked(
            command.vector,
            len(self._versions.master),
            gather=command.gather,
            close_s=command.close_s,
            period_s=learning.period_s,
        )
        if not isinstance(handed, HandedIn):
            return Refused(handed.detail)
        self._handed_in = handed
        number = self.next_number()
        return [
            Store("meta", "handed_in", {"value": handed.to_value()}),
            Event("model_handed_in", now_us, {"round": number, "gather": command.gather}),
        ]

    def roll_back(
        self, now_us: int, to: int | None, why: str = "operator", contexts: Collection[int] | None = None
    ) -> list[Effect] | Refused:
        """Hand an earlier version in, or its heads of these contexts; the strategy forgets what led away."""
        found = self._versions.earlier(to)
        if to == self.version or (found is None and to is None):
            return Refused(f"the model is at version {self.version} and no earlier one is before it")
        if found is None:
            return Refused(f"no such earlier version is kept; those that are: {self._versions.kept()}")
        version, master = found
        if contexts is not None:
            waiting = self._versions.master if self._handed_in is None else self._handed_in.vector
            master = self._versions.with_heads_of(version, contexts, waiting)
        handed = self.hand_in(now_us, SetModel(master.astype("<f8").tobytes()))
        if isinstance(handed, Refused):
            return handed
        newest = 0 if self._last is None else self._last.model_version
        data = {"round": self.next_number(), "from_version": newest, "to_version": version, "reason": why}
        back = sorted(range(self._versions.mirror.contexts) if contexts is None else contexts)
        told = Event("rolled_back", now_us, {**data, "contexts": [context_name(context) for context in back]})
        return [*handed, *self.strategies.renew(contexts), told]

    def _judge_newest(self, now_us: int) -> list[Effect]:
        """Go back where enough nodes leave what they were sent last."""
        leaving, stores = self._taken_up.judge(self._registry)
        effects: list[Effect] = [*stores]
        if leaving is None or self._handed_in is not None:
            return effects
        for version, contexts in leaving.contexts.items():
            done = self.roll_back(now_us, version, leaving.reason, None if leaving.whole else contexts)
            effects += [] if isinstance(done, Refused) else done
        return effects

    def next_number(self) -> int:
        return 1 if self.last_round is None else (self.last_round + 1) % ROUND_NUMBERS

    def _open_at_its_time(self, now_us: int, due_us: int) -> list[Effect]:
        reason = self._obstacle(now_us)
        if reason is None:
            closed = self._close(now_us) if self.current is not None else []
            return closed + self._open(now_us)
        if now_us - due_us < self._window_s * SECOND_US // 2:
            # The nodes listen for a while yet: a gateway that is late may still come.
            self._retry_us = now_us + POSTPONE_US
            return []
        period_us = self._learning.period_s * SECOND_US
        later_us = due_us + period_us * (1 + (now_us - due_us) // period_us)
        return [Event("round_postponed", now_us, {"reason": reason}), *self._set_calendar(later_us)]

    def _announce_again(self, now_us: int) -> None:
        """Announce the open round as long as its window lasts: later nobody listens."""
        current = self.current
        self._announce_us = None
        if current is None or now_us >= current.opened_us + self._learning.window_s * SECOND_US:
            return
        if self._downlinks.alive(now_us):
            self._programme(current, now_us, now_us)
        else:
            self._announce_us = now_us + POSTPONE_US

    def _obstacle(self, now_us: int) -> str | None:
        """Why no round can open now."""
        if self._learning.mode == "none":
            return "learning.mode is none"
        return window.obstacle(now_us, self._registry, self._downlinks, self._region)

    def _room(self) -> int:
        """Application bytes of a multicast frame."""
        return window.room(self._downlinks, self._region)

    def _set_calendar(self, at_us: int) -> list[Effect]:
        if at_us == self.next_open_us:
            return []
        self.next_open_us = at_us
        return [Store("meta", "next_open_us", {"value": str(at_us)})]

    # -- one round --------------------------------------------------------------------------------

    def _open(self, now_us: int) -> list[Effect]:
        learning = self._learning
        number = self.next_number()
        effects = self._judge_newest(now_us)
        handed = self._handed_in
        effects += self._take_up(now_us, number)
        effects += self._versions.catch_up(self._registry.versions(), now_us, number)
        gather, close_s = False, learning.close_s
        if handed is not None:
            gather, close_s = handed.gather, handed.close_s or close_s
        mode = claimed_mode(learning.mode) if gather else self._mode()
        cohort = cohort_byte(learning.cohort)
        expected = self._expected(number, cohort, mode)
        self.current = Round(
            number=number,
            mode=mode,
            model_version=self._versions.mirror.version,
            cohort=cohort,
            opened_us=now_us,
            close_us=now_us + close_s * SECOND_US,
            quorum=max(1, math.ceil(learning.quorum * expected)),
            shape=self.replica.shape,
            contexts=self._versions.mirror.contexts,
            staleness_max=learning.staleness_max,
            previous_accepted=self._last.accepted if self._last is not None else frozenset(),
            gather=gather,
            sums=self.budgets.plan if mode is RoundMode.MASKED_SUMS else None,
        )
        self._versions.sent()
        self.budgets.asked = self.current.sums
        if self._restored:
            self._restored = False
            effects.append(Store("meta", "restored", None))
        self.last_round = number
        self._reassembly = Reassembly(number)
        self._agreement = Agreement()
        effects += [
            Store("round", str(number), self.current.to_row()),
            Store("meta", "last_round", {"value": str(number)}),
            *self._set_calendar(now_us + learning.period_s * SECOND_US),
            Event(
                "round_opened",
                now_us,
                {
                    "round": number,
                    "mode": mode.name.lower(),
                    "expected": expected,
                    "spent": self._spent(),
                    "close_us": self.current.close_us,
                },
            ),
        ]
        self._programme(self.current, now_us, now_us + PROGRAMME_DELAY_US)
        return effects

    def _take_up(self, now_us: int, number: int) -> list[Effect]:
        """The vector that was handed in becomes the next version; one that no window has sent gives way."""
        if self._handed_in is None:
            return []
        vector, self._handed_in = self._handed_in.vector, None
        stepped = self._versions.step_back()
        moved = self._versions.move_to(vector, now_us, number)
        return [Store("meta", "handed_in", None), *stepped, *moved]

    def _expected(self, number: int, cohort: int, mode: RoundMode) -> int:
        """How many nodes the announcement invites."""
        return sum(
            in_cohort(entry.record.node_index, number, cohort)
            for entry in self._registry
            if self._invites(entry.record.context) and not self.budgets.spent(entry.record.dev_eui, mode)
        )

    def _spent(self) -> int:
        """Nodes that can be asked for nothing any more."""
        return sum(self.budgets.spent(entry.record.dev_eui, self._mode()) for entry in self._registry)

    def _invites(self, context: int) -> bool:
        return self._learning.contexts == "all" or not self.replica.knows(context)

    def _mode(self) -> RoundMode:
        gathered = self.strategies[PROTOTYPES].rounds
        first = gathered < self._learning.prototype_rounds
        return RoundMode.PROTOTYPES if first else RoundMode[self._learning.mode.upper()]

    def on_fragment(self, now_us: int, entry: Entry, message: Fragment) -> list[Effect]:
        """A slice of a node's update: stored until the last one makes it whole."""
        record, current = entry.record, self.current
        charged, affordable = self.budgets.charge(record.dev_eui, message)
        if current is None:
            return [*charged, _refused(now_us, record.dev_eui, message.round, "closed")]
        if not self._invites(record.context):
            return [*charged, _refused(now_us, record.dev_eui, message.round, "not_in_cohort")]
        refused = current.on_fragment(record.dev_eui, record.node_index, message)
        if refused is not None or not affordable:
            reason = refused.reason if refused is not None else "budget"
            return [*charged, _refused(now_us, record.dev_eui, message.round, reason)]
        whole, stores = self._reassembly.take(record.dev_eui, message)
        place = {"round": message.round, "index": message.index, "count": message.count}
        heard = Event("fragment", now_us, {"dev_eui": record.dev_eui, **place})
        effects: list[Effect] = [*charged, *stores, heard]
        if whole is None:
            return effects
        update = app.decode_uplink(app.F_PORT_LEARNING, whole)
        if isinstance(update, Malformed) or not isinstance(update, LearningMessage):
            return [*effects, _refused(now_us, record.dev_eui, message.round, "implausible")]
        return effects + self.on_update(now_us, entry, update)

    def on_seeds(self, now_us: int, entry: Entry, message: app.Seeds) -> list[Effect]:
        """Seeds of masks that a group is left with: stored before they count."""
        dev_eui = entry.record.dev_eui
        current = self.current
        row = None if current is None else current.on_seeds(dev_eui, entry.record.node_index, message)
        if current is None or row is None:
            return [_refused(now_us, dev_eui, message.round, "seeds")]
        key = f"{message.round}/{dev_eui}/{message.missing}"
        self._seeds_keys.append(key)
        data = {"round": message.round, "dev_eui": dev_eui, "missing": message.missing.bit_count()}
        effects: list[Effect] = [Store("seeds", key, row), Event("seeds", now_us, data)]
        return effects + (self._end(now_us) if current.due(now_us) else [])

    def on_heard(self, now_us: int, entry: Entry) -> None:
        """A node listens now: ask it for the seeds that it owes."""
        asked = None if self.current is None else self.current.repair_of(entry.record.dev_eui)
        if asked is not None and self.current is not None:
            frame, until_us = app.encode(asked), self.current.due_us
            pending = Pending(10, frame, len(frame), Purpose.ROUND, until_us, tag="repair")
            self._downlinks.enqueue(entry.record.dev_eui, pending)

    def on_update(self, now_us: int, entry: Entry, message: LearningMessage) -> list[Effect]:
        """A node's update: stored before it counts, or refused with the reason."""
        record = entry.record
        effects, affordable = self.budgets.charge(record.dev_eui, message)
        if self.current is None:
            return [*effects, _refused(now_us, record.dev_eui, message.round, "closed")]
        if not self._invites(record.context):
            return [*effects, _refused(now_us, record.dev_eui, message.round, "not_in_cohort")]
        if not affordable:
            return [*effects, _refused(now_us, record.dev_eui, message.round, "budget")]
        place = self._registry.mask_place(entry)
        result = self.current.on_update(
            record.dev_eui, record.node_index, message, now_us, context=record.context, place=place
        )
        if not isinstance(result, Accepted):
            return [*effects, _refused(now_us, record.dev_eui, message.round, result.reason)]
        self._update_keys.setdefault(self.current.number, []).append(result.key)
        self._agreement.tally(record.dev_eui, message, self._versions.mirror)
        data = {
            "round": self.current.number,
            "dev_eui": record.dev_eui,
            "num_examples": result.num_examples,
            "staleness": result.staleness,
            "late": result.late,
        }
        effects += [Store("update", result.key, result.row), Event("update", now_us, data)]
        return effects + (self._end(now_us) if self.current.due(now_us) else [])

    def _end(self, now_us: int) -> list[Effect]:
        """Close the round that is due, or first ask its masking groups for what is missing."""
        current = self.current
        assert current is not None and self.next_open_us is not None
        if not current.needs_repair or self._restored or now_us >= self.next_open_us:
            return self._close(now_us)
        # Nothing of a vector that is missing may stay, nor its bytes: its masks are about to be told.
        effects: list[Effect] = [*self._reassembly.expire()]
        current.begin_repair(self.next_open_us)
        data = {"round": current.number, "updates": current.updates, "until_us": self.next_open_us}
        effects.append(Store("round", str(current.number), current.to_row(), erase=True))
        return [*effects, Event("round_repair", now_us, data)]

    def _close(self, now_us: int) -> list[Effect]:
        current = self.current
        assert current is not None
        effects: list[Effect] = []
        if current.gather:
            closed = current.close_gathered(now_us)
        else:
            strategy = self.strategies.of(current.mode)
            closed = current.close(now_us, strategy, self._versions.master)
            if closed.vector is not None:
                effects += self._versions.move_to(closed.vector, now_us, current.number)
                effects.append(self.strategies.stored(strategy))
        self._last, self.current = current, None
        self._announce_us = None
        score = self._agreement.score()
        counted = {"updates": closed.updates, "num_examples": closed.num_examples}
        summary = {**self._summary(current, score), **counted}
        self._history.append(summary)
        row = current.to_row()
        row["metrics"] = json.dumps({**json.loads(str(row["metrics"])), "summary": summary}, sort_keys=True)
        effects.append(Store("round", str(current.number), row))
        effects += self._forget_updates(current.number)
        data = {**summary, "failure": closed.failure, "errors": len(closed.errors), "digest": self.digest()}
        data["incomplete"] = self._reassembly.incomplete()
        effects += self._reassembly.expire()
        effects += [Event("context_suspect", now_us, suspect) for suspect in closed.suspects]
        effects += [Store("seeds", key, None, erase=True) for key in self._seeds_keys]
        self._seeds_keys = []
        return [*effects, Event("round_closed", now_us, data)]

    def _forget_updates(self, number: int) -> list[Effect]:
        """Updates of the round before last serve nothing any more."""
        old = [key for key in self._update_keys if (number - key) % ROUND_NUMBERS >= 2]
        return [
            Store("update", key, None) for round_number in old for key in self._update_keys.pop(round_number)
        ]

    # -- the multicast programme ------------------------------------------------------------------

    def unicast(self, entry: Entry, room: int) -> list[Pending]:
        """The open round's frames for a node that no multicast reaches."""
        current = self.current
        if current is None:
            return []
        acks = [] if self._last is None else self._last.ack_frames_of(entry.record.node_index, room)
        stale = entry.status.model_version != current.model_version
        announce = partial(self._announce, current)
        size = len(announce(current.opened_us))
        pieces = self._versions.frames(room) if stale else []
        return window.to_one(acks, pieces, announce, size, current.close_us)

    def _programme(self, current: Round, now_us: int, not_before_us: int) -> None:
        """Queue this window's frames."""
        if self._downlinks.group is None:
            return
        room = self._room()
        acks = self._last.ack_frames(room) if self._last is not None else []
        announce = partial(self._announce, current)
        pieces = self._versions.frames(room)
        frames = window.to_all(acks, pieces, announce, len(announce(now_us)), self._repeats)
        seconds = self._downlinks.programme_airtime_us(frames) / SECOND_US
        # The next window must hold a programme like this one, with as much again for waiting and repairs.
        self._window_s = min(self._learning.window_s, math.ceil(2 * seconds) + window.WINDOW_MARGIN_S)
        until_us = current.opened_us + self._learning.window_s * SECOND_US
        queued = self._downlinks.programme(frames, not_before_us, until_us)
        self._announce_us = None if queued else now_us + POSTPONE_US

    def _announce(self, current: Round, at_us: int) -> bytes:
        next_us, window_s = self.next_open_us, self._window_s
        return app.encode(window.announcement(current, self._learning, at_us, next_us, window_s))

    def on_programme_sent(self) -> list[Effect]:
        """The last frame of the programme is on its way: a restart need not announce this round again."""
        return [Store("meta", "announced", {"value": str(self.last_round)})]

    def _summary(self, current: Round, score: float | None) -> dict[str, Any]:
        return {
            "round": current.number,
            "mode": current.mode.name.lower(),
            "gather": current.gather,
            "updates": current.updates,
            "late": current.late,
            "model_version": self._versions.mirror.version,
            "score": score,
            "epsilon": self.budgets.cost(current.sums),
            "contexts": current.result.get("contexts", []),
            "state": str(current.state),
            "opened_us": current.opened_us,
            "closed_us": current.closed_us,
        }

    # -- restart ----------------------------------------------------------------------------------

    def _restore_rounds(self, rows: Mapping[str, Mapping[str, Row]]) -> None:
        meta = {key: row["value"] for key, row in rows.get("meta", {}).items()}
        if "next_open_us" in meta:
            self.next_open_us = int(str(meta["next_open_us"]))
        if "handed_in" in meta:
            handed = HandedIn.from_value(meta["handed_in"], len(self._versions.master))
            if not isinstance(handed, HandedIn):
                raise ValueError(f"the model from outside is damaged: {handed.detail}; restore a backup")
            self._handed_in = handed
        self._restored = "restored" in meta
        if "last_round" not in meta:
            return
        self.last_round = int(str(meta["last_round"]))
        updates, seeds = rows.get("update", {}), rows.get("seeds", {})
        self._seeds_keys = list(seeds)
        for key, row in updates.items():
            self._update_keys.setdefault(int(row["round"]), []).append(key)  # type: ignore[arg-type]
        ordered = sorted(rows.get("round", {}).values(), key=lambda row: int(row["opened_us"]))  # type: ignore[arg-type]
        for row in ordered[-HISTORY_MAX:]:
            summary = json.loads(str(row["metrics"])).get("summary")
            if summary is not None:
                self._history.append(summary)
        for row in ordered[-2:]:
            restored = Round.from_row(row, updates.values(), self.replica.shape, seeds.values())
            if restored.state is not RoundState.CLOSED:
                self.current = restored
            else:
                self._last = restored
        newest = self.current or self._last
        if newest is not None:
            self._versions.restore_sent(newest.model_version)
            self.budgets.asked = newest.sums
        if self.current is None:
            return
        self._reassembly = Reassembly(self.current.number, rows.get("fragment", {}).values())
        if meta.get("announced") != meta["last_round"]:
            self._announce_us = 0
        for row in updates.values():
            if row["round"] == self.current.number:
                message = app.decode_uplink(app.F_PORT_LEARNING, bytes(row["payload"]))  # type: ignore[arg-type]
                assert isinstance(message, LearningMessage)
                self._agreement.tally(str(row["dev_eui"]), message, self._versions.mirror)


def _refused(now_us: int, dev_eui: str, round_number: int, reason: str) -> Event:
    return Event("update_refused", now_us, {"dev_eui": dev_eui, "round": round_number, "reason": reason})
