"""TLS for clients: every kind of failure, and the message that an agent logs about it."""

from __future__ import annotations

import datetime
import os
import re
import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pytest_twisted import ensureDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory

from seance.agent.service import Agent, AgentState, AgentStatus
from seance.core.settings import AgentSettings
from seance.errors import ConfigError, Gone
from seance.net import ServerTls, TlsEndpoint, is_loopback_host, peer_certificate
from seance.net.client_tls import ClientTls
from tests.certificates import Authority, CertificateFiles
from tests.relay.rig import Player, reactor, until
from tests.tls.rig import One, TlsRig
from tests.tools import require

DAY = datetime.timedelta(days=1)


class Server:
    """Listens with a certificate, and records its connections."""

    def __init__(self, tls: ServerTls | None) -> None:
        self._tls = tls
        self.players: list[Player] = []
        self.factory = Factory()
        self.factory.noisy = False
        self.factory.buildProtocol = self._build  # type: ignore[method-assign, assignment]

    def _build(self, addr: object) -> Player:
        self.players.append(Player())
        return self.players[-1]

    async def __aenter__(self) -> Server:
        wrapped: Any = self.factory
        if self._tls is not None:
            self._tls.load()
            wrapped = self._tls.wrap(self.factory, reactor)
        self._port: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(wrapped)
        return self

    async def __aexit__(self, *_: object) -> None:
        for player in self.players:
            if player.lost is None:
                player.leg.abortConnection()
        await self._port.stopListening()
        await until(lambda: all(player.lost for player in self.players))

    async def connect(self, tls: ClientTls) -> Player:
        """Connect with the settings ``tls``."""
        plain = TCP4ClientEndpoint(reactor, "127.0.0.1", self._port.getHost().port)
        player = Player()
        await TlsEndpoint(reactor, plain, tls, "the server").connect(One(player))
        return player


async def refused(server: Server, tls: ClientTls) -> str:
    with pytest.raises(Gone) as caught:
        await server.connect(tls)
    return caught.value.message


Make = Callable[[Authority, Path], CertificateFiles]


def expired(authority: Authority, _: Path) -> CertificateFiles:
    return authority.issue("localhost", valid=(-2 * DAY, -DAY))


def early(authority: Authority, _: Path) -> CertificateFiles:
    return authority.issue("localhost", valid=(DAY, 2 * DAY))


def other_name(authority: Authority, _: Path) -> CertificateFiles:
    return authority.issue("relay.example", "*.localhost", "192.0.2.1")


def no_name(authority: Authority, _: Path) -> CertificateFiles:
    return authority.issue(subject="localhost")


def self_signed(authority: Authority, _: Path) -> CertificateFiles:
    return authority.self_signed("localhost")


def unknown_authority(_: Authority, folder: Path) -> CertificateFiles:
    return Authority(folder, "stranger").issue("localhost")


def same_name_of_authority(authority: Authority, folder: Path) -> CertificateFiles:
    ours = authority.file.read_bytes()
    files = Authority(folder, "authority").issue("localhost")
    authority.file.write_bytes(ours)
    return files


def missing_link(authority: Authority, folder: Path) -> CertificateFiles:
    files = Authority(folder, "between", parent=authority).issue("localhost")
    files.chain.write_bytes(files.certificate.public_bytes(Encoding.PEM))
    return files


def made_by_a_server(authority: Authority, folder: Path) -> CertificateFiles:
    """A certificate signed with the key of a valid certificate that is not an authority's."""
    good = authority.issue("localhost", subject="good", file="good")
    forger = Authority(folder, "forger", parent=authority)
    forger.certificate = good.certificate
    forger.name = good.certificate.subject
    forger.key = _key_of(good)
    return forger.issue("localhost")


def for_clients(authority: Authority, _: Path) -> CertificateFiles:
    return authority.issue("localhost", for_servers=False)


def _key_of(files: CertificateFiles) -> Any:
    from seance.net.pem import read_credentials

    return read_credentials(files.chain, files.key).key


WRONG: dict[Make, str] = {
    expired: "has expired, on DAY UTC",
    early: "is not valid before DAY UTC; check the clock of this machine",
    other_name: "is for another name: it is for relay.example, *.localhost, 192.0.2.1",
    no_name: "is for another name: it is for no host at all",
    self_signed: "is self-signed and not in the list of trusted certificates",
    unknown_authority: "comes from an authority that is not trusted here",
    same_name_of_authority: "has an invalid signature",
    missing_link: "comes from an authority that is not trusted here",
    made_by_a_server: "was issued by a certificate that is not an authority's",
    for_clients: "is not a server certificate",
}


@pytest.mark.parametrize("make", WRONG, ids=lambda make: make.__name__)
@ensureDeferred
async def test_a_bad_certificate_is_rejected_with_one_message(
    authority: Authority, tmp_path: Path, make: Make
) -> None:
    files = make(authority, tmp_path)
    async with Server(ServerTls(files.chain, files.key)) as server:
        sentence = await refused(server, ClientTls("localhost", ca_file=authority.file))
        sentence = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "DAY", sentence)
        assert sentence == f"The certificate of the server {WRONG[make]}."
        await until(lambda: server.players[0].lost)
        assert server.players[0].received == b""
        assert server.players[0].lost.check(ssl.SSLError), "the server gets an alert, and can log it"  # type: ignore[union-attr]


@ensureDeferred
async def test_a_certificate_signed_with_sha_1_is_rejected_with_one_message(
    authority: Authority, tmp_path: Path
) -> None:
    require("openssl")
    files = authority.issue("localhost")
    key = authority.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "ca-key.pem").write_bytes(key)
    (tmp_path / "extensions").write_text("subjectAltName=DNS:localhost")
    ask = f"openssl req -new -key {files.key} -subj /CN=localhost -out request"
    sign = f"openssl x509 -req -sha1 -in request -CA {authority.file} -CAkey ca-key.pem -CAcreateserial"
    for command in (ask, f"{sign} -extfile extensions -out {files.chain}"):
        subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    tls = ServerTls(files.chain, files.key)
    try:
        tls.load()
    except ConfigError as error:
        problem = error.message
    else:
        problem = ""
    if problem:
        # OpenSSL 3 does not even present it.
        assert problem.endswith("cannot be used: ca md too weak.")
        return
    async with Server(tls) as server:
        sentence = await refused(server, ClientTls("localhost", ca_file=authority.file))
        assert sentence == "The certificate of the server is signed with an algorithm that is no longer safe."


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("localhost", ["localhost"]),
        ("LOCALHOST.", ["localhost"]),
        ("127.0.0.1", ["127.0.0.1"]),
        ("::1", ["::1"]),
        ("a.relay.example", ["*.relay.example"]),
    ],
)
@ensureDeferred
async def test_a_good_certificate_is_accepted(authority: Authority, host: str, names: list[str]) -> None:
    files = authority.issue(*names)
    async with Server(ServerTls(files.chain, files.key)) as server:
        player = await server.connect(ClientTls(host, ca_file=authority.file))
        player.send(b"hello")
        await until(lambda: server.players[0].received == b"hello")
        player.leg.loseConnection()
        await player.goes()


@pytest.mark.parametrize(("host", "name"), [("127.0.0.1", "localhost"), ("localhost", "127.0.0.1")])
@ensureDeferred
async def test_addresses_and_names_are_checked_separately(authority: Authority, host: str, name: str) -> None:
    files = authority.issue(name)
    async with Server(ServerTls(files.chain, files.key)) as server:
        sentence = await refused(server, ClientTls(host, ca_file=authority.file))
        assert sentence == f"The certificate of the server is for another name: it is for {name}."


@ensureDeferred
async def test_without_a_ca_file_the_authorities_of_the_system_are_trusted(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = authority.issue("localhost")
    async with Server(ServerTls(files.chain, files.key)) as server:
        assert "comes from an authority that is not trusted" in await refused(server, ClientTls("localhost"))
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        player = await server.connect(ClientTls("localhost"))
        player.leg.loseConnection()
        await player.goes()


@ensureDeferred
async def test_with_a_ca_file_the_authorities_of_the_system_are_not_trusted(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    other = Authority(tmp_path, "other")
    files = authority.issue("localhost")
    async with Server(ServerTls(files.chain, files.key)) as server:
        assert "not trusted here" in await refused(server, ClientTls("localhost", ca_file=other.file))


@ensureDeferred
async def test_a_self_signed_certificate_in_the_ca_file_is_accepted(
    authority: Authority, tmp_path: Path
) -> None:
    files = authority.self_signed("localhost")
    async with Server(ServerTls(files.chain, files.key)) as server:
        player = await server.connect(ClientTls("localhost", ca_file=files.chain))
        player.leg.loseConnection()
        await player.goes()


@ensureDeferred
async def test_a_chain_is_followed_to_the_authority(authority: Authority, tmp_path: Path) -> None:
    between = Authority(tmp_path, "between", parent=authority)
    files = between.issue("localhost")
    async with Server(ServerTls(files.chain, files.key)) as server:
        player = await server.connect(ClientTls("localhost", ca_file=authority.file))
        player.leg.loseConnection()
        await player.goes()


# Without a check


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1", "x.localhost", "LOCALHOST"])
def test_this_machine_need_not_be_checked(host: str) -> None:
    assert is_loopback_host(host)
    assert ClientTls(host, insecure=True).insecure


@pytest.mark.parametrize("host", ["relay.example", "192.0.2.1", "::", "localhost.example", "alocalhost"])
def test_another_machine_has_to_be_checked(host: str) -> None:
    with pytest.raises(ConfigError, match=r"must be checked, because it is another machine"):
        ClientTls(host, insecure=True)


@ensureDeferred
async def test_any_certificate_is_accepted_without_a_check(authority: Authority) -> None:
    files = authority.self_signed("elsewhere.example")
    async with Server(ServerTls(files.chain, files.key)) as server:
        player = await server.connect(ClientTls("localhost", insecure=True))
        assert peer_certificate(player.transport) is None, "an unverified certificate is ignored"
        player.leg.loseConnection()
        await player.goes()


# Client certificates


@pytest.mark.parametrize("kind", ["trusted", "untrusted"])
@ensureDeferred
async def test_a_client_certificate_is_presented(authority: Authority, tmp_path: Path, kind: str) -> None:
    agents = Authority(tmp_path, "agents")
    files = authority.issue("localhost")
    mine = (agents if kind == "trusted" else authority).issue(file="agent")
    async with Server(ServerTls(files.chain, files.key, agents.file)) as server:
        tls = ClientTls("localhost", ca_file=authority.file, cert_file=mine.both)
        player = await server.connect(tls)
        player.send(b"hello")
        if kind == "trusted":
            await until(lambda: server.players[0].received == b"hello")
            shown = server.players[0].leg.getPeerCertificate()
            assert shown == mine.certificate.public_bytes(Encoding.DER)
            player.leg.loseConnection()
            await player.goes()
        else:
            reason = await player.goes()
            assert isinstance(reason.value, Gone)
            sentence = str(reason.value)
            assert sentence.startswith("The server rejected the client certificate, or requires one: ")
            assert sentence.endswith("unknown ca.")
            assert server.players[0].received == b""


@ensureDeferred
async def test_the_chain_of_a_client_certificate_is_presented(authority: Authority, tmp_path: Path) -> None:
    between = Authority(tmp_path, "between", parent=authority)
    files, mine = authority.issue("localhost"), between.issue(file="agent")
    async with Server(ServerTls(files.chain, files.key, authority.file)) as server:
        player = await server.connect(
            ClientTls("localhost", ca_file=authority.file, cert_file=mine.chain, key_file=mine.key)
        )
        player.send(b"hello")
        await until(lambda: server.players[0].received == b"hello")
        player.leg.loseConnection()
        await player.goes()


# Files


@ensureDeferred
async def test_files_are_checked_for_every_connection(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger")
    files = stranger.issue("localhost")
    tls = ClientTls("localhost", ca_file=authority.file)
    async with Server(ServerTls(files.chain, files.key)) as server:
        await refused(server, tls)
        shutil.copy(stranger.file, authority.file)
        player = await server.connect(tls)
        player.leg.loseConnection()
        await player.goes()
        authority.file.unlink()
        player = await server.connect(tls)
        player.leg.loseConnection()
        await player.goes()


@ensureDeferred
async def test_files_that_were_never_valid_are_one_message(tmp_path: Path) -> None:
    async with Server(None) as server:
        with pytest.raises(ConfigError, match=r"^The authority file .* cannot be read"):
            await server.connect(ClientTls("localhost", ca_file=tmp_path / "nowhere.pem"))
        assert not server.players


# Servers without TLS


@ensureDeferred
async def test_a_server_without_tls_is_reported(authority: Authority) -> None:
    async with Server(None) as server:
        server.factory.buildProtocol = lambda addr: Answering(server)  # type: ignore[method-assign, assignment, return-value]
        sentence = await refused(server, ClientTls("localhost", ca_file=authority.file))
        assert sentence == "The server does not speak TLS."


class Answering(Player):
    """Answers a TLS hello as an HTTP server does."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        server.players.append(self)

    def connectionMade(self) -> None:
        self.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


@ensureDeferred
async def test_a_server_that_closes_during_the_handshake_is_reported(authority: Authority) -> None:
    async with Server(None) as server:
        server.factory.buildProtocol = lambda addr: HangingUp(server)  # type: ignore[method-assign, assignment, return-value]
        sentence = await refused(server, ClientTls("localhost", ca_file=authority.file))
        assert sentence == "The server closed the connection during the TLS handshake."


class HangingUp(Answering):
    def connectionMade(self) -> None:
        self.leg.loseConnection()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (expired, "has expired"),
        (early, "is not valid yet; check the clock of this machine"),
        (other_name, "is for another name: it is for no host at all"),
    ],
)
@ensureDeferred
async def test_a_certificate_that_cannot_be_shown_is_rejected_too(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Make, text: str
) -> None:
    """The parser may reject a certificate that OpenSSL has parsed, and OpenSSL 1.1.1 does not provide it."""
    files = make(authority, tmp_path)

    def fail(der: bytes) -> None:
        raise ValueError("nonsense")

    monkeypatch.setattr(x509, "load_der_x509_certificate", fail)
    async with Server(ServerTls(files.chain, files.key)) as server:
        sentence = await refused(server, ClientTls("localhost", ca_file=authority.file))
        assert sentence == f"The certificate of the server {text}."


# The agent's messages


async def said_by(agent: Agent) -> list[str]:
    """Return the messages of an agent up to its second wait."""
    news: list[AgentStatus] = []
    agent.on_status(news.append)
    agent.startService()
    await until(lambda: sum(status.state is AgentState.WAITING for status in news) == 2)
    return [status.sentence for status in news if status.state is AgentState.WAITING]


@pytest.mark.parametrize("make", [expired, other_name, self_signed, unknown_authority])
@ensureDeferred
async def test_an_agent_names_the_fault_and_keeps_trying(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture, make: Make
) -> None:
    async with TlsRig(authority, make(authority, tmp_path), with_agent=False) as rig:
        sentences = await said_by(rig.make_agent())
        assert len(set(sentences)) == 1
        sentence = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "DAY", sentences[0])
        assert sentence == f"The certificate of the relay at localhost:{rig.port} {WRONG[make]}."
        assert f"[Agent] {sentences[0]}" in caplog.text
        await until(lambda: "A TLS handshake with 127.0.0.1 failed: " in caplog.text)
        assert "Traceback" not in caplog.text


@ensureDeferred
async def test_an_agent_with_tls_for_a_relay_without_it_logs_this(authority: Authority) -> None:
    plain = {"tls_cert": None, "tls_key": None}
    async with TlsRig(authority, relay=plain, with_agent=False) as rig:
        sentences = await said_by(rig.make_agent())
        assert set(sentences) == {f"The relay at localhost:{rig.port} does not speak TLS."}


@ensureDeferred
async def test_an_agent_without_tls_for_a_relay_with_it_logs_this(authority: Authority) -> None:
    async with TlsRig(authority, with_agent=False) as rig:
        agent = rig.make_agent(relay=f"ws://localhost:{rig.port}", tls_ca=None)
        assert set(await said_by(agent)) == {
            "This address speaks TLS: write wss:// or https:// in place of ws:// or http://."
        }


@ensureDeferred
async def test_an_agent_with_a_rejected_certificate_logs_this(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    agents = Authority(tmp_path, "agents")
    mine = authority.issue(file="agent")
    async with TlsRig(authority, relay={"agent_ca": str(agents.file)}, with_agent=False) as rig:
        sentences = await said_by(rig.make_agent(tls_cert=str(mine.chain), tls_key=str(mine.key)))
        assert sentences[0].startswith(
            f"The relay at localhost:{rig.port} rejected the client certificate, or requires one: "
        )
        assert "A TLS handshake with 127.0.0.1 failed: certificate verify failed" in caplog.text


def test_an_agent_does_not_start_with_invalid_files(authority: Authority) -> None:
    missing = str(authority.file) + ".not"
    for options in (
        {"relay": "wss://localhost", "tls_ca": missing},
        {"relay": "wss://localhost", "tls_cert": missing},
        {"local": "tls://localhost:1", "local_ca": missing},
    ):
        agent = Agent(reactor, AgentSettings(room="r", **options))  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=f"{re.escape(missing)} cannot be read"):
            agent.startService()
        assert not agent.running


@ensureDeferred
async def test_an_agent_continues_with_the_previous_content_of_a_deleted_file(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async with TlsRig(authority) as rig:
        os.rename(authority.file, f"{authority.file}.away")
        rig.agent._relay_link.carrier.abortConnection()  # type: ignore[union-attr]
        await until(lambda: rig.agent.status.state is not AgentState.CONNECTED)
        await rig.agent.when_connected()
        assert "the previous content stays in use" in caplog.text
        os.rename(f"{authority.file}.away", authority.file)
