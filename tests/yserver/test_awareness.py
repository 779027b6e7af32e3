"""Who is in a document: clocks, owners, departures."""

from __future__ import annotations

import pytest

from seance.errors import RemoteProtocolError
from seance.yserver.awareness import GONE, MAX_DEPARTED, Awareness
from seance.yserver.limits import YServerLimits
from seance.yserver.messages import ClientState

ADA = ClientState(1, 5, '{"user":{"name":"Ada"}}')


def make_awareness(**limits: int) -> Awareness[str]:
    return Awareness(YServerLimits(**limits))


def newer(state: ClientState, text: str | None = None) -> ClientState:
    return ClientState(state.client_id, state.clock + 1, state.state if text is None else text)


def test_a_state_is_news_once() -> None:
    awareness = make_awareness()
    assert awareness.apply([ADA], "a") == (ADA,)
    assert awareness.apply([ADA], "a") == ()
    assert awareness.states() == (ADA,)


def test_a_renewed_state_is_news_although_it_says_the_same() -> None:
    """Its echo is what keeps a stock client from taking its connection for dead."""
    awareness = make_awareness()
    awareness.apply([ADA], "a")
    assert awareness.apply([newer(ADA)], "a") == (newer(ADA),)


def test_an_older_state_changes_nothing() -> None:
    awareness = make_awareness()
    awareness.apply([ADA], "a")
    assert awareness.apply([ClientState(1, 4, "{}")], "a") == ()
    assert awareness.states() == (ADA,)


def test_an_editor_that_says_goodbye_is_gone() -> None:
    awareness = make_awareness()
    awareness.apply([ADA], "a")
    goodbye = ClientState(1, 5, GONE)
    assert awareness.apply([goodbye], "a") == (goodbye,)
    assert awareness.apply([goodbye], "a") == ()
    assert awareness.states() == ()


def test_what_a_connection_brought_leaves_with_it_and_nothing_else() -> None:
    awareness = make_awareness()
    ben = ClientState(2, 1, "{}")
    awareness.apply([ADA], "a")
    awareness.apply([ben], "b")
    assert awareness.leave("a") == (ClientState(1, 5, GONE),)
    assert awareness.states() == (ben,)
    assert awareness.leave("a") == ()


def test_an_echo_of_somebody_elses_state_does_not_move_it() -> None:
    awareness = make_awareness()
    awareness.apply([ADA], "a")
    awareness.apply([ADA], "b")
    assert awareness.leave("b") == ()
    assert awareness.states() == (ADA,)


def test_a_late_echo_does_not_raise_the_dead() -> None:
    awareness = make_awareness()
    awareness.apply([ADA], "a")
    awareness.leave("a")
    assert awareness.apply([ADA], "b") == ()
    assert awareness.states() == ()


def test_an_editor_that_reconnects_takes_its_state_along() -> None:
    """The old connection dies later than the new one comes; the editor must not vanish then."""
    awareness = make_awareness()
    awareness.apply([ADA], "old")
    awareness.apply([newer(ADA)], "new")
    assert awareness.leave("old") == ()
    assert awareness.states() == (newer(ADA),)
    assert awareness.leave("new") == (newer(ADA, GONE),)


def test_an_editor_that_comes_back_needs_a_newer_clock() -> None:
    awareness = make_awareness()
    awareness.apply([ADA], "a")
    awareness.leave("a")
    assert awareness.apply([newer(ADA)], "a") == (newer(ADA),)


def test_states_of_the_departed_can_still_be_told() -> None:
    awareness = make_awareness()
    awareness.apply([ADA], "a")
    awareness.leave("a")
    assert awareness.states_of([1, 7]) == (ClientState(1, 5, GONE),)
    assert awareness.known_ids() == {1}


def test_only_the_latest_departures_are_remembered() -> None:
    awareness = make_awareness()
    for client_id in range(MAX_DEPARTED + 10):
        awareness.apply([ClientState(client_id, 1, "{}")], "a")
        awareness.leave("a")
    assert awareness.known_ids() == set(range(10, MAX_DEPARTED + 10))


def test_one_editor_too_many_is_refused() -> None:
    awareness = make_awareness(states=2)
    awareness.apply([ClientState(1, 1, "{}"), ClientState(2, 1, "{}")], "a")
    awareness.apply([ClientState(2, 2, "{}")], "a")
    with pytest.raises(RemoteProtocolError) as refused:
        awareness.apply([ClientState(3, 1, "{}")], "a")
    assert refused.value.code == "too_many_states"
    assert len(awareness) == 2


def test_a_state_that_is_too_big_is_refused() -> None:
    awareness = make_awareness(state_bytes=10)
    awareness.apply([ClientState(1, 1, '"12345678"')], "a")
    with pytest.raises(RemoteProtocolError) as refused:
        awareness.apply([ClientState(1, 2, '"123456789"')], "a")
    assert refused.value.code == "state_too_big"


@pytest.mark.parametrize("text", ["", "{", "{a:1}", "NaN", "-Infinity", "[" * 9000, "'x'", "nul"])
def test_what_no_browser_could_parse_is_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError, match="not JSON"):
        make_awareness().apply([ClientState(1, 1, text)], "a")


@pytest.mark.parametrize("text", ["1" * 9000, '{"user": {"name": "Ädä"}}', " {} ", "[1.5e3, true]"])
def test_what_every_browser_can_parse_is_taken(text: str) -> None:
    assert make_awareness().apply([ClientState(1, 1, text)], "a")
