"""Blocks are the gateway's own: played through the coordinator, LoRaWAN frames and the C nodes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

import numpy as np
import pytest

from swarm.commands import SetSigningKey
from swarm.mac.session import MulticastGroup
from swarm.model import block
from swarm.model.layout import CONTEXTS
from swarm.model.vector import Mirror
from swarm.model.versions import Versions
from swarm.node import NodeConfig, Nodes
from swarm.security.signatures import (
    LARGE_BLOCK,
    SIGNATURE_SIZE,
    Signer,
    SigningKey,
    is_genuine,
    sign_block,
)
from swarm.wire import app
from tests.swarm.cell import GROUP, MODEL, Cell, settings, signs

KEY = SigningKey(bytes(range(32)))
OTHER = SigningKey(bytes(range(1, 33)))
ROOM = 115


class Field:
    """A cell whose devices have the firmware behind them."""

    def __init__(self, key: SigningKey | None = KEY, signer: bytes | None = KEY.public_key) -> None:
        learning = settings("top_k_sign", strategy="FedAvg", options={})
        self.cell = Cell(config=learning, signing_key=key)
        configs = [NodeConfig(i, i % len(CONTEXTS), seed=i, signer=signer) for i in range(self.cell.nodes)]
        self.nodes = Nodes(len(configs), configs, MODEL)
        self.version = 0

    def play_round(self) -> None:
        """Nodes send, the round closes, the next window brings the new version."""
        self.cell.run_for(3700)
        current = self.cell.core.rounds.current
        assert current is not None
        for node in range(self.cell.nodes):
            self.cell.uplink(node, 10, signs(node, current.number, current.model_version))
        self.cell.run_for(3700)
        self.deliver()

    def deliver(self) -> None:
        for index, heard in self.cell.receive().items():
            for each in heard:
                if each.f_port == app.F_PORT_LEARNING:
                    self.nodes.rx(index, self.cell.now_us, each.f_port, each.payload, each.multicast)

    def blocks(self) -> list[app.BlockPiece]:
        """The pieces that the gateway would send now."""
        versions = self.cell.core.rounds._versions
        pieces = [app.decode_downlink(10, frame) for frame in versions.frames(ROOM)]
        return [piece for piece in pieces if isinstance(piece, app.BlockPiece)]

    def whole(self) -> bytes:
        return b"".join(piece.piece for piece in self.blocks())

    def state(self) -> tuple[list[int], bytes]:
        return self.nodes.model_version.tolist(), self.nodes.adapters.tobytes() + self.nodes.heads.tobytes()


class Captor:
    """Has taken a node apart: the group's keys and counter are his."""

    def __init__(self, field: Field) -> None:
        self._field = field
        group = field.cell.core.downlinks.group
        assert group is not None
        self._group = MulticastGroup(
            mc_addr=GROUP.mc_addr,
            nwk_s_key=GROUP.nwk_s_key,
            app_s_key=GROUP.app_s_key,
            f_cnt=group.f_cnt + 1000,
            frequency_hz=group.frequency_hz,
            data_rate=group.data_rate,
        )

    def send(self, pieces: Iterable[app.BlockPiece]) -> None:
        """Frames that every device takes for genuine."""
        for piece in pieces:
            frame = self._group.frame(10, app.encode(piece))
            for index, device in enumerate(self._field.cell.devices):
                heard = device.receive(self._field.cell.now_us, frame)
                assert getattr(heard, "multicast", False), heard
                self._field.nodes.rx(index, self._field.cell.now_us, 10, heard.payload, multicast=True)  # type: ignore[union-attr]

    def send_block(self, version: int, base: int, kind: int, data: bytes) -> None:
        count = -(-len(data) // (ROOM - app.BLOCK_HEADER_SIZE))
        self.send(app.block_pieces(version, base, kind, data, crc32=zlib.crc32(data), count=count))


@pytest.fixture(scope="module")
def played() -> Field:
    field = Field()
    field.play_round()
    return field


def heads(value: int = 1) -> bytes:
    """A HEADS block of context 0 that would change every node's head."""
    return bytes([0, 1]) + bytes([value]) * 99


def header(version: int, base: int = app.NO_BASE) -> bytes:
    return struct.pack("<HH", version, base)


def test_nodes_take_what_the_gateway_signed() -> None:
    """Goal: all nodes have the gateway's version, bit for bit, round after round."""
    field = Field()
    for number in (1, 2):
        field.play_round()
        mirror: Mirror = field.cell.core.rounds.mirror()
        assert mirror.version == number
        assert set(field.nodes.model_version.tolist()) == {number}
        assert all(np.array_equal(adapter, mirror.adapter) for adapter in field.nodes.adapters)
        assert all(np.array_equal(each[: mirror.contexts], mirror.heads) for each in field.nodes.heads)
    assert field.nodes.refused.sum() == 0
    first = field.blocks()[0]
    signed = (KEY.public_key, field.whole(), first.kind, header(first.version, first.base_version))
    assert is_genuine(*signed)
    assert field.nodes.host.checks == 2, "what all nodes check is computed once"


def test_the_groups_key_makes_no_model(played: Field) -> None:
    """Goal: who has all keys of one node cannot install a model in another.

    Method: frames with a right MIC and a right CRC: without a signature, with another key's, with a genuine
    one of another body, kind, base or version, with one bit flipped anywhere.
    """
    before, refused = played.state(), played.nodes.refused.copy()
    captor, genuine = Captor(played), played.whole()
    first = played.blocks()[0]
    stolen = genuine[-SIGNATURE_SIZE:]
    attempts: list[tuple[int, int, int, bytes]] = [
        (2, app.NO_BASE, 0, heads()),
        (2, app.NO_BASE, 0, heads() + bytes(SIGNATURE_SIZE)),
        (2, app.NO_BASE, 0, heads() + stolen),
        (2, app.NO_BASE, 0, sign_block(OTHER, 0, header(2), body=heads())),
        (2, app.NO_BASE, 0, sign_block(KEY, 2, header(2), body=heads())),
        (2, app.NO_BASE, 0, sign_block(KEY, LARGE_BLOCK, body=heads())),
        (2, app.NO_BASE, 0, sign_block(KEY, 0, header(3), body=heads())),
        (2, app.NO_BASE, 0, sign_block(KEY, 0, header(2, 1), body=heads())),
        (2, first.base_version, first.kind, genuine),
        (2, app.NO_BASE, 0, stolen),
        (2, app.NO_BASE, 0, stolen[:-1]),
    ]
    for bit in range(0, 8 * len(heads()), 101):
        whole = bytearray(sign_block(KEY, 0, header(2), body=heads()))
        whole[bit // 8] ^= 1 << bit % 8
        attempts.append((2, app.NO_BASE, 0, bytes(whole)))
    for attempt in attempts:
        captor.send_block(*attempt)
        assert played.state() == before, attempt
    if first.base_version != app.NO_BASE:  # a DELTA of a base that nodes do not have is not even kept
        attempts.remove((2, first.base_version, first.kind, genuine))
    assert (played.nodes.refused - refused == len(attempts)).all()


def test_a_node_without_a_key_takes_blocks_as_they_are(played: Field) -> None:
    """Benches and rigs: what everybody could do before."""
    field = Field(key=None, signer=None)
    Captor(field).send_block(1, app.NO_BASE, 0, heads())
    assert set(field.nodes.model_version.tolist()) == {1}
    signed = Field(key=KEY, signer=None)
    Captor(signed).send_block(1, app.NO_BASE, 0, sign_block(KEY, 0, header(1), body=heads()))
    assert set(signed.nodes.model_version.tolist()) == {0}, "a signature is no part of a head"


def test_an_old_version_does_not_come_again() -> None:
    """Goal: a recording of a worse model is worth nothing, after a reset of the node either."""
    field = Field()
    field.play_round()
    old = field.blocks()
    field.play_round()
    before = field.state()
    captor = Captor(field)
    captor.send(old)
    for node in range(field.cell.nodes):
        field.nodes.reset(node, field.cell.now_us)
    captor.send(old)
    assert field.state() == before
    assert field.nodes.refused.sum() == 0, "such pieces open nothing"


@pytest.mark.parametrize(
    ("own", "version", "taken"),
    [
        *((0, 1, True), (0, 32767, True), (0, 32768, False), (5, 5, False), (5, 4, False)),
        *((65534, 0, True), (65530, 3, True), (3, 65530, False)),
        *((32768, 65534, True), (32768, 0, True), (32768, 1, False)),
    ],
)
def test_versions_go_ahead_only(own: int, version: int, taken: bool) -> None:
    """Serial numbers modulo 65535: half of them are ahead."""
    nodes = Nodes(1, [NodeConfig(0, 0, signer=KEY.public_key)], MODEL)

    def send(number: int) -> None:
        data = sign_block(KEY, 0, header(number), body=heads())
        for piece in app.block_pieces(number, app.NO_BASE, 0, data, crc32=zlib.crc32(data), count=2):
            nodes.rx(0, 0, 10, app.encode(piece), multicast=True)

    for step in [32767, own] if own > 32767 else [own] if own else []:
        send(step)
    assert nodes.model_version[0] == own
    send(version)
    assert nodes.model_version[0] == (version if taken else own)


def test_a_restart_sends_the_same_bytes(played: Field) -> None:
    """The signature is not stored: it comes out the same from the same key."""
    frames = played.cell.core.rounds._versions.frames(ROOM)
    rows = played.cell.rows["model"].values()
    assert not any(played.whole()[-SIGNATURE_SIZE:] in bytes(row["block"]) for row in rows)  # type: ignore[arg-type]
    played.cell.restart()
    assert played.cell.core.rounds._versions.frames(ROOM) == frames


def test_unicast_and_a_new_key() -> None:
    """What goes to one node behind a network server is signed too, and with the key of the moment."""
    field = Field()
    field.play_round()
    entry = next(iter(field.cell.core.registry))
    entry.status.model_version = 0

    def whole() -> bytes:
        frames = [each.payload for each in field.cell.core.rounds.unicast(entry, ROOM)]
        pieces = [app.decode_downlink(10, frame) for frame in frames if isinstance(frame, bytes)]
        return b"".join(each.piece for each in pieces if isinstance(each, app.BlockPiece))

    assert whole() == field.whole()
    first = field.blocks()[0]
    about = (first.kind, header(first.version, first.base_version))
    assert is_genuine(KEY.public_key, whole(), *about)
    assert field.cell.command(SetSigningKey(OTHER)) is None
    assert is_genuine(OTHER.public_key, whole(), *about)
    assert not is_genuine(KEY.public_key, whole(), *about)
    assert field.cell.events[-1].data == {"public_key": OTHER.public_key.hex()}


def report(field: Field, node: int, version: int) -> None:
    field.cell.uplink(node, 12, app.encode(status(version)))


def status(version: int) -> app.Status:
    return app.Status(version, 7, 255, 0, 0, 1500, 120, 0, 0, 0)


def test_a_gateway_that_lost_its_data_goes_on_above_its_nodes() -> None:
    """Goal: nodes that take no old number are not lost to a gateway that begins anew."""
    field = Field()
    for _ in range(3):
        field.play_round()
    nodes, field = field.nodes, Field()
    field.nodes = nodes
    for node in range(field.cell.nodes):
        report(field, node, int(nodes.model_version[node]))
    field.cell.run_for(3700)
    field.deliver()
    mirror = field.cell.core.rounds.mirror()
    assert set(nodes.model_version.tolist()) == {mirror.version} == {4}
    assert all(np.array_equal(each[: mirror.contexts], mirror.heads) for each in nodes.heads)
    assert all(np.array_equal(each, mirror.adapter) for each in nodes.adapters)
    assert field.cell.told("versions_skipped")[0].data == {"from_version": 0, "to_version": 4, "nodes": 4}
    field.cell.restart()
    field.play_round()
    assert set(nodes.model_version.tolist()) == {field.cell.core.rounds.version} == {5}
    assert set(field.cell.rows["model"]) == {"4", "5"}


@pytest.mark.parametrize(
    ("reported", "version"),
    [
        ([], 10),
        ([10, 10, 9, 0], 10),
        ([0, 0, 12], 13),
        ([30000, 10, 10, 10, 10], 10),
        ([30000, 12, 10, 10, 10], 13),
        ([65534] * 4, 10),
    ],
)
def test_few_that_lie_do_not_move_the_numbers(reported: list[int], version: int) -> None:
    """A quarter has to be ahead; of those, the number that a quarter has reached."""
    base = Mirror(10, np.zeros(512, np.int16), np.zeros((4, 99), np.int16))
    versions = Versions(base, {}, Signer(KEY))
    stores = versions.catch_up(reported, 5, 1)
    assert versions.mirror.version == version
    assert bool(stores) == (version != 10)
    unsigned = Versions(base, {}, Signer())
    assert unsigned.catch_up([12] * 4, 5, 1) == [] and unsigned.mirror.version == 10


def test_the_largest_block_fits_with_its_signature() -> None:
    """FULL of eight heads of ten classes."""
    mirror = Mirror(0, np.zeros(512, np.int16), np.zeros((8, 330), np.int16))
    made = block.encode(mirror, mirror.master() + 0.5, app.BlockKind.FULL)
    assert len(made.signed(Signer(KEY))) == 3162 + SIGNATURE_SIZE <= app.BLOCK_SIZE_MAX
    assert len(made.frames(222, Signer(KEY))) == -(-3226 // 208)
    assert made.frames(222) == made.frames(222, Signer())


def test_a_key_shows_itself_nowhere() -> None:
    seed = bytes(range(32))
    assert seed.hex() not in repr(KEY) + repr(SetSigningKey(KEY)) + repr(Signer(KEY))
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        SigningKey(seed[:-1])
    assert not is_genuine(b"short", bytes(100))
    assert not is_genuine(KEY.public_key, bytes(10))
    body = sign_block(KEY, body=b"container")
    assert is_genuine(KEY.public_key, body) and not is_genuine(OTHER.public_key, body)
