"""Subprocesses: the error of one that does not start."""

from __future__ import annotations

import sys

import pytest
from pytest_twisted import ensureDeferred

from seance.bench.subprocesses import Subprocess
from seance.errors import ConfigError
from tests.relay.rig import reactor

REFUSED = "2026-11-23T14:09:36+0000 [seance.agent.service.Agent#warn] [Agent] The relay says 403."
AGAIN = "2026-11-23T14:09:36+0000 [seance.agent.service.Agent#info] [Agent] Next attempt in 8.0 s"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([REFUSED, AGAIN], "The relay says 403."),
        ([REFUSED.replace("403", "503"), REFUSED, AGAIN], "The relay says 403."),
        (["Cannot start.", "Good bye."], "Good bye."),
        ([], "it printed nothing."),
    ],
)
@ensureDeferred
async def test_a_process_that_does_not_start_is_reported_with_its_last_warning(
    lines: list[str], words: str
) -> None:
    script = "import sys; [print(line) for line in sys.argv[1:]]"
    process = Subprocess(reactor, "agent", [sys.executable, "-c", script, *lines], {})
    with pytest.raises(ConfigError) as caught:
        await process.when_line("Connected")
    assert caught.value.message == f"The agent did not start: {words}"


@ensureDeferred
async def test_an_agent_that_does_not_connect_in_time_is_reported_with_its_last_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = "import sys, time; [print(line, flush=True) for line in sys.argv[1:]]; time.sleep(60)"
    process = Subprocess(reactor, "agent", [sys.executable, "-c", script, REFUSED, AGAIN], {})
    try:
        await process.when_line("Next attempt")
        monkeypatch.setattr("seance.bench.subprocesses.START_SECONDS", 0.01)
        with pytest.raises(ConfigError, match=r"did not start within 0\.01 s: The relay says 403\.$"):
            await process.when_line("Connected")
    finally:
        await process.stop()
