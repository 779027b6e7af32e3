"""The same agent and another one as processes: which of them gets the room, and the message for a bad key."""

from __future__ import annotations

import signal
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.wire import Exchange, Listener
from tests.processes import AgentProcess, Process, environment, running_relay, twistd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.processes import RelayProcess

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    with Listener() as listener:
        yield listener


@pytest.fixture(scope="module")
def relay() -> Iterator[RelayProcess]:
    with running_relay() as relay:
        yield relay


def agent_process(relay: RelayProcess, listener: Listener, room: str, key: Path) -> AgentProcess:
    place = f"127.0.0.1:{listener.port}"
    # A replaced agent waits for a random time up to the cap, which is 30 s by default.
    quickly = ("--backoff-cap-seconds", "1")
    return AgentProcess(room, "--relay", relay.url, "--local", place, "--identity", str(key), *quickly)


def test_a_restarted_agent_takes_its_room_from_a_stopped_process(
    relay: RelayProcess, listener: Listener, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    with agent_process(relay, listener, "home", key) as frozen:
        frozen.when_connected()
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        frozen.signal(signal.SIGSTOP)
        try:
            with agent_process(relay, listener, "home", key) as again:
                again.when_connected()
                assert "taken" not in again.output
                with Exchange.open(("127.0.0.1", relay.port), "/c/home/doc", listener):
                    pass
                frozen.signal(signal.SIGCONT)
                frozen.when_line("Disconnected")
                frozen.when_line("This room is taken")
                assert again.exit_code is None
                assert "Disconnected" not in again.output
        finally:
            frozen.signal(signal.SIGCONT)
    frozen.check_quiet()
    again.check_quiet()


def test_a_room_is_kept_for_a_disconnected_agent(
    relay: RelayProcess, listener: Listener, tmp_path: Path
) -> None:
    with agent_process(relay, listener, "kept", tmp_path / "mine") as mine:
        mine.when_connected()
    with agent_process(relay, listener, "kept", tmp_path / "other") as other:
        other.when_line("This room is reserved for the agent")
        with agent_process(relay, listener, "kept", tmp_path / "mine") as mine:
            mine.when_connected()
            other.when_line("This room is taken")


@pytest.mark.parametrize("way", ["twistd", "seance"])
def test_a_key_file_that_others_can_read_is_one_message_and_exit_1(way: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("seance-agent-key-v1 " + "A" * 43)
    key.chmod(0o644)
    options = ("--room", "r", "--identity", str(key))
    argv = [sys.executable, "-m", "seance", "agent", *options]
    if way == "twistd":
        argv = twistd("seance-agent", *options)
    with Process(argv, name="agent", env=environment()) as agent:
        assert agent.when_exited() == 1
        assert "Traceback" not in agent.output
        assert f"The agent's key {key} can be read by others" in agent.output
        assert "chmod 600" in agent.output
