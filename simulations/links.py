"""The mean and the momentary strength of every node's link to the gateway, in both directions.

What varies is drawn in three ways.  Shadowing (per link) and channel offsets (per link and channel)
are drawn once from the seed.  Frame fading is not drawn at all: it is a hash of (seed, node, key),
where the key names the frame, so that a frame meets the same fate whatever else happened before it
and in whatever order a driver handles events.  The scalar and the array form of the hash are equal.

Real traces say why channels differ: one link of the Saint-Eynard trace received 0.90 of the frames
on 867.3 MHz and 0.01 on 867.5 MHz at the same time.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from simulations.scenario import Hardship, Radio
from swarm.phy.link import path_loss_db
from swarm.prng import Prng

__all__ = ["DISTANCE_MIN_M", "GATEWAY_ANTENNA_DBI", "FrameFate", "Links", "frame_key"]

DISTANCE_MIN_M = 10.0
"""Nearer nodes are treated as being this far: the path-loss law has no meaning in the near field."""

GATEWAY_ANTENNA_DBI = 2.15
"""A half-wave dipole at the gateway, counted in both directions; nodes have 0 dBi."""

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLY_1 = 0xBF58476D1CE4E5B9
_MULTIPLY_2 = 0x94D049BB133111EB

FloatArray = NDArray[np.float64]


def frame_key(dev_or_frame: int, counter: int) -> int:
    """A 64-bit name of a frame from two numbers that identify it."""
    return _mix((dev_or_frame * _GOLDEN + counter + 1) & _MASK)


def _mix(value: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): every input bit moves every output bit."""
    value = ((value ^ (value >> 30)) * _MULTIPLY_1) & _MASK
    value = ((value ^ (value >> 27)) * _MULTIPLY_2) & _MASK
    return value ^ (value >> 31)


def _mix_array(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(_MULTIPLY_1)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(_MULTIPLY_2)
    return value ^ (value >> np.uint64(31))


class FrameFate:
    """Uniform and normal numbers that belong to (seed, node, key) and to nothing else."""

    def __init__(self, seed: int) -> None:
        self._seed = seed & _MASK

    def uniform(self, node: int, key: int, purpose: int) -> float:
        """In (0, 1)."""
        word = _mix(_mix((self._seed + node * _GOLDEN) & _MASK) ^ ((key + purpose * _MULTIPLY_2) & _MASK))
        return ((word >> 11) + 0.5) * 2.0**-53

    def normal(self, node: int, key: int, purpose: int) -> float:
        """Mean 0, standard deviation 1 (Box-Muller)."""
        u = self.uniform(node, key, purpose)
        v = self.uniform(node, key, purpose + 1)
        return math.sqrt(-2.0 * math.log(u)) * math.cos(2.0 * math.pi * v)

    def uniforms(self, nodes: NDArray[np.int64], key: int, purpose: int) -> FloatArray:
        """`uniform` for many nodes at once: the same numbers."""
        seeds = np.uint64(self._seed) + nodes.astype(np.uint64) * np.uint64(_GOLDEN)
        word = _mix_array(_mix_array(seeds) ^ np.uint64((key + purpose * _MULTIPLY_2) & _MASK))
        uniforms: FloatArray = ((word >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
        return uniforms

    def normals(self, nodes: NDArray[np.int64], key: int, purpose: int) -> FloatArray:
        """`normal` for many nodes at once: equal up to the last bit of the mathematics library."""
        u = self.uniforms(nodes, key, purpose)
        v = self.uniforms(nodes, key, purpose + 1)
        normals: FloatArray = np.sqrt(-2.0 * np.log(u)) * np.cos(2.0 * np.pi * v)
        return normals


class Links:
    """One gateway and the nodes around it; gains and losses are the same both ways."""

    FADING, INTERFERENCE = 0, 8
    """Purposes that keep the hashes of one frame apart."""

    def __init__(
        self,
        prng: Prng,
        distances_m: FloatArray,
        radio: Radio,
        hardship: Hardship,
        *,
        frequency_hz: int = 868_000_000,
        foliage_db: FloatArray | float = 0.0,
    ) -> None:
        """Nodes so far from the gateway, behind so much foliage; the mean loss is that at `frequency_hz`."""
        self._prng = prng
        self._hardship = hardship
        self._fate = FrameFate(prng.child("frames").u64())
        self.count = len(distances_m)
        loss = [
            path_loss_db(max(distance, DISTANCE_MIN_M), frequency_hz, radio.path_loss_exponent)
            for distance in distances_m.tolist()
        ]
        shadowing = prng.child("shadowing").numpy().normal(0.0, 1.0, self.count) * hardship.shadowing_db
        self.gain_db: FloatArray = GATEWAY_ANTENNA_DBI - np.array(loss) - foliage_db + shadowing
        """Received minus transmitted power of each link, mean over channels and frames."""
        self._channels: dict[int, FloatArray] = {}
        self._channel_lists: dict[int, list[float]] = {}

    def channel_gain_db(self, frequency_hz: int) -> FloatArray:
        """Static gain of every link on one channel."""
        gains = self._channels.get(frequency_hz)
        if gains is None:
            draws = self._prng.child(f"channel-{frequency_hz}").numpy().normal(0.0, 1.0, self.count)
            gains = self.gain_db + draws * self._hardship.channel_fading_db
            self._channels[frequency_hz] = gains
            self._channel_lists[frequency_hz] = gains.tolist()
        return gains

    def received_dbm(self, node: int, power_dbm: float, frequency_hz: int, key: int) -> float:
        """Power of one frame at the other end of the link of `node`."""
        if frequency_hz not in self._channel_lists:
            self.channel_gain_db(frequency_hz)
        received = power_dbm + self._channel_lists[frequency_hz][node]
        if self._hardship.fading_db:
            received += self._hardship.fading_db * self._fate.normal(node, key, self.FADING)
        return received

    def received_many_dbm(
        self, nodes: NDArray[np.int64], power_dbm: float, frequency_hz: int, key: int
    ) -> FloatArray:
        """`received_dbm` at many nodes at once."""
        received: FloatArray = power_dbm + self.channel_gain_db(frequency_hz)[nodes]
        if self._hardship.fading_db:
            received = received + self._hardship.fading_db * self._fate.normals(nodes, key, self.FADING)
        return received

    def interfered(self, node: int, key: int, *, downlink: bool = False) -> bool:
        """Whether foreign interference destroys this frame."""
        probability = self._loss(downlink)
        return probability > 0.0 and self._fate.uniform(node, key, self.INTERFERENCE) < probability

    def interfered_many(self, nodes: NDArray[np.int64], key: int) -> NDArray[np.bool_]:
        """`interfered` of a downlink at many nodes at once."""
        probability = self._loss(downlink=True)
        if probability <= 0.0:
            return np.zeros(len(nodes), dtype=np.bool_)
        return self._fate.uniforms(nodes, key, self.INTERFERENCE) < probability

    def _loss(self, downlink: bool) -> float:
        """The share of frames that are lost, one way."""
        hardship = self._hardship
        kept = (1.0 - hardship.loss_probability) * (1.0 - hardship.downlink_loss if downlink else 1.0)
        return 1.0 - kept if hardship.downlink_loss and downlink else hardship.loss_probability
