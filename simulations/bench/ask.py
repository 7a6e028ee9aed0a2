"""What asking for experts is worth, and what it costs: real nodes, real frames, against local and complete
models.

Theory of operation.  A fleet stands on the eight sites of `ask_task`; most of what a node sees is of its own
site, some is of others.  Placement gives every node as many experts as fit.  How sure a node must be to
answer alone is chosen on validation data, as the threshold with the best score that keeps within the frames
allowed per query.  Then every query of the test data is put to a node at its time and judged four ways:
alone, with the gateway's replica, with holders among the nodes, and by the whole model.

The physical minimum of a question's latency is the airtime of its own frames and the pauses that LoRaWAN
prescribes: via the replica one uplink, RX1 delay, one downlink; through holders, question and answer of each
holder (whose receiver is on), and again one uplink, RX1 delay, one downlink of the asker.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from simulations.bench.ask_task import SITES, AskTask, digits
from simulations.bench.asking_cell import AskingCell, OnAir, dev_eui
from simulations.bench.mixture import Examples
from swarm.config import Asking, Learning, SwarmConfig
from swarm.inference.placement import Place, place
from swarm.inference.plan import MAC_SIZE
from swarm.node import ALWAYS_ON, HOLDER, Judged, Model, NodeConfig, Nodes
from swarm.phy.energy import receive_mj, transmit_mj
from swarm.prng import Prng

__all__ = ["Mode", "Setting", "rows_of", "run", "summary"]

Mode = Literal["replica", "swarm"]
Progress = Callable[[str], None]

FRAMES_ALLOWED: dict[str, float] = {"replica": 0.25, "swarm": 0.55}
"""A query, on the mean."""
THRESHOLDS = (0, 77, 102, 115, 128, 140, 153, 166, 179, 191, 204, 217, 230, 242, 255)
"""In 1/255; 0 never asks."""
DEADLINE_S = 300
RETRY_S = 3
"""A holder whose receiver is on has answered by then, at the slowest RX2 rate too."""
ASK_SIZE, OUTPUT_SIZE, QUERY_SIZE, REPLY_SIZE = 45, 40, 44, 38
SECOND_US = 1_000_000
WARM_UP_S = 7200
STATUS_S = 86_400


@dataclass(frozen=True, slots=True)
class Setting:
    """`nodes` in the fleet (a multiple of 8 spreads evenly), `room` experts in each, `foreign` the share of
    inputs from other sites, `queries` of the fleet per hour, `always_on` nodes per site whose receiver is
    on."""

    nodes: int = 48
    room: int = 2
    foreign: float = 0.15
    data_rate: int = 5
    queries_per_hour: float = 240.0
    queries: int = 2000
    always_on: int = 2
    loss: float = 0.0


@dataclass(frozen=True)
class _Fleet:
    """Who stands where and holds what; `withheld[i]` are the experts that node i lacks, as bits."""

    setting: Setting
    task: AskTask
    site: NDArray[np.int64]
    withheld: list[int]
    model: Model


def run(
    seeds: Sequence[int] = (1, 2, 3),
    modes: Sequence[Mode] = ("replica", "swarm"),
    setting: Setting | None = None,
    *,
    steps: int | None = None,
    on_progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """One row per seed and mode; TaskMissing says what is not installed."""
    chosen = Setting() if setting is None else setting
    rows = []
    for seed in seeds:
        if on_progress is not None:
            on_progress(f"seed {seed}: training")
        task = digits(seed) if steps is None else digits(seed, steps=steps)
        for mode in modes:
            if on_progress is not None:
                on_progress(f"seed {seed}: {mode}")
            rows.append(rows_of(task, mode, chosen, seed))
    return rows


def rows_of(task: AskTask, mode: Mode, setting: Setting, seed: int) -> dict[str, Any]:
    """The row of one task, mode and seed."""
    fleet = _fleet(task, setting, seed)
    threshold = _threshold(fleet, mode, seed)
    test, node = _queries(task.test, fleet, seed, "test")
    x = AskTask.inputs(test)
    cell = _cell(fleet, mode, threshold, seed)
    start_us = cell.now_us
    first = len(cell.log)
    asked = _put(cell, x, node, setting, seed)
    own = Nodes(setting.nodes, _configs(fleet, 0), task.model)
    alone = own.infer(x, node).argmax(axis=1)
    whole = fleet.model.infer(x, fleet.model.base_head(0)).argmax(axis=1)
    log = [frame for frame in cell.log[first:] if frame.start_us >= start_us]
    asking = [frame for frame in log if frame.f_port in (0, 11)]
    latencies = np.array([each.latency_us for each in asked if each.state == Judged.TOGETHER], np.float64)
    minima = np.array([each.minimum_us for each in asked if each.state == Judged.TOGETHER], np.float64)
    judged = np.array([each.label for each in asked])
    in_flight = [each for each in asked if each.asked]
    return {
        "task": "digits-8-sites",
        "mode": mode,
        "seed": seed,
        "nodes": setting.nodes,
        "queries": len(asked),
        "experts_held": setting.room,
        "image_bytes": len(task.model),
        "ask_below": threshold / 255,
        "local": float((alone == test.label).mean()),
        "asked_score": float((judged == test.label).mean()),
        "complete": float((whole == test.label).mean()),
        "asked_share": len(in_flight) / len(asked),
        "answered_share": sum(each.state == Judged.TOGETHER for each in in_flight) / max(len(in_flight), 1),
        "frames_per_query": len(asking) / len(asked),
        "airtime_ms_per_query": sum(f.end_us - f.start_us for f in asking) / 1000 / len(asked),
        "energy_mj_per_query": sum(_energy_mj(f) for f in asking) / len(asked),
        "latency_p50_s": float(np.median(latencies)) / SECOND_US if len(latencies) else None,
        "latency_p95_s": float(np.percentile(latencies, 95)) / SECOND_US if len(latencies) else None,
        "minimum_p50_s": float(np.median(minima)) / SECOND_US if len(minima) else None,
        "over_minimum": float(np.median(latencies / minima)) - 1.0 if len(minima) else None,
    }


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over seeds, per mode."""
    table = []
    for mode in dict.fromkeys(row["mode"] for row in rows):
        mine = [row for row in rows if row["mode"] == mode]
        merged: dict[str, Any] = {"mode": mode, "seeds": len(mine)}
        for name in mine[0]:
            values = [row[name] for row in mine if isinstance(row[name], float)]
            if values:
                merged[name] = statistics.mean(values)
                merged[f"{name}_sd"] = statistics.stdev(values) if len(values) > 1 else 0.0
        table.append(merged)
    return table


def _energy_mj(frame: OnAir) -> float:
    airtime_us = frame.end_us - frame.start_us
    return transmit_mj(airtime_us) if frame.up else receive_mj(airtime_us)


# -- the fleet -------------------------------------------------------------------------------------


def _fleet(task: AskTask, setting: Setting, seed: int) -> _Fleet:
    model = Model(task.model)
    site = np.arange(setting.nodes) % SITES
    draft = _Fleet(setting, task, site, [0] * setting.nodes, model)
    seen, node = _queries(task.seen, draft, seed, "seen")
    picks = model.experts(AskTask.inputs(seen))
    places = []
    for index in range(setting.nodes):
        # A site's nodes see the same: what the gate chose is pooled over the site.
        counts = np.bincount(picks[site[node] == site[index]].ravel(), minlength=8)
        always_on = index // SITES < setting.always_on
        places.append(
            Place(f"{index:04d}", index, setting.room, tuple(map(float, counts)), always_on=always_on)
        )
    held = {each.dev_eui: each.experts for each in place(places, 8)}
    withheld = [sum(1 << e for e in range(8) if e not in held[f"{i:04d}"]) for i in range(setting.nodes)]
    return _Fleet(setting, task, site, withheld, model)


def _queries(examples: Examples, fleet: _Fleet, seed: int, name: str) -> tuple[Examples, NDArray[np.int64]]:
    """(examples in the order in which they come, the node that sees each)."""
    draws = Prng(seed).child(f"queries-{name}").numpy()
    order = draws.permutation(len(examples.label))[: fleet.setting.queries]
    site = examples.site[order]
    away = draws.random(len(order)) < fleet.setting.foreign
    seen_at = np.where(away, (site + draws.integers(1, SITES, len(order))) % SITES, site)
    copies = fleet.setting.nodes // SITES
    node = seen_at + SITES * draws.integers(0, copies, len(order))
    return Examples(examples.x[order], examples.label[order], site), node


def _configs(fleet: _Fleet, ask_below: int) -> list[NodeConfig]:
    return [
        NodeConfig(
            node_index=index,
            context=0,
            seed=index,
            flags=HOLDER | (ALWAYS_ON if index // SITES < fleet.setting.always_on else 0),
            payload_max=222,
            status_period_s=STATUS_S,
            ask_below=ask_below,
            ask_retry_s=RETRY_S,
            withheld=fleet.withheld[index],
        )
        for index in range(fleet.setting.nodes)
    ]


def _threshold(fleet: _Fleet, mode: Mode, seed: int) -> int:
    """The best threshold on validation data whose expected frames stay within what is allowed."""
    examples, node = _queries(fleet.task.validation, fleet, seed, "validation")
    x = AskTask.inputs(examples)
    picks = fleet.model.experts(x)
    lacks = np.array([fleet.withheld[n] for n in node])[:, None] >> picks & 1
    missing = lacks.sum(axis=1)
    alone = Nodes(fleet.setting.nodes, _configs(fleet, 0), fleet.task.model).infer(x, node)
    whole = fleet.model.infer(x, fleet.model.base_head(0))
    sure = alone.max(axis=1)
    pairs = {tuple(e for e in range(8) if not mask >> e & 1) for mask in fleet.withheld}
    together = np.array([any(set(p) <= set(held) for held in pairs) for p in picks.tolist()])
    parts = np.where((missing == 2) & ~together, 2, 1)
    frames = np.full(len(x), 2.0) if mode == "replica" else 3.0 + 2.0 * parts
    best, chosen = -1.0, 0
    for threshold in THRESHOLDS:
        asks = (sure < threshold) & (missing > 0)
        if (frames * asks).mean() > FRAMES_ALLOWED[mode] * 0.95:
            break
        right = np.where(asks, whole.argmax(axis=1), alone.argmax(axis=1)) == examples.label
        if right.mean() > best:
            best, chosen = float(right.mean()), threshold
    return chosen


# -- the run ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Asked:
    """One query of the run."""

    node: int
    at_us: int
    label: int
    asked: bool
    state: Judged = Judged.ALONE
    latency_us: int = 0
    minimum_us: int = 0


def _cell(fleet: _Fleet, mode: Mode, threshold: int, seed: int) -> AskingCell:
    config = SwarmConfig(
        learning=Learning(mode="none"),
        asking=Asking(replica=mode == "replica", expert_deadline_s=DEADLINE_S, queries_max=4096),
        dedup_us=0,
        status_period_min=STATUS_S // 60,
    )
    setting = fleet.setting
    cell = AskingCell(
        _configs(fleet, threshold),
        [setting.data_rate] * setting.nodes,
        fleet.task.model,
        config,
        seed=seed,
        loss=setting.loss,
    )
    cell.run_until(WARM_UP_S * SECOND_US)  # everybody has said which experts it holds
    return cell


def _put(
    cell: AskingCell, x: NDArray[np.int8], node: NDArray[np.int64], setting: Setting, seed: int
) -> list[_Asked]:
    """Put one query after another; what became of each."""
    draws = Prng(seed).child("times").numpy()
    pauses = draws.exponential(3600.0 / setting.queries_per_hour, len(x))
    times = cell.now_us + np.cumsum(pauses * SECOND_US).astype(np.int64)
    asked: list[_Asked] = []
    waiting: dict[int, _Asked] = {}
    for row, who, at_us in zip(x, node.tolist(), times.tolist(), strict=True):
        _let_pass(cell, at_us, waiting)
        judgement = cell.nodes.judge(who, cell.now_us, row, deadline_s=DEADLINE_S)
        label = int(np.argmax(judgement.probabilities))
        query = _Asked(who, cell.now_us, label, judgement.state == Judged.ASKING)
        asked.append(query)
        if query.asked:
            waiting[who] = query
            cell.poll(who)
    _let_pass(cell, cell.now_us + 2 * DEADLINE_S * SECOND_US, waiting)
    return asked


def _let_pass(cell: AskingCell, until_us: int, waiting: dict[int, _Asked]) -> None:
    """Run on, and note each judgement when it becomes final."""
    seen = len(cell.log)
    while cell.now_us < until_us:
        cell.step(until_us)
        for frame in cell.log[seen:]:
            query = waiting.get(frame.node)
            if query is None or frame.up or not frame.heard:
                continue
            judgement = cell.nodes.judgement(frame.node)
            if judgement.state != Judged.ASKING:
                query.state = judgement.state
                query.label = int(np.argmax(judgement.probabilities))
                query.latency_us = frame.end_us - query.at_us
                query.minimum_us = _minimum_us(cell, frame.node)
                del waiting[frame.node]
        seen = len(cell.log)


def _minimum_us(cell: AskingCell, node: int) -> int:
    """Airtime of the frames that the node's last answer took, one after another, and the pauses of
    LoRaWAN."""
    told = next(e.data for e in reversed(cell.told("expert_answered")) if e.data["dev_eui"] == dev_eui(node))
    sources = {each["source"] for each in told["experts"]} - {"replica", "cache"}  # type: ignore[attr-defined]
    device, region = cell.devices[node], cell.region
    _, rx1_rate = region.rx1(device.data_rate, region.uplink_channels[0].frequency_hz, 0)
    ask_us = region.airtime_us(device.data_rate, ASK_SIZE + MAC_SIZE, uplink=True)
    output_us = region.airtime_us(device.data_rate, OUTPUT_SIZE + MAC_SIZE, uplink=True)
    query_us = region.airtime_us(device.mac.rx2_data_rate, QUERY_SIZE + MAC_SIZE, uplink=False)
    reply_us = device.mac.rx1_delay_us + region.airtime_us(rx1_rate, REPLY_SIZE + MAC_SIZE, uplink=False)
    if not sources:
        return ask_us + reply_us
    held_us = ask_us + len(sources) * (query_us + output_us)
    if cell.always_on[node]:
        return held_us + region.airtime_us(device.mac.rx2_data_rate, REPLY_SIZE + MAC_SIZE, uplink=False)
    return held_us + ask_us + reply_us
