"""The strategies that one cell's rounds may need, and what they remember from round to round.

One for the configured mode, and the one for class means, with which other modes may begin
(`[learning] prototype_rounds`).  Rows: table `strategy`, one row a strategy, by name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from swarm.config import Learning
from swarm.effects import Row, Store
from swarm.federation.blockwise import strategy_named
from swarm.federation.modes import MODES, strategy_name
from swarm.federation.reply import OWN, PROTOTYPES
from swarm.federation.strategy import Aggregator
from swarm.model.layout import Shape
from swarm.wire.app import RoundMode

__all__ = ["Strategies"]


class Strategies:
    """By name; ValueError for a row that is damaged or of other settings."""

    def __init__(self, learning: Learning, shape: Shape, rows: Mapping[str, Row]) -> None:
        self._learning, self._shape = learning, shape
        self._made = self._fresh()
        for name in self._made.keys() & rows.keys():
            self._made[name].restore(rows[name]["state"])  # type: ignore[arg-type]

    def __getitem__(self, name: str) -> Aggregator:
        return self._made[name]

    def of(self, mode: RoundMode) -> Aggregator:
        """The strategy of a mode's rounds."""
        return self._made[MODES[mode].strategy_name(self._learning.strategy)]

    def stored(self, strategy: Aggregator) -> Store:
        """Its row, as it is now."""
        return Store("strategy", strategy.name, {"state": strategy.state()})

    def renew(self, contexts: Collection[int] | None = None) -> list[Store]:
        """The configured strategy forgets earlier rounds, whole or of these contexts' heads.

        One that keeps statistics of nodes does not.
        """
        name = strategy_name(self._learning.mode, self._learning.strategy)
        if name in OWN:
            return []
        if contexts is None:
            self._made[name] = self._fresh()[name]
        for context in contexts or ():
            self._made[name].forget(self._shape.head_slice(context))
        return [self.stored(self._made[name])]

    def _fresh(self) -> dict[str, Aggregator]:
        """As they begin, without memory."""
        learning = self._learning
        options = {strategy_name(learning.mode, learning.strategy): learning.options}
        options.setdefault(PROTOTYPES, {})
        return {name: strategy_named(name, self._shape, chosen) for name, chosen in options.items()}
