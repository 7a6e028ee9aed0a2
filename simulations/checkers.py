"""What must always hold, checked while the world runs and independently of the code that is checked.

Nothing here asks the core: sub-bands, frame layouts and counters are worked out again from what went
over the air and from the events the gateway reported.

* airtime: every transmitter, up or down, stays within the duty cycle in every hour (also power);
* replay: the gateway never accepts one (device, frame counter) twice within a session;
* counters: no downlink or multicast frame counter goes on the air twice, also across a restart;
* versions: a node that says version v has, bit for bit, the parameters the gateway has for v;
* updates: what was accepted for a round is counted when that round closes;
* causes: every frame that was sent is received, lost for exactly one cause, or still in the air.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Protocol

from simulations.air import UplinkLoss
from swarm.effects import Event
from swarm.words import counted

__all__ = ["AirtimeCheck", "Checkers", "CounterCheck", "ReplayCheck", "UpdateCheck", "Violations"]

HOUR_US = 3_600_000_000
EXPLAINED_MAX = 10
_EIRP_ROUNDING_DB = 0.01

# (lowest Hz, highest Hz, share of any hour, dBm EIRP): ERC/REC 70-03 annex 1 and national tables, typed in
# from the regulation and not from `swarm/phy`.  Regions without a duty cycle have no rows.
_EU868 = (
    (863_000_000, 865_000_000, 0.001, 16.15),
    (865_000_000, 868_000_000, 0.01, 16.15),
    (868_000_000, 868_600_000, 0.01, 16.15),
    (868_700_000, 869_200_000, 0.001, 16.15),
    (869_400_000, 869_650_000, 0.1, 29.15),
    (869_700_000, 870_000_000, 0.01, 16.15),
)
_BANDS: dict[str, tuple[tuple[int, int, float, float], ...]] = {
    "eu868": _EU868,
    "eu433": ((433_050_000, 434_790_000, 0.1, 12.15),),
}


class FrameWatch(Protocol):
    """See `simulations.large_blocks`."""

    def on_transmission(self, start_us: int, end_us: int, phy: bytes) -> None: ...


@dataclass(slots=True)
class Violations:
    """The count of broken promises and the first few in words."""

    count: int = 0
    explained: list[str] = field(default_factory=list)

    def add(self, at_us: int, what: str) -> None:
        self.count += 1
        if len(self.explained) < EXPLAINED_MAX:
            self.explained.append(f"at {at_us / 1e6:.3f} s: {what}")


class AirtimeCheck:
    """The sliding hour of every transmitter and sub-band, summed up again."""

    def __init__(self, region: str, violations: Violations) -> None:
        self._bands = _BANDS.get(region.lower(), ())
        self._violations = violations
        self._sent: dict[tuple[str, int], deque[tuple[int, int]]] = {}
        self._sums: Counter[tuple[str, int]] = Counter()

    def on_transmission(
        self,
        transmitter: str,
        start_us: int,
        end_us: int,
        *,
        frequency_hz: int,
        bandwidth_hz: int,
        power_dbm: float,
    ) -> None:
        """A transmission begins; those of one transmitter come in the order of their starts.

        The airtime within a sliding hour is greatest when the hour ends with a transmission, so looking
        at the hour before each end looks at every hour.
        """
        if not self._bands:
            return
        band = self._band(frequency_hz, bandwidth_hz // 2)
        if band is None:
            self._violations.add(start_us, f"{transmitter} sent at {frequency_hz} Hz, outside every sub-band")
            return
        number, share, eirp_dbm = band
        if power_dbm > eirp_dbm + _EIRP_ROUNDING_DB:
            self._violations.add(start_us, f"{transmitter} sent {power_dbm} dBm where {eirp_dbm} are allowed")
        key = (transmitter, number)
        sent = self._sent.setdefault(key, deque())
        hour_start_us = end_us - HOUR_US
        while sent and sent[0][1] <= hour_start_us:
            old_start_us, old_end_us = sent.popleft()
            self._sums[key] -= old_end_us - old_start_us
        sent.append((start_us, end_us))
        self._sums[key] += end_us - start_us
        before_us = max(0, hour_start_us - sent[0][0])
        spent_us = self._sums[key] - before_us
        if spent_us > share * HOUR_US:
            self._violations.add(
                start_us,
                f"{transmitter} was on the air {spent_us / 1e6:.3f} s in the hour up to {end_us / 1e6:.3f} s "
                f"around {frequency_hz} Hz; {share * 3600:g} s are legal",
            )

    def _band(self, frequency_hz: int, half_hz: int) -> tuple[int, float, float] | None:
        for number, (low_hz, high_hz, share, eirp_dbm) in enumerate(self._bands):
            if low_hz <= frequency_hz - half_hz and frequency_hz + half_hz <= high_hz:
                return number, share, eirp_dbm
        return None


class ReplayCheck:
    """Accepted uplinks: each frame counter once per session."""

    def __init__(self, violations: Violations) -> None:
        self._violations = violations
        self._seen: dict[str, set[int]] = {}

    def on_joined(self, dev_eui: str) -> None:
        """A new session counts from 0 again."""
        self._seen.pop(dev_eui, None)

    def on_accepted(self, at_us: int, dev_eui: str, f_cnt: int) -> None:
        seen = self._seen.setdefault(dev_eui, set())
        if f_cnt in seen:
            self._violations.add(at_us, f"the gateway accepted frame {f_cnt} of {dev_eui} twice")
        seen.add(f_cnt)


class CounterCheck:
    """Frame counters on the air, read from the bytes: per address they only grow."""

    def __init__(self, violations: Violations) -> None:
        self._violations = violations
        self._last: dict[int, int] = {}

    def on_joined(self, dev_addr: int) -> None:
        """A new session counts from 0 again."""
        self._last.pop(dev_addr, None)

    def on_downlink(self, at_us: int, phy: bytes) -> None:
        """A frame leaves the gateway's antenna.  Join accepts have no counter."""
        if len(phy) < 12 or phy[0] >> 5 not in (3, 5):
            return
        dev_addr = int.from_bytes(phy[1:5], "little")
        low = int.from_bytes(phy[6:8], "little")
        last = self._last.get(dev_addr)
        if last is None:
            self._last[dev_addr] = low
            return
        step = (low - last) & 0xFFFF
        if 0 < step < 0x8000:
            self._last[dev_addr] = last + step
        else:
            self._violations.add(
                at_us, f"downlink counter {low} for {dev_addr:08x} was sent after {last & 0xFFFF}"
            )


class UpdateCheck:
    """Accepted updates: each is counted in its round's closing, exactly once."""

    def __init__(self, violations: Violations) -> None:
        self._violations = violations
        self._open: dict[int, set[str]] = {}

    def on_update(self, at_us: int, number: int, dev_eui: str) -> None:
        updates = self._open.setdefault(number, set())
        if dev_eui in updates:
            self._violations.add(at_us, f"round {number} accepted two updates of {dev_eui}")
        updates.add(dev_eui)

    def on_closed(self, at_us: int, number: int, updates: int) -> None:
        accepted = len(self._open.pop(number, set()))
        if accepted != updates:
            self._violations.add(
                at_us,
                f"round {number} closed with {counted(updates, 'update')}, but {accepted} had been accepted",
            )

    def finish(self, at_us: int, still_open: int | None) -> None:
        """At the end only the round that is open may hold updates."""
        for number in sorted(self._open):
            if number != still_open and self._open[number]:
                self._violations.add(
                    at_us, f"round {number} never closed: {counted(len(self._open[number]), 'update')} lost"
                )


class Checkers:
    """All checks of one run, fed by the world."""

    def __init__(self, region: str) -> None:
        self.violations = Violations()
        self.airtime = AirtimeCheck(region, self.violations)
        self._replay = ReplayCheck(self.violations)
        self._counters = CounterCheck(self.violations)
        self._updates = UpdateCheck(self.violations)
        self.watch: FrameWatch | None = None
        """Whoever else wants to see the gateway's frames."""
        self.sent = 0
        self.received = 0
        self.lost: Counter[str] = Counter()

    def on_uplink_start(
        self, node: int, start_us: int, end_us: int, *, frequency_hz: int, bandwidth_hz: int, power_dbm: float
    ) -> None:
        self.sent += 1
        self.airtime.on_transmission(
            f"node {node}",
            start_us,
            end_us,
            frequency_hz=frequency_hz,
            bandwidth_hz=bandwidth_hz,
            power_dbm=power_dbm,
        )

    def on_uplinks_too_long(self, count: int) -> None:
        """The nodes sent them as far as they know."""
        self.sent += count
        self.lost[str(UplinkLoss.TOO_LONG)] += count

    def on_uplink_end(self, at_us: int, lost: UplinkLoss | None) -> None:
        if lost is None:
            self.received += 1
        elif lost in tuple(UplinkLoss):
            self.lost[str(lost)] += 1
        else:
            self.violations.add(at_us, f"an uplink was lost for {lost!r}, which is no cause")

    def on_downlink_start(
        self,
        gateway: str,
        phy: bytes,
        start_us: int,
        end_us: int,
        *,
        frequency_hz: int,
        bandwidth_hz: int,
        power_dbm: float,
    ) -> None:
        self.airtime.on_transmission(
            gateway,
            start_us,
            end_us,
            frequency_hz=frequency_hz,
            bandwidth_hz=bandwidth_hz,
            power_dbm=power_dbm,
        )
        self._counters.on_downlink(start_us, phy)
        if self.watch is not None:
            self.watch.on_transmission(start_us, end_us, phy)

    def on_event(self, event: Event) -> None:
        """What the gateway says it did."""
        data = event.data
        match event.kind:
            case "uplink" if "again" not in data:
                self._replay.on_accepted(event.at_us, str(data["dev_eui"]), _whole(data["f_cnt"]))
            case "joined" | "rejoined":
                self._replay.on_joined(str(data["dev_eui"]))
                self._counters.on_joined(int(str(data["dev_addr"]), 16))
            case "update":
                self._updates.on_update(event.at_us, _whole(data["round"]), str(data["dev_eui"]))
            case "round_closed":
                self._updates.on_closed(event.at_us, _whole(data["round"]), _whole(data["updates"]))

    def on_versions(self, at_us: int, differing: list[str]) -> None:
        """The outcome of comparing the nodes' parameters with the gateway's; see `simulations.world`."""
        for what in differing:
            self.violations.add(at_us, what)

    def finish(self, at_us: int, in_air: int, open_round: int | None) -> None:
        """Nothing may be unaccounted for when the run is over."""
        accounted = self.received + sum(self.lost.values()) + in_air
        if accounted != self.sent:
            self.violations.add(at_us, f"{self.sent} uplinks were sent, {accounted} are accounted for")
        self._updates.finish(at_us, open_round)


def _whole(value: object) -> int:
    assert isinstance(value, int)
    return value
