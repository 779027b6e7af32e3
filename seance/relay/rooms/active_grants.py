"""Who is inside on which token, and what ends with it.

A token opens a session; the session must not outlive it. Once a second, and at once when keys or
the deny list have changed, every grant is asked whether it still is good; what was opened with one
that is not ends, with the reason. Nobody else is touched. Not the place where tokens are judged:
that is the ``Verifier``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime

from seance.core.interfaces import Grant, TokenRole, Verifier
from seance.errors import Refusal
from seance.net import PeerCertificate

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["ActiveGrants", "CertificateGrant", "GrantHandle"]

LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class CertificateGrant(Grant):
    """What an agent's certificate allows: to serve any room until it expires. Nobody takes it back."""

    @classmethod
    def of(cls, certificate: PeerCertificate) -> CertificateGrant:
        """Return what this certificate allows."""
        name = f"certificate {certificate.name}"
        return cls(TokenRole.AGENT, ("*",), certificate.expires_at, agent_identity=name)


@dataclass(eq=False, slots=True)
class GrantHandle:
    """One session that depends on one grant. ``release`` it when the session is over.

    Attributes:
        grants: The active grants of the relay.
        grant: The grant.
        end: Called once with a message when the grant has expired or was revoked.
        is_counted: Whether the session counts towards the limit of its token.
    """

    grants: ActiveGrants
    grant: Grant
    end: Callable[[str], None]
    is_counted: bool = True

    def release(self) -> None:
        """Remove the session; a second call does nothing."""
        self.grants.remove(self)

    @property
    def holder(self) -> str:
        """Whose sessions are counted together; empty for those that are not."""
        if not self.is_counted:
            return ""
        return self.grant.token_id or self.grant.subject or self.grant.key_id or ""


class ActiveGrants:
    """The sessions of one relay that stand on tokens.

    Args:
        reactor: Where time comes from.
        verifier: Whom to ask about tokens; None if there are none.
        now: What time it is, in Unix seconds, for certificates.
    """

    def __init__(
        self, reactor: IReactorTime, verifier: Verifier | None, now: Callable[[], float] = time.time
    ) -> None:
        self._reactor = reactor
        self._verifier = verifier
        self._now = now
        self._grants: dict[GrantHandle, None] = {}
        self._counts: dict[str, int] = {}
        self._timer: IDelayedCall | None = None
        self._stop_listening: Callable[[], None] | None = None

    def __len__(self) -> int:
        """The number of sessions that stand on tokens now."""
        return len(self._grants)

    def start(self) -> None:
        """Begin to look."""
        if self._verifier is not None:
            self._stop_listening = self._verifier.on_change(self.look)
        self._timer = self._reactor.callLater(LOOK_SECONDS, self._tick)

    def stop(self) -> None:
        """Look no more; the sessions are whoever stops us's to end."""
        if self._stop_listening is not None:
            self._stop_listening()
            self._stop_listening = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def add(
        self, grant: Grant, end: Callable[[str], None], *, most: int | None = None, is_counted: bool = True
    ) -> GrantHandle:
        """Note a session. ``remove`` it when it is over.

        Args:
            grant: What it stands on.
            end: Called once with a sentence when the grant is no longer good.
            most: How many sessions the token may have at a time; None for any number.
            is_counted: Whether this is one of those.

        Raises:
            Refusal: 429, this token has as many clients as it may have.
        """
        handle = GrantHandle(self, grant, end, is_counted)
        count = self._counts.get(handle.holder, 0)
        if most is not None and count >= most:
            sentence = "This token has as many connections as it allows; close one first."
            raise Refusal(429, sentence, code="token_full")
        self._counts[handle.holder] = count + 1
        self._grants[handle] = None
        return handle

    def remove(self, handle: GrantHandle) -> None:
        """Forget a session; once is enough, twice is harmless."""
        if handle in self._grants:
            del self._grants[handle]
            count = self._counts[handle.holder] - 1
            if count:
                self._counts[handle.holder] = count
            else:
                del self._counts[handle.holder]

    def look(self) -> None:
        """End every session whose grant is no longer good."""
        is_still_good = self._is_still_good
        for handle in [handle for handle in self._grants if not is_still_good(handle.grant)]:
            self.remove(handle)
            if isinstance(handle.grant, CertificateGrant):
                handle.end("The certificate of this session has expired.")
            else:
                handle.end("The token of this session has expired or was revoked.")

    def _is_still_good(self, grant: Grant) -> bool:
        if isinstance(grant, CertificateGrant):
            return self._now() < grant.expires_at
        return self._verifier is not None and self._verifier.is_still_good(grant)

    def _tick(self) -> None:
        self._timer = self._reactor.callLater(LOOK_SECONDS, self._tick)
        self.look()
