"""TLS for clients: trusted authorities, a client certificate, and errors that name the fault.

``ClientTls`` holds the settings, ``TlsEndpoint`` connects with them. OpenSSL and service-identity check the
certificate and the name, as in Twisted's ``optionsForClientTLS``. That function however reports every bad
certificate as "certificate verify failed". An agent runs unattended, so its log must name the fault.

The Deferred of ``TlsEndpoint.connect`` fires after the handshake. Used by the agent, for its relay and for
its local server.
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
from seance.net.pem import PathLike, openssl_message, read_authorities, read_credentials, tls_context
from seance.net.protocol_switch import ProtocolSwitch
from seance.net.tls_transport import TlsFactory

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress
    from twisted.protocols.tls import TLSMemoryBIOProtocol

__all__ = ["ClientTls", "TlsEndpoint", "is_loopback_host"]

MAX_NAMES_SHOWN = 5
MAX_NAME_CHARACTERS = 80

Codes = SSL.X509VerificationCodes

UNTRUSTED = "comes from an authority that is not trusted here"

FAULTS = {
    Codes.ERR_DEPTH_ZERO_SELF_SIGNED_CERT: "is self-signed and not in the list of trusted certificates",
    Codes.ERR_SELF_SIGNED_CERT_IN_CHAIN: UNTRUSTED,
    Codes.ERR_UNABLE_TO_GET_ISSUER_CERT: UNTRUSTED,
    Codes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY: UNTRUSTED,
    Codes.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNTRUSTED,
    Codes.ERR_CERT_SIGNATURE_FAILURE: "has an invalid signature",
    Codes.ERR_INVALID_CA: "was issued by a certificate that is not an authority's",
    Codes.ERR_INVALID_PURPOSE: "is not a server certificate",
    66: "has a key that is too short to be safe",
    67: "comes from an authority whose key is too short to be safe",
    68: "is signed with an algorithm that is no longer safe",
}
"""Verification errors of OpenSSL (x509_vfy.h), as text that follows "The certificate of ...". The last three
have no names in pyOpenSSL."""

NOT_TLS = (
    "wrong version number",
    "packet length too long",
    "unknown protocol",
    "http request",
    "unexpected message",
    "record layer failure",
)
"""Parts of OpenSSL's error messages for a response that is not TLS."""

CLIENT_CERTIFICATE_ALERTS = ("unknown ca", "certificate", "access denied")
"""Parts of the alerts with which a server rejects the client certificate, or requires one."""


class ClientTls(WatchedFiles[SSL.Context]):
    """The TLS settings for one server; used with a ``TlsEndpoint``.

    The files are read by ``load`` or for the first connection, and again after they have changed.

    Args:
        host: The host name (ASCII) or IP address that the certificate must be for.
        ca_file: PEM file with the only trusted authorities; None for those of the system.
        cert_file: PEM file with a client certificate, for servers that request one.
        key_file: Its key; None if it is in ``cert_file``.
        insecure: Accept every certificate; allowed for a loopback host only.

    Raises:
        ConfigError: ``insecure`` is set for another machine.
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
            message = (
                f"The certificate of {host} must be checked, because it is another machine; "
                "name its authority instead."
            )
            raise ConfigError(message, code="tls_insecure")
        # A trailing dot means "fully qualified" to a name server; certificates do not have it.
        self.host = host.rstrip(".")
        self.insecure = insecure

        def read() -> SSL.Context:
            return _client_context(ca_file, cert_file, key_file)

        super().__init__([Path(path) for path in (ca_file, cert_file, key_file) if path is not None], read)


@implementer(IStreamClientEndpoint)
class TlsEndpoint:
    """Connects with another endpoint and makes a TLS handshake.

    Args:
        reactor: Provides the time.
        endpoint: Connects to the server.
        tls: The TLS settings.
        name: The server's name in error messages, such as ``the relay at relay.example``.
    """

    def __init__(
        self, reactor: IReactorTime, endpoint: IStreamClientEndpoint, tls: ClientTls, name: str
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._tls = tls
        self._name = name

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect and make the handshake.

        Returns:
            Fires with the connected protocol after the handshake. Fails with ``Gone`` if TLS fails, with
            ``ConfigError`` if the files have never been valid, and with the errors of ``endpoint``. A later
            TLS error is passed to the protocol's ``connectionLost`` as ``Gone``. Cancelling aborts the
            attempt.
        """
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        if self._tls.is_loaded:
            await self._tls.check_in_thread(self._reactor)
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
            handshake.abort_if_pending()


def is_loopback_host(host: str) -> bool:
    """Return whether a host is a loopback address or ``localhost``."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost" or host.lower().endswith(".localhost")


@implementer(IOpenSSLClientConnectionCreator)
class _Check:
    """Creates the OpenSSL connection, and records the fault of the server's certificate.

    Attributes:
        fault: Text that follows "The certificate of ..."; None if the certificate is good.
        code: The same for programs: ``certificate_expired``, ``certificate_early``, ``certificate_name``,
            ``certificate_authority``, or ``certificate`` for other faults.
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
            # Server name indication allows no addresses (RFC 6066, 3).
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
        except Exception:  # noqa: BLE001  # any parser error; nothing may be raised through OpenSSL
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
            shown = [name[:MAX_NAME_CHARACTERS] for name in names[:MAX_NAMES_SHOWN] if name.isprintable()]
            return f"is for another name: it is for {', '.join(shown) or 'no host at all'}"
        return None


class _Handshakes(Factory):
    """Makes the ``_Handshake`` of a connection together with the protocol that follows it."""

    noisy = False

    def __init__(self, factory: IProtocolFactory, check: _Check, name: str) -> None:
        self._factory = factory
        self._check = check
        self._name = name

    def buildProtocol(self, addr: IAddress | None) -> _Handshake | None:
        protocol = self._factory.buildProtocol(addr)  # type: ignore[arg-type]  # passed on unchanged
        return None if protocol is None else _Handshake(protocol, self._check, self._name)


@implementer(IHandshakeListener)
class _Handshake(ProtocolSwitch):
    """Waits for the end of the handshake, then hands the connection over."""

    def __init__(self, protocol: IProtocol, check: _Check, name: str) -> None:
        self._protocol = protocol
        self._check = check
        self._name = name
        self._is_over = False
        self.done: Deferred[IProtocol] = Deferred()

    def handshakeCompleted(self) -> None:  # noqa: N802  # Twisted's name
        """Hand over: the server is authenticated."""
        if self._is_over:
            return
        self._is_over = True
        self.hand_over(self._protocol)
        self.done.callback(self._protocol)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail if the handshake was not over; else report the end of the connection to the protocol."""
        if self._is_over:
            super().connectionLost(self._explain(reason))
            return
        self._is_over = True
        if reason.check(ConnectionDone, ConnectionLost):
            message = f"{self._capital_name} closed the connection during the TLS handshake."
            reason = Failure(Gone(message, code="tls"))
        self.done.errback(self._explain(reason))

    def abort_if_pending(self) -> None:
        """Abort the connection if the handshake is not over; called when the attempt was cancelled."""
        if not self._is_over:
            self._is_over = True
            transport: Any = self.transport
            transport.abortConnection()

    def _explain(self, reason: Failure) -> Failure:
        error = reason.value
        if not isinstance(error, SSL.Error):
            return reason
        if self._check.fault is not None:
            message = f"The certificate of {self._name} {self._check.fault}."
            return Failure(Gone(message, code=self._check.code))
        text = openssl_message(error)
        if "alert" in text and any(part in text for part in CLIENT_CERTIFICATE_ALERTS):
            message = f"{self._capital_name} rejected the client certificate, or requires one: {text}."
        elif any(part in text for part in NOT_TLS):
            message = f"{self._capital_name} does not speak TLS."
        else:
            message = f"The TLS handshake with {self._name} failed: {text}."
        return Failure(Gone(message, code="tls"))

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
        return f"is not valid before {start}; check the clock of this machine"
    return FAULTS.get(error, f"cannot be verified (OpenSSL error {error})")


def _code(error: int) -> str:
    if error == Codes.ERR_CERT_HAS_EXPIRED:
        return "certificate_expired"
    if error == Codes.ERR_CERT_NOT_YET_VALID:
        return "certificate_early"
    is_untrusted = error == Codes.ERR_DEPTH_ZERO_SELF_SIGNED_CERT or FAULTS.get(error) == UNTRUSTED
    return "certificate_authority" if is_untrusted else "certificate"


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
