"""What goes wrong costs something, and never everything; what was acknowledged is kept."""

from __future__ import annotations

import json

import pytest

from gateway.cli import run as command
from simulations.bench.robustness import ADVERSITIES, PLANS, Row, run, summary, table

CHOSEN = [plan for plan in PLANS if plan.mode.name in ("PROTOTYPES", "FEATURES")]
BLOCKS = [plan for plan in PLANS if plan.mode.name == "BLOCKS" and plan.strategy == "FedMedian"]
SLOW = [plan for plan in PLANS if plan not in (*CHOSEN, *BLOCKS) and plan.strategy != "FedMedian"]
"""Dense vectors under FedMedian learn nothing from the start: half of the nodes say nothing about a head."""


def by_name(rows: list[Row]) -> dict[str, Row]:
    return {row.adversity: row for row in rows}


@pytest.mark.parametrize("plan", [*CHOSEN, *BLOCKS], ids=lambda plan: plan.mode.name)
def test_nothing_collapses_and_nothing_acknowledged_is_lost(plan: object) -> None:
    rows = by_name(run([plan], nodes=40, seed=3))  # type: ignore[list-item]
    clean = rows["none"]
    assert clean.score > clean.before + 0.25
    for row in rows.values():
        assert row.score > row.before + 0.5 * (clean.score - clean.before), row
        # With frames lost, a node may tell a sample twice; never less than was acknowledged is there.
        assert row.kept is None or row.kept == row.acknowledged, row
    if plan in CHOSEN:
        # What can be told to be wrong is left out: a mode that holds samples or means pays next to nothing.
        assert rows["10 % flip labels"].score > clean.score - 0.03
    assert (rows["restarts"].score, rows["restarts"].kept) == (clean.score, clean.kept)


@pytest.mark.slow
@pytest.mark.parametrize("plan", SLOW, ids=lambda plan: f"{plan.mode.name}-{plan.strategy}")
def test_no_mode_that_sends_changes_collapses(plan: object) -> None:
    rows = by_name(run([plan], nodes=40, seed=3))  # type: ignore[list-item]
    clean = rows["none"]
    assert clean.score > clean.before + 0.15
    for row in rows.values():
        assert row.score > row.before + 0.3 * (clean.score - clean.before), row
    assert rows["restarts"].score == clean.score


def test_the_same_seed_gives_the_same_table() -> None:
    first, second = (run(CHOSEN[:1], ADVERSITIES[:3], nodes=12, seed=5) for _ in range(2))
    assert first == second
    assert summary([first, second])[0]["sd"] == 0.0
    header, line = table(summary([first, second]))
    assert header[2:] == [adversity.name for adversity in ADVERSITIES[:3]] and len(line) == len(header)


def test_the_command_prints_a_line_a_mode(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--mode", "prototypes", "--nodes", "10", "--seeds", "1"]
    assert command(["bench", "robustness", *small, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["adversity"] for each in found] == [adversity.name for adversity in ADVERSITIES]
    assert all(each["kept"] for each in found)
    assert command(["bench", "robustness", "--mode", "prototype"]) == 2
    assert "--mode: there is no prototype" in capsys.readouterr().err
