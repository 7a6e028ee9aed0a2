"""A masking group of real nodes behind the real coordinator: what they send, and what may get lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from swarm.config import Privacy
from swarm.effects import Malformed
from swarm.node import MaskGroup, Model, NodeConfig, Nodes
from swarm.wire import app
from tests.swarm.cell import CONTEXTS, MODEL, SECOND_US, Cell, add_node, open_round, settings

__all__ = ["MaskedCell", "mask_groups"]

Loses = Callable[[int, bytes], bool]


def mask_groups(size: int, group: int = 3, seed: int = 1) -> list[MaskGroup]:
    """The members of one group, as provisioning makes them."""
    draw = np.random.default_rng([seed, group])
    shared = {(a, b): draw.bytes(16) for a in range(size) for b in range(a + 1, size)}
    keys = [
        tuple(bytes(16) if a == b else shared[min(a, b), max(a, b)] for b in range(size)) for a in range(size)
    ]
    return [MaskGroup(group, position, keys[position]) for position in range(size)]


class MaskedCell:
    """`groups` of `size` nodes of context 0; node i of the array is device `CONTEXTS * i` of the cell."""

    def __init__(
        self,
        size: int = 8,
        privacy: Privacy | None = None,
        payload_max: int = 222,
        *,
        groups: int = 1,
        make: Callable[..., Cell] = Cell,
        places: bool = True,
    ) -> None:
        """`places`: the gateway was told who has which place, as provisioning does."""
        config = settings(
            "masked_sums",
            privacy=privacy or Privacy(),
            options={"gain_min": 0.0, "nodes_min": 1.0, "nodes_full": 1.0},
        )
        count = size * groups
        self.cell = make(config, nodes=CONTEXTS * count)
        self.masks = [mask for group in range(groups) for mask in mask_groups(size, 3 + group)]
        for i, mask in enumerate(self.masks if places else ()):
            place = f"{mask.group}/{mask.position}/{size}"
            assert self.cell.command(replace(add_node(CONTEXTS * i), mask_place=place)) is None
        configs = [
            NodeConfig(CONTEXTS * i, 0, seed=i, payload_max=payload_max, mask=self.masks[i])
            for i in range(count)
        ]
        self.nodes = Nodes(count, configs, MODEL, self.cell.now_us)
        self.model = Model(MODEL)
        self.rng = np.random.default_rng(9)
        self.z: list[np.ndarray] = []
        self.labels: list[np.ndarray] = []
        self.sent: list[tuple[int, bytes]] = []

    def observe(self, samples: int = 6) -> None:
        for _ in range(samples):
            x = self.rng.integers(-90, 90, (self.nodes.count, 56)).astype(np.int8)
            labels = self.rng.integers(0, 3, self.nodes.count).astype(np.uint8)
            self.nodes.observe(self.cell.now_us, len(self.z), x)
            assert self.nodes.label(len(self.z), labels) == self.nodes.count
            self.z.append(np.maximum(self.nodes.z(x).astype(int), -127)[:, :20])
            self.labels.append(labels)

    def truth(self, members: list[int]) -> np.ndarray:
        """Counts, sums of z and squares over all samples of these nodes, flat."""
        z = np.stack(self.z)[:, members].reshape(-1, 20)
        labels = np.stack(self.labels)[:, members].ravel()
        sums = np.stack([z[labels == label].sum(axis=0) for label in range(3)])
        squares = (z.T @ z)[np.triu_indices(20)]
        return np.concatenate([np.bincount(labels, minlength=3), sums.ravel(), squares])

    def listen(self) -> None:
        """Deliver all that went on the air to the nodes."""
        for device, delivered in self.cell.receive().items():
            if device % CONTEXTS == 0:
                for each in delivered:
                    if each.f_port:
                        what = (each.f_port, each.payload, each.multicast)
                        self.nodes.rx(device // CONTEXTS, self.cell.now_us, *what)

    def step(self, seconds: float, loses: Loses = lambda node, payload: False) -> None:
        """Let time pass; what nodes send reaches the gateway unless it is lost, and its answers the nodes."""
        until_us = self.cell.now_us + int(seconds * SECOND_US)
        while self.cell.now_us < until_us:
            self.nodes.poll(self.cell.now_us)
            for node, f_port, payload in self.nodes.outbox():
                if f_port == app.F_PORT_LEARNING:
                    self.sent.append((node, payload))
                if not loses(node, payload):
                    self.cell.uplink(CONTEXTS * node, f_port, payload)
            self.cell.keep_alive()
            self.cell.run_for(7)
            self.listen()

    def open(self) -> int:
        """Open a round that the nodes hear."""
        number = open_round(self.cell)
        self.listen()
        return number

    def wake(self, members: list[int]) -> None:
        """These nodes send something, so that they listen."""
        for node in members:
            self.cell.uplink(CONTEXTS * node, 12, app.encode(app.Status(0, 0, 255, 0, 0, 0, 0, 0, 0, 0)))
            self.cell.run_for(5)
            self.listen()

    def totals(self) -> np.ndarray:
        """What the strategy has of context 0."""
        return self.cell.core.rounds.strategies["masked_sums"]._strategy.learner._totals[0]  # type: ignore[union-attr]

    def decoded(self) -> list[tuple[int, app.Message]]:
        """The learning frames that nodes sent."""
        made = [(node, app.decode_uplink(app.F_PORT_LEARNING, payload)) for node, payload in self.sent]
        assert not any(isinstance(message, Malformed) for _, message in made)
        return made  # type: ignore[return-value]
