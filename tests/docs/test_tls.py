"""The line of the quick start that puts a relay on the internet, with a certificate of the test's own."""

from __future__ import annotations

import datetime
import socket
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.docs.pages import DOCS
from tests.processes import DEADLINE_SECONDS, AgentProcess, running_relay

LISTEN = "ssl:443:privateKey=key.pem:certKey=chain.pem"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A key and a certificate for ``localhost`` in a folder."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    form, encryption = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / "key.pem").write_bytes(key.private_bytes(encoding, form, encryption))
    (tmp_path / "chain.pem").write_bytes(made.public_bytes(encoding))
    return tmp_path


def listening_with(certificate: Path) -> str:
    """The endpoint of the quick start, on a free port of the loopback address."""
    assert f"--listen {LISTEN}\n" in (DOCS / "quickstart.md").read_text("utf-8")
    endpoint = LISTEN.replace("443", "0").replace("=key", f"={certificate}/key")
    return endpoint.replace("=chain", f"={certificate}/chain") + ":interface=127.0.0.1"


@pytest.mark.parametrize("protocols", [[], ["http/1.1"], ["h2", "http/1.1"]], ids=str)
def test_a_relay_with_tls_serves_what_offers_protocols_as_browsers_do(
    certificate: Path, protocols: list[str]
) -> None:
    context = ssl.create_default_context(cafile=certificate / "chain.pem")
    if protocols:
        context.set_alpn_protocols(protocols)
    with (
        running_relay(listen=listening_with(certificate)) as relay,
        socket.create_connection(("127.0.0.1", relay.port), DEADLINE_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 OK")


def test_an_agent_dials_a_relay_with_tls(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "chain.pem"))
    with running_relay(listen=listening_with(certificate)) as relay:
        with AgentProcess("test-room", "--relay", f"wss://localhost:{relay.port}") as agent:
            agent.when_connected()
        agent.check_quiet()


def test_an_agent_refuses_a_relay_whose_certificate_it_cannot_check(certificate: Path) -> None:
    with running_relay(listen=listening_with(certificate)) as relay:
        with AgentProcess("test-room", "--relay", f"wss://localhost:{relay.port}") as agent:
            agent.when_line("(?i)certificate")
            agent.when_line("Next attempt in")
        agent.check_quiet()
