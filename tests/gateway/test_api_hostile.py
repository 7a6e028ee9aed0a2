"""The HTTP API of a real daemon against hostile senders."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.api.border import BODY_MAX
from tests.gateway.test_api import JSON, KEY, connection, otaa
from tests.web.served import Served


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One daemon for all of them: it has to stand them all."""
    with Served(tmp_path_factory.mktemp("hostile")) as made:
        yield made


POSTS = ("/api/nodes", "/api/ask", "/api/rounds", "/api/rounds/rollback", "/api/model")
HOSTILE = {
    "nothing": b"",
    "no JSON": b"}{",
    "null": b"null",
    "deep lists": b"[" * 10_000 + b"]" * 10_000,
    "deep objects": b'{"nodes":' * 10_000 + b"1" + b"}" * 10_000,
    "deep in a node": b'{"nodes":[{"name":' + b"[" * 10_000 + b"]" * 10_000 + b"}]}",
    "not a number": b'{"nodes":[{"lat":NaN,"lon":Infinity}],"k":NaN}',
    "too large": b'{"nodes":[{"lat":1e999}],"k":1e999}',
    "huge number": b'{"k":1' + b"0" * 400 + b',"nodes":[{"node_index":1' + b"0" * 400 + b"}]}",
    "number beyond Python's digits": b'{"k":' + b"9" * 5_000 + b"}",
    "half a character": b'{"near":"\\ud800","nodes":[{"name":"\\ud800","\\udfff":1}]}',
    "half a field": b'{"\\ud800":"\\ud800"}',
    "no UTF-8": b'{"near":"\xff\xfe"}',
    "byte order mark": b'\xef\xbb\xbf{"near":"x"}',
    "UTF-16": '{"near":"x"}'.encode("utf-16"),
    "zero byte": b'{"near":"\\u0000"}',
    "many unknown fields": json.dumps({f"f{i}": i for i in range(50_000)}).encode(),
    "wrong types": b'{"nodes":{"a":1},"multicast":[],"near":[],"features":{},"k":"1","deadline_s":[]}',
    "many bad rows": b'{"nodes":[' + b",".join([b"{}"] * 4000) + b"]}",
    "twice": b'{"near":"x","near":1}',
}


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_hostile_json_is_refused_and_the_daemon_goes_on(served: Served, path: str, body: bytes) -> None:
    answer = served.http.post(path, content=body, headers=JSON)
    assert 400 <= answer.status_code < 500
    assert answer.json()["detail"]
    assert len(answer.content) < 10_000
    assert served.alive()


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "\xff"]
)
def test_other_content_types_are_refused(served: Served, kind: str) -> None:
    headers = {"content-type": kind.encode("latin-1")}
    assert served.http.post("/api/nodes", content=b'{"nodes":[]}', headers=headers).status_code == 422


def test_oversized_and_chunked_bodies_are_refused(served: Served) -> None:
    # Heads alone: who sends on into a connection that is being closed may never see why.
    for size, code in ((f"content-length: {BODY_MAX + 1}", b"413"), ("transfer-encoding: chunked", b"411")):
        with connection(served) as stranger:
            bearer = f"authorization: Bearer {served.daemon.token}\r\n"
            stranger.sendall(f"POST /api/nodes HTTP/1.1\r\nhost: x\r\n{bearer}{size}\r\n\r\n".encode())
            assert stranger.recv(4096).split(b" ")[1] == code
    assert served.http.post("/api/nodes", content=b'{"nodes":[]}', headers=JSON).status_code == 200
    for length in ("-1", "1e3", "9" * 30):
        with connection(served) as stranger:
            bearer = f"authorization: Bearer {served.daemon.token}\r\n"
            stranger.sendall(
                f"POST /api/nodes HTTP/1.1\r\n{bearer}content-length: {length}\r\n\r\n{{}}".encode()
            )
            assert stranger.recv(4096).split(b" ")[1] in (b"400", b"413")
    assert served.alive()


def test_a_body_that_never_comes_holds_nobody_up(served: Served) -> None:
    with connection(served) as stranger:
        bearer = f"authorization: Bearer {served.daemon.token}\r\n"
        stranger.sendall(f"POST /api/nodes HTTP/1.1\r\n{bearer}content-length: 99\r\n\r\n{{".encode())
        assert served.alive()
    assert served.alive()


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=12), inner, max_size=5),
    max_leaves=12,
)
FIELDS = ("nodes", "multicast", "near", "features", "crop", "k", "deadline_s")
NODE_FIELDS = (
    *otaa(),
    "plot",
    "lat",
    "lon",
    "node_index",
    "dev_addr",
    "nwk_s_key",
    "join_eui",
    "rx1_delay_s",
)
almost_node = st.dictionaries(st.sampled_from(NODE_FIELDS), anything, max_size=4).map(
    lambda odd: {**otaa(), **odd}
)
almost = st.dictionaries(st.sampled_from(FIELDS), anything | st.lists(almost_node, max_size=3), max_size=4)


@pytest.mark.parametrize("path", POSTS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=anything | almost)
def test_no_json_at_all_is_an_error_of_the_server(served: Served, path: str, body: Any) -> None:
    answer = served.http.post(path, content=json.dumps(body).encode(), headers=JSON)
    assert answer.status_code < 500, answer.text
    answer.json()
    if answer.status_code == 422:
        assert KEY not in answer.text
