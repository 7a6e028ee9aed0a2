"""The command line: fast to start, one line for each mistake, and a whole life of a daemon in a process."""

from __future__ import annotations

import base64
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
from typer.main import get_command

from gateway.cli import app, run
from gateway.commands.node_files import read_nodes
from gateway.commands.output import ago
from swarm.config import Asking
from swarm.security.lorawan import AesKey, cipher_payload, data_mic
from swarm.wire.lorawan import encode_data

ROOT = Path(__file__).parents[2]
GATEWAY = bytes.fromhex("aa555a0000000000")
NODE = {
    "dev_eui": "70b3d57ed0000001",
    "name": "north-1",
    "crop": "grape",
    "activation": "abp",
    "plot": "grape-003",
    "lat": 47.1,
    "lon": 7.2,
    "dev_addr": "00010001",
    "nwk_s_key": "01" * 16,
    "app_s_key": "02" * 16,
}


ADD = "nodes add 70b3d57ed0000001 --name a --crop grape"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.startswith("SWARM_")]:
        monkeypatch.delenv(variable)


def swarm(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, list[str]]:
    """Exit code, standard output, lines of standard error."""
    code = run(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err.splitlines()


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a command that could not do what was asked."""
    code, _, lines = swarm(capsys, *arguments)
    assert code == 2
    assert len(lines) == 1
    return lines[0]


# -- alone -------------------------------------------------------------------------------------------


def test_start_up_imports_nothing_heavy() -> None:
    script = "import sys, gateway.cli; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    heavy = {"flwr", "numpy", "fastapi", "uvicorn", "httpx", "pydantic", "cryptography", "simulations"}
    assert heavy.isdisjoint(modules.stdout.split())


@pytest.mark.parametrize(
    "command",
    [
        "", "gateway", "gateway run", "gateway init", "gateway check", "sim", "sim run", "sim live",
        "sim list", "nodes", "nodes list", "nodes import", "rounds list", "rounds advise", "ask",
        "airtime", "events", "pilot plan", "pilot provision", "model inspect",
    ],
)  # fmt: skip
def test_help_has_an_example(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, _ = swarm(capsys, *command.split(), "--help")
    assert code == 0
    assert command in ("", "gateway", "sim", "nodes") or f"Example: swarm {command}" in " ".join(out.split())


def test_airtime_of_a_frame(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = swarm(
        capsys, "airtime", "--sf", "12", "--bandwidth", "125000", "--payload", "64", "--json"
    )
    assert code == 0
    assert json.loads(out)["airtime_us"] == 2_793_472
    assert json.loads(out)["frames_per_hour"] == {"0.1%": 1, "1%": 12, "10%": 128}
    assert "46.336 ms" in swarm(capsys, "airtime", "--sf", "7", "--payload", "13")[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("airtime --sf 99", "spreading_factor 99"),
        ("airtime --sf seven", "see `swarm airtime --help`"),
        ("nonsense", "No such command 'nonsense'"),
        ("gateway check", "swarm.toml: there is no such file; `swarm gateway init` writes one"),
        ("gateway check -c /proc/1/mem", "/proc/1/mem"),
        ("gateway run", "there is no such file"),
        ("gateway init -c nowhere/swarm.toml", "nowhere/swarm.toml: No such file or directory"),
        ("nodes list", "swarm.toml: there is no such file here; give the daemon's with -c"),
        ("nodes list -c empty.toml", "there is no token; start the daemon"),
        ("nodes list -c other.toml", "other.toml: there is no such file"),
        ("nodes add 123 --name a --crop grape", "123: is no DevEUI"),
        ("nodes add 70b3d57ed0000001 --name a --crop hops", "crop has to be apple, tomato, potato or grape"),
        (ADD, "give the keys with --keys-file FILE, or - for standard input: lines app_key = ..."),
        (
            f"{ADD} --dev-addr 00010001",
            "give the keys with --keys-file FILE, or - for standard input: lines nwk_s_key = ..., app_s_key",
        ),
        ("nodes import missing.csv", "missing.csv: there is no such file; check the path"),
        (
            "nodes import .",
            "multicast.csv: there is no such file; `swarm pilot provision NODES.csv DIR` makes",
        ),
        ("nodes import empty.toml", "empty.toml: is empty; start it with a header, the columns are dev_eui"),
        (
            "nodes import pilot.csv",
            "pilot.csv:1: is a pilot's table, whose nodes have no keys yet; provision it",
        ),
        ("nodes import node.json", "node.json: 'node' is no key of such a file; did you mean nodes?"),
        ("nodes import group.json", "group.json: nodes: is missing"),
        ("nodes import colours.csv", "'nmae': unknown column; did you mean name?"),
        ("ask", "say what to ask about"),
        ("ask here --near there", "'here' and --near: name one place"),
        ("ask here --features 1,2 --crop grape", "a place and --features: not both"),
        ("experts plac", "No such command 'plac'. Did you mean 'place'?; see `swarm experts --help`"),
        ("ask --nea x", "No such option '--nea'. Did you mean '--near'?; see `swarm ask --help`"),
        ("ask here --deadline soon", "'soon' is no duration; write 60s, 5min, 8h or 1d"),
        ("ask here --deadline 2d", "'2d' is not between 1s and 1d"),
        ("ask here --deadline 0s", "'0s' is not between 1s and 1d"),
        ("ask --features 1,2,300 --crop grape", "1 to 256"),
        ("ask west --k 0", "--k: 0 is not between 1 and 50"),
        ("ask west --crop aple", "--crop: 'aple' is not known; did you mean apple?"),
        ("ask --near x\x07", "is no name of a plot or node"),
        ("events --kind upink", "--kind: 'upink' is no kind of event; did you mean uplink?"),
        ("events --follow --kind x", "--kind: 'x' is no kind of event; the kinds are adr, answer, answer"),
        ("sim run no_such_scenario", "no_such_scenario"),
        ("sim live smoke --gateway nowhere", "'nowhere' is no address"),
        ("sim run smoke --nodes 0", "nodes"),
        ("pilot plan missing.csv gateways.csv", "missing.csv"),
        ("pilot plan a.csv b.csv --rounds-per-day inf", "'--rounds-per-day': inf is not in the range"),
        ("pilot plan a.csv b.csv --rounds-per-day nan", "'--rounds-per-day': nan is no finite number"),
        ("pilot plan a.csv b.csv --rounds-per-day 1e308", "'--rounds-per-day': 1e+308 is not in the range"),
        ("pilot plan a.csv b.csv --margin-db nan", "'--margin-db': nan is no finite number"),
        ("sim live smoke --speed nan", "'--speed': nan is no finite number"),
        ("sim live smoke --speed inf", "'--speed': inf is not in the range"),
        ("demo --http-port 70000", "'--http-port': 70000 is not in the range"),
        (f"{ADD} --lat nan", "'--lat': nan is no finite number"),
        (f"{ADD} --lon 181", "'--lon': 181.0 is not in the range"),
        ("model inspect missing.swm", "missing.swm: No such file"),
    ],
)
def test_each_mistake_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: str, says: str
) -> None:
    Path("empty.toml").touch()
    Path("pilot.csv").write_text("id;lat;lon;height_m;crop\na1;47,1;8,0;2,5;apple\n")
    Path("node.json").write_text('{"node": []}')
    Path("group.json").write_text('{"multicast": null}')
    Path("colours.csv").write_text("dev_eui,nmae\n")
    code, _, lines = swarm(capsys, *arguments.split())
    assert code == 2
    assert lines
    assert all(line.startswith("swarm: ") for line in lines)
    assert says in lines[0]
    assert "Traceback" not in "".join(lines)


def options_of(command: click.Command, name: str = "") -> Iterator[tuple[str, click.Option]]:
    """Every option of every command below this one."""
    for option in command.params:
        if isinstance(option, click.Option):
            yield f"{name} {option.name}", option
    for word, below in getattr(command, "commands", {}).items():
        yield from options_of(below, f"{name} {word}")


def test_help_shows_what_stands_in_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    """Rich takes a section of swarm.toml for a style, and leaves it out, unless its bracket is escaped."""
    texts = {name: option.help or "" for name, option in options_of(get_command(app))}
    assert [name for name, text in texts.items() if re.search(r"(?<!\\)\[[a-z]", text)] == []
    out = " ".join(swarm(capsys, "ask", "--help")[1].replace("│", " ").split())
    assert "default: [asking] k, else 5." in out and "default: [asking] deadline_s, else 1h." in out
    assert (Asking().k, Asking().deadline_s) == (5, 3600)


def test_no_option_takes_a_number_that_is_none() -> None:
    """nan passes every comparison, so each option with a point needs the callback, and a range."""
    found = {name: option for name, option in options_of(get_command(app)) if "float" in option.type.name}
    assert len(found) >= 5
    for name, option in found.items():
        assert getattr(option.type, "max", None) is not None, name
        with pytest.raises(click.BadParameter):
            option.process_value(click.Context(click.Command("x")), "nan")


INTERRUPTED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell's background job starts ignores it
class CtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == "gateway.config":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, CtrlC())
from gateway.cli import main
main(["gateway", "check"])
"""


def test_ctrl_c_while_the_program_is_still_loading_is_no_traceback() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (130, "")


def test_init_never_overwrites_and_check_names_every_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert swarm(capsys, "gateway", "init")[0] == 0
    assert swarm(capsys, "gateway", "check")[:2] == (0, "swarm.toml: no mistakes\n")
    path = Path("swarm.toml")
    path.write_text(path.read_text().replace("port = 1700", "port = -1").replace("k = 5", "k = 0"))
    before = path.read_bytes()
    assert "is there already" in refused(capsys, "gateway", "init")
    assert path.read_bytes() == before
    code, _, lines = swarm(capsys, "gateway", "check")
    assert code == 2
    assert [re.sub(r":\d+:", ":", line).split(": ")[1:3] for line in lines] == [
        ["swarm.toml", "udp.port"],
        ["swarm.toml", "asking.k"],
    ]


def test_check_knows_flowers_strategies(capsys: pytest.CaptureFixture[str]) -> None:
    Path("swarm.toml").write_text('[learning]\nmode = "top_k_sign"\nstrategy = "FedMagic"\n')
    assert "FedAdam" in refused(capsys, "gateway", "check")
    Path("swarm.toml").write_text('[learning]\nmode = "top_k_sign"\n[learning.options]\nettta = 1.0\n')
    assert "ettta" in refused(capsys, "gateway", "check")
    Path("swarm.toml").write_text('[learning]\nmode = "top_k_sign"\nstrategy = "FedAvg"\n')
    assert swarm(capsys, "gateway", "check")[0] == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("ridge = 0.0", "ridge = 0.0: must be"),
        ("gain_min = 2", "gain_min = 2: must be 0..1"),
        ("trim = true", "trim of strategy prototypes must be a finite number, not True"),
        ("eta = 0.1", "unknown option eta of strategy prototypes; it takes: count_cap"),
    ],
)
def test_the_options_of_prototypes_are_checked_too(
    capsys: pytest.CaptureFixture[str], options: str, says: str
) -> None:
    for command in ("check", "run"):
        for mode in ('mode = "prototypes"\n', ""):
            Path("swarm.toml").write_text(f"[learning]\n{mode}[learning.options]\n{options}\n")
            line = refused(capsys, "gateway", command)
            number = 4 if mode else 3
            key = options.partition(" ")[0]
            assert line.startswith(f"swarm: swarm.toml:{number}: learning.options.{key}: ")
            assert says in line
    assert not Path("swarm-data").exists()
    Path("swarm.toml").write_text("[learning.options]\nridge = 0.5\nnodes_min = 3\n")
    assert swarm(capsys, "gateway", "check")[0] == 0


def test_class_means_have_their_own_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Our strategy makes heads of class means; a mode that sends changes needs one of Flower's."""
    for mode in ("top_k_sign", "top_k_int4", "dense_int8"):
        Path("swarm.toml").write_text(f'[learning]\nmode = "{mode}"\nstrategy = "prototypes"\n')
        line = refused(capsys, "gateway", "run")
        assert "learning.strategy: prototypes makes heads of class means" in line and mode in line


def test_a_strategy_that_waits_for_its_mode_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    """In the other modes no round uses it, but a misspelt name is a mistake all the same."""
    for mode in ("none", "prototypes"):
        Path("swarm.toml").write_text(f'[learning]\nmode = "{mode}"\nstrategy = "FedMagic"\n')
        line = refused(capsys, "gateway", "run")
        assert line.startswith("swarm: swarm.toml:3: learning.strategy: unknown strategy FedMagic; usable: ")
    Path("swarm.toml").write_text('[learning]\nmode = "none"\n')
    assert swarm(capsys, "gateway", "check")[0] == 0


def test_mistakes_of_strategy_and_options_come_with_all_others(capsys: pytest.CaptureFixture[str]) -> None:
    Path("swarm.toml").write_text(
        '[udp]\nport = -1\n[learning]\nmode = "top_k_sign"\n[learning.options]\netta = 0.1\ntau = "x"\n'
    )
    code, _, lines = swarm(capsys, "gateway", "check")
    assert code == 2
    assert [line.split(": ")[1:4] for line in lines] == [
        ["swarm.toml:2", "udp.port", "-1 is too small; give a whole number from 0 (any free port) to 65535"],
        ["swarm.toml:6", "learning.options.etta", "unknown option etta of strategy FedAdam; it takes"],
        ["swarm.toml:7", "learning.options.tau",
         "option tau of strategy FedAdam must be a finite number, not 'x'; correct it"],
    ]  # fmt: skip


def test_every_line_of_the_example_may_be_uncommented(capsys: pytest.CaptureFixture[str]) -> None:
    assert swarm(capsys, "gateway", "init")[0] == 0
    path = Path("swarm.toml")
    text, count = re.subn(r"^# (\w+ = )", r"\1", path.read_text(), flags=re.MULTILINE)
    assert count == 8
    path.write_text(text)
    assert swarm(capsys, "gateway", "check")[:2] == (0, "swarm.toml: no mistakes\n")


def test_a_start_that_fails_leaves_nothing_behind(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = f'[udp]\nhost = "127.0.0.1"\nport = 0\n[http]\nport = {port}\n[learning]\nmode = "none"\n'
        Path("swarm.toml").write_text(text)
        assert f"HTTP 127.0.0.1:{port}: Address already in use" in refused(capsys, "gateway", "run")
        assert not Path("swarm-data").exists()
        Path("swarm-data").mkdir()
        Path("swarm-data/notes").write_text("mine")
        assert "Address already in use" in refused(capsys, "gateway", "run")
        assert Path("swarm-data/token").exists(), "a directory that was there keeps what it has"


def test_the_demo_takes_the_port_it_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for once in ((), ("--once",)):
            line = refused(capsys, "demo", "--nodes", "1", "--http-port", port, *once)
            assert (
                line == f"swarm: port {port} is taken; give another with --http-port, or 0 for any free one"
            )


def test_a_broken_data_directory_ends_the_daemon_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("swarm.toml").write_text("")
    Path("swarm-data").mkdir()
    Path("swarm-data/swarm.db").write_bytes(b"this is no database" * 100)
    assert "swarm.db: the database is damaged" in refused(capsys, "gateway", "run")
    Path("swarm.toml").write_text('[gateway]\ndata_dir = "swarm.toml/below"\n')
    for command in ("run", "check"):
        line = refused(capsys, "gateway", command)
        assert line.startswith(
            "swarm: swarm.toml:2: gateway.data_dir: swarm.toml is a file, not a directory; "
        )
        assert line.endswith("choose a data_dir this user may write to")


def test_the_shipped_model_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = swarm(capsys, "model", "inspect", "--json")
    assert code == 0
    assert json.loads(out)["contexts"] == [0, 1]
    Path("bad.swm").write_bytes(b"SWM!" * 20)
    assert "bad.swm: is no sound container" in refused(capsys, "model", "inspect", "bad.swm")


def test_scenarios_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    names = [one["name"] for one in json.loads(swarm(capsys, "sim", "list", "--json")[1])]
    assert "smoke" in names
    assert all(name in swarm(capsys, "sim", "list")[1] for name in names)


def test_export_says_what_the_daemon_needs(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = swarm(capsys, "sim", "export", "live_1000", "nodes.json", "--nodes", "3")
    assert (code, out.splitlines()[1]) == (
        0,
        "these nodes listen for models at DR5 on 869.525 MHz; swarm.toml needs [multicast] data_rate = 5",
    )
    assert str(read_nodes(Path("nodes.json")).channel) == "DR5 on 869.525 MHz"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s ago"), (119, "119 s ago"), (120, "2 min ago"), (7200, "2 h ago"), (10**6, "11 d ago")],
)
def test_ago(seconds: int, text: str) -> None:
    assert ago(5_000_000, 5_000_000 + seconds * 1_000_000) == text


# -- with a daemon -----------------------------------------------------------------------------------


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    """A daemon in a process of its own, and a packet forwarder's socket to it."""

    def __init__(self, process: subprocess.Popen[str], udp_port: int) -> None:
        self.process = process
        self.radio = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.radio.connect(("127.0.0.1", udp_port))
        self.radio.settimeout(20)

    def uplink(self, f_cnt: int) -> None:
        """Send one frame of the node and wait until the daemon has it."""
        addr = 0x10001
        cipher = cipher_payload(AesKey(b"\x02" * 16), b"hello", uplink=True, dev_addr=addr, f_cnt=f_cnt)
        frame = encode_data(uplink=True, dev_addr=addr, f_cnt=f_cnt, f_port=99, frm_payload=cipher)
        phy = frame + data_mic(AesKey(b"\x01" * 16), frame, uplink=True, dev_addr=addr, f_cnt=f_cnt)
        packet = {
            "tmst": 1_000_000 * f_cnt,
            "freq": 868.1,
            "stat": 1,
            "datr": "SF7BW125",
            "rssi": -80,
            "lsnr": 5.5,
            "data": base64.b64encode(phy).decode(),
        }
        self.radio.send(b"\x02\x00\x01\x00" + GATEWAY + json.dumps({"rxpk": [packet]}).encode())
        assert self.radio.recv(100) == b"\x02\x00\x01\x01"

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        self.process.communicate(timeout=30)
        return self.process.returncode


@contextmanager
def daemon(udp_port: int, http_port: int, *options: str) -> Iterator[Running]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    Path("swarm.toml").write_text(
        f'[udp]\nhost = "127.0.0.1"\nport = {udp_port}\n'
        f'[http]\nport = {http_port}\n[learning]\nmode = "none"\n'
    )
    command = [sys.executable, "-m", "gateway.cli", "gateway", "run", *options]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            lines: list[str] = []
            while not lines or "Ctrl-C stops" not in lines[-1]:
                lines.append(process.stdout.readline())
                assert lines[-1], "".join(lines)
            running = Running(process, udp_port)
            yield running
            running.radio.close()
        finally:
            process.kill()


def _private(name: str, text: str) -> None:
    """A file with keys, as a careful person writes it."""
    Path(name).touch(0o600)
    Path(name).write_text(text)


def _bad_rows_and_names(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a table with bad rows the good ones are taken; then one can be shown by its name."""
    key, index = "0a" * 16, 65_534
    rows = [
        f"70b3d57ed0000002,east-1,grape,otaa,{key},3",
        f"70b3d57ed0000003,east-2,hops,otaa,{key}zz,",
        f"70b3d57ed0000004,east-3,grape,otaa,{key},{index}",
        "70b3d57ed0000005,east-4",
    ]
    _private("nodes.csv", "dev_eui,name,crop,activation,app_key,node_index\n" + "\n".join(rows) + "\n")
    code, out, lines = swarm(capsys, "nodes", "import", "nodes.csv")
    assert (code, out) == (2, "nodes.csv: 1 node added, 3 refused\n")
    assert sorted(lines) == [
        "swarm: nodes.csv:3: 70b3d57ed0000003 east-2: crop has to be apple, tomato, potato or grape,"
        " app_key has to be 32 hexadecimal digits",
        f"swarm: nodes.csv:4: 70b3d57ed0000004: node_index {index} belongs to 70b3d57ed0000001;"
        " give another or none",
        "swarm: nodes.csv:5: has another number of columns than the header; put texts with commas in quotes",
    ]
    code, out, _ = swarm(capsys, "nodes", "show", "East-1", "--json")
    assert (json.loads(out)["dev_eui"], json.loads(out)["node_index"]) == ("70b3d57ed0000002", 3)
    header = swarm(capsys, "nodes", "list")[1].splitlines()[0]
    assert header.split()[4] == "joined"
    assert swarm(capsys, "nodes", "remove", "-y", "east-1")[0] == 0


def _questions_without_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    place = ("ask", "grape-003", "--crop", "apple")
    assert refused(capsys, *place) == "swarm: no answer: no node there was ever heard"
    code, out, lines = swarm(capsys, *place, "--json")
    assert (code, json.loads(out)["reason"], lines) == (2, "no_node", [])


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = swarm(capsys, "--version")
    assert (code, out.startswith("swarm")) == (0, True)


def test_any_free_port_is_found_through_the_data_directory(capsys: pytest.CaptureFixture[str]) -> None:
    """With port 0 the daemon leaves its URL beside its token, and takes it away when it ends."""
    url = Path("swarm-data/url")
    with daemon(free_port(socket.SOCK_DGRAM), 0) as running:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+\n", url.read_text())
        assert url.stat().st_mode & 0o777 == 0o600
        assert swarm(capsys, "nodes", "list", "--json") == (0, "[]\n", [])
        assert "no rounds yet; no gateway was heard yet; point" in swarm(capsys, "rounds", "list")[1]
        assert running.end(signal.SIGTERM) == 0
    assert not url.exists()
    assert refused(capsys, "nodes", "list") == (
        f"swarm: {Path('swarm-data')}: no daemon runs there; start it with `swarm gateway run`"
    )


def test_the_life_of_a_daemon(capsys: pytest.CaptureFixture[str]) -> None:
    """Import, uplinks, kill -9, restart: nothing accepted twice, nothing forgotten, and a clean end."""
    ports = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_STREAM)

    def told(*arguments: str) -> Any:
        code, out, lines = swarm(capsys, *arguments, "--json")
        assert (code, lines) == (0, [])
        return json.loads(out)

    def uplinks(expected: int) -> Any:
        """Counted uplinks, once there are as many as expected (copies are waited for a fifth of a second)."""
        give_up_s = time.monotonic() + 20
        while (count := told("nodes", "show", NODE["dev_eui"])["uplinks"]) < expected:
            assert time.monotonic() < give_up_s
        return count

    _private("nodes.json", json.dumps({"nodes": [NODE]}))
    with daemon(*ports) as first:
        assert told("nodes", "list") == []
        assert swarm(capsys, "events") == (0, "no events yet\n", [])
        imported = {"added": 1, "changed": 0, "unchanged": 0, "refused": [], "multicast": None}
        assert told("nodes", "import", "nodes.json") == imported
        with subprocess.Popen(
            [sys.executable, "-m", "gateway.cli", "events", "--follow", "--kind", "uplink", "--json"],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A shell's background jobs, and what they start, ignore Ctrl-C; this one has to hear it.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        ) as watcher:
            assert watcher.stdout is not None
            for f_cnt in range(100, 200):  # until the watcher is connected its events are nobody's
                first.uplink(f_cnt)
                uplinks(f_cnt - 99)
                if select.select([watcher.stdout], [], [], 0.1)[0]:
                    break
            followed = json.loads(watcher.stdout.readline())
            watcher.send_signal(signal.SIGINT)
            assert watcher.communicate(timeout=20)[0].count("Traceback") == 0
            assert watcher.returncode == 130
        assert followed["data"]["dev_eui"] == NODE["dev_eui"]
        _, out, _ = swarm(capsys, "events", "--kind", "uplink", "--count", "1", "--json")
        assert json.loads(out)["data"]["f_cnt"] == f_cnt
        assert "node_added" in swarm(capsys, "events", "--count", "1000")[1]
        (listed,) = told("nodes", "list")
        assert (listed["name"], listed["snr_db"], listed["lost"]) == ("north-1", 5.5, 0)
        assert "key" not in "".join(listed)
        assert told("rounds", "list") == []
        assert "no rounds yet; `swarm rounds open` opens one\n" in swarm(capsys, "rounds", "list")[1]
        assert told("airtime")[0]["gateway_id"] == GATEWAY.hex()
        assert "is in use by process" in refused(capsys, "gateway", "run")
        before, last = f_cnt - 99, f_cnt
        assert uplinks(before) == before
        assert first.end(signal.SIGKILL) == -signal.SIGKILL
    with daemon(*ports) as second:
        again = "nodes.json: 1 node known already, nothing changed\n"
        assert swarm(capsys, "nodes", "import", "nodes.json") == (0, again, [])
        for f_cnt in (last - 1, last, last + 1):
            second.uplink(f_cnt)
        assert uplinks(before + 1) == before + 1, "frames from before the crash count no second time"
        assert told("nodes", "show", NODE["dev_eui"])["lost"] == 0
        _bad_rows_and_names(capsys)
        _questions_without_an_answer(capsys)
        assert swarm(capsys, "events", "--kind", "joined") == (0, "no joined events yet\n", [])
        assert "no node has the name nowhere" in refused(capsys, "nodes", "remove", "nowhere")
        assert swarm(capsys, "nodes", "remove", "-y", NODE["name"])[0] == 0
        assert "no node has the DevEUI" in refused(capsys, "nodes", "show", NODE["dev_eui"])
        assert second.end(signal.SIGTERM) == 0
