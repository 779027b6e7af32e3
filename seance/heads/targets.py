"""Maps a request target to an endpoint, a room, and the target at the local server.

The mapping works on raw bytes; `docs/protocol.md` has the same table:

=================================  ==============  ==========================================
public                             local           sent by
=================================  ==============  ==========================================
``/client?room=ID&x=1``            ``/?x=1``       Hocuspocus; clients of the first version
``/client/<rest>?room=ID&x=1``     ``/<rest>?x=1`` y-websocket with ``params: {room: ID}``
``/c/ID/<rest>?x=1``               ``/<rest>?x=1`` any client that is given the share link
``/client?room=ID/<rest>?x=1``     ``/<rest>?x=1`` y-websocket with a base that has a query
=================================  ==============  ==========================================

Forwarded bytes are never decoded, encoded or sorted. A Yjs server uses the undecoded path as the document's
name, so a changed escape would be another document. Only the room is decoded, because some encoders write
``~`` as ``%7E``.

One variant of the last form is ambiguous: ``/client?room=ID&token=T/doc`` is either y-websocket with a base
that ends in ``token=T``, or a token that contains a slash. With the second reading, all documents of an app
would be merged into the one without a name, permanently. So a raw slash in a parameter after the room is
refused, with a message that names alternatives. A slash before the room, or after ``/client/<rest>``, belongs
to its value, because y-websocket never sends these.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from seance.heads.refusals import refusal

__all__ = ["Route", "RouteKind", "resolve_target"]

_ROOM = re.compile(rb"[A-Za-z0-9._~-]{1,128}")
_DOT_SEGMENTS = (b".", b"..")
"""Not allowed as rooms: URL parsers resolve ``/c/../doc`` before it is sent."""


class RouteKind(enum.Enum):
    """The endpoints of a relay's public address."""

    CLIENT = "client"
    AGENT = "agent"
    HEALTH = "health"


@dataclass(frozen=True, slots=True)
class Route:
    """Result of mapping a target.

    Attributes:
        kind: The endpoint.
        room: The room's name; empty for the health check.
        local: The target at the local server, starting with a slash; empty unless ``kind`` is CLIENT.
        is_share_link: Whether the form was ``/c/ID``, for which the relay may serve the page.
    """

    kind: RouteKind
    room: str = ""
    local: bytes = b""
    is_share_link: bool = False


def resolve_target(target: bytes) -> Route:
    """Return the route of a request target.

    Args:
        target: Raw bytes that start with a slash, as in a `Request`.

    Raises:
        Refusal: 400 if the room is missing, not valid or ambiguous; 404 for an unknown path.
    """
    path, _, query = target.partition(b"?")
    if path == b"/health":
        return Route(RouteKind.HEALTH)
    if path == b"/agent":
        rooms, _ = _split_rooms(query.split(b"&"))
        return Route(RouteKind.AGENT, _one_room(rooms))
    if path == b"/client" or path.startswith(b"/client/"):
        return _client_route(path.removeprefix(b"/client"), query)
    if path == b"/c" or path.startswith(b"/c/"):
        return _share_route(target)
    raise refusal("unknown_path")


def _share_route(target: bytes) -> Route:
    path, question_mark, query = target.partition(b"?")
    room, _, rest = path.removeprefix(b"/c").removeprefix(b"/").partition(b"/")
    local = b"/" + rest + question_mark + query
    return Route(RouteKind.CLIENT, _one_room([room]), local, is_share_link=True)


def _client_route(path: bytes, query: bytes) -> Route:
    base, slash, rest = query.partition(b"/")
    if slash and path in (b"", b"/"):
        pieces = base.split(b"&")
        if pieces[-1].startswith(b"room="):
            return _pasted_route(pieces, rest)
        if _split_rooms(pieces[:-1])[0]:
            raise refusal("target_ambiguous")
    rooms, kept = _split_rooms(query.split(b"&"))
    return Route(RouteKind.CLIENT, _one_room(rooms), _joined(path or b"/", kept))


def _pasted_route(base: list[bytes], rest: bytes) -> Route:
    path, question_mark, query = rest.partition(b"?")
    rooms, kept = _split_rooms(base)
    more_rooms, more_kept = _split_rooms(query.split(b"&") if question_mark else [])
    # An "&room=" in the document's name stays there, but must not name another room.
    strays, _ = _split_rooms(path.split(b"&")[1:])
    room = _one_room([*rooms, *more_rooms, *strays])
    return Route(RouteKind.CLIENT, room, _joined(b"/" + path, [*kept, *more_kept]))


def _split_rooms(pieces: Iterable[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Return the values of ``room``, and the other pieces of a query."""
    rooms, kept = [], []
    for piece in pieces:
        name, _, value = piece.partition(b"=")
        if name == b"room":
            rooms.append(value)
        else:
            kept.append(piece)
    return rooms, kept


def _joined(path: bytes, pieces: list[bytes]) -> bytes:
    return path + b"?" + b"&".join(pieces) if pieces else path


def _one_room(values: list[bytes]) -> str:
    names = {unquote_to_bytes(value) for value in values}
    if not names or names == {b""}:
        raise refusal("room_missing")
    if len(names) > 1:
        raise refusal("room_ambiguous")
    name = names.pop()
    if _ROOM.fullmatch(name) is None or name in _DOT_SEGMENTS:
        raise refusal("room_invalid")
    return name.decode("ascii")
