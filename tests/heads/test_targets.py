"""Tests of all forms of request targets, as provider libraries send them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seance.errors import Refusal
from seance.heads import Route, RouteKind, resolve_target
from tests.heads.samples import outcome

LOCAL = [
    # The first version's form, and Hocuspocus.
    (b"/client?room=ID", b"/"),
    (b"/client?room=ID&x=1", b"/?x=1"),
    (b"/client?x=1&room=ID", b"/?x=1"),
    (b"/client?x=1&room=ID&y=2", b"/?x=1&y=2"),
    (b"/client/?room=ID", b"/"),
    (b"/client/?room=ID&x=1", b"/?x=1"),
    # y-websocket with params: {room: ID}.
    (b"/client/doc?room=ID&token=T", b"/doc?token=T"),
    (b"/client/doc?room=ID", b"/doc"),
    (b"/client/a/b/c?room=ID&x=1", b"/a/b/c?x=1"),
    (b"/client/%C3%BCn%C3%AF/100%?room=ID", b"/%C3%BCn%C3%AF/100%"),
    (b"/client/json:document:1f?sessionId=2&room=ID&token=T", b"/json:document:1f?sessionId=2&token=T"),
    (b"/client/doc?room=ID&path=/a/b", b"/doc?path=/a/b"),
    # Order, repeats, empty values, plus signs, slashes, dots and wrong escapes stay.
    (b"/client?b=2&room=ID&a=1&b=3", b"/?b=2&a=1&b=3"),
    (b"/client?x=&room=ID&y", b"/?x=&y"),
    (b"/client?x=a+b&room=ID&y=%zz%2f%2F", b"/?x=a+b&y=%zz%2f%2F"),
    (b"/client?room=ID&", b"/?"),
    (b"/client?&room=ID", b"/?"),
    (b"/client?room=ID&&x=1", b"/?&x=1"),
    (b"/client?room=ID&x=a?b=c", b"/?x=a?b=c"),
    (b"/client//a//..//./b/?room=ID", b"//a//..//./b/"),
    (b"/client/../../etc/passwd?room=ID", b"/../../etc/passwd"),
    # Only the parameter with the exact name "room" is removed.
    (b"/client?roomy=1&room=ID", b"/?roomy=1"),
    (b"/client?ROOM=1&room=ID&xroom=2", b"/?ROOM=1&xroom=2"),
    (b"/client?ro%6Fm=other&room=ID", b"/?ro%6Fm=other"),
    (b"/client?room=ID&token=T&room_key=K", b"/?token=T&room_key=K"),
    (b"/client?room=ID&room=ID&x=1", b"/?x=1"),
    (b"/client?room=I%44&room=ID", b"/"),
    # y-websocket, given a base that already has a query.
    (b"/client?room=ID/doc", b"/doc"),
    (b"/client?room=ID/", b"/"),
    (b"/client?room=ID/?x=1", b"/?x=1"),
    (b"/client?room=ID/doc?token=T", b"/doc?token=T"),
    (b"/client?room=ID/a/b%2Fc?x=/y&z=1", b"/a/b%2Fc?x=/y&z=1"),
    (b"/client?room=ID/doc?", b"/doc?"),
    (b"/client?room=ID//doc", b"//doc"),
    (b"/client?room=ID/doc&x=1", b"/doc&x=1"),
    (b"/client/?room=ID/doc", b"/doc"),
    (b"/client?token=T&room=ID/doc", b"/doc?token=T"),
    (b"/client?token=T&room=ID/doc?x=1", b"/doc?token=T&x=1"),
    (b"/client?room=ID/doc?room=ID&x=1", b"/doc?x=1"),
    (b"/client?room=ID/doc?room=ID", b"/doc"),
    # A raw slash before the room does not start a document's name.
    (b"/client?path=/a/b&room=ID", b"/?path=/a/b"),
    (b"/client?path=/a&room=ID&x=1", b"/?path=/a&x=1"),
]

SHARE_LINKS = [
    (b"/c/ID", b"/"),
    (b"/c/ID/", b"/"),
    (b"/c/ID?x=1", b"/?x=1"),
    (b"/c/ID/?x=1", b"/?x=1"),
    (b"/c/ID/doc", b"/doc"),
    (b"/c/ID/folder/doc%201?yauth=a%20b", b"/folder/doc%201?yauth=a%20b"),
    (b"/c/ID//a/../b/?", b"//a/../b/?"),
    (b"/c/ID/doc?room=mine&token=T", b"/doc?room=mine&token=T"),
    (b"/c/ID/100%?x=/a/b?c", b"/100%?x=/a/b?c"),
    (b"/c/I%44/doc", b"/doc"),
]

REFUSED = [
    *(
        (400, "room_missing", target)
        for target in (
            *(
                b"/client",
                b"/client/",
                b"/client/doc",
                b"/client?",
                b"/client?room",
                b"/client?room=",
                b"/agent",
            ),
            *(b"/client?roomy=1", b"/client?x=/room=a", b"/client?room=/doc", b"/agent?x=1", b"/agent?room="),
            *(
                b"/c",
                b"/c/",
                b"/c//doc",
                b"/c?room=a",
                b"/c/?room=a",
                b"/client?Room=a",
                b"/client/a?xroom=b",
            ),
        )
    ),
    *(
        (400, "room_invalid", target)
        for target in (
            *(b"/client?room=a%20b", b"/client?room=a+b", b"/client?room=a%2Fb", b"/client?room=%0d%0aX:y"),
            *(b"/client?room=a:b", b"/client?room=%C3%BC", b"/client?room=a%", b"/client?room=a%252Db"),
            *(
                b"/client?room=../..",
                b"/client?room=..",
                b"/client?room=%2e%2E/x",
                b"/client?room=.",
                b"/c/../x",
            ),
            *(b"/client?room=" + b"x" * 129, b"/c/" + b"x" * 129, b"/c/a b", b"/c/a@b/doc", b"/c/%/doc"),
            *(b"/agent?room=a/b", b"/agent?room=a%00", b"/client/doc?room=a/b", b"/client?room=a?x=1"),
            *(b"/client?room=a=b", b"/agent?room=../../"),
        )
    ),
    *(
        (400, "room_ambiguous", target)
        for target in (
            *(b"/client?room=a&room=b", b"/client/doc?room=a&x=1&room=b", b"/agent?room=a&room=b"),
            *(b"/client?room=a&room=", b"/client?room=a/doc?room=b", b"/client?room=b&room=a/doc"),
            *(b"/client?room=a/doc&room=b", b"/client?room=a/doc?room=a/x", b"/client?room=a&room=A"),
        )
    ),
    *(
        (400, "target_ambiguous", target)
        for target in (
            *(b"/client?room=ID&token=T/doc", b"/client?room=ID&token=T/", b"/client?room=ID&x=1&y=/a?z=1"),
            *(b"/client/?room=ID&token=T/doc", b"/client?x=1&room=ID&token=a/b&y=2"),
        )
    ),
    *(
        (404, "unknown_path", target)
        for target in (
            *(
                b"/",
                b"/clients?room=a",
                b"/clientx",
                b"/Client?room=a",
                b"/agent/?room=a",
                b"/agent/x",
                b"/health/",
            ),
            *(
                b"/cat",
                b"//client?room=a",
                b"/%63lient?room=a",
                b"/healthz",
                b"/favicon.ico",
                b"",
                b"client?room=a",
            ),
        )
    ),
]


@pytest.mark.parametrize(("target", "local"), LOCAL)
def test_client_form_is_mapped_to_the_local_target(target: bytes, local: bytes) -> None:
    assert resolve_target(target) == Route(RouteKind.CLIENT, "ID", local)


@pytest.mark.parametrize(("target", "local"), SHARE_LINKS)
def test_share_link_is_mapped_to_the_local_target(target: bytes, local: bytes) -> None:
    assert resolve_target(target) == Route(RouteKind.CLIENT, "ID", local, is_share_link=True)


@pytest.mark.parametrize(("status", "code", "target"), REFUSED)
def test_unknown_target_is_refused(status: int, code: str, target: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        resolve_target(target)
    assert (caught.value.status, caught.value.code) == (status, code)


@pytest.mark.parametrize("target", [b"/agent?room=ID", b"/agent?x=1&room=ID", b"/agent?room=ID&room=ID"])
def test_agent_names_its_room(target: bytes) -> None:
    assert resolve_target(target) == Route(RouteKind.AGENT, "ID")


@pytest.mark.parametrize("target", [b"/health", b"/health?", b"/health?room=a&room=b"])
def test_health_check_needs_no_room(target: bytes) -> None:
    assert resolve_target(target) == Route(RouteKind.HEALTH)


@pytest.mark.parametrize("room", ["a", "test-room", "A.b_c~d-9", "...", "x" * 128])
@pytest.mark.parametrize(
    "form", ["/client?room={}", "/c/{}", "/client/doc?room={}", "/client?room={}/doc", "/agent?room={}"]
)
def test_room_names_are_kept_as_they_are(form: str, room: str) -> None:
    assert resolve_target(form.format(room).encode()).room == room


def test_room_escaped_by_an_encoder_is_the_same_room() -> None:
    """URLSearchParams writes the tilde as %7E."""
    assert resolve_target(b"/client?room=a%7Eb").room == "a~b"
    assert resolve_target(b"/c/a%7eb/doc").room == "a~b"


def test_message_for_a_missing_room() -> None:
    with pytest.raises(Refusal, match=r"^Missing room parameter"):
        resolve_target(b"/client")


def test_message_for_an_unknown_path_names_the_known_ones() -> None:
    with pytest.raises(Refusal, match=r"/client\?room=ID.*/c/ID/.*/agent\?room=ID.*/health"):
        resolve_target(b"/")


def test_message_for_an_ambiguous_target_names_alternatives() -> None:
    with pytest.raises(Refusal, match=r"/c/ID.*%2F"):
        resolve_target(b"/client?room=ID&token=T/doc")


VISIBLE = st.binary(max_size=40).map(lambda raw: bytes(0x21 + byte % 94 for byte in raw))
NO_ROOM = st.text("abxyz=%+.~", max_size=8).map(str.encode)
TARGETS = st.lists(
    st.sampled_from(
        [
            b"/client",
            b"/c/",
            b"/agent",
            b"/health",
            b"?",
            b"&",
            b"/",
            b"room=",
            b"room",
            b"ID",
            b"x=1",
            b"%",
            b"=",
            b"..",
        ]
    )
    | VISIBLE,
    max_size=10,
).map(b"".join)


@given(target=TARGETS | st.binary(max_size=60))
def test_any_target_is_a_route_or_a_refusal(target: bytes) -> None:
    route = outcome(lambda: resolve_target(target))
    if isinstance(route, Route) and route.kind is RouteKind.CLIENT:
        assert route.local.startswith(b"/")
        assert route.room not in ("", ".", "..")


@given(path=NO_ROOM, before=st.lists(NO_ROOM, max_size=3), after=st.lists(NO_ROOM, max_size=3))
def test_parameters_around_the_room_keep_their_bytes_and_order(
    path: bytes, before: list[bytes], after: list[bytes]
) -> None:
    query = b"&".join([*before, b"room=ID", *after])
    expected = b"/d" + path + (b"?" + b"&".join([*before, *after]) if before or after else b"")
    assert resolve_target(b"/client/d" + path + b"?" + query).local == expected


@given(rest=VISIBLE)
def test_share_link_keeps_what_follows_the_room(rest: bytes) -> None:
    assert resolve_target(b"/c/ID/" + rest).local == b"/" + rest
