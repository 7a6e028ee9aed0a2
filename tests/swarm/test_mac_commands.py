"""MAC commands: bytes typed from the standard's tables, codecs that undo each other, and bytes from
anybody."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.effects import Malformed
from swarm.mac import channel_plan
from swarm.phy.regions import REGION_NAMES, region
from swarm.wire import mac_commands as mac
from swarm.wire.lorawan import MacCommand, mac_commands

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "mac_commands.json").read_text("utf-8")
)


def only(data: bytes, *, uplink: bool) -> MacCommand:
    commands, skipped = mac_commands(data, uplink=uplink)
    assert len(commands) == 1 and skipped == 0
    return commands[0]


@pytest.mark.parametrize("vector", VECTORS["requests"], ids=lambda v: f"{v['name']} {v['hex']}")
def test_requests_have_the_bytes_of_the_standard(vector: dict[str, Any]) -> None:
    request = getattr(mac, vector["name"].replace("ADR", "Adr"))(**vector["fields"])
    assert mac.encode(request).hex() == vector["hex"]
    assert mac.decode_request(only(bytes.fromhex(vector["hex"]), uplink=False)) == request


@pytest.mark.parametrize("vector", VECTORS["answers"], ids=lambda v: f"{v['name']} {v['hex']}")
def test_answers_say_what_was_taken(vector: dict[str, Any]) -> None:
    answer = mac.decode_answer(only(bytes.fromhex(vector["hex"]), uplink=True))
    assert isinstance(answer, mac.Ack)
    assert answer.ok is vector["ok"] and list(answer.faults) == vector["faults"]
    again = mac.decode_answer(only(mac.encode(answer), uplink=True))
    assert again == answer


@pytest.mark.parametrize("vector", VECTORS["status_answers"], ids=lambda v: str(v["hex"]))
def test_device_status(vector: dict[str, Any]) -> None:
    answer = mac.decode_answer(only(bytes.fromhex(vector["hex"]), uplink=True))
    assert answer == mac.DevStatusAns(vector["battery"], vector["margin_db"])


@pytest.mark.parametrize("vector", VECTORS["channel_masks"], ids=lambda v: f"{v['region']} {v['sub_band']}")
def test_channel_masks(vector: dict[str, Any]) -> None:
    rules = region(vector["region"])
    number = vector["sub_band"]
    channels = channel_plan.sub_band(rules, number) if number else channel_plan.all_channels(rules)
    blocks = channel_plan.masks_of(rules, channels)
    assert [list(block) for block in blocks] == vector["blocks"]


@pytest.mark.parametrize("vector", VECTORS["cf_lists"], ids=lambda v: str(v["region"]))
def test_cf_lists_of_masks(vector: dict[str, Any]) -> None:
    rules = region(vector["region"])
    channels = channel_plan.sub_band(rules, vector["sub_band"])
    cf_list = channel_plan.cf_list_masks(rules, channels)
    assert cf_list.hex() == vector["hex"]
    assert channel_plan.channels_of(rules, cf_list) == channels


@given(
    st.sampled_from(("us915", "au915", "cn470")), st.integers(0, (1 << 72) - 1), st.integers(0, (1 << 72) - 1)
)
def test_blocks_make_the_set_whatever_the_device_had(name: str, had: int, wanted: int) -> None:
    """Goal: a device ends with the wanted channels.  Method: apply the blocks to any earlier set."""
    rules = region(name)
    every = channel_plan.all_channels(rules)
    channels: int | None = had & every
    for cntl, mask in channel_plan.masks_of(rules, wanted & every):
        assert channels is not None
        channels = channel_plan.apply_mask(rules, channels, cntl, mask, every)
    assert channels == wanted & every


@given(st.sampled_from(REGION_NAMES), st.integers(0, 7), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_no_mask_makes_channels_that_do_not_exist(name: str, cntl: int, mask: int, had: int) -> None:
    rules = region(name)
    every = channel_plan.all_channels(rules)
    made = channel_plan.apply_mask(rules, had & every, cntl, mask, every)
    assert made is None or not made & ~every


REQUESTS = st.one_of(
    st.builds(
        mac.LinkAdrReq,
        st.integers(0, 15),
        st.integers(0, 15),
        st.integers(0, 0xFFFF),
        st.integers(0, 7),
        st.integers(0, 15),
    ),
    st.builds(mac.DutyCycleReq, st.integers(0, 15)),
    st.builds(
        mac.RxParamSetupReq,
        st.integers(0, 7),
        st.integers(0, 15),
        st.integers(0, 0xFFFFFF).map(lambda n: n * 100),
    ),
    st.builds(mac.RxTimingSetupReq, st.integers(1, 15)),
    st.builds(mac.TxParamSetupReq, st.booleans(), st.booleans(), st.integers(0, 15)),
    st.builds(mac.DlChannelReq, st.integers(0, 255), st.integers(0, 0xFFFFFF).map(lambda n: n * 100)),
    st.builds(
        mac.NewChannelReq,
        st.integers(0, 255),
        st.integers(0, 0xFFFFFF).map(lambda n: n * 100),
        st.integers(0, 15),
        st.integers(0, 15),
    ),
    st.just(mac.DevStatusReq()),
)


@given(st.lists(REQUESTS, max_size=6))
def test_requests_come_back(requests: list[mac.Request]) -> None:
    data = b"".join(mac.encode(request) for request in requests)
    commands, skipped = mac_commands(data, uplink=False)
    assert [mac.decode_request(command) for command in commands] == requests and skipped == 0


@given(st.binary(max_size=242))
def test_any_bytes_are_values(data: bytes) -> None:
    for uplink in (True, False):
        for command in mac_commands(data, uplink=uplink)[0]:
            for decode in (mac.decode_answer, mac.decode_request):
                if (decode is mac.decode_answer and not uplink) or (decode is mac.decode_request and uplink):
                    continue
                value = decode(command)
                assert isinstance(value, Malformed) or value.cid == command.cid
