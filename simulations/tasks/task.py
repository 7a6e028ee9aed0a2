"""What a learning task is: public data, a fleet of nodes with labels of their own, and how answers score.

A task holds everything that a comparison needs and nothing about how it is learned.  Public data are what a
maker can gather before nodes are sold: the trunk and the shipped heads are made of them alone.  Each node
then labels a few samples of its own (`train`), later ones on which every choice is made (`validation`), and
still later or other ones that only the final score sees (`test`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CLASSES_MAX", "CONTEXTS_MAX", "FEATURES_MAX", "NODES_MAX", "PUBLIC_NODE", "SAMPLES_PER_NODE_MAX",
    "Samples", "Task", "TaskError", "accuracy", "concatenate", "macro_f1", "skewed_choice",
]  # fmt: skip

CLASSES_MAX, CONTEXTS_MAX, FEATURES_MAX = 10, 8, 256
"""What a model container can hold (docs/SPEC.md)."""
NODES_MAX = 10_000
SAMPLES_PER_NODE_MAX = 64
"""Labelled samples that a node keeps."""
PUBLIC_NODE = -1
"""The node of public rows; public rows of several sources count down from it: -1, -2, ..."""

F32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]
Int32 = NDArray[np.int32]


class TaskError(ValueError):
    """Data that cannot be a task: one line that says what, where, and what to do."""


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Rows of one kind: `x` float32[n, features], `label` uint8[n], `context` uint8[n], `node` int32[n].

    `rule` and `persistence` uint8[n] are what a published rule on the node's own sensors and the node's last
    known class say to each row, where there are such things.
    """

    x: F32
    label: UInt8
    context: UInt8
    node: Int32
    rule: UInt8 | None = None
    persistence: UInt8 | None = None

    def __len__(self) -> int:
        return len(self.label)

    def where(self, chosen: NDArray[Any]) -> Samples:
        """The rows that a mask or an index array chooses."""
        return Samples(
            self.x[chosen],
            self.label[chosen],
            self.context[chosen],
            self.node[chosen],
            None if self.rule is None else self.rule[chosen],
            None if self.persistence is None else self.persistence[chosen],
        )


def concatenate(parts: list[Samples]) -> Samples:
    """The rows of all parts, in order; `rule` and `persistence` where every part has them."""

    def optional(name: str) -> UInt8 | None:
        columns = [getattr(part, name) for part in parts]
        return None if any(column is None for column in columns) else np.concatenate(columns)

    return Samples(
        np.concatenate([part.x for part in parts]),
        np.concatenate([part.label for part in parts]),
        np.concatenate([part.context for part in parts]),
        np.concatenate([part.node for part in parts]),
        optional("rule"),
        optional("persistence"),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One seed's instance of a task; ValueError when its parts do not fit together.

    `metric`: accuracy | macro_f1 | macro_f1_per_context (the mean over contexts) | wake_word (macro-F1 of
    `wake_class` against all others).  `negative_control`: learning together should not pay here, and a system
    that claims it does is wrong.  `int8_inputs`: x is what the firmware made and goes to it as it stands;
    else inputs are standardised on the public data.
    """

    name: str
    classes: tuple[str, ...]
    contexts: tuple[str, ...]
    metric: str
    public: Samples
    train: Samples
    validation: Samples
    test: Samples
    node_context: UInt8
    negative_control: bool = False
    wake_class: int = 0
    silent: tuple[int, ...] = ()
    """Nodes that take no part in learning together."""
    new_users: bool = False
    """The nodes belong to people whom the public data do not hold; known from provisioning."""
    int8_inputs: bool = False
    recall: float = 0.0
    """How much the maker's trunk keeps of its inputs for classes yet to come (`tasks.trunk`)."""

    def __post_init__(self) -> None:
        if not 2 <= len(self.classes) <= CLASSES_MAX or not 1 <= len(self.contexts) <= CONTEXTS_MAX:
            raise TaskError(
                f"{self.name}: {len(self.classes)} classes and {len(self.contexts)} contexts; a container "
                f"holds 2 to {CLASSES_MAX} and 1 to {CONTEXTS_MAX}"
            )
        if not 1 <= self.nodes <= NODES_MAX:
            raise TaskError(f"{self.name}: {self.nodes} nodes; 1 to {NODES_MAX} can be simulated")
        features = self.public.x.shape[1]
        if not 1 <= features <= FEATURES_MAX:
            raise TaskError(f"{self.name}: {features} features; a container reads 1 to {FEATURES_MAX}")
        for part in (self.public, self.train, self.validation, self.test):
            if not len(part) or part.x.shape != (len(part), features):
                raise TaskError(f"{self.name}: a part is empty or has other features than the public data")
            if part.label.max() >= len(self.classes) or part.context.max() >= len(self.contexts):
                raise TaskError(f"{self.name}: a label or context outside the task's")
        if np.bincount(self.train.node, minlength=self.nodes).max() > SAMPLES_PER_NODE_MAX:
            raise TaskError(f"{self.name}: a node keeps at most {SAMPLES_PER_NODE_MAX} labelled samples")

    @property
    def nodes(self) -> int:
        """How many nodes the fleet has."""
        return len(self.node_context)

    @property
    def features(self) -> int:
        """How many inputs the model reads."""
        return int(self.public.x.shape[1])

    def score(self, predicted: NDArray[np.integer[Any]], truth: Samples) -> float:
        """The task's metric of class predictions [n] for these rows, 0 to 1."""
        label = truth.label
        match self.metric:
            case "accuracy":
                return accuracy(predicted, label)
            case "macro_f1":
                return macro_f1(predicted, label)
            case "macro_f1_per_context":
                chosen = [truth.context == context for context in np.unique(truth.context)]
                return float(np.mean([macro_f1(predicted[rows], label[rows]) for rows in chosen]))
            case "wake_word":
                return macro_f1(predicted == self.wake_class, label == self.wake_class)
        raise ValueError(f"{self.name}: unknown metric {self.metric}")

    def subset(self, nodes: int) -> Task:
        """The same task with its first `nodes` nodes only."""
        if nodes >= self.nodes:
            return self
        kept = {name: getattr(self, name) for name in ("train", "validation", "test")}
        parts = {name: part.where(part.node < nodes) for name, part in kept.items()}
        return replace(self, node_context=self.node_context[:nodes], **parts)


def accuracy(predicted: NDArray[Any], label: NDArray[Any]) -> float:
    """Share of right answers."""
    return float(np.mean(predicted == label))


def macro_f1(predicted: NDArray[Any], label: NDArray[Any]) -> float:
    """Mean F1 over the classes that occur in `label`."""
    scores = []
    for c in np.unique(label):
        hits = np.count_nonzero((predicted == c) & (label == c))
        scores.append(2 * hits / (np.count_nonzero(predicted == c) + np.count_nonzero(label == c)))
    return float(np.mean(scores))


def skewed_choice(
    labels: UInt8, count: int, concentration: float, classes: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """`count` different rows of a node's pool, with class shares of a Dirichlet draw: few see all classes.

    A class that runs out gives way to the others.
    """
    shares = rng.dirichlet(np.full(classes, concentration)) + 1e-6
    weight = shares[labels] / np.maximum(np.bincount(labels, minlength=classes), 1)[labels]
    chosen: NDArray[np.int64] = rng.choice(len(labels), count, replace=False, p=weight / weight.sum())
    return chosen


Builder = Callable[[int, int], Task]
"""(nodes, seed) -> the task."""
