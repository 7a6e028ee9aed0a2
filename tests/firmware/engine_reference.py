"""The engine once more in plain numpy, written from docs/SPEC.md, for the golden vectors.

`python -m tests.firmware.engine_reference` writes tests/vectors/engine.json. The file is frozen: a change of
its numbers is a change of the engine's arithmetic, and so of the container's version.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from pathlib import Path

import numpy as np

from swarm.effects import Malformed
from swarm.model import container, layout

VECTORS = Path(__file__).parents[1] / "vectors" / "engine.json"


def floor_shift(value: np.ndarray | int, bits: int) -> np.ndarray:
    return np.floor_divide(np.asarray(value, dtype=np.int64), 1 << bits)


def exp_neg_q15(distance: int) -> int:
    """exp(-distance / 8192) * 32768 by the table of 33 powers of two, linear between them."""
    if distance >= 11 << 13:
        return 0
    t = distance * 11818 >> 13
    low, high = (round(32768 * 2 ** (-((t >> 8 & 31) + i) / 32)) for i in (1, 0))
    return (high - ((high - low) * (t & 255) + 128) // 256) >> (t >> 13)


class Reference:
    """One image, decoded field by field from its bytes."""

    def __init__(self, image: bytes) -> None:
        opened = container.read(image)
        assert not isinstance(opened, Malformed), opened
        self.image = image
        self.opened = opened

    def matrix(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        t = self.opened.tensors[number]
        weights = np.zeros((t.rows, t.cols), dtype=np.int64)
        for r in range(t.rows):
            for c in range(t.cols):
                if t.type == 1:
                    word = t.plane + ((r // 2) * (t.cols // 4) + c // 4) * 4
                    value = int.from_bytes(self.image[word : word + 4], "little")
                    weights[r, c] = (value >> (4 * (c % 4) + 16 * (r % 2)) & 15) - 8
                else:
                    weights[r, c] = np.frombuffer(self.image, "i1", 1, t.plane + r * t.cols + c)[0]
        bias = np.frombuffer(self.image, "<i4", t.rows, t.scale).astype(np.int64)
        mult = np.frombuffer(self.image, "<u2", t.rows, t.scale + 4 * t.rows).astype(np.int64)
        return weights, bias, mult, t.shift

    def product(self, number: int, x: np.ndarray) -> np.ndarray:
        weights, bias, mult, shift = self.matrix(number)
        bounded = np.clip(weights @ x + bias, -524287, 524287)
        return floor_shift(bounded * mult + (1 << (shift - 1)), shift)

    def hidden(self, x: np.ndarray) -> tuple[np.ndarray, list[int]]:
        padded = np.zeros(-(-len(x) // 16) * 16, dtype=np.int64)
        padded[: len(x)] = x
        h0 = np.clip(self.product(0, padded), 0, 127)
        h = np.clip(h0 + np.clip(self.product(3, h0), 0, 127), -128, 127)
        logits = self.product(2, h0)
        order = sorted(range(len(logits)), key=lambda i: (-int(logits[i]), i))[:2]
        powers = [exp_neg_q15(int(logits[order[0]] - logits[i])) for i in order]
        second = powers[1] * 256 // sum(powers)
        for expert, gain in zip(order, (256 - second, second), strict=True):
            out = np.clip(self.product(4 + expert, h0), 0, 127)
            # A gain of exactly 1 (256) leaves the value, which the rounded product does as well.
            h = np.clip(h + floor_shift(out * gain + 128, 8), -128, 127)
        return h, order

    def z(self, h: np.ndarray, adapter: np.ndarray | None) -> np.ndarray:
        if adapter is not None:
            a, b = (
                adapter[:256].reshape(4, 64).astype(np.int64),
                adapter[256:].reshape(64, 4).astype(np.int64),
            )
            low = np.clip(floor_shift(a @ h, 12), -32768, 32767)
            h = np.clip(h + floor_shift(b @ low, 12), -128, 127)
        return np.clip(self.product(1, h), -128, 127)


def logits(head: np.ndarray, z: np.ndarray) -> np.ndarray:
    rows = head.reshape(-1, 33).astype(np.int64)
    return rows[:, :32] @ z + rows[:, 32] * 32


def softmax(values: np.ndarray) -> list[int]:
    """Probabilities in 1/255: rounded, the largest takes the rest."""
    powers = [exp_neg_q15(int(max(values) - v)) for v in values]
    fine = [(p * 32768 + sum(powers) // 2) // sum(powers) for p in powers]
    out = [(p * 255 + 16384) >> 15 for p in fine]
    out[fine.index(max(fine))] += 255 - sum(out)
    return out


def top_k_stream(delta: np.ndarray, room: int) -> tuple[bytes, int, int, list[int]]:
    """The stream as a string of bits, tried for every count from the largest: slow and obviously right."""
    order = sorted((i for i in range(len(delta)) if delta[i]), key=lambda i: (-abs(int(delta[i])), i))
    for count in range(min(len(order), 255), 0, -1):
        chosen = sorted(order[:count])
        best = ""
        best_k = 0
        for k in range(10):
            bits, previous = "", -1
            for i in chosen:
                gap = i - previous - 1
                bits += "1" * (gap >> k) + "0" + (format(gap % (1 << k), f"0{k}b") if k else "")
                bits += "1" if delta[i] < 0 else "0"
                previous = i
            if k == 0 or len(bits) < len(best):
                best, best_k = bits, k
        size = -(-len(best) // 8)
        if size <= room:
            magnitude = (sum(abs(int(delta[i])) for i in chosen) + count // 2) // count
            return int(best.ljust(size * 8, "0"), 2).to_bytes(size, "big"), best_k, magnitude, chosen
    return b"", 0, 0, []


def make_vectors() -> dict[str, object]:
    """Inputs from a fixed generator, outputs from the reference."""
    rng = np.random.Generator(np.random.PCG64(2026))
    image = container.random_model(7)
    reference = Reference(image)
    adapters = [rng.integers(-spread, spread + 1, layout.ADAPTER_SIZE) for spread in (200, 1500, 32767)]
    heads = [rng.integers(-spread, spread + 1, layout.WEATHER.head_size) for spread in (60, 400, 32767)]
    cases = []
    for number in range(30):
        spread = (127, 60, 20)[number % 3]
        x = rng.integers(-spread - 1, spread + 1, layout.WEATHER.features)
        h, experts = reference.hidden(x)
        z_plain = reference.z(h, None)
        z = reference.z(h, adapters[number % 3])
        values = logits(heads[number // 3 % 3], z)
        cases.append(
            {
                "x": x.tolist(),
                "adapter": number % 3,
                "head": number // 3 % 3,
                "hidden": h.tolist(),
                "experts": experts,
                "z_plain": z_plain.tolist(),
                "z": z.tolist(),
                "logits": values.tolist(),
                "p": softmax(values),
            }
        )
    streams = []
    for room in (0, 1, 5, 20, 41, 104, 211):
        delta = np.rint(rng.standard_t(2, layout.WEATHER.local_size) * 40).clip(-32768, 32767).astype(int)
        delta[rng.random(layout.WEATHER.local_size) < 0.3] = 0
        data, rice_k, magnitude, chosen = top_k_stream(delta, room)
        streams.append(
            {
                "delta": delta.tolist(),
                "room": room,
                "stream": data.hex(),
                "rice_k": rice_k,
                "magnitude": magnitude,
                "chosen": chosen,
            }
        )
    return {
        "source": "tests/firmware/engine_reference.py (numpy, written from docs/SPEC.md)",
        "image_zlib_base64": base64.b64encode(zlib.compress(image, 9)).decode(),
        "adapters": [a.tolist() for a in adapters],
        "heads": [h.tolist() for h in heads],
        "exp_neg_q15": {str(d): exp_neg_q15(d) for d in (0, 1, 100, 8192, 12345, 50000, 90111, 90112)},
        "ln_q13": {str(v): round(8192 * math.log(v)) for v in (1, 2, 3, 10, 1000, 32768, 98304)},
        "cases": cases,
        "top_k": streams,
    }


if __name__ == "__main__":
    VECTORS.write_text(json.dumps(make_vectors(), separators=(",", ":")) + "\n")
