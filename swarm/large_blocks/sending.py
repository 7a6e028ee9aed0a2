"""The frames of the block that is on its way: which goes out when, and what became of it.

Theory of operation.  The group's frames go out one by one, each when what became of the one before is known,
and only between the programmes of windows (`downlinks.between`).  Unicast ones wait, one at a time, behind
whatever else a node is to be sent.  A frame counts when a gateway took it (or may have); one that none took
is sent again, later every time.  What was in flight when the process died is not known to be sent either.

Nodes behind a network server are sent theirs one by one from the start: a frame counts when it is handed over
(`Pending.sent`), so that none is sent again after a restart; what the server could not send it gives back.

Each poll is told with an OFFER, for those who lost the first ones.  Where no rounds open windows, each node
is offered the session after its next uplinks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from swarm.downlinks import BLOCK_TAG, MULTICAST_LEAD_US, Downlinks, Pending, Programme
from swarm.effects import Effect, Event, Purpose
from swarm.large_blocks.job import FRAGMENT_PORT, SECOND_US, SHARE, Job, session_s
from swarm.phy.regions import Region
from swarm.transport.delivery import Phase
from swarm.wire import app, offer
from swarm.wire.lorawan import DATA_OVERHEAD

__all__ = ["BlockSending"]

OFFERS = 8
"""In the first window: of nodes that lose a fifth of the frames, one in four hundred thousand hears none."""
OFFERS_LATER = 2
"""In each window while it is sent: who joins now has missed much."""
FATE_US = 60 * SECOND_US
"""So long after its end a frame's fate is waited for."""
RETRY_MAX_S = 60
UNICAST_US = 60 * SECOND_US
TAG = BLOCK_TAG


class BlockSending:
    """`job` is the block on its way; `settle` is called when that may have ended, events tell its `view`.

    A network server sends a frame up to `late_us` later, after its node's next uplink.
    """

    def __init__(
        self,
        downlinks: Downlinks,
        region: Region,
        *,
        windows: bool,
        late_us: int,
        settle: Callable[[int], list[Effect]],
        view: Callable[[Job], dict[str, Any]],
    ) -> None:
        self._downlinks = downlinks
        self._region = region
        self._windows = windows
        self._late_us = late_us
        self._settle = settle
        self._view = view
        self.job: Job | None = None
        self._flight: Programme | None = None
        self._next_us = 0
        self._refusals = 0

    def take_up(self, job: Job | None) -> None:
        """From now on it is this one."""
        self.job = job
        self._flight, self._next_us, self._refusals = None, 0, 0

    @property
    def in_flight(self) -> bool:
        """Whether the fate of a frame for the group is waited for."""
        return self._flight is not None

    def poll_at(self, job: Job) -> int | None:
        """When `send` has something to do (us)."""
        if self._flight is not None:
            return self._flight.end_us + FATE_US
        if job.delivery.phase in (Phase.FRAGMENTS, Phase.POLL):
            return self._next_us
        return job.delivery.poll_at()

    # -- the group --------------------------------------------------------------------------------

    def length_s(self, job: Job) -> int:
        """How long what the group has not been sent yet will take."""
        group = self._downlinks.group
        if group is None or not job.grouped:
            return 0
        gateways = max(1, len(self._downlinks.gateways()))
        left = job.delivery.frames_planned - job.delivery.sent[0]
        return session_s(self._region, group, job.plan, left, gateways)

    def offers(self, job: Job) -> list[Programme]:
        """What a window's programme carries."""
        return [self._offer(job) for _ in range(OFFERS_LATER if job.delivery.sent[0] else OFFERS)]

    def _offer(self, job: Job) -> Programme:
        group = self._downlinks.group
        assert group is not None
        size = DATA_OVERHEAD + offer.OFFER_SIZE
        airtime_us = self._region.airtime_us(group.data_rate, size, uplink=False)
        return job.offer_frame(airtime_us, partial(self._fate, job))

    def send(self, job: Job, now_us: int) -> list[Effect]:
        """Give the next frame to the gateways, if it is its time."""
        if self._flight is not None and now_us >= self._flight.end_us + FATE_US:
            self._flight = None  # nobody said what became of it: as if it had not been sent
        payload = job.delivery.multicast(now_us) if self._flight is None and job.grouped else None
        if payload is None or now_us < self._next_us:
            return []
        if job.offers_first():
            job.prolong(now_us, self.length_s(job))
            frame = self._offer(job)
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
        """What became of a frame for the group: of the one in flight, or of a window's OFFER."""
        awaited = frame is self._flight
        if awaited:
            self._flight = None
            self._refusals = 0 if taken else min(self._refusals + 1, 6)
            wait_us = min(1 << self._refusals, RETRY_MAX_S) * SECOND_US
            self._next_us = frame.end_us - MULTICAST_LEAD_US if taken else now_us + wait_us
        if job is not self.job or not taken:
            return self._settle(now_us)
        effects = self._counted(job, now_us, frame.airtime_us)
        if awaited and frame.f_port != FRAGMENT_PORT:
            job.offered_polls = job.delivery.sent[1] + 1
        elif awaited:
            polled = job.delivery.phase is Phase.POLL
            job.delivery.sent_multicast(frame.end_us)
            effects += [Event("block_polled", now_us, self._view(job))] if polled else []
        return [job.store(), *effects, *self._settle(now_us)]

    # -- one node ---------------------------------------------------------------------------------

    def reach(self, now_us: int, dev_eui: str, *, served: bool = False) -> bool:
        """A node can be reached now: let the block's next frame for it wait behind all else; False: none.
        `served`: a network server will be given it."""
        self._downlinks.withdraw(dev_eui, TAG)
        job, group = self.job, self._downlinks.group
        if job is None or dev_eui not in job.delivery or self._downlinks.waiting(dev_eui):
            return False
        until_us = now_us + UNICAST_US
        if self._is_offered(job, dev_eui):
            frame = Pending(app.F_PORT_LEARNING, job.offer, offer.OFFER_SIZE, Purpose.MODEL, until_us, TAG)
            frame.taken = partial(self._offer_taken, job)
        else:
            found = job.unicast(dev_eui, now_us, group, self._late_us if served else 0)
            if found is None:
                return False
            f_port, payload = found
            alone = job.delivery.is_alone(dev_eui)
            repairs = job.delivery.phase is Phase.REPAIR and not alone
            purpose = Purpose.REPAIR if repairs else Purpose.MODEL
            frame = Pending(f_port, payload, len(payload), purpose, until_us, TAG)
            if served:
                frame.streams = f_port == FRAGMENT_PORT and job.delivery.has_piece(dev_eui)
                frame.sent = partial(self._handed, job, dev_eui, f_port, frame.streams)
                frame.taken = partial(self._went_out, job, dev_eui, f_port, frame.streams)
            else:
                frame.taken = partial(self._taken, job, dev_eui, f_port, payload)
            frame.more = job.has_more(dev_eui)
        return self._downlinks.enqueue(dev_eui, frame)

    def _is_offered(self, job: Job, dev_eui: str) -> bool:
        """Whether a node gets its OFFER by unicast: no window has it, and the node has not spoken yet."""
        if self._windows or dev_eui in job.setups or job.delivery.is_alone(dev_eui) or job.start_us is None:
            return False
        return job.delivery.phase is not Phase.REPAIR and job.delivery.is_silent(dev_eui)

    def _taken(
        self, job: Job, dev_eui: str, f_port: int, payload: bytes, end_us: int, airtime_us: int
    ) -> list[Effect]:
        """A gateway took a frame for one node."""
        if job is not self.job:
            return []
        told = self._counted(job, end_us, airtime_us)
        if f_port == FRAGMENT_PORT and job.delivery.unicast(dev_eui) == payload:
            job.delivery.sent_unicast(dev_eui)
        return [job.store(), job.node_store(dev_eui), *told, *self._settle(end_us)]

    def _handed(
        self, job: Job, dev_eui: str, f_port: int, piece: bool, at_us: int, airtime_us: int
    ) -> list[Effect]:
        """A network server was given a frame, or (negative airtime) could not send it."""
        if job is not self.job:
            return []
        if airtime_us < 0:
            job.airtime_us += airtime_us
            job.frames -= 1
            if f_port == FRAGMENT_PORT:
                job.delivery.told(dev_eui, piece=piece, sent=False)
            return [job.store(), job.node_store(dev_eui), *self._settle(at_us)]
        told = self._counted(job, at_us, airtime_us)
        if f_port == FRAGMENT_PORT:
            job.delivery.sent_unicast(dev_eui)
        return [job.store(), job.node_store(dev_eui), *told, *self._settle(at_us)]

    def _went_out(
        self, job: Job, dev_eui: str, f_port: int, piece: bool, end_us: int, airtime_us: int
    ) -> list[Effect]:
        """The network server has sent the frame."""
        if job is not self.job or f_port != FRAGMENT_PORT:
            return []
        job.delivery.told(dev_eui, piece=piece, sent=True)
        return [job.node_store(dev_eui)]

    def _offer_taken(self, job: Job, end_us: int, airtime_us: int) -> list[Effect]:
        return [*self._counted(job, end_us, airtime_us), job.store()] if job is self.job else []

    def _counted(self, job: Job, now_us: int, airtime_us: int) -> list[Effect]:
        """One more frame was on the air."""
        job.airtime_us += airtime_us
        job.frames += 1
        return [Event("block_offered", now_us, self._view(job))] if job.frames == 1 else []
