"""Tests of the proof of an agent's identity."""

from __future__ import annotations

import random
import re

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from seance.auth import identity as identity_module
from seance.auth.agent_key import AgentKey
from seance.auth.identity import NONCE_SECONDS, IdentityChecker, base64url, proof_message, thumbprint
from seance.errors import Refusal

ROOM = "test-room"
HOST = "relay.example:8080"
ALICE, MALLORY = AgentKey(b"a" * 32), AgentKey(b"m" * 32)


def nonce_of(refusal: Refusal) -> str:
    return dict(refusal.headers)[b"Seance-Nonce"].decode()


def refused(
    checker: IdentityChecker, claim: str, room: str = ROOM, host: str = HOST, now: float = 0.0
) -> str:
    """Check that a claim is refused, and return the nonce of the refusal."""
    with pytest.raises(Refusal) as caught:
        checker.check(claim, room, host, now)
    code = "identity_question" if re.fullmatch(r"v1\.[\w-]{43}", claim, re.ASCII) else "identity_proof"
    assert (caught.value.status, caught.value.code) == (401, code)
    nonce = nonce_of(caught.value)
    assert checker.check(ALICE.prove(nonce, ROOM, HOST), ROOM, HOST, now) == ALICE.identity(HOST)
    return nonce


def test_announcement_gets_a_nonce_for_a_proof() -> None:
    checker = IdentityChecker()
    refused(checker, ALICE.announce(HOST))


def test_identity_is_the_thumbprint_of_the_key() -> None:
    key = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
    public = key.public_key().public_bytes_raw()
    checker = IdentityChecker()
    nonce = checker.challenge(0.0)
    signature = base64url(key.sign(proof_message(nonce, ROOM, HOST)))
    claim = f"v1.{base64url(public)}.{nonce}.{signature}"
    assert checker.check(claim, ROOM, HOST, 0.0) == thumbprint(public)


def test_message_is_what_the_protocol_page_says() -> None:
    assert proof_message("n", "room", "Relay.Example:8080") == (
        b"\x00\x00\x00\x15seance agent proof v1"
        b"\x00\x00\x00\x01n"
        b"\x00\x00\x00\x04room"
        b"\x00\x00\x00\x0drelay.example"
    )


def test_proof_is_accepted_once() -> None:
    checker = IdentityChecker()
    claim = ALICE.prove(checker.challenge(0.0), ROOM, HOST)
    checker.check(claim, ROOM, HOST, 0.0)
    refused(checker, claim)


def test_nonce_is_valid_for_one_agent() -> None:
    checker = IdentityChecker()
    nonce = checker.challenge(0.0)
    checker.check(ALICE.prove(nonce, ROOM, HOST), ROOM, HOST, 0.0)
    refused(checker, MALLORY.prove(nonce, ROOM, HOST))


def test_failed_proof_does_not_consume_the_nonce() -> None:
    checker = IdentityChecker()
    nonce = checker.challenge(0.0)
    refused(checker, ALICE.prove(nonce, "other", HOST))
    checker.check(ALICE.prove(nonce, ROOM, HOST), ROOM, HOST, 0.0)


@pytest.mark.parametrize(
    ("room", "host"), [("other-room", HOST), (ROOM, "other.example:8080"), (ROOM, "relay.example.evil")]
)
def test_proof_for_another_room_or_host_is_refused(room: str, host: str) -> None:
    checker = IdentityChecker()
    refused(checker, ALICE.prove(checker.challenge(0.0), room, host))


@pytest.mark.parametrize(
    ("dialled", "arrived"),
    [
        ("relay.example", "relay.example:443"),
        ("relay.example:8443", "relay.example"),
        ("Relay.Example", "relay.example"),
        ("[::1]:8080", "[::1]"),
    ],
)
def test_proxy_may_add_and_drop_the_port(dialled: str, arrived: str) -> None:
    checker = IdentityChecker()
    claim = ALICE.prove(checker.challenge(0.0), ROOM, dialled)
    assert checker.check(claim, ROOM, arrived, 0.0) == ALICE.identity(dialled)


def test_signature_of_another_key_is_refused() -> None:
    checker = IdentityChecker()
    nonce = checker.challenge(0.0)
    signature = MALLORY.prove(nonce, ROOM, HOST).rpartition(".")[2]
    refused(checker, f"{ALICE.announce(HOST)}.{nonce}.{signature}")


def test_proof_with_a_nonce_of_another_relay_is_refused() -> None:
    refused(IdentityChecker(), ALICE.prove(IdentityChecker().challenge(0.0), ROOM, HOST))


def test_hostile_relay_cannot_forward_a_proof() -> None:
    """It forwards a nonce of the good relay to the agent, and the proof with the same room and Host back."""
    good = IdentityChecker()
    proof = ALICE.prove(good.challenge(0.0), ROOM, "evil.example")
    assert good.check(proof, ROOM, "evil.example", 0.0) != ALICE.identity(HOST)
    refused(good, ALICE.prove(good.challenge(0.0), ROOM, "evil.example"))


def test_nonce_is_valid_for_ten_minutes() -> None:
    checker = IdentityChecker()
    claims = [ALICE.prove(checker.challenge(1000.0), ROOM, HOST) for _ in range(2)]
    checker.check(claims[0], ROOM, HOST, 1000.0 + NONCE_SECONDS - 0.1)
    refused(checker, claims[1], now=1000.0 + NONCE_SECONDS + 0.1)


@pytest.mark.parametrize("part", range(32))
def test_nonce_with_any_byte_changed_is_refused(part: int) -> None:
    checker = IdentityChecker()
    nonce = bytearray(identity_module._decoded(checker.challenge(1.0)))
    nonce[part] ^= 1
    refused(checker, ALICE.prove(base64url(bytes(nonce)), ROOM, HOST), now=1.0)


def test_nonce_in_another_encoding_is_refused() -> None:
    """The last of the 43 characters has two unused bits."""
    checker = IdentityChecker()
    nonce = checker.challenge(0.0)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = nonce[:-1] + alphabet[alphabet.index(nonce[-1]) | 1]
    assert twin != nonce
    refused(checker, ALICE.prove(twin, ROOM, HOST))


@pytest.mark.parametrize(
    "claim",
    [
        "",
        "v1",
        "v1.",
        "v1." + "A" * 42,
        "v1." + "A" * 44,
        "v2." + "A" * 43,
        "V1." + "A" * 43,
        "v1." + "A" * 43 + ".",
        "v1." + "A" * 43 + "." + "A" * 43,
        "v1." + "A" * 43 + "." + "A" * 43 + "." + "A" * 85,
        "v1." + "A" * 43 + "." + "A" * 43 + "." + "A" * 86 + ".x",
        "v1." + "+" * 43,
        "v1." + "é" * 43,
        " v1." + "A" * 43,
        "v1." + "A" * 43 + "\n",
        "v1." + "A" * 43 + ",v1." + "A" * 43,
        "v1." + "B" * 43 + "." + "C" * 43 + "." + "D" * 86,
        "A" * 16000,
    ],
)
def test_malformed_claim_is_refused(claim: str) -> None:
    refused(IdentityChecker(), claim)


WORDS = st.text(st.characters(codec="utf-8"), max_size=400)


@given(WORDS | st.from_regex(r"\Av1\.[\w-]{43}\.[\w-]{43}\.[\w-]{86}\Z"), WORDS)
def test_any_claim_and_host_is_refused(claim: str, host: str) -> None:
    with pytest.raises(Refusal):
        IdentityChecker().check(claim, ROOM, host, 0.0)


def test_nonces_are_unique_and_depend_on_time_and_random_only() -> None:
    made = [IdentityChecker(random.Random(7).randbytes).challenge(5.0) for _ in range(2)]
    assert made[0] == made[1], "a nonce depends on more than the clock and the random bytes"
    checker = IdentityChecker(lambda count: b"r" * count)
    assert identity_module._decoded(checker.challenge(5.0))[8:16] == b"r" * 8
    assert len({checker.challenge(5.0) for _ in range(100)}) == 100


def test_clock_that_goes_back_neither_locks_out_nor_accepts_twice() -> None:
    checker = IdentityChecker()
    claim = ALICE.prove(checker.challenge(10_000.0), ROOM, HOST)
    checker.check(claim, ROOM, HOST, 10_000.0)
    refused(checker, claim, now=1.0)
    refused(checker, ALICE.announce(HOST), now=1.0)


def test_expired_nonces_are_removed() -> None:
    checker = IdentityChecker()
    for number in range(5):
        now = number * NONCE_SECONDS * 0.6
        checker.check(ALICE.prove(checker.challenge(now), ROOM, HOST), ROOM, HOST, now)
    assert len(checker._used) == len(checker._used_in_order) == 2


def test_full_table_accepts_no_proof_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_module, "MAX_USED_NONCES", 3)
    checker = IdentityChecker()
    early = ALICE.prove(checker.challenge(1.0), ROOM, HOST)
    claims = [ALICE.prove(checker.challenge(float(now)), ROOM, HOST) for now in range(2, 7)]
    for now, claim in enumerate(claims, 2):
        checker.check(claim, ROOM, HOST, float(now))
    assert len(checker._used) == len(checker._used_in_order) == 3
    for claim in [early, *claims]:
        refused(checker, claim, now=10.0)
