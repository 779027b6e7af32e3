r"""Masks secrets in a text that will be logged or shown.

`redact` is used for log lines, tracebacks, output of commands and the status of an agent. (Metrics and the
pages for operators contain no text of peers except names of rooms.) It recognizes secrets by their form,
since a traceback does not say what its strings are. It masks too much rather than too little: everything
that looks like a token, and the rest of a line after ``Authorization:``.

This is a second line of defence. Callers do not log tokens, payloads and queries; `redact` masks those that
an exception's text, a local variable or a response of a peer contains.

The time is linear in the text. Each repeated part of the pattern is possessive or ends its match, and no
two parts match the same characters, so there is no backtracking. Only single characters are repeated
possessively, because Python before 3.11.5 matches one character too many for a group (gh-106052).
"""

from __future__ import annotations

import re

__all__ = ["MASK", "redact"]

MASK = "***"
"""Replaces every secret. No part of the pattern matches it, so redacting a text twice changes nothing."""

_ASSIGNED = r"""(?:\\*+["'])?[ \t]*+(?:[:=]|(?<=["']),)[ \t]*+"""
r"""Between a name and its value: ``: ``, ``=``, ``': '`` in a dict or ``', '`` in a pair."""

_FIELD = "(?i:authorization|cookie)"

_SECRET = re.compile(
    rf"""
    # A JWT: its header is an object, and '{{"' in base64 is eyJ. Or three parts that are long enough.
    (?: eyJ(?=[A-Za-z0-9_-]{{12}})
      | (?<![A-Za-z0-9_-])[A-Za-z0-9_-]{{16,}}+\.[A-Za-z0-9_-]{{16,}}+\.(?=[A-Za-z0-9_-]{{32}})
    ) [A-Za-z0-9_.%-]*+

    # A whole query, because its content belongs to the app. Quotes and angle brackets end an address.
  | (?<!\()\?(?P<query>[^\s"<>`]++)

  | (?P<name>(?i:seance\.token\.))[^\s,;"'\\<>&]++

  | (?P<parameter>(?i:access_token){_ASSIGNED}[(\[]?+b?+(?:\\*+["'])?)[^\s,;"'\\<>&]++

    # If name and value are quoted, as in JSON and Python: up to the closing quote.
  | (?P<quoted>{_FIELD}\\*+["'][ \t]*+[:=,][ \t]*+b?+(?P<quote>["']))(?:[^\\\r\n"']++|\\.|(?!(?P=quote))["'])*

    # Otherwise to the end of the line, because such a value may contain anything.
  | (?P<line>{_FIELD}{_ASSIGNED})[^\r\n]++
    """,
    re.VERBOSE,
)

_CLOSERS = """'!?.,:;)]}"""
"""After a query, these characters belong to the text around the address."""


def redact(text: str) -> str:
    """Return ``text`` with a mask in place of everything that may be a secret.

    These are masked: strings in the form of a JWT, values after ``seance.token.`` and ``access_token=``,
    the values of ``Authorization`` and ``Cookie``, and every query.
    """
    return _SECRET.sub(_masked, text)


def _masked(match: re.Match[str]) -> str:
    query = match["query"]
    if query is None:
        return (match["name"] or match["parameter"] or match["quoted"] or match["line"] or "") + MASK
    core = query.rstrip(_CLOSERS)
    return f"?{MASK}{query[len(core) :]}" if core else match[0]
