"""A service in the foreground: how it ends, whatever happens to it."""

from __future__ import annotations

import signal
import sys

from tests.processes import Process, environment

SCRIPT = """
import sys
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from seance.errors import ConfigError
from seance.foreground import run_in_foreground
from seance.relay_tap import Options


class Service(Service):
    def startService(self):
        print("starting", flush=True)
        if sys.argv[1] == "refuses":
            raise ConfigError("This will not do.")
        if sys.argv[1] == "breaks":
            raise RuntimeError("a mistake")
        print("started", flush=True)

    def stopService(self):
        print("stopping", flush=True)
        return Deferred() if sys.argv[1] == "never stops" else None


sys.exit(run_in_foreground("seance test", Options(), lambda options: Service(), []))
"""


def service(behaviour: str) -> Process:
    return Process([sys.executable, "-c", SCRIPT, behaviour], name=behaviour, env=environment())


def test_a_signal_stops_the_service_and_the_status_is_0() -> None:
    with service("behaves") as process:
        process.when_line("started")
        process.signal(signal.SIGTERM)
        assert process.when_exited() == 0
        assert "stopping" in process.output


def test_a_service_that_refuses_to_start_is_a_sentence_and_status_1() -> None:
    with service("refuses") as process:
        assert process.when_exited() == 1
        assert "seance test: This will not do." in process.output.splitlines()
        assert "stopping" not in process.output
        process.check_quiet()


def test_a_service_that_breaks_while_starting_is_logged_and_status_1() -> None:
    with service("breaks") as process:
        assert process.when_exited() == 1
        assert "RuntimeError: a mistake" in process.output


def test_a_second_signal_ends_a_service_that_never_stops() -> None:
    with service("never stops") as process:
        process.when_line("started")
        process.signal(signal.SIGINT)
        process.when_line("stopping")
        process.signal(signal.SIGINT)
        assert process.when_exited() == -signal.SIGINT
