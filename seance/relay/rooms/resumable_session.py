"""A session that the relay keeps for an agent whose carrier is lost. Only the relay judges.

An agent that comes back within the window, and shows the secret that it was given last, goes on
where it was: its clients' sockets were open all the time, and no byte is lost or doubled. Who has no
secret, the wrong one, or comes too late, begins a new session and is told so; its old clients are
then cut. Nothing of the old carrier is touched before the newcomer is proven. Rules and their
reasons: reliability.md 2.3 and 2.4. Wire format: docs/protocol.md, "Resumption".
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from seance.carrier import CarrierProtocol, ResumableTransport
from seance.core.settings import RelaySettings
from seance.core.token_bucket import TokenBucket
from seance.errors import LocalProtocolError, Refusal, RemoteProtocolError
from seance.mux import Mux
from seance.resume import Proof, ResumeRequest, SessionInfo

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["ResumableSession"]

SID_BYTES = 16
SECRET_BYTES = 32

CARRIERS_AT_ONCE = 5
CARRIERS_PER_SECOND = 0.5
"""A session may have so many new carriers: more often than every 2 s over time it only flaps."""


class ResumableSession:
    """One session over one carrier after the other.

    Args:
        reactor: Where time comes from.
        settings: The relay's.
        mux: The session; not started yet.
        on_change: Called whenever a carrier is lost that may come back, and when it has come.

    Attributes:
        sid: Its name; no secret.
    """

    _log = Logger()

    def __init__(
        self, reactor: IReactorTime, settings: RelaySettings, mux: Mux, on_change: Callable[[], None]
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._mux = mux
        self._on_change = on_change
        self.lasting = ResumableTransport(
            reactor, mux, on_detached=self._detached, kept_bytes=settings.resume_bytes
        )
        self.lasting.on_settled = self._settled
        self.sid = secrets.token_urlsafe(SID_BYTES)
        self._secret = secrets.token_urlsafe(SECRET_BYTES)
        self._proof = Proof(self._secret)
        self._carriers = TokenBucket(CARRIERS_PER_SECOND, CARRIERS_AT_ONCE, reactor.seconds())
        self._epoch = 0
        self._expiry: IDelayedCall | None = None

    @property
    def is_detached(self) -> bool:
        """Whether it waits for its agent to come back."""
        return self._expiry is not None

    @property
    def away_since_seconds(self) -> float:
        """When the carrier was lost; 0 while it is there."""
        return 0.0 if self._expiry is None else self._expiry.getTime() - self._settings.resume_seconds

    @property
    def kept_bytes(self) -> int:
        """What it holds in memory for its agent."""
        return self.lasting.continuity.outgoing.kept_bytes

    def begin(self, why: str = "") -> SessionInfo:
        """Expect the first carrier.

        Args:
            why: Why it is not an older session that goes on, if that was asked for.

        Returns:
            What the 101 has to say. Next: ``on_open``.
        """
        self._epoch = self.lasting.begin(0, 0)
        return self._field(is_resumed=False, why=why)

    def is_asked_for(self, resume_request: ResumeRequest) -> bool:
        """Whether whoever wishes so is the agent of this session: takes the same time for each secret."""
        return secrets.compare_digest(resume_request.sid, self.sid) & self._proof.fits(resume_request.token)

    def resume(self, resume_request: ResumeRequest) -> SessionInfo | None:
        """Expect another carrier in place of the one before, which is cut if it is still there.

        Args:
            resume_request: Of the agent that ``is_asked_for``.

        Returns:
            What the 101 has to say, next: ``on_open``; or None if the numbers do not fit, and
            then nothing has changed.

        Raises:
            Refusal: 429, it comes back again and again.
        """
        if not self._carriers.take(1, self._reactor.seconds()):
            sentence = "This session gets a new connection too often; wait a little."
            retry_after = (b"Retry-After", b"%d" % round(1 / CARRIERS_PER_SECOND))
            raise Refusal(429, sentence, code="session_flaps", headers=(retry_after,))
        try:
            self._epoch = self.lasting.begin(resume_request.received, resume_request.crc)
        except (LocalProtocolError, RemoteProtocolError) as error:
            self._log.warn("A session cannot be resumed: {reason}", reason=str(error), event="session.gap")
            return None
        self._secret = secrets.token_urlsafe(SECRET_BYTES)
        self._proof.renew(resume_request.token, self._secret)
        return self._field(is_resumed=True)

    def on_open(self, inlet: CarrierProtocol) -> None:
        """The carrier that was expected is open."""
        self._stop_waiting()
        self._mux.resume_clock()
        self.lasting.join(inlet, self._epoch)
        self._on_change()

    def give_up(self) -> None:
        """The carrier that was expected did not open."""
        self.lasting.give_up(self._epoch)

    def end(self, sentence: str) -> None:
        """Wait no longer."""
        self._stop_waiting()
        self.lasting.expire(sentence)

    # -- inside ----------------------------------------------------------------------------

    def _field(self, *, is_resumed: bool, why: str = "") -> SessionInfo:
        incoming = self.lasting.continuity.incoming
        return SessionInfo(
            sid=self.sid,
            token=self._secret,
            epoch=self._epoch,
            received=incoming.count,
            crc=incoming.crc,
            window_seconds=self._settings.resume_seconds,
            is_resumed=is_resumed,
            why=why,
        )

    def _detached(self, sentence: str) -> None:
        self._mux.pause_clock()
        if self._expiry is None:
            self._expiry = self._reactor.callLater(self._settings.resume_seconds, self._expired)
        self._on_change()

    def _expired(self) -> None:
        self._expiry = None
        self.lasting.expire("The agent did not come back in time.")

    def _settled(self) -> None:
        self._proof.settle()

    def _stop_waiting(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
