"""OpenSSL's part of one TLS connection: bytes in, bytes out.

``TlsConnection`` uses the standard library's ``ssl``. Encrypting and decrypting a message of 66 bytes takes
2.2 us with it. With pyOpenSSL it takes 8 us, and 15 us if each loop ends with an exception. ``TlsTransport``
connects either class to Twisted.

``RequestingConnection`` uses pyOpenSSL. It is for servers that request client certificates, because ``ssl``
cannot send the list of accepted authorities. Without that list, a browser offers its user all certificates.
"""

from __future__ import annotations

import re
import ssl
from typing import Any, Final, Protocol

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

__all__ = [
    "CIPHERS",
    "MAX_RECORD_BYTES",
    "AnyTlsConnection",
    "RequestingConnection",
    "TlsConnection",
    "tls_context",
    "tls_message",
]

CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"
"""For TLS 1.2: only authenticated encryption with forward secrecy, which every client since 2015 supports.
TLS 1.3 has no other ciphers. Level 2 is the default of newer versions of OpenSSL: it rejects RSA keys below
2048 bits, and SHA-1."""

MAX_RECORD_BYTES: Final = 16 * 1024
"""Maximum length of the data in one record (RFC 8446, 5.1)."""


class ReceivedBytes(Protocol):
    """The bytes from the network; ``pending`` is 0 if OpenSSL has taken all of them."""

    @property
    def pending(self) -> int: ...  # see the class

    def write(self, data: bytes | memoryview, /) -> int: ...  # as in ssl.MemoryBIO


class BytesToSend(Protocol):
    """The bytes for the network; ``pending`` is 0 if there are none."""

    @property
    def pending(self) -> int: ...  # see the class

    def read(self) -> bytes: ...  # as in ssl.MemoryBIO


class AnyTlsConnection(Protocol):
    """A TLS connection in memory.

    The methods raise ``ssl.SSLWantReadError`` if OpenSSL needs more received bytes, and ``ssl.SSLError`` if
    TLS has failed. In both cases there may be bytes to send.
    """

    @property
    def received(self) -> ReceivedBytes:
        """Takes the bytes from the network."""

    @property
    def to_send(self) -> BytesToSend:
        """Has the bytes for the network."""

    def do_handshake(self) -> None:
        """Continue the handshake; return at its end."""

    def read(self, length: int, /) -> bytes:
        """Return the data of the next record; b"" after the peer's ``close_notify``."""

    def write(self, data: bytes | memoryview, /) -> int:
        """Encrypt one record; return the number of bytes taken."""

    def unwrap(self) -> object:
        """Encrypt ``close_notify``. All received data must have been read."""

    def verified_certificate(self) -> bytes | None:
        """Return the peer's certificate (DER); None if it has none, or if certificates are not verified."""


class TlsConnection:
    """A TLS connection with the standard library's ``ssl``.

    Args:
        context: The settings.
        host: Host name or IP address of the server; None if this side is the server.
        session: A session of the same context, to resume it.
    """

    def __init__(
        self, context: ssl.SSLContext, host: str | None = None, session: ssl.SSLSession | None = None
    ) -> None:
        self.received, self.to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.received, self.to_send, server_side=host is None, server_hostname=host, session=session
        )
        # Bound here, because a method of this class would be one more call per message.
        self.do_handshake = self.tls.do_handshake
        self.read = self.tls.read
        self.write = self.tls.write
        self.unwrap = self.tls.unwrap

    def verified_certificate(self) -> bytes | None:
        """Return the peer's certificate (DER); None if it has none, or if certificates are not verified."""
        return None if self.tls.context.verify_mode == ssl.CERT_NONE else self.tls.getpeercert(True)

    def unverified_chain(self) -> list[bytes]:
        """Return the peer's certificates (DER) after a failed verification, for an error message.

        The list is empty if there are none, or with an OpenSSL before 3.0.
        """
        if hasattr(self.tls, "get_unverified_chain"):  # Python 3.13
            return list(self.tls.get_unverified_chain())
        chain = self.tls._sslobj.get_unverified_chain() or []  # type: ignore[attr-defined]  # private before 3.13
        return [ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in chain]


class RequestingConnection:
    """A TLS connection of a server that requests client certificates, with pyOpenSSL.

    Args:
        context: The settings.
    """

    def __init__(self, context: SSL.Context) -> None:
        self._connection = SSL.Connection(context, None)
        self._connection.set_accept_state()
        self.received = _Received(self._connection)
        self.to_send = _ToSend(self._connection)

    def do_handshake(self) -> None:
        """Continue the handshake; return at its end."""
        self._call(self._connection.do_handshake)

    def read(self, length: int, /) -> bytes:
        """Return the data of the next record; b"" after the peer's ``close_notify``."""
        try:
            return bytes(self._call(self._connection.recv, length))
        except ssl.SSLZeroReturnError:
            return b""

    def write(self, data: bytes | memoryview, /) -> int:
        """Encrypt one record; return the number of bytes taken."""
        return int(self._call(self._connection.send, data[:MAX_RECORD_BYTES]))

    def unwrap(self) -> None:
        """Encrypt ``close_notify``."""
        self._call(self._connection.shutdown)

    def verified_certificate(self) -> bytes | None:
        """Return the peer's certificate (DER); None if it has none."""
        certificate = self._connection.get_peer_certificate(as_cryptography=True)
        return None if certificate is None else certificate.public_bytes(Encoding.DER)

    def _call(self, method: Any, *args: Any) -> Any:  # noqa: ANN401  # several methods of pyOpenSSL
        try:
            return method(*args)
        except SSL.WantReadError:
            self.received.pending = 0
            raise ssl.SSLWantReadError from None
        except SSL.ZeroReturnError:
            raise ssl.SSLZeroReturnError from None
        except SSL.Error as error:
            raise ssl.SSLError(1, tls_message(error)) from error


class _Received:
    def __init__(self, connection: SSL.Connection) -> None:
        self._connection = connection
        self.pending = 0

    def write(self, data: bytes | memoryview, /) -> int:
        self.pending = 1  # until OpenSSL needs more
        return self._connection.bio_write(bytes(data)) if data else 0


class _ToSend:
    pending = 1  # unknown to pyOpenSSL

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection = connection

    def read(self) -> bytes:
        pieces = []
        try:
            while True:
                pieces.append(self._connection.bio_read(2 * MAX_RECORD_BYTES))
        except SSL.WantReadError:
            return b"".join(pieces)


def tls_context(*, is_server: bool) -> ssl.SSLContext:
    """Return a context with the settings that servers and clients share."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Renegotiation costs a server more than a client, and TLS 1.3 has removed it. Compression reveals
    # information about the compressed data (CRIME).
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    # The client's first cipher is the fastest on its processor. Browsers and Go prefer AES-128 to AES-256,
    # which is the first in OpenSSL's list.
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(CIPHERS)
    return context


def tls_message(error: BaseException) -> str:
    """Return the message of an error of ``ssl`` or pyOpenSSL, without the names and numbers around it.

    One of ``ssl`` is ``[SSL: EE_KEY_TOO_SMALL] ee key too small (_ssl.c:3895)``, for example. Those of
    pyOpenSSL are a list of triples that end in a text.
    """
    last = error.args[-1] if error.args else ""
    texts = [str(triple[-1]) for triple in last] if isinstance(last, list) else [str(last)]
    text = ", ".join(text for text in texts if text)
    return re.sub(r"^\[.*?\] | \(_ssl\.c:\d+\)$", "", text) or "OpenSSL gives no reason"
