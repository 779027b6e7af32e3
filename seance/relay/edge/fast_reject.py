"""Refuses clients of absent rooms on the doorstep: before a transport, a protocol or a timer is made.

Clients of a host that is gone for good redial every 2.5 s, in step and for ever: a thousand open tabs are 400
upgrades a second that lead nowhere. Through ``Frontend`` each costs a transport, a protocol, two timers, a
parsed head and some turns of the reactor. Here it costs four system calls and a look-up.

``FastReject`` stands in for the socket of a listening TCP port. Its ``accept`` looks at what the kernel has
(``MSG_PEEK``; with ``TCP_DEFER_ACCEPT`` a connection is not there before its first bytes are), and answers
itself if that is the whole head of a sound upgrade for a room that nobody knows, or whose agent is away while
as many wait for it as may. **Everything else is let through untouched**, to Twisted's own ``Port`` and to
``Frontend``, with its bytes unread: no data yet, half a head, more than one, a room that is served or has a
place to wait in, a token that cannot be judged at once, or a relay that is full.

There is no second parser. A head is read once by the same functions as in ``Frontend``, and what they found
is kept under its bytes *without the key*, which is random for each dial: sixteen bytes in base64 in one place
can be exchanged for others without any of those functions noticing. Addresses and rates are counted each
time; whether the room is known, and whether its token still is good, is asked each time. Only what a
signature says is kept, as ``ActiveGrants`` does for those who are inside.

Remove this file, and its call in ``Relay``, and nothing changes but the cost: with a key and a good token in
every address it is a twelfth of what it is without (``benchmarks/refusals.py --token``; figures are in
docs/benchmarks.md). A 503 because as many wait as may costs what a 404 does.
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

    from seance.relay.service import Relay

__all__ = ["FastReject", "Upgrade", "upgrade_of"]

MOST_KEPT = 1024
"""Heads that are kept; the oldest goes. A browser has one for each of its documents."""

MOST_HEAD_BYTES = 2048
"""Longer heads are let through. Browsers send 500 bytes, and some cookies."""

MOST_IN_TURN = 100
"""Refusals before others have a turn of the reactor."""

MOST_HELD = 64
HELD_SECONDS = 2.0
"""Answered connections stay open for so long, or until that many others came: see ``LingeringClose``."""

BACKLOG = 1024
"""Connections that wait in the kernel. Twisted's 50 is less than a classroom that redials in step."""

DEFER_SECONDS = 1
"""A connection without data is there after this time all the same, and then ``Frontend`` cuts it."""

KEY_FIELD = b"\r\nSec-WebSocket-Key: "
KEY_BYTES = 24
_KEY = re.compile(rb"[0-9A-Za-z+/]{22}==\r\n")

PEEK = getattr(socket, "MSG_PEEK", 0) | getattr(socket, "MSG_DONTWAIT", 0)
# One segment for the answer and the end of our side, instead of two.
SEND = getattr(socket, "MSG_MORE", 0) | getattr(socket, "MSG_DONTWAIT", 0)


@dataclass(slots=True)
class Upgrade:
    """A sound upgrade of a client.

    Attributes:
        request: Its head, with whichever key it had when it first came.
        room: Where it wants to go.
        token: What it presents, as nobody has verified it; empty for none. Not shown in ``repr``.
        grant: What the token was worth when it was last verified.
    """

    request: Request
    room: str
    token: str = field(repr=False)
    grant: Grant | None = None


def upgrade_of(head: bytes) -> Upgrade | None:
    """Return what this is, if it is one whole and sound head of a client's upgrade.

    Whatever ``Frontend`` would refuse for its head, and whatever is not for a client, is None.
    """
    reader = RequestReader(MOST_HEAD_BYTES)
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
def _written(status: int, sentence: str, headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    return plain_response(status, sentence + "\n", headers=headers)


class FastReject:
    """A listening socket whose ``accept`` refuses what it can. ``close`` it with its port.

    Args:
        listener: The socket itself; it does not block.
        reactor: Where time comes from.
        relay: Whom to ask.
    """

    def __init__(self, listener: socket.socket, reactor: IReactorTime, relay: Relay) -> None:
        self._listener = listener
        self._reactor = reactor
        self._relay = relay
        self._upgrades: OrderedDict[bytes, Upgrade | None] = OrderedDict()
        self._held: deque[socket.socket] = deque()
        self._older_count = 0
        self._passed = 0
        """Connections that were let through in this turn, about."""
        self._timer: IDelayedCall | None = None

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # whatever else a socket has
        """Be the socket in all other respects."""
        return getattr(self._listener, name)

    @classmethod
    def install(cls, port: Any, reactor: IReactorTime, relay: Relay) -> None:  # noqa: ANN401  # see below
        """Put one before the socket of a port, if that is a plain TCP port of a system that can.

        Args:
            port: A listening port of whatever kind.
            reactor: Where time comes from.
            relay: Whom to ask.
        """
        listener = getattr(port, "socket", None)
        defer = getattr(socket, "TCP_DEFER_ACCEPT", None)
        if not isinstance(listener, socket.socket) or defer is None or not (PEEK and SEND):
            return
        # TLS and the PROXY protocol wrap the factory.
        if port.factory is relay.front and listener.family in (socket.AF_INET, socket.AF_INET6):
            listener.setsockopt(socket.IPPROTO_TCP, defer, DEFER_SECONDS)
            listener.listen(max(port.backlog, BACKLOG))
            port.socket = cls(listener, reactor, relay)

    def accept(self) -> tuple[socket.socket, Any]:
        """Return the next connection that is to be looked at.

        Raises:
            OSError: As of any listening socket; ``EAGAIN`` also when others ought to have a turn.
        """
        if self._passed >= MAX_PER_TURN:
            self._passed = 0
            raise BlockingIOError(errno.EAGAIN, "enough for one turn")
        for _ in range(MOST_IN_TURN):
            if self._relay.admission.is_full:
                # The port is paused by now, but goes on for up to a hundred connections in this turn.
                raise BlockingIOError(errno.EAGAIN, "there is no place")
            connection, address = self._listener.accept()
            try:
                head = connection.recv(MOST_HEAD_BYTES, PEEK)
            except OSError:
                head = b""
            answer = self._answer_to(head, address[0])
            if answer is None:
                self._passed += 1
                return connection, address
            self._close_gracefully(connection, len(head), answer)
        raise BlockingIOError(errno.EAGAIN, "enough for one turn")

    def close(self) -> None:
        """Close the listening socket, and what is held."""
        self._listener.close()
        while self._held:
            self._held.popleft().close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- inside ----------------------------------------------------------------------------

    def _answer_to(self, head: bytes, peer: str) -> bytes | None:
        """Return the refusal that is the answer to this; None to let it through."""
        relay = self._relay
        upgrade = self._read(head)
        if upgrade is None or relay.is_draining or self._may_be_served(upgrade.room):
            return None
        admission = relay.admission
        if admission.is_full or len(head) > relay.settings.head_bytes:
            return None
        try:
            self._judge(upgrade, peer)
        except Refusal as refusal:
            relay.observer.refused(refusal.code)
            return _written(refusal.status, refusal.sentence, refusal.headers)
        return None

    def _may_be_served(self, room: str) -> bool:
        relay = self._relay
        return (
            relay.wait_queue.has_place_for(room) if relay.is_away(room) else relay.link_of(room) is not None
        )

    def _judge(self, upgrade: Upgrade, peer: str) -> None:
        """Make the checks of ``Frontend`` in its order; return if it has to make them itself.

        Raises:
            Refusal: The first that fails.
        """
        relay, admission = self._relay, self._relay.admission
        holder = admission.enter(peer)
        try:
            check_origin(upgrade.request, relay.settings.origins)
            address = relay.proxies.client_of(peer, upgrade.request)
            if address != peer:
                later = admission.enter(address)
                admission.leave(holder)
                holder = later
            now = self._reactor.seconds()
            admission.count_visit(Visit.CLIENT, address, now)
            if relay.verifier is not None:
                grant = _verified(upgrade, relay.verifier)
                if grant is None or grant.max_clients is not None:
                    admission.take_back_visit(Visit.CLIENT, address, now)
                    return
                check_origin(upgrade.request, grant.origins)
            admission.count_for_room(Visit.CLIENT, upgrade.room, now)
            if relay.is_away(upgrade.room):
                raise relay.wait_queue.refusal()
            relay.find(upgrade.room)
        finally:
            admission.leave(holder)

    def _read(self, head: bytes) -> Upgrade | None:
        at = head.find(KEY_FIELD) + len(KEY_FIELD)
        if at < len(KEY_FIELD) or _KEY.match(head, at) is None:
            return None
        without_key = head[:at] + head[at + KEY_BYTES :]
        try:
            return self._upgrades[without_key]
        except KeyError:
            upgrade = self._upgrades[without_key] = upgrade_of(head)
            if len(self._upgrades) > MOST_KEPT:
                self._upgrades.popitem(last=False)
            return upgrade

    def _close_gracefully(self, connection: socket.socket, head_bytes: int, answer: bytes) -> None:
        try:
            # What is left unread would make closing a reset, which destroys the answer.
            connection.recv(head_bytes)
            connection.send(answer, SEND)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            connection.close()
            return
        held = self._held
        held.append(connection)
        if len(held) > MOST_HELD:
            held.popleft().close()
        if self._timer is None:
            self._older_count = len(held)
            self._timer = self._reactor.callLater(HELD_SECONDS, self._close_older)

    def _close_older(self) -> None:
        # Who was there at the last look has been there for long enough.
        self._timer = None
        for _ in range(min(self._older_count, len(self._held))):
            self._held.popleft().close()
        if self._held:
            self._older_count = len(self._held)
            self._timer = self._reactor.callLater(HELD_SECONDS, self._close_older)


def _verified(upgrade: Upgrade, verifier: Verifier) -> Grant | None:
    """Return what the token of a request allows; None if that cannot be said at once.

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
