"""Tests of finding and removing Seance tokens, and of distinguishing them from tokens of an app."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seance.auth.claims import grant_from_claims
from seance.auth.verifier import read_header
from seance.errors import Refusal
from seance.heads import (
    PresentedToken,
    Request,
    Route,
    TokenLocation,
    find_token,
    is_seance_token,
    protocol_to_select,
    request_for_local,
    resolve_target,
    without_token,
)
from tests.heads.samples import FORWARDED, head, outcome, read, upgrade
from tests.heads.tokens import APP, OURS, OURS_BY_AUDIENCE, jwt_of

OTHER = jwt_of({"alg": "EdDSA", "typ": "seance+jwt"}, {"jti": "other"})
BEARER = b"Authorization: Bearer " + OURS
QUERY = b"access_token=" + OURS
OFFER = b"Sec-WebSocket-Protocol: seance.v1, seance.token."


def asked(*lines: bytes, target: bytes = b"/c/ID/doc") -> tuple[Request, Route]:
    request = read(upgrade(*lines, start=b"GET %s HTTP/1.1" % target))
    return request, resolve_target(target)


def found(*lines: bytes, target: bytes = b"/c/ID/doc") -> tuple[bytes, TokenLocation]:
    presented = find_token(*asked(*lines, target=target))
    return presented.token.encode(), presented.location


def kept(*lines: bytes) -> list[tuple[bytes, bytes]]:
    """Return the lines without tokens, without those of the upgrade itself."""
    request, _ = without_token(*asked(*lines))
    return list(request.headers[len(read(upgrade()).headers) :])


def local(target: bytes) -> bytes:
    return without_token(*asked(target=target))[1].local


class TestForm:
    @pytest.mark.parametrize(
        ("header", "payload"),
        [
            ({"typ": "seance+jwt"}, {}),
            ({"typ": "seance+jwt"}, b"not JSON"),
            ({"typ": "JWT"}, {"aud": "seance-relay"}),
            ({}, {"aud": "seance-relay"}),
            ({"alg": "none"}, {"aud": ["seance-relay"]}),
            ({"typ": ["odd"]}, {"aud": ["app", "seance-relay"]}),
            (b' \n{"alg" : "HS256" }', b'\t{"aud" : "seance-relay"}'),
        ],
    )
    def test_seance_token(self, header: object, payload: object) -> None:
        assert is_seance_token(jwt_of(header, payload))

    def test_unsigned_token_is_recognized(self) -> None:
        assert is_seance_token(jwt_of({"alg": "none"}, {"aud": "seance-relay"}, b""))

    def test_length_does_not_matter(self) -> None:
        assert is_seance_token(jwt_of({"typ": "seance+jwt", "x": "y" * 10_000}, {}))

    @pytest.mark.parametrize(
        ("header", "payload"),
        [
            ({"typ": "JWT"}, {"aud": "app"}),
            ({"typ": "JWT"}, {"aud": "seance-relay-2"}),
            ({"typ": "JWT"}, {"aud": ["seance-relay-2"]}),
            ({"typ": "JWT"}, {"aud": {"seance-relay": 1}}),
            ({"typ": "JWT"}, {"sub": "seance-relay"}),
            ({"typ": "seance"}, {}),
            ({}, {}),
            ({}, b"not JSON"),
            ({}, ["aud", "seance-relay"]),
            (b"not JSON", {"aud": "seance-relay"}),
            (["typ", "seance+jwt"], {"aud": "seance-relay"}),
            (b'{"typ": "seance+jwt"', {"aud": "seance-relay"}),
            (b'"\xff"', {"aud": "seance-relay"}),
            (b'{"typ": \xff}', {"aud": "seance-relay"}),
            (b"[" * 9000, {"aud": "seance-relay"}),
            (b'{"a":' * 2500, {"aud": "seance-relay"}),
            (b'{"a":' + b"9" * 9000 + b"}", {"aud": "app"}),
        ],
    )
    def test_token_of_an_app(self, header: object, payload: object) -> None:
        assert not is_seance_token(jwt_of(header, payload))

    @pytest.mark.parametrize(
        "token",
        [
            *(b"", b".", b"..", b"a.b", b"a.b.c", b"opaque", OURS + b".x", b"." + OURS, OURS + b"\n"),
            *(OURS + b"=", b" " + OURS, OURS.replace(b".", b"..", 1), OURS.replace(b".", b".+", 1)),
            *(OURS.rpartition(b".")[0], OURS + b"\xff", b"eyJ0e.e30.c"),
        ],
    )
    def test_text_that_is_not_a_token(self, token: bytes) -> None:
        assert not is_seance_token(token)

    @given(token=st.binary(max_size=60) | st.text("eyJ0.{}ab-_", max_size=60).map(str.encode))
    def test_random_text_is_not_a_token(self, token: bytes) -> None:
        assert not is_seance_token(token)

    @given(
        header=st.fixed_dictionaries(
            {"alg": st.sampled_from(["EdDSA", "HS256"])},
            optional={
                "typ": st.sampled_from(["JWT", "seance+jwt", "other", None, 1]),
                "kid": st.just("k"),
                "jku": st.just("https://evil.example"),
            },
        ),
        aud=st.recursive(
            st.sampled_from(["seance-relay", "app", 1, None]), lambda inner: st.lists(inner, max_size=2)
        ),
    )
    def test_every_token_that_the_verifier_accepts_is_recognized(self, header: object, aud: object) -> None:
        claims = json.dumps({"aud": aud, "role": "client", "exp": 9}).encode()
        token = jwt_of(header, claims)
        try:
            read_header(token.decode())
            grant_from_claims(claims, key_id=None, now=0.0)
        except Refusal:
            return
        assert is_seance_token(token)


class TestFind:
    def test_request_without_a_token(self) -> None:
        assert find_token(*asked()) == PresentedToken("", TokenLocation.NONE) == PresentedToken()

    @pytest.mark.parametrize("token", [OURS, OURS_BY_AUDIENCE])
    @pytest.mark.parametrize("start", [b"Bearer ", b"bearer ", b"BEARER   ", b"Bearer\t "])
    def test_bearer(self, start: bytes, token: bytes) -> None:
        assert found(b"aUTHORIZATION: " + start + token) == (token, TokenLocation.AUTHORIZATION)

    @pytest.mark.parametrize(
        "value",
        [
            *(b"Bearer " + APP, b"Bearer opaque", b"Bearer", b"Bearer ", b"", b"Basic " + OURS, OURS),
            *(b"Bearer " + OURS + b" x", b"Bearer " + OURS + b", Basic x", b"Bearer" + OURS),
        ],
    )
    def test_authorization_of_the_app_is_ignored(self, value: bytes) -> None:
        assert found(b"Authorization: " + value) == (b"", TokenLocation.NONE)
        assert kept(b"Authorization: " + value) == [(b"Authorization", value.strip())]

    @pytest.mark.parametrize(
        "lines",
        [
            (OFFER + OURS,),
            (OFFER + OURS + b", app",),
            (b"Sec-WebSocket-Protocol: app,\tseance.token." + OURS + b" ,seance.v1",),
            (b"Sec-WebSocket-Protocol: app", b"sec-websocket-protocol: seance.token." + OURS),
            (b"Sec-WebSocket-Protocol: seance.token." + OURS, b"Sec-WebSocket-Protocol: seance.v1"),
            (b"Sec-WebSocket-Protocol: seance.token., ,SEANCE.Token." + OURS,),
        ],
    )
    def test_subprotocol(self, lines: tuple[bytes, ...]) -> None:
        assert found(*lines) == (OURS, TokenLocation.SUBPROTOCOL)

    @pytest.mark.parametrize("token", [b"opaque", APP, b"\xff\xfe", b"x" * 9000])
    def test_token_protocol_with_any_value_is_a_token(self, token: bytes) -> None:
        presented = find_token(*asked(OFFER + token))
        assert presented == PresentedToken(token.decode("latin-1"), TokenLocation.SUBPROTOCOL)
        assert kept(OFFER + token) == []

    @pytest.mark.parametrize(
        "target",
        [
            b"/client?room=ID&" + QUERY,
            b"/client?" + QUERY + b"&room=ID",
            b"/client/doc?room=ID&" + QUERY,
            b"/client?room=ID/doc?" + QUERY,
            b"/client?" + QUERY + b"&room=ID/doc",
            b"/c/ID?" + QUERY,
            b"/c/ID/doc?" + QUERY,
            b"/c/ID/doc?x=1&" + QUERY + b"&y=2",
            b"/c/ID?x=1/doc?" + QUERY,
            b"/c/ID/doc?access_token=opaque&" + QUERY,
            b"/c/ID?" + QUERY + b"/doc",
            b"/agent?room=ID&" + QUERY,
            b"/agent?" + QUERY + b"&room=ID",
            b"/c/ID?access_token=" + OURS.replace(b".", b"%2E").replace(b"_", b"%5f"),
        ],
    )
    def test_query(self, target: bytes) -> None:
        assert found(target=target) == (OURS, TokenLocation.QUERY)
        request, route = without_token(*asked(target=target))
        assert find_token(request, route) == PresentedToken()

    @pytest.mark.parametrize(
        "piece",
        [
            *(b"access_token=" + APP, b"access_token=opaque", b"access_token=", b"access_token"),
            *(b"token=" + OURS, b"access_tokens=" + OURS, b"xaccess_token=" + OURS),
            *(b"Access_Token=" + OURS, b"access%5ftoken=" + OURS, b"x=access_token=" + OURS),
            *(b"access_token=" + OURS + b"%2Fdoc", b"access_token=x" + b"." + OURS),
        ],
    )
    def test_parameter_of_the_app_is_ignored(self, piece: bytes) -> None:
        target = b"/c/ID/doc?x=1&" + piece + b"&y"
        assert found(target=target) == (b"", TokenLocation.NONE)
        assert local(target) == b"/doc?x=1&" + piece + b"&y"

    def test_preferred_location_wins(self) -> None:
        first, second, third = b"Authorization: Bearer " + OTHER, OFFER + OURS, b"/c/ID?" + QUERY
        assert found(first, second, target=third) == (OTHER, TokenLocation.AUTHORIZATION)
        assert found(second, target=b"/c/ID?access_token=" + OTHER) == (OURS, TokenLocation.SUBPROTOCOL)

    def test_bearer_of_the_app_does_not_hide_other_locations(self) -> None:
        app = b"Authorization: Bearer " + APP
        assert found(app, OFFER + OURS) == (OURS, TokenLocation.SUBPROTOCOL)
        assert found(app, target=b"/c/ID?" + QUERY) == (OURS, TokenLocation.QUERY)

    @pytest.mark.parametrize("line", [b"Authorization: Bearer ", b"Sec-WebSocket-Protocol: seance.token."])
    def test_first_token_of_a_location_wins(self, line: bytes) -> None:
        assert found(line + OTHER, line + OURS)[0] == OTHER
        assert found(target=b"/c/ID?access_token=" + OTHER + b"&" + QUERY)[0] == OTHER

    def test_token_is_not_in_the_repr(self) -> None:
        assert OURS.decode() not in repr(find_token(*asked(BEARER)))

    def test_long_token_is_not_truncated(self) -> None:
        token = jwt_of({"typ": "seance+jwt"}, {"x": "y" * 6000})
        for line in (b"Authorization: Bearer " + token, OFFER + token):
            assert found(line)[0] == token
            assert kept(line) == []
        assert found(target=b"/c/ID?access_token=" + token)[0] == token
        assert local(b"/c/ID?access_token=" + token) == b"/"


class TestFields:
    def test_request_without_a_token_is_not_changed(self) -> None:
        request, route = asked(
            b"Authorization: Bearer " + APP,
            b"Sec-WebSocket-Protocol: a ,, b",
            b"Sec-WebSocket-Protocol:",
            b"Cookie: seance.token.x; seance.v1",
            target=b"/c/ID//a/?&x=/y?z&&",
        )
        assert without_token(request, route) == (request, route)

    @pytest.mark.parametrize(
        ("values", "left"),
        [
            ([b"seance.v1"], []),
            ([b"seance.v1, seance.token." + OURS], []),
            ([b"seance.v1", b"seance.token." + OURS], []),
            ([b"seance.token.,seance.token"], [b"seance.token"]),
            ([b"seance.v1, Yjs.V2, seance.token." + OURS + b", auth.\xc4"], [b"Yjs.V2, auth.\xc4"]),
            ([b"b,a", b"seance.v1,c , seance.token.x,\td"], [b"b,a", b"c, d"]),
            ([b"seance.token." + OURS + b",seance.token." + OTHER + b",a,seance.v1"], [b"a"]),
            ([b"Seance.V1, seance.v10, seance.link.v1, a.seance.token.x"], None),
            ([b"SEANCE.TOKEN." + OURS + b", a"], [b"a"]),
        ],
    )
    def test_protocols_of_the_app_keep_order_and_case(
        self, values: list[bytes], left: list[bytes] | None
    ) -> None:
        name = b"sec-WebSocket-Protocol"
        expected = [(name, value) for value in (values if left is None else left)]
        assert kept(*(name + b": " + value for value in values)) == expected

    def test_every_copy_is_removed(self) -> None:
        request, route = asked(
            BEARER,
            b"Authorization: Basic eDp5",
            b"authorization: bearer " + OTHER,
            OFFER + OURS,
            OFFER + OTHER + b", app",
            b"Sec_WebSocket_Protocol: seance.token." + OURS,
            target=b"/c/ID?" + QUERY + b"&x=1&" + QUERY + b"&access_token=" + OTHER,
        )
        cleaned, route = without_token(request, route)
        assert request_for_local(cleaned, route.local, FORWARDED) == request_for_local(
            *_clean(b"Authorization: Basic eDp5", b"Sec-WebSocket-Protocol: app", target=b"/c/ID?x=1"),
            FORWARDED,
        )
        assert cleaned.target == b"/c/ID?x=1"
        assert find_token(cleaned, route) == PresentedToken()

    def test_agent_keeps_its_own_protocol(self) -> None:
        line = b"Sec-WebSocket-Protocol: seance.link.v1, seance.token." + OURS
        request, route = without_token(*asked(line, target=b"/agent?room=ID&" + QUERY))
        assert request.values(b"sec-websocket-protocol") == [b"seance.link.v1"]
        assert (request.target, route) == (b"/agent?room=ID", resolve_target(b"/agent?room=ID"))

    def test_health_check_may_have_a_token(self) -> None:
        request = read(head(BEARER, start=b"GET /health?" + QUERY + b" HTTP/1.1"))
        route = resolve_target(request.target)
        assert find_token(request, route).location is TokenLocation.AUTHORIZATION
        cleaned, _ = without_token(request, route)
        assert cleaned == read(head(start=b"GET /health HTTP/1.1"))


def _clean(*lines: bytes, target: bytes) -> tuple[Request, bytes]:
    request, route = asked(*lines, target=target)
    return request, route.local


class TestTarget:
    @pytest.mark.parametrize(
        ("target", "left"),
        [
            (b"/client?room=ID&{}", b"/"),
            (b"/client?{}&room=ID", b"/"),
            (b"/client?room=ID&{}&", b"/?"),
            (b"/client?x=1&{}&room=ID&y=2", b"/?x=1&y=2"),
            (b"/client/doc?room=ID&{}&x=1", b"/doc?x=1"),
            (b"/client/doc?{}&room=ID", b"/doc"),
            (b"/client?room=ID/doc?{}", b"/doc"),
            (b"/client?room=ID/doc?{}&x=1", b"/doc?x=1"),
            (b"/client?{}&room=ID/doc?x=1", b"/doc?x=1"),
            (b"/c/ID?{}", b"/"),
            (b"/c/ID/?{}", b"/"),
            (b"/c/ID/doc?{}", b"/doc"),
            (b"/c/ID/a%20b//?x=%2f/&{}&&y", b"/a%20b//?x=%2f/&&y"),
            (b"/c/ID/doc?{}&{}&x&{}&y&{}", b"/doc?x&y"),
            (b"/c/ID/doc?&{}", b"/doc?"),
        ],
    )
    def test_token_parameter_is_removed_and_others_stay(self, target: bytes, left: bytes) -> None:
        assert local(target.replace(b"{}", QUERY)) == left

    @pytest.mark.parametrize(
        ("target", "left"),
        [
            # y-websocket appends "/doc", and its params behind a "?", to any base.
            (b"/c/ID?{}/doc", b"/doc"),
            (b"/c/ID/?{}/doc", b"/doc"),
            (b"/c/ID?{}/", b"/"),
            (b"/c/ID/app?{}/a/b%2Fc?x=/y&z", b"/app/a/b%2Fc?x=/y&z"),
            (b"/c/ID?x=1&{}/doc?y=2&z=3", b"/doc?x=1&y=2&z=3"),
            (b"/c/ID?{}/a&b?y=2", b"/a&b?y=2"),
            (b"/c/ID?x=1&{}&y=2/doc", b"/?x=1&y=2/doc"),
            (b"/c/ID?x=1&{}/doc?{}&y=2", b"/doc?x=1&y=2"),
            (b"/c/ID?{}/doc?{}/more?y", b"/doc/more?y"),
            (b"/client/app?room=ID&{}/doc", b"/app/doc"),
            (b"/client?{}/doc&room=ID", b"/doc"),
            # y-websocket appends params to a base with a query after a second question mark.
            (b"/c/ID?x=1/doc?{}", b"/?x=1/doc"),
            (b"/c/ID?x=1/doc?{}&y=2", b"/?x=1/doc?y=2"),
            (b"/c/ID?{}?x=1", b"/?x=1"),
            # Written by hand.
            (b"/client?room=ID/doc&{}", b"/doc"),
            (b"/client?room=ID/doc&{}?x=1", b"/doc?x=1"),
        ],
    )
    def test_token_before_an_appended_document_is_found(self, target: bytes, left: bytes) -> None:
        assert local(target.replace(b"{}", QUERY)) == left

    PIECES = st.lists(st.sampled_from([b"x=1", b"", b"y", b"token=T", b"access_token=opaque"]), max_size=4)

    @given(
        form=st.sampled_from(
            [b"/c/ID?", b"/c/ID/doc?", b"/client?room=ID&", b"/client/doc?room=ID&", b"/client?room=ID/doc?"]
        ),
        pieces=PIECES,
        data=st.data(),
    )
    def test_result_is_the_same_as_without_the_token(
        self, form: bytes, pieces: list[bytes], data: st.DataObject
    ) -> None:
        mixed = list(pieces)
        for _ in range(data.draw(st.integers(1, 3))):
            mixed.insert(data.draw(st.integers(0, len(mixed))), QUERY)
        bare = form + b"&".join(pieces) if pieces else form[:-1]
        request, route = without_token(*asked(target=form + b"&".join(mixed)))
        assert (request.target, route) == (bare, resolve_target(bare))

    JUNK = st.text("a/?&=%", max_size=10).map(str.encode)

    @given(before=JUNK, start=st.sampled_from([b"?", b"&"]), after=st.sampled_from([b"", b"?", b"&", b"/"]),
           behind=JUNK)  # fmt: skip
    def test_token_is_removed_everywhere(
        self, before: bytes, start: bytes, after: bytes, behind: bytes
    ) -> None:
        target = b"/c/ID/?" + before + start + QUERY + after + (behind if after else b"")
        request, route = asked(target=target)
        assert find_token(request, route).location is TokenLocation.QUERY
        cleaned = without_token(request, route)
        assert OURS not in cleaned[0].target + cleaned[1].local
        assert cleaned[1].local.startswith(b"/")
        assert without_token(*cleaned) == cleaned

    @given(target=st.text("/?&=acx_", max_size=30).map(lambda text: b"/c/ID/" + text.encode()))
    def test_target_without_a_token_keeps_its_bytes(self, target: bytes) -> None:
        request, route = asked(target=target)
        assert without_token(request, route) == (request, route)

    @given(
        pieces=st.lists(
            st.sampled_from([QUERY, b"access_token=", APP, b"&", b"?", b"/", b"room=ID", b"x", b"\xff"]),
            max_size=12,
        ),
        form=st.sampled_from([b"/c/ID", b"/client", b"/client/a", b"/agent", b"/health"]),
    )
    def test_any_target_can_be_cleaned(self, form: bytes, pieces: list[bytes]) -> None:
        target = form + b"".join(pieces)
        route = outcome(lambda: resolve_target(target))
        if not isinstance(route, Route):
            return
        request = Request(b"GET", target, ())
        cleaned, cleaned_route = without_token(request, route)
        # The order of resolving and cleaning makes no difference.
        again = outcome(lambda: resolve_target(cleaned.target))
        assert not isinstance(again, Route) or again.room != route.room or again == cleaned_route


class TestProtocolToSelect:
    @pytest.mark.parametrize(
        "lines",
        [
            (OFFER + OURS,),
            (b"Sec-WebSocket-Protocol: app, seance.v1",),
            (b"sec-websocket-protocol: app", b"Sec-WebSocket-Protocol: x ,\tseance.v1\t"),
        ],
    )
    def test_offered(self, lines: tuple[bytes, ...]) -> None:
        request, route = asked(*lines)
        assert protocol_to_select(request) == b"seance.v1"
        assert protocol_to_select(without_token(request, route)[0]) is None

    @pytest.mark.parametrize(
        "lines", [(), (b"Sec-WebSocket-Protocol: seance.v10, Seance.V1, app",), (BEARER, b"X: seance.v1")]
    )
    def test_not_offered(self, lines: tuple[bytes, ...]) -> None:
        assert protocol_to_select(asked(*lines)[0]) is None


APP_LINES = st.lists(
    st.sampled_from(
        [
            b"Authorization: Bearer " + APP,
            b"Authorization: Basic eDp5",
            b"Sec-WebSocket-Protocol: yjs, Auth.x",
            b"Sec-WebSocket-Protocol: other",
            b"X-Api-Key: 1",
            b"Cookie: a=b",
        ]
    ),
    max_size=4,
)
OUR_LINES = st.lists(
    st.sampled_from([BEARER, OFFER + OURS, b"Sec-WebSocket-Protocol: seance.token." + OURS_BY_AUDIENCE]),
    max_size=4,
)


@given(app=APP_LINES, ours=OUR_LINES, data=st.data())
def test_app_gets_the_same_fields_as_without_a_relay(
    app: list[bytes], ours: list[bytes], data: st.DataObject
) -> None:
    mixed = list(app)
    for line in ours:
        mixed.insert(data.draw(st.integers(0, len(mixed))), line)
    assert kept(*mixed) == kept(*app) == [tuple(line.split(b": ", 1)) for line in app]
    assert bool(ours) is (found(*mixed)[1] is not TokenLocation.NONE)
