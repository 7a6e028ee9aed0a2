"""The learning benchmark: what a cell sends is what it is charged for, and policy sends nothing in vain."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gateway import cli
from simulations.bench import tables
from simulations.bench.baselines import Features, baselines, said_by
from simulations.bench.bill import LORAWAN_SIZE, payload_max
from simulations.bench.cell import Cell
from simulations.bench.gain import gain
from simulations.bench.learn import learn, prepare, run_mode, run_policy
from simulations.bench.modes import DENSE, MODES, POLICY, solver_options
from simulations.tasks.agri import agri
from simulations.tasks.public_model import public_model
from simulations.tasks.tables import SHARED_DATA
from simulations.tasks.task import macro_f1
from swarm.federation.strategy import MASKED_SUMS, PROTOTYPES, FlowerStrategy
from swarm.model.layout import HEAD_ONE
from swarm.phy.airtime import airtime_us
from swarm.prng import Prng
from swarm.wire.app import RoundMode

FIELDS = {
    "task", "mode", "sf", "nodes", "seeds", "score", "sd", "centralised", "local_only", "public_local",
    "rule", "persistence", "frames_per_node", "bytes_per_node", "airtime_s", "ratio_to_dense",
}  # fmt: skip
needs_data = pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"{SHARED_DATA} is not there")


@pytest.fixture(scope="module")
def setting():
    return prepare("agri", 48, 1)


def strategy_of(setting) -> FlowerStrategy:
    options = solver_options("agri")
    return FlowerStrategy(PROTOTYPES, setting.model.model.shape, options, prior=setting.model.prior)


def test_one_frame_a_node_and_its_airtime_in_closed_form(setting) -> None:
    """Goal: costs are those of the frames.  Method: at SF12 a class is 12 bytes, and 9 + 13 come on top."""
    cell = Cell(setting.task, setting.model, spreading_factor=12, seed=1, loss=0.0)
    closed = cell.round(RoundMode.PROTOTYPES, strategy_of(setting))
    costs = cell.costs()
    assert closed.updates == costs.frames == 48
    sizes = set()
    expected = 0
    for node in range(48):
        classes = len(np.unique(setting.task.train.label[setting.task.train.node == node]))
        size = 9 + 12 * classes + LORAWAN_SIZE
        sizes.add(size)
        expected += airtime_us(12, 125_000, size)
    assert costs.airtime_up_us == expected and max(sizes) <= payload_max(12) + LORAWAN_SIZE
    assert costs.bytes_down > 0 and costs.energy_mj > 0


@pytest.mark.parametrize("mode", [RoundMode.PROTOTYPES, RoundMode.TOP_K_SIGN, RoundMode.DENSE_INT8])
def test_nodes_hold_the_gateway_s_integers_after_a_round(setting, mode: RoundMode) -> None:
    cell = Cell(setting.task, setting.model, spreading_factor=9, seed=1, loss=0.0)
    strategy = (
        strategy_of(setting)
        if mode is RoundMode.PROTOTYPES
        else FlowerStrategy("FedAvg", setting.model.model.shape)
    )
    for _ in range(2 if mode is RoundMode.PROTOTYPES else 3):
        cell.round(mode, strategy)
    for node in range(48):
        context = setting.task.node_context[node]
        assert np.array_equal(cell.nodes.heads[node, context], cell.mirror.heads[context])
    assert (cell.nodes.adapters == cell.mirror.adapter).all()
    # The nodes' own answers are those of their heads on their z.
    test = setting.task.test.where(np.arange(200))
    heads = cell.mirror.heads[setting.task.node_context].reshape(48, -1, 33).astype(np.float32) / HEAD_ONE
    if mode is RoundMode.PROTOTYPES:
        agree = said_by(heads, setting.features.test[:200], test.node) == cell.answers(test)
        assert agree.mean() > 0.98


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_masked_sums_learn_what_the_same_sums_in_the_clear_do(setting, loss: float) -> None:
    """Goal: masks cost airtime, not accuracy.  Method: a round of real nodes; exact sums of those heard."""
    options = solver_options("agri", MASKED_SUMS)
    shape, task = setting.model.model.shape, setting.task
    cells = [Cell(task, setting.model, spreading_factor=7, seed=1, loss=loss) for _ in range(2)]
    strategies = [FlowerStrategy(MASKED_SUMS, shape, options, prior=setting.model.prior) for _ in range(2)]
    closed = cells[0].round(RoundMode.MASKED_SUMS, strategies[0])
    cells[1].learn_in_the_clear(strategies[1], sorted(cells[0]._accepted))
    if loss == 0.0:
        # 2 frames a node, nothing to repair: 12 + ceil(12 (21 * 3 + 210) / 8) bytes in slices of 216.
        assert cells[0].costs().frames == 2 * 48
        assert cells[0].costs().bytes_up == 48 * (422 + 2 * (6 + LORAWAN_SIZE))
        assert strategies[0].samples == strategies[1].samples == len(task.train)
    else:
        assert closed.updates < 48 and cells[0].costs().frames > 2 * closed.updates
    masked, clear = (task.score(cell.answers(task.test), task.test) for cell in cells)
    assert masked > clear - 0.02


def test_seeds_are_on_the_bill(setting) -> None:
    """Goal: repair is paid for.  Method: a node's frames are lost; the others of its group send one more."""
    cell = Cell(setting.task, setting.model, spreading_factor=7, seed=1, loss=0.0)
    receive = cell._receive
    cell._receive = lambda made, parts, node, payload: node == 5 or receive(made, parts, node, payload)
    before = cell.costs().bytes_down
    strategy = FlowerStrategy(MASKED_SUMS, setting.model.model.shape, solver_options("agri", MASKED_SUMS))
    closed = cell.round(RoundMode.MASKED_SUMS, strategy)
    assert sum(setting.task.node_context == setting.task.node_context[5]) == 8
    assert closed.updates == 47 and cell.costs().frames == 2 * 48 + 7
    assert cell.costs().bytes_down - before > 7 * (7 + LORAWAN_SIZE)


def test_what_is_lost_is_paid_for_and_not_learned(setting) -> None:
    cell = Cell(setting.task, setting.model, spreading_factor=7, seed=1, loss=0.0)
    before = cell.master.copy()
    cell._loss = 1.0
    cell.round(RoundMode.PROTOTYPES, strategy_of(setting))
    assert cell.costs().frames == 0  # nobody heard the announcement
    deaf = Cell(setting.task, setting.model, spreading_factor=7, seed=1, loss=0.3)
    closed = deaf.round(RoundMode.PROTOTYPES, strategy_of(setting))
    assert 0 < closed.updates < deaf.costs().frames < 48
    assert np.array_equal(before, cell.master)


def test_the_same_seed_gives_the_same_row_and_a_round_helps(setting) -> None:
    one, same = (run_mode(setting, MODES["prototypes"], 7) for _ in range(2))
    assert one == same
    start = setting.task.score(setting.baselines["public"].test, setting.task.test)
    dense = run_mode(setting, replace(MODES[DENSE], steps=(replace(MODES[DENSE].steps[0], rounds=5),)), 7)
    assert dense.costs.bytes_up > 20 * one.costs.bytes_up and dense.score > start - 0.03
    assert [airtime for airtime, _ in dense.curve] == sorted(airtime for airtime, _ in dense.curve)


def test_rounds_are_as_many_as_are_asked_for(setting) -> None:
    """Goal: `--rounds` changes what goes on for a fixed number of rounds, and nothing else."""
    short = run_mode(setting, MODES[DENSE].lasting(5), 7)
    assert len(short.curve) == 2, "the shipped heads, and once after five rounds"
    assert MODES["four_frames"].lasting(5) == MODES["four_frames"]
    assert [step.rounds for step in MODES["top_k_sign"].lasting(200).steps] == [0, 200]


def test_baselines_are_in_order(setting) -> None:
    """Goal: more data, better head.  Method: the fleet's labels together beat each node's own."""
    task = setting.task
    scores = {
        name: None if answers is None else task.score(answers.test, task.test)
        for name, answers in setting.baselines.items()
    }
    assert min(scores["centralised"], scores["public_local"]) > scores["local_only"] > scores["majority"]
    assert scores["centralised"] > scores["public"] - 0.02


def test_a_gain_is_more_than_luck_or_it_is_none(setting) -> None:
    task, rng = setting.task, np.random.default_rng(1)
    label = task.validation.label
    same = gain(task, task.validation, label, label, Prng(1))
    assert (same.mean, same.sd) == (0.0, 0.0) and not same.beyond(2.0, 0.02)
    noisy = [
        np.where(rng.random(len(label)) < 0.3, (label + 1) % 3, label).astype(np.uint8) for _ in range(2)
    ]
    assert not gain(task, task.validation, *noisy, Prng(1)).beyond(2.0, 0.02)
    assert gain(task, task.validation, noisy[0], label, Prng(1)).beyond(2.0, 0.02)


@needs_data
@pytest.mark.parametrize("seed", [101, 102])
def test_where_the_public_data_know_everything_nothing_is_sent(seed: int) -> None:
    setting = prepare("faults_known", 100, seed)
    outcome = run_policy(setting, 12)
    assert outcome.verdict.startswith("no gain to expect, nothing sent") and not outcome.accepted
    assert (outcome.costs.frames, outcome.costs.airtime_s) == (0, 0.0)


@needs_data
def test_a_new_kind_of_fault_travels_in_one_frame() -> None:
    """Goal: federation pays where the fleet holds what the public data lack, by more than luck."""
    setting = prepare("faults", 100, 101)
    task = setting.task
    outcome = run_mode(setting, MODES["prototypes"], 7)
    public_local = task.score(setting.baselines["public_local"].test, task.test)
    assert outcome.accepted and outcome.score > public_local + 0.05
    assert outcome.costs.frames == task.nodes


def test_rows_have_the_promised_fields_and_a_ratio(setting) -> None:
    modes = ["prototypes", DENSE, "average_all", POLICY]
    rows = list(learn(["agri"], modes, [12], nodes=24, seeds=[1, 2], rounds=20))
    assert [row.mode for row in rows] == modes
    document = tables.plain(rows)
    assert document[2]["served"] is None and document[2]["ratio_to_average_all"] <= 1.0
    assert all(row["ratio_to_average_adapters"] is None for row in document)  # was not run
    assert all(row.keys() >= FIELDS for row in document)
    assert document[0]["sd"] is not None and "ratio_to_dense" in document[0]
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert "| prototypes | 12 |" in tables.markdown(rows)


def test_a_report_holds_rows_tables_and_plots(setting, tmp_path) -> None:
    rows = list(learn(["agri"], ["prototypes"], [7], nodes=12, seeds=[1]))
    said = tables.write(rows, tmp_path / "r")
    names = {path.name for path in (tmp_path / "r").iterdir()}
    assert {"rows.json", "rows.csv", "learn.md"} <= names and len(said) == 4


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--task", "nothing"], "--task"),
        (["--mode", "telepathy"], "--mode"),
        (["--seeds", "x"], "--seeds"),
        (["--data", "a.csv"], "--data"),
        (["--task", "soil", "--data", "absent.csv"], "absent.csv: no such file"),
        (["--task", "soil", "--data", "."], ".: is a directory; give a file in it"),
        (["--task", "agri", "--data", "."], ".: is a directory; give a file in it"),
        (["--sf", "13"], "--sf"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], word: str, capsys) -> None:
    assert cli.run(["bench", "learn", *arguments]) == 2
    said = capsys.readouterr().err
    assert word in said and said.count("\n") == 1 and "Traceback" not in said


@pytest.mark.parametrize("task", ["soil", "disease_real"])
@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("app_key = 2b7e151628aed2a6abf7158809cf4f3c", None),
        ("ab7e151628aed2a6abf7158809cf4f3c,bench", None),
        ("correct horse battery staple", None),
        ("bench,Q2hhbmdlIG1lIHBsZWFzZSwgSSBhbSBhIHRva2Vu", None),
        ("SOURCEID, Day, Port1VW (m³/m³)", "SOURCEID, Day, Port1VW (m³/m³)"),
    ],
)
def test_what_may_be_a_secret_is_not_repeated(
    task: str, line: str, shown: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Goal: a file of keys that was given by mistake is told of without a word of it."""
    file = tmp_path / "given.csv"
    file.write_text(f"{line}\n")
    assert cli.run(["bench", "learn", "--task", task, "--data", str(file)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert shown in said if shown else not any(word in said for word in re.findall(r"\w{4,}", line))


def test_quick_prints_rows_as_json(capsys) -> None:
    assert cli.run(["bench", "learn", "--quick", "--nodes", "30", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["mode"] for row in rows] == ["prototypes", DENSE] and rows[0]["nodes"] == 30
    assert rows[0]["frames_per_node"] <= 1.0 and rows[0]["sf"] == 7


def test_metrics_of_confusions_are_closed_forms(setting) -> None:
    task = agri(6, 1)
    wake = replace(task, metric="wake_word", wake_class=2)
    said = np.zeros(len(task.test), np.uint8)
    expected = macro_f1(np.zeros(len(said), bool), task.test.label == 2)
    assert wake.score(said, task.test) == pytest.approx(expected)
    per_context = replace(task, metric="macro_f1_per_context")
    scores = [macro_f1(said[task.test.context == c], task.test.label[task.test.context == c])
              for c in np.unique(task.test.context)]  # fmt: skip
    assert per_context.score(said, task.test) == pytest.approx(np.mean(scores))
    model = public_model(task, 1)
    features = Features.of(task, model)
    assert baselines(task, model, features)["rule"] is not None
