"""One question of a node for experts: its parts, what it has cost, and the text it survives a restart as.

A *part* is what one holder is to compute.  What the parts that came add up to is the REPLY; who computed
them, of which generation, and what all frames together cost is told in the event `expert_answered`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from swarm.effects import Malformed
from swarm.phy.energy import receive_mj, transmit_mj
from swarm.wire import app, expert

__all__ = [
    "ContributionKey",
    "ExpertQuestion",
    "Part",
    "contribution_key",
    "from_text",
    "provenance",
    "reply",
    "to_text",
]

PORT = app.F_PORT_ASKING
SECOND_US = 1_000_000

ContributionKey = tuple[int, tuple[int, int], int, int, bytes]
"""Generation, picks, weight, slots, input: the same key is the same contribution."""


@dataclass(slots=True)
class Part:
    """What one holder is to compute: the picks named in `slots` (bits 0, 1)."""

    query_id: int
    slots: int
    turns: dict[str, int] = field(default_factory=dict)
    """Holder -> when its turn is over (us); 0: it was passed over."""
    outputs: dict[str, bytes] = field(default_factory=dict)
    output: bytes | None = None
    source: str = ""
    """`replica`, `cache`, or the DevEUI of the holder that is believed."""
    exhausted: bool = False
    """There is no further holder to ask."""

    @property
    def tag(self) -> str:
        return f"expert {self.query_id}"

    def running(self) -> dict[str, int]:
        """The holders whose turn is not over and who did not answer yet, and when it will be."""
        return {
            dev_eui: until_us
            for dev_eui, until_us in self.turns.items()
            if until_us and dev_eui not in self.outputs
        }

    def is_overdue(self, now_us: int) -> bool:
        """Whether a holder did not answer in its turn."""
        return any(until_us <= now_us for until_us in self.running().values())


@dataclass(slots=True)
class ExpertQuestion:
    dev_eui: str
    ask: expert.Ask
    asked_us: int
    deadline_us: int
    parts: list[Part]
    frames: int = 0
    airtime_us: int = 0
    energy_mj: float = 0.0
    stored: bool = False
    replied: bool = False
    """The REPLY waits for the asker's receive windows."""

    @property
    def key(self) -> str:
        return f"{self.dev_eui}/{self.ask.ask_id}"

    @property
    def tag(self) -> str:
        return f"reply {self.ask.ask_id}"

    def uplink(self, airtime_us: int) -> None:
        """A node sent a frame for this question."""
        self.frames += 1
        self.airtime_us += airtime_us
        self.energy_mj += transmit_mj(airtime_us)

    def downlink(self, airtime_us: int) -> None:
        """A node was sent one; negative: the radio did not send it after all."""
        self.frames += 1 if airtime_us > 0 else -1
        self.airtime_us += airtime_us
        self.energy_mj += receive_mj(airtime_us)


def contribution_key(ask: expert.Ask, slots: int) -> ContributionKey:
    """What those picks add for that input."""
    return (ask.generation, ask.picks, ask.weight, slots, ask.input)


def reply(question: ExpertQuestion) -> expert.Reply:
    """What came so far, added as the engine does it."""
    came = [(part, part.output) for part in question.parts if part.output is not None]
    flags = sum(part.slots for part, _ in came)
    if came and all(part.source == "replica" for part, _ in came):
        flags |= expert.REPLY_FROM_REPLICA
    if len(came) == 1:
        return expert.Reply(question.ask.ask_id, flags, came[0][1])
    columns = zip(*(expert.fine(output) for _, output in came), strict=True)
    total = [min(127, sum(column)) for column in columns] or [0] * expert.HIDDEN
    return expert.Reply(question.ask.ask_id, flags, expert.coarse(total))


def provenance(question: ExpertQuestion, heard_us: int) -> dict[str, Any]:
    """What the event `expert_answered` says; the node has the answer at `heard_us`."""
    ask = question.ask
    came = sum(part.slots for part in question.parts if part.output is not None)
    experts = [
        {
            "expert": index,
            "generation": ask.generation,
            "weight": weight / expert.WEIGHT_ONE,
            "source": part.source or None,
        }
        for part in question.parts
        for index, weight in zip(ask.experts(part.slots), ask.weights(part.slots), strict=True)
    ]
    return {
        "dev_eui": question.dev_eui,
        "ask_id": ask.ask_id,
        "coverage": sum(ask.weights(came)) / sum(ask.weights(ask.missing)),
        "experts": experts,
        "label_alone": question.ask.label,
        "confidence_alone": question.ask.probability / 255,
        "frames": question.frames,
        "airtime_us": question.airtime_us,
        "energy_mj": round(question.energy_mj, 3),
        "latency_s": (heard_us - question.asked_us) / SECOND_US,
    }


def to_text(question: ExpertQuestion) -> str:
    """All that a row has to hold."""
    parts = [
        {
            "query_id": part.query_id,
            "slots": part.slots,
            "outputs": {dev_eui: output.hex() for dev_eui, output in part.outputs.items()},
            "output": None if part.output is None else part.output.hex(),
            "source": part.source,
        }
        for part in question.parts
    ]
    text = {
        "dev_eui": question.dev_eui,
        "ask": app.encode(question.ask).hex(),
        "asked_us": question.asked_us,
        "deadline_us": question.deadline_us,
        "frames": question.frames,
        "airtime_us": question.airtime_us,
        "energy_mj": question.energy_mj,
        "parts": parts,
    }
    return json.dumps(text, sort_keys=True)


def from_text(text: str) -> ExpertQuestion | None:
    """The question that `to_text` wrote; None when it is damaged (the node will ask again)."""
    try:
        kept = json.loads(text)
        ask = app.decode_uplink(PORT, bytes.fromhex(kept.pop("ask")))
        parts = [
            Part(
                part["query_id"],
                part["slots"],
                outputs={dev_eui: bytes.fromhex(output) for dev_eui, output in part["outputs"].items()},
                output=None if part["output"] is None else bytes.fromhex(part["output"]),
                source=part["source"],
            )
            for part in kept.pop("parts")
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    if isinstance(ask, Malformed) or not isinstance(ask, expert.Ask):
        return None
    return ExpertQuestion(ask=ask, parts=parts, stored=True, **kept)
