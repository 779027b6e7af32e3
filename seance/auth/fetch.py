"""Fetches a JWK set over HTTPS, once, with every way to be slow, large or elsewhere shut.

At most 64 KiB; no redirects, because the URL that a person wrote is the one that is trusted; no
compression, no cookies, no proxy; the name is verified by Twisted's usual policy. Plain ``http`` is
for loopback, where a sidecar or a test may be. How long it may take and how often it is done is
``seance.auth.jwks``, which cancels.
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

__all__ = ["LONGEST_KEY_SET", "KeySetUrl"]

LONGEST_KEY_SET = 64 * 1024
"""Bytes. Four RSA keys with their certificates, as some issuers publish them, have 12 KiB."""

REQUEST_HEADERS = {b"Accept": [b"application/jwk-set+json, application/json"], b"User-Agent": [b"seance"]}


class KeySetUrl:
    """Where a key set is to be had.

    Args:
        url: ``https://HOST...``, or ``http://`` to this machine.

    Attributes:
        name: The URL without its query, for logs.

    Raises:
        ConfigError: It is something else.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            is_usable = bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_usable = False
        if not is_usable or not url.isascii() or not url.isprintable() or " " in url:
            msg = "The address of the key set cannot be read; write https://HOST/PATH."
            raise ConfigError(msg, code="auth_jwks")
        self.name = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(str(parts.hostname))):
            msg = (
                f"The key set at {self.name} is not safe to fetch; use https, or http on this machine alone."
            )
            raise ConfigError(msg, code="auth_jwks")
        if parts.username is not None or parts.fragment:
            msg = f"The address of the key set at {self.name} holds a user or a fragment; leave it out."
            raise ConfigError(msg, code="auth_jwks")
        self._url = url.encode()

    def fetch(self, reactor: Any, policy: IPolicyForHTTPS | None = None) -> Deferred[bytes]:  # noqa: ANN401  # no common type
        """Fetch what is there.

        Args:
            reactor: Twisted's reactor.
            policy: Which certificates are good; those of the system by default.

        Returns:
            The body. Fails with ValueError and half a sentence, or with whatever connecting
            fails with. Cancelling cuts the connection.
        """
        endpoints = _CutEndpoints(reactor, policy or BrowserLikePolicyForHTTPS())
        return Deferred.fromCoroutine(self._fetch(reactor, endpoints))

    async def _fetch(self, reactor: Any, endpoints: _CutEndpoints) -> bytes:  # noqa: ANN401  # as above
        try:
            agent = Agent.usingEndpointFactory(reactor, endpoints)
            response = await agent.request(b"GET", self._url, Headers(REQUEST_HEADERS))
            if response.code != 200:
                msg = f"answered with status {response.code}"
                raise ValueError(msg)
            body = _Body()
            response.deliverBody(body)
            return await body.done
        finally:
            endpoints.cut()


class _Body(Protocol):
    """Takes a body until it is whole or too long."""

    def __init__(self) -> None:
        self.done: Deferred[bytes] = Deferred()
        self._received = bytearray()

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if len(self._received) > LONGEST_KEY_SET and not self.done.called:
            self.done.errback(ValueError(f"is longer than {LONGEST_KEY_SET} bytes"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(bytes(self._received))
        else:
            self.done.errback(reason)


@implementer(IAgentEndpointFactory)
class _CutEndpoints:
    """Connects for one request, and can cut what it has connected.

    An ``Agent`` alone cannot: it says goodbye in TLS and waits for the other side to do so too.
    """

    def __init__(self, reactor: Any, policy: IPolicyForHTTPS) -> None:  # noqa: ANN401  # as above
        self._reactor = reactor
        self._policy = policy
        self._connected: list[Any] = []

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: N802  # Twisted calls us
        endpoint: IStreamClientEndpoint = HostnameEndpoint(self._reactor, uri.host, uri.port)
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(self._policy.creatorForNetloc(uri.host, uri.port), endpoint)
        return _Noting(endpoint, self._connected)

    def cut(self) -> None:
        for protocol in self._connected:
            protocol.transport.abortConnection()


@implementer(IStreamClientEndpoint)
class _Noting:
    """An endpoint that notes whom it has connected."""

    def __init__(self, endpoint: IStreamClientEndpoint, connected: list[Any]) -> None:
        self._endpoint = endpoint
        self._connected = connected

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        return self._endpoint.connect(factory).addCallback(self._note)

    def _note(self, protocol: IProtocol) -> IProtocol:
        self._connected.append(protocol)
        return protocol


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
