"""Somebody's Flower app, found and run: from an app directory, or as module:object."""

from __future__ import annotations

import importlib
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flwr.app import Context, RecordDict
from flwr.serverapp import ServerApp

from gateway.upstream.grid import LoRaGrid
from gateway.upstream.records import flat_record, vector_of
from swarm.model.vector import Float64

__all__ = ["MODEL", "AppError", "load_server_app", "run_server_app"]

MODEL = "arrays"
"""Key in the state of the app's context: the cell's vector, and what the app leaves there for the cell."""


class AppError(Exception):
    """The app cannot be run; one line."""


def load_server_app(where: str) -> tuple[ServerApp, dict[str, Any]]:
    """The ServerApp and its run config; `where` is an app directory (pyproject.toml) or module:object."""
    folder = Path(where)
    config: dict[str, Any] = {}
    if folder.is_dir():
        where, config = _of_directory(folder)
    else:
        folder = Path()
    module, colon, name = where.partition(":")
    if not colon or not module or not name:
        raise AppError(f"{where}: neither a directory nor module:object; give one, as my_app.server:app")
    sys.path.insert(0, str(folder.resolve()))
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise AppError(f"{where}: cannot be loaded ({error}); check the name and its imports") from error
    if not isinstance(found, ServerApp):
        raise AppError(
            f"{where}: is a {type(found).__name__}, not a ServerApp; give the name of the ServerApp"
        )
    return found, config


def run_server_app(
    app: ServerApp, grid: LoRaGrid, vector: Float64, config: Mapping[str, Any]
) -> Float64 | None:
    """Run it to its end; the vector that it left in its context, None if it left what it got.

    The context's state holds the cell's vector float64[d] under `arrays`: where an app of its own model would
    start from, this one starts from the nodes' model.
    """
    given = flat_record(vector)
    state = RecordDict({MODEL: given})
    run_id = grid.run.run_id
    app(grid, Context(run_id=run_id, node_id=1, node_config={}, state=state, run_config=dict(config)))
    left = state.array_records.get(MODEL)
    if left is None or left is given:
        return None
    final = vector_of(left)
    return final if final.shape == vector.shape and len(left) else None


def _of_directory(folder: Path) -> tuple[str, dict[str, Any]]:
    file = folder / "pyproject.toml"
    try:
        flower = tomllib.loads(file.read_text("utf-8"))["tool"]["flwr"]["app"]
        return str(flower["components"]["serverapp"]), dict(flower.get("config", {}))
    except OSError as error:
        raise AppError(f"{file}: {error.strerror}; a Flower app has one") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AppError(f"{file}: is not TOML ({error})") from error
    except (KeyError, TypeError, ValueError) as error:
        raise AppError(f"{file}: [tool.flwr.app.components] has no serverapp; add it") from error
