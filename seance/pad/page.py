"""The pad as a page for ``RelaySettings.pad``: its bytes and its headers.

The page is one file without references to others, so its content security policy allows its one script and
its one style by hash, and nothing else. ``connect-src 'self'`` covers the WebSocket to the page's own host
(CSP 3; Chrome since 71, Safari since 16, Firefox since 2018), which is the only connection of the page. The
hashes are computed from the bytes that are served, so they always fit.

Called by ``seance.demo`` and by ``seance relay --pad``.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

from seance.core.interfaces import Page

__all__ = ["make_pad_page"]

_ELEMENT = rb"<%s>(.*?)</%s>"


def make_pad_page() -> Page:
    """Return the pad, for any address that ends in ``/c/ROOM``."""
    body = files("seance.pad").joinpath("pad.html").read_bytes()
    policy = [
        b"default-src 'none'",
        b"script-src " + _hash_of(b"script", body),
        b"style-src " + _hash_of(b"style", body),
        b"img-src data:",
        b"connect-src 'self'",
        b"base-uri 'none'",
        b"form-action 'none'",
        b"frame-ancestors 'none'",
    ]
    headers = (
        (b"Content-Security-Policy", b"; ".join(policy)),
        # The address is the key to the room, so no other site may see it.
        (b"Referrer-Policy", b"no-referrer"),
        (b"X-Content-Type-Options", b"nosniff"),
        (b"Cross-Origin-Opener-Policy", b"same-origin"),
        (b"Cross-Origin-Resource-Policy", b"same-origin"),
        (b"X-Robots-Tag", b"noindex"),
        # Other clients get other answers at the same address.
        (b"Vary", b"Accept, Upgrade"),
    )
    return Page(body=body, headers=headers)


def _hash_of(element: bytes, body: bytes) -> bytes:
    """Return the source expression for the only element of that name (CSP 3, 2.3.1)."""
    (content,) = re.findall(_ELEMENT % (element, element), body, re.DOTALL)
    return b"'sha256-%s'" % base64.b64encode(hashlib.sha256(content).digest())
