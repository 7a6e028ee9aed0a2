"""A network server and its devices, in virtual time: a queue for each device, downlinks that get lost.

The devices are the firmware's C code (TS003 to TS005, or the whole node); the server is written out here as
ChirpStack and The Things Stack do it: in class A one frame of the queue after each uplink, in class C one
after the other.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from swarm.commands import AddNode
from swarm.config import SwarmConfig
from swarm.effects import ApplicationDownlink, ApplicationUplink, Malformed
from swarm.mac.group import GroupKeys, MulticastMemo, ReceivingGroup
from swarm.phy.regions import region
from swarm.prng import Prng
from swarm.security.lorawan import AesKey, data_block_key
from swarm.transport.device import Device
from swarm.transport.device_setup import Clock, Groups
from tests.firmware.large_block import Bench
from tests.swarm.cell import SECOND_US, Cell, dev_eui

GEN_APP_KEY = bytes(range(70, 86))
GPS_US = (315_964_800 - 18) * SECOND_US
HANDED_ON_US = 300_000
"""From the end of an uplink to the daemon."""


def node(index: int, *, gen_app_key: bytes | None = GEN_APP_KEY, device_class: str = "a") -> AddNode:
    """A node whose MAC the server does."""
    made = AddNode(dev_eui(index), f"node-{index}", index % 4, "network", "west", node_index=index)
    return replace(made, gen_app_key=gen_app_key, device_class=device_class)  # type: ignore[arg-type]


@dataclass
class Behind:
    """One device: what it says and hears; `own`: a node of ours."""

    index: int
    always_on: bool
    own: Bench | None = None
    version: int = 2
    born_us: int = 0
    device: Device = field(init=False)
    clock: Clock = field(init=False)
    session: str = "one"
    f_cnt: int = 0
    is_gone: bool = False
    says: list[tuple[int, int, bytes]] = field(default_factory=list)
    heard: list[tuple[int, bytes]] = field(default_factory=list)
    queue: deque[ApplicationDownlink] = field(default_factory=deque)
    depth: int = 0
    """The longest that its queue at the server was."""

    def __post_init__(self) -> None:
        self.device = self.reset()
        self.clock = Clock(seed=self.index + 1)
        self.groups = Groups(GEN_APP_KEY, version=self.version)
        self.receiving: ReceivingGroup | None = None

    def reset(self) -> Device:
        """The receiver as it is after a reset that remembers nothing."""
        key = data_block_key(AesKey(GEN_APP_KEY)).raw
        return Device(key, version=self.version, seed=self.index + 1)

    def hear(self, at_us: int, f_port: int, payload: bytes) -> None:
        self.heard.append((f_port, payload))
        if self.own is not None:
            self.own.nodes.rx(0, self.at(at_us), f_port, payload)
        elif f_port == 202:
            self.clock.rx(at_us - self.born_us, payload)
        elif f_port == 200:
            _, answer = self.groups.rx(payload, self.clock.gps_s(self.at(at_us)))
            known = self.groups.group(0)
            if known is not None and self.receiving is None:
                keys = GroupKeys(known.nwk_s_key, known.app_s_key)
                self.receiving = ReceivingGroup(known.address, keys, known.f_cnt_min, known.f_cnt_max)
            if answer:
                self.says.append((at_us, 200, answer))
        elif f_port == 201:
            self._take(at_us, payload, None)

    def hear_group(self, at_us: int, phy: bytes) -> None:
        """A frame of a gateway's, if the receiver is on for the group."""
        known = self.groups.group(0)
        if known is None or known.session is None or self.receiving is None:
            return
        start_s, length_s, _, _ = known.session
        if 0 <= self.clock.gps_s(self.at(at_us)) - start_s < length_s:
            got = self.receiving.receive(phy, MulticastMemo())
            assert not isinstance(got, Malformed), got
            if got.f_port == 201:
                self._take(at_us, got.payload, 0)

    def _take(self, at_us: int, payload: bytes, group: int | None) -> None:
        _, said = self.device.rx(payload, group)
        if said is not None:
            self.says.append((at_us + said.delay_us, 201, said.payload))

    def at(self, at_us: int) -> int:
        """This time on the device's own clock."""
        return at_us - self.born_us

    def due(self, now_us: int) -> list[tuple[int, bytes]]:
        """What it says by itself."""
        if self.own is not None:
            self.own.nodes.poll(self.at(now_us))
            return [(f_port, payload) for _, f_port, payload in self.own.nodes.outbox()]
        due = [(f_port, payload) for at_us, f_port, payload in self.says if at_us <= now_us]
        self.says = [said for said in self.says if said[0] > now_us]
        return due


class Bare(Cell):
    """A cell without nodes and without a group."""

    def __post_init__(self) -> None:
        self.region = region(self.config.region)
        self.devices = []
        self._build()
        self.keep_alive()


def cell_knows_nothing(cell: Cell, device: Behind) -> bool:
    """Whether no frame of the device came yet."""
    entry = cell.core.registry.get(dev_eui(device.index))
    return entry is None or entry.status.last_seen_us is None


class ServerPlay:
    """`late`: what the daemon says to an uplink is too late for its receive window; `silence`: of so many
    downlinks the server does not tell the fate; `fails`: so many it cannot send at first, `failing`: that
    share of the others."""

    def __init__(
        self,
        config: SwarmConfig,
        devices: list[Behind],
        *,
        loss: float = 0.2,
        late: bool = True,
        silence: float = 0.0,
        fails: int = 0,
        failing: float = 0.0,
    ) -> None:
        self.loss, self.late, self.silence, self.fails, self.failing = loss, late, silence, fails, failing
        self.draw = Prng(5).child("air").numpy()
        self.cell = Bare(config)
        self.devices = devices
        for each in devices:
            each.born_us = self.cell.now_us - 1_000_000_000
            made = node(
                each.index,
                gen_app_key=GEN_APP_KEY if each.own is None else None,
                device_class="c" if each.always_on else "a",
            )
            assert self.cell.command(made) is None
        self.cell.poll()
        self._seen = len(self.cell.effects)
        self.sent: list[ApplicationDownlink] = []
        self._on_air = 0
        for each in devices:
            while cell_knows_nothing(self.cell, each):
                self.uplink(each, 1, b"x")

    def given(self, device: Behind, f_port: int, payload: bytes, f_cnt: int) -> ApplicationUplink:
        """A frame of a device as the server hands it on, received now."""
        return ApplicationUplink(
            dev_eui=dev_eui(device.index),
            device=f"device-{device.index}",
            session=device.session,
            f_cnt=f_cnt,
            f_port=f_port,
            payload=payload,
            confirmed=False,
            at_us=self.cell.now_us,
            frequency_hz=868_100_000,
            data_rate=5,
            gateway_id="0016c001f153a14c",
            rssi_dbm=-97.0,
            snr_db=7.5,
        )

    def uplink(self, device: Behind, f_port: int, payload: bytes) -> None:
        """A frame of a device reaches the server, which hands it on and sends what it has for the device."""
        if self.draw.random() < self.loss:
            device.f_cnt += 1
            return
        cell = self.cell
        given = self.given(device, f_port, payload, device.f_cnt)
        device.f_cnt += 1
        due = device.queue.popleft() if device.queue and self.late and not device.always_on else None
        cell.run_until(cell.now_us + HANDED_ON_US)
        cell.perform(cell.core.on_application_uplink(cell.now_us, given))
        self._take()
        if due is None and device.queue and not self.late and not device.always_on:
            due = device.queue.popleft()
        if due is not None:
            self._send(device, due)

    def _group(self) -> None:
        """What gateways of the cell sent to the group."""
        for transmit in self.cell.on_air[self._on_air :]:
            for device in self.devices:
                if transmit.multicast and self.draw.random() >= self.loss:
                    device.hear_group(transmit.at_us + transmit.airtime_us, transmit.payload)
        self._on_air = len(self.cell.on_air)

    def _take(self) -> None:
        """What the daemon puts into the queues."""
        effects, self._seen = self.cell.effects[self._seen :], len(self.cell.effects)
        for effect in effects:
            if isinstance(effect, ApplicationDownlink):
                device = next(each for each in self.devices if dev_eui(each.index) == effect.dev_eui)
                assert effect.device == f"device-{device.index}"
                device.queue.append(effect)
                device.depth = max(device.depth, len(device.queue))

    def _send(self, device: Behind, downlink: ApplicationDownlink) -> None:
        cell = self.cell
        cell.run_until(cell.now_us + SECOND_US)
        fails = self.fails > 0 or self.draw.random() < self.failing
        error = "PAYLOAD_SIZE" if fails else None
        self.fails -= 1
        if error is None:
            self.sent.append(downlink)
            if self.draw.random() >= self.loss:
                device.hear(cell.now_us, downlink.f_port, downlink.payload)
        if self.draw.random() >= self.silence:
            cell.perform(cell.core.on_application_fate(cell.now_us, downlink.reference, error))
        self._take()

    def run(self, hours: float, every_s: int = 3600, restart_every: int = 0) -> None:
        """Time passes until a block has ended: each device speaks when it has something to say, and every so
        often anyway."""
        cell, turns = self.cell, 0
        until_us = cell.now_us + int(hours * 3600) * SECOND_US
        next_us = {each.index: cell.now_us + (7 + each.index) * SECOND_US for each in self.devices}
        while cell.now_us < until_us and not cell.told("block_ended"):
            cell.run_for(3)
            cell.keep_alive()
            self._take()
            self._group()
            for device in [each for each in self.devices if not each.is_gone]:
                if device.always_on and device.queue:
                    self._send(device, device.queue.popleft())
                for f_port, payload in device.due(cell.now_us):
                    self.uplink(device, f_port, payload)
                if cell.now_us >= next_us[device.index]:
                    next_us[device.index] = cell.now_us + every_s * SECOND_US
                    request, _ = device.clock.poll(cell.now_us - device.born_us)
                    self.uplink(device, 202 if request else 1, request or b"x")
                    turns += 1
                    if restart_every and turns % restart_every == 0:
                        cell.restart()
