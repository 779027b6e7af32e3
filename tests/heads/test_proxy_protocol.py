"""Tests of the PROXY header: valid ones in every segmentation, and messages for invalid ones."""

from __future__ import annotations

import itertools
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seance.errors import LocalProtocolError, RemoteProtocolError
from seance.heads.proxy_protocol import (
    KEPT_BYTES,
    LONGEST_LINE,
    SIGNATURE,
    ProxyHeader,
    ProxyHeaderReader,
)

LONGEST_ADDRESS = b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
V4 = IPv4Address("203.0.113.7").packed + IPv4Address("192.0.2.1").packed + b"\x04\xd2\x01\xbb"
V6 = IPv6Address("2001:db8::7").packed + IPv6Address("2001:db8::1").packed + b"\x04\xd2\x01\xbb"
UNIX = b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0")
TLV = b"\x02\x00\x0brelay.local"


def binary(command: int, family: int, rest: bytes) -> bytes:
    """Return a header of version 2."""
    return SIGNATURE + bytes((command, family)) + len(rest).to_bytes(2, "big") + rest


def at(version: int, source: str, destination: str) -> ProxyHeader:
    return ProxyHeader(version, (ip_address(source), 1234), (ip_address(destination), 443))


FOUR, SIX = at(2, "203.0.113.7", "192.0.2.1"), at(2, "2001:db8::7", "2001:db8::1")
LEGAL: dict[str, tuple[bytes, ProxyHeader]] = {
    "UNKNOWN": (b"PROXY UNKNOWN\r\n", ProxyHeader(1)),
    "UNKNOWN and more": (b"PROXY UNKNOWN anything \x00\r goes here\r\n", ProxyHeader(1)),
    "UNKNOWN with addresses": (
        b"PROXY UNKNOWN " + LONGEST_ADDRESS + b" " + LONGEST_ADDRESS + b" 65535 65535\r\n",
        ProxyHeader(1),
    ),
    "UNKNOWN and a space": (b"PROXY UNKNOWN \r\n", ProxyHeader(1)),
    "TCP4": (b"PROXY TCP4 203.0.113.7 192.0.2.1 1234 443\r\n", at(1, "203.0.113.7", "192.0.2.1")),
    "TCP4, longest": (
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 0\r\n",
        ProxyHeader(1, (ip_address("255.255.255.255"), 65535), (ip_address("255.255.255.255"), 0)),
    ),
    "TCP6": (b"PROXY TCP6 2001:db8::7 2001:db8::1 1234 443\r\n", at(1, "2001:db8::7", "2001:db8::1")),
    "TCP6, longest": (
        b"PROXY TCP6 " + LONGEST_ADDRESS + b" " + LONGEST_ADDRESS + b" 1234 443\r\n",
        at(1, LONGEST_ADDRESS.decode(), LONGEST_ADDRESS.decode()),
    ),
    "TCP6, mapped": (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 1234 443\r\n", at(1, "::ffff:203.0.113.7", "::1")),
    "v2 LOCAL": (binary(0x20, 0, b""), ProxyHeader(2)),
    "v2 LOCAL with addresses": (binary(0x20, 0x11, V4), ProxyHeader(2)),
    "v2 LOCAL, family unknown": (binary(0x20, 0xFF, b"abc"), ProxyHeader(2)),
    "v2 LOCAL with TLVs": (binary(0x20, 0, TLV * 50), ProxyHeader(2)),
    "v2 UNSPEC": (binary(0x21, 0, b""), ProxyHeader(2)),
    "v2 UNSPEC with TLVs": (binary(0x21, 0, TLV), ProxyHeader(2)),
    "v2 INET, transport UNSPEC": (binary(0x21, 0x10, b""), ProxyHeader(2)),
    "v2 UNSPEC over TCP": (binary(0x21, 0x01, b""), ProxyHeader(2)),
    "v2 TCP4": (binary(0x21, 0x11, V4), FOUR),
    "v2 UDP4": (binary(0x21, 0x12, V4), FOUR),
    "v2 TCP4 with TLVs": (binary(0x21, 0x11, V4 + TLV), FOUR),
    "v2 TCP4, longest": (binary(0x21, 0x11, V4 + b"\x04\xff\xf0" + bytes(65520)), FOUR),
    "v2 TCP6": (binary(0x21, 0x21, V6), SIX),
    "v2 UDP6": (binary(0x21, 0x22, V6), SIX),
    "v2 TCP6 with TLVs": (binary(0x21, 0x21, V6 + TLV * 20), SIX),
    "v2 UNIX": (binary(0x21, 0x31, UNIX), ProxyHeader(2)),
    "v2 UNIX datagrams": (binary(0x21, 0x32, UNIX), ProxyHeader(2)),
    "v2 UNIX with TLVs": (binary(0x21, 0x31, UNIX + TLV), ProxyHeader(2)),
}

BEHIND = {
    "nothing": b"",
    "a request": b"GET /health HTTP/1.0\r\n\r\n",
    "another header": b"PROXY UNKNOWN\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00",
}


def read(pieces: list[bytes]) -> tuple[ProxyHeader, bytes]:
    """Feed pieces until the header is complete; later pieces count as trailing bytes."""
    reader = ProxyHeaderReader()
    for number, piece in enumerate(pieces):
        header = reader.receive(piece)
        if header is not None:
            return header, reader.trailing + b"".join(pieces[number + 1 :])
    raise AssertionError("the header is not complete")


@pytest.mark.parametrize("behind", BEHIND.values(), ids=BEHIND.keys())
@pytest.mark.parametrize(("data", "expected"), LEGAL.values(), ids=LEGAL.keys())
def test_legal_header_is_read_whole_byte_by_byte_and_at_every_cut(
    data: bytes, expected: ProxyHeader, behind: bytes
) -> None:
    whole = data + behind
    assert read([whole]) == (expected, behind)
    assert read([whole[at : at + 1] for at in range(len(whole))]) == (expected, behind)
    for at in range(min(len(whole), 300)):
        assert read([whole[:at], whole[at:]]) == (expected, behind)


@given(
    data=st.sampled_from([data for data, _ in LEGAL.values() if len(data) < 1000]),
    behind=st.binary(max_size=40),
    cuts=st.lists(st.integers(0, 400), max_size=8),
)
def test_segmentation_makes_no_difference(data: bytes, behind: bytes, cuts: list[int]) -> None:
    whole = data + behind
    edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    pieces = [whole[start:end] for start, end in itertools.pairwise(edges)]
    assert read(pieces) == read([whole])


ILLEGAL = {
    "HTTP": (b"GET / HTTP/1.1\r\n", "no PROXY header"),
    "TLS": (b"\x16\x03\x01", "no PROXY header"),
    "lower case": (b"proxy TCP4", "no PROXY header"),
    "tab": (b"PROXY\tTCP4", "no PROXY header"),
    "nearly version 2": (SIGNATURE[:11] + b"X", "no PROXY header"),
    "no family": (b"PROXY \r\n", "none of TCP4, TCP6 and UNKNOWN"),
    "UDP": (b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", "none of TCP4, TCP6 and UNKNOWN"),
    "UNKNOWN and a tail": (b"PROXY UNKNOWNS\r\n", "none of TCP4, TCP6 and UNKNOWN"),
    "TCP4 alone": (b"PROXY TCP4\r\n", "two addresses and two ports"),
    "one port": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", "two addresses and two ports"),
    "three ports": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", "two addresses and two ports"),
    "two spaces": (b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", "two addresses and two ports"),
    "space at the end": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", "two addresses and two ports"),
    "v6 in TCP4": (b"PROXY TCP4 ::1 ::1 1 2\r\n", "no address for TCP4"),
    "v4 in TCP6": (b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", "no address for TCP6"),
    "leading zero": (b"PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n", "no address for TCP4"),
    "zone": (b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", "no address for TCP6"),
    "no ASCII": (b"PROXY TCP4 \xff.2.3.4 1.2.3.4 1 2\r\n", "no address for TCP4"),
    "port too great": (b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", "is no port"),
    "port with a zero": (b"PROXY TCP4 1.2.3.4 1.2.3.4 080 2\r\n", "is no port"),
    "port signed": (b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", "is no port"),
    "LF only": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n".ljust(LONGEST_LINE, b"x"), "no CR LF"),
    "too long": (b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n", "no CR LF"),
    "version 1 in binary": (SIGNATURE + b"\x11", "version 1"),
    "command 2": (SIGNATURE + b"\x22", "command 2"),
    "family 4": (binary(0x21, 0x41, V4), "family 4"),
    "transport 3": (binary(0x21, 0x13, V4), "transport 3"),
    "TCP4 too short": (binary(0x21, 0x11, V4[:-1]), "too few"),
    "TCP6 too short": (binary(0x21, 0x21, V4), "too few"),
    "UNIX too short": (binary(0x21, 0x31, UNIX[:-1]), "too few"),
}


@pytest.mark.parametrize(("data", "why"), ILLEGAL.values(), ids=ILLEGAL.keys())
def test_invalid_header_is_refused_with_a_reason_in_any_segmentation(data: bytes, why: str) -> None:
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        reader = ProxyHeaderReader()
        with pytest.raises(RemoteProtocolError, match=why) as refused:
            feed(reader, pieces)
        assert refused.value.code == "proxy_header"
        with pytest.raises(LocalProtocolError):
            reader.receive(b"")


def feed(reader: ProxyHeaderReader, pieces: list[bytes]) -> None:
    for piece in pieces:
        assert reader.receive(piece) is None


@given(st.lists(st.binary(max_size=300), max_size=20))
@settings(max_examples=200)
def test_arbitrary_bytes_are_a_header_or_refused_and_memory_is_bounded(pieces: list[bytes]) -> None:
    reader = ProxyHeaderReader()
    try:
        for piece in pieces:
            if reader.receive(piece) is not None:
                break
            assert len(reader._buffer) <= KEPT_BYTES
    except RemoteProtocolError:
        pass


def test_tlvs_are_counted_and_not_kept() -> None:
    reader = ProxyHeaderReader()
    whole = binary(0x21, 0x11, V4 + bytes(65535 - len(V4)))
    for at in range(0, len(whole) - 1, 1000):
        assert reader.receive(whole[at : min(at + 1000, len(whole) - 1)]) is None
        assert len(reader._buffer) <= KEPT_BYTES
    assert reader.receive(b"\x00rest") == FOUR
    assert reader.trailing == b"rest"
