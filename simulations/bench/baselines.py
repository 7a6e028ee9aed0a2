"""What a learning result stands beside, on one task: no radio, all data at once, or no model at all.

    majority      the most frequent training class of the node's context
    persistence   the node's last known class          rule   the published rule on its own sensors
    public        the shipped heads
    local_only    each node's own head on the frozen features from its own labels
    public_local  the shipped head, moved by each node towards its own labels
    centralised   the same features and heads with everybody's labels in one place

Strengths and the choice between one head for all and one per context are made on validation rows; the test
is looked at once.  Every head sees the z that the C engine computes, in float.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.field.baselines import fit_heads
from simulations.tasks.public_model import PublicModel, head_inputs
from simulations.tasks.task import Samples, Task
from swarm.model import layout

__all__ = ["Answers", "Features", "baselines", "personalised", "said_by"]

F32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]

LOCAL_STRENGTHS = (0.3, 1.0, 3.0, 10.0)
PUBLIC_STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)
CENTRAL_STRENGTHS = (1.0, 10.0, 100.0)
UNUSED = 255


@dataclass(frozen=True, eq=False)
class Features:
    """The heads' inputs float32[n, 33] of each part of a task."""

    train: F32
    validation: F32
    test: F32

    @classmethod
    def of(cls, task: Task, model: PublicModel) -> Features:
        return cls(*(head_inputs(model.z(part.x)) for part in (task.train, task.validation, task.test)))


@dataclass(frozen=True, eq=False)
class Answers:
    """Class predictions uint8 of the validation and of the test rows."""

    validation: UInt8
    test: UInt8


def said_by(heads: F32, inputs: F32, node: NDArray[np.int32]) -> UInt8:
    """The class that each row's node answers by its own head; heads float32[nodes, classes, 33]."""
    said = np.empty(len(node), np.uint8)
    for begin in range(0, len(node), 4096):
        rows = slice(begin, begin + 4096)
        said[rows] = np.einsum("nci,ni->nc", heads[node[rows]], inputs[rows]).argmax(axis=1)
    return said


def _padded(task: Task, inputs: F32) -> tuple[F32, UInt8]:
    """Each node's training rows side by side: [nodes, most, 33], labels 255 where a node has fewer."""
    order = np.argsort(task.train.node, kind="stable")
    node = task.train.node[order]
    place = np.arange(len(node)) - np.searchsorted(node, node)
    x = np.zeros((task.nodes, int(place.max()) + 1, layout.HEAD_ROW), np.float32)
    label = np.full(x.shape[:2], UNUSED, np.uint8)
    x[node, place], label[node, place] = inputs[order], task.train.label[order]
    return x, label


def personalised(task: Task, features: Features, start: F32, strengths: tuple[float, ...]) -> Answers:
    """Each node's head, drawn from `start` float32[nodes, classes, 33] to its own labels.

    One strength for all, by validation.
    """
    x, label = _padded(task, features.train)
    best: tuple[float, F32] | None = None
    for strength in sorted(strengths, reverse=True):
        heads = fit_heads(x, label, start, np.full(task.nodes, strength, np.float32), iterations=40)
        said = said_by(heads, features.validation, task.validation.node)
        score = task.score(said, task.validation)
        if best is None or score > best[0]:
            best = (score, heads)
    assert best is not None
    return _answers(task, features, best[1])


def _answers(task: Task, features: Features, heads: F32) -> Answers:
    return Answers(
        said_by(heads, features.validation, task.validation.node),
        said_by(heads, features.test, task.test.node),
    )


def shipped_heads(task: Task, model: PublicModel) -> F32:
    """The head that each node was shipped with, float32[nodes, classes, 33]."""
    by_context = np.stack([model.head(context) for context in range(len(task.contexts))])
    return by_context[task.node_context]


def _centralised(task: Task, model: PublicModel, features: Features) -> Answers:
    """Regressions on everybody's rows: one for all, or one per context, drawn to zero or to the shipped head.

    Kind and strength by validation.
    """
    context, everyone = task.train.context, np.ones(len(task.train), bool)
    shape = (len(task.contexts), len(task.classes), layout.HEAD_ROW)
    shipped = np.stack([model.head(c) for c in range(len(task.contexts))])
    best: tuple[float, F32] | None = None
    for strength in CENTRAL_STRENGTHS:
        force = np.array([strength], np.float32)

        def fit(rows: NDArray[np.bool_], start: F32, force: F32 = force) -> F32:
            label = task.train.label[rows]
            heads = fit_heads(features.train[rows][None], label[None], start[None], force, iterations=150)
            return np.asarray(heads[0], dtype=np.float32)

        for start in (np.zeros(shape, np.float32), shipped):
            kinds = [np.repeat(fit(everyone, start.mean(axis=0))[None], shape[0], axis=0)]
            if len(task.contexts) > 1:
                own = start.copy()
                for c in np.unique(context):
                    own[c] = fit(context == c, start[c])
                kinds.append(own)
            for by_context in kinds:
                heads = by_context[task.node_context]
                score = task.score(said_by(heads, features.validation, task.validation.node), task.validation)
                if best is None or score > best[0]:
                    best = (score, heads)
    assert best is not None
    return _answers(task, features, best[1])


def _majority(task: Task) -> Answers:
    counts = np.zeros((len(task.contexts), len(task.classes)))
    np.add.at(counts, (task.train.context, task.train.label), 1)
    most = counts.argmax(axis=1).astype(np.uint8)
    return Answers(most[task.validation.context], most[task.test.context])


def _column(task: Task, name: str) -> Answers | None:
    def of(part: Samples) -> UInt8 | None:
        column: UInt8 | None = getattr(part, name)
        return column

    validation, test = of(task.validation), of(task.test)
    return None if validation is None or test is None else Answers(validation, test)


def baselines(task: Task, model: PublicModel, features: Features) -> dict[str, Answers | None]:
    """All of them by name, in the order of the module's list; None where a task has no such thing."""
    shipped = shipped_heads(task, model)
    return {
        "majority": _majority(task),
        "persistence": _column(task, "persistence"),
        "rule": _column(task, "rule"),
        "public": _answers(task, features, shipped),
        "local_only": personalised(task, features, np.zeros_like(shipped), LOCAL_STRENGTHS),
        "public_local": personalised(task, features, shipped, PUBLIC_STRENGTHS),
        "centralised": _centralised(task, model, features),
    }
