"""Adaptive data rate: what is chosen, that it settles on links that fade, and that it never goes below
need."""

from __future__ import annotations

from itertools import pairwise

import pytest

from swarm.mac.adr import HISTORY, Limits, Setting, choose, data_rates, is_reversal, reserve_db
from swarm.phy.link import SNR_LIMIT_DB
from swarm.phy.regions import REGION_NAMES, region
from swarm.prng import Prng

EU868 = region("eu868")
LIMITS = Limits((0, 1, 2, 3, 4, 5), 7)
SLOW = Setting(0, 0, 1)


def chosen(
    snr_db: float,
    now: Setting = SLOW,
    *,
    heard: int = HISTORY,
    lost: int = 0,
    reversals: int = 0,
    limits: Limits = LIMITS,
) -> Setting:
    return choose(
        EU868, limits, now, [snr_db] * min(heard, HISTORY), heard=heard, lost=lost, reversals=reversals
    )


def test_data_rate_first_then_power_in_steps_of_three_decibels() -> None:
    # SF12 needs -20 dB, 5 dB are spared: a link of s dB has s + 15 dB to give, 3 dB a step.
    assert chosen(-13) == SLOW
    assert chosen(-12) == Setting(1, 0, 1)
    assert chosen(-6) == Setting(3, 0, 1)
    assert chosen(0) == Setting(5, 0, 1)
    assert chosen(3) == Setting(5, 1, 1)
    assert chosen(30) == Setting(5, 7, 1)


def test_nothing_is_decided_before_twenty_uplinks() -> None:
    assert chosen(10, heard=HISTORY - 1) == SLOW


def test_lack_gives_power_back_first_and_a_data_rate_only_when_the_margin_is_eaten() -> None:
    fast = Setting(5, 3, 1)  # SF7 needs -7.5 dB: -2.5 with the margin
    assert chosen(-2.5, fast) == fast
    assert chosen(-5.4, fast) == fast
    assert chosen(-5.5, fast) == Setting(5, 2, 1)
    full = Setting(5, 0, 1)
    assert chosen(-7.4, full) == full
    assert chosen(-7.6, full) == Setting(4, 0, 1)
    assert chosen(-20, full) == Setting(0, 0, 1)


def test_one_bad_frame_in_twenty_is_no_reason_and_three_are() -> None:
    snr = [0.0] * 19 + [-20.0]
    assert reserve_db(EU868, 5, snr, 5.0) == pytest.approx(2.5)
    assert reserve_db(EU868, 5, [0.0] * 17 + [-20.0] * 3, 5.0) == pytest.approx(-17.5)


def test_a_node_at_a_refused_rate_or_power_is_not_told_it_again() -> None:
    capped = Limits((0, 1, 2, 3), 2)
    assert chosen(30, limits=capped) == Setting(3, 2, 1)


def test_loss_makes_a_node_repeat_itself_and_two_hundred_good_uplinks_take_that_back() -> None:
    assert chosen(-15, heard=20, lost=4).nb_trans == 1
    assert chosen(-15, heard=46, lost=5).nb_trans == 1
    assert chosen(-15, heard=45, lost=5).nb_trans == 2
    often = Setting(0, 0, 3)
    assert chosen(-15, often, heard=30, lost=30) == often
    assert chosen(-7, Setting(5, 1, 3), heard=30, lost=30) == Setting(5, 0, 3)
    assert chosen(-7, Setting(5, 0, 3), heard=30, lost=30) == Setting(4, 0, 3)
    assert chosen(-15, often, heard=199, lost=0).nb_trans == 3
    assert chosen(-15, often, heard=200, lost=4).nb_trans == 2
    assert chosen(-15, often, heard=200, lost=5).nb_trans == 3


@pytest.mark.parametrize("name", REGION_NAMES)
def test_every_region_has_rates_to_adapt_in(name: str) -> None:
    rules = region(name)
    rates = data_rates(rules, dwell=None, low=0, high=15)
    expected = {"us915": (0, 3), "au915": (2, 5), "as923": (2, 5), "cn470": (1, 5)}.get(name, (0, 5))
    assert (rates[0], rates[-1]) == expected and list(rates) == list(range(rates[0], rates[-1] + 1))


def played(
    mean_db: float, fading_db: float, seed: int, uplinks: int = 2000
) -> tuple[list[Setting], list[bool]]:
    """A device on a link of that SNR at full power: its setting at each uplink, and which ones came."""
    dice = Prng(seed).child("fading").numpy()
    now, history, heard, lost, reversals = SLOW, [], 0, 0, 0
    settings, came = [], []
    for _ in range(uplinks):
        power_db = EU868.tx_power_offsets_db[now.tx_power]
        factor = EU868.data_rate(now.data_rate, uplink=True).spreading_factor
        tries = [mean_db + power_db + dice.normal(0.0, fading_db) for _ in range(now.nb_trans)]
        best = max(tries)
        settings.append(now)
        came.append(best >= SNR_LIMIT_DB[factor])
        if not came[-1]:
            lost += heard > 0
            continue
        heard += 1
        history = [*history, best][-HISTORY:]
        after = choose(EU868, LIMITS, now, history, heard=heard, lost=lost, reversals=reversals)
        if after != now:
            reversals += is_reversal(now, after) and reversals < 5
            now, history, heard, lost = after, [], 0, 0
    return settings, came


@pytest.mark.parametrize("mean_db", range(-18, 13, 3))
@pytest.mark.parametrize("fading_db", [1.0, 3.0, 5.0])
def test_the_data_rate_settles_on_a_link_that_fades(mean_db: int, fading_db: float) -> None:
    """Goal: no oscillation, and frames arrive.  Method: 2000 uplinks over lognormal fading, three seeds."""
    for seed in (1, 2, 3):
        settings, came = played(mean_db, fading_db, seed)
        last = settings[1000:]
        rates = [setting.data_rate for setting in last]
        changes = sum(before != after for before, after in pairwise(rates))
        assert changes <= 2, (seed, sorted(set(rates)))
        assert max(rates) - min(rates) <= (1 if fading_db < 5 else 2)
        powers = sum(a.tx_power != b.tx_power for a, b in pairwise(last))
        assert powers <= 12, (seed, powers)
        below = mean_db - SNR_LIMIT_DB[12] < 1.3 * fading_db + 3  # even SF12 at full power loses frames there
        arrived = sum(came[1000:])
        assert below or arrived >= (970 if fading_db < 3 else 940 if fading_db < 5 else 890), (seed, arrived)
