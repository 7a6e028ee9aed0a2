"""A large block on its way to all nodes of a cell: the container, its airtime, and what must always hold.

Nothing here asks the core: which of the gateway's frames belong to the delivery is read off the frames
themselves, as a node would read them, and what nodes have off their flash.

* nothing is installed that was not signed: every verified block is the one the operator gave;
* the gateway does not think more nodes have it than do, and its books say the airtime that was seen;
* every byte of flash was written once.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from simulations.checkers import Violations
from simulations.scenario import LargeBlock
from swarm.commands import SetMulticast
from swarm.model.container import random_model
from swarm.node import Model
from swarm.phy.regions import Region
from swarm.receiver import BlockState, Receivers
from swarm.security.lorawan import AesKey, cipher_payload
from swarm.security.signatures import SIGNATURE_SIZE
from swarm.wire import offer
from swarm.wire.app import F_PORT_LEARNING
from swarm.wire.fragmentation import DATA_HEADER_SIZE
from swarm.wire.lorawan import DATA_OVERHEAD
from swarm.wire.offer import OFFER_SIZE, OFFER_TYPE, Offer
from swarm.wire.packages import F_PORTS, Package

__all__ = ["DeliveryWatch", "container_of"]

_F_PORT = F_PORTS[Package.FRAGMENTATION]
_STATUS_REQUEST = 1


def container_of(seed: int, plan: LargeBlock, running: bytes) -> bytes:
    """A container of the shipped model's shape, a generation after `running`, with some experts elsewhere."""
    generation = Model(running).generation + 1
    return random_model(seed, generation=generation, remote=tuple(range(plan.experts_away)))


class DeliveryWatch:
    """One delivery of `body`, followed from outside."""

    def __init__(self, body: bytes, group: SetMulticast, violations: Violations) -> None:
        self.body = body
        self._mc_addr = group.mc_addr
        self._app_key = AesKey(group.app_s_key)
        self._violations = violations
        self.airtime_us: Counter[str] = Counter()
        self.frames: Counter[str] = Counter()
        self.first_us: int | None = None
        self.last_us = 0
        self._nb_frag = 0
        self._frag_size = 0

    def on_transmission(self, start_us: int, end_us: int, phy: bytes) -> None:
        """The gateway sends a frame, whatever it is."""
        kind = self._kind(phy)
        if kind is None:
            return
        self.airtime_us[kind] += end_us - start_us
        self.frames[kind] += 1
        self.first_us = start_us if self.first_us is None else self.first_us
        self.last_us = end_us

    def _kind(self, phy: bytes) -> str | None:
        """`offer`, `piece`, `parity`, `poll` or `repair`; None: not of the delivery."""
        if phy[0] >> 5 not in (3, 5) or len(phy) < DATA_OVERHEAD + 1:
            return None
        at = 8 + (phy[5] & 15)
        f_port, sealed = phy[at], phy[at + 1 : -4]
        address = int.from_bytes(phy[1:5], "little")
        if address != self._mc_addr:
            return "repair" if f_port == _F_PORT else None
        if f_port not in (_F_PORT, F_PORT_LEARNING):
            return None
        f_cnt = int.from_bytes(phy[6:8], "little")
        payload = cipher_payload(self._app_key, sealed, uplink=False, dev_addr=address, f_cnt=f_cnt)
        if f_port == F_PORT_LEARNING:
            offered = offer.decode(payload) if payload[0] == OFFER_TYPE else None
            if not isinstance(offered, Offer):
                return None
            self._nb_frag, self._frag_size = offered.nb_frag, offered.frag_size
            return "offer"
        if payload[0] == _STATUS_REQUEST:
            return "poll"
        n = int.from_bytes(payload[1:3], "little") & 0x3FFF
        return "piece" if n <= self._nb_frag else "parity"

    def minimum_us(self, region: Region, data_rate: int) -> int:
        """What it would cost if nothing were lost: one offer and every piece once."""
        offer_us = region.airtime_us(data_rate, DATA_OVERHEAD + OFFER_SIZE, uplink=False)
        size = DATA_OVERHEAD + DATA_HEADER_SIZE + self._frag_size
        return offer_us + self._nb_frag * region.airtime_us(data_rate, size, uplink=False)

    def check(self, now_us: int, receivers: Receivers) -> int:
        """Looks at every flash; how many nodes have the block."""
        verified = np.flatnonzero(receivers.states() == BlockState.VERIFIED).tolist()
        for node in verified:
            if receivers.block(node) != self.body:
                self._violations.add(now_us, f"node {node} would install what nobody signed")
        for node in np.flatnonzero(receivers.rewritten()).tolist():
            self._violations.add(now_us, f"node {node} wrote a byte of its flash twice")
        return len(verified)

    def check_books(self, now_us: int, complete: int, verified: int, airtime_us: int) -> None:
        """What the gateway says against what was seen."""
        if complete > verified:
            self._violations.add(now_us, f"the gateway thinks {complete} nodes have the block, {verified} do")
        if airtime_us != sum(self.airtime_us.values()):
            spent_us = sum(self.airtime_us.values())
            self._violations.add(now_us, f"the block's frames took {spent_us} us, its books say {airtime_us}")

    def summary(self, region: Region, data_rate: int, *, complete: int, verified: int) -> dict[str, Any]:
        """The report's `multicast`."""
        spent_us, minimum_us = sum(self.airtime_us.values()), self.minimum_us(region, data_rate)
        return {
            "complete": complete,
            "verified": verified,
            "airtime_ratio": round(spent_us / minimum_us, 4) if self._nb_frag else None,
            "airtime_s": spent_us / 1e6,
            "minimum_s": minimum_us / 1e6,
            "block_bytes": len(self.body) + SIGNATURE_SIZE,
            "frames": dict(sorted(self.frames.items())),
            "duration_s": 0.0 if self.first_us is None else (self.last_us - self.first_us) / 1e6,
        }
