"""One block to many nodes: what is sent when, who has it, who needs help (TS004).

Theory of operation.  A `Delivery` decides, it sends nothing.  Two doors ask it what to send: `multicast`
while the group listens, `unicast` whenever one node can be reached (class A: after its uplink).  Both name
the same frame until `sent_multicast` or `sent_unicast` says that it was transmitted: a frame that the
gateway did not send is not counted, and the end waits for the last one.

1. *Setup*, by unicast: which version does the node speak (where that is not known), then the session with
   the node's own MIC of the block.  `begin` ends the wait; who is set up later hears what is left.  Nodes
   that were *offered* the session (one frame for all, docs/SPEC.md) count as set up until they say otherwise.
2. *Pieces*, then the first group of *parity*: as much as a node is expected to lose, and `SPARE` more.
3. *Poll*: who misses something, answer (at random within BlockAckDelay).  More than `stragglers` such nodes
   get another group, as large as the worst of them needs.  When nobody speaks up any more, all nodes are
   polled, at most `CONFIRM_POLLS` times, because silence may be a lost answer.
   A decoder that counts nothing any more, though `FROZEN` fragments were sent to who hears the polls, has
   finished: receivers after Semtech's tell of what they had lost for good (version 1, which says no more).
4. *Repair*, by unicast: who still misses something gets parity that it cannot have heard, or, when it has no
   memory for so many losses or parity does not help, the pieces themselves; who said nothing is asked.
   `LEFT` are nodes that never answered or would cost more than `repair_max` frames, `FORGED` those that heard
   somebody else's fragment among ours: for them the next block has to do.

Nodes *alone* hear no group (somebody else's network server has them): once set up, each is sent pieces and
then parity of its own, asked when that should do, and sent as much again as it misses.  A number that the
server took is spent: what gets lost there is lost like what gets lost on air.

A delivery speaks one version: rows of parity differ.  Nodes of the other version are `REFUSED` and need a
delivery of their own.  A node that lost its session is set up again with a SessionCnt of its own: a delivery
uses up to `SESSION_CNTS` of them.  All state is in `to_row` and `node_row`; a delivery made from them sends
what this one would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

from swarm.effects import Malformed, Row, integers
from swarm.transport.delivery_plan import REPAIR_NODES, SESSION_CNTS, Plan
from swarm.transport.erasure import Encoder
from swarm.wire import fragmentation as ts004
from swarm.wire.packages import PackageVersionAns, PackageVersionReq

__all__ = [
    "CONFIRM_POLLS",
    "NODES_MAX",
    "REPAIR_NODES",
    "SESSION_CNTS",
    "SPARE",
    "Delivery",
    "Phase",
    "Plan",
    "State",
]

SPARE = 8
"""Parity beyond the expected losses: what a node of average luck needs in nineteen of twenty blocks."""
PARITY_MIN = 32
"""A delivery sends at most as much parity as it has pieces, but may always send so much."""
CONFIRM_POLLS = 3
FEW_PIECES = 16
"""Of so few a node may have lost all."""
IN_VAIN = 6
"""So many fragments that tell a node nothing new come by chance once in sixty times."""
MISSING_MAX = 255
"""A status says no more."""
TRIES_MAX = 16
"""Frames to one node without an answer before it is left."""
FROZEN = 8
"""Fragments that cannot all have been lost: of nodes that lose a fifth, one in four hundred thousand."""
NODES_MAX = 10_000
ANSWER_MARGIN_US = 5_000_000
"""For the receive windows of nodes and the clocks of gateways, after the last answer may have been sent."""


class Phase(IntEnum):
    """Where a delivery stands; what each is, the theory of operation says."""

    SETUP = 0
    FRAGMENTS = 1
    POLL = 2
    LISTEN = 3
    """For the answers to a poll."""
    REPAIR = 4


class State(IntEnum):
    """What is known of one node."""

    VERSION = 0
    """Not even which version it speaks."""
    SETUP = 1
    """It has not said that it has the session."""
    LISTENING = 2
    WHOLE = 3
    REFUSED = 4
    FORGED = 5
    LEFT = 6


_OPEN_STATES = (State.VERSION, State.SETUP, State.LISTENING)


@dataclass(slots=True)
class _Node:
    """`missing` is what the node said in poll `poll`; `owed` repair frames go out before it is asked
    again.  When it first said that it had `received` so many, the group's next fragment was `said_next`, and
    `said_frames` were sent to it alone."""

    state: State
    renewals: int = 0
    missing: int = 0
    poll: int = 0
    owed: int = 0
    frames: int = 0
    tries: int = 0
    received: int = 0
    said_next: int = 0
    said_frames: int = 0
    by_pieces: bool = False
    acknowledge: bool = False
    alone: bool = False
    reason: str = ""


_SAID = ("received", "said_next", "said_frames")
_NUMBERS = ("renewals", "missing", "poll", "owed", "frames", "tries", *_SAID)
_FLAGS = ("by_pieces", "acknowledge", "alone")
_COLUMNS = ("phase", "next", "last", "polls", "polls_before", "confirms", "listen_until_us", "poll_all")


class Delivery:
    """The state of one delivery to `nodes`, of which `speakers` are known to speak the plan's version, and
    `offered` were offered the session without being asked; `alone` hear no group.

    `mic_of` gives a node's MIC of the block for a SessionCnt (`swarm.security.lorawan.data_block_mic`);
    version 1 never asks.
    """

    def __init__(
        self,
        plan: Plan,
        nodes: Iterable[str],
        mic_of: Callable[[str, int], bytes],
        speakers: Iterable[str] = (),
        offered: Iterable[str] = (),
        alone: Iterable[str] = (),
    ) -> None:
        known = {**dict.fromkeys(speakers, State.SETUP), **dict.fromkeys(offered, State.LISTENING)}
        self._nodes = {node_id: _Node(known.get(node_id, State.VERSION)) for node_id in sorted(set(nodes))}
        self._set_alone(alone)
        if not 1 <= len(self._nodes) <= NODES_MAX:
            raise ValueError(f"a delivery goes to 1 to {NODES_MAX} nodes, not {len(self._nodes)}")
        self.plan = plan
        self._mic_of = mic_of
        self._encoder = Encoder(plan.block, plan.frag_size, plan.version)
        self.phase = Phase.SETUP
        self.nb_frag = self._encoder.nb_frag
        self._most = self.nb_frag + max(self.nb_frag, PARITY_MIN)  # fragments that the group is sent
        if self._most + plan.repair_max > ts004.N_MAX:
            raise ValueError(f"{self.nb_frag} fragments are too many for one session")
        self._next = 1  # fragment that multicast sends next
        self._last = self.nb_frag + min(math.ceil(self.nb_frag * plan.loss) + SPARE, self.nb_frag)
        self._polls = 0
        self._polls_before = 0  # the last group of parity
        self._confirms = 0
        self._poll_all = False
        self._listen_until_us = 0

    def _set_alone(self, alone: Iterable[str]) -> None:
        self.alone = tuple(sorted(set(alone)))
        """Those whom no group reaches, in a fixed order."""
        for node_id in self.alone:
            self._nodes[node_id].alone = True

    # What to send. -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """The group listens from now on: no more waiting for nodes that are not set up."""
        if self.phase == Phase.SETUP:
            self.phase = Phase.FRAGMENTS

    def close_group(self) -> None:
        """The group listens no more: who misses something is helped by unicast."""
        self.phase = Phase.REPAIR

    def is_open(self, node_id: str) -> bool:
        """Whether a node lacks the block, and more can be done for it."""
        return self._nodes[node_id].state in _OPEN_STATES

    def leave(self, node_id: str, reason: str) -> bool:
        """Give a node up, where nothing else is known of it; whether it was open."""
        node = self._nodes.get(node_id)
        if node is None:
            return False
        node.acknowledge = False
        was_open = node.state in _OPEN_STATES
        if was_open:
            self._close(node, State.LEFT, reason)
        return was_open

    def multicast(self, now_us: int) -> bytes | None:
        """The payload (FPort 201) that the group should hear next; None while there is nothing to say."""
        if self.phase == Phase.LISTEN and now_us >= self._listen_until_us:
            self._judge()
        if self.phase == Phase.FRAGMENTS:
            return self._fragment(self._next)
        if self.phase == Phase.POLL:
            return self._encode(ts004.FragSessionStatusReq(self.plan.index, self._poll_all))
        return None

    def sent_multicast(self, now_us: int) -> None:
        """What `multicast` said was transmitted, its last bit at `now_us`."""
        if self.phase == Phase.FRAGMENTS:
            self._next += 1
            if self._next > self._last:
                self.phase = Phase.POLL
        elif self.phase == Phase.POLL:
            self.phase = Phase.LISTEN
            self._polls += 1
            self._confirms += self._poll_all
            delay_us = ts004.ack_delay_s(self.plan.block_ack_delay) * 1_000_000
            self._listen_until_us = now_us + delay_us + ANSWER_MARGIN_US

    def poll_at(self) -> int | None:
        """When `multicast` has something to say again; None when that depends on others."""
        return self._listen_until_us if self.phase == Phase.LISTEN else None

    def unicast(self, node_id: str) -> bytes | None:
        """The payload (FPort 201) for one node that can be reached now."""
        node = self._nodes.get(node_id)
        if node is None:
            return None
        if node.acknowledge:
            return self._encode(ts004.FragDataBlockReceivedAns(self.plan.index))
        if node.state == State.VERSION:
            return self._encode(PackageVersionReq())
        if node.state == State.SETUP:
            return self._encode(self._setup(node_id, node))
        if node.state != State.LISTENING or (self.phase != Phase.REPAIR and not node.alone):
            return None
        if self._owes(node):
            return self._fragment(self._repair_number(node))
        return self._encode(ts004.FragSessionStatusReq(self.plan.index, True))

    def sent_unicast(self, node_id: str) -> None:
        """What `unicast` said for this node was transmitted."""
        node = self._nodes[node_id]
        if node.acknowledge:
            node.acknowledge = False
        elif node.state == State.LISTENING and self._owes(node):
            node.owed -= 1
            node.frames += 1
        elif node.state in _OPEN_STATES:
            node.tries += 1
            if node.tries >= TRIES_MAX:
                self._close(node, State.LEFT, "no answer")

    def has_piece(self, node_id: str) -> bool:
        """Whether what `unicast` says is a fragment, which nobody answers."""
        node = self._nodes[node_id]
        helped = node.alone or self.phase == Phase.REPAIR
        return helped and node.state == State.LISTENING and not node.acknowledge and self._owes(node)

    def told(self, node_id: str, *, piece: bool, sent: bool) -> None:
        """What a network server says of a frame after `sent_unicast`: it went out, or it could not."""
        node = self._nodes[node_id]
        if node.state not in _OPEN_STATES:
            return
        if sent:
            node.tries = 0 if piece else node.tries
            return
        if piece:
            node.frames, node.owed = max(0, node.frames - 1), node.owed + 1
            node.tries += 1
        if node.tries >= TRIES_MAX - 1:
            self._close(node, State.LEFT, "its server cannot send")

    # What came. --------------------------------------------------------------------------------------

    def on_uplink(self, node_id: str, payload: bytes) -> Malformed | None:
        """A node's payload on FPort 201; what is not of this delivery changes nothing."""
        commands = ts004.decode_uplink(payload, self.plan.version)
        if isinstance(commands, Malformed):
            return commands
        node = self._nodes.get(node_id)
        if node is not None:
            for command in commands:
                self._hear(node, command)
        return None

    def confirm(self, node_id: str) -> None:
        """The node has the block, as it said by other means (its STATUS tells the model's version)."""
        node = self._nodes.get(node_id)
        if node is not None and node.state != State.WHOLE:
            self._close(node, State.WHOLE, "")

    def _hear(self, node: _Node, command: ts004.Uplink) -> None:
        if isinstance(command, PackageVersionAns):
            if node.state == State.VERSION:
                self._know_version(node, command.version)
            return
        if isinstance(command, ts004.FragSessionStatusAns):
            command = self._as_counted(node, command)
        if command.index != self.plan.index:
            return
        if isinstance(command, ts004.FragSessionSetupAns):
            if node.state == State.SETUP:
                self._know_setup(node, command)
        elif isinstance(command, ts004.FragSessionStatusAns):
            if node.state in _OPEN_STATES:
                self._know_status(node, command)
        elif isinstance(command, ts004.FragDataBlockReceivedReq):
            node.acknowledge = True
            if node.state in _OPEN_STATES:
                self._close_received(node, mic_error=command.mic_error)

    def _know_version(self, node: _Node, version: int) -> None:
        node.tries = 0
        if version == self.plan.version:
            node.state = State.SETUP
        else:
            self._close(node, State.REFUSED, f"speaks version {version}")

    def _know_setup(self, node: _Node, answer: ts004.FragSessionSetupAns) -> None:
        names = ("algorithm_unsupported", "not_enough_memory", "index_unsupported", "wrong_descriptor")
        reasons = [name for name in names if getattr(answer, name)]
        node.tries = 0
        if reasons:
            self._close(node, State.REFUSED, " ".join(reasons))
        elif answer.session_cnt_replay:
            self._renew(node)
        else:
            node.state = State.LISTENING
            if node.alone:
                node.owed = min(self._parity_for(self.nb_frag), self._room(node))

    def _renew(self, node: _Node) -> None:
        """Another session for a node that lost its own, under a SessionCnt that it has not seen."""
        node.state = State.SETUP
        node.renewals += 1
        if node.alone:  # what it was sent is gone
            node.frames = node.owed = 0
        if node.renewals == SESSION_CNTS:
            self._close(node, State.LEFT, "loses its sessions")

    def _as_counted(self, node: _Node, answer: ts004.FragSessionStatusAns) -> ts004.FragSessionStatusAns:
        """LoRaMac-node puts the high byte first, without an index: told by more than was ever sent."""
        most = self._next - 1 + node.frames
        if self.plan.version > 1 or self.plan.index or (answer.index == 0 and answer.received <= most):
            return answer
        low, high = answer.received & 0xFF, answer.index << 6 | answer.received >> 8
        other = low << 8 | high
        return replace(answer, index=0, received=other) if other <= most else answer

    def _is_frozen(self, node: _Node, answer: ts004.FragSessionStatusAns) -> bool:
        """Whether this is what it said before all that was sent since, and cannot have missed."""
        if (answer.missing, answer.received) != (node.missing, node.received):
            node.received = answer.received
            node.said_next, node.said_frames = self._next, node.frames
            return False
        sent = node.frames - node.said_frames
        # Who speaks up while the group is asked hears the group; later nobody knows.
        sent += self._next - node.said_next if self.phase != Phase.REPAIR else 0
        return self.plan.version == 1 and answer.received >= self.nb_frag and sent >= FROZEN

    def _know_status(self, node: _Node, answer: ts004.FragSessionStatusAns) -> None:
        if answer.no_session:
            node.tries = 0
            self._renew(node)
        elif answer.missing == 0:
            node.state = State.LISTENING
            # Other stacks say that nothing is missing, or judge a MIC, before anything came.
            if answer.received >= self.nb_frag:
                self._close_received(node, mic_error=answer.mic_error)
        elif self._is_frozen(node, answer) and not answer.memory_error:
            self._close_received(node, mic_error=False)
        else:
            node.tries = 0
            room = self._room(node)
            stuck = (node.alone or self.phase == Phase.REPAIR) and self._is_stuck(answer)
            node.state = State.LISTENING
            # Who says that more is missing than there is gets no more than who has nothing; what is said when
            # the group is over is newer than all that it was sent, polled or not.
            node.missing = min(answer.missing, self.nb_frag)
            node.poll = self._polls + (self.phase == Phase.REPAIR)
            nothing = not node.alone and node.missing == min(self.nb_frag, MISSING_MAX)
            node.by_pieces = answer.memory_error or nothing or stuck
            node.owed = self.nb_frag if node.by_pieces else self._parity_for(node.missing)
            if node.alone:
                node.owed = min(node.owed, room)
                if room <= 0:
                    self._close(node, State.LEFT, "misses too much")
            elif node.owed > room:
                node.owed = 0  # another group may still help it
                if self.phase == Phase.REPAIR:
                    self._close(node, State.LEFT, "misses too much")

    def _is_stuck(self, answer: ts004.FragSessionStatusAns) -> bool:
        """Whether parity does not help a node.  Where M / 2 is even, version 2 draws an even number of pieces
        for every row: without a single piece no parity is enough."""
        if self.plan.version < 2 or self.nb_frag // 2 % 2 or self.nb_frag > FEW_PIECES:
            return False
        return answer.received + answer.missing - self.nb_frag >= IN_VAIN

    def _close_received(self, node: _Node, *, mic_error: bool) -> None:
        self._close(node, State.FORGED if mic_error else State.WHOLE, "mic" if mic_error else "")

    def _close(self, node: _Node, state: State, reason: str) -> None:
        node.state, node.reason = state, reason
        node.missing = node.owed = 0

    # Decisions. --------------------------------------------------------------------------------------

    def _parity_for(self, missing: int) -> int:
        """Frames to send so that `missing` of them arrive, at the planned loss."""
        return math.ceil(missing / (1 - self.plan.loss))

    def _room(self, node: _Node) -> int:
        """Frames that may still be spent on this node alone."""
        return self.plan.repair_max + (self._most if node.alone else 0) - node.frames

    def _judge(self) -> None:
        """The time for answers to a poll is over."""
        asking = [n for n in self._nodes.values() if n.state == State.LISTENING and not n.alone]
        # Who said so since the last group misses it still, whether or not this poll heard it again.
        said = [node for node in asking if node.missing and node.poll > self._polls_before]
        lacking = [node.missing for node in said if not node.by_pieces]
        room = self._most - (self._next - 1)
        if len(lacking) > self.plan.stragglers and room > 0:
            self._last = self._next - 1 + min(self._parity_for(max(lacking)), room)
            self._poll_all, self._polls_before = False, self._polls
            self.phase = Phase.FRAGMENTS
        elif len(asking) > self.plan.stragglers and self._confirms < CONFIRM_POLLS:
            self._poll_all = True
            self.phase = Phase.POLL
        else:
            self.phase = Phase.REPAIR

    def _owes(self, node: _Node) -> bool:
        """Whether a repair frame is due: what the node said before the last group of parity is old."""
        return node.owed > 0 and (node.alone or node.poll > self._polls_before)

    def _repair_number(self, node: _Node) -> int:
        """A fragment that the node cannot have: parity after all that the group heard, or piece by piece."""
        if node.by_pieces:
            return 1 + node.frames % self.nb_frag
        return (1 if node.alone else self._next) + node.frames

    def _fragment(self, n: int) -> bytes:
        if self.nb_frag == 1:
            n = 1  # there is no parity of a single piece
        return self._encode(ts004.DataFragment(self.plan.index, n, self._encoder.fragment(n)))

    def _setup(self, node_id: str, node: _Node) -> ts004.FragSessionSetupReq:
        plan = self.plan
        session_cnt = plan.session_cnt + node.renewals
        integrity: dict[str, Any] = {}
        if plan.version >= 2:
            mic = self._mic_of(node_id, session_cnt)
            integrity = {"ack_reception": plan.ack_reception, "session_cnt": session_cnt, "mic": mic}
        return ts004.FragSessionSetupReq(
            plan.index,
            0 if node.alone else 1 << plan.group,
            self.nb_frag,
            plan.frag_size,
            plan.block_ack_delay,
            self._encoder.padding,
            plan.descriptor,
            **integrity,
        )

    def _encode(self, command: ts004.Downlink) -> bytes:
        return ts004.encode(command, self.plan.version)

    # What is known, and the rows. --------------------------------------------------------------------

    def state(self, node_id: str) -> tuple[State, str]:
        """What is known of a node, and why it is out, where it is."""
        node = self._nodes[node_id]
        return node.state, node.reason

    def missing(self, node_id: str) -> int | None:
        """How many fragments a node said last that it needs; None: it has said nothing yet."""
        node = self._nodes[node_id]
        return 0 if node.state == State.WHOLE else None if self.is_silent(node_id) else node.missing

    def __contains__(self, node_id: str) -> bool:
        return node_id in self._nodes

    @property
    def left(self) -> dict[str, str]:
        """Who does not have the block, and why; nothing is known of who is still helped."""
        return {i: n.reason or n.state.name.lower() for i, n in self._nodes.items() if n.state != State.WHOLE}

    @property
    def nodes(self) -> tuple[str, ...]:
        """To whom it goes, in a fixed order."""
        return tuple(self._nodes)

    def is_alone(self, node_id: str) -> bool:
        """Whether no group reaches this node."""
        return self._nodes[node_id].alone

    def frames(self, node_id: str) -> int:
        """Fragments that this node alone was sent."""
        return self._nodes[node_id].frames

    @property
    def size(self) -> int:
        """How many nodes it goes to."""
        return len(self._nodes)

    def is_silent(self, node_id: str) -> bool:
        """Whether an offered node has said nothing of its session yet."""
        node = self._nodes[node_id]
        return node.state == State.LISTENING and node.poll == 0 and node.missing == 0

    @property
    def frames_planned(self) -> int:
        """Fragments that the group is sent, with the groups of parity decided so far."""
        return self._last

    @property
    def padding(self) -> int:
        """Bytes of the last piece that are no data."""
        return self._encoder.padding

    @property
    def sent(self) -> tuple[int, int]:
        """Fragments sent to the group, and polls."""
        return self._next - 1, self._polls

    def count(self, *states: State) -> int:
        """Nodes in these states."""
        return sum(node.state in states for node in self._nodes.values())

    @property
    def done(self) -> bool:
        """Whether no node can be helped any more and no acknowledgement is owed."""
        return all(n.state not in _OPEN_STATES and not n.acknowledge for n in self._nodes.values())

    def to_row(self) -> Row:
        """The state of the whole; `node_row` holds that of each node."""
        counts = (self._next, self._last, self._polls, self._polls_before, self._confirms)
        return dict(
            zip(_COLUMNS, (int(self.phase), *counts, self._listen_until_us, int(self._poll_all)), strict=True)
        )

    def node_row(self, node_id: str) -> Row:
        """The state of one node; it changes when one of the calls names the node."""
        node = self._nodes[node_id]
        row: Row = {name: getattr(node, name) for name in _NUMBERS}
        flags = {name: int(getattr(node, name)) for name in _FLAGS}
        return {"state": int(node.state), "reason": node.reason, **flags, **row}

    @classmethod
    def from_rows(
        cls, plan: Plan, mic_of: Callable[[str, int], bytes], row: Row, node_rows: Mapping[str, Row]
    ) -> Delivery:
        """The delivery that these rows are of; ValueError when they are no such rows."""
        made = cls(plan, node_rows, mic_of)
        integers(row, *_COLUMNS)
        phase, *numbers, poll_all = (int(row[name] or 0) for name in _COLUMNS)
        made.phase, made._poll_all = Phase(phase), bool(poll_all)
        made._next, made._last, made._polls, made._polls_before, *times = numbers
        made._confirms, made._listen_until_us = times
        for node_id, stored in node_rows.items():
            integers(stored, "state", *_FLAGS, *_NUMBERS)
            node = made._nodes[node_id]
            node.state, node.reason = State(int(stored["state"] or 0)), str(stored["reason"])
            for name in _FLAGS:
                setattr(node, name, bool(stored[name]))
            for name in _NUMBERS:
                setattr(node, name, stored[name])
        made._set_alone([node_id for node_id, node in made._nodes.items() if node.alone])
        return made
