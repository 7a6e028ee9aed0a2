"""Frames that an operator sends to a node by hand: each has a row until its fate is known.

Theory of operation.  A frame waits with all others in the node's queue (`swarm.downlinks`): class A until
the node's next uplink, class C until the next `poll`.  An unconfirmed one is done when it has its slot, a
confirmed one when the node acknowledges it, or is given up after its tries; either is given up at its
deadline.  What the rows hold is queued again after a restart, with the tries that it has had; numbers go on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swarm.commands import CancelFrame, SendFrame
from swarm.downlinks import PENDING_MAX, Downlinks, Pending
from swarm.effects import Effect, Event, Purpose, Row, Store, integers
from swarm.phy.regions import Region
from swarm.registry import Entry, Refused, Registry

__all__ = ["FRAMES_MAX", "OperatorFrames"]

TABLE = "operator_frame"
NEXT = "operator_frame"
"""In the table `meta`: the number of the next one."""
FRAMES_MAX = 4096
F_PORT_MAX = 223


@dataclass(slots=True)
class _Frame:
    number: int
    command: SendFrame
    expires_us: int
    tries: int
    pending: Pending | None = None

    def to_row(self) -> Row:
        command = self.command
        return {
            "dev_eui": command.dev_eui,
            "f_port": command.f_port,
            "payload": command.payload,
            "confirmed": int(command.confirmed),
            "expires_us": self.expires_us,
            "tries": self.tries,
        }

    def view(self) -> dict[str, Any]:
        """As a plain object; its payload is the sender's affair."""
        command = self.command
        return {
            "number": self.number,
            "dev_eui": command.dev_eui,
            "f_port": command.f_port,
            "size": len(command.payload),
            "confirmed": command.confirmed,
            "tries": self.tries,
            "expires_us": self.expires_us,
        }

    def event(self, at_us: int, state: str) -> Event:
        data = {"dev_eui": self.command.dev_eui, "number": self.number, "state": state, "tries": self.tries}
        return Event("operator_frame", at_us, data)


class OperatorFrames:
    """All that wait; `rows` is what earlier stores left."""

    def __init__(
        self, region: Region, registry: Registry, downlinks: Downlinks, rows: Mapping[str, Mapping[str, Row]]
    ) -> None:
        self._region = region
        self._registry = registry
        self._downlinks = downlinks
        self._frames: dict[int, _Frame] = {}
        kept = rows.get("meta", {}).get(NEXT)
        self._next = 1 if kept is None else int(str(kept["value"]))
        for key, row in sorted(rows.get(TABLE, {}).items(), key=lambda item: int(item[0])):
            integers(row, "f_port", "confirmed", "expires_us", "tries")
            payload = row["payload"]
            assert isinstance(payload, bytes)
            command = SendFrame(str(row["dev_eui"]), int(row["f_port"] or 0), payload, bool(row["confirmed"]))
            self._queue(_Frame(int(key), command, int(row["expires_us"] or 0), int(row["tries"] or 0)))

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def newest(self) -> int:
        """The number of the frame that came last; 0: none ever came."""
        return self._next - 1

    def send(self, now_us: int, command: SendFrame) -> list[Effect] | Refused:
        """Let a frame wait for its node, or say why not."""
        entry = self._registry.get(command.dev_eui)
        if entry is None:
            return Refused(
                f"no node has the DevEUI {command.dev_eui}; `swarm nodes list` shows those there are"
            )
        if not entry.reachable:
            return Refused("the node has not joined yet")
        if not 1 <= command.f_port <= F_PORT_MAX:
            return Refused(f"FPort {command.f_port} is not for applications; give 1 to {F_PORT_MAX}")
        if command.confirmed and entry.behind_server:
            return Refused("its network server is told unconfirmed frames only")
        room = self._room(entry)
        if len(command.payload) > room:
            return Refused(
                f"{len(command.payload)} bytes are too long for the node's data rates: at most {room}"
            )
        if len(self._frames) >= FRAMES_MAX:
            return Refused("too many frames wait already")
        frame = _Frame(self._next, command, now_us + command.within_s * 1_000_000, 0)
        mine = sum(each.command.dev_eui == command.dev_eui for each in self._frames.values())
        # Those that are on their way count: after a restart they wait again.
        if mine >= PENDING_MAX or not self._queue(frame):
            return Refused("too many frames wait for this node already")
        following = Store("meta", NEXT, {"value": str(self._next)})
        return [Store(TABLE, str(frame.number), frame.to_row()), following, frame.event(now_us, "queued")]

    def cancel(self, now_us: int, command: CancelFrame) -> list[Effect] | Refused:
        """Take a frame back; what is on the air already cannot be."""
        frame = self._frames.get(command.number)
        if frame is None:
            return Refused(f"no frame {command.number} waits; `swarm nodes sends` shows those that do")
        self._downlinks.cancel(frame.command.dev_eui, _tag(frame.number))
        return self._done(now_us, frame, "cancelled")

    def listing(self) -> list[dict[str, Any]]:
        """Those whose fate is open, oldest first."""
        return [frame.view() for _, frame in sorted(self._frames.items())]

    def forget(self, dev_eui: str) -> list[Store]:
        """The node is gone."""
        mine = [number for number, frame in self._frames.items() if frame.command.dev_eui == dev_eui]
        for number in mine:
            del self._frames[number]
        return [Store(TABLE, str(number), None) for number in mine]

    def poll(self, now_us: int) -> list[Effect]:
        """Give up what nobody fetched in time."""
        effects: list[Effect] = []
        for frame in [each for each in self._frames.values() if each.expires_us <= now_us]:
            self._downlinks.withdraw(frame.command.dev_eui, _tag(frame.number))
            effects += self._done(now_us, frame, "given_up")
        return effects

    def poll_at(self) -> int | None:
        return min((frame.expires_us for frame in self._frames.values()), default=None)

    def _queue(self, frame: _Frame) -> bool:
        def sent(at_us: int, airtime_us: int) -> list[Effect]:
            """It has its slot, or gave it back, and the try too (the frame then waits again)."""
            if airtime_us < 0:
                frame.tries -= 1
                self._frames[frame.number] = frame
                return [Store(TABLE, str(frame.number), frame.to_row()), frame.event(at_us, "queued")]
            frame.tries += 1
            if not command.confirmed:
                return self._done(at_us, frame, "sent")
            return [Store(TABLE, str(frame.number), frame.to_row()), frame.event(at_us, "sent")]

        def acked(now_us: int, ok: bool) -> list[Effect]:
            return self._done(now_us, frame, "acknowledged" if ok else "given_up")

        command = frame.command
        pending = Pending(
            f_port=command.f_port,
            payload=command.payload,
            size=len(command.payload),
            purpose=Purpose.TELEMETRY,
            expires_us=frame.expires_us,
            tag=_tag(frame.number),
            sent=sent,
            acked=acked if command.confirmed else None,
            tries=frame.tries,
        )
        if not self._downlinks.enqueue(command.dev_eui, pending):
            return False
        self._frames[frame.number] = frame
        self._next = max(self._next, frame.number + 1)
        return True

    def _done(self, now_us: int, frame: _Frame, state: str) -> list[Effect]:
        if self._frames.pop(frame.number, None) is None:
            return []
        return [Store(TABLE, str(frame.number), None), frame.event(now_us, state)]

    def _room(self, entry: Entry) -> int:
        """The longest payload that one of the node's receive windows carries."""
        region, session = self._region, entry.session
        if session is None:
            return region.payload_max(region.rx2_data_rate, uplink=False)
        dwell = session.downlink_dwell
        rates = [session.rx2_data_rate]
        uplink_rate = entry.status.data_rate
        if (
            uplink_rate is not None
            and uplink_rate < len(region.rx1_data_rates)
            and entry.record.device_class == "a"
        ):
            rates.append(region.rx1_data_rates[uplink_rate][session.rx1_dr_offset])
        return max(region.payload_max(rate, dwell=dwell, uplink=False) for rate in rates)


def _tag(number: int) -> str:
    return f"operator-{number}"
