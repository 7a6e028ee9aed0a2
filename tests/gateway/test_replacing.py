"""Another pilot's keys in a cell that has nodes already: all of the import, or nothing of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli import run
from gateway.pilot import provision
from tests.web.served import Served

NODES = "id,lat,lon,height_m,crop\na1,47.0,8.0,2,apple\ng1,47.0,8.1,2,grape\n"
REPLACE = ("--replace-multicast", "--replace-signing-key")


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.chdir(tmp_path)
    Path("NODES.csv").write_text(NODES)
    provision("NODES.csv", "old")
    provision("NODES.csv", "new")
    with Served(tmp_path) as made:
        port = made.url.rpartition(":")[2]
        Path("swarm.toml").write_text(f'[gateway]\ndata_dir = "data"\n[http]\nport = {port}\n')
        assert run(("nodes", "import", "old")) == 0
        yield made


def test_keys_are_replaced_with_all_nodes_or_not_at_all(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    core = served.daemon.core
    before = (core.signer.public_key, core.downlinks.group, Path("data/signing.key").read_text())
    old = sorted(entry.record.dev_eui for entry in core.registry)
    capsys.readouterr()
    assert run(("nodes", "import", "new", *REPLACE)) == 2
    out, err = capsys.readouterr()
    assert out == "" and "nothing was changed" in err
    remedy = next(line for line in err.splitlines() if "swarm nodes remove" in line)
    words = remedy.partition("swarm nodes remove ")[2].split()
    assert sorted(words[1:]) == old and words[0] == "-y"
    assert before == (core.signer.public_key, core.downlinks.group, Path("data/signing.key").read_text())
    assert run(("nodes", "remove", *words)) == 0
    assert run(("nodes", "import", "new", *REPLACE)) == 0
    out, _ = capsys.readouterr()
    assert "new: 2 nodes added, the multicast group set, models are signed from now on" in out
    assert core.signer.public_key != before[0] and core.downlinks.group is not before[1]


def test_a_row_with_a_mistake_keeps_the_old_group_too(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    core = served.daemon.core
    group, known = core.downlinks.group, sorted(entry.record.dev_eui for entry in core.registry)
    keys = Path("new/keys.csv")
    keys.write_text(keys.read_text().replace("grape", "hops"))
    assert run(("nodes", "remove", "-y", *known)) == 0
    assert run(("nodes", "import", "new", *REPLACE)) == 2
    assert "crop has to be" in capsys.readouterr().err
    assert core.downlinks.group is group and len(core.registry) == 0


@pytest.mark.parametrize("column", ["name", "node_index"])
def test_two_rows_that_cannot_both_be_taken_keep_the_old_group_too(
    served: Served, capsys: pytest.CaptureFixture[str], column: str
) -> None:
    core = served.daemon.core
    group, known = core.downlinks.group, sorted(entry.record.dev_eui for entry in core.registry)
    keys = Path("new/keys.csv")
    header, one, two = (line.split(",") for line in keys.read_text().splitlines())
    at = header.index("id" if column == "name" else column)
    two[at] = one[at].upper()
    keys.write_text("\n".join(map(",".join, (header, one, two))))
    assert run(("nodes", "remove", "-y", *known)) == 0
    assert run(("nodes", "import", "new", *REPLACE)) == 2
    assert f"{column} {one[at].lower()} is the same as in" in capsys.readouterr().err
    assert core.downlinks.group is group and len(core.registry) == 0
    node = {"crop": "grape", "activation": "network"}
    nodes = [
        {**node, "dev_eui": f"70b3d57ed000009{name}", "name": name, column: same}
        for name, same in (("a", "A"), ("b", "a"))
    ]
    if column == "node_index":
        nodes = [{**each, column: 7} for each in nodes]  # type: ignore[dict-item]
    multicast = {"mc_addr": "fc00a001", "nwk_s_key": "11" * 16, "app_s_key": "22" * 16, "replace": True}
    answer = served.http.post("/api/nodes", json={"nodes": nodes, "multicast": multicast})
    assert answer.status_code == 409 and "comes with it" in answer.json()["detail"]
    assert core.downlinks.group is group


def test_over_http_a_group_is_replaced_only_if_no_node_is_refused(served: Served) -> None:
    core = served.daemon.core
    group = core.downlinks.group
    known = next(iter(core.registry)).record
    node = {
        "dev_eui": "70b3d57ed0000099", "name": "other", "crop": "grape", "activation": "otaa",
        "app_key": "0a" * 16, "node_index": known.node_index,
    }  # fmt: skip
    multicast = {
        "mc_addr": "fc00a001", "nwk_s_key": "11" * 16, "app_s_key": "22" * 16, "replace": True,
    }  # fmt: skip
    answer = served.http.post("/api/nodes", json={"nodes": [node], "multicast": multicast})
    assert answer.status_code == 409
    assert f"belongs to {known.dev_eui}" in answer.json()["detail"]
    assert core.downlinks.group is group
    (refused,) = served.http.post("/api/nodes", json={"nodes": [node], "check": True}).json()["refused"]
    assert refused["in_the_way"] == known.dev_eui and len(core.registry) == 2


def test_an_import_warns_when_its_nodes_will_not_hear_this_daemon(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """Goal: once, and on standard error."""
    capsys.readouterr()
    group = Path("old/multicast.csv")
    for rate, warnings in ((0, 0), (3, 1)):
        group.write_text(group.read_text().replace(",0,869525000", f",{rate},869525000"))
        assert run(("nodes", "import", "old")) == 0
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == warnings
    assert lines == [
        "swarm: old: warning: these nodes listen for models at DR3 on 869.525 MHz, the daemon sends them at"
        " DR0 on 869.525 MHz; set [multicast] data_rate = 3 in its swarm.toml and start it again"
    ]
