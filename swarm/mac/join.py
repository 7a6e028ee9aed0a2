"""Over-the-air activation at the network: one request in, one session and one join accept out.

LoRaWAN 1.0.4: DevNonce is a counter that the device never repeats, JoinNonce one that the network
never repeats for a device.  Both are in the `Device` that comes back and must be stored, with the
session, before the accept is sent; a recorded request is thereby worthless.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from swarm.effects import Malformed
from swarm.mac.channel_plan import cf_list_masks
from swarm.mac.session import Session
from swarm.phy.regions import Region
from swarm.security.lorawan import AesKey, same_mic, seal_join_accept, session_keys
from swarm.wire.lorawan import JoinAccept, JoinRequest, cf_list_of, encode_join_accept

__all__ = ["CF_LIST_MAX", "DEV_NONCE_MAX", "JOIN_NONCE_MAX", "REASONS", "Device", "answer_join"]

DEV_NONCE_MAX = 0xFFFF
JOIN_NONCE_MAX = 0xFFFFFF
CF_LIST_MAX = 5

REASONS = ("dev_eui", "join_eui", "mic", "dev_nonce", "join_nonce")
"""Why a join is refused: not this device, another join server's, a wrong key, a DevNonce that does not
grow (a replay, or a device that lost its memory), or no JoinNonce left."""


@dataclass(frozen=True, slots=True)
class Device:
    """What the network keeps of a device across joins; `last_dev_nonce` None: it never joined."""

    dev_eui: str
    join_eui: str
    app_key: bytes = field(repr=False)
    last_dev_nonce: int | None = None
    join_nonce: int = 0


def answer_join(
    device: Device,
    request: JoinRequest,
    *,
    dev_addr: int,
    net_id: int,
    region: Region,
    rx1_delay_s: int = 1,
    rx1_dr_offset: int = 0,
    rx2_data_rate: int | None = None,
    channels: int | None = None,
) -> tuple[Session, bytes, Device] | Malformed:
    """The new session, the join accept's PHYPayload and the device to store; or why not.

    The integrity code is checked before the nonce, so that a forged request teaches its sender nothing.
    `channels`: those of a fixed plan that the device is to use, as `swarm.mac.channel_plan` has them.
    """
    if request.dev_eui != device.dev_eui:
        return Malformed("dev_eui", request.dev_eui)
    if request.join_eui != device.join_eui:
        return Malformed("join_eui", request.join_eui)
    app_key = AesKey(device.app_key)
    if not same_mic(app_key.mic(request.signed), request.mic):
        return Malformed("mic", f"join request of {request.dev_eui}")
    if device.last_dev_nonce is not None and request.dev_nonce <= device.last_dev_nonce:
        return Malformed("dev_nonce", f"{request.dev_nonce} after {device.last_dev_nonce}")
    join_nonce = device.join_nonce + 1
    if join_nonce > JOIN_NONCE_MAX:
        return Malformed("join_nonce", "used up: give the device a new AppKey")
    cf_list = _cf_list(region) if channels is None else cf_list_masks(region, channels)
    rx2_rate = region.rx2_data_rate if rx2_data_rate is None else rx2_data_rate
    accept = JoinAccept(join_nonce, net_id, dev_addr, rx1_dr_offset, rx2_rate, rx1_delay_s, cf_list)
    nwk_s_key, app_s_key = session_keys(
        app_key, join_nonce=join_nonce, net_id=net_id, dev_nonce=request.dev_nonce
    )
    session = Session(
        dev_eui=device.dev_eui,
        dev_addr=dev_addr,
        nwk_s_key=nwk_s_key,
        app_s_key=app_s_key,
        rx1_delay_us=rx1_delay_s * 1_000_000,
        rx1_dr_offset=rx1_dr_offset,
        rx2_frequency_hz=region.rx2_frequency_hz,
        rx2_data_rate=rx2_rate,
    )
    sealed = seal_join_accept(app_key, encode_join_accept(accept))
    return session, sealed, replace(device, last_dev_nonce=request.dev_nonce, join_nonce=join_nonce)


def _cf_list(region: Region) -> bytes:
    """The region's extra channels, where its devices take frequencies."""
    if region.cflist != "frequencies" or not region.extra_channels:
        return b""
    return cf_list_of(tuple(channel.frequency_hz for channel in region.extra_channels[:CF_LIST_MAX]))
