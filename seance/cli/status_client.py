"""A blocking client for the admin port of a relay, for ``seance status``.

Every failure is a ``StatusError`` with a message and an exit status. The address may be that of any server,
so each field of an answer is checked, and characters that a terminal would interpret are replaced. Redirects
are not followed, because the token would be sent along.
"""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass, fields
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit

from seance.errors import ConfigError

__all__ = ["NO_ACCESS", "NO_RELAY", "NO_ROOM", "OTHER", "Admin", "Room", "StatusClient", "StatusError"]

NO_RELAY, OTHER, NO_ACCESS, NO_ROOM = 2, 3, 4, 5
"""Exit statuses: no connection, not a relay's admin port, token not accepted, no agent serves the room."""

ANSWER_SECONDS = 10.0
MAX_ANSWER_BYTES = 8 << 20
ROOMS_PER_REQUEST = 1000
MAX_ROOMS = 100_000

READY = ("ready", "draining", "not listening")
"""The possible answers of ``/readyz``; any other answer is not from a relay."""


class StatusError(ConfigError):
    """A request to the admin port failed.

    Args:
        status: The exit status.
        message: The message to print.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message, code="status")
        self.status = status


@dataclass(frozen=True, slots=True)
class _Answer:
    """An object of the API with checked fields."""

    @classmethod
    def read(cls, content: Any) -> Self:  # noqa: ANN401  # any JSON
        """Return the object with its known fields; raise ``ValueError`` if the type of one is wrong."""
        if not isinstance(content, dict):
            raise ValueError
        return cls(
            **{field.name: _checked(content.get(field.name), str(field.type)) for field in fields(cls)}
        )


@dataclass(frozen=True, slots=True)
class StatusClient(_Answer):
    """A client, as in ``/api/openapi.json``."""

    client: int
    address: str
    state: str
    seconds: float
    received_bytes: int
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class Room(_Answer):
    """A room, as in ``/api/openapi.json``."""

    room: str
    state: str
    since_seconds: float
    clients: int
    received_bytes: int
    sent_bytes: int
    kept_bytes: int
    round_trip_seconds: float | None
    agent_address: str


class Admin:
    """The admin port of a relay.

    Args:
        url: ``http://HOST:PORT`` or ``https://HOST:PORT``, with a base path if a proxy put it under one.
        token: A token of role ``admin``; empty for none.
        ca_file: CA certificates to trust, PEM; None for the system's.

    Raises:
        ConfigError: The URL is invalid, or the file has no certificates.
    """

    def __init__(self, url: str, token: str = "", ca_file: str | None = None) -> None:
        remedy = "write http://HOST:PORT or https://HOST:PORT"
        try:
            parts = urlsplit(url)
            self._port = parts.port
        except ValueError as error:
            raise ConfigError(f"The URL {_plain(url)!r} is invalid ({error}); {remedy}.") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{_plain(url)!r} is not the URL of an admin port; {remedy}.")
        if parts.query or parts.fragment or parts.username is not None:
            raise ConfigError(f"The URL of the admin port may have only host, port and path; {remedy}.")
        self._host = parts.hostname
        self._base = parts.path.rstrip("/")
        self._token = token
        self._tls: ssl.SSLContext | None = None
        if parts.scheme == "https":
            try:
                self._tls = ssl.create_default_context(cafile=ca_file)
            except OSError as error:
                raise ConfigError(f"{ca_file} has no readable certificates: {error}.") from error
        self.url = f"{parts.scheme}://{parts.netloc}{self._base}"

    def readiness(self) -> str:
        """Return ``ready``, ``draining`` or ``not listening``."""
        status, body = self._get("/readyz")
        state = body.decode("latin-1").strip()
        if status not in (200, 503) or state not in READY:
            raise self._not_a_relay()
        return state

    def rooms(self) -> list[Room]:
        """Return all rooms that the token gives access to, by name."""
        found: list[Room] = []
        after = ""
        while len(found) < MAX_ROOMS:
            query = {"limit": ROOMS_PER_REQUEST} | ({"after": after} if after else {})
            content = self._json(f"/api/rooms?{urlencode(query)}")
            try:
                found += [Room.read(one) for one in content["rooms"]]
                following = content["next"]
                if following is None:
                    break
                after = str(following)
            except (KeyError, TypeError, ValueError) as error:
                raise self._not_a_relay() from error
        return found

    def room(self, name: str) -> tuple[Room, list[StatusClient]]:
        """Return a room and its clients, at most a thousand."""
        content = self._json(f"/api/rooms/{quote(name, safe='')}?limit=1000", f"No agent serves room {name}.")
        try:
            return Room.read(content), [StatusClient.read(one) for one in content["list"]]
        except (KeyError, TypeError, ValueError) as error:
            raise self._not_a_relay() from error

    # -- inside ----------------------------------------------------------------------------

    def _json(self, target: str, missing: str = "") -> Any:  # noqa: ANN401  # any JSON
        status, body = self._get(target)
        try:
            content = json.loads(body)
        except ValueError as error:
            raise self._not_a_relay() from error
        if status == 200:
            return content
        code, error_text = (
            (content.get(key) for key in ("code", "error")) if isinstance(content, dict) else ("", "")
        )
        if status in (401, 403) and isinstance(error_text, str):
            hint = " Name a token with --token-file." if status == 401 and not self._token else ""
            raise StatusError(NO_ACCESS, f"{self.url} denied access: {_plain(error_text)}{hint}")
        if status == 404 and code == "admin_room" and missing:
            raise StatusError(NO_ROOM, missing)
        raise self._not_a_relay()

    def _get(self, target: str) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        connection: http.client.HTTPConnection
        if self._tls is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=ANSWER_SECONDS)
        else:
            connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=ANSWER_SECONDS, context=self._tls
            )
        try:
            connection.request("GET", self._base + target, headers=headers)
            answer = connection.getresponse()
            body = answer.read(MAX_ANSWER_BYTES + 1)
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", "") or error.reason or "the server does not use TLS"
            raise StatusError(NO_RELAY, f"No TLS connection to {self.url}: {reason}.") from error
        except http.client.HTTPException as error:
            raise self._not_a_relay() from error
        except OSError as error:
            reason = error.strerror or str(error)
            hint = "Is the relay running, and is this its --admin?"
            raise StatusError(NO_RELAY, f"No connection to {self.url} ({reason}). {hint}") from error
        finally:
            connection.close()
        if len(body) > MAX_ANSWER_BYTES:
            raise self._not_a_relay()
        return answer.status, body

    def _not_a_relay(self) -> StatusError:
        hint = "The relay's log has the right address: Admin pages."
        return StatusError(OTHER, f"{self.url} is not the admin port of a relay. {hint}")


def _checked(value: object, type_name: str) -> object:
    """Return a value if it has this type, text without characters that a terminal interprets; else raise."""
    if type_name == "str" and isinstance(value, str):
        return _plain(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        if type_name == "int" and isinstance(value, int):
            return value
        if type_name.startswith("float"):
            return float(value)
    if value is None and type_name.endswith("None"):
        return None
    raise ValueError


def _plain(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
