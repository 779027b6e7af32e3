"""TLS for servers, with a certificate that can be replaced while connections are open.

``ServerTls`` holds the context for the next handshake. Open connections keep their context, so a renewed
certificate does not disturb them. Twisted's ``ssl:`` endpoints never replace theirs.

A client certificate is requested if there is an authority for it, but not required, because browsers use the
same port without one. The handshake fails if a presented certificate is not valid, so the result of
``peer_certificate`` can be trusted.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IProtocolFactory, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from seance.net.files import WatchedFiles
from seance.net.log_limiter import REFUSED_SECONDS, LogLimiter
from seance.net.pem import PathLike, load_credentials, read_authorities, read_credentials, unusable
from seance.net.tls_connection import (
    CIPHERS,
    AnyTlsConnection,
    RequestingConnection,
    TlsConnection,
    tls_context,
    tls_message,
)
from seance.net.tls_transport import TlsFactory

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HandshakeLog", "ServerTls"]

PROTOCOL = b"http/1.1"
"""The protocol that ALPN selects; it tells browsers that HTTP/2 is not supported."""

MAX_CHAIN_DEPTH = 9

SESSION_ID = b"seance"
"""OpenSSL requires a session id context if client certificates are requested."""

RESUME_SECONDS = 300
"""Lifetime of a ticket if client certificates are requested: a resumed session is not verified again
(``peer_certificate`` checks only that the certificate has not expired). Other tickets have OpenSSL's default
lifetime, two hours. The keys of tickets are deleted with the context."""


class ServerTls(WatchedFiles[ssl.SSLContext | SSL.Context]):
    """A server certificate with its key, and the authority of client certificates.

    Call ``load``, then ``wrap`` the factory that listens. Call ``check`` every second to use changed files
    for later handshakes.

    Args:
        cert_file: PEM file with the certificate chain.
        key_file: PEM file with the key; None if it is in ``cert_file``.
        client_ca_file: PEM file with the authority of client certificates; None requests none.
    """

    def __init__(
        self, cert_file: PathLike, key_file: PathLike | None = None, client_ca_file: PathLike | None = None
    ) -> None:
        paths = [Path(path) for path in (cert_file, key_file, client_ca_file) if path is not None]

        def read() -> ssl.SSLContext | SSL.Context:
            if client_ca_file is None:
                return _server_context(cert_file, key_file)
            return _requesting_context(cert_file, key_file, client_ca_file)

        super().__init__(paths, read)

    def wrap(self, factory: IProtocolFactory, reactor: IReactorTime) -> TlsFactory:
        """Return a factory for TLS connections around the protocols of ``factory``.

        These protocols are connected at accept, before the handshake, and have to limit the time that it
        takes.
        """
        return TlsFactory(self.make_connection, factory, reactor, is_server=True)

    def make_connection(self) -> AnyTlsConnection:
        """Return OpenSSL's part of one connection."""
        context = self.content
        return (
            TlsConnection(context) if isinstance(context, ssl.SSLContext) else RequestingConnection(context)
        )


class HandshakeLog:
    """Logs failed handshakes, at most one line in ten seconds; the next line has the number of those omitted.

    Args:
        reactor: Provides the time.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorTime) -> None:
        self._limit = LogLimiter(reactor, interval_seconds=REFUSED_SECONDS)

    def note(self, reason: Failure, peer: str) -> None:
        """Log a lost connection if TLS has failed.

        Args:
            reason: The reason passed to ``connectionLost``.
            peer: The peer's address.
        """
        error = reason.value
        # Those of pyOpenSSL come from ``ssl:`` endpoints.
        if (
            not isinstance(error, (ssl.SSLError, SSL.Error))
            or (suppressed := self._limit.admit("failed")) is None
        ):
            return
        self._log.info(
            "A TLS handshake with {peer} failed: {reason} ({untold} more since the last such line)",
            peer=peer,
            reason=tls_message(error),
            untold=suppressed,
            event="tls.handshake_failed",
        )


def _server_context(cert_file: PathLike, key_file: PathLike | None) -> ssl.SSLContext:
    context = tls_context(is_server=True)
    context.set_alpn_protocols([PROTOCOL.decode()])
    load_credentials(context, read_credentials(cert_file, key_file))
    return context


def _requesting_context(
    cert_file: PathLike, key_file: PathLike | None, client_ca_file: PathLike
) -> SSL.Context:
    credentials = read_credentials(cert_file, key_file)
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)  # see tls_context
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # saves 34 KiB per idle connection; ``ssl`` does the same
    context.set_alpn_select_callback(_select_protocol)
    context.set_session_id(SESSION_ID)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_timeout(RESUME_SECONDS)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_CLIENT_ONCE)
    context.set_verify_depth(MAX_CHAIN_DEPTH)
    store = context.get_cert_store()
    assert store is not None, "a new context has a store"
    for authority in read_authorities(client_ca_file):
        store.add_cert(crypto.X509.from_cryptography(authority))
        # Sent to the client, so a browser offers its user only certificates of these authorities.
        context.add_client_ca(authority)
    try:
        context.use_certificate(credentials.chain[0])
        context.use_privatekey(credentials.key)
        for certificate in credentials.chain[1:]:
            context.add_extra_chain_cert(certificate)
    except (SSL.Error, crypto.Error) as error:
        raise unusable(credentials, error) from error
    # This is the last step, because some releases of pyOpenSSL create a connection to test the list. After
    # that the context cannot be changed.
    context.set_cipher_list(CIPHERS.encode())
    return context


def _select_protocol(connection: SSL.Connection, offered: Sequence[bytes]) -> Any:  # noqa: ANN401  # bytes or a mark
    return PROTOCOL if PROTOCOL in offered else SSL.NO_OVERLAPPING_PROTOCOLS
