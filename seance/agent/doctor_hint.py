"""Logs the ``seance doctor`` command when an agent cannot reach its relay, once per outage.

The agent has one message about its last attempt; ``seance doctor`` checks each hop from the same machine with
the same files. The hint is not given for refusals in which the doctor would find no fault: a room that
another agent serves, a relay that is full or stopping.
"""

from __future__ import annotations

import shlex

from seance.core.settings import AgentSettings
from seance.errors import CarrierLost, Refusal

__all__ = ["DoctorHint"]

TOKEN_REFUSED = (401, 403)


class DoctorHint:
    """Call ``command`` after each failed attempt, and ``reset`` after a successful one.

    Args:
        settings: The agent's settings.
    """

    def __init__(self, settings: AgentSettings) -> None:
        parts = ["seance", "doctor", "--relay", settings.relay, "--room", settings.room]
        parts += ["--local", settings.local]
        for option, value in (("--tls-ca", settings.tls_ca), ("--token-file", settings.token_file)):
            parts += [] if value is None else [option, value]
        self._command = shlex.join(parts)
        self._is_given = False

    def command(self, error: CarrierLost | Refusal) -> str | None:
        """Return the command to type; None if it was given before or would not help with ``error``."""
        is_useful = (
            error.code != "token_file" if isinstance(error, CarrierLost) else error.status in TOKEN_REFUSED
        )
        if self._is_given or not is_useful:
            return None
        self._is_given = True
        return self._command

    def reset(self) -> None:
        """The agent is connected: the next outage gets a hint again."""
        self._is_given = False
