"""A running gateway daemon as a cell that takes models and gives updates: `CellDriver` over its HTTP API.

What the daemon says is checked before it becomes a value: it may be another version, or not a daemon at all.
A daemon that restarts is waited for (`AWAY_MAX_S`); the round goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from gateway.upstream.driver import CellStopped
from swarm.federation.outside import Change, Gathered
from swarm.model.vector import Float64

__all__ = ["AWAY_MAX_S", "DaemonCell"]

AWAY_MAX_S = 300.0
POLL_S = 1.0
TIMEOUT_S = 30.0


class DaemonCell:
    """The cell behind the daemon at `url`; `token_file` is the file `token` of its data directory."""

    def __init__(self, url: str, token_file: Path, *, sleep: Callable[[float], None] = time.sleep) -> None:
        try:
            token = token_file.read_text("ascii").strip()
        except (OSError, ValueError) as error:
            raise CellStopped(f"{token_file}: no token can be read there ({error})") from error
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S, trust_env=False)
        self._url = url
        self._sleep = sleep

    def close(self) -> None:
        """Drop the connection."""
        self._http.close()

    def node_ids(self) -> list[int]:
        """DevEUIs as numbers, in the order of node indices."""
        with self._sound():
            return [int(node["dev_eui"], 16) for node in self._call("GET", "/api/nodes")["nodes"]]

    def vector(self) -> Float64:
        """The vector behind the nodes' parameters, float64[d]."""
        with self._sound():
            return np.array(self._call("GET", "/api/model")["vector"], np.float64)

    def hand_in(self, vector: Float64, *, gather: bool, close_s: int | None) -> int:
        """The next window takes this vector up; the number of its round."""
        body = {"vector": vector.tolist(), "gather": gather, "close_s": close_s}
        with self._sound():
            return int(self._call("POST", "/api/model", body)["round"])

    def gathered(self, number: int) -> Gathered | None:
        """The updates of a claimed round; None until it is closed."""
        with self._sound():
            found = self._call("GET", f"/api/rounds/{number}/gathered")["gathered"]
            if found is None:
                return None
            size = len(self.vector())
            return Gathered(int(found["round"]), tuple(_change(each, size) for each in found["changes"]))

    def closed(self, number: int) -> dict[str, Any] | None:
        """The summary of a round; None until it is closed."""
        with self._sound():
            rounds = self._call("GET", "/api/rounds")["rounds"]
            found = [each for each in rounds if each["round"] == number and each["closed_us"] is not None]
            return found[-1] if found else None

    def advance(self) -> None:
        """A moment goes by."""
        self._sleep(POLL_S)

    @contextmanager
    def _sound(self) -> Iterator[None]:
        """What a daemon never says, as one line."""
        try:
            yield
        except (KeyError, IndexError, TypeError, ValueError) as error:
            why = f"{type(error).__name__}: {error}"
            raise CellStopped(
                f"{self._url}: what answers there is no daemon of this version ({why})"
            ) from error

    def _call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        away_s = 0.0
        while True:
            try:
                answer = self._http.request(method, path, json=body)
                break
            except httpx.TransportError as error:
                if away_s >= AWAY_MAX_S:
                    why = str(error) or type(error).__name__
                    raise CellStopped(
                        f"{self._url}: no gateway answers there ({why}); start it with `swarm gateway run`"
                    ) from error
            self._sleep(POLL_S)
            away_s += POLL_S
        try:
            found = answer.json()
        except ValueError as error:
            raise CellStopped(f"{self._url}{path}: what answers there is no gateway daemon") from error
        if not isinstance(found, dict):
            raise CellStopped(f"{self._url}{path}: what answers there is no gateway daemon")
        if not answer.is_success:
            raise CellStopped(f"{self._url}: {found.get('detail', answer.reason_phrase)}")
        return found


def _change(said: dict[str, Any], size: int) -> Change:
    delta = np.zeros(size)
    delta[np.array(said["at"], np.intp)] = said["by"]
    return Change(str(said["dev_eui"]), int(said["num_examples"]), delta)
