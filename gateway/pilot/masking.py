"""Masking groups of a pilot: who masks with whom, and the keys that the gateway must never have.

`masks.csv` beside `keys.csv` remembers each node's group, position and the group's secret.  The key of a
pair is derived from the secret (HMAC-SHA256 over both positions, 16 bytes) and goes into the two nodes'
headers, nowhere else: `swarm nodes import` reads `keys.csv` and `multicast.csv` only, and in `keys.csv` each
node's place, so that no other node can claim it.  Groups are nodes
of one crop, in the order of the table; once made they stay as they are, and nodes that come later form
groups of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from swarm.pilot.masking import divided, pair_key
from swarm.wire.app import MODES, RoundMode

__all__ = ["COLUMNS", "MASKS_FILE", "NOTE", "assign", "header_lines", "place", "refused_modes"]

MASKS_FILE = "masks.csv"
NOTE = 'members of masking groups answer rounds of [learning] mode = "masked_sums" and no other'
COLUMNS = ("id", "mask_group", "mask_position", "mask_size", "group_secret")

Row = dict[str, str]


def assign(
    nodes: Iterable[tuple[str, str]],
    stored: dict[str, Row],
    size: int,
    random_bytes: Callable[[int], bytes],
) -> tuple[dict[str, Row], list[str]]:
    """Rows by lower-case id for all (id, crop) that have a group now, and the ids that are left without.

    `size` (4..16) is what a group should have at least; a crop's groups are made even, of 16 at most.  Fewer
    than four new nodes of a crop wait for others.
    """
    rows = dict(stored)
    free = max((int(row["mask_group"]) for row in rows.values()), default=-1) + 1
    waiting: dict[str, list[str]] = {}
    for name, crop in nodes:
        if name.lower() not in rows:
            waiting.setdefault(crop, []).append(name)
    alone: list[str] = []
    for names in waiting.values():
        groups = divided(names, size)
        alone += names if not groups else []
        for members in groups:
            secret = random_bytes(32).hex()
            for position, name in enumerate(members):
                values = (name, str(free), str(position), str(len(members)), secret)
                rows[name.lower()] = dict(zip(COLUMNS, values, strict=True))
            free += 1
    return rows, alone


def place(row: Row) -> str:
    """What the gateway is told of a row, in `keys.csv`: group/position/size, and nothing of the secret."""
    return f"{row['mask_group']}/{row['mask_position']}/{row['mask_size']}"


def refused_modes(in_a_group: bool, share_features: bool) -> int:
    """Bit m: the node takes no part in rounds of mode m, whatever a gateway announces.

    Members of a masking group send nothing that can be read alone; others send samples only with consent.
    """
    refused: Iterable[int] = () if share_features else (RoundMode.FEATURES,)
    if in_a_group:
        refused = MODES - {RoundMode.MASKED_SUMS}
    return sum(1 << mode for mode in refused)


def header_lines(row: Row) -> list[str]:
    """What one member's firmware is compiled with: its own line of the key table, zeros at its own place."""
    secret, own = bytes.fromhex(row["group_secret"]), int(row["mask_position"])
    keys = [
        bytes(16) if peer == own else pair_key(secret, own, peer) for peer in range(int(row["mask_size"]))
    ]
    cells = ", ".join("{" + ", ".join(f"0x{byte:02x}" for byte in key) + "}" for key in keys)
    return [
        "",
        "/* The masking group, and the key shared with each member; for a swn_mask_t in flash. */",
        f"#define SWN_MASK_GROUP {row['mask_group']}u",
        f"#define SWN_MASK_POSITION {own}u",
        f"#define SWN_MASK_SIZE {row['mask_size']}u",
        f"#define SWN_MASK_KEYS {{{cells}}}",
    ]
