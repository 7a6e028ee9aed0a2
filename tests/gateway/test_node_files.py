"""What `swarm nodes import` reads: tables of people and spreadsheets, JSON, provisioned directories."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.commands.node_files import NodesFile, read_nodes
from gateway.commands.output import CommandError
from swarm.config import MulticastChannel
from swarm.security.lorawan import AesKey, multicast_keys


def test_node_tables(tmp_path: Path) -> None:
    table = tmp_path / "nodes.csv"
    table.write_text(
        "\ufeffdev_eui,name,context,activation,lat,app_key\n"
        f"70b3d57ed0000001,a,grape,otaa,47.5,{'00' * 16}\n\n"
    )
    node = {
        "dev_eui": "70b3d57ed0000001",
        "name": "a",
        "crop": "grape",
        "activation": "otaa",
        "lat": 47.5,
        "app_key": "00" * 16,
    }
    assert read_nodes(table) == NodesFile([(f"{table}:2", node)], [], None)
    table.write_text("dev_eui,name,lat\na,b,north\nc,d\ne,f,1,2\n")
    read = read_nodes(table)
    assert read.nodes == []
    assert sorted(line.split(": ")[0] for line in read.mistakes) == [f"{table}:{n}" for n in (2, 3, 4)]
    table.write_text("dev_eui,colour\n")
    with pytest.raises(CommandError, match="'colour': unknown column; the columns are dev_eui, name"):
        read_nodes(table)
    table.write_text("dev_eui,colour,taste\n")
    with pytest.raises(CommandError, match="'colour', 'taste': unknown columns"):
        read_nodes(table)
    table.write_text("{}[")
    with pytest.raises(CommandError, match="is not JSON"):
        read_nodes(table)


def test_tables_of_spreadsheets_with_semicolons(tmp_path: Path) -> None:
    table = tmp_path / "nodes.csv"
    plain = f"dev_eui,name,crop,activation,lat,app_key\n70b3d57ed0000001,a,grape,otaa,47.5,{'00' * 16}\n"
    table.write_text(plain)
    ((_, node),) = read_nodes(table).nodes
    table.write_text("\ufeffsep=;\r\n" + plain.replace(",", ";").replace("47.5", "47,5") + ";;;;;\r\n")
    assert read_nodes(table) == NodesFile([(f"{table}:3", node)], [], None)
    table.write_text(plain.replace(",", "\t"))
    assert read_nodes(table).nodes == [(f"{table}:2", node)]


def test_a_file_may_say_where_its_nodes_listen(tmp_path: Path) -> None:
    """The group's channel is read from both kinds of files, and never sent to the daemon."""
    group = {"mc_addr": "00ff0000", "nwk_s_key": "01" * 16, "app_s_key": "02" * 16}
    channel = {"region": "eu868", "data_rate": 5, "frequency_hz": 869_525_000}
    file = tmp_path / "nodes.json"
    file.write_text(json.dumps({"nodes": [], "multicast": group | channel}))
    read = read_nodes(file)
    assert (read.multicast, read.channel) == (group, MulticastChannel(**channel))
    (tmp_path / "keys.csv").write_text("dev_eui,name,crop,activation\n")
    cells = [str(value) for value in {**group, **channel}.values()]
    (tmp_path / "multicast.csv").write_text(",".join({**group, **channel}) + "\n" + ",".join(cells) + "\n")
    read = read_nodes(tmp_path)
    assert (read.multicast, read.channel) == (group, MulticastChannel(**channel))
    (tmp_path / "multicast.csv").write_text(",".join(group) + "\n" + ",".join(cells[:3]) + "\n")
    read = read_nodes(tmp_path)
    assert (read.multicast, read.channel) == (group, None)
    file.write_text(json.dumps({"nodes": [], "multicast": {**group, "region": "mars", "data_rate": 5}}))
    with pytest.raises(CommandError, match="multicast: region, data_rate or frequency_hz is not usable"):
        read_nodes(file)


def test_a_group_s_mckey_gives_its_other_keys(tmp_path: Path) -> None:
    """One key is enough of a group for devices of another make; it is not mended where two are given."""
    file = tmp_path / "group.json"
    mc_key, mc_addr = "0f0e0d0c0b0a09080706050403020100", "ff000001"
    group = {"mc_addr": mc_addr, "mc_key": mc_key}
    file.write_text(json.dumps({"nodes": [], "multicast": group}))
    nwk_s_key, app_s_key = multicast_keys(AesKey(bytes.fromhex(mc_key)), int(mc_addr, 16))
    keys = {"nwk_s_key": nwk_s_key.hex(), "app_s_key": app_s_key.hex()}
    assert read_nodes(file).multicast == {**group, **keys}
    file.write_text(json.dumps({"nodes": [], "multicast": {**group, "nwk_s_key": "01" * 16}}))
    with pytest.raises(CommandError, match="app_s_key is missing"):
        read_nodes(file)
    file.write_text(json.dumps({"nodes": [], "multicast": {**group, "mc_key": "0f0e"}}))
    with pytest.raises(CommandError, match="nwk_s_key is missing"):
        read_nodes(file)
