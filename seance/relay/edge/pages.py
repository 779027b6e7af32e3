"""What a browser gets at a share link: the page that the relay was given, if it has one.

The front asks this before it takes a request for a client's. Programs get no page, whatever they ask
for: only a browser that navigates says that it would take HTML.
"""

from __future__ import annotations

from seance.core.interfaces import Page
from seance.heads import Request, Route, is_upgrade, plain_response

__all__ = ["page_response"]


def page_response(page: Page | None, request: Request, route: Route) -> bytes | None:
    """Return the page as a whole answer, or None if this is no request for it."""
    if page is None or not route.is_share_link or is_upgrade(request.headers):
        return None
    if not any(b"text/html" in value for value in request.values(b"accept")):
        return None
    return plain_response(200, page.body, content_type=b"text/html; charset=utf-8", headers=page.headers)
