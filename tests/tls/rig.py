"""A tunnel with TLS in the test's reactor, and TLS handshakes in memory.

``TlsRig`` is the ``Rig`` of the tunnel's tests with ``--tls-cert``. ``shake_hands`` connects a server's
context with a client of the standard library in memory, so the two sides are different implementations.
"""

from __future__ import annotations

import ssl
from functools import cached_property
from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

from seance.net import ServerTls
from seance.net.tls_connection import AnyTlsConnection
from seance.net.tls_transport import TlsTransport
from tests.certificates import Authority, CertificateFiles
from tests.relay.rig import Player, Rig, reactor, until

__all__ = ["One", "Shaken", "TlsRig", "shake_hands"]


class TlsRig(Rig):
    """A relay with a certificate of ``authority`` for localhost, and an agent that trusts it."""

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
        """Open a client's connection with Twisted's TLS, and write ``first`` on it."""
        endpoint = wrapClientTLS(
            optionsForClientTLS("localhost", trustRoot=self.trust),
            TCP4ClientEndpoint(reactor, "127.0.0.1", self.port),
        )
        return await self._connect(endpoint, first)

    async def connect_plainly(self, first: bytes = b"") -> Player:
        """Open a connection without TLS."""
        return await self._connect(TCP4ClientEndpoint(reactor, "127.0.0.1", self.port), first)

    async def serial(self) -> int:
        """Connect, and return the serial number of the server's certificate."""
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
    """A factory that returns one given protocol."""

    noisy = False

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: object) -> Any:
        return self._protocol


class Shaken(TlsTransport):
    """A handshake in memory, and its results; a transport without a network.

    Attributes:
        server: The server's part of the connection.
        client: The client of the standard library.
        server_error: The exception of the server.
        client_error: The exception of the client.
    """

    def __init__(
        self, server: AnyTlsConnection, client: ssl.SSLContext, session: ssl.SSLSession | None = None
    ) -> None:
        self.server = server
        self._to_client, self._to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(
            self._to_client, self._to_server, server_hostname="localhost", session=session
        )
        self.server_error: Exception | None = None
        self.client_error: Exception | None = None
        self._is_client_done = False

    def getPeerCertificate(self) -> bytes | None:  # noqa: N802  # Twisted's name
        return self.server.verified_certificate()

    def run(self) -> Shaken:
        """Move bytes between both sides until neither has any."""
        for _ in range(10):
            self._turn_client()
            if data := self._to_server.read():
                self.server.received.write(data)
            self._turn_server()
            self._to_client.write(self.server.to_send.read())
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
            self.server.do_handshake()
            self.server.write(b"hello")
            while self.server.read(100):
                pass
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.server_error = self.server_error or error


def shake_hands(tls: ServerTls, client: ssl.SSLContext, session: ssl.SSLSession | None = None) -> Shaken:
    """Connect a client of the standard library to a server of this project."""
    return Shaken(tls.make_connection(), client, session).run()
