"""Tests of keys: accepted forms and sizes, names, and messages for other keys."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from seance.auth.keys import Key, KeyAlgorithm, key_from_jwk, keys_from_text, make_key, make_secret
from tests.auth.tokens import (
    SECRET,
    base64,
    ed_key,
    es_private,
    jwk_of,
    pem,
    public_pem,
    rsa_private,
    secret_key,
)

RFC_7638_KEY = {
    "kty": "RSA",
    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJE"
    "CPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2Q"
    "vzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6"
    "WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    "e": "AQAB",
}


def ed_pem() -> bytes:
    return pem(ed_key().signing)


def locked_pem() -> bytes:
    return es_private().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pw"))


def only(text: bytes | dict[str, Any]) -> Key:
    [key] = keys_from_text(text if isinstance(text, bytes) else json.dumps(text).encode())
    return key


@pytest.mark.parametrize(
    ("text", "algorithm", "can_sign"),
    [
        (lambda: pem(ed_key().signing), KeyAlgorithm.EDDSA, True),
        (lambda: public_pem(ed_key().signing), KeyAlgorithm.EDDSA, False),
        (lambda: pem(rsa_private()), KeyAlgorithm.RS256, True),
        (lambda: public_pem(rsa_private()), KeyAlgorithm.RS256, False),
        (lambda: pem(es_private()), KeyAlgorithm.ES256, True),
        (lambda: public_pem(es_private()), KeyAlgorithm.ES256, False),
        (lambda: ed_key().private_jwk(), KeyAlgorithm.EDDSA, True),
        (lambda: ed_key().public_jwk(), KeyAlgorithm.EDDSA, False),
        (lambda: jwk_of(rsa_private(), "RS256"), KeyAlgorithm.RS256, False),
        (lambda: jwk_of(es_private(), "ES256"), KeyAlgorithm.ES256, False),
        (lambda: secret_key().private_jwk(), KeyAlgorithm.HS256, True),
        (
            lambda: jwt.get_algorithm_by_name("RS256").to_jwk(rsa_private(), as_dict=True),
            KeyAlgorithm.RS256,
            True,
        ),
        (
            lambda: jwt.get_algorithm_by_name("ES256").to_jwk(es_private(), as_dict=True),
            KeyAlgorithm.ES256,
            True,
        ),
    ],
)
def test_every_kind_and_form_is_accepted(text: Any, algorithm: KeyAlgorithm, can_sign: bool) -> None:
    key = only(text())
    assert key.algorithm is algorithm
    assert (key.signing is not None) is can_sign
    assert key.without_signing().signing is None
    assert key.without_signing() == key


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (lambda: b"", "not JSON"),
        (lambda: b"a secret of more than thirty-two letters", "not JSON"),
        (lambda: SECRET, "not JSON"),
        (lambda: b"ssh-ed25519 AAAA", "not JSON"),
        (lambda: b"[]", "not a JSON object"),
        (lambda: {}, "damaged or of an unsupported kind"),
        (lambda: {"kty": "oct", "k": 5}, "damaged"),
        (lambda: {"kty": 5}, "unsupported kind"),
        (lambda: {"kty": "RSA", "crv": "Ed25519"}, "unsupported kind"),
        (lambda: {"kty": "oct", "k": base64(SECRET[:31]), "kid": "k"}, "31 bytes"),
        (lambda: {"kty": "oct", "k": base64(bytes(1025)), "kid": "k"}, "1025 bytes"),
        (lambda: {"kty": "oct", "k": "", "kid": "k"}, "damaged"),
        (lambda: {"kty": "oct", "k": base64(SECRET)}, "without a kid"),
        (lambda: {"kty": "oct", "k": base64(public_pem(ed_key().signing)), "kid": "k"}, "of another kind"),
        (lambda: {**ed_key().public_jwk(), "alg": "HS256"}, "unsupported alg"),
        (lambda: {**ed_key().public_jwk(), "alg": None}, "unsupported alg"),
        (lambda: {**ed_key().public_jwk(), "alg": "none"}, "unsupported alg"),
        (lambda: {**ed_key().public_jwk(), "alg": ["EdDSA"]}, "unsupported alg"),
        (lambda: jwk_of(ed448.Ed448PrivateKey.generate(), "EdDSA"), "unsupported kind"),
        (lambda: {**jwk_of(rsa_private(), "RS256"), "crv": "P-256"}, "crv that does not belong"),
        (lambda: {"kty": "oct", "kid": "k"}, "damaged"),
        (lambda: {"kid": "k", "k": base64(SECRET)}, "damaged"),
        (lambda: {**jwk_of(rsa_private(), "RS256"), "alg": "PS256"}, "unsupported alg"),
        (lambda: {**ed_key().public_jwk(), "use": "enc"}, "the use 'enc'"),
        (lambda: {**ed_key().public_jwk(), "x": "AAAA"}, "damaged"),
        (lambda: {**ed_key().public_jwk(), "x": "é"}, "damaged"),
        (lambda: {**ed_key().private_jwk(), "d": base64(bytes(32))}, "damaged"),
        (lambda: {**jwk_of(es_private(), "ES256"), "x": base64(bytes(32))}, "damaged"),
        (lambda: {**jwk_of(es_private(), "ES256"), "crv": "P-384"}, "unsupported kind"),
        (lambda: {"kty": "EC", "crv": "P-256", "x": "AAAA"}, "damaged"),
        (lambda: {"kty": "RSA", "n": "", "e": ""}, "damaged"),
        (lambda: {"kty": "RSA", "n": base64(b"\xff" * 128), "e": "AQAB"}, "1024 bits"),
        (lambda: {"kty": "RSA", "n": base64(b"\xff" * 1025), "e": "AQAB"}, "8200 bits"),
        (lambda: {**ed_key().public_jwk(), "kid": "../key"}, "kid that is not"),
        (lambda: {**ed_key().public_jwk(), "kid": 5}, "kid that is not"),
        (lambda: {"keys": 5}, "at most 64 keys"),
        (lambda: {"keys": [{}] * 65}, "at most 64 keys"),
        (lambda: {"keys": ["key"]}, "not a JWK"),
        (lambda: {"keys": [ed_key().public_jwk(), secret_key("ed").private_jwk()]}, "same kid"),
        (lambda: ed_pem() + ed_pem(), "several PEM blocks"),
        (lambda: ed_pem().replace(b"\n", b"\nAA", 1), "damaged"),
        (lambda: public_pem(es_private())[:60] + b"\n-----END PUBLIC KEY-----\n", "damaged"),
        (
            lambda: b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
            "certificates are not accepted",
        ),
        (locked_pem, "password"),
        (lambda: pem(ed448.Ed448PrivateKey.generate()), "unsupported kind"),
        (lambda: public_pem(x25519.X25519PrivateKey.generate()), "unsupported kind"),
        (lambda: pem(ec.generate_private_key(ec.SECP384R1())), "secp384r1"),
    ],
)
def test_unacceptable_key_is_an_error(text: Any, problem: str) -> None:
    made = text()
    with pytest.raises(ValueError, match=problem) as caught:
        keys_from_text(made if isinstance(made, bytes) else json.dumps(made).encode())
    assert not str(caught.value).endswith(".")
    assert base64(SECRET) not in str(caught.value), "PyJWT's messages contain the key"


def test_key_without_kid_gets_its_thumbprint() -> None:
    """The example of RFC 7638, section 3.1."""
    assert key_from_jwk(RFC_7638_KEY).key_id == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_private_and_public_part_have_the_same_name() -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    assert only(pem(private)).key_id == only(public_pem(private)).key_id


def test_set_without_keys_is_valid() -> None:
    assert keys_from_text(b'{"keys": []}') == ()


def test_keys_are_equal_if_they_accept_the_same_signatures() -> None:
    assert key_from_jwk(ed_key().public_jwk()) == ed_key()
    assert secret_key(secret=SECRET) != secret_key(secret=bytes(32))
    assert ed_key("one") != ed_key("two")


@pytest.mark.parametrize("make", [make_key, make_secret])
def test_new_key_round_trips_through_jwk(make: Any) -> None:
    key = make()
    assert key_from_jwk(key.private_jwk()) == key
    assert make() != key


def test_public_part_has_no_private_members() -> None:
    assert set(make_key().public_jwk()) == {"kid", "alg", "use", "kty", "crv", "x"}


@pytest.mark.parametrize("key", [ed_key(), secret_key()])
def test_repr_of_a_key_shows_name_and_algorithm_only(key: Key) -> None:
    """Logs and tracebacks show names and algorithms only."""
    shown = repr(key)
    assert key.key_id in shown
    assert "signing" not in shown
    assert "verifying" not in shown
    assert "fingerprint" not in shown
