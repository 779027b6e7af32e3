"""``seance doctor``: checks the path from a client to a document and names the first hop that fails.

It uses the code of the agent and the client where possible, and does each step once: look up the name,
connect, complete the TLS handshake, request the relay's health and the room's status, open a WebSocket
through the tunnel. It is read-only: it attaches no agent and writes no document. ``docs/doctor.md`` is the
user's page.
"""

from seance.doctor.command import main

__all__ = ["main"]
