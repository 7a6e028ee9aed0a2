"""Which version of each context's head nodes took up, and whether they take up the newest one.

Theory of operation.  A node that leaves the newest head serves the one of the fleet that it served before.
Which version that is no frame says, and the one before the newest may be the bad one: of the nodes a third
speaks between two windows, so a version can be sent, and the next one made from it, before enough of them
have said no.  So for each context the newest version is kept that those who spoke did not doubt:

    at each window, of the version that the last one sent, by `verdict.worse`:
        worse                        -> the context's head goes back to the version kept
        a quarter serve another one  -> kept is what was kept: the next version is judged against that
        otherwise, or nobody spoke   -> the version is kept

Row: `taken_up` of table `meta`, a JSON list of versions by context; without one, the version before.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from swarm.config import Learning
from swarm.effects import Row, Store
from swarm.federation.modes import MODES
from swarm.federation.verdict import SHARE_MIN, reason, verdict, worse
from swarm.model.versions import Versions
from swarm.registry import Registry
from swarm.wire.app import RoundMode

__all__ = ["Leaving", "TakenUp"]

KEY = "taken_up"


@dataclass(frozen=True, slots=True)
class Leaving:
    """Contexts whose head nodes leave, by the version they go back to; `whole`: all that have nodes."""

    contexts: dict[int, frozenset[int]]
    reason: str
    whole: bool


class TakenUp:
    """See the module; `meta` are the rows of that table."""

    def __init__(self, learning: Learning, versions: Versions, meta: Mapping[str, Row]) -> None:
        mode = None if learning.mode == "none" else MODES[RoundMode[learning.mode.upper()]]
        # A mode with a strategy of its own makes heads of statistics: the next round would make them again.
        self._is_on = learning.roll_back and mode is not None and mode.strategy is None
        self._versions = versions
        self._kept: list[int] | None = json.loads(str(meta[KEY]["value"])) if KEY in meta else None

    def judge(self, registry: Registry) -> tuple[Leaving | None, list[Store]]:
        """Whether nodes leave what the last window sent; None also where nobody judges."""
        if not self._is_on:
            return None, self._forget()
        versions = self._versions
        before, sent = versions.earlier(), versions.sent_version
        kept = self._kept or [sent if before is None else before[0]] * versions.mirror.contexts
        kept = [versions.oldest_from(version) for version in kept]
        judged = versions.changed_since(kept)
        invited = Counter(entry.record.context for entry in registry if entry.record.context in judged)
        choices = registry.choices(sent)
        found = worse({context: choices.get(context, []) for context in invited}, invited)
        left = frozenset().union(*found)
        for context in set(range(len(kept))) - left:
            said = verdict(choices.get(context, ()), 0)
            if context not in judged or said.before < max(1.0, SHARE_MIN * (said.newest + said.before)):
                kept[context] = sent
        stores = [] if kept == self._kept else [Store("meta", KEY, {"value": json.dumps(kept)})]
        self._kept = kept
        back = {
            version: frozenset(c for c in left if kept[c] == version) for version in {kept[c] for c in left}
        }
        whole = len(back) == 1 and left == {entry.record.context for entry in registry}
        return Leaving(dict(sorted(back.items())), reason(found), whole) if back else None, stores

    def _forget(self) -> list[Store]:
        """Whoever judges later begins with the version before."""
        stores = [] if self._kept is None else [Store("meta", KEY, None)]
        self._kept = None
        return stores
