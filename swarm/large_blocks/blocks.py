"""Large blocks to many nodes: which is delivered now, from when, and until when nodes are helped.

Theory of operation.  One block is on its way at a time, for there is one group; others wait in a queue.
Receivers of nodes are on in announced windows alone, so the next round's programme carries the OFFER,
several times over, and the group sends when that window is over (`swarm.large_blocks.sending`).  Where no
rounds open windows, each node is offered the session after its next uplinks, and the start leaves time for
two of them.  Devices of another make (those with a GenAppKey) are set up by unicast first; the group waits
for them, `SETUP_PERIODS` report periods at most.  Nodes behind a network server get it by unicast, from the
start.  When it has nothing more to say, or receivers are off, the rest is helped one by one: as long as
they are heard, `REPAIR_MAX_US` after the start at most.

All state is in rows, for a restart to go on: `block` (what), `delivery` (how far), `delivery_node` (who).
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from swarm.commands import CancelBlock, SendBlock
from swarm.config import SwarmConfig
from swarm.downlinks import Downlinks, Programme
from swarm.effects import Effect, Event, Malformed, Row, Store
from swarm.large_blocks.job import FRAGMENT_PORT, SECOND_US, Job
from swarm.large_blocks.plan import BlockPlanner, descriptor
from swarm.large_blocks.sending import BlockSending
from swarm.phy.regions import Region
from swarm.registry import Entry, Refused, Registry
from swarm.transport.delivery import SESSION_CNTS, Phase, State
from swarm.wire import fragmentation as ts004
from swarm.wire import multicast_setup as ts005

__all__ = ["ENDED_MAX", "QUEUE_MAX", "Blocks"]

QUEUE_MAX = 8
"""Blocks that wait or are on their way."""
ENDED_MAX = 16
"""Blocks of the past that are remembered."""
LEFT_MAX = 50
"""Nodes without the block that an event names."""
MINUTE_US = 60 * SECOND_US
SETUP_PERIODS = 2.2
SILENT_PERIODS = 3
"""A node that was not heard for so many report periods is given up."""
REPAIR_MAX_US = 36 * 60 * MINUTE_US
ALONE_MAX_US = 14 * 24 * 60 * MINUTE_US
"""The same where a network server has nodes: of those in class A each piece waits for an uplink."""
START_MARGIN_US = 10 * SECOND_US
SESSION_CNT_END = 1 << 15


class Blocks:
    """`rows` is what earlier stores left; `sign` ends a block with the signature that nodes want of it."""

    def __init__(
        self,
        config: SwarmConfig,
        registry: Registry,
        downlinks: Downlinks,
        region: Region,
        rows: Mapping[str, Mapping[str, Row]],
        sign: Callable[[bytes], bytes] = bytes,
    ) -> None:
        self.signed = sign
        """What a block becomes before it is sent."""
        self._registry = registry
        self._downlinks = downlinks
        self._region = region
        self._windows = config.learning.mode != "none"
        self._period_us = config.status_period_min * MINUTE_US
        self._planner = BlockPlanner(config, registry, region)
        self._jobs: deque[Job] = deque()
        self._ended: dict[str, dict[str, Any]] = {}
        self._dirty = False
        """Whether the present job's row is behind."""
        self._session_cnt = 0
        self._sending = BlockSending(
            downlinks,
            region,
            windows=self._windows,
            late_us=self._period_us,
            settle=self._settle,
            view=self.view,
        )
        downlinks.guests = self._offers
        self._restore(rows)

    # -- commands ---------------------------------------------------------------------------------

    def send(self, now_us: int, command: SendBlock) -> list[Effect] | Refused:
        """Queue a block, or say why not."""
        group = self._downlinks.group
        name = descriptor(command.block).hex()
        if any(job.name == name for job in self._jobs):
            return Refused(f"block {name} is on its way already")
        if len(self._jobs) >= QUEUE_MAX:
            return Refused(f"{QUEUE_MAX} blocks wait already; cancel one, or wait")
        job = self._planner.job(now_us, command, group, self._session_cnt)
        if isinstance(job, Refused):
            return job
        self._ended.pop(name, None)
        self._jobs.append(job)
        if len(self._jobs) == 1:
            self._sending.take_up(job)
        self._session_cnt = (self._session_cnt + SESSION_CNTS) % SESSION_CNT_END
        return [*job.stores(), Store("meta", "session_cnt", {"value": str(self._session_cnt)})]

    def cancel(self, now_us: int, command: CancelBlock) -> list[Effect] | Refused:
        """End a delivery now, or take it from the queue."""
        name = command.descriptor.hex()
        job = self._find(name)
        if job is None:
            return Refused(f"no block {name} is on its way; `swarm blocks list` shows those there are")
        for dev_eui in job.delivery.nodes:
            job.delivery.leave(dev_eui, "cancelled")
        return self._end(now_us, job)

    def forget(self, dev_eui: str) -> list[Store]:
        """A node is removed: nothing more is delivered to it."""
        stores: list[Store] = []
        for job in self._jobs:
            if dev_eui in job.delivery:
                job.delivery.leave(dev_eui, "removed")
                stores.append(job.node_store(dev_eui))
        return stores

    # -- inputs -----------------------------------------------------------------------------------

    def on_uplink(self, now_us: int, entry: Entry, f_port: int, payload: bytes) -> list[Effect] | Malformed:
        """FPorts 200 and 201 of a node."""
        job, dev_eui = self._present, entry.record.dev_eui
        if job is None or dev_eui not in job.delivery:
            return _checked(f_port, payload)
        before = job.node_store(dev_eui)
        refused = job.hear(now_us, dev_eui, f_port, payload)
        if refused is not None:
            return refused
        after = job.node_store(dev_eui)
        return [after, *self._settle(now_us)] if after != before else []

    def reach(self, now_us: int, entry: Entry) -> bool:
        """A node can be reached now; whether a frame of a block waits for it."""
        return self._sending.reach(now_us, entry.record.dev_eui, served=entry.behind_server)

    def poll(self, now_us: int) -> list[Effect]:
        """Begin, send, close, give up: whatever is due."""
        job = self._present
        if job is None:
            return []
        if job.since_us is None:
            job.since_us = now_us
            self._dirty = True
        if job.start_us is None:
            self._decide(job, now_us)
        if self._is_early(job, now_us):
            job.postpone(now_us + MINUTE_US)
            self._dirty = True
        effects: list[Effect] = []
        if job.start_us is not None and now_us >= job.start_us:
            effects = self._run(job, now_us)
        if self._dirty and job is self._present:
            effects.insert(0, job.store())
        self._dirty = False
        return effects + self._settle(now_us)

    def poll_at(self) -> int | None:
        """When `poll` has something to do (us)."""
        job = self._present
        if job is None:
            return None
        if self._dirty or job.since_us is None:
            return 0
        if job.start_us is None:
            if job.own:
                return None if self._windows else 0  # the next window decides
            return 0 if job.prepared() else self._deadline_us(job)
        if job.delivery.phase is Phase.SETUP:
            return job.start_us
        ends_us = job.until_us if job.ends_us is None else job.ends_us
        times = (None if self._sending.in_flight else ends_us, self._sending.poll_at(job))
        return min((at_us for at_us in times if at_us is not None), default=None)

    # -- the present block ------------------------------------------------------------------------

    @property
    def _present(self) -> Job | None:
        return self._jobs[0] if self._jobs else None

    def _deadline_us(self, job: Job) -> int:
        """So long devices of another make are waited for."""
        assert job.since_us is not None
        return job.since_us + int(SETUP_PERIODS * self._period_us)

    def _decide(self, job: Job, now_us: int) -> None:
        """The start of a block that no window announces, when the time has come to say it."""
        if not job.grouped:
            self._start(job, now_us)
        elif job.own:
            if not self._windows:
                self._start(job, now_us + int(SETUP_PERIODS * self._period_us))
        elif job.prepared() or now_us >= self._deadline_us(job):
            # Each is told when: the one that was just heard at once, the others at their next uplinks.
            wait_us = MINUTE_US if len(job.setups) == 1 else self._period_us + 5 * MINUTE_US
            self._start(job, now_us + wait_us)

    def _is_early(self, job: Job, now_us: int) -> bool:
        """Whether the start has come and devices of another make were not all told of it; with nodes of our
        own, whose receivers are on, nobody is waited for."""
        if job.start_us is None or now_us < job.start_us or job.delivery.phase is not Phase.SETUP or job.own:
            return False
        return not job.all_told() and now_us < self._deadline_us(job)

    def _start(self, job: Job, start_us: int) -> None:
        job.start(start_us, self._sending.length_s(job))
        self._dirty = True

    def _offers(self, from_us: int, until_us: int) -> list[Programme]:
        """What the next window's programme carries of the present block; it decides when that starts."""
        job = self._present
        if job is None or not job.own or job.delivery.phase is Phase.REPAIR:
            return []
        if job.start_us is None:
            if not job.prepared() and (job.since_us is None or from_us < self._deadline_us(job)):
                return []
            self._start(job, until_us + START_MARGIN_US)
        assert job.until_us is not None
        return self._sending.offers(job) if from_us < job.until_us else []

    def _run(self, job: Job, now_us: int) -> list[Effect]:
        delivery = job.delivery
        delivery.begin()
        if not job.grouped:
            delivery.close_group()
        assert job.start_us is not None and job.until_us is not None
        effects = self._sending.send(job, now_us)
        over = now_us >= job.until_us and not self._sending.in_flight
        if over and delivery.phase is not Phase.REPAIR:
            delivery.close_group()
        span_us = SILENT_PERIODS * self._period_us
        if delivery.phase is Phase.REPAIR and job.ends_us is None:
            job.ends_us = now_us + span_us
            self._dirty = True
        if job.ends_us is not None and now_us >= job.ends_us:
            longest_us = ALONE_MAX_US if delivery.alone else REPAIR_MAX_US
            effects += self._give_up(job, now_us - span_us, now_us >= job.start_us + longest_us)
            job.ends_us = now_us + span_us
            self._dirty = True
        return effects

    def _give_up(self, job: Job, heard_us: int, all_of_them: bool) -> list[Effect]:
        """Leave those who were not heard since then."""
        effects: list[Effect] = []
        for dev_eui in job.delivery.nodes:
            entry = self._registry.get(dev_eui)
            seen_us = None if entry is None else entry.status.last_seen_us
            gone = all_of_them or seen_us is None or seen_us < heard_us
            if gone and job.delivery.leave(dev_eui, "no answer" if all_of_them else "not heard"):
                effects.append(job.node_store(dev_eui))
        return effects

    def _settle(self, now_us: int) -> list[Effect]:
        """End the present block when nobody can be helped any more and nothing is in flight."""
        job = self._present
        if job is None or self._sending.in_flight or not job.delivery.done:
            return []
        return self._end(now_us, job)

    def _end(self, now_us: int, job: Job) -> list[Effect]:
        view = self.view(job)
        self._jobs.remove(job)
        if job is self._sending.job:
            self._dirty = False
            self._sending.take_up(self._present)
        left = job.delivery.left
        result = {**view, "state": "ended", "ended_us": now_us, "complete": not left}
        result["left"] = dict(list(left.items())[:LEFT_MAX])
        self._ended[job.name] = result
        effects: list[Effect] = [job.store(json.dumps(result, sort_keys=True)), *job.forget()]
        while len(self._ended) > ENDED_MAX:
            oldest = next(iter(self._ended))
            del self._ended[oldest]
            effects.append(Store("delivery", oldest, None))
        return [*effects, Event("block_ended", now_us, result)]

    # -- what others want to know -----------------------------------------------------------------

    def view(self, job: Job) -> dict[str, Any]:
        """One block as a plain object."""
        group, delivery = self._downlinks.group, job.delivery
        fragments, polls = delivery.sent
        grouped = job.grouped and group is not None
        return {
            "descriptor": job.name,
            "state": job.stage if job is self._present else "waits",
            "size": len(job.plan.block),
            "version": job.plan.version,
            "pieces": delivery.nb_frag,
            "fragments_sent": fragments,
            "polls": polls,
            "nodes": len(delivery.nodes),
            "whole": delivery.count(State.WHOLE),
            "created_us": job.created_us,
            # Where a network server sends to each by itself there is no start for all, and no least airtime.
            "start_us": job.start_us if grouped else None,
            "until_us": job.until_us if grouped else None,
            "frames": job.frames,
            "airtime_us": job.airtime_us,
            "minimum_us": job.minimum_us(self._region, group.data_rate) if grouped and group else None,
            "alone": len(delivery.alone),
            "behind_server": sum(map(self._is_served, delivery.alone)),
        }

    def _is_served(self, dev_eui: str) -> bool:
        entry = self._registry.get(dev_eui)
        return entry is not None and entry.behind_server

    def listing(self) -> list[dict[str, Any]]:
        """Those of the past, oldest first, then the present one, then those that wait."""
        return [*self._ended.values(), *(self.view(job) for job in self._jobs)]

    def show(self, name: str) -> dict[str, Any] | None:
        """One block; with what is known of each node, as long as it has not ended: of those behind a network
        server also how many pieces they were sent, and how many they said they miss."""
        job = self._find(name)
        if job is None:
            return self._ended.get(name)
        states = {dev_eui: job.delivery.state(dev_eui) for dev_eui in job.delivery.nodes}
        told: dict[str, dict[str, Any]] = {
            dev_eui: {"state": s.name.lower(), "reason": why, "missing": job.delivery.missing(dev_eui)}
            for dev_eui, (s, why) in states.items()
        }
        for dev_eui in job.delivery.alone:
            told[dev_eui]["frames"] = job.delivery.frames(dev_eui)
        return {**self.view(job), "each": told}

    def _find(self, name: str) -> Job | None:
        return next((job for job in self._jobs if job.name == name), None)

    # -- restart ----------------------------------------------------------------------------------

    def _restore(self, rows: Mapping[str, Mapping[str, Row]]) -> None:
        kept = rows.get("meta", {}).get("session_cnt")
        self._session_cnt = 0 if kept is None else int(str(kept["value"]))
        nodes: dict[str, dict[str, Row]] = {}
        for key, row in rows.get("delivery_node", {}).items():
            name, _, dev_eui = key.partition("/")
            nodes.setdefault(name, {})[dev_eui] = row
        deliveries = rows.get("delivery", {})
        for name, row in sorted(deliveries.items(), key=lambda item: _queued(item[1])):
            if row["state"] == "ended":
                self._ended[name] = json.loads(str(row["result"]))
            else:
                made = (self._planner.mic_of, self._planner.key_of)
                self._jobs.append(Job.from_rows(name, rows["block"][name], row, nodes[name], *made))
        self._sending.take_up(self._present)


def _queued(row: Row) -> tuple[int, bool]:
    """What puts blocks in their order; of those that one command made, the one that has begun is first."""
    return int(row["created_us"] or 0), row["since_us"] is None


def _checked(f_port: int, payload: bytes) -> list[Effect] | Malformed:
    """Of a node to which nothing is delivered: whether it makes sense at all."""
    if f_port != FRAGMENT_PORT:
        setup = ts005.decode_uplink(payload, 2)
        return setup if isinstance(setup, Malformed) else []
    newest, oldest = (ts004.decode_uplink(payload, version) for version in (2, 1))
    return oldest if isinstance(newest, Malformed) and isinstance(oldest, Malformed) else []
