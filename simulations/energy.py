"""The energy of a node, by its states: transmit, receive windows, waiting, listening, computing, sleep.

The state table is that of Casals et al., "Modeling the energy performance of LoRaWAN", Sensors 2017
(charge = sum of current x time per state, plus sleep), with the reference board of `swarm.phy.energy`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from swarm.phy.energy import Currents, transmit_ma

__all__ = ["Currents", "EnergyBook", "transmit_ma"]

_DAY_US = 86_400_000_000
_Nodes = int | NDArray[np.int64]
"""One node, or several that do the same; each at most once."""


class EnergyBook:
    """How long each of `count` nodes was in each state; energies come out in mJ."""

    STATES = ("transmit", "windows", "wait", "listen", "compute", "sleep")

    def __init__(self, count: int, currents: Currents | None = None) -> None:
        self.currents = currents or Currents()
        self._charge_ma_us = {state: np.zeros(count) for state in self.STATES}
        self._busy_us = np.zeros(count)

    def uplink(self, node: _Nodes, airtime_us: int, power_dbm: float, update: bool, frames: int = 1) -> None:
        """So many frames sent, `airtime_us` together; `update`: a model update had to be made for each."""
        work_us = frames * (
            self.currents.frame_compute_us + (self.currents.update_compute_us if update else 0)
        )
        self._spend("transmit", node, airtime_us, transmit_ma(power_dbm))
        self._spend("compute", node, work_us, self.currents.compute_ma)

    def wait(self, node: _Nodes, wait_us: int) -> None:
        """The node (or each of these) stayed awake with an idle radio."""
        self._spend("wait", node, wait_us, self.currents.wait_ma)

    def window(self, node: _Nodes, open_us: int) -> None:
        """The node's (or each one's) receiver was on in a class A window."""
        self._spend("windows", node, open_us, self.currents.receive_ma)

    def sensed(self, times: int) -> None:
        """Every node read its sensors so many times."""
        work_us = float(times * self.currents.sense_us)
        self._charge_ma_us["compute"] += work_us * self.currents.compute_ma
        self._busy_us += work_us

    def by_state_mj(self, listened_us: NDArray[np.int64], duration_us: int) -> dict[str, NDArray[np.float64]]:
        """Energy of each node per state over `duration_us`; `listened_us` is the multicast listening."""
        charges = {state: charge.copy() for state, charge in self._charge_ma_us.items()}
        charges["listen"] += listened_us * self.currents.receive_ma
        asleep_us = np.maximum(duration_us - self._busy_us - listened_us, 0.0)
        charges["sleep"] += asleep_us * self.currents.sleep_ma
        # mA us x V = nJ; 1e6 nJ = 1 mJ
        return {state: charge * self.currents.supply_v * 1e-6 for state, charge in charges.items()}

    def battery_left(
        self, listened_us: NDArray[np.int64], duration_us: int, at_start: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The share (0..1) of each battery that is left of `at_start` after `duration_us`."""
        capacity_mj = self.currents.battery_mah * 3.6e3 * self.currents.supply_v
        spent_mj = np.sum(list(self.by_state_mj(listened_us, duration_us).values()), axis=0)
        left: NDArray[np.float64] = np.clip(at_start - spent_mj / capacity_mj, 0.0, 1.0)
        return left

    def per_node_day_mj(self, listened_us: NDArray[np.int64], duration_us: int) -> dict[str, float]:
        """Mean over nodes, per day, by state; the values add up to the node-day's energy."""
        days = max(duration_us, 1) / _DAY_US
        return {
            state: float(each.mean()) / days
            for state, each in self.by_state_mj(listened_us, duration_us).items()
        }

    def _spend(self, state: str, node: _Nodes, time_us: int, current_ma: float) -> None:
        self._charge_ma_us[state][node] += time_us * current_ma
        self._busy_us[node] += time_us
