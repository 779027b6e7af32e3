"""Seance Tunnel: makes a Yjs document server behind NAT reachable through a public relay.

The names in ``__all__`` are the public interface; docs/programmatic.md describes it. Each is imported on
first use, so ``import seance`` imports neither Twisted nor a reactor.
"""

from __future__ import annotations

TYPE_CHECKING = False
"""Type checkers treat this name as true. Importing it from ``typing`` would double the import time."""

if TYPE_CHECKING:
    from seance.agent.service import Agent
    from seance.agent.status import AgentStatus
    from seance.auth.agent_key import agent_identity
    from seance.core.settings import AgentSettings, RelaySettings
    from seance.errors import ConfigError
    from seance.relay.service import Relay

__all__ = ["Agent", "AgentSettings", "AgentStatus", "ConfigError", "Relay", "RelaySettings", "agent_identity"]

__version__ = "0.2.0"

_MODULES = {
    "Agent": "seance.agent.service",
    "AgentSettings": "seance.core.settings",
    "AgentStatus": "seance.agent.status",
    "ConfigError": "seance.errors",
    "Relay": "seance.relay.service",
    "RelaySettings": "seance.core.settings",
    "agent_identity": "seance.auth.agent_key",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562)."""
    from importlib import import_module  # noqa: PLC0415  # for the import time

    if name not in _MODULES:
        raise AttributeError(f"module 'seance' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    """List the public names although they are not imported yet."""
    return sorted({*globals(), *__all__})
