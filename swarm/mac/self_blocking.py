"""A transmitter that silences itself after each frame: the duty cycle that LoRa Basics Station keeps of its
own.

Theory of operation.  After a frame of `airtime_us` that began at t, a station of a production build sends
nothing in the same pool before t + rate * airtime; what it is given for earlier it drops without a word.
Our own ledger keeps the law, a sliding hour, and would allow several frames in a row; for such a gateway
both have to agree.  The pools are the station's, not the law's: in Europe three of them (869.4-869.65 MHz
at a tenth, 868.0-868.6 and 869.7-870.0 MHz at a hundredth, all else at a thousandth), elsewhere each
frequency.

Source: Station 2.0.6, s2e.c (freq2band, update_DC, s2e_canTxPerChnlDC).
"""

from __future__ import annotations

from collections import deque

from swarm.phy.airtime import HOUR_US

__all__ = ["SelfBlocking"]

FRAMES_MAX = 4096
LOOKAHEAD_US = 24 * HOUR_US
"""A slot may be asked for so far ahead, and given back; what blocks until then is remembered."""
_PER_FREQUENCY = {"kr920": 50, "as923": 10}
_EUROPE = (
    (869_400_000, 869_650_000, 10),
    (868_000_000, 868_600_000, 100),
    (869_700_000, 870_000_000, 100),
)
_ELSEWHERE_IN_EUROPE = 1000


class SelfBlocking:
    """The frames of one station in the past hour, by pool; regions without such rules block nothing."""

    __slots__ = ("_pools", "_region")

    def __init__(self, region: str) -> None:
        self._region = region
        self._pools: dict[int, deque[tuple[int, int]]] = {}

    def earliest_us(self, frequency_hz: int, airtime_us: int, not_before_us: int) -> int:
        """The first instant >= `not_before_us` at which neither this frame nor another one is dropped."""
        pool, rate = self._pool(frequency_hz)
        at_us = not_before_us
        for begun_us, was_us in sorted(self._pools.get(pool, ())):
            before = begun_us + rate * was_us > at_us and begun_us <= at_us
            after = begun_us > at_us and at_us + rate * airtime_us > begun_us
            if before or after:
                at_us = begun_us + rate * was_us
        return at_us

    def add(self, frequency_hz: int, at_us: int, airtime_us: int) -> None:
        """A frame was given a slot."""
        pool, rate = self._pool(frequency_hz)
        if not rate:
            return
        frames = self._pools.setdefault(pool, deque(maxlen=FRAMES_MAX))
        while frames and frames[0][0] + rate * frames[0][1] < at_us - LOOKAHEAD_US:
            frames.popleft()
        frames.append((at_us, airtime_us))

    def remove(self, frequency_hz: int, at_us: int) -> None:
        """The frame that was to begin then was not sent."""
        frames = self._pools.get(self._pool(frequency_hz)[0], deque())
        for frame in [each for each in frames if each[0] == at_us]:
            frames.remove(frame)

    def _pool(self, frequency_hz: int) -> tuple[int, int]:
        """(what is shared, how many times its airtime a frame blocks it); 0: nothing is blocked."""
        if self._region == "eu868":
            rates = (rate for low, high, rate in _EUROPE if low <= frequency_hz <= high)
            rate = next(rates, _ELSEWHERE_IN_EUROPE)
            return rate, rate
        return frequency_hz, _PER_FREQUENCY.get(self._region, 0)
