"""A JWK set from somebody else: which of its keys are ours to use, and when to ask for it again.

``keys_from_jwks`` reads a set that may hold keys of other kinds and for other ends; those are left
out. A shared secret or a private key in it is left out too: a set is there to be published, and
what is published signs nothing that counts.

``RemoteKeys`` keeps the set of an URL: asked for every five minutes, or at once when a token names
a key that is not in it, but then once a minute at most, whatever strangers put into their
tokens. A set that cannot be had changes nothing. How it is fetched is ``seance.auth.fetch``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from seance.auth.keys import MOST_KEYS, Key, key_from_jwk
from seance.auth.strict_json import object_from_json
from seance.net import plain_text

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["FETCH_SECONDS", "REFRESH_SECONDS", "RETRY_SECONDS", "RemoteKeys", "keys_from_jwks"]

REFRESH_SECONDS = 300.0
"""How old a set may become. A key that its issuer has removed counts for so long."""

RETRY_SECONDS = 60.0
"""The least time from one fetch to the next, for a failure or an unknown key."""

FETCH_SECONDS = 5.0
"""A fetch may take so long, and so may a token with an unknown key."""

MOST_WAITING = 1000
"""Tokens that wait for one fetch; one more is refused at once."""

PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "k"}


def keys_from_jwks(text: bytes) -> tuple[Key, ...]:
    """Return the keys of a set that verify signatures of ours.

    Raises:
        ValueError: It is not a JWK set, or one without a usable key, with half a sentence.
    """
    members = object_from_json(plain_text(text)).get("keys")
    if not isinstance(members, list) or len(members) > MOST_KEYS:
        msg = f"is not a JWK set of at most {MOST_KEYS} keys"
        raise ValueError(msg)
    keys: dict[str, Key] = {}
    for one in members:
        key = _usable_key(one)
        if key is not None:
            keys.setdefault(key.key_id, key)
    if members and not keys:
        msg = "holds no public key for EdDSA, RS256 or ES256"
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
    """The key set at an URL.

    Call ``start``; then ``keys`` is filled soon, and ``on_change`` is called whenever it changes.

    Args:
        reactor: Where time comes from.
        fetch: Fetches the set once; its Deferred can be cancelled.
        name: What to call the set in the log: its URL without a query.
        on_change: Called when other keys have come.

    Attributes:
        keys: The keys of the last set that could be had.
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
        self._began_at = 0.0
        self._fetching: Deferred[Any] | None = None
        self._timer: IDelayedCall | None = None
        self._waiting: dict[Deferred[None], None] = {}

    def start(self) -> None:
        """Fetch the set, now and from time to time."""
        self._is_running = True
        self.refresh()

    def stop(self) -> None:
        """Leave off; whoever waits is told at once."""
        self._is_running = False
        self._cancel_timer()
        if self._fetching is not None:
            self._fetching.cancel()

    def refresh(self) -> None:
        """Fetch the set now, unless that is under way; for a person who asks for it."""
        if self._fetching is None and self._is_running:
            self._begin()

    def when_refreshed(self) -> Deferred[None] | None:
        """Wait for a set that may hold a key which is not in this one.

        Returns:
            A Deferred that fires when the fetch has ended, well or not; None if none is
            under way and the last one began too short a time ago, or if too many wait already.
        """
        if not self._is_running or len(self._waiting) >= MOST_WAITING:
            return None
        if self._fetching is None:
            if self._reactor.seconds() - self._began_at < RETRY_SECONDS:
                return None
            self._begin()
        if self._fetching is None:
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._forget)
        self._waiting[waiting] = None
        return waiting

    def _begin(self) -> None:
        self._cancel_timer()
        self._began_at = self._reactor.seconds()
        self._fetching = fetching = maybeDeferred(self._fetch)
        read = fetching.addTimeout(FETCH_SECONDS, self._reactor).addCallback(keys_from_jwks)
        taken = read.addCallbacks(self._take, self._say_why_not).addErrback(self._log_mistake)
        taken.addCallback(self._settle)

    def _take(self, keys: tuple[Key, ...]) -> float:
        is_new = keys != self.keys
        self.keys = keys
        if is_new:
            self._on_change()
        return REFRESH_SECONDS

    def _say_why_not(self, failure: Failure) -> float:
        if self._is_running or not failure.check(CancelledError):
            self._log.warn(
                "The key set at {url} {problem}; the keys known so far stay in force.",
                url=self._name,
                problem=_problem(failure),
                event="auth.key_set_kept",
            )
        return RETRY_SECONDS

    def _log_mistake(self, failure: Failure) -> float:
        self._log.failure("A fetched key set could not be put to use", failure, event="auth.mistake")
        return RETRY_SECONDS

    def _settle(self, seconds: float) -> None:
        self._fetching = None
        if self._is_running:
            self._timer = self._reactor.callLater(seconds, self.refresh)
        while self._waiting:
            # One at a time: who is told first may cancel the waiting of another.
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
        return f"did not come within {FETCH_SECONDS:g} s"
    return f"could not be fetched ({type(failure.value).__name__})"
