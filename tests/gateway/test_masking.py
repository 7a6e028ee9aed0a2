"""Provisioned masking groups: made once, kept for ever, in the headers, and never told to the daemon."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway import pilot
from gateway.commands.node_files import read_nodes
from gateway.pilot import masking
from gateway.pilot.tables import CsvErrors
from swarm.commands import AddNode
from tests.gateway.provisioned import commands


def table(tmp_path: Path, apples: int, grapes: int) -> Path:
    rows = [f"a{i},47.{i:02},9.6,1.5,apple" for i in range(apples)]
    rows += [f"g{i},47.{i:02},9.7,1.5,grape" for i in range(grapes)]
    path = tmp_path / "nodes.csv"
    path.write_text("\n".join(["id,lat,lon,height_m,crop", *rows]) + "\n")
    return path


def keys_of(out: Path, node: str) -> tuple[int, int, list[bytes]]:
    """Group, position and keys that a node's firmware is built with."""
    text = (out / "headers" / f"{node}.h").read_text()
    group, own, size = (
        int(re.search(rf"SWN_MASK_{name} (\d+)u", text)[1])  # type: ignore[index]
        for name in ("GROUP", "POSITION", "SIZE")
    )
    cells = re.search(r"SWN_MASK_KEYS \{(.*)\}", text)[1]  # type: ignore[index]
    keys = [bytes(int(x, 16) for x in cell.split(", ")) for cell in re.findall(r"\{([^{}]*)\}", cells)]
    assert len(keys) == size
    return group, own, keys


def test_both_ends_of_a_pair_have_one_key_and_the_daemon_has_none(tmp_path: Path) -> None:
    nodes, out = table(tmp_path, 9, 3), tmp_path / "keys"
    report = pilot.provision(nodes, out, mask_group_size=4)
    assert any("g0, g1, g2" in note for note in report.notes)  # three grapes are too few
    members: dict[int, dict[int, list[bytes]]] = {}
    for node in range(9):
        group, own, keys = keys_of(out, f"a{node}")
        members.setdefault(group, {})[own] = keys
    assert sorted(len(group) for group in members.values()) == [4, 5]
    for group in members.values():
        for own, keys in group.items():
            assert keys[own] == bytes(16)
            for peer, others in group.items():
                assert peer == own or keys[peer] == others[own] != bytes(16)
    places = {each.name: each.mask_place for each in commands(out) if isinstance(each, AddNode)}
    for node in range(9):
        group, own, keys = keys_of(out, f"a{node}")
        assert places[f"a{node}"] == f"{group}/{own}/{len(keys)}"
    assert {places[f"g{node}"] for node in range(3)} == {None}
    told = repr(commands(out)) + (out / "keys.csv").read_text() + (out / "multicast.csv").read_text()
    for line in (out / masking.MASKS_FILE).read_text().splitlines()[1:]:
        assert line.split(",")[-1] not in told
    pair_keys = {key.hex() for group in members.values() for keys in group.values() for key in keys}
    assert not any(key in told for key in pair_keys - {bytes(16).hex()})
    assert "SWN_MASK" not in (out / "headers" / "g0.h").read_text()
    assert "#define SWN_REFUSES 0x00f7u" in (out / "headers" / "a0.h").read_text(), "all but masked_sums"
    assert "#define SWN_REFUSES 0x0040u" in (out / "headers" / "g0.h").read_text(), "features alone"
    assert masking.NOTE in report.notes


def test_groups_stay_and_late_nodes_make_their_own(tmp_path: Path) -> None:
    out = tmp_path / "keys"
    pilot.provision(table(tmp_path, 8, 0), out, mask_group_size=8)
    before = [keys_of(out, f"a{node}") for node in range(8)]
    assert not pilot.provision(table(tmp_path, 8, 0), out, mask_group_size=4).written
    pilot.provision(table(tmp_path, 12, 0), out, mask_group_size=4)
    assert [keys_of(out, f"a{node}") for node in range(8)] == before
    assert {keys_of(out, f"a{node}")[0] for node in range(8, 12)} == {before[0][0] + 1}
    # without the option, what there is stays
    assert not pilot.provision(table(tmp_path, 12, 0), out).written


def test_a_directory_of_before_tells_its_places_when_it_is_provisioned_again(tmp_path: Path) -> None:
    nodes, out = table(tmp_path, 8, 0), tmp_path / "keys"
    pilot.provision(nodes, out, mask_group_size=8)
    now = (out / "keys.csv").read_text()
    before = "".join(line.rpartition(",")[0] + "\n" for line in now.splitlines())
    (out / "keys.csv").write_text(before)
    assert {each.mask_place for each in commands(out) if isinstance(each, AddNode)} == {None}
    assert pilot.provision(nodes, out).written == ("keys.csv",)
    assert (out / "keys.csv").read_text() == now
    # Without masks.csv, which may be kept elsewhere, what was told stays.
    (out / masking.MASKS_FILE).rename(tmp_path / "masks.csv")
    pilot.provision(nodes, out)
    assert (out / "keys.csv").read_text() == now


@pytest.mark.parametrize("place", ["7", "7/0", "7/16/16", "7/0/3", "07/0/8", "a/0/8"])
def test_a_place_that_is_none_is_refused(tmp_path: Path, place: str) -> None:
    out = tmp_path / "keys"
    pilot.provision(table(tmp_path, 4, 0), out, mask_group_size=4)
    text = (out / "keys.csv").read_text()
    (out / "keys.csv").write_text(text.replace("0/0/4", place))
    with pytest.raises(CsvErrors, match="mask_place"):
        pilot.provision(table(tmp_path, 4, 0), out)
    assert any("mask_place" in mistake for mistake in read_nodes(out).mistakes)


@pytest.mark.parametrize("count", range(4, 40))
@pytest.mark.parametrize("size", [4, 8, 16])
def test_groups_have_four_to_sixteen_members(count: int, size: int) -> None:
    rows, alone = masking.assign([(f"n{i}", "apple") for i in range(count)], {}, size, bytes)
    sizes: dict[str, int] = {}
    for row in rows.values():
        sizes[row["mask_group"]] = sizes.get(row["mask_group"], 0) + 1
        assert int(row["mask_position"]) < int(row["mask_size"])
    assert not alone and all(4 <= members <= 16 for members in sizes.values())
