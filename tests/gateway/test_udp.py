"""The UDP socket: a burst is read at once, bounded, in order; a port that is taken says so."""

from __future__ import annotations

import asyncio
import socket

import pytest

from gateway.radios.udp import BURST_MAX, UdpEndpoint


async def test_a_burst_is_read_in_few_turns_of_the_loop_and_in_order() -> None:
    """Method: all is sent before the loop runs; a turn of the loop reads at most `BURST_MAX`."""
    read: list[bytes] = []
    endpoint = UdpEndpoint(lambda data, _: read.append(data))
    address = await endpoint.open("127.0.0.1", 0)
    sent = [number.to_bytes(2, "big") for number in range(BURST_MAX + 50)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for data in sent:
            sender.sendto(data, address)
    lengths = []
    while len(read) < len(sent):
        await asyncio.sleep(0)
        if not lengths or len(read) > lengths[-1]:
            lengths.append(len(read))
    endpoint.close()
    assert read == sent
    assert [length for length in lengths if length] == [BURST_MAX, len(sent)]


async def test_a_port_that_is_taken_is_an_error_and_leaves_no_socket_open() -> None:
    first, second = UdpEndpoint(lambda *_: None), UdpEndpoint(lambda *_: None)
    host, port = await first.open("127.0.0.1", 0)
    with pytest.raises(OSError, match="in use"):
        await second.open(host, port)
    second.send(b"nothing", (host, port))  # does no harm
    first.close()
    second.close()


async def test_an_answer_to_a_closed_port_does_not_end_the_reading() -> None:
    read: list[bytes] = []
    endpoint = UdpEndpoint(lambda data, _: read.append(data))
    address = await endpoint.open("127.0.0.1", 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        nobody = other.getsockname()
        other.sendto(b"before", address)
    endpoint.send(b"?", nobody)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.sendto(b"after", address)
    async with asyncio.timeout(10):
        while read[-1:] != [b"after"]:
            await asyncio.sleep(0)
    endpoint.close()
    assert read == [b"before", b"after"]
