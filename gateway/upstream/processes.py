"""Child processes with a log each, that all end when their owner does.

Each child leads a process group of its own, so that what it started itself (Flower starts a process per
message) ends with it, and a Ctrl-C at the terminal reaches the owner alone, who stops them in order.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

__all__ = ["Processes"]

PATIENCE_S = 15.0


class Processes:
    """Children by name; a context that stops them, the last one started first."""

    def __init__(self, log_folder: Path, environment: Mapping[str, str]) -> None:
        log_folder.mkdir(parents=True, exist_ok=True)
        self._logs, self._environment = log_folder, environment
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in reversed(list(self._children)):
            self.stop(name)

    def start(self, name: str, command: Sequence[str], *, cwd: Path | None = None) -> None:
        """Start a child; what it says goes to its log."""
        assert name not in self._children
        with self.log(name).open("ab") as log:
            self._children[name] = subprocess.Popen(
                command,
                cwd=cwd,
                env=dict(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log(self, name: str) -> Path:
        """Where a child's output goes."""
        return self._logs / f"{name}.log"

    def code(self, name: str) -> int | None:
        """A child's exit code, None while it runs."""
        return self._children[name].poll()

    def ended(self) -> list[str]:
        """The children that are no more, though nobody stopped them."""
        return [name for name, child in self._children.items() if child.poll() is not None]

    def stop(self, name: str, *, at_once: bool = False) -> None:
        """End a child and its group: by request, then by force."""
        child = self._children.pop(name)
        if not at_once and child.poll() is None:
            _signal(child.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(PATIENCE_S)
        _signal(child.pid, signal.SIGKILL)
        child.wait()


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)
