"""The files of the dashboard, each with its address and its kind, for whoever serves them.

Not a server, and not the API that the page asks: both are the admin port's (``seance.admin.port``). The page
keeps to ``default-src 'self'``, so it has neither a script nor a style in itself, and its addresses are
relative: it works below any path that a proxy puts it under.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import PurePosixPath

__all__ = ["dashboard_pages"]

INDEX = "index.html"

KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def dashboard_pages() -> dict[str, tuple[str, bytes]]:
    """Return content type and content by path: the page at ``/``, what belongs to it below ``/static/``."""
    return {
        "/" if file.name == INDEX else f"/static/{file.name}": (
            KINDS[PurePosixPath(file.name).suffix],
            file.read_bytes(),
        )
        for file in files("seance.dashboard").joinpath("static").iterdir()
    }
