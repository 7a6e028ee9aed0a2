"""Scenarios: a TOML file becomes one validated value; every mistake is reported with its line.

A scenario says what the world is like (nodes, days, radio, hardships) and what the gateway is told
(learning, multicast, asking: the core's own settings, `swarm.config`).  `load` returns a `Scenario`
or raises `ScenarioError`, whose text holds one line per mistake: `file:line: key: what; what to do`.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from swarm.config import Asking, Borrowing, Learning, Mac, Multicast, SwarmConfig
from swarm.federation.modes import MODE_NAMES
from swarm.phy.link import NOISE_FIGURE_DB, PATH_LOSS_EXPONENT, SHADOWING_SD_DB
from swarm.phy.regions import Region
from swarm.phy.regions import region as region_of

__all__ = [
    "SCENARIO_FOLDER",
    "Hardship",
    "LargeBlock",
    "Live",
    "Queries",
    "Radio",
    "Scenario",
    "ScenarioError",
    "load",
    "names",
]

SCENARIO_FOLDER = Path(__file__).parent / "scenarios"
NODES_MAX = 10_000
"""Full-stack fidelity is meant for up to this many nodes."""
UPLINK_PAYLOAD_MIN = 17
"""A status; updates and answers are shorter or fit themselves to the data rate."""
MULTICAST_PAYLOAD_MIN = 24
"""An announcement has 19 B, a piece of a model block 15 B of header."""


@dataclass(frozen=True, slots=True)
class Radio:
    """The cell's radios and the mean channel.

    Path loss is `swarm.phy.link`'s: free space to 1 m, then 10 * `path_loss_exponent` dB a decade, plus
    the foliage of the crop around an antenna at `node_height_m`.
    """

    node_power_dbm: float = 14.0
    """Radiated power of a node (EIRP)."""
    node_height_m: float = 2.0
    noise_figure_db: float = NOISE_FIGURE_DB
    path_loss_exponent: float = PATH_LOSS_EXPONENT
    link_margin_db: float = 6.0
    """Spare dB with which each node's data rate is chosen, as ADR would settle it."""
    data_rate_min: int = 0
    data_rate_max: int = 5
    adr: bool = False
    """Nobody plans data rates: nodes start with `data_rate_min` at full power and set the ADR bit."""
    demodulators: int = 8
    capture: Literal["energy", "pairwise", "aloha"] = "energy"
    """When frames overlap: cumulative energy per spreading factor against the SIR matrix, each
    interferer alone against it, or any overlap on one channel and spreading factor destroys both."""


@dataclass(frozen=True, slots=True)
class Hardship:
    """Everything that may go wrong, in one place; zeros make a perfect world."""

    loss_probability: float = 0.0
    """Share of otherwise good frames, each way, destroyed by foreign interference."""
    downlink_loss: float = 0.0
    """Share of otherwise good downlinks that each node loses besides, independently."""
    shadowing_db: float = SHADOWING_SD_DB
    """Standard deviation of the lognormal shadowing of a link, drawn once."""
    leaf_on: bool = True
    """Crops carry their leaves: up to 14 dB more loss in an orchard."""
    channel_fading_db: float = 2.0
    """Standard deviation between the channels of one link, drawn once (real links differ by channel)."""
    fading_db: float = 2.0
    """Standard deviation from frame to frame."""
    clock_drift_ppm: float = 20.0
    """Standard deviation of the nodes' clock rates; each node keeps its own."""
    outages_per_day: float = 0.0
    """Mean number of times a day when the gateway hears and sends nothing."""
    outage_s: int = 600
    gateway_restarts: int = 0
    """How often in the run the gateway is stopped and rebuilt from its rows, in mid-round."""


@dataclass(frozen=True, slots=True)
class Queries:
    """The people who ask: how often a day, about plots drawn at random."""

    per_day: float = 4.0
    deadline_s: int = 60
    about: Literal["node", "plot"] = "node"
    """They point at a place on the map (where a node stands), or name a plot: then many ask the same."""


@dataclass(frozen=True, slots=True)
class Live:
    """What `swarm sim live` adds: the nodes' past, so that the first round has something to learn from."""

    history_days: int = 20


@dataclass(frozen=True, slots=True)
class LargeBlock:
    """A signed container that the gateway is told to send to all nodes (TS004); none unless `at_s` is set."""

    at_s: int = 0
    """When the gateway is told, counted from the start."""
    experts_away: int = 4
    """Experts of eight that the container leaves out: it has 30 kB less 2.4 kB for each."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A run of one cell: one gateway (so far no more) in the centre of a disc of `radius_m`.

    `test_days` follow the `days` of the run and are never learned from.  `weather` names an hourly
    station CSV; empty, the seed makes the weather.
    """

    name: str
    title: str = ""
    seed: int = 1
    nodes: int = 50
    days: int = 10
    test_days: int = 15
    region: str = "eu868"
    gateways: int = 1
    radius_m: float = 3_000.0
    activation: Literal["abp", "otaa"] = "abp"
    weather: str = ""
    told_share: float = 1.0
    """How many of its labels a node is told: somebody has to look at the plot."""
    status_period_min: int = 1_440
    first_listen_s: int = 0
    """Nodes are switched on with their receivers open for so long, as by an installer; 0: each asks for
    the schedule of the multicast windows in its first status."""
    radio: Radio = field(default_factory=Radio)
    hardship: Hardship = field(default_factory=Hardship)
    queries: Queries = field(default_factory=Queries)
    live: Live = field(default_factory=Live)
    large_block: LargeBlock = field(default_factory=LargeBlock)
    learning: Learning = field(default_factory=Learning)
    multicast: Multicast = field(default_factory=Multicast)
    asking: Asking = field(default_factory=Asking)
    borrowing: Borrowing = field(default_factory=Borrowing)

    def swarm_config(self) -> SwarmConfig:
        """What the gateway of this scenario is told."""
        return SwarmConfig(
            region=self.region,
            learning=self.learning,
            multicast=self.multicast,
            asking=self.asking,
            borrowing=self.borrowing,
            mac=Mac(adr_data_rate_min=self.radio.data_rate_min, adr_data_rate_max=self.radio.data_rate_max),
            dedup_us=0,  # one gateway: there is nothing to wait for
            status_period_min=self.status_period_min,
        )

    def override(
        self,
        *,
        nodes: int | None = None,
        days: int | None = None,
        seed: int | None = None,
        weather: str | None = None,
    ) -> Scenario:
        """The same scenario with what the command line says (`--nodes` and so on), checked like the file."""
        given = {"nodes": nodes, "days": days, "seed": seed}
        changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        mistakes = [
            f"--{key}: {wrong}" for key, value in changes.items() if (wrong := _out_of_range(key, value))
        ]
        if weather is not None:
            changes["weather"] = weather
            if not Path(weather).is_file():
                mistakes.append(f"--weather: {weather} is no file; give the path of an hourly CSV")
        if mistakes:
            raise ScenarioError(mistakes)
        return replace(self, **changes)


class ScenarioError(ValueError):
    """All mistakes of a scenario at once, one line each."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


_CHOICES: dict[str, tuple[str, ...]] = {"learning.mode": MODE_NAMES}
_RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**63 - 1),
    "nodes": (1, NODES_MAX),
    "days": (1, 3_650),
    "test_days": (1, 365),
    "gateways": (1, 1),
    "radius_m": (10, 100_000),
    "told_share": (0, 1),
    "status_period_min": (1, 65_535),
    "first_listen_s": (0, 65_535),
    "radio.node_power_dbm": (-10, 30),
    "radio.noise_figure_db": (0, 20),
    "radio.node_height_m": (0, 50),
    "radio.path_loss_exponent": (1, 8),
    "radio.link_margin_db": (-20, 40),
    "radio.data_rate_min": (0, 15),
    "radio.data_rate_max": (0, 15),
    "radio.demodulators": (1, 64),
    "hardship.loss_probability": (0, 1),
    "hardship.downlink_loss": (0, 0.9),
    "hardship.shadowing_db": (0, 30),
    "hardship.channel_fading_db": (0, 30),
    "hardship.fading_db": (0, 30),
    "hardship.clock_drift_ppm": (0, 1_000),
    "hardship.outages_per_day": (0, 1_000),
    "hardship.outage_s": (0, 86_400),
    "hardship.gateway_restarts": (0, 100),
    "queries.per_day": (0, 10_000),
    "queries.deadline_s": (1, 86_400),
    "live.history_days": (0, 60),
    "large_block.at_s": (0, 86_400 * 30),
    "large_block.experts_away": (0, 8),
    "learning.period_s": (30, 86_400 * 30),
    "learning.spread_s": (1, 65_535),
    "learning.close_s": (5, 86_400 * 30),
    "learning.window_s": (1, 65_535),
    "learning.cohort": (1 / 256, 1),
    "learning.quorum": (0, 1),
    "learning.staleness_max": (0, 1_000),
    "learning.prototype_rounds": (0, 65_535),
    "multicast.data_rate": (0, 15),
    "multicast.frequency_hz": (100_000_000, 1_000_000_000),
    "multicast.repeats": (1, 16),
    "asking.k": (1, 256),
    "asking.deadline_s": (1, 86_400),
    "asking.queries_max": (1, 100_000),
    "asking.fresh_s": (0, 86_400),
    "asking.holders": (1, 4),
    "asking.expert_deadline_s": (1, 86_400),
    "borrowing.survey_days": (3, 30),
    "borrowing.compare_days": (0, 30),
    "borrowing.survey_every_days": (10, 3_650),
    "borrowing.lease_days": (8, 255),
    "borrowing.lenders": (1, 8),
    "borrowing.correlation_min": (-1, 1),
    "borrowing.airtime_ms_max": (1, 60_000),
}


def names() -> list[str]:
    """The scenarios that are shipped, sorted."""
    return sorted(path.stem for path in SCENARIO_FOLDER.glob("*.toml"))


def load(scenario: str | Path) -> Scenario:
    """Read a shipped scenario by its name, or any by its path."""
    path, shipped = Path(scenario), False
    if path.suffix != ".toml" and not path.is_file():
        path, shipped = SCENARIO_FOLDER / f"{scenario}.toml", True
        if not path.is_file():
            raise ScenarioError(
                [f"{scenario}: no such scenario; give a path or one of: {', '.join(names())}"]
            )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError([f"{path}: cannot be read ({error}); give a readable UTF-8 file"]) from error
    return parse(text, str(path), Path(path).stem, shipped=shipped)


def parse(text: str, file: str, name: str, *, shipped: bool = False) -> Scenario:
    """Validate the TOML `text`; `file` is named in complaints, `name` used where none is given.

    Whether there is such a strategy is not asked of a `shipped` file: that needs Flower, which takes seconds.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError([_syntax_mistake(file, error)]) from error
    table.setdefault("name", name)
    reader = _Reader(file, _key_lines(text))
    values = reader.section(Scenario, table, "")
    if not reader.mistakes:
        scenario = Scenario(**values)
        reader.across(scenario)
        if not shipped and {"strategy", "options"} & set(table.get("learning", ())):
            reader.strategy_fits(scenario)
    if reader.mistakes:
        raise ScenarioError(reader.mistakes)
    return scenario


def _syntax_mistake(file: str, error: tomllib.TOMLDecodeError) -> str:
    at = re.search(r"\(at line (\d+)", str(error))
    what = re.sub(r" \(at .*\)$", "", str(error))
    line = at.group(1) if at else 1
    return f"{file}:{line}: not TOML: {what}; write `key = value` lines under `[section]` headers"


def _key_lines(text: str) -> dict[str, int]:
    """Where each dotted key stands: tomllib does not tell."""
    lines: dict[str, int] = {}
    prefix = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[\s*([\w.\-]+)\s*\]", line):
            prefix = header.group(1) + "."
            lines.setdefault(header.group(1), number)
        elif key := re.match(r"\s*([\w.\-]+)\s*=", line):
            lines.setdefault(prefix + key.group(1), number)
    return lines


def _out_of_range(key: str, value: float) -> str | None:
    low, high = _RANGES.get(key, (float("-inf"), float("inf")))
    if low <= value <= high:
        return None
    return f"{value} is outside {low:g}..{high:g}; choose a value in that range"


class _Reader:
    """Turns tables into dataclasses, field by field, and collects what is wrong."""

    def __init__(self, file: str, lines: Mapping[str, int]) -> None:
        self._file = file
        self._lines = lines
        self.mistakes: list[str] = []

    def section(self, kind: type, table: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        """The checked values of one table whose keys are the fields of `kind`."""
        hints = get_type_hints(kind)
        known = [each.name for each in fields(kind)]
        values: dict[str, Any] = {}
        for key, value in table.items():
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
                self._wrong(prefix + key, f"unknown key; {hint}")
            elif is_dataclass(hints[key]):
                values[key] = self._nested(hints[key], value, prefix + key)
            else:
                values[key] = self._scalar(hints[key], value, prefix + key)
        for each in fields(kind):
            if each.name not in table and each.default is MISSING and each.default_factory is MISSING:
                self._wrong(prefix + each.name, "is missing; add it")
        return values

    def across(self, scenario: Scenario) -> None:
        """What only several keys together can get wrong."""
        try:
            region = region_of(scenario.region)
        except ValueError as error:
            self._wrong("region", f"{error}")
            return
        self._radio_fits(scenario, region)
        self._multicast_fits(scenario, region)
        if scenario.learning.mode != "none" and scenario.learning.close_s > scenario.learning.period_s:
            self._wrong("learning.close_s", "is longer than period_s; close a round before the next opens")
        if scenario.weather and not Path(scenario.weather).is_file():
            self._wrong(
                "weather", f"{scenario.weather} is no file; give the path of an hourly CSV or nothing"
            )

    def _radio_fits(self, scenario: Scenario, region: Region) -> None:
        radio = scenario.radio
        for key in ("data_rate_min", "data_rate_max"):
            rate = region.uplink_data_rates.get(getattr(radio, key))
            if rate is None or rate.kind != "lora":
                usable = [index for index, row in region.uplink_data_rates.items() if row.kind == "lora"]
                what = f"{getattr(radio, key)} is no LoRa data rate of {region.name}"
                self._wrong(f"radio.{key}", f"{what}; choose one of {', '.join(map(str, sorted(usable)))}")
            elif (room := region.payload_max(rate.index, uplink=True)) < UPLINK_PAYLOAD_MIN:
                what = f"{rate.index} of {region.name} carries {room} B, a status needs {UPLINK_PAYLOAD_MIN}"
                self._wrong(f"radio.{key}", f"{what}; choose a faster one")
        if radio.data_rate_min > radio.data_rate_max:
            self._wrong("radio.data_rate_min", "is above data_rate_max; swap them")
        if radio.node_power_dbm > region.max_eirp_dbm:
            limit = f"{region.max_eirp_dbm:g} dBm EIRP of {region.name}"
            self._wrong("radio.node_power_dbm", f"{radio.node_power_dbm:g} is above the {limit}; lower it")

    def _multicast_fits(self, scenario: Scenario, region: Region) -> None:
        given = scenario.multicast.data_rate
        rate = region.rx2_data_rate if given is None else given
        usable = [index for index, row in region.downlink_data_rates.items() if row.kind == "lora"]
        if rate not in usable:
            what = f"{rate} is no downlink data rate of {region.name} for LoRa"
            self._wrong("multicast.data_rate", f"{what}; choose one of {', '.join(map(str, sorted(usable)))}")
        elif (room := region.payload_max(rate, uplink=False)) < MULTICAST_PAYLOAD_MIN:
            what = f"data rate {rate} of {region.name} carries {room} B, a model block needs"
            self._wrong("multicast.data_rate", f"{what} {MULTICAST_PAYLOAD_MIN}; choose a faster one")

    def strategy_fits(self, scenario: Scenario) -> None:
        """Strategy and options against what takes them."""
        from swarm.federation.strategy import mistakes  # noqa: PLC0415  # imports Flower

        learning = scenario.learning
        for path, problem, remedy in mistakes(learning.mode, learning.strategy, learning.options):
            self._wrong(".".join(("learning", *path)), f"{problem}; {remedy}")

    def _nested(self, kind: Any, value: object, key: str) -> object:
        if not isinstance(value, dict):
            self._wrong(key, f"is a section; write [{key}] and its keys below")
            return None
        before = len(self.mistakes)
        values = self.section(kind, value, key + ".")
        return kind(**values) if len(self.mistakes) == before else None

    def _scalar(self, hint: Any, value: Any, key: str) -> Any:
        choices = get_args(hint) if get_origin(hint) is Literal else _CHOICES.get(key, ())
        if choices:
            if value not in choices:
                self._wrong(key, f"{value!r} is not a choice; choose one of {', '.join(map(str, choices))}")
            return value
        if get_origin(hint) is dict:
            if not isinstance(value, dict):
                self._wrong(key, f"is a table; write [{key}] and `option = value` lines below")
            return value
        kinds = [each for each in get_args(hint) if each is not type(None)] if _is_union(hint) else [hint]
        if float in kinds and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not any(type(value) is each for each in kinds):
            self._wrong(key, f"{value!r} is no {_words(kinds)}; write one")
        elif isinstance(value, int | float) and (wrong := _out_of_range(key, value)):
            self._wrong(key, wrong)
        return value

    def _wrong(self, key: str, what: str) -> None:
        line = self._lines.get(key)
        if line is None:  # a missing key is complained about at its section's header
            line = self._lines.get(key.rpartition(".")[0], 1)
        self.mistakes.append(f"{self._file}:{line}: {key}: {what}")


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType)


def _words(kinds: list[type]) -> str:
    words = {int: "whole number", float: "number", str: "text in quotes", bool: "true or false"}
    return " or ".join(words.get(kind, kind.__name__) for kind in kinds)
