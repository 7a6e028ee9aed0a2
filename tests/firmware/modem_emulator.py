"""A LoRaWAN modem at a pseudo-terminal: the vendors' commands, a genuine MAC, the gateway's own core.

`World` runs in lockstep with the program `modem_node` (`node_firmware/port/modem/main_posix.c`): it hands it
the time, reads the commands that the program wrote to its terminal, and answers as the modem would.  The
modem's radio is an `EndDevice` in front of the `Cell` of the coordinator's tests; it hears a downlink only in
a receive window of its last uplink, or in class C on the group's channel.  Nothing waits for real time.
"""

from __future__ import annotations

import heapq
import os
import re
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from swarm.effects import Malformed, Transmit
from swarm.mac.device import AbpIdentity, Delivered, EndDevice, Joined, OtaaIdentity, UplinkFrame
from swarm.prng import Prng
from tests.swarm.cell import SECOND_US, START_US, Cell

SERIAL_US = 5_000
WINDOW_US = 50_000
NEVER_US = 1 << 62


@dataclass
class Modem(ABC):
    """The radio and the settings of one modem; `say` takes its lines."""

    cell: Cell
    say: Callable[[str], None]
    settings: dict[str, str] = field(default_factory=dict)
    device: EndDevice | None = None
    class_c: bool = False
    group: tuple[int, bytes, bytes, int, int] | None = None
    commands: list[str] = field(default_factory=list)
    missed: int = 0
    nonce: int = 0
    banner: str = ""
    _frame: UplinkFrame | None = None
    _heap: list[tuple[int, int, Callable[[], None]]] = field(default_factory=list)
    _order: int = 0
    _heard: int = 0

    # -- time -------------------------------------------------------------------------------------

    def due_us(self) -> int:
        return self._heap[0][0] if self._heap else NEVER_US

    def later(self, at_us: int, act: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._heap, (at_us, self._order, act))

    def run(self) -> None:
        """What is due at the cell's time."""
        while self.due_us() <= self.cell.now_us:
            heapq.heappop(self._heap)[2]()
        for transmit in self.cell.on_air[self._heard :]:
            end_us = transmit.at_us + transmit.airtime_us
            self.later(end_us, lambda transmit=transmit: self.hear(transmit))  # type: ignore[misc]
        self._heard = len(self.cell.on_air)

    # -- radio ------------------------------------------------------------------------------------

    def join(self) -> None:
        if self.settings.get("njm") == "0":
            keys = (self.settings[name] for name in ("nwkskey", "appskey"))
            who: AbpIdentity | OtaaIdentity = AbpIdentity(
                int(self.settings["devaddr"], 16), *map(bytes.fromhex, keys)
            )
            self.device = EndDevice(self.cell.region, who, Prng(1))
            self._settle()
            self.on_joined(True)
            return
        who = OtaaIdentity(
            self.settings["deveui"].lower(),
            self.settings["appeui"].lower(),
            bytes.fromhex(self.settings["appkey"]),
        )
        self.device = EndDevice(self.cell.region, who, Prng(1))
        self.device.dev_nonce = self.nonce
        self._settle()
        self._send(self.device.join(self.cell.now_us), lambda: None)
        self.nonce = self.device.dev_nonce
        assert self._frame is not None
        self.later(self._frame.end_us + 8 * SECOND_US, self._join_over)

    def _settle(self) -> None:
        assert self.device is not None
        self.device.data_rate = int(self.settings.get("dr", "0"))
        if self.group is not None:
            self.device.add_group(*self.group[:3])

    def _join_over(self) -> None:
        assert self.device is not None
        if not self.device.joined:
            self.on_joined(False)

    def set_group(self, address: int, nwk: bytes, app: bytes, frequency_hz: int, data_rate: int) -> None:
        self.group = (address, nwk, app, frequency_hz, data_rate)
        if self.device is not None:
            self.device.add_group(address, nwk, app)

    def uplink(self, f_port: int, payload: bytes) -> str | int:
        """`ok`, `not_joined`, `size`; or how many us until the duty cycle allows."""
        if self.device is None or not self.device.joined:
            return "not_joined"
        if len(payload) > self.cell.region.payload_max(self.device.data_rate, uplink=True):
            return "size"
        if self._frame is not None and self.cell.now_us < self._frame.end_us + 2 * SECOND_US:
            return 10 * SECOND_US
        frame = self.device.uplink(self.cell.now_us, f_port, payload)
        self._send(frame, self.on_sent)
        return "ok"

    def _send(self, frame: UplinkFrame, done: Callable[[], None]) -> None:
        self._frame = frame
        self.later(frame.end_us, lambda: self.cell.hear(frame.payload, frame))
        self.later(frame.end_us + 3 * SECOND_US, done)

    def hear(self, transmit: Transmit) -> None:
        if self.device is None or not self._listens(transmit):
            self.missed += 1
            return
        result = self.device.receive(self.cell.now_us, transmit.payload)
        if isinstance(result, Joined):
            self.on_joined(True)
        elif isinstance(result, Delivered) and result.f_port and result.payload:
            self.on_downlink(result.f_port, result.payload, transmit.multicast)
        elif isinstance(result, Malformed):
            assert result.reason in ("dev_addr", "replay"), result

    def _listens(self, transmit: Transmit) -> bool:
        assert self.device is not None
        channel = (transmit.frequency_hz, transmit.data_rate)
        if self.class_c and self.group is not None and channel == self.group[3:]:
            return True
        windows = self.device.rx_windows(self._frame) if self._frame is not None else ()
        return any(
            abs(window.open_us - transmit.at_us) < WINDOW_US
            and (window.frequency_hz, window.data_rate) == channel
            for window in windows
        )

    # -- the dialect ------------------------------------------------------------------------------

    @abstractmethod
    def command(self, line: str) -> None:
        """The program wrote this line."""

    @abstractmethod
    def on_joined(self, joined: bool) -> None:
        """A join came to its end."""

    @abstractmethod
    def on_sent(self) -> None:
        """The receive windows of an uplink are over."""

    @abstractmethod
    def on_downlink(self, f_port: int, payload: bytes, multicast: bool) -> None:
        """The radio received something."""

    def boot(self) -> None:
        """Power fails and returns: session, group and settings are gone, the DevNonce is not."""
        self.device, self.group, self._frame = None, None, None
        self.class_c = False
        self.settings.clear()
        self._heap.clear()
        self.say(self.banner)


SETTINGS = {"NJM", "DEVEUI", "APPEUI", "APPKEY", "DEVADDR", "NWKSKEY", "APPSKEY", "CFM", "DCS", "ADR"}


@dataclass
class Rui3(Modem):
    """RAK3172: a status after each command, then events."""

    banner: str = "Current Work Mode: LoRaWAN."

    def command(self, line: str) -> None:
        self.commands.append(line)
        name, _, value = line.removeprefix("AT+").partition("=")
        if name in SETTINGS:
            self.settings[name.lower()] = value
            self.say("OK")
        else:
            getattr(self, f"at_{name.lower()}", self.at_unknown)(value)

    def at_unknown(self, value: str) -> None:
        self.say("AT_ERROR")

    def at_band(self, value: str) -> None:
        self.say("OK" if value == "4" else "AT_PARAM_ERROR")

    def at_dr(self, value: str) -> None:
        if value == "?":
            self.say(f"AT+DR={self.device.data_rate if self.device is not None else 0}")
        else:
            self.settings["dr"] = value
        self.say("OK")

    def at_class(self, value: str) -> None:
        self.class_c = value == "C"
        self.say("OK")

    def at_join(self, value: str) -> None:
        assert value == "1:0:8:1"
        self.say("OK")
        self.join()

    def at_rmvmulc(self, value: str) -> None:
        known = self.group is not None and f"{self.group[0]:08X}" == value
        self.group = None if known else self.group
        self.say("OK" if known else "AT_PARAM_ERROR")

    def at_addmulc(self, value: str) -> None:
        kind, address, nwk, app, frequency, rate = value.split(":")
        if kind != "C" or self.group is not None:
            self.say("AT_PARAM_ERROR")
            return
        self.set_group(int(address, 16), bytes.fromhex(nwk), bytes.fromhex(app), int(frequency), int(rate))
        self.say("OK")

    def at_send(self, value: str) -> None:
        port, _, data = value.partition(":")
        word = self.uplink(int(port), bytes.fromhex(data))
        if isinstance(word, int):
            self.say(f"Restricted_Wait_{word // 1000}_ms")
            self.say("AT_BUSY_ERROR")
        else:
            self.say({"ok": "OK", "size": "AT_PARAM_ERROR", "not_joined": "AT_NO_NETWORK_JOINED"}[word])

    def on_joined(self, joined: bool) -> None:
        self.say("+EVT:JOINED" if joined else "+EVT:JOIN_FAILED_RX_TIMEOUT")

    def on_sent(self) -> None:
        self.say("+EVT:TX_DONE")

    def on_downlink(self, f_port: int, payload: bytes, multicast: bool) -> None:
        window, whose = ("C", "MULTICAST") if multicast else ("1", "UNICAST")
        self.say(f"+EVT:RX_{window}:-71:9:{whose}:{f_port}:{payload.hex()}")


@dataclass
class Rn2483(Modem):
    """`ok`, and a second answer later; one group, which listens where RX2 is."""

    banner: str = "RN2483 1.0.5 Oct 31 2018 15:06:52"
    answered: bool = False

    def command(self, line: str) -> None:
        self.commands.append(line)
        match line.split():
            case ["mac", "reset", "868"]:
                self.settings.clear()
                self.say("ok")
            case ["mac", "set", "class", letter]:
                self.class_c = letter == "c"
                self.say("ok")
            case ["mac", "set", name, *values]:
                self.settings[name] = " ".join(values)
                self.say("ok")
            case ["mac", "get", "dr"]:
                self.say(str(self.device.data_rate if self.device is not None else 0))
            case ["mac", "join", "otaa"]:
                self.say("ok")
                self.join()
                self._group_of_settings()
            case ["mac", "tx", "uncnf", port, data]:
                word = self.uplink(int(port), bytes.fromhex(data))
                self.answered = False
                names = {"ok": "ok", "size": "invalid_data_len", "not_joined": "not_joined"}
                self.say("no_free_ch" if isinstance(word, int) else names[word])
            case _:
                self.say("invalid_param")

    def _group_of_settings(self) -> None:
        assert self.settings["mcast"] == "on"
        rate, frequency = self.settings["rx2"].split()
        keys = [bytes.fromhex(self.settings[name]) for name in ("mcastnwkskey", "mcastappskey")]
        self.set_group(int(self.settings["mcastdevaddr"], 16), keys[0], keys[1], int(frequency), int(rate))

    def on_joined(self, joined: bool) -> None:
        self.say("accepted" if joined else "denied")

    def on_sent(self) -> None:
        if not self.answered:
            self.say("mac_tx_ok")

    def on_downlink(self, f_port: int, payload: bytes, multicast: bool) -> None:
        self.answered = True
        self.say(f"mac_rx {f_port} {payload.hex().upper()}")


class World:
    """The program, its terminal, the modem and the cell, in one time."""

    def __init__(self, program: Path, model: Path, cell: Cell, kind: type[Modem], *options: str) -> None:
        self.master, self._slave = os.openpty()
        os.set_blocking(self.master, False)
        self._begin(cell, kind, [program, os.ttyname(self._slave), model, "--clock", "stdin", *options])

    def _begin(self, cell: Cell, kind: type[Modem], command: Sequence[Path | str]) -> None:
        self.cell = cell
        self.modem = kind(cell, self._say)
        self.process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.told: list[str] = []
        self._bytes = b""

    def close(self) -> None:
        """End the program by the end of its input."""
        self._end()
        os.close(self.master)
        os.close(self._slave)

    def _end(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        assert self.process.wait(10) == 0
        self.process.stdout.close()

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def run_for(self, seconds: int) -> None:
        end_us = self.cell.now_us + seconds * SECOND_US
        while self.cell.now_us < end_us:
            until_us = self._program()
            if self._commands():
                next_us = self.cell.now_us + SERIAL_US
            else:
                next_us = min(until_us, self.modem.due_us(), self.cell.core.poll_at() or NEVER_US)
            self.cell.run_until(min(max(next_us, self.cell.now_us + 1), end_us))
            self.modem.run()

    def _program(self) -> int:
        """Let the program do what is due; when it wants to be called again."""
        assert self.process.stdout is not None
        self.tell(f"at {self.cell.now_us - START_US}")
        while line := self.process.stdout.readline():
            if found := re.fullmatch(r"until (\d+)\n", line):
                return START_US + int(found[1])
            self._told(line.rstrip("\n"))
        raise AssertionError(f"the program ended: {self.told[-5:]}")

    def _told(self, line: str) -> None:
        self.told.append(line)

    def _commands(self) -> bool:
        self._bytes += self._read()
        if not self._bytes:
            return False
        *lines, self._bytes = self._bytes.split(b"\r\n")
        for line in lines:
            self.modem.command(line.decode("ascii"))
        return True

    def _read(self) -> bytes:
        try:
            return os.read(self.master, 65536)
        except BlockingIOError:
            return b""

    def _say(self, line: str) -> None:
        os.write(self.master, line.encode("ascii") + b"\r\n")


class Emulated(World):
    """The same with the firmware of `node_firmware/port/qemu`: its modem's bytes travel as lines, too."""

    def __init__(self, firmware: Path, machine: str, cell: Cell, kind: type[Modem]) -> None:
        quiet = ("-display", "none", "-monitor", "none", "-serial", "stdio")
        exit_status = ("-semihosting-config", "enable=on,target=native")
        self._heard: list[str] = []
        self._said = b""
        command = ["qemu-system-arm", "-M", machine, *quiet, *exit_status, "-kernel", firmware]
        self._begin(cell, kind, command)

    def close(self) -> None:
        """Tell the firmware to end."""
        self.tell("quit")
        self._end()

    def tell(self, line: str) -> None:
        """Each line with its time before it, and what the modem has said since the last one."""
        now = f"now {self.cell.now_us - START_US}"
        heard, self._heard = self._heard, []
        super().tell("\n".join((now, *heard, line)))

    def _told(self, line: str) -> None:
        if line.startswith("say "):
            self._said += bytes.fromhex(line[4:])
        else:
            super()._told(line)

    def _read(self) -> bytes:
        said, self._said = self._said, b""
        return said

    def _say(self, line: str) -> None:
        self._heard.append(f"hear {(line + chr(13) + chr(10)).encode('ascii').hex()}")
