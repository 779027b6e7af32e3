"""TLS for clients: trusted authorities, a client certificate, and errors that name the fault.

``ClientTls`` holds the settings, ``TlsEndpoint`` connects with them. OpenSSL checks the certificate and the
name during the handshake, but its error has neither the names nor the dates of the certificate. An agent runs
unattended, so its log must name the fault.

A ``ClientTls`` resumes the session of its last connection, which saves both sides the certificate and its
signatures. OpenSSL does not verify a resumed session again, so a session is used only with the settings and
files with which it was verified, and for a limited time.

The Deferred of ``TlsEndpoint.connect`` fires after the handshake. Used by the agent, for its relay and for
its local server.
"""

from __future__ import annotations

import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IHandshakeListener,
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
from seance.net.pem import PathLike, load_authorities, load_credentials, read_credentials
from seance.net.protocol_switch import ProtocolSwitch
from seance.net.tls_connection import TlsConnection, tls_context, tls_message
from seance.net.tls_transport import TlsFactory

__all__ = ["ClientTls", "TlsEndpoint", "is_loopback_host"]

MAX_NAMES_SHOWN = 5
MAX_NAME_CHARACTERS = 80

RESUME_SECONDS = 3600.0
"""Maximum time for which sessions are resumed after a certificate was verified."""

EARLY, EXPIRED, SELF_SIGNED = 9, 10, 18
OTHER_NAME = (62, 64)

UNTRUSTED = "comes from an authority that is not trusted here"

FAULTS = {
    SELF_SIGNED: "is self-signed and not in the list of trusted certificates",
    19: UNTRUSTED,  # self-signed certificate in the chain
    2: UNTRUSTED,  # no issuer
    20: UNTRUSTED,  # no local issuer
    21: UNTRUSTED,  # no signature of the first certificate
    7: "has an invalid signature",
    24: "was issued by a certificate that is not an authority's",
    79: "was issued by a certificate that is not an authority's",
    26: "is not a server certificate",
    66: "has a key that is too short to be safe",
    67: "comes from an authority whose key is too short to be safe",
    68: "is signed with an algorithm that is no longer safe",
}
"""Verification errors of OpenSSL (x509_vfy.h), as text that follows "The certificate of ..."."""

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


@dataclass(frozen=True, slots=True)
class _Session:
    """A session to resume, and the monotonic time until which it may be."""

    session: ssl.SSLSession
    context: ssl.SSLContext
    usable_until: float


class ClientTls(WatchedFiles[ssl.SSLContext]):
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
        self._session: _Session | None = None

        def read() -> ssl.SSLContext:
            return _client_context(ca_file, cert_file, key_file, is_checked=not insecure)

        super().__init__([Path(path) for path in (ca_file, cert_file, key_file) if path is not None], read)

    def make_connection(self) -> TlsConnection:
        """Return OpenSSL's part of one connection; it resumes the session of an earlier one if it can."""
        last = self._session
        if last is None or last.context is not self.content or time.monotonic() >= last.usable_until:
            self._session = last = None  # changed files have made a new context
        return TlsConnection(self.content, self.host, None if last is None else last.session)

    def keep_session(self, connection: TlsConnection) -> None:
        """Keep the session of a connection that has received data after the handshake, in place of the last.

        With TLS 1.3 the server sends its ticket after the handshake.
        """
        tls = connection.tls
        session = tls.session
        if session is None or tls.context is not self.content:
            return
        if not tls.session_reused:
            usable_until = time.monotonic() + RESUME_SECONDS
        elif self._session is not None:
            usable_until = self._session.usable_until
        else:
            return
        self._session = _Session(session, tls.context, usable_until)


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
        handshakes = _Handshakes(factory, self._tls, self._name)
        wrapped = TlsFactory(self._tls.make_connection, handshakes, self._reactor)
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


class _Handshakes(Factory):
    """Makes the ``_Handshake`` of a connection together with the protocol that follows it."""

    noisy = False

    def __init__(self, factory: IProtocolFactory, tls: ClientTls, name: str) -> None:
        self._factory = factory
        self._tls = tls
        self._name = name

    def buildProtocol(self, addr: IAddress | None) -> _Handshake | None:
        protocol = self._factory.buildProtocol(addr)  # type: ignore[arg-type]  # passed on unchanged
        return None if protocol is None else _Handshake(protocol, self._tls, self._name)


@implementer(IHandshakeListener)
class _Handshake(ProtocolSwitch):
    """Waits for the end of the handshake, then hands the connection over."""

    def __init__(self, protocol: IProtocol, tls: ClientTls, name: str) -> None:
        self._protocol = protocol
        self._tls = tls
        self._name = name
        self._is_over = False
        self.done: Deferred[IProtocol] = Deferred()

    def handshakeCompleted(self) -> None:  # noqa: N802  # Twisted's name
        """Hand over: the server is authenticated."""
        if self._is_over:
            return
        self._is_over = True
        self.hand_over(self._protocol)
        receive = self.dataReceived

        def receive_first(data: bytes) -> None:
            self.dataReceived = receive  # type: ignore[method-assign]  # without a call in between
            self._tls.keep_session(self._connection())
            receive(data)

        self.dataReceived = receive_first  # type: ignore[method-assign]  # as above
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
        if not isinstance(error, ssl.SSLError):
            return reason
        if isinstance(error, ssl.SSLCertVerificationError):
            fault = _fault(error.verify_code, self._connection().unverified_chain())
            message = f"The certificate of {self._name} {fault}."
            return Failure(Gone(message, code=_code(error.verify_code)))
        text = tls_message(error)
        if "alert" in text and any(part in text for part in CLIENT_CERTIFICATE_ALERTS):
            message = f"{self._capital_name} rejected the client certificate, or requires one: {text}."
        elif any(part in text for part in NOT_TLS):
            message = f"{self._capital_name} does not speak TLS."
        else:
            message = f"The TLS handshake with {self._name} failed: {text}."
        return Failure(Gone(message, code="tls"))

    def _connection(self) -> TlsConnection:
        transport: Any = self.transport
        connection: TlsConnection = transport.getHandle()
        return connection

    @property
    def _capital_name(self) -> str:
        return self._name[:1].upper() + self._name[1:]


def _client_context(
    ca_file: PathLike | None, cert_file: PathLike | None, key_file: PathLike | None, *, is_checked: bool
) -> ssl.SSLContext:
    context = tls_context(is_server=False)
    if is_checked:
        context.hostname_checks_common_name = False
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cert_file is not None:
        load_credentials(context, read_credentials(cert_file, key_file))
    load_authorities(context, ca_file)
    return context


def _fault(error: int, chain: list[bytes]) -> str:
    """Return the text that follows "The certificate of ..." for an error of OpenSSL."""
    certificates = []
    with suppress(ValueError):  # the parser rejects a certificate that OpenSSL has parsed
        certificates = [x509.load_der_x509_certificate(der) for der in chain]
    now = datetime.now(UTC)
    if error == EXPIRED:
        ends = [one.not_valid_after_utc for one in certificates if one.not_valid_after_utc < now]
        return "has expired" + (f", on {ends[0]:%Y-%m-%d %H:%M} UTC" if ends else "")
    if error == EARLY:
        starts = [one.not_valid_before_utc for one in certificates if one.not_valid_before_utc > now]
        start = f"before {starts[0]:%Y-%m-%d %H:%M} UTC" if starts else "yet"
        return f"is not valid {start}; check the clock of this machine"
    if error in OTHER_NAME:
        names = certificate_names(certificates[0]) if certificates else []
        shown = [name[:MAX_NAME_CHARACTERS] for name in names[:MAX_NAMES_SHOWN] if name.isprintable()]
        return f"is for another name: it is for {', '.join(shown) or 'no host at all'}"
    return FAULTS.get(error, f"cannot be verified (OpenSSL error {error})")


def _code(error: int) -> str:
    """Return the code of a fault for programs."""
    codes = {EXPIRED: "certificate_expired", EARLY: "certificate_early", SELF_SIGNED: "certificate_authority"}
    if error in OTHER_NAME:
        return "certificate_name"
    return codes.get(error, "certificate_authority" if FAULTS.get(error) == UNTRUSTED else "certificate")
