"""A cell's vector in Flower's records: one flat array, or any arrays that hold as many numbers."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict
from numpy.typing import NDArray

from gateway.upstream.driver import CellStopped
from swarm.model.vector import Float64

__all__ = ["EXAMPLES", "METRICS", "FlatArray", "Layout", "arrays_of", "flat_record", "vector_of"]

EXAMPLES, METRICS = "num-examples", "metrics"
"""What Flower's strategies weigh by, and the record that holds it."""
_VECTOR = "vector"


class FlatArray(Array):  # type: ignore[misc]  # mypy does not follow flwr
    """An Array made from numbers that are at hand: its bytes are written only for whoever asks for them.

    For grids inside one process only: on Flower's wire an object is named by its class.
    """

    def __init__(self, values: NDArray[Any]) -> None:
        own = {"_values": values, "dtype": str(values.dtype), "shape": values.shape, "stype": "numpy.ndarray"}
        self.__dict__.update(own)

    @property
    def data(self) -> bytes:
        """The .npy bytes."""
        buffer = io.BytesIO()
        np.save(buffer, self.__dict__["_values"], allow_pickle=False)
        return buffer.getvalue()

    def numpy(self) -> NDArray[Any]:
        """The values; the caller may write into them."""
        return cast(NDArray[Any], self.__dict__["_values"].copy())


@dataclass(frozen=True, slots=True)
class Layout:
    """How a vector lies in a record: the record's name, and (key, shape, dtype) of each array in order."""

    record: str
    arrays: tuple[tuple[str, tuple[int, ...], str], ...]

    @staticmethod
    def of(content: RecordDict) -> Layout:
        """That of a train message."""
        record = arrays_of(content)
        arrays = tuple((key, tuple(array.shape), array.dtype) for key, array in record.items())
        return Layout(next(iter(content.array_records)), arrays)

    def fill(self, vector: Float64, make: Callable[[NDArray[Any]], Array] = FlatArray) -> ArrayRecord:
        """The vector in these arrays."""
        record, start = ArrayRecord(), 0
        for key, shape, dtype in self.arrays:
            size = math.prod(shape)
            record[key] = make(vector[start : start + size].reshape(shape).astype(dtype, copy=False))
            start += size
        return record


def flat_record(vector: Float64, make: Callable[[NDArray[Any]], Array] = FlatArray) -> ArrayRecord:
    """A cell's vector as the ArrayRecord that is cheapest to send: one flat array."""
    record = ArrayRecord()
    record[_VECTOR] = make(vector.copy())
    return record


def vector_of(record: Mapping[str, Array]) -> Float64:
    """The arrays of a record, in their order, as one float64 vector."""
    parts = [np.asarray(array.numpy(), np.float64).ravel() for array in record.values()]
    return np.concatenate(parts) if parts else np.zeros(0)


def arrays_of(content: RecordDict) -> ArrayRecord:
    """The one ArrayRecord of a message."""
    records = list(content.array_records.values())
    if len(records) != 1:
        raise CellStopped(f"a train message carries one ArrayRecord, this one has {len(records)}")
    return records[0]
