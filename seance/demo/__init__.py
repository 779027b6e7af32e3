"""``seance demo``: a relay, an agent and a shared text editor in one process, and a link to it.

``main`` is the command; ``seance.demo.trio`` is what it runs, for programs and tests;
``seance.demo.welcome`` is what it says.
"""

from seance.demo.command import main

__all__ = ["main"]
