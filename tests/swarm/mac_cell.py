"""A cell with one device that hears its own downlinks in its own windows, for tests of the MAC."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from swarm.commands import AddNode
from swarm.config import Mac, SwarmConfig
from swarm.effects import Malformed, Transmit
from swarm.mac.device import Delivered, EndDevice, Joined, OtaaIdentity, UplinkFrame
from swarm.phy.regions import Region, region
from swarm.prng import Prng
from tests.swarm.cell import SECOND_US, Cell, add_node, dev_eui, key

JOIN_EUI = "70b3d57ed0ffffff"


@dataclass
class MacCell:
    """`snr_db` is what the gateway reports of every uplink."""

    name: str = "eu868"
    mac: Mac = field(default_factory=Mac)
    adr: bool = True
    data_rate: int | None = None
    device_class: str = "a"
    snr_db: float = 8.0
    deaf: bool = False
    """The device hears nothing."""

    def __post_init__(self) -> None:
        self.rules: Region = region(self.name)
        config = SwarmConfig(region=self.name, mac=self.mac)
        self.cell = Cell(config, nodes=0, activation="otaa")
        node: AddNode = replace(add_node(0, "otaa"), device_class=self.device_class)  # type: ignore[arg-type]
        assert self.cell.command(node) is None
        slow = self.data_rate
        if slow is None:
            slow = min(r for r in self.rules.uplink_data_rates if self.rules.payload_max(r, uplink=True))
        who = OtaaIdentity(dev_eui(0), JOIN_EUI, key(5, 0))
        self.device = EndDevice(self.rules, who, Prng(3), data_rate=slow, adr=self.adr)
        self.heard: list[Delivered] = []
        self._seen = 0

    def join(self) -> Joined | Malformed | None:
        """One join request and what came of it."""
        request = self.device.join(self.cell.now_us)
        return self._send(request)

    def up(
        self, payload: bytes = b"", *, f_port: int | None = 99, confirmed: bool = False, reaches: bool = True
    ) -> UplinkFrame:
        """One uplink, and its receive windows."""
        frame = self.device.uplink(self.cell.now_us, f_port, payload, confirmed)
        self._send(frame, reaches=reaches)
        return frame

    def again(self, frame: UplinkFrame) -> UplinkFrame:
        """The same uplink once more."""
        frame = self.device.again(self.cell.now_us, frame)
        self._send(frame)
        return frame

    def _send(self, frame: UplinkFrame, *, reaches: bool = True) -> Joined | Malformed | None:
        cell = self.cell
        windows = self.device.rx_windows(frame)
        cell.run_until(frame.end_us)
        if reaches:
            self._hear(frame)
        cell.run_until(windows[1].open_us + 3 * SECOND_US)
        result: Joined | Malformed | None = None
        for transmit in self.new():
            if transmit.tmst_us is None or self.deaf:
                continue
            at = [w for w in windows if w.open_us == transmit.at_us]
            assert at, f"sent at {transmit.at_us - frame.end_us} us after the uplink"
            assert (transmit.frequency_hz, transmit.data_rate) == (at[0].frequency_hz, at[0].data_rate)
            taken = self.device.receive(transmit.at_us + transmit.airtime_us, transmit.payload, 5.0)
            if isinstance(taken, Delivered):
                self.heard.append(taken)
            else:
                result = taken
        return result

    def new(self) -> list[Transmit]:
        """What went on the air since the last call."""
        new = self.cell.on_air[self._seen :]
        self._seen = len(self.cell.on_air)
        return new

    def _hear(self, frame: UplinkFrame) -> None:
        cell = self.cell
        hear = cell.core.on_uplink

        def at_this_snr(now_us: int, rx: object) -> object:
            return hear(now_us, replace(rx, snr_db=self.snr_db))  # type: ignore[type-var]

        cell.core.on_uplink = at_this_snr  # type: ignore[assignment,method-assign]
        cell.hear(frame.payload, frame)
        cell.core.on_uplink = hear  # type: ignore[method-assign]
        cell.run_for(cell.config.dedup_us / SECOND_US)

    def told(self, kind: str) -> list[dict[str, object]]:
        return [dict(event.data) for event in self.cell.told(kind)]

    def session(self) -> object:
        entry = self.cell.core.registry.get(dev_eui(0))
        assert entry is not None
        return entry.session
