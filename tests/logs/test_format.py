"""How the log is written down: JSON that programs can read, without secrets, and nothing for debugging."""

from __future__ import annotations

import io
import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.application.service import Application, MultiService
from twisted.logger import ILogObserver, Logger, LogPublisher, globalLogPublisher
from twisted.python import log as old_log
from twisted.python import usage
from twisted.python.logfile import LogFile

from seance.agent_tap import Options as AgentOptions
from seance.errors import ConfigError
from seance.logs import format
from seance.logs.files import AppendedLogFile
from seance.logs.format import (
    JSON,
    LONGEST_TEXT,
    TEXT,
    LoggedServices,
    json_line,
    log_for_twistd,
    log_observer,
)
from seance.logs.redacting import Redacting
from seance.logs.writer import drain_all
from seance.relay_tap import Options as RelayOptions
from tests.attacks.parties import EchoServer
from tests.canaries import tokens_in
from tests.e2e.wire import Wire, upgrade
from tests.processes import (
    AgentProcess,
    Process,
    RelayProcess,
    environment,
    running_agent,
    running_relay,
    twistd,
    until,
)

SEANCE = (sys.executable, "-m", "seance")

TOKEN = "eyJ0eXAiOiJzZWFuY2Urand0In0.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJlLXNpZ25hdHVyZQ"


def written(write: Callable[[Logger], None], log_format: str = JSON) -> str:
    text = io.StringIO()
    write(Logger(namespace="seance.test", observer=LogPublisher(Redacting(), log_observer(log_format, text))))
    return text.getvalue()


def line(write: Callable[[Logger], None]) -> dict[str, Any]:
    text = written(write)
    assert text.count("\n") == 1
    assert text.endswith("\n")
    found: dict[str, Any] = json.loads(text)
    return found


class Strange:
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Secretive:
    def __str__(self) -> str:
        return f"Authorization: Bearer {TOKEN}"


def test_a_line_has_time_level_namespace_event_message_and_fields() -> None:
    said = line(lambda log: log.warn("{count} of {what}", count=3, what="them", event="test.said"))
    assert said.pop("time").endswith("Z")
    assert said == {
        "level": "warn",
        "namespace": "seance.test",
        "event": "test.said",
        "message": "3 of them",
        "fields": {"count": 3, "what": "them"},
    }


def test_time_is_rfc_3339_in_utc() -> None:
    assert json.loads(json_line({"log_time": 1795436951.8174}))["time"] == "2026-11-23T12:29:11.817Z"


def test_fields_keep_their_kind_and_what_is_no_number_becomes_text() -> None:
    said = line(
        lambda log: log.info(
            "x",
            none=None,
            truth=True,
            part=0.5,
            nan=float("nan"),
            inf=float("-inf"),
            path=Path("/a"),
            odd=Strange(),
        )
    )
    assert said["fields"] == {
        "none": None,
        "truth": True,
        "part": 0.5,
        "nan": None,
        "inf": None,
        "path": "/a",
        "odd": "<Strange>",
    }


def test_a_line_is_one_line_of_ascii_whatever_is_in_it() -> None:
    text = written(lambda log: log.info("{a}", a="one\ntwo \u2028 \U0001f50c \ud800"))
    assert text.isascii()
    assert text.count("\n") == 1
    assert json.loads(text)["fields"]["a"] == "one\ntwo \u2028 \U0001f50c \ud800"


def test_a_failure_brings_its_traceback() -> None:
    def write(log: Logger) -> None:
        try:
            raise ValueError("what is wrong")
        except ValueError:
            log.failure("it failed", event="test.failed")

    said = line(write)
    assert said["level"] == "critical"
    assert said["message"] == "it failed"
    assert "ValueError: what is wrong" in said["traceback"]
    assert "log_failure" not in said["fields"]


def test_no_secret_is_written_wherever_it_comes_from() -> None:
    def write(log: Logger) -> None:
        log.info("{a}", a=Secretive(), path=f"/c/r/doc?access_token={TOKEN}&x=1", event="test.secret")
        try:
            raise ValueError(Secretive())
        except ValueError:
            log.failure("failed")

    text = written(write)
    assert text.count("***") >= 3
    assert TOKEN not in text
    assert tokens_in(text) == []
    assert "x=1" not in text


def test_our_own_addresses_stay_as_they_are() -> None:
    url = "ws://localhost:8080/agent?room=<room-id>"
    said = line(lambda log: log.info("Agent endpoint: {url}", url=url))
    assert said["message"] == f"Agent endpoint: {url}"
    assert said["fields"] == {"url": url}


def test_what_is_too_long_is_cut() -> None:
    said = line(lambda log: log.info("{a}", a="x" * (LONGEST_TEXT + 1)))
    assert said["fields"]["a"] == said["message"] == "x" * LONGEST_TEXT + "…"


def test_a_message_of_the_old_log_is_a_line_too() -> None:
    events: list[dict[str, Any]] = []
    globalLogPublisher.addObserver(events.append)
    old_log.msg("from a library", system="that", extra=1)
    globalLogPublisher.removeObserver(events.append)
    said = json.loads(json_line(events[-1]))
    assert said["message"] == "from a library"
    assert said["event"] is None
    assert said["namespace"] == "log_legacy"
    assert said["fields"] == {"extra": 1}


@pytest.mark.parametrize("log_format", [TEXT, JSON])
def test_what_is_for_debugging_is_not_written(log_format: str) -> None:
    def write(log: Logger) -> None:
        log.debug("unseen")
        log.info("seen")

    text = written(write, log_format)
    assert "unseen" not in text
    assert "seen" in text


# Under twistd


@pytest.mark.parametrize("told", [{"logger": "some.thing"}, {"syslog": True}])
def test_a_twistd_that_was_told_how_to_log_is_left_alone(told: dict[str, Any]) -> None:
    assert log_for_twistd(told, TEXT) is None
    with pytest.raises(ConfigError, match="give one of them"):
        log_for_twistd(told, JSON)


def test_the_application_gets_the_observer_and_no_other_parent_does() -> None:
    application = Application("test")
    services = LoggedServices(lambda: log_observer(JSON, io.StringIO()))
    services.setServiceParent(application)
    assert ILogObserver.providedBy(application.getComponent(ILogObserver))
    LoggedServices(pytest.fail).setServiceParent(MultiService())
    LoggedServices().setServiceParent(plain := Application("plain"))
    assert plain.getComponent(ILogObserver) is None


def write_as_twistd(told: dict[str, Any], log_format: str, *, to_stderr: bool = False) -> None:
    make = log_for_twistd(told, log_format, to_stderr=to_stderr)
    assert make is not None
    Logger("seance.test", observer=make()).info("hello")
    drain_all()


@pytest.fixture
def _log_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Closes what twistd would leave open, and gives its signal back."""
    opened: list[LogFile] = []

    def open_file(path: str) -> LogFile:
        opened.append(AppendedLogFile.fromFullPath(path))
        return opened[-1]

    monkeypatch.setattr(format, "AppendedLogFile", SimpleNamespace(fromFullPath=open_file))
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)
    for file in opened:
        file.close()


@pytest.mark.usefixtures("_log_files")
def test_twistd_writes_to_the_file_it_was_told(tmp_path: Path) -> None:
    told: dict[str, Any] = {"logfile": str(tmp_path / "a.log"), "nodaemon": True}
    write_as_twistd(told, JSON)
    assert json.loads((tmp_path / "a.log").read_text())["message"] == "hello"


def test_twistd_writes_to_stdout_in_the_foreground_or_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    for to_stderr in (False, True):
        told: dict[str, Any] = {"nodaemon": True}
        write_as_twistd(told, TEXT, to_stderr=to_stderr)
        said = capsys.readouterr()
        assert "hello" in (said.err if to_stderr else said.out)
        assert "hello" not in (said.out if to_stderr else said.err)


def test_another_format_is_refused_in_one_sentence() -> None:
    with pytest.raises(SystemExit, match="'xml' is not a format of the log; write text or json"):
        RelayOptions().parseOptions(["--log-format", "xml"])


def test_a_daemon_has_nobody_to_tell_its_status() -> None:
    options = AgentOptions()
    options.parent = usage.Options()
    options.parent["nodaemon"] = False
    with pytest.raises(SystemExit, match="run twistd -n"):
        options.parseOptions(["--room", "r", "--status-json"])


# Real processes


def lines_of(process: Process) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.output.splitlines()]


def talk(relay: RelayProcess, target: str) -> None:
    """Be a client: send five bytes behind the 101, and have them back."""
    with Wire.dial(("127.0.0.1", relay.port)) as client:
        client.send(upgrade(target))
        assert client.read_head().status == 101
        client.send(b"hello")
        assert client.read_exactly(5) == b"hello"


@pytest.mark.slow
def test_every_line_of_a_relay_is_json_and_each_client_has_one_and_each_link_two() -> None:
    with running_relay("--log-format", "json") as relay, EchoServer() as local:
        with running_agent(relay, "r", local_port=local.port):
            for _ in range(3):
                talk(relay, "/client?room=r&secret=canary-query")
            for _ in range(3):
                relay.when_line('"client.ended"')
        relay.when_line('"link.lost"')
        assert relay.stop() == 0
        lines = lines_of(relay)
        events = [one["event"] for one in lines]
        assert events.count("client.ended") == 3
        assert (events.count("link.attached"), events.count("link.lost")) == (1, 1)
        ended = lines[events.index("client.ended")]
        assert ended["level"] == "info"
        assert ended["namespace"] == "seance.relay.edge.client_connection.ClientConnection"
        assert ended["fields"].keys() == {"room_hash", "seconds", "received_bytes", "sent_bytes", "reason"}
        assert (ended["fields"]["received_bytes"], ended["fields"]["sent_bytes"]) == (5, 5)
        assert ended["fields"]["room_hash"] == lines[events.index("link.attached")]["fields"]["room_hash"]
        assert "canary" not in relay.output


@pytest.mark.slow
@pytest.mark.parametrize("how", ["twistd", "seance"])
def test_every_line_of_an_agent_is_json(how: str) -> None:
    with running_relay() as relay:
        told = ("--room", "r", "--relay", relay.url, "--log-format", "json")
        argv = twistd("seance-agent", *told) if how == "twistd" else [*SEANCE, "agent", *told]
        with Process(argv, name="agent", env=environment()) as agent:
            agent.when_line('"event":"link.attached"')
            assert agent.stop() == 0
            assert {"link.dialling", "link.attached", "link.lost"} <= {
                one["event"] for one in lines_of(agent)
            }


@pytest.mark.slow
def test_a_crowd_that_is_refused_writes_no_line() -> None:
    with running_relay() as relay, AgentProcess("r", "--relay", relay.url, "--local", "127.0.0.1:1") as agent:
        agent.when_connected()
        relay.when_line("An agent serves room r")
        before = len(relay.output.splitlines())
        for _ in range(5):
            with Wire.dial(("127.0.0.1", relay.port)) as client:
                client.send(upgrade("/client?room=r"))
                assert client.read_head().status == 502
        until("the agent has said so", lambda: "does not take connections" in agent.output)
        assert len(relay.output.splitlines()) == before
