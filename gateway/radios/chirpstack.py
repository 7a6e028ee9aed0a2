"""ChirpStack v4 over MQTT, JSON: its events to values, and downlinks to its commands; no state, no I/O.

Events come on `application/ID/device/DEV_EUI/event/KIND`, commands go to `.../command/down`.  A command's
`id` is ours, a UUID: the same one comes back as `queueItemId` in what tells its fate.

Source: ChirpStack's documentation (integrations/events, integrations/mqtt) and its integration.proto.
"""

from __future__ import annotations

import base64
import json
import re
import uuid

from gateway.radios.json_object import JsonObject, Unreadable
from gateway.radios.network_server import (
    COPIES_MAX,
    MESSAGE_SIZE_MAX,
    DownlinkFate,
    ServerEvent,
    ServerJoin,
    best_copy,
    data_rate_of,
    dev_eui,
    payload_of,
    signal,
    unix_us,
)
from swarm.effects import ApplicationUplink, Malformed
from swarm.phy.regions import Region

__all__ = ["downlink", "parse", "subscription"]

_TOPIC = re.compile(r"application/([0-9A-Za-z-]{1,64})/device/([0-9a-fA-F]{16})/event/([a-z]{1,20})")
_IGNORED = frozenset({"status", "location", "integration"})


def subscription(application: str) -> str:
    """The topic filter for all events of an application."""
    return f"application/{application}/device/+/event/+"


def parse(region: Region, topic: str, payload: bytes) -> ServerEvent | Malformed | None:
    """Read one event; None: it is a kind that says nothing to us."""
    match = _TOPIC.fullmatch(topic)
    if match is None:
        return Malformed("topic", f"{topic!r:.80}")
    if len(payload) > MESSAGE_SIZE_MAX:
        return Malformed("message_size", f"{len(payload)} bytes")
    kind = match[3]
    if kind in _IGNORED:
        return None
    try:
        event = JsonObject.parse(payload)
        device = dev_eui(event.inner("deviceInfo").text("devEui", 16))
        if device != match[2].lower():
            raise Unreadable("identity", f"{device} on the topic of {match[2]}")
        match kind:
            case "up":
                return _up(region, event, device)
            case "join":
                return ServerJoin(device, device)
            case "txack":
                return DownlinkFate(event.text("queueItemId", 64, ""), "sent")
            case "ack":
                stage = "ack" if event.boolean("acknowledged") else "nack"
                return DownlinkFate(event.text("queueItemId", 64, ""), stage)
            case "log":
                return _log(event)
        return Malformed("event_kind", kind)
    except Unreadable as unreadable:
        return unreadable.malformed


def downlink(
    application: str, device: str, reference: int, *, f_port: int, payload: bytes
) -> tuple[str, bytes]:
    """Topic and message that put an unconfirmed downlink into the device's queue (`reference` < 2**122)."""
    command = {
        "id": reference_of(reference),
        "devEui": device,
        "confirmed": False,
        "fPort": f_port,
        "data": base64.b64encode(payload).decode("ascii"),
    }
    topic = f"application/{application}/device/{device}/command/down"
    return topic, json.dumps(command, separators=(",", ":")).encode("ascii")


def reference_of(reference: int) -> str:
    """A number of ours as the UUID that ChirpStack wants (RFC 9562, version 8: the content is our own)."""
    high, low = reference >> 62, reference & ((1 << 62) - 1)
    number = ((high >> 12) << 80 | 8 << 76 | (high & 0xFFF) << 64) | 0b10 << 62 | low
    return str(uuid.UUID(int=number))


def _up(region: Region, event: JsonObject, device: str) -> ApplicationUplink:
    tx_info = event.inner("txInfo", optional=True)
    lora = tx_info.inner("modulation", optional=True).inner("lora", optional=True)
    if "spreadingFactor" in lora:
        factor = lora.integer("spreadingFactor", 5, 12)
        data_rate = data_rate_of(region, factor, lora.integer("bandwidth", 1, 1_000_000))
    else:
        data_rate = event.integer("dr", 0, 15, 0)
        if data_rate not in region.uplink_data_rates:
            raise Unreadable("data_rate", f"DR{data_rate}")
    copies = [signal(each, each.text("gatewayId", 32, "")) for each in event.items("rxInfo", COPIES_MAX)]
    best = best_copy(copies)
    return ApplicationUplink(
        dev_eui=device,
        device=device,
        session=event.text("devAddr", 8, ""),
        f_cnt=event.integer("fCnt", 0, 0xFFFF_FFFF, 0),
        f_port=event.integer("fPort", 0, 255, 0),
        payload=payload_of(event, "data"),
        confirmed=event.boolean("confirmed"),
        at_us=unix_us(event.text("time", 64)),
        frequency_hz=tx_info.integer("frequency", 1, 3_000_000_000) if "frequency" in tx_info else None,
        data_rate=data_rate,
        gateway_id=best.gateway_id,
        rssi_dbm=best.rssi_dbm,
        snr_db=best.snr_db,
    )


def _log(event: JsonObject) -> DownlinkFate | None:
    """An error that is about one of our downlinks; None for the others."""
    reference = event.inner("context", optional=True).text("queue_item_id", 64, "")
    if not reference or event.text("level", 16, "INFO") != "ERROR":
        return None
    return DownlinkFate(reference, "failed", event.text("code", 64, "UNKNOWN"))
