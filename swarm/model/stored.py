"""One version of the model as a row of table `model`: mirror, master, and the block that leads there."""

from __future__ import annotations

from collections.abc import Mapping

from swarm.effects import Row, Scalar
from swarm.model.block import Encoded
from swarm.model.vector import Float64, Mirror
from swarm.wire.app import NO_BASE, BlockKind

__all__ = ["from_row", "newest", "to_row"]


def to_row(mirror: Mirror, master: Float64, block: Encoded | None, *, made_us: int, number: int) -> Row:
    """The row; `number` is the round that made the version or took it up."""
    return {
        "vector": mirror.to_bytes(master),
        "digest": mirror.digest(),
        "made_us": made_us,
        "round": number,
        "kind": int(BlockKind.HEADS if block is None else block.kind),
        "base_version": NO_BASE if block is None else block.base_version,
        "block": b"" if block is None else block.data,
    }


def from_row(row: Mapping[str, Scalar]) -> tuple[Mirror, Float64, Encoded | None]:
    """What `to_row` wrote; ValueError with what to do when it is damaged."""
    blob, data = row["vector"], row["block"]
    assert isinstance(blob, bytes) and isinstance(data, bytes)
    restored = Mirror.from_bytes(blob)
    if not isinstance(restored, tuple):
        raise ValueError(
            f"the stored model is damaged: {restored.detail}; restore the data directory from a backup"
        )
    mirror, master = restored
    kind, base_version = BlockKind(int(row["kind"])), int(row["base_version"])  # type: ignore[arg-type]
    return mirror, master, Encoded(kind, mirror.version, base_version, data, mirror) if data else None


def newest(rows: Mapping[str, Row], shipped: Mirror) -> tuple[Mirror, Float64, Encoded | None]:
    """The newest stored model, or without rows the shipped heads with an adapter that does nothing yet."""
    if not rows:
        return shipped, shipped.master(), None
    mirror, master, encoded = from_row(max(rows.values(), key=lambda row: int(row["made_us"])))  # type: ignore[arg-type]
    if mirror.classes != shipped.classes:
        raise ValueError(
            f"the stored model has {mirror.classes} classes, the shipped one {shipped.classes}; "
            "use the model that this data directory began with, or a new directory"
        )
    return mirror, master, encoded
