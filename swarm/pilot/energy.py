"""The battery of a node as a table of states: current times duration, plus sleep and self-discharge.

The method is that of Casals et al. 2017 (mean current of all states over a period).  Currents are an
SX1262 at 14 dBm (45 mA sending, 5 mA receiving, 0.6 mA waiting in standby between the windows), a
Cortex-M4 class controller (8 mA running) and 16 uA for a whole sleeping board, as reported from the
field: board leakage, not the chips, decides the life.  A quarter of the capacity is written off for
cut-off voltage and cold, 2 % a year for self-discharge (lithium thionyl chloride).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EnergyModel"]

HOURS_A_DAY = 24.0
DAYS_A_YEAR = 365.25
YEARS_MAX = 20.0
"""No battery is promised for longer."""


@dataclass(frozen=True, slots=True)
class EnergyModel:
    """Currents in mA, durations in s; the defaults are explained in the module's docstring."""

    transmit_ma: float = 45.0
    receive_ma: float = 5.0
    wait_ma: float = 0.6
    run_ma: float = 8.0
    sleep_ma: float = 0.016
    run_per_uplink_s: float = 0.05
    sensing_s: float = 0.5
    """Once an hour, controller and sensors awake."""
    training_s: float = 10.0
    """Local computation of one round."""
    receive_delay_s: float = 2.0
    """From the end of an uplink to the second receive window."""
    usable: float = 0.75
    self_discharge_per_year: float = 0.02

    def uplink_mah(self, airtime_s: float, window_s: float) -> float:
        """Charge of one uplink: run, send, wait for both receive windows of `window_s` each."""
        milliampere_s = (
            self.run_ma * self.run_per_uplink_s
            + self.transmit_ma * airtime_s
            + self.wait_ma * self.receive_delay_s
            + self.receive_ma * 2 * window_s
        )
        return milliampere_s / 3600

    def round_mah(self, listening_s: float) -> float:
        """Charge of one round without its uplink: hear the multicast, compute."""
        return (self.receive_ma * listening_s + self.run_ma * self.training_s) / 3600

    def day_mah(self, uplinks_mah: float, rounds_mah: float) -> float:
        """Charge of a day: its uplinks and rounds, hourly sensing, and sleep."""
        sensing_mah = HOURS_A_DAY * self.run_ma * self.sensing_s / 3600
        return uplinks_mah + rounds_mah + sensing_mah + self.sleep_ma * HOURS_A_DAY

    def years(self, battery_mah: float, day_mah: float) -> float:
        """Life in years of a battery of `battery_mah` at that daily charge, at most 20."""
        yearly_mah = day_mah * DAYS_A_YEAR + battery_mah * self.self_discharge_per_year
        return min(battery_mah * self.usable / yearly_mah, YEARS_MAX)
