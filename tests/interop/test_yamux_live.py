"""Our session and a running hashicorp/yamux v0.1.2, in both roles, over TCP.

``tests/yamux/test_vectors.py`` checks that we understand hashicorp/yamux; here it has to understand us. Every
test also checks all bytes that we sent against the send rules (`Live.__exit__`).
"""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from seance.errors import LocalProtocolError
from seance.yamux import GoAwayReceived, Limits
from seance.yamux.keepalive import Keepalive
from tests.built import go_program
from tests.interop.live import Live
from tests.interop.player import expected_history, limits_for, steps_of
from tests.interop.wire import Recording, pattern, vectors

MIB = 1024 * 1024

both_roles = pytest.mark.parametrize("role", ["client", "server"])


def live_cases() -> list[Any]:
    """Every recorded conversation, with us as either side, except those that depend on a peer's timers."""
    cases = []
    for name, vector in vectors().items():
        for recording in vector["recordings"]:
            timed = any(step["what"] in ("kept_alive", "give_up") for step in recording["steps"])
            for role in ("client", "server"):
                if not recording["script"] and not (timed and role != recording["opener"]):
                    id_ = f"{name}-{recording['opener']}_opens-as_{role}"
                    cases.append(pytest.param(recording, role, id=id_))
    return cases


@pytest.mark.parametrize(("recording", "role"), live_cases())
def test_recorded_scenario_works_live(recording: Recording, role: str) -> None:
    """The steps of the vectors, with our bytes in place of the recorded ones."""
    settings = {"window_bytes": recording["window_bytes"], "backlog": 0}
    if role == recording["opener"]:
        settings["backlog"] = recording["acceptor_backlog"]
    given = {name: value for name, value in settings.items() if value}
    with Live(role, limits_for(recording, role), **given) as live:
        for step in recording["steps"]:
            if step["what"] == "bytes":
                continue
            if step["who"] == role:
                live.do(step)
            else:
                live.settle()
                answer = live.try_order(step["what"], step.get("stream", 0), step.get("count", 0))
                assert answer.get("outcome") == step.get("outcome")
        for stream in {step["stream"] for step in steps_of(recording, role) if "stream" in step}:
            assert live.streams[stream] == expected_history(recording, role, stream)
        if all("closed" in history for history in live.streams.values()):
            assert live.session.stream_count == 0
            assert live.order("count").get("count", 0) == 0


@both_roles
@pytest.mark.parametrize("our_window", [256 * 1024, MIB])
@pytest.mark.parametrize("their_window", [256 * 1024, MIB])
def test_megabyte_is_echoed_on_our_stream(role: str, our_window: int, their_window: int) -> None:
    with Live(role, Limits(receive_window_bytes=our_window), window_bytes=their_window) as live:
        live.order("echo", count=1)
        text = random.Random(our_window + their_window).randbytes(MIB)
        stream = live.session.open_stream(live.now)
        live.session.send_data(stream, text)
        live.session.end_stream(stream)
        live.take_until(stream, lambda: "closed" in live.streams[stream])
        assert live.data_of(stream) == text
        live.wait_for(lambda: live.order("count").get("count", 0) == 0)  # the peer notices a little later


@both_roles
@pytest.mark.parametrize("our_window", [256 * 1024, MIB])
@pytest.mark.parametrize("their_window", [256 * 1024, MIB])
def test_megabyte_is_echoed_on_their_stream(role: str, our_window: int, their_window: int) -> None:
    with Live(role, Limits(receive_window_bytes=our_window), window_bytes=their_window) as live:
        live.echoes = True
        stream = live.order("open")["stream"]
        live.order("write", stream, MIB)
        live.order("read", stream, MIB)
        live.order("end", stream)
        live.order("eof", stream)
        live.wait_for(lambda: "closed" in live.streams[stream])
        assert live.session.stream_count == 0


@pytest.mark.interpreted
@both_roles
def test_our_window_grows_and_the_peer_uses_it(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a long path: data is consumed here immediately, there within a round trip."""
    monkeypatch.setattr(Keepalive, "is_measuring_due", lambda self, now: False)
    with Live(role) as live:
        live.session._session_state.keepalive.min_round_trip_seconds = 60.0
        stream = live.order("open")["stream"]
        live.order("write", stream, 8 * MIB)
        live.take_until(stream, lambda: len(live.data_of(stream)) >= 4 * MIB)
        window = live.session._streams[stream].receive_window
        assert window.size_bytes == 512 * 1024
        live.wait_for(lambda: window.remaining_bytes == 0)
        live.take_until(stream, lambda: len(live.data_of(stream)) == 8 * MIB)
        assert live.data_of(stream) == pattern(0, 8 * MIB)


@both_roles
def test_two_hundred_concurrent_streams_each_way_are_separate(role: str) -> None:
    with Live(role, Limits(streams=512)) as live:
        live.order("echo", count=200)
        live.echoes = True
        theirs = [live.order("open")["stream"] for _ in range(200)]
        texts = {
            live.session.open_stream(live.now): random.Random(seed).randbytes(3000) for seed in range(200)
        }
        for stream, text in texts.items():
            live.session.send_data(stream, text[:1000])
        for stream in theirs:
            live.order("write", stream, 3000)
        for stream, text in texts.items():
            live.session.send_data(stream, text[1000:])
            live.session.end_stream(stream)
        for stream in theirs:
            live.order("read", stream, 3000)
            live.order("end", stream)
            live.order("eof", stream)
        live.wait_for(lambda: live.session.stream_count == 0)
        assert {stream: live.data_of(stream) for stream in texts} == texts
        assert all(live.data_of(stream) == pattern(0, 3000) for stream in theirs)


@both_roles
def test_unread_stream_stops_at_its_window_and_others_continue(role: str) -> None:
    with Live(role) as live:
        slow = live.session.open_stream(live.now)
        live.session.send_data(slow, pattern(0, MIB))
        live.order("accept", slow)
        live.order("echo", count=1)
        quick = live.session.open_stream(live.now)
        live.session.send_data(quick, b"hello")
        live.wait_for(lambda: live.data_of(quick) == b"hello")
        assert sum(len(frame.body) for frame in live.frames() if frame.stream == slow) == 256 * 1024
        live.order("read", slow, MIB)


@both_roles
def test_peer_stops_at_our_window_until_data_is_consumed(role: str) -> None:
    with Live(role) as live:
        stream = live.order("open")["stream"]
        live.order("write", stream, MIB)
        live.wait_for(lambda: "opened" in live.streams[stream])
        live.session.accept_stream(stream)
        live.wait_for(lambda: len(live.data_of(stream)) >= 256 * 1024)
        live.settle()
        assert len(live.data_of(stream)) == 256 * 1024
        live.take_until(stream, lambda: len(live.data_of(stream)) == MIB)
        assert live.data_of(stream) == pattern(0, MIB)
        live.order("flush", stream)


@both_roles
def test_our_reset_ends_one_stream_at_the_peer(role: str) -> None:
    with Live(role) as live:
        cut, kept = live.session.open_stream(live.now), live.session.open_stream(live.now)
        live.order("accept", cut)
        live.order("accept", kept)
        live.session.send_data(cut, pattern(0, 10 * MIB))  # most of it is still queued when the reset arrives
        live.session.reset_stream(cut)
        live.order("reset", cut)
        live.session.send_data(kept, pattern(0, 9))
        live.order("read", kept, 9)


@both_roles
def test_rejected_stream_is_reset_at_the_peer(role: str) -> None:
    with Live(role) as live:
        stream = live.order("open")["stream"]
        live.wait_for(lambda: "opened" in live.streams[stream])
        live.session.reset_stream(stream)
        live.order("reset", stream)


@both_roles
def test_stream_beyond_our_limit_is_reset_at_the_peer(role: str) -> None:
    with Live(role, Limits(streams=3)) as live:
        live.echoes = True
        streams = [live.order("open")["stream"] for _ in range(4)]
        live.order("reset", streams[3])
        for stream in streams[:3]:
            live.order("write", stream, 5)
            live.order("read", stream, 5)
        live.order("end", streams[0])
        live.order("eof", streams[0])
        again = live.order("open")["stream"]
        live.order("write", again, 5)
        live.order("read", again, 5)


@both_roles
def test_goaway_of_the_peer_ends_opening_and_no_stream(role: str) -> None:
    with Live(role) as live:
        stream = live.session.open_stream(live.now)
        live.order("accept", stream)
        live.order("go_away")
        live.wait_for(lambda: live.session.peer_is_going_away)
        assert [event.code for event in live.about_session if isinstance(event, GoAwayReceived)] == [0]
        with pytest.raises(LocalProtocolError):
            live.session.open_stream(live.now)
        live.session.send_data(stream, pattern(0, 700))
        live.order("read", stream, 700)


@both_roles
def test_stream_that_crosses_our_goaway_is_reset(role: str) -> None:
    """hashicorp/yamux opens the stream before it has read our GoAway."""
    with Live(role) as live:
        kept = live.session.open_stream(live.now)
        live.order("accept", kept)
        crossing = live.order_unheard("open")["stream"]
        live.session.go_away()
        live.order("reset", crossing)
        assert live.try_order("open")["outcome"] == "remote end is not accepting connections"
        live.session.send_data(kept, pattern(0, 700))
        live.order("read", kept, 700)
        assert crossing not in live.streams


@pytest.mark.slow
def test_recording_again_gives_the_same_vectors(tmp_path: Path) -> None:
    """The vectors in the checkout are recordings of hashicorp/yamux, without manual changes."""
    subprocess.run([str(go_program("record")), "-into", str(tmp_path)], check=True, capture_output=True)
    recorded = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    committed = vectors()
    for vector in (*recorded.values(), *committed.values()):
        vector["recorded"].pop("go")  # the compiler version does not matter
    assert recorded == committed
