"""Tests of the check of WebSocket upgrades, and of the refusals."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seance.errors import Refusal
from seance.heads import accept_for_key, check_upgrade
from tests.heads.samples import ACCEPT, KEY, head, read, upgrade

VERSION = b"Sec-WebSocket-Version: 13"
KEY_LINE = b"Sec-WebSocket-Key: " + KEY


def refused(raw: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        check_upgrade(read(raw))
    return caught.value


def test_example_of_the_rfc() -> None:
    assert accept_for_key(KEY) == ACCEPT


def test_valid_upgrade_returns_its_key() -> None:
    assert check_upgrade(read(upgrade())) == KEY


@pytest.mark.parametrize(
    "lines",
    [
        (b"upgrade: WebSocket", b"connection: upgrade"),
        (b"Upgrade: websocket", b"Connection: keep-alive, Upgrade"),
        (b"Upgrade: websocket", b"Connection: keep-alive", b"Connection: UPGRADE"),
        (b"Upgrade: websocket", b"Connection: ,Upgrade\t, close,"),
    ],
)
def test_case_and_other_connection_options_do_not_matter(lines: tuple[bytes, ...]) -> None:
    assert check_upgrade(read(head(*lines, VERSION, KEY_LINE))) == KEY


@pytest.mark.parametrize("method", [b"POST", b"HEAD", b"OPTIONS", b"CONNECT", b"get", b"GETT"])
def test_another_method_is_refused(method: bytes) -> None:
    refusal = refused(upgrade(start=method + b" /client?room=a HTTP/1.1"))
    assert (refusal.status, refusal.code) == (405, "method_not_allowed")
    assert (b"Allow", b"GET") in refusal.headers


@pytest.mark.parametrize(
    "lines",
    [
        (),
        (b"Upgrade: websocket",),
        (b"Connection: Upgrade",),
        (b"Upgrade: websocket", b"Connection: keep-alive"),
        (b"Upgrade: websocket", b"Connection: upgraded"),
        (b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABkAARAAAAA"),
        (b"Upgrade: h2c, websocket", b"Connection: Upgrade"),
        (b"Upgrade: websocket, h2c", b"Connection: Upgrade"),
        (b"Upgrade: h2c", b"Upgrade: websocket", b"Connection: Upgrade"),
        (b"Upgrade: websocket", b"Upgrade: websocket", b"Connection: Upgrade"),
        (b"Upgrade: TLS/1.0, HTTP/1.1", b"Connection: Upgrade"),
        (b"Upgrade: websocket/13", b"Connection: Upgrade"),
        (b"Upgrade: ,websocket", b"Connection: Upgrade"),
        (b"Upgrade:", b"Connection: Upgrade"),
        (b"Upgrade: web socket", b"Connection: Upgrade"),
    ],
)
def test_request_for_another_protocol_is_refused(lines: tuple[bytes, ...]) -> None:
    refusal = refused(head(*lines, VERSION, KEY_LINE))
    assert (refusal.status, refusal.code) == (426, "not_a_websocket")
    assert "this address speaks WebSocket" in refusal.message
    assert set(refusal.headers) == {(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade")}


@pytest.mark.parametrize(
    "versions",
    [
        (),
        (b"7",),
        (b"777",),
        (b"8",),
        (b"13", b"13"),
        (b"13", b"8"),
        (b"13, 8",),
        (b"013",),
        (b"13.0",),
        (b"",),
    ],
)
def test_another_websocket_version_is_refused(versions: tuple[bytes, ...]) -> None:
    lines = [b"Sec-WebSocket-Version: " + version for version in versions]
    refusal = refused(head(b"Upgrade: websocket", b"Connection: Upgrade", KEY_LINE, *lines))
    assert (refusal.status, refusal.code) == (426, "websocket_version")
    assert (b"Sec-WebSocket-Version", b"13") in refusal.headers


@pytest.mark.parametrize(
    "keys",
    [
        (),
        (KEY, KEY),
        (b"",),
        (b"x",),
        (KEY[:-1],),
        (KEY + b"=",),
        (KEY[:-2],),
        (KEY[:-3] + b"===",),
        (b"-" + KEY[1:],),
        (b" ".join((KEY[:12], KEY[12:])),),
        (base64.b64encode(b"x" * 15),),
        (base64.b64encode(b"x" * 17),),
        (KEY + b", " + KEY,),
    ],
)
def test_key_that_is_not_one_of_sixteen_bytes_is_refused(keys: tuple[bytes, ...]) -> None:
    lines = [b"Sec-WebSocket-Key: " + key for key in keys]
    refusal = refused(head(b"Upgrade: websocket", b"Connection: Upgrade", VERSION, *lines))
    assert (refusal.status, refusal.code) == (400, "websocket_key")


@given(st.binary(min_size=16, max_size=16))
def test_every_key_of_sixteen_bytes_is_accepted(nonce: bytes) -> None:
    key = base64.b64encode(nonce)
    lines = (b"Upgrade: websocket", b"Connection: Upgrade", VERSION, b"Sec-WebSocket-Key: " + key)
    assert check_upgrade(read(head(*lines))) == key
