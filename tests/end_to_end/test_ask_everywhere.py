"""The same place and node asked by command line, HTTP and MQTT while a swarm runs: provenance is true.

A real daemon with its page and a real Mosquitto; around it simulated nodes, which run the firmware, over UDP.
After a round has given the nodes a new model, both questions are put in all three ways.  A witness at the
nodes' radios wrote down who answered which question with which head: the answers have to say just that.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.api.app import create_app
from gateway.commands.gateway import mqtt_faces
from gateway.config import GatewayConfig
from gateway.daemon import Daemon
from simulations import live, provisioning
from simulations.scenario import Scenario, parse
from swarm.commands import SetSigningKey
from swarm.inference.combine import LABELS
from swarm.security.signatures import SigningKey
from swarm.wire import app
from tests.gateway.broker import Broker, Person, needs_mosquitto

ROOT = Path(__file__).parents[2]
SPEED = 8.0
WITHIN_S = 200.0
DEADLINE_S = 120
"""Of the swarm's clock: fifteen seconds for a class A node that reports every seven."""
QUESTION, ANSWER = "swarm/farm/query/request", "swarm/farm/query/answer"
SCENARIO = """
title = "eight nodes that report every minute, a round every two"
seed = 5
nodes = 8
days = 1
test_days = 1
radius_m = 800.0
first_listen_s = 300
status_period_min = 1
[radio]
data_rate_min = 5
[learning]
mode = "top_k_sign"
strategy = "FedAvg"
period_s = 120
spread_s = 50
close_s = 100
window_s = 60
[multicast]
data_rate = 5
repeats = 4
[hardship]
loss_probability = 0.0
shadowing_db = 0.0
outages_per_day = 0.0
gateway_restarts = 0
[live]
history_days = 12
"""


@dataclass
class Witness:
    """What nodes heard and said at their radios: query id -> DevEUI -> answer, and the head it had then."""

    answers: dict[int, dict[str, app.Answer]] = field(default_factory=dict)
    heads: dict[tuple[int, str], int] = field(default_factory=dict)

    def watch(self, cell: Any, dev_euis: list[str]) -> None:
        """Listen at the firmware's own inbox and outbox."""
        firmware = cell.nodes.firmware
        receive, send = firmware.rx, firmware.outbox

        def rx(index: int, now_us: int, f_port: int, payload: bytes, **more: Any) -> None:
            message = app.decode_downlink(f_port, payload)
            if isinstance(message, app.Query):  # it is judged now, the answer is sent later
                self.heads[message.query_id, dev_euis[index]] = int(firmware.model_version[index])
            receive(index, now_us, f_port, payload, **more)

        def outbox() -> list[tuple[int, int, bytes]]:
            sent: list[tuple[int, int, bytes]] = send()
            for index, f_port, payload in sent:
                message = app.decode_uplink(f_port, payload)
                if isinstance(message, app.Answer):
                    self.answers.setdefault(message.query_id, {}).setdefault(dev_euis[index], message)
            return sent

        firmware.rx, firmware.outbox = rx, outbox

    def agrees(self, answer: dict[str, Any]) -> None:
        """Whether an answer's nodes, versions and probabilities are those of the nodes that gave it."""
        given = self.answers[answer["query_id"]]
        assert answer["nodes"] and set(answer["nodes"]) <= set(given)
        mine = [given[dev_eui] for dev_eui in answer["nodes"]]
        heads = {self.heads[answer["query_id"], dev_eui] for dev_eui in answer["nodes"]}
        assert answer["versions"] == sorted(heads)
        assert answer["label"] == LABELS[answer["value"]]
        for label, pooled in enumerate(answer["probabilities"]):
            shares = [message.probabilities[label] / 255 for message in mine]
            assert min(shares) - 1e-9 <= pooled <= max(shares) + 1e-9, "a pool lies between its members"


class Everywhere:
    """The three ways to put a question to one daemon."""

    def __init__(self, daemon: Daemon, person: Person) -> None:
        self._daemon, self._person = daemon, person
        self._asked = 0

    async def command(self, question: dict[str, Any]) -> dict[str, Any]:
        """`swarm ask --json`, a process of its own."""
        options = ["--near", question["near"], *(["--k", str(question["k"])] if "k" in question else [])]
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SWARM_URL": str(self._daemon.http_url),
            "SWARM_TOKEN": self._daemon.token,
        }
        asking = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway.cli", "ask", "--json", "--deadline", f"{DEADLINE_S}s", *options),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await asking.communicate()
        answer = dict(json.loads(said))
        assert asking.returncode == (2 if answer["value"] is None else 0)
        return answer

    async def http(self, question: dict[str, Any]) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self._daemon.token}"}
        async with httpx.AsyncClient(timeout=WITHIN_S) as client:
            body = {**question, "deadline_s": DEADLINE_S}
            answer = await client.post(f"{self._daemon.http_url}/api/ask", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def mqtt(self, question: dict[str, Any]) -> dict[str, Any]:
        self._asked += 1
        name = f"q-{self._asked}"
        await asyncio.to_thread(
            self._person.say, QUESTION, {"id": name, **question, "deadline_s": DEADLINE_S}
        )

        def mine() -> list[dict[str, Any]]:
            heard = [json.loads(each) for each in self._person.on(ANSWER)]
            return [each for each in heard if each["id"] == name]

        while not mine():
            await asyncio.sleep(0.05)
        (answer,) = mine()
        assert answer["status"] == "ok", answer
        return dict(answer["answer"])


def settings(chosen: Scenario, folder: Path, broker: Broker) -> GatewayConfig:
    return GatewayConfig.model_validate(
        {
            "gateway": {"data_dir": str(folder / "data")},
            "udp": {"host": "127.0.0.1", "port": 0},
            "http": {"port": 0},
            "mqtt": {"enabled": True, "port": broker.port, "name": "farm"},
            "nodes": {"status_period_min": chosen.status_period_min},
            "learning": asdict(chosen.learning),
            "multicast": asdict(chosen.multicast),
            "lab": {"clock_speed": SPEED},
        }
    )


async def learned(daemon: Daemon) -> None:
    """Until most nodes say that they have a model newer than the shipped one."""
    with daemon.subscribe() as events:
        while True:
            await events.get()
            newer = [entry for entry in daemon.core.registry if entry.status.model_version]
            if len(newer) > len(daemon.core.registry) // 2:
                return


async def answered(
    way: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]], question: dict[str, Any]
) -> dict[str, Any]:
    """As a person asks: again, when no node has answered in time, for frames get lost in a busy machine."""
    while (answer := await way(question))["value"] is None:
        assert answer["label"] == "no answer" and not answer["nodes"]
    return answer


@needs_mosquitto
@pytest.mark.slow
async def test_all_three_ways_give_answers_whose_provenance_is_the_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = parse(SCENARIO, "ask_everywhere.toml", "ask_everywhere")
    identities = provisioning.identities(chosen)
    witness = Witness()
    make_cell = live.make_cell

    def watched(scenario: Scenario, gateway: live.LiveGateway) -> Any:
        cell = make_cell(scenario, gateway)
        witness.watch(cell, [identity.dev_eui for identity in identities])
        return cell

    monkeypatch.setattr(live, "make_cell", watched)
    with Broker(tmp_path / "broker") as broker, Person(broker.port) as person:
        config = settings(chosen, tmp_path, broker)
        daemon = Daemon(config)
        serving = asyncio.create_task(daemon.run(create_app, beside=mqtt_faces(config)))
        await daemon.started.wait()
        await daemon.command(SetSigningKey(SigningKey(provisioning.signing_seed(chosen))))
        await daemon.command(provisioning.group(chosen))
        # The same question again would be answered from what is known: each way asks its own place and node.
        nodes = identities[5:8]
        plots = list(dict.fromkeys(each.add_node().plot for each in identities if each not in nodes))[:3]
        for identity in identities:
            command = identity.add_node()
            # Of a node without a position only itself can be asked.
            await daemon.command(replace(command, lat=None, lon=None) if identity in nodes else command)
        assert daemon.udp_address is not None
        stop = asyncio.Event()
        playing = asyncio.create_task(
            live.run(chosen, daemon.udp_address, speed=SPEED, say=lambda _: None, stop=stop)
        )
        async with asyncio.timeout(WITHIN_S):
            await learned(daemon)
            ways = Everywhere(daemon, person)
            asked = (ways.command, ways.http, ways.mqtt)
            by_place = [{"near": plot, "k": 3} for plot in plots]
            by_node = [{"near": node.dev_eui} for node in nodes]
            answers = [
                await answered(way, question)
                for questions in (by_place, by_node)
                for way, question in zip(asked, questions, strict=True)
            ]
        stop.set()
        await playing
        daemon.stop()
        await serving
    for answer in answers:
        witness.agrees(answer)
    assert len({answer["query_id"] for answer in answers}) == 6
    assert all(answer["asked"] == 3 for answer in answers[:3])
    assert [answer["nodes"] for answer in answers[3:]] == [[node.dev_eui] for node in nodes]
    assert all(answer["versions"] != [0] for answer in answers[3:]), "heads of a model that was learned"
    assert {frozenset(answer) for answer in answers} == {frozenset(answers[0])}, "one object everywhere"
