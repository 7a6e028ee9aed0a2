"""What a multicast window needs, and what goes down in it: acknowledgements, the model's block, the next
round's announcement.

The announcement is encoded when its slot has come, for it counts seconds from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from swarm.config import Learning
from swarm.downlinks import Downlinks, Pending, Programme
from swarm.effects import Purpose
from swarm.federation.round import Round
from swarm.phy.regions import MULTICAST_PAYLOAD_MIN, Region
from swarm.registry import Registry
from swarm.wire import app

__all__ = ["WINDOW_MARGIN_S", "announcement", "obstacle", "room", "seconds_until", "to_all", "to_one"]

F_PORT = app.F_PORT_LEARNING
SECOND_US = 1_000_000
WINDOW_MARGIN_S = 60


def seconds_until(next_open_us: int | None, at_us: int) -> int:
    """From `at_us` to the next window; 0 when it is not known."""
    return max(0, ((next_open_us or at_us) - at_us) // SECOND_US)


def room(downlinks: Downlinks, region: Region) -> int:
    """Application bytes of a multicast frame."""
    assert downlinks.group is not None
    return region.payload_max(downlinks.group.data_rate, uplink=False)


def obstacle(now_us: int, registry: Registry, downlinks: Downlinks, region: Region) -> str | None:
    """Why no window can open now."""
    if registry.behind_server and downlinks.group is None:
        return None  # nobody listens to a multicast; each node is told at its uplinks
    if downlinks.group is None:
        return "there is no multicast group yet; import the nodes that were provisioned"
    if not downlinks.alive(now_us):
        return "no gateway was heard in the last two minutes"
    if not len(registry):
        return "there are no nodes"
    if (carried := room(downlinks, region)) < MULTICAST_PAYLOAD_MIN:
        rate = downlinks.group.data_rate
        return f"multicast data rate {rate} carries {carried} B, a round needs {MULTICAST_PAYLOAD_MIN}"
    return None


def announcement(
    current: Round, learning: Learning, at_us: int, next_open_us: int | None, window_s: int
) -> app.RoundAnnounce:
    """The open round as it is announced at `at_us`; the next window is `window_s` long."""
    close_in_s = max(0, (current.close_us - at_us) // SECOND_US)
    return app.RoundAnnounce(
        round=current.number,
        model_version=current.model_version,
        mode=current.mode | (app.ROUND_NEW_CONTEXTS if learning.contexts == "new" else 0),
        cohort=current.cohort,
        spread_s=max(1, min(learning.spread_s, close_in_s - WINDOW_MARGIN_S // 4, 0xFFFF)),
        close_in_s=close_in_s,
        next_window_s=seconds_until(next_open_us, at_us),
        window_s=window_s,
        sums=current.sums,
    )


def to_all(
    acks: Sequence[bytes], pieces: Sequence[bytes], announce: Callable[[int], bytes], size: int, repeats: int
) -> list[Programme]:
    """The multicast programme: all of it `repeats` times, the announcements (`size` B) last."""
    frames: list[Programme] = []
    for _ in range(repeats):
        # A node that misses its acknowledgement sends the same again.
        frames += [Programme(F_PORT, payload, len(payload), Purpose.ACK) for payload in acks]
        frames += [Programme(F_PORT, payload, len(payload), Purpose.MODEL) for payload in pieces]
    frames += [
        Programme(F_PORT, announce, size, Purpose.ROUND, turn == repeats - 1) for turn in range(repeats)
    ]
    return frames


def to_one(
    acks: Sequence[bytes],
    pieces: Sequence[bytes],
    announce: Callable[[int], bytes],
    size: int,
    until_us: int,
) -> list[Pending]:
    """The same for a node that no multicast reaches, announcement before block, once."""
    return [
        *(Pending(F_PORT, payload, len(payload), Purpose.ACK, until_us) for payload in acks),
        Pending(F_PORT, announce, size, Purpose.ROUND, until_us),
        *(Pending(F_PORT, payload, len(payload), Purpose.MODEL, until_us) for payload in pieces),
    ]
