"""What the admin port answers, as a value; ``seance.admin.site`` writes it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from seance.errors import Refusal

__all__ = ["JSON", "TEXT", "Answer", "json_answer", "refusal_answer"]

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Attributes:
        status: The HTTP status.
        body: All of it.
        content_type: What it is.
        headers: Further fields.
    """

    status: int
    body: bytes = b""
    content_type: str = TEXT
    headers: tuple[tuple[bytes, bytes], ...] = ()


def json_answer(content: object) -> Answer:
    """Return a value as JSON, with 200."""
    return Answer(200, json.dumps(content, separators=(",", ":")).encode(), JSON)


def refusal_answer(refusal: Refusal) -> Answer:
    """Return a refusal as ``{"code": ..., "error": ...}``."""
    body = json.dumps({"code": refusal.code, "error": refusal.sentence}).encode()
    return Answer(refusal.status, body, JSON, refusal.headers)
