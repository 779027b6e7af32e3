"""What can be asked of the admin port of a relay, and of that of an agent."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial

from seance.admin.answers import Answer, json_answer
from seance.admin.event_stream import Feed
from seance.admin.openapi import description
from seance.admin.room_registry import RoomRegistry
from seance.admin.site import Asked, Place
from seance.errors import Refusal

__all__ = ["MOST_SHOWN", "common_places", "page_places", "relay_places"]

MOST_SHOWN = 1000
"""Rooms, or clients of a room, in one answer."""

DEFAULT_SHOWN = 100

NO_ROOM = "Nobody serves such a room."


def common_places(
    is_ready: Callable[[], str], page: Callable[[], bytes], content_type: str
) -> tuple[Place, ...]:
    """Return what relays and agents have: whether they live, whether they work, and figures.

    Args:
        is_ready: Returns why not, or nothing.
        page: Returns the metrics.
        content_type: What kind of page that is.
    """

    def ready(asked: Asked) -> Answer:
        why_not = is_ready()
        return Answer(503, f"{why_not}\n".encode()) if why_not else Answer(200, b"ready\n")

    def metrics(asked: Asked) -> Answer:
        _check_sees_all(asked)
        return Answer(200, page(), content_type)

    return (
        Place("/healthz", {"GET": lambda asked: Answer(200, b"ok\n")}, is_open=True),
        Place("/readyz", {"GET": ready}, is_open=True),
        Place("/metrics", {"GET": metrics}),
    )


def page_places(pages: Mapping[str, tuple[str, bytes]]) -> tuple[Place, ...]:
    """Return pages and what belongs to them, such as the dashboard. They need a token where one is asked for.

    Args:
        pages: Content type and content by path: ``{"/": ("text/html; charset=utf-8", b"...")}``.
    """

    def answer(content_type: str, content: bytes, asked: Asked) -> Answer:
        return Answer(200, content, content_type)

    return tuple(Place(path, {"GET": partial(answer, *page)}) for path, page in pages.items())


def relay_places(registry: RoomRegistry, feed: Feed) -> tuple[Place, ...]:
    """Return what only a relay has.

    Args:
        registry: Who knows the rooms.
        feed: Who tells what happens.
    """
    document = json_answer(description())

    def rooms(asked: Asked) -> Answer:
        limit = asked.number("limit", DEFAULT_SHOWN, MOST_SHOWN)
        names = registry.names(asked.grant, asked.text("after") or "")
        shown = names[:limit]
        following = shown[-1] if len(names) > limit else None
        return json_answer({"rooms": registry.rooms(shown), "next": following})

    def room(asked: Asked) -> Answer:
        found = registry.room(
            asked.names["room"], asked.grant, asked.number("limit", DEFAULT_SHOWN, MOST_SHOWN)
        )
        if found is None:
            raise Refusal(404, NO_ROOM, code="admin_room")
        return json_answer(found)

    def close_room(asked: Asked) -> Answer:
        if not registry.close_room(asked.names["room"], asked.grant):
            raise Refusal(404, NO_ROOM, code="admin_room")
        return Answer(204)

    def close_client(asked: Asked) -> Answer:
        text = asked.names["client"]
        number = int(text) if re.fullmatch(r"[0-9]{1,15}", text) else 0
        if not registry.close_client(asked.names["room"], number, asked.grant):
            raise Refusal(404, "This room has no such client.", code="admin_client")
        return Answer(204)

    def events(asked: Asked) -> Answer | None:
        if asked.request.method == b"HEAD":
            return Answer(200, b"", "text/event-stream")
        feed.add(asked.request, asked.grant)
        return None

    return (
        Place("/api/rooms", {"GET": rooms}, parameters=("limit", "after")),
        Place("/api/rooms/{room}", {"GET": room, "DELETE": close_room}, parameters=("limit",)),
        Place("/api/rooms/{room}/clients/{client}", {"DELETE": close_client}),
        Place("/api/events", {"GET": events}),
        Place("/api/openapi.json", {"GET": lambda asked: document}),
    )


def _check_sees_all(asked: Asked) -> None:
    if "*" not in asked.grant.rooms:
        sentence = "These figures are of all rooms together; this token is for some."
        raise Refusal(403, sentence, code="admin_rooms")
