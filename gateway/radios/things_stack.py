"""The Things Stack v3 over MQTT, JSON: its messages to values, and downlinks to its queue; no state, no I/O.

Messages come on `v3/APPLICATION/devices/DEVICE/up` (`join`, `down/sent`, ...), where APPLICATION has the
tenant behind an @ on shared servers, and DEVICE is the server's own name of the device.  A downlink has a
correlation id of ours, which comes back in what tells its fate.

Source: The Things Stack's documentation (integrations/data-formats, other-integrations/mqtt).  Its default
priority leaves 40 % of the duty cycle to a downlink; ours are NORMAL.
"""

from __future__ import annotations

import base64
import json
import re

from gateway.radios.json_object import JsonObject, Unreadable
from gateway.radios.network_server import (
    COPIES_MAX,
    MESSAGE_SIZE_MAX,
    Copy,
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

__all__ = ["downlink", "parse", "subscriptions"]

REFERENCE = "swarm:"
CORRELATION_IDS_MAX = 64
_TOPIC = re.compile(r"v3/([a-z0-9-]{1,36}(?:@[a-z0-9-]{1,36})?)/devices/([a-z0-9-]{1,36})/([a-z/]{1,30})")
_FATES = {f"down/{stage}": stage for stage in ("queued", "sent", "ack", "nack", "failed")}
_FREQUENCY = re.compile(r"[0-9]{1,10}")


def subscriptions(application: str) -> tuple[str, ...]:
    """The topic filters for what devices of an application send, and what becomes of downlinks."""
    return tuple(f"v3/{application}/devices/+/{kind}" for kind in ("up", "join", *_FATES))


def parse(region: Region, topic: str, payload: bytes) -> ServerEvent | Malformed | None:
    """Read one message; None: it is a kind that says nothing to us, or another one's downlink."""
    match = _TOPIC.fullmatch(topic)
    if match is None:
        return Malformed("topic", f"{topic!r:.80}")
    if len(payload) > MESSAGE_SIZE_MAX:
        return Malformed("message_size", f"{len(payload)} bytes")
    device, kind = match[2], match[3]
    if kind not in ("up", "join", *_FATES):
        return None
    try:
        message = JsonObject.parse(payload)
        identifiers = message.inner("end_device_ids")
        if identifiers.text("device_id", 36) != device:
            raise Unreadable("identity", f"a message on the topic of {device}")
        if kind in _FATES:
            return _fate(message, _FATES[kind])
        eui = dev_eui(identifiers.text("dev_eui", 16))
        return ServerJoin(eui, device) if kind == "join" else _up(region, message, identifiers, eui)
    except Unreadable as unreadable:
        return unreadable.malformed


def downlink(
    application: str, device: str, reference: int, *, f_port: int, payload: bytes
) -> tuple[str, bytes]:
    """Topic and message that put an unconfirmed downlink behind those in the device's queue."""
    message = {
        "f_port": f_port,
        "frm_payload": base64.b64encode(payload).decode("ascii"),
        "priority": "NORMAL",
        "correlation_ids": [reference_of(reference)],
    }
    topic = f"v3/{application}/devices/{device}/down/push"
    return topic, json.dumps({"downlinks": [message]}, separators=(",", ":")).encode("ascii")


def reference_of(reference: int) -> str:
    return f"{REFERENCE}{reference}"


def _up(region: Region, message: JsonObject, identifiers: JsonObject, eui: str) -> ApplicationUplink:
    if message.boolean("simulated"):
        raise Unreadable("simulated")
    uplink = message.inner("uplink_message")
    settings = uplink.inner("settings", optional=True)
    lora = settings.inner("data_rate", optional=True).inner("lora", optional=True)
    data_rate = None
    if "spreading_factor" in lora:
        factor = lora.integer("spreading_factor", 5, 12)
        data_rate = data_rate_of(region, factor, lora.integer("bandwidth", 1, 1_000_000))
    frequency = settings.text("frequency", 10, "")  # a text: protobuf's 64-bit numbers are
    if frequency and _FREQUENCY.fullmatch(frequency) is None:
        raise Unreadable("field_range", "frequency")
    best = best_copy(_copy(each) for each in uplink.items("rx_metadata", COPIES_MAX))
    return ApplicationUplink(
        dev_eui=eui,
        device=identifiers.text("device_id", 36),
        session=uplink.text("session_key_id", 64, identifiers.text("dev_addr", 8, "")),
        f_cnt=uplink.integer("f_cnt", 0, 0xFFFF_FFFF, 0),
        f_port=uplink.integer("f_port", 0, 255, 0),
        payload=payload_of(uplink, "frm_payload"),
        confirmed=uplink.boolean("confirmed"),
        at_us=_received_us(message, uplink, settings),
        frequency_hz=int(frequency) if frequency else None,
        data_rate=data_rate,
        gateway_id=best.gateway_id,
        rssi_dbm=best.rssi_dbm,
        snr_db=best.snr_db,
    )


def _received_us(message: JsonObject, uplink: JsonObject, settings: JsonObject) -> int:
    """When the network server had it; a gateway's own time may be wrong, the application server's is late."""
    for where, name in ((uplink, "received_at"), (message, "received_at"), (settings, "time")):
        try:
            return unix_us(where.text(name, 64))
        except Unreadable:
            continue
    first = next(iter(uplink.items("rx_metadata", 1)), settings)
    return unix_us(first.text("time", 64))


def _copy(metadata: JsonObject) -> Copy:
    identifiers = metadata.inner("gateway_ids", optional=True)
    return signal(metadata, identifiers.text("eui", 16, identifiers.text("gateway_id", 64, "")).lower())


def _fate(message: JsonObject, stage: str) -> DownlinkFate | None:
    inner = message.inner(f"downlink_{stage}")
    reason = ""
    if stage == "failed":
        reason = inner.inner("error", optional=True).text("name", 100, "unknown")
        inner = inner.inner("downlink")
    for given in (
        *inner.texts("correlation_ids", CORRELATION_IDS_MAX),
        *message.texts("correlation_ids", 64),
    ):
        if given.startswith(REFERENCE):
            return DownlinkFate(given, stage, reason)
    return None
