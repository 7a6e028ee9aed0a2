"""What frames cost on the air: bytes, airtime and the nodes' energy, counted, whoever sends them.

A frame is its payload and 13 bytes of LoRaWAN, at one spreading factor, 125 kHz; after an uplink the node
waits for both receive windows.  A multicast is on the air once, however many listen.

    bill = Bill(nodes=1000, spreading_factor=7)
    bill.uplink(17, 51)
    bill.downlink(120, np.arange(1000))
    bill.costs(range(1000))
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.energy import EnergyBook
from swarm.phy.airtime import airtime_us
from swarm.phy.regions import region

__all__ = ["LORAWAN_SIZE", "Bill", "Costs", "payload_max"]

LORAWAN_SIZE = 13
"""MHDR, FHDR without options, FPort and MIC."""
BANDWIDTH_HZ = 125_000
POWER_DBM = 14.0
RX2_AFTER_US = 2_000_000
"""A node is awake from the end of its uplink to the end of RX2."""
RX_WINDOW_SYMBOLS = 8


def payload_max(spreading_factor: int) -> int:
    """Application bytes of an EU868 frame at this spreading factor (7..12)."""
    return region("EU868").payload_max(12 - spreading_factor, uplink=True)


@dataclass(frozen=True, slots=True)
class Costs:
    """What some nodes spent so far, together; `energy_mj` is the mean of one of them."""

    frames: int
    bytes_up: int
    bytes_down: int
    airtime_up_us: int
    airtime_down_us: int
    energy_mj: float

    @property
    def airtime_s(self) -> float:
        """Up and down."""
        return (self.airtime_up_us + self.airtime_down_us) / 1e6


class Bill:
    """See the module; sizes are payloads, without LoRaWAN's own bytes."""

    def __init__(self, nodes: int, spreading_factor: int) -> None:
        self.spreading_factor = spreading_factor
        self._energy = EnergyBook(nodes)
        self._listened_us = np.zeros(nodes, np.int64)
        self._sent = np.zeros((3, nodes), np.int64)  # frames, bytes, airtime in us
        self._down = np.zeros(2, np.int64)  # bytes, airtime in us

    def uplink(self, node: int | NDArray[np.int64], size: int, times: int = 1) -> None:
        """So many frames of a node, or of each of some, and their receive windows."""
        spent_us = times * airtime_us(self.spreading_factor, BANDWIDTH_HZ, size + LORAWAN_SIZE)
        symbol_us = (1 << self.spreading_factor) * 1_000_000 // BANDWIDTH_HZ
        for row, added in zip(self._sent, (times, times * (size + LORAWAN_SIZE), spent_us), strict=True):
            row[node] += added
        self._energy.uplink(node, spent_us, POWER_DBM, update=True, frames=times)
        self._energy.wait(node, times * RX2_AFTER_US)
        self._energy.window(node, times * 2 * RX_WINDOW_SYMBOLS * symbol_us)

    def downlink(self, size: int, receivers: NDArray[np.int64], times: int = 1) -> None:
        """So many frames of the gateway to all receivers."""
        spent_us = times * airtime_us(self.spreading_factor, BANDWIDTH_HZ, size + LORAWAN_SIZE, crc=False)
        self._down += (times * (size + LORAWAN_SIZE), spent_us)
        self._listened_us[receivers] += spent_us

    def costs(self, who: Iterable[int], *, with_downlinks: bool = True) -> Costs:
        """All that these nodes spent so far; what the gateway sent is on their account or on others'."""
        chosen = np.array(list(who))
        states = self._energy.by_state_mj(self._listened_us, 0)
        energy = np.sum(list(states.values()), axis=0)[chosen].mean()
        frames, bytes_up, up_us = self._sent[:, chosen].sum(axis=1).tolist()
        bytes_down, down_us = self._down.tolist() if with_downlinks else (0, 0)
        return Costs(frames, bytes_up, bytes_down, up_us, down_us, float(energy))
