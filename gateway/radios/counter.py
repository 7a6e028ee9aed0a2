"""A gateway's free-running 32-bit microsecond counter, mapped to the core's clock and back.

Theory of operation.  Every packet gives one sample `offset = now - tmst` (modulo 2**32): the true
offset plus the time the datagram travelled, which is never negative.  The smallest recent sample is
therefore the best estimate.  The two crystals drift apart by up to `DRIFT_PPM_MAX`; the estimate is
allowed to rise at that rate between samples, so it follows drift in both directions and is wrong by no
more than the least delay plus what the crystals drifted since the last datagram that came fast.

A sample that is off by more than `jump_us` means a restarted forwarder (or one absurd packet).  One
such packet changes nothing; a second that agrees with it does.
"""

from __future__ import annotations

__all__ = ["COUNTER_MODULUS", "CounterMap"]

COUNTER_MODULUS = 1 << 32
DRIFT_PPM_MAX = 60  # a computer's crystal stays within 50, a concentrator's within 3
JUMP_US = 3_000_000


def _signed(difference: int) -> int:
    """`difference` modulo 2**32 as a number in [-2**31, 2**31)."""
    return (difference + (COUNTER_MODULUS >> 1)) % COUNTER_MODULUS - (COUNTER_MODULUS >> 1)


class CounterMap:
    """The mapping of one gateway; `jump_us` is in core time, like everything here."""

    __slots__ = ("_candidate_us", "_jump_us", "_offset_us", "_sampled_us")

    def __init__(self, *, jump_us: int = JUMP_US) -> None:
        self._jump_us = jump_us
        self._offset_us: int | None = None
        self._sampled_us = 0
        self._candidate_us: int | None = None

    @property
    def known(self) -> bool:
        """True once one packet was heard: only then can a counter value be named."""
        return self._offset_us is not None

    def observe(self, now_us: int, tmst_us: int) -> int:
        """Learn from a packet that arrived at `now_us`; returns its end on the core's clock."""
        sample_us = now_us - tmst_us
        if self._offset_us is None:
            self._offset_us, self._sampled_us = sample_us, now_us
            return now_us
        estimate_us = self._drifted_us(now_us)
        delay_us = _signed(sample_us - estimate_us)
        if abs(delay_us) > self._jump_us:
            return self._jumped(now_us, sample_us)
        self._candidate_us = None
        self._offset_us, self._sampled_us = estimate_us + min(delay_us, 0), now_us
        return now_us - max(delay_us, 0)

    def counter_us(self, at_us: int) -> int:
        """The counter's value at core time `at_us` (0..2**32-1); the map must be `known`."""
        assert self._offset_us is not None
        return (at_us - self._offset_us) % COUNTER_MODULUS

    def _drifted_us(self, now_us: int) -> int:
        assert self._offset_us is not None
        return self._offset_us + max(now_us - self._sampled_us, 0) * DRIFT_PPM_MAX // 1_000_000

    def _jumped(self, now_us: int, sample_us: int) -> int:
        agrees = (
            self._candidate_us is not None and abs(_signed(sample_us - self._candidate_us)) <= self._jump_us
        )
        if agrees:
            self._offset_us, self._sampled_us, self._candidate_us = sample_us, now_us, None
        else:
            self._candidate_us = sample_us
        return now_us
