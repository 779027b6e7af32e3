"""An agent that does not get to its relay says what to type to see why: once, where that is of use."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest
from pytest_twisted import ensureDeferred
from twisted.logger import LogEvent, globalLogPublisher

from seance.agent.doctor_hint import DoctorHint
from seance.core.settings import AgentSettings
from seance.errors import CarrierLost, Refusal
from tests.processes import free_port
from tests.relay.rig import Rig, until

SETTINGS = AgentSettings(
    room="r", relay="wss://relay.example", tls_ca="my ca.pem", token_file="t", token="a-token-that-is-told"
)
UNREACHABLE = CarrierLost("Nobody is there.", code="unreachable")


def refusal(status: int) -> Refusal:
    return Refusal(status, "No.", code=f"http_{status}")


def test_the_command_has_what_the_agent_was_told_and_no_token() -> None:
    command = DoctorHint(SETTINGS).command(UNREACHABLE)
    assert command is not None
    assert shlex.split(command) == [
        *("seance", "doctor", "--relay", "wss://relay.example", "--room", "r", "--local", "localhost:1234"),
        *("--tls-ca", "my ca.pem", "--token-file", "t"),
    ]


@pytest.mark.parametrize(
    ("error", "is_of_use"),
    [
        (UNREACHABLE, True),
        (CarrierLost("It has expired.", code="certificate_expired"), True),
        (CarrierLost("The file cannot be read.", code="token_file"), False),
        (refusal(401), True),
        (refusal(403), True),
        (refusal(409), False),
        (refusal(429), False),
        (refusal(503), False),
    ],
)
def test_it_is_given_where_the_doctor_can_find_something(
    error: CarrierLost | Refusal, is_of_use: bool
) -> None:
    assert (DoctorHint(SETTINGS).command(error) is not None) == is_of_use


def test_it_is_given_once_and_again_after_a_connection() -> None:
    hint = DoctorHint(SETTINGS)
    assert hint.command(refusal(409)) is None
    assert hint.command(UNREACHABLE)
    assert hint.command(UNREACHABLE) is None
    hint.reset()
    assert hint.command(UNREACHABLE)


@pytest.fixture
def hints() -> Iterator[list[LogEvent]]:
    """Every hint that is logged."""
    heard: list[LogEvent] = []

    def hear(event: LogEvent) -> None:
        if event.get("event") == "link.hint":
            heard.append(event)

    globalLogPublisher.addObserver(hear)
    yield heard
    globalLogPublisher.removeObserver(hear)


@ensureDeferred
async def test_an_agent_logs_it_once_for_all_attempts_of_an_outage(hints: list[LogEvent]) -> None:
    async with Rig(with_agent=False) as rig:
        nowhere = f"ws://127.0.0.1:{free_port()}"
        agent = rig.make_agent(relay=nowhere, backoff_base_seconds=0.01, backoff_cap_seconds=0.01)
        attempts: list[object] = []
        agent.on_status(attempts.append)
        agent.startService()
        await until(lambda: len(attempts) >= 6)
        assert [one["command"] for one in hints] == [
            f"seance doctor --relay {nowhere} --room r --local {agent.settings.local}"
        ]


@ensureDeferred
async def test_an_agent_that_gets_there_says_nothing_of_the_kind(hints: list[LogEvent]) -> None:
    async with Rig() as rig:
        await rig.agent.stopService()
    assert hints == []
