"""Refuses clients of unknown rooms on the doorstep: before a transport, a protocol or a timer is made.

Clients of a host that is gone for good redial every 2.5 s, in step and for ever: a thousand open tabs are 400
upgrades a second that lead nowhere. Through ``Front`` each costs a transport, a protocol, two timers, a
parsed head and some turns of the reactor. Here it costs four system calls and a look-up.

``Doorstep`` stands in for the socket of a listening TCP port. Its ``accept`` looks at what the kernel has
(``MSG_PEEK``; with ``TCP_DEFER_ACCEPT`` a connection is not there before its first bytes are), and answers
itself if that is the whole head of a sound upgrade for a room that nobody knows. **Everything else is let
through untouched**, to Twisted's own ``Port`` and to ``Front``, with its bytes unread: no data yet, half a
head, more than one, a room that is known, a relay with keys, with a list of origins, with proxies, or full.

There is no second parser. A head is judged once by the same functions as in ``Front``, and the verdict is
kept under its bytes *without the key*, which is random for each dial: sixteen bytes in base64 in one
place can be exchanged for others without any of those functions noticing. Addresses and rates are counted
each time, and whether the room is known is asked each time.

Remove this file, and its call in ``Relay``, and nothing changes but the cost. Refusals for one CPU second,
measured by ``benchmarks/refusals.py`` in one run on one machine: 5,100 without it, 37,000 to 39,000 with
it, 3,200 of a server that is nothing but Autobahn.
"""

from __future__ import annotations

import errno
import re
import socket
from collections import OrderedDict, deque
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorTime

from seance.errors import Refusal
from seance.heads import RequestReader, RouteKind, check_upgrade, plain_response, resolve_target

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from seance.tunnel.relay import Relay

__all__ = ["Doorstep", "room_of"]

MOST_JUDGED = 1024
"""Heads whose verdict is kept; the oldest goes. A browser has one for each of its documents."""

MOST_HEAD_BYTES = 2048
"""Longer heads are let through. Browsers send 500 bytes, and some cookies."""

MOST_IN_TURN = 100
"""Refusals before others have a turn of the reactor."""

MOST_HELD = 64
HELD_SECONDS = 2.0
"""Answered connections stay open for so long, or until that many others came: see ``Farewell``."""

BACKLOG = 1024
"""Connections that wait in the kernel. Twisted's 50 is less than a classroom that redials in step."""

DEFER_SECONDS = 1
"""A connection without data is there after this time all the same, and then ``Front`` cuts it."""

KEY_FIELD = b"\r\nSec-WebSocket-Key: "
KEY_BYTES = 24
_KEY = re.compile(rb"[0-9A-Za-z+/]{22}==\r\n")

PEEK = getattr(socket, "MSG_PEEK", 0) | getattr(socket, "MSG_DONTWAIT", 0)
# One segment for the answer and the end of our side, instead of two.
SEND = getattr(socket, "MSG_MORE", 0) | getattr(socket, "MSG_DONTWAIT", 0)


def room_of(head: bytes) -> str | None:
    """Return the room whose client sends this, if it is one whole and sound head of an upgrade.

    Whatever ``Front`` would refuse for its head, and whatever is not for a client, is None.
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
    return route.room if route.kind is RouteKind.CLIENT else None


@lru_cache(maxsize=64)
def _written(status: int, sentence: str, headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    return plain_response(status, sentence + "\n", headers=headers)


class Doorstep:
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
        self._judged: OrderedDict[bytes, str | None] = OrderedDict()
        self._held: deque[socket.socket] = deque()
        self._older_count = 0
        self._timer: IDelayedCall | None = None

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # whatever else a socket has
        """Be the socket in all other respects."""
        return getattr(self._listener, name)

    @classmethod
    def stand_before(cls, port: Any, reactor: IReactorTime, relay: Relay) -> None:  # noqa: ANN401  # see below
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
        for _ in range(MOST_IN_TURN):
            if self._relay.admission.is_full:
                # The port is paused by now, but goes on for up to a hundred connections in this turn.
                raise BlockingIOError(errno.EAGAIN, "there is no place")
            connection, address = self._listener.accept()
            try:
                head = connection.recv(MOST_HEAD_BYTES, PEEK)
            except OSError:
                return connection, address
            answer = self._answer_to(head, address[0])
            if answer is None:
                return connection, address
            self._see_off(connection, len(head), answer)
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

    def _answer_to(self, head: bytes, address: str) -> bytes | None:
        """Return the refusal that is the answer to this; None to let it through."""
        relay = self._relay
        room = self._judge(head)
        if room is None or not relay.refuses_unknown_rooms_to_all or relay.is_known(room):
            return None
        admission = relay.admission
        if admission.is_full or len(head) > relay.settings.head_bytes:
            return None
        try:
            holder = admission.enter(address)
            try:
                admission.upgrade(address, room, self._reactor.seconds())
                relay.find(room)
            finally:
                admission.leave(holder)
        except Refusal as refusal:
            relay.witness.refused(refusal.code)
            return _written(refusal.status, refusal.sentence, refusal.headers)
        return None

    def _judge(self, head: bytes) -> str | None:
        at = head.find(KEY_FIELD) + len(KEY_FIELD)
        if at < len(KEY_FIELD) or _KEY.match(head, at) is None:
            return None
        without_key = head[:at] + head[at + KEY_BYTES :]
        try:
            return self._judged[without_key]
        except KeyError:
            room = self._judged[without_key] = room_of(head)
            if len(self._judged) > MOST_JUDGED:
                self._judged.popitem(last=False)
            return room

    def _see_off(self, connection: socket.socket, head_bytes: int, answer: bytes) -> None:
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
