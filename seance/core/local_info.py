"""Facts about the local server that an agent sends when it attaches: its ``Host``, and how slow it is.

The field ``Seance-Local`` of docs/protocol.md, read and written by both sides. Both parameters are optional
and so is the field: a plain agent sends none, and a relay that does not know the field ignores it.
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
    """Facts about one local server, sent by its agent.

    Attributes:
        host: The ``Host`` that the local server is sent, by which it may refer to itself; empty where it
            is sent the public one, or where it is not known.
        answer_seconds: How long it may take for its first answer; None for the relay's own bound.
    """

    host: str = ""
    answer_seconds: float | None = None

    @classmethod
    def from_settings(cls, settings: AgentSettings) -> LocalServerInfo:
        """Return what an agent with these settings says.

        Raises:
            ConfigError: The address of the local server cannot be read.
        """
        host = "" if settings.keep_host else LocalAddress.from_text(settings.local).host_header.decode()
        return cls(host, settings.upgrade_seconds)

    @classmethod
    def read(cls, value: str) -> LocalServerInfo:
        """Read a field. A parameter that makes no sense, or that is not known, counts as absent."""
        pairs = (one.partition("=") for one in value.split(";"))
        parameters = {name.strip(): its.strip() for name, _, its in pairs}
        host, seconds = parameters.get("host", ""), parameters.get("answer", "")
        return cls(
            host if host.isascii() and is_valid_host(host.encode()) else "",
            float(seconds) if _SECONDS.fullmatch(seconds) and float(seconds) > 0 else None,
        )

    @classmethod
    def of(cls, request: Request) -> LocalServerInfo:
        """Read the field of an agent's request; absent or repeated it says nothing."""
        values = request.values(LOCAL_FIELD.lower().encode())
        return cls.read(values[0].decode("latin-1")) if len(values) == 1 else cls()

    @property
    def hosts(self) -> tuple[bytes, ...]:
        """By which ``Host`` the local server may refer to itself, so far as is known."""
        return (self.host.encode(),) if self.host else ()

    def headers(self) -> dict[str, str]:
        """Return the field, or nothing if there is nothing to say."""
        parameters = []
        if self.host:
            parameters.append(f"host={self.host}")
        if self.answer_seconds is not None:
            parameters.append(f"answer={_written(self.answer_seconds)}")
        return {LOCAL_FIELD: "; ".join(parameters)} if parameters else {}

    def granted_seconds(self, settings: RelaySettings) -> float:
        """Return how long a relay waits for the first answer of this local server."""
        if self.answer_seconds is None:
            return settings.upgrade_seconds
        # An operator who raises the default means it for those who ask for more, too.
        return min(self.answer_seconds, max(settings.upgrade_seconds, settings.max_upgrade_seconds))

    def reply(self, settings: RelaySettings) -> dict[str, str]:
        """Return the field of the 101 that tells an agent what it got, if it has asked."""
        if self.answer_seconds is None:
            return {}
        return LocalServerInfo(answer_seconds=self.granted_seconds(settings)).headers()


def _written(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")
