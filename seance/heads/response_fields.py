"""Limits the fields of the local server's response to the room: addresses, cookies, origin-wide fields.

All rooms of a relay share one origin. A cookie with ``Path=/`` of one room would be sent to the local
server of every other, and ``Clear-Site-Data`` or ``Strict-Transport-Security`` would act on all of them. So
addresses are mapped to the client's form (`PublicForm`), cookies are limited to the paths of the room,
and fields that a browser applies to the whole origin are dropped.

`LocalResponse` calls this with the end-to-end fields of each final response.
"""

from __future__ import annotations

import re

from seance.heads.fields import Fields
from seance.heads.public_form import PublicForm

__all__ = ["ORIGIN_WIDE", "limit_to_room"]

ORIGIN_WIDE = frozenset(
    (
        b"accept-ch",
        b"activate-storage-access",
        b"alt-svc",
        b"clear-site-data",
        b"expect-ct",
        b"nel",
        b"origin-agent-cluster",
        b"public-key-pins",
        b"public-key-pins-report-only",
        b"report-to",
        b"sec-session-registration",
        b"secure-session-registration",
        b"service-worker-allowed",
        b"set-cookie2",
        b"set-login",
        b"strict-transport-security",
        b"use-as-dictionary",
    )
)
"""Fields that a browser stores for the whole origin, or applies beyond the path of the response."""

_REFERENCES = frozenset((b"content-location", b"location", b"uri"))
_REFRESH = re.compile(rb"([0-9. \t]*(?:[;,][ \t]*)?(?:url[ \t]*=[ \t]*)?)(.*)", re.IGNORECASE)
"""``5; url=/x``, ``5;URL='/x'`` and ``0, /x`` (HTML, 4.2.5.3)."""

_LINK_TARGETS = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|<([^<>]*)>')
"""Quoted strings, which are skipped, and targets (RFC 8288, 3). An unterminated string is one match, so the
search takes linear time."""

MAX_LINK_TARGETS = 32
"""Targets of one ``Link`` field; a field with more is dropped. Servers that send early hints name a few."""

MAX_GROWTH_BYTES = 64 * 1024
"""Bytes that mapped addresses may add to one response. The client determines the length of each address, and
the local server their number. Fields beyond this limit are dropped."""

MAX_PATH_BYTES = 1024
"""Browsers ignore a longer attribute (RFC 6265bis, 5.6), and the cookie would get a path of their choice."""


def limit_to_room(fields: Fields, form: PublicForm) -> Fields:
    """Return the fields of a response that may reach a client.

    Args:
        fields: The end-to-end fields.
        form: How the client addressed the room.
    """
    kept = []
    growth_bytes = 0
    for name, value in fields:
        before = len(value)
        lowered = name.lower()
        if lowered in ORIGIN_WIDE:
            continue
        if lowered in _REFERENCES:
            value = form.map_reference(value, is_redirect=lowered == b"location")
        elif lowered == b"refresh":
            value = _mapped_refresh(value, form)
        elif lowered == b"link":
            if sum(match[1] is not None for match in _LINK_TARGETS.finditer(value)) > MAX_LINK_TARGETS:
                continue
            value = _mapped_links(value, form)
        elif lowered == b"set-cookie":
            cookie = limit_cookie(value, form)
            if cookie is None:
                continue
            value = cookie
        growth_bytes += max(0, len(value) - before)
        if growth_bytes > MAX_GROWTH_BYTES and len(value) > before:
            continue
        # Removing a part may leave a space at the end, which is not allowed in a field.
        kept.append((name, value.strip(b" \t")))
    return tuple(kept)


def limit_cookie(cookie: bytes, form: PublicForm) -> bytes | None:
    """Return a ``Set-Cookie`` value limited to this room, or None to drop the cookie.

    ``Path`` gets the room's prefix, ``Domain`` is dropped, other attributes keep their bytes. A cookie
    without a path gets the default path of RFC 6265, 5.1.4, derived from the local target. Two kinds of
    cookies are dropped: all cookies if the client used ``/client``, the same path for every room, and
    cookies named ``__Host-``, which browsers accept with ``Path=/`` only.

    Args:
        cookie: The value of one field.
        form: How the client addressed the room.
    """
    pair, *attributes = cookie.split(b";")
    # Browsers use the value of a cookie without a name as its name.
    name, equals, value = pair.partition(b"=")
    effective = name.strip(b" \t") or (value.strip(b" \t") if equals else b"")
    if not form.is_share_link or effective.lower().startswith(b"__host-"):
        return None
    kept = [pair]
    path = b""
    position = 0
    for attribute in attributes:
        name, _, value = attribute.partition(b"=")
        lowered = name.strip(b" \t").lower()
        if lowered == b"path":
            # The last one counts (RFC 6265, 5.3).
            path, position = value.strip(b" \t"), position or len(kept)
        elif lowered != b"domain":
            kept.append(attribute)
    if not path.startswith(b"/") or len(path) > MAX_PATH_BYTES:
        path = _default_path(form.base)
    public = form.prefix if path == b"/" else form.prefix + path
    if len(public) > MAX_PATH_BYTES:
        public = form.prefix
    kept.insert(position or len(kept), b" Path=" + public)
    return b";".join(kept)


def _default_path(target: bytes) -> bytes:
    path = target.partition(b"?")[0]
    return path[: path.rindex(b"/")] or b"/"


def _mapped_refresh(value: bytes, form: PublicForm) -> bytes:
    match = _REFRESH.fullmatch(value)
    if match is None or not match[2]:
        return value
    start, url = match.groups()
    quote = url[:1]
    if quote not in (b'"', b"'"):
        return bytes(start + form.map_reference(url))
    inner, closing, rest = url[1:].partition(quote)
    return bytes(start + quote + form.map_reference(inner) + closing + rest)


def _mapped_links(value: bytes, form: PublicForm) -> bytes:
    def mapped(match: re.Match[bytes]) -> bytes:
        target = match[1]
        return match[0] if target is None else b"<" + form.map_reference(target) + b">"

    return _LINK_TARGETS.sub(mapped, value)
