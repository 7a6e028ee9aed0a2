"""Time on air: 500 vectors agreed by three independent implementations, hand figures, and properties."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.phy.airtime import airtime_table, airtime_us, fsk_airtime_us, lr_fhss_airtime_us

VECTORS = Path(__file__).resolve().parent.parent / "vectors" / "airtime.json"
CASES: list[dict[str, Any]] = json.loads(VECTORS.read_text(encoding="utf-8"))["vectors"]


def of_case(case: dict[str, Any], low_data_rate: bool | None) -> int:
    return airtime_us(
        case["sf"],
        case["bw_hz"],
        case["payload_len"],
        coding_rate=int(case["cr"][2]) - 4,
        preamble=case["preamble"],
        explicit_header=not case["implicit_header"],
        crc=case["crc"],
        low_data_rate=low_data_rate,
    )


def test_every_vector_is_met_exactly() -> None:
    """Goal: no difference at all, with the optimisation given and with it found automatically."""
    assert len(CASES) == 500
    wrong = [case for case in CASES if of_case(case, case["ldro"]) != case["airtime_us"]]
    assert wrong == []
    assert [case for case in CASES if of_case(case, None) != case["airtime_us"]] == []


@pytest.mark.parametrize(
    ("spreading_factor", "size", "airtime_ms"),
    [
        (7, 13, 46.336),
        (7, 64, 118.016),
        (7, 115, 194.816),
        (7, 242, 379.136),
        (9, 13, 164.864),
        (9, 64, 390.144),
        (9, 128, 676.864),
        (10, 64, 698.368),
        (12, 13, 1155.072),
        (12, 64, 2793.472),
        (8, 20, 102.912),
    ],
)
def test_published_figures_at_125_khz(spreading_factor: int, size: int, airtime_ms: float) -> None:
    assert airtime_us(spreading_factor, 125_000, size) == round(airtime_ms * 1000)


def test_the_low_data_rate_optimisation_can_be_forced() -> None:
    """SF12 without it packs more bits into a block, SF7 with it fewer."""
    assert airtime_us(12, 125_000, 51, low_data_rate=False) < airtime_us(12, 125_000, 51)
    assert airtime_us(7, 125_000, 51, low_data_rate=True) > airtime_us(7, 125_000, 51)


def test_narrow_bandwidths_round_to_the_nearest_microsecond() -> None:
    """At 41.67 kHz a symbol of SF7 is 3071.754... us: 25.25 symbols are not a whole number of us."""
    symbols = 8 + 4.25 + 8 + 5
    assert airtime_us(7, 41_670, 0) == round(symbols * 128e6 / 41_670)


@given(
    st.integers(5, 12),
    st.sampled_from([7_800, 10_400, 62_500, 125_000, 250_000, 500_000]),
    st.integers(0, 254),
    st.integers(1, 4),
    st.integers(6, 65_535),
    st.tuples(st.booleans(), st.booleans()),
)
def test_more_never_takes_less_time(
    spreading_factor: int, bandwidth_hz: int, size: int, rate: int, preamble: int, flags: tuple[bool, bool]
) -> None:
    """Goal: one more byte, CRC, header, preamble symbol or redundancy never shortens a frame."""
    header, crc = flags

    def duration(size: int = size, rate: int = rate, preamble: int = preamble, header: bool = header) -> int:
        return airtime_us(
            spreading_factor,
            bandwidth_hz,
            size,
            coding_rate=rate,
            preamble=preamble,
            explicit_header=header,
            crc=crc,
        )

    base = duration()
    symbol_us = 2**spreading_factor * 1e6 / bandwidth_hz
    assert duration(size=size + 1) >= base
    assert duration(rate=min(rate + 1, 4)) >= base
    assert duration(header=True) >= base
    assert abs(duration(preamble=preamble + 1) - base - symbol_us) <= 1


@pytest.mark.parametrize(
    ("arguments", "options", "word"),
    [
        ((4, 125_000, 10), {}, "spreading_factor"),
        ((13, 125_000, 10), {}, "spreading_factor"),
        ((7, 0, 10), {}, "bandwidth_hz"),
        ((7, 125_000, -1), {}, "payload_size"),
        ((7, 125_000, 256), {}, "payload_size"),
        ((7, 125_000, 10), {"coding_rate": 5}, "coding_rate"),
        ((7, 125_000, 10), {"coding_rate": 0}, "coding_rate"),
        ((7, 125_000, 10), {"preamble": -1}, "preamble"),
    ],
)
def test_impossible_frames_are_refused(
    arguments: tuple[int, int, int], options: dict[str, int], word: str
) -> None:
    with pytest.raises(ValueError, match=word):
        airtime_us(*arguments, **options)  # type: ignore[arg-type]


def test_fsk_and_lr_fhss() -> None:
    """FSK: 8 us x 20 per byte at 50 kbit/s.  LR-FHSS: headers of 233.472 ms, then hops of up to 102.4 ms."""
    assert fsk_airtime_us(50) == 8 * (5 + 3 + 1 + 50 + 2) * 20
    assert lr_fhss_airtime_us(13, coding_rate="1/3") == 3 * 233_472 + (7 * 50 + 44) * 2048
    assert lr_fhss_airtime_us(13, coding_rate="2/3") == 2 * 233_472 + (3 * 50 + 47) * 2048
    with pytest.raises(ValueError, match="coding rate"):
        lr_fhss_airtime_us(13, coding_rate="4/5")


def test_the_table_of_the_command_line() -> None:
    """SF7, 51 application bytes: 64 PHY bytes, 118.016 ms, 305 frames an hour at 1 %."""
    table = airtime_table(7, 125_000, 51)
    assert table["airtime_us"] == 118_016
    assert table["phy_size"] == 64
    assert table["symbol_time_us"] == 1024
    assert table["bitrate_bps"] == 5468.8
    assert table["frames_per_hour"] == {"0.1": 30, "1": 305, "10": 3050, "100": 30504}
    assert json.loads(json.dumps(table)) == table
    assert airtime_table(7, 125_000, 64, phy=True)["airtime_us"] == 118_016
    with pytest.raises(ValueError, match="256 B"):
        airtime_table(7, 125_000, 243)
