"""Train the shipped base model on public data and write swarm/model/base_model.swm (one to two minutes).

    python -m tools.train_base_model [--seed 1] [--out swarm/model/base_model.swm] [--epochs 12]

The trunk (one dense layer, a shared expert, two of eight routed experts, a projection to z) is trained with
the int4 and int8 rounding in the loop on many tasks at once: the two public crops, synthetic crops, general
quantities of the weather. Then z is whitened and turned so that its first dimensions carry most for the
tasks, the container is written, and the heads are fitted on the z that the C engine computes. Seeded, one
thread, CPU: the same machine gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from swarm.model import container, layout
from swarm.model.container import FloatModel, Linear, Prior
from swarm.node import Model
from tools.public_samples import SYNTHETIC_CROPS, Samples, load, synthetic_inputs

INPUT_SCALE = 1.0 / 64
HIDDEN_SCALE = 1.0 / 24
BATCH = 512
RATE = 3e-3
HELD_OUT_SEED = 1_000_003
DEFAULT_OUT = Path(__file__).parents[1] / "swarm" / "model" / "base_model.swm"
RULE_INPUTS = range(48, 54)
"""The published rule's class, index and yesterday's class, and the wet hours: z must not lose them, because a
crop that the trunk has not met is served best by its own rule until it has a head."""
N_TASKS = len(layout.CONTEXTS_PUBLIC) + SYNTHETIC_CROPS


def round_through(x: Tensor) -> Tensor:
    """Rounds forward, passes the gradient as if it had not."""
    return x + (torch.round(x) - x).detach()


def fake_weight(weight: Tensor, bits: int) -> Tensor:
    """The weights as `container.quantise_rows` will store them."""
    top = (1 << (bits - 1)) - 1
    scale = (weight.detach().abs().amax(dim=-1, keepdim=True) / top).clamp_min(1e-8)
    return round_through(weight / scale).clamp(-top - 1, top) * scale


def fake_hidden(x: Tensor) -> Tensor:
    """int8 activations of the hidden scale, after RELU."""
    return round_through((x / HIDDEN_SCALE).clamp(0, 127)) * HIDDEN_SCALE


class Trunk(nn.Module):
    """x [n, 56] in real units to z [n, 32] and the gate's probabilities [n, 8]."""

    def __init__(self, quantised: bool) -> None:
        super().__init__()
        hidden, experts = layout.HIDDEN, layout.EXPERTS
        self.quantised = quantised
        self.dense = nn.Linear(layout.WEATHER.features, hidden)
        self.shared = nn.Linear(hidden, hidden)
        self.gate = nn.Linear(hidden, experts)
        self.experts_weight = nn.Parameter(torch.randn(experts, hidden, hidden) * (0.7 / hidden**0.5))
        self.experts_bias = nn.Parameter(torch.zeros(experts, hidden))
        self.project = nn.Linear(hidden, layout.Z)

    def _weight(self, weight: Tensor, bits: int) -> Tensor:
        return fake_weight(weight, bits) if self.quantised else weight

    def _hidden(self, x: Tensor) -> Tensor:
        return fake_hidden(x) if self.quantised else torch.relu(x)

    def hidden(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h0 = self._hidden(functional.linear(x, self._weight(self.dense.weight, 4), self.dense.bias))
        shared = self._hidden(functional.linear(h0, self._weight(self.shared.weight, 4), self.shared.bias))
        logits = functional.linear(h0, self._weight(self.gate.weight, 8), self.gate.bias)
        best, chosen = logits.topk(layout.TOP_K, dim=-1)
        gains = torch.zeros_like(logits).scatter(1, chosen, torch.softmax(best, dim=-1))
        outs = torch.einsum("ni,eoi->neo", h0, self._weight(self.experts_weight, 4)) + self.experts_bias
        routed = (self._hidden(outs) * gains[..., None]).sum(dim=1)
        h = h0 + shared + routed
        limit = 127 * HIDDEN_SCALE
        return (h.clamp(0, limit) if self.quantised else h), torch.softmax(logits, dim=-1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h, gate = self.hidden(x)
        return functional.linear(h, self._weight(self.project.weight, 8), self.project.bias), gate


class Tasks(nn.Module):
    """Linear heads on z: each public and each synthetic crop, one for all of them, general quantities."""

    def __init__(self, n_aux: int) -> None:
        super().__init__()
        self.crops = nn.Parameter(torch.zeros(N_TASKS, layout.WEATHER.classes, layout.HEAD_ROW))
        self.common = nn.Linear(layout.Z, layout.WEATHER.classes)
        self.aux = nn.Linear(layout.Z, n_aux)
        self.rule = nn.Linear(layout.Z, len(RULE_INPUTS))

    def crop_logits(self, z: Tensor, task: Tensor) -> Tensor:
        head = self.crops[task]
        return torch.einsum("nci,ni->nc", head[..., :-1], z) + head[..., -1]


@dataclass(frozen=True)
class Batch:
    x: Tensor
    task: Tensor
    label: Tensor
    aux: Tensor


def _class_weights(samples: Samples) -> Tensor:
    """Per task, inversely to the root of each class's share, mean 1: between accuracy and macro-F1."""
    weights = []
    for task in range(N_TASKS):
        synthetic = task - len(layout.CONTEXTS_PUBLIC)
        labels = (
            samples.label[samples.context == task] if synthetic < 0 else samples.synthetic_label[:, synthetic]
        )
        share = np.bincount(labels, minlength=layout.WEATHER.classes) / len(labels)
        weight = 1.0 / np.sqrt(np.maximum(share, 0.01))
        weights.append(weight / (weight * share).sum())
    return torch.tensor(np.array(weights), dtype=torch.float32)


def batches(samples: Samples, aux: Tensor, rng: np.random.Generator) -> Iterator[Batch]:
    """One epoch: each node-day once as its own crop and once as a random synthetic crop."""
    n = len(samples.x)
    order = rng.permutation(2 * n)
    for start in range(0, 2 * n - BATCH + 1, BATCH):
        picked = order[start : start + BATCH]
        rows, synthetic = picked % n, picked >= n
        crops = rng.integers(0, SYNTHETIC_CROPS, BATCH)
        x = np.where(synthetic[:, None], synthetic_inputs(samples, rows, crops), samples.x[rows])
        task = np.where(synthetic, crops + len(layout.CONTEXTS_PUBLIC), samples.context[rows])
        label = np.where(synthetic, samples.synthetic_label[rows, crops], samples.label[rows])
        yield Batch(
            torch.from_numpy(x.astype(np.float32)) * INPUT_SCALE,
            torch.from_numpy(task.astype(np.int64)),
            torch.from_numpy(label.astype(np.int64)),
            aux[torch.from_numpy(rows)],
        )


def loss_of(trunk: Trunk, tasks: Tasks, batch: Batch, weights: Tensor) -> Tensor:
    """Cross-entropies, regression of the general quantities, balance of the gate, and z kept white."""
    z, gate = trunk(batch.x)
    weight = weights[batch.task, batch.label]
    own = functional.cross_entropy(tasks.crop_logits(z, batch.task), batch.label, reduction="none")
    common = functional.cross_entropy(tasks.common(z), batch.label, reduction="none")
    real = 1.0 + 2.0 * (batch.task < len(layout.CONTEXTS_PUBLIC))
    classes = ((own + 0.3 * common) * weight * real).mean()
    regression = functional.mse_loss(tasks.aux(z), batch.aux)
    kept = functional.mse_loss(tasks.rule(z), 2.0 * batch.x[:, RULE_INPUTS.start : RULE_INPUTS.stop])
    centred = z - z.mean(dim=0)
    covariance = centred.T @ centred / len(z)
    white = ((covariance - torch.eye(layout.Z)) ** 2).sum() / layout.Z + (z.mean(dim=0) ** 2).mean()
    usage = gate.mean(dim=0)
    balance = layout.EXPERTS * (usage * usage).sum()
    return classes + 0.5 * regression + 0.5 * kept + 0.03 * white + 0.02 * balance


def train(samples: Samples, seed: int, epochs: int, *, quantised: bool) -> tuple[Trunk, Tasks]:
    """Adam with one cosine; the same seed gives the same weights."""
    torch.manual_seed(seed)
    rng = np.random.Generator(np.random.PCG64(seed))
    mean, spread = samples.aux.mean(axis=0), samples.aux.std(axis=0) + 1e-6
    aux = torch.from_numpy(((samples.aux - mean) / spread).astype(np.float32))
    trunk, tasks = Trunk(quantised), Tasks(aux.shape[1])
    weights = _class_weights(samples)
    steps = epochs * (2 * len(samples.x) // BATCH)
    optimiser = torch.optim.AdamW([*trunk.parameters(), *tasks.parameters()], lr=RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps + 1, pct_start=0.1)
    for epoch in range(epochs):
        total, count = 0.0, 0
        for batch in batches(samples, aux, rng):
            optimiser.zero_grad(set_to_none=True)
            loss = loss_of(trunk, tasks, batch, weights)
            loss.backward()
            optimiser.step()
            schedule.step()
            total, count = total + float(loss.detach()), count + 1
        if epoch % 4 == 3 or epoch == epochs - 1:
            print(
                f"  {'int4' if quantised else 'float'} epoch {epoch + 1}/{epochs}: loss {total / count:.4f}",
                flush=True,
            )
    return trunk, tasks


def _array(parameter: Tensor) -> NDArray[np.float64]:
    return parameter.detach().numpy().astype(np.float64)


def whitened(trunk: Trunk, tasks: Tasks, samples: Samples) -> Linear:
    """The projection, then a whitening, turned so that the leading dimensions matter most to the tasks."""
    with torch.no_grad():
        h = torch.cat([trunk.hidden(torch.from_numpy(part.astype(np.float32)) * INPUT_SCALE)[0]
                       for part in np.array_split(samples.x, 20)]).numpy().astype(np.float64)  # fmt: skip
    weight, bias = _array(trunk.project.weight), _array(trunk.project.bias)
    z = h @ weight.T + bias
    values, vectors = np.linalg.eigh(np.cov(z.T))
    to_white = vectors.T / np.sqrt(np.maximum(values, 1e-3))[:, None]
    from_white = np.linalg.inv(to_white)
    heads = _array(tasks.crops)[..., :-1]
    heads = heads - heads.mean(axis=1, keepdims=True)
    heads[: len(layout.CONTEXTS_PUBLIC)] *= 2.0
    readers = (
        np.concatenate(
            [heads.reshape(-1, layout.Z), 0.5 * _array(tasks.aux.weight), _array(tasks.rule.weight)]
        )
        @ from_white
    )
    _, turn = np.linalg.eigh(readers.T @ readers)
    rotation = turn[:, ::-1].T
    # Signs so that the result does not depend on the eigenvector routine's choice.
    rotation *= np.sign(rotation[np.arange(layout.Z), np.abs(rotation).argmax(axis=1)])[:, None]
    full = rotation @ to_white
    return Linear(full @ weight, full @ (bias - z.mean(axis=0)))


def fit_head(
    z: NDArray[np.int8], labels: NDArray[np.integer], weights: NDArray[np.float64], ridge: float
) -> NDArray[np.float64]:
    """Multinomial logistic regression [3, 33] on z in real units, by LBFGS in float64."""
    x = torch.from_numpy(np.concatenate([z / layout.Z_ONE, np.ones((len(z), 1))], axis=1))
    y, w = torch.from_numpy(labels.astype(np.int64)), torch.from_numpy(weights)
    head = torch.zeros(layout.WEATHER.classes, layout.HEAD_ROW, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([head], max_iter=150, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = (functional.cross_entropy(x @ head.T, y, reduction="none") * w).sum() / w.sum()
        loss = loss + ridge * (head[:, :-1] ** 2).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return _array(head)


def balance(labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Sample weights inversely to the root of the class share."""
    share = np.bincount(labels, minlength=layout.WEATHER.classes) / len(labels)
    weight: NDArray[np.float64] = (1.0 / np.sqrt(np.maximum(share, 1e-3)))[labels]
    return weight


def _float_model(trunk: Trunk, project: Linear, heads: dict[int | None, NDArray[np.float64]],
                 priors: dict[int, Prior]) -> FloatModel:  # fmt: skip
    experts = zip(_array(trunk.experts_weight), _array(trunk.experts_bias), strict=True)
    # The adapter starts by reading the four directions of the hidden vector that matter most to z.
    directions = project.weight[: layout.RANK]
    return FloatModel(
        dense=Linear(_array(trunk.dense.weight), _array(trunk.dense.bias)),
        shared=Linear(_array(trunk.shared.weight), _array(trunk.shared.bias)),
        gate=Linear(_array(trunk.gate.weight), _array(trunk.gate.bias)),
        experts=[Linear(weight, bias) for weight, bias in experts],
        project=project,
        input_scale=INPUT_SCALE,
        hidden_scale=HIDDEN_SCALE,
        adapter_a=directions / np.linalg.norm(directions, axis=1, keepdims=True),
        heads=heads,
        priors=priors,
    )


def build(trunk: Trunk, tasks: Tasks, samples: Samples, seed: int) -> bytes:
    """The container: trunk as trained, heads and priors fitted on the z of the C engine."""
    project = whitened(trunk, tasks, samples)
    empty: dict[int | None, NDArray[np.float64]] = {
        context: np.zeros((layout.WEATHER.classes, layout.HEAD_ROW))
        for context in (*layout.CONTEXTS_PUBLIC, None)
    }
    engine = Model(container.write(_float_model(trunk, project, empty, {})))
    z = engine.z(samples.x)
    heads, priors = dict(empty), {}
    for context in layout.CONTEXTS_PUBLIC:
        own, labels = z[samples.context == context], samples.label[samples.context == context]
        heads[context] = fit_head(own, labels, balance(labels), 1e-4)
        means = np.stack(
            [own[labels == c].mean(axis=0) / layout.Z_ONE for c in range(layout.WEATHER.classes)]
        )
        priors[context] = Prior(means, np.bincount(labels, minlength=layout.WEATHER.classes))
    rng = np.random.Generator(np.random.PCG64(seed))
    rows, crops = np.arange(len(samples.x)), rng.integers(0, SYNTHETIC_CROPS, len(samples.x))
    z_all = np.concatenate([z, engine.z(synthetic_inputs(samples, rows, crops))])
    labels_all = np.concatenate([samples.label, samples.synthetic_label[rows, crops]])
    heads[None] = fit_head(z_all, labels_all, balance(labels_all), 1e-3)
    return container.write(_float_model(trunk, project, heads, priors), generation=1)


def macro_f1(predicted: NDArray[np.integer], labels: NDArray[np.integer]) -> float:
    scores = []
    for c in np.unique(labels):
        hits = np.count_nonzero((predicted == c) & (labels == c))
        scores.append(2 * hits / (np.count_nonzero(predicted == c) + np.count_nonzero(labels == c)))
    return float(np.mean(scores))


def report(image: bytes, float_trunk: Trunk, float_tasks: Tasks, test: Samples) -> dict[str, object]:
    """Accuracy and macro-F1 on held-out public fields: published rule, float network, C engine."""
    engine = Model(image)
    with torch.no_grad():
        z_float, _ = float_trunk(torch.from_numpy(test.x.astype(np.float32)) * INPUT_SCALE)
        logits = float_tasks.crop_logits(z_float, torch.from_numpy(test.context.astype(np.int64)))
    predictions = {"rule": test.x[:, 48:51].argmax(axis=1), "float": logits.argmax(dim=1).numpy()}
    own, shared = np.zeros(len(test.x), np.int64), np.zeros(len(test.x), np.int64)
    for context in layout.CONTEXTS_PUBLIC:
        rows = test.context == context
        own[rows] = engine.infer(test.x[rows], engine.base_head(context)).argmax(axis=1)
        shared[rows] = engine.infer(test.x[rows], engine.base_head(255)).argmax(axis=1)
    predictions |= {"int4": own, "int4 shared head": shared}
    table: dict[str, object] = {}
    for name, predicted in predictions.items():
        row = {"accuracy": round(float((predicted == test.label).mean()), 4)}
        for context in layout.CONTEXTS_PUBLIC:
            rows = test.context == context
            row[layout.CONTEXTS[context]] = round(macro_f1(predicted[rows], test.label[rows]), 4)
        table[name] = row
    z = engine.z(test.x) / layout.Z_ONE
    covariance = np.cov(z.T)
    table["z"] = {
        "sd": [round(float(v), 2) for v in np.sqrt(np.diag(covariance))],
        "saturated": round(float((np.abs(engine.z(test.x)) >= 127).mean()), 5),
        "largest correlation": round(float(np.abs(covariance - np.diag(np.diag(covariance))).max()), 3),
    }
    table["experts used"] = np.bincount(engine.experts(test.x).ravel(), minlength=layout.EXPERTS).tolist()
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--nodes", type=int, default=80, help="nodes per public field (six fields)")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    samples = load(options.seed, nodes=options.nodes, days=90)
    test = load(HELD_OUT_SEED, nodes=options.nodes, days=60, more_defects=False)
    print(f"{len(samples.x)} public node-days to train on, {len(test.x)} held out")
    float_trunk, float_tasks = train(samples, options.seed, options.epochs, quantised=False)
    trunk, tasks = train(samples, options.seed, options.epochs, quantised=True)
    image = build(trunk, tasks, samples, options.seed)
    options.out.write_bytes(image)
    print(json.dumps(report(image, float_trunk, float_tasks, test), indent=1))
    print(f"{options.out}: {len(image)} bytes, crc32 {container.inspect(image)['crc32']}")


if __name__ == "__main__":
    main()
