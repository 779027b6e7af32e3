"""Endpoint strings: stale UNIX sockets, sockets in use, other files; and messages for failed listening."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol

from seance.net import listening, server_endpoint, why_not_listening
from tests.processes import until as until_blocking
from tests.relay.rig import reactor

FACTORY = Factory.forProtocol(Protocol)
FACTORY.noisy = False


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "relay.sock"


async def listen(text: str) -> IListeningPort:
    return await server_endpoint(reactor, text).listen(FACTORY)


async def refused(path: Path) -> str:
    """Listen where this fails; return the end of the message."""
    with pytest.raises(CannotListenError) as found:
        await listen(f"unix:{path}")
    return why_not_listening(found.value, "--listen")


def leave_stale_socket(path: Path) -> None:
    """Leave a socket without a listener, as a killed process does."""
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(os.fspath(path))
        stale.listen()


# UNIX sockets


@ensureDeferred
@pytest.mark.parametrize("lock", [None, "own", "1", "999999999", "no number"])
async def test_stale_socket_is_replaced_regardless_of_its_lock(path: Path, lock: str | None) -> None:
    """Twisted respects a lock if its process id is in use, as 1 is in every container."""
    leave_stale_socket(path)
    if lock is not None:
        Path(f"{path}.lock").symlink_to(str(os.getpid()) if lock == "own" else lock)
    port = await listen(f"unix:{path}")
    await connectProtocol(UNIXClientEndpoint(reactor, os.fspath(path)), client := Protocol())
    client.transport.loseConnection()  # type: ignore[union-attr]  # it is connected
    assert sorted(one.name for one in path.parent.iterdir()) == ["relay.sock"]
    await port.stopListening()
    assert list(path.parent.iterdir()) == []


@ensureDeferred
async def test_socket_in_use_is_left_alone_also_with_a_full_backlog(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(os.fspath(path))
        other.listen(0)
        waiting = []
        for _ in range(4):
            assert "another process listens there. Stop the program that uses it" in await refused(path)
            waiting.append(one := socket.socket(socket.AF_UNIX))
            one.setblocking(False)
            one.connect_ex(os.fspath(path))
        assert stat.S_ISSOCK(path.lstat().st_mode)
        for one in waiting:
            one.close()


@ensureDeferred
async def test_datagram_socket_in_use_is_left_alone(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(os.fspath(path))
        assert "another process listens there" in await refused(path)
        assert path.exists()


@ensureDeferred
@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling link", "fifo"])
async def test_file_that_is_not_a_socket_is_not_removed(path: Path, kind: str) -> None:
    target = path.parent / "target"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        if kind == "link":
            target.write_text("precious")
        path.symlink_to(target)
    before = path.lstat()
    assert "not a socket" in await refused(path)
    assert path.lstat() == before
    assert not Path(f"{path}.claim").exists()


@ensureDeferred
async def test_missing_folder_is_named(tmp_path: Path) -> None:
    assert "No such file or directory" in await refused(tmp_path / "nowhere" / "relay.sock")


@ensureDeferred
async def test_second_listener_in_one_process_is_refused(path: Path) -> None:
    port = await listen(f"unix:{path}")
    assert "another process listens there" in await refused(path)
    await connectProtocol(UNIXClientEndpoint(reactor, os.fspath(path)), client := Protocol())
    client.transport.loseConnection()  # type: ignore[union-attr]  # it is connected
    await port.stopListening()


@ensureDeferred
async def test_listener_closes_although_its_path_is_gone(path: Path) -> None:
    port = await listen(f"unix:{path}")
    path.unlink()
    await port.stopListening()


@ensureDeferred
async def test_listener_that_closes_leaves_the_socket_of_its_successor(path: Path) -> None:
    port = await listen(f"unix:{path}")
    path.unlink()
    successor = await listen(f"unix:{path}")
    await port.stopListening()
    assert path.exists()
    await successor.stopListening()
    assert not path.exists()


@ensureDeferred
@pytest.mark.parametrize("form", ["unix:{}", "unix:address={}", "unix:{}:mode=600", "unix:{}:lockfile=1"])
async def test_every_form_of_the_string_is_understood(path: Path, form: str) -> None:
    leave_stale_socket(path)
    port = await listen(form.format(path))
    assert stat.S_IMODE(path.stat().st_mode) == (0o600 if "mode" in form else 0o666)
    await port.stopListening()


@ensureDeferred
async def test_colon_in_a_path_is_escaped_as_in_other_endpoints(tmp_path: Path) -> None:
    leave_stale_socket(tmp_path / "a:b")
    port = await listen(f"unix:{tmp_path}/a\\:b")
    await port.stopListening()
    assert list(tmp_path.iterdir()) == []


@ensureDeferred
async def test_claim_is_respected_while_its_process_runs(path: Path) -> None:
    with listening._claim(f"{path}.claim"):
        assert "about to listen there. Stop the program that uses it" in await refused(path)
    Path(f"{path}.claim").touch()  # the process was killed while it started
    port = await listen(f"unix:{path}")
    await port.stopListening()


def test_claim_file_that_keeps_changing_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_is_file", lambda *_: False)
    with pytest.raises(OSError, match="again and again"), listening._claim(f"{path}.claim"):
        pass


LISTENER = """
import sys
from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from seance.net import server_endpoint
listening = server_endpoint(reactor, f"unix:{sys.argv[1]}")
def start():
    listening.listen(Factory.forProtocol(Protocol)).addCallbacks(
        lambda port: print("listens", flush=True), lambda failure: print("refused", flush=True)
    )
sys.stdin.readline()
reactor.callWhenRunning(start)
reactor.run()
"""


@pytest.fixture
def listeners() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for one in started:
        one.kill()
        one.wait()
        for pipe in (one.stdin, one.stdout):
            if pipe is not None:
                pipe.close()


def test_of_processes_that_start_together_one_listens(
    path: Path, listeners: list[subprocess.Popen[str]]
) -> None:
    """There is a stale socket, which each process would remove."""
    for _ in range(2):
        leave_stale_socket(path)
        new = [
            subprocess.Popen(
                [sys.executable, "-c", LISTENER, os.fspath(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(4)
        ]
        listeners += new
        for one in new:
            one.stdin.write("go\n")  # type: ignore[union-attr]  # a pipe
            one.stdin.flush()  # type: ignore[union-attr]  # likewise
        said = sorted(one.stdout.readline().strip() for one in new)  # type: ignore[union-attr]  # likewise
        assert said == ["listens", "refused", "refused", "refused"]
        for one in new:
            one.kill()
            one.wait()
        until_blocking("the kernel has closed it", path.exists)
        path.unlink()


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder like ``/tmp``, outside of pytest's folder, which other users cannot enter."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o1777)
        yield folder


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_socket_of_another_user_is_left_alone_and_the_message_says_why(shared_folder: Path) -> None:
    path = shared_folder / "relay.sock"
    program = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from seance.net import listening
os.setgid(65534); os.setuid(65534)
try:
    with listening._claim({os.fspath(path) + ".claim"!r}):
        listening._remove_stale({os.fspath(path)!r})
except OSError as error:
    print(error.errno, error.strerror)
"""

    def tried() -> str:
        argv = [sys.executable, "-c", program]
        return subprocess.run(argv, capture_output=True, text=True, check=True, cwd="/").stdout.strip()

    with socket.socket(socket.AF_UNIX) as other:
        other.bind(os.fspath(path))
        other.listen()
        path.chmod(0o600)
        assert tried() == f"{errno.EACCES} this user may not connect to the socket that is there already"
        path.chmod(0o666)
        assert tried() == f"{errno.EADDRINUSE} another process listens there"
    assert tried().startswith(f"{errno.EPERM} "), "the sticky bit protects it"
    assert path.exists()


# Error messages


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.EADDRINUSE, "Stop the program that uses it, or choose another with --admin."),
        (errno.EADDRNOTAVAIL, "This machine does not have that address; choose another with --admin."),
        (errno.EAFNOSUPPORT, "This machine does not have that address; choose another with --admin."),
        (errno.EACCES, "Give this user the permission, or choose another with --admin."),
        (errno.ENOENT, "Choose another with --admin."),
    ],
)
def test_hint_fits_the_error(number: int, hint: str) -> None:
    error = CannotListenError("", 80, OSError(number, "Because"))
    assert why_not_listening(error, "--admin") == f"Because. {hint}"


def test_error_without_a_number_is_reported_unchanged() -> None:
    error = CannotListenError("", 80, OSError("AF_UNIX path too long"))  # type: ignore[arg-type]  # any error
    assert why_not_listening(error, "--listen") == "AF_UNIX path too long. Choose another with --listen."
