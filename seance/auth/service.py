"""Verifies tokens with the keys, the deny list and the clock.

``AuthService`` is the ``Verifier`` of a relay. It checks its files once a second and calls its listeners
after a change. They call ``is_still_good`` for each of their sessions, and only sessions that are no longer
allowed end. It does not log refused tokens, because peers could fill the log.

Start it before the relay: until it runs, every token is refused.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from seance.auth.claims import grant_from_claims
from seance.auth.deny import DenyList
from seance.auth.fetch import KeySetUrl
from seance.auth.files import WatchedFile, deny_file, key_file, key_set_file
from seance.auth.jwks import RemoteKeys
from seance.auth.keys import Key
from seance.auth.verifier import Header, read_header, signed_payload
from seance.core.interfaces import Grant, TokenRole
from seance.errors import Refusal
from seance.heads.refusals import refusal
from seance.net import FileWatcher

if TYPE_CHECKING:
    from twisted.web.iweb import IPolicyForHTTPS

__all__ = ["AuthService"]

MAX_LISTENERS = 64


@dataclass(frozen=True, slots=True)
class _Admission(Grant):
    """A grant, with the key and the room that are needed to check it again."""

    key: Key = field(kw_only=True, repr=False)
    room: str = field(kw_only=True, repr=False)


class AuthService(Service):
    """Verifies tokens; implements ``seance.core.interfaces.Verifier``.

    Args:
        reactor: Twisted's reactor.
        keys: Key files: JWK, JWK set or PEM. Of private keys, only the public part is kept.
        jwks: The JWK set of another issuer: a file or an ``https://`` URL.
        deny: File of the deny list.
        now: Returns the time in Unix seconds.
        policy: Trusted certificates for the URL; those of the system by default.

    Raises:
        ConfigError: The URL of the key set is not valid.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401  # no common type
        *,
        keys: Sequence[str | os.PathLike[str]] = (),
        jwks: str | os.PathLike[str] | None = None,
        deny: str | os.PathLike[str] | None = None,
        now: Callable[[], float] = time.time,
        policy: IPolicyForHTTPS | None = None,
    ) -> None:
        self._now = now
        self._keys: dict[str, Key] = {}
        self._listeners: dict[object, Callable[[], None]] = {}
        self._key_files = [key_file(Path(path)) for path in keys]
        self._remote: RemoteKeys | None = None
        if jwks is not None and "://" in str(jwks):
            url = KeySetUrl(str(jwks))
            fetch = partial(url.fetch, reactor, policy)
            self._remote = RemoteKeys(reactor, fetch, name=url.name, on_change=self._change)
        elif jwks is not None:
            self._key_files.append(key_set_file(Path(jwks)))
        self._deny_file = None if deny is None else deny_file(Path(deny))
        self._file_watcher = FileWatcher(reactor, self._files(), self._change)

    # -- IService --------------------------------------------------------------------------

    def startService(self) -> None:
        """Read the files and start watching them.

        Raises:
            ConfigError: A file cannot be read or is not valid.
        """
        for file in self._files():
            file.load()
        super().startService()
        self._collect_keys()
        self._file_watcher.startService()
        if self._remote is not None:
            self._remote.start()

    def stopService(self) -> None:
        """Stop watching. Tokens that wait for a key set are refused."""
        super().stopService()
        self._file_watcher.stopService()
        if self._remote is not None:
            self._remote.stop()

    def reread(self) -> None:
        """Read all files and fetch the key set now, for SIGHUP. Does nothing unless the service runs.

        Call it in the reactor's thread; a signal handler uses ``callFromThread``.
        """
        if not self.running:
            return
        self._file_watcher.reread()
        if self._remote is not None:
            self._remote.refresh()

    # -- Verifier --------------------------------------------------------------------------

    def verify(self, token: str, role: TokenRole, room: str) -> Deferred[Grant]:
        """Return the grant of a token; see ``Verifier``."""
        verifying = self._verify(token, role, room)
        return verifying.addErrback(_reword_for_agent) if role is TokenRole.AGENT else verifying

    def _verify(self, token: str, role: TokenRole, room: str) -> Deferred[Grant]:
        try:
            header = read_header(token)
            key = self._find(header)
            if key is None and header.key_id is not None and self._remote is not None:
                waiting = self._remote.when_refreshed()
                if waiting is not None:
                    return waiting.addCallback(lambda _: self._admit(token, header, role, room))
            return succeed(self._admit(token, header, role, room))
        except Refusal as refusal:
            return fail(refusal)

    def is_still_good(self, grant: Grant) -> bool:
        """Return whether a grant of this service is still valid; see ``Verifier``."""
        return (
            isinstance(grant, _Admission)
            and self._now() < grant.expires_at
            and self._keys.get(grant.key.key_id) == grant.key
            and not self._denied.denies_bearer(grant)
            and not self._denied.denies_room(grant.room)
        )

    def on_change(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` after each change; returns a function that removes it. See ``Verifier``."""
        if len(self._listeners) >= MAX_LISTENERS:
            msg = f"more than {MAX_LISTENERS} listeners; a caller does not remove its listener"
            raise RuntimeError(msg)
        token = object()
        self._listeners[token] = listener

        def remove() -> None:
            self._listeners.pop(token, None)

        return remove

    def _admit(self, token: str, header: Header, role: TokenRole, room: str) -> Grant:
        key = self._find(header)
        if key is None:
            raise refusal("token_key_unknown")
        payload = signed_payload(token, header, key)
        grant = grant_from_claims(payload, key_id=key.key_id, now=self._now())
        if self._denied.denies_bearer(grant):
            raise refusal("token_denied")
        if grant.role is not role:
            raise refusal("token_role")
        if (room or role is not TokenRole.ADMIN) and not grant.allows_room(room):
            raise refusal("token_room")
        if self._denied.denies_room(room):
            raise refusal("room_denied")
        inherited = {one.name: getattr(grant, one.name) for one in fields(grant)}
        return _Admission(**inherited, key=key, room=room)

    def _find(self, header: Header) -> Key | None:
        """Return the key of a token. A token without ``kid`` gets the only key, if there is exactly one."""
        if header.key_id is not None:
            return self._keys.get(header.key_id)
        return next(iter(self._keys.values())) if len(self._keys) == 1 else None

    @property
    def _denied(self) -> DenyList:
        return _NOTHING_DENIED if self._deny_file is None else self._deny_file.content

    def _files(self) -> Iterable[WatchedFile[Any]]:
        return self._key_files if self._deny_file is None else [*self._key_files, self._deny_file]

    def _change(self) -> None:
        self._collect_keys()
        self._log.info(
            "Keys and deny list were read again: {keys} keys", keys=len(self._keys), event="auth.changed"
        )
        for listener in list(self._listeners.values()):
            try:
                listener()
            except Exception:  # noqa: BLE001  # an error of one listener must not affect the others
                self._log.failure("A listener for changed keys has failed", event="auth.mistake")

    def _collect_keys(self) -> None:
        """Map names to keys; files take precedence over the set, and earlier files over later ones."""
        keys: dict[str, Key] = {}
        remote = self._remote.keys if self._remote is not None else ()
        for key in [*(key for file in self._key_files for key in file.content), *remote]:
            if keys.setdefault(key.key_id, key) != key:
                self._log.warn(
                    "Two different keys have the name {key_id}; the later one is not used",
                    key_id=key.key_id,
                    event="auth.key_shadowed",
                )
        self._keys = keys


def _reword_for_agent(failure: Failure) -> Failure:
    """Replace the message of a 401, which addresses a client's user, by the one for agents."""
    error = failure.value
    if isinstance(error, Refusal) and error.status == 401:
        raise refusal(f"{error.code}.agent") from error
    return failure


_NOTHING_DENIED = DenyList()
