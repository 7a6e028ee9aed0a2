"""From a block and its nodes to a delivery: sizes of pieces, delays of answers, keys, and what cannot be."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

from swarm.commands import BLOCK_MAX, SendBlock
from swarm.config import SwarmConfig
from swarm.large_blocks.job import PIECES_MAX, SESSION_MAX_S, Job, session_s
from swarm.mac.session import MulticastGroup
from swarm.phy.regions import Region
from swarm.registry import Entry, Refused, Registry
from swarm.security.lorawan import AesKey, data_block_key, data_block_mic
from swarm.transport.delivery import NODES_MAX, SESSION_CNTS, Delivery, Plan
from swarm.transport.group_setup import GroupSetup
from swarm.wire import fragmentation as ts004
from swarm.wire.lorawan import DATA_OVERHEAD

__all__ = ["BlockPlanner", "descriptor", "unicast_room"]

ACK_DELAY_MAX = 6
ANSWER_LOAD = 0.3
"""Of three channels a tenth: what nodes answer to a poll may take."""
ANSWER_SIZE = DATA_OVERHEAD + 5
REPAIR_MAX = 64
"""Fragments that one node may be helped with when the group has done what it can."""
OWN_VERSION = 2
"""Of TS004, that nodes of ours speak when they are set up one by one."""
TOO_LONG = 1.5
"""So much longer than nodes listen in a day a delivery may be by estimate: many end early."""


class BlockPlanner:
    """Makes jobs for the nodes of one cell."""

    def __init__(self, config: SwarmConfig, registry: Registry, region: Region) -> None:
        self._registry = registry
        self._network = config.network
        self._lets_in = config.network_multicast
        self._region = region

    def job(
        self, now_us: int, command: SendBlock, group: MulticastGroup | None, session_cnt: int
    ) -> Job | Refused:
        """The job that `command` asks for, or why there can be none; `session_cnt` is the next one unused."""
        if not 1 <= len(command.block) <= BLOCK_MAX:
            return Refused(f"a block has 1 to {BLOCK_MAX} bytes, this one {len(command.block)}")
        if command.version not in ts004.VERSIONS:
            return Refused(f"there is no version {command.version} of TS004; 1 and 2 are")
        chosen = self._chosen(command, group)
        if isinstance(chosen, Refused):
            return chosen
        grouped = [] if command.alone else [entry for entry in chosen if self._hears(entry, group)]
        room = self._piece_max(chosen, grouped, group)
        if isinstance(room, Refused):
            return room
        keys = {entry.record.dev_eui: entry.record.gen_app_key for entry in chosen}
        setups = {
            entry.record.dev_eui: GroupSetup(key)
            for entry in grouped
            if (key := entry.record.gen_app_key) is not None
        }
        own = [dev_eui for dev_eui, key in keys.items() if key is None]
        heard = {entry.record.dev_eui for entry in grouped}
        alone = [dev_eui for dev_eui in keys if dev_eui not in heard]
        pieces = math.ceil(len(command.block) / room)
        # A network server may say it too late that the group sends: then all of it is repaired.
        repair_max = 2 * pieces if any(entry.behind_server for entry in grouped) else 0
        try:
            plan = Plan(
                command.block,
                math.ceil(len(command.block) / pieces),
                version=command.version,
                # Nodes must not take an old session's status for this one's; others often have index 0 only.
                index=0 if len(own) < len(keys) else 1 + session_cnt // SESSION_CNTS % 3,
                descriptor=descriptor(command.block),
                session_cnt=session_cnt,
                block_ack_delay=self._ack_delay(grouped),
                loss=command.loss,
                repair_max=max(REPAIR_MAX, repair_max),
                stragglers=0,
            )
            delivery = Delivery(
                plan,
                keys,
                self.mic_of(plan),
                # Set up by unicast, nodes of ours speak version 2; an OFFER says which it is.
                speakers=set(own) & set(alone) if command.version == OWN_VERSION else (),
                offered=set(own) - set(alone),
                alone=alone,
            )
        except ValueError as error:
            return Refused(str(error))
        if own and delivery.nb_frag > PIECES_MAX:
            what = "a smaller block, or a faster [multicast] data_rate"
            return Refused(f"{delivery.nb_frag} pieces are too many for a node, {PIECES_MAX} at most: {what}")
        too_slow = self._too_slow(plan, delivery, group) if grouped and group is not None else None
        return too_slow or Job(plan.descriptor.hex(), delivery, now_us, setups)

    def _hears(self, entry: Entry, group: MulticastGroup | None) -> bool:
        """Whether the group is for this node: where a network server has it, only when it can be let in."""
        if not entry.behind_server:
            return True
        can_seal = group is not None and group.mc_key is not None and entry.record.gen_app_key is not None
        return self._lets_in and can_seal

    def _piece_max(
        self, chosen: Sequence[Entry], grouped: Sequence[Entry], group: MulticastGroup | None
    ) -> int | Refused:
        """The longest piece (bytes) that reaches all of them."""
        region = self._region
        rooms = [
            unicast_room(region, entry) for entry in chosen if entry.behind_server or entry not in grouped
        ]
        if grouped:
            assert group is not None
            rooms.append(region.payload_max(group.data_rate, uplink=False))
        room = min(rooms) - ts004.DATA_HEADER_SIZE
        if room < 1:
            assert group is not None
            return Refused(f"multicast data rate {group.data_rate} carries no fragment; choose another")
        return room

    def _too_slow(self, plan: Plan, delivery: Delivery, group: MulticastGroup) -> Refused | None:
        seconds = session_s(self._region, group, plan, delivery.frames_planned, 1)
        if seconds <= TOO_LONG * SESSION_MAX_S:
            return None
        return Refused(
            f"at multicast data rate {group.data_rate} it takes about {seconds / 3600:.0f} h, and nodes"
            f" listen for {SESSION_MAX_S // 3600} h a day; choose a faster rate"
        )

    def _chosen(self, command: SendBlock, group: MulticastGroup | None) -> Sequence[Entry] | Refused:
        if command.nodes is None:
            entries = [
                entry
                for entry in self._registry
                if entry.reachable and (self._network or not entry.behind_server)
            ]
        else:
            entries = []
            for dev_eui in dict.fromkeys(command.nodes):
                entry = self._registry.get(dev_eui)
                if entry is None or not entry.reachable:
                    why = "no node has" if entry is None else "the node has not joined that has"
                    return Refused(f"{why} the DevEUI {dev_eui}")
                if entry.behind_server and not self._network:
                    return Refused(
                        f"{entry.record.name} is behind a network server, and none is set: [network] enabled"
                    )
                entries.append(entry)
        if not 1 <= len(entries) <= NODES_MAX:
            return Refused(f"a block goes to 1 to {NODES_MAX} nodes that have joined, not {len(entries)}")
        grouped = [entry for entry in entries if not command.alone and self._hears(entry, group)]
        if grouped and group is None:
            return Refused(
                "there is no multicast group yet; import the nodes that were provisioned, or a group file"
            )
        others = any(entry.record.gen_app_key is not None for entry in grouped)
        if others and group is not None and group.mc_key is None:
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


def unicast_room(region: Region, entry: Entry) -> int:
    """The longest payload (bytes) that this node can be sent in RX1, as it was last heard; one data
    rate slower, for that may change on the way.  Before it was heard: in RX2."""
    heard = entry.status.data_rate
    slower = -1 if heard is None else heard - 1
    if slower not in region.uplink_data_rates or slower >= len(region.rx1_data_rates):
        return region.payload_max(region.rx2_data_rate, uplink=False)
    room = region.payload_max(region.rx1_data_rates[slower][0], uplink=False)
    return max(room, region.payload_max(region.rx2_data_rate, uplink=False))


def descriptor(block: bytes) -> bytes:
    """What names a block on air."""
    return hashlib.sha512(block).digest()[:4]
