"""A device of another make, and the packet forwarder that hears it: one OTAA class A device over Semtech UDP.

It joins a running daemon, says something a few times, every so often confirmed, and prints what comes in its
receive windows.  It knows nothing of the swarm's own protocol: LoRaWAN 1.0.4 and no more.

    printf 'app_key = 2b7e151628aed2a6abf7158809cf4f3c\\n' > device.keys && chmod 600 device.keys
    swarm nodes add 70b3d57ed0001234 --name bench-1 --crop grape --keys-file device.keys
    python examples/foreign_device/device.py device.keys --dev-eui 70b3d57ed0001234 --confirmed-every 2

Its next DevNonce is kept beside the keys (`device.keys.nonce`): a network takes each only once.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
from pathlib import Path

from simulations.forwarder import Forwarder, Request
from swarm.effects import Malformed, RxFrame
from swarm.mac.channel_plan import sub_band
from swarm.mac.device import EndDevice, Joined, OtaaIdentity, RxWindow, UplinkFrame
from swarm.phy.regions import REGION_NAMES, Region, region
from swarm.prng import Prng

GATEWAY_ID = "aa555a00000001f0"
WINDOW_US = 20_000
"""A frame that begins so long before or after a receive window opens is not heard."""
LATE_S = 1.0
"""How long behind its time a downlink of the second window may still come over the network."""
PULL_S = 5.0
COUNTER = 1 << 32
"""A gateway's clock counts microseconds, and begins anew after 71 minutes."""


def now_us() -> int:
    return time.time_ns() // 1000


class Field:
    """The air between one device and one gateway, in real time; the gateway's other side is a UDP socket."""

    def __init__(self, device: EndDevice, rules: Region, daemon: tuple[str, int]) -> None:
        self.device, self.rules = device, rules
        self.forwarder = Forwarder(GATEWAY_ID, rules)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect(daemon)
        self.pulled_s = 0.0

    def send(self, frame: UplinkFrame) -> bool:
        """One uplink and its receive windows; whether something came that was for this device."""
        wait_until(frame.end_us)
        self._pull()
        rx = RxFrame(
            payload=frame.payload,
            gateway_id=GATEWAY_ID,
            at_us=frame.end_us,
            tmst_us=frame.end_us % COUNTER,
            frequency_hz=frame.frequency_hz,
            data_rate=frame.data_rate,
            rssi_dbm=-40.0,
            snr_db=9.0,
        )
        self.socket.send(self.forwarder.push_data(rx))
        windows = self.device.rx_windows(frame)
        while (request := self._request(windows[-1].open_us + int(LATE_S * 1e6))) is not None:
            # The counter says when within 71 minutes, the clock in which of them.
            start_us = frame.end_us + ((request.tmst_us or 0) - frame.end_us) % COUNTER
            for number, window in enumerate(windows, start=1):
                if abs(start_us - window.open_us) <= WINDOW_US and self._is_on(request, window):
                    wait_until(start_us)
                    after_s = round((window.open_us - frame.end_us) / 1e6)
                    print(f"device: RX{number}, {after_s} s after the uplink, {said_on(request)}", end=" -> ")
                    return self._hear(request.payload)
        return False

    def _is_on(self, request: Request, window: RxWindow) -> bool:
        """Whether the device listens where the frame is."""
        rate = self.rules.data_rate(window.data_rate, uplink=False)
        there = (request.frequency_hz, request.spreading_factor, request.bandwidth_hz)
        return there == (window.frequency_hz, rate.spreading_factor, rate.bandwidth_hz)

    def _hear(self, payload: bytes) -> bool:
        heard = self.device.receive(now_us(), payload, 9.0)
        if isinstance(heard, Malformed):
            print(f"refused: {heard.reason}", flush=True)
            return False
        if isinstance(heard, Joined):
            print(f"joined as {heard.dev_addr:08x}", flush=True)
            return True
        commands = [f"{each.cid:02x}{each.payload.hex()}" for each in heard.commands]
        text = heard.payload.hex() if heard.f_port else ""
        flags = f"ack={heard.ack} confirmed={heard.confirmed} mac={commands}"
        print(f"FPort {heard.f_port} {text} {flags}", flush=True)
        return True

    def _request(self, until_us: int) -> Request | None:
        """The next frame that the daemon wants sent; None: there was none by then."""
        while (left_us := until_us - now_us()) > 0:
            self._pull()
            self.socket.settimeout(min(left_us / 1e6, PULL_S))
            try:
                message = self.forwarder.on_datagram(self.socket.recv(65_535))
            except TimeoutError:
                continue
            if isinstance(message, Request):
                self.socket.send(self.forwarder.tx_ack(message.token, None))
                if message.tmst_us is not None:  # else it is the group's, and nobody here listens to that
                    return message
        return None

    def _pull(self) -> None:
        if time.monotonic() - self.pulled_s >= PULL_S:
            self.pulled_s = time.monotonic()
            self.socket.send(self.forwarder.pull_data())


def wait_until(at_us: int) -> None:
    time.sleep(max(0, at_us - now_us()) / 1e6)


def said_on(request: Request) -> str:
    rate = f"SF{request.spreading_factor}BW{request.bandwidth_hz // 1000}"
    return f"{request.frequency_hz / 1e6:g} MHz {rate}"


def app_key_of(file: Path) -> bytes:
    """The key in the file that `swarm nodes add --keys-file` takes too."""
    for line in file.read_text(encoding="utf-8").splitlines():
        name, _, value = (part.strip() for part in line.partition("="))
        if name == "app_key" and len(value) == 32:
            return bytes.fromhex(value)
    raise ValueError(f"{file}: there is no app_key; write a line `app_key = ` and 32 hexadecimal digits")


def address(text: str) -> tuple[str, int]:
    """HOST:PORT."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise argparse.ArgumentTypeError(f"{text!r}: write HOST:PORT, as 127.0.0.1:1700")
    return host, int(port)


def eui(text: str) -> str:
    """16 hexadecimal digits."""
    try:
        if len(bytes.fromhex(text)) == 8 and len(text) == 16:
            return text.lower()
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r}: write 16 hexadecimal digits")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("keys_file", type=Path, help="a line `app_key = ...`")
    parser.add_argument("--dev-eui", required=True, type=eui, help="16 hexadecimal digits")
    parser.add_argument("--join-eui", type=eui, default="0" * 16, help="16 hexadecimal digits")
    parser.add_argument(
        "--gateway", type=address, default="127.0.0.1:1700", help="the daemon's UDP address, HOST:PORT"
    )
    parser.add_argument("--region", default="eu868", choices=REGION_NAMES)
    parser.add_argument("--sub-band", type=int, help="of US915, AU915, CN470: the eight channels it asks on")
    parser.add_argument("--data-rate", type=int, default=3, help="of its uplinks, at first")
    parser.add_argument("--adr", action="store_true", help="let the network choose rate and power")
    parser.add_argument("--uplinks", type=int, default=3, help="so many, then it ends")
    parser.add_argument("--every-s", type=float, default=2.0, help="seconds between them, at least")
    parser.add_argument("--confirmed-every", type=int, default=0, help="every so manieth; 0: none")
    parser.add_argument("--f-port", type=int, default=99)
    parser.add_argument("--payload", type=bytes.fromhex, default=b"hello", help="hexadecimal digits")
    return parser.parse_args()


def join(field: Field, nonce_file: Path, tries: int = 5) -> bool:
    """Ask until there is an accept; the nonce is kept before it is used."""
    if nonce_file.exists():
        kept = nonce_file.read_text()
        if not kept.strip().isdecimal() or int(kept) > 65_535:
            raise ValueError(f"{nonce_file}: holds no DevNonce; write one into it that was not used yet")
        field.device.dev_nonce = int(kept)
    for _ in range(tries):
        beside = nonce_file.with_suffix(".new")
        beside.write_text(str(field.device.dev_nonce + 1))
        beside.replace(nonce_file)
        field.send(field.device.join(now_us()))
        if field.device.joined:
            return True
        print("device: no join accept", flush=True)
    return False


def main() -> int:
    given = arguments()
    rules = region(given.region)
    channels = None
    if given.sub_band is not None:
        mask = sub_band(rules, given.sub_band)
        channels = [channel for index, channel in enumerate(rules.uplink_channels) if mask >> index & 1]
    who = OtaaIdentity(given.dev_eui, given.join_eui, app_key_of(given.keys_file))
    dice = Prng(time.time_ns())
    device = EndDevice(rules, who, dice, data_rate=given.data_rate, channels=channels, adr=given.adr)
    field = Field(device, rules, given.gateway)
    if not join(field, given.keys_file.with_name(given.keys_file.name + ".nonce")):
        print("device: gives up; does `swarm events --kind dropped` say why?")
        return 1
    for number in range(1, given.uplinks + 1):
        confirmed = given.confirmed_every > 0 and number % given.confirmed_every == 0
        began_us = now_us()
        field.send(device.uplink(began_us, given.f_port, given.payload, confirmed))
        if number < given.uplinks:
            wait_until(began_us + int(given.every_s * 1e6))
    power = device.mac.tx_power
    print(f"device: DR{device.data_rate}, power index {power}, f_cnt_up {device.f_cnt_up}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, OSError) as mistake:
        print(f"device: {mistake}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
