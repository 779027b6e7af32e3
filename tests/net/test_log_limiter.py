"""Log lines that a peer can cause: the first immediately, then one per minute with the count."""

from __future__ import annotations

from twisted.internet.task import Clock

from seance.net.log_limiter import INTERVAL_SECONDS, MAX_KEYS, LogLimiter


def test_the_first_event_is_a_line_and_the_next_minute_is_one_with_the_count() -> None:
    clock = Clock()
    limiter = LogLimiter(clock)
    lines = [limiter.line("refused", "No.") for _ in range(200)]
    assert lines == ["No.", *[None] * 199]
    clock.advance(INTERVAL_SECONDS)
    assert limiter.line("refused", "No.") == "No. (199 more since the last such line)"
    clock.advance(INTERVAL_SECONDS)
    assert limiter.line("refused", "No.") == "No."


def test_alternating_kinds_have_a_line_each_and_no_more() -> None:
    clock = Clock()
    limiter = LogLimiter(clock)
    lines = [limiter.line(kind, kind) for _ in range(100) for kind in ("refused", "timeout")]
    assert [line for line in lines if line is not None] == ["refused", "timeout"]


def test_kinds_that_a_peer_invents_are_bounded() -> None:
    clock = Clock()
    limiter = LogLimiter(clock)
    lines = [limiter.line(("room", number), "No.") for number in range(10_000)]
    assert len([line for line in lines if line is not None]) == MAX_KEYS + 1
    clock.advance(INTERVAL_SECONDS)
    assert limiter.line(("room", -1), "No.") == "No."
    # The counts of removed kinds are not lost.
    counts = [limiter.admit(("room", number)) for number in range(20_000, 20_000 + MAX_KEYS + 1)]
    assert sum(count or 0 for count in counts) >= 10_000 - MAX_KEYS - 1
