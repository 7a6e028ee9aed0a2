"""Scenarios: the shipped ones load, every mistake is found at once and named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulations.scenario import Scenario, ScenarioError, load, names, parse

GOOD = """
title = "two"
nodes = 2
days = 1

[learning]
mode = "top_k_sign"
period_s = 3600
close_s = 600

[learning.options]
eta = 0.01

[hardship]
fading_db = 0
"""


def mistakes(text: str) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        parse(text, "farm.toml", "farm")
    return caught.value.mistakes


@pytest.mark.parametrize("name", ["smoke", "farm_50", "farm_1000", "live_1000"])
def test_the_shipped_scenarios_load_by_name_and_by_path(name: str) -> None:
    by_name = load(name)
    assert by_name.name == name
    assert by_name == load(Path("simulations/scenarios") / f"{name}.toml")
    assert name in names()


def test_a_scenario_is_its_file_and_the_defaults() -> None:
    scenario = parse(GOOD, "farm.toml", "farm")
    assert (scenario.name, scenario.nodes, scenario.days, scenario.seed) == ("farm", 2, 1, 1)
    assert scenario.hardship.fading_db == 0.0
    assert scenario.learning.options == {"eta": 0.01}
    assert scenario.multicast == Scenario("x").multicast


def test_what_the_gateway_is_told_comes_from_the_scenario() -> None:
    config = load("farm_1000").swarm_config()
    assert config.learning.period_s == 8 * 3600
    assert config.status_period_min == 24 * 60
    assert config.dedup_us == 0


def test_all_mistakes_are_reported_at_once_each_with_its_line_and_what_to_do() -> None:
    found = mistakes(
        'nodes = 0\ndayz = 3\nregion = "eu868"\n\n[radio]\ncapture = "magic"\ndemodulators = 8.5\n'
    )
    assert found == [
        "farm.toml:1: nodes: 0 is outside 1..10000; choose a value in that range",
        "farm.toml:2: dayz: unknown key; did you mean 'days'?",
        "farm.toml:6: radio.capture: 'magic' is not a choice; choose one of energy, pairwise, aloha",
        "farm.toml:7: radio.demodulators: 8.5 is no whole number; write one",
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "nodes = \n",
            "farm.toml:1: not TOML: Invalid value; write `key = value` lines under `[section]` headers",
        ),
        ("nodes = 5\nnodes = 6\n", "farm.toml:2: not TOML: Cannot overwrite a value; write"),
        ("\nradio = 5\n", "farm.toml:2: radio: is a section; write [radio] and its keys below"),
        (
            "[learning]\nmode = 3\n",
            "farm.toml:2: learning.mode: 3 is not a choice; choose one of none, prototypes",
        ),
        ('region = "mars"\n', "farm.toml:1: region: unknown region 'mars'"),
        (
            "[radio]\ndata_rate_min = 7\n",
            "farm.toml:2: radio.data_rate_min: 7 is no LoRa data rate of eu868; choose one of 0, 1, ",
        ),
        ("[radio]\ndata_rate_min = 4\ndata_rate_max = 2\n", "farm.toml:2: radio.data_rate_min: is above"),
        (
            "[learning]\nclose_s = 600\nperiod_s = 60\n",
            "farm.toml:2: learning.close_s: is longer than period_s",
        ),
        (
            'region = "eu433"\n[radio]\nnode_power_dbm = 14\n',
            "farm.toml:3: radio.node_power_dbm: 14 is above the 12.15 dBm EIRP of eu433; lower it",
        ),
        (
            'region = "as923"\n[radio]\ndata_rate_min = 3\n[multicast]\ndata_rate = 2\n',
            "farm.toml:5: multicast.data_rate: data rate 2 of as923 carries 11 B, a model block needs 24;",
        ),
        (
            'region = "us915"\n[radio]\ndata_rate_min = 0\ndata_rate_max = 3\n',
            "farm.toml:3: radio.data_rate_min: 0 of us915 carries 11 B, a status needs 17; choose a faster",
        ),
        ("[multicast]\ndata_rate = 15\n", "farm.toml:2: multicast.data_rate: 15 is no downlink data rate"),
        (
            "[multicast]\ndata_rate = 7\n",
            "farm.toml:2: multicast.data_rate: 7 is no downlink data rate of eu868 for LoRa; choose one",
        ),
        ("[learning]\ncohort = 0\n", "farm.toml:2: learning.cohort: 0.0 is outside 0.00390625..1"),
        ('[learning]\nstrategy = "Foo"\n', "farm.toml:2: learning.strategy: unknown strategy Foo; usable: "),
        (
            '[learning]\nmode = "none"\nstrategy = "QFedAvg"\n',
            "farm.toml:3: learning.strategy: strategy QFedAvg needs each node's training loss",
        ),
        (
            '[learning]\nmode = "prototypes"\n[learning.options]\ngain_min = 5\n',
            "farm.toml:4: learning.options.gain_min: gain_min = 5: must be 0..1; correct it",
        ),
        (
            '[learning]\nmode = "top_k_sign"\noptions = { eta = nan }\n',
            "farm.toml:3: learning.options.eta: option eta of strategy FedAdam must be a finite number",
        ),
        (
            '[learning]\nmode = "top_k_sign"\noptions = { eta = "x" }\n',
            "farm.toml:3: learning.options.eta: option eta of strategy FedAdam must be a finite number",
        ),
        ('weather = "none.csv"\n', "farm.toml:1: weather: none.csv is no file"),
        ("seed = true\n", "farm.toml:1: seed: True is no whole number; write one"),
        (
            "[hardship]\nloss_probability = nan\n",
            "farm.toml:2: hardship.loss_probability: nan is outside 0..1",
        ),
        ("[hardships]\nfading_db = 1\n", "farm.toml:1: hardships: unknown key; did you mean 'hardship'?"),
    ],
)
def test_each_kind_of_mistake_says_what_and_what_to_do(text: str, complaint: str) -> None:
    assert mistakes(text)[0].startswith(complaint)


def test_the_command_line_overrides_and_is_checked_like_the_file() -> None:
    scenario = load("smoke").override(nodes=3, seed=9)
    assert (scenario.nodes, scenario.seed, scenario.days) == (3, 9, load("smoke").days)
    with pytest.raises(ScenarioError, match=r"--nodes: 0 is outside 1\.\.10000"):
        load("smoke").override(nodes=0)


def test_an_unknown_scenario_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"no such scenario; give a path or one of: .*farm_50"):
        load("farm_51")
    with pytest.raises(ScenarioError, match="cannot be read"):
        load(tmp_path / "absent.toml")


def test_a_file_that_is_no_text_is_a_mistake_and_not_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00nodes")
    with pytest.raises(ScenarioError, match=r"binary\.toml: cannot be read"):
        load(path)
