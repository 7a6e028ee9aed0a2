"""FPorts 200-203, LoRaWAN's application packages: the clock is told here, blocks and groups go to `blocks`.

A device that asks for the time (TS003) gets it in the receive window of that very request, counted from the
end of its frame, as DeviceTimeAns would be; behind a network server, which may send it after a later
uplink, it is right all the same, for it is a difference, and the token says which request it answers.  What
version of a package it speaks (in answer to a question) is noted; TS006 (FPort 203) has nothing else here.
"""

from __future__ import annotations

from swarm.downlinks import Downlinks, Pending
from swarm.effects import Effect, Event, Malformed, Purpose
from swarm.large_blocks.blocks import Blocks
from swarm.registry import Entry
from swarm.wire import clock_sync
from swarm.wire.packages import F_PORTS, Package, PackageVersionAns, decode_version_uplink

__all__ = ["PORTS", "PackagePorts"]

PORTS = frozenset(F_PORTS.values())
CLOCK_PORT = F_PORTS[Package.CLOCK_SYNC]
FIRMWARE_PORT = F_PORTS[Package.FIRMWARE]
ANSWER_US = 30_000_000
"""A correction is of its request's time: later it may be of another clock."""


class PackagePorts:
    """The door of the four ports."""

    def __init__(self, downlinks: Downlinks, blocks: Blocks) -> None:
        self._downlinks = downlinks
        self._blocks = blocks

    def on_uplink(
        self, now_us: int, entry: Entry, f_port: int, payload: bytes, heard_us: int
    ) -> list[Effect] | Malformed:
        """A payload of one of `PORTS`; its frame ended at `heard_us` (Unix time)."""
        if f_port == CLOCK_PORT:
            return self._clock(now_us, entry, payload, heard_us)
        if f_port == FIRMWARE_PORT:
            answers = decode_version_uplink(payload)
            return answers if isinstance(answers, Malformed) else _versions(now_us, entry, answers)
        return self._blocks.on_uplink(now_us, entry, f_port, payload)

    def _clock(self, now_us: int, entry: Entry, payload: bytes, heard_us: int) -> list[Effect] | Malformed:
        commands = clock_sync.decode_uplink(payload)
        if isinstance(commands, Malformed):
            return commands
        dev_eui = entry.record.dev_eui
        effects: list[Effect] = []
        for command in commands:
            if isinstance(command, clock_sync.AppTimeReq):
                told = clock_sync.answer(command, clock_sync.gps_s(heard_us))
                if now_us - heard_us > ANSWER_US:
                    told = None  # a broker kept it: the device may have started anew since
                if told is not None:
                    frame = clock_sync.encode(told)
                    until_us = now_us + ANSWER_US
                    pending = Pending(CLOCK_PORT, frame, len(frame), Purpose.ACK, until_us, "clock")
                    self._downlinks.withdraw(dev_eui, "clock")
                    self._downlinks.enqueue(dev_eui, pending, first=True)
            elif isinstance(command, PackageVersionAns):
                effects += _versions(now_us, entry, (command,))
        return effects


def _versions(now_us: int, entry: Entry, answers: tuple[PackageVersionAns, ...]) -> list[Effect]:
    """At most one event a frame: it says the same as often as it likes."""
    said = answers[-1]
    data = {"dev_eui": entry.record.dev_eui, "package": said.package, "version": said.version}
    return [Event("package_version", now_us, data)]
