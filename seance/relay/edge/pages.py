"""The page that a browser gets at a share link, if the relay has one.

Only a request that accepts HTML gets the page, because only a browser that navigates accepts it.
"""

from __future__ import annotations

from seance.core.interfaces import Page
from seance.heads import Request, Route, is_upgrade, plain_response

__all__ = ["page_response"]


def page_response(page: Page | None, request: Request, route: Route) -> bytes | None:
    """Return the page as a whole response; None if the request is not for the page."""
    if page is None or not route.is_share_link or is_upgrade(request.headers):
        return None
    if not any(b"text/html" in value for value in request.values(b"accept")):
        return None
    return plain_response(200, page.body, content_type=b"text/html; charset=utf-8", headers=page.headers)
