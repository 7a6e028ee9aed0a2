"""The model that nodes are shipped with, made of a task's public data alone: trunk, z, heads, container.

    made = public_model(task, seed=1)
    made.image                  # the container that the firmware runs
    made.encode(samples.x)      # int8[n, features], what a node's application hands to the firmware
    made.expected               # the maker's promise: the score on public sources that were left out

z is the hidden vector turned to its principal directions on the public data, one standard deviation each,
the largest first: dimensions that a slow data rate leaves out are those that vary least.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.field.baselines import fit_heads
from simulations.tasks.task import Samples, Task
from simulations.tasks.trunk import CAP, EXPERTS, Trunk, class_weights, train_trunk
from swarm.federation.prototypes import Prior as PriorMeans
from swarm.model import layout
from swarm.model.container import FloatModel, Linear, Prior, write
from swarm.node import Model
from swarm.prng import Prng

__all__ = ["PublicModel", "head_inputs", "public_model"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

INPUT_ONE = 32.0
"""int8 input that stands for one standard deviation on the public data."""
EPOCHS = 12
STEPS_MIN, STEPS_MAX = 100, 900
BATCH = 128
HEAD_RIDGE = 3.0
HEAD_ROWS_MAX = 6_000
FOLDS = 3


@dataclass(frozen=True, eq=False)
class PublicModel:
    """See the module; `model` is the engine's view of `image`, `known` the contexts with an own head.

    `trunk` and `project` are what the container was written from, in float.
    """

    image: bytes
    model: Model
    mean: F64
    spread: F64
    known: tuple[int, ...]
    expected: float
    prior: PriorMeans
    trunk: Trunk
    project: Linear

    def encode(self, x: F32) -> NDArray[np.int8]:
        """Inputs float32[n, features] as the int8 that nodes read."""
        scaled = np.rint((x - self.mean) / self.spread * INPUT_ONE)
        return np.clip(scaled, -128, 127).astype(np.int8)

    def z(self, x: F32) -> F32:
        """z in standard deviations, float32[n, 32], with the shipped adapter."""
        return (self.model.z(self.encode(x)) / np.float32(layout.Z_ONE)).astype(np.float32)

    def head(self, context: int) -> F32:
        """The shipped head of a context, float32[classes, 33]."""
        head = self.model.base_head(context).reshape(-1, layout.HEAD_ROW)
        return (head / np.float32(layout.HEAD_ONE)).astype(np.float32)


def head_inputs(z: F32) -> F32:
    """z with the constant that a head's bias multiplies, float32[n, 33]."""
    return np.concatenate([z, np.ones((*z.shape[:-1], 1), np.float32)], axis=-1)


def public_model(task: Task, seed: int) -> PublicModel:
    """Trunk, heads and container from `task.public`; the same arguments give the same bytes."""
    public = task.public
    mean, spread = _scale(task)
    encoded = np.clip(np.rint((public.x - mean) / spread * INPUT_ONE), -128, 127).astype(np.int8)
    steps = int(np.clip(EPOCHS * len(public) // BATCH, STEPS_MIN, STEPS_MAX))
    inputs = (encoded / np.float32(INPUT_ONE)).astype(np.float32)
    prng = Prng(seed).child("public model")
    prng = Prng(seed).child("public model")
    everything = np.ones(len(public), bool)
    fitted = _fitted(task, inputs, encoded, everything, steps, prng.child("trunk"))
    promise = _promise(task, inputs, encoded, steps // 2, prng.child("promise"))
    return PublicModel(
        image=fitted.image,
        model=fitted.model,
        mean=mean,
        spread=spread,
        known=fitted.known,
        expected=promise,
        prior=_prior_means(task, fitted.priors),
        trunk=fitted.trunk,
        project=fitted.project,
    )


@dataclass(frozen=True, eq=False)
class _Fitted:
    """A container made of some public rows, and its z of all of them."""

    image: bytes
    model: Model
    known: tuple[int, ...]
    heads: dict[int | None, F64]
    priors: dict[int, Prior]
    z: F32
    trunk: Trunk
    project: Linear


def _fitted(
    task: Task, inputs: F32, encoded: NDArray[np.int8], used: NDArray[np.bool_], steps: int, prng: Prng
) -> _Fitted:
    classes, rows = len(task.classes), task.public.where(used)
    trunk = train_trunk(inputs[used], rows.label, rows.context, classes, steps, prng, task.recall)
    project = _projection(trunk, inputs[used])
    none: dict[int | None, F64] = {None: np.zeros((classes, layout.HEAD_ROW))}
    bare = Model(write(_float_model(trunk, project, none, {})))
    z = (bare.z(encoded) / np.float32(layout.Z_ONE)).astype(np.float32)
    known = tuple(np.unique(rows.context).tolist())
    heads = _heads(z[used], rows, classes, known)
    priors = {context: _prior(z[used], rows, context, classes) for context in known}
    image = write(_float_model(trunk, project, heads, priors))
    return _Fitted(image, Model(image), known, heads, priors, z, trunk, project)


def _promise(task: Task, inputs: F32, encoded: NDArray[np.int8], steps: int, prng: Prng) -> float:
    """What a maker can promise a new place: the lowest score on thirds of its sources, each left out once.

    Where the public data are of one or two sources, thirds of the rows: more than can be kept.
    """
    sources, source = np.unique(task.public.node, return_inverse=True)
    if len(sources) < FOLDS:
        source = prng.child("rows").numpy().permutation(len(task.public))
    scores = []
    for fold in range(FOLDS):
        left_out = source % FOLDS == fold
        fitted = _fitted(task, inputs, encoded, ~left_out, steps, prng.child(f"fold {fold}"))
        judged = task.public.where(left_out)
        row_inputs, said = head_inputs(fitted.z[left_out]), np.zeros(len(judged), np.int64)
        for context in np.unique(judged.context).tolist():
            own = judged.context == context
            head = fitted.heads[context if context in fitted.known else None]
            said[own] = (row_inputs[own] @ head.T).argmax(axis=1)
        scores.append(task.score(said, judged))
    return min(scores)


def _scale(task: Task) -> tuple[F64, F64]:
    features = task.features
    if task.int8_inputs:
        return np.zeros(features), np.full(features, INPUT_ONE)
    mean = task.public.x.mean(axis=0, dtype=np.float64)
    return mean, task.public.x.std(axis=0, dtype=np.float64) + 1e-3


def _projection(trunk: Trunk, inputs: F32) -> Linear:
    """The 32 principal directions of the hidden vector, each scaled to one standard deviation."""
    hidden = trunk.hidden(inputs).astype(np.float64)
    mean = hidden.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(hidden.T))
    leading = np.argsort(-values)[: layout.Z]
    weight = (vectors[:, leading] / np.sqrt(np.maximum(values[leading], 1e-3))).T
    # Signs so that the result does not depend on the eigenvector routine's choice.
    weight *= np.sign(weight[np.arange(layout.Z), np.abs(weight).argmax(axis=1)])[:, None]
    return Linear(weight, -weight @ mean)


def _fit(z: F32, label: NDArray[np.uint8], context: NDArray[np.uint8], classes: int) -> F64:
    """One softmax regression float64[classes, 33], classes weighted as in the trunk's training."""
    step = -(-len(z) // HEAD_ROWS_MAX)
    z, label, context = z[::step], label[::step], context[::step]
    # `fit_heads` counts every row once: rows of rare classes are repeated instead.
    weight = class_weights(label, context, classes)
    times = np.maximum(np.rint(weight / weight.min()).astype(int), 1).clip(max=8)
    rows = np.repeat(np.arange(len(z)), times)
    start = np.zeros((1, classes, layout.HEAD_ROW), np.float32)
    strength = np.array([HEAD_RIDGE], np.float32)
    head = fit_heads(head_inputs(z[rows])[None], label[rows][None], start, strength, iterations=150)[0]
    return np.asarray(head, dtype=np.float64)


def _heads(z: F32, rows: Samples, classes: int, known: tuple[int, ...]) -> dict[int | None, F64]:
    heads: dict[int | None, F64] = {None: _fit(z, rows.label, rows.context, classes)}
    for context in known:
        own = rows.context == context
        heads[context] = _fit(z[own], rows.label[own], rows.context[own], classes)
    return heads


def _prior(z: F32, rows: Samples, context: int, classes: int) -> Prior:
    own = rows.context == context
    count = np.bincount(rows.label[own], minlength=classes)
    mean = np.zeros((classes, layout.Z))
    for c in np.flatnonzero(count):
        mean[c] = z[own & (rows.label == c)].mean(axis=0)
    return Prior(mean, count)


def _prior_means(task: Task, priors: dict[int, Prior]) -> PriorMeans:
    shape = (layout.CONTEXT_MAX, len(task.classes))
    means, counts = np.zeros((*shape, layout.Z)), np.zeros(shape)
    for context, prior in priors.items():
        means[context], counts[context] = prior.mean * layout.Z_ONE, prior.count
    return PriorMeans(means, counts)


def _float_model(
    trunk: Trunk, project: Linear, heads: dict[int | None, F64], priors: dict[int, Prior]
) -> FloatModel:
    # The adapter starts by reading the four directions of the hidden vector that vary most.
    directions = project.weight[: layout.RANK]
    return FloatModel(
        dense=trunk.linear("dense"),
        shared=trunk.linear("shared"),
        gate=trunk.linear("gate"),
        experts=[trunk.linear("experts", expert) for expert in range(EXPERTS)],
        project=project,
        input_scale=1.0 / INPUT_ONE,
        hidden_scale=CAP / 127.0,
        adapter_a=directions / np.linalg.norm(directions, axis=1, keepdims=True),
        heads=heads,
        priors=priors,
    )
