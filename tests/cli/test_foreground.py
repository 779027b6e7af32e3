"""A service in the foreground: how it ends, whatever happens to it."""

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
        if sys.argv[1] == "refuses":
            raise ConfigError("This will not do.")
        if sys.argv[1] == "breaks":
            raise RuntimeError("a mistake")
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


@pytest.mark.skipif(sys.platform != "linux", reason="ours is for Linux")
@pytest.mark.parametrize("listen", ["0", "tcp:0", "127.0.0.1:0"])
@pytest.mark.parametrize(("named", "kind"), [("", "FastReactor"), ("epoll", "EPollReactor")])
def test_it_runs_on_our_reactor_or_the_one_that_was_named(listen: str, named: str, kind: str) -> None:
    """An option that is an endpoint is tried on the reactor, so that has to be there before."""
    with service("behaves", "--listen", listen, SEANCE_REACTOR=named) as process:
        process.when_line(f"starting on {kind}")
        process.when_line("started")


@pytest.mark.skipif(sys.platform != "linux", reason="ours is for Linux")
@pytest.mark.parametrize(
    ("before", "named", "kind"),
    [
        ((), "", "seance.net.reactor.FastReactor"),
        ((), "poll", "twisted.internet.pollreactor.PollReactor"),
        (("--reactor", "epoll"), "", "twisted.internet.epollreactor.EPollReactor"),
        (("--reactor", "epoll"), "poll", "twisted.internet.epollreactor.EPollReactor"),
    ],
)
def test_twistd_runs_on_our_reactor_or_the_one_that_was_named(
    before: tuple[str, ...], named: str, kind: str
) -> None:
    command = twistd("seance-relay", "--listen", "tcp:0:interface=127.0.0.1", "--admin", "none")
    command[-5:-5] = before
    with Process(command, name="relay", env=environment() | {"SEANCE_REACTOR": named}) as process:
        process.when_line(f"reactor class: {kind}.")
        process.when_line("Tunnel Relay Server starting")


def test_twistd_says_when_no_reactor_has_the_name() -> None:
    with Process(
        twistd("seance-relay"), name="relay", env=environment() | {"SEANCE_REACTOR": "nonsense"}
    ) as process:
        assert process.when_exited() == 1
        assert process.output.startswith("seance-relay: SEANCE_REACTOR: 'nonsense' is not a reactor")


def test_a_reactor_that_does_not_exist_is_a_sentence_and_status_1() -> None:
    with service("behaves", "--listen", "tcp:0", SEANCE_REACTOR="nonsense") as process:
        assert process.when_exited() == 1
        assert "seance test: SEANCE_REACTOR: 'nonsense' is not a reactor" in process.output


def test_a_second_signal_ends_a_service_that_never_stops() -> None:
    with service("never stops") as process:
        process.when_line("started")
        process.signal(signal.SIGINT)
        process.when_line("stopping")
        process.signal(signal.SIGINT)
        assert process.when_exited() == -signal.SIGINT
