"""The firmware on an emulated Cortex-M: byte for byte what the same node says on this computer.

Both are played the same days through the same modem dialogue, in front of the gateway's core, in lockstep.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from random import Random

import pytest

from gateway.pilot import ChannelOptions, provision
from tests.firmware.modem_emulator import Emulated, Rui3, World
from tests.firmware.test_modem_port import MODEL, NODES, ROOT, cell_of, live

HOURS = 40
CORES = {"m0plus": "mps2-an385", "m4": "mps2-an386", "m7": "mps2-an500"}
TOOLS = {"arm-none-eabi-gcc": "gcc-arm-none-eabi", "qemu-system-arm": "qemu-system-arm"}


def missing() -> list[str]:
    """Debian's packages that are not here; the compiler may have come without its C library."""
    packages = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if "gcc-arm-none-eabi" not in packages:
        library = [next(iter(TOOLS)), "-print-file-name=libc.a"]
        if not Path(subprocess.run(library, capture_output=True, text=True, check=True).stdout).parent.name:
            packages.append("libnewlib-arm-none-eabi")
    return packages


MISSING = missing()

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"apt-get install {' '.join(MISSING)}")


def build(*goal: str) -> None:
    done = subprocess.run(
        ["make", "-s", "-C", str(ROOT / "node_firmware"), *goal], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pilot")
    (folder / "nodes.csv").write_text(NODES)
    dice = Random(5).randbytes
    provision(folder / "nodes.csv", folder / "keys", options=ChannelOptions(data_rate=3), random_bytes=dice)
    return folder / "keys"


def lived(world: World) -> World:
    live(world, HOURS)
    world.close()
    return world


@pytest.fixture(scope="module")
def here(pilot: Path) -> World:
    """The node on this computer."""
    program = pilot.parent / "here"
    build("modem", f"IDENTITY={pilot / 'headers' / 'a1.h'}", f"NODE={program}")
    return lived(World(program, MODEL, cell_of(pilot), Rui3))


@pytest.mark.parametrize(
    "core", ["m0plus", *(pytest.param(core, marks=pytest.mark.slow) for core in ("m4", "m7"))]
)
def test_an_emulated_node_says_the_same_bytes(core: str, pilot: Path, here: World) -> None:
    """Goal: integers give the same bits on every core.  Method: reports, training, an update, a model."""
    firmware = pilot.parent / f"{core}.elf"
    build(f"qemu-{core}", f"IDENTITY={pilot / 'headers' / 'a1.h'}", f"ELF={firmware}")
    there = lived(Emulated(firmware, CORES[core], cell_of(pilot), Rui3))
    assert there.modem.commands == here.modem.commands
    assert there.told[1:] == here.told[1:], "risks, frames, rounds, versions"
    frames = [line for line in there.modem.commands if line.startswith("AT+SEND")]
    assert len(frames) > HOURS - 5
    assert any(line.startswith("AT+SEND=10:01") for line in frames), "an update was among them"
    assert here.told[-1].endswith("model 1"), "and a model came back"
