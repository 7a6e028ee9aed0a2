"""A node in people's units, and the message by which it appears in Home Assistant.

Discovery is by device: one retained message holds the device, its origin and all its entities, which read
their values from the node's report.  They count as available while gateway and node are online.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.mqtt.topics import Topics
from swarm.inference.combine import LABELS
from swarm.model.layout import CONTEXTS
from swarm.registry import NodeRecord, NodeStatus

__all__ = ["class_names", "discovery", "report"]

_MISSING = {"temperature_centi": -32_768, "humidity_half": 255, "rain_tenth": 65_535, "battery": 255}
"""What the STATUS frame says where there is no reading (docs/SPEC.md, 2.4)."""

_ENTITIES: dict[str, dict[str, Any]] = {
    "risk": {"dev_cla": "enum", "ic": "mdi:leaf"},
    "risk_percent": {
        "unit_of_meas": "%",
        "stat_cla": "measurement",
        "ic": "mdi:percent",
    },
    "temperature_c": {
        "name": "Temperature",
        "dev_cla": "temperature",
        "unit_of_meas": "°C",
        "stat_cla": "measurement",
    },
    "humidity_percent": {
        "name": "Humidity",
        "dev_cla": "humidity",
        "unit_of_meas": "%",
        "stat_cla": "measurement",
    },
    "battery_percent": {
        "name": "Battery",
        "dev_cla": "battery",
        "unit_of_meas": "%",
        "stat_cla": "measurement",
        "ent_cat": "diagnostic",
    },
    "last_seen": {"name": "Last seen", "dev_cla": "timestamp", "ent_cat": "diagnostic"},
}


def class_names(classes: int) -> tuple[str, ...]:
    """What the four values of a STATUS frame's class mean for a model that tells so many classes apart."""
    if classes == len(LABELS):
        return LABELS
    last = "class 3" if classes == 4 else "class 3 or above"
    return ("class 0", "class 1", "class 2", last)[: min(classes, 4)]


def report(record: NodeRecord, status: NodeStatus, names: Sequence[str]) -> dict[str, Any]:
    """What the node last said, in people's units; None where it said nothing; `names`: of the classes."""
    crop = CONTEXTS[record.context] if 0 <= record.context < len(CONTEXTS) else f"context {record.context}"
    battery = _known(status, "battery")
    label, percent = _risk(status.risk, names)
    return {
        "dev_eui": record.dev_eui,
        "name": record.name,
        "crop": crop,
        "plot": record.plot,
        "risk": label,
        "risk_percent": percent,
        "temperature_c": _scaled(_known(status, "temperature_centi"), 0.01),
        "humidity_percent": _scaled(_known(status, "humidity_half"), 0.5),
        "rain_mm": _scaled(_known(status, "rain_tenth"), 0.1),
        "battery_percent": None if not battery else round(battery / 2.54),
        "external_power": None if battery is None else battery == 0,
        "model_version": status.model_version,
        "rssi_dbm": status.rssi_dbm,
        "snr_db": status.snr_db,
        "last_seen": _time(status.last_seen_us),
    }


def discovery(topics: Topics, record: NodeRecord, names: Sequence[str], version: str) -> dict[str, Any]:
    """The device, its origin and its entities, in the abbreviations of Home Assistant's discovery."""
    verdict = "Infection risk" if names == LABELS else "Class"
    named: dict[str, dict[str, Any]] = {
        "risk": {"name": verdict, "ops": list(names)},
        "risk_percent": {"name": f"{verdict} probability"},
    }
    unique = f"swarm_{record.dev_eui}"
    crop = CONTEXTS[record.context] if 0 <= record.context < len(CONTEXTS) else "unknown"
    device = {"ids": [unique], "name": record.name, "mf": "loraswarm", "mdl": f"{crop} node"}
    if record.plot:
        device["sa"] = record.plot
    return {
        "dev": device,
        "o": {"name": "loraswarm", "sw": version},
        "cmps": {
            key: {
                "p": "sensor",
                "uniq_id": f"{unique}_{key}",
                "val_tpl": f"{{{{ value_json.{key} }}}}",
                **entity,
                **named.get(key, {}),
            }
            for key, entity in _ENTITIES.items()
        },
        "stat_t": topics.report(record.dev_eui),
        "avty": [{"t": topics.state}, {"t": topics.node_state(record.dev_eui)}],
        "avty_mode": "all",
        "qos": 1,
    }


def _known(status: NodeStatus, name: str) -> int | None:
    value: int | None = getattr(status, name)
    return None if value == _MISSING[name] else value


def _scaled(value: int | None, unit: float) -> float | None:
    return None if value is None else round(value * unit, 2)


def _risk(risk: int | None, names: Sequence[str]) -> tuple[str | None, int | None]:
    """Class and its probability in percent; 0 says that nothing is known."""
    if not risk or risk >> 6 >= len(names):
        return None, None
    return names[risk >> 6], round((risk & 63) / 63 * 100)


def _time(at_us: int | None) -> str | None:
    if at_us is None:
        return None
    try:
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)
    except OverflowError:
        return None
    return at.isoformat(timespec="seconds")
