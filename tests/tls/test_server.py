"""TLS for servers, with the standard library's client, in memory."""

from __future__ import annotations

import shutil
import ssl
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from seance.errors import ConfigError
from seance.net import HandshakeLog, ServerTls, peer_certificate
from seance.net.log_limiter import REFUSED_SECONDS
from seance.net.server_tls import RESUME_SECONDS
from tests.certificates import Authority, CertificateFiles
from tests.tls.rig import Shaken, shake_hands


def client(authority: Authority, *, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.file)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # Python 3.13; the test's authority is too simple for it
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def is_good(shaken: Shaken) -> bool:
    assert shaken.server_error is None
    assert shaken.client_error is None
    return shaken.client.version() is not None


def with_certificate(context: ssl.SSLContext, files: CertificateFiles) -> ssl.SSLContext:
    context.load_cert_chain(files.chain, files.key)
    return context


# Versions, ciphers, protocols


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_later_are_supported(
    server: ServerTls, authority: Authority, version: ssl.TLSVersion
) -> None:
    shaken = shake_hands(server, client(authority, version=version))
    assert is_good(shaken)
    assert shaken.client.version() == version.name.replace("_", ".")


@pytest.mark.parametrize(("minor", "name"), [(1, "1.0"), (2, "1.1")])
def test_older_tls_is_refused_for_its_version(server: ServerTls, minor: int, name: str) -> None:
    """The hello of such a client as bytes, because present libraries cannot send it."""
    suites = b"\xc0\x13\xc0\x14\x00\x2f\x00\x35"
    hello = bytes([3, minor]) + bytes(32) + b"\0" + len(suites).to_bytes(2, "big") + suites + b"\x01\x00"
    message = b"\x01" + len(hello).to_bytes(3, "big") + hello
    connection = server.make_connection()
    connection.received.write(b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message)
    with pytest.raises(ssl.SSLError, match="unsupported protocol"):
        connection.do_handshake()
    kind, _, _, _, _, *alert = connection.to_send.read()
    assert (kind, alert) == (21, [2, 70]), "a fatal alert: protocol_version (RFC 8446, 6)"


@pytest.mark.parametrize(
    ("cipher", "is_spoken"),
    [
        ("ECDHE-RSA-AES128-GCM-SHA256", True),
        ("ECDHE-RSA-CHACHA20-POLY1305", True),
        ("ECDHE-RSA-AES128-SHA256", False),
        ("AES128-GCM-SHA256", False),
        ("AES128-SHA256", False),
    ],
)
def test_only_ciphers_with_forward_secrecy_and_authentication_are_supported(
    authority: Authority, cipher: str, is_spoken: bool
) -> None:
    files = authority.issue("localhost", key=rsa.generate_private_key(65537, 2048))
    tls = ServerTls(files.both)
    tls.load()
    context = client(authority, version=ssl.TLSVersion.TLSv1_2)
    context.set_ciphers(cipher)
    shaken = shake_hands(tls, context)
    assert (shaken.server_error is None) == is_spoken
    if not is_spoken:
        assert "no shared cipher" in str(shaken.server_error)


@pytest.mark.parametrize("is_requesting", [False, True])
def test_renegotiation_is_refused(
    server: ServerTls, asking: ServerTls, authority: Authority, is_requesting: bool
) -> None:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    ours, theirs = (asking if is_requesting else server).make_connection(), SSL.Connection(context, None)
    theirs.set_connect_state()

    def exchange() -> None:
        for _ in range(3):
            with suppress(SSL.WantReadError):
                theirs.do_handshake()
            with suppress(SSL.WantReadError):
                ours.received.write(theirs.bio_read(65536))
            with suppress(ssl.SSLWantReadError):
                ours.read(100)
            if data := ours.to_send.read():
                theirs.bio_write(data)

    exchange()
    assert theirs.get_protocol_version_name() == "TLSv1.2"
    theirs.renegotiate()
    with pytest.raises(SSL.Error, match="no renegotiation"):
        exchange()


@pytest.mark.parametrize(
    ("offered", "selected"),
    [([], None), (["http/1.1"], "http/1.1"), (["h2", "http/1.1"], "http/1.1"), (["h2"], None)],
)
def test_alpn_selects_http_1_1(
    server: ServerTls, authority: Authority, offered: list[str], selected: str | None
) -> None:
    context = client(authority)
    if offered:
        context.set_alpn_protocols(offered)
    shaken = shake_hands(server, context)
    assert is_good(shaken)
    assert shaken.client.selected_alpn_protocol() == selected


def test_a_session_can_be_resumed_until_the_files_are_read_again(
    server: ServerTls, authority: Authority
) -> None:
    context = client(authority)
    first = shake_hands(server, context)
    again = shake_hands(server, context, first.client.session)
    assert is_good(again)
    assert again.client.session_reused
    server.check(force=True)
    after = shake_hands(server, context, again.client.session)
    assert is_good(after)
    assert not after.client.session_reused


# Reloading


def test_a_renewed_certificate_is_used_in_the_next_handshake(server: ServerTls, authority: Authority) -> None:
    before = shake_hands(server, client(authority))
    renewed = authority.issue("localhost", subject="renewed")
    assert server.check()
    after = shake_hands(server, client(authority))
    assert int(after.client.getpeercert()["serialNumber"], 16) == renewed.certificate.serial_number  # type: ignore[index]
    assert before.client.getpeercert() != after.client.getpeercert()
    before.client.write(b"still here")
    before.run()
    assert is_good(before)


def test_bad_new_files_leave_the_old_certificate(
    server: ServerTls, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    serial = shake_hands(server, client(authority)).client.getpeercert()["serialNumber"]  # type: ignore[index]
    other = authority.issue("localhost", file="other")
    shutil.copy(other.chain, tmp_path / "server-chain.pem")
    assert not server.check()
    assert not server.check(force=True)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 2
    assert "does not belong to the first certificate" in warnings[0]
    assert warnings[0].endswith("; the previous content stays in use.")
    assert shake_hands(server, client(authority)).client.getpeercert()["serialNumber"] == serial  # type: ignore[index]
    shutil.copy(other.key, tmp_path / "server-key.pem")
    assert server.check()
    assert shake_hands(server, client(authority)).client.getpeercert()["serialNumber"] != serial  # type: ignore[index]


# Client certificates


@pytest.fixture
def asking(authority: Authority, tmp_path: Path) -> ServerTls:
    """A server that requests client certificates of a separate authority."""
    files = authority.issue("localhost")
    tls = ServerTls(files.both, None, Authority(tmp_path, "agents").file)
    tls.load()
    return tls


def issue_to_agent(tmp_path: Path, *names: str, **options: object) -> tuple[Authority, CertificateFiles]:
    """Replace the authority that ``asking`` has read, and return a certificate of the new one."""
    agents = Authority(tmp_path, "agents")
    return agents, agents.issue(*names, file="agent", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_certificate_identifies_the_client(
    asking: ServerTls, authority: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    names = ("agent.example", "spiffe://example/agent")
    _, files = issue_to_agent(tmp_path, *names, subject="an agent", for_servers=False)
    assert asking.check()
    shaken = shake_hands(asking, with_certificate(client(authority, version=version), files))
    assert is_good(shaken)
    shown = peer_certificate(shaken)
    assert shown is not None
    assert shown.common_name == "an agent"
    assert shown.dns_names == ("agent.example",)
    assert shown.uris == ("spiffe://example/agent",)
    assert shown.name == "spiffe://example/agent"
    assert len(bytes.fromhex(shown.fingerprint)) == 32
    assert shown.expires_at == files.certificate.not_valid_after_utc.timestamp()


def test_a_certificate_without_alternative_names_is_identified_by_its_subject(
    asking: ServerTls, authority: Authority, tmp_path: Path
) -> None:
    _, files = issue_to_agent(tmp_path, subject="an agent")
    asking.check()
    shown = peer_certificate(shake_hands(asking, with_certificate(client(authority), files)))
    assert shown is not None
    assert (shown.common_name, shown.dns_names, shown.uris) == ("an agent", (), ())
    assert shown.name == "an agent"
    assert replace(shown, common_name=None).name == shown.fingerprint
    assert replace(shown, dns_names=("a.example", "b.example")).name == "a.example"


def test_a_client_without_a_certificate_is_accepted_without_an_identity(
    asking: ServerTls, authority: Authority
) -> None:
    shaken = shake_hands(asking, client(authority))
    assert is_good(shaken)
    assert peer_certificate(shaken) is None


def test_a_resumed_session_has_the_same_certificate(
    asking: ServerTls, authority: Authority, tmp_path: Path
) -> None:
    _, files = issue_to_agent(tmp_path, subject="an agent")
    asking.check()
    context = with_certificate(client(authority), files)
    first = shake_hands(asking, context)
    again = shake_hands(asking, context, first.client.session)
    assert again.client.session_reused
    assert again.client.session.ticket_lifetime_hint == RESUME_SECONDS
    assert peer_certificate(again) == peer_certificate(first) != None  # noqa: E711  # both are there


def test_a_resumed_session_with_an_expired_certificate_has_no_identity(
    asking: ServerTls, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, files = issue_to_agent(tmp_path, subject="an agent")
    asking.check()
    shaken = shake_hands(asking, with_certificate(client(authority), files))
    assert peer_certificate(shaken) is not None

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Later:
            return cls.fromtimestamp(files.certificate.not_valid_after_utc.timestamp(), tz)

    monkeypatch.setattr("seance.net.peer.datetime", Later)
    assert peer_certificate(shaken) is None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    "kind", ["unknown authority", "the server's authority", "self-signed", "for servers"]
)
def test_an_invalid_client_certificate_ends_the_handshake(
    asking: ServerTls, authority: Authority, tmp_path: Path, kind: str, version: ssl.TLSVersion
) -> None:
    if kind == "for servers":
        _, files = issue_to_agent(tmp_path, for_servers=True)
        asking.check()
    elif kind == "self-signed":
        files = authority.self_signed("agent", file="agent")
    else:
        other = authority if kind.startswith("the") else Authority(tmp_path, "other")
        files = other.issue("agent", file="agent")
    shaken = shake_hands(asking, with_certificate(client(authority, version=version), files))
    assert shaken.server_error is not None
    assert "certificate verify failed" in str(shaken.server_error)
    assert shaken.client_error is not None
    assert "ALERT" in str(shaken.client_error)
    assert peer_certificate(shaken) is None


def test_an_unrequested_client_certificate_is_ignored(server: ServerTls, authority: Authority) -> None:
    files = authority.issue("agent", file="agent")
    shaken = shake_hands(server, with_certificate(client(authority), files))
    assert is_good(shaken)
    assert peer_certificate(shaken) is None


# This form of the names is deprecated, but not every release of pyOpenSSL has another one.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_accepted_authorities_are_sent_to_the_client(asking: ServerTls) -> None:
    """Otherwise browsers would offer all their certificates to the user."""
    theirs = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
    ours = asking.make_connection()
    theirs.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        theirs.do_handshake()
    ours.received.write(theirs.bio_read(65536))
    with pytest.raises(ssl.SSLWantReadError):
        ours.do_handshake()
    theirs.bio_write(ours.to_send.read())
    theirs.do_handshake()
    [name] = theirs.get_client_ca_list()
    assert name.CN == "agents"


def test_a_connection_without_tls_has_no_certificate() -> None:
    assert peer_certificate(object()) is None
    assert peer_certificate(None) is None


# The log


def test_failed_handshakes_are_a_line_in_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    clock.advance(100)
    log = HandshakeLog(clock)
    text = "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca (_ssl.c:1006)"
    failure = Failure(ssl.SSLError(1, text))
    log.note(Failure(SSL.Error([("SSL routines", "", "tlsv1 alert unknown ca")])), "192.0.2.7")
    for _ in range(2):
        log.note(failure, "192.0.2.7")
    clock.advance(REFUSED_SECONDS)
    log.note(failure, "192.0.2.8")
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f"A TLS handshake with 192.0.2.{peer} failed: tlsv1 alert unknown ca "
        f"({more} more since the last such line)"
        for peer, more in ((7, 0), (8, 2))
    ]


def test_connections_that_end_normally_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    HandshakeLog(Clock()).note(Failure(ConnectionDone()), "192.0.2.7")
    assert not caplog.records


def test_a_server_does_not_start_with_invalid_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        ServerTls(tmp_path / "nowhere.pem").load()
