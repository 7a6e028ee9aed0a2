"""Arrays from outside: .npz files, never pickled objects, and the importer for tasks that are plain rows.

x          float[n, up to 256]    inputs
label      int[n], from 0         context    int[n], from 0 (optional)
node       int[n]                 -1: public; others are nodes, in any numbering
part       int[n]                 0 training, 1 validation, 2 test (of nodes; ignored for public rows)
rule, persistence  int[n]         what they say to each row (optional)
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulations.tasks.task import SAMPLES_PER_NODE_MAX, Samples, Task, TaskError

__all__ = ["load_rows", "read_npz"]

SIZE_MAX = 1 << 31


def read_npz(path: Path, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The file's arrays by name; TaskError when it cannot be read or lacks a `wanted` one."""
    if path.is_file() and not zipfile.is_zipfile(path) and not path.read_bytes()[:6] == b"\x93NUMPY":
        raise TaskError(f"{path}: is no .npz file; numpy.savez writes one, with {', '.join(wanted)}")
    try:
        with np.load(path, allow_pickle=False) as stored:
            if not hasattr(stored, "files"):
                raise TaskError(f"{path}: is a single array; write a .npz file with {', '.join(wanted)}")
            arrays = {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        raise TaskError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise TaskError(f"{path}: is a directory; give a file in it") from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, TaskError):
            raise
        raise TaskError(f"{path}: cannot be read as .npz ({str(error)[:80]})") from error
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise TaskError(f"{path}: array {missing[0]} is missing; there are: {', '.join(arrays) or 'none'}")
    for name in wanted:
        if arrays[name].ndim == 0 or len(arrays[name]) != len(arrays[wanted[0]]) or not len(arrays[name]):
            raise TaskError(f"{path}: {name}: {arrays[name].shape}; all of {', '.join(wanted)} need n rows")
    return arrays


def _whole(path: Path, arrays: dict[str, NDArray[Any]], name: str, lowest: int) -> NDArray[np.int64]:
    values = arrays[name]
    if values.dtype.kind not in "iu" or values.ndim != 1 or values.min() < lowest or values.max() > 1 << 30:
        raise TaskError(f"{path}: {name}: must be whole numbers [n] from {lowest} on")
    return values.astype(np.int64)


def load_rows(path: Path, name: str, metric: str, nodes: int) -> Task:
    """A task of plain rows with at most `nodes` nodes; TaskError when the file is unusable."""
    arrays = read_npz(path, ("x", "label", "node", "part"))
    x = np.asarray(arrays["x"])
    if x.ndim != 2 or x.dtype.kind not in "fiu" or not np.isfinite(x).all():
        raise TaskError(f"{path}: x: must be finite numbers [n, features]")
    label, node = _whole(path, arrays, "label", 0), _whole(path, arrays, "node", -1)
    part = _whole(path, arrays, "part", 0)
    given = {"context": np.zeros(len(x), np.int64)}
    given |= {
        key: _whole(path, arrays, key, 0) for key in ("context", "rule", "persistence") if key in arrays
    }
    if any(len(values) != len(x) for values in given.values()):
        raise TaskError(f"{path}: context, rule and persistence need as many rows as x")
    names = np.unique(node[node >= 0])[:nodes]
    if not len(names):
        raise TaskError(f"{path}: node: no row belongs to a node; -1 is public, 0 and above are nodes")
    number = np.searchsorted(names, node)
    member = (node >= 0) & (number < len(names))
    optional = [given[key].astype(np.uint8) if key in given else None for key in ("rule", "persistence")]
    rows = Samples(x.astype(np.float32), label.astype(np.uint8), given["context"].astype(np.uint8),
                   np.where(member, number, -1).astype(np.int32), *optional)  # fmt: skip
    split = [np.flatnonzero(member & (part == kind)) for kind in range(3)]
    split[0] = _latest(split[0], rows.node)
    context = np.zeros(len(names), np.uint8)
    context[rows.node[member]] = rows.context[member]
    return Task(
        name=name,
        classes=tuple(str(c) for c in range(int(label.max()) + 1)),
        contexts=tuple(str(c) for c in range(int(given["context"].max()) + 1)),
        metric=metric,
        public=rows.where(np.flatnonzero(node < 0)),
        train=rows.where(split[0]),
        validation=rows.where(split[1]),
        test=rows.where(split[2]),
        node_context=context,
    )


def _latest(rows: NDArray[np.int64], node: NDArray[np.int32]) -> NDArray[np.int64]:
    """Each node's last rows, as many as it can keep."""
    kept = [rows[node[rows] == n][-SAMPLES_PER_NODE_MAX:] for n in np.unique(node[rows])]
    return np.concatenate(kept) if kept else rows
