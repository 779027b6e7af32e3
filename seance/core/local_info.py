"""The header field ``Seance-Local``: facts about the local server that an agent sends when it attaches.

The agent sends the local server's ``Host`` and how long its first response may take; the relay answers with
the time that it grants. The field and both parameters are optional: a plain agent sends none, and a relay
that does not know the field ignores it. See docs/protocol.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seance.core.handshake_fields import LOCAL_FIELD
from seance.core.local_address import LocalAddress
from seance.heads import is_valid_host

if TYPE_CHECKING:
    from seance.core.settings import AgentSettings, RelaySettings
    from seance.heads import Request

__all__ = ["LocalServerInfo"]

_SECONDS = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6})?")


@dataclass(frozen=True, slots=True)
class LocalServerInfo:
    """Facts about one local server.

    Attributes:
        host: The ``Host`` that the agent sends to the local server, which may occur in its responses. Empty
            if the agent sends the public ``Host``, or if it is unknown.
        answer_seconds: Timeout for the first response of the local server; None for the relay's default.
    """

    host: str = ""
    answer_seconds: float | None = None

    @classmethod
    def from_settings(cls, settings: AgentSettings) -> LocalServerInfo:
        """Return the facts that an agent with these settings sends.

        Raises:
            ConfigError: The address of the local server cannot be parsed.
        """
        host = "" if settings.keep_host else LocalAddress.from_text(settings.local).host_header.decode()
        return cls(host, settings.upgrade_seconds)

    @classmethod
    def read(cls, value: str) -> LocalServerInfo:
        """Parse the value of the field. An unknown or malformed parameter counts as absent."""
        pairs = (one.partition("=") for one in value.split(";"))
        parameters = {name.strip(): its.strip() for name, _, its in pairs}
        host, seconds = parameters.get("host", ""), parameters.get("answer", "")
        return cls(
            host if host.isascii() and is_valid_host(host.encode()) else "",
            float(seconds) if _SECONDS.fullmatch(seconds) and float(seconds) > 0 else None,
        )

    @classmethod
    def from_request(cls, request: Request) -> LocalServerInfo:
        """Parse the field of an agent's request. A repeated field counts as absent."""
        values = request.values(LOCAL_FIELD.lower().encode())
        return cls.read(values[0].decode("latin-1")) if len(values) == 1 else cls()

    @property
    def hosts(self) -> tuple[bytes, ...]:
        """The ``Host`` values by which the local server may refer to itself, as far as known."""
        return (self.host.encode(),) if self.host else ()

    def headers(self) -> dict[str, str]:
        """Return the header field; an empty dict if there are no facts to send."""
        parameters = []
        if self.host:
            parameters.append(f"host={self.host}")
        if self.answer_seconds is not None:
            parameters.append(f"answer={_written(self.answer_seconds)}")
        return {LOCAL_FIELD: "; ".join(parameters)} if parameters else {}

    def granted_seconds(self, settings: RelaySettings) -> float:
        """Return how long a relay waits for the first response of this local server, in seconds."""
        if self.answer_seconds is None:
            return settings.upgrade_seconds
        # A default above the maximum raises the maximum as well.
        return min(self.answer_seconds, max(settings.upgrade_seconds, settings.max_upgrade_seconds))

    def reply(self, settings: RelaySettings) -> dict[str, str]:
        """Return the field for the relay's 101: the time that it grants, if the agent has asked for one."""
        if self.answer_seconds is None:
            return {}
        return LocalServerInfo(answer_seconds=self.granted_seconds(settings)).headers()


def _written(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")
