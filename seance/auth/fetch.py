"""Fetches a JWK set over HTTPS once, within strict limits.

The limit is 64 KiB. Redirects are not followed, because only the configured URL is trusted. Compression,
cookies and proxies are not used. Twisted's default policy verifies the certificate. Plain ``http`` is allowed
for loopback only, for a sidecar or a test. ``seance.auth.jwks`` decides when to fetch, and cancels a fetch
that takes too long.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, BrowserLikePolicyForHTTPS, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from seance.errors import ConfigError

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocol, IProtocolFactory

__all__ = ["MAX_KEY_SET_BYTES", "KeySetUrl"]

MAX_KEY_SET_BYTES = 64 * 1024
"""Four RSA keys with their certificates, as some issuers publish them, have 12 KiB."""

REQUEST_HEADERS = {b"Accept": [b"application/jwk-set+json, application/json"], b"User-Agent": [b"seance"]}


class KeySetUrl:
    """The URL of a key set.

    Args:
        url: ``https://HOST...``, or ``http://`` with a loopback address.

    Attributes:
        name: The URL without user and query, for logs.

    Raises:
        ConfigError: ``url`` is not such a URL.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            is_usable = bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_usable = False
        if not is_usable or not url.isascii() or not url.isprintable() or " " in url:
            msg = "The URL of the key set is not valid; write https://HOST/PATH."
            raise ConfigError(msg, code="auth_jwks")
        self.name = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(str(parts.hostname))):
            msg = (
                f"The key set at {self.name} cannot be fetched securely; use https, or http with a loopback"
                " address."
            )
            raise ConfigError(msg, code="auth_jwks")
        if parts.username is not None or parts.fragment:
            msg = f"The URL of the key set at {self.name} contains a user or a fragment; remove it."
            raise ConfigError(msg, code="auth_jwks")
        self._url = url.encode()

    def fetch(self, reactor: Any, policy: IPolicyForHTTPS | None = None) -> Deferred[bytes]:  # noqa: ANN401  # no common type
        """Fetch the key set.

        Args:
            reactor: Twisted's reactor.
            policy: Trusted certificates; those of the system by default.

        Returns:
            The body. The Deferred fails with ValueError for a bad response (its message is a predicate
            that follows the name of the key set), or with the error of the connection. Cancelling it aborts
            the connection.
        """
        endpoint = _AbortableEndpoint(reactor, policy or BrowserLikePolicyForHTTPS())
        return Deferred.fromCoroutine(self._fetch(reactor, endpoint))

    async def _fetch(self, reactor: Any, endpoint: _AbortableEndpoint) -> bytes:  # noqa: ANN401  # as above
        try:
            agent = Agent.usingEndpointFactory(reactor, endpoint)
            response = await agent.request(b"GET", self._url, Headers(REQUEST_HEADERS))
            if response.code != 200:
                msg = f"responded with status {response.code}"
                raise ValueError(msg)
            body = _Body()
            response.deliverBody(body)
            return await body.done
        finally:
            endpoint.abort()


class _Body(Protocol):
    """Collects a body until it is complete or too long."""

    def __init__(self) -> None:
        self.done: Deferred[bytes] = Deferred()
        self._received = bytearray()

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if len(self._received) > MAX_KEY_SET_BYTES and not self.done.called:
            self.done.errback(ValueError(f"is longer than {MAX_KEY_SET_BYTES} bytes"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(bytes(self._received))
        else:
            self.done.errback(reason)


@implementer(IAgentEndpointFactory, IStreamClientEndpoint)
class _AbortableEndpoint:
    """Connects for one request, and can abort the connection.

    ``Agent`` only closes it, and then TLS waits for the other side's close notification.
    """

    def __init__(self, reactor: Any, policy: IPolicyForHTTPS) -> None:  # noqa: ANN401  # as above
        self._reactor = reactor
        self._policy = policy
        self._endpoint: IStreamClientEndpoint
        self._protocol: Any = None

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: N802  # Twisted calls us
        self._endpoint = HostnameEndpoint(self._reactor, uri.host, uri.port)
        if uri.scheme == b"https":
            self._endpoint = wrapClientTLS(self._policy.creatorForNetloc(uri.host, uri.port), self._endpoint)
        return self

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        return self._endpoint.connect(factory).addCallback(self._record)

    def abort(self) -> None:
        if self._protocol is not None:
            self._protocol.transport.abortConnection()

    def _record(self, protocol: IProtocol) -> IProtocol:
        self._protocol = protocol
        return protocol


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
