"""From a block and its nodes to a delivery: sizes of pieces, delays of answers, keys, and what cannot be."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

from swarm.commands import BLOCK_MAX, SendBlock
from swarm.large_blocks.job import PIECES_MAX, SESSION_MAX_S, Job, session_s
from swarm.mac.session import MulticastGroup
from swarm.phy.regions import Region
from swarm.registry import Entry, Refused, Registry
from swarm.security.lorawan import AesKey, data_block_key, data_block_mic
from swarm.transport.delivery import NODES_MAX, SESSION_CNTS, Delivery, Plan
from swarm.transport.group_setup import GroupSetup
from swarm.wire import fragmentation as ts004
from swarm.wire.lorawan import DATA_OVERHEAD

__all__ = ["BlockPlanner"]

ACK_DELAY_MAX = 6
ANSWER_LOAD = 0.3
"""Of three channels a tenth: what nodes answer to a poll may take."""
ANSWER_SIZE = DATA_OVERHEAD + 5
TOO_LONG = 1.5
"""So much longer than nodes listen in a day a delivery may be by estimate: many end early."""


class BlockPlanner:
    """Makes jobs for the nodes of one cell."""

    def __init__(self, registry: Registry, region: Region) -> None:
        self._registry = registry
        self._region = region

    def job(self, now_us: int, command: SendBlock, group: MulticastGroup, session_cnt: int) -> Job | Refused:
        """The job that `command` asks for, or why there can be none; `session_cnt` is the next one unused."""
        if not 1 <= len(command.block) <= BLOCK_MAX:
            return Refused(f"a block has 1 to {BLOCK_MAX} bytes, this one {len(command.block)}")
        if command.version not in ts004.VERSIONS:
            return Refused(f"there is no version {command.version} of TS004; 1 and 2 are")
        chosen = self._chosen(command, group)
        if isinstance(chosen, Refused):
            return chosen
        keys = {entry.record.dev_eui: entry.record.gen_app_key for entry in chosen}
        setups = {dev_eui: GroupSetup(key) for dev_eui, key in keys.items() if key is not None}
        room = self._region.payload_max(group.data_rate, uplink=False) - ts004.DATA_HEADER_SIZE
        if room < 1:
            return Refused(f"multicast data rate {group.data_rate} carries no fragment; choose another")
        pieces = math.ceil(len(command.block) / room)
        own = [dev_eui for dev_eui in keys if dev_eui not in setups]
        try:
            plan = Plan(
                command.block,
                math.ceil(len(command.block) / pieces),
                version=command.version,
                # Nodes must not take an old session's status for this one's; others often have index 0 only.
                index=0 if setups else 1 + session_cnt // SESSION_CNTS % 3,
                descriptor=descriptor(command.block),
                session_cnt=session_cnt,
                block_ack_delay=self._ack_delay(chosen),
                loss=command.loss,
                stragglers=0,
            )
            delivery = Delivery(plan, keys, self.mic_of(plan), offered=own)
        except ValueError as error:
            return Refused(str(error))
        if own and delivery.nb_frag > PIECES_MAX:
            what = "a smaller block, or a faster [multicast] data_rate"
            return Refused(f"{delivery.nb_frag} pieces are too many for a node, {PIECES_MAX} at most: {what}")
        seconds = session_s(self._region, group, plan, delivery.frames_planned, 1)
        if seconds > TOO_LONG * SESSION_MAX_S:
            return Refused(
                f"at multicast data rate {group.data_rate} it takes about {seconds / 3600:.0f} h, and nodes"
                f" listen for {SESSION_MAX_S // 3600} h a day; choose a faster rate"
            )
        return Job(plan.descriptor.hex(), delivery, now_us, setups)

    def _chosen(self, command: SendBlock, group: MulticastGroup) -> Sequence[Entry] | Refused:
        if command.nodes is None:
            entries = [entry for entry in self._registry if entry.session is not None]
        else:
            entries = []
            for dev_eui in dict.fromkeys(command.nodes):
                entry = self._registry.get(dev_eui)
                if entry is None or not entry.reachable:
                    why = "no node has" if entry is None else "the node has not joined that has"
                    return Refused(f"{why} the DevEUI {dev_eui}")
                entries.append(entry)
        if not 1 <= len(entries) <= NODES_MAX:
            return Refused(f"a block goes to 1 to {NODES_MAX} nodes that have joined, not {len(entries)}")
        if group.mc_key is None and any(entry.record.gen_app_key is not None for entry in entries):
            return Refused(
                "the cell's group was provisioned without a McKey: no device of another make can be let in;"
                " provision anew, or name the other nodes with --node"
            )
        return entries

    def _ack_delay(self, chosen: Sequence[Entry]) -> int:
        """BlockAckDelay: all may answer a poll, at their rates, without jamming one another."""
        on_air_us = sum(
            self._region.airtime_us(entry.status.data_rate or 0, ANSWER_SIZE, uplink=True) for entry in chosen
        )
        span_s = on_air_us / 1e6 / ANSWER_LOAD
        return next((d for d in range(ACK_DELAY_MAX) if ts004.ack_delay_s(d) >= span_s), ACK_DELAY_MAX)

    def mic_of(self, plan: Plan) -> Callable[[str, int], bytes]:
        """A node's MIC of the block; nodes of ours have no key for it, they check the signature."""

        def mic(dev_eui: str, session_cnt: int) -> bytes:
            key = self.key_of(dev_eui)
            if key is None:
                return bytes(4)
            named = {"session_cnt": session_cnt, "index": plan.index}
            return data_block_mic(
                data_block_key(AesKey(key)), plan.block, descriptor=plan.descriptor, **named
            )

        return mic

    def key_of(self, dev_eui: str) -> bytes | None:
        """GenAppKey of a device of another make."""
        entry = self._registry.get(dev_eui)
        return None if entry is None else entry.record.gen_app_key


def descriptor(block: bytes) -> bytes:
    """What names a block on air."""
    return hashlib.sha512(block).digest()[:4]
