"""Seance Tunnel: makes a Yjs document server behind NAT reachable through a public relay.

Nothing is imported here, so that ``import seance.yamux`` stays free of Twisted.
Start with ``seance.tunnel.relay.Relay`` and ``seance.tunnel.agent.Agent``, or with
``docs/programmatic.md``.
"""

__version__ = "0.1.0"
