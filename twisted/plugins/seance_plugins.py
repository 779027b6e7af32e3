"""Tells twistd of ``seance-relay`` and ``seance-agent``, and of a reactor for them.

twistd imports every plugin file on each start, so this one names its modules by string. There is
no ``__init__.py`` beside it or above it, and must not be: it would hide Twisted itself.
"""

from __future__ import annotations

from twisted.application.reactors import Reactor
from twisted.application.service import ServiceMaker

seance_relay = ServiceMaker(
    "Seance relay",
    "seance.relay_tap",
    "The public side of a Seance tunnel: brings clients to the agents of their rooms.",
    "seance-relay",
)

seance_agent = ServiceMaker(
    "Seance agent",
    "seance.agent_tap",
    "The private side of a Seance tunnel: dials a relay and serves one room from this machine.",
    "seance-agent",
)

seance_reactor = Reactor(
    "seance",
    "seance.net.reactor",
    "Linux epoll, with short ways for many small messages.",
)
