"""The server's side of TLS: a certificate that can be replaced while connections are open.

``ServerTls`` holds the context for the next handshake. A connection keeps the context that it began
with, so that a renewed certificate costs nobody anything. Twisted's ``ssl:`` endpoints have one
context for life; this is for everything else that listens.

A client certificate is asked for if there is an authority for it, and never demanded: browsers come
through the same port and have none. One that is shown has to be good, or the handshake fails, so
whatever ``peer_certificate`` returns can be relied on.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IProtocolFactory, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from seance.net.files import WatchedFiles
from seance.net.log_limiter import REFUSED_SECONDS, LogLimiter
from seance.net.pem import PathLike, openssl_words, read_authorities, read_credentials, tls_context
from seance.net.tls_transport import TlsFactory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.protocols.tls import TLSMemoryBIOProtocol

__all__ = ["HandshakeLog", "ServerTls"]

PROTOCOL = b"http/1.1"
"""What we say with ALPN. Nobody has to ask; a browser does, and finds out that HTTP/2 is not spoken."""

LONGEST_CHAIN = 9

SESSION_ID = b"seance"
"""Sessions are resumed by tickets, whose keys die with the context. OpenSSL wants a name for whoever may
resume one where client certificates are asked for."""


RESUME_SECONDS = 300
"""How long a ticket is good: long enough for everybody to come back after a hiccup. Whoever comes back with
one is not checked anew, so this is also how much longer than its time a client certificate may live."""


@implementer(IOpenSSLServerConnectionCreator)
class ServerTls(WatchedFiles[SSL.Context]):
    """A certificate, its key, and what clients may prove themselves with.

    Call ``load``, then ``wrap`` what listens. ``reload``, or ``look`` once a second, takes changed
    files for the handshakes to come.

    Args:
        cert_file: The certificate chain, PEM.
        key_file: The key, PEM; by default it is in the certificate's file.
        client_ca_file: The authority of client certificates; None asks for none.
    """

    def __init__(
        self, cert_file: PathLike, key_file: PathLike | None = None, client_ca_file: PathLike | None = None
    ) -> None:
        paths = [Path(path) for path in (cert_file, key_file, client_ca_file) if path is not None]

        def read() -> SSL.Context:
            return _server_context(cert_file, key_file, client_ca_file)

        super().__init__(paths, read)

    def reload(self) -> bool:
        """Read the files now; False, and a line in the log, if they are no good."""
        return self.look(force=True)

    def wrap(self, factory: IProtocolFactory, reactor: IReactorTime) -> TlsFactory:
        """Return a factory that speaks TLS and has ``factory`` make what speaks inside.

        The protocols that it makes are connected at accept, before the handshake, and have to bound
        the time that it takes.
        """
        return TlsFactory(self, False, factory, reactor)

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: N802, N803  # Twisted's names
        """Make OpenSSL's part of one connection."""
        return SSL.Connection(self.content, None)


class HandshakeLog:
    """Tells the operator about failed handshakes, so that strangers do not decide how long the log is.

    One line, then none for ten seconds; the next says how many it stands for.

    Args:
        reactor: Where time comes from.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorTime) -> None:
        self._limit = LogLimiter(reactor, interval_seconds=REFUSED_SECONDS)

    def note(self, reason: Failure, peer: str) -> None:
        """Tell of a connection that was lost, if it was TLS that failed.

        Args:
            reason: What ``connectionLost`` was told.
            peer: Who it was.
        """
        error = reason.value
        if not isinstance(error, SSL.Error) or (untold := self._limit.admit("failed")) is None:
            return
        self._log.info(
            "A TLS handshake with {peer} failed: {reason} ({untold} more since the last such line)",
            peer=peer,
            reason=openssl_words(error),
            untold=untold,
            event="tls.handshake_failed",
        )


def _server_context(
    cert_file: PathLike, key_file: PathLike | None, client_ca_file: PathLike | None
) -> SSL.Context:
    authorities = () if client_ca_file is None else read_authorities(client_ca_file)

    def prepare(context: SSL.Context) -> None:
        context.set_alpn_select_callback(_select_protocol)
        context.set_session_id(SESSION_ID)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_timeout(RESUME_SECONDS)
        if authorities:
            context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_CLIENT_ONCE)
            context.set_verify_depth(LONGEST_CHAIN)
        for authority in authorities:
            # Named to the client: a browser then does not offer its user certificates of others.
            context.add_client_ca(authority)

    return tls_context(read_credentials(cert_file, key_file), authorities, prepare)


def _select_protocol(connection: SSL.Connection, offered: Sequence[bytes]) -> Any:  # noqa: ANN401  # bytes or a mark
    return PROTOCOL if PROTOCOL in offered else SSL.NO_OVERLAPPING_PROTOCOLS
