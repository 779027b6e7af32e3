"""The field ``Seance-Local``, written and read."""

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
def test_field_says_what_the_settings_say(options: dict[str, object], value: str | None) -> None:
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
def test_what_makes_no_sense_counts_as_absent(value: str, info: LocalServerInfo) -> None:
    assert LocalServerInfo.read(value) == info


def test_field_that_is_there_twice_says_nothing() -> None:
    field = (b"seance-local", b"host=a; answer=18")
    assert LocalServerInfo.of(Request(b"GET", b"/", (field,))) == LocalServerInfo("a", 18.0)
    assert LocalServerInfo.of(Request(b"GET", b"/", (field, field))) == LocalServerInfo()
    assert LocalServerInfo.of(Request(b"GET", b"/", ())) == LocalServerInfo()


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
def test_relay_grants_what_is_asked_for_within_its_bound(
    asked: float | None, usual: float, most: float, granted: float
) -> None:
    settings = RelaySettings(upgrade_seconds=usual, max_upgrade_seconds=most)
    info = LocalServerInfo("a", asked)
    assert info.granted_seconds(settings) == granted
    assert info.reply(settings) == ({} if asked is None else {"Seance-Local": f"answer={granted:g}"})


def said(*answers: dict[str, str], asked: float | None = 18.0) -> list[str]:
    """Return what the agent's log says after 101s with these headers."""
    lines: list[str] = []

    def hear(event: LogEvent) -> None:
        lines.append(event["sentence"])

    globalLogPublisher.addObserver(hear)  # type: ignore[arg-type]  # a function will do
    try:
        introduction = IdentityHandshake.of(None, AgentSettings(room="r", upgrade_seconds=asked), "relay")
        for headers in answers:
            introduction.note_attached(headers)
    finally:
        globalLogPublisher.removeObserver(hear)  # type: ignore[arg-type]
    return lines


def test_agent_logs_once_that_it_got_less_than_it_asked_for() -> None:
    assert said({"seance-local": "answer=18"}, {"seance-local": "answer=18"}) == []
    assert said({}, asked=None) == []
    less = {"seance-local": "answer=10"}
    (line,) = said(less, less)
    assert "waits 10 s" in line
    assert "--max-upgrade-seconds" in line
    (line,) = said({}, {})
    assert "does not know --upgrade-seconds" in line


def test_settings_that_contradict_are_refused_with_both_names() -> None:
    with pytest.raises(ConfigError, match="--rewrite-origin and --keep-host"):
        AgentSettings(room="r", keep_host=True, rewrite_origin=True)
    with pytest.raises(ConfigError, match="--head-bytes is at most 256 KiB"):
        RelaySettings(head_bytes=MAX_HEAD_BYTES + 1)


def test_every_head_that_a_relay_can_be_told_to_take_is_within_the_agents_bound() -> None:
    """The relay adds three fields with one address and one host; the host comes in place of ``Host``."""
    assert AgentSettings(room="r").head_bytes >= MAX_HEAD_BYTES + 1024
