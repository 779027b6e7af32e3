"""The relay's side of a session that is kept while its agent has no carrier.

An agent that returns within the resume window with its latest secret continues the session: its clients'
sockets stayed open, and no byte is lost or sent twice. An agent without a secret, with a wrong one, or after
the window starts a new session, and its 101 says so; the clients of the old session are then cut. The old
carrier is not touched before the new one is verified. Wire format: docs/protocol.md, "Resumption".
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
from seance.errors import LocalProtocolError, RemoteProtocolError
from seance.mux import Mux
from seance.relay.refusals import refusal
from seance.resume import Proof, ResumeRequest, SessionInfo

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["ResumableSession"]

SID_BYTES = 16
SECRET_BYTES = 32

CARRIER_BURST = 5
CARRIERS_PER_SECOND = 0.5
"""Limit of new carriers of one session: a burst, and then one every 2 s. A faster session only flaps."""


class ResumableSession:
    """One session over a sequence of carriers.

    Args:
        reactor: Twisted's reactor or a ``Clock``.
        settings: The settings of the relay.
        mux: The yamux session; not started yet.
        on_change: Called when a carrier is lost and the agent may resume, and when it has resumed.

    Attributes:
        sid: The public identifier of the session.
    """

    _log = Logger()

    def __init__(
        self, reactor: IReactorTime, settings: RelaySettings, mux: Mux, on_change: Callable[[], None]
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._mux = mux
        self._on_change = on_change
        self.transport = ResumableTransport(
            reactor, mux, on_detached=self._detached, kept_bytes=settings.resume_bytes
        )
        self.transport.on_settled = self._settled
        self.sid = secrets.token_urlsafe(SID_BYTES)
        self._secret = secrets.token_urlsafe(SECRET_BYTES)
        self._proof = Proof(self._secret)
        self._carriers = TokenBucket(CARRIERS_PER_SECOND, CARRIER_BURST, reactor.seconds())
        self._epoch = 0
        self._expiry: IDelayedCall | None = None

    @property
    def is_detached(self) -> bool:
        """Whether the carrier is lost and the session waits for its agent."""
        return self._expiry is not None

    @property
    def away_since_seconds(self) -> float:
        """When the carrier was lost, by the reactor's clock; 0 while there is a carrier."""
        return 0.0 if self._expiry is None else self._expiry.getTime() - self._settings.resume_seconds

    @property
    def kept_bytes(self) -> int:
        """Bytes in memory that the agent has not acknowledged."""
        return self.transport.continuity.outgoing.kept_bytes

    def begin(self, why: str = "") -> SessionInfo:
        """Expect the first carrier.

        Args:
            why: Why an older session is not resumed, if the agent asked for that.

        Returns:
            The field for the 101. ``on_open`` follows.
        """
        self._epoch = self.transport.begin(0, 0)
        return self._field(is_resumed=False, why=why)

    def is_asked_for(self, resume_request: ResumeRequest) -> bool:
        """Whether a request has the identifier and the secret of this session; in constant time."""
        return secrets.compare_digest(resume_request.sid, self.sid) & self._proof.fits(resume_request.token)

    def resume(self, resume_request: ResumeRequest) -> SessionInfo | None:
        """Expect another carrier; the current one is cut if it is still open.

        Args:
            resume_request: A request for which ``is_asked_for`` is true.

        Returns:
            The field for the 101, ``on_open`` follows; None, with nothing changed, if the byte counts do not
            fit.

        Raises:
            Refusal: 429, the session resumes too often.
        """
        if not self._carriers.take(1, self._reactor.seconds()):
            raise refusal("session_flaps")
        try:
            self._epoch = self.transport.begin(resume_request.received, resume_request.crc)
        except (LocalProtocolError, RemoteProtocolError) as error:
            self._log.warn("A session cannot be resumed: {reason}", reason=str(error), event="session.gap")
            return None
        self._secret = secrets.token_urlsafe(SECRET_BYTES)
        self._proof.renew(resume_request.token, self._secret)
        return self._field(is_resumed=True)

    def on_open(self, protocol: CarrierProtocol) -> None:
        """Continue on the expected carrier, which is open."""
        self._stop_waiting()
        self._mux.resume_clock()
        self.transport.join(protocol, self._epoch)
        self._on_change()

    def give_up(self) -> None:
        """Note that the expected carrier did not open."""
        self.transport.give_up(self._epoch)

    def end(self, message: str) -> None:
        """End the session."""
        self._stop_waiting()
        self.transport.expire(message)

    # -- inside ----------------------------------------------------------------------------

    def _field(self, *, is_resumed: bool, why: str = "") -> SessionInfo:
        incoming = self.transport.continuity.incoming
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

    def _detached(self, message: str) -> None:
        self._mux.pause_clock()
        if self._expiry is None:
            self._expiry = self._reactor.callLater(self._settings.resume_seconds, self._expired)
        self._on_change()

    def _expired(self) -> None:
        self._expiry = None
        self.transport.expire("The agent did not come back in time.")

    def _settled(self) -> None:
        self._proof.settle()

    def _stop_waiting(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
