"""Server endpoints from strings, with additions for a public relay.

``server_endpoint`` parses a string as ``twisted.internet.endpoints.serverFromString`` does, except for two
kinds: ``haproxy:`` reads the PROXY protocol with ``seance.net.proxy_protocol``, and ``unix:`` connects to a
socket to find out whether it is in use. Twisted uses a lock with a process id instead. In a container this id
is always 1, so after a SIGKILL the lock of the dead process seems to belong to the new one.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

from twisted.internet import unix
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.logger import Logger
from zope.interface import implementer

from seance.net.proxy_protocol import ProxyProtocolFactory

__all__ = ["LOOPBACK_HOSTS", "has_no_such_address", "server_endpoint", "why_not_listening"]

LOOPBACK_HOSTS = ("127.0.0.1", "::1")

NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

CLAIM_TRIES = 100
"""Maximum number of attempts to open the claim file, which other processes may remove at the same time."""

PROXY_PREFIX = "haproxy:"

_UNIX = re.compile(r"unix:(?:address=)?((?:\\.|[^:\\])+)(?::|$)")
_log = Logger()


def server_endpoint(
    reactor: Any,  # noqa: ANN401  # no common type
    text: str,
    *,
    trusts: Callable[[str], bool] | None = None,
) -> IStreamServerEndpoint:
    """Return the endpoint for a string.

    Args:
        reactor: Twisted's reactor.
        text: A server endpoint string, such as ``tcp:8080`` or ``haproxy:unix:/run/relay.sock``.
        trusts: Whether a PROXY header from this address is accepted; None accepts all.

    Raises:
        Exception: As ``serverFromString``: each kind of endpoint fails in its own way.
    """
    inner = text.removeprefix(PROXY_PREFIX)
    unix = _UNIX.match(inner)
    if unix is None:
        endpoint = serverFromString(reactor, inner)
    else:
        path = re.sub(r"\\(.)", r"\1", unix[1])
        endpoint = _UnixEndpoint(serverFromString(reactor, f"{inner}:lockfile=0"), path)
    return endpoint if inner == text else _ProxyProtocolEndpoint(reactor, endpoint, trusts)


def has_no_such_address(error: BaseException | None) -> bool:
    """Return whether listening failed because this machine lacks the address."""
    return getattr(getattr(error, "socketError", None), "errno", None) in NO_SUCH_ADDRESS


def why_not_listening(error: CannotListenError, option: str) -> str:
    """Return the end of an error message: why listening failed, and what to do.

    Args:
        error: The error of ``listen``.
        option: The option that sets the address, such as ``--listen``.
    """
    number = getattr(error.socketError, "errno", None)
    why = getattr(error.socketError, "strerror", None) or str(error.socketError)
    hint = f"Choose another with {option}."
    if number == errno.EADDRINUSE:
        hint = f"Stop the program that uses it, or choose another with {option}."
    elif number in NO_SUCH_ADDRESS:
        hint = f"This machine does not have that address; choose another with {option}."
    elif number in (errno.EACCES, errno.EPERM):
        hint = f"Give this user the permission, or choose another with {option}."
    return f"{why}. {hint}"


@implementer(IStreamServerEndpoint)
class _ProxyProtocolEndpoint:
    def __init__(
        self,
        reactor: Any,  # noqa: ANN401  # no common type
        endpoint: IStreamServerEndpoint,
        trusts: Callable[[str], bool] | None,
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._trusts = trusts

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:  # Twisted's
        return self._endpoint.listen(ProxyProtocolFactory(self._reactor, protocolFactory, self._trusts))


@implementer(IStreamServerEndpoint)
class _UnixEndpoint:
    def __init__(self, endpoint: IStreamServerEndpoint, path: str) -> None:
        self._endpoint = endpoint
        self._path = path

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:  # Twisted's
        return maybeDeferred(self._listen, protocolFactory)

    def _listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        try:
            with _claim(f"{self._path}.claim"):
                _remove_stale(self._path)
                # Twisted binds and listens before this returns, so the claim covers both.
                return self._endpoint.listen(factory).addCallback(_keep_identity)
        except OSError as error:
            raise CannotListenError(None, self._path, error) from error


class _UnixPort(unix.Port):
    """Removes its path when it closes only if the path still belongs to its socket.

    Twisted's port removes any file at that path, and never finishes closing if there is none.
    """

    identity: os.stat_result

    def connectionLost(self, reason: Any) -> None:  # noqa: ANN401  # Twisted's
        try:
            is_own = os.path.samestat(os.stat(self._bindPath), self.identity)
        except OSError:
            is_own = False
        if not is_own:
            self._bindPath = b"\0"  # a name that never exists, so nothing is removed
        super().connectionLost(reason)


def _keep_identity(port: IListeningPort) -> IListeningPort:
    if type(port) is unix.Port:
        port.__class__ = _UnixPort
        own = cast(_UnixPort, port)
        own.identity = os.stat(own._bindPath)
    return port


@contextmanager
def _claim(path: str) -> Iterator[None]:
    """Hold an exclusive lock on a file, so that only one process at a time checks and replaces a socket.

    The kernel releases the lock when the process ends in any way. The file is removed afterwards.
    """
    import fcntl  # noqa: PLC0415  # not on every platform; those without have no UNIX sockets in Twisted

    for _ in range(CLAIM_TRIES):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                why = "another process is about to listen there"
                raise OSError(errno.EADDRINUSE, why, path) from error
            if _is_file(descriptor, path):
                try:
                    yield
                finally:
                    with suppress(OSError):
                        os.unlink(path)
                return
        finally:
            os.close(descriptor)
    raise OSError(errno.EADDRINUSE, "other processes try to listen there again and again", path)


def _is_file(descriptor: int, path: str) -> bool:
    """Return whether an open file is still the one at a path; the previous process removes its file."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _remove_stale(path: str) -> None:
    """Remove a socket on which nothing listens, and the lock that Twisted left beside it.

    Raises:
        OSError: A process listens there, it is not a socket, or there is no permission to check or remove it.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None:
        if not stat.S_ISSOCK(mode):
            raise OSError(errno.EEXIST, "there is a file that is not a socket; it was not removed", path)
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            number = probe.connect_ex(path)
        if number in (errno.EACCES, errno.EPERM):
            raise OSError(number, "this user may not connect to the socket that is there already", path)
        if number not in (errno.ECONNREFUSED, errno.ENOENT):
            # EAGAIN is a full backlog and EPROTOTYPE another type of socket: both are in use.
            raise OSError(errno.EADDRINUSE, "another process listens there", path)
        with suppress(FileNotFoundError):
            os.unlink(path)
            why = "no process listened on it"
            _log.info("The socket {path} was removed: {why}", path=path, why=why, event="listen.stale_socket")
    lock = f"{path}.lock"
    if os.path.islink(lock):
        with suppress(OSError):
            os.unlink(lock)
