"""The sessions that depend on a token or certificate, and their end when it is no longer valid.

Every grant is checked once a second, and immediately when keys or the deny list change. A session whose grant
has expired or was revoked ends with the reason; other sessions are not affected. The ``Verifier`` decides
whether a token is valid.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime

from seance.core.interfaces import Grant, TokenRole, Verifier
from seance.net import PeerCertificate
from seance.relay.refusals import refusal

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["ActiveGrants", "CertificateGrant", "GrantHandle"]

CHECK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class CertificateGrant(Grant):
    """The grant of an agent certificate: any room, until the certificate expires. It cannot be revoked."""

    @classmethod
    def of(cls, certificate: PeerCertificate) -> CertificateGrant:
        """Return the grant of a certificate."""
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
        """The key under which sessions are counted; empty if this one is not counted."""
        if not self.is_counted:
            return ""
        return self.grant.token_id or self.grant.subject or self.grant.key_id or ""


class ActiveGrants:
    """The sessions of one relay that depend on a grant.

    Args:
        reactor: Twisted's reactor or a ``Clock``.
        verifier: Verifies tokens; None if only certificates are used.
        now: Returns the Unix time in seconds, for certificates.
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
        """The number of sessions that depend on a grant."""
        return len(self._grants)

    def start(self) -> None:
        """Start the periodic check."""
        if self._verifier is not None:
            self._stop_listening = self._verifier.on_change(self.check)
        self._timer = self._reactor.callLater(CHECK_SECONDS, self._tick)

    def stop(self) -> None:
        """Stop the periodic check; the caller ends the sessions."""
        if self._stop_listening is not None:
            self._stop_listening()
            self._stop_listening = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def add(
        self,
        grant: Grant,
        end: Callable[[str], None],
        *,
        max_sessions: int | None = None,
        is_counted: bool = True,
    ) -> GrantHandle:
        """Add a session. Call ``GrantHandle.release`` when it is over.

        Args:
            grant: The grant.
            end: Called once with a message when the grant has expired or was revoked.
            max_sessions: Sessions that the token may have at a time; None for no limit.
            is_counted: Whether this session counts towards the limit.

        Raises:
            Refusal: 429, the token has the maximum number of sessions.
        """
        handle = GrantHandle(self, grant, end, is_counted)
        count = self._counts.get(handle.holder, 0)
        if max_sessions is not None and count >= max_sessions:
            raise refusal("token_full")
        self._counts[handle.holder] = count + 1
        self._grants[handle] = None
        return handle

    def remove(self, handle: GrantHandle) -> None:
        """Remove a session; a second call does nothing."""
        if handle in self._grants:
            del self._grants[handle]
            count = self._counts[handle.holder] - 1
            if count:
                self._counts[handle.holder] = count
            else:
                del self._counts[handle.holder]

    def check(self) -> None:
        """End every session with an expired or revoked grant."""
        is_valid = self._is_valid
        for handle in [handle for handle in self._grants if not is_valid(handle.grant)]:
            self.remove(handle)
            if isinstance(handle.grant, CertificateGrant):
                handle.end("The certificate of this session has expired.")
            else:
                handle.end("The token of this session has expired or was revoked.")

    def _is_valid(self, grant: Grant) -> bool:
        if isinstance(grant, CertificateGrant):
            return self._now() < grant.expires_at
        return self._verifier is not None and self._verifier.is_still_good(grant)

    def _tick(self) -> None:
        self._timer = self._reactor.callLater(CHECK_SECONDS, self._tick)
        self.check()
