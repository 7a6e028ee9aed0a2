"""Digits on eight sites: a task whose experts do not all fit in a node.

The pictures are scikit-learn's 1797 handwritten digits (8 x 8), split once, so that no picture is on two
sides. Every site's camera has its pixels wired in another order and adds noise; so the gate learns which
experts serve which site.  A node holds two of the eight experts: those that its site's gate has chosen most
(`swarm.inference. placement` decides), and asks for the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.bench.mixture import Examples, train
from swarm.prng import Prng

__all__ = ["CLASSES", "SITES", "AskTask", "TaskMissing", "digits"]

SITES = 8
CLASSES = 10
NOISE = 0.25
"""Standard deviation of a pixel's noise; black is 0, white 1."""
INPUT_SCALE = 1.0 / 48
STEPS = 2000


class TaskMissing(RuntimeError):
    """The pictures are not installed; the text says how to get them."""


@dataclass(frozen=True)
class AskTask:
    """`model` is the container with all experts; the inputs are int8, as nodes take them."""

    model: bytes
    seen: Examples
    """What nodes have seen on their sites: placement and thresholds come from here."""
    validation: Examples
    test: Examples

    @staticmethod
    def inputs(examples: Examples) -> NDArray[np.int8]:
        """The examples' features as int8."""
        return np.clip(np.rint(examples.x / INPUT_SCALE), -128, 127).astype(np.int8)


def digits(seed: int, *, steps: int = STEPS) -> AskTask:
    """Trained from the seed in a quarter of a minute."""
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415  (optional, and slow to import)
    except ImportError as error:
        raise TaskMissing("digits need scikit-learn: pip install 'loraswarm[bench]'") from error
    data = load_digits()
    pictures, labels = data.images.reshape(-1, 64) / 16.0, data.target.astype(np.int64)
    draws = Prng(seed).child("digits").numpy()
    order = draws.permutation(len(pictures))
    wiring = np.stack([draws.permutation(64) for _ in range(SITES)])
    public, seen, validation, test = np.split(order, [1000, 1100, 1250])

    def noisy(rows: NDArray[np.int64], site: NDArray[np.int64]) -> Examples:
        x = np.take_along_axis(pictures[rows], wiring[site], axis=1)
        return Examples(x + draws.normal(0.0, NOISE, x.shape), labels[rows], site)

    def at_sites(rows: NDArray[np.int64]) -> Examples:
        return noisy(np.tile(rows, SITES), np.repeat(np.arange(SITES), len(rows)))

    def draw(count: int) -> Examples:
        rows, site = draws.choice(public, count), draws.integers(0, SITES, count)
        return noisy(rows, site)

    model = train(draw, classes=CLASSES, input_scale=INPUT_SCALE, steps=steps, seed=seed)
    return AskTask(model, at_sites(seen), at_sites(validation), at_sites(test))
