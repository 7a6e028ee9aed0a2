"""A cell for questions: real nodes, real LoRaWAN, the gateway's own core, and nothing of fields and weather.

Theory of operation.  Virtual time, one gateway without faults of its own.  A frame is lost when another one
of its channel and data rate overlaps it, when the gateway transmits meanwhile, or by chance.  A class A node
hears a downlink that begins when and where one of its receive windows opens; a node whose receiver is always
on hears all on its RX2 channel when it does not send.  Everything that was on the air is in `log`.
Boards with a flash run a verified container at once where it is their model with other experts.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from swarm.commands import AddNode, Command
from swarm.config import SwarmConfig
from swarm.coordinator import Coordinator
from swarm.effects import Effect, Event, Row, RxFrame, Store, Transmit, TxAck
from swarm.mac.device import AbpIdentity, Delivered, EndDevice, RxWindow, UplinkFrame
from swarm.node import ALWAYS_ON, NodeConfig, Nodes
from swarm.phy.regions import region
from swarm.prng import Prng
from swarm.receiver import Receivers
from swarm.registry import Refused
from swarm.security.signatures import SigningKey

__all__ = ["AskingCell", "OnAir", "dev_eui"]

GATEWAY_ID = "aa555a0000000001"
SIGN_OF_LIFE_US = 60_000_000
COUNTER_WRAP_US = 1 << 32
SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class OnAir:
    """One application frame: `node` sent it (`up`), or it was sent to that node; `heard` by its addressee."""

    node: int
    up: bool
    f_port: int
    kind: int
    """First byte of the payload."""
    size: int
    start_us: int
    end_us: int
    heard: bool


@dataclass(slots=True)
class _Uplink:
    node: int
    f_port: int
    payload: bytes
    frame: UplinkFrame
    lost: bool = False


def dev_eui(node: int) -> str:
    """The DevEUI of node `node`."""
    return f"70b3d57ed1{node:06x}"


class AskingCell:
    """`configs[i]` is what node i is told, `data_rates[i]` its uplink data rate; see the module."""

    def __init__(
        self,
        configs: Sequence[NodeConfig],
        data_rates: Sequence[int],
        model: bytes,
        config: SwarmConfig,
        *,
        seed: int,
        gateway_model: bytes | None = None,
        loss: float = 0.0,
        start_us: int = 0,
        flash_size: int = 0,
        signing_key: SigningKey | None = None,
    ) -> None:
        """`gateway_model`: the gateway's image where it is not the nodes'; `loss`: share of frames lost each
        way; `flash_size`: bytes that each node has for large blocks, signed with `signing_key`."""
        self.now_us = start_us
        self.region = region(config.region)
        self.nodes = Nodes(len(configs), configs, model, now_us=start_us, flash_size=flash_size)
        self.receivers = Receivers(self.nodes)
        self.devices = [_device(self.region.name, i, rate, seed) for i, rate in enumerate(data_rates)]
        self.always_on = [bool(each.flags & ALWAYS_ON) for each in configs]
        self.log: list[OnAir] = []
        self.events: list[Event] = []
        self.rows: dict[str, dict[str, Row]] = {}
        self.silenced: set[int] = set()
        """Nodes whose frames nobody hears."""
        self.tamper: Callable[[int, int, bytes], bytes] = lambda node, f_port, payload: payload
        """What a node sends instead of what its firmware wanted to."""
        self._model = model if gateway_model is None else gateway_model
        self._config = config
        self._signing_key = signing_key
        self.loss = loss
        """Share of frames that are lost by chance, each way; may be changed."""
        self._dice = Prng(seed).child("asking-cell").numpy()
        self._heap: list[tuple[int, int, Callable[[int], None]]] = []
        self._sequence = 0
        self._on_air: list[_Uplink] = []
        self._sending: list[tuple[int, int]] = []
        self._windows: dict[int, tuple[RxWindow, RxWindow]] = {}
        self._wake_us = [start_us] * len(configs)
        self._poll_us: int | None = None
        self.core = Coordinator(config, {}, self._model, signing_key)
        self._perform(self.core.on_gateway(start_us, GATEWAY_ID))
        for node in range(len(configs)):
            added = self.core.on_command(start_us, _add_node(node))
            assert not isinstance(added, Refused), added
            self._perform(added)
            self._at(start_us, lambda now_us, node=node: self._wake(now_us, node))  # type: ignore[misc]
        self._at(start_us + SIGN_OF_LIFE_US, self._sign_of_life)
        self._schedule_poll()

    # -- driving ----------------------------------------------------------------------------------

    def run_until(self, until_us: int) -> None:
        """Let time pass."""
        while self.now_us < until_us:
            self.step(until_us)

    def step(self, until_us: int) -> None:
        """Let the next thing happen that is due by `until_us`; else it is that time."""
        if not self._heap or self._heap[0][0] > until_us:
            self.now_us = until_us
            return
        self.now_us, _, call = heapq.heappop(self._heap)
        call(self.now_us)

    def poll(self, node: int) -> None:
        """Let a node send what is due, after something was done to it."""
        self.nodes.poll_one(node, self.now_us)
        self._collect(self.now_us)
        self._plan_wake(node)

    def restart_gateway(self) -> None:
        """Build the core again from its rows."""
        rows = {table: {key: dict(row) for key, row in kept.items()} for table, kept in self.rows.items()}
        self.core = Coordinator(self._config, rows, self._model, self._signing_key)
        self._perform(self.core.on_gateway(self.now_us, GATEWAY_ID))
        self._schedule_poll()

    def command(self, command: Command) -> list[Effect] | Refused:
        """An operator's command, carried out."""
        effects = self.core.on_command(self.now_us, command)
        if not isinstance(effects, Refused):
            self._perform(effects)
            self._schedule_poll()
        return effects

    def told(self, kind: str) -> list[Event]:
        """The events of one kind."""
        return [event for event in self.events if event.kind == kind]

    def _at(self, at_us: int, call: Callable[[int], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (max(at_us, self.now_us), self._sequence, call))

    # -- nodes ------------------------------------------------------------------------------------

    def _wake(self, now_us: int, node: int) -> None:
        if self._wake_us[node] <= now_us:
            self.poll(node)

    def _plan_wake(self, node: int) -> None:
        at_us = max(self.nodes.poll_one(node, self.now_us), self.now_us + 1)
        self._collect(self.now_us)
        self._wake_us[node] = at_us
        self._at(at_us, lambda now_us: self._wake(now_us, node))

    def _collect(self, now_us: int) -> None:
        for node, f_port, payload in self.nodes.outbox():
            sent = self.tamper(node, f_port, payload)
            frame = self.devices[node].uplink(now_us, f_port, sent)
            uplink = _Uplink(node, f_port, sent, frame)
            self._at(frame.at_us, lambda _, uplink=uplink: self._uplink_starts(uplink))  # type: ignore[misc]
            self._at(frame.end_us, lambda end_us, uplink=uplink: self._uplink_ends(end_us, uplink))  # type: ignore[misc]

    def _uplink_starts(self, uplink: _Uplink) -> None:
        mine = (uplink.frame.frequency_hz, uplink.frame.data_rate)
        for other in self._on_air:
            if (other.frame.frequency_hz, other.frame.data_rate) == mine:
                other.lost = uplink.lost = True
        self._on_air.append(uplink)

    def _uplink_ends(self, now_us: int, uplink: _Uplink) -> None:
        self._on_air.remove(uplink)
        frame, node = uplink.frame, uplink.node
        deaf = any(start < frame.end_us and end > frame.at_us for start, end in self._sending)
        heard = not (uplink.lost or deaf or node in self.silenced or self._dice.random() < self.loss)
        self._windows[node] = self.devices[node].rx_windows(frame)
        kind = uplink.payload[0] if uplink.payload else 0
        size = len(uplink.payload)
        self.log.append(OnAir(node, True, uplink.f_port, kind, size, frame.at_us, frame.end_us, heard))
        if heard:
            rx = RxFrame(
                payload=frame.payload,
                gateway_id=GATEWAY_ID,
                at_us=now_us,
                tmst_us=now_us % COUNTER_WRAP_US,
                frequency_hz=frame.frequency_hz,
                data_rate=frame.data_rate,
                rssi_dbm=-95.0,
                snr_db=8.0,
            )
            self._perform(self.core.on_uplink(now_us, rx))
            self._schedule_poll()

    # -- the gateway ------------------------------------------------------------------------------

    def _schedule_poll(self) -> None:
        at_us = self.core.poll_at()
        if at_us is not None and at_us != self._poll_us:
            self._poll_us = at_us
            self._at(at_us, self._poll_core)

    def _poll_core(self, now_us: int) -> None:
        if self._poll_us is not None and self._poll_us <= now_us:
            self._poll_us = None
            self._perform(self.core.poll(now_us))
            self._schedule_poll()

    def _sign_of_life(self, now_us: int) -> None:
        self._perform(self.core.on_gateway(now_us, GATEWAY_ID))
        self._sending = [span for span in self._sending if span[1] > now_us - SIGN_OF_LIFE_US]
        self._at(now_us + SIGN_OF_LIFE_US, self._sign_of_life)

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Store):
                table = self.rows.setdefault(effect.table, {})
                if effect.row is None:
                    table.pop(effect.key, None)
                else:
                    table[effect.key] = dict(effect.row)
            elif isinstance(effect, Transmit):
                self._transmit(effect)
                self._perform(self.core.on_tx_ack(self.now_us, TxAck(effect.transmit_id)))
            elif isinstance(effect, Event):
                self.events.append(effect)

    def _transmit(self, transmit: Transmit) -> None:
        end_us = transmit.at_us + transmit.airtime_us
        self._sending.append((transmit.at_us, end_us))
        self._at(end_us, lambda now_us: self._downlink_ends(now_us, transmit))

    def _downlink_ends(self, now_us: int, transmit: Transmit) -> None:
        address = int.from_bytes(transmit.payload[1:5], "little")
        node = address - _ADDRESS_FIRST
        if not 0 <= node < self.nodes.count:
            return
        heard = self._listens(node, transmit) and self._dice.random() >= self.loss
        result = self.devices[node].receive(now_us, transmit.payload) if heard else None
        if isinstance(result, Delivered) and result.f_port:
            kind, size = result.payload[0], len(result.payload)
            self.log.append(OnAir(node, False, result.f_port, kind, size, transmit.at_us, now_us, True))
            self.nodes.rx(node, now_us, result.f_port, result.payload, snr_db=8.0)
            self.receivers.install(node, now_us)
            self.poll(node)
        elif not heard:
            size = len(transmit.payload) - 13
            self.log.append(OnAir(node, False, 0, 0, size, transmit.at_us, now_us, False))

    def _listens(self, node: int, transmit: Transmit) -> bool:
        windows = self._windows.get(node, ())
        if any((w.open_us, w.frequency_hz) == (transmit.at_us, transmit.frequency_hz) for w in windows):
            return True
        sends = any(uplink.node == node for uplink in self._on_air)
        own_channel = transmit.frequency_hz == self.devices[node].mac.rx2_frequency_hz
        return self.always_on[node] and own_channel and not sends


_ADDRESS_FIRST = 0x0001_0000


def _keys(node: int) -> tuple[bytes, bytes]:
    return bytes((1,)) * 12 + node.to_bytes(4, "big"), bytes((2,)) * 12 + node.to_bytes(4, "big")


def _add_node(node: int) -> AddNode:
    nwk_s_key, app_s_key = _keys(node)
    return AddNode(
        dev_eui=dev_eui(node),
        name=f"node-{node}",
        context=0,
        activation="abp",
        node_index=node,
        dev_addr=_ADDRESS_FIRST + node,
        nwk_s_key=nwk_s_key,
        app_s_key=app_s_key,
    )


def _device(name: str, node: int, data_rate: int, seed: int) -> EndDevice:
    identity = AbpIdentity(_ADDRESS_FIRST + node, *_keys(node))
    return EndDevice(region(name), identity, Prng(seed).child(f"device-{node}"), data_rate=data_rate)
