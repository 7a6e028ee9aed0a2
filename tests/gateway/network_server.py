"""A network server's side of a broker: ChirpStack's and The Things Stack's topics and messages."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.config import NetworkSection
from swarm.wire import app
from tests.gateway.broker import Broker, Person
from tests.web.served import Served

__all__ = ["Server", "heard", "network"]


class Server:
    """A network server's side of the broker."""

    def __init__(self, kind: str, broker: Broker, **person: Any) -> None:
        self.kind = kind
        self.counters: dict[str, int] = {}
        self.application = "17c82e96" if kind == "chirpstack" else "app1@ttn"
        self.base = "application/17c82e96/device" if kind == "chirpstack" else "v3/app1@ttn/devices"
        self.person = Person(
            broker.port, (f"{self.base}/+/command/down", f"{self.base}/+/down/push"), **person
        )

    def device(self, eui: str) -> str:
        return eui if self.kind == "chirpstack" else f"node-{eui[-1]}"

    def uplink(
        self, eui: str, f_port: int, payload: bytes, *, f_cnt: int | None = None, ago_s: int = 0
    ) -> Any:
        """Publish what a device sent; what was published."""
        if f_cnt is None:
            f_cnt = self.counters.get(eui, 0)
            self.counters[eui] = f_cnt + 1
        data = base64.b64encode(payload).decode()
        time = (datetime.now(UTC) - timedelta(seconds=ago_s)).isoformat()
        if self.kind == "chirpstack":
            message: dict[str, Any] = {
                "time": time,
                "deviceInfo": {"devEui": eui},
                "devAddr": "00189440",
                "fPort": f_port,
                "data": data,
                "dr": 5,
                "rxInfo": [{"gatewayId": "0016c001f153a14c", "rssi": -36, "snr": 10.5}],
            } | ({"fCnt": f_cnt} if f_cnt else {})
            topic = f"{self.base}/{eui}/event/up"
        else:
            message = {
                "end_device_ids": {"device_id": self.device(eui), "dev_eui": eui.upper()},
                "received_at": time,
                "uplink_message": {
                    "session_key_id": "AXA50",
                    "f_port": f_port,
                    "frm_payload": data,
                    "received_at": time,
                    "settings": {"data_rate": {"lora": {"bandwidth": 125_000, "spreading_factor": 7}}},
                }
                | ({"f_cnt": f_cnt} if f_cnt else {}),
            }
            topic = f"{self.base}/{self.device(eui)}/up"
        self.person.say(topic, message)
        return topic, message

    def down_topic(self, eui: str) -> str:
        end = "command/down" if self.kind == "chirpstack" else "down/push"
        return f"{self.base}/{self.device(eui)}/{end}"

    def down(self, eui: str, number: int) -> tuple[dict[str, Any], app.DownlinkMessage]:
        """The `number`th downlink for a device, waited for: as published, and what it says."""
        message = self.person.next(self.down_topic(eui), number)
        if self.kind == "chirpstack":
            f_port, data = message["fPort"], message["data"]
        else:
            (message,) = message["downlinks"]
            f_port, data = message["f_port"], message["frm_payload"]
        said = app.decode_downlink(f_port, base64.b64decode(data))
        return message, said  # type: ignore[return-value]

    def count(self, eui: str) -> int:
        return len(self.person.on(self.down_topic(eui)))


def network(broker: Broker, kind: str, **more: Any) -> NetworkSection:
    application = "17c82e96" if kind == "chirpstack" else "app1@ttn"
    return NetworkSection(enabled=True, port=broker.port, kind=kind, application=application, **more)  # type: ignore[arg-type]


def heard(served: Served, eui: str) -> int:
    nodes = served.http.get("/api/nodes").json()["nodes"]
    return int(next(node["uplinks"] for node in nodes if node["dev_eui"] == eui))


def fate_topic_and_message(server: Server, eui: str, downlink: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """What the server says when it has sent this downlink, as it was published."""
    if server.kind == "chirpstack":
        return f"{server.base}/{eui}/event/txack", {
            "deviceInfo": {"devEui": eui},
            "queueItemId": downlink["id"],
            "gatewayId": "0016c001f153a14c",
        }
    identifiers = {"device_id": server.device(eui), "dev_eui": eui.upper()}
    ids = downlink["correlation_ids"]
    return f"{server.base}/{server.device(eui)}/down/sent", {
        "end_device_ids": identifiers,
        "correlation_ids": ids,
        "downlink_sent": {"f_port": downlink["f_port"], "correlation_ids": ids},
    }
