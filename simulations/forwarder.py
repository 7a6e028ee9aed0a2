"""The gateway's side of Semtech's UDP protocol, version 2: what a packet forwarder says and understands.

Written from the protocol's description and from recorded datagrams of a real packet forwarder, apart
from the gateway's own reader (`gateway.radios`), so that a mistake in one is not repeated in the other.
Sans-IO: bytes in, bytes out.

    PUSH_DATA  02 token2 00 eui8 json   received frames, or the status
    PULL_DATA  02 token2 02 eui8        keeps the way back open
    PULL_RESP  02 token2 03 json        a frame to send; answered by
    TX_ACK     02 token2 05 eui8 [json] empty body: taken
"""

from __future__ import annotations

import base64
import json
import re
import struct
from dataclasses import dataclass
from typing import Any

from swarm.effects import Malformed, RxFrame
from swarm.phy.regions import Region

__all__ = ["Acknowledged", "Forwarder", "Request"]

_VERSION = 2
_PUSH_DATA, _PUSH_ACK, _PULL_DATA, _PULL_RESP, _PULL_ACK, _TX_ACK = range(6)
_DATA_RATE = re.compile(r"SF(\d{1,2})BW(\d{3})")
_HEADER = struct.Struct("<BHB")
_DATAGRAM_MAX = 4_096


@dataclass(frozen=True, slots=True)
class Request:
    """A PULL_RESP: send `payload` when the counter shows `tmst_us` (None: immediately)."""

    token: int
    payload: bytes
    tmst_us: int | None
    frequency_hz: int
    spreading_factor: int
    bandwidth_hz: int
    power_dbm: float


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The server is there: it answered a PUSH_DATA ("push") or a PULL_DATA ("pull")."""

    of: str
    token: int


class Forwarder:
    """One gateway's datagrams; `counts` are what its status reports."""

    def __init__(self, gateway_id: str, region: Region) -> None:
        self._eui = bytes.fromhex(gateway_id)
        self._region = region
        self._channels = sorted(channel.frequency_hz for channel in region.channels)
        self._token = 0
        self.received = 0
        self.downlinks = 0
        self.sent = 0

    def pull_data(self) -> bytes:
        """Say where downlinks may be sent to."""
        return self._packet(_PULL_DATA)

    def push_data(self, rx: RxFrame) -> bytes:
        """Hand on a received frame."""
        self.received += 1
        rate = self._region.data_rate(rx.data_rate, uplink=True)
        channel = self._channels.index(rx.frequency_hz) if rx.frequency_hz in self._channels else 0
        packet = {
            "jver": 1,
            "tmst": rx.tmst_us,
            "chan": channel,
            "rfch": channel // 4,
            "freq": round(rx.frequency_hz / 1e6, 6),
            "mid": 8,
            "stat": 1,
            "modu": "LORA",
            "datr": f"SF{rate.spreading_factor}BW{rate.bandwidth_hz // 1000}",
            "codr": "4/5",
            "rssis": round(rx.rssi_dbm),
            "lsnr": round(rx.snr_db, 1),
            "foff": 0,
            "rssi": round(rx.rssi_dbm),
            "size": len(rx.payload),
            "data": base64.b64encode(rx.payload).decode(),
        }
        return self._packet(_PUSH_DATA, {"rxpk": [packet]})

    def status(self, utc: str) -> bytes:
        """The periodic status; `utc` as in "2026-11-22 06:01:56 GMT"."""
        counts = {"rxnb": self.received, "rxok": self.received, "rxfw": self.received, "ackr": 100.0}
        downlinks = {"dwnb": self.downlinks, "txnb": self.sent, "temp": 25.0}
        return self._packet(_PUSH_DATA, {"stat": {"time": utc, **counts, **downlinks}})

    def tx_ack(self, token: int, error: str | None) -> bytes:
        """What became of a request: nothing to say when it was taken."""
        self.downlinks += 1
        self.sent += error is None
        body = None if error is None else {"txpk_ack": {"error": error}}
        return _HEADER.pack(_VERSION, token, _TX_ACK) + self._eui + _json(body)

    def on_datagram(self, datagram: bytes) -> Request | Acknowledged | Malformed:
        """What the server said; a real forwarder leaves a malformed request unanswered."""
        if len(datagram) < _HEADER.size or len(datagram) > _DATAGRAM_MAX:
            return Malformed("size", f"{len(datagram)} B")
        version, token, kind = _HEADER.unpack_from(datagram)
        if version != _VERSION:
            return Malformed("version", str(version))
        if kind in (_PUSH_ACK, _PULL_ACK):
            return Acknowledged("push" if kind == _PUSH_ACK else "pull", token)
        if kind != _PULL_RESP:
            return Malformed("kind", str(kind))
        try:
            txpk = json.loads(datagram[_HEADER.size :])["txpk"]
            return _request(token, txpk)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            return Malformed("txpk", f"{type(error).__name__}: {error}")

    def _packet(self, kind: int, body: dict[str, Any] | None = None) -> bytes:
        self._token = (self._token + 1) & 0xFFFF
        return _HEADER.pack(_VERSION, self._token, kind) + self._eui + _json(body)


def _json(body: dict[str, Any] | None) -> bytes:
    return b"" if body is None else json.dumps(body, separators=(",", ":")).encode()


def _request(token: int, txpk: dict[str, Any]) -> Request:
    rate = _DATA_RATE.fullmatch(txpk["datr"])
    if txpk["modu"] != "LORA" or rate is None:
        raise ValueError(f"modulation {txpk['modu']} {txpk['datr']}")
    if txpk.get("ipol") is not True:
        raise ValueError("a downlink to LoRaWAN nodes has ipol true")
    text = txpk["data"]
    payload = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    if len(payload) != txpk["size"]:
        raise ValueError(f"size {txpk['size']} for {len(payload)} B")
    tmst_us = None if txpk.get("imme") else int(txpk["tmst"])
    if tmst_us is not None and not 0 <= tmst_us < 1 << 32:
        raise ValueError(f"tmst {tmst_us}")
    return Request(
        token=token,
        payload=payload,
        tmst_us=tmst_us,
        frequency_hz=round(float(txpk["freq"]) * 1e6),
        spreading_factor=int(rate.group(1)),
        bandwidth_hz=int(rate.group(2)) * 1000,
        power_dbm=float(txpk["powe"]),
    )
