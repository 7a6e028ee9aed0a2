"""What one delivery brings, and how: fixed when it begins."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from swarm.effects import Row

__all__ = ["REPAIR_NODES", "SESSION_CNTS", "Plan"]

REPAIR_NODES = 2
"""So few nodes are repaired one by one: a frame for all costs as much airtime as a frame for one."""
SESSION_CNTS = 8
"""That one delivery may use."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is delivered, and how; `loss` is the share of frames that a node is expected to lose (0..0.9).

    `session_cnt` is the first of `SESSION_CNTS` that no node has seen under this index (version 2).  With
    `ack_reception` (version 2) nodes say by themselves when they have the block; each such message has
    to be answered by a frame for that node alone, so that it is off unless the polls cannot be waited for.
    So many `stragglers` are helped by unicast: 0 where a node is reached once an hour, for a frame to the
    group costs no more.
    """

    block: bytes
    frag_size: int
    version: int = 2
    index: int = 0
    group: int = 0
    descriptor: bytes = bytes(4)
    session_cnt: int = 0
    block_ack_delay: int = 4
    loss: float = 0.2
    repair_max: int = 64
    stragglers: int = REPAIR_NODES
    ack_reception: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.loss <= 0.9:
            raise ValueError(f"a loss of {self.loss} cannot be planned for: 0 to 0.9")
        if not 0 <= self.session_cnt <= (1 << 16) - SESSION_CNTS:
            raise ValueError(f"a delivery needs {SESSION_CNTS} SessionCnts below 65536")

    def to_row(self) -> Row:
        """All that does not change during the delivery, the block included."""
        row: Row = asdict(self)
        return {**row, "ack_reception": int(self.ack_reception)}

    @classmethod
    def from_row(cls, row: Row) -> Plan:
        """The plan of a row; ValueError when it is none."""
        if set(row) != {field.name for field in fields(cls)}:
            raise ValueError("this is no row of a delivery")
        values: dict[str, Any] = {**row, "ack_reception": bool(row["ack_reception"])}
        return cls(**values)
