"""Parses JSON objects strictly, so that no two parsers read the same bytes differently.

In contrast to ``json``, it rejects a name that occurs twice (parsers differ in which value they keep),
``NaN`` and ``Infinity``, UTF-16 and UTF-32, and nesting that overflows the stack. It is used for tokens
and keys.
"""

from __future__ import annotations

import json

__all__ = ["object_from_json"]


def object_from_json(text: bytes) -> dict[str, object]:
    """Return the object in ``text``; the caller limits its length.

    Raises:
        ValueError: ``text`` is not one JSON object in UTF-8. The message is a predicate that follows a name
            of the text.
    """
    try:
        value = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_reject_constant)
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


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        msg = "has an object with the same name twice"
        raise ValueError(msg)
    return found


def _reject_constant(name: str) -> object:
    msg = f"contains {name}, which is not a number"
    raise ValueError(msg)
