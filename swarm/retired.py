"""Counters of keys that went out of use: whoever brings the keys back goes on from there.

A node that is removed and added again with the keys it had, or a multicast group that is replaced and
returns, must not repeat a frame counter or a nonce: the same key stream would cover two texts, and recorded
frames would be taken again.  What is kept is a fingerprint of the keys, never a key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from swarm.effects import Row, Store

__all__ = ["RETIRED_MAX", "Counters", "Retired", "fingerprint"]

RETIRED_MAX = 65_535
TABLE = "retired"


@dataclass(frozen=True, slots=True)
class Counters:
    """As in `Session`, `MulticastGroup` (f_cnt_down) and `NodeRecord`; None: nothing was heard."""

    f_cnt_up: int | None = None
    f_cnt_down: int = 0
    dev_nonce: int | None = None
    join_nonce: int = 0


def fingerprint(*parts: bytes | int | str) -> str:
    """128 bits of a hash over addresses and keys; equal only for the same ones."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        digest.update(len(data).to_bytes(2, "little") + data)
    return digest.hexdigest()[:32]


class Retired:
    """At most `RETIRED_MAX` of them; `rows` is what earlier stores left."""

    def __init__(self, rows: Mapping[str, Mapping[str, Row]]) -> None:
        self._kept = {key: _counters(row) for key, row in rows.get(TABLE, {}).items()}

    @property
    def is_full(self) -> bool:
        """Whether nothing more can go out of use."""
        return len(self._kept) >= RETIRED_MAX

    def keep(self, key: str, counters: Counters) -> Store:
        """These keys are not used any more."""
        assert key in self._kept or not self.is_full
        self._kept[key] = counters
        return Store(TABLE, key, dict(asdict(counters)))

    def take(self, key: str) -> tuple[Counters, list[Store]]:
        """Where these keys go on, and what to store; fresh counters for keys that were never here."""
        if key not in self._kept:
            return Counters(), []
        return self._kept.pop(key), [Store(TABLE, key, None)]


def _counters(row: Row) -> Counters:
    """A stored row; a store may add its key to the columns."""
    return Counters(**{each.name: row[each.name] for each in fields(Counters)})  # type: ignore[arg-type]
