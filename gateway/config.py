"""`swarm.toml`: read, overridden by the environment, and checked so that every mistake is named at once.

A mistake is one line, `swarm.toml:LINE: section.key: what is wrong; what to do`, and a file with ten
mistakes gives ten of them.  Nothing is half-accepted: either a `GatewayConfig` comes back, or a
`ConfigError` with all lines.  `SWARM_<SECTION>_<KEY>` in the environment overrides a key.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from gateway.mac_section import MacSection, check_mac
from gateway.toml_source import GIVEN_UP, Source, parse
from swarm.config import Asking, Borrowing, Learning, Multicast, Privacy, SwarmConfig
from swarm.federation.modes import MODE_NAMES
from swarm.phy.regions import REGION_NAMES, region

__all__ = ["ConfigError", "GatewayConfig", "Judge", "LearningSection", "example", "read", "swarm_config"]

REPAIRS_MAX = 50
MISTAKES_MAX = 200
ENVIRONMENT_PREFIX = "SWARM_"

Port = Annotated[int, Field(ge=0, le=65_535, description="a whole number from 0 (any free port) to 65535")]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, description="a number above 0 and up to 1")]
Seconds = Annotated[int, Field(ge=10, le=2_592_000, description="whole seconds from 10 to 2592000 (30 days)")]
Host = Annotated[
    str,
    Field(
        min_length=1,
        max_length=255,
        pattern=r"^[^\x00-\x20\x7f]+$",
        description="a host name or address in quotes",
    ),
]

File = Annotated[
    str, Field(max_length=4096, pattern=r"^[^\x00]*$", description='a file in quotes, or "" for none')
]
Euis = Annotated[
    list[Annotated[str, Field(pattern=r"^[0-9a-fA-F]{16}$")]],
    Field(max_length=1000, description='a list of EUIs of 16 hexadecimal digits, as ["aa555a0000000000"]'),
]
Topic = Annotated[
    str,
    Field(
        max_length=128,
        pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$",
        description='letters, digits, "-" and "_" in quotes, with "/" between levels',
    ),
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class GatewaySection(_Section):
    """[gateway]"""

    data_dir: Annotated[str, Field(min_length=1, max_length=4096, description="a directory in quotes")] = (
        "swarm-data"
    )
    region: Annotated[str, Field(description="one of " + ", ".join(REGION_NAMES))] = "eu868"


class UdpSection(_Section):
    """[udp]"""

    host: Host = "0.0.0.0"
    port: Port = 1700
    gateways: Euis = []


class StationsSection(_Section):
    """[stations]: LoRa Basics Station"""

    enabled: Annotated[bool, Field(description="true or false, without quotes")] = False
    host: Host = "0.0.0.0"
    port: Port = 1887
    gateways: Euis = []
    channels_hz: Annotated[
        list[Annotated[int, Field(ge=100_000_000, le=3_000_000_000)]],
        Field(max_length=9, description="a list of up to 9 uplink channels in whole hertz, as [868100000]"),
    ] = []
    token_file: File = ""
    cert_file: File = ""
    key_file: File = ""
    ca_file: File = ""


class HttpSection(_Section):
    """[http]"""

    enabled: Annotated[bool, Field(description="true or false, without quotes")] = True
    host: Host = "127.0.0.1"
    port: Port = 8080


class BrokerSection(_Section):
    """How to reach an MQTT broker."""

    enabled: Annotated[bool, Field(description="true or false, without quotes")] = False
    host: Host = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65_535, description="a whole number from 1 to 65535")] = 1883
    tls: Annotated[bool, Field(description="true or false, without quotes")] = False
    ca_file: File = ""
    cert_file: File = ""
    key_file: File = ""
    username: Annotated[
        str,
        Field(max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$", description="a user name in quotes"),
    ] = ""
    password_file: File = ""
    client_id: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9_.-]{0,64}$", description='letters, digits, "-", "_" and "." in quotes'),
    ] = ""


class MqttSection(BrokerSection):
    """[mqtt]"""

    prefix: Topic = "swarm"
    name: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description='letters, digits, "-" and "_" in quotes')
    ] = "gateway"
    discovery: Annotated[bool, Field(description="true or false, without quotes")] = True
    discovery_prefix: Topic = "homeassistant"


class NetworkSection(BrokerSection):
    """[network]: somebody else's network server, over its broker"""

    kind: Annotated[
        Literal["chirpstack", "things_stack"], Field(description='one of "chirpstack", "things_stack"')
    ] = "chirpstack"
    application: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9-]{0,64}(@[a-z0-9-]{1,36})?$",
            description="the application's id in quotes, as the server's topics have it",
        ),
    ] = ""
    multicast: bool = False


class NodesSection(_Section):
    """[nodes]"""

    rx1_delay_s: Annotated[int, Field(ge=1, le=15, description="whole seconds from 1 to 15")] = 1
    status_period_min: Annotated[
        int, Field(ge=1, le=10_080, description="whole minutes from 1 to 10080 (7 days)")
    ] = 60


class PrivacySection(_Section):
    """[learning.privacy]: of mode masked_sums."""

    epsilon: Annotated[float, Field(ge=0, le=1000, description="0 (no noise), or a number up to 1000")] = 0.0
    delta: Annotated[float, Field(gt=0, lt=1, description="a number between 0 and 1, as 1e-5")] = 1e-5
    clip: Annotated[float, Field(ge=0.1, le=4, description="a number from 0.1 to 4")] = 1.0
    releases: Annotated[int, Field(ge=1, le=255, description="a whole number from 1 to 255")] = 1
    samples_max: Annotated[int, Field(ge=1, le=64, description="a whole number from 1 to 64")] = 24


class LearningSection(_Section):
    """[learning]"""

    mode: Annotated[
        str,
        Field(
            pattern=f"^({'|'.join(MODE_NAMES)})$",
            description="one of " + ", ".join(f'"{name}"' for name in MODE_NAMES),
        ),
    ] = "prototypes"
    strategy: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$",
            description='the name of a Flower strategy, as "FedAdam"',
        ),
    ] = "FedAdam"
    period_s: Seconds = 28_800
    window_s: Annotated[int, Field(ge=10, le=65_535, description="whole seconds from 10 to 65535")] = 900
    spread_s: Annotated[int, Field(ge=0, le=65_535, description="whole seconds from 0 to 65535")] = 10_800
    close_s: Seconds = 14_400
    cohort: Share = 1.0
    quorum: Share = 1.0
    staleness_max: Annotated[int, Field(ge=0, le=1000, description="a whole number from 0 to 1000")] = 4
    contexts: Annotated[Literal["all", "new"], Field(description='one of "all", "new"')] = "all"
    share_features: Annotated[bool, Field(description="true or false")] = False
    prototype_rounds: Annotated[int, Field(ge=0, le=10_000, description="a whole number from 0 to 10000")] = 0
    roll_back: Annotated[bool, Field(description="true or false, without quotes")] = True
    options: Annotated[
        dict[str, bool | int | float | str],
        Field(max_length=50, description="numbers, true or false, or texts that the strategy takes"),
    ] = {}
    privacy: PrivacySection = PrivacySection()


class MulticastSection(_Section):
    """[multicast]"""

    data_rate: Annotated[int | None, Field(ge=0, le=15, description="a data rate from 0 to 15")] = None
    frequency_hz: Annotated[
        int | None, Field(ge=100_000_000, le=3_000_000_000, description="whole hertz, as 869525000")
    ] = None
    repeats: Annotated[int, Field(ge=1, le=10, description="a whole number from 1 to 10")] = 2


class AskingSection(_Section):
    """[asking]"""

    k: Annotated[int, Field(ge=1, le=50, description="a whole number from 1 to 50")] = 5
    deadline_s: Annotated[
        int, Field(ge=1, le=86_400, description="whole seconds from 1 to 86400 (a day)")
    ] = 3600
    fresh_s: Annotated[
        int, Field(ge=0, le=86_400, description="whole seconds from 0 (never) to 86400 (a day)")
    ] = 600
    replica: Annotated[bool, Field(description="true or false, without quotes")] = True
    holders: Annotated[int, Field(ge=1, le=4, description="a whole number from 1 to 4")] = 1
    expert_deadline_s: Annotated[
        int, Field(ge=1, le=86_400, description="whole seconds from 1 to 86400 (a day)")
    ] = 3600


class BorrowingSection(_Section):
    """[borrowing]"""

    enabled: Annotated[bool, Field(description="true or false, without quotes")] = False
    survey_days: Annotated[int, Field(ge=3, le=30, description="whole days from 3 to 30")] = 7
    compare_days: Annotated[int, Field(ge=0, le=30, description="whole days from 0 (never) to 30")] = 14
    survey_every_days: Annotated[int, Field(ge=10, le=3650, description="whole days from 10 to 3650")] = 90
    lease_days: Annotated[int, Field(ge=8, le=255, description="whole days from 8 to 255")] = 28
    lenders: Annotated[int, Field(ge=1, le=8, description="a whole number from 1 to 8")] = 2
    correlation_min: Annotated[
        float, Field(ge=-1, le=1, allow_inf_nan=False, description="a number from -1 to 1")
    ] = 0.6
    airtime_ms_max: Annotated[
        int, Field(ge=1, le=60_000, description="whole milliseconds from 1 to 60000")
    ] = 3000


class LabSection(_Section):
    """[lab]: for experiments against a simulated packet forwarder."""

    clock_speed: Annotated[
        float, Field(gt=0, le=100_000, allow_inf_nan=False, description="a number above 0 and up to 100000")
    ] = 1.0


class GatewayConfig(_Section):
    """All of `swarm.toml`; `data_dir` is resolved against the directory of the file."""

    gateway: GatewaySection = GatewaySection()
    udp: UdpSection = UdpSection()
    stations: StationsSection = StationsSection()
    http: HttpSection = HttpSection()
    mqtt: MqttSection = MqttSection()
    network: NetworkSection = NetworkSection()
    nodes: NodesSection = NodesSection()
    learning: LearningSection = LearningSection()
    multicast: MulticastSection = MulticastSection()
    asking: AskingSection = AskingSection()
    borrowing: BorrowingSection = BorrowingSection()
    mac: MacSection = MacSection()
    lab: LabSection = LabSection()

    @property
    def data_dir(self) -> Path:
        return Path(self.gateway.data_dir)


Judge = Callable[[LearningSection], Iterable[tuple[tuple[str, ...], str, str]]]
"""Finds mistakes that this module cannot see: (key path, problem, remedy) each."""


class ConfigError(Exception):
    """Everything that is wrong, one line each."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def read(
    path: Path, environment: Mapping[str, str] | None = None, judge: Judge | None = None
) -> GatewayConfig:
    """The checked configuration in `path`; ConfigError names every mistake, those that `judge` finds too."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError([f"{path}: there is no such file; `swarm gateway init` writes one"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{path}: is not UTF-8 text; save it as UTF-8"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}; give another file with -c"]) from None
    source = Source(str(path), text)
    values = parse(source)
    _override(source, values, os.environ if environment is None else environment)
    config = _validate(source, values)
    _check_together(source, config)
    config = _beside(path.parent, config)
    _check_data_dir(source, config.data_dir)
    judged = {("learning", "mode"), ("learning", "strategy"), ("learning", "options")}
    if judge is not None and not source.bad & judged:
        for mistake in judge(config.learning):
            source.mistake(*mistake)
    if source.mistakes:
        raise ConfigError([line for _, line in sorted(source.mistakes)][:MISTAKES_MAX])
    return config


def _beside(folder: Path, config: GatewayConfig) -> GatewayConfig:
    """Relative paths start at the directory of the file."""

    def resolved(section: _Section, *keys: str) -> dict[str, str]:
        named = {key: getattr(section, key) for key in keys}
        return {key: str((folder / name).expanduser()) for key, name in named.items() if name}

    gateway = config.gateway.model_copy(update=resolved(config.gateway, "data_dir"))
    mqtt = resolved(config.mqtt, "ca_file", "cert_file", "key_file", "password_file")
    network = resolved(config.network, "ca_file", "cert_file", "key_file", "password_file")
    stations = resolved(config.stations, "ca_file", "cert_file", "key_file", "token_file")
    return config.model_copy(
        update={
            "gateway": gateway,
            "mqtt": config.mqtt.model_copy(update=mqtt),
            "network": config.network.model_copy(update=network),
            "stations": config.stations.model_copy(update=stations),
        }
    )


def example() -> str:
    """The commented `swarm.toml` that holds every key with its default."""
    return (resources.files("gateway") / "deploy" / "swarm.toml.example").read_text("utf-8")


def swarm_config(config: GatewayConfig) -> SwarmConfig:
    """What the core has to know of it."""
    learning = config.learning.model_dump()
    learning["privacy"] = Privacy(**learning["privacy"])
    return SwarmConfig(
        region=config.gateway.region.lower(),
        learning=Learning(**learning),
        multicast=Multicast(**config.multicast.model_dump()),
        asking=Asking(**config.asking.model_dump()),
        borrowing=Borrowing(**config.borrowing.model_dump()),
        mac=config.mac.to_core(),
        rx1_delay_s=config.nodes.rx1_delay_s,
        status_period_min=config.nodes.status_period_min,
        network=config.network.enabled,
        network_multicast=config.network.multicast,
    )


def _override(source: Source, values: dict[str, Any], environment: Mapping[str, str]) -> None:
    for variable in sorted(environment):
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        section, _, key = variable.removeprefix(ENVIRONMENT_PREFIX).lower().partition("_")
        if section not in GatewayConfig.model_fields or not key:
            continue  # SWARM_ is a common prefix: others' variables are none of ours
        source.from_environment[section, key] = variable
        table = values.setdefault(section, {})
        if isinstance(table, dict):
            table[key] = _literal(environment[variable])


def _literal(text: str) -> object:
    """A value as in TOML (1700, true, [1, 2]); anything else is a text."""
    try:
        return tomllib.loads(f"value = {text}")["value"] if "\n" not in text else text
    except tomllib.TOMLDecodeError:
        return text


def _validate(source: Source, values: dict[str, Any]) -> GatewayConfig:
    """The configuration; keys with mistakes are reported and stand at their defaults."""
    values = {name: table for name, table in values.items() if not name.startswith(GIVEN_UP)}
    for _ in range(REPAIRS_MAX):
        try:
            return GatewayConfig.model_validate(values)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                path = tuple(str(part) for part in detail["loc"])
                _remove(values, _refuse(source, path, detail))
    raise AssertionError("a key was refused twice")


def _key_of(path: tuple[str, ...]) -> tuple[tuple[str, ...], type[BaseModel] | None, FieldInfo | None]:
    """The key that a complaint is about (a list's members complain too), its section, and its field there.

    No field: the section has no such key.  No section: the key is one, and holds something else.
    """
    section: type[BaseModel] = GatewayConfig
    for depth, name in enumerate(path, start=1):
        field = section.model_fields.get(name)
        inner = None if field is None else field.annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return path[:depth], section, field
        section = inner
    return path, None, None


def _refuse(source: Source, path: tuple[str, ...], detail: Any) -> tuple[str, ...]:
    """Report a mistake, one a key; the key."""
    key, section, field = _key_of(path)
    if key in source.bad:
        return key
    if field is not None:
        shown = f"{detail['input']!r:.60}"
        problems = {"greater": "is too small", "less": "is too large", "literal": "is none of the choices"}
        kind = str(detail["type"])
        problem = next(
            (text for start, text in problems.items() if kind.startswith(start)), "is not usable here"
        )
        if detail["input"] != detail["input"]:  # nan
            problem = "is no number"
        source.mistake(key, f"{shown} {problem}", f"give {field.description}")
    elif section is None:
        remedy = f"write [{'.'.join(key)}] on a line of its own and its keys below"
        source.mistake(key, "this is a section, not a key", remedy)
    elif section is GatewayConfig:
        source.mistake(
            key, "there is no such section", _nearest(key[-1], list(section.model_fields), "sections")
        )
    else:
        what = f"keys of [{'.'.join(key[:-1])}]"
        source.mistake(key, "unknown key", _nearest(key[-1], list(section.model_fields), what))
    return key


def _nearest(name: str, names: list[str], what: str) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean `{close[0]}`?" if close else f"the {what} are {', '.join(names)}"


def _remove(values: dict[str, Any], key: tuple[str, ...]) -> None:
    table: Any = values
    for name in key[:-1]:
        table = table.get(name) if isinstance(table, dict) else None
    if isinstance(table, dict):
        table.pop(key[-1], None)


def _check_data_dir(source: Source, data_dir: Path) -> None:
    """A file cannot hold the data, nor can a directory be made below one."""
    there = next((str(each) for each in (data_dir, *data_dir.parents) if os.path.lexists(each)), ".")
    if not os.path.isdir(there):
        remedy = "choose a data_dir this user may write to"
        source.mistake(("gateway", "data_dir"), f"{there} is a file, not a directory", remedy)


def _check_together(source: Source, config: GatewayConfig) -> None:
    """What is right alone and wrong together; a key that is already refused is not judged again."""
    learning, multicast = config.learning, config.multicast

    def wrong(*paths: tuple[str, ...], problem: str, remedy: str) -> None:
        if not source.bad.intersection(paths):
            source.mistake(paths[0], problem, remedy)

    close, spread, period = ("learning", "close_s"), ("learning", "spread_s"), ("learning", "period_s")
    if learning.close_s > learning.period_s:
        problem = f"{learning.close_s} s is longer than period_s ({learning.period_s} s)"
        wrong(close, period, problem=problem, remedy="a round has to close before the next one opens")
    if learning.spread_s >= learning.close_s:
        problem = f"{learning.spread_s} s is not below close_s ({learning.close_s} s)"
        wrong(spread, close, problem=problem, remedy="replies need to arrive before the round closes")
    _check_broker(source, "mqtt", config.mqtt)
    _check_broker(source, "network", config.network)
    if config.network.enabled and not config.network.application:
        wrong(
            ("network", "application"),
            problem="'' is no application",
            remedy="give the id that its topics have",
        )
    _check_stations(source, config.stations)
    if config.gateway.region.lower() not in REGION_NAMES:
        remedy = _nearest(config.gateway.region.lower(), list(REGION_NAMES), "regions")
        source.mistake(("gateway", "region"), f"{config.gateway.region!r} is no region", remedy)
        return
    area = region(config.gateway.region)
    check_mac(source, config.mac, area)
    rate, frequency = ("multicast", "data_rate"), ("multicast", "frequency_hz")
    if multicast.data_rate is not None:
        rates = [index for index, row in area.downlink_data_rates.items() if row.kind == "lora"]
        if multicast.data_rate not in rates:
            problem = f"{area.name} has no LoRa downlink data rate {multicast.data_rate}"
            wrong(rate, problem=problem, remedy=f"give one of {', '.join(map(str, sorted(rates)))}")
    if multicast.frequency_hz is not None and not area.allows(multicast.frequency_hz):
        problem = f"{multicast.frequency_hz} Hz is in no sub-band of {area.name}"
        bands = ", ".join(f"{band.min_hz}-{band.max_hz}" for band in area.sub_bands)
        wrong(frequency, problem=problem, remedy=f"choose a frequency inside {bands}")


def _check_broker(source: Source, section: str, broker: BrokerSection) -> None:
    """Keys that mean something only together; the files themselves are read when they are used."""

    def needs(key: str, other: str) -> None:
        if getattr(broker, key) and not getattr(broker, other) and (section, other) not in source.bad:
            what = "is off" if other == "tls" else "is not given"
            remedy = "set tls = true" if other == "tls" else f"give {other} too"
            source.mistake(
                (section, key), f"{getattr(broker, key)!r:.60} is given and {other} {what}", remedy
            )

    needs("password_file", "username")
    needs("cert_file", "key_file")
    needs("key_file", "cert_file")
    for key in ("ca_file", "cert_file"):
        needs(key, "tls")
    try:
        broker.host.encode("idna")
    except UnicodeError:
        problem = f"{broker.host!r:.60} is no host name or address"
        source.mistake((section, "host"), problem, "correct it")


def _check_stations(source: Source, stations: StationsSection) -> None:
    """Certificate and key come together; a list of authorities means nothing without them."""
    pairs = (("cert_file", "key_file"), ("key_file", "cert_file"), ("ca_file", "cert_file"))
    for key, other in pairs:
        if getattr(stations, key) and not getattr(stations, other) and ("stations", other) not in source.bad:
            problem = f"{getattr(stations, key)!r:.60} is given and {other} is not given"
            source.mistake(("stations", key), problem, f"give {other} too")
