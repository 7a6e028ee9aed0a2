"""The daemon's websocket port, with a real client that behaves as a Basics Station does."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from gateway.commands.gateway import station_servers
from gateway.config import (
    AskingSection,
    GatewayConfig,
    GatewaySection,
    HttpSection,
    LearningSection,
    MulticastSection,
    StationsSection,
    UdpSection,
)
from gateway.daemon import INBOX_MAX, Daemon
from gateway.radios import websocket
from gateway.radios.websocket import StationServer
from gateway.secret_files import AccessError
from swarm.commands import AddNode, OpenRound, SetMulticast
from swarm.effects import Event
from swarm.mac.device import AbpIdentity, Delivered, EndDevice, Joined, OtaaIdentity
from swarm.phy.regions import region
from swarm.prng import Prng
from swarm.wire import app
from tests.gateway.broker import Authority
from tests.gateway.station import Station

EU868 = region("eu868")
EUI = "0016c001f153a14c"
KEY, OTHER = b"\x2b" * 16, b"\x2c" * 16
GROUP = SetMulticast(0xFC00A001, b"\x11" * 16, b"\x22" * 16)
OTAA = AddNode("70b3d57ed0000001", "west-1", 1, "otaa", "west", app_key=KEY)
ABP = AddNode(
    "70b3d57ed0000002", "west-2", 1, "abp", "west", dev_addr=0x26000002, nwk_s_key=KEY, app_s_key=OTHER
)
STATUS = app.encode(
    app.Status(
        model_version=0,
        model_id=0x1234,
        battery=200,
        labelled=12,
        flags=0,
        temperature_centi=1834,
        humidity_half=151,
        rain_tenth=3,
        risk=2 << 6 | 50,
        multicast_received=0,
    )
)


def settings(folder: Path, **stations: Any) -> GatewayConfig:
    return GatewayConfig(
        gateway=GatewaySection(data_dir=str(folder / "data")),
        udp=UdpSection(host="127.0.0.1", port=0),
        stations=StationsSection(enabled=True, host="127.0.0.1", port=0, **stations),
        http=HttpSection(enabled=False),
        learning=LearningSection(period_s=3600, close_s=1800, spread_s=60, window_s=60),
        multicast=MulticastSection(data_rate=5, repeats=1),
        asking=AskingSection(k=1, deadline_s=60),
    )


class Served:
    """A daemon in this loop, and where its stations connect."""

    def __init__(
        self, daemon: Daemon, server: StationServer, scheme: str, events: asyncio.Queue[Event]
    ) -> None:
        assert server.address is not None
        self.daemon, self.server, self.events = daemon, server, events
        self.uri = f"{scheme}://{server.address[0]}:{server.address[1]}"

    async def event(self, kind: str) -> dict[str, Any]:
        async with asyncio.timeout(15):
            while (event := await self.events.get()).kind != kind:
                pass
        return dict(event.data)


@contextlib.asynccontextmanager
async def serving(config: GatewayConfig) -> AsyncIterator[Served]:
    daemon = Daemon(config)
    (make,) = station_servers(config)
    made: list[Any] = []

    def keep(daemon: Daemon) -> Any:
        made.append(make(daemon))
        return made[0]

    with daemon.subscribe() as events:
        running = asyncio.create_task(daemon.run(beside=[keep]))
        started = asyncio.create_task(daemon.started.wait())
        await asyncio.wait({running, started}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await running
        try:
            scheme = "wss" if config.stations.cert_file else "ws"
            yield Served(daemon, made[0], scheme, events)
        finally:
            daemon.stop()
            async with asyncio.timeout(15):
                await running


def now_us() -> int:
    return time.time_ns() // 1000


async def test_a_device_joins_reports_is_asked_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    config = settings(tmp_path)
    device = EndDevice(EU868, OtaaIdentity(OTAA.dev_eui, OTAA.join_eui, KEY), Prng(1), data_rate=5)
    async with serving(config) as served, Station(served.uri, EUI) as station:
        assert station.plan["region"] == "EU863" and len(station.plan["upchannels"]) == 8
        assert await served.daemon.command(OTAA) is None
        xtime = await station.uplink(device.join(now_us()).payload)
        assert (await served.event("joined"))["dev_eui"] == OTAA.dev_eui
        accept = await station.next("dnmsg")
        assert accept["xtime"] + accept["RxDelay"] * 1_000_000 == xtime + 5_000_000 and accept["rctx"] == 1
        assert isinstance(device.receive(now_us(), bytes.fromhex(accept["pdu"])), Joined)
        await station.confirm(accept)
        await station.uplink(device.uplink(now_us(), 12, STATUS).payload)
        assert (await served.event("status"))["battery"] == 200
        asked = await served.daemon.ask(served.daemon.core.asking.question(near=OTAA.dev_eui))
        xtime = await station.uplink(device.uplink(now_us(), 12, STATUS).payload)
        question = await station.next("dnmsg")
        assert (question["RX1Freq"], question["RX1DR"], question["RxDelay"]) == (868_100_000, 5, 1)
        assert question["xtime"] == xtime
        heard = device.receive(now_us(), bytes.fromhex(question["pdu"]))
        assert isinstance(heard, Delivered) and heard.f_port is not None
        query = app.decode_downlink(heard.f_port, heard.payload)
        assert isinstance(query, app.Query)
        await station.confirm(question)
        answer = app.Answer(query.query_id, 1, (25, 30, 200), 0, 1, 1)
        await station.uplink(device.uplink(now_us(), 11, app.encode(answer)).payload)
        async with asyncio.timeout(15):
            told = await asked.answer  # type: ignore[union-attr]
        assert told.kind == "query_answered"
        ledger = served.daemon.core.downlinks.ledger(EUI)
        assert not ledger.idle(now_us())
    async with serving(config) as served, Station(served.uri, EUI) as station:
        await station.uplink(device.uplink(now_us(), 12, STATUS, confirmed=True).payload)
        assert (await served.event("uplink"))["f_cnt"] == 3
        acknowledgement = await station.next("dnmsg")
        heard = device.receive(now_us(), bytes.fromhex(acknowledgement["pdu"]))
        assert isinstance(heard, Delivered) and heard.ack
        assert not served.daemon.core.downlinks.ledger(EUI).idle(now_us())


async def test_a_round_goes_out_frame_by_frame_and_each_is_confirmed(tmp_path: Path) -> None:
    device = EndDevice(EU868, AbpIdentity(0x26000002, KEY, OTHER), Prng(2), data_rate=5)
    device.add_group(GROUP.mc_addr, GROUP.nwk_s_key, GROUP.app_s_key)
    async with serving(settings(tmp_path)) as served, Station(served.uri, EUI) as station:
        for command in (ABP, GROUP):
            assert await served.daemon.command(command) is None
        await station.uplink(device.uplink(now_us(), 12, STATUS).payload)
        await served.event("status")
        assert await served.daemon.command(OpenRound()) is None
        first = await station.next("dnmsg")
        assert (first["dC"], first["RX1DR"], first["RX1Freq"]) == (0, 5, 869_525_000)
        ahead_us = first["xtime"] + 1_000_000 - station.xtime()
        assert 0 < ahead_us < 1_500_000  # by the radio's own time
        heard = device.receive(now_us(), bytes.fromhex(first["pdu"]))
        assert isinstance(heard, Delivered) and heard.f_port is not None
        await station.confirm(first)
        assert isinstance(app.decode_downlink(heard.f_port, heard.payload), app.RoundAnnounce)
        assert (await served.event("programme_sent")) == {}


async def test_a_frame_that_the_station_drops_is_noticed_and_sent_again(tmp_path: Path) -> None:
    device = EndDevice(EU868, AbpIdentity(0x26000002, KEY, OTHER), Prng(2), data_rate=5)
    async with serving(settings(tmp_path)) as served, Station(served.uri, EUI) as station:
        assert await served.daemon.command(ABP) is None
        await station.uplink(device.uplink(now_us(), 12, STATUS).payload)
        await served.event("status")
        await served.daemon.ask(served.daemon.core.asking.question(near=ABP.dev_eui))
        await station.uplink(device.uplink(now_us(), 12, STATUS).payload)
        dropped = await station.next("dnmsg")
        assert (await served.event("tx_failed"))["error"] == "NO_DNTXED"
        await station.uplink(device.uplink(now_us(), 12, STATUS).payload)
        again = await station.next("dnmsg")
        assert again["diid"] != dropped["diid"]
        heard = device.receive(now_us(), bytes.fromhex(again["pdu"]))
        assert isinstance(heard, Delivered) and heard.f_port is not None
        assert isinstance(app.decode_downlink(heard.f_port, heard.payload), app.Query)
        assert served.daemon.radio_counters["stations:dntxed_missing"] == 1


async def test_a_newer_connection_takes_over_and_the_older_one_is_closed(tmp_path: Path) -> None:
    async with (
        serving(settings(tmp_path)) as served,
        Station(served.uri, EUI) as older,
        Station(served.uri, EUI) as newer,
    ):
        with pytest.raises(ConnectionClosed):
            async with asyncio.timeout(10):
                while True:
                    await older.socket.recv()
        await newer.say(msgtype="timesync", txtime=5)
        assert (await newer.next("timesync"))["txtime"] == 5


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    yield Authority(tmp_path_factory.mktemp("authority"))


async def test_tls_and_a_token_keep_others_out(tmp_path: Path, authority: Authority) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret-token\n")
    token.chmod(0o600)
    config = settings(
        tmp_path,
        token_file=str(token),
        cert_file=str(authority.cert_file),
        key_file=str(authority.key_file),
    )
    trust = ssl.create_default_context(cafile=str(authority.ca_file))
    async with serving(config) as served:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer s3cret-token2"}):
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"{served.uri}/router-info", ssl=trust, additional_headers=headers)
            assert refused.value.response.status_code == 401
        with pytest.raises(ssl.SSLError):
            await connect(f"{served.uri}/router-info")
        with pytest.raises(InvalidStatus):
            headers = {"Authorization": "Bearer s3cret-token"}
            await connect(f"{served.uri}/elsewhere", ssl=trust, additional_headers=headers)
        counters = served.daemon.radio_counters
        assert (counters["stations:unauthorized"], counters["stations:path"]) == (3, 1)
        async with Station(served.uri, EUI, ssl=trust, additional_headers=headers) as station:
            await station.say(msgtype="timesync", txtime=5)
            assert (await station.next("timesync"))["txtime"] == 5


async def test_only_a_station_with_our_certificate_gets_in_where_one_is_needed(
    tmp_path: Path, authority: Authority
) -> None:
    stranger = Authority(tmp_path / "stranger")
    config = settings(
        tmp_path,
        cert_file=str(authority.cert_file),
        key_file=str(authority.key_file),
        ca_file=str(authority.ca_file),
    )
    async with serving(config) as served:
        for one in (None, stranger):
            trust = ssl.create_default_context(cafile=str(authority.ca_file))
            if one is not None:
                trust.load_cert_chain(one.cert_file, one.key_file)
            with pytest.raises((OSError, InvalidMessage, ConnectionClosed)):
                async with Station(served.uri, EUI, ssl=trust):
                    pass
        trust.load_cert_chain(authority.cert_file, authority.key_file)
        async with Station(served.uri, EUI, ssl=trust) as station:
            assert station.plan["hwspec"] == "sx1301/1"


async def test_hostile_connections_do_no_harm(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as served, Station(served.uri, EUI) as station:
        async with connect(f"{served.uri}/router-info") as asking:
            await asking.send('{"router": "no eui"}')
            assert "eui" in str(await asking.recv())
        async with connect(f"{served.uri}/router/{EUI[::-1]}") as stranger:
            for data in ("", "{}", "[" * 3000, b"\xff\xfe", '{"msgtype":"updf"}'):
                await stranger.send(data)
            with pytest.raises(ConnectionClosed):
                await stranger.send("x" * 100_000)
                await stranger.recv()
        await station.say(msgtype="timesync", txtime=5)
        assert (await station.next("timesync"))["txtime"] == 5
        assert served.daemon.radio_counters["stations:json"] >= 2


async def test_a_station_that_floods_waits_and_the_others_go_on(tmp_path: Path) -> None:
    """Thousands of texts at once, more than the inbox holds: none is lost, and nobody is closed."""
    flood = INBOX_MAX + 1000
    async with serving(settings(tmp_path)) as served, Station(served.uri, EUI) as station:
        async with connect(f"{served.uri}/router/{EUI[::-1]}") as stranger:
            sending = asyncio.gather(*(stranger.send("{}") for _ in range(flood)))
            for turn in range(20):
                await station.say(msgtype="timesync", txtime=turn)
                assert (await station.next("timesync"))["txtime"] == turn
            await sending
            assert (await stranger.ping()) is not None
        assert served.daemon.counters["inbox_lost"] == 0


async def test_who_connects_and_says_nothing_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(settings(tmp_path)) as served, Station(served.uri, EUI) as station:
        monkeypatch.setattr(websocket, "QUESTION_S", 0.05)
        async with connect(f"{served.uri}/router/{EUI[::-1]}") as stranger:
            with pytest.raises(ConnectionClosed):
                async with asyncio.timeout(10):
                    await stranger.recv()
        await station.say(msgtype="timesync", txtime=5)
        assert (await station.next("timesync"))["txtime"] == 5, "who spoke once may be silent"


def test_files_and_channels_that_are_no_use_are_one_line(tmp_path: Path) -> None:
    open_file = tmp_path / "token"
    open_file.write_text("secret\n")
    open_file.chmod(0o644)
    for changes, expected in (
        ({"token_file": str(open_file)}, "stations.token_file: .*everybody on this machine may read it"),
        ({"token_file": str(tmp_path / "none")}, "stations.token_file: .*No such file"),
        ({"channels_hz": [868_100_001]}, "stations.channels_hz: 868100001 Hz is no uplink channel"),
    ):
        with pytest.raises(AccessError, match=expected):
            station_servers(settings(tmp_path, **changes))
