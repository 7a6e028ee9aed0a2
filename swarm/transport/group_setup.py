"""Letting one device of another make into the cell's multicast group (TS005): the network's side.

Theory of operation.  Two requests, each repeated until it is answered: McGroupSetupReq with McKey sealed for
this device alone, then, when it is known when the group sends, McClassCSessionReq.  A start that the device
missed is asked for again with a later one.  A device whose seconds to the start tell of a wrong clock is
asked to set it (TS003), and told the start once more; twice at most, for not all can.  A device that refuses
the group, the rate or the frequency hears nothing of it: small blocks reach it by unicast.

Both versions of the standard have the same bytes, but for a bit that version 1 sends as zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from swarm.effects import Row, integers
from swarm.mac.session import MulticastGroup
from swarm.security.lorawan import AesKey, mc_ke_key, mc_root_key, seal_mc_key
from swarm.wire import multicast_setup as ts005
from swarm.wire.clock_sync import ForceDeviceResync, encode, gps_s

__all__ = ["LEAD_S", "NO_SETUP", "GroupSetup", "Step"]

VERSION = 2
F_CNT_LAST = 0xFFFFFFFF
LEAD_S = 30
"""A session never begins earlier than so long after it is asked for: the frame takes its time."""
TIME_OUT_MAX = 15
CLOCK_S = 5
"""A device's clock may be so far off."""
RESYNCS_MAX = 2
NO_SETUP: Row = {"setup": 0, "resyncs": 0, "delays": 0, "is_wrong": 0}
"""The row of a node that needs none of this."""


class Step(IntEnum):
    """What the device has to be told next."""

    GROUP = 1
    SESSION = 2
    READY = 3
    UNICAST = 4
    """Nothing: it will not be in the group."""


@dataclass(slots=True)
class GroupSetup:
    """Where one device stands; `step` and what was tried how often are kept (`to_row`)."""

    gen_app_key: bytes
    step: Step = Step.GROUP
    asked_us: int | None = None
    """When it was last told that it begins at `begins_us`."""
    begins_us: int = 0
    ends_us: int = 0
    """It listens until then, at least; 0: not known any more."""
    resyncs: int = 0
    delays: int = 0
    """So often the group's start was put off for it."""
    is_wrong: bool = False
    """Its clock is to be set."""

    def to_row(self) -> Row:
        counts: Row = {"resyncs": self.resyncs, "delays": self.delays}
        return {"setup": int(self.step), **counts, "is_wrong": int(self.is_wrong)}

    @classmethod
    def from_row(cls, gen_app_key: bytes, row: Row) -> GroupSetup:
        """ValueError when this is no such row."""
        integers(row, "setup", "resyncs", "delays", "is_wrong")
        counts: dict[str, Any] = {"resyncs": row["resyncs"], "delays": row["delays"]}
        return cls(gen_app_key, Step(int(row["setup"] or 0)), **counts, is_wrong=bool(row["is_wrong"]))

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
        length_s = max(1, (until_us - begins_us) // 1_000_000 + 1)
        time_out = min((length_s - 1).bit_length(), TIME_OUT_MAX)
        self.ends_us = begins_us + (1_000_000 << time_out)
        request = ts005.McClassCSessionReq(
            number, gps_s(begins_us), time_out, group.frequency_hz, group.data_rate
        )
        self.asked_us, self.begins_us = at_us, begins_us
        return ts005.encode(request, VERSION)

    def postpone(self, until_us: int) -> None:
        """The group sends until then now: a device that would not listen so long is asked again."""
        if self.step is Step.READY and self.ends_us and self.ends_us < until_us:
            self.step = Step.SESSION

    def resync_request(self) -> bytes:
        """ForceDeviceResync."""
        self.is_wrong = False
        return encode(ForceDeviceResync(1))

    def hear(self, now_us: int, command: ts005.Uplink, number: int) -> None:
        """An answer came."""
        if isinstance(command, ts005.McGroupSetupAns) and command.group == number:
            if self.step is Step.GROUP:
                self.step = Step.UNICAST if command.id_error else Step.SESSION
        elif isinstance(command, ts005.McClassCSessionAns) and command.group == number:
            self._hear_session(now_us, command)

    def _hear_session(self, now_us: int, answer: ts005.McClassCSessionAns) -> None:
        if self.step is not Step.SESSION:
            return
        if answer.undefined:
            self.step = Step.GROUP  # it lost the group
        elif answer.data_rate_error or answer.frequency_error:
            self.step = Step.UNICAST
        elif self.resyncs < RESYNCS_MAX and self._has_wrong_clock(now_us, answer):
            self.resyncs += 1
            self.is_wrong = True
        elif not answer.start_missed:
            self.step = Step.READY

    def _has_wrong_clock(self, now_us: int, answer: ts005.McClassCSessionAns) -> bool:
        """Seconds to the start count from when it took the request, or from when it answers."""
        if self.asked_us is None:
            return False
        if answer.time_to_start_s is None:
            return self.begins_us > now_us  # missed what is to come
        starts_us = answer.time_to_start_s * 1_000_000
        early_us, late_us = self.begins_us - now_us, self.begins_us - self.asked_us
        return not early_us - CLOCK_S * 1_000_000 <= starts_us <= late_us + CLOCK_S * 1_000_000
