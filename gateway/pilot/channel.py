"""Where a pilot's multicast group listens: kept in multicast.csv, for headers and daemon have to agree on it.

Nodes are flashed with the channel once.  So the directory remembers what it was provisioned for: without a
flag that stays, another rate or frequency is taken with a warning, another region is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from swarm.config import Multicast, MulticastChannel, SwarmConfig
from swarm.phy.regions import REGION_NAMES, Region
from swarm.phy.regions import region as region_of

__all__ = ["COLUMNS", "ChannelOptions", "choose", "parse", "region_lines"]

COLUMNS = ("region", "data_rate", "frequency_hz")
"""Of multicast.csv; a file from before they existed does without."""
STATUS_SIZE_MIN = 16
UPLINK_RATES = 16


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """What the operator asks for; None: as the directory has it, else the region's own (eu868)."""

    region: str | None = None
    data_rate: int | None = None
    frequency_hz: int | None = None


def parse(cells: Mapping[str, str]) -> MulticastChannel | None:
    """The channel in a row of multicast.csv; None where the columns are empty, ValueError for nonsense."""
    said = [cells.get(column) or "" for column in COLUMNS]
    if not any(said):
        return None
    name, rate, frequency = said
    if name not in REGION_NAMES or not all(re.fullmatch(r"\d{1,10}", each) for each in (rate, frequency)):
        raise ValueError("region, data_rate or frequency_hz is not usable")
    channel = MulticastChannel(name, int(rate), int(frequency))
    _check(region_of(name), channel)
    return channel


def choose(
    wanted: ChannelOptions, stored: MulticastChannel | None, out_dir: Path
) -> tuple[MulticastChannel, list[str]]:
    """The channel of the group and what to warn of; ValueError for what cannot be."""
    name = (wanted.region or (stored.region if stored else SwarmConfig().region)).lower()
    rules = region_of(name)
    if stored is not None and stored.region != rules.name:
        raise ValueError(
            f"--region: {out_dir} was provisioned for {stored.region}, and its nodes are built for that;"
            f" name another directory for {rules.name}"
        )
    usual = stored or Multicast().channel(rules)
    channel = MulticastChannel(
        rules.name,
        usual.data_rate if wanted.data_rate is None else wanted.data_rate,
        usual.frequency_hz if wanted.frequency_hz is None else wanted.frequency_hz,
    )
    _check(rules, channel)
    needed = channel.settings()
    notes = [f"! the group listens at {channel}: swarm.toml needs {', '.join(needed)}"] if needed else []
    if stored is not None and channel != stored:
        notes = [
            f"! the group listened at {stored} and now does at {channel}: nodes that are flashed already hear"
            f" no round until they are flashed again; swarm.toml needs {', '.join(channel.settings(stored))}"
        ]
    return channel, notes


def region_lines(rules: Region) -> list[str]:
    """What a firmware header says of the region: its name, and how many bytes each uplink data rate carries.

    A data rate is usable when a STATUS fits; the others, and those that are not LoRa, carry 0.
    """
    sizes = [0] * UPLINK_RATES
    for index, rate in rules.uplink_data_rates.items():
        size = rules.payload_max(index, uplink=True) if rate.kind == "lora" else 0
        sizes[index] = size if size >= STATUS_SIZE_MIN else 0
    slowest = min((index for index in range(UPLINK_RATES) if sizes[index]), key=lambda index: sizes[index])
    return [
        f"#define SWN_PAYLOAD_MAX_AT_SLOWEST {sizes[slowest]}u",
        f"#define SWN_SLOWEST_DATA_RATE {slowest}u",
        f"#define SWN_PAYLOAD_MAX_AT_RATE {{{', '.join(map(str, sizes))}}}",
        f'#define SWN_REGION "{rules.name}"',
        f"#define SWN_REGION_ID {rules.name.upper()}",
    ]


def _check(rules: Region, channel: MulticastChannel) -> None:
    rates = sorted(index for index, rate in rules.downlink_data_rates.items() if rate.kind == "lora")
    if channel.data_rate not in rates:
        raise ValueError(
            f"--multicast-data-rate: {rules.name} has no LoRa downlink data rate {channel.data_rate};"
            f" give one of {', '.join(map(str, rates))}"
        )
    bandwidth_hz = rules.data_rate(channel.data_rate, uplink=False).bandwidth_hz
    if not rules.allows(channel.frequency_hz, bandwidth_hz):
        bands = ", ".join(f"{band.min_hz}-{band.max_hz}" for band in rules.sub_bands)
        raise ValueError(
            f"--multicast-frequency-hz: {channel.frequency_hz} Hz is in no sub-band of {rules.name};"
            f" choose one inside {bands}"
        )
