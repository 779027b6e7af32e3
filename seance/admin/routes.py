"""The routes of the admin ports of a relay and of an agent."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial

from seance.admin.event_stream import EventStream
from seance.admin.openapi import description
from seance.admin.responses import AdminResponse, json_response
from seance.admin.room_registry import RoomRegistry
from seance.admin.site import AdminRequest, AdminRoute
from seance.heads.refusals import refusal

__all__ = ["MAX_ITEMS", "common_routes", "page_routes", "relay_routes"]

MAX_ITEMS = 1000
"""Limit of rooms, or of clients of a room, in one response."""

DEFAULT_ITEMS = 100


def common_routes(
    not_ready_reason: Callable[[], str], page: Callable[[], bytes], content_type: str
) -> tuple[AdminRoute, ...]:
    """Return the health and metrics routes of relays and agents.

    Args:
        not_ready_reason: Returns why the process is not ready; empty if it is ready.
        page: Returns the metrics.
        content_type: The content type of the metrics.
    """

    def ready(request: AdminRequest) -> AdminResponse:
        reason = not_ready_reason()
        return AdminResponse(503, f"{reason}\n".encode()) if reason else AdminResponse(200, b"ready\n")

    def metrics(request: AdminRequest) -> AdminResponse:
        if "*" not in request.grant.rooms:
            raise refusal("admin_rooms")
        return AdminResponse(200, page(), content_type)

    return (
        AdminRoute("/healthz", {"GET": lambda request: AdminResponse(200, b"ok\n")}, is_open=True),
        AdminRoute("/readyz", {"GET": ready}, is_open=True),
        AdminRoute("/metrics", {"GET": metrics}),
    )


def page_routes(pages: Mapping[str, tuple[str, bytes]]) -> tuple[AdminRoute, ...]:
    """Return routes for static pages such as the dashboard. They need a token if the port requires one.

    Args:
        pages: Content type and content by path: ``{"/": ("text/html; charset=utf-8", b"...")}``.
    """

    def get(content_type: str, content: bytes, request: AdminRequest) -> AdminResponse:
        return AdminResponse(200, content, content_type)

    return tuple(AdminRoute(path, {"GET": partial(get, *page)}) for path, page in pages.items())


def relay_routes(registry: RoomRegistry, stream: EventStream) -> tuple[AdminRoute, ...]:
    """Return the routes of the API, which only a relay has."""
    document = json_response(description())

    def rooms(request: AdminRequest) -> AdminResponse:
        limit = request.number("limit", DEFAULT_ITEMS, MAX_ITEMS)
        names = registry.names(request.grant, request.text("after") or "")
        page = names[:limit]
        following = page[-1] if len(names) > limit else None
        return json_response({"rooms": registry.rooms(page), "next": following})

    def room(request: AdminRequest) -> AdminResponse:
        limit = request.number("limit", DEFAULT_ITEMS, MAX_ITEMS)
        found = registry.room(request.names["room"], request.grant, limit)
        if found is None:
            raise refusal("admin_room")
        return json_response(found)

    def close_room(request: AdminRequest) -> AdminResponse:
        if not registry.close_room(request.names["room"], request.grant):
            raise refusal("admin_room")
        return AdminResponse(204)

    def close_client(request: AdminRequest) -> AdminResponse:
        text = request.names["client"]
        number = int(text) if re.fullmatch(r"[0-9]{1,15}", text) else 0
        if not registry.close_client(request.names["room"], number, request.grant):
            raise refusal("admin_client")
        return AdminResponse(204)

    def events(request: AdminRequest) -> AdminResponse | None:
        if request.request.method == b"HEAD":
            return AdminResponse(200, b"", "text/event-stream")
        stream.add(request.request, request.grant)
        return None

    return (
        AdminRoute("/api/rooms", {"GET": rooms}, parameters=("limit", "after")),
        AdminRoute("/api/rooms/{room}", {"GET": room, "DELETE": close_room}, parameters=("limit",)),
        AdminRoute("/api/rooms/{room}/clients/{client}", {"DELETE": close_client}),
        AdminRoute("/api/events", {"GET": events}),
        AdminRoute("/api/openapi.json", {"GET": lambda request: document}),
    )
