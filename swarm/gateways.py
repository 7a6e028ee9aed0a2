"""The gateways of a cell: which can send, which have proved themselves, and what each has sent.

Theory of operation.  A gateway proves itself by being the first to deliver a genuine new frame, which no
recording is and no copy of another gateway's frame.  It counts as genuine until the cell's newest proof is
`PROOF_KEPT_US` younger than its own.  The others are strangers that only call themselves gateways: they are
forgotten first, and not asked to send where there is a genuine one.  What a forgotten gateway has sent in
the past hour stays on its account.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from swarm.effects import Effect, Event, Row, Store
from swarm.mac.ledger import AirtimeLedger
from swarm.mac.scheduler import DownlinkScheduler
from swarm.mac.self_blocking import SelfBlocking
from swarm.phy.regions import Region

__all__ = ["ASIDE_MAX", "GATEWAYS_MAX", "GATEWAY_SILENT_US", "PROOF_KEPT_US", "Gateways"]

GATEWAYS_MAX = 64
ASIDE_MAX = 1024
"""Gateways that lost their place and whose airtime of the past hour is remembered."""
PROOF_KEPT_US = 7 * 86_400_000_000
GATEWAY_SILENT_US = 120_000_000
"""A gateway not heard for so long is not asked to send (its PULL_DATA comes every few seconds)."""


@dataclass(slots=True)
class _Gateway:
    scheduler: DownlinkScheduler
    ledger: AirtimeLedger
    last_seen_us: int = -GATEWAY_SILENT_US
    proved_us: int | None = None
    stored_us: int | None = None


@dataclass(slots=True)
class Gateways:
    """Who is there to send; `rows` is what earlier stores left."""

    region: Region
    lead_us: int
    rows: Mapping[str, Mapping[str, Row]]
    dwell: bool | None = None
    """Whether the law's dwell time holds here; None: where the region knows one."""
    _gateways: dict[str, _Gateway] = field(default_factory=dict)
    _aside: dict[str, _Gateway] = field(default_factory=dict)
    _newest_proof_us: int = 0

    def restore_gateways(self) -> None:
        """Take up the rows."""
        for gateway_id, row in self.rows.get("gateway", {}).items():
            gateway = self._gateway(gateway_id)
            gateway.last_seen_us = gateway.stored_us = int(row["last_seen_us"] or 0)
            gateway.proved_us = int(row.get("proved_us") or gateway.last_seen_us)
            self._newest_proof_us = max(self._newest_proof_us, gateway.proved_us)

    def heard_gateway(
        self, now_us: int, gateway_id: str, *, proof: bool = False, blocks: bool = False
    ) -> list[Effect]:
        """A gateway gave a sign of life (`proof`: it was the first to bring a genuine new frame; `blocks`: it
        keeps a duty cycle of its own and drops what exceeds it)."""
        effects: list[Effect] = []
        if gateway_id not in self._gateways:
            room = self._make_room(now_us)
            if room is None:
                return [Event("dropped", now_us, {"reason": "too_many_gateways", "gateway_id": gateway_id})]
            effects += room
        gateway = self._gateway(gateway_id)
        gateway.last_seen_us = now_us
        if blocks and gateway.ledger.blocking is None:
            gateway.ledger.blocking = SelfBlocking(self.region.name)
        fresh = _recent(now_us, gateway.stored_us)
        if proof:
            fresh = fresh and _recent(now_us, gateway.proved_us)
            gateway.proved_us = self._newest_proof_us = now_us
        if fresh or not self.genuine(gateway_id):
            return effects
        gateway.stored_us = now_us
        row: Row = {"last_seen_us": now_us, "proved_us": gateway.proved_us}
        return [*effects, Store("gateway", gateway_id, row)]

    def genuine(self, gateway_id: str) -> bool:
        """Whether this gateway has proved itself, not too long before the last one that did."""
        gateway = self._gateways.get(gateway_id)
        if gateway is None or gateway.proved_us is None:
            return False
        return gateway.proved_us >= self._newest_proof_us - PROOF_KEPT_US

    def _make_room(self, now_us: int) -> list[Effect] | None:
        """A place for one more gateway, perhaps that of the stranger silent for longest; None: no place."""
        if len(self._gateways) < GATEWAYS_MAX:
            return []
        strangers = [(state.last_seen_us, g) for g, state in self._gateways.items() if not self.genuine(g)]
        for _, gateway_id in sorted(strangers):
            if self._put_aside(now_us, gateway_id):
                stored = self._gateways.pop(gateway_id).stored_us is not None
                return [Store("gateway", gateway_id, None)] if stored else []
        return None

    def _put_aside(self, now_us: int, gateway_id: str) -> bool:
        """Remember what this gateway has sent in the past hour, if anything; False: no room for that."""
        gateway = self._gateways[gateway_id]
        if gateway.ledger.idle(now_us):
            return True
        if len(self._aside) >= ASIDE_MAX:
            self._aside = {g: state for g, state in self._aside.items() if not state.ledger.idle(now_us)}
        if len(self._aside) >= ASIDE_MAX:
            return False
        self._aside[gateway_id] = gateway
        return True

    def alive(self, now_us: int) -> list[str]:
        """The gateways that can send now, in a fixed order; strangers only where no other was ever heard."""
        genuine = {g for g in self._gateways if self.genuine(g)}
        return sorted(
            g
            for g, state in self._gateways.items()
            if now_us - state.last_seen_us <= GATEWAY_SILENT_US and (g in genuine or not genuine)
        )

    def gateways(self) -> dict[str, int]:
        """Gateway id -> when it was last heard (us)."""
        return {gateway_id: state.last_seen_us for gateway_id, state in sorted(self._gateways.items())}

    def ledger(self, gateway_id: str) -> AirtimeLedger:
        return self._sender(gateway_id).ledger

    def _gateway(self, gateway_id: str) -> _Gateway:
        """The gateway's place in the table, with all it has sent: taken up again, or new."""
        gateway = self._gateways.get(gateway_id)
        if gateway is None:
            gateway = self._gateways[gateway_id] = self._sender(gateway_id)
            self._aside.pop(gateway_id, None)
            gateway.proved_us = gateway.stored_us = None
        return gateway

    def _sender(self, gateway_id: str) -> _Gateway:
        """Calendar and ledger of a gateway, whether or not it has a place."""
        gateway = self._gateways.get(gateway_id) or self._aside.get(gateway_id)
        if gateway is None:
            ledger = AirtimeLedger(self.region, dwell=self.dwell)
            scheduler = DownlinkScheduler(self.region, ledger, lead_us=self.lead_us, dwell=self.dwell)
            gateway = _Gateway(scheduler, ledger)
            self._aside[gateway_id] = gateway
        return gateway


def _recent(now_us: int, at_us: int | None) -> bool:
    return at_us is not None and now_us - at_us <= GATEWAY_SILENT_US // 2
