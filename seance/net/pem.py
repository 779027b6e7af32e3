"""Read certificates and keys from PEM files, with a clear error message for each fault.

This checks only whether a file contains what it should, so that a mistake is found when a relay starts and
not when the first client connects. OpenSSL decides during the handshake whether a peer's certificate is
trusted. Used by ``server_tls`` and ``client_tls``.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from seance.errors import ConfigError
from seance.net.file_reads import read_bounded
from seance.net.tls_connection import tls_message

__all__ = [
    "Credentials",
    "PathLike",
    "load_authorities",
    "load_credentials",
    "read_authorities",
    "read_credentials",
    "unusable",
]

PathLike = str | os.PathLike[str]

MAX_FILE_BYTES = 1024 * 1024
"""The authority bundles of operating systems have about 250 KiB."""

SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where the authorities are on Debian, Fedora, openSUSE, CentOS, and on Alpine, macOS and the BSDs."""

PRIVATE_KEY = re.compile(
    rb"-----BEGIN (?P<kind>(?:[A-Z0-9]+ )?PRIVATE KEY)-----.+?-----END (?P=kind)-----", re.DOTALL
)

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
"""The kinds of keys that TLS certificates have."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A certificate chain and its private key.

    Attributes:
        chain: The certificate, followed by the intermediate certificates.
        key: The private key of the first certificate.
        path: The file of the certificate, for error messages.
    """

    chain: tuple[x509.Certificate, ...]
    key: PrivateKey
    path: Path

    def pem(self) -> bytes:
        """Return the chain and the key in PEM format, the key without a passphrase."""
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in self.chain) + key


def read_credentials(cert_file: PathLike, key_file: PathLike | None = None) -> Credentials:
    """Read a certificate chain and its key.

    Args:
        cert_file: The certificate, followed by the intermediate certificates.
        key_file: The key; None if it is in ``cert_file``.

    Raises:
        ConfigError: A file cannot be read or has other content, or the key does not match the certificate.
    """
    path = Path(cert_file)
    chain = _certificates(path, "certificate")
    key_path = path if key_file is None else Path(key_file)
    key = _key(key_path, is_apart=key_file is not None)
    if key.public_key() != chain[0].public_key():
        message = f"The key in {key_path} does not belong to the first certificate in {path}."
        raise ConfigError(message, code="tls_file")
    return Credentials(chain, key, path)


def read_authorities(ca_file: PathLike) -> tuple[x509.Certificate, ...]:
    """Read the certificates of one or more authorities.

    Raises:
        ConfigError: The file cannot be read or has other content.
    """
    return _certificates(Path(ca_file), "authority")


def load_authorities(context: ssl.SSLContext, ca_file: PathLike | None) -> None:
    """Let a context trust the authorities in a file, or those of the system for None.

    Raises:
        ConfigError: The file cannot be read or has other content.
    """
    if ca_file is not None:
        authorities = read_authorities(ca_file)
        context.load_verify_locations(cadata=b"".join(one.public_bytes(Encoding.DER) for one in authorities))
        return
    context.set_default_verify_paths()
    paths = ssl.get_default_verify_paths()
    if paths.cafile is None and not (paths.capath and os.listdir(paths.capath)):
        # Python was built for another system, as portable builds are.
        for bundle in SYSTEM_BUNDLES:
            if os.path.exists(bundle):
                context.load_verify_locations(bundle)
                return


def load_credentials(context: ssl.SSLContext, credentials: Credentials) -> None:
    """Let connections of a context present a certificate.

    Raises:
        ConfigError: OpenSSL rejects the certificate, for example because its key is too short.
    """
    with _in_file(credentials.pem()) as path:
        try:
            context.load_cert_chain(path)
        except ssl.SSLError as error:
            raise unusable(credentials, error) from error


def unusable(credentials: Credentials, error: Exception) -> ConfigError:
    """Return the error for a certificate that OpenSSL rejects."""
    message = f"The certificate in {credentials.path} cannot be used: {tls_message(error)}."
    return ConfigError(message, code="tls_file")


@contextmanager
def _in_file(content: bytes) -> Iterator[str]:
    """Write ``content`` to a file for ``ssl``, which reads keys from files only.

    The user's own files are not read again, because they may have changed since they were checked, and a pipe
    can be read only once. On Linux the file is in memory.
    """
    file: Any
    try:
        file = open(os.memfd_create("credentials"), "wb")  # noqa: SIM115  # closed below
        path = f"/proc/self/fd/{file.fileno()}"
        if not os.path.exists(path):  # /proc is not mounted
            file.close()
            raise FileNotFoundError(path)
    except (AttributeError, OSError):  # another system, or forbidden
        file = NamedTemporaryFile()  # noqa: SIM115  # as above; only its owner can read it
        path = file.name
    with file:
        file.write(content)
        file.flush()
        yield path


def _certificates(path: Path, what: str) -> tuple[x509.Certificate, ...]:
    try:
        return tuple(x509.load_pem_x509_certificates(_content(path, what)))
    except ValueError as error:
        message = f"The {what} file {path} contains no certificate in PEM format."
        raise ConfigError(message, code="tls_file") from error


def _key(path: Path, *, is_apart: bool) -> PrivateKey:
    found = PRIVATE_KEY.search(_content(path, "key"))
    if found is None:
        hint = "" if is_apart else "; name the file of the key too"
        raise ConfigError(f"The file {path} contains no private key in PEM format{hint}.", code="tls_file")
    try:
        key = load_pem_private_key(found[0], None)
    except TypeError as error:
        message = f"The key in {path} has a passphrase; remove it and make the file readable by its owner."
        raise ConfigError(message, code="tls_file") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"The private key in {path} cannot be read.", code="tls_file") from error
    if not isinstance(key, PrivateKey):
        message = f"The private key in {path} is not an RSA, EC or Ed25519 key, which TLS requires."
        raise ConfigError(message, code="tls_file")
    return key


def _content(path: Path, what: str) -> bytes:
    try:
        return read_bounded(path, MAX_FILE_BYTES)[0]
    except OSError as error:
        message = f"The {what} file {path} cannot be read ({error.strerror})."
        raise ConfigError(message, code="tls_file") from error
    except ValueError as error:
        raise ConfigError(f"The {what} file {path} {error}.", code="tls_file") from error
