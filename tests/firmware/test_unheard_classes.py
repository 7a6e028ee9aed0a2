"""A context whose public data lack a class begins with the fleet's head: the shipped one cannot say it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from swarm.model import block, container
from swarm.model.layout import Shape
from swarm.model.vector import Mirror
from swarm.node import Model, NodeConfig, Nodes
from swarm.wire import app

SHAPE = Shape(classes=4, features=20)
GLOBAL, KEPT, SHIPPED = 0, 1, 2


def image_of(counts: list[int], monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A random container that knows context 0, from so many public samples of each class."""
    models: list[container.FloatModel] = []
    original = container.write
    monkeypatch.setattr(
        container, "write", lambda model, **more: (models.append(model), original(model, **more))[1]
    )
    container.random_model(3, shape=SHAPE, contexts=(0,))
    prior = models[0].priors[0]
    return original(replace(models[0], priors={0: replace(prior, count=np.array(counts))}))


def fleet(image: bytes, labels: int) -> Nodes:
    """One node with so many labels, all as the shipped head says, and then a fleet's head that agrees."""
    nodes = Nodes(1, [NodeConfig(0, 0, seed=4)], image)
    model = Model(image)
    shipped, adapter = model.base_head(0), model.adapter()
    draw = np.random.default_rng(2)
    for number in range(labels):
        x = draw.integers(-90, 90, (1, SHAPE.features)).astype(np.int8)
        nodes.observe(number * 1_000_000, number, x)
        said = model.infer(x, shipped, adapter)[0].argmax()
        assert nodes.label(number, np.array([said], np.uint8)) == 1
    mirror = Mirror(0, adapter, np.stack([shipped]))
    vector = mirror.master()
    vector[-SHAPE.head_size :] *= 1.25  # says the same of everything, and is another head
    for frame in block.encode(mirror, vector, app.BlockKind.HEADS).frames(222):
        nodes.rx(0, labels * 1_000_000, 10, frame, multicast=True)
    assert not np.array_equal(nodes.heads[0, 0], shipped)
    return nodes


@pytest.mark.parametrize(("labels", "known"), [(0, KEPT), (2, KEPT), (12, SHIPPED)])
def test_who_begins_with_the_fleets_head(labels: int, known: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fleet(image_of([9, 9, 9, 9], monkeypatch), labels).serving[0] == known
    assert fleet(image_of([9, 0, 9, 9], monkeypatch), labels).serving[0] == GLOBAL
