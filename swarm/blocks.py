"""Large blocks to many nodes: which is delivered now, and its frames between those of rounds.

Theory of operation.  One block is on its way at a time, for there is one group; others wait in a queue.
Nodes' receivers are on in announced windows alone, so the next round's programme carries the OFFER, several
times over, and the group sends when that window is over.  Where no rounds open windows, each node is offered
the session after its next uplinks.  Devices of another make (those with a GenAppKey) are set up by unicast
first; the group waits for them, `SETUP_PERIODS` report periods at most.

The group's frames go out one by one, each when what became of the one before is known, and only between
the programmes of windows: `downlinks.between`.  Unicast ones wait, one at a time, behind whatever else a node
is to be sent.  A frame counts when a gateway took it; one that none took is sent again.  Each poll is told
with an OFFER, for those who lost the first ones.  When the group has nothing more to say, or its receivers
are off, the rest is helped one by one for `REPAIR_PERIODS` report periods; then the block has ended.

All state is in rows: `block` (what), `delivery` (how far), `delivery_node` (who).  What was in flight when
the process died is not known to be sent, and is sent again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from swarm.block_job import PIECES_MAX, SESSION_MAX_S, SHARE, Job, frag_index, session_s
from swarm.commands import BLOCK_MAX, CancelBlock, SendBlock
from swarm.config import SwarmConfig
from swarm.downlinks import Downlinks, Pending, Programme
from swarm.effects import Effect, Event, Malformed, Purpose, Row, Store
from swarm.mac.session import MulticastGroup
from swarm.phy.regions import Region
from swarm.registry import Entry, Refused, Registry
from swarm.security.lorawan import AesKey, data_block_key, data_block_mic
from swarm.transport.delivery import NODES_MAX, SESSION_CNTS, Delivery, Phase, Plan, State
from swarm.transport.group_setup import GroupSetup
from swarm.wire import app, offer
from swarm.wire import fragmentation as ts004
from swarm.wire.lorawan import DATA_OVERHEAD
from swarm.wire.packages import F_PORTS, Package

__all__ = ["ENDED_MAX", "QUEUE_MAX", "Blocks"]

QUEUE_MAX = 8
"""Blocks that wait or are on their way."""
ENDED_MAX = 16
"""Blocks of the past that are remembered."""
LEFT_MAX = 50
"""Nodes without the block that an event names."""
OFFERS = 5
"""In one window: of nodes that lose a fifth of the frames, one in three thousand hears none."""
SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
SETUP_PERIODS = 2.2
REPAIR_PERIODS = 6
START_MARGIN_US = 10 * SECOND_US
FATE_US = 60 * SECOND_US
"""So long after its end a frame's fate is waited for."""
UNICAST_US = 60 * SECOND_US
ACK_DELAY_MAX = 6
ANSWER_LOAD = 0.3
"""Of three channels a tenth: what nodes answer to a poll may take."""
ANSWER_SIZE = DATA_OVERHEAD + 5
FRAGMENT_PORT = F_PORTS[Package.FRAGMENTATION]
TAG = "block"


class Blocks:
    """`rows` is what earlier stores left."""

    def __init__(
        self,
        config: SwarmConfig,
        registry: Registry,
        downlinks: Downlinks,
        region: Region,
        rows: Mapping[str, Mapping[str, Row]],
    ) -> None:
        self._registry = registry
        self._downlinks = downlinks
        self._region = region
        self._windows = config.learning.mode != "none"
        self._period_us = config.status_period_min * MINUTE_US
        self._jobs: deque[Job] = deque()
        self._ended: dict[str, dict[str, Any]] = {}
        self._flight: Programme | None = None
        self._next_us = 0
        self._refusals = 0
        self._dirty = False
        """Whether the present job's row is behind: a window decided its start."""
        self._session_cnt = 0
        downlinks.guests = self._offers
        self._restore(rows)

    # -- commands ---------------------------------------------------------------------------------

    def send(self, now_us: int, command: SendBlock) -> list[Effect] | Refused:
        """Queue a block, or say why not."""
        group = self._downlinks.group
        descriptor = hashlib.sha512(command.block).digest()[:4]
        name = descriptor.hex()
        if group is None:
            return Refused("there is no multicast group yet; import the nodes that were provisioned")
        if not 1 <= len(command.block) <= BLOCK_MAX:
            return Refused(f"a block has 1 to {BLOCK_MAX} bytes, this one {len(command.block)}")
        if any(job.name == name for job in self._jobs):
            return Refused(f"block {name} is on its way already")
        if len(self._jobs) >= QUEUE_MAX:
            return Refused(f"{QUEUE_MAX} blocks wait already; cancel one, or wait")
        chosen = self._chosen(command, group)
        if isinstance(chosen, Refused):
            return chosen
        job = self._job(now_us, command, descriptor, group, chosen)
        if isinstance(job, Refused):
            return job
        self._ended.pop(name, None)
        self._jobs.append(job)
        self._session_cnt = (self._session_cnt + SESSION_CNTS) % (1 << 15)
        return [*job.stores(), Store("meta", "session_cnt", {"value": str(self._session_cnt)})]

    def cancel(self, now_us: int, command: CancelBlock) -> list[Effect] | Refused:
        """End a delivery now, or take it from the queue."""
        name = command.descriptor.hex()
        job = next((job for job in self._jobs if job.name == name), None)
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

    def _chosen(self, command: SendBlock, group: MulticastGroup) -> list[Entry] | Refused:
        if command.nodes is None:
            entries = [each for each in self._registry if each.session is not None]
        else:
            found = {dev_eui: self._registry.get(dev_eui) for dev_eui in command.nodes}
            unknown = [dev_eui for dev_eui, entry in found.items() if entry is None]
            if unknown:
                return Refused(f"no node has the DevEUI {unknown[0]}")
            entries = [entry for entry in found.values() if entry is not None]
        if not 1 <= len(entries) <= NODES_MAX:
            return Refused(f"a block goes to 1 to {NODES_MAX} nodes that have joined, not {len(entries)}")
        if group.mc_key is None and any(entry.record.gen_app_key is not None for entry in entries):
            return Refused(
                "the cell's group was provisioned without a McKey: no device of another make can be let in;"
                " provision anew, or name the others with --node"
            )
        return entries

    def _job(
        self, now_us: int, command: SendBlock, descriptor: bytes, group: MulticastGroup, chosen: list[Entry]
    ) -> Job | Refused:
        keys = {entry.record.dev_eui: entry.record.gen_app_key for entry in chosen}
        setups = {dev_eui: GroupSetup(key) for dev_eui, key in keys.items() if key is not None}
        room = self._region.payload_max(group.data_rate, uplink=False) - ts004.DATA_HEADER_SIZE
        if room < 1:
            return Refused(f"multicast data rate {group.data_rate} carries no fragment; choose another")
        pieces = math.ceil(len(command.block) / room)
        try:
            plan = Plan(
                command.block,
                math.ceil(len(command.block) / pieces),
                version=command.version,
                index=frag_index(self._session_cnt, setups),
                descriptor=descriptor,
                session_cnt=self._session_cnt,
                block_ack_delay=self._ack_delay(chosen),
                loss=command.loss,
            )
            own = [dev_eui for dev_eui in keys if dev_eui not in setups]
            delivery = Delivery(plan, keys, self._mic_of(plan), offered=own)
        except ValueError as error:
            return Refused(str(error))
        if own and delivery.nb_frag > PIECES_MAX:
            return Refused(f"{delivery.nb_frag} pieces are too many for a node: {PIECES_MAX} at most")
        hours = session_s(self._region, group, plan, delivery.frames_planned, 1) / 3600
        if hours > 1.5 * SESSION_MAX_S / 3600:
            return Refused(
                f"at multicast data rate {group.data_rate} it takes about {hours:.0f} h, and nodes listen for"
                f" {SESSION_MAX_S // 3600} h a day; choose a faster rate"
            )
        return Job(descriptor.hex(), delivery, now_us, setups)

    def _ack_delay(self, chosen: list[Entry]) -> int:
        """BlockAckDelay: all may answer a poll, at their rates, without jamming one another."""
        on_air_us = sum(
            self._region.airtime_us(entry.status.data_rate or 0, ANSWER_SIZE, uplink=True) for entry in chosen
        )
        span_s = on_air_us / SECOND_US / ANSWER_LOAD
        return next((d for d in range(ACK_DELAY_MAX) if ts004.ack_delay_s(d) >= span_s), ACK_DELAY_MAX)

    def _mic_of(self, plan: Plan) -> Callable[[str, int], bytes]:
        """A node's MIC of the block; nodes of ours have no key for it, they check the signature."""

        def mic(dev_eui: str, session_cnt: int) -> bytes:
            key = self._key_of(dev_eui)
            if key is None:
                return bytes(4)
            return data_block_mic(
                data_block_key(AesKey(key)),
                plan.block,
                session_cnt=session_cnt,
                index=plan.index,
                descriptor=plan.descriptor,
            )

        return mic

    def _key_of(self, dev_eui: str) -> bytes | None:
        entry = self._registry.get(dev_eui)
        return None if entry is None else entry.record.gen_app_key

    # -- inputs -----------------------------------------------------------------------------------

    def on_uplink(self, now_us: int, entry: Entry, f_port: int, payload: bytes) -> list[Effect] | Malformed:
        """FPorts 200 and 201 of a node."""
        job, dev_eui = self._present, entry.record.dev_eui
        if job is None or dev_eui not in job.delivery:
            return _checked(f_port, payload)
        before = job.node_store(dev_eui)
        refused = job.hear(dev_eui, f_port, payload)
        if refused is not None:
            return refused
        after = job.node_store(dev_eui)
        return [after, *self._settle(now_us)] if after != before else []

    def reach(self, now_us: int, entry: Entry) -> None:
        """A node can be reached now: let the block's next frame wait, behind all else that it gets."""
        dev_eui = entry.record.dev_eui
        self._downlinks.withdraw(dev_eui, TAG)
        job, group = self._present, self._downlinks.group
        if (
            job is None
            or group is None
            or self._downlinks.waiting(dev_eui)
            or dev_eui not in job.delivery.nodes
        ):
            return
        if self._offers_to(job, dev_eui):
            frame = Pending(
                app.F_PORT_LEARNING, job.offer, offer.OFFER_SIZE, Purpose.MODEL, now_us + UNICAST_US, TAG
            )
            frame.taken = partial(self._offer_taken, job)
        else:
            found = job.unicast(dev_eui, now_us, group)
            if found is None:
                return
            f_port, payload = found
            purpose = Purpose.REPAIR if job.delivery.phase is Phase.REPAIR else Purpose.MODEL
            frame = Pending(f_port, payload, len(payload), purpose, now_us + UNICAST_US, TAG)
            frame.taken = partial(self._taken, job, dev_eui, f_port, payload)
            frame.more = job.has_more(dev_eui)
        self._downlinks.enqueue(dev_eui, frame)

    def _offers_to(self, job: Job, dev_eui: str) -> bool:
        """Whether a node is offered the session by unicast: no window does it, and it has not spoken yet."""
        if self._windows or dev_eui in job.setups or job.start_us is None:
            return False
        return job.delivery.phase is not Phase.REPAIR and job.delivery.is_silent(dev_eui)

    def poll(self, now_us: int) -> list[Effect]:
        """Begin, send, close, end: whatever is due."""
        job = self._present
        if job is None:
            return []
        effects: list[Effect] = []
        if job.since_us is None:
            job.since_us = now_us
            self._dirty = True
        if job.start_us is None and self._is_time_to_decide(job, now_us):
            self._decide(job, now_us)
        if job.start_us is not None and now_us >= job.start_us:
            effects += self._run(job, now_us)
        if self._dirty:
            self._dirty = False
            effects.insert(0, job.store())
        if job.ends_us is not None and now_us >= job.ends_us:
            for dev_eui in job.delivery.nodes:
                job.delivery.leave(dev_eui, "no answer")
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
        times: list[int | None] = [job.until_us if job.ends_us is None else job.ends_us]
        if self._flight is not None:
            times.append(self._flight.end_us + FATE_US)
        elif job.delivery.phase in (Phase.FRAGMENTS, Phase.POLL):
            times.append(self._next_us)
        elif job.delivery.phase is Phase.LISTEN:
            times.append(job.delivery.poll_at())
        return min(at_us for at_us in times if at_us is not None)

    # -- the present block ------------------------------------------------------------------------

    @property
    def _present(self) -> Job | None:
        return self._jobs[0] if self._jobs else None

    def _deadline_us(self, job: Job) -> int:
        """So long devices of another make are waited for."""
        assert job.since_us is not None
        return job.since_us + int(SETUP_PERIODS * self._period_us)

    def _is_time_to_decide(self, job: Job, now_us: int) -> bool:
        if job.own:
            return not self._windows
        return job.prepared() or now_us >= self._deadline_us(job)

    def _decide(self, job: Job, now_us: int) -> None:
        """The start of a block that no window announces."""
        if job.own:
            start_us = now_us + int(SETUP_PERIODS * self._period_us)
        else:
            # Each is told when: the one that was just heard at once, the others at their next uplinks.
            start_us = now_us + (MINUTE_US if len(job.setups) == 1 else self._period_us + 5 * MINUTE_US)
        self._start(job, start_us)

    def _start(self, job: Job, start_us: int) -> None:
        job.start(start_us, self._length_s(job))
        self._dirty = True

    def _length_s(self, job: Job) -> int:
        group = self._downlinks.group
        assert group is not None
        gateways = max(1, len(self._downlinks.gateways()))
        left = job.delivery.frames_planned - job.delivery.sent[0]
        return session_s(self._region, group, job.plan, left, gateways)

    def _offers(self, from_us: int, until_us: int) -> list[Programme]:
        """What the next window's programme carries of the present block."""
        job = self._present
        if job is None or not job.own or job.delivery.phase is Phase.REPAIR:
            return []
        if job.start_us is None:
            if not job.prepared() and (job.since_us is None or from_us < self._deadline_us(job)):
                return []
            self._start(job, until_us + START_MARGIN_US)
        assert job.until_us is not None
        if from_us >= job.until_us:
            return []
        return [self._offer_frame(job) for _ in range(OFFERS)]

    def _offer_frame(self, job: Job) -> Programme:
        group = self._downlinks.group
        assert group is not None
        size = DATA_OVERHEAD + offer.OFFER_SIZE
        airtime_us = self._region.airtime_us(group.data_rate, size, uplink=False)
        return job.offer_frame(airtime_us, partial(self._fate, job))

    def _run(self, job: Job, now_us: int) -> list[Effect]:
        delivery = job.delivery
        delivery.begin()
        assert job.until_us is not None
        effects = self._send(job, now_us)
        if now_us >= job.until_us and delivery.phase is not Phase.REPAIR and self._flight is None:
            delivery.close_group()
        if delivery.phase is Phase.REPAIR and job.ends_us is None:
            job.ends_us = now_us + REPAIR_PERIODS * self._period_us
            self._dirty = True
        return effects

    def _send(self, job: Job, now_us: int) -> list[Effect]:
        if self._flight is not None and now_us >= self._flight.end_us + FATE_US:
            self._flight = None  # nobody said what became of it: as if it had not been sent
        payload = job.delivery.multicast(now_us) if self._flight is None else None
        if payload is None or now_us < self._next_us:
            return []
        if job.offers_first():
            job.prolong(now_us, self._length_s(job))
            frame = self._offer_frame(job)
        else:
            frame = Programme(FRAGMENT_PORT, payload, len(payload), Purpose.MODEL)
            frame.fate = partial(self._fate, job, frame)
        effects, again_us = self._downlinks.between(now_us, frame, SHARE)
        if again_us is None:
            self._flight = frame
        else:
            self._next_us = again_us
        return effects

    def _fate(self, job: Job, frame: Programme, now_us: int, taken: bool) -> list[Effect]:
        """What became of a frame for the group."""
        ours = frame is self._flight
        if ours:
            self._flight = None
            self._refusals = 0 if taken else self._refusals + 1
            self._next_us = now_us + (0 if taken else min(1 << self._refusals, 60) * SECOND_US)
        if job is not self._present or not taken:
            return []
        effects = self._counted(job, now_us, frame.airtime_us)
        if ours and frame.f_port != FRAGMENT_PORT:
            job.offered_polls = job.delivery.sent[1] + 1
        elif ours:
            polled = job.delivery.phase is Phase.POLL
            job.delivery.sent_multicast(frame.end_us)
            if polled:
                effects.append(Event("block_polled", now_us, self.view(job)))
        return [job.store(), *effects, *self._settle(now_us)]

    def _taken(
        self, job: Job, dev_eui: str, f_port: int, payload: bytes, end_us: int, airtime_us: int
    ) -> list[Effect]:
        """A gateway took a frame for one node."""
        if job is not self._present:
            return []
        told = self._counted(job, end_us, airtime_us)
        if f_port == FRAGMENT_PORT and job.delivery.unicast(dev_eui) == payload:
            job.delivery.sent_unicast(dev_eui)
        return [job.store(), job.node_store(dev_eui), *told, *self._settle(end_us)]

    def _offer_taken(self, job: Job, end_us: int, airtime_us: int) -> list[Effect]:
        return [*self._counted(job, end_us, airtime_us), job.store()] if job is self._present else []

    def _counted(self, job: Job, now_us: int, airtime_us: int) -> list[Effect]:
        """One more frame was on the air."""
        job.airtime_us += airtime_us
        job.frames += 1
        return [Event("block_offered", now_us, self.view(job))] if job.frames == 1 else []

    def _settle(self, now_us: int) -> list[Effect]:
        """End the present block when nobody can be helped any more and nothing is in flight."""
        job = self._present
        return (
            self._end(now_us, job) if job is not None and job.delivery.done and self._flight is None else []
        )

    def _end(self, now_us: int, job: Job) -> list[Effect]:
        if job is self._present:
            self._flight, self._next_us, self._dirty = None, 0, False
        self._jobs.remove(job)
        data = self.view(job)
        left = job.delivery.left
        names = dict(list(left.items())[:LEFT_MAX])
        result = {**data, "state": "ended", "ended_us": now_us, "complete": not left, "left": names}
        self._ended[job.name] = result
        stores: list[Effect] = [job.store(json.dumps(result, sort_keys=True)), *job.forget()]
        while len(self._ended) > ENDED_MAX:
            oldest = next(iter(self._ended))
            del self._ended[oldest]
            stores.append(Store("delivery", oldest, None))
        return [*stores, Event("block_ended", now_us, result)]

    # -- what others want to know -----------------------------------------------------------------

    def view(self, job: Job) -> dict[str, Any]:
        """One block as a plain object."""
        group, delivery = self._downlinks.group, job.delivery
        fragments, polls = delivery.sent
        return {
            "descriptor": job.name,
            "state": "waits" if job is not self._present else _state(job),
            "size": len(job.plan.block),
            "version": job.plan.version,
            "pieces": delivery.nb_frag,
            "fragments_sent": fragments,
            "polls": polls,
            "nodes": len(delivery.nodes),
            "whole": delivery.count(State.WHOLE),
            "created_us": job.created_us,
            "start_us": job.start_us,
            "until_us": job.until_us,
            "frames": job.frames,
            "airtime_us": job.airtime_us,
            "minimum_us": 0 if group is None else job.minimum_us(self._region, group.data_rate),
        }

    def listing(self) -> list[dict[str, Any]]:
        """Those of the past, oldest first, then the present one, then those that wait."""
        return [*self._ended.values(), *(self.view(job) for job in self._jobs)]

    def show(self, name: str) -> dict[str, Any] | None:
        """One block with what is known of each node."""
        job = next((job for job in self._jobs if job.name == name), None)
        if job is None:
            return self._ended.get(name)
        states = {dev_eui: job.delivery.state(dev_eui) for dev_eui in job.delivery.nodes}
        told = {i: {"state": state.name.lower(), "reason": why} for i, (state, why) in states.items()}
        return {**self.view(job), "each": told}

    # -- restart ----------------------------------------------------------------------------------

    def _restore(self, rows: Mapping[str, Mapping[str, Row]]) -> None:
        self._session_cnt = int(str(rows.get("meta", {}).get("session_cnt", {}).get("value", 0)))
        nodes: dict[str, dict[str, Row]] = {}
        for key, row in rows.get("delivery_node", {}).items():
            name, _, dev_eui = key.partition("/")
            nodes.setdefault(name, {})[dev_eui] = row
        blocks = rows.get("block", {})
        kept = sorted(rows.get("delivery", {}).items(), key=lambda item: int(item[1]["created_us"] or 0))
        for name, row in kept:
            if row["state"] == "ended":
                self._ended[name] = json.loads(str(row["result"]))
            else:
                job = Job.from_rows(name, blocks[name], row, nodes[name], self._mic_of, self._key_of)
                self._jobs.append(job)


def _state(job: Job) -> str:
    if job.start_us is None:
        return "prepares"
    phase = job.delivery.phase
    return "offered" if phase is Phase.SETUP else "repairs" if phase is Phase.REPAIR else "sends"


def _checked(f_port: int, payload: bytes) -> list[Effect] | Malformed:
    """Of a node to which nothing is delivered: whether it makes sense at all."""
    from swarm.wire import multicast_setup as ts005  # noqa: PLC0415

    if f_port != FRAGMENT_PORT:
        found: object = ts005.decode_uplink(payload, 2)
    else:
        found = ts004.decode_uplink(payload, 2)
        if isinstance(found, Malformed):
            found = ts004.decode_uplink(payload, 1)
    return found if isinstance(found, Malformed) else []
