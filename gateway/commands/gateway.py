"""`swarm gateway`: write the settings, check them, and run the daemon."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands.output import AsJson, CommandError, show_json

if TYPE_CHECKING:
    from gateway.config import GatewayConfig, LearningSection
    from gateway.daemon import Beside, Daemon

__all__ = ["app", "mqtt_faces", "network_servers", "station_servers"]

app = typer.Typer(help="Run the gateway daemon, write and check its settings.", no_args_is_help=True)

ConfigFile = Annotated[Path, typer.Option("-c", "--config", help="The file with the settings.")]


@app.command()
def init(config_file: ConfigFile = Path("swarm.toml")) -> None:
    """Write a swarm.toml in which every key is explained.  Never overwrites.

    Example: swarm gateway init -c /etc/swarm/swarm.toml
    """
    from gateway.config import example

    try:
        with config_file.open("x", encoding="utf-8") as file:
            file.write(example())
    except FileExistsError:
        raise CommandError(
            f"{config_file}: is there already; edit it, or give another name with -c"
        ) from None
    typer.echo(f"{config_file}: written; edit it, then `swarm gateway run -c {config_file}`")


@app.command()
def check(config_file: ConfigFile = Path("swarm.toml"), as_json: AsJson = False) -> None:
    """Say every mistake in swarm.toml, each with its line, or that there is none.

    Example: swarm gateway check -c swarm.toml
    """
    from gateway import config
    from gateway.signing_file import read_signing_key

    settings = config.read(config_file, judge=_strategy_mistakes)
    _beside(config_file, settings)
    key = read_signing_key(settings.data_dir)
    public_key = None if key is None else key.public_key.hex()
    if as_json:
        what = {"file": str(config_file), "settings": settings.model_dump(), "signing_key": public_key}
        show_json(what)
        return
    typer.echo(f"{config_file}: no mistakes")
    if public_key is not None:
        typer.echo(f"{settings.data_dir}: models are signed, public key {public_key}")


@app.command()
def run(
    config_file: ConfigFile = Path("swarm.toml"),
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Log every frame.")] = False,
) -> None:
    """Serve packet forwarders until Ctrl-C or SIGTERM; killing it at any moment loses nothing.

    Example: swarm gateway run -c swarm.toml
    """
    import asyncio
    import logging

    from gateway import config

    settings = config.read(config_file, judge=_strategy_mistakes)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.WARNING)
    logging.getLogger("swarm").setLevel(logging.DEBUG if verbose else logging.INFO)
    asyncio.run(_serve(settings, _beside(config_file, settings)))


async def _serve(settings: GatewayConfig, beside: list[Beside]) -> None:
    import asyncio
    import gc

    from gateway.daemon import Daemon

    try:
        daemon = Daemon(settings)
    except ValueError as error:  # rows that another version or another region wrote
        raise CommandError(f"{settings.data_dir}: {error}") from error

    # What was loaded stays: the collector need not walk through ten thousand nodes again and again.
    gc.freeze()

    async def announce() -> None:
        await daemon.started.wait()
        host, port = daemon.udp_address or ("", 0)
        typer.echo(f"swarm gateway: UDP {host}:{port}, data in {settings.data_dir} (process {os.getpid()})")
        if daemon.http_url is not None:
            # The token is for the person at the terminal, not for a journal.
            secret = (
                f"#token={daemon.token}" if sys.stdout.isatty() else f" (token in {settings.data_dir}/token)"
            )
            typer.echo(f"  page and API: {daemon.http_url}/{secret}")
        typer.echo("  Ctrl-C stops")

    announcing = asyncio.create_task(announce())
    try:
        if settings.http.enabled:
            from gateway.api.app import create_app

            await daemon.run(create_app, beside=beside, on_signals=True)
        else:
            await daemon.run(beside=beside, on_signals=True)
    finally:
        announcing.cancel()
    typer.echo("swarm gateway: stopped")


def mqtt_faces(settings: GatewayConfig) -> list[Beside]:
    """The daemon's MQTT face, if it is to have one; AccessError when a file that [mqtt] names is no use."""
    if not settings.mqtt.enabled:
        return []
    from gateway.mqtt.access import read_access
    from gateway.mqtt.face import MqttFace

    access = read_access(settings.mqtt)
    return [lambda daemon: MqttFace(daemon, access)]


def station_servers(settings: GatewayConfig) -> list[Beside]:
    """The port of Basics Stations, if there is to be one.

    AccessError when a file that [stations] names is no use, or its channels cannot be received.
    """
    named = settings.stations
    if not named.enabled:
        return []
    from gateway.radios.basics_station import BasicsStations
    from gateway.radios.websocket import StationServer, read_station_access
    from gateway.secret_files import AccessError
    from swarm.phy.regions import region

    access = read_station_access(
        token_file=named.token_file,
        cert_file=named.cert_file,
        key_file=named.key_file,
        ca_file=named.ca_file,
    )
    area = region(settings.gateway.region)

    def stations(speed: float) -> BasicsStations:
        return BasicsStations(area, allowed=named.gateways, channels_hz=named.channels_hz, speed=speed)

    try:
        stations(1.0)
    except ValueError as error:
        raise AccessError(f"stations.channels_hz: {error}") from None

    def serve(daemon: Daemon) -> StationServer:
        radio = stations(daemon.clock.speed)
        server = StationServer(named.host, named.port, access, radio.counters)
        server.deliver = daemon.attach("stations", radio, server.send)
        return server

    return [serve]


def network_servers(settings: GatewayConfig) -> list[Beside]:
    """The connection to somebody else's network server, if there is to be one (AccessError: see above)."""
    if not settings.network.enabled:
        return []
    from gateway.mqtt.access import read_access
    from gateway.mqtt.network import NetworkLink

    access = read_access(settings.network, "network")
    return [lambda daemon: NetworkLink(daemon, access)]


def _beside(config_file: Path, settings: GatewayConfig) -> list[Beside]:
    """What runs beside the daemon."""
    from gateway.config import ConfigError
    from gateway.secret_files import AccessError

    try:
        return [*station_servers(settings), *network_servers(settings), *mqtt_faces(settings)]
    except AccessError as error:
        raise ConfigError([f"{config_file}: {error}"]) from error


def _strategy_mistakes(learning: LearningSection) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Strategy and options against what takes them; only here, because importing Flower takes seconds."""
    from swarm.config import Privacy
    from swarm.federation.reply import FEATURES, MASKED_SUMS
    from swarm.federation.strategy import mistakes
    from swarm.federation.sums_plan import PlanError, plan_of

    if learning.mode == FEATURES and not learning.share_features:
        what = "mode features sends what sensors and people saw to the gateway, which is not private"
        yield ("learning", "mode"), what, "say share_features = true if all agree, or use prototypes"
        return
    if learning.mode == MASKED_SUMS and learning.prototype_rounds:
        what = "prototypes show the gateway each node's class means, masked_sums are there to hide them"
        yield ("learning", "prototype_rounds"), what, "say prototype_rounds = 0, or use another mode"
    try:
        plan_of(Privacy(**learning.privacy.model_dump()))
    except PlanError as error:
        what, _, remedy = str(error).partition("; ")
        yield ("learning", "privacy", "epsilon"), what, remedy
    for path, problem, remedy in mistakes(learning.mode, learning.strategy, learning.options):
        yield ("learning", *path), problem, remedy
