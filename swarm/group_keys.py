"""The cell's multicast session: taken over from provisioning, replaced only when that is said.

Every group that ever was keeps its frame counter, for its keys may come back.
"""

from __future__ import annotations

from swarm.commands import SetMulticast
from swarm.config import MulticastChannel
from swarm.downlinks import Downlinks
from swarm.effects import Effect, Event, Store
from swarm.mac.session import MulticastGroup
from swarm.registry import Refused
from swarm.retired import Counters, Retired, fingerprint
from swarm.security.lorawan import AesKey, multicast_keys

__all__ = ["set_multicast"]


def set_multicast(
    now_us: int, command: SetMulticast, channel: MulticastChannel, downlinks: Downlinks, retired: Retired
) -> list[Effect] | Refused:
    """Take the group session over."""
    if command.mc_key is not None:
        derived = multicast_keys(AesKey(command.mc_key), command.mc_addr)
        if derived != (command.nwk_s_key, command.app_s_key):
            return Refused("the group's mc_key does not give its nwk_s_key and app_s_key; leave it out")
    group = MulticastGroup(
        mc_addr=command.mc_addr,
        nwk_s_key=command.nwk_s_key,
        app_s_key=command.app_s_key,
        f_cnt=0,
        frequency_hz=channel.frequency_hz,
        data_rate=channel.data_rate,
        mc_key=command.mc_key,
    )
    known = downlinks.group
    if known is not None and _fingerprint(known) == _fingerprint(group):
        if group.mc_key in (None, known.mc_key):
            return []
        known.mc_key = group.mc_key  # the same group, of which more is known now
        return [Store("multicast", "cell", known.to_row())]
    effects: list[Effect] = []
    if known is not None:
        if not command.replace:
            return Refused(
                f"the cell has another multicast group ({known.mc_addr:08x}), and its nodes would hear"
                " nothing any more; replace it with --replace-multicast, or use another data_dir"
            )
        if retired.is_full:
            return Refused("too many keys went out of use here; use another data_dir")
        effects.append(retired.keep(_fingerprint(known), Counters(f_cnt_down=known.f_cnt)))
    counters, stores = retired.take(_fingerprint(group))
    group.f_cnt = counters.f_cnt_down
    downlinks.group = group
    effects += [*stores, Store("multicast", "cell", group.to_row())]
    return [*effects, Event("multicast_set", now_us, {"mc_addr": f"{group.mc_addr:08x}"})]


def _fingerprint(group: MulticastGroup) -> str:
    return fingerprint("group", group.mc_addr, group.nwk_s_key, group.app_s_key)
