"""What nodes and the gateway say to each other inside LoRaWAN payloads: the messages as values.

`swarm.wire.app` turns them into bytes and back, and says which field is out of range.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from swarm.wire import expert
from swarm.wire.readings import Readings, ReadingsRequest, Share

__all__ = [
    "BLOCK_HEADER_SIZE",
    "BLOCK_SIZE_MAX",
    "CHUNK",
    "CLASSES_MAX",
    "CONTEXT_MAX",
    "CONTEXT_OWN",
    "FRAGMENTS_MAX",
    "F_PORT_ASKING",
    "F_PORT_LEARNING",
    "F_PORT_STATUS",
    "LEVEL_MAX",
    "LOCAL_SIZE_MAX",
    "MODES",
    "NO_BASE",
    "NO_GAIN",
    "PROTOCOL",
    "QUERY_FEATURES_FOLLOW",
    "QUERY_FEATURES_MAX",
    "QUERY_OWN_READINGS",
    "RICE_K_MAX",
    "ROUND_NEW_CONTEXTS",
    "SERVES",
    "SERVES_MASK",
    "Z_SIZE",
    "Answer",
    "BlockKind",
    "BlockPiece",
    "Blocks",
    "ClassMean",
    "DenseInt8",
    "DownlinkMessage",
    "Features",
    "Fragment",
    "LearningMessage",
    "Message",
    "PlainMessage",
    "Prototypes",
    "Query",
    "RoundAck",
    "RoundAnnounce",
    "RoundMode",
    "Schedule",
    "Status",
    "TopKInt4",
    "TopKSign",
    "UplinkMessage",
    "f_port_of",
]

F_PORT_LEARNING = 10
F_PORT_ASKING = 11
F_PORT_STATUS = 12

PROTOCOL = 1
CLASSES_MAX = 10
QUERY_FEATURES_MAX = 216
"""What a frame of 222 B has room for."""
Z_SIZE = 32
CONTEXT_MAX = 8
CONTEXT_OWN = 255
LOCAL_SIZE_MAX = 842
RICE_K_MAX = 9
LEVEL_MAX = 8
CHUNK = 64
"""Coordinates of the local vector that BLOCKS never cuts."""
FRAGMENTS_MAX = 64
"""Of one update."""
BLOCK_SIZE_MAX = 3200
BLOCK_HEADER_SIZE = 14
NO_BASE = 0xFFFF
ROUND_NEW_CONTEXTS = 0x80
"""Flag in a round's mode: only nodes whose context the model was shipped without take part."""
SERVES = ("fleet's head", "fleet's head before", "shipped head", "own head", "rule", "last label")
"""What a node answers with (`Status.serves`, bits 0..2); docs/SPEC.md section 2.4."""
SERVES_MASK, NO_GAIN = 7, 8
QUERY_OWN_READINGS = 1
QUERY_FEATURES_FOLLOW = 2


class RoundMode(IntEnum):
    """What a round asks of its cohort: the type of the update's frame (3 is FRAGMENT's, so no mode)."""

    NONE = 0
    PROTOTYPES = 1
    TOP_K_SIGN = 2
    TOP_K_INT4 = 4
    DENSE_INT8 = 5
    FEATURES = 6
    BLOCKS = 7


MODES = frozenset(map(int, RoundMode))


class BlockKind(IntEnum):
    """What a model block holds."""

    HEADS = 0
    DELTA = 1
    FULL = 2


@dataclass(frozen=True, slots=True)
class ClassMean:
    """The mean of one class's z over `count` samples: z[i] = q[i] * scale / 8, q -8..7, even length."""

    label: int
    count: int
    scale: int
    q: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Prototypes:
    """Uplink 10/01: class means of the labelled samples that were not reported yet."""

    round: int
    model_version: int
    context: int
    num_examples: int
    classes: tuple[ClassMean, ...]


@dataclass(frozen=True, slots=True)
class TopKSign:
    """Uplink 10/02: signs of the largest coordinates of the node's change, all of one magnitude.

    `indices` ascend in 0..841 (adapter A, adapter B, head); `magnitude` is in LSB of the parameters.
    """

    round: int
    model_version: int
    context: int
    num_examples: int
    magnitude: int
    rice_k: int
    indices: tuple[int, ...]
    negative: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class TopKInt4:
    """Uplink 10/04: the largest coordinates of the node's change: levels -8..8, not 0, of `scale` LSB."""

    round: int
    model_version: int
    context: int
    num_examples: int
    scale: int
    rice_k: int
    indices: tuple[int, ...]
    levels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DenseInt8:
    """Uplink 10/05: the whole change of a node as int8 steps of `scale_adapter` and `scale_head` LSB.

    `steps` are the adapter's 512, unless its scale is 0, then the head's (33 for each class).
    """

    round: int
    model_version: int
    context: int
    num_examples: int
    scale_adapter: int
    scale_head: int
    steps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Features:
    """Uplink 10/06: the newest samples themselves: labels, and 32 of z each, one behind the other in `q`.

    z[i] = q[i] * scale / 8, q -8..7.  Not private: this is what the node has seen.
    """

    round: int
    model_version: int
    context: int
    num_examples: int
    scale: int
    labels: tuple[int, ...]
    q: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Blocks:
    """Uplink 10/07: some chunks of a node's change, 64 coordinates each, as int4 steps -8..7.

    `steps` begin at coordinate 64 * `first` of the local vector; behind its end they are 0.  A step of the
    adapter (coordinates below 512) is `scale_adapter` LSB, one of the head `scale_head`.
    """

    round: int
    model_version: int
    context: int
    num_examples: int
    scale_adapter: int
    scale_head: int
    first: int
    steps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Fragment:
    """Uplink 10/03: slice `index` of `count` (2..64) of an update larger than a frame; `mode`: its type."""

    round: int
    mode: int
    index: int
    count: int
    slice: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """Uplink 11/01: 2..10 probabilities (sum 255); `age` of the freshest reading in 10 min, 255 unknown."""

    query_id: int
    context: int
    probabilities: tuple[int, ...]
    head_version: int
    age: int
    flags: int


@dataclass(frozen=True, slots=True)
class Status:
    """Uplink 12/01: health and last readings.

    `battery` as LoRaWAN DevStatus (0 external, 255 unknown), `humidity_half` in 0.5 % (255 missing),
    `rain_tenth` in 0.1 mm since the last status (65535 missing), `risk` min(class, 3) << 6 |
    probability >> 2.  `serves`: bits 0..2 an index into `SERVES`, bit 3 `NO_GAIN`.
    """

    model_version: int
    model_id: int
    battery: int
    labelled: int
    flags: int
    temperature_centi: int
    humidity_half: int
    rain_tenth: int
    risk: int
    multicast_received: int
    serves: int = 0


@dataclass(frozen=True, slots=True)
class RoundAnnounce:
    """Downlink 10/01: a round is open for the nodes with hash8(node_index, round) <= cohort.

    `mode` is a `RoundMode`, with the flag `ROUND_NEW_CONTEXTS` when nodes of a shipped context stay out.
    """

    round: int
    model_version: int
    mode: int
    cohort: int
    spread_s: int
    close_in_s: int
    next_window_s: int
    window_s: int


@dataclass(frozen=True, slots=True)
class RoundAck:
    """Downlink 10/02: bit j of bitmap byte b tells that node first_index + 8 b + j was counted."""

    round: int
    first_index: int
    bitmap: bytes


@dataclass(frozen=True, slots=True)
class BlockPiece:
    """Downlink 10/03: one piece of a model block of `length` bytes; each piece carries the whole header."""

    version: int
    base_version: int
    kind: int
    length: int
    crc32: int
    index: int
    count: int
    piece: bytes


@dataclass(frozen=True, slots=True)
class Query:
    """Downlink 11/01: judge your own readings (flag bit 0) or these 1..216 features (bit 1)."""

    query_id: int
    flags: int
    context: int
    reply_in_s: int
    features: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """Downlink 12/01: when the next multicast window opens, how long it is, how often to send status."""

    next_window_s: int
    window_s: int
    status_period_min: int


LearningMessage = Prototypes | TopKSign | TopKInt4 | DenseInt8 | Features | Blocks
"""Whole updates."""
PlainMessage = (
    LearningMessage
    | Fragment
    | Answer
    | Status
    | RoundAnnounce
    | RoundAck
    | BlockPiece
    | Query
    | Schedule
    | Readings
    | ReadingsRequest
    | Share
)
"""All but expert questions, which have a codec of their own."""
UplinkMessage = LearningMessage | Fragment | Answer | Status | Readings | ReadingsRequest | expert.Uplink
DownlinkMessage = (
    RoundAnnounce | RoundAck | BlockPiece | Query | Schedule | Readings | Share | expert.Downlink
)
Message = UplinkMessage | DownlinkMessage


def f_port_of(message: Message) -> int:
    """The FPort on which this kind of message travels."""
    if isinstance(message, (Answer, Query, expert.Ask, expert.Output, expert.Reply, expert.ExpertQuery)):
        return F_PORT_ASKING
    status = (Status, Schedule, Readings, ReadingsRequest, Share, expert.Experts)
    return F_PORT_STATUS if isinstance(message, status) else F_PORT_LEARNING
