"""When an agent that cannot get to its relay says how to find out why: once for each outage.

The agent knows one sentence about its last attempt. ``seance doctor`` looks at each hop by itself, on the
same machine, with the same files; so the log has the command to copy. Not where it would find all well: a
room that another agent has, a relay that is full or stopping.
"""

from __future__ import annotations

import shlex

from seance.core.settings import AgentSettings
from seance.errors import CarrierLost, Refusal

__all__ = ["DoctorHint"]

TOKEN_REFUSED = (401, 403)


class DoctorHint:
    """Ask for ``command`` after each failed attempt; call ``reset`` when one has succeeded.

    Args:
        settings: The agent's.
    """

    def __init__(self, settings: AgentSettings) -> None:
        parts = ["seance", "doctor", "--relay", settings.relay, "--room", settings.room]
        parts += ["--local", settings.local]
        for option, value in (("--tls-ca", settings.tls_ca), ("--token-file", settings.token_file)):
            parts += [] if value is None else [option, value]
        self._command = shlex.join(parts)
        self._is_given = False

    def command(self, error: CarrierLost | Refusal) -> str | None:
        """Return what to type, or None: it was said before, or it would be of no use."""
        is_of_use = (
            error.code != "token_file" if isinstance(error, CarrierLost) else error.status in TOKEN_REFUSED
        )
        if self._is_given or not is_of_use:
            return None
        self._is_given = True
        return self._command

    def reset(self) -> None:
        """The agent is connected: what goes wrong next is another matter."""
        self._is_given = False
