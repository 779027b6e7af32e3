"""The address of the local server: parses ``--local`` and makes the endpoint that connects to it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint

from seance.errors import ConfigError
from seance.net import CachedEndpoint, ClientTls, TlsEndpoint

__all__ = ["LocalAddress"]

FORMS = "use HOST:PORT, unix:PATH or tls://HOST:PORT"
HOST_PORT = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """The address of the local server, to which the agent forwards.

    Attributes:
        kind: ``"tcp"``, ``"unix"`` or ``"tls"``.
        host: Host name or IP address without brackets; for ``unix`` the path of the socket.
        port: 1 to 65535; 0 for ``unix``.
    """

    kind: str
    host: str
    port: int

    @classmethod
    def from_text(cls, text: str) -> LocalAddress:
        """Parse ``HOST:PORT``, ``[IPV6]:PORT``, ``unix:PATH`` or ``tls://HOST:PORT``.

        Raises:
            ConfigError: ``text`` has none of these forms.
        """
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            if not path:
                raise ConfigError(f"The local server {text!r} has no path; {FORMS}.", code="local")
            return cls("unix", path, 0)
        kind, rest = ("tls", text.removeprefix("tls://")) if text.startswith("tls://") else ("tcp", text)
        match = HOST_PORT.fullmatch(rest)
        if match is None:
            raise ConfigError(f"The local server {text!r} is not a valid address; {FORMS}.", code="local")
        port = int(match["port"])
        if not 1 <= port <= 65535:
            raise ConfigError(
                f"The local server {text!r} needs a port from 1 to 65535; {FORMS}.", code="local"
            )
        return cls(kind, match["six"] or match["host"], port)

    @property
    def host_header(self) -> bytes:
        """The ``Host`` field for requests to the local server; ``localhost`` for ``unix``."""
        if self.kind == "unix":
            return b"localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.port == (443 if self.kind == "tls" else 80):
            return host.encode("ascii")
        return f"{host}:{self.port}".encode("ascii")

    @property
    def origin(self) -> bytes:
        """The ``Origin`` of a web page that the local server itself serves."""
        return (b"https://" if self.kind == "tls" else b"http://") + self.host_header

    def endpoint(
        self,
        reactor: Any,  # noqa: ANN401  # no common type for what endpoints need
        timeout_seconds: float,
        tls: ClientTls | None = None,
    ) -> IStreamClientEndpoint:
        """Return an endpoint that connects to the local server.

        Args:
            reactor: Twisted's reactor.
            timeout_seconds: Timeout of one attempt.
            tls: TLS settings for ``tls``. None checks the host name against the certificate authorities
                of the system.
        """
        if self.kind == "unix":
            return UNIXClientEndpoint(reactor, self.host, timeout=timeout_seconds)
        endpoint: IStreamClientEndpoint = CachedEndpoint(reactor, self.host, self.port, timeout_seconds)
        if self.kind == "tls":
            endpoint = TlsEndpoint(reactor, endpoint, tls or ClientTls(self.host), f"the local server {self}")
        return endpoint

    def __str__(self) -> str:
        """Return the address in the form that ``from_text`` parses."""
        if self.kind == "unix":
            return f"unix:{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'tls://' if self.kind == 'tls' else ''}{host}:{self.port}"
