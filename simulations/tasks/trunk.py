"""The public trunk: a tiny mixture of experts, trained in numpy with the container's rounding in the loop.

    h0 = relu(D x)        h = h0 + relu(S h0) + sum over the two best experts of g_e relu(E_e h0)

as the engine runs it (docs/SPEC.md section 7); every relu and every sum stops at `CAP`, where int8 is full.
The cap is no accident: features that saturate leave class means nearer to what a linear discriminant assumes
(agri, one frame of class means: .95 -> .98 of the centralised head).  Weights are rounded to int4 (the gate
to int8) in every forward pass and the gradient passes as if they were not, so what is trained is what is
written.  The heads on top, one per public context and one shared, serve training only.  Adam with one
cosine; seeded, one thread: the same machine gives the same weights.

A trunk that learns to tell the public classes apart forgets what tells them from others.  Where the fleet
will meet classes that no public row shows, the hidden vector must also say its inputs (`recall`): a linear
layer reads them back, and its squared error, a mean over inputs, joins the loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swarm.model import layout
from swarm.model.container import Linear, quantise_rows
from swarm.prng import Prng

__all__ = [
    "CAP", "EXPERTS", "Pass", "Trunk", "as_stored", "backward", "class_weights", "forward", "softmax",
    "train_trunk",
]  # fmt: skip

F32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]

EXPERTS = 4
"""Routed experts; two of them work on a sample."""
CAP = 3.0
"""The real value of int8 127 in the hidden vectors."""
BATCH = 128
RATE = 4e-3
DECAY = 2e-3
DROPOUT = 0.15
BALANCE = 0.02
RECALLED_MAX = 3.0
"""Inputs beyond so many standard deviations are read back as this."""
HIDDEN = layout.HIDDEN


@dataclass(slots=True)
class Trunk:
    """Float weights by name, each [rows, cols] (experts: [experts, rows, cols]) and biases."""

    weights: dict[str, F32]

    def hidden(self, x: F32) -> F32:
        """The hidden vectors float32[n, 64] of inputs [n, features], as the engine would have them."""
        return forward(as_stored(self.weights), x).h

    def linear(self, name: str, expert: int | None = None) -> Linear:
        """One layer for the container's writer."""
        weight, bias = self.weights[name], self.weights[f"{name}_bias"]
        chosen = (weight, bias) if expert is None else (weight[expert], bias[expert])
        return Linear(*(np.asarray(part, dtype=np.float64) for part in chosen))


@dataclass(slots=True)
class Pass:
    """What the backward pass needs of a forward one."""

    x: F32
    h0: F32
    shared: F32
    logits: F32
    gains: F32  # [n, experts], 0 for those not chosen
    experts: F32  # [experts, n, 64]
    h: F32


def softmax(logits: F32) -> F32:
    """Along the last axis."""
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def class_weights(label: UInt8, context: UInt8, classes: int) -> F32:
    """Weight of each sample: inversely to the root of its class's share in its context, mean 1."""
    weight = np.empty(len(label), dtype=np.float32)
    for c in np.unique(context):
        rows = context == c
        count = np.bincount(label[rows], minlength=classes)
        weight[rows] = (1.0 / np.sqrt(np.maximum(count, 1)))[label[rows]]
        weight[rows] /= weight[rows].mean()
    return weight


def _start(features: int, heads: int, classes: int, rng: np.random.Generator) -> dict[str, F32]:
    def normal(*shape: int, gain: float) -> F32:
        drawn: F32 = (rng.standard_normal(shape) * (gain / np.sqrt(shape[-1]))).astype(np.float32)
        return drawn

    weights = {
        "dense": normal(HIDDEN, features, gain=1.4),
        "shared": normal(HIDDEN, HIDDEN, gain=0.7),
        "gate": normal(EXPERTS, HIDDEN, gain=1.0),
        "experts": normal(EXPERTS, HIDDEN, HIDDEN, gain=0.7),
        "heads": np.zeros((heads, classes, HIDDEN), np.float32),
    }
    biases = {f"{name}_bias": np.zeros(weight.shape[:-1], np.float32) for name, weight in weights.items()}
    return weights | biases


def as_stored(weights: dict[str, F32]) -> dict[str, F32]:
    """The weights as the container stores them."""
    stored = dict(weights)
    for name, bits in (("dense", 4), ("shared", 4), ("gate", 8), ("experts", 4)):
        rows = weights[name].reshape(-1, weights[name].shape[-1])
        integers, step = quantise_rows(rows.astype(np.float64), bits)
        stored[name] = (integers * step[:, None]).astype(np.float32).reshape(weights[name].shape)
    return stored


def forward(w: dict[str, F32], x: F32) -> Pass:
    """The trunk by these weights on inputs [n, features]."""
    h0 = np.clip(x @ w["dense"].T + w["dense_bias"], 0.0, CAP)
    shared = np.clip(h0 @ w["shared"].T + w["shared_bias"], 0.0, CAP)
    logits = h0 @ w["gate"].T + w["gate_bias"]
    best = np.argsort(-logits, axis=1, kind="stable")[:, : layout.TOP_K]
    gains = np.zeros_like(logits)
    np.put_along_axis(gains, best, softmax(np.take_along_axis(logits, best, axis=1)), axis=1)
    experts = np.clip(h0 @ w["experts"].transpose(0, 2, 1) + w["experts_bias"][:, None], 0.0, CAP)
    h = np.clip(h0 + shared + np.einsum("ne,enh->nh", gains, experts), 0.0, CAP)
    return Pass(x, h0, shared, logits, gains, experts, np.asarray(h, dtype=np.float32))


def _alive(values: F32) -> F32:
    """1 where a capped relu passes a gradient, else 0."""
    return np.asarray((values > 0.0) & (values < CAP), dtype=np.float32)


def backward(w: dict[str, F32], done: Pass, slope: F32) -> dict[str, F32]:
    """Gradients of all weights, given that of h [n, 64]."""
    gradient: dict[str, F32] = {}
    slope = np.asarray(slope * (done.h < CAP), dtype=np.float32)
    below = slope.copy()

    def through(name: str, back: F32) -> F32:
        gradient[name], gradient[f"{name}_bias"] = back.T @ done.h0, back.sum(axis=0)
        return back @ w[name]

    below += through("shared", slope * _alive(done.shared))
    back = np.asarray(slope * done.gains.T[:, :, None] * _alive(done.experts), dtype=np.float32)
    gradient["experts"] = back.transpose(0, 2, 1) @ done.h0
    gradient["experts_bias"] = back.sum(axis=1)
    below += (back @ w["experts"]).sum(axis=0)
    # Softmax over the two chosen gates, and an even use of all experts.
    answer = np.einsum("nh,enh->ne", slope, done.experts)
    gate = done.gains * (answer - (done.gains * answer).sum(axis=1, keepdims=True))
    share = softmax(done.logits)
    pull = np.broadcast_to(2.0 * BALANCE * EXPERTS * share.mean(axis=0) / len(share), share.shape)
    gate += share * (pull - (share * pull).sum(axis=1, keepdims=True))
    below += through("gate", gate)
    below *= _alive(done.h0)
    gradient["dense"], gradient["dense_bias"] = below.T @ done.x, below.sum(axis=0)
    return gradient


def _loss_slope(
    w: dict[str, F32], h: F32, label: UInt8, head: UInt8, weight: F32, gradient: dict[str, F32]
) -> F32:
    """Adds the heads' gradients to `gradient`; the slope of h [n, 64].  Head 0 is the shared one."""
    slope = np.zeros_like(h)
    gradient["heads"], gradient["heads_bias"] = np.zeros_like(w["heads"]), np.zeros_like(w["heads_bias"])
    for number in np.unique(head).tolist():
        rows = np.flatnonzero(head == number)
        for one in {0, number}:
            error = softmax(h[rows] @ w["heads"][one].T + w["heads_bias"][one])
            error[np.arange(len(rows)), label[rows]] -= 1.0
            error *= (weight[rows] * (1.0 if one == number else 0.5) / len(h))[:, None]
            gradient["heads"][one] += error.T @ h[rows]
            gradient["heads_bias"][one] += error.sum(axis=0)
            slope[rows] += error @ w["heads"][one]
    return slope


def _recall_slope(w: dict[str, F32], h: F32, x: F32, recall: float, gradient: dict[str, F32]) -> F32:
    """Adds the reading layer's gradients to `gradient`; the slope of h [n, 64]."""
    truth = np.clip(x, -RECALLED_MAX, RECALLED_MAX)
    read = h @ w["recall"].T + w["recall_bias"]
    error = np.asarray((read - truth) * (recall / truth.size), dtype=h.dtype)
    gradient["recall"], gradient["recall_bias"] = error.T @ h, error.sum(axis=0)
    return error @ w["recall"]


def train_trunk(
    x: F32,
    label: UInt8,
    context: UInt8,
    classes: int,
    steps: int,
    prng: Prng,
    recall: float = 0.0,
) -> Trunk:
    """A trunk for inputs [n, features] in real units with labels and contexts [n].

    `recall` weighs half the mean squared error of the inputs read back against the cross-entropy.
    """
    rng = prng.numpy()
    known = np.unique(context)
    head = (np.searchsorted(known, context) + 1).astype(np.uint8)
    weight = class_weights(label, context, classes)
    w = _start(x.shape[1], len(known) + 1, classes, rng)
    if recall > 0.0:
        w["recall"] = np.zeros((x.shape[1], HIDDEN), np.float32)
        w["recall_bias"] = np.zeros(x.shape[1], np.float32)
    mean = {name: np.zeros_like(value) for name, value in w.items()}
    square = {name: np.zeros_like(value) for name, value in w.items()}
    for step in range(steps):
        rows = rng.integers(0, len(x), BATCH)
        stored = as_stored(w)
        done = forward(stored, x[rows])
        kept: F32 = (rng.random(done.h.shape, dtype=np.float32) >= DROPOUT).astype(np.float32)
        kept /= np.float32(1.0 - DROPOUT)
        gradient: dict[str, F32] = {}
        slope = _loss_slope(stored, done.h * kept, label[rows], head[rows], weight[rows], gradient)
        if recall > 0.0:
            slope += _recall_slope(stored, done.h * kept, x[rows], recall, gradient)
        gradient |= backward(stored, done, slope * kept)
        warm = min(1.0, (step + 1) / (0.1 * steps))
        rate = RATE * warm * 0.5 * (1.0 + np.cos(np.pi * step / steps))
        for name in w:
            mean[name] += 0.1 * (gradient[name] - mean[name])
            square[name] += 0.002 * (gradient[name] ** 2 - square[name])
            corrected = mean[name] / (1.0 - 0.9 ** (step + 1))
            spread = np.sqrt(square[name] / (1.0 - 0.998 ** (step + 1))) + 1e-6
            w[name] -= (rate * (corrected / spread + DECAY * w[name])).astype(np.float32)
    return Trunk({name: value for name, value in w.items() if not name.startswith("recall")})
