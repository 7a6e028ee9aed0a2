"""examples/foreign_device: the documented device joins a real daemon, is acknowledged, and gets its frame."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli import run
from tests.web.served import Served

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "foreign_device" / "device.py"
EUI = "70b3d57ed0001234"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.chdir(tmp_path)
    keys = Path("device.keys")
    keys.write_text("app_key = 2b7e151628aed2a6abf7158809cf4f3c\n")
    keys.chmod(0o600)
    with Served(tmp_path) as made:
        monkeypatch.setenv("SWARM_URL", made.url)
        monkeypatch.setenv("SWARM_TOKEN", made.daemon.token)
        yield made


def device(served: Served, *options: str) -> subprocess.Popen[str]:
    assert served.daemon.udp_address is not None
    host, port = served.daemon.udp_address[:2]
    command = [sys.executable, str(SCRIPT), "device.keys", "--dev-eui", EUI, "--gateway", f"{host}:{port}"]
    pipe = subprocess.PIPE
    return subprocess.Popen([*command, *options], stdout=pipe, stderr=pipe, text=True)


def test_the_documented_device_joins_and_is_spoken_to(served: Served) -> None:
    add = ("nodes", "add", EUI, "--name", "bench-1", "--crop", "grape", "--keys-file", "device.keys")
    assert run(add) == 0
    options = ("--uplinks", "3", "--confirmed-every", "1", "--every-s", "0", "--data-rate", "5")
    with device(served, *options) as process:
        assert process.stdout is not None
        joined = process.stdout.readline()
        assert run(("nodes", "send", "bench-1", "0a0b", "--port", "10", "--confirmed")) == 0
        *answers, last = process.communicate(timeout=60)[0].splitlines()
    assert process.returncode == 0
    where = r"device: RX1, {} s after the uplink, 86[78]\.\d MHz SF7BW125 -> "
    assert re.fullmatch(where.format(5) + "joined as 0000fffe\n", joined)
    assert len(answers) == 3 and all(re.match(where.format(1), answer) for answer in answers)
    assert all("ack=True" in answer for answer in answers)
    (frame,) = (answer for answer in answers if "FPort 10 0a0b ack=True confirmed=True" in answer)
    assert frame != answers[-1], "so that the device could acknowledge it"
    assert last == "device: DR5, power index 0, f_cnt_up 3"
    assert Path("device.keys.nonce").read_text() == "1"
    events = served.http.get("/api/events/past?kind=operator_frame").json()["events"]
    assert events[-1]["data"]["state"] == "acknowledged"


def mistake(process: subprocess.Popen[str]) -> str:
    """The last line of what it said, which is all of it but argparse's usage."""
    with process:
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and out == "" and "Traceback" not in errors
    return errors.splitlines()[-1]


def test_its_mistakes_are_one_line(served: Served) -> None:
    for option, words in (
        (("--gateway", "localhost"), "'localhost': write HOST:PORT, as 127.0.0.1:1700"),
        (("--gateway", "localhost:99999"), "'localhost:99999': write HOST:PORT, as 127.0.0.1:1700"),
        (("--dev-eui", "70b3"), "'70b3': write 16 hexadecimal digits"),
    ):
        assert mistake(device(served, *option)).endswith(words)
    Path("device.keys.nonce").write_text("")
    words = "device: device.keys.nonce: holds no DevNonce; write one into it that was not used yet"
    assert mistake(device(served)) == words
    Path("device.keys").write_text("key = 1\n")
    assert mistake(device(served)).startswith("device: device.keys: there is no app_key; write a line")
