"""Nodes whose MAC somebody else's network server does: each frame once, and answers into its queue.

Theory of operation.  A network server hands on what it has decrypted, over a broker that delivers at least
once and, after an outage, late and perhaps out of order.  A node's frames are told apart by session and
counter: per node the highest counter is kept and, as bits, which of the `WINDOW` below it were taken.  A
late frame is taken once; what lies below the window, was taken before, is of one of the last sessions
before the present one, or claims a jump that no 16-bit counter on the air can make is not.  The row is
stored with the frame's effects, so that a delivery repeated after a restart is known.

Nothing multicast reaches these nodes.  Each uplink takes one frame down: what waits for the node, else the
next frame of a large block, else that of the open round (acknowledgement, announcement, the pieces of the
model's block).  The server sends it in the node's receive window if it comes in time, otherwise after the
next uplink; when that will be is not known here, so times in a frame count from `RX_AFTER_US` after the
uplink.  Airtime is the server's: it keeps the law, and what is told to askers is an estimate.

How much the server may hold of a node, `server_queue` says.  A piece of a large block is followed by the next
one as soon as the server has sent it: in class A that waits there for the next uplink, in class C it goes at
once.  To a device in class C what is to be answered is said again after `BLOCK_WAIT_US` of silence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from swarm.downlinks import BLOCK_TAG, Downlinks, Pending
from swarm.effects import (
    ApplicationDownlink,
    ApplicationUplink,
    Effect,
    Event,
    Malformed,
    Row,
    Store,
    integers,
)
from swarm.large_blocks.blocks import Blocks
from swarm.phy.regions import Region
from swarm.queued import payload_at
from swarm.registry import Entry, Registry
from swarm.rounds import Rounds
from swarm.server_queue import BLOCK_WAIT_US, Handed, ServerQueue
from swarm.wire.lorawan import DATA_OVERHEAD

__all__ = ["WINDOW", "Fresh", "ServerNodes"]

TABLE = "server_node"
WINDOW = 62
"""Counters below the highest that may still come; with the highest one they fit a row's integer."""
EARLIER_MAX = 8
"""Sessions before the present one that are remembered, so that an old message cannot bring one back."""
JUMP_MAX = 0xFFFF
FRESH_US = 60_000_000
"""An uplink that came later than that is not answered: the node has slept for long."""
RX_AFTER_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Fresh:
    """A frame not taken before.  `late`: a newer one came before it; `lost`: how many are missing between."""

    late: bool
    lost: int
    stores: tuple[Store, ...]


@dataclass(slots=True)
class _Counters:
    session: str
    earlier: tuple[str, ...]
    f_cnt_up: int
    taken: int
    """Bit n: the frame with counter f_cnt_up - n was taken."""
    device: str
    """What the server calls it; empty: not known yet."""

    def to_row(self) -> Row:
        return {
            "session": self.session,
            "earlier": json.dumps(self.earlier),
            "f_cnt_up": self.f_cnt_up,
            "taken": self.taken,
            "device": self.device,
        }


class ServerNodes:
    """`rows` is what earlier stores left."""

    def __init__(
        self,
        region: Region,
        registry: Registry,
        downlinks: Downlinks,
        rounds: Rounds,
        blocks: Blocks,
        rows: Mapping[str, Mapping[str, Row]],
    ) -> None:
        self._region = region
        self._registry = registry
        self._blocks = blocks
        self._downlinks = downlinks
        self._rounds = rounds
        self._counters = {dev_eui: _restored(row) for dev_eui, row in rows.get(TABLE, {}).items()}
        self._told: dict[str, tuple[int, int]] = {}
        """Node -> the round it is being told of, and how many of its frames went out."""
        self._queue = ServerQueue()
        self._again_us: dict[str, int] = {}
        """Node in class C -> when the next frame of its block goes, whatever the server said."""
        self._reference = 0

    def accept(self, uplink: ApplicationUplink) -> Fresh | Malformed:
        """Whether this frame is new; the stores are to be performed with what it says."""
        known = self._counters.get(uplink.dev_eui)
        if known is not None and uplink.session in known.earlier:
            return Malformed("replay", "of a session before")
        late, lost = False, 0
        if known is None or uplink.session != known.session:
            earlier = () if known is None else (known.session, *known.earlier)[:EARLIER_MAX]
            known = _Counters(uplink.session, earlier, uplink.f_cnt, 1, uplink.device)
            self._queue.clear(uplink.dev_eui)
        else:
            ahead = uplink.f_cnt - known.f_cnt_up
            if ahead <= -WINDOW or (ahead <= 0 and known.taken >> -ahead & 1):
                return Malformed("replay", f"counter {uplink.f_cnt}")
            if ahead > JUMP_MAX:
                return Malformed("counter_jump", f"from {known.f_cnt_up} to {uplink.f_cnt}")
            late, lost = ahead < 0, max(0, ahead - 1)
            if late:
                known.taken |= 1 << -ahead
            else:
                known.taken = (known.taken << min(ahead, WINDOW) | 1) & ((1 << WINDOW) - 1)
                known.f_cnt_up, known.device = uplink.f_cnt, uplink.device
        self._counters[uplink.dev_eui] = known
        return Fresh(late, lost, (Store(TABLE, uplink.dev_eui, known.to_row()),))

    def answer(self, now_us: int, entry: Entry, uplink: ApplicationUplink) -> list[Effect]:
        """One frame for the node that was just heard, if there is one and it came in time."""
        if now_us - uplink.at_us > FRESH_US:
            return []
        dev_eui = entry.record.dev_eui
        self._queue.on_uplink(dev_eui)
        if not self._queue.has_room(dev_eui):
            return []
        if self._queue.has_room(dev_eui, block=True):
            self._blocks.reach(now_us, entry)
        pending = self._downlinks.take(now_us, dev_eui) or self._round_frame(entry)
        return [] if pending is None else self._hand_over(now_us, entry, pending, uplink.gateway_id)

    def _hand_over(self, now_us: int, entry: Entry, pending: Pending, gateway_id: str) -> list[Effect]:
        dev_eui = entry.record.dev_eui
        at_us = now_us + RX_AFTER_US
        payload = payload_at(pending.payload, at_us)
        airtime_us = self._airtime_us(entry, len(payload))
        self._reference = max(self._reference + 1, now_us << 8)
        self._queue.put(Handed(self._reference, dev_eui, pending, at_us, airtime_us))
        if pending.tag == BLOCK_TAG and entry.record.device_class == "c":
            self._again_us[dev_eui] = at_us + BLOCK_WAIT_US  # when it is not waited for any more
        data = {
            "transmit_id": self._reference,
            "gateway_id": gateway_id,
            "purpose": pending.purpose.value,
            "data_rate": None,
            "frequency_hz": None,
            "airtime_us": airtime_us,
            "size": len(payload),
            "dev_eui": dev_eui,
        }
        effects: list[Effect] = [] if pending.sent is None else pending.sent(at_us, airtime_us)
        return [
            *effects,
            ApplicationDownlink(
                self._reference,
                dev_eui,
                self._counters[dev_eui].device,
                pending.f_port,
                payload,
                pending.purpose,
            ),
            Event("downlink", now_us, data),
        ]

    def on_fate(self, now_us: int, reference: int, error: str | None) -> list[Effect]:
        """The server's word; what it could not send waits for the node's next uplink."""
        handed = self._queue.take(reference)
        if handed is None:
            return []
        if error is None:
            taken = handed.pending.taken
            done = [] if taken is None else taken(handed.at_us, handed.airtime_us)
            return done + self._follow(now_us, handed)
        data = {"transmit_id": reference, "error": error, "dev_eui": handed.dev_eui}
        effects: list[Effect] = [Event("tx_failed", now_us, data)]
        if handed.of_block and not handed.is_open:
            return effects  # given up: others went since
        if self._downlinks.enqueue(handed.dev_eui, handed.pending, first=True) and handed.pending.sent:
            effects += handed.pending.sent(handed.at_us, -handed.airtime_us)
        return effects

    def _follow(self, now_us: int, handed: Handed) -> list[Effect]:
        """The next piece behind one that the server has sent."""
        return self._go_on(now_us, handed.dev_eui) if handed.pending.streams and handed.is_open else []

    def _go_on(self, now_us: int, dev_eui: str) -> list[Effect]:
        """The next frame of a block for a node that was not just heard."""
        entry, known = self._registry.get(dev_eui), self._counters.get(dev_eui)
        self._again_us.pop(dev_eui, None)
        if entry is None or known is None or not known.device:
            return []
        if not self._queue.has_room(dev_eui, block=True) or not self._blocks.reach(now_us, entry):
            return []
        pending = self._downlinks.take(now_us, dev_eui)
        return [] if pending is None else self._hand_over(now_us, entry, pending, "")

    def poll(self, now_us: int) -> list[Effect]:
        """Devices in class C of which nothing more was heard: the next frame of the block."""
        effects: list[Effect] = []
        for dev_eui in [each for each, at_us in self._again_us.items() if at_us <= now_us]:
            self._queue.on_silence(now_us, dev_eui)
            effects += self._go_on(now_us, dev_eui)
        return effects

    def poll_at(self) -> int | None:
        """When `poll` has something to do (us)."""
        return min(self._again_us.values(), default=None)

    def forget(self, dev_eui: str) -> list[Store]:
        self._told.pop(dev_eui, None)
        self._again_us.pop(dev_eui, None)
        self._queue.forget(dev_eui)
        return [] if self._counters.pop(dev_eui, None) is None else [Store(TABLE, dev_eui, None)]

    def _round_frame(self, entry: Entry) -> Pending | None:
        """The next frame of the open round that this node was not told."""
        current = self._rounds.current
        if current is None:
            return None
        number, sent = self._told.get(entry.record.dev_eui, (-1, 0))
        if number != current.number:
            sent = 0
        room = self._region.payload_max(self._region.multicast_data_rate, uplink=False)
        frames = self._rounds.unicast(entry, room)
        self._told[entry.record.dev_eui] = (current.number, sent + 1)
        return frames[sent] if sent < len(frames) else None

    def _airtime_us(self, entry: Entry, size: int) -> int:
        """About what the server will spend: RX1 at the node's data rate."""
        region, uplink_rate = self._region, entry.status.data_rate or 0
        rates = region.rx1_data_rates
        data_rate = rates[uplink_rate][0] if uplink_rate < len(rates) else region.rx2_data_rate
        return region.airtime_us(data_rate, DATA_OVERHEAD + size, uplink=False)


def _restored(row: Row) -> _Counters:
    integers(row, "f_cnt_up", "taken")
    f_cnt_up, taken = int(row["f_cnt_up"] or 0), int(row["taken"] or 0)
    earlier = tuple(json.loads(str(row["earlier"])))
    return _Counters(str(row["session"]), earlier, f_cnt_up, taken, str(row.get("device") or ""))
