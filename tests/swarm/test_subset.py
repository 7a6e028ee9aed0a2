"""Containers with fewer experts: the same bytes as the writer makes, and nothing from nonsense."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.model import container
from swarm.model.container import random_model
from swarm.model.subset import with_experts
from swarm.node import Model

FULL = random_model(3, generation=5)
ALL = frozenset(range(8))


@settings(max_examples=30, deadline=None)
@given(st.frozensets(st.integers(0, 7)), st.frozensets(st.integers(0, 7)))
def test_it_is_what_the_writer_makes(first: frozenset[int], second: frozenset[int]) -> None:
    """Goal: leaving experts out of a container, in one step or two, gives the bytes of `container.write`."""
    once = with_experts(FULL, first)
    assert once == random_model(3, generation=5, remote=sorted(ALL - first))
    assert Model(once).held() == tuple(sorted(first))
    assert with_experts(once, first & second) == with_experts(FULL, first & second)
    assert isinstance(container.read(once), container.Container)


def test_what_is_not_there_cannot_be_kept() -> None:
    with pytest.raises(ValueError, match="no bytes of the experts 3, 9"):
        with_experts(with_experts(FULL, (0, 1)), (1, 3, 9))
    for nonsense in (b"", FULL[:-1], b"SWM1" + bytes(100), FULL[:100] + b"\0" + FULL[101:]):
        with pytest.raises(ValueError, match="no model container"):
            with_experts(nonsense, ())


def test_bytes_behind_the_container_are_left_out() -> None:
    assert with_experts(FULL + b"signature", ALL) == FULL
