"""The model container: write one from float weights, read, check and describe one (docs/SPEC.md).

The C engine (`node_firmware/core/swn_model.c`) runs the same bytes in place and checks more (the operands of
every op); this module is how images are made, and how the gateway looks into them.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from swarm.effects import Malformed
from swarm.model import layout
from swarm.model.container_format import (
    ARENA_SIZE_MAX,
    BIAS_MAX,
    COLS_MAX,
    CONTEXT_SHARED,
    ENGINE_ISA,
    FLAG_ADD,
    FLAG_RELU,
    FLAG_WIDE,
    FRAGMENT,
    HEADER,
    IMAGE_SIZE_MAX,
    KIND_CODES,
    KINDS,
    MULT_MAX,
    OP,
    OP_CODES,
    OPS,
    ROLE_ADAPTER,
    ROLE_HEAD,
    ROLE_PRIOR,
    ROLE_WEIGHT,
    ROLES,
    ROWS_MAX,
    STATE_PRESENT,
    STATE_REMOTE,
    STATES,
    TABLE_MAX,
    TENSOR,
    TYPE_INT4,
    TYPE_INT8,
    TYPE_INT16,
    TYPES,
    VERSION,
    FloatArray,
    Fragment,
    IntArray,
    Op,
    Tensor,
    pack_int4,
    quantise_rows,
)
from swarm.prng import Prng

__all__ = [
    "Container",
    "FloatModel",
    "Fragment",
    "Linear",
    "Op",
    "Prior",
    "Tensor",
    "inspect",
    "quantise_rows",
    "random_model",
    "read",
    "write",
]

# Where each vector lies in the engine's arena (bytes). Gate logits and picks are int32, so 4-byte aligned.
ARENA_X: Final = 0
ARENA_Z: Final = 0
X_SIZE_MIN: Final = 64
"""The inputs' place later holds z and keeps the vectors behind it where they are for up to 64 features."""


@dataclass(frozen=True, slots=True)
class _Arena:
    """Where what stands behind the inputs lies; `h0` is their padded size."""

    h0: int

    @classmethod
    def of(cls, features: int) -> _Arena:
        return cls(max(X_SIZE_MIN, -(-features // 16) * 16))

    @property
    def h(self) -> int:
        return self.h0 + layout.HIDDEN

    @property
    def logits(self) -> int:
        return self.h + layout.HIDDEN

    @property
    def picks(self) -> int:
        return self.logits + 4 * layout.EXPERTS

    @property
    def size(self) -> int:
        return self.picks + 8 * layout.TOP_K


@dataclass(frozen=True, slots=True)
class Linear:
    """A float layer: `weight` [rows, cols], `bias` [rows], in real units (not yet scaled to integers)."""

    weight: FloatArray
    bias: FloatArray


@dataclass(frozen=True, slots=True)
class Prior:
    """Public statistics of a context: class means of z [classes, 32] (1.0 = one sd), counts [classes]."""

    mean: FloatArray
    count: IntArray


@dataclass(frozen=True, slots=True)
class FloatModel:
    """What `write` turns into a container.

    `input_scale` and `hidden_scale` are the real values of one int8 step of the inputs and of the hidden
    vector. The first layer has a column for each feature (1..256), the experts and the shared expert are
    64 x 64, the gate has a row per expert, and `project` is 32 x 64. `heads` maps a context, or None for the
    shared head, to weights [classes, 33], 2..10 classes.
    """

    dense: Linear
    shared: Linear
    gate: Linear
    experts: Sequence[Linear]
    project: Linear
    input_scale: float
    hidden_scale: float
    adapter_a: FloatArray
    heads: Mapping[int | None, FloatArray]
    priors: Mapping[int, Prior] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Container:
    """A read and checked image."""

    image: bytes
    model_id: bytes
    generation: int
    arena_size: int
    isa: int
    crc32: int
    ops: tuple[Op, ...]
    tensors: tuple[Tensor, ...]
    fragments: tuple[Fragment, ...]

    @property
    def shape(self) -> layout.Shape:
        """Classes and features."""
        head = next(op for op in self.ops if OPS[op.code] == "HEAD")
        return layout.Shape(self.tensors[head.tensor].rows, self.ops[0].count)

    def _plane(self, tensor: Tensor, dtype: str) -> NDArray[Any]:
        plane = self.image[tensor.plane : tensor.plane + tensor.plane_size()]
        return np.frombuffer(plane, dtype=dtype).reshape(tensor.rows, tensor.cols).copy()

    def adapter(self) -> NDArray[np.int16]:
        """The shipped adapter, int16[512]: A as trained, B zero."""
        op = next(op for op in self.ops if OPS[op.code] == "ADAPTER")
        return self._plane(self.tensors[op.tensor], "<i2").reshape(-1)

    def head(self, context: int) -> NDArray[np.int16]:
        """The shipped head of a context, int16[head_size]; the shared head when the context has none."""
        op = next(op for op in self.ops if OPS[op.code] == "HEAD")
        heads = self.tensors[op.tensor : op.tensor + op.count]
        own = [tensor for tensor in heads if tensor.context == context != CONTEXT_SHARED]
        return self._plane(own[-1] if own else heads[op.aux], "<i2").reshape(-1)

    def contexts(self) -> tuple[int, ...]:
        """Contexts with a head of their own, ascending."""
        op = next(op for op in self.ops if OPS[op.code] == "HEAD")
        heads = self.tensors[op.tensor : op.tensor + op.count]
        return tuple(sorted(tensor.context for tensor in heads if tensor.context != CONTEXT_SHARED))

    def prior(self, context: int) -> Prior | None:
        """Public class means of z (float, 1.0 = one sd) and counts, or None."""
        for tensor in self.tensors:
            if ROLES[tensor.role] == "prior" and tensor.context == context:
                count = np.frombuffer(self.image, "<u4", count=tensor.rows, offset=tensor.scale)
                return Prior(self._plane(tensor, "<i1") / layout.Z_ONE, count.astype(np.int64))
        return None


def _pad16(data: bytes) -> bytes:
    return data + bytes(-len(data) % 16)


CLASS_ROWS = range(layout.CLASSES_MIN, layout.CLASSES_MAX + 1)
PLAIN_SHAPES = {
    ROLE_ADAPTER: (TYPE_INT16, range(2 * layout.RANK, 2 * layout.RANK + 1), layout.HIDDEN),
    ROLE_HEAD: (TYPE_INT16, CLASS_ROWS, layout.HEAD_ROW),
    ROLE_PRIOR: (TYPE_INT8, CLASS_ROWS, layout.Z),
}


class _Builder:
    """Collects fragments and tensors; offsets are relative to the data area until `image`."""

    def __init__(self, generation: int, remote: frozenset[int]) -> None:
        self.generation = generation
        self.remote = remote
        self.data = bytearray()
        self.tensors: list[Tensor] = []
        self.fragments: list[Fragment] = []
        self._open: list[tuple[Tensor, bytes, bytes]] = []

    def weight(self, linear: Linear, bits: int, in_scale: float, out_scale: float) -> None:
        """Adds a quantised layer to the open fragment.

        The integer engine computes (acc + bias) * mult >> shift; mult / 2^shift is the ratio of the scales.
        """
        quantised, row_scale = quantise_rows(np.asarray(linear.weight, dtype=np.float64), bits)
        ratio = row_scale * in_scale / out_scale
        shift = int(np.clip(np.floor(np.log2(MULT_MAX / ratio.max())), 1, 30))
        mult = np.clip(np.rint(ratio * 2.0**shift), 1, MULT_MAX).astype("<u2")
        bias = np.clip(np.rint(linear.bias / (row_scale * in_scale)), -BIAS_MAX, BIAS_MAX).astype("<i4")
        rows, cols = quantised.shape
        padded = np.zeros((rows, -(-cols // 16) * 16), dtype=np.int64)
        padded[:, :cols] = quantised
        plane = pack_int4(padded) if bits == 4 else padded.astype("<i1").tobytes()
        tensor = Tensor(TYPE_INT4 if bits == 4 else TYPE_INT8, ROLE_WEIGHT, rows, padded.shape[1],
                        len(self.fragments), 0, 0, shift=shift)  # fmt: skip
        self._open.append((tensor, plane, bias.tobytes() + mult.tobytes()))

    def plain(self, role: int, values: NDArray[Any], context: int = 0, beside: bytes = b"") -> None:
        """Adds an unquantised tensor (adapter, head, prior) to the open fragment."""
        rows, cols = values.shape
        kind = TYPE_INT8 if values.dtype.itemsize == 1 else TYPE_INT16
        self._open.append(
            (Tensor(kind, role, rows, cols, len(self.fragments), 0, 0, context), values.tobytes(), beside)
        )

    def close(self, kind: str, index: int = 0) -> None:
        """Ends the open fragment. A remote one keeps its length and CRC, but not its bytes."""
        remote = kind == "expert" and index in self.remote
        base = len(self.data)
        data = bytearray()
        for tensor, plane, beside in self._open:
            plane_at = base + len(data)
            data += _pad16(plane)
            scale_at = base + len(data)
            data += _pad16(beside)
            self.tensors.append(
                replace(
                    tensor, plane=-1 if remote else plane_at, scale=-1 if remote or not beside else scale_at
                )
            )
        self._open = []
        state = STATE_REMOTE if remote else STATE_PRESENT
        self.fragments.append(
            Fragment(
                KIND_CODES[kind],
                state,
                index,
                -1 if remote else base,
                len(data),
                zlib.crc32(data),
                self.generation,
            )
        )
        if not remote:
            self.data += data

    def image(self, ops: Sequence[Op], arena_size: int) -> bytes:
        """The finished container."""
        tensors_at = HEADER.size + OP.size * len(ops)
        fragments_at = tensors_at + TENSOR.size * len(self.tensors)
        end = fragments_at + FRAGMENT.size * len(self.fragments)
        data_at = -(-end // 16) * 16

        def absolute(offset: int) -> int:
            return data_at + offset if offset >= 0 else 0

        tables = b"".join(op.pack() for op in ops)
        for t in self.tensors:
            tables += replace(t, plane=absolute(t.plane), scale=absolute(t.scale)).pack()
        for f in self.fragments:
            tables += replace(f, offset=absolute(f.offset)).pack()
        tables += bytes(data_at - end)
        isa = 0
        for op in ops:
            isa |= 1 << op.code
        head = HEADER.pack(
            b"SWM1", VERSION, HEADER.size, data_at + len(self.data), 0,
            hashlib.sha256(tables + self.data).digest()[:8], self.generation, len(ops), len(self.tensors),
            len(self.fragments), HEADER.size, tensors_at, fragments_at, data_at, arena_size, 0, isa, 0, 0,
        )  # fmt: skip
        crc = zlib.crc32(tables, zlib.crc32(head[:60]))
        return head[:60] + struct.pack("<I", crc) + tables + bytes(self.data)


def _int16(values: FloatArray, one: int) -> NDArray[np.int16]:
    return np.clip(np.rint(np.asarray(values, dtype=np.float64) * one), -32768, 32767).astype("<i2")


def _store_parameters(builder: _Builder, model: FloatModel) -> None:
    """Adapter, heads (shared head last) and priors, each a fragment of its own."""
    adapter = np.zeros((2 * layout.RANK, layout.HIDDEN), dtype="<i2")
    adapter[: layout.RANK] = _int16(model.adapter_a, layout.ADAPTER_ONE)
    builder.plain(ROLE_ADAPTER, adapter)
    builder.close("adapter")
    own = sorted(context for context in model.heads if context is not None)
    for context in own:
        builder.plain(ROLE_HEAD, _int16(model.heads[context], layout.HEAD_ONE), context)
        builder.close("head", context)
    builder.plain(ROLE_HEAD, _int16(model.heads[None], layout.HEAD_ONE), CONTEXT_SHARED)
    builder.close("head", CONTEXT_SHARED)
    for context, prior in sorted(model.priors.items()):
        mean = np.clip(np.rint(prior.mean * layout.Z_ONE), -128, 127).astype("<i1")
        builder.plain(ROLE_PRIOR, mean, context, prior.count.astype("<u4").tobytes())
        builder.close("prior", context)


def _program(features: int, n_experts: int, n_heads: int) -> list[Op]:
    """x -> h0 = relu(dense); h = h0 + relu(shared) + sum of gated experts; adapter; z; heads."""
    code = OP_CODES
    at = _Arena.of(features)
    first_expert = 4
    adapter = first_expert + n_experts
    ops = [
        Op(code["INPUT"], dst=ARENA_X, count=features),
        Op(code["DENSE4"], FLAG_RELU, dst=at.h0, src=ARENA_X, tensor=0),
        Op(code["COPY"], dst=at.h, src=at.h0, count=layout.HIDDEN),
        Op(code["DENSE4"], FLAG_RELU | FLAG_ADD, dst=at.h, src=at.h0, tensor=3),
        Op(code["MATVEC8"], FLAG_WIDE, dst=at.logits, src=at.h0, tensor=2),
        Op(code["TOPK_GATE"], dst=at.picks, src=at.logits, count=n_experts, aux=layout.TOP_K),
    ]
    experts = [
        Op(code["EXPERT"], 0, at.h, at.h0, at.picks, first_expert, count=n_experts, aux=slot)
        for slot in range(layout.TOP_K)
    ]
    return [
        *ops,
        *experts,
        Op(code["ADAPTER"], dst=at.h0, src=at.h, tensor=adapter),
        Op(code["PROJECT"], dst=ARENA_Z, src=at.h0, tensor=1),
        Op(code["HEAD"], src=ARENA_Z, tensor=adapter + 1, count=n_heads, aux=n_heads - 1),
        Op(code["END"]),
    ]


def write(model: FloatModel, *, generation: int = 0, remote: Sequence[int] = ()) -> bytes:
    """A container of a float model; the experts in `remote` are listed, but their bytes left out.

    ValueError when heads and priors do not have the same number of classes, or a size is out of range.
    """
    features = np.asarray(model.dense.weight).shape[1]
    rows = {np.asarray(head).shape[0] for head in model.heads.values()}
    rows |= {np.asarray(prior.mean).shape[0] for prior in model.priors.values()}
    if len(rows) != 1:
        raise ValueError(f"heads and priors have {sorted(rows)} classes: all must have as many")
    layout.Shape(rows.pop(), features)
    builder = _Builder(generation, frozenset(remote))
    hidden = model.hidden_scale
    builder.weight(model.dense, 4, model.input_scale, hidden)
    builder.weight(model.project, 8, hidden, 1.0 / layout.Z_ONE)
    builder.close("trunk")
    builder.weight(model.gate, 8, hidden, 1.0 / layout.LOGIT_ONE)
    builder.close("gate")
    builder.weight(model.shared, 4, hidden, hidden)
    builder.close("shared_expert")
    for index, expert in enumerate(model.experts):
        builder.weight(expert, 4, hidden, hidden)
        builder.close("expert", index)
    _store_parameters(builder, model)
    program = _program(features, len(model.experts), len(model.heads))
    return builder.image(program, _Arena.of(features).size)


def _check_tables(image: bytes, head: tuple[Any, ...]) -> Malformed | None:
    """Header fields against the length and against each other."""
    magic, version, header_size, total, flags = head[:5]
    n_ops, n_tensors, n_fragments, ops_at, tensors_at, fragments_at, data_at, arena, _, isa = head[7:17]
    if magic != b"SWM1":
        return Malformed("magic", "not a swarm model")
    if version > VERSION:
        return Malformed("version", f"made by a newer writer (version {version}, this one reads {VERSION})")
    if total > min(len(image), IMAGE_SIZE_MAX):
        return Malformed("truncated", f"{len(image)} bytes, header says {total}")
    if isa & ~ENGINE_ISA:
        return Malformed("isa", f"needs unknown ops {isa & ~ENGINE_ISA:#x}")
    expected = (HEADER.size, HEADER.size + OP.size * n_ops)
    tables_ok = (ops_at, tensors_at) == expected and fragments_at == tensors_at + TENSOR.size * n_tensors
    end = fragments_at + FRAGMENT.size * n_fragments
    if (
        version != VERSION
        or header_size != HEADER.size
        or flags != 0
        or max(n_ops, n_tensors, n_fragments) > TABLE_MAX
        or not tables_ok
        or data_at != -(-end // 16) * 16
        or data_at > total
        or arena > ARENA_SIZE_MAX
    ):
        return Malformed("header", "a field is out of range")
    if zlib.crc32(image[64:data_at], zlib.crc32(image[:60])) != head[18]:
        return Malformed("crc", "header and directories")
    return None


def _check_fragments(
    image: bytes, data_at: int, total: int, fragments: Sequence[Fragment]
) -> Malformed | None:
    """The present fragments tile the data area, and each CRC holds."""
    cursor = data_at
    for number, fragment in enumerate(fragments):
        if fragment.kind not in KINDS or fragment.state not in STATES:
            return Malformed("fragment", f"fragment {number}: unknown kind or state")
        if fragment.state == STATE_REMOTE:
            if KINDS[fragment.kind] != "expert" or fragment.offset != 0:
                return Malformed("fragment", f"fragment {number}: only an expert may be remote")
            continue
        if fragment.offset != cursor or fragment.length % 16 or cursor + fragment.length > total:
            return Malformed("fragment", f"fragment {number}: does not follow the one before it")
        if zlib.crc32(image[cursor : cursor + fragment.length]) != fragment.crc32:
            return Malformed("crc", f"fragment {number} ({KINDS[fragment.kind]} {fragment.index})")
        cursor += fragment.length
    return None if cursor == total else Malformed("fragment", "bytes behind the last fragment")


def _check_tensors(tensors: Sequence[Tensor], fragments: Sequence[Fragment]) -> Malformed | None:
    """Each tensor has a known type and lies inside its fragment."""
    for number, tensor in enumerate(tensors):
        if tensor.type not in TYPES or tensor.role not in ROLES or tensor.fragment >= len(fragments):
            return Malformed("tensor", f"tensor {number}: unknown type, role or fragment")
        if tensor.role == ROLE_WEIGHT:
            fits = (
                tensor.type in {TYPE_INT4, TYPE_INT8} and 0 < tensor.rows <= ROWS_MAX and tensor.rows % 2 == 0
            )
            fits = fits and 0 < tensor.cols <= COLS_MAX and tensor.cols % 16 == 0
        else:
            kind, rows, cols = PLAIN_SHAPES[tensor.role]
            fits = tensor.type == kind and tensor.rows in rows and tensor.cols == cols
        fragment = fragments[tensor.fragment]
        if not fits or (fragment.state == STATE_REMOTE and tensor.role != ROLE_WEIGHT):
            return Malformed("tensor", f"tensor {number}: shape, or a kind that cannot be remote")
        if fragment.state == STATE_REMOTE:
            continue
        spans = [(tensor.plane, tensor.plane_size())]
        if tensor.scale_size():
            spans.append((tensor.scale, tensor.scale_size()))
        for start, size in spans:
            if start < fragment.offset or start + size > fragment.offset + fragment.length:
                return Malformed("tensor", f"tensor {number}: outside its fragment")
    return None


def _check_program(ops: Sequence[Op], tensors: Sequence[Tensor]) -> Malformed | None:
    """What the accessors rely on: one ADAPTER, one HEAD, fitting tensors. The engine checks the rest."""
    names = [OPS.get(op.code, "") for op in ops]
    if "" in names:
        return Malformed("isa", "unknown op")
    if (
        names[-4:] != ["ADAPTER", "PROJECT", "HEAD", "END"]
        or names.count("ADAPTER") != 1
        or names.count("HEAD") != 1
    ):
        return Malformed("program", "does not end in ADAPTER, PROJECT, HEAD, END")
    adapter, head = ops[-4], ops[-2]
    wanted = [(adapter.tensor, ROLE_ADAPTER), *((head.tensor + i, ROLE_HEAD) for i in range(head.count))]
    if names[0] != "INPUT" or not 1 <= ops[0].count <= layout.FEATURES_MAX:
        return Malformed("program", "does not begin with INPUT of 1..256 features")
    if head.aux >= head.count or any(i >= len(tensors) or tensors[i].role != role for i, role in wanted):
        return Malformed("operand", "adapter or head tensor")
    if len({tensor.rows for tensor in tensors if tensor.role in {ROLE_HEAD, ROLE_PRIOR}}) != 1:
        return Malformed("tensor", "heads and priors differ in their number of classes")
    return None


def read(image: bytes) -> Container | Malformed:
    """Checks a container and opens it; hostile bytes give a reason, never an exception."""
    if len(image) < HEADER.size:
        return Malformed("truncated", f"{len(image)} bytes")
    head = HEADER.unpack_from(image)
    wrong = _check_tables(image, head)
    if wrong:
        return wrong
    total, n_ops, n_tensors, n_fragments, ops_at, tensors_at, fragments_at, data_at = head[3], *head[7:14]
    ops = tuple(
        Op(*fields[:8]) for fields in (OP.unpack_from(image, ops_at + i * OP.size) for i in range(n_ops))
    )
    tensors = tuple(
        Tensor(*TENSOR.unpack_from(image, tensors_at + i * TENSOR.size)[:9]) for i in range(n_tensors)
    )
    fragments = tuple(
        Fragment(*FRAGMENT.unpack_from(image, fragments_at + i * FRAGMENT.size)[:7])
        for i in range(n_fragments)
    )
    wrong = (
        _check_fragments(image, data_at, total, fragments)
        or _check_tensors(tensors, fragments)
        or _check_program(ops, tensors)
    )
    if wrong:
        return wrong
    return Container(image[:total], head[5], head[6], head[14], head[16], head[18], ops, tensors, fragments)


def inspect(image: bytes) -> dict[str, Any]:
    """A description for people and JSON: header, program, tensors, fragments; or {"error", "detail"}."""
    container = read(image)
    if isinstance(container, Malformed):
        return {"error": container.reason, "detail": container.detail}
    macs = sum(t.rows * t.cols for t in container.tensors if ROLES[t.role] == "weight")
    idle = [t for t in container.tensors if KINDS[container.fragments[t.fragment].kind] == "expert"]
    active = macs - sum(t.rows * t.cols for t in idle) * (len(idle) - layout.TOP_K) // max(len(idle), 1)
    return {
        "format": VERSION,
        "size": len(container.image),
        "model_id": container.model_id.hex(),
        "crc32": f"{container.crc32:08x}",
        "generation": container.generation,
        "arena_bytes": container.arena_size,
        "isa": [name for code, name in OPS.items() if container.isa >> code & 1],
        "contexts": list(container.contexts()),
        "classes": container.shape.classes,
        "features": container.shape.features,
        "macs_per_inference": active,
        "ops": [
            {"op": OPS[op.code], **{k: v for k, v in asdict(op).items() if k != "code"}}
            for op in container.ops
        ],
        "tensors": [
            {
                **asdict(t),
                "type": TYPES[t.type],
                "role": ROLES[t.role],
                "bytes": t.plane_size() + t.scale_size(),
            }
            for t in container.tensors
        ],
        "fragments": [
            {**asdict(f), "kind": KINDS[f.kind], "state": STATES[f.state], "crc32": f"{f.crc32:08x}"}
            for f in container.fragments
        ],
    }


def random_model(
    seed: int,
    *,
    shape: layout.Shape = layout.WEATHER,
    contexts: Sequence[int] = layout.CONTEXTS_PUBLIC,
    remote: Sequence[int] = (),
    generation: int = 0,
) -> bytes:
    """A container of random weights whose z is spread over its range: for tests that need no skill.

    `contexts` are those with a head of their own.
    """
    rng = Prng(seed).child("random_model").numpy()
    hidden, z = layout.HIDDEN, layout.Z

    def linear(rows: int, cols: int, gain: float) -> Linear:
        return Linear(rng.normal(0, gain / np.sqrt(cols), (rows, cols)), rng.normal(0, 0.1, rows))

    heads: dict[int | None, FloatArray] = {}
    for context in (*contexts, None):
        heads[context] = rng.normal(0, 0.3, (shape.classes, layout.HEAD_ROW))
    project = linear(z, hidden, 1.5)
    model = FloatModel(
        dense=linear(hidden, shape.features, 1.4),
        shared=linear(hidden, hidden, 0.7),
        gate=linear(layout.EXPERTS, hidden, 2.0),
        experts=[linear(hidden, hidden, 0.7) for _ in range(layout.EXPERTS)],
        project=Linear(project.weight - project.weight.mean(axis=1, keepdims=True), project.bias),
        input_scale=1 / 32,
        hidden_scale=1 / 16,
        adapter_a=rng.normal(0, 1 / np.sqrt(hidden), (layout.RANK, hidden)),
        heads=heads,
        priors={
            context: Prior(
                rng.normal(0, 1, (shape.classes, z)), np.array([300, 120, *[60] * (shape.classes - 2)])
            )
            for context in layout.CONTEXTS_PUBLIC
        },
    )
    return write(model, generation=generation, remote=remote)
