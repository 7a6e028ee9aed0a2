"""TS003, TS004 and TS005 commands: another project's published frames, round trips, any bytes, sizes."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.effects import Malformed
from swarm.security import lorawan as keys
from swarm.security.lorawan import AesKey
from swarm.wire import clock_sync, fragmentation, multicast_setup, packages

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "vectors" / "ts003_ts004_ts005_commands.json"
PUBLISHED: dict[str, Any] = json.loads(SHARED.read_text(encoding="utf-8")) if SHARED.is_file() else {}
FRAMES = [
    pytest.param(package, case, id=f"{package} {case['name']}")
    for package, cases in PUBLISHED.get("packages", {}).items()
    for case in cases
]

Codec = tuple[Callable[[Any], bytes], Callable[[bytes], Any], Callable[[bytes], Any]]
CODECS: dict[str, Codec] = {
    "clocksync_v1": (clock_sync.encode, clock_sync.decode_uplink, clock_sync.decode_downlink),
    "clocksync_v2": (clock_sync.encode, clock_sync.decode_uplink, clock_sync.decode_downlink),
}
for _version in (1, 2):
    CODECS[f"fragmentation_v{_version}"] = (
        lambda command, v=_version: fragmentation.encode(command, v),
        lambda payload, v=_version: fragmentation.decode_uplink(payload, v),
        lambda payload, v=_version: fragmentation.decode_downlink(payload, v),
    )
    CODECS[f"multicastsetup_v{_version}"] = (
        lambda command, v=_version: multicast_setup.encode(command, v),
        lambda payload, v=_version: multicast_setup.decode_uplink(payload, v),
        multicast_setup.decode_downlink,
    )

# Where the published names differ from ours.
NAMES = {
    "token_req": "token",
    "token_ans": "token",
    "time_correction": "time_correction_s",
    "device_time": "device_time_s",
    "time": "device_time_s",
    "package_identifier": "package",
    "package_version": "version",
    "frag_index": "index",
    "nb_frag_received": "received",
    "missing_frag": "missing",
    "not_enough_matrix_memory": "memory_error",
    "session_does_not_exist": "no_session",
    "mc_group_bit_mask": "groups",
    "fragmentation_matrix": "algorithm",
    "frag_algo": "algorithm",
    "encoding_unsupported": "algorithm_unsupported",
    "frag_algo_unsupported": "algorithm_unsupported",
    "frag_session_index_not_supported": "index_unsupported",
    "frag_index_unsupported": "index_unsupported",
    "req_group_mask": "mask",
    "nb_total_groups": "total",
    "mc_group_id": "group",
    "mc_key_encrypted": "sealed_key",
    "min_mc_f_count": "f_cnt_min",
    "max_mc_f_count": "f_cnt_max",
    "dr": "data_rate",
    "dl_frequ": "frequency_hz",
    "dr_error": "data_rate_error",
    "freq_error": "frequency_error",
    "session_time": "session_time_s",
    "time_to_start": "time_to_start_s",
    "items": "groups",
}
ERRORS = {"McGroupDeleteAns": {"mc_group_undefined": "undefined"}}
CLASSES = {
    "DeviceAppTimePeropdicityReq": "DeviceAppTimePeriodicityReq",
    "DeviceAppTimePeropdicityAns": "DeviceAppTimePeriodicityAns",
    "ForceDeviceResyncReq": "ForceDeviceResync",
    "ForceDeviceResyncCmd": "ForceDeviceResync",
    "FragSessionDelete": "FragSessionDeleteReq",
}


def literal(text: str) -> dict[str, Any]:
    """The fields of a published command, which is printed as a Rust value, with inner structs opened."""
    text = re.sub(r"(\w+::)?from_be_bytes\(|Some\(", "(", text).replace("DevAddr::", "").replace("vec!", "")
    text = re.sub(r"\w+ \{", "{", text)
    text = re.sub(r"(\w+):", r"'\1':", text).replace("true", "True").replace("false", "False")
    opened: dict[str, Any] = {}

    def open_up(value: dict[str, Any]) -> None:
        for name, inner in value.items():
            if isinstance(inner, dict):
                open_up(inner)
            else:
                opened[name] = inner

    open_up(ast.literal_eval(text))
    return opened


def value_of(name: str, value: Any) -> Any:
    """A published field in our form: lists of bits as a mask, addresses as numbers, bytes as bytes."""
    if name == "items":
        return tuple((item["mc_group_id"], int.from_bytes(bytes(item["mc_addr"]), "big")) for item in value)
    if not isinstance(value, list):
        return value
    if value and isinstance(value[0], bool):
        return sum(bit << place for place, bit in enumerate(value))
    return int.from_bytes(bytes(value), "big") if name == "mc_addr" else bytes(value)


def command_of(package: str, text: str) -> Any:
    """Our command for a published one."""
    kind, _, body = text.removeprefix("Payload::").partition("(")
    kind = CLASSES.get(kind, kind)
    modules = {"clocksync": clock_sync, "fragmentation": fragmentation, "multicastsetup": multicast_setup}
    module = modules[package.partition("_")[0]]
    made = getattr(module, kind, None) or getattr(packages, kind)
    names = {**NAMES, "mc_group_undefined": "undefined", "session_time_out": "time_out"}
    fields = literal(body[:-1]) if body else {}
    fields.pop("ans_group_mask", None)  # follows from the groups
    return made(**{names.get(name, name): value_of(name, value) for name, value in fields.items()})


@pytest.mark.parametrize(("package", "case"), FRAMES)
def test_published_frames(package: str, case: dict[str, Any]) -> None:
    """Goal: other servers and devices understand us.  Method: each published frame, both ways."""
    encode, decode_uplink, decode_downlink = CODECS[package]
    command = command_of(package, case["command"])
    assert encode(command).hex() == case["bytes"]
    decode = decode_uplink if case["uplink"] else decode_downlink
    assert decode(bytes.fromhex(case["bytes"])) == (command,)


def test_the_published_frames_are_there() -> None:
    """Goal: the test above is not empty by accident."""
    if not SHARED.is_file():
        pytest.skip("the reference vectors of other projects are not beside this checkout")
    assert len(FRAMES) >= 40
    assert set(PUBLISHED["packages"]) <= set(CODECS)


def test_published_key_derivations() -> None:
    """Goal: a group set up here is entered by any device.  Method: another project's published examples."""
    if not SHARED.is_file():
        pytest.skip("the reference vectors of other projects are not beside this checkout")

    def key(name: str, field: str) -> AesKey:
        return AesKey(bytes.fromhex(derived[name][field]))

    derived = PUBLISHED["key_derivation"]
    root, root_1_1 = "mc_root_key_from_gen_app_key", "mc_root_key_from_app_key_1_1"
    assert keys.mc_root_key(key(root, "gen_app_key")).raw.hex() == derived[root]["out"]
    made = keys.mc_root_key(key(root_1_1, "app_key"), version_1_1=True)
    assert made.raw.hex() == derived[root_1_1]["out"]
    assert keys.mc_ke_key(key("mc_ke_key", "mc_root_key")).raw.hex() == derived["mc_ke_key"]["out"]
    sealed = keys.seal_mc_key(key("encrypt_mc_key", "mc_ke_key"), key("encrypt_mc_key", "mc_key"))
    assert sealed.hex() == derived["encrypt_mc_key"]["out"]


KEYS = st.binary(min_size=16, max_size=16).map(AesKey)


@given(KEYS, KEYS)
def test_a_sealed_group_key_opens(mc_ke: AesKey, mc_key: AesKey) -> None:
    assert keys.open_mc_key(mc_ke, keys.seal_mc_key(mc_ke, mc_key)) == mc_key


BITS = {width: st.integers(0, 2**width - 1) for width in (1, 2, 3, 4, 8, 14, 16, 24, 32)}
FLAG = st.booleans()
VERSION_COMMANDS: list[st.SearchStrategy[Any]] = [
    st.just(packages.PackageVersionReq()),
    st.builds(packages.PackageVersionAns, BITS[8], BITS[8]),
]
CLOCK_UPLINKS: st.SearchStrategy[Any] = st.one_of(
    VERSION_COMMANDS[1],
    st.builds(clock_sync.AppTimeReq, BITS[32], BITS[4], FLAG),
    st.builds(clock_sync.DeviceAppTimePeriodicityAns, FLAG, BITS[32]),
)
CLOCK = st.one_of(
    CLOCK_UPLINKS,
    VERSION_COMMANDS[0],
    st.builds(clock_sync.AppTimeAns, st.integers(-(2**31), 2**31 - 1), BITS[4]),
    st.builds(clock_sync.DeviceAppTimePeriodicityReq, BITS[4]),
    st.builds(clock_sync.ForceDeviceResync, BITS[3]),
)
FREQUENCY = BITS[24].map(lambda steps: 100 * steps)
GROUPS = st.dictionaries(BITS[2], BITS[32]).map(lambda told: tuple(sorted(told.items())))
LATE = {1: st.just(False), 2: FLAG}


def session_answers(kind: Any, version: int) -> st.SearchStrategy[Any]:
    errors = st.tuples(FLAG, FLAG, FLAG, LATE[version]).filter(any)
    refused = st.builds(lambda group, bits: kind(group, None, *bits), BITS[2], errors)
    return st.one_of(st.builds(kind, BITS[2], BITS[24]), refused)


def multicast(version: int) -> st.SearchStrategy[Any]:
    timing = (BITS[2], BITS[32], BITS[4])
    return st.one_of(
        *VERSION_COMMANDS,
        st.builds(multicast_setup.McGroupStatusReq, BITS[4]),
        st.builds(multicast_setup.McGroupStatusAns, BITS[3], GROUPS),
        st.builds(
            multicast_setup.McGroupSetupReq,
            BITS[2],
            BITS[32],
            st.binary(min_size=16, max_size=16),
            BITS[32],
            BITS[32],
        ),
        st.builds(multicast_setup.McGroupSetupAns, BITS[2], FLAG),
        st.builds(multicast_setup.McGroupDeleteReq, BITS[2]),
        st.builds(multicast_setup.McGroupDeleteAns, BITS[2], FLAG),
        st.builds(multicast_setup.McClassCSessionReq, *timing, FREQUENCY, BITS[8]),
        st.builds(multicast_setup.McClassBSessionReq, *timing, BITS[3], FREQUENCY, BITS[8]),
        session_answers(multicast_setup.McClassCSessionAns, version),
        session_answers(multicast_setup.McClassBSessionAns, version),
    )


def fragments(version: int) -> st.SearchStrategy[Any]:
    word = st.binary(min_size=4, max_size=4)
    setup = (BITS[2], BITS[4], BITS[16], BITS[8], BITS[3], BITS[8], word, BITS[3])
    late = LATE[version]
    kinds = [
        *VERSION_COMMANDS,
        st.builds(fragmentation.FragSessionStatusReq, BITS[2], FLAG),
        st.builds(fragmentation.FragSessionStatusAns, BITS[2], BITS[14], BITS[8], FLAG, late, late),
        st.builds(fragmentation.FragSessionSetupAns, BITS[2], FLAG, FLAG, FLAG, FLAG, late),
        st.builds(fragmentation.FragSessionDeleteReq, BITS[2]),
        st.builds(fragmentation.FragSessionDeleteAns, BITS[2], FLAG),
        st.builds(fragmentation.DataFragment, BITS[2], BITS[14], st.binary(max_size=239)),
    ]
    if version == 1:
        return st.one_of(*kinds, st.builds(fragmentation.FragSessionSetupReq, *setup))
    return st.one_of(
        *kinds,
        st.builds(fragmentation.FragSessionSetupReq, *setup, FLAG, BITS[16], word),
        st.builds(fragmentation.FragDataBlockReceivedReq, BITS[2], FLAG),
        st.builds(fragmentation.FragDataBlockReceivedAns, BITS[2]),
    )


def goes_round(command: Any, codec: Codec) -> None:
    """Whatever way it goes: encoded, then read by the decoder of its way, it is the same."""
    encode, *decoders = codec
    read = [decode(encode(command)) for decode in decoders]
    assert (command,) in read


@given(CLOCK)
def test_clock_sync_goes_round(command: Any) -> None:
    goes_round(command, CODECS["clocksync_v1"])


@pytest.mark.parametrize("version", [1, 2])
@given(data=st.data())
def test_multicast_setup_goes_round(version: int, data: st.DataObject) -> None:
    goes_round(data.draw(multicast(version)), CODECS[f"multicastsetup_v{version}"])


@pytest.mark.parametrize("version", [1, 2])
@given(data=st.data())
def test_fragmentation_goes_round(version: int, data: st.DataObject) -> None:
    goes_round(data.draw(fragments(version)), CODECS[f"fragmentation_v{version}"])


@pytest.mark.parametrize("package", CODECS)
@given(payload=st.binary(max_size=260) | st.lists(BITS[3], max_size=20).map(bytes))
def test_any_bytes_are_a_value(package: str, payload: bytes) -> None:
    """Goal: hostile bytes harm nobody.  Method: what is read encodes again to as many bytes."""
    encode, *decoders = CODECS[package]
    for decode in decoders:
        read = decode(payload)
        if isinstance(read, Malformed):
            assert read.reason in ("size", "cid", "fragment")
        elif not any(isinstance(command, multicast_setup.McGroupStatusAns) for command in read):
            assert sum(len(encode(command)) for command in read) == len(payload)


@given(st.lists(CLOCK_UPLINKS, min_size=1, max_size=8))
def test_commands_stand_in_a_row(commands: list[Any]) -> None:
    """Goal: several commands share a payload, and one that is cut off spoils it."""
    payload = b"".join(clock_sync.encode(command) for command in commands)
    assert clock_sync.decode_uplink(payload) == tuple(commands)
    assert isinstance(clock_sync.decode_uplink(payload[:-1]), Malformed)


def test_a_fragment_stands_alone() -> None:
    """Goal: the rest of a payload is not taken for commands, nor a fragment for the rest of one."""
    alone = fragmentation.encode(fragmentation.DataFragment(1, 5, b"\x00\x01\x02"), 2)
    assert fragmentation.decode_downlink(alone, 2) == (fragmentation.DataFragment(1, 5, b"\x00\x01\x02"),)
    behind = fragmentation.decode_downlink(b"\x00" + alone, 2)
    assert isinstance(behind, Malformed)
    assert behind.reason == "fragment"


@pytest.mark.parametrize(
    ("encode", "command"),
    [
        (CODECS["fragmentation_v1"][0], fragmentation.FragSessionStatusAns(0, 1, 1, mic_error=True)),
        (CODECS["fragmentation_v1"][0], fragmentation.FragSessionSetupAns(0, session_cnt_replay=True)),
        (CODECS["fragmentation_v2"][0], fragmentation.DataFragment(0, 1, bytes(240))),
        (CODECS["fragmentation_v2"][0], fragmentation.DataFragment(0, 1 << 14, b"")),
        (CODECS["fragmentation_v2"][0], fragmentation.FragSessionDeleteReq(4)),
        (CODECS["multicastsetup_v1"][0], multicast_setup.McClassCSessionAns(0, None, start_missed=True)),
        (CODECS["multicastsetup_v2"][0], multicast_setup.McClassCSessionAns(0, None)),
        (CODECS["multicastsetup_v2"][0], multicast_setup.McClassCSessionReq(0, 0, 0, 868_100_050, 0)),
        (CODECS["multicastsetup_v2"][0], multicast_setup.McGroupStatusAns(2, ((1, 0), (0, 0)))),
        (clock_sync.encode, clock_sync.AppTimeAns(2**31, 0)),
    ],
)
def test_what_cannot_be_said_is_refused(encode: Callable[[Any], bytes], command: Any) -> None:
    with pytest.raises(ValueError):
        encode(command)


@pytest.mark.parametrize(
    ("device_s", "gps_s", "required", "correction_s"),
    [
        (1000, 1000, False, None),
        (1000, 1000, True, 0),
        (990, 1000, False, 10),
        (1010, 1000, False, -10),
        (2**32 - 5, 5, False, 10),
        (5, 2**32 - 5, False, -10),
    ],
)
def test_a_clock_is_corrected_the_shorter_way(
    device_s: int, gps_s: int, required: bool, correction_s: int | None
) -> None:
    answer = clock_sync.answer(clock_sync.AppTimeReq(device_s, 7, required), gps_s)
    assert answer == (None if correction_s is None else clock_sync.AppTimeAns(correction_s, 7))


def test_the_gps_clock_is_eighteen_seconds_ahead() -> None:
    """Goal: sessions begin when both sides think so.  Method: GPS week 2000 began 2018-05-06 00:00 GPS."""
    assert clock_sync.gps_s(1_525_564_782 * 1_000_000) == 2000 * 7 * 86_400


def test_a_firmware_package_says_its_version() -> None:
    assert packages.F_PORTS[packages.Package.FIRMWARE] == 203
    read = packages.decode_version_uplink(bytes.fromhex("000401"))
    assert read == (packages.PackageVersionAns(packages.Package.FIRMWARE, 1),)
    assert isinstance(packages.decode_version_uplink(b"\x01\x00"), Malformed)
