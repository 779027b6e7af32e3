"""The processes of a run: what is told of one that does not start."""

from __future__ import annotations

import sys

import pytest
from pytest_twisted import ensureDeferred

from seance.bench.children import Child
from seance.errors import ConfigError
from tests.tunnel.rig import reactor

REFUSED = "2026-11-23T14:09:36+0000 [seance.tunnel.agent.Agent#warn] [Agent] The relay says 403."
AGAIN = "2026-11-23T14:09:36+0000 [seance.tunnel.agent.Agent#info] [Agent] Next attempt in 8.0 s"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([REFUSED, AGAIN], "The relay says 403."),
        ([REFUSED.replace("403", "503"), REFUSED, AGAIN], "The relay says 403."),
        (["Cannot start.", "Good bye."], "Good bye."),
        ([], "it said nothing."),
    ],
)
@ensureDeferred
async def test_a_process_that_does_not_start_is_told_with_its_last_warning(
    lines: list[str], words: str
) -> None:
    script = "import sys; [print(line) for line in sys.argv[1:]]"
    child = Child(reactor, "agent", [sys.executable, "-c", script, *lines], {})
    with pytest.raises(ConfigError) as caught:
        await child.when_said("Connected")
    assert caught.value.sentence == f"The agent did not start: {words}"


@ensureDeferred
async def test_an_agent_that_is_not_up_in_time_is_told_with_its_last_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = "import sys, time; [print(line, flush=True) for line in sys.argv[1:]]; time.sleep(60)"
    child = Child(reactor, "agent", [sys.executable, "-c", script, REFUSED, AGAIN], {})
    try:
        await child.when_said("Next attempt")
        monkeypatch.setattr("seance.bench.children.START_SECONDS", 0.01)
        with pytest.raises(ConfigError, match=r"did not start within 0\.01 s: The relay says 403\.$"):
            await child.when_said("Connected")
    finally:
        await child.stop()
