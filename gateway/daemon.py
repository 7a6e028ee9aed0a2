"""The daemon: waits for input or the core's next time, calls the core, performs its effects.

Theory of operation.  One loop, in turns.  Datagrams, answers of the radio and requests of the HTTP API
wait in one inbox, stamped with the time they came.  A turn takes what is there, gives each to the core,
then polls it if it is due, and performs all effects of the turn together:

    every Store (and the event log) in one transaction  ->  Transmits  ->  Events to subscribers
                                                        ->  results to those who asked

Nothing is sent or told before it is on the disk, so killing the process loses no counter and no promise.
While the disk works (in a thread of its own) the next turn's datagrams gather and share its transaction.
A disk that fails ends the daemon: the core in memory would be ahead of what a restart knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import resources
from typing import TYPE_CHECKING, Any, TypeVar

from gateway.clock import Clock
from gateway.config import GatewayConfig, swarm_config
from gateway.data_dir import DataDirLock, forget_url, make_token, write_url
from gateway.http_server import HttpServer
from gateway.radios.packet_forwarder import Address, PacketForwarder
from gateway.radios.radio import Output, Radio
from gateway.radios.refusals import Refusals
from gateway.radios.udp import UdpEndpoint
from gateway.signing_file import read_signing_key
from gateway.store.sqlite import LoggedEvent, SqliteStore, StoreError
from swarm.commands import SetSigningKey
from swarm.effects import (
    ApplicationDownlink,
    ApplicationUplink,
    Effect,
    Event,
    Row,
    RxFrame,
    Store,
    Transmit,
    TxAck,
)
from swarm.phy.regions import region
from swarm.registry import Refused
from swarm.security.signatures import SigningKey

if TYPE_CHECKING:
    from fastapi import FastAPI

    from swarm.commands import Command, SetModel
    from swarm.config import SwarmConfig
    from swarm.coordinator import Coordinator
    from swarm.inference.plan import Query

__all__ = ["Asked", "Daemon", "SubscribersFull", "make_coordinator"]

INBOX_MAX = 4096
BATCH_MAX = 256
SUBSCRIBERS_MAX = 64
SUBSCRIBER_EVENTS_MAX = 1000
WAIT_MAX_S = 3600.0
AHEAD_MAX_US = 366 * 86_400_000_000
"""Stored time that lies further ahead of the system's is a wrong clock's."""
_ANSWERS = frozenset({"query_answered", "query_refused"})
_QUIET = frozenset({"uplink", "downlink", "update", "status", "dropped", "node_added"})

log = logging.getLogger("swarm.gateway")

Peer = TypeVar("Peer")

MakeCore = Callable[["SwarmConfig", Mapping[str, Mapping[str, Row]], bytes, SigningKey | None], "Coordinator"]

Beside = Callable[["Daemon"], contextlib.AbstractAsyncContextManager[object]]
"""Makes something that lives in the daemon's loop, beside it."""


class SubscribersFull(Exception):
    """There are `SUBSCRIBERS_MAX` readers of the events already."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that was taken; `answer` becomes its `query_answered` or `query_refused`, or `stopping`."""

    query_id: int
    answer: asyncio.Future[Event]


@dataclass(frozen=True, slots=True)
class _Attached:
    """A radio, and how what it wants to send leaves."""

    name: str
    radio: Radio[Any]
    send: Callable[[bytes, Any], None]


@dataclass(frozen=True, slots=True)
class _Datagram:
    attached: _Attached
    data: bytes
    address: Any
    read: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class _Request:
    call: Callable[[int], list[Effect] | Refused]
    answer: asyncio.Future[list[Effect] | Refused]


def make_coordinator(
    config: SwarmConfig,
    rows: Mapping[str, Mapping[str, Row]],
    model: bytes,
    signing_key: SigningKey | None = None,
) -> Coordinator:
    """The real core.  Imported here, after its telemetry is switched off: it brings Flower along."""
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    from swarm.coordinator import Coordinator  # noqa: PLC0415

    return Coordinator(config, rows, model, signing_key)


class Daemon:
    """One gateway daemon on one data directory; opens it at once, and the sockets in `run`."""

    def __init__(
        self, config: GatewayConfig, clock: Clock | None = None, *, make_core: MakeCore = make_coordinator
    ) -> None:
        self.config = config
        self.clock = clock if clock is not None else Clock(config.lab.clock_speed)
        self.counters = {"inbox_lost": 0, "events_lost": 0, "network_lost": 0}
        self._lock = DataDirLock(config.data_dir)
        with contextlib.ExitStack() as opened:
            opened.callback(self._lock.release)
            self.token = make_token(config.data_dir)
            signing_key = read_signing_key(config.data_dir)
            self._store = SqliteStore(config.data_dir)
            opened.callback(self._store.close)
            self._resume_clock()
            rows = self._store.load()
            model = (resources.files("swarm.model") / "base_model.swm").read_bytes()
            with _sound(config):
                self.core = make_core(swarm_config(config), rows, model, signing_key)
            opened.pop_all()
        if signing_key is None and rows["node"]:
            log.warning(
                "no signing.key: models go out unsigned; `swarm nodes import DIR` brings a pilot's key"
            )
        self._genuine = set(rows["gateway"])
        self.radio = PacketForwarder(
            region(config.gateway.region),
            known=self._genuine,
            allowed=config.udp.gateways,
            speed=self.clock.speed,
        )
        self._udp = UdpEndpoint(self._on_datagram)
        self._attached = [_Attached("udp", self.radio, self._send_datagram)]
        """The last one takes what no other one serves."""
        self._refusals = Refusals()
        self._disk = ThreadPoolExecutor(1, "disk")
        self._inbox: deque[tuple[int, _Datagram | _Request]] = deque()
        self._subscribers: list[asyncio.Queue[Event]] = []
        self.hand_over: Callable[[ApplicationDownlink], None] = self._no_server
        """Gives a downlink to the network server, if there is one."""
        self._asked: dict[int, list[asyncio.Future[Event]]] = {}
        self._wake = asyncio.Event()
        self._stopping = False
        self._failed_to_start = False
        self.started = asyncio.Event()
        self.udp_address: Address | None = None
        self.http_url: str | None = None

    # -- what the HTTP API uses -------------------------------------------------------------------

    def now_us(self) -> int:
        """Core time now."""
        return self.clock.now_us()

    async def command(self, command: Command) -> Refused | None:
        """Carry out a command; None when it is done and on the disk, else why not."""
        answer = await self._request(lambda now_us: self.core.on_command(now_us, command))
        return answer if isinstance(answer, Refused) else None

    async def together(
        self,
        commands: Sequence[Command],
        *,
        first: Command | None = None,
        unless: Callable[[], Refused | None] = lambda: None,
    ) -> list[Refused | None] | Refused:
        """Carry out commands with nothing in between, in one transaction; what became of each, in order.

        Refused, and nothing was done: `unless`, asked at that very moment, gave a reason, or `first` was
        refused, which is carried out before the others.
        """
        answers: list[Refused | None] = []

        def call(now_us: int) -> list[Effect] | Refused:
            refusal = unless()
            if refusal is not None:
                return refusal
            effects = [] if first is None else self.core.on_command(now_us, first)
            if isinstance(effects, Refused):
                return effects
            for command in commands:
                done = self.core.on_command(now_us, command)
                answers.append(done if isinstance(done, Refused) else None)
                effects += [] if isinstance(done, Refused) else done
            return effects

        done = await self._request(call)
        return done if isinstance(done, Refused) else answers

    async def ask(self, query: Query) -> Asked | Refused:
        """Put a question to the swarm; its answer comes a way of its own, whatever else happens."""
        answer: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        query_id = 0

        def call(now_us: int) -> list[Effect]:
            nonlocal query_id
            effects = self.core.on_query(now_us, query)
            events = (effect for effect in effects if isinstance(effect, Event) and "query_id" in effect.data)
            query_id = int(str(next(events).data["query_id"]))
            self._asked.setdefault(query_id, []).append(answer)
            return effects

        effects = await self._request(call)
        return effects if isinstance(effects, Refused) else Asked(query_id, answer)

    async def hand_in(self, model: SetModel) -> int | Refused:
        """Let the next window take up a model made elsewhere; the number of the round that will carry it."""
        effects = await self._request(lambda now_us: self.core.on_command(now_us, model))
        if isinstance(effects, Refused):
            return effects
        said = (
            effect for effect in effects if isinstance(effect, Event) and effect.kind == "model_handed_in"
        )
        return int(str(next(said).data["round"]))

    async def take_signing_key(self) -> str | None:
        """Sign with what `signing.key` holds now; its public half, None without one.  DataDirError."""
        key = read_signing_key(self.config.data_dir)
        if key is None:
            return None
        await self.command(SetSigningKey(key))
        return key.public_key.hex()

    @contextlib.contextmanager
    def subscribe(self) -> Iterator[asyncio.Queue[Event]]:
        """All events from now on; a reader that is too slow loses the oldest (`events_lost` counts)."""
        if len(self._subscribers) >= SUBSCRIBERS_MAX:
            raise SubscribersFull(f"{SUBSCRIBERS_MAX} readers follow the events already; close one")
        queue: asyncio.Queue[Event] = asyncio.Queue(SUBSCRIBER_EVENTS_MAX)
        self._subscribers.append(queue)
        try:
            yield queue
        finally:
            self._subscribers.remove(queue)

    def past_events(
        self, *, after: int | None = None, limit: int = 100, kind: str | None = None
    ) -> list[LoggedEvent]:
        """The latest events from the log on the disk (see `SqliteStore.events`)."""
        return self._store.events(after=after, limit=limit, kind=kind)

    @property
    def radio_counters(self) -> dict[str, int]:
        """What all radios counted, in one table; UDP's names stand as they are."""
        counters = dict(self.radio.counters)
        for attached in self._attached[:-1]:
            for name, count in attached.radio.counters.items():
                counters[f"{attached.name}:{name}"] = count
        return {**counters, **self.counters}

    def attach(
        self, name: str, radio: Radio[Peer], send: Callable[[bytes, Peer], None]
    ) -> Callable[[bytes, Peer, Callable[[], None]], None]:
        """Let another radio in; `send` is called with what it wants to send.

        The function that comes back takes what arrives for it, and what to call when that was read: whoever
        brings it has to bound how much waits.
        """
        attached = _Attached(name, radio, send)
        self._attached.insert(0, attached)
        for gateway_id in self._genuine:
            radio.accepted(gateway_id)
        return partial(self._append, attached)

    def tell(self, event: Event) -> None:
        """Log an event from beside the core, with the time of this call, and tell whoever follows them."""
        now_us = self.clock.now_us()
        if not self._stopping and len(self._inbox) < INBOX_MAX:
            answer: asyncio.Future[list[Effect] | Refused] = asyncio.get_running_loop().create_future()
            self._inbox.append((now_us, _Request(lambda at_us: [replace(event, at_us=at_us)], answer)))
            self._wake.set()

    async def application_uplink(self, uplink: ApplicationUplink) -> bool:
        """A network server received a frame; True when that is on the disk, False: ask again later."""
        done = await self._request(lambda now_us: self.core.on_application_uplink(now_us, uplink))
        return not isinstance(done, Refused)

    async def application_fate(self, reference: int, error: str | None) -> bool:
        """A network server said what became of a downlink; as `application_uplink`."""
        done = await self._request(lambda now_us: self.core.on_application_fate(now_us, reference, error))
        return not isinstance(done, Refused)

    # -- life -------------------------------------------------------------------------------------

    async def run(
        self,
        make_app: Callable[[Daemon], FastAPI] | None = None,
        *,
        beside: Sequence[Beside] = (),
        on_signals: bool = False,
    ) -> None:
        """Serve until `stop`; `make_app` builds the HTTP application (None: no HTTP).

        What `beside` makes is entered before the first turn and left after the last.
        """
        loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as running:
            running.callback(self.close)
            if on_signals:
                for number in (signal.SIGINT, signal.SIGTERM):
                    loop.add_signal_handler(number, self.stop)
                    running.callback(loop.remove_signal_handler, number)
            self._failed_to_start = True
            await self._open_udp()
            if make_app is not None and self.config.http.enabled:
                server = HttpServer(make_app(self), self.config.http.host, self.config.http.port, self.stop)
                self.http_url = await running.enter_async_context(server)
                running.callback(forget_url, self.config.data_dir)
                write_url(self.config.data_dir, self.http_url)
            for make in beside:
                await running.enter_async_context(make(self))
            self._failed_to_start = False
            self.started.set()
            while not self._stopping:
                await self._wait()
                await self._turn()
            self._udp.close()
            while self._inbox:
                await self._turn()
            last = Event("stopping", self.clock.now_us())  # so that streams end before HTTP does
            self._publish(last)
            for query_id in list(self._asked):
                self._resolve(query_id, last)

    def stop(self) -> None:
        """End `run` after the turn in progress; what was accepted is finished first."""
        self._stopping = True
        self._wake.set()

    async def _open_udp(self) -> None:
        host, port = self.config.udp.host, self.config.udp.port
        try:
            self.udp_address = await self._udp.open(host, port)
        except (UnicodeError, TypeError) as error:  # a label of more than 63 letters
            what = f"UDP {host!r}: is no host name or address; set [udp] host and port"
            raise OSError(errno.EINVAL, what) from error
        except OSError as error:
            raise OSError(
                error.errno, f"UDP {host}:{port}: {error.strerror or error}; set [udp] host and port"
            ) from error

    def close(self) -> None:
        """Give the data directory back; `run` does it by itself."""
        self._udp.close()
        for _, item in self._inbox:
            if isinstance(item, _Request):
                item.answer.cancel()
        self._inbox.clear()
        self._disk.shutdown()
        self._store.close()
        if self._failed_to_start:
            self._lock.take_back()
        self._lock.release()

    def _resume_clock(self) -> None:
        stored_us = self._store.daemon_value("clock_us")
        if not isinstance(stored_us, int):
            return
        ahead_us = stored_us - self.clock.now_us()
        if ahead_us > AHEAD_MAX_US and self.clock.speed == 1.0:  # a faster clock runs ahead by design
            raise StoreError(
                f"{self._store.path}: holds time {_date(stored_us)}, and the system's clock says"
                f" {_date(self.clock.now_us())}; set the clock, or restore a backup of the database"
            )
        if ahead_us > 60_000_000:
            log.warning("the clock is %d s behind the last run: going on from there", ahead_us // 1_000_000)
        self.clock.not_before(stored_us)

    # -- the inbox --------------------------------------------------------------------------------

    def _on_datagram(self, data: bytes, address: Address) -> None:
        self._take(self._attached[-1], data, address)

    def _take(self, attached: _Attached, data: bytes, address: object) -> None:
        """A datagram, of which anybody may send as many as he likes: without room it is lost."""
        if len(self._inbox) >= INBOX_MAX:
            self.counters["inbox_lost"] += 1
        else:
            self._append(attached, data, address)

    def _append(
        self, attached: _Attached, data: bytes, address: object, read: Callable[[], None] | None = None
    ) -> None:
        self._inbox.append((self.clock.now_us(), _Datagram(attached, data, address, read)))
        self._wake.set()

    async def _request(self, call: Callable[[int], list[Effect] | Refused]) -> list[Effect] | Refused:
        answer: asyncio.Future[list[Effect] | Refused] = asyncio.get_running_loop().create_future()
        if self._stopping:
            return Refused("the daemon is stopping; ask again when it runs")
        self._inbox.append((self.clock.now_us(), _Request(call, answer)))
        self._wake.set()
        return await answer

    # -- one turn ---------------------------------------------------------------------------------

    async def _wait(self) -> None:
        due = [self.core.poll_at(), *(attached.radio.poll_at() for attached in self._attached)]
        times = [at_us for at_us in due if at_us is not None]
        timeout_s = min(self.clock.delay_s(min(times)), WAIT_MAX_S) if times else WAIT_MAX_S
        if self._inbox or timeout_s <= 0:
            await asyncio.sleep(0)  # the sockets get their turn even when the core is always due
        else:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), timeout_s)
        self._wake.clear()

    async def _turn(self) -> None:
        effects: list[Effect] = []
        answers: list[tuple[_Request, list[Effect] | Refused]] = []
        for _ in range(min(len(self._inbox), BATCH_MAX)):
            now_us, item = self._inbox.popleft()
            if isinstance(item, _Datagram):
                if item.read is not None:
                    item.read()
                output = item.attached.radio.on_datagram(now_us, item.data, item.address)
                effects += self._performed(now_us, item.attached, output)
                continue
            try:
                result = item.call(now_us)
            except ValueError as error:  # a question that makes no sense is the asker's, not the daemon's
                if not item.answer.done():  # the asker may have gone
                    item.answer.set_exception(error)
                continue
            answers.append((item, result))
            effects += [] if isinstance(result, Refused) else result
        now_us = self.clock.now_us()
        for attached in self._attached:
            effects += self._performed(now_us, attached, attached.radio.poll(now_us))
        due_us = self.core.poll_at()
        if due_us is not None and due_us <= now_us:
            effects += self.core.poll(now_us)
        await self._perform(now_us, effects)
        for request, result in answers:
            if not request.answer.done():
                request.answer.set_result(result)

    def _send_datagram(self, data: bytes, address: Address) -> None:
        self._udp.send(data, address)

    def _performed(self, now_us: int, attached: _Attached, output: Output[Any]) -> list[Effect]:
        """Send what the radio wants sent, and give the core what the radio heard."""
        for datagram, address in output.datagrams:
            attached.send(datagram, address)
        effects: list[Effect] = []
        for what in output.inputs:
            match what:
                case RxFrame():
                    effects += self.core.on_uplink(now_us, what)
                case TxAck():
                    effects += self.core.on_tx_ack(now_us, what)
                case _ if what.blocks:
                    effects += self.core.on_gateway(now_us, what.gateway_id, blocks=True)
                case _:
                    effects += self.core.on_gateway(now_us, what.gateway_id)
        told = (self._refusals.event(now_us, refusal) for refusal in output.refused)
        return effects + [event for event in told if event is not None]

    async def _perform(self, now_us: int, effects: list[Effect]) -> None:
        stores = [effect for effect in effects if isinstance(effect, Store)]
        events = [effect for effect in effects if isinstance(effect, Event)]
        if stores or events:
            commit = partial(self._store.commit, stores, events, now_us=now_us)
            await asyncio.get_running_loop().run_in_executor(self._disk, commit)
        for store in stores:
            if store.table == "gateway":  # the core keeps rows of genuine gateways only
                self._judged(store.key, genuine=store.row is not None)
        for effect in effects:
            if isinstance(effect, Transmit):
                self._radio_of(effect.gateway_id).transmit(self.clock.now_us(), effect)
            elif isinstance(effect, ApplicationDownlink):
                self.hand_over(effect)
        for event in events:
            self._publish(event)

    def _judged(self, gateway_id: str, *, genuine: bool) -> None:
        (self._genuine.add if genuine else self._genuine.discard)(gateway_id)
        for attached in self._attached:
            attached.radio.accepted(gateway_id, genuine=genuine)

    def _no_server(self, downlink: ApplicationDownlink) -> None:
        self.counters["network_lost"] += 1

    def _radio_of(self, gateway_id: str) -> Radio[Any]:
        serving = (each.radio for each in self._attached if each.radio.serves(gateway_id))
        return next(serving, self.radio)

    def _publish(self, event: Event) -> None:
        level = logging.DEBUG if event.kind in _QUIET else logging.INFO
        if log.isEnabledFor(level):
            log.log(level, "%s %s", event.kind, dict(event.data))
        if event.kind in _ANSWERS:
            self._resolve(int(str(event.data["query_id"])), event)
        for queue in self._subscribers:
            if queue.full():
                queue.get_nowait()
                self.counters["events_lost"] += 1
            queue.put_nowait(event)

    def _resolve(self, query_id: int, event: Event) -> None:
        for answer in self._asked.pop(query_id, ()):
            if not answer.done():  # the asker may have gone
                answer.set_result(event)


_UNSOUND = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError, struct.error)


@contextlib.contextmanager
def _sound(config: GatewayConfig) -> Iterator[None]:
    """What the core says of rows that it cannot have written itself, as one line."""
    try:
        yield
    except _UNSOUND as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        what = f"{config.data_dir}: the stored data is damaged ({why}); restore a backup"
        raise StoreError(what) from error


def _date(at_us: int) -> str:
    try:
        return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us):%Y-%m-%d}"
    except OverflowError:
        return "beyond the year 9999"
