"""An agent that cannot reach its relay logs the ``seance doctor`` command once, if that can help."""

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
    room="r", relay="wss://relay.example", tls_ca="my ca.pem", token_file="t", token="a-given-token"
)
UNREACHABLE = CarrierLost("Nothing listens there.", code="unreachable")


def refusal(status: int) -> Refusal:
    return Refusal(status, "No.", code=f"http_{status}")


def test_hint_has_the_agents_options_and_no_token() -> None:
    command = DoctorHint(SETTINGS).command(UNREACHABLE)
    assert command is not None
    assert shlex.split(command) == [
        *("seance", "doctor", "--relay", "wss://relay.example", "--room", "r", "--local", "localhost:1234"),
        *("--tls-ca", "my ca.pem", "--token-file", "t"),
    ]


@pytest.mark.parametrize(
    ("error", "is_useful"),
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
def test_hint_is_given_only_if_the_doctor_can_find_a_fault(
    error: CarrierLost | Refusal, is_useful: bool
) -> None:
    assert (DoctorHint(SETTINGS).command(error) is not None) == is_useful


def test_hint_is_given_once_per_outage() -> None:
    hint = DoctorHint(SETTINGS)
    assert hint.command(refusal(409)) is None
    assert hint.command(UNREACHABLE)
    assert hint.command(UNREACHABLE) is None
    hint.reset()
    assert hint.command(UNREACHABLE)


@pytest.fixture
def hints() -> Iterator[list[LogEvent]]:
    """All hints in the log."""
    heard: list[LogEvent] = []

    def hear(event: LogEvent) -> None:
        if event.get("event") == "link.hint":
            heard.append(event)

    globalLogPublisher.addObserver(hear)
    yield heard
    globalLogPublisher.removeObserver(hear)


@ensureDeferred
async def test_agent_logs_one_hint_for_all_attempts_of_an_outage(hints: list[LogEvent]) -> None:
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
async def test_agent_that_connects_logs_no_hint(hints: list[LogEvent]) -> None:
    async with Rig() as rig:
        await rig.agent.stopService()
    assert hints == []
