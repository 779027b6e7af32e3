"""Mutants: valid and hostile inputs of every public parser, changed at random, thousands per second.

The property tests of each parser know the expected result, and make hundreds of inputs per second. The only
claim here is that a parser accepts an input or refuses it with its own error. ``make fuzz`` makes 200,000
inputs for each parser and prints their number; the suite makes 2,500.

The result of an input is its outcome, such as the code of a refusal. The corpus (``corpus/*.json``) keeps the
shortest known input for each outcome. Mutants are made from it too, and each entry must keep its outcome. If
a change alters one on purpose, delete the entry. ``make fuzz`` writes new outcomes there, to be committed,
and also an input that failed, which then fails in every run.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from twisted.internet.task import Clock

from seance.carrier.link_control import parse_control
from seance.core.interfaces import Grant, TokenRole
from seance.errors import LocalProtocolError, Refusal, RemoteProtocolError
from seance.heads import (
    LocalResponse,
    RequestReader,
    check_upgrade,
    find_token,
    redact,
    request_for_local,
    resolve_target,
    without_token,
)
from seance.yamux import Role, Session
from tests.attacks.conftest import FuzzCount
from tests.auth.tokens import ROOM, auth_service, claims, ed_key, secret_key, sign, token, write_jwks
from tests.heads.samples import FORWARDED, KEY, SWITCHING
from tests.heads.test_smuggling import BODIES, OTHERS, PASSING
from tests.yamux.frame_bytes import ACK, FIN, RST, SYN, data, go_away, ping, window

pytestmark = pytest.mark.fuzz

MUTANTS = 2_500
FUZZ_MUTANTS = 200_000
"""Inputs per parser: in the suite, and in ``make fuzz``."""

MOST_KEPT = 200
FAILED = "failed: "
CORPUS = Path(__file__).with_name("corpus")

MAGIC = [
    b"\r\n",
    b"\0",
    b"\xff" * 4,
    b"%",
    b"%2f",
    b"?",
    b"&",
    b"/",
    b".",
    b"=",
    b'"',
    b"{",
    b"[",
    b"-1",
    b" ",
    b":",
]

Fuzz = Callable[[bytes], str]
"""Parses an input and returns its outcome; any exception is a failure."""


def mutant(dice: random.Random, seeds: list[bytes]) -> bytes:
    """Return a seed with one to five pieces changed, duplicated, removed, or taken from another seed."""
    mutated = bytearray(dice.choice(seeds))
    for _ in range(dice.randint(1, 5)):
        start = dice.randint(0, len(mutated))
        end = min(len(mutated), start + dice.choice([0, 1, 1, 2, 4, 12, 60]))
        other = dice.choice(seeds)
        cut = dice.randint(0, len(other))
        mutated[start:end] = dice.choice(
            [
                b"",
                dice.randbytes(end - start),
                dice.choice(MAGIC),
                mutated[start:end] * 2,
                other[cut : cut + 20],
            ]
        )
    return bytes(mutated)


def fuzz_head(raw: bytes) -> str:
    try:
        request = RequestReader().receive(raw)
        if request is None:
            return "incomplete"
        route = resolve_target(request.target)
        check_upgrade(request)
        found = find_token(request, route)
        request, route = without_token(request, route)
        head = request_for_local(request, route.local or b"/", FORWARDED)
    except Refusal as refusal:
        return refusal.code
    assert head.count(b"\r\n\r\n") == 1
    assert head.endswith(b"\r\n\r\n")
    redact(repr(request))
    return f"{route.kind.value}, token in {found.location.value}"


def fuzz_answer(raw: bytes) -> str:
    answer = LocalResponse(KEY)
    try:
        answer.receive(raw)
        if not (answer.is_switched or answer.is_finished or answer.is_broken):
            answer.receive_end()
    except Refusal as refusal:
        return refusal.code
    states = {"switched": answer.is_switched, "finished": answer.is_finished, "broken": answer.is_broken}
    return ", ".join(name for name, holds in states.items() if holds)


def fuzz_target(raw: bytes) -> str:
    try:
        route = resolve_target(b"/" + raw)
    except Refusal as refusal:
        return refusal.code
    assert not route.local or route.local.startswith(b"/")
    query = " with a query" if b"?" in route.local else ""
    return f"{route.kind.value}{', share link' if route.is_share_link else ''}{query}"


def fuzz_yamux(raw: bytes) -> str:
    session = Session(Role.SERVER)
    stream = session.open_stream(0.0)
    session.next_message()
    outcome = ""
    try:
        session.receive_data(raw[:20], 1.0)
        if not session.is_closed:
            session.receive_data(raw[20:], 2.0)
    except RemoteProtocolError as error:
        outcome = error.code
    else:
        session.handle_timeout(3.0)
        try:
            session.send_data(stream, b"x")
        except LocalProtocolError as error:
            outcome = error.code
    events = {type(event).__name__ for event in session.take_events()}
    while session.next_message():
        pass
    return outcome or " ".join(sorted(events))


def fuzz_control(raw: bytes) -> str:
    try:
        return "taken, with more" if len(parse_control(raw)) > 1 else "taken"
    except RemoteProtocolError as error:
        return error.code


@pytest.fixture(scope="module")
def fuzz_token(tmp_path_factory: pytest.TempPathFactory) -> Fuzz:
    keys = write_jwks(tmp_path_factory.mktemp("fuzz") / "keys", ed_key(), secret_key())
    service = auth_service(Clock(), keys=[Path(keys)])
    service.startService()

    def fuzz(raw: bytes) -> str:
        results: list[Any] = []
        service.verify(raw.decode("latin-1"), TokenRole.CLIENT, ROOM).addBoth(results.append)
        [result] = results
        if isinstance(result, Grant):
            return "granted"
        assert type(result.value) is Refusal, result
        return result.value.code

    return fuzz


HEADS = [*BODIES.values(), *OTHERS.values(), *PASSING.values()]
ANSWERS = [
    SWITCHING,
    b"HTTP/1.1 100 Continue\r\n\r\n" + SWITCHING + b"first",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\nx\r\n0\r\nA: b\r\n\r\n",
]
TARGETS = [head.split(b" ")[1][1:] for head in HEADS if b" /" in head[:8]] + [
    b"c/r?access_token=eyJ0eXAiOiJzZWFuY2Urand0In0.e30.x/doc?x=1",
    b"client/doc?room=r&access_token=eyJ0eXAiOiJzZWFuY2Urand0In0.e30.x",
    b"agent?room=r",
]
FRAMES = [
    window(2, ACK, 1) + data(2, b"hello") + data(2, b"", FIN) + ping(SYN, 7),
    window(1, SYN) + data(1, b"x" * 40, FIN) + window(1, RST) + window(2, RST),
    data(3, b"glued", SYN) + window(3, 0, 0xFFFFFFFF) + ping(ACK, 1) + go_away(0),
]
CONTROLS = [b'{"t": "token", "token": "a.b.c"}', b'{"t": "drain", "in": 5.5, "x": [null, {"\\ud800": 1e99}]}']


FUZZED: dict[str, tuple[Fuzz, list[bytes]]] = {
    "head": (fuzz_head, HEADS),
    "answer": (fuzz_answer, ANSWERS),
    "target": (fuzz_target, TARGETS),
    "yamux": (fuzz_yamux, FRAMES),
    "link control": (fuzz_control, CONTROLS),
}


def token_seeds() -> list[bytes]:
    key = secret_key()
    tokens = [
        token(),
        token(role="agent"),
        sign(claims(), material=key.signing, algorithm="HS256", kid=key.key_id),
        sign(claims(), alg="none"),
        sign(claims(max={"clients": 5}, org=["https://a.example"]), kid="unknown"),
    ]
    return [text.encode() for text in tokens]


def corpus(name: str) -> dict[str, bytes]:
    """The stored inputs of a parser, one for each outcome."""
    kept: dict[str, str] = json.loads((CORPUS / f"{name}.json").read_text(encoding="ascii"))
    return {outcome: raw.encode("latin-1") for outcome, raw in kept.items()}


def keep(name: str, found: dict[str, bytes]) -> None:
    """Write a corpus in a form that gives readable diffs."""
    kept = {outcome: raw.decode("latin-1") for outcome, raw in sorted(found.items())[:MOST_KEPT]}
    (CORPUS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="ascii")


def check(name: str, fuzz: Fuzz, seeds: list[bytes], count: FuzzCount) -> None:
    is_fuzzing = settings().max_examples > settings.get_profile("suite").max_examples
    found = corpus(name)
    seeds = [*seeds, *found.values()]
    seed = random.SystemRandom().getrandbits(64)
    dice = random.Random(seed)
    for number in range(FUZZ_MUTANTS if is_fuzzing else MUTANTS):
        raw = mutant(dice, seeds)
        count[name] = count.get(name, 0) + 1
        try:
            outcome = fuzz(raw)
        except Exception as error:
            error.add_note(f"mutant {number} of seed {seed}: {raw!r}")
            keep(name, found | {f"{FAILED}{error!r}"[:80]: raw})
            raise
        if outcome not in found or len(raw) < len(found[outcome]):
            found[outcome] = raw
    if is_fuzzing:
        keep(name, found)


@pytest.mark.parametrize("name", FUZZED)
def test_mutants_are_accepted_or_refused(name: str, fuzz_count: FuzzCount) -> None:
    check(name, *FUZZED[name], fuzz_count)


def test_mutants_of_tokens_are_granted_or_refused(fuzz_token: Fuzz, fuzz_count: FuzzCount) -> None:
    check("token", fuzz_token, token_seeds(), fuzz_count)


def check_corpus(name: str, fuzz: Fuzz) -> None:
    for outcome, raw in corpus(name).items():
        now = fuzz(raw)
        assert now == outcome or outcome.startswith(FAILED), raw


@pytest.mark.parametrize("name", FUZZED)
def test_each_corpus_entry_keeps_its_outcome(name: str) -> None:
    check_corpus(name, FUZZED[name][0])


def test_each_corpus_token_keeps_its_outcome(fuzz_token: Fuzz) -> None:
    check_corpus("token", fuzz_token)
