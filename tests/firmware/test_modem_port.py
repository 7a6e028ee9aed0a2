"""The serial modem's port end to end: the node as a program, an emulated modem, the gateway's own core."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from gateway.pilot import ChannelOptions, provision
from swarm.commands import AddNode, HandOver, SetMulticast, SetSigningKey
from swarm.model.subset import with_experts
from swarm.security.signatures import SigningKey
from tests.firmware.modem_emulator import SECOND_US, Modem, Rn2483, Rui3, World
from tests.gateway.provisioned import commands
from tests.swarm.cell import Cell, settings

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "swarm" / "model" / "base_model.swm"
NODES = """id,lat,lon,height_m,crop,dev_eui,activation,report_min
a1,47.0010,8.0000,2.0,potato,70B3D57ED0000001,otaa,60
t1,47.0020,8.0010,2.0,tomato,70B3D57ED0000002,abp,60
"""


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A provisioned directory, for the channel of the tests' cell."""
    folder = tmp_path_factory.mktemp("pilot")
    (folder / "nodes.csv").write_text(NODES)
    dice = Random(5).randbytes
    provision(folder / "nodes.csv", folder / "keys", options=ChannelOptions(data_rate=3), random_bytes=dice)
    return folder / "keys"


@pytest.fixture(scope="module")
def programs(pilot: Path) -> dict[str, Path]:
    """The node's program for each node and dialect, as `make modem` builds it."""
    made = {}
    for name, node, dialect in (("rui3", "a1", "rui3"), ("abp", "t1", "rui3"), ("rn2483", "a1", "rn2483")):
        made[name] = pilot.parent / name
        identity = f"IDENTITY={pilot / 'headers' / node}.h"
        options = (identity, f"DIALECT=swn_modem_{dialect}", f"NODE={made[name]}")
        build = subprocess.run(
            ["make", "-s", "-C", str(ROOT / "node_firmware"), "modem", *options],
            capture_output=True,
            text=True,
            check=False,
        )
        assert build.returncode == 0, build.stderr
    return made


def cell_of(pilot: Path) -> Cell:
    cell = Cell(config=settings(), nodes=0)
    for command in commands(pilot):
        known = replace(command, replace=True) if isinstance(command, SetMulticast) else command
        assert cell.command(known) is None
    if (pilot / "signing.key").exists():
        assert cell.command(SetSigningKey(SigningKey(signing_seed(pilot)))) is None
    return cell


def signing_seed(pilot: Path) -> bytes:
    return bytes.fromhex((pilot / "signing.key").read_text())


def live(world: World, hours: int, start: int = 0) -> None:
    """Hourly readings from midnight on; every second day's truth is high, told at 13 o'clock."""
    for hour in range(start + 1, start + hours + 1):
        world.run_for(3600)
        humidity, rain = 70 + hour % 24, "0.4" if hour % 48 == 20 else "0"
        world.tell(f"reading {14 + hour % 7}.5 {humidity} {rain} {hour % 24}")
        if hour % 24 == 13:
            world.tell(f"label {hour // 24} {hour // 24 % 2 * 2}")


@pytest.mark.parametrize(("program", "kind"), [("rui3", Rui3), ("abp", Rui3), ("rn2483", Rn2483)])
def test_days_and_rounds(program: str, kind: type[Modem], pilot: Path, programs: dict[str, Path]) -> None:
    """Goal: STATUS and an update go up, SCHEDULE, ROUND and the model come back.  Method: four days."""
    cell = cell_of(pilot)
    world = World(programs[program], MODEL, cell, kind)
    live(world, 100)
    world.close()
    assert cell.told("joined" if program != "abp" else "uplink")
    statuses = cell.told("status")
    assert len(statuses) > 90, "one an hour"
    assert statuses[-1].data["temperature_centi"] == 1550, "14 + 99 % 7, and a half"
    assert not int(str(statuses[-1].data["flags"])) & 4, "it has a SCHEDULE"
    assert sum(int(str(event.data["updates"])) for event in cell.told("round_closed")) >= 1
    sent, received, lost, number, version = map(int, re.findall(r"\d+", world.told[-1]))
    assert (lost, number) == (0, cell.told("round_closed")[-1].data["round"])
    assert sent > 90 and received > 90
    assert version >= 1, "a head made of its own class means came back, and was taken"
    assert version == statuses[-1].data["model_version"]
    classes = [line[-1].upper() for line in world.modem.commands if "class" in line.lower()]
    assert classes.count("C") > 90
    assert all(one != other for one, other in pairwise(classes)), "the receiver is on in windows only"


def test_a_modem_that_lost_power_joins_again(pilot: Path, programs: dict[str, Path]) -> None:
    cell = cell_of(pilot)
    world = World(programs["rui3"], MODEL, cell, Rui3)
    live(world, 5)
    world.modem.boot()
    live(world, 5, 5)
    world.close()
    assert (len(cell.told("joined")), world.modem.nonce) == (2, 2)
    assert len(cell.told("status")) > 6
    assert world.told.count("joined, payload 51") == 2
    assert not cell.told("dropped")


def test_a_silent_modem_is_told_of_once_a_silence(pilot: Path, programs: dict[str, Path]) -> None:
    cell = cell_of(pilot)
    world = World(programs["rui3"], MODEL, cell, Rui3)
    answers = world.modem.say
    for silence in (1, 2):
        world.modem.say = lambda line: None
        live(world, 3)
        assert world.told.count("the modem does not answer: check its line, speed and power") == silence
        world.modem.say = answers
        world.modem.boot()
        live(world, 3)
    world.close()
    assert world.told.count("the modem answers again") == 2
    assert len(cell.told("joined")) == 2


def test_make_takes_names_from_where_it_was_called(pilot: Path, tmp_path: Path) -> None:
    def made(*options: str) -> subprocess.CompletedProcess[str]:
        here = {**os.environ, "PWD": str(tmp_path)}
        command = ["make", "-s", "-C", str(ROOT / "node_firmware"), "modem", *options]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=here)

    (tmp_path / "keys").symlink_to(pilot)
    build = made("IDENTITY=keys/headers/a1.h", "NODE=a1")
    assert build.returncode == 0, build.stderr
    assert (
        build.stdout.split()[0] == str(tmp_path / "a1") and (tmp_path / "a1").stat().st_mode & 0o777 == 0o700
    )
    missing = made("IDENTITY=keys/headers/nix.h")
    assert missing.returncode == 2
    assert missing.stdout.startswith(f"IDENTITY=keys/headers/nix.h: there is no such file in {tmp_path};")
    assert made().stdout.startswith("say whose node it is: make modem IDENTITY=")


def test_a_wrong_key_is_tried_again_ever_more_rarely(pilot: Path, programs: dict[str, Path]) -> None:
    cell = Cell(config=settings(), nodes=0)
    for command in commands(pilot):
        if isinstance(command, AddNode) and command.name == "a1":
            assert cell.command(replace(command, app_key=bytes(16))) is None
    world = World(programs["rui3"], MODEL, cell, Rui3)
    world.run_for(6 * 3600)
    world.close()
    joins = [line for line in world.modem.commands if line.startswith("AT+JOIN")]
    assert 8 <= len(joins) <= 16, "10 s, doubled up to an hour, and as much again at random"
    assert set(cell.dropped()) == {"mic"}
    assert not any(line.startswith("joined") for line in world.told)


def test_what_the_node_learned_outlives_its_program(
    pilot: Path, programs: dict[str, Path], tmp_path: Path
) -> None:
    cell = cell_of(pilot)
    world = World(programs["abp"], MODEL, cell, Rui3, "--state", str(tmp_path))
    live(world, 100)
    version = cell.told("status")[-1].data["model_version"]
    assert version
    device = world.modem.device
    world.close()
    again = World(programs["abp"], MODEL, cell, Rui3, "--state", str(tmp_path))
    again.modem.device = device
    live(again, 3)
    again.close()
    assert "recalled 1 ok" in again.told
    assert cell.told("status")[-1].data["model_version"] == version


def test_experts_are_handed_over_to_the_program(
    pilot: Path, programs: dict[str, Path], tmp_path: Path
) -> None:
    """Goal: a program with a state takes a container up while it runs, says so, and starts with it again;
    started with another container it runs that one, whatever lies in its flash still.

    Method: the core's hand-over to a node that was started with three of eight experts.
    """
    few, state = tmp_path / "few.swm", tmp_path / "state"
    few.write_bytes(with_experts(MODEL.read_bytes(), (0, 1, 2)))
    state.mkdir()
    cell = cell_of(pilot)
    assert cell.command(SetSigningKey(SigningKey(signing_seed(pilot)))) is None
    world = World(programs["rui3"], few, cell, Rui3, "--state", str(state))
    live(world, 2)
    (step,) = cell.core.hand_overs.plan(cell.now_us, HandOver(4, 1))
    assert cell.command(HandOver(4, 1)) is None
    hours = 2
    while not cell.told("hand_over_ended") and hours < 60:
        live(world, 1, hours)
        hours += 1
    (ended,) = cell.told("hand_over_ended")
    experts = "experts " + " ".join(map(str, step.experts))
    assert ended.data["experts"] == list(step.experts) and experts in world.told
    device = world.modem.device
    world.close()
    since_us = cell.now_us
    again = World(programs["rui3"], few, cell, Rui3, "--state", str(state))
    again.modem.device = device
    live(again, 2, hours)
    again.close()
    assert "recalled 5 ok" in again.told and experts not in again.told
    said = [event.data["held"] for event in cell.told("experts") if event.at_us >= since_us]
    assert said and all(held == list(step.experts) for held in said)
    few.write_bytes(with_experts(MODEL.read_bytes(), (5, 6)))
    by_cable = World(programs["rui3"], few, cell, Rui3, "--state", str(state))
    by_cable.modem.device = device
    live(by_cable, 2, hours + 2)
    by_cable.close()
    assert "recalled 5 ok" in by_cable.told and experts not in by_cable.told


def test_lines_that_are_nonsense_are_told(pilot: Path, programs: dict[str, Path], tmp_path: Path) -> None:
    world = World(programs["rui3"], MODEL, cell_of(pilot), Rui3)
    for line in (
        "reading",
        "reading 1 2",
        "label 1",
        "label 9 0",
        "x" * 500,
        "reading - - - 25",
        "reading - - -",
    ):
        world.tell(line)
    world.run_for(1)
    world.close()
    assert [line.partition(":")[0] for line in world.told[1:]] == [
        *["not understood"] * 3,
        "label of no day that waits for one",
        *["not understood"] * 2,
        "risk 30% 38% 33%",
    ]
    for arguments, words in (
        (("nowhere", str(MODEL)), "nowhere: No such file"),
        (("/dev/null", str(MODEL)), "/dev/null: Inappropriate ioctl"),
        (("/dev/null", __file__), "is no model container"),
        (("/dev/null",), "usage: modem_node DEVICE"),
        (("/dev/null", str(MODEL), "--speed", "2"), "--speed: is not known"),
    ):
        refused = subprocess.run([programs["rui3"], *arguments], capture_output=True, text=True, check=False)
        assert refused.returncode == 2
        assert words in refused.stderr


def test_a_frame_that_outlives_its_time_while_it_is_sent_keeps_nobody_awake(
    pilot: Path, programs: dict[str, Path]
) -> None:
    """Goal: no turn without need.  Method: a modem that is busy for most of a frame's ten minutes, takes it
    at last, and never says that it is out: the program wakes for its own deadline, 30 s later."""
    cell = cell_of(pilot)
    world = World(programs["rui3"], MODEL, cell, Rui3)
    live(world, 2)
    turn, times, taken = world._program, list[int](), list[int]()

    def late(f_port: int, payload: bytes) -> str | int:
        times.append(cell.now_us)
        wait_us = times[0] + 590 * SECOND_US - cell.now_us
        taken.extend([cell.now_us] if wait_us <= 0 else [])
        return wait_us if wait_us > 0 else "ok"

    def counted() -> int:
        if taken:
            times.append(cell.now_us)
            assert len(times) < 30, "it does not sleep"
        return turn()

    world.modem.uplink = late  # type: ignore[method-assign]
    world._program = counted  # type: ignore[method-assign]
    live(world, 1, 2)
    assert taken and times[-1] > taken[0] + 30 * SECOND_US
    world.close()
