"""What Seance is: a relay, an agent, rooms, and splices between them.

Start with ``seance.tunnel.relay.Relay`` and ``seance.tunnel.agent.Agent``.
"""
