"""The HTTP API as seen by commands: where the daemon is, its token, and what went wrong in one line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.commands.output import CommandError

if TYPE_CHECKING:
    import httpx

__all__ = ["Client", "ConfigFile", "NoAnswer", "address"]

CONFIG_NAME = "swarm.toml"
TIMEOUT_S = 30.0
URL_MAX = 80
UNKNOWN_PATH, OWN_FAILURE = 404, 500

ConfigFile = Annotated[
    Path,
    typer.Option(
        "-c", "--config", help="The daemon's swarm.toml; it says where the daemon is.", show_default=True
    ),
]


class NoAnswer(CommandError):
    """The daemon was not reached, or left before it answered; `may_be_done`: what was asked may be done."""

    def __init__(self, text: str, *, may_be_done: bool) -> None:
        super().__init__(text)
        self.may_be_done = may_be_done


class Client:
    """A running daemon.  SWARM_URL and SWARM_TOKEN name one elsewhere, without its swarm.toml."""

    def __init__(self, config_file: Path) -> None:
        self.url, data_dir = os.environ.get("SWARM_URL", "").rstrip("/"), None
        is_here = not self.url
        if not is_here and not self.url.startswith(("http://", "https://")):
            raise CommandError(f"SWARM_URL: {self.url[:URL_MAX]!r}: write it as http://HOST:PORT")
        token = os.environ.get("SWARM_TOKEN")
        if not self.url or token is None:
            url, data_dir = _from_config(config_file)
            self.url = self.url or url
        if token is None and data_dir is not None:
            token = _token(data_dir, self.url, config_file)
        self.data_dir: Path | None = data_dir if is_here else None
        """The daemon's data directory, where it is known to be on this machine."""
        self._headers = {"Authorization": f"Bearer {token}"}

    def get(self, path: str) -> Any:
        return self._call("GET", path, None, TIMEOUT_S)

    def post(self, path: str, body: object = None, *, timeout_s: float = TIMEOUT_S) -> Any:
        return self._call("POST", path, body, timeout_s)

    def delete(self, path: str) -> Any:
        return self._call("DELETE", path, None, TIMEOUT_S)

    def events(self) -> Iterator[dict[str, Any]]:
        """Server-sent events as they happen; ends when the daemon does."""
        import httpx

        timeout = httpx.Timeout(TIMEOUT_S, read=None)
        try:
            with httpx.stream(
                "GET", self.url + "/api/events", headers=self._headers, timeout=timeout
            ) as answer:
                if answer.status_code != 200:
                    answer.read()
                    raise self._failure(answer)
                if not answer.headers.get("content-type", "").startswith("text/event-stream"):
                    raise self._no_gateway(answer)
                for line in answer.iter_lines():
                    if line.startswith("data:"):
                        yield json.loads(line[5:])
        except httpx.RemoteProtocolError:
            return  # the daemon stopped in mid-stream
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _call(self, method: str, path: str, body: object, timeout_s: float) -> Any:
        import httpx

        try:
            answer = httpx.request(
                method, self.url + path, json=body, headers=self._headers, timeout=timeout_s
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from error
        if not answer.is_success:
            raise self._failure(answer)
        try:
            return answer.json()
        except ValueError:
            raise self._no_gateway(answer) from None

    def _unreachable(self, error: Exception) -> NoAnswer:
        import httpx

        why = str(error) or type(error).__name__
        never_sent = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.InvalidURL))
        return NoAnswer(
            f"{self.url}: no gateway answers there ({why}); start it with `swarm gateway run`",
            may_be_done=not never_sent,
        )

    def _failure(self, answer: httpx.Response) -> CommandError:
        try:
            detail = answer.json()["detail"]
        except (ValueError, KeyError, TypeError):
            return self._no_gateway(answer)
        if answer.status_code == UNKNOWN_PATH and detail == answer.reason_phrase:  # any FastAPI's words
            return self._no_gateway(answer)
        if isinstance(detail, list):  # the API's own checks: one entry per field
            detail = "; ".join(f"{'.'.join(map(str, each['loc'][1:]))}: {each['msg']}" for each in detail)
        if answer.status_code == 401:
            return CommandError(f"{self.url}: the token is not this daemon's; give its swarm.toml with -c")
        return CommandError(str(detail))

    def _no_gateway(self, answer: httpx.Response) -> CommandError:
        """What is said of an answer that no API of ours gives, but for its `Internal Server Error`."""
        said = f"{answer.status_code} {answer.reason_phrase}".strip()
        if answer.status_code == OWN_FAILURE:
            return CommandError(f"{self.url}: answers {said}; the log of what runs there says why")
        return CommandError(f"{self.url}: is no swarm gateway (it answers {said})")


def address(config_file: Path) -> tuple[str, Path]:
    """The URL of the daemon that a swarm.toml describes, and the file with its token."""
    from gateway.data_dir import TOKEN_FILE

    url, data_dir = _from_config(config_file)
    return url, data_dir / TOKEN_FILE


def _from_config(config_file: Path) -> tuple[str, Path]:
    """The daemon's URL and data directory; without a swarm.toml those of the defaults."""
    from gateway import config

    if config_file.exists() or config_file != Path(CONFIG_NAME):
        settings = config.read(config_file)
    else:
        settings = config.GatewayConfig()
    if not settings.http.enabled:
        raise CommandError(
            f"{config_file}: HTTP is off, and this command needs it; set enabled = true below [http]"
        )
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.http.host, settings.http.host)
    port = settings.http.port or _port_in_use(settings.data_dir)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}", settings.data_dir


def _port_in_use(data_dir: Path) -> int:
    """Which of any free ports the daemon took: it leaves its URL in the data directory."""
    from gateway.data_dir import read_url

    port = (read_url(data_dir) or "").rpartition(":")[2]
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise CommandError(f"{data_dir}: no daemon runs there; start it with `swarm gateway run`")
    return int(port)


def _token(data_dir: Path, url: str, config_file: Path) -> str:
    from gateway.data_dir import TOKEN_FILE, read_token

    token = read_token(data_dir)
    if token is None and not config_file.exists():
        raise CommandError(
            f"{config_file}: there is no such file here; give the daemon's with -c, or set SWARM_URL and"
            f" SWARM_TOKEN (asked for {url})"
        )
    if token is None:
        raise CommandError(
            f"{data_dir / TOKEN_FILE}: there is no token; start the daemon of this directory with"
            f" `swarm gateway run`, or set SWARM_URL and SWARM_TOKEN (asked for {url})"
        )
    return token
