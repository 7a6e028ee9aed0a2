"""Class means to heads: as good as central, robust to garbage, and silent where nothing is gained."""

from __future__ import annotations

import numpy as np
import pytest

from swarm.federation.discriminant import Judge, solve_believed, solve_head, solve_heads
from swarm.federation.learner import Learner
from swarm.federation.prototypes import (
    Options,
    Prior,
    Statistics,
    flatten,
    is_plausible,
    reply_fault,
    reply_size,
    row_of,
)
from swarm.federation.reply import Reply
from swarm.federation.strategy import FlowerStrategy
from swarm.model.layout import HEAD_ROW, WEATHER, Z_ONE, Z
from swarm.model.vector import Mirror
from swarm.wire import app

CONTEXTS = 4
Sample = tuple[int, int, np.ndarray, np.ndarray]
FlatReply = tuple[int, np.ndarray]


class Fleet:
    """Nodes with their own offsets and skewed labels; each context has its own class means.

    `train` and `test` hold (node, context, z int8-valued [n, 32], label [n]).
    """

    def __init__(self, seed: int, nodes: int = 200, labels: int = 24, spread: float = 0.3) -> None:
        draw = np.random.default_rng(seed)
        self.means = (
            draw.normal(size=(WEATHER.classes, Z)) * 0.22
            + draw.normal(size=(CONTEXTS, WEATHER.classes, Z)) * 0.13
        )
        mixing = np.linalg.qr(draw.normal(size=(Z, Z)))[0] * np.sqrt(draw.uniform(0.1, 1.5, Z))
        self.train: list[Sample] = []
        self.test: list[Sample] = []
        for node in range(nodes):
            context = node % CONTEXTS
            offset = draw.normal(size=Z) * spread
            shares = draw.dirichlet([1.8, 0.75, 0.45])
            for kept, count in ((self.train, labels), (self.test, 20)):
                label = draw.choice(WEATHER.classes, size=count, p=shares)
                z = self.means[context][label] + offset + draw.normal(size=(count, Z)) @ mixing.T
                kept.append((node, context, np.clip(np.rint(z * Z_ONE), -128, 127).astype(int), label))

    def replies(self, dims: int = Z, *, garbage: float = 0.0, part: slice = slice(None)) -> list[FlatReply]:
        """One flat reply per node over these of its labels; a garbage node shuffles labels and invents z."""
        draw = np.random.default_rng(1)
        made = []
        for node, context, z, label in self.train:
            if draw.random() < garbage:
                z, label = draw.integers(-120, 120, z.shape), draw.permutation(label)  # noqa: PLW2901
            made.append((node, flatten(message_of(context, z[part], label[part], dims), WEATHER)))
        return made

    def statistics(self, dims: int = Z, *, garbage: float = 0.0) -> Statistics:
        statistics = Statistics(WEATHER)
        for node, reply in self.replies(dims, garbage=garbage):
            statistics.add(node, reply)
        return statistics

    def central(self) -> np.ndarray:
        """LDA per context with all samples in one place, float64[contexts, 99]."""
        heads = np.zeros((CONTEXTS, WEATHER.classes, HEAD_ROW))
        for context in range(CONTEXTS):
            z, label = self.pool(self.train, context)
            mean = np.stack([z[label == c].mean(axis=0) for c in range(WEATHER.classes)])
            within = sum(
                (z[label == c] - mean[c]).T @ (z[label == c] - mean[c]) for c in range(WEATHER.classes)
            )
            weights = mean @ np.linalg.inv(within / len(z) + 0.02 * np.eye(Z))
            prior = np.bincount(label, minlength=WEATHER.classes) / len(label)
            heads[context, :, :Z] = weights
            heads[context, :, Z] = -0.5 * (weights * mean).sum(axis=1) + 0.5 * np.log(prior)
        return heads.reshape(CONTEXTS, WEATHER.head_size)

    def pool(self, samples: list[Sample], context: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = [(z, label) for _, c, z, label in samples if c == context]
        return np.concatenate([z for z, _ in chosen]) / Z_ONE, np.concatenate([label for _, label in chosen])

    def macro_f1(self, heads: np.ndarray) -> float:
        """Mean over contexts of macro-F1 on the nodes' test samples."""
        scores = []
        for context in range(CONTEXTS):
            z, label = self.pool(self.test, context)
            head = heads[context].reshape(WEATHER.classes, HEAD_ROW)
            guess = (z @ head[:, :Z].T + head[:, Z]).argmax(axis=1)
            for c in range(WEATHER.classes):
                hits = int(((guess == c) & (label == c)).sum())
                scores.append(2 * hits / max(1, int((guess == c).sum() + (label == c).sum())))
        return float(np.mean(scores))


def message_of(context: int, z: np.ndarray, label: np.ndarray, dims: int, number: int = 1) -> app.Prototypes:
    """What a node would send: int4 class means."""
    classes = []
    for c in range(WEATHER.classes):
        if (label == c).any():
            mean = z[label == c].mean(axis=0)[:dims]
            scale = int(np.clip(np.ceil(np.abs(mean).max() * 8 / 7), 1, 255))
            q = np.clip(np.rint(mean * 8 / scale), -8, 7).astype(int)
            classes.append(app.ClassMean(c, int((label == c).sum()), scale, tuple(int(v) for v in q)))
    return app.Prototypes(number, 0, context, len(label), tuple(classes))


SHIPPED_NOTHING = np.zeros((CONTEXTS, WEATHER.head_size))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_int4_frame_per_node_comes_close_to_central(seed: int) -> None:
    """Goal: at least .9 of a central LDA (macro-F1).  Method: 200 nodes with offsets, one frame each."""
    fleet = Fleet(seed)
    heads = solve_heads(fleet.statistics(), SHIPPED_NOTHING, Options())
    central, federated = fleet.macro_f1(fleet.central()), fleet.macro_f1(heads)
    assert central > 0.7
    assert federated >= 0.9 * central


def test_a_good_shipped_head_stays() -> None:
    """Negative control.  Method: the shipped head is central LDA of ten times the nodes: nothing is sent."""
    base = Fleet(7, nodes=2000).central()
    fleet, learner = Fleet(7), Learner(Options(), WEATHER)
    for start in (0, 8, 16):
        heads = learner.learn(base, fleet.replies(part=slice(start, start + 8)))
        assert np.array_equal(heads, base)
    assert [result.rounds for result in learner.results] == [2] * CONTEXTS
    assert all(result.base is not None and result.base > 0.5 for result in learner.results)


def test_a_wrong_shipped_head_is_replaced_once_the_new_one_is_proved() -> None:
    """Method: the shipped head takes classes for one another; the first round only learns, the next judge."""
    fleet, learner = Fleet(6), Learner(Options(), WEATHER)
    base = (
        fleet.central()
        .reshape(CONTEXTS, WEATHER.classes, HEAD_ROW)[:, [1, 2, 0]]
        .reshape(CONTEXTS, WEATHER.head_size)
    )
    assert np.array_equal(learner.learn(base, fleet.replies(part=slice(0, 8))), base)
    assert all(result.base is None and result.share == 0.0 for result in learner.results)
    for start in (8, 16):
        heads = learner.learn(base, fleet.replies(part=slice(start, start + 8)))
    assert all(result.share > 0.0 for result in learner.results)
    assert fleet.macro_f1(heads) > fleet.macro_f1(base) + 0.3
    assert fleet.macro_f1(heads) >= 0.85 * fleet.macro_f1(fleet.central())


def test_gain_min_zero_takes_every_head_at_once() -> None:
    fleet, learner = Fleet(6), Learner(Options(gain_min=0.0), WEATHER)
    heads = learner.learn(SHIPPED_NOTHING, fleet.replies())
    assert all(result.share == 1.0 and result.rounds == 0 for result in learner.results)
    assert np.array_equal(heads, solve_heads(fleet.statistics(), SHIPPED_NOTHING, Options()))


def test_judge_counts_what_each_head_says() -> None:
    """Method: one dimension, three heads' worth of answers by hand."""
    judge = Judge(WEATHER, 1)
    base, solved = np.zeros((WEATHER.classes, HEAD_ROW)), np.zeros((WEATHER.classes, HEAD_ROW))
    base[0, Z] = 1.0  # always says class 0
    solved[:, 0], solved[:, Z] = [-4.0, 0.0, 4.0], [-2.0, 0.0, -2.0]  # by the sign of z[0]
    rows = []
    for label, z in ((0, -32), (1, 0), (2, 32)):
        q = tuple([7 if z > 0 else -7 if z else 0] + [0] * 31)
        rows.append(row_of(flatten(app.Prototypes(1, 0, 0, 1, (app.ClassMean(label, 1, 36, q),)), WEATHER)))
    judge.tally(np.stack(rows), 0, base.ravel(), solved.ravel(), Options())
    assert np.array_equal(judge.confusion[0, 0], [[1, 0, 0], [1, 0, 0], [1, 0, 0]])
    assert np.array_equal(judge.confusion[0, 1], np.eye(3))
    result = judge.result(0, 20, Options())
    assert result.base == pytest.approx(1 / 6) and result.new == 1.0 and result.share == 1.0
    assert judge.result(0, 20, Options(gain_min=0.5)).share == 0.0
    judge.tally(np.stack(rows), 0, base.ravel(), solved.ravel(), Options())
    assert judge.result(0, 20, Options(gain_min=0.5)).share == 1.0


def test_few_nodes_keep_the_shipped_head_or_lean_on_it() -> None:
    base = np.random.default_rng(2).normal(size=(CONTEXTS, WEATHER.head_size)) * 0.1
    for nodes, share in ((4, 0.0), (9, 9 / 15), (15, 1.0)):
        learner = Learner(Options(gain_min=0.0), WEATHER)
        heads = learner.learn(base, Fleet(7, nodes=nodes * CONTEXTS).replies())
        assert [result.share for result in learner.results] == [share] * CONTEXTS
        assert np.array_equal(heads, base) == (share == 0.0)


def test_slow_nodes_that_send_20_dims_help_too() -> None:
    """Method: all send 20 of 32 dims; the shipped weights of the other 12 stay."""
    fleet = Fleet(8)
    statistics = fleet.statistics(dims=20)
    weights = solve_heads(statistics, SHIPPED_NOTHING, Options()).reshape(CONTEXTS, WEATHER.classes, HEAD_ROW)
    assert not weights[:, :, 20:Z].any()
    assert fleet.macro_f1(weights.reshape(CONTEXTS, WEATHER.head_size)) > 0.5
    base = fleet.central()
    rest = np.s_[:, :, 20:Z]
    shipped = base.reshape(CONTEXTS, WEATHER.classes, HEAD_ROW)[rest]
    kept = solve_heads(statistics, base, Options()).reshape(CONTEXTS, WEATHER.classes, HEAD_ROW)[rest]
    assert np.allclose(kept - kept[:, :1], shipped - shipped[:, :1])


def test_mixed_dims_use_all_that_is_there() -> None:
    fleet = Fleet(9)
    slow, fast, mixed = Statistics(WEATHER), Statistics(WEATHER), Statistics(WEATHER)
    for node, context, z, label in fleet.train:
        slow.add(node, flatten(message_of(context, z, label, 20), WEATHER))
        fast.add(node, flatten(message_of(context, z, label, 32), WEATHER))
        mixed.add(node, flatten(message_of(context, z, label, 20 if node % 8 < 4 else 32), WEATHER))
    scores = [fleet.macro_f1(solve_heads(s, SHIPPED_NOTHING, Options())) for s in (slow, mixed, fast)]
    assert scores[0] < scores[1] <= scores[2] + 0.01


def test_increments_sum_up_to_the_same_bits_in_any_order() -> None:
    fleet = Fleet(10, nodes=40)
    parts = []
    for node, context, z, label in fleet.train:
        chunks = [message_of(context, z[i : i + 8], label[i : i + 8], Z) for i in (0, 8, 16)]
        parts += [(node, flatten(chunk, WEATHER)) for chunk in chunks]
    forward, backward = Statistics(WEATHER), Statistics(WEATHER)
    for node, reply in parts:
        forward.add(node, reply)
    for node, reply in reversed(parts):
        backward.add(node, reply)
    for name, array in forward.arrays().items():
        assert np.array_equal(array, backward.arrays()[name])
    one = solve_heads(forward, SHIPPED_NOTHING, Options())
    assert one.tobytes() == solve_heads(backward, SHIPPED_NOTHING, Options()).tobytes()


def test_statistics_survive_arrays() -> None:
    statistics = Fleet(11, nodes=12).statistics()
    copy = Statistics(WEATHER)
    copy.load(statistics.arrays())
    assert len(copy) == 12
    assert all(np.array_equal(value, copy.arrays()[key]) for key, value in statistics.arrays().items())
    with pytest.raises(ValueError, match="shape"):
        copy.load({"keys": np.zeros((2, 2)), "rows": np.zeros((3, 2, WEATHER.classes, Z))})


def test_garbage_costs_little() -> None:
    """Method: every tenth node sends uniform noise under shuffled labels; trimming must help and suffice."""
    clean = with_trim = without = 0.0
    for seed in (12, 13, 14):
        fleet = Fleet(seed)
        poisoned = fleet.statistics(garbage=0.1)
        clean += fleet.macro_f1(solve_heads(fleet.statistics(), SHIPPED_NOTHING, Options())) / 3
        with_trim += fleet.macro_f1(solve_heads(poisoned, SHIPPED_NOTHING, Options(trim=1.7))) / 3
        without += fleet.macro_f1(solve_heads(poisoned, SHIPPED_NOTHING, Options(trim=0.0))) / 3
    assert with_trim >= without - 0.005
    assert with_trim >= clean - 0.03


def test_colluding_extremes_are_trimmed() -> None:
    """Method: every tenth node claims the same extreme mean for its classes; untrimmed it ruins the head."""
    fleet = Fleet(15)
    statistics = fleet.statistics()
    for node in range(1000, 1020):
        q = tuple([7] * 16 + [-8] * 16)
        means = tuple(app.ClassMean(c, 85, 126, q) for c in range(WEATHER.classes))
        message = app.Prototypes(1, 0, node % CONTEXTS, 255, means)
        assert is_plausible(message, WEATHER)
        statistics.add(node, flatten(message, WEATHER))
    clean = fleet.macro_f1(solve_heads(fleet.statistics(), SHIPPED_NOTHING, Options()))
    trimmed = fleet.macro_f1(solve_heads(statistics, SHIPPED_NOTHING, Options()))
    ruined = fleet.macro_f1(solve_heads(statistics, SHIPPED_NOTHING, Options(trim=0.0)))
    assert trimmed >= clean - 0.02
    assert ruined < clean - 0.05


def flipped(fleet: Fleet, share: float) -> tuple[Statistics, set[int]]:
    """The fleet's statistics with a share of nodes that name each class by the next one's name, and those."""
    draw = np.random.default_rng(5)
    liars = set(draw.permutation(len(fleet.train))[: round(share * len(fleet.train))].tolist())
    statistics = Statistics(WEATHER)
    for node, context, z, label in fleet.train:
        told = (label + 1) % WEATHER.classes if node in liars else label
        statistics.add(node, flatten(message_of(context, z, told, Z), WEATHER))
    return statistics, liars


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_nodes_that_flip_labels_are_left_out(seed: int) -> None:
    """Goal: within .01 of the truth with a tenth of liars, .04 with a fifth; nobody honest is left out."""
    fleet = Fleet(seed)
    truth = fleet.macro_f1(solve_heads(fleet.statistics(), SHIPPED_NOTHING, Options()))
    for share, loss_max, found_min in ((0.1, 0.01, 0.9), (0.2, 0.04, 0.6)):
        statistics, liars = flipped(fleet, share)
        heads, denied = solve_believed(statistics, SHIPPED_NOTHING, Options())
        found = {node for own in denied for node in own}
        assert fleet.macro_f1(heads) > truth - loss_max
        assert found <= liars and len(found) >= found_min * len(liars)
        believing = solve_heads(statistics, SHIPPED_NOTHING, Options(trim=0.0))
        assert fleet.macro_f1(heads) > fleet.macro_f1(believing) + 0.01


@pytest.mark.parametrize("spread", [0.3, 0.6, 1.0])
def test_honest_nodes_that_differ_stay(spread: float) -> None:
    """Goal: of 200 honest nodes, each at a place of its own with class shares of its own, under 2 % go."""
    for seed in (1, 2, 3):
        fleet = Fleet(seed, spread=spread)
        heads, denied = solve_believed(fleet.statistics(), SHIPPED_NOTHING, Options())
        assert sum(map(len, denied)) <= 0.02 * 200
        alone = solve_heads(fleet.statistics(), SHIPPED_NOTHING, Options(trim=0.0))
        assert fleet.macro_f1(heads) > fleet.macro_f1(alone) - 0.01


def test_a_liar_that_learns_to_label_comes_back() -> None:
    """Method: a node flips 24 labels, then tells the truth of 240; only before is it named."""
    fleet = Fleet(4)
    learner = Learner(Options(gain_min=0.0), WEATHER)
    node, context, z, label = fleet.train[8]
    wrong = (node, flatten(message_of(context, z, (label + 1) % WEATHER.classes, Z), WEATHER))
    learner.learn(SHIPPED_NOTHING, [wrong, *(r for r in fleet.replies() if r[0] != node)])
    assert learner.results[context].contradicting == (node,)
    right = flatten(message_of(context, np.tile(z, (10, 1)), np.tile(label, 10), Z), WEATHER)
    learner.learn(SHIPPED_NOTHING, [(node, right)])
    assert learner.results[context].contradicting == ()


def test_count_cap_limits_what_one_node_says() -> None:
    """Method: one node repeats the same false mean 200 times; capped it moves the head less."""
    moved = {}
    for cap in (6.0, 255.0):
        fleet = Fleet(16, nodes=80)
        statistics, loud = fleet.statistics(), fleet.statistics()
        mean = app.ClassMean(0, 200, 40, tuple([7, -7] * 16))
        loud.add(0, flatten(app.Prototypes(1, 0, 0, 200, (mean,)), WEATHER))
        options = Options(count_cap=cap, trim=0.0)
        before, after = solve_head(statistics.context(0), options), solve_head(loud.context(0), options)
        moved[cap] = float(np.linalg.norm(after - before) / np.linalg.norm(before))
    assert moved[6.0] < 0.5 * moved[255.0]


def test_balance_favours_rare_classes() -> None:
    fleet = Fleet(17)
    z, label = fleet.pool(fleet.test, 0)
    rare = {}
    for balance in (0.0, 1.0):
        head = solve_head(fleet.statistics().context(0), Options(balance=balance)).reshape(
            WEATHER.classes, HEAD_ROW
        )
        guess = (z @ head[:, :Z].T + head[:, Z]).argmax(axis=1)
        rare[balance] = float((guess[label == 2] == 2).mean())
    assert rare[1.0] > rare[0.0]


def test_a_class_that_no_node_of_the_context_saw_comes_from_elsewhere() -> None:
    """Method: potato nodes never report `high`; other contexts, or public means, place it."""
    fleet = Fleet(18)
    statistics = Statistics(WEATHER)
    for node, context, z, label in fleet.train:
        seen = label < 2 if context == 2 else np.ones(len(label), bool)
        if seen.any():
            statistics.add(node, flatten(message_of(context, z[seen], label[seen], Z), WEATHER))
    z, label = fleet.pool(fleet.test, 2)
    counts = np.full((CONTEXTS, WEATHER.classes), 50.0)
    prior = Prior(fleet.means * Z_ONE, counts)
    recalls = []
    for known in (None, prior):
        heads = solve_heads(statistics, SHIPPED_NOTHING, Options(balance=1.0), known)
        head = heads[2].reshape(WEATHER.classes, HEAD_ROW)
        recalls.append(float(((z @ head[:, :Z].T + head[:, Z]).argmax(axis=1)[label == 2] == 2).mean()))
    assert recalls[0] > 0.4
    assert recalls[1] > recalls[0]


def test_plausibility_bounds() -> None:
    def claim(q: int, scale: int) -> app.Prototypes:
        return app.Prototypes(1, 0, 0, 3, (app.ClassMean(1, 3, scale, (q, 0)),))

    assert is_plausible(claim(7, 146), WEATHER) and not is_plausible(claim(7, 147), WEATHER)
    assert is_plausible(claim(-8, 128), WEATHER) and not is_plausible(claim(-8, 129), WEATHER)
    # A node's own quantiser: a mean of 119 asks for scale 136, in which -128 rounds to 8 steps; in 137 to 7.
    both = tuple(7 if i == 0 else -8 for i in range(20))
    for scale, honest in ((136, True), (137, False)):
        message = app.Prototypes(1, 0, 0, 5, (app.ClassMean(1, 5, scale, both),))
        assert is_plausible(message, WEATHER) == honest
        assert (reply_fault(flatten(message, WEATHER), CONTEXTS) is None) == honest
    assert reply_fault(flatten(claim(7, 146), WEATHER), CONTEXTS) is None
    assert reply_fault(flatten(claim(7, 147), WEATHER), CONTEXTS) == "implausible"
    assert reply_fault(np.zeros(reply_size(WEATHER)), CONTEXTS) == "value"
    two = (app.ClassMean(0, 3, 5, (1, 1)), app.ClassMean(1, 4, 5, (1, 1)))
    assert is_plausible(app.Prototypes(1, 0, 0, 7, two), WEATHER)
    assert not is_plausible(app.Prototypes(1, 0, 0, 8, two), WEATHER)


def test_strategy_solves_heads_and_leaves_the_adapter() -> None:
    """Method: through the Flower door and the int16 mirror, as a round does it."""
    fleet = Fleet(19)
    strategy = FlowerStrategy("prototypes", WEATHER, {"gain_min": 0.0})
    master = np.zeros(WEATHER.vector_size(CONTEXTS))
    master[:512] = 0.25
    replies = [
        Reply(node, flatten(message_of(context, z, label, Z), WEATHER), len(label))
        for node, context, z, label in fleet.train
    ]
    done = strategy.aggregate(1, master, replies)
    assert done.vector is not None and np.array_equal(done.vector[:512], master[:512])
    assert len(done.contexts) == CONTEXTS and done.contexts[0].nodes == 50
    mirror = Mirror(0, np.zeros(512, np.int16), np.zeros((CONTEXTS, WEATHER.head_size), np.int16))
    rounded = np.stack(
        [np.rint(done.vector[WEATHER.head_slice(c)] * 256) / 256 for c in range(mirror.contexts)]
    )
    assert fleet.macro_f1(rounded) >= 0.9 * fleet.macro_f1(fleet.central())
    assert np.abs(rounded).max() < 127
