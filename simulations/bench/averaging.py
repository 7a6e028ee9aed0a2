"""Federated averaging as one would do it without sparing the radio: everything trains, everything travels.

Theory of operation.  Two baselines, in float and without the firmware, for no node of ours holds what they
need: every weight of the trunk (24 kB of them: what averaging a model means elsewhere), or rank-4 adapters on
the shared and every routed expert with biases and gate (3 kB); and a head per context, as ours are.
(`dense_int8`, the firmware's own, is cheaper: one adapter behind the trunk and the node's head.)  A hundred
nodes are invited; each takes some steps on batches of its own rows and sends the change, a byte a parameter;
the server moves by Adam along the mean (FedAdam: Reddi et al., "Adaptive Federated Optimization", ICLR 2021)
and multicasts the whole, once.  No frame is lost and nothing else is sent: the bill is the least that it can
be.  Data rate changes the bill, not what is learned, so one run serves all of them.

    run = Averaging(task, model, AVERAGED["average_all"], seed=1)
    run.round()
    run.answers(task.validation)        # uint8[n]
    run.costs(spreading_factor=7)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.bench.bill import Bill, Costs, payload_max
from simulations.bench.modes import Averaged
from simulations.tasks.public_model import INPUT_ONE, PublicModel, head_inputs
from simulations.tasks.task import Samples, Task
from simulations.tasks.trunk import Pass, as_stored, backward, class_weights, forward, softmax
from swarm.model import layout
from swarm.prng import Prng

__all__ = ["Averaging"]

F32 = NDArray[np.float32]
Parameters = dict[str, F32]

COHORT = 100
STEPS, BATCH = 4, 8
FRAGMENT_SIZE = 6
"""Type, round, mode, index and count, as a FRAGMENT of docs/SPEC.md has them."""
Z_MAX = np.float32(127 / layout.Z_ONE)
BETA1, BETA2, TAU = 0.9, 0.99, 1e-3
"""FedAdam's; tau as Reddi et al. recommend."""
_MATRICES = ("shared", "experts")
_SMALL = ("shared_bias", "experts_bias", "gate", "gate_bias")
_TRUNK = (*_MATRICES, *_SMALL, "dense", "dense_bias")


@dataclass(slots=True)
class _Adam:
    """The server's state for one tensor."""

    mean: F32
    square: F32

    def step(self, change: F32) -> F32:
        self.mean = np.float32(BETA1) * self.mean + np.float32(1 - BETA1) * change
        self.square = np.float32(BETA2) * self.square + np.float32(1 - BETA2) * change**2
        return np.asarray(self.mean / (np.sqrt(self.square) + np.float32(TAU)))


class Averaging:
    """See the module."""

    def __init__(self, task: Task, model: PublicModel, averaged: Averaged, seed: int) -> None:
        self.task, self._model, self._settings = task, model, averaged
        self._trunk = as_stored(model.trunk.weights)
        self._project = model.project.weight.astype(np.float32), model.project.bias.astype(np.float32)
        prng = Prng(seed).child("averaging")
        self._chance = prng.child("rounds").numpy()
        self.parameters = self._shipped(prng.child("adapters").numpy())
        self._adam = {
            name: _Adam(np.zeros_like(value), np.full_like(value, TAU**2))
            for name, value in self.parameters.items()
        }
        train = task.train
        self._inputs = self._inputs_of(train)
        self._rows = [np.flatnonzero(train.node == node) for node in range(task.nodes)]
        self.weight = np.ones(len(train), np.float32)
        for rows in self._rows:
            self.weight[rows] = class_weights(train.label[rows], train.context[rows], len(task.classes))
        self._learning = [
            node for node, rows in enumerate(self._rows) if len(rows) and node not in task.silent
        ]
        self._invited: list[list[int]] = []

    def _shipped(self, rng: np.random.Generator) -> Parameters:
        """The shipped heads, and the trunk's weights or adapters that change nothing yet."""
        rank, hidden = layout.RANK, layout.HIDDEN
        heads = np.stack([self._model.head(context) for context in range(len(self.task.contexts))])
        kept = _TRUNK if self._settings.whole else _SMALL
        made: Parameters = {"heads": heads, **{name: self._trunk[name].copy() for name in kept}}
        for name in () if self._settings.whole else _MATRICES:
            each = self._trunk[name].shape[:-2]
            drawn = rng.standard_normal((*each, rank, hidden)) / np.sqrt(hidden)
            made[f"{name}_a"] = drawn.astype(np.float32)
            made[f"{name}_b"] = np.zeros((*each, hidden, rank), np.float32)
        return made

    def size(self, contexts: int) -> int:
        """Bytes of an update (one context), or with all contexts of the model: one for each parameter."""
        heads = self.parameters["heads"]
        shared = sum(int(value.size) for name, value in self.parameters.items() if name != "heads")
        return shared + contexts * int(heads[0].size)

    def _inputs_of(self, samples: Samples) -> F32:
        return (self._model.encode(samples.x) / np.float32(INPUT_ONE)).astype(np.float32)

    def _weights(self, parameters: Parameters) -> Parameters:
        """The trunk as the parameters have it."""
        if self._settings.whole:
            return parameters
        adapted = {
            name: self._trunk[name] + parameters[f"{name}_b"] @ parameters[f"{name}_a"] for name in _MATRICES
        }
        return {**self._trunk, **{name: parameters[name] for name in _SMALL}, **adapted}

    def _head_inputs(self, hidden: F32) -> tuple[F32, F32]:
        """z before it is cut to int8's range, and what heads multiply."""
        z = hidden @ self._project[0].T + self._project[1]
        return z, head_inputs(np.clip(z, -Z_MAX, Z_MAX))

    def logits(self, parameters: Parameters, rows: NDArray[np.int64]) -> tuple[Pass, F32, F32, F32]:
        """Of rows of one node: the trunk's pass, z, what heads multiply, and the logits."""
        done = forward(self._weights(parameters), self._inputs[rows])
        z, inputs = self._head_inputs(done.h)
        return done, z, inputs, inputs @ parameters["heads"][self.task.train.context[rows[0]]].T

    def slopes(self, parameters: Parameters, rows: NDArray[np.int64]) -> Parameters:
        """Gradients of the weighted cross-entropy of rows of one node (and of the gate's even use)."""
        train, context = self.task.train, int(self.task.train.context[rows[0]])
        done, z, inputs, logits = self.logits(parameters, rows)
        error = softmax(logits)
        error[np.arange(len(rows)), train.label[rows]] -= 1.0
        error *= self.weight[rows, None] / np.float32(len(rows))
        through = (error @ parameters["heads"][context][:, :-1]) * (np.abs(z) < Z_MAX)
        below = backward(self._weights(parameters), done, (through @ self._project[0]).astype(np.float32))
        made = {name: below[name] for name in (_TRUNK if self._settings.whole else _SMALL)}
        made["heads"] = np.zeros_like(parameters["heads"])
        made["heads"][context] = error.T @ inputs
        for name in () if self._settings.whole else _MATRICES:
            a, b = parameters[f"{name}_a"], parameters[f"{name}_b"]
            made[f"{name}_a"] = b.swapaxes(-1, -2) @ below[name]
            made[f"{name}_b"] = below[name] @ a.swapaxes(-1, -2)
        return made

    def _update(self, node: int) -> Parameters:
        """What a node's steps changed, each tensor in 255 levels."""
        own = {name: value.copy() for name, value in self.parameters.items()}
        for _ in range(STEPS):
            rows = self._chance.permutation(self._rows[node])[:BATCH]
            for name, slope in self.slopes(own, rows).items():
                own[name] -= np.float32(self._settings.node_rate) * slope
        changes = {name: value - self.parameters[name] for name, value in own.items()}
        for name, change in changes.items():
            step = np.float32(max(np.abs(change).max() / 127.0, 1e-12))
            changes[name] = np.rint(change / step) * step
        return changes

    def round(self) -> None:
        """Invite, train, add, multicast."""
        invited = self._chance.permutation(self._learning)[:COHORT].tolist()
        total = {name: np.zeros_like(value) for name, value in self.parameters.items()}
        for node in invited:
            for name, change in self._update(node).items():
                total[name] += change
        told = np.bincount(self.task.node_context[invited], minlength=len(self.task.contexts))
        for name, change in total.items():
            count = np.maximum(told, 1)[:, None, None] if name == "heads" else np.array(len(invited))
            mean = (change / count).astype(np.float32)
            self.parameters[name] += np.float32(self._settings.server_rate) * self._adam[name].step(mean)
        self._invited.append(invited)

    def answers(self, samples: Samples) -> NDArray[np.uint8]:
        """The class of each row by the fleet's model, uint8[n]."""
        weights, x = self._weights(self.parameters), self._inputs_of(samples)
        said = np.empty(len(samples), np.uint8)
        for begin in range(0, len(samples), 4096):
            part = slice(begin, begin + 4096)
            _, inputs = self._head_inputs(forward(weights, x[part]).h)
            heads = self.parameters["heads"][samples.context[part]]
            said[part] = np.einsum("nci,ni->nc", heads, inputs).argmax(axis=1)
        return said

    def costs(self, spreading_factor: int, rounds: int | None = None) -> Costs:
        """What the first rounds (default: all so far) cost at a spreading factor (7..12)."""
        bill = Bill(self.task.nodes, spreading_factor)
        largest = payload_max(spreading_factor) - FRAGMENT_SIZE
        everyone = np.arange(self.task.nodes)

        def frames(size: int) -> list[tuple[int, int]]:
            """Sizes of fragments and how many of each."""
            full, rest = divmod(size, largest)
            return [
                (FRAGMENT_SIZE + part, times) for part, times in ((largest, full), (rest, 1)) if part * times
            ]

        for invited in self._invited[:rounds]:
            for part, times in frames(self.size(1)):
                bill.uplink(np.array(invited), part, times)
            for part, times in frames(self.size(len(self.task.contexts))):
                bill.downlink(part, everyone, times)
        silent = self.task.silent
        return bill.costs(silent or range(self.task.nodes), with_downlinks=not silent)
