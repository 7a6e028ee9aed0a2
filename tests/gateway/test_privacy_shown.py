"""What a node has spent of its privacy budget, where people look: API and command line of a real daemon."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.cli import run
from gateway.config import PrivacySection
from gateway.store.sqlite import SqliteStore
from swarm.config import Privacy
from swarm.federation.budget import Budgets
from swarm.wire.app import Fragment, RoundMode
from tests.web.served import Served

EUIS = [f"70b3d57ed{number:07x}" for number in range(3)]
LEARNING = {"mode": "masked_sums", "privacy": PrivacySection(epsilon=8.0)}


def rounds_of(path: Path, dev_eui: str, privacy: Privacy) -> None:
    """Write into the daemon's database that this node took part in round 1 under these settings."""
    store = SqliteStore(path)
    budgets = Budgets(privacy, store.load()["privacy"])
    budgets.asked = budgets.plan
    effects, affordable = budgets.charge(dev_eui, Fragment(1, RoundMode.MASKED_SUMS, 0, 2, bytes(16)))
    assert affordable
    store.commit(effects)  # type: ignore[arg-type]
    store.close()


def test_budgets_are_shown_and_survive_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Goal: spent, exposed and untouched nodes are told apart.  Method: their rows, a daemon started anew."""
    monkeypatch.chdir(tmp_path)
    Path("swarm.toml").write_text('[gateway]\ndata_dir = "data"\n[http]\nport = 0\n')
    nodes = [
        {"dev_eui": eui, "name": f"n{i}", "crop": "grape", "activation": "otaa", "app_key": "0a" * 16}
        for i, eui in enumerate(EUIS)
    ]
    with Served(tmp_path, learning=LEARNING) as served:
        assert served.http.post("/api/nodes", json={"nodes": nodes}).json()["added"] == 3
        assert run(("nodes", "list")) == 0
        assert "epsilon" not in capsys.readouterr().out  # nothing to show: no column
    rounds_of(tmp_path / "data", EUIS[0], Privacy(epsilon=8.0))
    rounds_of(tmp_path / "data", EUIS[1], Privacy())
    with Served(tmp_path, learning=LEARNING) as served:
        accounts = [served.http.get(f"/api/nodes/{eui}").json()["privacy"] for eui in EUIS]
        assert accounts[0] == {
            "releases": 1, "without_noise": 0, "epsilon": pytest.approx(7.65, abs=0.05), "epsilon_max": 8.0,
            "delta": 1e-5, "spent": True,
        }  # fmt: skip
        assert (accounts[1]["epsilon"], accounts[1]["without_noise"], accounts[1]["spent"]) == (None, 1, True)
        assert accounts[2] is None
        assert run(("nodes", "list")) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split()[-1] == "epsilon"
        ends = {line.split()[0]: line.rstrip() for line in lines if "70b3" in line}
        assert ends[EUIS[0]].endswith(" of 8, spent") and ends[EUIS[1]].endswith("no noise")
        assert run(("nodes", "show", "n0", "--json")) == 0
        assert json.loads(capsys.readouterr().out)["privacy"]["releases"] == 1
