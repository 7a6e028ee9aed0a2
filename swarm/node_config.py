"""What a C node is told at its start, and the C struct that says so."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from swarm._node import ffi

__all__ = [
    "ALWAYS_ON",
    "HOLDER",
    "MASK_KEY_SIZE",
    "NO_HUMIDITY_SENSOR",
    "NO_RAIN_SENSOR",
    "MaskGroup",
    "NodeConfig",
    "c_config",
]

NO_HUMIDITY_SENSOR = 1
NO_RAIN_SENSOR = 2
ALWAYS_ON = 4
HOLDER = 8

MASK_KEY_SIZE = 16
SIGNER_SIZE = 32
BLOCK_KEY_SIZE = 16


@dataclass(frozen=True, slots=True)
class MaskGroup:
    """A node's place in its masking group: `keys[i]` (16 B) is shared with the member at position i.

    4..16 members; the key at the node's own position is not used.
    """

    group: int
    position: int
    keys: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """What a node is told at its start.

    `context` is its crop (0..7), `flags` NO_HUMIDITY_SENSOR | NO_RAIN_SENSOR, `payload_max` the uplink
    payload in B at its data rate (16..222), `first_day` the number of the noon-to-noon day in which it
    starts, `guard_us` how early it opens a multicast window, `epochs` of local training (0: default).
    Others are asked for experts that are not here when the best class has less than `ask_below` (1/255; 0:
    never), again after `ask_retry_s` (0: default).  Bit e of `withheld`: the node lacks expert e, though the
    image has it.  `mask`: its group for masked sums (None: no part); bit m of `refuses`, mode m.  `signer`:
    the Ed25519 key (32 B) whose blocks it takes (None: blocks come unsigned, and no large ones are taken),
    `block_key` its DataBlockIntKey (16 B) for those that another server sets up.
    """

    node_index: int
    context: int
    flags: int = 0
    seed: int = 0
    payload_max: int = 51
    status_period_s: int = 86_400
    first_day: int = 0
    guard_us: int = 50_000
    epochs: int = 0
    ask_below: int = 0
    ask_retry_s: int = 0
    withheld: int = 0
    refuses: int = 0
    mask: MaskGroup | None = None
    signer: bytes | None = None
    block_key: bytes | None = field(default=None, repr=False)


def _c_mask(mask: MaskGroup) -> Any:
    """The C struct of a group; OverflowError or ValueError when it cannot hold it."""
    if not 4 <= len(mask.keys) <= 16 or any(len(key) != MASK_KEY_SIZE for key in mask.keys):
        raise ValueError(f"a masking group has 4..16 keys of {MASK_KEY_SIZE} B")
    made = ffi.new("swn_mask_t *")
    made.group, made.position, made.size = mask.group, mask.position, len(mask.keys)
    for index, key in enumerate(mask.keys):
        ffi.buffer(made.keys[index])[:] = key
    return made


def c_config(config: NodeConfig) -> tuple[Any, Any]:
    """The C struct of a config and that of its masking group (None: none), which has to be kept as long.

    OverflowError or ValueError when they cannot hold it.
    """
    for key, size in ((config.signer, SIGNER_SIZE), (config.block_key, BLOCK_KEY_SIZE)):
        if key is not None and len(key) != size:
            raise ValueError(f"node {config.node_index}: a key of {len(key)} B, {size} are needed")
    made = ffi.new("swn_config_t *")
    for name in {each.name for each in fields(config)} - {"mask", "withheld", "signer", "block_key"}:
        value = getattr(config, name)
        setattr(made, name, value % (1 << 64) if name == "seed" else value)
    return made, None if config.mask is None else _c_mask(config.mask)
