"""JWK sets of other issuers: selects the usable keys, and refreshes the set of a URL.

``keys_from_jwks`` ignores keys of other kinds and for other purposes. It also ignores shared secrets and
private keys: a set is published, and signatures of a published secret prove nothing. PyJWT's ``PyJWKSet``
would accept both, and keys of any algorithm and size.

``RemoteKeys`` fetches the set of a URL every five minutes. It fetches immediately if a token names a key
that is not in the set, but at most once a minute, because anyone can send such tokens. If a fetch fails, the
last set stays in use. ``seance.auth.fetch`` does the fetching.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from seance.auth.keys import MAX_KEYS, Key, key_from_jwk
from seance.auth.strict_json import object_from_json
from seance.net import plain_text

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["FETCH_SECONDS", "REFRESH_SECONDS", "RETRY_SECONDS", "RemoteKeys", "keys_from_jwks"]

REFRESH_SECONDS = 300.0
"""Time from one fetch to the next. A key that its issuer has removed may be used for this long."""

RETRY_SECONDS = 60.0
"""Minimum time between fetches, after a failure or for an unknown key."""

FETCH_SECONDS = 5.0
"""Time limit of a fetch, and so for verifying a token with an unknown key."""

MAX_WAITING = 1000
"""Maximum number of tokens that wait for a fetch; further ones are refused."""

PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "k"}


def keys_from_jwks(text: bytes) -> tuple[Key, ...]:
    """Return the usable keys of a set; if a ``kid`` occurs twice, the first key.

    Raises:
        ValueError: It is not a JWK set, or no key is usable; see ``keys_from_text``.
    """
    members = object_from_json(plain_text(text)).get("keys")
    if not isinstance(members, list) or len(members) > MAX_KEYS:
        msg = f"is not a JWK set of at most {MAX_KEYS} keys"
        raise ValueError(msg)
    keys: dict[str, Key] = {}
    for one in members:
        key = _usable_key(one)
        if key is not None:
            keys.setdefault(key.key_id, key)
    if members and not keys:
        msg = "contains no public key for EdDSA, RS256 or ES256"
        raise ValueError(msg)
    return tuple(keys.values())


def _usable_key(member: object) -> Key | None:
    if not isinstance(member, dict) or member.keys() & PRIVATE_MEMBERS:
        return None
    try:
        return key_from_jwk(member)
    except ValueError:
        return None


class RemoteKeys:
    """The key set at a URL.

    Args:
        reactor: Twisted's reactor.
        fetch: Fetches the set once; its Deferred can be cancelled.
        name: Name of the set in the log: its URL without the query.
        on_change: Called when the keys have changed.

    Attributes:
        keys: The keys of the last set that was fetched.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        fetch: Callable[[], Deferred[bytes]],
        *,
        name: str,
        on_change: Callable[[], None],
    ) -> None:
        self.keys: tuple[Key, ...] = ()
        self._reactor = reactor
        self._fetch = fetch
        self._name = name
        self._on_change = on_change
        self._is_running = False
        self._started_at = 0.0
        self._fetching: Deferred[Any] | None = None
        self._timer: IDelayedCall | None = None
        self._waiting: dict[Deferred[None], None] = {}

    def start(self) -> None:
        """Fetch the set now and every ``REFRESH_SECONDS``."""
        self._is_running = True
        self.refresh()

    def stop(self) -> None:
        """Stop refreshing, and fire all waiting Deferreds."""
        self._is_running = False
        self._cancel_timer()
        if self._fetching is not None:
            self._fetching.cancel()

    def refresh(self) -> None:
        """Fetch the set now, even if the last fetch was recent; does nothing during a fetch."""
        if self._fetching is None and self._is_running:
            self._start_fetch()

    def when_refreshed(self) -> Deferred[None] | None:
        """Wait for a new set, which may contain an unknown key.

        Returns:
            A Deferred that fires when the current fetch ends, also if it fails. None if too many are
            waiting, or if no fetch is running and the last one started less than ``RETRY_SECONDS`` ago.
        """
        if not self._is_running or len(self._waiting) >= MAX_WAITING:
            return None
        if self._fetching is None:
            if self._reactor.seconds() - self._started_at < RETRY_SECONDS:
                return None
            self._start_fetch()
        if self._fetching is None:
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._forget)
        self._waiting[waiting] = None
        return waiting

    def _start_fetch(self) -> None:
        self._cancel_timer()
        self._started_at = self._reactor.seconds()
        self._fetching = fetching = maybeDeferred(self._fetch)
        fetching.addTimeout(FETCH_SECONDS, self._reactor).addCallback(keys_from_jwks)
        delay = fetching.addCallbacks(self._use, self._log_failure).addErrback(self._log_mistake)
        delay.addCallback(self._finish_fetch)

    def _use(self, keys: tuple[Key, ...]) -> float:
        is_new = keys != self.keys
        self.keys = keys
        if is_new:
            self._on_change()
        return REFRESH_SECONDS

    def _log_failure(self, failure: Failure) -> float:
        if self._is_running or not failure.check(CancelledError):
            self._log.warn(
                "The key set at {url} {problem}; the last keys stay in use.",
                url=self._name,
                problem=_problem(failure),
                event="auth.key_set_kept",
            )
        return RETRY_SECONDS

    def _log_mistake(self, failure: Failure) -> float:
        self._log.failure("A fetched key set could not be used", failure, event="auth.mistake")
        return RETRY_SECONDS

    def _finish_fetch(self, delay_seconds: float) -> None:
        self._fetching = None
        if self._is_running:
            self._timer = self._reactor.callLater(delay_seconds, self.refresh)
        while self._waiting:
            # One at a time, because a callback may cancel another Deferred in the table.
            waiting = next(iter(self._waiting))
            del self._waiting[waiting]
            waiting.callback(None)

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _forget(self, waiting: Deferred[None]) -> None:
        self._waiting.pop(waiting, None)


def _problem(failure: Failure) -> str:
    if failure.check(ValueError):
        return failure.getErrorMessage()
    if failure.check(defer.TimeoutError):
        return f"did not arrive within {FETCH_SECONDS:g} s"
    return f"could not be fetched ({type(failure.value).__name__})"
