"""``seance demo``: a relay, an agent and a shared text editor in one process, and a link to it.

``main`` is the command; ``seance.demo.stack`` has the three services, for programs and tests;
``seance.demo.welcome`` the text for the terminal.
"""

from seance.demo.command import main

__all__ = ["main"]
