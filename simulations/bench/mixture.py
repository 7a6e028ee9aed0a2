"""A mixture of experts trained in numpy, with the rounding of the container in the loop.

The network is the container's own: h0 = relu(dense x), h = h0 + relu(shared h0) + the gate's two best of the
experts, z = project h, one head.  Weights are rounded forward (int4 rows; gate and projection int8) and the
gradient passes as if they were not, so that what is trained is what nodes will run.  Adam, cross-entropy,
and a penalty that keeps all experts in use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swarm.model import container, layout
from swarm.model.container import FloatModel, Linear
from swarm.model.container_format import quantise_rows
from swarm.node import Model
from swarm.prng import Prng

__all__ = ["Examples", "train"]

F64 = NDArray[np.float64]
BATCH = 256
CALIBRATION = 8192
"""Examples from which scales are taken and the head is fitted."""
RATE = 3e-3
DECAY = 1e-3
BALANCE = 0.02
HEAD_STEPS = 400
HIDDEN_PERCENTILE = 99.9
"""Of the hidden values; those above saturate."""
BITS = {"dense": 4, "shared": 4, "experts": 4, "gate": 8, "project": 8}


@dataclass(frozen=True)
class Examples:
    """Inputs x [n, features] in real units, labels [n], and the site of each, [n]."""

    x: F64
    label: NDArray[np.int64]
    site: NDArray[np.int64]


def train(
    draw: Callable[[int], Examples], *, classes: int, input_scale: float, steps: int, seed: int
) -> bytes:
    """A container with eight experts and one shared head; the generation is 1.  `draw(n)` gives n
    examples."""
    last = draw(CALIBRATION)
    network = _Network(last.x.shape[1], classes, Prng(seed).child("weights").numpy())
    for step in range(steps):
        batch = draw(BATCH)
        rate = RATE * min(1.0, 2.0 * (1.0 - step / steps)) + 1e-5
        network.step(batch.x, batch.label, rate)
    return network.container(last, input_scale)


def _softmax(logits: F64) -> F64:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _rounded(weight: F64, bits: int) -> F64:
    flat = weight.reshape(-1, weight.shape[-1])
    quantised, scale = quantise_rows(flat, bits)
    return np.asarray((quantised * scale[:, None]).reshape(weight.shape))


@dataclass(frozen=True)
class _Pass:
    """What one run of the network leaves behind for its gradient."""

    h0: F64
    shared: F64
    logits: F64
    gains: F64
    """[n, experts], zero for those not chosen."""
    experts: F64
    hidden: F64
    z: F64
    scores: F64


class _Network:
    def __init__(self, features: int, classes: int, draws: np.random.Generator) -> None:
        hidden, experts, z = layout.HIDDEN, layout.EXPERTS, layout.Z

        def weights(gain: float, *shape: int) -> F64:
            return np.asarray(draws.normal(0.0, gain / np.sqrt(shape[-1]), shape))

        self.weight: dict[str, F64] = {
            "dense": weights(1.4, hidden, features),
            "shared": weights(0.7, hidden, hidden),
            "gate": weights(1.0, experts, hidden),
            "experts": weights(1.0, experts, hidden, hidden),
            "project": weights(1.0, z, hidden),
            "head": weights(1.0, classes, z),
        }
        self.bias = {name: np.zeros(weight.shape[:-1]) for name, weight in self.weight.items()}
        self._moments: dict[str, tuple[F64, F64]] = {}
        self._steps = 0

    def run(self, x: F64) -> _Pass:
        w = {name: _rounded(each, BITS[name]) if name in BITS else each for name, each in self.weight.items()}
        b = self.bias
        h0 = np.maximum(x @ w["dense"].T + b["dense"], 0.0)
        shared = np.maximum(h0 @ w["shared"].T + b["shared"], 0.0)
        logits = h0 @ w["gate"].T + b["gate"]
        best = np.argsort(-logits, axis=1, kind="stable")[:, : layout.TOP_K]
        rows = np.arange(len(x))[:, None]
        gains = np.zeros_like(logits)
        gains[rows, best] = _softmax(logits[rows, best])
        experts = np.maximum(np.einsum("ni,eoi->neo", h0, w["experts"]) + b["experts"], 0.0)
        hidden = h0 + shared + np.einsum("ne,neo->no", gains, experts)
        z = hidden @ w["project"].T + b["project"]
        return _Pass(h0, shared, logits, gains, experts, hidden, z, z @ w["head"].T + b["head"])

    def step(self, x: F64, label: NDArray[np.int64], rate: float) -> None:
        """One step of Adam."""
        self._steps += 1
        for name, (weight, bias) in self._gradient(x, label).items():
            self._adam(name, self.weight[name], weight + DECAY * self.weight[name], rate)
            self._adam(f"{name}.bias", self.bias[name], bias, rate)

    def _gradient(self, x: F64, label: NDArray[np.int64]) -> dict[str, tuple[F64, F64]]:
        p, w, n = self.run(x), self.weight, len(x)
        scores = _softmax(p.scores)
        scores[np.arange(n), label] -= 1.0
        scores /= n
        z = scores @ w["head"]
        hidden = z @ w["project"]
        shared = hidden * (p.shared > 0)
        outs = p.gains[:, :, None] * hidden[:, None, :] * (p.experts > 0)
        gate = self._gate_gradient(p, hidden)
        h0 = (
            hidden + shared @ w["shared"] + np.einsum("neo,eoi->ni", outs, w["experts"]) + gate @ w["gate"]
        ) * (p.h0 > 0)
        return {
            "head": (scores.T @ p.z, scores.sum(axis=0)),
            "project": (z.T @ p.hidden, z.sum(axis=0)),
            "shared": (shared.T @ p.h0, shared.sum(axis=0)),
            "experts": (np.einsum("neo,ni->eoi", outs, p.h0), outs.sum(axis=0)),
            "gate": (gate.T @ p.h0, gate.sum(axis=0)),
            "dense": (h0.T @ x, h0.sum(axis=0)),
        }

    @staticmethod
    def _gate_gradient(p: _Pass, hidden: F64) -> F64:
        worth = np.einsum("no,neo->ne", hidden, p.experts)
        chosen = p.gains * (worth - (p.gains * worth).sum(axis=1, keepdims=True))
        share = _softmax(p.logits)
        use = (p.gains > 0).mean(axis=0) * BALANCE * layout.EXPERTS / layout.TOP_K / len(hidden)
        balance = share * (use - (share * use).sum(axis=1, keepdims=True))
        return np.asarray(chosen + balance)

    def _adam(self, name: str, values: F64, gradient: F64, rate: float) -> None:
        first, second = self._moments.get(name, (np.zeros_like(values), np.zeros_like(values)))
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        self._moments[name] = (first, second)
        mean = first / (1.0 - 0.9**self._steps)
        values -= rate * mean / (np.sqrt(second / (1.0 - 0.999**self._steps)) + 1e-8)

    def container(self, examples: Examples, input_scale: float) -> bytes:
        """The image: z whitened per dimension, the head fitted on the z that the engine computes."""
        p = self.run(examples.x)
        mean, spread = p.z.mean(axis=0), np.maximum(p.z.std(axis=0), 1e-6)
        w, b = self.weight, self.bias
        project = Linear(w["project"] / spread[:, None], (b["project"] - mean) / spread)
        rng = np.random.default_rng(self._steps)

        def image(head: F64) -> bytes:
            model = FloatModel(
                dense=Linear(w["dense"], b["dense"]),
                shared=Linear(w["shared"], b["shared"]),
                gate=Linear(w["gate"], b["gate"]),
                experts=[Linear(w["experts"][e], b["experts"][e]) for e in range(layout.EXPERTS)],
                project=project,
                input_scale=input_scale,
                hidden_scale=float(np.percentile(p.hidden, HIDDEN_PERCENTILE)) / 127.0,
                adapter_a=rng.normal(0.0, 0.1, (layout.RANK, layout.HIDDEN)),
                heads={None: head},
            )
            return container.write(model, generation=1)

        head = np.hstack([w["head"] * spread, (b["head"] + w["head"] @ mean)[:, None]])
        rng = np.random.default_rng(self._steps)
        x = np.clip(np.rint(examples.x / input_scale), -128, 127).astype(np.int8)
        z = Model(image(head)).z(x) / layout.Z_ONE
        rng = np.random.default_rng(self._steps)
        return image(_fitted(head, z, examples.label))


def _fitted(head: F64, z: F64, label: NDArray[np.int64]) -> F64:
    """Logistic regression from `head` on, by gradient steps on everything."""
    inputs = np.hstack([z, np.ones((len(z), 1))])
    wanted = np.eye(len(head))[label]
    for _ in range(HEAD_STEPS):
        head = head - 0.3 * ((_softmax(inputs @ head.T) - wanted).T @ inputs / len(inputs) + 1e-4 * head)
    return head
