"""The result of one dial of an agent: the old session resumed, a new session, or a failure.

The relay says in its 101 which session it is. If the relay has not kept the old session, that session ends
here, with its connections to the local server. A resumable 101 without the ``Seance-Session`` field does not
come from a Seance relay, but from something in between that answers in its place.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from twisted.internet.interfaces import IProtocol

from seance.agent.relay_link import RelayLink
from seance.carrier import RESUMABLE, Carrier, CarrierProtocol, CloseCode
from seance.core.handshake_fields import REPLACE_FIELD
from seance.errors import CarrierLost, NegotiationFailed, Refusal, RemoteProtocolError
from seance.resume import BYE, RESUME_FIELD, SESSION_FIELD, SessionInfo

__all__ = ["DialResult", "is_replaced", "retry_after_seconds"]

NO_SESSION = (
    "The relay selected seance.resume.v1, but its response has no session: it is not a Seance relay, "
    "or a proxy in between alters its responses."
)

MAX_RETRY_AFTER_SECONDS = 60.0
"""Longest ``Retry-After`` of a relay that the agent follows."""


class DialResult:
    """Collects the result of one dial. Give ``make_protocol`` to ``dial``; then call ``result``.

    Args:
        make_link: Makes a link for a negotiated subprotocol.
        kept: The link to resume, if there is one.
    """

    def __init__(self, make_link: Callable[[str | None], RelayLink], kept: RelayLink | None) -> None:
        self._make_link = make_link
        self._kept = kept
        self._relay_link: RelayLink | None = None
        self._resume_request = None if kept is None else kept.resume_request()
        self._problem = NO_SESSION
        self._server: str | None = None  # of a 101 that selects resumption and has no session

    @property
    def resumes(self) -> bool:
        """Whether the dial asks to resume a session."""
        return self._resume_request is not None

    def headers(self) -> dict[str, str]:
        """Return the header field that asks to resume the session, if there is one."""
        return {} if self._resume_request is None else {RESUME_FIELD: self._resume_request.written()}

    def make_protocol(self, subprotocol: str | None) -> IProtocol:
        """Make the protocol that runs over the carrier."""
        if subprotocol == RESUMABLE:
            return CarrierProtocol(self._opened)
        self._relay_link = self._make_link(subprotocol)
        return self._relay_link.mux

    def result(self) -> RelayLink:
        """Return the link; its carrier is open.

        Raises:
            NegotiationFailed: The relay selected resumption without supporting it.
            CarrierLost: There is no session.
        """
        relay_link = self._relay_link
        if self._server is not None:
            raise NegotiationFailed(NO_SESSION, code="no_session", server=self._server)
        if relay_link is None:
            raise CarrierLost(self._problem, code="no_session")
        if relay_link.carrier is None:
            self._end_kept("it does not resume sessions any more")
            relay_link.attach_plain()
        return relay_link

    def _opened(self, inlet: CarrierProtocol) -> None:
        carrier = inlet.carrier
        session = SessionInfo.read(carrier.headers.get(SESSION_FIELD.lower(), ""))
        if session is None:
            self._server = carrier.headers.get("server", "")
            carrier.abortConnection()  # no stream has been opened over it
        elif session.is_resumed:
            self._resume(inlet, carrier, session)
        else:
            self._end_kept(session.why)
            self._relay_link = self._make_link(RESUMABLE)
            self._relay_link.attach(inlet, session)

    def _resume(self, inlet: CarrierProtocol, carrier: Carrier, session: SessionInfo) -> None:
        kept = self._kept
        try:
            if kept is None or kept.is_lost:
                raise RemoteProtocolError("The session had ended before it was resumed.", code="resume")
            kept.resume(inlet, session)
        except RemoteProtocolError as error:
            self._problem = error.message
            carrier.send_control(BYE)
            carrier.close(CloseCode.PROTOCOL_ERROR, error.message)
        else:
            self._relay_link = kept

    def _end_kept(self, why: str) -> None:
        if self._kept is not None:
            self._kept.end(f"The relay has not kept the session: {why or 'no reason is given'}.")


def retry_after_seconds(error: Refusal | CarrierLost) -> float:
    """Return the relay's ``Retry-After``; 0 if there is none.

    Lengthened by up to a quarter at random, so that agents which were refused together do not return
    together.
    """
    if not isinstance(error, Refusal):
        return 0.0
    for name, value in error.headers:
        if name.lower() == b"retry-after" and value.isdigit() and len(value) <= 5:
            jitter = 1 + random.random() / 4  # noqa: S311  # no secret
            return min(float(value), MAX_RETRY_AFTER_SECONDS) * jitter
    return 0.0


def is_replaced(error: Refusal | CarrierLost) -> bool:
    """Return whether the relay reports that another process with the same key has taken the room."""
    fields = () if isinstance(error, CarrierLost) else error.headers
    return any(name.lower() == REPLACE_FIELD.lower().encode() and value == b"no" for name, value in fields)
