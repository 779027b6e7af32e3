"""JSON objects, read so that no two readers can take the same bytes for different things.

What ``json`` lets pass and this does not: a name that is there twice (each reader keeps another
one), ``NaN`` and ``Infinity``, UTF-16 and UTF-32, and nesting that overflows the stack. Used for
whatever a signature or a key depends on.
"""

from __future__ import annotations

import json

__all__ = ["object_from_json"]


def object_from_json(text: bytes) -> dict[str, object]:
    """Return the object that ``text`` holds; the caller bounds its length.

    Raises:
        ValueError: It is not one JSON object in UTF-8, with half a sentence that says why.
    """
    try:
        value = json.loads(text.decode(), object_pairs_hook=_without_repetition, parse_constant=_no_number)
    except RecursionError:
        msg = "is nested too deeply"
        raise ValueError(msg) from None
    except (UnicodeDecodeError, json.JSONDecodeError):
        msg = "is not JSON"
        raise ValueError(msg) from None
    if not isinstance(value, dict):
        msg = "is not a JSON object"
        raise ValueError(msg)
    return value


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        msg = "has a name twice in one object"
        raise ValueError(msg)
    return found


def _no_number(name: str) -> object:
    msg = f"has {name}, which is not a number"
    raise ValueError(msg)
