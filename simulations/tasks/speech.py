"""Spoken digits: voices of espeak-ng as stand-ins for speakers, and log-mel pictures of clips.

A speaker is a language variety, a voice and a pitch of espeak-ng.  Each digit is spoken with a few speeds
and inflections; what a node hears is such a clip, played a little faster or slower, from farther or nearer,
with noise.  `log_mel` is what a microcontroller can compute: 16 mel bands by 16 times of three quarters of a
second from the onset, relative to the clip's mean.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import wave
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from simulations.tasks.task import TaskError

__all__ = ["NATIVES", "PROSODIES", "RATE_HZ", "SPEAKERS", "WORDS", "heard", "log_mel", "resampled", "spoken"]

F32 = NDArray[np.float32]

RATE_HZ = 11_025
BANDS, FRAMES = 16, 16
WINDOW, HOP = 256, 128
LENGTH_S = 0.75
LOWEST_HZ, HIGHEST_HZ = 100.0, 4_800.0
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PROSODIES = ((150, 0), (172, 3), (140, -3), (120, 6), (185, -6), (135, -9), (165, 9), (195, 4))
"""Words a minute, and how far the pitch is from the speaker's own."""


@dataclass(frozen=True)
class Speaker:
    """An espeak-ng voice; pitch 0 to 99."""

    voice: str
    pitch: int


SPEAKERS = (
    Speaker("en-us+m3", 35),
    Speaker("en-gb+f2", 60),
    Speaker("en-gb-scotland+m1", 45),
    Speaker("en-us+f4", 70),
    Speaker("en-gb-x-rp+m7", 30),
    Speaker("de+m2", 40),
    Speaker("nl+f3", 62),
    Speaker("sv+m4", 50),
    Speaker("it+f1", 66),
    Speaker("pl+m5", 33),
    Speaker("es+f5", 55),
)
"""Five natives, then six who read English by the rules of their own tongue."""
NATIVES = 5


@cache
def spoken(speaker: int, digit: int, prosody: int) -> F32:
    """The clip as float32[n] at RATE_HZ, about -1 to 1; TaskError without espeak-ng."""
    program = shutil.which("espeak-ng")
    if program is None:
        raise TaskError("task voice needs espeak-ng: apt-get install espeak-ng, or --data FILE.npz")
    who, (speed, inflection) = SPEAKERS[speaker], PROSODIES[prosody]
    command = [program, "-v", who.voice, "-s", str(speed), "-p", str(who.pitch + inflection), "--stdout"]
    made = subprocess.run([*command, WORDS[digit]], capture_output=True, check=False)
    if made.returncode != 0 or len(made.stdout) < 100:
        raise TaskError(f"espeak-ng cannot speak with voice {who.voice}: {made.stderr.decode()[:80].strip()}")
    with wave.open(io.BytesIO(made.stdout)) as clip:
        rate = clip.getframerate()
        raw = np.frombuffer(clip.readframes(clip.getnframes()), "<i2")
    return resampled(raw.astype(np.float32) / 32768.0, rate / RATE_HZ)


def resampled(clip: F32, step: float) -> F32:
    """The clip read at every `step`-th sample, after a mean over as many where that is more than one."""
    width = int(step)
    if width > 1:
        kernel = np.full(width, 1.0 / width, np.float32)
        clip = np.convolve(clip, kernel, mode="same").astype(np.float32)
    at = np.arange(0, len(clip) - 1, step)
    return np.asarray(np.interp(at, np.arange(len(clip)), clip), dtype=np.float32)


def heard(clip: F32, rng: np.random.Generator) -> F32:
    """The clip as a node's microphone has it: tempo +-8 %, distance, a late start, noise at 6 to 20 dB."""
    clip = resampled(clip, float(rng.uniform(0.92, 1.08)))
    loud = float(np.sqrt(np.mean(np.square(clip)))) + 1e-6
    clip = np.concatenate([np.zeros(int(rng.integers(0, 800)), np.float32), clip, np.zeros(2000, np.float32)])
    noise = rng.standard_normal(len(clip)).astype(np.float32)
    # Half of it rumbles: wind and machines lie below speech.
    rumble = np.cumsum(noise) - np.linspace(0.0, float(noise.sum()), len(clip))
    rumble = rumble - np.convolve(rumble, np.full(64, 1.0 / 64), mode="same")
    noise = noise + rumble / (rumble.std() + 1e-6)
    level = loud * 10.0 ** (-float(rng.uniform(6.0, 20.0)) / 20.0)
    echo = np.zeros_like(clip)
    delay = int(rng.integers(100, 400))
    echo[delay:] = clip[:-delay] * float(rng.uniform(0.0, 0.35))
    return np.asarray(clip + echo + noise / noise.std() * level, dtype=np.float32)


@cache
def _mel() -> F32:
    """Triangular bands, float32[129, 16]."""

    def mel(hz: float) -> float:
        return 2595.0 * float(np.log10(1.0 + hz / 700.0))

    points = np.linspace(mel(LOWEST_HZ), mel(HIGHEST_HZ), BANDS + 2)
    edges = 700.0 * (10.0 ** (points / 2595.0) - 1.0)
    bins = np.fft.rfftfreq(WINDOW, 1.0 / RATE_HZ)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(np.minimum(rising, falling), 0.0).astype(np.float32)


def log_mel(clip: F32) -> F32:
    """Features of a clip at RATE_HZ: float32[256], band by time, mean removed."""
    size = int(LENGTH_S * RATE_HZ)
    energy = np.convolve(np.square(clip), np.full(HOP, 1.0 / HOP), mode="same")
    quiet = np.quantile(energy, 0.1)
    begin = max(int(np.argmax(energy > quiet + 0.1 * (energy.max() - quiet))) - HOP, 0)
    cut = np.zeros(size, np.float32)
    part = clip[begin : begin + size]
    cut[: len(part)] = part
    count = (size - WINDOW) // HOP + 1
    frames = cut[np.arange(count)[:, None] * HOP + np.arange(WINDOW)] * np.hanning(WINDOW)
    power = np.square(np.abs(np.fft.rfft(frames, axis=1))).astype(np.float32)
    bands = np.log(power @ _mel() + 1e-3 * float(power.mean()) + 1e-12)
    pooled = np.stack([part.mean(axis=0) for part in np.array_split(bands, FRAMES)])
    features = (pooled - pooled.mean()).T.reshape(-1)
    return np.asarray(features, dtype=np.float32)
