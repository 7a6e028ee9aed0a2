"""The HTTP API of a real daemon: real sockets, a real database, hostile senders."""

from __future__ import annotations

import json
import logging
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.api.bodies import BATCH_MAX
from gateway.daemon import SUBSCRIBERS_MAX
from swarm.federation.modes import MODE_NAMES
from swarm.model.layout import WEATHER
from swarm.phy.airtime import airtime_us
from swarm.wire import app
from swarm.wire.messages import SERVES
from tests.web.served import Cell, Served, until

KEY = "2b7e151628aed2a6abf7158809cf4f3c"
KEY_FIELDS = ("app_key", "nwk_s_key", "app_s_key")
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One daemon for the tests that leave nothing behind."""
    with Served(tmp_path_factory.mktemp("api")) as made:
        yield made


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Served]:
    """A daemon with an empty directory."""
    with Served(tmp_path) as made:
        yield made


@pytest.fixture
def cell(fresh: Served) -> Iterator[Cell]:
    """Eight registered nodes around one gateway."""
    assert fresh.daemon.udp_address is not None
    made = Cell(fresh.daemon.udp_address, 8)
    added = {"added": 8, "changed": 0, "unchanged": 0, "refused": [], "multicast": "set"}
    assert fresh.http.post("/api/nodes", json=made.registration()).json() == added
    made.pull()
    yield made
    made.close()


def otaa(number: int = 0, **other: Any) -> dict[str, Any]:
    row = {
        "dev_eui": f"70b3d57ed{number:07x}",
        "name": f"n{number}",
        "crop": "grape",
        "activation": "otaa",
        "app_key": KEY,
    }
    return {**row, **other}


def connection(served: Served) -> socket.socket:
    host, port = served.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def schema(served: Served) -> dict[str, Any]:
    document: dict[str, Any] = served.http.get("/openapi.json").json()
    return document


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, what) for path, each in document["paths"].items() for method, what in each.items()]


# -- the token ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer wrong", "Basic {token}", "{token}", "Bearer {token}x", "bearer\xff"],
)
def test_every_path_below_api_needs_the_right_token(served: Served, authorization: str | None) -> None:
    paths = [(path, method) for path, method, _ in operations(schema(served)) if path.startswith("/api/")]
    assert len(paths) >= 11
    for path, method in [*paths, ("/api/no/such/thing", "get")]:
        headers = {}
        if authorization is not None:
            headers["authorization"] = authorization.replace("{token}", served.daemon.token).encode("latin-1")
        answer = httpx.request(method, served.url + path.replace("{dev_eui}", "0" * 16), headers=headers)
        assert answer.status_code == 401, (method, path)
        assert "token" in answer.json()["detail"]
        assert served.daemon.token not in answer.text


def test_without_a_token_no_byte_of_the_body_is_read(served: Served) -> None:
    with connection(served) as stranger:
        stranger.sendall(b"POST /api/nodes HTTP/1.1\r\nhost: x\r\ncontent-length: 3000000\r\n\r\n")
        assert b" 401 " in stranger.recv(4096)


def test_all_routes_but_the_page_and_its_description_lie_below_api(served: Served) -> None:
    open_paths = {path for path, _, _ in operations(schema(served)) if not path.startswith("/api/")}
    assert open_paths == {"/healthz"}
    assert httpx.get(served.url + "/healthz").json() == {"status": "ok"}


def test_the_page_and_the_docs_are_public_and_may_load_nothing_from_elsewhere(served: Served) -> None:
    for path in ("/", "/docs", "/style.css"):
        answer = httpx.get(served.url + path)
        assert answer.status_code == 200
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert not re.search(r"(src|href)=\"(https?:)?//", answer.text), "it would ask another host"
        assert served.daemon.token not in answer.text


# -- the description ----------------------------------------------------------------------------------


def test_the_openapi_document_is_whole(served: Served) -> None:
    document = schema(served)
    assert document["openapi"].startswith("3.")
    names = set()
    for path, method, what in operations(document):
        assert what["summary"], (path, method)
        assert what["responses"]
        assert what["operationId"] not in names
        names.add(what["operationId"])
        declared = {each["name"] for each in what.get("parameters", []) if each["in"] == "path"}
        assert declared == set(re.findall(r"{(\w+)}", path))
        if path.startswith("/api/"):
            assert what["security"] == [{"HTTPBearer": []}], path
    for reference in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document)):
        target: Any = document
        for part in reference.split("/"):
            target = target[part]
        assert target, reference


# -- nodes --------------------------------------------------------------------------------------------


def test_an_import_twice_is_an_import_once(fresh: Served, cell: Cell) -> None:
    cell.uplink(cell.nodes[0], 12, cell.nodes[0].status())
    until(lambda: fresh.http.get("/api/state").json()["counters"].get("uplink"), "the uplink")
    before = fresh.http.get("/api/nodes").json()
    again = {"added": 0, "changed": 0, "unchanged": 8, "refused": [], "multicast": "unchanged"}
    assert fresh.http.post("/api/nodes", json=cell.registration()).json() == again
    assert len(fresh.http.get("/api/events/past?kind=node_added").json()["events"]) == 8
    assert fresh.http.get("/api/nodes").json() == before
    cell.uplink(cell.nodes[0], 12, cell.nodes[0].status())
    until(
        lambda: fresh.http.get("/api/state").json()["counters"].get("uplink") == 2, "the next frame counter"
    )


def test_each_bad_row_is_refused_by_name_and_the_others_are_taken(fresh: Served) -> None:
    rows = [otaa(1), otaa(2, app_key=None), otaa(3, activation="abp"), otaa(4, node_index=65_534), otaa(5)]
    answer = fresh.http.post("/api/nodes", json={"nodes": rows})
    assert answer.status_code == 200
    assert answer.json()["added"] == 2
    refused = {each["row"]: each for each in answer.json()["refused"]}
    assert set(refused) == {1, 2, 3}
    assert refused[1]["dev_eui"] == rows[1]["dev_eui"]
    assert "app_key" in refused[1]["reason"]
    assert "node_index 65534 belongs to" in refused[3]["reason"]
    assert KEY not in answer.text
    assert [node["name"] for node in fresh.http.get("/api/nodes").json()["nodes"]] == ["n5", "n1"]


def test_thousands_of_nodes_come_in_one_request_and_stay(tmp_path: Path) -> None:
    with Served(tmp_path) as first:
        rows = [otaa(number) for number in range(2000)]
        assert first.http.post("/api/nodes", json={"nodes": rows}).json()["added"] == 2000
        too_many = {"nodes": [otaa(0)] * (BATCH_MAX + 1)}
        assert first.http.post("/api/nodes", json=too_many).status_code == 422
    with Served(tmp_path) as second:
        assert second.http.get("/api/state").json()["nodes"] == 2000


def test_an_import_is_one_line_of_the_log(fresh: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "swarm.gateway")
    fresh.http.post("/api/nodes", json={"nodes": [otaa(number) for number in range(450)]})
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.INFO] == [
        "import: 450 nodes added, 0 changed, 0 refused"
    ]


def test_the_state_says_where_the_group_is(fresh: Served) -> None:
    state = fresh.http.get("/api/state").json()
    assert (state["region"], state["multicast"]) == ("eu868", {"data_rate": 0, "frequency_hz": 869_525_000})


def test_a_node_can_be_seen_and_removed(fresh: Served) -> None:
    fresh.http.post("/api/nodes", json={"nodes": [otaa(7, plot="west", lat=47.5, lon=9.7)]})
    node = fresh.http.get("/api/nodes/70B3D57ED0000007").json()
    assert (node["crop"], node["plot"], node["joined"], node["last_seen_us"]) == (
        "grape",
        "west",
        False,
        None,
    )
    assert fresh.http.delete("/api/nodes/70b3d57ed0000007").json() == {"removed": "70b3d57ed0000007"}
    assert fresh.http.get("/api/nodes/70b3d57ed0000007").status_code == 404
    assert fresh.http.delete("/api/nodes/70b3d57ed0000007").status_code == 404
    assert fresh.http.get("/api/nodes/grape").status_code == 422


BAD_NODES = [
    (otaa(app_key=KEY[:-1]), "app_key"),
    (otaa(app_key=KEY + "z"), "app_key"),
    (otaa(app_key=[KEY]), "app_key"),
    (otaa(app_key={KEY: KEY}), "app_key"),
    (otaa(apkey=KEY), "apkey"),
    (otaa(**{KEY: 1}), "(unknown)"),
    (otaa(name=""), "name"),
    (otaa(name="\x1b[31mred"), "name"),
    (otaa(name=7), "name"),
    (otaa(crop=KEY), "crop"),
    (otaa(lat=91), "lat"),
    (otaa(lat="47.5"), "lat"),
    (otaa(node_index=True), "node_index"),
    (otaa(node_index=65_535), "node_index"),
    (otaa(dev_eui=KEY), "dev_eui"),
    (otaa(dev_addr=KEY), "dev_addr"),
    (otaa(rx1_delay_s=0), "rx1_delay_s"),
]


@pytest.mark.parametrize(
    ("row", "where"), BAD_NODES, ids=[f"{i}-{where}" for i, (_, where) in enumerate(BAD_NODES)]
)
def test_a_bad_body_is_named_by_place_and_never_echoed(
    served: Served, row: dict[str, Any], where: str
) -> None:
    answer = served.http.post("/api/nodes", json={"nodes": [row]})
    assert answer.status_code == 422
    assert where in answer.json()["detail"][0]["loc"]
    assert answer.json()["detail"][0]["msg"]
    assert KEY[:-1] not in answer.text
    assert "input" not in answer.json()["detail"][0]


def test_no_view_holds_key_material(fresh: Served, cell: Cell, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    fresh.http.post("/api/nodes", json={"nodes": [otaa(99)]})
    cell.uplink(cell.nodes[0], 12, cell.nodes[0].status())
    until(lambda: fresh.http.get("/api/state").json()["nodes_heard"], "the uplink")
    keys = [KEY, *(str(node.row[field]) for node in cell.nodes for field in KEY_FIELDS[1:])]
    texts = [
        fresh.http.get(path).text for path in ("/api/state", "/api/nodes", "/api/events/past", "/api/airtime")
    ]
    texts += [fresh.http.get(f"/api/nodes/{cell.nodes[0].row['dev_eui']}").text, caplog.text]
    for text in texts:
        assert not any(key in text for key in keys)
        assert not any(field in text for field in KEY_FIELDS)


# -- events -------------------------------------------------------------------------------------------


class Reader(threading.Thread):
    """Follows /api/events; `kinds` grows until the stream ends."""

    def __init__(self, served: Served) -> None:
        super().__init__(name="reader")
        self._served = served
        self.kinds: list[str] = []
        self.connected = threading.Event()
        self.end: BaseException | None = None
        self.start()
        assert self.connected.wait(10)

    def run(self) -> None:
        try:
            with self._served.http.stream("GET", "/api/events", timeout=60) as answer:
                assert answer.headers["content-type"].startswith("text/event-stream")
                self.connected.set()
                for line in answer.iter_lines():
                    if line.startswith("data:"):
                        self.kinds.append(json.loads(line[5:])["kind"])
        except httpx.HTTPError as error:
            self.end = error


def test_events_are_delivered_as_they_happen_and_kept(fresh: Served, cell: Cell) -> None:
    reader = Reader(fresh)
    cell.uplink(cell.nodes[3], 12, cell.nodes[3].status(risk=2))
    until(lambda: {"uplink", "status"} <= set(reader.kinds), "the live events")
    cell.push(b"\x40not a frame")
    until(lambda: "dropped" in reader.kinds, "the refused frame")
    past = fresh.http.get("/api/events/past", params={"kind": "uplink"}).json()["events"]
    assert [event["data"]["dev_eui"] for event in past] == [cell.nodes[3].row["dev_eui"]]
    newest = fresh.http.get("/api/events/past", params={"limit": 1}).json()["events"]
    assert [event["kind"] for event in newest] == ["dropped"]
    behind = fresh.http.get("/api/events/past", params={"after": past[0]["sequence"]}).json()["events"]
    assert behind[-1]["kind"] == "dropped"
    assert all(event["sequence"] > past[0]["sequence"] for event in behind)
    fresh.stop()
    reader.join(10)
    assert not reader.is_alive()
    assert reader.end is None, "the stream should end, not break"
    assert reader.kinds[-1] == "stopping"


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "kind=A", "kind=" + "a" * 99, "after=-1"]
)
def test_questions_to_the_log_have_limits(served: Served, query: str) -> None:
    assert served.http.get(f"/api/events/past?{query}").status_code == 422


def test_one_reader_too_many_is_told_so_and_the_others_go_on(fresh: Served) -> None:
    readers = [httpx.Client(headers=fresh.http.headers, timeout=20) for _ in range(SUBSCRIBERS_MAX)]
    streams = [client.stream("GET", fresh.url + "/api/events") for client in readers]
    for stream in streams:
        assert stream.__enter__().status_code == 200
    until(lambda: fresh.http.get("/api/events").status_code == 503, "the refusal of one reader more")
    assert "close one" in fresh.http.get("/api/events").json()["detail"]
    asked = fresh.http.post("/api/ask", json={"features": [0] * WEATHER.features, "crop": "apple"})
    assert asked.status_code == 200, "a question needs no reader's place"
    for stream, client in zip(streams, readers, strict=True):
        stream.__exit__(None, None, None)
        client.close()

    def readable() -> bool:
        with fresh.http.stream("GET", "/api/events") as answer:
            return answer.status_code == 200

    until(readable, "room for a reader after the others left")


# -- asking -------------------------------------------------------------------------------------------


def asked(served: Served, body: dict[str, Any]) -> tuple[threading.Thread, list[httpx.Response]]:
    """Put a question in a thread of its own; the answer will be in the list."""
    answers: list[httpx.Response] = []
    thread = threading.Thread(
        target=lambda: answers.append(served.http.post("/api/ask", json=body, timeout=60))
    )
    thread.start()
    return thread, answers


@pytest.mark.parametrize("by", ["node", "plot"])
def test_a_question_goes_over_the_air_and_comes_back_as_one_answer(
    fresh: Served, cell: Cell, by: str
) -> None:
    for node in cell.nodes:
        cell.uplink(node, 12, node.status())
    until(lambda: fresh.http.get("/api/state").json()["nodes_heard"] == 8, "all nodes to be heard")
    near = cell.nodes[2].row["name" if by == "node" else "plot"]
    thread, answers = asked(fresh, {"near": near, "k": 2, "deadline_s": 30})
    until(lambda: fresh.http.get("/api/events/past?kind=query_asked").json()["events"], "the question")

    def settled() -> bool:
        cell.converse((10, 45, 200))
        return not thread.is_alive()

    until(settled, "the answer")
    assert answers[0].status_code == 200
    answer = answers[0].json()
    assert (answer["value"], answer["label"], answer["asked"]) == (2, "high", 2)
    assert answer["airtime_us"] > 0
    names = {node.row["dev_eui"]: node.row["name"] for node in cell.nodes}
    assert answer["names"] == [names[dev_eui] for dev_eui in answer["nodes"]]
    assert answer["names"]
    last = fresh.http.get("/api/queries/last").json()["query"]
    assert last["query_id"] == answer["query_id"]
    assert last["label"] == "high"


def test_features_are_judged_by_the_gateway_itself(fresh: Served) -> None:
    body = {"features": [0] * WEATHER.features, "crop": "apple"}
    answer = fresh.http.post("/api/ask", json=body)
    assert answer.status_code == 200
    assert answer.json()["label"] in ("low", "medium", "high")
    assert sum(answer.json()["probabilities"]) == pytest.approx(1)
    assert answer.json()["airtime_us"] == 0


def test_nobody_to_ask_is_an_answer_too(fresh: Served, cell: Cell) -> None:
    answer = fresh.http.post("/api/ask", json={"near": cell.nodes[0].row["plot"]}).json()
    assert answer["value"] is None
    assert answer["reason"] in ("no_node", "no_fresh_node")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"near": "nowhere"},
        {"near": "x", "features": [0] * WEATHER.features},
        {"features": [0] * WEATHER.features},
        {"features": [0] * 55, "crop": "apple"},
        {"features": [128] * WEATHER.features, "crop": "apple"},
        {"features": [0.5] * WEATHER.features, "crop": "apple"},
        {"near": "x", "k": 0},
        {"near": "x", "deadline_s": 86_401},
        {"near": "x" * 65},
        {"near": "x", "crop": "hops"},
    ],
)
def test_a_question_that_makes_no_sense_is_refused_with_words(served: Served, body: dict[str, Any]) -> None:
    answer = served.http.post("/api/ask", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"]


def test_a_daemon_that_stops_lets_go_of_those_who_wait(fresh: Served, cell: Cell) -> None:
    cell.uplink(cell.nodes[0], 12, cell.nodes[0].status())
    until(lambda: fresh.http.get("/api/state").json()["nodes_heard"], "a node to be heard")
    thread, answers = asked(fresh, {"near": cell.nodes[0].row["name"], "deadline_s": 600})
    until(lambda: fresh.http.get("/api/events/past?kind=query_asked").json()["events"], "the question")
    fresh.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert answers[0].status_code == 503


def test_an_answer_that_does_not_come_is_not_waited_for(
    fresh: Served, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: whoever asks gets a word.  Method: the request's deadline has passed, the core's not."""
    monkeypatch.setattr("gateway.api.app.GONE_S", 0.05)
    monkeypatch.setattr("gateway.api.app.LATE_US", -3_600_000_000)
    cell.uplink(cell.nodes[0], 12, cell.nodes[0].status())
    until(lambda: fresh.http.get("/api/state").json()["nodes_heard"], "a node to be heard")
    question = {"near": cell.nodes[0].row["name"], "deadline_s": 3_600}
    answer = fresh.http.post("/api/ask", json=question)
    assert answer.status_code == 504
    assert "too busy" in answer.json()["detail"]
    assert fresh.alive()


# -- rounds -------------------------------------------------------------------------------------------


def test_a_round_opens_on_demand_and_shows_in_every_view(fresh: Served, cell: Cell) -> None:
    until(lambda: fresh.http.get("/api/airtime").json()["gateways"], "the gateway to be heard")
    assert fresh.http.post("/api/rounds").json() == {"round": 1}
    again = fresh.http.post("/api/rounds")
    assert again.status_code == 409
    assert "round 1 is open" in again.json()["detail"]
    state = fresh.http.get("/api/state").json()
    assert state["open_round"] == {
        "round": 1,
        "mode": "prototypes",
        "updates": 0,
        "expected": 8,
        "close_us": state["open_round"]["close_us"],
    }
    (shown,) = fresh.http.get("/api/rounds").json()["rounds"]
    assert (shown["round"], shown["state"]) == (1, "open")
    heard = until(cell.hear, "the announcement on the air")
    assert len(heard) == 8, "one multicast frame for all"
    announcement = app.decode_downlink(heard[0][1].f_port, heard[0][1].payload)
    assert isinstance(announcement, app.RoundAnnounce)
    assert announcement.round == 1
    gateway = fresh.http.get("/api/airtime").json()["gateways"][0]
    assert sum(band["spent_us"] for band in gateway["sub_bands"]) > 0


def test_advice_counts_what_the_nodes_said(fresh: Served, cell: Cell) -> None:
    """Eight nodes with 12 labels each, half of them of crops that are new to the model."""
    nothing = fresh.http.get("/api/advice").json()
    assert nothing["recommendation"]["mode"] == "none"
    assert "slowest data rate is assumed: 8 of 8 nodes" in nothing["notes"][0]
    for node in cell.nodes:
        cell.uplink(node, 12, node.status(serves=SERVES.index("last label")))
    until(lambda: fresh.http.get("/api/state").json()["nodes_heard"] == 8, "the nodes to be heard")
    found = fresh.http.get("/api/advice").json()
    counts = {"reported": 8, "labels": 96, "labels_median": 12, "new": 4, "without_model": 8}
    assert counts.items() <= found["known"].items()
    assert found["recommendation"]["mode"] == "prototypes"
    assert "4 nodes watch what the model was shipped without" in found["recommendation"]["reason"]
    costs = {each["cost"]["mode"]: each["cost"] for each in found["modes"]}
    assert list(costs) == list(MODE_NAMES)
    assert costs["prototypes"]["airtime_s"] == pytest.approx(8 * airtime_us(7, 125_000, 63 + 13) / 1e6)


def test_advice_says_that_no_round_can_open(served: Served) -> None:
    assert "no multicast group is set" in served.http.get("/api/advice").json()["notes"][0]


def test_no_round_opens_without_nodes_and_gateways(served: Served) -> None:
    answer = served.http.post("/api/rounds")
    assert answer.status_code == 409
    assert answer.json()["detail"].startswith("no round can open")


def test_a_label_waits_for_its_node(fresh: Served) -> None:
    assert fresh.http.post("/api/nodes", json={"nodes": [otaa()]}).json()["added"] == 1
    path = f"/api/nodes/{otaa()['dev_eui']}/labels"
    assert fresh.http.post(path, json={"label": 2, "observation": 7}).json() == {"waiting": 1}
    for body in ({"label": 2}, {"label": 2, "observation": 7, "noon_us": 1}, {"label": 10, "observation": 7}):
        assert fresh.http.post(path, json=body).status_code == 422
    old = fresh.http.post(path, json={"label": 2, "noon_us": 0})
    assert old.status_code == 409 and "the last 60 days" in old.json()["detail"]


def test_an_earlier_version_is_asked_for_by_number(fresh: Served) -> None:
    refused = fresh.http.post("/api/rounds/rollback", json={"to_version": 7})
    assert refused.status_code == 409
    assert refused.json()["detail"] == "no such earlier version is kept; those that are: [0]"
    where_it_is = fresh.http.post("/api/rounds/rollback", json={"to_version": 0})
    assert where_it_is.status_code == 409 and "at version 0" in where_it_is.json()["detail"]
    assert fresh.http.get("/api/model").json()["waiting"] is False
