"""The formats of the log: JSON for programs, without secrets and without debug events."""

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
from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogPublisher,
    formatEventAsClassicLogText,
    globalLogPublisher,
)
from twisted.python import log as old_log
from twisted.python import usage
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile

from seance.agent_tap import Options as AgentOptions
from seance.errors import ConfigError
from seance.logs import format
from seance.logs.files import AppendedLogFile
from seance.logs.format import (
    JSON,
    MAX_TEXT_LENGTH,
    TEXT,
    LoggedServices,
    json_line,
    log_for_twistd,
    log_observer,
    text_line,
)
from seance.logs.redacting import RedactingObserver
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
    write(
        Logger(
            namespace="seance.test",
            observer=LogPublisher(RedactingObserver(), log_observer(log_format, text)),
        )
    )
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
    entry = line(lambda log: log.warn("{count} of {what}", count=3, what="them", event="test.said"))
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "level": "warn",
        "namespace": "seance.test",
        "event": "test.said",
        "message": "3 of them",
        "fields": {"count": 3, "what": "them"},
    }


def test_time_is_rfc_3339_in_utc() -> None:
    assert json.loads(json_line({"log_time": 1795436951.8174}))["time"] == "2026-11-23T12:29:11.817Z"


def test_numbers_keep_their_type_and_other_fields_become_text() -> None:
    entry = line(
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
    assert entry["fields"] == {
        "none": None,
        "truth": True,
        "part": 0.5,
        "nan": None,
        "inf": None,
        "path": "/a",
        "odd": "<Strange>",
    }


def test_any_text_becomes_one_line_of_ascii() -> None:
    text = written(lambda log: log.info("{a}", a="one\ntwo \u2028 \U0001f50c \ud800"))
    assert text.isascii()
    assert text.count("\n") == 1
    assert json.loads(text)["fields"]["a"] == "one\ntwo \u2028 \U0001f50c \ud800"


def test_a_failure_has_a_traceback() -> None:
    def write(log: Logger) -> None:
        try:
            raise ValueError("the cause")
        except ValueError:
            log.failure("it failed", event="test.failed")

    entry = line(write)
    assert entry["level"] == "critical"
    assert entry["message"] == "it failed"
    assert "ValueError: the cause" in entry["traceback"]
    assert "log_failure" not in entry["fields"]


def test_no_secret_is_written_from_any_part_of_an_event() -> None:
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


def test_the_field_url_is_not_redacted() -> None:
    url = "ws://localhost:8080/agent?room=<room-id>"
    entry = line(lambda log: log.info("Agent endpoint: {url}", url=url))
    assert entry["message"] == f"Agent endpoint: {url}"
    assert entry["fields"] == {"url": url}


def test_a_long_text_is_cut() -> None:
    entry = line(lambda log: log.info("{a}", a="x" * (MAX_TEXT_LENGTH + 1)))
    assert entry["fields"]["a"] == entry["message"] == "x" * MAX_TEXT_LENGTH + "…"


def test_an_event_of_the_legacy_log_becomes_a_line() -> None:
    events: list[dict[str, Any]] = []
    globalLogPublisher.addObserver(events.append)
    old_log.msg("from a library", system="that", extra=1)
    globalLogPublisher.removeObserver(events.append)
    entry = json.loads(json_line(events[-1]))
    assert entry["message"] == "from a library"
    assert entry["event"] is None
    assert entry["namespace"] == "log_legacy"
    assert entry["fields"] == {"extra": 1}


@pytest.mark.parametrize("log_format", [TEXT, JSON])
def test_debug_events_are_not_written(log_format: str) -> None:
    def write(log: Logger) -> None:
        log.debug("hidden")
        log.info("visible")

    text = written(write, log_format)
    assert "hidden" not in text
    assert "visible" in text


# Under twistd


@pytest.mark.parametrize("options", [{"logger": "some.thing"}, {"syslog": True}])
def test_twistds_own_log_options_take_precedence(options: dict[str, Any]) -> None:
    assert log_for_twistd(options, TEXT) is None
    with pytest.raises(ConfigError, match="use one of them"):
        log_for_twistd(options, JSON)


def test_only_the_application_gets_the_observer() -> None:
    application = Application("test")
    services = LoggedServices(lambda: log_observer(JSON, io.StringIO()))
    services.setServiceParent(application)
    assert ILogObserver.providedBy(application.getComponent(ILogObserver))
    LoggedServices(pytest.fail).setServiceParent(MultiService())
    LoggedServices().setServiceParent(plain := Application("plain"))
    assert plain.getComponent(ILogObserver) is None


def write_as_twistd(options: dict[str, Any], log_format: str, *, to_stderr: bool = False) -> None:
    make = log_for_twistd(options, log_format, to_stderr=to_stderr)
    assert make is not None
    Logger("seance.test", observer=make()).info("hello")
    drain_all()


@pytest.fixture
def _log_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close the files that twistd would leave open, and restore the signal handler."""
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
def test_twistd_writes_to_its_logfile(tmp_path: Path) -> None:
    options: dict[str, Any] = {"logfile": str(tmp_path / "a.log"), "nodaemon": True}
    write_as_twistd(options, JSON)
    assert json.loads((tmp_path / "a.log").read_text())["message"] == "hello"


def test_twistd_writes_to_stdout_in_the_foreground_or_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    for to_stderr in (False, True):
        options: dict[str, Any] = {"nodaemon": True}
        write_as_twistd(options, TEXT, to_stderr=to_stderr)
        output = capsys.readouterr()
        assert "hello" in (output.err if to_stderr else output.out)
        assert "hello" not in (output.out if to_stderr else output.err)


def test_an_unknown_format_is_reported() -> None:
    with pytest.raises(SystemExit, match="'xml' is not a log format; write text or json"):
        RelayOptions().parseOptions(["--log-format", "xml"])


def test_a_daemon_cannot_write_status_lines() -> None:
    options = AgentOptions()
    options.parent = usage.Options()
    options.parent["nodaemon"] = False
    with pytest.raises(SystemExit, match="run twistd -n"):
        options.parseOptions(["--room", "r", "--status-json"])


# Real processes


def lines_of(process: Process) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.output.splitlines()]


def echo_once(relay: RelayProcess, target: str) -> None:
    """Connect as a client, send five bytes after the 101, and receive them again."""
    with Wire.dial(("127.0.0.1", relay.port)) as client:
        client.send(upgrade(target))
        assert client.read_head().status == 101
        client.send(b"hello")
        assert client.read_exactly(5) == b"hello"


@pytest.mark.slow
def test_a_relay_logs_json_with_one_line_per_client_and_two_per_link() -> None:
    with running_relay("--log-format", "json") as relay, EchoServer() as local:
        with running_agent(relay, "r", local_port=local.port):
            for _ in range(3):
                echo_once(relay, "/client?room=r&secret=canary-query")
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
        options = ("--room", "r", "--relay", relay.url, "--log-format", "json")
        argv = twistd("seance-agent", *options) if how == "twistd" else [*SEANCE, "agent", *options]
        with Process(argv, name="agent", env=environment()) as agent:
            agent.when_line('"event":"link.attached"')
            assert agent.stop() == 0
            assert {"link.dialling", "link.attached", "link.lost"} <= {
                one["event"] for one in lines_of(agent)
            }


@pytest.mark.slow
def test_rejected_clients_are_not_logged_one_by_one() -> None:
    with running_relay() as relay, AgentProcess("r", "--relay", relay.url, "--local", "127.0.0.1:1") as agent:
        agent.when_connected()
        relay.when_line("An agent serves room r")
        before = len(relay.output.splitlines())
        for _ in range(5):
            with Wire.dial(("127.0.0.1", relay.port)) as client:
                client.send(upgrade("/client?room=r"))
                assert client.read_head().status == 502
        until("the agent has logged it", lambda: "does not take connections" in agent.output)
        assert len(relay.output.splitlines()) == before


@pytest.mark.parametrize(
    "fields",
    [
        {"log_format": "{seconds:.1f} s of {name!r}, {name.upper()}", "seconds": 1.25, "name": "a"},
        {"log_format": "{seconds:.1f} s of {name!r}", "seconds": 1.25, "name": "a"},
        {"log_format": "two\nlines"},
        {"log_format": "{missing} {0} {"},
        {"log_format": b"bytes"},
        {"log_format": ""},
        {},
        {"log_format": "old", "log_system": "-"},
        {"log_format": "failed", "log_failure": Failure(ValueError("a"))},
        {"log_format": "no time", "log_time": None},
        {"log_format": "no level", "log_level": None},
    ],
    ids=lambda fields: fields.get("log_format", "nothing"),
)
def test_a_line_of_text_is_as_twisted_writes_it(fields: LogEvent) -> None:
    event = {"log_time": 1e9 + 0.5, "log_namespace": "a.b", "log_level": LogLevel.info, **fields}
    assert text_line(event) == formatEventAsClassicLogText(event)
