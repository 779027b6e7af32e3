"""A response of the admin port as a value; ``seance.admin.site`` writes it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from seance.errors import Refusal

__all__ = ["JSON", "TEXT", "AdminResponse", "json_response", "refusal_response"]

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class AdminResponse:
    """A response.

    Attributes:
        status: The HTTP status.
        body: The whole body.
        content_type: The value of ``Content-Type``.
        headers: Further header fields.
    """

    status: int
    body: bytes = b""
    content_type: str = TEXT
    headers: tuple[tuple[bytes, bytes], ...] = ()


def json_response(content: object) -> AdminResponse:
    """Return a 200 with a JSON body."""
    return AdminResponse(200, json.dumps(content, separators=(",", ":")).encode(), JSON)


def refusal_response(refusal: Refusal) -> AdminResponse:
    """Return an error response with the body ``{"code": ..., "error": ...}``."""
    body = json.dumps({"code": refusal.code, "error": str(refusal)}).encode()
    return AdminResponse(refusal.status, body, JSON, refusal.headers)
