"""A fleet of another application than weather, and the gateway's side of its rounds; nothing is lost."""

from __future__ import annotations

import numpy as np

from swarm.federation.reassembly import Reassembly
from swarm.federation.round import Refused, Round
from swarm.federation.strategy import FlowerStrategy
from swarm.model import block, container
from swarm.model.layout import Shape
from swarm.model.vector import Mirror
from swarm.node import Model, NodeConfig, Nodes
from swarm.wire import app

__all__ = ["SECOND_US", "Fleet"]

SECOND_US = 1_000_000


class Fleet:
    """Nodes of another application: the class of a sample is what a hidden rule on z says."""

    def __init__(self, shape: Shape, count: int = 24, payload_max: int = 51) -> None:
        self.image = container.random_model(11, shape=shape, contexts=(0,))
        self.model, self.shape = Model(self.image), shape
        configs = [NodeConfig(i, i % 2, seed=i, payload_max=payload_max, epochs=2) for i in range(count)]
        self.nodes = Nodes(count, configs, self.image)
        shipped = np.stack([self.model.base_head(context) for context in range(2)])
        self.mirror = Mirror(0, self.model.adapter(), shipped)
        self.rng = np.random.Generator(np.random.PCG64(5))
        self.truth = self.rng.integers(-200, 200, (shape.classes, 32))
        self.samples = 0
        self.frames: list[tuple[int, bytes]] = []

    def draw(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        x = self.rng.integers(-100, 100, (rows, self.shape.features)).astype(np.int8)
        return x, (self.model.z(x).astype(int) @ self.truth.T).argmax(axis=1).astype(np.uint8)

    def observe(self, samples: int) -> None:
        for _ in range(samples):
            x, labels = self.draw(self.nodes.count)
            self.nodes.observe(self.samples * SECOND_US, self.samples, x)
            assert self.nodes.label(self.samples, labels) == self.nodes.count
            self.samples += 1

    def round(self, number: int, mode: app.RoundMode) -> Round:
        """Announce, gather and acknowledge one round over the real frames; nothing is lost."""
        now_us = (1000 + 1000 * number) * SECOND_US
        version = self.mirror.version
        made = Round(number, mode, version, 255, now_us, now_us + 300 * SECOND_US, 99, self.shape, 2)
        frame = app.encode(app.RoundAnnounce(number, version, mode, 255, 0, 300, 0, 0))
        self.nodes.rx_many(range(self.nodes.count), now_us, 10, frame)
        self.reassembly = Reassembly(number)
        for seconds in range(10, 300, 3):
            self.nodes.poll(now_us + seconds * SECOND_US)
            for index, f_port, payload in self.nodes.outbox():
                if f_port == app.F_PORT_LEARNING:
                    self.frames.append((index, payload))
                    self.take(made, index, payload, now_us)
        assert len(self.reassembly) == 0
        return made

    def take(self, made: Round, index: int, payload: bytes, now_us: int) -> None:
        """What the gateway does with a frame: fragments wait, whole updates count."""
        message = app.decode_uplink(app.F_PORT_LEARNING, payload)
        if isinstance(message, app.Fragment):
            assert made.on_fragment(f"{index:016x}", index, message) is None
            whole, _ = self.reassembly.take(f"{index:016x}", message)
            if whole is None:
                return
            message = app.decode_uplink(app.F_PORT_LEARNING, whole)
        assert isinstance(message, app.LearningMessage), message
        result = made.on_update(f"{index:016x}", index, message, now_us, context=index % 2)
        assert not isinstance(result, Refused), result

    def close(self, made: Round, strategy: FlowerStrategy, kind: app.BlockKind) -> None:
        closed = made.close(made.close_us, strategy, self.mirror.master())
        assert closed.vector is not None, closed.failure
        encoded = block.encode(self.mirror, closed.vector, kind)
        for frame in [*made.ack_frames(51), *encoded.frames(51)]:
            self.nodes.rx_many(range(self.nodes.count), made.close_us, 10, frame)
        self.mirror = encoded.mirror
        for index in range(self.nodes.count):
            assert np.array_equal(self.nodes.heads[index, :2], self.mirror.heads)
            assert np.array_equal(self.nodes.adapters[index], self.mirror.adapter)

    def accuracy(self) -> float:
        """Of what the fleet learned together, not of the heads that nodes tune for themselves."""
        x, labels = self.draw(self.nodes.count * 20)
        context = np.repeat(np.arange(self.nodes.count) % 2, 20)
        said = np.empty_like(labels)
        for own, head in enumerate(self.mirror.heads):
            at = context == own
            said[at] = self.model.infer(x[at], head, self.mirror.adapter).argmax(axis=1)
        return float((said == labels).mean())
