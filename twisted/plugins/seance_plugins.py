"""The twistd plugins ``seance-relay`` and ``seance-agent``, and the reactor ``seance``.

twistd imports every plugin file on each start, so this file names its modules by string. This folder and the
folder above must not have an ``__init__.py``: it would hide Twisted itself.
"""

from __future__ import annotations

from twisted.application.reactors import Reactor
from twisted.application.service import ServiceMaker

seance_relay = ServiceMaker(
    "Seance relay",
    "seance.relay_tap",
    "The public side of a Seance tunnel: connects clients to the agents of their rooms.",
    "seance-relay",
)

seance_agent = ServiceMaker(
    "Seance agent",
    "seance.agent_tap",
    "The private side of a Seance tunnel: connects to a relay and serves one room from this machine.",
    "seance-agent",
)

seance_reactor = Reactor(
    "seance",
    "seance.net.reactor",
    "Twisted's epoll reactor for Linux, faster for many small messages.",
)
