"""Tests of addresses and cookies in the local server's response, as the client gets them."""

from __future__ import annotations

from http.client import parse_headers
from io import BytesIO
from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seance.heads import LocalResponse, PublicForm, resolve_target
from seance.heads.response_fields import MAX_PATH_BYTES, ORIGIN_WIDE, limit_cookie, limit_to_room
from tests.heads.samples import ACCEPT, KEY, Client

PUBLIC_HOST = b"relay.example:8443"
LOCAL_HOST = b"127.0.0.1:1234"

SHARE = b"/c/r/up/doc?x=1"
PARAMETER = b"/client/up/doc?room=r&x=1"
PASTED = b"/client?room=r/up/doc?x=1"
FORMS = (SHARE, PARAMETER, PASTED)
HOCUSPOCUS = (b"/client?room=r", b"/client/?room=r", b"/c/r", b"/c/r/")


def form_of(target: bytes, *, own: bytes = LOCAL_HOST, token: bytes = b"") -> PublicForm:
    return PublicForm.of(target, resolve_target(target), (own,), PUBLIC_HOST, token)


def local_of(reference: bytes, asked: bytes) -> bytes:
    """Return the local target if a client follows a reference from a public target."""
    url = urlsplit(urljoin("ws://relay.example:8443" + asked.decode(), reference.decode()))
    assert url.netloc == PUBLIC_HOST.decode()
    route = resolve_target((url.path + ("?" + url.query if url.query else "")).encode())
    assert route.room == "r"
    return route.local


OWN = {
    b"/doc/": b"/doc/",
    b"/doc/?x=1&y=%20": b"/doc/?x=1&y=%20",
    b"/": b"/",
    b"/?a=b": b"/?a=b",
    b"/?a=b/c": b"/?a=b/c",
    b"/doc?room=app": b"/doc?room=app",
    b"/a%2Fb%zz/\xc3\xa9": b"/a%2Fb%zz/\xc3\xa9",
    b"doc/": b"/up/doc/",
    b"./doc/?y=2": b"/up/doc/?y=2",
    b"../x": b"/x",
    b"../../../x": b"/x",
    b"..": b"/",
    b".": b"/up/",
    b"?y=2": b"/up/doc?y=2",
    b"/a/../../other/doc": b"/other/doc",
    b"/%2e%2E/other": b"/other",
    b"/.\t./other": b"/other",
    b"/c/other/doc": b"/c/other/doc",
    b"/client/doc?room=other": b"/client/doc?room=other",
    b"/agent?room=r": b"/agent?room=r",
    b"/health": b"/health",
    b"/\\evil.example": b"/\\evil.example",
    b"\\\\evil.example": b"/\\\\evil.example",
    b"/.//evil.example": b"//evil.example",
    b"ws://127.0.0.1:1234/doc/?x=1": b"/doc/?x=1",
    b"http://127.0.0.1:1234/doc/": b"/doc/",
    b"HTTPS://127.0.0.1:1234/doc/": b"/doc/",
    b"wss://127.0.0.1:1234": b"/",
    b"ws://127.0.0.1:1234?x=1": b"/?x=1",
    b"//127.0.0.1:1234/doc/": b"/doc/",
    b"http://127.0.0.1/doc/": b"/doc/",
    b"http://LocalHost:1234/doc/": b"/doc/",
    b"http://localhost/doc/": b"/doc/",
    b"http://[::1]:1234/doc/": b"/doc/",
    b"ws://127.0.0.1:1234/c/r/doc": b"/c/r/doc",
    b"https://relay.example:8443/doc/": b"/doc/",
    b"http://Relay.Example:8443/doc/": b"/doc/",
    b"//relay.example:8443/doc/": b"/doc/",
    b"https://relay.example:8443/c/other/doc": b"/c/other/doc",
    b"http://127.0.0.1:1234\\@evil.example/": b"/\\@evil.example/",
}

FOREIGN = [
    b"//evil.example/doc",
    b"https://evil.example/doc",
    b"ws://evil.example",
    b"http://127.0.0.1:1235/doc",
    b"http://localhost:1/",
    b"http://relay.example/doc",
    b"http://127.0.0.1.evil.example:1234/",
    b"http://evil.example:1234/",
    b"http://me@127.0.0.1:1234/",
    b"http://127.0.0.1:1234@evil.example/",
    b"http://127.0.0.1:1234:1/",
    b"ftp://127.0.0.1:1234/doc",
    b"http:doc",
    b"http:/doc",
    b"mailto:a@b",
    b"data:text/plain,/doc",
    b"",
    b"#part",
]

MINE = [b"/c/r/doc", b"/client/doc?room=r", b"/client?room=r/doc", b"https://relay.example:8443/c/r/doc?x=1"]


@pytest.mark.parametrize("asked", FORMS)
@pytest.mark.parametrize(("reference", "local"), OWN.items())
def test_address_of_the_local_server_is_mapped_to_the_room(
    asked: bytes, reference: bytes, local: bytes
) -> None:
    mapped = form_of(asked).map_reference(reference)
    assert mapped.startswith((b"/c/r", b"/client"))
    path, question_mark, query = mapped.partition(b"?")
    assert resolve_target(path + question_mark + query).local == local
    if asked == SHARE:
        assert mapped == b"/c/r" + local


@pytest.mark.parametrize("asked", FORMS)
@pytest.mark.parametrize("reference", FOREIGN + MINE)
def test_address_of_another_server_or_already_public_is_kept(asked: bytes, reference: bytes) -> None:
    assert form_of(asked, token=b"T").map_reference(reference, is_redirect=True) == reference


@pytest.mark.parametrize("asked", HOCUSPOCUS)
def test_relative_address_is_relative_to_the_local_target(asked: bytes) -> None:
    assert local_of(form_of(asked).map_reference(b"doc/"), asked) == b"/doc/"


@pytest.mark.parametrize(
    ("asked", "mapped"),
    [
        (SHARE, b"/c/r/doc/?x=1#part"),
        (b"/c/%72/doc", b"/c/%72/doc/?x=1#part"),
        (PARAMETER, b"/client/doc/?room=r&x=1#part"),
        (b"/client?room=r", b"/client/doc/?room=r&x=1#part"),
        (PASTED, b"/client?room=r/doc/?x=1#part"),
        (b"/client?app=1&room=r/doc", b"/client?room=r/doc/?x=1#part"),
    ],
)
def test_redirect_has_the_form_of_the_client(asked: bytes, mapped: bytes) -> None:
    assert form_of(asked).map_reference(b"/doc/?x=1#part") == mapped


@pytest.mark.parametrize(
    ("own", "reference"),
    [
        (b"yjs.internal:1234", b"http://yjs.internal:1234/doc"),
        (b"yjs.internal", b"http://yjs.internal/doc"),
        (b"yjs.internal", b"http://yjs.internal:80/doc"),
        (b"yjs.internal", b"wss://yjs.internal:443/doc"),
        (b"yjs.internal", b"//yjs.internal/doc"),
        (b"[fd00::1]:1234", b"http://[FD00::1]:1234/doc"),
        (b"localhost", b"http://localhost/doc"),
    ],
)
def test_host_that_the_local_server_received_is_its_own(own: bytes, reference: bytes) -> None:
    assert form_of(SHARE, own=own).map_reference(reference) == b"/c/r/doc"


@pytest.mark.parametrize(
    "reference", [b"http://yjs.internal/doc", b"http://yjs.internal:80/doc", b"https://yjs.internal:443/doc"]
)
def test_another_port_of_the_machine_is_another_server(reference: bytes) -> None:
    assert form_of(SHARE, own=b"yjs.internal:1234").map_reference(reference) == reference


@pytest.mark.parametrize("asked", FORMS)
@pytest.mark.parametrize(("reference", "local"), OWN.items())
def test_redirect_contains_the_token_of_the_query(asked: bytes, reference: bytes, local: bytes) -> None:
    form = form_of(asked, token=b"e30.e30.x")
    with_token = form.map_reference(reference, is_redirect=True)
    route = resolve_target(with_token)
    path, _, query = route.local.partition(b"?")
    assert (path, query.split(b"&")[-1]) == (local.partition(b"?")[0], b"access_token=e30.e30.x")
    assert b"e30" not in form.map_reference(reference)


PIECES = (
    *(b"/", b"//", b"\\", b".", b"..", b"%2e", b"a", b"b?", b"?", b"&", b"=", b"room=q", b"#", b":", b"@"),
    *(b"c/", b"client", b"http:", b"ws://", b"127.0.0.1:1234", b"evil.example", b"%zz", b"\xff", b"\t", b";"),
)
REFERENCES = st.lists(st.sampled_from(PIECES), max_size=8).map(b"".join)


def test_backslash_after_the_room_becomes_a_slash() -> None:
    assert form_of(b"/c/r/up/doc").map_reference(b"..\\") == b"/c/r/"


@given(asked=st.sampled_from([*FORMS, *HOCUSPOCUS]), reference=REFERENCES)
def test_mapped_address_stays_in_the_room_and_on_the_origin(asked: bytes, reference: bytes) -> None:
    mapped = form_of(asked).map_reference(reference)
    if mapped != reference:
        assert mapped.startswith((b"/c/r", b"/client"))
        assert resolve_target(mapped.partition(b"#")[0]).room == "r"
        assert b".." not in mapped.partition(b"?")[0].replace(b"\\", b"/").split(b"/")


def fields_of_answer(*lines: bytes, asked: bytes = SHARE, status: bytes = b"307 Temporary") -> list[bytes]:
    answer = LocalResponse(KEY, form=form_of(asked))
    passed = answer.receive(b"\r\n".join((b"HTTP/1.1 " + status, *lines, b"Content-Length: 0", b"", b"")))
    head = parse_headers(BytesIO(passed.partition(b"\r\n")[2]))
    ours = ("connection", "content-length", "date", "upgrade", "sec-websocket-accept")
    return [f"{name}: {value}".encode() for name, value in head.items() if name.lower() not in ours]


@pytest.mark.parametrize(
    "status", [b"201 Created", b"301 x", b"302 x", b"307 x", b"308 x", b"200 OK", b"401 x", b"503 x"]
)
@pytest.mark.parametrize(
    ("line", "mapped"),
    [
        (b"Location: /x", b"Location: /c/r/x"),
        (b"LOCATION: /x", b"LOCATION: /c/r/x"),
        (b"Content-Location: ../x", b"Content-Location: /c/r/x"),
        (b"URI: /x", b"URI: /c/r/x"),
        (b"Refresh: 5", b"Refresh: 5"),
        (b"Refresh: 5; url=/x", b"Refresh: 5; url=/c/r/x"),
        (b"Refresh: 0;URL='/x'", b"Refresh: 0;URL='/c/r/x'"),
        (b'Refresh: 0, url = "/x"; y', b'Refresh: 0, url = "/c/r/x"; y'),
        (b"Refresh: 0; //evil.example", b"Refresh: 0; //evil.example"),
        (b"Link: </x>; rel=next", b"Link: </c/r/x>; rel=next"),
        (
            b'Link: <//evil.example>; title="</y>, \\"</z>", <http://127.0.0.1:1234/x>; rel=preload',
            b'Link: <//evil.example>; title="</y>, \\"</z>", </c/r/x>; rel=preload',
        ),
        (b"X-Location: /x", b"X-Location: /x"),
        (b"Set-Cookie: a=b; Path=/; x ;Domain=y", b"Set-Cookie: a=b; Path=/c/r; x"),
    ],
)
def test_fields_with_addresses_are_mapped_for_every_status(status: bytes, line: bytes, mapped: bytes) -> None:
    assert fields_of_answer(line, status=status) == [mapped]


ATTRIBUTES = (
    b"Path=/",
    b"Domain=a",
    b"path",
    b" x ",
    b"Path=/a b ",
    b"",
    b"\xff",
    b'Path="/"',
    b"\tDomain",
    b"=",
)
VALUES = st.lists(st.sampled_from((*ATTRIBUTES, *PIECES)), max_size=6)


@given(
    asked=st.sampled_from([*FORMS, *HOCUSPOCUS]),
    cookies=VALUES.map(b";".join),
    reference=VALUES.map(b"".join),
    start=st.sampled_from([b"<", b"5; url=", b"0;url='", b'"<', b""]),
)
def test_any_fields_give_a_valid_response(
    asked: bytes, cookies: bytes, reference: bytes, start: bytes
) -> None:
    lines = (b"Set-Cookie: " + cookies, b"Location: " + reference, b"Refresh: " + start + reference)
    head = b"\r\n".join(
        (b"HTTP/1.1 302 x", *lines, b"Link: " + start + reference + b">", b"Content-Length: 0")
    )
    answer = LocalResponse(KEY, form=form_of(asked))
    client = Client(answer.receive(head + b"\r\n\r\n"))
    assert client.status == 302
    assert answer.is_finished
    assert all(b"Path=/c/r" in value for name, value in client.fields if name == b"set-cookie")


@pytest.mark.parametrize("name", sorted(ORIGIN_WIDE))
def test_origin_wide_fields_are_dropped(name: bytes) -> None:
    assert fields_of_answer(name.title() + b": x", b"A: b") == [b"A: b"]


def test_fields_of_a_101_are_limited_too() -> None:
    lines = (b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: " + ACCEPT)
    cookie = (b"Set-Cookie: a=b; Path=/", b"Strict-Transport-Security: max-age=9")
    assert fields_of_answer(*lines, *cookie, status=b"101 x") == [b"Set-Cookie: a=b; Path=/c/r"]


@pytest.mark.parametrize(
    ("cookie", "limited"),
    [
        (b"a=b; Path=/; HttpOnly", b"a=b; Path=/c/r; HttpOnly"),
        (b"a=b; path=/doc", b"a=b; Path=/c/r/doc"),
        (b"a=b;PATH=/doc/;Secure", b"a=b; Path=/c/r/doc/;Secure"),
        (b"a=b", b"a=b; Path=/c/r/up"),
        (b"a=b; Path", b"a=b; Path=/c/r/up"),
        (b"a=b; Path=", b"a=b; Path=/c/r/up"),
        (b"a=b; Path=doc", b"a=b; Path=/c/r/up"),
        (b'a=b; Path="/"', b"a=b; Path=/c/r/up"),
        (b"a=b; Path=/x; Path=/y", b"a=b; Path=/c/r/y"),
        (b"a=b; Path=/../other", b"a=b; Path=/c/r/../other"),
        (b"a=b; Path=/c/other", b"a=b; Path=/c/r/c/other"),
        (b"a=b; Domain=example; Path=/", b"a=b; Path=/c/r"),
        (b"a=b; Path=/;DOMAIN = .example", b"a=b; Path=/c/r"),
        (b"a=b; Path=/; Expires=Wed, 21 Oct 2026 07:28:00 GMT; SameSite=None;  Odd=\xff; Partitioned",
         b"a=b; Path=/c/r; Expires=Wed, 21 Oct 2026 07:28:00 GMT; SameSite=None;  Odd=\xff; Partitioned"),
        (b"__Secure-a=b; Secure; Path=/", b"__Secure-a=b; Secure; Path=/c/r"),
        (b"a=__Host-b; Path=/", b"a=__Host-b; Path=/c/r"),
        (b"__Host-a=b; Secure; Path=/", None),
        (b"__host-a=b; Secure; Path=/", None),
        (b"__Host-Http-a=b; Secure; Path=/", None),
        (b"=__Host-a=b; Secure; Path=/", None),
        (b"a=b; Path=/" + b"x" * MAX_PATH_BYTES, b"a=b; Path=/c/r/up"),
        (b"a=b; Path=/" + b"x" * (MAX_PATH_BYTES - 1), b"a=b; Path=/c/r"),
    ],
)  # fmt: skip
def test_cookie_is_limited_to_the_room(cookie: bytes, limited: bytes | None) -> None:
    assert limit_cookie(cookie, form_of(SHARE)) == limited


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        (b"/c/r", b"/c/r"),
        (b"/c/r/", b"/c/r"),
        (b"/c/r/doc", b"/c/r"),
        (b"/c/r/a/b?c/d", b"/c/r/a"),
        (b"/c/%72/a/", b"/c/%72/a"),
    ],
)
def test_cookie_without_a_path_gets_the_default_path_of_the_local_target(asked: bytes, path: bytes) -> None:
    """RFC 6265, 5.1.4. The default of the public path ``/c/r`` would include all rooms."""
    assert limit_cookie(b"a=b", form_of(asked)) == b"a=b; Path=" + path


@pytest.mark.parametrize("asked", [PARAMETER, PASTED, *HOCUSPOCUS[:2]])
def test_cookies_are_dropped_where_all_rooms_share_one_path(asked: bytes) -> None:
    assert limit_to_room(((b"Set-Cookie", b"a=b; Path=/"), (b"A", b"b")), form_of(asked)) == ((b"A", b"b"),)


def test_link_field_with_too_many_targets_or_too_much_growth_is_dropped() -> None:
    many = b"Link: " + b", ".join([b"</x>"] * 33)
    assert fields_of_answer(many) == []
    few = b"Link: " + b", ".join([b"</x>"] * 32)
    assert fields_of_answer(few) == [b"Link: " + b", ".join([b"</c/r/x>"] * 32)]
    asked = b"/c/r/" + b"a" * 12_000
    field = b"Link: " + b", ".join([b"<?x>"] * 32)
    assert len(fields_of_answer(*[field] * 20, asked=asked)) == 0
    assert len(fields_of_answer(*[b"Link: <?x>"] * 20, asked=asked)) == 5


@pytest.mark.parametrize(
    "text", [b'"' + b'\\"' * 6000, b'"' + b'\\"' * 6000 + b"\\", b"<" * 12_000, b'"' * 12_000]
)
def test_unterminated_link_field_is_read_in_linear_time(text: bytes) -> None:
    """Took minutes when the search restarted at each quote."""
    assert fields_of_answer(b"Link: " + text) == [b"Link: " + text]
