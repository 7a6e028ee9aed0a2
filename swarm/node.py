"""The C node as Python objects: an array of nodes in one block of memory, and a replica of their model.

Theory of operation.  `Nodes` owns one cffi allocation that holds the nodes' C structs and their outbox
(`node_firmware/port/host`).  It has no clock and no chance: every input carries `now_us`, what nodes send
waits in `outbox()`, and the multicast windows that they want to hear in `listens()`.  The same calls give
the same bytes.  Arrays have one row per node, in the order of the configs; `index` is that order, not
the `node_index` that a node uses on the air.

    nodes = Nodes(2, [NodeConfig(node_index=7, context=0), NodeConfig(node_index=8, context=3)], image)
    nodes.sense(now_us, temperature_centi, humidity_half, rain_tenth, hour=12)
    mask, x = nodes.day_features()              # who closed a day, and the model's inputs of that day
    next_us = nodes.poll(now_us)
    for index, f_port, payload in nodes.outbox(): ...
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from swarm._node import ffi, lib
from swarm.model.layout import (
    ADAPTER_SIZE,
    CONTEXT_MAX,
    HEAD_SIZE_MAX,
    HIDDEN,
    LOCAL_SIZE_MAX,
    TOP_K,
    Shape,
    Z,
)
from swarm.node_config import (
    ALWAYS_ON,
    HOLDER,
    MASK_KEY_SIZE,
    NO_HUMIDITY_SENSOR,
    NO_RAIN_SENSOR,
    MaskGroup,
    NodeConfig,
    c_config,
)
from swarm.wire.expert import COARSE_SIZE, Ask
from swarm.wire.messages import CONTEXT_OWN

__all__ = [
    "ALWAYS_ON",
    "HOLDER",
    "HUMIDITY_MISSING",
    "LABEL_NONE",
    "MASK_KEY_SIZE",
    "NEVER_US",
    "NO_HUMIDITY_SENSOR",
    "NO_RAIN_SENSOR",
    "RAIN_MISSING",
    "TEMPERATURE_MISSING",
    "Judged",
    "Judgement",
    "MaskGroup",
    "Model",
    "NodeConfig",
    "Nodes",
]

TEMPERATURE_MISSING = -32768
HUMIDITY_MISSING = 255
RAIN_MISSING = 65535
LABEL_NONE = 255
NEVER_US = (1 << 63) - 1

Int8 = NDArray[np.int8]
Int16 = NDArray[np.int16]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]
Indices = Sequence[int] | NDArray[np.integer[Any]]

_ALIGNMENT = 16
_MODEL_ERRORS = (
    "ok", "misaligned", "truncated", "magic", "version", "header", "crc", "isa", "fragment", "tensor",
    "operand", "program",
)  # fmt: skip


class Judged(IntEnum):
    """How a judgement stands: final and the node's own, others were asked, or final with what they
    computed."""

    ALONE = 0
    ASKING = 1
    TOGETHER = 2


@dataclass(frozen=True, slots=True)
class Judgement:
    """Probabilities in 1/255 (sum 255); bit s of `missing`: the gate's s-th choice is left out."""

    state: Judged
    probabilities: tuple[int, ...]
    missing: int
    ask_id: int


def _rows(values: ArrayLike, dtype: type[np.generic], width: int) -> NDArray[Any]:
    rows = np.ascontiguousarray(values, dtype=dtype)
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ValueError(f"expected an array [n, {width}], got {list(rows.shape)}")
    return rows


def _vector(values: ArrayLike, dtype: type[np.generic], size: int) -> NDArray[Any]:
    vector = np.ascontiguousarray(values, dtype=dtype)
    if vector.shape != (size,):
        raise ValueError(f"expected {size} values, got an array {list(vector.shape)}")
    return vector


def _in(kind: str, array: NDArray[Any]) -> Any:
    return ffi.from_buffer(f"{kind}[]", array)


def _check_model(status: int) -> None:
    if status != 0:
        name = _MODEL_ERRORS[status] if status < len(_MODEL_ERRORS) else str(status)
        raise ValueError(f"the engine refuses this model image: {name}")


class Model:
    """The shipped model as the gateway runs it: bit for bit what nodes compute.

    ValueError when the image (a container, docs/SPEC.md) is refused.
    """

    def __init__(self, image: bytes) -> None:
        self.image = image
        self._memory = np.zeros(len(image) + _ALIGNMENT, np.uint8)
        start = -self._memory.ctypes.data % _ALIGNMENT
        self._memory[start : start + len(image)] = np.frombuffer(image, np.uint8)
        self._view = ffi.new("swn_model_t *")
        pointer = ffi.from_buffer("uint8_t[]", self._memory) + start
        _check_model(lib.swn_model_open(self._view, pointer, len(image)))
        self.shape = Shape(self._view.classes, self._view.features)
        """How many classes the model tells apart, and how many features it takes."""
        self.generation: int = self._view.generation
        self.expert_count: int = lib.swn_model_experts(self._view)
        """How many experts the gate chooses from, here or elsewhere."""

    def held(self) -> tuple[int, ...]:
        """The experts whose bytes are in the image, ascending."""
        mask = lib.swn_model_held(self._view)
        return tuple(expert for expert in range(self.expert_count) if mask >> expert & 1)

    def contribution(self, ask: Ask) -> tuple[int, bytes]:
        """(those of the missing picks that are in the image, what they add): bits 0 and 1, a coarse
        vector."""
        out = bytearray(COARSE_SIZE)
        vectors = (ffi.from_buffer("uint8_t[]", ask.input), ffi.from_buffer("uint8_t[]", out))
        done = lib.swn_host_contribute(self._view, bytes(ask.picks), ask.weight, ask.missing, *vectors)
        return int(done), bytes(out)

    def adapter(self) -> Int16:
        """The adapter of version 0, int16[512]."""
        out = np.empty(ADAPTER_SIZE, np.int16)
        lib.swn_model_adapter(self._view, _in("int16_t", out))
        return out

    def base_head(self, context: int) -> Int16:
        """The shipped head of a context (the shared head where the base model has none), int16[head_size]."""
        out = np.empty(self.shape.head_size, np.int16)
        lib.swn_model_head(self._view, context, _in("int16_t", out))
        return out

    def knows(self, context: int) -> bool:
        """Whether the base model has a head of its own for this context."""
        out = np.empty(self.shape.head_size, np.int16)
        return bool(lib.swn_model_head(self._view, context, _in("int16_t", out)))

    def hidden(self, x: ArrayLike) -> Int8:
        """The trunk's hidden vectors int8[n, 64] of features int8[n, features]."""
        return self._trunk(x)[0]

    def experts(self, x: ArrayLike) -> UInt8:
        """The two experts that the gate chose for each row, best first, uint8[n, 2]."""
        return self._trunk(x)[1]

    def project(self, hidden: ArrayLike, adapter: ArrayLike | None = None) -> Int8:
        """z int8[n, 32] (1.0 = 32) of hidden vectors; `adapter` int16[512] or None for none."""
        rows = _rows(hidden, np.int8, HIDDEN)
        weights = ffi.NULL
        if adapter is not None:
            kept = _vector(adapter, np.int16, ADAPTER_SIZE)
            weights = _in("int16_t", kept)
        z = np.empty((len(rows), Z), np.int8)
        lib.swn_host_project(self._view, weights, len(rows), _in("int8_t", rows), _in("int8_t", z))
        return z

    def z(self, x: ArrayLike, adapter: ArrayLike | None = None) -> Int8:
        """z int8[n, 32] of features int8[n, features]."""
        return self.project(self.hidden(x), adapter)

    def infer(self, x: ArrayLike, head: ArrayLike, adapter: ArrayLike | None = None) -> UInt8:
        """Probabilities uint8[n, classes] (sum 255) of features, by a head int16[head_size]."""
        z = self.z(x, adapter)
        weights = _vector(head, np.int16, self.shape.head_size)
        out = np.empty((len(z), self.shape.classes), np.uint8)
        vectors = (_in("int8_t", z), _in("uint8_t", out))
        lib.swn_host_heads(self._view, _in("int16_t", weights), len(z), *vectors)
        return out

    def _trunk(self, x: ArrayLike) -> tuple[Int8, UInt8]:
        rows = _rows(x, np.int8, self.shape.features)
        hidden = np.empty((len(rows), HIDDEN), np.int8)
        experts = np.empty((len(rows), TOP_K), np.uint8)
        outputs = (_in("int8_t", hidden), _in("uint8_t", experts))
        lib.swn_host_hidden(self._view, len(rows), _in("int8_t", rows), *outputs)
        return hidden, experts


class Nodes:
    """`count` C nodes, started at `now_us` with one config each; ValueError when a config is out of range.

    `flash_size`: bytes that each has for large blocks (`swarm.receiver`); 0: they take none.
    """

    def __init__(
        self,
        count: int,
        configs: Sequence[NodeConfig],
        model: bytes,
        now_us: int = 0,
        flash_size: int = 0,
    ) -> None:
        if count != len(configs) or count < 1:
            raise ValueError(f"{count} nodes and {len(configs)} configs")
        self.count = count
        image = ffi.from_buffer("uint8_t[]", model)
        self._size: int = lib.swn_host_size(count, len(model), flash_size)
        self._memory = ffi.new("uint8_t[]", self._size + _ALIGNMENT)
        base = self._memory + -int(ffi.cast("uintptr_t", self._memory)) % _ALIGNMENT
        self._bytes = ffi.buffer(base, self._size)
        self._host = ffi.cast("swn_host_t *", base)
        _check_model(lib.swn_host_init(self._host, count, image, len(model), flash_size))
        self.shape = Shape(self._host.model.classes, self._host.model.features)
        """The model's: rows of features are int8[shape.features], classes 0..shape.classes - 1."""
        for index, config in enumerate(configs):
            self._start(index, config, now_us)
        self._closed = np.zeros(count, np.uint8)
        self.busy: UInt8 = np.ndarray((count,), np.uint8, ffi.buffer(self._host.busy, count))
        """Writable: 0 lets node i send, s > 0 answers "busy, try again in s seconds"."""

    @property
    def host(self) -> Any:
        """The C struct itself, for `swarm.receiver`."""
        return self._host

    def _start(self, index: int, config: NodeConfig, now_us: int) -> None:
        try:
            made, mask = c_config(config)
            lib.swn_host_withhold(self._host, index, config.withheld)
        except OverflowError as error:
            raise ValueError(f"node {index}: {config}: {error}") from error
        keys = [ffi.NULL if key is None else key for key in (config.signer, config.block_key)]
        lib.swn_host_trust(self._host, index, *keys)
        made.mask = ffi.NULL if mask is None else mask
        if lib.swn_host_start(self._host, index, made, now_us) != 0:
            raise ValueError(f"node {index}: {config} is out of range")

    # Views into the C structs (read-only, always current) ---------------------------------------------

    def _view(self, dtype: type[np.generic], *path: str) -> NDArray[Any]:
        size = ffi.sizeof("swn_node_t")
        offset = ffi.offsetof("swn_node_t", *path)
        buffer = ffi.buffer(self._host.nodes, size * self.count)
        view: NDArray[Any] = np.ndarray((self.count,), dtype, buffer, offset, (size,))
        view.flags.writeable = False
        return view

    @property
    def model_version(self) -> NDArray[np.uint16]:
        """Version of the parameters that each node has."""
        return self._view(np.uint16, "parameters", "model_version")

    @property
    def labelled(self) -> UInt8:
        """Labelled samples that each node keeps (0..64)."""
        return self._view(np.uint8, "learner", "labelled")

    @property
    def day(self) -> NDArray[np.uint16]:
        """Number of each node's running noon-to-noon day; the last closed one is one less."""
        return self._view(np.uint16, "day")

    @property
    def dropped(self) -> NDArray[np.uint32]:
        """Answers and updates that a node could not send in time."""
        return self._view(np.uint32, "dropped")

    @property
    def refused(self) -> NDArray[np.uint32]:
        """Downlinks that were no valid frame, and blocks that failed their check."""
        return self._view(np.uint32, "refused")

    @property
    def sent(self) -> NDArray[np.uint32]:
        """Messages that the port took."""
        return self._view(np.uint32, "sent")

    @property
    def serving(self) -> UInt8:
        """What each node answers with: an index into `swarm.wire.messages.SERVES`."""
        return self._view(np.uint8, "serve", "choice")

    @property
    def no_gain(self) -> UInt8:
        """1 where a node does not use the head that the fleet changed for it."""
        return self._view(np.uint8, "serve", "no_gain")

    @property
    def sharing(self) -> UInt8:
        """Number of the SHARE that each node follows, 0: none."""
        return self._view(np.uint8, "borrow", "share", "id")

    @property
    def adapters(self) -> Int16:
        """Each node's adapter, int16[n, 512], a copy."""
        return self._block(np.int16, ADAPTER_SIZE, "parameters", "adapter")

    @property
    def heads(self) -> Int16:
        """Each node's heads of all contexts, int16[n, 8, head_size], a copy."""
        flat = self._block(np.int16, CONTEXT_MAX * HEAD_SIZE_MAX, "parameters", "heads")
        return flat.reshape(self.count, CONTEXT_MAX, HEAD_SIZE_MAX)[:, :, : self.shape.head_size]

    @property
    def residuals(self) -> Int16:
        """What each node learned and has not sent yet (mode top_k_sign), int16[n, local_size], a copy."""
        return self._block(np.int16, LOCAL_SIZE_MAX, "learner", "residual")[:, : self.shape.local_size]

    def _block(self, dtype: type[np.generic], width: int, *path: str) -> NDArray[Any]:
        size = ffi.sizeof("swn_node_t")
        buffer = ffi.buffer(self._host.nodes, size * self.count)
        strides = (size, np.dtype(dtype).itemsize)
        view: NDArray[Any] = np.ndarray(
            (self.count, width), dtype, buffer, ffi.offsetof("swn_node_t", *path), strides
        )
        return view.copy()

    # Inputs -------------------------------------------------------------------------------------------

    def sense(
        self,
        now_us: int,
        temperature_centi: ArrayLike,
        humidity_half: ArrayLike,
        rain_tenth: ArrayLike,
        hour: int,
    ) -> UInt8:
        """One hour of readings for all nodes, means of the hour that ends at the local clock's `hour`, 0..23.

        int16[n] in 0.01 degC (-32768 missing), uint8[n] in 0.5 % (255 missing), uint16[n] in 0.1 mm
        (65535 missing).  The reading of 12 o'clock is its day's last.  Returns uint8[n]: 1 where a day
        was closed.
        """
        temperature = _vector(temperature_centi, np.int16, self.count)
        humidity = _vector(humidity_half, np.uint8, self.count)
        rain = _vector(rain_tenth, np.uint16, self.count)
        closed = np.empty(self.count, np.uint8)
        readings = (_in("int16_t", temperature), _in("uint8_t", humidity), _in("uint16_t", rain))
        lib.swn_host_sense(self._host, now_us, *readings, hour, _in("uint8_t", closed))
        self._closed = closed
        return closed

    def observe(self, now_us: int, sample_id: int, x: ArrayLike, indices: Indices | None = None) -> None:
        """One more unlabelled sample for node indices[i] (default: all): row i of x, int8[n, features].

        For applications that compute their features themselves; `sample_id` (modulo 2^16) is what `label`
        calls the sample by.
        """
        rows, chosen = self._paired(x, indices)
        arguments = (_in("uint32_t", chosen), len(rows), now_us, sample_id & 0xFFFF, _in("int8_t", rows))
        lib.swn_host_observe(self._host, *arguments)

    def label(self, sample_id: int, classes: ArrayLike) -> int:
        """The true classes uint8[n] (255 none) of a day or observation; returns how many nodes took one."""
        labels = _vector(classes, np.uint8, self.count)
        return int(lib.swn_host_label(self._host, sample_id & 0xFFFF, _in("uint8_t", labels)))

    def rx(
        self, index: int, now_us: int, f_port: int, data: bytes, multicast: bool = False, snr_db: float = 0.0
    ) -> None:
        """A downlink (application payload) for one node."""
        self.rx_many((index,), now_us, f_port, data, multicast, snr_db)

    def rx_many(
        self,
        indices: Indices,
        now_us: int,
        f_port: int,
        data: bytes,
        multicast: bool = True,
        snr_db: float = 0.0,
    ) -> None:
        """The same downlink for some nodes."""
        chosen = self._indices(indices)
        snr = max(-128, min(127, round(snr_db)))
        payload = ffi.from_buffer("uint8_t[]", data)
        lib.swn_host_rx(
            self._host,
            _in("uint32_t", chosen),
            len(chosen),
            now_us,
            f_port,
            payload,
            len(data),
            multicast,
            snr,
        )

    def poll(self, now_us: int) -> Int64:
        """Lets all nodes send what is due; returns int64[n]: when each wants to be polled again."""
        following = np.empty(self.count, np.int64)
        lib.swn_host_poll(self._host, now_us, _in("int64_t", following))
        return following

    def poll_one(self, index: int, now_us: int) -> int:
        """Lets one node send what is due; returns when it wants to be polled again."""
        return int(lib.swn_poll(self._node(index), now_us))

    def set_battery(self, index: int, battery: int) -> None:
        """Battery as LoRaWAN DevStatus (0 external, 1..254, 255 unknown), for the next status."""
        lib.swn_set_battery(self._node(index), battery)

    def set_payload_max(self, index: int, payload_max: int) -> None:
        """The node's data rate changed: uplink payload in B from now on (16..222)."""
        lib.swn_set_payload_max(self._node(index), payload_max)

    def reset(self, index: int, now_us: int) -> None:
        """Power fails and returns: parameters, residual and which rounds it masked survive."""
        if lib.swn_host_reset(self._host, self._indices((index,))[0], now_us) != 0:
            raise ValueError(f"node {index} did not start")

    # Outputs ------------------------------------------------------------------------------------------

    def outbox(self) -> list[tuple[int, int, bytes]]:
        """What nodes sent since the last call: (index, f_port, payload), in the order of sending."""
        host = self._host
        messages = [
            (sent.index, sent.f_port, bytes(ffi.buffer(sent.data, sent.size)))
            for sent in (host.outbox[i] for i in range(host.outbox_used))
        ]
        host.outbox_used = 0
        return messages

    def listens(self) -> list[tuple[int, int, int]]:
        """Multicast windows that nodes asked for since the last call: (index, from_us, until_us)."""
        host = self._host
        windows = [
            (window.index, window.from_us, window.until_us)
            for window in (host.listens[i] for i in range(host.listens_used))
        ]
        host.listens_used = 0
        return windows

    def day_features(self) -> tuple[NDArray[np.bool_], Int8]:
        """(mask bool[n], x int8[n, features]): who made a sample at the last `sense`, and each last one."""
        mask = (self._closed != 0) & (self._view(np.uint8, "day_sampled") != 0)
        x = np.empty((self.count, self.shape.features), np.int8)
        lib.swn_host_day_features(self._host, _in("int8_t", x))
        return mask, x

    def verdicts(self) -> tuple[UInt8, UInt8]:
        """Each node's class of its last closed day by its rule: of its own readings, and as it stands now."""
        own, judged = np.empty(self.count, np.uint8), np.empty(self.count, np.uint8)
        lib.swn_host_verdicts(self._host, _in("uint8_t", own), _in("uint8_t", judged))
        return own, judged

    def features(self, index: int) -> Int8:
        """The inputs int8[features] that node `index` would judge its own readings by now."""
        row: Int8 = self.own_features()[self._indices((index,))[0]]
        return row

    def own_features(self) -> Int8:
        """The same for all nodes, int8[n, features]."""
        x = np.empty((self.count, self.shape.features), np.int8)
        lib.swn_host_own_features(self._host, _in("int8_t", x))
        return x

    def infer(self, x: ArrayLike, indices: Indices | None = None) -> UInt8:
        """Probabilities uint8[n, classes] (sum 255) of row i by the current parameters of node indices[i]."""
        rows, chosen = self._paired(x, indices)
        out = np.empty((len(rows), self.shape.classes), np.uint8)
        arguments = (_in("uint32_t", chosen), len(rows), _in("int8_t", rows), _in("uint8_t", out))
        lib.swn_host_infer(self._host, *arguments)
        return out

    def z(self, x: ArrayLike, indices: Indices | None = None) -> Int8:
        """z int8[n, 32] of row i with the current adapter of node indices[i] (default: row i, node i)."""
        rows, chosen = self._paired(x, indices)
        out = np.empty((len(rows), Z), np.int8)
        arguments = (_in("uint32_t", chosen), len(rows), _in("int8_t", rows), _in("int8_t", out))
        lib.swn_host_z(self._host, *arguments)
        return out

    # Judging together ---------------------------------------------------------------------------------

    def judge(
        self, index: int, now_us: int, x: ArrayLike, *, deadline_s: int, context: int = CONTEXT_OWN
    ) -> Judgement:
        """Node `index` judges int8[features], and asks others where it lacks an expert and is not sure.

        The ASK waits for the next poll.  While one is in flight every other question is judged alone.
        """
        row = _rows(np.asarray(x)[None], np.int8, self.shape.features)
        out = ffi.new("swn_judgement_t *")
        lib.swn_judge(self._node(index), now_us, context, _in("int8_t", row), deadline_s, out)
        return self._judged(out)

    def judgement(self, index: int) -> Judgement:
        """The last question that node `index` put to others, as it stands."""
        out = ffi.new("swn_judgement_t *")
        lib.swn_judgement(self._node(index), out)
        return self._judged(out)

    def _judged(self, out: Any) -> Judgement:
        probabilities = tuple(out.probabilities[c] for c in range(self.shape.classes))
        return Judgement(Judged(out.state), probabilities, out.missing, out.ask_id)

    # Snapshots ----------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """All state of all nodes and of the outbox."""
        return bytes(self._bytes)

    def restore(self, state: bytes) -> None:
        """Goes back to a `snapshot` of an array of the same size, model and build, else ValueError."""
        if len(state) != self._size:
            raise ValueError(f"{len(state)} B are no snapshot of {self.count} nodes ({self._size} B)")
        before = self.snapshot()
        self._bytes[:] = state
        if lib.swn_host_link(self._host) != 0 or self._host.count != self.count:
            self._bytes[:] = before
            lib.swn_host_link(self._host)
            raise ValueError("the snapshot is of another build")
        self._closed = np.zeros(self.count, np.uint8)

    # ----------------------------------------------------------------------------------------------------

    def _indices(self, indices: Indices) -> NDArray[np.uint32]:
        chosen = np.asarray(indices, dtype=np.int64)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= self.count):
            raise IndexError(f"node {chosen.min()} .. {chosen.max()} of {self.count}")
        return np.ascontiguousarray(chosen.reshape(-1), dtype=np.uint32)

    def _node(self, index: int) -> Any:
        if not 0 <= index < self.count:
            raise IndexError(f"node {index} of {self.count}")
        return self._host.nodes + index

    def _paired(self, x: ArrayLike, indices: Indices | None) -> tuple[Int8, NDArray[np.uint32]]:
        rows: Int8 = _rows(x, np.int8, self.shape.features)
        chosen = self._indices(range(self.count) if indices is None else indices)
        if len(chosen) != len(rows):
            raise ValueError(f"{len(rows)} rows of features for {len(chosen)} nodes")
        return rows, chosen
