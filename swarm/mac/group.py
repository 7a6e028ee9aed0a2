"""The receiving half of a multicast group: who may be believed, and a memory shared by all members.

Theory of operation.  A member accepts a frame when the integrity code is right for the smallest
counter >= the next one it waits for, and this counter lies in the group's [min, max); then it waits
for the one after it.  All members hear the same bytes, so what one of them has verified the others
look up in a `MulticastMemo`; each still judges the counter by its own state, and the result is the
same as if each had verified the frame itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from swarm.effects import Malformed
from swarm.mac.session import F_CNT_MAX, candidate_f_cnt
from swarm.security.lorawan import AesKey, cipher_payload, data_mic, same_mic
from swarm.wire.lorawan import DataFrame, MacCommand, SealedJoinAccept, parse_downlink

__all__ = [
    "GROUP_REASONS",
    "MEMO_MAX",
    "Delivered",
    "GroupKeys",
    "MulticastMemo",
    "ReceivingGroup",
    "genuine_f_cnt",
]

MEMO_MAX = 64

GROUP_REASONS = ("mic", "replay", "range", "multicast")
"""Why a group's frame is refused: not genuine, not new, a counter beyond the maximum, unicast features."""

_REPLAY = Malformed("replay")
_MIC = Malformed("mic")
_RANGE = Malformed("range")


@dataclass(frozen=True, slots=True)
class Delivered:
    """A genuine new downlink; `f_port` None: no payload (an acknowledgement or MAC commands only)."""

    f_port: int | None
    payload: bytes
    multicast: bool
    ack: bool
    f_cnt: int
    confirmed: bool = False
    f_pending: bool = False
    commands: tuple[MacCommand, ...] = ()
    skipped: int = 0


class GroupKeys:
    """The two keys of a group, shared by its members; compared by identity, which makes look-ups cheap."""

    __slots__ = ("app", "nwk")

    def __init__(self, nwk_s_key: bytes, app_s_key: bytes) -> None:
        self.nwk = AesKey(nwk_s_key)
        self.app = AesKey(app_s_key)


class MulticastMemo:
    """What members of groups have verified lately: (keys, bytes) -> result, the oldest of 64 goes first."""

    __slots__ = ("_frames", "_keys")

    def __init__(self) -> None:
        self._frames: dict[tuple[GroupKeys, bytes], Delivered] = {}
        self._keys: dict[tuple[bytes, bytes], GroupKeys] = {}

    def keys(self, nwk_s_key: bytes, app_s_key: bytes) -> GroupKeys:
        """The shared key object of a group, made once; the memory is bounded by `MEMO_MAX` groups."""
        known = self._keys.get((nwk_s_key, app_s_key))
        if known is None:
            known = GroupKeys(nwk_s_key, app_s_key)
            if len(self._keys) < MEMO_MAX:
                self._keys[nwk_s_key, app_s_key] = known
        return known

    def get(self, keys: GroupKeys, phy: bytes) -> Delivered | None:
        """What another member made of these bytes, if it found them genuine."""
        return self._frames.get((keys, phy))

    def put(self, keys: GroupKeys, phy: bytes, delivered: Delivered) -> None:
        """Remember a genuine frame."""
        if len(self._frames) >= MEMO_MAX:
            del self._frames[next(iter(self._frames))]
        self._frames[keys, phy] = delivered


@dataclass(slots=True)
class ReceivingGroup:
    """A multicast session: counters in [f_cnt_next, f_cnt_max) are still to come."""

    mc_addr: int
    keys: GroupKeys
    f_cnt_next: int
    f_cnt_max: int

    def receive(self, phy: bytes, memo: MulticastMemo) -> Delivered | Malformed:
        """Judge a frame that carries this group's address."""
        delivered = memo.get(self.keys, phy)
        if delivered is None:
            result = _open_multicast(self, phy)
            if isinstance(result, Malformed):
                return result
            memo.put(self.keys, phy, result)
            delivered = result
        ahead = delivered.f_cnt - self.f_cnt_next
        if ahead < 0:
            return _REPLAY
        if ahead > 0xFFFF:
            return _MIC  # with only 16 bits on the air this member would have tried a smaller counter
        if delivered.f_cnt >= self.f_cnt_max:
            return _RANGE
        self.f_cnt_next = delivered.f_cnt + 1
        return delivered


def genuine_f_cnt(nwk: AesKey, frame: DataFrame, next_f_cnt: int) -> int | Malformed:
    """The counter (>= `next_f_cnt`) with which a downlink is genuine; else whether it is old or not ours."""
    f_cnt = candidate_f_cnt(next_f_cnt, frame.f_cnt)
    if f_cnt is not None and _genuine(nwk, frame, f_cnt):
        return f_cnt
    older = ((next_f_cnt & ~0xFFFF) | frame.f_cnt) - (0x10000 if frame.f_cnt >= next_f_cnt & 0xFFFF else 0)
    return _REPLAY if 0 <= older <= F_CNT_MAX and _genuine(nwk, frame, older) else _MIC


def _genuine(nwk: AesKey, frame: DataFrame, f_cnt: int) -> bool:
    mic = data_mic(nwk, frame.signed, uplink=False, dev_addr=frame.dev_addr, f_cnt=f_cnt)
    return same_mic(mic, frame.mic)


def _open_multicast(group: ReceivingGroup, phy: bytes) -> Delivered | Malformed:
    """Verify and decrypt a group's frame; its place in the counter's range is not judged here."""
    frame = parse_downlink(phy)
    if isinstance(frame, Malformed):
        return frame
    if isinstance(frame, SealedJoinAccept):
        return Malformed("multicast", "a join accept")
    if frame.confirmed or frame.ack or frame.f_opts or not frame.f_port:
        return Malformed("multicast", "confirmed, acknowledging, or with MAC commands")
    f_cnt = genuine_f_cnt(group.keys.nwk, frame, group.f_cnt_next)
    if isinstance(f_cnt, Malformed):
        return f_cnt
    payload = cipher_payload(
        group.keys.app, frame.frm_payload, uplink=False, dev_addr=frame.dev_addr, f_cnt=f_cnt
    )
    return Delivered(frame.f_port, payload, True, False, f_cnt, False, frame.bit4)
