"""Secrets are removed from each part of a log event."""

from __future__ import annotations

import io
import subprocess
import sys

from twisted.logger import Logger, LogPublisher, textFileLogObserver

from seance.logs.redacting import RedactingObserver
from tests.tools import ROOT

TOKEN = "eyJ0eXAiOiJzZWFuY2Urand0In0.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJlLXNpZ25hdHVyZQ"


def logged(write: object) -> str:
    text = io.StringIO()
    log = Logger(observer=LogPublisher(RedactingObserver(), textFileLogObserver(text)))
    write(log)  # type: ignore[operator]
    return text.getvalue()


def test_a_field_is_redacted() -> None:
    line = logged(lambda log: log.info("from {where}", where=f"/c/r?access_token={TOKEN}"))
    assert "from /c/r" in line
    assert TOKEN not in line


def test_a_traceback_is_redacted() -> None:
    def write(log: Logger) -> None:
        try:
            raise ValueError(f"Authorization: Bearer {TOKEN}", 7)
        except ValueError:
            log.failure("it failed")

    text = logged(write)
    assert "ValueError" in text
    assert "7" in text
    assert TOKEN not in text


def test_a_legacy_message_is_redacted() -> None:
    text = logged(lambda log: log.info("{log_text}", log_text=f"seance.token.{TOKEN}", message=(TOKEN, 1)))
    assert TOKEN not in text


def test_the_field_url_is_not_redacted() -> None:
    line = logged(lambda log: log.info("Agent endpoint: {url}", url="ws://h/agent?room=<room-id>"))
    assert line.rstrip().endswith("Agent endpoint: ws://h/agent?room=<room-id>")


def test_the_redacting_observer_comes_before_the_observers_that_write() -> None:
    code = f"""
import sys
from twisted.logger import Logger, globalLogBeginner, globalLogPublisher, textFileLogObserver
from seance.agent_tap import Options, makeService
options = Options()
options.parseOptions(["--room", "r", "--identity", "none"])
makeService(options)
makeService(options)
globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)], redirectStandardIO=False)
Logger().info("{{x}}", x="{TOKEN}")
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "***" in run.stdout
    assert TOKEN not in run.stdout
