"""Handwritten digits in eight fields: what a node's camera does to a picture differs from field to field.

The pictures are the 1797 of scikit-learn (8 x 8, UCI ML hand-written digits), split once into public, fleet,
validation and test pictures, so that no picture is on two sides.  A field is a fixed distortion: a turn, a
shift, contrast, blur, a dead strip, noise.  Each node stands in one field and has labels for a few digits
only.  The public data know five of the eight fields.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.tasks.task import PUBLIC_NODE, Samples, Task, TaskError, concatenate, skewed_choice
from swarm.prng import Prng

__all__ = ["digits"]

F32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]

SIDE = 8
LABELS, LABEL_SKEW = 24, 0.3
VALIDATION_LABELS, TEST_LABELS = 6, 12
PUBLIC_FIELDS = (0, 1, 2, 3, 4)
PUBLIC_COPIES = 6
SHARES = (0.35, 0.35, 0.1, 0.2)
"""Of the pictures: public, fleet, validation, test."""


@dataclass(frozen=True)
class _Field:
    """A distortion; angles in degrees, shifts in pixels, grey values from 0 to 1."""

    turn: float = 0.0
    right: float = 0.0
    down: float = 0.0
    scale: float = 1.0
    blur: float = 0.0
    gain: float = 1.0
    offset: float = 0.0
    gamma: float = 1.0
    noise: float = 0.08
    dead: tuple[int, ...] = ()


FIELDS = (
    _Field(),
    _Field(turn=25.0, noise=0.12),
    _Field(right=1.0, down=-0.7, gain=0.7, offset=0.2),
    _Field(gain=-0.9, offset=1.0, noise=0.12),
    _Field(scale=0.75, blur=0.5),
    _Field(turn=-35.0, gain=-0.8, offset=0.9),
    _Field(scale=1.25, gamma=2.2, dead=(3,), noise=0.12),
    _Field(turn=90.0, blur=0.4, gain=0.8),
)


def _pictures() -> tuple[F32, UInt8]:
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415  (optional, and slow to import)
    except ImportError as error:
        raise TaskError("task digits needs scikit-learn: pip install 'loraswarm[bench]'") from error
    data = load_digits()
    return (data.images / 16.0).astype(np.float32), data.target.astype(np.uint8)


def _resampled(pictures: F32, field: _Field) -> F32:
    """Turned, scaled and shifted about the centre, bilinear, black outside: [n, 8, 8]."""
    centre = (SIDE - 1) / 2.0
    down, right = np.mgrid[0:SIDE, 0:SIDE] - centre
    angle = np.deg2rad(field.turn)
    from_down = (np.cos(angle) * (down - field.down) - np.sin(angle) * (right - field.right)) / field.scale
    from_right = (np.sin(angle) * (down - field.down) + np.cos(angle) * (right - field.right)) / field.scale
    y, x = from_down + centre + 1.0, from_right + centre + 1.0
    padded = np.pad(pictures, ((0, 0), (1, 2), (1, 2)))
    y, x = np.clip(y, 0.0, SIDE + 0.999), np.clip(x, 0.0, SIDE + 0.999)
    top, left = y.astype(int), x.astype(int)
    dy, dx = y - top, x - left
    mixed = (
        padded[:, top, left] * (1 - dy) * (1 - dx)
        + padded[:, top, left + 1] * (1 - dy) * dx
        + padded[:, top + 1, left] * dy * (1 - dx)
        + padded[:, top + 1, left + 1] * dy * dx
    )
    return np.asarray(mixed, dtype=np.float32)


def _blurred(pictures: F32, amount: float) -> F32:
    """A mean with the four neighbours, weighted by `amount`."""
    padded = np.pad(pictures, ((0, 0), (1, 1), (1, 1)), mode="edge")
    around = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
    return np.asarray((1.0 - amount) * pictures + amount * around / 4.0, dtype=np.float32)


def _seen(pictures: F32, field: _Field, rng: np.random.Generator) -> F32:
    """What a node in the field sees of pictures [n, 8, 8]: rows [n, 64]."""
    seen = _blurred(_resampled(pictures, field), field.blur)
    seen = np.clip(seen, 0.0, 1.0) ** field.gamma * field.gain + field.offset
    for column in field.dead:
        seen[:, :, column] = 0.0
    wobble = rng.normal(1.0, 0.1, (len(seen), 1, 1))
    noisy = seen * wobble + rng.normal(0.0, field.noise, seen.shape)
    return np.clip(noisy, -0.5, 1.5).reshape(len(seen), -1).astype(np.float32)


def digits(nodes: int, seed: int) -> Task:
    """The task for `nodes` nodes, dealt out evenly over the fields; TaskError without scikit-learn."""
    prng = Prng(seed).child("digits")
    pictures, label = _pictures()
    order = prng.child("split").numpy().permutation(len(label))
    cuts = np.cumsum(np.rint(np.array(SHARES) * len(label)).astype(int))[:-1]
    public, fleet, validation, test = np.split(order, cuts)
    field = prng.child("deal").numpy().permutation(np.arange(nodes) % len(FIELDS)).astype(np.uint8)
    noise, picks = prng.child("noise").numpy(), prng.child("labels").numpy()

    def rows(chosen: NDArray[np.int64], where: int, node: int) -> Samples:
        x = _seen(pictures[chosen], FIELDS[where], noise)
        context = np.full(len(chosen), where, np.uint8)
        return Samples(x, label[chosen], context, np.full(len(chosen), node, np.int32))

    parts: tuple[list[Samples], list[Samples], list[Samples]] = ([], [], [])
    for node in range(nodes):
        own = fleet[skewed_choice(label[fleet], LABELS, LABEL_SKEW, 10, picks)]
        later = picks.choice(validation, VALIDATION_LABELS, replace=False)
        tested = picks.choice(test, TEST_LABELS, replace=False)
        for part, chosen in zip(parts, (own, later, tested), strict=True):
            part.append(rows(chosen, int(field[node]), node))
    known = [rows(public, where, PUBLIC_NODE) for where in PUBLIC_FIELDS for _ in range(PUBLIC_COPIES)]
    return Task(
        name="digits",
        classes=tuple("0123456789"),
        contexts=tuple(f"field {number}" for number in range(len(FIELDS))),
        metric="accuracy",
        public=concatenate(known),
        train=concatenate(parts[0]),
        validation=concatenate(parts[1]),
        test=concatenate(parts[2]),
        node_context=field,
    )
