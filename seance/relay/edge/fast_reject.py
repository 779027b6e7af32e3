"""Rejects clients of absent rooms at accept, before a transport, a protocol or a timer is made.

Clients of a host that is gone reconnect every 2.5 s, in phase and without end: a thousand open tabs are 400
upgrades a second that cannot succeed. Through ``Frontend`` each costs a transport, a protocol, two timers, a
parsed head and some turns of the reactor. Here it costs four system calls and a dictionary access.

``FastReject`` replaces the socket of a listening TCP port. Its ``accept`` reads what the kernel has with
``MSG_PEEK`` (with ``TCP_DEFER_ACCEPT`` a connection is not accepted before its first bytes). It answers if
that is the whole head of a valid upgrade for an unknown room, or for a room whose agent is away and whose
wait queue is full. **Every other connection is passed on untouched**, with its bytes unread, to Twisted's
``Port`` and to ``Frontend``: no data yet, an incomplete head, more than a head, a room that is served or has
space in its wait queue, a token that cannot be verified immediately, or a relay that is full.

There is no second parser. A head is parsed once by the functions that ``Frontend`` uses, and the result is
cached under the bytes of the head *without the key*, which is random for each connection: no parsing function
depends on those sixteen bytes in base64. Addresses and rates are counted for each connection, and the room
and the validity of the token are checked each time. Only the result of a signature check is cached, as in
``ActiveGrants``.

Without this file and its call in ``Listeners`` the relay behaves the same at a higher cost
(``benchmarks/refusals.py``; docs/benchmarks.md). A 503 for a full wait queue costs what a 404 costs.
"""

from __future__ import annotations

import errno
import re
import socket
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from seance.core.events import Refused
from seance.core.interfaces import Grant, TokenRole, Verifier
from seance.core.per_turn_limiter import MAX_PER_TURN
from seance.errors import Refusal
from seance.heads import (
    Request,
    RequestReader,
    RouteKind,
    check_origin,
    check_upgrade,
    find_token,
    plain_response,
    resolve_target,
)
from seance.relay.edge.admission import Visit

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from seance.relay.edge.frontend import FrontendFactory

__all__ = ["FastReject", "Upgrade", "upgrade_of"]

MAX_CACHED = 1024
"""Cached heads; the oldest is dropped first. A browser has one head for each document."""

MAX_HEAD_BYTES = 2048
"""Longer heads are passed on. Browsers send 500 bytes and some cookies."""

MAX_REJECTS_PER_TURN = 100
"""Rejections in one turn of the reactor."""

MAX_HELD = 64
HELD_SECONDS = 2.0
"""Bounds of answered connections that stay open; see ``LingeringClose`` for the reason."""

BACKLOG = 1024
"""Connections that wait in the kernel. Twisted's 50 is too small for a classroom that reconnects in phase."""

DEFER_SECONDS = 1
"""A connection without data is accepted after this time; ``Frontend`` then cuts it."""

KEY_FIELD = b"\r\nSec-WebSocket-Key: "
KEY_BYTES = 24
_KEY = re.compile(rb"[0-9A-Za-z+/]{22}==\r\n")

PEEK = getattr(socket, "MSG_PEEK", 0) | getattr(socket, "MSG_DONTWAIT", 0)
# The response and our FIN in one segment instead of two.
SEND = getattr(socket, "MSG_MORE", 0) | getattr(socket, "MSG_DONTWAIT", 0)


@dataclass(slots=True)
class Upgrade:
    """A valid upgrade request of a client.

    Attributes:
        request: Its head, with the key of its first connection.
        room: The room.
        token: The token, not verified; empty for none. Not shown in ``repr``.
        grant: The grant of the token when it was last verified.
    """

    request: Request
    room: str
    token: str = field(repr=False)
    grant: Grant | None = None


def upgrade_of(head: bytes) -> Upgrade | None:
    """Return the upgrade if the bytes are exactly one valid head of a client's upgrade, else None.

    A head that ``Frontend`` would refuse, or a request for another endpoint, gives None.
    """
    reader = RequestReader(MAX_HEAD_BYTES)
    try:
        request = reader.receive(head)
        if request is None or reader.trailing:
            return None
        route = resolve_target(request.target)
        check_upgrade(request)
    except Refusal:
        return None
    if route.kind is not RouteKind.CLIENT:
        return None
    return Upgrade(request, route.room, find_token(request, route).token)


@lru_cache(maxsize=64)
def _written(status: int, message: str, headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    return plain_response(status, message + "\n", headers=headers)


class FastReject:
    """A listening socket with an ``accept`` that rejects what it can. ``close`` it with its port.

    Args:
        listener: The real socket, non-blocking.
        front: The frontend that serves the other connections.
    """

    def __init__(self, listener: socket.socket, front: FrontendFactory) -> None:
        self._listener = listener
        self._front = front
        self._reactor: IReactorTime = front.reactor
        self._upgrades: OrderedDict[bytes, Upgrade | None] = OrderedDict()
        self._held: deque[socket.socket] = deque()
        self._older_count = 0
        self._passed = 0
        """Approximate number of connections passed on in this turn."""
        self._timer: IDelayedCall | None = None

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # any attribute of a socket
        """Return an attribute of the real socket."""
        return getattr(self._listener, name)

    @classmethod
    def install(cls, port: Any, front: FrontendFactory) -> None:  # noqa: ANN401  # see below
        """Replace the socket of a port, if it is a plain TCP port and the system supports it.

        Args:
            port: A listening port of any kind.
            front: The frontend that serves the connections of the port.
        """
        listener = getattr(port, "socket", None)
        defer = getattr(socket, "TCP_DEFER_ACCEPT", None)
        if not isinstance(listener, socket.socket) or defer is None or not (PEEK and SEND):
            return
        # TLS and the PROXY protocol wrap the factory.
        if port.factory is front and listener.family in (socket.AF_INET, socket.AF_INET6):
            listener.setsockopt(socket.IPPROTO_TCP, defer, DEFER_SECONDS)
            listener.listen(max(port.backlog, BACKLOG))
            port.socket = cls(listener, front)

    def accept(self) -> tuple[socket.socket, Any]:
        """Return the next connection that is not rejected.

        Raises:
            OSError: As any listening socket; ``EAGAIN`` also at the end of a turn.
        """
        if self._passed >= MAX_PER_TURN:
            self._passed = 0
            raise BlockingIOError(errno.EAGAIN, "enough for one turn")
        for _ in range(MAX_REJECTS_PER_TURN):
            if self._front.admission.is_full:
                # The port was paused, but Twisted still accepts up to a hundred connections in this turn.
                raise BlockingIOError(errno.EAGAIN, "there is no free slot")
            connection, address = self._listener.accept()
            try:
                head = connection.recv(MAX_HEAD_BYTES, PEEK)
            except OSError:
                head = b""
            answer = self._answer_to(head, address[0])
            if answer is None:
                self._passed += 1
                return connection, address
            self._close_gracefully(connection, len(head), answer)
        raise BlockingIOError(errno.EAGAIN, "enough for one turn")

    def close(self) -> None:
        """Close the listening socket and the held connections."""
        self._listener.close()
        while self._held:
            self._held.popleft().close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- inside ----------------------------------------------------------------------------

    def _answer_to(self, head: bytes, peer: str) -> bytes | None:
        """Return the refusal of a connection with this head; None to pass the connection on."""
        front = self._front
        upgrade = self._read(head)
        if upgrade is None or front.is_draining:
            return None
        refusal = front.rooms.refusal_now(upgrade.room)
        if refusal is None or front.admission.is_full or len(head) > front.context.settings.head_bytes:
            return None
        try:
            if not self._passes_checks(upgrade, peer):
                return None
        except Refusal as earlier:
            refusal = earlier
        front.context.observer.notify(Refused(refusal.code))
        return _written(refusal.status, refusal.message, refusal.headers)

    def _passes_checks(self, upgrade: Upgrade, peer: str) -> bool:
        """Make the checks of ``Frontend`` in its order; return False if it has to make them itself.

        Raises:
            Refusal: The first check that fails.
        """
        front, context, admission = self._front, self._front.context, self._front.admission
        holder = admission.enter(peer)
        try:
            check_origin(upgrade.request, context.settings.origins)
            address = front.proxies.client_of(peer, upgrade.request)
            if address != peer:
                later = admission.enter(address)
                admission.leave(holder)
                holder = later
            now = self._reactor.seconds()
            admission.count_visit(Visit.CLIENT, address, now)
            if context.verifier is not None:
                grant = _verified(upgrade, context.verifier)
                if grant is None or grant.max_clients is not None:
                    admission.take_back_visit(Visit.CLIENT, address, now)
                    return False
                check_origin(upgrade.request, grant.origins)
            admission.count_for_room(Visit.CLIENT, upgrade.room, now)
        finally:
            admission.leave(holder)
        return True

    def _read(self, head: bytes) -> Upgrade | None:
        at = head.find(KEY_FIELD) + len(KEY_FIELD)
        if at < len(KEY_FIELD) or _KEY.match(head, at) is None:
            return None
        without_key = head[:at] + head[at + KEY_BYTES :]
        try:
            return self._upgrades[without_key]
        except KeyError:
            upgrade = self._upgrades[without_key] = upgrade_of(head)
            if len(self._upgrades) > MAX_CACHED:
                self._upgrades.popitem(last=False)
            return upgrade

    def _close_gracefully(self, connection: socket.socket, head_bytes: int, answer: bytes) -> None:
        try:
            # Unread bytes would turn the close into a reset, which destroys the response.
            connection.recv(head_bytes)
            connection.send(answer, SEND)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            connection.close()
            return
        held = self._held
        held.append(connection)
        if len(held) > MAX_HELD:
            held.popleft().close()
        if self._timer is None:
            self._older_count = len(held)
            self._timer = self._reactor.callLater(HELD_SECONDS, self._close_older)

    def _close_older(self) -> None:
        # Connections that were held at the last check have been open long enough.
        self._timer = None
        for _ in range(min(self._older_count, len(self._held))):
            self._held.popleft().close()
        if self._held:
            self._older_count = len(self._held)
            self._timer = self._reactor.callLater(HELD_SECONDS, self._close_older)


def _verified(upgrade: Upgrade, verifier: Verifier) -> Grant | None:
    """Return the grant of a request's token; None if verifying takes longer than this turn.

    Raises:
        Refusal: As ``Verifier.verify``.
    """
    if upgrade.grant is None or not verifier.is_still_good(upgrade.grant):
        upgrade.grant = None
        judging = verifier.verify(upgrade.token, TokenRole.CLIENT, upgrade.room)
        refused: list[Failure] = []
        judging.addCallbacks(partial(setattr, upgrade, "grant"), refused.append)
        if not judging.called:
            judging.cancel()
        elif refused:
            refused[0].raiseException()
    return upgrade.grant
