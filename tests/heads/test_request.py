"""Tests of the parser of request heads: accepted and refused heads, in any segmentation."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seance.errors import LocalProtocolError, Refusal
from seance.heads import Request, RequestReader
from tests.heads.samples import cut_anywhere, head, outcome, read, single_bytes, upgrade

MALFORMED = {
    "nothing": b"\r\n\r\n",
    "leading empty line": b"\r\n" + head(),
    "tls hello": b"\x16\x03\x01\x02\x00\x01\x00",
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
    "words": b"hello there\r\n",
    "HTTP/0.9": b"GET /\r\n",
    "lower case version": head(start=b"GET / http/1.1"),
    "no version digits": head(start=b"GET / HTTP/"),
    "two spaces": head(start=b"GET  / HTTP/1.1"),
    "tab for space": head(start=b"GET\t/ HTTP/1.1"),
    "space at the end": head(start=b"GET / HTTP/1.1 "),
    "space at the front": head(start=b" GET / HTTP/1.1"),
    "space in the target": head(start=b"GET /a b HTTP/1.1"),
    "method no token": head(start=b"G(T / HTTP/1.1"),
    "target not ascii": head(start="GET /ü HTTP/1.1".encode()),
    "target control": head(start=b"GET /\x01 HTTP/1.1"),
    "target delete": head(start=b"GET /\x7f HTTP/1.1"),
    "target LF": head(start=b"GET /\nX: y HTTP/1.1"),
    "target CR": head(start=b"GET /\rX HTTP/1.1"),
    "bare LF line ends": head().replace(b"\r\n", b"\n"),
    "one bare LF": head(b"A: b\nC: d"),
    "bare LF for the empty line": b"GET / HTTP/1.1\r\nHost: a\r\n\n",
    "bare CR in a value": head(b"A: b\rC: d"),
    "bare CR before CR LF": head(b"A: b\r"),
    "NUL in a value": head(b"A: b\x00c"),
    "NUL in a name": head(b"A\x00: b"),
    "control in a value": head(b"A: b\x01c"),
    "vertical tab in a value": head(b"A: b\x0bc"),
    "escape in a value": head(b"A: \x1b[2J"),
    "delete in a value": head(b"A: b\x7f"),
    "folded": head(b"A: b", b" c"),
    "folded by a tab": head(b"A: b", b"\tc"),
    "folded first line": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "space before the colon": head(b"A : b"),
    "tab before the colon": head(b"A\t: b"),
    "no colon": head(b"A"),
    "no name": head(b": b"),
    "space in the name": head(b"A B: c"),
    "name not ascii": head("Ä: b".encode()),
    "slash in the name": head(b"A/B: c"),
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": head(b"Host: relay.example"),
    "two different hosts": head(b"hOST: other.example"),
    "length no number": head(b"Content-Length: x"),
    "length signed": head(b"Content-Length: +0"),
    "length negative": head(b"Content-Length: -1"),
    "lengths that differ": head(b"Content-Length: 0", b"Content-Length: 5"),
    "length list that differs": head(b"Content-Length: 0, 5"),
    "two codings": head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    "coding unknown": head(b"Transfer-Encoding: xchunked"),
    "coding list": head(b"Transfer-Encoding: gzip, chunked"),
    "coding by vertical tab": head(b"Transfer-Encoding:\x0bchunked"),
    "coding with a space before the colon": head(b"Transfer-Encoding : chunked"),
}

REFUSED = {
    "http_version": [
        head(start=b"GET / HTTP/1.0"),
        head(start=b"GET / HTTP/1.2"),
        head(start=b"GET / HTTP/0.9"),
        head(start=b"GET / HTTP/11"),
        head(start=b"GET / HTTP/1.10"),
        head(start=b"GET / HTTP/3"),
        b"GET / HTTP/1.0\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    "malformed_target": [
        head(start=b"GET http:///client?room=a HTTP/1.1"),
        head(start=b"GET http:/client?room=a HTTP/1.1"),
        head(start=b"GET http:client HTTP/1.1"),
        head(start=b"GET ftp://relay.example/ HTTP/1.1"),
        head(start=b"GET http://me@relay.example/ HTTP/1.1"),
        head(start=b"GET http://me:secret@relay.example/ HTTP/1.1"),
        head(start=b"GET http://relay.example:80@other.example/ HTTP/1.1"),
        head(start=b"GET http://a%20b/ HTTP/1.1"),
        head(start=b"GET http://relay.example:123456/ HTTP/1.1"),
        head(start=b"GET http://relay.example\\x/ HTTP/1.1"),
        head(start=b"GET http://relay.example/#a HTTP/1.1"),
        head(start=b"GET //relay.example:80# HTTP/1.1"),
        head(start=b"OPTIONS * HTTP/1.1"),
        head(start=b"CONNECT relay.example:443 HTTP/1.1"),
        head(start=b"GET client HTTP/1.1"),
        head(start=b"GET ?room=a HTTP/1.1"),
        head(start=b"GET /client?room=a#b HTTP/1.1"),
    ],
    "malformed_host": [
        head(host=host)
        for host in (
            b"",
            b"a b",
            b"a,b",
            b"a/b",
            b"a@b",
            b"a:b",
            b"a:123456",
            b"a:1:2",
            b"[::1",
            b"::1",
            b"a?b",
            b"a\\b",
            b"a%0d",
            "ü".encode(),
        )
    ],
    "body_not_allowed": [
        head(b"Content-Length: 1"),
        head(b"Content-Length: 00"),
        head(b"Content-Length: 10", b"Content-Length: 10"),
        head(b"Content-Length: 4", b"Transfer-Encoding: chunked"),
        head(b"Transfer-Encoding: chunked"),
        head(b"transfer-ENCODING: Chunked"),
        head(b"Content-Length: 0", b"Transfer-Encoding: chunked"),
        head(b"Transfer-Encoding: chunked", b"Content-Length: 0"),
    ],
}

SOUND = {
    "upgrade": upgrade(),
    "another method": head(start=b"DELETE /health HTTP/1.1"),
    "unknown method": head(start=b"M-SEARCH /health HTTP/1.1"),
    "host with a port": head(host=b"relay.example:8080"),
    "host IPv6": head(host=b"[2001:db8::1]:8080"),
    "host with an underscore": head(host=b"my_relay"),
    "no space after the colon": b"GET / HTTP/1.1\r\nHost:a\r\n\r\n",
    "length nought": head(b"Content-Length: 0"),
    "value with spaces inside": head(b"A: b \t c"),
    "value empty": head(b"A:"),
    "value in UTF-8": head("A: Zoë".encode()),
    "repeated fields": head(b"A: 1", b"a: 2", b"A: 1"),
    "odd target": head(start=b"GET //..//%/100%?=&&+'\"<>|{}^` HTTP/1.1"),
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
def test_malformed_head_is_refused(raw: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        RequestReader().receive(raw)
    assert (caught.value.status, caught.value.code) == (400, "malformed_request")
    assert caught.value.message.endswith(".")


@pytest.mark.parametrize(("code", "raw"), [(code, raw) for code, raws in REFUSED.items() for raw in raws])
def test_head_against_a_stricter_rule_is_refused(code: str, raw: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        RequestReader().receive(raw)
    assert (caught.value.status, caught.value.code) == (400, code)


@pytest.mark.parametrize(
    ("target", "host", "path"),
    [
        (b"http://relay.example/client?room=a", b"relay.example", b"/client?room=a"),
        (b"https://relay.example/c/a/doc?x=http://y", b"relay.example", b"/c/a/doc?x=http://y"),
        (b"ws://relay.example:8080/c/a", b"relay.example:8080", b"/c/a"),
        (b"WSS://Relay.Example/c/a", b"Relay.Example", b"/c/a"),
        (b"http://[2001:db8::1]:80/c/a", b"[2001:db8::1]:80", b"/c/a"),
        (b"http://relay.example", b"relay.example", b"/"),
        (b"http://relay.example?room=a", b"relay.example", b"/?room=a"),
        (b"http://relay.example//evil", b"relay.example", b"//evil"),
        (b"http://other.example/c/a", b"other.example", b"/c/a"),
    ],
)
def test_absolute_target_is_a_path_and_its_host_replaces_the_other(
    target: bytes, host: bytes, path: bytes
) -> None:
    """RFC 9112, 3.2.2: the host of the target is used, and Host is ignored."""
    request = read(head(b"A: b", start=b"GET " + target + b" HTTP/1.1"))
    assert request.target == path
    assert request.headers == ((b"Host", host), (b"A", b"b"))


def test_absolute_target_does_not_replace_a_missing_host_field() -> None:
    for lines in (b"", b"Host: a\r\nHost: a\r\n", b"Host: a b\r\n"):
        with pytest.raises(Refusal) as caught:
            RequestReader().receive(b"GET http://relay.example/ HTTP/1.1\r\n" + lines + b"\r\n")
        assert caught.value.status == 400


MISTAKES = {
    "there is no Host field": b"GET / HTTP/1.1\r\n\r\n",
    "more than one Host field": head(b"host: relay.example"),
    "first line contains a byte that is not ASCII": head(start="GET /ü HTTP/1.1".encode()),
    "name of a field contains a byte outside ASCII": head("Ä: b".encode()),
    "name of a field contains a space": head(b"A : b"),
    "a field has no colon": head(b"A"),
    "begins with an empty line": b"\r\n" + head(),
    "a line ends in LF without CR": head().replace(b"\r\n", b"\n"),
    "a CR without LF": head(b"A: b\rC: d"),
    "folded over two lines": head(b"A: b", b" c"),
    "control character (0x00)": head(b"A: b\x00"),
    "Transfer-Encoding": head(b"Transfer-Encoding: gzip"),
    "Content-Length is not one number": head(b"Content-Length: 0", b"Content-Length: 1"),
    "method contains a character": head(start=b"G(T / HTTP/1.1"),
    "separated by single spaces": head(start=b"GET  / HTTP/1.1"),
    "must be in capitals": head(start=b"GET / http/1.1"),
    "does not end in HTTP/1.1": head(start=b"GET /"),
    "user name": head(start=b"GET http://me@relay.example/ HTTP/1.1"),
    "fragment": head(start=b"GET /client?room=a#b HTTP/1.1"),
    "the whole server": head(start=b"OPTIONS * HTTP/1.1"),
    "for proxies": head(start=b"CONNECT relay.example:443 HTTP/1.1"),
}


@pytest.mark.parametrize(("mistake", "raw"), MISTAKES.items(), ids=MISTAKES)
def test_refusal_names_the_mistake_in_any_segmentation(mistake: str, raw: bytes) -> None:
    for pieces in ([raw], single_bytes(raw)):
        reader = RequestReader()
        with pytest.raises(Refusal) as caught:
            deque(map(reader.receive, pieces), maxlen=0)
        assert mistake in caught.value.message


def test_refusal_of_another_version_names_http_1_1() -> None:
    with pytest.raises(Refusal, match=r"^HTTP/1\.1 is needed"):
        RequestReader().receive(head(start=b"GET / HTTP/1.0"))


@pytest.mark.parametrize("raw", SOUND.values(), ids=SOUND)
def test_valid_head_is_read(raw: bytes) -> None:
    request = read(raw)
    start, *lines = raw.removesuffix(b"\r\n\r\n").split(b"\r\n")
    assert (request.method, request.target) == tuple(start.split(b" ")[:2])
    assert request.http_version == b"1.1"
    assert request.headers == tuple(
        (name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)
    )


def test_values_are_found_in_any_case_and_order() -> None:
    request = read(head(b"X-A: 1", b"x-a: 2", b"X-B: 3"))
    assert request.values(b"x-a") == [b"1", b"2"]
    assert request.values(b"x-c") == []


def test_requests_are_compared_by_value() -> None:
    assert read(upgrade()) == read(upgrade())
    assert hash(Request(b"GET", b"/", ())) == hash(Request(b"GET", b"/", ()))


class TestLimits:
    @staticmethod
    def of_length(length: int) -> bytes:
        short = head(b"A: ")
        return head(b"A: " + b"x" * (length - len(short)))

    def test_head_of_the_limit_is_read(self) -> None:
        assert RequestReader(limit_bytes=300).receive(self.of_length(300) + b"more") is not None

    def test_head_over_the_limit_is_refused(self) -> None:
        with pytest.raises(Refusal, match="300 bytes") as caught:
            RequestReader(limit_bytes=300).receive(self.of_length(301))
        assert (caught.value.status, caught.value.code) == (431, "head_too_long")

    def test_endless_head_is_refused_at_the_limit(self) -> None:
        reader = RequestReader(limit_bytes=300)
        for piece in single_bytes(self.of_length(999)[:299]):
            assert reader.receive(piece) is None
        with pytest.raises(Refusal) as caught:
            reader.receive(b"x")
        assert caught.value.status == 431

    def test_endless_line_is_refused_at_the_limit(self) -> None:
        with pytest.raises(Refusal) as caught:
            RequestReader().receive(b"G" * 16384)
        assert caught.value.status == 431

    def test_default_limit_is_sixteen_kib(self) -> None:
        assert RequestReader().receive(self.of_length(16384)) is not None
        assert RequestReader().receive(self.of_length(16385)[:16383]) is None
        with pytest.raises(Refusal):
            RequestReader().receive(self.of_length(16385))

    def test_hundred_fields_are_read_and_one_more_is_refused(self) -> None:
        assert len(read(head(*[b"A: b"] * 99)).headers) == 100
        with pytest.raises(Refusal, match="100 header fields") as caught:
            read(head(*[b"A: b"] * 100))
        assert caught.value.status == 431

    def test_trailing_bytes_do_not_count(self) -> None:
        reader = RequestReader(limit_bytes=300)
        assert reader.receive(self.of_length(300) + b"x" * 100_000) is not None
        assert reader.trailing == b"x" * 100_000


class TestGluedBytes:
    @pytest.mark.parametrize(
        "glued",
        [b"", b"\x82\x80abcd", b" \t", b"\t", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\n\n", b"\x00", head()],
    )
    def test_bytes_after_the_head_are_kept(self, glued: bytes) -> None:
        reader = RequestReader()
        assert reader.receive(upgrade() + glued) == read(upgrade())
        assert reader.trailing == glued

    @given(glued=st.binary(max_size=64), data=st.data())
    def test_no_glued_byte_is_lost_wherever_the_cuts_are(self, glued: bytes, data: st.DataObject) -> None:
        reader, request, behind = RequestReader(), None, b""
        for piece in data.draw(cut_anywhere(upgrade() + glued)):
            if request is None:
                request = reader.receive(piece)
                behind = reader.trailing
            else:
                behind += piece
        assert request == read(upgrade())
        assert behind == glued


def test_reader_reads_one_request() -> None:
    reader = RequestReader()
    reader.receive(head())
    with pytest.raises(LocalProtocolError):
        reader.receive(b"")


def test_reader_that_refused_is_over() -> None:
    reader = RequestReader()
    with pytest.raises(Refusal):
        reader.receive(b"\x00")
    with pytest.raises(LocalProtocolError):
        reader.receive(head())


def test_garbage_is_refused_before_the_head_is_complete() -> None:
    reader = RequestReader()
    assert reader.receive(b"hello") is None
    with pytest.raises(Refusal):
        reader.receive(b"\r\n")


@pytest.mark.parametrize(
    "start", [b"\x16", b"GET / HTTP/1.1\r\nA: b\x00", b"GET / HTTP/1.1\r\nA: b\rC", b"GET / \n"]
)
def test_fault_is_refused_before_the_line_is_complete(start: bytes) -> None:
    with pytest.raises(Refusal):
        RequestReader().receive(start)


Verdict = tuple[Request, int] | tuple[int, str, str] | None


def verdict(pieces: list[bytes], limit_bytes: int = 16384) -> Verdict:
    """Return the result of a reader for the pieces, and the position at which the head ends."""

    def act() -> Verdict:
        reader, taken = RequestReader(limit_bytes), 0
        for piece in pieces:
            taken += len(piece)
            if request := reader.receive(piece):
                return request, taken - len(reader.trailing)
        return None

    return outcome(act)


CORPUS = [*MALFORMED.values(), *SOUND.values(), *(raw for raws in REFUSED.values() for raw in raws)]


@pytest.mark.parametrize("raw", CORPUS)
def test_byte_by_byte_gives_the_same_result(raw: bytes) -> None:
    assert verdict(list(single_bytes(raw))) == verdict([raw])


PARTS = st.sampled_from(
    [
        *(b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b":", b"\x00", b"\x7f", b"\x80", b"GET", b"/"),
        *(
            b"GET / HTTP/1.1\r\n",
            b"GET / HTTP/1.0\r\n",
            b"Host: a\r\n",
            b"Host: b\r\n",
            b"A: b\r\n",
            b"A:\r\n",
        ),
        *(b"Content-Length: 0\r\n", b"Content-Length: 9\r\n", b"Transfer-Encoding: chunked\r\n", upgrade()),
        *(b"Upgrade: websocket\r\n", b"Content-Length: " + b"9" * 30 + b"\r\n", b"HTTP/1.1", b"x" * 60),
    ]
)
NEARLY_HEADS = st.lists(PARTS | st.binary(max_size=4), max_size=14).map(b"".join)


@settings(max_examples=settings().max_examples * 4)
@given(raw=NEARLY_HEADS, limit_bytes=st.integers(1, 400), data=st.data())
def test_any_bytes_are_a_request_or_a_refusal_in_any_segmentation(
    raw: bytes, limit_bytes: int, data: st.DataObject
) -> None:
    whole = verdict([raw], limit_bytes)
    assert verdict(list(single_bytes(raw)), limit_bytes) == whole
    assert verdict(data.draw(cut_anywhere(raw)), limit_bytes) == whole


@given(raw=st.binary(max_size=300))
def test_random_bytes_are_refused_or_an_incomplete_head(raw: bytes) -> None:
    assert isinstance(verdict([raw]), tuple | None)
