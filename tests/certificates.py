"""Certificates for tests: made on demand, valid for an hour, trusted only by the test.

``Authority`` issues certificates and stores them as PEM files, valid ones and invalid ones of every kind.
``make_certificate`` makes a single certificate that is its own authority.
"""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from twisted.internet.ssl import PrivateCertificate

__all__ = ["Authority", "CertificateFiles", "make_certificate"]

HOUR = datetime.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """The files of a certificate: its chain, its key, and both in one file."""

    chain: Path
    key: Path
    both: Path
    certificate: x509.Certificate


class Authority:
    """A certificate authority; ``file`` is its own certificate, for verification.

    Args:
        folder: Folder for the files.
        name: Its name, also for its file.
        parent: The authority that signs its certificate; None for a self-signed one.
    """

    def __init__(self, folder: Path, name: str = "authority", parent: Authority | None = None) -> None:
        self._folder = folder
        self._parent = parent
        self.key: Any = ec.generate_private_key(ec.SECP256R1())
        issuer = self if parent is None else parent
        self.name = _name(name)
        self.certificate = (
            _builder(self.name, issuer.name, self.key.public_key(), -HOUR, HOUR)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(issuer.key, hashes.SHA256())
        )
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(_pem(self.certificate))

    def issue(
        self,
        *names: str,
        subject: str = "a test",
        file: str = "server",
        valid: tuple[datetime.timedelta, datetime.timedelta] = (-HOUR, HOUR),
        for_servers: bool | None = None,
        key: Any = None,
    ) -> CertificateFiles:
        """Issue a certificate for hosts, addresses or URIs.

        Args:
            names: Subject alternative names.
            subject: Its CN.
            file: Prefix of its files; existing ones are overwritten.
            valid: Start and end of its validity, relative to now.
            for_servers: True for servers only, False for clients only, None for both.
            key: A given private key; None for a new one.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(subject), self.name, key.public_key(), *valid)
        if names:
            general = [_general_name(name) for name in names]
            builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
        if for_servers is not None:
            usage = ExtendedKeyUsageOID.SERVER_AUTH if for_servers else ExtendedKeyUsageOID.CLIENT_AUTH
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        chain = _pem(certificate) + (b"" if self._parent is None else _pem(self.certificate))
        return self._put(file, certificate, chain, key)

    def self_signed(self, *names: str, file: str = "server") -> CertificateFiles:
        """Make a self-signed certificate; this authority only stores its files."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("self-signed")
        general = x509.SubjectAlternativeName([_general_name(one) for one in names])
        certificate = (
            _builder(name, name, key.public_key(), -HOUR, HOUR)
            .add_extension(general, critical=False)
            .sign(key, hashes.SHA256())
        )
        return self._put(file, certificate, _pem(certificate), key)

    def _put(self, file: str, certificate: x509.Certificate, chain: bytes, key: Any) -> CertificateFiles:
        paths = [self._folder / f"{file}-{part}.pem" for part in ("chain", "key", "both")]
        for path, content in zip(paths, (chain, _key_pem(key), chain + _key_pem(key)), strict=True):
            path.write_bytes(content)
        return CertificateFiles(paths[0], paths[1], paths[2], certificate)


def make_certificate(*names: str) -> PrivateCertificate:
    """Make a self-signed certificate for host names and IP addresses; it is its own trust root."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name("a test")
    certificate = (
        _builder(subject, subject, key.public_key(), -HOUR, HOUR)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    made: PrivateCertificate = PrivateCertificate.loadPEM(_pem(certificate) + _key_pem(key))
    return made


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Any, start: datetime.timedelta, end: datetime.timedelta
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + start)
        .not_valid_after(now + end)
    )


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: Any) -> bytes:
    text: bytes = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return text


def _general_name(name: str) -> x509.GeneralName:
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
