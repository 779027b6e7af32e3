"""Asks the admin port of a relay for its rooms, for ``seance status``; blocking, one connection at a time.

Whatever goes wrong is a ``StatusError`` of one sentence with the exit status that it means. Nothing that
comes back is believed to be of the form that it should have, nor to be fit for a terminal: the address may be
anybody's. No redirection is followed, since the token would go along.
"""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass, fields
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit

from seance.errors import ConfigError

__all__ = ["NO_ACCESS", "NO_RELAY", "NO_ROOM", "OTHER", "Admin", "Client", "Room", "StatusError"]

NO_RELAY, OTHER, NO_ACCESS, NO_ROOM = 2, 3, 4, 5
"""Exit statuses: nobody answers, it is something else, the token will not do, nobody serves the room."""

ANSWER_SECONDS = 10.0
LONGEST_ANSWER = 8 << 20
ROOMS_AT_ONCE = 1000
MOST_ROOMS = 100_000

READY = ("ready", "draining", "not listening")
"""What ``/readyz`` may say; whoever says something else is no relay of ours."""


class StatusError(ConfigError):
    """The relay cannot be asked, or does not answer.

    Args:
        status: The exit status.
        sentence: For a person.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence, code="status")
        self.status = status


@dataclass(frozen=True, slots=True)
class _Answer:
    """A value of the API, of whose fields the kinds were looked at."""

    @classmethod
    def read(cls, content: Any) -> Self:  # noqa: ANN401  # whatever came
        """Take what is known of an object; raises ``ValueError`` if something is not as it should be."""
        if not isinstance(content, dict):
            raise ValueError
        return cls(
            **{field.name: _checked(content.get(field.name), str(field.type)) for field in fields(cls)}
        )


@dataclass(frozen=True, slots=True)
class Client(_Answer):
    """See ``/api/openapi.json``."""

    client: int
    address: str
    state: str
    seconds: float
    received_bytes: int
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class Room(_Answer):
    """See ``/api/openapi.json``."""

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
        token: Of role ``admin``; empty for none.
        ca_file: The authorities to believe, PEM; None for the system's.

    Raises:
        ConfigError: The URL or the file cannot be read.
    """

    def __init__(self, url: str, token: str = "", ca_file: str | None = None) -> None:
        form = "write http://HOST:PORT or https://HOST:PORT"
        try:
            parts = urlsplit(url)
            self._port = parts.port
        except ValueError as error:
            raise ConfigError(f"The address {_plain(url)!r} cannot be read ({error}); {form}.") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{_plain(url)!r} is no address of an admin port; {form}.")
        if parts.query or parts.fragment or parts.username is not None:
            raise ConfigError(f"The address of the admin port is host, port and path alone; {form}.")
        self._host = parts.hostname
        self._base = parts.path.rstrip("/")
        self._token = token
        self._tls: ssl.SSLContext | None = None
        if parts.scheme == "https":
            try:
                self._tls = ssl.create_default_context(cafile=ca_file)
            except OSError as error:
                raise ConfigError(f"{ca_file} holds no certificates that can be read: {error}.") from error
        self.url = f"{parts.scheme}://{parts.netloc}{self._base}"

    def readiness(self) -> str:
        """Return ``ready``, ``draining`` or ``not listening``."""
        status, body = self._ask("/readyz")
        said = body.decode("latin-1").strip()
        if status not in (200, 503) or said not in READY:
            raise self._other()
        return said

    def rooms(self) -> list[Room]:
        """Return all rooms that may be seen, by name."""
        found: list[Room] = []
        after = ""
        while len(found) < MOST_ROOMS:
            query = {"limit": ROOMS_AT_ONCE} | ({"after": after} if after else {})
            content = self._json(f"/api/rooms?{urlencode(query)}")
            try:
                found += [Room.read(one) for one in content["rooms"]]
                following = content["next"]
                if following is None:
                    break
                after = str(following)
            except (KeyError, TypeError, ValueError) as error:
                raise self._other() from error
        return found

    def room(self, name: str) -> tuple[Room, list[Client]]:
        """Return one room and its clients, a thousand at most."""
        content = self._json(f"/api/rooms/{quote(name, safe='')}?limit=1000", f"Nobody serves room {name}.")
        try:
            return Room.read(content), [Client.read(one) for one in content["list"]]
        except (KeyError, TypeError, ValueError) as error:
            raise self._other() from error

    # -- inside ----------------------------------------------------------------------------

    def _json(self, target: str, missing: str = "") -> Any:  # noqa: ANN401  # whatever came
        status, body = self._ask(target)
        try:
            content = json.loads(body)
        except ValueError as error:
            raise self._other() from error
        if status == 200:
            return content
        code, said = (
            (content.get(key) for key in ("code", "error")) if isinstance(content, dict) else ("", "")
        )
        if status in (401, 403) and isinstance(said, str):
            hint = " Give one with --token-file." if status == 401 and not self._token else ""
            raise StatusError(NO_ACCESS, f"{self.url} does not let us in: {_plain(said)}{hint}")
        if status == 404 and code == "admin_room" and missing:
            raise StatusError(NO_ROOM, missing)
        raise self._other()

    def _ask(self, target: str) -> tuple[int, bytes]:
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
            body = answer.read(LONGEST_ANSWER + 1)
        except ssl.SSLError as error:
            why = getattr(error, "verify_message", "") or error.reason or "no TLS is spoken there"
            raise StatusError(NO_RELAY, f"No TLS with {self.url}: {why}.") from error
        except http.client.HTTPException as error:
            raise self._other() from error
        except OSError as error:
            why = error.strerror or str(error)
            hint = "Is the relay running, and is that its --admin?"
            raise StatusError(NO_RELAY, f"Nobody answers at {self.url} ({why}). {hint}") from error
        finally:
            connection.close()
        if len(body) > LONGEST_ANSWER:
            raise self._other()
        return answer.status, body

    def _other(self) -> StatusError:
        hint = "The relay's log has the right address: Admin pages."
        return StatusError(OTHER, f"What answers at {self.url} is not the admin port of a relay. {hint}")


def _checked(value: object, kind: str) -> object:
    """Return a value if it is of a kind; text without what a terminal would act upon."""
    if kind == "str" and isinstance(value, str):
        return _plain(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        if kind == "int" and isinstance(value, int):
            return value
        if kind.startswith("float"):
            return float(value)
    if value is None and kind.endswith("None"):
        return None
    raise ValueError


def _plain(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
