"""The daemon's MQTT face: what it tells, what it may be asked, and what Home Assistant learns of its nodes.

Theory of operation.  Three tasks in the daemon's loop around one `Link`:

    follow   events, which the daemon publishes once they are on the disk -> topics; answers -> query/answer
    tell     nodes of which something changed -> their retained report, state and discovery, as fast as the
             broker takes them; a node that changes twice before it is told is told once, as it is then
    serve    requests in the order they came, each acknowledged to the broker when it is done or on the disk

Nothing here has to survive: a question carries the asker's id in its own row (`Query.reference`), so its
answer finds the way back after a restart of the daemon, of the broker, or of both.  A broker that was killed
before it noted our acknowledgement delivers a question again, perhaps after its answer: the same bytes that
came over an earlier connection, a short while ago, are not asked twice.  What a report says comes from
events, not from the core, which may be a turn ahead of the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import Any

from gateway.api import views
from gateway.daemon import Daemon
from gateway.mqtt.access import Access
from gateway.mqtt.home_assistant import class_names, discovery, report
from gateway.mqtt.link import Incoming, Link
from gateway.mqtt.requests import PAYLOAD_MAX, Refusal, Request, is_verb, read_question, read_request
from gateway.mqtt.topics import OFFLINE, ONLINE, Topics
from swarm.commands import OpenRound
from swarm.effects import Event
from swarm.registry import NodeStatus, Refused

__all__ = ["MqttFace"]

REFERENCE = "mqtt:"
SILENT_PERIODS = 3
"""A node that was not heard for so many report periods is offline."""
LOOK_S = 30.0
"""How often nodes are looked at for silence."""
DELIVERED_AGAIN_US = 600_000_000
"""A question that comes again over a new connection within this time is the broker's repetition."""
TAKEN_MAX = 256
LAST_EVENT = "stopping"
FAREWELL_S = 3.0


class MqttFace:
    """`async with MqttFace(daemon, access):` serves until the block ends, with a broker or without."""

    def __init__(self, daemon: Daemon, access: Access) -> None:
        self._daemon = daemon
        settings = daemon.config.mqtt
        self._topics = Topics(f"{settings.prefix}/{settings.name}", settings.discovery_prefix)
        self._discovery = settings.discovery
        self._silent_us = SILENT_PERIODS * daemon.config.nodes.status_period_min * 60_000_000
        self._version = _version()
        self._classes = class_names(daemon.core.rounds.replica.shape.classes)
        self._statuses: dict[str, NodeStatus] = {}
        self._online: dict[str, bool] = {}
        self._connections = 0
        self._taken: dict[bytes, tuple[int, int]] = {}
        """The last questions: over which connection they came, and when."""
        self._due: dict[str, bool] = {}
        """Nodes to be told of; True: with their discovery and state, whatever was told before."""
        self._work = asyncio.Event()
        counters = daemon.counters
        counters.update({"mqtt_lost": 0, "mqtt_inbox_lost": 0, "mqtt_refused": 0})
        subscriptions = [self._topics.question, self._topics.requests]
        self._link = Link(
            settings,
            access,
            section="mqtt",
            client_id=settings.client_id or f"swarm-{settings.name}",
            will_topic=self._topics.state,
            payload_max=PAYLOAD_MAX,
            subscriptions=[*subscriptions, *([self._topics.home_assistant] if self._discovery else [])],
            counters=counters,
            tell=daemon.tell,
            on_connected=self._on_connected,
        )

    async def __aenter__(self) -> MqttFace:
        self._running = contextlib.ExitStack()
        self._events = self._running.enter_context(self._daemon.subscribe())
        # Before the first turn: what the core knows is what is on the disk.
        for entry in self._daemon.core.registry:
            self._statuses[entry.record.dev_eui] = replace(entry.status)
        self._told_all = False
        self._follows = self._begin(self._follow(), "mqtt-follow")
        self._tasks = [
            self._begin(self._tell(), "mqtt-tell"),
            self._begin(self._link.serve(self._take), "mqtt-serve"),
        ]
        self._link.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()
        if kind is None:  # the last event is in the queue
            await asyncio.wait([self._follows], timeout=FAREWELL_S)
        for task in (self._follows, *self._tasks):
            task.cancel()
        ended = await asyncio.gather(self._follows, *self._tasks, return_exceptions=True)
        self._link.publish(self._topics.state, OFFLINE, retain=True, urgent=True)
        await self._link.close()
        for failure in ended:
            if isinstance(failure, Exception) and kind is None:
                raise failure

    def _begin(self, coroutine: Any, name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(coroutine, name=name)

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() is not None:
                self._daemon.stop()  # a mistake of ours is not hidden; `__aexit__` raises it

        task.add_done_callback(ended)
        return task

    def _on_connected(self, fresh: bool) -> None:
        """The broker is there; one that forgot us has forgotten what it kept for others too."""
        self._connections += 1
        self._link.publish(self._topics.state, ONLINE, retain=True, urgent=True)
        if fresh or not self._told_all:
            self._told_all = True
            self._announce_all()

    # -- follow: events out -----------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            event = await self._events.get()
            if event.kind == LAST_EVENT:
                return
            self._publish_event(event)
            self._keep(event)
            reference = event.data.get("reference")
            if isinstance(reference, str) and reference.startswith(REFERENCE):
                self._publish_answer(event, reference.removeprefix(REFERENCE))

    def _publish_event(self, event: Event) -> None:
        topic = self._topics.event(event)
        if topic is not None:
            self._link.publish(topic, _json(views.event(event)))

    def _publish_answer(self, event: Event, tag: str) -> None:
        if event.kind == "query_answered":
            answer = views.answer(self._daemon.core, event.data)
            self._answer(tag, {"status": "ok", "answer": answer})
        elif event.kind == "query_refused":
            self._answer(tag, {"status": "error", "error": event.data["reason"]})

    def _answer(self, tag: str | None, what: dict[str, Any]) -> None:
        self._link.publish(self._topics.answer, _json({"id": tag, **what}), urgent=True)

    def _keep(self, event: Event) -> None:
        """What an event says of a node."""
        dev_eui = str(event.data.get("dev_eui"))
        match event.kind:
            case "uplink" if dev_eui in self._statuses:
                status = self._statuses[dev_eui]
                status.last_seen_us = event.at_us
                status.rssi_dbm, status.snr_db = event.data["rssi_dbm"], event.data["snr_db"]  # type: ignore[assignment]
                self._announce(dev_eui)
            case "status" if dev_eui in self._statuses:
                self._statuses[dev_eui] = NodeStatus.from_row(event.data)
                self._announce(dev_eui)
            case "node_added":
                self._statuses.setdefault(dev_eui, NodeStatus())
                self._announce(dev_eui, whole=True)
            case "node_removed":
                self._statuses.pop(dev_eui, None)
                self._online.pop(dev_eui, None)
                self._announce(dev_eui, whole=True)

    # -- tell: nodes, as fast as the broker takes them ----------------------------------------------

    def _announce(self, dev_eui: str, *, whole: bool = False) -> None:
        self._due[dev_eui] = self._due.get(dev_eui, False) or whole
        self._work.set()

    def _announce_all(self) -> None:
        for dev_eui in self._statuses:
            self._announce(dev_eui, whole=True)

    async def _tell(self) -> None:
        clock = asyncio.get_running_loop().time
        look_s = clock() + LOOK_S
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._work.wait(), max(0.0, look_s - clock()))
            self._work.clear()
            if clock() >= look_s:
                look_s = clock() + LOOK_S
                self._look_for_silence()
            while self._due:
                await self._link.room()
                dev_eui = next(iter(self._due))
                self._tell_node(dev_eui, whole=self._due.pop(dev_eui))

    def _look_for_silence(self) -> None:
        for dev_eui, was in self._online.items():
            if was != self._is_online(dev_eui):
                self._announce(dev_eui)

    def _is_online(self, dev_eui: str) -> bool:
        seen_us = self._statuses[dev_eui].last_seen_us
        return seen_us is not None and self._daemon.now_us() - seen_us <= self._silent_us

    def _tell_node(self, dev_eui: str, *, whole: bool) -> None:
        topics, link = self._topics, self._link
        entry, status = self._daemon.core.registry.get(dev_eui), self._statuses.get(dev_eui)
        if entry is None or status is None:  # removed: an empty retained message takes the old one away
            gone = [topics.report(dev_eui), topics.node_state(dev_eui)]
            for topic in [topics.discovery(dev_eui), *gone] if self._discovery else gone:
                link.publish(topic, b"", retain=True)
            return
        if whole and self._discovery:
            document = discovery(topics, entry.record, self._classes, self._version)
            link.publish(topics.discovery(dev_eui), _json(document), retain=True)
        link.publish(topics.report(dev_eui), _json(report(entry.record, status, self._classes)), retain=True)
        online = self._is_online(dev_eui)
        if whole or self._online.get(dev_eui) != online:
            self._online[dev_eui] = online
            link.publish(topics.node_state(dev_eui), ONLINE if online else OFFLINE, retain=True)

    # -- serve: questions and requests in -----------------------------------------------------------

    async def _take(self, message: Incoming) -> bool:
        """Do what a message asks for; False when it should be delivered again."""
        verb = self._topics.verb(message.topic)
        if message.topic == self._topics.home_assistant:
            if message.payload == ONLINE:
                self._announce_all()
        elif message.topic == self._topics.question:
            return await self._question(message)
        elif verb is not None and is_verb(verb):
            self._respond(verb, *await self._request(verb, message))
        else:
            self._daemon.counters["mqtt_refused"] += 1
        return True

    async def _question(self, message: Incoming) -> bool:
        read = read_question(message.payload)
        if message.retain:
            read = Refusal("a question may not be retained: it would be asked again and again", read.tag)
        if isinstance(read, Refusal):
            return self._refuse(read)
        if self._is_delivered_again(message.payload):
            return True
        try:
            query = self._daemon.core.asking.question(**read.arguments)
            taken = await self._daemon.ask(replace(query, reference=REFERENCE + read.tag))
        except ValueError as error:
            return self._refuse(Refusal(str(error), read.tag))
        if isinstance(taken, Refused):
            return False  # the daemon is stopping: the broker keeps it for the next one
        self._taken.pop(message.payload, None)
        self._taken[message.payload] = (self._connections, self._daemon.now_us())
        while len(self._taken) > TAKEN_MAX:
            self._taken.pop(next(iter(self._taken)))
        return True

    def _is_delivered_again(self, payload: bytes) -> bool:
        connection, at_us = self._taken.get(payload, (self._connections, 0))
        return connection < self._connections and self._daemon.now_us() - at_us < DELIVERED_AGAIN_US

    def _refuse(self, refusal: Refusal) -> bool:
        self._daemon.counters["mqtt_refused"] += 1
        self._answer(refusal.tag, {"status": "error", "error": refusal.error})
        return True

    async def _request(self, verb: str, message: Incoming) -> tuple[str | None, Any]:
        """The tag and the data of a request, or a `Refusal`."""
        read = read_request(verb, message.payload)
        if message.retain:
            read = Refusal("a request may not be retained: it would come again and again", read.tag)
        if isinstance(read, Refusal):
            return read.tag, read
        return read.tag, await self._data(read)

    async def _data(self, request: Request) -> Any:
        daemon, core = self._daemon, self._daemon.core
        match request.verb:
            case "nodes/list":
                found = [entry for entry in core.registry if entry.record.node_index > request.after]
                page = views.nodes(core, found[: request.limit])
                more = page[-1]["node_index"] if len(found) > len(page) else None
                return {"nodes": page, "next": more}
            case "rounds/list":
                return {"rounds": views.rounds(core)}
            case "rounds/open":
                refused = await daemon.command(OpenRound())
                return Refusal(refused.reason) if refused is not None else {"round": core.rounds.last_round}
            case "airtime":
                return {"gateways": views.airtime(core, daemon.now_us())}
            case _:
                return views.state(core, daemon.now_us(), daemon.radio_counters)

    def _respond(self, verb: str, tag: str | None, data: Any) -> None:
        if isinstance(data, Refusal):
            self._daemon.counters["mqtt_refused"] += 1
            body: dict[str, Any] = {"status": "error", "error": data.error}
        else:
            body = {"status": "ok", "data": data}
        if tag is not None:
            body["transaction"] = tag
        self._link.publish(self._topics.response(verb), _json(body), urgent=True)


def _json(document: object) -> bytes:
    return json.dumps(document, default=str, separators=(",", ":")).encode()


def _version() -> str:
    try:
        return version("loraswarm")
    except PackageNotFoundError:
        return "0"
