"""The command ``seance check``: without options, with the demo, with faulty relays."""

from __future__ import annotations

import json
import re
import signal
from argparse import Namespace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema_rs
import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from seance.check import main
from seance.check.command import _write
from seance.errors import ConfigError
from tests.bench.rig import listening
from tests.canaries import tokens_in
from tests.certificates import Authority
from tests.check.faulty_proxy import Fault, FaultyProxy
from tests.check.test_report import SCHEMA, report
from tests.commands import check_one_sentence, started
from tests.processes import Process, running_agent, running_relay

LONG_SECONDS = 240.0
"""A check takes up to a minute; the limit is for a busy machine."""


def report_of(process: Process, code: int) -> dict[str, Any]:
    """Wait for the process and return its report; compare its exit status and validate its JSON."""
    assert process.when_exited(deadline_seconds=LONG_SECONDS) == code, process.output
    process.check_quiet()
    report: dict[str, Any] = json.loads(process.output)
    jsonschema_rs.validate(SCHEMA, report)
    assert report["passed"] is (code == 0)
    return report


def failed_parts(report: dict[str, Any]) -> set[str]:
    parts = [(one["name"], part) for one in report["checks"] for part in one["parts"]]
    return {f"{name}.{part['name']}" for name, part in parts if not part["passed"]}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--only", "speed,nonsense"], "'nonsense' is not a check; write some of clients, yjs,"),
        (["--clients", "0"], "'0' is not a number of clients"),
        (["--idle", "never"], "'never'"),
        (["--relay", "nonsense"], "'nonsense'"),
        (["--room", "a/b", "--relay", "ws://h"], "'a/b'"),
        (["--room", "r"], "--room has no effect without --relay"),
        (["--token-file", "f"], "--token-file has no effect without --relay"),
        (["--plot", "missing/plot.svg"], "'missing/plot.svg' cannot be written: 'missing' is not a folder"),
        (["--plot", "p.svg", "--only", "yjs"], "--plot shows the speed, which --only leaves out"),
        (["--plot", "."], "'.' is a folder"),
        (["--serve", "70000"], "'70000' is not a port"),
    ],
)
def test_a_wrong_option_is_one_line_on_stderr(
    options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    check_one_sentence(main, "check", options, sentence, capsys)


def test_the_report_is_written_before_a_plot_that_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone" / "plot.svg"
    with pytest.raises(ConfigError, match="cannot be written: No such file"):
        _write(report(), Namespace(plot=gone, json=True))
    assert json.loads(capsys.readouterr().out)["checks"]


@pytest.mark.slow
def test_a_tunnel_that_it_starts_passes(tmp_path: Path) -> None:
    plot = tmp_path / "plot.svg"
    with started("check", "--quick", "--idle", "1", "--json", "--quiet", "--plot", str(plot)) as process:
        report = report_of(process, 0)
    assert [one["name"] for one in report["checks"]] == ["clients", "yjs", "fidelity", "speed"]
    assert ElementTree.parse(plot).getroot().tag.endswith("svg")


@pytest.mark.slow
@pytest.mark.timeout(LONG_SECONDS + 30)
def test_the_demo_passes_with_its_own_documents() -> None:
    """The demo serves the Yjs check; an agent in another room serves the others."""
    with started("demo", "--port", "0", "--room", "my-room", "--no-qr") as demo:
        port = demo.when_line(r"http://localhost:(\d+)/c/my-room$")[1]
        relay = f"ws://localhost:{port}"
        options = ("--relay", relay, "--room", "my-room", "--idle", "1", "--json", "--quiet")
        with started("check", *options) as process:
            report = report_of(process, 0)
        assert [one["name"] for one in report["checks"]] == ["clients", "yjs", "fidelity", "speed"]
        [note] = report["notes"]
        assert note == "The room my-room has another local server; it is used for the Yjs check only."
        demo.signal(signal.SIGINT)
        demo.when_exited()
        demo.check_quiet()


@pytest.mark.slow
def test_a_running_check_server_behind_the_tunnel_is_used() -> None:
    with started("check", "--serve", "0") as server:
        port = int(server.when_line(r"port (\d+)")[1])
        with running_relay() as relay, running_agent(relay, "there", local_port=port):
            options = ("--relay", relay.url, "--room", "there", "--only", "clients,yjs", "--json", "--quiet")
            with started("check", *options) as process:
                report = report_of(process, 0)
    assert report["room"] == "there"
    assert len(report["notes"]) == 1


@pytest.mark.slow
def test_a_relay_with_keys_passes_with_tokens_and_the_report_has_none(tmp_path: Path) -> None:
    key = tmp_path / "key"
    with started("keygen", "--out", str(key)) as keygen:
        keygen.when_exited()
    files = []
    for role in ("client", "agent"):
        words = ("--key", str(key), "--room", "r", "--role", role)
        with started("token", *words, may_show_tokens=True) as token:
            token.when_exited()
            path = tmp_path / role
            path.write_text(token.output.splitlines()[0])
            files.append(str(path))
    with running_relay("--auth-key", f"{key}.pub") as relay:
        options = ("--relay", relay.url, "--room", "r", "--only", "clients,fidelity", "--idle", "1", "--json")
        tokens = ("--token-file", files[0], "--agent-token-file", files[1])
        with started("check", *options, "--quiet", *tokens) as process:
            report_of(process, 0)
            assert not tokens_in(process.output)
        for room in (("--room", "r"), ()):
            with started("check", "--relay", relay.url, *room, "--quiet") as process:
                assert process.when_exited() == 1
                [line] = process.output.splitlines()
            assert line.startswith("seance check: ")
            assert "token" in line


@pytest.mark.slow
def test_a_relay_with_tls_passes_with_its_authority(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("localhost")
    with running_relay("--tls-cert", str(files.chain), "--tls-key", str(files.key)) as relay:
        url = f"wss://localhost:{relay.port}"
        options = ("--relay", url, "--only", "clients,fidelity,speed", "--quick")
        options = (*options, "--idle", "1", "--json", "--quiet")
        with started("check", *options, "--tls-ca", str(authority.file)) as process:
            report = report_of(process, 0)
        with started("check", *options, "--room", "r") as process:
            assert process.when_exited() == 1
            assert "certificate of localhost" in process.output
    assert "Not tried" in json.dumps(report), "TLS has no half-close"


@pytest.mark.slow
@pytest_twisted.ensureDeferred
async def test_a_faulty_relay_fails_the_matching_part() -> None:
    """One fault is enough here; ``test_checks.py`` has them all, without subprocesses."""
    with running_relay() as relay:
        async with listening(FaultyProxy(relay.port, Fault.DROPS_GLUED)) as proxy:
            options = ("--relay", f"ws://127.0.0.1:{proxy.port}", "--only", "fidelity", "--idle", "1")
            with started("check", *options, "--json", "--quiet") as process:
                report = await deferToThread(report_of, process, 1)
    assert failed_parts(report) == {"fidelity.glued_to_the_answer"}


@pytest.mark.slow
@pytest.mark.parametrize("room", [("--room", "r"), ()], ids=["a room", "no room"])
def test_an_unreachable_relay_is_one_line_on_stderr(room: tuple[str, ...]) -> None:
    with running_relay() as relay:
        url = relay.url
    with started("check", "--relay", url, *room) as process:
        assert process.when_exited() == 1
        said = process.output.splitlines()[-1]
    assert re.match(rf"seance check: {url}/c/(r|seance-check-[0-9a-f]+) cannot be reached: ", said)


@pytest.mark.slow
def test_an_interrupted_check_stops_its_subprocesses() -> None:
    with started("check", "--only", "fidelity", "--idle", "60") as process:
        process.when_line("WebSocket frames", deadline_seconds=60)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 3
        process.signal(signal.SIGINT)
        assert process.when_exited() == 1
        assert process.output.splitlines()[-1] == "seance check: interrupted."
        process.check_quiet()
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
