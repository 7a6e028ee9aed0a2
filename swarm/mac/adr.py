"""Adaptive data rate: which data rate, power and repetition a device should use, from what was heard of it.

Theory of operation.  The measure is the SNR that nine of ten of the last 20 uplinks reached: a link that
fades has a low one, and gets a larger reserve by itself.  (The usual maximum of 20 says little of the
frames that matter.) Above the floor of its spreading factor and `margin_db` a device has a *reserve*.  Each
whole `STEP_DB` of it buys one data rate, then one step of power less; a lack of `STEP_DB` gives power back,
and only a lack that eats the margin too a data rate.  A tenth lost makes the device say each frame once
more, and where three times do not help, a step back; 200 uplinks with one loss in fifty at most take a
repetition back.

Nothing is decided before 20 uplinks were heard with the present setting, and between a step up and a step
down lie `2 * STEP_DB`.  Each time a step up had to be taken back, the next one needs `STEP_DB` more, so a
link at the edge settles (at most `REVERSALS_MAX` times).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from swarm.phy.link import SNR_LIMIT_DB
from swarm.phy.regions import Region

__all__ = ["HISTORY", "REVERSALS_MAX", "STEP_DB", "Limits", "Setting", "choose", "data_rates", "reserve_db"]

HISTORY = 20
STEP_DB = 3.0
REVERSALS_MAX = 5
LOSS_HIGH = 0.1
LOST_MIN = 5
LOSS_LOW = 0.02
LOSS_LOW_UPLINKS = 200
NB_TRANS_MAX = 3


@dataclass(frozen=True, slots=True)
class Setting:
    """What a LinkADRReq sets: uplink data rate, index of the region's power table, transmissions of a
    frame."""

    data_rate: int
    tx_power: int
    nb_trans: int

    def __str__(self) -> str:
        return f"DR{self.data_rate}, power {self.tx_power}, {self.nb_trans}x"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a device can be told; `data_rates` slowest first."""

    data_rates: tuple[int, ...]
    tx_power_max: int
    margin_db: float = 5.0


def data_rates(region: Region, *, dwell: bool | None, low: int, high: int) -> tuple[int, ...]:
    """The rates to adapt in: LoRa at 125 kHz, on the region's usual channels, that carry a payload."""
    channels = region.uplink_channels
    return tuple(
        index
        for index, rate in sorted(region.uplink_data_rates.items())
        if low <= index <= high
        and rate.kind == "lora"
        and rate.bandwidth_hz == 125_000
        and not rate.revision
        and any(channel.data_rate_min <= index <= channel.data_rate_max for channel in channels)
        and region.payload_max(index, dwell=dwell, uplink=True) > 0
    )


def reserve_db(region: Region, data_rate: int, snr_db: Sequence[float], margin_db: float) -> float:
    """By how much nine of ten of these uplinks lie above what the data rate and the margin need."""
    reached = sorted(snr_db)[len(snr_db) // 10]
    factor = region.data_rate(data_rate, uplink=True).spreading_factor
    return reached - SNR_LIMIT_DB[factor] - margin_db


def choose(
    region: Region,
    limits: Limits,
    now: Setting,
    snr_db: Sequence[float],
    *,
    heard: int,
    lost: int,
    reversals: int,
) -> Setting:
    """The setting that these uplinks call for; `now` where they call for no other.

    `snr_db` are the last uplinks heard with `now`, `heard` how many there were altogether, `lost` how
    many did not come between them, `reversals` how often a step up had to be taken back.
    """
    if len(snr_db) < HISTORY or not limits.data_rates or now.data_rate not in limits.data_rates:
        return now
    reserve = reserve_db(region, now.data_rate, snr_db, limits.margin_db)
    place, tx_power = limits.data_rates.index(now.data_rate), now.tx_power
    spare = reserve - STEP_DB * min(reversals, REVERSALS_MAX)
    while spare >= STEP_DB and (place + 1 < len(limits.data_rates) or tx_power < limits.tx_power_max):
        if place + 1 < len(limits.data_rates):
            place += 1
        else:
            tx_power += 1
        spare -= STEP_DB
    if _lossy(heard, lost) and now.nb_trans >= NB_TRANS_MAX:
        reserve = min(reserve, -STEP_DB if tx_power else -STEP_DB - limits.margin_db)
    while reserve <= -STEP_DB and tx_power > 0:
        tx_power -= 1
        reserve += STEP_DB
    while reserve + limits.margin_db < 0 and tx_power == 0 and place > 0:
        place -= 1
        reserve += STEP_DB
    nb_trans = _nb_trans(now.nb_trans, heard, lost)
    return Setting(limits.data_rates[place], tx_power, nb_trans)


def is_reversal(before: Setting, after: Setting) -> bool:
    """Whether `after` gives back what a step up had taken."""
    return after.data_rate < before.data_rate or after.tx_power < before.tx_power


def _nb_trans(now: int, heard: int, lost: int) -> int:
    if _lossy(heard, lost):
        return max(now, min(now + 1, NB_TRANS_MAX))
    if now > 1 and heard >= LOSS_LOW_UPLINKS and lost <= LOSS_LOW * (heard + lost):
        return now - 1
    return now


def _lossy(heard: int, lost: int) -> bool:
    return lost >= LOST_MIN and lost >= LOSS_HIGH * (heard + lost)
