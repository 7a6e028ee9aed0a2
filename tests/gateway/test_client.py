"""The commands' way to a daemon: what is said where none answers, or something that is none."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from gateway.cli import run


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a command that could not do what was asked."""
    assert run(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_daemon_that_is_not_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWARM_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("SWARM_TOKEN", "x")
    for command in ("nodes list", "rounds list --json", "airtime", "events", "ask grape-003"):
        assert "no gateway answers there" in refused(capsys, *command.split())


class OtherServer(BaseHTTPRequestHandler):
    """Something else that speaks HTTP: a page for all who ask, an error page for all who tell."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def do_DELETE(self) -> None:
        self.send_response(404)
        self.end_headers()
        self.wfile.write(b'{"detail": "Not Found"}')

    def log_message(self, *_: object) -> None:
        pass


def test_what_is_no_gateway_is_said_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWARM_TOKEN", "x")
    with HTTPServer(("127.0.0.1", 0), OtherServer) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        where = f"127.0.0.1:{other.server_port}"
        monkeypatch.setenv("SWARM_URL", f"http://{where}/")
        commands = ("nodes list", "events", "events --follow", "ask apple-004", "rounds open")
        for command in (*commands, "blocks cancel 01020304"):
            assert f"swarm: http://{where}: is no swarm gateway" in refused(capsys, *command.split())
        other.shutdown()
    monkeypatch.setenv("SWARM_URL", where)
    assert f"SWARM_URL: '{where}': write it as http://HOST:PORT" in refused(capsys, "nodes", "list")
