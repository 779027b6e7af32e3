"""Fetches key sets from real servers, good and bad, over TCP and TLS on loopback."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Callable
from functools import cache
from ipaddress import ip_address
from typing import Any

import pytest
import pytest_twisted
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet import reactor
from twisted.internet import ssl as twisted_ssl
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.web._newclient import ResponseNeverReceived
from twisted.web.client import BrowserLikePolicyForHTTPS
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from seance.auth.fetch import MAX_KEY_SET_BYTES, KeySetUrl, _Body
from seance.errors import ConfigError

# Twisted passes the certificates of a server to pyOpenSSL in a deprecated form.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

BODY = b'{"keys": []}'


class Answers(Resource):
    """A server with many kinds of responses."""

    isLeaf = True  # noqa: N815  # Twisted reads it

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Request] = []
        self.lost: list[object] = []

    def render_GET(self, request: Request) -> bytes | int:  # noqa: N802  # Twisted calls it
        self.asked.append(request)
        request.notifyFinish().addErrback(self.lost.append)
        answer: Callable[[Request], bytes | int] = getattr(self, request.path.decode().strip("/"))
        return answer(request)

    def good(self, request: Request) -> bytes:
        return BODY

    def elsewhere(self, request: Request) -> bytes:
        request.redirect(b"/good")
        return b""

    def missing(self, request: Request) -> bytes:
        request.setResponseCode(404)
        return BODY

    def largest(self, request: Request) -> bytes:
        return b" " * MAX_KEY_SET_BYTES

    def large(self, request: Request) -> bytes:
        return b" " * (MAX_KEY_SET_BYTES + 1)

    def endless(self, request: Request) -> int:
        # A chunked body that never ends; the client receives many chunks in one read.
        request.write(b" " * MAX_KEY_SET_BYTES)
        for _ in range(100):
            request.write(b" ")
        return NOT_DONE_YET

    def silent(self, request: Request) -> int:
        return NOT_DONE_YET

    def half(self, request: Request) -> int:
        request.setHeader(b"Content-Length", b"100")
        request.write(BODY)
        return NOT_DONE_YET

    def cut(self, request: Request) -> int:
        self.half(request)
        request.transport.loseConnection()
        return NOT_DONE_YET


@cache
def authority() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    return key, _certificate("authority", key, None)


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: tuple[Any, x509.Certificate] | None
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[1].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer:
        names = [x509.DNSName(name), x509.IPAddress(ip_address("127.0.0.1"))]
        builder = builder.add_extension(
            x509.SubjectAlternativeName(names if name == "localhost" else names[:1]), critical=False
        )
    return builder.sign(issuer[0] if issuer else key, hashes.SHA256())


def server_context(name: str) -> twisted_ssl.CertificateOptions:
    key = ec.generate_private_key(ec.SECP256R1())
    text = _certificate(name, key, authority()).public_bytes(Encoding.PEM)
    text += key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return twisted_ssl.PrivateCertificate.loadPEM(text).options()


def our_policy() -> BrowserLikePolicyForHTTPS:
    text = authority()[1].public_bytes(Encoding.PEM)
    return BrowserLikePolicyForHTTPS(
        twisted_ssl.trustRootFromCertificates([twisted_ssl.Certificate.loadPEM(text)])
    )


@pytest_twisted.async_yield_fixture
async def answers() -> AsyncIterator[Answers]:
    """A running server; ``url`` is its address."""
    answers = Answers()
    site = Site(answers)
    site.noisy = False
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(site)
    answers.url = f"http://127.0.0.1:{port.getHost().port}"
    yield answers
    await port.stopListening()


def fetch(url: str, **options: Any) -> Deferred[bytes]:
    return KeySetUrl(url).fetch(reactor, **options)


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await deferLater(reactor, 0.005)


@pytest_twisted.ensureDeferred
async def test_key_set_is_fetched(answers: Any) -> None:
    assert await fetch(answers.url + "/good?tenant=1") == BODY
    [request] = answers.asked
    assert request.uri == b"/good?tenant=1"
    assert request.getHeader("accept") == "application/jwk-set+json, application/json"
    assert request.getHeader("cookie") is None


@pytest_twisted.ensureDeferred
async def test_sixty_four_kibibytes_are_fetched(answers: Any) -> None:
    assert len(await fetch(answers.url + "/largest")) == 65536


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("elsewhere", "responded with status 302"),
        ("missing", "responded with status 404"),
        ("large", "is longer than 65536 bytes"),
        ("endless", "is longer than 65536 bytes"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_bad_response_fails_and_closes_the_connection(path: str, problem: str, answers: Any) -> None:
    with pytest.raises(ValueError, match=problem):
        await fetch(f"{answers.url}/{path}")
    assert len(answers.asked) == 1
    if path == "endless":
        await until(lambda: answers.lost)


def test_data_after_the_limit_is_ignored() -> None:
    body = _Body()
    failures: list[object] = []
    body.done.addErrback(failures.append)
    for _ in range(3):
        body.dataReceived(b" " * MAX_KEY_SET_BYTES)
    body.connectionLost()
    assert len(failures) == 1


@pytest.mark.parametrize("path", ["silent", "half"])
@pytest_twisted.ensureDeferred
async def test_cancelling_aborts_the_connection(path: str, answers: Any) -> None:
    fetching = fetch(f"{answers.url}/{path}")
    await until(lambda: answers.asked)
    fetching.cancel()
    with pytest.raises(Exception, match=r"^$|Cancelled"):
        await fetching
    await until(lambda: answers.lost)


@pytest_twisted.ensureDeferred
async def test_incomplete_response_fails(answers: Any) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011  # a private class of Twisted
        await fetch(answers.url + "/cut")
    assert not isinstance(caught.value, CancelledError)


@pytest_twisted.ensureDeferred
async def test_refused_connection_fails(answers: Any) -> None:
    port: IListeningPort = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory())
    number = port.getHost().port
    await port.stopListening()
    with pytest.raises(Exception, match="refused"):
        await fetch(f"http://127.0.0.1:{number}/")


class Garbage(Protocol):
    def connectionMade(self) -> None:
        self.transport.write(b"\x15\x03\x01\x00\x02\x02\x28 I am no web server\r\n\r\n")
        self.transport.loseConnection()


@pytest_twisted.ensureDeferred
async def test_server_that_does_not_speak_http_fails() -> None:
    factory = Factory.forProtocol(Garbage)
    factory.noisy = False
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    try:
        for scheme in ("http", "https"):
            with pytest.raises(Exception, match=r"(?s).*"):
                await fetch(f"{scheme}://127.0.0.1:{port.getHost().port}/")
    finally:
        await port.stopListening()


@pytest.mark.parametrize("path", ["good", "silent", "endless"])
@pytest_twisted.ensureDeferred
async def test_tls_with_a_trusted_certificate(path: str) -> None:
    answers = Answers()
    site = Site(answers)
    port = await SSL4ServerEndpoint(reactor, 0, server_context("localhost"), interface="127.0.0.1").listen(
        site
    )
    fetching = fetch(f"https://localhost:{port.getHost().port}/{path}", policy=our_policy())
    try:
        if path == "good":
            assert await fetching == BODY
            return
        if path == "silent":
            await until(lambda: answers.asked)
            fetching.cancel()
        with pytest.raises(Exception, match=r"(?s).*"):
            await fetching
        await until(lambda: answers.lost)
    finally:
        await port.stopListening()


@pytest.mark.parametrize(("name", "policy"), [("localhost", None), ("elsewhere.example", "ours")])
@pytest_twisted.ensureDeferred
async def test_untrusted_certificate_is_refused(name: str, policy: str | None) -> None:
    """The authority is unknown to the system, or the certificate is for another name."""
    answers = Answers()
    context = server_context(name)
    port = await SSL4ServerEndpoint(reactor, 0, context, interface="127.0.0.1").listen(Site(answers))
    url = f"https://localhost:{port.getHost().port}/good"
    try:
        with pytest.raises(ResponseNeverReceived) as caught:
            await fetch(url, policy=our_policy() if policy else None)
    finally:
        await port.stopListening()
    assert "verif" in str(caught.value).lower()
    assert answers.asked == []


@pytest.mark.parametrize(
    "url",
    ["https://keys.example/set", "http://localhost/set", "http://127.9.9.9:81/", "http://[::1]:8080/set"],
)
def test_valid_urls(url: str) -> None:
    assert KeySetUrl(url).name == url


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://keys.example/set", "use https"),
        ("http://localhost.example/set", "use https"),
        ("http://10.0.0.1/", "use https"),
        ("ftp://keys.example/set", "use https"),
        ("file:///etc/passwd", "is not valid"),
        ("https://", "is not valid"),
        ("https://h:0/", "is not valid"),
        ("https://h:x/", "is not valid"),
        ("https://[::1/", "is not valid"),
        ("https://kéys.example/", "is not valid"),
        ("https://keys.example/a b", "is not valid"),
        ("https://keys.example/a\r\nHost: x", "is not valid"),
        ("https://user:pw@keys.example/", "a user or a fragment"),
        ("https://keys.example/#a", "a user or a fragment"),
    ],
)
def test_invalid_urls_are_config_errors(url: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        KeySetUrl(url)
    assert "pw" not in caught.value.message


def test_name_for_the_log_has_no_query() -> None:
    assert KeySetUrl("https://keys.example/set?key=hush").name == "https://keys.example/set"
