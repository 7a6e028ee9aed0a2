"""One large block on its way: its delivery, when the group listens, who is let in how, and its rows.

Nodes of our own are *offered* the session (OFFER, docs/SPEC.md 5a), devices of another make are set up one by
one: the group (TS005), the session (TS004), then when the group sends.  A job decides and keeps; what its
caller sent, it is told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from swarm.effects import Effect, Malformed, Purpose, Row, Store, integers
from swarm.mac.session import MulticastGroup
from swarm.phy.airtime import HOUR_US
from swarm.phy.regions import Region
from swarm.queued import Programme
from swarm.transport.delivery import Delivery, Phase, Plan, State
from swarm.transport.group_setup import LEAD_S, NO_SETUP, GroupSetup, Step
from swarm.wire import app, offer
from swarm.wire import fragmentation as ts004
from swarm.wire import multicast_setup as ts005
from swarm.wire.lorawan import DATA_OVERHEAD
from swarm.wire.packages import F_PORTS, Package

__all__ = ["FRAGMENT_PORT", "PIECES_MAX", "SECOND_US", "SESSION_MAX_S", "SHARE", "Job", "session_s"]

SECOND_US = 1_000_000
SHARE = 0.8
"""Of a gateway's airtime in any hour that a block may take: the rest is for windows and answers."""
SESSION_MAX_S = 8 * 3600
"""Nodes listen no longer to blocks in a day."""
PIECES_MAX = 1024
"""What a node of ours can put together."""
SLACK = 1.25
POLLS = 6
GROUP = 0
LEAD_US = LEAD_S * SECOND_US
CLOCKS_US = 2 * SECOND_US
"""What the clocks of others may differ by."""
LATE_MAX = 4
"""So many times what a network server may be late the start is put off for its devices."""
DELAYS_MAX = 8
"""So often for one device: who hears the request and never says so would keep the others waiting for ever."""
FRAGMENT_PORT = F_PORTS[Package.FRAGMENTATION]
CLOCK_PORT = F_PORTS[Package.CLOCK_SYNC]
GROUP_PORT = F_PORTS[Package.MULTICAST_SETUP]


def piece_us(region: Region, data_rate: int, plan: Plan) -> int:
    """Airtime of one fragment."""
    size = DATA_OVERHEAD + ts004.DATA_HEADER_SIZE + plan.frag_size
    return region.airtime_us(data_rate, size, uplink=False)


def session_s(region: Region, group: MulticastGroup, plan: Plan, frames: int, gateways: int) -> int:
    """How long `frames` fragments and the polls behind them take at most, by the law and by experience."""
    bandwidth_hz = region.data_rate(group.data_rate, uplink=False).bandwidth_hz
    share = SHARE * region.sub_band(group.frequency_hz, bandwidth_hz).duty_cycle
    on_air_us = frames * piece_us(region, group.data_rate, plan)
    # In one hour a gateway may send its share at once; what is more waits for the hours to come.
    paced_us = on_air_us * gateways if on_air_us <= share * HOUR_US else on_air_us / share
    polls_s = POLLS * (ts004.ack_delay_s(plan.block_ack_delay) + 10)
    return math.ceil(SLACK * (paced_us / SECOND_US + frames) + polls_s)


@dataclass(slots=True)
class Job:
    """A delivery under its `name` (the descriptor in hexadecimal).

    `start_us` and `until_us` are when the group listens (None: not decided yet), `ends_us` when nobody is
    helped any more.  `setups` are the devices of another make.
    """

    name: str
    delivery: Delivery
    created_us: int
    setups: dict[str, GroupSetup] = field(default_factory=dict)
    start_us: int | None = None
    until_us: int | None = None
    ends_us: int | None = None
    since_us: int | None = None
    """When it became the present one."""
    frames: int = 0
    airtime_us: int = 0
    offered_polls: int = 0
    """Polls before which the OFFER was sent again."""

    @property
    def plan(self) -> Plan:
        return self.delivery.plan

    @property
    def own(self) -> list[str]:
        """Nodes that an OFFER reaches, and that lack the block."""
        others = {*self.setups, *self.delivery.alone}
        nodes = self.delivery.nodes
        return [dev_eui for dev_eui in nodes if dev_eui not in others and self.delivery.is_open(dev_eui)]

    @property
    def grouped(self) -> bool:
        """Whether anybody hears the group; the others are behind a network server."""
        return len(self.delivery.alone) < self.delivery.size

    @property
    def stage(self) -> str:
        """In one word, how far it is."""
        if self.start_us is None:
            return "prepares"
        if not self.grouped:
            return "sends"
        phase = self.delivery.phase
        return "offered" if phase is Phase.SETUP else "repairs" if phase is Phase.REPAIR else "sends"

    def prepared(self) -> bool:
        """Whether nobody is to be set up any more before it can begin."""
        return all(
            self._set_up(dev_eui) or setup.step is Step.UNICAST or not self.delivery.is_open(dev_eui)
            for dev_eui, setup in self.setups.items()
        )

    def _set_up(self, dev_eui: str) -> bool:
        state, _ = self.delivery.state(dev_eui)
        return self.setups[dev_eui].step > Step.GROUP and state not in (State.VERSION, State.SETUP)

    def all_told(self) -> bool:
        """Whether all devices of another make have said that they will listen, or cannot."""
        return all(
            setup.step >= Step.READY or not self.delivery.is_open(dev_eui)
            for dev_eui, setup in self.setups.items()
        )

    # -- when -------------------------------------------------------------------------------------

    def start(self, at_us: int, length_s: int) -> None:
        """The group listens from `at_us` on."""
        self.start_us = at_us
        self.until_us = at_us + min(length_s, SESSION_MAX_S) * SECOND_US

    def postpone(self, at_us: int) -> None:
        """The group begins at `at_us` instead; who was told the time before listens already, or is told again
        when that will not do."""
        assert self.start_us is not None and self.until_us is not None
        self.start_us, self.until_us = at_us, self.until_us + at_us - self.start_us
        for setup in self.setups.values():
            setup.postpone(self.until_us)

    def prolong(self, now_us: int, length_s: int) -> None:
        """The group has to listen for so long from now; within what nodes allow."""
        assert self.start_us is not None and self.until_us is not None
        latest_us = self.start_us + SESSION_MAX_S * SECOND_US
        self.until_us = min(max(self.until_us, now_us + length_s * SECOND_US), latest_us)

    def minimum_us(self, region: Region, data_rate: int) -> int:
        """Time on air of the block's pieces alone, through one gateway."""
        return self.delivery.nb_frag * piece_us(region, data_rate, self.plan)

    # -- what to send -----------------------------------------------------------------------------

    def offer(self, end_us: int) -> bytes:
        """OFFER in a frame that ends at `end_us`; the start has been decided."""
        assert self.start_us is not None and self.until_us is not None
        begins_us = max(self.start_us, end_us)
        plan = self.plan
        return app.encode(
            app.Offer(
                index=plan.index,
                block_ack_delay=plan.block_ack_delay,
                version=plan.version,
                nb_frag=self.delivery.nb_frag,
                frag_size=plan.frag_size,
                padding=self.delivery.padding,
                descriptor=plan.descriptor,
                start_in_s=min((begins_us - end_us) // SECOND_US, offer.SPAN_MAX_S),
                length_s=min(max(1, (self.until_us - begins_us) // SECOND_US), offer.SPAN_MAX_S),
            )
        )

    def offer_frame(self, airtime_us: int, fate: Callable[[Programme, int, bool], list[Effect]]) -> Programme:
        """OFFER for the group; `airtime_us` is that of one."""
        frame = Programme(
            app.F_PORT_LEARNING, lambda at_us: self.offer(at_us + airtime_us), offer.OFFER_SIZE, Purpose.MODEL
        )
        frame.fate = lambda now_us, taken: fate(frame, now_us, taken)
        return frame

    def offers_first(self) -> bool:
        """Whether an OFFER goes before what the delivery has to say: each poll is told with the session."""
        polls = self.delivery.sent[1]
        return bool(self.own) and self.delivery.phase is Phase.POLL and self.offered_polls <= polls

    def unicast(
        self, dev_eui: str, at_us: int, group: MulticastGroup | None, late_us: int = 0
    ) -> tuple[int, bytes] | None:
        """FPort and payload for one node, in a frame that starts about `at_us`, or up to `late_us` later.

        None: there is nothing to say.
        """
        setup = self.setups.get(dev_eui)
        if setup is not None and group is not None and self.delivery.is_open(dev_eui):
            if setup.step is Step.GROUP:
                return GROUP_PORT, setup.group_request(group, GROUP)
            if setup.is_wrong and self.delivery.phase is not Phase.REPAIR:
                return CLOCK_PORT, setup.resync_request()
            begins = setup.step is Step.SESSION and self._set_up(dev_eui) and self.start_us is not None
            if begins and self.delivery.phase is not Phase.REPAIR:
                assert self.start_us is not None and self.until_us is not None
                soonest_us = at_us + LEAD_US + CLOCKS_US
                if at_us < (self.since_us or 0) + LATE_MAX * late_us:
                    soonest_us += late_us
                waits = not self.own and self.delivery.phase is Phase.SETUP and setup.delays < DELAYS_MAX
                if waits and soonest_us > self.start_us:
                    # Or it would miss the first pieces; and the others have to be told in time as well.
                    setup.delays += 1
                    self.postpone(soonest_us + late_us)
                times = (at_us, self.start_us - CLOCKS_US, self.until_us)
                return GROUP_PORT, setup.session_request(group, GROUP, *times)
        payload = self.delivery.unicast(dev_eui)
        return None if payload is None else (FRAGMENT_PORT, payload)

    def has_more(self, dev_eui: str) -> bool:
        """Whether a node that is answered now should soon ask for more."""
        setup = self.setups.get(dev_eui)
        if not self.delivery.is_open(dev_eui):
            return False
        return self.delivery.phase is Phase.REPAIR or (setup is not None and setup.step < Step.READY)

    # -- what came --------------------------------------------------------------------------------

    def hear(self, now_us: int, dev_eui: str, f_port: int, payload: bytes) -> Malformed | None:
        """A payload on FPort 200 or 201 of a node."""
        if f_port == FRAGMENT_PORT:
            return self.delivery.on_uplink(dev_eui, payload)
        commands = ts005.decode_uplink(payload, 2)
        if isinstance(commands, Malformed):
            return commands
        setup = self.setups.get(dev_eui)
        for command in commands if setup is not None else ():
            assert setup is not None
            setup.hear(now_us, command, GROUP)
        return None

    # -- rows -------------------------------------------------------------------------------------

    def stores(self) -> list[Store]:
        """Everything, for a new job."""
        nodes = [self.node_store(dev_eui) for dev_eui in self.delivery.nodes]
        return [Store("block", self.name, self.plan.to_row()), self.store(), *nodes]

    def store(self, result: str | None = None) -> Store:
        """What changes with every frame."""
        row: Row = {
            "state": "open" if result is None else "ended",
            "created_us": self.created_us,
            "since_us": self.since_us,
            "start_us": self.start_us,
            "until_us": self.until_us,
            "ends_us": self.ends_us,
            "frames": self.frames,
            "airtime_us": self.airtime_us,
            "result": result,
            **self.delivery.to_row(),
        }
        return Store("delivery", self.name, row)

    def node_store(self, dev_eui: str) -> Store:
        setup = self.setups.get(dev_eui)
        row = {**self.delivery.node_row(dev_eui), **(NO_SETUP if setup is None else setup.to_row())}
        return Store("delivery_node", f"{self.name}/{dev_eui}", row)

    def forget(self) -> list[Store]:
        """The rows that nobody needs when it has ended."""
        nodes = [Store("delivery_node", f"{self.name}/{dev_eui}", None) for dev_eui in self.delivery.nodes]
        return [Store("block", self.name, None), *nodes]

    @classmethod
    def from_rows(
        cls,
        name: str,
        block: Row,
        row: Row,
        node_rows: Mapping[str, Row],
        mic_of: Callable[[Plan], Callable[[str, int], bytes]],
        key_of: Callable[[str], bytes | None],
    ) -> Job:
        """The job that these rows are of; ValueError when they are not such rows."""
        plan = Plan.from_row({key: value for key, value in block.items() if key != "name"})
        integers(row, "created_us", "frames", "airtime_us")
        states: dict[str, Row] = {}
        setups: dict[str, GroupSetup] = {}
        for dev_eui, kept in node_rows.items():
            values = {key: value for key, value in kept.items() if key != "key" and key not in NO_SETUP}
            states[dev_eui] = values
            gen_app_key = key_of(dev_eui)
            if kept["setup"] and gen_app_key is not None:
                setups[dev_eui] = GroupSetup.from_row(gen_app_key, kept)
        times: dict[str, Any] = {key: row[key] for key in ("since_us", "start_us", "until_us", "ends_us")}
        counts: dict[str, Any] = {key: row[key] for key in ("created_us", "frames", "airtime_us")}
        delivery = Delivery.from_rows(plan, mic_of(plan), row, states)
        return cls(name, delivery, setups=setups, **counts, **times)
