"""A cell for tests: the real coordinator, rows in memory, a clock that obeys, radios that note all.

`Cell` performs effects as a driver has to: a `Store` at once, a `Transmit` through `verdict`, whose word goes
back as the `TxAck`.  `restart()` builds the coordinator anew from nothing but the rows.  The judges at the
end (`air_is_legal`, `counters_never_repeat`) know nothing of the ledger and the scheduler that they judge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from itertools import pairwise
from typing import Literal

import numpy as np

from swarm.commands import AddNode, Command, OpenRound, SetMulticast
from swarm.config import Asking, Learning, Multicast, SwarmConfig
from swarm.coordinator import Coordinator
from swarm.effects import Effect, Event, Malformed, Row, RxFrame, Store, Transmit, TxAck
from swarm.inference.plan import Query
from swarm.mac.device import (
    AbpIdentity,
    Delivered,
    EndDevice,
    Joined,
    MulticastMemo,
    OtaaIdentity,
    UplinkFrame,
)
from swarm.model.layout import WEATHER
from swarm.phy.regions import Region, region
from swarm.prng import Prng
from swarm.registry import Refused
from swarm.security.signatures import SigningKey
from swarm.wire import app, lorawan

SECOND_US = 1_000_000
HOUR_US = 3600 * SECOND_US
START_US = 1_700_000_000 * SECOND_US
GATEWAY = "aa555a0000000001"
GATEWAY_2 = "aa555a0000000002"
MC_ADDR = 0x00FF0000
MODEL = (resources.files("swarm.model") / "base_model.swm").read_bytes()
CONTEXTS = 4


def key(kind: int, index: int) -> bytes:
    """A key for tests, another for every use."""
    return bytes((kind,)) * 12 + index.to_bytes(4, "big")


def dev_eui(index: int) -> str:
    return f"70b3d57ed{index:07x}"


def dev_addr(index: int) -> int:
    return 0x00010000 + index


GROUP = SetMulticast(MC_ADDR, key(3, 0), key(4, 0))


def add_node(index: int, activation: Literal["abp", "otaa"] = "abp") -> AddNode:
    """Node `index` of the test farm: crops in turn, two hundred metres from one to the next."""
    abp = activation == "abp"
    return AddNode(
        dev_eui=dev_eui(index),
        name=f"node-{index}",
        context=index % CONTEXTS,
        activation=activation,
        plot=f"plot-{index // 4}",
        lat=47.0 + 0.002 * index,
        lon=7.0,
        node_index=index,
        dev_addr=dev_addr(index) if abp else None,
        nwk_s_key=key(1, index) if abp else None,
        app_s_key=key(2, index) if abp else None,
        join_eui="70b3d57ed0ffffff",
        app_key=None if abp else key(5, index),
    )


def device_of(index: int, radio: Region, memo: MulticastMemo | None, activation: str = "abp") -> EndDevice:
    """The other end of `add_node`."""
    abp = AbpIdentity(dev_addr(index), key(1, index), key(2, index))
    otaa = OtaaIdentity(dev_eui(index), "70b3d57ed0ffffff", key(5, index))
    who = abp if activation == "abp" else otaa
    made = EndDevice(radio, who, Prng(7).child(f"device-{index}"), memo=memo, data_rate=5)
    made.add_group(GROUP.mc_addr, GROUP.nwk_s_key, GROUP.app_s_key)
    return made


def settings(mode: str = "prototypes", *, dedup_us: int = 200_000, **learning: object) -> SwarmConfig:
    """An hour from round to round; anything of `Learning` may be given otherwise.

    Every solved head is taken, unjudged: here rounds matter, not what they learn.
    """
    chosen = {"period_s": 3600, "spread_s": 600, "close_s": 1200, "window_s": 120, **learning}
    if mode == "prototypes":
        chosen.setdefault("options", {"gain_min": 0.0, "nodes_min": 1.0, "nodes_full": 1.0})
    return SwarmConfig(
        learning=Learning(mode=mode, **chosen),  # type: ignore[arg-type]
        multicast=Multicast(data_rate=3, repeats=2),
        asking=Asking(k=3, deadline_s=600),
        dedup_us=dedup_us,
    )


def means(node: int, number: int, version: int = 0) -> bytes:
    """A plausible PROTOTYPES frame of `node` for round `number`."""
    draw = np.random.default_rng([node, number, 1])
    classes = []
    for label in (0, 1, 2):
        q = tuple(int(v) for v in draw.integers(-8, 8, 20))
        classes.append(app.ClassMean(label, int(draw.integers(1, 9)), int(draw.integers(20, 60)), q))
    examples = sum(mean.count for mean in classes)
    return app.encode(app.Prototypes(number, version, node % CONTEXTS, examples, tuple(classes)))


def signs(node: int, number: int, version: int = 0) -> bytes:
    """A plausible TOP_K_SIGN frame of `node` for round `number`."""
    draw = np.random.default_rng([node, number, 2])
    indices = tuple(int(i) for i in np.sort(draw.choice(WEATHER.local_size, 60, replace=False)))
    negative = tuple(bool(bit) for bit in draw.integers(0, 2, 60))
    rice_k = app.rice_k_for(indices)
    update = app.TopKSign(number, version, node % CONTEXTS, 9, 40, rice_k, indices, negative)
    return app.encode(update)


def dense(node: int, number: int, version: int = 0, *, classes: int = 3) -> list[bytes]:
    """A plausible DENSE_INT8 update of `node` for round `number`, as the fragments of 222 B frames."""
    draw = np.random.default_rng([node, number, 3])
    steps = tuple(int(step) for step in draw.integers(-128, 128, 512 + 33 * classes))
    whole = app.encode(app.DenseInt8(number, version, node % CONTEXTS, 9, 2, 3, steps))
    slices = [whole[at : at + 216] for at in range(0, len(whole), 216)]
    head = (number, app.RoundMode.DENSE_INT8)
    return [app.encode(app.Fragment(*head, i, len(slices), data)) for i, data in enumerate(slices)]


def status(flags: int = 0) -> bytes:
    """A STATUS frame."""
    return app.encode(app.Status(0, 1, 200, 3, flags, 1520, 160, 0, 0, 0))


def answer(query_id: int, node: int, probabilities: tuple[int, ...] = (20, 35, 200)) -> bytes:
    """An ANSWER frame."""
    return app.encode(app.Answer(query_id, node % CONTEXTS, probabilities, 0, 1, 1))


@dataclass
class Cell:
    """Nodes 0..`nodes`-1 around the gateways `gateways`; everything that happened is kept in lists."""

    config: SwarmConfig = field(default_factory=settings)
    nodes: int = 4
    gateways: Sequence[str] = (GATEWAY,)
    activation: Literal["abp", "otaa"] = "abp"
    verdict: Callable[[Transmit], str | None] = lambda transmit: None
    signing_key: SigningKey | None = None
    now_us: int = START_US
    rows: dict[str, dict[str, Row]] = field(default_factory=dict)
    effects: list[Effect] = field(default_factory=list)
    on_air: list[Transmit] = field(default_factory=list)
    refused: list[Transmit] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    restarts: int = 0
    _delivered: int = 0

    def __post_init__(self) -> None:
        self.region = region(self.config.region)
        memo = MulticastMemo()
        self.devices = [device_of(i, self.region, memo, self.activation) for i in range(self.nodes)]
        self._build()
        self.keep_alive()
        self.command(GROUP)
        for index in range(self.nodes):
            self.command(add_node(index, self.activation))
        self.poll()

    # -- driving ----------------------------------------------------------------------------------

    def restart(self) -> None:
        """Kill the coordinator and build it again from its rows."""
        self.restarts += 1
        self._build()

    def _build(self) -> None:
        rows = {table: {name: dict(row) for name, row in kept.items()} for table, kept in self.rows.items()}
        self.core = Coordinator(self.config, rows, MODEL, self.signing_key)

    def perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            self.effects.append(effect)
            match effect:
                case Store():
                    table = self.rows.setdefault(effect.table, {})
                    if effect.row is None:
                        table.pop(effect.key, None)
                    else:
                        table[effect.key] = dict(effect.row)
                case Transmit():
                    error = self.verdict(effect)
                    (self.on_air if error is None else self.refused).append(effect)
                    self.perform(self.core.on_tx_ack(self.now_us, TxAck(effect.transmit_id, error)))
                case Event():
                    self.events.append(effect)

    def command(self, command: Command) -> Refused | None:
        result = self.core.on_command(self.now_us, command)
        if isinstance(result, Refused):
            return result
        self.perform(result)
        return None

    def keep_alive(self) -> None:
        for gateway in self.gateways:
            self.perform(self.core.on_gateway(self.now_us, gateway))

    def poll(self) -> None:
        self.perform(self.core.poll(self.now_us))

    def run_until(self, at_us: int) -> None:
        """Let time pass: polls when they are due, and a sign of life of every gateway each minute."""
        alive_us = self.now_us + 60 * SECOND_US
        while True:
            due_us = self.core.poll_at()
            next_us = alive_us if due_us is None else min(alive_us, max(due_us, self.now_us))
            if next_us > at_us:
                break
            stuck = next_us == self.now_us
            self.now_us = next_us
            if next_us == alive_us:
                self.keep_alive()
                alive_us += 60 * SECOND_US
            self.poll()
            again_us = self.core.poll_at()
            if stuck and again_us is not None and again_us <= self.now_us:
                raise AssertionError(f"poll at {again_us} did nothing, and is due again")
        self.now_us = max(self.now_us, at_us)

    def run_for(self, seconds: float) -> None:
        self.run_until(self.now_us + int(seconds * SECOND_US))

    def hear(self, payload: bytes, frame: UplinkFrame, *, gateways: Sequence[str] | None = None) -> None:
        """The gateways receive these bytes as the uplink `frame`, which ends now."""
        for place, gateway in enumerate(gateways or self.gateways):
            rx = RxFrame(
                payload=payload,
                gateway_id=gateway,
                at_us=self.now_us,
                tmst_us=self.now_us % (1 << 32),
                frequency_hz=frame.frequency_hz,
                data_rate=frame.data_rate,
                rssi_dbm=-90.0,
                snr_db=8.0 - place,
            )
            self.perform(self.core.on_uplink(self.now_us, rx))

    def uplink(
        self,
        node: int,
        f_port: int | None,
        payload: bytes = b"",
        *,
        confirmed: bool = False,
        f_opts: bytes = b"",
    ) -> UplinkFrame:
        """Node `node` sends; the clock stands at the end of the deduplication window afterwards."""
        frame = self.devices[node].uplink(self.now_us, f_port, payload, confirmed, f_opts=f_opts)
        self.run_until(frame.end_us)
        self.hear(frame.payload, frame)
        self.run_for(self.config.dedup_us / SECOND_US)
        return frame

    def receive(self) -> dict[int, list[Delivered]]:
        """Every device hears all that went on the air since the last call: what each took for genuine."""
        heard: dict[int, list[Delivered]] = {index: [] for index in range(self.nodes)}
        for transmit in self.on_air[self._delivered :]:
            for index, device in enumerate(self.devices):
                result = device.receive(transmit.at_us + transmit.airtime_us, transmit.payload)
                if isinstance(result, Delivered):
                    heard[index].append(result)
                elif isinstance(result, Malformed):
                    # The copy of a multicast frame through a second gateway is a replay to its hearers.
                    copy = result.reason == "replay" and len(self.gateways) > 1
                    assert copy or result.reason == "dev_addr", result
        self._delivered = len(self.on_air)
        return heard

    def joins(self) -> list[Joined | Malformed | Delivered]:
        """What the first device makes of all that went on the air since the last call."""
        new = self.on_air[self._delivered :]
        self._delivered = len(self.on_air)
        return [self.devices[0].receive(each.at_us + each.airtime_us, each.payload) for each in new]

    def told(self, kind: str) -> list[Event]:
        return [event for event in self.events if event.kind == kind]

    def dropped(self) -> list[str]:
        return [str(event.data["reason"]) for event in self.told("dropped")]


def messages(delivered: Iterable[Delivered]) -> list[app.DownlinkMessage]:
    """The application frames in what a device took."""
    made = []
    for each in delivered:
        if each.f_port:
            message = app.decode_downlink(each.f_port, each.payload)
            assert not isinstance(message, Malformed), message
            made.append(message)
    return made


def open_round(cell: Cell) -> int:
    """Open a round and let its programme leave; its number."""
    assert cell.command(OpenRound()) is None
    cell.run_for(60)
    return int(str(cell.told("round_opened")[-1].data["round"]))


def ask(cell: Cell, query: Query) -> int:
    """Put a question; its id."""
    cell.perform(cell.core.on_query(cell.now_us, query))
    return int(str(cell.told("query_asked")[-1].data["query_id"]))


def heard_from_all(cell: Cell) -> None:
    """Every node sends its status once."""
    for node in range(cell.nodes):
        cell.uplink(node, 12, status())
    cell.run_for(5)


# -- independent judges ------------------------------------------------------------------------------


def air_is_legal(cell: Cell) -> None:
    """No sliding hour of a gateway and sub-band holds more than the law allows, and no frames overlap.

    By brute force: the fullest windows end where a frame ends or begin where one begins.
    """
    for gateway in {transmit.gateway_id for transmit in cell.on_air}:
        mine = sorted((t for t in cell.on_air if t.gateway_id == gateway), key=lambda t: t.at_us)
        for first, second in pairwise(mine):
            assert first.at_us + first.airtime_us <= second.at_us, f"{first} runs into {second}"
        for band in cell.region.sub_bands:
            spans = [
                (t.at_us, t.at_us + t.airtime_us)
                for t in mine
                if cell.region.sub_band(t.frequency_hz).name == band.name
            ]
            ends = [end for _, end in spans] + [start + HOUR_US for start, _ in spans]
            for end in ends:
                used = sum(max(0, min(stop, end) - max(start, end - HOUR_US)) for start, stop in spans)
                assert used <= band.duty_cycle * HOUR_US, (
                    f"{gateway} {band.name}: {used} us in the hour to {end}"
                )


def counters_never_repeat(transmits: Iterable[Transmit]) -> None:
    """No two different data downlinks share address and counter (several gateways may send one frame)."""
    seen: dict[tuple[int, int], bytes] = {}
    for transmit in transmits:
        frame = lorawan.parse_downlink(transmit.payload)
        if isinstance(frame, lorawan.DataFrame):
            before = seen.setdefault((frame.dev_addr, frame.f_cnt), transmit.payload)
            assert before == transmit.payload, f"{frame.dev_addr:08x} counter {frame.f_cnt} was used twice"


def stored_before_sent(effects: Iterable[Effect]) -> None:
    """The row that was written before a frame is already beyond the frame's counter."""
    next_f_cnt: dict[int, int] = {}
    for effect in effects:
        if isinstance(effect, Store) and effect.row is not None and effect.table in ("session", "multicast"):
            row = effect.row
            group = effect.table == "multicast"
            next_f_cnt[int(str(row["mc_addr" if group else "dev_addr"]))] = int(
                str(row["f_cnt" if group else "f_cnt_down"])
            )
        elif isinstance(effect, Transmit):
            frame = lorawan.parse_downlink(effect.payload)
            if isinstance(frame, lorawan.DataFrame):
                assert next_f_cnt[frame.dev_addr] > frame.f_cnt
