"""Another pilot's keys in a cell that has nodes already: all of the import, or nothing of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import run
from gateway.commands import importing
from gateway.commands.client import Client, NoAnswer
from gateway.commands.node_files import NodesFile
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


def test_two_nodes_in_one_place_of_a_masking_group_keep_the_old_group_too(served: Served) -> None:
    core = served.daemon.core
    group, count = core.downlinks.group, len(core.registry)
    node = {"crop": "grape", "activation": "network", "mask_place": "7/0/8"}
    nodes = [{**node, "dev_eui": f"70b3d57ed000009{each}", "name": each} for each in "ab"]
    multicast = {"mc_addr": "fc00a001", "nwk_s_key": "11" * 16, "app_s_key": "22" * 16, "replace": True}
    answer = served.http.post("/api/nodes", json={"nodes": nodes, "multicast": multicast})
    assert answer.status_code == 409
    assert "has the mask_place of 70b3d57ed000009a, which comes with it" in answer.json()["detail"]
    assert core.downlinks.group is group and len(core.registry) == count


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


def _file(path: str, count: int, *, grouped: bool = True) -> None:
    nodes = [
        {"dev_eui": f"70b3d57ee{number:07x}", "name": f"n{number}", "crop": "grape", "activation": "otaa",
         "app_key": f"{number:032x}"}
        for number in range(count)
    ]  # fmt: skip
    group = {"mc_addr": "fc00a009", "nwk_s_key": "33" * 16, "app_s_key": "44" * 16}
    document = {"nodes": nodes, "multicast": group} if grouped else {"nodes": nodes}
    Path(path).write_text(json.dumps(document))
    Path(path).chmod(0o600)


def test_who_comes_between_check_and_import_leaves_all_as_it_was(
    served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: 1100 nodes and their group, of which the last one's name was taken after the check."""
    core = served.daemon.core
    group, count = core.downlinks.group, len(core.registry)
    check = importing.refuse_unless_all
    other = {"dev_eui": "70b3d57ef0000001", "name": "n1099", "crop": "apple", "activation": "network"}

    def then_another(client: Client, table: NodesFile) -> None:
        check(client, table)
        assert served.http.post("/api/nodes", json={"nodes": [other]}).json()["added"] == 1

    monkeypatch.setattr("gateway.commands.nodes.refuse_unless_all", then_another)
    _file("many.json", 1100)
    capsys.readouterr()
    assert run(("nodes", "import", "many.json", "--replace-multicast")) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.endswith(
        "swarm: nothing was changed: 70b3d57ee000044b: the name n1099 belongs to 70b3d57ef0000001;"
        " give another\n"
    )
    assert core.downlinks.group is group and len(core.registry) == count + 1


def test_an_import_that_stops_on_the_way_says_what_is_there(
    served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the daemon is lost after the second of three parts; then the same import brings the rest."""
    post, calls = Client.post, 0

    def lossy(self: Client, path: str, body: Any = None, **how: Any) -> Any:
        nonlocal calls
        answer = post(self, path, body, **how)
        calls += path == "/api/nodes"
        if calls == 2:  # done, and its answer is lost
            raise NoAnswer("http://x: no gateway answers there", may_be_done=True)
        return answer

    _file("many.json", 2500, grouped=False)
    capsys.readouterr()
    with monkeypatch.context() as patched:
        patched.setattr(Client, "post", lossy)
        assert run(("nodes", "import", "many.json")) == 2
    out, err = capsys.readouterr()
    assert out == "many.json: 1000 nodes added\n"
    assert err.splitlines()[1] == (
        "swarm: many.json: stopped after 1000 nodes; of the next 1000 (many.json: nodes[1000] to many.json:"
        " nodes[1999]) it is not known whether they were taken; 500 were not sent, from many.json:"
        " nodes[2000] on.  Import it again: what is there already stays as it is"
    )
    assert run(("nodes", "import", "many.json", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["unchanged"] == 2000


def test_more_nodes_than_one_request_holds_come_before_their_group(
    served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    core = served.daemon.core
    group = core.downlinks.group
    monkeypatch.setattr(importing, "WHOLE_MAX", 1500)
    monkeypatch.setattr("gateway.commands.nodes.refuse_unless_all", lambda client, table: None)
    other = {"dev_eui": "70b3d57ef0000001", "name": "n1001", "crop": "apple", "activation": "network"}
    assert served.http.post("/api/nodes", json={"nodes": [other]}).json()["added"] == 1
    _file("many.json", 2500)
    capsys.readouterr()
    assert run(("nodes", "import", "many.json", "--replace-multicast")) == 2
    out, err = capsys.readouterr()
    assert out == "many.json: 1999 nodes added, 1 refused\n"
    assert err.splitlines()[-1].startswith(
        "swarm: many.json: stopped after 1999 nodes; 500 were not sent, from many.json: nodes[2000] on; the"
        " multicast group was not set."
    )
    assert core.downlinks.group is group
    assert run(("nodes", "remove", "-y", "n1001")) == 0
    assert run(("nodes", "import", "many.json", "--replace-multicast")) == 0
    assert "501 nodes added, 1999 known already, the multicast group set" in capsys.readouterr().out
    assert core.downlinks.group is not group
