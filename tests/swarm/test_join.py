"""Over-the-air activation at the network: nonces only grow, forged requests teach nothing, keys agree."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.effects import Malformed
from swarm.mac import join
from swarm.mac.join import Device, answer_join
from swarm.mac.session import Session
from swarm.phy.regions import region
from swarm.security.lorawan import AesKey, open_join_accept, session_keys
from swarm.wire import lorawan

JOINS = json.loads(
    (Path(__file__).resolve().parent.parent / "vectors" / "lorawan_phy.json").read_text(encoding="utf-8")
)["joins"]
EU868 = region("eu868")
KEY = AesKey(bytes(range(16)))
DEVICE = Device("0011223344556677", "8899aabbccddeeff", KEY.raw)


def request_of(dev_nonce: int, device: Device = DEVICE, key: AesKey = KEY) -> lorawan.JoinRequest:
    signed = lorawan.encode_join_request(device.join_eui, device.dev_eui, dev_nonce)
    request = lorawan.parse(signed + key.mic(signed))
    assert isinstance(request, lorawan.JoinRequest)
    return request


def joined(device: Device, dev_nonce: int, **options: Any) -> tuple[Session, bytes, Device]:
    answer = answer_join(
        device, request_of(dev_nonce), dev_addr=0x2600_0001, net_id=0x13, region=EU868, **options
    )
    assert not isinstance(answer, Malformed), answer
    return answer


def refused(device: Device, request: lorawan.JoinRequest) -> str:
    answer = answer_join(device, request, dev_addr=1, net_id=0x13, region=EU868)
    assert isinstance(answer, Malformed)
    assert answer.reason in join.REASONS
    return answer.reason


@pytest.mark.parametrize("vector", JOINS, ids=lambda vector: vector["name"])
def test_published_activations(vector: dict[str, Any]) -> None:
    """Goal: another stack's device joins here.  Method: its request in, its accept out, byte by byte."""
    settings = int(vector["dl_settings"], 16)
    extra = EU868.extra_channels if vector["cf_list"] else ()
    device = Device(
        vector["dev_eui"],
        vector["join_eui"],
        bytes.fromhex(vector["app_key"]),
        None,
        int(vector["join_nonce"], 16) - 1,
    )
    request = lorawan.parse(bytes.fromhex(vector["join_request_phy"]))
    assert isinstance(request, lorawan.JoinRequest)
    answer = answer_join(
        device,
        request,
        dev_addr=int(vector["dev_addr"], 16),
        net_id=int(vector["net_id"], 16),
        region=replace(EU868, extra_channels=extra),
        rx1_delay_s=int(vector["rx_delay"], 16),
        rx1_dr_offset=settings >> 4,
        rx2_data_rate=settings & 15,
    )
    assert not isinstance(answer, Malformed)
    session, accept, after = answer
    assert accept.hex() == vector["join_accept_phy_encrypted"]
    assert (session.nwk_s_key.hex(), session.app_s_key.hex()) == (vector["nwk_s_key"], vector["app_s_key"])
    assert session.rx1_delay_us == int(vector["rx_delay"], 16) * 1_000_000
    assert (after.last_dev_nonce, after.join_nonce) == (request.dev_nonce, int(vector["join_nonce"], 16))


def test_the_session_starts_fresh_with_the_receive_windows_that_the_accept_tells() -> None:
    """Goal: network and device agree on the windows.  Method: open the accept as the device does."""
    session, sealed, device = joined(DEVICE, 0, rx1_delay_s=5, rx1_dr_offset=2, rx2_data_rate=3)
    plain = open_join_accept(KEY, sealed)
    assert plain is not None
    accept = lorawan.parse_join_accept(plain)
    assert isinstance(accept, lorawan.JoinAccept)
    assert (accept.dev_addr, accept.net_id, accept.join_nonce) == (0x2600_0001, 0x13, 1)
    assert (accept.rx1_delay_s, accept.rx1_dr_offset, accept.rx2_data_rate) == (5, 2, 3)
    assert lorawan.cf_list_channels(accept.cf_list) == tuple(c.frequency_hz for c in EU868.extra_channels)
    assert (session.rx1_delay_us, session.rx1_dr_offset, session.rx2_data_rate) == (5_000_000, 2, 3)
    assert (session.f_cnt_up, session.f_cnt_down) == (None, 0)
    assert (session.nwk_s_key, session.app_s_key) == session_keys(KEY, join_nonce=1, net_id=0x13, dev_nonce=0)
    assert (device.last_dev_nonce, device.join_nonce) == (0, 1)


def test_a_dev_nonce_is_good_once_and_only_grows() -> None:
    """Goal: a recorded request is worthless.  Method: 0, the same again, a jump, then anything below."""
    _, _, device = joined(DEVICE, 0)
    assert refused(device, request_of(0)) == "dev_nonce"
    _, _, device = joined(device, 500)
    for nonce in (500, 499, 1, 0):
        assert refused(device, request_of(nonce)) == "dev_nonce"
    first, _, device = joined(device, join.DEV_NONCE_MAX)
    assert device.join_nonce == 3
    assert first.nwk_s_key != joined(DEVICE, join.DEV_NONCE_MAX)[0].nwk_s_key


def test_foreign_and_forged_requests() -> None:
    """Goal: each refusal has its reason, and the code is judged before the nonce."""
    _, _, device = joined(DEVICE, 7)
    assert refused(device, request_of(8, key=AesKey(bytes(16)))) == "mic"
    assert refused(device, request_of(1, key=AesKey(bytes(16)))) == "mic"
    assert refused(device, request_of(8, replace(DEVICE, dev_eui="0" * 16))) == "dev_eui"
    assert refused(device, request_of(8, replace(DEVICE, join_eui="0" * 16))) == "join_eui"
    assert refused(replace(device, join_nonce=join.JOIN_NONCE_MAX), request_of(8)) == "join_nonce"


@given(st.binary(min_size=22, max_size=22))
def test_random_requests_never_join(body: bytes) -> None:
    """Goal: hostile bytes are values.  Method: any join request, even one with our own names in it."""
    request = lorawan.parse(b"\x00" + body)
    assert isinstance(request, lorawan.JoinRequest)
    named = replace(request, dev_eui=DEVICE.dev_eui, join_eui=DEVICE.join_eui)
    assert refused(DEVICE, request) in ("dev_eui", "join_eui", "mic")
    assert refused(DEVICE, named) == "mic"


def test_regions_without_frequency_lists_send_none() -> None:
    """Goal: a US device is not told European channels."""
    us915 = region("us915")
    answer = answer_join(DEVICE, request_of(0), dev_addr=1, net_id=0x13, region=us915)
    assert not isinstance(answer, Malformed)
    assert len(answer[1]) == 17
    assert (answer[0].rx2_frequency_hz, answer[0].rx2_data_rate) == (
        us915.rx2_frequency_hz,
        us915.rx2_data_rate,
    )


def test_keys_stay_out_of_repr() -> None:
    """Goal: no key in logs."""
    assert "app_key" not in repr(DEVICE)
    assert "\\x01" not in repr(DEVICE)
