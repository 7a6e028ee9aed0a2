"""The table of refusals, through a real daemon: each is an event with words, a number, and nothing else.

Frames come over the daemon's UDP port, brokers are real ones.  For each case: the event that a person sees with
`swarm events`, the counter in `GET /api/state`, no row of the database changed, and right after it a genuine
frame of the same node accepted.
"""

from __future__ import annotations

import base64
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import run
from gateway.config import MqttSection
from gateway.radios.refusals import EVERY_US, MEANINGS, Refusals
from gateway.radios.radio import Refusal
from swarm.mac.device import EndDevice, OtaaIdentity
from swarm.prng import Prng
from swarm.security.lorawan import AesKey
from swarm.wire import lorawan
from swarm.wire.lorawan import encode_data
from swarm.mac.session import seal_data
from tests.gateway.broker import Authority, Broker, Person, free_port, needs_mosquitto
from tests.web.served import EU868, EUI, Cell, Node, Served, until

ROOT = Path(__file__).parents[2]
OTAA = {"dev_eui": "70b3d57ed0abcdef", "join_eui": "70b3d57ed0ffffff", "app_key": "5a" * 16}
JOINER = {**OTAA, "name": "joiner", "crop": "apple", "activation": "otaa"}
KEPT = ("node", "session", "status", "airtime", "multicast", "retired")


class Farm:
    """A daemon with a node that has a session and one that joins, and a gateway's socket to it."""

    def __init__(self, served: Served) -> None:
        assert served.daemon.udp_address is not None
        self.served = served
        self.cell = Cell(served.daemon.udp_address, 1)
        self.node = self.cell.nodes[0]
        registration = self.cell.registration()
        registration["nodes"].append(JOINER)
        assert served.http.post("/api/nodes", json=registration).json()["refused"] == []
        who = OtaaIdentity(OTAA["dev_eui"], OTAA["join_eui"], bytes.fromhex(OTAA["app_key"]))
        self.joiner = EndDevice(EU868, who, Prng(5), data_rate=5)
        self.cell.pull()
        self.genuine()

    def genuine(self) -> None:
        """A frame of the node, which the daemon takes."""
        before = self.counted("counters", "uplink")
        self.cell.uplink(self.node, 12, self.node.status())
        until(lambda: self.counted("counters", "uplink") == before + 1, "a genuine frame is accepted")

    def join(self) -> bytes:
        """A join request, which the daemon takes."""
        before = self.counted("counters", "joined")
        request = self.joiner.join(time.time_ns() // 1000).payload
        self.cell.push(request)
        until(lambda: self.counted("counters", "joined") == before + 1, "the join is accepted")
        return request

    def counted(self, side: str, name: str) -> int:
        return int(self.served.http.get("/api/state").json()[side].get(name, 0))

    def events(self, kind: str) -> list[dict[str, Any]]:
        found = self.served.http.get(f"/api/events/past?kind={kind}").json()["events"]
        assert isinstance(found, list)
        return found

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """Everything that a refused frame must leave alone."""
        with closing(sqlite3.connect(f"file:{self.served.daemon.config.data_dir}/swarm.db?mode=ro", uri=True)) as db:
            return {table: db.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in KEPT}


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    with Served(tmp_path) as served:
        made = Farm(served)
        yield made
        made.cell.close()


def sealed(node: Node, f_cnt: int, *, key: bytes | None = None, **more: Any) -> bytes:
    """A frame as the node would make it with this counter, or with another key."""
    nwk = AesKey(key or bytes.fromhex(node.row["nwk_s_key"]))
    address = int(node.row["dev_addr"], 16)
    signed = encode_data(
        uplink=True, dev_addr=address, f_cnt=f_cnt & 0xFFFF, **{"f_port": 12, "frm_payload": b"x" * 17, **more}
    )
    return seal_data(nwk, signed, uplink=True, dev_addr=address, f_cnt=f_cnt)
