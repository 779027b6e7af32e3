"""The OpenAPI 3.1 description of the admin API, served as ``/api/openapi.json``.

A test checks it against a running relay with schemathesis.
"""

from __future__ import annotations

from typing import Any

from seance import __version__

__all__ = ["description"]

Json = dict[str, Any]

_ROOM_NAME: Json = {"type": "string", "pattern": "^[A-Za-z0-9._~-]{1,128}$"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_SECONDS: Json = {"type": "number", "minimum": 0}


def _object(**properties: Json) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _reference(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _content(schema: Json, content_type: str = "application/json") -> Json:
    return {"content": {content_type: {"schema": schema}}}


def _refusal(meaning: str) -> Json:
    return {"description": meaning, **_content(_reference("Refusal"))}


_REFUSALS: Json = {
    "400": _refusal("A parameter is invalid."),
    "401": _refusal("A valid token is required."),
    "403": _refusal("The token has another role, Host is not localhost, or Seance-Admin is missing."),
    "405": _refusal("The method is not allowed."),
    "503": _refusal("The token could not be verified in time."),
}
_NOT_FOUND: Json = {
    "404": _refusal("The room or client does not exist, or the token does not permit access to it.")
}

_LIMIT: Json = {
    "name": "limit",
    "in": "query",
    "description": "Maximum number of items.",
    "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
}
_ROOM: Json = {"name": "room", "in": "path", "required": True, "schema": _ROOM_NAME}
_CLIENT: Json = {
    "name": "client",
    "in": "path",
    "required": True,
    "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999_999_999},
}
_CHANGE: Json = {
    "name": "Seance-Admin",
    "in": "header",
    "required": True,
    "description": "Any value. A page of another origin cannot send this field.",
    "schema": {"type": "string", "minLength": 1, "pattern": "^[A-Za-z0-9]+$"},
}

_ROOM_FIELDS: Json = {
    "room": _ROOM_NAME,
    "state": {"type": "string", "enum": ["online", "resuming", "away", "unknown"]},
    "since_seconds": _SECONDS,
    "clients": _COUNT,
    "received_bytes": _COUNT,
    "sent_bytes": _COUNT,
    "kept_bytes": _COUNT,
    "round_trip_seconds": {"type": ["number", "null"], "minimum": 0},
    "agent_address": {"type": "string"},
}

_SCHEMAS: Json = {
    "Refusal": _object(code={"type": "string"}, error={"type": "string"}),
    "Room": _object(**_ROOM_FIELDS),
    "Rooms": _object(
        rooms={"type": "array", "items": _reference("Room")},
        next={"type": ["string", "null"], "description": "Value of `after` for the next page."},
    ),
    "Client": _object(
        client=_COUNT,
        address={"type": "string"},
        state={"type": "string", "enum": ["pending", "joined"]},
        seconds=_SECONDS,
        received_bytes=_COUNT,
        sent_bytes=_COUNT,
    ),
    "RoomWithClients": _object(**_ROOM_FIELDS, list={"type": "array", "items": _reference("Client")}),
}


def _get(summary: str, response: Json, *parameters: Json, refusals: Json = _REFUSALS) -> Json:
    return {
        "summary": summary,
        "parameters": list(parameters),
        "responses": {"200": {"description": summary, **response}, **refusals},
    }


def _delete(summary: str, *parameters: Json) -> Json:
    return {
        "summary": summary,
        "parameters": [*parameters, _CHANGE],
        "responses": {"204": {"description": "Disconnected."}, **_REFUSALS, **_NOT_FOUND},
    }


def description() -> Json:
    """Return the description."""
    text = _content({"type": "string"}, "text/plain")
    open_refusals = {name: _REFUSALS[name] for name in ("400", "403", "405")}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Seance Tunnel: the admin port of a relay",
            "version": __version__,
            "description": "Rooms, their clients, and events. See docs/admin-port.md.",
        },
        "security": [{}, {"bearer": []}, {"basic": []}],
        "paths": {
            "/healthz": {
                "get": {**_get("The process is alive.", text, refusals=open_refusals), "security": [{}]},
            },
            "/readyz": {
                "get": {
                    **_get(
                        "The relay accepts connections.",
                        text,
                        refusals={**open_refusals, "503": {"description": "It does not.", **text}},
                    ),
                    "security": [{}],
                },
            },
            "/metrics": {"get": _get("Metrics in the format of Prometheus.", text)},
            "/api/rooms": {
                "get": _get(
                    "The rooms with an agent, sorted by name.",
                    _content(_reference("Rooms")),
                    _LIMIT,
                    {
                        "name": "after",
                        "in": "query",
                        "description": "Only rooms after this name.",
                        "schema": {"type": "string"},
                    },
                ),
            },
            "/api/rooms/{room}": {
                "get": _get(
                    "One room and its clients.",
                    _content(_reference("RoomWithClients")),
                    _ROOM,
                    _LIMIT,
                    refusals={**_REFUSALS, **_NOT_FOUND},
                ),
                "delete": _delete(
                    "Disconnect the agent and the clients of a room. They may reconnect.", _ROOM
                ),
            },
            "/api/rooms/{room}/clients/{client}": {
                "delete": _delete("Disconnect a client. It may reconnect.", _ROOM, _CLIENT),
            },
            "/api/events": {
                "get": _get(
                    "Server-sent events: room, client, limit, figures, rooms.",
                    _content({"type": "string"}, "text/event-stream"),
                    refusals={**_REFUSALS, "429": _refusal("Too many event streams.")},
                ),
            },
        },
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "basic": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "Any user name, and the token as password.",
                },
            },
        },
    }
