"""When each node listens, and what becomes of every downlink at every node.

Two kinds of listening.  *Class A*: RX1 and RX2 after each uplink, on the frequency and data rate the
device says, a few symbols long.  *Multicast*: the windows that the firmware asks for through its
`listen` port: one open window and one announced one per node; a newer announcement replaces an older,
and a window that is already due replaces the open one (so a node closes its window by asking for one
that ends now).

A node hears a frame when its receiver is on for the last five of the preamble's eight symbols; a
receiver that has found a preamble stays on until the frame's end.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from simulations.air import symbol_us
from simulations.links import FloatArray, Links
from swarm.phy.link import sensitivity_dbm

__all__ = ["ClassAWindow", "DownlinkFrame", "DownlinkLoss", "Windows"]

_LOCK_SYMBOLS = 5
_PREAMBLE_SYMBOLS = 8
_NEVER_US = np.int64(2**62)
_RX_TOLERANCE_US = 5_000
"""A class A window opens early and lasts long enough to forgive this error of its node's clock."""


class DownlinkLoss(StrEnum):
    """Why a node did not receive a downlink: exactly one of these."""

    NOT_LISTENING = "not_listening"
    COLLISION_WITH_OWN_TX = "collision_with_own_tx"
    UNDER_SENSITIVITY = "under_sensitivity"
    INTERFERENCE = "interference"
    OUTAGE = "outage"


@dataclass(frozen=True, slots=True)
class DownlinkFrame:
    """One transmission of the gateway: times in us, `key` names the frame for the hashes of its fate."""

    key: int
    payload: bytes
    start_us: int
    end_us: int
    frequency_hz: int
    spreading_factor: int
    bandwidth_hz: int
    power_dbm: float


@dataclass(frozen=True, slots=True)
class ClassAWindow:
    """One receive window of a node."""

    open_us: int
    frequency_hz: int
    spreading_factor: int
    bandwidth_hz: int


class Windows:
    """The receivers of all nodes of a cell."""

    def __init__(self, links: Links, noise_figure_db: float, multicast: ClassAWindow) -> None:
        """`multicast` says on which frequency and with which modulation nodes listen in their own windows."""
        count = links.count
        self._multicast = multicast
        self._links = links
        self._noise_figure_db = noise_figure_db
        self._all = np.arange(count, dtype=np.int64)
        self._from = np.full(count, _NEVER_US)
        self._until = np.full(count, np.int64(-1))
        self._next_from = np.full(count, _NEVER_US)
        self._next_until = np.full(count, np.int64(-1))
        self._tx_start = np.full(count, np.int64(-1))
        self._tx_end = np.full(count, np.int64(-1))
        self._class_a: dict[int, tuple[ClassAWindow, ...]] = {}
        self.listened_us: NDArray[np.int64] = np.zeros(count, dtype=np.int64)
        """Multicast listening of windows that are over, per node."""

    # -- the nodes' side --------------------------------------------------------------------------

    def listen(self, now_us: int, node: int, from_us: int, until_us: int) -> None:
        """The firmware of `node` asks for its receiver to be on in [from_us, until_us)."""
        self._advance(now_us, node)
        if from_us <= now_us:
            self._close(now_us, node)
            self._from[node], self._until[node] = now_us, max(until_us, now_us)
        else:
            self._next_from[node], self._next_until[node] = from_us, until_us

    def transmits(self, node: int, start_us: int, end_us: int) -> None:
        """`node` sends: deaf meanwhile."""
        self._tx_start[node], self._tx_end[node] = start_us, end_us

    def open_class_a(self, node: int, windows: tuple[ClassAWindow, ...]) -> None:
        """`node` opens these windows after its uplink; older ones are gone."""
        self._class_a[node] = windows

    def close_class_a(self, node: int) -> bool:
        """The windows of `node` are over, or a frame came; whether they were still open."""
        return self._class_a.pop(node, None) is not None

    def last_uplink_end_us(self, node: int) -> int:
        """When `node` last stopped sending."""
        return int(self._tx_end[node])

    def finish(self, now_us: int) -> None:
        """Account for the windows that are open at the end of a run."""
        for node in self._all.tolist():
            self._advance(now_us, node)
            self._close(now_us, node)

    # -- the gateway's side -----------------------------------------------------------------------

    def hear_multicast(self, frame: DownlinkFrame) -> tuple[NDArray[np.int64], FloatArray, Counter[str]]:
        """The nodes that received `frame`, at what power (dBm), and how many did not for which cause."""
        self._advance_all(frame.start_us)
        symbol = symbol_us(frame.spreading_factor, frame.bandwidth_hz)
        on_by_us = frame.start_us + int((_PREAMBLE_SYMBOLS - _LOCK_SYMBOLS) * symbol)
        on_till_us = frame.start_us + int(_PREAMBLE_SYMBOLS * symbol)
        # A window may open between the frame's first symbol and the lock: look at the next one too.
        opening = (self._next_from <= on_by_us) & (self._next_until >= on_till_us)
        listening = ((self._from <= on_by_us) & (self._until >= on_till_us)) | opening
        if not _same_channel(self._multicast, frame):
            listening[:] = False
        lost: Counter[str] = Counter()
        lost[DownlinkLoss.NOT_LISTENING] = int(len(listening) - listening.sum())
        nodes = self._all[listening]
        sending = (self._tx_end[nodes] > frame.start_us) & (self._tx_start[nodes] < frame.end_us)
        lost[DownlinkLoss.COLLISION_WITH_OWN_TX] = int(sending.sum())
        nodes = nodes[~sending]
        received_dbm = self._links.received_many_dbm(nodes, frame.power_dbm, frame.frequency_hz, frame.key)
        weak = received_dbm < self._floor_dbm(frame)
        lost[DownlinkLoss.UNDER_SENSITIVITY] = int(weak.sum())
        nodes, received_dbm = nodes[~weak], received_dbm[~weak]
        spoilt = self._links.interfered_many(nodes, frame.key)
        lost[DownlinkLoss.INTERFERENCE] = int(spoilt.sum())
        return nodes[~spoilt], received_dbm[~spoilt], +lost

    def class_a_listeners(self, frame: DownlinkFrame) -> list[int]:
        """The nodes with a window open when `frame` starts: each will decode it, whomever it is for."""
        return [
            node for node, windows in self._class_a.items() if any(_catches(each, frame) for each in windows)
        ]

    def hear_class_a(self, node: int, frame: DownlinkFrame) -> tuple[DownlinkLoss | None, float]:
        """What became of a frame that one of `node`'s windows caught: why lost (None: received), and dBm."""
        received_dbm = self._links.received_dbm(node, frame.power_dbm, frame.frequency_hz, frame.key)
        cause: DownlinkLoss | None = None
        if self._tx_end[node] > frame.start_us and self._tx_start[node] < frame.end_us:
            cause = DownlinkLoss.COLLISION_WITH_OWN_TX
        elif received_dbm < self._floor_dbm(frame):
            cause = DownlinkLoss.UNDER_SENSITIVITY
        elif self._links.interfered(node, frame.key, downlink=True):
            cause = DownlinkLoss.INTERFERENCE
        return cause, received_dbm

    def _floor_dbm(self, frame: DownlinkFrame) -> float:
        return sensitivity_dbm(frame.spreading_factor, frame.bandwidth_hz, self._noise_figure_db)

    # -- the clockwork of the windows -------------------------------------------------------------

    def _advance(self, now_us: int, node: int) -> None:
        if self._next_from[node] <= now_us:
            self._close(int(self._next_from[node]), node)
            self._from[node], self._until[node] = self._next_from[node], self._next_until[node]
            self._next_from[node] = _NEVER_US

    def _advance_all(self, now_us: int) -> None:
        for node in np.flatnonzero(self._next_from <= now_us).tolist():
            self._advance(now_us, node)

    def _close(self, now_us: int, node: int) -> None:
        """Book the open window of `node`, which ends now at the latest."""
        spent_us = min(int(self._until[node]), now_us) - int(self._from[node])
        if spent_us > 0:
            self.listened_us[node] += spent_us
        self._from[node], self._until[node] = _NEVER_US, np.int64(-1)


def _catches(window: ClassAWindow, frame: DownlinkFrame) -> bool:
    return abs(frame.start_us - window.open_us) <= _RX_TOLERANCE_US and _same_channel(window, frame)


def _same_channel(window: ClassAWindow, frame: DownlinkFrame) -> bool:
    return (
        frame.frequency_hz == window.frequency_hz
        and frame.spreading_factor == window.spreading_factor
        and frame.bandwidth_hz == window.bandwidth_hz
    )
