"""A station's own duty cycle beside the law: what our ledger grants, the station's rule does not drop."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from swarm.effects import Purpose
from swarm.mac.ledger import AirtimeLedger
from swarm.mac.scheduler import CLASS_C_GAP_US, DownlinkScheduler, Refused
from swarm.mac.self_blocking import SelfBlocking
from swarm.phy.regions import region

EU868 = region("eu868")
SECOND_US = 1_000_000
FREQUENCIES = (867_100_000, 867_500_000, 868_100_000, 868_500_000, 869_525_000)


class Station:
    """What the station itself does: one instant for each pool until which it drops."""

    def __init__(self) -> None:
        self.blocked: dict[int, int] = {}
        self.dropped = 0

    def send(self, frequency_hz: int, at_us: int, airtime_us: int) -> None:
        deci = 869_400_000 <= frequency_hz <= 869_650_000
        centi = 868_000_000 <= frequency_hz <= 868_600_000 or frequency_hz >= 869_700_000
        rate = 10 if deci else 100 if centi else 1000
        if at_us < self.blocked.get(rate, 0):
            self.dropped += 1
            return
        self.blocked[rate] = at_us + airtime_us * rate


def ledger(*, blocking: bool) -> AirtimeLedger:
    made = AirtimeLedger(EU868)
    made.blocking = SelfBlocking("eu868") if blocking else None
    return made


@example(
    [(867_100_000, length_us, 0, length_us > 50_000) for length_us in (50_001, 1_632_534, 1_967_467, 50_000)]
)
@example([(868_100_000, 50_000, 0, True), (867_100_000, 50_000, 0, False), (868_100_000, 50_000, 0, True)])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(FREQUENCIES),
            st.integers(50_000, 2_500_000),
            st.integers(0, 3_000 * SECOND_US),
            st.booleans(),
        ),
        min_size=1,
        max_size=25,
    )
)
def test_a_station_drops_nothing_that_was_granted(wanted: list[tuple[int, int, int, bool]]) -> None:
    made, on_air = ledger(blocking=True), []
    for frequency_hz, airtime_us, not_before_us, sent in wanted:
        at_us = made.earliest_us(frequency_hz, 125_000, airtime_us, not_before_us)
        assert at_us is not None and at_us >= not_before_us
        grant = made.grant(at_us, frequency_hz, 125_000, airtime_us, Purpose.MODEL)
        if sent:
            on_air.append((at_us, frequency_hz, airtime_us))
        else:
            made.release(grant)
            assert made.earliest_us(frequency_hz, 125_000, airtime_us, not_before_us) == at_us
    station = Station()
    for at_us, frequency_hz, airtime_us in sorted(on_air):
        station.send(frequency_hz, at_us, airtime_us)
    assert station.dropped == 0


def test_a_burst_that_the_law_allows_is_paced_for_a_station_only() -> None:
    for blocking in (False, True):
        scheduler = DownlinkScheduler(EU868, ledger(blocking=blocking))
        station, at_us = Station(), 0
        for _ in range(20):
            slot = scheduler.class_c(at_us, 100, 869_525_000, 3, Purpose.MODEL)
            assert not isinstance(slot, Refused)
            station.send(slot.frequency_hz, slot.at_us, slot.airtime_us)
            at_us = slot.at_us + slot.airtime_us
        # Nineteen gaps of ten times a frame's airtime, or frames one after the other, of which a station
        # takes each that starts ten airtimes after the one before.
        taken_every = -(-10 * slot.airtime_us // (slot.airtime_us + CLASS_C_GAP_US))
        assert station.dropped == (0 if blocking else 20 - -(-20 // taken_every))
        assert (at_us > 19 * 10 * slot.airtime_us) == blocking


@pytest.mark.parametrize(("name", "rate"), [("kr920", 50), ("as923", 10), ("us915", 0), ("in865", 0)])
def test_elsewhere_each_frequency_blocks_itself_or_nothing_does(name: str, rate: int) -> None:
    rules = SelfBlocking(name)
    rules.add(922_100_000, 1000, 400)
    assert rules.earliest_us(922_100_000, 400, 1001) == max(1001, 1000 + rate * 400)
    assert rules.earliest_us(922_300_000, 400, 1001) == 1001
    rules.add(922_300_000, 1000, 400)
    rules.remove(922_100_000, 1000)
    assert rules.earliest_us(922_100_000, 400, 1001) == 1001
    assert rules.earliest_us(922_300_000, 400, 1001) == max(1001, 1000 + rate * 400), "its namesake in time"
