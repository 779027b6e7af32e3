"""A service in the foreground: start, stop and exit status."""

from __future__ import annotations

import signal
import sys

import pytest

from tests.processes import Process, environment, twistd

SCRIPT = """
import sys
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from seance.errors import ConfigError
from seance.cli.foreground import run_in_foreground
from seance.relay_tap import Options


class Service(Service):
    def startService(self):
        from twisted.internet import reactor
        print("starting on", type(reactor).__name__, flush=True)
        if sys.argv[1] == "fails":
            raise ConfigError("The value is invalid.")
        if sys.argv[1] == "crashes":
            raise RuntimeError("a bug")
        print("started", flush=True)

    def stopService(self):
        print("stopping", flush=True)
        return Deferred() if sys.argv[1] == "never stops" else None


sys.exit(run_in_foreground("seance test", Options(), lambda options: Service(), sys.argv[2:]))
"""


def service(behaviour: str, *arguments: str, **settings: str) -> Process:
    env = environment() | settings
    return Process([sys.executable, "-c", SCRIPT, behaviour, *arguments], name=behaviour, env=env)


def test_a_signal_stops_the_service_and_the_status_is_0() -> None:
    with service("works") as process:
        process.when_line("started")
        process.signal(signal.SIGTERM)
        assert process.when_exited() == 0
        assert "stopping" in process.output


def test_a_config_error_at_start_is_a_message_with_status_1() -> None:
    with service("fails") as process:
        assert process.when_exited() == 1
        assert "seance test: The value is invalid." in process.output.splitlines()
        assert "stopping" not in process.output
        process.check_quiet()


def test_another_exception_at_start_is_logged_with_status_1() -> None:
    with service("crashes") as process:
        assert process.when_exited() == 1
        assert "RuntimeError: a bug" in process.output


@pytest.mark.skipif(sys.platform != "linux", reason="our reactor needs Linux")
@pytest.mark.parametrize("listen", ["0", "tcp:0", "127.0.0.1:0"])
@pytest.mark.parametrize(("named", "kind"), [("", "FastReactor"), ("epoll", "EPollReactor")])
def test_it_runs_on_our_reactor_or_on_the_named_one(listen: str, named: str, kind: str) -> None:
    """The parser of an endpoint imports the reactor, so the reactor has to be installed before that."""
    with service("works", "--listen", listen, SEANCE_REACTOR=named) as process:
        process.when_line(f"starting on {kind}")
        process.when_line("started")


@pytest.mark.skipif(sys.platform != "linux", reason="our reactor needs Linux")
@pytest.mark.parametrize(
    ("before", "named", "kind"),
    [
        ((), "", "seance.net.reactor.FastReactor"),
        ((), "poll", "twisted.internet.pollreactor.PollReactor"),
        (("--reactor", "epoll"), "", "twisted.internet.epollreactor.EPollReactor"),
        (("--reactor", "epoll"), "poll", "twisted.internet.epollreactor.EPollReactor"),
    ],
)
def test_twistd_runs_on_our_reactor_or_on_the_named_one(
    before: tuple[str, ...], named: str, kind: str
) -> None:
    command = twistd("seance-relay", "--listen", "tcp:0:interface=127.0.0.1", "--admin", "none")
    command[-5:-5] = before
    with Process(command, name="relay", env=environment() | {"SEANCE_REACTOR": named}) as process:
        process.when_line(f"reactor class: {kind}.")
        process.when_line("Tunnel Relay Server starting")


def test_twistd_reports_an_unknown_reactor() -> None:
    with Process(
        twistd("seance-relay"), name="relay", env=environment() | {"SEANCE_REACTOR": "nonsense"}
    ) as process:
        assert process.when_exited() == 1
        assert process.output.startswith("seance-relay: SEANCE_REACTOR: 'nonsense' is not a reactor")


def test_an_unknown_reactor_is_a_message_with_status_1() -> None:
    with service("works", "--listen", "tcp:0", SEANCE_REACTOR="nonsense") as process:
        assert process.when_exited() == 1
        assert "seance test: SEANCE_REACTOR: 'nonsense' is not a reactor" in process.output


def test_a_second_signal_ends_a_service_that_never_stops() -> None:
    with service("never stops") as process:
        process.when_line("started")
        process.signal(signal.SIGINT)
        process.when_line("stopping")
        process.signal(signal.SIGINT)
        assert process.when_exited() == -signal.SIGINT
