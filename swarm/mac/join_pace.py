"""When a device may ask to join: back-off, and the join duty cycle of LoRaWAN 1.0.4 section 7.

The first request may go out at once: who switches a fleet on spreads them.  Every retry waits for a random
part of a time that doubles, up to 43 minutes.  Requests together have 36 s of airtime in the first hour, 36 s
in the ten hours after it, 8.7 s in each day after that.
"""

from __future__ import annotations

from collections.abc import Callable

from swarm.phy.airtime import HOUR_US

__all__ = ["JOIN_AIRTIME_US", "JoinPace"]

BACKOFF_US = 10_000_000
DOUBLINGS_MAX = 8
JOIN_AIRTIME_US = (36_000_000, 36_000_000, 8_700_000)
"""Airtime for join requests in the first hour after boot, in the next ten hours, in each day after that."""


class JoinPace:
    """The pace of one device; `draw(n)` gives a number 0..n-1 of its own stream."""

    __slots__ = ("_attempts", "_draw", "_free_us", "_spent", "_started_us")

    def __init__(self, draw: Callable[[int], int]) -> None:
        self._draw = draw
        self._attempts = 0
        self._free_us = 0
        self._started_us: int | None = None
        self._spent = (0, 0)

    def start_us(self, now_us: int, airtime_us: int) -> int:
        """The first instant at which the next request may go out."""
        not_before_us = max(now_us, self._free_us)
        if self._started_us is None:
            return not_before_us
        period = _period(not_before_us - self._started_us)
        spent_period, spent_us = self._spent
        if period == spent_period and spent_us + airtime_us > JOIN_AIRTIME_US[min(period, 2)]:
            return self._started_us + _period_end_us(period)
        return not_before_us

    def asked(self, at_us: int, airtime_us: int, windows_over_us: int) -> None:
        """A request starts at `at_us`; its receive windows end at `windows_over_us`."""
        if self._started_us is None:
            self._started_us = at_us
        period = _period(at_us - self._started_us)
        spent_us = self._spent[1] if self._spent[0] == period else 0
        self._spent = (period, spent_us + airtime_us)
        self._free_us = windows_over_us + self._draw(BACKOFF_US << min(self._attempts, DOUBLINGS_MAX))
        self._attempts += 1

    def joined(self) -> None:
        """The next join begins with short waits again."""
        self._attempts = 0


def _period(elapsed_us: int) -> int:
    """0: the first hour after boot; 1: the ten hours after it; 2..: the days after that."""
    if elapsed_us < 11 * HOUR_US:
        return 0 if elapsed_us < HOUR_US else 1
    return 2 + (elapsed_us - 11 * HOUR_US) // (24 * HOUR_US)


def _period_end_us(period: int) -> int:
    """Microseconds after boot at which a period ends."""
    return HOUR_US if period == 0 else (11 + 24 * (period - 1)) * HOUR_US
