"""Letting one device of another make into the cell's multicast group (TS005): the network's side.

Theory of operation.  Two requests, each repeated until it is answered: McGroupSetupReq with McKey sealed
for this device alone, then, when it is known when the group sends, McClassCSessionReq.  A start that the
device missed is asked for again with a later one; a device to which it is `CLOCK_OFF_S` further away than
it is, or nearer, has a wrong clock, is told to ask for the time (TS003, ForceDeviceResync), and asked
again.  A device that refuses the group, the rate or the frequency hears nothing of it: blocks reach it by
unicast, if they are small enough.

Both versions of the standard have the same bytes, but for a bit that version 1 sends as zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from swarm.mac.session import MulticastGroup
from swarm.security.lorawan import AesKey, mc_ke_key, mc_root_key, seal_mc_key
from swarm.wire import multicast_setup as ts005
from swarm.wire.clock_sync import ForceDeviceResync, encode, gps_s

__all__ = ["LEAD_S", "GroupSetup", "Step"]

VERSION = 2
F_CNT_LAST = 0xFFFFFFFF
LEAD_S = 30
"""A session never begins earlier than so long after it is asked for: the frame takes its time."""
TIME_OUT_MAX = 15
CLOCK_OFF_S = 900
"""More than what a start is put off while a request is on its way."""
RESYNC_TRIES = 3


class Step(IntEnum):
    """What the device has to be told next."""

    GROUP = 1
    SESSION = 2
    READY = 3
    UNICAST = 4
    """Nothing: it will not be in the group."""


@dataclass(slots=True)
class GroupSetup:
    """Where one device stands; `step` is all that has to be kept."""

    gen_app_key: bytes
    step: Step = Step.GROUP
    clock_is_wrong: bool = False
    begins_us: int = 0
    ends_us: int = 0
    """What it was asked for last; 0: not known any more."""

    def group_request(self, group: MulticastGroup, number: int) -> bytes:
        """McGroupSetupReq: the device hears the group's frames from the next one on."""
        assert group.mc_key is not None
        ke_key = mc_ke_key(mc_root_key(AesKey(self.gen_app_key)))
        sealed = seal_mc_key(ke_key, AesKey(group.mc_key))
        request = ts005.McGroupSetupReq(number, group.mc_addr, sealed, group.f_cnt, F_CNT_LAST)
        return ts005.encode(request, VERSION)

    def session_request(
        self, group: MulticastGroup, number: int, at_us: int, start_us: int, until_us: int
    ) -> bytes:
        """McClassCSessionReq in a frame that starts at `at_us`: listen from `start_us` until `until_us`, at
        least (Unix time)."""
        begins_us = max(start_us, at_us + LEAD_S * 1_000_000)
        self.begins_us = begins_us
        length_s = max(1, (until_us - begins_us) // 1_000_000 + 1)
        time_out = min((length_s - 1).bit_length(), TIME_OUT_MAX)
        self.ends_us = begins_us + (1_000_000 << time_out)
        request = ts005.McClassCSessionReq(
            number, gps_s(begins_us), time_out, group.frequency_hz, group.data_rate
        )
        return ts005.encode(request, VERSION)

    def postpone(self, until_us: int) -> None:
        """The group sends until then now: a device that would not listen so long is asked again."""
        if self.step is Step.READY and self.ends_us and self.ends_us < until_us:
            self.step = Step.SESSION

    def resync(self) -> bytes:
        """ForceDeviceResync (TS003): the device is to ask for the time."""
        return encode(ForceDeviceResync(RESYNC_TRIES))

    def hear(self, command: ts005.Uplink, number: int, now_us: int) -> str | None:
        """An answer came; why the device will not hear the group, if so."""
        if isinstance(command, ts005.McGroupSetupAns) and command.group == number:
            if self.step is Step.GROUP:
                self.step = Step.UNICAST if command.id_error else Step.SESSION
                return "has no room for the group" if command.id_error else None
        elif isinstance(command, ts005.McClassCSessionAns) and command.group == number:
            return self._hear_session(command, now_us)
        return None

    def _hear_session(self, answer: ts005.McClassCSessionAns, now_us: int) -> str | None:
        if self.step is not Step.SESSION:
            return None
        if answer.undefined:
            self.step = Step.GROUP  # it lost the group
        elif answer.data_rate_error or answer.frequency_error:
            self.step = Step.UNICAST
            return "cannot listen at the group's frequency and data rate"
        elif self._is_off(answer, now_us):
            self.clock_is_wrong = True
        elif not answer.start_missed:
            self.step = Step.READY
        return None

    def _is_off(self, answer: ts005.McClassCSessionAns, now_us: int) -> bool:
        """Whether the device's clock cannot be right; on one that is ahead the start is missed."""
        if not self.begins_us:
            return False
        left_s = (self.begins_us - now_us) // 1_000_000
        if answer.time_to_start_s is None:
            return answer.start_missed and left_s > CLOCK_OFF_S
        return abs(answer.time_to_start_s - max(0, left_s)) > CLOCK_OFF_S
