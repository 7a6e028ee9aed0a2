"""Keys and the token: for their owner alone, wherever they are written, typed, copied or complained about."""

from __future__ import annotations

import io
import logging
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import run
from gateway.commands import node_files
from gateway.commands import nodes as nodes_command
from gateway.data_dir import DataDirLock, make_token
from gateway.pilot import provision
from gateway.store.sqlite import SqliteStore
from swarm.effects import Store
from swarm.retired import Counters, Retired

KEY = "000102030405060708090a0b0c0d0e0f"
ADD = ("nodes", "add", "70b3d57ed0000001", "--name", "west-1", "--crop", "grape")


@pytest.fixture(autouse=True)
def _open_to_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What most machines do: new files may be read by everybody."""
    monkeypatch.chdir(tmp_path)
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: str | Path) -> int:
    return stat.S_IMODE(Path(path).stat().st_mode)


# -- what commands write -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nodes.json", "nodes.csv"])
def test_exported_keys_are_private(name: str) -> None:
    Path(name).write_text("longer than what comes " * 10_000)
    assert run(["sim", "export", "smoke", name, "--nodes", "2"]) == 0
    assert mode(name) == 0o600
    assert len(node_files.read_nodes(Path(name)).nodes) == 2


def test_a_token_that_others_can_read_is_closed_to_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = make_token(tmp_path)
    (tmp_path / "token").chmod(0o644)
    with caplog.at_level(logging.WARNING):
        assert make_token(tmp_path) == token
        assert make_token(tmp_path) == token
    assert mode("token") == 0o600
    assert len(caplog.messages) == 1 and "others could read it" in caplog.messages[0]
    assert token not in caplog.text


KILLED = """
import os, signal, sys
from gateway.pilot import keys
replace = os.replace
def power_cut(*where):
    os.kill(os.getpid(), signal.SIGKILL)
keys.os.replace = power_cut
keys.provision("NODES.csv", "keys")
"""


def test_what_a_killed_provisioning_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / "NODES.csv").write_text("id,lat,lon,height_m,crop,soil\na,47,8,2,apple,loam\n")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED],
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert killed.returncode == -signal.SIGKILL
    assert list(Path("keys").rglob(".*"))
    (tmp_path / "keys/.mine").write_text("stays")
    provision("NODES.csv", "keys")
    assert [path.name for path in Path("keys").rglob(".*")] == [".mine"]
    assert sorted(path.name for path in Path("keys").iterdir()) == [
        ".mine",
        "headers",
        "keys.csv",
        "multicast.csv",
        "signing.key",
    ]


# -- what people type --------------------------------------------------------------------------------


class Gateway:
    """Takes what a command would send to the daemon."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[dict[str, Any]] = []
        monkeypatch.setattr(nodes_command, "Client", lambda _: self)

    def post(self, _path: str, body: dict[str, Any], **_: Any) -> dict[str, Any]:
        self.sent += body["nodes"]
        return {"added": 1, "unchanged": 0, "changed": 0, "refused": []}


def test_no_command_takes_a_key_as_an_argument(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--app-key", "--nwk-s-key", "--app-s-key"):
        assert run([*ADD, option, KEY]) == 2
    assert KEY not in capsys.readouterr().err


def test_keys_come_from_a_file_or_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway = Gateway(monkeypatch)
    Path("a.keys").write_text(f"# west-1\n\napp_key = {KEY}\n")
    assert run([*ADD, "--keys-file", "a.keys"]) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO(f"app_s_key={KEY}\nnwk_s_key={KEY[::-1]}"))
    assert run([*ADD, "--dev-addr", "00010001", "--keys-file", "-"]) == 0
    assert [node["activation"] for node in gateway.sent] == ["otaa", "abp"]
    assert (gateway.sent[0]["app_key"], gateway.sent[1]["nwk_s_key"]) == (KEY, KEY[::-1])
    assert KEY not in capsys.readouterr().out


def test_keys_are_asked_for_without_an_echo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway = Gateway(monkeypatch)
    asked: list[tuple[str, bool]] = []

    def prompt(name: str, *, hide_input: bool, err: bool) -> str:
        assert err
        asked.append((name, hide_input))
        return KEY

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.prompt", prompt)
    assert run([*ADD, "--dev-addr", "00010001"]) == 0
    assert asked == [("nwk_s_key", True), ("app_s_key", True)]
    assert gateway.sent[0]["app_s_key"] == KEY


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "app_key is missing"),
        (KEY, "x.keys:1: write each once"),
        (f"app_key = {KEY}\nnwk_s_key = {KEY}", "x.keys:2: write each once"),
        (f"app_key = {KEY}0", "app_key has to be 32 hexadecimal digits"),
        (f"app_key = {KEY}\napp_key = {KEY}", "x.keys:2: write each once"),
    ],
)
def test_mistakes_in_key_files_are_named_without_the_keys(
    text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("x.keys").write_text(text)
    Path("x.keys").chmod(0o640)
    assert run([*ADD, "--keys-file", "x.keys"]) == 2
    error = capsys.readouterr().err
    assert said in error and KEY not in error and len(error.splitlines()) == 1


def test_files_with_keys_that_others_can_read_are_told_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Goal: a warning on standard error wherever a command reads keys, and none where there are none."""
    Gateway(monkeypatch)
    Path("a.keys").write_text(f"app_key = {KEY}\n")
    Path("a.gen").write_text(f"gen_app_key = {KEY}\n")
    assert run([*ADD, "--keys-file", "a.keys", "--gen-app-key-file", "a.gen"]) == 0
    warning = "swarm: {0}: warning: everybody on this machine may read the keys in it; chmod o= {0}"
    assert capsys.readouterr().err.splitlines() == [warning.format(name) for name in ("a.keys", "a.gen")]
    Path("with.csv").write_text(f"dev_eui,name,crop,activation,app_key\n{ADD[2]},west-1,grape,otaa,{KEY}\n")
    Path("behind.csv").write_text(f"dev_eui,name,crop,activation\n{ADD[2]},west-1,grape,network\n")
    Path("NODES.csv").write_text("id,lat,lon,height_m,crop\na,47,8,2,apple\n")
    provision("NODES.csv", "keys")
    for name in ("with.csv", "behind.csv", "keys"):
        node_files.read_nodes(Path(name))
    assert capsys.readouterr().err.splitlines() == [warning.format("with.csv")]
    for each in Path("keys").iterdir():
        each.chmod(0o755)
    node_files.read_nodes(Path("keys"))
    names = ("keys/keys.csv", "keys/multicast.csv", "keys/signing.key")
    assert capsys.readouterr().err.splitlines() == [warning.format(name) for name in names]


@pytest.mark.parametrize("key", [KEY, KEY.upper(), "-".join(KEY[i : i + 2] for i in range(0, 32, 2))])
def test_a_table_without_a_header_does_not_spill_its_keys(
    key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("nodes.csv").write_text(f"70b3d57ed0000003,east-2,apple,otaa,east,47.4,9.6,{key}\n")
    assert run(["nodes", "import", "nodes.csv"]) == 2
    error = capsys.readouterr().err
    assert key not in error and "what may be a key, and no header" in error


# -- backup and restore ------------------------------------------------------------------------------


def filled(data_dir: Path, f_cnt: int) -> None:
    store = SqliteStore(data_dir)
    store.commit([Store("session", "70b3d57ed0000001", {"f_cnt_up": f_cnt, "nwk_s_key": bytes(16)})])
    store.close()


def stored(data_dir: Path) -> object:
    store = SqliteStore(data_dir)
    row = store.load()["session"]["70b3d57ed0000001"]["f_cnt_up"]
    store.close()
    return row


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    Path("swarm.toml").write_text('[gateway]\ndata_dir = "data"\n')
    filled(tmp_path / "data", 7)
    return tmp_path / "data"


def test_a_backup_of_a_running_database_is_private_and_comes_back(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The daemon has it open, with the last commits in its log only."""
    running = SqliteStore(data_dir)
    running.commit([Store("session", "70b3d57ed0000001", {"f_cnt_up": 8})])
    Path("b.db").write_text("an older one")
    Path("b.db").chmod(0o644)
    assert run(["backup", "b.db"]) == 2
    assert "is there already; name another file, or write over it with --force" in capsys.readouterr().err
    assert Path("b.db").read_text() == "an older one"
    for name in ("swarm.db", "swarm.db-wal", "swarm.db-shm"):
        assert run(["backup", str(data_dir / name), "--force"]) == 2
        assert "is the database itself" in capsys.readouterr().err
    assert run(["backup", "b.db", "--force"]) == 0
    running.close()
    assert mode("b.db") == 0o600
    assert sorted(Path.cwd().glob("*b.db*")) == [Path.cwd() / "b.db"], "one file, no log, no half copy"
    filled(data_dir, 99)
    assert run(["restore", "b.db"]) == 0
    assert "frame counters are those of the backup" in capsys.readouterr().out
    assert stored(data_dir) == 8
    assert mode(data_dir / "swarm.db") == mode(data_dir / "swarm.db.before-restore") == 0o600
    with sqlite3.connect(data_dir / "swarm.db.before-restore") as before:
        assert before.execute("SELECT f_cnt_up FROM session").fetchall() == [(99,)]
    assert run(["restore", "b.db"]) == 0
    with sqlite3.connect(data_dir / "swarm.db.before-restore") as before:
        assert before.execute("SELECT f_cnt_up FROM session").fetchall() == [(99,)], "kept for good"
    assert (data_dir / "swarm.db.before-restore.2").exists()


def test_a_damaged_database_gives_way_and_an_empty_place_is_filled(data_dir: Path) -> None:
    assert run(["backup", "b.db"]) == 0
    (data_dir / "swarm.db").write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 40)
    assert run(["restore", "b.db"]) == 0
    assert stored(data_dir) == 7
    Path("swarm.toml").write_text('[gateway]\ndata_dir = "elsewhere"\n')
    assert run(["restore", "b.db"]) == 0
    assert stored(Path("elsewhere")) == 7


def test_what_cannot_be_restored_changes_nothing(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["backup", "b.db"]) == 0
    whole = Path("b.db").read_bytes()
    Path("torn.db").write_bytes(whole[: len(whole) // 2])
    Path("text.db").write_text("no database at all")
    with sqlite3.connect("other.db") as other:
        other.execute("CREATE TABLE things (x)")
    other.close()
    capsys.readouterr()
    for name in ("torn.db", "text.db", "other.db", "missing.db"):
        assert run(["restore", name]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
        assert stored(data_dir) == 7
    bad = b"SQLite format 3\0" + bytes(range(256)) * 40
    (data_dir / "swarm.db").write_bytes(bad)
    assert run(["restore", "text.db"]) == 2
    assert (data_dir / "swarm.db").read_bytes() == bad, "not even what is damaged"
    capsys.readouterr()
    lock = DataDirLock(data_dir)
    assert run(["restore", "b.db"]) == 2
    assert "is in use by process" in capsys.readouterr().err
    lock.release()
    assert run(["backup", "no/such/place/b.db"]) == 2
    assert run(["backup", "b.db", "-c", "missing.toml"]) == 2


def test_counters_of_retired_keys_come_back_from_the_disk(data_dir: Path) -> None:
    store = SqliteStore(data_dir)
    kept = Counters(f_cnt_up=7, f_cnt_down=3, dev_nonce=None, join_nonce=2)
    store.commit([Retired({}).keep("ab" * 16, kept)])
    assert Retired(store.load()).take("ab" * 16)[0] == kept
    store.close()
