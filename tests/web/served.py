"""A real daemon in a thread, on free ports, and the cell around it: a packet forwarder and nodes.

`Served` is what a gateway's machine is; `Cell` plays the field: end devices whose frames reach the daemon as
a packet forwarder's PUSH_DATA, and which hear what it answers with PULL_RESP.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from gateway.api.app import WEB, create_app
from gateway.commands.gateway import mqtt_faces, network_servers
from gateway.config import (
    AskingSection,
    GatewayConfig,
    GatewaySection,
    HttpSection,
    LearningSection,
    MqttSection,
    NetworkSection,
    NodesSection,
    UdpSection,
)
from gateway.daemon import Daemon
from swarm.mac.device import AbpIdentity, Delivered, EndDevice, MulticastMemo
from swarm.phy.regions import region
from swarm.prng import Prng
from swarm.wire import app

__all__ = ["Cell", "Node", "Served", "until"]

WITHIN_S = 20.0
EUI = bytes.fromhex("aa555a0000000000")
GROUP = {"mc_addr": "fc00a001", "nwk_s_key": "11" * 16, "app_s_key": "22" * 16}
CROPS = ("apple", "tomato", "potato", "grape")
EU868 = region("eu868")


def until(condition: Callable[[], Any], what: str, within_s: float = WITHIN_S) -> Any:
    """Wait for a condition of another thread or process to hold, and return its value."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {within_s} s for {what}"
        threading.Event().wait(0.02)
    return value


class Served:
    """`with Served(folder) as served:` a daemon serves; `http` is a client that has the token."""

    def __init__(
        self,
        folder: Path,
        *,
        deadline_s: int = 60,
        web: Path = WEB,
        mqtt: MqttSection | None = None,
        network: NetworkSection | None = None,
        status_period_min: int = 60,
        learning: dict[str, Any] | None = None,
    ) -> None:
        self.web = web
        self._make_app = partial(create_app, web=web)
        settings = GatewayConfig(
            gateway=GatewaySection(data_dir=str(folder / "data")),
            udp=UdpSection(host="127.0.0.1", port=0),
            http=HttpSection(port=0),
            mqtt=mqtt or MqttSection(),
            network=network or NetworkSection(),
            nodes=NodesSection(status_period_min=status_period_min),
            learning=LearningSection(
                period_s=3600, close_s=1800, spread_s=60, window_s=60, **(learning or {})
            ),
            asking=AskingSection(k=3, deadline_s=deadline_s),
        )
        self._beside = [*network_servers(settings), *mqtt_faces(settings)]
        self.daemon = Daemon(settings)
        self.failure: BaseException | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="daemon")

    def __enter__(self) -> Served:
        self._thread.start()
        assert self._ready.wait(WITHIN_S)
        assert self.failure is None, self.failure
        self.url = str(self.daemon.http_url)
        headers = {"authorization": f"Bearer {self.daemon.token}"}
        self.http = httpx.Client(base_url=self.url, headers=headers, timeout=WITHIN_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()
        self.stop()
        self._thread.join(WITHIN_S)
        assert not self._thread.is_alive(), "the daemon does not stop"
        if error is None:
            assert self.failure is None, self.failure

    def stop(self) -> None:
        """Let the daemon end; returns at once."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.daemon.stop)

    def alive(self) -> bool:
        """Whether the daemon still answers."""
        return self._thread.is_alive() and self.http.get("/api/state").status_code == 200

    def _run(self) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            running = asyncio.create_task(self.daemon.run(self._make_app, beside=self._beside))
            started = asyncio.create_task(self.daemon.started.wait())
            await asyncio.wait({running, started}, return_when=asyncio.FIRST_COMPLETED)
            self._ready.set()
            started.cancel()
            await running

        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001  # told to the test in its own thread
            self.failure = error
            self._ready.set()


@dataclass(slots=True)
class Node:
    """One end device and what the daemon is told of it at registration."""

    row: dict[str, Any]
    device: EndDevice

    def status(self, *, risk: int = 0, battery: int = 200, model_version: int = 0, serves: int = 0) -> bytes:
        """A STATUS payload."""
        frame = app.Status(
            model_version=model_version,
            model_id=0x1234,
            battery=battery,
            labelled=12,
            flags=0,
            temperature_centi=1834,
            humidity_half=151,
            rain_tenth=3,
            risk=risk << 6 | 50,
            multicast_received=0,
            serves=serves,
        )
        return app.encode(frame)


class Cell:
    """Nodes in rows of a field, heard by one gateway: its socket speaks the packet forwarder's protocol."""

    def __init__(self, udp_address: tuple[str, int], count: int, *, spacing_m: float = 40.0) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(udp_address)
        self._socket.settimeout(0.2)
        self._token = 0
        self.downlinks: list[dict[str, Any]] = []
        memo = MulticastMemo()
        self.nodes = [_node(index, count, spacing_m, memo) for index in range(count)]

    def close(self) -> None:
        self._socket.close()

    def registration(self) -> dict[str, Any]:
        """The body of POST /api/nodes."""
        return {"nodes": [node.row for node in self.nodes], "multicast": GROUP}

    def pull(self) -> None:
        """PULL_DATA: opens the way down."""
        self._send(2, b"")

    def uplink(self, node: Node, f_port: int, payload: bytes, *, snr_db: float = 7.5) -> None:
        """One frame of a node, as the gateway heard it."""
        now_us = time.time_ns() // 1000
        phy = node.device.uplink(now_us, f_port, payload).payload
        self.push(phy, data_rate=node.device.data_rate, snr_db=snr_db)

    def push(self, phy: bytes, *, data_rate: int = 5, snr_db: float = 7.5) -> None:
        """PUSH_DATA with one packet."""
        rate = EU868.uplink_data_rates[data_rate]
        packet = {
            "tmst": time.monotonic_ns() // 1000 & 0xFFFFFFFF,
            "freq": 868.1,
            "stat": 1,
            "modu": "LORA",
            "datr": f"SF{rate.spreading_factor}BW{rate.bandwidth_hz // 1000}",
            "codr": "4/5",
            "rssi": -97,
            "lsnr": snr_db,
            "size": len(phy),
            "data": base64.b64encode(phy).decode(),
        }
        self._send(0, json.dumps({"rxpk": [packet]}).encode())

    def hear(self) -> list[tuple[Node, Delivered]]:
        """Take what the daemon sent meanwhile; frames that a node accepted."""
        heard = []
        while (datagram := self._received()) is not None:
            if datagram[3] != 3:
                continue
            packet = json.loads(datagram[4:])["txpk"]
            self.downlinks.append(packet)
            self._send(5, b"", datagram[1:3])
            phy = base64.b64decode(packet["data"])
            for node in self.nodes:
                result = node.device.receive(time.time_ns() // 1000, phy)
                if isinstance(result, Delivered):
                    heard.append((node, result))
        return heard

    def converse(self, probabilities: tuple[int, int, int]) -> int:
        """All nodes speak, hear the questions that wait for them, and answer; how many did."""
        for node in self.nodes:
            self.uplink(node, 12, node.status())
        count = 0
        for node, heard in self.hear():
            question = app.decode_downlink(heard.f_port, heard.payload) if heard.f_port else None
            if isinstance(question, app.Query):
                context = CROPS.index(node.row["crop"])
                reply = app.Answer(question.query_id, context, probabilities, 0, 1, 1)
                self.uplink(node, 11, app.encode(reply))
                count += 1
        return count

    def _received(self) -> bytes | None:
        try:
            return self._socket.recv(65_535)
        except TimeoutError:
            return None

    def _send(self, kind: int, body: bytes, token: bytes | None = None) -> None:
        if token is None:
            self._token += 1
            token = (self._token & 0xFFFF).to_bytes(2, "big")
        self._socket.send(b"\x02" + token + bytes([kind]) + EUI + body)


def _node(index: int, count: int, spacing_m: float, memo: MulticastMemo) -> Node:
    """Node `index` of a field of rows; crops stand in blocks, every plot is a quarter of one."""
    columns = max(1, round(count**0.5))
    row, column = divmod(index, columns)
    crop = CROPS[min(3, 4 * index // count)]
    nwk, own = index.to_bytes(16, "big"), (index + 1_000_000).to_bytes(16, "big")
    jitter = (index * 7919 % 13 - 6) * 0.6
    registration = {
        "dev_eui": f"70b3d57ed{index:07x}",
        "name": f"{crop}-{index:03d}",
        "crop": crop,
        "activation": "abp",
        "plot": f"{crop} {'east' if column >= columns / 2 else 'west'}",
        "lat": 47.40 + (row * spacing_m + jitter) / 111_320,
        "lon": 9.65 + (column * spacing_m - jitter) / (111_320 * 0.6768),
        "dev_addr": f"{0x26000000 + index:08x}",
        "nwk_s_key": nwk.hex(),
        "app_s_key": own.hex(),
    }
    identity = AbpIdentity(0x26000000 + index, nwk, own)
    device = EndDevice(EU868, identity, Prng(index), memo=memo, data_rate=5)
    device.add_group(
        int(GROUP["mc_addr"], 16), bytes.fromhex(GROUP["nwk_s_key"]), bytes.fromhex(GROUP["app_s_key"])
    )
    return Node(registration, device)
