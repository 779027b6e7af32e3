"""Whatever a stranger answers, nothing is raised by it, and nothing that it sends moves a terminal."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seance.doctor.asking import Answer
from seance.doctor.probe import _closing
from seance.doctor.tunnel_checks import _state

FIELDS = st.dictionaries(
    st.sampled_from(["content-type", "date", "server", "via"]),
    st.one_of(st.text(max_size=200), st.sampled_from(["text/plain", "Mon, 01 Jan 0001 00:00:00 +2359"])),
)
STATES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=9)),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.sampled_from(["state", "since"]), inner)),
)


def is_harmless(words: str) -> bool:
    return words.isprintable() and len(words) < 400


@given(body=st.binary(max_size=5000), fields=FIELDS, status=st.integers(100, 999))
def test_any_answer_can_be_shown(body: bytes, fields: dict[str, str], status: int) -> None:
    answer = Answer(status, body, 0.0, fields)
    assert is_harmless(answer.words)
    assert is_harmless(answer.proxy)
    assert answer.date is None or isinstance(answer.date, float)


@given(state=STATES)
def test_any_json_can_be_read_as_a_state(state: object) -> None:
    assert len(_state(Answer(200, json.dumps(state).encode(), 0.0))) == 2


@pytest.mark.parametrize("body", [b"[" * 4096, b"", b"{", b'{"state": "online", "since": 1e999}', b"\xff"])
def test_what_is_no_state_is_none(body: bytes) -> None:
    assert _state(Answer(200, body, 0.0)) == ("", "")


@given(payload=st.binary(max_size=300))
def test_any_close_frame_can_be_shown(payload: bytes) -> None:
    assert is_harmless(_closing(payload))
