"""Tokens with one error each: all get the same 401, or the same 403."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from seance.auth import service as service_module
from seance.auth.service import AuthService
from seance.core.interfaces import TokenRole
from seance.heads import refusal_response
from seance.heads.credentials import is_seance_token
from seance.heads.refusals import refusal as make_refusal
from tests.auth.tokens import (
    NOW,
    ROOM,
    SECRET,
    base64,
    claims,
    ed_key,
    es_private,
    grant_of,
    jwk_of,
    public_pem,
    refusal_of,
    rsa_private,
    secret_key,
    sign,
    sign_raw,
    token,
)

Make = Callable[[], str]

STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(32))


def hmac_sign(secret: bytes, algorithm: str = "HS256", **names: Any) -> str:
    """Return a token signed with bytes that PyJWT rejects as a secret."""
    head = json.dumps({"alg": algorithm, "typ": "seance+jwt", "kid": "ed", **names}).encode()
    return sign_raw(head, json.dumps(claims()).encode(), material=secret, algorithm=algorithm)


def unsigned(algorithm: object) -> str:
    head = json.dumps({"alg": algorithm, "typ": "seance+jwt", "kid": "ed"}).encode()
    return f"{base64(head)}.{base64(json.dumps(claims()).encode())}."


def with_signature(change: Callable[[str], str]) -> str:
    signed, _, signature = token().rpartition(".")
    return f"{signed}.{change(signature)}"


def last_bits_changed(signature: str) -> str:
    """Return another encoding of the same 64 bytes, with different unused bits."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return signature[:-1] + alphabet[alphabet.index(signature[-1]) ^ 1]


def ed_public_bytes() -> bytes:
    return ed_key().signing.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def exchanged_payload() -> str:
    head, _, signature = token().split(".")
    return f"{head}.{base64(json.dumps(claims(role='admin', room='*')).encode())}.{signature}"


def rs256(algorithm: str = "RS256", **names: Any) -> str:
    return sign(claims(), material=rsa_private(), algorithm=algorithm, **{"kid": "rs", **names})


def hs256(**names: Any) -> str:
    return sign(claims(), material=SECRET, algorithm="HS256", **{"kid": "hs", **names})


def text(changed: str) -> str:
    """Return a token with claims as text; ``%`` stands for valid claims without the last brace."""
    good = json.dumps(claims())[:-1]
    return sign(changed.replace("%", good).encode())


NOT_ACCEPTED: dict[str, dict[str, Make]] = {
    "token_missing": {
        "nothing": lambda: "",
    },
    "token_form": {
        "a space": lambda: " ",
        "a word": lambda: "token",
        "two parts": lambda: token().rpartition(".")[0],
        "four parts": lambda: token() + ".AAAA",
        "an encrypted token's five parts": lambda: token() + ".AAAA.AAAA",
        "dots": lambda: "..",
        "a scheme in front": lambda: "Bearer " + token(),
        "a space in front": lambda: " " + token(),
        "a line end behind": lambda: token() + "\n",
        "two tokens": lambda: token() + "," + token(),
        "not ASCII": lambda: token() + "é",
        "letters that look like ASCII": lambda: token().replace("e", "е"),  # noqa: RUF001  # that is the point
        "a NUL": lambda: token().replace(".", "\0."),
        "too long, though signed": lambda: token(note="x" * 4096),
        "a megabyte": lambda: "A" * (1 << 20) + "." + token(),
        "a megabyte of dots": lambda: "." * (1 << 20),
        "no signature": lambda: with_signature(lambda _: ""),
        "a signature with padding": lambda: with_signature(lambda signature: signature + "=="),
        "standard base64": lambda: with_signature(lambda signature: "+/" + signature[2:]),
        "none": lambda: unsigned("none"),
        "None": lambda: unsigned("None"),
        "NONE": lambda: unsigned("NONE"),
        "nOnE": lambda: unsigned("nOnE"),
    },
    "token_signature": {
        "half a signature": lambda: with_signature(lambda signature: signature[:43]),
        "a signature with other left-over bits": lambda: with_signature(last_bits_changed),
        "the signature of another token": lambda: with_signature(
            lambda _: token(room="other").rpartition(".")[2]
        ),
        "a signature of zeros": lambda: with_signature(lambda _: base64(bytes(64))),
        "other claims under a signature": exchanged_payload,
        "a stranger's signature": lambda: sign(claims(), material=STRANGER),
        "another key of ours": lambda: sign(claims(), material=ed_key("ed-2").signing),
        "ES256 of zeros": lambda: (
            sign(claims(), material=es_private(), algorithm="ES256", kid="es").rpartition(".")[0]
            + "."
            + base64(bytes(64))
        ),
        "an Ed448 signature": lambda: sign(claims(), material=Ed448PrivateKey.generate()),
        "HS256 with an empty secret": lambda: hmac_sign(b"", kid="hs"),
        "HS256 with another secret": lambda: hmac_sign(bytes(32), kid="hs"),
    },
    "token_algorithm": {
        "none, with a signature": lambda: unsigned("none") + "AAAA",
        "an empty algorithm": lambda: sign(claims(), alg=""),
        "EdDSA in small letters": lambda: sign(claims(), alg="eddsa"),
        "HS256 with the public Ed25519 key": lambda: hmac_sign(ed_public_bytes()),
        "HS256 with the public RSA key": lambda: hmac_sign(public_pem(rsa_private()), kid="rs"),
        "HS256 with the public JWK": lambda: hmac_sign(json.dumps(ed_key().public_jwk()).encode()),
        "HS512 with the secret": lambda: hmac_sign(SECRET, "HS512", kid="hs"),
        "our secret, said to be EdDSA": lambda: hs256(alg="EdDSA"),
        "our secret under the name of another key": lambda: hs256(kid="ed"),
        "EdDSA under the name of the secret": lambda: sign(claims(), kid="hs"),
        "RS512 with our RSA key": lambda: rs256("RS512"),
        "PS256 with our RSA key": lambda: rs256("PS256"),
        "RS256 said to be PS256": lambda: rs256(alg="PS256"),
    },
    "token_header": {
        "no algorithm": lambda: sign(claims(), alg=...),
        "a number for an algorithm": lambda: sign(claims(), alg=1),
        "a list of algorithms": lambda: sign(claims(), alg=["EdDSA", "none"]),
        "null for an algorithm": lambda: sign(claims(), alg=None),
        "a path for a kid": lambda: sign(claims(), kid="../../../dev/null", material=STRANGER),
        "SQL for a kid": lambda: sign(claims(), kid="x' UNION SELECT 'key'--"),
        "an empty kid": lambda: sign(claims(), kid=""),
        "a long kid": lambda: sign(claims(), kid="k" * 65),
        "null for a kid": lambda: sign(claims(), kid=None),
        "a number for a kid": lambda: sign(claims(), kid=1),
        "a list of kids": lambda: sign(claims(), kid=["ed"]),
        "a kid with a line end": lambda: sign(claims(), kid="ed\n"),
        "jku": lambda: sign(claims(), jku="https://evil.example/jwks", material=STRANGER),
        "x5u": lambda: sign(claims(), x5u="https://evil.example/x", material=STRANGER),
        "x5c": lambda: sign(claims(), x5c=["MIIB"], material=STRANGER),
        "jwk": lambda: sign(claims(), jwk=jwk_of(STRANGER, "EdDSA"), material=STRANGER),
        "jwk, though signed by us": lambda: sign(claims(), jwk=jwk_of(STRANGER, "EdDSA")),
        "crit": lambda: sign(claims(), crit=["exp"], exp=1),
        "an empty crit": lambda: sign(claims(), crit=[]),
        "b64": lambda: sign(claims(), b64=False, crit=["b64"]),
        "zip": lambda: sign(claims(), zip="DEF"),
        "an unknown name": lambda: sign(claims(), debug=True),
        "another typ": lambda: sign(claims(), typ="at+jwt"),
        "a number for a typ": lambda: sign(claims(), typ=1),
        "the algorithm twice": lambda: sign(claims(), header=b'{"alg":"none","alg":"EdDSA","kid":"ed"}'),
        "a header that is a list": lambda: sign(claims(), header=b'["alg","EdDSA"]'),
        "a header that is text": lambda: sign(claims(), header=b"EdDSA"),
        "a header in UTF-16": lambda: sign(claims(), header='{"alg":"EdDSA","kid":"ed"}'.encode("utf-16")),
        "a header that nests": lambda: sign(claims(), header=b'{"alg":' + b"[" * 1500),
        "a header of one and a half bytes": lambda: "A." + token().split(".", 1)[1],
    },
    "token_key_unknown": {
        "an unknown kid": lambda: sign(claims(), kid="nobody"),
        "no kid with several keys": lambda: sign(claims(), kid=...),
    },
    "token_expired": {
        "expired": lambda: token(exp=int(NOW) - 1),
        "expired this second": lambda: token(exp=int(NOW)),
    },
    "token_claim_exp": {
        "no exp": lambda: token(exp=...),
        "null for exp": lambda: token(exp=None),
        "true for exp": lambda: token(exp=True),
        "exp as text": lambda: token(exp=str(int(NOW) + 60)),
        "exp with a fraction": lambda: token(exp=NOW + 60.5),
        "exp as a list": lambda: token(exp=[int(NOW) + 60]),
        "exp below zero": lambda: token(exp=-1),
        "exp after the year 9999": lambda: token(exp=253_402_300_800),
        "exp without end": lambda: sign(json.dumps(claims(exp=...))[:-1].encode() + b', "exp": 1e999}'),
        "too many digits in exp": lambda: sign(json.dumps(claims(exp=10**1500)).encode()),
    },
    "token_claims": {
        "Infinity for exp": lambda: sign(json.dumps(claims(exp=float("inf"))).encode()),
        "NaN for exp": lambda: sign(json.dumps(claims(exp=float("nan"))).encode()),
        "exp twice": lambda: text('%, "exp": 1}'),
        "room twice": lambda: text('%, "room": "*"}'),
        "role twice, once escaped": lambda: text('%, "r\\u006fle": "admin"}'),
        "a limit twice": lambda: text('%, "max": {"bps": 1, "bps": 2}}'),
        "claims that nest": lambda: text('%, "x": ' + "[" * 2000 + "}"),
        "a list of claims": lambda: sign(json.dumps([claims()]).encode()),
        "claims that are text": lambda: sign(b'"seance-relay"'),
        "claims that are not JSON": lambda: sign(b"aud=seance-relay"),
        "half of the claims": lambda: text("%"),
        "two objects": lambda: text("%}{}"),
        "claims in UTF-16": lambda: sign(json.dumps(claims()).encode("utf-16")),
        "claims with a byte order mark": lambda: sign(b"\xef\xbb\xbf" + json.dumps(claims()).encode()),
        "claims that are not UTF-8": lambda: sign(
            json.dumps(claims(sub="é"), ensure_ascii=False).encode("latin-1")
        ),
    },
    "token_not_yet_valid": {
        "not yet": lambda: token(nbf=int(NOW) + 31),
        "made tomorrow": lambda: token(iat=int(NOW) + 86_400),
    },
    "token_claim_nbf": {
        "nbf as text": lambda: token(nbf="0"),
    },
    "token_claim_iat": {
        "false for iat": lambda: token(iat=False),
    },
    "token_audience": {
        "no audience": lambda: token(aud=...),
        "another audience": lambda: token(aud="seance-api"),
        "an audience that begins right": lambda: token(aud="seance-relay.evil.example"),
        "the audience in capitals": lambda: token(aud="SEANCE-RELAY"),
        "two audiences": lambda: token(aud=["seance-relay", "elsewhere"]),
        "an audience within an audience": lambda: token(aud=[["seance-relay"]]),
        "an empty list of audiences": lambda: token(aud=[]),
        "an object for an audience": lambda: token(aud={"seance-relay": True}),
    },
    "token_claim_role": {
        "no role": lambda: token(role=...),
        "an unknown role": lambda: token(role="root"),
        "a role in capitals": lambda: token(role="Client"),
        "two roles": lambda: token(role=["client", "agent"]),
        "null for a role": lambda: token(role=None),
    },
    "token_claim_room": {
        "an empty room": lambda: token(room=""),
        "null for a room": lambda: token(room=None),
        "a number for a room": lambda: token(room=1),
        "a star inside": lambda: token(room="te*m"),
        "two stars": lambda: token(room="team**"),
        "a star in front": lambda: token(room="*eam"),
        "a question mark": lambda: token(room="team-?"),
        "a room with a slash": lambda: token(room="team/../*"),
        "a room with a line end": lambda: token(room=ROOM + "\n"),
        "a room that is too long": lambda: token(room="r" * 129),
        "a room that is not ASCII": lambda: token(room="tеam"),  # noqa: RUF001  # that is the point
        "a list within a list of rooms": lambda: token(room=[[ROOM]]),
        "a number among rooms": lambda: token(room=[ROOM, 7]),
        "too many rooms": lambda: token(room=[ROOM] * 65),
    },
    "token_claim_sub": {
        "an empty sub": lambda: token(sub=""),
        "a sub that is not text": lambda: token(sub=["alice"]),
        "a sub with a NUL": lambda: token(sub="alice\0"),
        "half a character for a sub": lambda: token(sub="\ud800"),
        "a sub that ends in a space": lambda: token(sub="mallory "),
    },
    "token_claim_jti": {
        "a long jti": lambda: token(jti="j" * 257),
        "null for a jti": lambda: token(jti=None),
    },
    "token_claim_org": {
        "a page with a path": lambda: token(org="https://app.example/"),
        "any page": lambda: token(org=["*"]),
        "the page null": lambda: token(org="null"),
        "too many pages": lambda: token(org=["https://app.example"] * 17),
    },
    "token_claim_max": {
        "a list of limits": lambda: token(max=[1]),
    },
    "token_claim_clients": {
        "no clients": lambda: token(max={"clients": 0}),
        "true clients": lambda: token(max={"clients": True}),
    },
    "token_claim_bps": {
        "half a byte a second": lambda: token(max={"bps": 0.5}),
        "too large a limit": lambda: token(max={"bps": 2**53}),
    },
    "token_claim_agt": {
        "a number for an agent": lambda: token(agt=1),
    },
    "token_denied": {
        "a denied token": lambda: token(jti="stolen"),
        "a denied person": lambda: token(sub="mallory", jti="fine"),
    },
}
"""Tokens by the code of their refusal."""

NOT_ALLOWED: dict[str, tuple[Make, TokenRole, str]] = {
    "no room in the token": (lambda: token(room=...), TokenRole.CLIENT, ROOM),
    "an empty list of rooms": (lambda: token(room=[]), TokenRole.CLIENT, ROOM),
    "another room": (lambda: token(room="team-2"), TokenRole.CLIENT, ROOM),
    "a longer room": (lambda: token(room="team"), TokenRole.CLIENT, "team-2"),
    "a room that begins like it": (lambda: token(room="team-10"), TokenRole.CLIENT, ROOM),
    "a beginning that is longer": (lambda: token(room="team-*"), TokenRole.CLIENT, "team"),
    "another case": (lambda: token(room="TEAM-*"), TokenRole.CLIENT, ROOM),
    "a beginning in the middle": (lambda: token(room="eam*"), TokenRole.CLIENT, ROOM),
    "asking for the pattern itself": (lambda: token(room="team"), TokenRole.CLIENT, "team*"),
    "the wrong one of two": (lambda: token(room=["team-2", "a*"]), TokenRole.CLIENT, ROOM),
    "no room asked for": (lambda: token(room="*"), TokenRole.CLIENT, ""),
    "no room asked for by an agent": (lambda: token(room="*", role="agent"), TokenRole.AGENT, ""),
    "a client as agent": (lambda: token(), TokenRole.AGENT, ROOM),
    "a client as admin": (lambda: token(room="*"), TokenRole.ADMIN, ""),
    "an agent as client": (lambda: token(role="agent"), TokenRole.CLIENT, ROOM),
    "an agent as admin": (lambda: token(role="agent"), TokenRole.ADMIN, ROOM),
    "an admin as client": (lambda: token(role="admin", room="*"), TokenRole.CLIENT, ROOM),
    "an admin of other rooms": (lambda: token(role="admin", room="a*"), TokenRole.ADMIN, ROOM),
    "a denied room": (lambda: token(room="closed"), TokenRole.CLIENT, "closed"),
    "one of the denied rooms": (lambda: token(room="*"), TokenRole.CLIENT, "old-7"),
}


@pytest.mark.parametrize(
    ("code", "make"),
    [pytest.param(code, make, id=name) for code, made in NOT_ACCEPTED.items() for name, make in made.items()],
)
def test_invalid_tokens_get_the_same_401(code: str, make: Make, service: AuthService) -> None:
    refusal = refusal_of(service.verify(make(), TokenRole.CLIENT, ROOM))
    assert refusal.code == code
    assert refusal_response(refusal) == refusal_response(make_refusal("token_missing"))
    assert refusal_response(refusal).startswith(b"HTTP/1.1 401 ")
    assert b'\r\nWWW-Authenticate: Bearer realm="seance"\r\n' in refusal_response(refusal)


@pytest.mark.parametrize(
    ("code", "make"),
    [pytest.param(code, make, id=name) for code, made in NOT_ACCEPTED.items() for name, make in made.items()],
)
def test_invalid_tokens_of_agents_get_the_same_401_for_agents(
    code: str, make: Make, service: AuthService
) -> None:
    refusal = refusal_of(service.verify(make(), TokenRole.AGENT, ROOM))
    assert refusal.code == code
    assert refusal_response(refusal) == refusal_response(make_refusal("token_missing.agent"))
    assert "invited" not in refusal.message
    assert "the relay's clock" in refusal.message


@pytest.mark.parametrize(("make", "role", "room"), NOT_ALLOWED.values(), ids=NOT_ALLOWED)
def test_valid_tokens_without_permission_get_the_same_403(
    make: Make, role: TokenRole, room: str, service: AuthService
) -> None:
    refusal = refusal_of(service.verify(make(), role, room))
    assert refusal_response(refusal) == refusal_response(make_refusal("token_role"))
    assert refusal_response(refusal).startswith(b"HTTP/1.1 403 ")


GOOD: dict[str, Make] = {
    "as it should be": token,
    "another key": lambda: sign(claims(), kid="ed-2", material=ed_key("ed-2").signing),
    "a shared secret": hs256,
    "RS256": rs256,
    "ES256": lambda: sign(claims(), material=es_private(), algorithm="ES256", kid="es"),
    "no typ": lambda: sign(claims(), typ=...),
    "the usual typ": lambda: sign(claims(), typ="JWT"),
    "a certificate's fingerprint": lambda: sign(claims(), x5t="abc", **{"x5t#S256": "def"}),
    "one audience in a list": lambda: token(aud=["seance-relay"]),
    "a clock that is ahead": lambda: token(iat=int(NOW) + 30, nbf=int(NOW) + 30),
    "until the end of time": lambda: token(exp=253_402_300_799),
    "a beginning": lambda: token(room="team*"),
    "a beginning with its last character": lambda: token(room="team-*"),
    "the room and a star": lambda: token(room="team-1*"),
    "every room": lambda: token(room="*"),
    "one of several": lambda: token(room=["a", "b*", ROOM]),
    "unknown claims": lambda: token(iss=["x"], scope={"deep": [1.5, None]}),
    "unknown limits": lambda: token(max={"clients": 3, "pages": "many"}),
}


@pytest.mark.parametrize("make", GOOD.values(), ids=GOOD)
def test_valid_token_is_accepted(make: Make, service: AuthService) -> None:
    """Shows that the forged tokens are refused only for their error."""
    assert grant_of(service.verify(make(), TokenRole.CLIENT, ROOM)).allows_room(ROOM)


@pytest.mark.parametrize("make", GOOD.values(), ids=GOOD)
def test_every_accepted_token_is_recognized_in_requests(make: Make) -> None:
    """Otherwise the relay would forward it to the local server."""
    assert is_seance_token(make().encode())


@pytest.mark.parametrize(
    "make",
    [
        lambda: "x" * 5000,
        lambda: "a.b.c",
        lambda: sign(claims(), kid="../x"),
        lambda: sign(claims(), kid="?"),
    ],
)
def test_malformed_token_costs_no_signature_check(
    make: Make, service: AuthService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "signed_payload", lambda *_: pytest.fail("it was worked on"))
    refusal_of(service.verify(make(), TokenRole.CLIENT, ROOM))


def test_forging_tools_sign_tokens_that_pyjwt_refuses_to_sign() -> None:
    """Shows that the forged tokens have signatures that a weak verifier accepts."""
    forged = hmac_sign(public_pem(rsa_private()), kid="rs")
    signed, _, signature = forged.rpartition(".")
    algorithm = jwt.get_algorithm_by_name("HS256")
    assert algorithm.sign(signed.encode(), public_pem(rsa_private())) == jwt.utils.base64url_decode(signature)
    assert secret_key().algorithm.value == "HS256"
