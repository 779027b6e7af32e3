"""Certificates and keys as people keep them: PEM files, read with a sentence for every way to be wrong.

Not a trust decision: whether somebody's certificate is good is OpenSSL's to say, during a handshake.
Here is only found out whether a file holds what it should, so that a mistake shows when a relay
starts and not when its first client comes. Used by ``server_tls`` and ``client_tls``.
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
    "openssl_words",
    "read_authorities",
    "read_credentials",
    "tls_context",
]

PathLike = str | os.PathLike[str]

LONGEST_FILE_BYTES = 1024 * 1024
"""The bundles of authorities that systems ship have about 250 KiB."""

CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: authenticated encryption with forward secrecy and nothing else, which every client since
2015 has. TLS 1.3 has no other."""

PRIVATE_KEY = re.compile(
    rb"-----BEGIN (?P<kind>(?:[A-Z0-9]+ )?PRIVATE KEY)-----.+?-----END (?P=kind)-----", re.DOTALL
)

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
"""The kinds of keys that certificates for TLS have."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A certificate and the key that belongs to it.

    Attributes:
        chain: The certificate first, then those that lead to the authority.
        key: The private key of the first.
        path: Where the certificate was, for sentences.
    """

    chain: tuple[x509.Certificate, ...]
    key: PrivateKey
    path: Path


def read_credentials(cert_file: PathLike, key_file: PathLike | None = None) -> Credentials:
    """Read a certificate chain and its key.

    Args:
        cert_file: The certificate, and behind it those that lead to the authority.
        key_file: The key; the certificate's file holds it too if this is None.

    Raises:
        ConfigError: A file cannot be read, holds something else, or key and certificate do not fit.
    """
    path = Path(cert_file)
    chain = _certificates(path, "certificate")
    key_path = path if key_file is None else Path(key_file)
    key = _key(key_path, is_apart=key_file is not None)
    if key.public_key() != chain[0].public_key():
        sentence = f"The key in {key_path} does not belong to the first certificate in {path}."
        raise ConfigError(sentence, code="tls_file")
    return Credentials(chain, key, path)


def read_authorities(ca_file: PathLike) -> tuple[x509.Certificate, ...]:
    """Read the certificates of one or more authorities.

    Raises:
        ConfigError: The file cannot be read or holds something else.
    """
    return _certificates(Path(ca_file), "authority")


def tls_context(
    credentials: Credentials | None,
    authorities: Iterable[x509.Certificate],
    prepare: Callable[[SSL.Context], None],
) -> SSL.Context:
    """Make what both sides of TLS have in common: versions, ciphers, certificates.

    Args:
        credentials: What to show; None for nothing.
        authorities: Whom to believe; none of the system's are added.
        prepare: Does what one side alone needs.

    Raises:
        ConfigError: OpenSSL does not take the certificate, say because its key is too short.
    """
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    # Renegotiation makes the peer pay little and us much, and TLS 1.3 has done away with it;
    # compression tells an eavesdropper about what is compressed (CRIME).
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    # 34 KiB less for every connection that is silent.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    if credentials is not None:
        try:
            context.use_certificate(credentials.chain[0])
            context.use_privatekey(credentials.key)
            for certificate in credentials.chain[1:]:
                context.add_extra_chain_cert(certificate)
        except (SSL.Error, crypto.Error) as error:
            sentence = f"The certificate in {credentials.path} cannot be used: {openssl_words(error)}."
            raise ConfigError(sentence, code="tls_file") from error
    store = context.get_cert_store()
    assert store is not None, "a context that OpenSSL has made has a store"
    for certificate in authorities:
        store.add_cert(crypto.X509.from_cryptography(certificate))
    prepare(context)
    # Last: some releases of pyOpenSSL try the list out on a connection, and a context that has made
    # one cannot be changed any more.
    context.set_cipher_list(CIPHERS)
    return context


def openssl_words(error: BaseException) -> str:
    """Say what OpenSSL says: its errors are lists of triples, of which the last of each is a text."""
    last = error.args[-1] if error.args else ""
    texts: Iterable[str] = (str(triple[-1]) for triple in last) if isinstance(last, list) else [str(last)]
    return ", ".join(text for text in texts if text) or "OpenSSL gives no reason"


def _certificates(path: Path, what: str) -> tuple[x509.Certificate, ...]:
    try:
        return tuple(x509.load_pem_x509_certificates(_content(path, what)))
    except ValueError as error:
        sentence = f"The {what} file {path} holds no certificate in PEM form."
        raise ConfigError(sentence, code="tls_file") from error


def _key(path: Path, *, is_apart: bool) -> PrivateKey:
    found = PRIVATE_KEY.search(_content(path, "key"))
    if found is None:
        hint = "" if is_apart else "; name the file of the key too"
        raise ConfigError(f"The file {path} holds no private key in PEM form{hint}.", code="tls_file")
    try:
        key = load_pem_private_key(found[0], None)
    except TypeError as error:
        sentence = f"The key in {path} is locked with a passphrase; keep it without one, for its owner alone."
        raise ConfigError(sentence, code="tls_file") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"The private key in {path} cannot be read.", code="tls_file") from error
    if not isinstance(key, PrivateKey):
        sentence = f"The private key in {path} is of a kind that TLS does not use; RSA, EC and Ed25519 are."
        raise ConfigError(sentence, code="tls_file")
    return key


def _content(path: Path, what: str) -> bytes:
    try:
        return read_bounded(path, LONGEST_FILE_BYTES)[0]
    except OSError as error:
        sentence = f"The {what} file {path} cannot be read ({error.strerror})."
        raise ConfigError(sentence, code="tls_file") from error
    except ValueError as error:
        raise ConfigError(f"The {what} file {path} {error}.", code="tls_file") from error
