"""Blocks as fragments: making them, and putting them together again at 20 % loss, on this machine."""

from __future__ import annotations

from swarm.prng import Prng
from swarm.transport.device import Device, Heard
from swarm.transport.erasure import Decoder, Encoder
from swarm.wire import fragmentation as ts004
from tests.bench.measure import Measured, cpu_s

__all__ = ["measure"]

SIZE = 20_000
FRAG_SIZE = 112
TURNS = 20
VERSION = 1
"""Of TS004: without the MIC, so that the code alone is measured; version 2 draws about as many rows."""


def _arrived(encoder: Encoder) -> list[int]:
    """The fragments that a node hears at 20 % loss until it has the block."""
    draw = Prng(1).child("air").numpy()
    heard: list[int] = []
    decoder = Decoder(encoder.nb_frag, FRAG_SIZE, VERSION, encoder.nb_frag)
    n = 0
    while decoder.missing:
        n += 1
        if draw.random() >= 0.2:
            heard.append(n)
            decoder.take(n, encoder.fragment(n))
    return heard


def measure() -> list[Measured]:
    """Megabytes of block per CPU second."""
    block = Prng(1).child("block").numpy().bytes(SIZE)
    encoder = Encoder(block, FRAG_SIZE, VERSION)
    arrived = _arrived(encoder)
    parity = range(encoder.nb_frag + 1, encoder.nb_frag + 51)
    setup = ts004.FragSessionSetupReq(0, 1, encoder.nb_frag, FRAG_SIZE, 0, encoder.padding, bytes(4))
    opening = ts004.encode(setup, VERSION)
    frames = [ts004.encode(ts004.DataFragment(0, n, encoder.fragment(n)), VERSION) for n in arrived]
    device = Device(bytes(16), version=VERSION)

    def encode() -> None:
        for _ in range(TURNS):
            made = Encoder(block, FRAG_SIZE, VERSION)
            for n in range(1, parity.stop):
                made.fragment(n)

    def decode() -> None:
        for _ in range(TURNS):
            decoder = Decoder(encoder.nb_frag, FRAG_SIZE, VERSION, encoder.nb_frag)
            for n, frame in zip(arrived, frames, strict=True):
                decoder.take(n, frame[3:])

    def receive() -> None:
        for _ in range(TURNS):
            device.rx(opening)
            heard = [device.rx(frame, 0)[0] for frame in frames]
            assert heard[-1] == Heard.WHOLE

    lost = encoder.nb_frag - sum(n <= encoder.nb_frag for n in arrived)
    rows = (
        ("encoding 20 kB and 50 parity fragments of 112 B", encode, ""),
        ("decoding it in Python at 20 % loss", decode, f"{lost} pieces lost"),
        ("the C node's decoder, called from Python", receive, "20 kB in 8 kB of RAM"),
    )
    made = []
    for name, run, note in rows:
        seconds, spread = cpu_s(run)
        made.append(Measured(name, SIZE * TURNS / seconds / 1e6, "MB/s", spread, note))
    return made
