"""What goes wrong costs something, and never everything; what was acknowledged is kept."""

from __future__ import annotations

import pytest

from simulations.bench.robustness import ADVERSITIES, PLANS, Row, run, table

CHOSEN = [plan for plan in PLANS if plan.mode.name in ("PROTOTYPES", "FEATURES")]
BLOCKS = [plan for plan in PLANS if plan.mode.name == "BLOCKS" and plan.strategy == "FedMedian"]


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


def test_the_same_seed_gives_the_same_table() -> None:
    first, second = (run(CHOSEN[:1], ADVERSITIES[:3], nodes=12, seed=5) for _ in range(2))
    assert first == second
    assert table(first).count("\n") == 2
