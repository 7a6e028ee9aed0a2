"""Spoken digits of people whom the shipped model never heard.

Three speakers are public (here: natives).  Three others (here: with an accent) own eight nodes each; a node
has heard five of the ten digits, and 20 clips are labelled.  The test asks each node for all digits.  `wake`
scores the same answers as a detector of one digit against all others.  The control `voice_left_out`: another
speaker has one node with 50 clips of all digits; others' nodes learn together, this one takes no part, and
only it is scored.

Data: espeak-ng's voices (`speech`), or real recordings in a file .npz without pickled objects:

    label     int[n], 0 to 9          speaker   int[n] or text[n], at least four different ones
    clips     float or int16[n, samples], padded with zeros, with rate (Hz, default 8000), or
    features  float[n, up to 256]

Of each speaker's clips of a digit, in the file's order, the first fifth are test, the next tenth validation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simulations.tasks.npz import read_npz
from simulations.tasks.speech import (
    NATIVES,
    PROSODIES,
    RATE_HZ,
    SPEAKERS,
    WORDS,
    heard,
    log_mel,
    resampled,
    spoken,
)
from simulations.tasks.task import FEATURES_MAX, PUBLIC_NODE, Samples, Task, TaskError, concatenate
from swarm.prng import Prng

__all__ = ["left_out", "load", "load_left_out", "load_wake", "voice", "wake"]

F32 = NDArray[np.float32]

PUBLIC_SPEAKERS, NEW_SPEAKERS = 3, 3
NODES_PER_SPEAKER = 8
DIGITS_PER_NODE = 5
LABELS, VALIDATION_LABELS, TEST_LABELS = 20, 20, 50
OWN_CLIPS = 50
COPIES = 6
"""Different hearings of each synthetic clip."""
WAKE_DIGIT = 7
TEST_PROSODIES, VALIDATION_PROSODIES = (0, 1), (2,)


@dataclass(frozen=True, eq=False)
class _Clips:
    """All clips: features, digit, speaker, and part (0 training, 1 validation, 2 test)."""

    x: F32
    digit: NDArray[np.uint8]
    speaker: NDArray[np.int64]
    part: NDArray[np.int64]

    def pool(self, speaker: int, part: int, digits: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        rows = (self.speaker == speaker) & (self.part == part)
        return np.flatnonzero(rows if digits is None else rows & np.isin(self.digit, digits))

    def rows(self, chosen: NDArray[np.int64], node: int) -> Samples:
        zeros = np.zeros(len(chosen), np.uint8)
        return Samples(self.x[chosen], self.digit[chosen], zeros, np.full(len(chosen), node, np.int32))


def _synthetic(seed: int, speakers: NDArray[np.int64]) -> _Clips:
    rng = Prng(seed).child("hearing").numpy()
    x, digit, who, part = [], [], [], []
    for number, speaker in enumerate(speakers.tolist()):
        for word in range(len(WORDS)):
            for prosody in range(len(PROSODIES)):
                clip = spoken(speaker, word, prosody)
                x += [log_mel(heard(clip, rng)) for _ in range(COPIES)]
                kind = 2 if prosody in TEST_PROSODIES else 1 if prosody in VALIDATION_PROSODIES else 0
                digit += [word] * COPIES
                who += [number] * COPIES
                part += [kind] * COPIES
    return _Clips(np.stack(x), np.array(digit, np.uint8), np.array(who), np.array(part))


def _recorded(path: Path) -> _Clips:
    arrays = read_npz(path, ("label", "speaker"))
    label = arrays["label"]
    if "features" in arrays:
        x = np.asarray(arrays["features"], dtype=np.float32)
        if x.ndim != 2 or not 1 <= x.shape[1] <= FEATURES_MAX:
            raise TaskError(f"{path}: features: shape {list(x.shape)}; write [clips, 1 to {FEATURES_MAX}]")
    elif "clips" in arrays and arrays["clips"].ndim == 2:
        raw = arrays["clips"]
        scale = 32768.0 if raw.dtype.kind == "i" else 1.0
        step = float(arrays["rate"]) / RATE_HZ if "rate" in arrays else 8000.0 / RATE_HZ
        x = np.stack([log_mel(resampled(_trimmed(clip / scale), step)) for clip in raw])
    else:
        raise TaskError(f"{path}: neither features [n, d] nor clips [n, samples] is in it")
    speaker = np.unique(arrays["speaker"], return_inverse=True)[1].astype(np.int64)
    if len({len(x), len(label), len(speaker)}) != 1 or not np.isfinite(x).all():
        raise TaskError(
            f"{path}: {len(x)} clips, {len(label)} labels, {len(speaker)} speakers, or not finite"
        )
    if label.dtype.kind not in "iu" or label.min() < 0 or label.max() >= len(WORDS):
        raise TaskError(f"{path}: label: must be whole numbers from 0 to 9")
    part = np.zeros(len(x), np.int64)
    for who in np.unique(speaker):
        for digit in np.unique(label):
            rows = np.flatnonzero((speaker == who) & (label == digit))
            part[rows[: -(-len(rows) // 5)]] = 2
            part[rows[-(-len(rows) // 5) : -(-len(rows) * 3 // 10)]] = 1
    return _Clips(x, label.astype(np.uint8), speaker, part)


def _trimmed(clip: NDArray[np.floating]) -> F32:
    """Without the zeros that pad it."""
    sound = np.flatnonzero(clip)
    return np.asarray(clip[: sound[-1] + 1 if len(sound) else 1], dtype=np.float32)


def _picked(pool: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return rng.choice(pool, count, replace=len(pool) < count)


def _owner_parts(
    clips: _Clips, speaker: int, node: int, digits: NDArray[np.int64], count: int, rng: np.random.Generator
) -> list[Samples]:
    """Training, validation and test rows of one node."""
    pools = (clips.pool(speaker, 0, digits), clips.pool(speaker, 1), clips.pool(speaker, 2))
    counts = (count, VALIDATION_LABELS, TEST_LABELS)
    if not all(map(len, pools)):
        raise TaskError("voice: a speaker has no clip of the digits asked for; five of each digit are needed")
    return [clips.rows(_picked(pool, wanted, rng), node) for pool, wanted in zip(pools, counts, strict=True)]


def _task(clips: _Clips, nodes: int, seed: int, *, with_left_out: bool, shuffled: bool = False) -> Task:
    prng = Prng(seed).child("voice")
    speakers = len(np.unique(clips.speaker))
    if speakers < 4:
        raise TaskError(f"voice: {speakers} speakers; at least four are needed: public ones and new ones")
    order = prng.child("split").numpy().permutation(speakers) if shuffled else np.arange(speakers)
    public_count = min(PUBLIC_SPEAKERS, speakers // 2)
    new = order[public_count : public_count + NEW_SPEAKERS]
    rng = prng.child("labels").numpy()
    known = np.isin(clips.speaker, order[:public_count]) & (clips.part == 0)
    owners = [
        (int(who), rng.permutation(10)[:DIGITS_PER_NODE]) for _ in range(NODES_PER_SPEAKER) for who in new
    ]
    parts: tuple[list[Samples], ...] = ([], [], [])
    silent: tuple[int, ...] = ()
    if with_left_out:
        owners = [owner for owner in owners if owner[0] != new[-1]][: max(nodes - 1, 1)]
        silent = (len(owners),)
    for node, (who, digits) in enumerate(owners[:nodes]):
        own = _owner_parts(clips, who, node, digits, LABELS, rng)
        for part, rows in zip(parts[: 1 if with_left_out else 3], own, strict=False):
            part.append(rows)
    if with_left_out:
        alone = _owner_parts(clips, int(new[-1]), len(owners), np.arange(10), OWN_CLIPS, rng)
        for part, rows in zip(parts, alone, strict=True):
            part.append(rows)
    return Task(
        name="voice_left_out" if with_left_out else "voice",
        classes=WORDS,
        contexts=("voice",),
        metric="accuracy",
        public=replace(
            clips.rows(np.flatnonzero(known), PUBLIC_NODE),
            node=(PUBLIC_NODE - clips.speaker[known]).astype(np.int32),
        ),
        train=concatenate(parts[0]),
        validation=concatenate(parts[1]),
        test=concatenate(parts[2]),
        node_context=np.zeros(min(len(owners), nodes) + len(silent), np.uint8),
        negative_control=with_left_out,
        wake_class=WAKE_DIGIT,
        silent=silent,
        new_users=True,
    )


def _pool(seed: int) -> _Clips:
    """Natives first, who are public, then those with an accent."""
    rng = Prng(seed).child("speakers").numpy()
    natives = rng.permutation(NATIVES)[:PUBLIC_SPEAKERS]
    others = NATIVES + rng.permutation(len(SPEAKERS) - NATIVES)[:NEW_SPEAKERS]
    return _synthetic(seed, np.concatenate([natives, others]))


def _as_wake(task: Task) -> Task:
    return replace(task, name="wake", metric="wake_word")


def voice(nodes: int, seed: int) -> Task:
    """Ten digits of new synthetic speakers."""
    return _task(_pool(seed), nodes, seed, with_left_out=False)


def wake(nodes: int, seed: int) -> Task:
    """One digit against all others, of new synthetic speakers."""
    return _as_wake(voice(nodes, seed))


def left_out(nodes: int, seed: int) -> Task:
    """The control: a synthetic speaker with clips of all digits, who takes no part."""
    return _task(_pool(seed), nodes, seed, with_left_out=True)


def load(path: Path, nodes: int, seed: int) -> Task:
    """Ten digits of new speakers of a file; TaskError when it is unusable."""
    return _task(_recorded(path), nodes, seed, with_left_out=False, shuffled=True)


def load_wake(path: Path, nodes: int, seed: int) -> Task:
    """One digit against all others, from a file."""
    return _as_wake(load(path, nodes, seed))


def load_left_out(path: Path, nodes: int, seed: int) -> Task:
    """The control from a file."""
    return _task(_recorded(path), nodes, seed, with_left_out=True, shuffled=True)
