"""``twistd seance-agent`` and ``seance agent``: from options to an agent.

twistd finds this module by its name, through ``twisted/plugins/seance_plugins.py``. To run an
agent inside a program of your own, use ``seance.tunnel.agent.Agent`` directly.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from twisted.application.service import IService
from twisted.internet.error import ReactorNotRunning

from seance.admin_port import NOWHERE, AgentAdmin
from seance.auth.agent_key import agent_identity
from seance.config import agent_settings
from seance.errors import ConfigError
from seance.flags import TableOptions
from seance.foreground import run_in_foreground
from seance.hangup import OnHangUp
from seance.health_socket import HealthSocket, health_of_agent
from seance.log_files import OnReopenSignal
from seance.net import agent_stream_limit, log_lowered, raise_descriptor_limit, use_daemon_lookups
from seance.options import Program
from seance.redacting import redact_logs
from seance.status_lines import StatusLines
from seance.steady import use_steady_clock
from seance.stopping import OnStopSignal
from seance.tunnel.agent import Agent
from seance.tunnel.settings import AgentSettings

__all__ = ["Options", "main", "makeService"]


class Options(TableOptions[AgentSettings], program=Program.AGENT):
    """What an agent can be told on the command line."""

    longdesc = "Dials a relay and brings the clients of one room to a server on this machine."

    def make_settings(
        self, flags: Mapping[str, Sequence[str]], environment: Mapping[str, str]
    ) -> AgentSettings:
        """Returns the settings."""
        settings = agent_settings(flags, environment)
        if settings.status_json and self.parent is not None and not self.parent.get("nodaemon"):
            sentence = (
                "--status-json tells a parent process on stdout, and a daemon has neither: run twistd -n."
            )
            raise ConfigError(sentence, code="status_json")
        return settings


def makeService(options: Options) -> IService:
    """Returns the agent, not started; twistd calls this."""
    redact_logs()  # twistd begins to write its log only after this
    # Imported on use: twistd has chosen the reactor by now, and an import of ours must not.
    from twisted.internet import reactor  # noqa: PLC0415

    use_steady_clock(reactor)
    use_daemon_lookups(reactor)
    raise_descriptor_limit(reactor)
    service = options.make_services()
    OnStopSignal(reactor).setServiceParent(service)  # first: whoever reads our log may send one
    OnReopenSignal(reactor).setServiceParent(service)
    # The agent reads its files whenever it dials, so there is nothing to read here.
    OnHangUp(reactor).setServiceParent(service)
    settings = options.settings
    limit = agent_stream_limit()
    if limit is not None and limit < settings.streams:
        if settings.streams != AgentSettings("any").streams:  # the default just follows
            log_lowered("--streams", settings.streams, limit)
        settings = replace(settings, streams=limit)
    admin = None if settings.admin == NOWHERE else AgentAdmin(reactor, settings)
    witness = None if admin is None else admin.witness
    agent = Agent(reactor, settings, identity=agent_identity(settings.identity), witness=witness)
    if settings.status_json and sys.__stdout__ is not None:
        # First, so that it hears everything. Not sys.stdout, which is the log under twistd.
        out = sys.__stdout__.fileno()
        StatusLines(reactor, agent, out, lambda: _stop(reactor)).setServiceParent(service)
    HealthSocket(reactor, lambda: health_of_agent(agent)).setServiceParent(service)
    agent.setServiceParent(service)
    if admin is not None:
        admin.watch(agent)
        admin.setServiceParent(service)
    return service


def _stop(reactor: Any) -> None:  # noqa: ANN401  # no common type
    def stop() -> None:
        with suppress(ReactorNotRunning):  # it is stopping already
            reactor.stop()

    reactor.callWhenRunning(stop)  # at once, if it runs


def main(arguments: Sequence[str]) -> int:
    """Runs ``seance agent`` until it is told to stop; returns the exit status."""
    return run_in_foreground("seance agent", Options(), makeService, arguments)
