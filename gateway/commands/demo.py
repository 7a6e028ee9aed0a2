"""`swarm demo`: an unchanged daemon, a thousand simulated nodes that reach it over UDP, and the page."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands.output import CommandError
from swarm.words import counted

if TYPE_CHECKING:
    from gateway.config import GatewayConfig
    from gateway.daemon import Daemon
    from simulations.scenario import Scenario
    from swarm.effects import Event

__all__ = ["demo"]

ONCE_DEADLINE_S = 170.0
HTTP_PORT = 8080
LABELS = ("low", "medium", "high")


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="Stop after the first closed round and one answered question.")
    ] = False,
    scenario: Annotated[str, typer.Option(help="The scenario whose nodes are played.")] = "live_1000",
    nodes: Annotated[int | None, typer.Option(help="So many nodes instead of the scenario's.")] = None,
    http_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65_535,
            help=f"Port of the page, 0 for any free one; default {HTTP_PORT}, with --once 0.",
        ),
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Keep the data here; default: thrown away.")] = None,
    mqtt: Annotated[
        str | None, typer.Option(help="Speak to this MQTT broker too: HOST or HOST:PORT.")
    ] = None,
) -> None:
    """Start a gateway daemon and simulated nodes around it, in real time.

    Example: swarm demo --once
    """
    from simulations import scenario as scenarios

    try:
        chosen = scenarios.load(scenario).override(nodes=nodes)
    except scenarios.ScenarioError as error:
        raise CommandError(str(error)) from error
    with tempfile.TemporaryDirectory(prefix="swarm-") as scratch:
        port = http_port if http_port is not None else 0 if once else HTTP_PORT
        settings = _settings(chosen, data_dir or Path(scratch) / "data", port, _broker(mqtt))
        try:
            done = asyncio.run(_demo(settings, scenario, chosen, once))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            what = f"port {port} is taken; give another with --http-port, or 0 for any free one"
            raise CommandError(what) from error
    if not done:
        raise CommandError(
            f"no round was closed and no question answered within {ONCE_DEADLINE_S:.0f} s; "
            "is the machine busy? `swarm sim run smoke` shows whether the swarm works in virtual time"
        )


def _broker(where: str | None) -> dict[str, object]:
    """The section [mqtt] that --mqtt stands for."""
    if where is None:
        return {}
    host, colon, port = where.partition(":")
    if not host or (colon and not (port.isdigit() and len(port) <= 5 and 0 < int(port) < 65_536)):
        raise CommandError(
            f"--mqtt: {where!r} names no broker; write a host, or a host and its port: box:1883"
        )
    return {"enabled": True, "host": host, "port": int(port or 1883)}


def _settings(chosen: Scenario, data_dir: Path, http_port: int, mqtt: dict[str, object]) -> GatewayConfig:
    """What a swarm.toml for this scenario would say."""
    from gateway.config import GatewayConfig

    return GatewayConfig.model_validate(
        {
            "gateway": {"data_dir": str(data_dir), "region": chosen.region},
            "udp": {"host": "127.0.0.1", "port": 0},
            "http": {"host": "127.0.0.1", "port": http_port},
            "mqtt": mqtt,
            "nodes": {"status_period_min": chosen.status_period_min},
            "learning": asdict(chosen.learning),
            "multicast": asdict(chosen.multicast),
            "asking": {"k": chosen.asking.k, "deadline_s": 90},
        }
    )


async def _demo(settings: GatewayConfig, source: str, chosen: Scenario, once: bool) -> bool:
    from gateway.api.app import create_app
    from gateway.commands.gateway import mqtt_faces
    from gateway.daemon import Daemon

    daemon = Daemon(settings)
    beside = mqtt_faces(settings)
    serving = asyncio.create_task(daemon.run(create_app, beside=beside, on_signals=True))
    started = asyncio.create_task(daemon.started.wait())
    await asyncio.wait((serving, started), return_when=asyncio.FIRST_COMPLETED)
    if not started.done():
        started.cancel()
        await serving
        return True
    await _register(daemon, chosen)
    host, port = daemon.udp_address or ("", 0)
    typer.echo(f"gateway: UDP {host}:{port}, {counted(chosen.nodes, 'node')} registered")
    typer.echo(f"page:    {daemon.http_url}/#token={daemon.token}")
    if not once:
        named = f"SWARM_URL={daemon.http_url} SWARM_TOKEN={daemon.token}"
        typer.echo(f"ask it:  export {named}  # in another terminal")
    if settings.mqtt.enabled:
        typer.echo(f"mqtt:    {settings.mqtt.host}:{settings.mqtt.port}, topics swarm/gateway/...")
    async with _played(source, chosen.nodes, port):
        typer.echo(
            f"nodes:   {chosen.nodes} of them wake up; the first round opens in {chosen.learning.period_s} s"
        )
        showing = asyncio.create_task(_show(daemon, once))
        await asyncio.wait((serving, showing), return_when=asyncio.FIRST_COMPLETED)
        done = showing.done() and showing.result()
        showing.cancel()
    daemon.stop()
    await serving
    return done or not once


async def _register(daemon: Daemon, chosen: Scenario) -> None:
    from simulations import provisioning
    from swarm.commands import SetSigningKey
    from swarm.security.signatures import SigningKey

    await daemon.command(SetSigningKey(SigningKey(provisioning.signing_seed(chosen))))
    await daemon.command(provisioning.group(chosen))
    # All at once: they share one transaction.
    await asyncio.gather(*(daemon.command(node.add_node()) for node in provisioning.identities(chosen)))


@asynccontextmanager
async def _played(source: str, nodes: int, port: int) -> AsyncIterator[None]:
    """The nodes, in a process of their own, as a packet forwarder would bring them."""
    arguments = ["sim", "live", source, "--gateway", f"127.0.0.1:{port}", "--nodes", str(nodes)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.cli", *arguments, stdout=asyncio.subprocess.DEVNULL, env=os.environ
    )
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _show(daemon: Daemon, once: bool) -> bool:
    """Print rounds as they come; with `once`, ask after the first that learned something, and end."""
    with daemon.subscribe() as queue:
        try:
            async with asyncio.timeout(ONCE_DEADLINE_S if once else None):
                while True:
                    event = await queue.get()
                    if event.kind == "round_opened":
                        typer.echo(
                            f"round {event.data['round']} opened,"
                            f" {counted(int(str(event.data['expected'])), 'node')} invited"
                        )
                    if event.kind == "round_closed":
                        _show_round(daemon, event)
                    if event.kind == "round_closed" and once and event.data["updates"]:
                        await _ask(daemon)
                        return True
        except TimeoutError:
            return False


def _show_round(daemon: Daemon, event: Event) -> None:
    data = event.data
    spent = sum(_spent_us(daemon).values()) / 1e6
    learned = f"model version {data['model_version']} ({str(data['digest'])[:12]})"
    if not data["model_version"]:
        learned = "no head proved better than the shipped ones yet"
    typer.echo(
        f"round {data['round']} closed: {counted(int(str(data['updates'])), 'update')} -> {learned}; "
        f"downlink airtime of the past hour {spent:.2f} s"
    )


async def _ask(daemon: Daemon) -> None:
    """One question about the plot of a node that was heard, printed with its answer."""
    heard = [entry for entry in daemon.core.registry if entry.status.last_seen_us is not None]
    plot = heard[len(heard) // 2].record.plot
    typer.echo(f"asked:   infection risk around plot {plot}?")
    from swarm.registry import Refused

    asked = await daemon.ask(daemon.core.asking.question(near=plot))
    if isinstance(asked, Refused) or (answer := await asked.answer).kind != "query_answered":
        typer.echo("answer:  none, the daemon stops")
        return
    data = answer.data
    answered = data["nodes"]
    assert isinstance(answered, tuple)
    verdict = (
        data["label"] if data["value"] is None else f"{data['label']}, confidence {data['confidence']:.0%}"
    )
    typer.echo(
        f"answer:  {verdict}; {len(answered)} of {counted(int(str(data['asked'])), 'node')}"
        f" in {data['latency_s']:.1f} s, "
        f"{int(str(data['airtime_us'])) / 1e6:.2f} s of airtime"
    )
    purposes = ", ".join(f"{name} {us / 1e6:.2f} s" for name, us in sorted(_spent_us(daemon).items()))
    typer.echo(f"airtime: {purposes} (downlink, past hour)")


def _spent_us(daemon: Daemon) -> dict[str, int]:
    """The past hour's downlink airtime by purpose, over all gateways and sub-bands."""
    spent: dict[str, int] = {}
    for gateway_id in daemon.core.downlinks.gateways():
        for (_, purpose), airtime_us in (
            daemon.core.downlinks.ledger(gateway_id).spent_us(daemon.now_us()).items()
        ):
            spent[str(purpose)] = spent.get(str(purpose), 0) + airtime_us
    return spent
