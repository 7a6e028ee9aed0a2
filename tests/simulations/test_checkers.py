"""Checkers find what they look for: each promise is broken on purpose, and legal traffic is left alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from simulations.air import UplinkLoss
from simulations.checkers import HOUR_US, AirtimeCheck, Checkers, CounterCheck, UpdateCheck, Violations
from swarm.effects import Event

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "duty_cycle_scenarios.json"


def uplink_event(f_cnt: int, dev_eui: str = "02aa") -> Event:
    return Event("uplink", 5, {"dev_eui": dev_eui, "f_cnt": f_cnt})


def data_down(f_cnt: int, dev_addr: int = 0x0011_2233) -> bytes:
    return (
        b"\x60"
        + dev_addr.to_bytes(4, "little")
        + b"\x00"
        + (f_cnt & 0xFFFF).to_bytes(2, "little")
        + b"\x0aXXXX"
    )


def test_the_sliding_hour_agrees_with_brute_force() -> None:
    """Random traffic near the limit; the oracle sums every hour that ends or begins with a transmission."""
    rng = np.random.default_rng(4)
    violations, check = Violations(), AirtimeCheck("eu868", Violations())
    check = AirtimeCheck("eu868", violations)
    sent: list[tuple[int, int]] = []
    at_us, illegal = 0, 0
    for _ in range(1_500):
        at_us += int(rng.exponential(30e6))
        end_us = at_us + int(rng.integers(50_000, 3_000_000))
        sent.append((at_us, end_us))
        illegal += sum(max(0, min(e, end_us) - max(s, end_us - HOUR_US)) for s, e in sent) > 36_000_000
        check.on_transmission(
            "node 0", at_us, end_us, frequency_hz=868_100_000, bandwidth_hz=125_000, power_dbm=14.0
        )
        at_us = end_us
    assert 0 < illegal < 1_500
    assert violations.count == illegal


def test_the_check_agrees_with_the_vectors_of_an_independent_oracle() -> None:
    for scenario in json.loads(VECTORS.read_text())["scenarios"]:
        violations = Violations()
        check = AirtimeCheck("eu868", violations)
        for request in scenario["requests"]:
            start_us = round(request["t"] * 1e6)
            if request["sliding_window_allows"]:
                check.on_transmission(
                    "x",
                    start_us,
                    start_us + round(request["toa"] * 1e6),
                    frequency_hz=scenario["freq_hz"],
                    bandwidth_hz=125_000,
                    power_dbm=14.0,
                )
        assert violations.count == 0


def test_sub_bands_have_separate_budgets_and_transmitters_too() -> None:
    violations = Violations()
    check = AirtimeCheck("eu868", violations)
    for number, (who, hz) in enumerate([("a", 868_100_000), ("a", 867_100_000), ("b", 868_100_000)]):
        check.on_transmission(
            who, number, number + 36_000_000, frequency_hz=hz, bandwidth_hz=125_000, power_dbm=14.0
        )
    assert violations.count == 0
    check.on_transmission(
        "a", 40_000_000, 40_000_001, frequency_hz=868_500_000, bandwidth_hz=125_000, power_dbm=14.0
    )
    assert violations.count == 1
    assert "a was on the air 36.000 s" in violations.explained[0]


@pytest.mark.parametrize(
    ("hz", "power", "what"),
    [
        (868_650_000, 14.0, "outside"),
        (868_550_000, 14.0, "outside"),
        (869_525_000, 30.0, "30.0 dBm"),
        (868_100_000, 17.0, "17.0 dBm"),
    ],
)
def test_forbidden_frequencies_and_powers_are_found(hz: int, power: float, what: str) -> None:
    violations = Violations()
    AirtimeCheck("eu868", violations).on_transmission(
        "node 1", 0, 1000, frequency_hz=hz, bandwidth_hz=125_000, power_dbm=power
    )
    assert violations.count == 1
    assert what in violations.explained[0]


def test_a_frame_accepted_twice_is_found_and_a_new_session_counts_anew() -> None:
    checkers = Checkers("eu868")
    for event in (uplink_event(0), uplink_event(1), uplink_event(0, "02bb")):
        checkers.on_event(event)
    assert checkers.violations.count == 0
    checkers.on_event(Event("joined", 6, {"dev_eui": "02aa", "dev_addr": "00112233"}))
    checkers.on_event(uplink_event(0))
    assert checkers.violations.count == 0
    checkers.on_event(uplink_event(0))
    assert checkers.violations.count == 1


def test_downlink_counters_only_grow_also_through_the_turn_of_their_sixteen_bits() -> None:
    violations = Violations()
    check = CounterCheck(violations)
    for f_cnt in (65_533, 65_535, 65_536, 65_540):
        check.on_downlink(0, data_down(f_cnt))
    check.on_downlink(0, data_down(3, dev_addr=7))
    check.on_downlink(0, b"\x20" + bytes(16))  # a join accept
    assert violations.count == 0
    check.on_downlink(0, data_down(65_540))
    check.on_downlink(0, data_down(65_539))
    assert violations.count == 2
    check.on_joined(7)
    check.on_downlink(0, data_down(0, dev_addr=7))
    assert violations.count == 2


def test_an_accepted_update_that_its_round_forgot_is_found() -> None:
    violations = Violations()
    check = UpdateCheck(violations)
    for dev_eui in ("a", "b"):
        check.on_update(0, 1, dev_eui)
        check.on_update(0, 2, dev_eui)
        check.on_update(0, 3, dev_eui)
    check.on_closed(0, 1, 2)
    assert violations.count == 0
    check.on_closed(0, 2, 1)
    assert violations.count == 1
    check.finish(0, still_open=3)
    assert violations.count == 1
    check.finish(0, still_open=None)
    assert violations.count == 2


def test_every_frame_has_a_cause_or_is_missed() -> None:
    checkers = Checkers("eu868")
    for number in range(3):
        checkers.on_uplink_start(
            1, number, number + 10, frequency_hz=868_100_000, bandwidth_hz=125_000, power_dbm=14.0
        )
    checkers.on_uplink_end(10, None)
    checkers.on_uplink_end(11, UplinkLoss.COLLISION)
    checkers.finish(20, in_air=1, open_round=None)
    assert checkers.violations.count == 0
    assert (checkers.received, checkers.lost) == (1, {"collision": 1})
    checkers.finish(20, in_air=0, open_round=None)
    assert checkers.violations.explained == ["at 0.000 s: 3 uplinks were sent, 2 are accounted for"]


def test_only_the_first_violations_are_explained_but_all_are_counted() -> None:
    violations = Violations()
    for number in range(25):
        violations.add(number, "x")
    assert (violations.count, len(violations.explained)) == (25, 10)
