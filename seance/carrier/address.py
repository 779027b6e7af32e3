"""Parse the relay URL that the user gives (``--relay``)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from seance.errors import ConfigError

__all__ = ["RelayAddress"]

DEFAULT_PORTS = {"ws": 80, "wss": 443}

PATH_CHARACTERS = "/%:@!$&'()*+,;=~"
"""Characters of a path that are not percent-encoded, in addition to letters and digits (RFC 3986, 3.3).
"%" is one of them because the path may be encoded already."""

_SECRETS = re.compile(r"(?<=//)[^/?#]*@|\?.*", re.DOTALL)
"""User, password and query of a URL: an error message must not repeat them."""


@dataclass(frozen=True, slots=True)
class RelayAddress:
    """The address of a relay.

    Attributes:
        is_secure: Whether the scheme is ``wss``.
        host: A host name (ASCII, IDNA-encoded if necessary) or an IP address without brackets.
        port: 1 to 65535.
        base_path: The part of the path before ``/agent``, without a trailing slash.
    """

    is_secure: bool
    host: str
    port: int
    base_path: str

    @classmethod
    def from_url(cls, url: str) -> RelayAddress:
        """Parse ``ws://HOST[:PORT][/BASE]`` or ``wss://...``.

        Raises:
            ConfigError: The URL has another form, or contains a user, a query or a fragment.
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
            raise ConfigError(f"The relay URL {shown} has no host; {form}.")
        if parts.query or parts.fragment or parts.username is not None:
            raise ConfigError(f"The relay URL must not contain a user, a query or a fragment; {form}.")
        if port == 0:
            raise ConfigError(f"The relay URL {shown} has port 0, which is not a valid port; {form}.")
        try:
            host = parts.hostname.encode("idna").decode()
        except UnicodeError as error:
            raise ConfigError(f"The relay URL {shown} has an invalid host name; {form}.") from error
        return cls(
            is_secure=parts.scheme == "wss",
            host=host,
            port=port or DEFAULT_PORTS[parts.scheme],
            base_path=quote(parts.path.rstrip("/"), safe=PATH_CHARACTERS),
        )

    @property
    def host_header(self) -> str:
        """The value of the ``Host`` header field: without the port if it is the default one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = DEFAULT_PORTS["wss" if self.is_secure else "ws"]
        return host if self.port == default else f"{host}:{self.port}"

    def agent_url(self, room: str) -> str:
        """Return the URL to which an agent connects for ``room``."""
        scheme = "wss" if self.is_secure else "ws"
        return f"{scheme}://{self.host_header}{self.agent_target(room)}"

    def agent_target(self, room: str) -> str:
        """Return the request target (path and query) to which an agent connects for ``room``."""
        return f"{self.base_path}/agent?room={quote(room, safe='~')}"
