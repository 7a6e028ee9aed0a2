"""When a node's receiver is on: windows of rounds and sessions of large blocks, and a port that knows two
windows."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.receiver import BlockState
from swarm.wire import app
from tests.firmware.large_block import SECOND_US, Bench, offered


def round_frame(next_window_s: int = 7200, window_s: int = 60, number: int = 1) -> bytes:
    return app.encode(app.RoundAnnounce(number, 0, app.RoundMode.NONE, 255, 0, 300, next_window_s, window_s))


def test_the_receiver_is_on_until_the_block_is_whole() -> None:
    bench, sent = Bench(), offered()
    bench.learning(sent.offer(start_in_s=100, length_s=500))
    assert not bench.listens()
    bench.pass_time(99)
    assert not bench.listens()
    bench.pass_time(1)
    assert bench.listens()
    bench.send(sent, until=sent.nb_frag - 1)
    assert bench.listens()
    bench.tell(sent.fragment(sent.nb_frag))
    assert not bench.listens()


def test_the_receiver_closes_at_the_sessions_end() -> None:
    bench, sent = Bench(), offered()
    bench.learning(sent.offer(length_s=500))
    bench.pass_time(499)
    assert bench.listens()
    bench.learning(sent.offer(length_s=500))  # the same session, renewed
    bench.pass_time(499)
    assert bench.listens()
    bench.pass_time(2)
    assert not bench.listens()


def test_a_round_does_not_end_a_session() -> None:
    """Goal: the receiver is on when either wants it.  Method: an OFFER in a window whose ROUND follows; the
    next window begins within the session, and one after it."""
    bench, sent = Bench(), offered()
    schedule = app.encode(app.Schedule(0, 60, 0))
    bench.nodes.rx(0, 0, 12, schedule, multicast=False)
    bench.take_listens()
    assert bench.listens()
    bench.now_us += 10 * SECOND_US
    bench.learning(sent.offer(start_in_s=5, length_s=300))
    bench.learning(round_frame(next_window_s=200))
    assert not bench.listens()  # ROUND closed the window, and the session has not begun
    bench.pass_time(6)
    assert bench.listens()
    bench.pass_time(210)
    bench.learning(round_frame(next_window_s=400, number=2))  # in the window, in the session
    assert bench.listens()
    bench.pass_time(100)
    assert not bench.listens()
    bench.pass_time(310)
    assert bench.listens()  # the window after that
    bench.pass_time(60)
    assert not bench.listens()


def test_a_window_goes_on_when_the_block_is_whole() -> None:
    bench, sent = Bench(), offered()
    bench.nodes.rx(0, 0, 12, app.encode(app.Schedule(0, 3600, 0)), multicast=False)
    bench.learning(sent.offer())
    bench.send(sent)
    assert bench.state == BlockState.VERIFIED and bench.listens()
    bench.learning(round_frame())
    assert not bench.listens()
    bench.pass_time(7201)
    assert bench.listens()


@dataclass
class Wants:
    """When a node wants its receiver on, as SPEC has it; times in s."""

    window: tuple[int, int] = (0, 0)
    held_until: int = 0
    session: tuple[int, int] = (0, 0)

    def hear(self, what: str, now: int, start_s: int, length_s: int) -> None:
        span = (now + start_s, now + start_s + length_s)
        if what == "offer":
            if self.session[0] <= now < self.session[1]:
                span = (self.session[0], span[1])
            if self.session[1] <= now or any(
                abs(a - b) >= 2 for a, b in zip(span, self.session, strict=True)
            ):
                self.session = span
        if what == "round":
            self.held_until = now
            if self.window[0] <= now < self.window[1]:
                self.window = (self.window[0], now)
        if what in ("round", "schedule"):
            moved = (span[0] - self.window[0], span[1] - self.window[1])
            if moved[0] != moved[1] or abs(moved[0]) >= 2:
                if self.window[0] <= now < self.window[1]:
                    self.held_until = max(self.held_until, self.window[1])
                self.window = span

    def at(self, second: int) -> bool:
        return second < self.held_until or any(a <= second < b for a, b in (self.window, self.session))


@settings(deadline=None, max_examples=200)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["offer", "round", "schedule", "wait"]),
            st.integers(0, 300),
            st.integers(1, 300),
            st.integers(0, 200),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_the_receiver_is_on_exactly_when_something_wants_it(
    steps: list[tuple[str, int, int, int]],
) -> None:
    """Goal: whatever comes in whatever order, a port that knows two windows does what the wants' union says.
    Method: the wants by their definition in SPEC, beside the node; offers of one block, nothing arrives."""
    bench, wants = Bench(), Wants()
    for what, start_s, length_s, wait_s in steps:
        now = bench.now_us // SECOND_US
        wants.hear(what, now, start_s, length_s)
        if what == "offer":
            bench.learning(offered().offer(start_in_s=start_s, length_s=length_s))
        elif what == "round":
            bench.learning(round_frame(start_s, length_s, number=now % 1000))
        elif what == "schedule":
            payload = app.encode(app.Schedule(start_s, length_s, 0))
            bench.nodes.rx(0, bench.now_us, 12, payload, multicast=False)
        for second in range(now, now + wait_s):
            bench.wake()
            assert bench.listens() == wants.at(second), (second, wants)
            bench.pass_time(1)
