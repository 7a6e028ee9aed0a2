"""Who holds which experts: what nodes reported, and how well they answered when they were asked.

A node says in an EXPERTS frame which experts it holds, what its gate has chosen, and whether its receiver is
always on.  From the answers to questions the gateway learns who stays silent and who contradicts the others
(experts are integer arithmetic: two honest holders of one generation send the same bytes).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from swarm.effects import Row, Store
from swarm.inference.plan import Candidate, battery_share, exchange_us, promptness
from swarm.phy.regions import Region
from swarm.wire.expert import ALWAYS_ON, COARSE_SIZE, Experts

__all__ = ["HOLDERS_MAX", "Holder", "Holders", "plausible", "rank"]

HOLDERS_MAX = 65_535
"""As many as there are node indices."""
DOUBT = 0.1
"""What one contradiction leaves of a holder's merit."""
SILENCE = 0.5
"""What one question without answer leaves of it, until it answers again."""
REPORT_LIFE_US = 21 * 86_400 * 1_000_000
"""Three reports at one a week: who missed them has changed, or is gone."""
_OUTPUT_MAX = 127


@dataclass(frozen=True, slots=True)
class Holder:
    """One node's experts: bit e of `held`; `seen` in 1/255 of its gate's choices, expert by expert."""

    dev_eui: str
    held: int
    generation: int
    seen: tuple[int, ...]
    always_on: bool
    reported_us: int
    silent: int = 0
    """Questions since its last answer."""
    contradicted: int = 0

    def holds(self, expert: int) -> bool:
        return bool(self.held >> expert & 1)

    def to_row(self) -> Row:
        values = asdict(self)
        values.pop("dev_eui")
        return {**values, "seen": json.dumps(self.seen), "always_on": int(self.always_on)}

    @classmethod
    def from_row(cls, dev_eui: str, row: Mapping[str, object]) -> Holder:
        numbers = {
            name: int(str(row[name]))
            for name in ("held", "generation", "reported_us", "silent", "contradicted")
        }
        seen = tuple(int(share) for share in json.loads(str(row["seen"])))
        return cls(dev_eui, seen=seen, always_on=bool(row["always_on"]), **numbers)


class Holders:
    """The directory; every change returns the `Store` that keeps it."""

    def __init__(self, rows: Mapping[str, Mapping[str, Row]]) -> None:
        self._holders = {
            dev_eui: Holder.from_row(dev_eui, row) for dev_eui, row in rows.get("holder", {}).items()
        }

    def __iter__(self) -> Iterator[Holder]:
        return iter([self._holders[dev_eui] for dev_eui in sorted(self._holders)])

    def get(self, dev_eui: str) -> Holder | None:
        return self._holders.get(dev_eui)

    def report(self, now_us: int, dev_eui: str, message: Experts) -> list[Store]:
        """A node said what it holds."""
        known = self._holders.get(dev_eui)
        if known is None and len(self._holders) >= HOLDERS_MAX:
            return []
        always_on = bool(message.flags & ALWAYS_ON)
        made = Holder(dev_eui, message.held, message.generation, message.seen, always_on, now_us)
        if known is not None:
            made = replace(made, silent=known.silent, contradicted=known.contradicted)
        return self._keep(made)

    def answered(self, dev_eui: str) -> list[Store]:
        known = self._holders.get(dev_eui)
        return [] if known is None or not known.silent else self._keep(replace(known, silent=0))

    def stayed_silent(self, dev_eui: str) -> list[Store]:
        known = self._holders.get(dev_eui)
        return [] if known is None else self._keep(replace(known, silent=known.silent + 1))

    def was_contradicted(self, dev_eui: str) -> list[Store]:
        known = self._holders.get(dev_eui)
        return [] if known is None else self._keep(replace(known, contradicted=known.contradicted + 1))

    def forget(self, dev_eui: str) -> list[Store]:
        return [Store("holder", dev_eui, None)] if self._holders.pop(dev_eui, None) else []

    def of(self, experts: Iterable[int], generation: int, now_us: int) -> list[Holder]:
        """Who holds all of these experts of that generation, as far as its report is fresh."""
        wanted = sum(1 << expert for expert in experts)
        return [
            holder
            for holder in self
            if holder.held & wanted == wanted
            and holder.generation == generation
            and now_us - holder.reported_us <= REPORT_LIFE_US
        ]

    def _keep(self, holder: Holder) -> list[Store]:
        self._holders[holder.dev_eui] = holder
        return [Store("holder", holder.dev_eui, holder.to_row())]


def rank(
    holders: Iterable[Holder],
    candidates: Mapping[str, Candidate],
    *,
    region: Region,
    now_us: int,
    deadline_us: int,
    sizes: tuple[int, int],
) -> list[Holder]:
    """The best holder first: prompt, well charged, cheap, and known to answer like the others.

    `sizes` are the payload bytes of question and answer.  Ties go to the lower node index.
    """
    found: list[tuple[float, int, Holder]] = []
    for holder in holders:
        node = candidates.get(holder.dev_eui)
        if node is None:
            continue
        prompt = 1.0 if holder.always_on else promptness(node, now_us, deadline_us)
        cheap = 1.0 / math.sqrt(exchange_us(region, node, *sizes))
        trust: float = SILENCE**holder.silent * DOUBT**holder.contradicted
        found.append((-prompt * battery_share(node) * cheap * trust, node.node_index, holder))
    return [holder for _, _, holder in sorted(found, key=lambda entry: entry[:2])]


def plausible(output: Sequence[int]) -> bool:
    """Whether these coarse bytes can be an expert's output: not negative, in range, and spanned by their
    step."""
    if len(output) != COARSE_SIZE:
        return False
    floor, step = output[0], output[1]
    nibbles = [nibble for byte in output[2:] for nibble in (byte & 15, byte >> 4)]
    top = max(nibbles)
    spanned = min(nibbles) == 0 and (step == 1 or top > 7)
    return floor <= _OUTPUT_MAX and step >= 1 and spanned and floor + step * top < _OUTPUT_MAX + step
