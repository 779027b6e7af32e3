"""A client's connection through relay and agent: the upgrade, its refusals, and both kinds of end."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.logger import LogEvent, globalLogPublisher

from seance.core.events import ClientBegan, Event
from tests.relay.rig import KEY, Rig, answer_101, reactor, request, turn, until


def status(received: bytes) -> int:
    return int(received.split(b" ", 2)[1])


@ensureDeferred
async def test_the_local_server_gets_one_rebuilt_request_and_the_client_its_answer() -> None:
    async with Rig() as rig:
        client = await rig.connect(request("/client/doc?room=r&x=1", "X-App: Yes", host="public.example"))
        local = await rig.local()
        head = local.received
        number = rig.local_port.getHost().port
        assert head.startswith(b"GET /doc?x=1 HTTP/1.1\r\n")
        assert b"Host: 127.0.0.1:%d\r\n" % number in head
        assert b"X-App: Yes\r\n" in head
        assert b"X-Forwarded-For: 127.0.0.1\r\n" in head
        assert b"X-Forwarded-Proto: http\r\n" in head
        assert b"X-Forwarded-Host: public.example\r\n" in head
        local.send(answer_101() + b"first frame")
        await client.receives(b"first frame")
        assert client.received.startswith(b"HTTP/1.1 101 ")


@ensureDeferred
async def test_keep_host_passes_the_clients_host() -> None:
    async with Rig(agent={"keep_host": True}) as rig:
        await rig.connect(request(host="public.example"))
        assert b"Host: public.example\r\n" in (await rig.local()).received


@ensureDeferred
async def test_early_bytes_pass_after_the_101_only() -> None:
    async with Rig() as rig:
        client = await rig.connect(request() + b"glued")
        local = await rig.local()
        client.send(b" and more")
        await turn(0.05)
        assert local.received.endswith(b"\r\n\r\n")
        local.send(answer_101())
        await local.receives(b"glued and more")


@ensureDeferred
async def test_a_client_with_too_many_early_bytes_is_paused_and_loses_nothing() -> None:
    async with Rig(relay={"early_bytes": 1000}) as rig:
        early = b"x" * 3_000_000
        client = await rig.connect(request() + early)
        local = await rig.local()
        await turn(0.05)
        assert local.received.endswith(b"\r\n\r\n")
        local.received = b""
        local.send(answer_101())
        await until(lambda: len(local.received) == len(early))
        assert client.lost is None


@ensureDeferred
async def test_an_end_before_the_101_passes_after_it() -> None:
    async with Rig() as rig:
        client = await rig.connect(request() + b"all I have")
        local = await rig.local()
        client.leg.loseWriteConnection()
        await turn(0.05)
        assert not local.has_ended
        local.send(answer_101())
        await local.receives(b"all I have")
        await local.ends()
        local.send(b"the answer")
        await client.receives(b"the answer")


@ensureDeferred
async def test_a_refusal_of_the_local_server_passes_with_its_body_and_closes_both_sides() -> None:
    async with Rig() as rig:
        client = await rig.connect(request() + b"GET /smuggled HTTP/1.1\r\n\r\n")
        local = await rig.local()
        local.send(b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 4\r\n\r\nno!\n")
        await client.ends()
        assert status(client.received) == 401
        assert b"WWW-Authenticate: Basic\r\n" in client.received
        assert client.received.endswith(b"\r\n\r\nno!\n")
        await local.closes_in_order()
        assert b"smuggled" not in local.received


@ensureDeferred
async def test_a_long_refusal_without_a_length_passes_under_backpressure() -> None:
    async with Rig() as rig:
        client = await rig.connect(request())
        local = await rig.local()
        body = b"z" * 2_000_000
        client.leg.pauseProducing()
        local.send(b"HTTP/1.1 503 Busy\r\n\r\n" + body)
        local.leg.loseWriteConnection()
        await turn(0.05)
        client.leg.resumeProducing()
        await client.ends()
        assert client.received.count(b"z") == len(body)


@ensureDeferred
async def test_an_incomplete_refusal_cuts_the_client() -> None:
    async with Rig() as rig:
        client = await rig.connect(request())
        local = await rig.local()
        local.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 100\r\n\r\nhalf")
        await client.receives(b"half")
        local.leg.loseConnection()
        assert (await client.goes()).check(ConnectionLost)


@ensureDeferred
async def test_a_refusal_with_a_reset_stream_cuts_the_client() -> None:
    async with Rig() as rig:
        client = await rig.connect(request())
        local = await rig.local()
        local.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 100\r\n\r\nhalf")
        await client.receives(b"half")
        local.leg.abortConnection()
        assert (await client.goes()).check(ConnectionLost)


@ensureDeferred
async def test_a_101_for_another_key_is_502() -> None:
    async with Rig() as rig:
        client = await rig.connect(request() + b"secret")
        local = await rig.local()
        local.send(answer_101(KEY[::-1]))
        await client.ends()
        assert status(client.received) == 502
        await local.closes_in_order()
        assert b"secret" not in local.received


@ensureDeferred
async def test_a_local_server_that_closes_before_it_answers_is_502() -> None:
    async with Rig() as rig:
        client = await rig.connect(request())
        (await rig.local()).leg.loseConnection()
        await client.ends()
        assert status(client.received) == 502
        assert b"closed the connection before it answered" in client.received


@ensureDeferred
async def test_a_local_server_that_resets_before_it_answers_is_502() -> None:
    async with Rig() as rig:
        client = await rig.connect(request())
        (await rig.local()).leg.abortConnection()
        await client.ends()
        assert status(client.received) == 502
        assert b"closed the connection before the local server answered" in client.received


@ensureDeferred
async def test_an_agent_that_does_not_accept_a_stream_is_502_with_its_own_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("seance.agent.relay_link.REFUSED_STREAMS", 0)
    async with Rig(agent={"streams": 1}) as rig:
        await rig.connect(request())
        await rig.local()
        client = await rig.connect(request())
        await client.ends()
        assert status(client.received) == 502
        assert b"The agent of this room did not accept the connection" in client.received
        assert b"local server" not in client.received


@ensureDeferred
async def test_a_local_server_that_does_not_listen_is_502() -> None:
    async with Rig(agent={"local": "127.0.0.1:1"}) as rig:
        news = []
        rig.agent.on_status(lambda status: news.append(status.sentence))
        client = await rig.connect(request())
        await client.ends()
        assert status(client.received) == 502
        assert b"does not take connections" in client.received
        assert any("127.0.0.1:1 does not take connections" in sentence for sentence in news)
        assert rig.agent.status.state.value == "connected"


@ensureDeferred
async def test_a_local_server_that_never_answers_is_502() -> None:
    async with Rig(relay={"upgrade_seconds": 0.1}) as rig:
        client = await rig.connect(request())
        local = await rig.local()
        await client.ends()
        assert status(client.received) == 502
        assert b"did not answer within 0.1 s" in client.received
        await local.closes_in_order()


@ensureDeferred
async def test_an_answer_that_never_finishes_is_cut() -> None:
    async with Rig(relay={"upgrade_seconds": 0.2}) as rig:
        client = await rig.connect(request())
        local = await rig.local()
        local.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await client.receives(b"half")
        assert (await client.goes()).check(ConnectionLost)
        await local.closes_in_order()


@ensureDeferred
async def test_a_client_that_disconnects_before_the_answer_leaves_nothing_behind() -> None:
    async with Rig() as rig:
        client = await rig.connect(request())
        local = await rig.local()
        client.leg.abortConnection()
        await local.closes_in_order()
        await until(lambda: rig.relay.rooms.client_count == 0 and rig.agent.client_count == 0)


@ensureDeferred
async def test_only_upgraded_clients_are_logged_at_their_end() -> None:
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    try:
        async with Rig() as rig:
            early = await rig.connect(request())
            early_local = await rig.local()
            early.leg.abortConnection()
            await early_local.ends()
            early_local.leg.loseConnection()
            await until(lambda: rig.agent.client_count == 0)
            client, _local = await rig.joined()
            client.leg.abortConnection()
            await until(lambda: rig.agent.client_count == 0)
    finally:
        globalLogPublisher.removeObserver(events.append)
    ended = [event["reason"] for event in events if event.get("event") == "client.ended"]
    assert ended == ["near_gone"]


class Recorder:
    """An observer that records the client connections."""

    def __init__(self) -> None:
        self.clients: list[Any] = []

    def notify(self, event: Event) -> None:
        if isinstance(event, ClientBegan):
            self.clients.append(event.client)


@ensureDeferred
async def test_a_client_that_is_ended_within_an_answer_gets_no_second_answer() -> None:
    async with Rig() as rig:
        rig.relay.context.observer = recorder = Recorder()
        client = await rig.connect(request())
        local = await rig.local()
        local.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\nhalf a body")
        await client.receives(b"half a body")
        recorder.clients[0].end("Its token is no longer good.")
        await client.goes()
        assert client.received.count(b"HTTP/1.1") == 1
        local.leg.loseConnection()
        await until(lambda: rig.relay.rooms.client_count == 0 and rig.agent.client_count == 0)


@ensureDeferred
async def test_an_agent_that_disconnects_during_the_upgrade_is_503() -> None:
    async with Rig() as rig:
        client = await rig.connect(request())
        await rig.local()
        await rig.agent.stopService()
        await client.ends()
        assert status(client.received) == 503
        assert b"Retry-After: " in client.received


@ensureDeferred
async def test_an_end_of_data_passes_as_an_end_of_data() -> None:
    async with Rig() as rig:
        client, local = await rig.joined()
        client.send(b"question")
        client.leg.loseWriteConnection()
        await local.receives(b"question")
        await local.ends()
        assert local.lost is None
        local.send(b"answer")
        local.leg.loseConnection()
        await client.receives(b"answer")
        await client.ends()
        await until(lambda: rig.relay.rooms.client_count == 0 and rig.agent.client_count == 0)


@ensureDeferred
async def test_a_close_of_the_local_server_reaches_the_client_after_the_last_byte() -> None:
    async with Rig() as rig:
        client, local = await rig.joined()
        local.send(b"y" * 500_000)
        local.leg.loseConnection()
        await client.ends()
        assert len(client.received) == 500_000
        client.leg.loseConnection()
        assert (await client.goes()).check(ConnectionDone)


@ensureDeferred
async def test_a_reset_of_the_client_is_a_reset_at_the_local_server() -> None:
    async with Rig() as rig:
        client, local = await rig.joined()
        client.leg.abortConnection()
        assert (await local.goes()).check(ConnectionLost)


@ensureDeferred
async def test_a_reset_of_the_local_server_is_a_reset_at_the_client() -> None:
    async with Rig() as rig:
        client, local = await rig.joined()
        local.leg.abortConnection()
        assert (await client.goes()).check(ConnectionLost)


@ensureDeferred
async def test_a_half_closed_silent_connection_times_out() -> None:
    async with Rig(relay={"half_close_seconds": 0.1}) as rig:
        client, local = await rig.joined()
        local.leg.loseWriteConnection()
        await client.ends()
        assert (await local.goes()).check(ConnectionLost)
        await until(lambda: rig.relay.rooms.client_count == 0 and rig.agent.client_count == 0)


@ensureDeferred
async def test_a_half_closed_connection_that_still_sends_does_not_time_out() -> None:
    async with Rig(relay={"half_close_seconds": 0.2}) as rig:
        client, local = await rig.joined()
        client.leg.loseWriteConnection()
        for _ in range(10):
            local.send(b".")
            await turn(0.05)
        await client.receives(b"." * 10)
        assert client.lost is None


@ensureDeferred
async def test_a_client_that_does_not_read_pauses_its_local_server_only() -> None:
    async with Rig() as rig:
        slow, slow_local = await rig.joined()
        quick, quick_local = await rig.joined()
        slow.leg.pauseProducing()
        sent = b"s" * 30_000_000
        slow_local.send(sent)
        for number in range(20):
            quick_local.send(b"ping %d;" % number)
            await quick.receives(b"ping %d;" % number)
        await turn(0.05)
        assert len(slow_local.leg.dataBuffer) + slow_local.leg._tempDataLen > 10_000_000
        slow.leg.resumeProducing()
        await until(lambda: len(slow.received) == len(sent))


@ensureDeferred
async def test_a_disconnected_agent_closes_its_clients_with_1012(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("seance.relay.edge.client_connection.GRACEFUL_CLOSE_SECONDS", 1000.0)
    async with Rig() as rig:
        client, local = await rig.joined()
        local.send(b"\x82\x05hello")
        await client.receives(b"hello")
        await rig.agent.stopService()
        await client.ends()
        assert client.received.startswith(b"\x82\x05hello\x88")
        assert client.received[9:11] == (1012).to_bytes(2, "big")
        client.leg.loseConnection()
        assert (await client.goes()).check(ConnectionDone)
        await local.goes()


@ensureDeferred
async def test_a_frame_that_began_behind_the_101_is_parsed_to_its_end() -> None:
    async with Rig() as rig:
        client = await rig.connect(request())
        local = await rig.local()
        local.send(answer_101() + b"\x82\x05hel")
        await client.receives(b"hel")
        local.send(b"lo")
        await client.receives(b"lo")
        await rig.agent.stopService()
        await client.ends()
        assert b"\x82\x05hello\x88" in client.received


@ensureDeferred
async def test_an_agent_that_stops_sends_its_queued_bytes() -> None:
    """Also to a client that does not read for a while: its window, the queues and the sockets are full."""
    size = 6_000_000
    async with Rig(agent={"drain_seconds": 40.0}) as rig:
        client, local = await rig.joined()
        client.leg.pauseProducing()
        local.send(b"\x82\x7f" + size.to_bytes(8, "big") + bytes(size))
        relay_link = rig.agent._relay_link
        assert relay_link is not None
        await until(lambda: relay_link.mux.queued_bytes > 0)
        stopping = rig.agent.stopService()
        await turn(0.05)
        client.leg.resumeProducing()
        await stopping
        await client.ends()
        assert len(client.received) > size
        assert client.received[size + 10 : size + 11] == b"\x88"


@ensureDeferred
async def test_bytes_that_have_arrived_at_the_relay_survive_the_end_of_the_link() -> None:
    async with Rig() as rig:
        client, local = await rig.joined()
        client.leg.pauseProducing()
        local.send(bytes(6_000_000))
        mux = rig.relay.rooms._table.find("r")._mux
        assert mux is not None
        [stream] = mux._streams.values()
        await until(lambda: stream._is_paused and stream._incoming)
        await turn(0.05)
        arrived = stream.protocol.received_bytes + sum(map(len, stream._incoming))  # type: ignore[union-attr]
        rig.relay.rooms._table.find("r").cut()
        client.leg.resumeProducing()
        await client.ends()
        assert len(client.received) == arrived


@ensureDeferred
async def test_an_agent_that_disconnects_within_a_frame_ends_its_clients_without_a_close_frame() -> None:
    async with Rig() as rig:
        client, local = await rig.joined()
        local.send(b"\x82\x05hel")
        await client.receives(b"hel")
        await rig.agent.stopService()
        await client.ends()
        assert client.received == b"\x82\x05hel"


@ensureDeferred
async def test_a_client_of_an_ended_local_connection_gets_no_close_frame() -> None:
    async with Rig() as rig:
        client, local = await rig.joined()
        local.send(b"\x82\x05hello")
        local.leg.loseWriteConnection()
        await client.ends()
        await rig.agent.stopService()
        await turn(0.05)
        assert client.received == b"\x82\x05hello"


@ensureDeferred
async def test_a_half_closed_client_is_closed_in_order_when_the_agent_disconnects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("seance.relay.edge.client_connection.GRACEFUL_CLOSE_SECONDS", 1000.0)
    async with Rig() as rig:
        client, local = await rig.joined()
        client.leg.loseWriteConnection()
        await local.ends()
        await rig.agent.stopService()
        await client.ends()
        assert client.received[:1] == b"\x88"
        await until(lambda: len(rig.relay._departures) == 0)


@pytest.mark.slow
@ensureDeferred
async def test_100_rounds_leave_nothing_behind() -> None:
    """Streams, descriptors and delayed calls; the fixture ``watch`` checks the last two."""
    async with Rig() as rig:
        for number in range(100):
            client, local = await rig.joined()
            client.send(b"round %d" % number)
            await local.receives(b"round %d" % number)
            if number % 3 == 0:
                client.leg.abortConnection()
            elif number % 3 == 1:
                local.leg.loseConnection()
                await client.ends()
                client.leg.loseConnection()
            else:
                client.leg.loseConnection()
                await local.ends()
                local.leg.loseConnection()
            await client.goes()
            await local.goes()
        await until(lambda: rig.relay.rooms.client_count == 0 and rig.agent.client_count == 0)
        assert rig.agent._relay_link is not None
        assert rig.agent._relay_link.mux.session.stream_count == 0
        calls = [call for call in reactor.getDelayedCalls() if "seance" in str(call)]
        ticking = (
            "CarrierHeartbeat._check",
            "WakeDetector._look",
            "ResumableTransport._send_ack",
            "Mux._timed_out",
        )
        assert all(any(tick in str(call) for tick in ticking) for call in calls), (
            "nothing but what looks for life"
        )
