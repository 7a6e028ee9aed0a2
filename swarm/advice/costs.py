"""What one round of each mode costs: frames, bytes, airtime both ways, energy; how often the law allows it.

Closed forms over the fleet's data rates; LoRaWAN adds 13 bytes to every frame.  Losses, repetitions of lost
updates and the repair of masked sums are not in it.  Sizes are the largest (`swarm.federation.sizes`).

How often: the least of what these allow: the gateway's duty cycle in the multicast's sub-band, the
dearest node's duty cycle beside its reports, and the air (updates spread so thinly over the channels that
nine of ten get through).  The calendar goes by that or by the `period_s` that is set, whichever is slower.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import fmean

from swarm.advice.fleet import Fleet
from swarm.federation.modes import MODES
from swarm.federation.round import ack_frames
from swarm.federation.sizes import Asked, frame_sizes
from swarm.model.layout import ADAPTER_SIZE
from swarm.model.versions import FULL_EVERY
from swarm.phy.airtime import FRAME_OVERHEAD, symbol_time_us
from swarm.phy.energy import Currents
from swarm.pilot.energy import EnergyModel
from swarm.pilot.plan import COLLISION_LOAD
from swarm.security.signatures import SIGNATURE_SIZE
from swarm.wire.app import BLOCK_HEADER_SIZE, RoundMode
from swarm.wire.sums import SUMS_PLAN_SIZE

__all__ = ["ROUNDS_MEASURED", "ROUNDS_TO_JUDGE", "ModeCost", "costs_of"]

DAY_S = 86_400
HOUR_S = 3600
STATUS_SIZE = 16
ROUND_SIZE = 19
PROGRAMME_DELAY_S = 3.0
"""From the opening of a window to its first frame."""
GAP_S = 0.044
"""Between two frames of one gateway."""
WINDOW_SYMBOLS = 8
"""A receive window that hears nothing."""
ROUNDS_TO_JUDGE = 2
"""Heads of statistics are used once a further round has judged them better."""
ROUNDS_MEASURED = 4
"""After so many rounds all modes were compared (`benchmarks`)."""


@dataclass(frozen=True, slots=True)
class ModeCost:
    """One round of a mode: means over the nodes that take part, sums over the fleet, shares of legal hours.

    `nodes` take part; `unable` of those invited have a data rate that carries no such update.  `node_hour`
    is the dearest node's update as a share of what it may send in an hour, `gateway_hour` the multicast's of
    the gateway's.  Energy in mJ of a node that takes part, `listening_mj` of it what every node spends to
    hear the window.  `trial_s` of airtime, up and down, is spent while no head proved better and no block is
    sent.  Days count from the opening of the first round; None: never.
    """

    mode: str
    nodes: int = 0
    unable: int = 0
    frames: float = 0.0
    bytes: float = 0.0
    airtime_s: float = 0.0
    downlink_s: float = 0.0
    trial_s: float = 0.0
    node_hour: float = 0.0
    gateway_hour: float = 0.0
    rounds_a_day: float = 0.0
    """At most."""
    limit: str = ""
    """What sets it: gateway, node or air."""
    energy_mj: float = 0.0
    listening_mj: float = 0.0
    first_model_days: float | None = None
    """Until nodes hold the first changed model, if there is a gain."""
    four_rounds_days: float | None = None


@dataclass(frozen=True, slots=True)
class _Window:
    """Airtime of what a multicast window holds, each once, and the pauses between all its frames."""

    acks_s: float
    block_s: float
    announce_s: float
    pauses_s: float


@dataclass(frozen=True, slots=True)
class _Update:
    """The update of each of `nodes` nodes at one data rate: frames, bytes with LoRaWAN's, airtime, charge."""

    nodes: int
    data_rate: int
    frames: int
    size: int
    airtime_s: float
    charge_mah: float


@dataclass(frozen=True, slots=True)
class _Crowd:
    """Who takes part, for all modes: how many at each data rate, and the sizes of their acknowledgements."""

    rates: Mapping[int, int]
    acks: tuple[int, ...]


def costs_of(fleet: Fleet, energy: EnergyModel | None = None) -> tuple[ModeCost, ...]:
    """What a round of each mode costs this fleet; mode none, which costs nothing, is the first."""
    takers = fleet.takers
    room = fleet.region.payload_max(fleet.multicast_data_rate, uplink=False)
    acks = ack_frames(fleet.number, (node.node_index for node in takers), room)
    crowd = _Crowd(Counter(node.data_rate for node in takers), tuple(map(len, acks)))
    costs = (_cost(mode, fleet, crowd, energy or EnergyModel()) for mode in MODES)
    return (ModeCost("none"), *costs)


def _cost(mode: RoundMode, fleet: Fleet, crowd: _Crowd, model: EnergyModel) -> ModeCost:
    if MODES[mode].additive:
        model = replace(model, training_s=0.0)  # statistics need no training
    asked = Asked(fleet.shape, fleet.heads_only, fleet.sums_bits)
    every = [_update(mode, rate, count, fleet, asked, model) for rate, count in sorted(crowd.rates.items())]
    made = [update for update in every if update.frames]
    nodes, unable = (sum(update.nodes for update in each) for each in (made, every))
    unable -= nodes
    if not made:
        return ModeCost(MODES[mode].name, unable=unable)
    airtime_s = sum(update.nodes * update.airtime_s for update in made)
    window = _window(mode, fleet, crowd)
    downlink_s = fleet.repeats * (window.acks_s + window.block_s + window.announce_s)
    # The announcement comes last, and a node that heard it closes its receiver.
    listening_s = PROGRAMME_DELAY_S + downlink_s - (fleet.repeats - 1) * window.announce_s + window.pauses_s
    limit, a_day = _often(fleet, made, airtime_s, downlink_s)
    goes = min(a_day, DAY_S / fleet.learning.period_s)
    charge_mah = sum(update.nodes * update.charge_mah for update in made) / nodes
    listening_mj = _millijoule(model.round_mah(listening_s) - model.round_mah(0.0))
    first = ROUNDS_TO_JUDGE if MODES[mode].additive else 1
    return ModeCost(
        mode=MODES[mode].name,
        nodes=nodes,
        unable=unable,
        frames=sum(update.nodes * update.frames for update in made) / nodes,
        bytes=sum(update.nodes * update.size for update in made) / nodes,
        airtime_s=airtime_s,
        downlink_s=downlink_s,
        trial_s=airtime_s + downlink_s - fleet.repeats * window.block_s,
        node_hour=max(update.airtime_s for update in made) / (HOUR_S * fleet.node_duty),
        gateway_hour=downlink_s / (HOUR_S * fleet.multicast_band.duty_cycle),
        rounds_a_day=a_day,
        limit=limit,
        energy_mj=_millijoule(charge_mah + model.round_mah(listening_s)),
        listening_mj=listening_mj,
        first_model_days=first / goes if goes else None,
        four_rounds_days=ROUNDS_MEASURED / goes if goes else None,
    )


def _update(
    mode: RoundMode, data_rate: int, nodes: int, fleet: Fleet, asked: Asked, energy: EnergyModel
) -> _Update:
    region, rate = fleet.region, fleet.region.data_rate(data_rate, uplink=True)
    sizes = frame_sizes(mode, region.payload_max(data_rate, uplink=True), asked)
    air_s = [_airtime_s(fleet, data_rate, size, uplink=True) for size in sizes]
    window_s = WINDOW_SYMBOLS * symbol_time_us(rate.spreading_factor, rate.bandwidth_hz) / 1e6
    charge_mah = sum(energy.uplink_mah(each_s, window_s) for each_s in air_s)
    whole = sum(sizes) + FRAME_OVERHEAD * len(sizes)
    return _Update(nodes, data_rate, len(sizes), whole, sum(air_s), charge_mah)


def _window(mode: RoundMode, fleet: Fleet, crowd: _Crowd) -> _Window:
    """Means, since block kinds take turns."""
    room = fleet.region.payload_max(fleet.multicast_data_rate, uplink=False)
    kinds = [_pieces(length, room) for length in _blocks(mode, fleet)]
    announced = ROUND_SIZE + (SUMS_PLAN_SIZE if mode is RoundMode.MASKED_SUMS else 0)
    frames = len(crowd.acks) + fmean(len(pieces) for pieces in kinds) + 1
    return _Window(
        acks_s=_sum_s(fleet, crowd.acks),
        block_s=fmean(_sum_s(fleet, pieces) for pieces in kinds),
        announce_s=_sum_s(fleet, [announced]),
        pauses_s=GAP_S * fleet.repeats * frames,
    )


def _blocks(mode: RoundMode, fleet: Fleet) -> list[int]:
    """Bytes of the model blocks, signed, of `FULL_EVERY` windows one after another."""
    heads, size = len(fleet.contexts), fleet.shape.head_size
    full = 2 + ADAPTER_SIZE + heads * (1 + size)
    if MODES[mode].additive or fleet.heads_only:
        return [SIGNATURE_SIZE + (full if fleet.adapter_moved else heads * (2 + size))]
    delta = 3 + (ADAPTER_SIZE + heads * size + 1) // 2
    return [SIGNATURE_SIZE + kind for kind in [delta] * (FULL_EVERY - 1) + [full]]


def _pieces(length: int, room: int) -> list[int]:
    """The payloads of a block's frames, in bytes."""
    count = -(-length // max(room - BLOCK_HEADER_SIZE, 1))
    piece = -(-length // count)
    return [min(piece, length - at) + BLOCK_HEADER_SIZE for at in range(0, length, piece)]


def _sum_s(fleet: Fleet, sizes: Iterable[int]) -> float:
    return sum(_airtime_s(fleet, fleet.multicast_data_rate, size, uplink=False) for size in sizes)


def _airtime_s(fleet: Fleet, data_rate: int, size: int, *, uplink: bool) -> float:
    return fleet.region.airtime_us(data_rate, size + FRAME_OVERHEAD, uplink=uplink) / 1e6


def _often(fleet: Fleet, updates: list[_Update], airtime_s: float, downlink_s: float) -> tuple[str, float]:
    """What limits the rounds of a day, and how many there can be."""
    reports = 24 * 60 / fleet.report_min
    legal_s = DAY_S * fleet.node_duty
    node = min(
        (legal_s - reports * _airtime_s(fleet, update.data_rate, STATUS_SIZE, uplink=True)) / update.airtime_s
        for update in updates
    )
    collecting_s = airtime_s / (COLLISION_LOAD * len(fleet.region.channels))
    limits = {
        "gateway": fleet.multicast_band.duty_cycle * DAY_S / downlink_s,
        "node": max(0.0, node),
        "air": DAY_S / (collecting_s + downlink_s),
    }
    name = min(limits, key=lambda key: limits[key])
    return name, limits[name]


def _millijoule(charge_mah: float) -> float:
    return charge_mah * 3600.0 * Currents().supply_v
