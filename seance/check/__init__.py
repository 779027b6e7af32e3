"""``seance check``: does this tunnel do what a tunnel has to? One report of four checks.

Many clients at a time (``clients``), Yjs documents that converge (``yjs``), WebSockets that arrive as they
were sent (``fidelity``), speed against the direct connection (``speed``). ``stage`` has relay, agent and
local server running, ``trial`` tries one thing, ``report`` is what comes of it. The client and the loads are
those of ``seance bench``.
"""

from __future__ import annotations

from seance.check.command import main

__all__ = ["main"]
