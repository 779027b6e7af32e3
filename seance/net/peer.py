"""Who is at the other end of a TLS connection, as far as a certificate proves it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL
from twisted.internet.interfaces import ISSLTransport

__all__ = ["PeerCertificate", "certificate_names", "peer_certificate"]


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """What a verified certificate says about its holder.

    Attributes:
        common_name: The subject's CN; None if it has none, or several.
        dns_names: The DNS names among its alternative names.
        uris: The URIs among them, such as ``spiffe://example/agent``.
        fingerprint: SHA-256 of the certificate, in hex; another one after each renewal.
        expires_at: Unix seconds.
    """

    common_name: str | None
    dns_names: tuple[str, ...]
    uris: tuple[str, ...]
    fingerprint: str
    expires_at: float

    @property
    def name(self) -> str:
        """What to know the holder by: what stays the same when the certificate is renewed, if anything."""
        return next(iter((*self.uris, *self.dns_names, self.common_name or self.fingerprint)))


def peer_certificate(transport: object) -> PeerCertificate | None:
    """Return the certificate that the other end has shown, once its handshake is over.

    Args:
        transport: A TLS transport, or something above one, such as a carrier.

    Returns:
        None if there is no TLS, the other end has shown none, or none was verified.
    """
    connection = _connection(transport)
    if connection is None or not connection.get_verify_mode() & SSL.VERIFY_PEER:
        return None
    certificate = connection.get_peer_certificate(as_cryptography=True)
    if certificate is None:
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
    """Return the hosts that a certificate is for, names and addresses."""
    alternatives = _alternatives(certificate)
    addresses = alternatives.get_values_for_type(x509.IPAddress)
    return [*alternatives.get_values_for_type(x509.DNSName), *map(str, addresses)]


def _alternatives(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        # ValueError: what the peer sent makes no sense to the parser, though OpenSSL let it pass.
        return x509.SubjectAlternativeName([])


def _connection(transport: object) -> SSL.Connection | None:
    """Find OpenSSL's part of a connection, which may be some layers down."""
    layer: Any = transport
    while layer is not None:
        if ISSLTransport.providedBy(layer):
            handle = layer.getHandle()  # type: ignore[attr-defined]  # the interface lacks it, all who provide it do not
            # None once the connection is lost.
            return handle if isinstance(handle, SSL.Connection) else None
        layer = getattr(layer, "transport", None)
    return None
