"""Mode features is not private: the operator names it twice."""

from __future__ import annotations

from gateway.commands.gateway import _strategy_mistakes
from gateway.config import LearningSection


def test_samples_are_gathered_only_where_somebody_said_so() -> None:
    """The check of `[learning]` names the key and what to say; with consent there is nothing to say."""
    ((path, what, remedy),) = _strategy_mistakes(LearningSection(mode="features"))
    assert path == ("learning", "mode")
    assert "not private" in what and "share_features = true" in remedy
    assert list(_strategy_mistakes(LearningSection(mode="features", share_features=True))) == []


def test_masked_sums_ask_for_no_class_means_first() -> None:
    """They would show of each node what masks are there to hide."""
    chosen = LearningSection(mode="masked_sums", prototype_rounds=2)
    ((path, what, remedy),) = _strategy_mistakes(chosen)
    assert path == ("learning", "prototype_rounds") and "class means" in what and "= 0" in remedy
    assert list(_strategy_mistakes(LearningSection(mode="masked_sums"))) == []
