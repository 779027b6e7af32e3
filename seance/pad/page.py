"""The pad as a page for ``RelaySettings.pad``: its bytes, and the policy that it keeps.

The page is one file without a reference to any other, so its content security policy can name
the one script and the one style it has, by hash, and forbid the rest. ``connect-src 'self'`` covers
the WebSocket to the page's own host (CSP 3; Chrome since 71, Safari since 16, Firefox since
2018), which is all the page ever opens. The hashes are computed here, from the bytes that are
served: a policy written down beside the bundle would be one more thing to keep in step.

Called by ``seance.demo`` and by ``seance relay --pad``.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

from seance.tunnel.ports import Page

__all__ = ["make_pad_page"]

_ELEMENT = rb"<%s>(.*?)</%s>"


def make_pad_page() -> Page:
    """Return the pad, ready to be served at any address that ends in ``/c/ROOM``."""
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
        # The address is the key to the room; no other site is told.
        (b"Referrer-Policy", b"no-referrer"),
        (b"X-Content-Type-Options", b"nosniff"),
        (b"Cross-Origin-Opener-Policy", b"same-origin"),
        (b"Cross-Origin-Resource-Policy", b"same-origin"),
        (b"X-Robots-Tag", b"noindex"),
        # The same address answers programs with something else.
        (b"Vary", b"Accept, Upgrade"),
    )
    return Page(body=body, headers=headers)


def _hash_of(element: bytes, body: bytes) -> bytes:
    """Return the source expression for the only element of that name (CSP 3, 2.3.1)."""
    (content,) = re.findall(_ELEMENT % (element, element), body, re.DOTALL)
    return b"'sha256-%s'" % base64.b64encode(hashlib.sha256(content).digest())
