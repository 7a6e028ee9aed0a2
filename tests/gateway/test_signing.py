"""The signing key of a pilot: made once, in two files of their owner, in every header as its public half."""

from __future__ import annotations

import json
import logging
import re
import socket
import stat
from pathlib import Path

import pytest

from gateway.cli import run
from gateway.config import GatewayConfig
from gateway.daemon import Daemon
from gateway.data_dir import DataDirError
from gateway.pilot import CsvErrors, provision
from gateway.signing_file import SIGNING_FILE, install, read_signing_key
from swarm.security.signatures import SigningKey
from tests.gateway.test_cli import daemon, free_port

NODES = "id,lat,lon,height_m,crop\na1,47.0,8.0,2,apple\ng1,47.0,8.1,2,grape\n"
SEED = bytes(range(32))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("NODES.csv").write_text(NODES)


def signer_of(header: str) -> bytes | None:
    """The public key that one node's firmware is compiled with."""
    found = re.search(r"#define SWN_SIGNER \{(.*)\}", Path("keys/headers", header).read_text())
    return None if found is None else bytes(int(byte, 16) for byte in found[1].split(","))


def made_before_models_were_signed() -> None:
    """What a directory of an older version holds."""
    provision("NODES.csv", "keys")
    Path("keys", SIGNING_FILE).unlink()
    for header in Path("keys/headers").iterdir():
        header.write_text(re.sub(r"\n/\* Whose blocks.*\n.*SWN_SIGNER.*\n", "", header.read_text()))


def test_a_new_directory_has_a_key_and_keeps_it() -> None:
    report = provision("NODES.csv", "keys")
    path = Path("keys", SIGNING_FILE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    key = SigningKey(bytes.fromhex(text))
    assert signer_of("a1.h") == signer_of("g1.h") == key.public_key
    everything = [each.read_text() for each in Path("keys").rglob("*") if each.is_file() and each != path]
    assert not any(text.strip() in each for each in [*everything, report.text(), repr(report)])
    assert provision("NODES.csv", "keys").written == ()
    Path("NODES.csv").write_text(NODES + "p1,47.1,8.1,2,potato\n")
    assert SIGNING_FILE not in provision("NODES.csv", "keys", sign=True).written
    assert (path.read_text(), signer_of("p1.h")) == (text, key.public_key)


def test_an_older_directory_stays_as_its_nodes_are_until_it_is_told() -> None:
    made_before_models_were_signed()
    kept = provision("NODES.csv", "keys")
    assert kept.written == () and signer_of("a1.h") is None
    assert len(kept.notes) == 1 and "--sign makes a signing key: flash every node again" in kept.notes[0]
    dry = provision("NODES.csv", "keys", sign=True, dry_run=True)
    assert set(dry.written) == {SIGNING_FILE, "headers/a1.h", "headers/g1.h"}
    assert not Path("keys", SIGNING_FILE).exists()
    signed = provision("NODES.csv", "keys", sign=True)
    assert signed.written == dry.written
    assert "nodes take none until they are flashed again" in signed.notes[0]
    assert signer_of("a1.h") is not None
    assert provision("NODES.csv", "keys").notes == ()


def test_a_lost_or_damaged_key_is_not_replaced() -> None:
    """Goal: no key that flashed nodes do not know.  Nothing of a damaged one is shown."""
    provision("NODES.csv", "keys")
    path = Path("keys", SIGNING_FILE)
    text = path.read_text()
    path.write_text(text[:-3])
    with pytest.raises(CsvErrors, match=r"signing\.key: is not 64 hex digits; restore") as damaged:
        provision("NODES.csv", "keys")
    assert text[:20] not in str(damaged.value)
    path.unlink()
    for sign in (False, True):
        with pytest.raises(CsvErrors, match=r"signing\.key: is not there, and nodes were built"):
            provision("NODES.csv", "keys", sign=sign)
    path.write_text(text)
    assert provision("NODES.csv", "keys").written == (SIGNING_FILE,), "closed to others again"


def config(data_dir: Path) -> GatewayConfig:
    return GatewayConfig.model_validate({"gateway": {"data_dir": str(data_dir)}, "http": {"enabled": False}})


def test_the_daemon_signs_with_the_file_of_its_directory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    first = Daemon(config(data))
    assert first.core.signer.key is None
    first.close()
    install(data, SEED)
    path = data / SIGNING_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with caplog.at_level(logging.DEBUG):
        second = Daemon(config(data))
    assert second.core.signer.public_key == SigningKey(SEED).public_key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "others could read it" in caplog.text and SEED.hex() not in caplog.text
    second.close()
    path.write_text("no key\n")
    with pytest.raises(DataDirError, match="is not 64 hex digits"):
        Daemon(config(data))
    with pytest.raises(DataDirError, match="run this as the user that the daemon runs as"):
        install(tmp_path / "nowhere", SEED)
    assert read_signing_key(tmp_path / "nowhere") is None


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["nodes", "import", *arguments]) == 2
    return capsys.readouterr().err


def test_an_import_brings_the_key(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: provision, import, done; another key only when told.  The key is in one file, nowhere else."""
    provision("NODES.csv", "keys")
    seed = Path("keys", SIGNING_FILE).read_text().strip()
    with daemon(free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_STREAM)):
        monkeypatch.setenv("SWARM_URL", "http://127.0.0.1:" + port_of_settings())
        assert "copy signing.key into the daemon's data directory" in refused(capsys, "keys")
        monkeypatch.delenv("SWARM_URL")
        assert run(["nodes", "import", "keys"]) == 0
        told = capsys.readouterr()
        assert told.out == "keys: 2 nodes added, the multicast group set, models are signed from now on\n"
        assert run(["nodes", "import", "keys"]) == 0
        assert capsys.readouterr().out == "keys: 2 nodes known already, nothing changed\n"
        monkeypatch.setenv("SWARM_URL", "http://127.0.0.1:" + port_of_settings())
        assert run(["nodes", "import", "keys"]) == 0, "a daemon that has the key needs no file"
        monkeypatch.delenv("SWARM_URL")
        Path("other.json").write_text(json.dumps({"nodes": [], "signing_key": SEED.hex()}))
        assert "signs models with another key" in refused(capsys, "other.json")
        Path("group.json").write_text(json.dumps({"nodes": [], "multicast": group_of_keys()}))
        assert run(["nodes", "import", "group.json"]) == 0
        assert "this daemon signs its models: they take none" in capsys.readouterr().err
        assert Path("swarm-data", SIGNING_FILE).read_text().strip() == seed
        assert run(["nodes", "import", "other.json", "--replace-signing-key"]) == 0
        capsys.readouterr()
        assert run(["status", "--json"]) in (0, 2)
        said = capsys.readouterr().out
        assert SEED.hex() not in said and seed not in said
    assert Path("swarm-data", SIGNING_FILE).read_text().strip() == SEED.hex()
    for path in Path("swarm-data").iterdir():
        if path.name != SIGNING_FILE:
            assert seed not in path.read_bytes().decode("latin-1"), path
            assert bytes.fromhex(seed) not in path.read_bytes(), path


def test_the_check_reads_the_key_too(capsys: pytest.CaptureFixture[str]) -> None:
    Path("swarm.toml").write_text("")
    Path("swarm-data").mkdir()
    assert run(["gateway", "check"]) == 0
    assert capsys.readouterr().out == "swarm.toml: no mistakes\n"
    install(Path("swarm-data"), SEED)
    assert run(["gateway", "check"]) == 0
    said = capsys.readouterr().out
    assert SigningKey(SEED).public_key.hex() in said and SEED.hex() not in said
    assert run(["gateway", "check", "--json"]) == 0
    assert SEED.hex() not in capsys.readouterr().out
    Path("swarm-data", SIGNING_FILE).write_text(SEED.hex()[:-1])
    assert run(["gateway", "check"]) == 2
    assert "is not 64 hex digits; restore this file" in capsys.readouterr().err


def port_of_settings() -> str:
    found = re.search(r"\[http\]\nport = (\d+)", Path("swarm.toml").read_text())
    assert found is not None
    return found[1]


def group_of_keys() -> dict[str, str]:
    header, row = (line.split(",") for line in Path("keys/multicast.csv").read_text().splitlines())
    return dict(zip(header[:3], row[:3], strict=True))


@pytest.mark.parametrize("digits", ["00" * 31, 7, "zz" * 32])
def test_a_file_with_a_wrong_key_is_refused(digits: object, capsys: pytest.CaptureFixture[str]) -> None:
    Path("nodes.json").write_text(json.dumps({"nodes": [], "signing_key": digits}))
    assert "nodes.json: signing_key: must be 64 hexadecimal digits" in refused(capsys, "nodes.json")
