"""The files of the dashboard with path and content type.

``seance.admin.port`` serves them. The page complies with ``default-src 'self'``, so it has no inline scripts
or styles, and its URLs are relative, so it works below any path prefix of a proxy.
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
    """Return content type and content by path: the page is ``/``, its resources are below ``/static/``."""
    return {
        "/" if file.name == INDEX else f"/static/{file.name}": (
            KINDS[PurePosixPath(file.name).suffix],
            file.read_bytes(),
        )
        for file in files("seance.dashboard").joinpath("static").iterdir()
    }
