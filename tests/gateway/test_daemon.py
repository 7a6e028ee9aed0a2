"""The daemon's loop around a small core: real UDP on loopback, a real database, a fast clock."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.clock import Clock
from gateway.config import GatewayConfig, GatewaySection, HttpSection, UdpSection
from gateway.daemon import INBOX_MAX, SUBSCRIBER_EVENTS_MAX, SUBSCRIBERS_MAX, Asked, Daemon, SubscribersFull
from gateway.data_dir import DataDirError
from gateway.store.sqlite import SqliteStore, StoreError
from swarm.config import SwarmConfig
from swarm.effects import Effect, Event, Purpose, Row, RxFrame, Store, Transmit, TxAck
from swarm.registry import Refused

EUI = "aa555a0000000000"
HOUR_US = 3_600_000_000
WITHIN_S = 10


class SmallCore:
    """Counts frames in one row, answers each with one downlink, and notes everything it is told."""

    def __init__(
        self, config: SwarmConfig, rows: Mapping[str, Mapping[str, Row]], model: bytes, signing_key: object
    ) -> None:
        self.config, self.rows, self.model, self.signing_key = config, rows, model, signing_key
        stored = rows["meta"].get("frames")
        self.frames = int(str(stored["value"])) if stored else 0
        self.acks: list[TxAck] = []
        self.gateways: list[str] = []
        self.wake_us: int | None = None
        self.polled_us: list[int] = []
        self.noise: list[Effect] = []

    def on_uplink(self, now_us: int, rx: RxFrame) -> list[Effect]:
        self.frames += 1
        at_us, tmst_us = rx.at_us + 1_000_000, rx.tmst_us + 1_000_000
        return [
            Store("meta", "frames", {"value": self.frames}),
            Transmit(
                self.frames, rx.gateway_id, b"down", at_us, tmst_us, 869_525_000, 3, 14.0, 9_999, Purpose.ACK
            ),
            Event("uplink", now_us, {"gateway_id": rx.gateway_id, "frames": self.frames}),
        ]

    def on_tx_ack(self, now_us: int, ack: TxAck) -> list[Effect]:
        self.acks.append(ack)
        known = Store("gateway", EUI, {"last_seen_us": now_us})
        return [known, Event("acknowledged", now_us, {"error": ack.error})]

    def on_gateway(self, now_us: int, gateway_id: str) -> list[Effect]:
        self.gateways.append(gateway_id)
        return [Event("gateway", now_us, {"gateway_id": gateway_id})]

    def on_query(self, now_us: int, query: object) -> list[Effect]:
        if query == "nonsense":
            raise ValueError("that is no question")
        return [Store("query", "5", {"text": str(query)}), Event("query_asked", now_us, {"query_id": 5})]

    def on_command(self, now_us: int, command: object) -> list[Effect] | Refused:
        if command == "no":
            return Refused("because")
        return [
            Store("gateway", str(command), {"last_seen_us": now_us}),
            Event("done", now_us, {"what": command}),
            *self.noise,
        ]

    def poll(self, now_us: int) -> list[Effect]:
        self.polled_us.append(now_us)
        self.wake_us = None
        return [Event("polled", now_us)]

    def poll_at(self) -> int | None:
        return self.wake_us


class Forwarder(asyncio.DatagramProtocol):
    """A packet forwarder's socket: what it received waits in a queue."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[bytes] = asyncio.Queue()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.received.put_nowait(data)

    def send(self, kind: int, body: object = None, token: int = 1) -> None:
        head = bytes((2, token >> 8, token & 255, kind)) + bytes.fromhex(EUI)
        self.transport.sendto(head + (json.dumps(body).encode() if body is not None else b""))

    async def next(self, kind: int) -> bytes:
        async with asyncio.timeout(WITHIN_S):
            while (data := await self.received.get())[3] != kind:
                pass
        return data


def rxpk(tmst: int) -> dict[str, Any]:
    data = base64.b64encode(b"uplink").decode()
    return {"tmst": tmst, "freq": 868.1, "stat": 1, "datr": "SF7BW125", "rssi": -50, "lsnr": 9, "data": data}


def settings(folder: Path) -> GatewayConfig:
    return GatewayConfig(
        gateway=GatewaySection(data_dir=str(folder / "data")),
        udp=UdpSection(host="127.0.0.1", port=0),
        http=HttpSection(port=0),
    )


def open_daemon(folder: Path, clock: Clock | None = None) -> tuple[Daemon, SmallCore]:
    daemon = Daemon(settings(folder), clock, make_core=cast("Any", SmallCore))
    return daemon, cast("SmallCore", daemon.core)


@contextlib.asynccontextmanager
async def running(daemon: Daemon, make_app: Any = None) -> AsyncIterator[Forwarder]:
    task = asyncio.create_task(daemon.run(make_app))
    started = asyncio.create_task(daemon.started.wait())
    await asyncio.wait({task, started}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    transport, forwarder = await asyncio.get_running_loop().create_datagram_endpoint(
        Forwarder, remote_addr=daemon.udp_address
    )
    try:
        yield forwarder
    finally:
        transport.close()
        daemon.stop()
        async with asyncio.timeout(WITHIN_S):
            await task


async def until(queue: asyncio.Queue[Event], kind: str) -> Event:
    async with asyncio.timeout(WITHIN_S):
        while (event := await queue.get()).kind != kind:
            pass
    return event


async def test_an_uplink_is_acknowledged_stored_answered_and_told(tmp_path: Path) -> None:
    daemon, core = open_daemon(tmp_path)
    with daemon.subscribe() as events:
        async with running(daemon) as forwarder:
            forwarder.send(2)
            assert await forwarder.next(4) == bytes((2, 0, 1, 4))
            forwarder.send(0, {"rxpk": [rxpk(4_294_000_000)]}, token=0x0203)
            assert await forwarder.next(1) == bytes((2, 2, 3, 1))
            answer = await forwarder.next(3)
            assert json.loads(answer[4:])["txpk"]["tmst"] == 4_295_000_000
            told = await until(events, "uplink")
            assert told.data == {"gateway_id": EUI, "frames": 1}
            forwarder.send(5, token=int.from_bytes(answer[1:3], "big"))
            await until(events, "acknowledged")
            assert core.acks == [TxAck(1)]
            assert core.gateways == [EUI]
            assert daemon.radio.snapshot()[0]["known"] is True
    assert SqliteStore(tmp_path / "data").load()["meta"] == {"frames": {"key": "frames", "value": 1}}


async def test_nothing_leaves_before_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to a frame is looked for in the database from outside, at the moment of sending."""
    daemon, _ = open_daemon(tmp_path)
    on_disk: list[object] = []
    send = daemon._udp.send

    def spy(datagram: bytes, address: tuple[str, int]) -> None:
        if datagram[3] == 3:
            reader = SqliteStore(tmp_path / "data")
            on_disk.append(reader.load()["meta"]["frames"]["value"])
            reader.close()
        send(datagram, address)

    monkeypatch.setattr(daemon._udp, "send", spy)
    async with running(daemon) as forwarder:
        forwarder.send(2)
        for number in range(1, 4):
            forwarder.send(0, {"rxpk": [rxpk(number)]})
            await forwarder.next(3)
    assert on_disk == [1, 2, 3]


async def test_a_batch_is_one_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon, _ = open_daemon(tmp_path)
    commits: list[int] = []
    commit = daemon._store.commit
    monkeypatch.setattr(
        daemon._store,
        "commit",
        lambda stores, events, **more: (commits.append(len(stores)), commit(stores, events, **more)),
    )
    with daemon.subscribe() as events:
        async with running(daemon) as forwarder:
            forwarder.send(0, {"rxpk": [rxpk(tmst) for tmst in range(20)]})
            while (await until(events, "uplink")).data["frames"] != 20:
                pass
    assert max(commits) == 20


async def test_a_failing_disk_ends_the_daemon_and_nothing_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon, _ = open_daemon(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise StoreError("swarm.db: cannot be written (database or disk is full); check free space")

    with pytest.raises(StoreError, match="disk is full"):
        async with running(daemon) as forwarder:
            forwarder.send(2)
            await forwarder.next(4)
            monkeypatch.setattr(daemon._store, "commit", full)
            forwarder.send(0, {"rxpk": [rxpk(1)]})
            await forwarder.next(1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await forwarder.next(3)


async def test_silence_of_the_forwarder_becomes_an_error(tmp_path: Path) -> None:
    daemon, core = open_daemon(tmp_path)
    with daemon.subscribe() as events:
        async with running(daemon) as forwarder:
            forwarder.send(2)
            forwarder.send(0, {"rxpk": [rxpk(1)]})
            await forwarder.next(3)
            assert (await until(events, "acknowledged")).data == {"error": "NO_TX_ACK"}
    assert core.acks == [TxAck(1, "NO_TX_ACK")]


async def test_the_core_is_polled_when_it_asked_for_it(tmp_path: Path) -> None:
    """At a speed of 3,600,000 an hour of core time passes in a millisecond."""
    daemon, core = open_daemon(tmp_path, Clock(3_600_000.0))
    due_us = daemon.now_us() + 100 * HOUR_US
    core.wake_us = due_us
    with daemon.subscribe() as events:
        async with running(daemon):
            polled = await until(events, "polled")
    assert polled.at_us >= due_us
    assert core.polled_us == [polled.at_us]


async def test_commands_and_questions_are_answered_after_they_are_on_the_disk(tmp_path: Path) -> None:
    daemon, _ = open_daemon(tmp_path)
    with daemon.subscribe() as events:
        async with running(daemon):
            assert await daemon.command(cast("Any", "gateway-1")) is None
            reader = SqliteStore(tmp_path / "data")
            assert "gateway-1" in reader.load()["gateway"]
            assert await daemon.command(cast("Any", "no")) == Refused("because")
            assert cast("Asked", await daemon.ask(cast("Any", "rain?"))).query_id == 5
            assert reader.load()["query"]["5"]["text"] == "rain?"
            with pytest.raises(ValueError, match="no question"):
                await daemon.ask(cast("Any", "nonsense"))
            gone = asyncio.create_task(daemon.ask(cast("Any", "nonsense")))
            await asyncio.sleep(0)
            gone.cancel()
            assert await daemon.command(cast("Any", "gateway-2")) is None, "it goes on after a bad question"
            reader.close()
    kinds = [events.get_nowait().kind for _ in range(events.qsize())]
    assert kinds == ["done", "query_asked", "done", "stopping"]
    assert [logged.event.kind for logged in SqliteStore(tmp_path / "data").events()] == kinds[:-1]


async def test_an_answer_is_not_lost_in_a_flood_of_other_events(tmp_path: Path) -> None:
    """Goal: junk on the radio cannot make a question hang.  Method: more events than a queue holds."""
    daemon, core = open_daemon(tmp_path)
    noise: list[Effect] = [Event("dropped", 1, {"reason": "mic"})] * (2 * SUBSCRIBER_EVENTS_MAX)
    answer = Event("query_answered", 1, {"query_id": 5, "label": "low"})
    async with running(daemon):
        asked = cast("Asked", await daemon.ask(cast("Any", "rain?")))
        gone = cast("Asked", await daemon.ask(cast("Any", "sun?")))
        gone.answer.cancel()
        core.noise = [*noise, answer, *noise]
        assert await daemon.command(cast("Any", "gateway-1")) is None
        assert await asyncio.wait_for(asked.answer, WITHIN_S) == answer
        last = cast("Asked", await daemon.ask(cast("Any", "snow?")))
        daemon.stop()
        assert (await asyncio.wait_for(last.answer, WITHIN_S)).kind == "stopping"


async def test_after_stop_requests_are_refused(tmp_path: Path) -> None:
    daemon, _ = open_daemon(tmp_path)
    async with running(daemon):
        daemon.stop()
        answer = await daemon.command(cast("Any", "late"))
    assert isinstance(answer, Refused)


async def test_a_slow_reader_loses_the_oldest_events_only(tmp_path: Path) -> None:
    daemon, _ = open_daemon(tmp_path)
    with daemon.subscribe() as slow, contextlib.ExitStack() as others:
        async with running(daemon):
            for number in range(SUBSCRIBER_EVENTS_MAX + 5):
                daemon._publish(Event("tick", number))
            assert slow.qsize() == SUBSCRIBER_EVENTS_MAX
            assert slow.get_nowait().at_us == 5
            assert daemon.counters["events_lost"] == 5
            for _ in range(SUBSCRIBERS_MAX - 1):
                others.enter_context(daemon.subscribe())
            with pytest.raises(SubscribersFull):
                others.enter_context(daemon.subscribe())
        others.close()
        others.enter_context(daemon.subscribe())


async def test_the_inbox_is_bounded(tmp_path: Path) -> None:
    daemon, _ = open_daemon(tmp_path)
    for _ in range(INBOX_MAX + 7):
        daemon._on_datagram(b"", ("127.0.0.1", 1))
    assert daemon.counters["inbox_lost"] == 7
    async with running(daemon) as forwarder:
        forwarder.send(2)
        await forwarder.next(4)
    assert daemon.radio.counters["datagram_size"] == INBOX_MAX


async def test_a_restart_goes_on_with_rows_token_and_time(tmp_path: Path) -> None:
    daemon, _ = open_daemon(tmp_path, Clock(epoch_us=5_000 * HOUR_US))
    with daemon.subscribe() as events:
        async with running(daemon) as forwarder:
            forwarder.send(0, {"rxpk": [rxpk(1)]})
            await until(events, "uplink")
    again, core_again = open_daemon(tmp_path, Clock(epoch_us=4_000 * HOUR_US))
    assert core_again.frames == 1
    assert again.token == daemon.token
    assert again.now_us() >= 5_000 * HOUR_US, "the clock was set back between the runs"
    again.close()


async def test_one_daemon_per_data_directory(tmp_path: Path) -> None:
    daemon, _ = open_daemon(tmp_path)
    with pytest.raises(DataDirError, match=r"data: is in use by process \d+; stop that daemon"):
        open_daemon(tmp_path)
    daemon.close()
    open_daemon(tmp_path)[0].close()


async def test_a_core_that_cannot_be_made_leaves_no_lock(tmp_path: Path) -> None:
    def fail(*_: object) -> Any:
        raise ValueError("no such context")

    with pytest.raises(StoreError, match=r"the stored data is damaged \(ValueError: no such context\)"):
        Daemon(settings(tmp_path), make_core=fail)
    open_daemon(tmp_path)[0].close()


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    first, _ = open_daemon(tmp_path / "a")
    async with running(first):
        assert first.udp_address is not None
        taken = UdpSection(host="127.0.0.1", port=first.udp_address[1])
        config = settings(tmp_path / "b").model_copy(update={"udp": taken})
        second = Daemon(config, make_core=cast("Any", SmallCore))
        with pytest.raises(OSError, match=r"UDP 127\.0\.0\.1:\d+: .*; set \[udp\] host and port"):
            await second.run()


async def test_http_shares_the_loop_and_ends_with_it(tmp_path: Path) -> None:
    import httpx
    from fastapi import FastAPI
    from fastapi.responses import StreamingResponse

    def make_app(daemon: Daemon) -> FastAPI:
        app = FastAPI()

        @app.post("/command/{what}")
        async def command(what: str) -> dict[str, object]:
            answer = await daemon.command(cast("Any", what))
            return {"refused": answer.reason if answer else None}

        @app.get("/endless")
        async def endless() -> StreamingResponse:
            async def stream() -> AsyncIterator[bytes]:
                with daemon.subscribe() as events:
                    yield b"hello\n"
                    while True:
                        yield (await events.get()).kind.encode() + b"\n"

            return StreamingResponse(stream())

        return app

    daemon, _ = open_daemon(tmp_path)
    async with running(daemon, make_app), httpx.AsyncClient(base_url=str(daemon.http_url)) as client:
        stream = await client.send(client.build_request("GET", "/endless"), stream=True)
        lines = stream.aiter_lines()
        assert await anext(lines) == "hello"
        assert (await client.post("/command/x")).json() == {"refused": None}
        assert (await client.post("/command/no")).json() == {"refused": "because"}
        assert await anext(lines) == "done"
        daemon.stop()  # with a stream still open: it is cut, the daemon ends
        with contextlib.suppress(httpx.RemoteProtocolError):
            assert [line async for line in lines] == []
        await stream.aclose()


def test_the_clock_scales_and_never_steps_back() -> None:
    ticks = iter(
        (0, 1_000_000_000, 1_500_000_000, 1_500_000_000, 1_500_000_000, 1_500_000_000, 1_500_000_000)
    )
    clock = Clock(10.0, 1_000, monotonic_ns=lambda: next(ticks))
    assert clock.now_us() == 1_000 + 10_000_000
    assert clock.delay_s(1_000 + 25_000_000) == pytest.approx(1.0)
    assert clock.delay_s(0) == 0
    clock.not_before(5)
    clock.not_before(99_000_000)
    assert clock.now_us() == 99_000_000
    with pytest.raises(ValueError, match="above 0"):
        Clock(0)
