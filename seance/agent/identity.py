"""The agent's side of the identity handshake: header fields that prove its key to the relay.

State for one agent and one relay, without clock or socket. The agent asks for the ``headers`` of each attempt
and reports the result. docs/protocol.md describes the handshake.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from twisted.logger import Logger

from seance.core.handshake_fields import AGENT_FIELD, LOCAL_FIELD, NONCE_FIELD, REPLACE_FIELD
from seance.core.interfaces import AgentIdentity
from seance.core.local_info import LocalServerInfo
from seance.core.settings import AgentSettings
from seance.errors import Refusal

__all__ = ["IdentityHandshake"]

_NONCE = re.compile(r"[\w-]{1,128}", re.ASCII)


class IdentityHandshake:
    """Call ``headers`` before each attempt, and one of the other methods after it.

    Args:
        identity: The agent's key; None for an agent without one.
        room: The room that the agent serves.
        host: Host and port of the relay; the same spelling in each call, because the proof signs it.
        local: Facts about the local server to send with each request.
    """

    _log = Logger()

    def __init__(
        self,
        identity: AgentIdentity | None,
        room: str,
        host: str,
        local: LocalServerInfo = LocalServerInfo(),  # noqa: B008  # frozen
    ) -> None:
        self._identity = identity
        self._room = room
        self._host = host
        self._local = local
        self._granted_seconds: float | None = local.answer_seconds
        self._nonce: str | None = None
        self._must_wait = False

    @classmethod
    def from_settings(
        cls, identity: AgentIdentity | None, settings: AgentSettings, host: str
    ) -> IdentityHandshake:
        """Make the handshake of an agent with these settings.

        Raises:
            ConfigError: The address of the local server cannot be parsed.
        """
        return cls(identity, settings.room, host, LocalServerInfo.from_settings(settings))

    def headers(self) -> dict[str, str]:
        """Return the header fields for the next attempt. A nonce is used once."""
        headers = self._local.headers()
        if self._identity is not None:
            nonce, self._nonce = self._nonce, None
            headers[AGENT_FIELD] = (
                self._identity.announce(self._host)
                if nonce is None
                else self._identity.prove(nonce, self._room, self._host)
            )
        if self._must_wait:
            headers[REPLACE_FIELD] = "no"
        return headers

    def is_asked(self, refusal: Refusal) -> bool:
        """Return whether a refusal asks for a proof; the next ``headers`` then have it."""
        fields = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in refusal.headers}
        return refusal.status == 401 and self._keep_nonce(fields)

    def note_attached(self, headers: Mapping[str, str]) -> None:
        """The relay has accepted the agent.

        Args:
            headers: The header fields of its 101, names in lower case.
        """
        self._must_wait = False
        self._keep_nonce(headers)
        self._check_granted(headers)

    def note_replaced(self) -> None:
        """Another process with the same key has taken the room.

        Until the relay accepts this agent again, its requests do not replace that process: two processes
        that both took the room back would disconnect each other's clients for ever.
        """
        self._must_wait = True

    def _check_granted(self, headers: Mapping[str, str]) -> None:
        """Log once if the relay grants a shorter timeout than the agent has asked for."""
        asked = self._local.answer_seconds
        granted = LocalServerInfo.read(headers.get(LOCAL_FIELD.lower(), "")).answer_seconds
        before, self._granted_seconds = self._granted_seconds, granted
        if asked is None or granted == before or (granted is not None and granted >= asked):
            return
        if granted is None:
            message = "The relay does not know --upgrade-seconds and uses its own timeout, 15 s by default."
        else:
            message = (
                f"The relay waits {granted:g} s for the local server's first response, not the {asked:g} s "
                "of --upgrade-seconds; its operator can raise --max-upgrade-seconds."
            )
        self._log.warn("[Agent] {sentence}", sentence=message, event="link.upgrade_seconds")

    def _keep_nonce(self, headers: Mapping[str, str]) -> bool:
        nonce = headers.get(NONCE_FIELD.lower(), "")
        if self._identity is None or _NONCE.fullmatch(nonce) is None:
            return False
        self._nonce = nonce
        return True
