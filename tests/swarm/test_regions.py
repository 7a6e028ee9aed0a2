"""The regional tables against the published ones, and the rules that the tables imply."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swarm.phy.airtime import FRAME_OVERHEAD
from swarm.phy.regions import PAYLOAD_MAX, REGION_NAMES, Region, region

REFERENCE = Path(__file__).resolve().parents[2] / ".." / "shared" / "vectors" / "regions.json"
each_region = pytest.mark.parametrize("name", REGION_NAMES)


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    if not REFERENCE.exists():
        pytest.skip("the reference tables (../shared/vectors/regions.json) are not here")
    regions: dict[str, Any] = json.loads(REFERENCE.read_text(encoding="utf-8"))["regions"]
    return regions


def test_the_nine_regions_and_no_other(reference: dict[str, Any]) -> None:
    assert sorted(reference) == sorted(REGION_NAMES)
    with pytest.raises(ValueError, match="choose one of eu868, us915"):
        region("eu869")
    assert region("EU868") is region("eu868")


@each_region
def test_sub_bands_power_and_windows(name: str, reference: dict[str, Any]) -> None:
    mine, want = region(name), reference[name]
    bands = [(b.min_hz, b.max_hz, b.duty_cycle, b.max_eirp_dbm) for b in mine.sub_bands]
    keys = ("MinFrequency", "MaxFrequency", "DutyCycle", "MaxEIRP")
    assert bands == [tuple(band[key] for key in keys) for band in want["sub_bands"]]
    assert mine.max_eirp_dbm == want["default_max_eirp"]
    assert list(mine.tx_power_offsets_db) == want["tx_offset"]
    assert mine.rx2_frequency_hz == want["rx2"]["Frequency"]
    assert mine.rx2_data_rate == want["rx2"]["DataRateIndex"]
    assert mine.tx_param_setup == want["tx_param_setup"]
    assert mine.cflist == want["cflist"].lower()
    assert list(mine.beacon_frequencies_hz) == want["beacon"]["Frequencies"]
    assert mine.beacon_data_rate == want["beacon"]["DataRateIndex"]
    shared = want["shared"]
    assert [delay * 1000 for delay in mine.receive_delays_us] == [
        shared["ReceiveDelay1"],
        shared["ReceiveDelay2"],
    ]
    joins = [shared["JoinAcceptDelay1"], shared["JoinAcceptDelay2"]]
    assert [delay * 1000 for delay in mine.join_accept_delays_us] == joins


@each_region
def test_channels(name: str, reference: dict[str, Any]) -> None:
    mine, want = region(name), reference[name]
    assert len(mine.uplink_channels) == want["n_uplink"]
    keys = ("Frequency", "MinDataRate", "MaxDataRate")
    for channels, listed in (
        (mine.uplink_channels, want["uplink_channels"]),
        (mine.downlink_channels, want["downlink_channels"]),
    ):
        rows = [(c.frequency_hz, c.data_rate_min, c.data_rate_max) for c in channels]
        assert rows[: len(listed)] == [tuple(channel[key] for key in keys) for channel in listed]


@each_region
def test_data_rates_and_payloads(name: str, reference: dict[str, Any]) -> None:
    mine, want = region(name), reference[name]
    for index, row in want["data_rates"].items():
        rate = mine.data_rates[int(index)]
        match row["rate"]:
            case {"lora": lora}:
                assert (rate.kind, rate.spreading_factor) == ("lora", lora["spreading_factor"])
                assert rate.bandwidth_hz == lora["bandwidth"]
            case {"fsk": fsk}:
                assert (rate.kind, rate.bit_rate_bps) == ("fsk", fsk["bit_rate"])
            case {"lrfhss": hopping}:
                assert (rate.kind, rate.coding_rate) == ("lr_fhss", hopping["coding_rate"])
                assert rate.bandwidth_hz == hopping["operating_channel_width"]
        for dwell, size in (
            (False, row["max_mac_payload_M"]["false"]),
            (True, row["max_mac_payload_M"]["true"]),
        ):
            expected = min(max(0, size - 8), PAYLOAD_MAX)
            assert mine.payload_max(int(index), dwell=dwell) == expected
            assert mine.payload_max(int(index), dwell=dwell, fopts=15) == max(
                0, min(size - 8 - 15, PAYLOAD_MAX)
            )


@each_region
def test_directions_and_the_fast_rates(name: str, reference: dict[str, Any]) -> None:
    """Goal: each index means the same as in a second, independent server, in each direction."""
    mine = region(name)
    for row in reference[name]["chirpstack"]["data_rates"]:
        for uplink, allowed in ((True, row["uplink"]), (False, row["downlink"])):
            rates = mine.uplink_data_rates if uplink else mine.downlink_data_rates
            if allowed:
                rate = rates[row["dr"]]
                assert rate.kind.upper() == row["mod"]
                if row["mod"] == "LORA":
                    assert (rate.spreading_factor, rate.bandwidth_hz) == (row["sf"], row["bw"])
    # No payload is ever longer than any of the published tables allows without a repeater.
    for table in reference[name]["chirpstack"]["payload_tables_latest_rp002_1_0_5_source_order"]:
        for index, limits in table.items():
            if int(index) in mine.data_rates and mine.dwell is None:
                assert mine.payload_max(int(index)) <= max(limits["N"], 0)


@each_region
def test_rx1_data_rates(name: str, reference: dict[str, Any]) -> None:
    mine = region(name)
    for key, want in reference[name]["rx1_dr_dwell_false"].items():
        data_rate, offset, _ = key.split("_")
        frequency_hz = mine.uplink_channels[0].frequency_hz
        assert mine.rx1(int(data_rate), frequency_hz, int(offset))[1] == want


def test_rx1_frequencies() -> None:
    assert region("eu868").rx1(5, 867_100_000, 0) == (867_100_000, 5)
    us915 = region("us915")
    assert us915.rx1(3, 902_300_000 + 200_000 * 13, 0) == (923_300_000 + 600_000 * 5, 13)
    assert us915.rx1(4, 903_000_000 + 1_600_000 * 7, 0) == (927_500_000, 13)
    assert region("cn470").rx1(5, 480_300_000 + 200_000 * 25, 0) == (500_300_000, 5)
    assert region("as923").rx1(3, 923_200_000, 5)[1] == 0
    assert region("as923").rx1(3, 923_200_000, 5, dwell=True)[1] == 2
    for arguments in ((15, 868_100_000, 0), (0, 868_100_000, 6), (-1, 868_100_000, 0)):
        with pytest.raises(ValueError, match="RX1"):
            region("eu868").rx1(*arguments)
    with pytest.raises(ValueError, match="not an uplink channel"):
        us915.rx1(3, 902_400_000, 0)


@each_region
def test_every_channel_lies_in_a_sub_band(name: str) -> None:
    mine = region(name)
    for channel in (*mine.channels, *mine.downlink_channels):
        width_hz = mine.data_rate(channel.data_rate_min, uplink=channel in mine.channels).bandwidth_hz
        mine.sub_band(channel.frequency_hz, width_hz)
    mine.sub_band(mine.rx2_frequency_hz, mine.data_rate(mine.rx2_data_rate, uplink=False).bandwidth_hz)


def test_the_whole_signal_has_to_lie_inside() -> None:
    """Goal: the gaps of EU868 and signals that straddle an edge are refused, letters are right."""
    eu868 = region("eu868")
    letters = {864_000_000: "K", 867_100_000: "L", 868_500_000: "M", 869_000_000: "N", 869_525_000: "P"}
    assert {f: eu868.sub_band(f).name for f in letters} == letters
    assert eu868.sub_band(868_537_500, 125_000).name == "M"
    assert eu868.sub_band(869_525_000, 250_000).name == "P"
    for frequency_hz, bandwidth_hz in (
        (868_537_501, 125_000),
        (868_650_000, 125_000),
        (869_300_000, 125_000),
        (869_675_000, 125_000),
        (869_525_000, 500_000),
        (868_000_000, 125_000),
        (862_900_000, 125_000),
        (870_000_000, 125_000),
    ):
        with pytest.raises(ValueError, match="not inside one sub-band"):
            eu868.sub_band(frequency_hz, bandwidth_hz)


def longest_allowed(mine: Region) -> list[tuple[int, int]]:
    return [
        (index, mine.payload_max(index, dwell=True))
        for index in mine.uplink_data_rates
        if index in mine.data_rates
    ]


@pytest.mark.parametrize("name", ["as923", "au915", "us915"])
def test_the_longest_frame_keeps_the_dwell_time(name: str) -> None:
    """Goal: whatever `payload_max` allows under the rule takes at most 400 ms (not LR-FHSS, which hops)."""
    mine = region(name)
    assert mine.dwell is not None
    checked = 0
    for index, size in longest_allowed(mine):
        rate = mine.data_rates[index]
        if size and rate.kind == "lora" and rate.uplink:
            duration_us = mine.airtime_us(index, size + FRAME_OVERHEAD, uplink=True)
            assert duration_us <= 400_000, f"DR{index}"
            assert mine.dwell_allows(rate.bandwidth_hz, duration_us)
            checked += 1
    assert checked >= 4
    assert not mine.dwell_allows(125_000, 400_001)
    assert mine.dwell_allows(500_000, 600_000)
    assert mine.dwell_allows(125_000, 600_000, dwell=False)


def test_airtime_by_direction() -> None:
    """A downlink carries no CRC; a FSK frame knows no spreading factor; unknown rates are refused."""
    eu868 = region("eu868")
    assert eu868.airtime_us(5, 64, uplink=True) == 118_016
    assert eu868.airtime_us(5, 64, uplink=False) <= 118_016
    assert eu868.airtime_us(0, 13, uplink=True) == 1_155_072
    assert eu868.airtime_us(7, 50, uplink=True) == 9_760
    assert eu868.airtime_us(8, 13, uplink=True) > 1_000_000
    assert region("us915").airtime_us(8, 64, uplink=False) > region("us915").airtime_us(8, 64, uplink=True)
    with pytest.raises(ValueError, match="no downlink data rate 8"):
        eu868.airtime_us(8, 13, uplink=False)
    with pytest.raises(ValueError, match="no data rate 14"):
        eu868.payload_max(14)


def test_data_rate_of() -> None:
    assert region("eu868").data_rate_of(7, 125_000, True) == 5
    assert region("eu868").data_rate_of(7, 250_000, False) == 6
    assert region("us915").data_rate_of(12, 500_000, False) == 8
    with pytest.raises(ValueError, match="no uplink data rate with SF12"):
        region("us915").data_rate_of(12, 125_000, True)
