"""The ports for real boards, as far as they can be compiled and run here: above stubs of RadioLib and Zephyr.

A stub declares what a port calls, as the stack's own headers do (the commit is named in it), and plays a
network that answers the third join, sends a SCHEDULE and then a ROUND in each window.  What runs is the real
sketch, the real sample, the real core.  Whether they compile against the real stacks is not said here: each
port's README does.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from gateway.pilot import provision
from tests.swarm.cell import MODEL

ROOT = Path(__file__).resolve().parents[2]
FIRMWARE = ROOT / "node_firmware"
PORT = FIRMWARE / "port"
STUBS = Path(__file__).parent / "stubs"
CHECKED = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-Werror")
NODES = """id,lat,lon,height_m,crop,dev_eui,join_eui,activation,report_min
otaa,47.0010,8.0000,2.0,potato,70B3D57ED0000001,70B3D57ED00000A2,otaa,60
abp,47.0020,8.0010,2.0,tomato,70B3D57ED0000002,,abp,60
"""

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is missing: apt-get install g++")


def run(*command: object) -> str:
    """Standard output of a command that has to succeed."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def core() -> Sequence[Path]:
    """Objects of the core, as the host's Makefile builds them."""
    run("make", "-s", "-C", FIRMWARE)
    objects = sorted((FIRMWARE / "build" / "host").glob("swn_*.o"))
    return [path for path in objects if not path.name.startswith("swn_host")]


@pytest.fixture(scope="module")
def sketches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each node with its identity.h and model.h, made by the commands that a user types."""
    folder = tmp_path_factory.mktemp("boards")
    (folder / "nodes.csv").write_text(NODES)
    provision(folder / "nodes.csv", folder / "keys", random_bytes=Random(6).randbytes)
    array = run(Path(sys.executable).with_name("swarm"), "model", "header")
    made = {}
    for name in ("otaa", "abp"):
        made[name] = folder / name
        made[name].mkdir()
        shutil.copy(folder / "keys" / "headers" / f"{name}.h", made[name] / "identity.h")
        (made[name] / "model.h").write_text(array)
    return made


def key_of(folder: Path, macro: str) -> list[str]:
    """The bytes of a macro in identity.h, as two hex digits."""
    line = re.search(rf"#define {macro} \{{(.*)\}}", (folder / "identity.h").read_text())
    assert line is not None, macro
    return re.findall(r"0x([0-9a-f]{2})", line[1])


def times(output: str, pattern: str) -> list[int]:
    """Seconds at which something happened."""
    return [int(found) for found in re.findall(rf"^{pattern} at (\d+) s$", output, re.MULTILINE)]


def test_the_model_travels_as_an_array(sketches: dict[str, Path]) -> None:
    numbers = re.findall(r"\b\d+(?=,)", (sketches["otaa"] / "model.h").read_text().partition("= {")[2])
    assert bytes(map(int, numbers)) == MODEL


def sketch(folder: Path, core: Sequence[Path]) -> Path:
    """The RadioLib example, compiled as C++ with the library's own sources."""
    library = PORT / "arduino"
    shutil.copy(library / "examples/RadioLibNode/RadioLibNode.ino", folder / "sketch.cpp")
    sources = (folder / "sketch.cpp", library / "src/SwarmRadioLib.cpp", STUBS / "arduino/sketch_bench.cpp")
    include = (f"-I{folder}", f"-I{library / 'src'}", f"-I{STUBS / 'arduino'}")
    run(
        "g++",
        "-std=gnu++17",
        "-Wall",
        "-Wextra",
        *CHECKED,
        *include,
        *sources,
        *core,
        "-o",
        folder / "sketch",
    )
    return folder / "sketch"


def test_the_radiolib_example_lives_six_hours(sketches: dict[str, Path], core: Sequence[Path]) -> None:
    """Goal: join with back-off, reports, class C windows with counters carried on, memory over a reset."""
    folder = sketches["otaa"]
    program = sketch(folder, core)
    (folder / "flash").mkdir()
    first = run(program, folder / "flash")
    app = key_of(folder, "SWN_APP_KEY")
    otaa = f"otaa 70b3d57ed00000a2 70b3d57ed0000001 nwk 0 app {app[0]}..{app[15]}"
    assert first.splitlines()[0] == otaa, "LoRaWAN 1.0.4: no NwkKey"
    joins = times(first, r"join request \d")
    assert len(joins) == 3
    assert joins[2] - joins[1] > joins[1] - joins[0] > 15
    reports = times(first, r"uplink \d+: port 12, 16 bytes, type 1")
    assert [later - earlier for earlier, later in pairwise(reports[1:])] == [1800] * 10
    opened, closed = times(first, "open class 2 .*"), times(first, "close 0")
    assert opened[0] == reports[0] + 3 + 3600 - 2, "announced an hour after the first report, less the guard"
    assert [end - begin for begin, end in zip(opened, closed, strict=True)] == [10] * len(opened), "at ROUND"
    assert len(opened) == 5
    app, nwk = key_of(folder, "SWN_MC_APP_S_KEY")[0], key_of(folder, "SWN_MC_NWK_S_KEY")[0]
    windows = re.findall(
        rf"open class 2 [0-9a-f]{{8}} app {app} nwk {nwk} from (\d+) at 869525000 Hz DR0", first
    )
    assert windows == ["0", "5", "10", "15", "20"], "one more than the last counter that was heard"
    again = run(program, folder / "flash")
    assert "join request" not in again, "the session was kept"
    assert re.findall(r"from (\d+) at", again)[0] == "25", "and the group's counter"


def test_the_radiolib_example_takes_abp(sketches: dict[str, Path], core: Sequence[Path]) -> None:
    folder = sketches["abp"]
    (folder / "flash").mkdir()
    told = run(sketch(folder, core), folder / "flash").splitlines()
    nwk, app = key_of(folder, "SWN_NWK_S_KEY"), key_of(folder, "SWN_APP_S_KEY")
    assert re.fullmatch(rf"abp [0-9a-f]{{8}} nwk {nwk[0]}..{nwk[15]} app {app[0]}..{app[15]}", told[0])
    assert sum(line.startswith("uplink") for line in told) >= 11


@pytest.mark.parametrize(("lost", "why"), [("nonces", "this; bytes: 8"), ("mc", "the group's counter: 5")])
def test_the_radiolib_example_stops_where_memory_fails(
    lost: str, why: str, sketches: dict[str, Path], core: Sequence[Path], tmp_path: Path
) -> None:
    """Goal: nothing is sent any more that a reset would forget."""
    (tmp_path / lost).mkdir()  # where a file cannot be written
    told = run(sketch(sketches["otaa"], core), tmp_path)
    last = [line for line in told.splitlines() if not line.startswith("serial")][-1]
    assert f"serial Preferences do not keep {why}" in told
    assert last.startswith("close" if lost == "mc" else "otaa"), "no uplink, no join request behind it"


def test_the_arduino_library_is_complete() -> None:
    """Goal: both managers find the sources, none of which is a copy."""
    library = PORT / "arduino"
    manifest = json.loads((library / "library.json").read_text())
    properties = dict(
        line.split("=", 1) for line in (library / "library.properties").read_text().splitlines()
    )
    assert manifest["version"] == properties["version"]
    for header in manifest["headers"]:
        assert (library / manifest["build"]["srcDir"] / header).is_file()
    assert (library / "src/core").is_symlink()
    assert (library / "src/core").resolve() == FIRMWARE / "core"
    commit = manifest["dependencies"]["RadioLib"].partition("#")[2]
    for path in (library / "src/SwarmRadioLib.h", library / "README.md", STUBS / "arduino/RadioLib.h"):
        assert commit in path.read_text(), f"{path} names another RadioLib"


def sample(folder: Path, core: Sequence[Path]) -> Path:
    """The Zephyr sample and its module."""
    module = PORT / "zephyr"
    include = [f"-I{path}" for path in (folder, PORT, FIRMWARE / "core", module / "src", STUBS / "zephyr")]
    strict = ("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", *CHECKED, *include)
    run(
        "gcc",
        *strict,
        "-Dmain=sample_main",
        "-c",
        module / "samples/node/src/main.c",
        "-o",
        folder / "main.o",
    )
    sources = (*sorted((module / "src").glob("*.c")), STUBS / "zephyr/sample_bench.c")
    run("gcc", *strict, *sources, folder / "main.o", *core, "-o", folder / "sample")
    return folder / "sample"


def test_the_zephyr_sample_lives_six_hours(sketches: dict[str, Path], core: Sequence[Path]) -> None:
    """Goal: the same as above, with a queue between the stack's thread and the node's, and a duty cycle."""
    folder = sketches["otaa"]
    program = sample(folder, core)
    told = run(program, folder / "settings")
    key = key_of(folder, "SWN_APP_KEY")
    joins = times(told, rf"join eui 70..01 key {key[0]}..{key[15]}")
    assert len(joins) == 3
    assert joins[2] - joins[1] > joins[1] - joins[0] > 15
    app, nwk = key_of(folder, "SWN_MC_APP_S_KEY")[0], key_of(folder, "SWN_MC_NWK_S_KEY")[0]
    assert re.search(rf"^group [0-9a-f]{{8}} app {app} nwk {nwk}\ngroup 0 at 869525000 Hz DR0$", told, re.M)
    reports = times(told, r"uplink \d+: port 12, 16 bytes, type 1, confirmed 0")
    assert len(reports) == 12
    busy = times(told, "busy")
    assert busy
    assert all(at + 20 in reports for at in busy), "a frame that was refused goes out later"
    opened, closed = times(told, "class C"), times(told, "class A")
    assert [end - begin for begin, end in zip(opened, closed, strict=True)] == [10] * 5


def test_the_zephyr_port_keeps_what_a_sector_cannot_hold(
    sketches: dict[str, Path], core: Sequence[Path]
) -> None:
    folder = sketches["abp"]
    program = sample(folder, core)
    full = "error settings do not keep swarm/4: -28"
    told = ["recalled 1", "torn recalled 0", "unkept 0", full, "unkept 1"]
    assert run(program, folder / "none", "settings").splitlines() == told
    assert "abp" in run(program, folder / "settings")


def test_the_zephyr_module_names_files_that_exist() -> None:
    module = PORT / "zephyr"
    cmake = (module / "CMakeLists.txt").read_text()
    for source in re.findall(r"src/\w+\.c", cmake):
        assert (module / source).is_file()
    kconfig = set(re.findall(r"^config (\w+)", (module / "Kconfig").read_text(), re.MULTILINE))
    used = set(
        re.findall(r"CONFIG_(LORASWARM\w*)", cmake + "".join(p.read_text() for p in module.glob("src/*")))
    )
    assert used <= kconfig
    assert "CONFIG_LORASWARM=y" in (module / "samples/node/prj.conf").read_text()
