"""`[mac]` of `swarm.toml`: how devices are set up by MAC commands, and what of it a region does not know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from gateway.toml_source import Source
from swarm.config import Mac
from swarm.mac.channel_plan import DYNAMIC_CHANNELS, is_fixed, sub_band
from swarm.phy.regions import Region

__all__ = ["MacSection", "check_mac"]

TrueOrFalse = Annotated[bool, Field(description="true or false, without quotes")]
Rate = Annotated[int, Field(ge=0, le=15, description="a data rate from 0 to 15")]
Frequencies = Annotated[
    list[Annotated[int, Field(ge=0, le=3_000_000_000, multiple_of=100)]],
    Field(max_length=DYNAMIC_CHANNELS, description="a list of up to 16 frequencies in whole hertz"),
]


class MacSection(BaseModel):
    """[mac]"""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    adr: TrueOrFalse = True
    adr_margin_db: Annotated[
        float, Field(ge=0, le=30, allow_inf_nan=False, description="a number from 0 to 30")
    ] = 5.0
    adr_data_rate_min: Rate = 0
    adr_data_rate_max: Rate = 15
    dev_status_h: Annotated[
        int, Field(ge=0, le=8760, description="whole hours from 0 (never) to 8760 (a year)")
    ] = 24
    sub_band: Annotated[int, Field(ge=0, le=8, description="a whole number from 0 (all) to 8")] = 0
    channels_hz: Frequencies = []
    downlinks_hz: Frequencies = []
    max_duty_cycle: Annotated[int, Field(ge=0, le=15, description="a whole number from 0 to 15")] = 0
    dwell: Annotated[bool | None, Field(description="true or false, without quotes")] = None
    rx1_delay_s: Annotated[int | None, Field(ge=1, le=15, description="whole seconds from 1 to 15")] = None
    rx1_dr_offset: Annotated[int | None, Field(ge=0, le=7, description="a whole number from 0 to 7")] = None
    rx2_data_rate: Annotated[int | None, Field(ge=0, le=15, description="a data rate from 0 to 15")] = None
    rx2_frequency_hz: Annotated[
        int | None,
        Field(ge=100_000_000, le=3_000_000_000, multiple_of=100, description="whole hertz, as 869525000"),
    ] = None
    confirmed_tries: Annotated[int, Field(ge=1, le=15, description="a whole number from 1 to 15")] = 4

    def to_core(self) -> Mac:
        """The core's value of it."""
        given = self.model_dump()
        for key in ("channels_hz", "downlinks_hz"):
            given[key] = tuple(given[key])
        return Mac(**given)


def check_mac(source: Source, mac: MacSection, region: Region) -> None:
    """What the region does not know; a key that is already refused is not judged again."""
    for key, problem, remedy in _faults(mac, region):
        if ("mac", key) not in source.bad:
            source.mistake(("mac", key), problem, remedy)


def _faults(mac: MacSection, region: Region) -> Iterator[tuple[str, str, str]]:
    if mac.adr_data_rate_min > mac.adr_data_rate_max:
        yield "adr_data_rate_min", "is above adr_data_rate_max", "swap them"
    if mac.sub_band:
        try:
            sub_band(region, mac.sub_band)
        except ValueError:
            yield "sub_band", f"{region.name} has no sub-band {mac.sub_band}", "give 0 for all channels"
    if mac.rx2_data_rate is not None and mac.rx2_data_rate not in region.downlink_data_rates:
        rates = ", ".join(map(str, sorted(region.downlink_data_rates)))
        yield (
            "rx2_data_rate",
            f"{region.name} has no downlink data rate {mac.rx2_data_rate}",
            f"one of {rates}",
        )
    offsets = min(len(row) for row in region.rx1_data_rates)
    if mac.rx1_dr_offset is not None and mac.rx1_dr_offset >= offsets:
        yield "rx1_dr_offset", f"{region.name} knows 0 to {offsets - 1}", "give one of these"
    for key in ("channels_hz", "downlinks_hz"):
        given = [frequency for frequency in getattr(mac, key) if frequency or key == "channels_hz"]
        if given and is_fixed(region):
            yield key, f"the channels of {region.name} cannot be changed", "use sub_band instead"
        elif bad := [frequency for frequency in given if not region.allows(frequency)]:
            yield key, f"{bad[0]} Hz is in no sub-band of {region.name}", "correct it"
    usual = {channel.frequency_hz for channel in region.channels}
    room = DYNAMIC_CHANNELS - len(usual)
    if not is_fixed(region) and len(set(mac.channels_hz) - usual) > room:
        problem = f"a device has {DYNAMIC_CHANNELS} channels, {len(usual)} of them are {region.name}'s own"
        yield "channels_hz", problem, f"give up to {room} others"
    if mac.rx2_frequency_hz is not None and not region.allows(mac.rx2_frequency_hz):
        problem = f"{mac.rx2_frequency_hz} Hz is in no sub-band of {region.name}"
        yield "rx2_frequency_hz", problem, "correct it"
