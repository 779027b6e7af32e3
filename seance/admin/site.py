"""The admin port's answers: which path and method lead where, over twisted.web.

One resource for all paths, because each answer needs the same guard before it and the same header fields
around it. Strangers may reach it where it listens beyond this machine, so connections, heads and bodies are
bounded here; heads by twisted.web (16 KiB).
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

from seance.admin.access_control import CHANGE_FIELD, EVERYTHING, Guard, check_change
from seance.admin.answers import Answer, refusal_answer
from seance.core.interfaces import Grant
from seance.errors import Refusal

__all__ = ["MOST_BODY_BYTES", "MOST_CONNECTIONS", "AdminSite", "Asked", "Place"]

MOST_CONNECTIONS = 128
"""Open connections to the admin port; one more is cut at accept. A browser has six, a scraper one."""

MOST_BODY_BYTES = 4096
"""Nothing here takes a body; one that is longer costs the connection."""

IDLE_SECONDS = 30.0
"""A connection without a request, or with half of one, lives so long."""

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
class Asked:
    """One request that may be answered.

    Attributes:
        request: Of twisted.web, for answers that are streams.
        names: What stands in the path where the place has a ``{name}``.
        grant: What may be seen.
    """

    request: Request
    names: Mapping[str, str]
    grant: Grant

    def number(self, name: str, default: int, most: int) -> int:
        """Return a parameter of the query that is a number from 1 to ``most``.

        Raises:
            Refusal: 400, it is not.
        """
        text = self.text(name)
        if text is None:
            return default
        if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= most:
            raise Refusal(400, f"{name} has to be a number from 1 to {most}.", code="admin_parameter")
        return int(text)

    def text(self, name: str) -> str | None:
        """Return a parameter of the query, or None.

        Raises:
            Refusal: 400, it is there twice.
        """
        values = (self.request.args or {}).get(name.encode(), [])
        if len(values) > 1:
            raise Refusal(400, f"{name} is there twice.", code="admin_parameter")
        return values[0].decode("utf-8", "replace") if values else None


@dataclass(frozen=True, slots=True)
class Place:
    """A path, and who answers there.

    Attributes:
        path: With ``{name}`` for a part that varies.
        answers: By method. None as an answer means that the request was taken over.
        is_open: Whether no token is asked for.
        parameters: What the query may hold.
    """

    path: str
    answers: Mapping[str, Callable[[Asked], Answer | None]]
    is_open: bool = False
    parameters: tuple[str, ...] = ()

    def match(self, path: str) -> Mapping[str, str] | None:
        """Return the varying parts of a path that leads here, or None."""
        form = re.sub(
            r"\{(\w+)\}", r"(?P<\1>[^/]+)", re.escape(self.path).replace(r"\{", "{").replace(r"\}", "}")
        )
        found = re.fullmatch(form, path)
        return None if found is None else {name: unquote(part) for name, part in found.groupdict().items()}


class AdminSite(Site):
    """The factory of the admin port. Set ``guard`` before it is used.

    Args:
        reactor: Where time comes from.
        places: Where there is something.
    """

    noisy: ClassVar[bool] = False  # type: ignore[misc]  # Twisted sets it on instances

    def __init__(self, reactor: Any, places: tuple[Place, ...]) -> None:  # noqa: ANN401  # no common type
        super().__init__(_Root(self, places), requestFactory=_Request, timeout=IDLE_SECONDS, reactor=reactor)
        self.displayTracebacks = False
        self.protocol = _Channel  # type: ignore[assignment]  # HTTP/1.1 alone
        self.places = places
        self.guard: Guard | None = None
        self.channels: dict[_Channel, None] = {}

    def buildProtocol(self, addr: IAddress | None) -> Any:  # noqa: ANN401  # of Twisted's private types
        """Make the protocol of one connection, or none."""
        if len(self.channels) >= MOST_CONNECTIONS:
            return None
        return super().buildProtocol(addr)

    def log(self, request: Any) -> None:  # noqa: ANN401  # as above
        """Requests are not logged: whoever scrapes comes every few seconds."""

    def cut_all(self) -> None:
        """End every connection."""
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


class _Request(Request):
    _body_bytes = 0

    def gotLength(self, length: int | None) -> None:  # noqa: N802  # Twisted's name
        # Whatever is announced, it is not put into a file: what comes is counted.
        super().gotLength(0)

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802  # as above
        self._body_bytes += len(data)
        if self._body_bytes > MOST_BODY_BYTES:
            cast(_Channel, self.channel).cut()


class _Root(Resource):
    isLeaf = True  # noqa: N815  # Twisted's name
    _log = Logger()

    def __init__(self, site: AdminSite, places: tuple[Place, ...]) -> None:
        super().__init__()
        self._site = site
        self._places = places

    def render(self, request: Request) -> int:
        answering = Deferred.fromCoroutine(self._answer(request))
        gone = request.notifyFinish()
        gone.addErrback(lambda _: answering.cancel())
        answering.addErrback(lambda failure: failure.trap(CancelledError))
        return NOT_DONE_YET

    async def _answer(self, request: Request) -> None:
        for name, value in SECURITY_FIELDS:
            request.setHeader(name, value)
        try:
            answer = await self._decide(request)
        except Refusal as refusal:
            answer = refusal_answer(refusal)
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001  # nobody foresaw it; the operator is told where to look
            self._log.failure("A request to the admin port could not be answered", event="admin.failed")
            answer = refusal_answer(
                Refusal(500, "This failed; the log has the details.", code="admin_failed")
            )
        if answer is not None:
            _write(request, answer)

    async def _decide(self, request: Request) -> Answer | None:
        guard = self._site.guard
        assert guard is not None, "whoever listens has set it"
        path = request.path.decode("latin-1")
        method = request.method.decode("latin-1")
        place, names = self._find(path)
        # A health check in HTTP/1.0 has no Host. No browser leaves it out, so no page is let in by this.
        if place is None or not place.is_open or request.requestHeaders.hasHeader("host"):
            guard.check_host(_field(request, "host") or "")
        grant = EVERYTHING
        if place is None or not place.is_open:
            grant = await guard.admit(_field(request, "authorization") or "", request.channel)
        if place is None:
            raise Refusal(404, "There is nothing here.", code="admin_path")
        answer = place.answers.get("GET" if method == "HEAD" else method)
        if answer is None:
            allowed = ", ".join(["HEAD", *place.answers] if "GET" in place.answers else place.answers)
            headers = ((b"Allow", allowed.encode()),)
            raise Refusal(405, f"Only {allowed} can be done here.", code="admin_method", headers=headers)
        unknown = [name for name in request.args or {} if name.decode("latin-1") not in place.parameters]
        if unknown:
            raise Refusal(400, "The query has a parameter that is not known here.", code="admin_parameter")
        if method not in ("GET", "HEAD"):
            check_change(_field(request, CHANGE_FIELD))
        return answer(Asked(request, names, grant))

    def _find(self, path: str) -> tuple[Place | None, Mapping[str, str]]:
        for place in self._places:
            names = place.match(path)
            if names is not None:
                return place, names
        return None, {}


def _field(request: Request, name: str) -> str | None:
    """Return a field that may stand there once; twice is none."""
    values = request.requestHeaders.getRawHeaders(name) or []
    return values[0] if len(values) == 1 else None


def _write(request: Request, answer: Answer) -> None:
    request.setResponseCode(answer.status)
    for name in {name for name, _ in answer.headers}:
        request.responseHeaders.setRawHeaders(name, [value for one, value in answer.headers if one == name])
    if answer.status != 204:
        request.setHeader(b"content-type", answer.content_type.encode())
        request.setHeader(b"content-length", b"%d" % len(answer.body))
        request.write(answer.body)
    request.finish()
