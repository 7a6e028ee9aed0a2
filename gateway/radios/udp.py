"""The UDP socket of the packet forwarder: hands each datagram on, and sends; nothing else.

asyncio asks the kernel before every single datagram which sockets have something; under load that costs more
than reading it.  So whatever else waits is read at once when the first one is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import cast

from gateway.radios.packet_forwarder import Address

__all__ = ["UdpEndpoint"]

BURST_MAX = 256
"""Datagrams read in one go: the rest of the loop gets its turn after so many."""
DATAGRAM_MAX = 65_535
RECEIVE_BYTES = 4 << 20
"""What the kernel is asked to hold of a burst of datagrams; it gives at most net.core.rmem_max."""


class UdpEndpoint(asyncio.DatagramProtocol):
    """`deliver` gets every datagram with its source, from `open` on."""

    def __init__(self, deliver: Callable[[bytes, Address], None]) -> None:
        self._deliver = deliver
        self._socket: socket.socket | None = None
        self._transport: asyncio.DatagramTransport | None = None
        self.errors = 0

    async def open(self, host: str, port: int) -> Address:
        """Bind, and say to what; OSError, UnicodeError or TypeError where that cannot be."""
        loop = asyncio.get_running_loop()
        family, kind, protocol, _, address = (await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM))[0]
        with contextlib.ExitStack() as failed:
            made = failed.enter_context(socket.socket(family, kind, protocol))
            made.setblocking(False)
            with contextlib.suppress(OSError):
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
            made.bind(address)
            await loop.create_datagram_endpoint(lambda: self, sock=made)
            failed.pop_all()
        self._socket = made
        name = made.getsockname()
        return (name[0], name[1])

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast: the selector loop's transport has these methods without deriving from the class.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._deliver(data, (addr[0], addr[1]))
        if self._socket is None:
            return
        for _ in range(BURST_MAX - 1):
            try:
                data, addr = self._socket.recvfrom(DATAGRAM_MAX)
            except BlockingIOError:
                return
            except OSError as error:
                self.error_received(error)
                return
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
