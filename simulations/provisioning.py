"""Who the simulated nodes are: identities, keys, crops and places, all from the scenario's seed.

A gateway that is to meet these nodes has to know them before: the world registers them itself, a live
run exports them for `swarm nodes import`.  The keys protect nothing but a simulation; anybody who has
the scenario has them.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from simulations.field import Field
from simulations.scenario import Scenario
from swarm.commands import AddNode, SetMulticast
from swarm.config import MulticastChannel
from swarm.model.layout import CONTEXTS
from swarm.phy.regions import region
from swarm.prng import Prng

__all__ = ["Identity", "channel", "export", "group", "identities", "provisioning", "signing_seed"]

FIELD_RADIUS_M = 3_000.0
"""The field scatters its plots over this radius; a scenario's `radius_m` stretches or shrinks it."""
ORIGIN_DEG = (47.05, 7.05)
"""Where the gateway stands on the map: a vegetable plain; only differences matter."""
_METRES_PER_DEGREE = 111_194.9
_DEV_ADDR_FIRST = 0x0001_0000
"""DevAddrs of NetID 0 (private networks), above those that a gateway gives to joining nodes."""
_MC_ADDR = 0x00FF_0000


@dataclass(frozen=True, slots=True)
class Identity:
    """One node as it was provisioned; `x_m`, `y_m` in metres east and north of the gateway."""

    node_index: int
    dev_eui: str
    name: str
    context: int
    plot: str
    x_m: float
    y_m: float
    activation: Literal["abp", "otaa"]
    dev_addr: int
    join_eui: str
    nwk_s_key: bytes = field(repr=False)
    app_s_key: bytes = field(repr=False)
    app_key: bytes = field(repr=False)

    @property
    def lat(self) -> float:
        return round(ORIGIN_DEG[0] + self.y_m / _METRES_PER_DEGREE, 6)

    @property
    def lon(self) -> float:
        metres = _METRES_PER_DEGREE * math.cos(math.radians(ORIGIN_DEG[0]))
        return round(ORIGIN_DEG[1] + self.x_m / metres, 6)

    def add_node(self) -> AddNode:
        """The command that registers this node."""
        abp = self.activation == "abp"
        return AddNode(
            dev_eui=self.dev_eui,
            name=self.name,
            context=self.context,
            activation=self.activation,
            plot=self.plot,
            lat=self.lat,
            lon=self.lon,
            node_index=self.node_index,
            dev_addr=self.dev_addr if abp else None,
            nwk_s_key=self.nwk_s_key if abp else None,
            app_s_key=self.app_s_key if abp else None,
            join_eui=self.join_eui,
            app_key=None if abp else self.app_key,
        )

    def to_dict(self) -> dict[str, str | int | float]:
        """What a provisioning file says of this node: keys as hex, only those its activation needs."""
        row: dict[str, str | int | float] = {
            "dev_eui": self.dev_eui,
            "name": self.name,
            "node_index": self.node_index,
            "crop": CONTEXTS[self.context],
            "plot": self.plot,
            "lat": self.lat,
            "lon": self.lon,
            "activation": self.activation,
        }
        if self.activation == "abp":
            row |= {
                "dev_addr": f"{self.dev_addr:08x}",
                "nwk_s_key": self.nwk_s_key.hex(),
                "app_s_key": self.app_s_key.hex(),
            }
        else:
            row |= {"join_eui": self.join_eui, "app_key": self.app_key.hex()}
        return row


def identities(scenario: Scenario, plots: Field | None = None) -> list[Identity]:
    """All nodes of the scenario, by index; `plots` is the scenario's field, if it is there already."""
    where = Field(scenario.nodes, 1, scenario.seed, spin_up_days=0, test_days=1) if plots is None else plots
    keys = Prng(scenario.seed).child("keys")
    stretch = scenario.radius_m / FIELD_RADIUS_M
    seed_hex = f"{scenario.seed & 0xFFFFFF:06x}"
    made = []
    for index in range(scenario.nodes):
        mine = keys.child(f"node-{index}").numpy()
        context = int(where.context[index])
        made.append(
            Identity(
                node_index=index,
                dev_eui=f"02{seed_hex}{index:08x}",
                name=f"node-{index:04d}",
                context=context,
                plot=f"{CONTEXTS[context]}-{int(where.plots.patch[index]):03d}",
                x_m=float(where.x_m[index]) * stretch,
                y_m=float(where.y_m[index]) * stretch,
                activation=scenario.activation,
                dev_addr=_DEV_ADDR_FIRST + index,
                join_eui=f"02{seed_hex}ffffffff",
                nwk_s_key=mine.bytes(16),
                app_s_key=mine.bytes(16),
                app_key=mine.bytes(16),
            )
        )
    return made


def group(scenario: Scenario) -> SetMulticast:
    """The multicast session that all nodes were provisioned with."""
    keys = Prng(scenario.seed).child("keys").child("group").numpy()
    return SetMulticast(mc_addr=_MC_ADDR, nwk_s_key=keys.bytes(16), app_s_key=keys.bytes(16))


def signing_seed(scenario: Scenario) -> bytes:
    """The gateway's signing key (32 B, `swarm.security.signatures`); all nodes know its public half."""
    return Prng(scenario.seed).child("keys").child("signer").numpy().bytes(32)


def channel(scenario: Scenario) -> MulticastChannel:
    """Where all nodes listen for their group; a gateway that sends elsewhere is not heard."""
    return scenario.multicast.channel(region(scenario.region))


def provisioning(scenario: Scenario) -> list[dict[str, str | int | float]]:
    """One row per node for `swarm nodes import`."""
    return [identity.to_dict() for identity in identities(scenario)]


def export(scenario: Scenario, path: Path) -> None:
    """Write a provisioning file: CSV by its suffix, else JSON with the group session, its channel and the
    signing key too."""
    rows = provisioning(scenario)
    if path.suffix == ".csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        _write_private(path, text.getvalue())
        return
    session = group(scenario)
    multicast = {
        "mc_addr": f"{session.mc_addr:08x}",
        "nwk_s_key": session.nwk_s_key.hex(),
        "app_s_key": session.app_s_key.hex(),
        **asdict(channel(scenario)),
    }
    document = {"multicast": multicast, "signing_key": signing_seed(scenario).hex(), "nodes": rows}
    _write_private(path, json.dumps(document, indent=1) + "\n")


def _write_private(path: Path, text: str) -> None:
    """Keys are for their owner alone, also where a file of another mode was there before."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.truncate()
        file.write(text)
