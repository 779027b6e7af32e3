"""The relay's address, from the one string a person gives."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from seance.errors import ConfigError

__all__ = ["RelayAddress"]

DEFAULT_PORTS = {"ws": 80, "wss": 443}

PATH_CHARACTERS = "/%:@!$&'()*+,;=~"
"""What stays as it is in a path besides letters and digits (RFC 3986, 3.3); the "%" is of what is quoted."""

_SECRETS = re.compile(r"(?<=//)[^/?#]*@|\?.*", re.DOTALL)
"""A user with a password, and a query: not to be repeated in an error."""


@dataclass(frozen=True, slots=True)
class RelayAddress:
    """Where a relay is.

    Attributes:
        is_secure: Whether it is ``wss``.
        host: A name or an IP address, without brackets; ASCII, a name in letters of other scripts is encoded.
        port: 1 to 65535.
        base_path: What stands before ``/agent`` on this relay, without a slash at its end.
    """

    is_secure: bool
    host: str
    port: int
    base_path: str

    @classmethod
    def from_url(cls, url: str) -> RelayAddress:
        """Read ``ws://HOST[:PORT][/BASE]`` or ``wss://...``.

        Raises:
            ConfigError: It is none of these, or holds a user, a query or a fragment.
        """
        form = "use ws://HOST:PORT or wss://HOST"
        shown = repr(_SECRETS.sub("", url))
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"The relay URL {shown} cannot be read ({error}); {form}.") from error
        if parts.scheme not in DEFAULT_PORTS:
            raise ConfigError(f"The relay URL {shown} is not a WebSocket address; {form}.")
        if not parts.hostname or any(character <= " " for character in url):
            raise ConfigError(f"The relay URL {shown} names no host; {form}.")
        if parts.query or parts.fragment or parts.username is not None:
            sentence = f"The relay URL for the agent holds more than host and base path; {form}."
            raise ConfigError(sentence)
        if port == 0:
            raise ConfigError(f"The relay URL {shown} has port 0, which nobody can dial; {form}.")
        try:
            host = parts.hostname.encode("idna").decode()
        except UnicodeError as error:
            raise ConfigError(f"The relay URL {shown} holds no valid host name; {form}.") from error
        return cls(
            is_secure=parts.scheme == "wss",
            host=host,
            port=port or DEFAULT_PORTS[parts.scheme],
            base_path=quote(parts.path.rstrip("/"), safe=PATH_CHARACTERS),
        )

    @property
    def host_header(self) -> str:
        """Host and port as they stand in a URL, the port only where it is not the default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = DEFAULT_PORTS["wss" if self.is_secure else "ws"]
        return host if self.port == default else f"{host}:{self.port}"

    def agent_url(self, room: str) -> str:
        """The URL at which an agent attaches for ``room``."""
        scheme = "wss" if self.is_secure else "ws"
        return f"{scheme}://{self.host_header}{self.agent_target(room)}"

    def agent_target(self, room: str) -> str:
        """The same as it stands in the request line."""
        return f"{self.base_path}/agent?room={quote(room, safe='~')}"
