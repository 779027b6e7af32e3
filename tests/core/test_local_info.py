"""The header field ``Seance-Local``: written, parsed, and granted by the relay."""

from __future__ import annotations

import pytest
from twisted.logger import LogEvent, globalLogPublisher

from seance.agent.identity import IdentityHandshake
from seance.core.local_info import LocalServerInfo
from seance.core.settings import MAX_HEAD_BYTES, AgentSettings, RelaySettings
from seance.errors import ConfigError
from seance.heads import Request


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({}, "host=localhost:1234"),
        ({"local": "unix:/run/yjs"}, "host=localhost"),
        ({"local": "tls://yjs.internal:443", "upgrade_seconds": 18.0}, "host=yjs.internal; answer=18"),
        ({"local": "[::1]:1234", "upgrade_seconds": 0.5}, "host=[::1]:1234; answer=0.5"),
        ({"keep_host": True, "upgrade_seconds": 90.0}, "answer=90"),
        ({"keep_host": True}, None),
    ],
)
def test_field_has_the_values_of_the_settings(options: dict[str, object], value: str | None) -> None:
    info = LocalServerInfo.from_settings(AgentSettings(room="r", **options))  # type: ignore[arg-type]
    assert info.headers() == ({} if value is None else {"Seance-Local": value})
    assert LocalServerInfo.read(value or "") == info


@pytest.mark.parametrize(
    ("value", "info"),
    [
        ("", LocalServerInfo()),
        ("answer=18;host=a:1;later=x", LocalServerInfo("a:1", 18.0)),
        ("  answer = 18 ;; host = a ", LocalServerInfo("a", 18.0)),
        ("host=a b; answer=0", LocalServerInfo()),
        ("host=a/b; answer=-1", LocalServerInfo()),
        ("host=\xe9; answer=1e9", LocalServerInfo()),
        ("host=; answer=inf", LocalServerInfo()),
        ("host=a@b; answer=9999999", LocalServerInfo()),
        ("answer=\u0661\u0668", LocalServerInfo()),
    ],
)
def test_malformed_parameters_count_as_absent(value: str, info: LocalServerInfo) -> None:
    assert LocalServerInfo.read(value) == info


def test_repeated_field_counts_as_absent() -> None:
    field = (b"seance-local", b"host=a; answer=18")
    assert LocalServerInfo.from_request(Request(b"GET", b"/", (field,))) == LocalServerInfo("a", 18.0)
    assert LocalServerInfo.from_request(Request(b"GET", b"/", (field, field))) == LocalServerInfo()
    assert LocalServerInfo.from_request(Request(b"GET", b"/", ())) == LocalServerInfo()


@pytest.mark.parametrize(
    ("asked", "usual", "most", "granted"),
    [
        (None, 15.0, 60.0, 15.0),
        (18.0, 15.0, 60.0, 18.0),
        (90.0, 15.0, 60.0, 60.0),
        (5.0, 15.0, 60.0, 5.0),
        (90.0, 120.0, 60.0, 90.0),
        (18.0, 15.0, 10.0, 15.0),
    ],
)
def test_relay_grants_the_requested_time_up_to_its_maximum(
    asked: float | None, usual: float, most: float, granted: float
) -> None:
    settings = RelaySettings(upgrade_seconds=usual, max_upgrade_seconds=most)
    info = LocalServerInfo("a", asked)
    assert info.granted_seconds(settings) == granted
    assert info.reply(settings) == ({} if asked is None else {"Seance-Local": f"answer={granted:g}"})


def logged(*answers: dict[str, str], asked: float | None = 18.0) -> list[str]:
    """Return the agent's log messages after 101s with these headers."""
    lines: list[str] = []

    def hear(event: LogEvent) -> None:
        lines.append(event["sentence"])

    globalLogPublisher.addObserver(hear)  # type: ignore[arg-type]  # a function will do
    try:
        handshake = IdentityHandshake.from_settings(
            None, AgentSettings(room="r", upgrade_seconds=asked), "relay"
        )
        for headers in answers:
            handshake.note_attached(headers)
    finally:
        globalLogPublisher.removeObserver(hear)  # type: ignore[arg-type]
    return lines


def test_agent_logs_a_shorter_grant_once() -> None:
    assert logged({"seance-local": "answer=18"}, {"seance-local": "answer=18"}) == []
    assert logged({}, asked=None) == []
    less = {"seance-local": "answer=10"}
    (line,) = logged(less, less)
    assert "waits 10 s" in line
    assert "--max-upgrade-seconds" in line
    (line,) = logged({}, {})
    assert "does not know --upgrade-seconds" in line


def test_contradicting_settings_are_refused_with_both_names() -> None:
    with pytest.raises(ConfigError, match="--rewrite-origin and --keep-host"):
        AgentSettings(room="r", keep_host=True, rewrite_origin=True)
    with pytest.raises(ConfigError, match="--head-bytes is at most 256 KiB"):
        RelaySettings(head_bytes=MAX_HEAD_BYTES + 1)


def test_agent_accepts_the_longest_head_of_any_relay() -> None:
    """The relay adds three fields with one address and one host, and replaces ``Host`` by another host."""
    assert AgentSettings(room="r").head_bytes >= MAX_HEAD_BYTES + 1024
