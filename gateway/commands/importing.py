"""`swarm nodes import`: a file of nodes to the daemon, in parts, and exactly what became of each part.

Theory of operation.  What can be refused beforehand is, before anything is changed.  A group that takes
another's place goes with all nodes in one request, which the daemon carries out whole or not at all; where
they are too many for one request the nodes go first, part by part, and the group last, if every node was
taken.  The signing key comes after them.  An import that stops on the way says what is in the daemon, what
is not, and of which part it is not known; doing it again changes nothing of what is there.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.commands.client import NoAnswer
from gateway.commands.output import CommandError
from gateway.commands.signing import bring_key, is_new_key
from swarm.words import counted

if TYPE_CHECKING:
    from gateway.commands.client import Client
    from gateway.commands.node_files import NodesFile, Row

__all__ = ["Outcome", "import_file", "refuse_unless_all"]

PART = 1000
WHOLE_MAX = 5000
"""Nodes that the daemon takes in one request, of at most `WHOLE_SIZE_MAX` bytes."""
WHOLE_SIZE_MAX = 3_900_000
LINES_MAX = 10
TIMEOUT_S = 300.0


@dataclass(slots=True)
class Outcome:
    """What an import came to."""

    counts: Counter[str] = field(default_factory=lambda: Counter(added=0, changed=0, unchanged=0))
    refused: list[str] = field(default_factory=list)
    """A line for each node that the daemon does not take."""
    multicast: str | None = None
    """`set` or `unchanged`, as the daemon said; None: it was not told of a group."""
    is_new_key: bool = False
    stopped: list[str] = field(default_factory=list)
    """Why it ended before its time, and what was left out; empty: it did not."""
    unknown: int = 0
    """Nodes of which nobody knows whether the daemon took them: it did not answer."""
    not_sent: int = 0

    def document(self) -> dict[str, Any]:
        """For a program."""
        half = {"unknown": self.unknown, "not_sent": self.not_sent} if self.stopped else {}
        return {**self.counts, "refused": self.refused, "multicast": self.multicast, **half}

    def line(self) -> str:
        """For a person."""
        counts, refused = self.counts, len(self.refused)
        news = counts["added"] or counts["changed"] or refused or self.multicast == "set" or self.is_new_key
        if counts["unchanged"] and not news and not self.stopped:
            return f"{counted(counts['unchanged'], 'node')} known already, nothing changed"
        parts = [f"{counted(counts['added'], 'node')} added"]
        parts += [f"{counts['changed']} changed"] if counts["changed"] else []
        parts += [f"{counts['unchanged']} known already"] if counts["unchanged"] else []
        parts += [f"{refused} refused"] if refused else []
        parts += ["the multicast group set"] if self.multicast == "set" else []
        parts += ["models are signed from now on"] if self.is_new_key else []
        return ", ".join(parts)


def import_file(
    client: Client, table: NodesFile, file: Path, *, replace_multicast: bool, replace_signing_key: bool
) -> Outcome:
    """Bring what a file says to the daemon; CommandError where that was refused before anything changed."""
    outcome = Outcome(refused=list(table.mistakes))
    key = table.signing_seed
    wanted = key is not None and is_new_key(client, key, file, replace=replace_signing_key)
    group = {**table.multicast, "replace": replace_multicast} if table.multicast else None
    is_whole = replace_multicast or replace_signing_key
    for nodes, its_group in _parts(table.nodes, group, is_whole=is_whole):
        _send(client, nodes, its_group, outcome)
        if outcome.stopped or (is_whole and outcome.refused):
            break
    if not outcome.stopped and not (is_whole and outcome.refused) and wanted and key is not None:
        try:
            outcome.is_new_key = bring_key(client, key, file, replace=replace_signing_key)
        except CommandError as error:
            outcome.stopped = [str(error)]
    taken = sum(outcome.counts.values()) + len(outcome.refused) - len(table.mistakes)
    outcome.not_sent = len(table.nodes) - taken - outcome.unknown
    if outcome.stopped or (is_whole and outcome.refused):
        key_lacks = wanted and not outcome.is_new_key
        outcome.stopped.append(f"{file}: {_left(outcome, group is not None, key_lacks, table.nodes, taken)}")
    return outcome


def _parts(
    nodes: list[Row], group: dict[str, Any] | None, *, is_whole: bool
) -> list[tuple[list[Row], dict[str, Any] | None]]:
    """What goes into one request each: rows of nodes, and the group in one of them."""
    if is_whole and len(nodes) <= WHOLE_MAX:
        size = len(json.dumps({"nodes": [node for _, node in nodes], "multicast": group}))
        if size <= WHOLE_SIZE_MAX:
            return [(nodes, group)]
    starts = range(0, max(len(nodes), 1), PART)
    if is_whole:
        return [*((nodes[start : start + PART], None) for start in starts), ([], group)]
    return [(nodes[start : start + PART], group if start == 0 else None) for start in starts]


def _send(client: Client, rows: list[Row], group: dict[str, Any] | None, outcome: Outcome) -> None:
    """One request, and what the daemon says of it."""
    body = {"nodes": [node for _, node in rows], "multicast": group}
    try:
        answer = client.post("/api/nodes", body, timeout_s=TIMEOUT_S)
    except NoAnswer as error:
        if not error.may_be_done and not outcome.counts.total():
            raise
        outcome.unknown = len(rows) if error.may_be_done else 0
        outcome.stopped = [str(error)]
        return
    except CommandError as error:
        if not outcome.counts.total():
            raise
        outcome.stopped = [str(error)]
        return
    outcome.counts.update({key: answer[key] for key in ("added", "changed", "unchanged")})
    outcome.multicast = answer["multicast"] if group is not None else outcome.multicast
    outcome.refused += [
        f"{rows[each['row']][0]}: {each['dev_eui']}: {each['reason']}" for each in answer["refused"]
    ]


def _left(outcome: Outcome, has_group: bool, key_lacks: bool, nodes: list[Row], taken: int) -> str:
    """What an import that stopped did not bring, in one line."""
    parts = [f"stopped after {counted(sum(outcome.counts.values()), 'node')}"]
    if outcome.unknown:
        first, last = nodes[taken][0], nodes[taken + outcome.unknown - 1][0]
        parts.append(
            f"of the next {outcome.unknown} ({first} to {last}) it is not known whether they were taken"
        )
    if outcome.not_sent:
        parts.append(f"{outcome.not_sent} were not sent, from {nodes[len(nodes) - outcome.not_sent][0]} on")
    if has_group and outcome.multicast is None:
        known = "it is not known whether the multicast group was taken" if outcome.unknown else ""
        parts.append(known or "the multicast group was not set")
    if key_lacks:
        parts.append("the signing key was not brought")
    return f"{'; '.join(parts)}.  Import it again: what is there already stays as it is"


def refuse_unless_all(client: Client, table: NodesFile) -> None:
    """CommandError before anything is replaced, if a node of the file would be left out: the cell would then
    speak to nodes that it does not know."""
    lines, old = list(table.mistakes), list[str]()
    for start in range(0, len(table.nodes), PART):
        batch = table.nodes[start : start + PART]
        body = {"nodes": [node for _, node in batch], "check": True}
        for each in client.post("/api/nodes", body, timeout_s=TIMEOUT_S)["refused"]:
            lines.append(f"{batch[each['row']][0]}: {each['dev_eui']}: {each['reason']}")
            old += [each["in_the_way"]] if each["in_the_way"] else []
    if not lines:
        return
    if len(lines) > LINES_MAX:
        lines[LINES_MAX:] = [f"and {len(lines) - LINES_MAX} more like these"]
    if old:
        lines.append(
            "first remove the old nodes that are in the way, then import again:"
            f" swarm nodes remove -y {' '.join(dict.fromkeys(old))}"
        )
    raise CommandError("\n".join([*lines, "nothing was changed"]))
