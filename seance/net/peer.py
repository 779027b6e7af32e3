"""The verified certificate of a TLS peer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL
from twisted.internet.interfaces import ISSLTransport

from seance.net.tls_transport import TlsTransport

__all__ = ["PeerCertificate", "certificate_names", "peer_certificate"]


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """The identity in a verified certificate.

    Attributes:
        common_name: The subject's CN; None if there is none, or several.
        dns_names: The DNS names in the subject alternative name.
        uris: The URIs in it, such as ``spiffe://example/agent``.
        fingerprint: SHA-256 of the certificate, in hex; it changes with each renewal.
        expires_at: Unix time.
    """

    common_name: str | None
    dns_names: tuple[str, ...]
    uris: tuple[str, ...]
    fingerprint: str
    expires_at: float

    @property
    def name(self) -> str:
        """The first URI, DNS name or CN, which do not change in a renewal, or else the fingerprint."""
        return next(iter((*self.uris, *self.dns_names, self.common_name or self.fingerprint)))


def peer_certificate(transport: object) -> PeerCertificate | None:
    """Return the peer's certificate after the handshake.

    Args:
        transport: A TLS transport, or a transport above one, such as a carrier.

    Returns:
        None if there is no TLS, or the peer has presented no valid certificate, or certificates are not
        verified.
    """
    certificate = _verified_certificate(transport)
    # A resumed session is not verified again, and the certificate may have expired meanwhile.
    if certificate is None or certificate.not_valid_after_utc <= datetime.now(UTC):
        return None
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    alternatives = _alternatives(certificate)
    return PeerCertificate(
        common_name=str(names[0].value) if len(names) == 1 else None,
        dns_names=tuple(alternatives.get_values_for_type(x509.DNSName)),
        uris=tuple(alternatives.get_values_for_type(x509.UniformResourceIdentifier)),
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        expires_at=certificate.not_valid_after_utc.timestamp(),
    )


def certificate_names(certificate: x509.Certificate) -> list[str]:
    """Return the host names and IP addresses that a certificate is for."""
    alternatives = _alternatives(certificate)
    addresses = alternatives.get_values_for_type(x509.IPAddress)
    return [*alternatives.get_values_for_type(x509.DNSName), *map(str, addresses)]


def _alternatives(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        # ValueError: the parser rejects an extension that OpenSSL has accepted.
        return x509.SubjectAlternativeName([])


def _verified_certificate(transport: object) -> x509.Certificate | None:
    """Return the certificate of a TLS transport or of one below it."""
    layer: Any = transport
    while layer is not None:
        if isinstance(layer, TlsTransport):
            der = layer.getPeerCertificate()
            return None if der is None else x509.load_der_x509_certificate(der)
        if ISSLTransport.providedBy(layer):
            # Twisted's, of an ``ssl:`` endpoint. None after the connection is lost.
            handle = layer.getHandle()  # type: ignore[attr-defined]  # not in the interface, but all providers have it
            if not isinstance(handle, SSL.Connection) or not handle.get_verify_mode() & SSL.VERIFY_PEER:
                return None
            return handle.get_peer_certificate(as_cryptography=True)
        layer = getattr(layer, "transport", None)
    return None
