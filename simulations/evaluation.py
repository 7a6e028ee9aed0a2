"""How good the fleet's answers are: the nodes' own inference on days that nobody learned from.

The test days follow the run.  Their features are made by the firmware, in a second array of nodes that
sees every reading of the season, learns nothing and sends nothing; they are then put to the run's nodes,
with whatever parameters those have at the time.  The same features, without any adapter, go to the
baselines (`simulations.field.baselines`), and every score stands beside theirs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulations.field import Field
from simulations.field.baselines import Dataset, Scores, compare, score_predictions
from simulations.scenario import Scenario
from simulations.swarm_of_nodes import LABEL_NONE, firmware_nodes
from swarm.model.layout import CONTEXTS, CONTEXTS_PUBLIC, HEAD_ONE, HEAD_ROW, WEATHER, Z
from swarm.node import Model, Nodes

__all__ = ["Evaluation", "accuracy_table"]

_PAYLOAD_MAX = 51  # of an uplink; these nodes send none


class Evaluation:
    """The season's features and labels; arrays are [nodes, days, ...]."""

    def __init__(self, scenario: Scenario, field: Field, model: bytes) -> None:
        self._field = field
        self._model = Model(model)
        self._x = _season_features(scenario, field, model)
        train, test = field.training_days, field.test_days
        labels = np.asarray(field.labels, dtype=np.uint8).T
        # What nodes are told, a day later: the last day's label would come after the run.
        told = [field.label(day) for day in range(train.start, train.stop - 1)]
        labels_train = np.stack([*told, np.full(field.nodes, LABEL_NONE, np.uint8)], axis=1)
        self._x_test = self._x[:, test.start : test.stop]
        self.data = Dataset(
            context=field.context,
            z_train=self._z(self._x[:, train.start : train.stop]),
            labels_train=labels_train,
            z_test=self._z(self._x_test),
            labels_test=labels[:, test.start : test.stop],
            rule_test=field.rule_classes().T[:, test.start : test.stop],
        )

    def score(self, nodes: Nodes) -> Scores:
        """The nodes' own inference, with the parameters they have now, on the test days."""
        days = self._x_test.shape[1]
        predicted = np.empty((nodes.count, days), np.uint8)
        for day in range(days):
            predicted[:, day] = nodes.infer(np.ascontiguousarray(self._x_test[:, day])).argmax(axis=1)
        return score_predictions(self.data, predicted)

    def baselines(self) -> dict[str, Scores]:
        """All baselines by name."""
        heads = np.stack([self._model.base_head(context) for context in range(len(CONTEXTS))])
        shipped = heads.reshape(-1, WEATHER.classes, HEAD_ROW).astype(np.float32) / np.float32(HEAD_ONE)
        return compare(self.data, shipped)

    def _z(self, x: NDArray[np.int8]) -> NDArray[np.int8]:
        nodes, days = x.shape[:2]
        return self._model.z(np.ascontiguousarray(x).reshape(nodes * days, WEATHER.features)).reshape(
            nodes, days, Z
        )


def _season_features(scenario: Scenario, field: Field, model: bytes) -> NDArray[np.int8]:
    """The features of each noon-to-noon day of the field, int8[nodes, days, 56]."""
    nodes = firmware_nodes(scenario, field, [_PAYLOAD_MAX] * scenario.nodes, model, 0)
    hour_us = 3_600_000_000
    x = np.zeros((field.nodes, field.hours // 24, WEATHER.features), np.int8)
    for hour in range(field.hours):
        temperature, humidity, rain, clock = field.readings(hour)
        nodes.sense((hour + 1) * hour_us, temperature, humidity, rain, clock)
        if hour % 24 == 23:
            x[:, hour // 24] = nodes.day_features()[1]
    return x


def accuracy_table(start: Scores, end: Scores, baselines: dict[str, Scores]) -> dict[str, Any]:
    """The report's `accuracy`: mean of per-crop macro-F1 by method, the crops, and those new to the model."""
    methods = {"start": start, "end": end, **baselines}
    unseen = tuple(context for context in range(len(CONTEXTS)) if context not in CONTEXTS_PUBLIC)
    table: dict[str, Any] = {name: scores.mean() for name, scores in methods.items()}
    table["per_crop"] = {
        name: {CONTEXTS[crop]: score for crop, score in scores.per_crop.items()}
        for name, scores in methods.items()
    }
    table["unseen_crops"] = {name: scores.mean(unseen) for name, scores in methods.items()}
    return table
