"""Tests of the local server's response on its way through the relay."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seance.errors import LocalProtocolError, Refusal
from seance.heads import LocalResponse
from tests.heads.samples import ACCEPT, KEY, SWITCHING, Client, answer, cut_anywhere, outcome, single_bytes

ACCEPTED = b"Sec-WebSocket-Accept: " + ACCEPT


def switching(*lines: bytes, start: bytes = b"HTTP/1.1 101 Switching Protocols") -> bytes:
    return b"\r\n".join((start, *lines, b"", b""))


def facts(local: LocalResponse) -> set[str]:
    names = ("has_begun", "is_switched", "is_finished", "is_broken")
    return {name for name in names if getattr(local, name)}


def refused(raw: bytes, *, limit_bytes: int = 16384) -> Refusal:
    local = LocalResponse(KEY, limit_bytes)
    with pytest.raises(Refusal) as caught:
        local.receive(raw)
    assert facts(local) == set()
    return caught.value


class TestSwitch:
    def test_verified_101_switches(self) -> None:
        local, passed = answer(SWITCHING)
        assert facts(local) == {"has_begun", "is_switched"}
        assert passed == (
            b"HTTP/1.1 101 Switching Protocols\r\n"
            b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )

    def test_end_to_end_fields_are_kept_byte_for_byte(self) -> None:
        _, passed = answer(
            switching(
                b"sec-websocket-PROTOCOL: chat.v2",
                b"upgrade: WebSocket",
                b"connection: keep-alive, upgrade, x-hop, sec-websocket-protocol",
                b"Keep-Alive: timeout=5",
                b"X-Hop: 1",
                b"Content-Length: 0",
                b"SEC-WebSocket-Accept:" + ACCEPT,
                b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover",
                b"Set-Cookie: a=b",
                b"Set-Cookie: c=d",
                "x-Own: Zoë".encode(),
                start=b"HTTP/1.1 101 Web Socket Protocol Handshake",
            )
        )
        assert passed == (
            b"HTTP/1.1 101 Web Socket Protocol Handshake\r\n"
            b"sec-websocket-PROTOCOL: chat.v2\r\n"
            b"SEC-WebSocket-Accept: " + ACCEPT + b"\r\n"
            b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n"
            b"Set-Cookie: a=b\r\nSet-Cookie: c=d\r\n" + "x-Own: Zoë\r\n".encode() + b"Connection: Upgrade\r\n"
            b"Upgrade: websocket\r\n\r\n"
        )

    @pytest.mark.parametrize("start", [b"HTTP/1.1 101", b"HTTP/1.1 101 "])
    def test_missing_reason_is_added(self, start: bytes) -> None:
        raw = switching(b"Upgrade: websocket", b"Connection: Upgrade", ACCEPTED, start=start)
        assert answer(raw)[1].startswith(b"HTTP/1.1 101 Switching Protocols\r\n")

    @pytest.mark.parametrize(
        "start", [b"HTTP/1.0 101 Switching Protocols", b"HTTP/1.0 101", b"HTTP/1.0 101 "]
    )
    def test_101_of_http_1_0_is_rewritten_as_1_1(self, start: bytes) -> None:
        """Chromium, ws, undici and Go accept such a 101, and the head is written anew."""
        local, passed = answer(
            switching(b"upgrade: websocket", b"CONNECTION: upgrade", ACCEPTED, start=start) + b"glued"
        )
        assert local.is_switched
        assert passed == answer(SWITCHING)[1].replace(b"\r\n\r\n", b"\r\n\r\nglued")

    @pytest.mark.parametrize("glued", [b"\x82\x03abc", b"\n", b" x", b"\r\n\r\n", b"\x00" * 70_000])
    def test_bytes_after_the_head_follow_it(self, glued: bytes) -> None:
        local, passed = answer(SWITCHING + glued)
        assert local.is_switched
        assert passed == answer(SWITCHING)[1] + glued

    @given(glued=st.binary(max_size=40), data=st.data())
    def test_no_glued_byte_is_lost_wherever_the_cuts_are(self, glued: bytes, data: st.DataObject) -> None:
        local, passed = LocalResponse(KEY), b""
        for piece in data.draw(cut_anywhere(b"HTTP/1.1 100 Continue\r\n\r\n" + SWITCHING + glued)):
            passed += piece if local.is_switched else local.receive(piece)
        assert passed == answer(SWITCHING)[1] + glued

    @pytest.mark.parametrize("status", [b"100 Continue", b"102 Processing", b"103 Early Hints"])
    def test_interim_responses_are_dropped(self, status: bytes) -> None:
        interim = b"HTTP/1.1 " + status + b"\r\nLink: </a>\r\n\r\n"
        local, passed = answer(interim)
        assert passed == b""
        assert not local.has_begun
        assert answer(interim * 3 + SWITCHING)[1] == answer(SWITCHING)[1]

    @pytest.mark.parametrize(
        "accepts",
        [
            (),
            (b"Sec-WebSocket-Accept: " + ACCEPT[:-1],),
            (b"Sec-WebSocket-Accept: " + ACCEPT.lower(),),
            (b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=",),
            (ACCEPTED, ACCEPTED),
            (ACCEPTED, b"sec-websocket-accept: other"),
            (ACCEPTED + b", " + ACCEPT,),
        ],
    )
    def test_101_that_does_not_match_the_key_is_refused(self, accepts: tuple[bytes, ...]) -> None:
        refusal = refused(switching(b"Upgrade: websocket", b"Connection: Upgrade", *accepts) + b"secret")
        assert (refusal.status, refusal.code) == (502, "accept_mismatch")

    @pytest.mark.parametrize(
        "raw",
        [
            switching(b"Upgrade: websocket", ACCEPTED),
            switching(b"Connection: Upgrade", ACCEPTED),
            switching(b"Upgrade: h2c", b"Connection: Upgrade", ACCEPTED),
            switching(b"Upgrade: websocket, h2c", b"Connection: Upgrade", ACCEPTED),
            switching(b"Upgrade: websocket", b"Connection: close", ACCEPTED),
            SWITCHING.replace(b"HTTP/1.1", b"HTTP/2.0"),
            SWITCHING.replace(b"HTTP/1.1", b"HTTP/0.9"),
            SWITCHING.replace(b"HTTP/1.1", b"http/1.1"),
        ],
    )
    def test_101_that_is_not_a_websocket_upgrade_is_refused(self, raw: bytes) -> None:
        refusal = refused(raw)
        assert (refusal.status, refusal.code) == (502, "local_server_malformed")


def selected(*lines: bytes, select: bytes | None = b"seance.v1") -> list[bytes]:
    """Return the protocols in the client's 101 if the local server's 101 has these lines."""
    local = LocalResponse(KEY, select_protocol=select)
    raw = switching(b"Upgrade: websocket", b"Connection: Upgrade", *lines, ACCEPTED)
    fields = Client(local.receive(raw)).fields
    assert local.is_switched
    return [value for name, value in fields if name == b"sec-websocket-protocol"]


class TestSelectedProtocol:
    def test_offer_is_selected_if_the_local_server_selects_none(self) -> None:
        assert selected() == [b"seance.v1"]
        assert selected(b"Sec-WebSocket-Protocol:") == [b"seance.v1"]
        assert selected(b"sec-websocket-protocol: ", b"Sec-WebSocket-Protocol:") == [b"seance.v1"]

    @pytest.mark.parametrize("choice", [b"yjs", b"never.offered", b"seance.v1"])
    def test_selection_of_the_local_server_is_kept(self, choice: bytes) -> None:
        assert selected(b"Sec-WebSocket-Protocol: " + choice) == [choice]

    def test_two_selections_are_passed_on(self) -> None:
        line = b"Sec-WebSocket-Protocol: "
        assert selected(line + b"a", line + b"b") == [b"a", b"b"]

    def test_none_is_selected_without_an_offer(self) -> None:
        assert selected(select=None) == []
        assert selected(b"Sec-WebSocket-Protocol: yjs", select=None) == [b"yjs"]

    def test_head_is_otherwise_the_same(self) -> None:
        local = LocalResponse(KEY, select_protocol=b"seance.v1")
        bare = answer(SWITCHING)[1]
        line = b"Sec-WebSocket-Protocol: seance.v1\r\n"
        assert local.receive(SWITCHING + b"\x81\x00").replace(line, b"") == bare + b"\x81\x00"

    @pytest.mark.parametrize("name", ["length", "chunked"])
    def test_nothing_is_selected_in_a_refusal(self, name: str) -> None:
        raw, _ = FINAL[name]
        assert LocalResponse(KEY, select_protocol=b"seance.v1").receive(raw) == answer(raw)[1]


MALFORMED = [
    b"\x00",
    b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    b"\r\n\r\n",
    b"HTTP/1.1\r\n\r\n",
    b"HTTP/1.1 1000 x\r\n\r\n",
    b"HTTP/1.1 099 x\r\n\r\n",
    b"HTTP/1.1 2x0 x\r\n\r\n",
    b"HTTP/2.0 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: b\x00\r\n\r\n",
    b"HTTP/1.1 200 OK\n\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    SWITCHING.replace(b"\r\n", b"\n"),
]


class TestMalformed:
    @pytest.mark.parametrize("raw", MALFORMED)
    def test_malformed_response_is_refused(self, raw: bytes) -> None:
        refusal = refused(raw)
        assert (refusal.status, refusal.code) == (502, "local_server_malformed")

    def test_head_over_the_limit_is_refused(self) -> None:
        assert answer(SWITCHING, limit_bytes=len(SWITCHING))[0].is_switched
        assert refused(SWITCHING, limit_bytes=len(SWITCHING) - 1).code == "local_server_malformed"

    def test_endless_head_is_refused_at_the_limit(self) -> None:
        local = LocalResponse(KEY, 200)
        for piece in single_bytes((b"HTTP/1.1 200 OK\r\nA: " + b"b" * 200)[:199]):
            assert local.receive(piece) == b""
        with pytest.raises(Refusal):
            local.receive(b"b")

    def test_endless_interim_responses_are_refused_at_the_limit(self) -> None:
        assert refused(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000).code == "local_server_malformed"

    def test_too_many_fields_are_refused(self) -> None:
        assert refused(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 101 + b"\r\n").status == 502

    @pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 101 Swi", b"HTTP/1.1 100 Continue\r\n\r\n"])
    def test_end_before_the_head_is_refused(self, raw: bytes) -> None:
        local = LocalResponse(KEY)
        assert local.receive(raw) == b""
        with pytest.raises(Refusal) as caught:
            local.receive_end()
        assert (caught.value.status, caught.value.code) == (502, "local_server_gone")
        assert not local.has_begun


FINAL = {
    "length": (
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\nWWW-Authenticate: Basic\r\n\r\nnope",
        b"nope",
    ),
    "no body": (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", b""),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "304 with a length": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b""),
    "chunked": (
        b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: Chunked\r\n\r\n"
        b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
        b"abc0123456789",
    ),
    "chunked with trailers": (
        b"HTTP/1.1 400 No\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Late: 1\r\n\r\n",
        b"a",
    ),
    "chunked and length": (
        b"HTTP/1.1 400 No\r\nTransfer-Encoding: chunked\r\nContent-Length: 50\r\n\r\n1\r\na\r\n0\r\n\r\n",
        b"a",
    ),
    "until the end": (b"HTTP/1.1 500 Oops\r\nServer: x\r\n\r\nsome text", b"some text"),
    "until the end, nothing": (b"HTTP/1.1 500 Oops\r\n\r\n", b""),
    "HTTP/1.0": (b"HTTP/1.0 401 Unauthorized\r\n\r\n<html>", b"<html>"),
    "HTTP/1.0 with a length": (
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok",
        b"ok",
    ),
    "status of no standard": (b"HTTP/1.1 799 \r\nContent-Length: 1\r\n\r\nx", b"x"),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx", b"x"),
}


class TestFinalAnswer:
    @pytest.mark.parametrize(("raw", "body"), FINAL.values(), ids=FINAL)
    def test_final_response_passes_through(self, raw: bytes, body: bytes) -> None:
        local, passed = answer(raw, is_ended=True)
        client = Client(passed, is_ended=False)
        assert facts(local) == {"has_begun", "is_finished"}
        assert client.status == int(raw[9:12])
        assert (client.body, client.is_whole, client.rest) == (body, True, b"")
        assert (b"connection", b"close") in client.fields

    # Hypothesis chooses the sample, because pytest-twisted cannot run a parametrized @given twice.
    @given(sample=st.sampled_from(list(FINAL.values())), data=st.data())
    def test_cuts_do_not_change_it(self, sample: tuple[bytes, bytes], data: st.DataObject) -> None:
        raw, body = sample
        _, whole = answer(raw, is_ended=True)
        for pieces in (list(single_bytes(raw)), data.draw(cut_anywhere(raw))):
            local, passed = answer(*pieces, is_ended=True)
            assert local.is_finished
            assert vars(Client(passed)) == vars(Client(whole))
            assert Client(passed).body == body

    def test_rebuilt_head(self) -> None:
        raw = (
            b"HTTP/1.1 403 Nope\r\nSERVER: x\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\n"
            b"Keep-Alive: 5\r\nUpgrade: h2c\r\nProxy-Authenticate: Basic\r\nSet-Cookie: a=b\r\n"
            b"set-cookie: c=d\r\nContent-Length: 2\r\n\r\nno"
        )
        assert answer(raw)[1] == (
            b"HTTP/1.1 403 Nope\r\nSERVER: x\r\nSet-Cookie: a=b\r\nset-cookie: c=d\r\nContent-Length: 2\r\n"
            b"Connection: close\r\n\r\nno"
        )

    def test_426_has_an_upgrade_field(self) -> None:
        raw = (
            b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 8\r\nContent-Length: 0\r\n\r\n"
        )
        fields = Client(answer(raw)[1]).fields
        assert (b"upgrade", b"websocket") in fields
        assert (b"sec-websocket-version", b"8") in fields
        assert {value for name, value in fields if name == b"connection"} == {b"upgrade", b"close"}

    def test_interim_response_before_it_is_dropped(self) -> None:
        raw, _ = FINAL["length"]
        assert answer(b"HTTP/1.1 100 Continue\r\n\r\n" + raw)[1] == answer(raw)[1]

    @pytest.mark.parametrize("name", ["length", "chunked", "no body"])
    def test_second_response_after_it_is_dropped(self, name: str) -> None:
        raw, body = FINAL[name]
        local, passed = answer(raw + SWITCHING, SWITCHING, is_ended=True)
        assert local.is_finished
        assert (Client(passed).body, Client(passed).rest) == (body, b"")

    def test_trailers_are_dropped(self) -> None:
        assert b"X-Late" not in answer(FINAL["chunked with trailers"][0])[1]

    def test_body_is_streamed(self) -> None:
        local = LocalResponse(KEY)
        assert local.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n").endswith(b"\r\n\r\n")
        for _ in range(100):
            assert local.receive(b"x" * 1000) == b"x" * 1000
        assert local.is_finished

    def test_huge_chunk_is_streamed(self) -> None:
        local = LocalResponse(KEY)
        local.receive(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n")
        assert local.receive(b"x" * 100_000) == b"186a0\r\n" + b"x" * 100_000 + b"\r\n"


BROKEN = {
    "length unmet": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", b"abc"),
    "chunk cut off": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc", b"abc"),
    "no last chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"abc"),
    "chunk without a size": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx\r\n",
        b"abc",
    ),
    "chunk without its end": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n", b"abc"),
    "endless chunk line": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3;" + b"x" * 16400,
        b"abc",
    ),
    "endless trailers": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n" + b"A: b\r\n" * 2800,
        b"abc",
    ),
}


class TestBroken:
    @pytest.mark.parametrize(("raw", "body"), BROKEN.values(), ids=BROKEN)
    def test_truncated_body_is_not_completed_for_the_client(self, raw: bytes, body: bytes) -> None:
        local, passed = answer(raw, is_ended=True)
        assert facts(local) == {"has_begun", "is_broken"}
        client_raw = passed.partition(b"\r\n\r\n")[2]
        assert body in client_raw
        assert not client_raw.endswith(b"0\r\n\r\n")

    @pytest.mark.parametrize("name", ["chunk without a size", "endless chunk line", "endless trailers"])
    def test_malformed_body_is_detected_immediately(self, name: str) -> None:
        assert answer(BROKEN[name][0])[0].is_broken

    def test_nothing_more_passes(self) -> None:
        local, _ = answer(BROKEN["chunk without a size"][0])
        assert local.receive(b"3\r\nabc\r\n") == b""
        assert local.receive_end() == b""
        assert local.is_broken


class TestMisuse:
    def test_switched_response_accepts_no_input(self) -> None:
        local, _ = answer(SWITCHING)
        with pytest.raises(LocalProtocolError):
            local.receive(b"x")
        with pytest.raises(LocalProtocolError):
            local.receive_end()

    def test_refused_response_accepts_no_input(self) -> None:
        local = LocalResponse(KEY)
        with pytest.raises(Refusal):
            local.receive(b"\x00")
        with pytest.raises(LocalProtocolError):
            local.receive(SWITCHING)

    def test_end_may_be_received_twice(self) -> None:
        local, _ = answer(FINAL["until the end"][0], is_ended=True)
        assert local.receive_end() == b""
        assert local.receive(b"late") == b""
        assert local.is_finished


def fate(pieces: list[bytes], limit_bytes: int) -> object:
    """Return everything that client and caller get; bodies without their framing."""
    local = LocalResponse(KEY, limit_bytes)
    passed: list[bytes] = []

    def act() -> None:
        passed.extend(piece if local.is_switched else local.receive(piece) for piece in pieces)
        if not local.is_switched:
            passed.append(local.receive_end())

    refusal = outcome(act)
    if local.is_finished:
        return facts(local), vars(Client(b"".join(passed)))
    return refusal, facts(local), b"" if local.is_broken else b"".join(passed)


PARTS = st.sampled_from(
    [
        *(
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.0 200 OK\r\n",
            b"HTTP/1.1 101 x\r\n",
            b"HTTP/1.1 100 x\r\n\r\n",
            SWITCHING,
        ),
        *(
            b"HTTP/1.1 204 \r\n",
            b"HTTP/1.1 426 x\r\n",
            b"\r\n",
            b"\r\n\r\n",
            b"\r",
            b"\n",
            b" ",
            b":",
            b"\x00",
            b"\xff",
        ),
        *(b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Content-Length: " + b"9" * 30 + b"\r\n"),
        *(
            b"Transfer-Encoding: chunked\r\n",
            b"Upgrade: websocket\r\n",
            b"Connection: Upgrade\r\n",
            ACCEPTED + b"\r\n",
        ),
        *(
            b"Connection: content-length\r\n",
            b"3\r\nabc\r\n",
            b"0\r\n\r\n",
            b"abc",
            b"3;x\r\n",
            b"A: b\r\n",
            b"x" * 90,
        ),
        *(b"Connection: close, \xe9, ,upgrade\r\n", b"Content_Length: 7\r\n", b"Transfer-Encoding: gzip\r\n"),
    ]
)


@settings(max_examples=settings().max_examples * 5)
@given(
    raw=st.lists(PARTS | st.binary(max_size=3), max_size=12).map(b"".join),
    limit_bytes=st.integers(1, 500),
    data=st.data(),
)
def test_segmentation_does_not_change_the_result(raw: bytes, limit_bytes: int, data: st.DataObject) -> None:
    whole = fate([raw], limit_bytes)
    assert fate(data.draw(cut_anywhere(raw)), limit_bytes) == whole
    assert fate(list(single_bytes(raw)), limit_bytes) == whole


@given(raw=st.binary(max_size=200))
def test_random_bytes_are_refused_or_incomplete(raw: bytes) -> None:
    assert fate([raw], 16384) is not None
