"""Read certificates and keys from PEM files, with a clear error message for each fault.

This checks only whether a file contains what it should, so that a mistake is found when a relay starts and
not when the first client connects. OpenSSL decides during the handshake whether a peer's certificate is
trusted. Used by ``server_tls`` and ``client_tls``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto

from seance.errors import ConfigError
from seance.net.file_reads import read_bounded

__all__ = [
    "Credentials",
    "PathLike",
    "openssl_message",
    "read_authorities",
    "read_credentials",
    "tls_context",
]

PathLike = str | os.PathLike[str]

MAX_FILE_BYTES = 1024 * 1024
"""The authority bundles of operating systems have about 250 KiB."""

CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: only authenticated encryption with forward secrecy, which every client since 2015 supports.
TLS 1.3 has no other ciphers."""

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


def tls_context(
    credentials: Credentials | None,
    authorities: Iterable[x509.Certificate],
    prepare: Callable[[SSL.Context], None],
) -> SSL.Context:
    """Return a context with the settings that clients and servers share: versions, ciphers, certificates.

    Args:
        credentials: The own certificate; None for none.
        authorities: The trusted authorities; those of the system are not added.
        prepare: Applies the settings of one side.

    Raises:
        ConfigError: OpenSSL rejects the certificate, for example because its key is too short.
    """
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    # Renegotiation costs a server more than a client, and TLS 1.3 has removed it. Compression reveals
    # information about the compressed data (CRIME).
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    # Saves 34 KiB per idle connection.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    if credentials is not None:
        try:
            context.use_certificate(credentials.chain[0])
            context.use_privatekey(credentials.key)
            for certificate in credentials.chain[1:]:
                context.add_extra_chain_cert(certificate)
        except (SSL.Error, crypto.Error) as error:
            message = f"The certificate in {credentials.path} cannot be used: {openssl_message(error)}."
            raise ConfigError(message, code="tls_file") from error
    store = context.get_cert_store()
    assert store is not None, "a new context has a store"
    for certificate in authorities:
        store.add_cert(crypto.X509.from_cryptography(certificate))
    prepare(context)
    # This is the last step, because some releases of pyOpenSSL create a connection to test the list. After
    # that the context cannot be changed.
    context.set_cipher_list(CIPHERS)
    return context


def openssl_message(error: BaseException) -> str:
    """Return the message of an OpenSSL error, which is a list of triples that end in a text."""
    last = error.args[-1] if error.args else ""
    texts: Iterable[str] = (str(triple[-1]) for triple in last) if isinstance(last, list) else [str(last)]
    return ", ".join(text for text in texts if text) or "OpenSSL gives no reason"


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
