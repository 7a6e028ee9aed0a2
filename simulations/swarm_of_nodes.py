"""The fleet: the firmware itself in one array of C structs, a LoRaWAN device and a clock for each node.

Theory of operation.  The world's clock is exact, a node's is not: each runs fast or slow by its own few
parts per million, and all times that pass between world and firmware are converted here.  The firmware
asks for two things through its ports, both collected after every call into it: frames to send, which
the node's LoRaWAN device turns into PHYPayloads with a start that its duty cycle and its receive
windows allow, and windows in which to listen to multicast.  A device that has not joined yet says
"busy", and the firmware tries again.

Sensing is one call an hour for all nodes.  A reading carries the clock's hour at which it was taken; the one
of 12 o'clock is the last of its noon-to-noon day, in the firmware as in the field.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from simulations.field import Field
from simulations.links import Links
from simulations.provisioning import Identity, signing_seed
from simulations.scenario import Scenario
from swarm.commands import SetMulticast
from swarm.effects import Malformed
from swarm.mac.device import (
    AbpIdentity,
    Delivered,
    EndDevice,
    Joined,
    MulticastMemo,
    OtaaIdentity,
    RxWindow,
    UplinkFrame,
)
from swarm.node import NodeConfig, Nodes
from swarm.phy.link import best_spreading_factor
from swarm.phy.regions import Region
from swarm.prng import Prng
from swarm.security.signatures import SigningKey
from swarm.wire.app import F_PORT_ASKING, F_PORT_LEARNING, F_PORT_STATUS, Schedule, encode
from swarm.wire.packages import F_PORTS, Package

__all__ = ["LABEL_NONE", "Sending", "SwarmOfNodes", "data_rates", "firmware_nodes", "shipped_model"]

LABEL_NONE = 255
GUARD_US = 1_000_000
"""How long before an announced window the firmware opens its receiver."""
JOIN_SPREAD_US = 600_000_000
"""Nodes that are switched on together ask to join within these ten minutes."""
FLASH_SIZE = 32_768
"""What a node's board has for a large block."""
_BUSY_NOT_JOINED_S = 60
_BILLION = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Sending:
    """A frame that a node is going to send: `frame.at_us` is world time."""

    node: int
    f_port: int
    purpose: str
    frame: UplinkFrame
    repeated: int = 0
    """How often the same frame was sent before."""


def shipped_model() -> bytes:
    """The container that nodes are flashed with."""
    return (resources.files("swarm.model") / "base_model.swm").read_bytes()


def data_rates(scenario: Scenario, region: Region, links: Links) -> list[int]:
    """The uplink data rate of each node, as ADR would have settled it on its mean link."""
    radio = scenario.radio
    choices = range(radio.data_rate_min, radio.data_rate_max + 1)
    factors = {region.data_rates[rate].spreading_factor: rate for rate in choices}
    rates = []
    for gain_db in links.gain_db.tolist():
        factor = best_spreading_factor(
            radio.node_power_dbm + gain_db,
            margin_db=radio.link_margin_db,
            noise_figure_db=radio.noise_figure_db,
            choices=tuple(factors),
        )
        rates.append(radio.data_rate_min if factor is None else factors[factor])
    return rates


def firmware_nodes(
    scenario: Scenario, field: Field, payload_max: list[int], model: bytes, now_us: int
) -> Nodes:
    """The firmware of all nodes, just switched on."""
    seeds = Prng(scenario.seed).child("firmware")
    signer = SigningKey(signing_seed(scenario)).public_key
    flash_size = FLASH_SIZE if scenario.large_block.at_s else 0
    configs = [
        NodeConfig(
            node_index=index,
            context=int(field.context[index]),
            flags=int(field.flags[index]),
            status_period_s=scenario.status_period_min * 60,
            payload_max=payload_max[index],
            guard_us=GUARD_US,
            seed=seeds.child(f"node-{index}").u64(),
            signer=signer,
        )
        for index in range(scenario.nodes)
    ]
    return Nodes(scenario.nodes, configs, model, now_us=now_us, flash_size=flash_size)


class SwarmOfNodes:
    """All nodes of one cell; node numbers are node indices."""

    def __init__(
        self,
        scenario: Scenario,
        region: Region,
        field: Field,
        identities: list[Identity],
        group: SetMulticast,
        links: Links,
        model: bytes,
        start_us: int,
    ) -> None:
        prng = Prng(scenario.seed).child("nodes")
        adr = scenario.radio.adr
        planned = data_rates(scenario, region, links)
        rates = [scenario.radio.data_rate_min] * scenario.nodes if adr else planned
        self._field = field
        self._start_us = start_us
        drift = (
            prng.child("clocks")
            .numpy()
            .normal(0.0, scenario.hardship.clock_drift_ppm * 1000.0, scenario.nodes)
        )
        self._drift_ppb: list[int] = np.rint(drift).astype(np.int64).tolist()
        self.firmware = firmware_nodes(
            scenario, field, [region.payload_max(rate, uplink=True) for rate in rates], model, start_us
        )
        memo = MulticastMemo()
        self.devices = [
            _device(region, identity, group, prng.child(f"device-{identity.node_index}"), memo, rate, adr)
            for identity, rate in zip(identities, rates, strict=True)
        ]
        starts = prng.child("joins").numpy().integers(0, JOIN_SPREAD_US, scenario.nodes)
        self.join_at_us: dict[int, int] = {
            node: start_us + int(starts[node])
            for node, device in enumerate(self.devices)
            if not device.joined
        }
        if scenario.first_listen_s:
            now_listening = encode(Schedule(0, scenario.first_listen_s, 0))
            self.firmware.rx_many(
                range(scenario.nodes), start_us, F_PORT_STATUS, now_listening, multicast=False
            )
        for node in self.join_at_us:
            self.firmware.busy[node] = _BUSY_NOT_JOINED_S

    # -- clocks -----------------------------------------------------------------------------------

    def local_us(self, node: int, world_us: int) -> int:
        """What the clock of `node` shows at that instant."""
        elapsed = world_us - self._start_us
        return world_us + elapsed * self._drift_ppb[node] // _BILLION

    def world_us(self, node: int, local_us: int) -> int:
        """The first instant at which the clock of `node` shows at least that time."""
        elapsed = local_us - self._start_us
        rate = _BILLION + self._drift_ppb[node]
        return self._start_us - (-elapsed * _BILLION // rate)

    # -- the field --------------------------------------------------------------------------------

    def sense(self, hour: int, now_us: int) -> list[int]:
        """Every node takes the reading of hour `hour` of the field; whom that gave something to send."""
        temperature, humidity, rain, clock = self._field.readings(hour)
        closed = self.firmware.sense(now_us, temperature, humidity, rain, clock)
        found: list[int] = np.flatnonzero((closed != 0) & (self.firmware.sharing != 0)).tolist()
        return found

    def label(self, day: int) -> int:
        """Every node is told the true class of its plot on field day `day`; how many could use it."""
        return self.firmware.label(day, self._field.label(day))

    def learn_history(self, hours: range, labels_from: int) -> None:
        """Feed what the nodes saw before the run, and the labels from that day on as they became known."""
        for hour in hours:
            self.sense(hour, (hour + 1) * 3_600_000_000)
            day = (hour + 1) // 24 - 2
            if (hour + 1) % 24 == 0 and day >= labels_from:
                self.label(day)

    # -- sending ----------------------------------------------------------------------------------

    def poll(self, node: int, now_us: int) -> tuple[list[Sending], int, int]:
        """Let the firmware of `node` do what is due: what it sends, how many frames did not fit the data
        rate, and when (world time) it is due again."""
        device = self.devices[node]
        if device.mac.adr:
            self.firmware.set_payload_max(node, device.payload_max())
        next_us = self.firmware.poll_one(node, self.local_us(node, now_us))
        said = list(self.firmware.outbox())
        sendings = [
            Sending(
                index, f_port, _purpose(f_port, payload), self.devices[index].uplink(now_us, f_port, payload)
            )
            for index, f_port, payload in said
            if not device.mac.adr or len(payload) <= self.devices[index].payload_max()
        ]
        return sendings, len(said) - len(sendings), max(self.world_us(node, next_us), now_us + 1)

    def join(self, node: int, now_us: int) -> Sending:
        """The next join request of `node`."""
        return Sending(node, 0, "join_request", self.devices[node].join(now_us))

    def again(self, sending: Sending, now_us: int) -> Sending | None:
        """The same frame once more, if the network asked for that, nothing came down and nothing newer went
        up."""
        device, frame = self.devices[sending.node], sending.frame
        if frame.join or device.f_cnt_up != frame.f_cnt + 1 or sending.repeated + 1 >= device.mac.nb_trans:
            return None
        return replace(sending, frame=device.again(now_us, frame), repeated=sending.repeated + 1)

    def listens(self) -> list[tuple[int, int, int]]:
        """Multicast windows asked for since the last call: (node, from, until) in world time."""
        return [
            (node, self.world_us(node, from_us), self.world_us(node, until_us))
            for node, from_us, until_us in self.firmware.listens()
        ]

    def rx_windows(self, sending: Sending) -> tuple[RxWindow, RxWindow]:
        """Where the node listens after this uplink."""
        return self.devices[sending.node].rx_windows(sending.frame)

    # -- receiving --------------------------------------------------------------------------------

    def receive(self, node: int, now_us: int, phy: bytes, snr_db: float) -> Delivered | Joined | Malformed:
        """The radio of `node` received these bytes; what its LoRaWAN stack made of them."""
        result = self.devices[node].receive(now_us, phy, snr_db)
        if isinstance(result, Delivered) and result.f_port:
            self.firmware.rx(
                node,
                self.local_us(node, now_us),
                result.f_port,
                result.payload,
                multicast=result.multicast,
                snr_db=round(max(-128.0, min(127.0, snr_db))),
            )
        elif isinstance(result, Joined):
            self.firmware.busy[node] = 0
        return result

    def labelled(self) -> NDArray[np.uint8]:
        """How many labelled samples each node holds."""
        return self.firmware.labelled


def _purpose(f_port: int, payload: bytes) -> str:
    """What an uplink is for, as airtime is accounted."""
    if f_port == F_PORTS[Package.FRAGMENTATION]:
        return "block"
    if f_port == F_PORT_STATUS:
        return "status" if payload[0] == 1 else "readings"
    return {F_PORT_LEARNING: "update", F_PORT_ASKING: "answer"}.get(f_port, "other")


def _device(
    region: Region,
    identity: Identity,
    group: SetMulticast,
    prng: Prng,
    memo: MulticastMemo,
    data_rate: int,
    adr: bool,
) -> EndDevice:
    who: AbpIdentity | OtaaIdentity
    if identity.activation == "abp":
        who = AbpIdentity(identity.dev_addr, identity.nwk_s_key, identity.app_s_key)
    else:
        who = OtaaIdentity(identity.dev_eui, identity.join_eui, identity.app_key)
    device = EndDevice(region, who, prng, memo=memo, data_rate=data_rate, adr=adr)
    device.add_group(group.mc_addr, group.nwk_s_key, group.app_s_key)
    return device
