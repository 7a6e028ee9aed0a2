"""OFFER, down 10/05: a TS004 session for all who hear it, in one frame instead of a set-up for each node.

    type u8 = 05 | control u8 (1:0 FragIndex, 4:2 BlockAckDelay, 5 version - 1) | NbFrag u16 | FragSize u8
    | padding u8 | descriptor 4 | start_in_s u16 | length_s u16 | reserved u8 = 0

It is unsigned: it opens a session and a receiver, what installs is the block's own signature.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from swarm.effects import Malformed

__all__ = ["OFFER_SIZE", "OFFER_TYPE", "SPAN_MAX_S", "Offer", "decode", "encode"]

OFFER_TYPE = 5
SPAN_MAX_S = 0xFFFF
_OFFER = struct.Struct("<BBHBB4sHHB")
OFFER_SIZE = _OFFER.size


@dataclass(frozen=True, slots=True)
class Offer:
    """A block of `nb_frag` (1..65535) pieces of `frag_size` bytes, the last `padding` of them no data.

    The group sends it from `start_in_s` s after this frame's end (0: it runs) for `length_s` s (1..65535).
    `index` (0..3), `block_ack_delay` (0..7), `version` (1, 2) and `descriptor` (4 B) are those of TS004.
    """

    index: int
    block_ack_delay: int
    version: int
    nb_frag: int
    frag_size: int
    padding: int
    descriptor: bytes
    start_in_s: int
    length_s: int


def _is_valid(offer: Offer) -> bool:
    return (
        0 <= offer.index <= 3
        and 0 <= offer.block_ack_delay <= 7
        and offer.version in (1, 2)
        and offer.nb_frag > 0
        and offer.padding < offer.frag_size
        and len(offer.descriptor) == 4
        and offer.length_s > 0
    )


def encode(offer: Offer) -> bytes | None:
    """The payload; None when a field cannot be said, struct.error when it does not fit."""
    if not _is_valid(offer):
        return None
    control = offer.index | offer.block_ack_delay << 2 | (offer.version - 1) << 5
    counts = (offer.nb_frag, offer.frag_size, offer.padding)
    return _OFFER.pack(OFFER_TYPE, control, *counts, offer.descriptor, offer.start_in_s, offer.length_s, 0)


def decode(payload: bytes) -> Offer | Malformed:
    """The offer; its reserved bits mean nothing."""
    if len(payload) != OFFER_SIZE:
        return Malformed("size")
    _, control, *rest, _ = _OFFER.unpack(payload)
    offer = Offer(control & 3, control >> 2 & 7, 1 + (control >> 5 & 1), *rest)
    return offer if _is_valid(offer) else Malformed("value")
