"""After the 101 the tunnel copies bytes: frames, closes, ends and resets arrive as they were sent.

The tests compare bytes, not messages. A tunnel that decoded and re-encoded WebSocket messages would change
masks, fragments or extension bits and fail here.
"""

from __future__ import annotations

import os
import threading
import time
import zlib
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import NegotiationError
from websockets.sync.client import connect

from tests.e2e.wire import Exchange, Listener, frame, read_frame, switching
from tests.processes import DEADLINE_SECONDS, running_node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Tunnel, TunnelMaker

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MIB = 1024 * 1024
CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4205]
CODES += [4400, 4401, 4403, 4404, 4408, 4499, 4500, 4999]
LONGEST_REASON = ("ä" * 61 + "!").encode()


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    with Listener() as listener:
        yield listener


@pytest.fixture(scope="module")
def shared(listener: Listener, tunnel: TunnelMaker) -> Tunnel:
    return tunnel(listener.port)


@pytest.fixture
def exchange(listener: Listener, shared: Tunnel) -> Iterator[Exchange]:
    with Exchange.open(shared.address, shared.target("/doc"), listener) as exchange:
        yield exchange


def carried(exchange: Exchange, from_client: bytes, from_server: bytes) -> None:
    """Send in both directions from threads, and read both: each end gets exactly the bytes that the other
    sent.
    """
    sending = [
        threading.Thread(target=exchange.client.send, args=(from_client,)),
        threading.Thread(target=exchange.server.send, args=(from_server,)),
    ]
    for thread in sending:
        thread.start()
    at_server = exchange.server.read_exactly(len(from_client))
    at_client = exchange.client.read_exactly(len(from_server))
    for thread in sending:
        thread.join()
    # Without the comparison in the message: a failure would print megabytes.
    assert (at_server == from_client, at_client == from_server) == (True, True)


def silent_to_the_end(exchange: Exchange) -> None:
    """Check that no further bytes arrived."""
    exchange.client.finish()
    assert exchange.server.read_to_end() == b""
    exchange.server.finish()
    assert exchange.client.read_to_end() == b""


SIZES = [0, 1, 125, 126, 65_535, 65_536, 256 * 1024 - 1, 256 * 1024, 256 * 1024 + 1, 8 * MIB]


@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
@pytest.mark.parametrize("size", SIZES)
def test_a_message_of_any_size_keeps_its_bytes(exchange: Exchange, opcode: int, size: int) -> None:
    payload = os.urandom(size) if opcode == BINARY else (b"text " * (size // 5 + 1))[:size]
    carried(exchange, frame(opcode, payload, masked=True), frame(opcode, payload))
    silent_to_the_end(exchange)


def test_a_bulk_transfer_never_waits_for_a_timer(listener: Listener, shared: Tunnel) -> None:
    """A closed window opens when its bytes are read, not when the next keepalive is due.

    Every connection fills its windows again. A transfer that waits for a 5 s keepalive exceeds the bound; the
    test asserts no other speed for the 64 MiB.
    """
    message = frame(BINARY, bytes(8 * MIB))
    began_seconds = time.monotonic()
    for _ in range(8):
        with Exchange.open(shared.address, shared.target("/doc"), listener) as exchange:
            carried(exchange, message, message)
    assert time.monotonic() - began_seconds < DEADLINE_SECONDS


def test_fragments_with_a_ping_between_them_are_unchanged(exchange: Exchange) -> None:
    def conversation(*, masked: bool) -> bytes:
        return b"".join(
            [
                frame(TEXT, b"a", final=False, masked=masked),
                frame(CONTINUATION, b"", final=False, masked=masked),
                frame(PING, b"between", masked=masked),
                frame(CONTINUATION, b"b" * 70_000, final=False, masked=masked),
                frame(PONG, masked=masked),
                frame(CONTINUATION, b"c", masked=masked),
            ]
        )

    carried(exchange, conversation(masked=True), conversation(masked=False))
    silent_to_the_end(exchange)


def test_pings_and_unsolicited_pongs_pass_unanswered(exchange: Exchange) -> None:
    """Up to 125 bytes of payload. The other end answers, not the tunnel."""
    pings = [b"", b"x", os.urandom(125)]
    at_client = b"".join(frame(opcode, payload) for opcode in (PING, PONG) for payload in pings)
    at_server = b"".join(frame(opcode, payload, masked=True) for opcode in (PING, PONG) for payload in pings)
    carried(exchange, at_server, at_client)
    silent_to_the_end(exchange)


@pytest.mark.parametrize("compressed", [True, False])
def test_permessage_deflate_is_negotiated_and_data_stays_compressed(
    compressed: bool, listener: Listener, shared: Tunnel
) -> None:
    offer = b"permessage-deflate; client_max_window_bits; server_max_window_bits=10"
    choice = b"permessage-deflate; server_max_window_bits=10" if compressed else b""
    text = b"the same words again and again " * 4000
    deflating = zlib.compressobj(wbits=-10)
    squeezed = (deflating.compress(text) + deflating.flush(zlib.Z_SYNC_FLUSH))[:-4]
    payload = squeezed if compressed else text
    opening = Exchange.open(
        shared.address,
        shared.target("/doc"),
        listener,
        offered=b"Sec-WebSocket-Extensions: " + offer + b"\r\n",
        chosen=b"Sec-WebSocket-Extensions: " + choice + b"\r\n" if compressed else b"",
    )
    with opening as exchange:
        assert exchange.request.all(b"Sec-WebSocket-Extensions") == [offer]
        assert exchange.answer.all(b"Sec-WebSocket-Extensions") == ([choice] if compressed else [])
        exchange.server.send(frame(TEXT, payload, rsv1=compressed))
        first, seen = read_frame(exchange.client.read_exactly)
        assert bool(first & 0x40) == compressed
        assert len(seen) == len(payload)
        if compressed:
            seen = zlib.decompressobj(wbits=-10).decompress(seen + b"\x00\x00\xff\xff")
        assert seen == text
        carried(exchange, frame(TEXT, payload, rsv1=compressed, masked=True), frame(TEXT, payload))
        silent_to_the_end(exchange)


@pytest.mark.parametrize("offered", [b"y.two, y.chosen", b"only", b""])
@pytest.mark.parametrize("chosen", [b"y.chosen", b"not-offered", b""])
def test_subprotocols_are_negotiated_by_the_two_ends(
    offered: bytes, chosen: bytes, listener: Listener, shared: Tunnel
) -> None:
    """The tunnel adds none, and the client rejects a choice that it did not offer."""
    header = b"Sec-WebSocket-Protocol"
    opening = Exchange.open(
        shared.address,
        shared.target("/doc"),
        listener,
        offered=header + b": " + offered + b"\r\n" if offered else b"",
        chosen=header + b": " + chosen + b"\r\n" if chosen else b"",
    )
    with opening as exchange:
        assert exchange.request.all(header) == ([offered] if offered else [])
        assert exchange.answer.all(header) == ([chosen] if chosen else [])


def test_close_codes_and_reasons_arrive_both_ways(listener: Listener, shared: Tunnel) -> None:
    assert len(LONGEST_REASON) == 123
    for number, code in enumerate(CODES):
        payload = code.to_bytes(2, "big") + (LONGEST_REASON if number % 2 == 0 else b"")
        with Exchange.open(shared.address, shared.target("/doc"), listener) as exchange:
            exchange.server.send(frame(CLOSE, payload))
            assert read_frame(exchange.client.read_exactly) == (0x88, payload)
            exchange.client.send(frame(CLOSE, payload, masked=True))
            assert read_frame(exchange.server.read_exactly) == (0x88, payload)
            # After the closing handshake the server ends the connection, and the client sees that end.
            exchange.server.finish()
            assert exchange.client.read_to_end() == b""


def test_a_fin_without_a_close_frame_ends_one_direction(exchange: Exchange) -> None:
    exchange.client.send(frame(TEXT, b"last words", masked=True))
    exchange.client.finish()
    assert read_frame(lambda count: exchange.server.read_exactly(count)) == (0x81, b"last words")
    assert exchange.server.read_to_end() == b""
    answer = frame(BINARY, b"still here" * 10_000)
    exchange.server.send(answer)
    exchange.server.finish()
    assert exchange.client.read_to_end() == answer


def test_a_fin_of_the_server_ends_one_direction(exchange: Exchange) -> None:
    answer = frame(BINARY, b"bye" * 100_000)
    exchange.server.send(answer)
    exchange.server.finish()
    assert exchange.client.read_to_end() == answer
    exchange.client.send(frame(TEXT, b"still here", masked=True))
    assert read_frame(exchange.server.read_exactly) == (0x81, b"still here")


def test_a_reset_of_the_client_is_a_reset_at_the_server(exchange: Exchange) -> None:
    carried(exchange, frame(TEXT, b"up", masked=True), frame(TEXT, b"down"))
    exchange.client.cut()
    with pytest.raises(ConnectionResetError):
        exchange.server.read_to_end()


def test_a_reset_of_the_server_is_a_reset_at_the_client(exchange: Exchange) -> None:
    carried(exchange, frame(TEXT, b"up", masked=True), frame(TEXT, b"down"))
    exchange.server.cut()
    with pytest.raises(ConnectionResetError):
        exchange.client.read_to_end()


@pytest.mark.parametrize("deflate", ["0", "1"], ids=["plain", "deflate"])
def test_two_websocket_libraries_agree_through_the_tunnel(deflate: str, tunnel: TunnelMaker) -> None:
    """websockets for Python is the client and ws for Node the server; the negotiated options work."""
    env = {"PORT": "0", "DEFLATE": deflate}
    with running_node("echo_server.mjs", ready="running at", env=env) as server:
        port = int(server.output.rsplit(" ", 1)[1])
        url = f"{tunnel(port).client_url}/doc"
        with connect(url, subprotocols=["y.other", "y.chosen"], max_size=None) as client:  # type: ignore[list-item]
            assert client.subprotocol == "y.chosen"
            assert len(client.protocol.extensions) == int(deflate)
            for message in ("", "text ü", b"", b"\x00\xff" * 200_000, "x" * 300_000):
                client.send(message)
                assert client.recv() == message
        with connect(url, subprotocols=["y.other"]) as client:  # type: ignore[list-item]
            assert client.subprotocol is None


def test_a_client_rejects_a_subprotocol_that_it_did_not_offer(listener: Listener, shared: Tunnel) -> None:
    """The tunnel passes the mismatch on, and the client's library raises the error."""

    def answer() -> None:
        with listener.accept() as server:
            request = server.read_head()
            [key] = request.all(b"Sec-WebSocket-Key")
            server.send(switching(key, b"Sec-WebSocket-Protocol: unasked\r\n"))
            server.read_to_end()

    answering = threading.Thread(target=answer)
    answering.start()
    with pytest.raises(NegotiationError):
        connect(f"{shared.client_url}/doc", subprotocols=["asked"])  # type: ignore[list-item]
    answering.join()
