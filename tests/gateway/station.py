"""A Basics Station as the real one behaves on the wire: asks the way, connects, sends and confirms."""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from swarm.wire import lorawan

__all__ = ["Station"]

WITHIN_S = 15


class Station:
    """`async with Station(uri) as station:` it is connected and has its plan.

    Its radio's time is the event loop's, in a session of its own.
    """

    def __init__(self, uri: str, eui: str = "0016c001f153a14c", **options: Any) -> None:
        self._uri, self._eui, self._options = uri, eui, options
        self._session = 0x7 << 48
        self.plan: dict[str, Any] = {}
        self.heard: list[dict[str, Any]] = []

    async def __aenter__(self) -> Station:
        groups = ":".join(self._eui[start : start + 4] for start in range(0, 16, 4))
        async with connect(f"{self._uri}/router-info", **self._options) as asking:
            await asking.send(json.dumps({"router": groups}))
            answer = json.loads(await asking.recv())
        assert answer["router"] == groups
        self.socket: ClientConnection = await connect(answer["uri"], **self._options)
        await self.say(msgtype="version", station="2.0.6(test)", protocol=2, model="linux", features="")
        self.plan = await self.next("router_config")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.socket.close()

    async def say(self, **fields: Any) -> None:
        await self.socket.send(json.dumps(fields))

    async def next(self, kind: str) -> dict[str, Any]:
        """The next text of this kind; requests for the radio's time are answered on the way."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                message: dict[str, Any] = json.loads(await self.socket.recv())
                if message["msgtype"] == "getxtime":
                    await self.say(msgtype="getxtime", xtimes=[self.xtime(), 0, 0, 0])
                if message["msgtype"] == kind:
                    return message

    def xtime(self) -> int:
        return self._session + int(asyncio.get_running_loop().time() * 1e6)

    async def uplink(self, phy: bytes, *, frequency_hz: int = 868_100_000, data_rate: int = 5) -> int:
        """What was on the air, taken apart as the station does; its xtime."""
        xtime = self.xtime()
        upinfo = {"rctx": 1, "xtime": xtime, "gpstime": 0, "fts": -1, "rssi": -97, "snr": 7.5, "rxtime": 1.0}
        await self.say(**_fields(phy), RefTime=0.0, DR=data_rate, Freq=frequency_hz, upinfo=upinfo)
        return xtime

    async def confirm(self, message: dict[str, Any]) -> None:
        """The frame of a dnmsg is on the air."""
        window = "RX1" if "RX1Freq" in message else "RX2"
        await self.say(
            msgtype="dntxed",
            seqno=message["diid"],
            diid=message["diid"],
            DR=message[f"{window}DR"],
            Freq=message[f"{window}Freq"],
            DevEui=message["DevEui"],
            rctx=message.get("rctx", 0),
            xtime=message.get("xtime", self.xtime()),
            txtime=1.0,
            gpstime=0,
        )


def _fields(phy: bytes) -> dict[str, Any]:
    mic = struct.unpack("<i", phy[-4:])[0]
    frame = lorawan.parse(phy)
    if isinstance(frame, lorawan.JoinRequest):
        euis = [
            "-".join(eui[at : at + 2] for at in range(0, 16, 2)) for eui in (frame.join_eui, frame.dev_eui)
        ]
        return {
            "msgtype": "jreq",
            "MHdr": phy[0],
            "JoinEui": euis[0].upper(),
            "DevEui": euis[1].upper(),
            "DevNonce": frame.dev_nonce,
            "MIC": mic,
        }
    assert isinstance(frame, lorawan.DataFrame)
    return {
        "msgtype": "updf",
        "MHdr": phy[0],
        "DevAddr": struct.unpack("<i", phy[1:5])[0],
        "FCtrl": phy[5],
        "FCnt": frame.f_cnt,
        "FOpts": frame.f_opts.hex(),
        "FPort": -1 if frame.f_port is None else frame.f_port,
        "FRMPayload": frame.frm_payload.hex(),
        "MIC": mic,
    }
