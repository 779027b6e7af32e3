"""The heartbeat of one carrier: sends WebSocket pings and cuts the carrier when the peer is dead.

``seance.resume.Heartbeat`` decides when to ping and when the peer counts as dead; this module has the timer,
the ping and the cut. Every WebSocket implementation answers pings, so this also works with plain peers. Relay
and agent each run one for their end of a carrier, and the first to notice cuts it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime

from seance.carrier.transport import Carrier
from seance.resume import CHECK_SECONDS, Heartbeat, HeartbeatAction

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["CarrierHeartbeat"]


class CarrierHeartbeat:
    """Checks one open carrier every second, from now on. Call ``stop`` when the carrier is lost.

    Args:
        reactor: Provides the time.
        carrier: The carrier to check.
        is_owed: Returns whether the peer has data to acknowledge; a plain peer never has.
    """

    def __init__(
        self, reactor: IReactorTime, carrier: Carrier, is_owed: Callable[[], bool] = lambda: False
    ) -> None:
        self._reactor = reactor
        self._carrier = carrier
        self._is_owed = is_owed
        self._heartbeat = Heartbeat(reactor.seconds())
        self._is_probed = False
        self._timer: IDelayedCall | None = reactor.callLater(CHECK_SECONDS, self._check)

    def probe(self) -> None:
        """Ping now, and cut the carrier if there is no answer within two seconds (after a network change)."""
        if self._timer is not None:
            if not self._is_probed:
                self._carrier.has_heard = False  # earlier bytes do not answer this ping
            self._is_probed = True
            self._carrier.ping()
            self._heartbeat.probe(self._reactor.seconds())

    def stop(self) -> None:
        """Stop checking, because the carrier is lost."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = self._reactor.callLater(CHECK_SECONDS, self._check)
        carrier = self._carrier
        has_heard, carrier.has_heard = carrier.has_heard, False
        self._is_probed = self._is_probed and not has_heard
        beat = self._heartbeat.check(self._reactor.seconds(), has_heard=has_heard, is_owed=self._is_owed())
        if beat is HeartbeatAction.PING:
            carrier.ping()
        elif beat is HeartbeatAction.DEAD:
            self.stop()
            carrier.abortConnection()
