"""Where a request target leads: which endpoint, which room, and what the local server is asked.

The table of `docs/protocol.md`, worked on as raw bytes:

=================================  ==============  ==========================================
public                             local           who sends it
=================================  ==============  ==========================================
``/client?room=ID&x=1``            ``/?x=1``       the first version's form; Hocuspocus
``/client/<rest>?room=ID&x=1``     ``/<rest>?x=1`` y-websocket with ``params: {room: ID}``
``/c/ID/<rest>?x=1``               ``/<rest>?x=1`` the share link, pasted anywhere
``/client?room=ID/<rest>?x=1``     ``/<rest>?x=1`` y-websocket, given a base that has a query
=================================  ==============  ==========================================

Nothing that goes on is decoded, encoded, sorted or tidied. A Yjs server takes the undecoded path for
the document's name, so that a changed escape would split the people of one document in two. Only
the room itself is read with its escapes resolved: some encoders write ``~`` as ``%7E``.

The last form has a twin that nobody can read: ``/client?room=ID&token=T/doc`` is either y-websocket
given a base that ends in ``token=T``, or a token that holds a slash. Taken for the latter, every
document of an app would land in the one without a name and merge there, for good. So a raw slash in
a parameter after the room is refused, with a sentence that names the ways out. In front of the room
it is a value's own, and behind ``/client/<rest>`` too: y-websocket makes neither.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from seance.errors import Refusal

__all__ = ["Route", "RouteKind", "resolve_target"]

_ROOM = re.compile(rb"[A-Za-z0-9._~-]{1,128}")
_DOT_SEGMENTS = (b".", b"..")
"""No rooms: every URL parser resolves ``/c/../doc`` before it is sent."""


class RouteKind(enum.Enum):
    """The endpoints of a relay's public address."""

    CLIENT = "client"
    AGENT = "agent"
    HEALTH = "health"


@dataclass(frozen=True, slots=True)
class Route:
    """What a target means.

    Attributes:
        kind: The endpoint.
        room: The room's name; empty for the health check.
        local: The target for the local server, starting with a slash; empty unless for a client.
        is_share_link: The form was ``/c/ID``, where a browser may get the page.
    """

    kind: RouteKind
    room: str = ""
    local: bytes = b""
    is_share_link: bool = False


def resolve_target(target: bytes) -> Route:
    """Say where a request target leads.

    Args:
        target: Raw bytes that start with a slash, as `RequestReader` gives them.

    Raises:
        Refusal: 400 without a room, with a bad one or with two; 404 for an unknown path.
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
    raise Refusal(
        404,
        "Unknown path: this relay serves /client?room=ID, /c/ID/, /agent?room=ID and /health.",
        code="unknown_path",
    )


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
            raise Refusal(
                400,
                "Where the document's name begins cannot be told: use /c/ID as the base address, or give"
                " the room as a parameter of the provider, or write a slash inside a value as %2F.",
                code="target_ambiguous",
            )
    rooms, kept = _split_rooms(query.split(b"&"))
    return Route(RouteKind.CLIENT, _one_room(rooms), _joined(path or b"/", kept))


def _pasted_route(base: list[bytes], rest: bytes) -> Route:
    path, question_mark, query = rest.partition(b"?")
    rooms, kept = _split_rooms(base)
    more_rooms, more_kept = _split_rooms(query.split(b"&") if question_mark else [])
    # An "&room=" in the document's name stays there, but must not name somebody else's room.
    strays, _ = _split_rooms(path.split(b"&")[1:])
    room = _one_room([*rooms, *more_rooms, *strays])
    return Route(RouteKind.CLIENT, room, _joined(b"/" + path, [*kept, *more_kept]))


def _split_rooms(pieces: Iterable[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Return the values of ``room`` and all the other pieces of a query."""
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
        raise Refusal(
            400,
            "Missing room parameter: name the room, as in /client?room=ID or /c/ID/.",
            code="room_missing",
        )
    if len(names) > 1:
        raise Refusal(400, "The room parameter is there twice, with different values.", code="room_ambiguous")
    name = names.pop()
    if _ROOM.fullmatch(name) is None or name in _DOT_SEGMENTS:
        raise Refusal(
            400,
            "Bad room name: 1 to 128 letters, digits or any of . _ ~ - are allowed.",
            code="room_invalid",
        )
    return name.decode("ascii")
