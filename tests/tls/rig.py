"""A tunnel with TLS in the test's own reactor, and TLS without a network for what needs none.

``TlsRig`` is the ``Rig`` of the tunnel's tests behind ``--tls-cert``; ``shake_hands`` joins a server's
context with a client of the standard library in memory, so that the two sides are not written by
the same people.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from functools import cached_property
from typing import Any

from OpenSSL import SSL
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from zope.interface import implementer

from seance.net import ServerTls
from tests.certificates import Authority, CertificateFiles
from tests.relay.rig import Player, Rig, reactor, until

__all__ = ["One", "Shaken", "TlsRig", "shake_hands"]


class TlsRig(Rig):
    """A relay with a certificate of ``authority`` for localhost, and an agent that believes it."""

    def __init__(
        self,
        authority: Authority,
        certificate: CertificateFiles | None = None,
        *,
        relay: dict[str, Any] | None = None,
        agent: dict[str, Any] | None = None,
        with_agent: bool = True,
    ) -> None:
        self.authority = authority
        self.certificate = certificate or authority.issue("localhost")
        super().__init__(
            relay={
                "tls_cert": str(self.certificate.chain),
                "tls_key": str(self.certificate.key),
                **(relay or {}),
            },
            agent={
                "tls_ca": str(authority.file),
                "backoff_base_seconds": 0.02,
                "backoff_cap_seconds": 0.02,
                **(agent or {}),
            },
            with_agent=with_agent,
        )

    @property
    def relay_url(self) -> str:
        return f"wss://localhost:{self.port}"

    @cached_property
    def trust(self) -> Any:
        return trustRootFromCertificates([Certificate.loadPEM(self.authority.file.read_bytes())])

    async def connect(self, first: bytes = b"") -> Player:
        """Opens a client's connection, with Twisted's own TLS, and writes ``first`` on it."""
        endpoint = wrapClientTLS(
            optionsForClientTLS("localhost", trustRoot=self.trust),
            TCP4ClientEndpoint(reactor, "127.0.0.1", self.port),
        )
        return await self._connect(endpoint, first)

    async def connect_plainly(self, first: bytes = b"") -> Player:
        """Opens a connection without TLS."""
        return await self._connect(TCP4ClientEndpoint(reactor, "127.0.0.1", self.port), first)

    async def serial(self) -> int:
        """Connects, and gives the serial number of the certificate that is shown."""
        client = await self.connect()
        await until(lambda: client.leg.getHandle().get_cipher_name())
        number: int = client.leg.getPeerCertificate().get_serial_number()
        client.leg.abortConnection()
        await client.goes()
        return number

    async def _connect(self, endpoint: Any, first: bytes) -> Player:
        player = Player()
        self.clients.append(player)
        await endpoint.connect(One(player))
        if first:
            player.send(first)
        return player


class One(Factory):
    """Gives out the one protocol that it was given."""

    noisy = False

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: object) -> Any:
        return self._protocol


@implementer(ISSLTransport)
class Shaken:
    """A handshake in memory, and what came of it.

    Attributes:
        server: OpenSSL's part of the server, which passes for a transport with its handle.
        client: The standard library's part of the client.
        server_error: What the server raised.
        client_error: What the client raised.
    """

    def __init__(self, server: Any, client: ssl.SSLContext, session: ssl.SSLSession | None = None) -> None:
        self.server = server
        self._to_client, self._to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(
            self._to_client, self._to_server, server_hostname="localhost", session=session
        )
        self.server_error: Exception | None = None
        self.client_error: Exception | None = None
        self._is_client_done = False

    def getHandle(self) -> Any:  # noqa: N802  # as a transport has it
        return self.server

    def run(self) -> Shaken:
        """Carries bytes to and fro until neither has any."""
        for _ in range(10):
            self._turn_client()
            if data := self._to_server.read():
                self.server.bio_write(data)
            self._turn_server()
            with suppress(SSL.WantReadError):
                while True:
                    self._to_client.write(self.server.bio_read(65536))
        return self

    def _turn_client(self) -> None:
        try:
            if not self._is_client_done:
                self.client.do_handshake()
                self._is_client_done = True
                self.client.write(b"hello")
            self.client.read()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.client_error = self.client_error or error

    def _turn_server(self) -> None:
        try:
            self.server.recv(100)
            self.server.send(b"hello")
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            self.server_error = self.server_error or error


def shake_hands(tls: ServerTls, client: ssl.SSLContext, session: ssl.SSLSession | None = None) -> Shaken:
    """Has a client of the standard library talk to a server of ours."""
    server: Any = tls.serverConnectionForTLS(None)  # type: ignore[arg-type]  # no transport here
    server.set_accept_state()
    return Shaken(server, client, session).run()
