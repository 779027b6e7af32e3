"""The command ``seance doctor``: options, exit codes, text and JSON output, and killed processes."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from seance.doctor.command import main
from seance.doctor.context import DoctorOptions
from seance.doctor.findings import DoctorReport, Finding, Hop, HopStatus
from seance.doctor.text_output import TextOutput
from tests.auth.tokens import claims, ed_key, sign, write_jwks
from tests.canaries import tokens_in
from tests.faults.cutter import Cutter
from tests.faults.loops import Loop
from tests.processes import (
    AgentProcess,
    Process,
    RelayProcess,
    environment,
    free_port,
    running_agent,
    running_relay,
    until,
)

DOCTOR = [sys.executable, "-m", "seance", "doctor"]


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the doctor until it exits."""
    finished = subprocess.run(
        [*DOCTOR, *arguments],
        env={**environment(), "PATH": "/usr/bin:/bin", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in finished.stdout + finished.stderr
    assert tokens_in(finished.stdout + finished.stderr) == []
    return finished


def json_report(*arguments: str) -> dict[str, Any]:
    """Run the doctor with ``--json`` and return the report."""
    finished = doctor(*arguments, "--json")
    assert finished.stderr == ""
    report: dict[str, Any] = json.loads(finished.stdout)
    assert report["exit_code"] == finished.returncode
    return report


@contextmanager
def documents() -> Iterator[tuple[Process, int]]:
    """A document server in a separate process."""
    argv = [sys.executable, "-m", "tests.yserver.program"]
    with Process(argv, name="document server", env=environment()) as process:
        yield process, int(process.when_line(r"documents on port (\d+)")[1])


# Options


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "nothing to check: give --relay URL, --local ADDRESS, or both"),
        (["--room", "r"], "nothing to check"),
        (["--local", "1234", "--room", "r"], "--room needs --relay URL"),
        (["--relay", "ftp://relay.example"], "is not a WebSocket address"),
        (["--relay", "ws://h", "--tls-ca", "f"], "--tls-ca needs a --relay with wss://"),
        (["--relay", "ws://h", "--room", "a b"], "argument --room"),
        (["--relay", "ws://h", "--timeout", "301"], "at most 300 seconds"),
        (["--relay", "ws://h", "--timeout", "soon"], "is not a time"),
        (["--relay", "ws://h", "--document", "a\nb"], "a document name has at most 512"),
        (["--relay", "https://h/c/team"], "give the relay's address, wss://h, and --room"),
        (["--relay", "wss://h/base/agent"], "give the relay's address, wss://h/base, and"),
        (["--local", "nowhere"], "argument --local"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_invalid_option_exits_with_2_and_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    shown = capsys.readouterr()
    assert caught.value.code == 2
    assert words in shown.err
    assert (len(shown.err.splitlines()), shown.out) == (1, "")


def test_token_in_a_pasted_link_is_not_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["--relay", f"https://h/c/r?access_token={sign(claims())}"])
    assert tokens_in(capsys.readouterr().err) == []


def test_help_lists_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for hop in list(Hop)[1:]:
        assert f"{hop.exit_code} {hop.value}" in shown


def test_every_hop_has_a_distinct_exit_code() -> None:
    codes = [hop.exit_code for hop in Hop]
    assert codes == [2, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]


# Output


def shown(*findings: Finding, hops: tuple[Hop, ...] = tuple(Hop), encoding: str = "utf-8") -> str:
    """Return the text output for these findings."""
    options = DoctorOptions("wss://relay.example", "r", "localhost:1234")
    content = io.BytesIO()
    out = io.TextIOWrapper(content, encoding=encoding)
    view = TextOutput(out, options)
    report = DoctorReport(hops, options.relay, options.room, view.finding)
    view.begin()
    for finding in findings:
        report.add(finding)
    view.end(report)
    return content.getvalue().decode(encoding)


def test_first_failed_hop_is_printed_with_advice_and_later_hops_as_not_tried() -> None:
    text = shown(
        Finding(Hop.URL, HopStatus.OK, "it is one"),
        Finding(Hop.DNS, HopStatus.WARNING, "slow", "Use another.", 1.234),
        Finding(Hop.TCP, HopStatus.FAILED, "no answer", "Start it.", 0.0021),
    )
    assert text.splitlines() == [
        "Checking wss://relay.example, room r, local server localhost:1234",
        "  ✓ url    it is one",
        "  ! dns    slow  (1234 ms)",
        "         → Use another.",
        "  ✗ tcp    no answer  (2.1 ms)",
        "         → Start it.",
        "  · not tried: tls, proxy, relay, token, agent, local, tunnel, sync",
        "The first hop that fails is tcp: the connection to the relay.",
    ]


def test_terminal_without_utf8_gets_ascii_signs() -> None:
    text = shown(Finding(Hop.URL, HopStatus.FAILED, "none", "Get one."), hops=(Hop.URL,), encoding="ascii")
    assert "  x url    none" in text
    assert "        -> Get one." in text


def test_long_messages_are_wrapped_and_indented() -> None:
    text = shown(Finding(Hop.URL, HopStatus.OK, "word " * 60), hops=(Hop.URL,))
    lines = text.splitlines()[1:-1]
    assert len(lines) == 4
    assert all(len(line) <= 100 for line in lines)
    assert all(line.startswith(" " * 11 + "word") for line in lines[1:])


def test_json_has_one_entry_per_hop() -> None:
    report = DoctorReport((Hop.URL, Hop.DNS), "ws://h", None)
    report.add(Finding(Hop.URL, HopStatus.OK, "fine", seconds=0.5))
    report.round_trips["tcp"] = 0.25
    assert report.as_json() == {
        "ok": True,
        "hop": None,
        "exit_code": 0,
        "relay": "ws://h",
        "room": None,
        "clock_ahead_seconds": None,
        "round_trips_ms": {"tcp": 250.0},
        "hops": [
            {"hop": "url", "state": "ok", "found": "fine", "advice": None, "ms": 500.0},
            {"hop": "dns", "state": "not_tried", "found": "not tried", "advice": None, "ms": None},
        ],
    }


# Processes


def test_interrupt_ends_a_waiting_doctor_immediately() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        argv = [*DOCTOR, "--relay", f"ws://127.0.0.1:{silent.getsockname()[1]}"]
        with Process(argv, name="doctor", env=environment()) as process:
            process.when_line("tls ")
            process.signal(signal.SIGINT)
            assert process.when_exited() == 130
            process.check_quiet()
            assert "seance doctor: interrupted." in process.output


def test_hanging_resolver_does_not_delay_the_exit() -> None:
    code = (
        "import socket, sys, time; socket.getaddrinfo = lambda *a, **k: time.sleep(60);"
        "from seance.doctor import main;"
        "sys.exit(main(['--relay', 'ws://relay.example', '--timeout', '0.1']))"
    )
    with Process([sys.executable, "-c", code], name="doctor", env=environment()) as process:
        assert process.when_exited() == Hop.DNS.exit_code
        process.check_quiet()


def test_json_is_the_only_output_and_contains_the_exit_code() -> None:
    report = json_report("--relay", f"ws://127.0.0.1:{free_port()}", "--room", "r")
    assert (report["ok"], report["hop"], report["exit_code"]) == (False, "tcp", 11)
    assert [one["hop"] for one in report["hops"]] == [hop.value for hop in Hop]


@pytest.mark.slow
def test_killed_processes_are_identified(tmp_path: Path) -> None:
    """Kill local server, agent and relay in this order; the report names the process killed last."""
    keys = write_jwks(tmp_path / "keys", ed_key())
    soon = int(time.time()) + 600
    (tmp_path / "a").write_text(sign(claims(room="r", role="agent", exp=soon)))
    (tmp_path / "c").write_text(sign(claims(room="r", exp=soon)))
    with (
        documents() as (server, port),
        running_relay("--auth-key", str(keys), "--resume-seconds", "0") as relay,
    ):
        agent = ("--token-file", str(tmp_path / "a"))
        with AgentProcess("r", "--relay", relay.url, "--local", f"127.0.0.1:{port}", *agent) as process:
            process.when_connected()
            asked = ("--relay", relay.url, "--room", "r", "--token-file", str(tmp_path / "c"))
            assert json_report(*asked)["ok"]
            finished = doctor(*asked, "--local", f"127.0.0.1:{port}")
            assert (finished.returncode, finished.stderr) == (0, "")
            assert "All checks passed." in finished.stdout

            assert json_report(*asked[:4])["hop"] == "token"
            server.kill()
            assert json_report(*asked)["hop"] == "local"
            process.kill()
            assert json_report(*asked)["hop"] == "agent"
            relay.kill()
            assert json_report(*asked)["hop"] == "tcp"


@pytest.mark.slow
def test_network_that_drops_the_agents_packets_is_a_failure_of_the_agent() -> None:
    with (
        documents() as (_, port),
        running_relay() as relay,
        Loop() as loop,
        Cutter(loop, ("127.0.0.1", relay.port)) as cutter,
        running_agent(RelayAt(cutter.port), "r", local_port=port),
    ):
        asked = ("--relay", relay.url, "--room", "r")
        assert json_report(*asked)["ok"]
        cutter.swallow()
        until("the relay has noticed", lambda: json_report(*asked)["hop"] == "agent", deadline_seconds=60)


class RelayAt(RelayProcess):
    """The address of a relay behind a ``Cutter``."""

    def __init__(self, port: int) -> None:
        self.port = port
