"""The client's side of TLS: whom to believe, who one is oneself, and what exactly was wrong.

``ClientTls`` says the first two, ``TlsEndpoint`` connects with it. The check of certificate and name
is OpenSSL's and service-identity's, as with Twisted's ``optionsForClientTLS``, which however drops
what was wrong: every bad certificate is "certificate verify failed". An agent runs where its owner
does not look, so the one sentence in its log has to name the fault.

``TlsEndpoint`` has connected when the handshake is over, not before it. Used by the agent, towards its
relay and its local server.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from seance.errors import ConfigError, Gone
from seance.net.files import WatchedFiles
from seance.net.peer import certificate_names
from seance.net.pem import PathLike, openssl_words, read_authorities, read_credentials, tls_context
from seance.net.protocol_switch import ProtocolSwitch
from seance.net.tls_transport import TlsFactory

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress
    from twisted.protocols.tls import TLSMemoryBIOProtocol

__all__ = ["ClientTls", "TlsEndpoint", "is_loopback_host"]

NAMES_SHOWN = 5
LONGEST_NAME = 80

Codes = SSL.X509VerificationCodes

UNTRUSTED = "comes from an authority that is not trusted here"

FAULTS = {
    Codes.ERR_DEPTH_ZERO_SELF_SIGNED_CERT: "is self-signed, and is not one of those that are trusted here",
    Codes.ERR_SELF_SIGNED_CERT_IN_CHAIN: UNTRUSTED,
    Codes.ERR_UNABLE_TO_GET_ISSUER_CERT: UNTRUSTED,
    Codes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY: UNTRUSTED,
    Codes.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNTRUSTED,
    Codes.ERR_CERT_SIGNATURE_FAILURE: "has a signature that is not its authority's",
    Codes.ERR_INVALID_CA: "comes from somebody who may not give out certificates",
    Codes.ERR_INVALID_PURPOSE: "is not one for servers",
    66: "has a key that is too short to be safe",
    67: "comes from an authority whose key is too short to be safe",
    68: "is signed in a way that is no longer safe",
}
"""What OpenSSL finds in a chain (x509_vfy.h), as the rest of a sentence. The last three have no names in
pyOpenSSL."""

NOT_TLS = (
    "wrong version number",
    "packet length too long",
    "unknown protocol",
    "http request",
    "unexpected message",
    "record layer failure",
)
"""What OpenSSL says of an answer that is no TLS at all."""

ABOUT_US = ("unknown ca", "certificate", "access denied")
"""What a peer's alert says when it does not like the certificate that we have shown, or wants one."""


class ClientTls(WatchedFiles[SSL.Context]):
    """How to be sure who answers. Connect with it through a ``TlsEndpoint``.

    The files are read by ``load``, or for the first connection, and again when they have changed.

    Args:
        host: The name (ASCII) or address that the certificate has to be for.
        ca_file: The only authorities to believe, PEM; those of the system if None.
        cert_file: A certificate of one's own, PEM, for whoever asks for one.
        key_file: Its key; by default it is in the certificate's file.
        insecure: Believe everybody; this machine alone may be talked to like that.

    Raises:
        ConfigError: ``insecure`` towards another machine.
    """

    def __init__(
        self,
        host: str,
        *,
        ca_file: PathLike | None = None,
        cert_file: PathLike | None = None,
        key_file: PathLike | None = None,
        insecure: bool = False,
    ) -> None:
        if insecure and not is_loopback_host(host):
            sentence = (
                f"The certificate of {host} has to be checked, since it is another machine; "
                "name its authority instead."
            )
            raise ConfigError(sentence, code="tls_insecure")
        # A dot at the end is the name server's business; no certificate has it.
        self.host = host.rstrip(".")
        self.insecure = insecure

        def read() -> SSL.Context:
            return _client_context(ca_file, cert_file, key_file)

        super().__init__([Path(path) for path in (ca_file, cert_file, key_file) if path is not None], read)


@implementer(IStreamClientEndpoint)
class TlsEndpoint:
    """Connects, and speaks TLS over what it has connected.

    Args:
        reactor: Where time comes from.
        endpoint: What leads to the server.
        tls: How to be sure who it is.
        name: What to call it in sentences, such as ``the relay at relay.example``.
    """

    def __init__(
        self, reactor: IReactorTime, endpoint: IStreamClientEndpoint, tls: ClientTls, name: str
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._tls = tls
        self._name = name

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect and shake hands.

        Returns:
            Fires with the protocol, connected, once it is sure who answers. Fails with ``Gone`` and
            a sentence if TLS fails, with ``ConfigError`` if there never was a file that will do, and
            with whatever connecting fails with. What TLS fails with later comes to the protocol's
            ``connectionLost`` as ``Gone`` too. Cancelling drops the attempt.
        """
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        if self._tls.is_loaded:
            await self._tls.look_off_loop(self._reactor)
        else:
            self._tls.load()
        check = _Check(self._tls)
        handshakes = _Handshakes(factory, check, self._name)
        wrapped = TlsFactory(check, True, handshakes, self._reactor)
        outer: Any = await self._endpoint.connect(wrapped)
        handshake: _Handshake = outer.wrappedProtocol
        try:
            return await handshake.done
        finally:
            handshake.leave()


def is_loopback_host(host: str) -> bool:
    """Whether a host is this machine by its very name."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost" or host.lower().endswith(".localhost")


@implementer(IOpenSSLClientConnectionCreator)
class _Check:
    """Makes OpenSSL's part of one connection, and keeps what was wrong with the certificate.

    Attributes:
        fault: The rest of a sentence that begins with the certificate; None if nothing was wrong.
        code: The same for programs: ``certificate_expired``, ``certificate_early``, ``certificate_name``,
            ``certificate_authority``, or ``certificate`` for what is rarer.
    """

    def __init__(self, tls: ClientTls) -> None:
        self._host = tls.host
        self._insecure = tls.insecure
        self._context = tls.content
        self.fault: str | None = None
        self.code = "certificate"

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: N803  # Twisted's names
        connection = SSL.Connection(self._context, None)
        if not _is_address(self._host):
            # Addresses are not allowed here (RFC 6066, 3).
            connection.set_tlsext_host_name(self._host.encode("ascii"))
        if self._insecure:
            connection.set_verify(SSL.VERIFY_NONE, None)
        else:
            connection.set_verify(SSL.VERIFY_PEER, self._verify)
        return connection

    def _verify(
        self, connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, is_good: int
    ) -> bool:
        try:
            shown = certificate.to_cryptography()
            if not is_good:
                self.fault = _fault(shown, error)
                self.code = _code(error)
            elif depth == 0:
                self.fault = self._fault_of_name(shown)
                self.code = "certificate_name"
        except Exception:  # noqa: BLE001  # whatever a parser says; nothing must be raised through OpenSSL
            self.fault = "cannot be read"
        return self.fault is None

    def _fault_of_name(self, certificate: x509.Certificate) -> str | None:
        try:
            if _is_address(self._host):
                verify_certificate_ip_address(certificate, self._host)
            else:
                verify_certificate_hostname(certificate, self._host)
        except (VerificationError, CertificateError):
            names = certificate_names(certificate)
            shown = [name[:LONGEST_NAME] for name in names[:NAMES_SHOWN] if name.isprintable()]
            return f"is for another name: it is for {', '.join(shown) or 'no host at all'}"
        return None


class _Handshakes(Factory):
    """Makes the ``_Handshake`` of a connection; the connection's protocol is made behind it."""

    noisy = False

    def __init__(self, factory: IProtocolFactory, check: _Check, name: str) -> None:
        self._factory = factory
        self._check = check
        self._name = name

    def buildProtocol(self, addr: IAddress | None) -> _Handshake | None:
        protocol = self._factory.buildProtocol(addr)  # type: ignore[arg-type]  # an address, as we were given it
        return None if protocol is None else _Handshake(protocol, self._check, self._name)


@implementer(IHandshakeListener)
class _Handshake(ProtocolSwitch):
    """Waits for the end of the handshake, and hands the connection over."""

    def __init__(self, protocol: IProtocol, check: _Check, name: str) -> None:
        self._protocol = protocol
        self._check = check
        self._name = name
        self._is_over = False
        self.done: Deferred[IProtocol] = Deferred()

    def handshakeCompleted(self) -> None:  # noqa: N802  # Twisted calls us
        """It is who it should be."""
        if self._is_over:
            return
        self._is_over = True
        self.hand_over(self._protocol)
        self.done.callback(self._protocol)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is not, or it went; or, later, the connection has ended."""
        if self._is_over:
            super().connectionLost(self._explain(reason))
            return
        self._is_over = True
        if reason.check(ConnectionDone, ConnectionLost):
            reason = Failure(Gone(f"{self._capital_name} hung up during the TLS handshake.", code="tls"))
        self.done.errback(self._explain(reason))

    def leave(self) -> None:
        """Drop the connection if nobody waits for it any more."""
        if not self._is_over:
            self._is_over = True
            transport: Any = self.transport
            transport.abortConnection()

    def _explain(self, reason: Failure) -> Failure:
        error = reason.value
        if not isinstance(error, SSL.Error):
            return reason
        if self._check.fault is not None:
            sentence = f"The certificate of {self._name} {self._check.fault}."
            return Failure(Gone(sentence, code=self._check.code))
        words = openssl_words(error)
        if "alert" in words and any(word in words for word in ABOUT_US):
            sentence = f"{self._capital_name} does not accept the certificate that it was shown: {words}."
        elif any(word in words for word in NOT_TLS):
            sentence = f"{self._capital_name} does not speak TLS."
        else:
            sentence = f"The TLS handshake with {self._name} failed: {words}."
        return Failure(Gone(sentence, code="tls"))

    @property
    def _capital_name(self) -> str:
        return self._name[:1].upper() + self._name[1:]


def _client_context(
    ca_file: PathLike | None, cert_file: PathLike | None, key_file: PathLike | None
) -> SSL.Context:
    credentials = None if cert_file is None else read_credentials(cert_file, key_file)
    authorities = () if ca_file is None else read_authorities(ca_file)

    def prepare(context: SSL.Context) -> None:
        if not authorities:
            context.set_default_verify_paths()

    return tls_context(credentials, authorities, prepare)


def _fault(certificate: x509.Certificate, error: int) -> str:
    if error == Codes.ERR_CERT_HAS_EXPIRED:
        return f"has expired, on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if error == Codes.ERR_CERT_NOT_YET_VALID:
        start = f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        return f"is not valid before {start}; see whether the clock of this machine is right"
    return FAULTS.get(error, f"cannot be verified (OpenSSL's error {error})")


def _code(error: int) -> str:
    if error == Codes.ERR_CERT_HAS_EXPIRED:
        return "certificate_expired"
    if error == Codes.ERR_CERT_NOT_YET_VALID:
        return "certificate_early"
    is_of_nobody = error == Codes.ERR_DEPTH_ZERO_SELF_SIGNED_CERT or FAULTS.get(error) == UNTRUSTED
    return "certificate_authority" if is_of_nobody else "certificate"


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
