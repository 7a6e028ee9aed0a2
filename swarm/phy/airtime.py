"""Time on air of LoRa, FSK and LR-FHSS frames, exact to the microsecond.

Formulas: Semtech SX1261/2 data sheet (LoRa and FSK), LR-FHSS bit count of Semtech's driver.  All
arithmetic is on integers (quarters of a symbol, bits), so nothing is lost before the one rounding.
"""

from __future__ import annotations

__all__ = [
    "CODING_RATES",
    "FRAME_OVERHEAD",
    "HOUR_US",
    "PHY_SIZE_MAX",
    "SPREADING_FACTORS",
    "airtime_table",
    "airtime_us",
    "fsk_airtime_us",
    "lr_fhss_airtime_us",
    "symbol_time_us",
]

SPREADING_FACTORS = range(5, 13)
CODING_RATES = range(1, 5)
"""1..4 stand for 4/5, 4/6, 4/7 and 4/8."""
PHY_SIZE_MAX = 255
"""The length field of the LoRa header has 8 bits."""

LOW_DATA_RATE_SYMBOL_US = 16_000
"""Symbols of 16 ms and longer need the low data rate optimisation (SF11 and SF12 at 125 kHz)."""
FRAME_OVERHEAD = 13
"""PHY bytes around the application payload: MHDR 1, FHDR 7, FPort 1, MIC 4."""
HOUR_US = 3_600_000_000

_LR_FHSS_HEADER_BITS = 114
_LR_FHSS_BIT_US = 2_048
_LR_FHSS_HEADERS = {"1/3": 3, "2/3": 2}


def symbol_time_us(spreading_factor: int, bandwidth_hz: int) -> float:
    """Duration of one LoRa symbol in us: 2^SF / bandwidth."""
    return (1 << spreading_factor) * 1e6 / bandwidth_hz


def airtime_us(
    spreading_factor: int,
    bandwidth_hz: int,
    payload_size: int,
    *,
    coding_rate: int = 1,
    preamble: int = 8,
    explicit_header: bool = True,
    crc: bool = True,
    low_data_rate: bool | None = None,
) -> int:
    """Time on air in us of a LoRa frame with `payload_size` PHY bytes (0..255), rounded to the nearest us.

    `spreading_factor` is 5..12, `coding_rate` 1..4 (4/5..4/8), `preamble` the number of programmed
    symbols.  `low_data_rate` None means automatic: on when a symbol lasts 16 ms or more.  The spread
    header of SF5 and SF6 takes two more symbols of preamble and no extra header bits.
    """
    _check(spreading_factor, bandwidth_hz, payload_size, coding_rate, preamble)
    if low_data_rate is None:
        low_data_rate = (1 << spreading_factor) * 1_000_000 >= LOW_DATA_RATE_SYMBOL_US * bandwidth_hz
    short_header = spreading_factor <= 6
    bits = 8 * payload_size - 4 * spreading_factor
    bits += (16 if crc else 0) + (20 if explicit_header else 0) + (0 if short_header else 8)
    bits_per_block = 4 * (spreading_factor - (2 if low_data_rate else 0))
    blocks = -(-max(bits, 0) // bits_per_block)
    payload_symbols = 8 + blocks * (coding_rate + 4)
    quarter_symbols = 4 * (preamble + payload_symbols) + (25 if short_header else 17)
    return _divide(quarter_symbols * (1 << spreading_factor) * 250_000, bandwidth_hz)


def fsk_airtime_us(
    payload_size: int, *, bit_rate_bps: int = 50_000, preamble: int = 5, crc: bool = True
) -> int:
    """Time on air in us of a LoRaWAN FSK frame: preamble (bytes), sync 3, length 1, payload, CRC 2."""
    if not 0 <= payload_size <= PHY_SIZE_MAX:
        raise ValueError(f"payload_size {payload_size} is not 0..{PHY_SIZE_MAX}")
    if bit_rate_bps <= 0 or preamble < 0:
        raise ValueError("bit_rate_bps has to be positive and preamble not negative")
    return _divide(8_000_000 * (preamble + 3 + 1 + payload_size + (2 if crc else 0)), bit_rate_bps)


def lr_fhss_airtime_us(payload_size: int, *, coding_rate: str) -> int:
    """Time on air in us of an LR-FHSS uplink; `coding_rate` is "1/3" (3 headers) or "2/3" (2 headers)."""
    if coding_rate not in _LR_FHSS_HEADERS:
        raise ValueError(f"LR-FHSS coding rate {coding_rate!r} is neither '1/3' nor '2/3'")
    if not 0 <= payload_size <= PHY_SIZE_MAX:
        raise ValueError(f"payload_size {payload_size} is not 0..{PHY_SIZE_MAX}")
    raw_bits = 8 * (payload_size + 2) + 6
    coded_bits = raw_bits * 3 if coding_rate == "1/3" else raw_bits * 3 // 2
    blocks, rest = divmod(coded_bits, 48)
    hop_bits = 50 * blocks + (rest + 2 if rest else 0)
    return (_LR_FHSS_HEADER_BITS * _LR_FHSS_HEADERS[coding_rate] + hop_bits) * _LR_FHSS_BIT_US


def airtime_table(
    spreading_factor: int,
    bandwidth_hz: int,
    payload_size: int,
    *,
    coding_rate: int = 1,
    preamble: int = 8,
    crc: bool = True,
    phy: bool = False,
) -> dict[str, object]:
    """Everything about the time on air of one frame, as a JSON-ready dict.

    `payload_size` counts application bytes (LoRaWAN adds 13), or PHY bytes when `phy` is true.
    `frames_per_hour` maps the duty cycle in percent ("0.1", "1", "10", "100") to whole frames that
    one transmitter may start in any hour.
    """
    phy_size = payload_size + (0 if phy else FRAME_OVERHEAD)
    if payload_size < 0 or phy_size > PHY_SIZE_MAX:
        raise ValueError(
            f"payload {payload_size} B makes a frame of {phy_size} B; the radio carries 0..{PHY_SIZE_MAX}"
        )
    duration_us = airtime_us(
        spreading_factor, bandwidth_hz, phy_size, coding_rate=coding_rate, preamble=preamble, crc=crc
    )
    symbol_us = symbol_time_us(spreading_factor, bandwidth_hz)
    permille = {"0.1": 1, "1": 10, "10": 100, "100": 1000}
    return {
        "spreading_factor": spreading_factor,
        "bandwidth_hz": bandwidth_hz,
        "coding_rate": f"4/{coding_rate + 4}",
        "payload_size": payload_size,
        "phy_size": phy_size,
        "airtime_us": duration_us,
        "airtime_ms": duration_us / 1000,
        "symbol_time_us": symbol_us,
        "low_data_rate": symbol_us >= LOW_DATA_RATE_SYMBOL_US,
        "bitrate_bps": round(spreading_factor * 4 / (4 + coding_rate) * 1e6 / symbol_us, 1),
        "goodput_bps": round(payload_size * 8e6 / duration_us, 1),
        "frames_per_hour": {
            name: HOUR_US * share // (1000 * duration_us) for name, share in permille.items()
        },
    }


def _check(
    spreading_factor: int, bandwidth_hz: int, payload_size: int, coding_rate: int, preamble: int
) -> None:
    if spreading_factor not in SPREADING_FACTORS:
        raise ValueError(f"spreading_factor {spreading_factor} is not 5..12")
    if bandwidth_hz <= 0:
        raise ValueError(f"bandwidth_hz {bandwidth_hz} is not positive")
    if not 0 <= payload_size <= PHY_SIZE_MAX:
        raise ValueError(f"payload_size {payload_size} is not 0..{PHY_SIZE_MAX}")
    if coding_rate not in CODING_RATES:
        raise ValueError(f"coding_rate {coding_rate} is not 1..4 (4/5..4/8)")
    if preamble < 0:
        raise ValueError(f"preamble {preamble} is negative")


def _divide(numerator: int, denominator: int) -> int:
    """Integer division rounded to the nearest, halves up."""
    return (2 * numerator + denominator) // (2 * denominator)
