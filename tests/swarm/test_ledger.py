"""The airtime ledger against brute force: legality, exact waits, future grants, memory, persistence."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.effects import Purpose
from swarm.mac.ledger import AirtimeExceeded, AirtimeLedger, Grant
from swarm.phy.regions import region

HOUR_US = 3_600_000_000
S = 1_000_000
EU868 = region("eu868")
VECTORS = Path(__file__).resolve().parent.parent / "vectors" / "duty_cycle_scenarios.json"
SCENARIOS: list[dict[str, Any]] = json.loads(VECTORS.read_text(encoding="utf-8"))["scenarios"]
RX2 = (869_525_000, 125_000)
M = (868_300_000, 125_000)
K = (864_000_000, 125_000)


@pytest.mark.parametrize("number", range(len(SCENARIOS)))
def test_decisions_of_the_scenarios(number: int) -> None:
    """Goal: every decision of the sliding-window oracle, with the state that its accepted frames make."""
    scenario = SCENARIOS[number]
    ledger = AirtimeLedger(EU868)
    assert EU868.sub_band(scenario["freq_hz"]).name == scenario["sub_band"]
    for request in scenario["requests"]:
        at_us, airtime_us = round(request["t"] * 1e6), round(request["toa"] * 1e6)
        earliest_us = ledger.earliest_us(scenario["freq_hz"], 125_000, airtime_us, at_us)
        assert (earliest_us == at_us) == request["sliding_window_allows"], request
        if earliest_us == at_us:
            ledger.grant(at_us, scenario["freq_hz"], 125_000, airtime_us, Purpose.TELEMETRY)


class Oracle:
    """Second by second on a line of time; every one of all windows is summed."""

    def __init__(self, budget_s: int, span_s: int) -> None:
        self.budget_s = budget_s
        self.on = np.zeros(span_s, dtype=np.int64)

    def legal(self, at_s: int, airtime_s: int) -> bool:
        low = max(0, at_s - 3600)
        on = self.on[low : at_s + airtime_s + 3600].copy()  # no window that touches the frame sees more
        on[at_s - low : at_s - low + airtime_s] += 1
        total = np.concatenate(([0], np.cumsum(on)))
        starts = np.arange(0, at_s - low + airtime_s)
        ends = np.minimum(starts + 3600, len(on))
        return int((total[ends] - total[starts]).max()) <= self.budget_s

    def earliest(self, airtime_s: int, not_before_s: int, until_s: int) -> int | None:
        return next((t for t in range(not_before_s, until_s) if self.legal(t, airtime_s)), None)

    def add(self, at_s: int, airtime_s: int) -> None:
        self.on[at_s : at_s + airtime_s] += 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(3600, 9000), st.integers(1, 120), st.booleans()), min_size=1, max_size=14),
    st.sampled_from([RX2, M]),
)
def test_against_brute_force(requests: list[tuple[int, int, bool]], signal: tuple[int, int]) -> None:
    """Goal: the first legal second equals that of an oracle which sums all windows.

    Requests come in any order of time, so that many grants lie in the future of later questions;
    half of them are asked without being granted.  Grants may overlap.
    """
    ledger = AirtimeLedger(EU868)
    budget_s = 360 if signal == RX2 else 36
    oracle = Oracle(budget_s, 40_000)  # 14 frames of 16 s at 36 s an hour reach beyond 30,000
    for at_s, length, keep in requests:
        airtime_s = length if signal == RX2 else 1 + length // 8
        mine_us = ledger.earliest_us(*signal, airtime_s * S, at_s * S)
        assert mine_us is not None
        assert oracle.earliest(airtime_s, at_s, mine_us // S + 2) == mine_us // S
        assert mine_us % S == 0
        if keep:
            ledger.grant(mine_us, *signal, airtime_s * S, Purpose.MODEL)
            oracle.add(mine_us // S, airtime_s)


def legal_exactly(grants: list[Grant], at_us: int, airtime_us: int, budget_us: int) -> bool:
    """The windows that can be the fullest, summed naively to the microsecond."""
    frames = [(grant.at_us, grant.at_us + grant.airtime_us) for grant in grants]
    frames.append((at_us, at_us + airtime_us))
    window_ends = [end for _, end in frames] + [start + HOUR_US for start, _ in frames]
    return all(
        sum(max(0, min(end, stop) - max(start, stop - HOUR_US)) for start, end in frames) <= budget_us
        for stop in window_ends
        if at_us < stop and stop - HOUR_US < at_us + airtime_us
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3 * HOUR_US), st.integers(1, 9 * S)), min_size=1, max_size=25))
def test_the_wait_is_exact_to_the_microsecond(requests: list[tuple[int, int]]) -> None:
    """Goal: the answer is legal, and the microsecond before it is not (unless it was the first asked for)."""
    ledger = AirtimeLedger(EU868)
    grants: list[Grant] = []
    for asked_us, airtime_us in requests:
        earliest_us = ledger.earliest_us(*M, airtime_us, asked_us)
        assert earliest_us is not None
        assert legal_exactly(grants, earliest_us, airtime_us, 36 * S)
        if earliest_us > asked_us:
            assert not legal_exactly(grants, earliest_us - 1, airtime_us, 36 * S)
            assert not legal_exactly(grants, asked_us, airtime_us, 36 * S)
        grants.append(ledger.grant(earliest_us, *M, airtime_us, Purpose.ACK))


def test_a_full_budget_comes_back_as_it_was_spent() -> None:
    """Method: spend 36 s at once; a second frame has to wait until just enough has left the hour."""
    ledger = AirtimeLedger(EU868)
    ledger.grant(0, *M, 36 * S, Purpose.MODEL)
    assert ledger.earliest_us(*M, 2 * S, 40 * S) == HOUR_US
    assert ledger.earliest_us(*M, 36 * S, 40 * S) == HOUR_US
    ledger.grant(HOUR_US, *M, 2 * S, Purpose.MODEL)
    assert ledger.earliest_us(*M, 1, HOUR_US + 2 * S) == HOUR_US + 2 * S
    assert ledger.earliest_us(867_100_000, 125_000, 2 * S, 40 * S) == 40 * S, "another sub-band"


def test_future_grants_hold_back_earlier_frames() -> None:
    """Method: 30 s reserved for 1000 s later leave room for exactly 6 s before them."""
    ledger = AirtimeLedger(EU868)
    ledger.grant(1000 * S, *M, 30 * S, Purpose.ROUND)
    assert ledger.earliest_us(*M, 6 * S, 0) == 0
    assert ledger.earliest_us(*M, 6 * S + 1, 0) == HOUR_US + 1000 * S - (6 * S)
    with pytest.raises(AirtimeExceeded, match="not legal at 0 us"):
        ledger.grant(0, *M, 6 * S + 1, Purpose.ACK)


def test_release_gives_the_airtime_back() -> None:
    ledger = AirtimeLedger(EU868)
    first = ledger.grant(0, *M, 20 * S, Purpose.QUERY)
    second = ledger.grant(20 * S, *M, 16 * S, Purpose.QUERY)
    assert ledger.earliest_us(*M, S, 40 * S) == HOUR_US
    ledger.release(first)
    assert ledger.earliest_us(*M, 20 * S, 40 * S) == 40 * S
    assert ledger.spent_us(40 * S) == {("M", Purpose.QUERY): 16 * S}
    ledger.release(second)
    assert ledger.spent_us(40 * S) == {}
    with pytest.raises(KeyError):
        ledger.release(second)


def test_never_and_nowhere() -> None:
    """Frames beyond a whole hour's budget, beyond the dwell time, or outside all sub-bands: None."""
    ledger = AirtimeLedger(EU868)
    assert ledger.earliest_us(*K, 3_600_000, 0) == 0
    assert ledger.earliest_us(*K, 3_600_001, 0) is None
    assert ledger.earliest_us(868_650_000, 125_000, 1000, 0) is None
    assert ledger.earliest_us(868_300_000, 1_000_000, 1000, 0) is None
    with pytest.raises(AirtimeExceeded):
        ledger.grant(0, 868_650_000, 125_000, 1000, Purpose.ACK)
    with pytest.raises(ValueError, match="airtime_us"):
        ledger.earliest_us(*M, 0, 0)
    for name, frequency_hz in (("us915", 902_300_000), ("au915", 915_200_000), ("as923", 923_200_000)):
        limited = AirtimeLedger(region(name))
        assert limited.earliest_us(frequency_hz, 125_000, 400_000, 5) == 5
        assert limited.earliest_us(frequency_hz, 125_000, 400_001, 5) is None
    assert AirtimeLedger(region("as923"), dwell=False).earliest_us(923_200_000, 125_000, 400_001, 5) == 5
    assert AirtimeLedger(region("us915")).earliest_us(923_300_000, 500_000, 700_000, 5) == 5


def test_regions_without_duty_cycle_still_keep_the_books() -> None:
    ledger = AirtimeLedger(region("us915"))
    for second in range(3600):
        ledger.grant(second * S, 923_300_000, 500_000, 900_000, Purpose.MODEL)
    assert ledger.spent_us(HOUR_US) == {("down", Purpose.MODEL): 3240 * S}
    assert ledger.fraction(HOUR_US) == {"up": 0.0, "down": 0.9}


def test_accounts_by_sub_band_and_purpose() -> None:
    """Goal: the hour is cut at its edges, future grants do not count yet, every sub-band is listed."""
    ledger = AirtimeLedger(EU868)
    ledger.grant(0, *M, 10 * S, Purpose.JOIN)
    ledger.grant(100 * S, *RX2, 36 * S, Purpose.MODEL)
    ledger.grant(5000 * S, *RX2, 36 * S, Purpose.MODEL)
    assert ledger.spent_us(4 * S) == {("M", Purpose.JOIN): 4 * S}
    assert ledger.spent_us(200 * S) == {("M", Purpose.JOIN): 10 * S, ("P", Purpose.MODEL): 36 * S}
    assert ledger.spent_us(HOUR_US + 4 * S) == {("M", Purpose.JOIN): 6 * S, ("P", Purpose.MODEL): 36 * S}
    assert ledger.fraction(200 * S)["P"] == pytest.approx(0.1)
    assert sorted(ledger.fraction(0)) == ["K", "L", "M", "N", "P", "Q"]


def test_a_restart_forgets_nothing() -> None:
    """Goal: a ledger made from the rows of another answers the same; old rows are not written."""
    ledger = AirtimeLedger(EU868)
    for second in range(0, 7200, 200):
        ledger.grant(second * S, *M, 1_500_000, Purpose.QUERY)
    now_us = 7200 * S
    future = ledger.grant(now_us + 10 * S, *M, 5 * S, Purpose.ROUND)
    rows = ledger.rows(now_us)
    assert len(rows) == 18 + 1
    assert AirtimeLedger.to_row(future) in rows
    again = AirtimeLedger(EU868)
    again.restore(json.loads(json.dumps(rows)))
    assert again.spent_us(now_us) == ledger.spent_us(now_us)
    for airtime_us in (S, 4 * S, 9 * S, 36 * S):
        assert again.earliest_us(*M, airtime_us, now_us) == ledger.earliest_us(*M, airtime_us, now_us)
    with pytest.raises(ValueError, match="airtime row"):
        again.restore_row({"at_us": "soon", "airtime_us": 5, "sub_band": "M", "purpose": "ack"})


def test_memory_is_bounded_and_the_limit_holds_for_a_month() -> None:
    """Method: a node that always sends as early as it may, for 30 days; the books stay small and legal."""
    ledger = AirtimeLedger(EU868)
    at_us, sent, airtime_us = 0, 0, 1_200_000
    sizes = []
    while at_us < 30 * 24 * HOUR_US:
        earliest_us = ledger.earliest_us(*M, airtime_us, at_us)
        assert earliest_us is not None
        ledger.grant(earliest_us, *M, airtime_us, Purpose.TELEMETRY)
        at_us = earliest_us + airtime_us
        sent += 1
        if sent % 500 == 0:
            sizes.append(len(ledger.rows(-HOUR_US)))
    assert 30 * 24 * 30 <= sent <= 30 * 24 * 30 + 30
    assert max(sizes) <= 2 * 25 * 31, "no more than twice a day and an hour of grants"
    assert sys.getsizeof(ledger) < 1000


def test_instants_long_forgotten_are_answered_on_the_safe_side() -> None:
    """Goal: after pruning, a question about yesterday never gets an answer that old grants forbid."""
    ledger = AirtimeLedger(EU868)
    for hour in range(100):
        ledger.grant(hour * HOUR_US, *M, 36 * S, Purpose.MODEL)
    answer_us = ledger.earliest_us(*M, S, 30 * HOUR_US)
    assert answer_us is not None
    assert answer_us >= 70 * HOUR_US


def test_future_reservations_are_fast_enough_for_a_thousand_ledgers() -> None:
    """Goal: the work per question does not grow with the grants of the day (counted, not timed)."""
    ledger = AirtimeLedger(EU868)
    for minute in range(24 * 60):
        ledger.grant(minute * 60 * S, *RX2, 3 * S, Purpose.MODEL)
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        ledger.earliest_us(*RX2, S, 24 * HOUR_US)
    finally:
        sys.setprofile(None)
    assert calls < 20
