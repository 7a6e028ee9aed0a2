"""Everything that leaves through a gateway: class A answers and the multicast programme.

Theory of operation.  There are two ways to a node, and both take their slot from the gateway's
`DownlinkScheduler`, which asks the airtime ledger:

* *class A*: a frame waits in the node's own queue until the node is heard; it then goes into RX1,
  or RX2 when RX1 is not free or not legal.  One frame for one uplink.  A node whose receiver is always on
  (class C) can be sent to at once, on its RX2 channel: one of which that is known from the start gets what
  is queued for it by the next `poll`, but not between an uplink and the end of its receive windows, and not
  before its session's first uplink.
* *multicast*: one ordered queue for the group.  Frame counters are given when a frame is built,
  just before its slot, so they leave in order whatever was refused before.  The next frame is built
  when the one before is about to end; a frame that every radio refused is tried again.
  *Between* the programmes of windows, frames of a large block go to the group one by one.

A frame may be given as a function of its start, because announcements carry times counted from
their own reception.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from swarm.effects import Effect, Event, Purpose, RxFrame, Store, Transmit, TxAck
from swarm.gateways import Gateways
from swarm.mac.ledger import AirtimeLedger
from swarm.mac.scheduler import DownlinkScheduler, Refused, Slot
from swarm.mac.session import MulticastGroup, Session, downlink
from swarm.queued import BLOCK_TAG, Pending, Programme, payload_at, spread
from swarm.wire.lorawan import DATA_OVERHEAD, FOPTS_MAX

__all__ = ["BLOCK_TAG", "PENDING_MAX", "PROGRAMME_MAX", "Downlinks", "Pending", "Programme"]

PENDING_MAX = 8
"""Frames that may wait for one node."""
PROGRAMME_MAX = 4096
"""Frames that may wait for the group."""
MULTICAST_TRIES = 3
MULTICAST_LEAD_US = 300_000
MULTICAST_WAIT_US = 2_000_000
"""A gateway that cannot send a multicast frame within this time leaves it to the others."""
CLASS_C_AFTER_RX1_US = 3_000_000
"""RX2 begins a second after RX1; what is sent there is over by then, and the node listens again."""
CLASS_C_ACK_US = 10_000_000
"""A class C node acknowledges within 8 s (CLASS_C_RESP_TIMEOUT)."""
CLASS_C_GAP_US = 1_000_000
CLASS_C_AGAIN_US = 60_000_000
TOO_LONG = "too_long"
UNKNOWN_FATE = "NO_TX_ACK"
"""The one error after which the frame may have reached its node all the same."""
SILENT = frozenset({UNKNOWN_FATE, "NO_DNTXED"})
"""Errors after which the airtime counts: nobody said that nothing was sent.  A Basics Station that confirms
nothing has dropped the frame, so it is sent again; but what it did not confirm it may have sent in part."""
BETWEEN_AGAIN_US = 10_000_000
IN_FLIGHT_MAX = 1024
AIRTIME_KEPT_US = 3_700_000_000
"""Grants are stored a little longer than the sliding hour they are needed for after a restart."""


@dataclass(slots=True)
class _InFlight:
    slot: Slot
    scheduler: DownlinkScheduler
    programme: Programme | None
    pending: Pending | None
    dev_eui: str | None


@dataclass(slots=True)
class Downlinks(Gateways):
    """The downlink side of one cell, its gateways included; created once by the coordinator."""

    confirmed_tries: int = 4
    group: MulticastGroup | None = None
    _pending: dict[str, deque[Pending]] = field(default_factory=dict)
    _heard_by: dict[str, str] = field(default_factory=dict)
    """Node -> the gateway that heard it last."""
    _programme: deque[Programme] = field(default_factory=deque)
    _in_flight: dict[int, _InFlight] = field(default_factory=dict)
    _next_id: int = 1
    _stored: deque[tuple[int, int]] = field(default_factory=deque)
    _multicast_free_us: int = 0
    _programme_until_us: int = 0
    guests: Callable[[int, int], list[Programme]] | None = None
    """What else a window should carry, spread over its programme: called with its first and last instant."""
    _unacked: dict[str, Pending] = field(default_factory=dict)
    """Node -> the confirmed frame that its next uplink has to acknowledge."""
    _class_c: dict[str, Session] = field(default_factory=dict)
    """Nodes whose receiver is always on."""
    _class_c_at_us: dict[str, int] = field(default_factory=dict)
    """When such a node with a frame that waits is tried."""

    def __post_init__(self) -> None:
        row = self.rows.get("multicast", {}).get("cell")
        self.group = MulticastGroup.from_row(row) if row is not None else None
        self.restore_gateways()
        for key, airtime in sorted(self.rows.get("airtime", {}).items(), key=lambda item: int(item[0])):
            sender = self._sender(str(airtime["gateway_id"]))
            grant = sender.ledger.restore_row(airtime)
            sender.scheduler.occupy(grant.at_us, grant.airtime_us)
            self._next_id = max(self._next_id, int(key) + 1)
            self._stored.append((int(key), int(airtime["at_us"])))  # type: ignore[arg-type]
        self.rows = {}

    # -- class A ----------------------------------------------------------------------------------

    def enqueue(self, dev_eui: str, pending: Pending, *, first: bool = False) -> bool:
        """Let a frame wait for its node, behind the others unless `first`; a frame with the same non-empty
        tag is replaced.  False: full."""
        if dev_eui in self._class_c:
            self._class_c_at_us.setdefault(dev_eui, 0)
        queue = self._pending.setdefault(dev_eui, deque())
        if pending.tag:
            for index, waiting in enumerate(queue):
                if waiting.tag == pending.tag:
                    queue[index] = pending
                    return True
        if len(queue) >= PENDING_MAX:
            return False
        if first:
            queue.appendleft(pending)
        else:
            queue.append(pending)
        return True

    def take(self, now_us: int, dev_eui: str) -> Pending | None:
        """The oldest frame that waits for this node, for somebody else to send."""
        pending = self._next_pending(now_us, dev_eui)
        if pending is not None:
            self._pending[dev_eui].popleft()
        return pending

    def forget(self, dev_eui: str) -> None:
        """The node was removed: nothing waits for it, and what is on its way has no consequence."""
        self.listens(dev_eui, None)
        for flight in self._in_flight.values():
            if flight.dev_eui == dev_eui:
                flight.dev_eui = flight.pending = None
        self._pending.pop(dev_eui, None)
        self._unacked.pop(dev_eui, None)
        self._heard_by.pop(dev_eui, None)

    def withdraw(self, dev_eui: str, tag: str) -> None:
        """Take back the waiting frame with this tag, if it still waits."""
        queue = self._pending.get(dev_eui)
        if queue is not None:
            self._pending[dev_eui] = deque(waiting for waiting in queue if waiting.tag != tag)

    def cancel(self, dev_eui: str, tag: str) -> None:
        """Take back the frame with this tag wherever it is; on the air it has no consequence any more."""
        self.withdraw(dev_eui, tag)
        unacked = self._unacked.get(dev_eui)
        if unacked is not None and unacked.tag == tag:
            del self._unacked[dev_eui]
        for flight in self._in_flight.values():
            if flight.dev_eui == dev_eui and flight.pending is not None and flight.pending.tag == tag:
                flight.pending = None

    def listens(self, dev_eui: str, session: Session | None) -> None:
        """The receiver of this node is always on, in that session; None: it is not."""
        self._class_c.pop(dev_eui, None)
        self._class_c_at_us.pop(dev_eui, None)
        if session is not None:
            self._class_c[dev_eui] = session
            if self.waiting(dev_eui):
                self._class_c_at_us[dev_eui] = 0

    def _poll_class_c(self, now_us: int) -> list[Effect]:
        """Send to class C nodes what waits for them; a confirmed frame has `CLASS_C_ACK_US` for its
        answer."""
        effects: list[Effect] = []
        for dev_eui in [each for each, at_us in self._class_c_at_us.items() if at_us <= now_us]:
            effects += self.on_heard(now_us, dev_eui, False)
            session, pending = self._class_c[dev_eui], self._next_pending(now_us, dev_eui)
            if pending is None or session.f_cnt_up is None:
                del self._class_c_at_us[dev_eui]
                continue
            self._pending[dev_eui].popleft()
            sent = self.send_now(now_us, session, pending, first=True)
            effects += sent
            ends = [e.at_us + e.airtime_us for e in sent if isinstance(e, Transmit)]
            pause_us = CLASS_C_ACK_US if pending.acked else CLASS_C_GAP_US
            self._class_c_at_us[dev_eui] = ends[0] + pause_us if ends else now_us + CLASS_C_AGAIN_US
        return effects

    def on_heard(self, now_us: int, dev_eui: str, ack: bool) -> list[Effect]:
        """A new uplink: it acknowledges the confirmed frame before it, or that is sent again with a new
        counter (never with its old one, under which a device drops what it has), `confirmed_tries` times in
        all."""
        pending = self._unacked.pop(dev_eui, None)
        if pending is None or pending.acked is None:
            return []
        if ack or pending.tries >= self.confirmed_tries:
            return pending.acked(now_us, ack)
        self._pending.setdefault(dev_eui, deque()).appendleft(pending)
        return []

    def waiting(self, dev_eui: str) -> int:
        return len(self._pending.get(dev_eui, ()))

    def next_size(self, now_us: int, dev_eui: str) -> int | None:
        """The payload (bytes) of the frame that waits for this node, the oldest; None: there is none."""
        pending = self._next_pending(now_us, dev_eui)
        return None if pending is None else pending.size

    def answer(
        self,
        now_us: int,
        rx: RxFrame,
        session: Session,
        *,
        ack: bool,
        f_opts: bytes,
        adr: bool = False,
        must: bool = False,
    ) -> list[Effect]:
        """Use the receive windows after `rx`: the oldest waiting frame, or an empty one (only if `must`, or
        there is something to say); more than 15 B of `f_opts` take the place of a frame that waits."""
        self._heard_by[session.dev_eui] = rx.gateway_id
        if session.dev_eui in self._class_c:
            windows_us = session.rx1_delay_us + CLASS_C_AFTER_RX1_US
            self._class_c_at_us[session.dev_eui] = rx.at_us + windows_us
        pending = self._next_pending(now_us, session.dev_eui)
        if pending is not None and pending.acked is not None and session.dev_eui in self._unacked:
            pending = None  # one confirmed frame at a time: this uplink came again, and acknowledges nothing
        if pending is None and not ack and not f_opts and not must:
            return []
        if len(f_opts) > FOPTS_MAX:
            pending = Pending(0, f_opts, len(f_opts), Purpose.ACK, now_us)
            self._pending.setdefault(session.dev_eui, deque()).appendleft(pending)
            f_opts = b""
        size = DATA_OVERHEAD + len(f_opts) + (pending.size if pending is not None else 0)
        purpose = pending.purpose if pending is not None else Purpose.ACK
        slot = self._class_a_slot(now_us, rx, session, size, purpose)
        failed: list[Effect] = []
        if isinstance(slot, Refused) and pending is not None and (ack or f_opts or must):
            # Too long for this data rate, perhaps: what has to be said now is said without it.
            failed = self._no_slot(now_us, session.dev_eui, slot)
            pending, purpose = None, Purpose.ACK
            slot = self._class_a_slot(now_us, rx, session, DATA_OVERHEAD + len(f_opts), purpose)
        if isinstance(slot, Refused):
            return failed or self._no_slot(now_us, session.dev_eui, slot)
        payload = b""
        if pending is not None:
            self._pending[session.dev_eui].popleft()
            payload = payload_at(pending.payload, slot.at_us)
        phy = downlink(
            session,
            f_port=pending.f_port if pending is not None else None,
            payload=payload,
            ack=ack,
            confirmed=pending is not None and pending.acked is not None,
            f_pending=self.waiting(session.dev_eui) > 0 or (pending is not None and pending.more),
            adr=adr,
            f_opts=f_opts,
        )
        return failed + self._send_to_node(rx.gateway_id, slot, session, phy, purpose, pending)

    def _no_slot(self, now_us: int, dev_eui: str, slot: Refused) -> list[Effect]:
        """The first frame that waits cannot go out; when it is too long, the others have their turn."""
        if TOO_LONG in slot.reason and dev_eui in self._pending:
            self._pending[dev_eui].rotate(-1)
        return [Event("tx_failed", now_us, {"dev_eui": dev_eui, "error": slot.reason})]

    def send_now(
        self, now_us: int, session: Session, pending: Pending, *, first: bool = False
    ) -> list[Effect]:
        """Send to a node whose receiver is always on; what cannot go out now waits for its next uplink,
        before the others if it was the `first` of them and is not too long."""
        alive = self.alive(now_us)
        gateway_id = self._heard_by.get(session.dev_eui, "")
        gateway_id = gateway_id if gateway_id in alive else next(iter(alive), "")
        slot: Slot | Refused = Refused("no_gateway")
        if gateway_id:
            slot = self._gateways[gateway_id].scheduler.class_c(
                now_us,
                DATA_OVERHEAD + pending.size,
                session.rx2_frequency_hz,
                session.rx2_data_rate,
                pending.purpose,
                now_us=now_us,
            )
        if isinstance(slot, Refused):
            self.enqueue(session.dev_eui, pending, first=first and TOO_LONG not in slot.reason)
            return [Event("tx_failed", now_us, {"dev_eui": session.dev_eui, "error": slot.reason})]
        payload = payload_at(pending.payload, slot.at_us)
        phy = downlink(session, f_port=pending.f_port, payload=payload, confirmed=pending.acked is not None)
        return self._send_to_node(gateway_id, slot, session, phy, pending.purpose, pending)

    def _send_to_node(
        self,
        gateway_id: str,
        slot: Slot,
        session: Session,
        phy: bytes,
        purpose: Purpose,
        pending: Pending | None,
    ) -> list[Effect]:
        effects: list[Effect] = [Store("session", session.dev_eui, session.to_row())]
        if pending is not None and pending.sent is not None:
            effects += pending.sent(slot.at_us, slot.airtime_us)
        if pending is not None and pending.acked is not None:
            pending.tries += 1
            self._unacked[session.dev_eui] = pending
        effects += self._transmit(gateway_id, slot, phy, purpose, dev_eui=session.dev_eui, pending=pending)
        return effects

    def join_accept(self, now_us: int, rx: RxFrame, phy: bytes, session: Session) -> list[Effect]:
        """Send a join accept 5 s or 6 s after the request."""
        slot = self._class_a_slot(now_us, rx, session, len(phy), Purpose.JOIN, join=True)
        if isinstance(slot, Refused):
            return [Event("tx_failed", now_us, {"dev_eui": session.dev_eui, "error": slot.reason})]
        return self._transmit(rx.gateway_id, slot, phy, Purpose.JOIN, dev_eui=session.dev_eui)

    def _next_pending(self, now_us: int, dev_eui: str) -> Pending | None:
        queue = self._pending.get(dev_eui)
        while queue and queue[0].expires_us < now_us:
            queue.popleft()
        return queue[0] if queue else None

    def _class_a_slot(
        self, now_us: int, rx: RxFrame, session: Session, size: int, purpose: Purpose, *, join: bool = False
    ) -> Slot | Refused:
        gateway = self._gateways.get(rx.gateway_id)
        if gateway is None:
            return Refused("too_many_gateways")
        return gateway.scheduler.class_a(
            now_us,
            rx,
            size,
            rx1_delay_us=session.rx1_delay_us,
            rx1_dr_offset=session.rx1_dr_offset,
            rx2_frequency_hz=session.rx2_frequency_hz,
            rx2_data_rate=session.rx2_data_rate,
            purpose=purpose,
            join=join,
            rx1_frequency_hz=None if join else session.rx1_frequencies_hz.get(rx.frequency_hz),
            dwell=None if join else session.downlink_dwell,
        )

    # -- multicast --------------------------------------------------------------------------------

    def programme(self, frames: list[Programme], not_before_us: int, until_us: int) -> bool:
        """Queue a window's frames for the group, all or none; False when there is no group or no room.

        What is left of an earlier programme is dropped, and of this one at `until_us`: the window is over.
        """
        if self.group is None or len(frames) > PROGRAMME_MAX:
            return False
        if self.guests is not None:
            frames = spread(self.guests(not_before_us, until_us), frames)
        self._multicast_free_us = max(self._multicast_free_us, not_before_us)
        self._programme = deque(frames)
        self._programme_until_us = until_us
        return True

    def programme_airtime_us(self, frames: list[Programme]) -> int:
        """Time on air of a programme, one gateway, without the pauses that the duty cycle may force."""
        assert self.group is not None
        rate = self.group.data_rate
        return sum(self.region.airtime_us(rate, DATA_OVERHEAD + frame.size, uplink=False) for frame in frames)

    def busy(self) -> bool:
        """Whether multicast frames still wait."""
        return bool(self._programme)

    def poll(self, now_us: int) -> list[Effect]:
        """Send what waits for class C nodes, and build the next multicast frame when its turn has come."""
        effects = self._poll_class_c(now_us)
        while self._programme and now_us >= self._multicast_free_us - MULTICAST_LEAD_US:
            if now_us >= self._programme_until_us:
                effects.append(Event("programme_cut", now_us, {"frames": len(self._programme)}))
                self._programme.clear()
                break
            alive = self.alive(now_us)
            if not alive:
                self._multicast_free_us = now_us + 10_000_000
                break
            effects += self._send_multicast(now_us, alive)
        return effects

    def poll_at(self) -> int | None:
        times = list(self._class_c_at_us.values())
        if self._programme:
            times.append(self._multicast_free_us - MULTICAST_LEAD_US)
        return min(times, default=None)

    def between(self, now_us: int, frame: Programme, share: float) -> tuple[list[Effect], int | None]:
        """Send a frame that belongs to no window, or say when to try again (us).

        A gateway spends at most `share` (0..1) of an hour's budget with it: the rest is for windows and
        answers.
        """
        free_us = self._multicast_free_us - MULTICAST_LEAD_US
        alive = self.alive(now_us)
        if self._programme or not alive:
            return [], now_us + BETWEEN_AGAIN_US
        if now_us < free_us:
            return [], free_us
        start_us = max(now_us + MULTICAST_LEAD_US, self._multicast_free_us)
        slots, effects, later_us = self._multicast_slots(now_us, frame, start_us, alive)
        kept = [(gateway_id, slot) for gateway_id, slot in slots if self._within(gateway_id, slot, share)]
        for gateway_id, slot in slots:
            if (gateway_id, slot) not in kept:
                self._gateways[gateway_id].scheduler.release(slot)
        if not kept:
            again_us = now_us + BETWEEN_AGAIN_US
            return effects, again_us if later_us is None else max(later_us, again_us)
        return effects + self._send_copies(frame, kept), None

    def _within(self, gateway_id: str, slot: Slot, share: float) -> bool:
        """Whether with this slot (which is granted) the hour up to its end holds at most that share."""
        end_us = slot.at_us + slot.airtime_us
        return self._gateways[gateway_id].ledger.fraction(end_us)[slot.grant.sub_band] <= share

    def _send_multicast(self, now_us: int, alive: list[str]) -> list[Effect]:
        """One frame through every gateway that is free, one after the other so that they cannot collide."""
        frame = self._programme[0]
        start_us = max(now_us + MULTICAST_LEAD_US, self._multicast_free_us)
        slots, effects, later_us = self._multicast_slots(now_us, frame, start_us, alive)
        if not slots:
            # The duty cycle makes all of them wait: the frame is built when its time has come.
            self._multicast_free_us = now_us + 10_000_000 if later_us is None else later_us
            return effects
        self._programme.popleft()
        effects += self._send_copies(frame, slots)
        if frame.last:
            effects.append(Event("programme_sent", self._multicast_free_us, {}))
        return effects

    def _send_copies(self, frame: Programme, slots: list[tuple[str, Slot]]) -> list[Effect]:
        group = self.group
        assert group is not None
        phy = group.frame(frame.f_port, payload_at(frame.payload, slots[0][1].at_us))
        effects: list[Effect] = [Store("multicast", "cell", group.to_row())]
        frame.copies = len(slots)
        frame.airtime_us = sum(slot.airtime_us for _, slot in slots)
        for gateway_id, slot in slots:
            effects += self._transmit(gateway_id, slot, phy, frame.purpose, programme=frame)
            self._multicast_free_us = frame.end_us = slot.at_us + slot.airtime_us
        return effects

    def _multicast_slots(
        self, now_us: int, frame: Programme, start_us: int, alive: list[str]
    ) -> tuple[list[tuple[str, Slot]], list[Effect], int | None]:
        """Slots one behind the other, refusals, and when the first of those that are not free will be."""
        group = self.group
        assert group is not None
        slots: list[tuple[str, Slot]] = []
        effects: list[Effect] = []
        later_us: int | None = None
        size = DATA_OVERHEAD + frame.size
        for gateway_id in alive:
            scheduler = self._gateways[gateway_id].scheduler
            slot = scheduler.class_c(
                start_us, size, group.frequency_hz, group.data_rate, frame.purpose, now_us=now_us
            )
            if isinstance(slot, Refused):
                effects.append(Event("tx_failed", now_us, {"gateway_id": gateway_id, "error": slot.reason}))
            elif slot.at_us > start_us + MULTICAST_WAIT_US:
                scheduler.release(slot)
                later_us = slot.at_us if later_us is None else min(later_us, slot.at_us)
            else:
                slots.append((gateway_id, slot))
                start_us = slot.at_us + slot.airtime_us
        return slots, effects, later_us

    # -- what became of it ------------------------------------------------------------------------

    def addressee(self, transmit_id: int) -> str | None:
        """The DevEUI of the node that a transmission is for, as long as its fate is open."""
        flight = self._in_flight.get(transmit_id)
        return None if flight is None else flight.dev_eui

    def on_tx_ack(self, now_us: int, ack: TxAck) -> list[Effect]:
        """A refused frame gives its airtime back; a frame that was never sent is queued again."""
        flight = self._in_flight.pop(ack.transmit_id, None)
        if flight is None:
            return []
        frame = flight.programme
        told = self._told(now_us, flight, ack.error)
        if ack.error is None:
            if frame is not None:
                frame.tries = MULTICAST_TRIES
            return told
        data = {"transmit_id": ack.transmit_id, "error": ack.error, "dev_eui": flight.dev_eui}
        effects: list[Effect] = [Event("tx_failed", now_us, data), *told]
        released = ack.error not in SILENT
        if released:
            flight.scheduler.release(flight.slot)
            effects.insert(0, Store("airtime", str(ack.transmit_id), None))
        if ack.error != UNKNOWN_FATE and flight.pending is not None and flight.dev_eui is not None:
            # Its node has not heard it: it waits for the node's next uplink.
            if flight.pending.acked is not None:
                if self._unacked.get(flight.dev_eui) is not flight.pending:
                    return effects  # an uplink came first: it waits again, was acknowledged or given up
                del self._unacked[flight.dev_eui]
                flight.pending.tries -= released
            self._pending.setdefault(flight.dev_eui, deque()).appendleft(flight.pending)
            if released and flight.pending.sent is not None:
                effects += flight.pending.sent(flight.slot.at_us, -flight.slot.airtime_us)
        if frame is not None and frame.fate is None:
            frame.copies -= 1
            if frame.copies == 0 and frame.tries < MULTICAST_TRIES:
                frame.tries += 1
                self._programme.appendleft(frame)
                self._multicast_free_us = max(self._multicast_free_us, now_us + MULTICAST_LEAD_US)
        return effects

    def _told(self, now_us: int, flight: _InFlight, error: str | None) -> list[Effect]:
        """Tell who waits for a frame's fate; what nobody knows counts as sent."""
        frame, pending, slot = flight.programme, flight.pending, flight.slot
        taken = error in (None, UNKNOWN_FATE)
        if pending is not None and pending.taken is not None and taken:
            return pending.taken(slot.at_us + slot.airtime_us, slot.airtime_us)
        if frame is None or frame.fate is None:
            return []
        fate = frame.fate
        frame.copies -= 1
        frame.tries += taken
        if not taken and error not in SILENT:
            frame.airtime_us -= slot.airtime_us
        return fate(now_us, frame.tries > 0) if frame.copies == 0 else []

    def _transmit(
        self,
        gateway_id: str,
        slot: Slot,
        phy: bytes,
        purpose: Purpose,
        *,
        dev_eui: str | None = None,
        pending: Pending | None = None,
        programme: Programme | None = None,
    ) -> list[Effect]:
        transmit_id = self._next_id
        self._next_id += 1
        while len(self._in_flight) >= IN_FLIGHT_MAX:
            del self._in_flight[next(iter(self._in_flight))]
        gateway = self._gateways[gateway_id]
        self._in_flight[transmit_id] = _InFlight(slot, gateway.scheduler, programme, pending, dev_eui)
        expired: list[Effect] = []
        while self._stored and self._stored[0][1] < slot.at_us - AIRTIME_KEPT_US:
            expired.append(Store("airtime", str(self._stored.popleft()[0]), None))
        self._stored.append((transmit_id, slot.at_us))
        data: dict[str, object] = {
            "transmit_id": transmit_id,
            "gateway_id": gateway_id,
            "purpose": purpose.value,
            "data_rate": slot.data_rate,
            "frequency_hz": slot.frequency_hz,
            "airtime_us": slot.airtime_us,
            "size": len(phy),
            "dev_eui": dev_eui,
        }
        return [
            *expired,
            Store(
                "airtime", str(transmit_id), {"gateway_id": gateway_id, **AirtimeLedger.to_row(slot.grant)}
            ),
            Transmit(
                transmit_id=transmit_id,
                gateway_id=gateway_id,
                payload=phy,
                at_us=slot.at_us,
                tmst_us=slot.tmst_us,
                frequency_hz=slot.frequency_hz,
                data_rate=slot.data_rate,
                power_dbm=slot.power_dbm,
                airtime_us=slot.airtime_us,
                purpose=purpose,
                multicast=programme is not None,
            ),
            Event("downlink", slot.at_us, data),
        ]
