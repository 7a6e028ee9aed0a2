"""The tasks by name: how each is built, what file it takes instead, and what it shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from simulations.tasks import agri, digits, disease, faults, npz, soil, voice
from simulations.tasks.task import Builder, Task, TaskError

__all__ = ["TASKS", "Entry", "build"]

Loader = Callable[[Path, int, int], Task]
"""(file, nodes, seed) -> the task."""


@dataclass(frozen=True)
class Entry:
    """One task: how it is made, from what file else, and a line for people."""

    build: Builder
    load: Loader
    about: str


def _rows(name: str, metric: str) -> Loader:
    return lambda path, nodes, seed: npz.load_rows(path, name, metric, nodes)


TASKS: dict[str, Entry] = {
    "agri": Entry(agri.agri, _rows("agri", "accuracy"), "infection risk, 6 crops, 3 of them new; synthetic"),
    "digits": Entry(digits.digits, _rows("digits", "accuracy"), "written digits, 8 fields, 3 of them new"),
    "disease": Entry(disease.disease, disease.load, "farm generator, today's class"),
    "disease_next": Entry(disease.disease_next, disease.load_next, "farm generator, tomorrow's class"),
    "disease_real": Entry(disease.disease_real, disease.load, "real weather, today's class"),
    "disease_next_real": Entry(
        disease.disease_next_real, disease.load_next, "real weather, tomorrow's class"
    ),
    "soil": Entry(soil.soil, soil.load, "soil moisture in a week, 3 public loggers"),
    "faults": Entry(faults.faults, faults.load, "sensor faults, 2 of 6 kinds new"),
    "voice": Entry(voice.voice, voice.load, "spoken digits, new speakers"),
    "wake": Entry(voice.wake, voice.load_wake, "one spoken digit against all others"),
    "faults_known": Entry(faults.faults_known, faults.load_known, "control: all kinds of fault are public"),
    "voice_left_out": Entry(voice.left_out, voice.load_left_out, "control: a speaker with clips of his own"),
}


def build(name: str, nodes: int, seed: int, data: Path | None) -> Task:
    """The task `name` for at most `nodes` nodes; TaskError when it cannot be made."""
    if name not in TASKS:
        raise TaskError(f"unknown task {name}; there are: {', '.join(TASKS)}")
    entry = TASKS[name]
    return entry.build(nodes, seed) if data is None else entry.load(data, nodes, seed)
