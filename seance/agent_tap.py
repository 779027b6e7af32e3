"""``twistd seance-agent`` and ``seance agent``: from options to an agent.

twistd finds this module by its name, through ``twisted/plugins/seance_plugins.py``. To run an
agent inside a program of your own, use ``seance.tunnel.agent.Agent`` directly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from twisted.application.service import IService, MultiService

from seance.auth.agent_key import agent_identity
from seance.config import agent_settings
from seance.flags import TableOptions
from seance.foreground import run_in_foreground
from seance.hangup import OnHangUp
from seance.options import Program
from seance.redacting import redact_logs
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
        return agent_settings(flags, environment)


def makeService(options: Options) -> IService:
    """Returns the agent, not started; twistd calls this."""
    redact_logs()  # twistd begins to write its log only after this
    # Imported on use: twistd has chosen the reactor by now, and an import of ours must not.
    from twisted.internet import reactor  # noqa: PLC0415

    use_steady_clock(reactor)
    service = MultiService()
    OnStopSignal(reactor).setServiceParent(service)  # first: whoever reads our log may send one
    identity = agent_identity(options.settings.identity)
    Agent(reactor, options.settings, identity=identity).setServiceParent(service)
    # It looks at its files whenever it dials, so there is nothing to do but to live on.
    OnHangUp(reactor).setServiceParent(service)
    return service


def main(arguments: Sequence[str]) -> int:
    """Runs ``seance agent`` until it is told to stop; returns the exit status."""
    return run_in_foreground("seance agent", Options(), makeService, arguments)
