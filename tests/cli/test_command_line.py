"""The commands as separate processes: stdout, stderr and exit status."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from seance import __version__
from seance.cli import COMMANDS
from tests.processes import Process, environment, until

pytestmark = pytest.mark.slow

SEANCE = [sys.executable, "-m", "seance"]
TWISTD = [
    sys.executable,
    "-c",
    "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()",
]

DEADLINE_SECONDS = 30.0

PROGRAMS = {
    "twistd": {"relay": [*TWISTD, "-n", "seance-relay"], "agent": [*TWISTD, "-n", "seance-agent"]},
    "seance": {"relay": [*SEANCE, "relay"], "agent": [*SEANCE, "agent"]},
}


def run(command: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment(), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS,
    )


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("launcher", PROGRAMS)
@pytest.mark.parametrize(
    ("program", "arguments", "variables", "message"),
    [
        ("agent", [], {}, "--room is missing"),
        ("agent", ["--room", "r", "--nonsense"], {}, "option --nonsense not recognized"),
        ("agent", ["--room", "r"], {"LOCAL_PORT": "x"}, "LOCAL_PORT: The local server 'localhost:x'"),
        ("relay", ["--listen", "tcp:x"], {}, "--listen: 'tcp:x' is not a Twisted endpoint"),
    ],
)
def test_an_invalid_option_is_one_message_on_stderr_with_status_1(
    launcher: str, program: str, arguments: list[str], variables: dict[str, str], message: str, tmp_path: Path
) -> None:
    finished = run([*PROGRAMS[launcher][program], *arguments], tmp_path, **variables)
    assert finished.returncode == 1
    assert message in finished.stderr
    assert len(finished.stderr.splitlines()) == 1
    assert finished.stdout == ""
    assert not list(tmp_path.iterdir()), "a pid file is left"


@pytest.mark.parametrize("launcher", PROGRAMS)
def test_a_port_in_use_is_one_message_on_stderr_with_status_1(
    launcher: str, taken_port: int, tmp_path: Path
) -> None:
    finished = run([*PROGRAMS[launcher]["relay"], "--listen", f"127.0.0.1:{taken_port}"], tmp_path)
    assert finished.returncode == 1
    assert len(finished.stderr.splitlines()) == 1
    assert f"{taken_port}" in finished.stderr
    assert "Address already in use" in finished.stderr
    assert "Traceback" not in finished.stdout + finished.stderr
    assert not (tmp_path / "twistd.pid").exists()


@pytest.mark.parametrize("launcher", PROGRAMS)
@pytest.mark.parametrize("option", ["--listen", "--admin"])
def test_a_port_in_use_is_also_logged(launcher: str, option: str, taken_port: int, tmp_path: Path) -> None:
    options = ["--listen", "tcp:0:interface=127.0.0.1", "--log-format", "json"]
    finished = run([*PROGRAMS[launcher]["relay"], *options, option, f"127.0.0.1:{taken_port}"], tmp_path)
    assert finished.returncode == 1
    lines = [json.loads(line) for line in finished.stdout.splitlines()]
    [entry] = [line for line in lines if line["event"] == "config.refused"]
    assert entry["level"] == "error"
    assert f"{taken_port}" in entry["message"]
    assert entry["message"] in finished.stderr


def test_a_daemon_that_cannot_listen_logs_it_and_leaves_no_pid_file(taken_port: int, tmp_path: Path) -> None:
    finished = run([*TWISTD, "seance-relay", "--listen", f"127.0.0.1:{taken_port}"], tmp_path)
    assert finished.returncode == 1
    assert "Traceback" not in finished.stdout + finished.stderr
    log = tmp_path / "twistd.log"
    # The daemon writes its log after its parent, the command, has ended.
    until("the error is logged", lambda: "Address already in use" in log.read_text("utf-8"))
    assert "Traceback" not in log.read_text("utf-8")
    assert not (tmp_path / "twistd.pid").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_service_in_the_foreground_in_order(number: signal.Signals) -> None:
    command = [*SEANCE, "relay", "--listen", "tcp:0:interface=127.0.0.1"]
    with Process(command, name="seance relay", env=environment()) as relay:
        port = int(relay.when_line(r"Tunnel Relay Server starting on port (\d+)")[1])
        assert port > 0
        relay.signal(number)
        assert relay.when_exited() == 0
        relay.check_quiet()


def test_relay_and_agent_connect_without_twistd() -> None:
    listen = [*SEANCE, "relay", "--listen", "tcp:0:interface=127.0.0.1"]
    with Process(listen, name="seance relay", env=environment()) as relay:
        port = relay.when_line(r"starting on port (\d+)")[1]
        dial = [*SEANCE, "agent", "--room", "test-room", "--relay", f"ws://127.0.0.1:{port}"]
        with Process(dial, name="seance agent", env=environment()) as agent:
            agent.when_line(r"\[Agent\] Connected to relay for room: test-room")
            agent.signal(signal.SIGINT)
            assert agent.when_exited() == 0
            agent.check_quiet()


def test_a_character_that_the_terminal_lacks_does_not_end_a_relay() -> None:
    command = [*SEANCE, "relay", "--listen", "tcp:0:interface=127.0.0.1"]
    variables = environment() | {"PYTHONIOENCODING": "ascii"}
    with Process(command, name="seance relay", env=variables) as relay:
        relay.when_line(r"\\U0001f50c Tunnel Relay Server starting on port (\d+)")
        relay.signal(signal.SIGTERM)
        assert relay.when_exited() == 0


def test_the_command_prints_its_version(tmp_path: Path) -> None:
    finished = run([*SEANCE, "--version"], tmp_path)
    assert (finished.returncode, finished.stdout) == (0, f"seance-tunnel {__version__}\n")


def test_help_lists_the_commands(tmp_path: Path) -> None:
    finished = run([*SEANCE, "--help"], tmp_path)
    assert finished.returncode == 0
    for name, command in COMMANDS.items():
        assert f"  {name} " in finished.stdout
        assert command.help in finished.stdout


@pytest.mark.parametrize(
    ("arguments", "problem"), [([], "a command is missing"), (["rellay"], "'rellay' is not a command")]
)
def test_an_unknown_command_is_one_message_with_status_1(
    arguments: list[str], problem: str, tmp_path: Path
) -> None:
    finished = run([*SEANCE, *arguments], tmp_path)
    assert finished.returncode == 1
    assert finished.stderr == f"seance: {problem}; write one of {', '.join(COMMANDS)}, or --help.\n"


@pytest.mark.parametrize(
    "command", [["--help"], ["relay", "--help"], ["doctor", "--relay", "ws://localhost:1"]]
)
def test_a_closed_stdout_ends_a_command_without_a_traceback(command: list[str], tmp_path: Path) -> None:
    """The reader has ended before the first line; ``| head -1`` ends after it."""
    reading, writing = os.pipe()
    os.close(reading)
    variables = {**os.environ, **environment()}
    finished = subprocess.run(
        [*SEANCE, *command],
        cwd=tmp_path,
        env={name: value for name, value in variables.items() if name != "PYTHONUNBUFFERED"},
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS,
    )
    os.close(writing)
    assert (finished.returncode, finished.stderr) == (1, "")


def test_a_command_without_stdout_succeeds(tmp_path: Path) -> None:
    finished = run(["sh", "-c", 'exec "$@" >&-', "sh", *SEANCE, "--version"], tmp_path)
    assert (finished.returncode, finished.stderr) == (0, "")


def test_ctrl_c_while_a_command_waits_for_an_answer_is_status_130() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        command = [*SEANCE, "status", "--admin", f"http://127.0.0.1:{silent.getsockname()[1]}"]
        with Process(command, name="seance status", env=environment()) as process:
            connection, _ = silent.accept()
            with connection:
                assert connection.recv(1)
                process.signal(signal.SIGINT)
                assert process.when_exited() == 130
            assert process.output == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_own_help(name: str, tmp_path: Path) -> None:
    finished = run([*SEANCE, name, "--help"], tmp_path)
    assert finished.returncode == 0
    assert f"seance {name}" in finished.stdout


def test_twistd_lists_both_plugins(tmp_path: Path) -> None:
    finished = run([*TWISTD, "--help"], tmp_path)
    assert "seance-relay" in finished.stdout
    assert "seance-agent" in finished.stdout


def test_two_programs_run_in_one_folder_with_the_commands_of_the_readme(tmp_path: Path) -> None:
    """``twistd -n`` itself rejects the second program because of the pid file of the first."""
    (tmp_path / "twistd.pid").write_text(str(os.getpid()))
    code = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"
    command = [sys.executable, "-c", code, "-n", "seance-relay", "--listen", "tcp:0:interface=127.0.0.1"]
    variables = {**os.environ, **environment()}
    with subprocess.Popen(command, cwd=tmp_path, env=variables, stdout=subprocess.PIPE, text=True) as relay:
        assert relay.stdout is not None
        lines = []
        for line in relay.stdout:
            lines.append(line)
            if "starting on port" in line:
                break
        relay.terminate()
    assert "starting on port" in lines[-1], lines
    assert (tmp_path / "twistd.pid").read_text() == str(os.getpid())
