"""One measured number, and how it is taken: CPU seconds of this process, the median of some repeats."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["Measured", "cpu_s", "machine"]


@dataclass(frozen=True, slots=True)
class Measured:
    """A row of the table; `spread` is (highest - lowest) / median of the repeats, None for a single run."""

    name: str
    value: float
    unit: str
    spread: float | None = None
    note: str = ""


def cpu_s(run: Callable[[], object], *, repeats: int = 5, warm_up: int = 1) -> tuple[float, float]:
    """Median CPU seconds of `run`, and the spread of the repeats.

    CPU time, not wall time: other programs then cost us the caches, not our turn.
    """
    for _ in range(warm_up):
        run()
    taken = []
    for _ in range(repeats):
        start_s = time.process_time()
        run()
        taken.append(time.process_time() - start_s)
    median = statistics.median(taken)
    return median, (max(taken) - min(taken)) / median


def machine() -> dict[str, Any]:
    """Where and when this was measured, and how busy the machine was."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 1),
    }
