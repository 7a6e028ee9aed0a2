"""The air against closed forms that every correct LoRa simulator reproduces, and each cause of loss."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest

from simulations.air import SIR_THRESHOLD_DB, Air, UplinkFrame, UplinkLoss
from simulations.links import GATEWAY_ANTENNA_DBI, FrameFate, Links, frame_key
from simulations.scenario import Hardship, Radio
from swarm.phy.airtime import airtime_us
from swarm.phy.link import path_loss_db, sensitivity_dbm
from swarm.prng import Prng

CALM = Hardship(shadowing_db=0.0, channel_fading_db=0.0, fading_db=0.0, clock_drift_ppm=0.0)
TOLERANCE = 0.01


def make_air(
    x_m: Iterable[float], hardship: Hardship = CALM, radio: Radio | None = None, seed: int = 1
) -> Air:
    radio = radio or Radio(demodulators=10_000)
    x = np.asarray(list(x_m), dtype=np.float64)
    return Air(Links(Prng(seed), x, radio, hardship), radio)


def frame(
    start_us: int, airtime: int, *, node: int = 0, key: int = 0, sf: int = 7, hz: int = 868_100_000
) -> UplinkFrame:
    return UplinkFrame(node, key, start_us, start_us + airtime, hz, sf, 125_000, 14.0)


def resolve(
    air: Air, frames: list[UplinkFrame], transmissions: list[tuple[int, int]] | None = None
) -> Counter[str]:
    """Play frames (and gateway transmissions) in the order of time; count each frame's fate."""
    heap: list[tuple[int, int, int, object]] = []
    for number, each in enumerate(frames):
        heapq.heappush(heap, (each.start_us, 1, number, each))
        heapq.heappush(heap, (each.end_us, 0, number, each))
    for number, each_tx in enumerate(transmissions or []):
        heapq.heappush(heap, (each_tx[0], 2, number, each_tx))
    fates: Counter[str] = Counter()
    while heap:
        _, kind, _, what = heapq.heappop(heap)
        if isinstance(what, tuple):
            air.gateway_transmits(*what)
        elif kind == 1:
            air.start(what)  # type: ignore[arg-type]
        else:
            outcome = air.finish(what)  # type: ignore[arg-type]
            fates[outcome.lost or "received"] += 1
    assert air.frames_in_air == 0
    assert not air._active, "memory must be that of the frames in the air"
    assert air.demodulators_locked == 0
    return fates


def poisson(rng: np.random.Generator, rate_hz: float, count: int) -> list[int]:
    return np.cumsum(rng.exponential(1e6 / rate_hz, count)).astype(np.int64).tolist()


@pytest.mark.parametrize("load", [0.1, 0.3, 0.7])
def test_pure_aloha_receives_e_to_the_minus_two_g_on_each_channel_and_spreading_factor(load: float) -> None:
    """Any overlap destroys: Poisson traffic of G Erlang survives with e^-2G; channels and SFs do not mix."""
    rng = np.random.default_rng(int(load * 100))
    radio = Radio(demodulators=10**6, capture="aloha")
    frames, groups = [], [(sf, hz) for sf in (7, 9) for hz in (868_100_000, 868_300_000)]
    for sf, hz in groups:
        airtime = airtime_us(sf, 125_000, 20)
        for number, start in enumerate(poisson(rng, load * 1e6 / airtime, 20_000)):
            frames.append(frame(start, airtime, key=number, sf=sf, hz=hz))
    resolve(make_air([100.0], radio=radio), frames)
    for sf, hz in groups:
        mine = [each for each in frames if (each.spreading_factor, each.frequency_hz) == (sf, hz)]
        received = sum(each.lost is None for each in mine) / len(mine)
        assert received == pytest.approx(math.exp(-2 * load), abs=TOLERANCE)


def test_two_airtimes_on_one_channel_follow_their_formula() -> None:
    """PDR_1 = exp(-2 l1 T1 - l2 (T1 + T2)), and the same with 1 and 2 exchanged."""
    rng = np.random.default_rng(7)
    radio = Radio(demodulators=10**6, capture="aloha")
    t1, t2 = airtime_us(9, 125_000, 13), airtime_us(9, 125_000, 64)
    l1, l2, hours = 0.6, 0.4, 60_000
    frames1 = [frame(s, t1, sf=9, key=i) for i, s in enumerate(poisson(rng, l1, int(l1 * hours)))]
    frames2 = [frame(s, t2, sf=9, key=i) for i, s in enumerate(poisson(rng, l2, int(l2 * hours)))]
    resolve(make_air([100.0], radio=radio), frames1 + frames2)
    for mine, own, other, other_rate in ((frames1, t1, t2, l2), (frames2, t2, t1, l1)):
        own_rate = l1 + l2 - other_rate
        expected = math.exp(-2 * own_rate * own / 1e6 - other_rate * (own + other) / 1e6)
        received = sum(each.lost is None for each in mine) / len(mine)
        assert received == pytest.approx(expected, abs=TOLERANCE)


def erlang_b(load: float, servers: int) -> float:
    blocked = 1.0
    for number in range(1, servers + 1):
        blocked = load * blocked / (number + load * blocked)
    return blocked


@pytest.mark.parametrize(("load", "demodulators"), [(6.0, 8), (10.0, 8), (14.0, 16)])
def test_demodulators_block_by_erlang_b(load: float, demodulators: int) -> None:
    """Each frame on a frequency of its own, so that nothing but the demodulators is short."""
    rng = np.random.default_rng(demodulators)
    airtime = airtime_us(8, 125_000, 20)
    starts = poisson(rng, load * 1e6 / airtime, 60_000)
    frames = [frame(s, airtime, key=i, sf=8, hz=100_000_000 + i % 500) for i, s in enumerate(starts)]
    air = make_air([100.0], radio=Radio(demodulators=demodulators))
    fates = resolve(air, frames)
    assert set(fates) == {"received", UplinkLoss.NO_DEMODULATOR}
    assert fates[UplinkLoss.NO_DEMODULATOR] / len(frames) == pytest.approx(
        erlang_b(load, demodulators), abs=TOLERANCE
    )


@pytest.mark.parametrize("distance_m", [8_000.0, 14_000.0, 20_000.0])
def test_lognormal_coverage_is_the_q_function(distance_m: float) -> None:
    """P(received > sensitivity) = Q((sensitivity - mean) / sigma), over links drawn from the seed."""
    sigma, radio = 7.8, Radio(demodulators=10**6)
    nodes = 20_000
    hardship = Hardship(shadowing_db=sigma, channel_fading_db=0.0, fading_db=0.0)
    airtime = airtime_us(9, 125_000, 20)
    frames = [frame(n * 10 * airtime, airtime, node=n, key=n, sf=9) for n in range(nodes)]
    fates = resolve(make_air([distance_m] * nodes, hardship, radio), frames)
    mean = 14.0 + GATEWAY_ANTENNA_DBI - path_loss_db(distance_m, 868_000_000)
    q = 0.5 * math.erfc((sensitivity_dbm(9, 125_000, 6.0) - mean) / sigma / math.sqrt(2))
    assert fates["received"] / nodes == pytest.approx(q, abs=TOLERANCE)


def test_a_half_duplex_gateway_misses_what_overlaps_its_own_frames() -> None:
    """Periodic downlinks of D every P: a Poisson uplink of T is lost with (D + T) / P, on every channel."""
    rng = np.random.default_rng(3)
    airtime, down, period, count = airtime_us(9, 125_000, 20), 700_000, 5_000_000, 30_000
    starts = poisson(rng, 0.5, count)
    frames = [frame(s, airtime, key=i, sf=9, hz=867_100_000 + i % 500) for i, s in enumerate(starts)]
    downs = [(t, t + down) for t in range(0, starts[-1] + period, period)]
    fates = resolve(make_air([100.0], radio=Radio(demodulators=10**6)), frames, downs)
    expected = (down + airtime) / period
    assert fates[UplinkLoss.GATEWAY_TRANSMITTING] / count == pytest.approx(expected, abs=TOLERANCE)
    assert set(fates) == {"received", UplinkLoss.GATEWAY_TRANSMITTING}


@pytest.mark.parametrize("nodes", [60, 200])
def test_pairwise_capture_reproduces_lorasims_closed_form(nodes: int) -> None:
    """Nodes uniform in a disc, 6 dB capture, three free preamble symbols: DER as in the published formula."""
    rng = np.random.default_rng(nodes)
    gamma, airtime = 2.32, airtime_us(12, 125_000, 20)
    radio = Radio(demodulators=10**6, capture="pairwise", path_loss_exponent=gamma)
    places = 4_000
    x = 50_000.0 * np.sqrt(rng.random(places))
    rate, count = nodes / 100.0, 40_000
    who = rng.integers(0, places, count)
    starts = poisson(rng, rate, count)
    frames = [
        frame(s, airtime, node=int(n), key=i, sf=12) for i, (s, n) in enumerate(zip(starts, who, strict=True))
    ]
    fates = resolve(make_air(x, radio=radio), frames)
    a = 2 * rate * (airtime - 3 * 32_768) / 1e6
    c2 = 10 ** (12 / (10 * gamma))
    expected = (1 - math.exp(-a)) / (a * c2) + (1 - 1 / c2) * math.exp(-a)
    assert fates["received"] / count == pytest.approx(expected, abs=TOLERANCE)


def pair(
    first_db: float,
    second_db: float,
    *,
    overlap: float = 1.0,
    sf: tuple[int, int] = (7, 7),
    capture: str = "energy",
) -> list[bool]:
    """Whether each of two overlapping frames, that many dB strong, is received."""
    reference = 1_000.0
    radio = Radio(capture=capture, path_loss_exponent=2.0)  # type: ignore[arg-type]
    x = [reference * 10 ** (-db / 20) for db in (first_db, second_db)]
    t = 1_000_000
    frames = [frame(0, t, node=0, sf=sf[0]), frame(int(t * (1 - overlap)), t, node=1, sf=sf[1])]
    resolve(make_air(x, radio=radio), frames)
    return [each.lost is None for each in frames]


def test_a_frame_six_decibels_stronger_survives_and_the_weaker_does_not() -> None:
    assert pair(6.1, 0.0) == [True, False]
    assert pair(0.0, 6.1) == [False, True]
    assert pair(5.9, 0.0) == [False, False]


def test_a_short_overlap_is_forgiven_by_energy_and_not_by_the_pairwise_rule() -> None:
    """20 % of an equally strong frame: ns-3's rule receives both, LoRaSim's neither."""
    assert pair(0.0, 0.0, overlap=0.2) == [True, True]
    assert pair(0.0, 0.0, overlap=0.2, capture="pairwise") == [False, False]
    assert pair(0.0, 0.0, overlap=0.002, capture="pairwise") == [True, True]
    assert pair(0.0, 0.0, overlap=0.002, capture="aloha") == [False, False]


@pytest.mark.parametrize("wanted", range(7, 13))
@pytest.mark.parametrize("interfering", range(7, 13))
def test_each_cell_of_the_matrix_is_a_threshold(wanted: int, interfering: int) -> None:
    threshold = SIR_THRESHOLD_DB[wanted - 7][interfering - 7]
    for capture in ("energy", "pairwise"):
        assert pair(threshold + 0.1, 0.0, sf=(wanted, interfering), capture=capture)[0]
        assert not pair(threshold - 0.1, 0.0, sf=(wanted, interfering), capture=capture)[0]


def test_interference_adds_up() -> None:
    """Two interferers, each 8 dB weaker, together are 5 dB weaker: too strong for the 6 dB of one SF."""
    t, radio = 1_000_000, Radio(path_loss_exponent=2.0)
    x = [1_000.0, 1_000.0 * 10 ** (8 / 20), 1_000.0 * 10 ** (8 / 20)]
    both = [frame(0, t, node=n) for n in range(3)]
    resolve(make_air(x, radio=radio), both)
    assert both[0].lost is UplinkLoss.COLLISION
    one = [frame(0, t, node=n) for n in range(2)]
    resolve(make_air(x, radio=radio), one)
    assert one[0].lost is None


def test_interference_under_the_sensitivity_still_counts() -> None:
    """A frame too weak to be received is not too weak to harm one that is about as weak."""
    radio = Radio(path_loss_exponent=2.0)
    edge_m = 10 ** ((14 + GATEWAY_ANTENNA_DBI + 124.5 - path_loss_db(1.0, 868e6)) / 20)  # just at SF7's floor
    frames = [frame(0, 1_000_000, node=0), frame(0, 1_000_000, node=1)]
    resolve(make_air([0.95 * edge_m, 1.05 * edge_m], radio=radio), frames)
    assert [each.lost for each in frames] == [UplinkLoss.COLLISION, UplinkLoss.UNDER_SENSITIVITY]


def test_foreign_interference_and_outages_have_their_own_causes() -> None:
    hardship = Hardship(shadowing_db=0, channel_fading_db=0, fading_db=0, loss_probability=0.25)
    frames = [frame(n * 100_000, 50_000, key=n) for n in range(20_000)]
    air = make_air([100.0], hardship)
    fates = resolve(air, frames)
    assert fates[UplinkLoss.INTERFERENCE] / len(frames) == pytest.approx(0.25, abs=TOLERANCE)
    air.gateway_fails(3_000_000_000, 3_001_000_000)
    assert air.gateway_is_down(3_000_999_999)
    assert resolve(air, [frame(3_000_500_000, 50_000)]) == {UplinkLoss.OUTAGE: 1}
    assert resolve(air, [frame(3_001_000_000, 50_000, key=3)]) == {"received": 1}


def test_a_frames_fate_does_not_depend_on_what_was_sent_before() -> None:
    """The same frame, first among others and alone, fades the same."""
    hardship = Hardship(shadowing_db=6.0, channel_fading_db=2.0, fading_db=3.0, loss_probability=0.3)
    crowd = [
        frame(
            n * 100_000, 50_000, node=n % 7, key=frame_key(n % 7, n // 7), hz=868_100_000 + 200_000 * (n % 3)
        )
        for n in range(500)
    ]
    resolve(make_air([900.0] * 7, hardship), crowd)
    alone = frame(
        crowd[333].start_us,
        50_000,
        node=333 % 7,
        key=frame_key(333 % 7, 333 // 7),
        hz=crowd[333].frequency_hz,
    )
    resolve(make_air([900.0] * 7, hardship), [alone])
    assert (alone.received_dbm, alone.lost) == (crowd[333].received_dbm, crowd[333].lost)


def test_the_hashes_of_one_and_of_many_nodes_agree_and_look_random() -> None:
    fate, nodes = FrameFate(42), np.arange(5_000)
    many = fate.uniforms(nodes, 77, 8)
    assert [fate.uniform(int(n), 77, 8) for n in nodes] == many.tolist()
    normals = fate.normals(nodes, 78, 0)
    assert [fate.normal(int(n), 78, 0) for n in nodes[:200]] == pytest.approx(
        normals[:200].tolist(), abs=1e-12
    )
    assert abs(float(normals.mean())) < 0.05
    assert float(normals.std()) == pytest.approx(1.0, abs=0.03)
    assert abs(float(np.corrcoef(many, fate.uniforms(nodes, 79, 8))[0, 1])) < 0.05
    assert abs(float(np.corrcoef(many[1:], many[:-1])[0, 1])) < 0.05


def test_channels_of_one_link_differ_as_much_as_the_scenario_says() -> None:
    links = Links(Prng(5), np.full(4_000, 500.0), Radio(), Hardship(channel_fading_db=2.5))
    difference = links.channel_gain_db(868_100_000) - links.channel_gain_db(867_500_000)
    assert float(difference.std()) == pytest.approx(2.5 * math.sqrt(2), abs=0.15)
