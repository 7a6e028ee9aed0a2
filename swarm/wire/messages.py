"""What nodes and the gateway say to each other inside LoRaWAN payloads: the messages as values.

`swarm.wire.app` turns them into bytes and back, and says which field is out of range.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from swarm.wire import expert
from swarm.wire.offer import Offer
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
    "GROUP_MAX",
    "GROUP_MIN",
    "LEVEL_MAX",
    "LOCAL_SIZE_MAX",
    "MASK_PLACE",
    "MODES",
    "NO_BASE",
    "NO_GAIN",
    "PROTOCOL",
    "QUERY_FEATURES_FOLLOW",
    "QUERY_FEATURES_MAX",
    "QUERY_OWN_READINGS",
    "RICE_K_MAX",
    "ROUND_NEW_CONTEXTS",
    "SEED_SIZE",
    "SERVES",
    "SERVES_MASK",
    "SHIFT_MAX",
    "SIGMA_MAX",
    "SUMS_BITS",
    "SUMS_DIMS",
    "SUMS_SQUARES",
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
    "Label",
    "LearningMessage",
    "MaskedSums",
    "Message",
    "PlainMessage",
    "Prototypes",
    "Query",
    "Repair",
    "RoundAck",
    "RoundAnnounce",
    "RoundMode",
    "Schedule",
    "Seeds",
    "Status",
    "SumsPlan",
    "TopKInt4",
    "TopKSign",
    "UplinkMessage",
    "f_port_of",
    "right_share",
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
GROUP_MIN, GROUP_MAX = 4, 16
"""Members of a masking group."""
MASK_PLACE = r"(0|[1-9]\d{0,4})/(\d|1[0-5])/([4-9]|1[0-6])"
"""A place in one, as people and files say it: group/position/size."""
SUMS_DIMS = 20
"""Dimensions of z in masked sums, the first ones."""
SUMS_SQUARES = SUMS_DIMS * (SUMS_DIMS + 1) // 2
SUMS_BITS = (8, 16)
SHIFT_MAX = 20
SIGMA_MAX = 4095
SEED_SIZE = 16
BLOCK_SIZE_MAX = 3264
BLOCK_HEADER_SIZE = 14
NO_BASE = 0xFFFF
ROUND_NEW_CONTEXTS = 0x80
"""Flag in a round's mode: only nodes whose context the model was shipped without take part."""
SERVES = ("fleet's head", "fleet's head before", "shipped head", "own head", "rule", "last label")
"""What a node answers with (`Status.serves`, bits 0..2); docs/SPEC.md section 2.4."""
SERVES_MASK, NO_GAIN = 7, 8
RIGHT_SHIFT, RIGHT_MAX = 4, 15
QUERY_OWN_READINGS = 1
QUERY_FEATURES_FOLLOW = 2


class RoundMode(IntEnum):
    """What a round asks of its cohort: the type of the update's frame (3 and 9 are no modes)."""

    NONE = 0
    PROTOTYPES = 1
    TOP_K_SIGN = 2
    TOP_K_INT4 = 4
    DENSE_INT8 = 5
    FEATURES = 6
    BLOCKS = 7
    MASKED_SUMS = 8


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

    `indices` ascend in 0..841 (adapter A, adapter B, head), with `heads_only` in 512..841; `magnitude` is
    in LSB of the parameters.
    """

    round: int
    model_version: int
    context: int
    num_examples: int
    magnitude: int
    rice_k: int
    indices: tuple[int, ...]
    negative: tuple[bool, ...]
    heads_only: bool = False


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
    heads_only: bool = False


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
class MaskedSums:
    """Uplink 10/08: sums of the member at `position` of `size` (4..16) in `group`, under its masks.

    `values` are modulo 2^bits: a count for each class, 20 sums of z for each class, then the 210 sums of
    z[i] z[j], i <= j, row by row.
    """

    round: int
    model_version: int
    context: int
    group: int
    position: int
    size: int
    classes: int
    bits: int
    values: tuple[int, ...]

    @property
    def num_examples(self) -> int:
        """1: how many there were is under the masks, too."""
        return 1

    @property
    def place(self) -> str:
        """The place that its sender claims: group/position/size, as in `AddNode.mask_place`."""
        return f"{self.group}/{self.position}/{self.size}"


@dataclass(frozen=True, slots=True)
class Seeds:
    """Uplink 10/09: seeds of the masks that `position` shares with the members in `missing` (bits)."""

    round: int
    group: int
    position: int
    missing: int
    seeds: tuple[bytes, ...]

    def by_peer(self) -> dict[int, bytes]:
        """Position of a missing member -> seed."""
        peers = (peer for peer in range(GROUP_MAX) if self.missing >> peer & 1)
        return dict(zip(peers, self.seeds, strict=True))


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
    probability >> 2.  `serves`: bits 0..2 an index into `SERVES`, bit 3 `NO_GAIN`, bits 4..7 `right_share`.
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


def right_share(serves: int) -> float | None:
    """The share of a node's answers that were right, 0..1; None: too few were told."""
    said = serves >> RIGHT_SHIFT & RIGHT_MAX
    return (said - 1) / (RIGHT_MAX - 1) if said else None


@dataclass(frozen=True, slots=True)
class SumsPlan:
    """What a round of masked sums asks for.

    `samples_max` of one node (1..255), `bits` of a value (8..16); a step of a sum of z (32 = 1.0) is
    2^shift_linear, of z z (1024 = 1.0) 2^shift_square; `clip` is the longest z in 1/32 (0: any); the
    sigmas are each node's noise in steps (0: none), `releases_max` the rounds a node takes part in (0: all).
    """

    samples_max: int
    bits: int
    shift_linear: int
    shift_square: int
    clip: int = 0
    sigma_count: int = 0
    sigma_linear: int = 0
    sigma_square: int = 0
    releases_max: int = 0


@dataclass(frozen=True, slots=True)
class Label:
    """Downlink 12/04: the true class (0..9) of the day whose noon was `value` hours before the frame's
    start, or with `by_id` of the observation with that id."""

    label: int
    by_id: bool
    value: int


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
    sums: SumsPlan | None = None
    """In mode masked_sums, and only then."""


@dataclass(frozen=True, slots=True)
class Repair:
    """Downlink 10/04: bit p of `received` tells that the member at position p of `group` was heard."""

    round: int
    group: int
    received: int


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
    """Downlink 12/01: when the next multicast window opens, how long it is, how often to send status.

    `round`, in cells whose mode is masked_sums: the last one that was announced, 0 before the first.
    """

    next_window_s: int
    window_s: int
    status_period_min: int
    round: int | None = None


LearningMessage = Prototypes | TopKSign | TopKInt4 | DenseInt8 | Features | Blocks | MaskedSums
"""Whole updates."""
PlainMessage = (
    LearningMessage
    | Fragment
    | Seeds
    | Repair
    | Offer
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
    | Label
)
"""All but expert questions, which have a codec of their own."""
UplinkMessage = (
    LearningMessage | Fragment | Seeds | Answer | Status | Readings | ReadingsRequest | expert.Uplink
)
DownlinkMessage = (
    RoundAnnounce
    | RoundAck
    | BlockPiece
    | Repair
    | Offer
    | Query
    | Schedule
    | Readings
    | Share
    | Label
    | expert.Downlink
)
Message = UplinkMessage | DownlinkMessage


def f_port_of(message: Message) -> int:
    """The FPort on which this kind of message travels."""
    if isinstance(message, (Answer, Query, expert.Ask, expert.Output, expert.Reply, expert.ExpertQuery)):
        return F_PORT_ASKING
    status = (Status, Schedule, Readings, ReadingsRequest, Share, Label, expert.Experts)
    return F_PORT_STATUS if isinstance(message, status) else F_PORT_LEARNING
