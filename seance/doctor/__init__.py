"""``seance doctor``: walks the way that a client's bytes take, hop by hop, and names the one that fails.

It does what an agent and a client do, with the same code where there is some, and once each: look the name
up, connect, shake hands, ask the relay after itself and the room, open a WebSocket through the tunnel. It
changes nothing: no agent is attached, no document is written. ``docs/doctor.md`` is for whoever uses it.
"""

from seance.doctor.command import main

__all__ = ["main"]
