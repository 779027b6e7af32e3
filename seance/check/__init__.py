"""``seance check``: does a tunnel do what it has to do? Four checks, one report.

``clients`` (many concurrent connections), ``yjs`` (documents converge), ``fidelity`` (WebSockets arrive as
they were sent) and ``speed`` (compared with the direct connection). ``environment`` provides relay, agent
and local server, ``check_case`` runs one case, ``report`` holds the results. The loads and subprocesses are
those of ``seance bench``.
"""

from __future__ import annotations

from seance.check.command import main

__all__ = ["main"]
