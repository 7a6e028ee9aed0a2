"""Sizes, scales and the order of every parameter vector: the one place that both Python and docs refer to.

The same numbers stand in `node_firmware/core/swn_model.h` (a test compares the two files).

* Local vector of a node, 611 int16: adapter A[4][64], adapter B[64][4], then its own context's head [3][33]
  (for each class 32 weights, then the bias).
* Global vector of the gateway: the adapter (512) and one head (99) for each of up to 8 contexts.
* Scales: z_float = z / 32; head weight = w / 256; adapter weight = w / 4096; logits are Q13.
"""

from __future__ import annotations

__all__ = [
    "ADAPTER_A_OFFSET",
    "ADAPTER_A_SIZE",
    "ADAPTER_B_OFFSET",
    "ADAPTER_B_SIZE",
    "ADAPTER_ONE",
    "ADAPTER_SIZE",
    "CLASSES",
    "CONTEXTS",
    "CONTEXTS_PUBLIC",
    "CONTEXT_MAX",
    "EXPERTS",
    "FEATURES",
    "FEATURES_PADDED",
    "GLOBAL_SIZE",
    "HEAD_OFFSET",
    "HEAD_ONE",
    "HEAD_ROW",
    "HEAD_SIZE",
    "HIDDEN",
    "LOCAL_SIZE",
    "LOGIT_ONE",
    "RANK",
    "TOP_K",
    "Z_ONE",
    "Z",
    "global_head_offset",
]

CLASSES = 3
"""Infection risk: 0 low, 1 medium, 2 high."""
FEATURES = 56
FEATURES_PADDED = 64
"""Inputs as the first layer reads them: zeros up to a multiple of 16 columns."""
HIDDEN = 64
Z = 32
RANK = 4
EXPERTS = 8
TOP_K = 2

CONTEXTS = ("apple", "tomato", "potato", "grape")
"""Names of the contexts 0..3; the numbers go on the air."""
CONTEXTS_PUBLIC = (0, 1)
"""Contexts whose labels the shipped base model has seen."""
CONTEXT_MAX = 8

ADAPTER_A_OFFSET = 0
ADAPTER_A_SIZE = RANK * HIDDEN
"""A[rank][hidden], row-major: 256."""
ADAPTER_B_OFFSET = ADAPTER_A_SIZE
ADAPTER_B_SIZE = HIDDEN * RANK
"""B[hidden][rank], row-major: 256."""
ADAPTER_SIZE = ADAPTER_A_SIZE + ADAPTER_B_SIZE
HEAD_ROW = Z + 1
"""One class of a head: 32 weights, then the bias."""
HEAD_SIZE = CLASSES * HEAD_ROW
HEAD_OFFSET = ADAPTER_SIZE
LOCAL_SIZE = ADAPTER_SIZE + HEAD_SIZE
GLOBAL_SIZE = ADAPTER_SIZE + CONTEXT_MAX * HEAD_SIZE

Z_ONE = 32
"""int8 z that stands for 1.0 (one standard deviation on the public data)."""
HEAD_ONE = 256
"""int16 head weight or bias that stands for 1.0."""
ADAPTER_ONE = 4096
"""int16 adapter weight that stands for 1.0."""
LOGIT_ONE = Z_ONE * HEAD_ONE
"""int32 logit that stands for 1.0 (Q13)."""


def global_head_offset(context: int) -> int:
    """Index of the first head parameter of `context` (0..7) in the global vector."""
    if not 0 <= context < CONTEXT_MAX:
        raise ValueError(f"context {context}: must be 0..{CONTEXT_MAX - 1}")
    return ADAPTER_SIZE + context * HEAD_SIZE
