"""The air around one gateway: which uplink survives which others, and why each lost frame was lost.

Theory of operation.  An uplink enters at its first symbol (`start`) and leaves at its last (`finish`).

* At its start it is compared with the sensitivity of its spreading factor, then with the gateway's
  state: a gateway that transmits hears nothing on any channel (half duplex), and a frame that finds
  all demodulators locked is not received.  A frame above the sensitivity locks one demodulator from
  its preamble to its end.
* While it lasts, it exchanges interference with every frame of the same channel, audible or not.
  `energy`: the energy of the overlaps is summed per interfering spreading factor, and the frame is
  lost when its own energy over such a sum falls below the matrix' threshold (the rule of ns-3's
  lorawan module).  `pairwise`: each interferer alone, by power, unless the earlier frame ends within
  the first three of the later one's eight preamble symbols: five are enough to lock (the rule of
  LoRaSim).  `aloha`: any overlap on one channel and spreading factor destroys both.
* The thresholds are the signal-to-interference ratios of Goursaud and Gorce, "Dedicated networks for
  IoT: PHY/MAC state of the art and challenges", EAI Endorsed Transactions on IoT, 2015; their 6 dB on
  the diagonal is what LoRaSim and ns-3 use too.

Memory is that of the frames in the air; nothing is remembered of those that left it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from simulations.links import Links
from simulations.scenario import Radio
from swarm.phy.link import SNR_LIMIT_DB, sensitivity_dbm

__all__ = [
    "SIR_THRESHOLD_DB",
    "Air",
    "Outcome",
    "UplinkFrame",
    "UplinkLoss",
    "symbol_us",
]

SIR_THRESHOLD_DB: tuple[tuple[float, ...], ...] = (
    (6, -16, -18, -19, -19, -20),
    (-24, 6, -20, -22, -22, -22),
    (-27, -27, 6, -23, -25, -25),
    (-30, -30, -30, 6, -26, -28),
    (-33, -33, -33, -33, 6, -29),
    (-36, -36, -36, -36, -36, 6),
)
"""[wanted SF - 7][interfering SF - 7]: the least wanted-over-interferer ratio that is received."""

_SPREADING_FACTORS = 6
_THRESHOLD_RATIO = tuple(tuple(10.0 ** (db / 10.0) for db in row) for row in SIR_THRESHOLD_DB)
_PREAMBLE_SYMBOLS_SPARE = 3


class UplinkLoss(StrEnum):
    """Why an uplink was not received: exactly one of these."""

    OUTAGE = "outage"
    UNDER_SENSITIVITY = "under_sensitivity"
    GATEWAY_TRANSMITTING = "gateway_transmitting"
    NO_DEMODULATOR = "no_demodulator"
    COLLISION = "collision"
    INTERFERENCE = "interference"
    TOO_LONG = "too_long"
    """It did not fit the data rate that the network had set: it was never on the air."""


@dataclass(slots=True)
class UplinkFrame:
    """One uplink on its way: times in us, `key` names the frame for the hashes of its fate."""

    node: int
    key: int
    start_us: int
    end_us: int
    frequency_hz: int
    spreading_factor: int
    bandwidth_hz: int
    power_dbm: float
    received_dbm: float = 0.0
    received_mw: float = 0.0
    lost: UplinkLoss | None = None
    locked: bool = False
    collided: bool = False
    interference: list[float] | None = field(default=None, repr=False)
    """Energy (mW us) of the overlaps, per interfering spreading factor."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the gateway made of an uplink; `lost` is None when it was received."""

    lost: UplinkLoss | None
    rssi_dbm: float
    snr_db: float


def symbol_us(spreading_factor: int, bandwidth_hz: int) -> float:
    """Duration of one symbol."""
    return (1 << spreading_factor) * 1e6 / bandwidth_hz


class Air:
    """All channels of one cell and the one gateway that listens to them."""

    def __init__(self, links: Links, radio: Radio) -> None:
        self._links = links
        self._radio = radio
        self._active: dict[int, list[UplinkFrame]] = {}
        self._locked = 0
        self._transmitting_until_us = -1
        self._deaf_until_us = -1

    @property
    def demodulators_locked(self) -> int:
        return self._locked

    @property
    def frames_in_air(self) -> int:
        return sum(map(len, self._active.values()))

    def start(self, frame: UplinkFrame) -> None:
        """The first symbol of `frame` leaves its node now (`frame.start_us`)."""
        links, radio = self._links, self._radio
        frame.received_dbm = links.received_dbm(frame.node, frame.power_dbm, frame.frequency_hz, frame.key)
        frame.received_mw = 10.0 ** (frame.received_dbm / 10.0)
        floor = sensitivity_dbm(frame.spreading_factor, frame.bandwidth_hz, radio.noise_figure_db)
        if frame.start_us < self._deaf_until_us:
            frame.lost = UplinkLoss.OUTAGE
        elif frame.received_dbm < floor:
            frame.lost = UplinkLoss.UNDER_SENSITIVITY
        elif frame.start_us < self._transmitting_until_us:
            frame.lost = UplinkLoss.GATEWAY_TRANSMITTING
        elif self._locked >= radio.demodulators:
            frame.lost = UplinkLoss.NO_DEMODULATOR
        else:
            frame.locked = True
            self._locked += 1
        others = self._active.setdefault(frame.frequency_hz, [])
        for other in others:
            if other.end_us > frame.start_us:
                self._overlap(other, frame)
        others.append(frame)

    def finish(self, frame: UplinkFrame) -> Outcome:
        """The last symbol of `frame` has left; say what became of it and forget it."""
        sharing = self._active[frame.frequency_hz]
        sharing.remove(frame)
        if not sharing:
            del self._active[frame.frequency_hz]
        if frame.locked:
            frame.locked = False
            self._locked -= 1
        if frame.lost is None and (frame.collided or self._drowned(frame)):
            frame.lost = UplinkLoss.COLLISION
        if frame.lost is None and self._links.interfered(frame.node, frame.key):
            frame.lost = UplinkLoss.INTERFERENCE
        floor = sensitivity_dbm(frame.spreading_factor, frame.bandwidth_hz, self._radio.noise_figure_db)
        snr_db = frame.received_dbm - floor + SNR_LIMIT_DB[frame.spreading_factor]
        return Outcome(frame.lost, frame.received_dbm, snr_db)

    def gateway_transmits(self, start_us: int, end_us: int) -> None:
        """The gateway sends from now until `end_us`: what it was receiving is lost."""
        self._transmitting_until_us = max(self._transmitting_until_us, end_us)
        self._abort(start_us, UplinkLoss.GATEWAY_TRANSMITTING)

    def gateway_fails(self, start_us: int, end_us: int) -> None:
        """The gateway is down from now until `end_us`."""
        self._deaf_until_us = max(self._deaf_until_us, end_us)
        self._abort(start_us, UplinkLoss.OUTAGE)

    def gateway_is_down(self, now_us: int) -> bool:
        return now_us < self._deaf_until_us

    def _abort(self, now_us: int, cause: UplinkLoss) -> None:
        for frames in self._active.values():
            for frame in frames:
                if frame.lost is None and frame.end_us > now_us:
                    frame.lost = cause
                    frame.locked = False
                    self._locked -= 1

    def _overlap(self, earlier: UplinkFrame, later: UplinkFrame) -> None:
        """Two frames of one channel share the air from `later`'s start on: each harms the other."""
        rule = self._radio.capture
        if rule == "energy":
            shared_us = min(earlier.end_us, later.end_us) - later.start_us
            _absorb(earlier, later, shared_us)
            _absorb(later, earlier, shared_us)
        elif rule == "aloha":
            if earlier.spreading_factor == later.spreading_factor:
                earlier.collided = later.collided = True
        else:
            spare_us = _PREAMBLE_SYMBOLS_SPARE * symbol_us(later.spreading_factor, later.bandwidth_hz)
            if earlier.end_us <= later.start_us + spare_us:
                return
            for one, other in ((earlier, later), (later, earlier)):
                threshold = _THRESHOLD_RATIO[one.spreading_factor - 7][other.spreading_factor - 7]
                if one.received_mw < threshold * other.received_mw:
                    one.collided = True

    def _drowned(self, frame: UplinkFrame) -> bool:
        """Whether the summed energy of any interfering spreading factor was too much."""
        if frame.interference is None:
            return False
        energy = frame.received_mw * (frame.end_us - frame.start_us)
        thresholds = _THRESHOLD_RATIO[frame.spreading_factor - 7]
        return any(
            other > 0.0 and energy < threshold * other
            for threshold, other in zip(thresholds, frame.interference, strict=True)
        )


def _absorb(victim: UplinkFrame, source: UplinkFrame, shared_us: int) -> None:
    if victim.interference is None:
        victim.interference = [0.0] * _SPREADING_FACTORS
    victim.interference[source.spreading_factor - 7] += source.received_mw * shared_us
