"""Handing experts over: the plan of placement carried out over the air, as far as that goes.

Theory of operation.  Nothing happens by itself: `HandOver` is an operator's command, and `plan` says before
what it would do and cost.  Nodes that should hold the same experts get one container, made of the gateway's
own model (`swarm.model.subset`) and signed, as a large block (`swarm.large_blocks`), each by unicast: an
OFFER would be taken by all that hear it, and they would lose what they hold.  A node whose board finds its
own model with other experts goes on with that (`swn_take_up`) and says so in EXPERTS: then it is asked, and
the hand-over has ended.  Until then a row remembers it; how far it is, the block says.

What cannot go by air goes *by cable*: nodes whose board takes no blocks (they never answered one), of another
generation, behind a server that is not set.  A node that alone holds what it should give up waits
(`swarm.inference.hand_over`), and so does one whose container the gateway's own model cannot make.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from swarm.commands import HandOver, SendBlock
from swarm.config import SwarmConfig
from swarm.effects import Effect, Event, Row, Store, integers
from swarm.expert_asking import ExpertAsking
from swarm.inference.hand_over import Move, moves
from swarm.large_blocks.blocks import QUEUE_MAX, Blocks
from swarm.large_blocks.plan import descriptor, unicast_room
from swarm.model.subset import with_experts
from swarm.node import Model
from swarm.phy.regions import Region
from swarm.registry import Entry, Refused, Registry
from swarm.security.signatures import SIGNATURE_SIZE, Signer
from swarm.wire.expert import Experts
from swarm.wire.fragmentation import DATA_HEADER_SIZE
from swarm.wire.lorawan import DATA_OVERHEAD

__all__ = ["HandOvers", "Step", "Way"]

TABLE = "hand_over"
NODES_MAX = 50
"""Nodes of one block: as many as its end tells of."""
STATUS_SIZE = 5
EXCHANGE_S = 17
"""A piece, the node's status 10 to 20 s behind it, its receive window."""


class Way(StrEnum):
    """How a node comes to its experts."""

    AIR = "air"
    CABLE = "cable"
    WAITS = "waits"
    GOING = "under way"


@dataclass(frozen=True, slots=True)
class Step:
    """One node's part of a plan: what it would hold, what that brings and takes, how, and `why` not by air.

    By air: `size` bytes of the block `name` in `pieces`; about so much time on air of the gateway (in RX1;
    what RX2 has to carry may take longer) and of the node at the expected loss, and how long that takes at
    least, by law and by the pace of the node.
    """

    dev_eui: str
    experts: tuple[int, ...]
    load: tuple[int, ...]
    drop: tuple[int, ...]
    way: Way
    why: str = ""
    name: str = ""
    size: int = 0
    pieces: int = 0
    airtime_us: int = 0
    uplink_us: int = 0
    least_s: int = 0


@dataclass(frozen=True, slots=True)
class _Going:
    """A node that is being brought `experts`; `name` is its block's."""

    experts: tuple[int, ...]
    name: str
    since_us: int

    def to_row(self) -> Row:
        mask = sum(1 << expert for expert in self.experts)
        return {"experts": mask, "descriptor": self.name, "since_us": self.since_us}

    @classmethod
    def from_row(cls, row: Row) -> _Going:
        integers(row, "experts", "since_us")
        mask = int(row["experts"] or 0)
        experts = tuple(expert for expert in range(mask.bit_length()) if mask >> expert & 1)
        return cls(experts, str(row["descriptor"]), int(row["since_us"] or 0))


class HandOvers:
    """`rows` is what earlier stores left; `replica` the model whose experts are handed over."""

    def __init__(
        self,
        config: SwarmConfig,
        registry: Registry,
        region: Region,
        asking: ExpertAsking,
        blocks: Blocks,
        replica: Model,
        signer: Signer,
        rows: Mapping[str, Mapping[str, Row]],
    ) -> None:
        self._network = config.network
        self._registry = registry
        self._region = region
        self._asking = asking
        self._blocks = blocks
        self._replica = replica
        self._signer = signer
        self._going = {dev_eui: _Going.from_row(row) for dev_eui, row in rows.get(TABLE, {}).items()}

    # -- the plan ---------------------------------------------------------------------------------

    def plan(self, now_us: int, what: HandOver) -> list[Step]:
        """What `what` would do, the scarcest experts first; nothing is changed."""
        assigned = self._asking.plan(now_us, room=what.room, replicas=what.replicas)
        coming = {dev_eui: going.experts for dev_eui, going in self._going.items()}
        made = moves(assigned, what.room, None if what.whole else what.replicas, coming)
        if what.nodes is not None:
            made = [move for move in made if move.dev_eui in what.nodes]
        steps = [self._step(move, again=what.nodes is not None) for move in made]
        return self._by_air(steps, what.loss)

    def _step(self, move: Move, *, again: bool) -> Step:
        step = Step(move.dev_eui, move.experts, move.load, move.drop, Way.CABLE)
        going = self._going.get(move.dev_eui)
        state, fate = ("", "") if going is None else self._fate(move.dev_eui, going)
        if state in ("under way", "arrived"):
            said = "it has the block, and did not say yet that it runs it" if state == "arrived" else ""
            return replace(step, way=Way.GOING, why=said)
        if move.blocked_by:
            alone = ", ".join(map(str, move.blocked_by))
            why = f"nobody else holds {alone}, and there is no room for more"
            return replace(step, way=Way.WAITS, why=why)
        if lacking := sorted(set(move.experts) - set(self._replica.held())):
            why = f"the gateway's own model lacks {', '.join(map(str, lacking))}"
            return replace(step, way=Way.WAITS, why=why)
        if why := self._obstacle(move):
            return replace(step, why=why)
        if state == "failed" and not again:
            return replace(step, why=f"over the air it failed: {fate}")
        return replace(step, way=Way.AIR)

    def _obstacle(self, move: Move) -> str:
        """Why the air is no way for this node, if it is none."""
        entry, holder = self._registry.get(move.dev_eui), self._asking.holders.get(move.dev_eui)
        assert entry is not None and holder is not None
        if holder.generation != self._replica.generation:
            return f"it runs generation {holder.generation}, the gateway has {self._replica.generation}"
        if self._signer.key is None:
            return "there is no key to sign blocks with"
        if entry.record.gen_app_key is not None:
            return "a device of another make"
        if not entry.reachable:
            return "it has not joined"
        if entry.behind_server and not self._network:
            return "it is behind a network server, and none is set"
        return ""

    def _by_air(self, steps: Sequence[Step], loss: float) -> list[Step]:
        """The same with blocks and their cost; where the queue is full, a step waits."""
        groups: dict[tuple[int, ...], list[Step]] = {}
        for step in steps:
            if step.way is Way.AIR:
                groups.setdefault(step.experts, []).append(step)
        open_jobs = {each["descriptor"] for each in self._blocks.listing() if each["state"] != "ended"}
        free = QUEUE_MAX - len(open_jobs)
        made: dict[str, Step] = {}
        for experts, members in groups.items():
            name = descriptor(self._block(experts)).hex() if free > 0 else ""
            for number, step in enumerate(members):
                if free <= 0:
                    why = "too many blocks are on their way; repeat this when some have ended"
                    made[step.dev_eui] = replace(step, way=Way.WAITS, why=why)
                elif name in open_jobs or number >= NODES_MAX:
                    why = f"block {name} is on its way to others; repeat this when it has ended"
                    made[step.dev_eui] = replace(step, way=Way.WAITS, why=why)
                else:
                    room = min(self._room(other.dev_eui) for other in members[:NODES_MAX])
                    made[step.dev_eui] = self._priced(replace(step, name=name), room, loss)
            free -= name not in open_jobs
        return [made.get(step.dev_eui, step) for step in steps]

    def _room(self, dev_eui: str) -> int:
        return unicast_room(self._region, self._entry(dev_eui)) - DATA_HEADER_SIZE

    def _entry(self, dev_eui: str) -> Entry:
        entry = self._registry.get(dev_eui)
        assert entry is not None
        return entry

    def _priced(self, step: Step, room: int, loss: float) -> Step:
        """With what the node's pieces of `room` bytes cost."""
        region = self._region
        size = len(with_experts(self._replica.image, step.experts)) + SIGNATURE_SIZE
        pieces = math.ceil(size / room)
        frames = math.ceil(pieces / (1 - loss))
        uplink_rate = self._entry(step.dev_eui).status.data_rate or 0
        rates = region.rx1_data_rates
        rate = rates[uplink_rate][0] if uplink_rate < len(rates) else region.rx2_data_rate
        piece = DATA_OVERHEAD + DATA_HEADER_SIZE + math.ceil(size / pieces)
        down_us = frames * region.airtime_us(rate, piece, uplink=False)
        up_us = frames * region.airtime_us(uplink_rate, DATA_OVERHEAD + STATUS_SIZE, uplink=True)
        channels = [channel.frequency_hz for channel in region.channels]
        up_s = up_us / 1e6 / _share(region, channels)
        down_s = down_us / 1e6 / _share(region, [*channels, region.rx2_frequency_hz])
        return replace(
            step,
            size=size,
            pieces=pieces,
            airtime_us=down_us,
            uplink_us=up_us,
            least_s=math.ceil(max(up_s, down_s, frames * EXCHANGE_S)),
        )

    def _block(self, experts: Sequence[int]) -> bytes:
        return self._blocks.signed(self.container(experts))

    def container(self, experts: Sequence[int]) -> bytes:
        """The gateway's model with these experts alone; ValueError when it lacks one of them."""
        return with_experts(self._replica.image, experts)

    # -- doing it ---------------------------------------------------------------------------------

    def begin(self, now_us: int, what: HandOver) -> list[Effect] | Refused:
        """Send what can go by air now."""
        for dev_eui in what.nodes or ():
            if self._asking.holders.get(dev_eui) is None:
                return Refused(f"the node {dev_eui} never said which experts it holds")
        steps = [step for step in self.plan(now_us, what) if step.way is Way.AIR]
        if not steps:
            return Refused(
                "nothing is to be brought over the air; `swarm experts hand-over --dry-run` says why"
            )
        effects: list[Effect] = []
        for name in dict.fromkeys(step.name for step in steps):
            members = [step for step in steps if step.name == name]
            nodes = tuple(step.dev_eui for step in members)
            block = self._block(members[0].experts)
            sent = self._blocks.send(now_us, SendBlock(block, nodes, what.loss, alone=True))
            if isinstance(sent, Refused):
                if effects:
                    break  # the rest when it is asked for again
                return sent
            effects += [*sent, *(effect for step in members for effect in self._begun(now_us, step))]
        return effects

    def _begun(self, now_us: int, step: Step) -> list[Effect]:
        going = _Going(step.experts, step.name, now_us)
        self._going[step.dev_eui] = going
        lists = {"experts": list(step.experts), "load": list(step.load), "drop": list(step.drop)}
        data = {"dev_eui": step.dev_eui, "descriptor": step.name, **lists}
        return [Store(TABLE, step.dev_eui, going.to_row()), Event("hand_over_begun", now_us, data)]

    def on_experts(self, now_us: int, dev_eui: str, message: Experts) -> list[Effect]:
        """A node said what it holds: perhaps what it was brought."""
        going = self._going.get(dev_eui)
        if going is None or message.generation != self._replica.generation:
            return []
        if message.held != sum(1 << expert for expert in going.experts):
            return []
        took_s = (now_us - going.since_us) // 1_000_000
        data = {
            "dev_eui": dev_eui,
            "experts": list(going.experts),
            "descriptor": going.name,
            "took_s": took_s,
        }
        return [*self.forget(dev_eui), Event("hand_over_ended", now_us, data)]

    def forget(self, dev_eui: str) -> list[Store]:
        """Nothing is handed over to this node any more."""
        return [] if self._going.pop(dev_eui, None) is None else [Store(TABLE, dev_eui, None)]

    # -- what others want to know -----------------------------------------------------------------

    def listing(self) -> list[dict[str, Any]]:
        """Hand-overs that have not ended; `state`: `under way`, `arrived` (the node has the block and did not
        say that it runs it), or `failed`, with `why`."""
        told = []
        for dev_eui, going in self._going.items():
            state, why = self._fate(dev_eui, going)
            told.append(
                {
                    "dev_eui": dev_eui,
                    "experts": list(going.experts),
                    "descriptor": going.name,
                    "since_us": going.since_us,
                    "state": state,
                    "why": why,
                }
            )
        return told

    def _fate(self, dev_eui: str, going: _Going) -> tuple[str, str]:
        """How far it is, as its block says."""
        block = self._blocks.show(going.name)
        if block is None:
            return "failed", "its block is forgotten"
        left: Mapping[str, str] = block.get("left", {})
        if block["state"] != "ended":
            node = block["each"].get(dev_eui, {"state": "left", "reason": "removed"})
            if node["state"] in ("refused", "forged", "left"):
                left = {dev_eui: node["reason"]}
            elif node["state"] != "whole":
                return "under way", ""
        if dev_eui in left:
            return "failed", left[dev_eui]
        holder, ended_us = self._asking.holders.get(dev_eui), block.get("ended_us")
        if holder is not None and ended_us is not None and holder.reported_us > ended_us:
            return "failed", "it has the block, and still runs other experts"
        return "arrived", ""


def _share(region: Region, frequencies_hz: Iterable[int]) -> float:
    """The part of the time that one transmitter may be on air on all of these together."""
    bands = {band.name: band.duty_cycle for band in map(region.sub_band, frequencies_hz)}
    return min(1.0, sum(bands.values()))
