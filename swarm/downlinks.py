"""Everything that leaves through a gateway: class A answers and the multicast programme.

Theory of operation.  There are two ways to a node, and both take their slot from the gateway's
`DownlinkScheduler`, which asks the airtime ledger:

* *class A*: a frame waits in the node's own queue until the node is heard; it then goes into RX1,
  or RX2 when RX1 is not free or not legal.  One frame for one uplink.  A node whose receiver is always on
  (class C) can be sent to at once, on its RX2 channel.
* *multicast*: one ordered queue for the group.  Frame counters are given when a frame is built,
  just before its slot, so they leave in order whatever was refused before.  The next frame is built
  when the one before is about to end; a frame that every radio refused is tried again.
  *Between* the programmes of windows, frames of a large block go to the group one by one.

A gateway proves itself by being the first to deliver a genuine new frame, which no recording is and no
copy of another gateway's frame.  It counts as genuine until the cell's newest proof is `PROOF_KEPT_US`
younger than its own.  The others are strangers that only call themselves gateways: they are forgotten
first, and not asked to send where there is a genuine one.  What a forgotten gateway has sent in the past
hour stays on its account.

A frame may be given as a function of its start, because announcements carry times counted from
their own reception.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from swarm.effects import Effect, Event, Purpose, Row, RxFrame, Store, Transmit, TxAck
from swarm.mac.ledger import AirtimeLedger
from swarm.mac.scheduler import DownlinkScheduler, Refused, Slot
from swarm.mac.self_blocking import SelfBlocking
from swarm.mac.session import MulticastGroup, Session, downlink
from swarm.phy.regions import Region
from swarm.queued import Pending, Programme, payload_at, spread
from swarm.wire.lorawan import DATA_OVERHEAD

__all__ = ["PENDING_MAX", "PROGRAMME_MAX", "Downlinks", "Pending", "Programme"]

PENDING_MAX = 8
"""Frames that may wait for one node."""
PROGRAMME_MAX = 4096
"""Frames that may wait for the group."""
GATEWAYS_MAX = 64
ASIDE_MAX = 1024
"""Gateways that lost their place and whose airtime of the past hour is remembered."""
PROOF_KEPT_US = 7 * 86_400_000_000
GATEWAY_SILENT_US = 120_000_000
"""A gateway not heard for so long is not asked to send (its PULL_DATA comes every few seconds)."""
MULTICAST_TRIES = 3
MULTICAST_LEAD_US = 300_000
MULTICAST_WAIT_US = 2_000_000
"""A gateway that cannot send a multicast frame within this time leaves it to the others."""
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
class _Gateway:
    scheduler: DownlinkScheduler
    ledger: AirtimeLedger
    last_seen_us: int = -GATEWAY_SILENT_US
    proved_us: int | None = None
    stored_us: int | None = None


@dataclass(slots=True)
class Downlinks:
    """The downlink side of one cell; created once by the coordinator."""

    region: Region
    lead_us: int
    rows: Mapping[str, Mapping[str, Row]]
    group: MulticastGroup | None = None
    _gateways: dict[str, _Gateway] = field(default_factory=dict)
    _aside: dict[str, _Gateway] = field(default_factory=dict)
    _newest_proof_us: int = 0
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

    def __post_init__(self) -> None:
        row = self.rows.get("multicast", {}).get("cell")
        self.group = MulticastGroup.from_row(row) if row is not None else None
        for gateway_id, gateway_row in self.rows.get("gateway", {}).items():
            gateway = self._gateway(gateway_id)
            gateway.last_seen_us = gateway.stored_us = int(gateway_row["last_seen_us"] or 0)
            gateway.proved_us = int(gateway_row.get("proved_us") or gateway.last_seen_us)
            self._newest_proof_us = max(self._newest_proof_us, gateway.proved_us)
        for key, airtime in sorted(self.rows.get("airtime", {}).items(), key=lambda item: int(item[0])):
            sender = self._sender(str(airtime["gateway_id"]))
            grant = sender.ledger.restore_row(airtime)
            sender.scheduler.occupy(grant.at_us, grant.airtime_us)
            self._next_id = max(self._next_id, int(key) + 1)
            self._stored.append((int(key), int(airtime["at_us"])))  # type: ignore[arg-type]
        self.rows = {}

    # -- gateways ---------------------------------------------------------------------------------

    def heard_gateway(
        self, now_us: int, gateway_id: str, *, proof: bool = False, blocks: bool = False
    ) -> list[Effect]:
        """A gateway gave a sign of life (`proof`: it was the first to bring a genuine new frame; `blocks`: it
        keeps a duty cycle of its own and drops what exceeds it)."""
        effects: list[Effect] = []
        if gateway_id not in self._gateways:
            room = self._make_room(now_us)
            if room is None:
                return [Event("dropped", now_us, {"reason": "too_many_gateways", "gateway_id": gateway_id})]
            effects += room
        gateway = self._gateway(gateway_id)
        gateway.last_seen_us = now_us
        if blocks and gateway.ledger.blocking is None:
            gateway.ledger.blocking = SelfBlocking(self.region.name)
        fresh = _recent(now_us, gateway.stored_us)
        if proof:
            fresh = fresh and _recent(now_us, gateway.proved_us)
            gateway.proved_us = self._newest_proof_us = now_us
        if fresh or not self.genuine(gateway_id):
            return effects
        gateway.stored_us = now_us
        row: Row = {"last_seen_us": now_us, "proved_us": gateway.proved_us}
        return [*effects, Store("gateway", gateway_id, row)]

    def genuine(self, gateway_id: str) -> bool:
        """Whether this gateway has proved itself, not too long before the last one that did."""
        gateway = self._gateways.get(gateway_id)
        if gateway is None or gateway.proved_us is None:
            return False
        return gateway.proved_us >= self._newest_proof_us - PROOF_KEPT_US

    def _make_room(self, now_us: int) -> list[Effect] | None:
        """A place for one more gateway, perhaps that of the stranger silent for longest; None: no place."""
        if len(self._gateways) < GATEWAYS_MAX:
            return []
        strangers = [(state.last_seen_us, g) for g, state in self._gateways.items() if not self.genuine(g)]
        for _, gateway_id in sorted(strangers):
            if self._put_aside(now_us, gateway_id):
                stored = self._gateways.pop(gateway_id).stored_us is not None
                return [Store("gateway", gateway_id, None)] if stored else []
        return None

    def _put_aside(self, now_us: int, gateway_id: str) -> bool:
        """Remember what this gateway has sent in the past hour, if anything; False: no room for that."""
        gateway = self._gateways[gateway_id]
        if gateway.ledger.idle(now_us):
            return True
        if len(self._aside) >= ASIDE_MAX:
            self._aside = {g: state for g, state in self._aside.items() if not state.ledger.idle(now_us)}
        if len(self._aside) >= ASIDE_MAX:
            return False
        self._aside[gateway_id] = gateway
        return True

    def alive(self, now_us: int) -> list[str]:
        """The gateways that can send now, in a fixed order; strangers only where no other was ever heard."""
        genuine = {g for g in self._gateways if self.genuine(g)}
        return sorted(
            g
            for g, state in self._gateways.items()
            if now_us - state.last_seen_us <= GATEWAY_SILENT_US and (g in genuine or not genuine)
        )

    def gateways(self) -> dict[str, int]:
        """Gateway id -> when it was last heard (us)."""
        return {gateway_id: state.last_seen_us for gateway_id, state in sorted(self._gateways.items())}

    def ledger(self, gateway_id: str) -> AirtimeLedger:
        return self._sender(gateway_id).ledger

    # -- class A ----------------------------------------------------------------------------------

    def enqueue(self, dev_eui: str, pending: Pending, *, first: bool = False) -> bool:
        """Let a frame wait for its node, behind the others unless `first`; a frame with the same non-empty
        tag is replaced.  False: full."""
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
        self._pending.pop(dev_eui, None)
        self._heard_by.pop(dev_eui, None)

    def withdraw(self, dev_eui: str, tag: str) -> None:
        """Take back the waiting frame with this tag, if it still waits."""
        queue = self._pending.get(dev_eui)
        if queue is not None:
            self._pending[dev_eui] = deque(waiting for waiting in queue if waiting.tag != tag)

    def waiting(self, dev_eui: str) -> int:
        return len(self._pending.get(dev_eui, ()))

    def answer(self, now_us: int, rx: RxFrame, session: Session, *, ack: bool, f_opts: bytes) -> list[Effect]:
        """Use the receive windows after `rx`: the oldest waiting frame, or an empty one."""
        self._heard_by[session.dev_eui] = rx.gateway_id
        pending = self._next_pending(now_us, session.dev_eui)
        if pending is None and not ack and not f_opts:
            return []
        size = DATA_OVERHEAD + len(f_opts) + (pending.size if pending is not None else 0)
        purpose = pending.purpose if pending is not None else Purpose.ACK
        slot = self._class_a_slot(now_us, rx, session, size, purpose)
        if isinstance(slot, Refused):
            return [Event("tx_failed", now_us, {"dev_eui": session.dev_eui, "error": slot.reason})]
        payload = b""
        if pending is not None:
            self._pending[session.dev_eui].popleft()
            payload = payload_at(pending.payload, slot.at_us)
        phy = downlink(
            session,
            f_port=pending.f_port if pending is not None else None,
            payload=payload,
            ack=ack,
            f_pending=self.waiting(session.dev_eui) > 0 or (pending is not None and pending.more),
            f_opts=f_opts,
        )
        return self._send_to_node(rx.gateway_id, slot, session, phy, purpose, pending)

    def send_now(self, now_us: int, session: Session, pending: Pending) -> list[Effect]:
        """Send to a node whose receiver is always on; what cannot go out now waits for its next uplink."""
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
            self.enqueue(session.dev_eui, pending)
            return [Event("tx_failed", now_us, {"dev_eui": session.dev_eui, "error": slot.reason})]
        payload = payload_at(pending.payload, slot.at_us)
        phy = downlink(
            session, f_port=pending.f_port, payload=payload, ack=False, f_pending=False, f_opts=b""
        )
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
        effects += self._transmit(gateway_id, slot, phy, purpose, dev_eui=session.dev_eui, pending=pending)
        if pending is not None and pending.sent is not None:
            effects += pending.sent(slot.at_us, slot.airtime_us)
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
        """Build and send the next multicast frame when its turn has come."""
        effects: list[Effect] = []
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
        return self._multicast_free_us - MULTICAST_LEAD_US if self._programme else None

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

    def _gateway(self, gateway_id: str) -> _Gateway:
        """The gateway's place in the table, with all it has sent: taken up again, or new."""
        gateway = self._gateways.get(gateway_id)
        if gateway is None:
            gateway = self._gateways[gateway_id] = self._sender(gateway_id)
            self._aside.pop(gateway_id, None)
            gateway.proved_us = gateway.stored_us = None
        return gateway

    def _sender(self, gateway_id: str) -> _Gateway:
        """Calendar and ledger of a gateway, whether or not it has a place."""
        gateway = self._gateways.get(gateway_id) or self._aside.get(gateway_id)
        if gateway is None:
            ledger = AirtimeLedger(self.region)
            gateway = _Gateway(DownlinkScheduler(self.region, ledger, lead_us=self.lead_us), ledger)
            self._aside[gateway_id] = gateway
        return gateway


def _recent(now_us: int, at_us: int | None) -> bool:
    return at_us is not None and now_us - at_us <= GATEWAY_SILENT_US // 2
