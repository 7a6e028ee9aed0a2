"""The energy book against sums done by hand and against the published battery life it is modelled on."""

from __future__ import annotations

import numpy as np
import pytest

from simulations.energy import Currents, EnergyBook, transmit_ma

DAY_US = 86_400_000_000


def test_transmit_current_follows_the_table_and_is_linear_between_its_rows() -> None:
    assert [transmit_ma(power) for power in (2, 10, 14, 17, 20)] == [24, 31, 44, 90, 125]
    assert transmit_ma(15.5) == pytest.approx((44 + 90) / 2)
    assert (transmit_ma(-4), transmit_ma(27)) == (24, 125)


def test_a_node_that_does_nothing_only_sleeps() -> None:
    book = EnergyBook(1)
    energy = book.per_node_day_mj(np.zeros(1, dtype=np.int64), DAY_US)
    assert energy["sleep"] == pytest.approx(0.016 * 3.3 * 86_400)
    assert sum(energy.values()) == energy["sleep"]


def test_each_state_is_current_times_voltage_times_time() -> None:
    book = EnergyBook(2)
    book.uplink(0, 100_000, 14.0, update=False)
    book.wait(0, 1_000_000)
    book.window(0, 30_000)
    book.sensed(24)
    states = book.by_state_mj(np.array([5_000_000, 0]), DAY_US)
    assert states["transmit"].tolist() == pytest.approx([44 * 3.3 * 0.1, 0])
    assert states["wait"].tolist() == pytest.approx([27 * 3.3 * 1.0, 0])
    assert states["windows"].tolist() == pytest.approx([11.2 * 3.3 * 0.03, 0])
    assert states["listen"].tolist() == pytest.approx([11.2 * 3.3 * 5.0, 0])
    assert states["compute"].tolist() == pytest.approx([8 * 3.3 * (24 * 0.005 + 0.002), 8 * 3.3 * 24 * 0.005])
    assert states["sleep"][0] < states["sleep"][1]


def test_an_update_costs_more_than_a_status_by_its_computing() -> None:
    one, other = EnergyBook(1), EnergyBook(1)
    one.uplink(0, 100_000, 14.0, update=True)
    other.uplink(0, 100_000, 14.0, update=False)
    listened = np.zeros(1, dtype=np.int64)
    difference = sum(one.by_state_mj(listened, DAY_US).values()) - sum(
        other.by_state_mj(listened, DAY_US).values()
    )
    assert float(difference[0]) == pytest.approx(0.2 * 3.3 * (8 - 0.016), rel=1e-6)


@pytest.mark.parametrize(("every_s", "years"), [(300, 0.97), (86_400, 5.98)])
def test_the_published_battery_lives_of_casals_come_out(every_s: int, years: float) -> None:
    """2400 mAh, 45 uA asleep, SF7: 0.97 years at one frame every five minutes, 5.98 at one a day."""
    book = EnergyBook(1, Currents(sleep_ma=0.045, receive_ma=38.0, compute_ma=0.0))
    frames = 365 * 86_400 // every_s
    # Their state table: 2.1 s awake at 27 mA; the frame takes 57 ms at 83 mA, the windows 50 ms at 38 mA.
    book.uplink(0, 57_000 * frames, 16.6, update=False)
    book.wait(0, 2_000_000 * frames)
    book.window(0, 50_000 * frames)
    year_us = 365 * DAY_US
    energy_mj = sum(
        float(each[0]) for each in book.by_state_mj(np.zeros(1, dtype=np.int64), year_us).values()
    )
    charge_mah = energy_mj / 3.3 / 3600
    assert 2400 / charge_mah == pytest.approx(years, rel=0.15)


def test_a_battery_empties_by_what_was_spent_and_not_below_nothing() -> None:
    book = EnergyBook(2)
    start, listened = np.array([1.0, 0.01]), np.zeros(2, dtype=np.int64)
    half_us = int(1_200 / 0.016 * 3_600e6)  # half of 2400 mAh asleep
    assert book.battery_left(listened, half_us, start).tolist() == pytest.approx([0.5, 0.0])
