"""A log that is not read: the event loop continues, lost lines are counted, and no other line is lost."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from twisted.logger import Logger

from seance.logs import writer as writer_module
from seance.logs.format import JSON, TEXT, in_background, log_observer
from seance.logs.writer import CLOSE_SECONDS, LogWriter, descriptor_writer
from tests.processes import Process, environment, free_port, running_agent, running_relay, until

F_SETPIPE_SZ = 1031


class Reader:
    """A sink that blocks until ``may_read`` is set."""

    def __init__(self) -> None:
        self.text = b""
        self.error: OSError | None = None
        self.may_read = threading.Event()

    def write(self, data: bytes) -> None:
        self.may_read.wait(10)
        if self.error is not None:
            raise self.error
        self.text += data


def notice(lines: int) -> str:
    return f"{lines} lost\n"


def test_a_reader_that_pauses_gets_the_number_of_lost_lines() -> None:
    reader = Reader()
    writer = LogWriter(reader.write, notice, max_bytes=100)
    for number in range(100):
        writer.write(f"line {number:04}\n")  # 10 bytes
    assert writer.lost_lines == 90
    assert not writer.drain(0.01)
    reader.may_read.set()
    assert writer.drain(10)
    expected = "".join(f"line {number:04}\n" for number in range(10))
    until("the notice is written", lambda: reader.text.decode() == f"{expected}90 lost\n")
    writer.write("after\n")
    assert writer.drain(10)
    assert reader.text.decode().endswith("90 lost\nafter\n")


def test_the_notice_is_at_the_position_of_the_lost_lines() -> None:
    reader = Reader()
    writer = LogWriter(reader.write, notice, max_bytes=30)
    writer.write("first\n")
    until("the thread has the first line", lambda: not writer._queue)
    for _ in range(5):
        writer.write("x" * 29)
    reader.may_read.set()
    assert writer.drain(10)
    until("the notice is written", lambda: b"lost" in reader.text)
    assert reader.text.decode() == "first\n5 lost\n"


def test_lines_lost_on_a_full_disk_are_reported_when_it_has_space_again() -> None:
    reader = Reader()
    reader.may_read.set()
    reader.error = OSError(errno.ENOSPC, "No space left on device")
    writer = LogWriter(reader.write, notice)
    for line in ("one\n", "two\n"):
        writer.write(line)
        assert writer.drain(10)
    reader.error = None
    writer.write("three\n")
    assert writer.drain(10)
    assert reader.text.decode().endswith(" lost\nthree\n")


def test_a_reader_that_has_ended_is_reported_once() -> None:
    reader, reports = Reader(), []
    reader.may_read.set()
    reader.error = BrokenPipeError()
    writer = LogWriter(reader.write, notice, on_broken=lambda: reports.append(True))
    for _ in range(3):
        writer.write("line\n")
        assert writer.drain(10)
    assert reports == [True]
    assert writer.lost_lines == 0


def test_the_thread_waits_for_a_non_blocking_descriptor() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        text = b"x" * 300_000
        thread = threading.Thread(target=descriptor_writer(writing), args=(text,), daemon=True)
        thread.start()
        received = b""
        while len(received) < len(text):
            received += os.read(reading, 65536)
        thread.join(10)
        assert received == text
        assert not os.get_blocking(writing)
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("log_format", [TEXT, JSON])
def test_the_notice_is_a_line_of_the_log(log_format: str) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, F_SETPIPE_SZ, 4096)
    log_file = os.fdopen(writing, "w", encoding="utf-8")
    with os.fdopen(reading, encoding="utf-8") as reader, log_file:
        log = Logger("seance.test", observer=log_observer(log_format, in_background(log_file, log_format)))
        for number in range(8_000):
            log.info("{number} {text}", number=number, text="x" * 200)
        lines = iter(reader)
        last = next(line for line in lines if "were lost" in line)
        if log_format == JSON:
            entry = json.loads(last)
            assert entry["event"] == "log.lines_lost"
            assert 0 < entry["fields"]["lines"] < 8_000
        else:
            assert "[seance.logs.format#warn]" in last


def test_lines_for_a_closed_stdout_are_dropped() -> None:
    in_background(None, TEXT).write("nowhere\n")


SCRIPT = """
import sys
from seance.logs.format import in_background
log = in_background(sys.stdout, "text")
for number in range({lines}):
    log.write("%07d " % number + "x" * 100 + chr(10))
"""


def test_a_normal_exit_loses_no_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(lines=5000)], capture_output=True, text=True, check=True
    )
    assert len(done.stdout.splitlines()) == 5000


def test_an_exit_waits_for_a_blocked_reader_only_for_the_documented_time() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(lines=5000)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.wait(CLOSE_SECONDS + 15) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_after_a_fork_parent_and_child_write_their_own_lines() -> None:
    script = """
import os, sys
from seance.logs.format import in_background
log = in_background(sys.stdout, "text")
log.write("before\\n")
child = os.fork()
log.write("child\\n" if child == 0 else "parent\\n")
if child:
    os.waitpid(child, 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == ["before", "child", "parent"]


# Whole processes


def upgrade(port: int, room: str) -> tuple[socket.socket, bytes]:
    client = socket.create_connection(("127.0.0.1", port), 10)
    client.sendall(
        f"GET /client?room={room} HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    return client, client.recv(65536)


@contextmanager
def blocked_pipe() -> Iterator[int]:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, F_SETPIPE_SZ, 4096)
    try:
        yield writing
    finally:
        os.close(reading)
        os.close(writing)


@contextmanager
def stopped_terminal() -> Iterator[int]:
    """A terminal after Ctrl-S, which calls ``tcflow``."""
    import termios  # UNIX only

    ours, theirs = pty.openpty()
    termios.tcflow(theirs, termios.TCOOFF)
    try:
        yield theirs
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("out", [blocked_pipe, stopped_terminal])
@pytest.mark.parametrize(("program", "log_format"), [("seance", TEXT), ("twistd", JSON)])
def test_a_relay_whose_log_is_not_read_continues_and_stops_in_time(
    program: str, out: Callable[[], Iterator[int]], log_format: str
) -> None:
    port = free_port()
    options = ["--listen", f"tcp:{port}:interface=127.0.0.1", "--log-format", log_format]
    code = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"
    argv = {
        "seance": [sys.executable, "-m", "seance", "relay", *options],
        "twistd": [sys.executable, "-c", code, "-n", "seance-relay", *options],
    }[program]
    with out() as stdout:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stdout,
            env={**os.environ, **environment()},
        )
        try:
            until("it listens", lambda: _accepts(port))
            for _ in range(100):
                # Each of these agents causes two lines: 20 KB in total, of which the pipe takes 4.
                _connect_as_agent(port)
            client, answer = upgrade(port, "nobody")
            client.close()
            assert b" 404 " in answer
            child.terminate()
            assert child.wait(15) == 0
        finally:
            child.kill()
            child.wait()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _connect_as_agent(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 10) as agent:
        agent.sendall(
            b"GET /agent?room=test HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        agent.settimeout(10)
        assert agent.recv(65536).startswith(b"HTTP/1.1")


# Log files


def lines_of(path: Path) -> str:
    return path.read_text("utf-8", "replace") if path.exists() else ""


@contextmanager
def relay_with_log(path: Path, *more: str) -> Iterator[Process]:
    code = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"
    argv = [sys.executable, "-c", code, "-n", "--logfile", str(path), *more]
    argv += ["seance-relay", "--listen", "tcp:0:interface=127.0.0.1"]
    with Process(argv, name="relay with a log file", env=environment()) as process:
        until("it listens", lambda: "starting on port" in lines_of(path))
        yield process


def send_sighup(process: Process) -> None:
    process.signal(signal.SIGHUP)


@pytest.mark.parametrize("creates", [False, True], ids=["nocreate", "create"])
def test_logrotate_gets_a_new_file(tmp_path: Path, creates: bool) -> None:
    path, old = tmp_path / "relay.log", tmp_path / "relay.log.old"
    with relay_with_log(path) as process:
        path.rename(old)
        if creates:
            path.touch()
        process.signal(signal.SIGUSR1)
        until("the new file is open", lambda: str(path) in process.open_descriptors().values())
        send_sighup(process)
        until("the new file is written", lambda: "SIGHUP" in lines_of(path) + lines_of(old))
        assert "SIGHUP" in lines_of(path)
        assert sorted(one.name for one in tmp_path.iterdir()) == ["relay.log", "relay.log.old"]


def test_a_log_file_at_its_path_is_rotated(tmp_path: Path) -> None:
    path = tmp_path / "relay.log"
    with relay_with_log(path) as process:
        process.signal(signal.SIGUSR1)
        until("it is rotated", lambda: (tmp_path / "relay.log.1").exists())


def test_copytruncate_leaves_no_gap(tmp_path: Path) -> None:
    path = tmp_path / "relay.log"
    with relay_with_log(path) as process:
        os.truncate(path, 0)
        send_sighup(process)
        until("it continues to write", lambda: "SIGHUP" in lines_of(path))
        assert "\0" not in lines_of(path)


def test_without_the_folder_the_log_continues_in_the_old_file(tmp_path: Path) -> None:
    from seance.logs.files import AppendedLogFile

    path = tmp_path / "logs" / "relay.log"
    path.parent.mkdir()
    file = AppendedLogFile.fromFullPath(str(path))
    try:
        old = tmp_path / "old"
        path.parent.rename(old)
        file.reopen_or_rotate()
        file.write("still there\n")
        assert (old / "relay.log").read_text() == "still there\n"
    finally:
        file.close()


@pytest.mark.parametrize("program", ["seance", "twistd"])
def test_sigusr1_without_a_log_file_is_logged_and_does_not_end_the_process(program: str) -> None:
    with running_relay() as relay, running_agent(relay, "room", local_port=1) as agent:
        for process in (relay, agent):
            process.signal(signal.SIGUSR1)
            process.when_line("SIGUSR1 has no effect without a log file")
            assert process.exit_code is None
    if program == "seance":
        argv = [sys.executable, "-m", "seance", "relay", "--listen", "tcp:0:interface=127.0.0.1"]
        with Process(argv, name="relay", env=environment()) as process:
            process.when_line("starting on port")
            process.signal(signal.SIGUSR1)
            process.when_line("SIGUSR1 has no effect without a log file")


def test_a_daemon_writes_its_log(tmp_path: Path) -> None:
    """twistd forks after it has made the observer, so the child starts the thread."""
    path, pid = tmp_path / "relay.log", tmp_path / "relay.pid"
    code = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"
    argv = [sys.executable, "-c", code, "--logfile", str(path), "--pidfile", str(pid)]
    argv += ["seance-relay", "--listen", "tcp:0:interface=127.0.0.1"]
    subprocess.run(argv, check=True, env={**os.environ, **environment()}, cwd=tmp_path, timeout=60)
    number = int(pid.read_text())
    try:
        until("it writes", lambda: "starting on port" in lines_of(path))
    finally:
        os.kill(number, 15)
        until("it has ended", lambda: not pid.exists())
    until("its last line is written", lambda: "Server Shut Down" in lines_of(path))


def test_the_end_waits_for_all_writers(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader()
    writer = LogWriter(reader.write)
    monkeypatch.setattr(writer_module, "_writers", [writer])
    writer.write("line\n")
    began = time.monotonic()
    writer_module.drain_all(0.05)
    assert time.monotonic() - began >= 0.05
    reader.may_read.set()
    writer_module.drain_all()
    assert reader.text == b"line\n"


def test_each_line_lost_on_a_full_disk_is_counted() -> None:
    reader = Reader()
    reader.may_read.set()
    reader.error = OSError(errno.ENOSPC, "No space left on device")
    writer = LogWriter(reader.write, notice)
    for _ in range(50):
        writer.write("line\n")
        assert writer.drain(10)
    reader.error = None
    writer.write("after\n")
    assert writer.drain(10)
    assert reader.text == b"50 lost\nafter\n"


def test_an_exception_in_the_thread_does_not_end_the_log() -> None:
    reader = Reader()
    reader.may_read.set()
    writer = LogWriter(reader.write, notice)
    writer.call(lambda: 1 // 0)
    writer.write("after\n")
    assert writer.drain(10)
    assert reader.text == b"after\n"


def test_if_the_thread_cannot_start_the_next_line_starts_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader = Reader()
    reader.may_read.set()
    writer = LogWriter(reader.write, notice)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        writer.write("one\n")
    writer.write("two\n")
    assert writer.drain(10)
    assert reader.text == b"one\ntwo\n"


def no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_if_a_new_log_file_cannot_be_opened_the_log_continues_in_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seance.logs.files import AppendedLogFile

    path = tmp_path / "relay.log"
    file = AppendedLogFile("relay.log", str(tmp_path), rotateLength=10)
    try:
        file.write("0123456789\n")
        with monkeypatch.context() as patched:
            patched.setattr(AppendedLogFile, "_openFile", no_file)
            file.write("in the old one\n")
        assert (tmp_path / "relay.log.1").read_text() == "0123456789\nin the old one\n"
        path.touch()
        file.reopen_or_rotate()
        file.write("in the new one\n")
        assert path.read_text() == "in the new one\n"
    finally:
        file.close()


def no_file(_: object) -> None:
    raise OSError(errno.EDQUOT, "Disk quota exceeded")
