"""The pilot's tables, plan and keys: every error named at once, keys made once, files private and whole."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from gateway.pilot import ChannelOptions, CsvErrors, plan, provision
from swarm.commands import AddNode, SetMulticast
from swarm.federation.modes import MODE_NAMES
from swarm.phy.airtime import airtime_us
from tests.gateway.provisioned import commands

NODES = """id,lat,lon,height_m,crop,soil,dev_eui,join_eui,activation,sensors,report_min,battery_mah
a1,47.0010,8.0000,2.0,apple,loam,70B3D57ED0000001,70B3D57ED0000000,otaa,temperature+humidity+rain,60,2600
t1,47.0020,8.0010,2.0,tomato,clay,,,abp,temperature+rain,30,5200
p1,47.0030,8.0020,1.0,potato,,,,,,,
"""
GATEWAYS = """id,lat,lon,height_m,antenna_gain_dbi,region
0016C001F11A2B3C,47.0,8.0,10,3.0,eu868
"""


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Path, Path]:
    nodes, gateways = tmp_path / "NODES.csv", tmp_path / "GATEWAYS.csv"
    nodes.write_text(NODES, encoding="utf-8")
    gateways.write_text(GATEWAYS, encoding="utf-8")
    return nodes, gateways


def errors_of(nodes: Path, gateways: Path) -> list[str]:
    with pytest.raises(CsvErrors) as caught:
        plan(nodes, gateways)
    for line in caught.value.errors:
        where, what = line.split(": ", 1)
        assert where.rsplit(":", 1)[1].isdigit(), line
        assert ";" in what, f"no advice in {line!r}"
    return caught.value.errors


def test_a_plan_as_table_and_json(tables: tuple[Path, Path]) -> None:
    report = plan(*tables)
    text = report.text()
    for part in ("a1", "t1", "p1", "0016c001f11a2b3c", "rounds a day", "! t1: no humidity sensor"):
        assert part in text
    data = json.loads(json.dumps(report.to_dict()))
    assert [node["id"] for node in data["nodes"]] == ["a1", "t1", "p1"]
    assert data["nodes"][1]["crop"] == "tomato"
    assert data["region"] == "eu868"


def test_a_plan_prices_a_round_of_every_learning_mode(tables: tuple[Path, Path]) -> None:
    """At the planned data rates: class means are 45 or 63 bytes and LoRaWAN's 13."""
    report = plan(*tables)
    costs = {cost["mode"]: cost for cost in json.loads(json.dumps(report.to_dict()))["modes"]}
    assert list(costs) == list(MODE_NAMES)
    fast = [node.spreading_factor <= 9 for node in report.plan.nodes]
    mean = sum(76 if each else 58 for each in fast) / len(fast)
    assert costs["prototypes"]["bytes"] == pytest.approx(mean)
    airtime_s = sum(
        airtime_us(node.spreading_factor, 125_000, 76 if each else 58)
        for node, each in zip(report.plan.nodes, fast, strict=True)
    )
    assert costs["prototypes"]["airtime_s"] == pytest.approx(airtime_s / 1e6)
    row = next(line for line in report.text().splitlines() if line.startswith("prototypes"))
    assert row.split()[1:3] == ["1", f"{mean:.0f}"]


def test_spreadsheet_habits_are_tolerated(tables: tuple[Path, Path]) -> None:
    """Goal: BOM, `sep=`, semicolons, decimal commas, CRLF, blank and empty-celled lines change nothing."""
    nodes, gateways = tables
    plain = plan(nodes, gateways).to_dict()
    rows = [line.replace(",", ";").replace(".", ",") for line in NODES.splitlines()]
    text = "\ufeffsep=;\r\n" + "\r\n;;;;;;;;;;;\r\n\r\n".join(rows) + "\r\n\r\n"
    nodes.write_bytes(text.encode("utf-8"))
    gateways.write_text("\ufeff" + GATEWAYS.replace(",", "\t").replace("id", " ID ", 1), encoding="utf-8")
    assert plan(nodes, gateways).to_dict() == plain
    quoted = NODES.replace("loam", '"loam, sandy"').replace("70B3D57ED0000001", '"70-B3-D5-7E-D0-00-00-01"')
    nodes.write_text(quoted, encoding="utf-8")
    assert plan(nodes, gateways).to_dict() == plain


@pytest.mark.parametrize(
    ("old", "new", "start", "part"),
    [
        ("47.0010", "nan", "2: lat", "not a number; enter one from -90 to 90, like 47.05"),
        ("8.0000,2.0", "8.0000,two", "2: height_m", "enter one from 0.05 to 200, like 2.5"),
        ("47.0010", "inf", "2: lat", "not a number"),
        ("47.0010", "1_0", "2: lat", "not a number"),
        ("47.0010", "", "2: lat", "is empty"),
        ("47.0010", "91", "2: lat", "not between -90 and 90"),
        ("8.0000", "-180.5", "2: lon", "not between -180 and 180"),
        ("8.0000,2.0", "8.0000,1e9", "2: height_m", "not between"),
        ("apple", "pear", "2: crop", "use one of apple, tomato, potato, grape"),
        (
            "70B3D57ED0000001",
            "70B3D57ED000001",
            "2: dev_eui",
            "it has 15 characters); copy it from the node's",
        ),
        ("70B3D57ED0000001", "70B3D57ED00000ZZ", "2: dev_eui", "not 16 hexadecimal digits"),
        ("70B3D57ED0000001", "7.0123E+15", "2: dev_eui", "format the column as text"),
        ("70B3D57ED0000001", "0000000000000000", "2: dev_eui", "all zeros"),
        ("70B3D57ED0000000", "xyz", "2: join_eui", "not 16 hexadecimal"),
        ("otaa", "otta", "2: activation", "otaa or abp"),
        ("temperature+rain", "temperature+windd", "3: sensors", "'windd' is not known"),
        (
            "temperature+rain",
            "temperature+wetness",
            "3: sensors",
            "write temperature, and +humidity and +rain",
        ),
        ("temperature+rain", "rain", "3: sensors", "no temperature; every node needs that sensor"),
        (
            ",,,,,,,",
            ",,,,,",
            "4: report_min",
            "10 cells but the header has 12; leave cells empty, but not out",
        ),
        ("30,5200", "0,5200", "3: report_min", "whole number from 1 to 1440"),
        ("30,5200", "30.5,5200", "3: report_min", "whole number"),
        ("30,5200", "30,lots", "3: battery_mah", "whole number"),
        ("t1,", "../t1,", "3: id", "is not an id"),
        ("t1,", ",", "3: id", "is empty"),
        ("t1,", "A1,", "3: id", "the same as in line 2"),
        ("5200", "5200,7,8", "3: battery_mah", "14 cells but the header has 12"),
        ("clay", "cl\x07ay", "3: soil", "not printable"),
    ],
)
def test_one_wrong_cell(tables: tuple[Path, Path], old: str, new: str, start: str, part: str) -> None:
    nodes, gateways = tables
    assert old in NODES
    nodes.write_text(NODES.replace(old, new, 1), encoding="utf-8")
    (line,) = errors_of(nodes, gateways)
    assert line.startswith(f"{nodes}:{start}: ")
    assert part in line


def test_all_errors_of_both_files_come_at_once(tables: tuple[Path, Path]) -> None:
    nodes, gateways = tables
    text = NODES.replace("47.0010", "north").replace("tomato", "rice").replace("1.0,potato", "-1,potato")
    nodes.write_text(text + "p2,47,8,1,grape,,70B3D57ED0000001,,,,,\n", encoding="utf-8")
    gateways.write_text(
        GATEWAYS.replace("10,3.0,eu868", "x,90,mars") + "0016c001f11a2b3c,1,1,1,,\n", encoding="utf-8"
    )
    found = errors_of(nodes, gateways)
    places = [line.removeprefix(str(nodes)).removeprefix(str(gateways)).split(": ")[:2] for line in found]
    assert [place for place in places if place[0] != ":3"] == [
        [":2", "lat"],
        [":4", "height_m"],
        [":5", "dev_eui"],
        [":2", "height_m"],
        [":2", "antenna_gain_dbi"],
        [":2", "region"],
    ]
    assert [place[1] for place in places if place[0] == ":3"] == ["crop", "id"]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"id,lat,lon,height_m,crop\n", "no nodes below the header"),
        (b"id,lat,lon,crop,soil\na,1,1,apple,\n", "height_m: column is missing"),
        (b"id,lat,lat,lon,height_m,crop,soil\n", "lat: column appears twice"),
        (b"id,lat,lon,height_m,crop,soil\na,47,8,2,apple,l\xf6ss\n", ":2: file: is not UTF-8"),
        (b'id,lat,lon,height_m,crop,soil\na,47,8,2,apple,"loam\n', "look for a stray quote"),
        (b"PK\x03\x04\x00\x00", "column is missing"),
    ],
)
def test_wrong_files(tables: tuple[Path, Path], content: bytes, part: str) -> None:
    nodes, gateways = tables
    nodes.write_bytes(content)
    assert part in "\n".join(errors_of(nodes, gateways))


def test_a_stray_quote_hides_no_mistake_before_it(tables: tuple[Path, Path]) -> None:
    """The quote swallows all lines to the end; it is named where it stands."""
    nodes, gateways = tables
    rows = ["a,47,8,2,apple,loam", "b,97,8,2,apple,loam", 'c,47,8,2,apple,"loam', "d,47,8,2,apple,loam"]
    nodes.write_text("\n".join(["id,lat,lon,height_m,crop,soil", *rows]), encoding="utf-8")
    found = errors_of(nodes, gateways)
    assert [line.split(": ")[0].rsplit(":", 1)[1] for line in found] == ["4", "3"]
    assert "look for a stray quote" in found[0] and "lat" in found[1]


def test_absent_files_and_unknown_columns(tables: tuple[Path, Path], tmp_path: Path) -> None:
    nodes, gateways = tables
    with pytest.raises(CsvErrors) as caught:
        plan(tmp_path / "no.csv", tmp_path / "nor.csv")
    absent = "there is no such file; check the path"
    assert caught.value.errors == [f"{tmp_path / name}: {absent}" for name in ("no.csv", "nor.csv")]
    nodes.write_text("", encoding="utf-8")
    with pytest.raises(CsvErrors, match=r"NODES.csv: is empty; start it with the header id,lat,lon,height_m"):
        plan(nodes, gateways)
    nodes.write_text(NODES.replace("sensors", "sensosr"), encoding="utf-8")
    assert (
        f"! {nodes}:1: sensosr: unknown column is ignored; did you mean sensors?"
        in plan(nodes, gateways).text().splitlines()
    )
    nodes.write_text(NODES.replace("report_min", "colour"), encoding="utf-8")
    assert "colour: unknown column is ignored\n" in plan(nodes, gateways).text() + "\n"


def test_a_gateways_eui_and_the_optional_soil(tables: tuple[Path, Path]) -> None:
    nodes, gateways = tables
    gateways.write_text(GATEWAYS.replace("0016C001F11A2B3C", "0016C001F11A2B3"), encoding="utf-8")
    (line,) = errors_of(nodes, gateways)
    assert line.endswith("copy the gateway's EUI from its label or its gateway_ID setting")
    gateways.write_text(GATEWAYS, encoding="utf-8")
    with_soil = plan(nodes, gateways).to_dict()
    rows = [line.split(",") for line in NODES.splitlines()]
    nodes.write_text("\n".join(",".join(cells[:5] + cells[6:]) for cells in rows) + "\n", encoding="utf-8")
    assert plan(nodes, gateways).to_dict() == with_soil, "soil is a note: nothing is computed from it"


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_provisioning_makes_private_files_and_shows_no_key(tables: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "keys"
    report = provision(tables[0], out)
    assert report.created == ("a1", "t1", "p1")
    assert set(report.written) == {
        "signing.key",
        "keys.csv",
        "multicast.csv",
        "headers/a1.h",
        "headers/t1.h",
        "headers/p1.h",
    }
    files = snapshot(out)
    assert set(files) == set(report.written), "nothing else, no temporary file"
    for name in files:
        assert stat.S_IMODE((out / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    said = report.text() + json.dumps(report.to_dict()) + repr(report) + repr(commands(out))
    secrets_made = [
        command.app_key for command in commands(out) if isinstance(command, AddNode) and command.app_key
    ]
    assert len(secrets_made) == 2
    assert not any(key.hex() in said for key in secrets_made)


def test_the_gateway_is_told_what_the_headers_say(tables: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "keys"
    provision(tables[0], out)
    group, *nodes = commands(out)
    assert isinstance(group, SetMulticast)
    first, second, third = (node for node in nodes if isinstance(node, AddNode))
    assert (first.dev_eui, first.join_eui, first.activation) == (
        "70b3d57ed0000001",
        "70b3d57ed0000000",
        "otaa",
    )
    assert (first.node_index, second.node_index, third.node_index) == (0, 1, 2)
    assert (first.context, second.context, third.context) == (0, 1, 2)
    assert (second.activation, second.app_key) == ("abp", None)
    assert second.nwk_s_key is not None
    assert second.dev_addr is not None
    assert second.dev_addr < 1 << 25
    assert int(second.dev_eui[:2], 16) & 3 == 2, "a locally administered address"
    header = (out / "headers" / "t1.h").read_text(encoding="utf-8")
    assert f"#define SWN_DEV_ADDR 0x{second.dev_addr:08x}ul" in header
    assert ", ".join(f"0x{byte:02x}" for byte in second.nwk_s_key) in header
    assert f"#define SWN_MC_ADDR 0x{group.mc_addr:08x}ul" in header
    assert "#define SWN_FLAGS 1u" in header, "no humidity sensor"
    assert "#define SWN_REFUSES 0x0040u" in header, "nobody agreed to share samples"
    assert "#define SWN_STATUS_PERIOD_S 1800ul" in header
    assert len({first.app_key, third.app_key, second.nwk_s_key, second.app_s_key, group.nwk_s_key}) == 5


def test_headers_say_what_each_data_rate_carries(tables: tuple[Path, Path], tmp_path: Path) -> None:
    """A STATUS of 16 bytes does not fit AS923's DR0 to DR2 under dwell time: the slowest rate is DR3."""
    provision(tables[0], tmp_path / "keys", options=ChannelOptions(region="as923"))
    header = (tmp_path / "keys" / "headers" / "a1.h").read_text()
    assert '#define SWN_REGION "as923"\n#define SWN_REGION_ID AS923\n' in header
    assert "#define SWN_PAYLOAD_MAX_AT_SLOWEST 53u\n#define SWN_SLOWEST_DATA_RATE 3u\n" in header
    assert "#define SWN_PAYLOAD_MAX_AT_RATE {0, 0, 0, 53, 125, 222, 222, 0, " in header


def test_headers_and_plan_name_the_multicast_settings(tables: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "keys"
    header = out / "headers" / "a1.h"
    provision(tables[0], out)
    assert "#define SWN_MC_FREQUENCY_HZ 869525000ul\n#define SWN_MC_DATA_RATE 0u\n" in header.read_text()
    with pytest.raises(ValueError, match="eu868 has no LoRa downlink data rate 15; give one of 0, 1, 2"):
        provision(tables[0], out, options=ChannelOptions(data_rate=15))
    with pytest.raises(ValueError, match="868650000 Hz is in no sub-band of eu868; choose one inside 863"):
        provision(tables[0], out, options=ChannelOptions(frequency_hz=868_650_000))
    report = plan(*tables)
    rate = report.plan.multicast_data_rate
    said = f"set [multicast] data_rate = {rate} and provision with --multicast-data-rate {rate}"
    assert rate != 0
    assert said in report.text()


def test_a_directory_keeps_the_channel_it_was_provisioned_for(
    tables: tuple[Path, Path], tmp_path: Path
) -> None:
    """Goal: without a flag nothing changes; another rate or frequency is warned of, a region refused."""
    out = tmp_path / "keys"
    header = out / "headers" / "a1.h"
    first = provision(tables[0], out, options=ChannelOptions(data_rate=3))
    assert first.notes == (
        "! the group listens at DR3 on 869.525 MHz: swarm.toml needs [multicast] data_rate = 3",
    )
    keys, *channel = (out / "multicast.csv").read_text().splitlines()[1].split(",", 4)[3:]
    assert (len(keys), channel) == (32, ["eu868,3,869525000"])
    before = snapshot(out)
    assert provision(tables[0], out).written == ()
    assert snapshot(out) == before
    with pytest.raises(ValueError, match="was provisioned for eu868, and its nodes are built for that"):
        provision(tables[0], out, options=ChannelOptions(region="us915"))
    assert snapshot(out) == before
    report = provision(tables[0], out, options=ChannelOptions(data_rate=4, frequency_hz=868_100_000))
    (note,) = report.notes
    assert note.startswith(
        "! the group listened at DR3 on 869.525 MHz and now does at DR4 on 868.1 MHz: nodes"
    )
    assert note.endswith("needs [multicast] data_rate = 4, [multicast] frequency_hz = 868100000")
    assert "#define SWN_MC_FREQUENCY_HZ 868100000ul\n#define SWN_MC_DATA_RATE 4u\n" in header.read_text()
    assert set(report.written) == {"multicast.csv", "headers/a1.h", "headers/t1.h", "headers/p1.h"}
    (out / "multicast.csv").write_text((out / "multicast.csv").read_text().replace("eu868,4", "eu868,x"))
    with pytest.raises(
        CsvErrors, match=r"multicast\.csv:2: region: or data_rate or frequency_hz is not usable"
    ):
        provision(tables[0], out)


def test_a_group_from_before_it_had_a_channel_still_reads(tables: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "keys"
    provision(tables[0], out)
    path = out / "multicast.csv"
    path.write_text("\n".join(line.rsplit(",", 3)[0] for line in path.read_text().splitlines()) + "\n")
    group = commands(out)[0]
    report = provision(tables[0], out)
    assert report.written == ("multicast.csv",)
    assert "does not say where its nodes listen: DR0 on 869.525 MHz is taken and kept" in report.notes[0]
    assert commands(out)[0] == group
    assert provision(tables[0], out).notes == ()


def test_another_region_has_its_own_channel_and_the_plan_names_the_option(
    tables: tuple[Path, Path], tmp_path: Path
) -> None:
    report = provision(tables[0], tmp_path / "keys", options=ChannelOptions(region="us915"))
    assert report.notes == (
        '! the group listens at DR8 on 923.3 MHz: swarm.toml needs [gateway] region = "us915"',
    )
    tables[1].write_text(GATEWAYS.replace("eu868", "us915"), encoding="utf-8")
    made = plan(*tables)
    assert "provision with --region us915 --multicast-data-rate " in made.text()
    assert 'set [gateway] region = "us915"' in made.text()


def test_plots_reach_the_gateway_and_old_key_files_still_read(
    tables: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "keys"
    provision(tables[0], out)
    old = [line.rsplit(",", 1)[0] for line in (out / "keys.csv").read_text().splitlines()]
    (out / "keys.csv").write_text("\n".join(old) + "\n")  # as made before there were plots
    assert [node.plot for node in commands(out) if isinstance(node, AddNode)] == ["", "", ""]
    lines = NODES.splitlines()
    rows = [lines[0] + ",plot", lines[1] + ",west", lines[2] + ",west", lines[3] + ",south side"]
    tables[0].write_text("\n".join(rows) + "\n", encoding="utf-8")
    assert provision(tables[0], out).created == ()
    assert [node.plot for node in commands(out) if isinstance(node, AddNode)] == [
        "west",
        "west",
        "south side",
    ]
    tables[0].write_text(tables[0].read_text().replace("south side", "x" * 65), encoding="utf-8")
    with pytest.raises(CsvErrors, match="4: plot: is longer than 64 characters"):
        provision(tables[0], out)


def test_the_headers_compile(tables: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "keys"
    provision(tables[0], out)
    for name in ("a1", "t1"):
        source = tmp_path / "main.c"
        keys = "SWN_APP_KEY" if name == "a1" else "SWN_NWK_S_KEY"
        source.write_text(
            f'#include "{name}.h"\nstatic const unsigned char key[16] = {keys};\n'
            "static const unsigned char eui[8] = SWN_DEV_EUI;\n"
            "int main(void) { return SWN_SEED == 0ull || key[0] == eui[0] + 300 || SWN_CONTEXT > 3u; }\n",
            encoding="utf-8",
        )
        compiler = ["cc", "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
        done = subprocess.run(
            [*compiler, f"-I{out / 'headers'}", str(source)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_running_again_keeps_all_keys(tables: tuple[Path, Path], tmp_path: Path) -> None:
    """Goal: nothing changes; then a new node is added, one leaves, one moves: old keys stay as they are."""
    out = tmp_path / "keys"
    provision(tables[0], out)
    before = snapshot(out)
    again = provision(tables[0], out)
    assert (again.created, again.written) == ((), ())
    assert "no file changed" in again.text()
    assert snapshot(out) == before
    text = "".join(line for line in NODES.splitlines(keepends=True) if not line.startswith("p1"))
    tables[0].write_text(text.replace("47.0020", "47.0099") + "g1,47,8,2,grape,,,,,,,\n", encoding="utf-8")
    third = provision(tables[0], out)
    assert (third.created, third.kept, third.orphaned) == (("g1",), ("a1", "t1"), ("p1",))
    assert set(third.written) == {"keys.csv", "headers/g1.h"}
    old = {line.split(",")[1]: line for line in before["keys.csv"].decode().splitlines()}
    new = {line.split(",")[1]: line for line in (out / "keys.csv").read_text().splitlines()}
    assert (new["a1"], new["p1"]) == (old["a1"], old["p1"])
    assert new["t1"] == old["t1"].replace("47.002", "47.0099")
    assert new["g1"].startswith("3,g1,")


def test_a_dry_run_and_errors_leave_no_trace(tables: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "keys"
    report = provision(tables[0], out, dry_run=True)
    assert report.created == ("a1", "t1", "p1")
    assert "would be" in report.text()
    assert "files that would be written: signing.key, keys.csv" in report.text()
    assert not out.exists()
    tables[0].write_text(NODES.replace("apple", "pear").replace("clay", "clay,"), encoding="utf-8")
    with pytest.raises(CsvErrors) as caught:
        provision(tables[0], out)
    assert len(caught.value.errors) >= 2
    assert not out.exists()


def test_keys_of_another_radio_are_not_reused(tables: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "keys"
    provision(tables[0], out)
    before = snapshot(out)
    tables[0].write_text(NODES.replace("70B3D57ED0000001", "70B3D57ED0000002"), encoding="utf-8")
    with pytest.raises(CsvErrors, match=r"2: dev_eui: is not the one this node's keys were made for"):
        provision(tables[0], out)
    tables[0].write_text(NODES.replace("a1,", "b1,"), encoding="utf-8")
    with pytest.raises(CsvErrors, match="2: dev_eui: already has keys as node a1"):
        provision(tables[0], out)
    assert snapshot(out) == before


def test_a_damaged_key_file_is_refused_without_showing_it(tables: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "keys"
    provision(tables[0], out)
    text = (out / "keys.csv").read_text()
    key = next(c.app_key.hex() for c in commands(out) if isinstance(c, AddNode) and c.app_key)
    (out / "keys.csv").write_text(text.replace(key, key[:-2] + "zz").replace("47.002", "here"))
    with pytest.raises(CsvErrors) as caught:
        provision(tables[0], out)
    assert len(caught.value.errors) == 2
    assert "app_key: is not 32 hex digits" in caught.value.errors[0]
    assert "lat: is not a number" in caught.value.errors[1]
    assert key[:-2] not in str(caught.value)
    with pytest.raises(AssertionError, match="app_key has to be"):
        commands(out)


def test_a_failure_while_writing_changes_nothing(
    tables: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Method: the disk is full at the third file; then a second run completes the work."""
    out = tmp_path / "keys"
    real, calls = os.fchmod, 0

    def full(handle: int, mode: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(28, "No space left on device")
        real(handle, mode)

    with monkeypatch.context() as patch:
        patch.setattr("os.fchmod", full)
        with pytest.raises(CsvErrors, match="No space left on device"):
            provision(tables[0], out)
    assert snapshot(out) == {}
    assert provision(tables[0], out).created == ("a1", "t1", "p1")


def test_files_open_to_others_are_closed(tables: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "keys"
    provision(tables[0], out)
    os.chmod(out / "keys.csv", 0o644)
    assert provision(tables[0], out).written == ("keys.csv",)
    assert stat.S_IMODE((out / "keys.csv").stat().st_mode) == 0o600


def test_a_second_provisioning_at_the_same_time_is_refused(tables: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "keys"

    def meddling(count: int) -> bytes:
        with pytest.raises(CsvErrors, match="another provisioning is running"):
            provision(tables[0], out)
        return os.urandom(count)

    assert provision(tables[0], out, random_bytes=meddling).created == ("a1", "t1", "p1")


def test_generated_numbers_never_collide(tables: tuple[Path, Path], tmp_path: Path) -> None:
    """Method: a source that repeats every value once; EUIs and addresses still differ."""
    values = [value for number in range(1000) for value in (number, number)]

    def repeating(count: int) -> bytes:
        return values.pop(0).to_bytes(count, "big")

    rows = "".join(f"n{i},47,8,2,apple,,,,abp,,,\n" for i in range(20))
    tables[0].write_text(NODES.splitlines()[0] + "\n" + rows, encoding="utf-8")
    provision(tables[0], tmp_path / "keys", random_bytes=repeating)
    group, *nodes = commands(tmp_path / "keys")
    assert isinstance(group, SetMulticast)
    addresses = [node.dev_addr for node in nodes if isinstance(node, AddNode)]
    assert len({*addresses, group.mc_addr}) == 21
    assert len({node.dev_eui for node in nodes if isinstance(node, AddNode)}) == 20


def test_a_place_that_is_a_file(tables: tuple[Path, Path]) -> None:
    with pytest.raises(CsvErrors, match="is not a directory"):
        provision(tables[0], tables[1])
    with pytest.raises(ValueError, match="choose one of"):
        provision(tables[0], tables[1].parent / "keys", options=ChannelOptions(region="moon"))
