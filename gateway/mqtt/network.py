"""The daemon at somebody else's network server: uplinks in, downlinks out, over the server's MQTT broker.

Theory of operation.  Messages are taken one after the other.  An uplink goes to the core, and the broker
gets its acknowledgement only when what the uplink led to is on the disk: killed before that, the broker
delivers it again; killed after that, the core knows the frame and refuses the copy.  A downlink comes from
the core as an effect, after the store it depends on, and is published at QoS 1; while the broker is away it
waits in memory, and what finds no room there is told to the core as what the server could not send.  What the
server says of a downlink goes back to the core, which sends again what could not be sent.

What is refused is counted (`network:REASON` among the radio's counters), and nothing else happens.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from types import TracebackType

from gateway.daemon import Daemon
from gateway.mqtt.access import Access
from gateway.mqtt.link import Incoming, Link
from gateway.radios import chirpstack, network_server, things_stack
from gateway.radios.network_server import MESSAGE_SIZE_MAX, DownlinkFate, ServerEvent, ServerJoin
from swarm.effects import ApplicationDownlink, ApplicationUplink, Malformed
from swarm.phy.regions import region

__all__ = ["NetworkLink"]

REFERENCES_MAX = 4096
_FAILED = frozenset({"failed"})
_SENT = frozenset({"sent", "ack"})


class NetworkLink:
    """`async with NetworkLink(daemon, access):` serves until the block ends, with a broker or without."""

    def __init__(self, daemon: Daemon, access: Access) -> None:
        self._daemon = daemon
        self._region = region(daemon.config.gateway.region)
        settings = daemon.config.network
        self._chirpstack, self._application = settings.kind == "chirpstack", settings.application
        self._references: OrderedDict[str, int] = OrderedDict()
        """What the server calls downlinks whose fate is awaited -> the core's number."""
        self._telling: set[asyncio.Task[bool]] = set()
        for name in ("network_inbox_lost", *(f"network:{reason}" for reason in network_server.REASONS)):
            daemon.counters.setdefault(name, 0)
        topics = (
            (chirpstack.subscription(self._application),)
            if self._chirpstack
            else things_stack.subscriptions(self._application)
        )
        self._link = Link(
            settings,
            access,
            section="network",
            client_id=settings.client_id or f"swarm-network-{self._application.replace('@', '.')}",
            subscriptions=topics,
            payload_max=MESSAGE_SIZE_MAX,
            counters=daemon.counters,
            tell=daemon.tell,
            on_connected=lambda fresh: None,
        )

    async def __aenter__(self) -> NetworkLink:
        self._daemon.hand_over = self._hand_over
        self._serving = asyncio.create_task(self._link.serve(self._take), name="network")
        self._serving.add_done_callback(self._ended)
        self._link.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._serving
        await self._link.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._daemon.stop()  # a mistake of ours is not hidden; `__aexit__` raises it

    def _hand_over(self, downlink: ApplicationDownlink) -> None:
        form = chirpstack if self._chirpstack else things_stack
        topic, message = form.downlink(
            self._application,
            downlink.device,
            downlink.reference,
            f_port=downlink.f_port,
            payload=downlink.payload,
        )
        self._references[form.reference_of(downlink.reference)] = downlink.reference
        while len(self._references) > REFERENCES_MAX:
            self._references.popitem(last=False)
        if not self._link.publish(topic, message, urgent=True):
            del self._references[form.reference_of(downlink.reference)]
            task = asyncio.create_task(self._daemon.application_fate(downlink.reference, "BROKER_AWAY"))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _take(self, message: Incoming) -> bool:
        """Do what a message asks for; False when it should be delivered again."""
        if message.retain:  # an old one, which comes again with every connection
            self._daemon.counters["network:retained"] += 1
            return True
        form = chirpstack if self._chirpstack else things_stack
        event: ServerEvent | Malformed | None = form.parse(self._region, message.topic, message.payload)
        match event:
            case Malformed():
                self._daemon.counters[f"network:{event.reason}"] += 1
            case ApplicationUplink():
                return await self._daemon.application_uplink(event)
            case DownlinkFate():
                return await self._fate(event)
            case ServerJoin() | None:
                pass  # a new session shows in the next uplink
        return True

    async def _fate(self, fate: DownlinkFate) -> bool:
        reference = self._references.get(fate.reference)
        if reference is None or fate.stage not in _SENT | _FAILED:
            return True
        del self._references[fate.reference]
        error = (fate.reason or "FAILED") if fate.stage in _FAILED else None
        return await self._daemon.application_fate(reference, error)
