"""The UDP socket of the packet forwarder: hands each datagram on, and sends; nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from gateway.radios.packet_forwarder import Address

__all__ = ["UdpEndpoint"]


class UdpEndpoint(asyncio.DatagramProtocol):
    """Made by `loop.create_datagram_endpoint`; `deliver` gets every datagram with its source."""

    def __init__(self, deliver: Callable[[bytes, Address], None]) -> None:
        self._deliver = deliver
        self._transport: asyncio.DatagramTransport | None = None
        self.errors = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast: the selector loop's transport has these methods without deriving from the class.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._deliver(data, (addr[0], addr[1]))

    def error_received(self, exc: Exception) -> None:
        """A gateway's host said "port unreachable": its next PULL_DATA says where it is now."""
        self.errors += 1

    def send(self, datagram: bytes, address: Address) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(datagram, address)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
