"""The C node through its Python array: frames against the Python codec, learning, asking, snapshots."""

from __future__ import annotations

import time
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray

from swarm.effects import Malformed
from swarm.model.layout import WEATHER
from swarm.node import (
    HUMIDITY_MISSING,
    LABEL_NONE,
    NO_HUMIDITY_SENSOR,
    NO_RAIN_SENSOR,
    RAIN_MISSING,
    TEMPERATURE_MISSING,
    Model,
    NodeConfig,
    Nodes,
)
from swarm.prng import Prng
from swarm.wire import app
from tests.firmware.model_image import IMAGE, IMAGE_WITHOUT_RULE

SECOND_US = 1_000_000
HOUR_US = 3600 * SECOND_US
DAY_US = 24 * HOUR_US


def configs(count: int, **fields: int) -> list[NodeConfig]:
    return [NodeConfig(**{"node_index": i, "context": i % 4, "seed": i, **fields}) for i in range(count)]


def readings(count: int, hours: int) -> list[NDArray[np.integer]]:
    """Seeded weather in C units, [hours, count]."""
    rng = Prng(5).child("node").numpy()
    clock = np.arange(hours)[:, None]
    temperature = 1500 + 500 * np.sin(clock / 24 * 2 * np.pi) + rng.normal(0, 200, (hours, count))
    humidity = np.clip(150 + rng.normal(0, 30, (hours, count)), 0, 200)
    rain = np.where(rng.random((hours, count)) < 0.05, 9, 0)
    return [temperature.astype(np.int16), humidity.astype(np.uint8), rain.astype(np.uint16)]


def live(nodes: Nodes, days: int, labelled: bool = True) -> tuple[int, list[NDArray[np.int8]]]:
    """Days of weather from noon on, labels told at once; (time of the last reading, x of each day)."""
    weather = readings(nodes.count, 24 * days)
    x = []
    for hour in range(24 * days):
        closed = nodes.sense((hour + 1) * HOUR_US, *(values[hour] for values in weather), (hour + 13) % 24)
        if closed.any():
            x.append(nodes.day_features()[1])
            if labelled:
                nodes.label(hour // 24, (np.arange(nodes.count) + hour // 24) % 3)
    return 24 * days * HOUR_US, x


def announce(round_number: int, mode: int, **fields: int) -> bytes:
    rest = {"cohort": 255, "spread_s": 100, "close_in_s": 3600, "next_window_s": 7200, "window_s": 60}
    return app.encode(app.RoundAnnounce(round_number, 0, mode, **{**rest, **fields}))


def drain(nodes: Nodes, now_us: int, until_us: int) -> list[tuple[int, app.UplinkMessage]]:
    """Polls each node whenever it asks for it; what was sent, decoded."""
    following = nodes.poll(now_us)
    while following.min() <= until_us:
        index = int(following.argmin())
        following[index] = nodes.poll_one(index, int(following[index]))
    messages = []
    for index, f_port, payload in nodes.outbox():
        message = app.decode_uplink(f_port, payload)
        assert not isinstance(message, Malformed), (index, f_port, payload.hex())
        messages.append((index, message))
    return messages


def of_kind(messages: list[tuple[int, app.UplinkMessage]], kind: type) -> dict[int, app.UplinkMessage]:
    return {index: message for index, message in messages if isinstance(message, kind)}


def test_status_says_what_the_node_knows() -> None:
    nodes = Nodes(3, [*configs(2), NodeConfig(2, 3, flags=NO_HUMIDITY_SENSOR | NO_RAIN_SENSOR)], IMAGE)
    now_us, _ = live(nodes, 4)
    nodes.set_battery(1, 200)
    sent = of_kind(drain(nodes, now_us, now_us + DAY_US), app.Status)
    weather = [values[-1] for values in readings(3, 96)]
    assert sorted(sent) == [0, 1, 2]
    for index, status in sent.items():
        assert isinstance(status, app.Status)
        assert status.temperature_centi == weather[0][index]
        assert status.humidity_half == (HUMIDITY_MISSING if index == 2 else weather[1][index])
        assert (status.rain_tenth == RAIN_MISSING) == (index == 2)
        assert status.labelled == nodes.labelled[index] == 3
        assert status.flags == (4 if index < 2 else 7)
        assert status.battery == (200 if index == 1 else 255)
        probabilities = nodes.infer(nodes.own_features())[index]
        assert status.risk == probabilities.argmax() << 6 | probabilities.max() >> 2
    rain = readings(3, 96)[2].sum(axis=0)
    assert [sent[index].rain_tenth for index in (0, 1)] == list(rain[:2])


def test_cohort_spread_and_close() -> None:
    """Exactly the nodes with hash8 <= cohort send, each at its own time within the spread."""
    nodes = Nodes(200, configs(200), IMAGE)
    now_us, _ = live(nodes, 4)
    nodes.rx_many(range(200), now_us, 10, announce(9, 1, cohort=99, spread_s=1000))
    following = nodes.poll(now_us)
    nodes.outbox()
    chosen = [i for i in range(200) if app.hash8(i, 9) <= 99]
    due_s = (following[chosen] - now_us) / SECOND_US
    assert 40 < len(chosen) < 120
    early = due_s[due_s < 1005]
    assert early.min() >= 5 and len(set(early)) == len(early)
    assert np.histogram(early, bins=4, range=(5, 1005))[0].min() > len(chosen) / 10
    sent = of_kind(drain(nodes, now_us, now_us + 1005 * SECOND_US), app.Prototypes)
    assert sorted(sent) == chosen


def test_listening_windows() -> None:
    nodes = Nodes(2, configs(2, guard_us=30_000), IMAGE)
    nodes.rx_many([0, 1], 7 * SECOND_US, 10, announce(1, 0, next_window_s=3600, window_s=90))
    nodes.rx(1, 8 * SECOND_US, 12, app.encode(app.Schedule(60, 30, 0)))
    from_us = 7 * SECOND_US + HOUR_US
    assert nodes.listens() == [
        (0, from_us - 30_000, from_us + 90 * SECOND_US),
        (1, from_us - 30_000, from_us + 90 * SECOND_US),
        (1, 68 * SECOND_US - 30_000, 98 * SECOND_US),
    ]
    assert nodes.listens() == []


def test_the_announcement_closes_the_open_window_once_and_names_the_next() -> None:
    """Two nodes in their window, one that is not; the announcement comes twice, three seconds apart."""
    nodes = Nodes(3, configs(3, guard_us=30_000), IMAGE)
    nodes.rx_many([0, 1], 0, 12, app.encode(app.Schedule(3600, 120, 0)))
    assert len(nodes.listens()) == 2
    heard_us = HOUR_US + 10 * SECOND_US
    following = (heard_us + 7200 * SECOND_US - 30_000, heard_us + 7290 * SECOND_US)
    nodes.rx_many(range(3), heard_us, 10, announce(1, 0, next_window_s=7200, window_s=90))
    assert nodes.listens() == [
        (0, heard_us, heard_us),
        (0, *following),
        (1, heard_us, heard_us),
        (1, *following),
        (2, *following),
    ]
    nodes.rx_many(range(3), heard_us + 3 * SECOND_US, 10, announce(1, 0, next_window_s=7197, window_s=90))
    assert nodes.listens() == []


@pytest.mark.parametrize("mode", [app.RoundMode.PROTOTYPES, app.RoundMode.TOP_K_SIGN])
def test_a_round_for_new_contexts_is_answered_by_new_crops_only(mode: app.RoundMode) -> None:
    """Contexts 0 and 1 are shipped: of sixteen nodes exactly those with other crops answer, and once."""
    nodes = Nodes(16, [NodeConfig(i, i % 8, seed=i) for i in range(16)], IMAGE)
    now_us, _ = live(nodes, 8)
    drain(nodes, now_us, now_us)
    kind = app.Prototypes if mode is app.RoundMode.PROTOTYPES else app.TopKSign
    flagged = mode | app.ROUND_NEW_CONTEXTS
    for turn in range(3):
        nodes.rx_many(range(16), now_us + turn * SECOND_US, 10, announce(6, flagged, spread_s=60))
    sent = [(i, m) for i, m in drain(nodes, now_us, now_us + 90 * SECOND_US) if isinstance(m, kind)]
    nodes.rx_many(range(16), now_us + 91 * SECOND_US, 10, announce(6, flagged, spread_s=0))
    sent += [(i, m) for i, m in drain(nodes, now_us + 91 * SECOND_US, now_us + 99 * SECOND_US)
             if isinstance(m, kind)]  # fmt: skip
    model = Model(IMAGE)
    assert [model.knows(context) for context in range(8)] == [True, True] + [False] * 6
    assert sorted(index for index, _ in sent) == [i for i in range(16) if i % 8 >= 2]
    nodes.rx_many(range(16), now_us + HOUR_US, 10, announce(7, mode, spread_s=0))
    later = of_kind(drain(nodes, now_us + HOUR_US, now_us + HOUR_US + 6 * SECOND_US), kind)
    assert sorted(later) == list(range(16)), "an ordinary round is for all"


def test_a_model_with_a_head_keeps_its_crop_out_whatever_rule_it_has() -> None:
    """The lot is drawn by the model's heads, at the gateway and at the node: 5 and 7 are known, 1 is not."""
    nodes = Nodes(8, [NodeConfig(i, i, seed=i) for i in range(8)], IMAGE_WITHOUT_RULE)
    now_us, _ = live(nodes, 5)
    nodes.rx_many(range(8), now_us, 10, announce(6, 0x81, spread_s=0))
    sent = of_kind(drain(nodes, now_us, now_us + 6 * SECOND_US), app.Prototypes)
    model = Model(IMAGE_WITHOUT_RULE)
    assert sorted(sent) == [i for i in range(8) if not model.knows(i)] == [1, 2, 3, 4, 6]


def test_new_contexts_train_their_heads_and_leave_the_adapter() -> None:
    nodes = Nodes(4, [NodeConfig(i, i, seed=i, payload_max=115) for i in range(4)], IMAGE)
    now_us, _ = live(nodes, 30)
    nodes.rx_many(range(4), now_us, 10, announce(5, 0x82, spread_s=0))
    sent = of_kind(drain(nodes, now_us, now_us + 6 * SECOND_US), app.TopKSign)
    assert sorted(sent) == [2, 3]
    for update in sent.values():
        assert isinstance(update, app.TopKSign)
        assert len(update.indices) > 60 and update.indices[0] >= WEATHER.local_size - WEATHER.head_size
    residuals = nodes.residuals
    assert (residuals[:, : -WEATHER.head_size] == 0).all()
    assert (residuals[:2] == 0).all() and (residuals[2:, -WEATHER.head_size :] != 0).sum(axis=1).min() > 60
    nodes.rx_many(range(4), now_us + HOUR_US, 10, announce(6, 2, spread_s=0))
    drain(nodes, now_us + HOUR_US, now_us + HOUR_US + 6 * SECOND_US)
    assert (nodes.residuals[:, : -WEATHER.head_size] != 0).sum(axis=1).min() > 60


@pytest.mark.parametrize(("payload_max", "dims"), [(51, 20), (222, 32), (39, 16)])
def test_prototypes_are_the_class_means(payload_max: int, dims: int) -> None:
    """Against numpy: means of z by class of the unreported samples, within half a step of the quantiser."""
    nodes = Nodes(4, configs(4, payload_max=payload_max), IMAGE)
    now_us, x = live(nodes, 11)
    nodes.rx_many(range(4), now_us, 10, announce(3, 1, spread_s=0))
    sent = of_kind(drain(nodes, now_us, now_us + 6 * SECOND_US), app.Prototypes)
    model = Model(IMAGE)
    for index in range(4):
        update = sent[index]
        assert isinstance(update, app.Prototypes)
        days = np.arange(1, 11)  # the first day has too few readings for a sample
        labels = (index + days) % 3
        z = model.z(np.stack([x[day][index] for day in days]), model.adapter())
        assert update.num_examples == 10 and [mean.label for mean in update.classes] == [0, 1, 2]
        for mean in update.classes:
            of_class = z[labels == mean.label].astype(float).mean(axis=0)[:dims]
            assert mean.count == (labels == mean.label).sum() and len(mean.q) == dims
            step = mean.scale / 8
            assert np.abs(np.array(mean.q) * step - of_class).max() <= step / 2 + 1e-9
            assert mean.scale == 1 or np.abs(of_class).max() > (mean.scale - 1) * 7 / 8 - 1e-9


def test_unacknowledged_samples_travel_again() -> None:
    """Round 1 is acknowledged for node 0 only; round 2 carries node 0's new samples, node 1's all."""
    nodes = Nodes(2, configs(2), IMAGE)
    weather = readings(2, 24 * 8)
    for hour in range(24 * 8):
        now_us = (hour + 1) * HOUR_US
        nodes.sense(now_us, *(values[hour] for values in weather), (hour + 13) % 24)
        if hour % 24 == 23:
            nodes.label(hour // 24, [1, 2])
        if hour == 24 * 5 - 1:
            nodes.rx_many([0, 1], now_us, 10, announce(1, 1, spread_s=0))
            first = of_kind(drain(nodes, now_us, now_us + 9 * SECOND_US), app.Prototypes)
            ack = app.encode(app.RoundAck(1, 0, bytes([0b01])))
            nodes.rx_many([0, 1], now_us + 60 * SECOND_US, 10, ack)
    nodes.rx_many([0, 1], now_us, 10, announce(2, 1, spread_s=0))
    second = of_kind(drain(nodes, now_us, now_us + 9 * SECOND_US), app.Prototypes)
    assert [first[i].num_examples for i in (0, 1)] == [4, 4]
    assert [second[i].num_examples for i in (0, 1)] == [3, 7]


def test_top_k_sign_sends_the_largest_changes_and_keeps_the_rest() -> None:
    nodes = Nodes(4, configs(4, payload_max=115), IMAGE)
    now_us, _ = live(nodes, 40)
    nodes.rx_many(range(4), now_us, 10, announce(5, 2, spread_s=0))
    sent = of_kind(drain(nodes, now_us, now_us + 6 * SECOND_US), app.TopKSign)
    before = nodes.residuals.astype(int)
    nodes.rx_many(range(4), now_us, 10, app.encode(app.RoundAck(5, 0, bytes([0b0111]))))
    after = nodes.residuals.astype(int)
    assert before.shape == (4, WEATHER.local_size)
    for index in range(4):
        update = sent[index]
        assert isinstance(update, app.TopKSign)
        assert update.num_examples == 39 and update.context == index
        chosen = np.array(update.indices)
        kept = np.setdiff1d(np.arange(WEATHER.local_size), chosen)
        size = np.abs(before[index])
        assert len(chosen) > 150 and size[chosen].min() >= size[kept].max()
        assert ((before[index][chosen] < 0) == np.array(update.negative)).all()
        assert abs(size[chosen].mean() - update.magnitude) <= 0.5 + 1e-9
        sign = np.where(update.negative, -1, 1)
        reduced = 0 if index == 3 else sign * update.magnitude
        assert (before[index][chosen] - after[index][chosen] == reduced).all()
        assert (before[index][kept] == after[index][kept]).all()
    assert (nodes.model_version == 0).all()


def test_local_training_learns_its_labels() -> None:
    """Adding the residual of one round to the shipped head fits the node's own labels better than that head.

    The labels depend on the weather (the rule's class), so that there is something to learn.
    """
    nodes = Nodes(1, [NodeConfig(0, 2, seed=3, epochs=20)], IMAGE)
    weather = readings(1, 24 * 60)
    days, labels = [], []
    for hour in range(24 * 60):
        nodes.sense((hour + 1) * HOUR_US, *(values[hour] for values in weather), (hour + 13) % 24)
        mask, x = nodes.day_features()
        if mask[0]:
            labels.append(int(x[0, 53] > 22))
            days.append(x[0])
            nodes.label(hour // 24, [labels[-1]])
    now_us = 24 * 60 * HOUR_US
    nodes.rx(0, now_us, 10, announce(1, 2, spread_s=0))
    drain(nodes, now_us, now_us + 6 * SECOND_US)
    model = Model(IMAGE)
    change = nodes.residuals[0]
    head = model.base_head(2) + change[-WEATHER.head_size :]
    adapter = model.adapter() + change[: -WEATHER.head_size]
    trained = (model.infer(days, head, adapter).argmax(axis=1) == labels).mean()
    shipped = (model.infer(days, model.base_head(2), model.adapter()).argmax(axis=1) == labels).mean()
    majority = max(np.bincount(labels)) / len(labels)
    assert trained > max(shipped, majority) + 0.15, (trained, shipped, majority)


def test_queries_are_answered_from_features_and_from_readings() -> None:
    nodes = Nodes(8, configs(8), IMAGE)
    now_us, x = live(nodes, 3)
    features = tuple(int(v) for v in x[-1][3])
    nodes.rx_many(range(8), now_us, 11, app.encode(app.Query(77, 2, 1, 30, features)), multicast=True)
    nodes.rx_many(range(4), now_us, 11, app.encode(app.Query(78, 1, app.CONTEXT_OWN, 0)))
    answers = [(i, m) for i, m in drain(nodes, now_us, now_us + 30 * SECOND_US) if isinstance(m, app.Answer)]
    of_features = {i: m for i, m in answers if m.query_id == 77}
    of_readings = {i: m for i, m in answers if m.query_id == 78}
    model = Model(IMAGE)
    expected = model.infer([features], model.base_head(1), model.adapter())[0]
    assert sorted(of_features) == list(range(8)) and sorted(of_readings) == list(range(4))
    for answer in of_features.values():
        assert answer.probabilities == tuple(expected) and answer.flags == 0 and answer.age == 255
    own = nodes.infer(nodes.own_features())
    for index, answer in of_readings.items():
        assert answer.probabilities == tuple(own[index]) and answer.context == index
        assert answer.flags == 1 and answer.age == 0 and answer.head_version == 0


def test_a_busy_radio_delays_but_loses_nothing() -> None:
    nodes = Nodes(3, configs(3), IMAGE)
    now_us, _ = live(nodes, 3)
    drain(nodes, now_us, now_us)
    nodes.busy[:] = [0, 20, 255]
    nodes.rx_many(range(3), now_us, 11, app.encode(app.Query(5, 1, app.CONTEXT_OWN, 0)))
    following = nodes.poll(now_us)
    assert [index for index, _, _ in nodes.outbox()] == [0]
    assert 20 * SECOND_US <= following[1] - now_us < 26 * SECOND_US
    nodes.busy[:] = 0
    assert of_kind(drain(nodes, now_us, now_us + 300 * SECOND_US), app.Answer).keys() == {1, 2}
    assert (nodes.dropped == 0).all()


def test_the_same_calls_give_the_same_bytes_and_a_snapshot_continues_alike() -> None:
    def finish(nodes: Nodes, now_us: int) -> list[tuple[int, int, bytes]]:
        nodes.rx_many(range(6), now_us, 10, announce(4, 2))
        nodes.poll(now_us)
        nodes.poll(now_us + 200 * SECOND_US)
        return nodes.outbox()

    first, second = (Nodes(6, configs(6), IMAGE) for _ in range(2))
    now_us, _ = live(first, 8)
    live(second, 8)
    assert first.snapshot()[: len(IMAGE)] != b"" and (first.own_features() == second.own_features()).all()
    state = first.snapshot()
    sent = finish(first, now_us)
    assert sent and sent == finish(second, now_us)
    first.restore(state)
    assert finish(first, now_us) == sent
    third = Nodes(6, configs(6, seed=99), IMAGE)
    third.restore(state)
    assert finish(third, now_us) == sent
    with pytest.raises(ValueError, match="no snapshot"):
        first.restore(state[:-1])
    with pytest.raises(ValueError, match="another build"):
        first.restore(bytes(len(state)))
    first.poll(now_us + DAY_US)  # the refused snapshot changed nothing


def test_reset_keeps_what_is_in_nvm_only() -> None:
    nodes = Nodes(2, configs(2), IMAGE)
    now_us, _ = live(nodes, 5)
    head = bytes([0, 1]) + bytes(range(99))
    piece = app.BlockPiece(7, app.NO_BASE, app.BlockKind.HEADS, len(head), zlib.crc32(head), 0, 1, head)
    nodes.rx_many([0, 1], now_us, 10, app.encode(piece))
    nodes.reset(1, now_us)
    assert list(nodes.model_version) == [7, 7]
    assert list(nodes.labelled) == [4, 0]
    assert nodes.heads[1, 0, 98] == 196 and (nodes.heads[0] == nodes.heads[1]).all()


def test_missing_hours_and_days() -> None:
    """A day without enough readings makes no sample, but it counts."""
    nodes = Nodes(2, configs(2), IMAGE)
    weather = readings(2, 24 * 6)
    weather[0][24 * 3 : 24 * 4, 1] = TEMPERATURE_MISSING
    masks = []
    for hour in range(24 * 6):
        nodes.sense((hour + 1) * HOUR_US, *(values[hour] for values in weather), (hour + 13) % 24)
        if hour % 24 == 23:
            masks.append(nodes.day_features()[0].tolist())
    assert [mask[0] for mask in masks] == [False, True, True, True, True, True]
    assert [mask[1] for mask in masks] == [False, True, True, False, False, True]
    assert list(nodes.day) == [6, 6]
    assert nodes.label(4, [0, 0]) == 1
    assert nodes.label(5, [LABEL_NONE, 2]) == 1


def test_hostile_downlinks_change_nothing() -> None:
    nodes = Nodes(1, configs(1), IMAGE)
    now_us, _ = live(nodes, 3)
    drain(nodes, now_us, now_us)
    rng = Prng(3).child("hostile").numpy()
    for size in range(223):
        nodes.rx(0, now_us, int(rng.integers(9, 14)), b"\xff" + rng.bytes(size))
    assert nodes.refused[0] == 223
    assert nodes.listens() == [] and nodes.outbox() == []


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="2 nodes and 1 configs"):
        Nodes(2, configs(1), IMAGE)
    for wrong in ({"context": 8}, {"payload_max": 15}, {"payload_max": 300}, {"node_index": 65536}):
        with pytest.raises(ValueError, match="node 0"):
            Nodes(1, configs(1, **wrong), IMAGE)
    with pytest.raises(ValueError, match="refuses this model image: crc"):
        Model(IMAGE[:-1] + bytes([IMAGE[-1] ^ 1]))
    nodes = Nodes(2, configs(2), IMAGE)
    with pytest.raises(ValueError, match="expected 2 values"):
        nodes.sense(0, [1, 2, 3], [1, 2, 3], [1, 2, 3], 0)
    with pytest.raises(ValueError, match="56"):
        nodes.infer(np.zeros((2, 55), np.int8))
    with pytest.raises(IndexError):
        nodes.rx(2, 0, 10, b"\x01")
    with pytest.raises(IndexError):
        nodes.poll_one(-1, 0)


def test_a_thousand_nodes_sense_a_month_in_seconds() -> None:
    """Performance contract: 1000 nodes x 720 hours, 30 closed days included (0.5 s measured; 5 s allowed)."""
    nodes = Nodes(1000, configs(1000), IMAGE)
    weather = readings(1000, 720)
    begun = time.perf_counter()
    for hour in range(720):
        nodes.sense((hour + 1) * HOUR_US, *(values[hour] for values in weather), (hour + 13) % 24)
    assert time.perf_counter() - begun < 5
    assert (nodes.day == 30).all()
    assert nodes.day_features()[1].shape == (1000, WEATHER.features)
