"""The whole tunnel over TLS in one process: data, ends, and slow or broken peers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import pytest
from OpenSSL import SSL
from pytest_twisted import ensureDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory

from seance.agent.service import AgentState, AgentStatus
from seance.net import ServerTls, TlsEndpoint, peer_certificate, tls_transport
from seance.net.client_tls import ClientTls
from seance.relay.edge.frontend import Frontend
from tests.certificates import Authority
from tests.ears import pattern
from tests.relay.rig import Player, answer_101, reactor, request, turn, until
from tests.tls.rig import TlsRig

MIB = 1024 * 1024


def fronts_of(rig: TlsRig, monkeypatch: pytest.MonkeyPatch) -> list[Frontend]:
    """Collects every connection that the relay accepts from now on."""
    fronts: list[Frontend] = []
    build = rig.relay.front.buildProtocol

    def note(addr: Any) -> Frontend:
        fronts.append(build(addr))
        return fronts[-1]

    monkeypatch.setattr(rig.relay.front, "buildProtocol", note)
    return fronts


# Data


@ensureDeferred
async def test_five_megabytes_arrive_unchanged_in_both_directions(authority: Authority) -> None:
    async with TlsRig(authority) as rig:
        client, local = await rig.joined()
        up, down = pattern(5 * MIB, seed=1), pattern(5 * MIB, seed=2)
        client.send(up)
        local.send(down)
        await until(lambda: len(local.received) >= len(up) and len(client.received) >= len(down))
        assert local.received == up
        assert client.received == down


@ensureDeferred
async def test_the_local_server_gets_x_forwarded_proto_https(authority: Authority) -> None:
    async with TlsRig(authority) as rig:
        await rig.connect(request())
        local = await rig.local()
        assert b"x-forwarded-proto: https\r\n" in local.received.lower()


# Twisted passes a server's certificates to pyOpenSSL in a deprecated form.
@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
@ensureDeferred
async def test_a_listener_with_its_own_tls_keeps_it(authority: Authority) -> None:
    files = authority.issue("localhost", file="own")
    own = f"ssl:0:privateKey={files.key}:certKey={files.chain}:interface=127.0.0.1"
    listen = ("tcp:0:interface=127.0.0.1", own)
    async with TlsRig(authority, relay={"listen": listen}, with_agent=False) as rig:
        for port, serial in zip(
            await rig.relay.when_listening(),
            (rig.certificate.certificate.serial_number, files.certificate.serial_number),
            strict=True,
        ):
            rig.port = port.getHost().port
            assert await rig.serial() == serial
            client = await rig.connect(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
            await client.receives(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("has_tls", [True, False])
@ensureDeferred
async def test_the_relay_logs_its_urls_with_the_right_scheme(
    authority: Authority, caplog: pytest.LogCaptureFixture, has_tls: bool
) -> None:
    options = {} if has_tls else {"tls_cert": None, "tls_key": None}
    async with TlsRig(authority, relay=options, with_agent=False) as rig:
        scheme = "wss" if has_tls else "ws"
        said = [record.getMessage() for record in caplog.records]
        assert f"Agent endpoint: {scheme}://localhost:{rig.port}/agent?room=<room-id>" in said
        assert f"Client endpoint: {scheme}://localhost:{rig.port}/client?room=<room-id>" in said


# Ends


@ensureDeferred
async def test_a_client_gets_all_data_and_a_normal_end_after_the_server_ends(
    authority: Authority,
) -> None:
    async with TlsRig(authority) as rig:
        client, local = await rig.joined()
        local.send(pattern(MIB))
        local.leg.loseWriteConnection()
        reason = await client.goes()
        assert client.received == pattern(MIB)
        assert reason.check(ConnectionDone)
        await local.ends()
        assert local.lost is None or local.lost.check(ConnectionDone)


@ensureDeferred
async def test_a_server_gets_all_data_and_a_normal_end_after_the_client_ends(
    authority: Authority,
) -> None:
    async with TlsRig(authority) as rig:
        client, local = await rig.joined()
        client.send(pattern(MIB))
        client.leg.loseConnection()
        await local.ends()
        assert local.received == pattern(MIB)


@ensureDeferred
async def test_a_reset_of_the_client_reaches_the_server(authority: Authority) -> None:
    async with TlsRig(authority) as rig:
        client, local = await rig.joined()
        client.leg.abortConnection()
        assert not (await local.goes()).check(ConnectionDone)


class Rude(Player):
    """A client that implements TLS itself and never answers ``close_notify``."""

    def __init__(self) -> None:
        super().__init__()
        self.tls: Any = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
        self.tls.set_connect_state()
        self.plain = b""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.tls.bio_write(data)
        self.step()

    def step(self, first: bytes = b"") -> None:
        with suppress(SSL.Error):
            self.tls.do_handshake()
            if first:
                self.tls.send(first)
            while True:
                self.plain += self.tls.recv(65536)
        with suppress(SSL.Error):  # nothing to send, or an earlier error again
            self.send(self.tls.bio_read(65536))

    def readConnectionLost(self) -> None:
        """Even this does not make it close."""


async def rude_client(rig: TlsRig, monkeypatch: pytest.MonkeyPatch) -> tuple[Rude, Player]:
    """Open such a client, and return it with its connection at the local server."""
    client = Rude()
    monkeypatch.setattr("tests.tls.rig.Player", lambda: client)
    await rig.connect_plainly()
    client.step()
    await until(lambda: client.tls.get_cipher_name())
    client.step(request())
    local = await rig.local()
    local.send(answer_101())
    await until(lambda: client.plain.endswith(b"\r\n\r\n"))
    return client, local


@ensureDeferred
async def test_a_client_that_never_answers_a_close_notify_is_not_waited_for(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_transport, "CLOSE_CHECK_SECONDS", 0.05)
    async with TlsRig(authority) as rig:
        fronts = fronts_of(rig, monkeypatch)
        client, local = await rude_client(rig, monkeypatch)
        local.send(b"the last word")
        local.leg.loseConnection()
        await until(lambda: client.plain.endswith(b"the last word"))
        await until(lambda: not cast(Any, fronts[0].transport).connected)


@ensureDeferred
async def test_a_client_with_invalid_records_is_cut_and_none_are_forwarded(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with TlsRig(authority) as rig:
        client, local = await rude_client(rig, monkeypatch)
        local.received = b""
        client.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        assert not (await local.goes()).check(ConnectionDone)
        assert not local.received
        assert "handshake" not in caplog.text


# Slow and broken peers


@pytest.mark.parametrize("hello", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x16"])
@ensureDeferred
async def test_a_stalled_handshake_counts_against_the_time_of_a_head(
    authority: Authority, hello: bytes
) -> None:
    async with TlsRig(authority, relay={"head_seconds": 0.2}, with_agent=False) as rig:
        began = reactor.seconds()
        client = await rig.connect_plainly(hello)
        await until(lambda: rig.relay.front.unanswered_count)
        await client.goes()
        assert reactor.seconds() - began >= 0.2
        assert rig.relay.front.unanswered_count == 0


@ensureDeferred
async def test_a_slow_handshake_is_cut(authority: Authority) -> None:
    async with TlsRig(authority, relay={"head_seconds": 0.2}, with_agent=False) as rig:
        context = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
        context.set_connect_state()
        with pytest.raises(SSL.WantReadError):
            context.do_handshake()
        hello = context.bio_read(65536)
        client = await rig.connect_plainly()
        sent = 0
        while client.lost is None:
            client.send(hello[sent : sent + 1])
            sent += 1
            await turn(0.01)
        assert sent < len(hello)


@ensureDeferred
async def test_stalled_handshakes_are_bounded_in_number(authority: Authority) -> None:
    async with TlsRig(authority, relay={"unanswered_connections": 2}, with_agent=False) as rig:
        first = await rig.connect_plainly(b"\x16")
        for _ in range(2):
            await rig.connect_plainly(b"\x16")
        await first.goes()
        assert rig.relay.front.unanswered_count == 2


@pytest.mark.parametrize("first", [b"GET /client?room=r HTTP/1.1\r\nHost: h\r\n\r\n", b"P"])
@ensureDeferred
async def test_plain_http_gets_a_message_with_the_right_scheme(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, first: bytes
) -> None:
    async with TlsRig(authority, relay={"head_seconds": 0.3}, with_agent=False) as rig:
        fronts = fronts_of(rig, monkeypatch)
        client = await rig.connect_plainly(first)
        await client.ends()
        head, _, body = bytes(client.received).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert b"Connection: close" in head
        assert body.decode().strip() == (
            "This address speaks TLS: write wss:// or https:// in place of ws:// or http://."
        )
        assert rig.relay.front.unanswered_count == 1
        client.send(b"and on and on")
        await until(lambda: not cast(Any, fronts[0].transport).connected)
        assert rig.relay.front.unanswered_count == 0
        assert "handshake" not in caplog.text


@ensureDeferred
async def test_random_bytes_are_answered_with_a_close(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async with TlsRig(authority, with_agent=False) as rig:
        client = await rig.connect_plainly(b"\x00\x01\x02" * 20)
        await client.ends()
        await until(lambda: "A TLS handshake with 127.0.0.1 failed" in caplog.text)


@ensureDeferred
async def test_forwarded_fields_of_an_untrusted_tls_peer_are_ignored(authority: Authority) -> None:
    options: dict[str, Any] = {"listen": ("haproxy:tcp:0:interface=127.0.0.1",), "head_seconds": 100.0}
    header = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"
    async with TlsRig(authority, relay=options, with_agent=False) as rig:
        client = await rig.connect_plainly(header)
        await client.goes()
    options["trusted_proxy"] = ("127.0.0.1",)
    async with TlsRig(authority, relay=options, with_agent=False) as rig:
        client = await rig.connect_plainly(header + b"\x16\x03\x01")
        await until(lambda: rig.relay.front.unanswered_count)
        assert client.lost is None


# Reloading


@ensureDeferred
async def test_a_renewed_certificate_does_not_affect_open_connections(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async with TlsRig(authority) as rig:
        client, local = await rig.joined()
        renewed = authority.issue("localhost")
        await until(lambda: "The certificate was read again" in caplog.text)
        assert await rig.serial() == renewed.certificate.serial_number
        client.send(b"still here")
        await local.receives(b"still here")
        assert rig.agent.status.state is AgentState.CONNECTED


@ensureDeferred
async def test_an_agent_connects_once_the_certificate_is_renewed(authority: Authority) -> None:
    expired = authority.issue("elsewhere.example")
    async with TlsRig(authority, expired, with_agent=False) as rig:
        agent = rig.make_agent()
        news: list[AgentStatus] = []
        agent.on_status(news.append)
        agent.startService()
        await until(lambda: len(news) > 4)
        assert {status.state for status in news} == {AgentState.CONNECTING, AgentState.WAITING}
        authority.issue("localhost")
        rig.relay.reread()
        await agent.when_connected()


# Certificates of agents


def agent_with_certificate(authority: Authority) -> dict[str, Any]:
    files = authority.issue("spiffe://example/agent", subject="an agent", file="agent")
    return {"tls_cert": str(files.chain), "tls_key": str(files.key)}


@ensureDeferred
async def test_both_ends_of_a_carrier_have_the_peers_certificate(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = {"agent_ca": str(authority.file)}
    async with TlsRig(authority, relay=relay, with_agent=False) as rig:
        fronts = fronts_of(rig, monkeypatch)
        agent = await rig.attach(**agent_with_certificate(authority))
        shown = peer_certificate(fronts[0].transport)
        assert shown is not None
        assert (shown.common_name, shown.uris) == ("an agent", ("spiffe://example/agent",))
        seen = peer_certificate(agent._relay_link.carrier)  # type: ignore[union-attr]
        assert seen is not None
        assert seen.dns_names == ("localhost",)
        agent._relay_link.carrier.abortConnection()  # type: ignore[union-attr]
        await until(lambda: not cast(Any, fronts[0].transport).connected)
        assert peer_certificate(fronts[0].transport) is None


@ensureDeferred
async def test_an_agent_without_a_certificate_is_refused_if_there_are_no_tokens(
    authority: Authority,
) -> None:
    async with TlsRig(authority, relay={"agent_ca": str(authority.file)}, with_agent=False) as rig:
        agent = rig.make_agent()
        news: list[AgentStatus] = []
        agent.on_status(news.append)
        agent.startService()
        await until(lambda: agent.status.state is AgentState.WAITING)
        assert news[-1].sentence == (
            "This relay accepts agents by client certificate, and this agent has sent none."
        )


@ensureDeferred
async def test_clients_need_no_certificate_where_agents_may_have_one(authority: Authority) -> None:
    relay, agent = {"agent_ca": str(authority.file)}, agent_with_certificate(authority)
    async with TlsRig(authority, relay=relay, agent=agent) as rig:
        client, local = await rig.joined()
        client.send(b"hello")
        await local.receives(b"hello")


# A local server with TLS


class LocalTls:
    """A local server with a certificate."""

    def __init__(self, rig: TlsRig, tls: ServerTls) -> None:
        self._rig = rig
        self._tls = tls

    async def __aenter__(self) -> LocalTls:
        def build(addr: object) -> Player:
            self._rig.locals.append(Player())
            return self._rig.locals[-1]

        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = build  # type: ignore[method-assign, assignment]
        self._tls.load()
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        self._port: Any = await endpoint.listen(self._tls.wrap(factory, reactor))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._port.stopListening()

    @property
    def address(self) -> str:
        return f"tls://localhost:{self._port.getHost().port}"


@pytest.mark.parametrize("how", ["local_ca", "local_insecure"])
@ensureDeferred
async def test_a_local_server_with_tls_is_reached(authority: Authority, how: str) -> None:
    files = authority.issue("localhost", file="local")
    options: dict[str, Any] = {"local_ca": str(authority.file)}
    if how == "local_insecure":
        files = authority.self_signed("elsewhere.example", file="local")
        options = {"local_insecure": True}
    async with TlsRig(authority, with_agent=False) as rig, LocalTls(rig, ServerTls(files.both)) as local:
        await rig.attach(local=local.address, **options)
        client, server = await rig.joined()
        client.send(pattern(MIB))
        await until(lambda: len(server.received) == MIB)
        assert server.received == pattern(MIB)
        server.send(b"the answer")
        server.leg.loseConnection()
        await client.goes()
        assert client.received == b"the answer"


@ensureDeferred
async def test_a_bad_certificate_of_the_local_server_is_reported_to_both_sides(authority: Authority) -> None:
    files = authority.self_signed("localhost", file="local")
    async with TlsRig(authority, with_agent=False) as rig, LocalTls(rig, ServerTls(files.both)) as local:
        agent = await rig.attach(local=local.address, local_ca=str(authority.file))
        news: list[AgentStatus] = []
        agent.on_status(news.append)
        client = await rig.connect(request())
        await client.goes()
        assert client.received.startswith(b"HTTP/1.1 502 ")
        assert [(status.state, status.sentence) for status in news] == [
            (
                AgentState.LOCAL_TROUBLE,
                f"The certificate of the local server {local.address} is self-signed "
                "and not in the list of trusted certificates.",
            )
        ]
        assert agent.status.state is AgentState.CONNECTED


@ensureDeferred
async def test_a_stalled_handshake_of_the_local_server_times_out(authority: Authority) -> None:
    async with TlsRig(authority, with_agent=False) as rig:
        number = rig.local_port.getHost().port
        await rig.attach(
            local=f"tls://localhost:{number}", local_ca=str(authority.file), local_dial_seconds=0.2
        )
        client = await rig.connect(request())
        await client.goes()
        assert client.received.startswith(b"HTTP/1.1 502 ")
        await rig.locals[0].goes()


# The endpoint


@ensureDeferred
async def test_connecting_ends_with_the_handshake_and_cancelling_drops_it(authority: Authority) -> None:
    async with TlsRig(authority, with_agent=False) as rig:
        from twisted.internet.endpoints import TCP4ClientEndpoint

        number = rig.local_port.getHost().port
        plain = TCP4ClientEndpoint(reactor, "127.0.0.1", number)
        endpoint = TlsEndpoint(reactor, plain, ClientTls("localhost", ca_file=authority.file), "it")
        outcomes: list[Any] = []
        made: list[Player] = []
        connecting = endpoint.connect(Made(made.append))
        connecting.addBoth(outcomes.append)
        await until(lambda: rig.locals and rig.locals[0].received)
        assert not outcomes
        assert made[0].transport is None
        connecting.cancel()
        await rig.locals[0].goes()
        assert len(outcomes) == 1
        assert made[0].lost is None


class Made(Factory):
    """Makes protocols, and reports them."""

    noisy = False

    def __init__(self, tell: Callable[[Player], None]) -> None:
        self._tell = tell

    def buildProtocol(self, addr: object) -> Player:
        player = Player()
        self._tell(player)
        return player
