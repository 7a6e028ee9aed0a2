"""Regional rules as frozen tables: sub-bands, data rates, channels, receive windows, dwell time.

The numbers live in `region_data/*.toml`, one file per region, and are read once.  Sources: LoRaWAN
regional parameters RP002-1.0.4 (SF5 and SF6: 1.0.5; CN470: 1.0.3) and EN 300 220-2 for the European
sub-bands.  Frequencies are in Hz, times in us, powers in dBm EIRP.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

from swarm.phy.airtime import airtime_us, fsk_airtime_us, lr_fhss_airtime_us

__all__ = [
    "PAYLOAD_MAX",
    "REGION_NAMES",
    "Channel",
    "DataRate",
    "Dwell",
    "Region",
    "SubBand",
    "region",
]

REGION_NAMES = ("eu868", "us915", "as923", "in865", "au915", "kr920", "ru864", "eu433", "cn470")

MULTICAST_PAYLOAD_MIN = 32
"""Application bytes below which a model would need hundreds of multicast frames."""
PAYLOAD_MAX = 222
"""No application payload is ever longer: what all published tables allow, behind repeaters too."""


@dataclass(frozen=True, slots=True)
class SubBand:
    """A stretch of spectrum with its own duty cycle (1.0: none) and power limit.

    With `edges` "signal" the whole signal has to lie inside [min_hz, max_hz]; with "centre" the
    table gives the outermost channel centres, so only the centre frequency has to.
    """

    name: str
    min_hz: int
    max_hz: int
    duty_cycle: float
    max_eirp_dbm: float
    edges: str = "signal"

    def contains(self, frequency_hz: int, bandwidth_hz: int) -> bool:
        """Whether a signal of that centre and width may be sent here."""
        if self.edges == "centre":
            return self.min_hz <= frequency_hz <= self.max_hz
        return (
            2 * self.min_hz <= 2 * frequency_hz - bandwidth_hz
            and 2 * frequency_hz + bandwidth_hz <= 2 * self.max_hz
        )


@dataclass(frozen=True, slots=True)
class DataRate:
    """One row of the data-rate table; `kind` is "lora", "fsk" or "lr_fhss".

    `payload_max` is the application payload N (bytes, before the cap of 222) without and with the
    dwell-time limit; 0 means that the rate is not usable then.  `spreading_factor` is 0 unless LoRa.
    """

    index: int
    kind: str
    spreading_factor: int
    bandwidth_hz: int
    bit_rate_bps: int
    coding_rate: str
    payload_max: tuple[int, int]
    uplink: bool
    downlink: bool
    revision: str


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel and the data rates that may be used on it."""

    frequency_hz: int
    data_rate_min: int
    data_rate_max: int


@dataclass(frozen=True, slots=True)
class Dwell:
    """The longest time one transmission of at most `bandwidth_max_hz` may hold a channel."""

    limit_us: int
    bandwidth_max_hz: int
    rx1_data_rate_min: int


@dataclass(frozen=True, eq=False)
class Region:
    """The rules of one region; compared by identity, made by `region(name)` only."""

    name: str
    title: str
    sub_bands: tuple[SubBand, ...]
    data_rates: Mapping[int, DataRate]
    """By index; where RP002-1.0.5 reuses an index for SF5/SF6, the older meaning stands here."""
    uplink_data_rates: Mapping[int, DataRate]
    downlink_data_rates: Mapping[int, DataRate]
    uplink_channels: tuple[Channel, ...]
    """The channels every device knows from the start."""
    extra_channels: tuple[Channel, ...]
    """Channels usually added by CFList or configuration (EU868: 867.1 to 867.9)."""
    downlink_channels: tuple[Channel, ...]
    rx1_data_rates: tuple[tuple[int, ...], ...]
    rx1_frequency: str
    rx2_frequency_hz: int
    rx2_data_rate: int
    beacon_frequencies_hz: tuple[int, ...]
    beacon_data_rate: int
    tx_power_offsets_db: tuple[int, ...]
    tx_param_setup: bool
    receive_delays_us: tuple[int, int]
    join_accept_delays_us: tuple[int, int]
    max_eirp_dbm: float
    cflist: str
    """"frequencies" or "channel_masks"."""
    dwell: Dwell | None

    @property
    def channels(self) -> tuple[Channel, ...]:
        """All channels a node of this project may hop over: the default ones and the extra ones."""
        return self.uplink_channels + self.extra_channels

    def data_rate(self, index: int, *, uplink: bool) -> DataRate:
        """The row of a data-rate index in that direction; ValueError if there is none."""
        rate = (self.uplink_data_rates if uplink else self.downlink_data_rates).get(index)
        if rate is None:
            raise ValueError(f"{self.name} has no {'uplink' if uplink else 'downlink'} data rate {index}")
        return rate

    def airtime_us(self, data_rate: int, phy_size: int, *, uplink: bool) -> int:
        """Time on air of a PHYPayload (bytes): CR 4/5, preamble 8, CRC on uplinks only.

        SF5 and SF6 need a preamble of 12 symbols.
        """
        rate = self.data_rate(data_rate, uplink=uplink)
        if rate.kind == "lora":
            preamble = 12 if rate.spreading_factor <= 6 else 8
            return airtime_us(
                rate.spreading_factor, rate.bandwidth_hz, phy_size, preamble=preamble, crc=uplink
            )
        if rate.kind == "fsk":
            return fsk_airtime_us(phy_size, bit_rate_bps=rate.bit_rate_bps)
        return lr_fhss_airtime_us(phy_size, coding_rate=rate.coding_rate)

    @property
    def multicast_data_rate(self) -> int:
        """The rate of RX2, or the slowest LoRa downlink rate above it that carries a useful frame."""
        rates = sorted(i for i, rate in self.downlink_data_rates.items() if rate.kind == "lora")
        able = [i for i in rates if self.payload_max(i, uplink=False) >= MULTICAST_PAYLOAD_MIN]
        return next((i for i in able if i >= self.rx2_data_rate), able[0])

    def payload_max(
        self, data_rate: int, *, dwell: bool | None = None, fopts: int = 0, uplink: bool | None = None
    ) -> int:
        """Longest application payload in bytes, 0..222; `fopts` bytes of FOpts are taken off.

        `dwell` None: as at boot (on wherever the region has a dwell-time limit).  `uplink` matters only
        where RP002-1.0.5 gives an index two meanings.  0: the rate cannot carry a payload.
        """
        if uplink is None:
            rate = self.data_rates.get(data_rate)
            if rate is None:
                raise ValueError(f"{self.name} has no data rate {data_rate}")
        else:
            rate = self.data_rate(data_rate, uplink=uplink)
        limited = self.dwell is not None if dwell is None else dwell
        return max(0, min(rate.payload_max[limited] - fopts, PAYLOAD_MAX))

    def sub_band(self, frequency_hz: int, bandwidth_hz: int = 125_000) -> SubBand:
        """The sub-band that holds the whole signal; ValueError if none does."""
        for band in self.sub_bands:
            if band.contains(frequency_hz, bandwidth_hz):
                return band
        raise ValueError(
            f"{self.name}: a signal of {bandwidth_hz / 1000:g} kHz at {frequency_hz / 1e6:.4f} MHz "
            "is not inside one sub-band"
        )

    def allows(self, frequency_hz: int, bandwidth_hz: int = 125_000) -> bool:
        """Whether one sub-band holds the whole signal."""
        return any(band.contains(frequency_hz, bandwidth_hz) for band in self.sub_bands)

    def dwell_allows(self, bandwidth_hz: int, airtime_us: int, *, dwell: bool | None = None) -> bool:
        """Whether one transmission is short enough for the dwell-time rule (None: as at boot)."""
        if self.dwell is None or dwell is False or bandwidth_hz > self.dwell.bandwidth_max_hz:
            return True
        return airtime_us <= self.dwell.limit_us

    def rx1(
        self, data_rate: int, frequency_hz: int, offset: int, *, dwell: bool | None = None
    ) -> tuple[int, int]:
        """Frequency and data rate of RX1 after an uplink; ValueError outside the tables.

        AS923 lets no downlink go below DR2 while the dwell time is limited; the published table
        (`dwell=False`, also the default) has no such floor.
        """
        if not 0 <= data_rate < len(self.rx1_data_rates):
            raise ValueError(f"{self.name}: no RX1 data rate for uplinks at DR{data_rate}")
        row = self.rx1_data_rates[data_rate]
        if not 0 <= offset < len(row):
            raise ValueError(f"{self.name}: RX1DROffset {offset} is not 0..{len(row) - 1}")
        rate = row[offset]
        if dwell and self.dwell is not None:
            rate = max(rate, self.dwell.rx1_data_rate_min)
        return self._rx1_frequency(frequency_hz), rate

    def data_rate_of(self, spreading_factor: int, bandwidth_hz: int, uplink: bool = True) -> int:
        """The lowest LoRa data-rate index of that direction with this spreading factor and bandwidth."""
        rates = self.uplink_data_rates if uplink else self.downlink_data_rates
        for index in sorted(rates):
            rate = rates[index]
            if rate.kind == "lora" and (rate.spreading_factor, rate.bandwidth_hz) == (
                spreading_factor,
                bandwidth_hz,
            ):
                return index
        direction = "uplink" if uplink else "downlink"
        raise ValueError(
            f"{self.name} has no {direction} data rate with SF{spreading_factor} at {bandwidth_hz} Hz"
        )

    def _rx1_frequency(self, frequency_hz: int) -> int:
        if self.rx1_frequency == "same":
            return frequency_hz
        for index, channel in enumerate(self.uplink_channels):
            if channel.frequency_hz == frequency_hz:
                return self.downlink_channels[index % len(self.downlink_channels)].frequency_hz
        raise ValueError(f"{self.name}: {frequency_hz} Hz is not an uplink channel")


@cache
def region(name: str) -> Region:
    """The region called `name` (case does not matter); ValueError naming the choices otherwise."""
    key = name.lower()
    if key not in REGION_NAMES:
        raise ValueError(f"unknown region {name!r}; choose one of {', '.join(REGION_NAMES)}")
    if key != name:
        return region(key)
    text = (resources.files("swarm.phy") / "region_data" / f"{key}.toml").read_text(encoding="utf-8")
    return _from_table(tomllib.loads(text))


def _from_table(table: dict[str, Any]) -> Region:
    rates = [_data_rate(row) for row in table["data_rates"]]
    first = [rate for rate in rates if not rate.revision]
    later = [rate for rate in rates if rate.revision]
    dwell = table.get("dwell")
    return Region(
        name=table["name"],
        title=table["title"],
        sub_bands=tuple(SubBand(**row) for row in table["sub_bands"]),
        data_rates=_by_index(later + first),
        uplink_data_rates=_by_index(rate for rate in rates if rate.uplink),
        downlink_data_rates=_by_index(rate for rate in rates if rate.downlink),
        uplink_channels=_channels(table["uplink_channels"]),
        extra_channels=_channels(table.get("extra_channels", [])),
        downlink_channels=_channels(table["downlink_channels"]),
        rx1_data_rates=tuple(tuple(row) for row in table["rx1_data_rates"]),
        rx1_frequency=table["rx1_frequency"],
        rx2_frequency_hz=table["rx2"]["frequency_hz"],
        rx2_data_rate=table["rx2"]["data_rate"],
        beacon_frequencies_hz=tuple(table["beacon"]["frequencies_hz"]),
        beacon_data_rate=table["beacon"]["data_rate"],
        tx_power_offsets_db=tuple(table["tx_power_offsets_db"]),
        tx_param_setup=table["tx_param_setup"],
        receive_delays_us=(table["receive_delay_us"][0], table["receive_delay_us"][1]),
        join_accept_delays_us=(table["join_accept_delay_us"][0], table["join_accept_delay_us"][1]),
        max_eirp_dbm=table["max_eirp_dbm"],
        cflist=table["cflist"],
        dwell=None
        if dwell is None
        else Dwell(dwell["limit_us"], dwell["bandwidth_max_hz"], dwell.get("rx1_data_rate_min", 0)),
    )


def _data_rate(row: dict[str, Any]) -> DataRate:
    direction = row.get("direction", "both")
    return DataRate(
        index=row["index"],
        kind=row.get("kind", "lora"),
        spreading_factor=row.get("spreading_factor", 0),
        bandwidth_hz=row["bandwidth_hz"],
        bit_rate_bps=row.get("bit_rate_bps", 0),
        coding_rate=row.get("coding_rate", "4/5"),
        payload_max=(row["payload_max"][0], row["payload_max"][1]),
        uplink=direction in ("both", "up"),
        downlink=direction in ("both", "down"),
        revision=row.get("revision", ""),
    )


def _by_index(rates: Iterable[DataRate]) -> Mapping[int, DataRate]:
    return MappingProxyType({rate.index: rate for rate in rates})


def _channels(rows: list[dict[str, Any]]) -> tuple[Channel, ...]:
    return tuple(
        Channel(row["first_hz"] + number * row.get("step_hz", 0), row["data_rates"][0], row["data_rates"][1])
        for row in rows
        for number in range(row.get("count", 1))
    )
