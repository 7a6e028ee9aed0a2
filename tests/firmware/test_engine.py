"""The C engine on the host: golden vectors, its own test program under sanitizers, gradients, learning."""

from __future__ import annotations

import base64
import ctypes
import json
import re
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from swarm.model import container, layout
from tests.firmware.engine_reference import VECTORS, Reference, logits

FIRMWARE = Path(__file__).parents[2] / "node_firmware"
PARTS = ("math", "kernels", "model", "run", "train", "change")
SOURCES = [FIRMWARE / "core" / f"swn_{name}.c" for name in PARTS]
FLAGS = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]


class Train(ctypes.Structure):
    _fields_ = [
        ("model", ctypes.c_void_p),
        ("prng", ctypes.c_uint32),
        ("parameters", ctypes.c_int16 * layout.LOCAL_SIZE_MAX),
        ("rate_head", ctypes.c_uint8),
        ("rate_adapter", ctypes.c_uint8),
        ("class_weight", ctypes.c_uint8 * layout.CLASSES_MAX),
    ]


class Change(ctypes.Structure):
    _fields_ = [
        ("scale_adapter", ctypes.c_uint16),
        ("scale_head", ctypes.c_uint16),
        ("rice_k", ctypes.c_uint8),
        ("count", ctypes.c_uint8),
        ("steps", ctypes.c_int8 * layout.LOCAL_SIZE_MAX),
    ]


class Engine:
    """The core as a shared library, with one open model."""

    def __init__(self, library: ctypes.CDLL, image: bytes) -> None:
        self.library = library
        self.words = np.frombuffer(image + bytes(-len(image) % 16), dtype=np.uint64).copy()
        self.view = (ctypes.c_uint8 * 128)()
        self.status = library.swn_model_open(self.view, self._p(self.words), ctypes.c_size_t(len(image)))

    @staticmethod
    def _p(array: np.ndarray | None) -> ctypes.c_void_p:
        return ctypes.c_void_p(None if array is None else array.ctypes.data)

    def hidden(self, x: list[int]) -> tuple[np.ndarray, list[int], int]:
        h, top = np.zeros(64, dtype=np.int8), np.zeros(2, dtype=np.uint8)
        data = np.array(x, dtype=np.int8)
        missing = self.library.swn_features_to_hidden(self.view, self._p(data), self._p(h), self._p(top))
        return h, top.tolist(), missing

    def z(self, h: np.ndarray, adapter: np.ndarray | None) -> np.ndarray:
        out = np.zeros(32, dtype=np.int8)
        self.library.swn_hidden_to_z(self.view, self._p(adapter), self._p(h), self._p(out))
        return out

    def classify(self, head: np.ndarray, z: np.ndarray) -> tuple[list[int], list[int]]:
        classes = ctypes.c_size_t(len(head) // layout.HEAD_ROW)
        values, p = np.zeros(classes.value, dtype=np.int32), np.zeros(classes.value, dtype=np.uint8)
        self.library.swn_head_logits(self._p(head), classes, self._p(z), self._p(values))
        self.library.swn_softmax(self._p(values), classes, self._p(p))
        return values.tolist(), p.tolist()

    def train(self, parameters: np.ndarray, seed: int) -> Train:
        train = Train()
        adapter, head = parameters[:512].astype(np.int16), parameters[512:].astype(np.int16)
        self.library.swn_train_init(
            ctypes.byref(train), self.view, self._p(adapter), self._p(head), ctypes.c_uint64(seed)
        )
        return train


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    target = tmp_path_factory.mktemp("engine") / "engine.so"
    subprocess.run(
        ["gcc", *FLAGS, "-O2", "-fPIC", "-shared", *map(str, SOURCES), "-o", str(target)], check=True
    )
    return ctypes.CDLL(str(target))


@pytest.fixture(scope="session")
def vectors() -> dict:
    return json.loads(VECTORS.read_text())


@pytest.fixture(scope="session")
def engine(library: ctypes.CDLL, vectors: dict) -> Iterator[Engine]:
    engine = Engine(library, zlib.decompress(base64.b64decode(vectors["image_zlib_base64"])))
    assert engine.status == 0
    yield engine


def test_golden_vectors(engine: Engine, vectors: dict) -> None:
    """Every stage, bit for bit, as the numpy implementation has it: features to probabilities."""
    for case in vectors["cases"]:
        h, experts, missing = engine.hidden(case["x"])
        adapter = np.array(vectors["adapters"][case["adapter"]], dtype=np.int16)
        head = np.array(vectors["heads"][case["head"]], dtype=np.int16)
        assert (h.tolist(), experts, missing) == (case["hidden"], case["experts"], 0)
        assert engine.z(h, None).tolist() == case["z_plain"]
        assert engine.z(h, adapter).tolist() == case["z"]
        assert engine.classify(head, engine.z(h, adapter)) == (case["logits"], case["p"])


def test_golden_exp_and_ln(library: ctypes.CDLL, vectors: dict) -> None:
    """exp by the table exactly; ln within 2 units of 1/8192 of the true value."""
    for distance, value in vectors["exp_neg_q15"].items():
        assert library.swn_exp_neg_q15(int(distance)) == value
    for argument, value in vectors["ln_q13"].items():
        assert abs(library.swn_ln_q13(ctypes.c_uint32(int(argument))) - value) <= 2


def test_golden_top_k_streams(library: ctypes.CDLL, vectors: dict) -> None:
    """Choice, count, Rice parameter and bits of a TOP_K_SIGN update equal an exhaustive search's."""
    for case in vectors["top_k"]:
        delta = np.array(case["delta"], dtype=np.int16)
        out = np.zeros(256, dtype=np.uint8)
        chosen = Change()
        size = library.swn_top_k_encode(
            Engine._p(delta), ctypes.c_size_t(0), ctypes.c_size_t(delta.size), 1, Engine._p(out),
            ctypes.c_size_t(case["room"]), ctypes.byref(chosen),
        )  # fmt: skip
        assert out[:size].tobytes().hex() == case["stream"]
        assert (chosen.rice_k, chosen.scale_head, chosen.count) == (
            case["rice_k"], case["magnitude"], len(case["chosen"]),
        )  # fmt: skip
        steps = np.array(chosen.steps)
        assert np.flatnonzero(steps).tolist() == case["chosen"]
        assert np.array_equal(steps[case["chosen"]], np.sign(delta[case["chosen"]]))


def test_the_shipped_model_runs_as_the_reference_says(library: ctypes.CDLL) -> None:
    """The committed model opens, its accessors agree with Python's, and it computes what numpy computes."""
    image = (FIRMWARE.parent / "swarm" / "model" / "base_model.swm").read_bytes()
    engine, reference = Engine(library, image), Reference(image)
    assert engine.status == 0
    rng = np.random.Generator(np.random.PCG64(5))
    for _ in range(5):
        x = rng.integers(-128, 128, layout.WEATHER.features)
        wanted, experts = reference.hidden(x)
        h, chosen, missing = engine.hidden(x.tolist())
        assert (h.tolist(), chosen, missing) == (wanted.tolist(), experts, 0)
        assert engine.z(h, None).tolist() == reference.z(wanted, None).tolist()
    adapter, head = np.zeros(512, dtype=np.int16), np.zeros(99, dtype=np.int16)
    library.swn_model_adapter(engine.view, Engine._p(adapter))
    assert np.array_equal(adapter, reference.opened.adapter())
    assert not adapter[256:].any() and adapter[:256].any()
    for context, known in ((0, 1), (1, 1), (2, 0), (255, 0)):
        assert library.swn_model_head(engine.view, ctypes.c_uint8(context), Engine._p(head)) == known
        assert np.array_equal(head, reference.opened.head(context))


def test_a_remote_expert_is_left_out_and_counted(library: ctypes.CDLL) -> None:
    """Inputs whose gate picks a remote expert report it; the others give the same as the whole model."""
    whole = Engine(library, container.random_model(3))
    partial = Engine(library, container.random_model(3, remote=(0, 5)))
    assert (whole.status, partial.status) == (0, 0)
    rng = np.random.Generator(np.random.PCG64(1))
    met = 0
    for _ in range(60):
        x = rng.integers(-128, 128, layout.WEATHER.features).tolist()
        (h, top, _), (h_partial, top_partial, missing) = whole.hidden(x), partial.hidden(x)
        assert top == top_partial
        assert missing == len({0, 5} & set(top))
        assert missing or np.array_equal(h, h_partial)
        met += missing
    assert met > 0


def float_gradient(
    reference: Reference, parameters: np.ndarray, h: np.ndarray, z: np.ndarray, label: int
) -> np.ndarray:
    """dLoss/dparameters in real units, differentiated by hand in float64 where the int8 forward pass led."""
    a = parameters[:256].reshape(4, 64) / layout.ADAPTER_ONE
    b = parameters[256:512].reshape(64, 4) / layout.ADAPTER_ONE
    head = parameters[512:].reshape(3, 33) / layout.HEAD_ONE
    weights, _, mult, shift = reference.matrix(1)
    slope = weights * mult[:, None] / 2.0**shift / layout.Z_ONE
    low = np.floor(a @ h)
    values = head[:, :32] @ z + head[:, 32]
    p = np.exp(values - values.max())
    error = p / p.sum() - np.eye(3)[label]
    grad_h = slope.T @ (head[:, :32].T @ error)
    adapted = h + np.floor(b @ low)
    grad_h[(adapted <= -128) | (adapted >= 127)] = 0
    grad_head = np.concatenate([np.outer(error, z), error[:, None]], axis=1)
    return np.concatenate(
        [np.outer(b.T @ grad_h, h).ravel(), np.outer(grad_h, low).ravel(), grad_head.ravel()]
    )


def test_the_default_learning_rates_are_the_specified_ones(engine: Engine) -> None:
    """docs/SPEC.md, section 3: 1/64 in the head, 1/1024 in the adapter, classes not weighed."""
    train = engine.train(np.zeros(611), 1)
    assert (train.rate_head / 1024, train.rate_adapter / 4096) == (1 / 64, 1 / 1024)
    assert list(train.class_weight) == [64] * layout.CLASSES_MAX


def test_mean_training_step_is_the_float_gradient(engine: Engine) -> None:
    """Stochastic rounding: over many seeds the mean step is rate * gradient, within 2 % of its length."""
    reference = Reference(engine.words.tobytes()[: len(container.random_model(7))])
    rng = np.random.Generator(np.random.PCG64(8))
    parameters = np.concatenate(
        [rng.integers(-900, 900, 256), rng.integers(-250, 250, 256), rng.integers(-120, 120, 99)]
    )
    checked = 0
    for label in (0, 1, 2):
        h, _, _ = engine.hidden(rng.integers(-40, 40, layout.WEATHER.features).tolist())
        z = engine.z(h, parameters[:512].astype(np.int16))
        if np.abs(z).max() >= 127:
            continue
        steps = np.zeros(layout.WEATHER.local_size)
        seeds = 300
        for seed in range(seeds):
            train = engine.train(parameters, seed)
            train.rate_adapter = train.rate_head = 128
            engine.library.swn_train_step(ctypes.byref(train), Engine._p(h), ctypes.c_uint8(label))
            steps += np.array(train.parameters)[: len(parameters)] - parameters
        wanted = -float_gradient(reference, parameters, h.astype(float), z / layout.Z_ONE, label)
        wanted[:512] *= 128 / 4096 * layout.ADAPTER_ONE
        wanted[512:] *= 128 / 1024 * layout.HEAD_ONE
        for part in (slice(0, 256), slice(256, 512), slice(512, 611)):
            error = np.linalg.norm(steps[part] / seeds - wanted[part]) / np.linalg.norm(wanted[part])
            assert error < 0.02, f"label {label}, {part}: {error:.3f}"
        checked += 1
    assert checked >= 2


def test_engine_program_under_sanitizers(tmp_path: Path, vectors: dict) -> None:
    """test_engine.c, address and undefined-behaviour sanitizers: 6000 hostile images, learning, extremes."""
    program, image = tmp_path / "test_engine", tmp_path / "random.swm"
    image.write_bytes(zlib.decompress(base64.b64decode(vectors["image_zlib_base64"])))
    sanitize = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    test = FIRMWARE / "tests" / "test_engine.c"
    subprocess.run(["gcc", *FLAGS, *sanitize, *map(str, SOURCES), str(test), "-o", str(program)], check=True)
    done = subprocess.run([str(program), str(image)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "engine ok" in done.stdout


def test_arithmetic_does_not_depend_on_the_compiler(tmp_path: Path, vectors: dict) -> None:
    """The digest of all outputs is the same at -O0, at -O3 and with the spelled-out shift."""
    image = tmp_path / "random.swm"
    image.write_bytes(zlib.decompress(base64.b64decode(vectors["image_zlib_base64"])))
    digests = set()
    for number, options in enumerate((["-O0"], ["-O3", "-march=native"], ["-O2", "-DSWN_SHIFT_SPELLED_OUT"])):
        program = tmp_path / f"test_engine_{number}"
        test = str(FIRMWARE / "tests" / "test_engine.c")
        subprocess.run(["gcc", *FLAGS, *options, *map(str, SOURCES), test, "-o", str(program)], check=True)
        digests.add(
            subprocess.run([program, image, "digest"], capture_output=True, text=True, check=True).stdout
        )
    assert len(digests) == 1
    assert re.fullmatch(r"[0-9a-f]{8}\n", digests.pop())


def test_sizes_are_the_same_in_c_and_python() -> None:
    """Each SWN_ size of swn_model.h has its twin in layout.py."""
    header = (FIRMWARE / "core" / "swn_model.h").read_text()
    sizes = {name: int(value) for name, value in re.findall(r"#define SWN_(\w+) (\d+)", header)}
    for name in ("CLASSES_MAX", "FEATURES_MAX", "HIDDEN", "Z", "RANK", "EXPERTS", "TOP_K", "CONTEXT_MAX",
                 "HEAD_SIZE_MAX", "LOCAL_SIZE_MAX", "ADAPTER_SIZE", "ADAPTER_B_OFFSET"):  # fmt: skip
        assert sizes[name] == getattr(layout, name), name


def test_logits_reference_matches_hand_computation() -> None:
    """One head row worked out by hand, so that the reference itself is anchored."""
    head, z = np.zeros(99, dtype=np.int64), np.zeros(32, dtype=np.int64)
    head[0], head[32], z[0] = 256, 128, 32
    assert logits(head, z).tolist() == [256 * 32 + 128 * 32, 0, 0]
