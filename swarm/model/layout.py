"""Sizes, scales and the order of every parameter vector: the one place that both Python and docs refer to.

The same numbers stand in `node_firmware/core/swn_model.h` (a test compares the two files).  How many
classes a model tells apart and how many features it takes is the container's: a `Shape`, handed to
whatever needs it.

* Local vector of a node, int16: adapter A[4][64], adapter B[64][4], then its own context's head
  [classes][33] (for each class 32 weights, then the bias).
* Global vector of the gateway: the adapter (512) and one head for each of up to 8 contexts.
* Scales: z_float = z / 32; head weight = w / 256; adapter weight = w / 4096; logits are Q13.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "ADAPTER_A_OFFSET",
    "ADAPTER_A_SIZE",
    "ADAPTER_B_OFFSET",
    "ADAPTER_B_SIZE",
    "ADAPTER_ONE",
    "ADAPTER_SIZE",
    "CLASSES_MAX",
    "CLASSES_MIN",
    "CONTEXTS",
    "CONTEXTS_PUBLIC",
    "CONTEXT_MAX",
    "EXPERTS",
    "FEATURES_MAX",
    "HEAD_OFFSET",
    "HEAD_ONE",
    "HEAD_ROW",
    "HEAD_SIZE_MAX",
    "HIDDEN",
    "LOCAL_SIZE_MAX",
    "LOGIT_ONE",
    "RANK",
    "TOP_K",
    "WEATHER",
    "Z_ONE",
    "Shape",
    "Z",
    "context_name",
]

CLASSES_MIN = 2
CLASSES_MAX = 10
FEATURES_MAX = 256
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


def context_name(context: int) -> str:
    """Its name; of one without, its number."""
    return CONTEXTS[context] if context < len(CONTEXTS) else str(context)


ADAPTER_A_OFFSET = 0
ADAPTER_A_SIZE = RANK * HIDDEN
"""A[rank][hidden], row-major: 256."""
ADAPTER_B_OFFSET = ADAPTER_A_SIZE
ADAPTER_B_SIZE = HIDDEN * RANK
"""B[hidden][rank], row-major: 256."""
ADAPTER_SIZE = ADAPTER_A_SIZE + ADAPTER_B_SIZE
HEAD_ROW = Z + 1
"""One class of a head: 32 weights, then the bias."""
HEAD_SIZE_MAX = CLASSES_MAX * HEAD_ROW
HEAD_OFFSET = ADAPTER_SIZE
LOCAL_SIZE_MAX = ADAPTER_SIZE + HEAD_SIZE_MAX

Z_ONE = 32
"""int8 z that stands for 1.0 (one standard deviation on the public data)."""
HEAD_ONE = 256
"""int16 head weight or bias that stands for 1.0."""
ADAPTER_ONE = 4096
"""int16 adapter weight that stands for 1.0."""
LOGIT_ONE = Z_ONE * HEAD_ONE
"""int32 logit that stands for 1.0 (Q13)."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What of the sizes a container decides: classes 2..10 and features 1..256; ValueError outside."""

    classes: int
    features: int

    def __post_init__(self) -> None:
        if not CLASSES_MIN <= self.classes <= CLASSES_MAX:
            raise ValueError(f"{self.classes} classes: a model has {CLASSES_MIN}..{CLASSES_MAX}")
        if not 1 <= self.features <= FEATURES_MAX:
            raise ValueError(f"{self.features} features: a model takes 1..{FEATURES_MAX}")

    @property
    def head_size(self) -> int:
        """Parameters of one head: 33 for each class."""
        return self.classes * HEAD_ROW

    @property
    def local_size(self) -> int:
        """Coordinates of a node's local vector: the adapter, then its context's head."""
        return ADAPTER_SIZE + self.head_size

    def vector_size(self, contexts: int) -> int:
        """Coordinates of the gateway's vector for this many contexts."""
        return ADAPTER_SIZE + self.head_size * contexts

    def head_slice(self, context: int) -> slice:
        """Where the head of a context lies in the gateway's vector."""
        start = ADAPTER_SIZE + self.head_size * context
        return slice(start, start + self.head_size)

    def local_slices(self, context: int) -> tuple[slice, slice]:
        """Where a node's local coordinates lie in the gateway's vector: adapter, then its context's head."""
        return slice(0, ADAPTER_SIZE), self.head_slice(context)


WEATHER = Shape(classes=3, features=56)
"""The firmware's own application, infection risk (0 low, 1 medium, 2 high) from two days of weather."""
