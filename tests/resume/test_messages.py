"""The messages of resumption: a written message can be parsed, and malformed ones are harmless."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seance.resume import BYE, RESUME_FIELD, SESSION_FIELD, Ack, DrainNotice, ResumeRequest, SessionInfo

SID, TOKEN = "s" * 22, "T_k-" * 11
WISH = ResumeRequest(SID, TOKEN, 1234, 0x0A1B2C3D)
FIELD = SessionInfo(SID, TOKEN, 2, 987, 0xFF, 20.0, is_resumed=False, why="expired")

secrets = st.text("abcXYZ019_-", min_size=16, max_size=128)
counts = st.integers(0, 2**64 - 1)
checksums = st.integers(0, 2**32 - 1)

MISPRINTS = [";", "=", " ", "\0", "é", "9", "", "\ud800"]

LINES: list[tuple[Callable[[str], Any], str]] = [
    (ResumeRequest.read, WISH.written()),
    (SessionInfo.read, FIELD.written()),
]


# Round trips


def test_fields_look_as_documented() -> None:
    assert RESUME_FIELD == "Seance-Resume"
    assert SESSION_FIELD == "Seance-Session"
    assert WISH.written() == f"sid={SID}; token={TOKEN}; recv=1234; crc=0a1b2c3d"
    assert FIELD.written() == (
        f"sid={SID}; token={TOKEN}; epoch=2; recv=987; crc=000000ff; window=20; resumed=0; why=expired"
    )
    assert replace(FIELD, is_resumed=True, why="").written().endswith("; window=20; resumed=1")


def test_messages_look_as_documented() -> None:
    assert Ack(1234, 0x0A1B2C3D).written() == b'{"t":"ack","n":1234,"c":"0a1b2c3d"}'
    assert DrainNotice(2.5, 20.0).written() == b'{"t":"drain","in":2.5,"try":20.0}'
    assert json.loads(BYE) == {"t": "bye"}


@given(secrets, secrets, counts, checksums)
def test_resume_request_round_trip(sid: str, token: str, received: int, crc: int) -> None:
    resume_request = ResumeRequest(sid, token, received, crc)
    assert ResumeRequest.read(resume_request.written()) == resume_request


@given(
    st.builds(
        SessionInfo,
        sid=secrets,
        token=secrets,
        epoch=counts,
        received=counts,
        crc=checksums,
        window_seconds=st.floats(0, 99_999),
        is_resumed=st.booleans(),
        why=st.sampled_from(["", "expired", "unknown", "gap"]),
    )
)
def test_session_field_round_trip(field: SessionInfo) -> None:
    read = SessionInfo.read(field.written())
    assert read is not None
    longest = min(field.window_seconds, 86_400)
    assert read.window_seconds == pytest.approx(longest, rel=1e-5, abs=0.001)
    assert replace(read, window_seconds=0.0) == replace(field, window_seconds=0.0)


@pytest.mark.parametrize("window", [0.0, 0.00001, 0.2, 20, 3600, 86400, 10**9])
def test_any_configurable_window_round_trip(window: float) -> None:
    assert SessionInfo.read(replace(FIELD, window_seconds=window).written()) is not None


@given(counts, checksums)
def test_acknowledgement_round_trip(count: int, crc: int) -> None:
    ack = Ack(count, crc)
    assert Ack.read(json.loads(ack.written())) == ack


@given(st.floats(0, 86_400), st.floats(0, 86_400))
def test_drain_round_trip(in_seconds: float, try_seconds: float) -> None:
    read = DrainNotice.read(json.loads(DrainNotice(in_seconds, try_seconds).written()))
    assert read is not None
    assert read.in_seconds == pytest.approx(in_seconds, abs=0.001)
    assert read.try_seconds == pytest.approx(try_seconds, abs=0.001)


# Header fields


def test_order_spaces_and_unknown_parameters_are_ignored() -> None:
    text = f" crc=0a1b2c3d;recv=1234 ;  new=thing; =; ;token={TOKEN};sid={SID}; flag"
    assert ResumeRequest.read(text) == WISH


@pytest.mark.parametrize("name", ["sid", "token", "recv", "crc"])
@pytest.mark.parametrize("read", [ResumeRequest.read, SessionInfo.read])
def test_field_without_one_of_its_parameters_counts_as_absent(
    read: Callable[[str], object], name: str
) -> None:
    parts = [part for part in FIELD.written().split("; ") if not part.startswith(name + "=")]
    assert read("; ".join(parts)) is None


@pytest.mark.parametrize("name", ["epoch", "window"])
def test_session_field_needs_epoch_and_window_too(name: str) -> None:
    parts = [part for part in FIELD.written().split("; ") if not part.startswith(name + "=")]
    assert SessionInfo.read("; ".join(parts)) is None


BAD_PARAMETERS = [
    *(("recv", value) for value in ("", "-1", "+1", "1.0", "0x1", "1_0", "٣", str(2**64), "9" * 5000, "1 2")),
    *(("crc", value) for value in ("", "0a1b2c3", "0a1b2c3d4", "0A1B2C3D", "0x1b2c3d", "zzzzzzzz")),
    *(
        ("sid", value)
        for value in ("", "short", "s" * 129, "s" * 20 + "é", "s" * 20 + " s", "s" * 20 + "\ns")
    ),
    *(("token", value) for value in ("", "short", "t" * 129, 't"' * 20)),
]
BAD_OF_SESSION = [
    *(("epoch", value) for value in ("", "-1", "one", str(2**64))),
    *(("window", value) for value in ("", "-1", "1e3", "nan", "inf", "100000", "1.", ".5", "1.1234567")),
]


@pytest.mark.parametrize(("name", "value"), BAD_PARAMETERS)
def test_malformed_resume_request_counts_as_absent(name: str, value: str) -> None:
    assert ResumeRequest.read(changed(WISH.written(), name, value)) is None


@pytest.mark.parametrize(("name", "value"), [*BAD_PARAMETERS, *BAD_OF_SESSION])
def test_malformed_session_field_counts_as_absent(name: str, value: str) -> None:
    assert SessionInfo.read(changed(FIELD.written(), name, value)) is None


def changed(text: str, name: str, value: str) -> str:
    parts = [part for part in text.split("; ") if not part.startswith(name + "=")]
    return "; ".join([*parts, f"{name}={value}"])


@pytest.mark.parametrize("value", ["", "0", "2", "true", "11", "yes"])
def test_resumed_requires_the_value_1(value: str) -> None:
    read = SessionInfo.read(changed(FIELD.written(), "resumed", value))
    assert read is not None
    assert not read.is_resumed


@pytest.mark.parametrize("value", ["Bad", "a b", "x" * 33, "<script>", "1"])
def test_malformed_reason_is_dropped(value: str) -> None:
    read = SessionInfo.read(changed(FIELD.written(), "why", value))
    assert read is not None
    assert read.why == ""


@pytest.mark.parametrize(("read", "line"), LINES)
def test_too_long_field_counts_as_absent(read: Callable[[str], object], line: str) -> None:
    padded = f"{line}; x={'y' * 600}"
    assert read(padded[:512]) is not None
    assert read(padded[:513]) is None


@pytest.mark.parametrize(("read", "line"), LINES)
def test_truncated_field_is_absent_or_complete(read: Callable[[str], Any], line: str) -> None:
    for length in range(len(line)):
        found = read(line[:length])
        assert found is None or (found.sid, found.token, found.received) == (
            SID,
            TOKEN,
            read(line).received,
        )


@pytest.mark.parametrize(("read", "line"), LINES)
def test_field_with_any_changed_character_is_harmless(read: Callable[[str], Any], line: str) -> None:
    source = random.Random(4)
    for _ in range(3000):
        letters = list(line)
        for _ in range(source.randint(1, 4)):
            at = source.randrange(len(letters))
            letters[at : at + source.randint(0, 2)] = source.choice(
                [";", "=", " ", "\0", "é", "9", "", "\ud800"]
            )
        found = read("".join(letters))
        assert found is None or found.received < 2**64


@given(st.text())
def test_any_text_is_a_field_or_none(text: str) -> None:
    assert ResumeRequest.read(text) is None
    assert SessionInfo.read(text) is None


@given(
    st.lists(st.tuples(st.sampled_from(["sid", "token", "recv", "crc", "epoch", "window", "why"]), st.text()))
)
def test_any_values_are_a_field_or_none(parameters: list[tuple[str, str]]) -> None:
    text = "; ".join(f"{name}={value}" for name, value in parameters)
    for read in (ResumeRequest.read, SessionInfo.read):
        found: Any = read(text)
        assert found is None or found.written()


# Messages


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"n": 1},
        {"c": "00000000"},
        {"n": -1, "c": "00000000"},
        {"n": 2**64, "c": "00000000"},
        {"n": 10**400, "c": "00000000"},
        {"n": True, "c": "00000000"},
        {"n": 1.0, "c": "00000000"},
        {"n": "1", "c": "00000000"},
        {"n": None, "c": "00000000"},
        {"n": [1], "c": "00000000"},
        {"n": 1, "c": 0},
        {"n": 1, "c": None},
        {"n": 1, "c": "0"},
        {"n": 1, "c": "0000000G"},
        {"n": 1, "c": "00000000\n"},
        {"n": 1, "c": ["00000000"]},
    ],
)
def test_malformed_acknowledgement_is_none(message: dict[str, object]) -> None:
    assert Ack.read({"t": "ack"} | message) is None


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"in": 1},
        {"try": 1},
        {"in": -0.1, "try": 1},
        {"in": 1, "try": 86_400.1},
        {"in": float("nan"), "try": 1},
        {"in": float("inf"), "try": 1},
        {"in": 1, "try": 10**400},
        {"in": True, "try": 1},
        {"in": "1", "try": 1},
        {"in": 1, "try": None},
        {"in": [], "try": {}},
    ],
)
def test_malformed_drain_is_none(message: dict[str, object]) -> None:
    assert DrainNotice.read({"t": "drain"} | message) is None


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(["t", "n", "c", "in", "try", "x"]), anything))
def test_any_message_is_parsed_or_none(message: dict[str, object]) -> None:
    ack, drain = Ack.read(message), DrainNotice.read(message)
    assert ack is None or 0 <= ack.count < 2**64
    assert drain is None or 0 <= drain.in_seconds <= 86_400


def test_unknown_keys_are_ignored() -> None:
    assert Ack.read({"t": "ack", "n": 5, "c": "00000007", "new": []}) == Ack(5, 7)
    assert DrainNotice.read({"t": "drain", "in": 0, "try": 86_400, "new": {}}) == DrainNotice(0.0, 86_400.0)
