"""The link budget: published sensitivities, loss figures of the measured trace, monotone choices."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.phy import link


def test_published_sensitivities() -> None:
    """SF7 at 125 kHz -124.5 dBm, SF12 -137, twice the bandwidth costs 3 dB."""
    assert link.sensitivity_dbm(7, 125_000) == pytest.approx(-124.53, abs=0.01)
    assert link.sensitivity_dbm(12, 125_000) == pytest.approx(-137.03, abs=0.01)
    assert link.sensitivity_dbm(7, 250_000) - link.sensitivity_dbm(7, 125_000) == pytest.approx(
        3.01, abs=0.01
    )
    assert link.sensitivity_dbm(7, 125_000, noise_figure_db=3) == pytest.approx(-127.53, abs=0.01)


def test_loss_agrees_with_the_measured_trace() -> None:
    """Free space at 1 km and 868 MHz is 91.2 dB; at 5 km the model lies 28.5 +- 5.5 dB above it."""
    assert link.free_space_loss_db(1000, 868e6) == pytest.approx(91.2, abs=0.05)
    excess_db = link.path_loss_db(5000, 868.1e6) - link.free_space_loss_db(5000, 868.1e6)
    assert excess_db == pytest.approx(28.5, abs=5.5)
    assert link.path_loss_db(1, 868e6) == pytest.approx(link.free_space_loss_db(1, 868e6))
    assert link.path_loss_db(0, 868e6) == link.path_loss_db(0.1, 868e6)


def test_low_antennas_cost() -> None:
    """Two antennas at half a metre are worse off at 2 km than on masts; the exponent rules on masts."""
    low = link.path_loss_db(2000, 868e6, heights_m=(0.5, 0.5))
    high = link.path_loss_db(2000, 868e6, heights_m=(2.0, 15.0))
    assert low > high + 10
    assert high == link.path_loss_db(2000, 868e6)
    assert link.plane_earth_loss_db(1000, 2, 10) == pytest.approx(120 - 26.02, abs=0.01)


def test_foliage_is_at_least_10_db_in_orchards_and_vines() -> None:
    for crop in ("apple", "grape"):
        assert link.foliage_loss_db(crop, 1.5, leaf_on=True) >= 10
    for crop, canopy in link.CANOPIES.items():
        inside = link.foliage_loss_db(crop, canopy.height_m / 2, leaf_on=True)
        assert inside > link.foliage_loss_db(crop, canopy.height_m / 2, leaf_on=False)
        assert inside > link.foliage_loss_db(crop, canopy.height_m + 0.1, leaf_on=True)


@given(st.floats(-160, -40), st.floats(0, 20))
def test_the_chosen_spreading_factor_is_the_fastest_with_that_margin(
    rssi_dbm: float, margin_db: float
) -> None:
    chosen = link.best_spreading_factor(rssi_dbm, margin_db=margin_db)
    fits = [sf for sf in range(7, 13) if rssi_dbm - link.sensitivity_dbm(sf, 125_000) >= margin_db]
    assert chosen == (min(fits) if fits else None)


def test_delivery() -> None:
    """No margin is a coin toss, one standard deviation 84 %, no shadowing a step."""
    assert link.delivery_probability(0) == 0.5
    assert link.delivery_probability(5.5) == pytest.approx(0.841, abs=0.001)
    assert link.delivery_probability(-1, 0) == 0.0
    assert link.delivery_probability(1, 0) == 1.0
    assert math.isclose(link.delivery_probability(3) + link.delivery_probability(-3), 1.0)
