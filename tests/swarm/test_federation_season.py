"""A season of C nodes without radio: rounds help where the shipped heads are wrong, and else send nothing.

Frames of the firmware go straight into `federation.round`, and the blocks that come of it straight back.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simulations import field
from swarm import node
from swarm.federation.misplaced import Misplaced
from swarm.federation.prototypes import Options, Statistics
from swarm.federation.round import Accepted, Closed, Round
from swarm.federation.strategy import FlowerStrategy
from swarm.model import block
from swarm.model.layout import CONTEXTS, WEATHER
from swarm.model.vector import Mirror
from swarm.prng import Prng
from swarm.wire import app
from swarm.wire.app import BlockKind, RoundMode

HOUR_US = 3_600_000_000
NODES = 80
DAYS = 25
ROUND_DAYS = (8, 13, 18, 23, 28)
IMAGE = (Path(block.__file__).parent / "base_model.swm").read_bytes()
WRONG_NAMES = np.array([2, 0, 1], np.uint8)


class Season:
    """One fleet and its gateway's side of the model; `odd_crops` call the classes by other names."""

    def __init__(
        self, seed: int, odd_crops: tuple[int, ...] = (), *, nodes: int = NODES, slips: int = 0
    ) -> None:
        self.field = field.Field(nodes=nodes, days=DAYS, seed=seed)
        crop = self.field.context
        draw = Prng(seed).child("slips").numpy()
        self.slips = draw.permutation(nodes)[:slips]
        """Nodes that were provisioned for another crop than the one they stand in."""
        self.told = crop.copy()
        self.told[self.slips] = (crop[self.slips] + draw.integers(1, 4, slips)) % len(CONTEXTS)
        configs = [
            node.NodeConfig(i, int(self.told[i]), flags=int(self.field.flags[i]), seed=i)
            for i in range(nodes)
        ]
        self.nodes = node.Nodes(nodes, configs, IMAGE)
        self.model = node.Model(IMAGE)
        shipped = np.stack([self.model.base_head(context) for context in range(len(CONTEXTS))])
        self.mirror = Mirror(0, self.model.adapter(), shipped)
        self.master = self.mirror.master()
        self.labels = self.field.labels.astype(np.uint8)
        odd = np.isin(crop, odd_crops)
        self.labels[:, odd] = WRONG_NAMES[self.labels[:, odd]]
        self.features: dict[int, np.ndarray] = {}
        self.hour = self.frames = self.sent = 0

    def live_until(self, day: int) -> None:
        """Hourly readings; each day's label is told at the next noon, until the training days are over."""
        for hour in range(self.hour, 24 * day):
            temperature, humidity, rain, clock = self.field.readings(hour)
            self.nodes.sense((hour + 1) * HOUR_US, temperature, humidity, rain, (clock + 23) % 24)
            if hour and hour % 24 == 0:
                closed = hour // 24 - 1
                self.features[closed] = self.nodes.day_features()[1].copy()
                if closed - 1 in self.field.training_days:
                    self.nodes.label(closed - 1, self.labels[closed - 1])
            self.nodes.outbox()
        self.hour = 24 * day

    def round(self, number: int, mode: RoundMode, strategy: FlowerStrategy) -> Closed:
        """Announce, take the nodes' frames, close, send the block and the acknowledgements."""
        now_us = self.hour * HOUR_US + 1_000_000
        made = Round(
            number=number,
            mode=mode,
            model_version=self.mirror.version,
            cohort=255,
            opened_us=now_us,
            close_us=now_us + 120_000_000,
            quorum=self.nodes.count,
            shape=self.model.shape,
            contexts=len(CONTEXTS),
        )
        everyone = range(self.nodes.count)
        announcement = app.RoundAnnounce(number, self.mirror.version, mode, 255, 60, 600, 80_000, 60)
        self.nodes.rx_many(everyone, now_us, 10, app.encode(announcement))
        for second in range(90):
            self.nodes.poll(now_us + second * 1_000_000)
            for index, f_port, payload in self.nodes.outbox():
                if f_port == app.F_PORT_LEARNING:
                    message = app.decode_uplink(f_port, payload)
                    assert isinstance(message, app.Prototypes | app.TopKSign)
                    own = int(self.told[index])
                    result = made.on_update(f"{index:016x}", index, message, now_us, context=own)
                    assert isinstance(result, Accepted), result
                    self.frames += 1
        closed = made.close(now_us, strategy, self.master)
        assert closed.vector is not None and closed.errors == ()
        self.master = closed.vector
        kind = block.choose(self.mirror, self.master)
        later_us = now_us + 100_000_000
        if kind is not None:
            encoded = block.encode(self.mirror, self.master, BlockKind(kind))
            self.mirror = encoded.mirror
            self.sent += len(encoded.data)
            for frame in encoded.frames(115):
                self.nodes.rx_many(everyone, later_us, 10, frame)
        for frame in made.ack_frames(115):
            self.nodes.rx_many(everyone, later_us, 10, frame)
        assert (self.nodes.model_version == self.mirror.version).all()
        assert np.array_equal(
            self.nodes.heads[:, : len(CONTEXTS)], np.stack([self.mirror.heads] * self.nodes.count)
        )
        return closed

    def right(self, crops: tuple[int, ...]) -> float:
        """Balanced accuracy of the fleet's parameters on the test days, mean over these crops.

        Not of what nodes answer with: those that the rounds do not help tune a head for themselves.
        """
        self.live_until(self.field.hours // 24)
        days = [day for day in self.field.test_days if day in self.features]
        x = np.concatenate([self.features[day] for day in days]).reshape(-1, WEATHER.features)
        owners = np.tile(self.field.context, len(days))
        said = np.empty(len(x), np.int64)
        for crop, head in enumerate(self.mirror.heads):
            said[owners == crop] = self.model.infer(x[owners == crop], head, self.mirror.adapter).argmax(
                axis=1
            )
        truth = np.concatenate([self.labels[day] for day in days])
        recalls = []
        for crop in crops:
            own = np.tile(self.field.context == crop, len(days))
            recalls += [
                (said[own & (truth == c)] == c).mean() for c in range(3) if (own & (truth == c)).any()
            ]
        return float(np.mean(recalls))


def run(
    mode: RoundMode, strategy: FlowerStrategy | None, odd_crops: tuple[int, ...] = (), seed: int = 3
) -> Season:
    season = Season(seed, odd_crops)
    for number, day in enumerate(ROUND_DAYS, 1):
        season.live_until(day)
        if strategy is not None:
            season.round(number, mode, strategy)
    return season


def test_without_anything_to_gain_nothing_is_sent() -> None:
    """Negative control: the shipped model knows these crops' rules."""
    season = run(RoundMode.PROTOTYPES, FlowerStrategy("prototypes", WEATHER))
    assert season.frames == NODES * len(ROUND_DAYS)
    assert season.sent == 0 and season.mirror.version == 0


def test_prototypes_teach_crops_that_the_shipped_heads_have_wrong() -> None:
    """Method: potato and grape call the classes by other names; apple and tomato must not be touched."""
    before = run(RoundMode.PROTOTYPES, None, odd_crops=(2, 3))
    after = run(RoundMode.PROTOTYPES, FlowerStrategy("prototypes", WEATHER), odd_crops=(2, 3))
    assert after.sent > 0
    assert after.right((2, 3)) > before.right((2, 3)) + 0.15
    assert np.array_equal(after.mirror.heads[:2], before.mirror.heads[:2])


def test_signs_with_fedadam_do_no_harm_and_reach_every_node() -> None:
    """Method: nothing to gain; all nodes train, send signs and apply DELTA blocks to the same integers."""
    before = run(RoundMode.TOP_K_SIGN, None)
    after = run(RoundMode.TOP_K_SIGN, FlowerStrategy("FedAdam", WEATHER))
    assert after.mirror.version == len(ROUND_DAYS)
    assert np.array_equal(after.nodes.adapters, np.stack([after.mirror.adapter] * NODES))
    crops = (0, 1, 2, 3)
    assert after.right(crops) > before.right(crops) - 0.05


def test_signs_with_fedavg_teach_too() -> None:
    """FedAvg takes the nodes' own step sizes: fast where the heads are wrong."""
    before = run(RoundMode.TOP_K_SIGN, None, odd_crops=(2, 3))
    after = run(RoundMode.TOP_K_SIGN, FlowerStrategy("FedAvg", WEATHER), odd_crops=(2, 3))
    assert after.right((2, 3)) > before.right((2, 3)) + 0.1


def suspected(season: Season) -> dict[int, tuple[str, str]]:
    """Node -> (its context, the likely one) of all that eight rounds, three days apart, made suspect."""
    strategy = FlowerStrategy("prototypes", WEATHER)
    found: dict[int, tuple[str, str]] = {}
    for number, day in enumerate(range(6, 30, 3), 1):
        season.live_until(day)
        closed = season.round(number, RoundMode.PROTOTYPES, strategy)
        # A restart between rounds loses no evidence.
        state, strategy = strategy.state(), FlowerStrategy("prototypes", WEATHER)
        strategy.restore(state)
        for suspect in closed.suspects:
            assert suspect["dev_eui"] not in found and suspect["labels"] >= 10
            node_index = int(str(suspect["dev_eui"]), 16)
            found[node_index] = (str(suspect["context"]), str(suspect["likely_context"]))
    misplaced = {who: CONTEXTS[likely] for who, likely in strategy.misplaced().items()}
    assert misplaced.items() <= {who: likely for who, (_, likely) in found.items()}.items()
    return found


def test_nodes_in_the_wrong_crop_are_found_and_no_others() -> None:
    """Goal: of 12 slips among 400 nodes a quarter at least within 24 labels, most of those with the right
    crop, nobody else.  A slip between crops that the weather treats alike makes no difference to be seen."""
    season = Season(3, nodes=400, slips=12)
    found = suspected(season)
    assert found.keys() <= set(season.slips.tolist()) and len(found) >= 3
    assert all(own == CONTEXTS[season.told[who]] for who, (own, _) in found.items())
    right = sum(likely == CONTEXTS[season.field.context[who]] for who, (_, likely) in found.items())
    assert right >= 0.6 * len(found)


def test_a_node_that_was_put_right_is_suspected_no_more() -> None:
    misplaced = Misplaced()
    misplaced.load(np.array([[0, 7, 2, 3], [0, 8, 1, 3], [0, 9, 1, 2]]))
    assert misplaced.suspects() == {7: 2, 8: 1}
    heads = np.zeros((len(CONTEXTS), WEATHER.head_size))
    assert misplaced.look(Statistics(WEATHER), heads, {(2, 7)}, Options()) == []
    assert misplaced.suspects() == {8: 1}


def test_nobody_is_suspected_in_a_farm_of_a_thousand_without_slips() -> None:
    assert suspected(Season(5, nodes=1000)) == {}
