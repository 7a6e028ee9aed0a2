"""A pilot's plan from the places of its nodes and gateways: pure arithmetic, no files.

For every node: the gateway that hears it best, the margin with bare trees and in full leaf, the
spreading factor that keeps a planning margin in full leaf, the expected delivery (shadowing over all
gateways, collisions among the nodes), airtime, and battery life.  For the pilot: the multicast data
rate that all nodes hear, how many rounds a day the law and the air allow, and warnings in plain words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache

from swarm.phy import link
from swarm.phy.airtime import FRAME_OVERHEAD, symbol_time_us
from swarm.phy.regions import Region
from swarm.pilot.energy import EnergyModel
from swarm.security.signatures import SIGNATURE_SIZE
from swarm.wire.app import BLOCK_HEADER_SIZE
from swarm.words import counted

__all__ = ["CROPS", "GatewaySite", "NodePlan", "NodeSite", "Plan", "PlanOptions", "distance_m", "plan_pilot"]

CROPS = ("apple", "tomato", "potato", "grape")
"""In the order of their context numbers."""

DAY_S = 86_400
EARTH_RADIUS_M = 6_371_000.0
NARROW_HZ = 125_000
STATUS_SIZE = 16
UPDATE_SIZE = 45
"""A prototype update of three classes at 20 dimensions; cut to what the data rate carries."""
ROUND_SIZE = 19
HEADS_SIZE = 4 * 101 + SIGNATURE_SIZE
"""The heads of four crops, as a multicast block with its signature."""
ACK_HEADER = 5
MULTICAST_REPEATS = 2
GATEWAY_POWER_DBM = 29.15
ROUNDS_A_DAY_MAX = 24
FAR_M = 15_000.0
COLLISION_LOAD = 0.05
"""Updates are spread so that each channel is busy for this share of the time (90 % get through)."""


@dataclass(frozen=True, slots=True)
class NodeSite:
    """One node as the pilot's table gives it; `report_min` minutes between reports."""

    id: str
    lat: float
    lon: float
    height_m: float
    crop: str
    soil: str = ""
    sensors: tuple[str, ...] = ("temperature", "humidity", "rain")
    report_min: int = 60
    battery_mah: int = 2600


@dataclass(frozen=True, slots=True)
class GatewaySite:
    """One gateway; `id` is its EUI as 16 hex digits."""

    id: str
    lat: float
    lon: float
    height_m: float
    antenna_gain_dbi: float = 2.15


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What the planner assumes beyond the tables."""

    margin_db: float = 10.0
    node_power_dbm: float = 14.0
    rounds_per_day: float = 1.0
    shadowing_sd_db: float = link.SHADOWING_SD_DB
    exponent: float = link.PATH_LOSS_EXPONENT
    energy: EnergyModel = field(default_factory=EnergyModel)


@dataclass(frozen=True, slots=True)
class NodePlan:
    """The plan of one node; margins are above the sensitivity of the chosen spreading factor."""

    id: str
    crop: str
    gateway_id: str
    distance_m: float
    rssi_leaf_off_dbm: float
    rssi_leaf_on_dbm: float
    margin_leaf_off_db: float
    margin_leaf_on_db: float
    spreading_factor: int
    data_rate: int
    payload_max: int
    delivery: float
    airtime_s_per_day: float
    duty_cycle_used: float
    rounds_a_day: int
    battery_years: float
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a pilot."""

    region: str
    nodes: tuple[NodePlan, ...]
    gateways: dict[str, int]
    """How many nodes hear each gateway best."""
    multicast_data_rate: int
    multicast_airtime_s: float
    rounds_a_day: int
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """Everything, JSON-ready."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Link:
    """The radio side of a node, before anything that depends on the other nodes."""

    site: NodeSite
    gateway: GatewaySite
    distance_m: float
    rssi_off_dbm: float
    rssi_on_dbm: float
    all_rssi_on_dbm: tuple[float, ...]
    spreading_factor: int


@dataclass(frozen=True, slots=True)
class _Rounds:
    """What one round costs the gateway and how often all nodes together allow it."""

    data_rate: int
    airtime_s: float
    listening_s: float
    a_day: float


def distance_m(lat_a: float, lon_a: float, lat_b: float, lon_b: float) -> float:
    """Great-circle distance in metres between two places in degrees (haversine)."""
    phi_a, phi_b = math.radians(lat_a), math.radians(lat_b)
    half = math.sin((phi_b - phi_a) / 2) ** 2
    half += math.cos(phi_a) * math.cos(phi_b) * math.sin(math.radians(lon_b - lon_a) / 2) ** 2
    return 2 * EARTH_RADIUS_M * math.asin(min(1.0, math.sqrt(half)))


def plan_pilot(
    nodes: Sequence[NodeSite],
    gateways: Sequence[GatewaySite],
    region: Region,
    options: PlanOptions | None = None,
) -> Plan:
    """Plan a pilot of at least one gateway; nodes keep their order."""
    if not gateways:
        raise ValueError("a pilot needs at least one gateway")
    options = options or PlanOptions()
    links = [_link(node, gateways, region, options) for node in nodes]
    rounds = _rounds(links, region, options)
    # Erlangs of every spreading factor, all channels together: who shares it may collide.
    load: dict[int, float] = dict.fromkeys(_choices(region), 0.0)
    for each in links:
        load[each.spreading_factor] += _day_airtime_s(each, region, options) / DAY_S
    plans = tuple(_node_plan(each, region, options, rounds, load) for each in links)
    served = {gateway.id: 0 for gateway in gateways}
    for each in links:
        served[each.gateway.id] += 1
    return Plan(
        region=region.name,
        nodes=plans,
        gateways=served,
        multicast_data_rate=rounds.data_rate,
        multicast_airtime_s=round(rounds.airtime_s, 3),
        rounds_a_day=min([each.rounds_a_day for each in plans], default=0),
        warnings=_pilot_warnings(plans, gateways, served, rounds),
    )


@cache
def _choices(region: Region) -> Mapping[int, int]:
    """Spreading factor -> uplink data rate at 125 kHz that can carry a status frame."""
    return {
        rate.spreading_factor: index
        for index, rate in region.uplink_data_rates.items()
        if rate.kind == "lora"
        and rate.bandwidth_hz == NARROW_HZ
        and rate.spreading_factor >= 7
        and region.payload_max(index, uplink=True) >= STATUS_SIZE
    }


def _link(node: NodeSite, gateways: Sequence[GatewaySite], region: Region, options: PlanOptions) -> _Link:
    frequency_hz = region.uplink_channels[0].frequency_hz
    power_dbm = min(options.node_power_dbm, region.max_eirp_dbm)
    off_db = link.foliage_loss_db(node.crop, node.height_m, leaf_on=False)
    on_db = link.foliage_loss_db(node.crop, node.height_m, leaf_on=True)
    bare: list[tuple[float, float, GatewaySite]] = []
    for gateway in gateways:
        flat_m = distance_m(node.lat, node.lon, gateway.lat, gateway.lon)
        far_m = math.hypot(flat_m, gateway.height_m - node.height_m)
        heights_m = (node.height_m, gateway.height_m)
        loss_db = link.path_loss_db(far_m, frequency_hz, options.exponent, heights_m=heights_m)
        bare.append((power_dbm + gateway.antenna_gain_dbi - loss_db, flat_m, gateway))
    best_dbm, best_m, best = max(bare, key=lambda entry: (entry[0], entry[2].id))
    choices = tuple(sorted(_choices(region)))
    chosen = link.best_spreading_factor(
        best_dbm - on_db, NARROW_HZ, margin_db=options.margin_db, choices=choices
    )
    return _Link(
        site=node,
        gateway=best,
        distance_m=best_m,
        rssi_off_dbm=best_dbm - off_db,
        rssi_on_dbm=best_dbm - on_db,
        all_rssi_on_dbm=tuple(rssi_dbm - on_db for rssi_dbm, _, _ in bare),
        spreading_factor=max(choices) if chosen is None else chosen,
    )


def _uplink_airtime_s(spreading_factor: int, size: int, region: Region) -> float:
    data_rate = _choices(region)[spreading_factor]
    size = min(size, region.payload_max(data_rate, uplink=True))
    return region.airtime_us(data_rate, size + FRAME_OVERHEAD, uplink=True) / 1e6


def _day_airtime_s(each: _Link, region: Region, options: PlanOptions) -> float:
    reports = 24 * 60 / each.site.report_min
    report_s = _uplink_airtime_s(each.spreading_factor, STATUS_SIZE, region)
    update_s = _uplink_airtime_s(each.spreading_factor, UPDATE_SIZE, region)
    return reports * report_s + options.rounds_per_day * update_s


def _rounds(links: Sequence[_Link], region: Region, options: PlanOptions) -> _Rounds:
    """The multicast of a round at the fastest rate that all nodes hear, and the limits it sets."""
    band = region.sub_band(
        region.rx2_frequency_hz, region.data_rate(region.rx2_data_rate, uplink=False).bandwidth_hz
    )
    bandwidth_hz = region.data_rate(region.rx2_data_rate, uplink=False).bandwidth_hz
    power_dbm = min(band.max_eirp_dbm, GATEWAY_POWER_DBM)
    gain_db = power_dbm - min(options.node_power_dbm, region.max_eirp_dbm)
    # The antenna's gain is part of the gateway's EIRP already.
    weakest_dbm = min(
        [each.rssi_on_dbm + gain_db - each.gateway.antenna_gain_dbi for each in links], default=0.0
    )
    rates = {
        rate.spreading_factor: index
        for index, rate in region.downlink_data_rates.items()
        if rate.kind == "lora"
        and rate.bandwidth_hz == bandwidth_hz
        and rate.spreading_factor >= 7
        and region.payload_max(index, uplink=False) > BLOCK_HEADER_SIZE + STATUS_SIZE
    }
    choices = tuple(sorted(rates))
    chosen = link.best_spreading_factor(
        weakest_dbm, bandwidth_hz, margin_db=options.margin_db, choices=choices
    )
    data_rate = rates[max(choices) if chosen is None else chosen]
    piece = region.payload_max(data_rate, uplink=False) - BLOCK_HEADER_SIZE
    full, rest = divmod(HEADS_SIZE, piece)
    ack = min(ACK_HEADER + math.ceil(len(links) / 8), piece + BLOCK_HEADER_SIZE)
    pieces = [piece] * full + ([rest] if rest else [])
    sizes = [ROUND_SIZE, ack, *(BLOCK_HEADER_SIZE + size for size in pieces)]
    air_us = [region.airtime_us(data_rate, size + FRAME_OVERHEAD, uplink=False) for size in sizes]
    airtime_s = MULTICAST_REPEATS * sum(air_us) / 1e6
    # Collecting: the nodes' updates, thin enough on all channels that nine of ten get through.
    updates_s = sum(_uplink_airtime_s(each.spreading_factor, UPDATE_SIZE, region) for each in links)
    collecting_s = updates_s / (COLLISION_LOAD * len(region.channels))
    a_day = min(band.duty_cycle * DAY_S / airtime_s, DAY_S / (collecting_s + airtime_s), ROUNDS_A_DAY_MAX)
    listening_s = 1.0 + airtime_s / MULTICAST_REPEATS
    return _Rounds(data_rate, airtime_s, listening_s, a_day)


def _node_plan(
    each: _Link, region: Region, options: PlanOptions, rounds: _Rounds, load: Mapping[int, float]
) -> NodePlan:
    site, spreading_factor = each.site, each.spreading_factor
    data_rate = _choices(region)[spreading_factor]
    limit_dbm = link.sensitivity_dbm(spreading_factor, NARROW_HZ)
    airtime_s = _day_airtime_s(each, region, options)
    legal_s = DAY_S * min(region.sub_band(channel.frequency_hz).duty_cycle for channel in region.channels)
    update_s = _uplink_airtime_s(spreading_factor, UPDATE_SIZE, region)
    left_s = legal_s - airtime_s + options.rounds_per_day * update_s
    missed = math.prod(
        1 - link.delivery_probability(rssi_dbm - limit_dbm, options.shadowing_sd_db)
        for rssi_dbm in each.all_rssi_on_dbm
    )
    others = load[spreading_factor] - airtime_s / DAY_S
    plan = NodePlan(
        id=site.id,
        crop=site.crop,
        gateway_id=each.gateway.id,
        distance_m=round(each.distance_m, 1),
        rssi_leaf_off_dbm=round(each.rssi_off_dbm, 1),
        rssi_leaf_on_dbm=round(each.rssi_on_dbm, 1),
        margin_leaf_off_db=round(each.rssi_off_dbm - limit_dbm, 1),
        margin_leaf_on_db=round(each.rssi_on_dbm - limit_dbm, 1),
        spreading_factor=spreading_factor,
        data_rate=data_rate,
        payload_max=region.payload_max(data_rate, uplink=True),
        delivery=round((1 - missed) * math.exp(-2 * others / len(region.channels)), 4),
        airtime_s_per_day=round(airtime_s, 3),
        duty_cycle_used=round(airtime_s / legal_s, 4),
        rounds_a_day=max(0, int(min(rounds.a_day, left_s / update_s))),
        battery_years=round(_battery_years(each, region, options, rounds), 2),
        warnings=(),
    )
    return replace(plan, warnings=_node_warnings(site, plan, options))


def _battery_years(each: _Link, region: Region, options: PlanOptions, rounds: _Rounds) -> float:
    energy, spreading_factor = options.energy, each.spreading_factor
    # A receive window that hears nothing closes after the preamble could have been seen.
    window_s = 8 * symbol_time_us(spreading_factor, NARROW_HZ) / 1e6
    report_mah = energy.uplink_mah(_uplink_airtime_s(spreading_factor, STATUS_SIZE, region), window_s)
    update_mah = energy.uplink_mah(_uplink_airtime_s(spreading_factor, UPDATE_SIZE, region), window_s)
    reports_mah = 24 * 60 / each.site.report_min * report_mah
    rounds_mah = options.rounds_per_day * (update_mah + energy.round_mah(rounds.listening_s))
    return energy.years(each.site.battery_mah, energy.day_mah(reports_mah, rounds_mah))


def _node_warnings(site: NodeSite, plan: NodePlan, options: PlanOptions) -> tuple[str, ...]:
    """What the pilot manager should change or know about this node, in plain words."""
    found: list[str] = []
    margin_db, wanted_db = plan.margin_leaf_on_db, options.margin_db
    if margin_db < 0:
        found.append(
            f"out of reach in full leaf ({margin_db:+.1f} dB at SF{plan.spreading_factor}): "
            "raise the antennas or add a gateway nearby"
        )
    elif margin_db < wanted_db:
        bare = "; enough only with bare trees" if plan.margin_leaf_off_db >= wanted_db else ""
        found.append(f"only {margin_db:.1f} dB margin in full leaf, {wanted_db:.0f} dB are advised{bare}")
    elif plan.delivery < 0.9:
        found.append(f"expected delivery {plan.delivery:.0%}: reports will be missing")
    if site.height_m < link.CANOPIES[site.crop].height_m:
        found.append(
            f"antenna at {site.height_m:g} m is inside the {site.crop} canopy: a mast above it helps most"
        )
    if plan.duty_cycle_used > 1:
        fewer = math.ceil(site.report_min * plan.duty_cycle_used)
        found.append(
            f"reports every {site.report_min} min break the duty cycle at this data rate: {fewer} min or more"
        )
    if plan.battery_years < 1:
        found.append(
            f"battery lasts {plan.battery_years * 12:.0f} months: report less often or take a larger one"
        )
    if plan.distance_m > FAR_M:
        found.append(f"{plan.distance_m / 1000:.0f} km from the nearest gateway: check the coordinates")
    found.extend(
        f"no {sensor} sensor: leaf wetness is judged from the others, risk is less sure"
        for sensor in ("humidity", "rain")
        if sensor not in site.sensors
    )
    return tuple(found)


def _pilot_warnings(
    plans: Sequence[NodePlan], gateways: Sequence[GatewaySite], served: Mapping[str, int], rounds: _Rounds
) -> tuple[str, ...]:
    found: list[str] = []
    if not plans:
        found.append("there are no nodes")
    if len(gateways) == 1:
        found.append("one gateway only: while it is down or sends, nothing is heard")
    found.extend(
        f"gateway {gateway_id} is the best one for no node"
        for gateway_id, count in served.items()
        if not count
    )
    lost = sum(plan.margin_leaf_on_db < 0 for plan in plans)
    if lost:
        found.append(f"out of reach in full leaf: {lost} of {counted(len(plans), 'node')}")
    if plans and rounds.a_day < 1:
        found.append(
            f"less than one learning round a day fits ({rounds.a_day:.2f}): use cohorts or more gateways"
        )
    return tuple(found)
