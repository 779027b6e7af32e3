r"""What may be written down: takes secrets out of a text that is about to be logged or shown.

One function for log lines, tracebacks, what commands print and what an agent says of itself, so that
there is one place to get right. (Metrics and the operators' pages hold no text of strangers but the
names of rooms.) It knows secrets by their look alone, since a traceback does not say what its strings
are, and it would rather mask too much: whatever looks like a token goes, and all that stands on a line
behind ``Authorization:``.

It is a net under a tightrope. Callers still keep tokens, payloads and queries out of what they log;
this catches what an exception's text or a local variable brings along, and what a peer sends back.

Linear in the text, whatever the text. Every repeated part of the pattern is possessive or is the last
of its match, and none can be entered twice by the same characters, so there is nothing to try again.
Only single characters are repeated possessively: of a group, Python before 3.11.5 gets that wrong
(gh-106052), and takes one character too many.
"""

from __future__ import annotations

import re

__all__ = ["MASK", "redact"]

MASK = "***"
"""Stands for every secret. No part of the pattern begins or goes on with it, which keeps a text that
was redacted before as it is."""

_ASSIGNED = r"""(?:\\*+["'])?[ \t]*+(?:[:=]|(?<=["']),)[ \t]*+"""
r"""What stands between a name and its value: ``: ``, ``=``, ``': '`` of a dict or ``', '`` of a pair."""

_FIELD = "(?i:authorization|cookie)"

_SECRET = re.compile(
    rf"""
    # A JWT: its header is an object, and '{{"' in base64 is eyJ. Or three parts long enough for one.
    (?: eyJ(?=[A-Za-z0-9_-]{{12}})
      | (?<![A-Za-z0-9_-])[A-Za-z0-9_-]{{16,}}+\.[A-Za-z0-9_-]{{16,}}+\.(?=[A-Za-z0-9_-]{{32}})
    ) [A-Za-z0-9_.%-]*+

    # A query, whole: what is in it is the app's. Quotes and angle brackets end an address in a page.
  | (?<!\()\?(?P<query>[^\s"<>`]++)

  | (?P<name>(?i:seance\.token\.))[^\s,;"'\\<>&]++

  | (?P<parameter>(?i:access_token){_ASSIGNED}[(\[]?+b?+(?:\\*+["'])?)[^\s,;"'\\<>&]++

    # Where name and value are quoted, as in JSON and in Python, up to the closing quote.
  | (?P<quoted>{_FIELD}\\*+["'][ \t]*+[:=,][ \t]*+b?+(?P<quote>["']))(?:[^\\\r\n"']++|\\.|(?!(?P=quote))["'])*

    # Otherwise to the end of the line, for such a value may hold anything.
  | (?P<line>{_FIELD}{_ASSIGNED})[^\r\n]++
    """,
    re.VERBOSE,
)

_CLOSERS = """'!?.,:;)]}"""
"""Behind a query these belong to the sentence, or to the Python, around the address."""


def redact(text: str) -> str:
    """Return the text with a mask in place of everything that may be a secret.

    Masked are what looks like a JWT, what follows ``seance.token.`` and ``access_token=``, the values
    of ``Authorization`` and ``Cookie``, and every query with its names. A text that was redacted
    comes back as it is.
    """
    return _SECRET.sub(_masked, text)


def _masked(match: re.Match[str]) -> str:
    query = match["query"]
    if query is None:
        return (match["name"] or match["parameter"] or match["quoted"] or match["line"] or "") + MASK
    core = query.rstrip(_CLOSERS)
    return f"?{MASK}{query[len(core) :]}" if core else match[0]
