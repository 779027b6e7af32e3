"""A million mutants: good and hostile inputs of every public parser, bent at random, many a second.

The property tests beside each parser know what an answer should be; they make hundreds of inputs a
second. Here only one thing is asked, that an input is taken or refused in the parser's own words, so
that thousands a second can be asked. ``make fuzz`` asks ``MUTANTS`` times as many as a property
test's examples: 200,000 of each parser, a million in all.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from twisted.internet.task import Clock

from seance.carrier.link_control import parse_control
from seance.errors import LocalProtocolError, Refusal, RemoteProtocolError
from seance.heads import (
    LocalAnswer,
    RequestReader,
    check_upgrade,
    find_token,
    redact,
    request_for_local,
    resolve_target,
    without_token,
)
from seance.tunnel.ports import Grant, TokenRole
from seance.yamux import Role, Session
from tests.auth.tokens import ROOM, auth_service, claims, ed_key, secret_key, sign, token, write_jwks
from tests.heads.samples import FORWARDED, KEY, SWITCHING
from tests.heads.test_smuggling import BODIES, OTHERS, PASSING
from tests.yamux.frame_bytes import ACK, FIN, RST, SYN, data, go_away, ping, window

MUTANTS = 25
"""For each example that the profile allows a property test: 100 in the suite, 8,000 in ``make fuzz``."""

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

Fuzz = Callable[[bytes], None]


def mutant(dice: random.Random, seeds: list[bytes]) -> bytes:
    """A seed with one to five pieces changed, doubled, lost, or taken from another seed."""
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


def fuzz_head(raw: bytes) -> None:
    with suppress(Refusal):
        request = RequestReader().receive(raw)
        if request is not None:
            route = resolve_target(request.target)
            check_upgrade(request)
            find_token(request, route)
            request, route = without_token(request, route)
            head = request_for_local(request, route.local, FORWARDED)
            assert head.count(b"\r\n\r\n") == 1
            assert head.endswith(b"\r\n\r\n")
            redact(repr(request))


def fuzz_answer(raw: bytes) -> None:
    answer = LocalAnswer(KEY)
    with suppress(Refusal):
        answer.receive(raw)
        if not (answer.is_switched or answer.is_finished or answer.is_broken):
            answer.receive_end()


def fuzz_target(raw: bytes) -> None:
    with suppress(Refusal):
        route = resolve_target(b"/" + raw)
        assert not route.local or route.local.startswith(b"/")


def fuzz_yamux(raw: bytes) -> None:
    session = Session(Role.SERVER)
    stream = session.open_stream(0.0)
    session.next_message()
    try:
        session.receive_data(raw[:20], 1.0)
        if not session.is_closed:
            session.receive_data(raw[20:], 2.0)
    except RemoteProtocolError:
        pass
    else:
        session.handle_timeout(3.0)
        with suppress(LocalProtocolError):
            session.send_data(stream, b"x")
    session.take_events()
    while session.next_message():
        pass


def fuzz_control(raw: bytes) -> None:
    with suppress(RemoteProtocolError):
        parse_control(raw)


@pytest.fixture(scope="module")
def fuzz_token(tmp_path_factory: pytest.TempPathFactory) -> Fuzz:
    keys = write_jwks(tmp_path_factory.mktemp("fuzz") / "keys", ed_key(), secret_key())
    service = auth_service(Clock(), keys=[Path(keys)])
    service.startService()

    def fuzz(raw: bytes) -> None:
        results: list[Any] = []
        service.verify(raw.decode("latin-1"), TokenRole.CLIENT, ROOM).addBoth(results.append)
        [result] = results
        assert isinstance(result, Grant) or type(result.value) is Refusal

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


def check(fuzz: Fuzz, seeds: list[bytes]) -> None:
    seed = random.SystemRandom().getrandbits(64)
    dice = random.Random(seed)
    for number in range(settings().max_examples * MUTANTS):
        raw = mutant(dice, seeds)
        try:
            fuzz(raw)
        except Exception as error:
            error.add_note(f"mutant {number} of seed {seed}: {raw!r}")
            raise


@pytest.mark.parametrize(
    ("fuzz", "seeds"),
    [
        (fuzz_head, HEADS),
        (fuzz_answer, ANSWERS),
        (fuzz_target, TARGETS),
        (fuzz_yamux, FRAMES),
        (fuzz_control, CONTROLS),
    ],
    ids=["head", "answer", "target", "yamux", "link control"],
)
def test_mutants_are_taken_or_refused(fuzz: Fuzz, seeds: list[bytes]) -> None:
    check(fuzz, seeds)


def test_mutants_of_tokens_are_granted_or_refused(fuzz_token: Fuzz) -> None:
    key = secret_key()
    tokens = [
        token(),
        token(role="agent"),
        sign(claims(), material=key.signing, algorithm="HS256", kid=key.key_id),
        sign(claims(), alg="none"),
        sign(claims(max={"clients": 5}, org=["https://a.example"]), kid="unknown"),
    ]
    check(fuzz_token, [text.encode() for text in tokens])
