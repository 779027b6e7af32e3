"""Which subprotocols the next dial offers: all, or none after a relay has selected one that it does not know.

Servers made with Node's ``ws`` select the first subprotocol of the offer without knowing it, and some proxies
send the whole offer back. After such an answer the agent offers nothing for a minute: it is a plain agent
then. Afterwards it offers everything again, because a Seance relay may run there by now.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.logger import Logger

from seance.agent.relay_link import RelayLink
from seance.errors import CarrierLost, NegotiationFailed

__all__ = ["SubprotocolOffer"]

PLAIN_SECONDS: Final = 60.0
"""How long nothing is offered after an unusable answer. Each further try costs one handshake."""

OURS: Final = "seance-relay"
"""How the ``Server`` field of our relay begins. Some proxies replace it, so its absence means nothing."""


class SubprotocolOffer:
    """The offers of one agent to its relay.

    Args:
        seconds: Returns the time, in seconds, monotonic.
        is_always_plain: Whether never to offer anything.
    """

    _log = Logger()

    def __init__(self, seconds: Callable[[], float], *, is_always_plain: bool) -> None:
        self._seconds = seconds
        self._is_always_plain = is_always_plain
        self._plain_until = 0.0
        self._is_plain = self._resumes = False  # what the latest dial was
        self._is_altered = False  # the unusable answer was our relay's, so a proxy alters its answers

    def choose_plain(self, *, resumes: bool) -> bool:
        """Return whether the next dial offers nothing.

        Args:
            resumes: Whether the dial is to resume a session. It always offers everything, because a plain
                link would end the session and its clients.
        """
        self._resumes = resumes
        is_within = self._seconds() < self._plain_until
        self._is_plain = self._is_always_plain or (is_within and not resumes)
        return self._is_plain

    def note_failed(self, error: NegotiationFailed) -> bool:
        """Offer nothing for a minute after an answer that selects an unusable subprotocol.

        Returns:
            Whether the next dial offers less than this one did.
        """
        if self._is_plain or self._resumes:
            return False
        self._is_altered = error.server.startswith(OURS)
        self._plain_until = self._seconds() + PLAIN_SECONDS
        self._log.warn(
            "[Agent] The agent offers no subprotocol for {seconds:g} s and its clients are disconnected "
            "whenever the carrier is lost. If the relay is of another make, set --plain",
            seconds=PLAIN_SECONDS,
            event="link.plain",
        )
        return True

    def check(self, relay_link: RelayLink) -> RelayLink:
        """Return ``relay_link``, unless it is plain by mistake: our relay runs there by now.

        Raises:
            CarrierLost: It is plain by mistake and has ended; the next dial offers everything.
        """
        carrier = relay_link.carrier
        server = "" if carrier is None else carrier.headers.get("server", "")
        is_mistaken = self._is_plain and not self._is_always_plain and not self._is_altered
        if is_mistaken and server.startswith(OURS):
            self._plain_until = 0.0
            sentence = "The relay is a Seance relay after all; the next attempt offers resumption again."
            relay_link.end(sentence)
            raise CarrierLost(sentence, code="offers")
        return relay_link
