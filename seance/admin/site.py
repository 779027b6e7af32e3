"""Dispatches requests of the admin port to routes, on twisted.web.

One resource serves all paths, because each request needs the same access control and each response the same
header fields. If the port listens on other addresses than loopback, any client may reach it, so connections
and bodies are limited here; twisted.web limits heads (16 KiB).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast
from urllib.parse import unquote

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from seance.admin.access_control import CHANGE_FIELD, FULL_ACCESS, AccessControl, check_change
from seance.admin.responses import AdminResponse, refusal_response
from seance.core.interfaces import Grant
from seance.errors import Refusal
from seance.heads.refusals import refusal

__all__ = ["MAX_BODY_BYTES", "MAX_CONNECTIONS", "AdminRequest", "AdminRoute", "AdminSite"]

MAX_CONNECTIONS = 128
"""Limit of open connections; a further one is closed at accept. A browser opens six, Prometheus one."""

MAX_BODY_BYTES = 4096
"""Limit of a request body; the connection of a larger one is closed. No route uses a body."""

IDLE_SECONDS = 30.0
"""Timeout of a connection without a complete request."""

SECURITY_FIELDS = (
    (b"Server", b"seance"),
    (b"Cache-Control", b"no-store"),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Referrer-Policy", b"no-referrer"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
    (
        b"Content-Security-Policy",
        b"default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)


@dataclass(frozen=True, slots=True)
class AdminRequest:
    """An authorised request.

    Attributes:
        request: The request of twisted.web, for responses that are streams.
        names: The values of the ``{name}`` parts of the path.
        grant: The permissions of the request.
    """

    request: Request
    names: Mapping[str, str]
    grant: Grant

    def number(self, name: str, default: int, maximum: int) -> int:
        """Return a query parameter from 1 to ``maximum``, or ``default`` if it is missing.

        Raises:
            Refusal: 400 for another value.
        """
        text = self.text(name)
        if text is None:
            return default
        if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= maximum:
            raise refusal("admin_parameter.number", name=name, maximum=maximum)
        return int(text)

    def text(self, name: str) -> str | None:
        """Return a query parameter, or None.

        Raises:
            Refusal: 400 if it occurs twice.
        """
        values = (self.request.args or {}).get(name.encode(), [])
        if len(values) > 1:
            raise refusal("admin_parameter.twice", name=name)
        return values[0].decode("utf-8", "replace") if values else None


@dataclass(frozen=True, slots=True)
class AdminRoute:
    """A path and its handlers.

    Attributes:
        path: The path; a variable part is a ``{name}``.
        handlers: Called with the request, by method. None as result: the handler writes the response itself.
        is_open: Whether no token is required.
        parameters: The permitted query parameters.
    """

    path: str
    handlers: Mapping[str, Callable[[AdminRequest], AdminResponse | None]]
    is_open: bool = False
    parameters: tuple[str, ...] = ()

    def match(self, path: str) -> Mapping[str, str] | None:
        """Return the values of the ``{name}`` parts if ``path`` matches, or None."""
        pattern = re.sub(
            r"\{(\w+)\}", r"(?P<\1>[^/]+)", re.escape(self.path).replace(r"\{", "{").replace(r"\}", "}")
        )
        found = re.fullmatch(pattern, path)
        return None if found is None else {name: unquote(part) for name, part in found.groupdict().items()}


class AdminSite(Site):
    """The factory of the admin port. Set ``access_control`` before a connection arrives.

    Args:
        reactor: Twisted's reactor.
        routes: The routes; the first that matches is used.
    """

    noisy: ClassVar[bool] = False  # type: ignore[misc]  # Twisted sets it on instances

    def __init__(self, reactor: Any, routes: tuple[AdminRoute, ...]) -> None:  # noqa: ANN401  # no common type
        super().__init__(
            _Root(self, routes), requestFactory=_HttpRequest, timeout=IDLE_SECONDS, reactor=reactor
        )
        self.displayTracebacks = False
        self.protocol = _Channel  # type: ignore[assignment]  # no HTTP/2
        self.routes = routes
        self.access_control: AccessControl | None = None
        self.channels: dict[_Channel, None] = {}

    def buildProtocol(self, addr: IAddress | None) -> Any:  # noqa: ANN401  # of Twisted's private types
        """Return the protocol of a connection, or None above the limit."""
        if len(self.channels) >= MAX_CONNECTIONS:
            return None
        return super().buildProtocol(addr)

    def log(self, request: Any) -> None:  # noqa: ANN401  # as above
        """Do not log requests: a scraper sends one every few seconds."""

    def cut_all(self) -> None:
        """Close every connection."""
        for channel in list(self.channels):
            channel.cut()


class _Channel(HTTPChannel):
    site: AdminSite

    def cut(self) -> None:
        cast(ITCPTransport, self.transport).abortConnection()

    def connectionMade(self) -> None:
        self.site.channels[self] = None
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.channels.pop(self, None)
        super().connectionLost(reason)


class _HttpRequest(Request):
    _body_bytes = 0

    def gotLength(self, length: int | None) -> None:  # noqa: N802  # Twisted's name
        # Prevents twisted.web from creating a file for the body; handleContentChunk counts it.
        super().gotLength(0)

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802  # as above
        self._body_bytes += len(data)
        if self._body_bytes > MAX_BODY_BYTES:
            cast(_Channel, self.channel).cut()


class _Root(Resource):
    isLeaf = True  # noqa: N815  # Twisted's name
    _log = Logger()

    def __init__(self, site: AdminSite, routes: tuple[AdminRoute, ...]) -> None:
        super().__init__()
        self._site = site
        self._routes = routes

    def render(self, request: Request) -> int:
        task = Deferred.fromCoroutine(self._respond(request))
        gone = request.notifyFinish()
        gone.addErrback(lambda _: task.cancel())
        task.addErrback(lambda failure: failure.trap(CancelledError))
        return NOT_DONE_YET

    async def _respond(self, request: Request) -> None:
        for name, value in SECURITY_FIELDS:
            request.setHeader(name, value)
        try:
            response = await self._dispatch(request)
        except Refusal as error:
            response = refusal_response(error)
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001  # any other error of a handler becomes a 500
            self._log.failure("A request to the admin port failed", event="admin.failed")
            response = refusal_response(refusal("admin_failed"))
        if response is not None:
            _write(request, response)

    async def _dispatch(self, request: Request) -> AdminResponse | None:
        access_control = self._site.access_control
        assert access_control is not None, "AdminService sets this before it listens"
        path = request.path.decode("latin-1")
        method = request.method.decode("latin-1")
        route, names = self._find(path)
        # A health check in HTTP/1.0 has no Host. Every browser sends one, so this gives no page access.
        if route is None or not route.is_open or request.requestHeaders.hasHeader("host"):
            access_control.check_host(_field(request, "host") or "")
        grant = FULL_ACCESS
        if route is None or not route.is_open:
            grant = await access_control.admit(_field(request, "authorization") or "", request.channel)
        if route is None:
            raise refusal("admin_path")
        handler = route.handlers.get("GET" if method == "HEAD" else method)
        if handler is None:
            allowed = ", ".join(["HEAD", *route.handlers] if "GET" in route.handlers else route.handlers)
            headers = ((b"Allow", allowed.encode()),)
            raise refusal("admin_method", methods=allowed, headers=headers)
        unknown = [name for name in request.args or {} if name.decode("latin-1") not in route.parameters]
        if unknown:
            raise refusal("admin_parameter")
        if method not in ("GET", "HEAD"):
            check_change(_field(request, CHANGE_FIELD))
        return handler(AdminRequest(request, names, grant))

    def _find(self, path: str) -> tuple[AdminRoute | None, Mapping[str, str]]:
        for route in self._routes:
            names = route.match(path)
            if names is not None:
                return route, names
        return None, {}


def _field(request: Request, name: str) -> str | None:
    """Return a header field, or None if it is missing or occurs twice."""
    values = request.requestHeaders.getRawHeaders(name) or []
    return values[0] if len(values) == 1 else None


def _write(request: Request, response: AdminResponse) -> None:
    request.setResponseCode(response.status)
    for name in {name for name, _ in response.headers}:
        request.responseHeaders.setRawHeaders(name, [value for one, value in response.headers if one == name])
    if response.status != 204:
        request.setHeader(b"content-type", response.content_type.encode())
        request.setHeader(b"content-length", b"%d" % len(response.body))
        request.write(response.body)
    request.finish()
