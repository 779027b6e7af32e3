"""Files in the encodings of Windows, pipes, and file systems that hang."""

from __future__ import annotations

import codecs
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.task import Clock, deferLater
from twisted.logger import LogEvent, globalLogPublisher

from seance.agent import token_source
from seance.agent.token_source import TokenSource
from seance.auth.agent_key import key_from_file
from seance.auth.deny import deny_list_from_text
from seance.auth.jwks import keys_from_jwks
from seance.auth.key_files import signing_key_from_file, write_key
from seance.auth.keys import make_key
from seance.cli.terminal import read_token
from seance.errors import CarrierLost, ConfigError
from seance.net import FileWatcher, StillRunning, ThreadRunner, WatchedFiles, file_reads, files, read_bounded
from seance.net.file_reads import PIPE_SECONDS
from seance.options.config import agent_settings, relay_settings
from tests.processes import Process, environment, running_relay

TOKEN = "eyJ0eXAiOiJzZWFuY2Urand0In0.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl"


@pytest.fixture
def log() -> Iterator[list[LogEvent]]:
    """Return the events about files that the test has logged."""
    events: list[LogEvent] = []

    def note(event: LogEvent) -> None:
        if str(event.get("event", "")).startswith("file."):
            events.append(event)

    globalLogPublisher.addObserver(note)
    yield events
    globalLogPublisher.removeObserver(note)


WINDOWS = {
    "UTF-8 with a mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "UTF-16 LE": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "UTF-16 BE": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "UTF-32": lambda text: text.encode("utf-32"),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "UTF-16 LE and CRLF": lambda text: codecs.BOM_UTF16_LE + text.replace("\n", "\r\n").encode("utf-16-le"),
}


@pytest.fixture(params=WINDOWS)
def encode(request: pytest.FixtureRequest) -> Any:
    return WINDOWS[request.param]


def test_a_token_file(tmp_path: Path, encode: Any) -> None:
    path = tmp_path / "token"
    path.write_bytes(encode(f"{TOKEN}\n"))
    assert TokenSource("", str(path)).read() == TOKEN
    assert read_token(path) == TOKEN


def test_a_config_file(tmp_path: Path, encode: Any) -> None:
    path = tmp_path / "agent.toml"
    path.write_bytes(encode('[agent]\nroom = "röm"\n'.replace("ö", "o")))
    assert agent_settings({"config": [str(path)]}, {}).room == "rom"


def test_a_key_a_deny_list_and_the_key_of_an_agent(tmp_path: Path, encode: Any) -> None:
    key = make_key()
    path = tmp_path / "key"
    write_key(path, key)
    path.write_bytes(encode(path.read_text("ascii")))
    assert signing_key_from_file(path) == key
    deny = tmp_path / "deny"
    deny.write_bytes(encode("# people\nsub:alice\nroom:a*\n"))
    assert deny_list_from_text(read_bounded(deny, 1000)[0]).subjects == {"alice"}
    agent_key = tmp_path / "agent-key"
    own = key_from_file(agent_key)
    agent_key.write_bytes(encode(agent_key.read_text("ascii")))
    assert key_from_file(agent_key).announce("relay") == own.announce("relay")


def test_a_key_set_that_was_fetched(encode: Any) -> None:
    key = make_key().without_signing()
    text = json.dumps({"keys": [key.public_jwk()]}, indent=1)
    assert keys_from_jwks(encode(text)) == (key,)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("token".encode("utf-16-le"), "is UTF-16 text without a byte order mark; save it as UTF-8"),
        ("token".encode("utf-16-be"), "is UTF-16 text without a byte order mark; save it as UTF-8"),
        (codecs.BOM_UTF16_LE + b"odd", "has the byte order mark of UTF-16, but is not valid UTF-16"),
        (codecs.BOM_UTF8 + b"\xff", "has the byte order mark of UTF-8, but is not valid UTF-8"),
    ],
)
def test_invalid_text_is_reported(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        read_bounded(path, 100)
    with pytest.raises(CarrierLost, match=sentence):
        TokenSource("", str(path)).read()


def test_the_limit_applies_to_the_text(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(codecs.BOM_UTF16_LE + ("x" * 100).encode("utf-16-le"))
    assert read_bounded(path, 100)[0] == b"x" * 100
    with pytest.raises(ValueError, match="is longer than 99 bytes"):
        read_bounded(path, 99)


@pytest.mark.parametrize("text", [f"{TOKEN}\n", f"{TOKEN}\r\n", f"\ufeff{TOKEN}", f"  {TOKEN}\t"])
def test_variables_are_stripped(text: str) -> None:
    assert agent_settings({"room": ["r"]}, {"SEANCE_TOKEN": text}).token == TOKEN
    assert agent_settings({}, {"SEANCE_ROOM": "room\n"}).room == "room"
    assert agent_settings({}, {"ROOM_ID": "room\r\n"}).room == "room"
    assert relay_settings({}, {"SEANCE_PORT": "\n"}).port == relay_settings({}, {}).port


# Pipes


@contextmanager
def writer(path: Path, *texts: str) -> Iterator[None]:
    """A program that writes one text to a pipe each time a reader opens it."""
    code = "import sys\nfor text in sys.argv[2:]:\n with open(sys.argv[1], 'w') as f: f.write(text)"
    with subprocess.Popen([sys.executable, "-c", code, str(path), *texts]) as process:
        yield
        process.kill()


def test_a_pipe_with_a_writer_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with writer(path, f"{TOKEN}\n"):
        assert TokenSource("", str(path)).read() == TOKEN


def test_a_pipe_that_the_shell_made_is_a_config_file() -> None:
    reading, writing = os.pipe()
    os.write(writing, b'[agent]\nroom = "room"\n')
    os.close(writing)
    try:
        assert agent_settings({"config": [f"/dev/fd/{reading}"]}, {}).room == "room"
    finally:
        os.close(reading)


@pytest.mark.parametrize("has_writer", [False, True])
def test_a_pipe_without_an_end_is_a_sentence(
    tmp_path: Path, has_writer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_reads, "PIPE_SECONDS", 0.1)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR) if has_writer else -1
    try:
        with pytest.raises(ConfigError, match=r"\(it is a pipe, and its writer did not finish"):
            signing_key_from_file(path)
    finally:
        if has_writer:
            os.close(descriptor)


# Reads that hang


class Hanging:
    """A function that hangs until it is released."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        self.released.wait(20)
        return "text"


@ensureDeferred
async def test_a_read_that_hangs_is_given_up_and_has_no_company(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_reads, "READ_SECONDS", 0.05)
    hanging, runner = Hanging(), ThreadRunner()
    with pytest.raises(DeferredTimeoutError):
        await runner.run(reactor, hanging)
    for _ in range(3):
        with pytest.raises(StillRunning):
            await runner.run(reactor, hanging)
    assert hanging.calls == 1
    hanging.released.set()
    while runner.is_running:
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]
    assert await runner.run(reactor, hanging) == "text"


@ensureDeferred
async def test_a_thread_that_cannot_be_started_fails_one_read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    runner = ThreadRunner()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError):
            await runner.run(reactor, lambda: "text")
    assert await runner.run(reactor, lambda: "text") == "text"


@ensureDeferred
async def test_files_that_hang_keep_what_was_read_and_are_mentioned_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: list[LogEvent]
) -> None:
    monkeypatch.setattr(file_reads, "READ_SECONDS", 0.05)
    path = tmp_path / "file"
    path.write_text("one")
    hanging = Hanging()
    watched: WatchedFiles[str] = WatchedFiles(
        [path], lambda: path.read_text() if path.stat().st_size == 3 else hanging()
    )
    watched.load()
    changes: list[str] = []
    lookout = FileWatcher(reactor, [watched], lambda: changes.append(watched.content))  # type: ignore[arg-type]
    lookout.startService()
    try:
        path.write_text("longer")
        for _ in range(3):
            lookout.reread()
            await deferLater(reactor, 0.1)  # type: ignore[arg-type]
        assert watched.content == "one"
        assert [event["problem"] for event in log] == [f"{path} cannot be read within 5 s"]
        hanging.released.set()
        while not changes:
            lookout.reread()
            await deferLater(reactor, 0.02)  # type: ignore[arg-type]
        assert changes == ["text"]
    finally:
        lookout.stopService()


@ensureDeferred
async def test_a_stopped_watcher_does_not_wait(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    hanging = Hanging()
    hanging.released.set()
    watched = WatchedFiles([path], hanging)
    watched.load()
    hanging.released.clear()
    lookout = FileWatcher(reactor, [watched], lambda: None)  # type: ignore[arg-type]
    lookout.startService()
    lookout.reread()
    lookout.stopService()
    assert not reactor.getDelayedCalls()  # type: ignore[attr-defined]
    hanging.released.set()
    while watched._thread_runner.is_running:
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]


@ensureDeferred
async def test_a_token_that_cannot_be_read_in_time_is_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: list[LogEvent]
) -> None:
    monkeypatch.setattr(file_reads, "PIPE_SECONDS", 0.05)
    monkeypatch.setattr(file_reads, "READ_SECONDS", 0.1)
    path = tmp_path / "token"
    os.mkfifo(path)
    source = TokenSource("", str(path))
    with pytest.raises(CarrierLost, match="it is a pipe, and its writer did not finish"):
        await source.fetch(reactor)
    path.unlink()
    path.write_text(TOKEN)
    assert await source.fetch(reactor) == TOKEN
    path.unlink()
    os.mkfifo(path)
    assert await source.fetch(reactor) == TOKEN
    assert await source.fetch_changed(reactor) is None
    hanging = Hanging()
    monkeypatch.setattr(token_source, "read_bounded", lambda *_: (hanging().encode(), None))
    assert await source.fetch(reactor) == TOKEN
    assert [event["event"] for event in log] == ["file.kept"] * 2
    hanging.released.set()
    while source._off_loop.is_running:
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]


def test_a_pipe_is_read_again_at_a_signal_only(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reads: list[int] = []

    def read() -> int:
        reads.append(1)
        os.utime(path)
        return len(reads)

    watched = WatchedFiles([path], read)
    watched.load()
    lookout = FileWatcher(Clock(), [watched], lambda: None)
    lookout.startService()
    clock: Any = lookout._reactor
    clock.pump([files.CHECK_SECONDS] * 5)
    assert len(reads) == 1
    lookout.reread()
    assert len(reads) == 2
    lookout.stopService()


# The agent


def test_an_agent_whose_token_file_is_a_pipe_connects_renews_and_stops(tmp_path: Path) -> None:
    path = tmp_path / "token"
    os.mkfifo(path)
    with running_relay() as relay:
        argv = [sys.executable, "-m", "seance", "agent", "--relay", relay.url, "--room", "test"]
        argv += ["--token-file", str(path)]
        with Process(argv, name="agent", env=environment(), may_show_tokens=True) as agent:
            agent.when_line("it is a pipe, and its writer did not finish within 2 s")
            with writer(path, *[TOKEN] * 3):
                agent.when_line("Connected to relay")
        with Process(argv, name="agent", env=environment()) as agent:
            agent.when_line("Connecting to relay")
            agent.signal(15)  # while it waits for the pipe
            assert agent.when_exited(deadline_seconds=PIPE_SECONDS + 13) == 0
