"""Ten thousand uplinks that no honest node would send: none raises, each is counted, no counter is moved.

Genuine frames come in between and after, and work.  The stream is drawn from a fixed seed; a failure prints
the seed, the number and the bytes of the input at fault.
"""

from __future__ import annotations

import random
from collections import Counter
from types import TracebackType

import numpy as np

from swarm.mac import join, session
from swarm.mac.device import UplinkFrame
from swarm.mac.session import seal_data
from swarm.security.lorawan import AesKey, cipher_payload
from swarm.wire import app, lorawan
from tests.swarm import cell as farm
from tests.swarm.cell import (
    SECOND_US,
    Cell,
    answer,
    counters_never_repeat,
    dev_addr,
    dev_eui,
    key,
    means,
    messages,
    open_round,
    signs,
    status,
)

SEED = 20_260
HOSTILE = 10_000
NODES = 12
KNOWN = {*lorawan.REASONS, *session.REASONS, *join.REASONS, *app.REASONS, "unknown_device"}


class Replay:
    """Names the input that was at work when something went wrong."""

    def __init__(self, seed: int) -> None:
        self.seed, self.number, self.what, self.payload = seed, 0, "", b""

    def __enter__(self) -> Replay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(f"seed {self.seed}, input {self.number} ({self.what}): {self.payload.hex()}")


def sealed(node: int, f_cnt: int, f_port: int | None, payload: bytes, f_opts: bytes = b"") -> bytes:
    """A data frame with a right integrity code, whatever it carries."""
    nwk, application = AesKey(key(1, node)), AesKey(key(2, node))
    cipher = cipher_payload(
        nwk if f_port == 0 else application, payload, uplink=True, dev_addr=dev_addr(node), f_cnt=f_cnt
    )
    signed = lorawan.encode_data(
        uplink=True,
        dev_addr=dev_addr(node),
        f_cnt=f_cnt,
        f_port=f_port,
        frm_payload=cipher,
        f_opts=f_opts,
    )
    return seal_data(nwk, signed, uplink=True, dev_addr=dev_addr(node), f_cnt=f_cnt)


def application_payload(draw: random.Random, node: int, number: int) -> tuple[int, bytes]:
    """FPort and payload: nonsense, or an honest message with some bytes changed, cut or added."""
    f_port = draw.choice((1, 10, 10, 10, 11, 11, 12, 12, 99, 223, 224, 255))
    if draw.random() < 0.4:
        return f_port, draw.randbytes(draw.choice((0, 1, 2, 7, 11, 17, 40, 51, 120)))
    f_port, payload = draw.choice(
        (
            (10, means(node, number)),
            (10, signs(node, number)),
            (11, answer(draw.randrange(1 << 16), node)),
            (12, status(draw.randrange(256))),
        )
    )
    changed = bytearray(payload)
    for _ in range(draw.randrange(4)):
        changed[draw.randrange(len(changed))] = draw.randrange(256)
    cut = draw.choice((len(changed), len(changed), draw.randrange(len(changed))))
    return f_port, bytes(changed[:cut]) + draw.randbytes(draw.choice((0, 0, 1, 9)))


def spoilt(draw: random.Random, payload: bytes) -> tuple[str, bytes]:
    """A frame that is not genuine any more."""
    what = draw.choice(("flip", "cut", "extend", "address", "mic", "header", "noise", "join", "swap"))
    changed = bytearray(payload)
    match what:
        case "flip":
            for place in draw.sample(range(8 * len(changed)), draw.randrange(1, 9)):
                changed[place // 8] ^= 1 << place % 8
        case "cut":
            del changed[draw.randrange(len(changed)) :]
        case "extend":
            changed += draw.randbytes(draw.randrange(1, 250 - len(changed)))
        case "address":
            other = dev_addr(draw.randrange(NODES)).to_bytes(4, "little")
            changed[1:5] = other if changed[1:5] != other else b"\xff\xff\xff\xff"
        case "mic":
            changed[-4:] = draw.randbytes(4)
        case "header":
            changed[0] = draw.randrange(256)
            changed[-1] ^= 0x55
        case "noise":
            changed = bytearray(draw.randbytes(draw.randrange(256)))
        case "join":
            changed = bytearray(b"\0" + draw.randbytes(22))
        case "swap":
            changed[6:8] = draw.randbytes(2)
            changed[-2] ^= 1
    return what, bytes(changed)


def test_ten_thousand_hostile_uplinks() -> None:
    draw = random.Random(SEED)
    cell = Cell(config=farm.settings(dedup_us=0, period_s=1_000_000, close_s=900_000), nodes=NODES)
    number = open_round(cell)
    next_f_cnt = [0] * NODES
    genuine: set[bytes] = set()
    recorded: list[bytes] = []
    seen: Counter[str] = Counter()
    place = UplinkFrame(b"", 868_100_000, 5, 0, 0, 0)
    with Replay(SEED) as replay:
        for replay.number in range(HOSTILE):
            node = draw.randrange(NODES)
            before = Counter(cell.core.counters)
            if recorded and draw.random() < 0.5:
                base = draw.choice(recorded)
                replay.what, replay.payload = ("old", base) if draw.random() < 0.2 else spoilt(draw, base)
                if replay.what != "old" and replay.payload in genuine:
                    continue
            else:
                replay.what = "application"
                f_port, payload = application_payload(draw, node, number)
                options = draw.randbytes(draw.choice((0, 0, 0, 1, 5, 15)))
                replay.payload = sealed(node, next_f_cnt[node], f_port, payload, options)
                next_f_cnt[node] += 1
                genuine.add(replay.payload)
                recorded.append(replay.payload)
            cell.now_us += SECOND_US
            cell.hear(replay.payload, place)
            seen[replay.what] += 1
            told = Counter(cell.core.counters) - before
            assert told["uplink"] + told["dropped"] >= 1, "every input is counted"
            if replay.what not in ("old", "application"):
                assert told["dropped"] == 1 and told["uplink"] == 0
            for index, count in enumerate(next_f_cnt):
                row = cell.rows["session"][dev_eui(index)]
                assert row["f_cnt_up"] == (count - 1 if count else None)
            if replay.number % 250 == 249:
                _an_honest_frame_works(cell, node, next_f_cnt)
                next_f_cnt[node] += 1
    assert min(seen.values()) > 100, seen
    assert set(cell.dropped()) <= KNOWN
    assert {"mic", "replay", "unknown_device", "size", "f_port", "type", "value"} <= set(cell.dropped())
    counters_never_repeat(cell.on_air)
    _the_round_still_closes(cell, number, next_f_cnt)


def _an_honest_frame_works(cell: Cell, node: int, next_f_cnt: list[int]) -> None:
    cell.run_for(30)
    cell.receive()
    cell.devices[node].f_cnt_up = next_f_cnt[node]
    cell.uplink(node, 12, status(), confirmed=True)
    cell.run_for(5)
    assert any(delivered.ack for delivered in cell.receive()[node])


def _the_round_still_closes(cell: Cell, number: int, next_f_cnt: list[int]) -> None:
    """What hostile nodes with right keys got into the round is finite, and so is what comes of it."""
    cell.run_until(int(str(cell.told("round_opened")[-1].data["close_us"])))
    (closed,) = cell.told("round_closed")
    assert closed.data["round"] == number and closed.data["failure"] in (None, "no replies")
    mirror = cell.core.rounds.mirror()
    assert np.isfinite(mirror.master()).all()
    open_round(cell)
    assert any(isinstance(message, app.RoundAnnounce) for message in messages(cell.receive()[0]))
    cell.devices[0].f_cnt_up = next_f_cnt[0]
    cell.uplink(0, 10, means(0, number + 1, mirror.version))
    assert cell.told("update")[-1].data["round"] == number + 1
