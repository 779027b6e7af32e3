"""Any response of a server can be parsed and printed: no exception, no control characters."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seance.doctor.http_client import ServerResponse
from seance.doctor.probe import _describe_close
from seance.doctor.tunnel_checks import _room_state

FIELDS = st.dictionaries(
    st.sampled_from(["content-type", "date", "server", "via"]),
    st.one_of(st.text(max_size=200), st.sampled_from(["text/plain", "Mon, 01 Jan 0001 00:00:00 +2359"])),
)
STATES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=9)),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.sampled_from(["state", "since"]), inner)),
)


def is_printable_line(words: str) -> bool:
    return words.isprintable() and len(words) < 400


@given(body=st.binary(max_size=5000), fields=FIELDS, status=st.integers(100, 999))
def test_any_response_can_be_printed(body: bytes, fields: dict[str, str], status: int) -> None:
    response = ServerResponse(status, body, 0.0, fields)
    assert is_printable_line(response.summary)
    assert is_printable_line(response.proxy)
    assert response.date is None or isinstance(response.date, float)


@given(state=STATES)
def test_any_json_can_be_parsed_as_a_room_state(state: object) -> None:
    assert len(_room_state(ServerResponse(200, json.dumps(state).encode(), 0.0))) == 2


@pytest.mark.parametrize("body", [b"[" * 4096, b"", b"{", b'{"state": "online", "since": 1e999}', b"\xff"])
def test_invalid_room_state_is_empty(body: bytes) -> None:
    assert _room_state(ServerResponse(200, body, 0.0)) == ("", "")


@given(payload=st.binary(max_size=300))
def test_any_close_frame_can_be_printed(payload: bytes) -> None:
    assert is_printable_line(_describe_close(payload))
