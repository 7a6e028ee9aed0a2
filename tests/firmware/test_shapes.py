"""Containers of any shape, 2..10 classes, 1..256 features, through the firmware and the gateway's codecs."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.effects import Malformed
from swarm.federation.round import Refused, Round
from swarm.federation.strategy import FlowerStrategy
from swarm.model import container
from swarm.model.container_format import TENSOR
from swarm.model.layout import ADAPTER_SIZE, WEATHER, Shape
from swarm.model.vector import Mirror
from swarm.node import Model
from swarm.wire import app
from tests.firmware.engine_reference import Reference, logits, softmax
from tests.firmware.fleet import Fleet

FIRMWARE = Path(__file__).parents[2] / "node_firmware"
FLAGS = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
SANITIZE = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
WIDE = Shape(classes=10, features=256)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 10), st.integers(1, 256), st.integers(0, 99))
def test_any_shape_computes_what_the_reference_does(classes: int, features: int, seed: int) -> None:
    """Hidden vector, experts, z, probabilities, bit for bit; and both readers find the same shape."""
    shape = Shape(classes, features)
    image = container.random_model(seed, shape=shape)
    model, reference = Model(image), Reference(image)
    opened = container.read(image)
    assert isinstance(opened, container.Container) and opened.shape == model.shape == shape
    rng = np.random.Generator(np.random.PCG64(seed))
    x = rng.integers(-128, 128, (3, features))
    adapter = rng.integers(-900, 900, ADAPTER_SIZE)
    head = model.base_head(0)
    assert np.array_equal(head, opened.head(0)) and len(head) == shape.head_size
    p = model.infer(x, head, adapter)
    for row in range(3):
        hidden, experts = reference.hidden(x[row])
        z = reference.z(hidden, adapter)
        assert np.array_equal(model.hidden(x)[row], hidden)
        assert model.experts(x)[row].tolist() == experts
        assert np.array_equal(model.project(model.hidden(x), adapter)[row], z)
        assert p[row].tolist() == softmax(logits(head, z))
        assert p[row].sum() == 255 and len(p[row]) == classes


@pytest.mark.parametrize("shape", [Shape(2, 1), Shape(7, 64), WIDE], ids=str)
def test_firmware_of_any_shape_under_sanitizers(tmp_path: Path, shape: Shape) -> None:
    """test_observe.c (samples, updates, questions, blocks), test_engine.c (hostile images): other shapes."""
    image = tmp_path / "shape.swm"
    image.write_bytes(container.random_model(3, shape=shape))
    core = sorted(str(path) for path in (FIRMWARE / "core").glob("swn_*.c"))
    for name in ("test_observe", "test_engine"):
        program = tmp_path / name
        include = [f"-I{FIRMWARE / folder}" for folder in ("core", "tests")]
        test = str(FIRMWARE / "tests" / f"{name}.c")
        subprocess.run(["gcc", *FLAGS, *SANITIZE, *include, *core, test, "-o", str(program)], check=True)
        done = subprocess.run([str(program), str(image)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_sizes_outside_the_limits_are_refused() -> None:
    """By the writer, by the Python reader and by the engine alike."""
    for classes, features in ((1, 5), (11, 5), (3, 0), (3, 257)):
        with pytest.raises(ValueError, match=r"a model (has|takes)"):
            Shape(classes, features)
    image = bytearray(container.random_model(4, shape=Shape(4, 20)))
    opened = container.read(bytes(image))
    assert isinstance(opened, container.Container)
    heads = [number for number, tensor in enumerate(opened.tensors) if tensor.role == 3]
    at = int.from_bytes(image[36:40], "little") + heads[-1] * TENSOR.size + 2
    image[at : at + 2] = (3).to_bytes(2, "little")  # one head says three classes, the others four
    repaired = with_crc(bytes(image))
    found = container.read(repaired)
    assert isinstance(found, Malformed) and found.reason == "tensor"
    with pytest.raises(ValueError, match="tensor"):
        Model(repaired)


def with_crc(image: bytes) -> bytes:
    """The image with the CRC of header and directories made right."""
    import zlib

    data_at = int.from_bytes(image[44:48], "little")
    crc = zlib.crc32(image[64:data_at], zlib.crc32(image[:60]))
    return image[:60] + crc.to_bytes(4, "little") + image[64:]


@pytest.mark.parametrize("shape", [Shape(5, 30), WIDE], ids=str)
def test_class_means_teach_any_number_of_classes_in_frames_of_51_bytes(shape: Shape) -> None:
    """From a random head to a useful one; with ten classes a node needs several rounds to say all."""
    fleet = Fleet(shape, count=40)
    strategy = FlowerStrategy("prototypes", shape, {"gain_min": 0.0})
    before = fleet.accuracy()
    for number in range(1, 5):
        fleet.observe(30)
        made = fleet.round(number, app.RoundMode.PROTOTYPES)
        fleet.close(made, strategy, app.BlockKind.HEADS)
    assert fleet.accuracy() > before + 0.2
    assert strategy.rounds == 4


def test_signs_travel_for_ten_classes_and_the_adapter() -> None:
    """TOP_K_SIGN with coordinates up to 841, FULL and DELTA blocks of ten classes: node equals mirror."""
    fleet = Fleet(WIDE, payload_max=222)
    fleet.observe(40)
    before = fleet.accuracy()
    for number, kind in enumerate((app.BlockKind.FULL, app.BlockKind.DELTA, app.BlockKind.DELTA), start=1):
        made = fleet.round(number, app.RoundMode.TOP_K_SIGN)
        fleet.close(made, FlowerStrategy("FedAvg", WIDE), kind)
    assert fleet.accuracy() > before + 0.1


def test_an_update_of_another_shape_is_implausible() -> None:
    """A class or coordinate that the model does not have: well-formed on the air, refused by the round."""
    narrow = Round(1, app.RoundMode.PROTOTYPES, 0, 255, 0, 9, 9, WEATHER, 2)
    mean = app.ClassMean(3, 1, 1, (0,) * 16)
    assert narrow.on_update("00", 0, app.Prototypes(1, 0, 0, 1, (mean,)), 1) == Refused("implausible")
    assert not isinstance(
        narrow.on_update("00", 0, app.Prototypes(1, 0, 0, 1, (replace(mean, label=2),)), 1), Refused
    )
    signs = Round(1, app.RoundMode.TOP_K_SIGN, 0, 255, 0, 9, 9, WEATHER, 2)
    message = app.TopKSign(1, 0, 0, 1, 5, 9, (WEATHER.local_size,), (False,))
    assert signs.on_update("00", 0, message, 1) == Refused("implausible")
    assert not isinstance(signs.on_update("00", 0, replace(message, indices=(610,)), 1), Refused)


def test_observing_needs_the_shape_of_the_model() -> None:
    """One line says what is wrong with a row of features of another size; labels need a known sample."""
    fleet = Fleet(Shape(4, 9), count=2)
    with pytest.raises(ValueError, match=r"\[n, 9\]"):
        fleet.nodes.observe(0, 1, np.zeros((2, 56), np.int8))
    fleet.nodes.observe(0, 1, np.zeros((1, 9), np.int8), [1])
    assert fleet.nodes.label(1, [0, 4]) == 0  # node 0 has no such sample, the model no such class
    assert fleet.nodes.label(1, [0, 3]) == 1
    assert fleet.nodes.labelled.tolist() == [0, 1]


def test_mirrors_of_any_shape_survive_their_blob() -> None:
    """Classes are in the blob; blobs of before there was a choice hold a zero there and mean three."""
    rng = np.random.Generator(np.random.PCG64(1))
    for classes in (2, 3, 10):
        heads = rng.integers(-500, 500, (2, 33 * classes)).astype(np.int16)
        mirror = Mirror(4, rng.integers(-500, 500, ADAPTER_SIZE).astype(np.int16), heads)
        blob = mirror.to_bytes()
        back = Mirror.from_bytes(blob)
        assert isinstance(back, tuple) and back[0].digest() == mirror.digest() and back[0].classes == classes
        old = Mirror.from_bytes(blob[:7] + b"\x00" + blob[8:])
        assert isinstance(old, tuple) == (classes == 3)
        assert isinstance(Mirror.from_bytes(blob[:7] + b"\x0b" + blob[8:]), Malformed)
