"""The SQLite store: rows come back as they went in, and every broken directory gets one clear line."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from gateway.store.sqlite import SqliteStore, StoreError
from simulations import world
from simulations.scenario import load
from swarm.effects import Event, Row, Store

EUI = "70b3d57ed0000001"

SESSION: Row = {
    "dev_addr": 0x26000001,
    "nwk_s_key": bytes(range(16)),
    "app_s_key": b"\xff" * 16,
    "f_cnt_up": None,
    "f_cnt_down": 7,
    "rx1_delay_us": 1_000_000,
    "rx1_dr_offset": 0,
    "rx2_frequency_hz": 869_525_000,
    "rx2_data_rate": 0,
    "downlink_dwell": None,
    "rx1_frequencies": "",
}


def event(number: int, kind: str = "uplink") -> Event:
    return Event(kind, 1_000_000 * number, {"number": number, "key": b"\x01\x02"})


def test_rows_come_back_after_reopening_exactly_as_stored(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.commit([Store("session", EUI, SESSION), Store("gateway", "aa", {"last_seen_us": 5})])
    store.commit(
        [Store("session", EUI, {**SESSION, "f_cnt_down": 8}), Store("round", "12", {"state": "open"})]
    )
    store.close()
    rows = SqliteStore(tmp_path).load()
    assert rows["session"] == {EUI: {"dev_eui": EUI, **SESSION, "f_cnt_down": 8}}
    assert rows["gateway"] == {"aa": {"gateway_id": "aa", "last_seen_us": 5, "proved_us": None}}
    assert rows["round"]["12"]["round"] == 12
    assert rows["round"]["12"]["state"] == "open"
    assert rows["model"] == {}


def test_deleting_and_the_last_word_of_a_batch(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.commit([Store("gateway", name, {"last_seen_us": 1}) for name in ("c", "a", "b")])
    store.commit(
        [Store("gateway", "a", None), Store("gateway", "b", {"last_seen_us": 2}), Store("gateway", "b", None)]
    )
    assert list(store.load()["gateway"]) == ["c"]
    store.commit([Store("gateway", "a", {"last_seen_us": 3}), Store("gateway", "c", {"last_seen_us": 4})])
    # In the order of first storing: the core sees the same order as a dict in memory would give.
    rows = store.load()["gateway"]
    assert [(key, row["last_seen_us"]) for key, row in rows.items()] == [("c", 4), ("a", 3)]


def test_a_value_of_a_wrong_type_is_a_programming_error(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    with pytest.raises(sqlite3.IntegrityError):
        store.commit([Store("gateway", "aa", {"last_seen_us": "yesterday"})])
    with pytest.raises(AssertionError, match="another key"):
        store.commit([Store("round", "12", {"round": 13})])
    assert store.load()["gateway"] == {}


def test_a_swarm_restarted_from_sqlite_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """The simulated gateway keeps its rows in SQLite only, and is restarted again and again.

    Method: the same small scenario with rows in memory and with rows in a file, both restarted in
    mid-round; a row that the schema loses, rounds or retypes would change the digest of the run.
    """
    scenario = load("smoke")

    class OnDisk(world.World):
        def __init__(self, *arguments: object) -> None:
            self.store = SqliteStore(tmp_path)
            super().__init__(*arguments)

        def _store(self, store: Store) -> None:
            self.store.commit([store])

        def _new_coordinator(self) -> object:
            self.rows = self.store.load()
            return super()._new_coordinator()

    def digests(made: Any) -> tuple[object, ...]:
        for day in range(1, 4):
            made.run_until(made.start_us + day * 86_400_000_000 + 5_000_000_000)
            made.restart_gateway()
        return made.rounds, made.cell.traffic, made.coordinator.rounds.digest()

    in_memory, on_disk = digests(world.World(scenario)), digests(OnDisk(scenario))
    assert len(in_memory[0]) > 5  # type: ignore[arg-type]
    assert on_disk == in_memory


@pytest.mark.parametrize(
    ("table", "row", "named"),
    [
        ("sqlite_schema", {"sql": "x"}, "sqlite_schema"),
        ("event", {"kind": "x"}, "event"),
        ("daemon", {"value": 1}, "daemon"),
        ('node" WHERE 1; --', {"name": "x"}, "WHERE"),
        ("node", {'name" = 1; --': "x"}, "node"),
    ],
)
def test_only_known_tables_and_columns_reach_sql(tmp_path: Path, table: str, row: Row, named: str) -> None:
    store = SqliteStore(tmp_path)
    with pytest.raises(StoreError, match=named):
        store.commit([Store("gateway", "a", {"last_seen_us": 1}), Store(table, "1", row)])
    assert store.load()["gateway"] == {}, "a refused batch leaves nothing behind"


def test_the_event_ring_is_bounded_and_keeps_its_numbers_across_restarts(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, events_max=10)
    for number in range(1, 26):
        store.commit([], [event(number, "status" if number % 5 == 0 else "uplink")])
    store.close()
    store = SqliteStore(tmp_path, events_max=10)
    assert [logged.sequence for logged in store.events(limit=100)] == list(range(16, 26))
    assert [logged.sequence for logged in store.events(limit=3)] == [23, 24, 25]
    assert [logged.sequence for logged in store.events(after=20, limit=2)] == [21, 22]
    assert [logged.sequence for logged in store.events(kind="status")] == [20, 25]
    assert store.events(limit=1)[0].event == Event("status", 25_000_000, {"number": 25, "key": "0102"})
    store.commit([], [event(26)])
    assert store.events(limit=1)[0].sequence == 26


def test_a_flood_of_refused_frames_does_not_flush_the_log(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, events_max=50)
    store.commit([], [event(number) for number in range(1, 31)])
    for start in (100, 200):
        store.commit([], [event(number, "dropped") for number in range(start, start + 77)])
        store.close()
        store = SqliteStore(tmp_path, events_max=50)
    assert [logged.event.at_us for logged in store.events(limit=1000, kind="uplink")] == [
        1_000_000 * number for number in range(1, 31)
    ]
    dropped = store.events(limit=1000, kind="dropped")
    assert [logged.event.data["number"] for logged in dropped] == [272, 273, 274, 275, 276]


def test_files_with_keys_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    os.umask(0o022)
    data_dir = tmp_path / "a" / "b"
    store = SqliteStore(data_dir)
    store.commit([Store("gateway", "a", {"last_seen_us": 1})])
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    names = sorted(path.name for path in data_dir.iterdir())
    assert names == ["swarm.db", "swarm.db-shm", "swarm.db-wal"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in data_dir.iterdir()} == {0o600}


def test_durability_settings(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_database_of_a_newer_program_is_left_alone(tmp_path: Path) -> None:
    SqliteStore(tmp_path).close()
    with sqlite3.connect(tmp_path / "swarm.db") as db:
        db.execute("PRAGMA user_version = 999")
    before = (tmp_path / "swarm.db").read_bytes()
    with pytest.raises(StoreError, match=r"swarm\.db: was written by a newer version .* update the program"):
        SqliteStore(tmp_path)
    assert (tmp_path / "swarm.db").read_bytes() == before


@pytest.mark.parametrize("damage", ["header", "middle", "not_sqlite"])
def test_a_damaged_file_gives_one_line(tmp_path: Path, damage: str) -> None:
    store = SqliteStore(tmp_path)
    store.commit([], [event(number) for number in range(2000)])
    store.close()
    path = tmp_path / "swarm.db"
    raw = bytearray(path.read_bytes())
    if damage == "header":
        raw[:64] = b"\x00" * 64
    elif damage == "middle":
        raw[4096 : len(raw) // 2] = b"\xa5" * (len(raw) // 2 - 4096)
    else:
        raw = bytearray(b"hello, I am a text file\n" * 100)
    path.write_bytes(raw)
    with pytest.raises(StoreError) as refused:
        SqliteStore(tmp_path)
    assert "\n" not in str(refused.value)
    assert "damaged" in str(refused.value)
    assert "backup" in str(refused.value)


def test_an_unusable_directory_gives_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for data_dir in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere")):
        with pytest.raises(StoreError, match="data_dir this user may write to"):
            SqliteStore(data_dir)


@pytest.mark.parametrize(
    "change", ["data = '{\"number\":1'", "data = NULL", "data = '[]'", "data = CAST(x'ff22' AS TEXT)"]
)
def test_a_damaged_event_does_not_hide_the_others(tmp_path: Path, change: str) -> None:
    store = SqliteStore(tmp_path)
    store.commit([], [event(number) for number in range(1, 4)])
    store._db.execute(f"UPDATE event SET {change}, at_us = NULL WHERE sequence = 2")
    logged = store.events(limit=10)
    assert [each.event.data.get("number") for each in logged] == [1, None, 3]
    assert logged[1].event == Event("uplink", 0, {"damaged": True})
    store._db.execute("UPDATE event SET kind = CAST(x'ff' AS TEXT) WHERE sequence = 2")
    assert [each.sequence for each in store.events(limit=10)] == [1, 2, 3]


KILLED = """
import sys
from contextlib import closing
from importlib import resources
from pathlib import Path
from gateway.store.sqlite import SqliteStore
from swarm.effects import Store
store = SqliteStore(Path(sys.argv[1]))
for number in range(1, 10**9):
    row = {"last_seen_us": number}
    store.commit([Store("gateway", name, row) for name in "abc"])
    print(number, flush=True)
"""


def test_kill_9_leaves_whole_batches(tmp_path: Path) -> None:
    """A writer is killed in mid-stride: whatever it reported is there, and no batch is half there."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        reported = [int(writer.stdout.readline()) for _ in range(40)]
        writer.send_signal(signal.SIGKILL)
        reported += [int(line) for line in writer.stdout.read().split("\n")[:-1]]
    rows = SqliteStore(tmp_path).load()["gateway"]
    seen = {row["last_seen_us"] for row in rows.values()}
    assert len(rows) == 3
    assert len(seen) == 1
    (last,) = seen
    assert isinstance(last, int)
    assert last >= reported[-1]


def test_a_directory_of_before_fragments_is_brought_up_to_date(tmp_path: Path) -> None:
    """Schema 1 opens as the newest: its rows are still there, and a slice can be kept."""
    script = resources.files("gateway.store") / "migrations" / "0001_initial.sql"
    with closing(sqlite3.connect(tmp_path / "swarm.db")) as db:
        db.executescript(script.read_text("utf-8") + "\nPRAGMA user_version = 1;")
        db.execute("INSERT INTO gateway VALUES ('aa', 5)")
        db.commit()
    store = SqliteStore(tmp_path)
    row: Row = {"round": 3, "dev_eui": EUI, "index": 1, "count": 14, "slice": b"\x00\x01"}
    store.commit([Store("fragment", f"3/{EUI}/1", row)])
    store.close()
    rows = SqliteStore(tmp_path).load()
    assert rows["gateway"] == {"aa": {"gateway_id": "aa", "last_seen_us": 5, "proved_us": None}}
    assert rows["fragment"] == {f"3/{EUI}/1": {"key": f"3/{EUI}/1", **row}}


def test_what_is_erased_is_in_no_file_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: no byte of a deleted row is left.  Method: look for it; also after a reader held the log back."""
    monkeypatch.setattr("gateway.store.sqlite.BUSY_TIMEOUT_MS", 10)
    store, secret = SqliteStore(tmp_path), bytes(range(100, 200))
    fragment: Row = {"round": 1, "dev_eui": EUI, "index": 0, "count": 2, "slice": secret}

    def on_disk() -> bool:
        return any(secret in path.read_bytes() for path in tmp_path.glob("swarm.db*"))

    store.commit([Store("round", "1", {"state": "open"})])
    for held in (False, True):
        store.commit([Store("fragment", f"1/{EUI}/0", fragment)])
        reader = sqlite3.connect(tmp_path / "swarm.db")
        if held:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM fragment").fetchall()
        store.commit([Store("fragment", f"1/{EUI}/0", None)])
        assert on_disk()  # in the log, where crashes are recovered from
        store.commit([Store("round", "1", {"state": "repair"}, erase=True)])
        assert on_disk() is held
        reader.close()
        store.commit([Store("gateway", "aa", {"last_seen_us": 5})])
        assert not on_disk()
    store.close()
