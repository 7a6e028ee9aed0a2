"""A cell without LoRaWAN: the firmware's nodes, real frames, rounds and blocks, and their cost on the air.

Theory of operation.  The nodes are C structs that observe a task's training rows and are told their labels.
A round goes as in the field: ROUND is multicast, each invited node composes its update and sends it once,
frames are lost by chance, the gateway's `Round` refuses or holds what arrives, the Flower strategy makes a
new vector, and the block codec takes the nodes there; then come the acknowledgements.  What LoRaWAN adds is
counted, not run: 13 bytes a frame.  All frames travel at one spreading factor, both ways.

Nodes of a context are in masking groups, as a pilot is provisioned.  After a round of masked sums each node
that owes seeds is asked at its next reports, `REPAIR_REPORTS` of them; the reports themselves cost nothing
here, for they are sent anyway.

    cell = Cell(task, model, spreading_factor=7, seed=1)
    cell.round(RoundMode.PROTOTYPES, strategy, cohort=1.0)
    cell.answers(task.test)             # by the fleet's head, as each node holds it, uint8[n]
    cell.served(task.test)              # by the head that each node prefers on its own labels
    cell.costs()                        # frames, bytes, airtime, energy
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simulations.bench.bill import Bill, Costs, payload_max
from simulations.tasks.public_model import PublicModel
from simulations.tasks.task import Samples, Task
from swarm.config import Privacy
from swarm.federation.cohort import cohort_byte
from swarm.federation.features import PER_NODE as SAMPLES_MAX
from swarm.federation.reassembly import Reassembly
from swarm.federation.reply import Reply
from swarm.federation.round import Closed, Round
from swarm.federation.strategy import Aggregator
from swarm.federation.sums_plan import plan_of
from swarm.model import block, layout
from swarm.model.vector import Float64, Mirror
from swarm.node import MaskGroup, NodeConfig, Nodes
from swarm.pilot.masking import divided, pair_key
from swarm.prng import Prng
from swarm.wire import app
from swarm.wire.app import F_PORT_LEARNING, BlockKind, RoundMode, SumsPlan

__all__ = ["Cell"]

REPEATS = 2
"""How often a block is multicast, as in the scenarios."""
FULL_EVERY = 4
SPREAD_S, CLOSE_S = 600, 20_000
POLL_US = 60_000_000
GROUP_SIZE = 8
REPAIR_REPORTS = 8
"""Hourly ones, before the next window of an eight-hour period."""
HOUR_US, DAY_US = 3_600_000_000, 86_400_000_000
SEEDS_WITHIN_US = 10 * POLL_US
YEARS_S = 10 * 365 * 86_400


class Cell:
    """See the module.  `loss` is the chance of each frame to be lost, for each receiver by itself."""

    def __init__(
        self, task: Task, model: PublicModel, *, spreading_factor: int, seed: int, loss: float = 0.01
    ) -> None:
        prng = Prng(seed).child("cell")
        self.task, self.model, self.spreading_factor = task, model, spreading_factor
        self._payload_max = payload_max(spreading_factor)
        self._loss = loss
        self._chance = prng.child("loss").numpy()
        self._now_us = DAY_US
        self._bill = Bill(task.nodes, spreading_factor)
        self._number = 0
        self._accepted: frozenset[int] = frozenset()
        self.contexts = len(task.contexts)
        shipped = np.stack([model.model.base_head(context) for context in range(self.contexts)])
        self.base = self.mirror = Mirror(0, model.model.adapter(), shipped)
        self.master: Float64 = self.mirror.master()
        self._learning = np.array([node for node in range(task.nodes) if node not in task.silent])
        labels = np.bincount(task.train.node, minlength=task.nodes).max()
        self._samples_max = min(int(labels), SAMPLES_MAX)
        self.nodes = self._switched_on(prng.child("nodes"))

    def _switched_on(self, prng: Prng) -> Nodes:
        """The nodes with their labelled samples."""
        task, masks = self.task, self._masks(prng.child("masks"))
        configs = [
            NodeConfig(
                node_index=node,
                context=int(task.node_context[node]),
                seed=prng.child(f"node-{node}").u64(),
                payload_max=self._payload_max,
                status_period_s=YEARS_S,
                mask=masks.get(node),
            )
            for node in range(task.nodes)
        ]
        nodes = Nodes(task.nodes, configs, self.model.image)
        x, order = self.model.encode(task.train.x), np.argsort(task.train.node, kind="stable")
        node = task.train.node[order]
        place = np.arange(len(order)) - np.searchsorted(node, node)
        for number in range(int(place.max()) + 1):
            rows, who = order[place == number], node[place == number]
            labels = np.full(task.nodes, 255, np.uint8)
            labels[who] = task.train.label[rows]
            nodes.observe(self._now_us, number, x[rows], who)
            nodes.label(number, labels)
        return nodes

    def _masks(self, prng: Prng) -> dict[int, MaskGroup]:
        """Each learning node's place in its group; a context with fewer than four is without."""
        made: dict[int, MaskGroup] = {}
        groups = [
            members
            for context in range(self.contexts)
            for members in divided(
                [int(node) for node in self._learning if self.task.node_context[node] == context], GROUP_SIZE
            )
        ]
        for number, members in enumerate(groups):
            secret = prng.child(f"group-{number}").u64().to_bytes(8, "little")
            for own, node in enumerate(members):
                keys = [pair_key(secret, own, peer) for peer in range(len(members))]
                keys[own] = bytes(16)
                made[node] = MaskGroup(number, own, tuple(keys))
        return made

    # -- one round --------------------------------------------------------------------------------

    def round(
        self, mode: RoundMode, strategy: Aggregator, *, cohort: float = 1.0, epsilon: float = 0.0
    ) -> Closed:
        """Announce, gather, close, send the block and the acknowledgements; what the round came to."""
        self._number += 1
        self._now_us += DAY_US
        made = Round(
            number=self._number,
            mode=mode,
            model_version=self.mirror.version,
            cohort=cohort_byte(cohort),
            opened_us=self._now_us,
            close_us=self._now_us + CLOSE_S * 1_000_000,
            quorum=self.task.nodes,
            contexts=self.contexts,
            shape=self.model.model.shape,
            previous_accepted=self._accepted,
            sums=self._plan(epsilon) if mode is RoundMode.MASKED_SUMS else None,
        )
        announcement = app.RoundAnnounce(
            made.number, made.model_version, mode, made.cohort, SPREAD_S, CLOSE_S, 0, 0, made.sums
        )
        self._multicast(app.encode(announcement), self._learning)
        self._gather(made)
        if made.needs_repair:
            self._repair(made)
        closed = made.close(self._now_us, strategy, self.master)
        self._accepted = made.accepted
        for frame in made.ack_frames(self._payload_max):
            self._multicast(frame, self._learning)
        if closed.vector is not None:
            self.master = closed.vector
            self._send_block()
        return closed

    def _plan(self, epsilon: float) -> SumsPlan:
        return plan_of(Privacy(epsilon=epsilon, samples_max=self._samples_max))

    def learn_in_the_clear(self, strategy: Aggregator, nodes: Sequence[int] | None = None) -> None:
        """What `round` does with masked sums, from exact sums of `nodes` that were never on the air."""
        train, classes = self.task.train, self.model.model.shape.classes
        z = np.maximum(self.nodes.z(self.model.encode(train.x), train.node).astype(np.int64), -127)
        z = z[:, : app.SUMS_DIMS]
        upper = np.triu_indices(app.SUMS_DIMS)
        replies = []
        for node in self._learning.tolist() if nodes is None else nodes:
            own = np.flatnonzero(train.node == node)[-SAMPLES_MAX:]
            member = np.eye(classes, dtype=np.int64)[train.label[own]]
            squares = (z[own].T @ z[own])[upper]
            parts = [
                [self.task.node_context[node], 1],
                member.sum(axis=0),
                (member.T @ z[own]).ravel(),
                squares,
            ]
            replies.append(Reply(node, np.concatenate(parts).astype(np.float64), 1))
        done = strategy.aggregate(strategy.rounds + 1, self.master, replies)
        if done.vector is not None:
            self.master = done.vector
            self._send_block()

    def roll_back(self, master: Float64) -> None:
        """Return to an earlier vector and send it, if the nodes hold another one."""
        self.master = master
        self._send_block()

    def _gather(self, made: Round) -> None:
        """Let the nodes send until the round closes: an update may be many frames, one after another."""
        reassembly = Reassembly(made.number)
        following_us = self._now_us
        while following_us < made.close_us:
            self._now_us = max(self._now_us + POLL_US, following_us)
            following_us = int(self.nodes.poll(self._now_us).min())
            for node, f_port, payload in self.nodes.outbox():
                if f_port == F_PORT_LEARNING:
                    self._bill.uplink(node, len(payload))
                    if self._chance.random() >= self._loss:
                        self._receive(made, reassembly, node, payload)

    def _repair(self, made: Round) -> None:
        """Ask those who were heard for the seeds that they owe, whenever they report."""
        made.begin_repair(self._now_us + REPAIR_REPORTS * HOUR_US)
        for _ in range(REPAIR_REPORTS):
            if made.due(self._now_us):
                return
            self._now_us += HOUR_US
            for node in self._learning.tolist():
                asked = made.repair_of(f"{node:016x}")
                if asked is not None:
                    self._multicast(app.encode(asked), np.array([node]), multicast=False)
            for wait_us in range(0, SEEDS_WITHIN_US, POLL_US):
                self.nodes.poll(self._now_us + wait_us)
                for node, f_port, payload in self.nodes.outbox():
                    message = app.decode_uplink(f_port, payload)
                    self._bill.uplink(node, len(payload))
                    if isinstance(message, app.Seeds) and self._chance.random() >= self._loss:
                        made.on_seeds(f"{node:016x}", node, message)

    def _receive(self, made: Round, reassembly: Reassembly, node: int, payload: bytes) -> None:
        """The gateway's part of `swarm.rounds`: fragments to updates, updates to the round."""
        dev_eui = f"{node:016x}"
        message = app.decode_uplink(F_PORT_LEARNING, payload)
        if isinstance(message, app.Fragment):
            if made.on_fragment(dev_eui, node, message) is not None:
                return
            whole, _ = reassembly.take(dev_eui, message)
            if whole is None:
                return
            message = app.decode_uplink(F_PORT_LEARNING, whole)
        assert isinstance(message, app.LearningMessage), message
        context = int(self.task.node_context[node])
        made.on_update(dev_eui, node, message, self._now_us, context=context)

    def _send_block(self) -> None:
        """As `swarm.rounds`: HEADS while the adapter is the shipped one, else DELTA, each fourth FULL."""
        kind = block.choose(self.mirror, self.master)
        if kind is None:
            return
        contexts = None
        moved = not np.array_equal(self.mirror.adapter, self.base.adapter)
        if kind is BlockKind.HEADS and moved:
            kind = BlockKind.FULL
        elif kind is BlockKind.HEADS:
            differ = (self.mirror.heads != self.base.heads).any(axis=1)
            contexts = sorted(
                {*np.flatnonzero(differ).tolist(), *block.changed_contexts(self.mirror, self.master)}
            )
        elif (self.mirror.version + 1) % FULL_EVERY == 0:
            kind = BlockKind.FULL
        made = block.encode(self.mirror, self.master, kind, contexts)
        self.mirror = made.mirror
        for _ in range(REPEATS):
            for frame in made.frames(self._payload_max):
                self._multicast(frame, np.arange(self.task.nodes))

    # -- the air ----------------------------------------------------------------------------------

    def _multicast(self, payload: bytes, receivers: NDArray[np.int64], *, multicast: bool = True) -> None:
        """Nodes that take no part hear blocks only: they may look at a head, and are asked for nothing.

        Not `multicast`: the answer to one node's report, in its receive window.
        """
        self._bill.downlink(len(payload), receivers)
        heard = self._chance.random(len(receivers)) >= self._loss
        self.nodes.rx_many(receivers[heard], self._now_us, F_PORT_LEARNING, payload, multicast=multicast)

    # -- results ----------------------------------------------------------------------------------

    def answers(self, samples: Samples) -> NDArray[np.uint8]:
        """The class of each row by the fleet's parameters as its own node holds them now: uint8[n]."""
        z = self.nodes.z(self.model.encode(samples.x), samples.node).astype(np.int32)
        own = self.nodes.heads[np.arange(self.task.nodes), self.task.node_context].astype(np.int32)
        heads = own.reshape(self.task.nodes, -1, layout.HEAD_ROW)
        said = np.empty(len(samples), np.uint8)
        for begin in range(0, len(samples), 4096):
            rows = slice(begin, begin + 4096)
            head = heads[samples.node[rows]]
            logits = np.einsum("nci,ni->nc", head[:, :, :-1], z[rows]) + layout.Z_ONE * head[:, :, -1]
            said[rows] = logits.argmax(axis=1)
        return said

    def served(self, samples: Samples) -> NDArray[np.uint8]:
        """What the nodes answer: by the head that each serves after comparing on its own labels, uint8[n]."""
        probabilities = self.nodes.infer(self.model.encode(samples.x), samples.node)
        return np.asarray(probabilities.argmax(axis=1), dtype=np.uint8)

    def costs(self) -> Costs:
        """All spent so far; of the nodes that take no part alone where it is them that the task judges."""
        # The multicast is on the account of those who learn together.
        silent = self.task.silent
        return self._bill.costs(silent or range(self.task.nodes), with_downlinks=not silent)
