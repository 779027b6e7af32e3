"""What comes of one dial of an agent: the old session again, or a new one, or neither.

The relay says in its 101 which it is. An old one that it has not kept ends here at that moment, and
its connections to the local server with it. Whoever resumes has to find the ``Seance-Session`` field:
something between us that answers in the relay's place does not write it (reliability.md 2.4, R17).
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

__all__ = ["DialResult", "retry_after_seconds"]

NO_SESSION = (
    "The relay selected seance.resume.v1, but its answer does not say which session this is: "
    "it is a relay of another make, or something between us alters its answers."
)

LONGEST_RETRY_SECONDS = 60.0
"""No relay can make us wait longer with ``Retry-After``."""


class DialResult:
    """What comes of one dial. Give ``make_protocol`` to ``dial``; then ask for the ``result``.

    Args:
        attach: Makes a session for a negotiated subprotocol.
        kept: The session that was asked for, if one was.
    """

    def __init__(self, attach: Callable[[str | None], RelayLink], kept: RelayLink | None) -> None:
        self._attach = attach
        self._kept = kept
        self._relay_link: RelayLink | None = None
        self._wish = None if kept is None else kept.resume_request()
        self._problem = NO_SESSION
        self._server: str | None = None  # of a 101 that selects resumption and names no session

    @property
    def resumes(self) -> bool:
        """Whether there is a session to go on with."""
        return self._wish is not None

    def headers(self) -> dict[str, str]:
        """Return what the request says about the session to go on with."""
        return {} if self._wish is None else {RESUME_FIELD: self._wish.written()}

    def make_protocol(self, subprotocol: str | None) -> IProtocol:
        """Make what runs over the carrier."""
        if subprotocol == RESUMABLE:
            return CarrierProtocol(self._opened)
        self._relay_link = self._attach(subprotocol)
        return self._relay_link.mux

    def result(self) -> RelayLink:
        """Return the session, whose carrier is open now.

        Raises:
            NegotiationFailed: The relay selected resumption and does not know what that is.
            CarrierLost: There is none.
        """
        relay_link = self._relay_link
        if self._server is not None:
            raise NegotiationFailed(NO_SESSION, code="no_session", server=self._server)
        if relay_link is None:
            raise CarrierLost(self._problem, code="no_session")
        if relay_link.carrier is None:
            self._give_up_kept("it does not resume sessions any more")
            relay_link.note_open()
        return relay_link

    def _opened(self, inlet: CarrierProtocol) -> None:
        carrier = inlet.carrier
        field = SessionInfo.read(carrier.headers.get(SESSION_FIELD.lower(), ""))
        if field is None:
            self._server = carrier.headers.get("server", "")
            carrier.abortConnection()  # no stream has been opened over it
        elif field.is_resumed:
            self._resume(inlet, carrier, field)
        else:
            self._give_up_kept(field.why)
            self._relay_link = self._attach(RESUMABLE)
            self._relay_link.open(inlet, field)

    def _resume(self, inlet: CarrierProtocol, carrier: Carrier, field: SessionInfo) -> None:
        kept = self._kept
        try:
            if kept is None or kept.is_over:
                raise RemoteProtocolError("The session was over before it was resumed.", code="resume")
            kept.resume(inlet, field)
        except RemoteProtocolError as error:
            self._problem = error.sentence
            carrier.send_control(BYE)
            carrier.close(CloseCode.PROTOCOL_ERROR, error.sentence)
        else:
            self._relay_link = kept

    def _give_up_kept(self, why: str) -> None:
        if self._kept is not None:
            self._kept.end(f"The relay has not kept the session: {why or 'no reason is given'}.")


def retry_after_seconds(error: Refusal | CarrierLost) -> float:
    """Return for how long a relay asks us to stay away.

    Made up to a quarter longer by chance, so that not all who were refused together come together.
    """
    if not isinstance(error, Refusal):
        return 0.0
    for name, value in error.headers:
        if name.lower() == b"retry-after" and value.isdigit() and len(value) <= 5:
            return min(float(value), LONGEST_RETRY_SECONDS) * (1 + random.random() / 4)  # noqa: S311  # no secret
    return 0.0


def is_told_to_give_way(error: Refusal | CarrierLost) -> bool:
    """Whether the relay says that another process with our key has taken the room meanwhile."""
    fields = () if isinstance(error, CarrierLost) else error.headers
    return any(name.lower() == REPLACE_FIELD.lower().encode() and value == b"no" for name, value in fields)
