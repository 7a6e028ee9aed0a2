"""What a Basics Station is told of its radio: the region's data rates, channels and limits.

The station takes its plan from the server, in two forms: `upchannels`, from which newer stations lay out
their receivers themselves, and `sx1301_conf`, which older ones need and all demand.  Both are made here
from the region's table and the channels to listen on.

Two traps.  A station that does not know the region's name drops every downlink without a word (its issues
162, 173 and 200), and it knows few; the others are given a name under which it has no rules of its own,
with our power limit: our ledger keeps the law.  And a station keeps a duty cycle of its own under the names
that it does know, stricter than the law in places.  Test builds leave it off when told to (`nodc`); for
the others our ledger keeps theirs too (swarm.mac.self_blocking), and what they drop all the same is noticed
by a missing `dntxed`.
"""

from __future__ import annotations

from collections.abc import Sequence

from swarm.phy.regions import Channel, Region

__all__ = ["CHANNELS_MAX", "channels_of", "router_config"]

CHANNELS_MAX = 8
"""Channels of 125 kHz that one concentrator receives at a time."""
DATA_RATES = 16
UPCHANNEL_DATA_RATE_MAX = 7
SPREADING_FACTOR_MIN = 7
"""Stations know no SF5 and SF6: they would take them for FSK."""
RADIO_SPAN_HZ = 800_000
"""How far apart the 125 kHz channels of one of the two radios may lie."""
FAST_OFFSET_HZ = {250_000: 375_000, 500_000: 300_000}
"""How far from its radio's frequency the one wider channel may lie."""
GROUP = 8
TTN_GROUP = 1

_NAMES = {"eu868": "EU863", "us915": "US902", "au915": "AU915", "kr920": "KR920", "as923": "AS923-1"}
"""What stations of all versions call a region that they know; KR920 and AS923-1 listen before they talk."""
_WITHOUT_RULES = "AU915"


def channels_of(region: Region, frequencies_hz: Sequence[int] = ()) -> tuple[Channel, ...]:
    """The uplink channels to listen on: those named, or the region's usual ones.

    Where a region has 64 channels, the usual ones are the second eight and the wide one over them.
    ValueError names a frequency that is no uplink channel, or too many of them.
    """
    if frequencies_hz:
        known = {channel.frequency_hz: channel for channel in region.channels}
        for frequency_hz in frequencies_hz:
            if frequency_hz not in known:
                raise ValueError(f"{frequency_hz} Hz is no uplink channel of {region.name}")
        chosen = tuple(known[frequency_hz] for frequency_hz in sorted(set(frequencies_hz)))
    elif len(region.channels) <= CHANNELS_MAX:
        chosen = region.channels
    else:
        narrow = [channel for channel in region.channels if _bandwidth_hz(region, channel) == 125_000]
        wide = [channel for channel in region.channels if channel not in narrow]
        chosen = tuple(narrow[TTN_GROUP * GROUP : (TTN_GROUP + 1) * GROUP] + wide[TTN_GROUP : TTN_GROUP + 1])
    narrow = [channel for channel in chosen if _bandwidth_hz(region, channel) == 125_000]
    if len(narrow) > CHANNELS_MAX or len(chosen) - len(narrow) > 1:
        raise ValueError(f"a concentrator has {CHANNELS_MAX} channels of 125 kHz and one that is wider")
    if _radios(narrow) is None:
        raise ValueError("the channels lie too far apart: each of two radios spans 800 kHz")
    return chosen


def router_config(region: Region, channels: Sequence[Channel], mux_time_s: float) -> dict[str, object]:
    """The `router_config` message for a station with one concentrator."""
    return {
        "msgtype": "router_config",
        "NetID": None,
        "JoinEui": None,
        "bcning": None,
        "region": _NAMES.get(region.name, _WITHOUT_RULES),
        "hwspec": "sx1301/1",
        "freq_range": [
            min(band.min_hz for band in region.sub_bands),
            max(band.max_hz for band in region.sub_bands),
        ],
        "max_eirp": max(band.max_eirp_dbm for band in region.sub_bands),
        "protocol": 1,
        "DRs": [_data_rate(region, index) for index in range(DATA_RATES)],
        "upchannels": [_upchannel(channel) for channel in channels],
        "sx1301_conf": [_concentrator(region, channels)],
        "config": {},
        "nodc": True,
        "MuxTime": mux_time_s,
    }


def _data_rate(region: Region, index: int) -> list[int]:
    """[spreading factor, kHz, whether it is for downlinks only]; FSK is [0, 0, 0], none [-1, 0, 0]."""
    rate = region.data_rates.get(index)
    if rate is not None and rate.kind == "fsk":
        return [0, 0, 0]
    if rate is None or rate.kind != "lora" or rate.spreading_factor < SPREADING_FACTOR_MIN:
        return [-1, 0, 0]
    downlink_only = rate.downlink and not rate.uplink
    return [rate.spreading_factor, rate.bandwidth_hz // 1000, int(downlink_only)]


def _upchannel(channel: Channel) -> list[int]:
    fastest = min(channel.data_rate_max, UPCHANNEL_DATA_RATE_MAX)
    return [channel.frequency_hz, channel.data_rate_min, fastest]


def _bandwidth_hz(region: Region, channel: Channel) -> int:
    return region.data_rate(channel.data_rate_min, uplink=True).bandwidth_hz


def _radios(narrow: Sequence[Channel]) -> list[list[int]] | None:
    """Frequencies by radio; None when two radios do not reach over them."""
    radios: list[list[int]] = []
    for frequency_hz in sorted(channel.frequency_hz for channel in narrow):
        if not radios or frequency_hz - radios[-1][0] > RADIO_SPAN_HZ:
            radios.append([])
        radios[-1].append(frequency_hz)
    return radios if len(radios) <= 2 else None


def _concentrator(region: Region, channels: Sequence[Channel]) -> dict[str, object]:
    """The layout of two radios and their receivers, as libloragw's own configuration has it."""
    narrow = [channel for channel in channels if _bandwidth_hz(region, channel) == 125_000]
    wide = [channel for channel in channels if channel not in narrow]
    radios = _radios(narrow) or []
    centres = [(radio[0] + radio[-1]) // 2 for radio in radios]
    conf: dict[str, object] = {"chan_FSK": {"enable": False}, "chan_Lora_std": {"enable": False}}
    for number in range(2):
        there = number < len(centres)
        conf[f"radio_{number}"] = {"enable": there, "freq": centres[number] if there else 0}
    slots = [
        {"enable": True, "radio": number, "if": frequency_hz - centres[number]}
        for number, radio in enumerate(radios)
        for frequency_hz in radio
    ]
    for slot in range(CHANNELS_MAX):
        conf[f"chan_multiSF_{slot}"] = slots[slot] if slot < len(slots) else {"enable": False}
    for channel in wide:
        rate = region.data_rate(channel.data_rate_min, uplink=True)
        offsets = [channel.frequency_hz - centre for centre in centres]
        number = min(range(len(offsets)), key=lambda each: abs(offsets[each]), default=0)
        if offsets and abs(offsets[number]) <= FAST_OFFSET_HZ[rate.bandwidth_hz]:
            conf["chan_Lora_std"] = {
                "enable": True,
                "radio": number,
                "if": offsets[number],
                "bandwidth": rate.bandwidth_hz,
                "spread_factor": rate.spreading_factor,
            }
    return conf
