"""Decides which subprotocols the next dial offers: all, or none after a relay has selected one wrongly.

Servers made with Node's ``ws`` select the first offered subprotocol without supporting it, and some proxies
send the whole offer back. After such a response the agent offers nothing for a minute, as a plain agent does.
Afterwards it offers all subprotocols again, because a Seance relay may run there by then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.logger import Logger

from seance.agent.relay_link import RelayLink
from seance.errors import CarrierLost, NegotiationFailed

__all__ = ["SubprotocolOffer"]

PLAIN_SECONDS: Final = 60.0
"""Time without an offer after an unusable response. Each further try costs one handshake."""

SERVER_PREFIX: Final = "seance-relay"
"""Prefix of a Seance relay's ``Server`` field. Some proxies replace it, so its absence proves nothing."""


class SubprotocolOffer:
    """The subprotocol offers of one agent.

    Args:
        seconds: Returns the monotonic time in seconds.
        is_always_plain: Whether to offer no subprotocol in any dial.
    """

    _log = Logger()

    def __init__(self, seconds: Callable[[], float], *, is_always_plain: bool) -> None:
        self._seconds = seconds
        self._is_always_plain = is_always_plain
        self._plain_until = 0.0
        self._is_plain = self._resumes = False  # of the latest dial
        self._is_altered = False  # whether a proxy alters responses: an unusable one was a Seance relay's

    def choose_plain(self, *, resumes: bool) -> bool:
        """Return whether the next dial offers no subprotocol.

        Args:
            resumes: Whether the dial is to resume a session. Such a dial always offers all subprotocols,
                because a plain link would end the session and its clients.
        """
        self._resumes = resumes
        is_plain_now = self._seconds() < self._plain_until and not resumes
        self._is_plain = self._is_always_plain or is_plain_now
        return self._is_plain

    def note_failed(self, error: NegotiationFailed) -> bool:
        """Offer nothing for a minute, because the relay has selected an unusable subprotocol.

        Returns:
            Whether the next dial offers less than this one did.
        """
        if self._is_plain or self._resumes:
            return False
        self._is_altered = error.server.startswith(SERVER_PREFIX)
        self._plain_until = self._seconds() + PLAIN_SECONDS
        self._log.warn(
            "[Agent] The agent offers no subprotocol for {seconds:g} s and its clients are disconnected "
            "whenever the carrier is lost. If the relay is not a Seance relay, set --plain",
            seconds=PLAIN_SECONDS,
            event="link.plain",
        )
        return True

    def check(self, relay_link: RelayLink) -> RelayLink:
        """Return ``relay_link``; end it if it is plain although a Seance relay runs there now.

        Raises:
            CarrierLost: The link was ended; the next dial offers all subprotocols.
        """
        carrier = relay_link.carrier
        server = "" if carrier is None else carrier.headers.get("server", "")
        is_mistaken = self._is_plain and not self._is_always_plain and not self._is_altered
        if is_mistaken and server.startswith(SERVER_PREFIX):
            self._plain_until = 0.0
            message = "The relay is a Seance relay after all; the next attempt offers resumption again."
            relay_link.end(message)
            raise CarrierLost(message, code="offers")
        return relay_link
