"""What is refused before the core: how it becomes an event, and what each reason means to a person.

Theory of operation.  Anybody may send datagrams to a gateway's port, so a refusal must cost little.  Each is
counted by the radio under its reason; the first of a reason is an event `dropped` at once, and after that one
event in `EVERY_US` says how often it happened meanwhile.  Reasons are fixed names: nothing fills up.
"""

from __future__ import annotations

from gateway.radios.radio import Refusal
from swarm.effects import Event

__all__ = ["EVERY_US", "MEANINGS", "Refusals", "meaning"]

EVERY_US = 10_000_000

MEANINGS = {
    "base64": "the gateway's report is damaged",
    "counter_jump": "the node's counter is more than 65,535 ahead of the last frame heard: let it join "
    "again; an ABP node needs new keys",
    "crc": "the gateway received the frame with errors; it should not report such frames",
    "data_rate": "no LoRa data rate",
    "datagram_size": "a datagram too small or too large for a packet forwarder's",
    "dev_nonce": "a join request that was heard before, or a node that forgot its DevNonce: it must keep it "
    "over resets; else remove the node and add it with a new AppKey",
    "direction": "another gateway's downlink, not a node's frame",
    "f_opts": "MAC commands in two places: no LoRaWAN 1.0 frame",
    "f_port": "a genuine frame of your node on an FPort that nobody here reads",
    "field_missing": "the gateway's report lacks a field",
    "field_range": "a field of the gateway's report is out of its range",
    "field_type": "a field of the gateway's report is of another kind",
    "gateway_not_allowed": "this gateway is not in [udp] gateways: add it there, if it is yours",
    "gateway_table_full": "too many gateways: name yours in [udp] gateways",
    "join_eui": "the node asks with another JoinEUI than registered: correct the one or the other",
    "join_nonce": "16 million joins are used up: give the node a new AppKey",
    "json": "the gateway's report is no JSON",
    "kind": "no message that a packet forwarder sends",
    "major": "not LoRaWAN 1.0",
    "mic": "the key is not the one registered, or the frame is forged: compare the node's keys",
    "modulation": "not LoRa modulation",
    "not_allowed": "this station is not in [stations] gateways: add it there, if it is yours",
    "overflow": "more frames at once than are looked at: a flood",
    "proprietary": "a proprietary frame, not LoRaWAN's",
    "region_data_rate": "no data rate of this region: [gateway] region and the packet forwarder must agree",
    "region_frequency": "no frequency of this region: [gateway] region and the packet forwarder must agree",
    "rejoin": "a rejoin request of LoRaWAN 1.1; nodes here speak 1.0",
    "replay": "this counter was used already: an attack, or an ABP node that lost its memory; give that one "
    "new keys, or make it OTAA",
    "rxpk_count": "more frames in one datagram than a gateway can have",
    "rxpk_shape": "the gateway's report is no list of frames",
    "size": "too short or too long for the kind of frame that it says it is",
    "size_mismatch": "the gateway's report is cut, or its size is wrong",
    "stat_shape": "the gateway's report on itself is none",
    "too_many_gateways": "more gateways than are looked after: name yours in [udp] gateways",
    "tx_ack_shape": "the gateway's word on a downlink is none",
    "type": "a genuine frame of your node, but not of this protocol: firmware and gateway of one version",
    "unknown_device": "no node here has this address: a neighbour's, or one that you have not imported",
    "value": "a genuine frame of your node with a value that cannot be: firmware and gateway of one version",
    "version": "another version of the packet forwarder's protocol: 2 is spoken here",
}
"""Reason -> what it means, and what to do where something can be done."""


def meaning(kind: str, reason: object) -> str | None:
    """What a person should know of a `dropped` event; None for other kinds and reasons without a text."""
    return MEANINGS.get(str(reason)) if kind == "dropped" else None


class Refusals:
    """Of one daemon: which reasons were told lately, and how often they came since."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[int, int]] = {}
        """Reason -> when an event told of it (us), and how many refusals no event has told of."""

    def event(self, now_us: int, refusal: Refusal) -> Event | None:
        """The event of a refusal, or None: one told of its reason just now."""
        told_us, untold = self._told.get(refusal.reason, (now_us - EVERY_US, 0))
        if now_us - told_us < EVERY_US:
            self._told[refusal.reason] = told_us, untold + 1
            return None
        self._told[refusal.reason] = now_us, 0
        data = {"reason": refusal.reason, "detail": refusal.detail, "gateway_id": refusal.gateway_id}
        return Event("dropped", now_us, {**data, "times": untold + 1} if untold else data)
