"""The connection to the broker: paho in a thread of its own, bounded both ways, reconnecting for ever.

Theory of operation.  MQTT 3.1.1, QoS 1, one persistent session under a fixed client id.

Out: `publish` hands a message to paho, which keeps it until the broker has acknowledged it, over any number
of reconnections.  How much waits is bounded here: beyond, events are dropped and counted (`mqtt_lost`);
answers have a reserve.

In: messages wait in `inbox`, at most `INBOX_MAX`, each cut to one byte more than it may have; when it is full
the network's thread reads no further, so that the broker keeps what comes.  The broker gets its
acknowledgement only by `ack`, when what the message asks for is on the disk: else it delivers again.

The network's thread touches nothing of the daemon's: it appends to `inbox` and wakes the event loop.
Whatever a broker sends, the thread lives; a failure is one line in the log, not repeated for ten minutes, and
another try, after 1 s at first and 120 s at last.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from gateway.config import BrokerSection
from gateway.mqtt.access import Access
from gateway.mqtt.topics import OFFLINE
from swarm.effects import Event

__all__ = ["Incoming", "Link"]

INBOX_MAX = 64
INBOX_WAIT_S = 20.0
"""So long the broker is kept waiting; less than what it takes to count as gone (`KEEPALIVE_S` and a half)."""
OUTBOX_MAX = 2_000
OUTBOX_BYTES_MAX = 8_000_000
EVENTS_SHARE = 0.75
"""The rest of the outbox is kept for answers."""
RETRY_MIN_S, RETRY_MAX_S = 1, 120
BROKEN_S = 5.0
KEEPALIVE_S = 60
QUIET_S = 600.0
SAID_MAX = 50
FAILURES = ("unreachable", "certificate", "no_tls", "refused", "no_answer", "lost", "broke_off")
"""Why there is no connection; counted under the section's name."""
GRACE_S = 3.0
"""How long the end waits for the broker."""

log = logging.getLogger("swarm.mqtt")


@dataclass(frozen=True, slots=True)
class Incoming:
    """One message from the broker; `retain`: it is an old one that the subscription brought up."""

    topic: str
    payload: bytes
    retain: bool
    mid: int
    qos: int


class Link:
    """Made and used in the event loop, where `on_connected(fresh)` is called; fresh: the broker forgot us."""

    def __init__(
        self,
        settings: BrokerSection,
        access: Access,
        *,
        section: str,
        client_id: str,
        subscriptions: Sequence[str],
        payload_max: int,
        counters: dict[str, int],
        tell: Callable[[Event], None],
        on_connected: Callable[[bool], None],
        will_topic: str | None = None,
    ) -> None:
        self._section, self._payload_max = section, payload_max
        self._lost, self._inbox_full = f"{section}_lost", f"{section}_inbox_lost"
        self._where = f"{section} {settings.host}:{settings.port}"
        self._subscriptions = [(topic, 1) for topic in subscriptions]
        self._counters = counters
        self._tell = tell
        for reason in FAILURES:
            counters.setdefault(f"{section}:{reason}", 0)
        self._connected = on_connected
        self._loop = asyncio.get_running_loop()
        self._inbox: deque[Incoming] = deque()
        self._inbox_room = threading.Event()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._unsent: dict[int, int] = {}
        self._unsent_bytes = 0
        self._said: dict[str, float] = {}
        self._stage: Literal["connecting", "connected", "refused"] = "connecting"
        self._client_id = client_id
        self._client = _Client(self._client_id, self._broke)
        self._client.reconnect_delay_set(RETRY_MIN_S, RETRY_MAX_S)
        self._client.max_queued_messages_set(OUTBOX_MAX)
        if will_topic is not None:
            self._client.will_set(will_topic, OFFLINE, qos=1, retain=True)
        if settings.username:
            self._client.username_pw_set(settings.username, access.password)
        if access.tls is not None:
            self._client.tls_set_context(access.tls)
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_publish = self._on_publish
        self._client.on_message = self._on_message
        self._client.connect_async(settings.host, settings.port, KEEPALIVE_S)
        if access.password is not None and access.tls is None and not _is_local(settings.host):
            log.warning("%s: the password goes there unencrypted; set [%s] tls = true", self._where, section)

    def start(self) -> None:
        """Begin to connect; comes back at once."""
        self._client.loop_start()

    async def serve(self, take: Callable[[Incoming], Awaitable[bool]]) -> None:
        """Give `take` each message in the order they came, for ever; one that it took is acknowledged.

        False from it: the broker is to deliver the message again.
        """
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._inbox:
                message = self._inbox.popleft()
                self._inbox_room.set()
                if await take(message):
                    self._ack(message)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, urgent: bool = False) -> bool:
        """Give a message to the broker, now or when it is there again; False when too much waits."""
        size = len(topic) + len(payload)
        share = 1.0 if urgent else EVENTS_SHARE
        room = len(self._unsent) < share * OUTBOX_MAX
        if room and self._unsent_bytes + size <= share * OUTBOX_BYTES_MAX:
            sent = self._client.publish(topic, payload, qos=1, retain=retain)
            if sent.rc in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN):
                self._unsent[sent.mid] = size
                self._unsent_bytes += size
                self._judge_room()
                return True
        self._counters[self._lost] += 1
        return False

    async def room(self) -> None:
        """Wait until half of the outbox is free."""
        await self._room.wait()

    def _ack(self, message: Incoming) -> None:
        """What the message asks for is done: the broker need not deliver it again."""
        if message.qos:
            self._client.ack(message.mid, message.qos)

    async def close(self) -> None:
        """Leave when what waits has gone out; a broker that does not answer is left after `GRACE_S`."""
        until_s = self._loop.time() + GRACE_S
        while self._unsent and self._client.is_connected() and self._loop.time() < until_s:
            await asyncio.sleep(0.01)
        ended = asyncio.Event()
        self._client.ending.set()
        self._inbox_room.set()
        self._client.disconnect()

        def stop() -> None:
            self._client.loop_stop()
            self._in_loop(ended.set)

        threading.Thread(target=stop, name="mqtt-stop", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), GRACE_S)

    def _published(self, mid: int) -> None:
        self._unsent_bytes -= self._unsent.pop(mid, 0)
        self._judge_room()

    def _judge_room(self) -> None:
        if len(self._unsent) < OUTBOX_MAX // 2 and self._unsent_bytes < OUTBOX_BYTES_MAX // 2:
            self._room.set()
        else:
            self._room.clear()

    # -- in the network's thread ------------------------------------------------------------------

    def _in_loop(self, call: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended before this thread
            self._loop.call_soon_threadsafe(call, *arguments)

    def _on_connect(self, client: paho.Client, _: Any, flags: Any, reason: Any, __: Any) -> None:
        if reason.is_failure:
            self._stage = "refused"
            self._fail("refused", f"refused: {reason}; {_remedy(self._section, str(reason))}")
            return
        self._stage = "connected"
        if self._say(logging.INFO, "connected"):
            self._in_loop(self._tell, Event("broker_connected", 0, {"broker": self._where}))
        client.subscribe(self._subscriptions)
        self._in_loop(self._connected, not flags.session_present)

    def _on_connect_fail(self, client: paho.Client, _: Any) -> None:
        reason, why = _why(self._section, self._client.failure)
        self._fail(reason, f"not reachable: {why}; trying again")

    def _on_disconnect(self, client: paho.Client, _: Any, __: Any, reason: Any, ___: Any) -> None:
        stage, self._stage = self._stage, "connecting"
        if self._client.ending.is_set() or stage == "refused":
            return
        if stage == "connected":
            self._fail("lost", "connection lost; trying again (is another client called the same?)")
        else:
            what = "closed the connection without an answer"
            self._fail("no_answer", f"{what}; does it expect TLS, or a client certificate?")

    def _broke(self, error: Exception) -> None:
        self._fail("broke_off", f"broke off ({type(error).__name__}: {error}); trying again")

    def _on_subscribe(self, client: paho.Client, _: Any, __: int, reasons: Sequence[Any], ___: Any) -> None:
        for (topic, _qos), reason in zip(self._subscriptions, reasons, strict=False):
            if reason.is_failure:
                self._say(logging.WARNING, f"may not read {topic}; allow {self._client_id} to")

    def _on_publish(self, client: paho.Client, _: Any, mid: int, __: Any, ___: Any) -> None:
        self._in_loop(self._published, mid)

    def _on_message(self, client: paho.Client, _: Any, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        if not self._has_inbox_room():
            if self._client.ending.is_set():
                return  # not acknowledged: it comes again after the next start
            self._in_loop(self._count, self._inbox_full)
            client.ack(message.mid, message.qos)
            return
        payload = bytes(message.payload[: self._payload_max + 1])
        self._inbox.append(Incoming(topic, payload, message.retain, message.mid, message.qos))
        self._in_loop(self._arrived.set)

    def _has_inbox_room(self) -> bool:
        """Waits for it; False when the daemon takes nothing for `INBOX_WAIT_S`, or ends."""
        while len(self._inbox) >= INBOX_MAX:
            self._inbox_room.clear()
            full = len(self._inbox) >= INBOX_MAX
            if full and (self._client.ending.is_set() or not self._inbox_room.wait(INBOX_WAIT_S)):
                return False
        return True

    def _fail(self, reason: str, text: str) -> None:
        """Count a failure, and tell of it."""
        self._in_loop(self._count, f"{self._section}:{reason}")
        if self._say(logging.WARNING, text):
            data = {"broker": self._where, "reason": reason, "detail": text}
            self._in_loop(self._tell, Event("broker_failed", 0, data))

    def _count(self, name: str) -> None:
        self._counters[name] += 1

    def _say(self, level: int, text: str) -> bool:
        """Once in `QUIET_S` (False: not now): a broker that is away for a week is not a week of lines."""
        now_s = time.monotonic()
        if now_s - self._said.get(text, float("-inf")) < QUIET_S:
            return False
        if len(self._said) >= SAID_MAX:
            self._said.clear()
        self._said[text] = now_s
        log.log(level, "%s: %s", self._where, text)
        return True


class _Client(paho.Client):
    """Paho's client, except that its thread outlives what a broken broker makes it raise."""

    def __init__(self, client_id: str, on_broken: Callable[[Exception], None]) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=False,
            protocol=paho.MQTTv311,
            manual_ack=True,
        )
        self.failure: OSError | None = None
        self.ending = threading.Event()
        self._on_broken = on_broken

    def reconnect(self) -> MQTTErrorCode:
        """As paho's; keeps why it failed, which paho does not tell."""
        try:
            return super().reconnect()
        except OSError as error:
            self.failure = error
            raise

    def loop_forever(self, timeout: float = 1.0, retry_first_connection: bool = False) -> MQTTErrorCode:
        """As paho's, for ever."""
        while True:
            try:
                return super().loop_forever(timeout, retry_first_connection)
            except Exception as error:  # noqa: BLE001  # whatever a broker's bytes lead to
                self._on_broken(error)
            if self.ending.wait(BROKEN_S):
                return MQTTErrorCode.MQTT_ERR_SUCCESS
            self.connect_async(self.host, self.port, self.keepalive)


def _why(section: str, failure: OSError | None) -> tuple[str, str]:
    """One of `FAILURES`, and the words for it."""
    match failure:
        case ssl.SSLCertVerificationError():
            what = f"its certificate is not accepted ({failure.verify_message})"
            return "certificate", f"{what}; set [{section}] ca_file and host"
        case ssl.SSLError():
            return "no_tls", f"no TLS there ({failure.reason or failure}); set [{section}] port and tls"
        case None:
            return "unreachable", "unknown"
    return "unreachable", failure.strerror or str(failure)


def _remedy(section: str, reason: str) -> str:
    if "user" in reason.lower() or "authori" in reason.lower():
        return f"set [{section}] username and password_file"
    return "trying again"


def _is_local(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")
