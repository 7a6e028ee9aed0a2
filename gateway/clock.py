"""The daemon's clock: microseconds that never step back, in real time or scaled for experiments."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Clock"]


class Clock:
    """Unix time in microseconds, read once at the start and carried on by the monotonic clock.

    A step of the system's time (NTP after a boot without a battery clock) must not let the airtime
    ledger forget an hour, so it is taken over at the next start only.  `speed` > 1 lets core time run
    faster than real time, against a simulated packet forwarder that runs at the same speed.
    """

    def __init__(
        self,
        speed: float = 1.0,
        epoch_us: int | None = None,
        *,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        if not speed > 0:
            raise ValueError(f"clock speed must be above 0, not {speed}")
        self.speed = speed
        self._monotonic_ns = monotonic_ns
        self._start_ns = monotonic_ns()
        self._epoch_us = time.time_ns() // 1000 if epoch_us is None else epoch_us

    def now_us(self) -> int:
        """Core time now."""
        elapsed_ns = self._monotonic_ns() - self._start_ns
        if self.speed == 1.0:  # integers as long as possible: a float loses microseconds after years
            return self._epoch_us + elapsed_ns // 1000
        return self._epoch_us + int(elapsed_ns * self.speed) // 1000

    def not_before(self, at_us: int) -> None:
        """Move on to `at_us` when that is ahead: time stored by an earlier run never comes again."""
        self._epoch_us += max(0, at_us - self.now_us())

    def delay_s(self, at_us: int) -> float:
        """Real seconds from now until core time `at_us`; 0 when it has passed."""
        return max(0, at_us - self.now_us()) / (1e6 * self.speed)
