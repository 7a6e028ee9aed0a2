"""The Flower door: every strategy by name, bad replies counted, state kept, nothing global touched."""

from __future__ import annotations

import hashlib
import inspect
import random
import time

import numpy as np
import pytest

from swarm.federation import strategy as door
from swarm.federation.prototypes import reply_size
from swarm.federation.reply import OWN
from swarm.federation.strategy import (
    DEFAULT_OPTIONS,
    PROTOTYPES,
    Aggregated,
    FlowerStrategy,
    Reply,
    option_names,
    strategy_names,
)
from swarm.model.layout import WEATHER

SIZE = 512 + 99 * 2
FLOWER_NAMES = [name for name in strategy_names() if name not in OWN]
OPTIONS: dict[str, dict[str, float | int]] = {
    "FedAvgM": {"server_momentum": 0.9},
    "FedProx": {"proximal_mu": 0.1},
    "Krum": {"num_malicious_nodes": 1},
    "MultiKrum": {"num_malicious_nodes": 1, "num_nodes_to_select": 3},
    "Bulyan": {"num_malicious_nodes": 1},
}


def make(name: str) -> FlowerStrategy:
    return FlowerStrategy(name, WEATHER, OPTIONS.get(name, {}))


def replies_of(round_number: int, count: int = 8, size: int = SIZE) -> list[Reply]:
    draw = np.random.default_rng([round_number, count])
    return [Reply(i, draw.normal(size=size) * 0.01, int(draw.integers(1, 20))) for i in range(count)]


def prototype_replies(round_number: int, count: int = 12) -> list[Reply]:
    """Flat class-mean replies: one sample of each of two classes per node."""
    draw = np.random.default_rng([7, round_number])
    replies = []
    for node in range(count):
        flat = np.zeros(reply_size(WEATHER))
        flat[0], flat[1] = node % 2, 32
        for label in (0, 2):
            flat[2 + label * 33] = 1
            flat[3 + label * 33 : 35 + label * 33] = draw.integers(-300, 300, 32) + 200 * (label - 1)
        replies.append(Reply(node, flat, 2))
    return replies


def digest(done: Aggregated) -> str:
    assert done.vector is not None, done.failure
    return hashlib.sha256(done.vector.tobytes()).hexdigest()


@pytest.mark.parametrize("name", FLOWER_NAMES)
def test_every_strategy_aggregates_by_name(name: str) -> None:
    start = np.zeros(SIZE)
    done = make(name).aggregate(1, start, replies_of(1))
    assert done.failure is None and done.errors == () and done.replies == 8
    assert done.vector is not None and done.vector.shape == (SIZE,)
    assert np.isfinite(done.vector).all() and np.abs(done.vector).max() > 0


def test_fedavg_is_the_mean_weighted_by_examples_and_weight() -> None:
    replies = [Reply(2, np.full(SIZE, 3.0), 10, weight=0.5), Reply(1, np.full(SIZE, 1.0), 15)]
    done = make("FedAvg").aggregate(1, np.zeros(SIZE), replies)
    assert done.vector is not None
    assert np.allclose(done.vector, (3.0 * 5 + 1.0 * 15) / 20)


def test_fedadam_step_is_what_the_formula_says() -> None:
    """Method: Adam by hand for two rounds of one repeated change, Flower's bias correction included."""
    adam = FlowerStrategy("FedAdam", WEATHER, {"eta": 0.02, "tau": 1e-4})
    vector = np.zeros(SIZE)
    m = v = 0.0
    expected = 0.0
    for number in (1, 2):
        done = adam.aggregate(number, vector, [Reply(0, vector + 0.5, 3), Reply(1, vector + 0.5, 9)])
        assert done.vector is not None
        m, v = 0.9 * m + 0.1 * 0.5, 0.99 * v + 0.01 * 0.25
        rate = 0.02 * np.sqrt(1 - 0.99 ** (number + 1)) / (1 - 0.9 ** (number + 1))
        expected += rate * m / (np.sqrt(v) + 1e-4)
        vector = done.vector
    assert np.allclose(vector, expected, rtol=1e-12)


@pytest.mark.parametrize("name", [*FLOWER_NAMES, PROTOTYPES])
def test_restored_state_continues_to_the_same_bits(name: str) -> None:
    """Method: 3 rounds, save, 3 more on the original and on a restored copy."""
    make_replies = prototype_replies if name == PROTOTYPES else replies_of
    original, vector = make(name), np.linspace(-1, 1, SIZE)
    for number in range(1, 4):
        done = original.aggregate(number, vector, make_replies(number))
        assert done.vector is not None
        vector = done.vector
    blob = original.state()
    copy = make(name)
    copy.restore(blob)
    assert copy.rounds == 3 and copy.state() == blob
    one, two = vector, vector
    for number in range(4, 7):
        first = original.aggregate(number, one, make_replies(number))
        second = copy.aggregate(number, two, make_replies(number))
        assert digest(first) == digest(second)
        assert first.vector is not None and second.vector is not None
        one, two = first.vector, second.vector
    assert original.state() == copy.state()


@pytest.mark.parametrize("name", [*FLOWER_NAMES, PROTOTYPES])
def test_order_of_replies_does_not_matter(name: str) -> None:
    replies = prototype_replies(1) if name == PROTOTYPES else replies_of(1)
    first = make(name).aggregate(1, np.zeros(SIZE), replies)
    second = make(name).aggregate(1, np.zeros(SIZE), replies[::-1])
    assert digest(first) == digest(second)


@pytest.mark.parametrize("name", FLOWER_NAMES)
def test_all_memory_of_flowers_strategies_is_in_the_state(name: str) -> None:
    """Goal: a newer Flower must not remember what a restart forgets.  Method: diff of attributes."""
    made = make(name)
    wrapped = made._strategy
    before = {key: repr(value) for key, value in vars(wrapped).items()}
    vector = np.zeros(SIZE)
    for number in (1, 2):
        done = made.aggregate(number, vector, replies_of(number))
        assert done.vector is not None
        vector = done.vector
    changed = {key for key, value in vars(wrapped).items() if repr(value) != before.get(key)}
    assert changed <= {*door._STATE, "current_arrays"}


@pytest.mark.parametrize("name", ["FedAvg", "FedAdam", "FedMedian"])
def test_bad_replies_are_counted_and_do_not_change_the_result(name: str) -> None:
    good = replies_of(1)
    poisoned = np.zeros(SIZE)
    poisoned[5] = np.nan
    bad = [
        Reply(100, poisoned, 5),
        Reply(101, np.full(SIZE, np.inf), 5),
        Reply(102, np.zeros(SIZE - 1), 5),
        Reply(103, np.zeros((SIZE, 1)), 5),
        Reply(104, np.zeros(SIZE), 0),
        Reply(105, np.zeros(SIZE), -3),
        Reply(106, np.zeros(SIZE), 5, weight=0.0),
        Reply(107, np.zeros(SIZE), 5, weight=float("nan")),
        Reply(108, np.zeros(SIZE, np.float32), 5),
        Reply(3, np.ones(SIZE), 5),
    ]
    clean = make(name).aggregate(1, np.zeros(SIZE), good)
    done = make(name).aggregate(1, np.zeros(SIZE), good + bad)
    assert digest(done) == digest(clean)
    reasons = {error.node_index: error.reason for error in done.errors}
    assert reasons == {
        100: "not_finite",
        101: "not_finite",
        102: "shape",
        103: "shape",
        104: "no_examples",
        105: "no_examples",
        106: "no_examples",
        107: "not_finite",
        108: "shape",
        3: "duplicate",
    }


def test_bad_prototypes_are_counted() -> None:
    good = prototype_replies(1)
    negative, fractional, absurd, nowhere, empty = (good[0].vector.copy() for _ in range(5))
    negative[2] = -1
    fractional[3] = 0.5
    absurd[3] = 8 * 128 + 1
    nowhere[0] = 2
    empty[[2, 35, 68]] = 0
    odd = [negative, fractional, absurd, nowhere, empty, np.zeros(SIZE)]
    bad = [Reply(50 + i, vector, 2) for i, vector in enumerate(odd)]
    done = make(PROTOTYPES).aggregate(1, np.zeros(SIZE), good + bad)
    assert digest(done) == digest(make(PROTOTYPES).aggregate(1, np.zeros(SIZE), good))
    wanted = ["implausible", "value", "implausible", "value", "implausible", "shape"]
    assert [error.reason for error in done.errors] == wanted


@pytest.mark.parametrize("name", [*FLOWER_NAMES, PROTOTYPES])
def test_a_round_without_good_replies_keeps_the_old_model(name: str) -> None:
    made = make(name)
    before = made.state()
    for replies in ([], [Reply(1, np.zeros(3), 1)]):
        done = made.aggregate(1, np.zeros(SIZE), replies)
        assert done.vector is None and done.failure == "no replies"
    assert made.state() == before and made.rounds == 0


@pytest.mark.parametrize("name", FLOWER_NAMES)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_replies_aggregate_or_fail_cleanly(name: str, count: int) -> None:
    made = make(name)
    before = made.state()
    done = made.aggregate(1, np.zeros(SIZE), replies_of(1, count))
    if done.vector is None:
        assert done.failure and made.state() == before
    else:
        assert np.isfinite(done.vector).all()


def test_overflow_in_flower_is_a_failure_that_leaves_no_trace() -> None:
    """Goal: finite but huge replies.  Method: their square overflows in Adam's second moment."""
    made = make("FedAdam")
    done = made.aggregate(1, np.zeros(SIZE), replies_of(1))
    assert done.vector is not None
    before = made.state()
    failed = made.aggregate(2, done.vector, [Reply(1, np.full(SIZE, 1e200), 5)])
    assert failed.vector is None and failed.failure is not None
    assert made.state() == before
    again = made.aggregate(2, done.vector, replies_of(2))
    untouched = make("FedAdam")
    untouched.restore(before)
    assert digest(again) == digest(untouched.aggregate(2, done.vector, replies_of(2)))


def test_fedavgm_follows_a_rolled_back_model() -> None:
    """Flower's FedAvgM steps from its own copy of the model; ours must step from the one it is given."""
    made = FlowerStrategy("FedAvgM", WEATHER, {"server_momentum": 0.5, "server_learning_rate": 0.5})
    vector = np.zeros(SIZE)
    made.aggregate(1, vector, [Reply(0, vector + 1.0, 1)])
    rolled_back = np.full(SIZE, 5.0)
    done = made.aggregate(2, rolled_back, [Reply(0, rolled_back + 1.0, 1)])
    assert done.vector is not None
    assert np.allclose(done.vector, 5.0 + 0.5 * (1.0 + 0.5 * 1.0))


@pytest.mark.parametrize("name", [*FLOWER_NAMES, PROTOTYPES])
def test_nothing_global_is_touched(
    name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Method: compare the global generators, make sleeping an error, move the clock, read stderr."""
    replies = prototype_replies(1) if name == PROTOTYPES else replies_of(1)
    first = make(name).aggregate(1, np.zeros(SIZE), replies)
    states = random.getstate(), np.random.get_state()[1].tobytes()

    def refuse(_: float) -> None:
        raise AssertionError("slept")

    monkeypatch.setattr("flwr.serverapp.strategy.strategy_utils.sleep", refuse)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    second = make(name).aggregate(1, np.zeros(SIZE), replies)
    assert digest(first) == digest(second)
    assert states == (random.getstate(), np.random.get_state()[1].tobytes())
    assert capfd.readouterr().err == ""


def test_unusable_names_are_refused_with_the_usable_ones() -> None:
    for name in (
        "FedSomething",
        "QFedAvg",
        "FedXgbBagging",
        "DifferentialPrivacyServerSideFixedClipping",
        "Strategy",
    ):
        with pytest.raises(ValueError, match=r"usable: prototypes, .*FedAdam, FedAvg") as caught:
            FlowerStrategy(name, WEATHER)
        assert name in str(caught.value)


def test_usable_names_are_all_of_flowers_but_the_refused() -> None:
    from flwr.serverapp import strategy as flower

    usable = {name for name in flower.__all__ if name in strategy_names()}
    assert {
        "FedAvg",
        "FedAdam",
        "FedMedian",
        "FedTrimmedAvg",
        "Krum",
        "MultiKrum",
        "FedYogi",
        "FedAvgM",
    } <= usable
    assert set(flower.__all__) - usable == set(door._REFUSED)
    assert all(inspect.isclass(getattr(flower, name)) for name in usable)


def test_options_are_validated_by_name_and_value() -> None:
    with pytest.raises(
        ValueError, match="unknown option etta of strategy FedAdam; it takes: beta_1, beta_2, eta"
    ):
        FlowerStrategy("FedAdam", WEATHER, {"etta": 1.0})
    with pytest.raises(ValueError, match="fraction_train"):
        FlowerStrategy("FedAvg", WEATHER, {"fraction_train": 0.5})
    with pytest.raises(ValueError, match="eta of strategy FedAdam must be a finite number"):
        FlowerStrategy("FedAdam", WEATHER, {"eta": "fast"})
    with pytest.raises(ValueError, match="beta"):
        FlowerStrategy("FedTrimmedAvg", WEATHER, {"beta": 0.7})
    with pytest.raises(ValueError, match="balance"):
        FlowerStrategy(PROTOTYPES, WEATHER, {"balance": 2.0})
    assert "ridge" in option_names(PROTOTYPES) and "beta" in option_names("FedTrimmedAvg")
    assert option_names("FedAvg") == ()
    assert all(key in option_names(name) for name, given in DEFAULT_OPTIONS.items() for key in given)


def test_foreign_or_damaged_state_is_refused() -> None:
    adam = make("FedAdam")
    adam.aggregate(1, np.zeros(SIZE), replies_of(1))
    blob = adam.state()
    with pytest.raises(ValueError, match="is of FedAdam, the configured strategy is FedYogi"):
        make("FedYogi").restore(blob)
    for damaged in (b"", blob[:20], b"SWS1" + blob[10:], blob[:-3]):
        with pytest.raises(ValueError, match="damaged"):
            make("FedAdam").restore(damaged)


def measure_cost_per_reply(name: str = "FedAdam", count: int = 1000, size: int = 908) -> float:
    """Processor time per reply in us, messages and array records included; `make bench` prints it."""
    made = make(name)
    replies = replies_of(1, count, size)
    vector = np.zeros(size)
    made.aggregate(1, vector, replies)
    start = time.process_time()
    made.aggregate(2, vector, replies)
    return (time.process_time() - start) * 1e6 / count


def test_cost_per_reply_is_small() -> None:
    """The aim is 250 us; the limit here leaves room for a busy machine."""
    assert min(measure_cost_per_reply() for _ in range(3)) < 1000.0
