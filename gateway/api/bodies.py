"""What a request may say: every field with its range, unknown fields refused, errors that echo nothing."""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from swarm.commands import BLOCK_MAX, AddNode, SendFrame, SetModel, SetMulticast
from swarm.model.layout import CONTEXTS, FEATURES_MAX
from swarm.wire.messages import MASK_PLACE

__all__ = [
    "BATCH_MAX",
    "PAYLOAD_MAX",
    "AskIn",
    "BlockIn",
    "Eui",
    "FrameIn",
    "ImportIn",
    "LabelIn",
    "ModelIn",
    "MulticastIn",
    "NodeIn",
    "RollBackIn",
    "mistakes",
]

BATCH_MAX = 5_000
PAYLOAD_MAX = 222
"""Bytes of a frame by hand; what a node's data rate carries may be less."""
VECTOR_MAX = 65_536
DEADLINE_MAX_S = 86_400
MISTAKES_MAX = 20
_FIELD_NAME = re.compile(r"[a-z_]{1,32}|rx1_delay_s")

Eui = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{16}$", description="16 hexadecimal digits")]
Address = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{8}$", description="8 hexadecimal digits")]
Key = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{32}$", description="32 hexadecimal digits")]
# Names are shown in terminals: no control characters.
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Crop = Literal["apple", "tomato", "potato", "grape"]
MaskPlace = Annotated[
    str,
    Field(pattern=rf"^{MASK_PLACE}$", description="place in a masking group: group/position/size, as 7/0/8"),
]


class _Strict(BaseModel):
    """Unknown keys are mistakes, not decoration; a number in quotes is no number."""

    model_config = ConfigDict(extra="forbid", strict=True)


class NodeIn(_Strict):
    """One node to register; ABP needs dev_addr and both session keys, OTAA needs join_eui and app_key; nodes
    behind a network server (network) need none."""

    dev_eui: Eui
    name: Name
    crop: Crop
    activation: Literal["abp", "otaa", "network"]
    plot: Annotated[str, Field(max_length=64, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")] = ""
    lat: Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False)] | None = None
    lon: Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False)] | None = None
    node_index: Annotated[int, Field(ge=0, le=65_534)] | None = None
    dev_addr: Address | None = None
    nwk_s_key: Key | None = None
    app_s_key: Key | None = None
    join_eui: Eui = "0000000000000000"
    app_key: Key | None = None
    gen_app_key: Key | None = None
    rx1_delay_s: Annotated[int, Field(ge=1, le=15)] | None = None
    device_class: Literal["a", "c"] = "a"
    mask_place: MaskPlace | None = None

    def command(self) -> AddNode:
        """The core's command for it."""
        return AddNode(
            dev_eui=self.dev_eui.lower(),
            name=self.name,
            context=CONTEXTS.index(self.crop),
            activation=self.activation,
            plot=self.plot,
            lat=self.lat,
            lon=self.lon,
            node_index=self.node_index,
            dev_addr=int(self.dev_addr, 16) if self.dev_addr is not None else None,
            nwk_s_key=_key(self.nwk_s_key),
            app_s_key=_key(self.app_s_key),
            join_eui=self.join_eui.lower(),
            app_key=_key(self.app_key),
            gen_app_key=_key(self.gen_app_key),
            rx1_delay_s=self.rx1_delay_s,
            device_class=self.device_class,
            mask_place=self.mask_place,
        )


class FrameIn(_Strict):
    """A frame to send to a node by hand: the payload in hexadecimal digits."""

    f_port: Annotated[int, Field(ge=1, le=223)]
    payload: Annotated[
        str,
        Field(pattern=r"^([0-9a-fA-F]{2})*$", max_length=2 * PAYLOAD_MAX, description="hexadecimal digits"),
    ]
    confirmed: bool = False
    within_s: Annotated[int, Field(ge=1, le=2_592_000)] = 86_400

    def command(self, dev_eui: str) -> SendFrame:
        """The core's command for it."""
        return SendFrame(dev_eui, self.f_port, bytes.fromhex(self.payload), self.confirmed, self.within_s)


class MulticastIn(_Strict):
    """The group session that the nodes were provisioned with; `replace`: even if the cell has another.
    `mc_key`: what both keys were derived from (TS005)."""

    mc_addr: Address
    nwk_s_key: Key
    app_s_key: Key
    mc_key: Key | None = None
    replace: bool = False

    def command(self) -> SetMulticast:
        """The core's command for it."""
        return SetMulticast(
            int(self.mc_addr, 16),
            bytes.fromhex(self.nwk_s_key),
            bytes.fromhex(self.app_s_key),
            self.replace,
            _key(self.mc_key),
        )


class ImportIn(_Strict):
    """What `swarm pilot provision` wrote: nodes, and the group they share; `check`: change nothing, only say
    which nodes would be refused."""

    nodes: Annotated[list[NodeIn], Field(max_length=BATCH_MAX)] = []
    multicast: MulticastIn | None = None
    check: bool = False


class ModelIn(_Strict):
    """A model made elsewhere: `vector` as GET /api/model gives it; `gather` claims the round with it."""

    vector: Annotated[
        list[Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=1, max_length=VECTOR_MAX)
    ]
    gather: bool = False
    close_s: Annotated[int, Field(ge=1, le=2_592_000)] | None = None

    def command(self) -> SetModel:
        """The core's command for it."""
        return SetModel(array("d", self.vector).tobytes(), self.gather, self.close_s)


class RollBackIn(_Strict):
    """The version to return to; null: the one before the newest."""

    to_version: Annotated[int, Field(ge=0, le=65_534)] | None = None


class LabelIn(_Strict):
    """What somebody saw: the class, and of which day (that closed at this noon, us) or observation."""

    label: Annotated[int, Field(ge=0, le=9)]
    noon_us: Annotated[int, Field(ge=0, lt=1 << 53)] | None = None
    observation: Annotated[int, Field(ge=0, le=65_535)] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> LabelIn:
        if (self.noon_us is None) == (self.observation is None):
            raise ValueError("give noon_us or observation")
        return self


class BlockIn(_Strict):
    """A large block in base64, for all nodes or those named (names or DevEUIs); `alone`: one by one."""

    data: Annotated[str, Field(min_length=4, max_length=BLOCK_MAX * 4 // 3 + 4)]
    nodes: Annotated[list[Name], Field(min_length=1, max_length=10_000)] | None = None
    loss: Annotated[float, Field(ge=0, le=0.9, allow_inf_nan=False)] = 0.2
    version: Annotated[int, Field(ge=1, le=2)] = 2
    alone: bool = False


class HandOverIn(_Strict):
    """Which experts are to be brought: see `GET /api/experts/hand-over`, which shows what this does."""

    room: Annotated[int, Field(ge=1, le=16)] = 2
    replicas: Annotated[int, Field(ge=1, le=16)] = 2
    nodes: Annotated[list[Name], Field(min_length=1, max_length=10_000)] | None = None
    whole: bool = False
    loss: Annotated[float, Field(ge=0, le=0.9, allow_inf_nan=False)] = 0.2


class AskIn(_Strict):
    """A question: about a place (plot, node name or DevEUI), or about given features (int8[]) of a crop."""

    near: Name | None = None
    features: (
        Annotated[list[Annotated[int, Field(ge=-128, le=127)]], Field(min_length=1, max_length=FEATURES_MAX)]
        | None
    ) = None
    crop: Crop | None = None
    k: Annotated[int, Field(ge=1, le=50)] | None = None
    deadline_s: Annotated[int, Field(ge=1, le=DEADLINE_MAX_S)] | None = None

    def question(self) -> dict[str, Any]:
        """The arguments of `Asking.question`."""
        return {
            "near": self.near,
            "features": tuple(self.features) if self.features is not None else None,
            "context": CONTEXTS.index(self.crop) if self.crop is not None else None,
            "k": self.k,
            "deadline_s": self.deadline_s,
        }


def mistakes(errors: Sequence[Any]) -> list[dict[str, Any]]:
    """Pydantic's findings without the input: where and what, for a body may hold keys.

    Unknown field names are the sender's own text, so only what looks like a field name is repeated.
    """
    found = [
        {"loc": [_place(part) for part in each["loc"]], "msg": str(each["msg"]), "type": str(each["type"])}
        for each in errors[:MISTAKES_MAX]
    ]
    if len(errors) > MISTAKES_MAX:
        more = f"and {len(errors) - MISTAKES_MAX} more mistakes like these"
        found.append({"loc": ["body"], "msg": more, "type": "more"})
    return found


def _place(part: object) -> str | int:
    if isinstance(part, int):
        return part
    text = str(part)
    return text if _FIELD_NAME.fullmatch(text) else "(unknown)"


def _key(text: str | None) -> bytes | None:
    return bytes.fromhex(text) if text is not None else None
